//! What one unit of work may cost, in accesses to guest memory, whatever the guest has put there.
//!
//! The loops without end: CVE-2016-6490 (chains of empty buffers), CVE-2014-9718 and CVE-2019-20175
//! (PRD tables that never fill a sector), OpenVMM e375025c7 (a chain that is refused and looked at
//! again), Cloud Hypervisor fbcf2fd6b (a batch without an end); and of the networks, CVE-2015-6815,
//! CVE-2016-1981, CVE-2020-28916, crosvm 28a9d2b70.

mod e1000;
mod net;
mod scsi;
mod vmxnet3;

use std::sync::Arc;

use paraslot_device::Progress;
use paraslot_spec::ahci::{PRD_TABLE, Prd, port};
use paraslot_spec::ata::{command, dsm};
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE};
use paraslot_spec::virtio_blk::{RangeSegment, request, status};
use paraslot_virtio::testing::Buffer;
use paraslot_virtio_blk::Options;
use zerocopy::IntoBytes;

use crate::ahci::{self, Sata, data_at, sectors};
use crate::blk::{self, Blk};
use crate::support::image;

/// Most chains that virtio-blk takes in one unit of work.
const BATCH: u64 = 64;
/// Descriptors of the longest chain.
const LONGEST: u64 = 1024;

fn blk(queue_size: u16) -> Blk {
    Blk::new(Arc::new(image()), &Options { queue_size, ..Options::default() })
}

/// The cost of one unit of work of the only worker.
fn step(guest: &Blk) -> u64 {
    guest.bench.memory.take_accesses();
    let _ = guest.bench.executor.step(0);
    guest.bench.memory.take_accesses()
}

/// What a chain of `descriptors` may cost: two ring entries, two tables looked up, each descriptor
/// read on its own and its buffer resolved, the status and the used index.
fn chain_cost(descriptors: u64) -> u64 {
    2 * descriptors + 6
}

/// What a unit of work may cost beside its chains: indices, flags and events.
const ROUND: u64 = 12;

// What a well-formed read costs, so that nothing is looked at in vain.
#[test]
fn a_read_costs_virtio_blk_few_accesses() {
    let mut guest = blk(64);
    step(&guest);
    guest.add(request::IN, 1, &[Buffer::writable(blk::DATA, 512)], false);
    // The avail index and entry, the descriptor table, the header, the data, the status, the used
    // element and index, the flags; and notifications switched off and asked for.
    let cost = step(&guest);
    assert!((8..=14).contains(&cost), "{cost}");
    // Each further one of a batch costs no index and no flags.
    for _ in 0..10 {
        guest.add(request::IN, 1, &[Buffer::writable(blk::DATA, 512)], false);
    }
    let cost = step(&guest);
    assert!((10 * 7..=10 * 7 + ROUND).contains(&cost), "{cost}");
}

// The longest chains there are, each in a table that ends beyond memory so that no lookup serves two
// descriptors, in a queue full of them.
#[test]
fn the_longest_chains_cost_virtio_blk_a_bounded_number_of_accesses() {
    let mut guest = blk(256);
    step(&guest);
    let (header, answer, _) = guest.frame(request::IN, 0);
    let table = blk::MEMORY as u64 - LONGEST * 16;
    let mut chain = vec![header];
    // 1022 pieces of data: as many bytes as the first 511 sectors.
    chain.extend((0..1022).map(|index| Buffer::writable(blk::DATA + index % 2 * 256, 256)));
    chain.push(answer);
    guest.ring.set_table(table, &chain);
    for head in 0..256 {
        // One more entry than memory has, which the chain does not reach.
        let len = u32::try_from(16 * (LONGEST + 1)).expect("small");
        guest.ring.set_descriptor(head, table, len, DESC_F_INDIRECT, 0);
        guest.ring.publish(head);
    }
    let mut total = 0;
    while total < 256 {
        let before = guest.ring.used_idx();
        let cost = step(&guest);
        let taken = u64::from(guest.ring.used_idx() - before);
        // Fewer than in a batch of ordinary requests: they have too many buffers.
        assert!((1..=BATCH / 4).contains(&taken), "{taken} chains in one unit of work");
        assert!(cost <= taken * chain_cost(LONGEST) + ROUND, "{cost} for {taken}");
        assert!(
            cost >= taken * 2 * LONGEST,
            "the chains were not as long as they should be: {cost}"
        );
        total += taken;
    }
    assert_eq!(total, 256);
    assert_eq!(guest.status_of(&pending(answer)), status::OK);
    // The queue is empty, and finding that out costs next to nothing.
    assert!(step(&guest) <= ROUND);
}

