//! Device features: the states of migration.

use std::sync::atomic::Ordering;

use crate::testing::{Bench, PBA, Raw, count, event, memory, reg, until, word_at};
use crate::wire::{command, feature, irq, region};

const GET_STATE: u32 = feature::DEVICE_STATE | feature::GET;
const SET_STATE: u32 = feature::DEVICE_STATE | feature::SET;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn set(client: &mut Raw, state: u32) -> i32 {
    client.errno(command::DEVICE_FEATURE, &words(&[16, SET_STATE, state, 0]), &[])
}

fn state(client: &mut Raw) -> u32 {
    let (_, answer, _) = client.ask(command::DEVICE_FEATURE, &words(&[16, GET_STATE]), &[]);
    assert_eq!(answer[..8], words(&[16, GET_STATE]));
    u32::from_le_bytes(answer[8..12].try_into().unwrap())
}

/// Reads a state in parts of `len`.
fn read(client: &mut Raw, len: u32) -> Vec<u8> {
    let mut state = Vec::new();
    loop {
        let (header, answer, _) = client.ask(command::MIG_DATA_READ, &words(&[8 + len, len]), &[]);
        assert_eq!(header.error, 0);
        let size = u32::try_from(answer.len() - 8).unwrap();
        assert_eq!(answer[..8], words(&[8 + size, size]));
        state.extend(&answer[8..]);
        if size < len {
            return state;
        }
    }
}

fn write(client: &mut Raw, state: &[u8]) -> i32 {
    let len = u32::try_from(state.len()).unwrap();
    client.errno(command::MIG_DATA_WRITE, &[words(&[8, len]), state.to_vec()].concat(), &[])
}

#[test]
fn features_are_told_of_and_others_are_not_there() {
    let bench = Bench::new();
    let mut client = bench.client();
    let get = feature::MIGRATION | feature::GET;
    let (_, answer, _) = client.ask(command::DEVICE_FEATURE, &words(&[16, get]), &[]);
    assert_eq!(answer, words(&[16, get, 1, 0]), "STOP_COPY");
    let (header, answer, _) =
        client.ask(command::DEVICE_FEATURE, &words(&[8, get | feature::PROBE]), &[]);
    assert_eq!((header.error, answer), (0, words(&[8, get | feature::PROBE])));
    let both = feature::DEVICE_STATE | feature::GET | feature::SET;
    let mut errno = |fields: &[u32]| client.errno(command::DEVICE_FEATURE, &words(fields), &[]);
    assert_eq!(errno(&[8, both | feature::PROBE]), 0);
    assert_eq!(errno(&[8, both]), libc::EINVAL);
    assert_eq!(errno(&[8, feature::DEVICE_STATE]), libc::EINVAL);
    assert_eq!(errno(&[8, GET_STATE]), libc::EINVAL, "no room");
    assert_eq!(errno(&[16, GET_STATE | 1 << 19]), libc::EINVAL);
    assert_eq!(errno(&[16, SET_STATE]), libc::EINVAL);
    assert_eq!(errno(&[16, SET_STATE, 1]), libc::EINVAL);
    assert_eq!(errno(&[16]), libc::EINVAL);
    assert_eq!(errno(&[16, feature::MIGRATION | feature::SET, 0, 0]), libc::ENOTTY);
    for other in [0, 3, 4, 5, 9, 10, 11, 12, 0xffff] {
        assert_eq!(errno(&[64, other | feature::GET]), libc::ENOTTY, "{other}");
        assert_eq!(errno(&[64, other | feature::PROBE]), libc::ENOTTY, "{other}");
    }
}

#[test]
fn every_state_leads_to_every_other() {
    let bench = Bench::new();
    let mut client = bench.client();
    let states = [feature::STOP, feature::RUNNING, feature::STOP_COPY, feature::RESUMING];
    assert_eq!(state(&mut client), feature::RUNNING);
    for from in states {
        for to in states {
            assert_eq!(set(&mut client, from), 0);
            let errno = set(&mut client, to);
            if from == feature::RESUMING && to != from {
                // Nothing has come, which is no state.
                assert_eq!((errno, state(&mut client)), (libc::EINVAL, feature::ERROR));
                assert_eq!(set(&mut client, feature::STOP), libc::EINVAL);
                assert_eq!(client.errno(command::RESET, &[], &[]), 0);
                assert_eq!(state(&mut client), feature::RUNNING);
            } else {
                assert_eq!((errno, state(&mut client)), (0, to), "{from} to {to}");
                assert_eq!(client.errno(command::RESET, &[], &[]), 0);
            }
        }
        for to in [0, 5, 6, 7, 8, u32::MAX] {
            assert_eq!(set(&mut client, to), libc::EINVAL);
            assert_eq!(state(&mut client), feature::RUNNING);
        }
    }
    for state in [feature::STOP, feature::STOP_COPY, feature::RESUMING] {
        // A client that goes leaves no function that is stopped.
        assert_eq!(set(&mut client, state), 0);
        drop(client);
        bench.end();
        client = bench.client();
        assert_eq!(self::state(&mut client), feature::RUNNING);
    }
}

#[test]
fn a_function_that_is_stopped_is_quiet_and_its_memory_can_be_taken_away() {
    let bench = Bench::new();
    let (mut client, file) = (bench.client(), memory(1 << 20));
    assert_eq!(client.map(0, 1 << 20, 0, &file), 0);
    client.write(region::CONFIG, 4, &[0x06, 0]);
    client.write(0, reg::TARGET, &64_u64.to_le_bytes());
    until("memory is written", || word_at(&file, 64) > 100);
    assert_eq!(set(&mut client, feature::STOP), 0);
    let writes = bench.seen.writes.load(Ordering::SeqCst);
    assert_eq!(client.unmap(0, 1 << 20), 0);
    assert_eq!(client.map(0, 1 << 20, 0, &file), 0);
    client.write(0, reg::TARGET, &128_u64.to_le_bytes());
    assert_eq!(bench.seen.writes.load(Ordering::SeqCst), writes, "it is still stopped");
    assert_eq!(set(&mut client, feature::RUNNING), 0);
    until("memory is written", || word_at(&file, 128) > 100);
    assert_eq!(word_at(&file, 64), writes);
}

