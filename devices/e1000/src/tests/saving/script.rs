//! What a driver may do, step by step: between any two the adapter may be moved.

use paraslot_spec::e1000::eeprom::microwire;
use paraslot_spec::e1000::phy::{self, register};
use paraslot_spec::e1000::{Eecd, eerd, statistics};

use super::super::*;

pub(super) type Step = fn(&mut Machine);

pub(super) fn perform(machine: &mut Machine, step: Step) {
    step(machine);
}

/// Where the driver keeps what it has read, for the memories to be compared: how many, and the values.
const NOTES: u64 = 0x3_0000;

fn note(machine: &mut Machine, value: u32) {
    let count = machine.bytes(NOTES, 4).try_into().map(u32::from_le_bytes).unwrap() + 1;
    machine.fill(NOTES, &count.to_le_bytes());
    machine.fill(NOTES + 4 * u64::from(count), &value.to_le_bytes());
}

fn read(machine: &mut Machine, register: u32) {
    let value = machine.read(register);
    note(machine, value);
}

fn take_causes(machine: &mut Machine) {
    read(machine, ICR);
}

fn look_for_link(machine: &mut Machine) {
    let status = machine.phy(register::STATUS);
    note(machine, status.into());
}

/// One round of the adapter's work, and no more.
fn round(machine: &mut Machine) {
    let _ = machine.executor.step_all();
}

fn settle(machine: &mut Machine) {
    machine.run();
}

fn pass(machine: &mut Machine) {
    machine.advance(20_000);
}

fn queue(machine: &mut Machine, descriptors: &[TransmitDescriptor]) {
    machine.put(descriptors);
    machine.write(TDT, machine.tdt);
}

/// Clocks bits into the EEPROM, the highest first.
fn shift(machine: &mut Machine, value: u16, count: u32) {
    for bit in (0..count).rev() {
        let mut pins = Eecd::CS | Eecd::REQ;
        pins.set(Eecd::DI, value >> bit & 1 != 0);
        machine.write(EECD, pins.bits());
        machine.write(EECD, (pins | Eecd::SK).bits());
    }
}

fn select(machine: &mut Machine) {
    machine.write(EECD, Eecd::REQ.bits());
    machine.write(EECD, (Eecd::REQ | Eecd::CS).bits());
}

fn udp_context() -> TransmitDescriptor {
    let context = Context { hdrlen: 42, mss: 100, tucss: 34, tucso: 40, ..Context::default() };
    TransmitDescriptor::context(&context, transmit::TSE | transmit::IP)
}

