//! The rings, and the page in which both sides keep their places in them.

use core::mem::offset_of;

use paraslot_spec::pvscsi::{
    COMPLETIONS_PER_PAGE, CompletionDescriptor, MESSAGES_PER_PAGE, MessageDescriptor, PAGE_SHIFT,
    PAGE_SIZE, REQUESTS_PER_PAGE, RequestDescriptor, RingsState, SetupMsgRing, SetupRings,
};
use zerocopy::little_endian::{U32, U64};

use crate::{DmaRegion, Error, Platform};

const PAGE: usize = 4096;
/// 64-bit words of a request that are written; zeroes follow.
const WORDS: usize = 9;
/// Pages of the message ring, as Linux has it.
const MESSAGE_PAGES: u32 = 1;

/// Offset of a field of the rings' state.
macro_rules! state {
    ($field:ident) => {
        offset_of!(RingsState, $field)
    };
}

/// A ring that the adapter fills: where it is, and how far it has been emptied.
struct Filled {
    memory: DmaRegion,
    entries: u32,
    entry_len: usize,
    /// Offset of the adapter's index, and of the driver's, in the state.
    producer: usize,
    consumer: usize,
    /// What the driver's index is to be.
    next: u32,
    /// The adapter's index, as last seen. It writes to that cache line, so it is not looked at again
    /// before all those were taken.
    seen: u32,
}

impl Filled {
    /// Offset of the next entry, if there is one.
    fn next(&mut self, state: &DmaRegion) -> Result<Option<usize>, Error> {
        if self.seen == self.next {
            let producer = state.load32(self.producer);
            if producer == self.next {
                return Ok(None);
            }
            if producer.wrapping_sub(self.next) > self.entries {
                return Err(Error::Protocol("more on a ring than it has room for"));
            }
            self.seen = producer;
        }
        let index = self.next & (self.entries - 1);
        self.next = self.next.wrapping_add(1);
        Ok(Some(self.entry_len * usize::try_from(index).unwrap_or(0)))
    }

    /// Lets the adapter have the room of what was taken.
    fn release(&self, state: &DmaRegion) {
        state.store32(self.consumer, self.next);
    }

    fn clear(&mut self) {
        self.memory.fill_pattern(0, self.memory.len(), 0, 0);
        (self.next, self.seen) = (0, 0);
    }
}

/// A completion as the adapter has written it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completed {
    pub(super) context: u64,
    pub(super) data_len: u64,
    pub(super) sense_len: u32,
    pub(super) host_status: u16,
    pub(super) scsi_status: u16,
}

/// The rings and their state.
pub(super) struct Rings {
    state: DmaRegion,
    pages: u32,
    requests: DmaRegion,
    /// Index of the next request.
    next: u32,
    /// The same, as the adapter was last told.
    published: u32,
    completions: Filled,
    messages: Option<Filled>,
}

fn allocate<P: Platform>(platform: &P, pages: u32) -> Result<DmaRegion, Error> {
    let len = PAGE * usize::try_from(pages).unwrap_or(0);
    platform.allocate(len).ok_or(Error::NoMemory)
}

/// The numbers of a ring's pages.
fn pages<const MAX: usize>(ring: &DmaRegion) -> [U64; MAX] {
    core::array::from_fn(|index| match index * PAGE < ring.len() {
        true => U64::new(ring.physical(index * PAGE) >> PAGE_SHIFT),
        false => U64::new(0),
    })
}

impl Rings {
    /// Rings for `depth` requests, and one for messages if there are any. As in Linux, the ring of
    /// completions has as many pages as that of requests, so that it always has room.
    pub(super) fn new<P: Platform>(
        platform: &P,
        depth: u16,
        messages: bool,
    ) -> Result<Self, Error> {
        let pages = u32::from(depth).div_ceil(REQUESTS_PER_PAGE).next_power_of_two();
        let completions = Filled {
            memory: allocate(platform, pages)?,
            entries: pages * COMPLETIONS_PER_PAGE,
            entry_len: size_of::<CompletionDescriptor>(),
            producer: state!(completion_producer),
            consumer: state!(completion_consumer),
            next: 0,
            seen: 0,
        };
        let messages = match messages {
            false => None,
            true => Some(Filled {
                memory: allocate(platform, MESSAGE_PAGES)?,
                entries: MESSAGE_PAGES * MESSAGES_PER_PAGE,
                entry_len: size_of::<MessageDescriptor>(),
                producer: state!(message_producer),
                consumer: state!(message_consumer),
                next: 0,
                seen: 0,
            }),
        };
        Ok(Self {
            state: allocate(platform, 1)?,
            pages,
            requests: allocate(platform, pages)?,
            next: 0,
            published: 0,
            completions,
            messages,
        })
    }

    /// Empties them. The adapter must have been reset.
    pub(super) fn clear(&mut self) {
        self.state.fill_pattern(0, self.state.len(), 0, 0);
        self.requests.fill_pattern(0, self.requests.len(), 0, 0);
        (self.next, self.published) = (0, 0);
        self.completions.clear();
        if let Some(messages) = &mut self.messages {
            messages.clear();
        }
    }

