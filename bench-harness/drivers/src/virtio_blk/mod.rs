//! virtio-blk (VIRTIO 1.4, 5.2).

mod config;
mod disk;

pub use config::Options;

use core::mem::offset_of;

use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, MAX_QUEUE_SIZE};
use paraslot_spec::virtio::{device_type, feature};
use paraslot_spec::virtio_blk::{
    Config, ID_LEN, RequestHeader, SECTOR_SIZE, feature as blk, request, status,
};

use config::{Limits, read_config};

use crate::disk::check_range;
use crate::error::wait_until;
use crate::virtio::{NotifyAddress, SplitQueue, Transport, find, write_descriptor};
use crate::{
    Completion, Completions, Disk, DmaRegion, Error, Failed, MAX_DEPTH, MsiMessage, Platform,
};

/// Queues that are used at most.
pub const MAX_QUEUES: usize = 16;
/// Entries of a queue that are used at most.
const MAX_ENTRIES: u16 = 1024;
/// Descriptors of a request: header, data, status.
const CHAIN: u16 = 3;
/// How long the requests that [`VirtioBlk::id`] makes may take, in milliseconds.
const ID_MS: u64 = 5000;

/// What each tag has in memory.
mod slot {
    /// The request's header, 16 bytes.
    pub(super) const HEADER: usize = 0;
    /// The range of a discard or write zeroes request, 16 bytes.
    pub(super) const RANGE: usize = 16;
    /// The status, written by the device.
    pub(super) const STATUS: usize = 32;
    /// The indirect table, 48 bytes.
    pub(super) const TABLE: usize = 48;
    /// Bytes of all that: whole cache lines.
    pub(super) const LEN: usize = 128;
}

/// What a tag's chain was last set up for; what has not changed is not written again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shape {
    kind: u32,
    address: u64,
    len: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    shape: Option<Shape>,
    /// While it is in flight: bytes that the device must have written, the status included.
    written: Option<u32>,
}

struct Queue {
    ring: SplitQueue,
    notify: NotifyAddress,
}

/// A virtio-blk disk.
///
/// Each tag has its chain: three descriptors of its queue, or one that refers to an indirect table
/// where the queue is too small for that. The chain is set up once; a request like the one before it
/// changes the sector and the status byte, no more.
pub struct VirtioBlk<'p, P> {
    transport: Transport<'p, P>,
    queues: [Option<Queue>; MAX_QUEUES],
    queue_count: u16,
    slots: DmaRegion,
    tags: [Tag; MAX_DEPTH],
    options: Options,
    indirect: bool,
    capacity: u64,
    block_size: u32,
    limits: Limits,
    read_only: bool,
    in_flight: u16,
}

impl<'p, P: Platform> VirtioBlk<'p, P> {
    /// Sets up the first virtio-blk device on bus 0.
    ///
    /// # Errors
    /// When there is none, it cannot be set up, or it is too small for the depth or queues asked for.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        let queues = options.queues;
        if !(1..=MAX_DEPTH).contains(&usize::from(options.depth))
            || !(1..=MAX_QUEUES).contains(&usize::from(queues))
        {
            return Err(Error::Request("depth or queues"));
        }
        let function = find(platform, device_type::BLOCK).ok_or(Error::NotFound)?;
        let transport = Transport::new(function, options.accept)?;
        let (capacity, block_size, limits) = read_config(&transport)?;
        let offered = match transport.has(blk::MQ) {
            true => transport.config16(offset_of!(Config, num_queues)),
            false => 1,
        };
        if offered.min(transport.queues()) < queues {
            return Err(transport.fail(Error::Unsupported("so many queues")));
        }
        let slots =
            platform.allocate(slot::LEN * usize::from(options.depth)).ok_or(Error::NoMemory)?;
        let mut this = Self {
            read_only: transport.has(blk::RO),
            transport,
            queues: [const { None }; MAX_QUEUES],
            queue_count: queues,
            slots,
            tags: [Tag::default(); MAX_DEPTH],
            options,
            indirect: false,
            capacity,
            block_size,
            limits,
            in_flight: 0,
        };
        let result = this.start();
        match result {
            Ok(()) => Ok(this),
            Err(error) => Err(this.transport.fail(error)),
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        let per_queue = self.options.depth.div_ceil(self.queue_count);
        // All queues get the same layout, the one that the smallest allows.
        let mut size = MAX_ENTRIES.min(MAX_QUEUE_SIZE);
        for index in 0..self.queue_count {
            size = self.transport.queue_size(index, size)?;
        }
        // A chain in the queue itself saves the device a look at another table.
        self.indirect = size < per_queue * CHAIN;
        let enough = match self.indirect {
            true => self.transport.has(feature::INDIRECT_DESC) && size >= per_queue,
            false => true,
        };
        if !enough {
            return Err(Error::Unsupported("so many requests in flight"));
        }
        let event_idx = self.transport.has(feature::EVENT_IDX);
        for index in 0..self.queue_count {
            let ring = SplitQueue::new(self.transport.platform(), size, event_idx)?;
            let notify = self.enable_queue(index, &ring)?;
            if let Some(queue) = self.queues.get_mut(usize::from(index)) {
                *queue = Some(Queue { ring, notify });
            }
        }
        for tag in 0..self.options.depth {
            self.prepare_chain(tag);
        }
        self.transport.driver_ok();
        Ok(())
    }

