//! Interrupts, seen from a device: messages, a pin, and a handle to raise either.

use vmm_sys_util::eventfd::EventFd;

/// One MSI or MSI-X message: the address and data that the function would write to raise it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsiMessage {
    /// Message address, both halves.
    pub address: u64,
    /// Message data.
    pub data: u32,
}

/// The host's side of a function's message-signalled interrupts.
///
/// The function keeps its own mask and pending bits and calls [`trigger`](Self::trigger) only for a
/// vector that is enabled and not masked. `update` comes before the first trigger of a vector and
/// again whenever the guest changes its message or mask.
pub trait MsiSink: Send + Sync {
    /// The guest set vector `vector` to `message`, or masked or unmasked it.
    fn update(&self, vector: u16, message: MsiMessage, masked: bool);
    /// Sends the vector's message.
    fn trigger(&self, vector: u16);
    /// An eventfd that sends the vector's message when written, where the host has one. With it a
    /// worker raises the interrupt without going through the function's own code.
    fn event(&self, vector: u16) -> Option<EventFd>;
}

/// The host's side of a function's INTx pin: level-triggered, active means asserted.
pub trait IntxLine: Send + Sync {
    /// Sets the level. Called only on changes; idempotent all the same.
    fn set_level(&self, asserted: bool);

    /// The pin as a pair of eventfds, where the host has that: for hardware, whose level nobody here
    /// sees. It is the same pair each time, and wired as long as someone holds the line. A function uses either this or
    /// [`set_level`](Self::set_level).
    fn eventfds(&self) -> Option<IntxEventFds> {
        None
    }
}

/// A pin that is asserted by one eventfd and says by another when the guest has acknowledged it.
///
/// A write to `assert` asserts the pin until the guest's end of interrupt. Then the pin falls by itself
/// and `acknowledged` is written, so that whoever asserts it may look whether it still has reason to.
#[derive(Debug)]
pub struct IntxEventFds {
    /// Asserts the pin when written.
    pub assert: EventFd,
    /// Is written at the guest's end of interrupt.
    pub acknowledged: EventFd,
}

/// A handle that raises one particular interrupt; what a queue holds.
pub trait Interrupt: Send + Sync {
    /// Raises it. May be called from any thread, with or without the device's lock held; it must
    /// neither block nor call back into the device.
    fn trigger(&self);
}

/// A sink for functions that have no such interrupts, and for tests that do not look.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoInterrupts;

impl MsiSink for NoInterrupts {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}
    fn trigger(&self, _vector: u16) {}
    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for NoInterrupts {
    fn set_level(&self, _asserted: bool) {}
}

impl Interrupt for NoInterrupts {
    fn trigger(&self) {}
}
