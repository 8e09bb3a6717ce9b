//! pvscsi: VMware's paravirtual SCSI host adapter, over the SCSI target.
//!
//! [`Pvscsi`] is a [`PciDevice`](paraslot_pci::PciDevice), 15ad:07c0, that stock drivers of firmware and
//! operating systems know: Linux's `vmw_pvscsi`, FreeBSD's `pvscsi`, OVMF's `PvScsiDxe`. There is no
//! public specification; what those drivers do and expect stands in for one.
//!
//! ```
//! use std::sync::Arc;
//!
//! use paraslot_backends::block::{MemoryBackend, MemoryOptions};
//! use paraslot_device::interrupt::NoInterrupts;
//! use paraslot_device::{Host, ManualExecutor};
//! use paraslot_pci::PciDevice;
//! use paraslot_pvscsi::{Options, Pvscsi};
//! use paraslot_scsi::{Address, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let image = MemoryBackend::new(64 << 20, MemoryOptions::default())?;
//! let bus = Bus::new(BusOptions {
//!     initiator: Initiator("adapter 0".into()),
//!     max_target: 63,
//!     max_lun: 0,
//!     autosense: true,
//! });
//! bus.attach(Address::default(), LogicalUnit::disk(DiskOptions::new(Arc::new(image)))?)?;
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
//! let host = Host {
//!     memory: Arc::new(memory),
//!     msi: Arc::new(NoInterrupts),
//!     intx: Arc::new(NoInterrupts),
//!     executor: Arc::new(ManualExecutor::new()),
//! };
//! let mut adapter = Pvscsi::new(bus, Options::default(), host)?;
//!
//! // COMMAND: GET_MAX_TARGETS. COMMAND_STATUS: so many.
//! adapter.bar_write(0, 0x0, &11u32.to_le_bytes());
//! let mut register = [0; 4];
//! adapter.bar_read(0, 0x8, &mut register);
//! assert_eq!(u32::from_le_bytes(register), 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! A kick means no more than "look at the ring", so a host may turn it into a write to an eventfd
//! ([`Layout::doorbells`](paraslot_pci::Layout::doorbells)). One worker takes requests from the ring in
//! batches of up to 64, each descriptor and each scatter/gather element read once, hands the guest's own
//! memory to the target, posts what has ended, and raises one interrupt for all of it. With MSI-X or
//! MSI, no register is read or written for an interrupt. With INTx it is one read, which costs nothing
//! where the host maps the page ([`Layout::windows`](paraslot_pci::Layout::windows)), and one write.
//!
//! # Kicks
//! A driver that has asked for it (SETUP_REQCALLTHRESHOLD) kicks for a read or write only if as many
//! requests are waiting in the ring as the rings' state says. While the worker finds one request after
//! the other that is never; before it sleeps, for whatever reason, it is always, and then it looks
//! again. So nobody need look while it sleeps, and at high load there are hardly any kicks.
//!
//! Linux's and FreeBSD's drivers have no memory barrier between putting a request there and looking
//! whether to kick. On x86 the request may thus not be visible yet when the driver sees that it need
//! not kick, and the worker, which has changed its mind meanwhile, looks. To that end its last look
//! takes about ten microseconds if the driver had been told not to kick: many times what a store buffer
//! holds back a store.
//!
//! # Resets and aborts
//! Drivers expect that when the register write of ABORT_CMD, RESET_DEVICE, RESET_BUS or ADAPTER_RESET is
//! over, the requests that it ends are on the completion ring, and that they take the completion ring's
//! word for it. So the vCPU takes all that is in the request ring, kicked or not, has the target end
//! what is to end, and waits for it, up to [`Options::patience`]. What has not gone to a backend ends
//! at once; the rest is cancelled, and ends when its backend has let go of it.
//!
//! What is late, because its backend can neither cancel nor complete it, is reported when it has ended if
//! it was to be aborted. RESET_DEVICE and RESET_BUS report it as reset all the same, since drivers issue
//! it again at once; ADAPTER_RESET (or a reset of the function) never reports it. After these it may
//! still move its data until it ends. COMMAND_STATUS says that the command failed, though no known
//! driver looks.
//!
//! # Saved state
//! While it is paused, nothing is with the target, so what is saved is what a driver has set up and what
//! it has not been told of: the registers, a command's words so far, the rings' pages and the device's
//! places in them, requests that ended while bus mastering was off, units that came and went, and the
//! [state of the bus](paraslot_scsi::BusState). What is in the request ring stays there, to be taken by
//! whoever goes on. A PREEMPT AND ABORT that waits for another adapter's requests cannot be taken along:
//! saving is refused until those have ended.
//!
//! # What it has
//! - Request, completion and message rings of up to 32, 32 and 16 pages, scatter/gather lists that lead
//!   to further lists, 64-bit addresses and lengths, up to 256 targets, and LUNs.
//! - The commands ADAPTER_RESET, SETUP_RINGS, RESET_BUS, RESET_DEVICE, ABORT_CMD, CONFIG (the
//!   controller's page), SETUP_MSG_RING, SETUP_REQCALLTHRESHOLD and GET_MAX_TARGETS.
//! - MSI-X (one vector, in the same BAR as VMware has it), MSI and INTx; power management (D0, D3hot);
//!   PCI Express with function level reset, unless it is not wanted.
//! - Messages of units that come and go ([`Control`]), once the driver has set up a message ring. Other
//!   changes of a unit are told by its unit attentions.
//!
//! # What it has not
//! - ISSUE_SCSI (a request without rings), DEVICE_UNPLUG, and the pages of CONFIG for phys and devices.
//!   No public driver uses them, and when and how they are answered is not known. Their status is that
//!   of commands that are not there.
//! - VMware's BAR of I/O ports. The BAR of memory is BAR 0, of 32 bits, where firmware made for QEMU's
//!   adapter looks for it, and the class is that of a SCSI controller; VMware's is BAR 1, and SAS.
//! - CDBs of more than 16 bytes, which have a flag and no specification. vcpuHint has no effect.
//! - LAST_STS and DEBUG read 0 and ignore what is written.
//!
//! # Limits
//! The numbers of a ring's pages are powers of two, as VMware's header file has it. A request has at
//! most 16,384 scatter/gather elements, empty ones and those that lead to another list included. One
//! whose data is not in guest memory, or whose CDB is too long, ends with BTSTAT_INVPARAM, and nothing
//! has been moved.
//!
//! No request is taken while there is no room for its completion. A driver that leaves none (Linux's
//! never does) has to kick, or to clear INTR_STATUS, when it has made some. An index that is
//! further ahead than its ring is long means that there is nothing. Rings that turn out not to be in
//! guest memory, although they were when they were set up, are forgotten.
//!
//! # Footprint
//! At most 1,024 requests are in flight. Beside about 200 bytes for each, the device holds 24 bytes for
//! each piece of guest memory of a request; no further request is taken while those in flight have
//! 131,072 pieces. So it stays below `2 * 24 * (131_071 + 16_384 + borders)` bytes, 6.8 MiB, whatever a
//! guest does: the factor is a list's spare capacity while it grows, and a piece becomes two at each
//! border of guest memory regions that it crosses. Of changes on the bus that the driver has not been
//! told of, two are kept for each address.

mod command;
mod device;
mod engine;
mod gather;
mod interrupt;
mod options;
mod orders;
pub mod registers;
mod request;
mod rings;
mod shared;
mod worker;

#[cfg(test)]
mod tests;

pub use device::Pvscsi;
pub use options::Options;
pub use shared::Control;
