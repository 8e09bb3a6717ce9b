//! A function as a host's buses see it: by register number and by address.

use std::sync::Arc;

use paraslot_device::{DeviceError, SavedState, SharedPage, StateError};
use paraslot_pci::{BarKind, BarSpec, PciDevice};
use vmm_sys_util::eventfd::EventFd;

use crate::PulsedLine;

/// Offset of the first BAR's register.
const BAR0: u16 = 0x10;
/// Offset of the expansion ROM's.
const ROM: u16 = 0x30;
/// Where it is among the BARs.
const ROM_BAR: u8 = 6;
/// Bytes of a configuration register.
const REGISTER: usize = 4;

/// A BAR that the guest has put elsewhere than where the host's bus has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarMove {
    /// Its index.
    pub bar: u8,
    /// What it decodes: I/O ports or memory.
    pub kind: BarKind,
    /// Where the bus has it; 0 for nowhere yet.
    pub old: u64,
    /// Where the guest wants it.
    pub new: u64,
    /// Bytes.
    pub size: u64,
}

/// A doorbell, for KVM to turn writes into eventfd writes.
#[derive(Clone, Copy, Debug)]
pub struct DoorbellAt<'a> {
    /// The address or port.
    pub address: u64,
    /// It is a port.
    pub port: bool,
    /// The access width it answers to, in bytes; 0 for any.
    pub len: u8,
    /// The value it answers to; `None` for any.
    pub value: Option<u64>,
    /// What is written.
    pub event: &'a EventFd,
}

/// Registers that the host may map into the guest, read-only.
#[derive(Clone)]
pub struct WindowAt {
    /// The guest physical address, a multiple of the page size.
    pub address: u64,
    /// The pages.
    pub page: Arc<SharedPage>,
}

/// A function, and where the host's bus has its BARs.
///
/// The host's bus routes a BAR by address from when it was given one to when the guest moves it, whether or
/// not the guest has it decode: as VMMs do that have a range registered for as long as a device lives. While
/// it does not decode, accesses are answered as if nothing were there.
pub struct Attached {
    device: Box<dyn PciDevice>,
    /// Of each BAR, where the bus has it.
    mapped: [Option<u64>; 7],
    /// The BARs whose size the guest is finding out: ones were the last that was written to a register of
    /// theirs.
    sizing: [bool; 7],
    line: Option<Arc<PulsedLine>>,
}

impl Attached {
    /// Takes a function over that nobody has placed yet.
    pub fn new(device: impl PciDevice + 'static) -> Self {
        Self::boxed(Box::new(device))
    }

    /// The same with one whose type nobody knows any more.
    pub fn boxed(device: Box<dyn PciDevice>) -> Self {
        Self { device, mapped: [None; 7], sizing: [false; 7], line: None }
    }

    /// Has `line`, which the function was built with, know of accesses.
    #[must_use]
    pub fn with_line(mut self, line: Arc<PulsedLine>) -> Self {
        self.line = Some(line);
        self
    }

    fn accessed(&self) {
        if let Some(line) = &self.line {
            line.accessed();
        }
    }

    /// The function.
    pub fn device(&mut self) -> &mut dyn PciDevice {
        &mut *self.device
    }

    /// The BARs to be placed.
    pub fn bars(&self) -> impl Iterator<Item = (u8, BarSpec)> {
        (0..).zip(self.device.layout().bars).filter_map(|(bar, spec)| Some((bar, spec?)))
    }

    /// Puts BAR `bar` where the host's allocator has found room for it: writes its register and takes note.
    /// Nothing for a BAR that there is not.
    ///
    /// The address is a multiple of the BAR's size, and below 4 GiB unless it is [`BarKind::Memory64`].
    pub fn place(&mut self, bar: u8, address: u64) {
        let spec = self.device.layout().bars.get(usize::from(bar)).copied().flatten();
        if let (Some(spec), Some(mapped)) = (spec, self.mapped.get_mut(usize::from(bar))) {
            write_bar_register(&mut *self.device, bar, spec.kind, address);
            *mapped = Some(address);
        }
    }

