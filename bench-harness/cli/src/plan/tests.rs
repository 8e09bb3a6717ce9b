use clap::Parser;

use super::*;
use crate::args::CommandLine;

fn arguments(arguments: &[&str]) -> RunArgs {
    CommandLine::try_parse_from([&["paraslot"], arguments].concat()).unwrap().run
}

/// A host whose functions of an even number are disks.
fn identify(address: HostAddress) -> anyhow::Result<Device> {
    Ok(if address.device.is_multiple_of(2) { Device::Nvme } else { Device::E1000 })
}

fn plan(given: &[&str]) -> Plan {
    Plan::new(&arguments(given), PlatformName::Kvm, identify).unwrap()
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.cells.iter().map(|cell| cell.name.as_str()).collect()
}

#[test]
fn the_usual_plan_is_the_whole_matrix() {
    let plan = plan(&[]);
    let (disks, nets): (Vec<_>, Vec<_>) = plan.cells.iter().partition(|cell| cell.disk().is_some());
    assert_eq!(disks.len(), 3 * 2 * 2 * 2 * 4);
    let of = |flow, rate| {
        let same = |workload: NetWorkload| (workload.flow, workload.rate) == (flow, rate);
        nets.iter().filter(|cell| cell.net().is_some_and(same)).count()
    };
    assert_eq!(of(Flow::Transmit, None), 3 * 2 * 2 * 3);
    // Frames of 64 KiB are not for e1000.
    assert_eq!(of(Flow::Receive, None), 2 * 2 * 2 * 3 + 2 * 2 * 2);
    assert_eq!(of(Flow::Request, None), 2 * 2 * 3);
    assert_eq!(of(Flow::Request, Some(10_000)), 2 * 3);
    // Two machines are on one path.
    assert_eq!(of(Flow::Wire, None), 3 + 2);
    assert_eq!(nets.len(), 36 + 32 + 12 + 6 + 5);
    assert_eq!(plan.notes, ["e1000: no frames of 64 KiB received (its hardware joins none)"]);

    let mut names = names(&plan);
    assert_eq!(names[0], "virtio-blk/trap/randread/4k/qd1/poll");
    assert_eq!(names[1], "virtio-scsi/trap/randread/4k/qd1/poll");
    assert_eq!(names[2], "pvscsi/trap/randread/4k/qd1/poll");
    assert_eq!(names[3], "ahci/trap/randread/4k/qd1/poll");
    assert_eq!(names[95], "ahci/event/read/128k/qd32/interrupt");
    assert_eq!(names[96], "virtio-net/trap/tx/64/b1/poll");
    assert_eq!(names[97], "vmxnet3/trap/tx/64/b1/poll");
    assert_eq!(names[98], "e1000/trap/tx/64/b1/poll");
    for name in [
        "virtio-net/event/tx/64/b32/poll",
        "e1000/trap/tx/65536/b1/poll",
        "virtio-net/event/rx/65536/b32/interrupt",
        "e1000/event/rr/64/b1/poll",
        "virtio-net/event/rr/64/b32/interrupt/10k",
        "vmxnet3/event/rx/65536/b32/poll",
        "e1000/event/wire/1514/b32/interrupt",
        "virtio-net/event/wire/65536/b32/interrupt",
    ] {
        assert!(names.contains(&name), "{name}");
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

/// Served devices are beside the others where that is asked for, and the others are left out where it is not.
#[test]
fn paths_are_those_that_are_asked_for() {
    let paths = |given: &[&str]| {
        let mut paths: Vec<_> = plan(given).cells.iter().map(|cell| cell.path).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
    };
    assert_eq!(paths(&[]), [Path::Trap, Path::Event]);
    assert_eq!(paths(&["--path", "vfio-user,event,vfio-user"]), [Path::Event, Path::VfioUser]);
    assert_eq!(paths(&["--path", "vfio-user", "--path", "trap"]), [Path::Trap, Path::VfioUser]);
    let served = plan(&["--path", "vfio-user"]);
    assert!(served.serves() && !plan(&[]).serves());
    // All that the event path has.
    let event = plan(&["--path", "event"]);
    assert_eq!(served.cells.len(), event.cells.len());
    let renamed = event.cells.iter().map(|cell| cell.name.replace("/event/", "/vfio-user/"));
    assert!(renamed.eq(served.cells.iter().map(|cell| cell.name.clone())));

    let refused = |given: &[&str]| {
        let error = Plan::new(&arguments(given), PlatformName::Kvm, identify).unwrap_err();
        assert!(error.is::<Usage>());
        error.to_string()
    };
    let none = refused(&["--path", "passthrough"]);
    assert!(none.contains("not measured on that --path"), "{none}");
    let host = "vfio,host=0000:00:02.0";
    assert!(refused(&["--path", "vfio-user", "--device", host]).contains("that --path"));
    let beside = plan(&["--path", "event,vfio-user", "--peer", "qemu", "--filter", "tx/64/b1/"]);
    assert!(beside.cells.iter().all(|cell| cell.peer.is_none() || cell.path == Path::Event));
    assert!(beside.notes.iter().any(|note| note.contains("not with qemu over vfio-user")));
}

/// Figures without a virtual machine must not be taken for others.
#[test]
fn without_a_virtual_machine_there_is_one_path() {
    let plan = Plan::new(&arguments(&[]), PlatformName::InProcess, identify).unwrap();
    assert_eq!(plan.cells.len(), 48 + 18 + 16 + 6 + 3);
    assert!(plan.cells.iter().all(|cell| cell.path == Path::InProcess));
    let note = "virtio-net, vmxnet3, e1000: no wire (it takes two virtual machines)";
    assert!(plan.notes.iter().any(|one| one == note), "{:?}", plan.notes);
    let error =
        Plan::new(&arguments(&["--peer", "qemu"]), PlatformName::InProcess, identify).unwrap_err();
    assert!(error.is::<Usage>());
}

#[test]
fn filters_choose_and_must_all_match() {
    assert_eq!(plan(&["--filter", "randwrite"]).cells.len(), 32);
    assert_eq!(plan(&["--filter", "/read/", "--filter", "qd1/*poll"]).cells.len(), 8);
    let error =
        Plan::new(&arguments(&["--filter", "tape"]), PlatformName::Kvm, identify).unwrap_err();
    assert!(error.is::<Usage>());
    assert_eq!(
        error.to_string(),
        "nothing to measure has tape in its name: see paraslot run --list"
    );
}

#[test]
fn what_is_left_out_is_said_if_it_was_asked_for() {
    assert!(plan(&["--filter", "tx"]).notes.is_empty());
    let given = ["--device", "e1000", "--filter", "rx/65536"];
    let error = Plan::new(&arguments(&given), PlatformName::Kvm, identify).unwrap_err();
    assert!(error.is::<Usage>());
    assert_eq!(
        error.to_string(),
        "nothing is left to measure: \
         e1000: no frames of 64 KiB received (its hardware joins none)"
    );
}

#[test]
fn a_network_does_what_it_can() {
    let without = plan(&["--device", "virtio-net,offloads=off"]);
    assert_eq!(without.cells.len(), 8 + 8 + 4 + 2 + 1);
    assert_eq!(without.notes, ["virtio-net: no frames of 64 KiB (offloads=off)"]);
    let tap = plan(&["--device", "e1000,backend=tap,ifname=tap0"]);
    assert_eq!(tap.cells.len(), 12);
    assert!(tap.cells.iter().all(|cell| cell.name.contains("/tx/")));
    assert_eq!(tap.notes, ["e1000: tx alone (behind backend=tap nobody sends or answers)"]);
}

#[test]
fn a_peers_sink_takes_short_frames_and_no_more() {
    let plan = plan(&["--peer", "qemu", "--device", "virtio-net,verify=off", "--device", "e1000"]);
    let peer: Vec<&Cell> = plan.cells.iter().filter(|cell| cell.peer.is_some()).collect();
    assert_eq!(peer.len(), 2 * 2 * 2 * 2);
    let sizes = peer.iter().map(|cell| cell.net().unwrap().frame_size);
    assert!(sizes.into_iter().all(|size| size <= 1514));
    assert_eq!(peer[0].name, "qemu:virtio-net/trap/tx/64/b1/poll");
    let notes = [
        "virtio-net, e1000: with qemu, no frames of 64 KiB (its sink takes none)",
        "e1000: no frames of 64 KiB received (its hardware joins none)",
        "virtio-net, e1000: with qemu, tx alone (nobody there sends or answers)",
        "qemu: e1000 has no event path there, its figures are of trap",
        "qemu: frames are dropped unseen, where ours are checked; verify=off is even",
    ];
    let mut found: Vec<&str> = plan.notes.iter().map(String::as_str).collect();
    assert_eq!(found.len(), notes.len(), "{found:?}");
    found.retain(|note| !notes.contains(note));
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn what_is_limited_is_measured_without_a_peer() {
    let given = ["--peer", "qemu", "--device", "virtio-blk,iops=9", "--device", "e1000,bps=1M"];
    let plan = plan(&given);
    assert!(!plan.cells.is_empty() && plan.cells.iter().all(|cell| cell.peer.is_none()));
    let note = "virtio-blk, e1000: not with qemu (whose limits are others)";
    assert!(plan.notes.iter().any(|given| given == note), "{:?}", plan.notes);
}

#[test]
fn patterns_match_anywhere() {
    assert!(matches("", "abc"));
    assert!(matches("b", "abc"));
    assert!(matches("a*c", "abc"));
    assert!(matches("*c*", "abc"));
    assert!(!matches("c*a", "abc"));
    assert!(!matches("bb", "abc"));
    assert!(!matches("b*b", "abc"));
}

#[test]
fn an_image_of_the_users_is_not_written() {
    let read_only = plan(&["--device", "ahci,path=x", "--device", "virtio-blk,readonly=on"]);
    assert!(read_only.cells.iter().all(|cell| !cell.disk().unwrap().writes()));
    assert_eq!(read_only.cells.len(), 32);
    assert_eq!(read_only.notes.len(), 2);
    let writing = plan(&["--device", "ahci,path=x,write=on"]);
    assert_eq!(writing.cells.len(), 24);
    assert!(writing.notes.is_empty());
}

#[test]
fn a_device_given_twice_has_a_number() {
    let plan =
        plan(&["--device", "ahci", "--device", "ahci,engine=threads", "--filter", "qd1/poll"]);
    assert_eq!(
        names(&plan)[..2],
        ["ahci#1/trap/randread/4k/qd1/poll", "ahci#2/trap/randread/4k/qd1/poll"]
    );
}

#[test]
fn a_peer_is_measured_in_between() {
    let plan = plan(&["--peer", "qemu", "--device", "ahci", "--device", "ahci,backend=memory"]);
    let first: Vec<_> = plan.cells.iter().take(4).map(|cell| (cell.device, cell.peer)).collect();
    let expected = [(0, None), (1, None), (0, Some(Peer::Qemu)), (0, None)];
    assert_eq!(first, expected);
    assert!(plan.cells[2].name.starts_with("qemu:ahci#1/trap/"));
    assert_eq!(plan.notes[0], "ahci#2: not with qemu (it has no backend=memory)");
    assert_eq!(plan.notes[1], "qemu: ahci has no event path there, its figures are of trap");
    assert_eq!(plan.notes.len(), 2);
}

#[test]
fn every_other_round_goes_backwards() {
    let plan = plan(&["--filter", "ahci/event/randread/4k/"]);
    assert_eq!(plan.round(0), [0, 1, 2, 3]);
    assert_eq!(plan.round(1), [3, 2, 1, 0]);
    assert_eq!(plan.round(2), plan.round(0));
}

#[test]
fn what_is_passed_through_has_a_path_of_its_own() {
    let plan = plan(&[
        "--device",
        "virtio-blk",
        "--device",
        "vfio,host=00:04.0,overwrite=on",
        "--device",
        "vfio,host=00:05.0",
        "--device",
        "vfio,host=00:06.0",
        "--peer",
        "qemu",
    ]);
    let cells = |device| plan.cells.iter().filter(move |cell| cell.device == device);
    assert!(cells(0).all(|cell| cell.path != Path::Passthrough));
    for device in 1..4 {
        assert!(cells(device).all(|cell| cell.path == Path::Passthrough && cell.peer.is_none()));
    }
    // The whole of it, but the one path; frames that go out; reads.
    assert_eq!([1, 2, 3].map(|device| cells(device).count()), [12, 4, 8]);
    assert_eq!(cells(1).next().unwrap().name, "nvme#1/passthrough/randread/4k/qd1/poll");
    assert_eq!(cells(2).next().unwrap().name, "e1000/passthrough/tx/64/b1/poll");
    for expected in [
        "nvme#1, nvme#2, e1000: not with qemu (a function passed through is the host's)",
        "nvme#2: no write workloads (a disk of the host's without overwrite=on)",
        "e1000: tx alone (on a network of the host's nobody is to send or answer)",
        "0000:00:04.0: what is on this disk is overwritten",
        "0000:00:06.0: reads alone, which are not compared (overwrite=on writes to this disk)",
    ] {
        assert!(plan.notes.iter().any(|note| note == expected), "{expected}: {:?}", plan.notes);
    }
    let times = Times { warm_up_ms: 5, measure_ms: 10, min_runs: 1, max_runs: 1 };
    for cell in &plan.cells {
        let spec = &plan.devices[cell.device];
        let job = cell.job(spec, &times, 256 << 20, 0).unwrap();
        assert_eq!((job.check(), job.device()), (Ok(()), spec.device()));
        // What is compared has to have been written.
        if let Job::Disk(job) = job {
            assert_eq!(job.verify, cell.device < 2, "{}", cell.name);
        }
    }
}

#[test]
fn what_is_passed_through_needs_a_machine() {
    let arguments = arguments(&["--device", "vfio,host=00:05.0"]);
    let error = Plan::new(&arguments, PlatformName::InProcess, identify).unwrap_err();
    assert!(error.to_string().contains("virtual machines"));
    let unknown = |_| anyhow::bail!("no driver fits");
    let error = Plan::new(&arguments, PlatformName::Kvm, unknown).unwrap_err();
    assert_eq!(error.to_string(), "no driver fits");
}

#[test]
fn jobs_are_what_guests_take() {
    let times = Times { warm_up_ms: 5, measure_ms: 10, min_runs: 1, max_runs: 1 };
    let plan = plan(&[
        "--device",
        "ahci",
        "--device",
        "ahci,backend=null",
        "--device",
        "ahci,path=x,write=on",
        "--device",
        "ahci,backend=memory,verify=off",
    ]);
    for cell in &plan.cells {
        let spec = &plan.devices[cell.device];
        // An odd size is rounded down to whole blocks.
        let job = cell.job(spec, &times, (64 << 20) + 512, 3).unwrap();
        assert_eq!(job.check(), Ok(()));
        assert_eq!(job.to_string().parse(), Ok(job));
        let Job::Disk(job) = job else { panic!("not a disk's") };
        assert_eq!(job.span, 64 << 20);
        let known = match cell.device {
            0 => true,
            1 | 3 => false,
            _ => cell.disk().unwrap().writes(),
        };
        assert_eq!(job.verify, known, "{}", cell.name);
    }
}

#[test]
fn jobs_of_networks_are_what_guests_take() {
    let times = Times { warm_up_ms: 5, measure_ms: 10, min_runs: 1, max_runs: 1 };
    let plan = plan(&["--device", "virtio-net", "--device", "e1000,verify=off"]);
    for cell in &plan.cells {
        let spec = &plan.devices[cell.device];
        let job = cell.job(spec, &times, 0, 3).unwrap();
        assert_eq!(job.check(), Ok(()), "{}", cell.name);
        assert_eq!(job.to_string().parse(), Ok(job));
        let Job::Net(job) = job else { panic!("not a network's") };
        assert_eq!(job.verify, cell.device == 0);
        assert_eq!(job.rate, if cell.name.ends_with("/10k") { 10_000 } else { 0 });
    }
    let disk = DeviceSpec::new(Device::Ahci);
    assert!(plan.cells[0].job(&disk, &times, 1 << 20, 0).is_err());
}

/// Its drivers wait for interrupts, and its networks are its TCP's.
#[test]
fn linux_has_the_same_work_for_disks_and_its_own_for_networks() {
    let linux = plan(&["--guest", "linux"]);
    let disks = linux.cells.iter().filter(|cell| cell.disk().is_some()).count();
    assert_eq!((disks, linux.cells.len()), (3 * 2 * 2 * 4, 3 * 2 * 2 * 4 + 3 * 2 * 3));
    for cell in &linux.cells {
        assert_eq!((cell.guest, cell.completion), (GuestName::Linux, Completion::Interrupt));
    }
    let usual = plan(&["--filter", "qd", "--filter", "interrupt"]);
    assert_eq!(names(&linux)[..disks], names(&usual));
    assert_eq!(names(&linux)[disks], "virtio-net/trap/tcp-tx/131072/interrupt");
    assert_eq!(names(&linux).last(), Some(&"e1000/event/tcp-rr/64/interrupt"));
    assert!(usual.cells.iter().all(|cell| cell.guest == GuestName::Freestanding));
    assert_eq!(linux.notes, [""; 0]);
    let passed = plan(&["--guest", "linux", "--device", "vfio,host=00:02.0"]);
    assert_eq!(names(&passed)[0], "nvme/passthrough/randread/4k/qd1/interrupt");

    let say = |given: &[&str], platform| {
        let arguments = arguments(&[&["--guest", "linux"], given].concat());
        let error = Plan::new(&arguments, platform, identify).unwrap_err();
        assert_eq!(crate::error::status(&error), 2);
        error.to_string()
    };
    assert!(say(&["--peer", "qemu"], PlatformName::Kvm).ends_with("with --peer"));
    assert!(say(&[], PlatformName::InProcess).ends_with("with in-process"));
    let files = arguments(&["--guest-files", "x"]);
    let error = Plan::new(&files, PlatformName::Kvm, identify).unwrap_err();
    assert_eq!(error.to_string(), "--guest-files is for --guest linux");
    let words = arguments(&["--guest-append", "-quiet"]);
    let error = Plan::new(&words, PlatformName::Kvm, identify).unwrap_err();
    assert_eq!(error.to_string(), "--guest-append is for --guest linux");
    let nothing = say(&["--device", "vfio,host=00:01.0"], PlatformName::Kvm);
    assert!(nothing.starts_with("nothing is left to measure: e1000: not in Linux"), "{nothing}");
    let tap = say(&["--device", "e1000,backend=tap,ifname=tap0"], PlatformName::Kvm);
    assert!(tap.contains("an interface of its own"), "{tap}");
}
