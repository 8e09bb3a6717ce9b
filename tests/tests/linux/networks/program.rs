//! The program `peer` and what it needs to run in a guest whose own libraries may be older.

use std::fs;
use std::path::Path;

/// A file for the guest.
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The program, its interpreter and its libraries, which are those that this process has.
pub(crate) fn files() -> Vec<File> {
    let maps = fs::read_to_string("/proc/self/maps").expect("this process's memory");
    let mapped = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let mut libraries: Vec<_> = mapped.filter(|path| is_library(path)).collect();
    libraries.sort();
    libraries.dedup();
    let program = Path::new(env!("CARGO_BIN_EXE_peer"));
    let all = libraries.into_iter().chain([program]);
    let read = |path: &Path| File {
        name: path.file_name().expect("a file").to_str().expect("a name").into(),
        content: loaded_part(fs::read(path).expect("a program")),
    };
    all.map(read).collect()
}

fn is_library(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("");
    name.contains(".so")
}

/// An ELF file without what is not loaded: symbols and debugging information, at its end.
fn loaded_part(mut file: Vec<u8>) -> Vec<u8> {
    const LOAD: u32 = 1;
    let number = |at: usize, len: usize| {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&file[at..at + len]);
        usize::try_from(u64::from_le_bytes(bytes)).expect("inside the file")
    };
    assert_eq!(file[..5], *b"\x7fELF\x02", "a 64-bit program");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let headers = (0..count).map(|index| table + index * size);
    let loaded = headers.filter(|at| number(*at, 4) == usize::try_from(LOAD).expect("small"));
    let end = loaded.map(|at| number(at + 8, 8) + number(at + 32, 8)).max().expect("a program");
    file.truncate(end);
    // It has no section headers any more: e_shoff, e_shnum, e_shstrndx.
    file[40..48].fill(0);
    file[60..64].fill(0);
    file
}
