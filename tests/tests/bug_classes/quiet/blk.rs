use paraslot_spec::virtio_blk::{request, status};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::Buffer;

use super::{SEEDS, Watch, backend, bus_master};
use crate::blk::{Blk, DATA, MEMORY, Pending};
use crate::support::{Random, image_byte};

#[derive(Clone, Copy, Debug)]
enum Ending {
    DeviceReset,
    QueueReset,
    FunctionLevelReset,
    HostReset,
    Pause,
    BusMasterOff,
    Drop,
}

const ENDINGS: [Ending; 7] = [
    Ending::DeviceReset,
    Ending::QueueReset,
    Ending::FunctionLevelReset,
    Ending::HostReset,
    Ending::Pause,
    Ending::BusMasterOff,
    Ending::Drop,
];

/// Takes answers; each is to a request that is pending, once.
fn answers(guest: &mut Blk, pending: &mut Vec<Pending>) {
    while let Some((head, _)) = guest.used() {
        let at = pending.iter().position(|request| request.head == head);
        let request = pending.remove(at.expect("given back once"));
        assert!(guest.status_of(&request) <= status::UNSUPP);
    }
}

/// The device works: a read succeeds, though one operation in 16 does not.
fn reads_well(guest: &mut Blk, watch: &Watch) {
    watch.hold.gate.open();
    for _ in 0..20 {
        let pending = guest.add(request::IN, 3, &[Buffer::writable(DATA, 512)], false);
        guest.notify();
        assert!(watch.executor.run(1000));
        assert_eq!(guest.used().map(|(head, _)| head), Some(pending.head));
        if guest.status_of(&pending) == status::OK {
            let mut data = [0; 512];
            guest.bench.peek(DATA, &mut data);
            assert!((3 * 512..).zip(data).all(|(at, byte)| byte == image_byte(at)));
            return;
        }
    }
    panic!("no read succeeds");
}

fn run(seed: u64, ending: Ending) {
    let mut random = Random::new(seed);
    let (backend, hold) = backend(seed);
    let mut guest = Blk::small(backend);
    let watch = Watch::new(&guest.bench, hold, MEMORY, format!("{ending:?}, seed {seed}"));
    let mut pending: Vec<Pending> = Vec::new();
    for _ in 0..random.below(40) {
        match random.below(5) {
            0 | 1 if pending.len() < 12 => pending.push(guest.any_request(&mut random)),
            2 => watch.hold.gate.release(1),
            _ => watch.step(),
        }
        answers(&mut guest, &mut pending);
    }
    match ending {
        Ending::DeviceReset => {
            guest.set_status(0);
            watch.until(&mut random, || guest.status().is_empty());
        }
        Ending::QueueReset => {
            guest.reset_queue();
            watch.until(&mut random, || guest.queue_is_reset());
        }
        Ending::FunctionLevelReset | Ending::HostReset => {
            let back = watch.let_go(&mut random);
            match ending {
                Ending::HostReset => guest.bench.device.reset(),
                _ => guest.function_level_reset(),
            }
            assert!(!back || guest.status().is_empty(), "it waits for what comes back");
            watch.hold.release_every(0);
            watch.until(&mut random, || guest.status().is_empty());
        }
        Ending::Pause => watch.pause(&mut *guest.bench.device, &mut random),
        Ending::BusMasterOff => {
            watch.bus_master_off(&mut *guest.bench.device, &data_of(&pending));
        }
        Ending::Drop => {
            let Bench { device, .. } = guest.virtio.bench;
            drop(device);
            watch.only_data(&data_of(&pending));
            watch.until(&mut random, || watch.executor.is_empty());
            return watch.quiet();
        }
    }
    // Something to be tempted by.
    let tempting = pending.len() < 12;
    if tempting {
        pending.push(guest.any_request(&mut random));
    }
    guest.notify();
    watch.quiet();
    match ending {
        Ending::Pause => guest.bench.device.resume().expect("it can go on"),
        Ending::BusMasterOff => bus_master(&mut *guest.bench.device, true),
        _ => {
            // A queue that was reset alone comes back with all others.
            guest.set_status(0);
            guest.start();
            return reads_well(&mut guest, &watch);
        }
    }
    // What was asked for is answered after all.
    watch.hold.gate.open();
    guest.notify();
    assert!(watch.executor.run(1000));
    answers(&mut guest, &mut pending);
    assert!(pending.is_empty(), "{}: {} requests were lost", watch.what, pending.len());
    reads_well(&mut guest, &watch);
}

/// Where the data of the reads among `pending` goes.
fn data_of(pending: &[Pending]) -> Vec<(u64, u32)> {
    let reads = pending.iter().filter(|pending| pending.kind == request::IN);
    let buffers = reads.flat_map(|pending| &pending.data);
    buffers.map(|buffer| (buffer.address, buffer.len)).collect()
}

#[test]
fn virtio_blk_is_quiet_after_everything_that_ends_its_work() {
    for seed in 0..SEEDS {
        run(seed, ENDINGS[usize::try_from(seed % 7).expect("small")]);
    }
}
