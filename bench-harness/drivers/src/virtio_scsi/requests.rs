//! The request queue (5.6.6.1).

use core::mem::offset_of;

use paraslot_spec::scsi::status;
use paraslot_spec::virtio::feature;
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, MAX_QUEUE_SIZE};
use paraslot_spec::virtio_scsi::{
    DEFAULT_CDB_SIZE, FIRST_REQUEST_QUEUE, Lun, RequestHeader, ResponseHeader, response,
    task_attribute,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U64;

use super::{Options, Queue};
use crate::scsi::{
    Address, Buffer, Direction, Ended, Host, Outcome, PARAMETERS_LEN, Request, SENSE_LEN, Sense,
    Tags, wait_for,
};
use crate::virtio::{SplitQueue, Transport, write_descriptor};
use crate::{Completions, DmaRegion, Error, MAX_DEPTH, Platform};

/// Entries of the queue that are used at most.
const MAX_ENTRIES: u16 = 1024;
/// Descriptors of a request: request, response, data.
const CHAIN: u16 = 3;
/// Bytes of a request: header and CDB.
const REQUEST_LEN: u32 = 51;
/// Bytes of the smallest response: one without sense data.
const RESPONSE_MIN: u32 = 12;
/// Bytes of a response: header and sense data.
const RESPONSE_LEN: u32 = 108;

/// What each tag has in memory.
mod slot {
    use super::RequestHeader;

    /// The request. It starts where it does so that its CDB is aligned.
    pub(super) const REQUEST: usize = CDB - size_of::<RequestHeader>();
    /// The CDB in it, 32 bytes.
    pub(super) const CDB: usize = 24;
    /// The response, 108 bytes, written by the device.
    pub(super) const RESPONSE: usize = 64;
    /// The indirect table, 48 bytes.
    pub(super) const TABLE: usize = 176;
    /// Parameters of a request that needs some, 24 bytes.
    pub(super) const PARAMETERS: usize = 224;
    /// Bytes of all that: whole cache lines.
    pub(super) const LEN: usize = 256;
}

/// What a tag's chain was last set up for; what has not changed is not written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    address: Address,
    buffer: Buffer,
}

/// The queue and the memory of its requests.
pub(super) struct Parts {
    queue: Queue,
    slots: DmaRegion,
    tags: Tags,
    shapes: [Option<Shape>; MAX_DEPTH],
    indirect: bool,
}

/// Where a tag's memory begins.
fn slot_of(tag: u16) -> usize {
    slot::LEN * usize::from(tag)
}

impl Parts {
    /// Sets up the queue.
    pub(super) fn new<P: Platform>(
        transport: &Transport<'_, P>,
        options: Options,
    ) -> Result<Self, Error> {
        let depth = options.depth;
        let limit = MAX_ENTRIES.min(MAX_QUEUE_SIZE);
        let size = transport.queue_size(FIRST_REQUEST_QUEUE, limit)?;
        // A chain in the queue itself saves the device a look at another table.
        let indirect = size < depth * CHAIN;
        if indirect && !(transport.has(feature::INDIRECT_DESC) && size >= depth) {
            return Err(Error::Unsupported("so many requests in flight"));
        }
        let platform = transport.platform();
        let message = platform.interrupt_message(options.interrupt);
        let interrupt = (transport.vectors() != 0).then_some((0, message));
        let queue = Queue::new(transport, FIRST_REQUEST_QUEUE, limit, interrupt)?;
        let slots = platform.allocate(slot::LEN * usize::from(depth)).ok_or(Error::NoMemory)?;
        let this =
            Self { queue, slots, tags: Tags::new(depth)?, shapes: [None; MAX_DEPTH], indirect };
        (0..depth).for_each(|tag| this.prepare(tag));
        Ok(this)
    }

    /// Sets up what does not change from request to request.
    fn prepare(&self, tag: u16) {
        let slot = slot_of(tag);
        let header = RequestHeader {
            id: U64::new(tag.into()),
            task_attr: task_attribute::SIMPLE,
            ..RequestHeader::default()
        };
        self.slots.write_bytes(slot + slot::REQUEST, header.as_bytes());
        if self.indirect {
            let table = self.slots.physical(slot + slot::TABLE);
            self.queue.ring.set_descriptor(tag, table, u32::from(16 * CHAIN), DESC_F_INDIRECT, 0);
        }
    }

