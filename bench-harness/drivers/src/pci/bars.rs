//! Base address registers (PCI 3.0, 6.2.5).

use paraslot_spec::pci::{Command, bar, header};

use super::{Function, functions};
use crate::{Error, Platform};

/// A memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Bus address of its first byte; 0 while it is not placed.
    pub address: u64,
    /// Bytes, a power of two.
    pub size: u64,
}

/// BARs of a function.
const BARS: u8 = 6;
/// BARs of a bridge.
const BRIDGE_BARS: u8 = 2;
/// Memory window of a bridge: base and limit, in units of 1 MiB (PCI-to-PCI Bridge 1.2, 3.2.5.8).
const BRIDGE_WINDOW: u16 = 0x20;
/// Its prefetchable window, the same below 4 GiB (3.2.5.9).
const BRIDGE_PREFETCHABLE_WINDOW: u16 = 0x24;
/// Address ranges that are looked out for when a BAR is placed.
const MAX_RANGES: usize = 256;
/// Bytes of a page of memory.
const PAGE: u64 = 4096;

impl<P: Platform> Function<'_, P> {
    fn bar_count(&self) -> u8 {
        if self.is_bridge() { BRIDGE_BARS } else { BARS }
    }

    /// The memory BAR that starts at register `index`. Its size is found out by writing to it: the
    /// function must not decode memory meanwhile, see [`without_decoding`](Self::without_decoding).
    fn size_bar(&self, index: u8) -> Option<(Bar, bool)> {
        let offset = header::BAR0 + 4 * u16::from(index);
        let low = self.read32(offset);
        if low & bar::IO != 0 {
            return None;
        }
        let wide = low & bar::MEMORY_64 != 0;
        if wide && index + 1 >= self.bar_count() {
            return None;
        }
        let high = if wide { self.read32(offset + 4) } else { 0 };
        self.write32(offset, u32::MAX);
        let low_mask = self.read32(offset) & !bar::MEMORY_FLAGS;
        self.write32(offset, low);
        let high_mask = if wide {
            self.write32(offset + 4, u32::MAX);
            let mask = self.read32(offset + 4);
            self.write32(offset + 4, high);
            mask
        } else {
            u32::MAX
        };
        let mask = u64::from(high_mask) << 32 | u64::from(low_mask);
        if low_mask == 0 && (!wide || high_mask == 0) {
            return None;
        }
        let address = u64::from(high) << 32 | u64::from(low & !bar::MEMORY_FLAGS);
        Some((Bar { address, size: 1 << mask.trailing_zeros() }, wide))
    }

    fn without_decoding<T>(&self, work: impl FnOnce() -> T) -> T {
        let command = self.command();
        self.set_command(command - Command::MEMORY - Command::IO);
        let result = work();
        self.set_command(command);
        result
    }

    /// Calls `each` with the register index of every memory BAR, the BAR, and whether it is 64 bits
    /// wide, while the function does not decode.
    fn each_memory_bar(&self, mut each: impl FnMut(u8, Bar, bool)) {
        self.without_decoding(|| {
            let mut index = 0;
            while index < self.bar_count() {
                let found = self.size_bar(index);
                if let Some((bar, wide)) = found {
                    each(index, bar, wide);
                }
                index += if found.is_some_and(|(_, wide)| wide) { 2 } else { 1 };
            }
        });
    }

    /// The memory BAR that starts at register `index`, once it is placed.
    ///
    /// # Errors
    /// When there is none, or it is not placed.
    pub fn bar(&self, index: u8) -> Result<Bar, Error> {
        // It alone is sized: each access costs an exit, and more where the function is served.
        let (count, mut at) = (self.bar_count(), 0);
        while at < index.min(count) {
            let low = self.read32(header::BAR0 + 4 * u16::from(at));
            at += if low & (bar::IO | bar::MEMORY_64) == bar::MEMORY_64 { 2 } else { 1 };
        }
        let exists = at == index && index < count;
        let found = exists.then(|| self.without_decoding(|| self.size_bar(index))).flatten();
        let (found, _) = found.ok_or(Error::Protocol("a BAR that does not exist"))?;
        let placed = found.address != 0 && found.address.checked_add(found.size).is_some();
        if placed { Ok(found) } else { Err(Error::Protocol("a BAR without an address")) }
    }

    /// Places those of its BARs that the firmware left at 0, and lets the function decode memory and
    /// master the bus. INTx is disabled.
    ///
    /// # Errors
    /// When there is no room for a BAR.
    pub fn enable(&self) -> Result<(), Error> {
        let mut bars = [None; BARS as usize];
        self.each_memory_bar(|index, bar, wide| {
            if let Some(place) = bars.get_mut(usize::from(index)) {
                *place = Some((bar, wide));
            }
        });
        if bars.iter().flatten().any(|(bar, _)| bar.address == 0) {
            self.place(&bars)?;
        }
        let on = Command::MEMORY | Command::BUS_MASTER | Command::INTX_DISABLE;
        self.set_command(self.command() | on);
        Ok(())
    }

    /// Takes away bus mastering and memory decoding.
    pub fn disable(&self) {
        self.set_command(self.command() - Command::MEMORY - Command::BUS_MASTER);
    }

    /// Places those of its BARs that are at 0: its own, by the index of their registers, with whether they are
    /// wide.
    fn place(&self, own: &[Option<(Bar, bool)>]) -> Result<(), Error> {
        let mut taken = Taken::default();
        for function in functions(self.platform) {
            if function.bdf == self.bdf {
                own.iter().flatten().for_each(|(bar, _)| taken.add(bar.address, bar.size));
            } else {
                function.each_memory_bar(|_, bar, _| taken.add(bar.address, bar.size));
            }
            if function.is_bridge() {
                taken.add_window(function.read32(BRIDGE_WINDOW));
                taken.add_window(function.read32(BRIDGE_PREFETCHABLE_WINDOW));
            }
        }
        let space = self.platform.bar_space();
        let unplaced = (header::BAR0..).step_by(4).zip(own).filter_map(|(offset, bar)| {
            let (bar, wide) = (*bar)?;
            (bar.address == 0).then_some((offset, bar, wide))
        });
        self.without_decoding(|| {
            for (offset, bar, wide) in unplaced {
                // Pages of its own: then a hypervisor can map it, and nothing else with it.
                let room = bar.size.max(PAGE);
                let address = taken.find(space.start, space.end, room).ok_or(Error::NoMemory)?;
                taken.add(address, room);
                let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
                self.write32(offset, u32::from_le_bytes([a, b, c, d]));
                if wide {
                    self.write32(offset + 4, u32::from_le_bytes([e, f, g, h]));
                }
            }
            Ok(())
        })
    }
}

