//! The entries.

pub(crate) mod ahci;
pub(crate) mod e1000;
pub(crate) mod pvscsi;
mod scsi;
mod virtio;
pub(crate) mod virtio_blk;
pub(crate) mod virtio_net;
pub(crate) mod virtio_scsi;
pub(crate) mod vmxnet3;

use crate::entry::{
    Access, Attack, Door, Driver, Evidence, Feature, InBox, Instead, Limit, Register, Report, State,
};

const fn driver(
    system: &'static str,
    driver: &'static str,
    since: &'static str,
    in_box: InBox,
    note: &'static str,
) -> Driver {
    Driver { system, driver, since, in_box, note }
}

const fn register(
    name: &'static str,
    offset: u64,
    width: u8,
    access: Access,
    effect: &'static str,
) -> Register {
    Register { name, offset, width, access, effect }
}

const fn feature(
    name: &'static str,
    state: State,
    note: &'static str,
    evidence: Evidence,
) -> Feature {
    Feature { name, state, note, evidence }
}

/// A limit of which the device tells nothing.
const fn limit(name: &'static str, value: &'static str, note: &'static str) -> Limit {
    Limit { name, value, note, evidence: None }
}

/// One that it tells.
const fn told(
    name: &'static str,
    value: &'static str,
    note: &'static str,
    evidence: Report,
) -> Limit {
    Limit { name, value, note, evidence: Some(evidence) }
}

const fn attack(id: &'static str, what: &'static str) -> Attack {
    Attack { id, what }
}

const fn door(name: &'static str, text: &'static str) -> Door {
    Door { name, text }
}

const fn instead(choose: &'static str, when: &'static str) -> Instead {
    Instead { when, choose }
}

/// What holds of all functions.
const HOTPLUG: &str = "A function may be dropped at any time, in use or not, and a fresh one plugged (`paraslot \
     control` does both to a guest of `paraslot boot`). There is no hot-plug controller: a Linux guest is told by \
     hand, with `remove` before and `rescan` after.";
const SNAPSHOT: &str = "Saved while paused, with what is in flight drained or carried: no request is lost or done \
     twice, no interrupt or doorbell missed. The format has a version, and each release's is kept as a test.";
const MIGRATION: &str = "What it writes to memory is in vm-memory's dirty bitmap by the time the write is over; over \
     vfio-user also by the protocol's migration and DMA logging.";
const VIOMMU: &str = "Memory is reached through the host's `DmaSpace` alone, which may translate. Nobody has tried it \
     behind a VMM's virtual IOMMU.";
const DISK_LIMITS: &str = "Bytes and operations a second (`bps=`, `iops=`), by token bucket, changed while the guest runs.";
const NET_LIMITS: &str = "Bytes and frames a second in either direction (`bps=`, `fps=`), by token bucket, changed while the guest runs.";
