//! A vmlinux's headers, looked at before it is loaded.
//!
//! What loads it believes them. A kernel that is not one is to be told apart here, in words, and is not
//! to keep anybody busy.

use std::io::{self, Read, Seek, SeekFrom};

/// Segments that a kernel may have; Linux has about five.
const SEGMENTS_MAX: u16 = 64;
/// Bytes of notes in a segment; Linux has less than a thousand.
const NOTES_MAX: u64 = 64 << 10;

/// A segment that is in memory when the kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First address.
    pub(super) start: u64,
    /// Bytes that the file has.
    pub(super) in_file: u64,
    /// Bytes in memory; the file does not have the last of them, which are zeroes.
    pub(super) in_memory: u64,
}

/// The segments of the file that are in memory from `low` to `high`, as all of them must be.
///
/// # Errors
/// Why the file is no kernel, or does not fit.
pub(super) fn segments(
    file: &mut (impl Read + Seek),
    (low, high): (u64, u64),
) -> Result<Vec<Segment>, String> {
    const HEADER: usize = 64;
    const SEGMENT: usize = 56;
    const LOAD: u32 = 1;
    const NOTE: u32 = 4;
    const X86_64: u16 = 62;
    const EXECUTABLE: u16 = 2;

    let cut = |_: io::Error| "it is cut short".to_owned();
    let len = file.seek(SeekFrom::End(0)).map_err(cut)?;
    file.rewind().map_err(cut)?;
    let mut header = [0; HEADER];
    file.read_exact(&mut header).map_err(cut)?;
    let is_64_bit = header.get(4) == Some(&2) && header.get(5) == Some(&1);
    if !is_64_bit || half(&header, 18) != X86_64 || half(&header, 16) != EXECUTABLE {
        return Err("it is no executable for 64-bit x86".to_owned());
    }
    let (entry, table, count) = (long(&header, 24), long(&header, 32), half(&header, 56));
    if usize::from(half(&header, 54)) != SEGMENT || count > SEGMENTS_MAX {
        return Err("its program headers make no sense".to_owned());
    }
    file.seek(SeekFrom::Start(table)).map_err(cut)?;
    let mut segments = Vec::new();
    for _ in 0..count {
        let mut header = [0; SEGMENT];
        file.read_exact(&mut header).map_err(cut)?;
        let (kind, offset, in_file) = (word(&header, 0), long(&header, 8), long(&header, 32));
        if kind != LOAD && kind != NOTE {
            continue;
        }
        if offset.checked_add(in_file).is_none_or(|end| end > len) {
            return Err("it is cut short".to_owned());
        }
        if kind == NOTE {
            if in_file > NOTES_MAX {
                return Err("its notes make no sense".to_owned());
            }
            continue;
        }
        let (start, in_memory) = (long(&header, 24), long(&header, 40));
        let end = start.checked_add(in_memory).filter(|_| in_file <= in_memory && start >= low);
        let end = end.ok_or("its segments make no sense")?;
        if end > high {
            return Err(format!(
                "it needs memory up to {end:#x}, and the guest's ends at {high:#x}"
            ));
        }
        segments.push(Segment { start, in_file, in_memory });
    }
    let starts_in = |segment: &Segment| entry.wrapping_sub(segment.start) < segment.in_file;
    if !segments.iter().any(starts_in) {
        return Err("it has no code at its entry point".to_owned());
    }
    Ok(segments)
}

fn bytes<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(header.iter().skip(at)).for_each(|(byte, value)| *byte = *value);
    bytes
}

fn half(header: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes(header, at))
}

fn word(header: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(header, at))
}

fn long(header: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(header, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    const WITHIN: (u64, u64) = (0x10_0000, 0x40_0000);

    /// An executable of one segment at 1 MiB and a note, 16 bytes each, entered at its first byte.
    fn kernel() -> Vec<u8> {
        let mut elf = vec![0; 64 + 2 * 56 + 32];
        let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, b"\x7fELF\x02\x01\x01");
        put(16, &[2, 0, 62, 0]);
        put(24, &0x10_0000_u64.to_le_bytes());
        put(32, &64_u64.to_le_bytes());
        put(54, &[56, 0, 2, 0]);
        for (at, kind, offset) in [(64, 1, 176_u64), (120, 4, 192)] {
            put(at, &[kind]);
            put(at + 8, &offset.to_le_bytes());
            put(at + 24, &0x10_0000_u64.to_le_bytes());
            put(at + 32, &16_u64.to_le_bytes());
            put(at + 40, &0x1000_u64.to_le_bytes());
        }
        elf
    }

    fn look(elf: &[u8]) -> Result<Vec<Segment>, String> {
        segments(&mut Cursor::new(elf), WITHIN)
    }

    #[test]
    fn a_kernel_s_segments_are_found() {
        let segment = Segment { start: 0x10_0000, in_file: 16, in_memory: 0x1000 };
        assert_eq!(look(&kernel()), Ok(vec![segment]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (at, value, says) in [
            (4, 1, "no executable"),
            (16, 3, "no executable"),
            (18, 3, "no executable"),
            (31, 1, "entry point"),
            (54, 55, "program headers"),
            (57, 1, "program headers"),
            (39, 0xff, "cut short"),
            (32, 0x80, "cut short"),
            (64 + 15, 0xff, "cut short"),
            (64 + 33, 1, "cut short"),
            (64 + 26, 0x0f, "segments"),
            (64 + 31, 0xff, "needs memory"),
            (64 + 47, 0xff, "needs memory"),
            (64 + 42, 0x40, "needs memory up to 0x501000"),
            (120 + 15, 0x80, "cut short"),
        ] {
            let mut elf = kernel();
            elf[at] = value;
            let reason = look(&elf).unwrap_err();
            assert!(reason.contains(says), "{at}: {reason}");
        }
        assert!(look(&kernel()[..150]).is_err());
    }

    proptest! {
        // A kernel's file may be anything; what passes is within memory.
        #[test]
        fn what_passes_fits(edits in prop::collection::vec((0_usize..208, any::<u8>()), 0..6)) {
            let mut elf = kernel();
            edits.into_iter().for_each(|(at, value)| elf[at] = value);
            for Segment { start, in_file, in_memory } in look(&elf).unwrap_or_default() {
                prop_assert!(in_file <= in_memory && start >= WITHIN.0);
                prop_assert!(start + in_memory <= WITHIN.1);
            }
        }
    }
}
