//! Where clients connect: sockets of our own, or systemd's.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use anyhow::Context;
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::error::Usage;
use crate::socket::{self, Bound};

/// A socket that listens.
pub(super) struct Socket {
    /// Its path, or its number among those that were passed on.
    pub(super) name: String,
    pub(super) listener: UnixListener,
    /// It is our own.
    pub(super) bound: Option<Bound>,
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
        Ok(Socket { name: format!("socket {index}"), listener, bound: None })
    });
    sockets.collect()
}

fn bind(path: &Path) -> anyhow::Result<Socket> {
    let listener = socket::bind(path)?;
    Ok(Socket { name: path.display().to_string(), listener, bound: Some(Bound::new(path)) })
}

/// Tells systemd, if it is that which has started this, that clients can come.
pub(super) fn ready() {
    // Who does not listen does not need to know.
    let _ = sd_notify::notify(true, &[NotifyState::Ready]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_needs_a_socket() {
        let error = open(&["/nowhere".into()], 2).err().unwrap();
        assert_eq!(error.to_string(), "2 --device and 1 --socket: each device needs one");
    }
}
