//! A transmit queue: packets from its ring to the backend, and completions back.

mod packet;
mod saved;
mod send;

use std::sync::atomic::{Ordering, fence};

use paraslot_backends::net::{NetError, NetSender};
use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::vmxnet3::{COMP_GEN_OFFSET, TxCompDesc, queue_error, txd};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

pub(crate) use self::saved::TxState;
pub(crate) use self::send::{Builder, Out};
use crate::ring::Ring;

/// What one round of work takes from all of a worker's queues.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    packets: u32,
    /// Descriptors of packets that are begun.
    descriptors: u32,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { packets: 64, descriptors: 256 }
    }

    /// Whether there is nothing left of it.
    pub(crate) fn is_spent(&self) -> bool {
        self.packets == 0 || self.descriptors == 0
    }
}

/// A threshold that no driver reaches between two rounds of work.
const NEVER: u32 = i32::MAX.unsigned_abs();
/// Offset of a descriptor's word with the generation.
const GEN_AT: u64 = 8;

/// A transmit queue's device side.
pub(crate) struct TxQueue {
    ring: Ring,
    comp: Ring,
    intr: u8,
    /// Where `txThreshold` is.
    threshold: GuestAddress,
    /// The driver has been told that it need not ring.
    silenced: bool,
    /// Why it has stopped.
    stopped: Option<u32>,
}

/// What came of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxRound {
    /// Packets that are done with.
    pub(crate) packets: u32,
    /// Completions that were written.
    pub(crate) completions: u32,
    /// The backend takes nothing now.
    pub(crate) busy: bool,
    /// The queue has stopped in this round.
    pub(crate) failed: bool,
}

impl TxQueue {
    pub(crate) fn new(ring: Ring, comp: Ring, intr: u8, threshold: GuestAddress) -> Self {
        Self { ring, comp, intr, threshold, silenced: false, stopped: None }
    }

    pub(crate) fn intr(&self) -> u8 {
        self.intr
    }

    /// Why it has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<u32> {
        self.stopped
    }

    /// Tells the driver how many packets it may queue before it rings.
    pub(crate) fn set_threshold<A: DmaSpace>(&self, memory: &Memory<A>, packets: u32) -> bool {
        memory.store(packets.to_le(), self.threshold, Ordering::Release).is_ok()
    }

    /// Whether there is a packet.
    fn has_packet<A: DmaSpace>(&self, memory: &Memory<A>) -> Result<bool, u32> {
        let place = self.ring.ahead(0);
        let word: u32 = memory
            .load(self.ring.address(place.index, GEN_AT), Ordering::Acquire)
            .map_err(|_| queue_error::TXD_INVALID)?;
        Ok((u32::from_le(word) & txd::GEN != 0) == place.lap)
    }

    /// The worker is about to sleep: the driver is to ring from its next packet on. Says whether there
    /// is a packet already, and whether the driver had been told not to ring: such a driver may have
    /// looked at the threshold before its packet was to be seen here, if its processor has kept the
    /// packet back for that long.
    pub(crate) fn listen<A: DmaSpace>(&mut self, memory: &Memory<A>) -> (bool, bool) {
        if self.stopped.is_some() {
            return (false, false);
        }
        let silenced = std::mem::take(&mut self.silenced);
        if silenced {
            // What cannot be written now could not be read by the driver either.
            let _ = self.set_threshold(memory, 1);
        }
        // One total order with a driver that looks at the threshold after it has queued a packet.
        fence(Ordering::SeqCst);
        // An error is for the next round to find.
        (self.has_packet(memory).unwrap_or(true), silenced)
    }

    /// Takes packets, as many as `budget` allows.
    pub(crate) fn service<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        budget: &mut Budget,
        builder: &mut Builder,
        out: &mut Out<'_>,
        sender: &mut dyn NetSender,
    ) -> TxRound {
        let mut round = TxRound::default();
        if self.stopped.is_some() {
            return round;
        }
        while !budget.is_spent() {
            match self.step(memory, builder, out, sender, &mut round) {
                Ok(0) => break,
                Ok(descriptors) => {
                    budget.packets -= 1;
                    budget.descriptors = budget.descriptors.saturating_sub(descriptors);
                }
                Err(error) => {
                    self.stopped = Some(error);
                    out.counts.errors += 1;
                    round.failed = true;
                    break;
                }
            }
        }
        if round.packets != 0 {
            sender.commit();
            if round.packets > 1 && !self.silenced {
                // There are more packets than rings: the worker is awake, and finds the next itself.
                self.silenced = self.set_threshold(memory, NEVER);
            }
        }
        round
    }

    /// Takes a packet. Says how many descriptors it had, 0 if there is none to be taken now; an error
    /// stops the queue.
    fn step<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        builder: &mut Builder,
        out: &mut Out<'_>,
        sender: &mut dyn NetSender,
        round: &mut TxRound,
    ) -> Result<u32, u32> {
        // The driver writes this generation last of all of a packet's; everything else is read after.
        if !self.has_packet(memory)? {
            return Ok(0);
        }
        let packet = builder.packet_mut();
        packet.read(memory, &self.ring)?;
        let (last, descriptors, wanted) = packet.end();
        if out.link {
            match builder.send(memory, out, sender) {
                Ok(()) => {}
                Err(NetError::Busy) => {
                    out.net.count_send_error(&NetError::Busy);
                    round.busy = true;
                    return Ok(0);
                }
                Err(error) => {
                    out.net.count_send_error(&error);
                    match error {
                        NetError::Invalid | NetError::TooLong => out.counts.errors += 1,
                        _ => out.counts.lost += 1,
                    }
                }
            }
        } else {
            out.net.count_send_error(&NetError::Down);
            out.counts.lost += 1;
        }
        self.ring.advance(descriptors);
        round.packets += 1;
        if wanted {
            self.complete(memory, last)?;
            round.completions += 1;
        }
        Ok(descriptors)
    }

    /// Writes a completion: the word with the generation last.
    fn complete<A: DmaSpace>(&mut self, memory: &Memory<A>, last: u32) -> Result<(), u32> {
        let place = self.comp.ahead(0);
        let index = u16::try_from(last).map_err(|_| queue_error::TXD_INVALID)?;
        let completion = TxCompDesc::new(index, place.lap);
        write_completion(memory, &self.comp, place.index, completion.as_bytes())
            .ok_or(queue_error::TXD_INVALID)?;
        self.comp.advance(1);
        Ok(())
    }
}

/// Writes all 16 bytes of a completion to its place, those with the generation last: it is never seen
/// without what goes with it. `None` if the ring has gone from memory.
pub(crate) fn write_completion<A: DmaSpace>(
    memory: &Memory<A>,
    ring: &Ring,
    index: u32,
    completion: &[u8],
) -> Option<()> {
    let (first, last) = completion.split_last_chunk::<4>()?;
    memory.write_slice(first, ring.address(index, 0)).ok()?;
    let last = u32::from_ne_bytes(*last);
    memory.store(last, ring.address(index, COMP_GEN_OFFSET), Ordering::Release).ok()
}
