//! Functions that are pulled out while the guest uses them, and others in their places.

use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use paraslot_backends::block::BlockBackend;
use paraslot_backends::block::testing::GatedBackend;
use paraslot_backends::net::Sink;
use paraslot_device::{Executor, Host};
use paraslot_pci::{PciDevice, SharedDevice};
use paraslot_protocol::{Access, Completion, Device, DiskJob, Job, NetJob, Phase, Traffic};
use paraslot_tests::image::patterned;
use paraslot_tests::parts;
use paraslot_vmm::{Path, Vm, VmConfig, VmError, VmHandle};
use vm_memory::GuestMemoryMmap;

use crate::disks::{CAPACITY, job};
use crate::networks::{adapter, job as net_job};
use crate::{MEMORY, SLOT, all_went_well, kvm, thread as device_thread};

/// More than a guest does before the function is gone.
const FOR_EVER: u64 = 1 << 40;
/// It is for a machine that hangs.
const LIMIT: Duration = Duration::from_secs(60);

type GuestHost = Host<Arc<GuestMemoryMmap>>;

/// What a function has of its host and of what is behind it, to see whether it is let go.
struct Held {
    name: &'static str,
    is_held: Box<dyn Fn() -> bool>,
}

fn held<T: ?Sized + 'static>(name: &'static str, what: &Arc<T>) -> Held {
    let weak: Weak<T> = Arc::downgrade(what);
    Held { name, is_held: Box::new(move || weak.strong_count() != 0) }
}

/// With the executor go its threads, and with the interrupts their eventfds and KVM's routes.
fn held_of(host: &GuestHost) -> Vec<Held> {
    vec![
        held("interrupts", &host.msi),
        held("a pin", &host.intx),
        held("an executor", &host.executor),
    ]
}

/// As a bus holds it.
fn shared(function: Box<dyn PciDevice>) -> SharedDevice {
    Arc::new(Mutex::new(function))
}

fn disk(device: Device, image: Arc<dyn BlockBackend>, host: GuestHost) -> SharedDevice {
    shared(parts::disk(device, image, host))
}

/// Nothing is held any more. A worker may be on its thread a moment longer.
fn wait_until_let_go(device: Device, all: &[Held]) {
    let start = Instant::now();
    for Held { name, is_held } in all {
        while is_held() {
            assert!(start.elapsed() < LIMIT, "{device}: {name} is left");
            thread::yield_now();
        }
    }
}

/// A guest at work on a function, and how it is waited for that it is.
struct Victim<'a> {
    function: SharedDevice,
    job: Job,
    /// Waits until the function is in the middle of something.
    busy: Box<dyn Fn() + Send + 'a>,
    /// Lets that end.
    ease: Box<dyn Fn() + Send + 'a>,
}

/// Runs a victim until it is at work; then takes its function out, and puts `fresh` there instead.
fn pull(vm: &mut Vm, victim: Victim<'_>, fresh: SharedDevice, left: &mut Vec<Held>) {
    let Victim { function, job, busy, ease } = victim;
    left.push(held("the function", &function));
    vm.plug(SLOT, function).expect("a free slot");
    let handle = vm.handle();
    vm.load(paraslot_guest::IMAGE, &job.with_tsc_hz(vm.tsc_hz()).to_string()).expect("it fits");
    let (started, start) = std::sync::mpsc::channel();
    let end = thread::scope(|scope| {
        let pulling = scope.spawn(move || {
            start.recv().expect("the guest starts");
            busy();
            take_out(&handle, ease);
            handle.plug(SLOT, fresh).expect("the slot is free again");
            handle.suspend();
        });
        let end = vm.run(LIMIT, &mut |phase| {
            if phase == Phase::Measure {
                started.send(()).expect("somebody waits");
            }
        });
        pulling.join().expect("it is pulled");
        end
    });
    // It may have seen that nothing is there.
    assert!(matches!(end, Ok(_) | Err(VmError::Suspended)), "{end:?}");
}

fn take_out(handle: &VmHandle, ease: Box<dyn Fn() + Send + '_>) {
    thread::scope(|scope| {
        let unplugging = scope.spawn(|| handle.unplug(SLOT));
        ease();
        let function = unplugging.join().expect("no panic").expect("KVM lets go");
        let function = function.expect("it was there");
        assert_eq!(Arc::strong_count(&function), 1, "somebody else has it");
        // It is paused, so it can be saved; and it does not decode for anybody.
        function.lock().expect("no panic").save().expect("its state");
    });
    assert!(handle.unplug(SLOT).expect("nothing to let go of").is_none());
}

/// The function that is there now is right, by a guest that has not seen the one before.
fn all_is_well(vm: &mut Vm, job: Job) {
    let job = job.with_tsc_hz(vm.tsc_hz());
    vm.load(paraslot_guest::IMAGE, &job.to_string()).expect("it fits");
    let run = match vm.run(LIMIT, &mut |_| ()) {
        // The guest before this one had ended by itself when it was to be suspended.
        Err(VmError::Suspended) => vm.run(LIMIT, &mut |_| ()),
        run => run,
    };
    let run = run.expect("the guest runs");
    all_went_well(&job, &run.console);
    let function = vm.handle().unplug(SLOT).expect("KVM lets go");
    drop(function.expect("it was there"));
}

