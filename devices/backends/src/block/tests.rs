//! Tests of the backends without files, and of the test backends.

use super::testing::{
    FaultBackend, GatedBackend, GuestPages, RecordingBackend, conformance, finish,
};
use super::*;

const MIB: u64 = 1 << 20;

fn memory() -> MemoryBackend {
    MemoryBackend::new(2 * MIB, MemoryOptions::default()).unwrap()
}

fn flush(token: u64) -> BlockRequest {
    testing::plain(token, BlockOp::Flush, 0, 0)
}

#[test]
fn memory_conforms() {
    conformance(&memory(), true);
    let options = MemoryOptions { logical_block: 4096, ..MemoryOptions::default() };
    conformance(&MemoryBackend::new(MIB, options).unwrap(), true);
}

#[test]
fn null_conforms() {
    conformance(&NullBackend::new(MIB, NullOptions::default()).unwrap(), false);
}

#[test]
fn null_reads_zeroes_or_nothing() {
    let guest = GuestPages::new(0x4000);
    for (read_zeroes, expected) in [(true, 0), (false, 7)] {
        let options = NullOptions { read_zeroes, ..NullOptions::default() };
        let backend = NullBackend::new(MIB, options).unwrap();
        let mut queue = backend.open_queue(1).unwrap();
        guest.write(0, &[7; 0x4000]);
        queue.submit(guest.read_request(1, 0, &[(0x10, 0x2000)])).unwrap();
        assert!(finish(&mut *queue).remove(0).result.is_ok());
        assert_eq!(guest.read(0x10, 0x2000), vec![expected; 0x2000]);
        assert_eq!(guest.read(0x2010, 1), [7]);
        assert_eq!(queue.copied_bytes(), if read_zeroes { 0x2000 } else { 0 });
    }
}

#[test]
fn null_can_be_resized() {
    let backend = NullBackend::new(MIB, NullOptions::default()).unwrap();
    assert!(backend.resize(MIB + 1).is_err());
    backend.resize(2 * MIB).unwrap();
    assert_eq!(backend.info().capacity, 2 * MIB);
}

#[test]
fn the_image_is_seen_from_both_sides() {
    let backend = MemoryBackend::from_contents(&[9; 1024], MemoryOptions::default()).unwrap();
    let guest = GuestPages::new(0x4000);
    let mut queue = backend.open_queue(2).unwrap();
    queue.submit(guest.read_request(1, 512, &[(0, 512)])).unwrap();
    finish(&mut *queue);
    assert_eq!(guest.read(0, 513), [[9; 512].as_slice(), &[0]].concat());
    guest.write(0, &[3; 512]);
    queue.submit(guest.write_request(1, 0, &[(0, 512)])).unwrap();
    finish(&mut *queue);
    let mut image = [0; 1024];
    backend.read_at(0, &mut image).unwrap();
    assert_eq!((image[511], image[512]), (3, 9));
    assert!(backend.read_at(1, &mut image).is_err());
    assert!(backend.write_at(u64::MAX, &[0]).is_err());
    assert_eq!(queue.copied_bytes(), 1024);
}

#[test]
fn a_read_only_image_is_only_read() {
    let options = MemoryOptions { read_only: true, ..MemoryOptions::default() };
    let backend = MemoryBackend::from_contents(&[9; 1024], options).unwrap();
    let guest = GuestPages::new(0x4000);
    let mut queue = backend.open_queue(8).unwrap();
    queue.submit(guest.write_request(0, 0, &[(0, 512)])).unwrap();
    queue.submit(testing::plain(1, BlockOp::Discard, 0, 512)).unwrap();
    queue.submit(testing::plain(2, BlockOp::WriteZeroes { unmap: true }, 0, 512)).unwrap();
    queue.submit(testing::plain(3, BlockOp::SecureErase, 0, 512)).unwrap();
    for completion in finish(&mut *queue) {
        assert!(matches!(completion.result, Err(BlockError::ReadOnly)));
    }
    queue.submit(guest.read_request(4, 0, &[(0, 512)])).unwrap();
    queue.submit(flush(5)).unwrap();
    assert!(finish(&mut *queue).iter().all(|completion| completion.result.is_ok()));
    assert_eq!(guest.read(0, 512), [9; 512]);
}

