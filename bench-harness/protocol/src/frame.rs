//! Frames on the byte console: `PSLT`, kind, length (32 bits), payload, checksum (32 bits).
//!
//! The checksum tells a damaged or interleaved stream from a good one; it is FNV-1a over kind,
//! length and payload.

/// Starts each frame.
pub const MAGIC: [u8; 4] = *b"PSLT";
/// Largest payload that is accepted, in bytes.
pub const MAX_LEN: usize = 64 * 1024;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A line of text for a person.
    Text = b'T',
    /// An [`Outcome`](crate::Outcome) in its binary form.
    Outcome = b'O',
}

impl Kind {
    /// The kind that a byte stands for.
    pub const fn from_raw(raw: u8) -> Option<Self> {
        match raw {
            b'T' => Some(Self::Text),
            b'O' => Some(Self::Outcome),
            _ => None,
        }
    }
}

/// The running checksum.
#[derive(Clone, Copy, Debug)]
struct Fnv(u32);

impl Fnv {
    const fn new() -> Self {
        Self(0x811c_9dc5)
    }
    fn add(&mut self, byte: u8) {
        self.0 = (self.0 ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
}

/// Sends a frame, a byte at a time, to `out`. `payload` may come in pieces; together at most
/// [`MAX_LEN`] bytes, of which the rest is not sent.
pub fn send(kind: Kind, payload: &[&[u8]], mut out: impl FnMut(u8)) {
    let len: usize = payload.iter().map(|piece| piece.len()).sum::<usize>().min(MAX_LEN);
    let mut sum = Fnv::new();
    MAGIC.into_iter().for_each(&mut out);
    let mut summed = |byte: u8, out: &mut dyn FnMut(u8)| {
        sum.add(byte);
        out(byte);
    };
    summed(kind as u8, &mut out);
    let len_field = u32::try_from(len).unwrap_or(u32::MAX);
    len_field.to_le_bytes().into_iter().for_each(|byte| summed(byte, &mut out));
    payload
        .iter()
        .flat_map(|piece| piece.iter())
        .take(len)
        .for_each(|&byte| summed(byte, &mut out));
    sum.0.to_le_bytes().into_iter().for_each(&mut out);
}

/// Finds the first whole frame in `stream`: its kind, its payload, and how many bytes to skip to get
/// past it. Bytes before it that belong to no frame (a firmware's own output) are skipped; a damaged
/// frame is too. `None` if there is no whole frame (yet).
pub fn find(stream: &[u8]) -> Option<(Kind, &[u8], usize)> {
    let mut start = 0;
    loop {
        start += stream.get(start..)?.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        let rest = stream.get(start + MAGIC.len()..)?;
        if let Some((kind, payload)) = parse(rest) {
            let skip = start + MAGIC.len() + 5 + payload.len() + 4;
            return Some((kind, payload, skip));
        }
        start += 1;
    }
}

fn parse(rest: &[u8]) -> Option<(Kind, &[u8])> {
    let kind = Kind::from_raw(*rest.first()?)?;
    let len = u32::from_le_bytes(rest.get(1..5)?.try_into().ok()?);
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_LEN)?;
    let mut sum = Fnv::new();
    rest.get(..5 + len)?.iter().for_each(|&byte| sum.add(byte));
    let stored = rest.get(5 + len..9 + len)?.try_into().ok()?;
    (sum.0 == u32::from_le_bytes(stored)).then(|| (kind, &rest[5..5 + len]))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn sent(kind: Kind, payload: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        send(kind, payload, |byte| bytes.push(byte));
        bytes
    }

    #[test]
    fn frames_are_found_among_other_bytes() {
        let mut stream = b"SeaBIOS PSLT PSLTO".to_vec();
        stream.extend(sent(Kind::Text, &[b"hel", b"lo"]));
        let first = stream.len();
        stream.extend(sent(Kind::Outcome, &[]));
        assert_eq!(find(&stream), Some((Kind::Text, b"hello".as_slice(), first)));
        let rest = &stream[first..];
        assert_eq!(find(rest), Some((Kind::Outcome, b"".as_slice(), rest.len())));
    }

    #[test]
    fn no_damaged_or_cut_frame_is_taken() {
        let frame = sent(Kind::Text, &[b"hello"]);
        for cut in 0..frame.len() {
            assert_eq!(find(&frame[..cut]), None);
        }
        for index in 0..frame.len() {
            let mut damaged = frame.clone();
            damaged[index] ^= 1;
            assert_eq!(find(&damaged), None, "byte {index}");
        }
    }
}
