//! UNMAP.

use paraslot_spec::scsi::block::{UnmapDescriptor, UnmapHeader};
use paraslot_spec::scsi::cdb::UNMAP_ANCHOR;
use paraslot_spec::scsi::sense::code;
use zerocopy::FromBytes;

use super::block::Span;
use super::context::{Answer, Context};
use crate::plan::{MAX_UNMAP, Plan};
use crate::sense::Sense;
use crate::unit::LogicalUnit;

/// Bytes that one UNMAP unmaps at most.
pub(super) const MAX_UNMAP_BYTES: u64 = 4 << 30;

/// UNMAP.
pub(super) fn unmap(ctx: &Context<'_>) -> Answer {
    if ctx.cdb.bit(1, UNMAP_ANCHOR) {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    match ctx.cdb.u16(7) {
        0 => Ok(Plan::good()),
        len => ctx.parameters(len, |list| ranges(ctx.unit(), list)),
    }
}

fn ranges(unit: &LogicalUnit, list: &[u8]) -> Answer {
    let short = || Sense::illegal(code::PARAMETER_LIST_LENGTH);
    let (header, rest) = UnmapHeader::ref_from_prefix(list).map_err(|_| short())?;
    let bytes = usize::from(header.descriptors.get());
    if usize::from(header.len.get()) + size_of_val(&header.len) > list.len() {
        return Err(short());
    }
    // A last descriptor that is not all there is ignored (SBC-3, UNMAP parameter list).
    let descriptors = rest.get(..bytes).ok_or_else(short)?;
    let (descriptors, _) = descriptors.as_chunks::<{ size_of::<UnmapDescriptor>() }>();
    if descriptors.len() > MAX_UNMAP {
        return Err(Sense::invalid_parameter(2, None));
    }
    let mut ranges = Vec::with_capacity(descriptors.len());
    let mut total: u64 = 0;
    for descriptor in descriptors {
        let descriptor: &UnmapDescriptor = zerocopy::transmute_ref!(descriptor);
        let blocks = u64::from(descriptor.blocks.get());
        let (offset, len) =
            Span { lba: descriptor.lba.get(), blocks, blocks_at: 0 }.within(unit)?;
        total = total.saturating_add(len);
        if total > MAX_UNMAP_BYTES {
            return Err(Sense::invalid_parameter(blocks_at(ranges.len()), None));
        }
        ranges.push((offset, len));
    }
    ranges.retain(|&(_, len)| len != 0);
    if ranges.is_empty() {
        return Ok(Plan::good());
    }
    Ok(Plan::Unmap { ranges, zero: unit.info.write_zeroes_unmap })
}

/// Where the block count of a descriptor is in the list.
fn blocks_at(index: usize) -> u16 {
    let at = size_of::<UnmapHeader>() + index * size_of::<UnmapDescriptor>() + 8;
    u16::try_from(at).unwrap_or(u16::MAX)
}
