//! virtio-net behind the PCI transport: features at random, all queues, and control commands.

use paraslot_backends::net::{Cut, Offload};
use paraslot_spec::virtio::feature::{EVENT_IDX, INDIRECT_DESC, RING_RESET, VERSION_1};
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Descriptor};
use paraslot_spec::virtio_net::{
    Coalesce, CoalesceQueue, ControlHeader, HashConfig, Header, RssConfig, class, feature, gso,
    guest_offloads, hash_type, header_flag, mac, mq, notf_coal, rx, vlan,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::virtio::Transport;
use crate::bench::Bench;
use crate::frames::any_frame;
use crate::fuzz::{Backing, Input, Script};
use crate::port::Port;

/// Pairs of queues that the target's device has.
pub const PAIRS: u16 = 2;
const SIZE: u16 = 16;
/// Rings of queue `n`, and its indirect table, at this times `n` plus one.
const QUEUE: u64 = 0x1000;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x600;
const INDIRECT: u64 = 0x800;
/// Headers, commands and answers; then frames to be sent, then buffers to receive into.
const SMALL: u64 = 0x8000;
const SEND: u64 = 0x1_0000;
const SEND_LEN: usize = 0x1_2000;
const RECEIVE: u64 = 0x2_4000;

/// A feature, and what it cannot be without (5.1.3.1).
const NEEDS: [(u64, u64); 23] = [
    (feature::GUEST_TSO4, feature::GUEST_CSUM),
    (feature::GUEST_TSO6, feature::GUEST_CSUM),
    (feature::GUEST_UFO, feature::GUEST_CSUM),
    (feature::GUEST_USO4, feature::GUEST_CSUM),
    (feature::GUEST_USO6, feature::GUEST_CSUM),
    (feature::GUEST_ECN, feature::GUEST_TSO4 | feature::GUEST_TSO6),
    (feature::HOST_TSO4, feature::CSUM),
    (feature::HOST_TSO6, feature::CSUM),
    (feature::HOST_UFO, feature::CSUM),
    (feature::HOST_USO, feature::CSUM),
    (feature::HOST_ECN, feature::HOST_TSO4 | feature::HOST_TSO6),
    (feature::CTRL_RX, feature::CTRL_VQ),
    (feature::CTRL_VLAN, feature::CTRL_VQ),
    (feature::CTRL_RX_EXTRA, feature::CTRL_VQ),
    (feature::GUEST_ANNOUNCE, feature::CTRL_VQ),
    (feature::MQ, feature::CTRL_VQ),
    (feature::CTRL_MAC_ADDR, feature::CTRL_VQ),
    (feature::CTRL_GUEST_OFFLOADS, feature::CTRL_VQ),
    (feature::NOTF_COAL, feature::CTRL_VQ),
    (feature::VQ_NOTF_COAL, feature::CTRL_VQ),
    (feature::RSS, feature::CTRL_VQ),
    (feature::HASH_REPORT, feature::CTRL_VQ),
    (feature::DEVICE_STATS, feature::CTRL_VQ),
];

/// Control commands that are worth a try.
const COMMANDS: [(u8, u8); 19] = [
    (class::RX, rx::PROMISC),
    (class::RX, rx::ALLMULTI),
    (class::RX, rx::ALLUNI),
    (class::RX, rx::NOMULTI),
    (class::RX, rx::NOUNI),
    (class::RX, rx::NOBCAST),
    (class::MAC, mac::TABLE_SET),
    (class::MAC, mac::ADDR_SET),
    (class::VLAN, vlan::ADD),
    (class::VLAN, vlan::DEL),
    (class::ANNOUNCE, 0),
    (class::MQ, mq::VQ_PAIRS_SET),
    (class::MQ, mq::RSS_CONFIG),
    (class::MQ, mq::HASH_CONFIG),
    (class::GUEST_OFFLOADS, guest_offloads::SET),
    (class::NOTF_COAL, notf_coal::TX_SET),
    (class::NOTF_COAL, notf_coal::RX_SET),
    (class::NOTF_COAL, notf_coal::VQ_SET),
    (class::NOTF_COAL, notf_coal::VQ_GET),
];

/// A piece of a chain: address, length, whether the device writes it.
type Piece = (u64, u32, bool);

/// Drives a virtio-net device, wrongly.
pub struct VirtioNetScript {
    transport: Transport,
    port: Port,
    seed: u64,
    features: u64,
    avail: [u16; 2 * PAIRS as usize + 1],
}

impl VirtioNetScript {
    /// A script for a device in front of `port` that negotiates what `seed` makes of it, something
    /// else each time.
    pub fn new(port: Port, seed: u64) -> Self {
        let transport = Transport::default();
        Self { transport, port, seed, features: 0, avail: Default::default() }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.seed ^ self.seed >> 33
    }

    /// Everything, or half of it, or most; and now and then what does not go together.
    fn choose(&mut self, offered: u64) -> u64 {
        let how = self.random() >> 20;
        let mask = match how % 4 {
            0 => u64::MAX,
            1 => self.random(),
            _ => self.random() | self.random(),
        };
        let mut chosen = offered & (mask | VERSION_1 | INDIRECT_DESC | RING_RESET);
        if how >> 2 & 7 != 0 {
            for (wants, needs) in NEEDS {
                if chosen & needs == 0 {
                    chosen &= !wants;
                }
            }
        }
        if how >> 5 & 3 == 0 { chosen & !EVENT_IDX } else { chosen }
    }

    fn header_len(&self) -> usize {
        if self.features & feature::HASH_REPORT != 0 { 20 } else { 12 }
    }

    fn control_queue(&self) -> u16 {
        let many = self.features & (feature::MQ | feature::RSS) != 0;
        if many { 2 * PAIRS } else { 2 }
    }

    /// Makes a chain available on a queue, right but for what the input makes wrong.
    fn add(&mut self, bench: &mut Bench, queue: u16, pieces: &[Piece], input: &mut Input<'_>) {
        let shape = input.u8();
        let base = QUEUE * (u64::from(queue) + 1);
        let indirect = shape & 1 != 0 || pieces.len() > 8;
        let first = if indirect || shape & 2 == 0 { 0 } else { SIZE / 2 };
        let table = if indirect { base + INDIRECT } else { base + 16 * u64::from(first) };
        for (index, (address, len, writes)) in (0u16..).zip(pieces) {
            let last = usize::from(index) + 1 == pieces.len();
            let next = if last { 0 } else { DESC_F_NEXT };
            let mut descriptor = Descriptor {
                addr: U64::new(*address),
                len: U32::new(*len),
                flags: U16::new(next | if *writes { DESC_F_WRITE } else { 0 }),
                next: U16::new(index + 1 + if indirect { 0 } else { first }),
            };
            // One field in sixty descriptors or so is anything: it costs a reset, more often than not.
            match input.u8() {
                0 => descriptor.addr = U64::new(input.interesting()),
                1 => descriptor.len = U32::new(input.u32()),
                2 => descriptor.flags = U16::new(input.u16() & 7),
                3 => descriptor.next = U16::new(input.u16() & 31),
                _ => {}
            }
            bench.poke(table + 16 * u64::from(index), descriptor.as_bytes());
        }
        if indirect {
            let head = Descriptor {
                addr: U64::new(table),
                len: U32::new(16 * u32::try_from(pieces.len()).expect("few")),
                flags: U16::new(DESC_F_INDIRECT),
                next: U16::new(0),
            };
            bench.poke(base + 16 * u64::from(first), head.as_bytes());
        }
        let index = &mut self.avail[usize::from(queue)];
        let ring = base + AVAIL + 4 + 2 * u64::from(*index % SIZE);
        let head = if shape == 0xff { input.u16() & 31 } else { first };
        bench.poke(ring, &head.to_le_bytes());
        *index = index.wrapping_add(if shape == 0 { input.u16() } else { 1 });
        bench.poke(base + AVAIL + 2, &index.to_le_bytes());
        if shape & 4 == 0 {
            self.transport.notify(bench, queue);
        }
    }

    /// Some buffers to receive into, all the same.
    fn supply(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let queue = 2 * u16::from(input.u8() & 1);
        let shape = input.u8();
        let len = match shape & 7 {
            0 => u32::from(input.u8()),
            1 => 0x1_1000,
            2 => 64,
            _ => 1526,
        };
        let place = RECEIVE + u64::from(shape >> 5) * 0x800;
        let pieces: &[Piece] = match shape >> 3 & 3 {
            0 => &[(place, 12, true), (place + 0x100, len, true)],
            1 => &[(place, 5, true), (place + 5, 7, true), (place + 0x100, len, true)],
            _ => &[(place, len, true)],
        };
        for _ in 0..1 + input.u8() % 8 {
            self.add(bench, queue, pieces, input);
        }
    }

    /// A frame to be sent, with its header.
    fn send(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let queue = 1 + 2 * u16::from(input.u8() & 1);
        let shape = input.u8();
        let most = if shape & 7 == 0 { SEND_LEN - 0x100 } else { 3000 };
        let mut frame = any_frame(input, most);
        frame.bytes.truncate(SEND_LEN - 0x100);
        let mut header = vec![0; self.header_len()];
        header[..12].copy_from_slice(header_of(&frame.offload).as_bytes());
        if shape & 0x70 == 0 {
            let at = usize::from(input.u8()) % header.len();
            header[at] = input.u8();
        }
        // One piece, a header of its own, or cuts anywhere.
        header.extend_from_slice(&frame.bytes);
        if shape & 0x88 == 0x88 {
            header.truncate(usize::from(input.u8() % 32));
        }
        bench.poke(SEND, &header);
        let mut pieces = Vec::new();
        let mut at = 0;
        let mut cut = if shape & 8 == 0 { self.header_len() } else { input.u8().into() };
        for _ in 0..input.u8() % 6 {
            let len = cut.min(header.len() - at);
            pieces.push((SEND + at as u64, u32::try_from(len).expect("a frame"), false));
            at += len;
            cut = usize::from(input.u16() & 0x3ff);
        }
        let rest = u32::try_from(header.len() - at).expect("a frame");
        pieces.push((SEND + at as u64, rest, false));
        self.add(bench, queue, &pieces, input);
    }

    /// What belongs to a command.
    fn body(&mut self, (class, command): (u8, u8), input: &mut Input<'_>) -> Vec<u8> {
        let small = u16::from(input.u8());
        match (class, command) {
            (class::RX, _) => vec![input.u8() & 1],
            (class::MAC, mac::TABLE_SET) => {
                let mut body = Vec::new();
                for count in [small & 0x3f, small >> 6] {
                    body.extend_from_slice(&u32::from(count).to_le_bytes());
                    for _ in 0..count {
                        body.extend_from_slice(&input.bytes::<6>());
                    }
                }
                body
            }
            (class::MAC, _) => vec![2, 0, 0, 0, 0, input.u8() & 3],
            (class::VLAN, _) => (input.u16() & 0x1fff).to_le_bytes().to_vec(),
            (class::MQ, mq::VQ_PAIRS_SET) => (small % (PAIRS + 2)).to_le_bytes().to_vec(),
            (class::MQ, mq::RSS_CONFIG) => {
                let entries = 1u16 << (small & 7);
                let config = RssConfig {
                    hash_types: U32::new(input.u32() & hash_type::ALL),
                    indirection_table_mask: U16::new(entries - 1),
                    unclassified_queue: U16::new(small >> 3 & 1),
                };
                let mut body = config.as_bytes().to_vec();
                for _ in 0..entries {
                    body.extend_from_slice(&(u16::from(input.u8()) % (PAIRS + 1)).to_le_bytes());
                }
                body.extend_from_slice(&PAIRS.to_le_bytes());
                body.push(40);
                body.resize(body.len() + 40, 0x5a);
                body
            }
            (class::MQ, _) => {
                let key = 40;
                let config = HashConfig::new(input.u32() & hash_type::ALL, key);
                let mut body = config.as_bytes().to_vec();
                body.resize(body.len() + usize::from(key), 0x5a);
                body
            }
            (class::GUEST_OFFLOADS, _) => {
                let offloads = input.u64() & guest_offloads::ALL & self.features;
                offloads.to_le_bytes().to_vec()
            }
            (class::NOTF_COAL, command) => {
                let coal = Coalesce {
                    max_packets: u32::from(input.u8() & 15).into(),
                    max_usecs: u32::from(input.u8()).into(),
                };
                match command {
                    notf_coal::VQ_SET => CoalesceQueue::new(small & 7, coal).as_bytes().to_vec(),
                    notf_coal::VQ_GET => (small & 7).to_le_bytes().to_vec(),
                    _ => coal.as_bytes().to_vec(),
                }
            }
            _ => Vec::new(),
        }
    }

    fn command(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let choice = usize::from(input.u8() % 24);
        let shape = input.u8();
        let which = COMMANDS.get(choice).copied().unwrap_or_else(|| input.bytes::<2>().into());
        let mut command = ControlHeader::new(which.0, which.1).as_bytes().to_vec();
        command.append(&mut self.body(which, input));
        if shape & 0xc0 == 0 {
            let at = usize::from(input.u8()) % command.len();
            command[at] = input.u8();
        }
        match shape & 0x38 {
            0 => command.truncate(usize::from(input.u8())),
            8 => command.resize(command.len() + usize::from(input.u8()), 0),
            _ => {}
        }
        bench.poke(SMALL, &command);
        let len = u32::try_from(command.len()).expect("small");
        let cut = if shape & 1 == 0 { 2 } else { u32::from(input.u8()) }.min(len);
        let mut pieces = vec![(SMALL, cut, false), (SMALL + u64::from(cut), len - cut, false)];
        pieces.retain(|(_, len, _)| *len != 0);
        if which == (class::NOTF_COAL, notf_coal::VQ_GET) {
            pieces.push((SMALL + 0x1000, 8, true));
        }
        pieces.push((SMALL + 0x2000, 1, true));
        self.add(bench, self.control_queue(), &pieces, input);
    }
}

/// What a driver writes in front of a frame with these offloads.
pub fn header_of(offload: &Offload) -> Header {
    let mut header = Header::default();
    if let Some(partial) = offload.checksum {
        header.flags = header_flag::NEEDS_CSUM;
        header.csum_start = U16::new(partial.start);
        header.csum_offset = U16::new(partial.offset);
    }
    if let Some(how) = offload.segmentation {
        header.gso_type = match how.cut {
            Cut::Tcp4 => gso::TCPV4,
            Cut::Tcp6 => gso::TCPV6,
            Cut::UdpFragments => gso::UDP,
            Cut::UdpDatagrams => gso::UDP_L4,
        };
        if how.ecn {
            header.gso_type |= gso::ECN;
        }
        header.gso_size = U16::new(how.size);
        header.hdr_len = U16::new(how.header_len);
    }
    header
}

impl Script for VirtioNetScript {
    fn look(&mut self, bench: &mut Bench) {
        self.transport = Transport::find(bench);
    }

    fn bring_up(&mut self, bench: &mut Bench) {
        let transport = std::mem::take(&mut self.transport);
        self.features = transport.begin(bench, |offered| self.choose(offered));
        self.avail = Default::default();
        for queue in 0..2 * PAIRS + 1 {
            let base = QUEUE * (u64::from(queue) + 1);
            bench.poke(base + AVAIL, &[0; 0x200]);
            transport.queue(bench, queue, SIZE, [base, base + AVAIL, base + USED]);
        }
        transport.start(bench);
        self.transport = transport;
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        match input.u8() & 31 {
            0..2 => self.bring_up(bench),
            2..8 => self.supply(bench, input),
            8..16 => self.port.act(input),
            16..24 => self.send(bench, input),
            _ => self.command(bench, input),
        }
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        self.transport.register(input)
    }

    fn budget(&self) -> u64 {
        // 64 chains, each of at most 1024 descriptors that are read on their own and resolved one by
        // one; and the rings.
        64 * (2 * 1024 + 8)
    }
}
