//! Device features: what the function has written.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use crate::testing::{Bench, Raw, memory, reg, until};
use crate::wire::{command, feature, region};

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;

fn fields(words: &[u32], numbers: &[u64]) -> Vec<u8> {
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    words.chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
}

fn start_message(page_size: u64, ranges: &[(u64, u64)]) -> Vec<u8> {
    let count = u32::try_from(ranges.len()).unwrap();
    let mut message =
        fields(&[24 + 16 * count, feature::LOGGING_START | feature::SET], &[page_size]);
    message.extend(fields(&[count, 0], &[]));
    ranges.iter().for_each(|&(start, len)| message.extend(fields(&[], &[start, len])));
    message
}

fn start(client: &mut Raw, ranges: &[(u64, u64)]) {
    let message = start_message(PAGE, ranges);
    let (header, answer, _) = client.ask(command::DEVICE_FEATURE, &message, &[]);
    assert_eq!((header.error, answer), (0, message));
}

fn stop(client: &mut Raw) {
    let message = fields(&[8, feature::LOGGING_STOP | feature::SET], &[]);
    let (header, answer, _) = client.ask(command::DEVICE_FEATURE, &message, &[]);
    assert_eq!((header.error, answer), (0, message));
}

const REPORT: u32 = feature::LOGGING_REPORT | feature::GET;

/// The bits that a report has of `len` bytes from `from` on, `page_size` to a bit.
fn report(client: &mut Raw, from: u64, len: u64, page_size: u64) -> Vec<u64> {
    let message = fields(&[1 << 20, REPORT], &[from, len, page_size]);
    let (header, answer, _) = client.ask(command::DEVICE_FEATURE, &message, &[]);
    assert_eq!(header.error, 0);
    let size = u32::try_from(answer.len()).unwrap();
    assert_eq!(answer[..32], fields(&[size, REPORT], &[from, len, page_size]));
    let bits = &answer[32..];
    assert_eq!(bits.len() as u64, len.div_ceil(page_size).div_ceil(64) * 8);
    (0..bits.len() as u64 * 8)
        .filter(|bit| bits[usize::try_from(bit / 8).unwrap()] >> (bit % 8) & 1 != 0)
        .collect()
}

fn errno(client: &mut Raw, message: &[u8]) -> i32 {
    client.errno(command::DEVICE_FEATURE, message, &[])
}

/// Has the function write memory at `target`, and stop once it has. Returns when it is quiet.
fn write(bench: &Bench, client: &mut Raw, target: u64) {
    client.write(region::CONFIG, 4, &[0x06, 0]);
    let before = bench.seen.writes.load(Ordering::SeqCst);
    client.write(0, reg::TARGET, &target.to_le_bytes());
    until("memory is written", || bench.seen.writes.load(Ordering::SeqCst) > before);
    let state = |state| fields(&[16, feature::DEVICE_STATE | feature::SET, state, 0], &[]);
    assert_eq!(errno(client, &state(feature::STOP)), 0);
    client.write(0, reg::TARGET, &0_u64.to_le_bytes());
    assert_eq!(errno(client, &state(feature::RUNNING)), 0);
}

#[test]
fn what_the_function_writes_is_told_of_once() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(2 * MIB));
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    assert_eq!(client.map(16 * MIB, MIB, MIB, &file), 0);
    write(&bench, &mut client, 8);
    start(&mut client, &[(0, MIB), (16 * MIB, MIB)]);
    assert!(report(&mut client, 0, 32 * MIB, PAGE).is_empty(), "that was before");
    write(&bench, &mut client, 5 * PAGE);
    write(&bench, &mut client, 16 * MIB + 7 * PAGE - 4);
    assert!(report(&mut client, 6 * PAGE, 16 * PAGE, PAGE).is_empty(), "elsewhere");
    let base = 16 * MIB / PAGE;
    assert_eq!(report(&mut client, 0, 32 * MIB, PAGE), [5, base + 6, base + 7]);
    assert!(report(&mut client, 0, 32 * MIB, PAGE).is_empty());
    // In larger pages than it is noted in, and from a place between them.
    write(&bench, &mut client, 5 * PAGE);
    write(&bench, &mut client, 9 * PAGE);
    assert_eq!(report(&mut client, 4 * PAGE, 12 * PAGE, 2 * PAGE), [0, 2]);
    write(&bench, &mut client, 5 * PAGE);
    assert_eq!(report(&mut client, 0, 32 * MIB, 16 * MIB), [0]);
    stop(&mut client);
    write(&bench, &mut client, 5 * PAGE);
    start(&mut client, &[]);
    assert!(report(&mut client, 0, 32 * MIB, PAGE).is_empty());
    write(&bench, &mut client, 16 * MIB);
    assert_eq!(report(&mut client, 16 * MIB, PAGE, PAGE), [0], "no range is all of them");
}

