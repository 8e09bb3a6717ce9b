//! The engine: what takes requests from the ring to the target, and back.
//!
//! A round of its work is bounded and done under its lock. The worker does rounds, and so does a vCPU
//! whose command has to end requests before its register write is over; neither waits for the other
//! for longer than a round. Between two rounds nothing is under way but what the target has. So whoever
//! takes the lock and forgets the rings may be sure that they are not touched any more.

mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use paraslot_device::{Dma, DmaSpace, Memory, Progress};
use paraslot_scsi::{Address, Bus, Completion, Lane, Outcome};
use paraslot_spec::pvscsi::{
    Intr, MAX_RING_PAGES, MessageDescriptor, REQUESTS_PER_PAGE, RequestDescriptor, SetupMsgRing,
    SetupRings, message,
};

use crate::gather::MOST_ELEMENTS;
use crate::request::{Context, Over, lun_bytes, parse};
use crate::rings::{KICK_ALWAYS, KICK_NEVER, Lost, Rings};
use crate::shared::{Change, Shared};
pub(crate) use state::EngineState;

/// Most requests in flight: as many as the longest ring holds.
pub(crate) const DEPTH: u32 = 32 * REQUESTS_PER_PAGE;
const _: () = assert!(MAX_RING_PAGES == 32);
/// Most requests that are taken in one round. The driver is told of completions once in each, so this
/// is a bound on how long the first waits for the last.
const BATCH: u32 = 64;
/// Pieces of guest memory of the requests in flight above which no further one is taken, and elements
/// that are looked at above which nothing more is in one go: as many as a driver like Linux's has at
/// most, with 128 to a request.
const MOST_SEGMENTS: usize = 128 * 1024;
/// How often the ring is looked at, after the driver was asked to kick again, before the worker sleeps.
///
/// Drivers put a request there and then look whether to kick, without a barrier in between (Linux's
/// pvscsi_queue_ring and pvscsi_kick_io): on x86 the first can still be in the store buffer when they
/// do the second. This is about ten microseconds, in which it is long since there to be seen.
const LAST_LOOKS: u32 = 256;

/// How much a round may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A batch.
    Batch,
    /// All that is there.
    All,
    /// All that is there, and nobody is interrupted.
    AllQuietly,
    /// Nothing.
    Nothing,
}

/// A request with the target.
struct Slot {
    context: Context,
    segments: usize,
    /// A reset has overtaken it: nobody is to hear of its end.
    silent: bool,
}

/// The rings, and all requests that have been taken from them.
pub(crate) struct Engine<A: DmaSpace> {
    shared: Arc<Shared>,
    dma: Dma<A>,
    bus: Bus,
    lane: Lane,
    rings: Option<Rings>,
    /// By token.
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Requests that are over, of which the driver has not been told, the oldest first.
    over: VecDeque<Over>,
    completions: Vec<Completion>,
    /// Pieces of guest memory of the requests with the target.
    segments: usize,
    /// Slots of requests that the driver waits for.
    live: u32,
    /// The driver goes by the threshold.
    threshold: bool,
    /// The worker has taken a request since it slept last.
    busy: bool,
    paused: bool,
    /// Power was switched on; the units hear of it when nothing is in flight any more.
    power_on: bool,
}

impl<A: DmaSpace> Engine<A> {
    pub(crate) fn new(shared: Arc<Shared>, dma: Dma<A>, bus: Bus, lane: Lane) -> Self {
        Self {
            shared,
            dma,
            bus,
            lane,
            rings: None,
            slots: std::iter::repeat_with(|| None).take(DEPTH as usize).collect(),
            free: (0..DEPTH).rev().collect(),
            over: VecDeque::new(),
            completions: Vec::new(),
            segments: 0,
            live: 0,
            threshold: false,
            busy: false,
            paused: false,
            power_on: false,
        }
    }

    /// What wakes the worker when the target has something.
    pub(crate) fn source(&self) -> paraslot_device::Source {
        self.lane.source()
    }

    /// Guest memory, if it may be touched.
    pub(crate) fn memory(&self) -> Option<Memory<A>> {
        if self.paused { None } else { self.dma.memory() }
    }

