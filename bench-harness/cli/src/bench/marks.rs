//! What is counted on this side while a guest measures.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::net::NetStatistics;
use paraslot_protocol::Phase;

use super::Sample;
use super::built::Watch;
use crate::order::Seen;
use crate::sys;

/// What is counted on this side, at one of the guest's marks.
struct Mark {
    cpu: Option<Duration>,
    copied: Option<u64>,
    network: NetStatistics,
}

impl Mark {
    /// CPU time of this process, and what is seen of the devices. One that was not measured leaves the whole
    /// unmeasured.
    fn new(own: Option<Duration>, seen: &[Seen]) -> Self {
        let mut network = NetStatistics::default();
        seen.iter().for_each(|seen| network += seen.network);
        Self {
            cpu: seen.iter().map(|seen| seen.elsewhere).chain([own]).sum(),
            copied: seen.iter().map(|seen| seen.copied).sum(),
            network,
        }
    }
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
        let own = sys::process_cpu_time();
        let seen: Vec<_> = self.watches.iter().map(|watch| watch.look()).collect();
        Mark::new(own, &seen)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_time_is_added_to_this_process_s_own() {
        let ms = Duration::from_millis;
        let frames = |sent_frames| NetStatistics { sent_frames, ..NetStatistics::default() };
        let seen = |elsewhere, copied, sent| Seen { elsewhere, copied, network: frames(sent) };
        let mut marks = Marks::new(Vec::new());
        marks.start = Some(Mark::new(Some(ms(5)), &[seen(Some(ms(3)), Some(1), 2)]));
        let two = [seen(Some(ms(30)), Some(4), 9), seen(Some(ms(0)), Some(7), 1)];
        marks.end = Some(Mark::new(Some(ms(50)), &two));
        let mut sample = Sample::default();
        marks.complete(&mut sample);
        assert_eq!((sample.host_cpu, sample.copied), (Some(ms(80 - 8)), Some(10)));
        assert_eq!(sample.network, frames(8));
    }

    /// Not measured is not nothing.
    #[test]
    fn a_server_that_tells_nothing_leaves_it_unmeasured() {
        let mut marks = Marks::new(Vec::new());
        marks.start = Some(Mark::new(Some(Duration::ZERO), &[]));
        marks.end = Some(Mark::new(Some(Duration::ZERO), &[Seen::default()]));
        let mut sample = Sample::default();
        marks.complete(&mut sample);
        assert_eq!((sample.host_cpu, sample.copied), (None, None));
    }
}
