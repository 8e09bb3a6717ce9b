//! What the driver has negotiated and set up.

use paraslot_backends::net::Offloads;
use paraslot_backends::net::hash::{HashTypes, KEY, Toeplitz};
use paraslot_backends::net::parse::Headers;
use paraslot_spec::virtio_net::{guest_offloads, mq};

use crate::coalesce::Coalesce;
use crate::config::{Limits, MAX_TABLE};
use crate::features::{self, HASH_TYPES};
use crate::filter::Filter;
use crate::inbox::Hash;

/// How frames are distributed over the receive queues.
#[derive(Clone, Debug)]
pub(crate) enum Steering {
    /// By the backend, over the first so many (5.1.9.5.6).
    Automatic { pairs: u16 },
    /// By hash (5.1.9.5.7).
    Rss(Rss),
}

/// Receive-side scaling as it was set up. All queues in it exist.
#[derive(Clone, Debug)]
pub(crate) struct Rss {
    /// Of a length that is a power of two.
    table: Box<[u16]>,
    unclassified: u16,
    highest: u16,
    /// All frames go to one queue.
    only: bool,
}

impl Rss {
    /// Receive-side scaling over no more than `pairs` queues; `None` if it names others, or the table
    /// has a length that none has.
    pub(crate) fn new(table: Box<[u16]>, unclassified: u16, pairs: u16) -> Option<Self> {
        let highest = table.iter().fold(unclassified, |highest, queue| highest.max(*queue));
        let only = table.iter().all(|queue| *queue == unclassified);
        let possible = table.len().is_power_of_two()
            && table.len() <= usize::from(MAX_TABLE)
            && highest < pairs;
        possible.then_some(Self { table, unclassified, highest, only })
    }

    pub(crate) fn table(&self) -> &[u16] {
        &self.table
    }

    /// Where packets go that have no hash.
    pub(crate) fn unclassified(&self) -> u16 {
        self.unclassified
    }

    /// Where a packet goes that has this hash, or none.
    pub(crate) fn target(&self, hash: Hash) -> u16 {
        if hash.report == 0 {
            return self.unclassified;
        }
        let mask = self.table.len().wrapping_sub(1);
        // Of the hash no more counts than the table has entries for.
        let index = usize::try_from(hash.value).unwrap_or(usize::MAX) & mask;
        self.table.get(index).copied().unwrap_or(self.unclassified)
    }
}

/// How packets are hashed.
#[derive(Clone, Debug)]
pub(crate) struct Hashing {
    types: HashTypes,
    /// Goes on with zeroes where the driver's ended.
    key: [u8; KEY],
    ready: Toeplitz,
}

impl Hashing {
    /// Hashing of these types, of which there is one; `None` if some of them are not served, or the
    /// key is none.
    pub(crate) fn new(types: u32, key: &[u8]) -> Option<Self> {
        let types = HashTypes::from_bits(types).filter(|types| HASH_TYPES.contains(*types))?;
        let mut whole = [0; KEY];
        whole.get_mut(..key.len())?.copy_from_slice(key);
        let possible = !types.is_empty() && !key.is_empty();
        possible.then(|| Self { types, key: whole, ready: Toeplitz::new(key) })
    }

    pub(crate) fn types(&self) -> HashTypes {
        self.types
    }

    pub(crate) fn key(&self) -> &[u8; KEY] {
        &self.key
    }

    /// A packet's hash.
    pub(crate) fn hash(&self, headers: &Headers) -> Hash {
        match self.ready.hash_packet(headers, self.types) {
            Some((value, kind)) => Hash { value, report: kind as u16 },
            None => Hash::default(),
        }
    }
}

/// All that the driver can change, and what the workers look at for every round of work. While a
/// worker works it holds the lock for reading, so a command is carried out between rounds.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// Accepted; 0 before.
    pub(crate) features: u64,
    /// What the driver takes now.
    pub(crate) offloads: Offloads,
    pub(crate) filter: Filter,
    pub(crate) steering: Steering,
    /// Without, nothing is hashed.
    pub(crate) hashing: Option<Hashing>,
    /// What new transmit and receive queues start with.
    pub(crate) coalesce_transmit: Coalesce,
    pub(crate) coalesce_receive: Coalesce,
    /// By virtqueue.
    pub(crate) coalesce: Box<[Coalesce]>,
    /// Virtqueues that have a worker.
    pub(crate) running: Box<[bool]>,
    /// The owner's, not the driver's.
    pub(crate) link: bool,
}

