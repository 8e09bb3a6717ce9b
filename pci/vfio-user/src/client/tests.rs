use super::*;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use paraslot_device::{IntxLine, ManualExecutor, MsiSink};
use paraslot_pci::BarSpec;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use crate::testing::{Bench, PBA, TABLE, count, event, memory, reg, until};

/// A host that keeps the order of what it is told.
#[derive(Default)]
pub(super) struct Machine {
    routes: Mutex<BTreeMap<u16, (MsiMessage, bool)>>,
    sent: Mutex<Vec<u32>>,
    /// Eventfds of vectors, if it has them.
    events: Option<Mutex<BTreeMap<u16, EventFd>>>,
    line: AtomicBool,
    edges: AtomicU32,
    pin: Option<IntxEventFds>,
}

impl MsiSink for Machine {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        self.routes.lock().unwrap().insert(vector, (message, masked));
    }
    fn trigger(&self, vector: u16) {
        let (message, masked) = self.routes.lock().unwrap()[&vector];
        assert!(!masked, "a message of a masked vector");
        self.sent.lock().unwrap().push(message.data);
    }
    fn event(&self, vector: u16) -> Option<EventFd> {
        let mut events = self.events.as_ref()?.lock().unwrap();
        Some(events.entry(vector).or_insert_with(event).try_clone().unwrap())
    }
}

impl IntxLine for Machine {
    fn set_level(&self, asserted: bool) {
        assert_ne!(self.line.swap(asserted, Ordering::SeqCst), asserted);
        self.edges.fetch_add(1, Ordering::SeqCst);
    }
    fn eventfds(&self) -> Option<IntxEventFds> {
        let IntxEventFds { assert, acknowledged } = self.pin.as_ref()?;
        let (assert, acknowledged) =
            (assert.try_clone().unwrap(), acknowledged.try_clone().unwrap());
        Some(IntxEventFds { assert, acknowledged })
    }
}

struct Guest {
    machine: Arc<Machine>,
    executor: ManualExecutor,
    memory: Arc<GuestMemoryMmap>,
    function: VfioUser<Arc<GuestMemoryMmap>>,
}

const MEMORY: u64 = 1 << 20;

fn guest(bench: &Bench, machine: Machine) -> Guest {
    let file = FileOffset::new(memory(MEMORY), 0);
    let len = usize::try_from(MEMORY).unwrap();
    let memory = GuestMemoryMmap::from_ranges_with_files([(GuestAddress(0), len, Some(file))]);
    let memory = Arc::new(memory.unwrap());
    let (machine, executor) = (Arc::new(machine), ManualExecutor::new());
    let host = Host {
        memory: memory.clone(),
        msi: machine.clone(),
        intx: machine.clone(),
        executor: Arc::new(executor.clone()),
    };
    let function = VfioUser::connect(&bench.path, host).unwrap();
    Guest { machine, executor, memory, function }
}

fn with_events() -> Machine {
    let pin = Some(IntxEventFds { assert: event(), acknowledged: event() });
    Machine { events: Some(Mutex::default()), pin, ..Machine::default() }
}

impl Guest {
    fn config(&mut self, offset: u16, data: &[u8]) {
        self.function.config_write(offset, data);
    }

    fn control(&mut self, value: u16) {
        let at = self.function.capabilities.msix.unwrap().control;
        self.config(at, &value.to_le_bytes());
    }

    fn bar(&mut self, offset: u64, data: &[u8]) {
        self.function.bar_write(0, offset, data);
    }

    fn read(&mut self, offset: u64) -> u64 {
        let mut data = [0; 8];
        self.function.bar_read(0, offset, &mut data);
        u64::from_le_bytes(data)
    }

    /// Routes a vector to message data of 100 and its number.
    fn unmask(&mut self, vector: u16) {
        let at = TABLE + u64::from(vector) * 16;
        self.bar(at, &0xfee0_0000_u64.to_le_bytes());
        self.bar(at + 8, &u64::from(100 + vector).to_le_bytes());
    }

