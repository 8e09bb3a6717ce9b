use paraslot_backends::block::testing::{Event, FaultBackend, RecordingBackend};
use paraslot_backends::block::{
    BlockError, BlockInfo, BlockOp, BlockQueue, NullBackend, NullOptions,
};
use paraslot_spec::ata::identify::{self, word};
use paraslot_spec::ata::{dsm, error, set_features as feature, smart};

use super::*;

fn text(words: &[u16]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    String::from_utf8(bytes).unwrap().trim_end().into()
}

#[test]
fn identify_says_what_the_disk_is() {
    let mut options = disk(numbered());
    options.serial = "S123".into();
    options.model = "A model".into();
    options.world_wide_name = Some(0x5001_2345_6789_abcd);
    let executor = ManualExecutor::new();
    let (ahci, memory, interrupts) = build(Options::new([options]), Arc::new(executor.clone()));
    let mut machine = Machine::around((ahci, memory, interrupts), executor);
    enable(&mut machine.ahci);
    machine.start();
    let words = machine.identify();
    let sum = machine.bytes(data_at(0), 512).iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    assert_eq!((sum, words[255] & 0xff), (0, 0xa5));
    assert_eq!(text(&words[10..20]), "S123");
    assert_eq!(text(&words[27..47]), "A model");
    assert_eq!(words[0] & 0x8000, 0);
    assert_eq!(words[108..112], [0x5001, 0x2345, 0x6789, 0xabcd]);
    assert_eq!(words[100..104], [SECTORS as u16, 0, 0, 0]);
    assert_eq!(u32::from(words[60]) | u32::from(words[61]) << 16, SECTORS as u32);
    assert_eq!((words[75], words[76] & identify::SATA_NCQ != 0), (31, true));
    for valid in [83, 84, 87, 106, 119, 120, 209] {
        assert_eq!(words[valid] & 0xc000, 0x4000, "word {valid}");
    }
    // What is enabled is supported.
    assert_eq!(words[85] & !words[82], 0);
    assert_eq!(words[86] & !words[83] & !identify::ENABLED_119_VALID, 0);
    assert_eq!(words[word::ROTATION_RATE], 1);
    assert_eq!(words[93], 0);
    // Linux's rule for zeroes after trim.
    assert_eq!((words[69] & 0x4020, words[169] & 1), (0x4020, 1));
}

#[test]
fn large_disks_saturate_what_28_bits_can_say() {
    let backend = NullBackend::new(3 << 40, NullOptions::default()).unwrap();
    let mut machine = Machine::new(backend);
    let words = machine.identify();
    assert_eq!((words[60], words[61]), (0xffff, 0x0fff));
    assert_eq!(words[100..104], [0, 0x8000, 1, 0]);
    assert_eq!((words[1], words[3], words[6]), (16383, 16, 63));
}

#[test]
fn the_write_cache_decides_whether_writes_are_forced() {
    let recording = RecordingBackend::new(numbered());
    let log = recording.log();
    let mut machine = Machine::new(recording);
    let writes = |fua| {
        let wanted = BlockOp::Write { fua };
        log.events()
            .iter()
            .filter(|e| matches!(e, Event::Submitted { op, .. } if *op == wanted))
            .count()
    };
    assert_ne!(machine.identify()[85] & identify::SUPPORTED_WRITE_CACHE, 0);
    machine.issue_with(0, &sectors(command::WRITE_DMA_EXT, 0, 1), 512);
    machine.expect_done();
    assert_eq!((writes(false), writes(true)), (1, 0));
    machine.issue_with(0, &set_features(feature::DISABLE_WRITE_CACHE, 0), 0);
    machine.expect_done();
    // What was in the cache is made durable first.
    assert!(log.events().iter().any(|e| matches!(e, Event::Submitted { op: BlockOp::Flush, .. })));
    assert_eq!(machine.identify()[85] & identify::SUPPORTED_WRITE_CACHE, 0);
    for code in [command::WRITE_DMA_EXT, command::WRITE_SECTORS] {
        machine.issue_with(0, &sectors(code, 0, 1), 512);
        machine.expect_done();
    }
    machine.prepare(
        4,
        &queued(command::WRITE_FPDMA_QUEUED, 4, 0, 1),
        &[Prd::new(data_at(4), 512)],
        0,
    );
    machine.issue_queued(1 << 4);
    machine.run();
    machine.acknowledge();
    assert_eq!((writes(false), writes(true)), (1, 3));
    machine.issue_with(0, &set_features(feature::ENABLE_WRITE_CACHE, 0), 0);
    machine.expect_done();
    machine.issue_with(0, &sectors(command::WRITE_DMA_EXT, 0, 1), 512);
    assert_eq!((writes(false), writes(true)), (2, 3));
}

