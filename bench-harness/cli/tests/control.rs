//! `paraslot control`, with a server that is in its sandbox.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use common::{Served, disk_job, drive};
use paraslot_drivers::workload::run;
use paraslot_protocol::{Access, Device, DiskJob};

const SOCKET: &str = "control.sock";

fn control(served: &Served, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraslot"));
    let command = command.args(["control", SOCKET]).args(arguments);
    let output = command.current_dir(served.place.path()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// What it says of what was done.
fn done(served: &Served, arguments: &[&str]) -> String {
    let (status, said, errors) = control(served, arguments);
    assert_eq!((status, errors.as_str()), (Some(0), ""), "{arguments:?}: {said}");
    said
}

fn refused(served: &Served, status: i32, arguments: &[&str], says: &str) {
    let (ended, said, errors) = control(served, arguments);
    assert_eq!((ended, said.as_str()), (Some(status), ""), "{arguments:?}: {errors}");
    assert!(errors.starts_with("paraslot: ") && errors.contains(says), "{arguments:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

fn serve(more: &[&str]) -> Served {
    let devices = ["--device", "virtio-blk,path=disk.img,iops=100", "--socket", "disk.sock"];
    let others = ["--device", "e1000,bps=1M", "--socket", "net.sock", "--control", SOCKET];
    let mut served = Served::start(&[&devices[..], &others, more].concat());
    // It lets clients in when it can be spoken to.
    drop(served.connect("disk.sock"));
    drop(served.connect(SOCKET));
    served
}

fn delayed(listed: &str) -> u64 {
    let (_, rest) = listed.split_once("delayed ").expect(listed);
    rest.split(' ').next().unwrap().parse().expect(listed)
}

fn work(operations: u64, span: u64) -> DiskJob {
    let job = disk_job(Device::VirtioBlk, Access::RandomWrite);
    DiskJob { operations, span, ..job }
}

/// Limits hold, change and go while a guest has the disk; it grows; a cable is pulled. Within the sandbox: a
/// system call that was forgotten would end the server.
#[test]
fn devices_change_while_they_are_served() {
    let mut served = serve(&[]);
    let mode = std::fs::metadata(served.place.path().join(SOCKET)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        done(&served, &["list"]),
        "1  virtio-blk  8388608 bytes, iops=100, bps=off, delayed 0 times\n\
         2  e1000  link up, fps=off, bps=1000000, delayed 0 times\n"
    );
    let job = work(40, 8 << 20);
    drive(&mut served, "disk.sock", true, |machine| run(machine, job));
    let waited = delayed(&done(&served, &["list"]));
    assert!(waited > 0, "a tenth of what it may in a second went at once, and the rest waited");

    let said = done(&served, &["limit", "1", "iops=off", "bps=2G"]);
    assert!(said.contains("iops=off, bps=2000000000"), "{said}");
    File::options()
        .write(true)
        .open(served.place.path().join("disk.img"))
        .and_then(|image| image.set_len(16 << 20))
        .unwrap();
    let said = done(&served, &["resize", "1"]);
    assert!(said.starts_with("1  virtio-blk  16777216 bytes"), "{said}");
    // No driver would touch what it does not know of.
    let job = DiskJob { operations: 4096, ..disk_job(Device::VirtioBlk, Access::Fill) };
    let job = DiskJob { span: 16 << 20, ..job };
    drive(&mut served, "disk.sock", true, |machine| run(machine, job));
    assert_eq!(delayed(&done(&served, &["list"])), waited, "nothing waits without a limit");

    assert!(done(&served, &["link", "2", "down"]).contains("link down"));
    assert!(done(&served, &["--json", "limit", "2", "fps=3K"]).contains("\"fps\":3000"));
    refused(&served, 1, &["link", "1", "up"], "no cable");
    refused(&served, 1, &["limit", "1", "fps=1"], "iops and bps");
    refused(&served, 1, &["resize", "3"], "there are 1, 2");
    refused(&served, 1, &["unplug", "1"], "paraslot boot");
    refused(&served, 1, &["plug", "e1000"], "paraslot boot");
    refused(&served, 2, &["limit", "1", "iops=fast"], "iops is a number a second");
    refused(&served, 2, &["limit", "1", "speed=1"], "iops, fps and bps");
    refused(&served, 2, &["limit", "1", "bps=1", "bps=2"], "twice");

    served.signal("TERM");
    let status = served.child.wait().unwrap();
    assert_eq!((status.code(), served.rest().as_str()), (Some(0), ""));
    let left: Vec<_> = std::fs::read_dir(served.place.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "the image alone is left: {left:?}");
    refused(&served, 1, &["list"], "cannot connect");
}

/// Whoever speaks nonsense, too much or not at all is no harm to the devices, nor to whoever comes next.
#[test]
fn nonsense_is_answered_or_forgotten() {
    let served = serve(&[]);
    let connect = || UnixStream::connect(served.place.path().join(SOCKET)).unwrap();
    let mut client = connect();
    client.write_all(b"\0\xff nonsense\n{}\n").unwrap();
    let mut lines = BufReader::new(&client).lines();
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.starts_with("{\"error\":\"no command"), "{line}");
    }
    drop(client);
    let mut endless = connect();
    // It is closed at the other end at some point.
    while endless.write_all(&[b'x'; 4096]).is_ok() {}
    let mut rest = Vec::new();
    let _ = endless.read_to_end(&mut rest);
    assert!(rest.len() < 100, "{}", rest.len());
    // These say nothing, and then they are gone.
    drop([connect(), connect()]);
    assert!(done(&served, &["list"]).starts_with("1  virtio-blk"));
    // This one stays, and is waited for no longer than it may be.
    let _silent = connect();
    assert!(done(&served, &["list"]).starts_with("1  virtio-blk"));
}

#[test]
fn a_program_that_is_not_there_is_told_of() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraslot"));
    let output = command.args(["control", "/nowhere/control", "list"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("is there a --control /nowhere/control?"), "{errors}");
}

#[test]
fn nothing_is_left_of_what_did_not_start() {
    let place = tempfile::TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraslot"));
    let sockets = ["--socket", "disk.sock", "--control", SOCKET];
    let command = command.args(["serve", "--device", "ahci,path=none.img"]).args(sockets);
    // With the sandbox it ends before, at the image that is not there.
    let output = command.arg("--no-sandbox").current_dir(place.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
