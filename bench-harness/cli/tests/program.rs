//! The program as its users meet it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// Bytes of the images that are the user's here.
const IMAGE: u64 = 8 << 20;

/// Runs the program in a directory of its own.
fn paraslot(place: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_paraslot"))
        .args(arguments)
        .current_dir(place)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// A directory with `disk.img` in it.
fn place_with_image() -> TempDir {
    let place = TempDir::new().unwrap();
    File::create(place.path().join("disk.img")).unwrap().set_len(IMAGE).unwrap();
    place
}

/// Why there can be no virtual machine; `None` if there can.
fn no_kvm() -> Option<String> {
    let output = paraslot(Path::new("/"), &["doctor"]);
    let report = text(&output.stdout);
    let reason = report.lines().find(|line| line.starts_with("NO")).map(str::to_owned);
    assert_eq!(reason.is_none(), output.status.success(), "{report}");
    reason
}

/// The results that a run wrote where it writes them by default.
fn results(place: &Path) -> Vec<Value> {
    let file = place.join("target/paraslot/latest/results.json");
    let text = std::fs::read_to_string(file).expect("results were written");
    // It reads back as what the program itself would take.
    paraslot_report::Report::from_json(&text).expect("a report");
    let value: Value = serde_json::from_str(&text).unwrap();
    value["results"].as_array().expect("an array").clone()
}

/// Checks that the run failed with `status`, and that the line which says why has `words` in it.
fn refused(place: &Path, arguments: &[&str], status: i32, words: &str) {
    let output = paraslot(place, arguments);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    let lines: Vec<&str> = errors.lines().collect();
    let (last, before) = lines.split_last().expect("a line that says why");
    assert!(last.starts_with("paraslot: ") && last.contains(words), "{arguments:?}: {last}");
    // Before it there is nothing but remarks.
    assert!(before.iter().all(|line| line.starts_with("! ")), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_in_a_line() {
    let place = TempDir::new().unwrap();
    let refused = |arguments: &[&str], words| refused(place.path(), arguments, 2, words);
    refused(&["nonsense"], "nonsense");
    refused(&["--nonsense"], "--nonsense");
    refused(&["--time", "0"], "--time");
    refused(&["--min-runs", "many"], "many");
    refused(&["--platform", "vax"], "kvm, in-process");
    refused(
        &["--device", "floppy"],
        "there are virtio-blk, virtio-scsi, pvscsi, ahci, virtio-net, vmxnet3, e1000",
    );
    refused(&["--device", "e1000,queues=2"], "it has mac, backend");
    refused(&["--device", "virtio-net,mac=01:00:5e:00:00:01"], "a station's address");
    refused(&["--device", "virtio-net,backend=tap"], "ifname=NAME");
    refused(&["--device", "e1000", "--filter", "rx/65536"], "joins none");
    refused(&["--device", "ahci,queues=4"], "it has path, backend");
    refused(&["--device", "virtio-blk,direct=yes"], "on, off");
    refused(&["--device", "virtio-blk,write=on"], "give its path");
    refused(&["--platform", "in-process", "--filter", "tape"], "run --list");
    refused(&["--platform", "in-process", "--peer", "qemu"], "virtual machines");
    refused(&["--device", "vfio"], "vfio needs host=");
    refused(&["--device", "vfio,host=5"], "host=5");
    refused(&["run", "--no-reboot"], "an option of paraslot boot");
    refused(&["boot"], "--kernel");
    let boot = |arguments: &[&str], words| {
        refused(&[&["boot", "--kernel", "vmlinux"], arguments].concat(), words);
    };
    boot(&["--quick"], "an option of paraslot run");
    boot(&["--memory", "15"], "of 16M or more");
    boot(&["--cpus", "0"], "--cpus");
    boot(&["--device", "ahci"], "needs path=FILE");
    boot(&["--device", "e1000,addr=20"], "from 1 to 1f");
    boot(&["--device", "e1000,addr=3", "--device", "vmxnet3,addr=3"], "addr=3 is given twice");
    let saved = "functions of the host's cannot be saved";
    boot(&["--snapshot", "there", "--device", "vfio,host=ffff:ff:1f.7"], saved);
    let function = "vfio,host=ffff:ff:1f.7";
    boot(&["--device", function, "--device", function], "is given twice");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn what_cannot_be_done_is_refused_in_a_line() {
    let place = place_with_image();
    let refused = |arguments: &[&str], words| {
        let arguments = [&["--platform", "in-process", "--quick"], arguments].concat();
        refused(place.path(), &arguments, 1, words);
    };
    File::create(place.path().join("odd.img")).unwrap().set_len(IMAGE + 1).unwrap();
    File::create(place.path().join("small.img")).unwrap().set_len(8192).unwrap();
    refused(&["--device", "ahci,path=missing.img"], "missing.img");
    refused(&["--device", "ahci,path=."], "directory");
    refused(&["--device", "ahci,path=odd.img"], "odd.img");
    refused(&["--device", "virtio-blk,path=small.img"], "small.img has 8192 bytes");
    refused(&["--out", "/proc/nowhere"], "/proc/nowhere");
    for option in ["--export-json", "--export-html", "--export-csv", "--export-markdown"] {
        refused(&["--device", "ahci,path=disk.img", option, "no/where"], "cannot write no/where");
    }
    let latest = place.path().join("target/paraslot/latest");
    assert_eq!(std::fs::read_dir(latest).unwrap().count(), 0, "nothing is written for no results");
}

#[test]
fn what_is_no_record_is_refused_in_a_line() {
    let place = place_with_image();
    let refused = |arguments: &[&str], status, words| {
        refused(place.path(), &[&["report"], arguments].concat(), status, words);
    };
    std::fs::write(place.path().join("newer.json"), "{\"schema\": 99}").unwrap();
    std::fs::write(place.path().join("text.json"), "results").unwrap();
    refused(&["missing.json"], 1, "cannot read missing.json: No such file");
    refused(&["newer.json"], 1, "newer.json: the report has schema 99");
    refused(&["text.json"], 1, "text.json: not a report");
    refused(&["disk.img"], 1, "disk.img: not a report");
    refused(&[], 2, "<FILE>");
    refused(&["text.json", "--format", "pdf"], 2, "table, html, markdown, csv");
    refused(&["text.json", "--format", "html", "--out", "x"], 2, "--out");
    assert!(!place.path().join("x").exists());
    // Where a document cannot be written.
    let record = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/measurements/2026-11-scsi.json");
    refused(&[record, "--out", "disk.img"], 1, "cannot make the directory disk.img");
    std::fs::create_dir_all(place.path().join("out/report.html")).unwrap();
    refused(&[record, "--out", "out"], 1, "cannot write out/report.html");
}

/// What there is before a machine is looked at, in the order in which it is looked at.
#[test]
fn what_cannot_be_booted_is_refused_in_a_line() {
    let place = place_with_image();
    let refused = |arguments: &[&str], words| {
        refused(place.path(), &[&["boot"], arguments].concat(), 1, words);
    };
    refused(&["--kernel", "missing"], "cannot read the kernel missing");
    refused(&["--restore", "missing"], "cannot restore the guest: missing/state.json");
    refused(&["--kernel", "disk.img", "--snapshot", "disk.img"], "cannot save a guest: disk.img");
    refused(&["--kernel", "disk.img", "--initrd", "missing"], "cannot read the initial RAM disk");
    let disk = |spec| ["--kernel", "disk.img", "--device", spec];
    refused(&disk("virtio-blk,path=missing.img"), "missing.img");
    refused(
        &[&disk("ahci,path=disk.img")[..], &disk("pvscsi,path=disk.img")[2..]].concat(),
        "in use",
    );
    // Its PCI functions cannot be seen, or it is not among them.
    refused(&disk("vfio,host=ffff:ff:1f.7"), "this machine");
    // Whatever this machine's KVM can do, and if there is none.
    refused(&["--kernel", "disk.img"], "paraslot: ");
}

#[test]
fn what_there_is_can_be_listed() {
    let place = TempDir::new().unwrap();
    let list = paraslot(place.path(), &["list"]);
    assert!(list.status.success());
    for word in [
        "virtio-blk",
        "ahci",
        "queues=",
        "randread",
        "128 KiB",
        "1af4:1041",
        "15ad:07c0",
        "8086:100e",
        "ifname=",
        "round trips",
        "64, 1514, 65536 bytes",
    ] {
        assert!(text(&list.stdout).contains(word), "{word}");
    }
    let names = paraslot(place.path(), &["--list", "--platform", "in-process", "--filter", "qd1/"]);
    assert!(names.status.success());
    let names = text(&names.stdout);
    assert_eq!(names.lines().count(), 24);
    assert!(names.lines().all(|name| name.contains("/in-process/") && name.contains("/qd1/")));
    assert!(paraslot(place.path(), &["--help"]).status.success());
    assert!(text(&paraslot(place.path(), &["--version"]).stdout).starts_with("paraslot "));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

#[test]
fn a_run_in_process_measures_what_it_can_and_no_more() {
    let place = TempDir::new().unwrap();
    let arguments = [
        "run",
        "--quick",
        "--platform",
        "in-process",
        "--filter",
        "randread*qd1/poll",
        "--export-json",
        "copy.json",
        "--export-markdown",
        "copy.md",
        "--export-html",
        "copy.html",
        "--export-csv",
        "copy.csv",
    ];
    let output = paraslot(place.path(), &arguments);
    let (table, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("say nothing about virtual machines"));
    assert!(table.contains("say nothing about virtual machines"));
    let results = results(place.path());
    let disks = ["virtio-blk", "virtio-scsi", "pvscsi", "ahci"];
    assert_eq!(results.len(), disks.len());
    for (record, device) in results.iter().zip(disks) {
        assert!(table.contains(device));
        assert_eq!(record["device"], device);
        assert_eq!(record["family"], if device == "ahci" { "emulated" } else { "paravirtual" });
        assert_eq!(record["path"], "in-process");
        assert_eq!(record["vmm"], "none");
        assert_eq!(record["completion"], "poll");
        assert_eq!(record["workload"], "randread");
        assert_eq!((&record["block_size"], &record["queue_depth"]), (&4096.into(), &1.into()));
        assert!(record["operations"].as_u64().unwrap() > 0);
        assert!(record["ops_per_second"]["median"].as_f64().unwrap() > 0.0);
        assert!(record["latency_ns"]["p50"].as_u64().unwrap() > 0);
        for unmeasured in ["exits_per_op", "host_cpu_ns_per_op", "copied_bytes_per_op"] {
            assert_eq!(record.get(unmeasured), Some(&Value::Null), "{unmeasured}");
        }
        // Polling takes no interrupts: that was counted.
        assert_eq!(record["interrupts_per_op"], 0.0);
    }
    let latest = place.path().join("target/paraslot/latest");
    let read = |path| std::fs::read_to_string(path).unwrap();
    for (copy, original) in [
        ("copy.json", "results.json"),
        ("copy.md", "report.md"),
        ("copy.html", "report.html"),
        ("copy.csv", "report.csv"),
    ] {
        assert_eq!(read(place.path().join(copy)), read(latest.join(original)));
        assert!(table.contains(&format!("latest/{original}")), "{table}");
    }
    let page = read(latest.join("report.html"));
    assert!(page.contains("without a virtual machine") && page.contains("pvscsi"));
    assert_eq!(read(latest.join("report.csv")).lines().count(), 1 + disks.len());
    // The record makes them again, to the byte.
    let record = "target/paraslot/latest/results.json";
    let again = paraslot(place.path(), &["report", record, "--out", "some/where"]);
    assert!(again.status.success(), "{}", text(&again.stderr));
    for name in ["report.html", "report.md", "report.csv"] {
        assert_eq!(read(place.path().join("some/where").join(name)), read(latest.join(name)));
        assert!(text(&again.stdout).contains(&format!("some/where/{name}")));
    }
    for (format, name) in
        [("html", "report.html"), ("markdown", "report.md"), ("csv", "report.csv")]
    {
        let shown = paraslot(place.path(), &["report", record, "--format", format]);
        assert_eq!(text(&shown.stdout), read(latest.join(name)));
    }
    let shown = text(&paraslot(place.path(), &["report", record]).stdout);
    assert!(table.starts_with(&shown) && shown.contains("virtio-blk"), "{shown}");
    // The image is gone.
    assert_eq!(std::fs::read_dir(latest.parent().unwrap()).unwrap().count(), 1);
}

/// Frames that are sent, received, and sent back, over all devices, each looked at.
#[test]
fn frames_go_all_ways_in_process() {
    let place = TempDir::new().unwrap();
    for (filter, count) in [("tx/1514/b32", 3), ("rx/64/b32/poll", 3), ("rr/64/b1/poll", 3)] {
        let output =
            paraslot(place.path(), &["--quick", "--platform", "in-process", "--filter", filter]);
        assert!(output.status.success(), "{filter}: {}", text(&output.stderr));
        let results = results(place.path());
        assert_eq!(results.len(), count, "{filter}");
        for (record, device) in results.iter().zip(["virtio-net", "vmxnet3", "e1000"]) {
            assert_eq!(record["device"], device);
            assert_eq!(record.get("block_size"), None);
            assert!(record["frame_size"].as_u64().unwrap() >= 64);
            assert!(record["operations"].as_u64().unwrap() > 0, "{filter}: {record}");
            assert_eq!(
                (&record["frames_lost"], &record["frames_reordered"]),
                (&0.into(), &0.into())
            );
        }
    }
    // Nothing is made for networks but the results.
    assert_eq!(std::fs::read_dir(place.path().join("target/paraslot")).unwrap().count(), 1);
}

#[test]
fn two_machines_are_joined_by_a_wire() {
    if let Some(reason) = no_kvm() {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = TempDir::new().unwrap();
    let output = paraslot(place.path(), &["--quick", "--filter", "wire/1514"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let results = results(place.path());
    assert_eq!(results.len(), 3);
    for record in &results {
        assert_eq!((&record["workload"], &record["path"]), (&"wire".into(), &"event".into()));
        assert!(record["operations"].as_u64().unwrap() > 0);
        assert_eq!(record["frames_lost"], 0);
        // Into the wire and out of it.
        let copied = record["copied_bytes_per_op"].as_f64().unwrap();
        assert!(copied > 1514.0, "{copied}");
    }
}

#[test]
fn an_image_is_written_only_if_asked() {
    let place = place_with_image();
    let zeroes = || {
        let mut bytes = vec![0; usize::try_from(IMAGE).unwrap()];
        let file = File::open(place.path().join("disk.img")).unwrap();
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes.iter().all(|byte| *byte == 0)
    };
    let run = |device: &str, filter: &str| {
        let arguments =
            ["--quick", "--platform", "in-process", "--device", device, "--filter", filter];
        paraslot(place.path(), &arguments)
    };
    let reading = run("virtio-blk,path=disk.img", "4k/qd32/poll");
    assert!(reading.status.success(), "{}", text(&reading.stderr));
    assert!(text(&reading.stderr).contains("no write workloads"));
    let workloads: Vec<Value> =
        results(place.path()).iter().map(|record| record["workload"].clone()).collect();
    assert_eq!(workloads, ["randread"]);
    assert!(zeroes());

    let writing = run("ahci,path=disk.img,write=on", "randwrite/4k/qd32/poll");
    assert!(writing.status.success(), "{}", text(&writing.stderr));
    assert_eq!(results(place.path())[0]["workload"], "randwrite");
    assert!(!zeroes());
}

#[test]
fn a_limit_is_part_of_what_was_measured() {
    let place = TempDir::new().unwrap();
    let run = |device: &str, filter: &str| {
        let arguments =
            ["--quick", "--platform", "in-process", "--device", device, "--filter", filter];
        let output = paraslot(place.path(), &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        results(place.path())[0]["backend"].as_str().expect("a backend").to_owned()
    };
    let disk = run("virtio-blk,backend=memory,iops=100K,bps=2G", "randread/4k/qd1/poll");
    assert!(disk.ends_with(",iops=100000,bps=2000000000"), "{disk}");
    let net = run("vmxnet3,fps=50K", "tx/64/b1/poll");
    assert!(net.ends_with(",fps=50000"), "{net}");
}

#[test]
fn a_run_under_kvm_counts_exits() {
    if let Some(reason) = no_kvm() {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = place_with_image();
    let arguments = [
        "--quick",
        "--platform",
        "kvm",
        "--device",
        "virtio-blk,path=disk.img",
        "--device",
        "ahci,path=disk.img",
        "--filter",
        "randread*qd1/interrupt",
    ];
    let output = paraslot(place.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let results = results(place.path());
    assert_eq!(results.len(), 4);
    for record in &results {
        assert_eq!(record["vmm"], "paraslot");
        assert!(record["host_cpu_ns_per_op"].as_f64().unwrap() > 0.0);
        // Files are read into guest memory directly.
        assert_eq!(record["copied_bytes_per_op"], 0.0);
        let exits = record["exits_per_op"].as_f64().unwrap();
        match (record["device"].as_str().unwrap(), record["path"].as_str().unwrap()) {
            // A doorbell at most, and stray exits.
            ("virtio-blk", "trap") => assert!(exits < 1.5, "{exits}"),
            ("virtio-blk", "event") => assert!(exits < 0.5, "{exits}"),
            // PxSACT, PxCI, PxIS and IS are written; on the trap path they are read, too.
            ("ahci", "event") => assert!((3.5..4.5).contains(&exits), "{exits}"),
            ("ahci", "trap") => assert!(exits > 4.5, "{exits}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_copy_of_every_byte_is_counted_as_one() {
    if let Some(reason) = no_kvm() {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = TempDir::new().unwrap();
    let device = "virtio-blk,backend=memory";
    let arguments = ["--quick", "--device", device, "--filter", "event/randread*qd32/poll"];
    let output = paraslot(place.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    // From the image to the guest, and nothing besides.
    assert_eq!(results(place.path())[0]["copied_bytes_per_op"], 4096.0);
}

#[test]
fn a_peer_runs_the_same_guest() {
    let installed = Command::new("qemu-system-x86_64").arg("--version").output().is_ok();
    let reason = no_kvm().or((!installed).then(|| "qemu-system-x86_64 is not installed".into()));
    if let Some(reason) = reason {
        eprintln!("skipped: {reason}");
        return;
    }
    let place = place_with_image();
    let arguments = [
        "--quick",
        "--peer",
        "qemu",
        "--device",
        "virtio-blk,path=disk.img",
        "--filter",
        "event/randread*qd1/poll",
    ];
    let output = paraslot(place.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let results = results(place.path());
    let monitors: Vec<&Value> = results.iter().map(|record| &record["vmm"]).collect();
    assert_eq!(monitors, ["paraslot", "qemu"]);
    assert!(results[1]["operations"].as_u64().unwrap() > 0);
    for unmeasured in ["exits_per_op", "host_cpu_ns_per_op", "copied_bytes_per_op"] {
        assert_eq!(results[1][unmeasured], Value::Null, "{unmeasured}");
    }

    let arguments = [
        "--quick",
        "--peer",
        "qemu",
        "--device",
        "virtio-net,verify=off",
        "--device",
        "e1000,verify=off",
        "--filter",
        "event/tx/64/b32",
    ];
    let output = paraslot(place.path(), &arguments);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let results = self::results(place.path());
    let who = |record: &Value| (record["vmm"].clone(), record["device"].clone());
    let expected = ["paraslot", "paraslot", "qemu", "qemu"].into_iter().zip([
        "virtio-net",
        "e1000",
        "virtio-net",
        "e1000",
    ]);
    let expected: Vec<_> = expected.map(|(vmm, device)| (vmm.into(), device.into())).collect();
    assert_eq!(results.iter().map(who).collect::<Vec<_>>(), expected);
    for record in &results {
        assert!(record["operations"].as_u64().unwrap() > 0);
        assert_eq!(record["backend"], "backend=sink,verify=off");
    }
}
