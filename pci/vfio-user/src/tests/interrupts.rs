//! SET_IRQS.

use std::os::fd::AsRawFd;

use crate::sys::{For, wait};
use crate::testing::{Bench, PBA, Raw, TABLE, VECTORS, count, event, reg, until};
use crate::wire::{command, irq, region};
use vmm_sys_util::eventfd::EventFd;

const ASSIGN: u32 = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
const NONE: u32 = irq::DATA_NONE | irq::ACTION_TRIGGER;

/// Offset of a capability.
fn capability(client: &mut Raw, id: u8) -> u64 {
    let config = client.read(region::CONFIG, 0, 256);
    let mut at = usize::from(config[0x34]);
    while config[at] != id {
        at = usize::from(config[at + 1]);
    }
    at.try_into().unwrap()
}

fn bus_master(client: &mut Raw) {
    client.write(region::CONFIG, 4, &[0x07, 0]);
}

fn raise(client: &mut Raw, vector: u16) {
    client.write(0, reg::RAISE, &vector.to_le_bytes());
}

fn pending(client: &mut Raw) -> u64 {
    u64::from_le_bytes(client.read(0, PBA, 8).try_into().unwrap())
}

fn assign_all(client: &mut Raw, events: &[EventFd]) {
    for (start, part) in (0..).step_by(16).zip(events.chunks(16)) {
        let part: Vec<_> = part.iter().collect();
        let count = u32::try_from(part.len()).unwrap();
        assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (start, count), &[], &part), 0);
    }
}

// The client has the table, so a server that waits for its own to be unmasked waits for ever.
#[test]
fn vectors_come_in_chunks_and_need_nothing_else() {
    let bench = Bench::new();
    let mut client = bench.client();
    bus_master(&mut client);
    let events: Vec<_> = (0..VECTORS).map(|_| event()).collect();
    assign_all(&mut client, &events);
    let at = capability(&mut client, 0x11);
    assert_eq!(client.read(region::CONFIG, at + 2, 2), [39, 0x80], "it was enabled");
    for vector in 0..VECTORS {
        raise(&mut client, vector);
        let seen: Vec<_> = events.iter().map(count).collect();
        let expected: Vec<_> = (0..VECTORS).map(|v| u64::from(v == vector)).collect();
        assert_eq!(seen, expected);
    }
    // All off: nothing comes, and what was enabled for the client is not.
    assert_eq!(client.set_irqs(NONE, irq::MSIX, (0, 0), &[], &[]), 0);
    assert_eq!(client.read(region::CONFIG, at + 2, 2), [39, 0]);
    raise(&mut client, 3);
    assign_all(&mut client, &events);
    assert!(events.iter().all(|event| count(event) == 0));
}

#[test]
fn what_the_client_enables_itself_stays_its_own() {
    let bench = Bench::new();
    let mut client = bench.client();
    bus_master(&mut client);
    let at = capability(&mut client, 0x11);
    let events = [event(), event()];
    client.write(region::CONFIG, at + 2, &0xc000_u16.to_le_bytes());
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (5, 2), &[], &[&events[0], &events[1]]), 0);
    raise(&mut client, 6);
    assert_eq!((count(&events[1]), pending(&mut client)), (0, 1 << 6), "the function mask");
    client.write(region::CONFIG, at + 2, &0x8000_u16.to_le_bytes());
    assert_eq!((count(&events[1]), pending(&mut client)), (1, 0));
    assert_eq!(client.set_irqs(NONE, irq::MSIX, (0, 0), &[], &[]), 0);
    assert_eq!(client.read(region::CONFIG, at + 2, 2), [39, 0x80]);
}

#[test]
fn a_vector_without_its_eventfd_is_pending_until_it_has_one() {
    let bench = Bench::new();
    let mut client = bench.client();
    bus_master(&mut client);
    let events = [event(), event()];
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (8, 2), &[], &[&events[0], &events[1]]), 0);
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (8, 1), &[], &[]), 0);
    raise(&mut client, 8);
    assert_eq!((count(&events[0]), pending(&mut client)), (0, 1 << 8));
    let other = event();
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (8, 1), &[], &[&other]), 0);
    assert_eq!((count(&other), pending(&mut client)), (1, 0));
    // Replaced without being taken away: the old one hears no more.
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (9, 1), &[], &[&other]), 0);
    raise(&mut client, 9);
    assert_eq!((count(&events[1]), count(&other)), (0, 1));
}

