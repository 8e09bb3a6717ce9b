//! Moving frames between guest memory and host memory.

use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::{Frame, NetError, Room};

impl Frame<'_> {
    /// Copies its first bytes into `bytes`, each read once; returns how many there were.
    pub fn copy_to(&self, bytes: &mut [u8]) -> usize {
        let (head, body) = bytes.split_at_mut(self.head.len().min(bytes.len()));
        head.copy_from_slice(&self.head[..head.len()]);
        head.len() + self.body.copy_to(body)
    }
}

impl Room<'_> {
    /// Writes a frame in two parts to the start of the room; returns its length.
    ///
    /// # Errors
    /// [`NetError::TooLong`] if it is longer than the room, [`NetError::Invalid`] if the room is guest
    /// memory that is not for writing. Nothing is written then.
    pub fn write(&mut self, header: &[u8], payload: &[u8]) -> Result<usize, NetError> {
        let len = header.len() + payload.len();
        self.check(len)?;
        match self {
            Self::Host(bytes) => {
                let (first, rest) = bytes.split_at_mut(header.len());
                first.copy_from_slice(header);
                rest[..payload.len()].copy_from_slice(payload);
            }
            Self::Guest(buffers) => scatter(buffers, header, payload),
        }
        Ok(len)
    }

    /// The same room, for a call.
    pub(super) fn reborrow(&mut self) -> Room<'_> {
        match self {
            Self::Guest(buffers) => Room::Guest(buffers),
            Self::Host(bytes) => Room::Host(bytes),
        }
    }

    /// Whether a frame of `len` bytes can be written to it.
    pub(super) fn check(&self, len: usize) -> Result<(), NetError> {
        match self {
            Self::Guest(buffers) if buffers.direction() != Direction::FromDevice => {
                Err(NetError::Invalid)
            }
            _ if len > self.len() => Err(NetError::TooLong),
            _ => Ok(()),
        }
    }

    /// Bytes that a frame of `len` bytes, written to it, takes across into guest memory.
    pub(super) fn copied(&self, len: usize) -> u64 {
        match self {
            Self::Guest(_) => len as u64,
            Self::Host(_) => 0,
        }
    }
}

/// Writes `header` and then `payload` to the start of `buffers`, which has room for them.
fn scatter(buffers: &DmaBuffers, header: &[u8], payload: &[u8]) {
    let (mut part, mut next) = (header, payload);
    for slice in buffers.slices() {
        let mut done = 0;
        while let Ok(rest) = slice.offset(done) {
            if part.is_empty() {
                part = std::mem::take(&mut next);
            }
            let count = part.len().min(rest.len());
            if count == 0 {
                break;
            }
            rest.copy_from(&part[..count]);
            part = &part[count..];
            done += count;
        }
    }
    buffers.mark_written(header.len() + payload.len());
}
