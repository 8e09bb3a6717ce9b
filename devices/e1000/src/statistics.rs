//! The statistics registers (13.7).

mod state;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use paraslot_backends::net::NetStatistics;
use paraslot_spec::e1000::statistics::*;
use paraslot_spec::e1000::{FCS_LEN, SHORTEST};
use paraslot_spec::net::{ETHERNET_BROADCAST, ETHERNET_GROUP};

pub(crate) use self::state::StatisticsState;

/// Registers of 32 bits.
const COUNTS: usize = 64;
const _: () = assert!((END - FIRST) as usize == COUNTS * 4);

/// Low registers of the pairs.
const PAIRS: [u32; 4] = [GORCL, GOTCL, TORL, TOTL];
/// Nothing was latched.
const NOTHING: u64 = u64::MAX;

fn index(offset: u32) -> usize {
    usize::try_from(offset.wrapping_sub(FIRST) / 4).unwrap_or(usize::MAX)
}

/// What the guest reads. A worker adds to it once for each round of work.
pub(crate) struct Statistics {
    counts: [AtomicU32; COUNTS],
    pairs: [Pair; PAIRS.len()],
}

/// A count of 64 bits in two registers.
struct Pair {
    count: AtomicU64,
    /// What the low register said when it was last read, so that the high one goes with it, and what
    /// was counted in between is not lost.
    latched: AtomicU64,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        let pair = || Pair { count: AtomicU64::new(0), latched: AtomicU64::new(NOTHING) };
        Self {
            counts: [const { AtomicU32::new(0) }; COUNTS],
            pairs: [pair(), pair(), pair(), pair()],
        }
    }

    /// Reads the register at `offset`, which clears it; of a pair the high one clears both.
    pub(crate) fn read(&self, offset: u32) -> u32 {
        for (pair, low) in self.pairs.iter().zip(PAIRS) {
            if offset == low {
                return halves(pair.latch()).0;
            }
            if offset == low + 4 {
                return halves(pair.take()).1;
            }
        }
        self.counts.get(index(offset)).map_or(0, |count| count.swap(0, Ordering::Relaxed))
    }

    /// Adds what `tally` holds, and empties it.
    pub(crate) fn add(&self, tally: &mut Tally) {
        if !std::mem::take(&mut tally.counted) {
            return;
        }
        for (count, more) in self.counts.iter().zip(&mut tally.counts) {
            let more = std::mem::take(more);
            if more != 0 {
                let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                    Some(count.saturating_add(more))
                });
            }
        }
        for (pair, more) in self.pairs.iter().zip(&mut tally.octets) {
            pair.count.fetch_add(std::mem::take(more), Ordering::Relaxed);
        }
    }

    pub(crate) fn reset(&self) {
        for count in &self.counts {
            count.store(0, Ordering::Relaxed);
        }
        for pair in &self.pairs {
            pair.count.store(0, Ordering::Relaxed);
            pair.latched.store(NOTHING, Ordering::Relaxed);
        }
    }
}

impl Pair {
    fn latch(&self) -> u64 {
        let count = self.count.load(Ordering::Relaxed);
        self.latched.store(count, Ordering::Relaxed);
        count
    }

