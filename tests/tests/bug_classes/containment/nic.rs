//! Frames, contexts and commands that make no sense: each costs itself, or the device, and nothing
//! beside.

use paraslot_backends::net::{Offload, PartialChecksum};
use paraslot_spec::e1000::{Context, Ctrl, MEMORY_BAR, TransmitDescriptor, registers, transmit};
use paraslot_spec::virtio_net::{
    Coalesce, CoalesceQueue, HashConfig, Header, RssConfig, ack, class, feature, gso,
    guest_offloads, hash_type, header_flag, mq, notf_coal, vlan,
};
use paraslot_tests::frames::Shape;
use paraslot_tests::port::{Carried, Port};
use paraslot_virtio::testing::Buffer;
use zerocopy::IntoBytes;

use crate::e1000::{BUFFERS, Ether, SEND};
use crate::net::{self, Net, RECEIVE, Setting, TRANSMIT, frame};
use crate::nic::Adapter;

// QEMU d4f471eb7e and Cloud Hypervisor 559faa272 (shorter than the header), QEMU dd32b5ea7e (a
// checksum past the end), and whatever else a header can say. The frame is given back and counted.
#[test]
fn a_frame_that_makes_no_sense_costs_virtio_net_itself() {
    let shape = Shape { tcp: true, payload: 300, ..Shape::default() };
    let bytes = shape.frame(true);
    let sum = Header {
        flags: header_flag::NEEDS_CSUM,
        csum_start: 34.into(),
        csum_offset: 16.into(),
        ..Header::default()
    };
    let cut = |gso_type: u8, size: u16| Header { gso_type, gso_size: size.into(), ..sum };
    let len = u16::try_from(bytes.len()).expect("small");
    let headers = [
        Header { csum_start: (len - 17).into(), ..sum },
        Header { csum_start: len.into(), ..sum },
        Header { csum_start: 0xffff.into(), csum_offset: 0xffff.into(), ..sum },
        Header { csum_offset: 0xffff.into(), ..sum },
        Header { csum_offset: (len - 35).into(), ..sum },
        // Segmentation into nothing, without a checksum, of no kind that there is.
        cut(gso::TCPV4, 0),
        Header { flags: 0, ..cut(gso::TCPV4, 100) },
        cut(2, 100),
        cut(0x7f, 100),
        cut(gso::TCPV4 | gso::UDP_TUNNEL_IPV4, 100),
        cut(gso::UDP_L4 | gso::ECN, 100),
        Header { flags: sum.flags | header_flag::UDP_TUNNEL_CSUM, ..sum },
    ];
    for header in headers {
        let mut guest = Net::new(Setting::default());
        let head = guest.send_on(TRANSMIT, header, &bytes);
        guest.notify(TRANSMIT);
        guest.run();
        assert_eq!(guest.ring_of(TRANSMIT).used(), Some((head, 0)), "{header:?}");
        assert_eq!(guest.control.statistics().send_invalid, 1, "{header:?}");
        assert!(guest.port.take_sent().is_empty(), "{header:?}");
        guest.works();
    }
    // Offloads that were not agreed on.
    let without = feature::HOST_TSO4 | feature::HOST_USO | feature::HOST_ECN | feature::HOST_UFO;
    for header in
        [cut(gso::TCPV4, 100), cut(gso::UDP_L4, 100), cut(gso::UDP, 100), cut(gso::TCPV6 | 0x80, 9)]
    {
        let mut guest = Net::new(Setting { without, ..Setting::default() });
        guest.send_on(TRANSMIT, header, &bytes);
        guest.run();
        assert_eq!(guest.control.statistics().send_invalid, 1, "{header:?}");
        guest.works();
    }
    // Shorter than its header, or than Ethernet's.
    for short in 1..34 {
        let mut guest = Net::new(Setting::default());
        let place = guest.place();
        let head = guest.ring_of(TRANSMIT).add(&[Buffer::readable(place, short)]);
        guest.notify(TRANSMIT);
        guest.run();
        assert_eq!(guest.ring_of(TRANSMIT).used(), Some((head, 0)));
        assert_eq!(guest.control.statistics().send_invalid, 1, "{short}");
        guest.works();
    }
    // Longer than any.
    let mut guest = Net::new(Setting::default());
    for len in [65_557 + 21, 0x8_0000] {
        guest.ring_of(TRANSMIT).add(&[Buffer::readable(net::BUFFERS, len)]);
        guest.notify(TRANSMIT);
        guest.run();
    }
    assert_eq!(guest.control.statistics().send_invalid, 2);
    guest.works();
}

