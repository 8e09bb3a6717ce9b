use super::*;

fn error(text: &str) -> String {
    let message = text.parse::<Request>().expect_err(text).to_string();
    assert!(!message.contains('\n'));
    message
}

fn boot_error(text: &str) -> String {
    let message = text.parse::<Plugged>().expect_err(text).to_string();
    assert!(!message.contains('\n'));
    message
}

fn disk(text: &str) -> DiskSpec {
    match text.parse() {
        Ok(Request::Disk(spec)) => spec,
        other => panic!("{text}: {other:?}"),
    }
}

fn net(text: &str) -> NetSpec {
    match text.parse() {
        Ok(Request::Net(spec)) => spec,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn options_of_disks_are_read() {
    let spec = disk(
        "virtio-blk,path=disk.img,queues=4,readonly=on,direct=on,engine=threads,verify=off,id=one",
    );
    let expected = DiskSpec {
        path: Some("disk.img".into()),
        queues: Some(4),
        read_only: true,
        direct: true,
        engine: Some(Engine::Threads),
        verify: false,
        id: Some("one".into()),
        ..DiskSpec::new(Device::VirtioBlk)
    };
    assert_eq!(spec, expected);
    assert_eq!(model("ahci"), DeviceSpec::new(Device::Ahci));
    assert_eq!(disk("ahci,backend=null").backend, Backend::Null);
}

#[test]
fn options_of_networks_are_read() {
    let spec = net("virtio-net,mac=52:54:00:aB:cd:01,queues=2,offloads=off,verify=off");
    let expected = NetSpec {
        mac: Some([0x52, 0x54, 0, 0xab, 0xcd, 1]),
        queues: Some(2),
        offloads: false,
        verify: false,
        ..NetSpec::new(Device::VirtioNet)
    };
    assert_eq!(spec, expected);
    assert_eq!(model("e1000"), DeviceSpec::new(Device::E1000));
    assert_eq!(net("e1000,backend=auto").tap(), None);
    assert_eq!(net("e1000,backend=tap,ifname=tap0").tap(), Some("tap0"));
}

#[test]
fn limits_are_read() {
    let limits = |operations, bytes| Limits {
        operations: std::num::NonZeroU64::new(operations),
        bytes: std::num::NonZeroU64::new(bytes),
    };
    assert_eq!(disk("ahci,iops=2K,bps=10M").limits, limits(2000, 10_000_000));
    assert_eq!(net("virtio-net,fps=5").limits, limits(5, 0));
    assert_eq!(disk("pvscsi,iops=off").limits, Limits::default());
}

#[test]
fn a_doubled_comma_belongs_to_the_value() {
    let spec = disk("ahci,path=a,,b.img,direct=on");
    assert_eq!(spec.path, Some("a,b.img".into()));
    assert!(spec.direct);
    assert_eq!(parts("a,,,b"), ["a,", "b"]);
    assert_eq!(parts(""), [""]);
}

#[test]
fn the_users_image_is_written_only_if_asked() {
    let writable = |text| disk(text).writable();
    assert!(writable("ahci"));
    assert!(!writable("ahci,readonly=on"));
    assert!(!writable("ahci,path=x"));
    assert!(!writable("ahci,path=x,readonly=off"));
    assert!(writable("ahci,path=x,write=on"));
}

#[test]
fn what_is_unknown_is_named_with_what_is_known() {
    const KNOWN: &str =
        "there are virtio-blk, virtio-scsi, pvscsi, ahci, virtio-net, vmxnet3, e1000, vfio";
    assert_eq!(error("floppy"), format!("no device \"floppy\": {KNOWN}"));
    assert_eq!(error(""), format!("no device \"\": {KNOWN}"));
    assert_eq!(error("virtio-blk,,"), format!("no device \"virtio-blk,\": {KNOWN}"));
    assert_eq!(
        error("ahci,queues=2"),
        "ahci has no option \"queues\": it has path, backend, readonly, write, direct, engine, verify, id, iops, bps"
    );
    assert_eq!(
        error("e1000,offloads=off"),
        "e1000 has no option \"offloads\": it has mac, backend, ifname, verify, fps, bps"
    );
    assert_eq!(error("ahci,direct=yes"), "direct=yes: direct is one of on, off");
    assert_eq!(error("ahci,backend=tape"), "backend=tape: backend is one of file, memory, null");
    assert_eq!(error("e1000,backend=null"), "backend=null: backend is one of auto, tap");
    assert_eq!(error("ahci,engine=x"), "engine=x: engine is one of io_uring, threads");
    assert_eq!(error("virtio-blk,queues=0"), "queues=0: queues is a number from 1 to 64");
    assert_eq!(error("e1000,mac=1"), "mac=1: mac is a station's address, like 52:54:00:12:34:56");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for text in [
        "ahci,",
        "ahci,direct",
        "ahci,path=",
        "ahci,id=",
        "ahci,id=a b",
        "ahci,id=012345678901234567890",
        "ahci,direct=on,direct=off",
        "ahci,backend=null,path=x",
        "ahci,backend=memory,direct=on",
        "ahci,backend=memory,readonly=on",
        "ahci,backend=memory,engine=threads",
        "ahci,write=on",
        "ahci,path=x,write=on,readonly=on",
        "virtio-net,queues=65",
        "e1000,backend=tap",
        "e1000,ifname=tap0",
        "e1000,backend=tap,ifname=",
        "e1000,backend=tap,ifname=a/b",
        "e1000,backend=tap,ifname=0123456789abcdef",
        "e1000,mac=52:54:00:12:34",
        "e1000,mac=52:54:00:12:34:56:78",
        "e1000,mac=52:54:00:12:34:+6",
        "e1000,mac=00:00:00:00:00:00",
        "e1000,mac=01:00:5e:00:00:01",
        "ahci,iops=0",
        "ahci,bps=fast",
        "e1000,iops=1",
        "e1000,fps=",
    ] {
        error(text);
    }
}

/// What `list` shows is what the parser takes, and for what it is said to be for alone.
#[test]
fn every_option_that_is_shown_is_taken() {
    let models = Device::MODELS.map(|device| (device.name(), options(device)));
    for (name, options) in models.into_iter().chain([(HOST, HOST_OPTIONS)]) {
        for info in options {
            let value = match info.values {
                "FILE" | "TEXT" => "x",
                "NAME" => "tap0,backend=tap",
                "XX:XX:XX:XX:XX:XX" => "52:54:00:12:34:56",
                "0000:00:05.0" => "0000:00:05.0",
                "1..64" => "64",
                "1..8" => "8",
                "1..1f" => "1f",
                "auto|tap" => "auto",
                choices => choices.split('|').next_back().unwrap(),
            };
            let mut text = format!("{name},{}={value}", info.name);
            if name == HOST && info.name != "host" {
                text.push_str(",host=0000:00:05.0");
            }
            let measured = text.parse::<Request>().is_ok();
            assert_eq!(measured, info.is_for(Purpose::Measure), "{text}");
            let has_path = options.iter().any(|info| info.name == "path") && info.name != "path";
            text.push_str(if has_path { ",path=x" } else { "" });
            let booted = text.parse::<Plugged>().is_ok();
            assert_eq!(booted, info.is_for(Purpose::Boot), "{text}");
        }
    }
}

#[test]
fn what_is_booted_has_options_of_its_own() {
    let plugged: Plugged = "virtio-scsi,path=a.iso,media=cdrom,addr=1F".parse().unwrap();
    assert_eq!(plugged.slot, Some(31));
    let Request::Disk(spec) = plugged.request else { panic!("no disk") };
    assert_eq!((spec.media, spec.path), (Media::Cdrom, Some("a.iso".into())));
    assert_eq!("e1000".parse::<Plugged>().unwrap().slot, None);
    assert_eq!(
        boot_error("ahci,path=x,verify=off"),
        "option verify is for paraslot run, not for paraslot boot"
    );
    assert_eq!(error("ahci,addr=3"), "option addr is for paraslot boot, not for paraslot run");
    assert_eq!(boot_error("ahci"), "ahci needs path=FILE, an image or block device");
    assert_eq!(
        boot_error("e1000,queues=2"),
        "e1000 has no option \"queues\": it has mac, backend, ifname, fps, bps, addr"
    );
    for wrong in ["0", "20", "", "1.0", "+1", "001", "x"] {
        let expected = format!("addr={wrong}: addr is a hexadecimal number from 1 to 1f");
        assert_eq!(boot_error(&format!("e1000,addr={wrong}")), expected);
    }
    assert!(boot_error("virtio-blk,path=x,media=cdrom").contains("no option \"media\""));
}

#[test]
fn a_function_of_the_hosts_is_named_by_its_address() {
    let request: Request = "vfio,host=00:05.0,bind=on,overwrite=on".parse().unwrap();
    assert!(request.borrows());
    let resolve = |device| {
        DeviceSpec::of(&request, |address| {
            assert_eq!(address.to_string(), "0000:00:05.0");
            Ok(device)
        })
    };
    let disk = resolve(Device::Nvme).unwrap();
    assert!(disk.is_passed());
    assert_eq!((disk.device(), disk.family()), (Device::Nvme, Family::Passthrough));
    let DeviceSpec::Passed(spec) = &disk else { panic!("not passed through") };
    assert_eq!(spec.label(), "host=0000:00:05.0,overwrite=on");
    assert_eq!(
        resolve(Device::E1000).unwrap_err().to_string(),
        "overwrite=on is for disks: 0000:00:05.0 is e1000"
    );
    assert_eq!(
        error("vfio"),
        "vfio needs host=0000:00:05.0, a function's address: see paraslot doctor"
    );
    assert!(error("vfio,host=5").starts_with("host=5: "));
    assert!(error("vfio,path=x").ends_with("it has host, bind, overwrite"));
    assert!(boot_error("vfio,host=00:05.0,overwrite=on").contains("for paraslot run"));
}

#[test]
fn devices_answer_to_qemus_names() {
    let same = |theirs: &str, ours: &str| {
        let request = |text: &str| text.parse::<Request>().unwrap();
        assert_eq!(request(theirs), request(ours));
    };
    for (theirs, ours) in QEMU_NAMES {
        let host = if ours == HOST { ",host=00:05.0" } else { "" };
        same(&format!("{theirs}{host}"), &format!("{ours}{host}"));
    }
}
