//! What there is only where a function is served.

use std::sync::{Arc, Mutex};

use paraslot_backends::block::MemoryBackend;
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Device, DiskJob};
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Moves, Moving};
use paraslot_tests::parts;
use paraslot_tests::served::Served;
use paraslot_vmm::in_process::{InProcess, Machine};

use crate::machine::*;
use crate::place::Place;
use crate::workloads::{self, check};

const JOB: DiskJob = DiskJob { operations: 200, ..workloads::JOB };

fn threaded() -> Machine {
    Place::Served.threaded()
}

/// A server of a disk, with workers of its own.
fn served(device: Device, image: MemoryBackend) -> Served {
    let other = InProcess::new(&threaded()).unwrap();
    Served::with(other.executor(), |host| parts::disk(device, Arc::new(image), host))
}

#[test]
fn a_function_that_is_paused_goes_on_where_it_stopped() {
    for device in DISKS {
        let platform = plugged(device, &events(threaded()), image());
        let function = platform.function(SLOT).unwrap();
        let job = DiskJob { device, completion: Completion::Interrupt, operations: 400, ..JOB };
        std::thread::scope(|scope| {
            let runs = scope.spawn(|| run(&platform, job));
            for _ in 0..20 {
                // No register is accessed meanwhile, as when the processors are stopped too.
                let mut function = function.lock().unwrap();
                function.pause().unwrap();
                std::thread::yield_now();
                function.resume().unwrap();
            }
            check(&job, &runs.join().unwrap());
        });
    }
}

// From one server's function to the next's, in the middle of a job, by what the protocol has for it.
#[test]
fn a_disk_that_moves_before_each_operation_loses_nothing() {
    for (machine, device, completion) in [
        (threaded(), Device::VirtioBlk, Completion::Interrupt),
        (threaded(), Device::Ahci, Completion::Poll),
        (events(threaded()), Device::VirtioBlk, Completion::Poll),
        (events(threaded()), Device::Ahci, Completion::Interrupt),
    ] {
        let access = Access::RandomWrite;
        let job = DiskJob { device, completion, access, operations: 16, ..JOB };
        println!("{machine:?}: {job}");
        let image = image();
        let servers = [(); 2].map(|()| served(device, image.clone()));
        let platform = InProcess::new(&machine).unwrap();
        let host = platform.host(SLOT);
        let mut turn = 0;
        let build = Box::new(move || -> Box<dyn PciDevice> {
            turn += 1;
            Box::new(servers[turn % 2].connect(host.clone()))
        });
        let moving = Arc::new(Mutex::new(Moving::new(build, Moves::Always)));
        platform.plug_shared(SLOT, moving).unwrap();
        check(&job, &run(&platform, job));
        assert_eq!(platform.stray_interrupts(), 0);
    }
}

// The next client finds the function as it is after a reset, whatever the one before did.
#[test]
fn machines_follow_each_other_at_a_server() {
    let server = served(Device::VirtioBlk, image());
    for round in 0..6 {
        let platform = InProcess::new(&events(threaded())).unwrap();
        let function = server.connect(platform.host(SLOT));
        let fault = function.fault();
        platform.plug(SLOT, function).unwrap();
        let completion = if round % 2 == 0 { Completion::Poll } else { Completion::Interrupt };
        check(&JOB, &run(&platform, DiskJob { completion, ..JOB }));
        assert!(fault.take().is_none());
    }
}

#[test]
fn a_server_that_is_gone_leaves_ones() {
    let mut served = served(Device::VirtioBlk, image());
    let machine = InProcess::new(&threaded()).unwrap();
    let mut function = served.connect(machine.host(SLOT));
    let fault = function.fault();
    let mut data = [0; 4];
    function.config_read(0, &mut data);
    assert_eq!(data[..2], [0xf4, 0x1a]);
    served.stop();
    function.config_read(0, &mut data);
    assert_eq!(data, [0xff; 4]);
    function.bar_read(0, 0, &mut data);
    assert_eq!(data, [0xff; 4]);
    function.bar_write(0, 0, &data);
    function.config_write(4, &[7]);
    function.reset();
    assert!(function.pause().is_err());
    assert!(fault.take().is_some() && fault.take().is_none());
}
