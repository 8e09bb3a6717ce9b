use paraslot_spec::ahci::{Cap, PortError, SIGNATURE_ATA, SIGNATURE_NONE};

use super::*;

#[test]
fn a_machine_that_was_just_switched_on_has_the_values_after_reset() {
    let mut machine = Machine::off(numbered());
    let cap = Cap::from_bits_retain(machine.read(host::CAP));
    assert_eq!(cap.bits() & Cap::NP, 5);
    assert_eq!((cap.bits() & Cap::NCS) >> Cap::NCS_SHIFT, 31);
    assert_eq!((cap.bits() & Cap::ISS) >> Cap::ISS_SHIFT, 3);
    assert!(cap.contains(Cap::SNCQ | Cap::S64A | Cap::SAM | Cap::SCLO));
    let absent = Cap::SSNTF | Cap::SPM | Cap::FBSS | Cap::CCCS | Cap::EMS | Cap::SSS;
    assert!(!cap.intersects(absent));
    assert_eq!(machine.read(host::GHC), Ghc::AE.bits());
    assert_eq!(machine.read(host::PI), 0x3f);
    assert_eq!(machine.read(host::VS), 0x1_0301);
    assert_eq!((machine.get(port::SSTS), machine.get(port::TFD)), (0x133, 0x7f));
    assert_eq!(machine.get(port::SIG), SIGNATURE_NONE);
    // Port 1 has no device.
    let empty = port_base(1);
    assert_eq!((machine.read(empty + port::SSTS), machine.read(empty + port::TFD)), (0, 0x7f));
    assert!(machine.interrupts.seen.lock().unwrap().is_empty());
}

#[test]
fn the_function_is_an_ich9_in_ahci_mode() {
    let mut machine = Machine::off(numbered());
    let mut id = [0; 12];
    machine.ahci.config_read(0, &mut id);
    assert_eq!((&id[..4], &id[8..]), (&[0x86, 0x80, 0x22, 0x29][..], &[2, 1, 6, 1][..]));
    let layout = machine.ahci.layout();
    assert_eq!(layout.bars[5].unwrap().size, 4096);
    assert_eq!((layout.msi_vectors, layout.msix_vectors, layout.intx), (1, 0, true));
    let window = &layout.windows[0];
    assert_eq!((window.bar, window.offset, window.page.len()), (5, 0, 4096));
}

#[test]
fn ports_30_and_31_need_a_second_page() {
    for (ports, size) in [(1, 0x1000), (30, 0x1000), (31, 0x2000), (32, 0x2000)] {
        let mut options = Options::new([]);
        options.ports.resize_with(ports, || None);
        options.ports[ports - 1] = Some(disk(numbered()).into());
        let executor = ManualExecutor::new();
        let (mut ahci, ..) = build(options, Arc::new(executor.clone()));
        assert_eq!(ahci.layout().bars[5].unwrap().size, size);
        assert_eq!(ahci.layout().windows[0].page.len() as u64, size);
        let at = u64::from(port_base(ports as u8 - 1) + port::SSTS);
        let mut data = [0; 4];
        ahci.bar_read(ABAR, at, &mut data);
        assert_eq!(u32::from_le_bytes(data), 0x133);
    }
}

#[test]
fn options_that_cannot_be_served_are_refused() {
    let refused = |options: Options| {
        let memory =
            Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 4096)]).unwrap());
        let interrupts = Arc::new(Interrupts::default());
        let executor = Arc::new(ManualExecutor::new());
        let host = Host { memory, msi: interrupts.clone(), intx: interrupts, executor };
        Ahci::new(options, host).is_err()
    };
    let with = |change: &dyn Fn(&mut DiskOptions)| {
        let mut disk = disk(numbered());
        change(&mut disk);
        refused(Options::new([disk]))
    };
    assert!(!with(&|_| {}));
    assert!(with(&|disk| disk.serial = "123456789012345678901".into()));
    assert!(with(&|disk| disk.firmware = "123456789".into()));
    assert!(with(&|disk| disk.model = "naïve".into()));
    assert!(with(&|disk| disk.model = String::new()));
    assert!(refused(Options::new((0..33).map(|_| disk(numbered())))));
    assert!(refused(Options { ports: Vec::new(), ..Options::new([]) }));
    let options = MemoryOptions { logical_block: 1024, ..Default::default() };
    assert!(refused(Options::new([disk(memory_backend(options))])));
}

