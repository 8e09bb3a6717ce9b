//! PCI functions over a vfio-user socket.
//!
//! [`Server`] serves any [`PciDevice`](paraslot_pci::PciDevice) to a VMM that speaks vfio-user, such as
//! Cloud Hypervisor or QEMU, with a device of its own or none at all. The protocol is implemented here, as
//! libvfio-user and QEMU document it (version 0.1, AF_UNIX).
//!
//! ```no_run
//! use std::os::unix::net::UnixListener;
//! use std::sync::Arc;
//!
//! use paraslot_device::{DeviceError, Executor, Host};
//! use paraslot_pci::PciDevice;
//! use paraslot_vfio_user::{ClientSpace, Server, Stop, survive_lost_memory};
//!
//! /// Serves what `make` makes, until `stop` is used.
//! fn serve(
//!     make: fn(Host<ClientSpace>) -> Result<Box<dyn PciDevice>, DeviceError>,
//!     executor: Arc<dyn Executor>,
//!     stop: &Stop,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     survive_lost_memory()?;
//!     let listener = UnixListener::bind("/run/paraslot.sock")?;
//!     let mut server = Server::new(listener, executor, make)?;
//!     Ok(server.run(stop)?)
//! }
//! ```
//!
//! [`VfioUser`] is the other end: a function that some server has, as a `PciDevice` to be plugged into a bus.
//!
//! What a client gets:
//!
//! | | |
//! |---|---|
//! | registers | accesses of any size at any offset, always answered: what is not there reads as ones. Several writes in a message |
//! | BARs | the function's configuration space sizes them; all 4096 bytes of it answer |
//! | doorbells | eventfds, with the value that they answer to, as many as the client takes descriptors |
//! | pages that can be read without asking | mapped, by a client that says `"read_only_mmap": true` among its capabilities. Others map areas of a region that can be written for writes as well, and what they wrote there would not reach the function |
//! | INTx | level-triggered, automasked, unmasked by command or eventfd |
//! | MSI, MSI-X | an eventfd for each vector, in chunks. The client has the MSI-X table and does not tell of it, so a vector is unmasked in the function's own when it is given an eventfd, and masked when that is taken away; what is raised then is pending |
//! | memory | what comes with a file is mapped. What comes without is read and written by messages (DMA_READ, DMA_WRITE), at most 1 TiB of it. When an unmapping is answered, nothing of that memory is accessed any more, and nothing can be |
//! | reset | whatever was advertised |
//! | migration | VFIO's states (version 2), of a function that can be saved: its state is a stream of text. One that cannot be saved can be stopped |
//! | live migration | what the function has written, in pages of 4 KiB or more (DMA logging: start, stop, report), of up to 4 TiB of memory. The start waits for requests in flight |
//!
//! A client that is malicious, or dies, costs its own connection. Sizes are checked before anything is
//! allocated; descriptors that nobody asked for are closed; memory that a client takes away by shortening its
//! file is replaced ([`survive_lost_memory`]). A command that is refused leaves the stream in step. The
//! function is reset between clients.
//!
//! An eventfd that blocks is made one that does not, for its sender too. What remains to a client that
//! is out to harm is to undo that and fill the counter between a look and a write: it holds up the thread that
//! raises the interrupt until the eventfd is read.
//!
//! # Memory without a file
//!
//! What the function is about to read is asked for each time, and what it has written is sent before it goes on, before
//! the interrupt that tells of it among others. So a request of the guest's costs a message for each look at a
//! ring, each descriptor table or list, and each buffer, and each message costs its answer; a buffer of more than
//! `max_data_xfer_size` costs several.
//!
//! A client answers these commands whatever it does: while it waits for an answer of its own, for one. What it sends
//! meanwhile is kept and done afterwards in order, up to 1024 commands of 8 MiB with 64 descriptors. One that does not
//! answer for 30 seconds loses its connection, as does one whose answer is none (its address and count are
//! those of the command; the count of an answer to a write may have 4 or 8 bytes). A read that it refuses fails,
//! as at an address where no memory is. A device is not told of a write that is refused, no more than on
//! a bus; so that it notices, that range cannot be accessed any more until it is mapped anew.
//!
//! Pages of this process stand for such memory, 8 MiB for what is in use at a time and 1 GiB at most. An
//! access that needs more fails.
//!
//! Left out:
//! - Of migration, copies of the function's own state while it runs: that is small. Of an unmapping, a report along
//!   with it: a client asks before.
//! - A socket of its own for the server's commands (twin-socket mode): they go along with the client's.
//! - Pages of hardware that is passed through ([`Layout::direct`](paraslot_pci::Layout::direct)).

mod channel;
mod client;
mod connection;
mod function;
mod irqs;
mod logging;
mod memory;
mod migration;
mod regions;
mod server;
mod session;
mod signals;
mod sys;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod version;
mod wire;

pub use client::{ClientError, Fault, VfioUser};
pub use connection::End;
pub use memory::{ClientMemory, ClientSpace, Written, survive_lost_memory};
pub use server::{ServeError, Server, Stop};