    fn take(&self) -> u64 {
        let latched = match self.latched.swap(NOTHING, Ordering::Relaxed) {
            NOTHING => self.count.load(Ordering::Relaxed),
            latched => latched,
        };
        self.count.fetch_sub(latched, Ordering::Relaxed);
        latched
    }
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// What a worker has counted and not told yet: for the guest's registers, and for the device's owner.
pub(crate) struct Tally {
    counted: bool,
    counts: [u32; COUNTS],
    octets: [u64; PAIRS.len()],
    pub(crate) net: NetStatistics,
}

/// Which way a packet went: its registers.
struct Way {
    sizes: [u32; 6],
    good: u32,
    total: u32,
    broadcast: u32,
    multicast: u32,
    /// Among [`PAIRS`].
    good_octets: usize,
    all_octets: usize,
}

const RECEIVED: Way = Way {
    sizes: [PRC64, PRC127, PRC255, PRC511, PRC1023, PRC1522],
    good: GPRC,
    total: TPR,
    broadcast: BPRC,
    multicast: MPRC,
    good_octets: 0,
    all_octets: 2,
};

const TRANSMITTED: Way = Way {
    sizes: [PTC64, PTC127, PTC255, PTC511, PTC1023, PTC1522],
    good: GPTC,
    total: TPT,
    broadcast: BPTC,
    multicast: MPTC,
    good_octets: 1,
    all_octets: 3,
};

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            counted: false,
            counts: [0; COUNTS],
            octets: [0; PAIRS.len()],
            net: NetStatistics::default(),
        }
    }

    /// Adds `more` to the register at `offset`.
    pub(crate) fn count(&mut self, offset: u32, more: u32) {
        self.counted = true;
        if let Some(count) = self.counts.get_mut(index(offset)) {
            *count = count.saturating_add(more);
        }
    }

    /// A packet came, whatever becomes of it. Lengths are in bytes and without FCS.
    pub(crate) fn arrived(&mut self, len: usize) {
        self.total(&RECEIVED, len, 1);
    }

    /// It was a good one, and meant for us.
    pub(crate) fn received(&mut self, destination: [u8; 6], len: usize) {
        self.good(&RECEIVED, destination, len, 1);
    }

    /// `packets` of `len` bytes each were transmitted.
    pub(crate) fn transmitted(&mut self, destination: [u8; 6], len: usize, packets: usize) {
        let packets = u32::try_from(packets).unwrap_or(u32::MAX);
        if packets != 0 {
            self.total(&TRANSMITTED, len, packets);
            self.good(&TRANSMITTED, destination, len, packets);
        }
    }

    fn total(&mut self, way: &Way, len: usize, packets: u32) {
        self.count(way.total, packets);
        self.octets(way.all_octets, len, packets);
    }

    fn good(&mut self, way: &Way, destination: [u8; 6], len: usize, packets: u32) {
        let [p64, p127, p255, p511, p1023, p1522] = way.sizes;
        let size = match len.max(SHORTEST) + FCS_LEN {
            0..=64 => p64,
            65..=127 => p127,
            128..=255 => p255,
            256..=511 => p511,
            512..=1023 => p1023,
            _ => p1522,
        };
        self.count(size, packets);
        self.count(way.good, packets);
        self.octets(way.good_octets, len, packets);
        let [first, ..] = destination;
        if destination == ETHERNET_BROADCAST {
            self.count(way.broadcast, packets);
        } else if first & ETHERNET_GROUP != 0 {
            self.count(way.multicast, packets);
        }
    }

    fn octets(&mut self, pair: usize, len: usize, packets: u32) {
        let len = u64::try_from(len.max(SHORTEST) + FCS_LEN).unwrap_or(u64::MAX);
        if let Some(octets) = self.octets.get_mut(pair) {
            *octets = octets.saturating_add(len.saturating_mul(packets.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stick_at_their_highest_value_and_clear_when_read() {
        let statistics = Statistics::new();
        let mut tally = Tally::new();
        tally.count(MPC, u32::MAX);
        statistics.add(&mut tally);
        tally.count(MPC, 5);
        statistics.add(&mut tally);
        assert_eq!((statistics.read(MPC), statistics.read(MPC)), (u32::MAX, 0));
        assert_eq!(statistics.read(END), 0);
    }

    #[test]
    fn the_halves_of_a_pair_belong_together() {
        let statistics = Statistics::new();
        let mut tally = Tally::new();
        tally.octets = [0, 0, u64::from(u32::MAX), 0];
        tally.counted = true;
        statistics.add(&mut tally);
        assert_eq!(statistics.read(TORL), u32::MAX);
        // Counted in between: neither shown in the high half nor lost.
        tally.octets = [0, 0, 7, 0];
        tally.counted = true;
        statistics.add(&mut tally);
        assert_eq!(statistics.read(TORH), 0);
        assert_eq!((statistics.read(TORL), statistics.read(TORH)), (7, 0));
        assert_eq!((statistics.read(TORH), statistics.read(TORL)), (0, 0));
    }

    #[test]
    fn sizes_include_the_fcs() {
        for (len, register) in [
            (14, PRC64),
            (60, PRC64),
            (61, PRC127),
            (123, PRC127),
            (124, PRC255),
            (508, PRC1023),
            (1019, PRC1023),
            (1020, PRC1522),
            (9000, PRC1522),
        ] {
            let statistics = Statistics::new();
            let mut tally = Tally::new();
            tally.received([0xff; 6], len);
            statistics.add(&mut tally);
            let octets = u32::try_from(len.max(60) + 4).unwrap();
            assert_eq!((statistics.read(register), statistics.read(GORCL)), (1, octets), "{len}");
            assert_eq!((statistics.read(BPRC), statistics.read(MPRC)), (1, 0));
        }
    }
}
