//! The receive ring (3.2).

use paraslot_spec::e1000::{
    DESCRIPTOR_LEN, FCS_LEN, LONGEST_NORMAL, RECEIVE_STATUS, ReceiveDescriptor, receive,
};
use paraslot_spec::net::ETHERNET_HEADER;
use zerocopy::FromBytes;

use super::RING;
use super::throttle::Amount;
use crate::{Arrival, DmaRegion, Error, Known, Platform};

/// Bytes of a buffer.
pub(super) const BUFFER: u16 = 2048;
/// How many free buffers gather before the controller is told, at most.
pub(super) const MOST_REFILL: u16 = RING / 4;
/// The tail to begin with: all buffers are there, and as Linux does it the tail is the last of those
/// that leave one descriptor unused.
pub(super) const FIRST_TAIL: u16 = RING - 2;
/// Errors of packets that are not to be used.
const BAD: u8 = receive::CE | receive::SE | receive::SEQ | receive::CXE | receive::RXE;
/// Offset of the word that the status is in.
const STATUS: usize = 12;
const _: () = assert!(STATUS as u64 == RECEIVE_STATUS && RING.is_power_of_two());

/// The ring. Each descriptor has its own buffer.
pub(super) struct Receive {
    ring: DmaRegion,
    buffers: DmaRegion,
    /// The descriptor that the controller uses next.
    next: u16,
    /// The first that it must not use.
    tail: u16,
    /// Free buffers that it has not been told of.
    free: u16,
    refill: u16,
    /// Whether the controller removes the frame check sequence.
    stripped: bool,
    /// Whether what it says of checksums is of interest.
    checksum: bool,
}

impl Receive {
    pub(super) fn new<P: Platform>(
        platform: &P,
        stripped: bool,
        checksum: bool,
    ) -> Result<Self, Error> {
        let allocate = |len| platform.allocate(usize::from(RING) * len).ok_or(Error::NoMemory);
        let this = Self {
            ring: allocate(DESCRIPTOR_LEN)?,
            buffers: allocate(BUFFER.into())?,
            next: 0,
            tail: FIRST_TAIL,
            free: 0,
            refill: 16,
            stripped,
            checksum,
        };
        (0..RING).for_each(|index| this.offer(index));
        Ok(this)
    }

    /// Where the ring is.
    pub(super) fn address(&self) -> u64 {
        self.ring.physical(0)
    }

    pub(super) fn set_refill(&mut self, buffers: u16) {
        self.refill = buffers.clamp(1, MOST_REFILL);
    }

    /// Fills a descriptor in.
    fn offer(&self, index: u16) {
        let at = usize::from(index) * DESCRIPTOR_LEN;
        self.ring.write64(at, self.buffers.physical(usize::from(index) * usize::from(BUFFER)));
        self.ring.write64(at + 8, 0);
    }

    /// What the controller says of a packet that has arrived; `None` while none has.
    fn look(&self) -> Option<ReceiveDescriptor> {
        let at = usize::from(self.next) * DESCRIPTOR_LEN;
        // The controller writes it last, so that the rest is there when this is.
        let status = self.ring.load32(at + STATUS);
        if status & u32::from(receive::DD) == 0 {
            return None;
        }
        let mut bytes = [0; DESCRIPTOR_LEN];
        bytes[8..12].copy_from_slice(&self.ring.read32(at + 8).to_le_bytes());
        bytes[STATUS..].copy_from_slice(&status.to_le_bytes());
        ReceiveDescriptor::read_from_bytes(&bytes).ok()
    }

    /// The length of a good frame; `None` of a bad one.
    fn check(&self, descriptor: &ReceiveDescriptor) -> Result<Option<u16>, Error> {
        // Every packet that is let in fits a buffer.
        if descriptor.status & receive::EOP == 0 {
            return Err(Error::Protocol("a packet that does not end in its buffer"));
        }
        let fcs = if self.stripped { 0 } else { FCS_LEN };
        let most = if self.stripped { LONGEST_NORMAL - FCS_LEN } else { LONGEST_NORMAL };
        let length = descriptor.length.get();
        if !(ETHERNET_HEADER + fcs..=most).contains(&usize::from(length)) {
            return Err(Error::Protocol("a packet of a length that none has"));
        }
        let good = descriptor.errors & BAD == 0;
        Ok(good.then(|| length - u16::try_from(fcs).unwrap_or(0)))
    }

    fn known(&self, descriptor: &ReceiveDescriptor) -> Known {
        let checked = descriptor.status & (receive::IXSM | receive::TCPCS) == receive::TCPCS;
        let right = checked && descriptor.errors & receive::TCPE == 0;
        if self.checksum && right { Known::Right } else { Known::Nothing }
    }

    /// Hands up to `limit` frames to `visit`, counts them into `amount`, and calls `tell` with the
    /// tail whenever the controller is to be told of free buffers.
    pub(super) fn receive(
        &mut self,
        limit: u16,
        amount: &mut Amount,
        mut tell: impl FnMut(u16),
        mut visit: impl FnMut(Arrival<'_>),
    ) -> Result<u16, Error> {
        let mut frames = 0;
        // Bad packets count towards the limit, or there would be none to them.
        for _ in 0..limit {
            let Some(descriptor) = self.look() else { break };
            if let Some(len) = self.check(&descriptor)? {
                let place = usize::from(self.next) * usize::from(BUFFER);
                let len = usize::from(len);
                let pieces = [self.buffers.part(place, len)];
                visit(Arrival { pieces: &pieces, len, checksum: self.known(&descriptor) });
                amount.add(1, u32::try_from(len).unwrap_or(0));
                frames += 1;
            }
            self.offer(self.next);
            self.next = (self.next + 1) % RING;
            self.free += 1;
            if self.free >= self.refill {
                self.tail = (self.tail + self.free) % RING;
                self.free = 0;
                tell(self.tail);
            }
        }
        Ok(frames)
    }
}
