//! Requests, from their tags to the rings and back.

use core::sync::atomic::{Ordering, fence};

use paraslot_spec::pvscsi::{
    Intr, RequestFlags, SG_PER_LIST, SgElement, command, host_status, tag as order,
};
use paraslot_spec::scsi::{lun, status};
use zerocopy::little_endian::{U32, U64};
use zerocopy::transmute;

use super::Options;
use super::hardware::Hardware;
use super::rings::{Completed, Rings};
use crate::scsi::{
    Address, Buffer, Direction, Ended, Host, Outcome, PARAMETERS_LEN, Request, SENSE_LEN, Sense,
    Tags, wait_for,
};
use crate::{Completions, DmaRegion, Error, Failed, Platform};

/// What each tag has in memory, but for its list of pieces.
mod slot {
    use super::SENSE_LEN;

    /// Sense data, written by the adapter.
    pub(super) const SENSE: usize = 0;
    /// Parameters of a request that needs some, 24 bytes.
    pub(super) const PARAMETERS: usize = SENSE_LEN;
    /// Bytes of all that: whole cache lines.
    pub(super) const LEN: usize = 128;
}

/// Bytes of a tag's list of pieces: half a page, so that it does not cross one.
const LIST_LEN: usize = SG_PER_LIST * size_of::<SgElement>();

/// An adapter's requests.
pub(super) struct Requests<'p, P> {
    pub(super) hardware: Hardware<'p, P>,
    pub(super) rings: Rings,
    pub(super) tags: Tags,
    slots: DmaRegion,
    /// The tags' lists of pieces, if there is need for any.
    lists: Option<DmaRegion>,
    segment: u32,
    /// Whom requests in flight are for.
    address: Address,
    /// Whether there are requests that the adapter has not been told of, other than reads and writes.
    others: bool,
    /// Go by the adapter's threshold: as was asked for, and as it was answered.
    threshold_wanted: bool,
    pub(super) threshold: bool,
}

impl<'p, P: Platform> Requests<'p, P> {
    /// Sets up the rings of an adapter that was reset.
    pub(super) fn new(hardware: Hardware<'p, P>, options: Options) -> Result<Self, Error> {
        let platform = hardware.platform();
        let depth = options.depth;
        let memory = |len| platform.allocate(len * usize::from(depth)).ok_or(Error::NoMemory);
        let messages = hardware.knows(command::SETUP_MSG_RING);
        let lists = (options.segment != u32::MAX).then(|| memory(LIST_LEN)).transpose()?;
        let mut this = Self {
            rings: Rings::new(platform, depth, messages)?,
            tags: Tags::new(depth)?,
            slots: memory(slot::LEN)?,
            hardware,
            lists,
            segment: options.segment,
            address: Address::default(),
            others: false,
            threshold_wanted: options.threshold,
            threshold: false,
        };
        match this.set_up() {
            Ok(()) => Ok(this),
            Err(error) => {
                this.hardware.stop();
                Err(error)
            }
        }
    }

    /// Hands the rings to an adapter that was reset.
    pub(super) fn set_up(&mut self) -> Result<(), Error> {
        self.rings.clear();
        self.hardware.command_with(command::SETUP_RINGS, &self.rings.descriptor());
        if let Some(messages) = self.rings.message_descriptor() {
            self.hardware.command_with(command::SETUP_MSG_RING, &messages);
        }
        if !self.rings.are_taken() {
            return Err(Error::Protocol("it does not take the rings"));
        }
        self.threshold = self.threshold_wanted && self.hardware.set_up_threshold();
        Ok(())
    }

    /// The causes that are to interrupt.
    pub(super) fn causes(&self) -> Intr {
        match self.rings.has_messages() {
            true => Intr::all(),
            false => Intr::CMPL_0 | Intr::CMPL_1,
        }
    }

