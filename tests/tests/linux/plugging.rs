//! Functions that are plugged out and in while Linux runs.

use std::fs::{self, File};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use paraslot_backends::block::{BlockBackend, FileBackend, FileOptions};
use paraslot_backends::net::testing::namespace::in_namespace;
use paraslot_device::{ThreadExecutor, ThreadOptions};
use paraslot_pci::Bdf;
use paraslot_vmm::{LinuxEnd, LinuxHandle};

use crate::complaints::Allowed;
use crate::disks;
use crate::guest::{Boot, GuestHost, Machine, Shape};
use crate::networks::{self, NET, adapter};
use crate::world::{self, World};

const PLUGGING: &str = include_str!("scripts/plugging.sh");

/// Where the adapter is.
const NET_SLOT: u8 = 7;
/// Threads of what is plugged in, by which they are counted.
const THREADS: &str = "pluggable";

/// Messages that the script provokes.
const PROVOKED: &[Allowed] = &[
    Allowed { text: "Power-on or device reset occurred", reason: "a unit says so, as it must" },
    Allowed { text: "I/O error, dev ", reason: "the disk goes under load" },
    Allowed { text: "device offline error, dev ", reason: "the disk goes under load" },
    Allowed { text: "Synchronizing SCSI cache", reason: "what sd says of a disk that goes" },
    Allowed { text: "Synchronize Cache(10) failed", reason: "the disk has been pulled" },
    Allowed { text: ".00: disable device", reason: "what libata says of a disk that has gone" },
];

/// A disk that comes and goes.
struct Disk {
    kind: disks::Kind,
    slot: u8,
    bytes: u64,
}

const DISKS: [Disk; 3] = [
    Disk { kind: disks::Kind::VirtioBlk, slot: 4, bytes: 32 << 20 },
    Disk { kind: disks::Kind::Pvscsi, slot: 5, bytes: 33 << 20 },
    Disk { kind: disks::Kind::Ahci, slot: 6, bytes: 34 << 20 },
];

/// Threads for one function, which end with it.
fn host(handle: &LinuxHandle, bdf: Bdf) -> GuestHost {
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..ThreadOptions::default() };
    handle.host(bdf, Arc::new(ThreadExecutor::new(THREADS, &options).expect("a thread")))
}

/// What this process has open, and the threads of what is plugged in.
fn held() -> (usize, usize) {
    let open = fs::read_dir("/proc/self/fd").expect("descriptors").count();
    let tasks = fs::read_dir("/proc/self/task").expect("threads");
    let name = |task: std::io::Result<fs::DirEntry>| {
        fs::read_to_string(task.ok()?.path().join("comm")).ok()
    };
    let threads = tasks.filter_map(name).filter(|name| name.starts_with(THREADS)).count();
    (open, threads)
}

#[test]
fn functions_come_and_go() {
    world::run(functions_come_and_go, |world| in_namespace(|_| come_and_go(world)));
}

fn come_and_go(world: &World) {
    let directory = tempfile::tempdir().expect("a directory");
    let image = |slot: u8| directory.path().join(format!("{slot}"));
    // The image is locked: nobody else has it when this succeeds.
    let open = |slot| -> Arc<dyn BlockBackend> {
        Arc::new(FileBackend::open(&FileOptions::new(image(slot))).expect("an image"))
    };
    let mut machine = Machine::new(world, &Shape { cpus: 2, ..Shape::default() });
    adapter::plug_tools(&mut machine);
    for Disk { kind, slot, bytes } in &DISKS {
        File::create(image(*slot)).and_then(|file| file.set_len(*bytes)).expect("an image");
        machine.plug_apart(*slot, |handle, bdf| kind.one(open(*slot), host(handle, bdf)));
    }
    let mut network = networks::Adapter::new(networks::Kind::Vmxnet3, NET_SLOT, 1, 1);
    machine.plug_apart(NET_SLOT, |handle, bdf| network.another(host(handle, bdf)));

    let disks: Vec<_> = DISKS
        .iter()
        .map(|Disk { slot, bytes, .. }| format!("{slot:02x}:{}", bytes / 512))
        .collect();
    let variables = format!(
        "{}disks='{}' pulled='04 05 {NET_SLOT:02x}' told='05 {NET_SLOT:02x}'\n",
        network.variables("msix"),
        disks.join(" ")
    );
    let mut on_mark = |word: &str, handle: &LinuxHandle| {
        let slot = |text: &str| u8::from_str_radix(text, 16).expect("a slot");
        match word.split(' ').collect::<Vec<_>>()[..] {
            ["count"] => {
                let (open, threads) = held();
                return format!("{open} {threads}");
            }
            ["stop"] => handle.stop(),
            ["out", at] => {
                let function = handle.unplug(Bdf::root(slot(at))).expect("KVM lets go");
                let function = function.expect("it was there");
                assert_eq!(Arc::strong_count(&function), 1, "somebody else has it");
                // It stands still, so its state can be had.
                let mut device = function.lock().unwrap_or_else(PoisonError::into_inner);
                device.save().expect("it is paused");
            }
            ["in", at] => {
                let bdf = Bdf::root(slot(at));
                let host = host(handle, bdf);
                let disk = DISKS.iter().find(|disk| disk.slot == bdf.device);
                let function = match disk {
                    Some(disk) => disk.kind.one(open(disk.slot), host),
                    None => network.another(host),
                };
                handle.plug(bdf, function).expect("a free slot");
            }
            _ => return network.answer(word),
        }
        "done".into()
    };
    let report = machine.boot(Boot {
        scripts: &[&variables, NET, PLUGGING],
        append: "",
        bzimage: false,
        end: LinuxEnd::Stopped,
        allowed: PROVOKED,
        on_mark: &mut on_mark,
    });
    // Without them there are no threads of theirs, and no more is open than at first.
    let without = |round| report.fact::<String>(&format!("without_{round}"));
    let first = without(1);
    assert!(first.ends_with(" 0"), "descriptors and threads: {first}");
    assert_eq!(without(2), first);
}