#[test]
fn a_function_moves() {
    let (here, there) = (Bench::new(), Bench::new());
    let (mut old, mut new) = (here.client(), there.client());
    let assign = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
    let events = [event(), event()];
    old.write(region::CONFIG, 4, &[0x06, 0]);
    assert_eq!(old.set_irqs(assign, irq::MSIX, (0, 2), &[], &[&events[0], &events[1]]), 0);
    assert_eq!(old.set_irqs(assign, irq::MSIX, (1, 1), &[], &[]), 0);
    old.write(0, reg::RAISE, &[1]);
    old.write(0, reg::SCRATCH, &[1, 2, 3, 4]);
    assert_eq!(set(&mut old, feature::STOP_COPY), 0);
    let saved = read(&mut old, 7);
    assert_eq!(set(&mut old, feature::RUNNING), 0);
    assert_eq!(set(&mut old, feature::STOP_COPY), 0);
    assert_eq!(read(&mut old, 1 << 20), saved, "it is there each time");
    assert!(read(&mut old, 8).is_empty(), "and then at its end");

    let waits = event();
    assert_eq!(new.set_irqs(assign, irq::MSIX, (0, 1), &[], &[&waits]), 0);
    assert_eq!(set(&mut new, feature::RESUMING), 0);
    for part in saved.chunks(100) {
        assert_eq!(write(&mut new, part), 0);
    }
    assert_eq!(set(&mut new, feature::RUNNING), 0);
    assert_eq!(new.read(0, reg::SCRATCH, 4), [1, 2, 3, 4]);
    assert_eq!(new.read(0, PBA, 1), [2]);
    new.write(0, reg::RAISE, &[0]);
    assert_eq!(count(&waits), 1, "what was assigned before is assigned still");
    assert_eq!(new.set_irqs(assign, irq::MSIX, (1, 1), &[], &[&waits]), 0);
    assert_eq!(count(&waits), 1);
}

#[test]
fn a_state_that_is_none_costs_a_reset() {
    let bench = Bench::new();
    let mut client = bench.client();
    client.write(0, reg::SCRATCH, &[1]);
    assert_eq!(set(&mut client, feature::STOP_COPY), 0);
    let saved = read(&mut client, 4096);
    let text = String::from_utf8(saved.clone()).unwrap();
    let hostile = [
        String::new(),
        "{}".into(),
        "[".repeat(100_000),
        text[..text.len() - 1].into(),
        format!("{text}{text}"),
        text.replace("\"probe\"", "\"other\""),
        text.replace("\"version\":1", "\"version\":2"),
        text.replace("\"msix_pending\":[]", "\"msix_pending\":[65536]"),
        text.replace("\"msi_pending\":false", "\"msi_pending\":0"),
        text.replace("\"scratch\":[1", "\"scratch\":[256"),
    ];
    for (index, state) in hostile.iter().enumerate() {
        assert_ne!(state, &text, "{index}");
        assert_eq!(client.errno(command::RESET, &[], &[]), 0);
        assert_eq!(set(&mut client, feature::RESUMING), 0);
        assert_eq!(write(&mut client, state.as_bytes()), 0);
        assert_eq!(set(&mut client, feature::STOP), libc::EINVAL, "{index}");
        assert_eq!(self::state(&mut client), feature::ERROR);
    }
    // Vectors that there are not are none's; more than a state may have is not kept.
    let unknown = text.replace("\"msix_pending\":[]", "\"msix_pending\":[65535]");
    assert_eq!(client.errno(command::RESET, &[], &[]), 0);
    assert_eq!(set(&mut client, feature::RESUMING), 0);
    assert_eq!(write(&mut client, unknown.as_bytes()), 0);
    assert_eq!(set(&mut client, feature::RESUMING), 0, "it is there");
    assert_eq!(set(&mut client, feature::STOP), 0);
    assert_eq!(set(&mut client, feature::RESUMING), 0);
    let most = vec![0; 1 << 20];
    for _ in 0..16 {
        assert_eq!(write(&mut client, &most), 0);
    }
    assert_eq!(write(&mut client, &[0]), libc::ENOSPC);
    // Reads and writes at other times, and of other sizes than they say.
    let mut errno = |command, payload: &[u8]| client.errno(command, payload, &[]);
    assert_eq!(errno(command::MIG_DATA_READ, &words(&[16, 8])), libc::EINVAL);
    assert_eq!(errno(command::MIG_DATA_WRITE, &words(&[16, 1])), libc::EINVAL);
    assert_eq!(errno(command::MIG_DATA_WRITE, &words(&[16])), libc::EINVAL);
    assert_eq!(errno(command::RESET, &[]), 0);
    assert_eq!(errno(command::MIG_DATA_WRITE, &words(&[16, 0])), libc::EINVAL);
    assert_eq!(set(&mut client, feature::STOP_COPY), 0);
    let mut errno = |command, payload: &[u8]| client.errno(command, payload, &[]);
    assert_eq!(errno(command::MIG_DATA_READ, &words(&[16])), libc::EINVAL);
    assert_eq!(errno(command::MIG_DATA_READ, &words(&[16, u32::MAX])), libc::EINVAL);
    assert_eq!(errno(command::MIG_DATA_READ, &words(&[16, 0])), 0);
}
