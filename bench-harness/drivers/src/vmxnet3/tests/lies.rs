//! Adapters that do not do as they should.

use super::*;

#[test]
fn an_adapter_that_does_not_work_is_an_error() {
    for (fault, error) in [
        (Fault::Gone, Error::Protocol("its registers are gone")),
        (Fault::NoRevision, Error::Unsupported("a revision that the driver knows")),
        (Fault::NoUpt, Error::Unsupported("a version of UPT that the driver knows")),
        (Fault::GroupAddress, Error::Protocol("its address is not one station's")),
        (Fault::NoAddress, Error::Protocol("its address is not one station's")),
        (Fault::Refuses, Error::Protocol("it does not start")),
    ] {
        let (fake, model) = machine(fault);
        assert_eq!(Vmxnet3::new(&fake, Options::default()).err(), Some(error));
        // Nothing is left where it could look.
        let registers = model.registers.borrow();
        let written = |register| registers.get(&register).copied().unwrap_or(0);
        assert_eq!((written(registers::DSAL), written(registers::DSAH)), (0, 0));
    }
    let fake = Fake::new();
    fake.add(0, 0, 0);
    assert_eq!(Vmxnet3::new(&fake, Options::default()).err(), Some(Error::NotFound));
    for bar in [0, 1] {
        let (fake, _) = machine(Fault::None);
        fake.bar(SLOT, bar, 0x800, false, PT);
        let small = Error::Protocol("a BAR is too small for its registers");
        assert_eq!(Vmxnet3::new(&fake, Options::default()).err(), Some(small));
    }
    for memory in [0, 100_000, 1 << 20] {
        let (fake, _) = machine(Fault::None);
        fake.memory.set(memory);
        assert_eq!(Vmxnet3::new(&fake, Options::default()).err(), Some(Error::NoMemory));
    }
}

#[test]
fn an_adapter_that_goes_away_is_an_error() {
    let (fake, model) = machine_with(0, false);
    let mut nic = adapter(&fake, Options::default());
    nic.set_interrupts(true).unwrap();
    model.fault.set(Fault::Gone);
    assert!(!nic.link_up());
    assert_eq!(
        (nic.begin(), fake.ended.get()),
        (Err(Error::Protocol("its registers are gone")), 1)
    );
    assert_eq!(nic.shutdown(), Err(Error::Protocol("it does not stop")));
}

#[test]
fn an_adapter_that_does_not_stop_is_an_error() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.fault.set(Fault::Runs);
    assert_eq!(nic.shutdown(), Err(Error::Protocol("it does not stop")));
    // It is reset all the same.
    assert_eq!(model.commands.borrow().last(), Some(&command::RESET_DEV));
}

#[test]
fn a_queue_that_has_stopped_is_an_error() {
    for (events, transmit, receive, stopped) in [
        (Events::TQERR, 1, 0, true),
        (Events::RQERR, 0, 1, true),
        (Events::TQERR | Events::RQERR, 0, 0, false),
        (Events::LINK, 1, 1, false),
    ] {
        let (fake, model) = machine(Fault::None);
        let mut nic = adapter(&fake, Options { receive_queues: 2, ..Options::default() });
        let (queue, at) = model.transmit_queue(&fake);
        queue.write8(at + 80, transmit);
        let (queue, at) = model.receive_queue(&fake, 1);
        queue.write8(at + 80, receive);
        model.happen(&fake, events);
        let asked = model.commands.borrow().len();
        assert_eq!(nic.begin().is_err(), stopped, "{events:?}");
        let asked = model.commands.borrow()[asked..].contains(&command::GET_QUEUE_STATUS);
        assert_eq!(asked, events != Events::LINK);
    }
}

/// Completes what was sent out of order, never, twice, or not at all.
#[test]
fn a_frame_that_was_not_next_is_not_done() {
    let wrong = Err(Error::Protocol("a frame is done that was not next"));
    for (sent, index) in [(0, 0), (3, 1), (3, 2), (3, 511), (3, 0xfff), (1, 1)] {
        let (fake, model) = machine(Fault::None);
        let mut nic = adapter(&fake, Options::default());
        let (region, _) = traffic_frame(&fake, 64);
        (0..sent).for_each(|tag| nic.transmit(tag, &region, 64, Task::None).unwrap());
        nic.kick().unwrap();
        model.report(&fake, index);
        for _ in 0..2 {
            assert_eq!(nic.reclaim(|_| panic!("nothing is done")), wrong, "{sent} {index}");
        }
    }
    // The first descriptor is not the one that tells.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, _) = traffic_frame(&fake, 1514);
    nic.transmit(0, &region, 1514, Task::None).unwrap();
    model.report(&fake, 0);
    assert_eq!(nic.reclaim(|_| panic!("nothing is done")), wrong);
    // Twice.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.transmit(0, &region, 64, Task::None).unwrap();
    model.report(&fake, 0);
    model.report(&fake, 0);
    let mut tags = vec![];
    assert_eq!(nic.reclaim(|tag| tags.push(tag)), wrong);
    assert_eq!(tags, [0]);
}

