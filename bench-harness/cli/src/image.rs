//! The temporary images: files that are gone when the program is, however it ends.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use paraslot_backends::block::{FileBackend, FileOptions};
use paraslot_protocol::{PATTERN_BLOCK, PATTERN_STEP, pattern_base};

/// Size of a temporary image in bytes.
pub(crate) const IMAGE_BYTES: u64 = 256 << 20;

/// Bytes written at once, a multiple of a block.
const CHUNK: usize = 1 << 20;

/// Hands the bytes that a fresh image has to `take`, in order, a piece at a time.
pub(crate) fn contents(
    len: u64,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut start = 0;
    while start < len {
        let room = usize::try_from(len - start).unwrap_or(CHUNK).min(CHUNK);
        let piece = &mut chunk[..room];
        let mut offset = start;
        for block in piece.chunks_mut(PATTERN_BLOCK) {
            let mut word = pattern_base(offset, 0);
            for place in block.chunks_mut(size_of::<u64>()) {
                place.copy_from_slice(&word.to_le_bytes()[..place.len()]);
                word = word.wrapping_add(PATTERN_STEP);
            }
            offset += PATTERN_BLOCK as u64;
        }
        take(start, piece)?;
        start += room as u64;
    }
    Ok(())
}

/// A file without a name, with something in it. It has no name from the start, so nothing is left
/// over if the program is killed.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    file: File,
    /// The same, around the page cache: what a descriptor does is not its duplicates' to choose. There
    /// are file systems that cannot.
    direct: Option<File>,
}

impl TemporaryFile {
    /// A fresh image of `len` bytes in the directory `place`, which is made if need be.
    pub(crate) fn image(place: &Path, len: u64) -> anyhow::Result<Self> {
        let mut this = Self::empty(place)?;
        let file = &mut this.file;
        contents(len, |_, piece| file.write_all(piece)).with_context(|| {
            format!("cannot write a {} MiB image in {}", len >> 20, place.display())
        })?;
        Ok(this)
    }

    /// A file with `bytes` in it.
    pub(crate) fn with(place: &Path, bytes: &[u8]) -> anyhow::Result<Self> {
        let mut this = Self::empty(place)?;
        this.file
            .write_all(bytes)
            .with_context(|| format!("cannot write a file in {}", place.display()))?;
        Ok(this)
    }

    fn empty(place: &Path) -> anyhow::Result<Self> {
        let failed = || format!("cannot make a file in {}", place.display());
        fs::create_dir_all(place).with_context(failed)?;
        for number in 0..u32::MAX {
            let path = place.join(format!(".image-{}-{number}", std::process::id()));
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true);
            match options.clone().create_new(true).open(&path) {
                Ok(file) => {
                    let direct = options.custom_flags(libc::O_DIRECT).open(&path).ok();
                    fs::remove_file(&path).with_context(failed)?;
                    return Ok(Self { file, direct });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(failed),
            }
        }
        anyhow::bail!("{}: too many left-over images", failed())
    }

    /// A backend over it. No file system is asked for it by name: some do not find what has none.
    ///
    /// # Errors
    /// When it cannot be used as `options` say.
    pub(crate) fn open(&self, options: &FileOptions) -> anyhow::Result<FileBackend> {
        let file = self.file(options.direct)?;
        let file = file.try_clone().context("cannot open the temporary image again")?;
        open_nameless(file, options)
    }

    /// The file, or the one that goes around the page cache.
    ///
    /// # Errors
    /// When it cannot.
    pub(crate) fn file(&self, direct: bool) -> anyhow::Result<&File> {
        match &self.direct {
            Some(file) if direct => Ok(file),
            None if direct => anyhow::bail!(
                "the temporary image's file system has no direct I/O: leave direct=on out"
            ),
            _ => Ok(&self.file),
        }
    }

    /// A name under which this process and its children can open it for as long as it exists, where the
    /// file system finds files that have no other.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

/// A backend over a temporary image.
///
/// # Errors
/// When it cannot be used as `options` say.
pub(crate) fn open_nameless(file: File, options: &FileOptions) -> anyhow::Result<FileBackend> {
    // Nobody else has a way to it.
    let options = FileOptions { lock: false, ..options.clone() };
    Ok(FileBackend::with_file(file, &options)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_the_pattern_and_no_name() {
        let place = tempfile::tempdir().unwrap();
        let len = 3 * CHUNK as u64 / 2;
        let image = TemporaryFile::image(place.path(), len).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
        let bytes = fs::read(image.path()).unwrap();
        assert_eq!(bytes.len() as u64, len);
        for offset in [0, PATTERN_BLOCK, CHUNK, bytes.len() - PATTERN_BLOCK] {
            let word = |index: usize| {
                let at = offset + 8 * index;
                u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
            };
            let base = pattern_base(offset as u64, 0);
            assert_eq!(word(0), base);
            assert_eq!(word(511), base.wrapping_add(PATTERN_STEP.wrapping_mul(511)));
        }
    }

    /// On an overlay over a network file system, nothing that has no name can be opened by its
    /// descriptor's.
    #[test]
    fn an_image_is_opened_without_its_name() {
        use paraslot_backends::block::BlockBackend;
        let place = tempfile::tempdir().unwrap();
        let image = TemporaryFile::image(place.path(), 8192).unwrap();
        for read_only in [false, true] {
            let options = FileOptions { read_only, ..FileOptions::new("nowhere") };
            let info = image.open(&options).unwrap().info();
            assert_eq!((info.capacity, info.read_only), (8192, read_only));
        }
        let direct = FileOptions { direct: true, ..FileOptions::new("nowhere") };
        match (&image.direct, image.open(&direct)) {
            (None, Err(error)) => assert!(error.to_string().contains("no direct I/O"), "{error}"),
            // Blocks of 512 bytes may be too small for it.
            (None, Ok(_)) => panic!("opened without direct I/O"),
            (Some(_), opened) => drop(opened),
        }
        let blind = TemporaryFile { direct: None, ..image };
        assert!(blind.open(&direct).is_err());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let place = Path::new("/proc/nowhere");
        let error = crate::error::line(&TemporaryFile::image(place, 4096).unwrap_err());
        assert!(error.contains("/proc/nowhere") && !error.contains('\n'), "{error}");
    }
}
