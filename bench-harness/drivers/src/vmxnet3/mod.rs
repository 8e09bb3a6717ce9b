//! VMware's vmxnet3, revisions 1 to 3.
//!
//! # Register accesses
//! The adapter is driven by the register accesses that Linux's vmxnet3 driver makes, so that a count
//! of them, or of the exits they cause, means here what it means there:
//! - frames to be sent: one write of TXPROD for as many as were handed over, if there are as many as
//!   the adapter wants to gather (`txThreshold`);
//! - what was sent and what arrived: none, it is seen in the completions;
//! - free buffers: one write of RXPROD or RXPROD2 for as many as have gathered, while the adapter
//!   asks for that (`updateRxProd`);
//! - interrupt by MSI-X or MSI: when everything is handled, one write of IMR, to let through what the
//!   adapter has masked as it raised it; before, another if it does not do so by itself;
//! - interrupt by the pin: ICR is read besides;
//! - what has happened otherwise (ECR, of which there is a copy in memory): one write to acknowledge
//!   it.
//!
//! While interrupts are off no register is read.
//!
//! Descriptors are Linux's too: rings of 512 for what is sent and of 1024 and 256 for what arrives;
//! the headers of each frame, or as much of it as fits, in an entry of the data ring and the rest in
//! pieces of up to 16384 bytes; frames that arrive in a head buffer for a whole one of an Ethernet's
//! MTU, or in an entry of the data ring (revision 3) if they are no longer than 128 bytes, with body
//! buffers of 4096 bytes behind.
//!
//! Differences that are in the part that is measured: what was sent has a vector of its own, so that
//! it interrupts only if that was asked for ([`Nic::set_transmit_interrupts`]), and events have none
//! ([`Vectors`]); free buffers wait for others before the adapter has them ([`Nic::set_refill`]), where
//! Linux hands over each at once. And differences that are not: there is one transmit queue, whatever
//! the number of receive queues; the adapter is reset before it is set up; a queue that stops is an
//! error, not the beginning of a reset.
//!
//! Not used: VLAN tags taken out or put in by the adapter, multicast, promiscuous mode, wake-up.

mod hardware;
mod interrupts;
mod moderation;
mod options;
mod receive;
mod rings;
mod shared;
#[cfg(test)]
mod tests;
mod transmit;

pub use moderation::{Coalescing, Moderation};
pub use options::{Options, Signalling, Vectors};

use paraslot_spec::vmxnet3::{Events, LINK_UP, RxMode, command, registers};

use crate::{Accesses, Arrival, DmaRegion, Error, Nic, Offers, Platform, Task};
use hardware::{GONE, Hardware, is_station};
use interrupts::Interrupts;
use receive::{Count, MAX_PIECES, Queue, Rules};
use shared::Shared;
use transmit::Transmit;

/// Receive queues that are used at most.
pub const MAX_QUEUES: usize = 8;

/// The first vmxnet3 adapter.
pub struct Vmxnet3<'p, P> {
    hardware: Hardware<'p, P>,
    shared: Shared,
    interrupts: Interrupts,
    transmit: Transmit,
    queues: [Option<Queue>; MAX_QUEUES],
    queue_count: u8,
    /// The queue that is looked at first.
    first: u8,
    options: Options,
    revision: u8,
    address: [u8; 6],
}