    fn mask(&mut self, vector: u16) {
        self.bar(TABLE + u64::from(vector) * 16 + 12, &[1, 0, 0, 0]);
    }

    fn sent(&mut self) -> Vec<u32> {
        self.executor.run(10);
        std::mem::take(&mut *self.machine.sent.lock().unwrap())
    }
}

#[test]
fn the_layout_is_the_functions() {
    let bench = Bench::new();
    let guest = guest(&bench, Machine::default());
    let layout = guest.function.layout();
    let bar = |kind, size| Some(BarSpec { kind, size, prefetchable: false });
    assert_eq!(
        layout.bars[..4],
        [
            bar(BarKind::Memory64, 0x4000),
            None,
            bar(BarKind::Io, 16),
            bar(BarKind::Memory32, 0x1000)
        ]
    );
    assert_eq!((layout.msix_vectors, layout.msi_vectors, layout.intx), (40, 1, true));
    let bells: Vec<_> =
        layout.doorbells.iter().map(|bell| (bell.bar, bell.offset, bell.len, bell.value)).collect();
    assert_eq!(bells, [(0, 0x40, 4, None), (0, 0x44, 4, Some(7))]);
    assert_eq!((layout.windows[0].bar, layout.windows[0].offset), (0, reg::PAGE));
}

#[test]
fn bars_are_where_the_guest_puts_them() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    guest.config(0x10, &0x12_0000_8000_u64.to_le_bytes());
    guest.config(0x18, &0x1000_u32.to_le_bytes());
    let bars = guest.function.bars();
    assert_eq!(bars[0].map(|bar| (bar.address, bar.enabled)), Some((0x12_0000_8000, false)));
    guest.config(4, &[0x02, 0]);
    let bars = guest.function.bars();
    assert!(bars[0].unwrap().enabled && !bars[2].unwrap().enabled && bars[3].unwrap().address == 0);
    let power = guest.function.capabilities.power.unwrap() + pm::CONTROL;
    guest.config(power, &[3, 0]);
    assert!(!guest.function.bars()[0].unwrap().enabled, "it sleeps");
    guest.config(power, &[0, 0]);
    assert!(guest.function.bars()[0].unwrap().enabled);
    guest.function.reset();
    assert_eq!(guest.function.bars()[0].map(|bar| (bar.address, bar.enabled)), Some((0, false)));
}

#[test]
fn doorbells_ring_and_pages_are_read_in_place() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    let rung = || bench.seen.events.lock().unwrap().iter().map(count).collect::<Vec<_>>();
    guest.bar(reg::BELL, &[1, 2, 3, 4]);
    assert_eq!(rung(), [1, 0]);
    guest.bar(reg::BELL_7, &[7, 0, 0, 0]);
    assert_eq!(rung(), [0, 1]);
    guest.bar(reg::BELL_7, &[8, 0, 0, 0]);
    guest.bar(reg::BELL, &[1]);
    assert_eq!((rung(), bench.seen.bells.load(Ordering::Relaxed)), (vec![0, 0], 2));
    guest.bar(reg::PAGE, &5_u32.to_le_bytes());
    let page = guest.function.layout().windows[0].page.clone();
    assert_eq!(page.words()[0].load(Ordering::Acquire), 5);
}

