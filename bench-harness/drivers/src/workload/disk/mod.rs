//! Requests to a disk.

mod contents;
mod random;
mod runner;
#[cfg(test)]
mod tests;

use paraslot_protocol::{Access, DiskJob, Outcome};
use zerocopy::little_endian::U64;

use super::Failure;
use crate::{Disk, Platform};
use contents::Contents;
use runner::Runner;

pub(super) fn drive<P: Platform, D: Disk>(
    platform: &P,
    disk: &mut D,
    job: &DiskJob,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    outcome.header.capacity = U64::new(disk.capacity());
    job.check().map_err(Failure::Job)?;
    if job.depth > disk.max_depth() {
        return Err(Failure::Unfit("depth"));
    }
    if job.block_size > disk.max_transfer() || !job.block_size.is_multiple_of(disk.block_size()) {
        return Err(Failure::Unfit("block_size"));
    }
    if job.span > disk.capacity() {
        return Err(Failure::Unfit("span"));
    }
    let writes = job.access == Access::RandomWrite;
    let contents = Contents::new(platform, job.block_size, job.span, writes)
        .map_err(|_| Failure::Unfit("span"))?;
    let len = usize::from(job.depth) * usize::try_from(job.block_size).unwrap_or(usize::MAX);
    let buffers = platform.allocate(len).ok_or(Failure::Unfit("depth"))?;
    Runner::new(platform, disk, *job, contents, buffers, outcome).run()
}
