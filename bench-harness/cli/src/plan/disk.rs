//! What is done with disks.

use paraslot_protocol::{Access, Completion, Device, DiskJob};

use crate::args::{Peer, Times};
use crate::spec::{Backend, DiskSpec, PassedSpec};

/// The patterns, with the bytes of an operation.
pub(crate) const PATTERNS: [(Access, u32); 3] = [
    (Access::RandomRead, 4 << 10),
    (Access::RandomWrite, 4 << 10),
    (Access::SequentialRead, 128 << 10),
];

/// Operations kept in flight.
pub(crate) const DEPTHS: [u16; 2] = [1, 32];

const COMPLETIONS: [Completion; 2] = [Completion::Poll, Completion::Interrupt];

/// What is done with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskWorkload {
    /// The pattern.
    pub(crate) access: Access,
    /// Bytes of an operation.
    pub(crate) block_size: u32,
    /// Operations in flight.
    pub(crate) depth: u16,
}

/// All of them, with how the driver learns of completions, in their order.
pub(super) fn steps() -> impl Iterator<Item = (DiskWorkload, Completion)> {
    PATTERNS.into_iter().flat_map(|(access, block_size)| {
        DEPTHS.into_iter().flat_map(move |depth| {
            COMPLETIONS.map(|completion| (DiskWorkload { access, block_size, depth }, completion))
        })
    })
}

impl DiskWorkload {
    /// Whether it writes.
    pub(crate) fn writes(self) -> bool {
        self.access == Access::RandomWrite
    }

    /// What it is called in a cell's name.
    pub(super) fn name(self, completion: Completion) -> String {
        let Self { access, block_size, depth } = self;
        format!("{access}/{}k/qd{depth}/{completion}", block_size >> 10)
    }

    /// Why a disk cannot have it; `None` if it can.
    pub(super) fn left_out(self, spec: &DiskSpec, peer: Option<Peer>) -> Option<&'static str> {
        match peer {
            _ if self.writes() && !spec.writable() => Some(if spec.read_only {
                "no write workloads (readonly=on)"
            } else {
                "no write workloads (an image of your own without write=on)"
            }),
            None => None,
            Some(Peer::Qemu) if spec.backend == Backend::Memory => {
                Some("not with qemu (it has no backend=memory)")
            }
            Some(Peer::Qemu) if spec.device == Device::Ahci && !spec.writable() => {
                Some("not with qemu (its disks there cannot be read-only)")
            }
            Some(Peer::Qemu) => None,
        }
    }

    /// Why a disk that is passed through cannot have it; `None` if it can.
    pub(super) fn left_out_passed(self, spec: &PassedSpec) -> Option<&'static str> {
        (self.writes() && !spec.overwrite)
            .then_some("no write workloads (a disk of the host's without overwrite=on)")
    }

    /// Whether what is read of a disk of ours can be compared: a user's image holds what it holds, but
    /// what was written to it is known all the same.
    pub(super) fn is_verified(self, spec: &DiskSpec) -> bool {
        match spec.backend {
            _ if !spec.verify => false,
            Backend::Null => false,
            Backend::File | Backend::Memory => spec.path.is_none() || self.writes(),
        }
    }

    /// What the guest is to do with `span` bytes of the disk in run number `round`. Every disk gets
    /// the same offsets in the same round.
    pub(super) fn job(
        self,
        device: Device,
        verify: bool,
        completion: Completion,
        times: &Times,
        span: u64,
        round: u32,
    ) -> DiskJob {
        let block = u64::from(self.block_size);
        DiskJob {
            device,
            access: self.access,
            completion,
            block_size: self.block_size,
            depth: self.depth,
            span: span / block * block,
            warm_up_ms: times.warm_up_ms,
            measure_ms: times.measure_ms,
            operations: 0,
            verify,
            seed: u64::from(round) + 1,
            tsc_hz: 0,
        }
    }
}
