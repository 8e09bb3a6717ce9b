//! vmxnet3: setups, descriptors and frames that make no sense.

use paraslot_spec::vmxnet3::{DriverShared, RxQueueDesc, TxDesc, TxQueueDesc, command, txd};
use paraslot_tests::frames::Shape;
use zerocopy::{FromBytes, IntoBytes};

use crate::net::frame;
use crate::nic::Adapter;
use crate::support::{Random, all_memory};
use crate::vmxnet3::{LAST, MEMORY, PLACES, Setup, Vmx, descriptor};

/// Each byte of a structure set to something else, in turn.
fn changed<T: FromBytes + IntoBytes + zerocopy::Immutable>(
    right: &T,
    at: usize,
    change: fn(u8) -> u8,
) -> T {
    let mut bytes = right.as_bytes().to_vec();
    bytes[at] = change(bytes[at]);
    T::read_from_bytes(&bytes).expect("its size")
}

// CVE-2013-4544 (indices), CVE-2021-20203 and CVE-2016-6888 (sizes of rings, and what is made of them),
// QEMU 90a0778421 (the MTU), 9010b0c7a9 (numbers of queues): each byte of what the driver sets up, wrong.
// The device refuses it or does its best; the next activation is well.
#[test]
fn no_setup_of_vmxnet3_does_harm() {
    const CHANGES: [fn(u8) -> u8; 3] = [|byte| byte ^ 0xff, |byte| byte ^ 1, |byte| byte ^ 0x80];
    let right = Setup::default();
    // The VLAN table is many bytes of the same kind.
    let table = std::mem::offset_of!(DriverShared, dev_read.rx_filter_conf.vf_table);
    let places = (0..size_of::<DriverShared>())
        .filter(|at| !(table + 8..table + 500).contains(at))
        .map(|at| (0, at))
        .chain((0..96).flat_map(|at| [(1, at), (2, at)]));
    let (mut refused, mut accepted) = (0, 0);
    let mut guest = Vmx::new();
    for (which, at) in places {
        for change in CHANGES {
            let mut setup = right.clone();
            match which {
                0 => setup.shared = changed::<DriverShared>(&right.shared, at, change),
                1 => setup.tx = changed::<TxQueueDesc>(&right.tx, at, change),
                _ => setup.rx = changed::<RxQueueDesc>(&right.rx, at, change),
            }
            if guest.start_with(&setup) == 0 {
                accepted += 1;
                guest.send(&frame(60));
                guest.kick();
                guest.port.deliver(&frame(100));
                guest.run();
                for command in [command::GET_STATS, command::GET_QUEUE_STATUS, command::UPDATE_IML]
                {
                    guest.order(command);
                }
            } else {
                refused += 1;
                let before = all_memory(&guest.bench, MEMORY);
                guest.kick();
                guest.run();
                guest.order(command::GET_STATS);
                assert!(all_memory(&guest.bench, MEMORY) == before, "{which}, {at}: written");
            }
            guest.port.drain();
            guest.port.take_sent();
        }
        guest.start();
        guest.works();
    }
    assert!(refused > 100 && accepted > 100, "{refused} refused, {accepted} accepted");
}

// CVE-2020-27617 (neither IPv4 nor IPv6), CVE-2016-6888 and CVE-2025-41236 (lengths whose sum overflows),
// QEMU dd32b5ea7e (a checksum past the end): the packet is lost, or goes as it is, and the next is well.
#[test]
fn an_offload_that_fits_nothing_costs_vmxnet3_its_packet() {
    let shape = Shape { tcp: true, payload: 300, ..Shape::default() };
    let right = shape.frame(true);
    let mut other = frame(300);
    let mut of_no_kind = Vec::new();
    for kind in [[0x08, 0x06], [0xff, 0xff], [0x08, 0x00], [0x86, 0xdd], [0x81, 0x00]] {
        other[12..14].copy_from_slice(&kind);
        of_no_kind.push(other.clone());
    }
    let mut guest = Vmx::new();
    for (bytes, is_right) in of_no_kind.iter().map(|bytes| (bytes, false)).chain([(&right, true)]) {
        for headers in [0, 1, 13, 14, 33, 53, 54, 55, 300, 0x3ff] {
            for size in [0, 1, 16, 100, 0x3fff] {
                for mode in [txd::OM_TSO, txd::OM_CSUM] {
                    guest.bench.poke(PLACES, bytes);
                    let len = u32::try_from(bytes.len()).expect("small");
                    let before = guest.statistics();
                    let len = len | size << txd::MSSCOF_SHIFT;
                    let index = guest.put(&[descriptor(PLACES, len, LAST | mode | headers)]);
                    guest.kick();
                    guest.run();
                    assert_eq!(guest.sent(), [index], "{headers}, {size}");
                    let lost = guest.statistics().send_invalid - before.send_invalid;
                    let sent = guest.port.take_sent();
                    assert_eq!(lost + sent.len() as u64, 1, "{headers}, {size}");
                    let segmented = sent.iter().any(|sent| sent.offload.segmentation.is_some());
                    let may = mode == txd::OM_TSO && is_right && headers == 54 && size != 0;
                    assert!(!segmented || may, "{headers}, {size}");
                    assert!(segmented || !may || size != 100, "{headers}, {size}");
                    for sent in sent {
                        assert_eq!(sent.bytes.len(), bytes.len());
                        let inside = sent.offload.checksum.is_none_or(|sum| {
                            usize::from(sum.start) + usize::from(sum.offset) + 2 <= bytes.len()
                        });
                        assert!(inside || mode == txd::OM_CSUM, "{headers}, {size}");
                    }
                }
            }
        }
    }
    guest.works();
}

// Any words at all for descriptors (CVE-2025-41236: what they add up to). The queue may stop; reception
// does not, and nothing is written but completions.
#[test]
fn no_descriptor_of_vmxnet3_does_harm() {
    let mut stopped = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut guest = Vmx::new();
        let places = usize::try_from(PLACES).expect("small");
        for _ in 0..12 {
            let count = 1 + random.below(6);
            let mut packet: Vec<TxDesc> = (0..count)
                .map(|_| {
                    let mut word = || u32::try_from(random.below(1 << 32)).expect("32 bits");
                    let (len, flags) = (word() & word(), word() & word());
                    let address = if random.one_in(4) {
                        u64::MAX - random.below(0x8000)
                    } else {
                        PLACES + random.below(0x4_0000)
                    };
                    // Types that there are not stop the queue at once; now and then they may.
                    let kind = if random.one_in(8) { 0 } else { txd::DTYPE };
                    descriptor(address, len & !kind, flags & !txd::EOP)
                })
                .collect();
            let last = packet.last_mut().expect("not empty");
            last.flags = (last.flags.get() | LAST).into();
            guest.put(&packet);
            let before = all_memory(&guest.bench, MEMORY);
            guest.kick();
            guest.run();
            let after = all_memory(&guest.bench, MEMORY);
            assert!(before[places..] == after[places..], "seed {seed}: written");
            stopped += u32::from(guest.sent().is_empty());
            guest.port.deliver(&frame(100));
            guest.run();
            assert!(guest.arrived().expect("it comes").bytes == frame(100), "seed {seed}");
        }
        guest.start();
        guest.works();
    }
    assert!(stopped > 20, "{stopped}");
}
