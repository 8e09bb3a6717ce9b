mod races;
mod sequences;

use paraslot_spec::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use paraslot_spec::virtio::split::DESC_F_NEXT;
use vm_memory::GuestMemoryMmap;

use super::*;
use crate::testing::logged::LoggedMemory;
use crate::testing::{Buffer, CountingInterrupt, CountingSignals, DriverRing, TestQueue};

type Space = Arc<GuestMemoryMmap>;

const BASE: u64 = 0x1000;
const LEN: usize = 0x1_0000;
const BUFFER: [Buffer; 1] = [Buffer { address: 0x8000, len: 16, writable: true }];

fn space() -> Space {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), LEN)]).unwrap())
}

fn pair(size: u16, features: u64) -> (DriverRing<Space>, TestQueue<Space>) {
    let ring = DriverRing::new(space(), BASE, size);
    let test = ring.queue(features);
    (ring, test)
}

fn memory<A: DmaSpace>(test: &TestQueue<A>) -> Memory<A> {
    test.queue.dma().memory().unwrap()
}

/// Pops one chain, which must be there, and pushes it.
fn serve<A: DmaSpace>(test: &mut TestQueue<A>, written: u32) -> u16 {
    let memory = memory(test);
    let head = test.queue.pop(&memory).unwrap().unwrap().head;
    test.queue.push_used(&memory, head, written);
    head
}

#[test]
fn chains_come_in_order_and_go_back_in_any() {
    let (mut ring, mut test) = pair(8, 0);
    let memory = memory(&test);
    let heads = [ring.add(&BUFFER), ring.add(&BUFFER), ring.add(&BUFFER)];
    for head in heads {
        assert_eq!(test.queue.pop(&memory).unwrap().unwrap().head, head);
    }
    assert_eq!(test.queue.pop(&memory), Ok(None));
    assert_eq!(test.queue.in_flight(), 3);
    for head in heads.into_iter().rev() {
        test.queue.push_used(&memory, head, u32::from(head) + 1);
    }
    assert_eq!(test.queue.in_flight(), 0);
    for head in heads.into_iter().rev() {
        assert_eq!(ring.used(), Some((head, u32::from(head) + 1)));
    }
    assert_eq!(ring.used(), None);
}

#[test]
fn indices_wrap() {
    let (mut ring, mut test) = pair(2, 0);
    for round in 0..0x1_0010u32 {
        let head = ring.add(&BUFFER);
        assert_eq!(serve(&mut test, round), head);
        assert_eq!(ring.used(), Some((head, round)));
    }
}

// split.desc.4, split.desc.1, split.desc.2: of all guest memory, the used ring alone is written.
#[test]
fn only_the_used_ring_is_written() {
    for features in [0, EVENT_IDX] {
        let (mut ring, mut test) = pair(4, features | INDIRECT_DESC);
        ring.write(0x8000, &[0xa5; 64]);
        ring.add(&[Buffer::readable(0x8000, 8), Buffer::writable(0x8008, 8)]);
        ring.add_indirect(0x9000, &[Buffer::readable(0x8010, 8), Buffer::writable(0x8018, 8)]);
        let before = ring.read(0, LEN);
        test.queue.disable_notifications(&memory(&test));
        serve(&mut test, 8);
        serve(&mut test, 8);
        test.queue.notify(&memory(&test));
        test.queue.enable_notifications(&memory(&test));
        let after = ring.read(0, LEN);
        let used = usize::try_from(ring.used_ring()).unwrap()..usize::try_from(ring.end()).unwrap();
        assert_ne!(before[used.clone()], after[used.clone()]);
        assert_eq!(before[..used.start], after[..used.start]);
        assert_eq!(before[used.end..], after[used.end..]);
    }
}

fn logged(size: u16) -> (Arc<LoggedMemory>, DriverRing<Arc<LoggedMemory>>) {
    let space = LoggedMemory::new(LEN);
    let ring = DriverRing::new(space.clone(), BASE, size);
    (space, ring)
}

// split.used.1: the element is complete before the index says so.
#[test]
fn the_used_element_is_stored_before_the_index() {
    let (space, mut ring) = logged(4);
    let mut test = ring.queue(0);
    let head = ring.add(&BUFFER);
    let memory = memory(&test);
    assert!(test.queue.pop(&memory).unwrap().is_some());
    space.take();
    test.queue.push_used(&memory, head, 1);
    let order: Vec<_> = space.take().iter().map(|access| (access.address, access.write)).collect();
    assert_eq!(order, [(ring.used_ring() + 4, true), (ring.used_ring() + 2, true)]);
}

