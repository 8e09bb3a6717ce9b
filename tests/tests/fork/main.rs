//! The door for VMMs that link the devices in: an adapter to another VMM's traits, and all devices through
//! it. `docs/plugging-in.md` refers to it.

mod adapter;
mod mock;
mod vmm;

use std::sync::{Arc, Mutex};

use paraslot_backends::net::{NetBackend, Wire, WireOptions};
use paraslot_device::Clock;
use paraslot_drivers::Platform;
use paraslot_pci::Bdf;
use paraslot_protocol::{
    Access, Completion, Device, DiskJob, Header, NetJob, Outcome, Status, Traffic,
};
use paraslot_tests::image::patterned;
use paraslot_tests::jobs::run;
use paraslot_tests::parts;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use vmm::{Make, Vmm};

const SLOT: Bdf = Bdf::root(3);
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x31];
const CAPACITY: usize = 1 << 20;

const DISKS: [Device; 4] = [Device::VirtioBlk, Device::VirtioScsi, Device::Pvscsi, Device::Ahci];
const NETWORKS: [Device; 3] = [Device::VirtioNet, Device::Vmxnet3, Device::E1000];

/// Builds the device, over an image or a wire that it keeps when it is built again.
fn make(device: Device, clock: Arc<dyn Clock>) -> Make {
    let image = Arc::new(patterned(CAPACITY));
    let wire: Arc<dyn NetBackend> = Arc::new(Wire::loopback(WireOptions::default()).unwrap());
    Box::new(move |host| match DISKS.contains(&device) {
        true => parts::disk(device, image.clone(), host),
        false => parts::network(device, wire.clone(), MAC, clock.clone(), host).0,
    })
}

/// What a guest does that does not like where its BARs are; the driver leaves them there.
fn move_bars(machine: &InProcess) {
    let function = paraslot_drivers::Bdf { bus: 0, device: SLOT.device, function: 0 };
    machine.config_write(function, 4, 3);
    let mut register = 0x10;
    while register < 0x28 {
        let bar = machine.config_read(function, register);
        let (at, by, width) = match bar & 7 {
            _ if bar == 0 => (register, 0, 4),
            1 => (register, 0x400, 4),
            4 => (register + 4, 1, 8),
            _ => (register, 0x100_0000, 4),
        };
        let now = machine.config_read(function, at);
        machine.config_write(function, at, now + by);
        register += width;
    }
}

/// How a job went, and what the VMM had to do for it.
struct Course {
    header: Header,
    moves: u64,
    accesses: u64,
    doorbells: usize,
}

fn course(
    device: Device,
    migrates_before: Option<u64>,
    job: impl FnOnce(&InProcess) -> Outcome,
) -> Course {
    let machine = InProcess::new(&Machine::new(64 << 20, Run::Stepped(None))).unwrap();
    let vmm = Vmm::new(make(device, machine.clock()), machine.host(SLOT), migrates_before);
    let vmm = Arc::new(Mutex::new(vmm));
    machine.plug_shared(SLOT, vmm.clone()).unwrap();
    move_bars(&machine);
    let outcome = job(&machine);
    assert_eq!((outcome.status(), outcome.header.errors.get()), (Status::Ok, 0), "{device}");
    let vmm = vmm.lock().unwrap();
    assert!(!vmm.will_migrate(), "{device} before {migrates_before:?}");
    let (moves, accesses, doorbells) = (vmm.moves(), vmm.accesses(), vmm.ioevents());
    Course { header: outcome.header, moves, accesses, doorbells }
}

fn disk(device: Device, access: Access, migrates_before: Option<u64>) -> Course {
    let job = DiskJob {
        device,
        access,
        completion: Completion::Interrupt,
        block_size: 4096,
        depth: 8,
        span: CAPACITY as u64,
        warm_up_ms: 0,
        measure_ms: 60_000,
        operations: 100,
        verify: true,
        seed: 42,
        tsc_hz: 0,
    };
    let course = course(device, migrates_before, |machine| run(machine, job));
    assert_eq!(course.header.operations.get(), 100);
    assert!(course.header.verified.get() > 0);
    course
}

fn network(device: Device, migrates_before: Option<u64>) -> Course {
    let job = NetJob {
        device,
        traffic: Traffic::Request,
        completion: Completion::Interrupt,
        frame_size: 1514,
        batch: 4,
        rate: 0,
        warm_up_ms: 0,
        measure_ms: 60_000,
        operations: 100,
        verify: true,
        tsc_hz: 0,
    };
    let course = course(device, migrates_before, |machine| run(machine, job));
    let header = &course.header;
    assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{device}");
    assert!(header.verified.get() >= 100);
    course
}

/// The adapter that `docs/plugging-in.md` promises is small.
#[test]
fn the_adapter_is_short() {
    let lines = include_str!("adapter.rs").lines().count();
    assert!(lines <= 200, "{lines} lines");
}

/// The guest moves each BAR from where the VMM has placed it; accesses, doorbells and interrupts follow.
#[test]
fn every_disk_works_through_it() {
    for device in DISKS {
        for access in [Access::RandomRead, Access::RandomWrite] {
            let course = disk(device, access, None);
            assert!(course.moves > 0, "{device}");
            let rings = !matches!(device, Device::Ahci);
            assert_eq!(course.doorbells > 0, rings, "{device}");
        }
    }
}

#[test]
fn every_network_adapter_works_through_it() {
    for device in NETWORKS {
        assert!(network(device, None).moves > 0, "{device}");
    }
}

/// Has a machine migrate before each of the accesses to registers that a job takes.
fn migrates(go: impl Fn(Option<u64>) -> u64) {
    let count = go(None);
    assert!(count > 25, "{count} accesses");
    // A pause ends what is going on, so that a driver which waits for that may look once less.
    for before in 0..count {
        assert!(count - go(Some(before)) <= 1, "before {before}");
    }
}

/// A snapshot as the VMM takes it, in the middle of a job: the device that is restored from it goes on, and
/// nothing is lost or done twice.
#[test]
fn a_migrated_disk_goes_on() {
    for device in DISKS {
        for access in [Access::RandomRead, Access::RandomWrite] {
            migrates(|before| disk(device, access, before).accesses);
        }
    }
}

#[test]
fn a_migrated_network_adapter_goes_on() {
    for device in NETWORKS {
        migrates(|before| network(device, before).accesses);
    }
}
