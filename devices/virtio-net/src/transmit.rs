//! A transmit queue's loop (5.1.9.2).

use std::sync::Arc;

use paraslot_backends::net::{Frame, MAX_FRAME, NetError, NetSender, NetStatistics, Offload};
use paraslot_device::dma::Direction;
use paraslot_device::{
    DeviceError, DmaBuffers, DmaSpace, Memory, Progress, Source, StateError, Worker,
};
use paraslot_spec::virtio_net::Header;
use paraslot_virtio::{Chain, Queue};
use zerocopy::{FromZeros, IntoBytes};

use crate::coalesce::{Coalesce, Coalescer};
use crate::header::{Unfit, header_len, transmit_offload};
use crate::saved::TransmitState;
use crate::shared::{Port, Shared};

/// Most frames that are taken in one call of `service`.
const BATCH: usize = 64;

/// Takes frames from one queue to one of the backend's.
pub(crate) struct TransmitWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    port: Arc<Port>,
    /// The pair, and the index of its transmit queue.
    pair: u16,
    index: u16,
    way: Way<A>,
}

/// The worker without what it shares.
struct Way<A: DmaSpace> {
    queue: Queue<A>,
    sender: Box<dyn NetSender>,
    /// The sender has been asked for a wake-up, and not for anything else since.
    asked: bool,
    features: u64,
    header_len: usize,
    /// The frame at hand. Its list is used again for each.
    body: DmaBuffers,
    offload: Offload,
    /// Head of the chain that the frame at hand came by, if the backend was busy.
    refused: Option<u16>,
    /// Chains that are done with, and of which the driver is to be told.
    used: Vec<(u16, u32)>,
    coalescer: Coalescer,
    tally: NetStatistics,
    /// Of the sender's copies, those that were counted.
    copied: u64,
}

impl<A: DmaSpace> TransmitWorker<A> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        port: Arc<Port>,
        pair: u16,
        queue: Queue<A>,
    ) -> Result<Self, DeviceError> {
        let sender = shared.backend.open_sender(pair).map_err(DeviceError::Backend)?;
        let coalescer = Coalescer::new(shared.limits.clock.clone())?;
        let features = queue.features();
        let index = 2 * pair + 1;
        shared.set_running(index, true);
        let way = Way {
            queue,
            sender,
            asked: false,
            features,
            header_len: header_len(features),
            body: DmaBuffers::empty(Direction::ToDevice),
            offload: Offload::default(),
            refused: None,
            used: Vec::with_capacity(BATCH),
            coalescer,
            tally: NetStatistics::default(),
            copied: 0,
        };
        Ok(Self { shared, port, pair, index, way })
    }
}

impl<A: DmaSpace> TransmitWorker<A> {
    /// What [`restore`](Self::restore) takes, of a worker that is quiet.
    pub(crate) fn save(&self) -> TransmitState {
        // Destructured, so that a new field is thought of. The frame at hand has been given back.
        let Way {
            queue,
            sender: _,
            asked: _,
            features: _,
            header_len: _,
            body: _,
            offload: _,
            refused: _,
            used: _,
            coalescer,
            tally: _,
            copied: _,
        } = &self.way;
        TransmitState { queue: queue.save(), held: coalescer.held() }
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &TransmitState) -> Result<(), StateError> {
        let TransmitState { queue, held } = state;
        self.way.queue.restore(queue, &[])?;
        self.way.coalescer.hold(*held);
        Ok(())
    }
}

impl<A: DmaSpace> Drop for TransmitWorker<A> {
    fn drop(&mut self) {
        self.way.count(&self.port);
        self.shared.set_running(self.index, false);
    }
}

impl<A: DmaSpace> Way<A> {
    /// Makes the frame in a chain the one at hand.
    fn prepare(&mut self, memory: &Memory<A>, chain: &Chain) -> Result<(), Unfit> {
        self.body.clear();
        let bytes: u64 = chain.readable.iter().map(|segment| u64::from(segment.len)).sum();
        let len = usize::try_from(bytes).unwrap_or(usize::MAX);
        // Buffers for the device to write have no place here.
        if !chain.writable.is_empty()
            || !(self.header_len..=self.header_len + MAX_FRAME).contains(&len)
        {
            return Err(Unfit);
        }
        let segments = chain.readable.iter().map(|s| (s.address, s.len as usize));
        memory.extend(&mut self.body, segments).or(Err(Unfit))?;
        // Read once. What may follow it in the header is not used (5.1.9.2).
        let mut header = Header::new_zeroed();
        self.body.copy_to(header.as_mut_bytes());
        self.body.advance(self.header_len);
        self.offload = transmit_offload(&header, self.features, self.body.len())?;
        Ok(())
    }

