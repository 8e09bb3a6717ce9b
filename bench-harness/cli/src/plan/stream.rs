//! What Linux does with networks: TCP, with the host's at the other end.

use std::fmt;

use paraslot_protocol::{Completion, Device, NetJob, Traffic, traffic};

use crate::args::Times;
use crate::spec::NetSpec;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// The guest sends.
    Transmit,
    /// The guest receives.
    Receive,
    /// The guest sends, and waits until the same has come back.
    Request,
}

impl Stream {
    /// Its name on command lines and in records.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "tcp-tx",
            Self::Receive => "tcp-rx",
            Self::Request => "tcp-rr",
        }
    }

    /// What it is.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Transmit => "bytes sent to the host",
            Self::Receive => "bytes received from it",
            Self::Request => "bytes sent, and received again: round trips",
        }
    }

    const fn traffic(self) -> Traffic {
        match self {
            Self::Transmit => Traffic::Transmit,
            Self::Receive => Traffic::Receive,
            Self::Request => Traffic::Request,
        }
    }
}

/// What is done over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamWorkload {
    /// Which way.
    pub(crate) stream: Stream,
    /// Bytes of an operation: what one call sends or receives.
    pub(crate) size: u32,
}

/// All of them, in their order.
pub(crate) const STREAMS: [StreamWorkload; 3] = [
    StreamWorkload { stream: Stream::Transmit, size: 128 << 10 },
    StreamWorkload { stream: Stream::Receive, size: 128 << 10 },
    StreamWorkload { stream: Stream::Request, size: 64 },
];

/// All of them, with how the driver learns of completions: as Linux's does.
pub(super) fn steps() -> impl Iterator<Item = (StreamWorkload, Completion)> {
    STREAMS.into_iter().map(|workload| (workload, Completion::Interrupt))
}

impl StreamWorkload {
    /// What it is called in a cell's name.
    pub(super) fn name(self, completion: Completion) -> String {
        format!("{self}/{completion}")
    }

    /// Why an adapter cannot have it; `None` if it can.
    pub(super) fn left_out(self, spec: &NetSpec) -> Option<&'static str> {
        spec.tap().map(|_| "not in Linux with backend=tap (it makes an interface of its own)")
    }

    /// Why no adapter that is passed through can have it.
    pub(super) const LEFT_OUT_PASSED: &str =
        "not in Linux (on a network of the host's nobody is to answer)";

    /// How long, on which device, and whether data is verified; the frames are TCP's to make.
    pub(super) fn job(
        self,
        device: Device,
        verify: bool,
        completion: Completion,
        times: &Times,
    ) -> NetJob {
        NetJob {
            device,
            traffic: self.stream.traffic(),
            completion,
            frame_size: traffic::MAX_UNSEGMENTED,
            batch: 1,
            rate: 0,
            warm_up_ms: times.warm_up_ms,
            measure_ms: times.measure_ms,
            operations: 0,
            verify,
            tsc_hz: 0,
        }
    }
}

impl fmt::Display for StreamWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stream.name(), self.size)
    }
}
