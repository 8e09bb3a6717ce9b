//! Memory that a driver shares with a device.

#![expect(unsafe_code, reason = "memory that a device writes behind the compiler's back")]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering};

/// A piece of memory that a device can reach. Every access is checked against its length; an access
/// outside panics, being the driver's own mistake.
///
/// Accesses are volatile, but for those that move many bytes: they are for memory that no device has
/// just then. Clones name the same memory.
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
        /// Reads a little-endian integer at `offset`, whose address is a multiple of its size.
        pub fn $read(&self, offset: usize) -> $type {
            let at = self.at(offset, size_of::<$type>(), align_of::<$type>());
            // SAFETY: `at` is inside the region and aligned.
            <$type>::from_le(unsafe { at.cast::<$type>().read_volatile() })
        }
        /// Writes a little-endian integer at `offset`, whose address is a multiple of its size.
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
        assert!(end.is_some_and(|end| end <= self.len), "outside the region");
        // SAFETY: `offset` is inside the region, as just checked.
        let at = unsafe { self.memory.add(offset) };
        assert!(at.addr().get().is_multiple_of(align), "not aligned");
        at
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

    /// The part of it that starts at `offset` and is `len` bytes long.
    pub fn part(&self, offset: usize, len: usize) -> Self {
        Self { memory: self.at(offset, len, 1), physical: self.physical(offset), len }
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

    /// Stores 32 bits so that a device that sees them sees what was written before.
    pub fn store32(&self, offset: usize, value: u32) {
        let at = self.at(offset, 4, 4);
        // SAFETY: as above.
        unsafe { AtomicU32::from_ptr(at.cast().as_ptr()) }.store(value.to_le(), Ordering::Release);
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

    /// Reads 64 bits, little-endian, at any offset. No device must have them.
    pub fn read64_unaligned(&self, offset: usize) -> u64 {
        let at = self.at(offset, 8, 1).cast::<u64>();
        // SAFETY: `at` is inside the region.
        u64::from_le(unsafe { at.read_unaligned() })
    }

    /// Copies `data.len()` bytes out, from `offset` on. No device must have them.
    #[inline]
    pub fn copy_out(&self, offset: usize, data: &mut [u8]) {
        let at = self.at(offset, data.len(), 1);
        // SAFETY: `at` and what follows are inside the region. `data` is borrowed exclusively, and
        // regions hold what no reference points to, so they do not overlap.
        unsafe { at.copy_to_nonoverlapping(NonNull::from_mut(data).cast(), data.len()) }
    }

    /// Copies bytes in, at `offset`. No device must have them.
    #[inline]
    pub fn copy_in(&self, offset: usize, data: &[u8]) {
        let at = self.at(offset, data.len(), 1);
        // SAFETY: as above.
        unsafe { at.copy_from_nonoverlapping(NonNull::from_ref(data).cast(), data.len()) }
    }

    /// Copies `len` bytes from `from_offset` of another region to `offset` of this one. No device
    /// must have either. Where they overlap, what is copied is not specified.
    pub fn copy_from(&self, offset: usize, from: &Self, from_offset: usize, len: usize) {
        /// Up to here words are quicker than the call, which in the guest moves bytes.
        const SHORT: usize = 256;
        let (to, from) = (self.at(offset, len, 1), from.at(from_offset, len, 1));
        if len > SHORT {
            // SAFETY: both are inside their regions, and may overlap.
            unsafe { to.copy_from(from, len) }
            return;
        }
        let words = len / 8;
        for index in 0..words {
            // SAFETY: `index` is below the number of words that fit; neither needs to be aligned.
            unsafe {
                let word = from.cast::<u64>().add(index).read_unaligned();
                to.cast::<u64>().add(index).write_unaligned(word);
            }
        }
        for index in 8 * words..len {
            // SAFETY: `index` is below the length that was checked.
            unsafe { to.add(index).write(from.add(index).read()) }
        }
    }

    /// Fills `len` bytes at `offset` with words of 64 bits, little-endian, that start at `base` and
    /// rise by `step`; the last is cut off where `len` is no multiple of 8.
    pub fn fill_pattern(&self, offset: usize, len: usize, base: u64, step: u64) {
        let at = self.at(offset, len, 1);
        let mut word = base;
        for index in 0..len / 8 {
            // SAFETY: `index` is below the number of words that fit. No device has this memory now
            // (the caller is about to hand it over), so a plain store will do and can be vectorised.
            unsafe { at.cast::<u64>().add(index).write_unaligned(word.to_le()) }
            word = word.wrapping_add(step);
        }
        let rest = word.to_le_bytes();
        for (index, byte) in (len / 8 * 8..len).zip(rest) {
            // SAFETY: `index` is below the length that was checked.
            unsafe { at.add(index).write(byte) }
        }
        // What comes next tells the device; the stores must not sink below it.
        core::sync::atomic::fence(Ordering::Release);
    }

    /// Whether `len` bytes at `offset` are the words that [`fill_pattern`](Self::fill_pattern) would
    /// have put there. The device must be done with them.
    pub fn matches_pattern(&self, offset: usize, len: usize, base: u64, step: u64) -> bool {
        core::sync::atomic::fence(Ordering::Acquire);
        let at = self.at(offset, len, 1);
        let mut word = base;
        let mut difference = 0;
        for index in 0..len / 8 {
            // SAFETY: `index` is below the number of words that fit; the device has given the memory
            // back (its completion was seen), so a plain load will do and can be vectorised.
            let found = unsafe { at.cast::<u64>().add(index).read_unaligned() };
            difference |= u64::from_le(found) ^ word;
            word = word.wrapping_add(step);
        }
        let rest = word.to_le_bytes();
        for (index, byte) in (len / 8 * 8..len).zip(rest) {
            // SAFETY: `index` is below the length that was checked.
            difference |= u64::from(unsafe { at.add(index).read() } ^ byte);
        }
        difference == 0
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::Platform;
    use crate::testing::Fake;

    const STEP: u64 = 0x0102_0304_0506_0708;

    fn region(len: usize) -> DmaRegion {
        Fake::new().allocate(len).unwrap()
    }

    fn bytes(region: &DmaRegion) -> Vec<u8> {
        let mut data = vec![0; region.len()];
        region.read_bytes(0, &mut data);
        data
    }

    #[test]
    fn a_pattern_fills_and_matches_at_any_offset_and_length() {
        let words: Vec<u8> =
            (0..8).flat_map(|index| (7 + STEP.wrapping_mul(index)).to_le_bytes()).collect();
        for offset in 0..9 {
            for len in 0..40 {
                let region = region(64);
                region.fill_pattern(offset, len, 7, STEP);
                let mut expected = vec![0; 64];
                expected[offset..offset + len].copy_from_slice(&words[..len]);
                assert_eq!(bytes(&region), expected, "{offset} {len}");
                assert!(region.matches_pattern(offset, len, 7, STEP));
                for at in offset..offset + len {
                    let byte = region.read8(at);
                    region.write8(at, byte ^ 0x80);
                    assert!(!region.matches_pattern(offset, len, 7, STEP), "{offset} {len} {at}");
                    region.write8(at, byte);
                }
                // What is outside does not matter.
                region.write8(offset + len, 0xff);
                assert!(region.matches_pattern(offset, len, 7, STEP));
            }
        }
    }

    #[test]
    fn copies_move_what_they_should_and_nothing_else() {
        let from = region(2048);
        from.fill_pattern(0, 2048, 1, STEP);
        let source = bytes(&from);
        for len in [0, 1, 7, 8, 9, 64, 255, 256, 257, 1514] {
            for (offset, from_offset) in [(0, 0), (3, 0), (0, 5), (9, 2)] {
                let to = region(2048);
                to.copy_from(offset, &from, from_offset, len);
                let mut expected = vec![0; 2048];
                expected[offset..offset + len].copy_from_slice(&source[from_offset..][..len]);
                assert_eq!(bytes(&to), expected, "{len} {offset} {from_offset}");
                let mut out = vec![0; len];
                to.copy_out(offset, &mut out);
                assert_eq!(out, &source[from_offset..][..len]);
            }
        }
        assert_eq!(from.read64_unaligned(3).to_le_bytes(), source[3..11]);
    }

    #[test]
    fn parts_are_where_they_say() {
        let whole = region(64);
        let part = whole.part(6, 10);
        part.write16(0, 0x1234);
        assert_eq!((whole.read16(6), part.physical(0)), (0x1234, whole.physical(6)));
        part.write64(2, 5);
        assert_eq!(whole.read64(8), 5);
    }

    #[test]
    #[should_panic(expected = "outside the region")]
    fn a_part_ends_where_it_ends() {
        region(64).part(6, 10).read8(10);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn aligned_accesses_are_aligned_by_address() {
        region(64).part(6, 16).read64(0);
    }
}
