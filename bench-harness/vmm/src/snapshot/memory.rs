//! A guest's memory in a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// What is read or written at once.
const CHUNK: usize = 1 << 20;
/// What is left out of the file if there is nothing in it.
const PAGE: usize = 4096;
const NOTHING: [u8; PAGE] = [0; PAGE];

/// Bytes of memory.
pub(crate) fn bytes(memory: &GuestMemoryMmap) -> u64 {
    memory.iter().map(GuestMemoryRegion::len).sum()
}

/// Calls `act` for each piece of memory with its address, its offset in the file, and room for it.
fn each(
    memory: &GuestMemoryMmap,
    mut act: impl FnMut(GuestAddress, u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    let mut offset = 0;
    for region in memory.iter() {
        let (mut at, mut left) = (region.start_addr().0, region.len());
        while left != 0 {
            let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let piece = room.get_mut(..len).unwrap_or_default();
            act(GuestAddress(at), offset, piece)?;
            let len = len as u64;
            (at, left, offset) = (at + len, left - len, offset + len);
        }
    }
    Ok(())
}

/// The pages of a piece and their offsets in it.
fn pages(piece: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (0..).step_by(PAGE).zip(piece.chunks(PAGE))
}

fn is_nothing(page: &[u8]) -> bool {
    NOTHING.get(..page.len()) == Some(page)
}

/// Writes memory to an empty file.
pub(super) fn save(memory: &GuestMemoryMmap, file: &mut File) -> io::Result<()> {
    each(memory, |at, offset, piece| {
        memory.read_slice(piece, at).map_err(io::Error::other)?;
        let mut full = pages(piece).filter(|(_, page)| !is_nothing(page));
        full.try_for_each(|(within, page)| file.write_all_at(page, offset + within))
    })?;
    file.set_len(bytes(memory))
}

/// Reads memory from a file that is as long. Of a page that is as it should be none is allocated.
pub(super) fn load(memory: &GuestMemoryMmap, file: &mut File) -> io::Result<()> {
    let mut before = vec![0; CHUNK];
    each(memory, |at, _, piece| {
        file.read_exact(piece)?;
        let before = before.get_mut(..piece.len()).unwrap_or_default();
        memory.read_slice(before, at).map_err(io::Error::other)?;
        let old = pages(before).map(|(_, page)| page);
        let mut other = pages(piece).zip(old).filter(|((_, new), old)| new != old);
        other.try_for_each(|((within, page), _)| {
            memory.write_slice(page, GuestAddress(at.0 + within)).map_err(io::Error::other)
        })
    })
}