#[test]
fn geometry_is_checked() {
    for (capacity, logical_block) in
        [(0, 512), (511, 512), (513, 512), (4096, 256), (4096, 513), (1 << 20, 1 << 17)]
    {
        let options = MemoryOptions { logical_block, ..MemoryOptions::default() };
        assert!(MemoryBackend::new(capacity, options).is_err());
        let options = NullOptions { logical_block, ..NullOptions::default() };
        assert!(NullBackend::new(capacity, options).is_err());
    }
}

#[test]
fn a_gate_holds_back_and_releases_in_any_order() {
    let image = memory();
    let backend = GatedBackend::new(image.clone());
    let (gate, guest) = (backend.gate(), GuestPages::new(0x4000));
    let mut queue = backend.open_queue(3).unwrap();
    guest.write(0, &[5; 512]);
    for token in 0..3 {
        queue.submit(guest.write_request(token, token * 512, &[(0, 512)])).unwrap();
    }
    assert!(queue.submit(flush(9)).is_err());
    queue.commit();
    let mut completions = Vec::new();
    queue.complete(&mut completions);
    assert!(completions.is_empty());
    assert_eq!((gate.held(), queue.in_flight()), (3, 3));
    assert_eq!(gate.requests()[1], (1, BlockOp::Write { fua: false }, 512));

    gate.release_at(1);
    queue.complete(&mut completions);
    assert_eq!(completions.iter().map(|c| c.token).collect::<Vec<_>>(), [1]);
    let mut bytes = [0; 1536];
    image.read_at(0, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[512], bytes[1024]), (0, 5, 0));

    drop(queue);
    assert_eq!(gate.held(), 0);
    gate.open();
    conformance(&backend, true);
    image.read_at(0, &mut bytes).unwrap();
}

#[test]
fn a_gate_lets_go_of_what_is_cancelled_unless_it_is_deaf() {
    let image = memory();
    let backend = GatedBackend::new(image.clone());
    let (gate, guest) = (backend.gate(), GuestPages::new(0x4000));
    let mut queue = backend.open_queue(4).unwrap();
    let mut other = backend.open_queue(4).unwrap();
    guest.write(0, &[5; 512]);
    for token in 0..3 {
        queue.submit(guest.write_request(token, token * 512, &[(0, 512)])).unwrap();
    }
    other.submit(flush(1)).unwrap();
    gate.release(1);
    for token in 0..2 {
        queue.cancel(token);
    }
    assert_eq!((gate.held(), queue.in_flight()), (2, 3));
    let mut completions = Vec::new();
    queue.complete(&mut completions);
    completions.sort_by_key(|completion| completion.token);
    assert!(completions[0].result.is_ok(), "it had been let go");
    assert!(matches!(completions[1].result, Err(BlockError::Cancelled)));
    assert_eq!((completions.len(), queue.in_flight(), other.in_flight()), (2, 1, 1));
    let mut bytes = [0; 1024];
    image.read_at(0, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[512]), (5, 0));

    gate.deafen(true);
    queue.cancel(2);
    queue.complete(&mut completions);
    assert_eq!((completions.len(), gate.held()), (2, 2));
    gate.open();
    queue.complete(&mut completions);
    assert!(completions[2].result.is_ok());
    gate.close();
    gate.deafen(false);
    queue.submit(flush(7)).unwrap();
    queue.cancel(7);
    drop(queue);
    other.complete(&mut completions);
    assert_eq!(completions.len(), 4);
}

