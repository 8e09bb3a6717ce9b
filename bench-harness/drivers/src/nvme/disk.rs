//! The requests.

use paraslot_spec::nvme::{MAX_BLOCKS, SubmissionEntry, dataset, nvm, status};
use zerocopy::little_endian::{U32, U64};

use super::queue::Pair;
use super::{Nvme, prp};
use crate::disk::check_range;
use crate::{Accesses, Completion, Completions, Disk, DmaRegion, Error, Failed, Op, Platform};

/// Why a command was not done.
fn failed(code: u16) -> Failed {
    match code {
        status::INVALID_OPCODE | status::INVALID_FIELD => Failed::Unsupported,
        status::ABORT_REQUESTED | status::ABORTED_BY_QUEUE_DELETION => Failed::Aborted,
        _ => Failed::Io,
    }
}

/// A command about blocks, from `start` on, that gives their number with it (6.9).
fn about(opcode: u8, start: u64, blocks: u32) -> SubmissionEntry {
    let mut entry = SubmissionEntry::new(opcode);
    let [a, b, c, d, e, f, g, h] = start.to_le_bytes();
    entry.dwords[0] = U32::from_bytes([a, b, c, d]);
    entry.dwords[1] = U32::from_bytes([e, f, g, h]);
    entry.dwords[2] = U32::new(blocks - 1);
    entry
}

impl<P: Platform> Nvme<'_, P> {
    fn check_live(&self) -> Result<(), Error> {
        if self.live { Ok(()) } else { Err(Error::Request("the disk is shut down")) }
    }

    fn transfer(
        &self,
        tag: u16,
        offset: u64,
        region: &DmaRegion,
        opcode: u8,
    ) -> Result<SubmissionEntry, Error> {
        let len = u32::try_from(region.len())
            .ok()
            .filter(|len| *len <= self.namespace.max_transfer)
            .ok_or(Error::Request("too long"))?;
        check_range(self, offset, len.into())?;
        let block = self.namespace.block_size;
        let mut entry = about(opcode, offset / u64::from(block), len / block);
        let (first, second) = prp::describe(region, &self.page(tag))?;
        (entry.prp1, entry.prp2) = (U64::new(first), U64::new(second));
        Ok(entry)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<SubmissionEntry, Error> {
        if !self.identity.write_zeroes {
            return Err(Error::Unsupported("write zeroes"));
        }
        check_range(self, offset, len)?;
        let block = u64::from(self.namespace.block_size);
        let blocks = u32::try_from(len / block).ok().filter(|blocks| *blocks <= MAX_BLOCKS);
        let blocks = blocks.ok_or(Error::Request("too long"))?;
        Ok(about(nvm::WRITE_ZEROES, offset / block, blocks))
    }

    fn discard(&self, tag: u16, offset: u64, len: u64) -> Result<SubmissionEntry, Error> {
        if !self.identity.discard {
            return Err(Error::Unsupported("discard"));
        }
        check_range(self, offset, len)?;
        let block = u64::from(self.namespace.block_size);
        let ranges = self.write_ranges(tag, offset / block, len / block)?;
        let mut entry = SubmissionEntry::new(nvm::DATASET_MANAGEMENT);
        entry.prp1 = U64::new(self.page(tag).physical(0));
        entry.dwords[0] = U32::new(ranges - 1);
        entry.dwords[1] = U32::new(dataset::DEALLOCATE);
        Ok(entry)
    }

    /// Adds what has completed. Each completion frees a tag that was in use, so this ends.
    fn collect(&mut self, completions: &mut Completions) -> Result<(), Error> {
        let Self { controller, pairs, tags, options, .. } = self;
        let queues = options.queues;
        for (index, pair) in (0..queues).zip(pairs) {
            let Some(pair) = pair else { continue };
            let mut result = Ok(());
            loop {
                match pair.next() {
                    Ok(None) => break,
                    Ok(Some(done)) if done.id % queues == index && tags.end(done.id) => {
                        let result = match done.status {
                            status::SUCCESS => Ok(()),
                            code => Err(failed(code)),
                        };
                        completions.push(Completion { tag: done.id, result });
                    }
                    Ok(Some(_)) => {
                        result = Err(Error::Protocol("a completion of no command"));
                        break;
                    }
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
            }
            pair.release(controller);
            result?;
        }
        Ok(())
    }
}

impl<P: Platform> Disk for Nvme<'_, P> {
    fn capacity(&self) -> u64 {
        self.namespace.capacity
    }

    fn block_size(&self) -> u32 {
        self.namespace.block_size
    }

    fn max_depth(&self) -> u16 {
        self.tags.depth()
    }

    fn max_transfer(&self) -> u32 {
        self.namespace.max_transfer
    }

    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error> {
        self.tags.check(tag)?;
        self.check_live()?;
        let entry = match op {
            Op::Read(region) => self.transfer(tag, offset, region, nvm::READ)?,
            Op::Write(region) => self.transfer(tag, offset, region, nvm::WRITE)?,
            Op::Flush => SubmissionEntry::new(nvm::FLUSH),
            Op::Discard(len) => self.discard(tag, offset, len)?,
            Op::WriteZeroes(len) => self.write_zeroes(offset, len)?,
        };
        self.issue(tag, entry);
        Ok(())
    }

    fn kick(&mut self) -> Result<(), Error> {
        for pair in self.pairs.iter_mut().flatten() {
            pair.submit(&self.controller);
        }
        self.tags.tell();
        Ok(())
    }

    fn poll(&mut self, completions: &mut Completions) -> Result<(), Error> {
        self.collect(completions)
    }

    fn handle(&mut self, completions: &mut Completions) -> Result<(), Error> {
        // Emptying a queue takes its pin back; a completion that comes later has its own message, or
        // asserts the pin again.
        let result = self.collect(completions);
        self.controller.end_of_interrupt();
        result
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if self.tags.in_flight() != 0 {
            return Err(Error::Busy);
        }
        self.check_live()?;
        if on && !self.controller.can_interrupt() {
            return Err(Error::Unsupported("interrupts that reach the platform"));
        }
        self.controller.mask(true);
        self.delete_pairs()?;
        self.create_pairs(on)?;
        if on {
            self.controller.mask(false);
        }
        Ok(())
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.controller.accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.controller.mask(true);
        // Queues with commands in flight need not be given back before the controller is reset, and
        // one that does not give them back is reset all the same.
        if self.live && self.tags.in_flight() == 0 {
            let _ = self.delete_pairs();
        }
        self.live = false;
        let result = self.controller.shut_down();
        self.controller.disconnect();
        self.tags.clear();
        self.pairs.iter_mut().flatten().for_each(Pair::clear);
        result
    }
}
