//! A host's PCI function, passed through to a guest by VFIO.
//!
//! [`VfioPci`] is a function of the host's as a [`PciDevice`](paraslot_pci::PciDevice): plugged into the
//! same bus as an emulated one, its registers mapped into the guest, its interrupts wired to the host's
//! eventfds, its memory the guest's by way of an [`IommuSpace`]. [`survey`] says what a host has to
//! pass through and what is in the way; [`Borrowed`] takes a function from the host's driver for a time.
//!
//! Linux's VFIO with groups and a type 1 IOMMU is what it needs, of any kernel that has it; iommufd is not
//! used. Nothing but configuration space is emulated, and nothing of what the guest writes there
//! reaches the hardware but bus mastering and a request for a reset.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use paraslot_device::Host;
//! use paraslot_vfio::{Borrowed, HostAddress, IommuSpace, VfioPci};
//! use vm_memory::GuestMemoryMmap;
//!
//! /// The function at `address`, to be plugged into a guest.
//! fn pass_through(
//!     address: &str,
//!     memory: &Arc<GuestMemoryMmap>,
//!     host: Host<Arc<GuestMemoryMmap>>,
//! ) -> Result<VfioPci<Arc<GuestMemoryMmap>>, Box<dyn std::error::Error>> {
//!     let address: HostAddress = address.parse()?;
//!     let space = IommuSpace::new(None)?;
//!     space.map_memory(memory)?;
//!     Ok(VfioPci::open_borrowed(Borrowed::take(address)?, &space, host)?)
//! }
//! ```

mod address;
mod borrow;
mod capabilities;
mod device;
mod error;
#[cfg(test)]
mod fake;
mod faults;
mod function;
mod iommu;
mod kernel;
mod layout;
mod signals;
mod survey;
mod sysfs;
mod uses;

pub use address::{HostAddress, ParseAddressError};
pub use borrow::Borrowed;
pub use device::VfioPci;
pub use error::VfioError;
pub use faults::Faults;
pub use iommu::IommuSpace;
pub use survey::{HostFunction, survey, survey_in};