// CH 5ae329305: a cache that is not there is neither offered nor switched.
#[test]
fn without_a_volatile_cache_there_is_none_to_switch() {
    let mut machine = Machine::new(memory_backend(MemoryOptions::default()));
    let words = machine.identify();
    assert_eq!((words[82] | words[85]) & identify::SUPPORTED_WRITE_CACHE, 0);
    for code in [feature::ENABLE_WRITE_CACHE, feature::DISABLE_WRITE_CACHE] {
        machine.issue_with(0, &set_features(code, 0), 0);
        machine.expect_error(error::ABRT);
    }
}

#[test]
fn the_write_cache_stays_on_when_it_cannot_be_flushed() {
    let mut machine = Machine::new(FaultBackend::nth(numbered(), 0, libc::EIO));
    machine.issue_with(0, &set_features(feature::DISABLE_WRITE_CACHE, 0), 0);
    machine.expect_error(error::ABRT);
    assert_ne!(machine.identify()[85] & identify::SUPPORTED_WRITE_CACHE, 0);
}

#[test]
fn transfer_modes_are_checked_and_shown() {
    let mut machine = Machine::new(numbered());
    assert_eq!(machine.identify()[88], 0x407f);
    for (mode, mwdma, udma) in [(0x45, 7, 0x207f), (0x22, 0x407, 0x7f), (0x0c, 7, 0x7f)] {
        machine.issue_with(0, &set_features(feature::TRANSFER_MODE, mode), 0);
        machine.expect_done();
        let words = machine.identify();
        assert_eq!((words[63], words[88]), (mwdma, udma));
    }
    for mode in [0x02, 0x0d, 0x10, 0x23, 0x47, 0xff] {
        machine.issue_with(0, &set_features(feature::TRANSFER_MODE, mode), 0);
        machine.expect_error(error::ABRT);
    }
    for code in [0, feature::ENABLE_APM, feature::ENABLE_SATA_FEATURE, 0xff] {
        machine.issue_with(0, &set_features(code, 1), 0);
        machine.expect_error(error::ABRT);
    }
}

#[test]
fn settings_are_reset_as_they_should_be() {
    let mut machine = Machine::new(numbered());
    let mut multiple = RegisterH2d::command(command::SET_MULTIPLE_MODE);
    multiple.count = 8.into();
    machine.issue_with(0, &multiple, 0);
    machine.expect_done();
    machine.issue_with(0, &set_features(feature::DISABLE_LOOK_AHEAD, 0), 0);
    machine.expect_done();
    machine.issue_with(0, &set_features(feature::DISABLE_REVERT, 0), 0);
    machine.expect_done();
    machine.soft_reset();
    let words = machine.identify();
    assert_eq!((words[59], words[85] & identify::SUPPORTED_LOOK_AHEAD), (0x108, 0));
    machine.issue_with(0, &set_features(feature::ENABLE_REVERT, 0), 0);
    machine.expect_done();
    machine.soft_reset();
    let words = machine.identify();
    assert_eq!((words[59], words[85] & identify::SUPPORTED_LOOK_AHEAD), (0, 1 << 6));
    for count in [3, 16, 255] {
        multiple.count = count.into();
        machine.issue_with(0, &multiple, 0);
        machine.expect_error(error::ABRT);
    }
}

fn trim(blocks: u16) -> RegisterH2d {
    let mut fis = sectors(command::DATA_SET_MANAGEMENT, 0, blocks);
    fis.features = dsm::TRIM;
    fis
}

fn fill_ranges(machine: &Machine, ranges: &[(u64, u16)]) {
    let mut list = vec![0; 8 * 512];
    for (place, (lba, count)) in list.chunks_exact_mut(8).zip(ranges) {
        place.copy_from_slice(&dsm::entry(*lba, *count));
    }
    machine.fill(data_at(0), &list);
}

