//! Devices, measured in Linux guests.

use std::fs::{self, File};
use std::path;

use paraslot_report::{Completion, GuestKind, Path, Record, Report, Size};
use paraslot_testbed::Testbed;
use tempfile::TempDir;

/// Bytes of a disk: less than are measured of larger ones.
const CAPACITY: u64 = 16 << 20;

/// Has the test bed measure what the script has under this name. Returns the results by their names.
fn measure<const N: usize>(
    testbed: &Testbed,
    share: &TempDir,
    what: &str,
    names: [&str; N],
    devices: &[&str],
    modules: &[&str],
) -> [Vec<Record>; N] {
    testbed.guest_disk().expect("the guest's root disk");
    let arguments = [&Testbed::default_dir(), path::Path::new(what)];
    let script = include_str!("scripts/linux.sh");
    let output = crate::run(testbed, share, script, &arguments, devices, modules);
    assert!(output.contains(", in Linux\n"), "{output}");
    names.map(|name| {
        let path = share.path().join(format!("{name}.json"));
        let text = fs::read_to_string(path).expect("results were written");
        let report = Report::from_json(&text).expect("a report");
        let guest = report.manifest.guest.and_then(|guest| guest.name).expect("a name");
        assert!(guest.starts_with("Linux 6.1.") && guest.contains("(Debian 6.1."), "{guest}");
        assert!(guest.contains(", fio-3."), "{guest}");
        report.results.iter().for_each(check);
        report.results
    })
}

/// What is true of every record.
fn check(record: &Record) {
    assert_eq!((record.guest, record.completion), (GuestKind::Linux, Completion::Interrupt));
    assert!(record.operations > 0 && !record.backend.contains("verify=off"), "{record:?}");
    let latency = record.latency_ns.expect("fio's histogram");
    assert!(0 < latency.p50 && latency.p50 <= latency.max, "{record:?}");
    assert!(record.host_cpu_ns_per_op > Some(0.0), "{record:?}");
    assert!(record.interrupts_per_op > Some(0.0), "{record:?}");
    // Nobody counts these.
    assert_eq!((record.doorbells_per_op, record.guest_cycles_per_op), (None, None));
}

fn exits(record: &Record) -> f64 {
    record.exits_per_op.expect("exits are counted")
}

fn one(records: Vec<Record>) -> Record {
    let [record] = <[Record; 1]>::try_from(records).expect("one record");
    record
}

/// What each device costs Debian's own drivers on each path, with one operation at a time.
#[test]
fn linux_drivers_cost_what_their_registers_do() {
    let Some(testbed) = crate::testbed() else { return };
    let share = TempDir::new().unwrap();
    let [records] = measure(&testbed, &share, "paths", ["paths"], &[], &[]);
    assert_eq!(records.len(), 4);
    for record in records {
        let range = match (record.device.as_str(), record.path) {
            // A notification.
            ("virtio-blk", Path::Trap) => 0.9..1.1,
            ("virtio-blk", Path::Event) => 0.0..0.1,
            // PxSACT, PxCI; and when it interrupts IS, PxIS twice, PxSACT, IS, three of which are reads.
            ("ahci", Path::Trap) => 6.9..7.2,
            ("ahci", Path::Event) => 3.9..4.2,
            other => panic!("{other:?} was not to be measured"),
        };
        assert!(range.contains(&exits(&record)), "{record:?}");
        let interrupts = record.interrupts_per_op.expect("interrupts are counted");
        assert!((0.9..1.1).contains(&interrupts), "one for each operation: {record:?}");
    }
}

/// Data is verified, which fails the run if it is wrong: what an image holds, what was written, and both on
/// a disk of the host's.
#[test]
fn linux_verifies_disks_data() {
    let Some(testbed) = crate::testbed() else { return };
    let share = TempDir::new().unwrap();
    let images = ["disk.img", "nvme.img"].map(|name| share.path().join(name));
    for image in &images {
        File::create(image).unwrap().set_len(CAPACITY).unwrap();
    }
    let [disk, nvme] = &images;
    let drive = format!("if=none,id=nvme,format=raw,file={}", nvme.display());
    let devices = ["-drive", &drive, "-device", "nvme,drive=nvme,serial=1,addr=10"];
    let names = ["held", "written", "passed"];
    let [held, written, passed] =
        measure(&testbed, &share, "data", names, &devices, &["nvme"]).map(one);
    assert_eq!((held.backend.as_str(), held.queue_depth), ("backend=memory", 32));
    assert_eq!((written.device.as_str(), written.workload.as_str()), ("pvscsi", "randwrite"));
    assert_eq!((passed.device.as_str(), passed.path), ("nvme", Path::Passthrough));
    assert!(exits(&passed) < 0.1, "{passed:?}");
    for image in [disk, nvme] {
        let contents = fs::read(image).unwrap();
        assert!(contents.iter().any(|byte| *byte != 0), "{} is empty", image.display());
    }
}

/// TCP to the host and from it, and round trips. What arrives is compared, too.
#[test]
fn linux_networks_reach_the_host() {
    let Some(testbed) = crate::testbed() else { return };
    let share = TempDir::new().unwrap();
    let names = ["sent", "received", "returned"];
    let [sent, received, returned] =
        measure(&testbed, &share, "networks", names, &[], &[]).map(one);
    for (record, device, workload, size) in [
        (&sent, "virtio-net", "tcp-tx", 128 << 10),
        (&received, "e1000", "tcp-rx", 128 << 10),
        (&returned, "vmxnet3", "tcp-rr", 64),
    ] {
        assert_eq!((record.device.as_str(), record.workload.as_str()), (device, workload));
        assert_eq!((record.size, record.backend.as_str()), (Size::Frame(size), "backend=tap"));
        // Streams are TCP's to repair.
        assert_eq!((record.frames_lost, record.frames_reordered), (None, None));
        assert!(record.copied_bytes_per_op.is_some(), "{record:?}");
    }
    assert!(exits(&sent) < 0.5, "{sent:?}");
    assert!(exits(&returned) >= 1.0, "{returned:?}");
}
