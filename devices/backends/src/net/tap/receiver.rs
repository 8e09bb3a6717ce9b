//! The way in through one queue.

use std::io;

use paraslot_device::{DmaBuffers, Progress, Sources};
use paraslot_spec::virtio_net::Header;
use zerocopy::IntoBytes;

use super::header;
use super::queue::{Lease, net_error};
use super::sys::{IOV_MAX, ReadRoom, Readiness, Vectors};
use crate::net::{MAX_FRAME, NetError, NetReceiver, Received, Room};

/// Receives frames straight into guest memory, each with one system call.
pub(super) struct Receiver {
    lease: Lease,
    vectors: Vectors,
    bounce: Vec<u8>,
    copied: u64,
    /// The queue is in error.
    broken: bool,
    /// That has been told.
    told: bool,
}

impl Receiver {
    pub(super) fn new(lease: Lease) -> Self {
        Self {
            lease,
            vectors: Vectors::default(),
            bounce: Vec::new(),
            copied: 0,
            broken: false,
            told: false,
        }
    }

    /// The next frame, with the header before it.
    fn read(&mut self, mut room: Room<'_>) -> io::Result<Result<Received, NetError>> {
        let fd = self.lease.queue.fd();
        let capacity = room.len();
        let mut header = Header::default();
        // Beyond the room: whether the frame was longer.
        let mut spare = [0];
        let bytes = header.as_mut_bytes();
        let count = match &mut room {
            Room::Host(room) => self.vectors.read(fd, bytes, ReadRoom::Host(room), &mut spare)?,
            Room::Guest(guest) if guest.host_ranges().len() <= IOV_MAX - 2 => {
                let count = self.vectors.read(fd, bytes, ReadRoom::Guest(guest), &mut spare)?;
                guest.mark_written(count.saturating_sub(header::LEN));
                count
            }
            Room::Guest(guest) => {
                self.bounce.resize(capacity.min(MAX_FRAME), 0);
                let room = ReadRoom::Host(&mut self.bounce);
                let count = self.vectors.read(fd, bytes, room, &mut spare)?;
                self.copied = self.copied.wrapping_add(copy(&self.bounce, guest, count));
                count
            }
        };
        let Some(len) = count.checked_sub(header::LEN) else {
            // No message at all is the end of the file: there will be no more.
            return if count == 0 {
                Err(io::Error::from_raw_os_error(libc::EBADFD))
            } else {
                Ok(Err(NetError::Invalid))
            };
        };
        Ok(if len > capacity.min(MAX_FRAME) {
            Err(NetError::TooLong)
        } else {
            header::decode(&header, len).map(|offload| Received { len, offload })
        })
    }
}

/// Brings what came into `bounce`, if it is all, to where it belongs; returns how many bytes.
fn copy(bounce: &[u8], guest: &DmaBuffers, count: usize) -> u64 {
    let bytes = count.checked_sub(header::LEN).and_then(|len| bounce.get(..len));
    bytes.map_or(0, |bytes| guest.copy_from(bytes) as u64)
}

impl NetReceiver for Receiver {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        let error = match self.read(room) {
            Ok(result) => {
                (self.broken, self.told) = (false, false);
                self.lease.disarm();
                return result.map(Some);
            }
            Err(error) => net_error(error),
        };
        match error {
            NetError::Busy if !self.broken => Ok(None),
            NetError::Busy | NetError::Down => {
                self.lease.disarm();
                self.broken = true;
                if std::mem::replace(&mut self.told, true) { Ok(None) } else { Err(NetError::Down) }
            }
            error => {
                self.lease.disarm();
                Err(error)
            }
        }
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([self.lease.source()])
    }

    fn prepare_to_wait(&mut self) -> Progress {
        match self.lease.readiness() {
            Readiness::Ready if !self.broken => Progress::More,
            Readiness::Waits => {
                (self.broken, self.told) = (false, false);
                self.lease.arm()
            }
            // It stays like this, so nothing would come of waiting for a change; it is told once.
            Readiness::Ready | Readiness::Broken => {
                self.lease.disarm();
                self.broken = true;
                if self.told { Progress::Idle } else { Progress::More }
            }
        }
    }

    fn stop_waiting(&mut self) {
        self.lease.disarm();
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}
