//! Whatever is in memory and in the registers, nothing stops but the guest's own queues.

use proptest::prelude::*;

use super::*;

fn writes() -> impl Strategy<Value = Vec<(u64, u64, usize)>> {
    // Places in what is shared, in the queue descriptors and in the rings.
    let place = prop_oneof![
        SHARED..SHARED + 160,
        QUEUES..QUEUES + 512,
        TX_RINGS..TX_RINGS + 512,
        RX_RINGS_AT..RX_RINGS_AT + 512,
        RX_RINGS_AT + 0x1000..RX_RINGS_AT + 0x1200,
    ];
    let value = prop_oneof![any::<u64>(), 0u64..64, Just(u64::MAX), Just(MEMORY as u64 - 8)];
    prop::collection::vec((place, value, prop::sample::select(vec![1usize, 2, 4, 8])), 0..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    // CVE-2021-20203, CVE-2016-6888 and the like: all of what is activated may be anything.
    #[test]
    fn any_setup_is_activated_or_refused(
        writes in writes(), tx in 1usize..=3, rx in 1usize..=3, wants in 0u64..16, bodies in 0u32..3,
    ) {
        let features = Features::from_bits_truncate(wants & !2);
        let setup = Setup { tx, rx, features, bodies, ..Setup::default() };
        let mut machine = Machine::with(setup);
        for (place, value, len) in writes {
            machine.fill(place, &value.to_le_bytes()[..len]);
        }
        machine.order(command::ACTIVATE_DEV);
        for round in 0..3 {
            machine.host.push(0, &frame(60 + 700 * round));
            machine.ring(0);
            machine.run();
        }
        for command in [command::GET_STATS, command::GET_QUEUE_STATUS, command::UPDATE_FEATURE] {
            machine.order(command);
        }
        machine.advance(100_000);
    }

    // Descriptors of any bits: each packet is sent, lost or stops the queue, and what is said of it is
    // all that is written.
    #[test]
    fn any_descriptors_are_packets_or_stop_the_queue(
        descriptors in prop::collection::vec((0u64..0x1000, any::<u32>(), any::<u32>()), 1..31),
        ends in 1u32..8,
    ) {
        let mut machine = Machine::new();
        machine.fill(TX_DATA, &for_us(Packet::tcp4(&[1; 3000]).unfinished()));
        let descriptors: Vec<_> = descriptors
            .iter()
            .zip(1u32..)
            .map(|((at, len, flags), number)| {
                // Packets that end now and then, of a type that there is, mostly.
                let flags = if number.is_multiple_of(ends) { flags | ALONE } else { flags & !txd::EOP };
                let len = if number % 13 == 0 { *len } else { len & !txd::DTYPE };
                descriptor(TX_DATA + at, len, flags)
            })
            .collect();
        machine.transmit(&descriptors);
        machine.order(command::GET_QUEUE_STATUS);
        machine.order(command::GET_STATS);
        let desc = machine.tx_desc(0);
        let packets = std::iter::from_fn(|| machine.completed(0)).count();
        prop_assert!(packets <= descriptors.len());
        prop_assert_eq!(desc.status.stopped != 0, machine.ecr().contains(Events::TQERR));
        let sent = machine.sent().len() as u64;
        prop_assert_eq!(machine.statistics().sent_frames, sent);
    }

    // Every frame that arrives is delivered, as it came, whatever the buffers are like.
    #[test]
    fn frames_come_as_they_were(
        lens in prop::collection::vec(14usize..9022, 1..30),
        bodies in 0u32..4,
        buffer in 128u32..2048,
        entry in prop::sample::select(vec![0u16, 64, 128, 256]),
    ) {
        let buffer = buffer.max(9100 / 17);
        let setup = Setup { mtu: 9000, bodies, buffer, data_ring: entry, ..Setup::default() };
        let mut machine = Machine::with(setup);
        for len in lens {
            machine.arrive(&frame(len));
            let got = machine.clean(0);
            prop_assert_eq!(got.map(|got| got.bytes), Some(frame(len)));
        }
    }

    #[test]
    fn any_register_can_be_written(
        accesses in prop::collection::vec(
            (0u8..3, 0u64..0x1000, any::<u64>(), 0usize..=8, any::<bool>()), 1..60,
        ),
    ) {
        let mut machine = Machine::new();
        for (bar, offset, value, len, write) in accesses {
            let mut data = value.to_le_bytes();
            if write {
                machine.nic.bar_write(bar, offset, &data[..len]);
            } else {
                machine.nic.bar_read(bar, offset, &mut data[..len]);
            }
            let _ = machine.executor.step_all();
        }
        machine.nic.reset();
        machine.run();
    }
}
