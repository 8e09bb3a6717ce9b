//! What can be wrong with a TAP interface, for whoever named it.

use std::io;

use super::sys::DEVICE;

/// Why a TAP interface cannot be used, in one line that says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// Not a name that an interface can have.
    #[error(
        "interface name {name:?} is not possible; use 1 to 15 letters, digits and dashes, with at \
         most one %d, for a number that the host chooses"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// Not a number of queue pairs that is possible.
    #[error("interface {name}: {queues} queue pairs are not possible; choose 1 to {max}")]
    Queues {
        /// The name.
        name: String,
        /// How many were asked for.
        queues: usize,
        /// Most that there can be.
        max: u16,
    },
    /// The host has no TAP driver, or it cannot be reached.
    #[error("{} cannot be opened: {error}; {advice}", DEVICE)]
    Device {
        /// As the host puts it.
        error: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// No permission to create the interface, or to attach to it.
    #[error(
        "interface {name} may not be created or used by this user; have an administrator create \
         it with `ip tuntap add dev {name} mode tap user $USER`, or run with CAP_NET_ADMIN"
    )]
    Permission {
        /// The name.
        name: String,
    },
    /// Someone else uses it.
    #[error("interface {name} is in use by someone else; stop that first, or name another")]
    Busy {
        /// The name.
        name: String,
    },
    /// It exists, and is something else.
    #[error(
        "interface {name} exists and is no TAP interface for {queues} queue pairs; name another, \
         or create it anew with `ip tuntap add dev {name} mode tap{multi_queue}`"
    )]
    Mismatch {
        /// The name.
        name: String,
        /// How many were asked for.
        queues: u16,
        /// What the command needs for these.
        multi_queue: &'static str,
    },
    /// A descriptor that was passed in is not what it should be.
    #[error("descriptor {fd} {what}; {advice}")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// What is wrong.
        what: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Anything else.
    #[error("interface {name}: {action}: {error}")]
    Io {
        /// The name.
        name: String,
        /// What could not be done.
        action: &'static str,
        /// As the host puts it.
        error: io::Error,
    },
}

impl TapError {
    pub(super) fn device(error: io::Error) -> Self {
        let advice = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => "let this user read and write it",
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
                "load the driver with `modprobe tun`, and give the container the device"
            }
            _ => "see the host's log",
        };
        Self::Device { error, advice }
    }

    pub(super) fn interface(name: &str, queues: u16, error: io::Error) -> Self {
        let name = name.into();
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { name },
            Some(libc::EBUSY) => Self::Busy { name },
            Some(libc::EINVAL) => {
                let multi_queue = if queues > 1 { " multi_queue" } else { "" };
                Self::Mismatch { name, queues, multi_queue }
            }
            _ => Self::Io { name, action: "it cannot be created or attached to", error },
        }
    }
}
