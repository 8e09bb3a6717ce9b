//! PERSISTENT RESERVE IN and OUT (SPC-4, 5.12), among two initiators.

use paraslot_scsi::{Function, Response};

use crate::cdb::{READY, cdb, inquiry, read, request_sense, rw6, rw10, rw12, rw16, write};
use crate::initiator::{
    CONFLICT, Data, End, GOOD, HERE, Initiator, LIST_LENGTH, bad_cdb, bad_parameter, illegal,
};
use crate::ways::{Way, on_every_way, one, two};
use crate::world::{BLOCK, disk, fresh, image, original};

on_every_way! {
    keys_are_registered_changed_and_dropped,
    each_type_keeps_others_from_what_it_is_to,
    commands_conflict_as_they_should,
    a_reservation_is_reported,
    a_reservation_is_released_by_its_holder,
    all_registrants_hold_until_the_last_is_gone,
    clear_ends_it_all,
    preempt_takes_the_reservation,
    preempt_takes_registrations,
    status_and_capabilities_are_reported,
    parameters_that_are_not_served_are_refused,
    reservations_survive_what_they_must,
}

pub(crate) const REGISTER: u8 = 0;
const RESERVE: u8 = 1;
const RELEASE: u8 = 2;
const CLEAR: u8 = 3;
const PREEMPT: u8 = 4;
const PREEMPT_AND_ABORT: u8 = 5;
const REGISTER_AND_IGNORE: u8 = 6;
/// The initiators' keys.
pub(crate) const KEY: u64 = 0x1122_3344_5566_7788;
const OTHER: u64 = 0xaabb_ccdd_eeff_0011;
const TYPES: [u8; 6] = [1, 3, 5, 6, 7, 8];

fn out(action: u8, kind: u8) -> [u8; 10] {
    cdb(0x5f, &[(1, action), (2, kind), (8, 24)])
}

fn list(key: u64, action_key: u64, flags: u8) -> Vec<u8> {
    [&key.to_be_bytes()[..], &action_key.to_be_bytes(), &[0; 4], &[flags, 0, 0, 0]].concat()
}

/// PERSISTENT RESERVE OUT: how it ends.
pub(crate) fn act(it: &mut dyn Initiator, action: u8, kind: u8, keys: (u64, u64)) -> End {
    it.end(&out(action, kind), Data::Out(&list(keys.0, keys.1, 0)))
}

pub(crate) fn register(it: &mut dyn Initiator, key: u64) {
    assert_eq!(act(it, REGISTER_AND_IGNORE, 0, (0, key)), GOOD);
}

fn get(it: &mut dyn Initiator, action: u8) -> Vec<u8> {
    it.input(&cdb::<10>(0x5e, &[(1, action), (7, 1)]), 256)
}

/// READ KEYS: generation, keys.
fn keys(it: &mut dyn Initiator) -> (u32, Vec<u64>) {
    let data = get(it, 0);
    let (words, rest) = data.as_chunks::<8>();
    assert!(rest.is_empty());
    let [a, b, c, d, len @ ..] = words[0];
    assert_eq!(u32::from_be_bytes(len) as usize, 8 * (words.len() - 1));
    let keys = words[1..].iter().map(|key| u64::from_be_bytes(*key)).collect();
    (u32::from_be_bytes([a, b, c, d]), keys)
}

/// READ RESERVATION: the holder's key and the type.
fn held(it: &mut dyn Initiator) -> Option<(u64, u8)> {
    let data = get(it, 1);
    match data[4..8] {
        [0, 0, 0, 0] => None,
        _ => {
            assert_eq!(
                (data.len(), &data[4..8], &data[16..21]),
                (24, &[0, 0, 0, 16][..], &[0; 5][..])
            );
            Some((u64::from_be_bytes(data[8..16].try_into().expect("eight")), data[21]))
        }
    }
}

