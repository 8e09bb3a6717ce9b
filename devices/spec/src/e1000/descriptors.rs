//! Descriptors of the transmit and receive rings (3.2.3, 3.3.3 to 3.3.7).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, little_endian};

/// A transmit descriptor, of any kind, as four words: DEXT and DTYP in the third tell which.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct TransmitDescriptor {
    /// Legacy and data: address of the buffer. Context: IPCSS in bits 7:0, IPCSO in 15:8, IPCSE in
    /// 31:16, TUCSS in 39:32, TUCSO in 47:40 and TUCSE in 63:48.
    pub address: little_endian::U64,
    /// Length, and what to do with it: [`transmit`].
    pub command: little_endian::U32,
    /// Status in bits 7:0. Legacy: CSS in 15:8, special in 31:16. Context: HDRLEN in 15:8, MSS in
    /// 31:16. Data: POPTS in 15:8, special in 31:16.
    pub status: little_endian::U32,
}

const _: () = assert!(size_of::<TransmitDescriptor>() == super::DESCRIPTOR_LEN);

/// Offset of the status byte in a transmit descriptor, in bytes.
pub const TRANSMIT_STATUS: u64 = 12;

/// Fields of a transmit descriptor.
pub mod transmit {
    /// Command word, legacy: length of the buffer, bits 15:0 (3.3.3).
    pub const LENGTH: u32 = 0xffff;
    /// Command word, legacy: shift of CSO, where the checksum goes, bits 23:16.
    pub const CSO_SHIFT: u32 = 16;
    /// Command word, data: DTALEN, bits 19:0 (3.3.7). Context: PAYLEN, the bytes after the headers
    /// (3.3.6).
    pub const DTALEN: u32 = 0xf_ffff;
    /// Command word, extended: DTYP, the descriptor's type.
    pub const DTYP: u32 = 0xf << 20;
    /// DTYP: context.
    pub const DTYP_CONTEXT: u32 = 0 << 20;
    /// DTYP: data.
    pub const DTYP_DATA: u32 = 1 << 20;
    /// Command word: EOP, the packet ends here. Not in a context.
    pub const EOP: u32 = 1 << 24;
    /// Command word: IFCS, insert the FCS. Not in a context.
    pub const IFCS: u32 = 1 << 25;
    /// Command word, legacy: IC, insert the checksum.
    pub const IC: u32 = 1 << 26;
    /// Command word, data: TSE, segment as the context says. In a context: it is for segmentation.
    pub const TSE: u32 = 1 << 26;
    /// Command word, context: the packet is TCP; else UDP.
    pub const TCP: u32 = 1 << 24;
    /// Command word, context: the packet is IPv4; else IPv6.
    pub const IP: u32 = 1 << 25;
    /// Command word: RS, report status.
    pub const RS: u32 = 1 << 27;
    /// Command word: RPS, report packet sent; the 82544 alone, reserved on others.
    pub const RPS: u32 = 1 << 28;
    /// Command word: DEXT, the descriptor is extended: a context or data.
    pub const DEXT: u32 = 1 << 29;
    /// Command word: VLE, insert a VLAN tag.
    pub const VLE: u32 = 1 << 30;
    /// Command word: IDE, delay the interrupt.
    pub const IDE: u32 = 1 << 31;

    /// Status: DD, done.
    pub const DD: u8 = 1 << 0;
    /// Status: EC, excess collisions.
    pub const EC: u8 = 1 << 1;
    /// Status: LC, late collision.
    pub const LC: u8 = 1 << 2;

    /// POPTS: IXSM, insert the IP checksum. Of a packet's first descriptor.
    pub const IXSM: u8 = 1 << 0;
    /// POPTS: TXSM, insert the TCP or UDP checksum.
    pub const TXSM: u8 = 1 << 1;
}

impl TransmitDescriptor {
    /// A legacy descriptor (3.3.3): `flags` are the command word's.
    pub const fn legacy(address: u64, len: u16, flags: u32) -> Self {
        Self {
            address: little_endian::U64::new(address),
            command: little_endian::U32::new(len as u32 | flags),
            status: little_endian::U32::ZERO,
        }
    }

    /// A data descriptor (3.3.7) of `len` bytes, 20 bits: `flags` are the command word's, without
    /// DEXT and DTYP.
    pub const fn data(address: u64, len: u32, flags: u32, popts: u8) -> Self {
        let command = len & transmit::DTALEN | transmit::DTYP_DATA | transmit::DEXT | flags;
        Self {
            address: little_endian::U64::new(address),
            command: little_endian::U32::new(command),
            status: little_endian::U32::new((popts as u32) << 8),
        }
    }

