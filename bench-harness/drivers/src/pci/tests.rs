extern crate std;

use std::vec::Vec;

use paraslot_spec::pci::Command;

use super::bars::Taken;
use super::{Bar, Function, Signal, Way, connect, functions};
use crate::testing::Fake;
use crate::{Error, Platform};

fn function<P: Platform>(platform: &P, device: u8) -> Function<'_, P> {
    functions(platform).find(|function| function.bdf().device == device).unwrap()
}

#[test]
fn every_function_of_a_multi_function_device_is_found_and_no_other() {
    let fake = Fake::new();
    fake.add(0, 0, 0);
    fake.add(3, 0, 0x80);
    fake.add(3, 5, 0);
    // Not a multi-function device: what answers at function 1 is an echo.
    fake.add(7, 0, 0);
    fake.add(7, 1, 0);
    let found: Vec<_> = functions(&fake).map(|function| function.bdf()).collect();
    let found: Vec<_> = found.into_iter().map(|bdf| (bdf.device, bdf.function)).collect();
    assert_eq!(found, [(0, 0), (3, 0), (3, 5), (7, 0)]);
}

// A capability pointer to itself, or into the header: an endless walk in several VMMs.
#[test]
fn a_walk_along_looping_capabilities_ends() {
    let fake = Fake::new();
    fake.add(1, 0, 0);
    let set = |offset: usize, value| {
        fake.functions.borrow_mut().get_mut(&(1, 0)).unwrap().words[offset / 4] = value;
    };
    set(4, 1 << 20);
    set(0x34, 0x40);
    set(0x40, 0x5009);
    set(0x50, 0x4011);
    let function = function(&fake, 1);
    assert_eq!(function.capabilities().count(), 48);
    assert_eq!(function.capability(0x11), Some(0x50));
    assert_eq!(function.capability(0x05), None);
    set(0x50, 0x0411);
    assert_eq!(function.capabilities().count(), 2);
    set(4, 0);
    assert_eq!(function.capabilities().count(), 0);
}

#[test]
fn only_what_the_firmware_left_is_placed_and_never_over_something_else() {
    let fake = Fake::new();
    for (device, header_type) in [(0, 0), (1, 0), (2, 1)] {
        fake.add(device, 0, header_type);
    }
    fake.bar(0, 0, 0x1000, false, 0xe000_1000);
    fake.bar(0, 1, 0x10_0000, true, 0x8_0000_0000);
    // A bridge's window.
    fake.functions.borrow_mut().get_mut(&(2, 0)).unwrap().words[0x20 / 4] = 0xe010_e010;
    fake.bar(1, 0, 0x1000, false, 0);
    fake.bar(1, 1, 0x4000, true, 0);
    fake.bar(1, 3, 0x20_0000, false, 0);
    fake.bar(1, 4, 0x10, true, 0xe100_0000);
    let function = function(&fake, 1);
    assert_eq!(function.bar(0), Err(Error::Protocol("a BAR without an address")));
    function.enable().unwrap();
    let at = |index| function.bar(index).map(|Bar { address, size }| (address, size));
    assert_eq!(at(0), Ok((0xe000_0000, 0x1000)));
    assert_eq!(at(1), Ok((0xe000_4000, 0x4000)));
    assert_eq!(at(2), Err(Error::Protocol("a BAR that does not exist")));
    assert_eq!(at(3), Ok((0xe020_0000, 0x20_0000)));
    assert_eq!(at(4), Ok((0xe100_0000, 0x10)));
    assert_eq!(at(5), Err(Error::Protocol("a BAR that does not exist")));
    assert_eq!(at(6), Err(Error::Protocol("a BAR that does not exist")));
    let on = Command::MEMORY | Command::BUS_MASTER | Command::INTX_DISABLE;
    assert_eq!(function.command(), on);
    // What other functions had is as it was.
    let other = super::tests::function(&fake, 0);
    assert_eq!(other.bar(1), Ok(Bar { address: 0x8_0000_0000, size: 0x10_0000 }));
    assert_eq!(other.command(), Command::empty());
    // Nothing is left to place, so other functions are not even looked at.
    fake.config_accesses.set(0);
    function.enable().unwrap();
    assert!(fake.config_accesses.get() < 60, "{}", fake.config_accesses.get());
}

#[test]
fn io_bars_and_roms_are_left_alone_and_large_and_small_bars_placed() {
    let fake = Fake::new();
    fake.add(1, 0, 0);
    // As an e1000 has them, and a ROM; then a prefetchable one of 64 MiB and a small one.
    fake.bar(1, 0, 0x2_0000, false, 0);
    fake.bar(1, 2, 0x400_0000, true, 0);
    fake.bar(1, 4, 0x20, false, 0);
    fake.bar(1, 5, 0x10, false, 0);
    {
        let mut functions = fake.functions.borrow_mut();
        let config = functions.get_mut(&(1, 0)).unwrap();
        (config.words[5], config.writable[5]) = (1, 0xffff_ffc0);
        config.words[6] |= 8;
        config.writable[0x30 / 4] = 0xfffc_0001;
    }
    let function = function(&fake, 1);
    function.enable().unwrap();
    let at = |index| function.bar(index).map(|Bar { address, size }| (address, size));
    assert_eq!(at(0), Ok((0xe000_0000, 0x2_0000)));
    assert_eq!(at(1), Err(Error::Protocol("a BAR that does not exist")));
    assert_eq!(at(2), Ok((0xe400_0000, 0x400_0000)));
    // Each has a page to itself.
    assert_eq!(at(4), Ok((0xe002_0000, 0x20)));
    assert_eq!(at(5), Ok((0xe002_1000, 0x10)));
    // Upper halves, and registers that there are not.
    for index in [3, 6, 7, u8::MAX] {
        assert_eq!(at(index), Err(Error::Protocol("a BAR that does not exist")), "{index}");
    }
    // The others are not sized for it.
    let before = fake.config_accesses.get();
    function.bar(4).unwrap();
    let accesses = fake.config_accesses.get() - before;
    assert!(accesses < 20, "{accesses}");
    let words = &fake.functions.borrow()[&(1, 0)].words;
    assert_eq!((words[5], words[6], words[7]), (1, 0xe400_000c, 0));
    assert_eq!(words[0x30 / 4], 0, "the ROM is not even asked for its size");
    assert!(!function.command().contains(Command::IO));
}

