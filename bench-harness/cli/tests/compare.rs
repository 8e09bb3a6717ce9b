//! Two builds compared: what is said, and with which status the program ends. No figure that was measured here
//! is judged.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_paraslot");

fn paraslot(place: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(place).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs `compare`, checks its status, and returns what it says.
fn compare(place: &Path, arguments: &[&str], status: i32) -> String {
    let output = paraslot(place, &[&["compare"], arguments].concat());
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}{errors}");
    if matches!(status, 1 | 2) {
        let last = errors.lines().last().expect("a line that says why");
        assert!(last.starts_with("paraslot: "), "{errors}");
        return errors;
    }
    said
}

/// A record of a device with these rates.
fn record(device: &str, rates: &[f64]) -> Value {
    let mut sorted = rates.to_vec();
    sorted.sort_by(f64::total_cmp);
    let interval = json!({ "median": sorted[sorted.len() / 2], "low": sorted[0], "high": sorted[sorted.len() - 1] });
    json!({
        "device": device, "family": "paravirtual", "path": "event", "completion": "poll",
        "workload": "randread", "block_size": 4096, "queue_depth": 1, "queues": 1, "vmm": "paraslot",
        "backend": "backend=null", "runs": rates.len(), "operations": 1, "seconds": 1.0,
        "ops_per_second": interval, "run_ops_per_second": rates, "bytes_per_second": interval,
        "latency_ns": null, "exits_per_op": null, "doorbells_per_op": null, "interrupts_per_op": null,
        "host_cpu_ns_per_op": null, "guest_cycles_per_op": null, "copied_bytes_per_op": null,
    })
}

fn report(measure_ms: u32, results: &[Value]) -> Value {
    json!({
        "schema": 1,
        "manifest": {
            "version": "0.1.0", "revision": null, "build": "release", "date": "2026-11-24T00:00:00Z",
            "command_line": [], "cpu_model": "One", "kernel": "6", "hypervisor": "kvm", "nested": true,
            "below": null, "guest": null, "backend": [], "pinned": null, "busy_poll_us": 50,
            "warm_up_ms": 50, "measure_ms": measure_ms, "notes": [],
        },
        "results": results,
    })
}

/// Runs that differ by a little.
fn rates(about: f64) -> Vec<f64> {
    (0..10).map(|run| about * (1.0 + 0.0005 * f64::from(run * 7 % 10))).collect()
}

fn write(place: &Path, name: &str, value: &Value) {
    let file = place.join(name);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, value.to_string()).unwrap();
}

#[test]
fn the_status_tells_whether_anything_is_slower() {
    let place = TempDir::new().unwrap();
    let place = place.path();
    let of = |about, other| [record("pvscsi", &rates(about)), record("ahci", &rates(other))];
    write(place, "old.json", &report(250, &of(1e5, 1e4)));
    write(place, "run/results.json", &report(500, &of(0.9e5, 1.2e4)));
    write(place, "target/paraslot/latest/results.json", &report(250, &of(1e5, 1e4)));
    write(place, "target/paraslot/baselines/main.json", &report(250, &of(1e5, 1e4)[..1]));

    let said = compare(
        place,
        &["old.json", "run", "--export-json", "c.json", "--export-markdown", "c.md"],
        3,
    );
    let row = |device: &str| {
        let row = said.lines().find(|line| line.starts_with(device));
        row.unwrap_or_else(|| panic!("{device}: {said}")).to_owned()
    };
    assert!(
        row("pvscsi/event/randread/4k/qd1/poll").contains("0.900")
            && row("pvscsi").ends_with("SLOWER")
    );
    assert!(row("ahci").contains("1.200") && row("ahci").ends_with("faster"));
    assert!(said.contains("! measured part, ms differs: 250, now 500"), "{said}");
    let json: Value =
        serde_json::from_str(&fs::read_to_string(place.join("c.json")).unwrap()).unwrap();
    let findings: Vec<_> =
        json["changes"].as_array().unwrap().iter().map(|one| &one["finding"]).collect();
    assert_eq!(findings, ["slower", "faster"]);
    assert!(fs::read_to_string(place.join("c.md")).unwrap().contains("| SLOWER |"));

    // The other way round, one is slower too; alone it is not.
    compare(place, &["run", "old.json"], 3);
    let same = compare(place, &["old.json"], 0);
    assert!(same.contains("0 slower, 0 faster, 2 no different"), "{same}");
    let with_baseline = compare(place, &["main"], 0);
    assert!(with_baseline.contains("! only after: ahci/event"), "{with_baseline}");
    compare(place, &["main", "run"], 3);
    assert!(
        compare(place, &["main", "run/results.json", "--out", "elsewhere"], 1)
            .contains("main is neither")
    );
}

