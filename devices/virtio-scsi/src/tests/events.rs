//! The event queue.

use paraslot_backends::block::{NullBackend, NullOptions};
use paraslot_scsi::CdromOptions;
use paraslot_spec::virtio_scsi::{Event, event, feature, reset_reason};

use super::*;
use crate::MAX_EVENTS;

const BUFFERS: u64 = DATA;

/// Gives the device event buffers.
pub(super) fn give(host: &mut Host, count: u64, len: u32) {
    for index in 0..count {
        host.write(BUFFERS + 32 * index, &[POISON; 32]);
        host.events().ring.add(&[Buffer::writable(BUFFERS + 32 * index, len)]);
    }
}

/// The next event that was told, in the buffer that was given as the `index`th.
pub(super) fn told(host: &mut Host, index: u64) -> Option<(u32, [u8; 8], u32)> {
    let (_, written) = host.events().ring.used()?;
    assert_eq!(written, 16);
    let bytes = host.read(BUFFERS + 32 * index, 17);
    assert_eq!(bytes[16], POISON);
    let (event, _) = Event::read_from_prefix(&bytes).unwrap();
    Some((event.event.get(), event.lun.0, event.reason.get()))
}

pub(super) fn rescan(lun: [u8; 8]) -> Option<(u32, [u8; 8], u32)> {
    Some((event::TRANSPORT_RESET, lun, reset_reason::RESCAN))
}

// inline.scsi.14
#[test]
fn units_that_come_and_go_are_told_of() {
    let mut host = Host::new(bus(), &options(), feature::HOTPLUG);
    give(&mut host, 3, 16);
    host.run();
    assert_eq!((told(&mut host, 0), host.events().interrupt.count()), (None, 0));
    host.bus.attach(at(3, 300), disk(memory(8))).unwrap();
    host.run();
    assert_eq!(told(&mut host, 0), rescan([1, 3, 0x41, 0x2c, 0, 0, 0, 0]));
    assert_eq!(host.events().interrupt.count(), 1);
    host.bus.attach(at(3, 5), disk(memory(8))).unwrap();
    let ticket = host.bus.detach(at(3, 300)).unwrap();
    host.run();
    assert_eq!(told(&mut host, 1), rescan([1, 3, 0, 5, 0, 0, 0, 0]));
    let removed = (event::TRANSPORT_RESET, [1, 3, 0x41, 0x2c, 0, 0, 0, 0], reset_reason::REMOVED);
    assert_eq!(told(&mut host, 2), Some(removed));
    assert_eq!(host.events().interrupt.count(), 2);
    assert!(ticket.response().is_some());
}

// scsi.eventq.3
#[test]
fn without_hotplug_nobody_hears_of_units() {
    for (features, told_of) in [(ALL & !feature::HOTPLUG, false), (feature::HOTPLUG, true)] {
        let mut host = Host::new(bus(), &options(), features);
        give(&mut host, 2, 16);
        host.bus.attach(at(0, 0), disk(memory(8))).unwrap();
        host.bus.detach(at(0, 0)).unwrap();
        host.run();
        assert_eq!(host.events().ring.used().is_some(), told_of);
        assert_eq!(host.events().ring.used().is_some(), told_of);
    }
}

// inline.scsi.15: the event goes with a unit attention.
#[test]
fn a_resize_is_told_both_ways() {
    let image = NullBackend::new(64 * 512, NullOptions::default()).unwrap();
    let mut host = Host::simple(image.clone());
    while !host.request(at(0, 0), &TEST_UNIT_READY, &[]).is_good() {}
    give(&mut host, 2, 16);
    image.resize(128 * 512).unwrap();
    host.bus.unit(at(0, 0)).unwrap().resize();
    host.run();
    assert_eq!(told(&mut host, 0), Some((event::PARAM_CHANGE, [1, 0, 0, 0, 0, 0, 0, 0], 0x092a)));
    assert_eq!(host.request(at(0, 0), &TEST_UNIT_READY, &[]).code(), (6, 0x2a, 9));
    assert!(host.request(at(0, 0), &TEST_UNIT_READY, &[]).is_good());
}

// scsi.eventq.4: nothing is told of a disc that is changed.
#[test]
fn drives_tell_by_sense_data_alone() {
    let drive = LogicalUnit::cdrom(CdromOptions::new(None)).unwrap();
    let bus = bus();
    bus.attach(at(0, 0), drive.clone()).unwrap();
    let mut host = Host::new(bus, &options(), ALL);
    give(&mut host, 2, 16);
    drive.change_medium(Some(Arc::new(memory(64)))).unwrap();
    host.run();
    assert_eq!(told(&mut host, 0), None);
    assert_eq!(host.device.control().pending_events(), 0);
    let codes: Vec<u8> = (0..4)
        .map(|_| host.request(at(0, 0), &TEST_UNIT_READY, &[]))
        .filter(|answer| !answer.is_good())
        .map(|answer| answer.code().1)
        .collect();
    assert!(codes.contains(&0x28), "{codes:x?}");
}

