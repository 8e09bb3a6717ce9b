//! Outcomes as samples.

use anyhow::{Context, bail};
use paraslot_backends::net::NetStatistics;
use paraslot_protocol::frame::{self, Kind};
use paraslot_protocol::{Header, Outcome, Status, bucket_range};

use super::Sample;

/// What a guest's console says of its run.
pub(crate) fn from_console(mut console: &[u8]) -> anyhow::Result<Sample> {
    let mut said = String::new();
    let mut sample = None;
    while let Some((kind, payload, skip)) = frame::find(console) {
        match kind {
            Kind::Text => said = String::from_utf8_lossy(payload).into_owned(),
            Kind::Outcome => {
                let (header, buckets) = Outcome::parse(payload)?;
                let buckets = buckets
                    .iter()
                    .map(|bucket| (usize::from(bucket.index.get()), bucket.count.get()));
                sample = Some(from_parts(&header, buckets, &said)?);
            }
        }
        console = console.get(skip..).unwrap_or_default();
    }
    sample.with_context(|| match said.as_str() {
        "" => "the guest ended without a word".to_owned(),
        said => format!("the guest ended without an outcome; it said: {said}"),
    })
}

/// What a driver in this process says of its run.
pub(crate) fn from_outcome(outcome: &Outcome) -> anyhow::Result<Sample> {
    let mut header = outcome.header;
    // The guest fills this in when it sends an outcome.
    header.max_latency = outcome.latency.max().into();
    from_parts(&header, outcome.latency.buckets(), "")
}

fn from_parts(
    header: &Header,
    buckets: impl Iterator<Item = (usize, u32)>,
    said: &str,
) -> anyhow::Result<Sample> {
    let problem = match Status::from_raw(header.status.get()) {
        Some(Status::Ok) => None,
        Some(Status::BadJob) => Some("the guest cannot do the job"),
        Some(Status::NoDevice) => Some("the driver cannot set the device up"),
        Some(Status::DeviceError) => Some("the device reported an error or misbehaved"),
        Some(Status::Corrupt) => Some("data arrived that is not what was sent or written"),
        Some(Status::Stuck) => Some("the device completes nothing any more"),
        Some(Status::Crashed) | None => Some("the guest crashed"),
    };
    if let Some(problem) = problem {
        if said.is_empty() {
            bail!("{problem}");
        }
        bail!("{problem}: {said}");
    }
    if header.errors.get() != 0 {
        bail!("{} operations failed", header.errors.get());
    }
    if header.tsc_hz.get() == 0 || header.cycles.get() == 0 {
        bail!("the run has no length");
    }
    let middle = |(bucket, count): (usize, u32)| {
        let (low, high) = bucket_range(bucket);
        (low + (high - low) / 2, u64::from(count))
    };
    Ok(Sample {
        backend: String::new(),
        operations: header.operations.get(),
        bytes: header.bytes.get(),
        cycles: header.cycles.get(),
        waiting_cycles: Some(header.waiting_cycles.get()),
        tsc_hz: header.tsc_hz.get(),
        latency: buckets.map(middle).collect(),
        max_latency: header.max_latency.get(),
        doorbells: Some(header.doorbells.get()),
        interrupts: header.interrupts.get(),
        lost: header.lost.get(),
        reordered: header.reordered.get(),
        network: NetStatistics::default(),
        capacity: header.capacity.get(),
        exits: None,
        host_cpu: None,
        copied: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Status) -> Outcome {
        let mut outcome = Outcome::failed(status);
        outcome.header.operations = 3.into();
        outcome.header.cycles = 1000.into();
        outcome.header.tsc_hz = 1_000_000.into();
        for latency in [10, 10, 6400] {
            outcome.latency.record(latency);
        }
        outcome
    }

    fn console(text: &[u8], outcome: Option<&Outcome>) -> Vec<u8> {
        let mut bytes = b"firmware".to_vec();
        frame::send(Kind::Text, &[text], |byte| bytes.push(byte));
        if let Some(outcome) = outcome {
            outcome.send(|byte| bytes.push(byte));
        }
        bytes
    }

    #[test]
    fn a_good_outcome_is_a_sample_wherever_it_comes_from() {
        let good = outcome(Status::Ok);
        let samples = [from_console(&console(b"hello", Some(&good))), from_outcome(&good)];
        for sample in samples {
            let sample = sample.unwrap();
            assert_eq!((sample.operations, sample.max_latency), (3, 6400));
            // The bucket of 6400 reaches to 6463 or further.
            let (low, high) = bucket_range(paraslot_protocol::bucket_of(6400));
            assert_eq!(sample.latency, [(10, 2), (low.midpoint(high), 1)]);
            assert_eq!((sample.exits, sample.copied), (None, None));
        }
    }

    #[test]
    fn what_went_wrong_is_said_with_the_guests_own_words() {
        let say = |bytes: &[u8]| from_console(bytes).unwrap_err().to_string();
        let bad = outcome(Status::Corrupt);
        assert_eq!(
            say(&console(b"wrong data at offset 0x1000", Some(&bad))),
            "data arrived that is not what was sent or written: wrong data at offset 0x1000"
        );
        assert_eq!(say(b"firmware only"), "the guest ended without a word");
        assert!(say(&console(b"tired", None)).ends_with("it said: tired"));
        assert_eq!(
            from_outcome(&bad).unwrap_err().to_string(),
            "data arrived that is not what was sent or written"
        );
    }

    #[test]
    fn a_run_without_length_or_with_failed_operations_is_none() {
        let mut empty = outcome(Status::Ok);
        empty.header.cycles = 0.into();
        assert!(from_outcome(&empty).is_err());
        let mut failed = outcome(Status::Ok);
        failed.header.errors = 1.into();
        assert!(from_outcome(&failed).is_err());
    }
}
