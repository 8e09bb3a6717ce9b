#![expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
//! Tests that drive the adapter as a driver does: through configuration space, its BARs and guest
//! memory.

mod checksum;
mod cost;
mod driver;
mod eeprom;
mod filters;
mod hostile;
mod interrupts;
mod link;
mod loopback;
mod midway;
mod random;
mod receiving;
mod registers;
mod reset;
mod saving;
mod sending;
mod threads;
mod tso;
mod vlan;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use paraslot_backends::net::testing::{HostPort, Packet, ScriptedNet, Sent};
use paraslot_backends::net::{NetBackend, NetStatistics, Offload};
use paraslot_device::interrupt::NoInterrupts;
use paraslot_device::{Executor, Host, IntxLine, ManualClock, ManualExecutor};
use paraslot_pci::PciDevice;
use paraslot_spec::e1000::registers::*;
use paraslot_spec::e1000::{
    Cause, Context, Ctrl, IO_BAR, MEMORY_BAR, Mdic, Rctl, ReceiveDescriptor, Status, Tctl,
    TransmitDescriptor, receive, transmit,
};
use paraslot_spec::pci;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use crate::{Control, E1000, Options};

const MEMORY: usize = 4 << 20;
const TX_RING: u64 = 0x1_0000;
const RX_RING: u64 = 0x2_0000;
/// Descriptors of each ring at first.
const RING: u32 = 16;
const TX_DATA: u64 = 0x10_0000;
const RX_DATA: u64 = 0x20_0000;
/// Each receive buffer has so much room to itself, though less is used.
const RX_STRIDE: u64 = 0x5000;
const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

/// The INTx line.
#[derive(Default)]
struct Line {
    level: AtomicBool,
    rises: AtomicUsize,
}

impl IntxLine for Line {
    fn set_level(&self, asserted: bool) {
        self.level.store(asserted, Ordering::SeqCst);
        self.rises.fetch_add(usize::from(asserted), Ordering::SeqCst);
    }
}

type Space = Arc<GuestMemoryMmap>;

/// A guest with an adapter.
struct Machine {
    nic: E1000<Space>,
    memory: Space,
    executor: ManualExecutor,
    host: HostPort,
    clock: ManualClock,
    line: Arc<Line>,
    control: Control,
    /// The tails.
    tdt: u32,
    rdt: u32,
    /// The next descriptor to be looked at.
    cleaned: u32,
}

fn build(
    backend: impl NetBackend + 'static,
    options: Options,
    executor: Arc<dyn Executor>,
) -> (E1000<Space>, Space, Arc<Line>) {
    let memory =
        Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
    let (nic, line) = plug(backend, options, executor, memory.clone());
    (nic, memory, line)
}

/// Puts an adapter into a machine that has memory.
fn plug(
    backend: impl NetBackend + 'static,
    options: Options,
    executor: Arc<dyn Executor>,
    memory: Space,
) -> (E1000<Space>, Arc<Line>) {
    let line = Arc::new(Line::default());
    let host = Host { memory, msi: Arc::new(NoInterrupts), intx: line.clone(), executor };
    (E1000::new(Arc::new(backend), options, host).unwrap(), line)
}

impl Machine {
    /// A machine that was just switched on.
    fn off() -> Self {
        let (backend, host) = ScriptedNet::new(1);
        Self::with(backend, host)
    }

    fn with(backend: impl NetBackend + 'static, host: HostPort) -> Self {
        let executor = ManualExecutor::new();
        let clock = ManualClock::new();
        let options = Options { clock: Arc::new(clock.clone()), ..Options::new(MAC) };
        let (nic, memory, line) = build(backend, options, Arc::new(executor.clone()));
        let control = nic.control();
        let mut machine =
            Self { nic, memory, executor, host, clock, line, control, tdt: 0, rdt: 0, cleaned: 0 };
        machine.enable();
        machine
    }

    /// A machine whose driver is ready to send and receive, with buffers of 2048 bytes.
    fn new() -> Self {
        let mut machine = Self::off();
        machine.start();
        machine
    }

    fn enable(&mut self) {
        self.command(pci::Command::MEMORY | pci::Command::IO | pci::Command::BUS_MASTER);
    }

    fn command(&mut self, command: pci::Command) {
        self.nic.config_write(pci::header::COMMAND, &command.bits().to_le_bytes());
    }

    fn start(&mut self) {
        self.write(CTRL, (Ctrl::FD | Ctrl::SLU | Ctrl::ASDE).bits());
        self.transmit_ring(TX_RING, RING);
        self.write(TCTL, (Tctl::EN | Tctl::PSP).bits());
        self.receive_ring(RX_RING, RING);
        self.write(RCTL, (Rctl::EN | Rctl::BAM | Rctl::SECRC).bits());
        self.give(RING - 1);
        self.run();
        self.write(IMC, u32::MAX);
        self.read(ICR);
    }

    fn transmit_ring(&mut self, base: u64, len: u32) {
        self.write(TDBAL, base as u32);
        self.write(TDBAH, (base >> 32) as u32);
        self.write(TDLEN, len * 16);
        self.write(TDH, 0);
        self.write(TDT, 0);
        (self.tdt, self.cleaned) = (0, 0);
    }

