//! The control queue (5.1.9.5).

use paraslot_spec::virtio::split::{DESC_F_NEXT, DESC_F_WRITE};
use paraslot_spec::virtio_net::{
    Coalesce, CoalesceQueue, ControlHeader, HashConfig, RssConfig, ack, announce, class,
    feature as net, guest_offloads, mac, mq, notf_coal, rx, vlan,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::{Registers, VirtioNet};
use crate::error::wait_until;
use crate::virtio::{SplitQueue, Transport};
use crate::{DmaRegion, Error, Platform};

/// How long a command may take, in milliseconds.
const COMMAND_MS: u64 = 5000;
/// Bytes of a command at most, the header included.
const MAX_COMMAND: usize = 3072;
/// Where the answer goes, one byte, and data that the device fills in.
const ACK: usize = MAX_COMMAND;
const RESULT: usize = ACK + 16;
const MAX_RESULT: usize = 256;

/// The queue and the memory of the one command that it has at a time.
pub(super) struct Control {
    ring: SplitQueue,
    registers: Registers,
    memory: DmaRegion,
    /// A command was given up on, and may yet be done.
    lost: bool,
}

impl Control {
    pub(super) fn new<P: Platform>(
        platform: &P,
        ring: SplitQueue,
        registers: Registers,
    ) -> Result<Self, Error> {
        let memory = platform.allocate(RESULT + MAX_RESULT).ok_or(Error::NoMemory)?;
        Ok(Self { ring, registers, memory, lost: false })
    }

    pub(super) fn clear(&mut self) {
        self.ring.clear();
        self.lost = false;
    }

    fn command<P: Platform>(
        &mut self,
        transport: &Transport<'_, P>,
        header: ControlHeader,
        data: &[&[u8]],
        result: &mut [u8],
    ) -> Result<(), Error> {
        if self.lost {
            return Err(Error::Busy);
        }
        let mut len = 0;
        for part in [header.as_bytes()].iter().chain(data) {
            if part.len() > MAX_COMMAND - len {
                return Err(Error::Request("the command is too long"));
            }
            self.memory.write_bytes(len, part);
            len += part.len();
        }
        if result.len() > MAX_RESULT {
            return Err(Error::Request("the result is too long"));
        }
        // An answer that the device never gives, to see whether it has.
        self.memory.write8(ACK, u8::MAX);
        let size = |len: usize| u32::try_from(len).unwrap_or(0);
        let at = |offset| self.memory.physical(offset);
        self.ring.set_descriptor(0, at(0), size(len), DESC_F_NEXT, 1);
        if result.is_empty() {
            self.ring.set_descriptor(1, at(ACK), 1, DESC_F_WRITE, 0);
        } else {
            let flags = DESC_F_WRITE | DESC_F_NEXT;
            self.ring.set_descriptor(1, at(RESULT), size(result.len()), flags, 2);
            self.ring.set_descriptor(2, at(ACK), 1, DESC_F_WRITE, 0);
        }
        self.ring.push(0);
        if self.ring.publish() {
            self.registers.notify(transport);
        }
        self.lost = true;
        let mut used = Ok(None);
        wait_until(transport.platform(), COMMAND_MS, "a control command", || {
            used = self.ring.pop();
            !matches!(used, Ok(None))
        })?;
        let Some(used) = used? else { return Err(Error::Timeout("a control command")) };
        if used.head != 0 {
            return Err(Error::Protocol("a buffer that it was not given"));
        }
        self.lost = false;
        match self.memory.read8(ACK) {
            ack::OK if used.len == size(1 + result.len()) => {
                self.memory.read_bytes(RESULT, result);
                Ok(())
            }
            ack::ERR if (1..=size(1 + result.len())).contains(&used.len) => {
                Err(Error::Unsupported("the control command"))
            }
            _ => Err(Error::Protocol("its answer to a control command makes no sense")),
        }
    }
}

/// How received frames are spread over queues by their hashes (5.1.9.5.7).
#[derive(Clone, Copy, Debug)]
pub struct Rss<'a> {
    /// Which hashes are calculated, `hash_type::*`.
    pub hash_types: u32,
    /// The receive queue for each remainder of the hash, a power of two of them, from 0.
    pub table: &'a [u16],
    /// The receive queue of frames that have no hash.
    pub unclassified: u16,
    /// Transmit queues in use.
    pub transmit_queues: u16,
    /// The hash's key.
    pub key: &'a [u8],
}

