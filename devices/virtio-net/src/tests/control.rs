//! Commands: how they are framed, and what is refused.

use paraslot_spec::virtio_net::{ack, announce, class, mac, mq, notf_coal, rx, vlan};

use super::*;

fn nic() -> Nic {
    Nic::with(&options(2), ALL)
}

/// A command of each kind that can be carried out, and the feature that it needs.
fn commands() -> Vec<(u8, u8, Vec<u8>, u64)> {
    let tables = vec![1, 0, 0, 0, 2, 0, 0, 0, 0, 7, 1, 0, 0, 0, 3, 0, 0, 0, 0, 7];
    let mut rss = vec![0xff, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 40];
    rss.extend([0x6d; 40]);
    let mut hash = vec![0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40];
    hash.extend([0x6d; 40]);
    let coalesce = vec![4, 0, 0, 0, 9, 0, 0, 0];
    let queue = [&[2, 0, 0, 0][..], &coalesce].concat();
    vec![
        (class::RX, rx::PROMISC, vec![1], feature::CTRL_RX),
        (class::RX, rx::ALLMULTI, vec![1], feature::CTRL_RX),
        (class::RX, rx::ALLUNI, vec![1], feature::CTRL_RX_EXTRA),
        (class::RX, rx::NOMULTI, vec![1], feature::CTRL_RX_EXTRA),
        (class::RX, rx::NOUNI, vec![1], feature::CTRL_RX_EXTRA),
        (class::RX, rx::NOBCAST, vec![1], feature::CTRL_RX_EXTRA),
        (class::MAC, mac::TABLE_SET, tables, feature::CTRL_RX),
        (class::MAC, mac::ADDR_SET, PEER.to_vec(), feature::CTRL_MAC_ADDR),
        (class::VLAN, vlan::ADD, vec![7, 0], feature::CTRL_VLAN),
        (class::VLAN, vlan::DEL, vec![7, 0], feature::CTRL_VLAN),
        (class::ANNOUNCE, announce::ACK, vec![], feature::GUEST_ANNOUNCE),
        (class::MQ, mq::VQ_PAIRS_SET, vec![2, 0], feature::MQ),
        (class::MQ, mq::RSS_CONFIG, rss, feature::RSS),
        (class::MQ, mq::HASH_CONFIG, hash, feature::HASH_REPORT),
        (class::GUEST_OFFLOADS, 0, vec![0; 8], feature::CTRL_GUEST_OFFLOADS),
        (class::NOTF_COAL, notf_coal::TX_SET, coalesce.clone(), feature::NOTF_COAL),
        (class::NOTF_COAL, notf_coal::RX_SET, coalesce, feature::NOTF_COAL),
        (class::NOTF_COAL, notf_coal::VQ_SET, queue, feature::VQ_NOTF_COAL),
    ]
}

fn state(nic: &Nic) -> String {
    format!("{:?}{:?}", *nic.control.0.state(), config(&nic.device))
}

#[test]
fn each_command_is_carried_out() {
    for (class, command, data, _) in commands() {
        let mut nic = nic();
        let before = state(&nic);
        assert_eq!(nic.command(class, command, &data), ack::OK, "{class} {command}");
        let nothing = (class, command) == (class::VLAN, vlan::DEL) || class == class::ANNOUNCE;
        assert_eq!(state(&nic) == before, nothing, "{class} {command}");
    }
}

#[test]
fn what_was_not_negotiated_is_refused() {
    for (class, command, data, feature) in commands() {
        let mut nic = Nic::with(&options(2), ALL & !feature);
        let before = state(&nic);
        assert_eq!(nic.command(class, command, &data), ack::ERR, "{class} {command}");
        assert_eq!(state(&nic), before);
    }
    let mut nic = Nic::with(&options(2), ALL & !feature::VQ_NOTF_COAL);
    let (said, written) =
        nic.command_in(&[&[class::NOTF_COAL, notf_coal::VQ_GET, 0, 0, 0, 0]], &[9]);
    assert_eq!((said[0], written), (ack::ERR, 1));
}

