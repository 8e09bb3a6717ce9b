//! What the messages look like (vfio-user 0.1). Everything is in the byte order of the host, which here is
//! little-endian.

/// Commands.
pub(crate) mod command {
    pub(crate) const VERSION: u16 = 1;
    pub(crate) const DMA_MAP: u16 = 2;
    pub(crate) const DMA_UNMAP: u16 = 3;
    pub(crate) const GET_INFO: u16 = 4;
    pub(crate) const GET_REGION_INFO: u16 = 5;
    pub(crate) const GET_REGION_IO_FDS: u16 = 6;
    pub(crate) const GET_IRQ_INFO: u16 = 7;
    pub(crate) const SET_IRQS: u16 = 8;
    pub(crate) const REGION_READ: u16 = 9;
    pub(crate) const REGION_WRITE: u16 = 10;
    pub(crate) const DMA_READ: u16 = 11;
    pub(crate) const DMA_WRITE: u16 = 12;
    pub(crate) const RESET: u16 = 13;
    pub(crate) const REGION_WRITE_MULTI: u16 = 15;
    pub(crate) const DEVICE_FEATURE: u16 = 16;
    pub(crate) const MIG_DATA_READ: u16 = 17;
    pub(crate) const MIG_DATA_WRITE: u16 = 18;
}

/// Flags of a header.
pub(crate) mod flags {
    pub(crate) const TYPE: u32 = 0xf;
    pub(crate) const COMMAND: u32 = 0;
    pub(crate) const REPLY: u32 = 1;
    pub(crate) const NO_REPLY: u32 = 1 << 4;
    pub(crate) const ERROR: u32 = 1 << 5;
}

/// Regions of a PCI function: six BARs, the ROM, configuration space, VGA.
pub(crate) mod region {
    pub(crate) const ROM: u32 = 6;
    pub(crate) const CONFIG: u32 = 7;
    pub(crate) const COUNT: u32 = 9;
    pub(crate) const READ: u32 = 1 << 0;
    pub(crate) const WRITE: u32 = 1 << 1;
    pub(crate) const MMAP: u32 = 1 << 2;
    pub(crate) const CAPS: u32 = 1 << 3;
    /// Bytes of the answer without capabilities.
    pub(crate) const INFO_LEN: u32 = 32;
    pub(crate) const CAP_SPARSE_MMAP: u16 = 1;
}

/// Kinds of interrupts, and what is done with them.
pub(crate) mod irq {
    pub(crate) const INTX: u32 = 0;
    pub(crate) const MSI: u32 = 1;
    pub(crate) const MSIX: u32 = 2;
    /// INTx, MSI, MSI-X, errors, requests to be released.
    pub(crate) const COUNT: u32 = 5;
    pub(crate) const EVENTFD: u32 = 1 << 0;
    pub(crate) const MASKABLE: u32 = 1 << 1;
    pub(crate) const AUTOMASKED: u32 = 1 << 2;
    pub(crate) const DATA_NONE: u32 = 1 << 0;
    pub(crate) const DATA_BOOL: u32 = 1 << 1;
    pub(crate) const DATA_EVENTFD: u32 = 1 << 2;
    pub(crate) const ACTION_MASK: u32 = 1 << 3;
    pub(crate) const ACTION_UNMASK: u32 = 1 << 4;
    pub(crate) const ACTION_TRIGGER: u32 = 1 << 5;
}

/// Memory of the client's.
pub(crate) mod dma {
    pub(crate) const READ: u32 = 1 << 0;
    pub(crate) const WRITE: u32 = 1 << 1;
    pub(crate) const UNMAP_ALL: u32 = 1 << 1;
}

/// What a device is, in the answer to GET_INFO.
pub(crate) mod device {
    pub(crate) const RESET: u32 = 1 << 0;
    pub(crate) const PCI: u32 = 1 << 1;
}

/// A place in a region that an eventfd stands for.
pub(crate) mod io_fd {
    pub(crate) const HEAD_LEN: u32 = 16;
    pub(crate) const ENTRY_LEN: u32 = 40;
    pub(crate) const IOEVENTFD: u32 = 0;
    /// The value matters (KVM_IOEVENTFD_FLAG_DATAMATCH).
    pub(crate) const DATAMATCH: u32 = 1 << 0;
    /// It is in I/O space (KVM_IOEVENTFD_FLAG_PIO).
    pub(crate) const PIO: u32 = 1 << 1;
}

