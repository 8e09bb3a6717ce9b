//! A driver of AHCI with one disk, on the bench.

use std::sync::Arc;

use paraslot_ahci::{Ahci, DiskOptions, Options};
use paraslot_backends::block::BlockBackend;
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{
    ABAR, COMMAND_FIS, CommandHeader, Ghc, PRD_TABLE, PortCommand, Prd, header, host, port,
    port_base,
};
use paraslot_spec::ata::{command, device, dsm};
use paraslot_tests::bench::Bench;
use zerocopy::IntoBytes;

use crate::support::{Random, SECTORS};

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 4 << 20;
pub(crate) const LIST: u64 = 0x1000;
pub(crate) const RECEIVED: u64 = 0x2000;
pub(crate) const TABLES: u64 = 0x1_0000;
pub(crate) const TABLE_LEN: u64 = 0x1000;
pub(crate) const DATA: u64 = 0x8_0000;
pub(crate) const DATA_LEN: u64 = 0x8000;
/// DRQ, BSY and ERR of PxTFD.
pub(crate) const BUSY: u32 = 0x88;
pub(crate) const ERROR: u32 = 1;

/// A command that was issued.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    pub(crate) slot: u32,
    pub(crate) code: u8,
    pub(crate) lba: u64,
    /// Bytes that it moves.
    pub(crate) bytes: u32,
    /// Where its data is: address, length.
    pub(crate) data: Vec<(u64, u32)>,
}

impl Issued {
    /// Whether the device writes its data.
    pub(crate) fn reads(&self) -> bool {
        !matches!(
            self.code,
            command::WRITE_DMA_EXT
                | command::WRITE_FPDMA_QUEUED
                | command::DATA_SET_MANAGEMENT
                | command::FLUSH_CACHE_EXT
        )
    }
}

/// A guest that uses port 0.
pub(crate) struct Sata {
    pub(crate) bench: Bench,
}

pub(crate) fn table_at(slot: u32) -> u64 {
    TABLES + u64::from(slot) * TABLE_LEN
}

pub(crate) fn data_at(slot: u32) -> u64 {
    DATA + u64::from(slot) * DATA_LEN
}

/// A command on sectors; its tag is `slot` if it is queued.
pub(crate) fn sectors(code: u8, slot: u32, lba: u64, count: u16) -> RegisterH2d {
    let mut fis = RegisterH2d::command(code);
    fis.set_lba(lba);
    fis.device = device::LBA;
    if is_queued(code) {
        fis.count = u16::try_from(slot << 3).expect("a tag").into();
        [fis.features, fis.features_exp] = count.to_le_bytes();
    } else {
        fis.count = count.into();
    }
    fis
}

pub(crate) fn is_queued(code: u8) -> bool {
    matches!(code, command::READ_FPDMA_QUEUED | command::WRITE_FPDMA_QUEUED)
}

