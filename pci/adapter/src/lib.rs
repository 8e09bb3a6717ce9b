//! A PCI function on a VMM's own buses: what an adapter to that VMM's traits is made of.
//!
//! A VMM that has PCI buses of its own gives each device a trait to implement: configuration registers
//! by number, BARs by the address at which its bus has them, eventfds and message routes by calls of its
//! own. An adapter is one type that implements that trait over an [`Attached`] function. It is written
//! once for a VMM, and then every device of this project is a device of that VMM, since all are
//! [`PciDevice`]s. `docs/plugging-in.md` walks through it; `tests/tests/fork` has one for traits of Cloud
//! Hypervisor's shape, which all seven devices pass.
//!
//! # The contract
//! What the function promises is with [`PciDevice`]. What the adapter has to do for it:
//!
//! 1. Make a [`Host`](paraslot_device::Host): guest memory (any [`DmaSpace`](paraslot_device::DmaSpace), or
//!    one made by [`borrowed_memory`] where the VMM has another version of vm-memory), a sink for messages,
//!    the INTx line, an executor ([`ThreadExecutor`](paraslot_device::ThreadExecutor) unless the VMM has an
//!    event loop to run workers on). Build the function with it.
//! 2. Give each of [`Attached::bars`] an address and [`place`](Attached::place) it, if the VMM rather than
//!    its firmware does that.
//! 3. Pass configuration accesses on, and act on the [`BarMove`]s that a write returns: move the range on
//!    the bus, then the [`doorbells`](Attached::doorbells) and [`windows`](Attached::windows), then say
//!    [`moved`](Attached::moved), or [`refuse`](Attached::refuse) it.
//! 4. Pass BAR accesses on with the base that the bus has.
//! 5. Pause before a snapshot, and resume after it or after a restore.
//!
//! All of it under the VMM's own lock for the device; workers need none.

mod attached;
mod line;
mod memory;

pub use attached::{Attached, BarMove, DoorbellAt, WindowAt};
pub use line::PulsedLine;
pub use memory::{BorrowedMemory, HostRange, MemoryError, borrowed_memory};
pub use paraslot_pci::{BarKind, BarSpec, PciDevice};