#[test]
fn records_without_runs_are_compared_by_their_intervals() {
    let place = TempDir::new().unwrap();
    let without = |mut value: Value| {
        value.as_object_mut().unwrap().remove("run_ops_per_second");
        value
    };
    write(place.path(), "old.json", &report(250, &[without(record("pvscsi", &rates(1e5)))]));
    write(place.path(), "new.json", &report(250, &[record("pvscsi", &rates(0.5e5))]));
    let said = compare(place.path(), &["old.json", "new.json"], 3);
    assert!(said.contains("does not have its runs"), "{said}");
}

#[test]
fn what_is_no_record_is_refused_in_a_line() {
    let place = TempDir::new().unwrap();
    let place = place.path();
    write(place, "good.json", &report(250, &[record("pvscsi", &rates(1e5))]));
    let mut later = report(250, &[]);
    later["schema"] = 2.into();
    write(place, "later.json", &later);
    let mut none = report(250, &[record("pvscsi", &rates(1e5))]);
    none["results"][0]["run_ops_per_second"][3] = Value::Null;
    write(place, "null.json", &none);
    write(place, "list.json", &json!([1, 2]));
    write(place, "other.json", &report(250, &[record("ahci", &rates(1e5))]));
    fs::write(place.join("empty.json"), "").unwrap();
    fs::write(place.join("bytes.json"), b"\xff\xfe").unwrap();
    fs::create_dir(place.join("empty")).unwrap();
    for (other, words) in [
        ("later.json", "schema 2"),
        ("null.json", "null.json: not a report"),
        ("list.json", "not a report"),
        ("empty.json", "not a report"),
        ("bytes.json", "bytes.json"),
        ("empty", "no results.json in empty"),
        ("missing.json", "neither a file"),
        ("other.json", "nothing that both have"),
    ] {
        for pair in [["good.json", other], [other, "good.json"]] {
            let errors = compare(place, &pair, 1);
            assert!(errors.contains(words), "{other}: {errors}");
        }
    }
    let refused = |arguments: &[&str], words| {
        let errors = compare(place, arguments, 2);
        assert!(errors.contains(words), "{errors}");
    };
    refused(&[], "RECORD");
    refused(&["good.json", "--time", "5"], "--time");
    refused(&["good.json", "--builds", "x"], "--builds");
    refused(&["--builds", PROGRAM, "--device", "floppy"], "there are virtio-blk");
    refused(&["--builds", PROGRAM, "--platform", "in-process", "--filter", "tape"], "run --list");
    assert!(
        compare(place, &["good.json", "good.json", "--export-json", "no/c.json"], 1)
            .contains("no/c.json")
    );
    let builds = ["--platform", "in-process", "--quick", "--builds"];
    assert!(
        compare(place, &[&builds[..], &["missing"]].concat(), 1).contains("cannot find missing")
    );
    assert!(compare(place, &[&builds[..], &["/bin/true"]].concat(), 1).contains("no paraslot"));
    let output = paraslot(place, &["run", "--save-baseline", "../x"]);
    assert_eq!(output.status.code(), Some(2));
    let output = paraslot(place, &["run", "--baseline", "missing", "--platform", "in-process"]);
    assert_eq!(
        (output.status.code(), text(&output.stderr).contains("missing is neither")),
        (Some(1), true)
    );
}

