//! A function with one of everything that a host can speed up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use paraslot_device::{Host, SharedPage};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Doorbell, Identity,
    Layout, MsixLayout, PciDevice, ReadWindow,
};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Offsets in BAR 0.
pub(crate) mod at {
    /// Any write of 32 bits rings doorbell 0.
    pub(crate) const DOORBELL: u32 = 0x10;
    /// A write of 7, 32 bits wide, rings doorbell 1.
    pub(crate) const DOORBELL_7: u32 = 0x20;
    /// A write of any width rings doorbell 2.
    pub(crate) const DOORBELL_ANY: u32 = 0x30;
    /// A write raises MSI-X vector 0.
    pub(crate) const RAISE: u32 = 0x40;
    /// A write sets the INTx line.
    pub(crate) const INTX: u32 = 0x44;
    /// Reads as what was written last, to anything but a doorbell.
    pub(crate) const SCRATCH: u32 = 0x48;
    /// What is written asserts the INTx line, until
    pub(crate) const ASSERT: u32 = 0x60;
    /// it is written here.
    pub(crate) const TAKE_BACK: u32 = 0x64;
    /// The window: its first word reads as what was written there, plus one.
    pub(crate) const WINDOW: u32 = 0x1000;
    /// The MSI-X table.
    pub(crate) const MSIX: u32 = 0x2000;
}

/// Bytes of BAR 0.
pub(crate) const BAR_LEN: u32 = 0x4000;
/// Bytes of BAR 1, of ports: doorbell 3 at 0, 16 bits wide, and scratch at 4.
pub(crate) const PORTS_LEN: u32 = 8;

pub(crate) struct TestDevice {
    config: ConfigSpace,
    layout: Layout,
    window: Arc<SharedPage>,
    scratch: u32,
    asserted: u32,
    paused: Arc<AtomicBool>,
}

/// Rings so far of each doorbell, and whether the function stands still.
pub(crate) struct Rings {
    events: [EventFd; 4],
    paused: Arc<AtomicBool>,
}

impl Rings {
    /// Rings since this was called last.
    pub(crate) fn take(&self) -> [u64; 4] {
        self.events.each_ref().map(|event| event.read().unwrap_or(0))
    }

    /// Whether the function is paused.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }
}

impl TestDevice {
    pub(crate) fn new(host: &Host<Arc<GuestMemoryMmap>>) -> (Self, Rings) {
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 0,
            class: [0xff, 0, 0],
            subsystem_vendor: 0,
            subsystem: 0,
        };
        let spec = |kind, size: u32| BarSpec { kind, size: size.into(), prefetchable: false };
        let config = ConfigSpaceBuilder::new(identity)
            .bar(0, spec(BarKind::Memory32, BAR_LEN))
            .bar(1, spec(BarKind::Io, PORTS_LEN))
            .intx()
            .msix(MsixLayout { vectors: 1, table: (0, at::MSIX), pba: (0, at::MSIX + 0x800) })
            .build(host.msi.clone(), host.intx.clone());
        let doorbells: Vec<_> = [
            (0, at::DOORBELL, 4, None),
            (0, at::DOORBELL_7, 4, Some(7)),
            (0, at::DOORBELL_ANY, 0, None),
            (1, 0, 2, None),
        ]
        .into_iter()
        .map(|(bar, offset, len, value)| {
            let event = EventFd::new(EFD_NONBLOCK).unwrap();
            Doorbell { bar, offset: offset.into(), len, value, event }
        })
        .collect();
        let events = [0, 1, 2, 3].map(|index: usize| doorbells[index].event.try_clone().unwrap());
        let window = Arc::new(SharedPage::new(4096).unwrap());
        let windows = vec![ReadWindow { bar: 0, offset: at::WINDOW.into(), page: window.clone() }];
        let layout = Layout { doorbells, windows, ..config.layout() };
        let paused = Arc::new(AtomicBool::new(false));
        let rings = Rings { events, paused: paused.clone() };
        (Self { config, layout, window, scratch: 0, asserted: 0, paused }, rings)
    }
}

impl TestDevice {
    fn assert(&mut self, causes: u32) {
        self.asserted = causes;
        self.config.interrupts().set_intx(causes != 0);
    }
}

fn word(data: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    bytes.iter_mut().zip(data).for_each(|(byte, value)| *byte = *value);
    u32::from_le_bytes(bytes)
}

impl PciDevice for TestDevice {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn bars(&self) -> [Option<BarState>; 7] {
        self.config.bars()
    }
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }
    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let _ = self.config.write(offset, data);
    }
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if self.config.msix_read(bar, offset, data) {
            return;
        }
        let value = match (bar, u32::try_from(offset).unwrap()) {
            (0, at::WINDOW) => self.window.words()[0].load(Ordering::Relaxed),
            (0, at::SCRATCH) | (1, 4) => self.scratch,
            _ => u32::MAX,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, value)| *byte = value);
    }
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if self.config.msix_write(bar, offset, data) {
            return;
        }
        let value = word(data);
        let rung = self.layout.doorbells.iter().find(|doorbell| {
            (doorbell.bar, doorbell.offset) == (bar, offset)
                && [0, data.len()].contains(&doorbell.len.into())
                && doorbell.value.is_none_or(|wanted| wanted == u64::from(value))
        });
        if let Some(doorbell) = rung {
            doorbell.event.write(1).unwrap();
            return;
        }
        self.scratch = value;
        match (bar, u32::try_from(offset).unwrap()) {
            (0, at::RAISE) => self.config.interrupts().trigger_msix(0),
            (0, at::INTX) => self.config.interrupts().set_intx(value != 0),
            (0, at::ASSERT) => self.assert(self.asserted | value),
            (0, at::TAKE_BACK) => self.assert(self.asserted & !value),
            (0, at::WINDOW) => self.window.words()[0].store(value + 1, Ordering::Release),
            _ => {}
        }
    }
    fn reset(&mut self) {
        self.config.reset();
    }
    fn pause(&mut self) -> Result<(), DeviceError> {
        self.paused.store(true, Ordering::Release);
        Ok(())
    }
    fn resume(&mut self) -> Result<(), DeviceError> {
        self.paused.store(false, Ordering::Release);
        Ok(())
    }
}
