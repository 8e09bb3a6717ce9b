//! A receive queue's loop (5.1.9.4).
//!
//! Where a frame goes is decided by what is known of its length before it is received: nothing. With
//! room for the longest that may come, it is received into the driver's buffers in place; frames
//! that the driver turns out not to want leave the buffers to the next one, with bytes in them that
//! the driver does not look at. With less room, or when a hash decides on the queue, it is received
//! into host memory and waits in an [`Inbox`](crate::inbox::Inbox) for the buffers that it needs.

mod buffers;
mod saved;

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::net::parse::{HEADERS, Headers};
use paraslot_backends::net::{
    MAX_FRAME, NetError, NetReceiver, NetStatistics, Offloads, Received, Room,
};
use paraslot_device::{DeviceError, DmaSpace, Memory, Progress, Source, Timer, Worker};
use paraslot_spec::net::{ETHERNET_HEADER, ETHERNET_MTU, VLAN_TAG};
use paraslot_spec::virtio_net::{HashHeader, feature};
use paraslot_virtio::Queue;

use crate::coalesce::Coalescer;
use crate::filter::{LOOKED_AT, link_header_len};
use crate::header::{header_len, receive_header};
use crate::inbox::{Arrival, Fate, Hash};
use crate::shared::{Port, Shared};
use crate::state::State;
use buffers::Buffers;

/// Most frames that are received in one call of `service`.
const BATCH: usize = 64;
/// Most frames that are thrown away because they came when nobody was to receive them.
const STALE: u32 = 4096;
/// How long a frame waits for buffers that it needs more of than the driver has made available. A
/// driver that is only slow is faster than that; one that never has enough would hold up all other
/// frames.
const PATIENCE: Duration = Duration::from_millis(20);

/// Takes frames from one of the backend's queues to receive queues.
pub(crate) struct ReceiveWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    port: Arc<Port>,
    way: Way<A>,
}

/// The worker without what it shares.
struct Way<A: DmaSpace> {
    pair: u16,
    queue: Queue<A>,
    receiver: Box<dyn NetReceiver>,
    /// The receiver has been asked for a wake-up, and not for anything else since.
    asked: bool,
    buffers: Buffers,
    /// For frames that are received into host memory; made when the first is.
    scratch: Vec<u8>,
    /// Frames that may still be there and are not for this driver.
    stale: u32,
    /// The first frame in the inbox needs more buffers.
    short: bool,
    patience: Box<dyn Timer>,
    coalescer: Coalescer,
    tally: NetStatistics,
    /// Of the receiver's copies, those that were counted.
    copied: u64,
}

/// How an attempt at a frame ended.
enum Step {
    /// The driver has it.
    Delivered,
    /// It is gone or under way.
    Handled,
    /// There is none, or nothing to put it into.
    Nothing,
}

impl<A: DmaSpace> ReceiveWorker<A> {
    /// `restarted`: the queue has had a worker since the last reset of the device.
    pub(crate) fn new(
        shared: Arc<Shared>,
        port: Arc<Port>,
        pair: u16,
        queue: Queue<A>,
        restarted: bool,
    ) -> Result<Self, DeviceError> {
        let receiver = shared.backend.open_receiver(pair).map_err(DeviceError::Backend)?;
        let coalescer = Coalescer::new(shared.limits.clock.clone())?;
        let patience = shared.limits.clock.timer().map_err(DeviceError::Worker)?;
        let features = queue.features();
        let mergeable = features & feature::MRG_RXBUF != 0;
        let way = Way {
            pair,
            buffers: Buffers::new(header_len(features), mergeable, queue.size()),
            queue,
            receiver,
            asked: false,
            scratch: Vec::new(),
            stale: if restarted { STALE } else { 0 },
            short: false,
            patience,
            coalescer,
            tally: NetStatistics::default(),
            copied: 0,
        };
        port.inbox.open();
        shared.set_running(2 * pair, true);
        Ok(Self { shared, port, way })
    }
}

impl<A: DmaSpace> Drop for ReceiveWorker<A> {
    fn drop(&mut self) {
        self.way.count(&self.port);
        self.port.inbox.close();
        self.shared.set_running(2 * self.way.pair, false);
    }
}

