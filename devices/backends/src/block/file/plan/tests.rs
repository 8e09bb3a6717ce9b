//! Plans against a kernel that answers as the test wants.

use super::*;
use crate::block::testing::{GuestPages, plain};

fn image(writethrough: bool, buffer_alignment: usize) -> Image {
    let mut image = Image::of(tempfile::tempfile().unwrap(), 1 << 30);
    image.writethrough = writethrough;
    image.buffer_alignment = buffer_alignment;
    image
}

fn errno(code: i32) -> io::Result<u64> {
    Err(io::Error::from_raw_os_error(code))
}

/// Runs a request; `kernel` is given each step and the bytes that it covers. Returns the steps, too.
fn run(
    image: &Image,
    request: BlockRequest,
    mut kernel: impl FnMut(&Step, u64) -> io::Result<u64>,
) -> (Vec<String>, Result<(), BlockError>) {
    let mut work = Workspace::default();
    let mut plan = Plan::new(request, image);
    let mut steps = Vec::new();
    loop {
        assert!(steps.len() < 1000, "an endless operation");
        let step = plan.step(image, &mut work);
        if let Step::Done(result) = step {
            return (steps, result);
        }
        steps.push(format!("{step:?}"));
        let bytes = work.iov.as_slice().iter().map(|iov| iov.iov_len as u64).sum();
        let result = kernel(&step, bytes);
        plan.result(image, &work, result);
    }
}

fn whole(_: &Step, bytes: u64) -> io::Result<u64> {
    Ok(bytes)
}

fn flush() -> BlockRequest {
    plain(9, BlockOp::Flush, 0, 0)
}

#[test]
fn short_transfers_are_carried_on() {
    let guest = GuestPages::new(1 << 16);
    let image = image(false, 0);
    let segments = [(0x100, 700), (0x1000, 300), (0x2000, 536)];
    let mut counts = [512, 300, 1, 700].into_iter();
    let (steps, result) = run(&image, guest.read_request(1, 4096, &segments), |step, bytes| {
        assert!(matches!(step, Step::Read { .. }));
        Ok(counts.next().unwrap_or(bytes).min(bytes))
    });
    assert!(result.is_ok());
    let expected = [4096, 4608, 4908, 4909, 5609].map(|at| format!("Read {{ at: {at} }}"));
    assert_eq!(steps, expected);
}

#[test]
fn more_buffers_than_one_call_takes_are_split() {
    let guest = GuestPages::new(1 << 16);
    let segments: Vec<(u64, usize)> = (0..2560).map(|index| (index * 4, 2)).collect();
    let (steps, result) = run(&image(false, 0), guest.write_request(1, 0, &segments), whole);
    assert!(result.is_ok());
    let expected = [0, 2048, 4096].map(|at| format!("Write {{ at: {at}, durable: false }}"));
    assert_eq!(steps, expected);
}

#[test]
fn lists_that_are_not_aligned_go_through_a_buffer_of_bounded_size() {
    let guest = GuestPages::new(1 << 20);
    let image = image(false, 512);
    let mut largest = 0;
    let request = guest.read_request(1, 0, &[(0x101, 300 << 10)]);
    let (steps, result) = run(&image, request, |_, bytes| {
        largest = largest.max(bytes);
        Ok(bytes)
    });
    assert!(result.is_ok());
    assert_eq!((steps.len(), largest), (3, BOUNCE as u64));
    let (steps, _) = run(&image, guest.read_request(1, 0, &[(0x200, 300 << 10)]), whole);
    assert_eq!(steps.len(), 1);
}

#[test]
fn interruptions_are_retried_but_not_for_ever() {
    let guest = GuestPages::new(1 << 16);
    let image = image(false, 0);
    for code in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
        let mut left = 3;
        let (steps, result) = run(&image, guest.write_request(1, 0, &[(0, 512)]), |_, bytes| {
            left -= 1;
            if left == 0 { Ok(bytes) } else { errno(code) }
        });
        assert!(result.is_ok() && steps.len() == 3);
        let (steps, result) = run(&image, flush(), |_, _| errno(code));
        assert!(result.is_err() && steps.len() > 3);
        image.lost.store(false, Relaxed);
    }
}