// FreeBSD-SA-24:17 (double fetch): the index, the ring entry and each descriptor are read once.
#[test]
fn everything_is_read_once() {
    let (space, mut ring) = logged(8);
    let mut test = ring.queue(INDIRECT_DESC);
    let memory = memory(&test);
    assert_eq!(test.queue.pop(&memory), Ok(None));
    ring.set_table(0x9000, &[Buffer::readable(0x8000, 8), Buffer::writable(0x8000, 8)]);
    ring.set_descriptor(0, 0x8000, 1, DESC_F_NEXT, 1);
    ring.set_descriptor(1, 0x9000, 32, split::DESC_F_INDIRECT, 0);
    ring.publish(0);
    space.take();
    assert!(test.queue.pop(&memory).unwrap().is_some());
    let avail = ring.avail_ring();
    let reads: Vec<_> = space.take().iter().map(|a| (a.address, a.len, a.write)).collect();
    assert_eq!(
        reads,
        [
            (avail + 2, 2, false),
            (avail + 4, 2, false),
            (BASE, 16, false),
            (BASE + 16, 16, false),
            (0x9000, 16, false),
            (0x9010, 16, false),
        ]
    );
}

// Chains that are known to be there are taken without looking at the index again.
#[test]
fn the_available_index_is_read_once_for_a_batch() {
    let (space, mut ring) = logged(8);
    let mut test = ring.queue(0);
    let memory = memory(&test);
    for _ in 0..4 {
        ring.add(&BUFFER);
    }
    space.take();
    while test.queue.pop(&memory).unwrap().is_some() {}
    let index = ring.avail_ring() + 2;
    assert_eq!(space.take().iter().filter(|access| access.address == index).count(), 2);
}

#[test]
fn a_chain_is_what_it_was_when_it_was_popped() {
    let (mut ring, mut test) = pair(4, 0);
    let head = ring.add(&BUFFER);
    let chain = test.queue.pop(&memory(&test)).unwrap().unwrap();
    ring.set_descriptor(head, 0, 0xffff_ffff, DESC_F_NEXT, 77);
    assert_eq!((chain.writable[0].address.0, chain.writable[0].len), (0x8000, 16));
    test.queue.push_used(&memory(&test), head, 16);
    assert_eq!(ring.used(), Some((head, 16)));
}

fn broken<A: DmaSpace>(test: &mut TestQueue<A>, error: QueueError) {
    let memory = memory(test);
    assert_eq!(test.queue.pop(&memory), Err(error));
    assert!(test.queue.is_broken());
    assert_eq!(test.signals.resets(), 1);
    // OV e375025c7: it is idle from now on and says nothing more.
    assert_eq!(test.queue.pop(&memory), Ok(None));
    assert!(!test.queue.enable_notifications(&memory));
    test.queue.disable_notifications(&memory);
    test.queue.notify(&memory);
    test.queue.fail();
    assert_eq!((test.signals.resets(), test.interrupt.count()), (1, 0));
}

// vq 16f1b01; basic.status.2
#[test]
fn an_available_index_that_runs_ahead_breaks_the_queue() {
    for idx in [5, 0x8000, 0xffff] {
        let (mut ring, mut test) = pair(4, 0);
        ring.set_avail_idx(idx);
        broken(&mut test, QueueError::AvailIndex);
    }
    // As does one that goes back.
    let (mut ring, mut test) = pair(4, 0);
    ring.add(&BUFFER);
    serve(&mut test, 0);
    ring.set_avail_idx(0);
    broken(&mut test, QueueError::AvailIndex);
    // A full queue is no error.
    let (mut ring, mut test) = pair(4, 0);
    for _ in 0..4 {
        ring.add(&BUFFER);
    }
    for _ in 0..4 {
        assert!(test.queue.pop(&memory(&test)).unwrap().is_some());
    }
}

#[test]
fn a_malformed_chain_breaks_the_queue() {
    let (mut ring, mut test) = pair(4, 0);
    ring.publish(4);
    broken(&mut test, QueueError::Chain { head: 4 });
}

