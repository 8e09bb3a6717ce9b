//! The PRD table: where a command's data is (AHCI 1.3.1, 4.2.3.3).

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::ahci::{PRD_TABLE, Prd};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

/// Entries that are fetched at once, 512 bytes.
const CHUNK: usize = 32;

/// A command's data buffers.
pub(crate) struct Data {
    pub(crate) buffers: DmaBuffers,
    /// Entries that were used.
    pub(crate) entries: u32,
    /// One of them asks for an interrupt when it is used up.
    pub(crate) interrupt: bool,
}

/// Why a PRD table was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrdError {
    /// It has room for less than the command moves.
    Short,
    /// The table, or memory that it names, is not there.
    Inaccessible,
    /// An odd address or byte count.
    Odd,
}

/// Resolves the first `needed` bytes of a table of `entries` entries in the command table at `table`.
///
/// Every entry is fetched once. No more of them are looked at than it takes to hold `needed` bytes,
/// and none is shorter than two bytes, so the work is bounded by both numbers.
pub(crate) fn gather<A: DmaSpace>(
    memory: &Memory<A>,
    table: u64,
    entries: u32,
    needed: u64,
    direction: Direction,
) -> Result<Data, PrdError> {
    let mut walk = Walk {
        memory,
        table,
        entries,
        next: 0,
        needed,
        chunk: [Prd::new_zeroed(); CHUNK],
        interrupt: false,
        error: None,
    };
    let buffers = memory.buffers(&mut walk, direction);
    if let Some(error) = walk.error {
        return Err(error);
    }
    let buffers = buffers.map_err(|_| PrdError::Inaccessible)?;
    if walk.needed != 0 {
        return Err(PrdError::Short);
    }
    Ok(Data { buffers, entries: walk.next, interrupt: walk.interrupt })
}

struct Walk<'a, A: DmaSpace> {
    memory: &'a Memory<A>,
    table: u64,
    entries: u32,
    next: u32,
    needed: u64,
    chunk: [Prd; CHUNK],
    interrupt: bool,
    error: Option<PrdError>,
}

impl<A: DmaSpace> Walk<'_, A> {
    fn fetch(&mut self) -> Result<Prd, PrdError> {
        let index = usize::try_from(self.next).unwrap_or(usize::MAX) % CHUNK;
        if index == 0 {
            let left = self.entries.saturating_sub(self.next);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let address = PRD_TABLE
                .checked_add(u64::from(self.next) * size_of::<Prd>() as u64)
                .and_then(|offset| self.table.checked_add(offset))
                .ok_or(PrdError::Inaccessible)?;
            let place = self.chunk.get_mut(..count).ok_or(PrdError::Inaccessible)?;
            self.memory
                .read_slice(place.as_mut_bytes(), GuestAddress(address))
                .map_err(|_| PrdError::Inaccessible)?;
        }
        self.next += 1;
        self.chunk.get(index).copied().ok_or(PrdError::Inaccessible)
    }
}

impl<A: DmaSpace> Iterator for Walk<'_, A> {
    type Item = (GuestAddress, usize);

    fn next(&mut self) -> Option<Self::Item> {
        if self.needed == 0 || self.next >= self.entries || self.error.is_some() {
            return None;
        }
        let prd = match self.fetch() {
            Ok(prd) if prd.address() & 1 != 0 || prd.len() & 1 != 0 => Err(PrdError::Odd),
            other => other,
        };
        match prd {
            Ok(prd) => {
                let len = u64::from(prd.len()).min(self.needed);
                self.needed -= len;
                // An entry of which only a part is used is not used up.
                let all = len == u64::from(prd.len());
                self.interrupt |= all && prd.dbc.get() & Prd::INTERRUPT != 0;
                Some((GuestAddress(prd.address()), usize::try_from(len).unwrap_or(usize::MAX)))
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}