    fn message(&self) -> MsiMessage {
        self.transport.platform().interrupt_message(self.options.interrupt)
    }

    fn enable_queue(&self, index: u16, ring: &SplitQueue) -> Result<NotifyAddress, Error> {
        // A vector of its own for each queue, if there are enough; they all send the same message.
        let vectors = self.transport.vectors();
        let vector = if vectors >= self.queue_count { index } else { 0 };
        let interrupt = (vectors != 0).then(|| (vector, self.message()));
        self.transport.enable_queue(index, &ring.layout(), interrupt)
    }

    /// The tag's queue and its chain's number there.
    fn place(&self, tag: u16) -> (usize, u16) {
        match self.queue_count {
            // Spares the usual case two divisions.
            1 => (0, tag),
            count => (usize::from(tag % count), tag / count),
        }
    }

    fn slot(tag: u16) -> usize {
        slot::LEN * usize::from(tag)
    }

    /// Sets up what does not change from request to request.
    fn prepare_chain(&mut self, tag: u16) {
        let (queue, chain) = self.place(tag);
        let Some(Some(queue)) = self.queues.get(queue) else { return };
        let slot = Self::slot(tag);
        let header = self.slots.physical(slot + slot::HEADER);
        let state = self.slots.physical(slot + slot::STATUS);
        if self.indirect {
            let table = slot + slot::TABLE;
            queue.ring.set_descriptor(
                chain,
                self.slots.physical(table),
                u32::from(16 * CHAIN),
                DESC_F_INDIRECT,
                0,
            );
            write_descriptor(&self.slots, table, header, 16, DESC_F_NEXT, 1);
            write_descriptor(&self.slots, table + 32, state, 1, DESC_F_WRITE, 0);
        } else {
            let first = CHAIN * chain;
            queue.ring.set_descriptor(first, header, 16, DESC_F_NEXT, first + 1);
            queue.ring.set_descriptor(first + 2, state, 1, DESC_F_WRITE, 0);
        }
        if let Some(tag) = self.tags.get_mut(usize::from(tag)) {
            *tag = Tag::default();
        }
    }

    /// Changes the tag's chain for another kind of request, or another buffer.
    fn reshape(&self, tag: u16, shape: Shape) {
        let (queue, chain) = self.place(tag);
        let Some(Some(queue)) = self.queues.get(queue) else { return };
        let slot = Self::slot(tag);
        let header = self.slots.physical(slot + slot::HEADER);
        self.slots.write32(slot + slot::HEADER, shape.kind);
        let writable = match shape.kind {
            request::IN | request::GET_ID => DESC_F_WRITE,
            _ => 0,
        };
        let flags = writable | DESC_F_NEXT;
        let first = if self.indirect { 0 } else { CHAIN * chain };
        // Without data the status follows the header.
        let second = if shape.len == 0 { first + 2 } else { first + 1 };
        if self.indirect {
            let table = slot + slot::TABLE;
            write_descriptor(&self.slots, table, header, 16, DESC_F_NEXT, second);
            write_descriptor(&self.slots, table + 16, shape.address, shape.len, flags, 2);
        } else {
            queue.ring.set_descriptor(first, header, 16, DESC_F_NEXT, second);
            queue.ring.set_descriptor(first + 1, shape.address, shape.len, flags, first + 2);
        }
    }

    fn range_request(&self, tag: u16, offset: u64, len: u64, limit: u32) -> Result<(), Error> {
        if limit == 0 {
            return Err(Error::Unsupported("the request"));
        }
        check_range(self, offset, len)?;
        let sectors = u32::try_from(len / SECTOR_SIZE).ok().filter(|sectors| *sectors <= limit);
        let sectors = sectors.ok_or(Error::Request("too long"))?;
        let range = Self::slot(tag) + slot::RANGE;
        self.slots.write64(range, offset / SECTOR_SIZE);
        self.slots.write32(range + 8, sectors);
        self.slots.write32(range + 12, 0);
        Ok(())
    }

