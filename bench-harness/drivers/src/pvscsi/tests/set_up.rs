//! Setting up.

use super::*;

#[test]
fn it_is_set_up_as_linux_does() {
    let bench = Bench::usual();
    let disk = Pvscsi::new(&bench.fake, Options::new(64)).unwrap();
    let commands = bench.commands();
    let codes: Vec<_> = commands.iter().map(|(command, words)| (*command, words.len())).collect();
    // Reset, targets; whether there are messages; rings, messages; whether there is a threshold, and
    // that it is wanted.
    assert_eq!(codes, [(1, 0), (7, 6), (8, 0), (3, 132), (8, 34), (10, 0), (10, 1)]);
    assert_eq!(commands[6].1, [1]);
    assert!(disk.uses_threshold());
    assert_eq!((disk.capacity(), disk.block_size()), (64 * 512, 512));
    assert_eq!((disk.max_depth(), disk.max_transfer()), (64, 32 * 512));
    assert_eq!(bench.adapter.borrow().mask, 0, "interrupts are off");
    // BAR, memory and mastership, by the command register.
    assert_eq!(bench.config(1) & 0x406, 0x406);
}

#[test]
fn rings_have_the_pages_that_the_depth_needs() {
    for (depth, count) in [(1, 1), (32, 1), (33, 2), (64, 2), (65, 4), (129, 8), (256, 8)] {
        let bench = Bench::usual();
        Pvscsi::new(&bench.fake, Options::new(depth)).unwrap();
        let commands = bench.commands();
        let (_, words) = commands.iter().find(|(command, _)| *command == 3).unwrap();
        assert_eq!(words[..2], [count, count], "{depth}");
        let page = |at: usize| u64::from(words[at]) | u64::from(words[at + 1]) << 32;
        let count = count as usize;
        let mut pages: Vec<u64> = (0..count).map(|index| page(4 + 2 * index)).collect();
        pages.extend((0..count).map(|index| page(68 + 2 * index)));
        pages.push(page(2));
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), 2 * count + 1, "pages are used twice");
    }
}

#[test]
fn adapters_without_messages_or_thresholds_do_too() {
    let bench = Bench::usual();
    bench.adapter.borrow_mut().has_messages = false;
    bench.adapter.borrow_mut().threshold = None;
    let mut disk = Pvscsi::new(&bench.fake, Options::new(1)).unwrap();
    let codes: Vec<_> = bench.commands().iter().map(|(command, _)| *command).collect();
    assert_eq!(codes, [1, 7, 8, 3, 10]);
    assert!(!disk.uses_threshold());
    disk.set_interrupts(true).unwrap();
    assert_eq!(bench.adapter.borrow().mask, 3);
    disk.messages(|message| panic!("{message:?}")).unwrap();
    // And drivers that do not want one.
    let bench = Bench::usual();
    let options = Options { threshold: false, ..Options::new(1) };
    assert!(!Pvscsi::new(&bench.fake, options).unwrap().uses_threshold());
    assert!(bench.commands().iter().all(|(command, _)| *command != 10));
}

#[test]
fn targets_are_those_that_the_adapter_has() {
    let targets = |phys| {
        let mut units = Units::default();
        units.units.insert((255, 0), TestUnit::disk());
        let bench = Bench::new(units);
        bench.adapter.borrow_mut().phys = phys;
        let result = Pvscsi::new(&bench.fake, Options::new(1)).map(|_| ());
        let luns = bench.adapter.borrow_mut().units.codes();
        (luns.iter().filter(|code| **code == 0xa0).count(), result)
    };
    let none = || Err(Error::NotFound);
    assert_eq!(targets(Some(3)), (3, none()));
    assert_eq!(targets(None), (16, none()));
    assert_eq!(targets(Some(0)), (16, none()));
    assert_eq!(targets(Some(255)), (255, none()));
    assert_eq!(targets(Some(256)), (256, Ok(())));
    assert_eq!(targets(Some(65535)), (256, Ok(())));
    assert_eq!(targets(Some(u32::MAX)), (16, none()));
}

#[test]
fn data_of_several_pieces_limits_transfers() {
    let bench = Bench::usual();
    bench.adapter.borrow_mut().units.disk().pages.clear();
    let most = |segment| {
        let options = Options { segment, ..Options::new(1) };
        Pvscsi::new(&bench.fake, options).map(|disk| disk.max_transfer())
    };
    assert_eq!(most(u32::MAX), Ok(0xffff * 512));
    assert_eq!(most(4096), Ok(128 * 4096));
    // 128 pieces, and no part of a block.
    assert_eq!(most(513), Ok(128 * 512));
    assert_eq!(most(u32::MAX - 1), Ok(0xffff * 512));
    assert_eq!(most(511), Err(Error::Request("bytes of a piece of memory")));
}

#[test]
fn what_cannot_be_set_up_is_refused_and_the_adapter_reset() {
    for depth in [0, 257, u16::MAX] {
        assert_eq!(failure(&Bench::usual(), Options::new(depth)), Error::Request("depth"));
    }
    let bench = Bench::usual();
    bench.adapter.borrow_mut().error = 1;
    let error = Error::Protocol("it does not take the rings");
    assert_eq!(failure(&bench, Options::new(1)), error);
    assert_eq!(bench.commands().last(), Some(&(1, vec![])));
    let bench = Bench::new(Units::default());
    assert_eq!(failure(&bench, Options::new(1)), Error::NotFound);
    assert_eq!(bench.commands().last(), Some(&(1, vec![])));
    let bench = Bench::usual();
    bench.adapter.borrow_mut().idle = true;
    assert_eq!(failure(&bench, Options::new(1)), Error::Timeout("command"));
    let bench = Bench::usual();
    bench.fake.bar(3, 0, 0x4000, false, device::BAR);
    assert_eq!(failure(&bench, Options::new(1)), Error::Protocol("the memory BAR is too small"));
    let bench = Bench::usual();
    bench.set_config(0, 0x07c1_15ad);
    assert_eq!(failure(&bench, Options::new(1)), Error::NotFound);
    // As much memory as it needs, and less.
    let bench = Bench::usual();
    let options = Options { segment: 4096, ..Options::new(8) };
    let before = bench.fake.memory.get();
    Pvscsi::new(&bench.fake, options).unwrap();
    let needed = before - bench.fake.memory.get();
    bench.fake.memory.set(needed);
    assert!(Pvscsi::new(&bench.fake, options).is_ok());
    for memory in (0..needed).step_by(509) {
        bench.fake.memory.set(memory);
        assert_eq!(failure(&bench, options), Error::NoMemory, "{memory}");
    }
}

#[test]
fn after_a_shutdown_it_is_reset_and_nothing_is_in_flight() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(4));
    disk.set_interrupts(true).unwrap();
    disk.submit(3, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    assert_eq!(disk.set_interrupts(false), Err(Error::Busy));
    bench.writes();
    disk.shutdown().unwrap();
    assert_eq!(bench.writes(), [(device::INTR_MASK, 0), (device::COMMAND, 1)]);
    assert_eq!(disk.set_interrupts(false), Ok(()));
}