#[test]
fn trimmed_sectors_read_as_zeroes_where_the_image_zeroes_them() {
    let image = numbered();
    let recording = RecordingBackend::new(image.clone());
    let log = recording.log();
    let mut machine = Machine::new(recording);
    // Neighbours become one operation, a range of no sectors is void.
    fill_ranges(&machine, &[(8, 8), (0, 0), (16, 4), (100, 1)]);
    machine.issue_with(0, &trim(1), 512);
    machine.expect_done();
    let submitted: Vec<_> = log
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Submitted { op, offset, len, .. } => Some((op, offset, len)),
            _ => None,
        })
        .collect();
    let op = BlockOp::WriteZeroes { unmap: true };
    assert_eq!(submitted, [(op, 8 * 512, 12 * 512), (op, 100 * 512, 512)]);
    let mut data = [1; 512];
    image.read_at(19 * 512, &mut data).unwrap();
    assert_eq!(data, [0; 512]);
    image.read_at(20 * 512, &mut data).unwrap();
    assert_eq!(data[0], 20);
}

#[test]
fn long_lists_of_ranges_are_all_trimmed() {
    let image = numbered();
    let mut machine = Machine::new(image.clone());
    let ranges: Vec<_> = (0..512).map(|index| (index * 2, 1)).collect();
    fill_ranges(&machine, &ranges);
    machine.issue_with(0, &trim(8), 4096);
    machine.expect_done();
    let mut data = vec![0; 1024 * 512];
    image.read_at(0, &mut data).unwrap();
    for (sector, data) in data.chunks(512).enumerate() {
        assert_eq!(data[511] == 0, sector % 2 == 0, "sector {sector}");
    }
}

#[test]
fn a_list_with_a_bad_range_trims_nothing() {
    let image = numbered();
    let mut machine = Machine::new(image.clone());
    for bad in [(SECTORS, 1), (SECTORS - 1, 2), ((1 << 48) - 1, 0xffff)] {
        fill_ranges(&machine, &[(0, 8), bad]);
        machine.issue_with(0, &trim(1), 512);
        machine.expect_error(error::IDNF | error::ABRT);
        let mut data = [0; 512];
        image.read_at(512, &mut data).unwrap();
        assert_eq!(data[0], 1);
    }
    for (blocks, features) in [(0, 1), (9, 1), (1, 0), (1, 3)] {
        let mut fis = trim(blocks);
        fis.features = features;
        machine.issue_with(0, &fis, 0x1_0000);
        machine.expect_error(error::ABRT);
    }
    fill_ranges(&machine, &[]);
    machine.issue_with(0, &trim(1), 512);
    machine.expect_done();
}

#[test]
fn a_trim_that_fails_midway_stops_there() {
    let image = numbered();
    let mut machine = Machine::new(FaultBackend::new(image.clone(), |_, request| {
        (request.offset == 64 * 1024).then_some(BlockError::NoSpace)
    }));
    let ranges: Vec<_> = (0..512).map(|index| (index * 2, 1)).collect();
    fill_ranges(&machine, &ranges);
    machine.issue_with(0, &trim(8), 4096);
    machine.expect_error(error::ABRT);
    let mut data = [0; 512];
    image.read_at(1022 * 512, &mut data).unwrap();
    assert_eq!(data[511], 0x5a);
    // The next one starts afresh.
    fill_ranges(&machine, &[(0, 8)]);
    machine.issue_with(0, &trim(1), 512);
    machine.expect_done();
}

/// An image that can discard, but does not promise what is read afterwards.
struct Discards(MemoryBackend);

impl BlockBackend for Discards {
    fn info(&self) -> BlockInfo {
        BlockInfo { write_zeroes: false, write_zeroes_unmap: false, ..self.0.info() }
    }

    fn open_queue(&self, depth: u32) -> std::io::Result<Box<dyn BlockQueue>> {
        self.0.open_queue(depth)
    }
}

#[test]
fn what_trimmed_sectors_read_as_is_promised_only_where_it_is_known() {
    let recording = RecordingBackend::new(Discards(numbered()));
    let log = recording.log();
    let mut machine = Machine::new(recording);
    let words = machine.identify();
    assert_eq!((words[69], words[169]), (0, 1));
    fill_ranges(&machine, &[(8, 8)]);
    machine.issue_with(0, &trim(1), 512);
    machine.expect_done();
    assert!(matches!(log.events()[0], Event::Submitted { op: BlockOp::Discard, .. }));
}