// What stands between a device and a backend knows the operation by another token.
#[test]
fn wrappers_pass_a_cancellation_on() {
    let gated = || GatedBackend::new(memory());
    let faults = gated();
    let recorded = gated();
    let shared = Arc::new(gated());
    let gates = [faults.gate(), recorded.gate(), shared.gate()];
    let backends: [Box<dyn BlockBackend>; 3] = [
        Box::new(FaultBackend::new(faults, |_, _| None)),
        Box::new(RecordingBackend::new(recorded)),
        Box::new(shared),
    ];
    for (backend, gate) in backends.into_iter().zip(gates) {
        let mut queue = backend.open_queue(4).unwrap();
        for token in [30, 20, 10] {
            queue.submit(flush(token)).unwrap();
        }
        queue.commit();
        queue.cancel(1);
        assert_eq!(gate.held(), 3);
        queue.cancel(20);
        assert_eq!(gate.held(), 2);
        let mut completions = Vec::new();
        queue.complete(&mut completions);
        assert_eq!((completions.len(), completions[0].token), (1, 20));
        assert!(matches!(completions[0].result, Err(BlockError::Cancelled)));
        gate.open();
        assert!(finish(&mut *queue).iter().all(|completion| completion.result.is_ok()));
    }
}

#[test]
fn a_fault_hits_the_chosen_operation_and_is_not_forgotten_by_flushes() {
    let image = memory();
    let backend = FaultBackend::nth(image.clone(), 1, libc::ENOSPC);
    let guest = GuestPages::new(0x4000);
    guest.write(0, &[5; 512]);
    let mut queue = backend.open_queue(8).unwrap();
    for token in 0..3 {
        queue.submit(guest.write_request(token, token * 512, &[(0, 512)])).unwrap();
    }
    let completions = finish(&mut *queue);
    assert_eq!(completions.iter().map(|c| c.token).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(completions[0].result.is_ok() && completions[2].result.is_ok());
    assert!(matches!(completions[1].result, Err(BlockError::NoSpace)));
    let mut bytes = [0; 1536];
    image.read_at(0, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[512], bytes[1024]), (5, 0, 5));
    assert_eq!(backend.count(), 3);

    let backend = FaultBackend::nth(image, 0, libc::EIO);
    let mut queue = backend.open_queue(8).unwrap();
    for token in 0..3 {
        queue.submit(flush(token)).unwrap();
    }
    assert!(finish(&mut *queue).iter().all(|completion| completion.result.is_err()));
    conformance(&FaultBackend::new(memory(), |_, _| None), true);
}

#[test]
fn a_power_cut_takes_what_was_not_flushed() {
    let backend = RecordingBackend::new(memory());
    let (log, guest) = (backend.log(), GuestPages::new(0x4000));
    let mut queue = backend.open_queue(8).unwrap();
    let mut write = |token: u64, byte: u8, fua: bool| {
        guest.write(0, &[byte; 512]);
        let mut request = guest.write_request(token, token * 512, &[(0, 512)]);
        request.op = BlockOp::Write { fua };
        queue.submit(request).unwrap();
        finish(&mut *queue);
    };
    write(0, 1, false);
    write(1, 2, true);
    queue.submit(flush(9)).unwrap();
    finish(&mut *queue);
    let mut write = |token: u64, byte: u8| {
        guest.write(0, &[byte; 512]);
        queue.submit(guest.write_request(token, token * 512, &[(0, 512)])).unwrap();
        finish(&mut *queue);
    };
    write(2, 3);
    let first_bytes = |cut: usize, survives: bool| {
        let mut image = [0; 1536];
        log.after_power_cut(cut, &mut image, |_| survives);
        [image[0], image[512], image[1024]]
    };
    // Two events each: write, fua write, flush, write.
    assert_eq!(log.len(), 8);
    assert_eq!(first_bytes(2, false), [0, 0, 0]);
    assert_eq!(first_bytes(4, false), [0, 2, 0]);
    assert_eq!(first_bytes(5, false), [0, 2, 0]);
    assert_eq!(first_bytes(6, false), [1, 2, 0]);
    assert_eq!(first_bytes(8, false), [1, 2, 0]);
    assert_eq!(first_bytes(8, true), [1, 2, 3]);
    conformance(&RecordingBackend::new(memory()), true);
}
