//! vmxnet3: buffers, completions, and what commands write.
//!
//! CVE-2016-6836 (completions with bytes that were never set), CVE-2015-8744 (short frames),
//! QEMU df8bf7a7fe (a tag that is stripped), QEMU eedeeeffd4 (statistics before there are queues).

use std::mem::offset_of;

use paraslot_spec::vmxnet3::{
    Features, QueueStatus, RxMode, TxQueueDesc, TxStats, command, rcd, rxd,
};
use paraslot_tests::port::Port;

use super::{CANARY, Ledger};
use crate::net::frame;
use crate::nic::Adapter;
use crate::support::{Random, all_memory};
use crate::vmxnet3::{BUFFERS, MEMORY, QUEUES, RECEIVED_RING, RING_LEN, Setup, Vmx};

fn with(features: Features, promiscuous: bool) -> Vmx {
    let mut guest = Vmx::new();
    let mut setup = Setup::default();
    setup.shared.dev_read.misc.upt_features = features.bits().into();
    if !promiscuous {
        // All broadcasts, of any VLAN.
        setup.shared.dev_read.rx_filter_conf.rx_mode = RxMode::BCAST.bits().into();
        setup.shared.dev_read.rx_filter_conf.vf_table = [u32::MAX.into(); 128];
    }
    assert_eq!(guest.start_with(&setup), 0);
    // What the host has in its own memory before.
    let mut bytes = frame(1500);
    bytes[14..].fill(0xee);
    guest.port.deliver(&bytes);
    guest.run();
    guest.arrived().expect("it comes");
    guest
}

#[test]
fn vmxnet3_writes_what_a_frame_needs_and_no_more() {
    let mut spread = 0;
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut guest = Vmx::new();
        // Buffers of any length, with gaps behind them.
        let mut lengths = Vec::new();
        for _ in 0..128 {
            lengths.push(128 + u32::try_from(random.below(400)).expect("small"));
        }
        guest.start();
        guest.give_all(|ring, index| {
            let len = lengths[ring * 64 + usize::try_from(index).expect("small")];
            (Vmx::buffer(ring, index), len | if ring == 1 { rxd::BTYPE_BODY } else { 0 })
        });
        let len = MEMORY - usize::try_from(BUFFERS).expect("small");
        guest.bench.poke(BUFFERS, &vec![CANARY; len]);
        for round in 0..8 {
            let what = format!("seed {seed}, round {round}");
            let bytes = frame(usize::try_from(14 + random.below(1500)).expect("small"));
            let before = all_memory(&guest.bench, MEMORY);
            let first = guest.next;
            guest.port.deliver(&bytes);
            guest.run();
            let mut ledger = Ledger { before, after: all_memory(&guest.bench, MEMORY) };
            let arrived = guest.arrived().unwrap_or_else(|| panic!("{what}: nothing"));
            assert!(arrived.bytes == bytes, "{what}");
            spread += arrived.completions.len() - 1;
            let mut side = first;
            let last = arrived.completions.len() - 1;
            for (number, completion) in arrived.completions.iter().enumerate() {
                ledger.take(side.at(), 16);
                side.step();
                let word = completion.index.get();
                let ring = usize::try_from(word >> rcd::RQID_SHIFT & rcd::RQID).expect("small");
                let written = completion.len.get() & rcd::LEN;
                ledger.take(Vmx::buffer(ring, word & 0xfff), written.into());
                // All bits of it are known: no hash, no tag, no error.
                assert_eq!(completion.rss_hash.get(), 0, "{what}");
                assert_eq!(completion.len.get(), written, "{what}");
                let start = if number == 0 { rcd::SOP } else { 0 };
                let end = if number == last { rcd::EOP | rcd::CNC } else { 0 };
                let known = 0xfff | rcd::RQID << rcd::RQID_SHIFT | start | end;
                assert_eq!(word & !known, 0, "{what}: {word:#x}");
                assert_eq!(completion.flags.get() & 0x007f_ffff, 0, "{what}");
            }
            assert_eq!(side, guest.next, "{what}");
            ledger.nothing_else(&what);
            guest.bench.poke(BUFFERS, &vec![CANARY; len]);
        }
    }
    assert!(spread > 300, "{spread}");
}