#[test]
fn the_signature_arrives_when_fises_are_received() {
    let mut machine = Machine::off(numbered());
    enable(&mut machine.ahci);
    machine.run();
    assert_eq!((machine.get(port::TFD), machine.get(port::SIG)), (0x7f, SIGNATURE_NONE));
    machine.set(port::FB, FIS as u32);
    machine.command_on(PortCommand::FRE);
    assert!(machine.has(PortCommand::FR));
    machine.run();
    assert_eq!((machine.get(port::TFD), machine.get(port::SIG)), (0x150, SIGNATURE_ATA));
    let fis = machine.d2h();
    assert_eq!((fis.fis_type, fis.status, fis.error, fis.count.get()), (0x34, 0x50, 1, 1));
    assert_eq!((fis.lba, fis.device), ([1, 0, 0], 0));
    assert!(!machine.causes().contains(PortInterrupt::DHRS));
    machine.command_off(PortCommand::FRE);
    assert!(!machine.has(PortCommand::FR));
}

#[test]
fn causes_that_follow_serror_clear_with_it() {
    let mut machine = Machine::off(numbered());
    let link = PortInterrupt::PCS | PortInterrupt::PRCS;
    assert_eq!(machine.causes(), link);
    machine.set(port::IS, u32::MAX);
    assert_eq!(machine.causes(), link);
    machine.set(port::SERR, PortError::DIAG_X.bits());
    assert_eq!(machine.causes(), PortInterrupt::PRCS);
    machine.set(port::SERR, u32::MAX);
    assert_eq!((machine.get(port::SERR), machine.causes()), (0, PortInterrupt::empty()));
}

#[test]
fn is_is_a_latch_that_the_ports_cause_sets_again() {
    let mut machine = Machine::new(numbered());
    machine.issue_with(0, &RegisterH2d::command(command::IDENTIFY_DEVICE), 512);
    assert_eq!((machine.read(host::IS), machine.interrupts.level()), (1, true));
    // While PxIS asserts it, IS cannot be cleared (3.1.3).
    machine.write(host::IS, 1);
    assert_eq!((machine.read(host::IS), machine.interrupts.level()), (1, true));
    machine.set(port::IS, u32::MAX);
    // IS stays until it is cleared.
    assert_eq!((machine.read(host::IS), machine.interrupts.level()), (1, true));
    machine.write(host::IS, 1);
    assert_eq!((machine.read(host::IS), machine.interrupts.level()), (0, false));
    // A cause that is not enabled does not assert it; enabling it then does.
    machine.set(port::IE, 0);
    machine.issue_with(0, &RegisterH2d::command(command::IDENTIFY_DEVICE), 512);
    assert_eq!((machine.read(host::IS), machine.interrupts.level()), (0, false));
    machine.set(port::IE, PortInterrupt::PSS.bits());
    assert_eq!((machine.read(host::IS), machine.interrupts.level()), (1, true));
    // Nor does the line follow while GHC.IE is clear.
    machine.write(host::GHC, 0);
    assert!(!machine.interrupts.level());
    machine.write(host::GHC, Ghc::IE.bits());
    assert!(machine.interrupts.level());
    assert_eq!(machine.read(host::GHC), (Ghc::AE | Ghc::IE).bits());
}

