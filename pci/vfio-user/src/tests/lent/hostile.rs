//! Clients that lend their memory, and then do as they like.

use std::time::Duration;

use super::{Asked, access, asked, is_well, lender};
use crate::connection::End;
use crate::testing::{Bench, reg};
use crate::wire::{Header, command, region};

/// A wrong answer to a read.
type Wrong = fn(&Asked) -> (Header, Vec<u8>);

#[test]
fn a_wrong_answer_costs_the_connection() {
    let wrong: [Wrong; 16] = [
        |asked| (Header { id: asked.header.id.wrapping_add(1), ..asked.answer(&[0; 8]).0 }, vec![]),
        |asked| (Header { command: 12, ..asked.answer(&[]).0 }, asked.answer(&[0; 8]).1),
        |asked| (Header { command: 9, ..asked.answer(&[]).0 }, asked.answer(&[0; 8]).1),
        |asked| (Header { flags: 2, ..asked.answer(&[]).0 }, asked.answer(&[0; 8]).1),
        |asked| (Header { flags: 0xf, ..asked.answer(&[]).0 }, asked.answer(&[0; 8]).1),
        |asked| (asked.answer(&[]).0, vec![]),
        |asked| (asked.answer(&[]).0, asked.answer(&[]).1[..15].to_vec()),
        |asked| asked.answer(&[]),
        |asked| asked.answer(&[0; 7]),
        |asked| asked.answer(&[0; 9]),
        |asked| asked.answer(&[0; 4096]),
        |asked| Asked { address: asked.address + 8, ..Asked { ..copy(asked) } }.answer(&[0; 8]),
        |asked| Asked { count: 0, ..copy(asked) }.answer(&[0; 8]),
        |asked| Asked { count: 16, ..copy(asked) }.answer(&[0; 16]),
        |asked| Asked { count: u64::MAX, ..copy(asked) }.answer(&[0; 8]),
        // A count of 4 bytes, and the data where there should be the rest of it.
        |asked| Asked { count: asked.count | 0x0101_0101 << 32, ..copy(asked) }.answer(&[1; 8]),
    ];
    let bench = Bench::new();
    for (index, wrong) in wrong.into_iter().enumerate() {
        let mut client = lender(&bench);
        client.begin_fetch(0x1_0000);
        let asked = client.asked();
        let (header, payload) = wrong(&asked);
        client.send(header, &payload, &[]);
        assert!(matches!(client.receive(), Err(End::Closed)), "{index}");
        let end = bench.end();
        assert!(matches!(end, End::Protocol(_)), "{index}: {end}");
    }
    // An answer that comes twice, and one that nobody has asked for.
    for first in [true, false] {
        let mut client = lender(&bench);
        client.begin_fetch(0x1_0000);
        let (header, payload) = client.asked().answer(&[0; 8]);
        client.send(header, &payload, &[]);
        client.expect_answer(command::REGION_WRITE);
        let header = if first { header } else { Header { id: 4000, ..header } };
        client.send(header, &payload, &[]);
        assert!(matches!(client.receive(), Err(End::Closed)));
        assert!(matches!(bench.end(), End::Protocol(_)));
    }
    // To a write.
    for len in (0..24).filter(|len| ![12, 16].contains(len)) {
        let mut client = lender(&bench);
        client.write(0, reg::SCRATCH, &[1]);
        client
            .begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x1_0000_u64.to_le_bytes()));
        let write = loop {
            let (header, payload, _) = client.receive().unwrap();
            if let Some(asked) = asked(header, &payload) {
                break asked;
            }
        };
        let (header, mut payload) = write.answer(&[]);
        payload.resize(len, 0);
        client.send(header, &payload, &[]);
        assert!(matches!(bench.end(), End::Protocol(_)), "{len}");
    }
    is_well(&bench);
}

fn copy(asked: &Asked) -> Asked {
    let Asked { header, address, count, ref data } = *asked;
    Asked { header, address, count, data: data.clone() }
}

