//! The same guest under QEMU, with QEMU's devices.

mod command;

use std::fs;
use std::io::Read;
use std::path::{Path as FilePath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use paraslot_device::executor::pin_thread;
use paraslot_protocol::Job;

use super::{Bench, Sample, Setting, limit, outcome};
use crate::image::TemporaryFile;
use crate::network;
use crate::plan::Cell;
use crate::spec::{Backend, DeviceSpec, DiskSpec, Engine};
use crate::storage::{UNVERIFIED, file_label};
use command::{Attached, Machine};

/// The program.
const QEMU: &str = "qemu-system-x86_64";

/// What to do about a missing QEMU.
pub(crate) const INSTALL: &str =
    "install it: package qemu-system-x86 on Debian and Ubuntu, qemu-system-x86-core on Fedora";

/// How long its threads may take to appear.
const START: Duration = Duration::from_secs(10);

/// Runs each job in a QEMU of its own.
pub(crate) struct QemuBench<'a> {
    setting: Setting<'a>,
    guest: TemporaryFile,
    firmware: Option<PathBuf>,
    /// It was built without io_uring, or may not use it.
    no_uring: bool,
}

/// The installed QEMU's version; `None` if there is none.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(QEMU).arg("--version").stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| text.lines().next().map(str::to_owned))?
}

/// The firmware that boots a PVH image in a tenth of a second, where QEMU brings it.
fn quick_firmware() -> Option<PathBuf> {
    let output = Command::new(QEMU).args(["-L", "help"]).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| FilePath::new(line).join("qboot.rom")).find(|path| path.is_file())
}

impl<'a> QemuBench<'a> {
    /// With its files in `place`.
    ///
    /// # Errors
    /// When QEMU is not installed, or the guest's image cannot be written for it.
    pub(crate) fn new(setting: Setting<'a>, place: &FilePath) -> anyhow::Result<Self> {
        if version().is_none() {
            bail!("--peer qemu: {QEMU} is not installed; {INSTALL}");
        }
        let guest = TemporaryFile::with(place, paraslot_guest::IMAGE)?;
        Ok(Self { setting, guest, firmware: quick_firmware(), no_uring: false })
    }

    /// Runs a job on a disk whose file's system calls `engine` makes.
    fn disk(
        &self,
        spec: &DiskSpec,
        cell: &Cell,
        job: &Job,
        engine: Engine,
    ) -> anyhow::Result<Sample> {
        let image = match spec.backend {
            Backend::File => Some(self.setting.storage.path(spec, cell)?),
            Backend::Null => None,
            Backend::Memory => bail!("qemu has no backend=memory"),
        };
        let attached = Attached::Disk { spec, image: image.as_deref(), engine };
        let mut sample = self.attempt(cell, job, attached)?;
        sample.backend = match image {
            Some(_) => file_label(spec, engine),
            None => "backend=null".into(),
        };
        if !spec.verify {
            sample.backend.push_str(UNVERIFIED);
        }
        Ok(sample)
    }

    /// Tries io_uring first, where nothing else was asked for.
    fn disk_with_some_engine(
        &mut self,
        spec: &DiskSpec,
        cell: &Cell,
        job: &Job,
    ) -> anyhow::Result<Sample> {
        let wanted = spec.engine;
        let engine =
            wanted.unwrap_or(if self.no_uring { Engine::Threads } else { Engine::IoUring });
        let result = self.disk(spec, cell, job, engine);
        match result {
            Err(error)
                if wanted.is_none()
                    && !self.no_uring
                    && format!("{error:#}").contains("io_uring") =>
            {
                self.no_uring = true;
                self.disk(spec, cell, job, Engine::Threads)
            }
            result => result,
        }
    }

    fn attempt(&self, cell: &Cell, job: &Job, attached: Attached<'_>) -> anyhow::Result<Sample> {
        let machine = Machine {
            guest: &self.guest.path(),
            firmware: self.firmware.as_deref(),
            job,
            attached,
            path: cell.path,
            busy_poll: self.setting.busy_poll,
        };
        let mut child = Command::new(QEMU)
            .args(machine.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start qemu")?;
        let result = self.watch(&mut child, limit(job));
        // An error means that it has ended by itself.
        let _ = child.kill();
        child.wait().context("cannot wait for qemu")?;
        let (console, errors) = result?;
        outcome::from_console(&console).map_err(|error| {
            // Its first complaint is the cause of the others.
            match errors.lines().find(|line| !line.trim().is_empty()) {
                Some(line) => error.context(line.trim().to_owned()),
                None => error,
            }
        })
    }

    /// Moves its virtual processor to its place and waits until it ends; what it wrote to its output
    /// and error output.
    fn watch(&self, child: &mut Child, limit: Duration) -> anyhow::Result<(Vec<u8>, String)> {
        let (mut output, mut errors) = match (child.stdout.take(), child.stderr.take()) {
            (Some(output), Some(errors)) => (output, errors),
            _ => bail!("qemu has no output"),
        };
        let errors = thread::spawn(move || {
            let mut text = Vec::new();
            // What could be read tells more than that not all could.
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut console = Vec::new();
            let read = output.read_to_end(&mut console).map(|_| console);
            // Nobody listens any more if it took too long.
            let _ = sender.send(read);
        });
        if let Some(cpu) = self.setting.vcpu_cpu() {
            pin_vcpu(child, cpu)?;
        }
        let console = match receiver.recv_timeout(limit) {
            Ok(console) => console.context("cannot read the guest's console")?,
            Err(_) => bail!("the guest did not end within {limit:?}"),
        };
        Ok((console, errors.join().unwrap_or_default()))
    }
}

/// Pins the thread that runs the virtual processor. All others stay where this process is: QEMU
/// inherits its place. The guest is still in its firmware, or in its first milliseconds.
fn pin_vcpu(child: &mut Child, cpu: usize) -> anyhow::Result<()> {
    let tasks = format!("/proc/{}/task", child.id());
    let start = Instant::now();
    while start.elapsed() < START {
        let found = fs::read_dir(&tasks).into_iter().flatten().flatten().find(|task| {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            name.trim() == "CPU 0/KVM"
        });
        if let Some(task) = found {
            let thread = task.file_name().to_string_lossy().parse().context("a thread's number")?;
            return pin_thread(thread, cpu).context("cannot pin qemu's virtual processor");
        }
        if child.try_wait()?.is_some() {
            // It has ended; its output says why.
            return Ok(());
        }
        thread::sleep(Duration::from_millis(1));
    }
    bail!("qemu's virtual processor cannot be found to be pinned")
}

impl Bench for QemuBench<'_> {
    fn run(&mut self, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
        match &self.setting.devices[cell.device] {
            DeviceSpec::Disk(spec) => self.disk_with_some_engine(spec, cell, job),
            DeviceSpec::Net(spec) => {
                let mut sample = self.attempt(cell, job, Attached::Net { spec })?;
                sample.backend = network::sink_label(spec);
                Ok(sample)
            }
            DeviceSpec::Passed(_) => bail!("{} is not for qemu", cell.name),
        }
    }
}
