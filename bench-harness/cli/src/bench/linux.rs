//! Debian's kernel in a guest under KVM, and programs of Debian's that measure.
//!
//! Each run is a machine of its own: the device in one slot, a read-only disk with the tools in
//! another. A script loads the device's driver, warms it up, measures, and verifies the data.

mod disk;
mod far_end;
mod files;
mod fio;
mod guest;
mod stream;
mod sums;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_device::{ThreadExecutor, ThreadOptions};
use paraslot_pci::Bdf;
use paraslot_protocol::{Device, DiskJob, Job, NetJob, Phase};
use paraslot_report::{Guest, Path};
use paraslot_vfio::IommuSpace;
use paraslot_vmm::{LinuxConfig, LinuxImage, LinuxVm};

use super::built::{Built, adapter};
use super::kvm::passed;
use super::marks::Marks;
use super::{Bench, Sample, Setting, limit};
use crate::devices;
use crate::drag;
use crate::network::{Arrivals, Opened};
use crate::plan::{Cell, StreamWorkload, Workload};
use crate::spec::{DeviceSpec, DiskSpec};
use crate::storage::UNVERIFIED;
use disk::DiskScript;
use far_end::FarEnd;
use guest::Told;
use stream::StreamScript;

pub(crate) use files::Files;

/// Where the device is plugged in, and where the disk with the tools is: on another interrupt pin.
const FUNCTION: Bdf = Bdf::root(1);
const TOOLS: Bdf = Bdf::root(2);

/// The guest's memory in bytes.
const MEMORY: u64 = 512 << 20;

/// How long booting, loading drivers and verifying may take besides the measuring, on a host that is
/// emulated itself; and filling a disk.
const AROUND: Duration = Duration::from_secs(240);
const FILLING: Duration = Duration::from_secs(240);

/// Runs each job in a Linux guest of its own.
pub(crate) struct LinuxBench<'a> {
    /// How.
    setting: Setting<'a>,
    files: Files,
    /// The disks that are passed through and that hold something.
    filled: BTreeSet<usize>,
    /// What the guests call themselves.
    name: Option<String>,
}

/// The driver's modules, besides those that every script loads.
fn modules(device: Device) -> &'static str {
    match device {
        Device::VirtioBlk => "virtio_blk",
        Device::VirtioScsi => "virtio_scsi",
        Device::Pvscsi => "vmw_pvscsi",
        Device::Ahci => "ahci",
        Device::Nvme => "nvme",
        Device::VirtioNet => "virtio_net",
        Device::Vmxnet3 => "vmxnet3",
        Device::E1000 => "e1000",
    }
}

/// What all scripts begin with.
fn prelude(device: Device) -> String {
    format!(
        "slot={:02x} tools={:02x} modules={}\n{}",
        FUNCTION.device,
        TOOLS.device,
        modules(device),
        include_str!("linux/scripts/prelude.sh")
    )
}

impl<'a> LinuxBench<'a> {
    /// Runs them so, in guests made of `files`.
    pub(crate) fn new(setting: Setting<'a>, files: Files) -> Self {
        Self { setting, files, filled: BTreeSet::new(), name: None }
    }

    /// Runs `script` in a machine with the cell's device, an adapter's cable having `far_end`. Returns
    /// what it told, and what was counted on this side.
    fn boot(
        &self,
        cell: &Cell,
        far_end: Option<&FarEnd>,
        script: &str,
        limit: Duration,
    ) -> anyhow::Result<(Told, Sample)> {
        let path = match cell.path {
            Path::Trap => paraslot_vmm::Path::Trap,
            Path::Event | Path::Passthrough => paraslot_vmm::Path::Event,
            other => bail!("there is no path {other} under KVM"),
        };
        let config = LinuxConfig {
            memory_bytes: MEMORY,
            cpus: 1,
            path,
            vcpu_cpus: self.setting.vcpu_cpu().into_iter().collect(),
        };
        let (wire, console) = guest::console();
        let mut vm = LinuxVm::new(&config, wire)?;
        let executor = ThreadExecutor::new("device", &self.setting.threads());
        let executor = Arc::new(executor.context("cannot start the device's thread")?);
        let host = vm.host(FUNCTION, drag::on(executor, self.setting.drag));
        let device = (&self.setting.devices[cell.device], far_end);
        let Built { function, watch, label } = match device {
            (DeviceSpec::Passed(spec), _) => {
                let space = IommuSpace::new(Some(vm.vfio()?))?;
                space.map_memory(vm.memory())?;
                passed::open(spec, &space, host)?
            }
            (DeviceSpec::Net(spec), Some(far_end)) => {
                let unverified = if spec.verify { "" } else { UNVERIFIED };
                let opened = Opened {
                    backend: far_end.backend(),
                    label: format!("backend=tap{unverified}"),
                    arrivals: Arrivals::Unknown,
                };
                adapter(spec, opened, host)?
            }
            (DeviceSpec::Disk(_) | DeviceSpec::Net(_), _) => self.setting.build(cell, host)?,
        };
        vm.plug(FUNCTION, Arc::new(Mutex::new(function)))?;
        self.plug_tools(&mut vm)?;
        let initrd = self.files.initrd(script)?;
        vm.load(&LinuxImage {
            kernel: self.files.kernel(),
            initrd: Some(&initrd),
            command_line: self.files.command_line(),
        })?;
        drop(initrd);

        let watch = Arc::new(watch);
        let mut marks = Marks::new(vec![watch.clone()]);
        let mut exits = [None; 2];
        let handle = vm.handle();
        let told = console.run(&mut vm, limit, &mut |phase| {
            // Of a device's registers; the console's are ports.
            let now = handle.exits();
            let now = now.mmio_reads + now.mmio_writes;
            match phase {
                Phase::WarmUp => {}
                Phase::Measure => exits[0] = Some(now),
                Phase::Done => exits[1] = Some(now),
            }
            marks.note(phase);
        })?;
        let mut sample = Sample { backend: label, ..Sample::default() };
        marks.complete(&mut sample);
        watch.confirm(&sample)?;
        let [start, end] = exits;
        sample.exits = end.zip(start).map(|(end, start)| end - start);
        sample.interrupts = told.fact("interrupts")?;
        Ok((told, sample))
    }