fn keys_are_registered_changed_and_dropped<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        assert_eq!(keys(one), (0, vec![]));
        assert_eq!(act(one, REGISTER, 0, (0, KEY)), GOOD);
        assert_eq!(keys(other), (1, vec![KEY]));
        // Who is registered has to say its key; who is not, 0.
        assert_eq!(act(one, REGISTER, 0, (0, 5)), CONFLICT);
        assert_eq!(act(one, REGISTER, 0, (KEY + 1, 5)), CONFLICT);
        assert_eq!(act(other, REGISTER, 0, (KEY, OTHER)), CONFLICT);
        assert_eq!(keys(one), (1, vec![KEY]));
        assert_eq!(act(one, REGISTER, 0, (KEY, KEY + 1)), GOOD);
        assert_eq!(act(other, REGISTER_AND_IGNORE, 0, (99, OTHER)), GOOD);
        assert_eq!(keys(one), (3, vec![KEY + 1, OTHER]));
        assert_eq!(act(one, REGISTER, 0, (KEY + 1, 0)), GOOD);
        assert_eq!(keys(other), (4, vec![OTHER]));
        assert_eq!(act(other, REGISTER_AND_IGNORE, 0, (0, 0)), GOOD);
        assert_eq!(keys(other), (5, vec![]));
        // No reservation, no news.
        assert_eq!((one.attentions(), other.attentions()), (vec![], vec![]));
    });
}

fn each_type_keeps_others_from_what_it_is_to<W: Way>() {
    for kind in TYPES {
        for registered in [false, true] {
            two::<W>(&disk(image()), |one, other| {
                register(one, KEY);
                if registered {
                    register(other, OTHER);
                }
                assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
                one.output(&write(0, 1), &fresh(1));
                assert!(one.input(&read(0, 1), BLOCK) == fresh(1));
                let privileged = registered && kind >= 5;
                let reads = privileged || matches!(kind, 1 | 5 | 7);
                let expected = |allowed| if allowed { GOOD } else { CONFLICT };
                let end = other.end(&read(9, 1), Data::In(BLOCK));
                assert_eq!(end, expected(reads), "type {kind}, registered {registered}");
                let end = other.end(&write(0, 1), Data::Out(original(0, 1)));
                assert_eq!(end, expected(privileged), "type {kind}, registered {registered}");
                let written = one.input(&read(0, 1), BLOCK) == original(0, 1);
                assert_eq!(written, privileged);
                // As it was, once it is released.
                assert_eq!(act(one, RELEASE, kind, (KEY, 0)), GOOD);
                other.attentions();
                other.output(&write(0, 1), original(0, 1));
            });
        }
    }
}

