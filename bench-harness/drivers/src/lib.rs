//! Front-end drivers: the guest's half.
//!
//! `no_std`, over a [`Platform`], so that one source runs in the freestanding guest under KVM and in
//! process against the device models. They know the devices' interfaces (`paraslot-spec`) and never
//! the models.
#![no_std]

mod dma;
mod platform;

pub use dma::DmaRegion;
pub use platform::{Bdf, MsiMessage, Platform};
