//! `paraslot run --path vfio-user`: devices in processes of their own, beside those of this one.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn command(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraslot"));
    // Sockets are made there, too.
    command.arg("run").args(arguments).current_dir(place).env("TMPDIR", place);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Whether there is a KVM; says why not.
fn kvm() -> bool {
    let output = Command::new(env!("CARGO_BIN_EXE_paraslot")).arg("doctor").output().unwrap();
    let report = text(&output.stdout);
    let reason = report.lines().find(|line| line.starts_with("NO"));
    if let Some(reason) = reason {
        eprintln!("skipped: {reason}");
    }
    reason.is_none()
}

/// Runs it; the results.
fn results(place: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = command(place, arguments).output().expect("the program starts");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    let file = place.join("target/paraslot/latest/results.json");
    let value: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let notes = value["manifest"]["notes"].as_array().unwrap();
    assert!(notes.iter().any(|note| note.as_str().unwrap().contains("memfd")), "{notes:?}");
    let results = value["results"].as_array().unwrap().clone();
    // No socket is left, nor the directory that it was in.
    let left: Vec<_> =
        fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["target"]);
    results
}

/// Pairs of records that differ in the path alone: `event`, then `vfio-user`.
fn pairs(results: &[Value]) -> Vec<(&Value, &Value)> {
    let of = |path: &'static str| results.iter().filter(move |record| record["path"] == path);
    let same = |one: &Value, other: &Value| {
        let keys = ["device", "workload", "block_size", "frame_size", "queue_depth", "completion"];
        keys.iter().all(|key| one.get(key) == other.get(key))
    };
    let pairs: Vec<_> = of("event")
        .map(|one| (one, of("vfio-user").find(|other| same(one, other)).expect("its counterpart")))
        .collect();
    assert_eq!(2 * pairs.len(), results.len());
    for (one, other) in &pairs {
        assert_eq!((&one["vmm"], &other["vmm"]), (&"paraslot".into(), &"paraslot".into()));
        assert_eq!(one["backend"], other["backend"]);
        for record in [one, other] {
            assert!(record["operations"].as_u64().unwrap() > 0, "{record}");
            // Of both processes; it could be told.
            assert!(record["host_cpu_ns_per_op"].as_f64().unwrap() > 0.0, "{record}");
        }
    }
    pairs
}

/// A count of both for each operation, which must be the same.
fn equal(pair: &(&Value, &Value), count: &str) -> f64 {
    let (one, other) = pair;
    let [one_count, other_count] = [one, other].map(|record| record[count].as_f64().unwrap());
    assert!(one_count == other_count, "{count}: {one} {other}");
    one_count
}

const QUICK: [&str; 5] = ["--quick", "--path", "event,vfio-user", "--busy-poll", "0"];

/// One request at a time, so that what each costs does not depend on who is quicker: the temporary image
/// is passed on, data is compared, and no register access costs another exit than in process.
#[test]
fn disks_exit_as_often_when_they_are_served() {
    if !kvm() {
        return;
    }
    let place = TempDir::new().unwrap();
    let filter = ["--filter", "randread", "--filter", "qd1/"];
    let results = results(place.path(), &[&QUICK[..], &filter].concat());
    let pairs = pairs(&results);
    assert_eq!(pairs.len(), 2 * 4);
    for pair in &pairs {
        assert_eq!(equal(pair, "copied_bytes_per_op"), 0.0);
        let polled = pair.0["completion"] == "poll";
        if pair.0["device"] != "ahci" {
            assert_eq!(equal(pair, "exits_per_op"), 0.0);
        } else if polled {
            // PxSACT and PxCI.
            assert_eq!(equal(pair, "exits_per_op"), 2.0);
            assert_eq!(equal(pair, "doorbells_per_op"), 1.0);
        } else {
            // PxIS and IS besides, for each interrupt.
            for record in [pair.0, pair.1] {
                let exits = record["exits_per_op"].as_f64().unwrap();
                assert!((3.5..4.5).contains(&exits), "{record}");
            }
        }
        for record in [pair.0, pair.1] {
            let interrupts = record["interrupts_per_op"].as_f64().unwrap();
            assert_eq!(interrupts > 0.0, !polled, "{record}");
        }
    }
}

/// Frames that are sent, received and sent back, each looked at by whoever gets it.
#[test]
fn networks_exit_as_often_when_they_are_served() {
    if !kvm() {
        return;
    }
    let place = TempDir::new().unwrap();
    for (filter, copied) in [("tx/64/b1/", None), ("rr/64/b1/poll", Some(128.0))] {
        let results = results(place.path(), &[&QUICK[..], &["--filter", filter]].concat());
        let pairs = pairs(&results);
        assert_eq!(pairs.len(), 3);
        for pair in &pairs {
            for record in [pair.0, pair.1] {
                assert_eq!(
                    (&record["frames_lost"], &record["frames_reordered"]),
                    (&0.into(), &0.into())
                );
            }
            // Both of TDT and RDT are told of what came back.
            let each = if filter.starts_with("rr") { 2.0 } else { 1.0 };
            if pair.0["device"] == "e1000" {
                assert_eq!(equal(pair, "exits_per_op"), each);
                assert_eq!(equal(pair, "doorbells_per_op"), each);
            } else {
                assert_eq!(equal(pair, "exits_per_op"), 0.0);
            }
            if let Some(copied) = copied.filter(|_| pair.0["device"] != "e1000") {
                assert_eq!(equal(pair, "copied_bytes_per_op"), copied);
            }
        }
    }
    let results = results(place.path(), &[&QUICK[..], &["--filter", "rx/1514"]].concat());
    assert_eq!(pairs(&results).len(), 2 * 3);
}