    /// Where the bus has a BAR.
    pub fn placed(&self, bar: u8) -> Option<u64> {
        self.mapped.get(usize::from(bar)).copied().flatten()
    }

    /// Reads configuration register `register`, 0 to 1023.
    pub fn config_read(&mut self, register: usize) -> u32 {
        let mut data = [0xff; REGISTER];
        if let Some(offset) = offset_of(register, 0) {
            self.device.config_read(offset, &mut data);
        }
        u32::from_le_bytes(data)
    }

    /// Writes `data` to configuration register `register` from byte `offset` of it on. Returns the BARs that
    /// decode elsewhere now than where the bus has them.
    ///
    /// One whose size the guest is finding out stays where it is until its register is written again,
    /// whether or not the guest has switched decoding off, as it should.
    pub fn config_write(&mut self, register: usize, offset: u64, data: &[u8]) -> Vec<BarMove> {
        if let Some(offset) = offset_of(register, offset) {
            self.device.config_write(offset, data);
            if let Some(bar) = self.bar_of(offset)
                && let Some(sizing) = self.sizing.get_mut(bar)
            {
                *sizing = data == [0xff; REGISTER];
            }
        }
        self.moves()
    }

    /// The BARs that decode elsewhere than where the bus has them, as after a restore.
    pub fn moves(&self) -> Vec<BarMove> {
        let states = (0..).zip(self.device.bars()).zip(self.mapped.into_iter().zip(self.sizing));
        let moved = states.filter_map(|((bar, state), (mapped, sizing))| {
            let rests = |address| !sizing && mapped != Some(address);
            let state = state.filter(|state| state.enabled && rests(state.address))?;
            let (kind, new, size) = (state.kind, state.address, state.size);
            Some(BarMove { bar, kind, old: mapped.unwrap_or(0), new, size })
        });
        moved.collect()
    }

    /// The host's bus has the range where the guest wants it now. Returns whether it was a BAR of this
    /// function's.
    pub fn moved(&mut self, old: u64, new: u64) -> bool {
        // Two BARs can change places, so it is the one that is to go there.
        let to = self.moves().into_iter().find(|to| (to.old, to.new) == (old, new));
        let place = to.and_then(|to| self.mapped.get_mut(usize::from(to.bar)));
        place.map(|place| *place = Some(new)).is_some()
    }

    /// The host cannot have it there: the register goes back to where the bus has the BAR.
    pub fn refuse(&mut self, refused: &BarMove) {
        if let Some(old) = self.placed(refused.bar) {
            write_bar_register(&mut *self.device, refused.bar, refused.kind, old);
        }
    }

    /// Reads from the BAR that the bus has at `base`; ones, if there is none or it does not decode.
    pub fn read(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(bar) = self.decoding(base) {
            self.device.bar_read(bar, offset, data);
            self.accessed();
        }
    }

    /// Writes to the BAR that the bus has at `base`, if there is one that decodes.
    pub fn write(&mut self, base: u64, offset: u64, data: &[u8]) {
        if let Some(bar) = self.decoding(base) {
            self.device.bar_write(bar, offset, data);
            self.accessed();
        }
    }

