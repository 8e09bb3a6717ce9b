//! The requests.

use super::VirtioScsi;
use crate::{Accesses, Completions, Disk, Error, Op, Platform};

impl<P: Platform> Disk for VirtioScsi<'_, P> {
    fn capacity(&self) -> u64 {
        self.unit.capacity()
    }

    fn block_size(&self) -> u32 {
        self.unit.block_size()
    }

    fn max_depth(&self) -> u16 {
        self.requests.depth()
    }

    fn max_transfer(&self) -> u32 {
        // One descriptor, which is all that seg_max must allow.
        self.unit.max_transfer()
    }

    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error> {
        self.requests.tags().check(tag)?;
        let request = self.unit.request(op, offset, &self.requests.parameters(tag))?;
        self.requests.issue(tag, self.unit.address(), request);
        Ok(())
    }

    fn kick(&mut self) -> Result<(), Error> {
        self.requests.kick();
        Ok(())
    }

    fn poll(&mut self, completions: &mut Completions) -> Result<(), Error> {
        self.requests.collect(completions)
    }

    fn handle(&mut self, completions: &mut Completions) -> Result<(), Error> {
        // Each round takes at least one request that was in flight, and none is issued again for ever,
        // so this ends.
        loop {
            self.requests.collect(completions)?;
            if !self.requests.ring().request_interrupt() {
                return Ok(());
            }
        }
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if self.requests.in_flight() != 0 {
            return Err(Error::Busy);
        }
        if on && self.requests.transport().vectors() == 0 {
            return Err(Error::Unsupported("MSI-X"));
        }
        if !on {
            self.requests.ring().suppress_interrupts();
        } else if self.requests.ring().request_interrupt() {
            return Err(Error::Protocol("used buffers while nothing was in flight"));
        }
        Ok(())
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.requests.transport().accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.requests.transport().reset()?;
        self.requests.tags().drain(|_| {});
        Ok(())
    }
}
