//! How the device is configured, and what the driver sees of that.

use std::fmt;
use std::sync::Arc;

use paraslot_backends::net::NetInfo;
use paraslot_backends::net::hash::KEY;
use paraslot_device::{Clock, DeviceError, SystemClock};
use paraslot_spec::net::ETHERNET_GROUP;
use paraslot_spec::virtio::split::MAX_QUEUE_SIZE;
use paraslot_spec::virtio_net::{Config, SPEED_UNKNOWN, duplex, feature, status};

use crate::features::{self, HASH_TYPES};

/// Most pairs of queues.
pub const MAX_QUEUE_PAIRS: u16 = 256;
/// Most entries in each MAC table.
pub const MAX_FILTER_ENTRIES: u16 = 1024;
/// Entries of the largest indirection table.
pub(crate) const MAX_TABLE: u16 = 128;
/// Smallest MTU that may be told (5.1.4.1).
const MIN_MTU: u16 = 68;
/// Highest speed that can be told (5.1.4).
const MAX_SPEED: u32 = 0x7fff_ffff;

/// Whether a link carries both directions at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the field's own")]
pub enum Duplex {
    Half,
    Full,
}

/// How a [`VirtioNet`](crate::VirtioNet) presents itself.
#[derive(Clone)]
pub struct Options {
    /// Its address; neither for a group nor all zeroes.
    pub mac: [u8; 6],
    /// Pairs of a receive and a transmit queue, from 1 to [`MAX_QUEUE_PAIRS`] and at most as many as
    /// the backend has. One for each processor of the guest is best.
    pub queue_pairs: u16,
    /// Entries of each queue, a power of two from 4 to 32768.
    pub queue_size: u16,
    /// Largest IP packet in bytes, from 68 and at most the backend's; without, the backend's, if it
    /// has one.
    pub mtu: Option<u16>,
    /// Speed to be told in Mbit/s, up to 0x7fff_ffff; without, it is unknown.
    pub speed: Option<u32>,
    /// Duplex mode to be told; without, it is unknown.
    pub duplex: Option<Duplex>,
    /// Whether the link is up at first.
    pub link_up: bool,
    /// Entries of each MAC table, for unicast and for multicast, up to [`MAX_FILTER_ENTRIES`]. A
    /// driver that sets more gets all frames of the kind.
    pub max_filter_entries: u16,
    /// What may be offered, as feature bits; what needs a feature that is left out is left out too.
    pub features: u64,
    /// What holds notifications back.
    pub clock: Arc<dyn Clock>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("mac", &self.mac)
            .field("queue_pairs", &self.queue_pairs)
            .field("queue_size", &self.queue_size)
            .field("mtu", &self.mtu)
            .field("speed", &self.speed)
            .field("duplex", &self.duplex)
            .field("link_up", &self.link_up)
            .field("max_filter_entries", &self.max_filter_entries)
            .field("features", &format_args!("{:#x}", self.features))
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            mac: [0x52, 0x54, 0x00, 0x12, 0x34, 0x56],
            queue_pairs: 1,
            queue_size: 256,
            mtu: None,
            speed: None,
            duplex: None,
            link_up: true,
            max_filter_entries: 64,
            features: u64::MAX,
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// What the device makes of its options and its backend. Fixed.
#[derive(Clone)]
pub(crate) struct Limits {
    /// Features.
    pub(crate) offered: u64,
    pub(crate) mac: [u8; 6],
    /// Pairs of queues.
    pub(crate) pairs: u16,
    /// Largest IP packet, if that is known.
    pub(crate) mtu: Option<u16>,
    pub(crate) filter_entries: usize,
    pub(crate) clock: Arc<dyn Clock>,
}

fn refuse<T>(problem: String) -> Result<T, DeviceError> {
    Err(DeviceError::Config(format!("virtio-net: {problem}")))
}

impl Options {
    /// What is wrong with them for such a backend.
    fn check(&self, info: &NetInfo) -> Result<(), DeviceError> {
        let Self { mac, queue_pairs, queue_size, .. } = self;
        if mac[0] & ETHERNET_GROUP != 0 || *mac == [0; 6] {
            return refuse(format!("MAC address {mac:02x?}; choose one of a single station"));
        }
        if !(1..=MAX_QUEUE_PAIRS).contains(queue_pairs) {
            return refuse(format!("{queue_pairs} queue pairs; choose 1 to {MAX_QUEUE_PAIRS}"));
        }
        if *queue_pairs > info.queues {
            let most = info.queues;
            return refuse(format!("{queue_pairs} queue pairs; the backend has {most}"));
        }
        if !queue_size.is_power_of_two() || !(4..=MAX_QUEUE_SIZE).contains(queue_size) {
            return refuse(format!(
                "queue size {queue_size}; choose a power of two from 4 to {MAX_QUEUE_SIZE}"
            ));
        }
        let most = info.mtu.unwrap_or(u16::MAX);
        if let Some(mtu) = self.mtu.filter(|mtu| !(MIN_MTU..=most).contains(mtu)) {
            return refuse(format!("MTU {mtu}; choose {MIN_MTU} to {most}"));
        }
        if let Some(speed) = self.speed.filter(|speed| *speed > MAX_SPEED) {
            return refuse(format!("speed {speed} Mbit/s; choose up to {MAX_SPEED}"));
        }
        if self.max_filter_entries > MAX_FILTER_ENTRIES {
            let entries = self.max_filter_entries;
            return refuse(format!("{entries} filter entries; choose up to {MAX_FILTER_ENTRIES}"));
        }
        Ok(())
    }

    /// Features, configuration and limits for such a backend.
    pub(crate) fn resolve(&self, info: &NetInfo) -> Result<(u64, Config, Limits), DeviceError> {
        self.check(info)?;
        // A backend whose network takes less than any IPv4 host must does not say so to the driver.
        let mtu = self.mtu.or(info.mtu).filter(|mtu| *mtu >= MIN_MTU);
        let mut offered = features::SERVED;
        if mtu.is_none() {
            offered &= !feature::MTU;
        }
        if self.queue_pairs == 1 {
            offered &= !feature::MQ;
        }
        let offered = features::consistent(offered & self.features);
        let has = |any: u64| offered & any != 0;

        let mut config = Config::default();
        if has(feature::MAC) {
            config.mac = self.mac;
        }
        if has(feature::STATUS) {
            config.status = if self.link_up { status::LINK_UP } else { 0 }.into();
        }
        if has(feature::MQ | feature::RSS) {
            config.max_virtqueue_pairs = self.queue_pairs.into();
        }
        if has(feature::MTU) {
            config.mtu = mtu.unwrap_or_default().into();
        }
        if has(feature::SPEED_DUPLEX) {
            config.speed = self.speed.unwrap_or(SPEED_UNKNOWN).into();
            config.duplex = match self.duplex {
                Some(Duplex::Half) => duplex::HALF,
                Some(Duplex::Full) => duplex::FULL,
                None => duplex::UNKNOWN,
            };
        }
        if has(feature::RSS | feature::HASH_REPORT) {
            config.rss_max_key_size = u8::try_from(KEY).unwrap_or(u8::MAX);
            config.supported_hash_types = HASH_TYPES.bits().into();
        }
        if has(feature::RSS) {
            config.rss_max_indirection_table_length = MAX_TABLE.into();
        }
        let limits = Limits {
            offered,
            mac: self.mac,
            pairs: self.queue_pairs,
            mtu,
            filter_entries: self.max_filter_entries.into(),
            clock: self.clock.clone(),
        };
        Ok((offered, config, limits))
    }
}
