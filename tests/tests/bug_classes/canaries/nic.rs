//! Networks: nothing outside of what the guest gave, no more claimed than was written, and in headers,
//! padding and descriptors no byte that was never set.
//!
//! QEMU 17437418c4 (a hash that was never calculated), CVE-2023-6693 (a header longer than was thought
//! of), CVE-2021-3748 (the number of buffers), CVE-2012-6075, vmxnet3's CVE-2016-6836.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_backends::net::{Offload, PartialChecksum};
use paraslot_spec::e1000::{Ctrl, Rctl, ReceiveDescriptor, receive, registers, rxcsum};
use paraslot_spec::virtio_net::{
    HashConfig, ack, class, feature, hash_report, hash_type, header_flag, mq, notf_coal, rx,
};
use paraslot_tests::frames::Shape;
use paraslot_tests::port::Carried;
use paraslot_virtio::testing::Buffer;
use vm_memory::{Bytes, GuestAddress, Permissions};
use zerocopy::{FromBytes, IntoBytes};

use super::{CANARY, Ledger};
use crate::e1000::{DESCRIPTORS, Ether, RECEIVE_RING, SEND_RING};
use crate::net::{self, MOST_BUFFERS, Net, RECEIVE, Setting, TRANSMIT, frame};
use crate::nic::Adapter;
use crate::support::{Random, all_memory};
use crate::vmxnet3::{self, Vmx};

/// What the host has in its own memory before.
const HOST: u8 = 0xee;

/// Bytes from where virtio-net's buffers are to the end of memory.
const BUFFERS_LEN: usize = net::MEMORY - 0x8_0000;

/// Leaves bytes of the host in whatever memory the device keeps.
fn soil(port: &paraslot_tests::port::Port) {
    let mut bytes = frame(1500);
    bytes[14..].fill(HOST);
    port.deliver(&bytes);
}