#[test]
fn an_image_that_ends_early_is_an_error() {
    let guest = GuestPages::new(1 << 16);
    let image = image(false, 0);
    for request in [
        guest.read_request(1, 0, &[(0, 1024)]),
        guest.write_request(1, 0, &[(0, 1024)]),
        plain(1, BlockOp::SecureErase, 0, 1024),
    ] {
        let mut left = 2;
        let (_, result) = run(&image, request, |_, _| {
            left -= 1;
            Ok(if left == 0 { 0 } else { 512 })
        });
        assert!(matches!(result, Err(BlockError::Io(_))));
    }
}

// EIO, ENOSPC: no flush succeeds after a lost write, whoever was told of the loss.
#[test]
fn a_loss_is_never_forgotten() {
    let guest = GuestPages::new(1 << 16);
    let fua = || {
        let mut request = guest.write_request(1, 0, &[(0, 512)]);
        request.op = BlockOp::Write { fua: true };
        request
    };
    for code in [libc::EIO, libc::ENOSPC, libc::EDQUOT] {
        for request in [flush(), fua()] {
            let image = image(false, 0);
            assert!(run(&image, request, |_, _| errno(code)).1.is_err());
            for _ in 0..3 {
                assert!(run(&image, flush(), whole).1.is_err());
            }
            // A loss does not keep anyone from writing, or from reading what is there.
            assert!(run(&image, fua(), whole).1.is_ok());
            assert!(run(&image, guest.read_request(1, 0, &[(0, 512)]), whole).1.is_ok());
        }
        // One that was written through the cache was not lost, but refused, and its owner told.
        let image = image(false, 0);
        let request = guest.write_request(1, 0, &[(0, 512)]);
        let result = run(&image, request, |_, _| errno(code)).1;
        assert_eq!(matches!(result, Err(BlockError::NoSpace)), code != libc::EIO);
        assert!(run(&image, flush(), whole).1.is_ok());
    }
    // A loss that became known while a flush was at it.
    let image = image(false, 0);
    let (_, result) = run(&image, flush(), |_, _| {
        image.lost.store(true, Relaxed);
        Ok(0)
    });
    assert!(result.is_err());
}

#[test]
fn writethrough_makes_everything_durable() {
    let guest = GuestPages::new(1 << 16);
    let image = image(true, 0);
    let (steps, _) = run(&image, guest.write_request(1, 0, &[(0, 512)]), whole);
    assert_eq!(steps, ["Write { at: 0, durable: true }"]);
    for unmap in [false, true] {
        let (steps, _) = run(&image, plain(1, BlockOp::WriteZeroes { unmap }, 0, 512), whole);
        assert!(steps.len() == 2 && steps[0].starts_with("Fallocate") && steps[1] == "Sync");
    }
    let (steps, _) = run(&image, plain(1, BlockOp::Discard, 0, 512), whole);
    assert_eq!(steps.len(), 1);
}

#[test]
fn what_cannot_be_deallocated_is_written() {
    let zeroes = |unmap| plain(1, BlockOp::WriteZeroes { unmap }, 512, 3 << 20);
    let written =
        ["512", "1049088", "2097664"].map(|at| format!("Write {{ at: {at}, durable: false }}"));
    for (code, remembered) in [(libc::EOPNOTSUPP, true), (libc::EINVAL, false)] {
        let image = image(false, 0);
        let mut refuse = |step: &Step, bytes: u64| match step {
            Step::Fallocate { .. } => errno(code),
            _ => Ok(bytes),
        };
        let (steps, result) = run(&image, zeroes(true), &mut refuse);
        assert!(result.is_ok());
        // Punching, then zeroing, then writing 1 MiB at a time.
        assert_eq!(steps[2..], written);
        let (steps, result) = run(&image, plain(1, BlockOp::Discard, 0, 512), &mut refuse);
        assert!(result.is_ok());
        assert_eq!(steps.len(), if remembered { 0 } else { 1 });
        let (steps, _) = run(&image, zeroes(false), &mut refuse);
        assert_eq!(steps.len(), if remembered { 3 } else { 4 });
    }
    // Anything else is an error, and no reason to write.
    let (steps, result) = run(&image(false, 0), zeroes(true), |_, _| errno(libc::EIO));
    assert!(result.is_err() && steps.len() == 1);
}