#[test]
fn what_the_server_has_written_is_known() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    guest.config(4, &[0x06, 0]);
    let write = |guest: &mut Guest, target: u64| {
        let before = bench.seen.writes.load(Ordering::SeqCst);
        guest.bar(reg::TARGET, &target.to_le_bytes());
        until("memory is written", || bench.seen.writes.load(Ordering::SeqCst) > before);
        guest.function.pause().unwrap();
        guest.bar(reg::TARGET, &0_u64.to_le_bytes());
        guest.function.resume().unwrap();
    };
    let refused = |result: Result<Vec<_>, ClientError>| match result {
        Err(ClientError::Refused { errno, .. }) => errno,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(guest.function.take_dirty()), libc::EINVAL, "nobody has asked for it");
    guest.function.log_writes().unwrap();
    assert!(guest.function.take_dirty().unwrap().is_empty());
    for target in [0x1000, 0x2ffc, 0x5000, MEMORY - 8] {
        write(&mut guest, target);
    }
    let written = [(0x1000, 0x3000), (0x5000, 0x1000), (MEMORY - 0x1000, 0x1000)];
    assert_eq!(guest.function.take_dirty().unwrap(), written);
    assert!(guest.function.take_dirty().unwrap().is_empty());
    guest.function.reset();
    guest.config(4, &[0x06, 0]);
    write(&mut guest, 0x1000);
    assert_eq!(guest.function.take_dirty().unwrap(), [(0x1000, 0x1000)], "a reset ends nothing");
    guest.function.forget_writes().unwrap();
    assert_eq!(refused(guest.function.take_dirty()), libc::EINVAL);
    assert!(guest.function.fault().take().is_none(), "the function goes on");
    bench.seen.stuck.store(3, Ordering::SeqCst);
    assert!(matches!(guest.function.log_writes(), Err(ClientError::Refused { .. })));
    guest.function.log_writes().unwrap();

    let mut bench = bench;
    bench.stop();
    assert!(guest.function.take_dirty().is_err());
    assert!(guest.function.log_writes().is_err());
    assert!(guest.function.fault().take().is_some());
}

#[test]
fn the_function_has_the_guests_memory() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    guest.config(4, &[0x06, 0]);
    guest.bar(reg::TARGET, &0x1000_u64.to_le_bytes());
    let word = || guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap();
    until("memory is written", || word() > 10);
    // As if the server had no device states.
    guest.function.has_states = false;
    guest.function.pause().unwrap();
    guest.function.pause().unwrap();
    let last = guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap();
    let mut command = [0; 2];
    guest.function.config_read(4, &mut command);
    assert_eq!(command, [0x06, 0], "the guest is not to notice");
    guest.config(4, &[0x02, 0]);
    guest.function.config_read(4, &mut command);
    assert_eq!(command, [0x02, 0]);
    guest.config(4, &[0x06, 0]);
    assert_eq!(guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), last);
    guest.function.resume().unwrap();
    let word = || guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap();
    until("memory is written again", || word() > last);
    guest.function.config_read(4, &mut command);
    assert_eq!(command, [0x06, 0]);
}

#[test]
fn messages_go_where_the_guest_routes_them() {
    let bench = Bench::new();
    for events in [false, true] {
        let mut guest = guest(&bench, if events { with_events() } else { Machine::default() });
        let sent = |guest: &mut Guest| match &guest.machine.events {
            None => guest.sent(),
            Some(events) => {
                let routes = guest.machine.routes.lock().unwrap();
                let events = events.lock().unwrap();
                let came = events.iter().filter(|(_, event)| count(event) > 0);
                came.map(|(vector, _)| routes[vector].0.data).collect()
            }
        };
        let raise = |guest: &mut Guest, vector: u64| guest.bar(reg::RAISE, &vector.to_le_bytes());
        guest.config(4, &[0x06, 0]);
        guest.unmask(3);
        guest.control(0x8000);
        raise(&mut guest, 3);
        assert_eq!(sent(&mut guest), [103]);
        // Masked: pending, where the guest can see it.
        raise(&mut guest, 4);
        assert_eq!(guest.read(PBA), 1 << 4);
        assert!(sent(&mut guest).is_empty());
        guest.unmask(4);
        assert_eq!((sent(&mut guest), guest.read(PBA)), (vec![104], 0));
        guest.mask(4);
        raise(&mut guest, 4);
        assert!(sent(&mut guest).is_empty());
        // The table is the guest's own.
        assert_eq!(guest.read(TABLE + 4 * 16 + 8), 104 | 1 << 32);
        let elsewhere = 200_u64.to_le_bytes();
        guest.bar(TABLE + 4 * 16 + 8, &elsewhere);
        assert_eq!(sent(&mut guest), [200]);
        // The function mask, and all of them.
        guest.control(0xc000);
        for vector in 0..40 {
            guest.unmask(vector);
            raise(&mut guest, vector.into());
        }
        assert!(sent(&mut guest).is_empty());
        assert_eq!(guest.read(PBA), (1 << 40) - 1);
        guest.control(0x8000);
        let mut came = sent(&mut guest);
        came.sort_unstable();
        assert_eq!(came, (100..140).collect::<Vec<_>>());
        // Off: dropped.
        guest.control(0);
        raise(&mut guest, 1);
        guest.control(0x8000);
        assert!(sent(&mut guest).is_empty());
        // A reset masks them all.
        guest.function.reset();
        guest.config(4, &[0x06, 0]);
        guest.control(0x8000);
        raise(&mut guest, 3);
        assert!(sent(&mut guest).is_empty());
        assert_eq!(guest.read(PBA), 1 << 3);
        drop(guest);
        assert!(matches!(bench.end(), End::Closed));
    }
}

