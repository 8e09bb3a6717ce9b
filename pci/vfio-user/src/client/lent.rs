//! Guest memory that the server reads and writes by messages.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use paraslot_device::{DmaSpace, Progress, Source, Worker};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::link::LIMIT;
use crate::channel::{Channel, Gone};
use crate::connection::{Message, Reply};
use crate::wire::{DmaAccess, Fields, Header, MAX_DATA, command, flags};

/// Who does what the server asks for.
pub(super) trait Lender: Send + Sync {
    /// What is answered to a command; nothing, if it wants no answer.
    fn answer(&self, message: &Message) -> Option<(Header, Vec<u8>)> {
        let reply = self.obey(message).unwrap_or_else(Reply::error);
        let wanted = message.header.flags & flags::NO_REPLY == 0;
        wanted.then(|| (reply.header(message.header), reply.payload))
    }

    /// Does a command; an errno if it cannot.
    fn obey(&self, message: &Message) -> Result<Reply, i32>;
}

/// Memory that the server may have, as far as it was told of it.
pub(super) struct Lent<A> {
    memory: A,
    /// By address.
    ranges: Vec<Range<u64>>,
}

impl<A> Lent<A> {
    pub(super) fn new(memory: A, mut ranges: Vec<Range<u64>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        Self { memory, ranges }
    }

    /// Whether the server was told of all of it.
    fn covers(&self, address: u64, len: usize) -> bool {
        let Some(end) = address.checked_add(len as u64) else { return false };
        let mut at = address;
        for range in &self.ranges {
            if range.contains(&at) {
                at = range.end;
            }
        }
        at >= end
    }
}

impl<A: DmaSpace> Lender for Lent<A> {
    fn obey(&self, message: &Message) -> Result<Reply, i32> {
        let reads = match message.header.command {
            command::DMA_READ => true,
            command::DMA_WRITE => false,
            _ => return Err(libc::EOPNOTSUPP),
        };
        let mut fields = Fields(&message.payload);
        let access = DmaAccess::parse(&mut fields).ok_or(libc::EINVAL)?;
        let len = usize::try_from(access.count).map_err(|_| libc::EINVAL)?;
        if len > MAX_DATA {
            return Err(libc::EINVAL);
        }
        if !self.covers(access.address, len) {
            return Err(libc::EFAULT);
        }
        let mut reply = Vec::with_capacity(DmaAccess::LEN + if reads { len } else { 0 });
        access.put(&mut reply);
        let (memory, address) = (self.memory.memory(), GuestAddress(access.address));
        // What the server reads and writes is in the order of its commands for the guest's processors too.
        fence(Ordering::SeqCst);
        if reads {
            reply.resize(DmaAccess::LEN + len, 0);
            let place = reply.get_mut(DmaAccess::LEN..).unwrap_or_default();
            memory.read_slice(place, address).map_err(|_| libc::EFAULT)?;
        } else {
            let data = Some(fields.rest()).filter(|data| data.len() == len).ok_or(libc::EINVAL)?;
            memory.write_slice(data, address).map_err(|_| libc::EFAULT)?;
        }
        fence(Ordering::SeqCst);
        Ok(Reply::of(reply))
    }
}

/// All of the guest's memory is shared, so there is nothing to do for the server.
pub(super) struct Nothing;

impl Lender for Nothing {
    fn obey(&self, _message: &Message) -> Result<Reply, i32> {
        Err(libc::EOPNOTSUPP)
    }
}

/// Does what the server asks for while nobody asks anything of the server.
pub(super) struct Attendant {
    channel: Arc<Channel>,
    lender: Arc<dyn Lender>,
    /// Has the socket in it until the connection ends: a socket that is closed stays readable.
    epoll: Epoll,
}

impl Attendant {
    pub(super) fn new(channel: Arc<Channel>, lender: Arc<dyn Lender>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let interest = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, channel.socket().as_raw_fd(), interest)?;
        Ok(Self { channel, lender, epoll })
    }
}

impl Worker for Attendant {
    fn sources(&self) -> Vec<Source> {
        vec![Source::Readable(self.epoll.as_raw_fd())]
    }

    fn service(&mut self) -> Progress {
        match self.channel.serve_what_came(LIMIT, &|message| self.lender.answer(message)) {
            Ok(true) => Progress::More,
            Ok(false) => Progress::Idle,
            Err(Gone) => {
                let socket = self.channel.socket().as_raw_fd();
                // It fails when that was done before.
                let _ = self.epoll.ctl(ControlOperation::Delete, socket, EpollEvent::default());
                Progress::Idle
            }
        }
    }

    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }

    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}

#[cfg(test)]
mod tests;
