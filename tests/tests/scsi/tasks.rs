//! Task management (SAM-5, 7) against a backend that holds on to what it is given.
//!
//! Whatever ends a command: it ends once; its initiator has been told before it is told that the function
//! is over; and from then on no byte of its memory changes, whatever the backend does later.

mod by_driver;
mod by_lane;
mod lanes;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{BlockBackend, MemoryBackend};
use paraslot_scsi::{Address, Response};

use crate::drivers::DEPTH;
use crate::ways::on_every_way;
use crate::world::{BLOCK, CANARY, fresh, image, on, original};

on_every_way! {
    a_command_is_aborted_and_others_go_on,
    every_function_that_ends_all_commands_does,
    who_holds_on_to_a_command_is_waited_for,
    a_write_that_is_aborted_is_not_done,
    what_is_not_there_is_not_aborted,
    what_is_under_way_is_found,
    what_was_done_before_stays_done,
}

/// The unit: the first of the first target, which drivers take.
const THERE: Address = Address { target: 0, lun: 0 };

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Done,
    Aborted,
    Failed,
}

/// A function, for the unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Abort(u16),
    AbortSet,
    ClearSet,
    ResetUnit,
    ResetNexus,
    ResetBus,
    Query(u16),
    QuerySet,
}

/// Those that end all commands of one initiator.
const ENDING: [Order; 5] =
    [Order::AbortSet, Order::ClearSet, Order::ResetUnit, Order::ResetNexus, Order::ResetBus];

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done(Response),
    /// It is not over.
    Waits,
    /// There is no such function on this way.
    None,
}

const COMPLETE: Answer = Answer::Done(Response::Complete);

/// An initiator with several commands under way, of one block each.
trait Tasks {
    /// Starts a read or write of block `lba`, and has the device take it.
    fn begin(&mut self, tag: u16, lba: u32, writes: bool);

    /// What its device has told since the last call, without giving it time.
    fn told(&mut self) -> Vec<(u16, Fate)>;

    /// Gives its device time, until it rests.
    fn work(&mut self);

    /// Has a function carried out, and gives the device time for it.
    fn order(&mut self, order: Order) -> Answer;

    /// Whether a function that is not over can be told from one that is.
    fn says_when(&self) -> bool {
        true
    }

    /// Whether it tells of commands that a reset of units has yet to end, and never again of them.
    fn gives_up(&self) -> bool {
        false
    }

    /// What came of it meanwhile, if that can be seen.
    fn answer(&mut self) -> Option<Answer>;

    /// The memory of a command, and what is around it.
    fn memory(&mut self, tag: u16) -> Vec<u8>;

    /// Fills it.
    fn fill(&mut self, tag: u16, data: &[u8]);
}

/// Bytes from one command's memory to the next.
const APART: usize = 2048;

/// Where the memory of a command is.
fn place(tag: u16) -> usize {
    APART * (1 + usize::from(tag))
}