/// Address ranges that are in use: first and last byte.
pub(super) struct Taken {
    ranges: [(u64, u64); MAX_RANGES],
    len: usize,
    overflowed: bool,
}

impl Default for Taken {
    fn default() -> Self {
        Self { ranges: [(0, 0); MAX_RANGES], len: 0, overflowed: false }
    }
}

impl Taken {
    pub(super) fn add(&mut self, address: u64, size: u64) {
        if address == 0 || size == 0 {
            return;
        }
        match self.ranges.get_mut(self.len) {
            Some(range) => {
                *range = (address, address.saturating_add(size - 1));
                self.len += 1;
            }
            // More than are looked out for: nothing is known to be free any more.
            None => self.overflowed = true,
        }
    }

    /// Takes a bridge's window, from its base and limit registers.
    pub(super) fn add_window(&mut self, register: u32) {
        let base = u64::from(register & 0xfff0) << 16;
        let limit = u64::from(register & 0xfff0_0000) | 0xf_ffff;
        if base <= limit {
            self.add(base, limit - base + 1);
        }
    }

    /// A free, aligned place for `size` bytes in `start..end`.
    pub(super) fn find(&self, start: u64, end: u64, size: u64) -> Option<u64> {
        if self.overflowed {
            return None;
        }
        let mut address = start.checked_next_multiple_of(size)?;
        // Each round moves past at least one range for good.
        for _ in 0..=self.len {
            let last = address.checked_add(size - 1)?;
            if last >= end {
                return None;
            }
            let ranges = self.ranges.iter().take(self.len);
            let conflict = ranges.filter(|(from, to)| *from <= last && *to >= address).max();
            match conflict {
                None => return Some(address),
                Some((_, to)) => address = to.checked_add(1)?.checked_next_multiple_of(size)?,
            }
        }
        None
    }
}
