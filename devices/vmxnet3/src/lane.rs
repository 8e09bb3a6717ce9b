//! A worker: one pair of the backend's queues, and the guest's queues that it looks after.
//!
//! Lane `i` of `n` sends what is in transmit queues `i`, `i + n` and so on by the backend's queue `i`,
//! and receives from that one for receive queue `i`, or for whichever a frame's hash says: then it
//! takes that queue's lock for the frame. A round of work is bounded.

mod saved;

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::net::{NetReceiver, NetSender, NetStatistics, Waits};
use paraslot_device::{Bell, Clock, Dma, DmaSpace, Memory, Progress, Source, Timer, Worker};
use paraslot_spec::vmxnet3::Events;

pub(crate) use self::saved::LaneState;
use crate::irq::{Work, bit};
use crate::receive::{Inbox, Terms};
use crate::shared::{Shared, lock};
use crate::state::Active;
use crate::statistics::Counts;
use crate::transmit::{Budget, Builder, Out};

/// How long after a driver has been told to ring a worker looks once more: what a processor has kept
/// back is in memory by then.
const SETTLE: Duration = Duration::from_micros(100);
/// While frames wait for buffers, a worker looks for them by itself this long after it has asked the
/// driver to ring, and then each time after twice as long, up to the second. Not every driver rings,
/// and a driver that does may have looked whether it must too early, as above.
const LOOK_FIRST: Duration = Duration::from_micros(100);
const LOOK_LAST: Duration = Duration::from_millis(10);
/// How long a frame waits for more buffers than there are.
const PATIENCE: Duration = Duration::from_millis(20);

/// Runs a lane.
pub(crate) struct LaneWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    lane: Lane<A>,
}

/// What a lane has to itself.
struct Lane<A: DmaSpace> {
    index: usize,
    dma: Dma<A>,
    clock: Arc<dyn Clock>,
    timer: Box<dyn Timer>,
    sender: Box<dyn NetSender>,
    receiver: Box<dyn NetReceiver>,
    builder: Builder,
    inbox: Inbox,
    /// The activation that all of this is about.
    epoch: u64,
    /// Which of the transmit queues is the next to be looked at first.
    turn: usize,
    /// The backend's queue took nothing more.
    busy: bool,
    /// Interrupts that are held back, and that this lane is to send.
    held: u32,
    /// When to look again.
    settle: Option<Duration>,
    starving: Option<Starving>,
    net: NetStatistics,
    /// Bytes that the backend says it has copied, as of the last round.
    copied: u64,
    waits: Waits,
}

/// The receive queue has no buffers for what is or may be there.
#[derive(Clone, Copy, Debug)]
struct Starving {
    since: Duration,
    next: Duration,
    pause: Duration,
}

impl<A: DmaSpace> LaneWorker<A> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        index: usize,
        dma: Dma<A>,
        clock: Arc<dyn Clock>,
        timer: Box<dyn Timer>,
        sender: Box<dyn NetSender>,
        receiver: Box<dyn NetReceiver>,
    ) -> Self {
        let lane = Lane {
            index,
            dma,
            clock,
            timer,
            sender,
            receiver,
            builder: Builder::new(),
            inbox: Inbox::new(),
            epoch: 0,
            turn: 0,
            busy: false,
            held: 0,
            settle: None,
            starving: None,
            net: NetStatistics::default(),
            copied: 0,
            waits: Waits::default(),
        };
        Self { shared, lane }
    }

    fn bell(&self) -> Option<&Bell> {
        self.shared.bell(self.lane.index)
    }
}

impl<A: DmaSpace> Worker for LaneWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let Lane { timer, sender, receiver, .. } = &self.lane;
        self.bell()
            .map(Bell::source)
            .into_iter()
            .chain([timer.source()])
            .chain(sender.sources())
            .chain(receiver.sources())
            .collect()
    }

    fn service(&mut self) -> Progress {
        if let Some(bell) = self.bell() {
            bell.answer();
        }
        let Self { shared, lane } = self;
        // What has expired is seen by the clock; this makes the timer quiet.
        let _ = lane.timer.fired();
        let state = shared.state();
        let (Some(active), Some(memory)) = (&state.active, lane.dma.memory()) else {
            return Progress::Idle;
        };
        lane.service(shared, active, &memory)
    }

    fn prepare_to_wait(&mut self) -> Progress {
        if self.bell().is_some_and(Bell::sleep) {
            return Progress::More;
        }
        let progress = {
            let Self { shared, lane } = self;
            let state = shared.state();
            match (&state.active, lane.dma.memory()) {
                (Some(active), Some(memory)) => lane.prepare_to_wait(shared, active, &memory),
                // The bell tells of a change.
                _ => lane.wait_for([false; 2]),
            }
        };
        if progress == Progress::More
            && let Some(bell) = self.bell()
        {
            bell.stay();
        }
        progress
    }

    /// Nothing is ever in flight between two rounds but counts that have not been told.
    fn quiesce(&mut self) -> Progress {
        let _ = self.lane.wait_for([false; 2]);
        self.lane.tell(&self.shared);
        Progress::Idle
    }
}

