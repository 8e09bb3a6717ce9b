//! Saved in one adapter, restored in another.

use paraslot_backends::block::testing::{Event as Operation, GatedBackend, Log, RecordingBackend};
use paraslot_device::StateError;
use paraslot_device::state::testing::mutate;
use proptest::prelude::*;

use super::random::any_step;
use super::*;

/// What its host sees of a machine, apart from the results of the driver's accesses.
#[derive(PartialEq)]
struct Seen {
    results: Vec<String>,
    memory: Vec<u8>,
    operations: Vec<Operation>,
    messages: usize,
    level: bool,
    state: String,
}

impl Machine {
    /// Another adapter takes over, for the units on `bus`; its guest's memory stays.
    pub(super) fn move_to(&mut self, bus: Bus) {
        self.device.pause().unwrap();
        let text = self.saved();
        assert_eq!(self.saved(), text, "saving changes nothing");
        let bars = self.device.bars();
        self.go_on_with(bus, &text);
        assert_eq!(self.device.bars(), bars);
    }

    /// An adapter that was just built takes `text` over.
    pub(super) fn go_on_with(&mut self, bus: Bus, text: &str) {
        self.replace(bus);
        self.device.pause().unwrap();
        self.device.restore(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(self.saved(), text, "what was restored is what was saved");
        self.device.resume().unwrap();
    }

    /// An adapter that was just built is where the old one was.
    fn replace(&mut self, bus: Bus) {
        let executor = ManualExecutor::new();
        let host = Host {
            memory: self.memory.clone(),
            msi: self.interrupts.clone(),
            intx: self.interrupts.clone(),
            executor: Arc::new(executor.clone()),
        };
        let patience = Duration::from_millis(20);
        let options = Options { patience, ..Options::default() };
        let device = Pvscsi::new(bus.clone(), options, host).unwrap();
        drop(std::mem::replace(&mut self.device, device));
        (self.executor, self.bus) = (executor, bus);
    }

    /// The state of a paused adapter as text.
    fn saved(&mut self) -> String {
        serde_json::to_string(&self.device.save().unwrap()).unwrap()
    }

    /// The state of a running one.
    pub(super) fn snapshot(&mut self) -> SavedState {
        self.device.pause().unwrap();
        let state = self.device.save().unwrap();
        self.device.resume().unwrap();
        state
    }

    fn seen(&mut self, results: Vec<String>, operations: Vec<Operation>) -> Seen {
        let rings = [(REQUESTS, 0x8000), (COMPLETIONS, 0x8000), (MESSAGES, 0x1000)];
        let data = [(STATE, 0x1000), (SENSE, 0x1_0000), (DATA, 0x4_0000)];
        Seen {
            results,
            memory: rings
                .into_iter()
                .chain(data)
                .flat_map(|(at, len)| self.bytes(at, len))
                .collect(),
            operations,
            messages: self.messages_sent(),
            level: self.level(),
            state: serde_json::to_string(&self.snapshot()).unwrap(),
        }
    }

    /// What a driver does that has all of it to do: each result as text.
    fn drive(&mut self, mode: Mode) -> Vec<String> {
        let mut results = Vec::new();
        let mut note = |what: &dyn std::fmt::Debug| results.push(format!("{what:?}"));
        self.start(mode);
        self.use_threshold();
        self.set_up_messages();
        for target in [0, 1, 9] {
            for context in 0..2 {
                let mut ready = request(context, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]);
                ready.target = target;
                note(&self.carry_out(&ready));
            }
        }
        // Some at once, one of them beyond the end and one without memory for its data.
        self.fill(data_at(4), &[0xc4; 0x2000]);
        for index in 0..4 {
            self.submit(&read10(index, 8 * index as u32, 4));
        }
        self.submit(&write10(4, 100, 16));
        self.submit(&read10(5, BLOCKS as u32, 1));
        let mut nowhere = read10(6, 0, 1);
        nowhere.data_address.set(u64::MAX - 4096);
        self.submit(&nowhere);
        note(&self.read(register::INTR_STATUS));
        self.run();
        note(&self.read(register::INTR_STATUS));
        note(&self.reap());
        self.write(register::INTR_STATUS, Intr::all().bits());
        // The write cache off, and a reservation.
        let mut modes = vec![0; 24];
        modes[4..6].copy_from_slice(&[8, 18]);
        self.fill(data_at(7), &modes);
        let select = [opcode::MODE_SELECT_6, 0x10, 0, 0, 24, 0];
        note(&self.carry_out(&with_data(7, &select, RequestFlags::DIR_TO_DEVICE, 24)));
        note(&self.carry_out(&request(8, &[0x16, 0, 0, 0, 0, 0])));
        // It ends while it cannot be told.
        self.put(&write10(9, 200, 1));
        self.put(&read10(10, BLOCKS as u32, 1));
        self.write(register::KICK_RW_IO, 0);
        self.device.pause().unwrap();
        self.enable(pci::Command::MEMORY);
        self.device.resume().unwrap();
        self.run();
        note(&self.read(register::INTR_MASK));
        self.enable(pci::Command::MEMORY | pci::Command::BUS_MASTER);
        self.run();
        note(&self.read(register::INTR_STATUS));
        note(&self.reap());
        // The driver is slow to take completions.
        for index in 0..6 {
            self.submit(&read10(index, index as u32, 1));
        }
        self.run();
        self.write(register::INTR_MASK, 0);
        self.submit(&read10(6, 6, 1));
        note(&self.abort(6, 0));
        note(&self.abort(77, 0));
        note(&self.ended());
        self.write(register::INTR_MASK, Intr::all().bits());
        self.put(&write10(1, 300, 8));
        note(&self.reset_device(0));
        note(&self.ended());
        let ready = request(2, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]);
        note(&self.carry_out(&ready));
        note(&self.order(command::RESET_BUS, &[]));
        note(&self.carry_out(&ready));
        note(&self.order(command::GET_MAX_TARGETS, &[]));
        note(&self.order(command::GET_MAX_TARGETS + 1, &[]));
        // A descriptor that is never complete, and the rings anew.
        self.order(command::ABORT_CMD, &[1, 2, 3, 4, 5, 6, 7, 8]);
        self.put(&write10(3, 400, 8));
        self.order(command::ADAPTER_RESET, &[]);
        self.set_up_rings(1);
        for index in 0..40 {
            note(&self.carry_out(&read10(index % 4, index as u32, 1)));
        }
        results
    }
}

