//! pvscsi: requests, task management and configuration by commands, messages, and units that come and
//! go.

use paraslot_spec::pvscsi::{
    AbortCmd, Config, Intr, MEMORY_BAR, RequestDescriptor, RequestFlags, ResetDevice, SG_CHAIN,
    SetupMsgRing, SetupReqCall, SetupRings, SgElement, command, config, register, state,
};
use paraslot_spec::scsi::opcode;
use zerocopy::IntoBytes;

use crate::bench::Bench;
use crate::fuzz::{Input, Script};

const STATE: u64 = 0x1000;
const REQUESTS: u64 = 0x2000;
const COMPLETIONS: u64 = 0x3000;
const MESSAGES: u64 = 0x4000;
const ELEMENTS: u64 = 0x5000;
const SENSE: u64 = 0x7000;
const DATA: u64 = 0x1_0000;

/// Commands that are worth a try; the rest come by chance.
const COMMANDS: [u8; 20] = [
    opcode::TEST_UNIT_READY,
    opcode::REQUEST_SENSE,
    opcode::INQUIRY,
    opcode::MODE_SENSE_6,
    opcode::MODE_SELECT_6,
    opcode::READ_CAPACITY_10,
    opcode::READ_10,
    opcode::READ_16,
    opcode::WRITE_10,
    opcode::WRITE_16,
    opcode::VERIFY_10,
    opcode::WRITE_AND_VERIFY_10,
    opcode::SYNCHRONIZE_CACHE_10,
    opcode::WRITE_SAME_16,
    opcode::UNMAP,
    opcode::COMPARE_AND_WRITE,
    opcode::PERSISTENT_RESERVE_OUT,
    opcode::START_STOP_UNIT,
    opcode::REPORT_LUNS,
    opcode::READ_10,
];

/// Drives an adapter, wrongly.
#[derive(Default)]
pub struct PvscsiScript {
    context: u64,
}

impl PvscsiScript {
    fn order(bench: &mut Bench, command: u32, descriptor: &[u8]) {
        bench.write32(MEMORY_BAR, register::COMMAND.into(), command);
        for word in descriptor.chunks_exact(4) {
            let word = word.try_into().map_or(0, u32::from_le_bytes);
            bench.write32(MEMORY_BAR, register::COMMAND_DATA.into(), word);
        }
    }

    fn set_up(bench: &mut Bench, pages: [u32; 2], state: u64) {
        let mut setup = SetupRings::default();
        setup.request_pages.set(pages[0]);
        setup.completion_pages.set(pages[1]);
        setup.state_page.set(state >> 12);
        for page in &mut setup.request_ring {
            page.set(REQUESTS >> 12);
        }
        for page in &mut setup.completion_ring {
            page.set(COMPLETIONS >> 12);
        }
        Self::order(bench, command::SETUP_RINGS, setup.as_bytes());
    }

    fn set_up_messages(bench: &mut Bench, pages: u32) {
        let mut setup = SetupMsgRing::default();
        setup.pages.set(pages);
        for page in &mut setup.ring {
            page.set(MESSAGES >> 12);
        }
        Self::order(bench, command::SETUP_MSG_RING, setup.as_bytes());
    }

    /// Something that is not a request.
    fn manage(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let target = u32::from(input.u8() % 3);
        match input.u8() % 16 {
            0 => Self::order(bench, command::ADAPTER_RESET, &[]),
            1 => Self::order(bench, command::RESET_BUS, &[]),
            2 | 3 => {
                let lun = [0, input.u8() % 2, 0, 0, 0, 0, 0, 0];
                let reset = ResetDevice { target: target.into(), lun };
                Self::order(bench, command::RESET_DEVICE, reset.as_bytes());
            }
            4..8 => {
                let mut abort = AbortCmd::default();
                abort.target.set(target);
                abort.context.set(self.context.saturating_sub(u64::from(input.u8() % 4)));
                Self::order(bench, command::ABORT_CMD, abort.as_bytes());
            }
            8 => {
                let mut order = Config::default();
                order.completion.set(input.interesting());
                order.address.set(u64::from(config::address::CONTROLLER) << 32);
                order.page.set(config::CONTROLLER + u32::from(input.u8() % 3));
                Self::order(bench, command::CONFIG, order.as_bytes());
            }
            9 => {
                let pages = [u32::from(input.u8() % 34), u32::from(input.u8() % 34)];
                let state = if input.u8() & 3 == 0 { input.interesting() } else { STATE };
                Self::set_up(bench, pages, state);
            }
            10 => Self::set_up_messages(bench, u32::from(input.u8() % 18)),
            11 => {
                let enable = SetupReqCall { enable: u32::from(input.u8() & 1).into() };
                Self::order(bench, command::SETUP_REQCALLTHRESHOLD, enable.as_bytes());
            }
            12 => {
                let offset = [state::REQUEST_PRODUCER, state::COMPLETION_CONSUMER]
                    [usize::from(input.u8() & 1)];
                let value = if input.u8() & 1 == 0 { input.u8().into() } else { input.u32() };
                bench.poke(STATE + offset, &value.to_le_bytes());
            }
            _ => Self::reap(bench),
        }
    }

