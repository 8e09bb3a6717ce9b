//! What is counted on this side while a guest measures.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::net::NetStatistics;
use paraslot_protocol::Phase;

use super::Sample;
use super::built::Watch;
use crate::sys;

/// What is counted on this side, at one of the guest's marks.
struct Mark {
    cpu: Option<Duration>,
    copied: Option<u64>,
    network: NetStatistics,
}

/// What is counted between the marks of the measured part, of all devices that take part.
pub(super) struct Marks {
    watches: Vec<Arc<Watch>>,
    start: Option<Mark>,
    end: Option<Mark>,
}

impl Marks {
    pub(super) fn new(watches: Vec<Arc<Watch>>) -> Self {
        Self { watches, start: None, end: None }
    }

    fn now(&self) -> Mark {
        let mut network = NetStatistics::default();
        self.watches.iter().for_each(|watch| network += watch.network());
        let copied = self.watches.iter().map(|watch| watch.copied()).sum::<Option<u64>>();
        Mark { cpu: sys::process_cpu_time(), copied, network }
    }

    pub(super) fn note(&mut self, phase: Phase) {
        match phase {
            Phase::WarmUp => {}
            Phase::Measure => self.start = Some(self.now()),
            Phase::Done => self.end = Some(self.now()),
        }
    }

    /// Adds it to what the guest counted.
    pub(super) fn complete(self, sample: &mut Sample) {
        if let Some((start, end)) = self.start.zip(self.end) {
            sample.host_cpu = end.cpu.zip(start.cpu).map(|(end, start)| end.saturating_sub(start));
            let copied = end.copied.zip(start.copied);
            sample.copied = copied.map(|(end, start)| end.wrapping_sub(start));
            sample.network = end.network.since(start.network);
        }
    }
}
