//! Drivers that do anything.

use paraslot_backends::net::testing::Packet;
use proptest::prelude::*;

use super::*;

/// A buffer somewhere in a small memory, or beyond it.
fn buffer(writable: bool) -> impl Strategy<Value = Buffer> {
    let address = prop_oneof![
        8 => DATA..DATA + 0x4000,
        1 => MEMORY as u64 - 100..MEMORY as u64 + 100,
        1 => any::<u64>(),
    ];
    let len = prop_oneof![8 => 0u32..2000, 1 => any::<u32>()];
    (address, len).prop_map(move |(address, len)| Buffer { address, len, writable })
}

fn chain() -> impl Strategy<Value = Vec<Buffer>> {
    let readable = proptest::collection::vec(buffer(false), 0..4);
    let writable = proptest::collection::vec(buffer(true), 0..4);
    (readable, writable)
        .prop_map(|(readable, writable)| [readable, writable].concat())
        .prop_filter("a chain", |chain| !chain.is_empty())
}

fn features() -> impl Strategy<Value = u64> {
    any::<u64>().prop_map(|bits| crate::features::consistent(bits & crate::features::SERVED))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any chains on any queue, with any bytes in memory: the device goes on, or asks for a reset,
    /// but rests, can be saved and restored, and does not write behind the buffers that it was given.
    #[test]
    fn any_chain_is_survived(
        features in features(),
        chains in proptest::collection::vec((0u16..3, chain()), 1..12),
        bytes in proptest::collection::vec(any::<u8>(), 256),
        indirect: bool,
        moves: bool,
    ) {
        let mut nic = Nic::new(features);
        for piece in 0..0x40 {
            nic.write(DATA + 0x100 * piece, &bytes);
        }
        let before = nic.read(DATA, 0x5000);
        let tables = MEMORY as u64 / 2;
        for (number, (index, chain)) in (0u64..).zip(&chains) {
            let index = if usize::from(*index) < nic.lanes.iter().flatten().count() { *index } else { 0 };
            let lane = nic.lane(index);
            if indirect && features & paraslot_spec::virtio::feature::INDIRECT_DESC != 0 {
                lane.ring.add_indirect(tables + 256 * number, chain);
            } else {
                lane.ring.add(chain);
            }
            nic.port.push(0, &frame(60));
            let packet = Packet::tcp4(&[1; 3000]);
            nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
            nic.run();
            if moves {
                nic.move_house();
            }
        }
        let after = nic.read(DATA, 0x5000);
        for (offset, (before, after)) in (DATA..).zip(before.iter().zip(&after)) {
            let given = |buffer: &Buffer| {
                buffer.writable
                    && offset >= buffer.address
                    && offset - buffer.address < u64::from(buffer.len)
            };
            let given = chains.iter().flat_map(|(_, chain)| chain).any(given);
            prop_assert!(given || before == after, "{:#x}", offset);
        }
    }

    /// Any bytes as a command: it is answered, in one byte; what it has set up can be saved and restored.
    #[test]
    fn any_command_is_answered(
        features in features(),
        commands in proptest::collection::vec(
            (0u8..10, 0u8..7, proptest::collection::vec(any::<u8>(), 0..80)),
            1..20,
        ),
        moves: bool,
    ) {
        let features = features | feature::CTRL_VQ;
        let mut nic = Nic::with(&options(2), features);
        for (class, command, data) in commands {
            let bytes = [&[class, command][..], &data].concat();
            let (said, written) = nic.command_in(&[&bytes], &[16]);
            let written = usize::try_from(written).unwrap();
            prop_assert!(written == 1 || (class, command) == (6, 3));
            prop_assert!(said[written - 1] <= 1);
            prop_assert!(said[written..].iter().all(|byte| *byte == POISON));
            nic.next = DATA;
            nic.post(0, 1, 2048);
            nic.port.push(0, &frame(60));
            nic.run();
            prop_assert_eq!(nic.resets(), 0);
            if moves {
                nic.move_house();
            }
        }
    }
}