impl<A: DmaSpace> Lane<A> {
    /// Forgets what was of another activation.
    fn enter(&mut self, active: &Active) {
        if self.epoch != active.epoch {
            self.epoch = active.epoch;
            self.inbox.clear();
            self.turn = 0;
            self.busy = false;
            self.held = 0;
            self.settle = None;
            self.starving = None;
        }
    }

    /// Whether frames are received by this lane.
    fn receives(&self, shared: &Shared, active: &Active) -> bool {
        shared.link_up() && self.index < active.rx.len()
    }

    /// A round of work.
    fn service(&mut self, shared: &Shared, active: &Active, memory: &Memory<A>) -> Progress {
        self.enter(active);
        let mut progress = Progress::Idle;
        let mut events = Events::empty();
        if self.index == 0 {
            events = shared.take_news();
            self.held |= shared.take_held();
        }
        self.transmit(shared, active, memory, &mut progress, &mut events);
        if self.receives(shared, active) {
            self.receive(shared, active, memory, &mut progress, &mut events);
        }
        if !events.is_empty() {
            progress = Progress::More;
            if active.tell(memory, &shared.irq, events) {
                self.held |= bit(active.event_intr);
            }
        }
        self.expire(shared);
        if progress == Progress::More || self.busy {
            self.tell(shared);
        }
        progress
    }

    /// Sends what is in the transmit queues, in turn.
    fn transmit(
        &mut self,
        shared: &Shared,
        active: &Active,
        memory: &Memory<A>,
        progress: &mut Progress,
        events: &mut Events,
    ) {
        self.busy = false;
        let link = shared.link_up();
        let mut budget = Budget::new();
        let queues = active.tx.len().saturating_sub(self.index).div_ceil(shared.lanes());
        // One after the other is the first to be looked at.
        self.turn = self.turn.checked_rem(queues).unwrap_or(0);
        let order = (self.turn..queues).chain(0..self.turn);
        self.turn += 1;
        for number in order {
            let index = self.index + number * shared.lanes();
            let Some(queue) = active.tx.get(index).filter(|_| !budget.is_spent()) else { continue };
            let mut queue = lock(queue);
            let mut counts = Counts::default();
            let longest = active.longest;
            let mut out = Out { link, longest, counts: &mut counts, net: &mut self.net };
            let Self { builder, sender, .. } = self;
            let round = queue.service(memory, &mut budget, builder, &mut out, &mut **sender);
            shared.statistics.add_transmit(index, &mut counts);
            if round.packets != 0 || round.failed {
                *progress = Progress::More;
            }
            if round.failed {
                *events |= Events::TQERR;
            }
            if round.completions != 0 {
                let work = Work { tx: round.completions, ..Work::default() };
                self.raise(shared, queue.intr(), work);
            }
            self.busy |= round.busy;
        }
    }

    /// Takes what the backend has received.
    fn receive(
        &mut self,
        shared: &Shared,
        active: &Active,
        memory: &Memory<A>,
        progress: &mut Progress,
        events: &mut Events,
    ) {
        let terms = Terms { active, mac: shared.mac(), queue: self.index };
        let Self { inbox, receiver, net, .. } = self;
        let round = inbox.service(memory, shared, &terms, &mut **receiver, net);
        if round.any {
            *progress = Progress::More;
        }
        if round.failed {
            *events |= Events::RQERR;
        }
        for (queue, packets) in active.rx.iter().zip(round.packets) {
            if packets != 0 {
                let intr = lock(queue).intr();
                self.raise(shared, intr, Work { rx: packets, ..Work::default() });
            }
        }
        let Some(starving) = self.starving else { return };
        if round.any {
            // Buffers came, if not enough; for what is there now it begins anew.
            self.starving = None;
        } else if self.inbox.is_holding()
            && self.clock.now() >= starving.since.saturating_add(PATIENCE)
        {
            self.inbox.give_up(shared, &mut self.net);
            self.starving = None;
            *progress = Progress::More;
        }
    }