/// Device features, and the states of migration.
pub(crate) mod feature {
    pub(crate) const MASK: u32 = 0xffff;
    pub(crate) const GET: u32 = 1 << 16;
    pub(crate) const SET: u32 = 1 << 17;
    pub(crate) const PROBE: u32 = 1 << 18;
    pub(crate) const MIGRATION: u32 = 1;
    pub(crate) const DEVICE_STATE: u32 = 2;
    pub(crate) const LOGGING_START: u32 = 6;
    pub(crate) const LOGGING_STOP: u32 = 7;
    pub(crate) const LOGGING_REPORT: u32 = 8;
    pub(crate) const HAS_STOP_COPY: u64 = 1 << 0;
    pub(crate) const ERROR: u32 = 0;
    pub(crate) const STOP: u32 = 1;
    pub(crate) const RUNNING: u32 = 2;
    pub(crate) const STOP_COPY: u32 = 3;
    pub(crate) const RESUMING: u32 = 4;
}

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 16;
/// Bytes that one message may transfer: what is the default, and enough for any region of ours.
pub(crate) const MAX_DATA: usize = 1 << 20;
/// Bytes before the bits of a report of what was written, which is the most before any data.
pub(crate) const REPORT_LEN: usize = 32;
/// Bytes of a message that is taken at all.
pub(crate) const MAX_MESSAGE: usize = HEADER_LEN + REPORT_LEN + MAX_DATA;

/// What every message begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u16,
    pub(crate) command: u16,
    /// Of the whole message.
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) error: u32,
}

impl Header {
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut fields = Fields(bytes);
        let mut take = || {
            Some(Self {
                id: fields.u16()?,
                command: fields.u16()?,
                size: fields.u32()?,
                flags: fields.u32()?,
                error: fields.u32()?,
            })
        };
        take().unwrap_or_default()
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend(self.command.to_le_bytes());
        put(&mut bytes, [self.size, self.flags, self.error]);
        bytes
    }
}

/// Appends 32-bit fields.
pub(crate) fn put<const N: usize>(bytes: &mut Vec<u8>, fields: [u32; N]) {
    bytes.extend(fields.into_iter().flat_map(u32::to_le_bytes));
}

/// Appends 64-bit fields.
pub(crate) fn put64<const N: usize>(bytes: &mut Vec<u8>, fields: [u64; N]) {
    bytes.extend(fields.into_iter().flat_map(u64::to_le_bytes));
}

/// What is left of a payload.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// An access to a region, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RegionAccess {
    pub(crate) offset: u64,
    pub(crate) region: u32,
    pub(crate) count: u32,
}

impl RegionAccess {
    pub(crate) fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { offset: fields.u64()?, region: fields.u32()?, count: fields.u32()? })
    }

    pub(crate) fn put(self, bytes: &mut Vec<u8>) {
        put64(bytes, [self.offset]);
        put(bytes, [self.region, self.count]);
    }
}

/// A request to map memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaMap {
    pub(crate) flags: u32,
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

impl DmaMap {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        fields.u32()?;
        Some(Self {
            flags: fields.u32()?,
            offset: fields.u64()?,
            address: fields.u64()?,
            size: fields.u64()?,
        })
    }
}

/// A request to give memory back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaUnmap {
    pub(crate) flags: u32,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

impl DmaUnmap {
    pub(crate) const LEN: usize = 24;

    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        fields.u32()?;
        Some(Self { flags: fields.u32()?, address: fields.u64()?, size: fields.u64()? })
    }
}

/// An access to memory of the client's by a message, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DmaAccess {
    pub(crate) address: u64,
    pub(crate) count: u64,
}

impl DmaAccess {
    pub(crate) const LEN: usize = 16;

    pub(crate) fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { address: fields.u64()?, count: fields.u64()? })
    }

    pub(crate) fn put(self, bytes: &mut Vec<u8>) {
        put64(bytes, [self.address, self.count]);
    }
}

/// A request that concerns interrupts, without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetIrqs {
    pub(crate) flags: u32,
    pub(crate) index: u32,
    pub(crate) start: u32,
    pub(crate) count: u32,
}

impl SetIrqs {
    pub(crate) fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        fields.u32()?;
        Some(Self {
            flags: fields.u32()?,
            index: fields.u32()?,
            start: fields.u32()?,
            count: fields.u32()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_what_it_was() {
        let header = Header { id: 0x0201, command: 9, size: 32, flags: 0x21, error: 22 };
        let bytes: [u8; HEADER_LEN] = header.bytes().try_into().unwrap();
        assert_eq!(bytes, [1, 2, 9, 0, 32, 0, 0, 0, 0x21, 0, 0, 0, 22, 0, 0, 0]);
        assert_eq!(Header::parse(&bytes), header);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..48)) {
            prop_assert_eq!(DmaMap::parse(&bytes).is_some(), bytes.len() >= 32);
            prop_assert_eq!(DmaUnmap::parse(&bytes).is_some(), bytes.len() >= DmaUnmap::LEN);
            let mut fields = Fields(&bytes);
            prop_assert_eq!(RegionAccess::parse(&mut fields).is_some(), bytes.len() >= 16);
            let mut fields = Fields(&bytes);
            match SetIrqs::parse(&mut fields) {
                Some(_) => prop_assert_eq!(fields.rest(), &bytes[20..]),
                None => prop_assert!(bytes.len() < 20),
            }
        }
    }
}