#[test]
fn virtio_net_writes_what_a_frame_needs_and_no_more() {
    let mut delivered = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        // With mergeable buffers and without; with a hash in the header and without.
        let without = [0, feature::MRG_RXBUF, feature::HASH_REPORT, 0]
            [usize::try_from(seed % 4).expect("small")];
        let without = without | if seed % 8 == 3 { feature::CTRL_RX } else { 0 };
        let mut guest = Net::new(Setting { without, ..Setting::default() });
        guest.bench.poke(net::BUFFERS, &vec![CANARY; BUFFERS_LEN]);
        let hashed = guest.has(feature::HASH_REPORT) && random.one_in(2);
        if hashed {
            let mut config = HashConfig::new(hash_type::UDPV4, 40).as_bytes().to_vec();
            config.extend_from_slice(&[0x6d; 40]);
            assert_eq!(guest.command(class::MQ, mq::HASH_CONFIG, &config), ack::OK);
        }
        let mergeable = guest.has(feature::MRG_RXBUF);
        for round in 0..20 {
            let what = format!("seed {seed}, round {round}");
            // Buffers of any length, in pieces anywhere.
            let mut place = net::BUFFERS;
            let mut room = 0;
            while room < 2000 {
                let mut chain = Vec::new();
                let len = if mergeable { 32 + random.below(700) } else { 1600 + random.below(500) };
                let mut left = len;
                while left != 0 {
                    let part = (1 + random.below(len)).min(left);
                    let len = u32::try_from(part).expect("small");
                    chain.push(Buffer::writable(place, len));
                    place += part + random.below(20);
                    left -= part;
                }
                room += len;
                guest.supply_chain(RECEIVE, &chain);
            }
            assert!(place < net::MEMORY as u64);
            let size = usize::try_from(14 + random.below(1400)).expect("small");
            let shape = Shape { payload: size, ..Shape::default() };
            let bytes = if random.one_in(2) { shape.frame(false) } else { frame(size) };
            let udp = bytes[12..14] == [8, 0];
            let before = all_memory(&guest.bench, net::MEMORY);
            let offload = Offload { checksum_valid: udp, ..Offload::default() };
            let mut broadcast = bytes;
            broadcast[..6].fill(0xff);
            guest.port.deliver_to(0, Carried { bytes: broadcast.clone(), offload });
            guest.notify(RECEIVE);
            guest.run();
            let mut ledger = Ledger { before, after: all_memory(&guest.bench, net::MEMORY) };
            for queue in [RECEIVE, TRANSMIT, guest.control_queue()] {
                let ring = guest.ring_of(queue);
                ledger.take(ring.used_ring(), ring.end() - ring.used_ring());
            }
            let supplied = guest.supplied_chains(RECEIVE);
            let arrived = guest.arrived().unwrap_or_else(|| panic!("{what}: nothing"));
            assert!(arrived.bytes == broadcast, "{what}");
            delivered += 1;
            // Only the bytes that are claimed to be written.
            for (head, written) in &arrived.chains {
                let mut left = u64::from(*written);
                let (_, chain) = supplied.iter().find(|(of, _)| of == head).expect("supplied");
                for buffer in chain {
                    let len = left.min(buffer.len.into());
                    ledger.take(buffer.address, len);
                    left -= len;
                }
            }
            ledger.nothing_else(&what);
            let header = arrived.header.header;
            assert_eq!(usize::from(header.num_buffers.get()), arrived.chains.len(), "{what}");
            assert_eq!(header.flags, if udp { header_flag::DATA_VALID } else { 0 });
            assert_eq!(header.as_bytes()[1..10], [0; 9], "{what}");
            let told = arrived.header.hash_report.get();
            if hashed && udp {
                assert_eq!(told, hash_report::UDPV4, "{what}");
            } else {
                assert_eq!((told, arrived.header.hash_value.get()), (0, 0), "{what}");
            }
            // Reserved.
            assert_eq!(arrived.header.as_bytes()[18..], [0, 0], "{what}");
            // As new, and none of the buffers of before.
            guest.virtio.reset_queue(RECEIVE);
            guest.run();
            assert!(guest.queue_is_reset());
            guest.start_anew(RECEIVE);
            guest.run();
            guest.bench.poke(net::BUFFERS, &vec![CANARY; BUFFERS_LEN]);
        }
    }
    assert_eq!(delivered, 60 * 20);
}

// Frames that the driver does not want may leave bytes where frames go, and nowhere else.
#[test]
fn virtio_net_writes_nothing_for_frames_that_are_not_wanted() {
    for promiscuous in [false, true] {
        let mut guest = Net::new(Setting::default());
        guest.command(class::RX, rx::PROMISC, &[promiscuous.into()]);
        guest.supply(RECEIVE, MOST_BUFFERS / 4, 1600);
        guest.run();
        let before = all_memory(&guest.bench, net::MEMORY);
        for len in 100..120 {
            let mut other = frame(len);
            other[..6].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
            // And what is left to be done to it is more than was agreed on.
            let nonsense = PartialChecksum { start: 0xffff, offset: 0xffff };
            let offload =
                Offload { checksum: promiscuous.then_some(nonsense), ..Offload::default() };
            guest.port.deliver_to(0, Carried { bytes: other, offload });
        }
        guest.run();
        let mut ledger = Ledger { before, after: all_memory(&guest.bench, net::MEMORY) };
        let rings: Vec<_> = guest.rings.iter().map(|ring| (ring.used_ring(), ring.end())).collect();
        for (start, end) in rings {
            ledger.take(start, end - start);
        }
        for (_, chain) in guest.supplied_chains(RECEIVE) {
            chain.iter().for_each(|buffer| {
                ledger.take(buffer.address, buffer.len.into());
            });
        }
        ledger.nothing_else("not wanted");
        let counts = guest.control.statistics();
        let lost = if promiscuous { counts.receive_errors } else { counts.filtered };
        assert_eq!((lost, counts.received_frames), (20, 0));
        guest.works();
    }
}

