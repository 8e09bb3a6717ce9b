//! PCI functions.
//!
//! [`PciDevice`] is what a host plugs in. [`ConfigSpace`] is what a device builds it from: the type
//! 0 header, capabilities, BARs and the three kinds of interrupt ([`Interrupts`]). [`RootBus`] is
//! what a host plugs it into, itself a device on vm-device's `IoManager`.

mod config;
mod device;
mod interrupts;
mod root;

pub use config::{ConfigSpace, ConfigSpaceBuilder, Identity, MsixLayout, Written};
pub use device::{BarKind, BarSpec, BarState, Layout, PciDevice, ReadWindow};
pub use interrupts::Interrupts;
pub use root::{BarWindow, Bdf, RootBus};

pub use paraslot_device::{DeviceError, Doorbell};
