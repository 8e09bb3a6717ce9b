//! The guest under QEMU, with devices that the project has no model of, and in shapes that its models
//! do not have. Without QEMU and KVM there is nothing to test.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use paraslot_protocol::frame::{self, Kind};
use paraslot_protocol::{
    Access, Completion, Device, DiskJob, Header, Outcome, PATTERN_BLOCK, PATTERN_STEP, Status,
    pattern_base,
};
use tempfile::TempDir;

const QEMU: &str = "qemu-system-x86_64";
/// Bytes of the image.
const IMAGE: u64 = 16 << 20;
/// Operations of a job.
const OPERATIONS: u64 = 200;
/// Longer than any job takes, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

const NO_KVM: &str = "/dev/kvm cannot be used";

/// A place with the guest and an image in it; `None` where there can be no machine.
struct Place {
    directory: TempDir,
    firmware: Option<PathBuf>,
}

impl Place {
    fn new() -> Option<Self> {
        // A build machine that has KVM must let it be used, and have QEMU.
        let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        let skip = |why: &str, error: io::Error| {
            let missing = why == NO_KVM && error.kind() == io::ErrorKind::NotFound;
            assert!(!ci || missing, "{why}: {error}");
            eprintln!("skipped: {why}: {error}");
            None
        };
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            return skip(NO_KVM, error);
        }
        let output = match Command::new(QEMU).args(["-L", "help"]).output() {
            Ok(output) => output,
            Err(error) => return skip("qemu-system-x86_64 cannot be run", error),
        };
        let directory = TempDir::new().expect("a temporary directory");
        std::fs::write(directory.path().join("guest"), paraslot_guest::IMAGE).expect("a file");
        // It boots the guest in a tenth of a second, where QEMU brings it.
        let firmware = String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|line| Path::new(line).join("qboot.rom"))
            .find(|path| path.is_file());
        let this = Self { directory, firmware };
        this.refill();
        Some(this)
    }

    /// Puts the image back that every job expects.
    fn refill(&self) {
        fill(&self.directory.path().join("disk"));
    }

    /// Boots the guest with these devices, the last of which uses `drive=disk`, and has it do a job.
    fn run(&self, devices: &[&str], job: &DiskJob) -> Header {
        let mut qemu = Command::new(QEMU);
        qemu.current_dir(self.directory.path())
            .args(["-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"])
            .args(["-machine", "q35,accel=kvm", "-cpu", "qemu64", "-m", "64M"])
            .args(["-chardev", "stdio,id=console,signal=off"])
            .args(["-device", "isa-debugcon,iobase=0xe9,chardev=console"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-blockdev", "file,node-name=file,filename=disk"])
            .args(["-blockdev", "raw,node-name=disk,file=file"])
            .args(["-kernel", "guest", "-append", &job.to_string()]);
        if let Some(firmware) = &self.firmware {
            qemu.arg("-bios").arg(firmware);
        }
        for device in devices {
            qemu.args(["-device", device]);
        }
        let (console, mut said) = finish(qemu);
        let mut console = &console[..];
        while let Some((kind, payload, skip)) = frame::find(console) {
            match kind {
                Kind::Text => said = String::from_utf8_lossy(payload).into_owned(),
                Kind::Outcome => {
                    let (header, _) = Outcome::parse(payload).expect("an outcome");
                    let status = Status::from_raw(header.status.get());
                    assert_eq!(status, Some(Status::Ok), "{devices:?} {job}: {said}");
                    return header;
                }
            }
            console = &console[skip..];
        }
        panic!("{devices:?} {job}: no outcome: {said}");
    }
}

/// What a program writes to its output and as errors until it ends. One that does not end is killed, and
/// the test fails.
fn finish(mut command: Command) -> (Vec<u8>, String) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("qemu starts");
    let mut output = child.stdout.take().expect("it was asked for");
    let mut errors = child.stderr.take().expect("it was asked for");
    let (ended, end) = mpsc::channel();
    let errors = thread::spawn(move || {
        let mut text = String::new();
        errors.read_to_string(&mut text).map(|_| text)
    });
    let output = thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = output.read_to_end(&mut bytes).map(|_| bytes);
        // Nobody waits for it any more only if the time is up.
        let _ = ended.send(());
        result
    });
    let in_time = end.recv_timeout(LIMIT).is_ok();
    if !in_time {
        child.kill().expect("qemu can be killed");
    }
    child.wait().expect("qemu ends");
    let output = output.join().expect("no panic").expect("a pipe can be read");
    let errors = errors.join().expect("no panic").expect("a pipe can be read");
    assert!(in_time, "qemu does not end: {command:?}: {errors}");
    (output, errors)
}

/// Writes the image that every job expects.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    let mut offset = 0;
    while offset < IMAGE {
        let mut block = [0; PATTERN_BLOCK];
        let mut word = pattern_base(offset, 0);
        for place in block.as_chunks_mut().0 {
            *place = word.to_le_bytes();
            word = word.wrapping_add(PATTERN_STEP);
        }
        file.write_all(&block).expect("room for an image");
        offset += block.len() as u64;
    }
}

