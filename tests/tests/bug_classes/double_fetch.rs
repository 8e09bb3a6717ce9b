//! Guest memory that changes under the device's hands: every field that it has read is overwritten
//! before its next access. A device that reads each field once notices nothing.
//!
//! FreeBSD-SA-24:17 (a length checked, and read again for use), Cloud Hypervisor 929df76e1 (a header
//! left where the guest can change it after it was checked).

mod nic;
mod scsi;
mod vmxnet3;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use paraslot_spec::ahci::{PRD_TABLE, Prd, port};
use paraslot_spec::ata::{command, dsm};
use paraslot_spec::virtio_blk::{RangeSegment, request, status};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::Buffer;
use vm_memory::{Bytes, GuestAddress, Permissions};
use zerocopy::IntoBytes;

use crate::ahci::{DATA, LIST, Sata, TABLES, data_at, sectors, table_at};
use crate::blk::{self, Blk};
use crate::support::{CONTENTS, contents_of, image, image_byte};

/// How a field that was read is changed.
type Spoil = fn(u8) -> u8;

const SPOILS: [Spoil; 4] = [|_| 0, |_| 0xff, |byte| byte ^ 0xff, |byte| byte.wrapping_add(1)];

/// Reads of the same byte of `fields`, as (address, length) of the later one.
type Twice = Arc<Mutex<Vec<(u64, usize)>>>;

/// From here on what the device reads of `fields` is spoiled before its next access.
fn spoil_what_is_read(bench: &Bench, fields: Vec<Range<u64>>, spoil: Spoil) -> Twice {
    let twice = Twice::default();
    let seen = twice.clone();
    let mut done: Vec<Range<u64>> = Vec::new();
    let mut fresh: Vec<Range<u64>> = Vec::new();
    bench.memory.set_hook(Some(Box::new(move |memory, access| {
        for range in fresh.drain(..) {
            for address in range.clone() {
                let byte: u8 = memory.read_obj(GuestAddress(address)).expect("it was read");
                memory.write_obj(spoil(byte), GuestAddress(address)).expect("it was read");
            }
            done.push(range);
        }
        if access.permissions != Permissions::Read {
            return;
        }
        let (start, end) = (access.address, access.address + access.len as u64);
        for field in &fields {
            let range = field.start.max(start)..field.end.min(end);
            if range.is_empty() {
                continue;
            }
            if done.iter().any(|done| done.start < range.end && range.start < done.end) {
                seen.lock().expect("no panic").push((access.address, access.len));
            }
            fresh.push(range);
        }
    })));
    twice
}

/// Everything of a request but its data, in all the forms that it may have.
fn chains(guest: &mut Blk, kind: u32, sector: u64, data: &[Buffer], cut: bool) -> Vec<Buffer> {
    let (header, status, _) = guest.frame(kind, sector);
    let mut chain = Vec::new();
    let pieces: &[(u64, u32)] = if cut { &[(0, 3), (3, 9), (12, 4)] } else { &[(0, 16)] };
    chain.extend(pieces.iter().map(|(at, len)| Buffer::readable(header.address + at, *len)));
    chain.extend_from_slice(data);
    chain.push(status);
    chain
}

/// What the image should hold where it was changed to `value` in these sectors: from, to.
fn changed(sectors: &[(usize, usize)], value: u8) -> Vec<u8> {
    let mut bytes = CONTENTS.clone();
    for (from, to) in sectors {
        bytes[from * 512..to * 512].fill(value);
    }
    bytes
}

/// What is written to the image.
const NEW: u8 = 0xc7;

