//! AHCI with one disk on port 0.

use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{
    ABAR, COMMAND_FIS, CommandHeader, Ghc, PRD_TABLE, PortCommand, Prd, header, host, port,
    port_base,
};
use paraslot_spec::ata::command;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use crate::bench::Bench;
use crate::fuzz::{Input, Script};

const COMMAND_LIST: u32 = 0x1000;
const RECEIVED_FIS: u32 = 0x2000;
const TABLES: u64 = 0x1_0000;
const DATA: u64 = 0x8000;

/// Commands that are worth a try; the rest come by chance.
const COMMANDS: [u8; 28] = [
    command::IDENTIFY_DEVICE,
    command::READ_DMA_EXT,
    command::WRITE_DMA_EXT,
    command::WRITE_DMA_FUA_EXT,
    command::READ_DMA,
    command::WRITE_DMA,
    command::READ_FPDMA_QUEUED,
    command::WRITE_FPDMA_QUEUED,
    command::READ_SECTORS,
    command::READ_SECTORS_EXT,
    command::WRITE_SECTORS,
    command::WRITE_SECTORS_EXT,
    command::READ_MULTIPLE,
    command::READ_MULTIPLE_EXT,
    command::WRITE_MULTIPLE_EXT,
    command::FLUSH_CACHE,
    command::FLUSH_CACHE_EXT,
    command::DATA_SET_MANAGEMENT,
    command::SET_FEATURES,
    command::SET_MULTIPLE_MODE,
    command::SMART,
    command::READ_LOG_EXT,
    command::READ_LOG_DMA_EXT,
    command::READ_VERIFY_SECTORS,
    command::READ_VERIFY_SECTORS_EXT,
    command::CHECK_POWER_MODE,
    command::SLEEP,
    command::EXECUTE_DEVICE_DIAGNOSTIC,
];

/// Commands whose data goes to the device.
const WRITES: [u8; 9] = [
    command::WRITE_DMA,
    command::WRITE_DMA_EXT,
    command::WRITE_DMA_FUA_EXT,
    command::WRITE_FPDMA_QUEUED,
    command::WRITE_SECTORS,
    command::WRITE_SECTORS_EXT,
    command::WRITE_MULTIPLE,
    command::WRITE_MULTIPLE_EXT,
    command::DATA_SET_MANAGEMENT,
];

/// Drives port 0 of an AHCI controller, wrongly.
#[derive(Default)]
pub struct AhciScript;

impl AhciScript {
    fn set(bench: &mut Bench, register: u32, value: u32) {
        bench.write32(ABAR, u64::from(port_base(0) + register), value);
    }
}

impl Script for AhciScript {
    fn bring_up(&mut self, bench: &mut Bench) {
        bench.enable();
        bench.write32(ABAR, host::GHC.into(), Ghc::AE.bits());
        Self::set(bench, port::CMD, 0);
        bench.executor.run(100);
        for (register, value) in [
            (port::CLB, COMMAND_LIST),
            (port::CLBU, 0),
            (port::FB, RECEIVED_FIS),
            (port::FBU, 0),
            (port::SERR, u32::MAX),
            (port::IS, u32::MAX),
            (port::IE, u32::MAX),
            (port::CMD, PortCommand::FRE.bits()),
            (port::CMD, (PortCommand::FRE | PortCommand::ST).bits()),
        ] {
            Self::set(bench, register, value);
        }
        bench.write32(ABAR, host::GHC.into(), (Ghc::AE | Ghc::IE).bits());
        bench.executor.run(100);
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let shape = input.u8();
        let slot = input.u8() % 32;
        let table = TABLES + u64::from(slot) * 0x100;
        let choice = usize::from(input.u8() % 32);
        let command = COMMANDS.get(choice).copied().unwrap_or_else(|| input.u8());
        let queued = matches!(command, command::READ_FPDMA_QUEUED | command::WRITE_FPDMA_QUEUED);
        let sectors = u16::from(input.u8() % 16);

        let mut fis = RegisterH2d::command(command);
        fis.set_lba(if shape & 1 == 0 { u64::from(input.u8()) } else { input.u64() });
        fis.device = 0x40;
        fis.count = U16::new(sectors);
        [fis.features, fis.features_exp] = sectors.to_le_bytes();
        if queued {
            fis.count = U16::new(u16::from(slot) << 3);
        }
        let mut bytes: [u8; size_of::<RegisterH2d>()] =
            fis.as_bytes().try_into().expect("its size");
        if shape & 0x18 == 0 {
            let index = usize::from(input.u8()) % bytes.len();
            bytes[index] = input.u8();
        }
        bench.poke(table + COMMAND_FIS, &bytes);

        let entries = u16::from(input.u8() % 4);
        let each = u32::from(sectors) * 512 / u32::from(entries.max(1));
        for index in 0..u64::from(entries) {
            let address = if shape & 2 == 0 { DATA + index * 0x1000 } else { input.interesting() };
            let mut prd = Prd::new(address, each);
            if shape & 4 != 0 {
                prd.dbc = U32::new(input.u32());
            }
            bench.poke(table + PRD_TABLE + 16 * index, prd.as_bytes());
        }
        let prdtl = if shape & 0x60 == 0 { input.u16() } else { entries };
        let mut flags = 5 | u32::from(prdtl) << header::PRDTL_SHIFT;
        if WRITES.contains(&command) {
            flags |= header::WRITE;
        }
        if shape == 0xff {
            flags = input.u32();
        }
        let header = CommandHeader::new(flags, table);
        bench.poke(u64::from(COMMAND_LIST) + 32 * u64::from(slot), header.as_bytes());
        if queued {
            Self::set(bench, port::SACT, 1 << slot);
        }
        Self::set(bench, port::CI, 1 << slot);
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        let offset = u32::from(input.u8() % 0x48);
        let base = match input.u8() % 4 {
            0 => 0,
            1 => port_base(1),
            _ => port_base(0),
        };
        (ABAR, u64::from(base + offset))
    }

    fn budget(&self) -> u64 {
        // 32 commands, each with a header, a FIS, a table of at most 65,535 PRDs that are resolved
        // one by one, and a FIS in return.
        32 * (65_535 + 8)
    }
}
