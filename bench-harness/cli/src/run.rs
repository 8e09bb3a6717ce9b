//! The comparison.

pub(crate) mod output;
pub(crate) mod progress;
mod rounds;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use paraslot_device::executor::pin_to;
use paraslot_report::{Guest, Manifest, Pinning, Report};
use paraslot_vmm::VmError;

use crate::args::{GuestName, Peer, PlatformName, RunArgs, Times};
use crate::bench::in_process::InProcessBench;
use crate::bench::kvm::KvmBench;
use crate::bench::linux::{Files, LinuxBench};
use crate::bench::qemu::QemuBench;
use crate::bench::{Bench, Setting};
use crate::collect::Runs;
use crate::compare::{self, Baselines};
use crate::hardware::Hardware;
use crate::plan::{Cell, Flow, Plan};
use crate::spec::Request;
use crate::storage::Storage;
use crate::{machine, signals};
use output::Output;

/// Said where there is no KVM.
const NO_KVM: &str = "no /dev/kvm: devices are run in this process; these figures say nothing \
                      about virtual machines";

/// Said where the processor is software.
const EMULATED: &str = "the host's processor is emulated (TCG): times mean little; exits, doorbells and \
                        interrupts are exact";

/// Whether somebody wants the program to end.
#[derive(Default)]
pub(crate) struct Interrupted(Arc<AtomicBool>);

impl Interrupted {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// What is to be called when a signal comes.
    pub(crate) fn setter(&self) -> impl FnMut(i32) + Send + 'static {
        let flag = self.0.clone();
        move |_| flag.store(true, Ordering::Relaxed)
    }
}

/// What a command line asks for.
pub(crate) struct Planned {
    pub(crate) platform: PlatformName,
    /// What must be said of where it runs.
    pub(crate) fallback: Option<&'static str>,
    hardware: Hardware,
    pub(crate) plan: Plan,
}

impl Planned {
    /// Looks at what there is on this host, and changes nothing.
    pub(crate) fn new(arguments: &RunArgs) -> anyhow::Result<Self> {
        let (platform, fallback) = match arguments.guest {
            GuestName::Freestanding => platform(arguments.platform)?,
            GuestName::Linux => (arguments.platform.unwrap_or(PlatformName::Kvm), None),
        };
        let hardware = Hardware::of(arguments.device.iter())?;
        let plan = Plan::new(arguments, platform, |address| hardware.identify(address))?;
        Ok(Self { platform, fallback, hardware, plan })
    }
}

/// Does what `paraslot run` does; says whether something is slower than the baseline.
pub(crate) fn run(arguments: &RunArgs) -> anyhow::Result<bool> {
    let Planned { platform, fallback, hardware, plan } = Planned::new(arguments)?;
    if arguments.list {
        // Whoever reads this may have seen enough.
        let _ = output::print(plan.cells.iter().map(|cell| cell.name.as_str()));
        return Ok(false);
    }
    let baselines = Baselines::new(arguments)?;
    let files = match arguments.guest {
        GuestName::Freestanding => None,
        GuestName::Linux => {
            machine::check_boots_linux("run --guest linux")?;
            Some(Files::prepare(
                arguments.guest_files.as_deref(),
                arguments.guest_append.as_deref(),
            )?)
        }
    };
    let output = Output::new(arguments)?;
    // What comes from here on can be interrupted, and all the same everything is given back.
    let interrupted = Interrupted::default();
    if arguments.device.iter().any(Request::borrows) {
        signals::watch(&signals::ENDING, interrupted.setter())
            .context("cannot watch for signals")?;
    }
    let _borrowed = hardware.take(arguments.device.iter())?;
    let mut notes = plan.notes.clone();
    if machine::is_emulator(machine::hypervisor_below().as_deref()) {
        notes.push(EMULATED.into());
    }
    notes.extend(fallback.map(str::to_owned));
    let pinning = pin(&mut notes);
    let is_wire = |cell: &Cell| cell.net().is_some_and(|workload| workload.flow == Flow::Wire);
    if pinning.is_some() && plan.cells.iter().any(is_wire) {
        notes.push("wire: each guest shares its processor with the other machine's device".into());
    }
    if plan.serves() {
        let pages = match machine::shared_huge_pages() {
            Some(true) => "may have huge pages",
            Some(false) => "has no huge pages on this host",
            None => "has huge pages or not, this host does not tell",
        };
        notes.push(format!(
            "vfio-user: guests on all paths have shared memory (memfd), as it needs; that {pages}"
        ));
    }
    if cfg!(debug_assertions) {
        notes.push("built without optimisation: for figures, use cargo run --release".into());
    }
    if arguments.drag > 0 {
        notes.push(format!(
            "--drag: each look of a device's worker at its work takes {} ns longer, on purpose",
            arguments.drag
        ));
    }
    if arguments.quick {
        notes.push("--quick: one short run each, no figures to rely on".into());
    }
    // What follows takes a while; what it will not do is said before.
    notes.iter().for_each(|note| eprintln!("! {note}"));

    let times = arguments.times();
    let mut manifest = manifest(arguments, &times, platform, pinning);
    let storage = Storage::new(&plan, output.place())?;
    let setting = Setting {
        devices: &plan.devices,
        storage: &storage,
        pinning,
        busy_poll: Duration::from_micros(arguments.busy_poll.into()),
        drag: Duration::from_nanos(arguments.drag.into()),
        shared_memory: plan.serves(),
    };
    let mut own: Box<dyn Bench> = match (platform, files) {
        (_, Some(files)) => Box::new(LinuxBench::new(setting, files)),
        (PlatformName::Kvm, None) => Box::new(KvmBench::new(setting)),
        (PlatformName::InProcess, None) => Box::new(InProcessBench { setting }),
    };
    let mut peer = match arguments.peer {
        None => None,
        Some(Peer::Qemu) => Some(QemuBench::new(setting, output.place())?),
    };
    let (runs, failures) =
        rounds::measure(&plan, &setting, &times, own.as_mut(), peer.as_mut(), &|| {
            interrupted.is_set()
        })?;
    let record = |(cell, runs): (_, &Runs)| {
        let cell: &Cell = cell;
        runs.record(cell, &plan.devices[cell.device])
    };
    let results: Vec<_> = plan.cells.iter().zip(&runs).filter_map(record).collect();
    let drops = plan
        .cells
        .iter()
        .zip(&runs)
        .filter_map(|(cell, runs)| runs.drops().map(|drops| format!("{}: {drops}", cell.name)));
    notes.extend(drops);
    let failures = failures.grouped();
    notes.extend(failures.iter().map(|failure| format!("failed: {failure}")));
    manifest.notes = notes;
    manifest.guest = own.guest().or(manifest.guest);
    for record in &results {
        if !manifest.backend.contains(&record.backend) {
            manifest.backend.push(record.backend.clone());
        }
    }
    let report = Report::new(manifest, results);
    output.write(&report)?;
    compare::end(baselines.conclude(&report)?, &failures)
}

