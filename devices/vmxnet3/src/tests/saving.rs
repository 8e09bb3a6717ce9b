//! Save and restore: another adapter goes on as the saved one would have.

mod acts;
mod fixture;
mod mutated;
mod parts;
mod script;

use paraslot_device::{SavedState, StateError};

use self::script::{NOTES, SCRIPT, setups};
use super::*;

/// A machine whose adapter is about to be switched on, and the adapter's backend.
fn unplugged(setup: &Setup) -> (Machine, ScriptedNet) {
    let (backend, host) = ScriptedNet::new(setup.queues);
    (Machine::on(setup.clone(), backend.clone(), host), backend)
}

/// Saves the adapter, by way of text.
fn save(machine: &mut Machine) -> SavedState {
    let saved = machine.nic.save().unwrap();
    assert_eq!(machine.nic.save().unwrap(), saved, "saving changes nothing");
    serde_json::from_str(&serde_json::to_string(&saved).unwrap()).unwrap()
}

/// Another adapter, built as the machine's, takes over, from the state `saved`.
fn moved(machine: Machine, backend: &ScriptedNet, saved: &SavedState) -> Machine {
    let (asserted, rises, messages) =
        (machine.level(), machine.board.rises.load(Ordering::SeqCst), machine.messages());
    let Machine { nic, memory, executor, host, clock, board: _, control: _, setup, tx, rx } =
        machine;
    drop(nic);
    let (nic, board) =
        plug(backend.clone(), options(&setup, &clock), Arc::new(executor.clone()), memory.clone());
    let control = nic.control();
    let mut machine = Machine { nic, memory, executor, host, clock, board, control, setup, tx, rx };
    machine.nic.pause().unwrap();
    machine.nic.restore(saved).unwrap();
    assert_eq!(machine.level(), asserted);
    assert!(machine.messages().is_empty(), "nothing that was sent is sent again");
    // That the new one's line is raised to where the old one's was is no interrupt.
    machine.board.rises.store(rises, Ordering::SeqCst);
    *machine.board.sent.lock().unwrap() = messages;
    assert_eq!(machine.nic.save().unwrap(), *saved, "the same is saved again");
    machine
}

/// What can be seen of a machine without changing it.
#[derive(Debug, PartialEq)]
struct Seen {
    level: bool,
    rises: usize,
    messages: Vec<u16>,
    sent: Vec<Vec<Sent>>,
    waiting: Vec<usize>,
    accepted: (u16, paraslot_backends::net::Offloads),
    registers: Vec<u32>,
}

fn look(machine: &mut Machine) -> Seen {
    let mut messages = machine.messages();
    // Which worker has sent them does not matter.
    messages.sort_unstable();
    let queues = 0..machine.setup.queues;
    let mut registers: Vec<_> =
        [VRRS, DSAL, DSAH, CMD, MACL, MACH].map(|register| machine.read_vd(register)).into();
    registers.extend((0..MAX_INTRS as u64).map(|intr| machine.read_pt(IMR + STRIDE * intr)));
    Seen {
        level: machine.level(),
        rises: machine.board.rises.load(Ordering::SeqCst),
        messages,
        sent: queues.clone().map(|queue| machine.host.take_sent(queue)).collect(),
        waiting: queues.map(|queue| machine.host.waiting(queue)).collect(),
        accepted: (machine.host.active(), machine.host.accepted()),
        registers,
    }
}

/// Runs the script; before step `cut` the adapter is paused, and if `change` another takes over.
fn run(setup: &Setup, cut: usize, change: bool) -> (Vec<Seen>, [Vec<u8>; 3]) {
    let (mut machine, backend) = unplugged(setup);
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
        step(&mut machine);
        seen.push(look(&mut machine));
    }
    (seen, contents(&machine))
}

/// All of guest memory that the script's driver has a use for.
fn contents(machine: &Machine) -> [Vec<u8>; 3] {
    let areas = [(0, NOTES + 0x1000), (TX_DATA, 0x1000), (RX_DATA, 2 * RX_AREA)];
    areas.map(|(at, len)| machine.bytes(at, len as usize))
}

#[test]
fn wherever_it_is_moved_it_goes_on_as_if_it_had_only_been_paused() {
    for (number, setup) in setups().iter().enumerate() {
        for cut in 0..SCRIPT.len() {
            let (stayed, memory) = run(setup, cut, false);
            let (went, other) = run(setup, cut, true);
            for (index, (stayed, went)) in stayed.iter().zip(&went).enumerate() {
                assert_eq!(stayed, went, "setup {number} moved before step {cut}: step {index}");
            }
            assert!(memory == other, "setup {number} moved before step {cut}: memory");
        }
    }
}

#[test]
fn it_is_saved_and_restored_only_while_it_is_paused() {
    let (mut machine, _) = unplugged(&Setup { queues: 2, rx: 2, ..Setup::default() });
    machine.start();
    assert!(matches!(machine.nic.save(), Err(StateError::NotPaused)));
    machine.nic.pause().unwrap();
    let saved = save(&mut machine);
    machine.nic.resume().unwrap();
    assert!(matches!(machine.nic.restore(&saved), Err(StateError::NotPaused)));
    machine.send(&frame(60), 0, 0);
    assert_eq!(machine.one_sent().bytes, frame(60), "nothing has happened to it");
}

#[test]
fn a_state_stays_small() {
    let (mut machine, _) = unplugged(&Setup { tx: 4, rx: 4, ..Setup::default() });
    machine.start();
    machine.send(&frame(60), 0, 0);
    machine.nic.pause().unwrap();
    let text = serde_json::to_string(&save(&mut machine)).unwrap();
    assert!(text.len() < 5000, "{} bytes: {text}", text.len());
}

// An adapter that has been used takes a state over as a new one does: nothing of before is left.
#[test]
fn a_used_adapter_forgets_what_it_did() {
    let mut states = Vec::new();
    for setup in setups() {
        let (mut machine, _) = unplugged(&setup);
        machine.nic.pause().unwrap();
        let fresh = save(&mut machine);
        machine.nic.resume().unwrap();
        for step in SCRIPT {
            step(&mut machine);
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
    }
    // The script leads to states that are worth it.
    let has = |part: &str| states.iter().any(|saved| saved.state.pointer(part).is_some());
    for part in [
        "/active/rss",
        "/active/events",
        "/active/news",
        "/active/filter/multicast",
        "/active/filter/vlans",
        "/active/heads_alone",
        "/active/tx/0/silenced",
        "/active/tx/0/stopped",
        "/active/rx/0/data",
        "/active/rx/0/asked",
        "/active/rx/0/stopped",
        "/active/lanes/0/frame",
        "/active/lanes/0/frame/segments/0",
        "/active/lanes/0/starving",
        "/active/lanes/0/turn",
        "/interrupts/vectors/0/pending",
        "/interrupts/vectors/0/asserted",
        "/interrupts/vectors/0/last",
        "/statistics/transmit/1",
    ] {
        assert!(has(part), "{part} is nowhere");
    }
}
