use paraslot_backends::net::checksum::{verify_ipv4, verify_transport};
use paraslot_backends::net::parse::Headers;
use paraslot_backends::net::testing::{Ip, Layer4};
use paraslot_spec::e1000::statistics;

use super::checksum::context_of;
use super::*;

/// A packet as drivers hand it over: no lengths, no checksums, and the sum of the pseudo header
/// without the length.
fn as_drivers_do(packet: &Packet) -> Vec<u8> {
    let mut bytes = packet.unfinished();
    let ip = packet.network_offset();
    match packet.ip {
        Ip::V4 { .. } => {
            bytes[ip + 2..ip + 4].fill(0);
            bytes[ip + 10..ip + 12].fill(0);
        }
        Ip::V6 { .. } => bytes[ip + 4..ip + 6].fill(0),
    }
    let place = usize::from(context_of(packet).tucso);
    let len = bytes.len() - packet.transport_offset();
    let sum = u32::from(packet.pseudo_sum()) + u32::from(!(len as u16));
    let sum = (sum & 0xffff) + (sum >> 16);
    bytes[place..place + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    bytes
}

fn context(packet: &Packet, mss: u16) -> (Context, u32) {
    let hdrlen = packet.payload_offset() as u8;
    let paylen = packet.payload.len() as u32;
    let context = Context { mss, hdrlen, paylen, ..context_of(packet) };
    let mut flags = transmit::TSE;
    if matches!(packet.ip, Ip::V4 { .. }) {
        flags |= transmit::IP;
    }
    if matches!(packet.layer4, Layer4::Tcp { .. }) {
        flags |= transmit::TCP;
    }
    (context, flags)
}

fn options(packet: &Packet) -> u8 {
    let ip = if matches!(packet.ip, Ip::V4 { .. }) { transmit::IXSM } else { 0 };
    transmit::TXSM | ip
}

/// The headers apart, the payload in pieces of 4096 bytes, as Linux does it.
fn descriptors(
    machine: &Machine,
    bytes: &[u8],
    header: usize,
    options: u8,
) -> Vec<TransmitDescriptor> {
    let mut descriptors =
        vec![TransmitDescriptor::data(TX_DATA, header as u32, transmit::TSE, options)];
    machine.fill(TX_DATA, bytes);
    for start in (header..bytes.len()).step_by(4096) {
        let len = (bytes.len() - start).min(4096) as u32;
        let at = TX_DATA + start as u64;
        descriptors.push(TransmitDescriptor::data(at, len, transmit::TSE, options));
    }
    let last = descriptors.last_mut().unwrap();
    last.command = (last.command.get() | ALONE).into();
    descriptors
}

fn send(machine: &mut Machine, packet: &Packet, mss: u16) {
    let (context, flags) = context(packet, mss);
    let bytes = as_drivers_do(packet);
    let mut all = vec![TransmitDescriptor::context(&context, flags)];
    all.extend(descriptors(machine, &bytes, context.hdrlen.into(), options(packet)));
    machine.transmit(&all);
}

fn machine() -> Machine {
    let mut machine = Machine::new();
    machine.transmit_ring(TX_RING, 64);
    machine
}

fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 13 + at / 255) as u8).collect()
}

// What a backend gets is the packet with its lengths and checksums as it expects them.
#[test]
fn tcp_is_left_to_the_backend() {
    let mut machine = machine();
    for len in [1, 100, 1447, 1448, 1449, 9000, 65_000] {
        for packet in [Packet::tcp4(&payload(len)), Packet::tcp6(&payload(len))] {
            send(&mut machine, &packet, 1448);
            let sent = machine.sent();
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0].offload, packet.cut_offload(1448));
            assert_eq!(sent[0].bytes, packet.unfinished(), "{len}");
        }
    }
    assert_eq!(machine.statistics().sent_frames, 14);
    assert_eq!(machine.read(statistics::TSCTC), 14);
    assert_eq!(machine.read(statistics::TSCTFC), 0);
}

