//! Whole jobs.

use std::sync::Arc;

use paraslot_backends::net::NetBackend;
use paraslot_drivers::vmxnet3::{Coalescing, Moderation, Options, Vectors};
use paraslot_drivers::workload::{Failure, run_on_nic};
use paraslot_protocol::{Completion, Device, NetJob, Outcome, Phase, Status, Traffic, traffic};
use paraslot_tests::jobs::run;
use paraslot_vmm::in_process::Machine;

use super::{Plugged, check_errors, driver, plugged_with, ways};
use crate::net::MAC;
use crate::net::jobs::{self, MODES, TRAFFICS, check, other_end, source};
use crate::place::{Place, in_both_places};

const JOB: NetJob = NetJob { device: Device::Vmxnet3, ..jobs::JOB };

/// Every shape of job.
fn shapes() -> impl Iterator<Item = NetJob> {
    jobs::shapes().map(|job| NetJob { device: Device::Vmxnet3, ..job })
}

fn machine(machine: &Machine, backend: Arc<dyn NetBackend>, queues: u16) -> Plugged {
    let options = paraslot_vmxnet3::Options { queues, ..paraslot_vmxnet3::Options::new(MAC) };
    plugged_with(machine, backend, options)
}

fn every_job_ends_well_on_every_machine(place: Place) {
    for (name, model) in place.machines() {
        for job in place.some(shapes()) {
            println!("{name}: {job}");
            let Plugged { platform, control, .. } = machine(&model, other_end(&job, 1), 1);
            let outcome = run(&platform, job);
            assert_eq!(outcome.status(), Status::Ok);
            check(&job, &outcome, name.starts_with("stepped"));
            assert_eq!(platform.phases(), [Phase::Measure, Phase::Done]);
            assert_eq!(platform.stray_interrupts(), 0);
            check_errors(&control.statistics());
        }
    }
}

fn a_stepped_job_is_the_same_each_time(place: Place) {
    for job in place.some(shapes()) {
        let outcome = || run(&machine(&place.stepped(), other_end(&job, 1), 1).platform, job);
        let (first, second) = (outcome(), outcome());
        assert_eq!(first.header, second.header, "{job}");
        assert!(first.latency.buckets().eq(second.latency.buckets()));
    }
}

/// Runs a job on an adapter that is driven in some way, with as many pairs of queues as the driver
/// has receive queues.
fn driven(
    model: &Machine,
    job: NetJob,
    options: Options,
    backend: Arc<dyn NetBackend>,
) -> (Result<(), Failure>, Outcome) {
    let plugged = machine(model, backend, options.receive_queues.into());
    let mut outcome = Outcome::default();
    let nic = driver(&plugged.platform, options);
    let result = run_on_nic(&plugged.platform, nic, &job, &mut outcome);
    assert_eq!(plugged.platform.stray_interrupts(), 0, "{job}");
    check_errors(&plugged.control.statistics());
    (result, outcome)
}

/// Whether the adapter does what the job's frames need.
fn fits(job: &NetJob, options: &Options) -> bool {
    let sends = job.traffic != Traffic::Receive;
    let receives = job.traffic != Traffic::Transmit;
    !traffic::is_segmented(job.frame_size)
        || (!sends || options.segmentation)
            && (!receives || options.large_receive && options.checksum)
}

fn every_job_ends_well_in_every_way(place: Place) {
    // The first is the one of all other tests.
    for (name, options) in ways().into_iter().skip(1) {
        for job in place.some(shapes()) {
            println!("{name}: {job}");
            let job = NetJob { operations: job.operations.min(10), ..job };
            let (result, outcome) = driven(&place.stepped(), job, options, other_end(&job, 1));
            if fits(&job, &options) {
                assert_eq!(result, Ok(()));
                check(&job, &outcome, true);
            } else {
                assert_eq!(result, Err(Failure::Unfit("frame_size")));
            }
        }
    }
}

fn every_way_works_on_every_machine(place: Place) {
    for (name, model) in place.machines() {
        for (way, options) in place.some(ways().into_iter()) {
            for traffic in [Traffic::Request, Traffic::Receive] {
                for completion in MODES {
                    let job =
                        NetJob { traffic, completion, frame_size: 200, operations: 60, ..JOB };
                    println!("{name}, {way}: {job}");
                    let (result, outcome) = driven(&model, job, options, other_end(&job, 1));
                    assert_eq!(result, Ok(()));
                    check(&job, &outcome, name.starts_with("stepped"));
                }
            }
        }
    }
}

// A frame that is left to be finished: the adapter does, or says that it need not be.
fn frames_with_partial_checksums_are_received_by_all(place: Place) {
    for (name, options) in ways() {
        for traffic in [Traffic::Receive, Traffic::Respond] {
            for frame_size in [64, 1513, 1514] {
                let job = NetJob { traffic, frame_size, batch: 16, operations: 40, ..JOB };
                let backend = Arc::new(source(frame_size, true));
                let (result, outcome) = driven(&place.stepped(), job, options, backend);
                assert_eq!(result, Ok(()), "{name}: {job}");
                check(&job, &outcome, true);
            }
        }
    }
}

