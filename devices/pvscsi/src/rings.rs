//! The rings in guest memory, and the page with both sides' places in them.
//!
//! Of that page the device trusts nothing but the driver's three indices, each read once for a
//! decision and compared with the size of its ring; its own places are kept here.

mod saved;

use std::sync::atomic::Ordering;

use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::pvscsi::{
    COMPLETIONS_PER_PAGE, CompletionDescriptor, MAX_MESSAGE_PAGES, MAX_RING_PAGES,
    MESSAGES_PER_PAGE, MessageDescriptor, PAGE_SHIFT, PAGE_SIZE, REQUESTS_PER_PAGE,
    RequestDescriptor, SetupMsgRing, SetupRings, state,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

pub(crate) use saved::RingsState;

/// What [`state::CALL_THRESHOLD`] says while the worker sleeps: a driver kicks for any request.
pub(crate) const KICK_ALWAYS: u32 = 1;
/// What it says while the worker looks by itself: more than any ring has.
pub(crate) const KICK_NEVER: u32 = u32::MAX;

/// A ring or its state is not in guest memory (any more).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost;

/// A ring's pages.
struct Pages {
    pages: Vec<GuestAddress>,
    per_page: u32,
    /// A power of two.
    entries: u32,
}

impl Pages {
    /// `count` pages of those in `numbers`, all of which must be guest memory. The count must be a
    /// power of two, as VMware's header file says, and not more than there are numbers.
    fn new<A: DmaSpace>(
        memory: &Memory<A>,
        count: u32,
        numbers: &[U64],
        per_page: u32,
        access: Permissions,
    ) -> Option<Self> {
        if !count.is_power_of_two() {
            return None;
        }
        let numbers = numbers.get(..usize::try_from(count).ok()?)?;
        let pages = numbers
            .iter()
            .map(|number| page_at(memory, number.get(), access))
            .collect::<Option<Vec<_>>>()?;
        Some(Self { pages, per_page, entries: count.checked_mul(per_page)? })
    }

    /// Where the entry for `index` is.
    fn at(&self, index: u32) -> Option<GuestAddress> {
        let place = index & self.entries.wrapping_sub(1);
        let page = self.pages.get(usize::try_from(place / self.per_page).ok()?)?;
        let entry = u64::from(place % self.per_page) * (PAGE_SIZE / u64::from(self.per_page));
        page.0.checked_add(entry).map(GuestAddress)
    }
}

/// The page of this number, if it is guest memory.
fn page_at<A: DmaSpace>(
    memory: &Memory<A>,
    number: u64,
    access: Permissions,
) -> Option<GuestAddress> {
    let address = number.checked_mul(1 << PAGE_SHIFT).map(GuestAddress)?;
    let len = usize::try_from(PAGE_SIZE).ok()?;
    memory.check_range(address, len, access).then_some(address)
}

/// The rings as SETUP_RINGS and SETUP_MSG_RING said.
pub(crate) struct Rings {
    state: GuestAddress,
    requests: Pages,
    completions: Pages,
    messages: Option<Pages>,
    /// Requests taken, completions and messages put there, ever.
    taken: u32,
    completed: u32,
    told: u32,
    /// What the driver was told last of when to kick, if it wants to know.
    threshold: Option<u32>,
}

impl Rings {
    /// Sets up the request and completion rings, and their part of the state. `threshold` says whether
    /// the driver wants to know when to kick.
    pub(crate) fn new<A: DmaSpace>(
        memory: &Memory<A>,
        setup: &SetupRings,
        threshold: bool,
    ) -> Option<Self> {
        const _: () = assert!(MAX_RING_PAGES == 32);
        let state = page_at(memory, setup.state_page.get(), Permissions::ReadWrite)?;
        let requests = Pages::new(
            memory,
            setup.request_pages.get(),
            &setup.request_ring,
            REQUESTS_PER_PAGE,
            Permissions::Read,
        )?;
        let completions = Pages::new(
            memory,
            setup.completion_pages.get(),
            &setup.completion_ring,
            COMPLETIONS_PER_PAGE,
            Permissions::Write,
        )?;
        let mut this = Self {
            state,
            requests,
            completions,
            messages: None,
            taken: 0,
            completed: 0,
            told: 0,
            threshold: None,
        };
        for (offset, value) in [
            (state::REQUEST_PRODUCER, 0),
            (state::REQUEST_CONSUMER, 0),
            (state::REQUEST_ENTRIES_LOG2, this.requests.entries.trailing_zeros()),
            (state::COMPLETION_PRODUCER, 0),
            (state::COMPLETION_CONSUMER, 0),
            (state::COMPLETION_ENTRIES_LOG2, this.completions.entries.trailing_zeros()),
        ] {
            this.store(memory, offset, value).ok()?;
        }
        this.use_threshold(memory, threshold).ok()?;
        Some(this)
    }

    /// Sets up the message ring, and its part of the state. Says whether it could.
    pub(crate) fn set_up_messages<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        setup: &SetupMsgRing,
    ) -> bool {
        const _: () = assert!(MAX_MESSAGE_PAGES == 16);
        let pages = Pages::new(
            memory,
            setup.pages.get(),
            &setup.ring,
            MESSAGES_PER_PAGE,
            Permissions::Write,
        );
        let Some(pages) = pages else { return false };
        let entries = pages.entries.trailing_zeros();
        let stored = [
            (state::MESSAGE_PRODUCER, 0),
            (state::MESSAGE_CONSUMER, 0),
            (state::MESSAGE_ENTRIES_LOG2, entries),
        ]
        .into_iter()
        .try_for_each(|(offset, value)| self.store(memory, offset, value));
        self.told = 0;
        self.messages = stored.is_ok().then_some(pages);
        stored.is_ok()
    }

    /// Whether there is a message ring.
    pub(crate) fn has_messages(&self) -> bool {
        self.messages.is_some()
    }

    /// Has the driver go by the threshold, or kick always.
    pub(crate) fn use_threshold<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        wanted: bool,
    ) -> Result<(), Lost> {
        if wanted || self.threshold.is_some() {
            self.store(memory, state::CALL_THRESHOLD, KICK_ALWAYS)?;
        }
        self.threshold = wanted.then_some(KICK_ALWAYS);
        Ok(())
    }

    /// Tells the driver when to kick for reads and writes, if it wants to know. Says whether that is
    /// news to it.
    pub(crate) fn set_threshold<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        threshold: u32,
    ) -> Result<bool, Lost> {
        if self.threshold.is_none_or(|last| last == threshold) {
            return Ok(false);
        }
        self.store(memory, state::CALL_THRESHOLD, threshold)?;
        self.threshold = Some(threshold);
        Ok(true)
    }

    /// Requests that are there to be taken. More than the ring holds is nonsense, and none.
    pub(crate) fn available<A: DmaSpace>(&self, memory: &Memory<A>) -> Result<u32, Lost> {
        let producer = self.load(memory, state::REQUEST_PRODUCER)?;
        let count = producer.wrapping_sub(self.taken);
        Ok(if count > self.requests.entries { 0 } else { count })
    }

    /// Takes the next request, which must be available.
    pub(crate) fn take<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
    ) -> Result<RequestDescriptor, Lost> {
        let at = self.requests.at(self.taken).ok_or(Lost)?;
        let mut request = RequestDescriptor::new_zeroed();
        memory.read_slice(request.as_mut_bytes(), at).map_err(|_| Lost)?;
        self.taken = self.taken.wrapping_add(1);
        Ok(request)
    }

    /// Gives the driver the places of the requests that were taken.
    pub(crate) fn publish_taken<A: DmaSpace>(&self, memory: &Memory<A>) -> Result<(), Lost> {
        self.store(memory, state::REQUEST_CONSUMER, self.taken)
    }

    /// Completions that there is room for.
    pub(crate) fn room<A: DmaSpace>(&self, memory: &Memory<A>) -> Result<u32, Lost> {
        let consumer = self.load(memory, state::COMPLETION_CONSUMER)?;
        Ok(room(&self.completions, self.completed, consumer))
    }

    /// Puts a completion there, for which there must be room.
    pub(crate) fn complete<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        completion: &CompletionDescriptor,
    ) -> Result<(), Lost> {
        let at = self.completions.at(self.completed).ok_or(Lost)?;
        memory.write_slice(completion.as_bytes(), at).map_err(|_| Lost)?;
        self.completed = self.completed.wrapping_add(1);
        Ok(())
    }

    /// Shows the driver the completions that were put there.
    pub(crate) fn publish_completions<A: DmaSpace>(&self, memory: &Memory<A>) -> Result<(), Lost> {
        self.store(memory, state::COMPLETION_PRODUCER, self.completed)
    }

    /// Messages that there is room for.
    pub(crate) fn message_room<A: DmaSpace>(&self, memory: &Memory<A>) -> Result<u32, Lost> {
        let Some(pages) = &self.messages else { return Ok(0) };
        let consumer = self.load(memory, state::MESSAGE_CONSUMER)?;
        Ok(room(pages, self.told, consumer))
    }

    /// Puts a message there, for which there must be room, and shows it to the driver.
    pub(crate) fn tell<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        message: &MessageDescriptor,
    ) -> Result<(), Lost> {
        let at = self.messages.as_ref().and_then(|pages| pages.at(self.told)).ok_or(Lost)?;
        memory.write_slice(message.as_bytes(), at).map_err(|_| Lost)?;
        self.told = self.told.wrapping_add(1);
        self.store(memory, state::MESSAGE_PRODUCER, self.told)
    }

    fn load<A: DmaSpace>(&self, memory: &Memory<A>, offset: u64) -> Result<u32, Lost> {
        // The page was checked: it does not wrap. Acquire: what the index says is there to be read.
        let at = GuestAddress(self.state.0.wrapping_add(offset));
        memory.load::<u32>(at, Ordering::Acquire).map(u32::from_le).map_err(|_| Lost)
    }

    fn store<A: DmaSpace>(&self, memory: &Memory<A>, offset: u64, value: u32) -> Result<(), Lost> {
        let at = GuestAddress(self.state.0.wrapping_add(offset));
        memory.store(value.to_le(), at, Ordering::Release).map_err(|_| Lost)
    }
}

/// How many more entries the driver has room for, which has taken up to `consumer`.
fn room(pages: &Pages, produced: u32, consumer: u32) -> u32 {
    pages.entries.saturating_sub(produced.wrapping_sub(consumer))
}
