//! What a PVH loader tells its guest: `hvm_start_info`, version 0 or 1.

use crate::memory::Entry;

const MAGIC: u32 = 0x336e_c578;
const MAX_COMMAND_LINE: usize = 2048;
const MAX_ENTRIES: usize = 64;
/// An `e820` type of memory.
const MEMORY: u32 = 1;

/// A copy of it, since its place is ordinary memory.
pub(crate) struct StartInfo {
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_len: usize,
    map: [Entry; MAX_ENTRIES],
    map_len: usize,
}

#[repr(C)]
struct Raw {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    map: u64,
    map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct RawEntry {
    address: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

impl StartInfo {
    /// Copies what is at `address`; `None` if that is no start info with a memory map.
    ///
    /// # Safety
    /// What a loader put there must still be there.
    pub(crate) unsafe fn read(address: u32) -> Option<Self> {
        // SAFETY: all memory is mapped; the addresses are the loader's.
        unsafe {
            let raw = (address as usize as *const Raw).read_unaligned();
            if raw.magic != MAGIC || raw.version == 0 || raw.map == 0 {
                return None;
            }
            let mut info = Self {
                command_line: [0; MAX_COMMAND_LINE],
                command_line_len: 0,
                map: [Entry::default(); MAX_ENTRIES],
                map_len: (raw.map_entries as usize).min(MAX_ENTRIES),
            };
            for (index, entry) in info.map.iter_mut().take(info.map_len).enumerate() {
                let raw = (raw.map as *const RawEntry).add(index).read_unaligned();
                *entry = Entry::new(raw.address, raw.len, raw.kind == MEMORY);
            }
            if raw.command_line != 0 {
                let text = raw.command_line as *const u8;
                for place in &mut info.command_line {
                    match text.add(info.command_line_len).read() {
                        0 => break,
                        byte => *place = byte,
                    }
                    info.command_line_len += 1;
                }
            }
            Some(info)
        }
    }

    /// The command line; empty if it is not text.
    pub(crate) fn command_line(&self) -> &str {
        core::str::from_utf8(&self.command_line[..self.command_line_len]).unwrap_or_default()
    }

    /// The memory map.
    pub(crate) fn map(&self) -> &[Entry] {
        &self.map[..self.map_len]
    }
}
