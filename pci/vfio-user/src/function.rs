//! The function that is served, and what serving it takes beyond its own registers.

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Status, capability, express, header, msi, msix};

use crate::migration::Stage;
use crate::signals::{Kind, Signals};

/// Bytes of configuration space.
pub(crate) const CONFIG_LEN: u64 = 4096;
/// Capabilities that fit behind the header of conventional configuration space.
const MOST: usize = 48;
/// Times that a function is asked to be quiet before it is given up.
const PAUSES: usize = 3;
/// The message of a vector: one that nobody sends, since the sink writes an eventfd instead.
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;

/// Where a function keeps its MSI-X table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) control: u16,
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) vectors: u16,
}

impl Table {
    /// Where the entry of a vector begins, in the table's BAR.
    fn entry(&self, vector: u16) -> u64 {
        self.offset.saturating_add(u64::from(vector) * msix::ENTRY_LEN)
    }
}

/// The capabilities that matter to who is between a function and its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) msix: Option<Table>,
    /// Offset of the MSI capability.
    pub(crate) msi: Option<u16>,
    /// Offset of the PCI Express capability, if it has function level reset.
    pub(crate) express: Option<u16>,
    /// Offset of the power management capability.
    pub(crate) power: Option<u16>,
}

impl Capabilities {
    /// Walks the list. One that does not end, or leaves the space behind the header, is walked as far as it
    /// makes sense.
    pub(crate) fn find(mut read: impl FnMut(u16, &mut [u8])) -> Self {
        let mut found = Self::default();
        let mut byte = |at: u16| {
            let mut byte = [0];
            read(at, &mut byte);
            u8::from_le_bytes(byte)
        };
        let [present, _] = Status::CAPABILITIES.bits().to_le_bytes();
        if byte(header::STATUS) & present == 0 {
            return found;
        }
        let mut at = u16::from(byte(header::CAPABILITIES) & !3);
        for _ in 0..MOST {
            if at < header::END {
                break;
            }
            match byte(at) {
                capability::MSI => found.msi = Some(at),
                capability::PCI_EXPRESS => {
                    let [.., high] = express::FUNCTION_LEVEL_RESET.to_le_bytes();
                    if byte(at + express::DEVICE_CAPABILITIES + 3) & high != 0 {
                        found.express = Some(at);
                    }
                }
                capability::POWER_MANAGEMENT => found.power = Some(at),
                capability::MSI_X => {
                    let control = u16::from_le_bytes([
                        byte(at + msix::CONTROL),
                        byte(at + msix::CONTROL + 1),
                    ]);
                    let place = [0, 1, 2, 3].map(|index| byte(at + msix::TABLE + index));
                    let [low, ..] = place;
                    found.msix = Some(Table {
                        control: at + msix::CONTROL,
                        bar: low & 7,
                        offset: u64::from(u32::from_le_bytes(place) & !7),
                        vectors: (control & msix::TABLE_SIZE) + 1,
                    });
                }
                _ => {}
            }
            at = u16::from(byte(at + 1) & !3);
        }
        found
    }
}

impl Capabilities {
    /// Whether a write to configuration space asks for a function level reset.
    pub(crate) fn resets(&self, offset: u16, data: &[u8]) -> bool {
        let [_, initiate] = express::INITIATE_FLR.to_le_bytes();
        let index =
            self.express.and_then(|at| (at + express::DEVICE_CONTROL + 1).checked_sub(offset));
        let byte = index.and_then(|index| data.get(usize::from(index)));
        byte.is_some_and(|byte| byte & initiate != 0)
    }
}

/// A function that is served.
///
/// The client has the MSI-X table, and what it writes there does not come here. So the function's own
/// table follows the eventfds: a vector that has one is not masked, others are. The bits that enable
/// MSI-X and MSI are the client's to write; if it gives eventfds and has not set them, they are set
/// here, and cleared when the last eventfd is gone.
pub(crate) struct Served {
    device: Box<dyn PciDevice>,
    capabilities: Capabilities,
    /// Kinds that were enabled here.
    enabled_here: [bool; 2],
    paused: bool,
    can_move: bool,
    stage: Stage,
}