impl Steering {
    /// Over so many of `most` pairs; `None` if there are not so many, or they are none.
    pub(crate) fn automatic(pairs: u16, most: u16) -> Option<Self> {
        (mq::PAIRS_MIN..=most).contains(&pairs).then_some(Self::Automatic { pairs })
    }
}

impl State {
    /// What a driver starts with that has accepted `features`.
    pub(crate) fn new(features: u64, limits: &Limits, link: bool) -> Self {
        let queues = 2 * usize::from(limits.pairs);
        Self {
            features,
            offloads: features::receive_offloads(features),
            filter: Filter::new(features, limits.mac),
            steering: Steering::Automatic { pairs: 1 },
            hashing: None,
            coalesce_transmit: Coalesce::default(),
            coalesce_receive: Coalesce::default(),
            coalesce: vec![Coalesce::default(); queues].into(),
            running: vec![false; queues].into(),
            link,
        }
    }

    /// Has the driver take these offloads, as feature bits, from now on; `None`, and nothing changed,
    /// if it cannot (5.1.9.5.8).
    pub(crate) fn set_offloads(&mut self, offloads: u64) -> Option<()> {
        if offloads & !(guest_offloads::ALL & self.features) != 0 {
            return None;
        }
        self.offloads = features::receive_offloads(offloads);
        Some(())
    }

    /// Whether a pair's receive queue may be given frames.
    pub(crate) fn receives(&self, pair: u16) -> bool {
        match &self.steering {
            Steering::Automatic { pairs } => pair < *pairs,
            Steering::Rss(_) => true,
        }
    }

    /// Whether a pair's transmit queue is looked at.
    ///
    /// Under receive-side scaling all are that the driver has enabled, whatever max_tx_vq says: it tells
    /// how many the driver uses, and Linux's (6.1) tells how many it used when it was loaded, though it has
    /// been given more by VQ_PAIRS_SET since. What it sends by those would wait for ever.
    pub(crate) fn transmits(&self, pair: u16) -> bool {
        match &self.steering {
            Steering::Automatic { pairs } => pair < *pairs,
            Steering::Rss(_) => true,
        }
    }

    /// Receive-side scaling, if frames can go to more than the queue that they came by.
    pub(crate) fn scaling(&self, pair: u16) -> Option<&Rss> {
        match &self.steering {
            Steering::Rss(rss) if !(rss.only && rss.unclassified == pair) => Some(rss),
            _ => None,
        }
    }

    /// Whether a data queue has a worker.
    pub(crate) fn is_running(&self, index: u16) -> bool {
        self.running.get(usize::from(index)).copied().unwrap_or(false)
    }

    /// Pairs that the backend is to deliver on: those in use, as far as somebody takes the frames. A
    /// receive queue that is being reset, and those behind it, get none (5.1.9.5.6.2).
    pub(crate) fn backend_pairs(&self) -> u16 {
        let used = match &self.steering {
            Steering::Automatic { pairs } => *pairs,
            Steering::Rss(rss) => rss.highest.saturating_add(1),
        };
        let running = self.running.iter().step_by(2).take_while(|running| **running).count();
        u16::try_from(running).unwrap_or(u16::MAX).min(used).max(1)
    }

    /// How a queue's notifications are held back.
    pub(crate) fn coalesce(&self, index: u16) -> Coalesce {
        self.coalesce.get(usize::from(index)).copied().unwrap_or_default()
    }

    /// How those of a queue are that is started (5.1.9.5.10.6).
    pub(crate) fn usual_coalesce(&self, index: u16) -> Coalesce {
        if index.is_multiple_of(2) { self.coalesce_receive } else { self.coalesce_transmit }
    }

    /// Sets how a queue's notifications are held back; `None` if there is no such queue.
    pub(crate) fn set_coalesce(&mut self, index: u16, coalesce: Coalesce) -> Option<()> {
        *self.coalesce.get_mut(usize::from(index))? = coalesce;
        Some(())
    }
}