    pub(crate) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// SETUP_RINGS. What was in flight for rings of before is forgotten.
    pub(crate) fn set_up_rings(&mut self, setup: &SetupRings) -> bool {
        self.forget();
        let Some(memory) = self.memory() else { return false };
        self.rings = Rings::new(&memory, setup, self.threshold);
        self.rings.is_some()
    }

    /// SETUP_MSG_RING.
    pub(crate) fn set_up_messages(&mut self, setup: &SetupMsgRing) -> bool {
        let (Some(memory), Some(rings)) = (self.memory(), &mut self.rings) else { return false };
        let done = rings.set_up_messages(&memory, setup);
        // What happened before, the driver finds when it looks for devices.
        self.shared.want_news(rings.has_messages());
        done
    }

    /// SETUP_REQCALLTHRESHOLD. It outlives the rings: a driver that has asked for it does not ask again
    /// when it sets them up anew.
    pub(crate) fn use_threshold(&mut self, wanted: bool) {
        self.threshold = wanted;
        if let Some(memory) = self.memory() {
            self.with_rings(|rings| rings.use_threshold(&memory, wanted));
        }
    }

    /// Forgets the rings and every request: what is with the target ends unheard of.
    pub(crate) fn forget(&mut self) {
        self.rings = None;
        self.over.clear();
        self.live = 0;
        for slot in self.slots.iter_mut().flatten() {
            slot.silent = true;
        }
        self.shared.want_news(false);
    }

    /// Tells the driver that requests for `unit`, or for all, were ended by a reset, although they have
    /// yet to end. Nobody hears of them any more when they do.
    pub(crate) fn give_up(&mut self, unit: Option<Address>) {
        for (token, slot) in (0..).zip(&mut self.slots) {
            let Some(slot) = slot.as_mut().filter(|slot| !slot.silent) else { continue };
            if unit.is_none_or(|unit| unit == slot.context.address) {
                slot.silent = true;
                self.live = self.live.saturating_sub(1);
                let end = Completion { token, outcome: Outcome::Reset, moved: 0 };
                self.over.push_back(Over::new(slot.context, end));
            }
        }
        let _ = self.round(Extent::Nothing);
    }

    /// Forgets everything; the units hear of it as soon as nothing is in flight any more.
    pub(crate) fn power_on(&mut self) {
        self.forget();
        self.threshold = false;
        self.busy = false;
        self.power_on = true;
        self.finish_reset();
    }

    /// Whether the driver has been told of all that is over.
    pub(crate) fn has_told(&self) -> bool {
        self.over.is_empty()
    }

    /// Requests with the target.
    pub(crate) fn in_flight(&self) -> usize {
        self.lane.in_flight()
    }

    /// Takes all that is there, and finds a request by the driver's name for it.
    pub(crate) fn find(&mut self, context: u64, target: u8) -> Option<Address> {
        let memory = self.memory()?;
        self.take(&memory, u32::MAX);
        let mut live = self.slots.iter().flatten().filter(|slot| !slot.silent);
        live.find(|slot| slot.context.context == context && slot.context.address.target == target)
            .map(|slot| slot.context.address)
    }

    /// A round of work.
    pub(crate) fn round(&mut self, extent: Extent) -> Progress {
        let mut progress = self.collect();
        let memory = self.memory();
        // Looked at before the ring: what was there when the order was given is taken, and obeys.
        let ordered = self.lane.ordered();
        let most = match extent {
            Extent::Batch if ordered => u32::MAX,
            Extent::Batch => BATCH,
            Extent::All | Extent::AllQuietly => u32::MAX,
            Extent::Nothing => 0,
        };
        if let Some(memory) = &memory
            && most != 0
            && self.take(memory, most)
        {
            progress = true;
            if extent == Extent::Batch {
                self.keep_looking(memory);
            }
        }
        if ordered {
            self.lane.obey();
            progress = true;
        }
        if progress {
            self.lane.commit();
            self.collect();
        }
        let mut causes = Intr::empty();
        if let Some(memory) = &memory {
            if self.tell(memory) {
                causes |= Intr::CMPL_0;
                progress = true;
            }
            if self.shared.has_news() && self.tell_news(memory) {
                causes |= Intr::MSG_0;
            }
        }
        if extent != Extent::AllQuietly {
            self.shared.irq.raise(causes);
        }
        // Even if the driver leaves no room to be told: those who wait may be others than it.
        self.lane.settle();
        self.finish_reset();
        if progress { Progress::More } else { Progress::Idle }
    }

