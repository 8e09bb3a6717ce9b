//! Commands.

use paraslot_spec::scsi::cdb::{
    EVPD, Inquiry, MaintenanceIn, ModeSense6, ReadWrite10, ReadWrite16, ReportLuns,
    ServiceActionIn16, start_stop,
};
use paraslot_spec::scsi::{lun, mode, opcode};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use crate::{DmaRegion, Error};

/// A command descriptor block of up to 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cdb {
    bytes: [u8; Self::MAX],
    len: u8,
}

impl Cdb {
    /// Bytes of the longest.
    pub const MAX: usize = 16;

    /// A command of these bytes.
    ///
    /// # Errors
    /// When there are more than [`MAX`](Self::MAX), or none.
    pub fn new(bytes: &[u8]) -> Result<Self, Error> {
        let len = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
        let mut this = Self { bytes: [0; Self::MAX], len };
        match this.bytes.get_mut(..bytes.len()) {
            Some(to) if len != 0 => to.copy_from_slice(bytes),
            _ => return Err(Error::Request("a command of so many bytes")),
        }
        Ok(this)
    }

    /// One of the layouts, none of which is longer.
    fn of(layout: &(impl IntoBytes + Immutable)) -> Self {
        let mut this = Self::default();
        for (to, from) in this.bytes.iter_mut().zip(layout.as_bytes()) {
            *to = *from;
            this.len += 1;
        }
        this
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }

    /// How many.
    pub(crate) fn len(&self) -> u8 {
        self.len
    }

    /// All of it, zeroes at the end included, as two words whose lowest byte comes first in memory.
    pub(crate) fn words(&self) -> [u64; 2] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.bytes;
        [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
    }

    /// Whether it is one of those by which data is usually moved.
    pub(crate) fn is_read_or_write(&self) -> bool {
        let [code, ..] = self.bytes;
        matches!(
            code,
            opcode::READ_6
                | opcode::WRITE_6
                | opcode::READ_10
                | opcode::WRITE_10
                | opcode::READ_12
                | opcode::WRITE_12
                | opcode::READ_16
                | opcode::WRITE_16
        )
    }

    /// READ or WRITE, of 10 bytes if that is enough.
    pub(super) fn transfer(write: bool, lba: u64, blocks: u32) -> Self {
        match (u32::try_from(lba), u16::try_from(blocks)) {
            (Ok(lba), Ok(blocks)) => Self::of(&ReadWrite10 {
                opcode: if write { opcode::WRITE_10 } else { opcode::READ_10 },
                lba: U32::new(lba),
                blocks: U16::new(blocks),
                ..ReadWrite10::default()
            }),
            _ => Self::of(&ReadWrite16 {
                opcode: if write { opcode::WRITE_16 } else { opcode::READ_16 },
                lba: U64::new(lba),
                blocks: U32::new(blocks),
                ..ReadWrite16::default()
            }),
        }
    }

    /// SYNCHRONIZE CACHE (10) of all blocks.
    pub(super) fn flush() -> Self {
        let opcode = opcode::SYNCHRONIZE_CACHE_10;
        Self::of(&ReadWrite10 { opcode, ..ReadWrite10::default() })
    }

    /// UNMAP with a parameter list of `len` bytes.
    pub(super) fn unmap(len: u16) -> Self {
        // Its length is where reads and writes have their number of blocks.
        let (opcode, blocks) = (opcode::UNMAP, U16::new(len));
        Self::of(&ReadWrite10 { opcode, blocks, ..ReadWrite10::default() })
    }

    /// WRITE SAME (16) with `flags` in byte 1.
    pub(super) fn write_same(flags: u8, lba: u64, blocks: u32) -> Self {
        Self::of(&ReadWrite16 {
            opcode: opcode::WRITE_SAME_16,
            flags,
            lba: U64::new(lba),
            blocks: U32::new(blocks),
            ..ReadWrite16::default()
        })
    }