// CVE-2026-45782, CVE-2016-5403
#[test]
fn a_chain_in_flight_is_not_taken_again() {
    let (mut ring, mut test) = pair(4, 0);
    let head = ring.add(&BUFFER);
    assert!(test.queue.pop(&memory(&test)).unwrap().is_some());
    ring.publish(head);
    let memory = memory(&test);
    broken(&mut test, QueueError::InFlight { head });
    // It can still be given back, once, and nothing is told to the driver.
    assert_eq!(test.queue.in_flight(), 1);
    test.queue.push_used(&memory, head, 0);
    test.queue.push_used(&memory, head, 0);
    test.queue.notify(&memory);
    assert_eq!((test.queue.in_flight(), ring.used_idx(), test.interrupt.count()), (0, 0, 0));
}

#[test]
fn what_is_not_in_flight_is_not_given_back() {
    let (mut ring, mut test) = pair(4, 0);
    let memory = memory(&test);
    let head = ring.add(&BUFFER);
    for head in [head, 3, 4, 0xffff] {
        test.queue.push_used(&memory, head, 0);
    }
    assert_eq!((ring.used_idx(), test.queue.in_flight()), (0, 0));
}

fn queue(config: QueueConfig) -> TestQueue<Space> {
    let mut test = pair(4, 0).1;
    test.queue = Queue::new(
        config,
        test.queue.dma().clone(),
        test.interrupt.clone(),
        test.doorbell.try_clone().unwrap(),
        test.signals.clone(),
    );
    test
}

// vq b47a799, CVE-2017-17381: unset or impossible rings are an error, not a crash.
#[test]
fn impossible_rings_break_the_queue() {
    let good = DriverRing::new(space(), BASE, 4).config(0);
    for size in [0, 3, 5, 0x8001, 0xffff] {
        broken(&mut queue(QueueConfig { size, ..good }), QueueError::Rings);
    }
    for wrong in [1, LEN as u64 - 16, 1 << 40, !0xf, u64::MAX] {
        for field in 0..3 {
            let mut config = QueueConfig { size: 32, ..good };
            let fields =
                [&mut config.descriptor_table, &mut config.avail_ring, &mut config.used_ring];
            *fields.into_iter().nth(field).unwrap() = wrong;
            broken(&mut queue(config), QueueError::Rings);
        }
    }
    // Whatever touches it first.
    let mut test = queue(QueueConfig::default());
    assert!(!test.queue.enable_notifications(&memory(&test)));
    assert_eq!((test.queue.is_broken(), test.signals.resets()), (true, 1));
    // The largest is possible, given the memory.
    let regions = [(GuestAddress(0), 0x10_0000)];
    let map = GuestMemoryMmap::<()>::from_ranges(&regions).unwrap();
    let mut ring = DriverRing::new(Arc::new(map), 0, split::MAX_QUEUE_SIZE);
    let mut test = ring.queue(0);
    ring.add(&BUFFER);
    serve(&mut test, 0);
}

// split.used-suppress.1, split.used-suppress.2, split.used-suppress.3
#[test]
fn without_event_idx_the_flags_decide_on_interrupts() {
    let (mut ring, mut test) = pair(4, 0);
    ring.set_used_event(100);
    for (flags, interrupts) in [(0, 1), (1, 1), (0, 2), (0xfffe, 3), (1, 3)] {
        ring.set_avail_flags(flags);
        ring.add(&BUFFER);
        serve(&mut test, 0);
        test.queue.notify(&memory(&test));
        // Nothing new, nothing to say.
        test.queue.notify(&memory(&test));
        assert_eq!(test.interrupt.count(), interrupts);
        ring.used();
    }
}

// split.used-suppress.4, split.used-suppress.5, split.used-suppress.6
#[test]
fn with_event_idx_used_event_decides_on_interrupts() {
    let (mut ring, mut test) = pair(8, EVENT_IDX);
    ring.set_avail_flags(split::AVAIL_F_NO_INTERRUPT);
    // (used_event, chains pushed before notifying, interrupts so far)
    let steps = [(0, 1, 1), (2, 1, 1), (2, 1, 2), (2, 1, 2), (6, 4, 3), (7, 1, 3), (9, 2, 4)];
    for (used_event, pushed, interrupts) in steps {
        ring.set_used_event(used_event);
        for _ in 0..pushed {
            ring.add(&BUFFER);
            serve(&mut test, 0);
            ring.used();
        }
        test.queue.notify(&memory(&test));
        test.queue.notify(&memory(&test));
        assert_eq!(test.interrupt.count(), interrupts, "used_event {used_event}");
    }
}

