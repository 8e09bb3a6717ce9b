//! Requests (5.2.6): what a chain asks for.
//!
//! A chain is a sequence of bytes, wherever its descriptors cut it up (2.7.4.1): a header of 16
//! bytes, data to be written, data to be read, and one byte of status at the very end.

use paraslot_backends::block::BlockOp;
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::virtio_blk::{
    ID_LEN, RANGE_F_UNMAP, RangeSegment, RequestHeader, SECTOR_SIZE, feature, request, status,
};
use paraslot_virtio::Segment;
use paraslot_virtio::segments::{part, read, total};
use vm_memory::{GuestAddress, GuestMemory, Permissions};
use zerocopy::{FromZeros, IntoBytes};

use crate::config::{Limits, MAX_RANGES};

/// A status other than OK.
pub(crate) type Refusal = u8;

const HEADER: u64 = size_of::<RequestHeader>() as u64;
const RANGE: u64 = size_of::<RangeSegment>() as u64;

/// A request that can be answered, whatever it is.
pub(crate) struct Answer {
    /// Where the status goes.
    pub(crate) status: GuestAddress,
    /// Bytes that the device can write before the status.
    pub(crate) room: u64,
}

/// What a request asks for.
pub(crate) enum Request {
    /// One operation on the backend: offset and length in bytes.
    Transfer { op: BlockOp, offset: u64, buffers: DmaBuffers },
    /// Make completed writes stable.
    Flush,
    /// The same for each range that has been collected.
    Ranges { op: BlockOp },
    /// Nothing is left to do; so many bytes were written.
    Done { written: u32 },
}

/// What decides how a request is to be understood.
pub(crate) struct Context<'a> {
    pub(crate) limits: &'a Limits,
    /// Bytes.
    pub(crate) capacity: u64,
    /// Accepted.
    pub(crate) features: u64,
    /// Writes must be stable when they complete.
    pub(crate) stable: bool,
}

impl Answer {
    /// Where the answer goes: the status is the last byte that can be written. `None` if there is no
    /// such byte in memory.
    pub(crate) fn find<A: DmaSpace>(memory: &Memory<A>, writable: &[Segment]) -> Option<Self> {
        let last = writable.iter().rev().find(|segment| segment.len != 0)?;
        let status = GuestAddress(last.address.0.checked_add(u64::from(last.len) - 1)?);
        let room = total(writable).checked_sub(1)?;
        memory.check_range(status, 1, Permissions::Write).then_some(Self { status, room })
    }
}

impl Request {
    /// Reads and checks the request in a chain. Ranges are appended to `ranges` (offset and length in
    /// bytes); they mean nothing if the request is refused.
    pub(crate) fn parse<A: DmaSpace>(
        memory: &Memory<A>,
        readable: &[Segment],
        writable: &[Segment],
        room: u64,
        context: &Context<'_>,
        ranges: &mut Vec<(u64, u64)>,
    ) -> Result<Self, Refusal> {
        let mut header = RequestHeader::new_zeroed();
        read(memory, readable, 0, header.as_mut_bytes()).ok_or(status::IOERR)?;
        let kind = header.kind.get();
        let data = total(readable).saturating_sub(HEADER);
        let limits = context.limits;
        let writes = matches!(
            kind,
            request::OUT | request::DISCARD | request::WRITE_ZEROES | request::SECURE_ERASE
        );
        if writes && limits.read_only {
            return Err(status::IOERR);
        }
        let mut range_request = |needed: u64, max_sectors: u64, flags: u32| {
            if context.features & needed == 0 {
                return Err(status::UNSUPP);
            }
            let limit = (max_sectors, flags);
            read_ranges(memory, readable, data, context, limit, ranges)
        };
        match kind {
            request::IN => {
                let offset = context.range(header.sector.get(), room)?;
                let segments = part(writable, 0, room);
                let buffers =
                    memory.buffers(segments, Direction::FromDevice).or(Err(status::IOERR))?;
                Ok(Self::Transfer { op: BlockOp::Read, offset, buffers })
            }
            request::OUT => {
                let offset = context.range(header.sector.get(), data)?;
                let segments = part(readable, HEADER, data);
                let buffers =
                    memory.buffers(segments, Direction::ToDevice).or(Err(status::IOERR))?;
                Ok(Self::Transfer { op: BlockOp::Write { fua: context.stable }, offset, buffers })
            }
            request::FLUSH => Ok(Self::Flush),
            request::GET_ID => {
                let segments = part(writable, 0, room.min(ID_LEN as u64));
                let buffers =
                    memory.buffers(segments, Direction::FromDevice).or(Err(status::IOERR))?;
                let written = buffers.copy_from(&limits.id);
                Ok(Self::Done { written: u32::try_from(written).unwrap_or_default() })
            }
            request::DISCARD => {
                range_request(feature::DISCARD, limits.max_discard, 0)?;
                Ok(Self::Ranges { op: BlockOp::Discard })
            }
            request::WRITE_ZEROES => {
                let unmap =
                    range_request(feature::WRITE_ZEROES, limits.max_write_zeroes, RANGE_F_UNMAP)?;
                Ok(Self::Ranges { op: BlockOp::WriteZeroes { unmap } })
            }
            request::SECURE_ERASE => {
                range_request(feature::SECURE_ERASE, limits.max_secure_erase, 0)?;
                Ok(Self::Ranges { op: BlockOp::SecureErase })
            }
            _ => Err(status::UNSUPP),
        }
    }
}

impl Context<'_> {
    /// Checks a range; returns its first byte.
    fn range(&self, sector: u64, len: u64) -> Result<u64, Refusal> {
        let offset = sector.checked_mul(SECTOR_SIZE).ok_or(status::IOERR)?;
        let end = offset.checked_add(len).ok_or(status::IOERR)?;
        let block = self.limits.logical_block;
        if end > self.capacity || !offset.is_multiple_of(block) || !len.is_multiple_of(block) {
            return Err(status::IOERR);
        }
        Ok(offset)
    }
}

/// Collects the ranges of a request whose data is `data` bytes long. Returns whether all of them may
/// be unmapped.
fn read_ranges<A: DmaSpace>(
    memory: &Memory<A>,
    readable: &[Segment],
    data: u64,
    context: &Context<'_>,
    (max_sectors, known_flags): (u64, u32),
    ranges: &mut Vec<(u64, u64)>,
) -> Result<bool, Refusal> {
    let count = data / RANGE;
    if count == 0 || !data.is_multiple_of(RANGE) || count > u64::from(context.limits.max_ranges) {
        return Err(status::IOERR);
    }
    // All at once: to look each of them up among the buffers would cost their product.
    let mut segments = [RangeSegment::new_zeroed(); MAX_RANGES as usize];
    let given = usize::try_from(count).ok().and_then(|count| segments.get_mut(..count));
    let given = given.ok_or(status::IOERR)?;
    read(memory, readable, HEADER, given.as_mut_bytes()).ok_or(status::IOERR)?;
    let mut unmap = true;
    for range in given {
        let (flags, sectors) = (range.flags.get(), u64::from(range.num_sectors.get()));
        if flags & !known_flags != 0 {
            return Err(status::UNSUPP);
        }
        unmap &= flags & RANGE_F_UNMAP != 0;
        if sectors > max_sectors {
            return Err(status::IOERR);
        }
        let len = sectors * SECTOR_SIZE;
        ranges.push((context.range(range.sector.get(), len)?, len));
    }
    Ok(unmap)
}
