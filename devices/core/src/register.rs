//! Register maps as tables.
//!
//! A device describes its registers once, in a table; what a read returns and what a write leaves
//! behind follows from the table for every legal access width, and the catalogue prints it.
//! Behaviour (side effects) is one exhaustive match in the device.

/// What a guest can do with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// The name, as the specification writes it.
    pub name: &'static str,
    /// Offset in the BAR, or in the repeated block, in bytes.
    pub offset: u32,
    /// Value after reset. All registers here are 32 bits wide.
    pub reset: u32,
    /// Bits that a write sets to what is written.
    pub writable: u32,
    /// Bits that a write of one clears.
    pub write_1_to_clear: u32,
    /// Bits that a write of one sets and a write of zero leaves.
    pub write_1_to_set: u32,
}

impl Register {
    /// A register that ignores writes.
    pub const fn read_only(name: &'static str, offset: u32, reset: u32) -> Self {
        Self { name, offset, reset, writable: 0, write_1_to_clear: 0, write_1_to_set: 0 }
    }

    /// A register of which `writable` bits take what is written.
    pub const fn read_write(name: &'static str, offset: u32, reset: u32, writable: u32) -> Self {
        Self { name, offset, reset, writable, write_1_to_clear: 0, write_1_to_set: 0 }
    }

    /// Makes `bits` cleared by writing ones.
    pub const fn clears(mut self, bits: u32) -> Self {
        self.write_1_to_clear = bits;
        self
    }

    /// Makes `bits` set by writing ones.
    pub const fn sets(mut self, bits: u32) -> Self {
        self.write_1_to_set = bits;
        self
    }

    /// What the register holds after `value` was written to it. `lanes` has ones for the bits that
    /// the access covers (all, for a full-width access); the others are left alone, without the
    /// register being read to complete the write.
    pub const fn written(&self, old: u32, value: u32, lanes: u32) -> u32 {
        let value = value & lanes;
        let writable = self.writable & lanes;
        let kept = old & !writable;
        (kept | (value & writable) | (value & self.write_1_to_set))
            & !(value & self.write_1_to_clear)
    }
}

/// The part of one 32-bit register that a narrower or wider access touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Offset of the register, a multiple of 4.
    pub register: u32,
    /// Byte in the register where the access starts.
    pub shift: u32,
    /// First byte in the access's data.
    pub start: usize,
    /// Bytes of the register that the access covers, 1 to 4.
    pub len: usize,
}

impl Lane {
    /// Ones for the bits that the access covers.
    pub const fn mask(&self) -> u32 {
        let ones = if self.len >= 4 { u32::MAX } else { (1 << (self.len * 8)) - 1 };
        ones << (self.shift * 8)
    }

    /// The bytes that the access writes, moved to their place in the register.
    pub fn value(&self, data: &[u8]) -> u32 {
        let mut bytes = [0u8; 4];
        for (index, byte) in data.iter().skip(self.start).take(self.len).enumerate() {
            if let Some(place) = bytes.get_mut(self.shift as usize + index) {
                *place = *byte;
            }
        }
        u32::from_le_bytes(bytes)
    }

    /// Puts the part of `value` that the access reads into its data.
    pub fn store(&self, value: u32, data: &mut [u8]) {
        let bytes = value.to_le_bytes();
        for (index, place) in data.iter_mut().skip(self.start).take(self.len).enumerate() {
            *place = bytes.get(self.shift as usize + index).copied().unwrap_or(0xff);
        }
    }
}

/// Splits an access of any offset and length into the 32-bit registers it touches, in order.
pub fn lanes(offset: u64, len: usize) -> impl Iterator<Item = Lane> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start >= len {
            return None;
        }
        let at = offset.checked_add(start as u64)?;
        let register = u32::try_from(at & !3).ok()?;
        let shift = (at & 3) as u32;
        let count = (4 - shift as usize).min(len - start);
        let lane = Lane { register, shift, start, len: count };
        start += count;
        Some(lane)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTER: Register =
        Register::read_write("TEST", 4, 0, 0xff).clears(0xff00).sets(0xff_0000);

    #[test]
    fn each_kind_of_bit_does_its_own() {
        assert_eq!(REGISTER.written(0xaa00_ff00, 0x0001_0f55, u32::MAX), 0xaa01_f055);
        // A byte access leaves the other bytes alone.
        assert_eq!(REGISTER.written(0xaa00_ff12, 0xffff_ff55, 0xff), 0xaa00_ff55);
    }

    #[test]
    fn accesses_split_into_registers() {
        let split: Vec<_> = lanes(6, 8).collect();
        assert_eq!(
            split,
            [
                Lane { register: 4, shift: 2, start: 0, len: 2 },
                Lane { register: 8, shift: 0, start: 2, len: 4 },
                Lane { register: 12, shift: 0, start: 6, len: 2 },
            ]
        );
        assert_eq!(split[0].mask(), 0xffff_0000);
        assert_eq!(split[1].mask(), u32::MAX);
        assert_eq!(split[0].value(&[1, 2, 3, 4]), 0x0201_0000);
        let mut data = [0; 8];
        split[2].store(0x4433_2211, &mut data);
        assert_eq!(data, [0, 0, 0, 0, 0, 0, 0x11, 0x22]);
        assert_eq!(lanes(u64::MAX, 4).count(), 0);
    }
}