/// What was asked of disks, and answered.
type Operations = Box<dyn Fn() -> Vec<Operation>>;

/// Two disks, time and again the same: how to build a bus for them, and what is asked of them.
fn disks() -> (Arc<dyn Fn() -> Bus>, Operations) {
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    let backend = || MemoryBackend::new(BLOCKS * 512, options.clone()).unwrap();
    let backends = [(); 2].map(|()| Arc::new(RecordingBackend::new(backend())));
    let logs = backends.each_ref().map(|backend| backend.log());
    let build = move || {
        let bus = bus();
        for (target, backend) in (0..).zip(&backends) {
            bus.attach(at(target), unit(backend.clone())).unwrap();
        }
        bus
    };
    (Arc::new(build), Box::new(move || logs.iter().flat_map(|log| log.events()).collect()))
}

/// The script, with a pause or a move before one of its accesses: how many there are, and what is seen.
fn driven(mode: Mode, before: usize, moves: bool) -> (usize, Seen) {
    let (build, operations) = disks();
    let mut machine = Machine::off(build());
    machine.before = Some((before, if moves { Event::Move(build) } else { Event::Pause }));
    let results = machine.drive(mode);
    let seen = machine.seen(results, operations());
    (machine.accesses, seen)
}

/// At every register access: what comes after a move is what comes after a pause.
#[test]
fn an_adapter_moves_before_any_access_and_nobody_notices() {
    for mode in [Mode::Msix, Mode::Msi, Mode::Intx] {
        let (count, _) = driven(mode, usize::MAX, false);
        assert!(count > 250, "{count}");
        // What is left after that is one kick like the other.
        let stride = if mode == Mode::Msix { 1 } else { 11 };
        for before in (0..count - 30).step_by(stride) {
            let (paused, moved) = (driven(mode, before, false), driven(mode, before, true));
            let context = format!("{mode:?}, before access {before}");
            assert_eq!(paused.0, moved.0, "{context}");
            let (paused, moved) = (paused.1, moved.1);
            assert_eq!(moved.results, paused.results, "{context}");
            assert!(moved.operations == paused.operations, "{context}");
            assert_eq!(moved.messages, paused.messages, "{context}");
            assert_eq!(moved.level, paused.level, "{context}");
            assert!(moved.memory == paused.memory, "{context}");
            assert_eq!(moved.state, paused.state, "{context}");
        }
    }
}

/// What is saved is small, however much was in flight.
#[test]
fn a_state_is_a_few_kilobytes() {
    let (build, _) = disks();
    let mut machine = Machine::off(build());
    machine.drive(Mode::Msix);
    machine.set_up_rings(32);
    machine.set_up_messages();
    let text = serde_json::to_string(&machine.snapshot()).unwrap();
    assert!(text.len() < 4096, "{} bytes: {text}", text.len());
}

