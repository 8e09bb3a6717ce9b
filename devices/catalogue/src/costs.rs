//! What devices cost an operation, as it was measured.
//!
//! The figures are those of one record of measurements of all devices, kept beside this file; a test holds them
//! against the record.

use serde::{Deserialize, Serialize};

/// What a device cost on one host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Where and when.
    pub origin: Origin,
    /// One line for each workload.
    pub rows: Vec<Cost>,
}

/// Where and when costs were measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The record's name in the project's `docs/measurements`.
    pub record: String,
    /// The day.
    pub date: String,
    /// The processor, and what is below.
    pub host: String,
}

/// What one workload cost, on the `event` path: doorbells by ioeventfd, interrupts by irqfd.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The device.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub device: String,
    /// The workload.
    pub workload: String,
    /// Bytes of a block or frame.
    pub size: u64,
    /// Operations in flight, or frames handed over at once.
    pub depth: u32,
    /// `poll` or `interrupt`.
    pub completion: String,
    /// Operations a second: the median, and the ends of its interval.
    pub per_second: (f64, f64, f64),
    /// The latency that half of the operations do not exceed, in nanoseconds.
    pub p50_ns: Option<u64>,
    /// And 99 %.
    pub p99_ns: Option<u64>,
    /// Exits of the virtual processor to user space, an operation.
    pub exits: Option<f64>,
    /// The same on the `trap` path, where every access exits.
    pub exits_trapped: Option<f64>,
    /// Interrupts that the guest took, an operation.
    pub interrupts: Option<f64>,
    /// Cycles of the guest that were not spent waiting, an operation.
    pub guest_cycles: Option<f64>,
    /// CPU time of the host, an operation, in nanoseconds.
    pub host_cpu_ns: Option<f64>,
    /// Operations a second for each of the emulated device's of the same kind: the ratio, and its ends.
    /// `None` for the emulated one itself, or where it does not do that.
    pub ratio: Option<(f64, f64, f64)>,
}

/// What is kept: all devices' costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Where and when.
    pub origin: Origin,
    /// All rows.
    pub rows: Vec<Cost>,
}

const KEPT: &str = include_str!("costs.json");

/// What is kept of all devices; nothing if the file is no such thing, which a test excludes.
pub fn kept() -> Kept {
    serde_json::from_str(KEPT).unwrap_or_default()
}

/// What is kept of one device.
pub(crate) fn of(device: &str) -> Costs {
    let Kept { origin, rows } = kept();
    let own = rows.into_iter().filter(|row| row.device == device);
    Costs { origin, rows: own.map(|row| Cost { device: String::new(), ..row }).collect() }
}
