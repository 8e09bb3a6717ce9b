//! The outputs of a small set of records, and the format of the file.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::*;

mod csv;

/// A median with an interval of ±2 %.
pub(crate) fn around(median: f64) -> Distribution {
    Distribution { median, low: median * 0.98, high: median * 1.02 }
}

/// A record of a read with `kilo` thousand operations a second, ±2 %, in `runs` runs.
pub(crate) fn record(device: &str, kilo: f64, runs: u32) -> Record {
    let family = if device == "ahci" { Family::Emulated } else { Family::Paravirtual };
    let exits = if device == "ahci" { 7.0 } else { 1.0 };
    Record {
        device: device.into(),
        family,
        path: Path::Trap,
        guest: GuestKind::Freestanding,
        completion: Completion::Interrupt,
        workload: "randread".into(),
        size: Size::Block(4096),
        queue_depth: 1,
        offered_per_second: None,
        queues: 1,
        vmm: "paraslot".into(),
        backend: "backend=file".into(),
        runs,
        operations: 12_345,
        seconds: 0.9,
        ops_per_second: around(kilo * 1e3),
        run_ops_per_second: Vec::new(),
        bytes_per_second: around(kilo * 4.096e6),
        latency_ns: Some(Latency {
            p50: 14_300,
            p90: 16_100,
            p99: 20_480,
            p999: 96_000,
            max: 1_234_567,
        }),
        p50_ns: None,
        run_p50_ns: Vec::new(),
        p99_ns: None,
        exits_per_op: Some(exits),
        doorbells_per_op: Some(1.0),
        interrupts_per_op: Some(0.996),
        host_cpu_ns_per_op: Some(15_820.0),
        guest_cycles_per_op: Some(2201.4),
        copied_bytes_per_op: Some(0.0),
        frames_lost: None,
        frames_reordered: None,
    }
}

/// The same record as QEMU would have it: what cannot be seen from outside is not measured.
pub(crate) fn peer(mut record: Record) -> Record {
    record.vmm = "qemu".into();
    record.exits_per_op = None;
    record.host_cpu_ns_per_op = None;
    record.copied_bytes_per_op = None;
    record
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        version: "0.1.0".into(),
        revision: Some("ea37748".into()),
        build: "release".into(),
        date: "2026-03-01T12:00:00Z".into(),
        command_line: vec!["paraslot".into(), "--peer".into(), "qemu".into()],
        cpu_model: Some("Example CPU @ 2.60GHz".into()),
        kernel: Some("6.18.0".into()),
        hypervisor: Some("kvm".into()),
        nested: Some(true),
        below: Some("KVMKVMKVM".into()),
        guest: Some(Guest { name: None, bytes: 135_000, fnv1a: "af63dc4c8601ec8c".into() }),
        backend: vec!["backend=file".into()],
        pinned: Some(Pinning { vcpu: 0, device: 1 }),
        busy_poll_us: 50,
        warm_up_ms: 50,
        measure_ms: 300,
        notes: Vec::new(),
    }
}

/// Two workloads, two paths, a peer, a difference that is noise.
pub(crate) fn sample() -> Report {
    let event = |mut record: Record| {
        record.path = Path::Event;
        record.exits_per_op = Some(if record.device == "ahci" { 5.0 } else { 0.0 });
        record
    };
    let sequential = |mut record: Record| {
        record.workload = "read".into();
        record.size = Size::Block(131_072);
        record.queue_depth = 32;
        record.completion = Completion::Poll;
        record
    };
    let results = vec![
        // Not in the order of the table.
        event(record("virtio-blk", 63.1, 3)),
        event(record("ahci", 5.04, 3)),
        record("ahci", 4.61, 3),
        record("virtio-blk", 19.7, 3),
        peer(record("virtio-blk", 24.0, 3)),
        peer(record("ahci", 4.2, 3)),
        sequential(record("ahci", 7.31, 6)),
        sequential(record("virtio-blk", 7.5, 6)),
    ];
    Report::new(manifest(), results)
}