/// What a round of work looks at.
struct Round<'a, A: DmaSpace> {
    shared: &'a Shared,
    port: &'a Port,
    state: &'a State,
    memory: &'a Memory<A>,
}

impl<A: DmaSpace> Round<'_, A> {
    /// Bytes of the longest frame that may come (5.1.9.3).
    fn longest(&self) -> usize {
        let segmented =
            Offloads::TSO4 | Offloads::TSO6 | Offloads::UFO | Offloads::USO4 | Offloads::USO6;
        if self.state.offloads.intersects(segmented) {
            return MAX_FRAME;
        }
        let mtu = self.shared.limits.mtu.map_or(ETHERNET_MTU, usize::from).max(ETHERNET_MTU);
        mtu + ETHERNET_HEADER + 2 * VLAN_TAG
    }

    /// Whether a frame of this length and start is longer than the driver has been promised
    /// (5.1.4.1).
    fn exceeds_mtu(&self, received: &Received, head: &[u8]) -> bool {
        let Some(limit) = self.mtu() else { return false };
        let whole = received.offload.segmentation.is_none();
        whole
            && received.len > limit + ETHERNET_HEADER
            && received.len > limit + link_header_len(head)
    }

    /// Largest IP packet, if the driver has been promised one.
    fn mtu(&self) -> Option<usize> {
        let promised = self.state.features & feature::MTU != 0;
        self.shared.limits.mtu.filter(|_| promised).map(usize::from)
    }

    /// How many of a frame's first bytes have to be looked at.
    fn looks_at(&self, len: usize) -> usize {
        if self.state.hashing.is_some() {
            HEADERS
        } else if !self.state.filter.is_open()
            || self.mtu().is_some_and(|mtu| len > mtu + ETHERNET_HEADER)
        {
            LOOKED_AT + VLAN_TAG
        } else {
            0
        }
    }
}

impl<A: DmaSpace> Way<A> {
    /// Whether the driver is to get a frame that starts like this; counts why not.
    fn admit(&mut self, round: &Round<'_, A>, received: &Received, head: &[u8]) -> bool {
        if received.len < ETHERNET_HEADER {
            self.tally.receive_errors += 1;
        } else if !round.state.filter.passes(head) {
            self.tally.filtered += 1;
        } else if round.exceeds_mtu(received, head) {
            self.tally.received_too_long += 1;
        } else {
            return true;
        }
        false
    }

    /// Gives the driver the frame that lies in its buffers. Lost if it makes no sense, or has more
    /// left to be done than the driver takes now.
    fn deliver(&mut self, round: &Round<'_, A>, arrival: &Arrival) -> Step {
        let Ok(header) = receive_header(&arrival.offload, round.state.offloads, arrival.len) else {
            self.tally.receive_errors += 1;
            return Step::Handled;
        };
        let header = HashHeader::new(header, arrival.hash.value, arrival.hash.report);
        if !self.buffers.give(&mut self.queue, round.memory, header, arrival.len) {
            return Step::Nothing;
        }
        self.tally.received_frames += 1;
        self.tally.received_bytes += arrival.len as u64;
        Step::Delivered
    }

    /// Receives a frame in place.
    fn receive_in_place(&mut self, round: &Round<'_, A>) -> Step {
        self.asked = false;
        let received = match self.receiver.receive(Room::Guest(self.buffers.room())) {
            Ok(Some(received)) => received,
            Ok(None) => return Step::Nothing,
            Err(error) => return self.lost(&error),
        };
        if received.len > self.buffers.room().len() {
            return self.lost(&NetError::TooLong);
        }
        // Read once; should the driver change its buffers now, it misleads no one but itself.
        let mut head = [0; HEADERS];
        let head = &mut head[..round.looks_at(received.len).min(received.len)];
        self.buffers.room().copy_to(head);
        if !self.admit(round, &received, head) {
            return Step::Handled;
        }
        let hash = hash(round, head);
        self.deliver(round, &Arrival { len: received.len, offload: received.offload, hash })
    }