// A buffer too small for a header (QEMU 2220e8189f, CVE-2023-6693: the header with a hash is longer),
// and one for the wrong direction: nothing can be told of a frame, so it costs a reset.
#[test]
fn a_buffer_without_room_for_a_header_costs_virtio_net_a_reset() {
    for without in [0, feature::HASH_REPORT] {
        let mut guest = Net::new(Setting { without, ..Setting::default() });
        let len = guest.header_len();
        // Just enough for a header, and frames go into the next.
        guest.supply(RECEIVE, 1, len);
        guest.supply(RECEIVE, 1, 1600);
        guest.port.deliver(&frame(100));
        guest.run();
        let arrived = guest.arrived().expect("there is room");
        assert!(arrived.bytes == frame(100) && arrived.chains.len() == 2);
        for bad in [Buffer::writable(net::BUFFERS, len - 1), Buffer::readable(net::BUFFERS, 1600)] {
            guest.supply_chain(RECEIVE, &[bad]);
            guest.notify(RECEIVE);
            guest.port.deliver(&frame(100));
            guest.run();
            assert_eq!(guest.status().bits(), 0x4f, "{bad:?}");
            // Sending goes on until then.
            let head = guest.send(&frame(90));
            guest.run();
            assert_eq!(guest.ring_of(TRANSMIT).used(), Some((head, 0)));
            guest.reset();
            guest.port.drain();
            guest.start();
        }
        guest.works();
    }
}

/// An RSS configuration with these entries.
fn scaling(mask: u16, entries: &[u16], unclassified: u16, transmit: u16, key: u8) -> Vec<u8> {
    let config = RssConfig {
        hash_types: hash_type::ALL.into(),
        indirection_table_mask: mask.into(),
        unclassified_queue: unclassified.into(),
    };
    let mut bytes = config.as_bytes().to_vec();
    entries.iter().for_each(|entry| bytes.extend_from_slice(&entry.to_le_bytes()));
    bytes.extend_from_slice(&transmit.to_le_bytes());
    bytes.push(key);
    bytes.resize(bytes.len() + usize::from(key), 0x6d);
    bytes
}

