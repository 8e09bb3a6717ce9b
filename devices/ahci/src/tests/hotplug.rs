//! Devices that come and go while the HBA is in use (AHCI 1.3.1, 7.3).

use std::sync::Weak;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_device::DeviceError;
use paraslot_scsi::{CdromOptions, LogicalUnit};
use paraslot_spec::ahci::{PortError, SIGNATURE_ATA, SIGNATURE_ATAPI, SIGNATURE_NONE, sctl};

use super::*;
use crate::PacketOptions;

const GONE: (u32, u32, u32) = (0, 0x7f, SIGNATURE_NONE);
const LINKED: u32 = 0x133;

fn gated() -> (GatedBackend<MemoryBackend>, Gate) {
    let backend = GatedBackend::new(numbered());
    let gate = backend.gate();
    (backend, gate)
}

fn sized(sectors: u64) -> DiskOptions {
    disk(MemoryBackend::new(sectors * 512, MemoryOptions::default()).unwrap())
}

impl Machine {
    fn link(&mut self) -> (u32, u32, u32) {
        (self.get(port::SSTS), self.get(port::TFD), self.get(port::SIG))
    }

    /// Has a worker stop that cannot.
    fn run_in_vain(&self) {
        assert!(!self.executor.run(100));
    }

    fn errors(&mut self) -> PortError {
        PortError::from_bits_retain(self.get(port::SERR))
    }

    fn attach(&self, device: impl Into<crate::PortDevice>) {
        self.ahci.control().attach(0, device).unwrap();
    }

    fn detach(&self) {
        self.ahci.control().detach(0).unwrap();
    }

    /// What a driver does when the link has changed: it stops the port, resets it, and looks.
    fn look(&mut self) -> (u32, u32, u32) {
        self.command_off(PortCommand::ST);
        self.run();
        assert!(!self.has(PortCommand::CR));
        self.set(port::SCTL, sctl::DET_COMRESET);
        self.run();
        self.set(port::SCTL, 0);
        self.run();
        self.set(port::SERR, u32::MAX);
        self.acknowledge();
        assert!(self.causes().is_empty());
        self.command_on(PortCommand::ST);
        self.link()
    }

    fn capacity(&mut self) -> u64 {
        let words = self.identify();
        (0..4).map(|index| u64::from(words[100 + index]) << (16 * index)).sum()
    }
}

#[test]
fn a_device_goes_and_another_comes() {
    let mut machine = Machine::with_msi(numbered());
    assert!(machine.has(PortCommand::HPCP));
    machine.detach();
    assert_eq!(machine.link(), GONE);
    // PhyRdy has changed, and nothing else has.
    assert_eq!((machine.errors(), machine.causes()), (PortError::DIAG_N, PortInterrupt::PRCS));
    assert_eq!((machine.read(host::IS), machine.interrupts.messages()), (1, 1));
    assert_eq!(machine.look(), GONE);
    assert!(machine.errors().is_empty());
    // It is no news that there is nothing.
    machine.detach();
    assert_eq!((machine.errors(), machine.interrupts.messages()), (PortError::empty(), 1));

    machine.attach(sized(1000));
    assert_eq!(machine.get(port::SSTS), LINKED);
    assert_eq!(machine.errors(), PortError::DIAG_X | PortError::DIAG_N);
    assert_eq!(machine.causes(), PortInterrupt::PCS | PortInterrupt::PRCS);
    assert_eq!(machine.interrupts.messages(), 2);
    // It is busy until it has sent its signature.
    assert_eq!((machine.get(port::TFD), machine.get(port::SIG)), (0x80, SIGNATURE_NONE));
    machine.run();
    assert_eq!(machine.link(), (LINKED, 0x150, SIGNATURE_ATA));
    assert_eq!(machine.look(), (LINKED, 0x150, SIGNATURE_ATA));
    assert_eq!(machine.capacity(), 1000);

    machine.detach();
    machine.look();
    let drive = LogicalUnit::cdrom(CdromOptions::new(None)).unwrap();
    machine.attach(PacketOptions::new(drive));
    machine.run();
    assert_eq!(machine.look(), (LINKED, 0x100, SIGNATURE_ATAPI));
    assert_eq!(machine.ahci.control().resize(0), None);
}