/// A single run cannot tell anything, and says how many would.
#[test]
fn a_run_is_kept_and_compared_with() {
    let place = TempDir::new().unwrap();
    let run = |more: &[&str]| {
        let usual = ["run", "--quick", "--platform", "in-process", "--device", "ahci,backend=null"];
        let output = paraslot(
            place.path(),
            &[&usual[..], &["--filter", "randread*qd1/poll"], more].concat(),
        );
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(run(&["--save-baseline", "main"]).contains("target/paraslot/baselines/main.json"));
    let said = run(&["--baseline", "main", "--drag", "1"]);
    assert!(
        said.contains("too few runs (5 would do)") && said.contains("Of 1 measurements"),
        "{said}"
    );
    assert!(said.contains("on purpose"), "{said}");
    let file =
        fs::read_to_string(place.path().join("target/paraslot/baselines/main.json")).unwrap();
    let value: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(value["results"][0]["run_ops_per_second"].as_array().unwrap().len(), 1);
    assert_eq!(value["results"][0]["run_p50_ns"].as_array().unwrap().len(), 1);
}

/// Round trips without a fixed load have a name that is part of the others': each must get its own record.
#[test]
fn two_programs_are_measured_by_turns() {
    let place = TempDir::new().unwrap();
    let what = [
        "compare",
        "--builds",
        PROGRAM,
        "--platform",
        "in-process",
        "--quick",
        "--time",
        "5",
        "--warmup",
        "1",
        "--device",
        "ahci,backend=null",
        "--device",
        "virtio-net",
        "--filter",
        "r*/*/interrupt",
    ];
    let list = paraslot(place.path(), &[&what[..], &["--list"]].concat());
    let names: Vec<String> = text(&list.stdout).lines().map(str::to_owned).collect();
    assert!(names.len() > 4 && names.iter().any(|name| name.ends_with("/10k")), "{names:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");

    for (rounds, usual) in [("2", "too-few-runs"), ("14", "")] {
        let filter: &[&str] = if usual.is_empty() { &["--filter", "/rr/"] } else { &[] };
        let more = ["--rounds", rounds, "--export-json", "c.json", "--drag", "20"];
        let output = paraslot(place.path(), &[&what[..], filter, &more].concat());
        let (said, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(matches!(output.status.code(), Some(0 | 3)), "{said}{errors}");
        let json = fs::read_to_string(place.path().join("c.json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let changes = json["changes"].as_array().unwrap();
        let expected = names.iter().filter(|name| !usual.is_empty() || name.contains("/rr/"));
        assert_eq!(changes.len(), expected.clone().count());
        for (change, name) in changes.iter().zip(expected) {
            assert!(said.contains(name.as_str()), "{name}: {said}");
            let is_loaded = name.ends_with("/10k");
            assert_eq!(change["measure"], if is_loaded { "p50" } else { "rate" }, "{name}");
            assert_eq!(change["offered_per_second"].is_null(), !is_loaded);
            assert_eq!(change["basis"], "pairs");
            for side in change["pairs"].as_array().unwrap() {
                let runs = side.as_array().unwrap();
                assert_eq!(runs.len().to_string(), rounds);
                assert!(runs.iter().all(|run| run.as_f64().unwrap() > 0.0));
            }
            match usual {
                "" => assert!(change["low"].as_f64().unwrap() <= change["high"].as_f64().unwrap()),
                usual => assert_eq!(change["finding"], usual),
            }
        }
        let is_slower = changes.iter().any(|change| change["finding"] == "slower");
        assert_eq!(output.status.code(), Some(if is_slower { 3 } else { 0 }));
        // Both are of this build, and one was dragged.
        assert!(!text(json["before"]["notes"].to_string().as_bytes()).contains("--drag"));
        assert!(text(json["after"]["notes"].to_string().as_bytes()).contains("--drag"));
    }
    let left: Vec<_> = fs::read_dir(place.path().join("target/paraslot")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
