//! Whole jobs.

use std::sync::{Arc, Mutex};

use paraslot_backends::net::{
    Cut, Generator, GeneratorOptions, NetBackend, Offload, PartialChecksum, Segmentation, Sink,
    Wire, WireOptions,
};
use paraslot_drivers::Nic;
use paraslot_drivers::virtio_net::{Layout, Options};
use paraslot_drivers::workload::{Failure, run_on_nic};
use paraslot_protocol::traffic::{self, Flow};
use paraslot_protocol::{Completion, Device, NetJob, Outcome, Phase, Status, Traffic};
use paraslot_spec::virtio_net::feature as net;
use paraslot_tests::jobs::run;
use paraslot_tests::port::{Carried, Port};
use paraslot_virtio_net::Options as DeviceOptions;
use paraslot_vmm::in_process::Machine;

use super::{ACCEPTED, MAC, driver, finished, plugged, plugged_with, unfinished};
use crate::place::{Place, in_both_places};

pub(crate) const JOB: NetJob = NetJob {
    device: Device::VirtioNet,
    traffic: Traffic::Transmit,
    completion: Completion::Poll,
    frame_size: 64,
    batch: 1,
    rate: 0,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 600,
    verify: true,
    tsc_hz: 0,
};

pub(crate) const TRAFFICS: [Traffic; 4] =
    [Traffic::Transmit, Traffic::Receive, Traffic::Request, Traffic::Respond];
pub(crate) const MODES: [Completion; 2] = [Completion::Poll, Completion::Interrupt];
const OWN: Flow = Flow { source: MAC, destination: MAC };

/// What a frame of this size is delivered with where nothing was done to it yet.
pub(crate) fn left_to_do(frame_size: u32) -> Offload {
    let small = |value| u16::try_from(value).unwrap();
    let offset = small(traffic::checksum_offset(frame_size));
    let segmentation = traffic::is_segmented(frame_size).then_some(Segmentation {
        cut: Cut::Tcp4,
        size: traffic::SEGMENT_SIZE,
        header_len: small(traffic::TCP_HEADERS),
        ecn: false,
    });
    let checksum = Some(PartialChecksum { start: small(traffic::TRANSPORT), offset });
    Offload { checksum, segmentation, checksum_valid: false }
}

/// Frames for a job, as they come from the network, or with all still to be done.
pub(crate) fn source(frame_size: u32, partial: bool) -> Generator {
    let number = Mutex::new(0);
    let offload = if partial { left_to_do(frame_size) } else { Offload::default() };
    let make = move |_, room: &mut [u8]| {
        let mut number = number.lock().unwrap();
        let frame = match partial {
            true => unfinished(OWN, *number, frame_size),
            false => finished(OWN, *number, frame_size),
        };
        *number += 1;
        room[..frame.len()].copy_from_slice(&frame);
        frame.len()
    };
    Generator::new(GeneratorOptions { offload, ..Default::default() }, make).unwrap()
}

/// What is at the other end for a job's traffic.
pub(crate) fn other_end(job: &NetJob, queues: u16) -> Arc<dyn NetBackend> {
    match job.traffic {
        Traffic::Transmit => Arc::new(Sink::new(queues).unwrap()),
        Traffic::Request => {
            let options = WireOptions { queues, ..WireOptions::default() };
            Arc::new(Wire::loopback(options).unwrap())
        }
        Traffic::Receive | Traffic::Respond => {
            Arc::new(source(job.frame_size, traffic::is_segmented(job.frame_size)))
        }
    }
}

/// Every shape of job.
pub(crate) fn shapes() -> impl Iterator<Item = NetJob> {
    TRAFFICS.into_iter().flat_map(|traffic| {
        MODES.into_iter().flat_map(move |completion| {
            let sizes = [
                (64, 1, 50),
                (64, 128, 600),
                (700, 7, 50),
                (1514, 32, 100),
                (1515, 5, 20),
                (65_536, 8, 10),
            ];
            sizes.map(|(frame_size, batch, operations)| NetJob {
                traffic,
                completion,
                frame_size,
                batch,
                operations,
                ..JOB
            })
        })
    })
}

