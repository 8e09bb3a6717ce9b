//! NVM Express: what a controller with the NVM command set and its driver share over PCI.
//!
//! Sections are of the NVM Express base specification 1.4, which still has everything in one document;
//! revision 2.0 only moves it. Numbers that are "0's based" there stand for one more than they say;
//! it is said where that is so.

mod commands;
mod identify;
mod queues;
mod registers;

pub use commands::*;
pub use identify::*;
pub use queues::*;
pub use registers::*;

/// Class code of an I/O controller (2.1.5): mass storage, non-volatile memory, NVM Express.
pub const CLASS_CODE: [u8; 3] = [0x01, 0x08, 0x02];
/// The BAR that decodes the registers, 64 bits wide (2.1.10).
pub const REGISTERS_BAR: u8 = 0;
/// The namespace ID that means all namespaces (6.1.2).
pub const ALL_NAMESPACES: u32 = u32::MAX;
