//! Where a request's data is.

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::pvscsi::{
    PAGE_SIZE, RequestDescriptor, RequestFlags, SG_CHAIN, SG_LISTS, SG_PER_LIST, SgElement,
};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

/// Most elements of a request, those that lead to the next list, or are empty, included: as many as
/// VMware's header file allows.
pub(crate) const MOST_ELEMENTS: usize = SG_LISTS * SG_PER_LIST;
/// Elements that are fetched at a time.
const FETCH: usize = 16;
/// Bytes of an element.
const ELEMENT: u64 = size_of::<SgElement>() as u64;

/// The request's data cannot be where it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadAddress;

/// Resolves the data of `request`. Adds to `looked` the number of elements that were looked at for it.
pub(crate) fn gather<A: DmaSpace>(
    memory: &Memory<A>,
    request: &RequestDescriptor,
    looked: &mut usize,
) -> Result<DmaBuffers, BadAddress> {
    let flags = RequestFlags::from_bits_truncate(request.flags.get());
    let direction = match (
        flags.contains(RequestFlags::DIR_TO_HOST),
        flags.contains(RequestFlags::DIR_TO_DEVICE),
    ) {
        (true, false) => Direction::FromDevice,
        (false, true) => Direction::ToDevice,
        // No data, or nobody says where to.
        _ => return Ok(DmaBuffers::empty(Direction::FromDevice)),
    };
    let mut list = DmaBuffers::empty(direction);
    let address = request.data_address.get();
    if flags.contains(RequestFlags::SG_LIST) {
        walk(memory, &mut list, address, request.data_len.get(), looked)?;
    } else if let Ok(len) = usize::try_from(request.data_len.get()) {
        memory.extend(&mut list, [(GuestAddress(address), len)]).map_err(|_| BadAddress)?;
    } else {
        return Err(BadAddress);
    }
    Ok(list)
}

/// Resolves what the elements from `address` on say, up to `left` bytes of it.
///
/// A list that reaches the end of its page without leading elsewhere goes on in the next page, for
/// drivers that do not mind their header file.
fn walk<A: DmaSpace>(
    memory: &Memory<A>,
    list: &mut DmaBuffers,
    mut address: u64,
    mut left: u64,
    looked: &mut usize,
) -> Result<(), BadAddress> {
    let mut elements = [SgElement::default(); FETCH];
    let mut fetched: std::ops::Range<usize> = 0..0;
    for _ in 0..MOST_ELEMENTS {
        if left == 0 {
            return Ok(());
        }
        *looked = looked.saturating_add(1);
        if fetched.is_empty() {
            // Not beyond the page: there may be nothing.
            let to_end = (PAGE_SIZE - address % PAGE_SIZE) / ELEMENT;
            let count = usize::try_from(to_end).unwrap_or(1).clamp(1, FETCH);
            let room = elements.get_mut(..count).ok_or(BadAddress)?;
            memory
                .read_slice(room.as_mut_bytes(), GuestAddress(address))
                .map_err(|_| BadAddress)?;
            fetched = 0..count;
        }
        let element = fetched.next().and_then(|index| elements.get(index)).ok_or(BadAddress)?;
        if element.flags.get() & SG_CHAIN != 0 {
            address = element.address.get();
            fetched = 0..0;
            continue;
        }
        address = address.checked_add(ELEMENT).ok_or(BadAddress)?;
        let len = u64::from(element.len.get()).min(left);
        left -= len;
        let len = usize::try_from(len).map_err(|_| BadAddress)?;
        let segment = (GuestAddress(element.address.get()), len);
        memory.extend(list, [segment]).map_err(|_| BadAddress)?;
    }
    if left == 0 { Ok(()) } else { Err(BadAddress) }
}
