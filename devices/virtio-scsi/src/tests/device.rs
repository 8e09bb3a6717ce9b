//! Features, configuration and options.

use std::mem::offset_of;

use paraslot_spec::virtio;
use paraslot_spec::virtio_scsi::{Config, feature};

use super::*;
use crate::{MAX_CDB_SIZE, MAX_SENSE_SIZE};

const SENSE_SIZE: u64 = offset_of!(Config, sense_size) as u64;
const CDB_SIZE: u64 = offset_of!(Config, cdb_size) as u64;

fn config(device: &VirtioScsi) -> Config {
    let mut bytes = [0; size_of::<Config>()];
    VirtioDevice::<Space>::config(device).read(0, &mut bytes);
    Config::read_from_bytes(&bytes).unwrap()
}

fn sizes(device: &VirtioScsi) -> (u32, u32) {
    let config = config(device);
    (config.sense_size.get(), config.cdb_size.get())
}

// inline.scsi.14
#[test]
fn what_is_offered() {
    let device = VirtioScsi::new(bus(), &Options::default()).unwrap();
    let all = feature::HOTPLUG
        | feature::CHANGE
        | virtio::feature::EVENT_IDX
        | virtio::feature::INDIRECT_DESC;
    assert_eq!(VirtioDevice::<Space>::features(&device), all);
    assert_eq!(VirtioDevice::<Space>::device_type(&device), 8);
    assert_eq!(VirtioDevice::<Space>::queue_sizes(&device), [256, 256, 256]);

    let features = feature::HOTPLUG | feature::INOUT | feature::T10_PI;
    let options = Options { request_queues: 3, queue_size: 1024, features, ..Options::default() };
    let device = VirtioScsi::new(bus(), &options).unwrap();
    assert_eq!(VirtioDevice::<Space>::features(&device), feature::HOTPLUG);
    assert_eq!(VirtioDevice::<Space>::queue_sizes(&device), [256, 256, 1024, 1024, 1024]);
}

// inline.scsi.1, inline.scsi.2, inline.scsi.3, inline.scsi.4, inline.scsi.5
#[test]
fn the_configuration() {
    let options = Options { request_queues: 3, ..Options::default() };
    let shown = config(&VirtioScsi::new(bus(), &options).unwrap());
    assert_eq!((shown.num_queues.get(), shown.seg_max.get()), (3, 254));
    assert_eq!((shown.max_sectors.get(), shown.cmd_per_lun.get()), (0xffff, 256));
    assert_eq!(shown.event_info_size.get(), 16);
    assert_eq!((shown.sense_size.get(), shown.cdb_size.get()), (96, 32));
    assert_eq!(shown.max_channel.get(), 0);
    assert_eq!((shown.max_target.get(), shown.max_lun.get()), (255, 16383));

    let small = Bus::new(BusOptions {
        initiator: Initiator("test".into()),
        max_target: 6,
        max_lun: 7,
        autosense: true,
    });
    let options = Options {
        queue_size: 8192,
        seg_max: Some(77),
        max_sectors: 88,
        cmd_per_lun: Some(99),
        ..Options::default()
    };
    let shown = config(&VirtioScsi::new(small, &options).unwrap());
    assert_eq!((shown.seg_max.get(), shown.max_sectors.get()), (77, 88));
    assert_eq!(shown.cmd_per_lun.get(), 99);
    assert_eq!((shown.max_target.get(), shown.max_lun.get()), (6, 7));

    let options = Options { queue_size: 8192, ..Options::default() };
    let shown = config(&VirtioScsi::new(bus(), &options).unwrap());
    assert_eq!((shown.seg_max.get(), shown.cmd_per_lun.get()), (1022, 4096));
}

