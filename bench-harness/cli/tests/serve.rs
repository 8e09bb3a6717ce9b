//! `paraslot serve`, as its users and clients meet it.

mod common;

use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;

use common::{Served, command, disk_job, drive, place};
use paraslot_drivers::workload::run;
use paraslot_protocol::{Access, Completion, Device, NetJob, Traffic};

fn refused(arguments: &[&str], status: i32, words: &str) {
    let place = place();
    let output = command(place.path(), arguments).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {errors}");
    assert!(errors.starts_with("paraslot: ") && errors.contains(words), "{arguments:?}: {errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

/// The first message of a client, and what it is answered.
fn negotiate(stream: &mut UnixStream) {
    let capabilities = b"{\"capabilities\":{}}\0";
    let size = u32::try_from(16 + 4 + capabilities.len()).unwrap();
    let mut message = vec![7, 0, 1, 0];
    message.extend(size.to_le_bytes());
    message.extend([0; 8]);
    message.extend([0, 0, 1, 0]);
    message.extend(capabilities);
    stream.write_all(&message).unwrap();
    let mut header = [0; 16];
    stream.read_exact(&mut header).unwrap();
    assert_eq!(header[..4], [7, 0, 1, 0]);
    assert_eq!(header[8..], [1, 0, 0, 0, 0, 0, 0, 0], "a reply, and no error");
    let size = u32::from_le_bytes(header[4..8].try_into().unwrap());
    let mut rest = vec![0; usize::try_from(size).unwrap() - 16];
    stream.read_exact(&mut rest).unwrap();
}

#[test]
fn what_cannot_be_served_is_refused_in_a_line() {
    let disk = "virtio-blk,path=disk.img";
    refused(&["--device", disk], 2, "no --socket");
    refused(&["--device", disk, "--socket", "a", "--socket", "b"], 2, "each device needs one");
    refused(&["--device", "vfio,host=0000:00:01.0", "--socket", "a"], 2, "paraslot run");
    refused(&["--device", "virtio-blk", "--socket", "a"], 2, "needs path");
    refused(&["--device", "ahci,path=disk.img,write=on", "--socket", "a"], 2, "for paraslot run");
    refused(&["--device", "e1000,addr=3", "--socket", "a"], 2, "for paraslot boot");
    refused(&["--device", "ahci,path=none.img", "--socket", "a"], 1, "none.img");
    refused(&["--device", disk, "--socket", "none/a"], 1, "no directory none");
    refused(&["--device", disk, "--socket", "disk.img"], 1, "cannot listen at disk.img");
}

/// Several devices, clients that come and go, the line of statistics, and an end that leaves nothing behind:
/// within the sandbox, where a system call that was forgotten ends the process.
#[test]
fn devices_are_served_until_it_is_told_to_stop() {
    let mut served = Served::start(&[
        "--device",
        "virtio-blk,path=disk.img",
        "--socket",
        "disk.sock",
        "--device",
        "e1000",
        "--socket",
        "net.sock",
    ]);
    for _ in 0..3 {
        negotiate(&mut served.connect("disk.sock"));
    }
    // This one breaks the protocol, and is told of.
    served.connect("net.sock").write_all(&[0xff; 64]).unwrap();
    let mut line = String::new();
    served.errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("paraslot: e1000 at net.sock: the client"), "{line}");
    // A new client is let in when the last has been forgotten.
    let mut stays = served.connect("disk.sock");
    negotiate(&mut stays);
    served.signal("USR1");
    line.clear();
    served.errors.read_line(&mut line).unwrap();
    let expected = "paraslot: virtio-blk at disk.sock: 3 clients before, 0 operations";
    assert!(line.starts_with(expected), "{line}");
    line.clear();
    served.errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("paraslot: e1000 at net.sock: 1 clients before, sent 0"), "{line}");

    served.signal("TERM");
    let status = served.child.wait().unwrap();
    assert_eq!((status.code(), served.rest().as_str()), (Some(0), ""));
    assert_eq!(stays.read(&mut [0]).unwrap(), 0, "the client is let go");
    let left: Vec<_> = std::fs::read_dir(served.place.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "the image alone is left: {left:?}");
}

/// Every kind of device with every kind of backend, driven within the sandbox: a system call that was
/// forgotten would end the server.
#[test]
fn drivers_reach_what_is_served_and_the_data_is_intact() {
    let disks = [
        (Device::VirtioBlk, "virtio-blk,path=disk.img,engine=threads"),
        (Device::VirtioScsi, "virtio-scsi,path=disk.img,queues=2"),
        (Device::Pvscsi, "pvscsi,path=disk.img"),
        (Device::Ahci, "ahci,path=disk.img"),
    ];
    for (device, spec) in disks {
        let mut served = Served::start(&["--device", spec, "--socket", "a"]);
        drop(served.connect("a"));
        // What is read is what was written.
        for (access, shared) in [
            (Access::Fill, true),
            (Access::RandomRead, true),
            (Access::RandomRead, false),
            (Access::RandomWrite, true),
        ] {
            drive(&mut served, "a", shared, |machine| run(machine, disk_job(device, access)));
        }
        served.signal("TERM");
        let status = served.child.wait().unwrap();
        assert_eq!((status.code(), served.rest().as_str()), (Some(0), ""), "{spec}");
    }
    for device in [Device::VirtioNet, Device::Vmxnet3, Device::E1000] {
        let mut served = Served::start(&["--device", device.name(), "--socket", "a"]);
        drop(served.connect("a"));
        let job = NetJob {
            device,
            traffic: Traffic::Transmit,
            completion: Completion::Interrupt,
            frame_size: 1514,
            batch: 8,
            rate: 0,
            warm_up_ms: 0,
            measure_ms: 60_000,
            operations: 200,
            verify: true,
            tsc_hz: 0,
        };
        for shared in [true, false] {
            drive(&mut served, "a", shared, |machine| run(machine, job));
        }
        served.signal("TERM");
        assert_eq!(served.child.wait().unwrap().code(), Some(0), "{device}: {}", served.rest());
    }
}