fn smart_command(subcommand: u8, lba_low: u8, count: u16) -> RegisterH2d {
    let mut fis = RegisterH2d::command(command::SMART);
    fis.features = subcommand;
    fis.lba = [lba_low, smart::SIGNATURE[0], smart::SIGNATURE[1]];
    fis.count = count.into();
    fis
}

#[test]
fn smart_answers_while_it_is_enabled() {
    use smart::subcommand::*;
    let mut machine = Machine::new(numbered());
    machine.issue_with(0, &sectors(command::READ_DMA, 0, 9), 9 * 512);
    machine.expect_done();
    machine.issue_with(0, &smart_command(READ_DATA, 0, 1), 512);
    machine.expect_done();
    let data = machine.bytes(data_at(0), 512);
    assert_eq!(data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
    // Attribute 242, sectors read.
    assert_eq!((data[14], data[14 + 5]), (242, 9));
    machine.issue_with(0, &smart_command(RETURN_STATUS, 0, 0), 0);
    assert_eq!(machine.d2h().lba[1..], smart::SIGNATURE);
    machine.expect_done();
    machine.issue_with(0, &smart_command(READ_THRESHOLDS, 1, 1), 512);
    machine.expect_done();
    assert_eq!(machine.bytes(data_at(0), 15)[14], 242);
    machine.issue_with(0, &smart_command(READ_LOG, 0, 1), 512);
    machine.expect_done();
    // The NCQ command error log is not one of SMART's.
    let directory = machine.bytes(data_at(0), 512);
    assert_eq!((directory[0], directory[0x20], directory[0x60]), (1, 0, 2));

    let mut unsigned = smart_command(READ_DATA, 0, 1);
    unsigned.lba = [0; 3];
    for fis in [unsigned, smart_command(EXECUTE_OFFLINE, 1, 0), smart_command(WRITE_LOG, 0, 1)] {
        machine.issue_with(0, &fis, 512);
        machine.expect_error(error::ABRT);
    }
    machine.issue_with(0, &smart_command(DISABLE, 0, 0), 0);
    machine.expect_done();
    machine.issue_with(0, &smart_command(READ_DATA, 0, 1), 512);
    machine.expect_error(error::ABRT);
    assert_eq!(machine.identify()[85] & identify::SUPPORTED_SMART, 0);
    machine.issue_with(0, &smart_command(ENABLE, 0, 0), 0);
    machine.expect_done();
    assert_ne!(machine.identify()[85] & identify::SUPPORTED_SMART, 0);
}

fn read_log(code: u8, log: u8, page: u8, count: u16) -> RegisterH2d {
    let mut fis = RegisterH2d::command(code);
    fis.lba = [log, page, 0];
    fis.count = count.into();
    fis
}

#[test]
fn logs_are_read_by_page() {
    for code in [command::READ_LOG_EXT, command::READ_LOG_DMA_EXT] {
        let mut machine = Machine::new(numbered());
        machine.issue_with(0, &read_log(code, 0, 0, 1), 512);
        let pio = machine.causes() == PortInterrupt::PSS;
        assert_eq!(pio, code == command::READ_LOG_EXT);
        machine.expect_done();
        let directory = machine.bytes(data_at(0), 512);
        let pages = |log: usize| u16::from_le_bytes([directory[log * 2], directory[log * 2 + 1]]);
        assert_eq!((pages(0), pages(0x10), pages(0x30), pages(0x11)), (1, 1, 2, 0));

        let identity = {
            machine.identify();
            machine.bytes(data_at(0), 512)
        };
        machine.issue_with(0, &read_log(code, 0x30, 0, 2), 1024);
        machine.expect_done();
        let log = machine.bytes(data_at(0), 1024);
        assert_eq!(log[8..11], [2, 0, 1]);
        assert_eq!(log[512..], identity);
        machine.issue_with(0, &read_log(code, 0x30, 1, 1), 512);
        machine.expect_done();
        assert_eq!(machine.bytes(data_at(0), 512), identity);

        for (log, page, count) in
            [(0x30, 1, 2), (0x30, 2, 1), (0x30, 0, 0), (0x30, 255, 0xffff), (0x11, 0, 1), (0, 1, 1)]
        {
            machine.issue_with(0, &read_log(code, log, page, count), 0x1_0000);
            machine.expect_error(error::ABRT);
        }
    }
}