    /// Sets up one of a chain's three descriptors.
    fn describe(&self, tag: u16, place: u16, address: u64, len: u32, flags: u16) {
        if self.indirect {
            let table = slot_of(tag) + slot::TABLE;
            let offset = table + 16 * usize::from(place);
            write_descriptor(&self.slots, offset, address, len, flags, place + 1);
        } else {
            let index = CHAIN * tag + place;
            self.queue.ring.set_descriptor(index, address, len, flags, index + 1);
        }
    }

    /// Changes the tag's chain for another unit, or another buffer.
    fn reshape(&mut self, tag: u16, shape: Shape) {
        if let Some(place) = self.shapes.get_mut(usize::from(tag)) {
            *place = Some(shape);
        }
        let slot = slot_of(tag);
        let Shape { address, buffer } = shape;
        let lun = Lun::new(address.target, address.lun);
        let offset = slot + slot::REQUEST + offset_of!(RequestHeader, lun);
        self.slots.write_bytes(offset, lun.as_bytes());
        let (request, answer) =
            (self.slots.physical(slot + slot::REQUEST), self.slots.physical(slot + slot::RESPONSE));
        // What the device reads comes before what it writes.
        self.describe(tag, 0, request, REQUEST_LEN, DESC_F_NEXT);
        match buffer.direction {
            Direction::None => self.describe(tag, 1, answer, RESPONSE_LEN, DESC_F_WRITE),
            Direction::In => {
                self.describe(tag, 1, answer, RESPONSE_LEN, DESC_F_WRITE | DESC_F_NEXT);
                self.describe(tag, 2, buffer.address, buffer.len, DESC_F_WRITE);
            }
            Direction::Out => {
                self.describe(tag, 1, buffer.address, buffer.len, DESC_F_NEXT);
                self.describe(tag, 2, answer, RESPONSE_LEN, DESC_F_WRITE);
            }
        }
    }

    /// Makes the tag's chain available, to be told to the device with the next kick.
    fn push(&mut self, tag: u16) {
        let slot = slot_of(tag);
        // A response that the device never gives, to see whether it has.
        self.slots.write16(slot + slot::RESPONSE + offset_of!(ResponseHeader, status), u16::MAX);
        self.queue.ring.push(if self.indirect { tag } else { CHAIN * tag });
    }

    /// How the request of a tag, with `len` bytes of data, has ended.
    fn ending(&self, tag: u16, len: u32) -> Result<Ended, Error> {
        let at = slot_of(tag) + slot::RESPONSE;
        let last = self.slots.read16(at + offset_of!(ResponseHeader, status));
        let [status, answer] = last.to_le_bytes();
        let outcome = match (answer, status) {
            (response::OK, status::CHECK_CONDITION) => Outcome::Check(self.sense(at)?),
            (response::OK, status) => Outcome::Status(status),
            (response::ABORTED | response::RESET, _) => Outcome::Aborted,
            (response::BAD_TARGET, _) => Outcome::Absent,
            (response::BUSY, _) => Outcome::Busy,
            _ => Outcome::Failed,
        };
        if answer != response::OK {
            return Ok(Ended::badly(outcome));
        }
        let left = self.slots.read32(at + offset_of!(ResponseHeader, residual));
        let moved = len.checked_sub(left).ok_or(Error::Protocol("it has left more than it had"))?;
        Ok(Ended { outcome, moved })
    }

    fn sense(&self, response: usize) -> Result<Option<Sense>, Error> {
        let len = self.slots.read32(response + offset_of!(ResponseHeader, sense_len));
        let mut bytes = [0; SENSE_LEN];
        let bytes = usize::try_from(len).ok().and_then(|len| bytes.get_mut(..len));
        let bytes = bytes.ok_or(Error::Protocol("more sense data than there is room for"))?;
        self.slots.read_bytes(response + size_of::<ResponseHeader>(), bytes);
        Ok(Sense::parse(bytes))
    }
}

/// The request queue of a device.
pub(super) struct Requests<'p, P> {
    transport: Transport<'p, P>,
    parts: Parts,
}

impl<'p, P: Platform> Requests<'p, P> {
    pub(super) fn new(transport: Transport<'p, P>, parts: Parts) -> Self {
        Self { transport, parts }
    }

