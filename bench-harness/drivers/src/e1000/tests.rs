extern crate std;

mod interrupts;
mod lies;
mod model;
mod receiving;
mod sending;

use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use paraslot_protocol::traffic::{self, Flow};
use paraslot_spec::e1000::{
    Cause, Context, DEVICE_82540EM, MEMORY_BAR_SIZE, Rctl, Status, Tctl, TransmitDescriptor, phy,
    receive, registers, rxcsum, transmit,
};
use paraslot_spec::pci::{Command, VENDOR_INTEL};

use super::{E1000, Options, RING, Throttle};
use crate::testing::Fake;
use crate::{Accesses, DmaRegion, Error, Known, Nic, Offers, Platform, Task};
use model::Access::{Read, Write};
use model::{BAR, Fault, MAC, Model};

const SLOT: u8 = 3;
const UP: u32 = Status::LU.union(Status::FD).union(Status::SPEED_1000).bits();
const FLOW: Flow = Flow { source: MAC, destination: [2, 0, 0, 0, 0, 9] };

fn machine(fault: Fault) -> (Fake, Rc<Model>) {
    let fake = Fake::new();
    fake.add(SLOT, 0, 0);
    fake.bar(SLOT, 0, MEMORY_BAR_SIZE, false, BAR);
    {
        let mut functions = fake.functions.borrow_mut();
        let id = u32::from(DEVICE_82540EM) << 16 | u32::from(VENDOR_INTEL);
        functions.get_mut(&(SLOT, 0)).unwrap().words[0] = id;
    }
    let model = Rc::new(Model::default());
    model.fault.set(fault);
    model.status.set(if fault == Fault::NoLink { 0 } else { UP });
    fake.attach(BAR, MEMORY_BAR_SIZE, model.clone());
    (fake, model)
}

fn adapter<'f>(fake: &'f Fake, options: Options) -> E1000<'f, Fake> {
    E1000::new(fake, options).unwrap()
}

fn command(fake: &Fake) -> Command {
    let functions = fake.functions.borrow();
    let [low, high, ..] = functions[&(SLOT, 0)].words[1].to_le_bytes();
    Command::from_bits_retain(u16::from_le_bytes([low, high]))
}

/// Memory for a frame, with its bytes.
fn frame(fake: &Fake, bytes: &[u8]) -> DmaRegion {
    let region = fake.allocate(bytes.len()).unwrap();
    region.write_bytes(0, bytes);
    region
}

/// A frame of the traffic's kind, and its bytes.
fn traffic_frame(fake: &Fake, size: usize) -> (DmaRegion, Vec<u8>) {
    let wire_size = u32::try_from(size).unwrap();
    let mut bytes: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let len = traffic::header_len(wire_size);
    bytes[..len].copy_from_slice(&FLOW.headers(wire_size)[..len]);
    (frame(fake, &bytes), bytes)
}

fn reclaimed(nic: &mut E1000<'_, Fake>) -> Vec<u16> {
    let mut tags = vec![];
    nic.reclaim(|tag| tags.push(tag)).unwrap();
    tags
}

/// Everything that has arrived.
fn received(nic: &mut E1000<'_, Fake>, limit: u16) -> Vec<(Vec<u8>, Known)> {
    let mut frames = vec![];
    let count = nic.receive(limit, |arrival| {
        let mut bytes = vec![0; arrival.len];
        assert!(arrival.pieces.len() == 1 && arrival.pieces[0].len() == arrival.len);
        arrival.pieces[0].read_bytes(0, &mut bytes);
        frames.push((bytes, arrival.checksum));
    });
    assert_eq!(usize::from(count.unwrap()), frames.len());
    frames
}

#[test]
fn everything_is_set_up() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    assert_eq!((nic.address(), nic.link_up(), nic.depth()), (MAC, true, 254));
    assert_eq!(model.resets.get(), 1);
    assert_eq!(command(&fake), Command::MEMORY | Command::BUS_MASTER | Command::INTX_DISABLE);

    let tctl = (Tctl::EN | Tctl::PSP | Tctl::RTLC).bits() | 0xf0 | 0x3f000;
    for (register, value) in [
        (registers::RAL, 0x3322_1102),
        (registers::RAH, 0x8000_5544),
        (registers::ral(1), 0),
        (registers::rah(15), 0),
        (registers::MTA + 4, 0),
        (registers::IMS, 0),
        (registers::TIPG, 0x60_2008),
        (registers::TIDV, 8),
        (registers::TADV, 32),
        (registers::TXDCTL, 0x0101_0000),
        (registers::TCTL, tctl),
        (registers::TDLEN, 4096),
        (registers::TDT, 0),
        (registers::RDTR, 0),
        (registers::RADV, 8),
        (registers::ITR, 195),
        (registers::RDLEN, 4096),
        (registers::RDT, 254),
        (registers::RXCSUM, rxcsum::TUOFL),
        (registers::RCTL, (Rctl::EN | Rctl::BAM).bits()),
    ] {
        assert_eq!(model.get(register), value, "{register:#x}");
    }
    // Every entry of the tables was written, not just left alone.
    let trace = model.take_trace();
    let written =
        |register| trace.iter().any(|access| matches!(*access, Write(at, _) if at == register));
    assert!((0..128).all(|word| written(registers::MTA + 4 * word)));
    assert!((1..16).all(|entry| written(registers::ral(entry)) && written(registers::rah(entry))));

    let phy = model.phy.borrow();
    let phy = |register: u8| phy[usize::from(register)];
    assert_eq!(phy(phy::register::ADVERTISEMENT), 0x01e0);
    assert_eq!(phy(phy::register::GIGABIT_CONTROL), phy::gigabit_control::FULL);
    assert_eq!(phy(phy::register::EXTENDED_CONTROL), 0x0170);
    assert_eq!(phy(phy::register::SPECIFIC_CONTROL), 0x0860);
    let restarted = phy::Control::AUTONEGOTIATION | phy::Control::RESTART;
    let control = phy::Control::from_bits_retain(phy(phy::register::CONTROL));
    assert!(control.contains(restarted), "{control:?}");
}

#[test]
fn options_say_what_is_used() {
    let (fake, model) = machine(Fault::None);
    let options = Options {
        checksum: false,
        segmentation: false,
        throttle: Throttle::Fixed(8000),
        strip_fcs: true,
        ..Options::default()
    };
    let mut nic = adapter(&fake, options);
    assert_eq!(nic.offers(), Offers::default());
    assert_eq!(model.get(registers::ITR), 488);
    assert_eq!(model.get(registers::RXCSUM), 0);
    assert_eq!(model.get(registers::RCTL), (Rctl::EN | Rctl::BAM | Rctl::SECRC).bits());
    let (region, _) = traffic_frame(&fake, 64);
    for task in [Task::Checksum { start: 34, offset: 6 }, Task::Segment { size: 10 }] {
        let refused = Err(Error::Request("the task was not offered"));
        assert_eq!(nic.transmit(0, &region, 64, task), refused);
    }
    // The frame check sequence is not there, and checksums are not looked at.
    let status = receive::DD | receive::EOP | receive::TCPCS;
    assert!(model.deliver(&fake, &[7; 60], status, 0));
    assert_eq!(received(&mut nic, 9), [(vec![7; 60], Known::Nothing)]);
    let off = Options { throttle: Throttle::Off, ..Options::default() };
    let nic = adapter(&fake, off);
    assert_eq!(nic.offers(), Offers { checksum: true, segmentation: true, large_receive: false });
    assert_eq!(model.get(registers::ITR), 0);
}
