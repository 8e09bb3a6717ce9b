//! SCSI host adapters: commands of one operation of the backend, and of several.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::block::testing::GatedBackend;
use paraslot_spec::pvscsi::command;
use paraslot_spec::virtio_scsi::tmf;
use paraslot_tests::bench::Bench;
use paraslot_tests::scsi::one_disk;

use super::{SEEDS, Watch, backend, bus_master};
use crate::pvscsi::PvHba;
use crate::scsi::{Command, DATA, DATA_LEN, Hba, MEMORY, MOST, Pending, data_of};
use crate::support::{Random, function_level_reset, image};
use crate::virtio_scsi::{REQUESTS, VirtioHba};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// By a register of the device's own.
    DeviceReset,
    QueueReset,
    FunctionLevelReset,
    HostReset,
    Pause,
    BusMasterOff,
    Drop,
}

/// What only one kind of adapter can do.
trait Ends: Hba {
    const ENDINGS: &[Ending];
    /// Whether a reset is acknowledged when its patience is at an end.
    const IMPATIENT: bool;
    /// Begins a reset of some kind.
    fn begin_end(&mut self, ending: Ending);
    fn is_acknowledged(&mut self, ending: Ending) -> bool;
    /// Asks for all commands to be aborted, without waiting for it.
    fn abort_all(&mut self);
}

impl Ends for VirtioHba {
    const ENDINGS: &[Ending] = &[
        Ending::DeviceReset,
        Ending::QueueReset,
        Ending::FunctionLevelReset,
        Ending::HostReset,
        Ending::Pause,
        Ending::BusMasterOff,
        Ending::Drop,
    ];
    const IMPATIENT: bool = false;

    fn begin_end(&mut self, ending: Ending) {
        match ending {
            Ending::DeviceReset => self.set_status(0),
            Ending::QueueReset => self.virtio.reset_queue(REQUESTS),
            Ending::FunctionLevelReset => function_level_reset(&mut self.bench),
            Ending::HostReset => self.bench.device.reset(),
            other => panic!("{other:?} is every device's"),
        }
    }

    fn is_acknowledged(&mut self, ending: Ending) -> bool {
        if ending == Ending::QueueReset { self.queue_is_reset() } else { self.status().is_empty() }
    }

    fn abort_all(&mut self) {
        self.manage(tmf::ABORT_TASK_SET, 0, 0);
    }
}

impl Ends for PvHba {
    const ENDINGS: &[Ending] = &[
        Ending::DeviceReset,
        Ending::FunctionLevelReset,
        Ending::HostReset,
        Ending::Pause,
        Ending::BusMasterOff,
        Ending::Drop,
    ];
    const IMPATIENT: bool = true;

    fn begin_end(&mut self, ending: Ending) {
        match ending {
            Ending::DeviceReset => drop(self.order(command::ADAPTER_RESET, &[])),
            Ending::FunctionLevelReset => function_level_reset(&mut self.bench),
            Ending::HostReset => self.bench.device.reset(),
            other => panic!("{other:?} is every device's, or none of this"),
        }
    }

    fn is_acknowledged(&mut self, _ending: Ending) -> bool {
        true
    }

    /// Each command of this adapter waits for what it ends.
    fn abort_all(&mut self) {}
}

/// Takes answers; each is to a command that is pending, once.
fn answers(guest: &mut impl Hba, pending: &mut Vec<Pending>) {
    while let Some(done) = guest.take() {
        let at = pending.iter().position(|pending| pending.tag == done.tag);
        pending.remove(at.expect("given back once"));
    }
}

/// Ends the adapter's work by a reset, up to its acknowledgement and the last operation's end.
fn reset<A: Ends>(
    guest: &mut A,
    watch: &Watch,
    ending: Ending,
    patient: bool,
    pending: &[Pending],
    random: &mut Random,
) {
    let back = patient && (A::IMPATIENT || watch.let_go(random));
    if back && A::IMPATIENT {
        // Each look there is a millisecond of the vCPU's.
        watch.hold.release_every(u32::try_from(1 + random.below(3)).expect("small"));
    }
    guest.begin_end(ending);
    watch.hold.release_every(0);
    if A::IMPATIENT {
        assert!(!patient || watch.hold.in_flight() == 0, "{}: it does not wait", watch.what);
        // What is late still moves its data, and nobody hears of it.
        watch.only_data(&data_of(pending));
    }
    watch.until(random, || guest.is_acknowledged(ending) && watch.hold.in_flight() == 0);
}

