//! Checksums to be inserted on transmit.

use paraslot_backends::net::testing::plain_sum;

use super::*;

/// The context that describes `packet`.
pub(super) fn context_of(packet: &Packet) -> Context {
    let partial = packet.partial_checksum();
    let [ip, transport] = [packet.network_offset(), packet.transport_offset()];
    Context {
        ipcss: ip as u8,
        ipcso: ip as u8 + 10,
        ipcse: transport as u16 - 1,
        tucss: transport as u8,
        tucso: (partial.start + partial.offset) as u8,
        tucse: 0,
        ..Context::default()
    }
}

fn send(machine: &mut Machine, bytes: &[u8], context: &Context, options: u8) {
    machine.fill(TX_DATA, bytes);
    machine.transmit(&[
        TransmitDescriptor::context(context, transmit::IP | transmit::TCP),
        TransmitDescriptor::data(TX_DATA, bytes.len() as u32, ALONE, options),
    ]);
}

fn packets(len: usize) -> [Packet; 4] {
    let payload: Vec<u8> = (0..len).map(|at| (at * 31) as u8).collect();
    [Packet::tcp4(&payload), Packet::tcp6(&payload), Packet::udp4(&payload), Packet::udp6(&payload)]
}

#[test]
fn a_checksum_that_others_know_is_left_to_them() {
    let mut machine = Machine::new();
    for packet in [packets(10), packets(150), packets(151), packets(1400), packets(8001)].concat() {
        let bytes = packet.unfinished();
        send(&mut machine, &bytes, &context_of(&packet), transmit::TXSM);
        let sent = machine.sent();
        assert_eq!(sent.len(), 1);
        let (start, rest) = sent[0].bytes.split_at(bytes.len());
        assert_eq!((start, rest.iter().max().unwrap_or(&0)), (&bytes[..], &0));
        assert_eq!(sent[0].offload, packet.checksum_offload());
    }
}

#[test]
fn the_ip_checksum_is_inserted() {
    let mut machine = Machine::new();
    for len in [20, 1400] {
        let packet = &packets(len)[0];
        let mut bytes = packet.unfinished();
        let ip = packet.network_offset();
        let right = bytes.clone();
        bytes[ip + 10..ip + 12].fill(0);
        send(&mut machine, &bytes, &context_of(packet), transmit::IXSM | transmit::TXSM);
        let sent = machine.sent();
        assert_eq!(
            (&sent[0].bytes[..right.len()], sent[0].offload),
            (&right[..], packet.checksum_offload())
        );
        send(&mut machine, &bytes, &context_of(packet), transmit::IXSM);
        assert_eq!(machine.one_sent()[..right.len()], right);
    }
}

// Whatever the context says is done by its letter, in a short frame and a long one.
#[test]
fn what_others_do_not_know_is_done_here() {
    let mut machine = Machine::new();
    for len in [100, 2000] {
        let bytes = frame(len);
        let context = Context { tucss: 20, tucso: 30, tucse: 79, ..Context::default() };
        send(&mut machine, &bytes, &context, transmit::TXSM);
        let mut expected = bytes.clone();
        let sum = !plain_sum(&bytes[20..80]);
        expected[30..32].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(machine.one_sent(), expected);
        // To the end.
        let context = Context { tucss: 21, tucso: 14, ..Context::default() };
        send(&mut machine, &bytes, &context, transmit::TXSM);
        let mut expected = bytes.clone();
        expected[14..16].copy_from_slice(&(!plain_sum(&bytes[21..])).to_be_bytes());
        assert_eq!(machine.one_sent(), expected);
    }
    // Of an IP header that is not near the front.
    let bytes = frame(1000);
    let context = Context { ipcss: 14, ipcso: 250, ipcse: 600, ..Context::default() };
    send(&mut machine, &bytes, &context, transmit::IXSM);
    let mut expected = bytes.clone();
    expected[250..252].copy_from_slice(&(!plain_sum(&bytes[14..601])).to_be_bytes());
    assert_eq!(machine.one_sent(), expected);
}