// scsi.eventq.1, scsi.eventq.2: events wait for buffers, so many and no more; that some were lost is
// said with the next.
#[test]
fn events_wait_for_buffers() {
    let mut host = Host::new(bus(), &options(), ALL);
    let most = u16::try_from(MAX_EVENTS).unwrap();
    for lun in 0..most + 5 {
        host.bus.attach(at(0, lun), disk(memory(8))).unwrap();
    }
    host.run();
    assert_eq!(host.device.control().pending_events(), MAX_EVENTS);
    give(&mut host, 2, 16);
    host.run();
    let kind = event::TRANSPORT_RESET | event::MISSED;
    let expected = (kind, [1, 0, 0, 0, 0, 0, 0, 0], reset_reason::RESCAN);
    assert_eq!(told(&mut host, 0), Some(expected));
    assert_eq!(told(&mut host, 1), rescan([1, 0, 0, 1, 0, 0, 0, 0]));
    for lun in (2..most).step_by(16) {
        give(&mut host, 16, 16);
        host.run();
        for index in 0..16 {
            if lun + index < most {
                let told = told(&mut host, index.into()).unwrap();
                assert_eq!(told.0, event::TRANSPORT_RESET);
            }
        }
    }
    assert_eq!(host.device.control().pending_events(), 0);
    assert_eq!(host.events().ring.used(), None);
}

// inline.scsi.16: a buffer that is too small for an event is used for NO_EVENT, and the event waits.
#[test]
fn small_buffers_are_given_back() {
    let mut host = Host::new(bus(), &options(), ALL);
    give(&mut host, 1, 15);
    host.write(BUFFERS + 0x100, &[POISON; 32]);
    host.events().ring.add(&[Buffer::writable(BUFFERS + 0x100, 2)]);
    host.events().ring.add(&[Buffer::readable(BUFFERS + 0x100, 64)]);
    host.bus.attach(at(0, 0), disk(memory(8))).unwrap();
    host.run();
    let used: Vec<u32> =
        std::iter::from_fn(|| host.events().ring.used()).map(|(_, written)| written).collect();
    assert_eq!(used, [15, 2, 0]);
    assert_eq!(host.read(BUFFERS, 16), [&[0; 15][..], &[POISON]].concat());
    assert_eq!(host.read(BUFFERS + 0x100, 3), [0, 0, POISON]);
    assert_eq!(host.device.control().pending_events(), 1);
    give(&mut host, 1, 32);
    host.run();
    assert_eq!(told(&mut host, 0), rescan([1, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(host.resets(), 0);
}

// QEMU 91e7fcca47: no buffer is lost on an error. One that is not memory breaks the queue.
#[test]
fn buffers_that_are_not_memory_break_the_queue() {
    let mut host = Host::new(bus(), &options(), ALL);
    host.events().ring.add(&[Buffer::writable(1 << 40, 16)]);
    host.run();
    assert_eq!(host.resets(), 0);
    host.bus.attach(at(0, 0), disk(memory(8))).unwrap();
    host.run();
    assert_eq!((host.events().signals.resets(), host.events().ring.used()), (1, None));
    host.bus.attach(at(0, 1), disk(memory(8))).unwrap();
    host.run();
    assert_eq!(host.events().signals.resets(), 1);
    // After a reset all is well, and old events are forgotten.
    host.reset();
    give(&mut host, 2, 16);
    host.run();
    assert_eq!(told(&mut host, 0), None);
    host.bus.attach(at(0, 2), disk(memory(8))).unwrap();
    host.run();
    assert_eq!(told(&mut host, 0), rescan([1, 0, 0, 2, 0, 0, 0, 0]));
}

// An event in any number of pieces (split.framing.1), and without bus mastering none.
#[test]
fn buffers_in_pieces_and_none_without_bus_mastering() {
    let mut host = Host::new(bus(), &options(), ALL);
    host.write(BUFFERS, &[POISON; 32]);
    let pieces: Vec<Buffer> = (0..16).map(|index| Buffer::writable(BUFFERS + index, 1)).collect();
    host.events().ring.add(&pieces);
    host.events().bus_master.set(false);
    host.bus.attach(at(9, 0), disk(memory(8))).unwrap();
    host.run();
    assert_eq!(host.events().ring.used(), None);
    assert_eq!(host.events().worker.quiesce(), Progress::Idle);
    host.events().bus_master.set(true);
    host.run();
    assert_eq!(told(&mut host, 0), rescan([1, 9, 0, 0, 0, 0, 0, 0]));
}

// The driver notifies of buffers only while an event waits for one.
#[test]
fn buffers_are_not_asked_for_in_vain() {
    use paraslot_spec::virtio::split::USED_F_NO_NOTIFY;
    let mut host = Host::new(bus(), &options(), feature::HOTPLUG);
    give(&mut host, 1, 16);
    host.bus.attach(at(0, 0), disk(memory(8))).unwrap();
    host.run();
    assert!(told(&mut host, 0).is_some());
    assert_eq!(host.events().ring.used_flags(), USED_F_NO_NOTIFY);
    host.bus.attach(at(0, 1), disk(memory(8))).unwrap();
    host.run();
    assert_eq!(host.events().ring.used_flags(), 0);
    give(&mut host, 1, 16);
    host.run();
    assert!(told(&mut host, 0).is_some());
}
