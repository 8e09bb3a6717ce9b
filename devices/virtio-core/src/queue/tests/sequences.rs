//! A driver that does anything at all.

use paraslot_spec::virtio::feature::{EVENT_IDX, INDIRECT_DESC};
use proptest::prelude::*;

use super::{BASE, logged, memory};
use crate::MAX_CHAIN;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    AvailIdx(u16),
    Add,
    Pop,
    Push(usize),
    PushAny(u16),
    Notify,
    Enable,
    Disable,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..0x100, prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(offset, data)| Step::Write(BASE + offset, data)),
        1 => any::<u16>().prop_map(Step::AvailIdx),
        4 => Just(Step::Add),
        8 => Just(Step::Pop),
        6 => any::<prop::sample::Index>().prop_map(|index| Step::Push(index.index(8))),
        1 => any::<u16>().prop_map(Step::PushAny),
        2 => Just(Step::Notify),
        1 => Just(Step::Enable),
        1 => Just(Step::Disable),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    // A hostile driver gets nothing worse than a broken queue, and that once; a call never does more
    // than its bound says.
    #[test]
    fn no_sequence_does_harm(
        event_idx in any::<bool>(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let (space, mut ring) = logged(8);
        let features = INDIRECT_DESC | if event_idx { EVENT_IDX } else { 0 };
        let mut test = ring.queue(features);
        let memory = memory(&test);
        let mut held = Vec::new();
        for step in steps {
            match step {
                Step::Write(address, data) => ring.write(address, &data),
                Step::AvailIdx(idx) => ring.set_avail_idx(idx),
                Step::Add => {
                    let slot = u16::try_from(held.len()).unwrap() & 7;
                    ring.set_descriptor(slot, 0x8000, 8, 0, 0);
                    ring.publish(slot);
                }
                Step::Pop => {
                    space.take();
                    let broken = test.queue.is_broken();
                    match test.queue.pop(&memory) {
                        Ok(Some(chain)) => {
                            prop_assert!(!broken && !held.contains(&chain.head));
                            prop_assert!(chain.head < 8);
                            held.push(chain.head);
                        }
                        Ok(None) => {}
                        Err(_) => prop_assert!(!broken && test.queue.is_broken()),
                    }
                    // The flags once, the index, the entry, and the longest chain.
                    prop_assert!(space.take().len() <= 3 + 8 + usize::from(MAX_CHAIN));
                }
                Step::Push(index) if index < held.len() => {
                    let head = held.swap_remove(index);
                    test.queue.push_used(&memory, head, 1);
                }
                Step::Push(_) => {}
                Step::PushAny(head) => {
                    held.retain(|held| *held != head);
                    test.queue.push_used(&memory, head, 1);
                }
                Step::Notify => test.queue.notify(&memory),
                Step::Enable => {
                    let more = test.queue.enable_notifications(&memory);
                    prop_assert!(!(more && test.queue.is_broken()));
                }
                Step::Disable => test.queue.disable_notifications(&memory),
            }
            prop_assert_eq!(usize::from(test.queue.in_flight()), held.len());
            prop_assert_eq!(test.signals.resets(), usize::from(test.queue.is_broken()));
        }
    }
}
