//! Offsets of the statistics registers, in bytes (13.7).
//!
//! Each is 32 bits wide, counts since it was last read, is cleared when read and stays at its highest
//! value when that is reached. A count of octets is a pair: reading the high register clears both
//! (13.7.25).

/// CRC errors.
pub const CRCERRS: u32 = 0x4000;
/// Alignment errors.
pub const ALGNERRC: u32 = 0x4004;
/// Symbol errors.
pub const SYMERRS: u32 = 0x4008;
/// Receive errors.
pub const RXERRC: u32 = 0x400c;
/// Packets missed for want of room in the packet buffer.
pub const MPC: u32 = 0x4010;
/// Single collisions.
pub const SCC: u32 = 0x4014;
/// Excessive collisions.
pub const ECOL: u32 = 0x4018;
/// Multiple collisions.
pub const MCC: u32 = 0x401c;
/// Late collisions.
pub const LATECOL: u32 = 0x4020;
/// Collisions.
pub const COLC: u32 = 0x4028;
/// Times that transmission was deferred.
pub const DC: u32 = 0x4030;
/// Transmissions without carrier sense.
pub const TNCRS: u32 = 0x4034;
/// Sequence errors.
pub const SEC: u32 = 0x4038;
/// Carrier extension errors.
pub const CEXTERR: u32 = 0x403c;
/// Receive length errors.
pub const RLEC: u32 = 0x4040;
/// XON packets received.
pub const XONRXC: u32 = 0x4048;
/// XON packets transmitted.
pub const XONTXC: u32 = 0x404c;
/// XOFF packets received.
pub const XOFFRXC: u32 = 0x4050;
/// XOFF packets transmitted.
pub const XOFFTXC: u32 = 0x4054;
/// Unsupported flow control packets received.
pub const FCRUC: u32 = 0x4058;
/// Good packets received of 64 bytes, FCS included, as for all sizes here.
pub const PRC64: u32 = 0x405c;
/// Good packets received of 65 to 127 bytes.
pub const PRC127: u32 = 0x4060;
/// Good packets received of 128 to 255 bytes.
pub const PRC255: u32 = 0x4064;
/// Good packets received of 256 to 511 bytes.
pub const PRC511: u32 = 0x4068;
/// Good packets received of 512 to 1023 bytes.
pub const PRC1023: u32 = 0x406c;
/// Good packets received of 1024 bytes and more.
pub const PRC1522: u32 = 0x4070;
/// Good packets received.
pub const GPRC: u32 = 0x4074;
/// Broadcast packets received.
pub const BPRC: u32 = 0x4078;
/// Multicast packets received.
pub const MPRC: u32 = 0x407c;
/// Good packets transmitted.
pub const GPTC: u32 = 0x4080;
/// Octets of good packets received, low.
pub const GORCL: u32 = 0x4088;
/// Octets of good packets received, high.
pub const GORCH: u32 = 0x408c;
/// Octets of good packets transmitted, low.
pub const GOTCL: u32 = 0x4090;
/// Octets of good packets transmitted, high.
pub const GOTCH: u32 = 0x4094;
/// Times that there was no receive descriptor for a packet.
pub const RNBC: u32 = 0x40a0;
/// Packets received that were too short.
pub const RUC: u32 = 0x40a4;
/// Fragments received.
pub const RFC: u32 = 0x40a8;
/// Packets received that were too long.
pub const ROC: u32 = 0x40ac;
/// Jabbers received.
pub const RJC: u32 = 0x40b0;
/// Management packets received.
pub const MGTPRC: u32 = 0x40b4;
/// Management packets dropped.
pub const MGTPDC: u32 = 0x40b8;
/// Management packets transmitted.
pub const MGTPTC: u32 = 0x40bc;
/// Octets received in all, low.
pub const TORL: u32 = 0x40c0;
/// Octets received in all, high.
pub const TORH: u32 = 0x40c4;
/// Octets transmitted in all, low.
pub const TOTL: u32 = 0x40c8;
/// Octets transmitted in all, high.
pub const TOTH: u32 = 0x40cc;
/// Packets received in all, whatever the filters say.
pub const TPR: u32 = 0x40d0;
/// Packets transmitted in all.
pub const TPT: u32 = 0x40d4;
/// Packets transmitted of 64 bytes.
pub const PTC64: u32 = 0x40d8;
/// Packets transmitted of 65 to 127 bytes.
pub const PTC127: u32 = 0x40dc;
/// Packets transmitted of 128 to 255 bytes.
pub const PTC255: u32 = 0x40e0;
/// Packets transmitted of 256 to 511 bytes.
pub const PTC511: u32 = 0x40e4;
/// Packets transmitted of 512 to 1023 bytes.
pub const PTC1023: u32 = 0x40e8;
/// Packets transmitted of 1024 bytes and more.
pub const PTC1522: u32 = 0x40ec;
/// Multicast packets transmitted.
pub const MPTC: u32 = 0x40f0;
/// Broadcast packets transmitted.
pub const BPTC: u32 = 0x40f4;
/// TCP segmentation contexts transmitted.
pub const TSCTC: u32 = 0x40f8;
/// TCP segmentation contexts that failed.
pub const TSCTFC: u32 = 0x40fc;

/// The first of them.
pub const FIRST: u32 = CRCERRS;
/// First byte after the last of them.
pub const END: u32 = TSCTFC + 4;
