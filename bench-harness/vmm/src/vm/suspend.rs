//! How a guest that runs is made to stand still.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use paraslot_pci::{Bdf, SharedDevice};

use crate::VmError;
use crate::bus::Bus;
use crate::vcpu::Report;

/// Whether the guest is to stand still, for the vCPU's thread; and who waits for that.
#[derive(Default)]
pub(crate) struct Suspension {
    asked: AtomicBool,
    waiting: Mutex<Option<Sender<Report>>>,
}

impl Suspension {
    /// Whether it was asked for. Costs a load.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Who is to be told from now on.
    pub(super) fn tell(&self, waiting: Option<Sender<Report>>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = waiting;
    }

    /// Forgets that it was asked for.
    pub(super) fn clear(&self) {
        self.asked.store(false, Ordering::Release);
    }

    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        if let Some(waiting) = &*self.waiting.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody waits any more if this fails.
            let _ = waiting.send(Report::Suspend);
        }
    }
}

/// A way to a [`Vm`](crate::Vm) while it runs, from any thread, those of its devices included.
#[derive(Clone)]
pub struct VmHandle {
    pub(super) suspension: Arc<Suspension>,
    /// Of those who have one, devices on this bus may be.
    pub(super) bus: Weak<Bus>,
}

impl VmHandle {
    /// Has the guest stand still: this run, or the next one if there is none, ends with
    /// [`VmError::Suspended`], unless the guest ends by itself before. Called
    /// at a mark, or while a device serves an access of the guest's, it does so right there.
    pub fn suspend(&self) {
        self.suspension.ask();
    }

    /// Plugs a function in, which the guest finds when it looks. Not to be called by a device.
    ///
    /// # Errors
    /// As [`Vm::plug`](crate::Vm::plug); [`VmError::Poisoned`] when the machine is gone.
    pub fn plug(&self, bdf: Bdf, device: SharedDevice) -> Result<(), VmError> {
        self.bus()?.plug(bdf, device)
    }

    /// Takes a function out and returns it, as [`LinuxHandle::unplug`](crate::LinuxHandle::unplug) does. Not
    /// to be called by a device.
    ///
    /// # Errors
    /// When KVM does not let go of its doorbells or its mapped registers; [`VmError::Poisoned`] when the
    /// machine is gone.
    pub fn unplug(&self, bdf: Bdf) -> Result<Option<SharedDevice>, VmError> {
        self.bus()?.unplug(bdf)
    }

    fn bus(&self) -> Result<Arc<Bus>, VmError> {
        self.bus.upgrade().ok_or(VmError::Poisoned)
    }
}
