//! The numbers of received frames: which are missing, out of order, or there twice.

/// Numbers below the highest that are remembered one by one.
const WINDOW: u64 = 4096;

/// A frame's number was received before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate;

#[derive(Debug)]
pub(super) struct Sequence {
    /// The first number that counts.
    base: Option<u64>,
    /// The highest number ever; meaningless before the first.
    highest: u64,
    any: bool,
    /// Different numbers from `base` on.
    count: u64,
    reordered: u64,
    /// Which of the numbers up to the highest were received, a bit each.
    seen: [u64; (WINDOW / 64) as usize],
}

impl Sequence {
    pub(super) fn new() -> Self {
        Self {
            base: None,
            highest: 0,
            any: false,
            count: 0,
            reordered: 0,
            seen: [0; (WINDOW / 64) as usize],
        }
    }

    /// Starts to count anew. What was received is remembered, so that what comes late or again is
    /// told from what is new.
    pub(super) fn restart(&mut self) {
        (self.base, self.count, self.reordered) = (None, 0, 0);
    }

    fn word(&mut self, number: u64) -> (&mut u64, u64) {
        // Below the number of words.
        let index = usize::try_from(number % WINDOW / 64).unwrap_or(0);
        (&mut self.seen[index], 1 << (number % 64))
    }

    /// Takes note of a frame.
    pub(super) fn note(&mut self, number: u64) -> Result<(), Duplicate> {
        if !self.any || number > self.highest {
            let skipped = if self.any { number - self.highest - 1 } else { WINDOW };
            if skipped >= WINDOW {
                self.seen.fill(0);
            } else {
                for missing in number - skipped..number {
                    let (word, bit) = self.word(missing);
                    *word &= !bit;
                }
            }
            let (word, bit) = self.word(number);
            *word |= bit;
            (self.any, self.highest) = (true, number);
            self.base.get_or_insert(number);
            self.count += 1;
            return Ok(());
        }
        if self.highest - number < WINDOW {
            let (word, bit) = self.word(number);
            if *word & bit != 0 {
                return Err(Duplicate);
            }
            *word |= bit;
            if self.base.is_some_and(|base| number >= base) {
                self.count += 1;
            }
        }
        self.reordered += 1;
        Ok(())
    }

    /// Numbers that are missing.
    pub(super) fn lost(&self) -> u64 {
        let span = self.base.map_or(0, |base| self.highest.wrapping_sub(base).wrapping_add(1));
        span.wrapping_sub(self.count)
    }

    /// Frames that came after one with a higher number.
    pub(super) fn reordered(&self) -> u64 {
        self.reordered
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    fn after(numbers: impl IntoIterator<Item = u64>) -> (Sequence, usize) {
        let mut sequence = Sequence::new();
        let twice = numbers.into_iter().filter(|number| sequence.note(*number).is_err()).count();
        (sequence, twice)
    }

    fn counts(numbers: impl IntoIterator<Item = u64>) -> (u64, u64, usize) {
        let (sequence, twice) = after(numbers);
        (sequence.lost(), sequence.reordered(), twice)
    }

    #[test]
    fn what_is_missing_late_or_double_is_told_apart() {
        assert_eq!(counts([]), (0, 0, 0));
        assert_eq!(counts(0..10_000), (0, 0, 0));
        assert_eq!(counts(u64::MAX - 9..=u64::MAX), (0, 0, 0));
        assert_eq!(counts([5, 6, 8, 9]), (1, 0, 0));
        assert_eq!(counts([5, 7, 6, 8]), (0, 1, 0));
        assert_eq!(counts([5, 8, 7, 6]), (0, 2, 0));
        assert_eq!(counts([5, 6, 6, 7, 5]), (0, 0, 2));
        // Before the first.
        assert_eq!(counts([5, 3, 6, 3]), (0, 1, 1));
        // Around the window many times, with each 7th missing and each 11th double.
        let numbers = (0..70_000_u64)
            .filter(|number| number % 7 != 3)
            .flat_map(|number| std::iter::repeat_n(number, 1 + usize::from(number % 11 == 0)));
        let double = (0..70_000).filter(|number| number % 7 != 3 && number % 11 == 0).count();
        assert_eq!(counts(numbers), (10_000, 0, double));
    }

    #[test]
    fn the_window_ends_where_it_says() {
        let late = |by: u64| {
            counts(
                (0..10_000)
                    .chain(10_001..20_000)
                    .chain([10_000])
                    .take_while(move |number| *number <= 10_000 + by)
                    .chain([10_000]),
            )
        };
        assert_eq!(late(4095), (0, 1, 0));
        assert_eq!(late(4096), (1, 1, 0));
        // Long jumps leave nothing behind that passes for a frame received.
        for jump in [63, 64, 65, 4095, 4096, 4097, 1 << 40] {
            assert_eq!(counts((0..5000).chain([5000 + jump, 4999 + jump])), (jump - 1, 1, 0));
        }
    }

    #[test]
    fn what_came_before_a_new_start_does_not_count_but_is_remembered() {
        let (mut sequence, _) = after([1, 2, 3, 6]);
        sequence.restart();
        assert_eq!((sequence.lost(), sequence.reordered()), (0, 0));
        assert_eq!(sequence.note(5), Ok(()));
        assert_eq!(sequence.note(6), Err(Duplicate));
        assert_eq!(sequence.note(10), Ok(()));
        assert_eq!((sequence.lost(), sequence.reordered()), (0, 1));
        assert_eq!(sequence.note(12), Ok(()));
        assert_eq!((sequence.lost(), sequence.reordered()), (1, 1));
        assert_eq!(sequence.note(4), Ok(()));
        assert_eq!((sequence.lost(), sequence.reordered()), (1, 2));
    }
}
