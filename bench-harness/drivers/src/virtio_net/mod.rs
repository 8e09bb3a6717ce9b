//! virtio-net (VIRTIO 1.4, 5.1).
//!
//! Not driven: tunnels and IPsec, UDP to be segmented by the device, segments coalesced by it,
//! statistics, and devices that stand in for others.

mod config;
mod control;
mod nic;
mod receive;
#[cfg(test)]
mod tests;
mod transmit;

pub use config::{Layout, Options};
pub use control::Rss;

use core::mem::offset_of;

use paraslot_spec::virtio::{device_type, feature};
use paraslot_spec::virtio_net::{Config, HashHeader, Header, feature as net, status};
use zerocopy::little_endian::U32;
use zerocopy::transmute;

use config::{Settings, read_config};
use control::Control;
use receive::{MAX_PIECES, Receiver, Rules};
use transmit::{Tag, Transmitter};

use crate::virtio::{NotifyAddress, SplitQueue, Transport, find};
use crate::{Arrival, DmaRegion, Error, Platform};

/// Pairs of queues that are used at most.
pub const MAX_PAIRS: usize = 8;
/// Frames with the adapter to be sent, at most.
pub const MAX_TAGS: usize = 256;
/// Entries of a queue that are used at most.
const MAX_ENTRIES: u16 = 1024;
/// Bytes of the longest frame: the longest IP packet, an Ethernet header and two VLAN tags.
const MAX_FRAME: usize = 65535 + 14 + 8;
/// IP packets that an Ethernet carries usually, in bytes.
const USUAL_MTU: u16 = 1500;
/// Free buffers that gather before the device is told of them.
const REFILL: u16 = 16;

/// How a queue is notified.
#[derive(Clone, Copy, Debug)]
struct Registers {
    index: u16,
    address: NotifyAddress,
}

impl Registers {
    fn notify<P: Platform>(&self, transport: &Transport<'_, P>) {
        transport.notify(self.address, self.index);
    }
}

struct Pair {
    receiver: Receiver,
    transmitter: Transmitter,
}

/// A virtio network adapter.
///
/// The receive queues are kept supplied with buffers that were set up once. Each tag has its
/// descriptors too, and a frame like the one before it changes nothing but the available ring.
pub struct VirtioNet<'p, P> {
    transport: Transport<'p, P>,
    pairs: [Option<Pair>; MAX_PAIRS],
    pair_count: u16,
    control: Option<Control>,
    /// The index of the control queue.
    control_index: u16,
    tags: [Tag; MAX_TAGS],
    depth: u16,
    /// The pieces of the frame that is being handed over.
    pieces: [DmaRegion; MAX_PIECES],
    rules: Rules,
    refill: u16,
    interrupts: bool,
    transmit_interrupts: bool,
    options: Options,
    address: [u8; 6],
    settings: Settings,
}

