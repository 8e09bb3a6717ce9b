//! States that somebody has changed.

use std::sync::OnceLock;

use paraslot_device::state::testing::mutate;
use proptest::prelude::*;

use super::acts::{any_act, perform};
use super::*;

/// The states after each step of the script, with each setup.
fn states() -> &'static [(Setup, Vec<SavedState>)] {
    static STATES: OnceLock<Vec<(Setup, Vec<SavedState>)>> = OnceLock::new();
    STATES.get_or_init(|| {
        let all = setups().into_iter().map(|setup| {
            let (mut machine, _) = unplugged(&setup);
            let states = SCRIPT.iter().map(|step| {
                step(&mut machine);
                machine.nic.pause().unwrap();
                let saved = save(&mut machine);
                machine.nic.resume().unwrap();
                saved
            });
            (setup, states.collect())
        });
        all.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    /// CVE-2013-4544, CVE-2013-4535's kin: whatever is restored is as after a reset, or survives whatever
    /// a guest then does, and is saved again as it is.
    #[test]
    fn a_mutated_state_is_refused_or_harmless(
        which in 0usize..3,
        index in 0..SCRIPT.len(),
        seeds in prop::collection::vec(any::<u64>(), 1..4),
        acts in prop::collection::vec(any_act(), 0..12),
    ) {
        let (setup, states) = &states()[which];
        let mut saved = states[index].clone();
        seeds.iter().for_each(|seed| mutate(&mut saved.state, *seed));
        let (mut machine, _) = unplugged(setup);
        machine.prepare();
        machine.nic.pause().unwrap();
        machine.nic.reset();
        let fresh = machine.nic.save().unwrap();
        if machine.nic.restore(&saved).is_err() {
            prop_assert_eq!(machine.nic.save().unwrap(), fresh);
            prop_assert!(!machine.level() && machine.host.active() == 1);
            return Ok(());
        }
        // Some ways to write a state mean the same.
        let again = machine.nic.save().unwrap();
        machine.nic.restore(&again).unwrap();
        prop_assert_eq!(machine.nic.save().unwrap(), again);
        machine.nic.resume().unwrap();
        for act in &acts {
            perform(&mut machine, act);
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
        which in 0usize..3,
        before in prop::collection::vec(any_act(), 0..40),
        after in prop::collection::vec(any_act(), 0..20),
    ) {
        let mut ends = [false, true].map(|change| {
            let (mut machine, backend) = unplugged(&setups()[which]);
            SCRIPT[0](&mut machine);
            machine.start();
            before.iter().for_each(|act| perform(&mut machine, act));
            machine.nic.pause().unwrap();
            if change {
                let saved = save(&mut machine);
                machine = moved(machine, &backend, &saved);
            }
            machine.nic.resume().unwrap();
            after.iter().for_each(|act| perform(&mut machine, act));
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