    /// A round that takes nothing. [`Progress::More`] while the target has requests, or there is
    /// something that the driver can be told.
    pub(crate) fn quiesce(&mut self) -> Progress {
        self.lane.hurry();
        let _ = self.round(Extent::Nothing);
        let told = match (&self.rings, self.memory()) {
            (Some(rings), Some(memory)) => {
                self.over.is_empty() || rings.room(&memory).unwrap_or(0) == 0
            }
            _ => true,
        };
        if self.lane.is_quiet() && told { Progress::Idle } else { Progress::More }
    }

    /// The worker goes to sleep: has the driver kick, and looks again. [`Progress::More`]: there is
    /// something to do.
    pub(crate) fn prepare_to_wait(&mut self) -> Progress {
        let more = self.lane.prepare_to_wait() || self.last_look();
        if more {
            return Progress::More;
        }
        self.busy = false;
        Progress::Idle
    }

    fn last_look(&mut self) -> bool {
        let Some(memory) = self.memory() else { return false };
        let lowered = self.with_rings(|rings| rings.set_threshold(&memory, KICK_ALWAYS));
        self.shared.crowded.store(true, Ordering::SeqCst);
        // One order with the driver's: what it put there before it saw the threshold, and what it
        // took before it wrote INTR_STATUS, is seen here.
        fence(Ordering::SeqCst);
        let looks = if lowered == Some(true) { LAST_LOOKS } else { 1 };
        for _ in 0..looks {
            if self.has_work(&memory) {
                return true;
            }
            std::hint::spin_loop();
        }
        let crowded = self.is_crowded(&memory);
        self.shared.crowded.store(crowded, Ordering::SeqCst);
        self.shared.has_news()
            && self.with_rings(|rings| rings.message_room(&memory)).unwrap_or(0) != 0
    }

    /// Whether anything could be taken or told.
    fn has_work(&mut self, memory: &Memory<A>) -> bool {
        self.takeable(memory) != 0
            || !self.over.is_empty()
                && self.with_rings(|rings| rings.room(memory)).unwrap_or(0) != 0
    }

    /// Whether something cannot be taken or told before the driver takes completions.
    fn is_crowded(&mut self, memory: &Memory<A>) -> bool {
        let looked = self.with_rings(|rings| Ok((rings.available(memory)?, rings.room(memory)?)));
        let owed = self.owed();
        looked.is_some_and(|(available, room)| {
            !self.over.is_empty() || available != 0 && room <= owed
        })
    }

    /// Completions that the requests which have been taken will need.
    fn owed(&self) -> u32 {
        self.live.saturating_add(u32::try_from(self.over.len()).unwrap_or(u32::MAX))
    }

    /// How many requests could be taken now. Each has a place for its completion.
    fn takeable(&mut self, memory: &Memory<A>) -> u32 {
        let available = self.with_rings(|rings| rings.available(memory)).unwrap_or(0);
        if available == 0 || self.segments >= MOST_SEGMENTS {
            return 0;
        }
        let room = self.with_rings(|rings| rings.room(memory)).unwrap_or(0);
        let free = u32::try_from(self.free.len()).unwrap_or(u32::MAX);
        available.min(room.saturating_sub(self.owed())).min(free)
    }