    /// Where they are.
    pub(super) fn descriptor(&self) -> SetupRings {
        SetupRings {
            request_pages: U32::new(self.pages),
            completion_pages: U32::new(self.pages),
            state_page: U64::new(self.state.physical(0) >> PAGE_SHIFT),
            request_ring: pages(&self.requests),
            completion_ring: pages(&self.completions.memory),
        }
    }

    /// Where the ring of messages is.
    pub(super) fn message_descriptor(&self) -> Option<SetupMsgRing> {
        let messages = self.messages.as_ref()?;
        let mut descriptor = SetupMsgRing::default();
        descriptor.pages = U32::new(MESSAGE_PAGES);
        descriptor.ring = pages(&messages.memory);
        Some(descriptor)
    }

    /// Whether there is a ring of messages.
    pub(super) fn has_messages(&self) -> bool {
        self.messages.is_some()
    }

    /// Whether the adapter sees the rings' sizes as they are, once it knows where they are.
    pub(super) fn are_taken(&self) -> bool {
        let agrees = |field, entries: u32| self.state.read32(field) == entries.trailing_zeros();
        agrees(state!(request_entries_log2), self.pages * REQUESTS_PER_PAGE)
            && agrees(state!(completion_entries_log2), self.completions.entries)
            && self
                .messages
                .as_ref()
                .is_none_or(|ring| agrees(state!(message_entries_log2), ring.entries))
    }

    /// Puts a request on its ring. There must be no more with the adapter than there is room for.
    pub(super) fn push(&mut self, words: [u64; WORDS]) {
        let index = self.next & (self.pages * REQUESTS_PER_PAGE - 1);
        let offset = size_of::<RequestDescriptor>() * usize::try_from(index).unwrap_or(0);
        for (index, word) in words.into_iter().enumerate() {
            self.requests.write64(offset + 8 * index, word);
        }
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the adapter what was pushed; returns whether there was anything.
    pub(super) fn publish(&mut self) -> bool {
        if self.published == self.next {
            return false;
        }
        self.state.store32(state!(request_producer), self.next);
        self.published = self.next;
        true
    }

    /// Whether so many requests wait to be taken that the adapter wants to be kicked for reads and
    /// writes.
    pub(super) fn wants_kick(&self) -> bool {
        let taken = self.state.read32(state!(request_consumer));
        self.published.wrapping_sub(taken) >= self.state.read32(state!(call_threshold))
    }

    /// Takes the next completion.
    pub(super) fn pop(&mut self) -> Result<Option<Completed>, Error> {
        let Some(at) = self.completions.next(&self.state)? else { return Ok(None) };
        let ring = &self.completions.memory;
        Ok(Some(Completed {
            context: ring.read64(at + offset_of!(CompletionDescriptor, context)),
            data_len: ring.read64(at + offset_of!(CompletionDescriptor, data_len)),
            sense_len: ring.read32(at + offset_of!(CompletionDescriptor, sense_len)),
            host_status: ring.read16(at + offset_of!(CompletionDescriptor, host_status)),
            scsi_status: ring.read16(at + offset_of!(CompletionDescriptor, scsi_status)),
        }))
    }

    /// Lets the adapter have the room of the completions that were taken.
    pub(super) fn release(&self) {
        self.completions.release(&self.state);
    }

    /// Takes the messages that are there now.
    pub(super) fn messages(
        &mut self,
        mut visit: impl FnMut(&DmaRegion, usize),
    ) -> Result<(), Error> {
        let Some(ring) = &mut self.messages else { return Ok(()) };
        while let Some(at) = ring.next(&self.state)? {
            visit(&ring.memory, at);
            // What comes meanwhile has to wait, so that this ends.
            if ring.next == ring.seen {
                break;
            }
        }
        ring.release(&self.state);
        Ok(())
    }
}

const _: () = {
    assert!(PAGE as u64 == PAGE_SIZE && PAGE == 1 << PAGE_SHIFT);
    assert!(offset_of!(RequestDescriptor, context) == 0);
    assert!(offset_of!(RequestDescriptor, data_address) == 8);
    assert!(offset_of!(RequestDescriptor, data_len) == 16);
    assert!(offset_of!(RequestDescriptor, sense_address) == 24);
    assert!(offset_of!(RequestDescriptor, sense_len) == 32);
    assert!(offset_of!(RequestDescriptor, flags) == 36);
    assert!(offset_of!(RequestDescriptor, cdb) == 40);
    assert!(offset_of!(RequestDescriptor, cdb_len) == 56);
    assert!(offset_of!(RequestDescriptor, lun) == 57);
    assert!(offset_of!(RequestDescriptor, tag) == 65);
    assert!(offset_of!(RequestDescriptor, bus) == 66);
    assert!(offset_of!(RequestDescriptor, target) == 67);
    assert!(offset_of!(RequestDescriptor, vcpu_hint) == 68);
    assert!(8 * WORDS <= size_of::<RequestDescriptor>());
};