#[test]
fn what_does_not_exist_is_refused() {
    let mut nic = nic();
    let before = state(&nic);
    for class in 0..=255 {
        for command in [6, 7, 100, 255] {
            assert_eq!(nic.command(class, command, &[0; 64]), ack::ERR, "{class} {command}");
        }
        if nic.next > 24 << 20 {
            nic.next = DATA;
        }
    }
    for (class, command) in [(1, 2), (2, 2), (3, 1), (4, 3), (5, 1), (6, 4), (7, 0), (8, 0), (9, 0)]
    {
        assert_eq!(nic.command(class, command, &[0; 64]), ack::ERR, "{class} {command}");
    }
    assert_eq!(state(&nic), before);
}

// split.framing.1
#[test]
fn any_cut_means_the_same() {
    for (class, command, data, _) in commands() {
        let bytes = [&[class, command][..], &data].concat();
        let mut nic = nic();
        let mut expected = None;
        for first in 0..=bytes.len() {
            let second = (first + bytes.len()) / 2;
            let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
            let (said, written) = nic.command_in(&pieces, &[1]);
            assert_eq!((said, written), (vec![ack::OK], 1), "{class} {command} {first}");
            assert_eq!(*expected.get_or_insert_with(|| state(&nic)), state(&nic));
        }
    }
}

// A command that is cut short is refused and does nothing; what follows one is left alone.
#[test]
fn short_commands_are_refused_and_long_ones_are_not() {
    for (class, command, data, _) in commands() {
        let mut nic = nic();
        let bytes = [&[class, command][..], &data].concat();
        let before = state(&nic);
        for len in 0..bytes.len() {
            let (said, written) = nic.command_in(&[&bytes[..len]], &[1]);
            assert_eq!((said, written), (vec![ack::ERR], 1), "{class} {command} {len}");
            assert_eq!(state(&nic), before);
        }
        let longer = [&bytes[..], &[0xff; 10]].concat();
        let (said, _) = nic.command_in(&[&longer], &[1]);
        assert_eq!(said, [ack::OK]);
    }
}

// split.used.2: what is written is said to be, and nothing else is written.
#[test]
fn the_answer_is_one_byte() {
    let mut nic = nic();
    for room in [&[1][..], &[5], &[1, 1, 1]] {
        let (said, written) = nic.command_in(&[&[class::RX, rx::PROMISC, 1]], room);
        assert_eq!((said[0], written), (ack::OK, 1));
        assert!(said[1..].iter().all(|byte| *byte == POISON));
        let (said, written) = nic.command_in(&[&[class::RX, 99, 1]], room);
        assert_eq!((said[0], written), (ack::ERR, 1));
        assert!(said[1..].iter().all(|byte| *byte == POISON));
    }
}

// basic.status.2
#[test]
fn a_command_that_cannot_be_answered_breaks_the_queue() {
    let mut nic = nic();
    let before = state(&nic);
    let command = nic.readable(&[class::RX, rx::PROMISC, 1]);
    let index = nic.control_index();
    nic.lane(index).ring.add(&[command]);
    nic.run();
    assert_eq!((nic.lane(index).ring.used(), nic.resets()), (None, 1));
    assert_eq!(state(&nic), before);

    let mut nic = self::nic();
    let command = nic.readable(&[class::RX, rx::PROMISC, 1]);
    nic.lane(index).ring.add(&[command, Buffer::writable(MEMORY as u64, 1)]);
    nic.run();
    assert_eq!((nic.lane(index).ring.used(), nic.resets()), (None, 1));
}

// One whose bytes are not memory is refused.
#[test]
fn a_command_that_cannot_be_read_is_refused() {
    let mut nic = nic();
    let index = nic.control_index();
    for nowhere in [Buffer::readable(MEMORY as u64 - 1, 3), Buffer::readable(u64::MAX, 1)] {
        let answer = nic.writable(1);
        nic.lane(index).ring.add(&[nowhere, answer]);
        nic.run();
        assert!(nic.lane(index).ring.used().is_some());
        assert_eq!(nic.read(answer.address, 1), [ack::ERR]);
    }
    let header = nic.readable(&[class::MAC, mac::ADDR_SET, 2, 2]);
    let answer = nic.writable(1);
    nic.lane(index).ring.add(&[header, Buffer::readable(MEMORY as u64 - 2, 4), answer]);
    nic.run();
    assert_eq!(nic.read(answer.address, 1), [ack::ERR]);
    assert_eq!(config(&nic.device).mac, MAC);
}

