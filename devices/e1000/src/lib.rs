//! e1000: Intel's 82540EM gigabit Ethernet controller, emulated, over any network backend.
//!
//! [`E1000`] is a [`PciDevice`](paraslot_pci::PciDevice), 8086:100e, that stock drivers of firmware
//! and operating systems know. Sections are of Intel's "PCI/PCI-X Family of Gigabit Ethernet
//! Controllers Software Developer's Manual" (317453).
//!
//! ```
//! use std::sync::Arc;
//!
//! use paraslot_backends::net::{Wire, WireOptions};
//! use paraslot_device::interrupt::NoInterrupts;
//! use paraslot_device::{Host, ManualExecutor};
//! use paraslot_e1000::{E1000, Options};
//! use paraslot_pci::PciDevice;
//! use vm_memory::{GuestAddress, GuestMemoryMmap};
//!
//! let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
//! let (port, _other_end) = Wire::new(WireOptions::default())?;
//! let host = Host {
//!     memory: Arc::new(memory),
//!     msi: Arc::new(NoInterrupts),
//!     intx: Arc::new(NoInterrupts),
//!     executor: Arc::new(ManualExecutor::new()),
//! };
//! let options = Options::new([0x02, 0, 0, 0, 0, 7]);
//! let mut nic = E1000::new(Arc::new(port), options, host)?;
//!
//! // STATUS: full duplex, link up, 1000 Mb/s. RAL: the address, loaded from the EEPROM.
//! let mut register = [0; 4];
//! nic.bar_read(0, 0x0008, &mut register);
//! assert_eq!(u32::from_le_bytes(register), 0x283);
//! nic.bar_read(0, 0x5400, &mut register);
//! assert_eq!(register, [0x02, 0, 0, 0]);
//!
//! // The cable is pulled.
//! nic.control().set_link(false);
//! nic.bar_read(0, 0x0008, &mut register);
//! assert_eq!(u32::from_le_bytes(register), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! A vCPU's access to a register that traffic needs (TDT, RDT, ICR, IMS, IMC, ITR, the statistics)
//! touches atomics, and rings the worker's eventfd only if the worker has gone to sleep. One worker
//! moves frames both ways: it reads descriptors in runs, each once, and hands the packet to the
//! backend with its headers in host memory and the rest where it is in the guest's. Received frames
//! come by way of host memory, as filters, VLAN tags and checksums have to be looked at before
//! anything of a frame reaches the guest: one copy.
//!
//! A round of the worker's work is bounded: 64 transmit descriptors, and 64 frames or 512 receive
//! descriptors. It is done under a lock that a reset, and whatever else switches traffic off
//! (RCTL, TCTL, the rings' registers, bus mastering), takes too. So once such a write returns, no frame
//! of before is sent, no memory written and no interrupt raised any more; the price is that such a
//! write may wait for a round. CTRL.RST therefore reads zero at once.
//!
//! # What it has
//! - All registers that drivers of the 82540EM use, as memory (BAR 0) and through the I/O window
//!   (BAR 1); INTx; power management (D0, D3hot).
//! - The EEPROM by EERD and, bit by bit, by EECD, where it can also be written (until the adapter goes);
//!   the M88E1011 PHY by MDIC, with autonegotiation, forced speeds, power-down, loopback and resets.
//! - Legacy, context and data descriptors; checksum insertion, TCP segmentation, VLAN tags, padding.
//!   Contexts that describe TCP or UDP as the packet's headers have it are left to the backend as
//!   [`Offload`](paraslot_backends::net::Offload); all others are done here, by their letter.
//! - Address, multicast and VLAN filters, long frames over several buffers, VLAN stripping, checking of
//!   IP, TCP and UDP checksums, loopback by the MAC and by the PHY.
//! - Interrupt delays (TIDV, TADV, RDTR, RADV) and throttling (ITR), by a
//!   [`Clock`](paraslot_device::Clock).
//!
//! # Saved state
//! It is all that the guest can see, the EEPROM as it has been written to and the cable among it, and all
//! that is under way. Each transmit descriptor is taken once: a packet that is not complete, or that the
//! backend has not taken, goes along, with the number of its segments that have been sent. So does a frame
//! for which the guest has given too few descriptors, and what is on its way back in loopback: nothing is
//! sent twice and nothing lost. Interrupts that are held back stay so for as long as they had left when
//! the adapter was paused, counted from its restoration; none is lost.
//!
//! What is not in it: frames that the backend has, on either side, and [`Control::statistics`], which are
//! those of the adapter here. The address in [`Options`] yields to the EEPROM's.
//!
//! # Limits
//! A packet has at most 16,288 bytes (3.3.3), one to be segmented 65,557, as any
//! [`Frame`](paraslot_backends::net::Frame), and either at most 256 pieces. Of the packets that are
//! segmented here each becomes at most 1,024. What exceeds that, or makes no sense, is counted
//! ([`NetStatistics::send_invalid`](paraslot_backends::net::NetStatistics)) and not sent; its descriptors
//! are done all the same.
//!
//! # What it has not
//! - MSI: the 82540EM has it, but not so that drivers would use it; Linux's does not. Wake-up,
//!   manageability, flash, expansion ROM, LEDs, software definable pins, the PHY's own interrupt, TBI and
//!   SerDes. The registers of wake-up and MANC keep what is written, without effect; the flexible filter
//!   tables, and the registers of what else is absent, read 0.
//! - Flow control: pause frames are neither sent nor obeyed, and the EEPROM and the link partner say so.
//! - Collisions, wire errors, speeds that slow anything down: the link is as fast as the backend. A link
//!   that is negotiated is up at once. CTRL.SLU and CTRL.ASDE have no effect.
//! - Frames are not kept waiting in a packet buffer: those for which there is no descriptor wait in the
//!   backend. RXO and MPC tell of losses in loopback alone.
//! - An FCS: where RCTL.SECRC is clear, four zero bytes stand for it. Nor does the packet checksum field
//!   of a receive descriptor hold one; it is zero.
//! - Descriptors are written back at once, whatever the thresholds of TXDCTL and RXDCTL say, and RPS is
//!   taken for RS.
//!
//! # Footprint
//! The registers take 24 KiB, a received frame 16 KiB, a packet's pieces 4 KiB. Packets that are
//! completed here take up to 64 KiB twice, once there has been one; frames that are on their way back in
//! loopback 64 KiB, and 24 bytes each. Nothing else depends on what the guest does.

mod access;
mod delay;
mod device;
mod eeprom;
mod engine;
mod interrupt;
mod looped;
mod options;
mod phy;
mod receive;
pub mod registers;
mod ring;
mod shared;
mod state;
mod statistics;
mod transmit;

pub use device::E1000;
pub use options::Options;
pub use shared::Control;

#[cfg(test)]
mod tests;