#[test]
fn virtio_net_answers_in_the_bytes_that_are_for_it() {
    let mut guest = Net::new(Setting::default());
    let control = guest.control_queue();
    for room in 0..12u32 {
        let place = net::BUFFERS;
        guest.bench.poke(place, &[CANARY; 0x200]);
        guest.bench.poke(place, &[class::NOTF_COAL, notf_coal::VQ_GET, 0, 0, 0, 0]);
        let mut chain = vec![Buffer::readable(place, 6)];
        chain.extend((0..room).map(|at| Buffer::writable(place + 0x100 + u64::from(at) * 2, 1)));
        chain.push(Buffer::writable(place + 0x180, 1));
        let head = guest.ring_of(control).add(&chain);
        guest.notify(control);
        guest.run();
        let (used, written) = guest.ring_of(control).used().expect("answered");
        // Four values and how it went: behind that nothing, and with less room no values.
        assert_eq!((used, written), (head, (room + 1).min(9)), "{room}");
        let mut bytes = [0; 0x100];
        guest.bench.peek(place + 0x100, &mut bytes);
        let room = usize::try_from(room).expect("small");
        for (at, byte) in bytes.iter().enumerate() {
            let index = if at == 0x80 { room } else { at / 2 };
            let ours = (at < 2 * room && at.is_multiple_of(2)) || at == 0x80;
            let expected = match index {
                _ if !ours || index > 8 => CANARY,
                8 => ack::OK,
                _ if room < 8 && index == room => ack::ERR,
                _ => 0,
            };
            assert_eq!(*byte, expected, "room {room}, byte {at}");
        }
    }
    guest.works();
}

fn sending_writes_nothing<A: Adapter>(rings: fn(&mut A) -> Vec<(u64, u64)>) {
    let mut nic = A::make(paraslot_tests::port::Port::new(1));
    nic.run();
    for len in [14, 60, 61, 1514] {
        let before = all_memory(nic.bench(), A::MEMORY);
        nic.ask(&frame(len));
        let asked = all_memory(nic.bench(), A::MEMORY);
        nic.run();
        let mut ledger = Ledger { before: asked, after: all_memory(nic.bench(), A::MEMORY) };
        for (start, len) in rings(&mut nic) {
            ledger.take(start, len);
        }
        ledger.nothing_else(A::NAME);
        assert_eq!(nic.port().take_sent()[0].bytes.len(), len.max(if A::PADS { 60 } else { 0 }));
        assert_eq!(before.len(), A::MEMORY);
        nic.reclaim();
    }
}

#[test]
fn virtio_net_writes_nothing_but_its_ring_when_it_sends() {
    sending_writes_nothing::<Net>(|guest| {
        let ring = &guest.rings[1];
        vec![(ring.used_ring(), ring.end() - ring.used_ring())]
    });
}

#[test]
fn e1000_writes_nothing_but_status_when_it_sends() {
    sending_writes_nothing::<Ether>(|_| {
        (0..u64::from(DESCRIPTORS)).map(|index| (SEND_RING + 16 * index + 12, 1)).collect()
    });
}

#[test]
fn vmxnet3_writes_nothing_but_completions_when_it_sends() {
    sending_writes_nothing::<Vmx>(|_| vec![(vmxnet3::SENT_RING, vmxnet3::RING_LEN)]);
}

/// What a descriptor is after it was used, and the packet's bytes in its buffer.
fn check_packet(guest: &Ether, ledger: &mut Ledger, first: u32, packet: &[u8], size: usize) -> u32 {
    let mut index = first;
    let mut parts = packet.chunks(size).peekable();
    while let Some(part) = parts.next() {
        let place = RECEIVE_RING + 16 * u64::from(index) + 8;
        let mut bytes = [0; 16];
        guest.bench.peek(place - 8, &mut bytes);
        ledger.take(place, 8);
        let done = ReceiveDescriptor::read_from_bytes(&bytes).expect("its size");
        assert_eq!(usize::from(done.length.get()), part.len());
        assert_eq!((done.checksum.get(), done.special.get(), done.errors), (0, 0, 0));
        let last = parts.peek().is_none();
        let end = if last { receive::EOP | receive::IXSM } else { 0 };
        assert_eq!(done.status, receive::DD | end);
        assert!(ledger.take(Ether::buffer(index), part.len() as u64) == part);
        index = (index + 1) % DESCRIPTORS;
    }
    index
}