fn run<A: Ends>(seed: u64, ending: Ending) {
    let mut random = Random::new(seed);
    let (backend, hold) = backend(seed);
    let patient = !A::IMPATIENT || random.one_in(2);
    let patience = if patient { Duration::from_secs(5) } else { Duration::ZERO };
    let mut guest = A::make(one_disk(backend), patience);
    guest.hear();
    let what = format!("{}, {ending:?}, seed {seed}", A::NAME);
    let watch = Watch::new(guest.bench(), hold, MEMORY, what);
    // A command of several operations goes on with its next one: without bus mastering, too.
    let several = !matches!(ending, Ending::BusMasterOff | Ending::Drop);
    let mut pending: Vec<Pending> = Vec::new();
    for _ in 0..random.below(40) {
        match random.below(6) {
            0 | 1 if pending.len() < MOST => {
                pending.push(guest.put_any(several, &mut random));
                guest.kick();
            }
            2 => watch.hold.gate.release(1),
            3 if random.one_in(8) => guest.abort_all(),
            _ => watch.step(),
        }
        answers(&mut guest, &mut pending);
    }
    match ending {
        Ending::Pause => watch.pause(&mut *guest.bench().device, &mut random),
        Ending::BusMasterOff => {
            watch.bus_master_off(&mut *guest.bench().device, &data_of(&pending));
        }
        Ending::Drop => {
            let Bench { device, .. } = guest.into_bench();
            if patient && A::IMPATIENT {
                // As above: it waits, each look a millisecond.
                watch.hold.release_every(u32::try_from(1 + random.below(3)).expect("small"));
            }
            drop(device);
            watch.hold.release_every(0);
            if patient && A::IMPATIENT {
                assert_eq!(watch.hold.in_flight(), 0, "{}: it does not wait", watch.what);
            }
            watch.only_data(&data_of(&pending));
            watch.until(&mut random, || watch.executor.is_empty());
            return watch.quiet();
        }
        _ => reset(&mut guest, &watch, ending, patient, &pending, &mut random),
    }
    if ending == Ending::QueueReset {
        // The other queues are as they were, and may have something to say.
        guest.run();
    }
    // Something to be tempted by.
    if pending.len() < MOST {
        pending.push(guest.put_any(several, &mut random));
    }
    guest.kick();
    if ending == Ending::QueueReset {
        watch.still()
    } else {
        watch.quiet()
    }
    match ending {
        Ending::Pause => guest.bench().device.resume().expect("it can go on"),
        Ending::BusMasterOff => bus_master(&mut *guest.bench().device, true),
        _ => {
            watch.hold.gate.open();
            guest.start();
            return guest.reads_within(20);
        }
    }
    // What was asked for is answered after all.
    watch.hold.gate.open();
    guest.kick();
    guest.run();
    answers(&mut guest, &mut pending);
    assert!(pending.is_empty(), "{}: {} commands were lost", watch.what, pending.len());
    guest.reads_within(20);
}

fn all<A: Ends>() {
    let endings = A::ENDINGS.len() as u64;
    for seed in 0..SEEDS {
        run::<A>(seed, A::ENDINGS[usize::try_from(seed % endings).expect("small")]);
    }
}

#[test]
fn virtio_scsi_is_quiet_after_everything_that_ends_its_work() {
    all::<VirtioHba>();
}

// QEMU e7ebf057e6 among others: a kick after a reset.
#[test]
fn pvscsi_is_quiet_after_everything_that_ends_its_work() {
    all::<PvHba>();
}

// What a reset has overtaken, and its backend can neither cancel nor complete in time, is not told of in
// the rings that come next.
#[test]
fn pvscsi_never_tells_of_what_a_reset_has_overtaken() {
    for ending in [Ending::DeviceReset, Ending::FunctionLevelReset, Ending::HostReset] {
        for count in 1..=5 {
            let backend = GatedBackend::new(image());
            let gate = backend.gate();
            gate.deafen(true);
            let mut guest = PvHba::make(one_disk(Arc::new(backend)), Duration::ZERO);
            guest.hear();
            for index in 0..count {
                guest.put(&Command::read(index, 1, DATA + index * DATA_LEN));
            }
            guest.kick();
            guest.run();
            guest.begin_end(ending);
            guest.begin();
            let messages = guest.bench.interrupts.messages();
            for _ in 0..count {
                gate.release(1);
                guest.run();
                assert_eq!(guest.completed(), None, "{ending:?}, {count}");
            }
            assert_eq!(guest.bench.interrupts.messages(), messages, "{ending:?}, {count}");
            gate.open();
            guest.works();
        }
    }
}
