//! Networks: descriptors, contexts, headers and commands that change once they were read.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use paraslot_backends::net::{Offload, Offloads};
use paraslot_spec::e1000::{Context, TransmitDescriptor, receive, registers, transmit};
use paraslot_spec::virtio_net::{
    Coalesce, CoalesceQueue, HashConfig, Header, RssConfig, ack, class, feature, guest_offloads,
    hash_type, mac, mq, notf_coal, vlan,
};
use paraslot_tests::frames::Shape;
use paraslot_tests::port::Carried;
use paraslot_tests::scripts::header_of;
use paraslot_virtio::testing::Buffer;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::{SPOILS, Spoil, Twice, spoil_what_is_read};
use crate::e1000::{BUFFERS, DESCRIPTORS, Ether, RECEIVE_RING, RING_LEN, SEND, SEND_RING};
use crate::net::{self, Net, RECEIVE, Setting, TRANSMIT, frame};

fn assert_once(twice: &Twice, what: &str) {
    let twice = twice.lock().expect("no panic");
    assert!(twice.is_empty(), "{what}: read again: {twice:x?}");
}

/// The rings of a queue that the device reads, but for flags and indices.
fn rings(guest: &mut Net, queue: u16) -> Vec<Range<u64>> {
    let ring = guest.ring_of(queue);
    let avail = ring.avail_ring() + 4;
    vec![ring.descriptor_table()..ring.avail_ring(), avail..avail + 2 * u64::from(ring.size())]
}

/// Offloads of every kind, with frames that they fit.
fn tasks() -> Vec<(Shape, Offload)> {
    let mut tasks = Vec::new();
    for bits in 0..4 {
        let shape =
            Shape { v6: bits & 1 != 0, tcp: bits & 2 != 0, payload: 900, ..Shape::default() };
        let checksum = Some(shape.partial());
        tasks.push((shape, Offload::default()));
        tasks.push((shape, Offload { checksum, ..Offload::default() }));
        for size in [100, 101] {
            let segmentation = Some(shape.segmentation(size));
            tasks.push((shape, Offload { checksum, segmentation, checksum_valid: false }));
        }
    }
    tasks
}

// Cloud Hypervisor 929df76e1 and FreeBSD-SA-24:17 in a network: the header decides, and so does the
// frame's start; each is read once, wherever its pieces lie.
#[test]
fn virtio_net_reads_every_field_of_a_frame_to_be_sent_once() {
    for (shape, offload) in tasks() {
        for spoil in SPOILS {
            for cuts in [&[][..], &[12], &[3, 10, 12], &[20, 60], &[1, 2, 30, 500]] {
                for indirect in [false, true] {
                    let mut guest = Net::new(Setting::default());
                    let partial = offload.checksum.is_some();
                    let bytes = shape.frame(partial);
                    let mut data = header_of(&offload).as_bytes().to_vec();
                    data.resize(usize::try_from(guest.header_len()).expect("small"), 0);
                    data.extend_from_slice(&bytes);
                    guest.bench.poke(net::BUFFERS, &data);
                    let mut chain = Vec::new();
                    let mut from = 0;
                    for to in cuts.iter().copied().chain([data.len()]) {
                        let len = u32::try_from(to - from).expect("small");
                        chain.push(Buffer::readable(net::BUFFERS + from as u64, len));
                        from = to;
                    }
                    let table = net::BUFFERS - 0x1000;
                    let ring = guest.ring_of(TRANSMIT);
                    let head = match indirect {
                        true => ring.add_indirect(table, &chain),
                        false => ring.add(&chain),
                    };
                    let mut fields = rings(&mut guest, TRANSMIT);
                    fields.push(table..table + 16 * chain.len() as u64);
                    let twice = spoil_what_is_read(&guest.bench, fields, spoil);
                    guest.notify(TRANSMIT);
                    guest.run();
                    guest.bench.memory.set_hook(None);
                    assert_once(&twice, "a frame to be sent");
                    assert_eq!(guest.ring_of(TRANSMIT).used(), Some((head, 0)));
                    let sent = guest.port.take_sent();
                    assert!(sent == [Carried { bytes, offload }], "{shape:?}, {cuts:?}");
                }
            }
        }
    }
}

