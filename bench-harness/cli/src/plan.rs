//! What is measured, and in which order.

mod disk;
mod net;
mod stream;

use anyhow::Context;
use paraslot_protocol::{Class, Completion, Device, Job};
use paraslot_report::Path;
use paraslot_vfio::HostAddress;

use crate::args::{GuestName, MeasuredPath, Peer, PlatformName, RunArgs, Times};
use crate::error::Usage;
use crate::spec::{DeviceSpec, PassedSpec};

pub(crate) use disk::{DEPTHS, DiskWorkload, PATTERNS};
pub(crate) use net::{FAMILIES, Flow, NetWorkload};
pub(crate) use stream::{STREAMS, Stream, StreamWorkload};

/// What is done with a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// With a disk.
    Disk(DiskWorkload),
    /// With a network adapter.
    Net(NetWorkload),
    /// With a network adapter, by TCP.
    Stream(StreamWorkload),
}

impl Workload {
    fn name(self, completion: Completion) -> String {
        match self {
            Self::Disk(workload) => workload.name(completion),
            Self::Net(workload) => workload.name(completion),
            Self::Stream(workload) => workload.name(completion),
        }
    }

    /// Which devices it is for.
    fn class(self) -> Class {
        match self {
            Self::Disk(_) => Class::Disk,
            Self::Net(_) | Self::Stream(_) => Class::Net,
        }
    }

    /// Whether it is to be measured on that path.
    fn uses(self, path: Path) -> bool {
        match self {
            Self::Disk(_) | Self::Stream(_) => true,
            Self::Net(workload) => workload.uses(path),
        }
    }

    /// Why a device cannot have it; `None` if it can.
    fn left_out(self, spec: &DeviceSpec, path: Path, peer: Option<Peer>) -> Option<&'static str> {
        match (self, spec) {
            (_, DeviceSpec::Passed(_)) if peer.is_some() => {
                Some("not with qemu (a function passed through is the host's)")
            }
            _ if peer.is_some() && spec.limits().any() => {
                Some("not with qemu (whose limits are others)")
            }
            _ if peer.is_some() && path == Path::VfioUser => {
                Some("not with qemu over vfio-user (whose monitor is ours there)")
            }
            (Self::Disk(workload), DeviceSpec::Disk(spec)) => workload.left_out(spec, peer),
            (Self::Disk(workload), DeviceSpec::Passed(spec)) => workload.left_out_passed(spec),
            (Self::Net(workload), DeviceSpec::Net(spec)) => workload.left_out(spec, path, peer),
            (Self::Net(workload), DeviceSpec::Passed(_)) => workload.left_out_passed(),
            (Self::Stream(workload), DeviceSpec::Net(spec)) => workload.left_out(spec),
            (Self::Stream(_), DeviceSpec::Passed(_)) => Some(StreamWorkload::LEFT_OUT_PASSED),
            (Self::Disk(_), DeviceSpec::Net(_))
            | (Self::Net(_) | Self::Stream(_), DeviceSpec::Disk(_)) => {
                Some("not with devices of the other kind")
            }
        }
    }
}

/// One measurement: everything that its runs have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Index of the device among those given.
    pub(crate) device: usize,
    /// Its name.
    pub(crate) name: String,
    /// How the guest reaches it.
    pub(crate) path: Path,
    /// What is done.
    pub(crate) workload: Workload,
    /// What drives it.
    pub(crate) guest: GuestName,
    /// How the driver learns of completions.
    pub(crate) completion: Completion,
    /// Whose device it is: ours, or this one's.
    pub(crate) peer: Option<Peer>,
}

impl Cell {
    /// The workload of a disk.
    pub(crate) fn disk(&self) -> Option<DiskWorkload> {
        match self.workload {
            Workload::Disk(workload) => Some(workload),
            Workload::Net(_) | Workload::Stream(_) => None,
        }
    }