    fn receive_ring(&mut self, base: u64, len: u32) {
        self.write(RDBAL, base as u32);
        self.write(RDBAH, (base >> 32) as u32);
        self.write(RDLEN, len * 16);
        self.write(RDH, 0);
        self.write(RDT, 0);
        self.rdt = 0;
        for index in 0..len {
            self.receive_descriptor(index, rx_data(index));
        }
    }

    fn receive_descriptor(&self, index: u32, address: u64) {
        let descriptor = ReceiveDescriptor { address: address.into(), ..Default::default() };
        self.fill(RX_RING + u64::from(index) * 16, descriptor.as_bytes());
    }

    /// Gives the adapter `count` more receive descriptors.
    fn give(&mut self, count: u32) {
        self.rdt = (self.rdt + count) % (self.read(RDLEN) / 16).max(1);
        self.write(RDT, self.rdt);
    }

    fn read(&mut self, offset: u32) -> u32 {
        let mut data = [0; 4];
        self.nic.bar_read(MEMORY_BAR, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.nic.bar_write(MEMORY_BAR, offset.into(), &value.to_le_bytes());
    }

    fn causes(&mut self) -> Cause {
        Cause::from_bits_retain(self.read(ICR))
    }

    fn level(&self) -> bool {
        self.line.level.load(Ordering::SeqCst)
    }

    fn rises(&self) -> usize {
        self.line.rises.load(Ordering::SeqCst)
    }

    fn run(&self) {
        assert!(self.executor.run(3000), "the worker does not come to rest");
    }

    fn advance(&self, nanoseconds: u64) {
        self.clock.advance(Duration::from_nanos(nanoseconds));
        self.run();
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn fill(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// Writes descriptors at the tail, without telling.
    fn put(&mut self, descriptors: &[TransmitDescriptor]) {
        let len = self.read(TDLEN) / 16;
        let base = u64::from(self.read(TDBAL));
        for descriptor in descriptors {
            self.fill(base + u64::from(self.tdt) * 16, descriptor.as_bytes());
            self.tdt = (self.tdt + 1) % len;
        }
    }

    /// Transmits descriptors, and runs until the adapter rests.
    fn transmit(&mut self, descriptors: &[TransmitDescriptor]) {
        self.put(descriptors);
        self.write(TDT, self.tdt);
        self.run();
    }

    /// The status byte of transmit descriptor `index`.
    fn status(&self, index: u32) -> u8 {
        self.bytes(TX_RING + u64::from(index) * 16 + 12, 1)[0]
    }

    fn sent(&self) -> Vec<Sent> {
        self.host.take_sent(0)
    }

    /// The one frame that was sent, which has nothing left to be done.
    fn one_sent(&self) -> Vec<u8> {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        let Sent { bytes, offload } = sent.remove(0);
        assert_eq!(offload, Offload::default());
        bytes
    }

    /// A frame arrives, and the adapter runs until it rests.
    fn arrive(&self, frame: &[u8]) {
        self.host.push(0, frame);
        self.run();
    }

    fn received(&self, index: u32) -> ReceiveDescriptor {
        let bytes = self.bytes(RX_RING + u64::from(index) * 16, 16);
        ReceiveDescriptor::read_from_bytes(&bytes).unwrap()
    }

    /// Whether descriptor `index` is done.
    fn done(&self, index: u32) -> bool {
        self.received(index).status & receive::DD != 0
    }

    /// The next frame that the guest was given, and its last descriptor. The descriptors are given
    /// back.
    fn clean(&mut self) -> Option<(Vec<u8>, ReceiveDescriptor)> {
        let mut frame = Vec::new();
        while self.done(self.cleaned) {
            let index = self.cleaned;
            let descriptor = self.received(index);
            frame.extend(self.bytes(descriptor.address.get(), descriptor.length.get().into()));
            self.receive_descriptor(index, descriptor.address.get());
            self.cleaned = (index + 1) % (self.read(RDLEN) / 16);
            self.give(1);
            if descriptor.status & receive::EOP != 0 {
                return Some((frame, descriptor));
            }
        }
        assert!(frame.is_empty(), "a frame without an end");
        None
    }

    fn statistics(&self) -> NetStatistics {
        self.control.statistics()
    }

    fn config(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.nic.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// Reads a register of the PHY.
    fn phy(&mut self, register: u8) -> u16 {
        let command = Mdic::READ.bits() | u32::from(register) << 16 | 1 << 21;
        self.write(MDIC, command);
        let value = self.read(MDIC);
        assert_eq!(value & !0xffff, command | Mdic::READY.bits());
        value as u16
    }

    fn set_phy(&mut self, register: u8, value: u16) {
        let command = Mdic::WRITE.bits() | u32::from(register) << 16 | 1 << 21 | u32::from(value);
        self.write(MDIC, command);
        assert_eq!(self.read(MDIC), command | Mdic::READY.bits());
    }
}

fn rx_data(index: u32) -> u64 {
    RX_DATA + u64::from(index) * RX_STRIDE
}

/// A frame for `destination` whose bytes tell their places.
fn frame_to(destination: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at * 7 + at / 256) as u8).collect();
    frame[..6].copy_from_slice(&destination);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// A frame for us.
fn frame(len: usize) -> Vec<u8> {
    frame_to(MAC, len)
}

/// A packet for us.
fn for_us(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&MAC);
    frame
}

/// The flags of the only descriptor of a packet.
const ALONE: u32 = transmit::EOP | transmit::IFCS | transmit::RS;
