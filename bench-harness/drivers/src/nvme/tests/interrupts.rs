//! Interrupts.

use super::model::{MSI_CAPABILITY, MSIX_CAPABILITY};
use super::*;

fn with(signal: Signal) -> Options {
    Options { signal, interrupt: 5, ..Options::new(4) }
}

fn config(fake: &Fake, word: usize) -> u32 {
    fake.functions.borrow()[&(4, 0)].words[word]
}

fn set_config(fake: &Fake, word: usize, value: u32) {
    fake.functions.borrow_mut().get_mut(&(4, 0)).unwrap().words[word] = value;
}

fn flush(fake: &Fake, model: &Model, disk: &mut Nvme<'_, Fake>) {
    disk.submit(3, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    model.serve(fake);
}

#[test]
fn a_polled_disk_never_interrupts_and_turning_that_makes_the_queues_anew() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, with(Signal::Best));
    for round in 0..3 {
        let on = round % 2 == 1;
        flush(&fake, &model, &mut disk);
        assert_eq!(poll(&mut disk), Ok(vec![done(3)]));
        assert_eq!(fake.interrupts.get(), 0);
        disk.set_interrupts(true).unwrap();
        let opcodes: Vec<u8> =
            model.administered.take().iter().map(|command| command.opcode).collect();
        assert_eq!(opcodes, [0, 4, 5, 1], "{on}");
        assert_eq!(fake.interrupts.get(), 0, "turning them on causes none");
        flush(&fake, &model, &mut disk);
        assert_eq!(fake.interrupts.replace(0), 1);
        model.take_writes();
        assert_eq!(handle(&mut disk), Ok(vec![done(3)]));
        assert_eq!(model.take_writes(), [(0x100c, 1)]);
        assert_eq!(model.reads.get(), 0);
        disk.submit(0, 0, Op::Flush).unwrap();
        assert_eq!(disk.set_interrupts(false), Err(Error::Busy));
        disk.kick().unwrap();
        model.serve(&fake);
        fake.interrupts.set(0);
        assert_eq!(poll(&mut disk), Ok(vec![done(0)]));
        disk.set_interrupts(false).unwrap();
        model.administered.take();
    }
    assert_eq!(fake.ended.get(), 0);
}

#[test]
fn the_interrupt_goes_the_way_that_was_asked_for() {
    let (fake, best) = usual();
    let masks = |model: &Model| -> Vec<_> {
        model.take_writes().into_iter().filter(|write| [0xc, 0x10].contains(&write.0)).collect()
    };
    let (msi_fake, model) = usual();
    // Firmware had it interrupt by MSI-X.
    set_config(&msi_fake, MSIX_CAPABILITY, 0x8007_6011);
    let mut disk = Nvme::new(&msi_fake, with(Signal::Msi)).unwrap();
    assert_eq!(config(&msi_fake, MSIX_CAPABILITY) >> 30, 0);
    assert_eq!(config(&msi_fake, MSI_CAPABILITY) >> 16 & 1, 1);
    assert_eq!(config(&msi_fake, MSI_CAPABILITY + 1), 0xfee0_0000);
    assert_eq!(config(&msi_fake, MSI_CAPABILITY + 3), 5);
    assert_eq!(masks(&model), [(0xc, u32::MAX)]);
    // The admin queue's interrupts are masked while queues are made.
    disk.set_interrupts(true).unwrap();
    assert_eq!(masks(&model), [(0xc, 1), (0x10, 1)]);
    assert_eq!(model.completions.borrow()[&1].vector, 0);
    disk.set_interrupts(false).unwrap();
    assert_eq!(masks(&model), [(0xc, 1)]);
    // And the other way round.
    set_config(&msi_fake, MSI_CAPABILITY, 0x0081_0005);
    Nvme::new(&msi_fake, with(Signal::Best)).unwrap();
    assert_eq!(config(&msi_fake, MSIX_CAPABILITY) >> 30, 0b10);
    assert_eq!(config(&msi_fake, MSI_CAPABILITY) >> 16 & 1, 0);
    // The best that there is: without MSI-X MSI, without that the pin, without that none.
    set_config(&fake, 0x34 / 4, 0x60);
    Nvme::new(&fake, with(Signal::Best)).unwrap();
    assert_eq!(config(&fake, MSI_CAPABILITY) >> 16 & 1, 1);
    set_config(&fake, 0x34 / 4, 0);
    Nvme::new(&fake, with(Signal::Best)).unwrap();
    assert_eq!(fake.pins.borrow().get(&4), Some(&5));
    assert_eq!(config(&fake, 1) & 0x400, 0);
    let nowhere = |signal| Options { interrupt: 16, ..with(signal) };
    let mut disk = Nvme::new(&fake, nowhere(Signal::Best)).unwrap();
    let none = Error::Unsupported("interrupts that reach the platform");
    assert_eq!(disk.set_interrupts(true), Err(none));
    assert_eq!(best.intms.get(), u32::MAX, "the admin queue's stay with it");
    let error = Error::Unsupported("an interrupt pin that leads anywhere");
    assert_eq!(failure(&fake, nowhere(Signal::Pin)), error);
    let error = Error::Unsupported("message-signalled interrupts");
    assert_eq!(failure(&fake, with(Signal::Msi)), error);
}

// The pin must be taken back at the controller before its handling ends, or it comes again for nothing.
#[test]
fn the_pin_is_taken_back_before_its_handling_ends() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, with(Signal::Pin));
    assert!(!model.asserted());
    disk.set_interrupts(true).unwrap();
    assert!(!model.asserted(), "the admin queue's completions were taken");
    for round in 1..4 {
        flush(&fake, &model, &mut disk);
        assert!(model.asserted());
        assert_eq!(handle(&mut disk), Ok(vec![done(3)]));
        assert!(!model.asserted());
        assert_eq!(fake.ended.get(), round);
    }
    // It was somebody else on the same line.
    assert_eq!(handle(&mut disk), Ok(vec![]));
    assert_eq!(fake.ended.get(), 4);
    disk.shutdown().unwrap();
    assert_eq!((config(&fake, 1) & 0x400, fake.ended.get()), (0x400, 5));
}

// 4.6: the phase tags of a new queue start at 1, wherever those of the old one were.
#[test]
fn new_queues_start_in_the_first_phase() {
    let (fake, model) = usual();
    let mut disk = disk(&fake, &model, with(Signal::Best));
    // Queues of five entries: in the first round, the second, the third.
    for commands in [2, 5, 7, 10, 13] {
        for on in [true, false] {
            for _ in 0..commands {
                flush(&fake, &model, &mut disk);
                assert_eq!(poll(&mut disk), Ok(vec![done(3)]), "{commands}");
            }
            disk.set_interrupts(on).unwrap();
        }
    }
}