/// One request on memory that is spoiled: how it ended, as the status, what was claimed, the data and
/// the image.
fn blk_request(
    kind: u32,
    data: &[Buffer],
    cut: bool,
    indirect: bool,
    spoil: Spoil,
) -> (u8, u32, Vec<u8>, Vec<u8>) {
    let image = image();
    let mut guest = Blk::small(Arc::new(image.clone()));
    guest.bench.poke(blk::DATA, &[NEW; 1024]);
    if !matches!(kind, request::IN | request::OUT) {
        for (index, sector) in [700u64, 800].into_iter().enumerate() {
            let range = RangeSegment {
                sector: sector.into(),
                num_sectors: 2.into(),
                ..RangeSegment::default()
            };
            guest.bench.poke(blk::DATA + 16 * index as u64, range.as_bytes());
        }
    }
    let table = blk::DATA - 0x1000;
    let chain = chains(&mut guest, kind, 5, data, cut);
    let head =
        if indirect { guest.ring.add_indirect(table, &chain) } else { guest.ring.add(&chain) };
    // All that the device reads, but for the flags and indices of the rings and what it stores.
    let ring = &guest.ring;
    let mut fields = vec![
        ring.descriptor_table()..ring.avail_ring(),
        ring.avail_ring() + 4..ring.avail_ring() + 4 + 2 * u64::from(ring.size()),
        table..table + 16 * chain.len() as u64,
    ];
    let stored = |buffer: &Buffer| kind == request::OUT && buffer.address >= blk::DATA;
    fields.extend(
        chain
            .iter()
            .filter(|buffer| !buffer.writable && !stored(buffer))
            .map(|buffer| buffer.address..buffer.address + u64::from(buffer.len)),
    );
    let twice = spoil_what_is_read(&guest.bench, fields, spoil);
    guest.notify();
    assert!(guest.bench.executor.run(100));
    guest.bench.memory.set_hook(None);
    let twice = twice.lock().expect("no panic").clone();
    assert!(twice.is_empty(), "kind {kind}, cut {cut}, indirect {indirect}: {twice:x?}");
    let (used, written) = guest.used().expect("answered");
    assert_eq!(used, head);
    let place = chain.last().expect("a status").address;
    let (mut answer, mut bytes) = ([0], vec![0; 1024]);
    guest.bench.peek(place, &mut answer);
    guest.bench.peek(blk::DATA, &mut bytes);
    (answer[0], written, bytes, contents_of(&image))
}

#[test]
fn virtio_blk_reads_every_field_of_a_request_once() {
    let reads = [Buffer::writable(blk::DATA, 512), Buffer::writable(blk::DATA + 512, 512)];
    let writes = reads.map(|buffer| Buffer { writable: false, ..buffer });
    let whole = [Buffer::readable(blk::DATA, 32)];
    let pieces =
        [(0, 5), (5, 7), (12, 11), (23, 9)].map(|(at, len)| Buffer::readable(blk::DATA + at, len));
    let cases: [(u32, &[Buffer], u32); 9] = [
        (request::IN, &reads, 1025),
        (request::OUT, &writes, 1),
        (request::FLUSH, &[], 1),
        (request::GET_ID, &reads, 20),
        (request::DISCARD, &whole, 1),
        (request::DISCARD, &pieces, 1),
        (request::WRITE_ZEROES, &whole, 1),
        (request::WRITE_ZEROES, &pieces, 1),
        (request::SECURE_ERASE, &pieces, 1),
    ];
    for (kind, data, claimed) in cases {
        for spoil in SPOILS {
            for (cut, indirect) in [(false, false), (true, false), (false, true), (true, true)] {
                let (answer, written, bytes, image) = blk_request(kind, data, cut, indirect, spoil);
                assert_eq!((answer, written), (status::OK, claimed), "kind {kind}");
                let expected = match kind {
                    request::IN | request::FLUSH | request::GET_ID => changed(&[], 0),
                    request::OUT => changed(&[(5, 7)], NEW),
                    _ => changed(&[(700, 702), (800, 802)], 0),
                };
                assert!(image == expected, "kind {kind}: something else was changed");
                if kind == request::IN {
                    assert!((5 * 512..).zip(&bytes).all(|(at, byte)| image_byte(at) == *byte));
                }
            }
        }
    }
}

