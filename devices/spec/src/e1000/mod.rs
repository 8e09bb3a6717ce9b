//! Intel's 82540EM gigabit Ethernet controller (e1000).
//!
//! Sections are of Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's
//! Manual" (317453, 8254x) unless said otherwise. All registers are 32 bits wide; all integers in
//! descriptors are little-endian.

mod bits;
mod descriptors;
pub mod eeprom;
pub mod phy;
pub mod registers;
pub mod statistics;

pub use bits::*;
pub use descriptors::*;

/// Device ID of an 82540EM, the desktop part.
pub const DEVICE_82540EM: u16 = 0x100e;
/// Its revision, as adapters on the market have it. No known driver looks.
pub const REVISION_82540EM: u8 = 2;
/// Class code: network controller, Ethernet.
pub const CLASS_CODE: [u8; 3] = [0x02, 0x00, 0x00];

/// The BAR that decodes the registers as memory (4.1).
pub const MEMORY_BAR: u8 = 0;
/// Bytes that it decodes.
pub const MEMORY_BAR_SIZE: u64 = 128 << 10;
/// The BAR that decodes the window of I/O ports. A controller with 64-bit addressing of its memory
/// BAR has it elsewhere; this one's memory BAR is of 32 bits, and BAR 1 would be the flash's, which
/// is absent, so the window is where software written for it finds it.
pub const IO_BAR: u8 = 1;
/// Bytes that it decodes.
pub const IO_BAR_SIZE: u64 = 64;
/// In [`IO_BAR`]: offset of the register that [`IODATA`] stands for (13.2.2.1).
pub const IOADDR: u64 = 0;
/// In [`IO_BAR`]: the register that IOADDR selects (13.2.2.2).
pub const IODATA: u64 = 4;
/// First offset that IOADDR cannot reach: what follows in the memory BAR is not registers
/// (13.2.2.1).
pub const IOADDR_END: u32 = 0x2_0000;

/// Bytes of a descriptor of any kind, in either ring (3.2.3, 3.3.3).
pub const DESCRIPTOR_LEN: usize = 16;
/// Units of RDLEN and TDLEN in bytes: rings have a multiple of eight descriptors (13.4.27).
pub const RING_LEN_UNIT: u32 = 128;
/// Most descriptors of a ring: what RDLEN and TDLEN can say, in bytes, over the length of one.
pub const MAX_DESCRIPTORS: u32 = registers::RING_LEN / 16;
/// Alignment of RDBAL and TDBAL in bytes (13.4.25).
pub const RING_ALIGNMENT: u64 = 16;

/// Entries of the table of exact receive addresses, RAL and RAH (13.5.2).
pub const RECEIVE_ADDRESSES: usize = 16;
/// Registers of the multicast table, of 32 bits each (13.5.1).
pub const MULTICAST_WORDS: usize = 128;
/// Registers of the VLAN filter table, of 32 bits each (13.5.4).
pub const VLAN_WORDS: usize = 128;

/// Nanoseconds in a unit of ITR (13.4.18).
pub const ITR_UNIT_NS: u64 = 256;
/// Nanoseconds in a unit of RDTR, RADV, TIDV and TADV (13.4.30).
pub const DELAY_UNIT_NS: u64 = 1024;

/// Most bytes of a packet that is received while [`Rctl::LPE`] is clear, FCS included, tagged or not
/// (13.4.22).
pub const LONGEST_NORMAL: usize = 1522;
/// Most bytes of any packet, FCS included (13.4.22).
pub const LONGEST: usize = 16384;
/// Bytes of the frame check sequence.
pub const FCS_LEN: usize = 4;
/// Bytes of a VLAN tag.
pub const VLAN_TAG_LEN: usize = 4;
/// Bytes of the shortest frame on the wire, without FCS.
pub const SHORTEST: usize = 60;
/// VET after software has set it up, and what it is otherwise (13.4.11).
pub const VLAN_ETHERTYPE: u16 = 0x8100;