impl<'p, P: Platform> Vmxnet3<'p, P> {
    /// Sets up the first vmxnet3 adapter on bus 0, with its receive queues full of buffers.
    ///
    /// # Errors
    /// When there is none or it cannot be set up.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        options.check()?;
        let large_receive = options.large_receive && options.checksum;
        let options = Options { large_receive, ..options };
        let hardware = Hardware::new(platform)?;
        // Another driver may have left it running.
        hardware.order(command::RESET_DEV);
        let revision = hardware.negotiate(options.revision)?;
        let own = hardware.address()?;
        let address = options.address.unwrap_or(own);
        if !is_station(address) {
            return Err(Error::Request("the address is not one station's"));
        }
        let interrupts = Interrupts::new(&hardware, &options)?;
        let queue_count = match interrupts.signalling {
            Signalling::MsiX => options.receive_queues,
            Signalling::Msi | Signalling::Pin => 1,
        };
        let rules = Rules {
            queues: queue_count,
            mtu: options.mtu,
            checksum: options.checksum,
            large: options.large_receive,
            data: revision >= 3,
        };
        let shared = Shared::new(platform)?;
        let wanted = (revision >= 3).then(|| hardware.ask(command::GET_TXDATA_DESC_SIZE));
        let transmit = Transmit::new(platform, shared.transmit_queue(), wanted, options.mtu)?;
        let mut queues = [const { None }; MAX_QUEUES];
        for (place, number) in queues.iter_mut().zip(0..queue_count) {
            let queue = Queue::new(platform, number, rules, shared.receive_queue(number))?;
            *place = Some(queue);
        }
        let mut this = Self {
            hardware,
            shared,
            interrupts,
            transmit,
            queues,
            queue_count,
            first: 0,
            options,
            revision,
            address,
        };
        match this.start() {
            Ok(()) => Ok(this),
            Err(error) => {
                this.hardware.order(command::RESET_DEV);
                Err(error)
            }
        }
    }

    /// Describes everything to the adapter, and starts it.
    fn start(&mut self) -> Result<(), Error> {
        let (plan, shared, hardware) = (&self.interrupts.plan, &self.shared, &self.hardware);
        let most = u16::try_from(MAX_PIECES).unwrap_or(1);
        shared.fill(&self.options, self.queue_count, most, &self.interrupts);
        shared.fill_transmit(self.transmit.conf(plan.transmit));
        for ((queue, number), interrupt) in self.queues.iter().flatten().zip(0..).zip(plan.receive)
        {
            shared.fill_receive(number, queue.conf(interrupt));
        }
        hardware.set_address(self.address);
        hardware.activate(shared.address())?;
        self.interrupts.mask_all(hardware);
        if let Some(coalescing) = self.options.coalescing {
            if self.revision < 3 {
                return Err(Error::Unsupported("coalescing by the driver's rules"));
            }
            shared.set_coalescing(&coalescing.scheme());
            if hardware.ask(command::SET_COALESCE) != 0 {
                return Err(Error::Unsupported("this coalescing"));
            }
        }
        for (queue, number) in self.queues.iter().flatten().zip(0..) {
            let doorbells = [registers::RXPROD, registers::RXPROD2];
            for (register, index) in doorbells.into_iter().zip(queue.filled()) {
                hardware.ring(register, number, index);
            }
        }
        // The filters come last.
        shared.set_mode(RxMode::UCAST | RxMode::BCAST);
        hardware.order(command::UPDATE_RX_MODE);
        hardware.order(command::UPDATE_VLAN_FILTERS);
        hardware.order(command::UPDATE_MAC_FILTERS);
        Ok(())
    }

    /// The revision of the interface in use: 1 to 3.
    pub fn revision(&self) -> u8 {
        self.revision
    }

    /// How the adapter signals interrupts.
    pub fn signalling(&self) -> Signalling {
        self.interrupts.signalling
    }

    /// Receive queues in use.
    pub fn receive_queues(&self) -> u8 {
        self.queue_count
    }

    /// Gives the adapter another station address.
    ///
    /// # Errors
    /// When it is not one station's.
    pub fn set_address(&mut self, address: [u8; 6]) -> Result<(), Error> {
        if !is_station(address) {
            return Err(Error::Request("the address is not one station's"));
        }
        self.hardware.set_address(address);
        self.address = address;
        Ok(())
    }

    /// As [`receive`](Nic::receive), from one queue.
    ///
    /// # Errors
    /// When there is no such queue, or the device misbehaves.
    pub fn receive_from(
        &mut self,
        queue: u8,
        limit: u16,
        visit: impl FnMut(Arrival<'_>),
    ) -> Result<u16, Error> {
        self.look(queue, limit, visit).map(|count| count.good)
    }

    /// What the adapter says of how the frame that a queue has received last was put there: the type
    /// of the RSS hash ([`rcd`](paraslot_spec::vmxnet3::rcd)) and the hash.
    pub fn last_hash(&self, queue: u8) -> Option<(u32, u32)> {
        self.queues.get(usize::from(queue))?.as_ref().map(Queue::hash)
    }

    fn look(
        &mut self,
        number: u8,
        limit: u16,
        visit: impl FnMut(Arrival<'_>),
    ) -> Result<Count, Error> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(number)) else {
            return Err(Error::Request("no such queue"));
        };
        let hardware = &self.hardware;
        let tell = |ring, index| {
            let register = if ring == 0 { registers::RXPROD } else { registers::RXPROD2 };
            hardware.ring(register, number, index);
        };
        queue.receive(limit, tell, visit)
    }

    /// Acknowledges what has happened.
    fn events(&mut self) -> Result<(), Error> {
        let events = self.shared.events();
        if events.is_empty() {
            return Ok(());
        }
        self.hardware.write(registers::ECR, events.bits());
        if events.intersects(Events::TQERR | Events::RQERR) {
            self.hardware.order(command::GET_QUEUE_STATUS);
            if self.shared.has_stopped(self.queue_count) {
                return Err(Error::Protocol("a queue has stopped"));
            }
        }
        Ok(())
    }
}

