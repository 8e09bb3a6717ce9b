//! Latency in a fixed number of buckets.

/// Sub-buckets for each power of two, as log2: 64, so a bucket is at most 1.6 % wide.
const SUB_BITS: u32 = 6;
const SUB: u64 = 1 << SUB_BITS;
/// Values from 2⁴⁰ on share the last bucket.
const MAX_BITS: u32 = 40;
/// Buckets in all.
pub const BUCKETS: usize = ((MAX_BITS - SUB_BITS + 1) as usize) << SUB_BITS;

/// Counts of values, in buckets that grow with the value. Values are in whatever unit the user has,
/// here guest time stamp counter cycles.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [u32; BUCKETS],
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket that a value falls into.
pub const fn bucket_of(value: u64) -> usize {
    if value < SUB {
        // Below 64, so it fits.
        #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
        return value as usize;
    }
    let bits = 63 - value.leading_zeros();
    if bits >= MAX_BITS {
        return BUCKETS - 1;
    }
    let shift = bits - SUB_BITS;
    #[expect(clippy::cast_possible_truncation, reason = "the shift leaves 7 bits")]
    let sub = ((value >> shift) - SUB) as usize;
    (((shift + 1) as usize) << SUB_BITS) + sub
}

/// The smallest and the largest value that fall into a bucket.
pub const fn bucket_range(bucket: usize) -> (u64, u64) {
    let group = bucket >> SUB_BITS;
    let sub = (bucket as u64) & (SUB - 1);
    if group == 0 {
        return (sub, sub);
    }
    let shift = group - 1;
    let low = (SUB + sub) << shift;
    (low, low + ((1 << shift) - 1))
}

impl Histogram {
    /// No values.
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], max: 0 }
    }

    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(value)) {
            *count = count.saturating_add(1);
        }
        self.max = self.max.max(value);
    }

    /// The buckets that are not empty, with their counts.
    pub fn buckets(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.counts.iter().copied().enumerate().filter(|(_, count)| *count != 0)
    }

    /// The largest value.
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.max = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_the_values() {
        let mut next = 0;
        for bucket in 0..BUCKETS {
            let (low, high) = bucket_range(bucket);
            assert_eq!(low, next);
            assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
            assert!(high - low <= low / 64);
            next = high + 1;
        }
        assert_eq!(next, 1 << MAX_BITS);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn values_are_counted_where_they_belong() {
        let mut histogram = Histogram::new();
        for value in [1, 1, 1000, u64::MAX] {
            histogram.record(value);
        }
        let mut buckets = histogram.buckets();
        assert_eq!(buckets.next(), Some((1, 2)));
        assert_eq!(buckets.next(), Some((bucket_of(1000), 1)));
        assert_eq!(buckets.next(), Some((BUCKETS - 1, 1)));
        assert_eq!(buckets.next(), None);
        assert_eq!(histogram.max(), u64::MAX);
    }
}
