//! The receive ring.

use super::*;

#[test]
fn frames_arrive_without_their_check_sequence_and_with_what_is_known() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    model.take_trace();
    let right = receive::TCPCS | receive::IPCS;
    for (status, known) in [
        (right, Known::Right),
        (0, Known::Nothing),
        (right | receive::IXSM, Known::Nothing),
        (receive::IPCS | receive::PIF, Known::Nothing),
    ] {
        assert!(model.arrive(&fake, &[9; 64], status));
        assert_eq!(received(&mut nic, 1), [(vec![9; 64], known)], "{status:#x}");
    }
    let wrong = [5; 68];
    assert!(model.deliver(&fake, &wrong, receive::DD | receive::EOP | right, receive::TCPE));
    assert_eq!(received(&mut nic, 1), [(vec![5; 64], Known::Nothing)]);
    // The longest and the shortest that there can be.
    assert!(model.arrive(&fake, &[1; 1518], 0) && model.arrive(&fake, &[2; 14], 0));
    let frames = received(&mut nic, 9);
    assert_eq!(frames.iter().map(|(bytes, _)| bytes.len()).collect::<Vec<_>>(), [1518, 14]);
    assert!(received(&mut nic, 9).is_empty());
    // No register was touched.
    assert!(model.take_trace().is_empty());
}

#[test]
fn bad_packets_are_dropped_and_count_towards_the_limit() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    for errors in [receive::CE, receive::SE, receive::SEQ, receive::CXE, receive::RXE] {
        assert!(model.deliver(&fake, &[1; 64], receive::DD | receive::EOP, errors));
    }
    assert!(model.arrive(&fake, &[2; 64], 0));
    assert!(received(&mut nic, 5).is_empty());
    assert_eq!(received(&mut nic, 5).len(), 1);
}

#[test]
fn buffers_go_back_as_many_at_a_time_as_is_asked_for() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options::default());
    let mut total = 0u32;
    // What is not possible becomes what is.
    for (asked, refill) in [(16, 16), (0, 1), (5, 5), (u16::MAX, 64)] {
        if asked != 16 {
            nic.set_refill(asked);
        }
        for _ in 0..200 {
            let number = total.to_le_bytes();
            let bytes: Vec<u8> = number.into_iter().cycle().take(64).collect();
            assert!(model.arrive(&fake, &bytes, 0));
            model.take_trace();
            let tail = model.get(registers::RDT);
            assert_eq!(received(&mut nic, 9), [(bytes, Known::Nothing)]);
            total += 1;
            let trace = model.take_trace();
            let now = model.get(registers::RDT);
            if now == tail {
                assert!(trace.is_empty());
            } else {
                assert_eq!(trace, [Write(registers::RDT, now)]);
                let given = (now + 256 - tail) % 256;
                assert!(given >= refill && given <= refill.max(16), "{given}");
            }
        }
        // The controller has all buffers but those that are gathering.
        let owned = (model.get(registers::RDT) + 256 - model.get(registers::RDH)) % 256;
        assert!(owned + refill > 254 && owned <= 254, "{owned}");
    }
    // Many at once: as often as so many have gathered.
    nic.set_refill(32);
    let before = nic.accesses();
    (0..128).for_each(|_| assert!(model.arrive(&fake, &[3; 64], 0)));
    assert_eq!(received(&mut nic, 100).len(), 100);
    assert_eq!(received(&mut nic, 100).len(), 28);
    let since = nic.accesses().since(before);
    assert_eq!((since.reads, since.writes), (0, since.doorbells));
    assert!((4..=5).contains(&since.doorbells), "{since:?}");
}
