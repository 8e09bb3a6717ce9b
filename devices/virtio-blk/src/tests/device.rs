//! Features, configuration and options.

use std::mem::offset_of;

use paraslot_backends::block::{BlockInfo, NullBackend, NullOptions};
use paraslot_spec::virtio;
use paraslot_spec::virtio_blk::{Config, feature, request};
use zerocopy::FromBytes;

use super::*;

fn config(device: &VirtioBlk) -> Config {
    let mut bytes = [0; size_of::<Config>()];
    VirtioDevice::<Space>::config(device).read(0, &mut bytes);
    Config::read_from_bytes(&bytes).unwrap()
}

fn offered(device: &VirtioBlk) -> u64 {
    VirtioDevice::<Space>::features(device)
}

fn new(backend: impl BlockBackend + 'static, options: &Options) -> VirtioBlk {
    VirtioBlk::new(Arc::new(backend), options).unwrap()
}

fn writeback(disk: &Disk) -> u8 {
    config(&disk.device).writeback
}

const WRITEBACK: u64 = offset_of!(Config, writeback) as u64;

// blk.init.1, blk.init.2, blk.init.5, blk.op.15, blk.op.16
#[test]
fn what_is_offered() {
    let device = new(memory(8), &Options::default());
    let all = feature::SEG_MAX
        | feature::BLK_SIZE
        | feature::TOPOLOGY
        | feature::FLUSH
        | feature::CONFIG_WCE
        | feature::DISCARD
        | feature::WRITE_ZEROES
        | feature::SECURE_ERASE
        | virtio::feature::EVENT_IDX
        | virtio::feature::INDIRECT_DESC;
    assert_eq!(offered(&device), all);
    let device = new(memory(8), &Options { queues: 2, ..Options::default() });
    assert_eq!(offered(&device), all | feature::MQ);
    assert_eq!(VirtioDevice::<Space>::queue_sizes(&device), [256, 256]);
    assert_eq!(VirtioDevice::<Space>::device_type(&device), 2);
    let device = new(memory(8), &Options { read_only: true, ..Options::default() });
    let changing = feature::DISCARD | feature::WRITE_ZEROES | feature::SECURE_ERASE;
    assert_eq!(offered(&device), (all | feature::RO) & !changing);
}

struct Described(BlockInfo);

impl BlockBackend for Described {
    fn info(&self) -> BlockInfo {
        self.0.clone()
    }
    fn open_queue(
        &self,
        _depth: u32,
    ) -> std::io::Result<Box<dyn paraslot_backends::block::BlockQueue>> {
        Err(std::io::ErrorKind::OutOfMemory.into())
    }
}

// blk.op.10: write_zeroes_may_unmap says what the backend can do; fields without feature are zero.
#[test]
fn only_what_the_backend_can_do_is_offered() {
    let plain = BlockInfo {
        capacity: 1 << 20,
        logical_block: 512,
        physical_block: 512,
        read_only: false,
        volatile_cache: true,
        discard_granularity: 0,
        write_zeroes: true,
        write_zeroes_unmap: false,
        secure_erase: false,
        id: "a serial number that is far too long".into(),
    };
    let mut device = new(Described(plain), &Options::default());
    assert_eq!(offered(&device) & (feature::DISCARD | feature::SECURE_ERASE), 0);
    let shown = config(&device);
    assert_eq!(shown.write_zeroes_may_unmap, 0);
    assert_eq!((shown.max_discard_seg.get(), shown.max_secure_erase_seg.get()), (0, 0));
    assert_eq!(shown.max_write_zeroes_seg.get(), 64);

    let space: Space =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
    let ring = DriverRing::new(space, 0, 16);
    assert!(device.start_queue(0, ring.queue(0).queue).is_err());
    assert!(device.start_queue(1, ring.queue(0).queue).is_err());
}

// blk.init.4: unused0 and unused1 read zero.
#[test]
fn the_configuration() {
    let options = MemoryOptions { logical_block: 4096, ..MemoryOptions::default() };
    let backend = MemoryBackend::new(1 << 20, options).unwrap();
    let options = Options { queues: 3, max_discard_sectors: 77, ..Options::default() };
    let device = new(backend, &options);
    let shown = config(&device);
    assert_eq!(shown.capacity.get(), 2048);
    assert_eq!((shown.blk_size.get(), shown.seg_max.get(), shown.size_max.get()), (4096, 254, 0));
    assert_eq!((shown.num_queues.get(), shown.writeback), (3, 0));
    assert_eq!((shown.topology.physical_block_exp, shown.topology.min_io_size.get()), (0, 1));
    assert_eq!((shown.max_discard_sectors.get(), shown.discard_sector_alignment.get()), (77, 8));
    assert_eq!((shown.max_write_zeroes_seg.get(), shown.write_zeroes_may_unmap), (64, 1));
    assert_eq!(
        (shown.max_secure_erase_seg.get(), shown.secure_erase_sector_alignment.get()),
        (64, 8)
    );
    let mut bytes = [0xff; size_of::<Config>() + 4];
    VirtioDevice::<Space>::config(&device).read(0, &mut bytes);
    assert_eq!((bytes[33], &bytes[57..60], &bytes[72..]), (0, &[0; 3][..], &[0; 4][..]));
}

