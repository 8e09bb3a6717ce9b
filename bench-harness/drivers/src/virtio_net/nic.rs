//! Frames.

use paraslot_spec::virtio_net::{feature as net, status};

use super::{Layout, VirtioNet, transmit};
use crate::{Accesses, Arrival, DmaRegion, Error, Nic, Offers, Platform, Task};

impl<P: Platform> Nic for VirtioNet<'_, P> {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn link_up(&mut self) -> bool {
        self.status() & status::LINK_UP != 0
    }

    fn offers(&self) -> Offers {
        Offers {
            checksum: self.transport.has(net::CSUM),
            segmentation: self.transport.has(net::HOST_TSO4),
            large_receive: self.transport.has(net::GUEST_TSO4),
        }
    }

    fn depth(&self) -> u16 {
        self.depth
    }

    fn headroom(&self) -> usize {
        match self.options.layout {
            Layout::Headroom => self.rules.header_len,
            Layout::Chain | Layout::Indirect => 0,
        }
    }

    fn transmit(
        &mut self,
        tag: u16,
        frame: &DmaRegion,
        len: usize,
        task: Task,
    ) -> Result<(), Error> {
        let bytes = transmit::check(len, task, self.offers())?;
        if frame.len().checked_sub(self.headroom()).is_none_or(|room| room < len) {
            return Err(Error::Request("the frame's length"));
        }
        let (pair, place) = match self.pair_count {
            // Spares the usual case two divisions.
            1 => (0, tag),
            count => (tag % count, tag / count),
        };
        let pair = self.pairs.get_mut(usize::from(pair)).and_then(Option::as_mut);
        match (pair, self.tags.get_mut(usize::from(tag))) {
            (Some(pair), Some(state)) if tag < self.depth => {
                pair.transmitter.submit(place, state, frame, bytes, task)
            }
            _ => Err(Error::Request("the tag is too high or in use")),
        }
    }

    fn kick(&mut self) -> Result<(), Error> {
        for pair in self.pairs.iter_mut().flatten() {
            if pair.transmitter.ring().publish() {
                pair.transmitter.registers().notify(&self.transport);
            }
        }
        Ok(())
    }

    fn reclaim(&mut self, mut done: impl FnMut(u16)) -> Result<(), Error> {
        for (index, pair) in (0..self.pair_count).zip(&mut self.pairs) {
            let Some(pair) = pair else { continue };
            while let Some(place) = pair.transmitter.next()? {
                // Below 1024 × 8.
                let tag = place * self.pair_count + index;
                if !self.tags.get_mut(usize::from(tag)).is_some_and(|tag| tag.take_back()) {
                    return Err(Error::Protocol("a buffer that it was not given"));
                }
                done(tag);
            }
        }
        Ok(())
    }

    fn receive(&mut self, limit: u16, mut visit: impl FnMut(Arrival<'_>)) -> Result<u16, Error> {
        let mut count = 0;
        for pair in 0..self.pair_count {
            count += self.receive_from(pair, limit - count, &mut visit)?;
            if count == limit {
                break;
            }
        }
        Ok(count)
    }

    fn set_refill(&mut self, buffers: u16) {
        // A quarter of the buffers at most, which is seen to when frames are received.
        self.refill = buffers.max(1);
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if on && self.transport.vectors() == 0 {
            return Err(Error::Unsupported("MSI-X"));
        }
        self.interrupts = on;
        if on {
            self.end()?;
        } else {
            self.begin()?;
        }
        Ok(())
    }

    fn set_transmit_interrupts(&mut self, on: bool) {
        self.transmit_interrupts = on;
        if !on {
            for pair in self.pairs.iter_mut().flatten() {
                pair.transmitter.ring().suppress_interrupts();
            }
        }
    }

    fn begin(&mut self) -> Result<bool, Error> {
        for pair in self.pairs.iter_mut().flatten() {
            pair.receiver.ring().suppress_interrupts();
            pair.transmitter.ring().suppress_interrupts();
        }
        Ok(true)
    }

    fn end(&mut self) -> Result<bool, Error> {
        if !self.interrupts {
            return Ok(false);
        }
        let mut more = false;
        for pair in self.pairs.iter_mut().flatten() {
            more |= pair.receiver.ring().request_interrupt();
            if self.transmit_interrupts {
                // Nobody waits for frames that were sent, as long as the ring does not run full.
                more |= pair.transmitter.ring().request_late_interrupt();
            }
        }
        if more {
            self.begin()?;
        }
        Ok(more)
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.transport.accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.transport.reset()?;
        self.tags.iter_mut().for_each(|tag| {
            tag.take_back();
        });
        if let Some(control) = &mut self.control {
            control.clear();
        }
        Ok(())
    }
}
