//! A state that was saved by version 1, in the middle of traffic.

use super::*;

const FIXTURE: &str = include_str!("../../../tests/fixtures/state/vmxnet3-1.json");
/// The step of the script before which it was saved.
const BEFORE: usize = 12;

fn fixture() -> SavedState {
    serde_json::from_str(FIXTURE).unwrap()
}

fn setup() -> Setup {
    let [_, several, _] = setups();
    Setup { features: several.features | Features::RSS, ..several }
}

// What was saved once is understood for good: this file is never to change.
#[test]
fn a_state_of_version_1_is_taken_over() {
    let setup = setup();
    let (stayed, memory) = run(&setup, BEFORE, false);
    let (mut machine, backend) = unplugged(&setup);
    let mut seen = Vec::new();
    for (index, step) in SCRIPT.iter().enumerate() {
        if index == BEFORE {
            machine.nic.pause().unwrap();
            machine = moved(machine, &backend, &fixture());
            machine.nic.resume().unwrap();
        }
        step(&mut machine);
        seen.push(look(&mut machine));
    }
    assert_eq!(seen, stayed);
    assert!(contents(&machine) == memory, "memory");
}

#[test]
fn it_is_in_the_middle_of_traffic() {
    let state = fixture().state;
    let silenced = state.pointer("/active/tx/0/silenced");
    let pending = state.pointer("/interrupts/vectors/0/pending/tx");
    assert_eq!((silenced, pending), (Some(&true.into()), Some(&20.into())));
    assert!(state.pointer("/active/rss/key").is_some());
}

/// For a new version: its file is made once, and read from then on.
#[test]
#[ignore = "writes a file"]
fn write_the_fixture_of_this_version() {
    let (mut machine, _) = unplugged(&setup());
    SCRIPT.iter().take(BEFORE).for_each(|step| step(&mut machine));
    machine.nic.pause().unwrap();
    let saved = save(&mut machine);
    let name = format!("{}-{}.json", saved.device, saved.version);
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/state");
    let text = serde_json::to_string_pretty(&saved).unwrap() + "\n";
    std::fs::write(std::path::Path::new(folder).join(name), text).unwrap();
}