#[test]
fn a_bar_that_does_not_fit_is_refused() {
    let fake = Fake::new();
    fake.add(1, 0, 0);
    fake.bar(1, 0, 0x2000_0000, false, 0);
    assert_eq!(function(&fake, 1).enable(), Err(Error::NoMemory));
}

#[test]
fn free_places_are_aligned_and_between_others() {
    let mut taken = Taken::default();
    taken.add(0x2000, 0x1000);
    taken.add(0x4000, 0x800);
    assert_eq!(taken.find(0x1000, 0x10000, 0x1000), Some(0x1000));
    taken.add(0x1000, 0x1000);
    assert_eq!(taken.find(0x1000, 0x10000, 0x1000), Some(0x3000));
    assert_eq!(taken.find(0x1000, 0x10000, 0x2000), Some(0x6000));
    assert_eq!(taken.find(0x1000, 0x10000, 0x800), Some(0x3000));
    assert_eq!(taken.find(0x1000, 0x3fff, 0x1000), None);
    assert_eq!(taken.find(u64::MAX - 0x10, u64::MAX, 0x1000), None);
    taken.add(u64::MAX - 0xfff, 0x1000);
    assert_eq!(taken.find(u64::MAX - 0x1fff, u64::MAX, 0x1000), Some(u64::MAX - 0x1fff));
}

/// Adds a function whose only capability is MSI.
fn add_msi(fake: &Fake, device: u8, control: u32) {
    fake.add(device, 0, 0);
    let mut functions = fake.functions.borrow_mut();
    let config = functions.get_mut(&(device, 0)).unwrap();
    config.words[1] = 1 << 20;
    config.words[0x34 / 4] = 0x50;
    config.words[0x50 / 4] = 5 | control << 16;
    config.writable[0x50 / 4] = 1 << 16;
    config.writable[0x54 / 4..][..4].fill(u32::MAX);
}

#[test]
fn an_interrupt_goes_the_best_way_that_there_is_or_the_one_that_was_asked_for() {
    let fake = Fake::new();
    add_msi(&fake, 1, 0);
    fake.add(2, 0, 0);
    let with = function(&fake, 1);
    let without = function(&fake, 2);
    let enabled = || fake.functions.borrow()[&(1, 0)].words[0x50 / 4] >> 16 & 1 != 0;
    assert_eq!(connect(with, 7, Signal::Best), Ok(Some(Way::Message)));
    assert!(enabled() && fake.pins.borrow().is_empty());
    assert_eq!(connect(with, 7, Signal::Pin), Ok(Some(Way::Pin)));
    assert!(!enabled(), "a function that sends messages does not assert its pin");
    assert_eq!(fake.pins.borrow_mut().remove(&1), Some(7));
    assert_eq!(connect(with, 7, Signal::Msi), Ok(Some(Way::Message)));
    assert!(enabled() && fake.pins.borrow().is_empty());
    without.set_command(Command::INTX_DISABLE);
    assert_eq!(connect(without, 7, Signal::Best), Ok(Some(Way::Pin)));
    assert_eq!(fake.pins.borrow().get(&2), Some(&7));
    assert!(!without.command().contains(Command::INTX_DISABLE));
    // Its pin leads nowhere: that matters only if it must be the pin.
    assert_eq!(connect(without, 16, Signal::Best), Ok(None));
    let nowhere = Error::Unsupported("an interrupt pin that leads anywhere");
    assert_eq!(connect(without, 16, Signal::Pin), Err(nowhere));
    let none = Error::Unsupported("message-signalled interrupts");
    assert_eq!(connect(without, 7, Signal::Msi), Err(none));
}

// 6.8.1: without the upper address half everything behind it lies 4 bytes lower.
#[test]
fn every_shape_of_msi_gets_its_message() {
    for (control, words) in [
        (0, [0xfee0_0000, 7, 0xa5, 0xa5]),
        (1 << 7, [0xfee0_0000, 0, 7, 0xa5]),
        (1 << 8, [0xfee0_0000, 7, 0, 0xa5]),
        (1 << 7 | 1 << 8, [0xfee0_0000, 0, 7, 0]),
    ] {
        let fake = Fake::new();
        add_msi(&fake, 1, control);
        fake.functions.borrow_mut().get_mut(&(1, 0)).unwrap().words[0x54 / 4..][..4].fill(0xa5);
        assert_eq!(connect(function(&fake, 1), 7, Signal::Msi), Ok(Some(Way::Message)));
        let found = &fake.functions.borrow()[&(1, 0)].words;
        assert_eq!(found[0x54 / 4..][..4], words, "{control:#x}");
        assert_eq!(found[0x50 / 4] >> 16, control | 1);
    }
}
