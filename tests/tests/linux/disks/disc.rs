//! Discs with a file on them, as ISO 9660 (ECMA-119) has it.

use paraslot_backends::block::{MemoryBackend, MemoryOptions};

/// Bytes of a block.
const BLOCK: usize = 2048;
/// Blocks of the system area, before the volume descriptors.
const SYSTEM_AREA: usize = 16;
/// Where the path table, the root directory and the file's data are.
const PATH_TABLE: u32 = 18;
const ROOT: u32 = 19;
const DATA: u32 = 20;
/// Bytes of the root directory's record in a path table.
const PATH_RECORD: u32 = 10;

/// A disc with the file `data.txt`: `len` bytes of the line that the scripts' `pattern` makes of `word`.
pub(crate) fn disc(word: &str, len: usize) -> MemoryBackend {
    let line = format!("{word} of the pattern\n");
    let data: Vec<u8> = line.bytes().cycle().take(len).collect();
    let contents = image(&data);
    let options = MemoryOptions { read_only: true, id: word.into(), ..MemoryOptions::default() };
    MemoryBackend::from_contents(&contents, options).expect("memory")
}

/// A number in both byte orders (7.2.3, 7.3.3).
fn both16(value: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (value.to_le_bytes(), value.to_be_bytes());
    [a, b, c, d]
}

fn both32(value: u32) -> Vec<u8> {
    [value.to_le_bytes(), value.to_be_bytes()].concat()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("a small file")
}

/// A directory record (9.1).
fn record(name: &[u8], block: u32, len: u32, directory: bool) -> Vec<u8> {
    let mut record = vec![0, 0];
    record.extend(both32(block));
    record.extend(both32(len));
    // Recorded on 1 January 2026, UTC.
    record.extend([126, 1, 1, 0, 0, 0, 0]);
    record.extend([if directory { 2 } else { 0 }, 0, 0]);
    record.extend(both16(1));
    record.push(u8::try_from(name.len()).expect("a short name"));
    record.extend(name);
    record.resize(record.len().next_multiple_of(2), 0);
    record[0] = u8::try_from(record.len()).expect("a short record");
    record
}

/// A volume descriptor's head (8.1).
fn descriptor(kind: u8) -> Vec<u8> {
    let mut descriptor = vec![kind];
    descriptor.extend(b"CD001\x01");
    descriptor
}

fn image(data: &[u8]) -> Vec<u8> {
    let root = record(&[0], ROOT, length(&[0; BLOCK]), true);
    let blocks = DATA + length(data).div_ceil(length(&[0; BLOCK]));

    // The primary volume descriptor (8.4).
    let mut primary = descriptor(1);
    primary.resize(8, 0);
    primary.extend([b' '; 64]);
    primary.resize(80, 0);
    primary.extend(both32(blocks));
    primary.resize(120, 0);
    primary.extend(both16(1));
    primary.extend(both16(1));
    primary.extend(both16(2048));
    primary.extend(both32(PATH_RECORD));
    primary.extend(PATH_TABLE.to_le_bytes());
    primary.resize(156, 0);
    primary.extend(&root);
    primary.resize(190, b' ');
    primary.resize(813, b' ');
    // No dates; the file structure's version.
    for _ in 0..4 {
        primary.extend([b'0'; 16]);
        primary.push(0);
    }
    primary.push(1);

    // The path table's only record is the root's (9.4).
    let mut path_table = vec![1, 0];
    path_table.extend(ROOT.to_le_bytes());
    path_table.extend([1, 0, 0, 0]);

    let mut directory = root.clone();
    directory.extend(record(&[1], ROOT, length(&[0; BLOCK]), true));
    directory.extend(record(b"DATA.TXT;1", DATA, length(data), false));

    let mut image = vec![0; SYSTEM_AREA * BLOCK];
    for part in [&primary, &descriptor(255), &path_table, &directory, data] {
        image.extend(part);
        image.resize(image.len().next_multiple_of(BLOCK), 0);
    }
    image
}
