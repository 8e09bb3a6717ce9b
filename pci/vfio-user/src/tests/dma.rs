//! The client's memory, while the function writes it.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use crate::connection::End;
use crate::survive_lost_memory;
use crate::testing::{Bench, Raw, map, memory, reg, unmap, until, word_at};
use crate::wire::{Header, command, region};

const MIB: u64 = 1 << 20;

/// Has the function write memory, again and again.
fn run(client: &mut Raw, target: u64) {
    client.write(region::CONFIG, 4, &[0x06, 0]);
    client.write(0, reg::TARGET, &target.to_le_bytes());
}

#[test]
fn the_function_writes_what_is_mapped_and_nothing_once_it_is_not() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(MIB));
    assert_eq!(client.map(0x10_0000, MIB / 2, MIB / 2, &file), 0);
    assert_eq!(client.map(0, MIB / 2, 0, &file), 0, "another part of the same file");
    run(&mut client, 0x10_0008);
    until("memory is written", || word_at(&file, MIB / 2 + 8) > 100);
    for _ in 0..20 {
        assert_eq!(client.unmap(0x10_0000, MIB / 2), 0);
        let last = word_at(&file, MIB / 2 + 8);
        let refused = bench.seen.refused.load(Ordering::Relaxed);
        until("it goes on", || bench.seen.refused.load(Ordering::Relaxed) > refused + 10);
        assert_eq!(word_at(&file, MIB / 2 + 8), last);
        assert_eq!(client.map(0x10_0000, MIB / 2, MIB / 2, &file), 0);
        until("memory is written", || word_at(&file, MIB / 2 + 8) > last);
    }
}

#[test]
fn memory_is_given_back_as_it_was_mapped_or_all_at_once() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(MIB));
    for address in [0, 0x10000, 0x20000] {
        assert_eq!(client.map(address, 0x10000, 0, &file), 0);
    }
    for (address, size) in
        [(0, 0x20000), (0, 0x1000), (0x1000, 0x1000), (0x30000, 0x1000), (u64::MAX, u64::MAX)]
    {
        assert_eq!(client.unmap(address, size), libc::ENOENT, "{address:#x} {size:#x}");
    }
    assert_eq!(client.unmap(0x10000, 0x10000), 0);
    assert_eq!(client.unmap(0x10000, 0x10000), libc::ENOENT);
    for flags in [1, 4, 3, u32::MAX] {
        let (header, _, _) = client.ask(command::DMA_UNMAP, &unmap(flags, 0, 0x10000), &[]);
        assert_eq!(header.error, u32::try_from(libc::EINVAL).unwrap());
    }
    let all = unmap(2, 0, 0);
    assert_eq!(client.ask(command::DMA_UNMAP, &all, &[]).1, all);
    assert_eq!(client.unmap(0, 0x10000), libc::ENOENT);
    assert_eq!(client.errno(command::DMA_UNMAP, &[0; 23], &[]), libc::EINVAL);
    assert_eq!(client.map(0, 0x10000, 0, &file), 0);
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(MIB));
    assert_eq!(client.map(0, 0x1000, 0, &file), 0);
    assert_eq!(client.map(0, 0x1000, 0, &file), libc::EEXIST);
    assert_eq!(client.map(0x1000, 0x1001, 0, &file), libc::EINVAL);
    let payload = map(3, 0, 0x10000, 0x1000);
    let mut refused = |payload: &[u8], fds: usize, errno| {
        assert_eq!(client.errno(command::DMA_MAP, payload, &vec![file.as_fd(); fds]), errno);
    };
    refused(&payload, 2, libc::EINVAL);
    refused(&payload[..31], 1, libc::EINVAL);
    refused(&map(0, 0, 0x10000, 0x1000), 1, libc::EINVAL);
    refused(&map(7, 0, 0x10000, 0x1000), 1, libc::EINVAL);
    refused(&payload, 1, 0);
}

// Without the handler, this process ends here.
#[test]
fn a_client_that_takes_its_memory_away_loses_its_connection() {
    survive_lost_memory().unwrap();
    let bench = Bench::new();
    for _ in 0..3 {
        let (mut client, file) = (bench.client(), memory(MIB));
        assert_eq!(client.map(0, MIB, 0, &file), 0);
        run(&mut client, MIB / 2);
        until("memory is written", || word_at(&file, MIB / 2) > 100);
        file.set_len(0x1000).unwrap();
        assert!(matches!(bench.end(), End::MemoryLost));
        assert!(matches!(client.receive(), Err(End::Closed)));
    }
    let (mut client, file) = (bench.client(), memory(MIB));
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    run(&mut client, MIB / 2);
    until("memory is written", || word_at(&file, MIB / 2) > 100);
}

// Requests that do not come back: the client is told that its memory is no longer used when that is so, or
// not at all.
#[test]
fn a_function_that_does_not_let_go_costs_its_client_the_connection() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(MIB));
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    run(&mut client, 64);
    until("memory is written", || word_at(&file, 64) > 100);
    bench.seen.stuck.store(2, Ordering::Relaxed);
    assert_eq!(client.unmap(0, MIB), 0, "it takes some time");
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    until("memory is written", || word_at(&file, 64) > 200);

    bench.seen.stuck.store(100, Ordering::Relaxed);
    let header = Header { command: command::DMA_UNMAP, ..Header::default() };
    client.send(header, &unmap(0, 0, MIB), &[]);
    assert!(matches!(client.receive(), Err(End::Closed)));
    assert!(matches!(bench.end(), End::Device(_)));
    let last = word_at(&file, 64);
    bench.seen.stuck.store(0, Ordering::Relaxed);
    let mut client = bench.client();
    assert_eq!(client.map(0, MIB, 0, &file), 0);
    assert_eq!(word_at(&file, 64), last);
    run(&mut client, 64);
    until("memory is written", || word_at(&file, 64) > last);
}
