//! The ATAPI device, and its ATA commands.

mod frames;
mod probe;
mod reset;

use paraslot_scsi::{CdromOptions, LogicalUnit};
use paraslot_spec::ahci::fis::{FLAG_COMMAND, PioSetup};
use paraslot_spec::ahci::{ATAPI_COMMAND, SIGNATURE_ATAPI};
use paraslot_spec::ata::packet::{features, reason};
use paraslot_spec::ata::{error, power_mode};
use paraslot_spec::scsi::opcode;
use paraslot_spec::scsi::sense::{code, key};

use super::*;
use crate::PacketOptions;

const BLOCKS: u64 = 512;
const BLOCK: u32 = 2048;

/// A disc of which every block is full of its number's lowest byte, and `seed`.
pub(super) fn disc(seed: u8) -> MemoryBackend {
    let mut contents = vec![0; BLOCKS as usize * BLOCK as usize];
    for (number, block) in (0..BLOCKS).zip(contents.chunks_mut(BLOCK as usize)) {
        block.fill(number as u8 ^ seed);
    }
    let options = MemoryOptions { read_only: true, ..Default::default() };
    MemoryBackend::from_contents(&contents, options).unwrap()
}

pub(super) fn drive(medium: Option<Arc<dyn BlockBackend>>) -> Arc<LogicalUnit> {
    LogicalUnit::cdrom(CdromOptions::new(medium)).unwrap()
}

pub(super) fn options(unit: Arc<LogicalUnit>) -> Options {
    let mut options = Options::new([]);
    options.ports[0] = Some(PacketOptions::new(unit).into());
    options
}

/// A machine whose driver has cleared the attention that every drive has at first.
fn machine(medium: impl BlockBackend + 'static) -> Machine {
    let mut machine = Machine::of(options(drive(Some(Arc::new(medium)))));
    enable(&mut machine.ahci);
    machine.start();
    machine.expect_sense(&[opcode::TEST_UNIT_READY], 0, key::UNIT_ATTENTION, code::RESET);
    machine
}

/// PACKET by DMA.
pub(super) fn by_dma() -> RegisterH2d {
    RegisterH2d { features: features::DMA, ..RegisterH2d::command(command::PACKET) }
}

/// PACKET by PIO, at most `limit` bytes at a time.
pub(super) fn by_pio(limit: u16) -> RegisterH2d {
    let [low, high] = limit.to_le_bytes();
    RegisterH2d { lba: [0, low, high], ..RegisterH2d::command(command::PACKET) }
}

pub(super) fn read_10(block: u32, count: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode::READ_10;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&count.to_be_bytes());
    cdb
}

impl Machine {
    pub(super) fn prepare_packet(&self, slot: u32, fis: &RegisterH2d, cdb: &[u8], prds: &[Prd]) {
        self.prepare(slot, fis, prds, header::ATAPI | header::PREFETCHABLE);
        let mut bytes = [0; 16];
        bytes[..cdb.len()].copy_from_slice(cdb);
        self.fill(table_at(slot) + ATAPI_COMMAND, &bytes);
    }

    /// Issues a command packet for `len` bytes of slot 0's buffer.
    fn send(&mut self, fis: &RegisterH2d, cdb: &[u8], len: u32) {
        let prds: Vec<_> = (len != 0).then(|| Prd::new(data_at(0), len)).into_iter().collect();
        self.prepare_packet(0, fis, cdb, &prds);
        self.set(port::CI, 1);
        self.run();
    }

    /// Has a packet succeed, by DMA if it has data; returns the data.
    fn packet(&mut self, cdb: &[u8], len: u32) -> Vec<u8> {
        let fis = if len == 0 { by_pio(0) } else { by_dma() };
        self.send(&fis, cdb, len);
        assert_eq!((self.get(port::CI), self.get(port::TFD)), (0, 0x50), "{cdb:x?}");
        assert_eq!(self.causes(), PortInterrupt::DHRS);
        let fis = self.d2h();
        assert_eq!((fis.status, fis.error, fis.count.get()), (0x50, 0, u16::from(reason::OVER)));
        let moved = self.prdbc(0);
        assert!(moved <= len);
        self.acknowledge();
        self.bytes(data_at(0), moved as usize)
    }

