//! Reservations, by RESERVE and persistent ones.

use super::*;

const RESERVE: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE: [u8; 6] = [0x17, 0, 0, 0, 0, 0];
/// Types: Write Exclusive, Exclusive Access, their Registrants Only, their All Registrants.
const KINDS: [u8; 6] = [1, 3, 5, 6, 7, 8];

fn pr_in(action: u8) -> [u8; 10] {
    [0x5e, action, 0, 0, 0, 0, 0, 4, 0, 0]
}

/// Of data with a header: PRGENERATION, and what comes after the header.
fn pr_data(who: &Initiator, action: u8) -> (u32, Vec<u8>) {
    let data = who.reply(&pr_in(action));
    let word = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
    assert_eq!(word(4) as usize, data.len() - 8);
    (word(0), data[8..].to_vec())
}

fn keys(who: &Initiator) -> Vec<u64> {
    let (_, data) = pr_data(who, 0);
    data.chunks(8).map(|key| u64::from_be_bytes(key.try_into().unwrap())).collect()
}

fn pr_out(who: &Initiator, action: u8, kind: u8, key: u64, action_key: u64) -> Plan {
    let mut list = key.to_be_bytes().to_vec();
    list.extend(action_key.to_be_bytes());
    list.extend([0; 8]);
    let (taken, plan) = who.send(&[0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0], &list);
    assert_eq!(taken, 24);
    plan
}

fn ok(plan: &Plan) -> bool {
    is_status(plan, Status::Good)
}

fn refused(plan: &Plan) -> bool {
    is_status(plan, Status::ReservationConflict)
}

fn register(who: &Initiator, key: u64) {
    assert!(ok(&pr_out(who, 6, 0, 0, key)));
}

/// Three initiators of one disk.
fn three() -> [Initiator; 3] {
    let unit = unit(|_| {});
    ["one", "two", "three"].map(|name| Initiator::ready(&unit, name))
}