fn pending(status: Buffer) -> blk::Pending {
    blk::Pending { head: 0, kind: 0, sector: 0, status: status.address, data: Vec::new() }
}

// A request of 64 ranges, in buffers of one byte.
#[test]
fn ranges_cut_into_bytes_cost_virtio_blk_one_access_a_byte() {
    let mut guest = blk(64);
    step(&guest);
    for index in 0..60 {
        let range = RangeSegment {
            sector: (600 + index).into(),
            num_sectors: 1.into(),
            ..RangeSegment::default()
        };
        guest.bench.poke(blk::DATA + 16 * index, range.as_bytes());
    }
    let (header, answer, _) = guest.frame(request::DISCARD, 0);
    let mut chain = vec![header];
    chain.extend((0..960).map(|at| Buffer::readable(blk::DATA + at, 1)));
    chain.push(answer);
    guest.ring.add_indirect(blk::DATA - 0x8000, &chain);
    let cost = step(&guest);
    assert!((960..=960 + 16 + ROUND).contains(&cost), "{cost}");
    assert_eq!(guest.status_of(&pending(answer)), status::OK);
}

// Chains that never end, or that no request can be made of: each is looked at once, the worker comes
// to rest, and a reset is acknowledged at once.
#[test]
fn a_chain_that_is_refused_costs_virtio_blk_once() {
    type Chain = fn(&mut Blk);
    let chains: [(&str, Chain); 7] = [
        ("a loop", |guest| guest.ring.set_descriptor(0, blk::DATA, 16, DESC_F_NEXT, 0)),
        ("a loop of nothing", |guest| {
            guest.ring.set_descriptor(0, blk::DATA, 0, DESC_F_NEXT, 1);
            guest.ring.set_descriptor(1, blk::DATA, 0, DESC_F_NEXT, 0);
        }),
        ("a loop in a table", |guest| {
            guest.ring.set_descriptor(0, blk::DATA, 16 * 0xffff, DESC_F_INDIRECT, 0);
            guest.ring.set_entry(blk::DATA, 0, blk::DATA, 0, DESC_F_NEXT, 0);
        }),
        ("a table in itself", |guest| {
            guest.ring.set_descriptor(0, blk::DATA, 64, DESC_F_INDIRECT, 0);
            guest.ring.set_entry(blk::DATA, 0, blk::DATA, 64, DESC_F_INDIRECT, 0);
        }),
        ("a table of nothing", |guest| {
            guest.ring.set_descriptor(0, blk::DATA, 0, DESC_F_INDIRECT, 0);
        }),
        ("only what is empty", |guest| guest.ring.set_descriptor(0, blk::DATA, 0, DESC_F_WRITE, 0)),
        ("no place for the status", |guest| {
            guest.ring.set_descriptor(0, blk::DATA, 16, 0, 0);
        }),
    ];
    for (what, chain) in chains {
        let mut guest = blk(256);
        step(&guest);
        chain(&mut guest);
        for _ in 0..256 {
            guest.ring.publish(0);
        }
        let cost = step(&guest);
        assert!(cost <= chain_cost(LONGEST) + ROUND, "{what}: {cost}");
        // Told once, and idle from now on whatever rings.
        assert!(guest.status().bits() & 0x40 != 0, "{what}: DEVICE_NEEDS_RESET");
        for _ in 0..10 {
            guest.notify();
            guest.bench.memory.take_accesses();
            assert_eq!(guest.bench.executor.step(0), Progress::Idle, "{what}");
            assert_eq!(guest.bench.memory.take_accesses(), 0, "{what}");
        }
        guest.set_status(0);
        assert!(guest.bench.executor.run(4), "{what}: it cannot be stopped");
        assert!(guest.status().is_empty(), "{what}: no reset");
        guest.start();
        let read = guest.add(request::IN, 1, &[Buffer::writable(blk::DATA, 512)], false);
        assert!(guest.bench.executor.run(10));
        assert_eq!(guest.status_of(&read), status::OK, "{what}");
    }
}