    /// Most bytes that a request can move, in the pieces that it is described by.
    pub(super) fn max_transfer(&self) -> u64 {
        const SECTORS: u64 = 0xffff;
        // Linux's choice: 65535 sectors, of 512 bytes.
        let pieces = u64::from(self.segment) * SG_PER_LIST as u64;
        pieces.min(SECTORS * 512)
    }

    fn slot(tag: u16) -> usize {
        slot::LEN * usize::from(tag)
    }

    /// What a tag's request may need besides its data.
    pub(super) fn parameters(&self, tag: u16) -> DmaRegion {
        self.slots.part(Self::slot(tag) + slot::PARAMETERS, PARAMETERS_LEN)
    }

    /// Puts a request on the ring, to be told to the adapter with the next kick. The tag is free.
    pub(super) fn issue(&mut self, tag: u16, address: Address, request: Request) {
        self.address = address;
        self.tags.begin(tag, request);
        self.push(tag, request);
    }

    fn push(&mut self, tag: u16, request: Request) {
        let Request { cdb, buffer } = request;
        let mut flags = match buffer.direction {
            Direction::None => RequestFlags::DIR_NONE,
            Direction::In => RequestFlags::DIR_TO_HOST,
            Direction::Out => RequestFlags::DIR_TO_DEVICE,
        };
        let mut data = buffer.address;
        if let Some(list) = self.list(tag, buffer) {
            flags |= RequestFlags::SG_LIST;
            data = list;
        }
        let sense = self.slots.physical(Self::slot(tag) + slot::SENSE);
        let [a, b, c, d, e, f, g, h] = lun::encode(self.address.lun);
        let [low, high] = cdb.words();
        const BUS: u8 = 0;
        self.rings.push([
            u64::from(tag) + 1,
            data,
            buffer.len.into(),
            sense,
            SENSE_LEN as u64 | u64::from(flags.bits()) << 32,
            low,
            high,
            u64::from_le_bytes([cdb.len(), a, b, c, d, e, f, g]),
            u64::from_le_bytes([h, order::SIMPLE, BUS, self.address.target, 0, 0, 0, 0]),
        ]);
        self.others |= !cdb.is_read_or_write();
    }

    /// Describes a buffer of more than one piece; returns where.
    fn list(&self, tag: u16, buffer: Buffer) -> Option<u64> {
        let lists = self.lists.as_ref().filter(|_| buffer.len > self.segment)?;
        let list = LIST_LEN * usize::from(tag);
        let (mut address, mut left, mut at) = (buffer.address, buffer.len, list);
        while left != 0 {
            let len = left.min(self.segment);
            let element =
                SgElement { address: U64::new(address), len: U32::new(len), flags: U32::new(0) };
            let words: [U64; 2] = transmute!(element);
            for word in words {
                lists.write64(at, word.get());
                at += 8;
            }
            (address, left) = (address.wrapping_add(len.into()), left - len);
        }
        Some(lists.physical(list))
    }

    /// Tells the adapter of what was put on the ring, as Linux's driver does: if there is anything but
    /// reads and writes always, otherwise by its threshold, if it has one.
    pub(super) fn kick(&mut self) {
        if !self.rings.publish() {
            return;
        }
        // The index must be out before the adapter's is read, and before it is kicked.
        fence(Ordering::SeqCst);
        if core::mem::take(&mut self.others) {
            self.hardware.kick();
        } else if !self.threshold || self.rings.wants_kick() {
            self.hardware.kick_reads_and_writes();
        }
    }

    /// Has the adapter look at the ring, whatever its threshold: before commands that are about
    /// requests.
    pub(super) fn flush(&mut self) {
        self.rings.publish();
        self.others = false;
        fence(Ordering::SeqCst);
        self.hardware.kick();
    }

    /// The next request that has ended.
    fn next(&mut self) -> Result<Option<(u16, Ended)>, Error> {
        let Some(completed) = self.rings.pop()? else { return Ok(None) };
        let tag = completed.context.checked_sub(1).and_then(|tag| u16::try_from(tag).ok());
        let found = tag.and_then(|tag| Some((tag, self.tags.request(tag)?)));
        let (tag, request) = found.ok_or(Error::Protocol("a context that it was not given"))?;
        let ended = self.ending(tag, request.buffer.len, completed)?;
        Ok(Some((tag, ended)))
    }