    /// Plugs in the disk with the tools, on a thread of its own that does not poll.
    fn plug_tools(&self, vm: &mut LinuxVm) -> anyhow::Result<()> {
        let options =
            ThreadOptions { threads: 1, busy_poll: Duration::ZERO, ..ThreadOptions::default() };
        let executor = ThreadExecutor::new("tools", &options).context("cannot start a thread")?;
        let spec = DiskSpec { read_only: true, ..DiskSpec::new(Device::VirtioBlk) };
        let host = vm.host(TOOLS, Arc::new(executor));
        let (disk, _) = devices::disk(&spec, self.files.tools()?, host)?;
        Ok(vm.plug(TOOLS, Arc::new(Mutex::new(disk)))?)
    }

    /// Measures a disk.
    fn disk(&mut self, cell: &Cell, job: &DiskJob) -> anyhow::Result<Sample> {
        let filled = self.filled.contains(&cell.device);
        let script = DiskScript::new(&self.setting.devices[cell.device], job, filled);
        let text = prelude(job.device) + &script.to_string();
        let filling = if script.fills() { FILLING } else { Duration::ZERO };
        let limit = limit(&(*job).into()) + AROUND + filling;
        let (told, counted) = self.boot(cell, None, &text, limit)?;
        let (program, sample) = disk::sample(&told, job, counted)?;
        if script.fills() {
            self.filled.insert(cell.device);
        }
        self.learn(&told, &program)?;
        Ok(sample)
    }

    /// Measures an adapter.
    fn stream(
        &mut self,
        cell: &Cell,
        workload: StreamWorkload,
        job: &NetJob,
    ) -> anyhow::Result<Sample> {
        let queues = match &self.setting.devices[cell.device] {
            DeviceSpec::Net(spec) => spec.queues.unwrap_or(1),
            DeviceSpec::Disk(_) | DeviceSpec::Passed(_) => bail!("{} is not for TCP", cell.name),
        };
        let far_end = FarEnd::new(workload.stream, queues, job.verify)?;
        let script = StreamScript { workload, job, far_end: &far_end.variables() }.to_string();
        let text = prelude(job.device) + &script;
        let (told, counted) =
            self.boot(cell, Some(&far_end), &text, limit(&(*job).into()) + AROUND)?;
        far_end.end()?;
        let (program, sample) = stream::sample(&told, counted)?;
        self.learn(&told, &program)?;
        Ok(sample)
    }

    /// Learns what the guest is called.
    fn learn(&mut self, told: &Told, program: &str) -> anyhow::Result<()> {
        let (kernel, build): (String, String) = (told.fact("kernel")?, told.fact("build")?);
        self.name = Some(name(&kernel, &build, program));
        Ok(())
    }
}

/// What a guest is called, by its kernel's release, what that says of its build, and the program that
/// measures.
fn name(kernel: &str, build: &str, program: &str) -> String {
    // #1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)
    let words: Vec<&str> = build.split(' ').collect();
    let distribution = words.windows(2).find(|pair| matches!(pair, ["Debian", _]));
    let distribution = distribution.map_or(String::new(), |pair| format!(" ({})", pair.join(" ")));
    format!("Linux {kernel}{distribution}, {program}")
}

impl Bench for LinuxBench<'_> {
    fn run(&mut self, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
        match (cell.workload, job) {
            (Workload::Disk(_), Job::Disk(job)) => self.disk(cell, job),
            (Workload::Stream(workload), Job::Net(job)) => self.stream(cell, workload, job),
            _ => bail!("{} is not for Linux", cell.name),
        }
    }

    fn guest(&self) -> Option<Guest> {
        self.name.as_deref().map(|name| self.files.guest(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_called_by_its_kernel_its_distribution_and_its_tool() {
        let debian = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.158-1 (2025-11-09)";
        assert_eq!(
            name("6.1.0-41-amd64", debian, "fio-3.33"),
            "Linux 6.1.0-41-amd64 (Debian 6.1.158-1), fio-3.33"
        );
        assert_eq!(name("6.6.1", "#1 SMP", "fio-3.36"), "Linux 6.6.1, fio-3.36");
    }
}
