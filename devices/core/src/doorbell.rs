//! Register writes that need no decoding.

use vmm_sys_util::eventfd::EventFd;

/// A write that means no more than "look at your queue", so that KVM may turn it into a write to an
/// eventfd without leaving the kernel.
///
/// A virtio notification is one; e1000's TDT is not, since its value must be kept. A `bar_write` at
/// the same place does the same thing, for hosts that do not use the eventfd.
#[derive(Debug)]
pub struct Doorbell {
    /// The BAR it lies in.
    pub bar: u8,
    /// Its offset in that BAR, in bytes.
    pub offset: u64,
    /// The access width it answers to, in bytes; 0 for any.
    pub len: u8,
    /// The value it answers to; `None` for any.
    pub value: Option<u64>,
    /// What is written when the guest rings.
    pub event: EventFd,
}
