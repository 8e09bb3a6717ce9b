//! e1000: registers, and rings of descriptors of all kinds.

use paraslot_spec::e1000::{
    Cause, Context, Ctrl, MEMORY_BAR, Rctl, ReceiveDescriptor, Tctl, TransmitDescriptor, registers,
    transmit,
};
use zerocopy::IntoBytes;

use crate::bench::Bench;
use crate::frames::{Shape, any_frame};
use crate::fuzz::{Backing, Input, Script};
use crate::port::Port;

const SEND_RING: u64 = 0x1000;
const RECEIVE_RING: u64 = 0x2000;
/// Descriptors of each ring.
const DESCRIPTORS: u16 = 16;
const SEND: u64 = 0x4000;
const SEND_LEN: usize = 0x1_4000;
const RECEIVE: u64 = 0x1_8000;
const BUFFER: u64 = 0x1000;

/// Registers that decide where rings are and how far they are filled.
const RINGS: [u32; 14] = [
    registers::TDBAL,
    registers::TDBAH,
    registers::TDLEN,
    registers::TDH,
    registers::TDT,
    registers::RDBAL,
    registers::RDBAH,
    registers::RDLEN,
    registers::RDH,
    registers::RDT,
    registers::TCTL,
    registers::RCTL,
    registers::TXDCTL,
    registers::RXDCTL,
];

/// Registers that decide anything else.
const OTHERS: [u32; 32] = [
    registers::CTRL,
    registers::STATUS,
    registers::EECD,
    registers::EERD,
    registers::CTRL_EXT,
    registers::MDIC,
    registers::VET,
    registers::ICR,
    registers::ITR,
    registers::ICS,
    registers::IMS,
    registers::IMC,
    registers::RDTR,
    registers::RADV,
    registers::RSRPD,
    registers::TIDV,
    registers::TADV,
    registers::TSPMT,
    registers::RXCSUM,
    registers::MTA,
    registers::RAL,
    registers::RAH,
    registers::VFTA,
    registers::WUC,
    registers::WUFC,
    registers::MANC,
    registers::PBA,
    registers::FCRTL,
    registers::AIT,
    registers::LEDCTL,
    registers::TIPG,
    registers::PBM,
];

/// Drives an e1000, wrongly.
pub struct E1000Script {
    port: Port,
    tail: u16,
}

impl E1000Script {
    /// A script for an adapter in front of `port`.
    pub fn new(port: Port) -> Self {
        Self { port, tail: 0 }
    }

    fn set(bench: &mut Bench, register: u32, value: u32) {
        bench.write32(MEMORY_BAR, register.into(), value);
    }

    /// Puts a descriptor at the tail.
    fn put(&mut self, bench: &mut Bench, descriptor: &TransmitDescriptor) {
        let place = SEND_RING + 16 * u64::from(self.tail % DESCRIPTORS);
        bench.poke(place, descriptor.as_bytes());
        self.tail = (self.tail + 1) % DESCRIPTORS;
    }

    /// The context that a frame of this shape is sent with.
    fn context(shape: &Shape, mss: u16) -> Context {
        let small = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
        let transport = shape.transport();
        Context {
            ipcss: small(shape.network()),
            ipcso: small(shape.network() + 10),
            ipcse: u16::from(small(transport)).wrapping_sub(1),
            tucss: small(transport),
            tucso: small(transport + usize::from(shape.checksum_offset())),
            tucse: 0,
            paylen: u32::try_from(shape.payload).expect("a frame"),
            hdrlen: small(shape.headers()),
            mss,
        }
    }

    /// A packet of any kind, cut into buffers anywhere.
    fn send(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let kind = input.u8();
        let flags = u32::from(input.u8()) << 24;
        let most = if kind & 0x70 == 0 { SEND_LEN - 0x200 } else { 3000 };
        let (mut bytes, mut context) = if kind & 1 == 0 {
            (any_frame(input, most).bytes, Context::default())
        } else {
            let shape = Shape::any(input, most);
            let mss = [input.u16() & 0x3ff, input.u16()][usize::from(kind >> 7)];
            (shape.frame(true), Self::context(&shape, mss))
        };
        bytes.truncate(SEND_LEN);
        bench.poke(SEND, &bytes);
        if kind & 2 != 0 {
            // One in two contexts has a field that is anything.
            let value = input.u16();
            let [low, _] = value.to_le_bytes();
            match input.u8() & 15 {
                0 => context.ipcss = low,
                1 => context.ipcso = low,
                2 => context.ipcse = value,
                3 => context.tucss = low,
                4 => context.tucso = low,
                5 => context.tucse = value,
                6 => context.paylen = input.u32(),
                7 => context.hdrlen = low,
                8 => context.mss = value,
                _ => {}
            }
            let how = match input.u8() & 7 {
                0 => u32::from(input.u8()) << 24,
                how => {
                    let tcp = if how & 1 != 0 { transmit::TCP } else { 0 };
                    let ip = if how & 2 != 0 { transmit::IP } else { 0 };
                    tcp | ip | transmit::TSE
                }
            };
            self.put(bench, &TransmitDescriptor::context(&context, how));
        }
        let kept = flags & (transmit::RS | transmit::VLE | transmit::IDE | transmit::IFCS);
        let pieces = 1 + usize::from(input.u8() % 5);
        let mut at = 0;
        for piece in 0..pieces {
            let last = piece + 1 == pieces;
            let left = bytes.len() - at;
            let len = if last { left } else { usize::from(input.u16() & 0xfff).min(left) };
            let mut address = SEND + at as u64;
            let mut command = kept | if last { transmit::EOP } else { 0 };
            match input.u8() {
                0..8 => address = input.interesting(),
                8..16 => command ^= transmit::EOP,
                _ => {}
            }
            let legacy = kind & 0xc == 0 || input.u8() == 0;
            let descriptor = if legacy {
                let mut legacy = TransmitDescriptor::legacy(
                    address,
                    u16::try_from(len).unwrap_or(u16::MAX),
                    command | if kind & 0x10 != 0 { transmit::IC } else { 0 },
                );
                if kind & 0x20 != 0 {
                    // CSO, and CSS with the VLAN tag.
                    let cso = u32::from(input.u8()) << transmit::CSO_SHIFT;
                    legacy.command = (legacy.command.get() | cso).into();
                    legacy.status = (u32::from(input.u16()) << 8).into();
                }
                legacy
            } else {
                let segment = if kind & 0xc == 4 { 0 } else { transmit::TSE };
                let len = u32::try_from(len).expect("a frame");
                TransmitDescriptor::data(address, len, command | segment, input.u8() & 7)
            };
            self.put(bench, &descriptor);
            at += len;
        }
        if input.u8() == 0 {
            self.tail = input.u16() & 31;
        }
        Self::set(bench, registers::TDT, self.tail.into());
    }