    /// The workload of a network adapter whose frames are the driver's own.
    pub(crate) fn net(&self) -> Option<NetWorkload> {
        match self.workload {
            Workload::Disk(_) | Workload::Stream(_) => None,
            Workload::Net(workload) => Some(workload),
        }
    }

    /// What the guest is to do in run number `round`; with a disk, with `span` bytes of it.
    ///
    /// # Errors
    /// When the device is of the other kind.
    pub(crate) fn job(
        &self,
        device: &DeviceSpec,
        times: &Times,
        span: u64,
        round: u32,
    ) -> anyhow::Result<Job> {
        match (self.workload, device) {
            (Workload::Disk(workload), DeviceSpec::Disk(spec)) => {
                let verify = workload.is_verified(spec);
                let job = workload.job(spec.device, verify, self.completion, times, span, round);
                Some(job.into())
            }
            (
                Workload::Disk(workload),
                DeviceSpec::Passed(PassedSpec { device, overwrite, .. }),
            ) if device.class() == Class::Disk => {
                let job = workload.job(*device, *overwrite, self.completion, times, span, round);
                Some(job.into())
            }
            (Workload::Net(workload), DeviceSpec::Net(spec)) => {
                Some(workload.job(spec.device, spec.verify, self.completion, times).into())
            }
            (Workload::Net(workload), DeviceSpec::Passed(PassedSpec { device, .. }))
                if device.class() == Class::Net =>
            {
                Some(workload.job(*device, true, self.completion, times).into())
            }
            (Workload::Stream(workload), DeviceSpec::Net(spec)) => {
                Some(workload.job(spec.device, spec.verify, self.completion, times).into())
            }
            _ => None,
        }
        .with_context(|| format!("{} is not for {}", self.name, device.device()))
    }
}

/// The devices, and what is measured of them.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The devices.
    pub(crate) devices: Vec<DeviceSpec>,
    /// What is measured, in the order of the first round.
    pub(crate) cells: Vec<Cell>,
    /// What was left out that somebody may miss, in a sentence each.
    pub(crate) notes: Vec<String>,
}

impl Plan {
    /// What the command line asks for, on this platform. `identify` tells what functions of the host's
    /// are.
    pub(crate) fn new(
        arguments: &RunArgs,
        platform: PlatformName,
        identify: impl Fn(HostAddress) -> anyhow::Result<Device>,
    ) -> anyhow::Result<Self> {
        let given = arguments.device.iter();
        let mut devices = given
            .map(|request| DeviceSpec::of(request, &identify))
            .collect::<Result<Vec<_>, _>>()?;
        if devices.is_empty() {
            devices = Device::MODELS.map(DeviceSpec::new).to_vec();
        }
        let has_passed = devices.iter().any(DeviceSpec::is_passed);
        if has_passed && platform == PlatformName::InProcess {
            return Err(Usage::error(
                "vfio needs virtual machines: it does not go with in-process",
            ));
        }
        if arguments.peer.is_some() && platform == PlatformName::InProcess {
            return Err(Usage::error(
                "--peer needs virtual machines: it does not go with in-process",
            ));
        }
        match arguments.guest {
            GuestName::Linux => check_for_linux(arguments, platform)?,
            GuestName::Freestanding if arguments.guest_files.is_some() => {
                return Err(Usage::error("--guest-files is for --guest linux"));
            }
            GuestName::Freestanding if arguments.guest_append.is_some() => {
                return Err(Usage::error("--guest-append is for --guest linux"));
            }
            GuestName::Freestanding => {}
        }
        let paths = paths(arguments, platform)?;
        let mut plan = Self { devices, cells: Vec::new(), notes: Vec::new() };
        let mut left_out: Vec<(&str, Vec<String>)> = Vec::new();
        for cell in plan.all(&paths, arguments.guest, arguments.peer) {
            if arguments.filter.iter().any(|one| !matches(one, &cell.name)) {
                continue;
            }
            let spec = &plan.devices[cell.device];
            let Some(why) = cell.workload.left_out(spec, cell.path, cell.peer) else {
                plan.cells.push(cell);
                continue;
            };
            let label = plan.label(cell.device);
            match left_out.iter_mut().find(|(known, _)| *known == why) {
                Some((_, labels)) if labels.contains(&label) => {}
                Some((_, labels)) => labels.push(label),
                None => left_out.push((why, vec![label])),
            }
        }
        let note = |(why, labels): (&str, Vec<String>)| format!("{}: {why}", labels.join(", "));
        plan.notes = left_out.into_iter().map(note).collect();
        if plan.cells.is_empty() {
            let given = arguments.filter.join(" and ");
            return Err(Usage::error(if plan.notes.is_empty() && given.is_empty() {
                "these devices are not measured on that --path: passthrough is for vfio, and the others for \
                 devices of ours"
                    .into()
            } else if plan.notes.is_empty() {
                format!("nothing to measure has {given} in its name: see paraslot run --list")
            } else {
                format!("nothing is left to measure: {}", plan.notes.join("; "))
            }));
        }
        plan.notes.extend(plan.notes_on_peer());
        plan.notes.extend(plan.notes_on_passed());
        Ok(plan)
    }

