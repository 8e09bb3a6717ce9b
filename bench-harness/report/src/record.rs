//! One record: what one device did with one workload on one path.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Distribution, Latency};

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Made to be virtual: its driver and its device work together.
    Paravirtual,
    /// A model of hardware.
    Emulated,
    /// The host's hardware itself.
    Passthrough,
}

/// How the guest reaches the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Every register access exits to user space, and user space raises the interrupts.
    Trap,
    /// Doorbells are taken in the kernel (ioeventfd) and interrupts raised there (irqfd).
    Event,
    /// The device is in another process, behind a socket.
    VfioUser,
    /// The device is hardware that the guest was given.
    Passthrough,
    /// No virtual machine at all: driver and device are in one process and call each other. Such a
    /// figure says what the two cost, and nothing about virtual machines.
    InProcess,
}

/// How the guest's driver learns of completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Completion {
    /// It looks, with interrupts off.
    Poll,
    /// It sleeps until the device interrupts.
    Interrupt,
}

/// What ran in the virtual machine, and drove the device. Figures of one are not set beside those of
/// another.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum GuestKind {
    /// Nothing but a driver and a workload. In-process, these without a virtual machine.
    #[default]
    Freestanding,
    /// A Linux distribution's kernel, with its own drivers, and programs that measure.
    Linux,
}

/// Bytes of one operation, under the name that fits the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Size {
    /// A disk's operations.
    #[serde(rename = "block_size")]
    Block(u64),
    /// A network's frames.
    #[serde(rename = "frame_size")]
    Frame(u64),
}

macro_rules! shown {
    ($type:ident { $($variant:ident => $name:literal),+ $(,)? }) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$variant => $name),+ })
            }
        }
    };
}
shown!(Family { Paravirtual => "paravirtual", Emulated => "emulated", Passthrough => "passthrough" });
shown!(Path {
    Trap => "trap",
    Event => "event",
    VfioUser => "vfio-user",
    Passthrough => "passthrough",
    InProcess => "in-process",
});
shown!(GuestKind { Freestanding => "freestanding", Linux => "linux" });
shown!(Completion { Poll => "poll", Interrupt => "interrupt" });

/// What one device did with one workload on one path. The counts "per operation" are of the measured
/// parts of all runs together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The device's name, as on the command line.
    pub device: String,
    /// What kind of device it is.
    pub family: Family,
    /// How the guest reaches it.
    pub path: Path,
    /// What drove it.
    #[serde(default)]
    pub guest: GuestKind,
    /// How its driver learns of completions.
    pub completion: Completion,
    /// What was done.
    pub workload: String,
    /// Bytes of one operation.
    #[serde(flatten)]
    pub size: Size,
    /// Operations kept in flight. Of networks, frames handed over at once; of requests, also the most
    /// that are unanswered.
    pub queue_depth: u32,
    /// Operations offered a second, each at its own time whether or not the ones before are done
    /// with; `None` for as many as go. Latency is then from that time on.
    #[serde(default)]
    pub offered_per_second: Option<u32>,
    /// Queues that the driver used.
    pub queues: u32,
    /// Who ran the device: `paraslot`, `qemu`, or `none` without a virtual machine.
    pub vmm: String,
    /// What was behind the device, as options of the command line.
    pub backend: String,
    /// Runs.
    pub runs: u32,
    /// Operations in all runs.
    pub operations: u64,
    /// Seconds measured in all runs, by the guest's clock.
    pub seconds: f64,
    /// Operations a second.
    pub ops_per_second: Distribution,
    /// Operations a second of each run, in the order of the rounds; empty in records that do not have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_ops_per_second: Vec<f64>,
    /// Bytes a second.
    pub bytes_per_second: Distribution,
    /// Time from an operation's submission to its completion, in nanoseconds.
    pub latency_ns: Option<Latency>,
    /// The runs' own medians of that.
    #[serde(default)]
    pub p50_ns: Option<Distribution>,
    /// Each of them, in the order of the rounds; empty in records that do not have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub run_p50_ns: Vec<f64>,
    /// The latencies that 99 % of a run's operations did not exceed.
    #[serde(default)]
    pub p99_ns: Option<Distribution>,
    /// Exits of the virtual processor to user space.
    pub exits_per_op: Option<f64>,
    /// Doorbells that the driver rang. The path says where they are taken: with an exit each on
    /// `trap`, in the kernel on `event`.
    pub doorbells_per_op: Option<f64>,
    /// Interrupts that the guest took.
    pub interrupts_per_op: Option<f64>,
    /// CPU time of the host, of the virtual processor and of all that serves the device, in
    /// nanoseconds.
    pub host_cpu_ns_per_op: Option<f64>,
    /// Cycles of the guest's time stamp counter in which it did anything but wait for the device.
    /// Time lost to exits counts.
    pub guest_cycles_per_op: Option<f64>,
    /// Bytes that the device's side copied between guest memory and memory of its own. What the
    /// host's kernel copies does not count.
    pub copied_bytes_per_op: Option<f64>,
    /// Frames that were sent and did not arrive, in all runs; `None` for disks.
    #[serde(default)]
    pub frames_lost: Option<u64>,
    /// Frames that arrived after one that was sent later, likewise.
    #[serde(default)]
    pub frames_reordered: Option<u64>,
}