impl Served {
    pub(crate) fn new(mut device: Box<dyn PciDevice>) -> Self {
        let capabilities = Capabilities::find(|at, data| device.config_read(at, data));
        let stage = Stage::default();
        let enabled_here = [false; 2];
        let mut this =
            Self { device, capabilities, enabled_here, paused: false, can_move: false, stage };
        // Only a function that is paused says whether it can be saved.
        this.can_move = this.pause().is_ok() && this.device.save().is_ok();
        let goes_on = !this.paused || this.resume().is_ok();
        this.can_move &= goes_on;
        this
    }

    /// Whether the function's state can be saved and restored.
    pub(crate) fn can_move(&self) -> bool {
        self.can_move
    }

    pub(crate) fn stage(&mut self) -> &mut Stage {
        &mut self.stage
    }

    pub(crate) fn device(&mut self) -> &mut dyn PciDevice {
        &mut *self.device
    }

    pub(crate) fn layout(&self) -> &paraslot_pci::Layout {
        self.device.layout()
    }

    /// A client's write to configuration space.
    pub(crate) fn config_write(&mut self, offset: u16, data: &[u8], signals: &Signals) {
        let touches = |at: u16, len: u16| {
            let end = u64::from(offset).saturating_add(data.len() as u64);
            u64::from(offset) < u64::from(at) + u64::from(len) && end > u64::from(at)
        };
        // What the client writes itself is its own from then on.
        for kind in [Kind::Msi, Kind::Msix] {
            let mine = self.control(kind).is_some_and(|at| touches(at, 2));
            self.set_enabled_here(kind, self.is_enabled_here(kind) && !mine);
        }
        self.device.config_write(offset, data);
        if self.capabilities.resets(offset, data) {
            self.after_reset(signals);
        }
    }

    /// Resets the function; what the client has of its interrupts stays. It runs afterwards, whatever it did
    /// before.
    pub(crate) fn reset(&mut self, signals: &Signals) -> Result<(), DeviceError> {
        self.device.reset();
        self.after_reset(signals);
        self.stage = Stage::Running;
        if self.paused { self.resume() } else { Ok(()) }
    }

    /// The function has another's state: the interrupts that it has are the client's of now.
    pub(crate) fn after_restore(&mut self, signals: &Signals) {
        self.enabled_here = [false; 2];
        let vectors = self.capabilities.msix.map_or(0, |table| table.vectors);
        for vector in 0..vectors {
            self.follow(Kind::Msix, vector, signals.assigned(Kind::Msix, vector));
        }
        if signals.assigned(Kind::Msi, 0) {
            self.follow(Kind::Msi, 0, true);
        }
    }

    /// What a reset has undone and the client takes to be there.
    fn after_reset(&mut self, signals: &Signals) {
        signals.forget_pending();
        let vectors = self.capabilities.msix.map_or(0, |table| table.vectors);
        for vector in (0..vectors).filter(|vector| signals.assigned(Kind::Msix, *vector)) {
            self.open_entry(vector);
        }
        for kind in [Kind::Msi, Kind::Msix] {
            if self.is_enabled_here(kind) {
                self.set_enable_bit(kind, true);
            }
        }
    }

    /// The client has given a vector an eventfd, or taken it away.
    pub(crate) fn follow(&mut self, kind: Kind, vector: u16, assigned: bool) {
        if kind == Kind::Msix {
            if assigned {
                self.open_entry(vector);
            } else {
                self.close_entry(vector);
            }
        }
        if assigned && self.enable_bit(kind) == Some(false) {
            self.set_enable_bit(kind, true);
            self.set_enabled_here(kind, true);
        }
    }

