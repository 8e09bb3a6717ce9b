//! Registers, counted.

use core::cell::Cell;

use crate::Platform;

/// Accesses made through [`Window`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Register reads.
    pub reads: u64,
    /// Register writes, doorbells included.
    pub writes: u64,
    /// Writes that tell the device of new requests, or of room for more of what it reports.
    pub doorbells: u64,
}

impl Accesses {
    /// Reads and writes.
    pub fn total(self) -> u64 {
        self.reads.wrapping_add(self.writes)
    }

    /// What was added since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            reads: self.reads.wrapping_sub(earlier.reads),
            writes: self.writes.wrapping_sub(earlier.writes),
            doorbells: self.doorbells.wrapping_sub(earlier.doorbells),
        }
    }

    /// Both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            reads: self.reads.wrapping_add(other.reads),
            writes: self.writes.wrapping_add(other.writes),
            doorbells: self.doorbells.wrapping_add(other.doorbells),
        }
    }
}

/// A range of a memory BAR. Every access is counted, and one outside the range is not made: a device
/// says where its registers are, and may lie.
pub struct Window<'p, P> {
    platform: &'p P,
    address: u64,
    len: u64,
    accesses: Cell<Accesses>,
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads the register at `offset`; ones, if it is outside.
        pub fn $read(&self, offset: u64) -> $type {
            let Some(address) = self.at(offset, size_of::<$type>() as u64) else {
                return <$type>::MAX;
            };
            let mut accesses = self.accesses.get();
            accesses.reads = accesses.reads.wrapping_add(1);
            self.accesses.set(accesses);
            self.platform.$read(address)
        }
        /// Writes the register at `offset`; nothing, if it is outside.
        pub fn $write(&self, offset: u64, value: $type) {
            let Some(address) = self.at(offset, size_of::<$type>() as u64) else { return };
            let mut accesses = self.accesses.get();
            accesses.writes = accesses.writes.wrapping_add(1);
            self.accesses.set(accesses);
            self.platform.$write(address, value);
        }
    };
}

impl<'p, P: Platform> Window<'p, P> {
    /// The `len` bytes of registers at bus address `address`.
    pub fn new(platform: &'p P, address: u64, len: u64) -> Self {
        Self { platform, address, len, accesses: Cell::default() }
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: u64, len: u64) -> Option<u64> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if inside { self.address.checked_add(offset) } else { None }
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);

    /// Counts the write that was made last as a doorbell.
    pub fn count_doorbell(&self) {
        let mut accesses = self.accesses.get();
        accesses.doorbells = accesses.doorbells.wrapping_add(1);
        self.accesses.set(accesses);
    }

    /// Accesses made so far.
    pub fn accesses(&self) -> Accesses {
        self.accesses.get()
    }
}
