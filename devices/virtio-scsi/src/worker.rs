//! A request queue's loop.

mod saved;

use std::sync::Arc;

use paraslot_device::{DmaSpace, Memory, Progress, Source, Worker};
use paraslot_scsi::{Address, Bus, Completion, Lane, Outcome};
use paraslot_spec::virtio_scsi::response;
use paraslot_virtio::{Chain, Queue};

use crate::request::{Ended, Place, Request, Sizes};
use crate::shared::Shared;
use crate::well_known;

/// Most chains that are taken in one call of `service`, but for task management. The driver is told of
/// completions once in each, so this is a bound on how long the first waits for the last.
const BATCH: usize = 64;

/// Buffers of the requests in flight above which no further chain is taken. One chain may have 1024,
/// and one indirect table can serve every entry of the queue, so without this a driver could have
/// the device hold as many as that times the queue's size.
const MOST_SEGMENTS: usize = 16 * 1024;

/// Takes commands from one queue to one lane, and back.
///
/// A chain's head is its slot and its token: the queue sees to it that no head is in flight twice, and
/// the lane is as deep as the queue.
pub(crate) struct RequestWorker<A: DmaSpace> {
    queue: Queue<A>,
    lane: Lane,
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    /// Requests that the lane has given back, by head, and that are still to be answered.
    over: Vec<(u16, Ended)>,
    completions: Vec<Completion>,
    /// Buffers of the requests in flight.
    segments: usize,
}

/// A request in flight.
#[derive(Default)]
struct Slot {
    place: Place,
    /// For whom it is.
    address: Address,
    /// Buffers of its chain.
    segments: usize,
}

/// How a command for the unit at `address` that ended in this way is answered.
fn ended(bus: &Bus, address: Address, outcome: Outcome, moved: u64) -> Ended {
    let with = |response| Ended { moved, ..Ended::with(response) };
    match outcome {
        Outcome::Ended { status, sense } => {
            // What is not there has no mode parameters.
            let format = || bus.unit(address).map(|unit| unit.sense_format()).unwrap_or_default();
            let sense = sense.map(|sense| (sense, format()));
            Ended { status: status as u8, sense, ..with(response::OK) }
        }
        Outcome::Overrun => with(response::OVERRUN),
        Outcome::Aborted => with(response::ABORTED),
        Outcome::Reset => with(response::RESET),
        Outcome::NoTarget => with(response::BAD_TARGET),
    }
}

impl<A: DmaSpace> RequestWorker<A> {
    pub(crate) fn new(queue: Queue<A>, lane: Lane, shared: Arc<Shared>) -> Self {
        let size = usize::from(queue.size());
        Self {
            queue,
            lane,
            shared,
            slots: std::iter::repeat_with(Slot::default).take(size).collect(),
            over: Vec::with_capacity(size),
            completions: Vec::with_capacity(size),
            segments: 0,
        }
    }

