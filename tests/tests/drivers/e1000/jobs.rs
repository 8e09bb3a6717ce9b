//! Whole jobs.

use std::sync::{Arc, Mutex};

use paraslot_backends::net::{Generator, GeneratorOptions, NetBackend, Sink, Wire, WireOptions};
use paraslot_protocol::traffic;
use paraslot_protocol::{Completion, Device, NetJob, Outcome, Status, Traffic};
use paraslot_tests::jobs::run;
use paraslot_vmm::in_process::Machine;

use super::{FLOW, Peer, finished, plugged, unfinished};
use crate::place::{Place, in_both_places};

const JOB: NetJob = NetJob {
    device: Device::E1000,
    traffic: Traffic::Transmit,
    completion: Completion::Poll,
    frame_size: 64,
    batch: 1,
    rate: 0,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 300,
    verify: true,
    tsc_hz: 0,
};

/// What is at the other end for a job's traffic.
fn other_end(job: &NetJob) -> Arc<dyn NetBackend> {
    match job.traffic {
        Traffic::Transmit => Arc::new(Sink::new(1).unwrap()),
        Traffic::Request => Arc::new(Wire::loopback(WireOptions::default()).unwrap()),
        Traffic::Receive | Traffic::Respond => {
            let (size, number) = (job.frame_size, Mutex::new(0));
            let make = move |_, room: &mut [u8]| {
                let mut number = number.lock().unwrap();
                let frame = finished(*number, size);
                *number += 1;
                room[..frame.len()].copy_from_slice(&frame);
                frame.len()
            };
            Arc::new(Generator::new(GeneratorOptions::default(), make).unwrap())
        }
    }
}

/// Every shape of job.
fn shapes() -> impl Iterator<Item = NetJob> {
    let traffics = [Traffic::Transmit, Traffic::Receive, Traffic::Request, Traffic::Respond];
    traffics.into_iter().flat_map(|traffic| {
        [Completion::Poll, Completion::Interrupt].into_iter().flat_map(move |completion| {
            [(64, 1), (64, 128), (1514, 32), (40_000, 1), (40_000, 32)]
                .into_iter()
                // The adapter receives nothing that has yet to be segmented.
                .filter(move |(size, _)| traffic == Traffic::Transmit || *size <= 1514)
                .map(move |(frame_size, batch)| NetJob {
                    traffic,
                    completion,
                    frame_size,
                    batch,
                    ..JOB
                })
        })
    })
}

fn done(machine: &Machine, job: NetJob) -> Outcome {
    let (platform, _) = plugged(machine, other_end(&job));
    let outcome = run(&platform, job);
    let header = outcome.header;
    assert_eq!(outcome.status(), Status::Ok, "{job}");
    assert!(header.operations.get() >= job.operations, "{job} {}", header.operations.get());
    let wrong = (header.errors.get(), header.lost.get(), header.reordered.get());
    assert_eq!(wrong, (0, 0, 0), "{job}");
    assert_eq!(platform.stray_interrupts(), 0, "{job}");
    outcome
}

fn every_job_ends_well_on_every_machine(place: Place) {
    for (name, machine) in place.machines() {
        for job in place.some(shapes()) {
            println!("{name}: {job}");
            done(&machine, NetJob { operations: 130, ..job });
        }
    }
}

fn a_stepped_job_is_the_same_each_time(place: Place) {
    for job in place.some(shapes()) {
        let (first, second) = (done(&place.stepped(), job), done(&place.stepped(), job));
        assert_eq!(first.header, second.header, "{job}");
        let interrupts = first.header.interrupts.get();
        assert_eq!(interrupts > 0, job.completion == Completion::Interrupt, "{job}");
    }
}

/// Polling costs doorbells and nothing else; at most one for each batch.
fn no_register_is_read_while_polling(place: Place) {
    for job in shapes().filter(|job| job.completion == Completion::Poll) {
        let header = done(&place.stepped(), job).header;
        let (accesses, doorbells) = (header.register_accesses.get(), header.doorbells.get());
        assert_eq!(accesses, doorbells, "{job}");
        let batches = header.operations.get().div_ceil(job.batch.into());
        let most = match job.traffic {
            // Descriptors of long frames fill the ring before a batch is full.
            Traffic::Transmit if job.frame_size > 1514 => header.operations.get(),
            Traffic::Transmit => batches,
            // And buffers, at most 64 at a time, with some that had gathered before.
            Traffic::Receive => header.operations.get().div_ceil(u64::from(job.batch.min(64))) + 1,
            Traffic::Request | Traffic::Respond => 2 * header.operations.get(),
        };
        assert!(doorbells <= most, "{job}: {doorbells} for {}", header.operations.get());
    }
}

/// Frames arrive whole and in order, in segments where they are long, each with checksums that are
/// right.
fn what_is_sent_is_what_arrives(place: Place) {
    const COUNT: usize = 40;
    for frame_size in [64, 65, 1514, 1515, 40_000, 65_536] {
        let job = NetJob { frame_size, batch: 4, operations: COUNT as u64, ..JOB };
        // It holds all of them.
        let options = WireOptions { bytes: 4 << 20, frames: 2048, ..WireOptions::default() };
        let (port, far) = Wire::new(options).unwrap();
        let (platform, _) = plugged(&place.stepped(), port);
        let mut peer = Peer::new(&far);
        assert_eq!(run(&platform, job).status(), Status::Ok);
        let headers = traffic::header_len(frame_size);
        let mut payload = vec![];
        for frame in peer.receive() {
            assert!(frame.len() <= 1514 && frame[..14] == FLOW.headers(frame_size)[..14]);
            let (ip, segment) = frame[14..].split_at(20);
            assert_eq!(traffic::sum(0, ip), 0xffff);
            assert_eq!(ip[2..4], u16::try_from(frame.len() - 14).unwrap().to_be_bytes());
            // Of the pseudo header: addresses, protocol, length.
            let length = u16::try_from(segment.len()).unwrap().to_be_bytes();
            let pseudo = traffic::sum(traffic::sum(0, &ip[12..]), &[0, ip[9]]);
            assert_eq!(traffic::sum(traffic::sum(pseudo, &length), segment), 0xffff);
            payload.extend_from_slice(&frame[headers..]);
        }
        let whole = usize::try_from(frame_size).unwrap() - headers;
        assert_eq!(payload.len(), COUNT * whole);
        for (number, sent) in (0..).zip(payload.chunks_mut(whole)) {
            // The time stamp is not known.
            sent[traffic::STAMP..traffic::PATTERN].fill(0);
            assert!(*sent == unfinished(number, frame_size)[headers..], "{frame_size} {number}");
        }
    }
}

in_both_places! {
    every_job_ends_well_on_every_machine,
    a_stepped_job_is_the_same_each_time,
    no_register_is_read_while_polling,
    what_is_sent_is_what_arrives,
}