/// Commands that conflict with another's reservation of write exclusive and of exclusive access type.
fn commands_conflict_as_they_should<W: Way>() {
    let list = [0, 6, 0, 0, 0, 0, 0, 0];
    let data = fresh(2);
    let never: [(&[u8], Data<'_>); 13] = [
        (&READY, Data::None),
        (&inquiry(None, 36), Data::In(36)),
        (&request_sense(false, 18), Data::In(18)),
        (&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], Data::In(256)),
        (&cdb::<10>(0x25, &[]), Data::In(8)),
        (&cdb::<16>(0x9e, &[(1, 0x10), (13, 32)]), Data::In(32)),
        (&cdb::<10>(0x5e, &[(8, 64)]), Data::In(64)),
        (&cdb::<10>(0x5e, &[(1, 1), (8, 64)]), Data::In(64)),
        (&cdb::<10>(0x5e, &[(1, 2), (8, 64)]), Data::In(64)),
        (&cdb::<10>(0x5e, &[(1, 3), (8, 255)]), Data::In(255)),
        (&cdb::<10>(0x4d, &[(8, 64)]), Data::In(64)),
        (&[0x1b, 0, 0, 0, 1, 0], Data::None),
        (&[0x1b, 0, 0, 0, 5, 0], Data::None),
    ];
    let reads: [(&[u8], Data<'_>); 13] = [
        (&rw6(0x08, 0, 1), Data::In(BLOCK)),
        (&rw10(0x28, 0, 0, 1), Data::In(BLOCK)),
        (&rw12(0xa8, 0, 0, 1), Data::In(BLOCK)),
        (&rw16(0x88, 0, 0, 1), Data::In(BLOCK)),
        (&rw10(0x2f, 0, 0, 1), Data::None),
        (&rw12(0xaf, 0, 0, 1), Data::None),
        (&rw16(0x8f, 0, 0, 1), Data::None),
        (&[0x1a, 8, 8, 0, 64, 0], Data::In(64)),
        (&cdb::<10>(0x5a, &[(2, 8), (8, 64)]), Data::In(64)),
        (&cdb::<12>(0xa3, &[(1, 12), (8, 16)]), Data::In(4096)),
        (&cdb::<12>(0xa3, &[(1, 13), (9, 16)]), Data::In(16)),
        (&rw16(0x88, 0, 0, 0), Data::None),
        (&rw10(0x28, 0, 0, 0), Data::None),
    ];
    let writes: [(&[u8], Data<'_>); 20] = [
        (&rw6(0x0a, 0, 1), Data::Out(&data)),
        (&rw10(0x2a, 0, 0, 1), Data::Out(&data)),
        (&rw12(0xaa, 0, 0, 1), Data::Out(&data)),
        (&rw16(0x8a, 0, 0, 1), Data::Out(&data)),
        (&rw10(0x2e, 0, 0, 1), Data::Out(&data)),
        (&rw12(0xae, 0, 0, 1), Data::Out(&data)),
        (&rw16(0x8e, 0, 0, 1), Data::Out(&data)),
        (&rw16(0x89, 0, 0, 0), Data::None),
        (&rw10(0x41, 0, 0, 1), Data::Out(&data)),
        (&rw16(0x93, 0, 0, 1), Data::Out(&data)),
        (&rw10(0x42, 0, 0, 8), Data::Out(&list)),
        (&rw10(0x35, 0, 0, 0), Data::None),
        (&rw16(0x91, 0, 0, 0), Data::None),
        (&[0x15, 0x10, 0, 0, 0, 0], Data::None),
        (&cdb::<10>(0x55, &[(1, 0x10)]), Data::None),
        (&[0x1d, 4, 0, 0, 0, 0], Data::None),
        // What would make the unit less ready than it is.
        (&[0x1b, 0, 0, 0, 0, 0], Data::None),
        (&[0x1b, 0, 0, 0, 4, 0], Data::None),
        (&[0x16, 0, 0, 0, 0, 0], Data::None),
        (&[0x17, 0, 0, 0, 0, 0], Data::None),
    ];
    for (kind, read_conflicts) in [(1, false), (3, true)] {
        two::<W>(&disk(image()), |one, other| {
            register(one, KEY);
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            for (cdb, data) in never {
                assert_eq!(other.end(cdb, data), GOOD, "type {kind}: {cdb:02x?}");
            }
            for (cdb, data) in reads {
                let expected = if read_conflicts { CONFLICT } else { GOOD };
                assert_eq!(other.end(cdb, data), expected, "type {kind}: {cdb:02x?}");
            }
            for (cdb, data) in writes {
                assert_eq!(other.end(cdb, data), CONFLICT, "type {kind}: {cdb:02x?}");
            }
        });
    }
}

fn a_reservation_is_reported<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        assert_eq!(held(one), None);
        // Only who is registered, and says its key, can reserve.
        assert_eq!(act(one, RESERVE, 1, (0, 0)), CONFLICT);
        register(one, KEY);
        register(other, OTHER);
        assert_eq!(act(one, RESERVE, 1, (KEY + 1, 0)), CONFLICT);
        for kind in TYPES {
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            // With the types of all registrants nobody in particular holds it.
            let expected = Some((if kind >= 7 { 0 } else { KEY }, kind));
            assert_eq!((held(one), held(other)), (expected, expected));
            // Again is no change; another type, or by another, is a conflict.
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            assert_eq!(act(one, RESERVE, TYPES[usize::from(kind == 1)], (KEY, 0)), CONFLICT);
            let end = act(other, RESERVE, kind, (OTHER, 0));
            assert_eq!(end, if kind >= 7 { GOOD } else { CONFLICT });
            assert_eq!(act(one, RELEASE, kind, (KEY, 0)), GOOD);
            assert_eq!(held(one), None);
            other.attentions();
        }
        assert_eq!(keys(one).0, 2, "neither changes the generation");
    });
}

