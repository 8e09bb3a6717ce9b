//! What an adapter must not say.

use super::*;

#[test]
fn lies_about_completions_are_errors() {
    // For a read of 512 bytes with tag 2, of 8.
    let good = device::Completion { context: 3, len: 512, ..Default::default() };
    let sense = device::Completion { status: 2, ..good };
    let lies = [
        vec![good, good],
        vec![device::Completion { context: 0, ..good }],
        vec![device::Completion { context: 2, ..good }],
        vec![device::Completion { context: 9, ..good }],
        vec![device::Completion { context: 3 | 1 << 16, ..good }],
        vec![device::Completion { context: 3 | 1 << 32, ..good }],
        vec![device::Completion { context: u64::MAX, ..good }],
        vec![device::Completion { len: 513, ..good }],
        vec![device::Completion { len: 1 << 32, ..good }],
        vec![device::Completion { len: u64::MAX, host: 0x1a, ..good }],
        vec![device::Completion { sense: 97, ..sense }],
        vec![device::Completion { sense: u32::MAX, ..sense }],
        vec![device::Completion { status: 0x100, ..good }],
        vec![device::Completion { status: 0x102, ..good }],
    ];
    for completions in lies {
        let bench = Bench::usual();
        let mut disk = disk(&bench, Options::new(8));
        disk.submit(2, 0, Op::Read(&region(&bench, 512))).unwrap();
        disk.kick().unwrap();
        bench.take().unwrap();
        completions.iter().for_each(|completion| bench.give(*completion));
        let result = poll(&mut disk);
        assert!(matches!(result, Err(Error::Protocol(_))), "{completions:?} {result:?}");
    }
    // A write and its data, and a request without.
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    disk.submit(2, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.give(device::Completion { len: 1, ..good });
    assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
}

// CVE-2016-7421 in the other direction: the adapter's index is anything.
#[test]
fn an_index_that_jumps_is_an_error() {
    for ahead in [129, 1000, 0x8000_0000, u32::MAX] {
        let bench = Bench::usual();
        let mut disk = disk(&bench, Options::new(8));
        disk.submit(2, 0, Op::Read(&region(&bench, 512))).unwrap();
        disk.kick().unwrap();
        bench.claim(bench.released().wrapping_add(ahead));
        let error = Error::Protocol("more on a ring than it has room for");
        assert_eq!(poll(&mut disk), Err(error));
    }
    // As far as there is room for, but with nothing there: of the completions one, which was for an
    // earlier request with this tag, is believed, and no more.
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    bench.claim(bench.released() + 128);
    assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
}

#[test]
fn a_request_that_came_back_cannot_come_back_again() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    let good = device::Completion { context: 2, len: 512, ..Default::default() };
    disk.submit(1, 0, Op::Read(&region(&bench, 512))).unwrap();
    disk.submit(2, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.give(good);
    assert_eq!(poll(&mut disk), Ok(vec![done(1)]));
    bench.give(good);
    assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
    // Nor one that is about to be issued again.
    let bench = Bench::usual();
    let mut disk = disk_of(&bench);
    disk.submit(1, 0, Op::Read(&region(&bench, 512))).unwrap();
    disk.kick().unwrap();
    let taken = bench.take().unwrap();
    bench.complete(&taken, &Reply::check(6, 0x29, 0));
    bench.give(good);
    assert!(matches!(poll(&mut disk), Err(Error::Protocol(_))));
}

fn disk_of(bench: &Bench) -> Pvscsi<'_, Fake> {
    disk(bench, Options::new(8))
}

#[test]
fn an_adapter_that_lies_while_it_is_reset_is_noticed_and_all_ends() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options::new(8));
    disk.submit(1, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.give(device::Completion { context: 77, ..Default::default() });
    let mut completions = Completions::new();
    assert!(disk.reset_adapter(&mut completions).is_err());
    assert_eq!(completions.as_slice(), [failed(1, Failed::Aborted)]);
    disk.submit(1, 0, Op::Flush).unwrap();
    disk.kick().unwrap();
    bench.serve();
    assert_eq!(poll(&mut disk), Ok(vec![done(1)]));
}

#[test]
fn an_adapter_that_is_gone_reads_as_ones() {
    let bench = Bench::usual();
    let mut disk = disk(&bench, Options { signal: Signal::Pin, ..Options::new(8) });
    disk.set_interrupts(true).unwrap();
    bench.adapter.borrow_mut().causes = u32::MAX;
    assert_eq!(handle(&mut disk), Ok(vec![]));
    assert_eq!(bench.fake.ended.get(), 1);
}
