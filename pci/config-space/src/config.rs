//! Configuration space: what the guest reads and writes, and what follows from it.

use std::sync::Arc;

use paraslot_device::{BusMaster, MsiMessage};
use paraslot_spec::pci::{Command, Status, bar, express, header, msi, msix, pm};

use crate::builder::register_of;
use crate::interrupts::{Interrupts, Router, Source};
use crate::msix::{Switch, Table};
use crate::registers::Registers;
use crate::{BarKind, BarSpec, BarState, Layout};

/// What a configuration write asked of the device, beyond what [`ConfigSpace`] does itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Written {
    /// Bus mastering was turned on: wake the workers.
    pub bus_master_on: bool,
    /// Bus mastering was turned off: wait for work that still has access to memory, if there can be
    /// any.
    pub bus_master_off: bool,
    /// A function level reset was asked for: do [`PciDevice::reset`](crate::PciDevice::reset).
    pub function_reset: bool,
}

/// Offsets of the capabilities that have an effect here.
#[derive(Clone, Copy, Default)]
pub(crate) struct Capabilities {
    pub(crate) msi: Option<u16>,
    /// The MSI capability has a mask and a pending bit.
    pub(crate) msi_maskable: bool,
    pub(crate) msix: Option<u16>,
    pub(crate) power: Option<u16>,
    pub(crate) express: Option<u16>,
}

/// A function's configuration space, with its interrupts.
///
/// Accesses of any offset, length and alignment are answered. Only the first 256 bytes hold
/// anything: there are no extended capabilities, so what lies beyond reads as zero.
///
/// What follows from the registers:
/// - A BAR decodes while the command register's bit for its space is set, the function is in D0, and
///   its range is usable. A range that wraps, that leaves its space (64 KiB of I/O, 4 GiB for a
///   32-bit BAR), or that ends with the last byte of the memory space is not: the last is what a BAR
///   holds while it is being sized. Address 0 is not usable either. It is what a BAR holds after
///   reset, and guests may set the enable bits before they assign an address; PC firmware and Linux
///   take 0 for "not assigned".
/// - [`bus_master`](Self::bus_master) is on while the command register says so and the function is
///   in D0. While it is off, messages are kept pending; see [`Interrupts`].
/// - In D3hot nothing decodes and no interrupt is raised. Configuration space works. All state is
///   kept, so the way back to D0 needs nothing. D1 and D2 are not there; a write of either is ignored.
/// - While MSI or MSI-X is enabled or INTX_DISABLE is set, the INTx line is deasserted. The status
///   register's interrupt bit tells what the function wants all the same.
///
/// Left out: parity and system errors, which do not occur here, so the bits that would enable or
/// report them have no effect.
pub struct ConfigSpace {
    pub(crate) registers: Registers,
    bars: [Option<BarSpec>; 7],
    capabilities: Capabilities,
    router: Router,
    pub(crate) msix: Option<Table>,
    bus_master: BusMaster,
}

impl ConfigSpace {
    pub(crate) fn new(
        registers: Registers,
        bars: [Option<BarSpec>; 7],
        capabilities: Capabilities,
        router: Router,
        msix: Option<Table>,
        bus_master: BusMaster,
    ) -> Self {
        Self { registers, bars, capabilities, router, msix, bus_master }
    }