fn a_reservation_is_released_by_its_holder<W: Way>() {
    for kind in TYPES {
        two::<W>(&disk(image()), |one, other| {
            register(one, KEY);
            register(other, OTHER);
            assert_eq!(act(one, RELEASE, kind, (KEY, 0)), GOOD, "there is none");
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            assert_eq!(act(one, RELEASE, kind, (OTHER, 0)), CONFLICT);
            // INVALID RELEASE OF PERSISTENT RESERVATION: another type.
            let wrong = if kind == 1 { 3 } else { 1 };
            one.fails(&out(RELEASE, wrong), Data::Out(&list(KEY, 0, 0)), illegal(0x26, 4));
            if kind < 7 {
                assert_eq!(act(other, RELEASE, kind, (OTHER, 0)), GOOD, "which does nothing");
                assert!(held(one).is_some());
            }
            assert_eq!(act(one, RELEASE, kind, (KEY, 0)), GOOD);
            assert_eq!(held(one), None);
            // RESERVATIONS RELEASED, where it has been of use to registrants.
            let told = if kind >= 5 { vec![(0x2a, 4)] } else { vec![] };
            assert_eq!((one.attentions(), other.attentions()), (vec![], told), "type {kind}");
            assert_eq!(keys(one).1, [KEY, OTHER]);
            // Unregistering releases it, too.
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            assert_eq!(act(one, REGISTER, 0, (KEY, 0)), GOOD);
            assert_eq!(held(one).is_some(), kind >= 7);
            let told = if matches!(kind, 5 | 6) { vec![(0x2a, 4)] } else { vec![] };
            assert_eq!(other.attentions(), told, "type {kind}");
        });
    }
}

fn all_registrants_hold_until_the_last_is_gone<W: Way>() {
    for kind in [7, 8] {
        two::<W>(&disk(image()), |one, other| {
            register(one, KEY);
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            assert_eq!(other.end(&write(0, 1), Data::Out(&fresh(1))), CONFLICT);
            register(other, OTHER);
            other.output(&write(0, 1), &fresh(1));
            assert_eq!(act(one, REGISTER, 0, (KEY, 0)), GOOD);
            assert_eq!(held(one), Some((0, kind)));
            assert_eq!(one.end(&write(0, 1), Data::Out(&fresh(1))), CONFLICT);
            assert_eq!(act(other, REGISTER, 0, (OTHER, 0)), GOOD);
            assert_eq!(held(one), None);
            one.output(&write(0, 1), &fresh(1));
        });
    }
}

fn clear_ends_it_all<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        register(one, KEY);
        register(other, OTHER);
        assert_eq!(act(one, RESERVE, 3, (KEY, 0)), GOOD);
        assert_eq!(act(other, CLEAR, 0, (KEY, 0)), CONFLICT);
        assert_eq!(act(other, CLEAR, 0, (OTHER, 0)), GOOD);
        assert_eq!(keys(other), (3, vec![]));
        assert_eq!(held(other), None);
        // RESERVATIONS PREEMPTED.
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x2a, 3)], vec![]));
    });
}

// PREEMPT AND ABORT, which waits for others, is among the tests of task management.
fn preempt_takes_the_reservation<W: Way>() {
    for kind in TYPES {
        two::<W>(&disk(image()), |one, other| {
            register(one, KEY);
            register(other, OTHER);
            assert_eq!(act(one, RESERVE, kind, (KEY, 0)), GOOD);
            assert_eq!(act(other, PREEMPT, 1, (KEY, KEY)), CONFLICT, "not its key");
            let theirs = if kind >= 7 { 0 } else { KEY };
            other.output(&out(PREEMPT, 3), &list(OTHER, theirs, 0));
            assert_eq!(held(other), Some((OTHER, 3)));
            assert_eq!(keys(other), (3, vec![OTHER]));
            // REGISTRATIONS PREEMPTED; the new one is in force at once.
            assert_eq!((one.attentions(), other.attentions()), (vec![(0x2a, 5)], vec![]));
            assert_eq!(one.end(&read(0, 1), Data::In(BLOCK)), CONFLICT);
            other.output(&write(0, 1), &fresh(1));
        });
    }
}

fn preempt_takes_registrations<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        register(one, KEY);
        register(other, OTHER);
        one.output(&out(PREEMPT, 1), &list(KEY, OTHER, 0));
        assert_eq!((held(one), keys(one)), (None, (3, vec![KEY])));
        assert_eq!((one.attentions(), other.attentions()), (vec![], vec![(0x2a, 5)]));
        // Nobody has this key; none is meant.
        assert_eq!(act(one, PREEMPT, 1, (KEY, OTHER)), CONFLICT);
        one.fails(&out(PREEMPT, 1), Data::Out(&list(KEY, 0, 0)), bad_parameter(8, None));
        assert_eq!(act(other, PREEMPT, 1, (OTHER, KEY)), CONFLICT, "it is not registered");
        // The holder changes the type of its own.
        assert_eq!(act(one, RESERVE, 1, (KEY, 0)), GOOD);
        one.output(&out(PREEMPT, 6), &list(KEY, KEY, 0));
        assert_eq!((held(one), keys(one).1), (Some((KEY, 6)), vec![KEY]));
    });
}