#[test]
fn a_message_is_held_back_by_name_and_triggered_by_hand() {
    let bench = Bench::new();
    let mut client = bench.client();
    bus_master(&mut client);
    let events: Vec<_> = (0..4).map(|_| event()).collect();
    let list: Vec<_> = events.iter().collect();
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (0, 4), &[], &list), 0);
    let mut act = |flags, data: &[u8]| {
        assert_eq!(client.set_irqs(flags, irq::MSIX, (0, 4), data, &[]), 0);
        events.iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(act(irq::DATA_BOOL | irq::ACTION_TRIGGER, &[1, 0, 2, 0]), [1, 0, 1, 0]);
    assert_eq!(act(irq::DATA_NONE | irq::ACTION_TRIGGER, &[]), [1; 4]);
    assert_eq!(act(irq::DATA_BOOL | irq::ACTION_MASK, &[1, 1, 0, 0]), [0; 4]);
    assert_eq!(act(irq::DATA_NONE | irq::ACTION_TRIGGER, &[]), [0, 0, 1, 1]);
    assert_eq!(act(irq::DATA_BOOL | irq::ACTION_UNMASK, &[1, 0, 1, 0]), [1, 0, 0, 0]);
    assert_eq!(act(irq::DATA_NONE | irq::ACTION_UNMASK, &[]), [0, 1, 0, 0]);
}

#[test]
fn msi_is_one_vector_that_is_enabled_like_the_others() {
    let bench = Bench::new();
    let mut client = bench.client();
    bus_master(&mut client);
    let at = capability(&mut client, 0x05);
    let event = event();
    assert_eq!(client.set_irqs(ASSIGN, irq::MSI, (0, 1), &[], &[&event]), 0);
    assert_eq!(client.read(region::CONFIG, at + 2, 1)[0] & 1, 1);
    raise(&mut client, 0);
    assert_eq!(count(&event), 1);
    // Masked in the capability, which clients pass through.
    client.write(region::CONFIG, at + 0x10, &[1]);
    raise(&mut client, 0);
    assert_eq!(count(&event), 0);
    client.write(region::CONFIG, at + 0x10, &[0]);
    assert_eq!(count(&event), 1);
    assert_eq!(client.set_irqs(NONE, irq::MSI, (0, 0), &[], &[]), 0);
    assert_eq!(client.read(region::CONFIG, at + 2, 1)[0] & 1, 0);
}

#[test]
fn the_pin_is_level_triggered_and_masks_itself() {
    let bench = Bench::new();
    let mut client = bench.client();
    let (trigger, unmask) = (event(), event());
    assert_eq!(client.set_irqs(ASSIGN, irq::INTX, (0, 1), &[], &[&trigger]), 0);
    client.write(0, reg::LEVEL, &[1]);
    client.write(0, reg::LEVEL, &[0]);
    client.write(0, reg::LEVEL, &[1]);
    assert_eq!(count(&trigger), 1);
    assert_eq!(
        client.set_irqs(irq::DATA_NONE | irq::ACTION_UNMASK, irq::INTX, (0, 1), &[], &[]),
        0
    );
    assert_eq!(count(&trigger), 1, "it is asserted still");
    // The same by an eventfd, as KVM does it at the guest's end of interrupt.
    let by_event = irq::DATA_EVENTFD | irq::ACTION_UNMASK;
    assert_eq!(client.set_irqs(by_event, irq::INTX, (0, 1), &[], &[&unmask]), 0);
    unmask.write(1).unwrap();
    until("the pin is unmasked", || count(&trigger) == 1);
    client.write(0, reg::LEVEL, &[0]);
    unmask.write(1).unwrap();
    // The server reads it, and then does what it says before anything else.
    let written = [(unmask.as_raw_fd(), For::Input)];
    until("the eventfd is read", || wait(&written, 0).unwrap() == [false]);
    client.read(region::CONFIG, 0, 1);
    assert_eq!(count(&trigger), 0);
    // INTX_DISABLE is the function's to honour.
    client.write(region::CONFIG, 4, &0x400_u16.to_le_bytes());
    client.write(0, reg::LEVEL, &[1]);
    assert_eq!(count(&trigger), 0);
    client.write(region::CONFIG, 4, &[0, 0]);
    assert_eq!(count(&trigger), 1);
    assert_eq!(client.set_irqs(NONE, irq::INTX, (0, 0), &[], &[]), 0);
    assert_eq!(client.set_irqs(ASSIGN, irq::INTX, (0, 1), &[], &[&trigger]), 0);
    assert_eq!(count(&trigger), 1, "who asks for it hears that it is asserted");
}