pub(crate) fn check(job: &NetJob, outcome: &Outcome, stepped: bool) {
    let header = outcome.header;
    let bytes = job.operations * u64::from(job.frame_size);
    assert_eq!((header.operations.get(), header.bytes.get()), (job.operations, bytes), "{job}");
    let wrong = (header.errors.get(), header.lost.get(), header.reordered.get());
    assert_eq!(wrong, (0, 0, 0), "{job}");
    match job.completion {
        Completion::Poll => assert_eq!(header.interrupts.get(), 0),
        // All may have been there along with the first frame, or before the driver sleeps.
        Completion::Interrupt if job.traffic == Traffic::Receive || !stepped => {}
        Completion::Interrupt => assert!(header.interrupts.get() > 0, "{job}"),
    }
    let verified = job.verify && job.traffic != Traffic::Transmit;
    assert_eq!(header.verified.get() >= job.operations, verified, "{job}");
    let recorded: u32 = outcome.latency.buckets().map(|(_, count)| count).sum();
    let latencies = matches!(job.traffic, Traffic::Transmit | Traffic::Request);
    assert_eq!(u64::from(recorded), if latencies { job.operations } else { 0 });
}

fn every_job_ends_well_on_every_machine(place: Place) {
    for (name, machine) in place.machines() {
        for job in place.some(shapes()) {
            println!("{name}: {job}");
            let options = DeviceOptions::default();
            let (platform, control) = plugged_with(&machine, other_end(&job, 1), options);
            let outcome = run(&platform, job);
            assert_eq!(outcome.status(), Status::Ok);
            check(&job, &outcome, name.starts_with("stepped"));
            assert_eq!(platform.phases(), [Phase::Measure, Phase::Done]);
            assert_eq!(platform.stray_interrupts(), 0);
            let seen = control.statistics();
            let wrong = seen.send_invalid + seen.send_errors + seen.receive_errors;
            assert_eq!((wrong, seen.received_too_long), (0, 0), "{seen:?}");
        }
    }
}

fn a_stepped_job_is_the_same_each_time(place: Place) {
    for job in place.some(shapes()) {
        let outcome = || {
            let options = DeviceOptions::default();
            run(&plugged_with(&place.stepped(), other_end(&job, 1), options).0, job)
        };
        let (first, second) = (outcome(), outcome());
        assert_eq!(first.header, second.header, "{job}");
        assert!(first.latency.buckets().eq(second.latency.buckets()));
    }
}

/// Runs a job with features and a layout of frames.
fn negotiated(
    machine: &Machine,
    job: &NetJob,
    options: Options,
    backend: Arc<dyn NetBackend>,
) -> (Result<(), Failure>, Outcome) {
    let device = DeviceOptions { queue_pairs: options.pairs, ..DeviceOptions::default() };
    let (platform, _) = plugged_with(machine, backend, device);
    let mut outcome = Outcome::default();
    let nic = driver(&platform, options);
    (run_on_nic(&platform, nic, job, &mut outcome), outcome)
}

fn every_job_ends_well_whatever_was_negotiated(place: Place) {
    for (name, accept) in ACCEPTED {
        for layout in [Layout::Headroom, Layout::Chain, Layout::Indirect] {
            if layout == Layout::Indirect && !name.starts_with(['a', 'u']) {
                continue;
            }
            for job in place.some(shapes()) {
                println!("{name}, {layout:?}: {job}");
                let job = NetJob { operations: job.operations.min(60), ..job };
                let buffer = if job.batch == 7 { 1088 } else { 1536 };
                let options = Options { accept, layout, buffer, ..Options::new() };
                let offloads = accept & net::HOST_TSO4 != 0;
                let (result, outcome) =
                    negotiated(&place.stepped(), &job, options, other_end(&job, 1));
                if traffic::is_segmented(job.frame_size) && !offloads {
                    assert_eq!(result, Err(Failure::Unfit("frame_size")));
                } else {
                    assert_eq!(result, Ok(()));
                    check(&job, &outcome, true);
                }
            }
        }
    }
}