fn job(device: Device, access: Access, completion: Completion, depth: u16) -> DiskJob {
    DiskJob {
        device,
        access,
        completion,
        block_size: 4096,
        depth,
        span: IMAGE,
        warm_up_ms: 0,
        measure_ms: 30_000,
        operations: OPERATIONS,
        verify: true,
        seed: 1,
        tsc_hz: 0,
    }
}

fn jobs(device: Device) -> impl Iterator<Item = DiskJob> {
    // Reads first: they expect the image as it was.
    [Access::RandomRead, Access::RandomWrite].into_iter().flat_map(move |access| {
        [Completion::Poll, Completion::Interrupt]
            .into_iter()
            .flat_map(move |completion| [1, 32].map(|depth| job(device, access, completion, depth)))
    })
}

/// Checks what every job must have done.
fn check(job: &DiskJob, header: &Header) {
    assert_eq!(header.operations.get(), OPERATIONS, "{job}");
    assert!(header.verified.get() != 0, "{job}");
    let interrupts = header.interrupts.get();
    match (job.completion, job.depth) {
        (Completion::Poll, _) => assert_eq!(interrupts, 0, "{job}"),
        (Completion::Interrupt, 1) => assert_eq!(interrupts, OPERATIONS, "{job}"),
        (Completion::Interrupt, _) => assert!((1..=OPERATIONS).contains(&interrupts), "{job}"),
    }
}

#[test]
fn nvme_reads_and_writes() {
    let Some(place) = Place::new() else { return };
    for job in jobs(Device::Nvme) {
        place.refill();
        let header = place.run(&["nvme,serial=1,drive=disk"], &job);
        check(&job, &header);
        // A tail for each batch of commands and a head for each of completions, and nothing else.
        let (doorbells, most) = (header.doorbells.get(), 2 * OPERATIONS);
        assert_eq!(header.register_accesses.get(), doorbells, "{job}");
        match job.depth {
            1 => assert_eq!(doorbells, most, "{job}"),
            _ => assert!((2 * OPERATIONS / 32..most).contains(&doorbells), "{job}: {doorbells}"),
        }
    }
}

#[test]
fn nvme_with_long_transfers_and_blocks_and_one_vector() {
    let Some(place) = Place::new() else { return };
    let usual = job(Device::Nvme, Access::SequentialRead, Completion::Interrupt, 8);
    // PRP lists. QEMU moves 512 KiB at most unless it is told otherwise.
    for (block_size, options) in [(128 << 10, ""), (512 << 10, ""), (1 << 20, ",mdts=9")] {
        let job = DiskJob { block_size, ..usual };
        check(&job, &place.run(&[&format!("nvme,serial=1,drive=disk{options}")], &job));
    }
    let blocks = [
        "nvme,id=ctrl,serial=1",
        "nvme-ns,bus=ctrl,drive=disk,logical_block_size=4096,physical_block_size=4096",
    ];
    check(&usual, &place.run(&blocks, &usual));
    // Not the first namespace that could be.
    let other = ["nvme,id=ctrl,serial=1", "nvme-ns,bus=ctrl,drive=disk,nsid=7"];
    check(&usual, &place.run(&other, &usual));
    // One vector, which is the admin queue's too. An interrupt each, and none for nothing.
    let depth = DiskJob { depth: 1, ..usual };
    let header = place.run(&["nvme,serial=1,drive=disk,msix_qsize=1"], &depth);
    check(&depth, &header);
}

// VIRTIO 1.4, 6.1: with ACCESS_PLATFORM offered QEMU refuses a driver that does not accept it.
#[test]
fn virtio_disks_that_want_access_platform_accepted() {
    let Some(place) = Place::new() else { return };
    let options = "disable-legacy=on,iommu_platform=on";
    let blk = format!("virtio-blk-pci,drive=disk,{options}");
    let scsi = format!("virtio-scsi-pci,id=scsi,{options}");
    for (device, devices) in [
        (Device::VirtioBlk, vec![blk.as_str()]),
        (Device::VirtioScsi, vec![scsi.as_str(), "scsi-hd,bus=scsi.0,drive=disk"]),
    ] {
        for access in [Access::RandomRead, Access::RandomWrite] {
            let job = job(device, access, Completion::Interrupt, 1);
            check(&job, &place.run(&devices, &job));
        }
        place.refill();
    }
    // Everything else that QEMU can offer is not accepted, and does no harm.
    let packed = format!("{blk},packed=on,modern-pio-notify=on,page-per-vq=on,ats=on");
    let job = job(Device::VirtioBlk, Access::RandomRead, Completion::Interrupt, 32);
    check(&job, &place.run(&[&packed], &job));
}

// What has MSI and no MSI-X: AHCI as it is in q35's chip set, and QEMU's pvscsi.
#[test]
fn disks_that_interrupt_by_msi() {
    let Some(place) = Place::new() else { return };
    for (device, devices) in [
        (Device::Ahci, vec!["ide-hd,bus=ide.0,drive=disk"]),
        (Device::Pvscsi, vec!["pvscsi,id=scsi", "scsi-hd,bus=scsi.0,drive=disk"]),
    ] {
        for access in [Access::RandomRead, Access::RandomWrite] {
            for depth in [1, 32] {
                let job = job(device, access, Completion::Interrupt, depth);
                check(&job, &place.run(&devices, &job));
            }
        }
        place.refill();
    }
}
