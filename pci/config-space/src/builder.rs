//! Builds a configuration space.

use std::sync::Arc;

use paraslot_device::{BusMaster, IntxLine, MsiSink};
use paraslot_spec::pci::{Command, Status, bar, capability, express, header, msi, msix, pm};

use crate::config::{Capabilities, ConfigSpace};
use crate::interrupts::{Interrupts, Router};
use crate::msix::{Table, pending_len, table_len};
use crate::registers::{LEN, Registers};
use crate::{BarKind, BarSpec, ROM_BAR};

/// Who a function says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Where a function keeps its MSI-X structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixLayout {
    /// Vectors, 1 to 2048.
    pub vectors: u16,
    /// BAR and offset (a multiple of 8) of the table.
    pub table: (u8, u32),
    /// BAR and offset (a multiple of 8) of the pending bits.
    pub pba: (u8, u32),
}

/// Bits of the command register that the guest may write; the others do nothing on PCI Express.
const COMMAND_WRITABLE: Command = Command::IO
    .union(Command::MEMORY)
    .union(Command::BUS_MASTER)
    .union(Command::PARITY)
    .union(Command::SERR)
    .union(Command::INTX_DISABLE);

/// Error bits of the status register (6.2.3), cleared by writing ones.
const STATUS_ERRORS: u16 = 0xf900;

/// Power management: version 3, neither D1, D2 nor PME.
const PM_CAPABILITIES: u16 = 0x0003;

/// Device capabilities: role-based error reporting, which every function must have (7.5.3.3).
const ROLE_BASED_ERRORS: u32 = 1 << 15;
/// Device control after reset: relaxed ordering and no-snoop allowed, reads of up to 512 bytes.
const DEVICE_CONTROL_RESET: u16 = 0x2810;
/// Device control: error reporting, relaxed ordering, no-snoop and the read request size.
const DEVICE_CONTROL_WRITABLE: u16 = 0x781f;
/// Offset of device capabilities 2 in the capability (7.5.3.15).
const DEVICE_CAPABILITIES_2: usize = 0x24;
/// Offset of device control 2 in the capability (7.5.3.16).
const DEVICE_CONTROL_2: usize = 0x28;
/// In both: completion timeouts can be, and are, disabled.
const COMPLETION_TIMEOUT_DISABLE: u8 = 1 << 4;

/// Builds a [`ConfigSpace`]. Mistakes in its arguments are the device author's, so it panics on them.
///
/// Capabilities are linked in the order in which they are added.
#[derive(Clone)]
pub struct ConfigSpaceBuilder {
    registers: Registers,
    bars: [Option<BarSpec>; 7],
    intx: bool,
    /// Offset of the last capability, or of the pointer to the first.
    last_pointer: u16,
    free: u16,
    capabilities: Capabilities,
    msix: Option<MsixLayout>,
}

