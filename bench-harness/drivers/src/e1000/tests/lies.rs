//! Adapters that do not do as they should.

use super::*;

#[test]
fn an_adapter_that_does_not_work_is_an_error() {
    for (fault, error) in [
        (Fault::Gone, Error::Timeout("reset")),
        (Fault::Resets, Error::Timeout("reset")),
        (Fault::SilentEeprom, Error::Timeout("a word of the EEPROM")),
        (Fault::WrongEeprom, Error::Protocol("the EEPROM's checksum is wrong")),
        (Fault::GroupAddress, Error::Protocol("its address is not one station's")),
        (Fault::NoAddress, Error::Protocol("its address is not one station's")),
        (Fault::SilentPhy, Error::Timeout("an access to the PHY")),
        (Fault::DeadPhy, Error::Protocol("the PHY does not answer")),
        (Fault::OtherPhy, Error::Unsupported("a PHY other than the 82540EM's own")),
    ] {
        let (fake, _) = machine(fault);
        assert_eq!(E1000::new(&fake, Options::default()).err(), Some(error));
    }
    let fake = Fake::new();
    fake.add(0, 0, 0);
    assert_eq!(E1000::new(&fake, Options::default()).err(), Some(Error::NotFound));
    let (fake, _) = machine(Fault::None);
    fake.bar(SLOT, 0, MEMORY_BAR_SIZE / 2, false, BAR);
    let small = Error::Protocol("the memory BAR is too small");
    assert_eq!(E1000::new(&fake, Options::default()).err(), Some(small));
    let (fake, _) = machine(Fault::None);
    fake.memory.set(100_000);
    assert_eq!(E1000::new(&fake, Options::default()).err(), Some(Error::NoMemory));
}

#[test]
fn an_adapter_that_goes_away_is_an_error() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.set_interrupts(true).unwrap();
    model.fault.set(Fault::Gone);
    assert!(!nic.link_up());
    assert!(matches!(nic.begin(), Err(Error::Protocol(_))));
    assert_eq!(nic.shutdown(), Err(Error::Timeout("reset")));
}

#[test]
fn a_packet_that_cannot_be_is_an_error_and_stays_one() {
    let done = receive::DD | receive::EOP;
    for (len, status) in [
        // Longer than a buffer, than any packet; too short for a header, for a check sequence; nothing.
        (2049, done),
        (u16::MAX, done),
        (1523, done),
        (17, done),
        (3, done),
        (0, done),
        // Not all of it.
        (64, receive::DD),
    ] {
        let (fake, model) = machine(Fault::None);
        let mut nic = adapter(&fake, Options::default());
        assert!(model.arrive(&fake, &[1; 64], 0));
        let high = u64::from(model.get(registers::RDBAH)) << 32;
        let (ring, at) = fake.at(high | u64::from(model.get(registers::RDBAL)));
        ring.write16(at + 16 + 8, len);
        ring.write8(at + 16 + 12, status);
        let mut frames = 0;
        for expected in [1, 1] {
            let result = nic.receive(9, |_| frames += 1);
            assert!(matches!(result, Err(Error::Protocol(_))), "{len} {status}");
            assert_eq!(frames, expected);
        }
    }
}

/// Descriptors that it was not given, or that it has not come to, are not looked at.
#[test]
fn an_adapter_that_reports_everything_at_once_gains_nothing() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let (region, _) = traffic_frame(&fake, 64);
    (0..3).for_each(|tag| nic.transmit(tag, &region, 64, Task::None).unwrap());
    let report = || {
        let high = u64::from(model.get(registers::TDBAH)) << 32;
        let (ring, at) = fake.at(high | u64::from(model.get(registers::TDBAL)));
        (0..usize::from(RING)).for_each(|index| ring.write8(at + 16 * index + 12, 0xff));
    };
    // It has been told of none.
    report();
    assert!(reclaimed(&mut nic).is_empty());
    nic.kick().unwrap();
    nic.transmit(3, &region, 64, Task::None).unwrap();
    report();
    assert_eq!(reclaimed(&mut nic), [0, 1, 2]);
    nic.kick().unwrap();
    report();
    assert_eq!(reclaimed(&mut nic), [3]);
    // One out of order waits for those before it.
    (0..2).for_each(|tag| nic.transmit(tag, &region, 64, Task::None).unwrap());
    nic.kick().unwrap();
    model.fetch(&fake);
    let first = model.sent.borrow_mut().drain(..5).next_back().unwrap();
    assert!(model.report(&fake).is_some() && model.report(&fake).is_none());
    assert!(reclaimed(&mut nic).is_empty());
    model.sent.borrow_mut().push_back(first);
    model.report(&fake);
    assert_eq!(reclaimed(&mut nic), [0, 1]);
}