    /// TEST UNIT READY.
    pub(super) fn test_unit_ready() -> Self {
        Self { bytes: [0; Self::MAX], len: 6 }
    }

    /// START STOP UNIT: start, and wait until it has.
    pub(super) fn start_unit() -> Self {
        let mut cdb = Self { bytes: [0; Self::MAX], len: 6 };
        let [code, _, _, _, action, ..] = &mut cdb.bytes;
        (*code, *action) = (opcode::START_STOP_UNIT, start_stop::START);
        cdb
    }

    /// INQUIRY: standard data, or a page of vital product data.
    pub(super) fn inquiry(page: Option<u8>, allocation: u16) -> Self {
        Self::of(&Inquiry {
            opcode: opcode::INQUIRY,
            flags: page.map_or(0, |_| EVPD),
            page: page.unwrap_or(0),
            allocation: U16::new(allocation),
            control: 0,
        })
    }

    /// REPORT LUNS, without well known units.
    pub(super) fn report_luns(allocation: u32) -> Self {
        let mut cdb = ReportLuns::default();
        cdb.opcode = opcode::REPORT_LUNS;
        cdb.select = lun::select::ADDRESSABLE;
        cdb.allocation = U32::new(allocation);
        Self::of(&cdb)
    }

    /// READ CAPACITY (10).
    pub(super) fn read_capacity_10() -> Self {
        let opcode = opcode::READ_CAPACITY_10;
        Self::of(&ReadWrite10 { opcode, ..ReadWrite10::default() })
    }

    /// READ CAPACITY (16).
    pub(super) fn read_capacity_16(allocation: u32) -> Self {
        Self::of(&ServiceActionIn16 {
            opcode: opcode::SERVICE_ACTION_IN_16,
            action: opcode::service_in::READ_CAPACITY_16,
            allocation: U32::new(allocation),
            ..ServiceActionIn16::default()
        })
    }

    /// MODE SENSE (6) of a page's current values.
    pub(super) fn mode_sense(page: u8, allocation: u8) -> Self {
        Self::of(&ModeSense6 {
            opcode: opcode::MODE_SENSE_6,
            flags: 0,
            page: mode::control::CURRENT << mode::control::SHIFT | page,
            subpage: mode::subpage::NONE,
            allocation,
            control: 0,
        })
    }

    /// REPORT SUPPORTED OPERATION CODES: one command, by its operation code.
    pub(super) fn report_supported(code: u8, allocation: u32) -> Self {
        let mut cdb = MaintenanceIn::default();
        cdb.opcode = opcode::MAINTENANCE_IN;
        cdb.action = opcode::maintenance_in::REPORT_SUPPORTED_OPERATION_CODES;
        cdb.options = opcode::supported::BY_CODE;
        cdb.requested = code;
        cdb.allocation = U32::new(allocation);
        Self::of(&cdb)
    }
}

/// The data of a command.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// It has none.
    None,
    /// Fills the region.
    In(&'a DmaRegion),
    /// Takes the region.
    Out(&'a DmaRegion),
}

/// Which way data goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Direction {
    #[default]
    None,
    In,
    Out,
}

/// Where a command's data is, contiguous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffer {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) direction: Direction,
}

impl Buffer {
    pub(super) fn new(region: &DmaRegion, len: u32, direction: Direction) -> Self {
        Self { address: region.physical(0), len, direction }
    }

    pub(crate) fn of(data: Data<'_>) -> Result<Self, Error> {
        let (region, direction) = match data {
            Data::None => return Ok(Self::default()),
            Data::In(region) => (region, Direction::In),
            Data::Out(region) => (region, Direction::Out),
        };
        match u32::try_from(region.len()) {
            Ok(0) | Err(_) => Err(Error::Request("data of so many bytes")),
            Ok(len) => Ok(Self::new(region, len, direction)),
        }
    }
}

/// A command and its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) cdb: Cdb,
    pub(crate) buffer: Buffer,
}

const _: () = assert!(size_of::<ReadWrite16>() == Cdb::MAX);