/// Commands. Each fails with [`Error::Unsupported`] if the device refuses it, or its feature is not
/// in use.
impl<P: Platform> VirtioNet<'_, P> {
    /// Sends any command: the header, what `data` holds, and room for the rest of the command's data
    /// that the device is to fill in, which goes to `result`.
    ///
    /// # Errors
    /// When there is no control queue, the device refuses, or it does not answer in time; then no
    /// further command can be sent.
    pub fn command(
        &mut self,
        class: u8,
        command: u8,
        data: &[&[u8]],
        result: &mut [u8],
    ) -> Result<(), Error> {
        let control = self.control.as_mut().ok_or(Error::Unsupported("VIRTIO_NET_F_CTRL_VQ"))?;
        control.command(&self.transport, ControlHeader::new(class, command), data, result)
    }

    fn command_of(
        &mut self,
        needed: u64,
        class: u8,
        command: u8,
        data: &[&[u8]],
    ) -> Result<(), Error> {
        if self.transport.features() & needed == 0 {
            return Err(Error::Unsupported("the command's feature"));
        }
        self.command(class, command, data, &mut [])
    }

    /// Switches a receive mode, `rx::*`, on or off.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_receive_mode(&mut self, mode: u8, on: bool) -> Result<(), Error> {
        let needed = match mode {
            rx::PROMISC | rx::ALLMULTI => net::CTRL_RX,
            _ => net::CTRL_RX_EXTRA,
        };
        self.command_of(needed, class::RX, mode, &[&[u8::from(on)]])
    }

    /// Sets the addresses, besides the adapter's own, whose frames are received.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_mac_table(
        &mut self,
        unicast: &[[u8; 6]],
        multicast: &[[u8; 6]],
    ) -> Result<(), Error> {
        let count = |table: &[[u8; 6]]| U32::new(u32::try_from(table.len()).unwrap_or(u32::MAX));
        let (first, second) = (count(unicast), count(multicast));
        let data =
            [first.as_bytes(), unicast.as_flattened(), second.as_bytes(), multicast.as_flattened()];
        self.command_of(net::CTRL_RX, class::MAC, mac::TABLE_SET, &data)
    }

    /// Sets the adapter's own address.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_address(&mut self, address: [u8; 6]) -> Result<(), Error> {
        self.command_of(net::CTRL_MAC_ADDR, class::MAC, mac::ADDR_SET, &[&address])?;
        self.address = address;
        Ok(())
    }

    /// Lets a VLAN's frames in, or keeps them out.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_vlan(&mut self, vlan: u16, on: bool) -> Result<(), Error> {
        let command = if on { vlan::ADD } else { vlan::DEL };
        self.command_of(net::CTRL_VLAN, class::VLAN, command, &[U16::new(vlan).as_bytes()])
    }

    /// Says that the gratuitous packets which the device asked for were sent.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn acknowledge_announcement(&mut self) -> Result<(), Error> {
        self.command_of(net::GUEST_ANNOUNCE, class::ANNOUNCE, announce::ACK, &[])
    }

    /// Sets how many pairs of queues the device spreads received frames over.
    ///
    /// # Errors
    /// When so many are not set up, the device refuses, or does not answer.
    pub fn set_pairs(&mut self, pairs: u16) -> Result<(), Error> {
        if pairs == 0 || pairs > self.pair_count {
            return Err(Error::Request("pairs of queues"));
        }
        let data = U16::new(pairs);
        self.command_of(net::MQ, class::MQ, mq::VQ_PAIRS_SET, &[data.as_bytes()])
    }

    /// Has received frames spread by their hashes.
    ///
    /// # Errors
    /// When the table's length is no power of two, the device refuses, or does not answer.
    pub fn set_rss(&mut self, rss: &Rss<'_>) -> Result<(), Error> {
        /// Entries of the longest table that fits a command.
        const MAX_TABLE: usize = 1024;
        let entries = rss.table.len();
        if !entries.is_power_of_two() || entries > MAX_TABLE {
            return Err(Error::Request("entries of a table"));
        }
        let start = RssConfig {
            hash_types: U32::new(rss.hash_types),
            indirection_table_mask: U16::new(u16::try_from(entries - 1).unwrap_or(0)),
            unclassified_queue: U16::new(rss.unclassified),
        };
        let mut table = [U16::ZERO; MAX_TABLE];
        table.iter_mut().zip(rss.table).for_each(|(entry, queue)| *entry = U16::new(*queue));
        let table = table.get(..entries).unwrap_or_default();
        let queues = U16::new(rss.transmit_queues);
        let key_len =
            [u8::try_from(rss.key.len()).map_err(|_| Error::Request("the key is too long"))?];
        let data = [start.as_bytes(), table.as_bytes(), queues.as_bytes(), &key_len, rss.key];
        self.command_of(net::RSS, class::MQ, mq::RSS_CONFIG, &data)
    }

    /// Has the hashes of received frames calculated, for their headers.
    ///
    /// # Errors
    /// When the key is too long, the device refuses, or does not answer.
    pub fn set_hashes(&mut self, hash_types: u32, key: &[u8]) -> Result<(), Error> {
        let len = u8::try_from(key.len()).map_err(|_| Error::Request("the key is too long"))?;
        let start = HashConfig::new(hash_types, len);
        let data = [start.as_bytes(), key];
        self.command_of(net::HASH_REPORT, class::MQ, mq::HASH_CONFIG, &data)
    }

    /// Sets what may be left to the driver to do with received frames, as the features' bits.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_guest_offloads(&mut self, offloads: u64) -> Result<(), Error> {
        let data = U64::new(offloads);
        let (class, command) = (class::GUEST_OFFLOADS, guest_offloads::SET);
        self.command_of(net::CTRL_GUEST_OFFLOADS, class, command, &[data.as_bytes()])
    }

    /// Has notifications held back, of all receive or all transmit queues.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_coalescing(&mut self, transmit: bool, coalesce: Coalesce) -> Result<(), Error> {
        let command = if transmit { notf_coal::TX_SET } else { notf_coal::RX_SET };
        self.command_of(net::NOTF_COAL, class::NOTF_COAL, command, &[coalesce.as_bytes()])
    }

    /// Has notifications held back of one queue, by its index.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn set_queue_coalescing(&mut self, queue: u16, coalesce: Coalesce) -> Result<(), Error> {
        let data = CoalesceQueue::new(queue, coalesce);
        let (class, command) = (class::NOTF_COAL, notf_coal::VQ_SET);
        self.command_of(net::VQ_NOTF_COAL, class, command, &[data.as_bytes()])
    }

    /// How one queue's notifications are held back.
    ///
    /// # Errors
    /// When the device refuses, or does not answer.
    pub fn queue_coalescing(&mut self, queue: u16) -> Result<Coalesce, Error> {
        if !self.transport.has(net::VQ_NOTF_COAL) {
            return Err(Error::Unsupported("the command's feature"));
        }
        // The structure's first two fields; the device fills in the last.
        let data = [U16::new(queue), U16::ZERO];
        let mut coalesce = Coalesce::default();
        let (class, command) = (class::NOTF_COAL, notf_coal::VQ_GET);
        self.command(class, command, &[data.as_bytes()], coalesce.as_mut_bytes())?;
        Ok(coalesce)
    }
}
