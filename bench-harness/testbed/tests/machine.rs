//! The real thing: a machine is prepared, and runs commands. Where there can be none, the tests say so
//! and pass; on a CI machine they must not.

mod common;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::testbed;
use paraslot_testbed::{Error, Job, Outcome, Testbed};

fn run(testbed: &Testbed, job: &Job) -> Outcome {
    testbed.run(job).unwrap_or_else(|error| panic!("{error}"))
}

/// A job in a new folder.
fn job<C: Into<OsString>>(command: impl IntoIterator<Item = C>) -> (tempfile::TempDir, Job) {
    let share = tempfile::tempdir().expect("a directory");
    let job = Job::new(command, share.path());
    (share, job)
}

#[test]
fn a_command_has_kvm_and_an_iommu_and_reports_its_status() {
    let Some(testbed) = testbed() else { return };
    let script =
        "pwd; [ -c /dev/kvm ] && [ -d /sys/module/kvm_amd ] && grep -qw svm /proc/cpuinfo || exit 3
        [ -d /sys/kernel/iommu_groups/0 ] && [ -c /dev/vfio/vfio ] || exit 4
        echo \"$GREETING\" >greeting; echo lost >/etc/lost; cat /etc/lost; exit 7";
    let (share, mut job) = job(["sh", "-c", script]);
    job.environment.push(("GREETING".into(), "it's\na \"greeting\"".into()));
    let outcome = run(&testbed, &job);
    assert_eq!(outcome.status, 7, "{}", outcome.output);
    let path = share.path().canonicalize().expect("a path");
    assert_eq!(outcome.output, format!("{}\nlost\n", path.display()));
    let greeting = fs::read_to_string(share.path().join("greeting")).expect("written through");
    assert_eq!(greeting, "it's\na \"greeting\"\n");
    assert!(!Path::new("/etc/lost").exists());
}

#[test]
fn awkward_arguments_arrive_byte_for_byte() {
    let Some(testbed) = testbed() else { return };
    let bytes: Vec<u8> = (1..=255).collect();
    let awkward =
        ["", " ", "a  b", "it's", "\"$HOME\" `id` \\", "*", "line\nline\n", "-n", "\u{e9}"];
    let words = awkward.into_iter().map(OsString::from).chain([OsString::from_vec(bytes)]);
    let words: Vec<OsString> = words.collect();
    // The share's own name is awkward too, for the shell and for QEMU.
    let share =
        tempfile::Builder::new().prefix("it's, \"shared\" ").tempdir().expect("a directory");
    let command = ["sh", "-c", "printf '%s\\0' \"$@\" >words", "-"].map(OsString::from).into_iter();
    let job = Job::new(command.chain(words.iter().cloned()), share.path());
    let outcome = run(&testbed, &job);
    assert_eq!((outcome.status, outcome.output.as_str()), (0, ""));
    let expected: Vec<u8> =
        words.into_iter().flat_map(|word| [word.into_vec(), vec![0]].concat()).collect();
    assert_eq!(fs::read(share.path().join("words")).expect("written"), expected);
}

#[test]
fn much_output_arrives_whole_in_order() {
    let Some(testbed) = testbed() else { return };
    let script = "seq 1 300000; echo error >&2; printf 'a\\r\\nb\\tc\\n' >/dev/stdout; kill -9 $$";
    let (_share, job) = job(["sh", "-c", script]);
    let outcome = run(&testbed, &job);
    assert_eq!(outcome.status, 128 + 9);
    let mut expected: String = (1..=300_000).map(|number| format!("{number}\n")).collect();
    expected.push_str("error\na\r\nb\tc\n");
    // Not assert_eq!: it would print both.
    assert!(outcome.output == expected, "{} bytes of {}", outcome.output.len(), expected.len());
}

#[test]
fn a_command_that_does_not_end_is_ended_and_tried_again() {
    let Some(testbed) = testbed() else { return };
    let (share, mut job) = job(["sh", "-c", "echo started; echo x >>tries; sleep 1000"]);
    job.timeout = Duration::from_secs(15);
    job.attempts = 2;
    match testbed.run(&job) {
        Err(Error::Timeout { attempts, output, .. }) => {
            assert_eq!(attempts, 2);
            assert!(output.starts_with("testbed: attempt 1 passed its limit"), "{output}");
        }
        other => panic!("{other:?}"),
    }
    // Both attempts ran, unless this host is so slow that 15 s do not start a machine.
    assert!(fs::read_to_string(share.path().join("tries")).unwrap_or_default().len() <= 4);
}

#[test]
fn a_machine_that_fails_says_how() {
    let Some(testbed) = testbed() else { return };
    let (_share, mut job) = job(["true"]);
    job.devices = vec!["-device".into(), "no-such-device".into()];
    match testbed.run(&job) {
        Err(Error::Machine { console, .. }) => {
            assert!(console.contains("no-such-device"), "{console}")
        }
        other => panic!("{other:?}"),
    }
    job.devices.clear();
    job.modules = vec!["no_such_module".into()];
    match testbed.run(&job) {
        Err(Error::Machine { console, .. }) => {
            assert!(console.contains("no_such_module"), "{console}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_that_is_not_there_is_said_so() {
    let Some(testbed) = testbed() else { return };
    let (_share, job) = job(["/no/such/program"]);
    let outcome = run(&testbed, &job);
    assert_eq!(outcome.status, 127);
    assert!(outcome.output.contains("/no/such/program"), "{}", outcome.output);
}

#[test]
fn the_program_passes_output_and_status_on() {
    let Some(_) = testbed() else { return };
    let share = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_paraslot-testbed"))
        .args([
            "run",
            "--device",
            "-device nvme,drive=d,serial=1",
            "--device",
            "-drive if=none,id=d,file=null-co://",
        ])
        .args([
            "--module",
            "nvme",
            "--env",
            "A=b c",
            "--",
            "sh",
            "-c",
            "echo \"$A\"; ls /dev/nvme0n1; exit 5",
            "--help",
        ])
        .current_dir(share.path())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "b c\n/dev/nvme0n1\n");
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
}
