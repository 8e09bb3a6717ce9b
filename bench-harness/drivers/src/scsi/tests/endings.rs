//! Sense data, and what endings mean.

use super::*;
use crate::{Completion, Failed};

fn fixed(response: u8, key: u8, code: (u8, u8)) -> Vec<u8> {
    vec![response, 0, key, 1, 2, 3, 4, 10, 0, 0, 0, 0, code.0, code.1, 0, 0, 0, 0]
}

#[test]
fn sense_data_is_read_in_both_formats() {
    let sense = |key, code, deferred, information| {
        Some(Sense { key, code, deferred, information, specific: None })
    };
    let cases: [(Vec<u8>, Option<Sense>); 13] = [
        (fixed(0x70, 3, (0x11, 2)), sense(3, (0x11, 2), false, None)),
        (fixed(0xf0, 3, (0x11, 2)), sense(3, (0x11, 2), false, Some(0x0102_0304))),
        // FILEMARK and others beside the key.
        (fixed(0x71, 0xe4, (0x44, 0)), sense(4, (0x44, 0), true, None)),
        // Cut off, by what it says or by what there is.
        (vec![0x70, 0, 6, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0x29, 1], sense(6, (0, 0), false, None)),
        (vec![0x70, 0, 6, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0x29, 1], sense(6, (0x29, 0), false, None)),
        (vec![0xf0, 0, 6, 9, 9], sense(6, (0, 0), false, None)),
        (vec![0x72, 5, 0x24, 1, 0, 0, 0, 0], sense(5, (0x24, 1), false, None)),
        (vec![0x73, 0xb5], sense(5, (0, 0), true, None)),
        (
            // A descriptor of another type comes first.
            [
                &[0x72, 3, 0x11, 0, 0, 0, 0, 20][..],
                &[2, 6, 0, 0, 1, 2, 3, 0],
                &[0, 10, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 7],
            ]
            .concat(),
            sense(3, (0x11, 0), false, Some(0x1_0000_0007)),
        ),
        (
            // INFORMATION that is not valid.
            [&[0x72, 3, 0x11, 0, 0, 0, 0, 12][..], &[0, 10, 0, 0, 0, 0, 0, 1, 0, 0, 0, 7]].concat(),
            sense(3, (0x11, 0), false, None),
        ),
        (
            // A descriptor that is longer than what there is.
            vec![0x72, 3, 0x11, 0, 0, 0, 0, 255, 9, 255, 0, 0],
            sense(3, (0x11, 0), false, None),
        ),
        (vec![0x74, 3, 0x11, 0], None),
        (vec![], None),
    ];
    for (bytes, expected) in cases {
        assert_eq!(Sense::parse(&bytes), expected, "{bytes:x?}");
    }
    // Where the field is that was not accepted, in either format; and one that is not valid, as above.
    let [mut bytes, expected] = [fixed(0x70, 5, (0x24, 0)), vec![0xcf, 1, 2]];
    bytes[15..].copy_from_slice(&expected);
    assert_eq!(Sense::parse(&bytes).unwrap().specific, Some([0xcf, 1, 2]));
    assert_eq!(Sense::parse(&bytes[..16]).unwrap().specific, Some([0xcf, 0, 0]));
    let mut bytes = vec![0x72, 5, 0x24, 0, 0, 0, 0, 20, 0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    bytes.extend([2, 6, 0, 0, 0x8b, 0, 9, 0]);
    let sense = Sense::parse(&bytes).unwrap();
    assert_eq!((sense.information, sense.specific), (Some(7), Some([0x8b, 0, 9])));
    assert_eq!(Sense::parse(&bytes[..25]).unwrap().specific, None);
    // Descriptors of no length at all do not keep it for ever.
    assert!(
        Sense::parse(&[&[0x72, 0, 0, 0, 0, 0, 0, 88][..], &[9; 0], &[3, 0].repeat(44)].concat())
            .is_some()
    );
}

fn check(key: u8, code: (u8, u8)) -> Outcome {
    Outcome::Check(Some(Sense { key, code, deferred: false, information: None, specific: None }))
}

/// What becomes of a request of 512 bytes each time that it ends so.
fn judged(outcome: Outcome, moved: u32) -> Vec<Option<Result<(), Failed>>> {
    let mut tags = Tags::new(4).unwrap();
    let buffer = Buffer { address: 0, len: 512, direction: Direction::In };
    tags.begin(2, Request { cdb: Cdb::default(), buffer });
    let mut results = Vec::new();
    while tags.in_flight() != 0 {
        let completion = tags.judge(2, &Ended { outcome, moved });
        if completion.is_none() {
            // It cannot end again before it is issued again.
            assert_eq!((tags.request(2), tags.again(3)), (None, None));
            assert!(tags.check(2).is_err());
            assert_eq!(tags.again(0).map(|(tag, _)| tag), Some(2));
        }
        results.push(completion.map(|Completion { tag, result }| {
            assert_eq!(tag, 2);
            result
        }));
    }
    results
}

#[test]
fn endings_mean_what_they_mean_to_sd() {
    let deferred =
        Sense { key: 3, code: (0x0c, 0), deferred: true, information: None, specific: None };
    let once = [
        (Outcome::Status(0), 512, Ok(())),
        (Outcome::Status(0), 511, Err(Failed::Short)),
        (Outcome::Status(4), 512, Err(Failed::Io)),
        (Outcome::Status(0x18), 512, Err(Failed::Io)),
        (Outcome::Status(0x40), 0, Err(Failed::Aborted)),
        (Outcome::Status(0xff), 512, Err(Failed::Io)),
        (check(0, (0, 0)), 512, Ok(())),
        (check(1, (0x17, 1)), 512, Ok(())),
        (check(1, (0x17, 1)), 0, Err(Failed::Short)),
        (check(2, (4, 1)), 512, Err(Failed::Io)),
        (check(3, (0x11, 0)), 512, Err(Failed::Io)),
        (check(4, (0x44, 0)), 0, Err(Failed::Io)),
        (check(5, (0x20, 0)), 0, Err(Failed::Unsupported)),
        (check(5, (0x24, 0)), 0, Err(Failed::Unsupported)),
        (check(5, (0x26, 0)), 0, Err(Failed::Unsupported)),
        (check(5, (0x21, 0)), 0, Err(Failed::Io)),
        (check(5, (0x25, 0)), 0, Err(Failed::Io)),
        (check(6, (0x28, 0)), 0, Err(Failed::Io)),
        (check(7, (0x27, 0)), 0, Err(Failed::Io)),
        (check(0xe, (0x1d, 0)), 0, Err(Failed::Io)),
        (Outcome::Check(None), 512, Err(Failed::Io)),
        (Outcome::Absent, 512, Err(Failed::Io)),
        (Outcome::Aborted, 512, Err(Failed::Aborted)),
        (Outcome::Failed, 512, Err(Failed::Io)),
    ];
    for (outcome, moved, result) in once {
        assert_eq!(judged(outcome, moved), [Some(result)], "{outcome:?}");
    }
    let again = [
        Outcome::Status(0x08),
        Outcome::Status(0x28),
        Outcome::Busy,
        check(6, (0x29, 0)),
        check(6, (0x2a, 9)),
        check(0xb, (0x47, 0)),
        Outcome::Check(Some(deferred)),
    ];
    for outcome in again {
        let mut expected = vec![None; MAX_RETRIES.into()];
        expected.push(Some(Err(Failed::Io)));
        assert_eq!(judged(outcome, 512), expected, "{outcome:?}");
    }
}

#[test]
fn tags_are_used_once_at_a_time() {
    assert_eq!(Tags::new(0).err(), Some(Error::Request("depth")));
    assert_eq!(Tags::new(257).err(), Some(Error::Request("depth")));
    let mut tags = Tags::new(3).unwrap();
    assert!(tags.check(3).is_err() && tags.check(u16::MAX).is_err());
    tags.check(2).unwrap();
    tags.begin(2, Request::default());
    assert!(tags.check(2).is_err());
    assert_eq!((tags.in_flight(), tags.request(2)), (1, Some(Request::default())));
    assert_eq!((tags.request(1), tags.request(9)), (None, None));
    tags.end(1);
    tags.begin(0, Request::default());
    let mut drained = Vec::new();
    tags.drain(|tag| drained.push(tag));
    assert_eq!((tags.in_flight(), drained), (0, vec![0, 2]));
    // Retries are counted for each request anew.
    let passing = Ended::badly(Outcome::Busy);
    for _ in 0..2 {
        tags.begin(2, Request::default());
        for _ in 0..MAX_RETRIES {
            assert_eq!(tags.judge(2, &passing), None);
            assert!(tags.again(2).is_some());
        }
        assert!(tags.judge(2, &passing).is_some());
    }
}

// The lengths in it are those that the device has written.
#[test]
fn sense_data_may_be_anything() {
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        seed.to_be_bytes()[0]
    };
    for round in 0..20_000_u32 {
        let mut bytes = [0; SENSE_LEN];
        bytes.fill_with(&mut random);
        bytes[0] = 0x70 | bytes[0] & 0x83;
        // Short descriptors are likely enough that some are followed.
        if round % 2 == 0 {
            bytes[8..].iter_mut().for_each(|byte| *byte &= 0x0f);
        }
        let len = usize::from(random()) % (SENSE_LEN + 1);
        let Some(sense) = Sense::parse(&bytes[..len]) else {
            assert_eq!(len, 0);
            continue;
        };
        let fixed = bytes[0] & 2 == 0;
        let key = bytes[..len].get(if fixed { 2 } else { 1 }).map_or(0, |byte| byte & 15);
        assert_eq!((sense.key, sense.deferred), (key, bytes[0] & 1 != 0));
        assert!(sense.information.is_none() || !fixed || bytes[0] & 0x80 != 0);
    }
}