#[test]
fn it_goes_by_mappings_and_follows_them() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(2 * MIB));
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    start(&mut client, &[(MIB, MIB)]);
    write(&bench, &mut client, 8);
    assert!(report(&mut client, 0, 4 * MIB, PAGE).is_empty(), "in none of the ranges");
    assert_eq!(client.map(MIB, MIB, MIB, &file), 0);
    write(&bench, &mut client, MIB + PAGE);
    assert_eq!(report(&mut client, MIB, 3 * MIB, PAGE), [1], "mapped since");
    // What is begun again goes on, and has other memory besides.
    write(&bench, &mut client, MIB + PAGE);
    start(&mut client, &[(PAGE, PAGE)]);
    write(&bench, &mut client, PAGE);
    assert_eq!(report(&mut client, 0, 4 * MIB, PAGE), [1, MIB / PAGE + 1]);
    // What was noted goes with its memory.
    write(&bench, &mut client, MIB + PAGE);
    assert_eq!(client.unmap(MIB, MIB), 0);
    assert_eq!(client.map(MIB, MIB, MIB, &file), 0);
    assert!(report(&mut client, 0, 4 * MIB, PAGE).is_empty());
    // And with its client.
    write(&bench, &mut client, PAGE);
    drop(client);
    bench.end();
    let mut client = bench.client();
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    write(&bench, &mut client, PAGE);
    let message = fields(&[1 << 20, REPORT], &[0, MIB, PAGE]);
    assert_eq!(errno(&mut client, &message), libc::EINVAL);
    start(&mut client, &[(0, MIB)]);
    assert!(report(&mut client, 0, 4 * MIB, PAGE).is_empty());
}

/// Rounds of a live migration while the function writes here and there; nothing is lost.
#[test]
fn memory_is_copied_while_it_is_written() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(MIB));
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    client.write(region::CONFIG, 4, &[0x06, 0]);
    client.write(0, reg::TARGET, &64_u64.to_le_bytes());
    start(&mut client, &[(0, MIB)]);
    let mut copy = vec![0; usize::try_from(MIB).unwrap()];
    file.read_exact_at(&mut copy, 0).unwrap();
    let round = |client: &mut Raw, copy: &mut [u8]| {
        let pages = report(client, 0, MIB, PAGE);
        for page in &pages {
            let at = usize::try_from(page * PAGE).unwrap();
            file.read_exact_at(&mut copy[at..at + 4096], page * PAGE).unwrap();
        }
        pages.len()
    };
    let mut copied = 0;
    for target in (0..200).map(|step| 8 + step * 37 % 256 * PAGE) {
        client.write(0, reg::TARGET, &target.to_le_bytes());
        let before = bench.seen.writes.load(Ordering::SeqCst);
        until("it goes on", || bench.seen.writes.load(Ordering::SeqCst) > before + 1);
        copied += round(&mut client, &mut copy);
    }
    assert!(copied >= 200);
    let stop = fields(&[16, feature::DEVICE_STATE | feature::SET, feature::STOP, 0], &[]);
    assert_eq!(errno(&mut client, &stop), 0);
    round(&mut client, &mut copy);
    let mut now = vec![0; copy.len()];
    file.read_exact_at(&mut now, 0).unwrap();
    assert!(now == copy);
}

