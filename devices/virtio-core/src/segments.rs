//! The bytes of a chain, wherever its descriptors cut it up (2.7.4.1).

use paraslot_device::{DmaSpace, Memory};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromBytes, IntoBytes};

use crate::Segment;

/// Bytes of all segments.
pub fn total(segments: &[Segment]) -> u64 {
    // At most 2³² in a chain, so this never saturates.
    segments.iter().fold(0, |sum, segment| u64::saturating_add(sum, segment.len.into()))
}

/// The pieces of `segments` that hold `len` bytes from `skip` on.
pub fn part(
    segments: &[Segment],
    mut skip: u64,
    mut len: u64,
) -> impl Iterator<Item = (GuestAddress, usize)> + '_ {
    segments.iter().filter_map(move |segment| {
        let size = u64::from(segment.len);
        let skipped = skip.min(size);
        skip -= skipped;
        let count = (size - skipped).min(len);
        len -= count;
        // A wrapped address is not memory, and is found out when it is looked up.
        let address = GuestAddress(segment.address.0.saturating_add(skipped));
        usize::try_from(count).ok().filter(|count| *count != 0).map(|count| (address, count))
    })
}

/// Copies bytes of a chain, once. `None` if there are not so many, or not all are memory.
pub fn read<A: DmaSpace>(
    memory: &Memory<A>,
    segments: &[Segment],
    skip: u64,
    data: &mut [u8],
) -> Option<()> {
    let mut rest = data;
    for (address, count) in part(segments, skip, rest.len() as u64) {
        let (now, later) = rest.split_at_mut_checked(count)?;
        memory.read_slice(now, address).ok()?;
        rest = later;
    }
    rest.is_empty().then_some(())
}

/// The structure that a chain starts with.
pub fn structure<A: DmaSpace, T: FromBytes + IntoBytes>(
    memory: &Memory<A>,
    segments: &[Segment],
) -> Option<T> {
    let mut value = T::new_zeroed();
    read(memory, segments, 0, value.as_mut_bytes())?;
    Some(value)
}

/// Writes `bytes` into these pieces, which have room for them. `None` if not all are memory.
pub fn write<A: DmaSpace>(
    memory: &Memory<A>,
    pieces: impl IntoIterator<Item = (GuestAddress, usize)>,
    bytes: &[u8],
) -> Option<()> {
    let mut rest = bytes;
    for (address, count) in pieces {
        let (now, later) = rest.split_at_checked(count)?;
        memory.write_slice(now, address).ok()?;
        rest = later;
    }
    rest.is_empty().then_some(())
}
