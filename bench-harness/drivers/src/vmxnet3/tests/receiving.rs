//! The receive queues.

use super::*;

#[test]
fn frames_arrive_with_what_is_known() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.take_trace();
    let six = rcd::V6 | rcd::TUC | rcd::TCP;
    for (flags, known) in [
        (RIGHT, Known::Right),
        (RIGHT | rcd::FCS, Known::Right),
        (six, Known::Right),
        (0, Known::Nothing),
        (RIGHT & !rcd::IPC, Known::Nothing),
        (RIGHT & !rcd::TUC, Known::Nothing),
        (rcd::V4 | rcd::IPC | rcd::FRG, Known::Nothing),
        (six & !rcd::TUC, Known::Nothing),
        // A sum that is left to the driver is not made use of.
        (0x1234, Known::Nothing),
    ] {
        assert!(model.arrive(&fake, 0, &[9; 200], flags));
        assert_eq!(received(&mut nic, 1), [(vec![9; 200], 1, known)], "{flags:#x}");
    }
    // Not calculated.
    let words = Words { index: rcd::CNC, flags: RIGHT, ..Words::default() };
    assert!(model.deliver(&fake, 0, &[5; 200], words));
    assert_eq!(received(&mut nic, 1), [(vec![5; 200], 1, Known::Nothing)]);
    // The shortest and the longest of one buffer.
    assert!(model.arrive(&fake, 0, &[1; 14], 0) && model.arrive(&fake, 0, &[2; 1522], 0));
    let frames = received(&mut nic, 9);
    assert_eq!(frames, [(vec![1; 14], 1, Known::Nothing), (vec![2; 1522], 1, Known::Nothing)]);
    assert!(received(&mut nic, 9).is_empty());
    // No register was touched.
    assert!(model.take_trace().is_empty());
}

#[test]
fn short_frames_are_in_the_data_ring_of_revision_3() {
    for revision in 1..=3 {
        let (fake, model) = machine(Fault::None);
        let mut nic = adapter(&fake, Options { revision, ..Options::default() });
        let (_, buffer, _) = model.next_buffer(&fake, 0, 0).unwrap();
        for len in [60, 128] {
            assert!(model.arrive(&fake, 0, &pattern(len), RIGHT));
            assert_eq!(received(&mut nic, 9), [(pattern(len), 1, Known::Right)]);
        }
        let (memory, at) = fake.at(buffer);
        let in_buffer = memory.read8(at + 1) == 1;
        assert_eq!(in_buffer, revision < 3);
        assert!(model.arrive(&fake, 0, &pattern(129), 0));
        assert_eq!(received(&mut nic, 9), [(pattern(129), 1, Known::Nothing)]);
    }
}

#[test]
fn large_frames_go_on_in_bodies() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    // The second ring goes round several times.
    for round in 0..40 {
        for len in [1523, 1522 + 4096, 1522 + 4097, 65_549] {
            let len: usize = len - round;
            let bytes = pattern(len);
            assert!(model.arrive(&fake, 0, &bytes, rcd::V4 | rcd::IPC | rcd::TUC | rcd::TCP));
            let pieces = 1 + len.saturating_sub(1522).div_ceil(4096);
            assert!(received(&mut nic, 9) == [(bytes, pieces, Known::Right)], "{len}");
        }
    }
}

#[test]
fn jumbo_frames_go_on_in_the_first_ring() {
    let (fake, model) = machine(Fault::None);
    let options = Options { mtu: 9000, large_receive: false, ..Options::default() };
    let mut nic = adapter(&fake, options);
    let second = model.owned(&fake, 0, 1);
    for round in 0..1200usize {
        // Short ones leave bodies behind, which are passed over.
        let len = [9022, 9014, 3072, 3073, 64, 7168, 7169][round % 7] - round % 3;
        assert!(model.arrive(&fake, 0, &pattern(len), 0), "{round}");
        let frames = received(&mut nic, 1);
        assert!(frames[0].0 == pattern(len), "{len} {round}");
    }
    assert_eq!(model.owned(&fake, 0, 1), second);
}

// A frame's completions may be written one by one.
#[test]
fn a_frame_that_is_not_all_there_is_waited_for() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.set_refill(1);
    let (_, head, _) = model.next_buffer(&fake, 0, 0).unwrap();
    let (_, body, _) = model.next_buffer(&fake, 0, 1).unwrap();
    let fill = |address, value| {
        let (memory, at) = fake.at(address);
        memory.write_bytes(at, &[value; 1522]);
    };
    fill(head, 1);
    fill(body, 2);
    let first = Words { index: rcd::SOP, len: 1522, ..Words::default() };
    let second =
        |index| Words { index: index | 1 << rcd::RQID_SHIFT, len: 100, ..Words::default() };
    model.complete(&fake, 0, first);
    assert!(received(&mut nic, 9).is_empty());
    // Its buffers stay where they are.
    let owned = (model.owned(&fake, 0, 0), model.owned(&fake, 0, 1));
    assert_eq!(owned, (1023, 255));
    model.complete(&fake, 0, second(0));
    assert!(received(&mut nic, 9).is_empty());
    // One without anything does no harm.
    let nothing = Words { len: 0, ..second(1) };
    model.complete(&fake, 0, nothing);
    model.complete(&fake, 0, second(2 | rcd::EOP));
    let frames = received(&mut nic, 9);
    assert_eq!((frames.len(), frames[0].1, frames[0].0.len()), (1, 3, 1722));
    assert!(frames[0].0[..1522].iter().all(|byte| *byte == 1));
    assert!(frames[0].0[1522..1622].iter().all(|byte| *byte == 2));
}