#[test]
fn options_and_flags_go_along() {
    let mut machine = machine();
    let mut packet = Packet::tcp4(&payload(5000));
    let Layer4::Tcp { flags, options, .. } = &mut packet.layer4 else { unreachable!() };
    *flags |= 0x89;
    *options = vec![1; 12];
    let Ip::V4 { options, .. } = &mut packet.ip else { unreachable!() };
    *options = vec![1; 8];
    send(&mut machine, &packet, 1400);
    let sent = machine.sent();
    assert_eq!((&sent[0].bytes, sent[0].offload), (&packet.unfinished(), packet.cut_offload(1400)));
    assert!(sent[0].offload.segmentation.unwrap().ecn);
}

#[test]
fn the_segments_are_counted() {
    let mut machine = machine();
    send(&mut machine, &Packet::tcp4(&payload(2 * 1448 + 4)), 1448);
    // Twice 54 + 1448, once 54 + 4, padded, each with its FCS.
    assert_eq!(machine.read(statistics::GPTC), 3);
    assert_eq!(machine.read(statistics::PTC1522), 2);
    assert_eq!(machine.read(statistics::PTC64), 1);
    assert_eq!(machine.read(statistics::GOTCL), 2 * (54 + 1448 + 4) + 64);
}

/// Takes the segments of `packet` apart again.
fn check_segments(packet: &Packet, sent: &[Vec<u8>], mss: usize) {
    let header = packet.payload_offset();
    let total = packet.payload.len();
    assert_eq!(sent.len(), total.div_ceil(mss));
    let mut joined = Vec::<u8>::new();
    for (index, bytes) in sent.iter().enumerate() {
        let headers = Headers::parse(bytes);
        let network = headers.network.unwrap();
        let end = network.offset + network.length.unwrap();
        assert_eq!(headers.header_len(), Some(header));
        assert_eq!(end - header, mss.min(total - joined.len()));
        assert_ne!(verify_ipv4(bytes, &headers), Some(false));
        assert_eq!(verify_transport(bytes, &headers), Some(true));
        if let Ip::V4 { identification, .. } = packet.ip {
            let id = u16::from_be_bytes([bytes[18], bytes[19]]);
            assert_eq!(id, identification.wrapping_add(index as u16));
        }
        let at = packet.transport_offset();
        if let Layer4::Tcp { sequence, flags, .. } = packet.layer4 {
            let number = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap());
            assert_eq!(number, sequence.wrapping_add(joined.len() as u32));
            let last = index + 1 == sent.len();
            assert_eq!(bytes[at + 13], if last { flags } else { flags & !9 });
        }
        joined.extend(&bytes[header..end]);
    }
    assert_eq!(joined, packet.payload);
}

// UDP is nothing that others segment in this way, so it is done here.
#[test]
fn udp_is_segmented_here() {
    let mut machine = machine();
    for packet in [Packet::udp4(&payload(5000)), Packet::udp6(&payload(3001))] {
        send(&mut machine, &packet, 1000);
        let sent: Vec<_> = machine.sent().into_iter().map(|sent| sent.bytes).collect();
        check_segments(&packet, &sent, 1000);
    }
    assert_eq!(machine.read(statistics::TSCTC), 2);
    assert_eq!(machine.statistics().sent_frames, 5 + 4);
}

#[test]
fn what_a_backend_would_not_understand_is_segmented_here() {
    let mut machine = machine();
    let mut packet = Packet::tcp4(&payload(4000));
    let Layer4::Tcp { flags, .. } = &mut packet.layer4 else { unreachable!() };
    *flags |= 9;
    let bytes = as_drivers_do(&packet);
    let (mut context, flags) = context(&packet, 1000);
    // The end of the checksum given by hand, for once.
    context.ipcse = 33;
    context.tucse = 0;
    let mut all = vec![TransmitDescriptor::context(&context, flags)];
    // Without IXSM the IP header's checksum is not asked for.
    all.extend(descriptors(&machine, &bytes, context.hdrlen.into(), transmit::TXSM));
    machine.transmit(&all);
    let sent: Vec<_> = machine.sent().into_iter().map(|sent| sent.bytes).collect();
    assert_eq!(sent.len(), 4);
    for (index, bytes) in sent.iter().enumerate() {
        let headers = Headers::parse(bytes);
        assert_eq!(verify_transport(bytes, &headers), Some(true), "{index}");
        assert_eq!((bytes[24], bytes[25]), (0, 0));
    }
}

