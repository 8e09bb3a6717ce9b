//! The runs of one measurement, put together.

use std::time::Duration;

use paraslot_backends::net::NetStatistics;
use paraslot_protocol::Completion as Mode;
use paraslot_report::{Completion, Distribution, GuestKind, LatencyCounts, Record, Size};

use crate::args::{GuestName, Peer};
use crate::bench::Sample;
use crate::plan::{Cell, DiskWorkload, NetWorkload, StreamWorkload, Workload};
use crate::spec::DeviceSpec;

/// What the runs of one cell counted so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runs {
    backend: String,
    ops_per_second: Vec<f64>,
    bytes_per_second: Vec<f64>,
    latency: LatencyCounts,
    /// Of each run.
    p50: Vec<f64>,
    p99: Vec<f64>,
    operations: u64,
    seconds: f64,
    interrupts: u64,
    lost: u64,
    reordered: u64,
    network: NetStatistics,
    // One run that was not measured leaves the whole unmeasured.
    doorbells: Option<u64>,
    busy_cycles: Option<u64>,
    exits: Option<u64>,
    host_cpu: Option<Duration>,
    copied: Option<u64>,
}

/// What a record says of a cell's workload: its name, the size and depth, and the load if that is fixed.
fn work(cell: &Cell) -> (&'static str, Size, u16, Option<u32>) {
    match cell.workload {
        Workload::Disk(DiskWorkload { access, block_size, depth }) => {
            (access.name(), Size::Block(block_size.into()), depth, None)
        }
        Workload::Net(NetWorkload { flow, frame_size, batch, rate }) => {
            (flow.name(), Size::Frame(frame_size.into()), batch, rate)
        }
        Workload::Stream(StreamWorkload { stream, size }) => {
            (stream.name(), Size::Frame(size.into()), 1, None)
        }
    }
}

fn completion(cell: &Cell) -> Completion {
    match cell.completion {
        Mode::Poll => Completion::Poll,
        Mode::Interrupt => Completion::Interrupt,
    }
}