#[test]
fn a_client_that_never_answers_is_not_waited_for_for_ever() {
    let bench = Bench::patient(Duration::from_millis(50));
    for _ in 0..2 {
        let mut client = lender(&bench);
        client.begin_fetch(0x1_0000);
        let late = client.asked().answer(&[0; 8]);
        assert!(matches!(bench.end(), End::Silent));
        let sent = crate::sys::send(&client.0, &crate::connection::message(late.0, &late.1), &[]);
        assert!(sent.is_err(), "nobody reads it");
    }
    // One that asks for more and more meanwhile, and never reads.
    let mut client = lender(&bench);
    client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &0x1_0000_u64.to_le_bytes()));
    client.begin(command::REGION_READ, &access(region::CONFIG, 0, 1 << 20, &[]));
    assert!(matches!(bench.end(), End::Silent));
}

#[test]
fn a_server_that_waits_for_memory_stops_at_will() {
    for from_worker in [false, true] {
        let mut bench = Bench::new();
        let mut client = lender(&bench);
        if from_worker {
            let target = 0x1_0000_u64.to_le_bytes();
            client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &target));
        } else {
            client.begin_fetch(0x1_0000);
        }
        client.receive().unwrap();
        bench.stop();
        assert!(matches!(bench.end(), End::Stopped));
    }
}

#[test]
fn more_commands_than_are_kept_cost_the_connection() {
    let bench = Bench::new();
    for (command, payload, fds, count) in [
        (command::GET_INFO, vec![0; 16], 0, 1026),
        (command::REGION_WRITE, vec![0; 1 << 20], 0, 10),
        (command::SET_IRQS, vec![0; 20], 16, 6),
    ] {
        let mut client = lender(&bench);
        client.begin_fetch(0x1_0000);
        client.asked();
        let event = crate::testing::event();
        let message = crate::connection::message(Header { command, ..Header::default() }, &payload);
        let fds = vec![crate::sys::borrow(&event); fds];
        'all: for _ in 0..count {
            let mut done = 0;
            while done < message.len() {
                match crate::connection::send_some(&client.0, &message, done, &fds) {
                    Ok(0) => std::thread::yield_now(),
                    Ok(len) => done += len,
                    Err(_) => break 'all,
                }
            }
        }
        assert!(matches!(bench.end(), End::Protocol(_)), "{command}");
    }
    // So many as are kept are done.
    let mut client = lender(&bench);
    client.begin_fetch(0x1_0000);
    let (header, payload) = client.asked().answer(&[0; 8]);
    for _ in 0..1000 {
        client.begin(command::RESET, &[]);
    }
    client.send(header, &payload, &[]);
    client.expect_answer(command::REGION_WRITE);
    for _ in 0..1000 {
        client.expect_answer(command::RESET);
    }
}

// At every byte of the exchange, on either thread.
#[test]
fn a_client_dies_while_it_is_asked() {
    let bench = Bench::new();
    for from_worker in [false, true] {
        // The answer to a read has the data too.
        for bytes in 0..=if from_worker { 32 } else { 40 } {
            let mut client = lender(&bench);
            let asked = if from_worker {
                let target = 0x1_0000_u64.to_le_bytes();
                client.begin(command::REGION_WRITE, &access(0, reg::TARGET, 8, &target));
                loop {
                    let (header, payload, _) = client.receive().unwrap();
                    if let Some(asked) = asked(header, &payload) {
                        break asked;
                    }
                }
            } else {
                client.begin_fetch(0x1_0000);
                client.asked()
            };
            let data = if from_worker { [].as_slice() } else { &[5; 8] };
            let (header, payload) = asked.answer(data);
            let message = crate::connection::message(header, &payload);
            if bytes > 0 {
                crate::sys::send(&client.0, &message[..bytes], &[]).unwrap();
            }
            drop(client);
            assert!(matches!(bench.end(), End::Closed), "{bytes}");
        }
    }
    is_well(&bench);
}
