//! UNIX sockets that somebody connects to.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Listens at `path`; takes it over from one that is gone.
///
/// # Errors
/// When another program listens there, or the path cannot be had.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let name = path.display();
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_socket(path) => {
            if UnixStream::connect(path).is_ok() {
                bail!("{name}: another program serves there");
            }
            std::fs::remove_file(path).with_context(|| format!("cannot replace {name}"))?;
            UnixListener::bind(path)
        }
        bound => bound,
    };
    listener.with_context(|| format!("cannot listen at {name}"))
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// The path of a socket of our own, which goes with this.
pub(crate) struct Bound(PathBuf);

impl Bound {
    /// Has it taken away in the end.
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Somebody has done so already.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_over_from_one_that_is_gone_and_from_nobody_else() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let first = bind(&path).unwrap();
        let error = bind(&path).err().unwrap().to_string();
        assert!(error.contains("another program"), "{error}");
        drop(first);
        let again = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(again);
        drop([Bound::new(&path), Bound::new(&path)]);
        assert!(!path.exists());
        std::fs::write(&path, "not a socket").unwrap();
        assert!(bind(&path).is_err());
        assert!(path.exists(), "what is not a socket is left alone");
    }
}
