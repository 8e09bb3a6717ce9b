//! Reception: buffers, completions, filters, tags, checksums.

use paraslot_backends::net::Offloads;
use paraslot_backends::net::testing::Ip;

use super::*;

#[test]
fn a_frame_goes_into_the_next_head_buffer() {
    let mut machine = Machine::new();
    for round in 0..100u32 {
        let frame = frame(60 + 7 * round as usize);
        machine.arrive(&frame);
        let got = machine.clean(0).unwrap();
        assert_eq!(got.bytes, frame);
        let [completion] = got.completions[..] else { panic!("{got:?}") };
        // CVE-2016-6836: every bit of it is meant.
        let index = (round % RING) | rcd::SOP | rcd::EOP | rcd::CNC;
        assert_eq!(completion.index.get(), index);
        assert_eq!(completion.rss_hash.get(), 0);
        assert_eq!(completion.len.get(), frame.len() as u32);
        let lap = if round % 128 < 64 { COMP_GEN } else { 0 };
        let kind = completion::RXCOMP << completion::TYPE_SHIFT;
        assert_eq!(completion.flags.get(), kind | rcd::FCS | lap);
        assert_eq!(machine.messages(), [1]);
        machine.write_pt(IMR + STRIDE, 0);
    }
    let statistics = machine.statistics();
    assert_eq!(statistics.received_frames, 100);
}

#[test]
fn long_frames_go_on_in_body_buffers() {
    // Of the first ring while the next there is one, and then of the second.
    for (bodies, expected) in [(0, [0, 1, 1, 1]), (1, [0, 0, 1, 1]), (3, [0, 0, 0, 0])] {
        let setup = Setup { mtu: 9000, bodies, ..Setup::default() };
        let mut machine = Machine::with(setup);
        for len in [8000, 60, 8192, 2048, 2049] {
            machine.arrive(&frame(len));
            let got = machine.clean(0).unwrap();
            assert_eq!(got.bytes, frame(len), "{bodies} {len}");
            let count = len.div_ceil(2048);
            assert_eq!(got.completions.len(), count);
            for (number, completion) in got.completions.iter().enumerate() {
                let word = completion.index.get();
                assert_eq!(word >> rcd::RQID_SHIFT & rcd::RQID, expected[number]);
                assert_eq!(word & rcd::EOP != 0, number + 1 == count);
                let part = if number + 1 == count { len - 2048 * number } else { 2048 };
                assert_eq!(completion.len.get() & rcd::LEN, part as u32);
            }
        }
    }
}

// A driver whose first ring has body buffers sees those skipped that a short frame did not need.
#[test]
fn body_buffers_are_skipped_for_the_next_head() {
    let mut machine = Machine::with(Setup { mtu: 9000, bodies: 3, ..Setup::default() });
    for round in 0..40u32 {
        machine.arrive(&frame(100));
        let got = machine.clean(0).unwrap();
        assert_eq!(got.first().index.get() & COMP_IDX, 4 * round % RING);
    }
}

#[test]
fn short_frames_go_into_the_data_ring() {
    let mut machine = Machine::with(Setup { data_ring: 128, rx: 2, ..Setup::default() });
    for round in 0..70u32 {
        for (len, which) in [(60, 2), (128, 2), (129, 0)] {
            machine.arrive(&frame(len));
            let got = machine.clean(0).unwrap();
            assert_eq!(got.bytes, frame(len), "{round} {len}");
            let id = got.first().index.get() >> rcd::RQID_SHIFT & rcd::RQID;
            assert_eq!((id, got.completions.len()), (2 * which, 1));
        }
    }
}

// Revisions before 3 have no data ring, whatever is where its address would be.
#[test]
fn older_revisions_have_no_data_ring() {
    let setup = Setup { data_ring: 128, revision: REVISION_2, ..Setup::default() };
    let mut machine = Machine::with(setup);
    machine.arrive(&frame(60));
    let got = machine.clean(0).unwrap();
    assert_eq!(
        (got.bytes, got.completions[0].index.get() >> rcd::RQID_SHIFT & rcd::RQID),
        (frame(60), 0)
    );
}

