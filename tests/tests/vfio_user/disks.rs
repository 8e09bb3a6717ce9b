//! Disks: their data, whichever way doorbells and interrupts take.

use std::sync::{Arc, Mutex};

use paraslot_ahci::{Ahci, DiskOptions};
use paraslot_backends::block::MemoryBackend;
use paraslot_drivers::pvscsi::{self, Signal};
use paraslot_drivers::workload::run;
use paraslot_drivers::{Completions, Disk, DmaRegion, Op, Platform};
use paraslot_pci::PciDevice;
use paraslot_protocol::{
    Access, Completion, Device, DiskJob, Outcome, PATTERN_STEP, Status, pattern_base,
};
use paraslot_pvscsi::Pvscsi;
use paraslot_tests::moving::{Moves, Moving};
use paraslot_tests::scsi::one_disk;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmm::in_process::InProcess;

use crate::served::{SLOT, Served, machines};

/// Bytes of the disk.
const CAPACITY: u64 = 2 << 20;
const DISKS: [Device; 4] = [Device::VirtioBlk, Device::VirtioScsi, Device::Pvscsi, Device::Ahci];
const JOB: DiskJob = DiskJob {
    device: Device::VirtioBlk,
    access: Access::RandomRead,
    completion: Completion::Poll,
    block_size: 4096,
    depth: 32,
    span: CAPACITY,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 200,
    verify: true,
    seed: 42,
    tsc_hz: 0,
};

fn image() -> Arc<MemoryBackend> {
    Arc::new(paraslot_tests::image::patterned(2 << 20))
}

/// The disk that `device` names.
fn served(device: Device, image: Arc<MemoryBackend>) -> Served {
    Served::new(move |host| {
        let function: Box<dyn PciDevice> = match device {
            Device::VirtioBlk => {
                let options = paraslot_virtio_blk::Options::default();
                Box::new(VirtioPci::new(VirtioBlk::new(image, &options)?, host)?)
            }
            Device::VirtioScsi => {
                let options = paraslot_virtio_scsi::Options::default();
                Box::new(VirtioPci::new(VirtioScsi::new(one_disk(image), &options)?, host)?)
            }
            Device::Pvscsi => {
                let options = paraslot_pvscsi::Options::default();
                Box::new(Pvscsi::new(one_disk(image), options, host)?)
            }
            Device::Ahci => {
                let options = paraslot_ahci::Options::new([DiskOptions::new(image)]);
                Box::new(Ahci::new(options, host)?)
            }
            other => panic!("{other} is no disk"),
        };
        Ok(function)
    })
}

fn check(job: &DiskJob, outcome: &Outcome) {
    let header = &outcome.header;
    assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{job}");
    assert_eq!(header.operations.get(), job.operations);
    assert!(header.verified.get() > 0);
}

#[test]
fn every_job_ends_well() {
    for (name, machine) in machines() {
        for device in DISKS {
            let served = served(device, image());
            // What is written stays.
            for access in [Access::RandomRead, Access::SequentialRead, Access::RandomWrite] {
                for completion in [Completion::Poll, Completion::Interrupt] {
                    for (block_size, depth) in [(4096, 1), (4096, 32), (65536, 4)] {
                        let job = DiskJob { device, access, completion, block_size, depth, ..JOB };
                        println!("{name}: {job}");
                        // A client for each: the machine before is gone, and its function was reset.
                        let (platform, fault) = served.plugged(&machine);
                        check(&job, &run(&platform, job));
                        assert_eq!(platform.stray_interrupts(), 0);
                        assert!(fault.take().is_none());
                    }
                }
            }
        }
    }
}

/// Does a request and waits for its interrupt.
fn by_interrupt<D: Disk>(platform: &InProcess, disk: &mut D, offset: u64, op: Op<'_>) {
    let index = disk.interrupt();
    let mut completions = Completions::new();
    disk.submit(0, offset, op).unwrap();
    let mut seen = platform.interrupts_taken(index);
    disk.kick().unwrap();
    for _ in 0..30 {
        platform.wait_for_interrupt(index, seen);
        let taken = platform.interrupts_taken(index);
        if taken != seen {
            seen = taken;
            disk.handle(&mut completions).unwrap();
        }
        if let [done] = completions.as_slice() {
            assert_eq!(done.result, Ok(()));
            return;
        }
    }
    panic!("no interrupt");
}

fn is_block(region: &DmaRegion, block: u64) -> bool {
    region.matches_pattern(0, 4096, pattern_base(block * 4096, 0), PATTERN_STEP)
}

// MSI-X, MSI, and the pin.
#[test]
fn interrupts_come_whichever_kind_the_driver_chooses() {
    for (name, machine) in machines() {
        let served = served(Device::Pvscsi, image());
        for signal in [Signal::Best, Signal::Msi, Signal::Pin] {
            println!("{name}: {signal:?}");
            let (platform, _) = served.plugged(&machine);
            let options = pvscsi::Options { signal, ..pvscsi::Options::new(8) };
            let mut disk = pvscsi::Pvscsi::new(&platform, options).unwrap();
            disk.set_interrupts(true).unwrap();
            for block in 0..50 {
                let region = platform.allocate(4096).unwrap();
                by_interrupt(&platform, &mut disk, block * 4096, Op::Read(&region));
                assert!(is_block(&region, block));
            }
            assert_eq!(platform.stray_interrupts(), 0);
        }
    }
}

#[test]
fn a_function_that_is_paused_goes_on_where_it_stopped() {
    for device in DISKS {
        let served = served(device, image());
        let (_, machine) = &machines()[1];
        let (platform, fault) = served.plugged(machine);
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
        assert!(fault.take().is_none());
    }
}

// From one server's function to the next's, in the middle of a job, by what the protocol has for it.
#[test]
fn a_disk_that_moves_before_each_operation_loses_nothing() {
    for (name, machine) in machines().into_iter().take(2) {
        for device in [Device::VirtioBlk, Device::Ahci] {
            for completion in [Completion::Poll, Completion::Interrupt] {
                let access = Access::RandomWrite;
                let job = DiskJob { device, completion, access, operations: 16, ..JOB };
                println!("{name}: {job}");
                let image = image();
                let servers = [(); 2].map(|()| served(device, image.clone()));
                let machine = InProcess::new(&machine).unwrap();
                let host = machine.host(SLOT);
                let mut turn = 0;
                let build = Box::new(move || -> Box<dyn PciDevice> {
                    turn += 1;
                    Box::new(servers[turn % 2].connect(host.clone()))
                });
                let moving = Arc::new(Mutex::new(Moving::new(build, Moves::Always)));
                machine.plug_shared(SLOT, moving).unwrap();
                check(&job, &run(&machine, job));
                assert_eq!(machine.stray_interrupts(), 0);
            }
        }
    }
}

#[test]
fn a_server_that_is_gone_leaves_ones() {
    let mut served = served(Device::VirtioBlk, image());
    let (_, machine) = &machines()[0];
    let machine = InProcess::new(machine).unwrap();
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