impl Sata {
    pub(crate) fn new(backend: Arc<dyn BlockBackend>) -> Self {
        let options = Options::new([DiskOptions::new(backend)]);
        let bench = Bench::new(MEMORY, |host| Ahci::new(options, host).expect("options are right"));
        let mut this = Self { bench };
        this.start();
        this
    }

    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        self.bench.read32(ABAR, offset.into())
    }

    pub(crate) fn write(&mut self, offset: u32, value: u32) {
        self.bench.write32(ABAR, offset.into(), value);
    }

    pub(crate) fn get(&mut self, register: u32) -> u32 {
        self.read(port_base(0) + register)
    }

    pub(crate) fn set(&mut self, register: u32, value: u32) {
        self.write(port_base(0) + register, value);
    }

    pub(crate) fn run(&self) {
        assert!(self.bench.executor.run(1000), "the worker does not come to rest");
    }

    /// Brings the HBA up.
    pub(crate) fn start(&mut self) {
        self.bench.enable();
        self.write(host::GHC, Ghc::AE.bits());
        let (list, received) = (LIST.to_le_bytes(), RECEIVED.to_le_bytes());
        for (low, address) in [(port::CLB, list), (port::FB, received)] {
            let [a, b, c, d, e, f, g, h] = address;
            self.set(low, u32::from_le_bytes([a, b, c, d]));
            self.set(low + 4, u32::from_le_bytes([e, f, g, h]));
        }
        self.set(port::CMD, PortCommand::FRE.bits());
        self.run();
        self.set(port::SERR, u32::MAX);
        self.set(port::IS, u32::MAX);
        self.write(host::IS, u32::MAX);
        self.set(port::IE, u32::MAX);
        self.write(host::GHC, (Ghc::AE | Ghc::IE).bits());
        self.set(port::CMD, (PortCommand::FRE | PortCommand::ST).bits());
    }

    /// Writes a command into a slot, with its table at `table`.
    pub(crate) fn prepare_at(&self, table: u64, slot: u32, fis: &RegisterH2d, prds: &[Prd]) {
        let entries = u32::try_from(prds.len()).expect("as many as there can be");
        let header = CommandHeader::new(5 | entries << header::PRDTL_SHIFT, table);
        self.bench.poke(LIST + 32 * u64::from(slot), header.as_bytes());
        self.bench.poke(table + COMMAND_FIS, fis.as_bytes());
        self.bench.poke(table + PRD_TABLE, prds.as_bytes());
    }

    pub(crate) fn prepare(&self, slot: u32, fis: &RegisterH2d, prds: &[Prd]) {
        self.prepare_at(table_at(slot), slot, fis, prds);
    }

    pub(crate) fn issue(&mut self, slots: u32, queued: bool) {
        if queued {
            self.set(port::SACT, slots);
        }
        self.set(port::CI, slots);
    }

    /// A command of any kind that is right in all its parts, queued or not. Reads are of the first
    /// half of the image, everything that changes it is in the second.
    pub(crate) fn any_command(&mut self, slot: u32, queued: bool, random: &mut Random) -> Issued {
        let half = SECTORS / 2;
        let kinds: &[u8] = if queued {
            &[command::READ_FPDMA_QUEUED, command::READ_FPDMA_QUEUED, command::WRITE_FPDMA_QUEUED]
        } else {
            &[
                command::READ_DMA_EXT,
                command::READ_SECTORS_EXT,
                command::WRITE_DMA_EXT,
                command::FLUSH_CACHE_EXT,
                command::DATA_SET_MANAGEMENT,
                command::IDENTIFY_DEVICE,
            ]
        };
        let code = kinds[usize::try_from(random.below(kinds.len() as u64)).expect("small")];
        let count = 1 + random.below(8);
        let lba = random.below(half - 8);
        let lba = match code {
            command::WRITE_DMA_EXT | command::WRITE_FPDMA_QUEUED => half + lba,
            _ => lba,
        };
        let bytes = match code {
            command::FLUSH_CACHE_EXT => 0,
            command::DATA_SET_MANAGEMENT | command::IDENTIFY_DEVICE => 512,
            _ => 512 * count,
        };
        let fis = match code {
            command::FLUSH_CACHE_EXT | command::IDENTIFY_DEVICE => sectors(code, slot, 0, 0),
            command::DATA_SET_MANAGEMENT => {
                RegisterH2d { features: 1, ..sectors(code, slot, 0, 1) }
            }
            _ => sectors(code, slot, lba, u16::try_from(count).expect("small")),
        };
        // Cut into pieces with gaps between them.
        let (mut address, mut left) = (data_at(slot), bytes);
        let (mut prds, mut data) = (Vec::new(), Vec::new());
        while left != 0 {
            let len = (2 * (1 + random.below(512))).min(left);
            let len32 = u32::try_from(len).expect("small");
            prds.push(Prd::new(address, len32));
            data.push((address, len32));
            address += len + 2 * random.below(16);
            left -= len;
        }
        if code == command::DATA_SET_MANAGEMENT {
            let mut ranges = vec![0; 512];
            for entry in ranges.chunks_exact_mut(dsm::ENTRY_LEN).take(5) {
                let range = (half + random.below(half - 8)) | (4 << 48);
                entry.copy_from_slice(&range.to_le_bytes());
            }
            let mut rest = &ranges[..];
            for (address, len) in &data {
                let (now, later) = rest.split_at(usize::try_from(*len).expect("small"));
                self.bench.poke(*address, now);
                rest = later;
            }
        }
        self.prepare(slot, &fis, &prds);
        self.issue(1 << slot, queued);
        Issued { slot, code, lba, bytes: u32::try_from(bytes).expect("small"), data }
    }
}