/// Ends a thread.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// A header that another processor of the guest writes all the while: what was checked is what is
// sent. A frame whose checksum lies outside of it is never seen.
#[test]
fn virtio_net_checks_the_header_that_it_uses() {
    let mut guest = Net::new(Setting::default());
    let shape = Shape { tcp: true, payload: 300, ..Shape::default() };
    let bytes = shape.frame(true);
    let offload = Offload { checksum: Some(shape.partial()), ..Offload::default() };
    let right = header_of(&offload);
    let wrong = Header { csum_start: 0xfff0.into(), csum_offset: 0xfff0.into(), ..right };
    let memory = guest.bench.memory.clone();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for header in [wrong, right] {
                    for place in 0..64 {
                        let place = GuestAddress(net::PLACES + place * net::PLACE_LEN);
                        memory.inner().write_slice(header.as_bytes(), place).expect("in memory");
                    }
                }
            }
        });
        // Also if what follows fails.
        let _end = End(&done);
        for _ in 0..200 {
            for _ in 0..32 {
                guest.send_on(TRANSMIT, right, &bytes);
            }
            guest.notify(TRANSMIT);
            guest.run();
            for sent in guest.port.take_sent() {
                let fits = sent.offload.check(sent.bytes.len()).is_ok();
                assert!(fits && sent.bytes == bytes, "{:?}", sent.offload);
            }
            while guest.ring_of(TRANSMIT).used().is_some() {}
        }
    });
    let counts = guest.control.statistics();
    assert_eq!(counts.sent_frames + counts.send_invalid, 200 * 32);
    guest.works();
}

#[test]
fn virtio_net_reads_every_field_of_a_receive_buffer_once() {
    for without in [0, feature::MRG_RXBUF, feature::HASH_REPORT] {
        for spoil in SPOILS {
            for (size, len) in [(100, 400), (300, 400), (1000, 3000)] {
                let mut guest = Net::new(Setting { without, ..Setting::default() });
                // One chain: each look at a table is a look at all of it.
                guest.supply(RECEIVE, 1, len);
                let mut fields = rings(&mut guest, RECEIVE);
                // What it has written there it may read, once: a driver that changes it misleads
                // nobody but itself.
                fields.push(net::BUFFERS..net::BUFFERS + net::BUFFER_LEN * net::MOST_BUFFERS);
                let twice = spoil_what_is_read(&guest.bench, fields, spoil);
                guest.port.deliver(&frame(size));
                guest.notify(RECEIVE);
                guest.run();
                guest.bench.memory.set_hook(None);
                assert_once(&twice, "a receive buffer");
                let arrived = guest.arrived().expect("it is delivered");
                assert!(arrived.bytes == frame(size), "{size}");
            }
        }
    }
}