#[test]
fn bad_frames_are_dropped_and_count_towards_the_limit() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let bad = Words { len: rcd::ERR, ..Words::default() };
    for len in [64, 1000, 5000] {
        assert!(model.deliver(&fake, 0, &pattern(len), bad));
    }
    // A buffer that is passed over.
    assert!(model.arrive(&fake, 0, &[], 0));
    assert!(model.arrive(&fake, 0, &[2; 64], 0));
    assert!(received(&mut nic, 4).is_empty());
    assert_eq!(received(&mut nic, 4), [(vec![2; 64], 1, Known::Nothing)]);
}

#[test]
fn buffers_go_back_as_many_at_a_time_as_is_asked_for() {
    let (fake, model) = machine(Fault::None);
    model.update_rx_prod.set(true);
    let mut nic = adapter(&fake, Options::default());
    let mut told = 1023;
    // What is not possible becomes what is.
    for (asked, refill) in [(16, 16), (0, 1), (5, 5), (u16::MAX, 256)] {
        if asked != 16 {
            nic.set_refill(asked);
        }
        let mut doorbells = 0;
        for number in 0..1500u32 {
            let bytes: Vec<u8> = number.to_le_bytes().into_iter().cycle().take(200).collect();
            assert!(model.arrive(&fake, 0, &bytes, 0));
            model.take_trace();
            assert_eq!(received(&mut nic, 9), [(bytes, 1, Known::Nothing)]);
            match model.take_trace()[..] {
                [] => {}
                [WritePt(registers::RXPROD, index)] => {
                    let given = (index + 1024 - told) % 1024;
                    assert!(given >= refill && given <= refill.max(16), "{given}");
                    (told, doorbells) = (index, doorbells + 1);
                }
                ref other => panic!("{other:?}"),
            }
        }
        assert!((1500 / refill - 1..=1500 / refill + 1).contains(&doorbells), "{doorbells}");
        // The adapter has all buffers but those that are gathering.
        let owned = model.owned(&fake, 0, 0);
        assert!(owned + refill > 1023 && owned <= 1023, "{owned}");
    }
}

#[test]
fn doorbells_are_rung_only_while_the_adapter_asks_for_them() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    nic.set_refill(32);
    let many = |nic: &mut Vmxnet3<'_, Fake>, len: usize| {
        let before = nic.accesses();
        (0..128).for_each(|_| assert!(model.arrive(&fake, 0, &pattern(len), 0)));
        assert_eq!(received(nic, 100).len(), 100);
        assert_eq!(received(nic, 100).len(), 28);
        nic.accesses().since(before)
    };
    // They are there without it.
    for _ in 0..20 {
        assert_eq!(many(&mut nic, 200), Accesses::default());
    }
    model.ask_for_doorbells(&fake, 0, true);
    assert_eq!(many(&mut nic, 200), Accesses { reads: 0, writes: 4, doorbells: 4 });
    // Both rings have their own.
    model.take_trace();
    assert_eq!(many(&mut nic, 2000), Accesses { reads: 0, writes: 8, doorbells: 8 });
    let trace = model.take_trace();
    let of = |register| {
        let matches = |access: &&_| matches!(**access, WritePt(at, _) if at == register);
        trace.iter().filter(matches).count()
    };
    assert_eq!((of(registers::RXPROD), of(registers::RXPROD2)), (4, 4));
    model.ask_for_doorbells(&fake, 0, false);
    assert_eq!(many(&mut nic, 200), Accesses::default());
}

#[test]
fn all_queues_are_received_from_in_turn() {
    let (fake, model) = machine(Fault::None);
    model.update_rx_prod.set(true);
    let mut nic = adapter(&fake, Options { receive_queues: 3, ..Options::default() });
    nic.set_refill(2);
    for queue in 0..3 {
        (0..4).for_each(|_| assert!(model.arrive(&fake, queue, &[queue + 1; 3000], 0)));
    }
    model.take_trace();
    // No queue keeps the others waiting.
    let next = |nic: &mut Vmxnet3<'_, Fake>, limit| -> Vec<u8> {
        received(nic, limit).iter().map(|frame| frame.0[0]).collect()
    };
    assert_eq!(next(&mut nic, 2), [1, 1]);
    assert_eq!(next(&mut nic, 2), [2, 2]);
    assert_eq!(next(&mut nic, 3), [3, 3, 3]);
    assert_eq!(next(&mut nic, 64), [1, 1, 2, 2, 3]);
    let trace = model.take_trace();
    for queue in 0..3 {
        let at = registers::STRIDE * queue;
        for register in [registers::RXPROD + at, registers::RXPROD2 + at] {
            let matches = |access: &&_| matches!(**access, WritePt(at, _) if at == register);
            assert_eq!(trace.iter().filter(matches).count(), 2, "{register:#x}");
        }
    }
    // And one by one, with their hashes.
    let index = rcd::RSS_TYPE_TCPIPV4 << rcd::RSS_TYPE_SHIFT;
    let words = Words { index, hash: 0x1234_5678, ..Words::default() };
    assert!(model.deliver(&fake, 2, &[9; 64], words));
    assert_eq!(nic.receive_from(0, 9, |_| ()), Ok(0));
    assert_eq!(nic.receive_from(2, 9, |_| ()), Ok(1));
    assert_eq!(nic.last_hash(2), Some((rcd::RSS_TYPE_TCPIPV4, 0x1234_5678)));
    assert_eq!((nic.last_hash(0), nic.last_hash(3)), (Some((0, 0)), None));
    assert!(matches!(nic.receive_from(3, 9, |_| ()), Err(Error::Request(_))));
}
