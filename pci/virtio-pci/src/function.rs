//! The transport as a PCI function: which access goes where.

use paraslot_device::{DeviceError, DmaSpace, SavedState, StateError};
use paraslot_pci::{BarState, Layout, PciDevice};
use paraslot_virtio::VirtioDevice;

use crate::VirtioPci;
use crate::layout::{BAR, BAR_SIZE, COMMON, DEVICE, ISR, NOTIFY, NOTIFY_MULTIPLIER, PAGE};
use crate::queues::QueueSlot;

/// A page of the BAR, and the offset in it.
enum Place {
    Common(u64),
    Isr(u64),
    Device(u64),
    Notify(u64),
    /// In the BAR, but nothing is there.
    Nothing,
    /// Not in the BAR.
    Outside,
}

fn place(bar: u8, offset: u64, len: usize) -> Place {
    let end = offset.checked_add(len as u64);
    if bar != BAR || end.is_none_or(|end| end > BAR_SIZE) {
        return Place::Outside;
    }
    let at = offset % PAGE;
    match offset - at {
        COMMON => Place::Common(at),
        ISR => Place::Isr(at),
        DEVICE => Place::Device(at),
        NOTIFY => Place::Notify(at),
        _ => Place::Nothing,
    }
}

/// Copies what `source` has at `offset` into `data`, and zeroes where it has nothing.
pub(crate) fn copy_from(source: &[u8], offset: u64, data: &mut [u8]) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = source.get(start..).unwrap_or_default();
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = rest.get(index).copied().unwrap_or(0);
    }
}

impl<A: DmaSpace, D: VirtioDevice<A>> PciDevice for VirtioPci<A, D> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.config.bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
        self.read_window(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let written = self.config.write(offset, data);
        if written.function_reset {
            self.function_level_reset();
            return;
        }
        if written.bus_master_on {
            self.queues.iter().for_each(QueueSlot::wake);
        }
        // MSI-X may have been enabled or disabled.
        self.signals.sync_intx();
        self.write_window(offset, data);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if self.config.msix_read(bar, offset, data) {
            return;
        }
        match place(bar, offset, data.len()) {
            Place::Common(at) => self.read_common(at, data),
            Place::Isr(at) => {
                // Only a read of the byte itself clears it.
                let isr = if at == 0 && !data.is_empty() { self.signals.take_isr() } else { 0 };
                copy_from(&[isr], at, data);
            }
            Place::Device(at) => self.device.config().read(at, data),
            Place::Notify(_) | Place::Nothing => data.fill(0),
            Place::Outside => data.fill(0xff),
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if self.config.msix_write(bar, offset, data) {
            return;
        }
        match place(bar, offset, data.len()) {
            Place::Common(at) => self.write_common(at, data),
            Place::Device(at) => {
                self.settle();
                if !self.resetting {
                    self.device.write_config(at, data);
                }
            }
            Place::Notify(at) => self.ring(at / NOTIFY_MULTIPLIER),
            Place::Isr(_) | Place::Nothing | Place::Outside => {}
        }
    }

    fn reset(&mut self) {
        self.host_reset();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        self.pause_queues()
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.resume_queues()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.save_function()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_function(state)
    }
}

impl<A: DmaSpace, D: VirtioDevice<A>> VirtioPci<A, D> {
    /// Rings a doorbell, as a host does that turns the write into one to the eventfd.
    fn ring(&self, queue: u64) {
        let index = usize::try_from(queue).unwrap_or(usize::MAX);
        if let Some(doorbell) = self.layout.doorbells.get(index) {
            // It fails only when the counter is full, and then it has been rung.
            let _ = doorbell.event.write(1);
        }
    }
}