    /// What must be said of what is measured of functions that are passed through.
    fn notes_on_passed(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for (index, spec) in self.devices.iter().enumerate() {
            let DeviceSpec::Passed(PassedSpec { address, device, overwrite }) = spec else {
                continue;
            };
            if !self.cells.iter().any(|cell| cell.device == index) {
                continue;
            }
            notes.push(match (device.class(), overwrite) {
                (Class::Disk, true) => format!("{address}: what is on this disk is overwritten"),
                (Class::Disk, false) => format!(
                    "{address}: reads alone, which are not compared (overwrite=on writes to this disk)"
                ),
                (Class::Net, _) => format!(
                    "{address}: frames go out, and the guest alone counts them: nobody looks at them"
                ),
            });
        }
        notes
    }

    /// What must be said of the peer's figures.
    fn notes_on_peer(&self) -> Vec<String> {
        let with = |test: &dyn Fn(&Cell, &DeviceSpec) -> bool| {
            let cells = self.cells.iter().filter(|cell| cell.peer == Some(Peer::Qemu));
            cells
                .map(|cell| (cell, &self.devices[cell.device]))
                .any(|(cell, spec)| test(cell, spec))
        };
        let mut notes = Vec::new();
        for device in [Device::Pvscsi, Device::Ahci, Device::Vmxnet3, Device::E1000] {
            if with(&|cell, spec| spec.device() == device && cell.path == Path::Event) {
                notes.push(format!(
                    "qemu: {device} has no event path there, its figures are of trap"
                ));
            }
        }
        if with(&|_, spec| matches!(spec, DeviceSpec::Net(spec) if spec.verify)) {
            notes.push(
                "qemu: frames are dropped unseen, where ours are checked; verify=off is even"
                    .into(),
            );
        }
        notes
    }

    /// A device's name, with a number if it is given several times.
    fn label(&self, index: usize) -> String {
        let device = self.devices[index].device();
        // The path tells models from functions that are passed through.
        let is_same = |spec: &&DeviceSpec| {
            (spec.device(), spec.is_passed()) == (device, self.devices[index].is_passed())
        };
        let same = |specs: &[DeviceSpec]| specs.iter().filter(is_same).count();
        if same(&self.devices) == 1 {
            device.name().to_owned()
        } else {
            format!("{device}#{}", same(&self.devices[..=index]))
        }
    }

