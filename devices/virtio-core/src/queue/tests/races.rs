//! Both sides at the same moment: each writes its own word and then reads the other's, so one of the
//! two must notice (2.7.7.2, 2.7.10.2).
//!
//! That shows the order of the steps. A fence that is missing between them shows only when the
//! processor's store buffer happens to hold the one back past the other.

use std::sync::atomic::{AtomicUsize, Ordering, fence};

use paraslot_spec::virtio::feature::EVENT_IDX;
use paraslot_spec::virtio::split::USED_F_NO_NOTIFY;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{BUFFER, Space, memory, pair};
use crate::testing::{DriverRing, TestQueue};

const ROUNDS: u16 = 500;
const SIZE: u16 = 4;

/// Each round: `prepare`, then `device` here and `driver` on another thread. One of the two has to
/// return that it noticed the other.
fn one_notices(
    features: u64,
    mut prepare: impl FnMut(u16, &mut DriverRing<Space>, &mut TestQueue<Space>),
    mut device: impl FnMut(&mut TestQueue<Space>) -> bool,
    driver: impl Fn(u16, &GuestMemoryMmap) -> bool + Send,
) {
    let (mut ring, mut test) = pair(SIZE, features);
    let guest = memory(&test);
    let shared: &GuestMemoryMmap = &guest;
    let (began, ended, noticed) =
        (&AtomicUsize::new(0), &AtomicUsize::new(0), &AtomicUsize::new(0));
    let reach = |counter: &AtomicUsize, count| {
        for spins in 0u32.. {
            if counter.load(Ordering::SeqCst) >= count {
                break;
            }
            // Other work may have the other processor.
            if spins % 256 == 255 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for round in 0..ROUNDS {
                let turn = usize::from(round) + 1;
                reach(began, turn);
                noticed.fetch_add(usize::from(driver(round, shared)), Ordering::SeqCst);
                ended.store(turn, Ordering::SeqCst);
            }
        });
        for round in 0..ROUNDS {
            let turn = usize::from(round) + 1;
            prepare(round, &mut ring, &mut test);
            noticed.store(0, Ordering::SeqCst);
            began.store(turn, Ordering::SeqCst);
            let here = device(&mut test);
            reach(ended, turn);
            assert!(here || noticed.load(Ordering::SeqCst) != 0, "round {round}");
        }
    });
}

// split.used-suppress.3, split.used-suppress.5: the device gives a chain back while the driver asks
// for an interrupt and looks once more.
#[test]
fn no_interrupt_is_lost() {
    for features in [0, EVENT_IDX] {
        let layout = pair(SIZE, features).0;
        let used_idx = GuestAddress(layout.used_ring() + 2);
        let wish = layout.avail_ring() + if features == 0 { 0 } else { 4 + 2 * u64::from(SIZE) };
        one_notices(
            features,
            |round, ring, test| {
                ring.used();
                ring.set_avail_flags(1);
                ring.set_used_event(round.wrapping_sub(1));
                ring.add(&BUFFER);
                assert!(test.queue.pop(&memory(test)).unwrap().is_some());
            },
            |test| {
                let (guest, before) = (memory(test), test.interrupt.count());
                let head = (0..SIZE).find(|head| test.queue.in_flight.contains(*head)).unwrap();
                test.queue.push_used(&guest, head, 0);
                test.queue.notify(&guest);
                test.interrupt.count() != before
            },
            |round, guest| {
                let value = if features == 0 { 0 } else { round };
                guest.store(value, GuestAddress(wish), Ordering::Relaxed).unwrap();
                fence(Ordering::SeqCst);
                guest.load::<u16>(used_idx, Ordering::Relaxed).unwrap() == round + 1
            },
        );
    }
}

// split.avail-suppress.2, split.avail-suppress.4: the driver makes a chain available while the device
// asks for a notification and looks once more.
#[test]
fn no_notification_is_lost() {
    for features in [0, EVENT_IDX] {
        let layout = pair(SIZE, features).0;
        let avail_idx = GuestAddress(layout.avail_ring() + 2);
        let (flags, event) = (layout.used_ring(), layout.used_ring() + 4 + 8 * u64::from(SIZE));
        one_notices(
            features,
            |round, ring, test| {
                // What the round before made available. The entries are all 0.
                let guest = memory(test);
                while let Some(chain) = test.queue.pop(&guest).unwrap() {
                    test.queue.push_used(&guest, chain.head, 0);
                }
                ring.set_descriptor(0, 0x8000, 8, 0, 0);
                test.queue.disable_notifications(&guest);
                assert_eq!(ring.used_idx(), round);
            },
            |test| test.queue.enable_notifications(&memory(test)),
            |round, guest| {
                guest.store(round + 1, avail_idx, Ordering::Release).unwrap();
                fence(Ordering::SeqCst);
                let load = |at| guest.load::<u16>(GuestAddress(at), Ordering::Relaxed).unwrap();
                if features == 0 {
                    load(flags) & USED_F_NO_NOTIFY == 0
                } else {
                    load(event) == round
                }
            },
        );
    }
}
