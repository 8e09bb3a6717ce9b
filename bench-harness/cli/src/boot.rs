//! A Linux guest with the devices, on this terminal.

mod keys;
mod parts;
mod remote;
mod terminal;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use paraslot_vfio::IommuSpace;
use paraslot_vmm::{LinuxConfig, LinuxEnd, LinuxImage, LinuxVm};

use crate::args::{BootArgs, PathName};
use crate::backing::{Drive, open_drive};
use crate::hardware::Hardware;
use crate::spec::Request;
use crate::{machine, signals};
use remote::Remote;
use terminal::Terminal;

/// Does what `paraslot boot` does.
pub(crate) fn boot(arguments: &BootArgs) -> anyhow::Result<()> {
    let places = parts::places(&arguments.device)?;
    let requests = || arguments.device.iter().map(|plugged| &plugged.request);
    let hardware = Hardware::of(requests())?;
    let kernel = &arguments.kernel;
    File::open(kernel).with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
    let initrd = arguments.initrd.as_deref().map(read).transpose()?;

    // Before anything has threads of its own.
    let remote = Remote::default();
    let terminal = Terminal::standard_input();
    watch_signals(&remote, &terminal)?;
    let drives = requests().map(open_drive).collect::<Result<Vec<_>, _>>()?;
    machine::check_boots_linux("boot")?;

    // Given back when the machine that has it is gone.
    let _borrowed = hardware.take(requests())?;
    let mut vm = LinuxVm::new(&config(arguments), Box::new(std::io::stdout()))?;
    let space = if requests().any(|request| matches!(request, Request::Host(_))) {
        let space = IommuSpace::new(Some(vm.vfio()?))?;
        space.map_memory(vm.memory())?;
        Some(space)
    } else {
        None
    };
    let mut parts =
        parts::Parts { cpus: arguments.cpus, space: space.as_ref(), faults: Vec::new() };
    for ((bdf, request), drive) in places.iter().zip(requests()).zip(&drives) {
        let plugged = parts.plug(&mut vm, *bdf, request, drive.as_ref());
        plugged.with_context(|| format!("00:{:02x}.0", bdf.device))?;
    }
    let image = LinuxImage { kernel, initrd: initrd.as_deref(), command_line: &arguments.append };
    vm.load(&image).with_context(|| format!("cannot boot {}", kernel.display()))?;

    let end = attended(&mut vm, &image, arguments.no_reboot, &remote, &terminal);
    drop(vm);
    parts.tell_faults();
    // What the guest did not flush is there, too.
    let flushed = drives.iter().flatten().try_for_each(Drive::flush);
    match end? {
        LinuxEnd::Stopped if remote.was_signalled() => bail!("stopped by a signal"),
        LinuxEnd::Stopped | LinuxEnd::PowerOff | LinuxEnd::Reset => flushed,
    }
}

fn config(arguments: &BootArgs) -> LinuxConfig {
    LinuxConfig {
        memory_bytes: arguments.memory,
        cpus: arguments.cpus,
        path: match arguments.path {
            PathName::Event => paraslot_vmm::Path::Event,
            PathName::Trap => paraslot_vmm::Path::Trap,
        },
        vcpu_cpus: Vec::new(),
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read the initial RAM disk {}", path.display()))
}

/// Has signals press the power button, and stop the guest if that was in vain.
fn watch_signals(remote: &Remote, terminal: &Arc<Terminal>) -> anyhow::Result<()> {
    let (remote, terminal) = (remote.clone(), terminal.clone());
    let handle = move |signal| match signal {
        // Who stopped this program has used the terminal meanwhile.
        libc::SIGCONT => terminal.resume(),
        _ => remote.signal(),
    };
    let signals = [&signals::ENDING[..], &[libc::SIGCONT]].concat();
    signals::watch(&signals, handle).context("cannot watch for signals")
}

/// Runs the guest with somebody at its console.
fn attended(
    vm: &mut LinuxVm,
    image: &LinuxImage<'_>,
    no_reboot: bool,
    remote: &Remote,
    terminal: &Arc<Terminal>,
) -> anyhow::Result<LinuxEnd> {
    let _attached = remote.attach(vm.handle());
    let _raw = terminal.make_raw().context("cannot set the terminal")?;
    remote.type_from_standard_input(terminal.is_terminal())?;
    loop {
        match vm.run(None)? {
            LinuxEnd::Reset if !no_reboot => {
                vm.reset()?;
                vm.load(image)?;
            }
            end => return Ok(end),
        }
    }
}
