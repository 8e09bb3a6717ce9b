//! A disk, and the commands that requests become.

use paraslot_spec::scsi::block::{UnmapDescriptor, UnmapHeader};
use paraslot_spec::scsi::cdb::WRITE_SAME_UNMAP;
use zerocopy::IntoBytes;

use super::{Buffer, Cdb, Direction, Request};
use crate::disk::check_extent;
use crate::{DmaRegion, Error, Op};

/// Bytes of the parameters that a request may need besides its data, for one descriptor of UNMAP.
pub(crate) const PARAMETERS_LEN: usize = size_of::<UnmapHeader>() + size_of::<UnmapDescriptor>();
/// The same, as commands say it.
#[expect(clippy::cast_possible_truncation, reason = "24")]
const PARAMETERS: u16 = PARAMETERS_LEN as u16;

/// Where a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Target.
    pub target: u8,
    /// Logical unit number, 0 to 16383.
    pub lun: u16,
}

/// How blocks are discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discard {
    /// By UNMAP.
    Unmap,
    /// By WRITE SAME with the UNMAP bit.
    WriteSame,
}

/// What a disk is like, by its own account.
#[derive(Clone, Debug)]
pub struct Unit {
    pub(super) address: Address,
    pub(super) capacity: u64,
    pub(super) block_size: u32,
    pub(super) max_transfer: u32,
    pub(super) writable: bool,
    pub(super) write_cache: bool,
    pub(super) discard: Option<Discard>,
    /// Blocks of one UNMAP at most.
    pub(super) max_unmap: u32,
    /// Blocks of one WRITE SAME at most.
    pub(super) max_write_same: u32,
    /// A block of zeroes, if WRITE SAME is known.
    pub(super) zeroes: Option<DmaRegion>,
    pub(super) vendor: [u8; 8],
    pub(super) product: [u8; 16],
}

impl Unit {
    /// Where it is.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes of a logical block.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Most bytes that one read or write can move, by what the unit and its host say.
    pub fn max_transfer(&self) -> u32 {
        self.max_transfer
    }

    /// Whether it can be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether it has a volatile write cache that is in use. Without one there is nothing to flush.
    pub fn has_write_cache(&self) -> bool {
        self.write_cache
    }

    /// Its vendor, in ASCII, padded with spaces.
    pub fn vendor(&self) -> &[u8; 8] {
        &self.vendor
    }

    /// The name of the product, in ASCII, padded with spaces.
    pub fn product(&self) -> &[u8; 16] {
        &self.product
    }

    /// The command that `op` becomes. `parameters` are [`PARAMETERS_LEN`] bytes that it may use as
    /// long as it is in flight.
    pub(crate) fn request(
        &self,
        op: Op<'_>,
        offset: u64,
        parameters: &DmaRegion,
    ) -> Result<Request, Error> {
        match op {
            Op::Read(region) => self.transfer(false, offset, region),
            Op::Write(_) if !self.writable => Err(Error::Unsupported("writes")),
            Op::Write(region) => self.transfer(true, offset, region),
            Op::Flush if !self.write_cache => Err(Error::Unsupported("flush")),
            Op::Flush => Ok(Request { cdb: Cdb::flush(), buffer: Buffer::default() }),
            Op::Discard(len) => match self.discard {
                None => Err(Error::Unsupported("discard")),
                Some(Discard::Unmap) => self.unmap(offset, len, parameters),
                Some(Discard::WriteSame) => self.write_same(WRITE_SAME_UNMAP, offset, len),
            },
            Op::WriteZeroes(len) => self.write_same(0, offset, len),
        }
    }

    fn block(&self, offset: u64) -> u64 {
        // A power of two: quicker than to divide.
        offset >> self.block_size.trailing_zeros()
    }

    fn transfer(&self, write: bool, offset: u64, region: &DmaRegion) -> Result<Request, Error> {
        check_extent(self.capacity, self.block_size, offset, region.len() as u64)?;
        let len = u32::try_from(region.len()).ok().filter(|len| *len <= self.max_transfer);
        let len = len.ok_or(Error::Request("too long"))?;
        let direction = if write { Direction::Out } else { Direction::In };
        let blocks = len >> self.block_size.trailing_zeros();
        let cdb = Cdb::transfer(write, self.block(offset), blocks);
        Ok(Request { cdb, buffer: Buffer::new(region, len, direction) })
    }

    fn blocks(&self, offset: u64, len: u64, limit: u32) -> Result<(u64, u32), Error> {
        if !self.writable {
            return Err(Error::Unsupported("writes"));
        }
        check_extent(self.capacity, self.block_size, offset, len)?;
        let blocks = u32::try_from(self.block(len)).ok().filter(|blocks| *blocks <= limit);
        Ok((self.block(offset), blocks.ok_or(Error::Request("too long"))?))
    }

    fn unmap(&self, offset: u64, len: u64, parameters: &DmaRegion) -> Result<Request, Error> {
        let (lba, blocks) = self.blocks(offset, len, self.max_unmap)?;
        parameters.write_bytes(0, UnmapHeader::new(1).as_bytes());
        let descriptor = UnmapDescriptor::new(lba, blocks);
        parameters.write_bytes(size_of::<UnmapHeader>(), descriptor.as_bytes());
        let buffer = Buffer::new(parameters, PARAMETERS.into(), Direction::Out);
        Ok(Request { cdb: Cdb::unmap(PARAMETERS), buffer })
    }

    fn write_same(&self, flags: u8, offset: u64, len: u64) -> Result<Request, Error> {
        let zeroes = self.zeroes.as_ref().ok_or(Error::Unsupported("write zeroes"))?;
        let (lba, blocks) = self.blocks(offset, len, self.max_write_same)?;
        let buffer = Buffer::new(zeroes, self.block_size, Direction::Out);
        Ok(Request { cdb: Cdb::write_same(flags, lba, blocks), buffer })
    }
}