/// Traffic both ways and all else that the adapter does. Every descriptor ring goes round.
pub(super) const SCRIPT: &[Step] = &[
    |machine| machine.start(),
    |machine| machine.write(IMS, (Cause::TXDW | Cause::RXT0 | Cause::LSC | Cause::RXDMT0).bits()),
    // The EEPROM, in the middle of each of its instructions.
    select,
    |machine| shift(machine, microwire::READ >> 1, 2),
    |machine| shift(machine, microwire::READ & 1, 1),
    |machine| shift(machine, 1, 6),
    |machine| shift(machine, 0, 5),
    |machine| shift(machine, 0, 16),
    select,
    |machine| shift(machine, microwire::EXTENDED << 6 | microwire::ENABLE << 4, 9),
    select,
    |machine| shift(machine, microwire::WRITE << 6 | 0x30, 9),
    |machine| shift(machine, 0xbeef >> 7, 9),
    |machine| shift(machine, 0xbeef & 0x7f, 7),
    |machine| machine.write(EECD, 0),
    |machine| machine.write(EERD, 0x30 << eerd::ADDRESS_SHIFT | eerd::START),
    // A packet of three descriptors, each on its own.
    |machine| machine.fill(TX_DATA, &frame(9000)),
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA, 100, transmit::IFCS)]),
    settle,
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA + 100, 7, transmit::RS)]),
    round,
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA + 107, 900, ALONE)]),
    round,
    take_causes,
    // A backend that is busy, and a link that is down meanwhile.
    |machine| machine.host.set_room(0, Some(1)),
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA, 80, ALONE); 3]),
    settle,
    |machine| machine.control.set_link(false),
    settle,
    look_for_link,
    |machine| machine.host.set_room(0, None),
    |machine| machine.control.set_link(true),
    settle,
    look_for_link,
    take_causes,
    // Segments that are cut here, of which the backend takes a few at a time; the contexts stay.
    |machine| queue(machine, &[udp_context()]),
    round,
    |machine| machine.write(RDTR, 500),
    |machine| machine.host.push(0, &frame(150)),
    |machine| machine.host.set_room(0, Some(3)),
    |machine| {
        let popts = transmit::TXSM;
        let first = TransmitDescriptor::data(TX_DATA, 42, transmit::TSE, popts);
        let last = TransmitDescriptor::data(TX_DATA + 42, 950, transmit::TSE | ALONE, popts);
        queue(machine, &[first, last]);
    },
    settle,
    |machine| machine.host.set_room(0, Some(2)),
    settle,
    |machine| machine.host.set_room(0, None),
    settle,
    // What is too long for any frame, begun and ended.
    |machine| {
        let huge = TransmitDescriptor::data(TX_DATA, 0xf_ffff, 0, 0);
        queue(machine, &[huge, huge]);
    },
    settle,
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]),
    settle,
    // Interrupts that are delayed, each way, and throttled.
    take_causes,
    |machine| machine.write(TIDV, 30),
    |machine| machine.write(TADV, 50),
    |machine| machine.write(RDTR, 30),
    |machine| machine.write(RADV, 40),
    |machine| machine.write(ITR, 400),
    |machine| {
        let flags = ALONE | transmit::IDE;
        queue(machine, &[TransmitDescriptor::legacy(TX_DATA, 300, flags)]);
    },
    settle,
    |machine| machine.host.push(0, &frame(200)),
    settle,
    pass,
    |machine| machine.host.push(0, &frame(201)),
    settle,
    pass,
    take_causes,
    pass,
    |machine| machine.write(ICS, Cause::LSC.bits()),
    settle,
    pass,
    pass,
    pass,
    pass,
    pass,
    take_causes,
    |machine| machine.write(ITR, 0),
    |machine| machine.write(RDTR, 0),
    // Frames for which there are too few descriptors, or none.
    |machine| machine.receive_ring(RX_RING, 8),
    |machine| machine.write(RCTL, (Rctl::EN | Rctl::BAM | Rctl::LPE).bits() | 3 << 16),
    |machine| machine.give(2),
    |machine| machine.host.push(0, &frame(900)),
    settle,
    |machine| machine.host.push(0, &frame(60)),
    settle,
    |machine| machine.write(MTA + 12, 0x8000_0001),
    |machine| machine.give(1),
    round,
    settle,
    |machine| machine.give(3),
    settle,
    |machine| drop(machine.clean()),
    |machine| drop(machine.clean()),
    settle,
    // Statistics, in the middle of a pair.
    |machine| read(machine, statistics::GORCL),
    |machine| machine.host.push(0, &frame(64)),
    settle,
    |machine| read(machine, statistics::GORCL + 4),
    |machine| read(machine, statistics::GPRC),
    // Loopback, with more than there are descriptors for.
    |machine| machine.receive_ring(RX_RING, RING),
    |machine| machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits() | Rctl::LBM_MAC),
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA, 70, ALONE); 3]),
    settle,
    |machine| machine.give(1),
    settle,
    |machine| machine.give(5),
    settle,
    |machine| while machine.clean().is_some() {},
    // The PHY, held in reset and let go; a slower link.
    |machine| machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits()),
    |machine| machine.set_phy(register::GIGABIT_CONTROL, 0),
    |machine| {
        let restart = phy::Control::AUTONEGOTIATION | phy::Control::RESTART;
        machine.set_phy(register::CONTROL, restart.bits());
    },
    |machine| machine.write(CTRL, (Ctrl::SLU | Ctrl::PHY_RST).bits()),
    settle,
    |machine| machine.write(CTRL, Ctrl::SLU.bits()),
    |machine| machine.write(PBA, 20),
    // Asleep to the bus, with an interrupt wanted and work to do.
    |machine| machine.command(pci::Command::MEMORY | pci::Command::INTX_DISABLE),
    |machine| queue(machine, &[TransmitDescriptor::legacy(TX_DATA, 90, ALONE)]),
    |machine| machine.host.push(0, &frame(91)),
    settle,
    |machine| machine.enable(),
    settle,
    |machine| drop(machine.clean()),
    take_causes,
    // Resets.
    |machine| machine.write(CTRL, Ctrl::RST.bits()),
    |machine| machine.start(),
    |machine| {
        machine.fill(TX_DATA, &frame(77));
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 77, ALONE)]);
    },
    |machine| machine.nic.reset(),
    |machine| machine.enable(),
    |machine| machine.start(),
    |machine| machine.arrive(&frame(78)),
    |machine| assert_eq!(machine.clean().unwrap().0, frame(78)),
];
