//! Memory that the client does not share: the function has it by messages.

mod hostile;

use std::sync::atomic::Ordering;

use crate::connection::End;
use crate::testing::{Bench, Raw, map, memory, reg, unmap, until, word_at};
use crate::version::Version;
use crate::wire::{DmaAccess, Fields, Header, command, region};

const ERROR: u32 = 1 << 5;
const REPLY: u32 = 1;

/// What the server asks for: an access, and the data of a write.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    header: Header,
    address: u64,
    count: u64,
    data: Vec<u8>,
}

impl Asked {
    /// The header and payload of the right answer.
    fn answer(&self, data: &[u8]) -> (Header, Vec<u8>) {
        let mut payload = Vec::new();
        DmaAccess { address: self.address, count: self.count }.put(&mut payload);
        payload.extend(data);
        (Header { flags: REPLY, ..self.header }, payload)
    }
}

impl Raw {
    fn lend(&mut self, flags: u32, address: u64, size: u64) -> i32 {
        self.errno(command::DMA_MAP, &map(flags, 0, address, size), &[])
    }

    fn asked(&mut self) -> Asked {
        let (header, payload, _) = self.receive().unwrap();
        asked(header, &payload).unwrap_or_else(|| panic!("{header:?}"))
    }

    /// Sends a command without waiting for its answer.
    fn begin(&mut self, command: u16, payload: &[u8]) {
        self.send(Header { id: 77, command, ..Header::default() }, payload, &[]);
    }

    /// Has the function read memory, before it answers.
    fn begin_fetch(&mut self, address: u64) {
        let address = address.to_le_bytes();
        self.begin(command::REGION_WRITE, &access(0, reg::FETCH, 8, &address));
    }

    fn expect_answer(&mut self, command: u16) -> Vec<u8> {
        let (header, payload, _) = self.receive().unwrap();
        assert_eq!((header.id, header.command, header.flags), (77, command, REPLY));
        payload
    }

    /// What the function has read.
    fn fetched(&mut self) -> Vec<u8> {
        self.read(0, reg::SCRATCH, 8)
    }
}

fn asked(header: Header, payload: &[u8]) -> Option<Asked> {
    let is_dma = [command::DMA_READ, command::DMA_WRITE].contains(&header.command);
    let mut fields = Fields(payload);
    let DmaAccess { address, count } = DmaAccess::parse(&mut fields).filter(|_| is_dma)?;
    let data = fields.rest().to_vec();
    (header.flags == 0).then_some(Asked { header, address, count, data })
}

fn access(region: u32, offset: u64, count: u32, data: &[u8]) -> Vec<u8> {
    [&offset.to_le_bytes(), &region.to_le_bytes()[..], &count.to_le_bytes(), data].concat()
}

/// A client that lends 64 KiB from 0x10000 on, to a function that may access them.
fn lender(bench: &Bench) -> Raw {
    let mut client = bench.client();
    assert_eq!(client.lend(3, 0x1_0000, 0x1_0000), 0);
    client.write(region::CONFIG, 4, &[0x06, 0]);
    client
}

fn is_well(bench: &Bench) {
    let mut client = lender(bench);
    client.begin_fetch(0x1_0010);
    let asked = client.asked();
    let (header, payload) = asked.answer(b"abcdefgh");
    client.send(header, &payload, &[]);
    client.expect_answer(command::REGION_WRITE);
    assert_eq!(client.fetched(), b"abcdefgh");
    drop(client);
    assert!(matches!(bench.end(), End::Closed));
}

#[test]
fn a_command_that_needs_memory_is_answered_when_the_memory_has_come() {
    is_well(&Bench::new());
}

#[test]
fn what_the_function_writes_is_sent_in_order() {
    let bench = Bench::new();
    let mut client = lender(&bench);
    client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x1_fff8_u64.to_le_bytes()));
    let (mut last, mut answered) = (0, false);
    while last < 50 || !answered {
        let (header, payload, _) = client.receive().unwrap();
        let Some(asked) = asked(header, &payload) else {
            assert_eq!(header.id, 77);
            answered = true;
            continue;
        };
        assert_eq!((asked.address, asked.count, asked.header.command), (0x1_fff8, 8, 12));
        let word = u64::from_le_bytes(asked.data.clone().try_into().unwrap());
        assert_eq!(word, last + 1);
        last = word;
        let (header, payload) = asked.answer(&[]);
        // As the specification has it, and as it is done.
        let short = if last % 2 == 0 { payload.len() } else { payload.len() - 4 };
        client.send(header, &payload[..short], &[]);
    }
}

// The server's session is in the middle of a command, and others come: they are not lost, and not done before.
#[test]
fn commands_that_come_meanwhile_are_done_afterwards_in_order() {
    let bench = Bench::new();
    let mut client = lender(&bench);
    client.begin_fetch(0x1_0000);
    let first = client.asked();
    for _ in 0..3 {
        client.begin(command::REGION_READ, &access(0, reg::SCRATCH, 8, &[]));
        client.begin_fetch(0x1_0008);
    }
    let (header, payload) = first.answer(&[1; 8]);
    client.send(header, &payload, &[]);
    client.expect_answer(command::REGION_WRITE);
    for round in 1..4 {
        assert_eq!(client.expect_answer(command::REGION_READ)[16..], [round; 8]);
        let asked = client.asked();
        assert_eq!((asked.address, asked.count), (0x1_0008, 8));
        let (header, payload) = asked.answer(&[round + 1; 8]);
        client.send(header, &payload, &[]);
        client.expect_answer(command::REGION_WRITE);
    }
    assert_eq!(client.fetched(), [4; 8]);
}