    /// Reads; beyond the end reads zeroes (for a function without extended capabilities).
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = offset_by(offset, index).map_or(0, |at| self.byte(at));
        }
    }

    /// Writes.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Written {
        let state = self.power_state();
        let mut function_reset = false;
        for (index, value) in data.iter().enumerate() {
            let Some(at) = offset_by(offset, index) else { break };
            self.registers.write(at, *value);
            function_reset |= self.asks_for_reset(at, *value);
        }
        if let Some(power) = self.capabilities.power
            && !self.in_possible_power_state()
        {
            let [control, _] = (pm::NO_SOFT_RESET | state).to_le_bytes();
            self.registers.set(power + pm::CONTROL, control);
        }
        let (changed, on) = (self.apply(), self.bus_master.enabled());
        Written { bus_master_on: changed && on, bus_master_off: changed && !on, function_reset }
    }

    /// Where the BARs are.
    pub fn bars(&self) -> [Option<BarState>; 7] {
        let awake = self.power_state() == D0;
        BarState::decode(&self.bars, self.command(), awake, |at| self.registers.u32(at))
    }

    /// The BARs as they were built.
    pub fn bar_specs(&self) -> [Option<BarSpec>; 7] {
        self.bars
    }

    /// A [`Layout`] with what was built, without doorbells or windows.
    pub fn layout(&self) -> Layout {
        Layout {
            bars: self.bars,
            msix_vectors: self.interrupts().msix_vectors(),
            msi_vectors: self.capabilities.msi.is_some().into(),
            intx: self.registers.u8(header::INTERRUPT_PIN) != 0,
            ..Layout::default()
        }
    }

    /// The bus-master gate, for the function's [`paraslot_device::Dma`].
    pub fn bus_master(&self) -> BusMaster {
        self.bus_master.clone()
    }

    /// Whether the function may assert its INTx line: it is in D0, INTX_DISABLE is clear, and neither MSI
    /// nor MSI-X is enabled. [`Interrupts`] sees to that; this is for a function whose line is
    /// hardware's.
    pub fn intx_allowed(&self) -> bool {
        let interrupts = self.interrupts();
        self.power_state() == D0
            && !self.command().contains(Command::INTX_DISABLE)
            && !interrupts.msix_enabled()
            && !interrupts.msi_enabled()
    }

    /// The interrupts, to be shared with workers.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        self.router.interrupts()
    }

    /// Answers a BAR read if it starts in the MSI-X structures; says whether it did. The part of it
    /// that lies beyond the structure's end reads as zero.
    pub fn msix_read(&self, bar: u8, offset: u64, data: &mut [u8]) -> bool {
        self.msix.as_ref().is_some_and(|table| table.read(self.interrupts(), bar, offset, data))
    }

    /// Takes a BAR write if it starts in the MSI-X structures; says whether it did. The part of it
    /// that lies beyond the table's end is ignored, as are writes to the pending bits.
    pub fn msix_write(&mut self, bar: u8, offset: u64, data: &[u8]) -> bool {
        let Self { msix, router, .. } = self;
        msix.as_mut().is_some_and(|table| table.write(router, bar, offset, data))
    }

    /// Back to the state after power-on.
    pub fn reset(&mut self) {
        let Self { registers, bars: _, capabilities: _, router, msix: _, bus_master } = self;
        registers.reset();
        // The registers after reset switch everything off, so nothing is raised from here on.
        bus_master.set(false);
        let interrupts = router.interrupts().clone();
        self.apply();
        interrupts.reset();
        if let Some(table) = &mut self.msix {
            table.reset();
        }
    }

    /// Makes everything that depends on the registers follow them. Says whether bus mastering was
    /// turned on or off.
    pub(crate) fn apply(&mut self) -> bool {
        let command = self.command();
        let awake = self.power_state() == D0;
        let bus_master = awake && command.contains(Command::BUS_MASTER);
        // On before the pending messages are let go: who gets one may look at the function at once.
        let changed = self.bus_master.set(bus_master);

        let Self { registers, capabilities, router, msix: table, .. } = self;
        let control = capabilities.msix.map_or(0, |at| registers.u16(at + msix::CONTROL));
        let msix = Switch {
            enabled: control & msix::ENABLE != 0,
            masked: control & msix::FUNCTION_MASK != 0 || !bus_master,
        };
        let msi_enabled =
            capabilities.msi.is_some_and(|at| registers.u16(at + msi::CONTROL) & msi::ENABLE != 0);
        let msi = Switch { enabled: msi_enabled && !msix.enabled, masked: !bus_master };
        let interrupts = router.interrupts().clone();
        let held = command.contains(Command::INTX_DISABLE) || msix.enabled || msi.enabled || !awake;

        // Between two kinds of interrupt, the one that ends goes first: at no time are there two.
        // A worker that finds a kind enabled can raise it, hence the order of the flags.
        if held {
            interrupts.hold_intx(true);
        }
        if !msix.enabled {
            interrupts.set_msix_enabled(false);
            if let Some(table) = table {
                table.switch(router, msix);
            }
        }
        if !msi.enabled {
            interrupts.set_msi_enabled(false);
        }
        if let Some(at) = capabilities.msi {
            let message = MsiMessage {
                address: u64::from(registers.u32(at + msi::ADDRESS))
                    | (u64::from(registers.u32(at + msi::ADDRESS_HIGH)) << 32),
                data: registers.u16(at + msi::DATA_64).into(),
            };
            // Without a mask there are others' registers.
            let masked = capabilities.msi_maskable && registers.u8(at + msi::MASK_64) & 1 != 0;
            router.set(Source::Msi, message, msi.position(masked));
            interrupts.set_msi_enabled(msi.enabled);
        }
        if msix.enabled {
            if let Some(table) = table {
                table.switch(router, msix);
            }
            interrupts.set_msix_enabled(true);
        }
        if !held {
            interrupts.hold_intx(false);
        }
        changed
    }

    fn byte(&self, at: u16) -> u8 {
        let byte = self.registers.u8(at);
        let live = |bit: u8, set: bool| if set { byte | bit } else { byte };
        if at == header::STATUS {
            let [interrupt, _] = Status::INTERRUPT.bits().to_le_bytes();
            return live(interrupt, self.interrupts().intx_wanted());
        }
        let msi = self.capabilities.msi.filter(|_| self.capabilities.msi_maskable);
        if msi.is_some_and(|msi| at == msi + msi::PENDING_64) {
            return live(1, self.interrupts().msi_pending());
        }
        byte
    }

    fn command(&self) -> Command {
        Command::from_bits_truncate(self.registers.u16(header::COMMAND))
    }

    /// Whether the power management capability says D0 or D3hot.
    pub(crate) fn in_possible_power_state(&self) -> bool {
        matches!(self.power_state(), D0 | D3_HOT)
    }

    fn power_state(&self) -> u16 {
        let control = self.capabilities.power.map(|at| self.registers.u16(at + pm::CONTROL));
        control.map_or(D0, |control| control & pm::STATE)
    }

    fn asks_for_reset(&self, at: u16, value: u8) -> bool {
        let [_, initiate] = express::INITIATE_FLR.to_le_bytes();
        self.capabilities.express.is_some_and(|cap| {
            let device = self.registers.u32(cap + express::DEVICE_CAPABILITIES);
            at == cap + express::DEVICE_CONTROL + 1 && device & express::FUNCTION_LEVEL_RESET != 0
        }) && value & initiate != 0
    }
}

