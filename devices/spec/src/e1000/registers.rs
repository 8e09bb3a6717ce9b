//! Offsets of the registers in the memory BAR, in bytes (13.3).

/// Device control: [`Ctrl`](super::Ctrl) (13.4.1).
pub const CTRL: u32 = 0x0000;
/// The same register again (13.3).
pub const CTRL_DUP: u32 = 0x0004;
/// Device status: [`Status`](super::Status) (13.4.2).
pub const STATUS: u32 = 0x0008;
/// EEPROM and flash control: [`Eecd`](super::Eecd) (13.4.3).
pub const EECD: u32 = 0x0010;
/// EEPROM read: [`eerd`](super::eerd) (13.4.4).
pub const EERD: u32 = 0x0014;
/// Extended device control: [`CtrlExt`](super::CtrlExt) (13.4.6).
pub const CTRL_EXT: u32 = 0x0018;
/// Flash access (13.4.5).
pub const FLA: u32 = 0x001c;
/// MDI control: [`Mdic`](super::Mdic) (13.4.7).
pub const MDIC: u32 = 0x0020;
/// Flow control address, low (13.4.8).
pub const FCAL: u32 = 0x0028;
/// Flow control address, high, 16 bits (13.4.9).
pub const FCAH: u32 = 0x002c;
/// Flow control type, 16 bits (13.4.10).
pub const FCT: u32 = 0x0030;
/// VLAN Ethertype, 16 bits (13.4.11).
pub const VET: u32 = 0x0038;
/// Interrupt cause read: [`Cause`](super::Cause). Cleared when read, and by writing ones (13.4.17).
pub const ICR: u32 = 0x00c0;
/// Interrupt throttling, 16 bits, in units of 256 ns (13.4.18).
pub const ITR: u32 = 0x00c4;
/// Interrupt cause set: [`Cause`](super::Cause), write only (13.4.19).
pub const ICS: u32 = 0x00c8;
/// Interrupt mask, set by writing ones: [`Cause`](super::Cause) (13.4.20).
pub const IMS: u32 = 0x00d0;
/// Interrupt mask, cleared by writing ones: [`Cause`](super::Cause), write only (13.4.21).
pub const IMC: u32 = 0x00d8;
/// Receive control: [`Rctl`](super::Rctl) (13.4.22).
pub const RCTL: u32 = 0x0100;
/// Flow control transmit timer value, 16 bits (13.4.12).
pub const FCTTV: u32 = 0x0170;
/// Transmit configuration word, of controllers with a SerDes (13.4.13).
pub const TXCW: u32 = 0x0178;
/// Receive configuration word, likewise (13.4.14).
pub const RXCW: u32 = 0x0180;
/// Transmit control: [`Tctl`](super::Tctl) (13.4.33).
pub const TCTL: u32 = 0x0400;
/// Transmit inter-packet gap (13.4.34).
pub const TIPG: u32 = 0x0410;
/// Adaptive inter-frame spacing throttle, 16 bits (13.4.35).
pub const AIT: u32 = 0x0458;
/// LED control (13.4.15).
pub const LEDCTL: u32 = 0x0e00;
/// Packet buffer allocation: KiB for receiving in bits 15:0, for transmitting in 31:16 (13.4.16).
pub const PBA: u32 = 0x1000;
/// Flow control receive threshold, low (13.4.23).
pub const FCRTL: u32 = 0x2160;
/// Flow control receive threshold, high (13.4.24).
pub const FCRTH: u32 = 0x2168;
/// Receive data FIFO head (13.8.1).
pub const RDFH: u32 = 0x2410;
/// Receive data FIFO tail (13.8.2).
pub const RDFT: u32 = 0x2418;
/// Receive data FIFO head saved (13.8.3).
pub const RDFHS: u32 = 0x2420;
/// Receive data FIFO tail saved (13.8.4).
pub const RDFTS: u32 = 0x2428;
/// Receive data FIFO packet count (13.8.5).
pub const RDFPC: u32 = 0x2430;
/// Receive descriptor base address, low, 16-byte aligned (13.4.25).
pub const RDBAL: u32 = 0x2800;
/// Receive descriptor base address, high (13.4.26).
pub const RDBAH: u32 = 0x2804;
/// Receive descriptor ring's length in bytes: [`RING_LEN`] (13.4.27).
pub const RDLEN: u32 = 0x2808;
/// Receive descriptor head, 16 bits, an index (13.4.28).
pub const RDH: u32 = 0x2810;
/// Receive descriptor tail, 16 bits, an index (13.4.29).
pub const RDT: u32 = 0x2818;
/// Receive interrupt delay: [`DELAY`] and [`FLUSH`] (13.4.30).
pub const RDTR: u32 = 0x2820;
/// Receive descriptor control: [`thresholds`](super::thresholds) (13.4.46).
pub const RXDCTL: u32 = 0x2828;
/// Receive interrupt absolute delay: [`DELAY`] (13.4.31).
pub const RADV: u32 = 0x282c;
/// Receive small packet detect interrupt: a size in bytes, 12 bits, 0 for off (13.4.32).
pub const RSRPD: u32 = 0x2c00;
/// Transmit DMA control, of the 82544 alone (13.4.42).
pub const TXDMAC: u32 = 0x3000;
/// Transmit data FIFO head (13.8.6).
pub const TDFH: u32 = 0x3410;
/// Transmit data FIFO tail (13.8.7).
pub const TDFT: u32 = 0x3418;
/// Transmit data FIFO head saved (13.8.8).
pub const TDFHS: u32 = 0x3420;
/// Transmit data FIFO tail saved (13.8.9).
pub const TDFTS: u32 = 0x3428;
/// Transmit data FIFO packet count (13.8.10).
pub const TDFPC: u32 = 0x3430;
/// Transmit descriptor base address, low, 16-byte aligned (13.4.36).
pub const TDBAL: u32 = 0x3800;
/// Transmit descriptor base address, high (13.4.37).
pub const TDBAH: u32 = 0x3804;
/// Transmit descriptor ring's length in bytes: [`RING_LEN`] (13.4.38).
pub const TDLEN: u32 = 0x3808;
/// Transmit descriptor head, 16 bits, an index (13.4.39).
pub const TDH: u32 = 0x3810;
/// Transmit descriptor tail, 16 bits, an index (13.4.40).
pub const TDT: u32 = 0x3818;
/// Transmit interrupt delay: [`DELAY`] and [`FLUSH`] (13.4.41).
pub const TIDV: u32 = 0x3820;
/// Transmit descriptor control: [`thresholds`](super::thresholds) (13.4.43).
pub const TXDCTL: u32 = 0x3828;
/// Transmit interrupt absolute delay: [`DELAY`] (13.4.44).
pub const TADV: u32 = 0x382c;
/// TCP segmentation pad and minimum threshold (13.4.45).
pub const TSPMT: u32 = 0x3830;
/// Receive checksum control: [`rxcsum`](super::rxcsum) (13.4.47).
pub const RXCSUM: u32 = 0x5000;
/// Multicast table array, 128 registers (13.5.1).
pub const MTA: u32 = 0x5200;
/// Receive address, low; entry `n` is [`ral`]`(n)` (13.5.2).
pub const RAL: u32 = 0x5400;
/// Receive address, high; entry `n` is [`rah`]`(n)` (13.5.3).
pub const RAH: u32 = 0x5404;
/// VLAN filter table array, 128 registers (13.5.4).
pub const VFTA: u32 = 0x5600;
/// Wake-up control (13.6.1).
pub const WUC: u32 = 0x5800;
/// Wake-up filter control (13.6.2).
pub const WUFC: u32 = 0x5808;
/// Wake-up status (13.6.3).
pub const WUS: u32 = 0x5810;
/// Management control: [`manc`](super::manc) (13.6.11).
pub const MANC: u32 = 0x5820;
/// IP address valid (13.6.4).
pub const IPAV: u32 = 0x5838;
/// IPv4 address table, 4 entries of 8 bytes, the first 4 of each used (13.6.5).
pub const IP4AT: u32 = 0x5840;
/// IPv6 address table, 4 registers (13.6.6).
pub const IP6AT: u32 = 0x5880;
/// Wake-up packet length (13.6.7).
pub const WUPL: u32 = 0x5900;
/// Wake-up packet memory, 32 registers (13.6.8).
pub const WUPM: u32 = 0x5a00;
/// Flexible filter length table, 4 entries of 8 bytes (13.6.9).
pub const FFLT: u32 = 0x5f00;
/// Flexible filter mask table, 128 entries of 8 bytes (13.6.9).
pub const FFMT: u32 = 0x9000;
/// Flexible filter value table, 128 entries of 8 bytes (13.6.10).
pub const FFVT: u32 = 0x9800;
/// Packet buffer memory, 64 KiB, for diagnosis (13.8.11).
pub const PBM: u32 = 0x1_0000;
/// First byte after the packet buffer memory.
pub const END: u32 = 0x2_0000;

