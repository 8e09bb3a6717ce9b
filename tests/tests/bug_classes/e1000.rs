//! A driver of the e1000, on the bench.

use std::sync::Arc;

use paraslot_e1000::{Control, E1000, Options};
use paraslot_spec::e1000::{
    Cause, Context, Ctrl, MEMORY_BAR, Rctl, ReceiveDescriptor, Status, Tctl, TransmitDescriptor,
    receive, registers, transmit,
};
use paraslot_tests::bench::Bench;
use paraslot_tests::frames::Shape;
use paraslot_tests::port::{Fate, Port};
use zerocopy::{FromBytes, IntoBytes};

use crate::net::frame;

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 1 << 20;
/// The rings, and how many descriptors each has.
pub(crate) const SEND_RING: u64 = 0x1000;
pub(crate) const RECEIVE_RING: u64 = 0x2000;
pub(crate) const DESCRIPTORS: u32 = 64;
pub(crate) const RING_LEN: u64 = 16 * DESCRIPTORS as u64;
/// Packets to be sent: one place for each of as many as there are descriptors.
pub(crate) const PLACES: u64 = 0x4_0000;
pub(crate) const PLACE_LEN: u64 = 0x1000;
/// Receive buffers, of 2048 bytes unless RCTL says otherwise, one for each descriptor.
pub(crate) const BUFFERS: u64 = 0x8_0000;
pub(crate) const BUFFER_LEN: u64 = 0x1000;

/// What the rest of the command word is for a packet that is sent as it is.
pub(crate) const SEND: u32 = transmit::EOP | transmit::IFCS | transmit::RS;

/// A packet that was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// Without FCS.
    pub(crate) bytes: Vec<u8>,
    /// Its descriptors.
    pub(crate) descriptors: Vec<ReceiveDescriptor>,
}

/// A guest with both rings set up.
pub(crate) struct Ether {
    pub(crate) bench: Bench,
    pub(crate) port: Port,
    pub(crate) control: Control,
    /// The next descriptor to be filled, of those to be sent.
    pub(crate) tail: u32,
    /// The first of them that is not known to be done.
    pub(crate) clean: u32,
    /// The next descriptor to be looked at, of those to receive into.
    pub(crate) next: u32,
    place: u64,
}

impl Ether {
    pub(crate) fn new() -> Self {
        Self::on(Port::new(1))
    }

    /// With a port of one's own.
    pub(crate) fn on(port: Port) -> Self {
        let mut control = None;
        let bench = Bench::timed(MEMORY, |host, clock| {
            let options = Options { clock: Arc::new(clock), ..Options::default() };
            let device = E1000::new(Arc::new(port.clone()), options, host).expect("it can be");
            control = Some(device.control());
            device
        });
        let control = control.expect("a device was made");
        let mut this = Self { bench, port, control, tail: 0, clean: 0, next: 0, place: 0 };
        this.start();
        this
    }

    pub(crate) fn get(&mut self, register: u32) -> u32 {
        self.bench.read32(MEMORY_BAR, register.into())
    }

    pub(crate) fn set(&mut self, register: u32, value: u32) {
        self.bench.write32(MEMORY_BAR, register.into(), value);
    }

    pub(crate) fn run(&self) {
        assert!(self.bench.executor.run(1000), "the worker does not come to rest");
    }

    /// Resets the adapter and brings it up: all receive descriptors but one are the hardware's.
    pub(crate) fn start(&mut self) {
        self.bench.enable();
        self.set(registers::CTRL, Ctrl::RST.bits());
        self.run();
        self.set(registers::CTRL, (Ctrl::SLU | Ctrl::FD).bits());
        for _ in 0..8 {
            self.bench.clock.advance(self.bench.clock.next().unwrap_or_default());
            self.run();
        }
        assert_ne!(self.get(registers::STATUS) & Status::LU.bits(), 0, "no link");
        (self.tail, self.clean, self.next) = (0, 0, 0);
        for index in 0..DESCRIPTORS {
            self.renew(index);
        }
        let low = |address: u64| u32::try_from(address).expect("low");
        let len = low(RING_LEN);
        for (register, value) in [
            (registers::TDBAL, low(SEND_RING)),
            (registers::TDBAH, 0),
            (registers::TDLEN, len),
            (registers::TDH, 0),
            (registers::TDT, 0),
            (registers::RDBAL, low(RECEIVE_RING)),
            (registers::RDBAH, 0),
            (registers::RDLEN, len),
            (registers::RDH, 0),
            (registers::RDT, DESCRIPTORS - 1),
            (registers::IMS, (Cause::TXDW | Cause::RXT0 | Cause::RXO | Cause::RXDMT0).bits()),
            (registers::TCTL, (Tctl::EN | Tctl::PSP).bits()),
        ] {
            self.set(register, value);
        }
        self.receive_with(Rctl::empty().bits());
        self.run();
    }

