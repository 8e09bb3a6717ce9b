//! Who measures: a guest under KVM, this process alone, or another monitor.

pub(crate) mod built;
pub(crate) mod in_process;
pub(crate) mod kvm;
pub(crate) mod linux;
mod marks;
mod outcome;
pub(crate) mod qemu;
pub(crate) mod remote;

use std::time::Duration;

use paraslot_backends::net::NetStatistics;
use paraslot_device::ThreadOptions;
use paraslot_protocol::Job;
use paraslot_report::{Guest, Pinning};

use crate::plan::Cell;
use crate::spec::DeviceSpec;
use crate::storage::Storage;

/// What one run counted. Times are in cycles of a counter that runs at `tsc_hz`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    /// What was behind the device, as options of the command line.
    pub(crate) backend: String,
    /// Operations.
    pub(crate) operations: u64,
    /// Bytes that they moved.
    pub(crate) bytes: u64,
    /// Length of the measured part.
    pub(crate) cycles: u64,
    /// Of that, spent waiting for the device, where it can be told.
    pub(crate) waiting_cycles: Option<u64>,
    /// The counter's frequency.
    pub(crate) tsc_hz: u64,
    /// Latencies, as values with their counts.
    pub(crate) latency: Vec<(u64, u64)>,
    /// The longest.
    pub(crate) max_latency: u64,
    /// Doorbells rung, where somebody counts them.
    pub(crate) doorbells: Option<u64>,
    /// Interrupts taken.
    pub(crate) interrupts: u64,
    /// Frames that did not arrive.
    pub(crate) lost: u64,
    /// Frames that arrived out of order.
    pub(crate) reordered: u64,
    /// What the device says became of its frames.
    pub(crate) network: NetStatistics,
    /// Bytes of the whole disk; 0 for networks.
    pub(crate) capacity: u64,
    /// Exits to user space, where they can be counted.
    pub(crate) exits: Option<u64>,
    /// CPU time of the monitor and its guest, where it can be told.
    pub(crate) host_cpu: Option<Duration>,
    /// Bytes copied by the device's side, where they are counted.
    pub(crate) copied: Option<u64>,
}

/// How all runs are made.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    /// The devices.
    pub(crate) devices: &'a [DeviceSpec],
    /// What is behind them.
    pub(crate) storage: &'a Storage,
    /// Where to run.
    pub(crate) pinning: Option<Pinning>,
    /// How long a device's thread polls before it sleeps.
    pub(crate) busy_poll: Duration,
    /// How much longer devices' workers take for each look at their work, on purpose.
    pub(crate) drag: Duration,
    /// Whether guests have memory that other processes can map. Devices that they serve need it, and what
    /// is compared with those has the same.
    pub(crate) shared_memory: bool,
}

impl Setting<'_> {
    /// How the thread that serves a device runs.
    fn threads(&self) -> ThreadOptions {
        self.threads_on(self.device_cpu())
    }

    /// The same on that processor.
    fn threads_on(&self, cpu: Option<usize>) -> ThreadOptions {
        ThreadOptions { threads: 1, cpus: cpu.into_iter().collect(), busy_poll: self.busy_poll }
    }

    /// The processor for the guest.
    fn vcpu_cpu(&self) -> Option<usize> {
        self.pinning.and_then(|pinning| usize::try_from(pinning.vcpu).ok())
    }

    /// The processor for the device.
    fn device_cpu(&self) -> Option<usize> {
        self.pinning.and_then(|pinning| usize::try_from(pinning.device).ok())
    }
}

/// Bytes of memory that a guest has: for its image, its queues, the buffers of the deepest workload
/// and two bytes for each block that may be written.
const GUEST_MEMORY: u32 = 64 << 20;

/// How long a run may take. What was written is read back, which takes as long as the writing did if
/// not longer; a device that completes nothing is noticed by the driver long before.
fn limit(job: &Job) -> Duration {
    let (warm_up, measure) = job.times_ms();
    let measured = u64::from(warm_up) + u64::from(measure);
    Duration::from_secs(60) + Duration::from_millis(10 * measured)
}

/// Runs jobs.
pub(crate) trait Bench {
    /// Runs the job of one cell, once.
    ///
    /// # Errors
    /// When there was no run, or one that did not end well.
    fn run(&mut self, cell: &Cell, job: &Job) -> anyhow::Result<Sample>;

    /// The guest, if it is one that says what it is when it has run.
    fn guest(&self) -> Option<Guest> {
        None
    }
}
