//! The way into a wire.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use paraslot_device::{Progress, Source, Sources};

use super::OnFull;
use super::lane::{Inlet, Lane};
use super::ring::Place;
use crate::net::bell::{lock, queue};
use crate::net::parse::HEADERS;
use crate::net::{Frame, NetError, NetSender};

pub(super) struct WireSender {
    lane: Arc<Lane>,
    index: usize,
    on_full: OnFull,
    /// How far the receiver was when last looked at.
    head: Place,
    /// Behind the last frame, published or not.
    tail: Place,
    /// What is published.
    published: Place,
    /// The length of the last frame, if there was no room for it.
    wanted: usize,
    /// Perhaps still: it may have been rung.
    waiting: bool,
    copied: u64,
}

impl WireSender {
    pub(super) fn open(lane: Arc<Lane>, index: u16, on_full: OnFull) -> io::Result<Self> {
        let inlet = queue(&lane.rings, index)?;
        inlet.ring.sender.take()?;
        let (head, tail) = (inlet.ring.head.get(), inlet.ring.tail.get());
        let index = index.into();
        Ok(Self {
            lane,
            index,
            on_full,
            head,
            tail,
            published: tail,
            wanted: 0,
            waiting: false,
            copied: 0,
        })
    }

    fn inlet(&self) -> Result<&Inlet, NetError> {
        self.lane.rings.get(self.index).ok_or(NetError::Down)
    }

    fn has_room(&mut self, len: usize) -> Result<bool, NetError> {
        if !self.lane.has_room(self.head, self.tail, len) {
            self.head = self.inlet()?.ring.head.get();
        }
        Ok(self.lane.has_room(self.head, self.tail, len))
    }

    fn lose(&self) -> Result<(), NetError> {
        self.inlet()?.dropped.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl NetSender for WireSender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let len = frame.len();
        frame.offload.check(len)?;
        if !self.lane.is_heard(self.index) {
            return self.lose();
        }
        if !self.has_room(len)? {
            if self.on_full == OnFull::Drop {
                return self.lose();
            }
            self.commit();
            self.wanted = len;
            return Err(NetError::Busy);
        }
        let ring = &self.inlet()?.ring;
        ring.write_frame(self.tail, frame.head, frame.body).ok_or(NetError::Invalid)?;
        if frame.offload.segmentation.is_some() {
            // As it is in the ring, where the guest cannot change it any more.
            let mut first = [0; HEADERS];
            let first = &mut first[..len.min(HEADERS)];
            ring.read_frame(self.tail, first).ok_or(NetError::Invalid)?;
            frame.offload.check_headers(first, len)?;
        }
        ring.describe(self.tail, len, &frame.offload).ok_or(NetError::TooLong)?;
        self.tail = self.tail.after(len);
        self.wanted = 0;
        self.copied = self.copied.wrapping_add(frame.body.len() as u64);
        Ok(())
    }

    fn commit(&mut self) {
        if self.tail == self.published {
            return;
        }
        if let Ok(inlet) = self.inlet() {
            inlet.ring.tail.set(self.tail);
            self.lane.announce(self.index);
        }
        self.published = self.tail;
    }

    fn sources(&self) -> Sources {
        let inlet = self.inlet().ok().filter(|_| self.on_full == OnFull::Wait);
        inlet.map(|inlet| Source::Event(inlet.room.as_raw_fd())).into_iter().collect()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.commit();
        let Ok(inlet) = self.inlet() else { return Progress::More };
        // Whoever makes room, and whoever closes the receiver, does so under this lock or takes it
        // afterwards.
        let mut consumer = lock(&inlet.ring.consumer);
        let room = self.lane.has_room(inlet.ring.head.get(), self.tail, self.wanted);
        if !room && self.on_full == OnFull::Wait && self.lane.is_heard(self.index) {
            consumer.wanted = Some(self.wanted);
            drop(consumer);
            self.waiting = true;
            return Progress::Idle;
        }
        drop(consumer);
        self.stop_waiting();
        Progress::More
    }

    fn stop_waiting(&mut self) {
        if !std::mem::take(&mut self.waiting) {
            return;
        }
        if let Ok(inlet) = self.inlet() {
            lock(&inlet.ring.consumer).wanted = None;
            // Fails unless it has rung and nobody has read it.
            let _ = inlet.room.read();
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}

impl Drop for WireSender {
    fn drop(&mut self) {
        self.commit();
        self.stop_waiting();
        if let Ok(inlet) = self.inlet() {
            inlet.ring.sender.release();
        }
    }
}
