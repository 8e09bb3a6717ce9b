//! What a client learns of the function, and its accesses.

use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use crate::testing::{Bench, Raw, count, reg};
use crate::version::Version;
use crate::wire::{Header, command, region};

fn words(payload: &[u8]) -> Vec<u32> {
    payload.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

fn ask(client: &mut Raw, command: u16, fields: &[u32]) -> (u32, Vec<u32>, usize) {
    let payload: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    let (header, payload, fds) = client.ask(command, &payload, &[]);
    (header.error, words(&payload), fds.len())
}

#[test]
fn the_function_is_described() {
    let bench = Bench::new();
    let mut client = bench.client();
    let info = ask(&mut client, command::GET_INFO, &[16, 0, 0, 0]);
    assert_eq!(info, (0, vec![16, 3, 9, 5], 0));
    let sizes = [0x4000, 0, 16, 0x1000, 0, 0, 0, 4096, 0];
    for (index, size) in (0..).zip(sizes) {
        let (_, info, fds) =
            ask(&mut client, command::GET_REGION_INFO, &[64, 0, index, 0, 0, 0, 0, 0]);
        let flags = if size == 0 { 0 } else { 3 };
        match index {
            // The page, for a client that can have it.
            0 => assert_eq!(
                (info, fds),
                (vec![64, 15, 0, 32, size, 0, 0, 0, 0x1_0001, 0, 1, 0, 0x1000, 0, 0x1000, 0], 1)
            ),
            _ => assert_eq!((info, fds), (vec![32, flags, index, 0, size, 0, 0, 0], 0)),
        }
    }
    for (index, count, flags) in [(0, 1, 7), (1, 1, 3), (2, 40, 3), (3, 0, 0), (4, 0, 0)] {
        let (_, info, _) = ask(&mut client, command::GET_IRQ_INFO, &[16, 0, index, 0]);
        assert_eq!(info, [16, flags, index, count]);
    }
    let invalid = u32::try_from(libc::EINVAL).unwrap();
    for (command, fields) in [
        (command::GET_INFO, vec![16, 0, 0]),
        (command::GET_REGION_INFO, vec![32, 0, 9, 0, 0, 0, 0, 0]),
        (command::GET_REGION_INFO, vec![31, 0, 0, 0, 0, 0, 0, 0]),
        (command::GET_REGION_INFO, vec![32, 0]),
        (command::GET_IRQ_INFO, vec![16, 0, 5, 0]),
        (command::GET_IRQ_INFO, vec![16, 0]),
        (command::GET_REGION_IO_FDS, vec![15, 0, 0, 0]),
        (command::GET_REGION_IO_FDS, vec![64, 1, 0, 0]),
        (command::GET_REGION_IO_FDS, vec![64, 0, 9, 0]),
        (command::GET_REGION_IO_FDS, vec![]),
    ] {
        assert_eq!(
            ask(&mut client, command, &fields),
            (invalid, vec![], 0),
            "{command} {fields:?}"
        );
    }
}

// The first look of clients that ask how much there is; QEMU's looks at cap_offset, too.
#[test]
fn who_has_no_room_for_capabilities_hears_how_much_it_takes() {
    let bench = Bench::new();
    let mut client = bench.client();
    let answer = ask(&mut client, command::GET_REGION_INFO, &[32, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer, (0, vec![64, 15, 0, 32, 0x4000, 0, 0, 0], 0));
}

#[test]
fn a_page_is_for_who_maps_it_for_reads_alone() {
    let bench = Bench::new();
    let mut client = Raw(bench.connect());
    client.ask(command::VERSION, b"\0\0\x01\0{\"capabilities\":{}}\0", &[]);
    let (_, info, fds) = ask(&mut client, command::GET_REGION_INFO, &[64, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((info, fds), (vec![32, 3, 0, 0, 0x4000, 0, 0, 0], 0));
    drop(client);

    let mut client = bench.client();
    client.write(0, reg::PAGE, &7_u32.to_le_bytes());
    let payload: Vec<u8> =
        [64_u32, 0, 0, 0, 0, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let (_, _, fds) = client.ask(command::GET_REGION_INFO, &payload, &[]);
    let file = std::fs::File::from(fds.into_iter().next().unwrap());
    let mut word = [0; 4];
    file.read_exact_at(&mut word, 0x1000).unwrap();
    assert_eq!(word, [7, 0, 0, 0]);
    assert!(file.write_at(&[1], 0x1000).is_err(), "it is for reads");
}

#[test]
fn every_access_is_answered() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.write(0, reg::SCRATCH, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(client.read(0, reg::SCRATCH + 1, 3), [2, 3, 4]);
    assert_eq!(client.read(region::CONFIG, 0, 4), [0x34, 0x12, 0x78, 0x56]);
    assert_eq!(client.read(region::CONFIG, 0, 4096).len(), 4096);
    assert_eq!(client.read(region::CONFIG, 0xffe, 4), [0, 0, 0xff, 0xff]);
    assert_eq!(client.read(0, 0x3ffe, 4), [0, 0, 0xff, 0xff]);
    assert!(client.read(0, 0, 0).is_empty());
    let ones = |client: &mut Raw, region, offset, len: u32| {
        let ones = vec![0xff; usize::try_from(len).unwrap()];
        assert_eq!(client.read(region, offset, len), ones, "{region} {offset:#x}");
        client.write(region, offset, &ones);
    };
    for region in [0, 1, 2, 5, 6, 7, 8, 9, u32::MAX] {
        for offset in [0x4000, 0x1_0000, u64::from(u32::MAX), u64::MAX - 7, u64::MAX] {
            ones(&mut client, region, offset, 8);
        }
    }
    ones(&mut client, 8, 0, 1 << 20);
    assert_eq!(client.read(0, 0, 1 << 20).len(), 1 << 20);
    client.write(3, 0, &vec![0; 1 << 20]);
    assert_eq!(client.read(0, reg::SCRATCH, 4), [1, 2, 3, 4], "nothing has changed it");
}

#[test]
fn several_writes_are_one_message() {
    let bench = Bench::new();
    let mut client = bench.client();
    let mut payload = 3_u64.to_le_bytes().to_vec();
    for (offset, region, len, data) in [(8, 0, 2, 0x0201), (8, 0, 9, 1), (10, 0, 1, 3)]
        .map(|(o, r, l, d): (u64, u32, u32, u64)| (o, r, l, d))
    {
        payload.extend(offset.to_le_bytes());
        payload.extend(region.to_le_bytes());
        payload.extend(len.to_le_bytes());
        payload.extend(data.to_le_bytes());
    }
    let (_, answer, _) = client.ask(command::REGION_WRITE_MULTI, &payload, &[]);
    assert_eq!(answer, 1_u64.to_le_bytes(), "the second makes no sense");
    assert_eq!(client.read(0, 8, 4), [1, 2, 0, 0]);
    payload[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let (_, answer, _) = client.ask(command::REGION_WRITE_MULTI, &payload[..32], &[]);
    assert_eq!(answer, 1_u64.to_le_bytes());
    assert_eq!(client.errno(command::REGION_WRITE_MULTI, &[0; 7], &[]), libc::EINVAL);
}

#[test]
fn doorbells_are_eventfds() {
    let bench = Bench::new();
    let mut client = bench.client();
    let (_, answer, fds) = ask(&mut client, command::GET_REGION_IO_FDS, &[256, 0, 0, 0]);
    assert_eq!(fds, 2);
    assert_eq!(answer[..4], [96, 0, 0, 2]);
    assert_eq!(answer[4..14], [0x40, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer[14..], [0x44, 0, 4, 0, 1, 0, 1, 0, 7, 0]);
    let payload: Vec<u8> = [256_u32, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    let (_, _, fds) = client.ask(command::GET_REGION_IO_FDS, &payload, &[]);
    let event = crate::sys::eventfd(fds.into_iter().nth(1).unwrap()).unwrap();
    event.write(1).unwrap();
    assert_eq!(bench.seen.events.lock().unwrap().iter().map(count).collect::<Vec<_>>(), [0, 1]);
    client.write(0, reg::BELL, &[0; 4]);
    assert_eq!(bench.seen.bells.load(Ordering::Relaxed), 1);
    // Too little room, another region, and a client that takes one descriptor.
    assert_eq!(
        ask(&mut client, command::GET_REGION_IO_FDS, &[16, 0, 0, 0]),
        (0, vec![96, 0, 0, 2], 0)
    );
    assert_eq!(
        ask(&mut client, command::GET_REGION_IO_FDS, &[256, 0, 2, 0]),
        (0, vec![16, 0, 2, 0], 0)
    );
    drop(client);
    let mut client = Raw(bench.connect());
    client.ask(command::VERSION, &[0, 0, 1, 0], &[]);
    let (_, answer, fds) = ask(&mut client, command::GET_REGION_IO_FDS, &[256, 0, 0, 0]);
    assert_eq!((&answer[..4], fds), ([56, 0, 0, 1].as_slice(), 1));
}

#[test]
fn a_reset_is_honoured_and_a_request_without_a_reply_has_none() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.write(0, reg::SCRATCH, &[1]);
    let write = [8_u64.to_le_bytes().as_slice(), &[0, 0, 0, 0, 1, 0, 0, 0, 9]].concat();
    let silent = Header { command: command::REGION_WRITE, flags: 1 << 4, ..Header::default() };
    client.send(silent, &write, &[]);
    client.send(Header { command: 77, ..silent }, &[1, 2, 3], &[]);
    assert_eq!(client.read(0, reg::SCRATCH, 1), [9]);
    assert_eq!(client.errno(command::RESET, &[], &[]), 0);
    assert_eq!(bench.seen.resets.load(Ordering::Relaxed), 1);
    assert_eq!(client.read(0, reg::SCRATCH, 1), [0]);
}

#[test]
fn what_is_not_known_is_refused_and_the_stream_stays_in_step() {
    let bench = Bench::new();
    let mut client = bench.client();
    // 14 was once something else; 11 and 12 are the server's to send.
    for command in [0, 11, 12, 14, 19, 1000, u16::MAX] {
        assert_eq!(client.errno(command, &[0xff; 333], &[]), libc::EOPNOTSUPP, "{command}");
    }
    assert_eq!(client.errno(command::VERSION, &Version::proposal().bytes(), &[]), libc::EOPNOTSUPP);
    assert_eq!(client.read(region::CONFIG, 0, 2), [0x34, 0x12]);
}
