//! Any command, with any data, on any unit.

use proptest::prelude::*;

use super::*;
use crate::plan::MAX_UNMAP;

/// The ranges of a plan, in bytes.
fn ranges(plan: &Plan) -> Vec<(u64, u64)> {
    match plan {
        Plan::Took { then, .. } => ranges(then),
        Plan::Read { offset, len }
        | Plan::Write { offset, len, .. }
        | Plan::WriteVerify { offset, len, .. }
        | Plan::Verify { offset, len, .. }
        | Plan::WriteZeroes { offset, len, .. }
        | Plan::WriteSame { offset, len, .. }
        | Plan::CompareAndWrite { offset, len, .. } => vec![(*offset, *len)],
        Plan::Unmap { ranges, .. } => ranges.clone(),
        Plan::End(_) | Plan::Overrun | Plan::Reply(_) | Plan::Flush | Plan::Abort(_) => Vec::new(),
    }
}

/// What the data-in of a command is cut to at most.
fn allocation(cdb: &Cdb) -> u64 {
    let bytes = cdb.bytes();
    match bytes[0] >> 5 {
        0 if bytes[0] == 0x12 => u64::from(bytes[3]) << 8 | u64::from(bytes[4]),
        0 => bytes[4].into(),
        1 => 8,
        2 => u64::from(bytes[7]) << 8 | u64::from(bytes[8]),
        4 => u32::from_be_bytes([bytes[10], bytes[11], bytes[12], bytes[13]]).into(),
        _ if matches!(bytes[0], 0xad | 0xbd) => u64::from(bytes[8]) << 8 | u64::from(bytes[9]),
        _ => u32::from_be_bytes([bytes[6], bytes[7], bytes[8], bytes[9]]).into(),
    }
}

fn check(unit: &Initiator, cdb: &Cdb, data: &DmaBuffers, plan: &Plan) {
    let block = u64::from(unit.unit().block_size());
    let capacity = unit.unit().blocks() * block;
    for (offset, len) in ranges(plan) {
        assert!(offset.checked_add(len).is_some_and(|end| end <= capacity), "{cdb:x?} {plan:?}");
        assert!(offset % block == 0 && len % block == 0, "{cdb:x?} {plan:?}");
        assert!(len <= 4 << 30, "{cdb:x?} {plan:?}");
    }
    match plan {
        Plan::Reply(data) => {
            assert!(data.len() as u64 <= allocation(cdb), "{cdb:x?} {}", data.len());
        }
        Plan::Took { len, then } => {
            assert!(*len <= data.len() as u64);
            assert!(!matches!(**then, Plan::Took { .. } | Plan::Overrun | Plan::Reply(_)));
            if let Plan::Unmap { ranges, .. } = &**then {
                assert!(ranges.len() <= MAX_UNMAP && ranges.iter().all(|&(_, len)| len != 0));
            }
        }
        _ => {}
    }
}

/// A command of one that units know, or of none; small numbers are more likely, so that fields agree.
fn commands() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x1e, 0x25, 0x28, 0x2a,
        0x2b, 0x2e, 0x2f, 0x34, 0x35, 0x41, 0x42, 0x43, 0x46, 0x4a, 0x4d, 0x51, 0x52, 0x55, 0x56,
        0x57, 0x5a, 0x5e, 0x5f, 0x88, 0x89, 0x8a, 0x8e, 0x8f, 0x90, 0x91, 0x93, 0x9e, 0xa0, 0xa3,
        0xa8, 0xaa, 0xad, 0xae, 0xaf, 0xbb, 0xbd, 0xbe,
    ]);
    let opcode = prop_oneof![9 => known, 1 => any::<u8>()];
    let byte = prop_oneof![4 => Just(0_u8), 3 => 0..32_u8, 2 => any::<u8>(), 1 => Just(0xff)];
    (opcode, prop::collection::vec(byte, 0..20)).prop_map(|(opcode, mut rest)| {
        rest.insert(0, opcode);
        rest
    })
}

fn parameters() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => Just(0_u8), 3 => 0..32_u8, 2 => any::<u8>()];
    prop::collection::vec(byte, 0..48)
}

proptest! {
    #[test]
    fn no_command_is_more_than_the_unit_has(
        script in prop::collection::vec((commands(), parameters(), any::<bool>(), 0..4_u8), 1..16),
        blocks in prop_oneof![1..64_u64, 1..(1_u64 << 33)],
        which in 0..3_u8,
    ) {
        let first = match which {
            0 => drive(Some(blocks.min(1 << 31))),
            1 => drive(None),
            _ => disk_with(|info| info.capacity = blocks * 512),
        };
        let other = Initiator::new(first.unit(), "two");
        for (cdb, parameters, out, event) in script {
            let unit = if event == 3 { &other } else { &first };
            if event == 2 && which != 2 {
                unit.unit().change_medium(out.then(|| disc(blocks.min(1 << 31)))).unwrap();
            }
            let direction = if out { Direction::ToDevice } else { Direction::FromDevice };
            unit.pages.write(0, &parameters);
            let data = unit.pages.buffers(&[(0, parameters.len())], direction);
            let plan = unit.decode(&cdb, &data);
            check(unit, &Cdb::new(&cdb), &data, &plan);
            if let Plan::End(Ending::Check(sense)) = plan {
                for format in [crate::sense::SenseFormat::Fixed, crate::sense::SenseFormat::Descriptor] {
                    let (bytes, len) = sense.encode(format);
                    prop_assert!(len <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn no_lun_is_there_that_is_absent(cdb in commands()) {
        let plan = absent(&Cdb::new(&cdb), &luns);
        let cdb = Cdb::new(&cdb);
        prop_assert!(ranges(&plan).is_empty());
        if let Plan::Reply(data) = plan {
            prop_assert!(data.len() as u64 <= allocation(&cdb));
        }
    }
}