#[test]
fn checksums_are_checked() {
    let cases = [
        (Packet::tcp4(&[1; 99]), rcd::V4 | rcd::IPC | rcd::TCP | rcd::TUC),
        (Packet::udp4(&[2; 98]), rcd::V4 | rcd::IPC | rcd::UDP | rcd::TUC),
        (Packet::tcp6(&[3; 97]), rcd::V6 | rcd::TCP | rcd::TUC),
        (Packet::udp6(&[4; 96]), rcd::V6 | rcd::UDP | rcd::TUC),
    ];
    for (packet, flags) in cases {
        let mut machine = Machine::new();
        let right = for_us(packet.finished());
        machine.arrive(&right);
        let got = machine.clean(0).unwrap();
        assert_eq!((got.flags(), got.last().index.get() & rcd::CNC), (flags | rcd::FCS, 0));
        let mut wrong = right.clone();
        *wrong.last_mut().unwrap() ^= 1;
        machine.arrive(&wrong);
        let got = machine.clean(0).unwrap();
        let expected = flags & !rcd::TUC | rcd::FCS;
        assert_eq!((got.flags(), got.last().index.get() & rcd::CNC), (expected, 0));
        // One that a backend left to be filled in, or knows to be right.
        let frame = for_us(packet.unfinished());
        machine.host.push_raw(0, &frame, packet.checksum_offload());
        machine.run();
        let got = machine.clean(0).unwrap();
        assert_eq!((got.flags(), &got.bytes), (flags | rcd::FCS, &right));
        let known = Offload { checksum_valid: true, ..Offload::default() };
        machine.host.push_raw(0, &wrong, known);
        machine.run();
        assert_eq!(machine.clean(0).unwrap().flags(), flags | rcd::FCS);
    }
}

#[test]
fn what_cannot_be_checked_is_not_said_to_be_right() {
    let mut machine = Machine::new();
    let mut fragment = Packet::udp4(&[7; 40]);
    let Ip::V4 { flags_fragment, .. } = &mut fragment.ip else { panic!() };
    *flags_fragment = 1 << 13;
    machine.arrive(&for_us(fragment.finished()));
    let got = machine.clean(0).unwrap();
    assert_eq!(got.flags(), rcd::V4 | rcd::IPC | rcd::FRG | rcd::FCS);
    assert_ne!(got.last().index.get() & rcd::CNC, 0);
    let mut header = for_us(Packet::udp4(&[7; 40]).finished());
    header[24] ^= 1;
    machine.arrive(&header);
    assert_eq!(machine.clean(0).unwrap().flags(), rcd::V4 | rcd::UDP | rcd::TUC | rcd::FCS);
    // Nothing is, unless the driver wants it.
    let mut machine = Machine::with(Setup { features: Features::empty(), ..Setup::default() });
    machine.arrive(&for_us(Packet::tcp4(&[1; 50]).finished()));
    let got = machine.clean(0).unwrap();
    assert_eq!(got.flags(), rcd::V4 | rcd::TCP | rcd::FCS);
    assert_ne!(got.last().index.get() & rcd::CNC, 0);
}

// QEMU df8bf7a7fe: a tag is taken out of a frame that has one, all of it, and nothing else is touched.
#[test]
fn tags_are_stripped_where_there_are_any() {
    let features = Features::RXVLAN | Features::RXCSUM;
    let mut machine = Machine::with(Setup { features, mode: RxMode::PROMISC, ..Setup::default() });
    let packet = Packet { vlan: vec![(0x8100, 0xb005)], ..Packet::tcp4(&[9; 80]) };
    let plain = Packet { vlan: vec![], ..packet.clone() };
    machine.arrive(&for_us(packet.finished()));
    let got = machine.clean(0).unwrap();
    assert_eq!(got.bytes, for_us(plain.finished()));
    assert_eq!(got.last().len.get() & !rcd::LEN, rcd::TS | 0xb005 << rcd::TCI_SHIFT);
    assert_eq!(got.flags(), rcd::V4 | rcd::IPC | rcd::TCP | rcd::TUC | rcd::FCS);
    // An outer tag of a provider stays, and a frame that ends in its tag.
    let outer = Packet { vlan: vec![(0x88a8, 0xb005)], ..packet.clone() };
    for frame in [for_us(outer.finished()), for_us(packet.finished())[..17].to_vec()] {
        machine.arrive(&frame);
        let got = machine.clean(0).unwrap();
        assert_eq!((&got.bytes, got.last().len.get() & !rcd::LEN), (&frame, 0));
    }
    // The tag is where it was, unless the driver wants it stripped.
    let mut machine = Machine::with(Setup { mode: RxMode::PROMISC, ..Setup::default() });
    machine.arrive(&for_us(packet.finished()));
    assert_eq!(machine.clean(0).unwrap().bytes, for_us(packet.finished()));
}