    /// Sends the frame at hand; `false` if the backend is busy.
    fn send(&mut self) -> bool {
        self.asked = false;
        let frame = Frame { head: &[], body: &self.body, offload: self.offload };
        match self.sender.send(&frame) {
            Ok(()) => {
                self.tally.sent_frames += 1;
                self.tally.sent_bytes += self.body.len() as u64;
            }
            Err(NetError::Busy) => return false,
            Err(error) => self.tally.count_send_error(&error),
        }
        true
    }

    /// Takes what is available; returns whether anything was done.
    fn take(&mut self, memory: &Memory<A>, link: bool) -> bool {
        if let Some(head) = self.refused {
            if link && !self.send() {
                return false;
            }
            if !link {
                self.tally.count_send_error(&NetError::Down);
            }
            self.refused = None;
            self.used.push((head, 0));
        }
        while self.used.len() < BATCH {
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = self.queue.pop(memory) else { break };
            self.queue.disable_notifications(memory);
            if !link {
                self.tally.count_send_error(&NetError::Down);
            } else if self.prepare(memory, &chain).is_err() {
                self.tally.count_send_error(&NetError::Invalid);
            } else if !self.send() {
                self.tally.count_send_error(&NetError::Busy);
                self.refused = Some(chain.head);
                break;
            }
            self.used.push((chain.head, 0));
        }
        !self.used.is_empty()
    }

    /// Ends a round of work.
    fn finish(&mut self, memory: &Memory<A>, coalesce: Coalesce) {
        let mut packets = 0;
        if !self.used.is_empty() {
            self.sender.commit();
            packets = u32::try_from(self.used.len()).unwrap_or(u32::MAX);
            self.queue.push_used_together(memory, &self.used);
            self.used.clear();
        }
        if self.coalescer.due(coalesce, packets) {
            self.queue.notify(memory);
        }
    }

    fn stop_waiting(&mut self) {
        if std::mem::take(&mut self.asked) {
            self.sender.stop_waiting();
        }
    }

    fn count(&mut self, port: &Port) {
        let copied = self.sender.copied_bytes();
        self.tally.copied_bytes += copied.wrapping_sub(self.copied);
        self.copied = copied;
        port.counters.add(&mut self.tally);
    }
}

impl<A: DmaSpace> Worker for TransmitWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let way = &self.way;
        let mut sources = vec![way.queue.source(), self.port.source(), way.coalescer.source()];
        sources.extend(way.sender.sources());
        sources
    }

    fn service(&mut self) -> Progress {
        let way = &mut self.way;
        // Without bus mastering nothing can be taken or told. The host wakes this worker when that
        // changes.
        let Some(memory) = way.queue.dma().memory() else { return Progress::Idle };
        let state = self.shared.state();
        let done = state.transmits(self.pair) && way.take(&memory, state.link);
        way.finish(&memory, state.coalesce(self.index));
        drop(state);
        way.count(&self.port);
        if done { Progress::More } else { Progress::Idle }
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let way = &mut self.way;
        let Some(memory) = way.queue.dma().memory() else {
            way.stop_waiting();
            return Progress::Idle;
        };
        let on = self.shared.state().transmits(self.pair);
        if on && way.refused.is_some() {
            // No chain is taken before this one is sent.
            way.asked = true;
            return way.sender.prepare_to_wait();
        }
        way.stop_waiting();
        if !on {
            // The bell tells of a change.
            return Progress::Idle;
        }
        if way.queue.enable_notifications(&memory) { Progress::More } else { Progress::Idle }
    }

    /// What the backend was too busy for is given back to the queue: it is sent when the worker goes
    /// on, and forgotten with everything else if the queue is reset.
    fn quiesce(&mut self) -> Progress {
        let way = &mut self.way;
        way.stop_waiting();
        if let Some(head) = way.refused.take() {
            way.queue.undo_pop(head);
        }
        if let Some(memory) = way.queue.dma().memory()
            && way.coalescer.flush()
        {
            way.queue.notify(&memory);
        }
        way.count(&self.port);
        Progress::Idle
    }
}