    fn issue(&mut self, tag: u16, sector: u64, shape: Shape) -> Result<(), Error> {
        let (queue, chain) = self.place(tag);
        let state = self.tags.get(usize::from(tag)).copied().unwrap_or_default();
        if tag >= self.options.depth || state.written.is_some() {
            return Err(Error::Request("the tag is too high or in use"));
        }
        if state.shape != Some(shape) {
            self.reshape(tag, shape);
        }
        let slot = Self::slot(tag);
        self.slots.write64(slot + slot::HEADER + 8, sector);
        // A status that the device never gives, to see whether it has.
        self.slots.write8(slot + slot::STATUS, u8::MAX);
        let written = match shape.kind {
            request::IN => shape.len.saturating_add(1),
            _ => 1,
        };
        if let Some(state) = self.tags.get_mut(usize::from(tag)) {
            *state = Tag { shape: Some(shape), written: Some(written) };
        }
        let Some(Some(queue)) = self.queues.get_mut(queue) else { return Err(Error::NotFound) };
        queue.ring.push(if self.indirect { chain } else { CHAIN * chain });
        self.in_flight += 1;
        Ok(())
    }

    fn collect(&mut self, index: u16, completions: &mut Completions) -> Result<(), Error> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return Ok(()) };
        while let Some(used) = queue.ring.pop()? {
            let (chain, first) = match self.indirect {
                true => (used.head, used.head),
                false => (used.head / CHAIN, used.head / CHAIN * CHAIN),
            };
            let tag = chain * self.queue_count + index;
            let expected = match self.tags.get_mut(usize::from(tag)) {
                Some(tag) if used.head == first => tag.written.take(),
                _ => None,
            };
            let expected = expected.ok_or(Error::Protocol("a buffer that it was not given"))?;
            self.in_flight -= 1;
            let result = match self.slots.read8(Self::slot(tag) + slot::STATUS) {
                status::OK if used.len < expected => Err(Failed::Short),
                status::OK => Ok(()),
                status::UNSUPP => Err(Failed::Unsupported),
                _ => Err(Failed::Io),
            };
            completions.push(Completion { tag, result });
        }
        Ok(())
    }

    /// The device's identification: [`ID_LEN`] bytes, padded with zeroes. Nothing must be in flight.
    ///
    /// # Errors
    /// When something is, or the device does not answer.
    pub fn id(&mut self) -> Result<[u8; ID_LEN], Error> {
        if self.in_flight != 0 {
            return Err(Error::Busy);
        }
        let region = self.transport.platform().allocate(ID_LEN).ok_or(Error::NoMemory)?;
        let len = u32::try_from(ID_LEN).unwrap_or(0);
        self.issue(0, 0, Shape { kind: request::GET_ID, address: region.physical(0), len })?;
        self.kick()?;
        let mut completions = Completions::new();
        let mut looked = Ok(());
        wait_until(self.transport.platform(), ID_MS, "GET_ID", || {
            looked = self.poll(&mut completions);
            looked.is_err() || !completions.is_empty()
        })?;
        looked?;
        match completions.as_slice() {
            [Completion { result: Ok(()), .. }] => {}
            _ => return Err(Error::Unsupported("GET_ID")),
        }
        let mut id = [0; ID_LEN];
        region.read_bytes(0, &mut id);
        Ok(id)
    }

    /// Resets the queues alone, and enables them anew. What was in flight is lost. Interrupts are off
    /// afterwards.
    ///
    /// # Errors
    /// When the device does not offer RING_RESET, or misbehaves.
    pub fn reset_queues(&mut self) -> Result<(), Error> {
        for index in 0..self.queue_count {
            self.transport.reset_queue(index)?;
            if let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) {
                queue.ring.clear();
            }
            if let Some(Some(queue)) = self.queues.get(usize::from(index)) {
                self.enable_queue(index, &queue.ring)?;
            }
        }
        self.tags.iter_mut().for_each(|tag| tag.written = None);
        self.in_flight = 0;
        Ok(())
    }

    /// Features in use.
    pub fn features(&self) -> u64 {
        self.transport.features()
    }

    /// Whether requests are described by indirect tables.
    pub fn uses_indirect(&self) -> bool {
        self.indirect
    }
}

const _: () = assert!(size_of::<RequestHeader>() == slot::RANGE - slot::HEADER);
