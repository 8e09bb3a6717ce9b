//! An NVMe namespace over PCI (NVM Express base specification 1.4).
//!
//! # Register accesses
//! Commands are issued and completed by the register accesses that Linux's nvme driver makes, so that a
//! count of them, or of the exits they cause, means here what it means there:
//! - issue: one write of a submission queue's tail doorbell for all commands submitted before one kick;
//! - completion, polled or by a message: one write of a completion queue's head doorbell for all
//!   completions found in one look. A look that finds none touches no register;
//! - interrupt by the pin: no other, since emptying the queue takes the pin back.
//!
//! Both doorbells count as such. While the disk is polled its completion queues do not interrupt at all,
//! as Linux has it for queues that it polls: turning interrupts on or off makes the queues anew.
//!
//! # What there is not
//! Data is described by PRPs, in one list of a page: a command moves 2 MiB at most. Namespaces with
//! metadata, controllers whose pages are larger than 4 KiB, SGLs, shadow doorbells, streams and
//! asynchronous events are not for this driver. A command that fails is not tried again. A controller
//! gets as long to become ready as CAP.TO says, which is two minutes at most; what CRTO says beyond
//! that since version 2.0 is not looked at.

mod admin;
mod controller;
mod disk;
mod identity;
mod options;
mod prp;
mod queue;
mod tags;
#[cfg(test)]
mod tests;

pub use options::Options;

use paraslot_spec::nvme::{DatasetRange, SubmissionEntry, dataset};
use zerocopy::little_endian::{U32, U64};

use crate::{DmaRegion, Error, Platform};
use controller::Controller;
use identity::{Identity, Namespace};
use queue::Pair;
use tags::Tags;

/// Most pairs of queues that the driver uses.
pub const MAX_QUEUES: usize = 8;

/// Bytes of the pages that a controller is told of.
const PAGE: usize = 4096;

/// The first namespace of an NVMe controller.
pub struct Nvme<'p, P> {
    controller: Controller<'p, P>,
    admin: Pair,
    /// ID of the next admin command.
    next_id: u16,
    pairs: [Option<Pair>; MAX_QUEUES],
    identity: Identity,
    namespace: Namespace,
    tags: Tags,
    /// A page for each tag: its list of PRPs, or of ranges.
    pages: DmaRegion,
    options: Options,
    /// Whether all pairs of queues are with the controller.
    live: bool,
}

impl<'p, P: Platform> Nvme<'p, P> {
    /// Sets up the first NVMe controller on bus 0, and its first active namespace.
    ///
    /// # Errors
    /// When there is none, it cannot be set up or lacks what the options ask for, or it cannot
    /// interrupt in the way that was asked for.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        options.check()?;
        let controller = Controller::new(platform, options)?;
        let per_queue = options.depth.div_ceil(options.queues);
        // A queue with as many entries as it has room for would look empty.
        let entries = per_queue + 1;
        if u32::from(entries) > controller.cap.max_queue_entries() {
            return Err(Error::Unsupported("so many requests in flight"));
        }
        let admin = Pair::new(platform, 0, Pair::ADMIN_ENTRIES)?;
        let mut pairs = [const { None }; MAX_QUEUES];
        for (id, pair) in (1..=options.queues).zip(&mut pairs) {
            *pair = Some(Pair::new(platform, id, entries)?);
        }
        let pages = platform.allocate(PAGE * usize::from(options.depth)).ok_or(Error::NoMemory)?;
        let mut this = Self {
            controller,
            admin,
            next_id: 0,
            pairs,
            identity: Identity::default(),
            namespace: Namespace::default(),
            tags: Tags::new(options.depth),
            pages,
            options,
            live: false,
        };
        match this.start() {
            Ok(()) => Ok(this),
            Err(error) => {
                // That it could not be set up says more than that it cannot be stopped either.
                let _ = this.controller.disable();
                Err(error)
            }
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        self.controller.enable(&self.admin)?;
        self.identify()?;
        self.request_queues()?;
        self.create_pairs(false)
    }

    /// The namespace's ID.
    pub fn namespace_id(&self) -> u32 {
        self.namespace.id
    }

    /// Whether the controller says that writes may be lost before they are flushed.
    pub fn has_write_cache(&self) -> bool {
        self.identity.write_cache
    }

    /// The index of a tag's pair of queues.
    fn place(&self, tag: u16) -> usize {
        match self.options.queues {
            // Spares the usual case a division.
            1 => 0,
            queues => usize::from(tag % queues),
        }
    }

    /// The tag's page.
    fn page(&self, tag: u16) -> DmaRegion {
        self.pages.part(PAGE * usize::from(tag), PAGE)
    }

    /// Puts a command on its queue; the tag was checked.
    fn issue(&mut self, tag: u16, mut entry: SubmissionEntry) {
        entry.command_id = tag.into();
        entry.namespace = U32::new(self.namespace.id);
        let place = self.place(tag);
        if let Some(Some(pair)) = self.pairs.get_mut(place) {
            pair.push(&entry);
            self.tags.begin(tag);
        }
    }

    /// Writes the ranges of a discard to the tag's page; returns how many there are.
    fn write_ranges(&self, tag: u16, start: u64, blocks: u64) -> Result<u32, Error> {
        let page = self.page(tag);
        let (mut start, mut left) = (start, blocks);
        for index in 0..dataset::MAX_RANGES {
            let count = u32::try_from(left).unwrap_or(u32::MAX);
            let mut range = DatasetRange::default();
            (range.blocks, range.start) = (U32::new(count), U64::new(start));
            let words: [U64; 2] = zerocopy::transmute!(range);
            let at = size_of::<DatasetRange>() * index;
            page.write64(at, words[0].get());
            page.write64(at + 8, words[1].get());
            (start, left) = (start + u64::from(count), left - u64::from(count));
            if left == 0 {
                return Ok(u32::try_from(index).unwrap_or(0) + 1);
            }
        }
        Err(Error::Request("too long"))
    }
}

const _: () = assert!(dataset::MAX_RANGES * size_of::<DatasetRange>() <= PAGE);
