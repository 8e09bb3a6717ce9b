//! vmxnet3: `DriverShared`, commands, and rings of descriptors of all kinds.

use std::mem::offset_of;

use paraslot_spec::pci::{header, msix};
use paraslot_spec::vmxnet3::registers::{
    CMD, DSAH, DSAL, ECR, ICR, IMR, MACH, MACL, RXPROD, RXPROD2, STRIDE, TXPROD, UVRS, VRRS,
};
use paraslot_spec::vmxnet3::{
    CoalesceScheme, DriverShared, MSIX_BAR, PT_BAR, REV1_MAGIC, RSSConf, RxDesc, RxQueueDesc,
    TxDesc, TxQueueDesc, VD_BAR, VariableLenConfDesc, command, rxd, txd,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::bench::Bench;
use crate::frames::{HERE, Shape, any_frame};
use crate::fuzz::{Backing, Input, Script};
use crate::port::Port;

/// Queues in each direction, and pairs of the backend's.
pub const QUEUES: u16 = 2;

const SHARED: u64 = 0x1000;
const QUEUE_DESCS: u64 = 0x1800;
const RSS: u64 = 0x1c00;
const COALESCE: u64 = 0x1d00;
const GROUPS: u64 = 0x1d40;
/// A queue's rings: so far apart, and from the next queue's.
const TX_RINGS: u64 = 0x2000;
const RX_RINGS: u64 = 0x4000;
const RING: u64 = RING_BYTES as u64;
const RING_BYTES: usize = 0x400;
const AREA: u64 = 0x1000;
const ENTRIES: u32 = 32;
const DATA_RING: u64 = 0x6000;
const SEND: u64 = 0x8000;
const SEND_LEN: usize = 0x1_4000;
const RECEIVE: u64 = 0x2_0000;
const BUFFER: u64 = 0x800;

/// All commands, and two that are none.
const COMMANDS: [u32; 30] = [
    command::ACTIVATE_DEV,
    command::QUIESCE_DEV,
    command::RESET_DEV,
    command::UPDATE_RX_MODE,
    command::UPDATE_MAC_FILTERS,
    command::UPDATE_VLAN_FILTERS,
    command::UPDATE_RSSIDT,
    command::UPDATE_IML,
    command::UPDATE_PMCFG,
    command::UPDATE_FEATURE,
    command::LOAD_PLUGIN,
    command::SET_COALESCE,
    command::SET_COALESCE,
    command::REGISTER_MEMREGS,
    command::SET_RSS_FIELDS,
    command::GET_QUEUE_STATUS,
    command::GET_STATS,
    command::GET_LINK,
    command::GET_PERM_MAC_LO,
    command::GET_PERM_MAC_HI,
    command::GET_DID_LO,
    command::GET_DID_HI,
    command::GET_DEV_EXTRA_INFO,
    command::GET_CONF_INTR,
    command::GET_ADAPTIVE_RING_INFO,
    command::GET_TXDATA_DESC_SIZE,
    command::GET_COALESCE,
    command::GET_RSS_FIELDS,
    0,
    u32::MAX,
];

/// Registers of the VD BAR.
const REGISTERS: [u64; 9] = [VRRS, UVRS, DSAL, DSAH, CMD, MACL, MACH, ICR, ECR];

/// A ring as a driver keeps it.
#[derive(Clone, Copy, Default)]
struct Side {
    base: u64,
    next: u32,
    lap: bool,
}

impl Side {
    fn new(base: u64) -> Self {
        Self { base, next: 0, lap: true }
    }

    fn at(&self) -> u64 {
        self.base + 16 * u64::from(self.next)
    }

    fn step(&mut self) {
        self.next = (self.next + 1) % ENTRIES;
        self.lap ^= self.next == 0;
    }
}

/// Drives a vmxnet3, wrongly.
pub struct Vmxnet3Script {
    port: Port,
    /// Which features, moderation and so on the driver wants.
    wants: u32,
    tx: [Side; QUEUES as usize],
    rx: [[Side; 2]; QUEUES as usize],
}

impl Vmxnet3Script {
    /// A script for an adapter in front of `port`, whose driver wants what the bits of `wants` say.
    pub fn new(port: Port, wants: u32) -> Self {
        Self { port, wants, tx: Default::default(), rx: Default::default() }
    }

    fn wants(&self, bit: u32) -> bool {
        self.wants >> bit & 1 != 0
    }

    fn shared(&self) -> DriverShared {
        let mut shared = DriverShared::default();
        shared.magic = REV1_MAGIC.into();
        let messages = self.wants(8);
        let read = &mut shared.dev_read;
        read.misc.driver_info.vmxnet3_rev_spt = 1.into();
        read.misc.driver_info.upt_ver_spt = 1.into();
        read.misc.upt_features = u64::from(self.wants & 0xf).into();
        read.misc.queue_desc_pa = QUEUE_DESCS.into();
        read.misc.queue_desc_len = (512 * u32::from(QUEUES)).into();
        read.misc.mtu = if self.wants(4) { 9000 } else { 1500 }.into();
        read.misc.max_num_rx_sg = 18.into();
        read.misc.num_tx_queues = 2;
        read.misc.num_rx_queues = 2;
        read.intr_conf.auto_mask = self.wants(5).into();
        read.intr_conf.num_intrs = if messages { 5 } else { 1 };
        read.intr_conf.event_intr_idx = if messages { 4 } else { 0 };
        let [.., level] = self.wants.to_le_bytes();
        read.intr_conf.mod_levels.fill(level % 9);
        read.rx_filter_conf.rx_mode = 0x1f.into();
        read.rx_filter_conf.mf_table_len = 12.into();
        read.rx_filter_conf.mf_table_pa = GROUPS.into();
        read.rss_conf_desc = variable(size_of::<RSSConf>(), RSS);
        shared.cmd_info.var_conf = variable(size_of::<CoalesceScheme>(), COALESCE);
        shared
    }

    fn write_queues(&mut self, bench: &Bench) {
        let messages = self.wants(8);
        for queue in 0..u64::from(QUEUES) {
            let index = usize::try_from(queue).expect("few");
            let intr = |at: u64| if messages { u8::try_from(at).expect("few") } else { 0 };
            let base = TX_RINGS + AREA * queue;
            let mut desc = TxQueueDesc::default();
            desc.conf.tx_ring_base_pa = base.into();
            desc.conf.comp_ring_base_pa = (base + RING).into();
            desc.conf.tx_ring_size = ENTRIES.into();
            desc.conf.comp_ring_size = ENTRIES.into();
            desc.conf.intr_idx = intr(queue);
            bench.poke(QUEUE_DESCS + 256 * queue, desc.as_bytes());
            self.tx[index] = Side::new(base);
            bench.poke(base, &[0; 2 * RING_BYTES]);
            let base = RX_RINGS + AREA * queue;
            let mut desc = RxQueueDesc::default();
            desc.conf.rx_ring_base_pa = [base.into(), (base + RING).into()];
            desc.conf.comp_ring_base_pa = (base + 2 * RING).into();
            desc.conf.rx_ring_size = [ENTRIES.into(); 2];
            desc.conf.comp_ring_size = ENTRIES.into();
            desc.conf.intr_idx = intr(queue + 2);
            if self.wants(6) {
                desc.conf.rx_data_ring_base_pa = (DATA_RING + AREA * queue).into();
                desc.conf.rx_data_ring_desc_size = 128.into();
            }
            bench.poke(QUEUE_DESCS + 256 * (queue + 2), desc.as_bytes());
            self.rx[index] = [Side::new(base), Side::new(base + RING)];
            bench.poke(base, &[0; 3 * RING_BYTES]);
        }
        let mut rss = RSSConf::read_from_bytes(&[0x5a; size_of::<RSSConf>()]).expect("as long");
        rss.hash_type = 0xf.into();
        rss.hash_func = 1.into();
        rss.hash_key_size = 40.into();
        rss.ind_table_size = 128.into();
        for (at, entry) in rss.ind_table.iter_mut().enumerate() {
            *entry = u8::from(at % 3 == 0);
        }
        bench.poke(RSS, rss.as_bytes());
        bench.poke(GROUPS, &[1; 12]);
    }

    fn vd(bench: &mut Bench, register: u64, value: u32) {
        bench.write32(VD_BAR, register, value);
    }

    fn order(bench: &mut Bench, command: u32) {
        Self::vd(bench, CMD, command);
        bench.read32(VD_BAR, CMD);
    }

    /// Gives receive buffers.
    fn supply(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let queue = usize::from(input.u8()) % usize::from(QUEUES);
        let which = usize::from(input.u8() & 1);
        for _ in 0..input.u8() % 40 {
            let side = self.rx[queue][which];
            let mut address = RECEIVE + BUFFER * u64::from(side.next);
            let kind = input.u8();
            let mut flags = 0x800 | if side.lap { rxd::GEN } else { 0 };
            flags |= if which == 1 || kind & 3 == 0 { rxd::BTYPE_BODY } else { 0 };
            match kind {
                0xf0..0xf4 => address = input.interesting(),
                0xf4..0xf8 => flags = flags & !rxd::LEN | u32::from(input.u16()) & rxd::LEN,
                0xf8 => flags ^= 1 << (input.u8() % 32),
                _ => {}
            }
            bench.poke(side.at(), RxDesc::new(address, flags).as_bytes());
            self.rx[queue][which].step();
        }
        let register = [RXPROD, RXPROD2][which];
        bench.write32(PT_BAR, register + STRIDE * queue as u64, self.rx[queue][which].next);
    }

    /// A packet of any kind, cut into buffers anywhere.
    fn send(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let kind = input.u8();
        let queue = usize::from(kind >> 7);
        let most = if kind & 0x70 == 0 { SEND_LEN - 0x200 } else { 3000 };
        let (mut bytes, mut len_bits, mut flags) = if kind & 1 == 0 {
            (any_frame(input, most).bytes, 0, 0)
        } else {
            let shape = Shape::any(input, most);
            let small = |value: usize| u32::try_from(value).expect("headers");
            let transport = small(shape.transport());
            if kind & 2 == 0 {
                let place = transport + u32::from(shape.checksum_offset());
                let flags = txd::OM_CSUM | transport & txd::HLEN;
                (shape.frame(true), place << txd::MSSCOF_SHIFT, flags)
            } else {
                let mss = u32::from(input.u16() & 0x7ff);
                let flags = txd::OM_TSO | small(shape.headers()) & txd::HLEN;
                (shape.frame(true), mss << txd::MSSCOF_SHIFT, flags)
            }
        };
        bytes.truncate(SEND_LEN);
        bench.poke(SEND, &bytes);
        match input.u8() {
            0..16 => flags |= txd::TI | u32::from(input.u16()) << txd::TCI_SHIFT,
            16..20 => flags ^= 1 << (input.u8() % 32),
            20..24 => len_bits ^= 1 << (input.u8() % 32),
            _ => {}
        }
        let pieces = 1 + usize::from(input.u8() % 6);
        let mut at = 0;
        for piece in 0..pieces {
            let left = bytes.len() - at;
            let last = piece + 1 == pieces;
            let len = if last { left } else { usize::from(input.u16() & 0xfff).min(left) };
            let len = len.min(0x4000);
            let side = self.tx[queue];
            let mut address = SEND + at as u64;
            let mut word = u32::try_from(len).expect("short") & txd::LEN | len_bits;
            word |= if side.lap { txd::GEN } else { 0 };
            let mut second = flags | if last { txd::EOP | txd::CQ } else { 0 };
            match input.u8() {
                0..4 => address = input.interesting(),
                4 => second ^= txd::EOP,
                5 => word ^= txd::GEN,
                6 => second ^= txd::CQ,
                _ => {}
            }
            let descriptor =
                TxDesc { addr: address.into(), len: word.into(), flags: second.into() };
            bench.poke(side.at(), descriptor.as_bytes());
            self.tx[queue].step();
            (len_bits, flags) = (0, 0);
            at += len;
        }
        bench.write32(PT_BAR, TXPROD + STRIDE * queue as u64, self.tx[queue].next);
    }

    /// Makes something wrong of what the driver shares with the device.
    fn spoil(bench: &mut Bench, input: &mut Input<'_>) {
        let (base, len) = match input.u8() & 3 {
            0 => (SHARED, offset_of!(DriverShared, dev_read.rx_filter_conf.vf_table)),
            1 => (SHARED, size_of::<DriverShared>()),
            2 => (QUEUE_DESCS, 1024),
            _ => (RSS, 0x180),
        };
        let at = u64::from(input.u16()) % len as u64;
        let bytes = input.bytes::<8>();
        let count = [1, 2, 4, 8][usize::from(input.u8() & 3)];
        bench.poke(base + at, &bytes[..count]);
    }
}

fn variable(len: usize, place: u64) -> VariableLenConfDesc {
    VariableLenConfDesc {
        conf_ver: 1.into(),
        conf_len: u32::try_from(len).expect("short").into(),
        conf_pa: place.into(),
    }
}

impl Script for Vmxnet3Script {
    fn bring_up(&mut self, bench: &mut Bench) {
        bench.enable();
        if self.wants(8) {
            for vector in 0..5 {
                bench.device.bar_write(MSIX_BAR, 16 * vector, &[0; 16]);
            }
            let mut pointer = [0; 1];
            bench.device.config_read(header::CAPABILITIES, &mut pointer);
            let mut at = u16::from(pointer[0]);
            while at != 0 {
                let mut head = [0; 2];
                bench.device.config_read(at, &mut head);
                if head[0] == paraslot_spec::pci::capability::MSI_X {
                    let enable = msix::ENABLE.to_le_bytes();
                    bench.device.config_write(at + msix::CONTROL, &enable);
                }
                at = u16::from(head[1]);
            }
        }
        bench.poke(SHARED, self.shared().as_bytes());
        self.write_queues(bench);
        Self::vd(bench, VRRS, 1 << (self.wants >> 9 & 3));
        Self::vd(bench, DSAL, u32::try_from(SHARED).expect("low"));
        Self::vd(bench, DSAH, 0);
        let [a, b, c, d, e, f] = HERE;
        Self::vd(bench, MACL, u32::from_le_bytes([a, b, c, d]));
        Self::vd(bench, MACH, u16::from_le_bytes([e, f]).into());
        Self::order(bench, command::ACTIVATE_DEV);
        let rings = [(0, 0), (0, 1), (1, 0), (1, 1)];
        for (queue, which) in rings {
            for _ in 1..ENTRIES {
                let side: Side = self.rx[queue][which];
                let address = RECEIVE + BUFFER * u64::from(side.next);
                let body = if which == 1 { rxd::BTYPE_BODY } else { 0 };
                let lap = if side.lap { rxd::GEN } else { 0 };
                bench.poke(side.at(), RxDesc::new(address, 0x800 | body | lap).as_bytes());
                self.rx[queue][which].step();
            }
        }
        for intr in 0..5 {
            bench.write32(PT_BAR, IMR + STRIDE * intr, 0);
        }
        bench.executor.run(100);
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        match input.u8() & 31 {
            0 => self.bring_up(bench),
            1..4 => self.supply(bench, input),
            4..12 => self.port.act(input),
            12..15 => Self::spoil(bench, input),
            15..18 => {
                Self::order(bench, COMMANDS[usize::from(input.u8()) % COMMANDS.len()]);
            }
            18 => {
                Self::spoil(bench, input);
                Self::order(bench, command::ACTIVATE_DEV);
            }
            19..21 => {
                let intr = u64::from(input.u8() % 26);
                bench.write32(PT_BAR, IMR + STRIDE * intr, input.u8().into());
                bench.read32(VD_BAR, ICR);
            }
            21 => {
                let scheme: [u32; 4] = [0, 1, 2, 3].map(|_| u32::from(input.u8() & 0x83));
                bench.poke(COALESCE, scheme.as_bytes());
                Self::order(bench, command::SET_COALESCE);
            }
            _ => self.send(bench, input),
        }
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        let choice = input.u8();
        if choice & 1 == 0 {
            (VD_BAR, REGISTERS[usize::from(choice / 2) % REGISTERS.len()])
        } else {
            (PT_BAR, u64::from(input.u16() & 0xfff))
        }
    }

    fn budget(&self) -> u64 {
        // Packets of 64 descriptors at most, begun while 256 are left: each descriptor read, its bytes
        // gathered and resolved; frames into buffers, begun while 512 are left, of 64 at most: two reads,
        // the data and two writes each; and a look at both before a sleep.
        6000
    }
}