#[test]
fn an_interrupted_packet_goes_on_where_it_was() {
    let mut machine = machine();
    machine.host.set_room(0, Some(2));
    let packet = Packet::udp4(&payload(5000));
    send(&mut machine, &packet, 1000);
    let mut sent: Vec<_> = machine.sent().into_iter().map(|sent| sent.bytes).collect();
    assert_eq!((sent.len(), machine.status(0)), (2, 0));
    machine.host.set_room(0, None);
    machine.run();
    sent.extend(machine.sent().into_iter().map(|sent| sent.bytes));
    check_segments(&packet, &sent, 1000);
    // The next one begins at its beginning.
    send(&mut machine, &packet, 1000);
    let sent: Vec<_> = machine.sent().into_iter().map(|sent| sent.bytes).collect();
    check_segments(&packet, &sent, 1000);
}

// CVE-2015-6815 (no header and no segment size: no progress, for ever) and its kin.
#[test]
fn segmentation_that_makes_no_sense_is_refused() {
    let mut machine = machine();
    let packet = Packet::tcp4(&payload(3000));
    let (right, flags) = context(&packet, 1000);
    let bytes = as_drivers_do(&packet);
    let wrong = [
        Context { hdrlen: 0, mss: 0, ..right },
        Context { mss: 0, ..right },
        Context { hdrlen: 0, ..right },
        // UDP of one byte each: more segments than there may be.
        Context { mss: 1, tucso: 40, ..right },
    ];
    for (count, context) in (1u64..).zip(wrong) {
        let mut all = vec![TransmitDescriptor::context(&context, flags)];
        all.extend(descriptors(&machine, &bytes, right.hdrlen.into(), options(&packet)));
        machine.transmit(&all);
        assert_eq!(machine.sent(), [], "{context:?}");
        assert_eq!(machine.statistics().send_invalid, count);
    }
    // A header longer than the packet.
    machine.fill(TX_DATA, &bytes);
    machine.transmit(&[
        TransmitDescriptor::context(&Context { hdrlen: 255, ..right }, flags),
        TransmitDescriptor::data(TX_DATA, 255, ALONE | transmit::TSE, options(&packet)),
    ]);
    assert_eq!(machine.sent(), []);
    assert_eq!(machine.read(statistics::TSCTFC), 5);
    assert_eq!(machine.read(TDH), machine.read(TDT));
    send(&mut machine, &packet, 1000);
    assert_eq!(machine.sent().len(), 1);
}

// QEMU 3de46e6fc4: a legacy descriptor in the middle of a packet to be segmented.
#[test]
fn a_legacy_descriptor_in_the_middle_is_one_of_the_packets() {
    let mut machine = machine();
    let packet = Packet::tcp4(&payload(3000));
    let (context, flags) = context(&packet, 1000);
    let bytes = as_drivers_do(&packet);
    machine.fill(TX_DATA, &bytes);
    let len = bytes.len() as u32;
    machine.transmit(&[
        TransmitDescriptor::context(&context, flags),
        TransmitDescriptor::data(TX_DATA, 1000, transmit::TSE, options(&packet)),
        TransmitDescriptor::legacy(TX_DATA + 1000, 1000, 0),
        TransmitDescriptor::data(TX_DATA + 2000, len - 2000, ALONE, 0),
    ]);
    let sent = machine.sent();
    let got = (&sent[0].bytes, sent[0].offload);
    assert_eq!(got, (&packet.unfinished(), packet.cut_offload(1000)));
}

#[test]
fn packets_longer_than_ip_can_tell_are_refused_or_cut_here() {
    let mut machine = machine();
    let packet = Packet::tcp4(&payload(65_481));
    send(&mut machine, &packet, 1448);
    assert_eq!(machine.sent()[0].offload, packet.cut_offload(1448));
    // One byte more than fits an IP packet: the context is done by its letter.
    let packet = Packet::tcp4(&payload(65_496));
    send(&mut machine, &packet, 1448);
    assert_eq!(machine.sent().len(), 46);
    let packet = Packet::tcp4(&payload(66_000));
    send(&mut machine, &packet, 1448);
    assert_eq!((machine.sent().len(), machine.statistics().send_invalid), (0, 1));
}