// Answers to two threads, the other way round.
#[test]
fn everybody_has_the_answer_to_what_it_has_asked() {
    let bench = Bench::new();
    let mut client = lender(&bench);
    client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x1_0100_u64.to_le_bytes()));
    let mut write = None;
    for _ in 0..2 {
        let (header, payload, _) = client.receive().unwrap();
        write = write.or_else(|| asked(header, &payload));
    }
    let write = write.unwrap();
    client.begin_fetch(0x1_0200);
    let read = client.asked();
    assert_eq!((write.header.command, read.header.command), (12, 11));
    assert_ne!(write.header.id, read.header.id);
    let (header, payload) = read.answer(&[7; 8]);
    client.send(header, &payload, &[]);
    // The worker still waits.
    client.expect_answer(command::REGION_WRITE);
    assert_eq!(client.fetched(), [7; 8]);
    assert_eq!(bench.seen.writes.load(Ordering::Relaxed), 0);
    let (header, payload) = write.answer(&[]);
    client.send(header, &payload, &[]);
    assert_eq!(client.asked().data, 2_u64.to_le_bytes());
}

#[test]
fn shared_and_lent_memory_go_together() {
    let bench = Bench::new();
    let (mut client, file) = (lender(&bench), memory(0x1_0000));
    assert_eq!(client.map(0, 0x1_0000, 0, &file), 0);
    std::os::unix::fs::FileExt::write_all_at(&file, &[1; 4], 0xfffc).unwrap();
    // Over the border.
    client.begin_fetch(0xfffc);
    let asked = client.asked();
    assert_eq!((asked.address, asked.count), (0x1_0000, 4));
    let (header, payload) = asked.answer(&[2; 4]);
    client.send(header, &payload, &[]);
    client.expect_answer(command::REGION_WRITE);
    assert_eq!(client.fetched(), [1, 1, 1, 1, 2, 2, 2, 2]);
    // What is shared costs no message.
    client.write(0, reg::TARGET, &8_u64.to_le_bytes());
    until("memory is written", || word_at(&file, 8) > 100);
    assert_eq!(client.fetched(), [1, 1, 1, 1, 2, 2, 2, 2]);
}

#[test]
fn memory_is_had_as_it_was_lent() {
    let bench = Bench::new();
    let mut client = bench.client();
    assert_eq!(client.lend(1, 0x1000, 0x1000), 0);
    assert_eq!(client.lend(2, 0x2000, 0x1000), 0);
    assert_eq!(client.lend(3, 0x2000, 0x1000), libc::EEXIST);
    for (flags, address, size) in
        [(0, 0x8000, 0x1000), (3, 0x8000, 0), (3, 0x8000, 0x800), (3, !0xfff, 0x2000), (7, 0, 1)]
    {
        assert_eq!(client.lend(flags, address, size), libc::EINVAL, "{address:#x} {size:#x}");
    }
    // More than there are addresses for.
    assert_eq!(client.lend(3, 1 << 44, 1 << 41), libc::ENOSPC);
    client.write(region::CONFIG, 4, &[0x06, 0]);
    // No message is sent for what is not allowed, or is not all there.
    for address in [0x2000, 0x1ffc, 0xffc, 0x2ffc, 0x8000, u64::MAX - 3] {
        client.write(0, reg::FETCH, &address.to_le_bytes());
        assert_eq!(client.fetched(), [0xff; 8], "{address:#x}");
    }
    client.write(0, reg::TARGET, &0x1ffc_u64.to_le_bytes());
    until("it is refused", || bench.seen.refused.load(Ordering::Relaxed) > 10);
    assert_eq!(client.fetched(), [0xff; 8]);
}

#[test]
fn no_message_has_more_data_than_the_client_takes() {
    let bench = Bench::new();
    let version = |most: u32| {
        let mut bytes = vec![0, 0, 1, 0];
        bytes.extend(format!("{{\"capabilities\":{{\"max_data_xfer_size\":{most}}}}}\0").bytes());
        bytes
    };
    let mut client = Raw(bench.connect());
    assert_eq!(client.ask(command::VERSION, &version(3), &[]).0.error, 0);
    assert_eq!(client.lend(3, 0, 0x1000), 0);
    client.write(region::CONFIG, 4, &[0x06, 0]);
    client.begin_fetch(0x20);
    for (address, count) in [(0x20, 3), (0x23, 3), (0x26, 2)] {
        let asked = client.asked();
        assert_eq!((asked.address, asked.count), (address, count));
        let data: Vec<u8> =
            (asked.address..asked.address + count).map(|at| u8::try_from(at).unwrap()).collect();
        let (header, payload) = asked.answer(&data);
        client.send(header, &payload, &[]);
    }
    client.expect_answer(command::REGION_WRITE);
    assert_eq!(client.fetched(), [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27]);
    drop(client);
    assert!(matches!(bench.end(), End::Closed));
    let mut client = Raw(bench.connect());
    assert_eq!(client.ask(command::VERSION, &version(0), &[]).0.error, 0);
    assert_eq!(client.lend(3, 0, 0x1000), libc::EOPNOTSUPP);
}

