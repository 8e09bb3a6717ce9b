//! The harness's side of network jobs: frames for guests that receive, and a look at those that
//! guests send. It knows the frames' format ([`paraslot_protocol::traffic`]) and nothing of drivers.

use std::sync::{Arc, Mutex, PoisonError};

use paraslot_backends::net::{Cut, Frame, Offload, PartialChecksum, Segmentation};
use paraslot_protocol::traffic::{
    self, Flow, IP, NUMBER, PATTERN, SEGMENT_SIZE, TCP_HEADERS, TRANSPORT,
};
use paraslot_protocol::{PATTERN_STEP, pattern_base};

/// Bytes of a word of the pattern.
const WORD: usize = size_of::<u64>();
/// The one's complement sum of anything whose checksum is right.
const RIGHT: u16 = 0xffff;

/// The words of frame `number`'s pattern, from where it starts.
fn pattern(number: u64) -> impl Iterator<Item = u64> + Clone {
    let base = pattern_base(number, 0);
    let skipped = (PATTERN / WORD) as u64;
    (skipped..).map(move |index| base.wrapping_add(PATTERN_STEP.wrapping_mul(index)))
}

/// Writes frame `number`'s pattern.
fn fill(place: &mut [u8], number: u64) {
    let (places, rest) = place.as_chunks_mut::<WORD>();
    let mut words = pattern(number).map(u64::to_le_bytes);
    for (place, word) in places.iter_mut().zip(words.by_ref()) {
        *place = word;
    }
    for (place, byte) in rest.iter_mut().zip(words.next().unwrap_or_default()) {
        *place = byte;
    }
}

/// Which word is the first that is not of frame `number`'s pattern.
fn mismatch(found: &[u8], number: u64) -> Option<usize> {
    let (whole, rest) = found.as_chunks::<WORD>();
    // All at once, and in order only if there is something to be found.
    let words = whole.iter().map(|word| u64::from_le_bytes(*word)).zip(pattern(number));
    if words.clone().fold(0, |wrong, (found, word)| wrong | (found ^ word)) != 0 {
        return words.enumerate().find(|(_, (found, word))| found != word).map(|(at, _)| at);
    }
    let last = pattern(number).nth(whole.len()).unwrap_or_default().to_le_bytes();
    rest.iter().zip(last).any(|(found, byte)| *found != byte).then_some(whole.len())
}

/// The one's complement sum of big-endian words, carried on from `start`. The same as
/// [`traffic::sum`], which goes a word at a time, for as many bytes as a long frame has.
fn sum(start: u16, bytes: &[u8]) -> u16 {
    // In the other byte order the sum has its bytes the other way, and nothing else (RFC 1071).
    let (words, rest) = bytes.as_chunks();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [low, high, ..] = sum.to_le_bytes();
    traffic::sum(traffic::sum(start, &[low, high]), rest)
}

/// Where a frame's checksum that is still to be filled in belongs.
fn partial(frame_size: u32) -> PartialChecksum {
    // Both are a few dozen.
    let small = |value| u16::try_from(value).unwrap_or(u16::MAX);
    PartialChecksum { start: small(TRANSPORT), offset: small(traffic::checksum_offset(frame_size)) }
}

/// What is left to be done to frames of that size: those that are to be segmented are not finished.
pub(crate) fn offload(frame_size: u32) -> Offload {
    if !traffic::is_segmented(frame_size) {
        return Offload::default();
    }
    let header_len = u16::try_from(TCP_HEADERS).unwrap_or(u16::MAX);
    Offload {
        checksum: Some(partial(frame_size)),
        segmentation: Some(Segmentation {
            cut: Cut::Tcp4,
            size: SEGMENT_SIZE,
            header_len,
            ecn: false,
        }),
        checksum_valid: false,
    }
}

/// Makes frames, numbered from 0.
pub(crate) struct Maker {
    frame: Vec<u8>,
    frame_size: u32,
    number: u64,
    verify: bool,
}

impl Maker {
    /// Of frames of `frame_size` bytes; with contents, if they are going to be verified.
    pub(crate) fn new(flow: Flow, frame_size: u32, verify: bool) -> Self {
        let len = usize::try_from(frame_size).unwrap_or_default();
        let headers = traffic::header_len(frame_size).min(len);
        let mut frame = vec![0; len];
        frame[..headers].copy_from_slice(&flow.headers(frame_size)[..headers]);
        if !verify && !traffic::is_segmented(frame_size) {
            let checksum = TRANSPORT + traffic::checksum_offset(frame_size);
            frame[checksum..checksum + 2].fill(0);
        }
        Self { frame, frame_size, number: 0, verify }
    }

    /// Writes the next frame to the start of `room`; returns its length, 0 if there is no room.
    pub(crate) fn next(&mut self, room: &mut [u8]) -> usize {
        let len = self.frame.len();
        let Some(frame) = room.get_mut(..len) else { return 0 };
        let payload = traffic::header_len(self.frame_size);
        let filled = if self.verify { payload + PATTERN } else { len };
        frame[..filled].copy_from_slice(&self.frame[..filled]);
        frame[payload + NUMBER..][..WORD].copy_from_slice(&self.number.to_le_bytes());
        if self.verify {
            fill(&mut frame[filled..], self.number);
            if !traffic::is_segmented(self.frame_size) {
                let at = TRANSPORT + traffic::checksum_offset(self.frame_size);
                let checksum = match !sum(0, &frame[TRANSPORT..]) {
                    // 0 would say that there is none (RFC 768).
                    0 => RIGHT,
                    checksum => checksum,
                };
                frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            }
        }
        self.number += 1;
        len
    }
}

