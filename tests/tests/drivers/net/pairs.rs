//! Two machines joined by a wire, each with a driver of its own.

use std::sync::{Arc, Barrier};
use std::thread;

use paraslot_backends::net::{NetBackend, Wire, WireOptions};
use paraslot_drivers::virtio_net::Options;
use paraslot_drivers::workload::{Failure, run_on_nic};
use paraslot_drivers::{Nic, e1000, vmxnet3};
use paraslot_e1000::Options as E1000Options;
use paraslot_protocol::{Completion, Device, NetJob, Outcome, Traffic};
use paraslot_vmm::in_process::{InProcess, Machine};
use paraslot_vmxnet3::Options as Vmxnet3Options;

use super::{MAC, SLOT, driver, plugged, wait_until};
use crate::place::{Place, in_both_places, plug};

const JOB: NetJob = NetJob {
    device: Device::VirtioNet,
    traffic: Traffic::Request,
    completion: Completion::Interrupt,
    frame_size: 64,
    batch: 1,
    rate: 0,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 300,
    verify: true,
    tsc_hz: 0,
};

/// A machine with an adapter of this kind. All have the same address, since guests send to
/// themselves.
fn station(machine: &Machine, device: Device, port: impl NetBackend + 'static) -> InProcess {
    if device == Device::VirtioNet {
        return plugged(machine, port).0;
    }
    let machine = InProcess::new(machine).unwrap();
    let (port, clock): (Arc<dyn NetBackend>, _) = (Arc::new(port), machine.clock());
    if device == Device::Vmxnet3 {
        let options = Vmxnet3Options { clock, ..Vmxnet3Options::new(MAC) };
        plug(&machine, SLOT, (port, options));
    } else {
        let options = E1000Options { clock, ..E1000Options::new(MAC) };
        plug(&machine, SLOT, (port, options));
    }
    machine
}

/// Runs a job once `ready` says so, with the adapter set up before.
fn work(platform: &InProcess, job: &NetJob, ready: &Barrier) -> (Result<(), Failure>, Outcome) {
    let mut outcome = Outcome::default();
    let result = match job.device {
        Device::VirtioNet => {
            let nic = driver(platform, Options::new());
            ready.wait();
            run_on_nic(platform, nic, job, &mut outcome)
        }
        Device::Vmxnet3 => {
            let nic = vmxnet3::Vmxnet3::new(platform, vmxnet3::Options::new()).unwrap();
            ready.wait();
            run_on_nic(platform, nic, job, &mut outcome)
        }
        _ => {
            let mut nic = e1000::E1000::new(platform, e1000::Options::default()).unwrap();
            wait_until(platform, || nic.link_up());
            ready.wait();
            run_on_nic(platform, nic, job, &mut outcome)
        }
    };
    (result, outcome)
}

/// Runs one job against the other, and returns what came of both.
fn both(machine: &Machine, jobs: [NetJob; 2]) -> [Outcome; 2] {
    println!("{} and {}", jobs[0], jobs[1]);
    let (one, other) = Wire::new(WireOptions::default()).unwrap();
    let [first, second] = &jobs;
    let near = station(machine, first.device, one);
    let far = station(machine, second.device, other);
    // What is sent before the other end is ready is lost.
    let ready = Barrier::new(2);
    let ran = thread::scope(|scope| {
        let far = scope.spawn(|| work(&far, second, &ready));
        [work(&near, first, &ready), far.join().unwrap()]
    });
    ran.map(|(result, outcome)| {
        assert_eq!(result, Ok(()));
        outcome
    })
}

const DEVICES: [Device; 3] = [Device::VirtioNet, Device::Vmxnet3, Device::E1000];

fn requests_are_answered_by_every_other_adapter(place: Place) {
    for device in DEVICES {
        for other in DEVICES {
            for completion in [Completion::Poll, Completion::Interrupt] {
                for (frame_size, batch) in [(64, 1), (64, 32), (1514, 16)] {
                    let job = NetJob { device, completion, frame_size, batch, ..JOB };
                    let traffic = Traffic::Respond;
                    let answer = NetJob { device: other, traffic, ..job };
                    for outcome in both(&place.threaded(), [job, answer]) {
                        let header = outcome.header;
                        assert_eq!(header.operations.get(), 300);
                        let wrong =
                            (header.errors.get(), header.lost.get(), header.reordered.get());
                        assert_eq!(wrong, (0, 0, 0));
                        assert_eq!(header.verified.get(), 300);
                    }
                }
            }
        }
    }
}

// Frames that are never segmented on their way.
fn large_frames_go_from_one_to_the_other_and_back(place: Place) {
    for (name, machine) in place.machines() {
        // Workers that are stepped by the driver that waits do not know of the other's.
        if name.starts_with(['s', 'o', 'm']) {
            continue;
        }
        for (device, other) in [
            (Device::VirtioNet, Device::VirtioNet),
            (Device::VirtioNet, Device::Vmxnet3),
            (Device::Vmxnet3, Device::Vmxnet3),
        ] {
            let job = NetJob { device, frame_size: 65_536, batch: 4, operations: 40, ..JOB };
            let answer = NetJob { device: other, traffic: Traffic::Respond, ..job };
            for outcome in both(&machine, [job, answer]) {
                let header = outcome.header;
                assert_eq!((header.operations.get(), header.lost.get()), (40, 0), "{name}");
            }
        }
    }
}

fn a_stream_arrives_whole(place: Place) {
    for device in DEVICES {
        for other in DEVICES {
            for (frame_size, batch) in [(64, 32), (1514, 16)] {
                let traffic = Traffic::Transmit;
                let job = NetJob { device, traffic, frame_size, batch, ..JOB };
                // The first does not count.
                let (traffic, operations) = (Traffic::Receive, 299);
                let sink = NetJob { device: other, traffic, operations, ..job };
                let [_, received] = both(&place.threaded(), [job, sink]);
                let header = received.header;
                assert_eq!((header.lost.get(), header.operations.get()), (0, 299));
                assert_eq!((header.reordered.get(), header.errors.get()), (0, 0));
            }
        }
    }
}

in_both_places! {
    requests_are_answered_by_every_other_adapter,
    large_frames_go_from_one_to_the_other_and_back,
    a_stream_arrives_whole,
}