#[test]
fn a_completion_that_cannot_be_is_an_error_and_stays_one() {
    let whole = rcd::SOP | rcd::EOP;
    let queue = |number: u32| number << rcd::RQID_SHIFT;
    for (index, len, flags) in [
        // A buffer that there is not, or that it was not given.
        (1024 | whole, 64, 0),
        (0xfff | whole, 64, 0),
        (1023 | whole, 64, 0),
        (256 | queue(1), 64, 0),
        // Of another queue, or none.
        (whole | queue(3), 64, 0),
        (whole | queue(0x3ff), 64, 0),
        // In a body, or in a data ring of nothing but starts.
        (whole | queue(1), 64, 0),
        (rcd::EOP | queue(2), 64, 0),
        // Without a start.
        (0, 64, 0),
        (rcd::EOP, 64, 0),
        (rcd::EOP | queue(1), 64, 0),
        // Longer than the buffer, than an entry, than any; too short for a header; nothing.
        (whole, 1523, 0),
        (whole, rcd::LEN, 0),
        (whole | queue(2), 129, 0),
        (whole, 13, 0),
        (rcd::SOP, 0, 0),
        // A tag that was not to be stripped.
        (whole, 64 | rcd::TS, 0),
        // A checksum of a fragment, and of nothing that has one.
        (whole, 64, RIGHT | rcd::FRG),
        (whole, 64, RIGHT & !rcd::UDP),
    ] {
        let (fake, model) = machine(Fault::None);
        let mut nic = adapter(&fake, Options::default());
        assert!(model.arrive(&fake, 0, &[1; 64], 0));
        // The buffers that it has are 1 and so on, of the first ring.
        let index = if index & 0xfff == 0 && queue(1) & index == 0 { index | 1 } else { index };
        model.complete(&fake, 0, Words { index, len, flags, hash: 0 });
        let mut frames = 0;
        for expected in [1, 1] {
            let result = nic.receive(9, |_| frames += 1);
            assert!(matches!(result, Err(Error::Protocol(_))), "{index:#x} {len} {flags:#x}");
            assert_eq!(frames, expected);
        }
    }
}

#[test]
fn a_frame_without_end_is_an_error() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.complete(&fake, 0, Words { index: rcd::SOP, len: 1000, ..Words::default() });
    for index in 0..18 {
        let index = index | 1 << rcd::RQID_SHIFT;
        model.complete(&fake, 0, Words { index, len: 1, ..Words::default() });
    }
    let refused = Err(Error::Protocol("a frame in too many buffers"));
    assert_eq!(nic.receive(9, |_| ()), refused);
    assert_eq!(nic.receive(9, |_| ()), refused);

    // One that goes on in the data ring, though there is a body at that place.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { mtu: 9000, ..Options::default() });
    model.complete(&fake, 0, Words { index: rcd::SOP, len: 100, ..Words::default() });
    let index = 1 | rcd::EOP | 2 << rcd::RQID_SHIFT;
    model.complete(&fake, 0, Words { index, len: 100, ..Words::default() });
    assert!(matches!(nic.receive(9, |_| ()), Err(Error::Protocol(_))));
    // One that starts again.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    for index in 0..2 {
        model.complete(&fake, 0, Words { index: index | rcd::SOP, len: 100, ..Words::default() });
    }
    assert!(matches!(nic.receive(9, |_| ()), Err(Error::Protocol(_))));
    // One that is longer than any can be.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    assert!(model.arrive(&fake, 0, &pattern(65_558), 0));
    assert!(matches!(nic.receive(9, |_| ()), Err(Error::Protocol(_))));
    // And than the MTU, where frames are not put together.
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { large_receive: false, ..Options::default() });
    assert!(model.arrive(&fake, 0, &pattern(1522), 0));
    assert_eq!(nic.receive(9, |_| ()), Ok(1));
    assert!(model.arrive(&fake, 0, &pattern(1523), 0));
    assert!(matches!(nic.receive(9, |_| ()), Err(Error::Protocol(_))));
}

// There is none before revision 3.
#[test]
fn a_data_ring_that_there_is_not_is_not_looked_at() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { revision: 2, ..Options::default() });
    let index = rcd::SOP | rcd::EOP | 2 << rcd::RQID_SHIFT;
    model.complete(&fake, 0, Words { index, len: 64, ..Words::default() });
    let refused = Err(Error::Protocol("a completion of another queue"));
    assert_eq!(nic.receive(9, |_| ()), refused);
}

/// Every completion is there at once: each buffer is used once, and again only once it was given
/// again; and a lap later there is nothing new.
#[test]
fn an_adapter_that_reports_everything_at_once_gains_nothing() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let conf = model.receive_conf(&fake, 0).conf;
    let (ring, at) = fake.at(conf.comp_ring_base_pa.get());
    for index in 0..1280u32 {
        let at = at + 16 * usize::try_from(index).unwrap();
        let end = rcd::SOP | rcd::EOP;
        ring.write32(at, (index % 1024) | end);
        ring.write32(at + 8, 64);
        ring.write32(at + 12, 1 << 31);
    }
    nic.set_refill(256);
    let mut frames = 0;
    let result = nic.receive(u16::MAX, |_| frames += 1);
    // Each buffer once, and as often as it was given.
    assert!(result.is_ok() && frames == 1280, "{result:?} {frames}");
    assert_eq!(nic.receive(u16::MAX, |_| ()), Ok(0));
}
