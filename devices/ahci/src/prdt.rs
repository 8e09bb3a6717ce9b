//! The PRD table: where a command's data is (AHCI 1.3.1, 4.2.3.3).

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::ahci::{PRD_TABLE, Prd};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use zerocopy::{FromZeros, IntoBytes};

/// Entries that are fetched at once, 512 bytes.
const CHUNK: usize = 32;

/// A command's data buffers.
pub(crate) struct Data {
    pub(crate) buffers: DmaBuffers,
    /// Entries that were used.
    pub(crate) entries: u32,
    /// After how many bytes the first is used up that asks for an interrupt then.
    pub(crate) interrupt: Option<u64>,
    /// Why the buffers end before the table does, if they do.
    pub(crate) cut: Option<PrdError>,
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
    let mut walk = Walk::new(memory, table, entries, needed);
    let data = walk.data(direction)?;
    match data.cut {
        Some(error) => Err(error),
        None if walk.needed != 0 => Err(PrdError::Short),
        None => Ok(data),
    }
}

/// Resolves a table for a command whose length the device alone knows: up to the first entry that
/// cannot be used, which is no error unless the command has data for it. An HBA looks at an entry when
/// it has data for it, and some firmware leaves one of any length there for a command without data.
pub(crate) fn gather_all<A: DmaSpace>(
    memory: &Memory<A>,
    table: u64,
    entries: u32,
    direction: Direction,
) -> Result<Data, PrdError> {
    let mut walk = Walk::new(memory, table, entries, u64::MAX);
    walk.access = Some(match direction {
        Direction::FromDevice => Permissions::Write,
        Direction::ToDevice => Permissions::Read,
    });
    walk.data(direction)
}

struct Walk<'a, A: DmaSpace> {
    memory: &'a Memory<A>,
    table: u64,
    entries: u32,
    next: u32,
    needed: u64,
    taken: u64,
    chunk: [Prd; CHUNK],
    interrupt: Option<u64>,
    error: Option<PrdError>,
    /// The walk ends where this cannot be had.
    access: Option<Permissions>,
}

impl<'a, A: DmaSpace> Walk<'a, A> {
    fn new(memory: &'a Memory<A>, table: u64, entries: u32, needed: u64) -> Self {
        Self {
            memory,
            table,
            entries,
            next: 0,
            needed,
            taken: 0,
            chunk: [Prd::new_zeroed(); CHUNK],
            interrupt: None,
            error: None,
            access: None,
        }
    }

    fn data(&mut self, direction: Direction) -> Result<Data, PrdError> {
        let buffers = self.memory.buffers(&mut *self, direction);
        let buffers = buffers.map_err(|_| PrdError::Inaccessible)?;
        let Self { next, interrupt, error, .. } = *self;
        Ok(Data { buffers, entries: next, interrupt, cut: error })
    }

    /// Whether an entry's memory is there, if that is looked at one by one.
    fn can_use(&self, prd: &Prd) -> bool {
        self.access.is_none_or(|access| {
            let len = usize::try_from(prd.len()).unwrap_or(usize::MAX);
            self.memory.check_range(GuestAddress(prd.address()), len, access)
        })
    }

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
            Ok(prd) if !self.can_use(&prd) => Err(PrdError::Inaccessible),
            other => other,
        };
        match prd {
            Ok(prd) => {
                let len = u64::from(prd.len()).min(self.needed);
                self.needed -= len;
                // At most as many entries as 16 bits count, of 4 MiB at most.
                self.taken = self.taken.saturating_add(len);
                // An entry of which only a part is used is not used up.
                if len == u64::from(prd.len()) && prd.dbc.get() & Prd::INTERRUPT != 0 {
                    self.interrupt.get_or_insert(self.taken);
                }
                Some((GuestAddress(prd.address()), usize::try_from(len).unwrap_or(usize::MAX)))
            }
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}