// A device that is left what is still to be done, and one that must finish it before the driver sees
// it.
fn frames_with_partial_checksums_are_received_by_all(place: Place) {
    for (name, accept) in ACCEPTED {
        for traffic in [Traffic::Receive, Traffic::Respond] {
            for frame_size in [64, 1513, 1514] {
                let options = Options { accept, ..Options::new() };
                let job = NetJob { traffic, frame_size, batch: 16, ..JOB };
                let backend = Arc::new(source(frame_size, true));
                let (result, outcome) = negotiated(&place.stepped(), &job, options, backend);
                assert_eq!(result, Ok(()), "{name}: {job}");
                check(&job, &outcome, true);
            }
        }
    }
}

fn small_queues_and_buffers_do_too(place: Place) {
    for (size, batch) in [(4, 2), (8, 4), (1024, 128)] {
        for buffer in [128, 600, 1536, 4096] {
            for job in place.some(shapes()).filter(|job| !traffic::is_segmented(job.frame_size)) {
                let job = NetJob { batch, operations: 100, ..job };
                // A queue must hold a frame.
                if usize::from(size) * buffer < 2 * job.frame_size as usize {
                    continue;
                }
                let device = DeviceOptions { queue_size: size, ..DeviceOptions::default() };
                let (platform, _) = plugged_with(&place.stepped(), other_end(&job, 1), device);
                let buffer = u32::try_from(buffer).unwrap();
                let accept = Options::USUAL_FEATURES & !Options::OFFLOADS;
                let options = Options { size, buffer, accept, ..Options::new() };
                let mut outcome = Outcome::default();
                let nic = driver(&platform, options);
                assert_eq!(run_on_nic(&platform, nic, &job, &mut outcome), Ok(()), "{size} {job}");
                check(&job, &outcome, true);
            }
        }
    }
}

fn several_pairs_of_queues_carry_a_job(place: Place) {
    for (name, machine) in place.machines() {
        for job in shapes().filter(|job| job.traffic == Traffic::Request) {
            for pairs in [2, 4] {
                println!("{name}: {job}");
                let options = Options { pairs, ..Options::new() };
                let (result, outcome) = negotiated(&machine, &job, options, other_end(&job, pairs));
                assert_eq!(result, Ok(()));
                let header = outcome.header;
                assert_eq!(header.operations.get(), job.operations);
                // Queues may overtake each other, but lose nothing.
                assert_eq!((header.errors.get(), header.lost.get()), (0, 0));
            }
        }
    }
}

fn what_is_sent_arrives_with_what_is_left_to_do(place: Place) {
    for (name, accept) in ACCEPTED {
        for layout in [Layout::Headroom, Layout::Chain] {
            for frame_size in [64, 1000, 1514, 1515, 40_000, 65_536] {
                let segmented = traffic::is_segmented(frame_size);
                if segmented && accept & net::HOST_TSO4 == 0 {
                    continue;
                }
                let port = Port::new(1);
                let job = NetJob { frame_size, batch: 8, operations: 40, ..JOB };
                let options = Options { accept, layout, ..Options::new() };
                let (result, _) =
                    negotiated(&place.stepped(), &job, options, Arc::new(port.clone()));
                assert_eq!(result, Ok(()));
                let frames = port.take_sent();
                assert_eq!(frames.len(), 40);
                let partial = accept & net::CSUM != 0;
                for (number, Carried { mut bytes, offload }) in (0..).zip(frames) {
                    let expected =
                        if partial { left_to_do(frame_size) } else { Offload::default() };
                    assert_eq!(offload, expected, "{name}");
                    // The time stamp is what it is; without it the rest must fit.
                    let stamp = traffic::header_len(frame_size) + traffic::STAMP;
                    if partial {
                        bytes[stamp..stamp + 8].fill(0);
                        assert!(bytes == unfinished(OWN, number, frame_size), "{name}");
                    } else {
                        let sum = traffic::sum(0, &bytes[traffic::TRANSPORT..]);
                        let pseudo = unfinished(OWN, number, frame_size);
                        let pseudo = u16::from_be_bytes([pseudo[40], pseudo[41]]);
                        assert_eq!(traffic::sum(sum, &pseudo.to_be_bytes()), 0xffff);
                        bytes[stamp..stamp + 8].fill(0);
                        bytes[40..42].fill(0);
                        let mut expected = unfinished(OWN, number, frame_size);
                        expected[40..42].fill(0);
                        assert!(bytes == expected, "{name}");
                    }
                }
            }
        }
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
            let options = DeviceOptions::default();
            let (platform, _) = plugged_with(&place.threaded(), other_end(&job, 1), options);
            let outcome = run(&platform, job);
            assert_eq!(outcome.status(), Status::Ok, "{job}");
            assert_eq!(platform.phases(), [Phase::WarmUp, Phase::Measure, Phase::Done]);
            let header = outcome.header;
            assert!(header.cycles.get() >= 5_000_000 && header.operations.get() > 0);
            assert_eq!((header.errors.get(), header.lost.get()), (0, 0));
        }
    }
}