    /// Expects that slot 0's packet ended with CHECK CONDITION; recovers, and returns the sense key.
    fn expect_check(&mut self) -> u8 {
        let [status, error, ..] = self.get(port::TFD).to_le_bytes();
        assert_eq!((self.get(port::CI), status), (1, 0x51));
        assert!(self.causes().contains(PortInterrupt::TFES | PortInterrupt::DHRS));
        let fis = self.d2h();
        assert_eq!((fis.status, fis.error, fis.count.get()), (0x51, error, reason::OVER.into()));
        self.recover();
        error >> 4
    }

    /// REQUEST SENSE: key, additional sense code and qualifier.
    fn sense(&mut self) -> (u8, (u8, u8)) {
        let sense = self.packet(&[opcode::REQUEST_SENSE, 0, 0, 0, 18], 18);
        assert_eq!((sense.len(), sense[0] & 0x7f), (18, 0x70));
        (sense[2] & 0xf, (sense[12], sense[13]))
    }

    /// Has a packet fail, and asks why.
    fn expect_sense(&mut self, cdb: &[u8], len: u32, key: u8, code: (u8, u8)) {
        self.send(&if len == 0 { by_pio(0) } else { by_dma() }, cdb, len);
        assert_eq!(self.expect_check(), key, "{cdb:x?}");
        assert_eq!(self.sense(), (key, code), "{cdb:x?}");
        assert_eq!(self.sense(), (key::NO_SENSE, code::NONE), "it is told once");
    }

    /// Expects that the drive has a disc, and reads it, whatever it has to tell before.
    pub(super) fn expect_drive(&mut self) {
        for _ in 0..4 {
            self.send(&by_pio(0), &[opcode::TEST_UNIT_READY], 0);
            if self.get(port::CI) == 0 {
                break;
            }
            self.expect_check();
        }
        self.acknowledge();
        assert_eq!(self.packet(&read_10(9, 1), 2048), [9; 2048]);
    }

    fn plain(&mut self, code: u8, features: u8, count: u16) {
        let fis = RegisterH2d { features, count: count.into(), ..RegisterH2d::command(code) };
        self.issue_with(0, &fis, 0);
    }

