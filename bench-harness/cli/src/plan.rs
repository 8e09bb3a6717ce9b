//! What is measured, and in which order.

use paraslot_protocol::{Access, Completion, Device, Job};
use paraslot_report::Path;

use crate::args::{Peer, PlatformName, RunArgs, Times};
use crate::error::Usage;
use crate::spec::{Backend, DEVICES, DeviceSpec};

/// What is done with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// The pattern.
    pub(crate) access: Access,
    /// Bytes of an operation.
    pub(crate) block_size: u32,
}

/// The workloads.
pub(crate) const WORKLOADS: [Workload; 3] = [
    Workload { access: Access::RandomRead, block_size: 4 << 10 },
    Workload { access: Access::RandomWrite, block_size: 4 << 10 },
    Workload { access: Access::SequentialRead, block_size: 128 << 10 },
];

/// Operations kept in flight.
pub(crate) const DEPTHS: [u16; 2] = [1, 32];

const COMPLETIONS: [Completion; 2] = [Completion::Poll, Completion::Interrupt];

impl Workload {
    /// Whether it writes.
    pub(crate) fn writes(self) -> bool {
        self.access == Access::RandomWrite
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
    /// Operations in flight.
    pub(crate) depth: u16,
    /// How the driver learns of completions.
    pub(crate) completion: Completion,
    /// Whose device it is: ours, or this one's.
    pub(crate) peer: Option<Peer>,
}

impl Cell {
    /// What the guest is to do with `span` bytes of the disk in run number `round`. Every cell gets
    /// the same offsets in the same round.
    pub(crate) fn job(&self, device: &DeviceSpec, times: &Times, span: u64, round: u32) -> Job {
        let block = u64::from(self.workload.block_size);
        Job {
            device: device.device,
            access: self.workload.access,
            completion: self.completion,
            block_size: self.workload.block_size,
            depth: self.depth,
            span: span / block * block,
            warm_up_ms: times.warm_up_ms,
            measure_ms: times.measure_ms,
            operations: 0,
            // A user's image holds what it holds; what was written to it is known all the same.
            verify: match device.backend {
                _ if !device.verify => false,
                Backend::Null => false,
                Backend::File | Backend::Memory => device.path.is_none() || self.workload.writes(),
            },
            seed: u64::from(round) + 1,
            tsc_hz: 0,
        }
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
    /// What the command line asks for, on this platform.
    pub(crate) fn new(arguments: &RunArgs, platform: PlatformName) -> anyhow::Result<Self> {
        let devices = if arguments.device.is_empty() {
            DEVICES.map(DeviceSpec::new).to_vec()
        } else {
            arguments.device.clone()
        };
        if arguments.peer.is_some() && platform == PlatformName::InProcess {
            return Err(Usage::error(
                "--peer needs virtual machines: it does not go with in-process",
            ));
        }
        let paths: &[Path] = match platform {
            PlatformName::Kvm => &[Path::Trap, Path::Event],
            PlatformName::InProcess => &[Path::InProcess],
        };
        let mut plan = Self { devices, cells: Vec::new(), notes: Vec::new() };
        for (device, spec) in plan.devices.iter().enumerate() {
            let name = plan.label(device);
            if !spec.writable() {
                let why = if spec.read_only {
                    "readonly=on"
                } else {
                    "an image of your own without write=on"
                };
                plan.notes.push(format!("{name}: no write workloads ({why})"));
            }
            if let (Some(_), Some(why)) = (arguments.peer, not_with_qemu(spec)) {
                plan.notes.push(format!("{name}: not with qemu ({why})"));
            }
        }
        plan.cells = plan.all(paths, arguments.peer);
        let same = |cell: &Cell| {
            let ahci = plan.devices[cell.device].device == Device::Ahci;
            ahci && cell.peer.is_some() && cell.path == Path::Event
        };
        if plan.cells.iter().any(same) {
            plan.notes.push("qemu: ahci has no event path there, its figures are of trap".into());
        }
        if plan
            .cells
            .iter()
            .all(|cell| arguments.filter.iter().any(|one| !matches(one, &cell.name)))
        {
            let given = arguments.filter.join(" and ");
            return Err(Usage::error(format!(
                "nothing to measure has {given} in its name: see paraslot run --list"
            )));
        }
        plan.cells.retain(|cell| arguments.filter.iter().all(|one| matches(one, &cell.name)));
        Ok(plan)
    }

    /// A device's name, with a number if it is given several times.
    fn label(&self, index: usize) -> String {
        let device = self.devices[index].device;
        let same = |specs: &[DeviceSpec]| specs.iter().filter(|spec| spec.device == device).count();
        if same(&self.devices) == 1 {
            device.name().to_owned()
        } else {
            format!("{device}#{}", same(&self.devices[..=index]))
        }
    }

    /// Everything, with what is compared next to each other.
    fn all(&self, paths: &[Path], peer: Option<Peer>) -> Vec<Cell> {
        let monitors = [None, peer];
        let monitors = &monitors[..1 + usize::from(peer.is_some())];
        let mut cells = Vec::new();
        for workload in WORKLOADS {
            for depth in DEPTHS {
                for completion in COMPLETIONS {
                    for &path in paths {
                        for &peer in monitors {
                            let key = Key { path, workload, depth, completion, peer };
                            cells.extend(
                                self.devices_for(&key).map(|device| key.cell(self, device)),
                            );
                        }
                    }
                }
            }
        }
        cells
    }

    /// The devices that can do that.
    fn devices_for(&self, key: &Key) -> impl Iterator<Item = usize> {
        let Key { workload, peer, .. } = *key;
        let possible = move |spec: &DeviceSpec| {
            let allowed = !workload.writes() || spec.writable();
            allowed && (peer.is_none() || not_with_qemu(spec).is_none())
        };
        self.devices
            .iter()
            .enumerate()
            .filter(move |(_, spec)| possible(spec))
            .map(|(index, _)| index)
    }

    /// The cells of one round, in its order: every other round goes backwards, so that a host that
    /// gets slower as time passes favours nobody.
    pub(crate) fn round(&self, round: u32) -> Vec<usize> {
        let forwards = 0..self.cells.len();
        if round.is_multiple_of(2) { forwards.collect() } else { forwards.rev().collect() }
    }
}

/// Why QEMU cannot have a device; `None` if it can.
fn not_with_qemu(spec: &DeviceSpec) -> Option<&'static str> {
    if spec.backend == Backend::Memory {
        Some("it has no backend=memory")
    } else if spec.device == Device::Ahci && !spec.writable() {
        Some("its disks there cannot be read-only")
    } else {
        None
    }
}

/// What several devices' cells have in common.
struct Key {
    path: Path,
    workload: Workload,
    depth: u16,
    completion: Completion,
    peer: Option<Peer>,
}

impl Key {
    fn cell(&self, plan: &Plan, device: usize) -> Cell {
        let Self { path, workload, depth, completion, peer } = *self;
        let Workload { access, block_size } = workload;
        let monitor = match peer {
            None => "",
            Some(Peer::Qemu) => "qemu:",
        };
        let name = format!(
            "{monitor}{}/{path}/{access}/{}k/qd{depth}/{completion}",
            plan.label(device),
            block_size >> 10
        );
        Cell { device, name, path, workload, depth, completion, peer }
    }
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