/// Whether a record, of whichever build, is of that cell and that device.
pub(crate) fn is_of(record: &Record, cell: &Cell, device: &DeviceSpec) -> bool {
    let recorded = (record.workload.as_str(), record.size, record.offered_per_second);
    let (workload, size, depth, rate) = work(cell);
    recorded == (workload, size, rate)
        && record.queue_depth == u32::from(depth)
        && record.device == device.device().name()
        && record.path == cell.path
        && record.completion == completion(cell)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a short run, shown to three digits")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Runs {
    /// Adds a run, which has a length.
    pub(crate) fn add(&mut self, sample: &Sample) {
        let seconds = float(sample.cycles) / float(sample.tsc_hz);
        let first = self.ops_per_second.is_empty();
        self.backend.clone_from(&sample.backend);
        self.ops_per_second.push(float(sample.operations) / seconds);
        self.bytes_per_second.push(float(sample.bytes) / seconds);
        let latency = || sample.latency.iter().copied();
        self.latency.add(latency(), sample.max_latency, sample.tsc_hz);
        let mut own = LatencyCounts::new();
        own.add(latency(), sample.max_latency, sample.tsc_hz);
        if let Some(own) = own.percentiles() {
            self.p50.push(float(own.p50));
            self.p99.push(float(own.p99));
        }
        self.operations += sample.operations;
        self.seconds += seconds;
        self.interrupts += sample.interrupts;
        self.lost += sample.lost;
        self.reordered += sample.reordered;
        self.network += sample.network;
        let busy = sample.waiting_cycles.map(|waiting| sample.cycles.saturating_sub(waiting));
        self.doorbells = sum(first, self.doorbells, sample.doorbells, |a, b| a + b);
        self.busy_cycles = sum(first, self.busy_cycles, busy, |a, b| a + b);
        self.exits = sum(first, self.exits, sample.exits, |a, b| a + b);
        self.host_cpu = sum(first, self.host_cpu, sample.host_cpu, |a, b| a + b);
        self.copied = sum(first, self.copied, sample.copied, |a, b| a + b);
    }

    /// The record of them; `None` if there are none.
    pub(crate) fn record(&self, cell: &Cell, device: &DeviceSpec) -> Option<Record> {
        let operations = (self.operations > 0).then(|| float(self.operations));
        let per_op = |count: Option<f64>| Some(count? / operations?);
        let vmm = match (cell.path, cell.peer) {
            (paraslot_report::Path::InProcess, _) => "none",
            (_, None) => "paraslot",
            (_, Some(Peer::Qemu)) => "qemu",
        };
        let (workload, size, queue_depth, rate) = work(cell);
        let is_net = cell.net().is_some();
        Some(Record {
            device: device.device().name().into(),
            family: device.family(),
            path: cell.path,
            guest: match cell.guest {
                GuestName::Freestanding => GuestKind::Freestanding,
                GuestName::Linux => GuestKind::Linux,
            },
            completion: completion(cell),
            workload: workload.into(),
            size,
            queue_depth: queue_depth.into(),
            offered_per_second: rate,
            queues: 1,
            vmm: vmm.into(),
            backend: self.backend.clone(),
            runs: u32::try_from(self.ops_per_second.len()).unwrap_or(u32::MAX),
            operations: self.operations,
            seconds: self.seconds,
            ops_per_second: Distribution::of(&self.ops_per_second)?,
            run_ops_per_second: self.ops_per_second.clone(),
            bytes_per_second: Distribution::of(&self.bytes_per_second)?,
            latency_ns: self.latency.percentiles(),
            p50_ns: Distribution::of(&self.p50),
            run_p50_ns: self.p50.clone(),
            p99_ns: Distribution::of(&self.p99),
            exits_per_op: per_op(self.exits.map(float)),
            doorbells_per_op: per_op(self.doorbells.map(float)),
            interrupts_per_op: per_op(Some(float(self.interrupts))),
            host_cpu_ns_per_op: per_op(self.host_cpu.map(|time| time.as_secs_f64() * 1e9)),
            guest_cycles_per_op: per_op(self.busy_cycles.map(float)),
            copied_bytes_per_op: per_op(self.copied.map(float)),
            frames_lost: is_net.then_some(self.lost),
            frames_reordered: is_net.then_some(self.reordered),
        })
    }

    /// What the device dropped, in a line; `None` if nothing.
    pub(crate) fn drops(&self) -> Option<String> {
        let NetStatistics {
            filtered,
            received_too_long,
            receive_errors,
            send_no_buffers,
            send_down,
            send_invalid,
            send_errors,
            // Not drops: what was done, and what had to wait.
            sent_frames: _,
            sent_bytes: _,
            received_frames: _,
            received_bytes: _,
            no_guest_buffers: _,
            send_busy: _,
            copied_bytes: _,
        } = self.network;
        let counts = [
            (filtered, "were not for the guest"),
            (received_too_long, "were too long for its buffers"),
            (receive_errors, "could not be received"),
            (send_no_buffers, "found no buffers in the host"),
            (send_down, "found the port down"),
            (send_invalid, "made no sense"),
            (send_errors, "could not be sent"),
        ];
        let told: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count != 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        (!told.is_empty()).then(|| format!("frames dropped by the device: {}", told.join(", ")))
    }
}

