//! Loopback: frames come back by way of a queue, never from within their transmission (CVE-2021-20257,
//! CVE-2021-3416, CVE-2023-0330's kin).

use paraslot_spec::e1000::phy::{self, register};
use paraslot_spec::e1000::statistics;

use super::checksum::context_of;
use super::*;

impl Machine {
    fn loop_back(&mut self) {
        self.write(RCTL, (Rctl::EN | Rctl::SECRC | Rctl::LPE).bits() | Rctl::LBM_MAC);
    }
}

#[test]
fn what_is_sent_comes_back() {
    let mut machine = Machine::new();
    machine.loop_back();
    for len in [60, 300, 1514, 9000] {
        machine.fill(TX_DATA, &frame(len));
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, len as u16, ALONE)]);
        assert_eq!(machine.clean().unwrap().0, frame(len));
    }
    assert_eq!(machine.sent(), []);
    assert_eq!((machine.read(statistics::GPTC), machine.read(statistics::GPRC)), (4, 4));
    assert_eq!(machine.statistics().sent_frames, 0);
    // The filters see it as any other.
    machine.fill(TX_DATA, &frame_to([2; 6], 60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert!(machine.clean().is_none());
    // Others are not heard.
    machine.arrive(&frame(60));
    assert!(machine.clean().is_none());
    machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits());
    machine.run();
    assert!(machine.clean().is_some());
}

// As Linux's self test does it: by the PHY, with a link that need not be there.
#[test]
fn the_phy_can_do_it_too() {
    let mut machine = Machine::new();
    machine.control.set_link(false);
    let loopback = phy::Control::LOOPBACK | phy::Control::SPEED_1000 | phy::Control::FULL_DUPLEX;
    machine.set_phy(register::CONTROL, loopback.bits());
    assert!(machine.read(STATUS) & Status::LU.bits() != 0);
    let mut pattern = frame_to([0xff; 6], 1024);
    pattern[6..512].fill(0xff);
    pattern[512..].fill(0xaa);
    machine.fill(TX_DATA, &pattern);
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 1024, ALONE)]);
    assert_eq!(machine.clean().unwrap().0, pattern);
    assert_eq!(machine.sent(), []);
}

#[test]
fn what_is_left_to_be_done_is_done() {
    let mut machine = Machine::new();
    machine.loop_back();
    let packet = Packet::tcp4(&[9; 3000]);
    let mut bytes = for_us(packet.unfinished());
    machine.fill(TX_DATA, &bytes);
    let len = bytes.len() as u32;
    let context = context_of(&packet);
    let flags = transmit::IP | transmit::TCP;
    machine.transmit(&[
        TransmitDescriptor::context(&context, flags),
        TransmitDescriptor::data(TX_DATA, len, ALONE, transmit::TXSM),
    ]);
    assert_eq!(machine.clean().unwrap().0, for_us(packet.finished()));
    // And segments are cut.
    bytes[24..26].fill(0);
    machine.fill(TX_DATA, &bytes);
    let context = Context { mss: 1000, hdrlen: 54, paylen: 3000, ..context };
    let options = transmit::TXSM | transmit::IXSM;
    machine.transmit(&[
        TransmitDescriptor::context(&context, flags | transmit::TSE),
        TransmitDescriptor::data(TX_DATA, len, ALONE | transmit::TSE, options),
    ]);
    assert_eq!([(); 3].map(|()| machine.clean().unwrap().0.len()), [1054; 3]);
}

#[test]
fn it_is_bounded() {
    let mut machine = Machine::new();
    machine.write(RCTL, 0);
    machine.receive_ring(RX_RING, RING);
    machine.loop_back();
    machine.fill(TX_DATA, &frame(9000));
    for _ in 0..10 {
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 9000, ALONE); 3]);
    }
    // Nobody takes them: what does not fit the packet buffer is lost, and that is told.
    assert_eq!(machine.read(statistics::MPC), 30 - 7);
    assert!(machine.causes().contains(Cause::RXO));
    machine.give(RING - 1);
    machine.run();
    let received = std::iter::from_fn(|| {
        machine.run();
        machine.clean()
    });
    assert_eq!(received.count(), 7);
}

// CVE-2021-20257: a receive buffer over the adapter's own transmit ring, and over its registers.
#[test]
fn frames_that_land_on_the_rings_are_data() {
    let mut machine = Machine::new();
    machine.loop_back();
    let evil = TransmitDescriptor::legacy(TX_DATA, 60, ALONE);
    let mut bytes = frame(1024);
    for chunk in bytes[16..].chunks_exact_mut(16) {
        chunk.copy_from_slice(evil.as_bytes());
    }
    machine.fill(TX_DATA, &bytes);
    for index in 0..RING {
        machine.receive_descriptor(index, TX_RING);
    }
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 1024, ALONE)]);
    // Once through, and to rest: descriptors are looked at when TDT says so, no earlier.
    assert_eq!((machine.read(TDH), machine.read(RDH)), (1, 1));
    for index in 0..RING {
        machine.receive_descriptor(index, RX_RING);
    }
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 1024, ALONE); 3]);
    assert_eq!(machine.read(TDH), 4);
}
