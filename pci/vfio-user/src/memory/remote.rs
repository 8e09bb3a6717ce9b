//! Memory of the client's that is read and written by messages.

use std::sync::Arc;
use std::time::Duration;

use crate::channel::{Channel, Gone};
use crate::connection::{End, Message};
use crate::wire::{DmaAccess, MAX_DATA, command, flags};

/// What becomes of an access that the client refuses, or that cannot be made any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl From<Gone> for Refused {
    fn from(_: Gone) -> Self {
        Self
    }
}

/// The client, as somebody who reads and writes its memory when it is asked to.
pub(crate) struct Remote {
    channel: Arc<Channel>,
    /// Bytes to a message.
    most: usize,
    /// How long it may take to answer.
    limit: Duration,
}

impl Remote {
    /// None if the client takes no data.
    pub(crate) fn new(channel: Arc<Channel>, max_data: usize, limit: Duration) -> Option<Self> {
        let most = max_data.min(MAX_DATA);
        (most > 0).then_some(Self { channel, most, limit })
    }

    /// Reads `len` bytes; `take` is called with each part of them, and where that begins.
    pub(super) fn read(
        &self,
        address: u64,
        len: usize,
        mut take: impl FnMut(usize, &[u8]) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        let mut done = 0;
        while done < len {
            let now = self.most.min(len - done);
            let access =
                DmaAccess { address: address.wrapping_add(done as u64), count: now as u64 };
            let answer = self.request(command::DMA_READ, access, &[])?;
            let data = answer.payload.split_at_checked(DmaAccess::LEN);
            match data.filter(|(_, data)| data.len() == now) {
                Some((_, data)) => take(done, data)?,
                None => return Err(self.broken("an answer of another length than the read's")),
            }
            done += now;
        }
        Ok(())
    }

    /// Writes `data`.
    pub(super) fn write(&self, address: u64, data: &[u8]) -> Result<(), Refused> {
        let mut address = address;
        for part in data.chunks(self.most) {
            let access = DmaAccess { address, count: part.len() as u64 };
            let answer = self.request(command::DMA_WRITE, access, part)?;
            // The specification has the answer's count 4 bytes long, and everybody who implements it 8.
            if ![DmaAccess::LEN, DmaAccess::LEN - 4].contains(&answer.payload.len()) {
                return Err(self.broken("an answer to a write that is none"));
            }
            address = address.wrapping_add(part.len() as u64);
        }
        Ok(())
    }

    /// Bytes that are written at a time.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    fn request(&self, command: u16, access: DmaAccess, data: &[u8]) -> Result<Message, Refused> {
        let mut payload = Vec::with_capacity(DmaAccess::LEN + data.len());
        access.put(&mut payload);
        payload.extend_from_slice(data);
        let answer = self.channel.request(command, &payload, self.limit)?;
        if answer.header.flags & flags::ERROR != 0 {
            return Err(Refused);
        }
        // The answer repeats what it is one to.
        let said = answer.payload.get(..DmaAccess::LEN).unwrap_or(&answer.payload);
        if !payload.starts_with(said) {
            return Err(self.broken("an answer to another access"));
        }
        Ok(answer)
    }

    fn broken(&self, why: &'static str) -> Refused {
        self.channel.end(End::Protocol(why));
        Refused
    }
}
