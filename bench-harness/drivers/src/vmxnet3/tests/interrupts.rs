//! Interrupts, events, the link, and the end.

use paraslot_spec::vmxnet3::IC_DISABLE_ALL;

use super::*;

fn disabled(model: &Model, fake: &Fake) -> bool {
    model.shared(fake).dev_read.intr_conf.intr_ctrl.get() & IC_DISABLE_ALL != 0
}

#[test]
fn an_interrupt_by_msi_x_is_one_write() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { interrupt: 5, ..Options::default() });
    assert!(disabled(&model, &fake));
    model.raise(&fake, 0);
    assert_eq!(model.take_raised(), [0, 0, 0, 0]);
    model.take_trace();
    nic.set_interrupts(true).unwrap();
    assert!(!disabled(&model, &fake));
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0)]);
    // What was held back comes.
    assert_eq!(model.take_raised(), [1, 0, 0, 0]);

    let before = nic.accesses();
    assert_eq!(nic.begin(), Ok(true));
    assert!(model.arrive(&fake, 0, &[1; 64], 0));
    assert_eq!(received(&mut nic, 64).len(), 1);
    // One that comes meanwhile is the adapter's to remember.
    model.raise(&fake, 0);
    assert_eq!(model.take_raised(), [0, 0, 0, 0]);
    assert_eq!(nic.end(), Ok(false));
    assert_eq!(model.take_raised(), [1, 0, 0, 0]);
    let one = Accesses { reads: 0, writes: 1, doorbells: 0 };
    assert_eq!(nic.accesses().since(before), one);
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0)]);
    // What was sent does not interrupt.
    model.raise(&fake, 1);
    assert_eq!(model.take_raised(), [0, 0, 0, 0]);

    nic.begin().unwrap();
    nic.end().unwrap();
    model.take_trace();
    nic.set_interrupts(false).unwrap();
    assert_eq!(model.take_trace(), [WritePt(imr(0), 1), WritePt(imr(1), 1)]);
    assert!(disabled(&model, &fake));
    model.raise(&fake, 0);
    nic.end().unwrap();
    assert_eq!((model.take_raised(), model.take_trace()), (vec![0; 4], vec![]));
    // Messages are nobody's to acknowledge.
    assert_eq!(fake.ended.get(), 0);
}

#[test]
fn an_adapter_that_does_not_mask_is_masked() {
    for (mode, masks) in [(interrupt::IMM_ACTIVE, true), (interrupt::IMM_LAZY, false)] {
        let (fake, model) = machine(Fault::None);
        model.conf_intr.set(interrupt::IT_MSIX | mode << interrupt::IMM_SHIFT);
        let mut nic = adapter(&fake, Options::default());
        assert_eq!(model.shared(&fake).dev_read.intr_conf.auto_mask, 0);
        nic.set_interrupts(true).unwrap();
        for transmit in [false, true] {
            nic.set_transmit_interrupts(transmit);
            model.take_trace();
            model.raise(&fake, 0);
            assert_eq!(nic.begin(), Ok(true));
            let both = |value| {
                let count = if transmit { 2 } else { 1 };
                (0..count).map(|index| WritePt(imr(index), value)).collect::<Vec<_>>()
            };
            assert_eq!(model.take_trace(), if masks { both(1) } else { vec![] });
            nic.end().unwrap();
            assert_eq!(model.take_trace(), both(0));
        }
    }
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
    model.raise(&fake, 1);
    assert_eq!(model.take_raised(), [0, 0, 0, 0]);
    model.take_trace();
    nic.set_transmit_interrupts(true);
    nic.set_transmit_interrupts(true);
    assert_eq!(model.take_trace(), [WritePt(imr(1), 0)]);
    assert_eq!(model.take_raised(), [0, 1, 0, 0]);
    // Both are let through again, as nobody knows which it was.
    nic.begin().unwrap();
    nic.end().unwrap();
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0), WritePt(imr(1), 0)]);
    // It is kept away even while an interrupt is handled: that may have been another.
    nic.begin().unwrap();
    nic.set_transmit_interrupts(false);
    assert_eq!(model.take_trace(), [WritePt(imr(1), 1)]);
    nic.end().unwrap();
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0)]);
    // Allowing it then can wait for the end.
    nic.begin().unwrap();
    nic.set_transmit_interrupts(true);
    assert!(model.take_trace().is_empty());
    nic.end().unwrap();
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0), WritePt(imr(1), 0)]);
    // It outlasts interrupts that are off.
    nic.set_interrupts(false).unwrap();
    model.take_trace();
    nic.set_transmit_interrupts(true);
    assert!(model.take_trace().is_empty());
    nic.set_interrupts(true).unwrap();
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0), WritePt(imr(1), 0)]);
}

#[test]
fn shared_vectors_are_one_and_vectors_for_each_are_all() {
    for (vectors, transmit, written) in [
        (Vectors::Shared, false, 0..1),
        (Vectors::Shared, true, 0..1),
        (Vectors::Each, false, 0..3),
        (Vectors::Each, true, 0..4),
    ] {
        let (fake, model) = machine(Fault::None);
        let mut nic = adapter(&fake, Options { vectors, receive_queues: 3, ..Options::default() });
        nic.set_interrupts(true).unwrap();
        nic.set_transmit_interrupts(transmit);
        model.take_trace();
        assert_eq!(nic.begin(), Ok(true));
        nic.end().unwrap();
        let expected: Vec<_> = written.map(|index| WritePt(imr(index), 0)).collect();
        assert_eq!(model.take_trace(), expected, "{vectors:?}");
    }
}