/// RDLEN, TDLEN: the bits that a ring's length can have (13.4.27).
pub const RING_LEN: u32 = 0x000f_ff80;
/// RDBAL, TDBAL: the bits that an address can have (13.4.25).
pub const RING_BASE: u32 = 0xffff_fff0;
/// RDH, RDT, TDH, TDT: the bits of an index (13.4.28).
pub const INDEX: u32 = 0xffff;
/// RDTR, RADV, TIDV, TADV, ITR: the bits of a delay (13.4.30).
pub const DELAY: u32 = 0xffff;
/// RDTR, TIDV: flush partial descriptor block. Written as one, the interrupt that is being delayed
/// is raised at once; reads zero (13.4.30).
pub const FLUSH: u32 = 1 << 31;
/// RAH: the address is valid (13.5.3).
pub const ADDRESS_VALID: u32 = 1 << 31;
/// RAH: address select, bits 17:16; zero is the destination address (13.5.3).
pub const ADDRESS_SELECT: u32 = 0x3 << 16;

/// Offset of RAL of entry `entry`, for an entry below
/// [`RECEIVE_ADDRESSES`](super::RECEIVE_ADDRESSES).
pub const fn ral(entry: u8) -> u32 {
    RAL + entry as u32 * 8
}

/// Offset of RAH of entry `entry`, likewise.
pub const fn rah(entry: u8) -> u32 {
    RAH + entry as u32 * 8
}