/// A machine with requests that ended while bus mastering was off, the image, and what is asked of it.
fn untold() -> (Machine, Arc<dyn BlockBackend>, Log) {
    let image = MemoryBackend::new(BLOCKS * 512, MemoryOptions::default()).unwrap();
    let image = RecordingBackend::new(image);
    let (log, image) = (image.log(), Arc::new(image));
    let gated = GatedBackend::new(image.clone());
    let gate = gated.gate();
    gate.open();
    let mut machine = Machine::with_unit(unit(gated));
    gate.close();
    machine.fill(data_at(0), &[0x77; 512]);
    machine.submit(&write10(0, 5, 1));
    machine.submit(&read10(1, 6, 1));
    machine.submit(&read10(2, BLOCKS as u32 - 1, 2));
    machine.run();
    assert_eq!(gate.held(), 2);
    machine.enable(pci::Command::MEMORY);
    gate.open();
    machine.run();
    assert_eq!(machine.ended(), [(2, host_status::SUCCESS)], "that one had ended before");
    (machine, image, log)
}

fn one_disk(image: Arc<dyn BlockBackend>) -> Bus {
    let bus = bus();
    bus.attach(at(0), unit(image)).unwrap();
    bus
}

/// They go along, and are told once bus mastering is on: by the other adapter, which does nothing of it
/// again.
#[test]
fn what_could_not_be_told_is_carried() {
    let (mut machine, image, log) = untold();
    let saved = serde_json::to_value(machine.snapshot()).unwrap();
    assert_eq!(saved["state"]["engine"]["over"].as_array().unwrap().len(), 2);
    let asked = log.events();
    let messages = machine.messages_sent();
    machine.move_to(one_disk(image));
    machine.run();
    assert_eq!((machine.ended(), machine.messages_sent()), (vec![], messages));
    machine.enable(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    machine.run();
    assert_eq!(machine.ended(), [(0, host_status::SUCCESS), (1, host_status::SUCCESS)]);
    assert_eq!(machine.messages_sent(), messages + 1);
    assert!(log.events() == asked, "nothing is done twice");

    // As many as the ring of completions can take, and no more.
    let mut many = saved.clone();
    let over = &mut many["state"]["engine"]["over"];
    *over = vec![over[0].clone(); ENTRIES as usize * 4 + 1].into();
    machine.device.pause().unwrap();
    let error = machine.device.restore(&serde_json::from_value(many.clone()).unwrap()).unwrap_err();
    assert!(matches!(error, StateError::Impossible(_)), "{error}");
    many["state"]["engine"]["over"].as_array_mut().unwrap().pop();
    machine.device.restore(&serde_json::from_value(many).unwrap()).unwrap();
}

/// Units that came and went while the driver left no room for messages.
#[test]
fn news_that_could_not_be_told_is_carried() {
    let (build, _) = disks();
    let mut machine = Machine::off(build());
    machine.start(Mode::Msix);
    machine.set_up_messages();
    machine.set_state(state::MESSAGE_CONSUMER, 0u32.wrapping_sub(32));
    let _ = machine.bus.detach(at(1));
    machine.run();
    machine.bus.attach(at(2), unit(numbered())).unwrap();
    machine.run();
    assert_eq!(machine.state(state::MESSAGE_PRODUCER), 0);
    let bus = build();
    let _ = bus.detach(at(1));
    bus.attach(at(2), unit(numbered())).unwrap();
    machine.move_to(bus);
    machine.set_state(state::MESSAGE_CONSUMER, 0);
    machine.run();
    let told: Vec<u32> = (0..machine.state(state::MESSAGE_PRODUCER))
        .map(|index| {
            machine.memory.read_obj(GuestAddress(MESSAGES + u64::from(index) * 128)).unwrap()
        })
        .collect();
    assert_eq!(told, [1, 0], "one went, and then one came");
    // News of a unit that is not there.
    let mut text = serde_json::to_value(machine.snapshot()).unwrap();
    text["state"]["engine"]["news"] =
        serde_json::json!([{ "target": 3, "lun": 0, "attached": true }]);
    machine.device.pause().unwrap();
    let error = machine.device.restore(&serde_json::from_value(text).unwrap()).unwrap_err();
    assert!(matches!(error, StateError::Impossible(_)), "{error}");
}

#[test]
fn an_adapter_is_saved_and_restored_only_while_paused() {
    let (build, _) = disks();
    let mut machine = Machine::off(build());
    machine.start(Mode::Msix);
    assert!(matches!(machine.device.save(), Err(StateError::NotPaused)));
    let state = machine.snapshot();
    assert!(matches!(machine.device.restore(&state), Err(StateError::NotPaused)));
    assert_eq!(machine.snapshot(), state, "it was left alone");
    let other = SavedState { device: "ahci".into(), ..state.clone() };
    machine.device.pause().unwrap();
    assert!(matches!(machine.device.restore(&other), Err(StateError::Device { .. })));
    let mut fresh = Machine::off(build());
    assert_eq!(machine.saved(), serde_json::to_string(&fresh.snapshot()).unwrap());
}

/// States from all over what a driver does.
static STATES: LazyLock<Vec<serde_json::Value>> = LazyLock::new(|| {
    let (build, _) = disks();
    let mut machine = Machine::off(build());
    machine.states = Some(Vec::new());
    machine.drive(Mode::Msix);
    let states = machine.states.take().unwrap_or_default();
    states.into_iter().map(|state| serde_json::to_value(state).unwrap()).collect()
});

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, ..ProptestConfig::with_cases(2500) })]

    /// CVE-2013-4151 and its kin, numbers of a state that were believed: it is refused, and the adapter as
    /// after a reset; or a driver could have brought it about, and nothing that one does then is fatal.
    #[test]
    fn a_mutated_state_is_refused_or_harmless(
        place in any::<prop::sample::Index>(),
        seeds in prop::collection::vec(any::<u64>(), 1..4),
        steps in prop::collection::vec(any_step(), 1..20),
    ) {
        let mut state = place.get(&STATES).clone();
        seeds.into_iter().for_each(|seed| mutate(&mut state, seed));
        let Ok(state) = serde_json::from_value::<SavedState>(state) else { return Ok(()) };
        let (build, _) = disks();
        let manual = ManualExecutor::new();
        let options = Options { patience: Duration::ZERO, ..Options::default() };
        let mut machine =
            Machine::on_executor(build(), options, manual.clone(), Arc::new(manual));
        machine.device.pause().unwrap();
        if machine.device.restore(&state).is_err() {
            static FRESH: LazyLock<String> = LazyLock::new(|| {
                let (build, _) = disks();
                let mut machine = Machine::off(build());
                machine.device.pause().unwrap();
                machine.saved()
            });
            prop_assert_eq!(&machine.saved(), &*FRESH);
            prop_assert!(!machine.level());
            prop_assert_eq!(machine.messages_sent(), 0);
            return Ok(());
        } else {
            // Now that it has been taken over, it is what is saved.
            let text = machine.saved();
            machine.device.restore(&serde_json::from_str(&text).unwrap()).unwrap();
            prop_assert_eq!(machine.saved(), text);
        }
        machine.device.resume().unwrap();
        machine.run();
        let gate = GatedBackend::new(MemoryBackend::new(512, MemoryOptions::default()).unwrap()).gate();
        for step in steps {
            machine.step(step, &gate);
        }
        machine.run();
        machine.device.reset();
        machine.run();
        for target in 0..4 {
            let _ = machine.bus.detach(at(target));
        }
        machine.bus.attach(at(0), SMALL.clone()).unwrap();
        machine.start(Mode::Intx);
        machine.wait_ready(0);
        let completion = machine.carry_out(&read10(1, 7, 1));
        prop_assert_eq!(completion.host_status.get(), 0);
        prop_assert!(machine.level());
    }
}

