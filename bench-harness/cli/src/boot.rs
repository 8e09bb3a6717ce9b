//! A Linux guest with the devices, on this terminal.

mod fleet;
mod keys;
mod parts;
mod remote;
mod terminal;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use paraslot_vmm::{LinuxConfig, LinuxEnd, LinuxImage, LinuxVm, Snapshot};

use crate::args::{BootArgs, PathName};
use crate::backing::open_drive;
use crate::error::Usage;
use crate::hardware::Hardware;
use crate::spec::Request;
use crate::{control, machine, signals};
use fleet::Fleet;
use parts::{Parts, Passed};
use remote::{Remote, say};
use terminal::Terminal;

/// Does what `paraslot boot` does.
pub(crate) fn boot(arguments: &BootArgs) -> anyhow::Result<()> {
    let places = parts::places(&arguments.device)?;
    let requests = || arguments.device.iter().map(|plugged| &plugged.request);
    let has_host = requests().any(|request| matches!(request, Request::Host(_)));
    if has_host && (arguments.snapshot.is_some() || arguments.restore.is_some()) {
        return Err(Usage::error("a guest with functions of the host's cannot be saved"));
    }
    let hardware = Hardware::of(requests())?;
    let kernel = arguments.kernel.as_deref();
    kernel.map(check_kernel).transpose()?;
    let initrd = arguments.initrd.as_deref().map(read).transpose()?;
    let snapshot = arguments.restore.as_deref().map(open).transpose()?;
    if let Some(directory) = &arguments.snapshot {
        Snapshot::prepare(directory).context("cannot save a guest")?;
    }

    // Before anything has threads of its own.
    let control = arguments.control.as_deref().map(control::bind).transpose()?;
    let (listener, _bound) = control.unzip();
    let remote = Remote::new(arguments.snapshot.is_some());
    let terminal = Terminal::standard_input();
    watch_signals(&remote, &terminal)?;
    let drives = requests().map(open_drive).collect::<Result<Vec<_>, _>>()?;
    machine::check_boots_linux("boot")?;

    // Given back when the machine that has it is gone.
    let _borrowed = hardware.take(requests())?;
    let config = config(arguments, snapshot.as_ref())?;
    let mut vm = LinuxVm::new(&config, Box::new(std::io::stdout()))?;
    let handle = vm.handle();
    let fleet = Fleet::new(handle.clone(), config.cpus);
    let mut passed = has_host.then(|| Passed::new(&vm)).transpose()?;
    let parts = Parts { machine: &handle, cpus: config.cpus };
    for ((bdf, request), drive) in places.iter().zip(requests()).zip(&drives) {
        let made = match (request, &mut passed) {
            (Request::Host(spec), Some(passed)) => passed.make(&handle, *bdf, spec.address()),
            _ => parts.make(*bdf, request, drive.as_ref()),
        };
        let plugged = made.and_then(|made| fleet.plug(*bdf, made));
        plugged.with_context(|| format!("00:{:02x}.0", bdf.device))?;
    }
    drop((drives, handle));
    let image =
        |kernel| LinuxImage { kernel, initrd: initrd.as_deref(), command_line: &arguments.append };
    let image = kernel.map(image);
    match (&snapshot, &image) {
        (Some(snapshot), _) => vm.restore(snapshot).context("cannot restore the guest")?,
        (None, Some(image)) => vm.load(image).context(cannot_boot(image))?,
        (None, None) => return Err(Usage::error("--kernel or --restore is needed")),
    }
    drop(snapshot);

    if let Some(listener) = listener {
        let fleet = fleet.clone();
        control::serve(listener, move |command| fleet.execute(&command))?;
    }
    let guest = Guest {
        image: image.filter(|_| !arguments.no_reboot),
        snapshot: arguments.snapshot.as_deref(),
    };
    let end = guest.attend(&mut vm, &remote, &terminal);
    let drives = fleet.close();
    drop(vm);
    if let Some(passed) = &passed {
        passed.tell_faults();
    }
    // What the guest did not flush is there, too.
    let flushed = drives.iter().try_for_each(|drive| drive.flush());
    match end? {
        End::Saved(directory) => {
            flushed?;
            eprintln!("paraslot: the guest is saved in {}", directory.display());
            Ok(())
        }
        End::Guest(LinuxEnd::Stopped) if remote.was_signalled() => bail!("stopped by a signal"),
        End::Guest(_) => flushed,
    }
}