impl BarState {
    /// Where BARs are, from the registers of a function: its command register, whether it is in D0, and its
    /// BARs (`register` of an offset in configuration space). The rules are those of [`ConfigSpace`].
    pub fn decode(
        specs: &[Option<BarSpec>; 7],
        command: Command,
        awake: bool,
        register: impl Fn(u16) -> u32,
    ) -> [Option<Self>; 7] {
        let mut index = 0;
        specs.map(|spec| {
            let at = register_of(index);
            index += 1;
            let spec = spec?;
            let low = register(at);
            let (address, decodes) = match spec.kind {
                BarKind::Io => ((low & !bar::IO_FLAGS).into(), command.contains(Command::IO)),
                BarKind::Memory32 => {
                    ((low & !bar::MEMORY_FLAGS).into(), command.contains(Command::MEMORY))
                }
                BarKind::Memory64 => {
                    let high = u64::from(register(at + 4)) << 32;
                    let low = u64::from(low & !bar::MEMORY_FLAGS);
                    (high | low, command.contains(Command::MEMORY))
                }
                BarKind::Rom => (
                    (low & !bar::ROM_ENABLE).into(),
                    command.contains(Command::MEMORY) && low & bar::ROM_ENABLE != 0,
                ),
            };
            let enabled = awake && decodes && usable(spec, address);
            Some(Self { kind: spec.kind, address, size: spec.size, enabled })
        })
    }
}

/// Power state in the power management capability's control register.
const D0: u16 = 0;
const D3_HOT: u16 = 3;

fn offset_by(offset: u16, index: usize) -> Option<u16> {
    offset.checked_add(u16::try_from(index).ok()?)
}

/// Whether a BAR can decode at `address`.
fn usable(spec: BarSpec, address: u64) -> bool {
    let Some(last) = address.checked_add(spec.size - 1) else { return false };
    let limit = match spec.kind {
        BarKind::Io => u64::from(u16::MAX) + 1,
        BarKind::Memory32 | BarKind::Rom => u64::from(u32::MAX),
        BarKind::Memory64 => u64::MAX,
    };
    address != 0 && last < limit
}

#[cfg(test)]
mod tests;
