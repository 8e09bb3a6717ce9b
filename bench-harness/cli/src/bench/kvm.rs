//! A guest under KVM, or two.

mod pair;
pub(super) mod passed;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_device::{Host, ThreadExecutor, ThreadOptions};
use paraslot_pci::Bdf;
use paraslot_protocol::{DiskJob, Job, Phase};
use paraslot_report::Path;
use paraslot_vfio::IommuSpace;
use paraslot_vmm::{Run, Vm, VmConfig, VmError};
use vm_memory::GuestMemoryMmap;

use self::passed::PassedDisk;
use super::built::{Built, Watch};
use super::marks::Marks;
use super::{Bench, GUEST_MEMORY, Sample, Setting, limit, outcome};
use crate::drag;
use crate::plan::{Cell, Flow};
use crate::spec::DeviceSpec;

/// Runs each job in a virtual machine of its own, or in two.
pub(crate) struct KvmBench<'a> {
    /// How.
    setting: Setting<'a>,
    /// What is known of the disks that are passed through, by device.
    disks: BTreeMap<usize, PassedDisk>,
}

impl<'a> KvmBench<'a> {
    /// Runs them so.
    pub(crate) fn new(setting: Setting<'a>) -> Self {
        Self { setting, disks: BTreeMap::new() }
    }
}

/// Where a device is plugged in.
const FUNCTION: Bdf = Bdf::root(1);

/// A virtual machine with a device and a job.
struct Machine {
    vm: Vm,
    watch: Arc<Watch>,
    label: String,
    limit: Duration,
}

impl Machine {
    /// One that takes `path` to the device that `build` makes, with its virtual processor on `cpu` and
    /// the device's thread as `threads` say.
    fn new(
        path: Path,
        shared_memory: bool,
        cpu: Option<usize>,
        threads: &ThreadOptions,
        drag: Duration,
        job: &Job,
        build: impl FnOnce(&Vm, Host<Arc<GuestMemoryMmap>>) -> anyhow::Result<Built>,
    ) -> anyhow::Result<Self> {
        let served = path == Path::VfioUser;
        let path = match path {
            Path::Trap => paraslot_vmm::Path::Trap,
            Path::Event | Path::VfioUser | Path::Passthrough => paraslot_vmm::Path::Event,
            Path::InProcess => bail!("there is no path {path} under KVM"),
        };
        let config =
            VmConfig { vcpu_cpu: cpu, shared_memory, ..VmConfig::new(GUEST_MEMORY.into(), path) };
        let mut vm = Vm::new(&config)?;
        // What is served has its own thread elsewhere. This one would pass interrupts on that KVM cannot take.
        let busy_poll = if served { Duration::ZERO } else { threads.busy_poll };
        let drag = if served { Duration::ZERO } else { drag };
        let threads = ThreadOptions { busy_poll, ..threads.clone() };
        let executor =
            ThreadExecutor::new("device", &threads).context("cannot start the device's thread")?;
        let executor = drag::on(Arc::new(executor), drag);
        let Built { function, watch, label } = build(&vm, vm.host(FUNCTION, executor))?;
        vm.plug(FUNCTION, Arc::new(Mutex::new(function)))?;
        let job = job.with_tsc_hz(vm.tsc_hz());
        vm.load(paraslot_guest::IMAGE, &job.to_string())?;
        Ok(Self { vm, watch: Arc::new(watch), label, limit: limit(&job) })
    }

    /// Runs it, and calls `on_phase` at each of the guest's marks while the guest stands still.
    fn run(&mut self, on_phase: &mut dyn FnMut(Phase)) -> anyhow::Result<Sample> {
        let vm = &mut self.vm;
        let run = match vm.run(self.limit, on_phase) {
            Ok(run) => run,
            Err(error @ VmError::Suspended) => return Err(error.into()),
            // What the guest has to say explains more.
            Err(error) => {
                return match outcome::from_console(&vm.console()) {
                    Err(said) => Err(said.context(error)),
                    Ok(_) => Err(error.into()),
                };
            }
        };
        let Run { console, measured, .. } = run;
        let mut sample = outcome::from_console(&console)?;
        self.watch.confirm(&sample)?;
        sample.backend.clone_from(&self.label);
        sample.exits = measured.map(|measured| measured.exits.total());
        Ok(sample)
    }
}

impl KvmBench<'_> {
    /// Runs a job on one machine.
    fn alone(&self, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
        let (cpu, threads) = (self.setting.vcpu_cpu(), self.setting.threads());
        let places = [(self.setting.device_cpu(), cpu)];
        let server = self.setting.server(cell, &places)?;
        let build = |vm: &Vm, host| match (&self.setting.devices[cell.device], &server) {
            (_, Some(server)) => server.plug(0, vm.handle(), host),
            (DeviceSpec::Passed(spec), _) => {
                let space = IommuSpace::new(Some(vm.vfio()?))?;
                space.map_memory(vm.memory())?;
                passed::open(spec, &space, host)
            }
            (DeviceSpec::Disk(_) | DeviceSpec::Net(_), _) => self.setting.build(cell, host),
        };
        let run = || {
            let shared = self.setting.shared_memory;
            let drag = self.setting.drag;
            let mut machine = Machine::new(cell.path, shared, cpu, &threads, drag, job, build)?;
            let mut marks = Marks::new(vec![machine.watch.clone()]);
            let mut sample = machine.run(&mut |phase| marks.note(phase))?;
            marks.complete(&mut sample);
            Ok(sample)
        };
        let result = run();
        match server {
            Some(server) => server.end(result),
            None => result,
        }
    }
}

impl Bench for KvmBench<'_> {
    fn run(&mut self, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
        if cell.net().is_some_and(|workload| workload.flow == Flow::Wire) {
            return pair::run(&self.setting, cell, job);
        }
        match (&self.setting.devices[cell.device], job) {
            (DeviceSpec::Passed(spec), Job::Disk(job)) => {
                let disk = self.disks.get(&cell.device).copied().unwrap_or_default();
                let run = |job: DiskJob| self.alone(cell, &job.into());
                let (job, disk) = disk.prepare(spec, job, run)?;
                self.disks.insert(cell.device, disk);
                self.alone(cell, &job.into())
            }
            _ => self.alone(cell, job),
        }
    }
}