// The element with index used_event may be anywhere, also around the wrap of the index.
#[test]
fn with_event_idx_interrupts_survive_the_wrap() {
    let (mut ring, mut test) = pair(4, EVENT_IDX);
    for round in 0..0x1_0010u32 {
        ring.set_used_event(u16::try_from(round & 0xffff).unwrap());
        ring.add(&BUFFER);
        serve(&mut test, 0);
        ring.used();
        test.queue.notify(&memory(&test));
    }
    assert_eq!(test.interrupt.count(), 0x1_0010);
}

// split.avail-suppress.1, split.avail-suppress.2
#[test]
fn without_event_idx_the_used_flags_are_0_or_1() {
    let (mut ring, mut test) = pair(4, 0);
    // Whatever was there.
    ring.write(ring.used_ring(), &[0xff, 0xff]);
    let memory = memory(&test);
    assert_eq!(test.queue.pop(&memory), Ok(None));
    assert_eq!(ring.used_flags(), 0);
    test.queue.disable_notifications(&memory);
    assert_eq!(ring.used_flags(), split::USED_F_NO_NOTIFY);
    assert!(!test.queue.enable_notifications(&memory));
    assert_eq!(ring.used_flags(), 0);
    test.queue.disable_notifications(&memory);
    ring.add(&BUFFER);
    // What came in between is seen.
    assert!(test.queue.enable_notifications(&memory));
    assert_eq!(ring.avail_event(), 0);
}

// split.avail-suppress.3, split.avail-suppress.4
#[test]
fn with_event_idx_the_used_flags_stay_0() {
    let (mut ring, mut test) = pair(4, EVENT_IDX);
    ring.write(ring.used_ring(), &[0xff, 0xff]);
    let memory = memory(&test);
    for round in 1..4 {
        test.queue.disable_notifications(&memory);
        assert_eq!(ring.used_flags(), 0);
        ring.add(&BUFFER);
        assert!(test.queue.enable_notifications(&memory));
        serve(&mut test, 0);
        assert!(!test.queue.enable_notifications(&memory));
        assert_eq!((ring.used_flags(), ring.avail_event()), (0, round));
    }
}

// split.avail-suppress.5
#[test]
fn looking_at_an_empty_queue_does_no_harm() {
    let (mut ring, mut test) = pair(4, 0);
    for _ in 0..3 {
        assert_eq!(test.queue.pop(&memory(&test)), Ok(None));
    }
    let head = ring.add(&BUFFER);
    assert_eq!(serve(&mut test, 0), head);
    assert_eq!(test.queue.pop(&memory(&test)), Ok(None));
    assert_eq!(test.signals.resets(), 0);
}

#[test]
fn the_doorbell_is_the_source() {
    let (_, test) = pair(4, 0);
    let Source::Event(fd) = test.queue.source() else { panic!("an eventfd") };
    assert_ne!(fd, test.doorbell.as_raw_fd());
    assert_eq!((test.queue.size(), test.queue.features()), (4, feature::VERSION_1));
}

// Guest memory that goes away takes the queue with it, and nothing else.
#[test]
fn memory_that_goes_away_breaks_the_queue() {
    use vm_memory::GuestMemoryAtomic;
    let regions = [(GuestAddress(0), 0x1000), (GuestAddress(BASE), 0x1000)];
    let map = GuestMemoryMmap::<()>::from_ranges(&regions).unwrap();
    let space = GuestMemoryAtomic::new(map.clone());
    for touch in 0..5 {
        let mut ring = DriverRing::new(space.clone(), BASE, 4);
        let mut test = ring.queue(0);
        let head = ring.add(&BUFFER);
        assert!(test.queue.pop(&memory(&test)).unwrap().is_some());
        if touch == 1 {
            test.queue.push_used(&memory(&test), head, 0);
        }
        let (less, _) = map.remove_region(GuestAddress(BASE), 0x1000).unwrap();
        space.lock().unwrap().replace(less);
        let memory = memory(&test);
        match touch {
            0 => test.queue.push_used(&memory, head, 0),
            1 => test.queue.notify(&memory),
            2 => test.queue.disable_notifications(&memory),
            3 => assert!(!test.queue.enable_notifications(&memory)),
            _ => assert_eq!(test.queue.pop(&memory), Err(QueueError::Rings)),
        }
        assert_eq!((test.queue.is_broken(), test.signals.resets()), (true, 1));
        space.lock().unwrap().replace(map.clone());
    }
}