impl ConfigSpaceBuilder {
    /// A function without BARs, capabilities or interrupts.
    pub fn new(identity: Identity) -> Self {
        let mut registers = Registers::new();
        registers.define(header::VENDOR_ID, &identity.vendor.to_le_bytes());
        registers.define(header::DEVICE_ID, &identity.device.to_le_bytes());
        registers.allow(header::COMMAND, &COMMAND_WRITABLE.bits().to_le_bytes());
        registers.allow_clear(header::STATUS, &STATUS_ERRORS.to_le_bytes());
        registers.define(header::REVISION_ID, &[identity.revision]);
        let [base, sub, interface] = identity.class;
        registers.define(header::CLASS_CODE, &[interface, sub, base]);
        registers.allow(header::CACHE_LINE_SIZE, &[0xff]);
        registers.define(header::SUBSYSTEM_VENDOR_ID, &identity.subsystem_vendor.to_le_bytes());
        registers.define(header::SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        registers.allow(header::INTERRUPT_LINE, &[0xff]);
        Self {
            registers,
            bars: [None; 7],
            intx: false,
            last_pointer: header::CAPABILITIES,
            free: header::END,
            capabilities: Capabilities::default(),
            msix: None,
        }
    }

    /// Adds a BAR, 0 to 5 (or 6 for the ROM).
    ///
    /// # Panics
    /// When the index is taken or does not fit the kind, or the size is not a power of two or too
    /// small or large for it.
    pub fn bar(mut self, index: u8, spec: BarSpec) -> Self {
        let BarSpec { kind, size, prefetchable } = spec;
        assert_eq!(
            kind == BarKind::Rom,
            index == ROM_BAR,
            "BAR {index}: the ROM, and only it, is 6"
        );
        assert!(self.bars[usize::from(index)].is_none(), "BAR {index}: taken");
        let wide = index.checked_sub(1).and_then(|below| self.bars[usize::from(below)]);
        assert!(
            index == ROM_BAR || wide.is_none_or(|below| below.kind != BarKind::Memory64),
            "BAR {index}: taken by the 64-bit BAR below"
        );
        let (least, most) = match kind {
            BarKind::Io => (4, 256),
            BarKind::Memory32 => (16, 1 << 31),
            BarKind::Memory64 => (16, 1 << 63),
            BarKind::Rom => (2048, 16 << 20),
        };
        assert!(
            size.is_power_of_two() && (least..=most).contains(&size),
            "BAR {index}: size {size:#x} is not a power of two in {least:#x}..={most:#x}"
        );
        assert!(
            !prefetchable || matches!(kind, BarKind::Memory32 | BarKind::Memory64),
            "BAR {index}: only memory is prefetchable"
        );
        let at = register_of(index);
        let prefetch = if prefetchable { bar::PREFETCHABLE } else { 0 };
        let mask = (!(size - 1)).to_le_bytes();
        let low = u32::from_le_bytes([mask[0], mask[1], mask[2], mask[3]]);
        let (flags, writable) = match kind {
            BarKind::Io => (bar::IO, low & !bar::IO_FLAGS),
            BarKind::Memory32 => (prefetch, low & !bar::MEMORY_FLAGS),
            BarKind::Memory64 => (bar::MEMORY_64 | prefetch, low & !bar::MEMORY_FLAGS),
            BarKind::Rom => (0, low | bar::ROM_ENABLE),
        };
        self.registers.define(at, &flags.to_le_bytes());
        self.registers.allow(at, &writable.to_le_bytes());
        if kind == BarKind::Memory64 {
            assert!(
                index < 5 && self.bars[usize::from(index) + 1].is_none(),
                "BAR {index}: no room"
            );
            self.registers.allow(at + 4, &mask[4..]);
        }
        self.bars[usize::from(index)] = Some(spec);
        self
    }

    /// Gives it an INTA pin.
    pub fn intx(mut self) -> Self {
        self.intx = true;
        self.registers.define(header::INTERRUPT_PIN, &[1]);
        self
    }

    /// Puts the next capability at `offset` instead of behind the last one, for a function that keeps
    /// the places of another. Those after it follow behind it, unless they are placed as well. That they
    /// do not overlap is the caller's to see to.
    ///
    /// # Panics
    /// When the offset is not a multiple of four in 0x40..0x100.
    pub fn place(mut self, offset: u16) -> Self {
        let behind_header = (usize::from(header::END)..LEN).contains(&offset.into());
        assert!(behind_header && offset.is_multiple_of(4), "capability at {offset:#x}");
        self.free = offset;
        self
    }

    /// Gives registers behind the header a value that the guest can read. To be called before the
    /// capabilities are added: they take precedence.
    ///
    /// # Panics
    /// When they are not in 0x40..0x100.
    pub fn read_only(mut self, offset: u16, value: &[u8]) -> Self {
        assert!(
            offset >= header::END && usize::from(offset) + value.len() <= LEN,
            "{:#x} registers at {offset:#x}",
            value.len()
        );
        self.registers.define(offset, value);
        self
    }

    /// Adds a capability: `body` is what follows the ID and next-pointer bytes, `writable` has ones
    /// for the bits of it that the guest may write (shorter is read-only). Returns its offset. If it is
    /// PCI Express and its device capabilities have function level reset, that is served.
    ///
    /// # Panics
    /// When there is no room left, or `writable` is longer than `body`.
    pub fn capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        assert!(writable.len() <= body.len(), "capability {id:#x}: mask longer than body");
        let at = self.free;
        let end = usize::from(at) + 2 + body.len();
        assert!(end <= LEN, "capability {id:#x}: no room in configuration space");
        self.registers.define(at, &[id, 0]);
        self.registers.define(at + 2, body);
        self.registers.allow(at + 2, writable);
        // Below 256, as was checked.
        let [low, _] = at.to_le_bytes();
        self.registers.define(self.last_pointer, &[low]);
        self.registers.define(header::STATUS, &Status::CAPABILITIES.bits().to_le_bytes());
        self.last_pointer = at + 1;
        if id == capability::PCI_EXPRESS {
            self.capabilities.express = Some(at);
        }
        self.free = u16::try_from(end.next_multiple_of(4)).unwrap_or(u16::MAX);
        at
    }

