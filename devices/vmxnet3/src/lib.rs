//! vmxnet3: VMware's paravirtual network adapter, over any network backend.
//!
//! [`Vmxnet3`] is a [`PciDevice`](paraslot_pci::PciDevice), 15ad:07b0, that stock drivers know. There is
//! no public data sheet: the interface is what drivers make of it, and
//! [`paraslot_spec::vmxnet3`] says what is known.
//!
//! ```
//! use std::sync::Arc;
//!
//! use paraslot_backends::net::{Wire, WireOptions};
//! use paraslot_device::interrupt::NoInterrupts;
//! use paraslot_device::{Host, ManualExecutor};
//! use paraslot_pci::PciDevice;
//! use paraslot_vmxnet3::{Options, Vmxnet3};
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
//! let mut nic = Vmxnet3::new(Arc::new(port), options, host)?;
//!
//! // VRRS: revisions 1 to 3. CMD, GET_LINK: up, 10 Gb/s.
//! let mut register = [0; 4];
//! nic.bar_read(1, 0x00, &mut register);
//! assert_eq!(register, [7, 0, 0, 0]);
//! nic.bar_write(1, 0x20, &0xf00d_0002_u32.to_le_bytes());
//! nic.bar_read(1, 0x20, &mut register);
//! assert_eq!(u32::from_le_bytes(register), 10_000 << 16 | 1);
//!
//! // The cable is pulled.
//! nic.control().set_link(false);
//! nic.bar_write(1, 0x20, &0xf00d_0002_u32.to_le_bytes());
//! nic.bar_read(1, 0x20, &mut register);
//! assert_eq!(register, [0; 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//! Each pair of the backend's queues ([`Options::queues`]) has a worker. Worker `i` of `n` sends what
//! is in transmit queues `i`, `i + n` and so on, and receives what comes by its pair: for receive queue
//! `i`, or, with RSS, for whichever queue the hash says, whose lock it takes for the frame. A driver
//! may thus have as many queues as it likes, up to 8 and 16, whatever the backend has.
//!
//! A round of a worker's work is bounded: 64 packets begun while 256 descriptors are left, and 64 frames
//! begun while 512 buffers are left. Workers hold the state of the device for reading while they work; a
//! command, a reset, and bus mastering switched off take it for writing. So once such a write returns, no
//! packet of before is sent, no memory written and no interrupt raised any more; the price is that it may
//! wait for a round.
//!
//! *Packets* are read descriptor by descriptor, each once, after the first one's generation. The first
//! bytes go to the backend from host memory and the rest from where it is in the guest's. *Frames* come
//! by way of host memory, as filters, hashes, tags and checksums have to be looked at before anything
//! of a frame reaches the guest: one copy.
//!
//! # What costs an exit
//! - TXPROD, RXPROD and RXPROD2 are doorbells: eventfds, as ownership is by generation and their values
//!   say nothing more. A worker that finds more than one packet in a round raises `txThreshold`, so
//!   that the driver does not ring any more, and lowers it before it sleeps. It then looks at the ring,
//!   and once more 100 µs later: a driver without a fence between its descriptor and its look at the
//!   threshold (Linux's has none) may have looked before its processor let the descriptor go.
//! - RXPROD is asked for, by `updateRxProd`, only while frames wait for buffers. Meanwhile the worker
//!   looks by itself too, at first after 100 µs and then ever less often, up to each 10 ms.
//! - An interrupt costs a write to IMR, for GET_CONF_INTR says that interrupts mask themselves when they
//!   are raised, and neither MSI-X nor MSI have a register to be read. IMR is not a doorbell: a write that
//!   lets an interrupt through must not overtake, or be overtaken by, one that masks it, and what is
//!   pending is sent at once by whoever writes.
//!
//! # What it has
//! - Revisions 1 to 3 of the interface; MSI-X (a vector for each of 25 interrupts), MSI (one), INTx;
//!   power management (D0, D3hot); PCI Express with function level reset, if wanted.
//! - Checksum insertion anywhere, TCP segmentation, VLAN tags, all left to the backend as
//!   [`Offload`](paraslot_backends::net::Offload).
//! - RSS (Toeplitz over IPv4, IPv6 and TCP), filters by address, group and VLAN, VLAN stripping,
//!   checking of IP, TCP and UDP checksums, LRO for drivers that have these checked, frames over several
//!   buffers of both rings, receive data rings.
//! - Interrupt moderation: level `n` keeps interrupts 16 µs times 2ⁿ⁻¹ apart. Adaptive is no delay
//!   while less than 8 packets are pending, 16 µs for less than 32, and 64 µs for more. Coalescing by
//!   rate, and by number (what is less is told of after 1 ms); the depth for transmission is kept,
//!   without effect. Events are not moderated.
//!
//! # Saved state
//! It is all that the guest can see, the link among it, and what the driver had in memory when the device
//! read it: features, filters, hash key and table are carried, and not read again. Packets are taken
//! whole, so of each is either sent, with its completion written, or still in its ring. A frame that waits
//! for buffers goes along, as do interrupts that are masked or held back, the latter for as long as they
//! had left when the adapter was paused, counted from its restoration; none is lost.
//!
//! What is not in it: frames that the backend has, on either side, and [`Control::statistics`], which are
//! those of the adapter here. An adapter with another permanent address, another number of workers
//! or without what the other has of PCI Express refuses the state. Rings that are not in memory when
//! they are used stop their queues, as they do otherwise.
//!
//! # Limits
//! A packet has at most 64 descriptors; one that is not segmented at most the MTU (or 1500) and 22 bytes,
//! received or sent; a received packet 64 buffers, or 18 if it is not put together of several. Head
//! buffers have 128 bytes or more. What makes no sense in a packet's contents costs the packet, which
//! is counted and completed all the same. Descriptors that make no packet, and buffers of no length,
//! stop the queue: its status tells why, and the driver gets an event.
//!
//! With one receive queue, or without RSS, frames for which there is no buffer wait in the backend; one
//! that needs more buffers than there are is lost after 20 ms. With RSS a queue without buffers loses
//! its frames, so that it does not hold up the others.
//!
//! # What it has not
//! - Revision 4 and later: offloads of tunnels, RSS of UDP and ESP, inner checksums; plug-ins and
//!   passthrough (UPT). Wake-up: the patterns of UPDATE_PMCFG are not looked at.
//! - `intrCtrl`: IMR alone masks, as a driver clears `intrCtrl` without telling.
//! - The checksum in a completion is 0, and that of an LRO packet's own header is the sum of its pseudo
//!   header, though the driver is told that it is right: nobody has cut the packet.
//! - What REGISTER_MEMREGS tells is not needed: all of guest memory is within reach.
//! - The number of receive queues need not be a power of two. A completion ring that is smaller than its
//!   descriptor ring can overflow: no interface tells how far the driver has read.
//!
//! # Footprint
//! A worker has 64 KiB for a frame and 2 KiB for a packet; a multicast table has up to 64 KiB, and RSS
//! 5 KiB. Nothing else depends on what the guest does.

mod access;
mod activate;
mod clock;
mod command;
mod device;
mod filter;
mod irq;
mod lane;
mod options;
mod receive;
mod ring;
mod rss;
mod save;
mod shared;
mod state;
mod statistics;
mod transmit;

pub use device::Vmxnet3;
pub use options::Options;
pub use shared::Control;

#[cfg(test)]
mod tests;