    /// Receives a frame into host memory, and sends it to the inbox of its queue.
    fn receive_aside(&mut self, round: &Round<'_, A>) -> Step {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(MAX_FRAME, 0);
        self.asked = false;
        let step = match self.receiver.receive(Room::Host(&mut scratch)) {
            Ok(Some(received)) => match scratch.get(..received.len) {
                Some(frame) => self.dispatch(round, &received, frame),
                None => self.lost(&NetError::TooLong),
            },
            Ok(None) => Step::Nothing,
            Err(error) => self.lost(&error),
        };
        self.scratch = scratch;
        step
    }

    fn dispatch(&mut self, round: &Round<'_, A>, received: &Received, frame: &[u8]) -> Step {
        let head = &frame[..frame.len().min(HEADERS)];
        if !self.admit(round, received, head) {
            return Step::Handled;
        }
        let hash = hash(round, head);
        let arrival = Arrival { len: frame.len(), offload: received.offload, hash };
        let scaling = round.state.scaling(self.pair);
        let target = scaling.map_or(self.pair, |rss| rss.target(hash));
        if target == self.pair
            && round.port.inbox.is_empty()
            && let Some(step) = self.copy(round, &arrival, frame)
        {
            return step;
        }
        // A queue that is being reset lets nothing in (5.1.9.5.7.3).
        let port = round.shared.port(2 * target);
        match port.map(|port| (port, port.inbox.put(arrival, frame))) {
            Some((port, Ok(wake))) => {
                if wake && target != self.pair {
                    port.ring();
                }
            }
            _ => self.tally.no_guest_buffers += 1,
        }
        Step::Handled
    }

    /// Copies a frame to the driver's buffers, if there are enough, and gives it to the driver.
    fn copy(&mut self, round: &Round<'_, A>, arrival: &Arrival, frame: &[u8]) -> Option<Step> {
        self.buffers.gather(&mut self.queue, round.memory, arrival.len);
        if arrival.len > self.buffers.room().len() {
            return None;
        }
        self.buffers.fill(frame);
        self.tally.copied_bytes += arrival.len as u64;
        Some(self.deliver(round, arrival))
    }

    /// Gives the driver the first frame of the inbox.
    fn deliver_waiting(&mut self, round: &Round<'_, A>) -> Step {
        let mut step = Step::Nothing;
        let fate = round.port.inbox.first(|arrival, frame| {
            if let Some(done) = self.copy(round, arrival, frame) {
                step = done;
                return Fate::Gone;
            }
            // More buffers than the driver can have here, or will.
            if !self.buffers.can_grow() {
                self.tally.received_too_long += 1;
            } else if self.patience.fired() {
                self.tally.no_guest_buffers += 1;
            } else {
                return Fate::Waits;
            }
            step = Step::Handled;
            Fate::Gone
        });
        self.short = fate == Some(Fate::Waits);
        if self.short {
            if !self.patience.is_set() {
                self.patience.set(PATIENCE);
            }
        } else if self.patience.is_set() {
            self.patience.cancel();
        }
        step
    }

    fn lost(&mut self, error: &NetError) -> Step {
        self.tally.count_receive_error(error);
        Step::Handled
    }

    /// The next frame, wherever it is.
    fn step(&mut self, round: &Round<'_, A>, longest: usize) -> Step {
        if self.queue.is_broken() {
            return Step::Nothing;
        }
        let scaling = round.state.scaling(self.pair).is_some();
        if !round.port.inbox.is_empty() {
            let step = self.deliver_waiting(round);
            // While one waits here, the queue's own wait with the backend; others' go on.
            if !self.short || !scaling {
                return step;
            }
        }
        if scaling {
            return self.receive_aside(round);
        }
        self.buffers.gather(&mut self.queue, round.memory, longest);
        if self.buffers.is_empty() {
            Step::Nothing
        } else if self.buffers.room().len() >= longest || !self.buffers.can_grow() {
            self.receive_in_place(round)
        } else {
            self.receive_aside(round)
        }
    }

    /// Throws away what came when nobody was to receive it; `false` when it is all gone.
    fn discard_stale(&mut self) -> bool {
        self.scratch.resize(MAX_FRAME, 0);
        self.asked = false;
        for _ in 0..BATCH {
            self.stale = self.stale.saturating_sub(1);
            match self.receiver.receive(Room::Host(&mut self.scratch)) {
                Ok(Some(_)) | Err(_) => self.tally.receive_errors += 1,
                Ok(None) => self.stale = 0,
            }
            if self.stale == 0 {
                return false;
            }
        }
        true
    }