// CVE-2024-6505 (a table that names a queue that is not there), QEMU cd76e8fcbe (a mask of all ones),
// QEMU f47af0af0d (the control queue as a data queue): refused, and nothing has changed.
#[test]
fn a_command_that_makes_no_sense_changes_nothing_of_virtio_net() {
    let right = scaling(3, &[0, 1, 0, 1], 1, 2, 40);
    let coal = Coalesce { max_packets: 4.into(), max_usecs: 50.into() };
    let of_queue = |queue| CoalesceQueue::new(queue, coal).as_bytes().to_vec();
    let hashing = |types, key: u8, len| {
        let mut bytes = HashConfig::new(types, key).as_bytes().to_vec();
        bytes.resize(bytes.len() + len, 0x6d);
        bytes
    };
    let bad: Vec<(u8, u8, Vec<u8>)> = vec![
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 2, 1], 1, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 0xffff, 0, 1], 1, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 0, 1], 2, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 0, 1], 0x8000, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(2, &[0, 1, 0], 1, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(0xffff, &[0; 256], 1, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(0xff, &[0; 256], 1, 2, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 0, 1], 1, 3, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 0, 1], 1, 0, 40)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 0, 1], 1, 2, 41)),
        (class::MQ, mq::RSS_CONFIG, scaling(3, &[0, 1, 0, 1], 1, 2, 255)),
        (class::MQ, mq::RSS_CONFIG, right[..right.len() - 1].to_vec()),
        (class::MQ, mq::RSS_CONFIG, right[..10].to_vec()),
        (class::MQ, mq::RSS_CONFIG, Vec::new()),
        (class::MQ, mq::VQ_PAIRS_SET, vec![0, 0]),
        (class::MQ, mq::VQ_PAIRS_SET, vec![3, 0]),
        (class::MQ, mq::VQ_PAIRS_SET, vec![0xff, 0xff]),
        (class::MQ, mq::VQ_PAIRS_SET, vec![1]),
        (class::MQ, mq::HASH_CONFIG, hashing(1 << 9, 40, 40)),
        (class::MQ, mq::HASH_CONFIG, hashing(u32::MAX, 40, 40)),
        (class::MQ, mq::HASH_CONFIG, hashing(1, 41, 41)),
        (class::MQ, mq::HASH_CONFIG, hashing(1, 40, 39)),
        (class::GUEST_OFFLOADS, guest_offloads::SET, u64::MAX.to_le_bytes().to_vec()),
        (class::GUEST_OFFLOADS, guest_offloads::SET, vec![2, 0, 0]),
        (class::NOTF_COAL, notf_coal::VQ_SET, of_queue(4)),
        (class::NOTF_COAL, notf_coal::VQ_SET, of_queue(0xffff)),
        (class::NOTF_COAL, notf_coal::VQ_SET, of_queue(1)[..11].to_vec()),
        (class::NOTF_COAL, notf_coal::RX_SET, vec![1]),
        (class::VLAN, vlan::ADD, vec![0, 0x10]),
        (class::VLAN, vlan::DEL, vec![0xff, 0xff]),
        (class::VLAN, 2, vec![1, 0]),
        (9, 0, Vec::new()),
        (0xff, 0xff, vec![0; 100]),
    ];
    let mut guest = Net::new(Setting { pairs: 2, ..Setting::default() });
    let before = (guest.config(), guest.port.accepted(), guest.port.pairs());
    for (class, command, data) in &bad {
        let answer = guest.command(*class, *command, data);
        assert_eq!(answer, ack::ERR, "{class}.{command} {data:x?}");
        let now = (guest.config(), guest.port.accepted(), guest.port.pairs());
        assert_eq!(now, before, "{class}.{command} {data:x?}");
    }
    guest.works();
    assert_eq!(guest.command(class::MQ, mq::RSS_CONFIG, &right), ack::OK);
    // In force, and after that the same are refused.
    for (class, command, data) in &bad {
        assert_eq!(guest.command(*class, *command, data), ack::ERR, "{class}.{command}");
    }
    guest.supply(RECEIVE, 8, 1600);
    guest.supply(2, 8, 1600);
    for port in 0..20u8 {
        let shape = Shape { tcp: true, payload: 30, ..Shape::default() };
        let mut bytes = shape.frame(false);
        bytes[..6].fill(0xff);
        bytes[35] = port;
        guest.port.deliver(&bytes);
    }
    guest.run();
    let first = std::iter::from_fn(|| guest.arrived_on(RECEIVE)).count();
    let second = std::iter::from_fn(|| guest.arrived_on(2)).count();
    assert!(first > 2 && second > 2, "{first} and {second}");
}

// A queue that is reset is out of the table until it is back; what is for it is lost, and no more.
#[test]
fn a_queue_that_is_reset_costs_virtio_net_its_frames() {
    let mut guest = Net::new(Setting { pairs: 2, ..Setting::default() });
    let all = scaling(0, &[1], 1, 2, 40);
    assert_eq!(guest.command(class::MQ, mq::RSS_CONFIG, &all), ack::OK);
    guest.virtio.reset_queue(2);
    guest.run();
    assert!(guest.queue_is_reset());
    guest.supply(RECEIVE, 8, 1600);
    for _ in 0..5 {
        guest.port.deliver(&frame(100));
    }
    guest.run();
    assert!(guest.arrived().is_none());
    // A table that names it is refused while it is gone (5.1.9.5.7.3).
    assert_eq!(guest.command(class::MQ, mq::RSS_CONFIG, &all), ack::ERR);
    guest.start_anew(2);
    guest.supply(2, 8, 1600);
    guest.notify(2);
    guest.run();
    guest.port.deliver(&frame(101));
    guest.run();
    assert!(guest.arrived_on(2).expect("it is back").bytes == frame(101));
    assert!(guest.arrived_on(2).is_none());
}