impl<'p, P: Platform> VirtioNet<'p, P> {
    /// Sets up the first virtio-net device on bus 0, with its receive queues full of buffers.
    ///
    /// # Errors
    /// When there is none, it cannot be set up, or lacks queues for what was asked for.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        options.check()?;
        let function = find(platform, device_type::NET).ok_or(Error::NotFound)?;
        let transport = Transport::negotiate(function, |offered| options.choose(offered))?;
        let settings = read_config(&transport).map_err(|error| transport.fail(error))?;
        let features = transport.features();
        let header_len = match features & net::HASH_REPORT {
            0 => size_of::<Header>(),
            _ => size_of::<HashHeader>(),
        };
        // Never accessed: what is used of the pieces is replaced before.
        let nothing = platform.allocate(16).ok_or(Error::NoMemory)?;
        let mut this = Self {
            transport,
            pairs: [const { None }; MAX_PAIRS],
            pair_count: options.pairs,
            control: None,
            control_index: 0,
            tags: [Tag::default(); MAX_TAGS],
            depth: 0,
            pieces: core::array::from_fn(|_| nothing.clone()),
            rules: Rules::new(features, header_len),
            refill: REFILL,
            interrupts: false,
            transmit_interrupts: false,
            options,
            address: settings.address.unwrap_or_else(|| local_address(platform.tsc())),
            settings,
        };
        let result = this.start();
        match result {
            Ok(()) => Ok(this),
            Err(error) => Err(this.transport.fail(error)),
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        let pairs = self.pair_count;
        if pairs > self.settings.max_pairs {
            return Err(Error::Unsupported("so many queues"));
        }
        if self.options.layout == Layout::Indirect && !self.transport.has(feature::INDIRECT_DESC) {
            return Err(Error::Unsupported("VIRTIO_F_INDIRECT_DESC"));
        }
        let mut size = self.options.size;
        for pair in 0..pairs {
            size = self.transport.queue_size(2 * pair + 1, size)?;
        }
        let per_queue = Transmitter::capacity(size, self.options.layout);
        let most = u16::try_from(MAX_TAGS).unwrap_or(u16::MAX);
        self.depth = per_queue.saturating_mul(pairs).min(most);
        let buffer = self.buffer_len()?;
        let header_len = self.rules.header_len;
        for pair in 0..pairs {
            let (ring, registers) = self.enable_queue(2 * pair, self.options.size)?;
            let platform = self.transport.platform();
            let receiver = Receiver::new(platform, ring, registers, header_len, buffer)?;
            let (ring, registers) = self.enable_queue(2 * pair + 1, size)?;
            let count = self.depth.div_ceil(pairs);
            let layout = self.options.layout;
            let transmitter =
                Transmitter::new(platform, ring, registers, layout, header_len, count)?;
            if let Some(place) = self.pairs.get_mut(usize::from(pair)) {
                *place = Some(Pair { receiver, transmitter });
            }
        }
        if self.transport.has(net::CTRL_VQ) {
            // 5.1.2: it comes behind all that the device has, also those that are not used.
            self.control_index = self.settings.max_pairs.saturating_mul(2);
            let (ring, registers) = self.enable_queue(self.control_index, 16)?;
            self.control = Some(Control::new(self.transport.platform(), ring, registers)?);
        }
        if let Some(index) = self.options.config_interrupt {
            let vector = self.config_vector().ok_or(Error::Unsupported("so many vectors"))?;
            let message = self.transport.platform().interrupt_message(index);
            self.transport.set_config_vector(vector, message)?;
        }
        self.transport.driver_ok();
        self.fill();
        if pairs > 1 {
            self.set_pairs(pairs)?;
        }
        if self.settings.address.is_none() && self.transport.has(net::CTRL_MAC_ADDR) {
            self.set_address(self.address)?;
        }
        Ok(())
    }

    /// Gives the device all receive buffers.
    fn fill(&mut self) {
        for pair in self.pairs.iter_mut().flatten() {
            if pair.receiver.fill() {
                pair.receiver.registers().notify(&self.transport);
            }
        }
    }

    /// Bytes of each receive buffer, the header included (5.1.9.3.1).
    fn buffer_len(&self) -> Result<u32, Error> {
        let header = self.rules.header_len;
        let mtu = usize::from(self.settings.mtu.unwrap_or(USUAL_MTU).max(USUAL_MTU));
        let usual = header + mtu + 14 + 8;
        let len = match (self.rules.mergeable, self.rules.large()) {
            (true, large) => {
                let len = usize::try_from(self.options.buffer).unwrap_or(0);
                let longest = if large { header + MAX_FRAME } else { usual };
                if len * MAX_PIECES < longest {
                    return Err(Error::Request("bytes of a buffer"));
                }
                len
            }
            (false, true) => header + MAX_FRAME,
            (false, false) => usual,
        };
        u32::try_from(len).map_err(|_| Error::NoMemory)
    }

    /// The vector for changes of the configuration: the last, so that queues have the first.
    fn config_vector(&self) -> Option<u16> {
        self.transport.vectors().checked_sub(1).filter(|vector| *vector > 0)
    }

    fn enable_queue(&self, index: u16, limit: u16) -> Result<(SplitQueue, Registers), Error> {
        let size = self.transport.queue_size(index, limit)?;
        let event_idx = self.transport.has(feature::EVENT_IDX);
        let ring = SplitQueue::new(self.transport.platform(), size, event_idx)?;
        let address = self.hand_over(index, &ring)?;
        Ok((ring, Registers { index, address }))
    }