    /// Receives everything, with these bits of RCTL too. The FCS is stripped.
    pub(crate) fn receive_with(&mut self, bits: u32) {
        let all = Rctl::EN | Rctl::UPE | Rctl::MPE | Rctl::BAM | Rctl::SECRC;
        self.set(registers::RCTL, all.bits() | bits);
    }

    /// Where receive descriptor `index` has its buffer.
    pub(crate) fn buffer(index: u32) -> u64 {
        BUFFERS + u64::from(index) * BUFFER_LEN
    }

    /// Makes a receive descriptor as new.
    pub(crate) fn renew(&self, index: u32) {
        self.put_receive(index, Self::buffer(index));
    }

    pub(crate) fn put_receive(&self, index: u32, address: u64) {
        let descriptor = ReceiveDescriptor { address: address.into(), ..Default::default() };
        self.bench.poke(RECEIVE_RING + 16 * u64::from(index), descriptor.as_bytes());
    }

    /// Puts a descriptor at the tail, of which the adapter does not hear yet.
    pub(crate) fn put(&mut self, descriptor: TransmitDescriptor) -> u32 {
        let index = self.tail;
        self.bench.poke(SEND_RING + 16 * u64::from(index), descriptor.as_bytes());
        self.tail = (index + 1) % DESCRIPTORS;
        index
    }

    /// Tells the adapter of what was put.
    pub(crate) fn kick(&mut self) {
        self.set(registers::TDT, self.tail);
    }

    /// The next place for a packet.
    pub(crate) fn place(&mut self) -> u64 {
        self.place += 1;
        PLACES + self.place % u64::from(DESCRIPTORS) * PLACE_LEN
    }

    /// Puts a packet into memory and its descriptor at the tail.
    pub(crate) fn send(&mut self, packet: &[u8]) -> u32 {
        let place = self.place();
        self.bench.poke(place, packet);
        let len = u16::try_from(packet.len()).expect("a packet");
        self.put(TransmitDescriptor::legacy(place, len, SEND))
    }

    /// What a transmit descriptor's status byte is.
    pub(crate) fn status(&self, index: u32) -> u8 {
        let mut status = [0];
        self.bench.peek(SEND_RING + 16 * u64::from(index) + 12, &mut status);
        status[0]
    }

    /// The next packet that was received, if there is one; its descriptors are given back.
    pub(crate) fn arrived(&mut self) -> Option<Arrived> {
        let mut arrived = Arrived::default();
        let first = self.next;
        loop {
            let mut bytes = [0; 16];
            self.bench.peek(RECEIVE_RING + 16 * u64::from(self.next), &mut bytes);
            let descriptor = ReceiveDescriptor::read_from_bytes(&bytes).expect("its size");
            if descriptor.status & receive::DD == 0 {
                assert_eq!(first, self.next, "a packet without an end");
                return None;
            }
            let mut part = vec![0; descriptor.length.get().into()];
            self.bench.peek(descriptor.address.get(), &mut part);
            arrived.bytes.append(&mut part);
            arrived.descriptors.push(descriptor);
            self.next = (self.next + 1) % DESCRIPTORS;
            if descriptor.status & receive::EOP != 0 {
                break;
            }
        }
        let mut index = first;
        while index != self.next {
            self.renew(index);
            index = (index + 1) % DESCRIPTORS;
        }
        // The hardware's end just before the next.
        let tail = (self.next + DESCRIPTORS - 1) % DESCRIPTORS;
        self.set(registers::RDT, tail);
        Some(arrived)
    }

    /// The context that a packet of this shape is sent with.
    pub(crate) fn context(shape: &Shape, mss: u16) -> Context {
        let small = |value: usize| u8::try_from(value).expect("small");
        let transport = shape.transport();
        Context {
            ipcss: small(shape.network()),
            ipcso: small(shape.network() + 10),
            ipcse: u16::try_from(transport - 1).expect("small"),
            tucss: small(transport),
            tucso: small(transport + usize::from(shape.checksum_offset())),
            tucse: 0,
            paylen: u32::try_from(shape.payload).expect("a packet"),
            hdrlen: small(shape.headers()),
            mss,
        }
    }

    /// The adapter works: a packet goes out, and one comes in.
    pub(crate) fn works(&mut self) {
        self.port.set_fate(Fate::Through);
        self.run();
        self.clean = self.tail;
        while self.arrived().is_some() {}
        self.port.record(true);
        self.port.take_sent();
        let out = frame(200);
        let index = self.send(&out);
        self.kick();
        self.run();
        assert_eq!(self.status(index), transmit::DD, "nothing is sent");
        self.clean = self.tail;
        let sent = self.port.take_sent();
        assert!(sent.len() == 1 && sent[0].bytes == out, "something else is sent");
        let frame = frame(300);
        self.port.deliver(&frame);
        self.run();
        let arrived = self.arrived().expect("nothing is received");
        assert!(arrived.bytes == frame, "something else is received");
    }
}
