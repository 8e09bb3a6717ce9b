//! The frame at hand: from the backend to a queue.

use paraslot_backends::net::{MAX_FRAME, NetReceiver, NetStatistics, Room};
use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::vmxnet3::MAX_RX_QUEUES;

use super::examine::{Arrival, Terms, Unwanted};
use super::{ArrivalState, RxQueue, Short};
use crate::shared::{Shared, lock};
use crate::statistics::Counts;

/// Frames that one round of work takes, and buffers that it begins to fill.
const BATCH: u32 = 64;
const BUFFERS: usize = 512;

/// Receives frames into host memory, looks at them, and gives them to queues.
pub(crate) struct Inbox {
    room: Box<[u8]>,
    /// The frame in `room` has passed all filters, and waits for buffers.
    held: Option<Arrival>,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RxRound {
    /// Packets for each queue.
    pub(crate) packets: [u32; MAX_RX_QUEUES],
    /// Anything was done.
    pub(crate) any: bool,
    /// A queue has stopped in this round.
    pub(crate) failed: bool,
    /// Buffers that were filled.
    buffers: usize,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self { room: vec![0; MAX_FRAME].into(), held: None }
    }

    /// Whether a frame waits for buffers.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Whether a queue has buffers for the frame that waits, or for any if none does.
    pub(crate) fn finds_room<A: DmaSpace>(
        &self,
        queue: &mut RxQueue,
        memory: &Memory<A>,
        most: usize,
    ) -> bool {
        match &self.held {
            Some(held) => queue.has_room(memory, held, most),
            None => queue.has_head(memory),
        }
    }

    /// Forgets the frame that waits.
    pub(crate) fn clear(&mut self) {
        self.held = None;
    }

    /// The frame that waits.
    pub(crate) fn save(&self) -> Option<ArrivalState> {
        let Self { room, held } = self;
        held.as_ref().map(|held| ArrivalState::of(held, room))
    }

    /// Has a frame wait that was saved, and checked.
    pub(crate) fn restore(&mut self, state: &ArrivalState, arrival: Arrival) {
        if let Some(place) = self.room.get_mut(arrival.start..arrival.end) {
            place.copy_from_slice(state.frame());
            self.held = Some(arrival);
        }
    }

    /// Loses the frame that waits, for there will be no buffers for it.
    pub(crate) fn give_up(&mut self, shared: &Shared, net: &mut NetStatistics) {
        if let Some(held) = self.held.take() {
            let mut counts = Counts::loss();
            shared.statistics.add_receive(held.queue, &mut counts);
            net.no_guest_buffers += 1;
        }
    }

    /// Takes frames, [`BATCH`] of them at most.
    pub(crate) fn service<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        shared: &Shared,
        terms: &Terms<'_>,
        receiver: &mut dyn NetReceiver,
        net: &mut NetStatistics,
    ) -> RxRound {
        let mut round = RxRound::default();
        let waits = terms.active.waits_for_buffers();
        for _ in 0..BATCH {
            if self.held.is_none() {
                // Frames that have no place to go wait where they are.
                let queue = terms.active.rx.get(terms.queue);
                if waits && !queue.is_some_and(|queue| lock(queue).has_head(memory)) {
                    break;
                }
                let received = match receiver.receive(Room::Host(&mut self.room)) {
                    Ok(Some(received)) => received,
                    Ok(None) => break,
                    Err(error) => {
                        round.any = true;
                        net.count_receive_error(&error);
                        self.count_error(shared, terms.queue);
                        continue;
                    }
                };
                round.any = true;
                match terms.examine(&mut self.room, received.len, &received.offload) {
                    Ok(arrival) => self.held = Some(arrival),
                    Err(unwanted) => {
                        match unwanted {
                            Unwanted::Filtered => net.filtered += 1,
                            Unwanted::TooLong => net.received_too_long += 1,
                            Unwanted::Invalid => net.receive_errors += 1,
                        }
                        if unwanted != Unwanted::Filtered {
                            self.count_error(shared, terms.queue);
                        }
                        continue;
                    }
                }
            }
            let delivered = self.deliver(memory, shared, terms, net, &mut round);
            if !delivered && waits || round.buffers >= BUFFERS {
                break;
            }
        }
        round
    }

    fn count_error(&self, shared: &Shared, queue: usize) {
        shared.statistics.add_receive(queue, &mut Counts::error());
    }

    /// Gives the frame at hand to its queue. Says no if it found no buffers there; it stays, if frames
    /// wait for buffers, or is lost.
    fn deliver<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        shared: &Shared,
        terms: &Terms<'_>,
        net: &mut NetStatistics,
        round: &mut RxRound,
    ) -> bool {
        let Some(arrival) = self.held.take() else { return true };
        let bytes = self.room.get(arrival.start..arrival.end).unwrap_or_default();
        let Some(queue) = terms.active.rx.get(arrival.queue) else { return true };
        let mut counts = Counts::default();
        let mut queue = lock(queue);
        let before = queue.stopped();
        let delivered = queue.deliver(memory, &arrival, bytes, terms.active.most_buffers);
        round.failed |= queue.stopped() != before;
        round.buffers = round.buffers.saturating_add(queue.buffers_used());
        drop(queue);
        match delivered {
            Ok(right) => {
                if let Some(packets) = round.packets.get_mut(arrival.queue) {
                    *packets += 1;
                }
                round.any = true;
                if right {
                    counts.passed(arrival.destination, arrival.packets, arrival.bytes);
                    if arrival.segments.is_some() {
                        counts.large.add(1, bytes.len() as u64);
                    }
                    net.received_frames += 1;
                    net.received_bytes += bytes.len() as u64;
                    net.copied_bytes += bytes.len() as u64;
                } else {
                    counts.errors += 1;
                    net.receive_errors += 1;
                }
            }
            Err(Short::Starved) if terms.active.waits_for_buffers() => {
                self.held = Some(arrival);
                return false;
            }
            Err(Short::Starved) => {
                counts.lost += 1;
                net.no_guest_buffers += 1;
            }
            Err(Short::TooLong) => {
                counts.errors += 1;
                net.received_too_long += 1;
            }
            Err(Short::Stopped) => {
                counts.lost += 1;
                net.receive_errors += 1;
            }
        }
        shared.statistics.add_receive(arrival.queue, &mut counts);
        true
    }
}