/// The sum of what was measured so far and of one run more.
fn sum<T>(first: bool, before: Option<T>, more: Option<T>, add: fn(T, T) -> T) -> Option<T> {
    if first { more } else { before.zip(more).map(|(before, more)| add(before, more)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::PlatformName;
    use crate::plan::Plan;
    use clap::Parser;

    fn sample(operations: u64) -> Sample {
        Sample {
            backend: "backend=null".into(),
            operations,
            bytes: operations * 4096,
            cycles: 500_000,
            waiting_cycles: Some(300_000),
            tsc_hz: 1_000_000,
            latency: vec![(20, operations)],
            max_latency: 20,
            doorbells: Some(operations),
            interrupts: operations / 2,
            exits: Some(2 * operations),
            host_cpu: Some(Duration::from_millis(operations)),
            copied: Some(0),
            lost: 0,
            reordered: 0,
            network: NetStatistics::default(),
            capacity: 0,
        }
    }

    fn record(samples: &[Sample]) -> Option<Record> {
        record_of("qd1/poll", samples)
    }

    /// The record of the first cell that has `filter` in its name.
    fn record_of(filter: &str, samples: &[Sample]) -> Option<Record> {
        let arguments = ["paraslot", "--filter", filter];
        let arguments = crate::args::CommandLine::try_parse_from(arguments).unwrap();
        let identify = |_| anyhow::bail!("no hardware");
        let plan = Plan::new(&arguments.run, PlatformName::Kvm, identify).unwrap();
        let mut runs = Runs::default();
        samples.iter().for_each(|sample| runs.add(sample));
        runs.record(&plan.cells[0], &plan.devices[0])
    }

    #[test]
    fn runs_are_put_together() {
        let record = record(&[sample(100), sample(300), sample(200)]).unwrap();
        assert_eq!((record.runs, record.operations, record.seconds), (3, 600, 1.5));
        assert_eq!(record.backend, "backend=null");
        let expected = Distribution { median: 400.0, low: 200.0, high: 600.0 };
        assert_eq!(record.ops_per_second, expected);
        assert_eq!(record.run_ops_per_second, [200.0, 600.0, 400.0]);
        assert_eq!(record.run_p50_ns.len(), 3);
        assert_eq!(record.bytes_per_second.median, 400.0 * 4096.0);
        assert_eq!(record.latency_ns.unwrap().max, 20_000);
        assert_eq!(record.exits_per_op, Some(2.0));
        assert_eq!(record.doorbells_per_op, Some(1.0));
        assert_eq!(record.interrupts_per_op, Some(0.5));
        assert_eq!(record.host_cpu_ns_per_op, Some(1e6));
        assert_eq!(record.guest_cycles_per_op, Some(1000.0));
        // Measured, and none.
        assert_eq!(record.copied_bytes_per_op, Some(0.0));
    }

    #[test]
    fn what_one_run_did_not_measure_is_not_measured() {
        let blind = Sample {
            exits: None,
            host_cpu: None,
            copied: None,
            doorbells: None,
            waiting_cycles: None,
            ..sample(100)
        };
        for samples in [[blind.clone(), sample(100)], [sample(100), blind]] {
            let record = record(&samples).unwrap();
            assert_eq!(record.exits_per_op, None);
            assert_eq!(record.host_cpu_ns_per_op, None);
            assert_eq!(record.copied_bytes_per_op, None);
            assert_eq!((record.doorbells_per_op, record.guest_cycles_per_op), (None, None));
        }
    }

    #[test]
    fn a_network_has_frames_that_may_be_lost() {
        let lossy = Sample { lost: 3, reordered: 1, ..sample(100) };
        let record = record_of("/10k", &[lossy, sample(100)]).unwrap();
        assert_eq!((record.frames_lost, record.frames_reordered), (Some(3), Some(1)));
        assert_eq!((record.workload.as_str(), record.size), ("rr", Size::Frame(64)));
        assert_eq!((record.queue_depth, record.offered_per_second), (32, Some(10_000)));
        // Each run's own median, of two runs alike.
        let own = record.latency_ns.unwrap().p50;
        assert_eq!(record.p50_ns.unwrap().median, float(own));
        let disk = self::record(&[sample(100)]).unwrap();
        assert_eq!((disk.frames_lost, disk.offered_per_second), (None, None));
    }

    #[test]
    fn what_a_device_dropped_is_said() {
        let network = NetStatistics { send_down: 2, send_busy: 9, ..NetStatistics::default() };
        let mut runs = Runs::default();
        runs.add(&sample(1));
        assert_eq!(runs.drops(), None);
        runs.add(&Sample { network, ..sample(1) });
        assert_eq!(runs.drops().unwrap(), "frames dropped by the device: 2 found the port down");
    }

    #[test]
    fn no_run_has_no_record_and_no_operation_no_count_for_each() {
        assert_eq!(record(&[]), None);
        let idle = Sample { latency: Vec::new(), ..sample(0) };
        let record = record(&[idle]).unwrap();
        assert_eq!(record.ops_per_second.median, 0.0);
        assert_eq!((record.exits_per_op, record.latency_ns), (None, None));
    }
}
