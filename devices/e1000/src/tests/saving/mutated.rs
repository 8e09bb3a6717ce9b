//! States that somebody has changed.

use std::sync::OnceLock;

use paraslot_device::state::testing::mutate;
use proptest::prelude::*;

use super::super::random::{self, any_step};
use super::*;

/// The states before each step of the script.
fn states() -> &'static [SavedState] {
    static STATES: OnceLock<Vec<SavedState>> = OnceLock::new();
    STATES.get_or_init(|| {
        let (mut machine, _) = unplugged();
        let states = SCRIPT.iter().map(|step| {
            perform(&mut machine, *step);
            machine.nic.pause().unwrap();
            let saved = save(&mut machine);
            machine.nic.resume().unwrap();
            saved
        });
        states.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// CVE-2013-4535's kin: whatever is restored is as after a reset, or survives whatever a guest then
    /// does, and is saved again as it is.
    #[test]
    fn a_mutated_state_is_refused_or_harmless(
        index in 0..SCRIPT.len(),
        seeds in prop::collection::vec(any::<u64>(), 1..4),
        steps in prop::collection::vec(any_step(), 0..12),
    ) {
        let mut saved = states()[index].clone();
        seeds.iter().for_each(|seed| mutate(&mut saved.state, *seed));
        let (mut machine, _) = unplugged();
        machine.nic.pause().unwrap();
        machine.nic.reset();
        let fresh = machine.nic.save().unwrap();
        if machine.nic.restore(&saved).is_err() {
            prop_assert_eq!(machine.nic.save().unwrap(), fresh);
            prop_assert!(!machine.level());
            return Ok(());
        }
        // Some ways to write a state mean the same.
        let again = machine.nic.save().unwrap();
        machine.nic.restore(&again).unwrap();
        prop_assert_eq!(machine.nic.save().unwrap(), again);
        machine.nic.resume().unwrap();
        for step in steps {
            random::perform(&mut machine, step);
        }
        machine.run();
        // A guest can do all that follows, so it can be saved.
        machine.nic.pause().unwrap();
        let last = machine.nic.save().unwrap();
        machine.nic.restore(&last).unwrap();
        prop_assert_eq!(machine.nic.save().unwrap(), last);
        machine.nic.reset();
        machine.nic.resume().unwrap();
        machine.run();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// What a guest does at random is taken over whole.
    #[test]
    fn whatever_a_guest_has_done_is_taken_over(
        before in prop::collection::vec(any_step(), 0..40),
        after in prop::collection::vec(any_step(), 0..20),
    ) {
        let mut ends = [false, true].map(|change| {
            let (mut machine, backend) = unplugged();
            machine.start();
            before.iter().cloned().for_each(|step| random::perform(&mut machine, step));
            machine.nic.pause().unwrap();
            if change {
                let saved = save(&mut machine);
                machine = moved(machine, &backend, &saved);
            }
            machine.nic.resume().unwrap();
            after.iter().cloned().for_each(|step| random::perform(&mut machine, step));
            machine.run();
            machine.nic.pause().unwrap();
            (look(&mut machine), save(&mut machine), machine.bytes(0, MEMORY))
        });
        let [(seen, saved, memory), (others, state, bytes)] = &mut ends;
        prop_assert_eq!(seen, others);
        prop_assert_eq!(saved, state);
        prop_assert!(memory == bytes, "memory");
    }
}