#[test]
fn a_reset_leaves_the_client_its_interrupts() {
    let bench = Bench::new();
    let mut client = bench.client();
    let event = event();
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (1, 1), &[], &[&event]), 0);
    let at = capability(&mut client, 0x11);
    let express = capability(&mut client, 0x10);
    for by_hand in [true, false] {
        if by_hand {
            assert_eq!(client.errno(command::RESET, &[], &[]), 0);
        } else {
            client.write(region::CONFIG, express + 8, &0x8000_u16.to_le_bytes());
        }
        assert_eq!(client.read(region::CONFIG, 4, 2), [0, 0], "it was reset");
        assert_eq!(client.read(0, TABLE + 16 + 12, 4), [0; 4]);
        assert_eq!(client.read(0, TABLE + 32 + 12, 4), [1, 0, 0, 0]);
        assert_eq!(client.read(region::CONFIG, at + 2, 2), [39, 0x80]);
        bus_master(&mut client);
        raise(&mut client, 1);
        assert_eq!(count(&event), 1);
    }
}

// lvu 3602ad8 and its like: interrupt ranges and descriptors that the client says.
#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let bench = Bench::new();
    let mut client = bench.client();
    bus_master(&mut client);
    let kept = event();
    assert_eq!(client.set_irqs(ASSIGN, irq::MSIX, (0, 1), &[], &[&kept]), 0);
    let event = event();
    let one = [&event];
    let invalid = [
        (ASSIGN, irq::MSIX, (40, 1), 1),
        (ASSIGN, irq::MSIX, (39, 2), 2),
        (ASSIGN, irq::MSIX, (u32::MAX, 2), 1),
        (ASSIGN, irq::MSIX, (0, u32::MAX), 1),
        (ASSIGN, irq::MSIX, (0x1_0000, 1), 1),
        (ASSIGN, irq::MSIX, (0, 2), 1),
        (ASSIGN, irq::MSIX, (0, 1), 2),
        (ASSIGN, irq::MSIX, (0, 0), 0),
        (ASSIGN, irq::MSI, (1, 1), 1),
        (ASSIGN, irq::INTX, (0, 2), 2),
        (ASSIGN, 3, (0, 1), 1),
        (ASSIGN, 5, (0, 1), 1),
        (ASSIGN, u32::MAX, (0, 1), 1),
        (NONE, irq::MSIX, (1, 0), 0),
        (NONE, irq::MSIX, (0, 0), 1),
        (NONE, irq::MSIX, (0, 1), 1),
        (irq::DATA_NONE | irq::ACTION_MASK, irq::MSIX, (0, 0), 0),
        (irq::DATA_BOOL | irq::ACTION_TRIGGER, irq::MSIX, (0, 1), 0),
        (irq::DATA_EVENTFD, irq::MSIX, (0, 1), 1),
        (irq::ACTION_TRIGGER, irq::MSIX, (0, 1), 0),
        (ASSIGN | irq::ACTION_MASK, irq::MSIX, (0, 1), 1),
        (ASSIGN | irq::DATA_NONE, irq::MSIX, (0, 1), 1),
        (ASSIGN | 1 << 6, irq::MSIX, (0, 1), 1),
        (0, 0, (0, 0), 0),
        (u32::MAX, 0, (0, 1), 0),
    ];
    for (flags, index, range, fds) in invalid {
        let events = vec![one[0]; fds];
        let errno = client.set_irqs(flags, index, range, &[], &events);
        assert_eq!(errno, libc::EINVAL, "{flags:#x} {index} {range:?} {fds}");
    }
    for (flags, index) in [
        (irq::DATA_EVENTFD | irq::ACTION_MASK, irq::INTX),
        (irq::DATA_EVENTFD | irq::ACTION_MASK, irq::MSIX),
        (irq::DATA_EVENTFD | irq::ACTION_UNMASK, irq::MSI),
    ] {
        assert_eq!(client.set_irqs(flags, index, (0, 1), &[], &one), libc::EOPNOTSUPP);
    }
    assert_eq!(client.errno(command::SET_IRQS, &[0; 19], &[]), libc::EINVAL);
    // No eventfd.
    let pipe = std::os::unix::net::UnixStream::pair().unwrap();
    let fields = [20, ASSIGN, irq::MSIX, 0, 1_u32];
    let payload: Vec<u8> = fields.into_iter().flat_map(u32::to_le_bytes).collect();
    let fd = std::os::fd::AsFd::as_fd(&pipe.0);
    assert_eq!(client.errno(command::SET_IRQS, &payload, &[fd]), libc::EINVAL);
    raise(&mut client, 0);
    assert_eq!((count(&kept), count(&event)), (1, 0));
}
