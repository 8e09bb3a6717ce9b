//! The disks.

mod disc;
mod rig;
mod tally;

use paraslot_vmm::{LinuxEnd, LinuxHandle, Path};

use crate::complaints::Allowed;
use crate::guest::{Boot, Machine, Shape};
use crate::world::{self, World};
pub(crate) use rig::Kind;
use rig::Rig;

const DISK: &str = include_str!("scripts/disk.sh");
const BIND: &str = include_str!("scripts/bind.sh");
const DATA: &str = include_str!("scripts/data.sh");
const LOAD: &str = include_str!("scripts/load.sh");
const SCSI: &str = include_str!("scripts/scsi.sh");
const STRESS: &str = include_str!("scripts/stress.sh");
const PLUG: &str = include_str!("scripts/plug.sh");
const CDROM: &str = include_str!("scripts/cdrom.sh");
const INTX: &str = include_str!("scripts/intx.sh");
const ROOT: &str = include_str!("scripts/root.sh");

#[test]
fn virtio_blk() {
    world::run(virtio_blk, |world| three_boots(world, Kind::VirtioBlk));
}

#[test]
fn virtio_scsi() {
    world::run(virtio_scsi, |world| three_boots(world, Kind::VirtioScsi));
}

#[test]
fn pvscsi() {
    world::run(pvscsi, |world| three_boots(world, Kind::Pvscsi));
}

#[test]
fn ahci() {
    world::run(ahci, |world| three_boots(world, Kind::Ahci));
}

/// The answers that a script asks for.
fn answer(rig: &Rig, kept: &mut u64, word: &str) -> String {
    let scratch = rig.scratch.backend.tally();
    match word {
        "flushes" => return scratch.flushes().to_string(),
        "full" => *kept = rig.scratch.allocated(),
        "discarded" => {
            let left = rig.scratch.allocated();
            println!("discard: {} operations, {kept} bytes, then {left}", scratch.discards());
            assert!(scratch.discards() > 0 && left < *kept / 8, "{left} of {kept} bytes are left");
        }
        "zeroed" => println!("zeroes: {} operations", scratch.zeroes()),
        "filled" => *kept = rig.main.allocated(),
        "trimmed" => {
            let left = rig.main.allocated();
            println!("trim: {kept} bytes, then {left}");
            assert!(left + (1 << 20) < *kept, "{left} of {kept} bytes are left");
        }
        "attach" => rig.attach(),
        "detach" => rig.detach(),
        "grow" => rig.grow(),
        "take" => rig.change_disc(false),
        "insert" => rig.change_disc(true),
        _ => panic!("the script asks for {word}"),
    }
    "done".into()
}

/// A machine with disks of one kind: what is written with the first boot is there with the second, and
/// with the third, which has no message signalled interrupts.
fn three_boots(world: &World, kind: Kind) {
    let cpus = if matches!(kind, Kind::VirtioBlk | Kind::VirtioScsi) { 2 } else { 1 };
    let mut machine = Machine::new(world, &Shape { cpus, ..Shape::default() });
    let rig = Rig::new(kind, &mut machine);
    let tools = world.tools().info().capacity;
    let mut kept = 0;
    let mut on_mark = |word: &str, _: &LinuxHandle| answer(&rig, &mut kept, word);

    let variables = rig.variables(tools, false, false);
    let mut scripts = vec![variables.as_str(), DISK, BIND, DATA, LOAD];
    if kind.is_scsi() {
        scripts.push(SCSI);
    }
    let first = Boot {
        scripts: &scripts,
        append: "",
        bzimage: false,
        end: LinuxEnd::Reset,
        allowed: PROVOKED,
        on_mark: &mut on_mark,
    };
    let report = machine.boot(first);
    println!("{kind:?}: {:?}", report.exits);
    assert_eq!(report.fact::<u32>("vectors_04"), kind.vectors_for(cpus), "{kind:?}");

    machine.reset();
    let mut scripts = vec![variables.as_str(), DISK, STRESS];
    if kind != Kind::VirtioBlk {
        scripts.push(CDROM);
    }
    scripts.push(PLUG);
    let second = Boot {
        scripts: &scripts,
        append: "",
        bzimage: false,
        end: LinuxEnd::Reset,
        allowed: PROVOKED,
        on_mark: &mut on_mark,
    };
    machine.boot(second);

    machine.reset();
    let variables = rig.variables(tools, true, true);
    let third = Boot {
        scripts: &[&variables, DISK, BIND, INTX],
        append: "pci=nomsi",
        bzimage: false,
        end: LinuxEnd::PowerOff,
        allowed: PROVOKED,
        on_mark: &mut on_mark,
    };
    machine.boot(third);
}

/// Messages that the scripts provoke.
const PROVOKED: &[Allowed] = &[
    Allowed { text: "Power-on or device reset occurred", reason: "a unit says so, as it must" },
    Allowed { text: "Capacity data has changed", reason: "the script asks for a larger disk" },
    Allowed { text: ": device reset", reason: "the script resets a unit" },
    Allowed { text: ": SCSI device reset on scsi", reason: "the script resets a unit" },
    Allowed { text: ": SCSI Host reset", reason: "the script resets the adapter" },
    Allowed {
        text: "device offline error, dev ",
        reason: "the disk's driver is unbound under load",
    },
    Allowed { text: ".00: disable device", reason: "what libata says of a disk that has gone" },
    Allowed { text: ": limiting SATA link speed to", reason: "what libata tries before that" },
    Allowed {
        text: "Start/Stop Unit failed: Result: hostbyte=DID_BAD_TARGET",
        reason: "a disk that has gone cannot be told to stop",
    },
    Allowed { text: "n_sectors mismatch", reason: "a SATA disk of another size is another disk" },
    Allowed { text: "revalidation failed (errno=-19)", reason: "it is, indeed" },
];

/// The kernel as it is distributed starts from a disk of each kind, on devices that KVM cannot help.
#[test]
fn root_disks() {
    world::run(root_disks, |world| {
        for kind in Kind::ALL {
            let shape = Shape { path: Path::Trap, ..Shape::default() };
            let mut machine = Machine::new(world, &shape);
            let tools = world.tools();
            machine.plug(4, |host| kind.one(tools, host));
            let boot = Boot {
                scripts: &[ROOT],
                append: "root=LABEL=paraslot ro",
                bzimage: kind == Kind::VirtioBlk,
                end: LinuxEnd::PowerOff,
                allowed: PROVOKED,
                on_mark: &mut |word, _| panic!("the script asks for {word}"),
            };
            machine.boot(boot);
        }
    });
}
