//! PCI configuration space: the type 0 header and the capabilities that our functions carry.
//!
//! Offsets are in bytes. Sections are of the PCI Local Bus Specification 3.0 unless said otherwise.

use bitflags::bitflags;

/// Offsets in the type 0 header (6.1).
pub mod header {
    /// Vendor ID, 16 bits.
    pub const VENDOR_ID: u16 = 0x00;
    /// Device ID, 16 bits.
    pub const DEVICE_ID: u16 = 0x02;
    /// Command register, 16 bits: [`super::Command`].
    pub const COMMAND: u16 = 0x04;
    /// Status register, 16 bits: [`super::Status`].
    pub const STATUS: u16 = 0x06;
    /// Revision ID, 8 bits.
    pub const REVISION_ID: u16 = 0x08;
    /// Programming interface, sub-class and base class, 24 bits.
    pub const CLASS_CODE: u16 = 0x09;
    /// Cache line size, 8 bits, scratch.
    pub const CACHE_LINE_SIZE: u16 = 0x0c;
    /// Latency timer, 8 bits.
    pub const LATENCY_TIMER: u16 = 0x0d;
    /// Header type, 8 bits: 0, and bit 7 for a multifunction device.
    pub const HEADER_TYPE: u16 = 0x0e;
    /// First base address register; six of 32 bits.
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor ID, 16 bits.
    pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
    /// Subsystem ID, 16 bits.
    pub const SUBSYSTEM_ID: u16 = 0x2e;
    /// Expansion ROM base address, 32 bits.
    pub const ROM: u16 = 0x30;
    /// Offset of the first capability, 8 bits.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line, 8 bits, scratch for the system software.
    pub const INTERRUPT_LINE: u16 = 0x3c;
    /// Interrupt pin, 8 bits: 0 for none, 1 for INTA.
    pub const INTERRUPT_PIN: u16 = 0x3d;
    /// First byte after the header.
    pub const END: u16 = 0x40;
}

bitflags! {
    /// Command register (6.2.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Command: u16 {
        /// I/O BARs decode.
        const IO = 1 << 0;
        /// Memory BARs (and, with its own bit, the ROM) decode.
        const MEMORY = 1 << 1;
        /// The function may access memory and send messages.
        const BUS_MASTER = 1 << 2;
        /// Report parity errors; no effect here.
        const PARITY = 1 << 6;
        /// Report system errors; no effect here.
        const SERR = 1 << 8;
        /// The function must not assert INTx.
        const INTX_DISABLE = 1 << 10;
    }
}

bitflags! {
    /// Status register (6.2.3).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u16 {
        /// The function wants its INTx line asserted, whatever INTX_DISABLE says.
        const INTERRUPT = 1 << 3;
        /// There is a capability list.
        const CAPABILITIES = 1 << 4;
    }
}

/// Bits of a base address register (6.2.5.1).
pub mod bar {
    /// The BAR is in I/O space.
    pub const IO: u32 = 1 << 0;
    /// Memory BAR, 64 bits wide: it takes the next BAR too.
    pub const MEMORY_64: u32 = 0b10 << 1;
    /// Memory BAR without side effects on reads.
    pub const PREFETCHABLE: u32 = 1 << 3;
    /// Flag bits of a memory BAR.
    pub const MEMORY_FLAGS: u32 = 0xf;
    /// Flag bits of an I/O BAR.
    pub const IO_FLAGS: u32 = 0x3;
    /// Enable bit of the expansion ROM BAR (6.2.5.2).
    pub const ROM_ENABLE: u32 = 1 << 0;
}

/// Capability IDs (appendix H).
pub mod capability {
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x01;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Vendor-specific; virtio's structures are of this kind.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSI_X: u8 = 0x11;
    /// SATA index-data pair configuration.
    pub const SATA: u8 = 0x12;
}