#[test]
fn msi_goes_where_the_guest_routes_it() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    let at = guest.function.capabilities.msi.unwrap();
    guest.config(4, &[0x06, 0]);
    guest.config(at + msi::ADDRESS, &0xfee0_0000_u32.to_le_bytes());
    guest.config(at + msi::DATA_64, &77_u16.to_le_bytes());
    guest.config(at + msi::CONTROL, &msi::ENABLE.to_le_bytes());
    guest.bar(reg::RAISE, &[0]);
    assert_eq!(guest.sent(), [77]);
    guest.config(at + msi::MASK_64, &[1]);
    guest.bar(reg::RAISE, &[0]);
    assert!(guest.sent().is_empty());
    guest.config(at + msi::DATA_64, &78_u16.to_le_bytes());
    guest.config(at + msi::MASK_64, &[0]);
    assert_eq!(guest.sent(), [78]);
    guest.config(at + msi::CONTROL, &[0, 0]);
    guest.bar(reg::RAISE, &[0]);
    assert!(guest.sent().is_empty());
}

#[test]
fn the_pin_follows_the_function() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    let line = |guest: &Guest| guest.machine.line.load(Ordering::SeqCst);
    for _ in 0..3 {
        // The access that asserts it is one after which it is looked at.
        guest.bar(reg::LEVEL, &[1]);
        guest.executor.run(10);
        assert!(line(&guest));
        // It is asserted still.
        guest.read(reg::SCRATCH);
        assert!(line(&guest));
        guest.bar(reg::LEVEL, &[0]);
        guest.executor.run(10);
        assert!(!line(&guest));
    }
    assert_eq!(guest.machine.edges.load(Ordering::SeqCst), 6, "it does not flicker");
    guest.bar(reg::LEVEL, &[1]);
    guest.config(4, &0x400_u16.to_le_bytes());
    assert!(!line(&guest));
    guest.config(4, &[0, 0]);
    guest.executor.run(10);
    assert!(line(&guest));
    guest.function.reset();
    assert!(!line(&guest));
}

#[test]
fn the_pin_is_the_hosts_eventfds_if_it_has_some() {
    let bench = Bench::new();
    let mut guest = guest(&bench, with_events());
    guest.bar(reg::LEVEL, &[1]);
    let machine = guest.machine.clone();
    let IntxEventFds { assert, acknowledged } = machine.pin.as_ref().unwrap();
    assert_eq!(count(assert), 1);
    acknowledged.write(1).unwrap();
    until("it is asserted still", || count(assert) == 1);
    guest.bar(reg::LEVEL, &[0]);
    assert_eq!(machine.edges.load(Ordering::SeqCst), 0);
}

#[test]
fn a_server_is_not_taken_at_its_word() {
    let areas = |next: u32, count: u32| {
        let mut payload = vec![0; 32];
        for word in [0x1_0001, next, count, 0, 0x1000, 0, 0x1000, 0_u32] {
            payload.extend(word.to_le_bytes());
        }
        link::areas(&payload, 32)
    };
    assert_eq!(areas(0, 1), [(0x1000, 0x1000)]);
    assert_eq!(areas(32, 1), [(0x1000, 0x1000)], "a list that does not end");
    assert_eq!(areas(0, u32::MAX), [(0x1000, 0x1000)]);
    assert_eq!(areas(u32::MAX, 1), [(0x1000, 0x1000)]);
    assert!(link::areas(&[0; 32], 0).is_empty() && link::areas(&[], 32).is_empty());
}