// What is not done must not look as if it were: PxCI and PxSACT stay until the driver stops the list.
#[test]
fn commands_in_flight_never_complete() {
    for is_queued in [false, true] {
        let (backend, gate) = gated();
        let mut machine = Machine::new(backend);
        gate.close();
        machine.fill(data_at(0), &[0xcc; 512]);
        let code = if is_queued { command::READ_FPDMA_QUEUED } else { command::READ_DMA_EXT };
        let fis = if is_queued { queued(code, 0, 50, 1) } else { sectors(code, 50, 1) };
        machine.prepare(0, &fis, &[Prd::new(data_at(0), 512)], 0);
        if is_queued {
            machine.issue_queued(1);
        } else {
            machine.set(port::CI, 1);
        }
        machine.run();
        assert_eq!(gate.held(), 1);
        let control = machine.ahci.control();
        assert!(matches!(control.detach(0), Err(DeviceError::Busy(_))));
        assert_eq!(machine.link(), GONE);
        // Nor is there room for another one before the backend has let go.
        assert!(matches!(control.attach(0, sized(8)), Err(DeviceError::Busy(_))));
        let outstanding = |machine: &mut Machine| match is_queued {
            false => machine.get(port::CI),
            true => machine.get(port::SACT),
        };
        assert_eq!(outstanding(&mut machine), 1);
        machine.command_off(PortCommand::ST);
        assert_eq!(outstanding(&mut machine), 0);
        machine.run_in_vain();
        assert!(machine.has(PortCommand::CR), "something is in flight");
        gate.open();
        machine.run();
        assert!(!machine.has(PortCommand::CR));
        assert_eq!((machine.link(), machine.causes()), (GONE, PortInterrupt::PRCS));
        assert_eq!(machine.ahci.taken(0), 0);
        control.attach(0, sized(8)).unwrap();
        machine.run();
        assert_eq!(machine.look(), (LINKED, 0x150, SIGNATURE_ATA));
        assert_eq!(machine.capacity(), 8);
    }
}

// What is issued to nobody is done by nobody, also after there is somebody again.
#[test]
fn commands_for_a_device_that_is_gone_wait_for_the_driver() {
    let mut machine = Machine::new(numbered());
    machine.detach();
    let fis = sectors(command::READ_DMA_EXT, 1, 1);
    machine.issue(0, &fis, &[Prd::new(data_at(0), 512)]);
    machine.attach(disk(numbered()));
    machine.run();
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (1, 0));
    machine.look();
    machine.issue(0, &fis, &[Prd::new(data_at(0), 512)]);
    assert_eq!((machine.get(port::CI), machine.prdbc(0)), (0, 512));
}

#[test]
fn an_hba_reset_waits_for_a_device_that_is_gone() {
    let (backend, gate) = gated();
    let mut machine = Machine::new(backend);
    gate.close();
    machine.prepare(0, &sectors(command::READ_DMA_EXT, 50, 1), &[Prd::new(data_at(0), 512)], 0);
    machine.set(port::CI, 1);
    machine.run();
    assert!(machine.ahci.control().detach(0).is_err());
    machine.write(host::GHC, Ghc::HR.bits());
    machine.run_in_vain();
    assert_eq!(machine.read(host::GHC) & Ghc::HR.bits(), Ghc::HR.bits());
    // Nor is a function paused that may move data.
    assert!(matches!(machine.ahci.pause(), Err(DeviceError::Busy(_))));
    gate.open();
    machine.run();
    assert_eq!(machine.read(host::GHC) & Ghc::HR.bits(), 0);
    assert_eq!((machine.link(), machine.causes()), (GONE, PortInterrupt::empty()));
    machine.detach();
    machine.attach(sized(16));
    machine.start();
    assert_eq!(machine.capacity(), 16);
}

#[test]
fn a_port_that_is_switched_off_stays_off() {
    let mut machine = Machine::new(numbered());
    machine.set(port::SCTL, sctl::DET_OFFLINE);
    assert_eq!(machine.get(port::SSTS), 4);
    machine.set(port::SERR, u32::MAX);
    machine.detach();
    assert!(machine.errors().is_empty(), "there was no link to lose");
    machine.attach(sized(16));
    machine.run();
    assert_eq!(machine.get(port::SSTS) & 0xf, 0);
    assert!(machine.errors().is_empty());
    machine.set(port::SCTL, 0);
    machine.run();
    assert_eq!(machine.link(), (LINKED, 0x150, SIGNATURE_ATA));
}

#[test]
fn a_disk_that_has_another_size_is_looked_at_again() {
    struct Growing(std::sync::atomic::AtomicU64, MemoryBackend);
    impl BlockBackend for Growing {
        fn info(&self) -> paraslot_backends::block::BlockInfo {
            let capacity = self.0.load(Ordering::Relaxed);
            paraslot_backends::block::BlockInfo { capacity, ..self.1.info() }
        }
        fn open_queue(
            &self,
            depth: u32,
        ) -> std::io::Result<Box<dyn paraslot_backends::block::BlockQueue>> {
            self.1.open_queue(depth)
        }
    }
    let backend = Arc::new(Growing((512 * 100).into(), numbered()));
    let mut machine = Machine::of(Options::new([DiskOptions::new(backend.clone())]));
    enable(&mut machine.ahci);
    machine.start();
    let control = machine.ahci.control();
    assert_eq!((machine.capacity(), control.resize(0)), (100, Some(51_200)));
    assert!(machine.errors().is_empty(), "nothing is new");
    backend.0.store(512 * 200, Ordering::Relaxed);
    assert_eq!(machine.capacity(), 100);
    assert_eq!(control.resize(0), Some(102_400));
    assert_eq!(machine.causes(), PortInterrupt::PCS | PortInterrupt::PRCS);
    machine.run();
    assert_eq!(machine.look(), (LINKED, 0x150, SIGNATURE_ATA));
    assert_eq!(machine.capacity(), 200);
    assert_eq!((control.resize(1), control.resize(99)), (None, None));
}