fn several_receive_queues_carry_a_job(place: Place) {
    for (name, model) in place.machines() {
        for vectors in [Vectors::Directions, Vectors::Shared, Vectors::Each] {
            for (receive_queues, completion) in
                [2, 8].into_iter().flat_map(|queues| MODES.map(|completion| (queues, completion)))
            {
                let job = NetJob {
                    traffic: Traffic::Request,
                    completion,
                    frame_size: 700,
                    batch: 7,
                    operations: 70,
                    ..JOB
                };
                println!("{name}, {vectors:?}, {receive_queues}: {job}");
                let options = Options { receive_queues, vectors, ..Options::new() };
                let backend = other_end(&job, receive_queues.into());
                let (result, outcome) = driven(&model, job, options, backend);
                assert_eq!(result, Ok(()));
                // All frames are of one flow, and so not even reordered.
                check(&job, &outcome, name.starts_with("stepped"));
            }
        }
    }
}

fn interrupts_are_gathered_in_every_way(place: Place) {
    let coalescings = [
        Coalescing::Disabled,
        Coalescing::Adaptive,
        Coalescing::Static { transmit: 4, transmitted: 16, received: 8 },
        Coalescing::Static { transmit: 0, transmitted: 128, received: 128 },
        Coalescing::Rate(100),
        Coalescing::Rate(100_000),
    ];
    let levels = (1..=7).map(Moderation::Level);
    let moderations = levels.chain([Moderation::None, Moderation::Adaptive]);
    let all = moderations.map(|moderation| (moderation, None));
    let all = all.chain(coalescings.map(|scheme| (Moderation::None, Some(scheme))));
    for (moderation, coalescing) in all {
        for traffic in TRAFFICS {
            for model in [place.stepped(), place.threaded()] {
                let job = NetJob {
                    traffic,
                    completion: Completion::Interrupt,
                    batch: 16,
                    operations: 48,
                    ..JOB
                };
                println!("{moderation:?}, {coalescing:?}: {job}");
                let options = Options { moderation, coalescing, ..Options::new() };
                let (result, outcome) = driven(&model, job, options, other_end(&job, 1));
                assert_eq!(result, Ok(()));
                check(&job, &outcome, false);
            }
        }
    }
}

/// Polling costs doorbells and nothing else; at most one for each batch.
fn no_register_is_read_while_polling(place: Place) {
    for job in shapes().filter(|job| job.completion == Completion::Poll) {
        let header = run(&machine(&place.stepped(), other_end(&job, 1), 1).platform, job).header;
        let (accesses, doorbells) = (header.register_accesses.get(), header.doorbells.get());
        assert_eq!(accesses, doorbells, "{job}");
        let operations = header.operations.get();
        let most = match job.traffic {
            // Descriptors of long frames fill the ring before a batch is full.
            Traffic::Transmit if traffic::is_segmented(job.frame_size) => operations,
            Traffic::Transmit => operations.div_ceil(job.batch.into()),
            // Buffers that the adapter asked for, at most 64 at a time, of both rings.
            Traffic::Receive => {
                let buffers = operations * (1 + u64::from(job.frame_size) / 4096);
                2 * (buffers / u64::from(job.batch.min(64)) + 1)
            }
            Traffic::Request | Traffic::Respond => 2 * operations,
        };
        assert!(doorbells <= most, "{job}: {doorbells} for {operations}");
    }
}

fn time_ends_a_job_and_the_warm_up_does_not_count(place: Place) {
    for traffic in TRAFFICS {
        for completion in MODES {
            let job = NetJob {
                traffic,
                completion,
                batch: 16,
                warm_up_ms: 3,
                measure_ms: 5,
                operations: 0,
                ..JOB
            };
            let plugged = machine(&place.threaded(), other_end(&job, 1), 1);
            let outcome = run(&plugged.platform, job);
            assert_eq!(outcome.status(), Status::Ok, "{job}");
            let phases = [Phase::WarmUp, Phase::Measure, Phase::Done];
            assert_eq!(plugged.platform.phases(), phases);
            let header = outcome.header;
            assert!(header.cycles.get() >= 5_000_000 && header.operations.get() > 0);
            assert_eq!((header.errors.get(), header.lost.get()), (0, 0));
        }
    }
}

fn jobs_follow_each_other_on_one_machine(place: Place) {
    let job = NetJob { traffic: Traffic::Request, batch: 16, ..JOB };
    let plugged = machine(&place.threaded(), other_end(&job, 1), 1);
    for completion in [MODES, MODES].as_flattened() {
        let job = NetJob { completion: *completion, ..job };
        let outcome = run(&plugged.platform, job);
        assert_eq!(outcome.status(), Status::Ok);
        check(&job, &outcome, false);
    }
}

fn nobody_sends_anything(place: Place) {
    let sink = || Arc::new(paraslot_backends::net::Sink::new(1).unwrap());
    for completion in MODES {
        for (traffic, status) in [
            (Traffic::Receive, Status::Stuck),
            (Traffic::Request, Status::Stuck),
            (Traffic::Respond, Status::Ok),
        ] {
            let job = NetJob { traffic, completion, measure_ms: 100, ..JOB };
            let plugged = machine(&place.stepped(), sink(), 1);
            assert_eq!(run(&plugged.platform, job).status(), status, "{job}");
        }
    }
}

in_both_places! {
    every_job_ends_well_on_every_machine,
    a_stepped_job_is_the_same_each_time,
    every_job_ends_well_in_every_way,
    every_way_works_on_every_machine,
    frames_with_partial_checksums_are_received_by_all,
    several_receive_queues_carry_a_job,
    interrupts_are_gathered_in_every_way,
    no_register_is_read_while_polling,
    time_ends_a_job_and_the_warm_up_does_not_count,
    jobs_follow_each_other_on_one_machine,
    nobody_sends_anything,
}
