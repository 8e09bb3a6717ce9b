//! Transmission: descriptors, offloads, tags, completions.

use paraslot_backends::net::{Cut, PartialChecksum, Segmentation};

use super::*;

#[test]
fn a_packet_goes_out_and_is_completed_at_its_last_descriptor() {
    let mut machine = Machine::new();
    let frame = frame(300);
    for (at, part) in
        [(0x100u64, &frame[..14]), (0x3_001, &frame[14..200]), (0x5_003, &frame[200..])]
    {
        machine.fill(TX_DATA + at, part);
    }
    machine.transmit(&[
        descriptor(TX_DATA + 0x100, 14, 0),
        descriptor(TX_DATA + 0x3_001, 186, 0),
        descriptor(TX_DATA + 0x5_003, 100, txd::EOP | txd::CQ),
    ]);
    assert_eq!(machine.one_sent(), Sent { bytes: frame, offload: Offload::default() });
    assert_eq!((machine.completed(0), machine.completed(0)), (Some(2), None));
    assert_eq!(machine.messages(), [0]);
}

// CQ alone asks for a completion.
#[test]
fn a_completion_is_written_only_if_it_is_wanted() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[descriptor(TX_DATA, 60, txd::EOP)]);
    assert_eq!((machine.completed(0), machine.messages()), (None, vec![]));
    machine.transmit(&[descriptor(TX_DATA, 60, ALONE)]);
    assert_eq!((machine.completed(0), machine.messages()), (Some(1), vec![0]));
    assert_eq!(machine.sent().len(), 2);
}

// Packets of three descriptors in a ring of 32 wrap at every place, and both generations flip.
#[test]
fn rings_wrap() {
    let mut machine = Machine::new();
    for round in 0..100u32 {
        let frame = frame(90 + round as usize);
        machine.fill(TX_DATA, &frame);
        let rest = frame.len() as u32 - 60;
        machine.transmit(&[
            descriptor(TX_DATA, 20, 0),
            descriptor(TX_DATA + 20, 40, 0),
            descriptor(TX_DATA + 60, rest, ALONE),
        ]);
        assert_eq!(machine.one_sent().bytes, frame);
        assert_eq!(machine.completed(0), Some((3 * round + 2) % RING));
        assert_eq!(machine.completed(0), None);
        machine.write_pt(IMR, 0);
    }
}

// CVE-2016-6834: a length of 0 is 16384 bytes, not nothing.
#[test]
fn a_length_of_zero_is_the_greatest() {
    let mut machine = Machine::with(Setup { mtu: 9000, ..Setup::default() });
    let packet = for_us(Packet::tcp4(&[7; 20_000]).unfinished());
    machine.fill(TX_DATA, &packet);
    let rest = packet.len() as u32 - 16384;
    machine.transmit(&[
        descriptor(TX_DATA, 1000 << txd::MSSCOF_SHIFT, txd::OM_TSO | 54),
        descriptor(TX_DATA + 16384, rest, ALONE),
    ]);
    let sent = machine.one_sent();
    assert_eq!((sent.bytes.len(), &sent.bytes[54..]), (packet.len(), &packet[54..]));
    // Of a packet that is not to be segmented it is too much, and no more than that.
    machine.transmit(&[descriptor(TX_DATA, 0, ALONE)]);
    assert_eq!(
        (machine.sent(), machine.completed(0), machine.completed(0)),
        (vec![], Some(1), Some(2))
    );
    assert_eq!(machine.statistics().send_invalid, 1);
}

#[test]
fn checksums_are_left_to_the_backend_where_the_descriptor_says() {
    for packet in
        [Packet::tcp4(&[1; 99]), Packet::udp4(&[2; 3]), Packet::tcp6(&[]), Packet::udp6(&[9; 600])]
    {
        let mut machine = Machine::new();
        let frame = packet.unfinished();
        let partial = packet.partial_checksum();
        let place = u32::from(partial.start + partial.offset);
        machine.send(&frame, place << txd::MSSCOF_SHIFT, txd::OM_CSUM | u32::from(partial.start));
        let sent = machine.one_sent();
        assert_eq!(sent, Sent { bytes: frame, offload: packet.checksum_offload() });
    }
}