// CVE-2022-23087 (bhyve), QEMU dd32b5ea7e and the VirtualBox bug of 2018: offsets past the end of
// the packet.
#[test]
fn checksums_outside_the_packet_are_not_inserted() {
    let mut machine = Machine::new();
    for len in [14usize, 60, 61, 200, 255, 300] {
        let bytes = frame(len);
        for (start, place, last) in [
            (255, 255, 0),
            (0, 255, 0xffff),
            (len.min(255) as u8, 14, 0),
            (255, 14, 0),
            (30, 14, 20),
        ] {
            let context = Context {
                ipcss: start,
                ipcso: place,
                ipcse: last,
                tucss: start,
                tucso: place,
                tucse: last,
                ..Context::default()
            };
            send(&mut machine, &bytes, &context, transmit::IXSM | transmit::TXSM);
            let sent = machine.one_sent();
            if usize::from(place) + 2 > len || usize::from(start) >= len || last == 20 {
                assert_eq!(sent[..len], bytes, "{len} {start} {place} {last}");
            }
            assert_eq!(sent.len(), len.max(60));
            let command = ALONE | transmit::IC | u32::from(place) << 16;
            let mut legacy = TransmitDescriptor::legacy(TX_DATA, len as u16, command);
            legacy.status = (u32::from(start) << 8).into();
            machine.transmit(&[legacy]);
            assert_eq!(machine.sent().len(), 1);
        }
    }
}

#[test]
fn legacy_descriptors_can_ask_for_one_too() {
    let mut machine = Machine::new();
    let packet = &packets(700)[2];
    let bytes = packet.unfinished();
    machine.fill(TX_DATA, &bytes);
    let partial = packet.partial_checksum();
    let command = ALONE | transmit::IC | u32::from(partial.start + partial.offset) << 16;
    let mut descriptor = TransmitDescriptor::legacy(TX_DATA, bytes.len() as u16, command);
    descriptor.status = (u32::from(partial.start) << 8).into();
    machine.transmit(&[descriptor]);
    let sent = machine.sent();
    assert_eq!((&sent[0].bytes, sent[0].offload), (&bytes, packet.checksum_offload()));
}

#[test]
fn the_contexts_are_two_and_stay() {
    let mut machine = Machine::new();
    let packet = &packets(700)[0];
    let bytes = packet.unfinished();
    machine.fill(TX_DATA, &bytes);
    let data = TransmitDescriptor::data(TX_DATA, bytes.len() as u32, ALONE, transmit::TXSM);
    let other = Context { mss: 1000, hdrlen: 54, ..Context::default() };
    machine.transmit(&[
        TransmitDescriptor::context(&context_of(packet), transmit::IP | transmit::TCP),
        data,
        TransmitDescriptor::context(&other, transmit::TSE),
        data,
    ]);
    let sent = machine.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|sent| sent.offload == packet.checksum_offload()));
}

// What a packet is to be, its first descriptor says; a context in its middle is for the next.
#[test]
fn a_context_in_the_middle_of_a_packet_is_for_the_next() {
    let mut machine = Machine::new();
    let packet = &packets(700)[0];
    let bytes = packet.unfinished();
    machine.fill(TX_DATA, &bytes);
    let context = TransmitDescriptor::context(&context_of(packet), transmit::IP | transmit::TCP);
    let nothing = TransmitDescriptor::context(&Context::default(), 0);
    let len = bytes.len() as u32;
    machine.transmit(&[
        context,
        TransmitDescriptor::data(TX_DATA, 100, 0, transmit::TXSM),
        nothing,
        TransmitDescriptor::data(TX_DATA + 100, len - 100, ALONE, 0),
    ]);
    let sent = machine.sent();
    assert_eq!((&sent[0].bytes, sent[0].offload), (&bytes, packet.checksum_offload()));
}