/// No virtual machine: the widest keys, hardly a figure, a single run.
pub(crate) fn in_process() -> Report {
    let bare = |device| {
        let mut bare = peer(record(device, 1234.5, 1));
        bare.vmm = "none".into();
        bare.path = Path::InProcess;
        bare.latency_ns = None;
        bare.doorbells_per_op = None;
        bare.interrupts_per_op = None;
        bare.guest_cycles_per_op = None;
        bare
    };
    let manifest = Manifest {
        build: "debug".into(),
        hypervisor: None,
        nested: None,
        guest: None,
        pinned: None,
        revision: None,
        notes: vec!["these figures say nothing about virtual machines".into()],
        ..manifest()
    };
    Report::new(manifest, vec![bare("virtio-blk"), bare("ahci")])
}

/// A record of a network: `kilo` thousand frames of `bytes` a second.
pub(crate) fn frames(device: &str, workload: &str, bytes: u32, kilo: f64) -> Record {
    let mut frames = record("ahci", kilo, 3);
    if device == "virtio-net" {
        frames.family = Family::Paravirtual;
    }
    frames.device = device.into();
    frames.workload = workload.into();
    frames.size = Size::Frame(bytes.into());
    frames.queue_depth = 32;
    frames.backend = "backend=sink".into();
    frames.bytes_per_second = around(kilo * 1e3 * f64::from(bytes));
    frames.frames_lost = Some(0);
    frames.frames_reordered = Some(0);
    frames
}

/// As many frames as go, short and long, beside a peer; and a fixed load, at which frames are lost.
pub(crate) fn networks() -> Report {
    let paced = |device: &str, p50: f64, lost| {
        let mut paced = frames(device, "rr", 64, 10.0);
        paced.backend = "backend=loopback".into();
        paced.offered_per_second = Some(10_000);
        let around = |median| Distribution { median, low: median * 0.9, high: median * 1.1 };
        paced.p50_ns = Some(around(p50));
        paced.p99_ns = Some(around(p50 * 2.0));
        paced.frames_lost = Some(lost);
        paced.frames_reordered = Some(lost / 2);
        paced
    };
    let results = vec![
        frames("virtio-net", "tx", 64, 3210.0),
        frames("e1000", "tx", 64, 321.0),
        peer(frames("virtio-net", "tx", 64, 1500.0)),
        frames("virtio-net", "tx", 1514, 1100.0),
        frames("e1000", "tx", 1514, 310.0),
        peer(frames("virtio-net", "tx", 1514, 900.0)),
        peer(frames("e1000", "tx", 1514, 80.0)),
        paced("virtio-net", 21_000.0, 0),
        paced("e1000", 63_000.0, 7),
    ];
    Report::new(manifest(), results)
}

#[test]
fn the_table_of_networks() {
    assert_eq!(table(&networks()), include_str!("golden/networks.txt"));
}

#[test]
fn the_document_of_networks() {
    assert_eq!(markdown(&networks()), include_str!("golden/networks.md"));
}

/// A file that was written before there were networks.
#[test]
fn an_older_file_is_read() {
    let older = Report::from_json(include_str!("golden/older.json")).unwrap();
    assert_eq!(older, in_process());
}

/// At a fixed load whoever keeps up has the same rate: what differs is how long it takes.
#[test]
fn at_a_fixed_load_latencies_are_compared() {
    let report = networks();
    let found = comparisons(&report.results);
    let paced: Vec<_> = found
        .iter()
        .filter(|comparison| comparison.paravirtual.offered_per_second.is_some())
        .map(|comparison| (comparison.measure, comparison.ratio, comparison.verdict))
        .collect();
    let expected = [(Measure::P50, 3.0, Verdict::Faster), (Measure::P99, 3.0, Verdict::Faster)];
    assert_eq!(paced, expected);
    // Two of one load, or one without, have nothing to be compared in.
    let mut other = report.results.clone();
    other[7].offered_per_second = Some(20_000);
    other[8].p50_ns = None;
    assert!(comparisons(&other[7..]).is_empty());
    other[7].offered_per_second = Some(10_000);
    assert_eq!(comparisons(&other[7..]).len(), 1);
}

