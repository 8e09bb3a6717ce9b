//! Memory that a driver shares with a device.

#![expect(unsafe_code, reason = "memory that a device writes behind the compiler's back")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// A piece of memory that a device can reach. Every access is volatile and checked against its
/// length; an access outside panics, being the driver's own mistake.
///
/// Clones name the same memory.
#[derive(Clone, Debug)]
pub struct DmaRegion {
    memory: NonNull<u8>,
    physical: u64,
    len: usize,
}

// SAFETY: it is an address and a length; all access through it is volatile or atomic.
unsafe impl Send for DmaRegion {}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty) => {
        /// Reads a little-endian integer at `offset`, a multiple of its size.
        pub fn $read(&self, offset: usize) -> $type {
            let at = self.at(offset, size_of::<$type>(), align_of::<$type>());
            // SAFETY: `at` is inside the region and aligned.
            <$type>::from_le(unsafe { at.cast::<$type>().read_volatile() })
        }
        /// Writes a little-endian integer at `offset`, a multiple of its size.
        pub fn $write(&self, offset: usize, value: $type) {
            let at = self.at(offset, size_of::<$type>(), align_of::<$type>());
            // SAFETY: as above.
            unsafe { at.cast::<$type>().write_volatile(value.to_le()) }
        }
    };
}

impl DmaRegion {
    /// A region of `len` bytes at `memory`, which devices reach at `physical`.
    ///
    /// # Safety
    /// The memory must be page-aligned and valid for reads and writes for as long as any clone of
    /// the region is used, and must be accessed by nobody else but devices and clones of the region.
    pub const unsafe fn new(memory: NonNull<u8>, physical: u64, len: usize) -> Self {
        Self { memory, physical, len }
    }

    fn at(&self, offset: usize, len: usize, align: usize) -> NonNull<u8> {
        let end = offset.checked_add(len);
        assert!(
            end.is_some_and(|end| end <= self.len) && offset.is_multiple_of(align),
            "outside the region"
        );
        // SAFETY: `offset` is inside the region, as just checked.
        unsafe { self.memory.add(offset) }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The address of byte `offset`, as a device sees it.
    pub fn physical(&self, offset: usize) -> u64 {
        self.physical + offset as u64
    }

    /// The part of it that starts at `offset` and is `len` bytes long; `offset` is a multiple of 16.
    pub fn part(&self, offset: usize, len: usize) -> Self {
        Self { memory: self.at(offset, len, 16), physical: self.physical(offset), len }
    }

    access!(read8, write8, u8);
    access!(read16, write16, u16);
    access!(read32, write32, u32);
    access!(read64, write64, u64);

    /// Loads what a device stores with release semantics: what it wrote before is seen after.
    pub fn load16(&self, offset: usize) -> u16 {
        let at = self.at(offset, 2, 2);
        // SAFETY: inside, aligned, and only ever accessed as an atomic or volatile.
        u16::from_le(unsafe { AtomicU16::from_ptr(at.cast().as_ptr()) }.load(Ordering::Acquire))
    }

    /// Stores so that a device that sees it sees what was written before.
    pub fn store16(&self, offset: usize, value: u16) {
        let at = self.at(offset, 2, 2);
        // SAFETY: as above.
        unsafe { AtomicU16::from_ptr(at.cast().as_ptr()) }.store(value.to_le(), Ordering::Release);
    }

    /// Loads 32 bits with acquire semantics.
    pub fn load32(&self, offset: usize) -> u32 {
        let at = self.at(offset, 4, 4);
        // SAFETY: as above.
        u32::from_le(unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) }.load(Ordering::Acquire))
    }

    /// Copies bytes out, from `offset` on.
    pub fn read_bytes(&self, offset: usize, data: &mut [u8]) {
        let at = self.at(offset, data.len(), 1);
        for (index, byte) in data.iter_mut().enumerate() {
            // SAFETY: `index` is below the length that was checked.
            *byte = unsafe { at.add(index).read_volatile() };
        }
    }

    /// Copies bytes in, at `offset`.
    pub fn write_bytes(&self, offset: usize, data: &[u8]) {
        let at = self.at(offset, data.len(), 1);
        for (index, byte) in data.iter().enumerate() {
            // SAFETY: as above.
            unsafe { at.add(index).write_volatile(*byte) }
        }
    }

    /// Fills `len` bytes at `offset` with words that start at `base` and rise by `step`. Both
    /// `offset` and `len` are multiples of 8.
    pub fn fill_pattern(&self, offset: usize, len: usize, base: u64, step: u64) {
        let at = self.at(offset, len, 8).cast::<u64>();
        let mut word = base;
        for index in 0..len / 8 {
            // SAFETY: `index` is below the length that was checked. No device has this memory now
            // (the caller is about to hand it over), so a plain store will do and can be vectorised.
            unsafe { at.add(index).write(word.to_le()) }
            word = word.wrapping_add(step);
        }
        // What comes next tells the device; the stores must not sink below it.
        core::sync::atomic::fence(Ordering::Release);
    }

    /// Whether `len` bytes at `offset` are the words that [`fill_pattern`](Self::fill_pattern) would
    /// have put there. The device must be done with them.
    pub fn matches_pattern(&self, offset: usize, len: usize, base: u64, step: u64) -> bool {
        core::sync::atomic::fence(Ordering::Acquire);
        let at = self.at(offset, len, 8).cast::<u64>();
        let mut word = base;
        let mut difference = 0;
        for index in 0..len / 8 {
            // SAFETY: `index` is below the length that was checked; the device has given the memory
            // back (its completion was seen), so a plain load will do and can be vectorised.
            difference |= u64::from_le(unsafe { at.add(index).read() }) ^ word;
            word = word.wrapping_add(step);
        }
        difference == 0
    }
}