fn host(vm: &Vm, left: &mut Vec<Held>) -> GuestHost {
    let executor: Arc<dyn Executor> = device_thread(Duration::from_micros(20));
    let host = vm.host(SLOT, executor);
    left.extend(held_of(&host));
    host
}

#[test]
fn disks_are_pulled_out_in_the_middle_of_their_work() {
    if !kvm() {
        return;
    }
    for device in [Device::VirtioBlk, Device::VirtioScsi, Device::Pvscsi, Device::Ahci] {
        let mut vm = Vm::new(&VmConfig::new(MEMORY, Path::Event)).expect("a machine");
        for depth in [1, 32, 8] {
            let mut left = Vec::new();
            let gated = GatedBackend::new(patterned(CAPACITY));
            let gate = gated.gate();
            gate.open();
            let backend: Arc<GatedBackend<_>> = Arc::new(gated);
            left.push(held("a disk", &backend));
            let victim = Victim {
                function: disk(device, backend, host(&vm, &mut left)),
                job: Job::Disk(DiskJob {
                    operations: FOR_EVER,
                    ..job(device, Access::RandomRead, Completion::Poll, depth)
                }),
                busy: Box::new(|| {
                    gate.close();
                    while gate.held() == 0 {
                        thread::yield_now();
                    }
                }),
                ease: Box::new(|| gate.open()),
            };
            let image = Arc::new(patterned(CAPACITY));
            left.push(held("another disk", &image));
            let fresh = disk(device, image, host(&vm, &mut left));
            pull(&mut vm, victim, fresh, &mut left);
            let job = job(device, Access::RandomWrite, Completion::Interrupt, depth);
            all_is_well(&mut vm, Job::Disk(job));
            wait_until_let_go(device, &left);
        }
    }
}

#[test]
fn adapters_are_pulled_out_in_the_middle_of_their_work() {
    if !kvm() {
        return;
    }
    for device in [Device::VirtioNet, Device::Vmxnet3, Device::E1000] {
        let mut vm = Vm::new(&VmConfig::new(MEMORY, Path::Event)).expect("a machine");
        for batch in [1, 32] {
            let mut left = Vec::new();
            let sink = Sink::new(1).expect("a sink");
            let port = Arc::new(sink.clone());
            left.push(held("a port", &port));
            let victim = Victim {
                function: shared(adapter(device, port, host(&vm, &mut left)).0),
                job: Job::Net(NetJob {
                    operations: FOR_EVER,
                    ..net_job(device, Traffic::Transmit, Completion::Poll, batch)
                }),
                busy: Box::new(move || {
                    let frames = sink.frames();
                    while sink.frames() < frames + 100 {
                        thread::yield_now();
                    }
                }),
                ease: Box::new(|| ()),
            };
            let port = Arc::new(Sink::new(1).expect("a sink"));
            left.push(held("another port", &port));
            let (fresh, statistics) = adapter(device, port, host(&vm, &mut left));
            pull(&mut vm, victim, shared(fresh), &mut left);
            let job = net_job(device, Traffic::Transmit, Completion::Interrupt, batch);
            all_is_well(&mut vm, Job::Net(job));
            assert!(statistics().sent_frames > 0, "{device}");
            drop(statistics);
            wait_until_let_go(device, &left);
        }
    }
}

/// A backend that does not give a request back holds nobody up for ever, and its late answer goes nowhere.
#[test]
fn a_disk_is_pulled_out_whose_backend_hangs() {
    if !kvm() {
        return;
    }
    let device = Device::VirtioBlk;
    let mut vm = Vm::new(&VmConfig::new(MEMORY, Path::Event)).expect("a machine");
    let backend = GatedBackend::new(patterned(CAPACITY));
    let gate = backend.gate();
    gate.open();
    let mut left = Vec::new();
    let host_of_old = host(&vm, &mut left);
    // Its thread is the backend's for as long as that hangs: whoever drops the last of it waits.
    let executor = host_of_old.executor.clone();
    let function = disk(device, Arc::new(backend), host_of_old);
    vm.plug(SLOT, function).expect("a free slot");
    let job = Job::Disk(job(device, Access::RandomRead, Completion::Poll, 4));
    let text = job.with_tsc_hz(vm.tsc_hz()).to_string();
    vm.load(paraslot_guest::IMAGE, &text).expect("it fits");
    let handle = vm.handle();
    let mut pulling = None;
    let end = vm.run(LIMIT, &mut |phase| {
        if phase == Phase::Measure {
            gate.close();
            let (gate, handle) = (gate.clone(), handle.clone());
            pulling = Some(thread::spawn(move || {
                while gate.held() == 0 {
                    thread::yield_now();
                }
                drop(handle.unplug(SLOT).expect("KVM lets go").expect("it was there"));
                handle.suspend();
            }));
        }
    });
    pulling.expect("the guest has started").join().expect("it is pulled");
    assert!(matches!(end, Ok(_) | Err(VmError::Suspended)), "{end:?}");
    assert!(gate.held() > 0);
    let fresh = disk(device, Arc::new(patterned(CAPACITY)), host(&vm, &mut left));
    vm.plug(SLOT, fresh).expect("the slot is free");
    all_is_well(&mut vm, job);
    gate.open();
    drop(executor);
    wait_until_let_go(device, &left);
}