    /// A round of work; returns how many frames the driver got, and whether there was anything.
    fn receive(&mut self, round: &Round<'_, A>) -> (u32, bool) {
        if !round.state.link || !round.state.receives(self.pair) {
            if !round.state.link {
                self.stale = STALE;
            }
            self.tally.receive_errors += round.port.inbox.clear() as u64;
            self.short = false;
            return (0, false);
        }
        if self.stale != 0 && self.discard_stale() {
            return (0, true);
        }
        self.buffers.refresh(&mut self.queue, round.memory);
        let longest = round.longest();
        let (mut frames, mut any) = (0, false);
        for _ in 0..BATCH {
            match self.step(round, longest) {
                Step::Delivered => frames += 1,
                Step::Handled => {}
                Step::Nothing => break,
            }
            any = true;
        }
        (frames, any)
    }

    /// Asks for wake-ups before the worker sleeps: what came in between, and whether the receiver is to
    /// be asked too.
    fn wait(&mut self, state: &State, port: &Port, memory: &Memory<A>) -> (Progress, bool) {
        if !state.link || !state.receives(self.pair) || self.queue.is_broken() {
            // The bell tells of a change.
            return (Progress::Idle, false);
        }
        if port.inbox.arm() && !self.short {
            return (Progress::More, false);
        }
        // A frame that is first looked at needs no buffer before it is known whose it is.
        let scaling = state.scaling(self.pair).is_some();
        let lacking = self.short || (self.buffers.is_empty() && !scaling);
        if lacking && self.buffers.ask(&mut self.queue, memory) {
            return (Progress::More, false);
        }
        // One that could not be put anywhere stays where it is.
        (Progress::Idle, scaling || !lacking)
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.receiver.stop_waiting();
        }
    }

    fn count(&mut self, port: &Port) {
        let copied = self.receiver.copied_bytes();
        self.tally.copied_bytes += copied.wrapping_sub(self.copied);
        self.copied = copied;
        port.counters.add(&mut self.tally);
    }
}

/// The hash of the packet in a frame that starts like this, if any is wanted.
fn hash<A: DmaSpace>(round: &Round<'_, A>, head: &[u8]) -> Hash {
    let hashing = round.state.hashing.as_ref();
    hashing.map_or_else(Hash::default, |hashing| hashing.hash(&Headers::parse(head)))
}

impl<A: DmaSpace> Worker for ReceiveWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let way = &self.way;
        let mut sources = vec![
            way.queue.source(),
            self.port.source(),
            way.coalescer.source(),
            way.patience.source(),
        ];
        sources.extend(way.receiver.sources());
        sources
    }

    fn service(&mut self) -> Progress {
        let Self { shared, port, way } = self;
        // Without bus mastering nothing can be given. The host wakes this worker when that changes.
        let Some(memory) = way.queue.dma().memory() else { return Progress::Idle };
        let state = shared.state();
        let round = Round { shared, port, state: &state, memory: &memory };
        let (frames, any) = way.receive(&round);
        if way.coalescer.due(state.coalesce(2 * way.pair), frames) {
            way.queue.notify(&memory);
        }
        drop(state);
        way.count(port);
        if any { Progress::More } else { Progress::Idle }
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Self { shared, port, way } = self;
        let (progress, ask) = match way.queue.dma().memory() {
            Some(memory) => way.wait(&shared.state(), port, &memory),
            None => (Progress::Idle, false),
        };
        if ask {
            way.asked = true;
            return way.receiver.prepare_to_wait();
        }
        way.stop_waiting();
        progress
    }

    /// Buffers that were taken for frames to come are given back to the queue.
    fn quiesce(&mut self) -> Progress {
        let Self { shared: _, port, way } = self;
        way.stop_waiting();
        way.buffers.give_back(&mut way.queue);
        if let Some(memory) = way.queue.dma().memory()
            && way.coalescer.flush()
        {
            way.queue.notify(&memory);
        }
        way.count(port);
        Progress::Idle
    }
}
