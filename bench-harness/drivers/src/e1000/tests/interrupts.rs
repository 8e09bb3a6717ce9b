//! Interrupts, the link, and the end.

use super::*;

#[test]
fn an_interrupt_costs_what_it_costs_linux() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { interrupt: 5, ..Options::default() });
    let enabled = Cause::RXT0 | Cause::RXDMT0 | Cause::RXSEQ | Cause::LSC;
    model.take_trace();
    nic.set_interrupts(true).unwrap();
    let arm = [Write(registers::IMS, enabled.bits()), Read(registers::STATUS)];
    assert_eq!(model.take_trace(), arm);
    assert_eq!(fake.pins.borrow().get(&SLOT), Some(&5));
    assert_eq!(nic.interrupt(), 5);
    assert!(!command(&fake).contains(Command::INTX_DISABLE));

    assert!(model.raise(Cause::RXT0 | Cause::TXDW));
    assert_eq!((nic.begin(), fake.ended.get()), (Ok(true), 1));
    let disarm = [Read(registers::ICR), Write(registers::IMC, u32::MAX), Read(registers::STATUS)];
    assert_eq!(model.take_trace(), disarm);
    assert!(!model.asserted());
    assert_eq!(nic.end(), Ok(false));
    assert_eq!(model.take_trace(), arm);
    // Somebody else's.
    assert_eq!((nic.begin(), fake.ended.get()), (Ok(false), 2));
    assert_eq!(model.take_trace(), [Read(registers::ICR)]);

    // A cause that comes while another is handled interrupts afterwards.
    assert!(model.raise(Cause::RXT0));
    nic.begin().unwrap();
    assert!(!model.raise(Cause::RXT0));
    nic.end().unwrap();
    assert!(model.asserted());

    // Bulk changes the throttling, once.
    nic.begin().unwrap();
    (0..9).for_each(|_| assert!(model.arrive(&fake, &[1; 1514], 0)));
    assert_eq!(received(&mut nic, 64).len(), 9);
    model.take_trace();
    nic.end().unwrap();
    assert_eq!(model.take_trace()[0], Write(registers::ITR, 976));
    assert_eq!(model.get(registers::IMS), enabled.bits());

    // Quiet takes it back, but not on a slower link.
    for (status, interval) in [(UP, 434), (UP - (1 << 7) + (1 << 6), 976)] {
        model.status.set(status);
        model.raise(Cause::RXT0);
        assert_eq!(nic.begin(), Ok(true));
        assert!(model.arrive(&fake, &[1; 64], 0));
        assert_eq!(received(&mut nic, 64).len(), 1);
        nic.end().unwrap();
        assert_eq!(model.get(registers::ITR), interval);
    }

    // One that nobody began to handle must not be the last.
    assert!(model.raise(Cause::RXT0));
    nic.end().unwrap();
    assert_eq!(fake.ended.get(), 7);

    nic.set_interrupts(false).unwrap();
    assert!(!model.raise(enabled));
    assert_eq!(fake.ended.get(), 8);
    nic.end().unwrap();
    assert!(!model.asserted());
}

#[test]
fn transmitted_frames_interrupt_if_that_is_asked_for() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.take_trace();
    nic.set_transmit_interrupts(true);
    nic.set_transmit_interrupts(false);
    assert!(model.take_trace().is_empty());
    nic.set_interrupts(true).unwrap();
    model.get(registers::ICR);
    model.set(registers::ICR, 0);
    assert!(!model.raise(Cause::TXDW));
    model.take_trace();
    nic.set_transmit_interrupts(true);
    nic.set_transmit_interrupts(true);
    assert_eq!(model.take_trace(), [Write(registers::IMS, Cause::TXDW.bits())]);
    assert!(model.asserted());
    // While an interrupt is handled it takes no access.
    nic.begin().unwrap();
    model.take_trace();
    nic.set_transmit_interrupts(false);
    assert!(model.take_trace().is_empty());
    nic.end().unwrap();
    assert!(!model.raise(Cause::TXDW));
    nic.begin().unwrap();
    nic.set_transmit_interrupts(true);
    nic.end().unwrap();
    assert!(model.raise(Cause::TXDW));
    model.take_trace();
    nic.set_transmit_interrupts(false);
    assert_eq!(model.take_trace(), [Write(registers::IMC, Cause::TXDW.bits())]);
    // And what was sent is counted for the throttling.
    let (region, _) = traffic_frame(&fake, 65_000);
    nic.begin().unwrap();
    nic.transmit(0, &region, 65_000, Task::Segment { size: 9000 }).unwrap();
    nic.kick().unwrap();
    model.fetch(&fake);
    model.report(&fake);
    assert_eq!(reclaimed(&mut nic), [0]);
    nic.end().unwrap();
    assert_eq!(model.get(registers::ITR), 976);
}

#[test]
fn a_pin_that_leads_nowhere_is_an_error() {
    let (fake, _) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { interrupt: 16, ..Options::default() });
    assert!(matches!(nic.set_interrupts(true), Err(Error::Unsupported(_))));
    assert!(command(&fake).contains(Command::INTX_DISABLE));
}

#[test]
fn the_link_is_looked_at_when_asked() {
    let (fake, model) = machine(Fault::NoLink);
    let mut nic = adapter(&fake, Options::default());
    assert!(!nic.link_up());
    model.status.set(UP);
    assert!(nic.link_up());
    nic.set_interrupts(true).unwrap();
    model.status.set(0);
    assert!(model.raise(Cause::LSC));
    assert_eq!(nic.begin(), Ok(true));
    assert!(!nic.link_up());
}

#[test]
fn shutting_down_forgets_what_was_in_flight() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.set_interrupts(true).unwrap();
    let (region, _) = traffic_frame(&fake, 64);
    nic.transmit(0, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    model.raise(Cause::RXT0);
    let ended = fake.ended.get();
    nic.shutdown().unwrap();
    assert_eq!((model.resets.get(), fake.ended.get()), (2, ended + 1));
    assert_eq!((model.get(registers::RCTL), model.get(registers::TCTL)), (0, 0));
    assert!(command(&fake).contains(Command::INTX_DISABLE) && !model.asserted());
    assert!(reclaimed(&mut nic).is_empty());
    // Another driver finds it as if nothing had been.
    let mut nic = adapter(&fake, Options::default());
    nic.transmit(0, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    model.fetch(&fake);
    assert!(model.report(&fake).is_some());
    assert_eq!(reclaimed(&mut nic), [0]);
}
