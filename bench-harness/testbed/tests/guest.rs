//! An inner guest in the machine: QEMU with the machine's KVM boots Debian's kernel, and a test's script
//! runs in the initial RAM file system and on the root disk.

mod common;

use std::fs;
use std::time::Duration;

use common::testbed;
use paraslot_testbed::{Job, Outcome, Testbed};

/// Starts the machine's own QEMU with `$1` at the end of the kernel's line, the root disk on the controller
/// that the rest says, and nobody at the keyboard but who answers what the script asks.
const GUEST: &str = r#"
line=$1
shift
tree=PARTS/qemu
libraries=$tree/usr/lib/x86_64-linux-gnu
mkfifo /run/keyboard
exec 3<>/run/keyboard
export QEMU_MODULE_DIR=$libraries/qemu
"$tree/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libraries" "$tree/usr/bin/qemu-system-x86_64" \
    -L "$tree/usr/share/qemu" -L "$tree/usr/share/seabios" -nodefaults -no-user-config -display none -no-reboot \
    -accel kvm -cpu host -m 512 -machine q35 -serial stdio -kernel PARTS/vmlinux -initrd initrd \
    -append "console=ttyS0 quiet panic=-1 $line" "$@" <&3 | while IFS= read -r text; do
    printf '%s\n' "$text"
    case $text in
    *"mark ask"*) printf 'not this\nanswer\n' >&3 ;;
    esac
done
"#;

/// What the console says of a guest that runs `script`.
fn console(testbed: &Testbed, script: &str, line: &str, devices: &[&str]) -> String {
    let share = tempfile::tempdir().expect("a directory");
    fs::write(share.path().join("initrd"), testbed.guest_initrd(script).expect("an archive"))
        .expect("written");
    let parts = testbed.vmlinux().parent().expect("a folder").to_str().expect("text");
    let script = GUEST.replace("PARTS", parts);
    let job = ["sh", "-c", &script, "-", line].into_iter().chain(devices.iter().copied());
    let mut job = Job::new(job, share.path());
    job.timeout = Duration::from_secs(180);
    let Outcome { status, output, .. } =
        testbed.run(&job).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status, 0, "{output}");
    output
}

fn has_line(console: &str, line: &str) -> bool {
    console.lines().any(|text| text.trim_end() == line)
}

#[test]
fn a_script_in_the_initial_file_system_marks_awaits_and_fails() {
    let Some(testbed) = testbed() else { return };
    let script = "load virtio_blk e1000
        wait_device /dev/vda
        mark \"drivers $(driver 0000:00:02.0) $(driver 0000:00:03.0) $(driver 0000:00:1f.0)\"
        mark \"interface $(interface 0000:00:03.0)\"
        ip link set \"$(interface 0000:00:03.0)\" up
        coldplug
        dmesg_clean || mark dirty
        echo '<2>virtio_blk: device reset timed out' >/dev/kmsg
        dmesg_clean 'some other' || mark dirty now
        dmesg_clean 'device reset' && mark expected
        mark ask
        await answer
        mark answered
        false
        mark never";
    let devices = [
        "-drive",
        "if=none,id=d,format=raw,file=null-co://",
        "-device",
        "virtio-blk-pci,drive=d,addr=2",
        "-device",
        "e1000,addr=3,romfile=",
    ];
    let console = console(&testbed, script, "", &devices);
    for line in [
        "paraslot: mark drivers virtio-pci e1000 none",
        "paraslot: mark interface eth0",
        "paraslot: mark dirty now",
        "paraslot: mark expected",
        "paraslot: mark answered",
        "paraslot: exit 1",
    ] {
        assert!(has_line(&console, line), "no {line}: {console}");
    }
    assert!(
        !console.contains("mark never") && !has_line(&console, "paraslot: mark dirty"),
        "{console}"
    );
}

#[test]
fn the_same_script_runs_on_the_root_disk() {
    let Some(testbed) = testbed() else { return };
    let disk = testbed.guest_disk().unwrap_or_else(|error| panic!("{error}"));
    let before = fs::read(&disk).expect("a disk");
    let script = "fio --name=a --filename=/root/a --size=256k --bs=4k --rw=randwrite --verify=crc32c --minimal >/dev/null
        mke2fs -q -t ext4 -F /tmp/image 4M
        for program in ethtool iperf3 sg_inq nvme; do $program --version >/dev/null 2>&1 || fail \"$program\"; done
        ip -details link show lo >/dev/null
        lspci -n >/dev/null
        grep -q ' / overlay ' /proc/mounts || fail \"the root is no overlay\"
        dmesg_clean
        mark \"root on $(cat /run/paraslot/rooted)\"
        exit 9";
    let drive = format!("if=none,id=d,format=raw,readonly=on,file={}", disk.display());
    let devices =
        ["-drive", &drive, "-device", "virtio-scsi-pci,id=s", "-device", "scsi-hd,drive=d,bus=s.0"];
    let console = console(&testbed, script, "root=LABEL=paraslot", &devices);
    assert!(has_line(&console, "paraslot: mark root on /dev/sda"), "{console}");
    assert!(has_line(&console, "paraslot: exit 9"), "{console}");
    assert!(fs::read(&disk).expect("a disk") == before, "a shared disk was written to");
}