    /// The client has taken all of a kind's eventfds away.
    pub(crate) fn all_gone(&mut self, kind: Kind) {
        if self.is_enabled_here(kind) {
            self.set_enable_bit(kind, false);
            self.set_enabled_here(kind, false);
        }
    }

    fn open_entry(&mut self, vector: u16) {
        let Some(table) = self.capabilities.msix.filter(|table| vector < table.vectors) else {
            return;
        };
        let mut entry = MESSAGE_ADDRESS.to_le_bytes().to_vec();
        entry.extend(u32::from(vector).to_le_bytes());
        entry.extend([0; 4]);
        self.device.bar_write(table.bar, table.entry(vector), &entry);
    }

    fn close_entry(&mut self, vector: u16) {
        let Some(table) = self.capabilities.msix.filter(|table| vector < table.vectors) else {
            return;
        };
        let at = table.entry(vector).saturating_add(12);
        self.device.bar_write(table.bar, at, &msix::VECTOR_MASKED.to_le_bytes());
    }

    /// Offset of the register with a kind's enable bit.
    fn control(&self, kind: Kind) -> Option<u16> {
        match kind {
            Kind::Msi => self.capabilities.msi.map(|at| at + msi::CONTROL),
            Kind::Msix => self.capabilities.msix.map(|table| table.control),
        }
    }

    fn enable_bit(&mut self, kind: Kind) -> Option<bool> {
        let control = self.read_control(kind)?;
        Some(control & enable_bit(kind) != 0)
    }

    fn read_control(&mut self, kind: Kind) -> Option<u16> {
        let at = self.control(kind)?;
        let mut control = [0; 2];
        self.device.config_read(at, &mut control);
        Some(u16::from_le_bytes(control))
    }

    fn set_enable_bit(&mut self, kind: Kind, enabled: bool) {
        let (Some(at), Some(control)) = (self.control(kind), self.read_control(kind)) else {
            return;
        };
        let bit = enable_bit(kind);
        let control = if enabled { control | bit } else { control & !bit };
        self.device.config_write(at, &control.to_le_bytes());
    }

    fn is_enabled_here(&self, kind: Kind) -> bool {
        let [msi, msix] = self.enabled_here;
        if kind == Kind::Msi { msi } else { msix }
    }

    fn set_enabled_here(&mut self, kind: Kind, enabled: bool) {
        let [msi, msix] = &mut self.enabled_here;
        *(if kind == Kind::Msi { msi } else { msix }) = enabled;
    }

    /// Has the function quiet while `change` is made: it accesses no memory, and has no request in flight
    /// that could.
    pub(crate) fn quiet<R>(&mut self, change: impl FnOnce() -> R) -> Result<R, DeviceError> {
        if self.paused {
            return Ok(change());
        }
        self.pause()?;
        let result = change();
        self.resume()?;
        Ok(result)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn pause(&mut self) -> Result<(), DeviceError> {
        let mut tries = 1;
        while let Err(error) = self.device.pause() {
            if tries == PAUSES {
                return Err(error);
            }
            tries += 1;
        }
        self.paused = true;
        Ok(())
    }

    pub(crate) fn resume(&mut self) -> Result<(), DeviceError> {
        self.device.resume()?;
        self.paused = false;
        Ok(())
    }

    /// Makes the function as good as new when its client is gone. Then `forget` is called, at a time when the
    /// function accesses no memory: it is quiet, or, if it keeps requests in flight, it has been reset.
    ///
    /// # Errors
    /// When it cannot go on.
    pub(crate) fn start_over(&mut self, forget: impl FnOnce()) -> Result<(), DeviceError> {
        self.enabled_here = [false; 2];
        self.stage = Stage::Running;
        self.device.reset();
        let quiet = self.paused || self.pause().is_ok();
        forget();
        if quiet { self.resume() } else { Ok(()) }
    }
}

fn enable_bit(kind: Kind) -> u16 {
    match kind {
        Kind::Msi => msi::ENABLE,
        Kind::Msix => msix::ENABLE,
    }
}