// CVE-2012-6075, and what was in the host's memory before: frames of every length in buffers of every
// size, with and without FCS, padded with zeroes.
#[test]
fn e1000_writes_what_a_packet_needs_and_no_more() {
    for (bits, size) in [
        (0, 2048),
        (1 << Rctl::BSIZE_SHIFT, 1024),
        (2 << Rctl::BSIZE_SHIFT, 512),
        (3 << Rctl::BSIZE_SHIFT, 256),
        (Rctl::BSEX.bits() | 3 << Rctl::BSIZE_SHIFT, 4096),
    ] {
        for strip in [true, false] {
            let mut guest = Ether::new();
            guest.receive_with(bits);
            if !strip {
                let rctl = guest.get(registers::RCTL);
                guest.set(registers::RCTL, rctl & !Rctl::SECRC.bits());
            }
            soil(&guest.port);
            guest.run();
            guest.arrived().expect("it comes");
            guest.bench.poke(crate::e1000::BUFFERS, &vec![CANARY; 0x4_0000]);
            for len in [14, 15, 59, 60, 61, 255, 256, 257, 508, 512, 1024, 1028, 1500, 1518] {
                let before = all_memory(&guest.bench, crate::e1000::MEMORY);
                let first = guest.next;
                guest.port.deliver(&frame(len));
                guest.run();
                let after = all_memory(&guest.bench, crate::e1000::MEMORY);
                let mut ledger = Ledger { before, after };
                let mut packet = frame(len);
                packet.resize(len.max(60) + if strip { 0 } else { 4 }, 0);
                let next = check_packet(&guest, &mut ledger, first, &packet, size);
                ledger.nothing_else(&format!("{len} bytes in buffers of {size}"));
                let arrived = guest.arrived().expect("it comes");
                assert!(arrived.bytes == packet && guest.next == next, "{len} in {size}");
                guest.bench.poke(crate::e1000::BUFFERS, &vec![CANARY; 0x4_0000]);
            }
            // Longer ones are for guests that take them.
            let before = all_memory(&guest.bench, crate::e1000::MEMORY);
            for len in [1519, 4000, 16_380] {
                guest.port.deliver(&frame(len));
            }
            guest.run();
            let after = all_memory(&guest.bench, crate::e1000::MEMORY);
            Ledger { before, after }.nothing_else("too long");
            let rctl = guest.get(registers::RCTL);
            guest.set(registers::RCTL, rctl | Rctl::LPE.bits());
            let mut packet = frame(9000);
            guest.port.deliver(&packet);
            guest.run();
            packet.resize(9000 + if strip { 0 } else { 4 }, 0);
            assert!(guest.arrived().expect("it comes").bytes == packet);
            // And not even for them, beyond what a packet can be.
            guest.port.deliver(&frame(16_381));
            guest.run();
            assert!(guest.arrived().is_none());
        }
    }
}

// A tag that is stripped, at the very end of a frame that is too short for one.
#[test]
fn e1000_strips_tags_within_the_frame() {
    let mut guest = Ether::new();
    soil(&guest.port);
    guest.run();
    guest.arrived().expect("it comes");
    guest.set(registers::CTRL, (Ctrl::SLU | Ctrl::FD | Ctrl::VME).bits());
    guest.set(registers::RXCSUM, rxcsum::IPOFL | rxcsum::TUOFL);
    for len in 14..30 {
        let mut bytes = frame(len);
        bytes[12..14].copy_from_slice(&[0x81, 0]);
        guest.port.deliver(&bytes);
        guest.run();
        let arrived = guest.arrived().expect("it comes");
        let tagged = len >= 18;
        bytes.resize(60, 0);
        if tagged {
            bytes.drain(12..16);
        }
        assert!(arrived.bytes == bytes, "{len}: {:x?}", arrived.bytes);
        let done = arrived.descriptors[0];
        assert_eq!(done.status & receive::VP != 0, tagged);
        assert!(tagged || done.special.get() == 0);
    }
}

