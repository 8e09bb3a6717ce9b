use std::os::unix::fs::MetadataExt;

use kvm_bindings::kvm_regs;
use tempfile::tempdir;
use vm_memory::{Bytes, GuestAddress};

use super::packed::Packed;
use super::*;

const PAGE: u64 = 4096;
/// Two regions with a hole between them, the first of which is no whole number of chunks.
const REGIONS: [(GuestAddress, usize); 2] =
    [(GuestAddress(0), (1 << 20) + 5 * 4096), (GuestAddress(1 << 32), 3 << 20)];

fn guest_memory() -> GuestMemoryMmap {
    GuestMemoryMmap::from_ranges(&REGIONS).unwrap()
}

/// All of it, as one after the other.
fn contents(memory: &GuestMemoryMmap) -> Vec<u8> {
    let mut contents = Vec::new();
    for (at, len) in REGIONS {
        let mut bytes = vec![0; len];
        memory.read_slice(&mut bytes, at).unwrap();
        contents.extend(bytes);
    }
    contents
}

#[test]
fn memory_comes_back_and_its_empty_pages_take_no_room() {
    let memory = guest_memory();
    let [_, (high, len)] = REGIONS;
    let last = GuestAddress(high.0 + u64::try_from(len).unwrap() - 1);
    for (at, byte) in [(GuestAddress(0), 1), (GuestAddress((1 << 20) + 4095), 2), (high, 3)] {
        memory.write_obj::<u8>(byte, at).unwrap();
    }
    memory.write_obj(4_u8, last).unwrap();
    let directory = tempdir().unwrap();
    let path = directory.path().join(MEMORY);
    let mut file = create(&path).unwrap();
    memory::save(&memory, &mut file).unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!(metadata.len(), memory::bytes(&memory));
    assert_eq!(metadata.mode() & 0o777, 0o600);
    // A file system may be generous, but not that generous.
    assert!(metadata.blocks() * 512 <= 64 * PAGE, "{} blocks", metadata.blocks());

    // It is all there, and what was there before is not.
    let other = guest_memory();
    other.write_slice(&[0xff; 3 * 4096], GuestAddress(0x7000)).unwrap();
    memory::load(&other, &mut File::open(&path).unwrap()).unwrap();
    assert!(contents(&other) == contents(&memory));
    // A file that ends early is no memory.
    file.set_len(memory::bytes(&memory) - 1).unwrap();
    assert!(memory::load(&other, &mut File::open(&path).unwrap()).is_err());
}

#[test]
fn structures_are_digits_of_their_length() {
    let registers = kvm_regs { rax: 0x1234, rip: u64::MAX, ..Default::default() };
    let text = serde_json::to_string(&Packed(registers)).unwrap();
    assert_eq!(text.len(), 2 + 2 * size_of::<kvm_regs>());
    assert!(text.starts_with("\"34120000"));
    let again: Packed<kvm_regs> = serde_json::from_str(&text).unwrap();
    assert_eq!(again.0, registers);
    let longer = text.replacen('"', "\"00", 1);
    let shorter = text.replacen("34", "", 1);
    let other = text.replacen("34", "3x", 1);
    for wrong in [&longer, &shorter, &other, "\"\"", "[]", "0"] {
        assert!(serde_json::from_str::<Packed<kvm_regs>>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_snapshot_is_refused() {
    let directory = tempdir().unwrap();
    let refused = || Snapshot::open(directory.path()).err().expect("a refusal");
    assert!(matches!(refused(), SnapshotError::Io { .. }));
    let path = directory.path().join(STATE);
    fs::create_dir(&path).unwrap();
    assert!(matches!(refused(), SnapshotError::Io { .. }));
    fs::remove_dir(&path).unwrap();
    for text in ["", "{}", "[1]", "{\"version\":-1}", "{\"version\":1}", "\u{1f980}"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(refused(), SnapshotError::Malformed(_)), "{text}");
    }
    for version in [0, 2, u32::MAX] {
        fs::write(&path, format!("{{\"version\":{version},\"new\":[]}}")).unwrap();
        let error = refused();
        assert!(matches!(error, SnapshotError::Version { found } if found == version));
    }
    // However deep or long, it is not read for ever.
    fs::write(&path, "[".repeat(1 << 20)).unwrap();
    assert!(matches!(refused(), SnapshotError::Malformed(_)));
    File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(refused(), SnapshotError::Mismatch(_)));
}

#[test]
fn a_snapshot_is_not_overwritten() {
    let directory = tempdir().unwrap();
    let inside = directory.path().join("new/one");
    prepare(&inside).unwrap();
    assert_eq!(fs::metadata(&inside).unwrap().mode() & 0o777, 0o700);
    prepare(&inside).unwrap();
    fs::write(inside.join(STATE), "").unwrap();
    assert!(matches!(prepare(&inside), Err(SnapshotError::Taken(path)) if path == inside));
    // Where a directory cannot be.
    assert!(matches!(prepare(&inside.join(STATE)), Err(SnapshotError::Io { .. })));
}