#[test]
fn a_function_that_the_server_stops_keeps_its_registers() {
    let bench = Bench::new();
    let mut guest = guest(&bench, Machine::default());
    guest.config(4, &[0x06, 0]);
    guest.bar(reg::TARGET, &0x1000_u64.to_le_bytes());
    let writes = || bench.seen.writes.load(Ordering::SeqCst);
    until("memory is written", || writes() > 10);
    guest.function.pause().unwrap();
    let last = guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap();
    let mut command = [0; 2];
    guest.function.config_read(4, &mut command);
    assert_eq!(command, [0x06, 0]);
    assert_eq!(guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), last);
    // A reset does not have it run.
    guest.function.reset();
    guest.config(4, &[0x06, 0]);
    guest.bar(reg::TARGET, &0x1000_u64.to_le_bytes());
    assert_eq!(guest.memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), last);
    guest.function.resume().unwrap();
    until("memory is written again", || writes() > last);
}

#[test]
fn a_function_moves_to_another_server_with_what_is_pending() {
    let (here, there) = (Bench::new(), Bench::new());
    let mut old = guest(&here, Machine::default());
    assert!(matches!(old.function.save(), Err(StateError::NotPaused)));
    old.config(4, &[0x06, 0]);
    old.config(0x10, &0x12_0000_8000_u64.to_le_bytes());
    old.unmask(3);
    old.unmask(5);
    old.mask(5);
    old.control(0x8000);
    old.bar(reg::SCRATCH, &[1, 2, 3, 4]);
    old.bar(reg::RAISE, &[5]);
    old.function.pause().unwrap();
    let saved = old.function.save().unwrap();
    assert_eq!(saved, old.function.save().unwrap(), "it changes nothing");
    let text = serde_json::to_string(&saved).unwrap();
    old.function.resume().unwrap();
    old.bar(reg::RAISE, &[3]);
    assert_eq!(old.sent(), [103], "it goes on as if nothing had been asked");

    let mut new = guest(&there, Machine::default());
    let saved: SavedState = serde_json::from_str(&text).unwrap();
    assert!(matches!(new.function.restore(&saved), Err(StateError::NotPaused)));
    new.function.pause().unwrap();
    new.function.restore(&saved).unwrap();
    assert_eq!(new.function.bars()[0].unwrap().address, 0x12_0000_8000);
    new.function.resume().unwrap();
    assert_eq!(new.read(reg::SCRATCH), 0x0403_0201);
    assert_eq!(new.read(PBA), 1 << 5);
    assert!(new.sent().is_empty());
    new.bar(reg::RAISE, &[3]);
    assert_eq!(new.sent(), [103]);
    new.unmask(5);
    assert_eq!(new.sent(), [105]);

    // Others' states, and hostile ones.
    new.function.pause().unwrap();
    let mut hostile = vec![SavedState { device: "probe".into(), ..saved.clone() }];
    for (field, value) in [
        ("server", Value::Null),
        ("server", "{}".into()),
        ("server", "{".into()),
        ("msix_table", Value::Null),
        ("msix_table", vec![0_u8; 16].into()),
        ("msix_table", vec![0xff_u8; 640].into()),
        ("other", Value::Null),
    ] {
        let mut state = saved.clone();
        state.state[field] = value;
        hostile.push(state);
    }
    for state in hostile {
        assert!(new.function.restore(&state).is_err(), "{state:?}");
        assert_eq!(new.read(reg::SCRATCH), 0, "it is as after a reset");
        new.function.restore(&saved).unwrap();
        assert_eq!(new.read(reg::SCRATCH), 0x0403_0201);
    }
    new.function.resume().unwrap();
    assert!(new.function.fault().take().is_none());
}