    /// Adds an MSI capability with one vector, 64-bit and maskable.
    ///
    /// # Panics
    /// When there is one already, or no room left.
    pub fn msi(self) -> Self {
        self.add_msi(msi::LEN_64_MASKABLE)
    }

    /// Adds an MSI capability with one vector, 64-bit, without a mask: for a function that cannot hold a
    /// message back.
    ///
    /// # Panics
    /// As [`msi`](Self::msi).
    pub fn msi_without_mask(self) -> Self {
        self.add_msi(msi::LEN_64)
    }

    fn add_msi(mut self, len: u16) -> Self {
        assert!(self.capabilities.msi.is_none(), "a second MSI capability");
        let maskable = len == msi::LEN_64_MASKABLE;
        let mut body = Body::new(len);
        let mask = if maskable { msi::MASKABLE } else { 0 };
        body.define(msi::CONTROL, &(msi::ADDRESS_64 | mask).to_le_bytes());
        // One vector is all that can be allowed, so MULTIPLE_ENABLE stays 0.
        body.allow(msi::CONTROL, &msi::ENABLE.to_le_bytes());
        body.allow(msi::ADDRESS, &0xffff_fffc_u32.to_le_bytes());
        body.allow(msi::ADDRESS_HIGH, &u32::MAX.to_le_bytes());
        body.allow(msi::DATA_64, &u16::MAX.to_le_bytes());
        if maskable {
            body.allow(msi::MASK_64, &[1]);
        }
        self.capabilities.msi = Some(body.add(&mut self, capability::MSI));
        self.capabilities.msi_maskable = maskable;
        self
    }

    /// Adds an MSI-X capability.
    ///
    /// # Panics
    /// When there is one already, no room is left, or the layout is not possible; what it says of
    /// BARs is checked by [`build`](Self::build).
    pub fn msix(mut self, layout: MsixLayout) -> Self {
        assert!(self.msix.is_none(), "a second MSI-X capability");
        let MsixLayout { vectors, table, pba } = layout;
        assert!((1..=msix::MAX_VECTORS).contains(&vectors), "MSI-X: {vectors} vectors");
        assert!(table.1.is_multiple_of(8) && pba.1.is_multiple_of(8), "MSI-X: misaligned");
        let place = |(bar, offset): (u8, u32)| (offset | u32::from(bar)).to_le_bytes();
        let mut body = Body::new(msix::LEN);
        body.define(msix::CONTROL, &(vectors - 1).to_le_bytes());
        body.allow(msix::CONTROL, &(msix::ENABLE | msix::FUNCTION_MASK).to_le_bytes());
        body.define(msix::TABLE, &place(table));
        body.define(msix::PBA, &place(pba));
        self.capabilities.msix = Some(body.add(&mut self, capability::MSI_X));
        self.msix = Some(layout);
        self
    }

    /// Adds a power management capability: D0 and D3hot, state kept.
    ///
    /// # Panics
    /// When there is one already, or no room left.
    pub fn power_management(mut self) -> Self {
        assert!(self.capabilities.power.is_none(), "a second power management capability");
        let mut body = Body::new(pm::LEN);
        body.define(pm::CAPABILITIES, &PM_CAPABILITIES.to_le_bytes());
        body.define(pm::CONTROL, &pm::NO_SOFT_RESET.to_le_bytes());
        body.allow(pm::CONTROL, &pm::STATE.to_le_bytes());
        self.capabilities.power = Some(body.add(&mut self, capability::POWER_MANAGEMENT));
        self
    }