/// Initiators with a disk.
trait Queues {
    fn with(backend: impl BlockBackend + 'static, test: impl FnOnce(&mut dyn Tasks));
}

/// Has `test` run with a backend that holds back.
fn held<Q: Queues>(test: impl FnOnce(&mut dyn Tasks, &Gate, &MemoryBackend)) {
    let image = image();
    let backend = GatedBackend::new(image.clone());
    let gate = backend.gate();
    Q::with(backend, |it| {
        for tag in 0..DEPTH {
            it.fill(tag, &[CANARY; APART]);
        }
        test(it, &gate, &image);
    });
}

/// Starts reads of four blocks, which the backend then has.
fn four_reads(it: &mut dyn Tasks, gate: &Gate) {
    for tag in 0..4 {
        it.begin(tag, 10 * u32::from(tag), false);
    }
    assert_eq!((gate.held(), it.told()), (4, vec![]));
}

/// That a block has been read.
#[track_caller]
fn has_read(it: &mut dyn Tasks, tag: u16, lba: usize) {
    let memory = it.memory(tag);
    assert!(memory[..BLOCK] == *original(lba, 1), "{tag}");
    assert!(memory[BLOCK..].iter().all(|byte| *byte == CANARY), "{tag}");
}

/// That the memory of these commands is left alone from now on, whatever the backend does.
fn is_quiet(it: &mut dyn Tasks, gate: &Gate, tags: impl Iterator<Item = u16> + Clone) {
    for tag in tags.clone() {
        it.fill(tag, &[0x77; APART]);
    }
    gate.open();
    it.work();
    for tag in tags {
        assert!(it.memory(tag) == [0x77; APART], "{tag}");
    }
}

/// That the disk serves a read, after what it has to report.
fn goes_on(it: &mut dyn Tasks) {
    for _ in 0..2 {
        it.fill(5, &[CANARY; APART]);
        it.begin(5, 9, false);
        // Drivers repeat what did no more than report.
        let told = (0..8).find_map(|_| {
            it.work();
            it.told().pop()
        });
        if told == Some((5, Fate::Done)) {
            return has_read(it, 5, 9);
        }
    }
    panic!("it does not go on");
}

fn sorted(mut told: Vec<(u16, Fate)>) -> Vec<(u16, Fate)> {
    told.sort_unstable();
    told
}

/// That these have all ended so, each once.
#[track_caller]
fn all(told: Vec<(u16, Fate)>, tags: impl Iterator<Item = u16>, fate: Fate) {
    assert_eq!(sorted(told), tags.map(|tag| (tag, fate)).collect::<Vec<_>>());
}

// QEMU 6910f04aa6, be2c42b97c.
fn a_command_is_aborted_and_others_go_on<Q: Queues>() {
    held::<Q>(|it, gate, _| {
        four_reads(it, gate);
        assert_eq!(it.order(Order::Abort(2)), COMPLETE);
        // It had been told by then.
        assert_eq!(it.told(), [(2, Fate::Aborted)]);
        assert_eq!(gate.held(), 3);
        // The tag is free again, and its successor has nothing to fear.
        it.begin(2, 77, false);
        gate.open();
        it.work();
        all(it.told(), 0..4, Fate::Done);
        for (tag, lba) in [(0, 0), (1, 10), (2, 77), (3, 30)] {
            has_read(it, tag, lba);
        }
        is_quiet(it, gate, 0..4);
        assert_eq!(it.told(), []);
    });
}

fn every_function_that_ends_all_commands_does<Q: Queues>() {
    for order in ENDING {
        held::<Q>(|it, gate, _| {
            four_reads(it, gate);
            let answer = it.order(order);
            if answer == Answer::None {
                return;
            }
            assert_eq!(answer, COMPLETE, "{order:?}");
            all(it.told(), 0..4, Fate::Aborted);
            assert_eq!(gate.held(), 0);
            is_quiet(it, gate, 0..4);
            assert_eq!(it.told(), []);
            goes_on(it);
        });
    }
}

fn who_holds_on_to_a_command_is_waited_for<Q: Queues>() {
    for order in [Order::Abort(1)].into_iter().chain(ENDING) {
        held::<Q>(|it, gate, _| {
            gate.deafen(true);
            four_reads(it, gate);
            let answer = it.order(order);
            if answer == Answer::None {
                return;
            }
            assert!(answer == Answer::Waits || !it.says_when(), "{order:?}");
            it.work();
            if it.gives_up() && matches!(order, Order::ResetUnit | Order::ResetBus) {
                all(it.told(), 0..4, Fate::Aborted);
                gate.release(4);
                it.work();
                assert_eq!(it.told(), [], "{order:?}");
                return;
            }
            assert_eq!((gate.held(), it.told()), (4, vec![]), "{order:?}");
            // Their memory is the backend's until it lets go: then they end, as aborted.
            let one = matches!(order, Order::Abort(_));
            gate.release_at(1);
            it.work();
            assert_eq!(it.told(), [(1, Fate::Aborted)], "{order:?}");
            let over = if one { COMPLETE } else { Answer::Waits };
            assert!(it.answer().is_none_or(|answer| answer == over), "{order:?}");
            gate.release(3);
            it.work();
            let fate = if one { Fate::Done } else { Fate::Aborted };
            all(it.told(), [0, 2, 3].into_iter(), fate);
            assert!(it.answer().is_none_or(|answer| answer == COMPLETE), "{order:?}");
            is_quiet(it, gate, 0..4);
            assert_eq!(it.told(), []);
        });
    }
}

fn a_write_that_is_aborted_is_not_done<Q: Queues>() {
    held::<Q>(|it, gate, image| {
        for tag in 0..3 {
            it.fill(tag, &fresh(1));
            it.begin(tag, 50 + u32::from(tag), true);
        }
        assert_eq!(it.order(Order::Abort(1)), COMPLETE);
        assert_eq!(it.told(), [(1, Fate::Aborted)]);
        gate.open();
        it.work();
        all(it.told(), [0, 2].into_iter(), Fate::Done);
        assert!(on(image, 51, 1) == original(51, 1));
        assert!(on(image, 50, 1) == fresh(1) && on(image, 52, 1) == fresh(1));
    });
}

fn what_is_not_there_is_not_aborted<Q: Queues>() {
    held::<Q>(|it, gate, _| {
        four_reads(it, gate);
        let answer = it.order(Order::Abort(9));
        assert!(matches!(answer, COMPLETE | Answer::None));
        assert_eq!((gate.held(), it.told()), (4, vec![]));
        gate.open();
        it.work();
        all(it.told(), 0..4, Fate::Done);
        // Nor what is over.
        for order in [Order::Abort(0), Order::AbortSet, Order::ClearSet] {
            assert!(matches!(it.order(order), COMPLETE | Answer::None));
        }
        assert_eq!(it.told(), []);
        (0..4).for_each(|tag| has_read(it, tag, 10 * usize::from(tag)));
    });
}

fn what_is_under_way_is_found<Q: Queues>() {
    held::<Q>(|it, gate, _| {
        let found = Answer::Done(Response::Succeeded);
        if it.order(Order::QuerySet) == Answer::None {
            return;
        }
        assert_eq!(it.order(Order::Query(2)), COMPLETE);
        four_reads(it, gate);
        assert_eq!(it.order(Order::Query(2)), found);
        assert_eq!(it.order(Order::Query(7)), COMPLETE);
        assert_eq!(it.order(Order::QuerySet), found);
        assert_eq!((gate.held(), it.told()), (4, vec![]));
        assert_eq!(it.order(Order::Abort(2)), COMPLETE);
        assert_eq!(it.order(Order::Query(2)), COMPLETE);
        gate.open();
        it.work();
        assert_eq!(it.order(Order::QuerySet), COMPLETE);
        assert_eq!(it.told().len(), 4);
    });
}

fn what_was_done_before_stays_done<Q: Queues>() {
    for order in ENDING {
        held::<Q>(|it, gate, _| {
            four_reads(it, gate);
            gate.release(2);
            it.work();
            if it.order(order) == Answer::None {
                return;
            }
            let told = sorted(it.told());
            let expected =
                [(0, Fate::Done), (1, Fate::Done), (2, Fate::Aborted), (3, Fate::Aborted)];
            assert_eq!(told, expected, "{order:?}");
            has_read(it, 0, 0);
            has_read(it, 1, 10);
            is_quiet(it, gate, 0..4);
        });
    }
}