// CVE-2014-0150: counts that are not there, or whose bytes add up to more than 32 bits hold.
#[test]
fn tables_are_as_long_as_they_say() {
    let mut nic = nic();
    let before = state(&nic);
    for count in [2, 64, 65, 0x2aaa_aaab, 0x8000_0000, u32::MAX / 6, u32::MAX] {
        for other in [0, u32::MAX] {
            let mut bytes = vec![class::MAC, mac::TABLE_SET];
            bytes.extend(count.to_le_bytes());
            bytes.extend([2; 6]);
            bytes.extend(other.to_le_bytes());
            let (said, _) = nic.command_in(&[&bytes], &[1]);
            assert_eq!(said, [ack::ERR], "{count:#x}");
            let mut bytes = vec![class::MAC, mac::TABLE_SET, 0, 0, 0, 0];
            bytes.extend(count.to_le_bytes());
            bytes.extend([3; 6]);
            let (said, _) = nic.command_in(&[&bytes], &[1]);
            assert_eq!(said, [ack::ERR], "{count:#x}");
        }
    }
    assert_eq!(state(&nic), before);
    // A table of 100 million addresses, all in the same place: one that is too long, but all there.
    let index = nic.control_index();
    let count = 1u32 << 20;
    let head = nic.readable(&[&[class::MAC, mac::TABLE_SET][..], &count.to_le_bytes()].concat());
    let tail = nic.readable(&[0; 4]);
    let answer = nic.writable(1);
    let body = Buffer::readable(0, count * 6);
    nic.lane(index).ring.add(&[head, body, tail, answer]);
    nic.run();
    assert_eq!(nic.read(answer.address, 1), [ack::OK]);
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let mut nic = nic();
    let before = state(&nic);
    let long = |value: u64| value.to_le_bytes()[..2].to_vec();
    for (class, command, data) in [
        (class::VLAN, vlan::ADD, long(4096)),
        (class::VLAN, vlan::DEL, long(0xffff)),
        (class::MQ, mq::VQ_PAIRS_SET, long(0)),
        (class::MQ, mq::VQ_PAIRS_SET, long(3)),
        (class::MQ, mq::VQ_PAIRS_SET, long(0xffff)),
    ] {
        assert_eq!(nic.command(class, command, &data), ack::ERR, "{class} {command} {data:?}");
    }
    assert_eq!(state(&nic), before);
}

#[test]
fn commands_are_carried_out_in_order() {
    let mut nic = nic();
    let index = nic.control_index();
    let mut answers = Vec::new();
    for last in 0..30 {
        let command = nic.readable(&[class::MAC, mac::ADDR_SET, 2, 0, 0, 0, 0, last]);
        let answer = nic.writable(1);
        nic.lane(index).ring.add(&[command, answer]);
        answers.push(answer);
    }
    nic.run();
    assert!(answers.iter().all(|answer| nic.read(answer.address, 1) == [ack::OK]));
    assert_eq!(config(&nic.device).mac, [2, 0, 0, 0, 0, 29]);
}

// No more than a few in one go.
#[test]
fn a_round_of_work_is_bounded() {
    let mut nic = nic();
    let index = nic.control_index();
    for _ in 0..20 {
        let command = nic.readable(&[class::RX, rx::PROMISC, 1]);
        let answer = nic.writable(1);
        nic.lane(index).ring.add(&[command, answer]);
    }
    assert_eq!(nic.lane(index).worker.service(), Progress::More);
    assert_eq!(nic.lane(index).ring.used_idx(), 16);
    assert_eq!(nic.lane(index).interrupt.count(), 1);
}