fn frames_are_sent_at_a_rate(place: Place) {
    for traffic in [Traffic::Transmit, Traffic::Request] {
        for completion in MODES {
            let job = NetJob {
                traffic,
                completion,
                batch: 4,
                rate: 100_000,
                measure_ms: 20,
                operations: 0,
                ..JOB
            };
            let options = DeviceOptions::default();
            let (platform, _) = plugged_with(&place.threaded(), other_end(&job, 1), options);
            let outcome = run(&platform, job);
            assert_eq!(outcome.status(), Status::Ok);
            let operations = outcome.header.operations.get();
            // No more than were due, whatever else the host does meanwhile.
            assert!((1..=2001).contains(&operations), "{operations}");
        }
    }
}

fn jobs_follow_each_other_on_one_machine(place: Place) {
    let (platform, _) = plugged(&place.threaded(), Wire::loopback(WireOptions::default()).unwrap());
    for completion in [MODES, MODES].as_flattened() {
        let (traffic, batch) = (Traffic::Request, 16);
        let job = NetJob { traffic, completion: *completion, batch, ..JOB };
        let outcome = run(&platform, job);
        assert_eq!(outcome.status(), Status::Ok);
        check(&job, &outcome, false);
    }
}

fn what_the_adapter_cannot_do_is_an_error(place: Place) {
    let (platform, _) = plugged(&place.stepped(), Sink::new(1).unwrap());
    let options = Options { size: 8, ..Options::new() };
    let nic = driver(&platform, options);
    assert_eq!(nic.depth(), 4);
    let job = NetJob { batch: 5, ..JOB };
    let result = run_on_nic(&platform, nic, &job, &mut Outcome::default());
    assert_eq!(result, Err(Failure::Unfit("batch")));
    // Nobody sends anything.
    for completion in MODES {
        for (traffic, status) in [
            (Traffic::Receive, Status::Stuck),
            (Traffic::Request, Status::Stuck),
            (Traffic::Respond, Status::Ok),
        ] {
            let job = NetJob { traffic, completion, measure_ms: 100, ..JOB };
            assert_eq!(run(&platform, job).status(), status, "{job}");
        }
    }
}

in_both_places! {
    every_job_ends_well_on_every_machine,
    a_stepped_job_is_the_same_each_time,
    every_job_ends_well_whatever_was_negotiated,
    frames_with_partial_checksums_are_received_by_all,
    small_queues_and_buffers_do_too,
    several_pairs_of_queues_carry_a_job,
    what_is_sent_arrives_with_what_is_left_to_do,
    time_ends_a_job_and_the_warm_up_does_not_count,
    frames_are_sent_at_a_rate,
    jobs_follow_each_other_on_one_machine,
    what_the_adapter_cannot_do_is_an_error,
}
