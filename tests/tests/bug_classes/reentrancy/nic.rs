//! Network adapters that reach themselves, and ports that deliver while the adapter is at work.
//!
//! CVE-2021-20257 and CVE-2021-3416 (a looped-back frame's DMA writes TDT, which transmits again),
//! CVE-2023-3019 (the port delivers while the device is in the middle of something).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::net::Offload;
use paraslot_spec::e1000::{Ctrl, MEMORY_BAR, Rctl, TransmitDescriptor, receive, registers};
use paraslot_spec::virtio::pci::cfg_type;
use paraslot_tests::port::{Carried, Port};
use paraslot_virtio::testing::Buffer;

use super::address;
use crate::e1000::{DESCRIPTORS, Ether, RECEIVE_RING, SEND, SEND_RING};
use crate::net::{Net, RECEIVE, Setting, TRANSMIT, frame};
use crate::nic::Adapter;
use crate::support::all_memory;
use crate::vmxnet3::Vmx;

#[test]
fn virtio_net_does_not_reach_its_own_registers() {
    let mut guest = Net::new(Setting::default());
    let (bar, common) = guest.place_of(cfg_type::COMMON);
    let base = address(&mut guest.bench, bar);
    let before = super::registers(&mut guest.bench, bar, common);
    // Frames to be sent, header and all, and commands cost themselves.
    for offset in [0, common, 0x1000, 0x4000] {
        let at = base + offset;
        guest.ring_of(TRANSMIT).add(&[Buffer::readable(at, 100)]);
        let place = guest.place();
        guest.ring_of(TRANSMIT).add(&[Buffer::readable(place, 12), Buffer::readable(at, 100)]);
        guest.notify(TRANSMIT);
        guest.run();
        for _ in 0..2 {
            assert!(matches!(guest.ring_of(TRANSMIT).used(), Some((_, 0))));
        }
    }
    assert_eq!(guest.control.statistics().send_invalid, 8);
    assert!(guest.port.take_sent().is_empty());
    let (control, place) = (guest.control_queue(), guest.place());
    let head = guest
        .ring_of(control)
        .add(&[Buffer::readable(base + common, 3), Buffer::writable(place, 1)]);
    guest.notify(control);
    guest.run();
    assert_eq!(guest.ring_of(control).used(), Some((head, 1)));
    assert_eq!(super::registers(&mut guest.bench, bar, common), before);
    // Where a frame could go, or an answer, costs a reset; and so do the rings.
    for queue in [RECEIVE, control] {
        let place = guest.place();
        let chain = [Buffer::readable(place, 3), Buffer::writable(base + common + 20, 64)];
        let chain = if queue == RECEIVE { &chain[1..] } else { &chain[..] };
        guest.ring_of(queue).add(chain);
        guest.notify(queue);
        guest.port.deliver(&frame(60));
        guest.run();
        assert_eq!(guest.status().bits(), 0x4f, "queue {queue}");
        guest.reset();
        guest.start();
    }
    for (queue, field) in [(RECEIVE, 0), (RECEIVE, 2), (TRANSMIT, 1), (TRANSMIT, 2), (control, 0)] {
        guest.reset();
        guest.agree();
        let ring = guest.ring_of(queue);
        let mut places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
        places[field] = base + common;
        guest.virtio.enable_queue(queue, 64, places);
        guest.set_status(0xf);
        guest.run();
        assert_eq!(guest.status().bits(), 0x4f, "queue {queue}, ring {field}");
    }
    guest.reset();
    guest.port.drain();
    guest.start();
    guest.works();
}

/// The registers that say what the adapter is about to do.
fn rings(guest: &mut Ether) -> Vec<u32> {
    use registers::*;
    let all =
        [CTRL, TDBAL, TDBAH, TDLEN, TDT, RDBAL, RDBAH, RDLEN, RDT, RCTL, TCTL, IMS, ITR, RAL, RAH];
    all.into_iter().map(|register| guest.get(register)).collect()
}

#[test]
fn e1000_does_not_reach_its_own_registers() {
    for looped in [false, true] {
        let mut guest = Ether::new();
        let base = address(&mut guest.bench, MEMORY_BAR);
        if looped {
            guest.receive_with(Rctl::LBM_MAC);
        }
        // Receive buffers are the registers: TDT first (CVE-2021-20257).
        let places = [registers::TDT, 0, registers::RDT, registers::TDBAL, registers::CTRL];
        for (index, place) in (0..).zip(places) {
            guest.put_receive(index, base + u64::from(place));
        }
        let before = rings(&mut guest);
        for _ in 0..5 {
            let packet = frame(100);
            if looped {
                guest.send(&packet);
            } else {
                guest.port.deliver(&packet);
            }
        }
        guest.kick();
        let tail = guest.tail;
        guest.run();
        let mut expected = before.clone();
        expected[4] = tail;
        assert_eq!(rings(&mut guest), expected, "a register was written");
        assert_eq!((guest.get(registers::TDH), guest.get(registers::RDH)), (tail, 5));
        for index in 0..5 {
            let arrived = guest.arrived().unwrap_or_else(|| panic!("packet {index}"));
            assert_ne!(arrived.descriptors[0].errors & receive::RXE, 0);
        }
        assert_eq!(guest.control.statistics().receive_errors, 5);
        // Packets out of the registers are none.
        for place in places {
            let at = base + u64::from(place);
            guest.put(TransmitDescriptor::legacy(at, 100, SEND));
            let head = guest.place();
            guest.put(TransmitDescriptor::data(head, 60, 0, 0));
            guest.put(TransmitDescriptor::data(at, 600, SEND, 0));
        }
        guest.kick();
        guest.run();
        assert!(guest.port.take_sent().is_empty());
        assert_eq!(guest.control.statistics().send_invalid, 10);
        // The rings themselves: nothing is taken from there.
        for register in [registers::TDBAL, registers::RDBAL] {
            guest.set(register, u32::try_from(base).expect("32 bits"));
            guest.port.deliver(&frame(60));
            guest.send(&frame(60));
            guest.kick();
            guest.run();
            guest.set(registers::TDBAL, u32::try_from(SEND_RING).expect("low"));
            guest.set(registers::RDBAL, u32::try_from(RECEIVE_RING).expect("low"));
        }
        guest.port.drain();
        guest.start();
        guest.port.take_sent();
        guest.works();
    }
}

