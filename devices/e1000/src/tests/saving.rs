//! Save and restore: another adapter goes on as the saved one would have.

mod fixture;
mod mutated;
mod parts;
mod script;

use paraslot_device::{SavedState, StateError};
use paraslot_spec::e1000::statistics;

use self::script::{SCRIPT, perform};
use super::*;

/// A machine whose adapter is about to be switched on, and the adapter's backend.
fn unplugged() -> (Machine, ScriptedNet) {
    let (backend, host) = ScriptedNet::new(1);
    (Machine::with(backend.clone(), host), backend)
}

/// Saves the adapter, by way of text.
fn save(machine: &mut Machine) -> SavedState {
    let saved = machine.nic.save().unwrap();
    assert_eq!(machine.nic.save().unwrap(), saved, "saving changes nothing");
    serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap()
}

/// A new adapter, built as the machine's, in its place; switched off, and paused.
fn replace(machine: Machine, backend: &ScriptedNet) -> Machine {
    let Machine { nic, memory, executor, host, clock, line, control: _, tdt, rdt, cleaned } =
        machine;
    let rises = line.rises.load(Ordering::SeqCst);
    drop(nic);
    let options = Options { clock: Arc::new(clock.clone()), ..Options::new(MAC) };
    let (mut nic, line) =
        plug(backend.clone(), options, Arc::new(executor.clone()), memory.clone());
    line.rises.store(rises, Ordering::SeqCst);
    nic.pause().unwrap();
    let control = nic.control();
    Machine { nic, memory, executor, host, clock, line, control, tdt, rdt, cleaned }
}

/// Another adapter takes over, from the state `saved`.
fn moved(machine: Machine, backend: &ScriptedNet, saved: &SavedState) -> Machine {
    let asserted = machine.level();
    let mut machine = replace(machine, backend);
    machine.nic.restore(saved).unwrap();
    assert_eq!(machine.level(), asserted);
    // That the new one's line is raised to where the old one's was is no interrupt.
    machine.line.rises.fetch_sub(usize::from(asserted), Ordering::SeqCst);
    assert_eq!(machine.nic.save().unwrap(), *saved, "the same is saved again");
    machine
}

/// What can be seen of a machine without changing it.
#[derive(Debug, PartialEq)]
struct Seen {
    level: bool,
    rises: usize,
    sent: Vec<Sent>,
    waiting: usize,
    registers: Vec<u32>,
}

fn look(machine: &mut Machine) -> Seen {
    let registers = [CTRL, STATUS, ICS, IMS, ITR, RCTL, TDH, TDT, RDH, RDT, EECD, EERD, MDIC, PBA];
    Seen {
        level: machine.level(),
        rises: machine.rises(),
        sent: machine.sent(),
        waiting: machine.host.waiting(0),
        registers: registers.map(|register| machine.read(register)).to_vec(),
    }
}

/// Runs the script; before step `cut` the adapter is paused, and if `change` another takes over.
fn run(cut: usize, change: bool) -> (Vec<Seen>, Vec<u8>) {
    let (mut machine, backend) = unplugged();
    let mut seen = Vec::new();
    for (index, step) in SCRIPT.iter().enumerate() {
        if index == cut {
            machine.nic.pause().unwrap();
            if change {
                let saved = save(&mut machine);
                machine = moved(machine, &backend, &saved);
            }
            machine.nic.resume().unwrap();
        }
        perform(&mut machine, *step);
        seen.push(look(&mut machine));
    }
    (seen, machine.bytes(0, MEMORY))
}

#[test]
fn wherever_it_is_moved_it_goes_on_as_if_it_had_only_been_paused() {
    for cut in 0..SCRIPT.len() {
        let (stayed, memory) = run(cut, false);
        let (went, other) = run(cut, true);
        for (index, (stayed, went)) in stayed.iter().zip(&went).enumerate() {
            assert_eq!(stayed, went, "moved before step {cut}: step {index}");
        }
        assert!(memory == other, "moved before step {cut}: memory");
    }
}

#[test]
fn it_is_saved_and_restored_only_while_it_is_paused() {
    let (mut machine, _) = unplugged();
    machine.start();
    assert!(matches!(machine.nic.save(), Err(StateError::NotPaused)));
    machine.nic.pause().unwrap();
    let saved = save(&mut machine);
    machine.nic.resume().unwrap();
    assert!(matches!(machine.nic.restore(&saved), Err(StateError::NotPaused)));
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!(machine.one_sent(), frame(60), "nothing has happened to it");
}

#[test]
fn a_state_stays_small() {
    let (mut machine, _) = unplugged();
    machine.start();
    machine.nic.pause().unwrap();
    let text = serde_json::to_string(&save(&mut machine)).unwrap();
    assert!(text.len() < 3000, "{} bytes: {text}", text.len());
}

// An adapter that has been used takes a state over as a new one does: nothing of before is left.
#[test]
fn a_used_adapter_forgets_what_it_did() {
    let (mut machine, _) = unplugged();
    machine.nic.pause().unwrap();
    let fresh = save(&mut machine);
    machine.nic.resume().unwrap();
    let mut states = Vec::new();
    for step in SCRIPT {
        perform(&mut machine, *step);
        machine.nic.pause().unwrap();
        let saved = save(&mut machine);
        machine.nic.restore(&fresh).unwrap();
        assert_eq!(save(&mut machine), fresh);
        assert!(!machine.level());
        machine.nic.restore(&saved).unwrap();
        assert_eq!(save(&mut machine), saved);
        machine.nic.resume().unwrap();
        states.push(saved);
    }
    // The script leads to states that are worth it.
    let has = |part: &str| states.iter().any(|saved| saved.state.pointer(part).is_some());
    for part in [
        "/engine/transmit/packet/last",
        "/engine/transmit/packet/sent",
        "/engine/transmit/packet/excess",
        "/engine/transmit/packet/kind/segmented",
        "/engine/transmit/delay/absolute",
        "/engine/receive/delay/packet",
        "/engine/receive/frame",
        "/engine/looped/0",
        "/shared/interrupts/throttled",
        "/shared/statistics/pairs/0/latched",
        "/shared/registers/MTA3",
        "/eeprom/at/instruction",
        "/eeprom/at/reading",
        "/eeprom/at/writing",
    ] {
        assert!(has(part), "{part} is nowhere");
    }
}

// Counts that the worker has for itself are in the state: here, that a frame finds no descriptor after
// as many without a buffer as one round passes over, for the driver has taken the others back.
#[test]
fn nothing_that_was_counted_is_lost() {
    let (mut machine, backend) = unplugged();
    machine.start();
    machine.receive_ring(RX_RING, 1024);
    (0..1024).for_each(|index| machine.receive_descriptor(index, 0));
    machine.give(600);
    machine.host.push(0, &frame(60));
    let _ = machine.executor.step_all();
    assert_eq!(machine.read(RDH), 512);
    machine.write(RDT, 512);
    machine.run();
    machine.nic.pause().unwrap();
    let saved = save(&mut machine);
    let mut machine = moved(machine, &backend, &saved);
    machine.nic.resume().unwrap();
    assert_eq!(machine.read(statistics::RNBC), 1);
}
