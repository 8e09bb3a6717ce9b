//! What the workload needs of a disk, whatever it is attached by.

use crate::{Accesses, DmaRegion, Error};

/// Tags that a disk can have at most.
pub const MAX_DEPTH: usize = 256;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub enum Op<'a> {
    /// Fill the region from the disk.
    Read(&'a DmaRegion),
    /// Store the region on the disk.
    Write(&'a DmaRegion),
    /// Make completed writes durable.
    Flush,
    /// The contents of this many bytes do not matter any more.
    Discard(u64),
    /// This many bytes read as zeroes from now on.
    WriteZeroes(u64),
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Its tag, which is free again.
    pub tag: u16,
    /// Whether it was done; if not, the device's reason.
    pub result: Result<(), Failed>,
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The device reports an error.
    Io,
    /// The device does not support the request.
    Unsupported,
    /// The device says that it is done but has not moved all the data.
    Short,
    /// It was aborted on somebody's demand, or by a reset.
    Aborted,
}

/// Requests that have ended, in the order in which they were seen to.
#[derive(Debug)]
pub struct Completions {
    items: [Completion; MAX_DEPTH],
    len: usize,
}

impl Default for Completions {
    fn default() -> Self {
        Self { items: [Completion { tag: 0, result: Ok(()) }; MAX_DEPTH], len: 0 }
    }
}

impl Completions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one. There is room for as many as there are tags.
    pub fn push(&mut self, completion: Completion) {
        if let Some(place) = self.items.get_mut(self.len) {
            *place = completion;
            self.len += 1;
        }
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// All of them.
    pub fn as_slice(&self) -> &[Completion] {
        self.items.get(..self.len).unwrap_or_default()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A disk with requests in flight, told apart by tags from 0 to [`max_depth`](Self::max_depth) − 1.
///
/// Interrupts are off at first. Then [`poll`](Self::poll) looks for completions; with interrupts on,
/// [`handle`](Self::handle) does after each interrupt, and does what a handler must besides. Offsets
/// and lengths are in bytes, multiples of [`block_size`](Self::block_size).
pub trait Disk {
    /// Bytes.
    fn capacity(&self) -> u64;

    /// Bytes of a logical block.
    fn block_size(&self) -> u32;

    /// Most requests in flight.
    fn max_depth(&self) -> u16;

    /// Most bytes that one read or write can move.
    fn max_transfer(&self) -> u32;

    /// Prepares a request. The device hears of it with the next [`kick`](Self::kick), and must be left
    /// alone with the region until it has completed.
    ///
    /// # Errors
    /// When the request is wrong or not supported, or [`Error::Busy`] if it cannot be queued now.
    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error>;

    /// Tells the device of what was submitted.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn kick(&mut self) -> Result<(), Error>;

    /// Adds what has completed to `completions`, without waiting.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn poll(&mut self, completions: &mut Completions) -> Result<(), Error>;

    /// Does what is to be done when the disk has interrupted, and adds what has completed to
    /// `completions`. Completions that come later cause another interrupt.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn handle(&mut self, completions: &mut Completions) -> Result<(), Error>;

    /// Turns interrupts on or off. Nothing must be in flight.
    ///
    /// # Errors
    /// When the device has none that the driver could use, or requests are in flight.
    fn set_interrupts(&mut self, on: bool) -> Result<(), Error>;

    /// The platform's number of the interrupt that the disk raises.
    fn interrupt(&self) -> u8;

    /// Register accesses so far.
    fn accesses(&self) -> Accesses;

    /// Stops the device: afterwards it touches no memory. What was in flight is lost.
    ///
    /// # Errors
    /// When the device does not stop.
    fn shutdown(&mut self) -> Result<(), Error>;
}

/// Checks a request's range against a disk.
pub(crate) fn check_range(disk: &impl Disk, offset: u64, len: u64) -> Result<(), Error> {
    check_extent(disk.capacity(), disk.block_size(), offset, len)
}

/// Checks a range against a disk's capacity and block size.
pub(crate) fn check_extent(capacity: u64, block: u32, offset: u64, len: u64) -> Result<(), Error> {
    let block = u64::from(block);
    if !offset.is_multiple_of(block) || !len.is_multiple_of(block) || len == 0 {
        return Err(Error::Request("not a multiple of the block size"));
    }
    match offset.checked_add(len) {
        Some(end) if end <= capacity => Ok(()),
        _ => Err(Error::Request("outside the disk")),
    }
}
