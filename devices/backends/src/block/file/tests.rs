//! Tests of the file backend.

use std::io::Write;
use std::sync::atomic::Ordering;

use super::*;
use crate::block::testing::{GuestPages, conformance, finish, plain};
use crate::block::{BlockCompletion, BlockError, BlockOp, BlockRequest};

const MIB: u64 = 1 << 20;
const ENGINES: [Engine; 2] = [Engine::IoUring, Engine::Threads];

struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn image(&self, size: u64) -> FileOptions {
        let path = self.directory.path().join("disk.img");
        File::create(&path).unwrap().set_len(size).unwrap();
        FileOptions::new(path)
    }
}

/// Opens it with an engine and a way around the cache, unless this host has no such thing.
fn open(options: &FileOptions, engine: Engine, direct: bool) -> Option<FileBackend> {
    let options = FileOptions { engine, direct, ..options.clone() };
    match FileBackend::open(&options) {
        Ok(backend) => {
            assert_eq!(backend.engine(), engine);
            Some(backend)
        }
        Err(
            error @ (OpenError::NoUring { .. }
            | OpenError::NoDirect { .. }
            | OpenError::Direct { .. }),
        ) => {
            println!("skipped {engine:?}, direct {direct}: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn all(options: &FileOptions, mut test: impl FnMut(FileBackend)) {
    for engine in ENGINES {
        for direct in [false, true] {
            if let Some(backend) = open(options, engine, direct) {
                test(backend);
            }
        }
    }
}

pub(super) fn flush(token: u64) -> BlockRequest {
    plain(token, BlockOp::Flush, 0, 0)
}

/// Which operations have ended, in the order of their tokens, and whether they were cancelled; no
/// other error will do.
pub(super) fn cancelled(completions: &[BlockCompletion]) -> Vec<(u64, bool)> {
    let is_cancelled = |completion: &BlockCompletion| match &completion.result {
        Ok(()) => false,
        Err(BlockError::Cancelled) => true,
        Err(error) => panic!("{error}"),
    };
    let mut list: Vec<_> = completions.iter().map(|c| (c.token, is_cancelled(c))).collect();
    list.sort_unstable();
    list
}

#[test]
fn files_conform() {
    let scratch = Scratch::new();
    for logical_block in [512, 4096] {
        let options = FileOptions { logical_block, ..scratch.image(2 * MIB) };
        all(&options, |backend| conformance(&backend, true));
    }
    let options = FileOptions { cache: CacheMode::Writethrough, ..scratch.image(2 * MIB) };
    all(&options, |backend| {
        assert!(!backend.info().volatile_cache);
        conformance(&backend, true);
    });
}

#[test]
fn without_fallocate_zeroes_are_written() {
    let scratch = Scratch::new();
    all(&scratch.image(4 * MIB), |backend| {
        backend.image.can_punch.store(false, Ordering::Relaxed);
        backend.image.can_zero.store(false, Ordering::Relaxed);
        conformance(&backend, true);
        // More than is written at once.
        let guest = GuestPages::new(8 << 20);
        guest.write(0, &vec![7; 4 << 20]);
        let mut queue = backend.open_queue(2).unwrap();
        queue.submit(guest.write_request(1, 0, &[(0, 4 << 20)])).unwrap();
        assert!(finish(&mut *queue).remove(0).result.is_ok());
        let zeroes = BlockOp::WriteZeroes { unmap: true };
        queue.submit(plain(2, zeroes, MIB / 2, 3 * MIB)).unwrap();
        assert!(finish(&mut *queue).remove(0).result.is_ok());
        queue.submit(guest.read_request(3, 0, &[(4 << 20, 4 << 20)])).unwrap();
        assert!(finish(&mut *queue).remove(0).result.is_ok());
        let image = guest.read(4 << 20, 4 << 20);
        let (start, end) = (MIB / 2, MIB / 2 + 3 * MIB);
        for (index, byte) in (0u64..).zip(image) {
            assert_eq!(byte, if (start..end).contains(&index) { 0 } else { 7 }, "at {index}");
        }
    });
}

#[test]
fn a_discard_gives_space_back_and_plain_zeroes_keep_it() {
    use std::os::unix::fs::MetadataExt;
    let scratch = Scratch::new();
    let options = scratch.image(2 * MIB);
    let blocks = || std::fs::metadata(&options.path).unwrap().blocks();
    let backend = FileBackend::open(&options).unwrap();
    let mut queue = backend.open_queue(1).unwrap();
    let mut run = |op| {
        let guest = GuestPages::new(2 << 20);
        guest.write(0, &vec![7; 2 << 20]);
        queue.submit(guest.write_request(1, 0, &[(0, 2 << 20)])).unwrap();
        finish(&mut *queue);
        queue.submit(flush(2)).unwrap();
        finish(&mut *queue);
        let full = blocks();
        assert!(full >= 2 * MIB / 512);
        queue.submit(plain(3, op, 0, 2 * MIB)).unwrap();
        assert!(finish(&mut *queue).remove(0).result.is_ok());
        queue.submit(flush(4)).unwrap();
        finish(&mut *queue);
        blocks()
    };
    if backend.image.can_punch.load(Ordering::Relaxed) {
        assert!(run(BlockOp::Discard) < 64);
        assert!(run(BlockOp::WriteZeroes { unmap: true }) < 64);
    }
    assert!(run(BlockOp::WriteZeroes { unmap: false }) >= 2 * MIB / 512);
    assert!(run(BlockOp::SecureErase) >= 2 * MIB / 512);
}

// Blocks that are not aligned go through a buffer, and only those.
#[test]
fn only_what_is_not_aligned_is_copied() {
    let scratch = Scratch::new();
    let guest = GuestPages::new(2 << 20);
    all(&FileOptions { logical_block: 4096, ..scratch.image(MIB) }, |backend| {
        let direct = backend.image.buffer_alignment != 0;
        let mut queue = backend.open_queue(4).unwrap();
        queue.submit(guest.read_request(1, 0, &[(0x1000, 0x8000)])).unwrap();
        finish(&mut *queue);
        assert_eq!(queue.copied_bytes(), 0);
        queue.submit(guest.read_request(1, 0, &[(0x1004, 0x8000)])).unwrap();
        queue.submit(guest.write_request(1, 0, &[(0x1004, 0xff0), (0x3000, 0x10)])).unwrap();
        finish(&mut *queue);
        assert_eq!(queue.copied_bytes(), if direct { 0x9000 } else { 0 });
    });
}

#[test]
fn opening_changes_and_creates_nothing() {
    let scratch = Scratch::new();
    let options = scratch.image(MIB);
    let before = std::fs::metadata(&options.path).unwrap();
    all(&options, |backend| {
        let mut queue = backend.open_queue(4).unwrap();
        queue.submit(flush(1)).unwrap();
        finish(&mut *queue);
    });
    let after = std::fs::metadata(&options.path).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!(before.len(), after.len());
    let missing = FileOptions::new(scratch.directory.path().join("missing.img"));
    let error = FileBackend::open(&missing).err().unwrap();
    assert!(error.to_string().contains("does not exist; create it"), "{error}");
    assert!(!missing.path.exists());
}

#[test]
fn errors_say_what_to_do_in_one_line() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let say = |options: &FileOptions| {
        let line = FileBackend::open(options).err().expect("an error").to_string();
        assert!(!line.contains('\n') && line.contains(options.path.to_str().unwrap()), "{line}");
        line
    };
    let directory = FileOptions::new(scratch.directory.path());
    assert!(say(&directory).contains("is a directory; name a regular file"));
    assert!(say(&FileOptions::new("/dev/null")).contains("neither a regular file nor"));
    assert!(say(&scratch.image(1000)).contains("truncate -s 1024"));
    assert!(say(&scratch.image(0)).contains("truncate -s 512"));
    let odd = FileOptions { logical_block: 4096, ..scratch.image(4608) };
    assert!(say(&odd).contains("truncate -s 8192"));
    let odd = FileOptions { logical_block: 1000, ..scratch.image(4096) };
    assert!(say(&odd).contains("not a power of two"));

    let options = scratch.image(4096);
    let permissions = std::fs::Permissions::from_mode(0o000);
    std::fs::set_permissions(&options.path, permissions).unwrap();
    if File::open(&options.path).is_ok() {
        println!("skipped permissions: this user may do everything");
    } else {
        assert!(say(&options).contains("or open it read-only"));
        let reading = FileOptions { read_only: true, ..options };
        assert!(say(&reading).contains("let this user read it"));
    }
}

#[test]
fn an_image_is_locked_while_it_is_open() {
    let scratch = Scratch::new();
    let writing = scratch.image(MIB);
    let reading = FileOptions { read_only: true, ..writing.clone() };
    let unlocked = FileOptions { lock: false, ..writing.clone() };
    let backend = FileBackend::open(&writing).unwrap();
    for options in [&writing, &reading] {
        let error = FileBackend::open(options).err().unwrap();
        assert!(error.to_string().contains("is in use"), "{error}");
    }
    FileBackend::open(&unlocked).unwrap();
    drop(backend);
    let first = FileBackend::open(&reading).unwrap();
    let second = FileBackend::open(&reading).unwrap();
    assert!(FileBackend::open(&writing).is_err());
    drop((first, second));
    // A queue alone keeps it locked, too.
    let queue = FileBackend::open(&writing).unwrap().open_queue(1).unwrap();
    assert!(FileBackend::open(&writing).is_err());
    drop(queue);
    FileBackend::open(&writing).unwrap();
}

#[test]
fn a_read_only_image_is_only_read() {
    let scratch = Scratch::new();
    let options = FileOptions { read_only: true, ..scratch.image(MIB) };
    let guest = GuestPages::new(0x4000);
    all(&options, |backend| {
        assert!(backend.info().read_only);
        let mut queue = backend.open_queue(8).unwrap();
        queue.submit(guest.write_request(1, 0, &[(0, 4096)])).unwrap();
        queue.submit(plain(2, BlockOp::Discard, 0, 4096)).unwrap();
        for completion in finish(&mut *queue) {
            assert!(matches!(completion.result, Err(BlockError::ReadOnly)));
        }
        queue.submit(guest.read_request(3, 0, &[(0, 4096)])).unwrap();
        queue.submit(flush(4)).unwrap();
        assert!(finish(&mut *queue).iter().all(|completion| completion.result.is_ok()));
    });
}

#[test]
fn a_file_that_grew_or_shrank() {
    let scratch = Scratch::new();
    let options = scratch.image(MIB);
    let guest = GuestPages::new(0x4000);
    all(&options, |backend| {
        let file = OpenOptions::new().write(true).open(&options.path).unwrap();
        file.set_len(2 * MIB).unwrap();
        assert_eq!(backend.info().capacity, MIB);
        assert_eq!(backend.refresh().unwrap(), 2 * MIB);
        assert_eq!(backend.info().capacity, 2 * MIB);
        file.set_len(2 * MIB - 1).unwrap();
        assert!(backend.refresh().is_err());
        assert_eq!(backend.info().capacity, 2 * MIB);

        // Shrunk behind our back, it ends too early: an error, no endless loop.
        file.set_len(MIB + 512).unwrap();
        let mut queue = backend.open_queue(2).unwrap();
        queue.submit(guest.read_request(1, MIB, &[(0, 0x2000)])).unwrap();
        let result = finish(&mut *queue).remove(0).result;
        assert!(matches!(result, Err(BlockError::Io(_))), "{result:?}");
        file.set_len(MIB).unwrap();
    });
}

#[test]
fn a_full_file_system_is_no_space() {
    // The device that is always full stands in for one.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let error = (&full).write(&[0]).unwrap_err();
    assert!(matches!(BlockError::from(error), BlockError::NoSpace));
}

#[test]
fn many_queues_flush_at_once() {
    let scratch = Scratch::new();
    all(&scratch.image(MIB), |backend| {
        let backend = &backend;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(move || {
                    let guest = GuestPages::new(0x4000);
                    let mut queue = backend.open_queue(8).unwrap();
                    for round in 0..10 {
                        for token in 0..4 {
                            let mut write = guest.write_request(token, token * 4096, &[(0, 4096)]);
                            write.op = BlockOp::Write { fua: (token + round) % 2 == 0 };
                            queue.submit(write).unwrap();
                            queue.submit(flush(token + 4)).unwrap();
                        }
                        let completions = finish(&mut *queue);
                        assert_eq!(completions.len(), 8);
                        assert!(completions.iter().all(|c| c.result.is_ok()));
                    }
                    // Dropped with flushes that wait for each other.
                    for token in 0..8 {
                        queue.submit(flush(token)).unwrap();
                    }
                    queue.commit();
                });
            }
        });
    });
}

/// A name may be gone, or never have been: what is open is used as it is.
#[test]
fn a_file_that_is_open_already_needs_no_name() {
    let scratch = Scratch::new();
    let options = scratch.image(MIB);
    let file = OpenOptions::new().read(true).write(true).open(&options.path).unwrap();
    std::fs::remove_file(&options.path).unwrap();
    let options = FileOptions { path: "no name".into(), lock: false, ..options };
    for engine in ENGINES {
        let options = FileOptions { engine, ..options.clone() };
        let file = file.try_clone().unwrap();
        match FileBackend::with_file(file, &options) {
            Ok(backend) => conformance(&backend, true),
            Err(OpenError::NoUring { error, .. }) => println!("skipped {engine:?}: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
    let directory = File::open(scratch.directory.path()).unwrap();
    let error = FileBackend::with_file(directory, &options).err().unwrap().to_string();
    assert_eq!(error, "image \"no name\" is a directory; name a regular file or a block device");
}