// Any bytes can be summed, not those of TCP and UDP alone; what is outside the frame, or beyond what
// the interface allows, costs the packet.
#[test]
fn checksums_that_cannot_be_inserted_cost_the_packet() {
    let mut machine = Machine::new();
    let frame = frame(200);
    let send = |machine: &mut Machine, start: u32, place: u32| {
        machine.send(&frame, place << txd::MSSCOF_SHIFT, txd::OM_CSUM | start);
        machine.sent().pop().map(|sent| sent.offload.checksum.unwrap())
    };
    let partial = |start, offset| Some(PartialChecksum { start, offset });
    assert_eq!(send(&mut machine, 20, 30), partial(20, 10));
    assert_eq!(send(&mut machine, 14, 198), partial(14, 184));
    for (start, place) in [(20, 19), (20, 199), (200, 200), (1023, 1025), (1023, 16383), (0, 1025)]
    {
        assert_eq!(send(&mut machine, start, place), None, "{start} {place}");
    }
    assert_eq!(machine.statistics().send_invalid, 6);
    assert_eq!(std::iter::from_fn(|| machine.completed(0)).count(), 8);
}

#[test]
fn segmentation_is_left_to_the_backend_with_headers_as_it_expects_them() {
    for packet in [Packet::tcp4(&[5; 4000]), Packet::tcp6(&[6; 4000])] {
        let mut machine = Machine::new();
        let whole = packet.unfinished();
        let mut frame = whole.clone();
        let (ip, tcp) = (packet.network_offset(), packet.transport_offset());
        // As drivers have it: no length in the sum, no checksum in an IPv4 header, any lengths.
        frame[tcp + 16..tcp + 18].fill(0xee);
        frame[ip + 2..ip + 6].fill(0);
        if tcp - ip == 20 {
            frame[ip + 4..ip + 6].copy_from_slice(&whole[ip + 4..ip + 6]);
            frame[ip + 10..ip + 12].fill(0);
        } else {
            frame[ip + 2..ip + 4].copy_from_slice(&whole[ip + 2..ip + 4]);
        }
        let headers = packet.payload_offset() as u32;
        machine.send(&frame, 1448 << txd::MSSCOF_SHIFT, txd::OM_TSO | headers);
        assert_eq!(machine.one_sent(), Sent { bytes: whole, offload: packet.cut_offload(1448) });
    }
}

#[test]
fn segmentation_that_does_not_fit_the_headers_costs_the_packet() {
    let mut machine = Machine::new();
    let udp = Packet::udp4(&[5; 4000]).unfinished();
    let tcp = Packet::tcp4(&[5; 4000]).unfinished();
    let mut other = tcp.clone();
    // CVE-2020-27617: neither IPv4 nor IPv6.
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    for (frame, headers, size) in [
        (&udp, 42, 1000),
        (&udp, 54, 1000),
        (&tcp, 53, 1000),
        (&tcp, 0, 1000),
        (&tcp, 54, 0),
        (&other, 54, 1000),
        (&tcp, 54, 1),
    ] {
        machine.send(frame, size << txd::MSSCOF_SHIFT, txd::OM_TSO | headers);
        assert_eq!(machine.sent(), []);
    }
    assert_eq!(machine.statistics().send_invalid, 7);
    assert_eq!(std::iter::from_fn(|| machine.completed(0)).count(), 7);
    assert_eq!(machine.tx_desc(0).status, QueueStatus::default());
}

#[test]
fn tags_are_inserted_behind_the_addresses() {
    let mut machine = Machine::new();
    let tag = txd::TI | 0xa123 << txd::TCI_SHIFT;
    let frame = frame(100);
    machine.send(&frame, 0, tag);
    let tagged = [&frame[..12], &[0x81, 0, 0xa1, 0x23], &frame[12..]].concat();
    assert_eq!(machine.one_sent().bytes, tagged);
    // A checksum moves along, and a segment's headers.
    let packet = Packet::tcp4(&[3; 3000]);
    let tagged = Packet { vlan: vec![(0x8100, 0xa123)], ..packet.clone() };
    machine.send(&packet.unfinished(), 1000 << txd::MSSCOF_SHIFT, tag | txd::OM_TSO | 54);
    let expected = Sent { bytes: tagged.unfinished(), offload: tagged.cut_offload(1000) };
    assert_eq!(machine.one_sent(), expected);
    let packet = Packet::udp4(&[3; 300]);
    let tagged = Packet { vlan: vec![(0x8100, 0xa123)], ..packet.clone() };
    machine.send(&packet.unfinished(), 40 << txd::MSSCOF_SHIFT, tag | txd::OM_CSUM | 34);
    let expected = Sent { bytes: tagged.unfinished(), offload: tagged.checksum_offload() };
    assert_eq!(machine.one_sent(), expected);
}