fn status_and_capabilities_are_reported<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        // All types, and TMV; nothing survives a loss of power.
        assert_eq!(get(one, 2), [0, 8, 0, 0x80, 0xea, 0x01, 0, 0]);
        register(one, KEY);
        register(other, OTHER);
        assert_eq!(act(other, RESERVE, 5, (OTHER, 0)), GOOD);
        let data = get(one, 3);
        assert_eq!(data[..4], 2_u32.to_be_bytes());
        assert_eq!(
            u32::from_be_bytes(data[4..8].try_into().expect("four")) as usize,
            data.len() - 8
        );
        let mut rest = &data[8..];
        for (index, (key, holds)) in [(KEY, false), (OTHER, true)].into_iter().enumerate() {
            let (entry, more) = rest.split_at(24);
            assert_eq!(entry[..8], key.to_be_bytes());
            // R_HOLDER; scope and type, for the holder; relative target port 2.
            assert_eq!(entry[12..14], if holds { [1, 5] } else { [0, 0] });
            assert_eq!(entry[18..20], [0, 2]);
            let len = usize::from(entry[23]);
            // A TransportID with a name.
            let name = format!("initiator {index}\0");
            assert_eq!(more[0], 5);
            assert_eq!(usize::from(more[3]) + 4, len);
            assert_eq!(&more[4..4 + name.len()], name.as_bytes());
            rest = &more[len..];
        }
        assert!(rest.is_empty());
        assert_eq!(one.input(&cdb::<10>(0x5e, &[(1, 3), (8, 8)]), 64), data[..8]);
        one.fails(&cdb::<10>(0x5e, &[(1, 4), (8, 8)]), Data::In(8), bad_cdb(1, Some(4)));
    });
}

fn parameters_that_are_not_served_are_refused<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for len in [0, 23, 25, 255] {
            let cdb = cdb::<10>(0x5f, &[(8, len)]);
            it.fails(&cdb, Data::Out(&[0; 255]), LIST_LENGTH);
        }
        for action in [REGISTER, REGISTER_AND_IGNORE] {
            for (flag, bit) in [(1, 0), (4, 2), (8, 3)] {
                let list = list(0, KEY, flag);
                it.fails(&out(action, 0), Data::Out(&list), bad_parameter(20, Some(bit)));
            }
        }
        assert_eq!(keys(it), (0, vec![]));
        register(it, KEY);
        for action in [RESERVE, RELEASE, PREEMPT, PREEMPT_AND_ABORT] {
            let list = list(KEY, KEY, 0);
            it.fails(&out(action, 0x11), Data::Out(&list), bad_cdb(2, Some(7)));
            for kind in [0, 2, 4, 9, 15] {
                it.fails(&out(action, kind), Data::Out(&list), bad_cdb(2, Some(3)));
            }
        }
        // REGISTER AND MOVE.
        it.fails(&out(7, 1), Data::Out(&list(KEY, KEY, 0)), bad_cdb(1, Some(4)));
        let short = it.end(&out(RESERVE, 1), Data::Out(&[0; 23]));
        assert_eq!(short, End::Overrun);
        assert_eq!(held(it), None);
    });
}

/// Has a function carried out, while both devices are at work.
pub(crate) fn manage(one: &mut dyn Initiator, other: &mut dyn Initiator, function: Function) {
    let ticket = one.port().manage(function, None);
    other.work();
    one.work();
    assert_eq!(ticket.response(), Some(Response::Complete));
    one.attentions();
    other.attentions();
}

fn reservations_survive_what_they_must<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        register(one, KEY);
        assert_eq!(act(one, RESERVE, 3, (KEY, 0)), GOOD);
        for function in [
            Function::LogicalUnitReset(HERE),
            Function::NexusReset { target: 1 },
            Function::ResetAll,
            Function::ClearTaskSet(HERE),
        ] {
            manage(one, other, function);
            assert_eq!(held(other), Some((KEY, 3)), "{function:?}");
            assert_eq!(other.end(&read(0, 1), Data::In(BLOCK)), CONFLICT);
            assert!(one.input(&read(0, 1), BLOCK) == original(0, 1));
        }
        one.port().power_on();
        assert_eq!(one.attentions(), [(0x29, 0)]);
        assert_eq!((held(other), keys(one).1), (Some((KEY, 3)), vec![KEY]));
    });
}