// CVE-2021-3416: what is looped back goes round once, however much is sent, and into no more memory
// than the packet buffer has; the receiver takes it when its turn comes.
#[test]
fn what_e1000_loops_back_comes_once() {
    for rounds in [10, 60] {
        let mut guest = Ether::new();
        guest.receive_with(Rctl::LBM_MAC);
        for len in 0..rounds {
            guest.send(&frame(100 + len));
        }
        guest.kick();
        guest.run();
        for len in 0..rounds {
            let arrived = guest.arrived().expect("it is looped back");
            assert!(arrived.bytes == frame(100 + len));
        }
        assert!(guest.arrived().is_none() && guest.port.take_sent().is_empty());
        // While the receiver has no descriptors the transmitter does not wait, and does not hold on
        // to more than there is room for.
        guest.set(registers::RDT, guest.next);
        for _ in 0..4 {
            for _ in 0..60 {
                let index = guest.tail;
                guest.send(&frame(1500));
                guest.kick();
                guest.run();
                assert_eq!(guest.status(index), 1);
            }
        }
        guest.set(registers::RDT, (guest.next + DESCRIPTORS - 1) % DESCRIPTORS);
        guest.run();
        let mut held = 0;
        while let Some(arrived) = guest.arrived() {
            assert!(arrived.bytes == frame(1500));
            held += 1;
            guest.run();
        }
        assert!((20..=64).contains(&held), "{held} packets of 1500 bytes in a packet buffer");
        guest.set(registers::CTRL, (Ctrl::SLU | Ctrl::FD).bits());
        guest.receive_with(0);
        guest.works();
    }
}

/// What came of it: memory, frames sent.
type Outcome = (Vec<u8>, Vec<Carried>);

/// Some traffic; `deliver` says when the port delivers a frame: at this access of memory, or before
/// anything, or after everything.
fn traffic<A: Adapter>(deliver: Option<u64>, calls: bool) -> (Outcome, u64) {
    let port = Port::new(1);
    let mut nic = A::make(port.clone());
    let frame_in = || Carried { bytes: frame(400), offload: Offload::default() };
    let seen = Arc::new(AtomicU64::new(0));
    let before = port.calls();
    match deliver {
        Some(at) if calls => port.surprise(at, frame_in()),
        _ => {
            let (port, seen) = (port.clone(), seen.clone());
            nic.bench().memory.set_hook(Some(Box::new(move |_, _| {
                if Some(seen.fetch_add(1, Ordering::Relaxed)) == deliver {
                    port.deliver_to(0, frame_in());
                }
            })));
        }
    }
    for len in [60, 200, 1000] {
        nic.ask(&frame(len));
        nic.run();
    }
    let made = if calls { port.calls() - before } else { seen.load(Ordering::Relaxed) };
    nic.bench().memory.set_hook(None);
    // Whatever is left of the surprise comes now.
    if deliver.is_none_or(|at| at >= made) {
        port.deliver_to(0, frame_in());
    }
    nic.run();
    assert_eq!(nic.reclaim().len(), 3);
    assert_eq!(nic.take(), Some(frame(400)), "{}: at {deliver:?}", A::NAME);
    assert_eq!(nic.take(), None, "{}: at {deliver:?}", A::NAME);
    (((all_memory(nic.bench(), A::MEMORY)), port.take_sent()), made)
}

/// A frame that comes at any access to memory, or at any call of the port, has the same outcome as
/// one that comes afterwards.
fn any_moment<A: Adapter>() {
    for calls in [false, true] {
        let (after, made) = traffic::<A>(None, calls);
        assert!(made >= 6, "{made}");
        for at in 0..made {
            let (outcome, _) = traffic::<A>(Some(at), calls);
            assert!(outcome.1 == after.1, "{}: sent something else", A::NAME);
            let changed = crate::support::differences(&after.0, &outcome.0);
            assert!(changed.is_empty(), "{}: at {at}: {changed:x?}", A::NAME);
        }
    }
}

#[test]
fn a_port_that_delivers_while_virtio_net_is_at_work_changes_nothing() {
    any_moment::<Net>();
}

#[test]
fn a_port_that_delivers_while_e1000_is_at_work_changes_nothing() {
    any_moment::<Ether>();
}

#[test]
fn a_port_that_delivers_while_vmxnet3_is_at_work_changes_nothing() {
    any_moment::<Vmx>();
}
