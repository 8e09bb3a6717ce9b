//! Disks, measured by fio.

use std::fmt;

use anyhow::bail;
use paraslot_protocol::{Access, DiskJob};

use super::fio::Work;
use super::guest::Told;
use super::sums::{self, Piece};
use crate::bench::Sample;
use crate::spec::DeviceSpec;

/// Bytes that are written and read back to verify.
const VERIFIED: u64 = 4 << 20;

/// How the guest finds out whether data is right, when it has measured.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Check {
    /// It does not.
    No,
    /// It writes at random, and reads back.
    Written,
    /// It reads what the image is known to hold.
    Held(Vec<Piece>),
}

/// What a guest is to do with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskScript {
    job: DiskJob,
    check: Check,
    fill: bool,
}

impl DiskScript {
    /// The script for a job on a disk that, if it is the host's, is `filled` or not.
    pub(super) fn new(device: &DeviceSpec, job: &DiskJob, filled: bool) -> Self {
        let passed = device.is_passed();
        let writes = job.access == Access::RandomWrite;
        let check = match (job.verify, writes || passed) {
            (false, _) => Check::No,
            (true, true) => Check::Written,
            (true, false) => Check::Held(sums::pieces(job.span, job.block_size, job.depth)),
        };
        // What nobody has written is read faster than it should be.
        let fill = passed && job.verify && !writes && !filled;
        Self { job: *job, check, fill }
    }

    /// Whether the disk is filled first.
    pub(super) fn fills(&self) -> bool {
        self.fill
    }
}

/// fio's name of a pattern.
fn rw(access: Access) -> &'static str {
    match access {
        Access::RandomRead => "randread",
        Access::RandomWrite => "randwrite",
        Access::SequentialRead => "read",
        Access::Fill => "write",
    }
}

impl fmt::Display for DiskScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DiskJob { access, block_size, depth, span, warm_up_ms, measure_ms, seed, .. } =
            self.job;
        writeln!(f, "rw={} bs={block_size} depth={depth} span={span} seed={seed}", rw(access))?;
        writeln!(f, "warm={warm_up_ms} time={measure_ms}")?;
        writeln!(f, "fill={}", if self.fill { "yes" } else { "" })?;
        match &self.check {
            Check::No => writeln!(f, "check= sums=")?,
            Check::Written => {
                let block = u64::from(block_size);
                let bytes = VERIFIED.min(span) / block * block;
                writeln!(f, "check=written check_bytes={bytes} sums=")?;
            }
            Check::Held(pieces) => {
                let pieces: Vec<_> = pieces.iter().map(Piece::to_string).collect();
                writeln!(f, "check=held sums='{}'", pieces.join(" "))?;
            }
        }
        f.write_str(include_str!("scripts/disk.sh"))
    }
}

/// What a guest told of its run, together with what was `counted` on this side; and the program that
/// measured.
///
/// # Errors
/// When it makes no sense.
pub(super) fn sample(
    told: &Told,
    job: &DiskJob,
    counted: Sample,
) -> anyhow::Result<(String, Sample)> {
    let work = Work::told(told)?;
    let Work { operations, bytes, short, .. } = work;
    if short != 0 || Some(bytes) != operations.checked_mul(job.block_size.into()) {
        bail!("{operations} operations of {} moved {bytes} bytes, {short} in part", job.block_size);
    }
    Ok(work.sample(Sample { capacity: told.fact("capacity")?, ..counted }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{DiskSpec, PassedSpec};
    use paraslot_protocol::{Completion, Device};

    fn job(access: Access, verify: bool) -> DiskJob {
        DiskJob {
            device: Device::VirtioBlk,
            access,
            completion: Completion::Interrupt,
            block_size: 4096,
            depth: 2,
            span: 64 << 20,
            warm_up_ms: 10,
            measure_ms: 20,
            operations: 0,
            verify,
            seed: 7,
            tsc_hz: 0,
        }
    }

    fn model() -> DeviceSpec {
        DeviceSpec::Disk(DiskSpec::new(Device::VirtioBlk))
    }

    fn passed() -> DeviceSpec {
        let address = "0000:00:05.0".parse().unwrap();
        DeviceSpec::Passed(PassedSpec { address, device: Device::Nvme, overwrite: true })
    }

    /// What a shell makes of the script's variables.
    fn variables(script: &DiskScript) -> String {
        let text = script.to_string();
        let (variables, rest) = text.split_once("\n#").expect("variables, then a comment");
        assert!(rest.contains("--rw=\"$rw\""));
        let shell =
            format!("set -eu\n{variables}\necho \"$rw $bs $depth $span $seed $warm $time\"");
        let shell =
            format!("{shell}\necho \"${{fill:-none}} ${{check:-none}} ${{check_bytes:-0}} $sums\"");
        let output = std::process::Command::new("sh").arg("-c").arg(shell).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn a_script_has_what_its_job_says() {
        let written = DiskScript::new(&model(), &job(Access::RandomWrite, true), false);
        let numbers = "4096 2 67108864 7 10 20\n";
        assert_eq!(variables(&written), format!("randwrite {numbers}none written 4194304 \n"));
        let unchecked = DiskScript::new(&model(), &job(Access::SequentialRead, false), false);
        assert_eq!(variables(&unchecked), format!("read {numbers}none none 0 \n"));
        let held = variables(&DiskScript::new(&model(), &job(Access::RandomRead, true), false));
        let sums = held.strip_prefix(&format!("randread {numbers}none held 0 ")).expect(&held);
        assert_eq!(sums.split_whitespace().filter(|sum| sum.split(':').count() == 3).count(), 2);
    }

    /// Nothing is known of what the host's disk holds: it is filled once, and verified by writing.
    #[test]
    fn a_disk_of_the_hosts_is_filled_once_and_only_if_it_may_be() {
        let script = |access, verify, filled| {
            let script = DiskScript::new(&passed(), &job(access, verify), filled);
            (script.fills(), script.check)
        };
        assert_eq!(script(Access::RandomRead, true, false), (true, Check::Written));
        assert_eq!(script(Access::RandomRead, true, true), (false, Check::Written));
        assert_eq!(script(Access::RandomWrite, true, false), (false, Check::Written));
        // It must not be written to.
        assert_eq!(script(Access::SequentialRead, false, false), (false, Check::No));
    }

    #[test]
    fn the_scripts_are_ones_for_a_shell() {
        let prelude = super::super::prelude(Device::Ahci);
        for script in [prelude.as_str(), include_str!("scripts/disk.sh")] {
            let checked = std::process::Command::new("sh").args(["-n", "-c", script]).output();
            let checked = checked.unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
        assert!(prelude.starts_with("slot=01 tools=02 modules=ahci\n"), "{prelude}");
    }
}