#[test]
fn a_secure_erase_is_overwritten_and_brought_to_the_medium() {
    let image = image(false, 0);
    let (steps, result) = run(&image, plain(1, BlockOp::SecureErase, 0, 2 << 20), whole);
    assert!(result.is_ok());
    let expected =
        ["Write { at: 0, durable: false }", "Write { at: 1048576, durable: false }", "Sync"];
    assert_eq!(steps, expected);
    let (_, result) = run(&image, plain(1, BlockOp::SecureErase, 0, 512), |step, bytes| {
        if matches!(step, Step::Sync) { errno(libc::EIO) } else { Ok(bytes) }
    });
    assert!(result.is_err());
}

// Whatever it is in the middle of, it ends where it is; the failure of the call that was interrupted
// is not the failure of a flush.
#[test]
fn a_cancelled_operation_makes_no_further_step() {
    let guest = GuestPages::new(1 << 16);
    for writethrough in [false, true] {
        let image = image(writethrough, 0);
        let requests = || {
            let mut forced = guest.write_request(2, 0, &[(0, 4096)]);
            forced.op = BlockOp::Write { fua: true };
            [
                guest.read_request(1, 0, &[(0, 4096)]),
                forced,
                flush(),
                plain(3, BlockOp::Discard, 0, 4096),
                plain(4, BlockOp::WriteZeroes { unmap: false }, 0, 4096),
                plain(5, BlockOp::SecureErase, 0, 4096),
            ]
        };
        // Before its first call.
        for request in requests() {
            let (mut work, op) = (Workspace::default(), request.op);
            let mut plan = Plan::new(request, &image);
            plan.cancel();
            let step = plan.step(&image, &mut work);
            assert!(matches!(step, Step::Done(Err(BlockError::Cancelled))), "{op:?}: {step:?}");
        }
        // In its first call, which the kernel interrupts, often as it may have been before.
        for code in [libc::EINTR, libc::EAGAIN, libc::ECANCELED] {
            for request in requests() {
                let (mut work, op) = (Workspace::default(), request.op);
                let mut plan = Plan::new(request, &image);
                for _ in 0..RETRIES {
                    assert!(!matches!(plan.step(&image, &mut work), Step::Done(_)));
                    plan.result(&image, &work, errno(code));
                }
                plan.step(&image, &mut work);
                plan.cancel();
                plan.result(&image, &work, errno(code));
                let step = plan.step(&image, &mut work);
                assert!(matches!(step, Step::Done(Err(BlockError::Cancelled))), "{op:?}: {step:?}");
                assert!(!image.lost.load(Relaxed), "{op:?}");
            }
        }
    }
}

#[test]
fn a_cancellation_that_is_late_changes_nothing() {
    let image = image(false, 0);
    for (result, fails) in [(Ok(0), false), (errno(libc::EIO), true)] {
        let mut work = Workspace::default();
        let mut plan = Plan::new(flush(), &image);
        plan.step(&image, &mut work);
        plan.result(&image, &work, result);
        plan.cancel();
        match plan.step(&image, &mut work) {
            Step::Done(Ok(())) => assert!(!fails),
            Step::Done(Err(BlockError::Io(_))) => assert!(fails),
            step => panic!("{step:?}"),
        }
    }
    assert!(image.lost.load(Relaxed), "a flush that failed is not forgotten");
    let mut refused = Plan::new(plain(1, BlockOp::Discard, 1 << 30, 512), &image);
    refused.cancel();
    let step = refused.step(&image, &mut Workspace::default());
    assert!(matches!(step, Step::Done(Err(BlockError::OutOfRange))), "{step:?}");
}

// CH 7e2e7a164 and its kin: what an interrupted read may have written is noted for migration.
#[test]
fn a_cancelled_read_has_perhaps_written() {
    for cancelled_first in [true, false] {
        let guest = GuestPages::new(1 << 16);
        let (image, mut work) = (image(false, 0), Workspace::default());
        let read = guest.read_request(1, 0, &[(0x1000, 4096), (0x3000, 4096)]);
        let mut plan = Plan::new(read, &image);
        plan.step(&image, &mut work);
        plan.result(&image, &work, Ok(4096));
        plan.step(&image, &mut work);
        assert_eq!([0x1000, 0x3000].map(|page| guest.is_dirty(page)), [true, false]);
        if cancelled_first {
            plan.cancel();
        }
        plan.result(&image, &work, errno(libc::EINTR));
        plan.cancel();
        let step = plan.step(&image, &mut work);
        assert!(matches!(step, Step::Done(Err(BlockError::Cancelled))), "{step:?}");
        assert_eq!([0x1000, 0x3000].map(|page| guest.is_dirty(page)), [true, true]);
    }
}
