//! Adapters that lie, in their registers and in memory: jobs end, one way or another.

use std::sync::Mutex;

use paraslot_backends::net::{Generator, GeneratorOptions, Wire, WireOptions};
use paraslot_protocol::traffic::Flow;
use paraslot_protocol::{Completion, Device, NetJob, Status, Traffic};
use paraslot_tests::jobs::run;
use paraslot_vmm::in_process::InProcess;

use super::{MAC, finished, plugged};
use crate::hostile::{Lying, has};
use crate::place::{Place, in_both_places};

/// A machine for a job.
fn machine(place: Place, traffic: Traffic) -> InProcess {
    if matches!(traffic, Traffic::Transmit | Traffic::Request) {
        return plugged(&place.stepped(), Wire::loopback(WireOptions::default()).unwrap()).0;
    }
    let number = Mutex::new(0);
    let flow = Flow { source: MAC, destination: MAC };
    let make = move |_, room: &mut [u8]| {
        let mut number = number.lock().unwrap();
        *number += 1;
        room[..64].copy_from_slice(&finished(flow, *number, 64));
        64
    };
    plugged(&place.stepped(), Generator::new(GeneratorOptions::default(), make).unwrap()).0
}

fn outcomes(place: Place, registers: u64, memory: u64) -> Vec<Status> {
    let traffics = [Traffic::Transmit, Traffic::Receive, Traffic::Request, Traffic::Respond];
    let mut all = Vec::new();
    for seed in place.some(1..=60_u64) {
        for traffic in traffics {
            let lying = Lying::new(machine(place, traffic), seed, registers, memory);
            let completion = if seed % 2 == 0 { Completion::Poll } else { Completion::Interrupt };
            let job = NetJob {
                device: Device::VirtioNet,
                traffic,
                completion,
                frame_size: 64,
                batch: 8,
                rate: 0,
                warm_up_ms: 0,
                measure_ms: 1000,
                operations: 400,
                verify: true,
                tsc_hz: 0,
            };
            all.push(run(&lying, job).status());
        }
    }
    all
}

// No panic, no endless loop: each job ends, and the lies do show.
fn lying_registers_do_no_harm(place: Place) {
    let often = outcomes(place, 5, u64::MAX);
    assert!(has(&often, Status::NoDevice) && !has(&often, Status::Crashed));
    let seldom = outcomes(place, 150, u64::MAX);
    assert!(has(&seldom, Status::Ok) && has(&seldom, Status::NoDevice));
}

fn memory_written_at_random_does_no_harm(place: Place) {
    let outcomes = outcomes(place, u64::MAX, 2);
    let bad = outcomes.iter().filter(|status| **status != Status::Ok).count();
    assert!(bad > 5 && has(&outcomes, Status::Ok), "{outcomes:?}");
    assert!(!has(&outcomes, Status::Crashed));
}

in_both_places! {
    lying_registers_do_no_harm,
    memory_written_at_random_does_no_harm,
}
