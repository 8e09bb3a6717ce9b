//! vmxnet3: what the driver sets up, descriptors and packets that change once they were read.

use std::ops::Range;

use paraslot_spec::vmxnet3::{command, rxd, txd};
use paraslot_tests::frames::Shape;
use vm_memory::{Bytes, GuestAddress, Permissions};

use super::{SPOILS, Twice, spoil_what_is_read};
use crate::net::frame;
use crate::nic::Adapter;
use crate::vmxnet3::{
    BUFFERS, LAST, PLACES, QUEUES, RECEIVE_RINGS, RECEIVED_RING, RING_LEN, SEND_RING, SHARED,
    Setup, Vmx, descriptor,
};

fn assert_once(twice: &Twice, what: &str) {
    let twice = twice.lock().expect("no panic");
    assert!(twice.is_empty(), "{what}: read again: {twice:x?}");
}

// Sizes, places and indices are checked when the device is activated, and used long after.
#[test]
fn vmxnet3_reads_what_the_driver_sets_up_once() {
    for spoil in SPOILS {
        let mut guest = Vmx::new();
        guest.order(command::RESET_DEV);
        guest.prepare(&Setup::default());
        // Each queue's control and what the device writes there apart.
        let fields =
            vec![SHARED..SHARED + 696, QUEUES + 16..QUEUES + 80, QUEUES + 272..QUEUES + 336];
        let twice = spoil_what_is_read(&guest.bench, fields, spoil);
        assert_eq!(guest.order(command::ACTIVATE_DEV), 0);
        guest.run();
        guest.works();
        guest.bench.memory.set_hook(None);
        assert_once(&twice, "the setup");
    }
}

/// Descriptors from `first` on, but for the first one's word with the generation: that tells whether
/// the packet is there, and is read with all of it then.
fn descriptors(first: u64, count: u64) -> Vec<Range<u64>> {
    vec![first..first + 8, first + 12..first + 16 * count]
}

#[test]
fn vmxnet3_reads_every_field_of_a_packet_to_be_sent_once() {
    let shape = Shape { tcp: true, payload: 900, ..Shape::default() };
    let headers = u32::try_from(shape.headers()).expect("small");
    let tso = (100 << txd::MSSCOF_SHIFT, txd::OM_TSO | headers);
    let place = u32::try_from(shape.transport()).expect("small") + 16;
    let csum = (place << txd::MSSCOF_SHIFT, txd::OM_CSUM | (place - 16));
    for (len, flags) in [(0, 0), tso, csum] {
        for spoil in SPOILS {
            for cuts in [&[][..], &[14], &[3, 20, 60], &[1, 2, 3, 30, 500]] {
                let mut guest = Vmx::new();
                let bytes = shape.frame(true);
                guest.bench.poke(PLACES, &bytes);
                let mut packet = Vec::new();
                let mut from = 0;
                for to in cuts.iter().copied().chain([bytes.len()]) {
                    let bytes = u32::try_from(to - from).expect("small");
                    packet.push(descriptor(PLACES + from as u64, bytes, 0));
                    from = to;
                }
                packet[0].len = (packet[0].len.get() | len).into();
                packet[0].flags = flags.into();
                let last = packet.last_mut().expect("not empty");
                last.flags = (last.flags.get() | LAST).into();
                let count = packet.len() as u64;
                let index = guest.put(&packet);
                let fields = descriptors(SEND_RING, count);
                let twice = spoil_what_is_read(&guest.bench, fields, spoil);
                guest.kick();
                guest.run();
                guest.bench.memory.set_hook(None);
                assert_once(&twice, "a packet");
                let last = index + u32::try_from(count - 1).expect("few");
                assert_eq!(guest.sent(), [last], "{cuts:?}");
                let sent = guest.port.take_sent();
                assert_eq!(sent.len(), 1, "{flags:#x}, {cuts:?}");
                assert_eq!(sent[0].bytes.len(), bytes.len());
                // Behind the headers, of which lengths and sums may be filled in.
                assert!(sent[0].bytes[54..] == bytes[54..], "{flags:#x}, {cuts:?}");
                let cut = sent[0].offload.segmentation.map(|how| how.size);
                assert_eq!(cut, (flags & txd::OM == txd::OM_TSO).then_some(100));
            }
        }
    }
}

// A buffer's length and address: what the first byte was written by is what all were, and what the
// completions say.
#[test]
fn vmxnet3_reads_no_buffer_again_once_it_fills_them() {
    for spoil in SPOILS {
        for len in [128, 300, 2048u32] {
            let mut guest = Vmx::new();
            guest.start();
            guest.give_all(|ring, index| {
                (Vmx::buffer(ring, index), len | if ring == 1 { rxd::BTYPE_BODY } else { 0 })
            });
            let mut spoiled = false;
            guest.bench.memory.set_hook(Some(Box::new(move |memory, access| {
                let filling = access.permissions == Permissions::Write && access.address >= BUFFERS;
                if !filling || std::mem::replace(&mut spoiled, true) {
                    return;
                }
                for address in RECEIVE_RINGS.into_iter().flat_map(|ring| ring..ring + RING_LEN) {
                    let byte: u8 = memory.read_obj(GuestAddress(address)).expect("in memory");
                    memory.write_obj(spoil(byte), GuestAddress(address)).expect("in memory");
                }
            })));
            guest.port.deliver(&frame(1000));
            assert!(guest.bench.executor.run(1000));
            guest.bench.memory.set_hook(None);
            let mut bytes = Vec::new();
            let mut piece = 0;
            while bytes.len() < 1000 {
                let part = len.min(1000 - len * piece);
                let mut data = vec![0; usize::try_from(part).expect("small")];
                let place = if piece == 0 { Vmx::buffer(0, 0) } else { Vmx::buffer(1, piece - 1) };
                guest.bench.peek(place, &mut data);
                bytes.append(&mut data);
                let mut told = [0; 4];
                guest.bench.peek(RECEIVED_RING + 16 * u64::from(piece) + 8, &mut told);
                assert_eq!(u32::from_le_bytes(told), part, "{len}");
                piece += 1;
            }
            assert!(bytes == frame(1000), "{len}");
            guest.start();
            guest.works();
        }
    }
}
