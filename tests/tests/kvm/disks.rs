//! The disks.

use std::sync::Arc;
use std::time::Duration;

use paraslot_protocol::{Access, Completion, Device, DiskJob, Header, Job};
use paraslot_tests::image::patterned;
use paraslot_tests::parts;
use paraslot_vmm::{Exits, Path};

use crate::kvm;

pub(crate) const CAPACITY: usize = 2 << 20;
pub(crate) const OPERATIONS: u64 = 300;

pub(crate) fn job(device: Device, access: Access, completion: Completion, depth: u16) -> DiskJob {
    DiskJob {
        device,
        access,
        completion,
        block_size: 4096,
        depth,
        span: CAPACITY as u64,
        warm_up_ms: 1,
        measure_ms: 60_000,
        operations: OPERATIONS,
        verify: true,
        seed: 7,
        tsc_hz: 0,
    }
}

/// The job on the disk that it names.
fn run(path: Path, busy_poll: Duration, job: &DiskJob) -> (Header, Exits) {
    let make = |host| parts::disk(job.device, Arc::new(patterned(CAPACITY)), host);
    let (header, exits) =
        crate::run(path, busy_poll, Job::Disk(*job), make, &mut |_| ()).expect("the guest runs");
    assert_eq!(header.operations.get(), OPERATIONS, "{job}");
    assert!(header.verified.get() > 0, "{job}");
    (header, exits)
}

/// All combinations of depth, completion, access and polling.
fn each(device: Device, path: Path, mut check: impl FnMut(&DiskJob, &Header, Exits)) {
    if !kvm() {
        return;
    }
    for depth in [1, 32] {
        for completion in [Completion::Poll, Completion::Interrupt] {
            for (access, busy_poll) in [
                (Access::RandomRead, Duration::ZERO),
                (Access::RandomWrite, Duration::from_micros(50)),
            ] {
                let job = job(device, access, completion, depth);
                let (header, exits) = run(path, busy_poll, &job);
                check(&job, &header, exits);
            }
        }
    }
}

// Doorbells that are ioeventfds, and irqfds: no exit at all, whatever the depth.
fn no_exit(job: &DiskJob, _: &Header, exits: Exits) {
    assert_eq!(exits.total() - exits.others, 0, "{job}: {exits:?}");
}

#[test]
fn virtio_blk_does_not_exit_on_the_event_path() {
    each(Device::VirtioBlk, Path::Event, no_exit);
}

#[test]
fn virtio_scsi_does_not_exit_on_the_event_path() {
    each(Device::VirtioScsi, Path::Event, no_exit);
}

#[test]
fn pvscsi_does_not_exit_on_the_event_path() {
    each(Device::Pvscsi, Path::Event, no_exit);
}

// Each doorbell is an exit, and there is nothing else.
fn doorbells_alone(job: &DiskJob, header: &Header, exits: Exits) {
    assert_eq!(exits.mmio_writes, header.doorbells.get(), "{job}: {exits:?}");
    assert!(exits.mmio_writes <= OPERATIONS, "{job}: {exits:?}");
    assert_eq!(exits.total() - exits.others, exits.mmio_writes, "{job}: {exits:?}");
}

#[test]
fn virtio_blk_exits_for_doorbells_alone_on_the_trap_path() {
    each(Device::VirtioBlk, Path::Trap, doorbells_alone);
}

#[test]
fn virtio_scsi_exits_for_doorbells_alone_on_the_trap_path() {
    each(Device::VirtioScsi, Path::Trap, doorbells_alone);
}

// One kick an operation at most; with the threshold, not one in ten at depth 32.
#[test]
fn pvscsi_exits_for_kicks_alone_on_the_trap_path() {
    each(Device::Pvscsi, Path::Trap, |job, header, exits| {
        doorbells_alone(job, header, exits);
        assert!(job.depth == 1 || exits.mmio_writes * 10 < OPERATIONS, "{job}: {exits:?}");
    });
}

// At depth 1 Linux's sequence is PxSACT, PxCI; then IS, PxIS read, PxIS, PxSACT read, IS. Its writes
// exit on either path; its reads do not where the registers are a page of the guest.
#[test]
fn ahci_exits_for_writes_alone_on_the_event_path() {
    each(Device::Ahci, Path::Event, |job, _, exits| {
        assert_eq!(exits.mmio_reads, 0, "{job}: {exits:?}");
        let writes = if job.completion == Completion::Interrupt { 4 } else { 2 };
        if job.depth == 1 {
            assert_eq!(exits.mmio_writes, writes * OPERATIONS, "{job}: {exits:?}");
        } else {
            assert!(exits.mmio_writes <= writes * OPERATIONS, "{job}: {exits:?}");
        }
    });
}

#[test]
fn ahci_exits_seven_times_an_operation_on_the_trap_path() {
    each(Device::Ahci, Path::Trap, |job, header, exits| {
        assert_eq!(exits.mmio_reads + exits.mmio_writes, header.register_accesses.get(), "{job}");
        if job.depth == 1 && job.completion == Completion::Interrupt {
            assert_eq!(exits.mmio_writes, 4 * OPERATIONS, "{job}: {exits:?}");
            assert_eq!(exits.mmio_reads, 3 * OPERATIONS, "{job}: {exits:?}");
        }
    });
}
