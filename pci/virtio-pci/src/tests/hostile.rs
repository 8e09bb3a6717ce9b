//! A guest that does anything at all: no panic, and what was promised holds throughout.

use std::sync::atomic::Ordering;

use paraslot_pci::PciDevice;
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::feature::RING_RESET;
use proptest::prelude::*;

use super::guest::{COPY, Guest};
use crate::layout::{BAR_SIZE, NOTIFY};

#[derive(Clone, Debug)]
enum Step {
    Read(u8, u64, usize),
    Write(u8, u64, Vec<u8>),
    ReadConfig(u16, usize),
    WriteConfig(u16, Vec<u8>),
    Memory(u64, Vec<u8>),
    Start,
    Add,
    Gate(bool),
    Run,
    Signal(bool),
    Pause,
    Resume,
    Reset,
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..64,
        1 => 0x1000u64..0x1004,
        1 => 0x2000u64..0x2010,
        2 => NOTIFY..NOTIFY + 16,
        1 => 0x8000u64..0x8040,
        1 => 0..BAR_SIZE + 16,
        1 => any::<u64>(),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let small = prop_oneof![Just(0u8), Just(1), Just(0xff), any::<u8>()];
    prop_oneof![
        4 => (prop_oneof![Just(1usize), Just(2), Just(4), Just(8)], 0u8..20)
            .prop_map(|(len, value)| {
                let mut bytes = vec![0; len];
                bytes[0] = value;
                bytes
            }),
        2 => prop::collection::vec(small, 0..10),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let bar = || prop_oneof![12 => Just(0u8), 1 => any::<u8>()];
    prop_oneof![
        3 => (bar(), offset(), 0usize..10).prop_map(|(bar, at, len)| Step::Read(bar, at, len)),
        12 => (bar(), offset(), bytes()).prop_map(|(bar, at, data)| Step::Write(bar, at, data)),
        1 => (any::<u16>(), 0usize..10).prop_map(|(at, len)| Step::ReadConfig(at, len)),
        4 => (0u16..256, bytes()).prop_map(|(at, data)| Step::WriteConfig(at, data)),
        2 => (0x1_0000u64..0x1_0200, bytes()).prop_map(|(at, data)| Step::Memory(at, data)),
        2 => Just(Step::Start),
        4 => Just(Step::Add),
        2 => any::<bool>().prop_map(Step::Gate),
        6 => Just(Step::Run),
        1 => any::<bool>().prop_map(Step::Signal),
        1 => Just(Step::Pause),
        1 => Just(Step::Resume),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_sequence_of_accesses_does_harm(steps in prop::collection::vec(step(), 1..120)) {
        let mut guest = Guest::new();
        let mut ring = guest.ring(0);
        let mut left = 0;
        for step in steps {
            match step {
                Step::Read(bar, at, len) => {
                    let mut data = vec![0; len];
                    guest.function.bar_read(bar, at, &mut data);
                }
                Step::Write(bar, at, data) => guest.function.bar_write(bar, at, &data),
                Step::ReadConfig(at, len) => drop(guest.config(at, len)),
                Step::WriteConfig(at, data) => guest.set_config(at, &data),
                Step::Memory(at, data) => ring.write(at, &data),
                Step::Start => {
                    ring = guest.start(RING_RESET);
                    left = 4;
                }
                Step::Add if left > 0 => {
                    left -= 1;
                    ring.add(&COPY);
                }
                Step::Add => {}
                Step::Gate(gate) => guest.control.gate.store(gate, Ordering::SeqCst),
                Step::Run => { let _ = guest.executor.step_all(); }
                Step::Signal(config) if config => guest.control.signals().config_changed(),
                Step::Signal(_) => guest.control.signals().needs_reset(),
                Step::Pause => { let _ = guest.function.pause(); }
                Step::Resume => { let _ = guest.function.resume(); }
                Step::Reset => guest.function.reset(),
            }
            // The workers that live are those of queues that were started, and at most one each.
            prop_assert!(guest.control.workers.load(Ordering::SeqCst) <= 2);
            let status = guest.status();
            prop_assert!(!status.contains(Status::DRIVER_OK) || status.contains(Status::FEATURES_OK));
            if status.is_empty() {
                prop_assert_eq!(guest.control.workers.load(Ordering::SeqCst), 0);
            }
        }
        // Whatever happened, it can be brought back to its start.
        guest.control.gate.store(false, Ordering::SeqCst);
        guest.function.resume().unwrap();
        guest.run();
        guest.function.reset();
        prop_assert!(guest.status().is_empty());
        guest.command(paraslot_spec::pci::Command::BUS_MASTER);
        let mut ring = guest.start(0);
        let head = ring.add(&COPY);
        guest.run();
        prop_assert_eq!(ring.used(), Some((head, 8)));
    }
}
