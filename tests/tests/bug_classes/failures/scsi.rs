//! Backends that fail: each command that needed one is told so, by sense data that says why, and the
//! next one is well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use paraslot_backends::block::testing::FaultBackend;
use paraslot_backends::block::{BlockError, BlockOp, MemoryBackend, MemoryOptions};
use paraslot_spec::scsi::sense::key;
use paraslot_spec::scsi::{opcode, status};

use crate::pvscsi::PvHba;
use crate::scsi::{Command, DATA, Hba, Way, blocks, scatter, unmap_list};
use crate::support::CONTENTS;
use crate::virtio_scsi::VirtioHba;

/// What goes wrong.
const FAULTS: usize = 6;

fn fault(kind: usize, op: &BlockOp) -> BlockError {
    match kind {
        0 => BlockError::Io(io::Error::from_raw_os_error(5)),
        1 => BlockError::OutOfRange,
        2 if *op != BlockOp::Read => BlockError::ReadOnly,
        3 => BlockError::Unsupported,
        4 => BlockError::NoSpace,
        5 => BlockError::Cancelled,
        _ => BlockError::Io(io::ErrorKind::TimedOut.into()),
    }
}

/// As usual, with a cache to be flushed.
fn image() -> MemoryBackend {
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    MemoryBackend::from_contents(&CONTENTS, options).expect("memory")
}

/// Commands of one operation and of several, all of which need the backend.
fn commands(guest: &mut impl Hba) -> Vec<Command> {
    let data = [(DATA, 1024)];
    let of = |code, count, way| Command::new(blocks(code, 600, count), way, &data);
    let mut verify = of(opcode::VERIFY_10, 2, Way::Out);
    verify.cdb[1] = 2;
    let mut swap = of(opcode::COMPARE_AND_WRITE, 0, Way::Out);
    swap.cdb[13] = 1;
    let mut same = of(opcode::WRITE_SAME_16, 2, Way::Out);
    same.data = vec![(DATA, 512)];
    let list = [(DATA + 0x1000, 24)];
    scatter(guest.bench(), &list, &unmap_list(&[(600, 2)]));
    let mut unmap = Command::new([0; 16], Way::Out, &list);
    (unmap.cdb[0], unmap.cdb[8]) = (opcode::UNMAP, 24);
    vec![
        of(opcode::READ_10, 2, Way::In),
        of(opcode::READ_16, 2, Way::In),
        of(opcode::WRITE_16, 2, Way::Out),
        Command::new(blocks(opcode::SYNCHRONIZE_CACHE_10, 0, 0), Way::None, &[]),
        verify,
        swap,
        same,
        unmap,
    ]
}

fn faults<A: Hba>() {
    let count = commands(&mut A::of(Arc::new(image()))).len();
    for kind in 0..=FAULTS {
        for number in 0..count {
            // Failing once, in the command that is being tried.
            let armed = Arc::new(AtomicUsize::new(0));
            let trigger = armed.clone();
            let backend = FaultBackend::new(image(), move |_, request| {
                let now = trigger.load(Ordering::SeqCst) == 1;
                now.then(|| {
                    trigger.store(2, Ordering::SeqCst);
                    fault(kind, &request.op)
                })
            });
            let mut guest = A::of(Arc::new(backend));
            guest.hear();
            let command = commands(&mut guest).swap_remove(number);
            let what = format!("{}, {kind}, {:#x}", A::NAME, command.cdb[0]);
            armed.store(1, Ordering::SeqCst);
            let done = guest.carry_out(&command);
            assert_eq!(armed.load(Ordering::SeqCst), 2, "{what}: the backend was not asked");
            assert_eq!(done.status, Ok(status::CHECK_CONDITION), "{what}");
            // Of blocks nobody knows how many were moved; a list, or the one block, was taken before.
            let first = [opcode::WRITE_SAME_16, opcode::UNMAP].contains(&command.cdb[0]);
            assert_eq!(done.moved, if first { command.len() } else { 0 }, "{what}");
            let found = done.key().expect("sense data");
            assert!(![key::NO_SENSE, key::RECOVERED_ERROR].contains(&found), "{what}: {found:#x}");
            guest.works();
            // All of it goes well then, unless the cache is lost for good.
            if command.cdb[0] != opcode::SYNCHRONIZE_CACHE_10 {
                let again = guest.carry_out(&command);
                let fine = [Ok(status::GOOD), Ok(status::CHECK_CONDITION)];
                assert!(fine.contains(&again.status), "{what}: {again:?}");
                assert!(again.is_good() || again.key() == Some(key::MISCOMPARE), "{what}");
            }
        }
    }
}

#[test]
fn virtio_scsi_tells_of_what_its_backend_does_not_do() {
    faults::<VirtioHba>();
}

#[test]
fn pvscsi_tells_of_what_its_backend_does_not_do() {
    faults::<PvHba>();
}