    /// The doorbells in the BAR that the bus has, or would have, at `base`. Register them when the BAR has
    /// been placed, and whenever it was moved, after taking back those at its old base.
    pub fn doorbells(&self, bar: u8, base: u64) -> impl Iterator<Item = DoorbellAt<'_>> {
        let layout = self.device.layout();
        let spec = layout.bars.get(usize::from(bar)).copied().flatten();
        let port = spec.is_some_and(|spec| spec.kind == BarKind::Io);
        layout.doorbells.iter().filter(move |bell| bell.bar == bar).map(move |bell| DoorbellAt {
            address: base.wrapping_add(bell.offset),
            port,
            len: bell.len,
            value: bell.value,
            event: &bell.event,
        })
    }

    /// The pages that may be mapped for reading, likewise. Only while the BAR decodes. Leaving them out
    /// costs exits and nothing else.
    pub fn windows(&self, bar: u8, base: u64) -> impl Iterator<Item = WindowAt> {
        let windows = self.device.layout().windows.iter().filter(move |window| window.bar == bar);
        windows.map(move |window| WindowAt {
            address: base.wrapping_add(window.offset),
            page: window.page.clone(),
        })
    }

    /// Stops all work; see [`PciDevice::pause`].
    ///
    /// # Errors
    /// When requests in flight do not finish.
    pub fn pause(&mut self) -> Result<(), DeviceError> {
        self.device.pause()
    }

    /// Undoes [`pause`](Self::pause).
    ///
    /// # Errors
    /// When the workers cannot be started again.
    pub fn resume(&mut self) -> Result<(), DeviceError> {
        self.device.resume()
    }

    /// The function's state as JSON, while it is paused.
    ///
    /// # Errors
    /// As [`PciDevice::save`].
    pub fn snapshot(&mut self) -> Result<String, StateError> {
        Ok(serde_json::to_string(&self.device.save()?)?)
    }

    /// Pauses the function and takes over a state that [`snapshot`](Self::snapshot) gave. It stays paused.
    /// Then [`place`](Self::place) the BARs where the host has them, if it keeps that itself, or else act on
    /// [`moves`](Self::moves).
    ///
    /// # Errors
    /// As [`PciDevice::restore`]; the function is as after a reset then.
    pub fn restore(&mut self, snapshot: &str) -> Result<(), StateError> {
        let state: SavedState = serde_json::from_str(snapshot)?;
        self.device.pause()?;
        self.device.restore(&state)
    }

    /// The BAR that a configuration register at `offset` belongs to.
    fn bar_of(&self, offset: u16) -> Option<usize> {
        let bar = match offset {
            ROM..0x34 => return Some(ROM_BAR.into()),
            BAR0..0x28 => usize::from((offset - BAR0) / 4),
            _ => return None,
        };
        // The high half of a 64-bit BAR is where the next one's register would be.
        let has = |bar: usize| self.device.layout().bars.get(bar).is_some_and(Option::is_some);
        if has(bar) { Some(bar) } else { bar.checked_sub(1) }
    }

    /// The BAR that the bus has at `base`, if it decodes and is there.
    fn decoding(&self, base: u64) -> Option<u8> {
        let at = self.mapped.iter().position(|mapped| *mapped == Some(base))?;
        let state = self.device.bars().get(at).copied().flatten()?;
        (state.enabled && state.address == base).then_some(u8::try_from(at).ok()?)
    }
}

/// Where an access to a configuration register starts.
fn offset_of(register: usize, offset: u64) -> Option<u16> {
    let start = register.checked_mul(REGISTER)?;
    let offset = start.checked_add(usize::try_from(offset).ok()?)?;
    u16::try_from(offset).ok().filter(|offset| *offset < 4096)
}

fn write_bar_register(device: &mut dyn PciDevice, bar: u8, kind: BarKind, address: u64) {
    let at = if bar == ROM_BAR { ROM } else { BAR0 + 4 * u16::from(bar) };
    let [a, b, c, d, high @ ..] = address.to_le_bytes();
    let mut low = [a, b, c, d];
    if kind == BarKind::Rom {
        // Its enable bit is in the same register.
        let mut now = [0; REGISTER];
        device.config_read(at, &mut now);
        low[0] |= now[0] & 1;
    }
    device.config_write(at, &low);
    if kind == BarKind::Memory64 {
        device.config_write(at + 4, &high);
    }
}

#[cfg(test)]
mod tests;