#[test]
fn an_access_that_the_client_refuses_fails() {
    let bench = Bench::new();
    let mut client = lender(&bench);
    for error in [0, 14, u32::MAX] {
        client.begin_fetch(0x1_0000);
        let (header, _) = client.asked().answer(&[]);
        client.send(Header { flags: REPLY | ERROR, error, ..header }, &[], &[]);
        client.expect_answer(command::REGION_WRITE);
        assert_eq!(client.fetched(), [0xff; 8]);
    }
    // A write that is refused is the last: the function does not hear of it otherwise.
    client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x1_0000_u64.to_le_bytes()));
    for _ in 0..2 {
        let (header, payload, _) = client.receive().unwrap();
        if let Some(asked) = asked(header, &payload) {
            let (header, _) = asked.answer(&[]);
            client.send(Header { flags: REPLY | ERROR, error: 14, ..header }, &[], &[]);
        }
    }
    until("it notices", || bench.seen.refused.load(Ordering::Relaxed) > 10);
    client.write(0, reg::TARGET, &0_u64.to_le_bytes());
    client.write(0, reg::FETCH, &0x1_0000_u64.to_le_bytes());
    assert_eq!(client.fetched(), [0xff; 8]);
    assert_eq!(client.unmap(0x1_0000, 0x1_0000), 0);
    assert_eq!(client.lend(3, 0x1_0000, 0x1_0000), 0);
    client.begin_fetch(0x1_0000);
    let (header, payload) = client.asked().answer(&[3; 8]);
    client.send(header, &payload, &[]);
    client.expect_answer(command::REGION_WRITE);
    assert_eq!(client.fetched(), [3; 8]);
}

#[test]
fn memory_is_taken_away_when_the_function_is_done_with_it() {
    let bench = Bench::new();
    let mut client = lender(&bench);
    for round in 0..5 {
        client
            .begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x1_0000_u64.to_le_bytes()));
        // The write is under way when the memory is taken away.
        let mut write = None;
        for _ in 0..2 {
            let (header, payload, _) = client.receive().unwrap();
            write = write.or_else(|| asked(header, &payload));
        }
        client.begin(command::DMA_UNMAP, &unmap(0, 0x1_0000, 0x1_0000));
        let mut next = write;
        loop {
            if let Some(asked) = next.take() {
                let (header, payload) = asked.answer(&[]);
                client.send(header, &payload, &[]);
            }
            let (header, payload, _) = client.receive().unwrap();
            match asked(header, &payload) {
                Some(asked) => next = Some(asked),
                None => break assert_eq!(header.command, command::DMA_UNMAP),
            }
        }
        let refused = bench.seen.refused.load(Ordering::Relaxed);
        until("it goes on", || bench.seen.refused.load(Ordering::Relaxed) > refused + 10);
        // Nothing was asked for in between: the next message is an answer.
        client.write(0, reg::TARGET, &0_u64.to_le_bytes());
        assert_eq!(client.lend(3, 0x1_0000, 0x1_0000), 0, "{round}");
    }
}

// Version::proposal is what our own client says.
#[test]
fn what_is_written_is_noted_too() {
    let bench = Bench::new();
    let mut client = Raw(bench.connect());
    client.ask(command::VERSION, &Version::proposal().bytes(), &[]);
    assert_eq!(client.lend(3, 0, 0x8000), 0);
    client.write(region::CONFIG, 4, &[0x06, 0]);
    let words =
        |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let start = words(&[40, 6 | 1 << 17, 4096, 0, 1, 0, 0, 0, 0x8000, 0]);
    assert_eq!(client.errno(command::DEVICE_FEATURE, &start, &[]), 0);
    client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x3000_u64.to_le_bytes()));
    let mut answered = 0;
    while answered < 2 {
        let (header, payload, _) = client.receive().unwrap();
        if let Some(asked) = asked(header, &payload) {
            let (header, payload) = asked.answer(&[]);
            client.send(header, &payload, &[]);
            answered += 1;
        }
    }
    let report = words(&[40, 8 | 1 << 16, 0, 0, 0x8000, 0, 4096, 0]);
    client.begin(command::DEVICE_FEATURE, &report);
    let bits = loop {
        let (header, payload, _) = client.receive().unwrap();
        match asked(header, &payload) {
            Some(asked) => {
                let (header, payload) = asked.answer(&[]);
                client.send(header, &payload, &[]);
            }
            None if header.command == command::DEVICE_FEATURE => break payload,
            None => {}
        }
    };
    assert_eq!(bits[32..40], (1_u64 << 3).to_le_bytes());
}