    /// Everything, possible or not, with what is compared next to each other.
    fn all(&self, paths: &[Path], guest: GuestName, peer: Option<Peer>) -> Vec<Cell> {
        let monitors = [None, peer];
        let monitors = &monitors[..1 + usize::from(peer.is_some())];
        let disks = disk::steps().map(|(workload, mode)| (Workload::Disk(workload), mode));
        let nets = net::steps().map(|(workload, mode)| (Workload::Net(workload), mode));
        let streams = stream::steps().map(|(workload, mode)| (Workload::Stream(workload), mode));
        let mut cells = Vec::new();
        let has = |(workload, completion): &(Workload, Completion)| match (workload, guest) {
            (Workload::Disk(_) | Workload::Net(_), GuestName::Freestanding) => true,
            // Its drivers do not poll.
            (Workload::Disk(_), GuestName::Linux) => *completion == Completion::Interrupt,
            (Workload::Stream(_), GuestName::Linux) => true,
            (Workload::Net(_), GuestName::Linux)
            | (Workload::Stream(_), GuestName::Freestanding) => false,
        };
        for (workload, completion) in disks.chain(nets).chain(streams).filter(has) {
            for &path in paths.iter().filter(|path| workload.uses(**path)) {
                for &peer in monitors {
                    for (device, spec) in self.devices.iter().enumerate() {
                        if spec.device().class() == workload.class()
                            && spec.is_passed() == (path == Path::Passthrough)
                        {
                            let name = self.name(device, path, workload, completion, peer);
                            cells.push(Cell {
                                device,
                                name,
                                path,
                                workload,
                                guest,
                                completion,
                                peer,
                            });
                        }
                    }
                }
            }
        }
        cells
    }

    fn name(
        &self,
        device: usize,
        path: Path,
        workload: Workload,
        completion: Completion,
        peer: Option<Peer>,
    ) -> String {
        let monitor = match peer {
            None => "",
            Some(Peer::Qemu) => "qemu:",
        };
        format!("{monitor}{}/{path}/{}", self.label(device), workload.name(completion))
    }

    /// Whether processes of their own serve devices.
    pub(crate) fn serves(&self) -> bool {
        self.cells.iter().any(|cell| cell.path == Path::VfioUser)
    }

    /// The cells of one round, in its order: every other round goes backwards, so that a host that
    /// gets slower as time passes favours nobody.
    pub(crate) fn round(&self, round: u32) -> Vec<usize> {
        let forwards = 0..self.cells.len();
        if round.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
    }
}

/// The paths to be measured, in their order.
fn paths(arguments: &RunArgs, platform: PlatformName) -> anyhow::Result<Vec<Path>> {
    match platform {
        PlatformName::InProcess if arguments.path.is_empty() => return Ok(vec![Path::InProcess]),
        PlatformName::InProcess => {
            return Err(Usage::error(
                "--path needs virtual machines: it does not go with in-process",
            ));
        }
        PlatformName::Kvm => {}
    }
    let usual = [MeasuredPath::Trap, MeasuredPath::Event, MeasuredPath::Passthrough];
    let mut wanted = arguments.path.clone();
    if wanted.is_empty() {
        wanted.extend(usual);
    }
    wanted.sort_unstable();
    wanted.dedup();
    if arguments.guest == GuestName::Linux && wanted.contains(&MeasuredPath::VfioUser) {
        return Err(Usage::error("--guest linux does not go with --path vfio-user"));
    }
    let path = |path| match path {
        MeasuredPath::Trap => Path::Trap,
        MeasuredPath::Event => Path::Event,
        MeasuredPath::VfioUser => Path::VfioUser,
        MeasuredPath::Passthrough => Path::Passthrough,
    };
    Ok(wanted.into_iter().map(path).collect())
}

/// Whether a Linux guest can be had with the rest of the command line.
fn check_for_linux(arguments: &RunArgs, platform: PlatformName) -> anyhow::Result<()> {
    if platform == PlatformName::InProcess {
        return Err(Usage::error(
            "--guest linux needs virtual machines: it does not go with in-process",
        ));
    }
    if arguments.peer.is_some() {
        return Err(Usage::error("--guest linux does not go with --peer"));
    }
    Ok(())
}

/// Whether `text` has `pattern` in it, `*` standing for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    // The first place where a piece is found leaves most for the pieces after it.
    pattern.split('*').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests;