    /// Takes requests, `most` at most, and fewer if they are long. Says whether there were any.
    fn take(&mut self, memory: &Memory<A>, most: u32) -> bool {
        let count = self.takeable(memory).min(most);
        if count == 0 {
            return false;
        }
        let enough = if most > BATCH { MOST_SEGMENTS } else { MOST_ELEMENTS };
        let mut looked = 0;
        for _ in 0..count {
            if self.segments >= MOST_SEGMENTS || looked >= enough {
                break;
            }
            let Some(request) = self.with_rings(|rings| rings.take(memory)) else { break };
            self.begin(memory, &request, &mut looked);
        }
        self.with_rings(|rings| rings.publish_taken(memory));
        true
    }

    /// The worker, and nobody else, has taken requests. One that finds some again and again without
    /// sleeping needs no kicks.
    fn keep_looking(&mut self, memory: &Memory<A>) {
        if std::mem::replace(&mut self.busy, true) {
            self.with_rings(|rings| rings.set_threshold(memory, KICK_NEVER));
        }
    }

    fn begin(&mut self, memory: &Memory<A>, request: &RequestDescriptor, looked: &mut usize) {
        let context = Context::new(request);
        let Some(token) = self.free.pop() else { return };
        match parse(memory, request, token.into(), looked) {
            Ok(command) => {
                let segments = command.data.host_ranges().len();
                self.segments += segments;
                self.live += 1;
                if let Some(place) = self.slots.get_mut(token as usize) {
                    *place = Some(Slot { context, segments, silent: false });
                }
                self.lane.submit(command);
            }
            Err(status) => {
                self.free.push(token);
                self.over.push_back(Over::refused(context, status));
            }
        }
    }

    /// Takes what the target has ended. Says whether there was anything.
    fn collect(&mut self) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        self.lane.complete(&mut completions);
        let any = !completions.is_empty();
        for completion in completions.drain(..) {
            let Ok(token) = u32::try_from(completion.token) else { continue };
            let slot = self.slots.get_mut(token as usize).and_then(Option::take);
            let Some(Slot { context, segments, silent }) = slot else { continue };
            self.free.push(token);
            self.segments = self.segments.saturating_sub(segments);
            if !silent {
                self.live = self.live.saturating_sub(1);
                self.over.push_back(Over::new(context, completion));
            }
        }
        self.completions = completions;
        any
    }

    /// Tells the driver of requests that are over, as far as there is room. Says whether there were any.
    fn tell(&mut self, memory: &Memory<A>) -> bool {
        if self.over.is_empty() {
            return false;
        }
        let Some(room) = self.with_rings(|rings| rings.room(memory)) else { return false };
        let count = self.over.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if count == 0 {
            return false;
        }
        for _ in 0..count {
            let Some(over) = self.over.pop_front() else { break };
            let descriptor = over.tell(memory, &self.bus);
            self.with_rings(|rings| rings.complete(memory, &descriptor));
        }
        self.with_rings(|rings| rings.publish_completions(memory)).is_some()
    }

    /// Tells the driver of units that came and went, as far as there is room. Says whether any did.
    fn tell_news(&mut self, memory: &Memory<A>) -> bool {
        let mut told = false;
        while self.with_rings(|rings| rings.message_room(memory)).unwrap_or(0) != 0 {
            let Some(Change { address, attached }) = self.shared.next_news() else { break };
            let kind = if attached { message::DEVICE_ADDED } else { message::DEVICE_REMOVED };
            let mut descriptor = MessageDescriptor::default();
            descriptor.kind.set(kind);
            descriptor.target.set(address.target.into());
            descriptor.lun = lun_bytes(address.lun);
            told |= self.with_rings(|rings| rings.tell(memory, &descriptor)).is_some();
        }
        told
    }

    /// Uses the rings, if they are there. If they turn out not to be in guest memory, they are
    /// forgotten: there is no way to tell the driver anything any more.
    fn with_rings<T>(&mut self, f: impl FnOnce(&mut Rings) -> Result<T, Lost>) -> Option<T> {
        match f(self.rings.as_mut()?) {
            Ok(value) => Some(value),
            Err(Lost) => {
                self.forget();
                None
            }
        }
    }

    fn finish_reset(&mut self) {
        if self.power_on && self.lane.in_flight() == 0 {
            self.power_on = false;
            self.bus.power_on();
        }
    }
}
