//! Where clients connect: sockets of our own, or systemd's.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::error::Usage;

/// A socket that listens.
pub(super) struct Socket {
    /// Its path, or its number among those that were passed on.
    pub(super) name: String,
    pub(super) listener: UnixListener,
}

/// A socket for each of `count` devices: at `paths`, or without any those that systemd passes on.
///
/// # Errors
/// When there are not as many, or one cannot be had.
pub(super) fn open(paths: &[PathBuf], count: usize) -> anyhow::Result<Vec<Socket>> {
    if !paths.is_empty() {
        if paths.len() != count {
            return Err(Usage::error(format!(
                "{count} --device and {} --socket: each device needs one",
                paths.len()
            )));
        }
        return paths.iter().map(|path| bind(path)).collect();
    }
    let mut passed = ListenFd::from_env();
    if passed.len() != count {
        let len = passed.len();
        return Err(Usage::error(match len {
            0 => format!("no --socket: {count} devices need one each"),
            _ => format!("{count} --device, and systemd passes {len} sockets on"),
        }));
    }
    let sockets = (0..count).map(|index| {
        let listener = passed.take_unix_listener(index);
        let listener = listener.with_context(|| format!("socket {index} of systemd's"))?;
        let listener = listener.with_context(|| format!("socket {index} of systemd's is taken"))?;
        Ok(Socket { name: format!("socket {index}"), listener })
    });
    sockets.collect()
}

/// Listens at `path`; takes it over from one that is gone.
fn bind(path: &Path) -> anyhow::Result<Socket> {
    let name = path.display().to_string();
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
    let listener = listener.with_context(|| format!("cannot listen at {name}"))?;
    Ok(Socket { name, listener })
}

fn is_socket(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// Tells systemd, if it is that which has started this, that clients can come.
pub(super) fn ready() {
    // Who does not listen does not need to know.
    let _ = sd_notify::notify(true, &[NotifyState::Ready]);
}

/// Takes the sockets of our own away.
pub(super) fn remove(paths: &[PathBuf]) {
    for path in paths {
        // Somebody has done so already.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_needs_a_socket() {
        let error = open(&["/nowhere".into()], 2).err().unwrap();
        assert_eq!(error.to_string(), "2 --device and 1 --socket: each device needs one");
    }

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
        remove(&[path.clone(), path.clone()]);
        std::fs::write(&path, "not a socket").unwrap();
        assert!(bind(&path).is_err());
        assert!(path.exists(), "what is not a socket is left alone");
    }
}
