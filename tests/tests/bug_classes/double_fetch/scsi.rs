//! SCSI host adapters: descriptors, headers and lists that change once they were read.

use std::sync::Arc;

use paraslot_spec::scsi::opcode;

use super::{NEW, SPOILS, changed, spoil_what_is_read};
use crate::pvscsi::{self, PvHba};
use crate::scsi::{Command, DATA, Hba, LIST, PLACE_LEN, PLACES, Way, blocks, scatter, unmap_list};
use crate::support::{contents_of, image, image_byte};
use crate::virtio_scsi::{FRONT_LEN, REQUESTS, VirtioHba};

/// What the adapter reads of a command that is in the first place, but for indices and flags.
trait Fields: Hba {
    fn fields(&mut self, pieces: u64) -> Vec<std::ops::Range<u64>>;
}

impl Fields for VirtioHba {
    fn fields(&mut self, pieces: u64) -> Vec<std::ops::Range<u64>> {
        let ring = self.ring_of(REQUESTS);
        let avail = ring.avail_ring() + 4;
        vec![
            ring.descriptor_table()..ring.avail_ring(),
            avail..avail + 2 * u64::from(ring.size()),
            PLACES..PLACES + u64::from(FRONT_LEN),
            PLACES + LIST..PLACES + LIST + 16 * (pieces + 2),
        ]
    }
}

impl Fields for PvHba {
    fn fields(&mut self, _pieces: u64) -> Vec<std::ops::Range<u64>> {
        vec![pvscsi::REQUESTS..pvscsi::REQUESTS + 4096, PLACES + LIST..PLACES + PLACE_LEN]
    }
}

fn reads_once<A: Fields>() {
    let whole = |code, count| blocks(code, 5, count);
    let mut unmap = [0; 16];
    (unmap[0], unmap[8]) = (opcode::UNMAP, 40);
    let commands = [
        (whole(opcode::READ_10, 2), Way::In, 1024),
        (whole(opcode::READ_16, 2), Way::In, 1024),
        (whole(opcode::WRITE_10, 2), Way::Out, 1024),
        (whole(opcode::WRITE_16, 2), Way::Out, 1024),
        (whole(opcode::WRITE_SAME_16, 2), Way::Out, 512),
        (unmap, Way::Out, 40),
        (whole(opcode::SYNCHRONIZE_CACHE_10, 0), Way::None, 0),
    ];
    for (cdb, way, len) in commands {
        for spoil in SPOILS {
            for pieces in [1, 3, 16, 17, 20u64] {
                let what = format!("{}, command {:#x}, {pieces} pieces", A::NAME, cdb[0]);
                let image = image();
                let mut guest = A::of(Arc::new(image.clone()));
                guest.hear();
                // Pieces of the same length, the last with what is left.
                let each = len / pieces;
                let mut data: Vec<(u64, u32)> = (0..pieces)
                    .map(|index| {
                        let last = index + 1 == pieces;
                        let len = if last { len - each * index } else { each };
                        (DATA + index * each, u32::try_from(len).expect("small"))
                    })
                    .collect();
                if len == 0 {
                    data.clear();
                }
                guest.bench().poke(DATA, &[NEW; 1024]);
                if cdb[0] == opcode::UNMAP {
                    scatter(guest.bench(), &data, &unmap_list(&[(5, 1), (6, 1)]));
                }
                let pending = guest.put(&Command::new(cdb, way, &data));
                let fields = guest.fields(pieces);
                let twice = spoil_what_is_read(guest.bench(), fields, spoil);
                guest.kick();
                guest.run();
                guest.bench().memory.set_hook(None);
                let twice = twice.lock().expect("no panic").clone();
                assert!(twice.is_empty(), "{what}: read again: {twice:x?}");
                let done = guest.take().expect("an answer");
                assert_eq!((done.tag, done.is_good()), (pending.tag, true), "{what}: {done:?}");
                assert_eq!(done.moved, if len == 0 { 0 } else { len }, "{what}");
                let expected = match cdb[0] {
                    opcode::WRITE_10 | opcode::WRITE_16 | opcode::WRITE_SAME_16 => {
                        changed(&[(5, 7)], NEW)
                    }
                    opcode::UNMAP => changed(&[(5, 7)], 0),
                    _ => changed(&[], 0),
                };
                assert!(contents_of(&image) == expected, "{what}: something else was changed");
                if way == Way::In {
                    let mut bytes = [0; 1024];
                    guest.bench().peek(DATA, &mut bytes);
                    let right = (5 * 512..).zip(bytes).all(|(at, byte)| byte == image_byte(at));
                    assert!(right, "{what}");
                }
            }
        }
    }
}

#[test]
fn virtio_scsi_reads_every_field_of_a_command_once() {
    reads_once::<VirtioHba>();
}

#[test]
fn pvscsi_reads_every_field_of_a_command_once() {
    reads_once::<PvHba>();
}
