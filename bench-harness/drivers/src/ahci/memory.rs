//! What a port and its driver share in memory (AHCI 1.3.1, 4).

use core::mem::offset_of;

use paraslot_spec::ahci::{
    COMMAND_FIS, COMMAND_LIST_LEN, CommandHeader, MAX_SLOTS, PRD_TABLE, Prd, RECEIVED_FIS_LEN, fis,
    header, received,
};
use paraslot_spec::ata::{self, SECTOR, command, device};
use zerocopy::little_endian::{U16, U32};

use crate::{DmaRegion, Error, Platform};

/// Entries of a command's PRD table.
const PRDS: usize = 8;
/// Bytes of a command table.
const TABLE_LEN: usize = 256;
const RECEIVED: usize = COMMAND_LIST_LEN;
const TABLES: usize = 2048;
/// One table more than slots, for the driver's own commands.
const DATA: usize = TABLES + (MAX_SLOTS + 1) * TABLE_LEN;
const LEN: usize = DATA + SECTOR;

/// An offset of the specification's, all of which are small.
#[expect(clippy::cast_possible_truncation, reason = "below 4096")]
const fn size(offset: u64) -> usize {
    assert!(offset < 4096);
    offset as usize
}

const _: () = assert!(size(PRD_TABLE) + PRDS * size_of::<Prd>() <= TABLE_LEN);
const _: () = assert!(RECEIVED + RECEIVED_FIS_LEN <= TABLES);

/// Most bytes that a command moves.
pub(super) const MAX_TRANSFER: u32 = 8 * Prd::MAX_LEN;
/// The table of the driver's own commands.
const OWN_TABLE: usize = MAX_SLOTS;

/// A command: its FIS and what it moves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub(super) fis: fis::RegisterH2d,
    /// Bus address and length of the data, and whether it goes to the device.
    pub(super) data: Option<Data>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) address: u64,
    pub(super) len: u32,
    pub(super) write: bool,
}

impl Command {
    /// A command without data.
    pub(super) fn new(code: u8) -> Self {
        Self { fis: fis::RegisterH2d::command(code), data: None }
    }

    /// A queued read or write (ACS-4, READ FPDMA QUEUED).
    pub(super) fn queued(tag: u16, lba: u64, sectors: u32, data: Data) -> Self {
        let code = match data.write {
            true => command::WRITE_FPDMA_QUEUED,
            false => command::READ_FPDMA_QUEUED,
        };
        let mut fis = fis::RegisterH2d::command(code);
        // 65536 sectors are said as 0, which is what is left of them.
        let [low, high, ..] = sectors.to_le_bytes();
        (fis.features, fis.features_exp) = (low, high);
        fis.count = U16::new(tag << ata::ncq::TAG_SHIFT);
        fis.set_lba(lba);
        fis.device = device::LBA;
        Self { fis, data: Some(data) }
    }

    /// A read or write without queuing.
    pub(super) fn dma(lba: u64, sectors: u32, data: Data) -> Self {
        let code = match data.write {
            true => command::WRITE_DMA_EXT,
            false => command::READ_DMA_EXT,
        };
        let mut fis = fis::RegisterH2d::command(code);
        let [low, high, ..] = sectors.to_le_bytes();
        fis.count = U16::from_bytes([low, high]);
        fis.set_lba(lba);
        fis.device = device::LBA;
        Self { fis, data: Some(data) }
    }
}

/// The regions of a PRD table for `len` contiguous bytes at `address`.
pub(super) fn regions(address: u64, len: u32) -> impl Iterator<Item = Prd> {
    (0..len).step_by(Prd::MAX_LEN as usize).map(move |start| {
        Prd::new(address.wrapping_add(u64::from(start)), (len - start).min(Prd::MAX_LEN))
    })
}

/// Command list, received FIS area, command tables and a sector of data.
pub(super) struct PortMemory {
    region: DmaRegion,
    /// What each slot's header and PRD table were last set up for.
    shapes: [Option<Option<Data>>; MAX_SLOTS],
}

impl PortMemory {
    pub(super) fn new<P: Platform>(platform: &P, wide: bool) -> Result<Self, Error> {
        let region = platform.allocate(LEN).ok_or(Error::NoMemory)?;
        if !wide && region.physical(LEN) > 1 << 32 {
            return Err(Error::Unsupported("64-bit addresses"));
        }
        Ok(Self { region, shapes: [None; MAX_SLOTS] })
    }

    pub(super) fn command_list(&self) -> u64 {
        self.region.physical(0)
    }

    pub(super) fn received_fis(&self) -> u64 {
        self.region.physical(RECEIVED)
    }

    /// The sector that the driver's own commands use.
    pub(super) fn sector(&self) -> DmaRegion {
        self.region.part(DATA, SECTOR)
    }

    /// Sets up `command` in a slot below 32.
    pub(super) fn set(&mut self, slot: u16, command: &Command) {
        let index = usize::from(slot);
        self.write_fis(index, command);
        if let Some(shape) = self.shapes.get_mut(index)
            && *shape != Some(command.data)
        {
            *shape = Some(command.data);
            self.write_table(index, index, command);
        }
    }

