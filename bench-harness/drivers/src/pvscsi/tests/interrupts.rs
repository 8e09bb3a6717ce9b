//! Interrupts.

use super::device::{INTR_MASK, INTR_STATUS, MSI_CAPABILITY, MSIX_CAPABILITY};
use super::*;

fn with(signal: Signal) -> Options {
    Options { signal, interrupt: 7, ..Options::new(8) }
}

#[test]
fn the_interrupt_goes_the_way_that_was_asked_for() {
    let bench = Bench::usual();
    let disk = disk(&bench, with(Signal::Best));
    assert_eq!(disk.interrupt(), 7);
    assert_eq!(bench.config(MSIX_CAPABILITY) >> 30, 0b10);
    assert_eq!(bench.config(MSI_CAPABILITY) >> 16 & 1, 0);
    let message = [(12, 1), (12, 1), (0, 0xfee0_0000), (4, 0), (8, 7), (12, 0)];
    assert_eq!(bench.adapter.borrow().table, message);
    // From one to another on the same machine.
    Pvscsi::new(&bench.fake, with(Signal::Msi)).map(|_| ()).unwrap_err();
    bench.adapter.borrow_mut().idle = false;
    Pvscsi::new(&bench.fake, with(Signal::Msi)).unwrap();
    assert_eq!(bench.config(MSIX_CAPABILITY) >> 30, 0);
    assert_eq!(bench.config(MSI_CAPABILITY) >> 16 & 1, 1);
    assert_eq!(bench.config(MSI_CAPABILITY + 1), 0xfee0_0000);
    assert_eq!(bench.config(MSI_CAPABILITY + 3), 7);
    Pvscsi::new(&bench.fake, with(Signal::Pin)).unwrap();
    assert_eq!(bench.config(MSI_CAPABILITY) >> 16 & 1, 0);
    assert_eq!(bench.fake.pins.borrow().get(&3), Some(&7));
    assert_eq!(bench.config(1) & 0x400, 0);
}

#[test]
fn without_msix_it_is_msi_and_without_that_the_pin() {
    let bench = Bench::usual();
    // The list of capabilities begins with MSI.
    bench.set_config(0x34 / 4, 0x60);
    Pvscsi::new(&bench.fake, with(Signal::Best)).unwrap();
    assert_eq!(bench.config(MSI_CAPABILITY) >> 16 & 1, 1);
    bench.set_config(0x34 / 4, 0);
    Pvscsi::new(&bench.fake, with(Signal::Best)).unwrap();
    assert_eq!(bench.fake.pins.borrow().get(&3), Some(&7));
    let error = Error::Unsupported("message-signalled interrupts");
    assert_eq!(failure(&bench, with(Signal::Msi)), error);
    // A pin that leads nowhere: it can be polled.
    let nowhere = |signal| Options { interrupt: 16, ..with(signal) };
    let error = Error::Unsupported("an interrupt pin that leads anywhere");
    assert_eq!(failure(&bench, nowhere(Signal::Pin)), error);
    let mut disk = disk(&bench, nowhere(Signal::Best));
    let error = Error::Unsupported("interrupts that reach the platform");
    assert_eq!(disk.set_interrupts(true), Err(error));
    disk.submit(0, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.serve();
    assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
}

#[test]
fn turning_them_on_forgets_what_was_before() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, with(Signal::Best));
    assert_ne!(bench.adapter.borrow().causes, 0);
    disk.set_interrupts(true).unwrap();
    assert_eq!(bench.writes(), [(INTR_STATUS, 15), (INTR_MASK, 15)]);
    disk.set_interrupts(false).unwrap();
    assert_eq!(bench.writes(), [(INTR_MASK, 0)]);
}

fn complete_one(bench: &Bench, disk: &mut Pvscsi<'_, Fake>) {
    disk.submit(3, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.serve();
}

#[test]
fn a_message_costs_no_register_access() {
    for signal in [Signal::Best, Signal::Msi] {
        let bench = Bench::usual();
        let mut disk = disk(&bench, with(signal));
        disk.set_interrupts(true).unwrap();
        for _ in 0..3 {
            complete_one(&bench, &mut disk);
            let work = |disk: &mut Pvscsi<'_, _>| assert_eq!(handle(disk), Ok(vec![done(3)]));
            assert_eq!(bench.accesses(&mut disk, work), (vec![], vec![]));
        }
        assert_eq!((bench.fake.interrupts.get(), bench.fake.ended.get()), (3, 0));
    }
}

#[test]
fn the_pin_costs_a_read_and_a_write() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, with(Signal::Pin));
    disk.set_interrupts(true).unwrap();
    for round in 1..4 {
        complete_one(&bench, &mut disk);
        bench.adapter.borrow_mut().causes |= 4;
        let work = |disk: &mut Pvscsi<'_, _>| assert_eq!(handle(disk), Ok(vec![done(3)]));
        assert_eq!(bench.accesses(&mut disk, work), (vec![INTR_STATUS], vec![INTR_STATUS]));
        assert_eq!(bench.adapter.borrow().causes, 0);
        assert_eq!(bench.fake.ended.get(), round);
    }
    // It was somebody else on the same line.
    disk.submit(3, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.serve();
    bench.adapter.borrow_mut().causes = 0;
    let work = |disk: &mut Pvscsi<'_, _>| assert_eq!(handle(disk), Ok(vec![]));
    assert_eq!(bench.accesses(&mut disk, work), (vec![INTR_STATUS], vec![]));
    assert_eq!(bench.fake.ended.get(), 4);
    disk.shutdown().unwrap();
    assert_eq!(bench.config(1) & 0x400, 0x400);
    assert_eq!(bench.fake.ended.get(), 5);
}