// Cloud Hypervisor 563303b50: an index that runs away is a broken queue, not a busy one. The other
// queues go on.
#[test]
fn a_broken_queue_leaves_the_others_of_virtio_net_alone() {
    for broken in [RECEIVE, TRANSMIT, 2] {
        let mut guest = Net::new(Setting::default());
        guest.supply(RECEIVE, 8, 1600);
        guest.ring_of(broken).set_avail_idx(0x4000);
        guest.notify(broken);
        guest.run();
        assert_eq!(guest.status().bits(), 0x4f, "queue {broken}");
        if broken != TRANSMIT {
            let head = guest.send(&frame(100));
            guest.notify(TRANSMIT);
            guest.run();
            assert_eq!(guest.ring_of(TRANSMIT).used(), Some((head, 0)));
        }
        if broken != RECEIVE {
            guest.port.deliver(&frame(100));
            guest.run();
            assert!(guest.arrived().expect("it comes").bytes == frame(100));
        }
        guest.reset();
        guest.start();
        guest.works();
    }
}

// As for virtio-blk: CVE-2017-17381.
#[test]
fn rings_that_are_not_aligned_cost_virtio_net_a_reset() {
    for queue in [RECEIVE, TRANSMIT, 2] {
        for (field, off) in [(0, 8), (1, 1), (2, 2)] {
            let mut guest = Net::new(Setting::default());
            guest.reset();
            guest.agree();
            let ring = guest.ring_of(queue);
            let mut places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
            places[field] += off;
            guest.virtio.enable_queue(queue, 64, places);
            guest.set_status(0xf);
            guest.run();
            assert_eq!(guest.status().bits(), 0x4f, "queue {queue}, ring {field}");
        }
    }
}

/// One packet with a context, and whether it was lost.
fn e1000_sends(context: &Context, how: u32, popts: u8, bytes: &[u8]) -> (Vec<Carried>, bool) {
    let mut guest = Ether::new();
    guest.put(TransmitDescriptor::context(context, how));
    guest.bench.poke(BUFFERS, bytes);
    let len = u32::try_from(bytes.len()).expect("a packet");
    let segment = how & transmit::TSE;
    let index = guest.put(TransmitDescriptor::data(BUFFERS, len, SEND | segment, popts));
    guest.kick();
    guest.run();
    assert_eq!(guest.status(index), transmit::DD, "{context:?}");
    let sent = guest.port.take_sent();
    let lost = guest.control.statistics().send_invalid != 0;
    guest.works();
    (sent, lost)
}

// CVE-2022-23087 (a checksum past the header's buffer), CVE-2024-3567 and QEMU dd32b5ea7e (past the
// packet), VirtualBox 2018 (a header longer than the packet): what lies outside is neither summed nor
// written, the packet is as long as it was, and the next one is well.
#[test]
fn a_context_that_makes_no_sense_costs_e1000_at_most_its_packet() {
    let shape = Shape { tcp: true, payload: 300, ..Shape::default() };
    let right = Ether::context(&shape, 100);
    let all = Context {
        ipcss: 0xff,
        ipcso: 0xff,
        ipcse: 0xffff,
        tucss: 0xff,
        tucso: 0xff,
        tucse: 0xffff,
        paylen: 0xf_ffff,
        hdrlen: 0xff,
        mss: 0xffff,
    };
    let mut contexts = vec![right, all, Context::default()];
    for value in [0u8, 1, 13, 53, 54, 0x7f, 0xfe, 0xff] {
        contexts.extend([
            Context { ipcss: value, ..right },
            Context { ipcso: value, ..right },
            Context { ipcse: value.into(), ..right },
            Context { tucss: value, ..right },
            Context { tucso: value, ..right },
            Context { tucse: u16::from(value) << 8, ..right },
            Context { hdrlen: value, ..right },
            Context { tucss: value, tucso: value.wrapping_sub(1), ipcse: 1, ..right },
        ]);
    }
    let (mut segmented, mut lost_in_all) = (0, 0);
    for len in [shape.frame(true).len(), 60, 54, 40, 14] {
        let mut bytes = shape.frame(true);
        bytes.truncate(len);
        for context in &contexts {
            for flags in [0, transmit::TCP, transmit::IP, transmit::TCP | transmit::IP] {
                // Without segmentation nothing is lost, whatever is asked for.
                let (sent, lost) = e1000_sends(context, flags, 3, &bytes);
                assert!(!lost && sent.len() == 1 && sent[0].bytes.len() == len.max(60));
                assert!(sent[0].offload.check(len.max(60)).is_ok());
                let (sent, lost) = e1000_sends(context, flags | transmit::TSE, 3, &bytes);
                assert_eq!(lost, sent.is_empty(), "{context:?}");
                for piece in &sent {
                    assert!((60..=len).contains(&piece.bytes.len()) || piece.bytes.len() == 60);
                    assert!(piece.offload.check(piece.bytes.len()).is_ok());
                }
                segmented += u32::from(!lost);
                lost_in_all += u32::from(lost);
            }
        }
    }
    assert!(segmented > 100 && lost_in_all > 100, "{segmented} cut, {lost_in_all} lost");
}

