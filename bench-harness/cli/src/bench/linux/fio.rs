//! What fio says of a run, in its JSON with all of its histograms (`json+`).

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::guest::Told;
use crate::bench::Sample;

/// Units of fio's latencies in a second.
const NANOSECONDS: u64 = 1_000_000_000;
/// Nanoseconds in one of the units that it has the run's length in.
const MILLISECOND: u64 = 1_000_000;

/// What one job did in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// The program, and its version.
    pub(super) program: String,
    pub(super) operations: u64,
    pub(super) bytes: u64,
    /// Length of the run in nanoseconds, to the millisecond.
    pub(super) length: u64,
    /// Latencies in nanoseconds, with their counts.
    pub(super) latency: Vec<(u64, u64)>,
    /// The longest.
    pub(super) max_latency: u64,
    /// Calls that moved less than they were to, the rest of which was for another.
    pub(super) short: u64,
}

impl Work {
    /// What a guest told that measured with fio.
    ///
    /// # Errors
    /// When it did not, or it makes no sense.
    pub(super) fn told(told: &Told) -> anyhow::Result<Self> {
        let text: String = told.fact("fio")?;
        parse(&text).context("fio in the guest")
    }

    /// It together with what was `counted` on this side; and the program.
    pub(super) fn sample(self, counted: Sample) -> (String, Sample) {
        let Self { program, operations, bytes, length, latency, max_latency, short: _ } = self;
        let sample = Sample {
            operations,
            bytes,
            cycles: length,
            tsc_hz: NANOSECONDS,
            latency,
            max_latency,
            ..counted
        };
        (program, sample)
    }
}

#[derive(Deserialize)]
struct Output {
    #[serde(rename = "fio version")]
    version: String,
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    io_bytes: u64,
    /// In milliseconds.
    runtime: u64,
    short_ios: u64,
    drop_ios: u64,
    /// From when an operation is made to when its completion is seen.
    lat_ns: Latency,
}

#[derive(Deserialize)]
struct Latency {
    #[serde(rename = "N")]
    count: u64,
    max: u64,
    /// The histogram: values that stand for their buckets. There is none without operations.
    bins: Option<BTreeMap<u64, u64>>,
}