#[test]
fn filters_are_as_the_driver_sets_them() {
    let mut machine = Machine::new();
    let group = [1, 0, 0x5e, 1, 2, 3];
    machine.arrive(&frame_to(group, 60));
    machine.arrive(&frame_to([2; 6], 60));
    assert_eq!((machine.clean(0), machine.statistics().filtered), (None, 2));
    machine.arrive(&frame_to([0xff; 6], 60));
    assert!(machine.clean(0).is_some());
    // A group is let in by the table and the mode together.
    let filter = offset_of!(DriverShared, dev_read.rx_filter_conf);
    machine.fill(SPARE, &[[9; 6], group].concat());
    machine.set_shared(filter + offset_of!(RxFilterConf, mf_table_pa), &SPARE.to_le_bytes());
    machine.set_shared(filter + offset_of!(RxFilterConf, mf_table_len), &12u16.to_le_bytes());
    assert_eq!(machine.order(command::UPDATE_MAC_FILTERS), 0);
    machine.arrive(&frame_to(group, 60));
    assert_eq!(machine.clean(0), None);
    machine.set_shared(filter, &(RxMode::MCAST.bits()).to_le_bytes());
    assert_eq!(machine.order(command::UPDATE_RX_MODE), 0);
    machine.arrive(&frame_to(group, 60));
    assert!(machine.clean(0).is_some());
    machine.arrive(&frame(60));
    assert_eq!(machine.clean(0), None);
    // A table that is not memory has no addresses.
    machine.set_shared(filter + offset_of!(RxFilterConf, mf_table_pa), &[0xff; 8]);
    assert_ne!(machine.order(command::UPDATE_MAC_FILTERS), 0);
    machine.arrive(&frame_to(group, 60));
    assert_eq!(machine.clean(0), None);
    // VLANs.
    machine.set_shared(filter, &(RxMode::UCAST.bits()).to_le_bytes());
    machine.order(command::UPDATE_RX_MODE);
    let tagged = Packet { vlan: vec![(0x8100, 37)], ..Packet::udp4(&[1; 40]) };
    machine.arrive(&for_us(tagged.finished()));
    assert!(machine.clean(0).is_some());
    let table = filter + offset_of!(RxFilterConf, vf_table);
    machine.set_shared(table, &1u32.to_le_bytes());
    assert_eq!(machine.order(command::UPDATE_VLAN_FILTERS), 0);
    machine.arrive(&for_us(tagged.finished()));
    assert_eq!(machine.clean(0), None);
    machine.set_shared(table + 4, &(1u32 << 5).to_le_bytes());
    assert_eq!(machine.order(command::UPDATE_VLAN_FILTERS), 0);
    machine.arrive(&for_us(tagged.finished()));
    assert!(machine.clean(0).is_some());
    // A new station address.
    machine.write_vd(MACL, 0x0302_0102);
    machine.arrive(&frame(60));
    assert!(machine.clean(0).is_some());
    machine.write_vd(MACH, 0x0504);
    assert_eq!((machine.read_vd(MACL), machine.read_vd(MACH)), (0x0302_0102, 0x0504));
    machine.arrive(&frame(60));
    assert_eq!(machine.clean(0), None);
    machine.arrive(&frame_to([2, 1, 2, 3, 4, 5], 60));
    assert!(machine.clean(0).is_some());
}

// CVE-2015-8744: the shortest frames there can be.
#[test]
fn short_and_long_frames() {
    let mut machine = Machine::with(Setup { mode: RxMode::PROMISC, ..Setup::default() });
    for len in 0..14 {
        machine.host.push_raw(0, &[0x81; 14][..len], Offload::default());
        machine.run();
    }
    assert_eq!((machine.clean(0), machine.statistics().receive_errors), (None, 14));
    for len in 14..20 {
        let mut frame = frame(len);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        machine.arrive(&frame);
        assert_eq!(machine.clean(0).unwrap().bytes, frame);
    }
    machine.arrive(&frame(1522));
    assert_eq!(machine.clean(0).unwrap().bytes, frame(1522));
    machine.arrive(&frame(1523));
    assert_eq!((machine.clean(0), machine.statistics().received_too_long), (None, 1));
    machine.order(command::GET_STATS);
    assert_eq!(machine.rx_desc(0).stats.pkts_error.get(), 15);
}