/// Both ends of the wire are in one process, each device with a processor of its own.
#[test]
fn two_machines_are_joined_by_a_wire_that_is_served() {
    if !kvm() {
        return;
    }
    let place = TempDir::new().unwrap();
    let results = results(place.path(), &[&QUICK[..], &["--filter", "wire/1514"]].concat());
    let pairs = pairs(&results);
    assert_eq!(pairs.len(), 3);
    for (event, served) in pairs {
        for record in [event, served] {
            assert_eq!(record["frames_lost"], 0);
            assert!(record["copied_bytes_per_op"].as_f64().unwrap() > 1514.0);
        }
    }
}

/// What is behind a disk is the server's to open: memory, nothing, the user's own file.
#[test]
fn a_server_opens_what_is_behind_a_disk() {
    if !kvm() {
        return;
    }
    let place = TempDir::new().unwrap();
    let image = TempDir::new().unwrap();
    let path = image.path().join("disk,1.img");
    fs::File::create(&path).unwrap().set_len(8 << 20).unwrap();
    let own = format!(
        "pvscsi,write=on,engine=threads,path={}",
        path.display().to_string().replace(',', ",,")
    );
    let devices = [("virtio-blk,backend=memory", 4096.0), ("ahci,backend=null", 0.0), (&own, 0.0)];
    for (device, copied) in devices {
        let filter = ["--device", device, "--filter", "randwrite", "--filter", "qd32/poll"];
        let results = results(place.path(), &[&QUICK[..], &filter].concat());
        let pairs = pairs(&results);
        assert_eq!(pairs.len(), 1, "{device}");
        assert_eq!(equal(&pairs[0], "copied_bytes_per_op"), copied, "{device}");
    }
    assert!(fs::read(&path).unwrap().iter().any(|byte| *byte != 0), "it was written");
}

/// Refused before anything is made.
#[test]
fn what_does_not_go_with_it_is_refused() {
    let place = TempDir::new().unwrap();
    for (arguments, words) in [
        (&["--path", "vfio-user", "--platform", "in-process"][..], "--path needs virtual machines"),
        (&["--path", "vfio-user", "--guest", "linux"], "does not go with --path vfio-user"),
        (&["--path", "teleport"], "event, vfio-user"),
    ] {
        let output = command(place.path(), arguments).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(words), "{arguments:?}: {errors}");
    }
    let by_hand = Command::new(env!("CARGO_BIN_EXE_paraslot"))
        .arg("serve-run")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(by_hand.status.code(), Some(1));
    assert!(text(&by_hand.stderr).contains("this is for paraslot run"), "{by_hand:?}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "nothing was made");
}

/// A run that does not end by itself before long, with its server.
struct Long {
    child: Child,
    server: String,
}

impl Drop for Long {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fields of a process's state from the third on; `None` if there is none, or none any more.
fn state(process: &str) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect::<Vec<_>>();
    (fields[0] != "Z").then_some(fields)
}

fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Long {
    /// One whose guest is at work.
    fn start(place: &Path) -> Self {
        let arguments = [
            "--path",
            "vfio-user",
            "--device",
            "virtio-blk,backend=null,verify=off",
            "--filter",
            "randread/4k/qd1/poll",
            "--time",
            "60000",
            "--min-runs",
            "1",
        ];
        let child = command(place, &arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut this = Self { child, server: String::new() };
        let parent = this.child.id().to_string();
        this.server = soon("a server", || {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let mut names = processes.filter_map(|entry| entry.file_name().into_string().ok());
            names.find(|name| state(name).is_some_and(|fields| fields[1] == parent))
        });
        // Processor time, in hundredths of a second: more than it takes to begin.
        let worked = |fields: Vec<String>| {
            let used: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
            (used >= 30).then_some(())
        };
        soon("work", || worked(state(&this.server).expect("a server")));
        this
    }
}

/// The guest would poll for a minute; it is stopped instead.
#[test]
fn a_server_that_dies_is_an_error_that_says_how() {
    if !kvm() {
        return;
    }
    let place = TempDir::new().unwrap();
    let mut long = Long::start(place.path());
    assert!(Command::new("kill").args(["-KILL", &long.server]).status().unwrap().success());
    let mut errors = String::new();
    std::io::Read::read_to_string(&mut long.child.stderr.take().unwrap(), &mut errors).unwrap();
    let status = long.child.wait().unwrap();
    assert_eq!(status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap();
    for words in
        ["virtio-blk/vfio-user/randread/4k/qd1/poll", "server ended", "SIGKILL", "suspended"]
    {
        assert!(last.contains(words), "{words}: {errors}");
    }
}

/// Nobody is left behind by a program that was killed.
#[test]
fn a_server_ends_with_the_program() {
    if !kvm() {
        return;
    }
    let place = TempDir::new().unwrap();
    let mut long = Long::start(place.path());
    long.child.kill().unwrap();
    long.child.wait().unwrap();
    soon("the server's end", || state(&long.server).is_none().then_some(()));
    let left: Vec<_> =
        fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["target"]);
}