#[test]
fn what_was_lost_is_said_below_its_table() {
    let text = table(&networks());
    assert!(text.contains("! e1000, batch 32, interrupt, trap: 7 lost and 3 out of order of"));
    assert_eq!(text.matches(" lost").count(), 1);
}

#[test]
fn the_table_of_a_small_set() {
    assert_eq!(table(&sample()), include_str!("golden/table.txt"));
}

#[test]
fn the_table_without_a_virtual_machine() {
    assert_eq!(table(&in_process()), include_str!("golden/in-process.txt"));
}

#[test]
fn the_document_of_a_small_set() {
    assert_eq!(markdown(&sample()), include_str!("golden/report.md"));
}

#[test]
fn the_file_of_a_small_set() {
    assert_eq!(in_process().to_json().unwrap(), include_str!("golden/results.json"));
}

/// Whatever the figures, no line is wider than the terminal is taken to be.
#[test]
fn tables_fit_a_hundred_columns() {
    let mut wide = sample();
    wide.results.extend(networks().results);
    for record in &mut wide.results {
        record.path = Path::Passthrough;
        record.ops_per_second = Distribution { median: 9.999e6, low: 9.998e6, high: 9.9999e6 };
        record.latency_ns =
            Some(Latency { p50: 1 << 40, p90: 1 << 40, p99: 1 << 40, p999: 1 << 40, max: 1 << 40 });
        record.exits_per_op = Some(12_345.678);
        record.host_cpu_ns_per_op = Some(1e12);
    }
    for report in [&sample(), &in_process(), &networks(), &wide] {
        for line in table(report).lines().skip_while(|line| !line.is_empty()) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}

/// Hardware is set beside all that did its work, whatever was behind that, and needs nothing beside it.
#[test]
fn hardware_is_in_every_table_of_its_work() {
    let hardware = |address: &str| Record {
        family: Family::Passthrough,
        path: Path::Passthrough,
        backend: format!("host={address},overwrite=on"),
        exits_per_op: Some(0.0),
        copied_bytes_per_op: None,
        ..record("nvme", 90.0, 6)
    };
    let memory = Record { backend: "backend=memory".into(), ..record("virtio-blk", 80.0, 6) };
    let mut report = sample();
    report.results = vec![record("virtio-blk", 60.0, 6), record("ahci", 10.0, 6), memory];
    let without = table(&report).matches("randread, 4 KiB").count();
    assert_eq!(without, 2);
    report.results.insert(0, hardware("0000:00:05.0"));
    report.results.push(hardware("0000:00:06.0"));
    let shown = table(&report);
    assert_eq!(shown.matches("randread, 4 KiB").count(), 2);
    assert_eq!(shown.matches("passthrough nvme (00:05.0) ").count(), 2, "{shown}");
    // Of a row the key is shown once.
    assert_eq!(shown.matches("nvme (00:06.0) ").count(), 2, "{shown}");
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    assert_eq!(shown.matches("4 KiB blocks, backend=memory\n").count(), 1, "{shown}");
    // It is nobody's rival.
    assert_eq!(comparisons(&report.results).len(), 1);
    report.results.retain(|record| record.family == Family::Passthrough);
    let alone = table(&report);
    assert_eq!(alone.matches("randread, 4 KiB blocks\n").count(), 1, "{alone}");
    assert_eq!(alone.matches("nvme (").count(), 2, "{alone}");
    let read = Report::from_json(&report.to_json().unwrap()).unwrap();
    assert_eq!(read, report);
}

/// A kernel with its block layer, and a bare driver, have not done the same work.
#[test]
fn guests_of_two_kinds_are_kept_apart() {
    let linux = |record| Record { guest: GuestKind::Linux, ..record };
    let mut report = sample();
    report.manifest.guest.as_mut().unwrap().name = Some("Linux 6.1.0".into());
    report.results = vec![record("virtio-blk", 60.0, 6), linux(record("ahci", 10.0, 6))];
    assert_eq!(comparisons(&report.results).len(), 0);
    report.results.push(linux(record("virtio-blk", 40.0, 6)));
    let compared = comparisons(&report.results);
    assert_eq!(compared.len(), 1);
    assert_eq!(compared[0].paravirtual.guest, GuestKind::Linux);
    for text in [table(&report), markdown(&report)] {
        assert!(text.contains("guest: Linux 6.1.0\n"), "{text}");
        let titles = text.lines().filter(|line| line.contains("randread, 4 KiB blocks"));
        let titles: Vec<_> = titles.map(|line| line.trim_start_matches("## ")).collect();
        assert_eq!(
            titles,
            ["randread, 4 KiB blocks", "randread, 4 KiB blocks, in Linux"],
            "{text}"
        );
    }
    // What is called there, and what a frame is.
    let stream =
        |record| Record { workload: "tcp-tx".into(), size: Size::Frame(131_072), ..linux(record) };
    report.results = vec![stream(record("virtio-net", 60.0, 6))];
    let text = table(&report);
    assert!(text.contains("\ntcp-tx, 128 KiB calls, in Linux\n"), "{text}");
    assert!(text.contains("of what TCP carries.\n") && !text.contains("in memory"), "{text}");
    // Records from before there was a choice are of the freestanding guest.
    let mut value = serde_json::to_value(&report).unwrap();
    for record in value["results"].as_array_mut().unwrap() {
        record.as_object_mut().unwrap().remove("guest");
    }
    let old = Report::from_json(&value.to_string()).unwrap();
    assert!(old.results.iter().all(|record| record.guest == GuestKind::Freestanding));
}

proptest! {
    /// A record that is read is the one that was written, to the last bit.
    #[test]
    fn figures_are_read_as_they_were_written(figures in prop::collection::vec(any::<f64>(), 3)) {
        let finite = |value: f64| if value.is_finite() { value } else { 0.1 };
        let mut report = sample();
        let [median, low, high] = [figures[0], figures[1], figures[2]].map(finite);
        report.results[0].ops_per_second = Distribution { median, low, high };
        report.results[0].seconds = median / 3.0;
        prop_assert_eq!(Report::from_json(&report.to_json().unwrap()).unwrap(), report);
    }
}

#[test]
fn what_was_not_measured_is_null() {
    let value: Value = serde_json::from_str(&in_process().to_json().unwrap()).unwrap();
    let record = &value["results"][0];
    for field in [
        "latency_ns",
        "exits_per_op",
        "doorbells_per_op",
        "interrupts_per_op",
        "host_cpu_ns_per_op",
        "guest_cycles_per_op",
        "copied_bytes_per_op",
    ] {
        assert_eq!(record.get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(record["path"], json!("in-process"));
    assert_eq!(record["vmm"], json!("none"));
}

#[test]
fn a_disk_has_blocks_and_a_network_frames() {
    let mut frames = record("virtio-net", 1.0, 1);
    frames.size = Size::Frame(60);
    let report = Report::new(manifest(), vec![frames, record("ahci", 1.0, 1)]);
    let value: Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(value["results"][0]["frame_size"], json!(60));
    assert_eq!(value["results"][0].get("block_size"), None);
    assert_eq!(value["results"][1]["block_size"], json!(4096));
    assert_eq!(Report::from_json(&report.to_json().unwrap()).unwrap(), report);
    assert!(table(&report).contains("kpps"));
}

#[test]
fn another_format_is_named_and_nonsense_refused() {
    let newer = json!({ "schema": 2, "manifest": "something else" }).to_string();
    let error = Report::from_json(&newer).unwrap_err();
    assert_eq!(error.to_string(), "the report has schema 2; this program reads schema 1");
    assert!(matches!(Report::from_json("{}"), Err(ReportError::Json(_))));
    assert!(matches!(Report::from_json("{\"schema\":1}"), Err(ReportError::Json(_))));
    // A field that a later program adds is no reason to refuse.
    let mut value: Value = serde_json::from_str(&sample().to_json().unwrap()).unwrap();
    value["results"][0]["added_later"] = json!(1);
    assert_eq!(Report::from_json(&value.to_string()).unwrap(), sample());
}

#[test]
fn only_what_did_the_same_is_compared() {
    let base = || record("ahci", 1.0, 3);
    let virtio = record("virtio-blk", 2.0, 3);
    let changes: [fn(&mut Record); 9] = [
        |other| other.offered_per_second = Some(1),
        |other| other.path = Path::Event,
        |other| other.completion = Completion::Poll,
        |other| other.workload = "read".into(),
        |other| other.size = Size::Block(8192),
        |other| other.queue_depth = 2,
        |other| other.vmm = "qemu".into(),
        |other| other.backend = "memory".into(),
        |other| other.family = Family::Passthrough,
    ];
    for change in changes {
        let mut other = base();
        change(&mut other);
        assert!(comparisons(&[virtio.clone(), other]).is_empty());
    }
    assert_eq!(comparisons(&[base(), virtio]).len(), 1);
}

#[test]
fn a_difference_needs_intervals_apart_and_enough_runs() {
    let verdict = |kilo: f64, runs: u32| {
        let records = [record("virtio-blk", kilo, runs), record("ahci", 10.0, 3)];
        comparisons(&records)[0].verdict
    };
    assert_eq!(verdict(10.5, 3), Verdict::Faster);
    assert_eq!(verdict(9.5, 3), Verdict::Slower);
    assert_eq!(verdict(10.3, 3), Verdict::WithinNoise);
    assert_eq!(verdict(9.7, 3), Verdict::WithinNoise);
    assert_eq!(verdict(100.0, 2), Verdict::TooFewRuns);
}

#[test]
fn nothing_is_divided_by_a_device_that_did_nothing() {
    assert!(comparisons(&[record("virtio-blk", 1.0, 3), record("ahci", 0.0, 3)]).is_empty());
    let mut stalled = record("ahci", 1.0, 3);
    stalled.ops_per_second.low = 0.0;
    let records = [record("virtio-blk", 1.0, 3), stalled];
    assert_eq!(comparisons(&records)[0].high, f64::INFINITY);
    assert!(markdown(&Report::new(manifest(), records.to_vec())).contains("∞"));
}

/// Names come from files too: they must not break out of their cell.
#[test]
fn names_cannot_break_the_document() {
    let mut odd = record("virtio-blk", 1.0, 3);
    odd.device = "a|b\n# c".into();
    let document = markdown(&Report::new(manifest(), vec![odd]));
    assert!(document.contains(r"a\|b \# c"));
}

proptest! {
    /// The ratio of the medians lies in its range, and equal intervals never make a difference.
    #[test]
    fn ratios_lie_in_their_range(a in 0.1..1e4f64, b in 0.1..1e4f64) {
        let records = [record("virtio-blk", a, 6), record("ahci", b, 6)];
        let found = comparisons(&records)[0];
        prop_assert!(found.low <= found.ratio && found.ratio <= found.high);
        match found.verdict {
            Verdict::Faster => prop_assert!(found.low > 1.0),
            Verdict::Slower => prop_assert!(found.high < 1.0),
            Verdict::WithinNoise => prop_assert!(found.low <= 1.0 && found.high >= 1.0),
            Verdict::TooFewRuns => prop_assert!(false),
        }
    }
}