// A legacy descriptor's checksum, anywhere.
#[test]
fn a_legacy_checksum_anywhere_costs_e1000_nothing() {
    for len in [14usize, 60, 300] {
        for css in [0u8, 13, 59, 100, 0xff] {
            for cso in [0u8, 12, 58, 59, 60, 0xff] {
                let mut guest = Ether::new();
                let packet = frame(len);
                guest.bench.poke(BUFFERS, &packet);
                let flags = SEND | transmit::IC | u32::from(cso) << transmit::CSO_SHIFT;
                let small = u16::try_from(len).expect("small");
                let mut descriptor = TransmitDescriptor::legacy(BUFFERS, small, flags);
                descriptor.status = (u32::from(css) << 8).into();
                guest.put(descriptor);
                guest.kick();
                guest.run();
                let sent = guest.port.take_sent();
                assert_eq!((sent.len(), sent[0].bytes.len()), (1, len.max(60)));
                let changed = (0..len).filter(|at| sent[0].bytes[*at] != packet[*at]);
                let place = usize::from(cso)..usize::from(cso) + 2;
                assert!(changed.into_iter().all(|at| place.contains(&at)), "{css}, {cso}");
                guest.works();
            }
        }
    }
}

// Accesses of any width, anywhere in both BARs, while packets go: QEMU fda43b1204 (a register's value
// ended the VMM).
#[test]
fn any_access_to_e1000s_registers_is_answered() {
    let mut guest = Ether::new();
    for offset in (0..0x2_0000u64).step_by(4) {
        // All but what ends what the test does, which comes last.
        for value in [0u32, u32::MAX] {
            guest.bench.device.bar_write(MEMORY_BAR, offset, &value.to_le_bytes());
        }
        let mut data = [0; 8];
        for len in [1, 2, 3, 4, 8] {
            guest.bench.device.bar_read(MEMORY_BAR, offset + 4 - len as u64 % 4, &mut data[..len]);
        }
        if offset % 0x1000 == 0 {
            guest.run();
        }
    }
    guest.run();
    guest.port.take_sent();
    guest.start();
    guest.works();
    assert_ne!(guest.get(registers::CTRL) & Ctrl::SLU.bits(), 0);
}

// One guest's mistakes are its own: a second adapter goes on.
#[test]
fn a_device_that_needs_a_reset_leaves_the_other_alone() {
    let (mut first, mut second) = (Net::new(Setting::default()), Ether::make(Port::new(1)));
    first.ring_of(RECEIVE).set_avail_idx(0x4000);
    first.notify(RECEIVE);
    first.run();
    assert_eq!(first.status().bits(), 0x4f);
    second.works();
}

// A port that delivers what nobody can want: what is left to be done to the frame fits nothing.
#[test]
fn offloads_that_fit_nothing_cost_a_frame() {
    fn each<A: Adapter>() {
        let mut nic = A::make(Port::new(1));
        nic.works();
        let before = nic.statistics().received_frames;
        for (start, offset) in [(0xffff, 0xffff), (99, 0), (100, 0), (0, 99), (0x8000, 0x8000)] {
            let checksum = Some(PartialChecksum { start, offset });
            let offload = Offload { checksum, ..Offload::default() };
            nic.port().deliver_to(0, Carried { bytes: frame(100), offload });
        }
        nic.port().deliver(&frame(101));
        nic.run();
        assert_eq!(nic.take(), Some(frame(101)), "{}", A::NAME);
        assert_eq!(nic.statistics().received_frames - before, 1, "{}", A::NAME);
        assert_eq!(nic.statistics().receive_errors, 5, "{}", A::NAME);
        nic.works();
    }
    each::<Net>();
    each::<Ether>();
}