#[test]
fn large_frames_are_told_of_with_their_segments() {
    for packet in [Packet::tcp4(&[8; 5000]), Packet::tcp6(&[8; 5000])] {
        let features = Features::LRO | Features::RXCSUM;
        let mut machine = Machine::with(Setup { features, ..Setup::default() });
        let all = Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN;
        assert_eq!(machine.host.accepted(), all);
        let frame = for_us(packet.unfinished());
        machine.host.push_with(0, &frame, packet.cut_offload(1400));
        machine.run();
        let got = machine.clean(0).unwrap();
        assert_eq!((&got.bytes, got.completions.len()), (&frame, 3));
        let first = got.first();
        assert_eq!(
            first.flags.get() >> completion::TYPE_SHIFT & completion::TYPE,
            completion::RXCOMP_LRO
        );
        assert_eq!((first.flags.get() & 0xffff, first.rss_hash.get()), (1400, 4));
        assert_eq!(first.index.get() >> rcd::RSS_TYPE_SHIFT & rcd::RSS_TYPE, rcd::RSS_TYPE_NONE);
        let last = got.last();
        assert_eq!(
            last.flags.get() >> completion::TYPE_SHIFT & completion::TYPE,
            completion::RXCOMP
        );
        // Linux takes what is there for a sum if nothing says that the checksum is right.
        assert_eq!((last.flags.get() & 0xffff, last.index.get() & rcd::CNC), (0, 0));
        let kind = packet.transport_offset() == 34;
        let kind = if kind { rcd::V4 | rcd::IPC } else { rcd::V6 };
        assert_eq!(got.flags(), kind | rcd::TCP | rcd::TUC | rcd::FCS);
        machine.order(command::GET_STATS);
        let stats = machine.rx_desc(0).stats;
        assert_eq!((stats.lro_pkts.get(), stats.lro_bytes.get()), (1, frame.len() as u64));
        let headers = packet.payload_offset() as u64;
        assert_eq!((stats.ucast_pkts.get(), stats.ucast_bytes.get()), (4, 5000 + 4 * headers));
    }
}

// Linux takes MSS for a sum, too, unless both checksums are said to be right: one buffer is the first
// and the last.
#[test]
fn a_large_frame_in_one_buffer_has_both_checksums_right() {
    let features = Features::LRO | Features::RXCSUM;
    let mut machine = Machine::with(Setup { features, ..Setup::default() });
    let packet = Packet::tcp4(&[8; 1900]);
    let mut frame = for_us(packet.unfinished());
    frame[24..26].fill(0);
    machine.host.push_with(0, &frame, packet.cut_offload(1000));
    machine.run();
    let got = machine.clean(0).unwrap();
    let word = got.last().flags.get();
    assert_eq!((got.completions.len(), word & 0xffff), (1, 1000));
    assert_eq!(got.flags(), rcd::V4 | rcd::IPC | rcd::TCP | rcd::TUC | rcd::FCS);
}

#[test]
fn the_first_revision_is_told_of_no_segments() {
    let features = Features::LRO | Features::RXCSUM;
    let setup = Setup { features, revision: REVISION_1, ..Setup::default() };
    let mut machine = Machine::with(setup);
    let packet = Packet::tcp4(&[8; 3000]);
    machine.host.push_with(0, &for_us(packet.unfinished()), packet.cut_offload(1400));
    machine.run();
    let got = machine.clean(0).unwrap();
    for completion in &got.completions {
        let kind = completion.flags.get() >> completion::TYPE_SHIFT & completion::TYPE;
        assert_eq!((kind, completion.rss_hash.get()), (completion::RXCOMP, 0));
    }
}

// The checksum of what nobody has cut is not filled in: a driver that looks at it would find it wrong.
#[test]
fn a_driver_that_checks_sums_itself_gets_no_large_frames() {
    let mut machine = Machine::with(Setup { features: Features::LRO, ..Setup::default() });
    assert_eq!(machine.host.accepted(), Offloads::empty());
    let packet = Packet::tcp4(&[8; 4000]);
    let frame = for_us(packet.unfinished());
    machine.host.push_with(0, &frame, packet.cut_offload(1400));
    machine.run();
    assert_eq!(std::iter::from_fn(|| machine.clean(0)).count(), 3, "the backend has cut it");
    machine.host.push_raw(0, &frame, packet.cut_offload(1400));
    machine.run();
    assert_eq!((machine.clean(0), machine.statistics().receive_errors), (None, 1));
}