    /// A context descriptor (3.3.6): `flags` are the command word's, without DEXT and DTYP.
    pub const fn context(context: &Context, flags: u32) -> Self {
        let Context { ipcss, ipcso, ipcse, tucss, tucso, tucse, paylen, hdrlen, mss } = *context;
        let [ipcse_low, ipcse_high] = ipcse.to_le_bytes();
        let [tucse_low, tucse_high] = tucse.to_le_bytes();
        let address = u64::from_le_bytes([
            ipcss, ipcso, ipcse_low, ipcse_high, tucss, tucso, tucse_low, tucse_high,
        ]);
        let command = paylen & transmit::DTALEN | transmit::DTYP_CONTEXT | transmit::DEXT | flags;
        Self {
            address: little_endian::U64::new(address),
            command: little_endian::U32::new(command),
            status: little_endian::U32::new((hdrlen as u32) << 8 | (mss as u32) << 16),
        }
    }

    /// With the tag that VLE inserts (3.3.4).
    pub const fn tagged(mut self, tag: u16) -> Self {
        let status = self.status.get() & 0xffff | (tag as u32) << 16;
        self.status = little_endian::U32::new(status);
        self.command = little_endian::U32::new(self.command.get() | transmit::VLE);
        self
    }

    /// Whether it is a context (3.3.6).
    pub const fn is_context(&self) -> bool {
        self.command.get() & (transmit::DEXT | transmit::DTYP)
            == transmit::DEXT | transmit::DTYP_CONTEXT
    }
}

/// What a context descriptor says, all in bytes from the start of the packet (3.3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// IPCSS: where the IP checksum's bytes start.
    pub ipcss: u8,
    /// IPCSO: where it goes.
    pub ipcso: u8,
    /// IPCSE: the last byte; 0 for the packet's last.
    pub ipcse: u16,
    /// TUCSS: where the TCP or UDP checksum's bytes start.
    pub tucss: u8,
    /// TUCSO: where it goes.
    pub tucso: u8,
    /// TUCSE: the last byte; 0 for the packet's last.
    pub tucse: u16,
    /// PAYLEN: bytes after the headers, 20 bits.
    pub paylen: u32,
    /// HDRLEN: bytes of headers.
    pub hdrlen: u8,
    /// MSS: most bytes of payload in a segment.
    pub mss: u16,
}

impl Context {
    /// What the descriptor's fields say if it is a context.
    pub const fn of(descriptor: &TransmitDescriptor) -> Self {
        let [ipcss, ipcso, ie0, ie1, tucss, tucso, te0, te1] =
            descriptor.address.get().to_le_bytes();
        let [_, hdrlen, mss0, mss1] = descriptor.status.get().to_le_bytes();
        Self {
            ipcss,
            ipcso,
            ipcse: u16::from_le_bytes([ie0, ie1]),
            tucss,
            tucso,
            tucse: u16::from_le_bytes([te0, te1]),
            paylen: descriptor.command.get() & transmit::DTALEN,
            hdrlen,
            mss: u16::from_le_bytes([mss0, mss1]),
        }
    }
}

/// A receive descriptor (3.2.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct ReceiveDescriptor {
    /// Address of the buffer.
    pub address: little_endian::U64,
    /// Bytes in the buffer.
    pub length: little_endian::U16,
    /// Packet checksum: the one's complement sum of all bytes from RXCSUM.PCSS on.
    pub checksum: little_endian::U16,
    /// Status: [`receive`].
    pub status: u8,
    /// Errors: [`receive`].
    pub errors: u8,
    /// Special: the VLAN tag that was stripped.
    pub special: little_endian::U16,
}

const _: () = assert!(size_of::<ReceiveDescriptor>() == super::DESCRIPTOR_LEN);

/// Offset of the status byte in a receive descriptor, in bytes.
pub const RECEIVE_STATUS: u64 = 12;

/// Bits of a receive descriptor.
pub mod receive {
    /// Status: DD, done (3.2.3.1).
    pub const DD: u8 = 1 << 0;
    /// Status: EOP, the packet ends here.
    pub const EOP: u8 = 1 << 1;
    /// Status: IXSM, ignore the checksum indications.
    pub const IXSM: u8 = 1 << 2;
    /// Status: VP, the packet's VLAN Ethertype matches VET.
    pub const VP: u8 = 1 << 3;
    /// Status: TCPCS, the TCP or UDP checksum was checked.
    pub const TCPCS: u8 = 1 << 5;
    /// Status: IPCS, the IP checksum was checked.
    pub const IPCS: u8 = 1 << 6;
    /// Status: PIF, passed an inexact filter.
    pub const PIF: u8 = 1 << 7;

    /// Errors: CE, CRC error (3.2.3.2).
    pub const CE: u8 = 1 << 0;
    /// Errors: SE, symbol error.
    pub const SE: u8 = 1 << 1;
    /// Errors: SEQ, sequence error.
    pub const SEQ: u8 = 1 << 2;
    /// Errors: CXE, carrier extension error.
    pub const CXE: u8 = 1 << 4;
    /// Errors: TCPE, TCP or UDP checksum error.
    pub const TCPE: u8 = 1 << 5;
    /// Errors: IPE, IP checksum error.
    pub const IPE: u8 = 1 << 6;
    /// Errors: RXE, data error.
    pub const RXE: u8 = 1 << 7;
}