    /// Adds a PCI Express capability: a root complex integrated endpoint with function level reset.
    ///
    /// # Panics
    /// When there is one already, or no room left.
    pub fn express(mut self) -> Self {
        assert!(self.capabilities.express.is_none(), "a second PCI Express capability");
        let mut body = Body::new(express::LEN);
        let version_and_type = 2 | express::TYPE_INTEGRATED_ENDPOINT;
        body.define(express::CAPABILITIES, &version_and_type.to_le_bytes());
        let device = ROLE_BASED_ERRORS | express::FUNCTION_LEVEL_RESET;
        body.define(express::DEVICE_CAPABILITIES, &device.to_le_bytes());
        body.define(express::DEVICE_CONTROL, &DEVICE_CONTROL_RESET.to_le_bytes());
        body.allow(express::DEVICE_CONTROL, &DEVICE_CONTROL_WRITABLE.to_le_bytes());
        body.value[DEVICE_CAPABILITIES_2] = COMPLETION_TIMEOUT_DISABLE;
        body.mask[DEVICE_CONTROL_2] = COMPLETION_TIMEOUT_DISABLE;
        // No link: an integrated endpoint's link registers are zero.
        body.add(&mut self, capability::PCI_EXPRESS);
        self
    }

    /// The finished configuration space.
    ///
    /// # Panics
    /// When the MSI-X table or pending bits do not lie in a memory BAR, or overlap.
    pub fn build(self, msi: Arc<dyn MsiSink>, intx: Arc<dyn IntxLine>) -> ConfigSpace {
        if let Some(layout) = &self.msix {
            self.check_msix(layout);
        }
        let vectors = self.msix.map_or(0, |layout| layout.vectors);
        let line = self.intx.then_some(intx);
        let interrupts = Interrupts::new(vectors, self.capabilities.msi.is_some(), msi, line);
        ConfigSpace::new(
            self.registers,
            self.bars,
            self.capabilities,
            Router::new(Arc::new(interrupts)),
            self.msix.map(Table::new),
            BusMaster::default(),
        )
    }

    fn check_msix(&self, layout: &MsixLayout) {
        let table = (layout.table, table_len(layout.vectors));
        let pba = (layout.pba, pending_len(layout.vectors));
        for ((index, offset), len) in [table, pba] {
            let spec = self.bars.get(usize::from(index)).copied().flatten();
            let memory = spec.filter(|s| matches!(s.kind, BarKind::Memory32 | BarKind::Memory64));
            assert!(
                memory.is_some_and(|spec| u64::from(offset) + len <= spec.size),
                "MSI-X: {len:#x} bytes at {offset:#x} are not in a memory BAR {index}"
            );
        }
        let ((table_bar, table_at), (pba_bar, pba_at)) = (layout.table, layout.pba);
        let apart = u64::from(table_at) + table.1 <= pba_at.into()
            || u64::from(pba_at) + pba.1 <= table_at.into();
        assert!(table_bar != pba_bar || apart, "MSI-X: the table and the pending bits overlap");
    }
}

/// Offset of a BAR's register, the ROM's included.
pub(crate) fn register_of(index: u8) -> u16 {
    if index == ROM_BAR { header::ROM } else { header::BAR0 + 4 * u16::from(index) }
}

/// A capability under construction. Offsets are from its start, as in the specification.
struct Body {
    value: Vec<u8>,
    mask: Vec<u8>,
}

impl Body {
    fn new(len: u16) -> Self {
        Self { value: vec![0; len.into()], mask: vec![0; len.into()] }
    }

    fn define(&mut self, offset: u16, value: &[u8]) {
        let start = usize::from(offset);
        self.value[start..start + value.len()].copy_from_slice(value);
    }

    fn allow(&mut self, offset: u16, mask: &[u8]) {
        let start = usize::from(offset);
        self.mask[start..start + mask.len()].copy_from_slice(mask);
    }

    fn add(&self, builder: &mut ConfigSpaceBuilder, id: u8) -> u16 {
        builder.capability(id, &self.value[2..], &self.mask[2..])
    }
}