    fn load(bench: &Bench, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        bench.peek(STATE + offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Takes all completions and messages.
    fn reap(bench: &mut Bench) {
        for (producer, consumer) in [
            (state::COMPLETION_PRODUCER, state::COMPLETION_CONSUMER),
            (state::MESSAGE_PRODUCER, state::MESSAGE_CONSUMER),
        ] {
            let taken = Self::load(bench, producer);
            bench.poke(STATE + consumer, &taken.to_le_bytes());
        }
        bench.write32(MEMORY_BAR, register::INTR_STATUS.into(), u32::MAX);
    }

    fn elements(bench: &mut Bench, input: &mut Input<'_>, len: u64) {
        let count = input.u8() % 5;
        let each = u32::try_from(len / u64::from(count.max(1))).unwrap_or(u32::MAX);
        for index in 0..u64::from(count) {
            let mut element = SgElement::default();
            element.address.set(DATA + index * 0x1000);
            element.len.set(each);
            match input.u8() % 8 {
                0 => element.len.set(input.u8().into()),
                1 => {
                    element.address.set(ELEMENTS + u64::from(input.u8()) * 16);
                    element.flags.set(SG_CHAIN);
                }
                2 => element.address.set(input.interesting()),
                _ => {}
            }
            bench.poke(ELEMENTS + index * 16, element.as_bytes());
        }
    }
}

impl Script for PvscsiScript {
    fn bring_up(&mut self, bench: &mut Bench) {
        bench.enable();
        Self::order(bench, command::ADAPTER_RESET, &[]);
        bench.poke(STATE, &[0; 256]);
        Self::set_up(bench, [1, 1], STATE);
        Self::set_up_messages(bench, 1);
        let enable = SetupReqCall { enable: 1.into() };
        Self::order(bench, command::SETUP_REQCALLTHRESHOLD, enable.as_bytes());
        bench.write32(MEMORY_BAR, register::INTR_MASK.into(), Intr::all().bits());
        bench.executor.run(100);
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let shape = input.u8();
        if shape & 7 == 7 {
            self.manage(bench, input);
            return;
        }
        self.context += 1;
        let choice = usize::from(input.u8() % 24);
        let code = COMMANDS.get(choice).copied().unwrap_or_else(|| input.u8());
        let blocks = input.u8() % 16;
        let mut request = RequestDescriptor::default();
        request.context.set(self.context);
        request.cdb[0] = code;
        request.cdb_len = 16;
        let (lba_at, len_at) = if code < 0x80 { (5, 8) } else { (9, 13) };
        request.cdb[lba_at] = input.u8();
        request.cdb[len_at] = blocks;
        if shape & 0x18 == 0x18 {
            request.cdb[usize::from(input.u8() % 15) + 1] = input.u8();
        }
        let len = u64::from(blocks) * 512;
        let to_device = matches!(
            code,
            opcode::WRITE_10
                | opcode::WRITE_16
                | opcode::WRITE_AND_VERIFY_10
                | opcode::WRITE_SAME_16
                | opcode::UNMAP
                | opcode::COMPARE_AND_WRITE
                | opcode::MODE_SELECT_6
                | opcode::PERSISTENT_RESERVE_OUT
        );
        let direction =
            if to_device { RequestFlags::DIR_TO_DEVICE } else { RequestFlags::DIR_TO_HOST };
        let mut flags = direction.bits();
        request.data_len.set(len);
        request.data_address.set(DATA);
        if shape & 0x20 != 0 {
            flags |= RequestFlags::SG_LIST.bits();
            request.data_address.set(ELEMENTS);
            Self::elements(bench, input, len);
        }
        request.flags.set(flags);
        request.sense_address.set(SENSE);
        request.sense_len.set(96);
        request.target = input.u8() & 1;
        match input.u8() % 32 {
            0 => request.flags.set(input.u32()),
            1 => request.data_len.set(input.interesting()),
            2 => request.data_address.set(input.interesting()),
            3 => request.sense_address.set(input.interesting()),
            4 => {
                let index = usize::from(input.u8() % 69);
                if let Some(byte) = request.as_mut_bytes().get_mut(index) {
                    *byte = input.u8();
                }
            }
            _ => {}
        }
        let producer = Self::load(bench, state::REQUEST_PRODUCER);
        bench.poke(REQUESTS + u64::from(producer % 32) * 128, request.as_bytes());
        let producer = producer.wrapping_add(1);
        bench.poke(STATE + state::REQUEST_PRODUCER, &producer.to_le_bytes());
        let kick = if shape & 0x40 == 0 { register::KICK_RW_IO } else { register::KICK_NON_RW_IO };
        bench.write32(MEMORY_BAR, kick.into(), 0);
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        let all = paraslot_pvscsi::registers::REGISTERS;
        let offset = match all.get(usize::from(input.u8() % 16)) {
            Some(register) => u64::from(register.offset),
            // The MSI-X table.
            None => 0x6000 + u64::from(input.u8() % 20),
        };
        (MEMORY_BAR, offset)
    }

    fn budget(&self) -> u64 {
        // Elements that one round looks at, those of the last request on top, each fetched and
        // resolved; and what else 32 requests, their completions, messages and looks cost.
        2 * (128 * 1024 + 16 * 1024) + 8192
    }
}
