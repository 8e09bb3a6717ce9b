//! virtio-blk behind the PCI transport.

use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Descriptor};
use paraslot_spec::virtio_blk::RequestHeader;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::virtio::Transport;
use crate::bench::Bench;
use crate::fuzz::{Input, Script};

const QUEUE_SIZE: u16 = 16;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
const INDIRECT: u64 = 0x4000;
const HEADERS: u64 = 0x5000;
const DATA: u64 = 0x8000;

/// Drives one queue of a virtio-blk device, wrongly.
#[derive(Default)]
pub struct VirtioBlkScript {
    transport: Transport,
    avail_idx: u16,
    registers: bool,
}

impl VirtioBlkScript {
    /// A script that would rather write registers than make requests.
    pub fn registers() -> Self {
        Self { registers: true, ..Self::default() }
    }
}

impl Script for VirtioBlkScript {
    fn look(&mut self, bench: &mut Bench) {
        self.transport = Transport::find(bench);
    }

    fn bring_up(&mut self, bench: &mut Bench) {
        self.avail_idx = 0;
        self.transport.begin(bench, |offered| offered);
        bench.poke(AVAIL, &[0; 64]);
        self.transport.queue(bench, 0, QUEUE_SIZE, [DESCRIPTORS, AVAIL, USED]);
        self.transport.start(bench);
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        if self.registers && input.u8() & 3 != 0 {
            let (bar, offset) = self.register(input);
            let value: [u8; 4] = input.bytes();
            bench.device.bar_write(bar, offset & !1, &value[..2 + usize::from(value[0] & 2)]);
            return;
        }
        let shape = input.u8();
        let kind = u32::from(input.u8() % 16);
        let sector = if shape & 1 == 0 { u64::from(input.u8()) } else { input.u64() };
        let slot = u64::from(input.u8() % 8);
        let request = HEADERS + slot * 0x40;
        bench.poke(request, RequestHeader::new(kind, sector).as_bytes());
        let count = u16::from(input.u8() % 6) + 2;
        let table = if shape & 2 == 0 { DESCRIPTORS } else { INDIRECT };
        for index in 0..count {
            let last = index + 1 == count;
            let writes = last || (kind != 1 && kind < 11);
            let mut descriptor = Descriptor {
                addr: U64::new(DATA + u64::from(index) * 0x1000),
                len: U32::new(512 * (1 + u32::from(input.u8() % 8))),
                flags: U16::new(
                    if last { 0 } else { DESC_F_NEXT } | if writes { DESC_F_WRITE } else { 0 },
                ),
                next: U16::new(index + 1),
            };
            if index == 0 {
                descriptor.addr = U64::new(request);
                descriptor.len = U32::new(16);
                descriptor.flags = U16::new(DESC_F_NEXT);
            } else if last {
                descriptor.len = U32::new(1);
            }
            // One field in eight descriptors or so is anything.
            match input.u8() {
                0..8 => descriptor.addr = U64::new(input.interesting()),
                8..16 => descriptor.len = U32::new(input.u32()),
                16..24 => descriptor.flags = U16::new(input.u16()),
                24..32 => descriptor.next = U16::new(input.u16()),
                _ => {}
            }
            bench.poke(table + 16 * u64::from(index), descriptor.as_bytes());
        }
        if table == INDIRECT {
            let head = Descriptor {
                addr: U64::new(INDIRECT),
                len: U32::new(16 * u32::from(count)),
                flags: U16::new(DESC_F_INDIRECT),
                next: U16::new(0),
            };
            bench.poke(DESCRIPTORS, head.as_bytes());
        }
        let ring = AVAIL + 4 + 2 * u64::from(self.avail_idx % QUEUE_SIZE);
        let head = if shape & 4 == 0 { 0 } else { u16::from(input.u8()) };
        bench.poke(ring, &head.to_le_bytes());
        let step = if shape & 0x78 == 0 { input.u16() } else { 1 };
        self.avail_idx = self.avail_idx.wrapping_add(step);
        bench.poke(AVAIL + 2, &self.avail_idx.to_le_bytes());
        self.transport.notify(bench, 0);
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        self.transport.register(input)
    }

    fn budget(&self) -> u64 {
        // A queue's worth of chains, each of at most a queue's worth of descriptors (or a maximal
        // indirect table), each resolved once; and the rings.
        64 * 1024
    }
}