// Without LRO a backend cuts; what it sends all the same, or what makes no sense, is lost.
#[test]
fn large_frames_that_are_not_wanted_are_lost() {
    let mut machine = Machine::new();
    assert_eq!(machine.host.accepted(), Offloads::empty());
    let packet = Packet::tcp4(&[8; 4000]);
    let frame = for_us(packet.unfinished());
    machine.host.push_with(0, &frame, packet.cut_offload(1400));
    machine.run();
    let got: Vec<_> = std::iter::from_fn(|| machine.clean(0)).collect();
    assert_eq!(got.len(), 3);
    assert!(got.iter().all(|got| got.flags() & rcd::TUC != 0));
    machine.host.push_raw(0, &frame, packet.cut_offload(1400));
    machine.run();
    let features = Features::LRO | Features::RXCSUM;
    machine.set_shared(
        offset_of!(DriverShared, dev_read.misc.upt_features),
        &features.bits().to_le_bytes(),
    );
    assert_eq!(machine.order(command::UPDATE_FEATURE), 0);
    let udp = Packet::udp4(&[8; 4000]);
    machine.host.push_raw(0, &for_us(udp.unfinished()), udp.cut_offload(1400));
    machine.host.push_raw(0, &for_us(packet.finished()), packet.cut_offload(0));
    machine.host.push_raw(0, &frame[..40], packet.cut_offload(4));
    machine.run();
    assert_eq!((machine.clean(0), machine.statistics().receive_errors), (None, 4));
    machine.host.push_with(0, &frame, packet.cut_offload(1400));
    machine.run();
    assert_eq!(machine.clean(0).unwrap().bytes, frame);
}

#[test]
fn a_frame_takes_no_more_buffers_than_the_driver_allows() {
    let features = Features::LRO | Features::RXCSUM;
    let setup = Setup { features, most_buffers: 3, ..Setup::default() };
    let mut machine = Machine::with(setup);
    for (payload, fits) in [(3 * 2048 - 54, true), (3 * 2048 - 53, false)] {
        let packet = Packet::tcp4(&vec![8; payload]);
        machine.host.push_with(0, &for_us(packet.unfinished()), packet.cut_offload(1400));
        machine.run();
        assert_eq!(machine.clean(0).is_some(), fits);
    }
    assert_eq!(machine.statistics().received_too_long, 1);
    // What it says is about frames that were put together: Linux says 0 where it wants no such.
    let mut machine = Machine::with(Setup { mtu: 9000, most_buffers: 0, ..Setup::default() });
    machine.arrive(&frame(9000));
    assert_eq!(machine.clean(0).unwrap().bytes, frame(9000));
}

// Windows' driver gives head buffers alone, and takes a packet in several of them (QEMU's
// rx_packets_compound); any other is not to have one go on in a head buffer.
#[test]
fn a_frame_goes_on_in_head_buffers_for_windows_alone() {
    for system in [gos::LINUX, gos::WINDOWS] {
        let mut machine = Machine::off(Setup { mtu: 9000, ..Setup::default() });
        let mut shared = machine.prepare();
        shared.dev_read.misc.driver_info.gos = (gos::BITS_64 | system << gos::TYPE_SHIFT).into();
        assert_eq!(machine.activate(&shared), 0);
        machine.give(0, 0, RING - 1);
        machine.run();
        machine.arrive(&frame(5000));
        machine.advance(50_000);
        let got = machine.clean(0);
        if system == gos::LINUX {
            assert_eq!((got, machine.statistics().no_guest_buffers), (None, 1));
            continue;
        }
        let got = got.unwrap();
        assert_eq!(got.bytes, frame(5000));
        let places = got.completions.iter().map(|part| part.index.get() & COMP_IDX);
        assert_eq!(places.collect::<Vec<_>>(), [0, 1, 2]);
        // Body buffers are used where there are any.
        machine.give(0, 1, RING - 1);
        machine.arrive(&frame(5000));
        assert_eq!(machine.clean(0).unwrap().bytes, frame(5000));
    }
}

// A buffer that is not memory costs the packet, of which the driver hears, and no more.
#[test]
fn a_buffer_that_is_not_memory_makes_an_error() {
    let mut machine = Machine::new();
    let descriptor = RxDesc::new(MEMORY as u64 - 100, 2048 | rxd::GEN);
    machine.fill(RX_RINGS_AT, descriptor.as_bytes());
    machine.arrive(&frame(200));
    let completion: RxCompDesc = machine.get(RX_RINGS_AT + 0x2000);
    assert_ne!(completion.len.get() & rcd::ERR, 0);
    assert_ne!(completion.index.get() & rcd::EOP, 0);
    machine.rx[0][2].step();
    machine.arrive(&frame(201));
    assert_eq!(machine.clean(0).unwrap().bytes, frame(201));
    assert_eq!(machine.statistics().receive_errors, 1);
}

#[test]
fn without_a_link_nothing_is_received() {
    let mut machine = Machine::new();
    machine.control.set_link(false);
    machine.arrive(&frame(60));
    assert_eq!((machine.clean(0), machine.host.waiting(0)), (None, 1));
    machine.control.set_link(true);
    machine.run();
    assert!(machine.clean(0).is_some());
}
