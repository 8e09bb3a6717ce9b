//! A lane's own memory, for data that the initiator does not see.

use std::io;
use std::sync::Arc;

use paraslot_device::dma::Direction;
use paraslot_device::{BusMaster, Dma, DmaBuffers, Memory};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Commands that can have an area at once.
const AREAS: u8 = 8;
/// Bytes of an area: a multiple of every block size, twice over. All areas are 1 MiB.
pub(super) const AREA: usize = 128 * 1024;
/// Bytes of either half of one.
pub(super) const HALF: usize = AREA / 2;
/// What is copied or compared at once.
const PIECE: usize = 4096;

/// Memory in areas, which are lent to commands; made when it is first wanted.
#[derive(Default)]
pub(super) struct Scratch {
    memory: Option<Memory<Arc<GuestMemoryMmap>>>,
    /// Areas that are lent.
    lent: u8,
}

/// An area that is lent. To be given back to [`Scratch::give_back`].
#[derive(Debug)]
pub(super) struct Area(u8);

impl Area {
    fn at(&self, offset: usize) -> GuestAddress {
        GuestAddress((usize::from(self.0) * AREA + offset) as u64)
    }
}

impl Scratch {
    /// Whether there is an area to be lent.
    pub(super) fn has_room(&self) -> bool {
        self.lent.count_ones() < AREAS.into()
    }

    /// Lends an area, if there is one.
    ///
    /// # Errors
    /// When the host has no memory.
    pub(super) fn lend(&mut self) -> io::Result<Option<Area>> {
        if self.memory.is_none() {
            let ranges = [(GuestAddress(0), AREA * usize::from(AREAS))];
            let map = GuestMemoryMmap::<()>::from_ranges(&ranges).map_err(io::Error::other)?;
            let gate = BusMaster::default();
            gate.set(true);
            self.memory = Dma::new(Arc::new(map), gate).memory();
        }
        let Some(number) = (0..AREAS).find(|number| self.lent & 1 << number == 0) else {
            return Ok(None);
        };
        self.lent |= 1 << number;
        Ok(Some(Area(number)))
    }

    pub(super) fn give_back(&mut self, area: Area) {
        self.lent &= !(1 << area.0);
    }

    /// A part of an area as buffers.
    ///
    /// # Errors
    /// When it is not inside, which is a mistake.
    pub(super) fn buffers(
        &self,
        area: &Area,
        offset: usize,
        len: usize,
        direction: Direction,
    ) -> io::Result<DmaBuffers> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        memory.buffers([(area.at(offset), len)], direction).map_err(io::Error::other)
    }

    /// Moves the first `len` bytes of `data` to the start of an area. They are not in `data` any more.
    ///
    /// # Errors
    /// When there are not so many or there is no room, which are mistakes.
    pub(super) fn fetch(&self, area: &Area, data: &mut DmaBuffers, len: usize) -> io::Result<()> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut done = 0;
        while done < len {
            let mut piece = [0; PIECE];
            let piece = &mut piece[..PIECE.min(len - done)];
            if data.copy_to(piece) != piece.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            data.advance(piece.len());
            memory.write_slice(piece, area.at(done)).map_err(io::Error::other)?;
            done += piece.len();
        }
        Ok(())
    }

    /// Repeats the first `len` bytes of an area (a divisor of its size) all over it; says whether they
    /// are all zero.
    ///
    /// # Errors
    /// When there is no such area, which is a mistake.
    pub(super) fn repeat(&self, area: &Area, len: usize) -> io::Result<bool> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut zero = true;
        let mut done = len;
        for start in (0..len).step_by(PIECE) {
            let piece = self.piece(area, start, len - start)?;
            zero &= piece.0[..piece.1].iter().all(|byte| *byte == 0);
        }
        // What is copied is a multiple of `len` further back.
        while done < AREA {
            let (piece, count) =
                self.piece(area, done % len, (len - done % len).min(AREA - done))?;
            memory.write_slice(&piece[..count], area.at(done)).map_err(io::Error::other)?;
            done += count;
        }
        Ok(zero)
    }

    /// Makes all of an area zero.
    ///
    /// # Errors
    /// When there is no such area, which is a mistake.
    pub(super) fn clear(&self, area: &Area) -> io::Result<()> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        for start in (0..AREA).step_by(PIECE) {
            memory.write_slice(&[0; PIECE], area.at(start)).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Where the second half of an area first differs, in `len` bytes, from the first; or, if `block`
    /// is less than that, from so many bytes over and over.
    ///
    /// # Errors
    /// When there is no such area, which is a mistake.
    pub(super) fn differs(
        &self,
        area: &Area,
        len: usize,
        block: usize,
    ) -> io::Result<Option<usize>> {
        let mut done = 0;
        while done < len {
            let within = done % block;
            let (ours, count) = self.piece(area, within, (block - within).min(len - done))?;
            let (medium, _) = self.piece(area, HALF + done, count)?;
            if let Some(at) = (0..count).find(|&at| ours[at] != medium[at]) {
                return Ok(Some(done + at));
            }
            done += count;
        }
        Ok(None)
    }

    /// Up to `PIECE` of `len` bytes, and how many.
    fn piece(&self, area: &Area, offset: usize, len: usize) -> io::Result<([u8; PIECE], usize)> {
        let memory = self.memory.as_ref().ok_or(io::ErrorKind::InvalidInput)?;
        let mut piece = [0; PIECE];
        let count = len.min(PIECE);
        memory.read_slice(&mut piece[..count], area.at(offset)).map_err(io::Error::other)?;
        Ok((piece, count))
    }
}