    /// Takes a chain as far as the lane, or to its end. Without `room` for its buffers the driver is to
    /// try again.
    fn begin(&mut self, memory: &Memory<A>, chain: &Chain, room: bool) {
        let head = chain.head;
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return };
        let sizes = Sizes { sense: self.shared.sense_size(), cdb: self.shared.cdb_size() };
        if !slot.place.find(memory, &chain.writable, sizes.sense) {
            // There is no way to tell the driver what is wrong with this one.
            self.queue.fail();
            return;
        }
        let parsed = if room {
            Request::parse(memory, chain, sizes, head.into(), &mut slot.place)
        } else {
            Err(response::BUSY)
        };
        let ended = match parsed {
            Ok(Request::Command(command)) => {
                slot.address = command.address;
                slot.segments = chain.readable.len() + chain.writable.len();
                self.segments += slot.segments;
                self.lane.submit(command);
                return;
            }
            Ok(Request::ReportLuns(scope, cdb, data)) => {
                well_known::execute(&self.shared.bus, scope, &cdb, &data)
            }
            Err(response) => Ended::with(response),
        };
        self.answer(memory, head, &ended);
    }

    /// Notes what the lane has completed; returns whether it has anything.
    fn collect(&mut self) -> bool {
        self.lane.complete(&mut self.completions);
        let any = !self.completions.is_empty();
        for Completion { token, outcome, moved } in self.completions.drain(..) {
            let Ok(head) = u16::try_from(token) else { continue };
            let Some(slot) = self.slots.get(usize::from(head)) else { continue };
            self.over.push((head, ended(&self.shared.bus, slot.address, outcome, moved)));
        }
        any
    }

    /// Answers a request. The driver is told later.
    fn answer(&mut self, memory: &Memory<A>, head: u16, ended: &Ended) {
        let Some(slot) = self.slots.get_mut(usize::from(head)) else { return };
        self.segments = self.segments.saturating_sub(std::mem::take(&mut slot.segments));
        let written = slot.place.answer(memory, ended);
        self.queue.push_used(memory, head, written);
    }

    /// Tells the driver of requests that are over, and then task management that it has.
    fn tell(&mut self, memory: &Memory<A>) {
        let mut over = std::mem::take(&mut self.over);
        for (head, ended) in over.drain(..) {
            self.answer(memory, head, &ended);
        }
        self.over = over;
        self.queue.notify(memory);
        self.lane.settle();
    }

    /// Whether no chain is taken for now: not before something in flight completes.
    fn full(&self) -> bool {
        self.segments >= MOST_SEGMENTS
    }

    /// Takes what is available; returns whether anything was. Task management (`all`) finds only what
    /// the lane has seen, so everything is taken then: at most as many chains as the queue has entries.
    /// What finds no room is told to try again.
    fn take(&mut self, memory: &Memory<A>, all: bool) -> bool {
        let most = if all { self.queue.size().into() } else { BATCH };
        let (mut count, mut buffers) = (0, 0);
        while count < most && (all || !self.full() && buffers < MOST_SEGMENTS) {
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = self.queue.pop(memory) else { break };
            count += 1;
            // Those count too that end at once.
            buffers += chain.readable.len() + chain.writable.len();
            self.queue.disable_notifications(memory);
            let room = !self.full();
            self.begin(memory, &chain, room);
        }
        count != 0
    }

    /// Carries out what task management has asked for, if it has; returns whether it has.
    fn obey(&mut self, memory: &Memory<A>) -> bool {
        let ordered = self.lane.ordered();
        if ordered {
            self.take(memory, true);
            self.lane.obey();
        }
        ordered
    }
}

impl<A: DmaSpace> Worker for RequestWorker<A> {
    fn sources(&self) -> Vec<Source> {
        vec![self.queue.source(), self.lane.source()]
    }

    fn service(&mut self) -> Progress {
        let mut progress = self.collect();
        let Some(memory) = self.queue.dma().memory() else {
            // Without bus mastering nothing can be taken or told, so task management has to wait as
            // well. What was taken goes on. The host wakes this worker when that changes.
            return Progress::Idle;
        };
        progress |= self.obey(&memory);
        progress |= self.take(&memory, false);
        if progress {
            self.lane.commit();
            progress |= self.collect();
        }
        progress |= !self.over.is_empty();
        self.tell(&memory);
        if progress { Progress::More } else { Progress::Idle }
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let stir = self.lane.prepare_to_wait();
        let Some(memory) = self.queue.dma().memory() else {
            // Others may share the unit, and wait for a command's next step.
            return if self.lane.goes_on() { Progress::More } else { Progress::Idle };
        };
        if stir {
            return Progress::More;
        }
        if self.full() {
            // No chain is taken before there is room, and that rings by itself.
            return Progress::Idle;
        }
        if self.queue.enable_notifications(&memory) { Progress::More } else { Progress::Idle }
    }

    /// Nothing new is taken, but for task management: what it was to find must not escape it by the
    /// stop, and what it ends must not hold the stop up.
    fn quiesce(&mut self) -> Progress {
        self.collect();
        let memory = self.queue.dma().memory();
        if let Some(memory) = &memory {
            self.obey(memory);
        }
        self.lane.hurry();
        self.lane.commit();
        self.collect();
        if let Some(memory) = &memory {
            self.tell(memory);
        }
        if self.lane.is_quiet() { Progress::Idle } else { Progress::More }
    }
}
