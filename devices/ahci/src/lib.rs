//! AHCI: the emulated SATA host bus adapter, with ATA disks and ATAPI CD-ROM drives at its ports.
//!
//! [`Ahci`] is an ICH9-class HBA (8086:2922) that complies with Serial ATA AHCI 1.3.1, as a
//! [`PciDevice`](paraslot_pci::PciDevice). Stock drivers of firmware and operating systems know it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use paraslot_ahci::{Ahci, DiskOptions, Options};
//! use paraslot_backends::block::{MemoryBackend, MemoryOptions};
//! use paraslot_device::interrupt::NoInterrupts;
//! use paraslot_device::{Host, ManualExecutor};
//! use paraslot_pci::PciDevice;
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
//! let image = MemoryBackend::new(64 << 20, MemoryOptions::default())?;
//! let host = Host {
//!     memory: Arc::new(memory),
//!     msi: Arc::new(NoInterrupts),
//!     intx: Arc::new(NoInterrupts),
//!     executor: Arc::new(ManualExecutor::new()),
//! };
//! let mut ahci = Ahci::new(Options::new([DiskOptions::new(Arc::new(image))]), host)?;
//!
//! // PI: six ports; port 0's PxSSTS: a device, 6 Gb/s, active.
//! let mut register = [0; 4];
//! ahci.bar_read(5, 0x0c, &mut register);
//! assert_eq!(u32::from_le_bytes(register), 0x3f);
//! ahci.bar_read(5, 0x128, &mut register);
//! assert_eq!(u32::from_le_bytes(register), 0x133);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A CD-ROM drive is put to any port, with or without a disc:
//!
//! ```
//! # use paraslot_ahci::{Options, PacketOptions};
//! # use paraslot_scsi::{CdromOptions, LogicalUnit};
//! let drive = LogicalUnit::cdrom(CdromOptions::new(None))?;
//! let mut options = Options::new([]);
//! options.ports[1] = Some(PacketOptions::new(drive.clone()).into());
//! # Ok::<(), paraslot_device::DeviceError>(())
//! ```
//!
//! # How it works
//! A vCPU's write to PxCI sets bits in the port's registers and rings the port's worker; it submits
//! no I/O. The worker fetches the command once, checks it, and hands the guest's own memory to the
//! [`BlockQueue`](paraslot_backends::block::BlockQueue), or with a command packet to the drive's
//! [`Lane`](paraslot_scsi::Lane); when operations complete it posts the FIS, clears PxCI or PxSACT,
//! sets PxIS and IS, and raises one interrupt for all that it found.
//!
//! No register has a side effect when read. They lie in a page that a host may map, read-only, over
//! ABAR ([`Layout::windows`](paraslot_pci::Layout::windows)): then reads cost no exit, and a queued
//! command at depth 1 costs a driver like Linux's its four writes: PxSACT, PxCI, PxIS, IS. The page is
//! current before an access returns and before an interrupt is raised.
//!
//! Resets are asynchronous where they have to be: GHC.HR and PxCMD.CR read one, and a device after
//! COMRESET stays busy, until the last operation that is with a backend has come back. So once a
//! reset is acknowledged, no data lands in guest memory any more. A command packet that a stop or
//! reset has overtaken is aborted, so that with a backend that can cancel this is soon.
//!
//! # Saved state
//! While it is paused, nothing is with a backend, so what is saved is the registers, what hosts have set in
//! the devices (an error that is to be read from a log, sense data that is kept, and the logical unit's
//! [state](paraslot_scsi::BusState) among it), and commands that ended while bus mastering was off. What
//! was issued and not fetched stays in PxCI. A disk has the sectors that the guest knows of until its next
//! hardware reset, whatever the image has.
//!
//! # What it has
//! - 1 to 32 ports, 32 command slots, 64-bit addresses, native command queuing, 6 Gb/s, command list
//!   override, AHCI mode only (GHC.AE is always set).
//! - INTx and one MSI vector; power management (D0, D3hot).
//! - Hot plug ([`Control`]): devices come and go while the HBA is in use.
//! - ATA disks of 512- or 4096-byte sectors: 28- and 48-bit reads and writes by DMA, PIO and NCQ, forced
//!   unit access, flush, TRIM, a volatile write cache that can be turned off (then every write is
//!   durable when it completes) where the image has one, power modes, SMART, general purpose logging
//!   with the NCQ command error log. What was trimmed is said to read as zeroes exactly if the image
//!   zeroes it.
//! - ATAPI devices: PACKET with packets of 12 bytes, its data by DMA and by PIO, IDENTIFY PACKET DEVICE,
//!   DEVICE RESET, power modes, SET FEATURES for transfer modes. What the packets mean is up to the
//!   logical unit ([`paraslot_scsi`]). A disc may come and go at any time: the drive has a unit attention
//!   and a media event then, and the link stays up. COMRESET and HBA reset leave a unit attention;
//!   software reset and DEVICE RESET do not reach the unit. A device that has been reset is not ready
//!   (DRDY) until its first command.
//!
//! # What it has not
//! - Port multipliers and FIS-based switching, command completion coalescing, enclosure
//!   management, SNotification, presence switches and cold presence detection, staggered spin-up, link power
//!   management, BIOS/OS handoff, and the index-data pair (BAR 4 and the SATA capability) with which
//!   real-mode firmware of an ICH9 can reach the registers. The registers of what is absent read 0.
//! - The D2H register FIS with which a device accepts a queued command, and DMA setup FISes, are not
//!   posted: they raise no interrupt, and PxCI tells the same. Of the PIO setup FISes of one command
//!   the last is posted; if a packet moves no data by PIO that is the packet's own.
//! - READ VERIFY checks the addresses alone. The timers of IDLE and STANDBY do not run. SMART has neither
//!   self-tests nor error logs. There are no security, host protected area or streaming feature sets.
//! - Of ATAPI: asynchronous notification, so that a host has to ask for media events; overlap and
//!   queuing; packets of 16 bytes. DMADIR is not needed, but if it says the data goes to the host and
//!   the command header says otherwise, PACKET is aborted; so it is without the header's A bit.
//! - A PRD with an odd address or byte count is refused (PxIS.HBDS); memory that is not there raises
//!   PxIS.HBFS; a PRD table too short for its command raises PxIS.OFS and aborts the command. In all
//!   these cases nothing has been moved. Of a packet all PRD entries are looked at, also those beyond
//!   its data.
//!
//! # Footprint
//! A port holds, beside a few kilobytes of fixed size, 24 bytes for each guest memory segment of its
//! commands in flight. New commands wait while those in flight have 8,192 PRD entries or more, and one
//! command has at most 65,535; an entry makes one segment, and one more for each border of guest memory
//! regions that it crosses. So a port stays below
//! `2 * 24 * (8_191 + 65_535 + borders)` bytes, the factor being a list's spare capacity while it grows:
//! 3.4 MiB, whatever a guest does. A guest that behaves like Linux's driver (168 entries a command)
//! stays below 0.3 MiB. The trimming list has at most 512 ranges of 16 bytes.

mod command;
mod control;
mod device;
mod disk;
mod hba;
mod identify;
mod log;
mod options;
mod packet;
mod port;
mod prdt;
pub mod registers;
mod worker;

#[cfg(test)]
mod tests;

pub use control::Control;
pub use device::Ahci;
pub use options::{DEFAULT_PORTS, DiskOptions, Options, PacketOptions, PortDevice};
