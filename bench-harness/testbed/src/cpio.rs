//! The archive format of an initial RAM file system: `newc`
//! (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).

/// Bytes that an archive's length is a multiple of, so that archives may follow one another.
const BLOCK: usize = 512;

/// Type bits of a mode, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the making. Everything in it belongs to root, and no time is recorded: the same
/// files give the same bytes.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An archive without entries.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a directory; its parent must be there before it.
    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file with the given permissions.
    pub(crate) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, FILE | permissions & 0o7777, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub(crate) fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[]);
    }

    /// The archive, ended and padded.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.pad(BLOCK);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY != 0 && mode & FILE == 0 { 2 } else { 1 };
        // A file of 4 GiB has no place in memory: nobody gives one.
        let size = u32::try_from(content.len()).expect("a file of less than 4 GiB");
        let name = u32::try_from(path.len() + 1).expect("a path of less than 4 GiB");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor,
        // namesize, check.
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, unit: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(unit), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_header_a_name_and_its_bytes() {
        let mut archive = Archive::new();
        archive.file("a", 0o755, b"hello");
        let bytes = archive.finish();
        let header = b"07070100000001000081ed00000000000000000000000100000000\
            00000005000000000000000000000000000000000000000200000000";
        assert_eq!(&bytes[..110], header);
        assert_eq!(&bytes[110..112], b"a\0");
        assert_eq!(&bytes[112..120], b"hello\0\0\0");
        assert_eq!(&bytes[120..126], b"070701");
        assert_eq!(&bytes[120 + 110..120 + 121], b"TRAILER!!!\0");
        assert_eq!(bytes.len(), 512);
    }

    #[test]
    fn every_kind_has_its_type_and_number() {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.character_device("dev/console", 5, 1);
        archive.symlink("bin", "usr/bin");
        let text = String::from_utf8(archive.finish()).expect("ASCII");
        assert!(text.contains("000041ed"), "{text}");
        assert!(text.contains("00002180"), "{text}");
        assert!(text.contains("0000a1ff"), "{text}");
        assert!(text.contains("0000000500000001"), "{text}");
        assert!(text.contains("usr/bin"), "{text}");
    }

    #[test]
    fn archives_may_follow_one_another() {
        for length in 0..600 {
            let mut archive = Archive::new();
            archive.file("script", 0o644, &vec![b'x'; length]);
            assert_eq!(archive.finish().len() % BLOCK, 0, "{length}");
        }
    }
}