#[test]
fn reserve_keeps_the_others_away() {
    let [one, two, _] = three();
    one.good(&RESERVE);
    one.good(&RESERVE);
    two.conflicts(&RESERVE);
    for cdb in [&[0; 6][..], &ten(0x28, 0, 0, 1), &ten(0x2a, 0, 0, 1), &[0x1a, 0, 8, 0, 9, 0]] {
        two.conflicts(cdb);
        assert!(!refused(&one.run(cdb)));
    }
    for cdb in [&[0x12, 0, 0, 0, 36, 0][..], &[3, 0, 0, 0, 18, 0], &ten(0x25, 0, 0, 0)] {
        two.reply(cdb);
    }
    // Persistent reservations conflict with it, whoever asks.
    one.conflicts(&pr_in(0));
    assert!(refused(&pr_out(&one, 0, 0, 0, 1)));
    // Only its holder releases it.
    two.good(&RELEASE);
    two.conflicts(&[0; 6]);
    one.good(&RELEASE);
    two.good(&[0; 6]);
    // So does a reset, and the end of the nexus.
    two.good(&[0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    one.conflicts(&[0; 6]);
    one.nexus.reset(3);
    assert_eq!(one.attention(), Some((0x29, 3)));
    one.good(&[0; 6]);
    two.attention();
    two.good(&RESERVE);
    two.nexus.detach();
    one.good(&[0; 6]);
    assert_eq!(one.sense(&[0x16, 0x10, 0, 0, 0, 0]), bad_cdb(1, Some(4)));
    assert_eq!(one.sense(&[0x17, 0x02, 0, 0, 0, 0]), bad_cdb(1, Some(1)));
    assert_eq!(one.sense(&[0x16, 0x01, 0, 0, 0, 0]), bad_cdb(1, Some(0)));
}

#[test]
fn keys_are_registered_changed_and_unregistered() {
    let [one, two, _] = three();
    assert_eq!(pr_data(&one, 0), (0, vec![]));
    assert!(refused(&pr_out(&one, 0, 0, 9, 1)), "there is no key 9");
    assert!(ok(&pr_out(&one, 0, 0, 0, 0)), "nothing is not registered");
    assert_eq!(pr_data(&one, 0).0, 0);
    assert!(ok(&pr_out(&one, 0, 0, 0, 1)));
    assert!(ok(&pr_out(&two, 6, 0, 77, 2)), "the existing key is ignored");
    assert_eq!((keys(&two), pr_data(&two, 0).0), (vec![1, 2], 2));
    assert!(refused(&pr_out(&one, 0, 0, 2, 3)));
    assert!(ok(&pr_out(&one, 0, 0, 1, 3)));
    assert_eq!((keys(&two), pr_data(&two, 0).0), (vec![3, 2], 3));
    // RESERVE conflicts with registrations.
    one.conflicts(&RESERVE);
    one.conflicts(&RELEASE);
    assert!(ok(&pr_out(&one, 0, 0, 3, 0)));
    assert!(ok(&pr_out(&two, 6, 0, 0, 0)));
    assert_eq!((keys(&two), pr_data(&two, 0).0), (vec![], 5));
    one.good(&RESERVE);
}

#[test]
fn registrations_are_bounded() {
    let unit = unit(|_| {});
    let names: Vec<String> = (0..65).map(|number| format!("initiator {number}")).collect();
    let all: Vec<_> = names.iter().map(|name| Initiator::ready(&unit, name)).collect();
    for (who, key) in all.iter().take(64).zip(1..) {
        register(who, key);
    }
    assert_eq!(sense(pr_out(&all[64], 0, 0, 0, 65)), illegal(0x55, 0x04));
    assert_eq!(keys(&all[64]).len(), 64);
}

#[test]
fn every_type_keeps_others_from_what_it_says() {
    let read = ten(0x28, 0, 0, 1);
    let write = ten(0x2a, 0, 0, 1);
    for kind in KINDS {
        let [one, registered, stranger] = three();
        register(&one, 1);
        register(&registered, 2);
        assert!(refused(&pr_out(&stranger, 1, kind, 0, 0)));
        assert!(refused(&pr_out(&one, 1, kind, 2, 0)));
        assert!(ok(&pr_out(&one, 1, kind, 1, 0)));
        let exclusive = [3, 6, 8].contains(&kind);
        let shared = kind >= 5;
        for (who, reads, writes) in [
            (&one, true, true),
            (&registered, shared || !exclusive, shared),
            (&stranger, !exclusive, false),
        ] {
            for (cdb, allowed) in [
                (&read[..], reads),
                (&ten(0x2f, 0, 0, 1)[..], reads),
                (&[0x1a, 8, 8, 0, 99, 0], reads),
                (&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0], reads),
                (&write, writes),
                (&ten(0x35, 0, 0, 0), writes),
                (&ten(0x42, 0, 0, 0), writes),
                (&sixteen(0x93, 1, 0, 1), writes),
                (&[0x15, 0x10, 0, 0, 0, 0], writes),
                (&[0x1d, 4, 0, 0, 0, 0], writes),
                (&[0x1b, 0, 0, 0, 0x10, 0], writes),
                (&[0x1b, 0, 0, 0, 1, 0], true),
                (&[0; 6], true),
                (&ten(0x25, 0, 0, 0), true),
                (&[0x12, 0, 0, 0, 36, 0], true),
                (&[0x4d, 0, 0, 0, 0, 0, 0, 0, 9, 0], true),
                (&pr_in(0), true),
            ] {
                assert_eq!(!refused(&who.run(cdb)), allowed, "type {kind} {cdb:x?}");
            }
        }
        // The hot path of whom nothing is in the way of has nothing to notice.
        assert_eq!(one.nexus.notice.load(std::sync::atomic::Ordering::Relaxed), 0);
        let holder = if kind >= 7 { 0 } else { 1 };
        let (_, held) = pr_data(&stranger, 1);
        assert_eq!(held, [0, 0, 0, 0, 0, 0, 0, holder, 0, 0, 0, 0, 0, kind, 0, 0]);
        // A reset does not end it; CLEAR does.
        stranger.nexus.reset(3);
        for who in [&one, &registered, &stranger] {
            who.attention();
        }
        stranger.conflicts(&write);
        assert!(refused(&pr_out(&stranger, 3, 0, 0, 0)));
        assert!(ok(&pr_out(&registered, 3, 0, 2, 0)));
        assert_eq!(one.attention(), Some((0x2a, 0x03)));
        assert_eq!((registered.attention(), stranger.attention()), (None, None));
        assert!(matches!(stranger.run(&write), Plan::Write { .. }));
        assert_eq!((keys(&one), pr_data(&one, 1).1), (vec![], vec![]));
    }
}

#[test]
fn reservations_are_made_once_and_released_by_who_holds_them() {
    for kind in KINDS {
        let [one, two, _] = three();
        register(&one, 1);
        register(&two, 2);
        assert!(ok(&pr_out(&two, 2, kind, 2, 0)), "nothing to be released");
        assert!(ok(&pr_out(&one, 1, kind, 1, 0)));
        assert!(ok(&pr_out(&one, 1, kind, 1, 0)), "it holds it already");
        let another = KINDS.into_iter().find(|&other| other != kind).unwrap();
        assert!(refused(&pr_out(&one, 1, another, 1, 0)));
        assert_eq!(sense(pr_out(&one, 2, another, 1, 0)), illegal(0x26, 0x04));
        assert!(refused(&pr_out(&one, 2, kind, 9, 0)));
        let generation = pr_data(&one, 0).0;
        if kind >= 7 {
            // All registrants hold it.
            assert!(ok(&pr_out(&two, 1, kind, 2, 0)));
            assert!(ok(&pr_out(&two, 2, kind, 2, 0)));
            assert_eq!((one.attention(), two.attention()), (Some((0x2a, 0x04)), None));
        } else {
            assert!(refused(&pr_out(&two, 1, kind, 2, 0)));
            assert!(ok(&pr_out(&two, 2, kind, 2, 0)), "of another's, it releases nothing");
            assert!(!pr_data(&one, 1).1.is_empty());
            assert!(ok(&pr_out(&one, 2, kind, 1, 0)));
            let told = (kind >= 5).then_some((0x2a, 0x04));
            assert_eq!((one.attention(), two.attention()), (None, told));
        }
        assert!(pr_data(&one, 1).1.is_empty());
        assert_eq!(pr_data(&one, 0).0, generation);
    }
}

#[test]
fn a_holder_that_unregisters_lets_go() {
    for kind in KINDS {
        let [one, two, _] = three();
        register(&one, 1);
        register(&two, 2);
        assert!(ok(&pr_out(&one, 1, kind, 1, 0)));
        assert!(ok(&pr_out(&one, 0, 0, 1, 0)));
        let told = [5, 6].contains(&kind).then_some((0x2a, 0x04));
        assert_eq!(two.attention(), told);
        // All registrants hold it until the last one is gone.
        let held = !pr_data(&two, 1).1.is_empty();
        assert_eq!(held, kind >= 7, "type {kind}");
        assert!(ok(&pr_out(&two, 0, 0, 2, 0)));
        assert!(pr_data(&two, 1).1.is_empty());
    }
}

#[test]
fn preempting_takes_the_reservation() {
    for kind in KINDS {
        let [one, two, three] = three();
        for (who, key) in [(&one, 1), (&two, 2), (&three, 3)] {
            register(who, key);
        }
        assert!(ok(&pr_out(&one, 1, kind, 1, 0)));
        assert!(refused(&pr_out(&two, 4, 3, 9, 1)), "with a key of its own");
        // From all registrants it is taken by key 0; there is no such holder else.
        let theirs = if kind >= 7 { 0 } else { 1 };
        if kind < 7 {
            assert_eq!(sense(pr_out(&two, 4, 3, 2, 0)), bad_parameter(8, None));
        }
        assert!(ok(&pr_out(&two, 4, 3, 2, theirs)));
        assert_eq!(pr_data(&two, 0).0, 4);
        let (_, held) = pr_data(&two, 1);
        assert_eq!((held[7], held[13]), (2, 3));
        assert_eq!(one.attention(), Some((0x2a, 0x05)));
        assert_eq!(two.attention(), None);
        let left = if kind >= 7 { vec![2] } else { vec![2, 3] };
        assert_eq!(keys(&two), left);
        let told = match kind {
            7 | 8 => Some((0x2a, 0x05)),
            3 => None,
            _ => Some((0x2a, 0x04)),
        };
        assert_eq!(three.attention(), told, "type {kind}");
        three.conflicts(&ten(0x28, 0, 0, 1));
    }
}

// Who stays registered hears of it if the type is another one now.
#[test]
fn preempting_with_the_same_type_is_not_news() {
    for (kind, told) in [(5, None), (6, Some((0x2a, 0x04))), (1, Some((0x2a, 0x04)))] {
        let [one, two, three] = three();
        for (who, key) in [(&one, 1), (&two, 2), (&three, 3)] {
            register(who, key);
        }
        assert!(ok(&pr_out(&one, 1, 5, 1, 0)));
        assert!(ok(&pr_out(&two, 4, kind, 2, 1)));
        assert_eq!(three.attention(), told);
    }
}

#[test]
fn preempting_takes_registrations_alone() {
    let [one, two, three] = three();
    for (who, key) in [(&one, 1), (&two, 2), (&three, 2)] {
        register(who, key);
    }
    assert!(ok(&pr_out(&one, 1, 5, 1, 0)));
    // Two is not the holder: the reservation stays, and both with its key go, itself too.
    assert!(refused(&pr_out(&two, 4, 5, 2, 9)));
    assert!(ok(&pr_out(&two, 4, 5, 2, 2)));
    assert_eq!(keys(&one), [1]);
    assert_eq!((two.attention(), three.attention()), (None, Some((0x2a, 0x05))));
    assert_eq!(pr_data(&one, 1).1[13], 5);
    // A holder that preempts itself stays registered, and changes the type.
    assert!(ok(&pr_out(&one, 4, 8, 1, 1)));
    assert_eq!((keys(&one), pr_data(&one, 1).1[13]), (vec![1], 8));
    assert_eq!(one.attention(), None);
    // Without a reservation.
    assert!(ok(&pr_out(&one, 3, 0, 1, 0)));
    register(&one, 1);
    register(&two, 2);
    assert_eq!(sense(pr_out(&one, 4, 1, 1, 0)), bad_parameter(8, None));
    assert!(ok(&pr_out(&one, 4, 1, 1, 2)));
    assert_eq!((keys(&one), pr_data(&one, 1).1), (vec![1], vec![]));
}

#[test]
fn preempt_and_abort_says_whose_commands_end() {
    let [one, two, three] = three();
    for (who, key) in [(&one, 1), (&two, 2), (&three, 2)] {
        register(who, key);
    }
    assert!(ok(&pr_out(&two, 1, 3, 2, 0)));
    let plan = pr_out(&one, 5, 1, 1, 2);
    let Plan::Abort(whose) = plan else { panic!("{plan:?}") };
    let names: Vec<_> = whose.iter().map(|nexus| &*nexus.who().initiator.0).collect();
    assert_eq!(names, ["two", "three"]);
    assert_eq!(pr_data(&one, 1).1[7], 1);
}

#[test]
fn parameters_are_checked() {
    let disk = disk();
    let out = |action, kind, flags, len: u8| {
        let mut list = vec![0; 24];
        list[20] = flags;
        disk.send(&[0x5f, action, kind, 0, 0, 0, 0, 0, len, 0], &list).1
    };
    for len in [0, 23, 25] {
        assert_eq!(sense(out(0, 0, 0, len)), illegal(0x1a, 0));
    }
    for action in [0, 6] {
        assert_eq!(sense(out(action, 0, 1, 24)), bad_parameter(20, Some(0)));
        assert_eq!(sense(out(action, 0, 4, 24)), bad_parameter(20, Some(2)));
        assert_eq!(sense(out(action, 0, 8, 24)), bad_parameter(20, Some(3)));
    }
    for action in [1, 2, 4, 5] {
        for kind in [0, 2, 4, 9, 15] {
            assert_eq!(sense(out(action, kind, 0, 24)), bad_cdb(2, Some(3)));
        }
        assert_eq!(sense(out(action, 0x11, 0, 24)), bad_cdb(2, Some(7)));
    }
    assert_eq!(sense(out(7, 1, 0, 24)), bad_cdb(1, Some(4)));
    let (_, plan) = disk.send(&[0x5f, 0, 0, 0, 0, 0, 0, 0, 24, 0], &[0; 23]);
    assert!(matches!(plan, Plan::Overrun));
}

#[test]
fn capabilities_and_full_status() {
    let [one, two, _] = three();
    assert_eq!(one.reply(&pr_in(2)), [0, 8, 0, 0x80, 0xea, 1, 0, 0]);
    register(&one, 1);
    register(&two, 2);
    assert!(ok(&pr_out(&two, 1, 6, 2, 0)));
    let (generation, data) = pr_data(&one, 3);
    assert_eq!((generation, data.len()), (2, 2 * 48));
    let mut expected =
        vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 24];
    expected.extend(b"\x05\0\0\x14one\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(data[..48], expected);
    assert_eq!((data[55], data[60], data[61]), (2, 1, 6));
    // Cut like any other data.
    assert_eq!(one.reply(&[0x5e, 3, 0, 0, 0, 0, 0, 0, 9, 0]).len(), 9);
}

#[test]
fn registrations_outlive_the_nexus() {
    let [one, two, _] = three();
    register(&one, 1);
    assert!(ok(&pr_out(&one, 1, 1, 1, 0)));
    one.nexus.detach();
    two.conflicts(&ten(0x2a, 0, 0, 1));
    // Under the same name it is the same initiator.
    let again = Initiator::ready(two.unit(), "one");
    assert!(matches!(again.run(&ten(0x2a, 0, 0, 1)), Plan::Write { .. }));
    assert!(ok(&pr_out(&again, 2, 1, 1, 0)));
    assert!(matches!(two.run(&ten(0x2a, 0, 0, 1)), Plan::Write { .. }));
}