/// A command on memory that is spoiled, in slot 3.
fn ahci_command(code: u8, features: u8, pieces: u32, spoil: Spoil) -> Sata {
    const SLOT: u32 = 3;
    let queued = crate::ahci::is_queued(code);
    let image = image();
    let mut guest = Sata::new(Arc::new(image.clone()));
    guest.bench.poke(data_at(SLOT), &[NEW; 512 * 40]);
    let bytes = 512 * 40;
    let count = match code {
        command::IDENTIFY_DEVICE => 0,
        command::DATA_SET_MANAGEMENT | command::READ_LOG_EXT => 1,
        _ => 40,
    };
    let needed = if count == 40 { bytes } else { 512 };
    let lba = if code == command::READ_LOG_EXT { 0x30 } else { 5 };
    let mut fis = sectors(code, SLOT, lba, count);
    if !queued {
        fis.features = features;
    }
    let piece = needed / pieces;
    let prds: Vec<_> = (0..pieces)
        .map(|index| {
            let last = index + 1 == pieces;
            let len = if last { needed - piece * (pieces - 1) } else { piece };
            Prd::new(data_at(SLOT) + u64::from(index * piece), len)
        })
        .collect();
    let entry = 600u64 | (8 << 48);
    if code == command::DATA_SET_MANAGEMENT {
        let mut ranges = vec![0; 512];
        ranges[..dsm::ENTRY_LEN].copy_from_slice(&entry.to_le_bytes());
        guest.bench.poke(data_at(SLOT), &ranges);
    }
    guest.prepare(SLOT, &fis, &prds);
    let mut fields =
        vec![LIST..LIST + 1024, TABLES..table_at(SLOT) + PRD_TABLE + 16 * u64::from(pieces)];
    // With several pieces the first is looked up, though not read, before the last.
    if code == command::DATA_SET_MANAGEMENT && pieces == 1 {
        fields.push(DATA..data_at(SLOT) + 512);
    }
    let twice = spoil_what_is_read(&guest.bench, fields, spoil);
    guest.issue(1 << SLOT, queued);
    guest.run();
    guest.bench.memory.set_hook(None);
    let twice = twice.lock().expect("no panic").clone();
    assert!(twice.is_empty(), "command {code:#x}: {twice:x?}");
    assert_eq!((guest.get(port::CI), guest.get(port::SACT)), (0, 0), "command {code:#x}");
    assert_eq!(guest.get(port::TFD), 0x50, "command {code:#x}");
    let expected = match code {
        command::WRITE_DMA_EXT | command::WRITE_FPDMA_QUEUED => changed(&[(5, 45)], NEW),
        command::DATA_SET_MANAGEMENT => changed(&[(600, 608)], 0),
        _ => changed(&[], 0),
    };
    assert!(contents_of(&image) == expected, "command {code:#x}: something else was changed");
    guest
}

#[test]
fn ahci_reads_every_field_of_a_command_once() {
    for spoil in SPOILS {
        for pieces in [1, 3, 32, 33, 80] {
            for code in [
                command::READ_DMA_EXT,
                command::READ_FPDMA_QUEUED,
                command::READ_SECTORS_EXT,
                command::WRITE_DMA_EXT,
                command::WRITE_FPDMA_QUEUED,
            ] {
                let guest = ahci_command(code, 0, pieces, spoil);
                if !matches!(code, command::WRITE_DMA_EXT | command::WRITE_FPDMA_QUEUED) {
                    let mut data = vec![0; 512 * 40];
                    guest.bench.peek(data_at(3), &mut data);
                    assert!((5 * 512..).zip(&data).all(|(at, byte)| image_byte(at) == *byte));
                }
            }
        }
        for pieces in [1, 4] {
            ahci_command(command::IDENTIFY_DEVICE, 0, pieces, spoil);
            ahci_command(command::READ_LOG_EXT, 0, pieces, spoil);
            ahci_command(command::DATA_SET_MANAGEMENT, 1, pieces, spoil);
        }
    }
}