/// What was wrong with a frame that a guest sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Not as long as the job says.
    Length(usize),
    /// A header is not as it should be; at this byte of the frame first.
    Header(usize),
    /// What is left to be done is not what such a frame may leave.
    Offload,
    /// Its transport checksum is wrong.
    Checksum,
    /// Another number than the one that comes next.
    Number {
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// Its contents are not those of its number; at this byte of the frame first.
    Contents(usize),
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Length(len) => write!(f, "it has {len} bytes"),
            Self::Header(at) => write!(f, "its headers are wrong at byte {at}"),
            Self::Offload => f.write_str("what is left to be done to it is not possible"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Number { expected, found } => {
                write!(f, "it has number {found} where {expected} should come")
            }
            Self::Contents(at) => write!(f, "its contents are wrong at byte {at}"),
        }
    }
}

/// Looks at every frame that a guest sends.
pub(crate) struct Checker {
    flow: Flow,
    frame_size: u32,
    frame: Vec<u8>,
    verdict: Verdict,
}

/// What a [`Checker`] has seen, for who made it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    frames: u64,
    mistake: Option<(u64, Mistake)>,
}

impl Verdict {
    /// Frames that were looked at.
    ///
    /// # Errors
    /// Which was the first that was wrong, and what was.
    pub(crate) fn frames(&self) -> anyhow::Result<u64> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &seen.mistake {
            None => Ok(seen.frames),
            Some((index, mistake)) => {
                anyhow::bail!("frame {index} was not sent as the guest made it: {mistake}")
            }
        }
    }
}

impl Checker {
    /// For frames of `frame_size` bytes with contents.
    pub(crate) fn new(flow: Flow, frame_size: u32) -> (Self, Verdict) {
        let verdict = Verdict::default();
        (Self { flow, frame_size, frame: Vec::new(), verdict: verdict.clone() }, verdict)
    }

    /// Looks at the next frame.
    pub(crate) fn inspect(&mut self, frame: &Frame<'_>) {
        let head = frame.head.len();
        self.frame.resize(frame.len(), 0);
        self.frame[..head].copy_from_slice(frame.head);
        frame.body.copy_to(&mut self.frame[head..]);
        let mut seen = self.verdict.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = seen.frames;
        seen.frames += 1;
        if seen.mistake.is_none() {
            let result = self.check(&frame.offload, index);
            seen.mistake = result.err().map(|mistake| (index, mistake));
        }
    }

    /// Checks that the frame is number `number`, with this left to be done.
    fn check(&self, left: &Offload, number: u64) -> Result<(), Mistake> {
        let Self { flow, frame_size, frame, .. } = self;
        if u32::try_from(frame.len()) != Ok(*frame_size) {
            return Err(Mistake::Length(frame.len()));
        }
        let headers = flow.headers(*frame_size);
        let header_len = traffic::header_len(*frame_size);
        let checksum_at = TRANSPORT + traffic::checksum_offset(*frame_size);
        let is_checksum = |at: usize| (checksum_at..checksum_at + 2).contains(&at);
        let wrong = |at: &usize| frame[*at] != headers[*at] && !is_checksum(*at);
        if let Some(at) = (0..header_len).find(wrong) {
            return Err(Mistake::Header(at));
        }
        checksum(frame, left, *frame_size)?;
        let payload = &frame[header_len..];
        let found = payload[NUMBER..].first_chunk().copied().map(u64::from_le_bytes);
        if found != Some(number) {
            return Err(Mistake::Number { expected: number, found: found.unwrap_or(u64::MAX) });
        }
        match mismatch(&payload[PATTERN..], number) {
            Some(index) => Err(Mistake::Contents(header_len + PATTERN + index * WORD)),
            None => Ok(()),
        }
    }
}

/// Whether the transport checksum is right, or will be when it is filled in; and whether long frames,
/// and no others, are to be cut.
fn checksum(frame: &[u8], left: &Offload, frame_size: u32) -> Result<(), Mistake> {
    let cut = left.segmentation.map(|segmentation| (segmentation.cut, segmentation.size));
    let expected = traffic::is_segmented(frame_size).then_some((Cut::Tcp4, SEGMENT_SIZE));
    if cut != expected {
        return Err(Mistake::Offload);
    }
    let at = TRANSPORT + traffic::checksum_offset(frame_size);
    let found = u16::from_be_bytes([frame[at], frame[at + 1]]);
    let addresses = &frame[IP + 12..TRANSPORT];
    let length = u16::try_from(frame.len() - TRANSPORT).unwrap_or(u16::MAX).to_be_bytes();
    let protocol = [0, frame[IP + 9]];
    let pseudo = traffic::sum(traffic::sum(traffic::sum(0, &protocol), &length), addresses);
    let right = match left.checksum {
        Some(place) if place == partial(frame_size) => found == pseudo,
        Some(_) => return Err(Mistake::Offload),
        None => found != 0 && sum(pseudo, &frame[TRANSPORT..]) == RIGHT,
    };
    if right { Ok(()) } else { Err(Mistake::Checksum) }
}

#[cfg(test)]
mod tests;