    /// Gives receive buffers.
    fn supply(bench: &mut Bench, input: &mut Input<'_>) {
        for index in 0..u64::from(DESCRIPTORS) {
            let address = match input.u8() {
                0..8 => input.interesting(),
                8..16 => 0,
                _ => RECEIVE + BUFFER * (index % 8),
            };
            let descriptor = ReceiveDescriptor { address: address.into(), ..Default::default() };
            bench.poke(RECEIVE_RING + 16 * index, descriptor.as_bytes());
        }
        Self::set(bench, registers::RDT, u32::from(input.u8() % 17));
    }
}

impl Script for E1000Script {
    fn bring_up(&mut self, bench: &mut Bench) {
        bench.enable();
        Self::set(bench, registers::CTRL, (Ctrl::RST | Ctrl::SLU).bits());
        bench.executor.run(100);
        // The link comes up after a while.
        Self::set(bench, registers::CTRL, (Ctrl::SLU | Ctrl::FD).bits());
        for _ in 0..4 {
            bench.clock.advance(bench.clock.next().unwrap_or_default());
            bench.executor.run(100);
        }
        self.tail = 0;
        for index in 0..u64::from(DESCRIPTORS) {
            let address = (RECEIVE + BUFFER * (index % 8)).into();
            let descriptor = ReceiveDescriptor { address, ..Default::default() };
            bench.poke(RECEIVE_RING + 16 * index, descriptor.as_bytes());
        }
        let low = |address: u64| u32::try_from(address).expect("low");
        for (register, value) in [
            (registers::TDBAL, low(SEND_RING)),
            (registers::TDBAH, 0),
            (registers::TDLEN, 16 * u32::from(DESCRIPTORS)),
            (registers::TDH, 0),
            (registers::TDT, 0),
            (registers::RDBAL, low(RECEIVE_RING)),
            (registers::RDBAH, 0),
            (registers::RDLEN, 16 * u32::from(DESCRIPTORS)),
            (registers::RDH, 0),
            (registers::RDT, u32::from(DESCRIPTORS) - 1),
            (registers::IMS, Cause::all().bits()),
            (registers::TCTL, (Tctl::EN | Tctl::PSP).bits()),
            (registers::RCTL, (Rctl::EN | Rctl::UPE | Rctl::MPE | Rctl::BAM).bits()),
        ] {
            Self::set(bench, register, value);
        }
        bench.executor.run(100);
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        match input.u8() & 31 {
            0 => self.bring_up(bench),
            1..4 => Self::supply(bench, input),
            4..12 => self.port.act(input),
            12..16 => {
                // A register of a ring, with a value that it may have.
                let register = RINGS[usize::from(input.u8()) % RINGS.len()];
                let value = match register {
                    registers::TDLEN | registers::RDLEN => u32::from(input.u8()) << 7,
                    registers::TDBAL | registers::RDBAL => u32::from(input.u16()) << 4,
                    registers::TCTL | registers::RCTL => input.u32() | 2,
                    _ => u32::from(input.u8()),
                };
                Self::set(bench, register, value);
            }
            16..20 => {
                let register = OTHERS[usize::from(input.u8()) % OTHERS.len()];
                Self::set(bench, register, input.u32());
            }
            20..22 => {
                let register = OTHERS[usize::from(input.u8()) % OTHERS.len()];
                bench.read32(MEMORY_BAR, register.into());
            }
            _ => self.send(bench, input),
        }
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        let choice = usize::from(input.u8());
        let register = match choice & 3 {
            0 => RINGS[choice / 4 % RINGS.len()],
            1 | 2 => OTHERS[choice / 4 % OTHERS.len()] + u32::from(input.u8() & 0x7c),
            _ => u32::from(input.u16()) & 0xffff,
        };
        (MEMORY_BAR, register.into())
    }

    fn budget(&self) -> u64 {
        // 64 descriptors to be sent, each with its status; a packet of at most 256 pieces that were
        // there before, looked at up to three times; and 512 descriptors to receive into, each with its
        // data and its status.
        4096
    }
}
