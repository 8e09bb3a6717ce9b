//! The way out of a wire.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use paraslot_device::{Progress, Sources};

use super::lane::{Inlet, Lane, Outlet};
use super::ring::{Consumer, Description, Place, Ring};
use crate::net::bell::{lock, queue};
use crate::net::parse::HEADERS;
use crate::net::software::Software;
use crate::net::{Cut, NetError, NetReceiver, Offloads, Received, Room};

pub(super) struct WireReceiver {
    lane: Arc<Lane>,
    index: usize,
    /// The inlet that the last frame came from: the next has its turn next.
    last: usize,
    /// A frame that was cut, and its pieces to come.
    software: Software,
    copied: u64,
}

/// Whether the frame at `place` can be delivered as it is.
fn is_accepted(ring: &Ring, place: Place, what: &Description, accepted: Offloads) -> bool {
    let cut = what.offload.segmentation.map(|segmentation| segmentation.cut);
    let mut first = [0; HEADERS];
    // The rest can be decided without.
    let len = if cut == Some(Cut::UdpDatagrams) { what.len.min(HEADERS) } else { 0 };
    let first = &mut first[..len];
    ring.read_frame(place, first).is_some() && what.offload.accepted_by(accepted, first)
}

impl WireReceiver {
    pub(super) fn open(lane: Arc<Lane>, index: u16) -> io::Result<Self> {
        let outlet = queue(&lane.outlets, index)?;
        outlet.receiver.take()?;
        outlet.bell.stop();
        let index = usize::from(index);
        // What was sent while nobody received, and published too late to be noticed.
        discard(&lane, index);
        outlet.open.store(true, Ordering::Release);
        let (last, software) = (usize::MAX, Software::new());
        Ok(Self { lane, index, last, software, copied: 0 })
    }

    fn outlet(&self) -> Option<&Outlet> {
        self.lane.outlets.get(self.index)
    }

    /// Takes the next frame of `inlet` to `room`, if that is still this receiver's to take.
    pub(super) fn take(
        &mut self,
        index: usize,
        inlet: &Inlet,
        room: &mut Room<'_>,
    ) -> Option<Result<Received, NetError>> {
        let ring = &inlet.ring;
        let mut consumer = lock(&ring.consumer);
        let head = ring.head.get();
        let gone = head.position == ring.tail.get().position;
        if gone || self.lane.outlet_of(index) != self.index {
            return None;
        }
        let what = ring.description(head)?;
        let result = self.take_frame(ring, head, &what, room);
        // The ring has done with it; pieces to come are in memory of the receiver's own.
        self.lane.release(inlet, &mut consumer, head.after(what.len));
        let Consumer { delivered, dropped, .. } = &mut *consumer;
        *(if result.is_ok() { delivered } else { dropped }) += 1;
        Some(result)
    }

    fn take_frame(
        &mut self,
        ring: &Ring,
        head: Place,
        what: &Description,
        room: &mut Room<'_>,
    ) -> Result<Received, NetError> {
        let &Description { len, offload } = what;
        let accepted = self.lane.accepted();
        let plain = offload.checksum.is_none() && offload.segmentation.is_none();
        if plain || is_accepted(ring, head, what, accepted) {
            room.check(len)?;
            match room {
                Room::Guest(buffers) => ring.read_frame_into(head, len, buffers),
                Room::Host(bytes) => {
                    bytes.get_mut(..len).and_then(|bytes| ring.read_frame(head, bytes))
                }
            }
            .ok_or(NetError::Invalid)?;
            return Ok(Received { len, offload });
        }
        let fill = |bytes: &mut [u8]| {
            let frame = bytes.get_mut(..len);
            frame.and_then(|frame| ring.read_frame(head, frame)).map_or(0, |()| len)
        };
        self.software.load(fill, &offload, accepted)?;
        self.software.receive(room.reborrow())?.ok_or(NetError::Invalid)
    }

    fn next(&mut self, room: &mut Room<'_>) -> Result<Option<Received>, NetError> {
        let lane = self.lane.clone();
        if self.software.next_len().is_some() {
            if self.index < lane.active() {
                return self.software.receive(room.reborrow());
            }
            self.software.clear();
        }
        let last = self.last;
        let later = lane.inlets_of(self.index).filter(|(index, _)| *index > last);
        let others = lane.inlets_of(self.index).filter(|(index, _)| *index <= last);
        for (index, inlet) in later.chain(others).filter(|(_, inlet)| has_frames(inlet)) {
            if let Some(result) = self.take(index, inlet, room) {
                self.last = index;
                return result.map(Some);
            }
        }
        Ok(None)
    }
}

fn has_frames(inlet: &Inlet) -> bool {
    inlet.ring.tail.get().position != inlet.ring.head.get().position
}

/// Loses what is under way to outlet `index`.
fn discard(lane: &Lane, index: usize) {
    for (_, inlet) in lane.inlets_of(index) {
        lane.discard(inlet, &mut lock(&inlet.ring.consumer));
    }
}

impl NetReceiver for WireReceiver {
    fn receive(&mut self, mut room: Room<'_>) -> Result<Option<Received>, NetError> {
        let received = self.next(&mut room)?;
        if let Some(received) = received {
            self.copied = self.copied.wrapping_add(room.copied(received.len));
        }
        Ok(received)
    }

    fn sources(&self) -> Sources {
        self.outlet().map(|outlet| outlet.bell.source()).into_iter().collect()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Some(outlet) = self.outlet() else { return Progress::Idle };
        outlet.bell.wait_unless(|| {
            let pieces = self.software.next_len().is_some() && self.index < self.lane.active();
            pieces || self.lane.inlets_of(self.index).any(|(_, inlet)| has_frames(inlet))
        })
    }

    fn stop_waiting(&mut self) {
        if let Some(outlet) = self.outlet() {
            outlet.bell.stop();
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}

impl Drop for WireReceiver {
    fn drop(&mut self) {
        if let Some(outlet) = self.outlet() {
            outlet.open.store(false, Ordering::Release);
            discard(&self.lane, self.index);
            outlet.bell.stop();
            outlet.receiver.release();
        }
    }
}