/// Commands that succeed, with two pairs of queues.
fn commands() -> Vec<(u8, u8, Vec<u8>)> {
    let coal = Coalesce { max_packets: 4.into(), max_usecs: 50.into() };
    let rss = RssConfig {
        hash_types: hash_type::ALL.into(),
        indirection_table_mask: 3.into(),
        unclassified_queue: 1.into(),
    };
    let mut scaling = rss.as_bytes().to_vec();
    scaling.extend_from_slice(&[0, 0, 1, 0, 1, 0, 0, 0]);
    scaling.extend_from_slice(&[2, 0, 40]);
    scaling.extend_from_slice(&[0x6d; 40]);
    let mut hashing = HashConfig::new(hash_type::ALL, 40).as_bytes().to_vec();
    hashing.extend_from_slice(&[0x6d; 40]);
    let mut table = vec![2, 0, 0, 0];
    table.extend_from_slice(&[2; 12]);
    table.extend_from_slice(&[1, 0, 0, 0, 3, 3, 3, 3, 3, 3]);
    vec![
        (class::RX, 0, vec![1]),
        (class::MAC, mac::TABLE_SET, table),
        (class::MAC, mac::ADDR_SET, vec![2, 0, 0, 0, 0, 9]),
        (class::VLAN, vlan::ADD, vec![5, 0]),
        (class::MQ, mq::VQ_PAIRS_SET, vec![2, 0]),
        (class::MQ, mq::RSS_CONFIG, scaling),
        (class::MQ, mq::HASH_CONFIG, hashing),
        (class::GUEST_OFFLOADS, guest_offloads::SET, feature::GUEST_CSUM.to_le_bytes().to_vec()),
        (class::NOTF_COAL, notf_coal::RX_SET, coal.as_bytes().to_vec()),
        (class::NOTF_COAL, notf_coal::VQ_SET, CoalesceQueue::new(2, coal).as_bytes().to_vec()),
    ]
}

