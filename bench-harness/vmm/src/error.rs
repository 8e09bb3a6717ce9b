//! What can go wrong, in one line each.

use std::fmt;
use std::io;
use std::time::Duration;

use paraslot_pci::PlugError;

use crate::SnapshotError;

/// Why a virtual machine could not be made or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// There is no `/dev/kvm`.
    #[error("this machine has no /dev/kvm: its kernel has no KVM, or virtualisation is off")]
    NoKvm,
    /// `/dev/kvm` may not be used.
    #[error("no permission to use /dev/kvm: membership of the group kvm usually gives it")]
    Permission,
    /// `/dev/kvm` cannot be opened for another reason.
    #[error("cannot open /dev/kvm: {0}")]
    Open(#[source] io::Error),
    /// KVM is too old, or restricted.
    #[error("this KVM has no {0}")]
    Missing(&'static str),
    /// KVM refused something.
    #[error("KVM cannot {what}: {error}")]
    Kvm {
        /// What it was asked to do.
        what: &'static str,
        /// Why it did not.
        #[source]
        error: io::Error,
    },
    /// The guest's memory could not be had.
    #[error("cannot give the guest {bytes} bytes of memory: {reason}")]
    Memory {
        /// Bytes that were asked for.
        bytes: u64,
        /// Why not.
        reason: String,
    },
    /// The image could not be loaded.
    #[error("cannot load the guest's image: {0}")]
    Image(String),
    /// A function could not be plugged in.
    #[error(transparent)]
    Plug(#[from] PlugError),
    /// The machine could not be saved or restored.
    #[error(transparent)]
    Snapshot(Box<SnapshotError>),
    /// The guest was suspended by [`VmHandle::suspend`](crate::VmHandle::suspend). It goes on with the
    /// next run.
    #[error("the guest was suspended")]
    Suspended,
    /// The vCPU's thread could not be started or pinned.
    #[error("cannot run the vCPU on a thread of its own: {0}")]
    Thread(#[source] io::Error),
    /// A device or a caller panicked during an earlier run.
    #[error("the virtual machine is of no use any more: an earlier run of it panicked")]
    Poisoned,
    /// The guest did not end in time.
    #[error("the guest did not end within {limit:?}; it was at {registers}")]
    Timeout {
        /// The time that it had.
        limit: Duration,
        /// Where it was.
        registers: Registers,
    },
    /// The guest shut down without a word: a triple fault.
    #[error("the guest shut down (a triple fault) at {0}")]
    Shutdown(Registers),
    /// KVM could not go on.
    #[error("KVM stopped the guest ({reason}) at {registers}")]
    Stopped {
        /// What KVM says.
        reason: String,
        /// Where the guest was.
        registers: Registers,
    },
}

impl VmError {
    /// Turns KVM's error number into a [`VmError::Kvm`].
    pub(crate) fn kvm(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Kvm { what, error: io::Error::from_raw_os_error(error.errno()) }
    }
}

/// Where a vCPU was when it stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Code segment selector; its lowest two bits are the privilege level.
    pub cs: u16,
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Flags.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// The address of the last page fault.
    pub cr2: u64,
    /// The page tables' address.
    pub cr3: u64,
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cs, rip, rsp, rflags, cr0, cr2, cr3 } = self;
        write!(
            f,
            "{cs:#x}:{rip:#x} (rsp {rsp:#x}, rflags {rflags:#x}, cr0 {cr0:#x}, cr2 {cr2:#x}, \
             cr3 {cr3:#x})"
        )
    }
}