    /// How the request of a tag, with `len` bytes of data, has ended.
    fn ending(&self, tag: u16, len: u32, completed: Completed) -> Result<Ended, Error> {
        let moved = u32::try_from(completed.data_len).ok().filter(|moved| *moved <= len);
        let moved = moved.ok_or(Error::Protocol("it has moved more data than there was"))?;
        let outcome = match completed.host_status {
            host_status::SUCCESS | host_status::LINKED | host_status::LINKED_FLAG => {
                let outcome = self.outcome(tag, completed)?;
                // There are adapters that do not say how much was moved if it was all: Linux takes 0
                // for that, too.
                let moved = if moved == 0 { len } else { moved };
                return Ok(Ended { outcome, moved });
            }
            host_status::DATA_UNDERRUN => {
                return Ok(Ended { outcome: self.outcome(tag, completed)?, moved });
            }
            host_status::SELTIMEO => Outcome::Absent,
            host_status::ABORTQUEUE
            | host_status::SENTRST
            | host_status::RECVRST
            | host_status::BUSRESET => Outcome::Aborted,
            _ => Outcome::Failed,
        };
        Ok(Ended::badly(outcome))
    }

    /// What the unit says.
    fn outcome(&self, tag: u16, completed: Completed) -> Result<Outcome, Error> {
        let status = u8::try_from(completed.scsi_status);
        let status = status.map_err(|_| Error::Protocol("a status that there is not"))?;
        if status != status::CHECK_CONDITION {
            return Ok(Outcome::Status(status));
        }
        let mut bytes = [0; SENSE_LEN];
        let len = usize::try_from(completed.sense_len).ok();
        let bytes = len.and_then(|len| bytes.get_mut(..len));
        let bytes = bytes.ok_or(Error::Protocol("more sense data than there is room for"))?;
        self.slots.read_bytes(Self::slot(tag) + slot::SENSE, bytes);
        Ok(Outcome::Check(Sense::parse(bytes)))
    }

    /// Adds what has completed, and issues again what is to be.
    pub(super) fn collect(&mut self, completions: &mut Completions) -> Result<(), Error> {
        let mut any = false;
        while let Some((tag, ended)) = self.next()? {
            any = true;
            if let Some(completion) = self.tags.judge(tag, &ended) {
                completions.push(completion);
            }
        }
        if any {
            self.rings.release();
        }
        let mut start = 0;
        while let Some((tag, request)) = self.tags.again(start) {
            self.push(tag, request);
            start = tag + 1;
        }
        if start != 0 {
            self.kick();
        }
        Ok(())
    }

    /// Adds what had completed before the adapter was reset, and all else as aborted.
    pub(super) fn abandon(&mut self, completions: &mut Completions) -> Result<(), Error> {
        let mut result = Ok(());
        loop {
            match self.next() {
                Ok(Some((tag, ended))) => {
                    if let Some(completion) = self.tags.conclude(tag, &ended) {
                        completions.push(completion);
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.tags.drain(|tag| {
            completions.push(crate::Completion { tag, result: Err(Failed::Aborted) });
        });
        result
    }
}

impl<'p, P: Platform> Host for Requests<'p, P> {
    type Platform = P;

    fn platform(&self) -> &P {
        self.hardware.platform()
    }

    fn run(&mut self, address: Address, request: &Request) -> Result<Ended, Error> {
        if self.tags.in_flight() != 0 {
            return Err(Error::Busy);
        }
        let platform = self.hardware.platform();
        self.issue(0, address, *request);
        self.flush();
        let (tag, ended) = wait_for(platform, || self.next())?;
        self.rings.release();
        self.tags.end(tag);
        Ok(ended)
    }
}

const _: () = assert!(slot::PARAMETERS + PARAMETERS_LEN <= slot::LEN);
