//! Disks and networks in a virtual machine, driven by the freestanding guest: the data is right, and
//! each operation costs exactly the exits that it must.
//!
//! Needs `/dev/kvm`. Where there is none, each test says so and passes; with `CI` set in the
//! environment, a host that has the device file must be able to run them.

mod disks;
mod networks;
mod plugging;
mod served;
mod snapshot;

use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_device::{Executor, Host, ThreadExecutor, ThreadOptions};
use paraslot_pci::{Bdf, PciDevice};
use paraslot_protocol::{Header, Job, Outcome, Phase, Status, frame};
use paraslot_vmm::in_process::GuestRam;
use paraslot_vmm::{Exits, Path, Vm, VmConfig, VmError};

const SLOT: Bdf = Bdf::root(3);
/// Bytes of a machine's memory.
const MEMORY: u64 = 64 << 20;

/// Runs a job on the device that `make` makes: what the guest found out, which is that all went well,
/// and the exits of its measured part. `on_phase` is called at the guest's marks.
fn run(
    path: Path,
    busy_poll: Duration,
    job: Job,
    make: impl FnOnce(Host<GuestRam>) -> Box<dyn PciDevice>,
    on_phase: &mut dyn FnMut(Phase),
) -> Result<(Header, Exits), VmError> {
    run_in(&VmConfig::new(MEMORY, path), thread(busy_poll), job, make, on_phase)
}

/// A device's thread.
fn thread(busy_poll: Duration) -> Arc<dyn Executor> {
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    Arc::new(ThreadExecutor::new("device", &options).expect("a thread"))
}

/// The same in a machine that is to be like `config`, whose devices' workers are for `executor`.
fn run_in(
    config: &VmConfig,
    executor: Arc<dyn Executor>,
    job: Job,
    make: impl FnOnce(Host<GuestRam>) -> Box<dyn PciDevice>,
    on_phase: &mut dyn FnMut(Phase),
) -> Result<(Header, Exits), VmError> {
    let mut vm = Vm::new(config)?;
    let device = make(vm.host(SLOT, executor));
    vm.plug(SLOT, Arc::new(Mutex::new(device)))?;
    let job = job.with_tsc_hz(vm.tsc_hz());
    vm.load(paraslot_guest::IMAGE, &job.to_string())?;
    let run = vm.run(Duration::from_secs(120), on_phase)?;
    Ok((all_went_well(&job, &run.console), run.measured.expect("a measured part").exits))
}

/// What the guest found out about a job, which is that all went well.
fn all_went_well(job: &Job, mut console: &[u8]) -> Header {
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
    assert_eq!(header.errors.get(), 0, "{job}");
    header
}

/// Whether there is a KVM to run on; says why not.
fn kvm() -> bool {
    let reason = match Vm::new(&VmConfig::new(4 << 20, Path::Event)) {
        Ok(_) => return true,
        Err(error) => error,
    };
    let expected = std::env::var_os("CI").is_some() && FilePath::new("/dev/kvm").exists();
    assert!(!expected, "{reason}");
    println!("skipped: {reason}");
    false
}
