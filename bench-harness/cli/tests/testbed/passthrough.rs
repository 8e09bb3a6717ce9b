//! A disk of the host's beside models of ours, in one table.

use std::fs::{self, File};

use paraslot_protocol::{PATTERN_BLOCK, PATTERN_STEP, pattern_base};
use paraslot_report::{Completion, Family, Path, Record, Report};
use tempfile::TempDir;

/// Bytes of the disk: less than are measured of larger ones.
const CAPACITY: u64 = 16 << 20;

/// Whether that is what a fresh image holds.
fn is_fresh(contents: &[u8]) -> bool {
    contents.chunks(PATTERN_BLOCK).zip((0_u64..).step_by(PATTERN_BLOCK)).all(|(block, offset)| {
        let mut expected = pattern_base(offset, 0);
        block.chunks(8).all(|word| {
            let fits = word == expected.to_le_bytes();
            expected = expected.wrapping_add(PATTERN_STEP);
            fits
        })
    })
}

fn report(share: &TempDir) -> (Report, String) {
    let place = share.path().join("out/latest");
    let text = fs::read_to_string(place.join("results.json")).expect("results were written");
    let document = fs::read_to_string(place.join("report.md")).expect("a report was written");
    (Report::from_json(&text).expect("a report"), document)
}

/// Whether operations have exits, apart from a stray one now and then.
fn has_exits(record: &Record) -> bool {
    record.exits_per_op.expect("exits are counted") > 0.1
}

/// Hardware that is passed through has its doorbells mapped and its interrupts sent by the kernel, so
/// that nothing exits; and the host gets it back as it was.
#[test]
fn a_disk_of_the_hosts_is_measured_beside_models_and_given_back() {
    let Some(testbed) = crate::testbed() else { return };
    let share = TempDir::new().unwrap();
    let image = share.path().join("nvme.img");
    File::create(&image).unwrap().set_len(CAPACITY).unwrap();
    let drive = format!("if=none,id=nvme,format=raw,file={}", image.display());
    let devices = ["-drive", &drive, "-device", "nvme,drive=nvme,serial=1,addr=10"];
    let script = include_str!("scripts/passthrough.sh");
    let output = crate::run(&testbed, &share, script, &[], &devices, &["nvme"]);

    let (report, document) = report(&share);
    // Polling and sleeping; models on both paths.
    assert_eq!(report.results.len(), 2 * (2 + 2 + 1), "{output}");
    for record in &report.results {
        assert!(record.operations > 0 && !record.backend.contains("verify=off"), "{record:?}");
        let is_asleep = record.completion == Completion::Interrupt;
        let interrupts = record.interrupts_per_op.expect("interrupts are counted");
        assert_eq!(interrupts > 0.5, is_asleep, "{record:?}");
        match (record.device.as_str(), record.family, record.path) {
            ("nvme", Family::Passthrough, Path::Passthrough) => {
                assert!(record.backend.contains("host=0000:00:10.0"), "{record:?}");
                assert!(!has_exits(record), "{record:?}");
                // Of the submission queue and of the completion queue, for each request.
                assert_eq!(record.doorbells_per_op, Some(2.0), "{record:?}");
                assert_eq!(record.copied_bytes_per_op, None, "{record:?}");
            }
            ("virtio-blk", Family::Paravirtual, Path::Event) => assert!(!has_exits(record)),
            ("virtio-blk", Family::Paravirtual, Path::Trap) => {}
            ("ahci", Family::Emulated, Path::Trap | Path::Event) => {
                assert!(record.exits_per_op > Some(1.9), "{record:?}");
            }
            _ => panic!("{record:?}"),
        }
    }
    // In one table, and with a word on the times of a processor that is software.
    assert_eq!(document.matches("\n## randread").count(), 1, "{document}");
    assert!(document.contains("| passthrough | nvme (00:10.0) |"), "{document}");
    assert!(document.contains("times mean little"), "{document}");

    // What the host's own driver found on the disk afterwards is what the guest had written; and what it
    // wrote in turn is there.
    let read = |name: &str| fs::read(share.path().join(name)).expect(name);
    let found = read("found");
    assert_eq!(found.len() as u64, CAPACITY);
    assert!(is_fresh(&found), "the guest wrote something else");
    let written = read("written");
    assert!(read("nvme.img").starts_with(&written), "the host's driver wrote something else");
    assert!(!is_fresh(&written), "the script wrote nothing");
}
