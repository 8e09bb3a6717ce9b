//! Disks and networks in a virtual machine, driven by the freestanding guest: the data is right, and
//! each operation costs exactly the exits that it must.
//!
//! Needs `/dev/kvm`. Where there is none, each test says so and passes; with `CI` set in the
//! environment, a host that has the device file must be able to run them.

mod disks;
mod networks;

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use paraslot_device::{Host, ThreadExecutor, ThreadOptions};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_protocol::{Header, Job, Outcome, Phase, Status, frame};
use paraslot_vmm::{Exits, Path, Vm, VmConfig, VmError};
use vm_memory::GuestMemoryMmap;

const SLOT: Bdf = Bdf::root(3);

/// Runs a job on the device that `make` makes: what the guest found out, which is that all went well,
/// and the exits of its measured part. `on_phase` is called at the guest's marks.
fn run(
    path: Path,
    busy_poll: Duration,
    job: Job,
    make: impl FnOnce(Host<Arc<GuestMemoryMmap>>) -> SharedDevice,
    on_phase: &mut dyn FnMut(Phase),
) -> Result<(Header, Exits), VmError> {
    let mut vm = Vm::new(&VmConfig { memory_bytes: 64 << 20, path, vcpu_cpu: None })?;
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    let executor = Arc::new(ThreadExecutor::new("device", &options).expect("a thread"));
    let device = make(vm.host(SLOT, executor));
    vm.plug(SLOT, device)?;
    let job = job.with_tsc_hz(vm.tsc_hz());
    vm.load(paraslot_guest::IMAGE, &job.to_string())?;
    let run = vm.run(Duration::from_secs(120), on_phase)?;

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
    assert_eq!(header.errors.get(), 0, "{job}");
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