// lvu 75a0ac2 and its like: sizes that the client says.
#[test]
fn what_makes_no_sense_is_refused() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(MIB));
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    let good = start_message(PAGE, &[(0, MIB)]);
    for len in 8..good.len() {
        assert_eq!(errno(&mut client, &good[..len]), libc::EINVAL, "{len}");
    }
    for page_size in [0, 3, PAGE + 1] {
        let message = start_message(page_size, &[(0, MIB)]);
        assert_eq!(errno(&mut client, &message), libc::EINVAL, "{page_size}");
    }
    for range in [(0, 0), (1, u64::MAX), (u64::MAX, 1)] {
        let message = start_message(PAGE, &[(0, MIB), range]);
        assert_eq!(errno(&mut client, &message), libc::EINVAL, "{range:x?}");
    }
    let many: Vec<_> = (0..1025).map(|page| (page * PAGE, PAGE)).collect();
    assert_eq!(errno(&mut client, &start_message(PAGE, &many)), libc::E2BIG);
    let mut none = good.clone();
    none[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(errno(&mut client, &none), libc::E2BIG);
    let report = |argsz, from, len, page_size| fields(&[argsz, REPORT], &[from, len, page_size]);
    assert_eq!(errno(&mut client, &report(40, 0, MIB, PAGE)), libc::EINVAL, "nothing is noted");

    assert_eq!(errno(&mut client, &start_message(PAGE, &many[..1024])), 0);
    assert_eq!(errno(&mut client, &start_message(PAGE, &[(1 << 40, PAGE)])), libc::ENOSPC);
    assert_eq!(errno(&mut client, &report(40, 0, 64 * PAGE, PAGE)), 0);
    let most = (1 << 20) * 8 * PAGE;
    let room = 32 + (1 << 20);
    assert_eq!(errno(&mut client, &report(room, 0, most, PAGE)), 0);
    for (argsz, from, len, page_size) in [
        (39, 0, 64 * PAGE, PAGE),
        (40, 0, 65 * PAGE, PAGE),
        (u32::MAX, 0, most + PAGE, PAGE),
        (u32::MAX, 0, !(PAGE - 1), PAGE),
        (u32::MAX, PAGE, !(PAGE - 1), PAGE),
        (u32::MAX, 0, 0, PAGE),
        (u32::MAX, 1, PAGE, PAGE),
        (u32::MAX, 0, PAGE + 1, PAGE),
        (u32::MAX, 0, PAGE, 0),
        (u32::MAX, 0, PAGE, PAGE / 2),
        (u32::MAX, 0, PAGE, 3 * PAGE),
    ] {
        let message = report(argsz, from, len, page_size);
        assert_eq!(errno(&mut client, &message), libc::EINVAL, "{from:#x} {len:#x} {page_size}");
    }
    assert_eq!(errno(&mut client, &report(40, 0, 1 << 63, 1 << 63)), 0);
    assert_eq!(errno(&mut client, &report(40, 0, PAGE, PAGE)[..31]), libc::EINVAL);

    // Each is set or got, and a probe says which.
    for (number, can_set) in [
        (feature::LOGGING_START, true),
        (feature::LOGGING_STOP, true),
        (feature::LOGGING_REPORT, false),
    ] {
        for (flag, can) in [(feature::SET, can_set), (feature::GET, !can_set)] {
            let answer = if can { 0 } else { libc::ENOTTY };
            let probe = fields(&[8, number | flag | feature::PROBE], &[]);
            assert_eq!(errno(&mut client, &probe), answer, "{number}");
            if !can {
                assert_eq!(errno(&mut client, &fields(&[8, number | flag], &[])), libc::ENOTTY);
            }
        }
    }

    // A function that keeps requests in flight cannot begin now, and goes on.
    stop(&mut client);
    bench.seen.stuck.store(3, Ordering::SeqCst);
    assert_eq!(errno(&mut client, &good), libc::EBUSY);
    write(&bench, &mut client, 8);
    start(&mut client, &[(0, MIB)]);
}

/// Memory without an end, which a sparse file is, is not noted.
#[test]
fn bits_take_no_more_memory_than_is_meant() {
    let bench = Bench::new();
    let mut client = bench.client();
    let Some(file) = crate::testing::sparse(3 << 40) else { return };
    for address in [0, 4 << 40] {
        let errno = client.map(address, 3 << 40, 0, &file);
        assert_eq!(errno, 0);
    }
    assert_eq!(errno(&mut client, &start_message(PAGE, &[])), libc::ENOSPC);
    start(&mut client, &[(0, PAGE)]);
    write(&bench, &mut client, (3 << 40) - 8);
    let last = (3 << 40) - 64 * PAGE;
    assert_eq!(report(&mut client, last, 64 * PAGE, PAGE), [63]);
    assert_eq!(client.map(8 << 40, PAGE, 0, &file), 0, "in none of the ranges");
}
