//! A small KVM virtual machine monitor, and the in-process stand-in for hosts without KVM.
//!
//! [`Vm`] boots a freestanding image by PVH, gives it PCI functions, and counts what they cost: [`Path`]
//! says whether KVM's eventfds and mapped registers may save exits. [`LinuxVm`] does the same for a stock
//! Linux kernel, with what that needs of a PC. [`probe`] tells what this host can do. Both can
//! be saved to a directory while they stand still, and another goes on from there: [`Snapshot`].

mod acpi;
mod boot;
mod bus;
mod chipset;
mod cpu;
mod error;
pub mod in_process;
mod interrupts;
mod linux;
mod ports;
mod probe;
mod snapshot;
mod sys;
mod vcpu;
mod vm;

pub use cpu::Exits;
pub use error::{Registers, VmError};
pub use linux::{LINUX_CPUS_MAX, LinuxConfig, LinuxEnd, LinuxHandle, LinuxImage, LinuxVm};
pub use probe::{Capability, Probe, probe};
pub use snapshot::{Snapshot, SnapshotError};
pub use vcpu::Measured;
pub use vm::{Path, Run, Vm, VmConfig, VmHandle};