#[test]
fn options_that_cannot_be_served_are_refused_in_one_line() {
    let base = Options::default;
    for (options, expected) in [
        (Options { queues: 0, ..base() }, "choose 1 to 1024"),
        (Options { queue_size: 100, ..base() }, "choose a power of two"),
        (Options { queue_size: 2, ..base() }, "choose a power of two"),
        (Options { seg_max: Some(0), ..base() }, "choose 1 to 1022"),
        (Options { seg_max: Some(1023), ..base() }, "choose 1 to 1022"),
        (Options { id: Some("x".repeat(21)), ..base() }, "up to 20 ASCII"),
        (Options { id: Some("ä".into()), ..base() }, "up to 20 ASCII"),
        (Options { max_ranges: 257, ..base() }, "choose 1 to 256"),
        (Options { max_discard_sectors: 0, ..base() }, "less than a block"),
    ] {
        let error = VirtioBlk::new(Arc::new(memory(8)), &options).err().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    assert!(VirtioBlk::new(Arc::new(memory(8)), &Options { queue_size: 2048, ..base() }).is_ok());
}

// blk.init.3, CH 5ae329305: the cache mode follows what was negotiated.
#[test]
fn writeback_after_negotiation() {
    let cases = [
        (feature::CONFIG_WCE | feature::FLUSH, 1),
        (feature::CONFIG_WCE, 0),
        (feature::FLUSH, 1),
        (0, 1),
    ];
    for (features, expected) in cases {
        let disk = Disk::new(volatile(8), &Options::default(), features);
        assert_eq!(writeback(&disk), expected, "{features:#x}");
    }
    let options = Options { write_cache: Some(false), ..Options::default() };
    let mut disk = Disk::new(volatile(8), &options, ALL);
    assert_eq!(writeback(&disk), 0);
    VirtioDevice::<Space>::write_config(&mut disk.device, WRITEBACK, &[1]);
    assert_eq!(writeback(&disk), 1);
    VirtioDevice::<Space>::reset(&mut disk.device);
    assert_eq!(writeback(&disk), 0);
}

#[test]
fn only_the_writeback_field_can_be_written() {
    let mut disk = Disk::new(volatile(8), &Options::default(), ALL);
    let before = config(&disk.device);
    for (offset, data) in [
        (0, &[1; 8][..]),
        (WRITEBACK, &[0, 0][..]),
        (WRITEBACK, &[2][..]),
        (WRITEBACK, &[][..]),
        (WRITEBACK - 1, &[0, 0][..]),
        (WRITEBACK + 1, &[1][..]),
        (u64::MAX, &[0][..]),
    ] {
        VirtioDevice::<Space>::write_config(&mut disk.device, offset, data);
        assert_eq!(config(&disk.device), before);
    }
    VirtioDevice::<Space>::write_config(&mut disk.device, WRITEBACK, &[0]);
    assert_eq!(writeback(&disk), 0);

    let mut disk = Disk::new(volatile(8), &Options::default(), ALL & !feature::CONFIG_WCE);
    VirtioDevice::<Space>::write_config(&mut disk.device, WRITEBACK, &[0]);
    assert_eq!(writeback(&disk), 1);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut device = new(memory(8), &Options::default());
    for wrong in [feature::ZONED, feature::LIFETIME, feature::GEOMETRY, feature::MQ, feature::RO] {
        assert!(!VirtioDevice::<Space>::accept_features(&mut device, wrong));
    }
    let transports = virtio::feature::VERSION_1 | virtio::feature::RING_RESET;
    assert!(VirtioDevice::<Space>::accept_features(&mut device, feature::FLUSH | transports));
}

// blk.op.1, blk.op.2
#[test]
fn a_resize_is_announced() {
    let backend = NullBackend::new(8 * 512, NullOptions::default()).unwrap();
    let mut disk = Disk::simple(backend.clone());
    let control = disk.device.control();
    let data = [Buffer::writable(DATA, 512)];
    assert_eq!(disk.request(request::IN, 8, &data).0, status::IOERR);
    backend.resize(16 * 512).unwrap();
    assert_eq!(disk.request(request::IN, 8, &data).0, status::IOERR);
    assert_eq!(control.resize(), 16 * 512);
    assert_eq!(config(&disk.device).capacity.get(), 16);
    assert_eq!(disk.signals.config_changes(), 1);
    assert_eq!(disk.request(request::IN, 15, &data).0, status::OK);
    backend.resize(8 * 512).unwrap();
    control.resize();
    assert_eq!(disk.request(request::IN, 15, &data).0, status::IOERR);
    assert_eq!(disk.signals.config_changes(), 2);
    control.resize();
    assert_eq!(disk.signals.config_changes(), 2);
}
