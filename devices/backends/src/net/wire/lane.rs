//! One direction of a wire.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::ring::{Consumer, Place, Ring, record_len};
use super::{WireOptions, WireStatistics};
use crate::net::bell::{Bell, Claim, lock, several};
use crate::net::{MAX_FRAME, Offloads};

/// The sending side's queue `index` is `rings[index]`, the receiving side's `outlets[index]`.
pub(super) struct Lane {
    pub(super) rings: Box<[Inlet]>,
    pub(super) outlets: Box<[Outlet]>,
    /// The first so many outlets get frames.
    active: AtomicU16,
    accepted: AtomicU32,
    frames: u64,
    bytes: u64,
}

/// Where one sender puts its frames.
pub(super) struct Inlet {
    pub(super) ring: Ring,
    /// Rings when there is room again.
    pub(super) room: EventFd,
    /// Frames that were lost before they were in the ring.
    pub(super) dropped: AtomicU64,
}

/// Where one receiver waits.
pub(super) struct Outlet {
    pub(super) bell: Bell,
    pub(super) receiver: Claim,
    /// Whether frames are for it.
    pub(super) open: AtomicBool,
}

impl Lane {
    pub(super) fn new(options: &WireOptions) -> io::Result<Self> {
        let least = usize::try_from(record_len(MAX_FRAME)).unwrap_or(usize::MAX);
        let bytes = options.bytes.clamp(least, 1 << 30);
        let rings = several(options.queues, |_| {
            let (ring, room) = (Ring::new(bytes)?, EventFd::new(EFD_NONBLOCK)?);
            Ok(Inlet { ring, room, dropped: AtomicU64::new(0) })
        })?;
        let outlets = several(options.queues, |_| {
            let (receiver, open) = Default::default();
            Ok(Outlet { bell: Bell::new()?, receiver, open })
        })?;
        Ok(Self {
            rings,
            outlets,
            active: AtomicU16::new(1),
            accepted: AtomicU32::new(0),
            frames: options.frames.max(1).into(),
            bytes: bytes as u64,
        })
    }

    pub(super) fn set_accepted(&self, accepted: Offloads) {
        self.accepted.store(accepted.bits(), Ordering::Release);
    }

    pub(super) fn accepted(&self) -> Offloads {
        Offloads::from_bits_truncate(self.accepted.load(Ordering::Acquire))
    }

    pub(super) fn active(&self) -> usize {
        usize::from(self.active.load(Ordering::Acquire)).max(1)
    }

    /// The outlet for frames of inlet `index` at the moment.
    pub(super) fn outlet_of(&self, index: usize) -> usize {
        index % self.active()
    }

    /// Whether anybody receives what is sent into inlet `index`.
    pub(super) fn is_heard(&self, index: usize) -> bool {
        let outlet = self.outlets.get(self.outlet_of(index));
        outlet.is_some_and(|outlet| outlet.open.load(Ordering::Acquire))
    }

    /// The inlets whose frames are outlet `index`'s at the moment.
    pub(super) fn inlets_of(&self, index: usize) -> impl Iterator<Item = (usize, &Inlet)> {
        let active = self.active();
        let first = if index < active { index } else { self.rings.len() };
        let indices = (first..self.rings.len()).step_by(active);
        indices.filter_map(|index| self.rings.get(index).map(|inlet| (index, inlet)))
    }

    /// Whether a frame of `len` bytes fits behind `tail` when the ring starts at `head`.
    pub(super) fn has_room(&self, head: Place, tail: Place, len: usize) -> bool {
        tail.count - head.count < self.frames
            && tail.position - head.position + record_len(len) <= self.bytes
    }

    /// Tells whoever receives from inlet `index` that there are frames. The tail was moved before.
    pub(super) fn announce(&self, index: usize) {
        // Whose the frames are may change meanwhile: `set_active` passes every bell after it has
        // changed the number. If it has not passed this one yet, it rings the new receiver after it
        // has seen what was sent; if it has, the number is seen to be another one here.
        loop {
            let active = self.active();
            let Some(outlet) = self.outlets.get(index % active) else { return };
            if outlet.bell.ring_if(|| self.active() == active) {
                return;
            }
        }
    }

    /// Frames go to the first `pairs` outlets from now on.
    pub(super) fn set_active(&self, pairs: u16) {
        self.active.store(pairs, Ordering::Release);
        for outlet in &self.outlets {
            outlet.bell.ring_if(|| false);
        }
        for (index, inlet) in self.rings.iter().enumerate() {
            let mut consumer = lock(&inlet.ring.consumer);
            if !self.is_heard(index) {
                self.discard(inlet, &mut consumer);
            }
        }
        for outlet in &self.outlets {
            outlet.bell.ring();
        }
    }

    /// Loses what is in a ring.
    pub(super) fn discard(&self, inlet: &Inlet, consumer: &mut Consumer) {
        let mut head = inlet.ring.head.get();
        let tail = inlet.ring.tail.get();
        while head.position != tail.position {
            let Some(description) = inlet.ring.description(head) else { break };
            head = head.after(description.len);
            consumer.dropped += 1;
        }
        self.release(inlet, consumer, head);
    }

    /// Gives back what is in front of `head`, and wakes a sender that waited for it.
    pub(super) fn release(&self, inlet: &Inlet, consumer: &mut Consumer, head: Place) {
        inlet.ring.head.set(head);
        let Some(wanted) = consumer.wanted else { return };
        // A sender that waits has published all it has written.
        if self.has_room(head, inlet.ring.tail.get(), wanted) {
            consumer.wanted = None;
            // Fails only when it was rung 2⁶⁴ times already.
            let _ = inlet.room.write(1);
        }
    }

    pub(super) fn statistics(&self) -> WireStatistics {
        let mut statistics = WireStatistics::default();
        for inlet in &self.rings {
            let consumer = lock(&inlet.ring.consumer);
            statistics.delivered += consumer.delivered;
            statistics.dropped += consumer.dropped + inlet.dropped.load(Ordering::Relaxed);
        }
        statistics
    }
}