/// A disk for a last look.
static SMALL: LazyLock<Arc<LogicalUnit>> =
    LazyLock::new(|| unit(MemoryBackend::new(8 * 512, MemoryOptions::default()).unwrap()));

/// Before which access of [`Machine::drive`] the stored state was saved: reads and writes are in the ring.
const FIXTURE: usize = 193;

/// What an earlier version of this crate saved, in the middle of traffic, is read by this one, and the
/// driver goes on with it.
#[test]
fn the_first_version_is_read() {
    let saved = include_str!("../../tests/fixtures/state/pvscsi-1.json");
    let (_, wanted) = driven(Mode::Msix, FIXTURE, false);
    let (build, operations) = disks();
    let mut machine = Machine::off(build());
    machine.before = Some((FIXTURE, Event::Restore(build, saved.trim().into())));
    let results = machine.drive(Mode::Msix);
    let seen = machine.seen(results, operations());
    assert_eq!(seen.results, wanted.results);
    assert!(seen.operations == wanted.operations && seen.memory == wanted.memory);
    assert_eq!(seen.messages, wanted.messages);

    let saved = include_str!("../../tests/fixtures/state/pvscsi-untold-1.json");
    let (mut machine, image, _) = untold();
    machine.go_on_with(one_disk(image), saved.trim());
    machine.enable(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    machine.run();
    assert_eq!(machine.ended(), [(0, host_status::SUCCESS), (1, host_status::SUCCESS)]);
}

#[test]
#[ignore = "writes the stored states anew"]
fn store_the_first_version() {
    let store = |name: &str, state: &SavedState| {
        let path = format!("{}/tests/fixtures/state/{name}-1.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, serde_json::to_string(state).unwrap() + "\n").unwrap();
    };
    store("pvscsi", &serde_json::from_value(STATES[FIXTURE].clone()).unwrap());
    store("pvscsi-untold", &untold().0.snapshot());
}
