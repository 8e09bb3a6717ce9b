//! A small KVM virtual machine monitor for one freestanding guest, and the in-process stand-in for
//! hosts without KVM.
//!
//! [`Vm`] boots an ELF image by PVH, gives it PCI functions, and counts what they cost: [`Path`]
//! says whether KVM's eventfds and read-only memory may save exits. [`probe`] tells what this host
//! can do.

mod boot;
mod bus;
mod error;
pub mod in_process;
mod interrupts;
mod ports;
mod probe;
mod sys;
mod vcpu;
mod vm;

pub use error::{Registers, VmError};
pub use probe::{Capability, Probe, probe};
pub use vcpu::{Exits, Measured};
pub use vm::{Path, Run, Vm, VmConfig};
