//! The MSI-X table and pending bits, in memory space (6.8.2).

use paraslot_device::MsiMessage;
use paraslot_spec::pci::msix;

use crate::MsixLayout;
use crate::gate::Position;
use crate::interrupts::{Interrupts, Router, Source};

/// Bytes of a table entry.
const ENTRY: usize = 16;

/// The bits of an entry that the guest may write: the message address but for its two low bits, the
/// message data, and the mask bit. The rest is zero.
const WRITABLE: [u8; ENTRY] =
    [0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0];

/// An entry after reset: all zero but the mask bit.
const RESET: [u8; ENTRY] = {
    let mut entry = [0; ENTRY];
    entry[12] = 0x01;
    entry
};

/// How MSI-X is switched as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switch {
    /// The capability's enable bit.
    pub(crate) enabled: bool,
    /// No vector may send: the capability's function mask, or no bus mastering.
    pub(crate) masked: bool,
}

impl Switch {
    pub(crate) fn position(self, vector_masked: bool) -> Position {
        match self {
            Self { enabled: false, .. } => Position::Off,
            Self { masked, .. } if masked || vector_masked => Position::Masked,
            _ => Position::Open,
        }
    }
}

/// A function's MSI-X table, and where it and the pending bits are.
pub(crate) struct Table {
    layout: MsixLayout,
    entries: Box<[[u8; ENTRY]]>,
    switch: Switch,
}

impl Table {
    pub(crate) fn new(layout: MsixLayout) -> Self {
        let entries = vec![RESET; usize::from(layout.vectors)].into();
        Self { layout, entries, switch: Switch::default() }
    }

    /// Answers a read if it starts in the table or the pending bits; says whether it did. What it
    /// reads beyond their end is zero.
    pub(crate) fn read(
        &self,
        interrupts: &Interrupts,
        bar: u8,
        offset: u64,
        data: &mut [u8],
    ) -> bool {
        let (in_table, start) = match self.find(bar, offset) {
            Some(Place::Table(start)) => (true, start),
            Some(Place::Pending(start)) => (false, start),
            None => return false,
        };
        for (at, byte) in (start..).zip(data) {
            *byte = if in_table { self.table_byte(at) } else { self.pending_byte(interrupts, at) };
        }
        true
    }

    /// Takes a write if it starts in the table or the pending bits, which ignore it; says whether it
    /// did. What it writes beyond the table's end is ignored.
    pub(crate) fn write(&mut self, router: &mut Router, bar: u8, offset: u64, data: &[u8]) -> bool {
        let start = match self.find(bar, offset) {
            Some(Place::Table(start)) => start,
            Some(Place::Pending(_)) => return true,
            None => return false,
        };
        for (at, value) in (start..).zip(data) {
            if let Some(byte) =
                self.entries.get_mut(at / ENTRY).and_then(|entry| entry.get_mut(at % ENTRY))
            {
                let writable = WRITABLE.get(at % ENTRY).copied().unwrap_or(0);
                *byte = (*byte & !writable) | (value & writable);
            }
        }
        // The whole access first, then its effect: a write of data and mask bit together unmasks the
        // vector with its new data.
        let last = start + data.len().max(1) - 1;
        for vector in start / ENTRY..=(last / ENTRY).min(self.entries.len().saturating_sub(1)) {
            self.route(router, vector);
        }
        true
    }

    /// Switches MSI-X as a whole.
    pub(crate) fn switch(&mut self, router: &mut Router, to: Switch) {
        if self.switch == to {
            return;
        }
        self.switch = to;
        for vector in 0..self.entries.len() {
            self.route(router, vector);
        }
    }

    /// Masks and zeroes all entries. To be switched off first, so that the host hears once only.
    pub(crate) fn reset(&mut self) {
        self.entries.fill(RESET);
    }

    /// The table as the guest reads it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.entries.concat()
    }

    /// Takes a saved table over, while MSI-X is switched off; `false` if it is not one of as many
    /// entries, or has bits that a guest cannot set.
    pub(crate) fn restore(&mut self, saved: &[u8]) -> bool {
        let (entries, rest) = saved.as_chunks::<ENTRY>();
        let possible = |entry: &[u8; ENTRY]| {
            entry.iter().zip(WRITABLE).all(|(byte, writable)| byte & !writable == 0)
        };
        let fits = rest.is_empty() && entries.len() == self.entries.len();
        if fits && entries.iter().all(possible) {
            self.entries.copy_from_slice(entries);
            return true;
        }
        false
    }

    fn route(&self, router: &mut Router, vector: usize) {
        let (Some(entry), Ok(index)) = (self.entries.get(vector), u16::try_from(vector)) else {
            return;
        };
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] = *entry;
        let message = MsiMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        };
        let masked = u32::from(control) & msix::VECTOR_MASKED != 0;
        router.set(Source::Msix(index), message, self.switch.position(masked));
    }

    fn table_byte(&self, at: usize) -> u8 {
        self.entries.get(at / ENTRY).and_then(|entry| entry.get(at % ENTRY)).copied().unwrap_or(0)
    }

    fn pending_byte(&self, interrupts: &Interrupts, at: usize) -> u8 {
        (0..8).fold(0, |byte, bit| {
            let vector = at.checked_mul(8).and_then(|first| u16::try_from(first + bit).ok());
            let pending = vector.is_some_and(|vector| interrupts.msix_pending(vector));
            byte | (u8::from(pending) << bit)
        })
    }

    fn find(&self, bar: u8, offset: u64) -> Option<Place> {
        let within = |(structure_bar, start): (u8, u32), len: u64| {
            let at = offset.checked_sub(start.into())?;
            (bar == structure_bar && at < len).then_some(usize::try_from(at).ok()?)
        };
        let table = || within(self.layout.table, table_len(self.layout.vectors));
        let pending = || within(self.layout.pba, pending_len(self.layout.vectors));
        table().map(Place::Table).or_else(|| pending().map(Place::Pending))
    }
}

/// Where an access starts, in bytes.
enum Place {
    Table(usize),
    Pending(usize),
}

/// Bytes of the table of `vectors` vectors.
pub(crate) fn table_len(vectors: u16) -> u64 {
    u64::from(vectors) * msix::ENTRY_LEN
}

/// Bytes of the pending bits of `vectors` vectors: whole quadwords.
pub(crate) fn pending_len(vectors: u16) -> u64 {
    u64::from(vectors.div_ceil(64)) * 8
}

#[cfg(test)]
mod tests;
