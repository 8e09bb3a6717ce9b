//! What the driver is asked for, and what the device says of itself (5.1.3, 5.1.4).

use core::mem::offset_of;

use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_net::{Config, feature as net, mq};

use super::{MAX_ENTRIES, MAX_PAIRS};
use crate::virtio::Transport;
use crate::{Error, Platform};

/// Fewest bytes of a receive buffer.
const MIN_BUFFER: u32 = 128;
/// Most bytes of a receive buffer of which a frame may fill several.
const MAX_BUFFER: u32 = 65536;
/// The smallest MTU that a device may ask for (5.1.4.2).
const MIN_MTU: u16 = 68;

/// How a frame to be sent is described to the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// One descriptor: the header lies in front of the frame, as Linux has it. The driver wants
    /// [`headroom`](crate::Nic::headroom).
    Headroom,
    /// Two descriptors: the header lies apart.
    #[default]
    Chain,
    /// The same two in an indirect table, so that the queue takes as many frames as it has entries.
    Indirect,
}

/// How an adapter is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Features to use if the device offers them, and what they depend on.
    pub accept: u64,
    /// Entries of each queue at most: a power of two up to 1024.
    pub size: u16,
    /// Pairs of queues to use, 1 to [`MAX_PAIRS`]; tags are dealt to them in turn.
    pub pairs: u16,
    /// How frames to be sent are described.
    pub layout: Layout,
    /// Bytes of each receive buffer, the header included, when a frame may fill several: 128 to 65536.
    /// Otherwise they are as large as a frame can be.
    pub buffer: u32,
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// The platform's number of the interrupt for changes of the device's configuration, if those are
    /// wanted.
    pub config_interrupt: Option<u8>,
}

impl Options {
    /// Work on frames that is left to the device, or by the device to the driver.
    pub const OFFLOADS: u64 = net::CSUM
        | net::HOST_TSO4
        | net::GUEST_CSUM
        | net::GUEST_TSO4
        | net::GUEST_TSO6
        | net::GUEST_ECN
        | net::GUEST_UFO
        | net::GUEST_USO4
        | net::GUEST_USO6
        | net::GUEST_HDRLEN;

    /// The features that drivers in use accept.
    pub const USUAL_FEATURES: u64 = Self::OFFLOADS
        | feature::INDIRECT_DESC
        | feature::EVENT_IDX
        | feature::RING_RESET
        | net::CTRL_GUEST_OFFLOADS
        | net::MTU
        | net::MAC
        | net::MRG_RXBUF
        | net::STATUS
        | net::CTRL_VQ
        | net::CTRL_RX
        | net::CTRL_RX_EXTRA
        | net::GUEST_ANNOUNCE
        | net::MQ
        | net::CTRL_MAC_ADDR
        | net::VQ_NOTF_COAL
        | net::NOTF_COAL
        | net::SPEED_DUPLEX;

    /// Every feature that this driver knows: also those that cost something in every frame, or keep
    /// frames out until they are asked for.
    pub const ALL_FEATURES: u64 =
        Self::USUAL_FEATURES | net::CTRL_VLAN | net::RSS | net::HASH_REPORT;