#[test]
fn what_cannot_be_attached_is_said() {
    let machine = Machine::new(numbered());
    let control = machine.ahci.control();
    let refused = |port, device: DiskOptions| control.attach(port, device).unwrap_err().to_string();
    assert_eq!(refused(0, sized(8)), "port 0 has a device");
    assert_eq!(refused(6, sized(8)), "there is no port 6");
    let nameless = DiskOptions { model: String::new(), ..sized(8) };
    assert_eq!(refused(1, nameless), "port 1: the model number is empty");
    assert!(control.detach(6).is_err());
    drop(machine);
    assert!(control.detach(0).is_ok());
    assert_eq!(refused(0, sized(8)), "the HBA is gone");
}

// Neither a device that is gone nor an HBA keeps an image.
#[test]
fn images_are_let_go_of() {
    fn weak(image: &Arc<MemoryBackend>) -> Weak<MemoryBackend> {
        Arc::downgrade(image)
    }
    let images = [numbered(), numbered()].map(Arc::new);
    let [first, second] = images.each_ref().map(weak);
    let [one, other] = images;
    let machine = Machine::of(Options::new([DiskOptions::new(one)]));
    machine.detach();
    assert_eq!(first.strong_count(), 0);
    machine.attach(DiskOptions::new(other));
    let control = machine.ahci.control();
    let Machine { ahci, executor, .. } = machine;
    drop(ahci);
    executor.run(1000);
    assert_eq!(second.strong_count(), 0);
    drop(control);
}

#[test]
fn devices_come_and_go_while_paused() {
    let mut machine = Machine::new(numbered());
    machine.ahci.pause().unwrap();
    machine.detach();
    machine.attach(sized(16));
    assert!(machine.executor.is_empty(), "no worker runs");
    machine.ahci.resume().unwrap();
    machine.run();
    assert_eq!(machine.look(), (LINKED, 0x150, SIGNATURE_ATA));
    assert_eq!(machine.capacity(), 16);
}

#[test]
fn devices_come_and_go_beside_a_busy_port() {
    let executor = paraslot_device::ThreadExecutor::new("test", &Default::default()).unwrap();
    let options = Options::new([disk(numbered()), disk(numbered())]);
    let (mut ahci, memory, _) = build(options, Arc::new(executor));
    enable(&mut ahci);
    let control = ahci.control();
    let ahci = Mutex::new(ahci);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100 {
                control.detach(1).unwrap();
                control.attach(1, disk(numbered())).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let write = |at: u32, value: u32| {
            ahci.lock().unwrap().bar_write(ABAR, (port_base(0) + at).into(), &value.to_le_bytes());
        };
        let read = |at: u32| {
            let mut data = [0; 4];
            ahci.lock().unwrap().bar_read(ABAR, (port_base(0) + at).into(), &mut data);
            u32::from_le_bytes(data)
        };
        write(port::CLB, LIST as u32);
        write(port::FB, FIS as u32);
        write(port::CMD, PortCommand::FRE.bits());
        while read(port::TFD) != 0x150 {
            std::thread::yield_now();
        }
        write(port::CMD, (PortCommand::FRE | PortCommand::ST).bits());
        let fis = sectors(command::READ_DMA_EXT, 7, 1);
        let header = CommandHeader::new(5 | 1 << header::PRDTL_SHIFT, table_at(0));
        let prd = Prd::new(data_at(0), 512);
        memory.write_slice(header.as_bytes(), GuestAddress(LIST)).unwrap();
        memory.write_slice(fis.as_bytes(), GuestAddress(table_at(0))).unwrap();
        memory.write_slice(prd.as_bytes(), GuestAddress(table_at(0) + PRD_TABLE)).unwrap();
        while !stop.load(Ordering::Relaxed) {
            write(port::CI, 1);
            while read(port::CI) != 0 {
                std::thread::yield_now();
            }
            assert_eq!(memory.read_obj::<u8>(GuestAddress(data_at(0))).unwrap(), 7);
        }
    });
}

/// A driver that had not started the port when a device was exchanged starts it as ever, without a COMRESET.
#[test]
fn a_port_that_was_stopped_is_started_with_another_device() {
    let mut machine = Machine::new(numbered());
    machine.command_off(PortCommand::ST);
    machine.detach();
    machine.attach(disk(numbered()));
    machine.run();
    assert_eq!(machine.link(), (LINKED, 0x150, SIGNATURE_ATA));
    machine.set(port::SERR, u32::MAX);
    machine.acknowledge();
    machine.command_on(PortCommand::ST);
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, 7, 1), 512);
    machine.expect_done();
}