/// MSI capability (6.8.1), offsets from its start.
pub mod msi {
    /// Message control, 16 bits.
    pub const CONTROL: u16 = 0x02;
    /// Message address, low half.
    pub const ADDRESS: u16 = 0x04;
    /// Message address, high half, in a 64-bit capability.
    pub const ADDRESS_HIGH: u16 = 0x08;
    /// Message data in a 64-bit capability, 16 bits.
    pub const DATA_64: u16 = 0x0c;
    /// Mask bits in a 64-bit capability with per-vector masking.
    pub const MASK_64: u16 = 0x10;
    /// Pending bits in a 64-bit capability with per-vector masking.
    pub const PENDING_64: u16 = 0x14;
    /// Length of a 64-bit capability with per-vector masking.
    pub const LEN_64_MASKABLE: u16 = 0x18;
    /// Length of a 64-bit capability without.
    pub const LEN_64: u16 = 0x0e;
    /// Control: enable.
    pub const ENABLE: u16 = 1 << 0;
    /// Control: log2 of the vectors that the system allows.
    pub const MULTIPLE_ENABLE: u16 = 0b111 << 4;
    /// Control: 64-bit addresses.
    pub const ADDRESS_64: u16 = 1 << 7;
    /// Control: per-vector masking.
    pub const MASKABLE: u16 = 1 << 8;
}

/// MSI-X capability (6.8.2), offsets from its start.
pub mod msix {
    /// Message control, 16 bits: table size minus one in bits 10:0.
    pub const CONTROL: u16 = 0x02;
    /// Table offset and BAR indicator.
    pub const TABLE: u16 = 0x04;
    /// Pending bit array offset and BAR indicator.
    pub const PBA: u16 = 0x08;
    /// Length of the capability.
    pub const LEN: u16 = 0x0c;
    /// Control: table size field.
    pub const TABLE_SIZE: u16 = 0x7ff;
    /// Control: all vectors masked.
    pub const FUNCTION_MASK: u16 = 1 << 14;
    /// Control: enable.
    pub const ENABLE: u16 = 1 << 15;
    /// Bytes of a table entry: address (8), data (4), vector control (4).
    pub const ENTRY_LEN: u64 = 16;
    /// Vector control: the vector is masked. Set at reset.
    pub const VECTOR_MASKED: u32 = 1 << 0;
    /// Most vectors a function can have.
    pub const MAX_VECTORS: u16 = 2048;
}

/// Power management capability (PCI Power Management 1.2, 3.2), offsets from its start.
pub mod pm {
    /// Capabilities, 16 bits; version in bits 2:0.
    pub const CAPABILITIES: u16 = 0x02;
    /// Control and status, 16 bits.
    pub const CONTROL: u16 = 0x04;
    /// Length of the capability.
    pub const LEN: u16 = 0x08;
    /// Control: power state, D0 (0) or D3hot (3).
    pub const STATE: u16 = 0b11;
    /// Control: the function keeps its state from D3hot to D0.
    pub const NO_SOFT_RESET: u16 = 1 << 3;
}

/// PCI Express capability (PCI Express Base 5.0, 7.5.3), offsets from its start.
pub mod express {
    /// Capabilities register, 16 bits; version 2, device/port type in bits 7:4.
    pub const CAPABILITIES: u16 = 0x02;
    /// Device capabilities, 32 bits.
    pub const DEVICE_CAPABILITIES: u16 = 0x04;
    /// Device control, 16 bits.
    pub const DEVICE_CONTROL: u16 = 0x08;
    /// Link capabilities, 32 bits.
    pub const LINK_CAPABILITIES: u16 = 0x0c;
    /// Link status, 16 bits.
    pub const LINK_STATUS: u16 = 0x12;
    /// Length of the version 2 capability.
    pub const LEN: u16 = 0x3c;
    /// Type of a root complex integrated endpoint, in the capabilities register.
    pub const TYPE_INTEGRATED_ENDPOINT: u16 = 0x9 << 4;
    /// Device capabilities: function level reset.
    pub const FUNCTION_LEVEL_RESET: u32 = 1 << 28;
    /// Device control: initiate a function level reset; reads 0.
    pub const INITIATE_FLR: u16 = 1 << 15;
}

/// Configuration mechanism 1 (3.2.2.3.2).
pub mod mechanism1 {
    /// CONFIG_ADDRESS port, 32 bits.
    pub const ADDRESS: u16 = 0xcf8;
    /// CONFIG_DATA port, 32 bits.
    pub const DATA: u16 = 0xcfc;
    /// CONFIG_ADDRESS: accesses to CONFIG_DATA become configuration cycles.
    pub const ENABLE: u32 = 1 << 31;
}

/// Red Hat's vendor ID, which virtio devices carry.
pub const VENDOR_RED_HAT_QUMRANET: u16 = 0x1af4;
/// Intel's vendor ID.
pub const VENDOR_INTEL: u16 = 0x8086;
/// VMware's vendor ID.
pub const VENDOR_VMWARE: u16 = 0x15ad;
