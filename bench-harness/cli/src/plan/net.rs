//! What is done with networks.

use paraslot_protocol::{Completion, Device, NetJob, Traffic, traffic};
use paraslot_report::Path;
use serde::{Deserialize, Serialize};

use crate::args::{Peer, Times};
use crate::spec::NetSpec;

/// Frames offered a second where the load is fixed.
pub(crate) const RATE: u32 = 10_000;

const SHORT: u32 = traffic::MIN_FRAME;
const FULL: u32 = traffic::MAX_UNSEGMENTED;
const LONG: u32 = traffic::MAX_FRAME;

/// Who sends, and who receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Flow {
    /// The guest sends.
    Transmit,
    /// The guest receives.
    Receive,
    /// The guest sends, and what it sends comes back.
    Request,
    /// One guest sends, another receives.
    Wire,
}

impl Flow {
    /// Its name on command lines and in records.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "tx",
            Self::Receive => "rx",
            Self::Request => "rr",
            Self::Wire => "wire",
        }
    }

    /// What it is.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Transmit => "frames sent",
            Self::Receive => "frames received",
            Self::Request => "frames sent, and received again: round trips",
            Self::Wire => "frames from one virtual machine to another",
        }
    }

    /// What the guest does that is measured. Of two, it is the receiver.
    pub(crate) const fn traffic(self) -> Traffic {
        match self {
            Self::Transmit => Traffic::Transmit,
            Self::Receive | Self::Wire => Traffic::Receive,
            Self::Request => Traffic::Request,
        }
    }
}

/// What is done with a network adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetWorkload {
    /// Who sends.
    pub(crate) flow: Flow,
    /// Bytes of a frame.
    pub(crate) frame_size: u32,
    /// Frames handed over at once.
    pub(crate) batch: u16,
    /// Frames offered a second; `None` for as many as go.
    pub(crate) rate: Option<u32>,
}

/// Several workloads that have all but frame sizes, batches and completions in common.
pub(crate) struct Family {
    pub(crate) flow: Flow,
    pub(crate) frame_sizes: &'static [u32],
    pub(crate) batches: &'static [u16],
    pub(crate) completions: &'static [Completion],
    pub(crate) rate: Option<u32>,
}

/// All of them, in their order.
pub(crate) const FAMILIES: [Family; 5] = [
    Family {
        flow: Flow::Transmit,
        frame_sizes: &[SHORT, FULL, LONG],
        batches: &[1, 32],
        // Drivers reclaim before they send, and take no interrupts for it.
        completions: &[Completion::Poll],
        rate: None,
    },
    Family {
        flow: Flow::Receive,
        frame_sizes: &[SHORT, FULL, LONG],
        batches: &[32],
        completions: &[Completion::Poll, Completion::Interrupt],
        rate: None,
    },
    Family {
        flow: Flow::Request,
        frame_sizes: &[SHORT],
        batches: &[1],
        completions: &[Completion::Poll, Completion::Interrupt],
        rate: None,
    },
    Family {
        flow: Flow::Request,
        frame_sizes: &[SHORT],
        batches: &[32],
        completions: &[Completion::Interrupt],
        rate: Some(RATE),
    },
    Family {
        flow: Flow::Wire,
        frame_sizes: &[FULL, LONG],
        batches: &[32],
        completions: &[Completion::Interrupt],
        rate: None,
    },
];

/// All workloads, with how the driver learns of completions, in their order.
pub(super) fn steps() -> impl Iterator<Item = (NetWorkload, Completion)> {
    FAMILIES.iter().flat_map(|family| {
        let Family { flow, frame_sizes, batches, completions, rate } = *family;
        frame_sizes.iter().flat_map(move |&frame_size| {
            batches.iter().flat_map(move |&batch| {
                completions.iter().map(move |&completion| {
                    (NetWorkload { flow, frame_size, batch, rate }, completion)
                })
            })
        })
    })
}

impl NetWorkload {
    /// Whether it is to be measured on that path. Two machines are compared where each does its best.
    pub(super) fn uses(self, path: Path) -> bool {
        self.flow != Flow::Wire || path != Path::Trap
    }

    /// What it is called in a cell's name.
    pub(super) fn name(self, completion: Completion) -> String {
        let Self { flow, frame_size, batch, rate } = self;
        let rate = match rate {
            None => String::new(),
            Some(rate) if rate.is_multiple_of(1000) => format!("/{}k", rate / 1000),
            Some(rate) => format!("/{rate}"),
        };
        format!("{}/{frame_size}/b{batch}/{completion}{rate}", flow.name())
    }

    /// Why an adapter cannot have it; `None` if it can.
    pub(super) fn left_out(
        self,
        spec: &NetSpec,
        path: Path,
        peer: Option<Peer>,
    ) -> Option<&'static str> {
        let segmented = traffic::is_segmented(self.frame_size);
        let receives = matches!(self.flow, Flow::Receive | Flow::Wire);
        if spec.tap().is_some() && self.flow != Flow::Transmit {
            return Some("tx alone (behind backend=tap nobody sends or answers)");
        }
        if self.flow == Flow::Wire && path == Path::InProcess {
            return Some("no wire (it takes two virtual machines)");
        }
        if segmented && receives && spec.device == Device::E1000 {
            return Some("no frames of 64 KiB received (its hardware joins none)");
        }
        if segmented && !spec.offloads {
            return Some("no frames of 64 KiB (offloads=off)");
        }
        match peer {
            None => None,
            Some(Peer::Qemu) if spec.tap().is_some() => Some("not with qemu (backend=tap)"),
            Some(Peer::Qemu) if self.flow != Flow::Transmit => {
                Some("with qemu, tx alone (nobody there sends or answers)")
            }
            Some(Peer::Qemu) if segmented => {
                Some("with qemu, no frames of 64 KiB (its sink takes none)")
            }
            Some(Peer::Qemu) => None,
        }
    }

    /// Why an adapter that is passed through cannot have it; `None` if it can.
    pub(super) fn left_out_passed(self) -> Option<&'static str> {
        if self.flow != Flow::Transmit {
            return Some("tx alone (on a network of the host's nobody is to send or answer)");
        }
        traffic::is_segmented(self.frame_size)
            .then_some("no frames of 64 KiB (not every adapter of a host segments them)")
    }

    /// What the guest is to do; the one that is measured, if there are two.
    pub(super) fn job(
        self,
        device: Device,
        verify: bool,
        completion: Completion,
        times: &Times,
    ) -> NetJob {
        NetJob {
            device,
            traffic: self.flow.traffic(),
            completion,
            frame_size: self.frame_size,
            batch: self.batch,
            rate: self.rate.unwrap_or(0),
            warm_up_ms: times.warm_up_ms,
            measure_ms: times.measure_ms,
            operations: 0,
            verify,
            tsc_hz: 0,
        }
    }
}
