//! The generic event device's register.

use std::sync::atomic::{AtomicU8, Ordering};

use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::POWER_BUTTON;
use crate::VmError;

/// A byte with a bit for each event that has happened; reading clears it. Its interrupt comes after
/// a bit is set.
pub(crate) struct Events {
    pending: AtomicU8,
    interrupt: EventFd,
}

impl Events {
    pub(crate) fn new() -> Result<Self, VmError> {
        let failed = |error| VmError::Kvm { what: "make the power button's eventfd", error };
        let interrupt = EventFd::new(EFD_NONBLOCK).map_err(failed)?;
        Ok(Self { pending: AtomicU8::new(0), interrupt })
    }

    /// Signalled for each interrupt.
    pub(crate) fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Pushes the power button.
    pub(crate) fn press_power_button(&self) {
        self.pending.fetch_or(POWER_BUTTON, Ordering::AcqRel);
        // An eventfd is full at 2^64 - 2, so this succeeds.
        let _ = self.interrupt.write(1);
    }

    /// The events that the guest has not read. Changes nothing.
    pub(crate) fn save(&self) -> u8 {
        self.pending.load(Ordering::Acquire)
    }

    /// Takes events over, whose interrupts have come.
    pub(crate) fn restore(&self, pending: u8) {
        self.pending.store(pending & POWER_BUTTON, Ordering::Release);
    }

    /// Forgets all events.
    pub(crate) fn clear(&self) {
        self.pending.store(0, Ordering::Release);
    }
}

impl DevicePio for Events {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        if let (0, Some(byte)) = (offset, data.first_mut()) {
            *byte = self.pending.swap(0, Ordering::AcqRel);
        }
    }

    fn pio_write(&self, _base: PioAddress, _offset: PioAddressOffset, _data: &[u8]) {}
}
