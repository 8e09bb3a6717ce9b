//! The freestanding guest that runs the drivers, as one ELF image.
//!
//! The image boots under any virtual machine monitor with a PVH loader and one x86-64 CPU (ours,
//! QEMU, Cloud Hypervisor), at 2 MiB, with at least 16 MiB of memory. Its command line is a
//! `paraslot_protocol::Job` or `check=NAME`, one of the guest's checks of itself
//! (`boot`, `memory`, `sleep`, `interrupt`, `pin`, and `exception`, `panic`, `hang`, which do as they
//! say).
//!
//! | Port  | What it writes |
//! |-------|----------------|
//! | 0xe9  | frames of text, and the outcome last |
//! | 0x5c0 | phase marks |
//! | 0xf4  | the outcome's status, which ends it |
//!
//! It drops to CPL 3 after some thirty instructions and stays there: hosts whose KVM interprets
//! kernel code run it at full speed too. Messages are counted and acknowledged by three instructions
//! at CPL 0. Interrupts of pins are counted there and acknowledged by their drivers, since a pin stays
//! asserted until its driver has seen to the cause; pins are known to lead where QEMU's q35 and our own
//! machine have them.

/// The ELF image.
pub static IMAGE: &[u8] = include_bytes!(env!("PARASLOT_GUEST_IMAGE"));

#[cfg(test)]
#[path = "../image/memory.rs"]
mod memory;
#[cfg(test)]
mod tests;
