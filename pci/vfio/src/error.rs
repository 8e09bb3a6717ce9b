//! What can go wrong, in one line each.

use std::io;

use crate::HostAddress;

/// Why a function could not be passed through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VfioError {
    /// There is no `/dev/vfio/vfio`.
    #[error(
        "this machine has no /dev/vfio/vfio: load the kernel's modules vfio-pci and vfio_iommu_type1"
    )]
    NoVfio,
    /// The container has no IOMMU driver of the kind that is used here.
    #[error("VFIO has no type 1 IOMMU driver: load the kernel's module vfio_iommu_type1")]
    NoType1,
    /// The function is in no IOMMU group.
    #[error(
        "{0} is in no IOMMU group: turn the IOMMU on in the firmware (VT-d, AMD-Vi) and, on Intel's, \
         boot the kernel with intel_iommu=on"
    )]
    NoIommu(HostAddress),
    /// There is no such function.
    #[error("this machine has no PCI function {0}")]
    NoFunction(HostAddress),
    /// The function has another driver than vfio-pci, or none.
    #[error("{address} is not bound to vfio-pci but to {}", driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// The function.
        address: HostAddress,
        /// The driver that it has.
        driver: Option<String>,
    },
    /// Others of the function's IOMMU group have drivers of the host's.
    #[error(
        "IOMMU group {group} of {address} is not viable: every function in it has to be bound to \
         vfio-pci or to no driver{}",
        list_drivers(.others)
    )]
    NotViable {
        /// The function.
        address: HostAddress,
        /// Its group.
        group: u32,
        /// Those that are in the way, with their drivers.
        others: Vec<(HostAddress, String)>,
    },
    /// A file of VFIO's may not be opened.
    #[error("no permission to open {0}: let its owner or group be yours")]
    Permission(String),
    /// Somebody else has the function's group open.
    #[error("{0} is in use: another process has its IOMMU group open")]
    Busy(HostAddress),
    /// The IOMMU cannot keep the function's interrupts apart from others'.
    #[error(
        "this machine's IOMMU does not remap interrupts, so a guest could send any: if you trust it, load \
         vfio_iommu_type1 with allow_unsafe_interrupts=1"
    )]
    UnsafeInterrupts,
    /// The guest's memory may not be pinned.
    #[error(
        "cannot pin {bytes} bytes of guest memory: this process may lock {limit} bytes (RLIMIT_MEMLOCK) and \
         the guest needs {needed}: raise the limit (ulimit -l {}), or have CAP_IPC_LOCK",
        needed.div_ceil(1024)
    )]
    LockedMemory {
        /// Bytes that were to be pinned.
        bytes: u64,
        /// Bytes of the whole guest's memory.
        needed: u64,
        /// Bytes that the process may lock, in all.
        limit: u64,
    },
    /// The guest's memory is not in the space that the function would have as its memory.
    #[error(
        "guest memory at {start:#x}, {bytes:#x} bytes, is not there for hardware: add all of the guest's \
         memory to the IOMMU's space (IommuSpace::map_memory) before a function is opened"
    )]
    NotMapped {
        /// Guest address of the first region that is missing.
        start: u64,
        /// Its bytes, 0 if there is no memory at all.
        bytes: u64,
    },
    /// Memory that cannot be mapped for the IOMMU.
    #[error("cannot map guest memory at {start:#x}, {bytes:#x} bytes, for hardware: {reason}")]
    Memory {
        /// Guest address.
        start: u64,
        /// Bytes.
        bytes: u64,
        /// Why not.
        reason: String,
    },
    /// The host cannot raise interrupts by eventfds.
    #[error(
        "a function passed through needs a host that raises interrupts by eventfd; this one has none"
    )]
    NoEventFds,
    /// The function is not one that can be passed through.
    #[error("this function cannot be passed through: {0}")]
    Unsuited(String),
    /// The kernel refused something.
    #[error("VFIO cannot {what}: {error}")]
    Kernel {
        /// What it was asked to do.
        what: &'static str,
        /// Why it did not.
        #[source]
        error: io::Error,
    },
    /// The host uses the function itself.
    #[error("the host uses {address}: {}", uses.join("; "))]
    InUse {
        /// The function.
        address: HostAddress,
        /// What for, and what would end that.
        uses: Vec<String>,
    },
    /// The host's driver could not be changed.
    #[error("cannot bind {address} to {driver}: {reason}")]
    Bind {
        /// The function.
        address: HostAddress,
        /// The driver that it was to have.
        driver: String,
        /// Why not.
        reason: String,
    },
    /// Something else that the VFIO crate says.
    #[error("VFIO: {0}")]
    Vfio(#[source] vfio_ioctls::VfioError),
}

impl VfioError {
    pub(crate) fn kernel(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Kernel { what, error }
    }
}

fn list_drivers(others: &[(HostAddress, String)]) -> String {
    let list: Vec<_> =
        others.iter().map(|(address, driver)| format!("{address} has {driver}")).collect();
    if list.is_empty() { String::new() } else { format!("; {}", list.join(", ")) }
}
