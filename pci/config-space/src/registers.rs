//! Configuration registers as bytes, each with a mask of what the guest may do to it.

/// Bytes of conventional configuration space, all that our functions use of it.
pub(crate) const LEN: usize = 256;

/// A file of byte registers. Accesses of any offset and length are answered: what lies outside
/// reads as zero and is not written.
#[derive(Clone)]
pub(crate) struct Registers {
    bytes: [u8; LEN],
    reset: [u8; LEN],
    writable: [u8; LEN],
    write_1_to_clear: [u8; LEN],
}

impl Registers {
    pub(crate) fn new() -> Self {
        let zero = [0; LEN];
        Self { bytes: zero, reset: zero, writable: zero, write_1_to_clear: zero }
    }

    /// Fixes what `offset..` holds after reset. For construction; panics outside the file.
    pub(crate) fn define(&mut self, offset: u16, value: &[u8]) {
        let start = usize::from(offset);
        self.reset[start..start + value.len()].copy_from_slice(value);
        self.bytes[start..start + value.len()].copy_from_slice(value);
    }

    /// Lets the guest write the bits of `mask`. For construction; panics outside the file.
    pub(crate) fn allow(&mut self, offset: u16, mask: &[u8]) {
        let start = usize::from(offset);
        self.writable[start..start + mask.len()].copy_from_slice(mask);
    }

    /// Lets the guest clear the bits of `mask` by writing ones. For construction; panics outside the
    /// file.
    pub(crate) fn allow_clear(&mut self, offset: u16, mask: &[u8]) {
        let start = usize::from(offset);
        self.write_1_to_clear[start..start + mask.len()].copy_from_slice(mask);
    }

    /// One byte.
    pub(crate) fn u8(&self, offset: u16) -> u8 {
        self.bytes.get(usize::from(offset)).copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub(crate) fn u16(&self, offset: u16) -> u16 {
        u16::from_le_bytes([self.u8(offset), self.u8(offset.saturating_add(1))])
    }

    /// Four bytes, little-endian.
    pub(crate) fn u32(&self, offset: u16) -> u32 {
        let high = self.u16(offset.saturating_add(2));
        u32::from(self.u16(offset)) | (u32::from(high) << 16)
    }

    /// Sets a byte, whatever the guest may do to it.
    pub(crate) fn set(&mut self, offset: u16, value: u8) {
        if let Some(byte) = self.bytes.get_mut(usize::from(offset)) {
            *byte = value;
        }
    }

    /// A guest's write of one byte.
    pub(crate) fn write(&mut self, offset: u16, value: u8) {
        let at = usize::from(offset);
        let (Some(byte), Some(writable), Some(clear)) =
            (self.bytes.get_mut(at), self.writable.get(at), self.write_1_to_clear.get(at))
        else {
            return;
        };
        *byte = ((*byte & !writable) | (value & writable)) & !(value & clear);
    }

    /// All of them, for saving.
    pub(crate) fn bytes(&self) -> &[u8; LEN] {
        &self.bytes
    }

    /// Takes saved bytes over if they differ from those after reset only in what the guest may write;
    /// else says where they do not, and nothing has changed.
    pub(crate) fn restore(&mut self, saved: &[u8; LEN]) -> Result<(), usize> {
        let fixed = self.writable.iter().map(|writable| !writable);
        let foreign = self.reset.iter().zip(saved).zip(fixed);
        let differs = |((reset, saved), fixed): ((&u8, &u8), u8)| (reset ^ saved) & fixed != 0;
        if let Some(at) = foreign.map(differs).position(|differs| differs) {
            return Err(at);
        }
        self.bytes = *saved;
        Ok(())
    }

    /// Back to the values after reset.
    pub(crate) fn reset(&mut self) {
        self.bytes = self.reset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_does_what_its_mask_says() {
        let mut registers = Registers::new();
        registers.define(4, &[0x12, 0xff]);
        registers.allow(4, &[0x0f]);
        registers.allow_clear(5, &[0xf0]);
        registers.write(4, 0xff);
        registers.write(5, 0x3f);
        assert_eq!(registers.u16(4), 0xcf1f);
        registers.set(4, 0xaa);
        assert_eq!(registers.u32(3), 0x00cf_aa00);
        registers.reset();
        assert_eq!(registers.u16(4), 0xff12);
    }

    #[test]
    fn outside_reads_zero_and_is_not_written() {
        let mut registers = Registers::new();
        registers.define(255, &[0x55]);
        registers.write(256, 0xff);
        registers.set(u16::MAX, 0xff);
        assert_eq!((registers.u32(255), registers.u32(u16::MAX)), (0x55, 0));
    }
}
