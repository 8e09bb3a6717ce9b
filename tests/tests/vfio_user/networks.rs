//! Network adapters.

use std::sync::{Arc, Mutex};

use paraslot_backends::net::{Generator, GeneratorOptions, NetBackend, Sink, Wire, WireOptions};
use paraslot_drivers::workload::run;
use paraslot_e1000::{E1000, Options};
use paraslot_protocol::traffic::{self, Flow};
use paraslot_protocol::{Completion, Device, NetJob, PATTERN_STEP, Status, Traffic, pattern_base};

use crate::served::{Served, machines};

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x21];
/// Frames for the adapter, from itself as the workload's are.
const FLOW: Flow = Flow { source: MAC, destination: MAC };
const JOB: NetJob = NetJob {
    device: Device::E1000,
    traffic: Traffic::Transmit,
    completion: Completion::Poll,
    frame_size: 64,
    batch: 32,
    rate: 0,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 130,
    verify: true,
    tsc_hz: 0,
};

/// Frame `number` of the workload's, as it is on the wire.
fn frame(number: u64, size: u32) -> Vec<u8> {
    let headers = traffic::header_len(size);
    let mut frame = FLOW.headers(size)[..headers].to_vec();
    frame.extend(number.to_le_bytes());
    frame.extend(0u64.to_le_bytes());
    let mut word = pattern_base(number, 0).wrapping_add(PATTERN_STEP.wrapping_mul(2));
    while frame.len() < size as usize {
        frame.extend(word.to_le_bytes());
        word = word.wrapping_add(PATTERN_STEP);
    }
    frame.truncate(size as usize);
    let field = traffic::TRANSPORT + traffic::checksum_offset(size);
    let sum = traffic::sum(0, &frame[traffic::TRANSPORT..]);
    let checksum = if sum == u16::MAX { sum } else { !sum };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// What is at the other end for a job's traffic.
fn other_end(traffic: Traffic) -> Arc<dyn NetBackend> {
    match traffic {
        Traffic::Transmit => Arc::new(Sink::new(1).unwrap()),
        Traffic::Request => Arc::new(Wire::loopback(WireOptions::default()).unwrap()),
        Traffic::Receive | Traffic::Respond => {
            let number = Mutex::new(0);
            let make = move |_, room: &mut [u8]| {
                let mut number = number.lock().unwrap();
                let frame = frame(*number, JOB.frame_size);
                *number += 1;
                room[..frame.len()].copy_from_slice(&frame);
                frame.len()
            };
            Arc::new(Generator::new(GeneratorOptions::default(), make).unwrap())
        }
    }
}

// Its interrupt is the pin.
#[test]
fn every_job_ends_well() {
    for (name, machine) in machines() {
        for traffic in [Traffic::Transmit, Traffic::Receive, Traffic::Request, Traffic::Respond] {
            for completion in [Completion::Poll, Completion::Interrupt] {
                let job = NetJob { traffic, completion, ..JOB };
                println!("{name}: {job}");
                let served = Served::new(|host| {
                    let adapter = E1000::new(other_end(traffic), Options::new(MAC), host)?;
                    Ok(Box::new(adapter))
                });
                let (platform, fault) = served.plugged(&machine);
                let outcome = run(&platform, job);
                let header = outcome.header;
                assert_eq!(outcome.status(), Status::Ok, "{job}");
                assert!(header.operations.get() >= job.operations, "{job}");
                let wrong = (header.errors.get(), header.lost.get(), header.reordered.get());
                assert_eq!(wrong, (0, 0, 0), "{job}");
                assert_eq!(platform.stray_interrupts(), 0, "{job}");
                assert!(fault.take().is_none());
            }
        }
    }
}
