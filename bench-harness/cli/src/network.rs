//! What is behind network adapters: something that takes frames, sends them or sends them back, a
//! wire, or a TAP interface.

use std::sync::Arc;

use paraslot_backends::net::{
    Generator, GeneratorOptions, NetBackend, Sink, TapBackend, TapOptions, Wire, WireOptions,
};
use paraslot_protocol::traffic;

use crate::plan::{Flow, NetWorkload};
use crate::spec::NetSpec;
use crate::storage::UNVERIFIED;
use crate::traffic::{Checker, Maker, Verdict, offload};

/// The address of an adapter that has been given none: locally administered, of one station.
const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

/// An adapter's address.
pub(crate) fn address(spec: &NetSpec) -> [u8; 6] {
    spec.mac.unwrap_or(ADDRESS)
}

/// What tells, after a run, whether all that was sent has arrived.
#[derive(Clone)]
pub(crate) enum Arrivals {
    /// Nothing.
    Unknown,
    /// Frames counted.
    Counted(Sink),
    /// Frames looked at.
    Checked(Verdict),
}

impl Arrivals {
    /// How many frames the guest has sent for certain; `None` if that cannot be known.
    ///
    /// # Errors
    /// When one was not as it should be.
    pub(crate) fn frames(&self) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Unknown => Ok(None),
            Self::Counted(sink) => Ok(Some(sink.frames())),
            Self::Checked(verdict) => verdict.frames().map(Some),
        }
    }
}

/// An adapter's backend, for one run.
pub(crate) struct Opened {
    /// The port.
    pub(crate) backend: Arc<dyn NetBackend>,
    /// What it is, as options of the command line where they can say it.
    pub(crate) label: String,
    /// What becomes of the guest's frames.
    pub(crate) arrivals: Arrivals,
}

/// Opens what is behind an adapter, for one run.
pub(crate) fn open(spec: &NetSpec, workload: NetWorkload) -> anyhow::Result<Opened> {
    let queues = spec.queues.unwrap_or(1);
    let NetWorkload { flow, frame_size, .. } = workload;
    // Guests send to themselves, so that what comes back passes their filters.
    let frames = traffic::Flow { source: address(spec), destination: address(spec) };
    let (backend, name, arrivals): (Arc<dyn NetBackend>, _, _) = match (spec.tap(), flow) {
        (Some(name), _) => {
            let options = TapOptions { queues, ..TapOptions::new(name) };
            let label = format!("tap,ifname={name}");
            (Arc::new(TapBackend::open(&options)?), label, Arrivals::Unknown)
        }
        (None, Flow::Transmit) if spec.verify => {
            let (mut checker, verdict) = Checker::new(frames, frame_size);
            let sink = Sink::with_inspector(queues, move |_, frame| checker.inspect(frame))?;
            (Arc::new(sink), SINK.into(), Arrivals::Checked(verdict))
        }
        (None, Flow::Transmit) => {
            let sink = Sink::new(queues)?;
            (Arc::new(sink.clone()), SINK.into(), Arrivals::Counted(sink))
        }
        (None, Flow::Receive) => {
            let mut maker = Maker::new(frames, frame_size, spec.verify);
            let options =
                GeneratorOptions { queues, offload: offload(frame_size), ..Default::default() };
            let generator = Generator::new(options, move |_, room| maker.next(room))?;
            (Arc::new(generator), "generator".into(), Arrivals::Unknown)
        }
        (None, Flow::Request) => {
            let port = Wire::loopback(wire_options(queues))?;
            (Arc::new(port), "loopback".into(), Arrivals::Unknown)
        }
        (None, Flow::Wire) => anyhow::bail!("a wire has two ends"),
    };
    Ok(Opened { backend, label: label(&name, spec), arrivals })
}

/// A wire and its two ends, for one run.
pub(crate) fn wire(spec: &NetSpec) -> anyhow::Result<[Opened; 2]> {
    let (one, other) = Wire::new(wire_options(spec.queues.unwrap_or(1)))?;
    Ok([one, other].map(|port| Opened {
        backend: Arc::new(port),
        label: label("wire", spec),
        arrivals: Arrivals::Unknown,
    }))
}

fn wire_options(queues: u16) -> WireOptions {
    WireOptions { queues, ..WireOptions::default() }
}

const SINK: &str = "sink";

/// What QEMU's socket is that nobody connects to: a sink, too.
pub(crate) fn sink_label(spec: &NetSpec) -> String {
    label(SINK, spec)
}

fn label(name: &str, spec: &NetSpec) -> String {
    format!("backend={name}{}", if spec.verify { "" } else { UNVERIFIED })
}
