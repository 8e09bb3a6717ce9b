//! What a fresh image holds, as sums that a guest can make of what it reads.

use std::fmt;

use paraslot_protocol::{PATTERN_BLOCK, PATTERN_STEP, pattern_base};

/// Bytes that are summed up in all, and how many pieces of a disk they are in at most.
const SUMMED: u64 = 4 << 20;
const PIECES_MAX: u64 = 8;

/// A piece of the image, in blocks of the workload's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    skip: u64,
    count: u64,
    sum: u32,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { skip, count, sum } = self;
        write!(f, "{skip}:{count}:{sum:08x}")
    }
}

/// Pieces all over the first `span` bytes, as many as are read at once at `depth`, within reason.
pub(super) fn pieces(span: u64, block_size: u32, depth: u16) -> Vec<Piece> {
    let block = u64::from(block_size.max(1));
    let blocks = span / block;
    let pieces = u64::from(depth).clamp(1, PIECES_MAX);
    let count = (SUMMED / pieces / block).max(1).min(blocks);
    let place = |piece: u64| (blocks - count) * (piece + 1) / pieces;
    let make = |piece| {
        let skip = place(piece);
        Piece { skip, count, sum: sum(skip * block, count * block) }
    };
    (0..pieces).filter(|_| count > 0).map(make).collect()
}

/// What a fresh image has there, in words; both are multiples of 512.
fn words(offset: u64, len: u64) -> impl Iterator<Item = [u8; 8]> {
    const BLOCK: u64 = PATTERN_BLOCK as u64;
    (offset..offset + len).step_by(8).map(|at| {
        let (block, index) = (at / BLOCK * BLOCK, at % BLOCK / 8);
        pattern_base(block, 0).wrapping_add(PATTERN_STEP.wrapping_mul(index)).to_le_bytes()
    })
}

/// What a fresh image has there.
pub(super) fn contents(offset: u64, len: u64) -> Vec<u8> {
    words(offset, len).flatten().collect()
}

/// The sum of it.
pub(super) fn sum(offset: u64, len: u64) -> u32 {
    let mut crc = Crc32::default();
    words(offset, len).for_each(|word| crc.add(&word));
    crc.finish()
}

/// CRC-32 as Ethernet and gzip have it.
struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0_u32;
        while byte < 256 {
            let mut value = byte;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[byte as usize] = value;
            byte += 1;
        }
        table
    };

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            self.0 = self.0 >> 8 ^ Self::TABLE[usize::from(low ^ byte)];
        }
    }

    fn finish(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image;

    /// The check value that catalogues of such sums have.
    #[test]
    fn the_sum_is_the_published_one() {
        let mut crc = Crc32::default();
        crc.add(b"123456789");
        assert_eq!(crc.finish(), 0xcbf4_3926);
    }

    #[test]
    fn the_sums_are_of_what_an_image_has() {
        const LEN: u64 = 3 << 20;
        let mut bytes = Vec::new();
        image::contents(LEN, |_, piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
        for (block_size, depth) in [(4096, 1), (4096, 32), (128 << 10, 8)] {
            for Piece { skip, count, sum } in pieces(LEN, block_size, depth) {
                let at = |blocks: u64| usize::try_from(blocks * u64::from(block_size)).unwrap();
                let mut crc = Crc32::default();
                crc.add(&bytes[at(skip)..at(skip + count)]);
                assert_eq!(crc.finish(), sum, "{block_size} {depth} {skip}");
                let block = u64::from(block_size);
                assert!(contents(skip * block, count * block) == bytes[at(skip)..at(skip + count)]);
            }
        }
    }

    #[test]
    fn pieces_are_inside_and_as_many_as_the_depth() {
        for (span, block_size, depth, pieces_of) in
            [(256 << 20, 4096, 1, 1), (256 << 20, 4096, 32, 8), (8192, 4096, 2, 2)]
        {
            let found = pieces(span, block_size, depth);
            assert_eq!(found.len(), pieces_of);
            let end = |piece: &Piece| (piece.skip + piece.count) * u64::from(block_size);
            assert!(found.iter().all(|piece| piece.count > 0 && end(piece) <= span));
            // The end of it is among them.
            assert_eq!(found.last().map(end), Some(span));
        }
        assert_eq!(pieces(100, 4096, 1), []);
        assert_eq!(Piece { skip: 3, count: 4, sum: 0xab }.to_string(), "3:4:000000ab");
    }
}