#[test]
fn options_that_cannot_be_served_are_refused_in_one_line() {
    let base = Options::default;
    for (options, expected) in [
        (Options { request_queues: 0, ..base() }, "choose 1 to 256"),
        (Options { request_queues: 257, ..base() }, "choose 1 to 256"),
        (Options { queue_size: 100, ..base() }, "choose a power of two"),
        (Options { queue_size: 2, ..base() }, "choose a power of two"),
        (Options { seg_max: Some(0), ..base() }, "choose 1 to 1022"),
        (Options { seg_max: Some(1023), ..base() }, "choose 1 to 1022"),
        (Options { max_sectors: 7, ..base() }, "choose at least 8"),
        (Options { cmd_per_lun: Some(0), ..base() }, "choose 1 to 256"),
        (Options { cmd_per_lun: Some(257), ..base() }, "choose 1 to 256"),
        (Options { queue_size: 8192, cmd_per_lun: Some(4097), ..base() }, "choose 1 to 4096"),
    ] {
        let error = VirtioScsi::new(bus(), &options).err().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    let most = Options { request_queues: 256, queue_size: 32768, ..base() };
    assert!(VirtioScsi::new(bus(), &most).is_ok());
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut device = VirtioScsi::new(bus(), &Options::default()).unwrap();
    for wrong in [feature::INOUT, feature::T10_PI, 1 << 10] {
        assert!(!VirtioDevice::<Space>::accept_features(&mut device, wrong));
    }
    let transports = virtio::feature::VERSION_1 | virtio::feature::RING_RESET;
    assert!(VirtioDevice::<Space>::accept_features(&mut device, feature::CHANGE | transports));
    let space: Space =
        Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
    let ring = DriverRing::new(space, 0, 16);
    assert!(device.start_queue(3, ring.queue(0).queue).is_err());
    assert!(device.start_queue(u16::MAX, ring.queue(0).queue).is_err());
}

// scsi.config.1; the driver writes two fields, each as a whole, and only what can be served.
#[test]
fn only_the_sizes_can_be_written() {
    let mut device = VirtioScsi::new(bus(), &Options::default()).unwrap();
    let before = config(&device);
    let write = |device: &mut VirtioScsi, offset, data: &[u8]| {
        VirtioDevice::<Space>::write_config(device, offset, data);
    };
    for (offset, data) in [
        (0, &[1; 4][..]),
        (SENSE_SIZE - 4, &[1; 4]),
        (SENSE_SIZE, &[1; 8]),
        (SENSE_SIZE, &[1; 2]),
        (SENSE_SIZE, &[]),
        (SENSE_SIZE + 1, &[1, 0, 0, 0]),
        (CDB_SIZE + 4, &[1, 0, 0, 0]),
        (u64::MAX, &[1, 0, 0, 0]),
        (SENSE_SIZE, &(MAX_SENSE_SIZE + 1).to_le_bytes()),
        (SENSE_SIZE, &u32::MAX.to_le_bytes()),
        (CDB_SIZE, &(MAX_CDB_SIZE + 1).to_le_bytes()),
        (CDB_SIZE, &u32::MAX.to_le_bytes()),
    ] {
        write(&mut device, offset, data);
        assert_eq!(config(&device), before, "{offset} {data:?}");
    }
    write(&mut device, SENSE_SIZE, &MAX_SENSE_SIZE.to_le_bytes());
    assert_eq!(sizes(&device), (252, 32));
    write(&mut device, CDB_SIZE, &MAX_CDB_SIZE.to_le_bytes());
    assert_eq!(sizes(&device), (252, 260));
    write(&mut device, SENSE_SIZE, &[0; 4]);
    write(&mut device, CDB_SIZE, &16u32.to_le_bytes());
    assert_eq!(sizes(&device), (0, 16));
    VirtioDevice::<Space>::reset(&mut device);
    assert_eq!(config(&device), before);
}

// The units are told of the device's reset: what was reserved or set up is gone.
#[test]
fn a_reset_is_one_of_the_units() {
    let mut host = Host::simple(memory(8));
    host.reset();
    let answer = host.request(at(0, 0), &TEST_UNIT_READY, &[]);
    let (key, code, _) = answer.code();
    assert_eq!((key, code), (6, 0x29));
    host.ready(at(0, 0));
    assert_eq!(host.load(at(0, 0), 0, 1), [0]);
}

#[test]
fn the_owner_reaches_the_bus() {
    let host = Host::new(bus(), &options(), ALL);
    let control = host.device.control();
    control.bus().attach(at(3, 4), disk(memory(8))).unwrap();
    assert_eq!(host.bus.addresses(), [at(3, 4)]);
    assert_eq!(control.pending_events(), 1);
}