fn check_kernel(kernel: &Path) -> anyhow::Result<()> {
    File::open(kernel).with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
    Ok(())
}

fn cannot_boot(image: &LinuxImage<'_>) -> String {
    format!("cannot boot {}", image.kernel.display())
}

fn open(directory: &Path) -> anyhow::Result<Snapshot> {
    Snapshot::open(directory).context("cannot restore the guest")
}

/// A machine as it is asked for, or as the one was that is to go on.
fn config(arguments: &BootArgs, snapshot: Option<&Snapshot>) -> anyhow::Result<LinuxConfig> {
    let (memory_bytes, cpus) = match snapshot {
        None => (arguments.memory, arguments.cpus),
        Some(snapshot) => {
            let cpus = u8::try_from(snapshot.cpus());
            (snapshot.memory_bytes(), cpus.context("the snapshot has too many processors")?)
        }
    };
    Ok(LinuxConfig {
        memory_bytes,
        cpus,
        path: match arguments.path {
            PathName::Event => paraslot_vmm::Path::Event,
            PathName::Trap => paraslot_vmm::Path::Trap,
        },
        vcpu_cpus: Vec::new(),
    })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read the initial RAM disk {}", path.display()))
}

/// Has signals press the power button, and stop the guest if that was in vain; and one save it.
fn watch_signals(remote: &Remote, terminal: &Arc<Terminal>) -> anyhow::Result<()> {
    let (remote, terminal) = (remote.clone(), terminal.clone());
    let handle = move |signal| match signal {
        // Who stopped this program has used the terminal meanwhile.
        libc::SIGCONT => terminal.resume(),
        libc::SIGUSR2 => remote.save(),
        _ => remote.signal(),
    };
    let signals = [&signals::ENDING[..], &[libc::SIGCONT, libc::SIGUSR2]].concat();
    signals::watch(&signals, handle).context("cannot watch for signals")
}

/// How it ended.
enum End<'a> {
    /// The guest has ended, or was stopped.
    Guest(LinuxEnd),
    /// It stands still, and is in this directory.
    Saved(&'a Path),
}

/// A guest that runs.
struct Guest<'a> {
    /// What it boots again; without it does not.
    image: Option<LinuxImage<'a>>,
    /// Where it is saved.
    snapshot: Option<&'a Path>,
}

impl<'a> Guest<'a> {
    /// Runs it with somebody at its console.
    fn attend(
        &self,
        vm: &mut LinuxVm,
        remote: &Remote,
        terminal: &Arc<Terminal>,
    ) -> anyhow::Result<End<'a>> {
        let _attached = remote.attach(vm.handle());
        let _raw = terminal.make_raw().context("cannot set the terminal")?;
        remote.type_from_standard_input(terminal.is_terminal())?;
        loop {
            match (vm.run(None)?, &self.image, self.snapshot) {
                (LinuxEnd::Reset, Some(image), _) => {
                    vm.reset()?;
                    vm.load(image)?;
                }
                (LinuxEnd::Stopped, _, Some(directory)) if remote.take_save() => {
                    match vm.save(directory) {
                        Ok(()) => return Ok(End::Saved(directory)),
                        // It is not lost for that.
                        Err(error) => {
                            let line = crate::error::line(&error.into());
                            say(&format!(
                                "paraslot: cannot save the guest: {line}; it goes on\r\n"
                            ));
                        }
                    }
                }
                (end, ..) => return Ok(End::Guest(end)),
            }
        }
    }
}
