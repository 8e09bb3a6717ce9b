//! The requests.

use paraslot_spec::pvscsi::Intr;

use super::Pvscsi;
use crate::pci::Way;
use crate::{Accesses, Completions, Disk, Error, Op, Platform};

impl<P: Platform> Disk for Pvscsi<'_, P> {
    fn capacity(&self) -> u64 {
        self.unit.capacity()
    }

    fn block_size(&self) -> u32 {
        self.unit.block_size()
    }

    fn max_depth(&self) -> u16 {
        self.requests.tags.depth()
    }

    fn max_transfer(&self) -> u32 {
        self.unit.max_transfer()
    }

    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error> {
        self.requests.tags.check(tag)?;
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
        if self.requests.hardware.way != Some(Way::Pin) {
            // Every batch of completions has its own message, so none is missed.
            return self.requests.collect(completions);
        }
        let result = match self.requests.hardware.take_causes() {
            true => self.requests.collect(completions),
            false => Ok(()),
        };
        self.requests.hardware.end_of_interrupt();
        result
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if self.requests.tags.in_flight() != 0 {
            return Err(Error::Busy);
        }
        if on && self.requests.hardware.way.is_none() {
            return Err(Error::Unsupported("interrupts that reach the platform"));
        }
        self.interrupts = on;
        self.set_mask();
        Ok(())
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.requests.hardware.accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.requests.hardware.stop();
        self.requests.tags.drain(|_| {});
        self.interrupts = false;
        Ok(())
    }
}

impl<P: Platform> Pvscsi<'_, P> {
    /// Lets the adapter interrupt, or not.
    pub(super) fn set_mask(&self) {
        let hardware = &self.requests.hardware;
        if self.interrupts {
            // What happened with interrupts off must not cause one now.
            hardware.clear_causes();
            hardware.set_mask(self.requests.causes());
        } else {
            hardware.set_mask(Intr::empty());
        }
    }
}