    /// Hands a queue to the device. It has a vector of its own, if there are enough for those with
    /// frames; they all send the same message.
    fn hand_over(&self, index: u16, ring: &SplitQueue) -> Result<NotifyAddress, Error> {
        let vectors = match self.options.config_interrupt {
            None => self.transport.vectors(),
            Some(_) => self.config_vector().unwrap_or(0),
        };
        let vector = if vectors >= 2 * self.pair_count { index } else { 0 };
        let message = self.transport.platform().interrupt_message(self.options.interrupt);
        // Nobody waits for the control queue's interrupts.
        let wanted = vectors != 0 && index < 2 * self.pair_count;
        self.transport.enable_queue(index, &ring.layout(), wanted.then_some((vector, message)))
    }

    /// As [`receive`](crate::Nic::receive), from one pair of queues.
    ///
    /// # Errors
    /// When there is no such pair, or the device misbehaves.
    pub fn receive_from(
        &mut self,
        pair: u16,
        limit: u16,
        mut visit: impl FnMut(Arrival<'_>),
    ) -> Result<u16, Error> {
        let Some(Some(pair)) = self.pairs.get_mut(usize::from(pair)) else {
            return Err(Error::Request("no such pair of queues"));
        };
        let receiver = &mut pair.receiver;
        let refill = self.refill.min(receiver.count() / 4).max(1);
        let mut count = 0;
        while count < limit {
            let Some(arrival) = receiver.next(&self.rules, &mut self.pieces)? else { break };
            visit(arrival);
            count += 1;
            if receiver.free_count() >= usize::from(refill) && receiver.refill() {
                receiver.registers().notify(&self.transport);
            }
        }
        Ok(count)
    }

    /// The header of the frame that was received last from a pair of queues. Without HASH_REPORT it
    /// has no hash.
    pub fn last_header(&self, pair: u16) -> HashHeader {
        let pair = self.pairs.get(usize::from(pair)).and_then(Option::as_ref);
        let words = pair.map_or([0; 5], |pair| pair.receiver.last_header()).map(U32::new);
        transmute!(words)
    }

    /// Resets the queues with frames alone, and enables them anew. What was in flight is lost, and
    /// interrupts are off afterwards.
    ///
    /// # Errors
    /// When the device does not offer RING_RESET, or misbehaves.
    pub fn reset_queues(&mut self) -> Result<(), Error> {
        for index in 0..2 * self.pair_count {
            self.transport.reset_queue(index)?;
        }
        for index in 0..usize::from(self.pair_count) {
            let Some(Some(pair)) = self.pairs.get_mut(index) else { continue };
            pair.receiver.clear();
            pair.transmitter.ring().clear();
        }
        let mut pairs = core::mem::replace(&mut self.pairs, [const { None }; MAX_PAIRS]);
        let mut result = Ok(());
        for pair in pairs.iter_mut().flatten() {
            result = result.and_then(|()| {
                let receiver = &mut pair.receiver;
                let index = receiver.registers().index;
                receiver.registers().address = self.hand_over(index, receiver.ring())?;
                let transmitter = &mut pair.transmitter;
                let index = transmitter.registers().index;
                transmitter.registers().address = self.hand_over(index, transmitter.ring())?;
                Ok(())
            });
        }
        self.pairs = pairs;
        result?;
        self.tags.iter_mut().for_each(|tag| {
            tag.take_back();
        });
        (self.interrupts, self.transmit_interrupts) = (false, false);
        self.fill();
        Ok(())
    }

    /// Features in use.
    pub fn features(&self) -> u64 {
        self.transport.features()
    }

    /// Pairs of queues that the device has.
    pub fn max_pairs(&self) -> u16 {
        self.settings.max_pairs
    }

    /// The largest IP packet that the device's network takes, in bytes, if it says.
    pub fn mtu(&self) -> Option<u16> {
        self.settings.mtu
    }

    /// Whether the device asks for gratuitous packets (5.1.9.5.4).
    pub fn announcement_wanted(&self) -> bool {
        self.status() & status::ANNOUNCE != 0
    }

    /// The device's status; the link is up if it has none.
    fn status(&self) -> u16 {
        match self.transport.has(net::STATUS) {
            true => self.transport.config16(offset_of!(Config, status)),
            false => status::LINK_UP,
        }
    }
}

/// An address that is administered locally (IEEE 802, 8.4).
fn local_address(seed: u64) -> [u8; 6] {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let [.., a, b, c, d, e] = mixed.to_le_bytes();
    [0x02, a, b, c, d, e]
}

const _: () = {
    assert!(size_of::<HashHeader>() == 20);
    assert!(offset_of!(HashHeader, hash_value) == 12);
};