    pub(super) fn transport(&self) -> &Transport<'p, P> {
        &self.transport
    }

    pub(super) fn tags(&mut self) -> &mut Tags {
        &mut self.parts.tags
    }

    pub(super) fn depth(&self) -> u16 {
        self.parts.tags.depth()
    }

    pub(super) fn in_flight(&self) -> u16 {
        self.parts.tags.in_flight()
    }

    pub(super) fn uses_indirect(&self) -> bool {
        self.parts.indirect
    }

    pub(super) fn ring(&mut self) -> &mut SplitQueue {
        &mut self.parts.queue.ring
    }

    /// What a tag's request may need besides its data.
    pub(super) fn parameters(&self, tag: u16) -> DmaRegion {
        self.parts.slots.part(slot_of(tag) + slot::PARAMETERS, PARAMETERS_LEN)
    }

    /// Makes a request available, to be told to the device with the next kick. The tag is free.
    pub(super) fn issue(&mut self, tag: u16, address: Address, request: Request) {
        let parts = &mut self.parts;
        let shape = Shape { address, buffer: request.buffer };
        if parts.shapes.get(usize::from(tag)) != Some(&Some(shape)) {
            parts.reshape(tag, shape);
        }
        let [low, high] = request.cdb.words();
        parts.slots.write64(slot_of(tag) + slot::CDB, low);
        parts.slots.write64(slot_of(tag) + slot::CDB + 8, high);
        parts.tags.begin(tag, request);
        parts.push(tag);
    }

    /// Tells the device of what was made available.
    pub(super) fn kick(&mut self) {
        self.parts.queue.kick(&self.transport);
    }

    /// The next request that the device has given back.
    fn next(&mut self) -> Result<Option<(u16, Ended)>, Error> {
        let parts = &mut self.parts;
        let Some(used) = parts.queue.ring.pop()? else { return Ok(None) };
        let (tag, first) = match parts.indirect {
            true => (used.head, used.head),
            false => (used.head / CHAIN, used.head / CHAIN * CHAIN),
        };
        let request = parts.tags.request(tag).filter(|_| used.head == first);
        let request = request.ok_or(Error::Protocol("a buffer that it was not given"))?;
        // It is to be what was written (2.7.8.2). QEMU's device counts what it has read, too.
        let room = RESPONSE_LEN.saturating_add(request.buffer.len);
        if !(RESPONSE_MIN..=room).contains(&used.len) {
            return Err(Error::Protocol("a response of a length that it cannot have"));
        }
        Ok(Some((tag, parts.ending(tag, request.buffer.len)?)))
    }

    /// Adds what has completed, and issues again what is to be.
    pub(super) fn collect(&mut self, completions: &mut Completions) -> Result<(), Error> {
        while let Some((tag, ended)) = self.next()? {
            if let Some(completion) = self.parts.tags.judge(tag, &ended) {
                completions.push(completion);
            }
        }
        let mut start = 0;
        while let Some((tag, _)) = self.parts.tags.again(start) {
            self.parts.push(tag);
            start = tag + 1;
        }
        if start != 0 {
            self.kick();
        }
        Ok(())
    }
}

impl<'p, P: Platform> Host for Requests<'p, P> {
    type Platform = P;

    fn platform(&self) -> &P {
        self.transport.platform()
    }

    fn run(&mut self, address: Address, request: &Request) -> Result<Ended, Error> {
        if self.in_flight() != 0 {
            return Err(Error::Busy);
        }
        let platform = self.transport.platform();
        self.issue(0, address, *request);
        self.kick();
        let (tag, ended) = wait_for(platform, || self.next())?;
        self.parts.tags.end(tag);
        Ok(ended)
    }
}

const _: () = {
    assert!(REQUEST_LEN as usize == size_of::<RequestHeader>() + DEFAULT_CDB_SIZE as usize);
    assert!(RESPONSE_MIN as usize == size_of::<ResponseHeader>());
    assert!(RESPONSE_LEN as usize == size_of::<ResponseHeader>() + SENSE_LEN);
    assert!(slot::REQUEST + REQUEST_LEN as usize <= slot::RESPONSE);
    assert!(slot::RESPONSE + RESPONSE_LEN as usize <= slot::TABLE);
    assert!(slot::TABLE + 16 * CHAIN as usize <= slot::PARAMETERS);
    assert!(slot::PARAMETERS + PARAMETERS_LEN <= slot::LEN);
};