// Both are what a device's own tests rely on.
#[test]
fn the_test_doubles_count() {
    let (interrupt, signals) = (CountingInterrupt::default(), CountingSignals::default());
    interrupt.trigger();
    signals.config_changed();
    signals.config_changed();
    signals.needs_reset();
    assert_eq!((interrupt.count(), signals.config_changes(), signals.resets()), (1, 2, 1));
}

// net.rx.4: the driver sees none of them before it can see all.
#[test]
fn chains_pushed_together_are_published_together() {
    let (space, mut ring) = logged(4);
    let mut test = ring.queue(0);
    let memory = memory(&test);
    for _ in 0..3 {
        ring.add(&BUFFER);
        assert!(test.queue.pop(&memory).unwrap().is_some());
    }
    // So that the elements wrap around the end of the ring.
    test.queue.push_used(&memory, 0, 0);
    ring.used();
    space.take();
    test.queue.push_used_together(&memory, &[(1, 10), (2, 20)]);
    let order: Vec<_> = space.take().iter().map(|access| (access.address, access.write)).collect();
    let used = ring.used_ring();
    assert_eq!(order, [(used + 12, true), (used + 20, true), (used + 2, true)]);
    assert_eq!((ring.used(), ring.used(), ring.used()), (Some((1, 10)), Some((2, 20)), None));
    assert_eq!(test.queue.in_flight(), 0);
    test.queue.push_used_together(&memory, &[(1, 10), (9, 0)]);
    assert_eq!(ring.used(), None);
}

#[test]
fn chains_pushed_together_wrap_and_notify_once() {
    for features in [0, EVENT_IDX] {
        let (mut ring, mut test) = pair(4, features);
        let memory = memory(&test);
        for round in 1..40 {
            let heads = [ring.add(&BUFFER), ring.add(&BUFFER), ring.add(&BUFFER)];
            for head in heads {
                assert_eq!(test.queue.pop(&memory).unwrap().unwrap().head, head);
            }
            // The second of the three is to be told of.
            ring.set_used_event(ring.used_idx().wrapping_add(1));
            test.queue.push_used_together(&memory, &heads.map(|head| (head, 7)));
            test.queue.notify(&memory);
            test.queue.notify(&memory);
            assert_eq!(test.interrupt.count(), round);
            for head in heads {
                assert_eq!(ring.used(), Some((head, 7)));
            }
        }
    }
}

// A driver that was not told of 2^16 chains, or of more, is told.
#[test]
fn a_notification_held_back_for_long_is_not_lost() {
    let (mut ring, mut test) = pair(2, EVENT_IDX);
    ring.set_used_event(5);
    for _ in 0..0x1_0001 {
        ring.add(&BUFFER);
        serve(&mut test, 0);
        ring.used();
    }
    test.queue.notify(&memory(&test));
    assert_eq!(test.interrupt.count(), 1);
}

#[test]
fn what_was_popped_last_can_be_taken_back() {
    let (mut ring, mut test) = pair(4, 0);
    let memory = memory(&test);
    let heads = [ring.add(&BUFFER), ring.add(&BUFFER), ring.add(&BUFFER)];
    let pop = |test: &mut TestQueue<Space>| test.queue.pop(&memory).unwrap().map(|c| c.head);
    for _ in 0..0x1_0003 {
        assert_eq!(pop(&mut test), Some(heads[0]));
        test.queue.undo_pop(heads[0]);
    }
    for head in heads {
        assert_eq!(pop(&mut test), Some(head));
    }
    test.queue.push_used(&memory, heads[0], 0);
    test.queue.undo_pop(heads[2]);
    test.queue.undo_pop(heads[1]);
    // Not in flight any more: nothing happens.
    test.queue.undo_pop(heads[1]);
    test.queue.undo_pop(heads[0]);
    assert_eq!(test.queue.in_flight(), 0);
    assert!(test.queue.enable_notifications(&memory));
    assert_eq!(
        (pop(&mut test), pop(&mut test), pop(&mut test)),
        (Some(heads[1]), Some(heads[2]), None)
    );
}