    fn identify_packet(&mut self) -> Vec<u16> {
        self.issue_with(0, &RegisterH2d::command(command::IDENTIFY_PACKET_DEVICE), 512);
        self.expect_done();
        let data = self.bytes(data_at(0), 512);
        assert_eq!(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
        data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

#[test]
fn it_says_what_it_is() {
    let mut machine = machine(disc(0));
    assert_eq!(machine.get(port::SIG), SIGNATURE_ATAPI);
    let words = machine.identify_packet();
    // ATAPI, CD-ROM, removable, DRQ within 50 us, 12 bytes of packet.
    assert_eq!(words[0], 0x85c0);
    let text = |range: std::ops::Range<usize>| {
        let bytes = words[range].iter().flat_map(|word| word.to_be_bytes()).collect();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(text(27..47).trim_end(), "PARASLOT SATA CD-ROM");
    assert_eq!((text(10..20).trim_end(), text(23..27).trim_end()), ("", "1.0"));
    assert_eq!((words[49], words[53], words[62]), (0x0f00, 0x6, 0));
    assert_eq!((words[63], words[64], words[88]), (0x7, 0x3, 0x407f));
    assert_eq!((words[82], words[83], words[84]), (0x4218, 0x4000, 0x4000));
    assert_eq!((words[75], words[76], words[78], words[125]), (0, 0xe, 0, 0xfffe));
    // Nothing of a disk's.
    assert_eq!((words[60], words[61], words[100], words[106]), (0, 0, 0, 0));
}

// A driver that takes it for a disk is told what it is (ACS-4, 7.12.4 and 7.26). CVE-2015-6855: what
// only a disk can do is not begun.
#[test]
fn a_disk_s_commands_find_its_signature() {
    let mut machine = machine(disc(0));
    for code in [command::IDENTIFY_DEVICE, command::READ_SECTORS] {
        let before = machine.bytes(data_at(0), 512);
        machine.issue_with(0, &RegisterH2d::command(code), 512);
        let fis = machine.d2h();
        assert_eq!((fis.lba, fis.count.get(), fis.device), ([0x01, 0x14, 0xeb], 1, 0));
        machine.expect_error(error::ABRT);
        assert_eq!(machine.bytes(data_at(0), 512), before);
    }
    // The rest of a disk's, queued ones among them, are just aborted.
    for code in [
        command::READ_DMA_EXT,
        command::WRITE_DMA,
        command::READ_FPDMA_QUEUED,
        command::FLUSH_CACHE,
        command::SMART,
        command::READ_LOG_EXT,
        command::DATA_SET_MANAGEMENT,
        command::NOP,
    ] {
        machine.issue_with(0, &sectors(code, 7, 1), 512);
        machine.expect_error(error::ABRT);
    }
}

#[test]
fn the_ata_commands_of_packet_devices() {
    let mut machine = machine(disc(0));
    machine.plain(command::EXECUTE_DEVICE_DIAGNOSTIC, 0, 0);
    let fis = machine.d2h();
    assert_eq!((fis.lba, fis.count.get(), fis.error), ([0x01, 0x14, 0xeb], 1, 1));
    // It is ready once a command has come.
    assert_eq!((machine.get(port::TFD), machine.causes()), (0x100, PortInterrupt::DHRS));
    machine.acknowledge();

    for (mode, good) in [(0x42, true), (0x22, true), (0x0c, true), (0x00, true), (0x47, false)] {
        machine.plain(command::SET_FEATURES, 0x03, mode);
        if good { machine.expect_done() } else { machine.expect_error(error::ABRT) }
    }
    machine.plain(command::SET_FEATURES, 0x03, 0x42);
    machine.expect_done();
    assert_eq!(machine.identify_packet()[88], 0x047f);
    machine.plain(command::SET_FEATURES, 0x02, 0);
    machine.expect_error(error::ABRT);

    for (code, mode) in [
        (command::IDLE_IMMEDIATE, power_mode::IDLE),
        (command::STANDBY_IMMEDIATE, power_mode::STANDBY),
        (command::IDLE, power_mode::IDLE),
        (command::STANDBY, power_mode::STANDBY),
    ] {
        machine.plain(code, 0, 0);
        machine.expect_done();
        machine.plain(command::CHECK_POWER_MODE, 0, 0);
        assert_eq!(machine.d2h().count.get(), u16::from(mode));
        machine.expect_done();
    }
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
    machine.plain(command::CHECK_POWER_MODE, 0, 0);
    assert_eq!(machine.d2h().count.get(), u16::from(power_mode::ACTIVE));
    machine.expect_done();

    // From sleep only a reset brings it back, DEVICE RESET among them.
    machine.plain(command::SLEEP, 0, 0);
    machine.expect_done();
    machine.send(&by_pio(0), &[opcode::TEST_UNIT_READY], 0);
    machine.expect_error(error::ABRT);
    machine.plain(command::DEVICE_RESET, 0, 0);
    assert_eq!((machine.get(port::CI), machine.get(port::TFD)), (0, 0x100));
    assert_eq!(machine.causes(), PortInterrupt::empty(), "its end interrupts nobody");
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
}

#[test]
fn the_activity_led_knows_of_atapi() {
    let mut machine = machine(disc(0));
    assert!(!machine.has(PortCommand::ATAPI));
    machine.command_on(PortCommand::ATAPI);
    assert!(machine.has(PortCommand::ATAPI) && machine.has(PortCommand::CR));
    machine.packet(&[opcode::TEST_UNIT_READY], 0);
    machine.write(host::GHC, Ghc::HR.bits());
    machine.run();
    assert!(!machine.has(PortCommand::ATAPI));
}

#[test]
fn disks_and_drives_share_an_hba() {
    let mut options = Options::new([disk(numbered())]);
    options.ports[1] = Some(PacketOptions::new(drive(Some(Arc::new(disc(0))))).into());
    let mut machine = Machine::of(options);
    enable(&mut machine.ahci);
    machine.start();
    let second = port_base(1);
    machine.write(second + port::FB, FIS as u32 + 0x100);
    machine.write(second + port::CMD, PortCommand::FRE.bits());
    machine.run();
    assert_eq!(machine.get(port::SIG), 0x101);
    assert_eq!(machine.read(second + port::SIG), SIGNATURE_ATAPI);
    machine.issue_with(0, &sectors(command::READ_DMA_EXT, 100, 1), 512);
    machine.expect_done();
}

#[test]
fn options_are_checked() {
    let refused = |change: fn(&mut PacketOptions)| {
        let mut packet = PacketOptions::new(drive(None));
        change(&mut packet);
        let mut options = Options::new([]);
        options.ports[2] = Some(packet.into());
        let error = options.check().unwrap_err();
        assert!(error.to_string().starts_with("port 2: "), "{error}");
    };
    refused(|packet| packet.model.clear());
    refused(|packet| {
        let disk = paraslot_scsi::DiskOptions::new(Arc::new(numbered()));
        packet.unit = LogicalUnit::disk(disk).unwrap();
    });
    refused(|packet| packet.serial = "x".repeat(21));
    refused(|packet| packet.firmware = "ä".into());
    assert!(options(drive(None)).check().is_ok());
}

// What wakes the worker is quiet when it sleeps: otherwise it would never.
#[test]
fn the_lane_s_source_is_quiet_before_the_worker_sleeps() {
    use crate::packet::PacketDevice;
    use crate::worker::Attached;
    use paraslot_device::Source;
    use paraslot_scsi::{Address, Bus, BusOptions, Function, Initiator};
    use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

    let unit = drive(None);
    let mut device = PacketDevice::new(PacketOptions::new(unit.clone()), "port").unwrap();
    let [Source::Readable(descriptor)] = device.sources()[..] else { panic!("a descriptor") };
    let epoll = Epoll::new().unwrap();
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, descriptor, event).unwrap();
    let rings = || epoll.wait(0, &mut [EpollEvent::default()]).unwrap() == 1;
    let rest = |device: &mut PacketDevice| {
        let mut commands = [const { None }; 32];
        let mut rounds = 0;
        loop {
            let _ = device.complete(&mut commands);
            device.settle();
            rounds += 1;
            assert!(rounds < 10, "it does not come to rest");
            if !device.prepare_to_wait() {
                return;
            }
        }
    };
    rest(&mut device);
    assert!(!rings());
    let options = BusOptions {
        initiator: Initiator("other".into()),
        max_target: 0,
        max_lun: 0,
        autosense: true,
    };
    let other = Bus::new(options);
    other.attach(Address::default(), unit).unwrap();
    for _ in 0..3 {
        let _ = other.manage(Function::LogicalUnitReset(Address::default()), None);
        assert!(rings() && device.ordered());
        rest(&mut device);
        assert!(!rings() && !device.ordered());
    }
}

#[test]
fn only_commands_are_commands() {
    let mut machine = machine(disc(0));
    let fis = RegisterH2d { fis_type: 0x28, ..by_dma() };
    machine.send(&fis, &read_10(9, 1), 2048);
    assert_eq!(machine.causes(), PortInterrupt::IFS);
    machine.recover();
    // A change of device control without SRST is taken without a word.
    let fis = RegisterH2d { flags: 0, ..by_dma() };
    assert_ne!(FLAG_COMMAND, 0);
    machine.issue(0, &fis, &[]);
    assert_eq!((machine.get(port::CI), machine.causes()), (0, PortInterrupt::empty()));
}
