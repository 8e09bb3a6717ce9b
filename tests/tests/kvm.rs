//! Both disks in a virtual machine, driven by the freestanding guest: the data is right, and each
//! operation costs exactly the exits that it must.
//!
//! Needs `/dev/kvm`. Where there is none, each test says so and passes; with `CI` set in the
//! environment, a host that has the device file must be able to run them.

use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_ahci::{Ahci, DiskOptions};
use paraslot_device::{ThreadExecutor, ThreadOptions};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_protocol::{Access, Completion, Device, Header, Job, Outcome, Status, frame};
use paraslot_tests::image::patterned;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_pci::VirtioPci;
use paraslot_vmm::{Exits, Path, Vm, VmConfig, VmError};

const CAPACITY: usize = 2 << 20;
const SLOT: Bdf = Bdf::root(3);
const OPERATIONS: u64 = 300;

fn job(device: Device, access: Access, completion: Completion, depth: u16) -> Job {
    Job {
        device,
        access,
        completion,
        block_size: 4096,
        depth,
        span: CAPACITY as u64,
        warm_up_ms: 1,
        measure_ms: 60_000,
        operations: OPERATIONS,
        verify: true,
        seed: 7,
        tsc_hz: 0,
    }
}

/// What the guest found out, and the exits of its measured part.
fn run(path: Path, busy_poll: Duration, job: &Job) -> Result<(Header, Exits), VmError> {
    let mut vm = Vm::new(&VmConfig { memory_bytes: 64 << 20, path, vcpu_cpu: None })?;
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    let executor = Arc::new(ThreadExecutor::new("device", &options).expect("a thread"));
    let host = vm.host(SLOT, executor);
    let backend = Arc::new(patterned(CAPACITY));
    let device: SharedDevice = match job.device {
        Device::VirtioBlk => {
            let device = VirtioBlk::new(backend, &Default::default()).expect("a disk");
            Arc::new(Mutex::new(VirtioPci::new(device, host).expect("a function")))
        }
        Device::Ahci => {
            let options = paraslot_ahci::Options::new([DiskOptions::new(backend)]);
            Arc::new(Mutex::new(Ahci::new(options, host).expect("a function")))
        }
    };
    vm.plug(SLOT, device)?;
    let job = Job { tsc_hz: vm.tsc_hz(), ..*job };
    vm.load(paraslot_guest::IMAGE, &job.to_string())?;
    let run = vm.run(Duration::from_secs(120), &mut |_| ())?;

    let mut console = run.console.as_slice();
    let mut outcome = None;
    while let Some((kind, payload, skip)) = frame::find(console) {
        match kind {
            frame::Kind::Text => println!("guest: {}", String::from_utf8_lossy(payload)),
            frame::Kind::Outcome => outcome = Some(Outcome::parse(payload).expect("an outcome").0),
        }
        console = &console[skip..];
    }
    let header = outcome.expect("the guest sends its outcome");
    assert_eq!(Status::from_raw(header.status.get()), Some(Status::Ok), "{job}");
    assert_eq!((header.operations.get(), header.errors.get()), (OPERATIONS, 0), "{job}");
    assert!(header.verified.get() > 0, "{job}");
    Ok((header, run.measured.expect("a measured part").exits))
}

/// Whether there is a KVM to run on; says why not.
fn kvm() -> bool {
    let reason =
        match Vm::new(&VmConfig { memory_bytes: 4 << 20, path: Path::Event, vcpu_cpu: None }) {
            Ok(_) => return true,
            Err(error) => error,
        };
    let expected = std::env::var_os("CI").is_some() && FilePath::new("/dev/kvm").exists();
    assert!(!expected, "{reason}");
    println!("skipped: {reason}");
    false
}

/// All combinations of depth, completion, access and polling.
fn each(device: Device, path: Path, mut check: impl FnMut(&Job, &Header, Exits)) {
    if !kvm() {
        return;
    }
    for depth in [1, 32] {
        for completion in [Completion::Poll, Completion::Interrupt] {
            for (access, busy_poll) in [
                (Access::RandomRead, Duration::ZERO),
                (Access::RandomWrite, Duration::from_micros(50)),
            ] {
                let job = job(device, access, completion, depth);
                let (header, exits) = run(path, busy_poll, &job).expect("the guest runs");
                check(&job, &header, exits);
            }
        }
    }
}

// virtio with an ioeventfd and an irqfd: no exit at all, whatever the depth.
#[test]
fn virtio_blk_does_not_exit_on_the_event_path() {
    each(Device::VirtioBlk, Path::Event, |job, _, exits| {
        assert_eq!(exits.total() - exits.others, 0, "{job}: {exits:?}");
    });
}

// Each doorbell is an exit, and there is nothing else.
#[test]
fn virtio_blk_exits_for_doorbells_alone_on_the_trap_path() {
    each(Device::VirtioBlk, Path::Trap, |job, header, exits| {
        assert_eq!(exits.mmio_writes, header.doorbells.get(), "{job}: {exits:?}");
        assert!(exits.mmio_writes <= OPERATIONS, "{job}: {exits:?}");
        assert_eq!(exits.total() - exits.others, exits.mmio_writes, "{job}: {exits:?}");
    });
}

// At depth 1 Linux's sequence is PxSACT, PxCI; then IS, PxIS read, PxIS, PxSACT read, IS. Its writes
// exit on either path; its reads do not where the registers are a page of the guest.
#[test]
fn ahci_exits_for_writes_alone_on_the_event_path() {
    each(Device::Ahci, Path::Event, |job, _, exits| {
        assert_eq!(exits.mmio_reads, 0, "{job}: {exits:?}");
        let writes = if job.completion == Completion::Interrupt { 4 } else { 2 };
        if job.depth == 1 {
            assert_eq!(exits.mmio_writes, writes * OPERATIONS, "{job}: {exits:?}");
        } else {
            assert!(exits.mmio_writes <= writes * OPERATIONS, "{job}: {exits:?}");
        }
    });
}

#[test]
fn ahci_exits_seven_times_an_operation_on_the_trap_path() {
    each(Device::Ahci, Path::Trap, |job, header, exits| {
        assert_eq!(exits.mmio_reads + exits.mmio_writes, header.register_accesses.get(), "{job}");
        if job.depth == 1 && job.completion == Completion::Interrupt {
            assert_eq!(exits.mmio_writes, 4 * OPERATIONS, "{job}: {exits:?}");
            assert_eq!(exits.mmio_reads, 3 * OPERATIONS, "{job}: {exits:?}");
        }
    });
}