// A guest that makes chains available as fast as they are taken: a unit of work ends all the same.
#[test]
fn a_driver_that_never_rests_does_not_keep_virtio_blk_in_one_unit_of_work() {
    use std::sync::atomic::{AtomicU16, Ordering};
    use vm_memory::{Bytes, GuestAddress};

    let mut guest = blk(256);
    step(&guest);
    let (header, answer, table) = guest.frame(request::FLUSH, 0);
    guest.ring.set_table(table, &[header, answer]);
    for head in 0..256 {
        guest.ring.set_descriptor(head, table, 32, DESC_F_INDIRECT, 0);
        guest.ring.publish(head);
    }
    // At each access of the device the driver makes everything available again that was given back.
    let (avail, used) = (guest.ring.avail_ring(), guest.ring.used_ring());
    let available = Arc::new(AtomicU16::new(256));
    let seen = available.clone();
    guest.bench.memory.set_hook(Some(Box::new(move |memory, _| {
        let done: u16 = memory.load(GuestAddress(used + 2), Ordering::SeqCst).expect("in memory");
        let next = done.wrapping_add(256);
        if seen.swap(next, Ordering::SeqCst) != next {
            memory.store(next, GuestAddress(avail + 2), Ordering::SeqCst).expect("in memory");
        }
    })));
    for _ in 0..20 {
        let before = guest.ring.used_idx();
        step(&guest);
        let taken = u64::from(guest.ring.used_idx().wrapping_sub(before));
        assert!((1..=BATCH).contains(&taken), "{taken}");
    }
    guest.bench.memory.set_hook(None);
}

/// The cost of one unit of work of the port.
fn port_step(guest: &Sata) -> u64 {
    guest.bench.memory.take_accesses();
    let _ = guest.bench.executor.step(0);
    guest.bench.memory.take_accesses()
}

/// PRD entries in flight above which a port takes no further command, and those of one command.
const MOST_ENTRIES: u64 = 8192;
const LONGEST_TABLE: u64 = 65_535;
/// A command's header, FIS, PRDBC and FIS in return, and what begins a chunk of its table.
const COMMAND: u64 = 6;

/// What `entries` PRD entries may cost: each resolved, and 32 fetched at a time.
fn table_cost(entries: u64) -> u64 {
    entries + entries.div_ceil(32)
}

#[test]
fn a_command_costs_ahci_few_accesses() {
    let mut guest = Sata::new(Arc::new(image()));
    port_step(&guest);
    for (code, queued) in [(command::READ_DMA_EXT, false), (command::READ_FPDMA_QUEUED, true)] {
        guest.prepare(0, &sectors(code, 0, 3, 1), &[Prd::new(data_at(0), 512)]);
        guest.issue(1, queued);
        let cost = port_step(&guest);
        assert!((5..=COMMAND).contains(&cost), "{code:#x}: {cost}");
        assert_eq!(guest.get(port::TFD), 0x50);
        // Nothing to do costs nothing.
        assert_eq!(port_step(&guest), 0);
    }
}