/// Where to run, and what must be said of that.
fn platform(wanted: Option<PlatformName>) -> anyhow::Result<(PlatformName, Option<&'static str>)> {
    const ELSE: &str = "--platform in-process runs without";
    match wanted {
        Some(PlatformName::InProcess) => {
            let note =
                "devices are run in this process; these figures say nothing about virtual machines";
            Ok((PlatformName::InProcess, Some(note)))
        }
        Some(PlatformName::Kvm) | None => match paraslot_vmm::probe() {
            Ok(_) => Ok((PlatformName::Kvm, None)),
            Err(VmError::NoKvm) if wanted.is_none() => Ok((PlatformName::InProcess, Some(NO_KVM))),
            Err(error @ VmError::Permission) => {
                bail!("{error} (sudo usermod -aG kvm $USER, then log in again); {ELSE}")
            }
            Err(error) => bail!("{error}; {ELSE}"),
        },
    }
}

/// Chooses processors, and moves this thread to the device's: whatever it starts from now on is
/// there too, but for what has a place of its own.
fn pin(notes: &mut Vec<String>) -> Option<Pinning> {
    let chosen = machine::choose_cpus();
    let pinned = chosen
        .filter(|pinning| usize::try_from(pinning.device).is_ok_and(|cpu| pin_to(cpu).is_ok()));
    if pinned.is_none() {
        notes.push("results are not pinned: fewer than two processors may be used".into());
    }
    pinned
}

fn manifest(
    arguments: &RunArgs,
    times: &Times,
    platform: PlatformName,
    pinned: Option<Pinning>,
) -> Manifest {
    let kvm = platform == PlatformName::Kvm;
    let freestanding = kvm && arguments.guest == GuestName::Freestanding;
    let guest = freestanding.then(|| Guest {
        name: None,
        bytes: paraslot_guest::IMAGE.len() as u64,
        fnv1a: fnv1a(paraslot_guest::IMAGE),
    });
    Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: option_env!("PARASLOT_REVISION").map(str::to_owned),
        build: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        date: machine::rfc3339(SystemTime::now()),
        command_line: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        cpu_model: machine::cpu_model(),
        kernel: machine::kernel(),
        hypervisor: kvm.then(|| "kvm".to_owned()),
        nested: machine::is_virtual(),
        below: machine::hypervisor_below(),
        guest,
        backend: Vec::new(),
        pinned,
        busy_poll_us: arguments.busy_poll.into(),
        warm_up_ms: times.warm_up_ms,
        measure_ms: times.measure_ms,
        notes: Vec::new(),
    }
}

/// The 64-bit FNV-1a hash, in hexadecimal.
pub(crate) fn fnv1a(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), "cbf29ce484222325");
        assert_eq!(fnv1a(b"a"), "af63dc4c8601ec8c");
    }
}
