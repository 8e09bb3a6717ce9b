//! Queue registers, doorbells, and what a queue carries.

use std::sync::atomic::Ordering;

use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, capability, pm};
use paraslot_spec::virtio::feature::{EVENT_IDX, INDIRECT_DESC, VERSION_1};
use proptest::prelude::*;

use super::echo::NEEDED;
use super::guest::{COPY, Guest};
use crate::layout::NOTIFY;
use crate::offsets;
use paraslot_virtio::testing::Buffer;

#[test]
fn requests_are_served() {
    for features in [0, EVENT_IDX, INDIRECT_DESC, EVENT_IDX | INDIRECT_DESC] {
        let (mut guest, mut ring) = Guest::running(features);
        for round in 0..20u8 {
            ring.write(0x8_0000, &[round; 8]);
            let head = if features & INDIRECT_DESC != 0 {
                ring.add_indirect(0xa_0000, &COPY)
            } else {
                ring.add(&COPY)
            };
            guest.ring_doorbell(0);
            guest.run();
            assert_eq!(ring.used(), Some((head, 8)));
            assert_eq!(ring.read(0x9_0000, 8), [round; 8]);
        }
    }
}

/// Cuts `len` bytes at `address` into buffers at the given places.
fn cut(address: u64, len: u32, cuts: &[u32], writable: bool) -> Vec<Buffer> {
    let mut at = 0;
    let mut cuts: Vec<u32> = cuts.iter().map(|cut| cut % (len + 1)).collect();
    cuts.sort_unstable();
    cuts.push(len);
    cuts.into_iter()
        .map(|end| {
            let buffer = Buffer { address: address + u64::from(at), len: end - at, writable };
            at = end;
            buffer
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    // split.framing.1, split.used.2
    #[test]
    fn however_a_request_is_cut_up_it_is_the_same_request(
        source in prop::collection::vec(any::<u32>(), 0..4),
        target in prop::collection::vec(any::<u32>(), 0..3),
        data in prop::collection::vec(any::<u8>(), 64),
    ) {
        let (mut guest, mut ring) = Guest::running(0);
        ring.write(0x8_0000, &data);
        let mut buffers = cut(0x8_0000, 64, &source, false);
        buffers.extend(cut(0x9_0000, 64, &target, true));
        let head = ring.add(&buffers);
        guest.run();
        prop_assert_eq!(ring.used(), Some((head, 64)));
        prop_assert_eq!(ring.read(0x9_0000, 64), data);
    }
}

#[test]
fn queue_registers_hold_what_is_written() {
    let mut guest = Guest::new();
    for queue in [0, 1] {
        guest.select(queue);
        let base = 0x1234_5678_9abc_def0 + u64::from(queue);
        guest.set64(offsets::QUEUE_DESC, base);
        // The halves in the other order, and both at once.
        guest.set_common(offsets::QUEUE_DRIVER_HIGH, &0x1111_u32.to_le_bytes());
        guest.set_common(offsets::QUEUE_DRIVER, &0x2222_u32.to_le_bytes());
        guest.set_common(offsets::QUEUE_DEVICE, &(base << 1).to_le_bytes());
        let image = guest.image();
        assert_eq!(image.queue_desc.get(), base);
        assert_eq!(image.queue_driver.get(), 0x1111_0000_2222);
        assert_eq!(image.queue_device.get(), base << 1);
        assert_eq!(image.queue_select.get(), queue);
    }
}

// pci.common.15
#[test]
fn a_queue_takes_only_possible_sizes() {
    let mut guest = Guest::new();
    guest.select(0);
    for (written, read) in
        [(4, 4), (0, 4), (3, 4), (16, 4), (0x8000, 4), (0xffff, 4), (1, 1), (8, 8), (9, 8)]
    {
        guest.set16(offsets::QUEUE_SIZE, written);
        assert_eq!(guest.get16(offsets::QUEUE_SIZE), read);
    }
}

// CVE-2026-5747: the registers of a queue that is enabled, or of any after DRIVER_OK, are fixed.
#[test]
fn the_registers_of_a_queue_in_use_are_locked() {
    let mut guest = Guest::new();
    guest.negotiate(NEEDED | VERSION_1);
    let ring = guest.ring(0);
    guest.set_up(0, &ring);
    let try_all = |guest: &mut Guest| {
        let before = guest.image();
        guest.set16(offsets::QUEUE_SIZE, 2);
        guest.set64(offsets::QUEUE_DESC, 1 << 20);
        guest.set64(offsets::QUEUE_DRIVER, 1 << 20);
        guest.set64(offsets::QUEUE_DEVICE, 1 << 20);
        // Writing 0 does not disable it, and 2 is no way to enable it.
        guest.set16(offsets::QUEUE_ENABLE, 0);
        guest.set16(offsets::QUEUE_ENABLE, 2);
        assert_eq!(guest.image(), before);
    };
    try_all(&mut guest);
    assert_eq!(guest.image().queue_enable.get(), 1);
    guest.set_status(0xf);
    try_all(&mut guest);
    // This one was never enabled, and now it cannot be.
    guest.select(1);
    try_all(&mut guest);
    guest.set16(offsets::QUEUE_ENABLE, 1);
    assert_eq!(guest.image().queue_enable.get(), 0);
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 1);
}

#[test]
fn writes_of_another_width_are_ignored() {
    let mut guest = Guest::new();
    guest.select(1);
    let before = guest.image();
    for offset in 0..64 {
        for len in [3, 5, 6, 7, 9, 16] {
            guest.set_common(offset, &vec![0xff; len]);
        }
        if offset != offsets::DEVICE_STATUS {
            guest.set_common(offset, &[0xff]);
        }
        if offset % 2 != 0 {
            guest.set_common(offset, &[0xff; 2]);
            guest.set_common(offset, &[0xff; 4]);
        }
        if offset < offsets::QUEUE_DESC || offset % 8 != 0 {
            guest.set_common(offset, &[0xff; 8]);
        }
    }
    // queue_reset means nothing without RING_RESET.
    guest.set16(offsets::QUEUE_RESET, 1);
    assert_eq!(guest.image(), before);
}

#[test]
fn any_part_of_the_common_configuration_can_be_read() {
    let mut guest = Guest::new();
    guest.select(1);
    let image = guest.common(0, 64);
    for offset in 0..70 {
        for len in 1..9 {
            let expected: Vec<u8> =
                (offset..offset + len).map(|at| image.get(at).copied().unwrap_or(0)).collect();
            assert_eq!(guest.common(offset as u64, len), expected);
        }
    }
}

// split.avail-suppress.5: and a doorbell with nothing behind it does no harm.
#[test]
fn a_doorbell_of_any_width_rings_its_queue() {
    let (mut guest, _) = Guest::running(0);
    for (queue, offset) in [(0, 0), (0, 1), (0, 3), (1, 4), (1, 6)] {
        for len in [1, 2, 4, 8] {
            guest.write(NOTIFY + offset, &vec![0xa5; len]);
            for (index, doorbell) in guest.function.layout().doorbells.iter().enumerate() {
                let rung = doorbell.event.read().unwrap_or(0);
                assert_eq!(rung, u64::from(index == queue), "{offset} {len}");
            }
        }
    }
    // There is no third one.
    for offset in [8, 100, 4095] {
        guest.write(NOTIFY + offset, &[0; 2]);
    }
    assert!(guest.function.layout().doorbells.iter().all(|bell| bell.event.read().is_err()));
    guest.run();
    assert_eq!(guest.control.taken.load(Ordering::SeqCst), 0);
    assert_eq!(guest.read(NOTIFY, 4), [0; 4]);
}

// Without bus mastering there is no access to memory; with it, what waits is found.
#[test]
fn bus_mastering_gates_the_queues() {
    let (mut guest, mut ring) = Guest::running(0);
    guest.command(Command::MEMORY);
    ring.add(&COPY);
    guest.ring_doorbell(0);
    guest.run();
    assert_eq!((ring.used_idx(), ring.used_flags()), (0, 0));
    guest.command(Command::MEMORY | Command::BUS_MASTER);
    guest.run();
    assert_eq!(ring.used(), Some((0, 8)));
    // D3hot is another way to the same.
    let at = guest.capabilities(capability::POWER_MANAGEMENT)[0] + pm::CONTROL;
    guest.set_config(at, &[3]);
    let head = ring.add(&COPY);
    guest.run();
    assert_eq!(ring.used(), None);
    guest.set_config(at, &[0]);
    guest.run();
    assert_eq!(ring.used(), Some((head, 8)));
}
