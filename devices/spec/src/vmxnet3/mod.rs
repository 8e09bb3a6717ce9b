//! VMware's paravirtual network adapter, vmxnet3, revisions 1 to 3.
//!
//! There is no public data sheet. Names are those of VMware's own header of the interface
//! (`vmxnet3_defs.h` and `upt1_defs.h`), as the drivers of Linux and FreeBSD have it, in this
//! language's case. All registers are 32 bits wide, eight bytes apart; all integers in memory are
//! little-endian.
//!
//! The driver describes everything in one page, [`DriverShared`], whose address it writes to DSAL
//! and DSAH; [`command::ACTIVATE_DEV`] makes the device read it. Each ring is owned by a bit in its
//! descriptors, the generation: a producer writes it with the value of its current lap, which is 1
//! for the first and flips at each wrap, so that neither side reads the other's index.

mod conf;
mod descriptors;
pub mod registers;
mod shared;

pub use conf::*;
pub use descriptors::*;
pub use registers::command;
pub use shared::*;

/// Device ID. The vendor is [`VENDOR_VMWARE`](crate::pci::VENDOR_VMWARE), the subsystem the same.
pub const DEVICE_VMXNET3: u16 = 0x07b0;
/// PCI revision ID. No known driver looks; the interface's revision is VRRS's.
pub const REVISION_ID: u8 = 1;
/// Class code: network controller, Ethernet.
pub const CLASS_CODE: [u8; 3] = [0x02, 0x00, 0x00];

/// The BAR of the registers that a hypervisor could pass through: PT.
pub const PT_BAR: u8 = 0;
/// Bytes that it decodes.
pub const PT_BAR_SIZE: u64 = 4096;
/// The BAR of the registers that are always virtual: VD.
pub const VD_BAR: u8 = 1;
/// Bytes that it decodes.
pub const VD_BAR_SIZE: u64 = 4096;
/// The BAR of MSI-X's table and pending bits.
pub const MSIX_BAR: u8 = 2;

/// VRRS, bit 0: revision 1, the first.
pub const REVISION_1: u32 = 1 << 0;
/// VRRS, bit 1: revision 2: completions of type [`completion::RXCOMP_LRO`].
pub const REVISION_2: u32 = 1 << 1;
/// VRRS, bit 2: revision 3: [`command::SET_COALESCE`], data rings for receiving and the size of a
/// transmit data ring's entries, with [`CmdInfo`].
pub const REVISION_3: u32 = 1 << 2;
/// UVRS, bit 0: version 1 of UPT, the layout of statistics, features and RSS.
pub const UPT_VERSION_1: u32 = 1 << 0;

/// Most transmit queues.
pub const MAX_TX_QUEUES: usize = 8;
/// Most receive queues.
pub const MAX_RX_QUEUES: usize = 16;
/// Most interrupts: one a queue, and one for events.
pub const MAX_INTRS: usize = 25;

/// Least MTU in bytes.
pub const MIN_MTU: u32 = 60;
/// Greatest MTU in bytes.
pub const MAX_MTU: u32 = 9000;

/// Bytes of a descriptor and of a completion, in any ring.
pub const DESC_LEN: usize = 16;
/// Alignment of a ring in bytes.
pub const RING_BA_ALIGN: u64 = 512;
/// A ring's number of entries is a multiple of this.
pub const RING_SIZE_ALIGN: u32 = 32;
/// Most descriptors of a transmit ring, of its completion ring, and entries of its data ring.
pub const TX_RING_MAX_SIZE: u32 = 4096;
/// Most completions of a transmit queue.
pub const TC_RING_MAX_SIZE: u32 = 4096;
/// Most descriptors of either receive ring.
pub const RX_RING_MAX_SIZE: u32 = 4096;
/// Most completions of a receive queue.
pub const RC_RING_MAX_SIZE: u32 = 8192;
/// Receive rings of a queue: the first has head buffers and may have body buffers, the second has
/// body buffers alone.
pub const RX_RINGS: usize = 2;
/// The generation of every ring's first lap.
pub const INIT_GEN: bool = true;

/// Most bytes of a transmit buffer, which a length of 0 says.
pub const MAX_TX_BUF_SIZE: u32 = 1 << 14;
/// Most transmit descriptors of a packet that is not segmented.
pub const MAX_TXD_PER_PKT: usize = 16;
/// Most bytes of a receive buffer.
pub const MAX_RX_BUF_SIZE: u32 = (1 << 14) - 1;
/// Least bytes of a head buffer.
pub const MIN_T0_BUF_SIZE: u32 = 128;
/// Greatest offset of a checksum that is to be inserted, in bytes.
pub const MAX_CSUM_OFFSET: u16 = 1024;

/// Bytes of an entry of a transmit data ring before revision 3, which is also the least.
pub const TXDATA_DESC_MIN_SIZE: u16 = 128;
/// Most bytes of an entry of a transmit data ring.
pub const TXDATA_DESC_MAX_SIZE: u16 = 2048;
/// Most bytes of an entry of a receive data ring.
pub const RXDATA_DESC_MAX_SIZE: u16 = 2048;
/// An entry of a data ring has a multiple of this many bytes.
pub const DATA_DESC_SIZE_ALIGN: u16 = 64;

/// Alignment of the queue descriptors in bytes.
pub const QUEUE_DESC_ALIGN: u64 = 128;

/// What [`command::GET_LINK`] answers while the link is up: bit 0, and Mb/s in bits 31:16.
pub const LINK_UP: u32 = 1;
/// Shift of the speed in Mb/s.
pub const LINK_SPEED_SHIFT: u32 = 16;

/// Why a queue has stopped: [`QueueStatus::error`].
pub mod queue_error {
    /// The packet's last descriptor cannot be found.
    pub const NOEOP: u32 = 0x8000_0000;
    /// A descriptor was used again before its completion.
    pub const TXD_REUSE: u32 = 0x8000_0001;
    /// Too many descriptors for a packet.
    pub const BIG_PKT: u32 = 0x8000_0002;
    /// The descriptor's type is not supported.
    pub const DESC_NOT_SPT: u32 = 0x8000_0003;
    /// A head buffer is too small.
    pub const SMALL_BUF: u32 = 0x8000_0004;
    /// Stress, of VMware's kernel.
    pub const STRESS: u32 = 0x8000_0005;
    /// The change between passthrough and emulation has failed.
    pub const SWITCH: u32 = 0x8000_0006;
    /// The descriptor is invalid.
    pub const TXD_INVALID: u32 = 0x8000_0007;
}