/// The one job's work.
///
/// # Errors
/// When it is not what fio writes of one job in one direction, or the job failed or did nothing.
fn parse(text: &str) -> anyhow::Result<Work> {
    let output: Output = serde_json::from_str(text).context("fio's output makes no sense")?;
    let [job] = <[Job; 1]>::try_from(output.jobs)
        .map_err(|jobs| anyhow::anyhow!("fio tells of {} jobs", jobs.len()))?;
    if job.error != 0 {
        bail!("fio ended with error {}", job.error);
    }
    let done = match (job.read.io_bytes, job.write.io_bytes) {
        (0, 0) => bail!("fio did nothing in its time: give it more"),
        (_, 0) => job.read,
        (0, _) => job.write,
        _ => bail!("fio read and wrote"),
    };
    let Direction { io_bytes: bytes, runtime, short_ios: short, drop_ios, lat_ns } = done;
    if drop_ios != 0 {
        bail!("{drop_ios} operations were dropped");
    }
    let latency: Vec<_> = lat_ns.bins.unwrap_or_default().into_iter().collect();
    let counted = latency.iter().try_fold(0_u64, |sum, (_, count)| sum.checked_add(*count));
    let operations = counted.context("as many operations as that")?;
    if operations != lat_ns.count || operations == 0 {
        bail!(
            "fio tells the latencies of {} operations, {operations} of them in its histogram",
            lat_ns.count
        );
    }
    let length = runtime.checked_mul(MILLISECOND).context("a run as long as that")?;
    if length == 0 {
        bail!("the run has no length");
    }
    let program = output.version;
    Ok(Work { program, operations, bytes, length, latency, max_latency: lat_ns.max, short })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn direction(operations: u64) -> Value {
        let mut latency = json!({ "min": 0, "max": 0, "mean": 0.0, "N": operations });
        if operations > 0 {
            latency["max"] = 90_001.into();
            // As the program writes them: names, in no order.
            latency["bins"] = json!({ "90112": 1, "10944": operations - 1 });
        }
        json!({
            "io_bytes": operations * 4096, "runtime": 251, "total_ios": operations,
            "short_ios": 0, "drop_ios": 0, "lat_ns": latency, "slat_ns": { "max": 1 }
        })
    }

    fn output(read: Value, write: Value) -> Value {
        json!({
            "fio version": "fio-3.33", "timestamp": 1,
            "jobs": [{ "jobname": "measured", "error": 0, "read": read, "write": write }]
        })
    }

    fn say(value: &Value) -> String {
        let error = parse(&value.to_string()).unwrap_err();
        crate::error::line(&error)
    }

    #[test]
    fn what_a_job_did_is_found_whatever_it_was() {
        let (some, none) = (direction(3), direction(0));
        for value in [output(some.clone(), none.clone()), output(none, some)] {
            let expected = Work {
                program: "fio-3.33".into(),
                operations: 3,
                bytes: 12_288,
                length: 251_000_000,
                latency: vec![(10_944, 2), (90_112, 1)],
                max_latency: 90_001,
                short: 0,
            };
            assert_eq!(parse(&value.to_string()).unwrap(), expected);
        }
    }

    /// What version 3.33 wrote of some reads.
    #[test]
    fn what_the_program_writes_is_understood() {
        let work = parse(include_str!("fixtures/fio.json")).unwrap();
        assert_eq!((work.program.as_str(), work.operations), ("fio-3.33", 20_428));
        assert_eq!((work.bytes, work.length), (20_428 * 4096, 262_000_000));
        assert_eq!((work.latency.len(), work.max_latency), (162, 27_091_542));
        assert_eq!(work.latency[0].0, 78_336);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut value = output(direction(3), direction(0));
            change(&mut value);
            say(&value)
        };
        assert!(say(&json!({})).starts_with("fio's output makes no sense"));
        assert!(say(&json!("fio: broken")).starts_with("fio's output makes no sense"));
        assert!(say(&output(direction(0), direction(0))).contains("did nothing"));
        assert_eq!(say(&output(direction(1), direction(1))), "fio read and wrote");
        assert_eq!(with(&|value| value["jobs"] = json!([])), "fio tells of 0 jobs");
        assert_eq!(with(&|value| value["jobs"][0]["error"] = 5.into()), "fio ended with error 5");
        let read =
            |field: &str, to: Value| with(&|value| value["jobs"][0]["read"][field] = to.clone());
        assert_eq!(read("runtime", 0.into()), "the run has no length");
        assert_eq!(read("runtime", u64::MAX.into()), "a run as long as that");
        assert!(read("runtime", json!(-1)).contains("makes no sense"));
        assert_eq!(read("drop_ios", 1.into()), "1 operations were dropped");
        assert!(read("lat_ns", json!({ "max": 1, "N": 0 })).contains("of 0 operations"));
        let fewer = json!({ "max": 1, "N": 3, "bins": { "1": 2 } });
        assert!(read("lat_ns", fewer).contains("of 3 operations, 2 of them"));
        let huge = json!({ "max": 1, "N": 3, "bins": { "1": u64::MAX, "2": u64::MAX } });
        assert_eq!(read("lat_ns", huge), "as many operations as that");
        let odd = json!({ "max": 1, "N": 3, "bins": { "a": 3 } });
        assert!(read("lat_ns", odd).contains("makes no sense"));
    }

    proptest! {
        /// The text comes from a guest.
        #[test]
        fn no_text_makes_it_fall_over(text in ".{0,200}", cut in 0usize..700) {
            let _ = parse(&text);
            let whole = output(direction(3), direction(0)).to_string();
            let _ = parse(whole.get(..cut).unwrap_or(&whole));
        }
    }
}