#[test]
fn frames_that_are_no_frames_cost_themselves() {
    let mut machine = Machine::new();
    machine.send(&[1; 13], 0, 0);
    machine.send(&frame(1523), 0, 0);
    assert_eq!(machine.sent(), []);
    machine.send(&frame(14), 0, 0);
    machine.send(&frame(1522), 0, 0);
    assert_eq!(machine.sent().len(), 2);
    // Not memory.
    machine.transmit(&[descriptor(MEMORY as u64 - 10, 60, ALONE)]);
    machine.transmit(&[descriptor(TX_DATA, 60, 0), descriptor(u64::MAX - 3, 100, ALONE)]);
    assert_eq!(machine.sent(), []);
    assert_eq!(std::iter::from_fn(|| machine.completed(0)).count(), 6);
    assert_eq!(machine.statistics().send_invalid, 4);
}

#[test]
fn a_busy_backend_keeps_packets_in_the_ring() {
    let mut machine = Machine::new();
    machine.host.set_room(0, Some(1));
    machine.fill(TX_DATA, &frame(60));
    for _ in 0..3 {
        machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
    }
    machine.ring(0);
    machine.run();
    assert_eq!(
        (machine.sent().len(), machine.completed(0), machine.completed(0)),
        (1, Some(0), None)
    );
    machine.host.set_room(0, None);
    machine.run();
    assert_eq!(
        (machine.sent().len(), machine.completed(0), machine.completed(0)),
        (2, Some(1), Some(2))
    );
    let statistics = machine.statistics();
    assert_eq!((statistics.sent_frames, statistics.sent_bytes), (3, 180));
    assert!(statistics.send_busy > 0);
}

#[test]
fn without_a_link_packets_are_lost_and_completed() {
    let mut machine = Machine::with(Setup { link: false, ..Setup::default() });
    machine.send(&frame(60), 0, 0);
    assert_eq!((machine.sent(), machine.completed(0)), (vec![], Some(0)));
    machine.order(command::GET_STATS);
    assert_eq!(machine.tx_desc(0).stats.pkts_discard.get(), 1);
    assert_eq!(machine.statistics().send_down, 1);
}

#[test]
fn each_kind_of_packet_is_counted() {
    let mut machine = Machine::new();
    machine.send(&frame(100), 0, 0);
    machine.send(&frame_to([0xff; 6], 60), 0, 0);
    machine.send(&frame_to([1, 0, 0, 0, 0, 1], 70), 0, 0);
    machine.send(&[0; 10], 0, 0);
    let packet = Packet::tcp4(&[3; 2500]).unfinished();
    machine.send(&packet, 1000 << txd::MSSCOF_SHIFT, txd::OM_TSO | 54);
    assert_eq!(machine.order(command::GET_STATS), 0);
    let stats = machine.tx_desc(0).stats;
    let tso = 2500 + 3 * 54;
    let expected = TxStats {
        tso_pkts: 3.into(),
        tso_bytes: tso.into(),
        ucast_pkts: 4.into(),
        ucast_bytes: (100 + tso).into(),
        mcast_pkts: 1.into(),
        mcast_bytes: 70.into(),
        bcast_pkts: 1.into(),
        bcast_bytes: 60.into(),
        pkts_error: 1.into(),
        pkts_discard: 0.into(),
    };
    assert_eq!(stats, expected);
    // They go on when the driver starts anew.
    machine.order(command::QUIESCE_DEV);
    machine.start();
    machine.send(&frame(100), 0, 0);
    machine.order(command::GET_STATS);
    assert_eq!(machine.tx_desc(0).stats.ucast_pkts.get(), 5);
}

/// What remains to be done is the frame's own, not what `Segmentation` of the test helper says of it.
#[test]
fn congestion_is_told() {
    let mut machine = Machine::new();
    let mut frame = Packet::tcp4(&[3; 2500]).unfinished();
    frame[47] |= 1 << 7;
    machine.send(&frame, 1000 << txd::MSSCOF_SHIFT, txd::OM_TSO | 54);
    let segmentation = machine.one_sent().offload.segmentation;
    let expected = Segmentation { cut: Cut::Tcp4, size: 1000, header_len: 54, ecn: true };
    assert_eq!(segmentation, Some(expected));
}
