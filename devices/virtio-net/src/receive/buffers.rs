//! Buffers that the driver has made available, taken in advance.

use std::collections::VecDeque;

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::virtio_net::HashHeader;
use paraslot_virtio::{Chain, Queue, Segment};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

/// Pieces of memory above which no further chain is taken: what a system call takes at once.
const MOST_PIECES: usize = 1024;

/// Chains that were popped for frames to come, the oldest first.
pub(super) struct Buffers {
    header_len: usize,
    /// A frame may fill several chains.
    mergeable: bool,
    queue_size: usize,
    chains: VecDeque<Taken>,
    /// All their bytes, but for the header's at the start of the first.
    room: DmaBuffers,
    /// Chains that a frame fills, used again for each.
    filled: Vec<(u16, u32)>,
}

struct Taken {
    chain: Chain,
    /// Bytes that the device can write.
    len: usize,
}

fn pieces(chain: &Chain) -> impl Iterator<Item = (GuestAddress, usize)> {
    chain.writable.iter().map(|segment| (segment.address, segment.len as usize))
}

impl Buffers {
    pub(super) fn new(header_len: usize, mergeable: bool, queue_size: u16) -> Self {
        Self {
            header_len,
            mergeable,
            queue_size: queue_size.into(),
            chains: VecDeque::new(),
            room: DmaBuffers::empty(Direction::FromDevice),
            filled: Vec::new(),
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Where the next frame goes.
    pub(super) fn room(&self) -> &DmaBuffers {
        &self.room
    }

    /// Whether the driver can make the room any larger.
    pub(super) fn can_grow(&self) -> bool {
        if self.mergeable {
            self.chains.len() < self.queue_size && self.room.host_ranges().len() < MOST_PIECES
        } else {
            self.chains.is_empty()
        }
    }

    /// Takes chains until there is room for a frame of `wanted` bytes, as far as there are any.
    pub(super) fn gather<A: DmaSpace>(
        &mut self,
        queue: &mut Queue<A>,
        memory: &Memory<A>,
        wanted: usize,
    ) {
        while self.room.len() < wanted && self.can_grow() {
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = queue.pop(memory) else { return };
            queue.disable_notifications(memory);
            let len = pieces(&chain).fold(0, |sum: usize, (_, len)| sum.saturating_add(len));
            // Without a place for a header nothing can be told of a frame, not even that there is
            // none.
            if len < self.header_len || memory.extend(&mut self.room, pieces(&chain)).is_err() {
                queue.fail();
                return;
            }
            if self.chains.is_empty() {
                self.room.advance(self.header_len);
            }
            self.chains.push_back(Taken { chain, len });
        }
    }

    /// Resolves the buffers anew if the guest's memory map has changed.
    pub(super) fn refresh<A: DmaSpace>(&mut self, queue: &mut Queue<A>, memory: &Memory<A>) {
        if self.chains.is_empty() || memory.resolved(&self.room) {
            return;
        }
        self.room.clear();
        for taken in &self.chains {
            if memory.extend(&mut self.room, pieces(&taken.chain)).is_err() {
                queue.fail();
                break;
            }
        }
        self.room.advance(self.header_len);
    }

    /// Copies a frame to where frames go.
    pub(super) fn fill(&self, frame: &[u8]) {
        self.room.copy_from(frame);
    }

    /// Gives the driver the first `len` bytes of the room as a frame with this header. `false` if it
    /// cannot be given.
    pub(super) fn give<A: DmaSpace>(
        &mut self,
        queue: &mut Queue<A>,
        memory: &Memory<A>,
        mut header: HashHeader,
        len: usize,
    ) -> bool {
        self.filled.clear();
        let mut left = self.header_len.saturating_add(len);
        let mut bytes = 0usize;
        for taken in &self.chains {
            let part = taken.len.min(left);
            self.filled.push((taken.chain.head, u32::try_from(part).unwrap_or(u32::MAX)));
            bytes = bytes.saturating_add(taken.len);
            left -= part;
            if left == 0 {
                break;
            }
        }
        // No more chains than a queue has entries.
        header.header.num_buffers = u16::try_from(self.filled.len()).unwrap_or(u16::MAX).into();
        let header = header.as_bytes().get(..self.header_len);
        let first = self.chains.front().zip(header);
        let told =
            first.is_some_and(|(first, header)| write(memory, &first.chain.writable, header));
        if left != 0 || !told {
            // Memory that was there when it was resolved is not any more.
            queue.fail();
            return false;
        }
        queue.push_used_together(memory, &self.filled);
        self.room.advance(bytes.saturating_sub(self.header_len));
        self.chains.drain(..self.filled.len());
        if !self.chains.is_empty() {
            self.room.advance(self.header_len);
        }
        true
    }

    /// Asks the driver to notify of buffers; `true` if there are some.
    pub(super) fn ask<A: DmaSpace>(&mut self, queue: &mut Queue<A>, memory: &Memory<A>) -> bool {
        queue.enable_notifications(memory)
    }

    /// Gives all chains back to the queue, as if they had never been taken.
    pub(super) fn give_back<A: DmaSpace>(&mut self, queue: &mut Queue<A>) {
        while let Some(taken) = self.chains.pop_back() {
            queue.undo_pop(taken.chain.head);
        }
        self.room.clear();
    }
}

/// Writes `bytes` to the start of a chain.
fn write<A: DmaSpace>(memory: &Memory<A>, segments: &[Segment], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    for segment in segments {
        let count = rest.len().min(segment.len as usize);
        let (now, later) = rest.split_at(count);
        if memory.write_slice(now, segment.address).is_err() {
            return false;
        }
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    rest.is_empty()
}