    /// Sets up one of the driver's own commands in slot 0, whose own table stays as it is.
    pub(super) fn set_own(&mut self, command: &Command) {
        self.write_fis(OWN_TABLE, command);
        self.write_table(0, OWN_TABLE, command);
    }

    /// Gives slot 0 its own table back.
    pub(super) fn restore(&mut self) {
        if let Some(Some(Some(data))) = self.shapes.first() {
            let command = Command { data: Some(*data), ..Command::new(0) };
            self.write_header(0, 0, &command);
        } else if let Some(shape) = self.shapes.first_mut() {
            *shape = None;
        }
    }

    fn write_fis(&self, table: usize, command: &Command) {
        let words: [U32; 5] = zerocopy::transmute!(command.fis);
        let offset = TABLES + table * TABLE_LEN + size(COMMAND_FIS);
        for (index, word) in words.into_iter().enumerate() {
            self.region.write32(offset + 4 * index, word.get());
        }
    }

    fn write_table(&self, slot: usize, table: usize, command: &Command) {
        if let Some(data) = command.data {
            let offset = TABLES + table * TABLE_LEN + size(PRD_TABLE);
            for (index, prd) in regions(data.address, data.len).take(PRDS).enumerate() {
                let words: [U32; 4] = zerocopy::transmute!(prd);
                for (word, value) in words.into_iter().enumerate() {
                    let at = offset + index * size_of::<Prd>() + 4 * word;
                    self.region.write32(at, value.get());
                }
            }
        }
        self.write_header(slot, table, command);
    }

    fn write_header(&self, slot: usize, table: usize, command: &Command) {
        let mut flags = 5;
        if let Some(data) = command.data {
            flags |= data.len.div_ceil(Prd::MAX_LEN) << header::PRDTL_SHIFT;
            if data.write {
                flags |= header::WRITE;
            }
        }
        let table = self.region.physical(TABLES + table * TABLE_LEN);
        let words: [U32; 8] = zerocopy::transmute!(CommandHeader::new(flags, table));
        for (index, word) in words.into_iter().enumerate() {
            self.region.write32(slot * size_of::<CommandHeader>() + 4 * index, word.get());
        }
    }

    /// Bytes that the HBA says it has moved for a slot (PRDBC), and starts the count anew.
    pub(super) fn take_moved(&self, slot: u16) -> u32 {
        let offset = usize::from(slot) * size_of::<CommandHeader>();
        let offset = offset + offset_of!(CommandHeader, prdbc);
        let moved = self.region.load32(offset);
        self.region.write32(offset, 0);
        moved
    }

    /// Whether a FIS that ended a command carried an error. Costs no register access.
    pub(super) fn error_received(&self) -> bool {
        [status_of_register(), status_of_set_device_bits()]
            .into_iter()
            .any(|offset| self.region.read8(offset) & (ata::status::ERR | ata::status::DF) != 0)
    }

    /// Forgets such errors.
    pub(super) fn clear_error(&self) {
        self.region.write8(status_of_register(), 0);
        self.region.write8(status_of_set_device_bits(), 0);
    }
}

const fn status_of_register() -> usize {
    RECEIVED + size(received::REGISTER) + offset_of!(fis::RegisterD2h, status)
}

const fn status_of_set_device_bits() -> usize {
    RECEIVED + size(received::SET_DEVICE_BITS) + offset_of!(fis::SetDeviceBits, status)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn regions_cover_the_data_in_pieces_of_4_mib() {
        let table = |address, len| -> Vec<(u64, u32)> {
            regions(address, len).map(|prd| (prd.address(), prd.len())).collect()
        };
        const MIB: u32 = 1 << 20;
        assert_eq!(table(0x1000, 512), [(0x1000, 512)]);
        assert_eq!(table(0x1000, 4 * MIB), [(0x1000, 4 * MIB)]);
        assert_eq!(
            table(0xffff_f000, 9 * MIB),
            [(0xffff_f000, 4 * MIB), (0x1_003f_f000, 4 * MIB), (0x1_007f_f000, MIB)]
        );
        assert_eq!(table(0, MAX_TRANSFER).len(), PRDS);
        assert_eq!(table(0, 0), []);
    }

    #[test]
    fn a_queued_command_has_its_count_in_features_and_its_tag_in_count() {
        let data = Data { address: 0, len: 4096, write: true };
        let Command { fis, .. } = Command::queued(31, 0x1234_5678_9abc, 0x10000, data);
        assert_eq!((fis.command, fis.device), (command::WRITE_FPDMA_QUEUED, 0x40));
        assert_eq!((fis.features16(), fis.count.get()), (0, 31 << 3));
        assert_eq!(fis.lba48(), 0x1234_5678_9abc);
        let Command { fis, .. } = Command::dma(7, 8, Data { write: false, ..data });
        assert_eq!((fis.command, fis.count.get()), (command::READ_DMA_EXT, 8));
        assert_eq!((fis.lba48(), fis.features16()), (7, 0));
    }
}