#[test]
fn an_interrupt_by_msi_is_one_write_too() {
    let (fake, model) = machine_with(0, true);
    let mut nic = adapter(&fake, Options { interrupt: 7, ..Options::default() });
    assert_eq!((config(&fake, MSI + 4), config(&fake, MSI + 12)), (0xfee0_0000, 7));
    nic.set_interrupts(true).unwrap();
    nic.set_transmit_interrupts(true);
    model.raise(&fake, 0);
    model.take_trace();
    assert_eq!(nic.begin(), Ok(true));
    nic.set_transmit_interrupts(false);
    nic.end().unwrap();
    assert_eq!(model.take_trace(), [WritePt(imr(0), 0)]);
    assert_eq!((fake.ended.get(), pin_is_off(&fake)), (0, true));
}

#[test]
fn an_interrupt_by_the_pin_reads_its_cause() {
    let (fake, model) = machine_with(0, false);
    let mut nic = adapter(&fake, Options { interrupt: 5, ..Options::default() });
    nic.set_interrupts(true).unwrap();
    assert_eq!(fake.pins.borrow().get(&SLOT), Some(&5));
    assert!(!pin_is_off(&fake));
    model.take_trace();
    model.raise(&fake, 0);
    assert_eq!((nic.begin(), fake.ended.get()), (Ok(true), 1));
    assert_eq!(model.take_trace(), [ReadVd(registers::ICR)]);
    nic.end().unwrap();
    assert_eq!((model.take_trace(), fake.ended.get()), (vec![WritePt(imr(0), 0)], 1));
    // Somebody else's.
    assert_eq!((nic.begin(), fake.ended.get()), (Ok(false), 2));
    assert_eq!(model.take_trace(), [ReadVd(registers::ICR)]);
    // One that nobody began to handle must not be the last.
    model.raise(&fake, 0);
    nic.end().unwrap();
    assert_eq!(fake.ended.get(), 3);
    nic.set_interrupts(false).unwrap();
    assert_eq!(fake.ended.get(), 4);
    nic.shutdown().unwrap();
    assert_eq!((fake.ended.get(), pin_is_off(&fake)), (5, true));

    let (fake, _) = machine_with(0, false);
    let mut nic = adapter(&fake, Options { interrupt: 16, ..Options::default() });
    assert!(matches!(nic.set_interrupts(true), Err(Error::Unsupported(_))));
    assert!(pin_is_off(&fake));
}

#[test]
fn events_are_acknowledged_and_no_register_is_read_for_them() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.set_interrupts(true).unwrap();
    model.take_trace();
    model.happen(&fake, Events::LINK | Events::DEBUG);
    assert_eq!(model.take_raised(), [1, 0, 0, 0]);
    assert_eq!(nic.begin(), Ok(true));
    let events = (Events::LINK | Events::DEBUG).bits();
    assert_eq!(model.take_trace(), [WriteVd(registers::ECR, events)]);
    assert_eq!(model.shared(&fake).ecr.get(), 0);
    nic.end().unwrap();
    // Who polls sees them when there is nothing else.
    nic.set_interrupts(false).unwrap();
    for look in [
        |nic: &mut Vmxnet3<'_, Fake>| assert!(received(nic, 9).is_empty()),
        |nic: &mut Vmxnet3<'_, Fake>| assert!(reclaimed(nic).is_empty()),
    ] {
        model.happen(&fake, Events::LINK);
        model.take_trace();
        look(&mut nic);
        assert_eq!(model.take_trace(), [WriteVd(registers::ECR, Events::LINK.bits())]);
        look(&mut nic);
        assert!(model.take_trace().is_empty());
    }
}

#[test]
fn the_link_is_looked_at_when_asked() {
    let (fake, model) = machine(Fault::NoLink);
    let mut nic = adapter(&fake, Options::default());
    model.take_trace();
    assert!(!nic.link_up());
    let asked = [WriteVd(registers::CMD, command::GET_LINK), ReadVd(registers::CMD)];
    assert_eq!(model.take_trace(), asked);
    model.fault.set(Fault::None);
    assert!(nic.link_up());
}

#[test]
fn shutting_down_forgets_what_was_in_flight() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.set_interrupts(true).unwrap();
    let (region, _) = traffic_frame(&fake, 64);
    nic.transmit(0, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    model.commands.borrow_mut().clear();
    nic.shutdown().unwrap();
    assert_eq!(*model.commands.borrow(), [command::QUIESCE_DEV, command::RESET_DEV]);
    assert!(!model.active.get() && disabled(&model, &fake) && pin_is_off(&fake));
    assert!(model.masked.borrow().iter().all(|masked| *masked));
    assert!(reclaimed(&mut nic).is_empty());
    // Another driver finds it as if nothing had been.
    let mut nic = adapter(&fake, Options::default());
    assert!(model.fetch(&fake).is_none());
    nic.transmit(0, &region, 64, Task::None).unwrap();
    nic.kick().unwrap();
    model.report(&fake, model.fetch(&fake).unwrap().last);
    assert_eq!(reclaimed(&mut nic), [0]);
}
