//! Functions of the host's in a guest.

use std::sync::Arc;

use anyhow::bail;
use paraslot_device::Host;
use paraslot_protocol::{Access, Completion, DiskJob};
use paraslot_vfio::{IommuSpace, VfioPci};
use vm_memory::GuestMemoryMmap;

use crate::bench::Sample;
use crate::bench::built::{Built, Watch};
use crate::plan::PATTERNS;
use crate::spec::PassedSpec;

/// Opens a function for a machine whose memory is in `space`.
pub(in crate::bench) fn open(
    spec: &PassedSpec,
    space: &Arc<IommuSpace>,
    host: Host<Arc<GuestMemoryMmap>>,
) -> anyhow::Result<Built> {
    let function = VfioPci::open(spec.address, space, host)?;
    let watch = Watch::Hardware(function.faults());
    Ok(Built { function: Box::new(function), watch, label: spec.label() })
}

/// How long a disk may take to be filled, in milliseconds.
const FILL_MS: u32 = 120_000;

/// What is known of a disk that is passed through. The host has no way to it, so it is asked and filled
/// by a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PassedDisk {
    /// Its size in bytes.
    capacity: Option<u64>,
    /// As many bytes of it hold what a fresh image does.
    filled: u64,
}

impl PassedDisk {
    /// Sees to it that the disk is ready for `job`: that its size is known, and that it holds what is read
    /// of it, by jobs which `run` runs. Returns the job as it fits the disk, and what is known when it
    /// has been run.
    pub(super) fn prepare(
        self,
        spec: &PassedSpec,
        job: &DiskJob,
        run: impl Fn(DiskJob) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<(DiskJob, Self)> {
        let usual = DiskJob {
            device: spec.device,
            access: Access::SequentialRead,
            completion: Completion::Poll,
            block_size: 4096,
            depth: 1,
            span: 4096,
            warm_up_ms: 0,
            measure_ms: FILL_MS,
            operations: 1,
            verify: false,
            seed: 0,
            tsc_hz: job.tsc_hz,
        };
        let capacity = match self.capacity {
            Some(capacity) => capacity,
            None => run(usual)?.capacity,
        };
        // Whole blocks, whatever their size.
        let largest = PATTERNS.iter().map(|(_, block_size)| *block_size).max().unwrap_or(4096);
        let span = job.span.min(capacity) / u64::from(largest) * u64::from(largest);
        let least = u64::from(job.depth) * u64::from(job.block_size);
        if span < least {
            bail!("{} has {capacity} bytes; {least} are needed", spec.address);
        }
        let mut filled = self.filled;
        let reads = job.access != Access::RandomWrite;
        if reads && job.verify && filled < span {
            let blocks = span / u64::from(largest);
            let fill = DiskJob {
                access: Access::Fill,
                block_size: largest,
                span,
                operations: blocks,
                ..usual
            };
            let done = run(fill)?.operations;
            if done != blocks {
                bail!("{} could not be filled in {} s", spec.address, FILL_MS / 1000);
            }
            filled = span;
        } else if !reads {
            filled = 0;
        }
        Ok((DiskJob { span, ..*job }, Self { capacity: Some(capacity), filled }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraslot_protocol::Device;
    use std::cell::RefCell;

    const CAPACITY: u64 = (1 << 20) + 4096;

    fn spec() -> PassedSpec {
        let address = "0000:00:05.0".parse().unwrap();
        PassedSpec { address, device: Device::Nvme, overwrite: true }
    }

    fn job(access: Access, verify: bool) -> DiskJob {
        DiskJob {
            device: Device::Nvme,
            access,
            completion: Completion::Interrupt,
            block_size: 4096,
            depth: 32,
            span: 256 << 20,
            warm_up_ms: 1,
            measure_ms: 1,
            operations: 0,
            verify,
            seed: 1,
            tsc_hz: 7,
        }
    }

    /// A disk that does what it is told, and what it was told.
    fn prepare(
        disk: PassedDisk,
        job: &DiskJob,
    ) -> (anyhow::Result<(DiskJob, PassedDisk)>, Vec<Access>) {
        let told = RefCell::new(Vec::new());
        let result = disk.prepare(&spec(), job, |job| {
            assert_eq!(job.check(), Ok(()));
            told.borrow_mut().push(job.access);
            let operations = job.operations;
            Ok(Sample { capacity: CAPACITY, operations, ..Sample::default() })
        });
        (result, told.into_inner())
    }

    #[test]
    fn a_disk_is_asked_for_its_size_once_and_filled_when_it_must_be() {
        let read = job(Access::RandomRead, true);
        let (result, told) = prepare(PassedDisk::default(), &read);
        let (fitted, disk) = result.unwrap();
        // One probe, one filling; and no more than the disk has.
        assert_eq!(told, [Access::SequentialRead, Access::Fill]);
        assert_eq!(fitted, DiskJob { span: 1 << 20, ..read });
        let (result, told) = prepare(disk, &read);
        assert_eq!((result.unwrap().1, told.len()), (disk, 0));
        // Writes leave something else there.
        let (result, told) = prepare(disk, &job(Access::RandomWrite, true));
        let disk = result.unwrap().1;
        assert_eq!((disk.filled, told.len()), (0, 0));
        let (result, told) = prepare(disk, &read);
        assert_eq!((result.unwrap().1.filled, told), (1 << 20, vec![Access::Fill]));
    }

    /// Nothing is written to a disk that is only to be read.
    #[test]
    fn a_disk_that_is_not_to_be_overwritten_is_not() {
        for access in [Access::RandomRead, Access::SequentialRead] {
            let (result, told) = prepare(PassedDisk::default(), &job(access, false));
            assert_eq!(told, [Access::SequentialRead]);
            assert_eq!(result.unwrap().0.access, access);
        }
    }

    #[test]
    fn a_disk_that_is_too_small_is_named() {
        let tiny = PassedDisk { capacity: Some(8192), filled: 0 };
        let error = prepare(tiny, &job(Access::RandomRead, true)).0.unwrap_err().to_string();
        assert_eq!(error, "0000:00:05.0 has 8192 bytes; 131072 are needed");
    }

    #[test]
    fn a_disk_that_is_not_filled_in_time_is_not_read() {
        let disk = PassedDisk { capacity: Some(CAPACITY), filled: 0 };
        let slow = |_| Ok(Sample { operations: 3, ..Sample::default() });
        let error = disk.prepare(&spec(), &job(Access::RandomRead, true), slow).unwrap_err();
        assert!(error.to_string().contains("could not be filled in 120 s"));
    }
}