// QEMU 034d00d485: a descriptor that says that it is done is so in all its parts. It is written in one
// store of eight bytes, after the packet.
#[test]
fn e1000_says_that_a_descriptor_is_done_when_it_is() {
    let mut guest = Ether::new();
    guest.receive_with(2 << Rctl::BSIZE_SHIFT);
    let lengths = [100usize, 1500, 60];
    let packets: Vec<u8> = lengths.iter().flat_map(|len| frame(*len)).collect();
    let stores = Arc::new(AtomicU64::new(0));
    let counted = stores.clone();
    guest.bench.memory.set_hook(Some(Box::new(move |memory, access| {
        let ring = RECEIVE_RING..RECEIVE_RING + 16 * u64::from(DESCRIPTORS);
        if ring.contains(&access.address) && access.permissions == Permissions::Write {
            assert_eq!((access.address % 16, access.len), (8, 8), "not in one store");
            counted.fetch_add(1, Ordering::Relaxed);
        }
        // All that are done up to now are a part of the packets, without a gap.
        let mut bytes = Vec::new();
        for index in 0..DESCRIPTORS {
            let mut raw = [0; 16];
            let place = GuestAddress(RECEIVE_RING + 16 * u64::from(index));
            memory.read_slice(&mut raw, place).expect("in memory");
            let descriptor = ReceiveDescriptor::read_from_bytes(&raw).expect("its size");
            if descriptor.status & receive::DD != 0 {
                let mut part = vec![0; descriptor.length.get().into()];
                let place = GuestAddress(descriptor.address.get());
                memory.read_slice(&mut part, place).expect("in memory");
                assert!(!part.is_empty());
                bytes.append(&mut part);
            }
        }
        assert!(packets.starts_with(&bytes), "done, and yet not there");
    })));
    for len in lengths {
        guest.port.deliver(&frame(len));
    }
    guest.run();
    guest.bench.memory.set_hook(None);
    assert_eq!(stores.load(Ordering::Relaxed), 1 + 3 + 1);
}

// CVE-2021-3748: the number of buffers is in the header, and the frame in its buffers, before the
// driver is told of any of them.
#[test]
fn virtio_net_tells_of_a_frame_when_it_is_all_there() {
    let mut guest = Net::new(Setting::default());
    guest.supply(RECEIVE, 40, 300);
    let first = guest.supplied_chains(RECEIVE);
    let used = guest.ring_of(RECEIVE).used_ring();
    let told = Arc::new(AtomicU64::new(0));
    let seen = told.clone();
    guest.bench.memory.set_hook(Some(Box::new(move |memory, _| {
        let index: u16 = memory.load(GuestAddress(used + 2), Ordering::SeqCst).expect("in memory");
        if index == 0 || seen.swap(index.into(), Ordering::Relaxed) != 0 {
            return;
        }
        // The first look at which the driver is told of anything.
        assert_eq!(index, 4, "all buffers of a frame together");
        let mut bytes = Vec::new();
        for (slot, (head, chain)) in (0..u64::from(index)).zip(&first) {
            let mut element = [0; 8];
            memory.read_slice(&mut element, GuestAddress(used + 4 + 8 * slot)).expect("in memory");
            assert_eq!(element[..2], head.to_le_bytes());
            let mut part = vec![0; usize::from(element[4]) + 256 * usize::from(element[5])];
            memory.read_slice(&mut part, GuestAddress(chain[0].address)).expect("in memory");
            bytes.append(&mut part);
        }
        assert_eq!(bytes[10..12], [4, 0], "num_buffers");
        assert!(bytes[20..] == frame(1000), "the frame");
    })));
    guest.port.deliver(&frame(1000));
    guest.notify(RECEIVE);
    guest.run();
    guest.bench.memory.set_hook(None);
    assert_eq!(told.load(Ordering::Relaxed), 4);
}