#[test]
fn virtio_net_reads_every_field_of_a_command_once() {
    for (class, command, data) in commands() {
        for spoil in SPOILS {
            // Whole, by its parts, and byte by byte.
            for piece in [usize::MAX, 2, 1] {
                let mut guest = Net::new(Setting { pairs: 2, ..Setting::default() });
                let control = guest.control_queue();
                let mut bytes = vec![class, command];
                bytes.extend_from_slice(&data);
                guest.bench.poke(net::BUFFERS, &bytes);
                let mut chain = Vec::new();
                let mut at = net::BUFFERS;
                for part in bytes.chunks(piece.min(bytes.len())) {
                    chain.push(Buffer::readable(at, u32::try_from(part.len()).expect("small")));
                    at += part.len() as u64;
                }
                let (answer, table) = (net::BUFFERS + 0x1000, net::BUFFERS + 0x2000);
                chain.push(Buffer::writable(answer, 1));
                guest.ring_of(control).add_indirect(table, &chain);
                let mut fields = rings(&mut guest, control);
                fields.push(table..table + 16 * chain.len() as u64);
                fields.push(net::BUFFERS..at);
                let twice = spoil_what_is_read(&guest.bench, fields, spoil);
                guest.notify(control);
                guest.run();
                guest.bench.memory.set_hook(None);
                let what = format!("command {class}.{command} in pieces of {piece}");
                assert_once(&twice, &what);
                let mut told = [0xee];
                guest.bench.peek(answer, &mut told);
                assert_eq!(told, [ack::OK], "{what}");
                match (class, command) {
                    (class::MAC, mac::ADDR_SET) => assert_eq!(guest.config()[..6], data),
                    (class::GUEST_OFFLOADS, _) => {
                        assert_eq!(guest.port.accepted(), Offloads::CHECKSUM);
                    }
                    (class::MQ, mq::VQ_PAIRS_SET | mq::RSS_CONFIG) => {
                        assert_eq!(guest.port.pairs(), 2);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// A packet with its context on memory that is spoiled, in pieces.
fn e1000_sends(
    shape: &Shape,
    context: Option<(Context, u32, u8)>,
    bytes: &[u8],
    spoil: Spoil,
) -> Vec<Carried> {
    let mut guest = Ether::new();
    guest.bench.poke(BUFFERS, bytes);
    let first = guest.tail;
    let cuts = [shape.headers(), shape.headers() + 100, bytes.len()];
    let segment = context.map_or(0, |(_, flags, _)| flags & transmit::TSE);
    if let Some((context, flags, _)) = &context {
        guest.put(TransmitDescriptor::context(context, *flags));
    }
    let mut at = 0;
    for end in cuts {
        let last = if end == bytes.len() { SEND } else { 0 };
        let (address, len) = (BUFFERS + at as u64, end - at);
        guest.put(match &context {
            Some((_, _, popts)) => {
                let len = u32::try_from(len).expect("small");
                TransmitDescriptor::data(address, len, last | segment, *popts)
            }
            None => TransmitDescriptor::legacy(address, u16::try_from(len).expect("small"), last),
        });
        at = end;
    }
    let ring = SEND_RING + 16 * u64::from(first)..SEND_RING + RING_LEN;
    let twice = spoil_what_is_read(&guest.bench, vec![ring], spoil);
    guest.kick();
    guest.run();
    guest.bench.memory.set_hook(None);
    assert_once(&twice, "a packet");
    assert_eq!(guest.control.statistics().send_invalid, 0);
    guest.port.take_sent()
}

// Descriptors and contexts decide; they are read once, and what is written to them afterwards decides
// nothing, whatever the packet is.
#[test]
fn e1000_reads_every_descriptor_once() {
    for spoil in SPOILS {
        for (v6, tcp) in [(false, true), (false, false), (true, true)] {
            let shape = Shape { v6, tcp, payload: 900, ..Shape::default() };
            let whole = shape.frame(false);
            let sent = e1000_sends(&shape, None, &whole, spoil);
            assert!(sent == [Carried { bytes: whole, offload: Offload::default() }], "{shape:?}");
            let flags = if tcp { transmit::TCP } else { 0 } | if v6 { 0 } else { transmit::IP };
            let popts = if v6 { transmit::TXSM } else { transmit::TXSM | transmit::IXSM };
            let context = Ether::context(&shape, 100);
            let partial = shape.frame(true);
            // IXSM sums the header as it is, and so a driver leaves its checksum out.
            let mut unsummed = partial.clone();
            if !v6 {
                unsummed[24..26].fill(0);
            }
            let sent = e1000_sends(&shape, Some((context, flags, popts)), &unsummed, spoil);
            let offload = Offload { checksum: Some(shape.partial()), ..Offload::default() };
            assert!(sent == [Carried { bytes: partial.clone(), offload }], "{shape:?}");
            if tcp {
                let flags = flags | transmit::TSE;
                let sent = e1000_sends(&shape, Some((context, flags, popts)), &partial, spoil);
                let how = sent[0].offload.segmentation.expect("it is to be cut");
                assert_eq!((sent.len(), how.size), (1, 100));
                assert!(sent[0].bytes == partial, "{shape:?}");
                // A context that the adapter must cut by itself.
                let odd = Context { ipcss: 13, ..context };
                let sent = e1000_sends(&shape, Some((odd, flags, popts)), &partial, spoil);
                assert_eq!(sent.len(), 9);
            }
        }
    }
}

#[test]
fn e1000_reads_every_receive_descriptor_once() {
    for spoil in SPOILS {
        let mut guest = Ether::new();
        // No more than are used: what is left over when a round ends is read again for the next.
        guest.set(registers::RDT, 3);
        let ring = RECEIVE_RING..RECEIVE_RING + RING_LEN;
        let twice = spoil_what_is_read(&guest.bench, vec![ring], spoil);
        for size in [100, 1500, 60] {
            guest.port.deliver(&frame(size));
        }
        guest.run();
        guest.bench.memory.set_hook(None);
        assert_once(&twice, "receive descriptors");
        for (index, size) in [100, 1500, 60].into_iter().enumerate() {
            let index = u32::try_from(index).expect("small");
            let mut bytes = vec![0; size];
            guest.bench.peek(Ether::buffer(index), &mut bytes);
            assert!(bytes == frame(size), "{size}");
            let mut half = [0; 8];
            guest.bench.peek(RECEIVE_RING + 16 * u64::from(index) + 8, &mut half);
            assert_eq!(half[4] & (receive::DD | receive::EOP), receive::DD | receive::EOP);
            let length = u16::from_le_bytes([half[0], half[1]]);
            assert_eq!(usize::from(length), size);
        }
        assert!(guest.next < DESCRIPTORS);
    }
}
