//! Networks, measured by fio over TCP.

use std::fmt;

use paraslot_protocol::NetJob;

use super::fio::Work;
use super::guest::Told;
use crate::bench::Sample;
use crate::plan::{Stream, StreamWorkload};

/// What a guest is to do with an adapter.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamScript<'a> {
    pub(super) workload: StreamWorkload,
    pub(super) job: &'a NetJob,
    /// What it is told of the far end.
    pub(super) far_end: &'a str,
}

impl fmt::Display for StreamScript<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StreamWorkload { stream, size } = self.workload;
        let NetJob { warm_up_ms, measure_ms, .. } = self.job;
        let (rw, more) = match stream {
            Stream::Transmit => ("write", ""),
            Stream::Receive => ("read", ""),
            Stream::Request => ("write", "--pingpong=1 --nodelay=1"),
        };
        writeln!(f, "rw={rw} bs={size} more='{more}' warm={warm_up_ms} time={measure_ms}")?;
        f.write_str(self.far_end)?;
        f.write_str(include_str!("scripts/stream.sh"))
    }
}

/// What a guest told of its run, together with what was `counted` on this side; and the program that
/// measured.
///
/// # Errors
/// When it makes no sense.
pub(super) fn sample(told: &Told, counted: Sample) -> anyhow::Result<(String, Sample)> {
    Ok(Work::told(told)?.sample(counted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraslot_protocol::{Completion, Device, Traffic};
    use std::process::Command;

    #[test]
    fn a_script_has_what_its_job_says() {
        let job = NetJob {
            device: Device::E1000,
            traffic: Traffic::Request,
            completion: Completion::Interrupt,
            frame_size: 1514,
            batch: 1,
            rate: 0,
            warm_up_ms: 10,
            measure_ms: 20,
            operations: 0,
            verify: true,
            tsc_hz: 0,
        };
        for (stream, expected) in [
            (Stream::Transmit, "write 64  10 20 F\n"),
            (Stream::Receive, "read 64  10 20 F\n"),
            (Stream::Request, "write 64 --pingpong=1 --nodelay=1 10 20 F\n"),
        ] {
            let workload = StreamWorkload { stream, size: 64 };
            let text = StreamScript { workload, job: &job, far_end: "far=F\n" }.to_string();
            let (variables, _) = text.split_once("\n#").expect("variables, then a comment");
            let shell = format!("set -eu\n{variables}\necho \"$rw $bs $more $warm $time $far\"");
            for (script, said) in [(shell.as_str(), expected), (&format!("exit\n{text}"), "")] {
                let output = Command::new("sh").args(["-c", script]).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(String::from_utf8(output.stdout).unwrap(), said);
            }
        }
    }
}
