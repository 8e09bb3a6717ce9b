//! The requests.

use paraslot_spec::virtio_blk::{SECTOR_SIZE, feature as blk, request};

use super::{Shape, Tag, VirtioBlk, slot};
use crate::disk::check_range;
use crate::{Accesses, Completions, Disk, Error, Op, Platform};

impl<P: Platform> Disk for VirtioBlk<'_, P> {
    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn block_size(&self) -> u32 {
        self.block_size
    }

    fn max_depth(&self) -> u16 {
        self.options.depth
    }

    fn max_transfer(&self) -> u32 {
        // One descriptor; SIZE_MAX is not accepted, so there is no limit but ours.
        1 << 30
    }

    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error> {
        let sector = offset / SECTOR_SIZE;
        if tag >= self.options.depth {
            return Err(Error::Request("the tag is too high or in use"));
        }
        let (kind, region) = match op {
            Op::Read(region) => (request::IN, region),
            Op::Write(_) if self.read_only => return Err(Error::Unsupported("writes")),
            Op::Write(region) => (request::OUT, region),
            Op::Flush if !self.transport.has(blk::FLUSH) => {
                return Err(Error::Unsupported("flush"));
            }
            Op::Flush => {
                return self.issue(tag, 0, Shape { kind: request::FLUSH, ..Shape::default() });
            }
            Op::Discard(len) | Op::WriteZeroes(len) => {
                let (kind, limit) = match op {
                    Op::Discard(_) => (request::DISCARD, self.limits.discard),
                    _ => (request::WRITE_ZEROES, self.limits.write_zeroes),
                };
                if self.tags.get(usize::from(tag)).is_some_and(|tag| tag.written.is_some()) {
                    return Err(Error::Request("the tag is too high or in use"));
                }
                self.range_request(tag, offset, len, limit)?;
                let address = self.slots.physical(Self::slot(tag) + slot::RANGE);
                return self.issue(tag, 0, Shape { kind, address, len: 16 });
            }
        };
        check_range(self, offset, region.len() as u64)?;
        let len = u32::try_from(region.len()).ok().filter(|len| *len <= self.max_transfer());
        let len = len.ok_or(Error::Request("too long"))?;
        self.issue(tag, sector, Shape { kind, address: region.physical(0), len })
    }

    fn kick(&mut self) -> Result<(), Error> {
        for (index, queue) in (0..self.queue_count).zip(&mut self.queues) {
            if let Some(queue) = queue
                && queue.ring.publish()
            {
                self.transport.notify(queue.notify, index);
            }
        }
        Ok(())
    }

    fn poll(&mut self, completions: &mut Completions) -> Result<(), Error> {
        for index in 0..self.queue_count {
            self.collect(index, completions)?;
        }
        Ok(())
    }

    fn handle(&mut self, completions: &mut Completions) -> Result<(), Error> {
        for index in 0..self.queue_count {
            // Each round takes at least one request that was in flight, so this ends.
            loop {
                self.collect(index, completions)?;
                let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { break };
                if !queue.ring.request_interrupt() {
                    break;
                }
            }
        }
        Ok(())
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if self.in_flight != 0 {
            return Err(Error::Busy);
        }
        if on && self.transport.vectors() == 0 {
            return Err(Error::Unsupported("MSI-X"));
        }
        for queue in self.queues.iter_mut().flatten() {
            if !on {
                queue.ring.suppress_interrupts();
            } else if queue.ring.request_interrupt() {
                return Err(Error::Protocol("used buffers while nothing was in flight"));
            }
        }
        Ok(())
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.transport.accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.transport.reset()?;
        self.tags.iter_mut().for_each(|tag| *tag = Tag::default());
        self.in_flight = 0;
        Ok(())
    }
}