// The longest tables there are, in 32 commands at once, of entries that are as short as they can be:
// enough for their commands, one entry too few, and none of use at all.
#[test]
fn the_longest_tables_cost_ahci_a_bounded_number_of_accesses() {
    // All commands have the same table, and so of the queued ones the first alone has its own tag.
    let table = 0x10_0000;
    for (count, len, lowest) in [(256u16, 2, LONGEST_TABLE), (255, 2, 65_280), (1, 512, 1)] {
        for queued in [true, false] {
            let mut guest = Sata::new(Arc::new(image()));
            port_step(&guest);
            let entries = usize::try_from(LONGEST_TABLE).expect("small");
            let prds = vec![Prd::new(data_at(0), len); entries];
            let code = if queued { command::WRITE_FPDMA_QUEUED } else { command::WRITE_DMA_EXT };
            for slot in 0..32 {
                guest.prepare_at(table, slot, &sectors(code, 0, 0, count), &[]);
                let header = 5u32 | (0xffff << 16);
                guest.bench.poke(ahci::LIST + 32 * u64::from(slot), &header.to_le_bytes());
            }
            guest.bench.poke(table + PRD_TABLE, prds.as_bytes());
            guest.issue(u32::MAX, queued);
            let cost = port_step(&guest);
            let most = table_cost(MOST_ENTRIES - 1 + LONGEST_TABLE) + 32 * COMMAND;
            assert!((lowest..=most).contains(&cost), "{count} sectors, {cost}");
            for _ in 0..100 {
                assert!(port_step(&guest) <= most);
            }
        }
    }
}

// Queued commands are taken together, but no further one once those before it have many entries.
#[test]
fn queued_commands_together_cost_ahci_a_bounded_number_of_accesses() {
    let mut guest = Sata::new(Arc::new(image()));
    port_step(&guest);
    let code = command::READ_FPDMA_QUEUED;
    for (slot, table, entries, len) in
        [(0, 0x8_0000, 8191u32, 16), (1, 0x10_0000, 65_535, 2), (2, 0x21_0000, 65_535, 2)]
    {
        // 256 sectors, of which the last entry has what is left.
        let mut prds = vec![Prd::new(ahci::LIST + 0x2000, len); 65_535];
        let last = usize::try_from(entries - 1).expect("small");
        prds[last] = Prd::new(ahci::LIST + 0x2000, 2 * len);
        prds.truncate(last + 1);
        guest.prepare_at(table, slot, &sectors(code, slot, 0, 256), &prds);
    }
    guest.issue(0b111, true);
    let cost = port_step(&guest);
    assert_eq!((guest.get(port::CI), guest.get(port::SACT)), (0b100, 0b100));
    let both = MOST_ENTRIES - 1 + LONGEST_TABLE;
    assert!((both..=table_cost(both) + 3 * COMMAND).contains(&cost), "{cost}");
    let cost = port_step(&guest);
    assert_eq!((guest.get(port::CI), guest.get(port::SACT)), (0, 0));
    assert!((LONGEST_TABLE..=table_cost(LONGEST_TABLE) + COMMAND).contains(&cost), "{cost}");
}

// A list of ranges to trim is of one size, whatever table it comes in.
#[test]
fn a_list_of_ranges_costs_ahci_no_more_than_its_table() {
    let mut guest = Sata::new(Arc::new(image()));
    port_step(&guest);
    let mut fis = sectors(command::DATA_SET_MANAGEMENT, 0, 0, 8);
    fis.features = 1;
    let ranges: Vec<u8> = (0..512).flat_map(|_| (600u64 | (1 << 48)).to_le_bytes()).collect();
    assert_eq!(ranges.len(), 512 * dsm::ENTRY_LEN);
    guest.bench.poke(data_at(0), &ranges);
    let prds: Vec<_> = (0..2048).map(|index| Prd::new(data_at(0) + 2 * index, 2)).collect();
    guest.prepare_at(0x10_0000, 0, &fis, &prds);
    guest.issue(1, false);
    let mut cost = 0;
    for _ in 0..100 {
        cost += port_step(&guest);
    }
    assert_eq!((guest.get(port::CI), guest.get(port::TFD)), (0, 0x50));
    assert!((2048..=table_cost(2048) + COMMAND).contains(&cost), "{cost}");
}
