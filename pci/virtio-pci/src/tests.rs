//! The transport, driven register by register.
//!
//! Comments name the clause of the specification, as listed in `docs/conformance/virtio-core.md`, or
//! the past bug that a test would have caught.

mod discovery;
mod echo;
mod guest;
mod hostile;
mod interrupts;
mod lifecycle;
mod negotiation;
mod queues;
mod resets;
mod window;