#[test]
fn a_message_is_sent_for_news_and_for_what_a_write_left() {
    let mut machine = Machine::with_msi(numbered());
    assert_eq!(machine.interrupts.messages(), 0);
    let identify = RegisterH2d::command(command::IDENTIFY_DEVICE);
    machine.issue_with(0, &identify, 512);
    assert_eq!(machine.interrupts.messages(), 1);
    // A second completion before the first is acknowledged is no news: IS has its bit.
    machine.issue_with(0, &identify, 512);
    assert_eq!(machine.interrupts.messages(), 1);
    // As Linux's handler does it, but with a completion between its two writes: the write to IS
    // leaves a bit, so another message follows and nothing is lost.
    machine.set(port::IS, u32::MAX);
    machine.issue_with(0, &identify, 512);
    assert_eq!(machine.interrupts.messages(), 1);
    machine.write(host::IS, 1);
    assert_eq!(machine.interrupts.messages(), 2);
    machine.acknowledge();
    assert_eq!((machine.interrupts.messages(), machine.read(host::IS)), (2, 0));
    assert_eq!(machine.interrupts.changes.load(Ordering::Relaxed), 0);
}

#[test]
fn narrow_and_wide_accesses_touch_their_bytes_alone() {
    let mut machine = Machine::off(numbered());
    let base = u64::from(port_base(0));
    // One access over PxCLB, PxCLBU and half of PxFB.
    let data = [0xff, 0x34, 0x56, 0x78, 1, 2, 3, 4, 0xff, 0xee];
    machine.ahci.bar_write(ABAR, base, &data);
    assert_eq!(machine.get(port::CLB), 0x7856_3400);
    assert_eq!(machine.get(port::CLBU), 0x0403_0201);
    assert_eq!(machine.get(port::FB), 0xee00);
    machine.ahci.bar_write(ABAR, base + 1, &[0x10]);
    assert_eq!(machine.get(port::CLB), 0x7856_1000);
    let mut byte = [0; 3];
    machine.ahci.bar_read(ABAR, base + 2, &mut byte);
    assert_eq!(byte, [0x56, 0x78, 1]);
    // A byte write to PxCMD does not act on the other bytes, nor are these read to be written.
    machine.ahci.bar_write(ABAR, base + u64::from(port::CMD), &[0x17]);
    assert_eq!(machine.get(port::CMD), 0x4c017);
    machine.ahci.bar_write(ABAR, base + u64::from(port::CMD) + 1, &[0]);
    assert_eq!(machine.get(port::CMD), 0x4c017);
    // Beyond the registers.
    let mut data = [0; 8];
    machine.ahci.bar_read(ABAR, 0xffc, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    machine.ahci.bar_read(ABAR, u64::MAX - 1, &mut data);
    assert_eq!(data, [0xff; 8]);
    machine.ahci.bar_read(0, 0, &mut data);
    assert_eq!(data, [0xff; 8]);
    machine.ahci.bar_write(ABAR, u64::MAX - 1, &data);
    machine.ahci.bar_write(ABAR, 0xffc, &data);
    machine.ahci.bar_write(4, 0, &data);
}

#[test]
fn commands_cannot_be_issued_while_the_list_is_stopped() {
    let mut machine = Machine::new(numbered());
    machine.command_off(PortCommand::ST);
    machine.issue_queued(1);
    machine.set(port::CI, u32::MAX);
    assert_eq!((machine.get(port::CI), machine.get(port::SACT)), (0, 0));
    machine.command_on(PortCommand::ST);
    machine.run();
    assert_eq!(machine.causes(), PortInterrupt::empty());
}

// What the guest reads without an exit is what it reads with one.
#[test]
fn the_page_shows_every_register() {
    let mut machine = Machine::new(numbered());
    machine.issue_with(3, &RegisterH2d::command(command::IDENTIFY_DEVICE), 512);
    let page = machine.ahci.layout().windows[0].page.clone();
    for (index, word) in page.words().iter().enumerate() {
        let shown = word.load(Ordering::Relaxed);
        assert_eq!(shown, machine.read(index as u32 * 4), "offset {:#x}", index * 4);
    }
    assert_eq!(page.words()[(port_base(0) + port::IS) as usize / 4].load(Ordering::Relaxed), 2);
}
