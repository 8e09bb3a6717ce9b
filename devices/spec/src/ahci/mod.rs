//! The Advanced Host Controller Interface: what an HBA and its driver share.
//!
//! Sections are of the Serial ATA AHCI specification 1.3.1, and of Serial ATA Revision 3.3 for the
//! frame information structures in [`fis`] and the superset registers (SStatus, SControl, SError).

pub mod fis;
mod memory;
mod registers;

pub use memory::*;
pub use registers::*;