    fn raise(&mut self, shared: &Shared, intr: u8, work: Work) {
        if shared.irq.raise(intr, work) {
            self.held |= bit(intr);
        }
    }

    /// Sends interrupts whose time has come.
    fn expire(&mut self, shared: &Shared) -> Option<Duration> {
        if self.held == 0 {
            return None;
        }
        let (held, next) = shared.irq.expire(self.held);
        self.held = held;
        next
    }

    /// Tells what was counted.
    fn tell(&mut self, shared: &Shared) {
        let copied = self.sender.copied_bytes().wrapping_add(self.receiver.copied_bytes());
        let more = copied.wrapping_sub(std::mem::replace(&mut self.copied, copied));
        self.net.copied_bytes = self.net.copied_bytes.wrapping_add(more);
        shared.counters.add(&mut self.net);
    }

    /// Arms what is to wake the worker. [`Progress::More`]: there is something to do already.
    fn prepare_to_wait(
        &mut self,
        shared: &Shared,
        active: &Active,
        memory: &Memory<A>,
    ) -> Progress {
        self.enter(active);
        let now = self.clock.now();
        let mut progress = Progress::Idle;
        if self.settle.is_some_and(|settle| settle <= now) {
            self.settle = None;
        }
        if !self.busy {
            for queue in active.tx.iter().skip(self.index).step_by(shared.lanes()) {
                let (packet, silenced) = lock(queue).listen(memory);
                if packet {
                    progress = Progress::More;
                }
                if silenced {
                    self.settle = Some(now.saturating_add(SETTLE));
                }
            }
        }
        let hunger = match self.receives(shared, active) {
            true => self.starves(active, memory, now),
            false => Hunger::Stopped,
        };
        let receive = match hunger {
            Hunger::Fed => {
                self.starving = None;
                if self.inbox.is_holding() {
                    progress = Progress::More;
                }
                true
            }
            Hunger::Starving => false,
            Hunger::Stopped => {
                self.starving = None;
                false
            }
        };
        progress = progress.or(self.wait_for([self.busy, receive]));
        let interrupts = self.expire(shared);
        let next = self.starving.map(|starving| starving.next);
        let deadline = interrupts.into_iter().chain(self.settle).chain(next).min();
        if let Some(deadline) = deadline {
            let delay = deadline.saturating_sub(now);
            if delay.is_zero() {
                progress = Progress::More;
            } else {
                self.timer.set(delay);
            }
        } else if self.timer.is_set() {
            self.timer.cancel();
        }
        progress
    }

    /// Whether the receive queue lacks buffers for what may come. If so, the driver has been asked to
    /// ring.
    fn starves(&mut self, active: &Active, memory: &Memory<A>, now: Duration) -> Hunger {
        let Some(queue) = active.rx.get(self.index) else { return Hunger::Stopped };
        if !active.waits_for_buffers() {
            // Frames for which there is no buffer are lost.
            return Hunger::Fed;
        }
        let mut queue = lock(queue);
        if queue.stopped().is_some() {
            return Hunger::Stopped;
        }
        let most = active.most_buffers;
        if self.inbox.finds_room(&mut queue, memory, most) {
            // It need not ring.
            queue.listen(memory, false);
            return Hunger::Fed;
        }
        queue.listen(memory, true);
        if self.inbox.finds_room(&mut queue, memory, most) {
            queue.listen(memory, false);
            return Hunger::Fed;
        }
        let starving = self.starving.get_or_insert(Starving {
            since: now,
            next: now.saturating_add(LOOK_FIRST),
            pause: LOOK_FIRST,
        });
        if starving.next <= now {
            starving.pause = starving.pause.saturating_mul(2).min(LOOK_LAST);
            starving.next = now.saturating_add(starving.pause);
        }
        Hunger::Starving
    }

    /// Asks the sender, and the receiver, to wake the worker, or takes that back.
    fn wait_for(&mut self, [send, receive]: [bool; 2]) -> Progress {
        let Self { waits, sender, receiver, .. } = self;
        waits.set((&mut **sender, send), (&mut **receiver, receive))
    }
}

/// Whether a receive queue has buffers.
enum Hunger {
    Fed,
    Starving,
    /// Nothing is received.
    Stopped,
}