// CVE-2015-8744: the shortest frames, of any kind; and QEMU df8bf7a7fe: a tag is stripped of a frame that
// has all of it, and no byte is written but those of the frame.
#[test]
fn vmxnet3_strips_tags_within_the_frame() {
    for (features, promiscuous) in [
        (Features::RXVLAN, true),
        (Features::RXVLAN | Features::RXCSUM, true),
        (Features::RXVLAN, false),
        (Features::empty(), false),
    ] {
        let mut guest = with(features, promiscuous);
        guest.bench.poke(BUFFERS, &[CANARY; 0x2_0000]);
        for len in 14..50 {
            for kind in [[0x81, 0x00], [0x08, 0x00], [0x86, 0xdd], [0x88, 0xa8], [0, 0]] {
                let mut bytes = frame(len);
                bytes[12..14].copy_from_slice(&kind);
                let tagged = features.contains(Features::RXVLAN) && kind == [0x81, 0] && len >= 18;
                let tag =
                    u16::from_be_bytes([bytes.get(14), bytes.get(15)].map(|b| *b.unwrap_or(&0)));
                let before = all_memory(&guest.bench, MEMORY);
                guest.port.deliver(&bytes);
                guest.run();
                let mut ledger = Ledger { before, after: all_memory(&guest.bench, MEMORY) };
                let arrived = guest.arrived().expect("it comes");
                if tagged {
                    bytes.drain(12..16);
                }
                assert!(arrived.bytes == bytes, "{len}, {kind:x?}: {:x?}", arrived.bytes);
                let word = arrived.completions[0].len.get();
                let told = if tagged { rcd::TS | u32::from(tag) << rcd::TCI_SHIFT } else { 0 };
                assert_eq!(word & !rcd::LEN, told, "{len}, {kind:x?}");
                ledger.take(RECEIVED_RING, 2 * RING_LEN);
                let place = Vmx::buffer(0, arrived.completions[0].index.get() & 0xfff);
                ledger.take(place, bytes.len() as u64);
                ledger.nothing_else(&format!("{len}, {kind:x?}"));
                guest.bench.poke(place, &[CANARY; 64]);
            }
        }
    }
}

// QEMU eedeeeffd4: a device without queues has nowhere to write what it is asked for; one that has them
// writes it in its place.
#[test]
fn commands_of_vmxnet3_write_what_they_say() {
    let commands = (0..32).flat_map(|at| [command::FIRST_SET + at, command::FIRST_GET + at]);
    let mut guest = Vmx::idle(Port::new(1));
    guest.prepare(&Setup::default());
    guest.bench.poke(QUEUES, &[CANARY; 1024]);
    for number in commands.clone().filter(|number| *number != command::ACTIVATE_DEV) {
        let before = all_memory(&guest.bench, MEMORY);
        guest.order(number);
        guest.run();
        let after = all_memory(&guest.bench, MEMORY);
        Ledger { before, after }.nothing_else(&format!("{number:#x}, not active"));
    }
    // Stopped and reset is not active either.
    for ending in [command::QUIESCE_DEV, command::RESET_DEV] {
        guest.start();
        guest.works();
        guest.order(ending);
        guest.bench.poke(QUEUES, &[CANARY; 512]);
        for number in [command::GET_STATS, command::GET_QUEUE_STATUS] {
            let before = all_memory(&guest.bench, MEMORY);
            guest.order(number);
            guest.run();
            let after = all_memory(&guest.bench, MEMORY);
            Ledger { before, after }.nothing_else(&format!("{number:#x} after {ending:#x}"));
        }
    }
    for number in commands {
        guest.start();
        guest.works();
        let before = all_memory(&guest.bench, MEMORY);
        guest.order(number);
        guest.run();
        let mut ledger = Ledger { before, after: all_memory(&guest.bench, MEMORY) };
        for queue in 0..2 {
            let place = QUEUES + 256 * queue;
            let (at, len) = match number {
                command::GET_STATS => (offset_of!(TxQueueDesc, stats), size_of::<TxStats>()),
                command::GET_QUEUE_STATUS => {
                    (offset_of!(TxQueueDesc, status), size_of::<QueueStatus>())
                }
                _ => continue,
            };
            ledger.take(place + at as u64, len as u64);
        }
        if number == command::ACTIVATE_DEV {
            // Anew: rings whose generations are of before.
            continue;
        }
        ledger.nothing_else(&format!("{number:#x}"));
    }
}
