//! Physical region pages (4.3).

use super::PAGE;
use crate::{DmaRegion, Error};

/// Entries of a list, which is one page.
const LIST_ENTRIES: usize = PAGE / 8;
/// Most bytes that PRP1 and a list describe, however they lie in their pages.
pub(super) const MAX_TRANSFER: u32 = 2 << 20;

/// PRP1 and PRP2 of the data in `region`, which is contiguous: with more than two pages the others go
/// to `list`.
pub(super) fn describe(region: &DmaRegion, list: &DmaRegion) -> Result<(u64, u64), Error> {
    let first = region.physical(0);
    if !first.is_multiple_of(4) {
        return Err(Error::Request("data that does not start at a multiple of 4"));
    }
    let page = u64::try_from(PAGE).unwrap_or(0);
    let in_page = usize::try_from(first % page).unwrap_or(0);
    let pages = (in_page + region.len()).div_ceil(PAGE);
    let start = first - first % page;
    match pages {
        0 | 1 => Ok((first, 0)),
        2 => Ok((first, start + page)),
        _ if pages - 1 <= LIST_ENTRIES => {
            let mut address = start;
            for entry in 0..pages - 1 {
                address += page;
                list.write64(8 * entry, address);
            }
            Ok((first, list.physical(0)))
        }
        _ => Err(Error::Request("too long")),
    }
}

const _: () = assert!(MAX_TRANSFER as usize <= LIST_ENTRIES * PAGE);
