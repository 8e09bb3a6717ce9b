//! Frames that have arrived.

use paraslot_protocol::traffic::{self, Flow, PATTERN, TCP_HEADERS, TRANSPORT};
use paraslot_protocol::{NetJob, PATTERN_STEP, pattern_base};

use super::frames::sum;
use crate::{Arrival, DmaRegion, Known};

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// None of the job's.
    Foreign,
    /// One of the job's that is not as it was sent, with what number it has.
    Bad(u64),
    /// As it should be.
    Good {
        /// Its number.
        number: u64,
        /// Its sender's time stamp.
        stamp: u64,
    },
}

/// Checks frames that have arrived against what a job's frames are like.
pub(super) struct Checker {
    len: usize,
    frame_size: u32,
    header_len: usize,
    verify: bool,
    /// The headers of all frames: those of the first good one, unless they were known before.
    headers: [u8; TCP_HEADERS],
    known: bool,
}

/// Where the type of an Ethernet frame is; the IP header's first byte follows.
const ETHER_TYPE: usize = 12;
/// Where IP's protocol is.
const PROTOCOL: usize = traffic::IP + 9;

impl Checker {
    /// A checker for frames of which `flow` is known, or yet to be found out.
    pub(super) fn new(job: &NetJob, flow: Option<Flow>) -> Self {
        let any = Flow { source: [0; 6], destination: [0; 6] };
        Self {
            len: usize::try_from(job.frame_size).unwrap_or(0),
            frame_size: job.frame_size,
            header_len: traffic::header_len(job.frame_size),
            verify: job.verify,
            headers: flow.unwrap_or(any).headers(job.frame_size),
            known: flow.is_some(),
        }
    }

    fn field(&self) -> usize {
        TRANSPORT + traffic::checksum_offset(self.frame_size)
    }

    /// The sum of a pseudo header, from frames' headers.
    fn pseudo(&self, headers: &[u8]) -> u16 {
        let [a, b] = [0, 1].map(|at| headers.get(self.field() + at).copied().unwrap_or(0));
        u16::from_be_bytes([a, b])
    }

    /// The sum of the pseudo header of a frame that begins with `first`.
    pub(super) fn pseudo_of(&self, first: &DmaRegion) -> u16 {
        self.pseudo(&if self.known { self.headers } else { self.headers_like(first) })
    }

    /// The headers of frames between the addresses of one that begins with `first`.
    fn headers_like(&self, first: &DmaRegion) -> [u8; TCP_HEADERS] {
        let mut addresses = [0; 12];
        first.copy_out(0, &mut addresses);
        let [a, b, c, d, e, f, source @ ..] = addresses;
        Flow { source, destination: [a, b, c, d, e, f] }.headers(self.frame_size)
    }

    /// Whether a frame that begins with `piece` is one of the job's.
    fn is_ours(&self, piece: &DmaRegion) -> bool {
        let bytes = |at| piece.read64_unaligned(at).to_le_bytes();
        let byte = |at: usize| self.headers.get(at).copied().unwrap_or(0);
        let [kind_high, kind_low, version, ..] = bytes(ETHER_TYPE);
        let [.., protocol] = bytes(PROTOCOL - 7);
        let [a, b, c, d, ..] = bytes(TRANSPORT);
        [kind_high, kind_low, version] == [12, 13, 14].map(byte)
            && protocol == byte(PROTOCOL)
            && [a, b, c, d] == [34, 35, 36, 37].map(byte)
    }

    /// Looks at a frame.
    pub(super) fn look(&mut self, arrival: &Arrival<'_>) -> Verdict {
        let Some(first) = arrival.pieces.first() else { return Verdict::Foreign };
        let start = self.header_len + PATTERN;
        if first.len() < start || !self.is_ours(first) {
            return Verdict::Foreign;
        }
        let number = first.read64_unaligned(self.header_len + traffic::NUMBER);
        let stamp = first.read64_unaligned(self.header_len + traffic::STAMP);
        let right = arrival.len == self.len && (!self.verify || self.compare(arrival, number));
        if right { Verdict::Good { number, stamp } } else { Verdict::Bad(number) }
    }

    /// Compares all of a frame, which is as long as it should be, with what it should be.
    fn compare(&mut self, arrival: &Arrival<'_>, number: u64) -> bool {
        let Some(first) = arrival.pieces.first() else { return false };
        let expected = if self.known { self.headers } else { self.headers_like(first) };
        let mut headers = [0; TCP_HEADERS];
        let Some(found) = headers.get_mut(..self.header_len) else { return false };
        first.copy_out(0, found);
        let field = self.field();
        let same = |(at, (one, other)): (usize, (&u8, &u8))| {
            one == other || at == field || at == field + 1
        };
        let good = found.iter().zip(&expected).enumerate().all(same)
            && self.checksum_is_right(arrival, self.pseudo(found), self.pseudo(&expected))
            && matches(arrival.pieces, self.header_len + PATTERN, number);
        if good && !self.known {
            (self.headers, self.known) = (expected, true);
        }
        good
    }

    /// Whether the checksum that was `found` is right.
    fn checksum_is_right(&self, arrival: &Arrival<'_>, found: u16, pseudo: u16) -> bool {
        match arrival.checksum {
            Known::Right => true,
            Known::Partial => found == pseudo,
            Known::Nothing if found == 0 && !traffic::is_segmented(self.frame_size) => true,
            // With the checksum in it, everything sums up to ones.
            Known::Nothing => sum(pseudo, arrival.pieces, TRANSPORT) == u16::MAX,
        }
    }
}

/// Whether `pieces` hold the pattern of frame `number` from byte `start` on, which is in the first.
fn matches(pieces: &[DmaRegion], start: usize, number: u64) -> bool {
    let word = |index: usize| {
        pattern_base(number, 0).wrapping_add(PATTERN_STEP.wrapping_mul(index as u64))
    };
    // Bytes of the payload that are behind us.
    let (mut position, mut skip) = (PATTERN, start);
    pieces.iter().all(|piece| {
        let mut at = skip.min(piece.len());
        skip = 0;
        // A piece may begin within a word.
        while at < piece.len() && !position.is_multiple_of(8) {
            let bytes = word(position / 8).to_le_bytes();
            if bytes.get(position % 8) != Some(&piece.read8(at)) {
                return false;
            }
            (at, position) = (at + 1, position + 1);
        }
        let len = piece.len() - at;
        let same = piece.matches_pattern(at, len, word(position / 8), PATTERN_STEP);
        position += len;
        same
    })
}
