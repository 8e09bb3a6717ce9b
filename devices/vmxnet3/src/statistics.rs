//! The counts of each queue.

use std::array;
use std::collections::BTreeMap;
use std::sync::Mutex;

use paraslot_device::StateError;
use paraslot_spec::net::{ETHERNET_BROADCAST, ETHERNET_GROUP};
use paraslot_spec::vmxnet3::{MAX_RX_QUEUES, MAX_TX_QUEUES, RxStats, TxStats};
use serde::{Deserialize, Serialize};

use crate::filter::Mac;
use crate::save::require;
use crate::shared::lock;

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Count {
    packets: u64,
    bytes: u64,
}

impl Count {
    pub(crate) fn add(&mut self, packets: u64, bytes: u64) {
        self.packets = self.packets.wrapping_add(packets);
        self.bytes = self.bytes.wrapping_add(bytes);
    }

    fn take(&mut self, other: &mut Self) {
        let Self { packets, bytes } = std::mem::take(other);
        self.add(packets, bytes);
    }
}

/// What a queue counts, in either direction; its state, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Counts {
    /// Of packets that were segmented, or put together.
    pub(crate) large: Count,
    unicast: Count,
    multicast: Count,
    broadcast: Count,
    pub(crate) errors: u64,
    /// Thrown away, or there was no buffer.
    pub(crate) lost: u64,
}

impl Counts {
    /// A packet with an error.
    pub(crate) fn error() -> Self {
        Self { errors: 1, ..Self::default() }
    }

    /// A packet that is lost.
    pub(crate) fn loss() -> Self {
        Self { lost: 1, ..Self::default() }
    }

    /// Counts packets that went to `destination`.
    pub(crate) fn passed(&mut self, destination: Mac, packets: u64, bytes: u64) {
        let count = if destination == ETHERNET_BROADCAST {
            &mut self.broadcast
        } else if destination[0] & ETHERNET_GROUP != 0 {
            &mut self.multicast
        } else {
            &mut self.unicast
        };
        count.add(packets, bytes);
    }

    fn take(&mut self, other: &mut Self) {
        let Self { large, unicast, multicast, broadcast, errors, lost } = self;
        large.take(&mut other.large);
        unicast.take(&mut other.unicast);
        multicast.take(&mut other.multicast);
        broadcast.take(&mut other.broadcast);
        *errors = errors.wrapping_add(std::mem::take(&mut other.errors));
        *lost = lost.wrapping_add(std::mem::take(&mut other.lost));
    }

    /// As a driver reads it.
    pub(crate) fn transmitted(&self) -> TxStats {
        TxStats {
            tso_pkts: self.large.packets.into(),
            tso_bytes: self.large.bytes.into(),
            ucast_pkts: self.unicast.packets.into(),
            ucast_bytes: self.unicast.bytes.into(),
            mcast_pkts: self.multicast.packets.into(),
            mcast_bytes: self.multicast.bytes.into(),
            bcast_pkts: self.broadcast.packets.into(),
            bcast_bytes: self.broadcast.bytes.into(),
            pkts_error: self.errors.into(),
            pkts_discard: self.lost.into(),
        }
    }

    /// As a driver reads it.
    pub(crate) fn received(&self) -> RxStats {
        RxStats {
            lro_pkts: self.large.packets.into(),
            lro_bytes: self.large.bytes.into(),
            ucast_pkts: self.unicast.packets.into(),
            ucast_bytes: self.unicast.bytes.into(),
            mcast_pkts: self.multicast.packets.into(),
            mcast_bytes: self.multicast.bytes.into(),
            bcast_pkts: self.broadcast.packets.into(),
            bcast_bytes: self.broadcast.bytes.into(),
            pkts_out_of_buf: self.lost.into(),
            pkts_error: self.errors.into(),
        }
    }
}

/// The counts of all queues. They go on over deactivations and resets by the driver, as the driver's
/// own do.
pub(crate) struct Statistics {
    transmit: [Mutex<Counts>; MAX_TX_QUEUES],
    receive: [Mutex<Counts>; MAX_RX_QUEUES],
}

impl Default for Statistics {
    fn default() -> Self {
        let (transmit, receive) = (array::from_fn(|_| Mutex::default()), Default::default());
        Self { transmit, receive }
    }
}

impl Statistics {
    /// Adds what a transmit queue has counted, and empties it.
    pub(crate) fn add_transmit(&self, queue: usize, tally: &mut Counts) {
        add(&self.transmit, queue, tally);
    }

    /// Adds what a receive queue has counted, and empties it.
    pub(crate) fn add_receive(&self, queue: usize, tally: &mut Counts) {
        add(&self.receive, queue, tally);
    }

    pub(crate) fn transmit(&self, queue: usize) -> Counts {
        get(&self.transmit, queue)
    }

    pub(crate) fn receive(&self, queue: usize) -> Counts {
        get(&self.receive, queue)
    }

    pub(crate) fn reset(&self) {
        for counts in self.transmit.iter().chain(&self.receive) {
            *lock(counts) = Counts::default();
        }
    }
}

/// What the queues have counted that have counted anything, by their numbers.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatisticsState {
    transmit: BTreeMap<u8, Counts>,
    receive: BTreeMap<u8, Counts>,
}

impl StatisticsState {
    /// Whether there are such queues.
    pub(crate) fn check(&self) -> Result<(), StateError> {
        let Self { transmit, receive } = self;
        let within = |counts: &BTreeMap<u8, Counts>, queues: usize| {
            counts.keys().all(|queue| usize::from(*queue) < queues)
        };
        let right = within(transmit, MAX_TX_QUEUES) && within(receive, MAX_RX_QUEUES);
        require(right, "statistics of queues that are not there")
    }
}

impl Statistics {
    pub(crate) fn save(&self) -> StatisticsState {
        let Self { transmit, receive } = self;
        let counts = |queues: &[Mutex<Counts>]| {
            let all = (0u8..).zip(queues).map(|(queue, counts)| (queue, *lock(counts)));
            all.filter(|(_, counts)| *counts != Counts::default()).collect()
        };
        StatisticsState { transmit: counts(transmit), receive: counts(receive) }
    }

    /// Takes over what was saved, and checked, after a reset.
    pub(crate) fn restore(&self, state: &StatisticsState) {
        let StatisticsState { transmit, receive } = state;
        for (queue, counts) in transmit {
            self.add_transmit((*queue).into(), &mut counts.clone());
        }
        for (queue, counts) in receive {
            self.add_receive((*queue).into(), &mut counts.clone());
        }
    }
}

fn add(queues: &[Mutex<Counts>], queue: usize, tally: &mut Counts) {
    if let Some(counts) = queues.get(queue)
        && *tally != Counts::default()
    {
        lock(counts).take(tally);
    }
}

fn get(queues: &[Mutex<Counts>], queue: usize) -> Counts {
    queues.get(queue).map_or_else(Counts::default, |counts| *lock(counts))
}