impl<P: Platform> Nic for Vmxnet3<'_, P> {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn link_up(&mut self) -> bool {
        let link = self.hardware.ask(command::GET_LINK);
        link != GONE && link & LINK_UP != 0
    }

    fn offers(&self) -> Offers {
        Offers {
            checksum: self.options.checksum,
            segmentation: self.options.segmentation,
            large_receive: self.options.large_receive,
        }
    }

    fn depth(&self) -> u16 {
        transmit::DEPTH
    }

    fn room(&self, len: usize, task: Task) -> usize {
        self.transmit.room(len, task)
    }

    fn transmit(
        &mut self,
        tag: u16,
        frame: &DmaRegion,
        len: usize,
        task: Task,
    ) -> Result<(), Error> {
        self.offers().check(task)?;
        self.transmit.push(tag, frame, len, task)
    }

    fn kick(&mut self) -> Result<(), Error> {
        if let Some(index) = self.transmit.tell() {
            self.hardware.ring(registers::TXPROD, 0, index);
        }
        Ok(())
    }

    fn reclaim(&mut self, done: impl FnMut(u16)) -> Result<(), Error> {
        match self.transmit.reclaim(done)? {
            true => Ok(()),
            // There may be a reason.
            false => self.events(),
        }
    }

    fn receive(&mut self, limit: u16, mut visit: impl FnMut(Arrival<'_>)) -> Result<u16, Error> {
        let (mut good, mut left) = (0, limit);
        // Each queue is the first in its turn, or a busy one would keep the others waiting.
        let first = self.first;
        self.first = if first + 1 >= self.queue_count { 0 } else { first + 1 };
        for number in (first..self.queue_count).chain(0..first) {
            let count = self.look(number, left, &mut visit)?;
            (good, left) = (good + count.good, left - count.all);
        }
        if left == limit {
            self.events()?;
        }
        Ok(good)
    }

    fn set_refill(&mut self, buffers: u16) {
        self.queues.iter_mut().flatten().for_each(|queue| queue.set_refill(buffers));
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        self.interrupts.set(&self.hardware, &self.shared, on)
    }

    fn set_transmit_interrupts(&mut self, on: bool) {
        self.interrupts.set_transmit(&self.hardware, on);
    }

    fn begin(&mut self) -> Result<bool, Error> {
        let ours = self.interrupts.begin(&self.hardware)?;
        if ours {
            self.events()?;
        }
        Ok(ours)
    }

    fn end(&mut self) -> Result<bool, Error> {
        self.interrupts.end(&self.hardware);
        // What came meanwhile interrupts now: the adapter remembers what it could not raise.
        Ok(false)
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.hardware.accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        let stopped = self.hardware.quiesce();
        self.shared.set_interrupts(false);
        self.interrupts.mask_all(&self.hardware);
        self.interrupts.disconnect(&self.hardware);
        self.hardware.order(command::RESET_DEV);
        stopped?;
        self.transmit.forget();
        Ok(())
    }
}
