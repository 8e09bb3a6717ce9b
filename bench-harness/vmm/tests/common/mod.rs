//! What the tests on KVM share.
#![expect(dead_code, reason = "each test program uses a part")]

pub(crate) mod device;
pub(crate) mod kernel;
pub(crate) mod program;

use std::time::Duration;

use paraslot_protocol::frame::{self, Kind};
use paraslot_protocol::{Outcome, Status};
use paraslot_vmm::{Path, Run, Vm, VmConfig, VmError, probe};

/// Longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Whether there is a KVM to test with. Says so if not; a build machine that has one must let it be
/// used.
pub(crate) fn kvm() -> bool {
    let Err(error) = probe() else { return true };
    let must = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!must || matches!(error, VmError::NoKvm), "{error}");
    eprintln!("skipped, since it needs KVM: {error}");
    false
}

/// A machine of 64 MiB.
pub(crate) fn machine(path: Path) -> Vm {
    Vm::new(&VmConfig::new(64 << 20, path)).unwrap()
}

/// The lines of text and the status in a console.
pub(crate) fn said(console: &[u8]) -> (Vec<String>, Option<Status>) {
    let (mut lines, mut status) = (Vec::new(), None);
    let mut rest = console;
    while let Some((kind, payload, skip)) = frame::find(rest) {
        match kind {
            Kind::Text => lines.push(String::from_utf8(payload.to_vec()).unwrap()),
            Kind::Outcome => {
                let (header, _) = Outcome::parse(payload).unwrap();
                status = Status::from_raw(header.status.get());
            }
        }
        rest = &rest[skip..];
    }
    (lines, status)
}

/// Runs the guest image's check of itself.
pub(crate) fn check(path: Path, name: &str) -> Result<Run, VmError> {
    let mut vm = machine(path);
    vm.load(paraslot_guest::IMAGE, &format!("check={name}"))?;
    vm.run(LIMIT, &mut |_| ())
}
