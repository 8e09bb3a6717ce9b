//! A guest under KVM.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_device::ThreadExecutor;
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_protocol::{Job, Phase};
use paraslot_report::Path;
use paraslot_vmm::{Vm, VmConfig};

use super::{Bench, GUEST_MEMORY, Sample, Setting, limit, outcome};
use crate::counted::{Copied, Counted};
use crate::devices::{self, Disk};
use crate::plan::Cell;
use crate::sys;

/// Runs each job in a virtual machine of its own.
pub(crate) struct KvmBench<'a> {
    /// How.
    pub(crate) setting: Setting<'a>,
}

/// What is counted on this side, at one of the guest's marks.
struct Mark {
    cpu: Option<Duration>,
    copied: u64,
}

impl Mark {
    fn now(copied: &Copied) -> Self {
        Self { cpu: sys::process_cpu_time(), copied: copied.bytes() }
    }
}

impl Bench for KvmBench<'_> {
    fn run(&mut self, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
        const FUNCTION: Bdf = Bdf::root(1);
        let spec = &self.setting.devices[cell.device];
        let opened = self.setting.storage.open(spec, cell)?;
        let (backend, copied) = Counted::new(opened.backend);
        let path = match cell.path {
            Path::Trap => paraslot_vmm::Path::Trap,
            Path::Event => paraslot_vmm::Path::Event,
            other => bail!("there is no path {other} under KVM"),
        };
        let config =
            VmConfig { memory_bytes: GUEST_MEMORY.into(), path, vcpu_cpu: self.setting.vcpu_cpu() };
        let mut vm = Vm::new(&config)?;
        let executor = ThreadExecutor::new("device", &self.setting.threads())
            .context("cannot start the device's thread")?;
        let host = vm.host(FUNCTION, Arc::new(executor));
        let device: SharedDevice = match devices::build(spec, Arc::new(backend), host)? {
            Disk::VirtioBlk(device) => Arc::new(Mutex::new(device)),
            Disk::Ahci(device) => Arc::new(Mutex::new(device)),
        };
        vm.plug(FUNCTION, device)?;
        let job = Job { tsc_hz: vm.tsc_hz(), ..*job };
        vm.load(paraslot_guest::IMAGE, &job.to_string())?;

        let (mut start, mut end) = (None, None);
        let run = vm.run(limit(&job), &mut |phase| match phase {
            Phase::WarmUp => {}
            Phase::Measure => start = Some(Mark::now(&copied)),
            Phase::Done => end = Some(Mark::now(&copied)),
        });
        let run = match run {
            Ok(run) => run,
            // What the guest has to say explains more.
            Err(error) => {
                return match outcome::from_console(&vm.console()) {
                    Err(said) => Err(said.context(error)),
                    Ok(_) => Err(error.into()),
                };
            }
        };
        let mut sample = outcome::from_console(&run.console)?;
        sample.backend = opened.label;
        sample.exits = run.measured.map(|measured| measured.exits.total());
        if let Some((start, end)) = start.zip(end) {
            sample.host_cpu = end.cpu.zip(start.cpu).map(|(end, start)| end.saturating_sub(start));
            sample.copied = Some(end.copied.wrapping_sub(start.copied));
        }
        Ok(sample)
    }
}
