use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::*;

const FLOW: Flow = Flow { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };
const SIZES: [u32; 5] = [64, 65, 1514, 1515, 65536];

/// The first frames of a maker.
fn made(frame_size: u32, verify: bool, count: usize) -> Vec<Vec<u8>> {
    let mut maker = Maker::new(FLOW, frame_size, verify);
    let mut room = vec![0xee; paraslot_backends::net::MAX_FRAME];
    let mut next = || {
        let len = maker.next(&mut room);
        room[..len].to_vec()
    };
    (0..count).map(|_| next()).collect()
}

/// What a checker says of frames, all of which have the same left to be done.
fn verdict(frames: &[Vec<u8>], frame_size: u32, offload: Offload) -> Result<u64, String> {
    let body = DmaBuffers::empty(Direction::ToDevice);
    let (mut checker, verdict) = Checker::new(FLOW, frame_size);
    for head in frames {
        checker.inspect(&Frame { head, body: &body, offload });
    }
    verdict.frames().map_err(|error| error.to_string())
}

#[test]
fn what_is_made_is_what_is_expected() {
    for size in SIZES {
        let frames = made(size, true, 3);
        assert!(frames.iter().all(|frame| u32::try_from(frame.len()) == Ok(size)));
        assert_eq!(verdict(&frames, size, offload(size)), Ok(3), "{size}");
    }
    assert_eq!(verdict(&[], 64, offload(64)), Ok(0));
}

/// The format, spelt out once.
#[test]
fn a_frame_is_as_it_is_described() {
    let frame = &made(82, true, 6)[5];
    assert_eq!(frame[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    assert_eq!(frame[42..50], 5u64.to_le_bytes());
    assert_eq!(frame[50..58], [0; 8]);
    let word = |index| pattern_base(5, 0).wrapping_add(PATTERN_STEP.wrapping_mul(index));
    assert_eq!(frame[58..66], word(2).to_le_bytes());
    assert_eq!(frame[74..82], word(4).to_le_bytes());
}

#[test]
fn without_verification_there_is_a_number_and_no_more() {
    for size in [64, 1514, 65536] {
        let frame = &made(size, false, 3)[2];
        let payload = traffic::header_len(size);
        assert_eq!(frame[payload..payload + 8], 2u64.to_le_bytes());
        assert!(frame[payload + 8..].iter().all(|byte| *byte == 0));
        let checksum = TRANSPORT + traffic::checksum_offset(size);
        let is_none = frame[checksum..checksum + 2] == [0, 0];
        assert_eq!(is_none, !traffic::is_segmented(size));
    }
}

/// A guest that leaves the checksum to the device is as right as one that does not.
#[test]
fn a_checksum_may_be_left_to_be_done() {
    for size in [64, 1514] {
        let mut frames = made(size, true, 1);
        let headers = FLOW.headers(size);
        frames[0][40..42].copy_from_slice(&headers[40..42]);
        let left = Offload { checksum: Some(partial(size)), ..Offload::default() };
        assert_eq!(verdict(&frames, size, left), Ok(1));
        let without = verdict(&frames, size, Offload::default()).unwrap_err();
        assert!(without.ends_with("its checksum is wrong"), "{without}");
    }
}

#[test]
fn every_byte_counts() {
    for size in [64, 1514, 1515] {
        let good = made(size, true, 1);
        for at in 0..good[0].len() {
            // The stamp is the sender's own; where the device fills in the checksum, nothing covers it.
            let payload = traffic::header_len(size);
            let stamp = payload + traffic::STAMP..payload + PATTERN;
            if stamp.contains(&at) && traffic::is_segmented(size) {
                continue;
            }
            let mut bad = good.clone();
            bad[0][at] ^= 0x40;
            assert!(verdict(&bad, size, offload(size)).is_err(), "{size}: {at}");
        }
    }
}

#[test]
fn what_is_wrong_is_said() {
    let says = |frames: &[Vec<u8>], offload, words: &str| {
        let error = verdict(frames, 64, offload).unwrap_err();
        assert!(error.ends_with(words), "{error}");
    };
    let frames = made(64, true, 3);
    let none = Offload::default();
    says(&[frames[0][..63].to_vec()], none, "it has 63 bytes");
    says(&[frames[0].clone(), frames[2].clone()], none, "it has number 2 where 1 should come");
    // Checked before the number: each of two is right, but it comes again.
    says(&[frames[0].clone(), frames[0].clone()], none, "it has number 0 where 1 should come");
    says(&frames, offload(1515), "what is left to be done to it is not possible");
    let elsewhere = PartialChecksum { start: 34, offset: 16 };
    let elsewhere = Offload { checksum: Some(elsewhere), ..none };
    says(&frames, elsewhere, "what is left to be done to it is not possible");
}

#[test]
fn sums_are_those_of_the_format() {
    let bytes: Vec<u8> = (0..=255).cycle().take(1001).collect();
    for len in [0, 1, 2, 3, 4, 5, 7, 8, 1000, 1001] {
        for start in [0, 1, 0xffff] {
            assert_eq!(sum(start, &bytes[..len]), traffic::sum(start, &bytes[..len]), "{len}");
        }
    }
}

#[test]
fn no_room_is_no_frame() {
    let mut maker = Maker::new(FLOW, 1514, true);
    assert_eq!(maker.next(&mut [0; 1513]), 0);
    assert_eq!(maker.next(&mut [0; 1514]), 1514);
}