    /// The usual features, one pair of queues with 256 entries, interrupt 0, and buffers for frames
    /// of Ethernet's usual size.
    pub const fn new() -> Self {
        Self {
            accept: Self::USUAL_FEATURES,
            size: 256,
            pairs: 1,
            layout: Layout::Chain,
            buffer: 1536,
            interrupt: 0,
            config_interrupt: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        if !self.size.is_power_of_two() || self.size > MAX_ENTRIES {
            return Err(Error::Request("entries of a queue"));
        }
        if !(1..=MAX_PAIRS).contains(&usize::from(self.pairs)) {
            return Err(Error::Request("pairs of queues"));
        }
        if !(MIN_BUFFER..=MAX_BUFFER).contains(&self.buffer) {
            return Err(Error::Request("bytes of a buffer"));
        }
        Ok(())
    }

    /// The features to use of those that are offered: without those that depend on others which are
    /// not used (5.1.3.1).
    pub(super) fn choose(&self, offered: u64) -> u64 {
        /// Features, and those of which they need one.
        const NEEDS: [(u64, u64); 5] = [
            (net::HOST_TSO4, net::CSUM),
            (
                net::GUEST_TSO4
                    | net::GUEST_TSO6
                    | net::GUEST_UFO
                    | net::GUEST_USO4
                    | net::GUEST_USO6,
                net::GUEST_CSUM,
            ),
            (net::GUEST_ECN, net::GUEST_TSO4 | net::GUEST_TSO6),
            (
                net::CTRL_GUEST_OFFLOADS
                    | net::CTRL_RX
                    | net::CTRL_VLAN
                    | net::GUEST_ANNOUNCE
                    | net::MQ
                    | net::CTRL_MAC_ADDR
                    | net::VQ_NOTF_COAL
                    | net::NOTF_COAL
                    | net::RSS
                    | net::HASH_REPORT,
                net::CTRL_VQ,
            ),
            (net::CTRL_RX_EXTRA, net::CTRL_RX),
        ];
        // In this order nothing needs what comes after it.
        NEEDS.iter().fold(offered & self.accept, |features, (dependent, needed)| {
            if features & needed == 0 { features & !dependent } else { features }
        })
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}

/// What the device says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// `None` if the driver is to choose one.
    pub(super) address: Option<[u8; 6]>,
    /// Pairs of queues that the device has.
    pub(super) max_pairs: u16,
    /// Largest IP packet, in bytes.
    pub(super) mtu: Option<u16>,
}

pub(super) fn read_config<P: Platform>(transport: &Transport<'_, P>) -> Result<Settings, Error> {
    let settings = transport.consistent(|transport| Settings {
        address: transport.has(net::MAC).then(|| {
            core::array::from_fn(|index| transport.config8(offset_of!(Config, mac) + index))
        }),
        max_pairs: match transport.features() & (net::MQ | net::RSS) {
            0 => 1,
            _ => transport.config16(offset_of!(Config, max_virtqueue_pairs)),
        },
        mtu: transport.has(net::MTU).then(|| transport.config16(offset_of!(Config, mtu))),
    })?;
    if !(mq::PAIRS_MIN..=mq::PAIRS_MAX).contains(&settings.max_pairs) {
        return Err(Error::Protocol("its number of queue pairs makes no sense"));
    }
    if settings.mtu.is_some_and(|mtu| mtu < MIN_MTU) {
        return Err(Error::Protocol("its MTU makes no sense"));
    }
    if settings.address.is_some_and(|[first, ..]| first & 1 != 0) {
        return Err(Error::Protocol("its address is a group's"));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    // 5.1.3.1: a driver that takes a feature without what it depends on may be refused.
    #[test]
    fn features_are_chosen_with_what_they_depend_on() {
        let all = Options { accept: Options::ALL_FEATURES, ..Options::new() };
        assert_eq!(all.choose(u64::MAX), Options::ALL_FEATURES);
        for (missing, gone) in [
            (net::CSUM, net::HOST_TSO4),
            (
                net::GUEST_CSUM,
                net::GUEST_TSO4
                    | net::GUEST_TSO6
                    | net::GUEST_ECN
                    | net::GUEST_UFO
                    | net::GUEST_USO4
                    | net::GUEST_USO6,
            ),
            (net::GUEST_TSO4 | net::GUEST_TSO6, net::GUEST_ECN),
            (net::GUEST_TSO4, 0),
            (net::CTRL_RX, net::CTRL_RX_EXTRA),
            (
                net::CTRL_VQ,
                net::CTRL_GUEST_OFFLOADS
                    | net::CTRL_RX
                    | net::CTRL_RX_EXTRA
                    | net::CTRL_VLAN
                    | net::GUEST_ANNOUNCE
                    | net::MQ
                    | net::CTRL_MAC_ADDR
                    | net::VQ_NOTF_COAL
                    | net::NOTF_COAL
                    | net::RSS
                    | net::HASH_REPORT,
            ),
        ] {
            let expected = Options::ALL_FEATURES & !missing & !gone;
            assert_eq!(all.choose(!missing), expected, "{missing:#x} is not offered");
            let options = Options { accept: !missing, ..all };
            assert_eq!(
                options.choose(Options::ALL_FEATURES),
                expected,
                "{missing:#x} is not taken"
            );
        }
    }
}
