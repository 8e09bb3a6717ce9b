//! The PCI function.

mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use paraslot_device::register::lanes;
use paraslot_device::{Dma, DmaSpace, Host, SavedState, StateError};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Identity, Layout,
    PciDevice, ReadWindow,
};
use paraslot_spec::ahci::{ABAR, CLASS_CODE};
use paraslot_spec::pci::VENDOR_INTEL;

use crate::control::{Control, Slots};
use crate::hba::Hba;
use crate::options::Options;

/// ICH9's six-port SATA controller in AHCI mode, of the revision that its drivers know best.
const DEVICE_ICH9_AHCI: u16 = 0x2922;
const REVISION: u8 = 2;
/// How long a pause waits for commands in flight.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// An AHCI host bus adapter with its ports' devices, as a PCI function. See the [crate's page](crate).
pub struct Ahci<A: DmaSpace> {
    config: ConfigSpace,
    layout: Layout,
    hba: Arc<Hba>,
    slots: Arc<Slots>,
    memory: std::marker::PhantomData<A>,
}

impl<A: DmaSpace> Ahci<A> {
    /// Builds the function and starts a worker for each port with a device.
    ///
    /// # Errors
    /// When `options` ask for what cannot be served, a backend cannot be opened, or a worker cannot
    /// be started.
    pub fn new(options: Options, host: Host<A>) -> Result<Self, DeviceError> {
        options.check()?;
        let Options { ports, subsystem_vendor, subsystem } = options;
        let Host { memory, msi, intx, executor } = host;
        let identity = Identity {
            vendor: VENDOR_INTEL,
            device: DEVICE_ICH9_AHCI,
            revision: REVISION,
            class: CLASS_CODE,
            subsystem_vendor,
            subsystem,
        };
        let size = abar_size(ports.len());
        let abar = BarSpec { kind: BarKind::Memory32, size, prefetchable: false };
        let config = ConfigSpaceBuilder::new(identity)
            .bar(ABAR, abar)
            .intx()
            .msi()
            .power_management()
            .build(msi, intx);
        let hba = Arc::new(Hba::new(ports.len(), config.interrupts().clone())?);
        let window = ReadWindow { bar: ABAR, offset: 0, page: hba.page().clone() };
        let layout = Layout { windows: vec![window], ..config.layout() };

        let dma = Dma::new(memory, config.bus_master());
        let slots = Slots::new(hba.clone(), dma, executor);
        for (index, device) in ports.into_iter().enumerate() {
            if let Some(device) = device {
                slots.attach(index, device)?;
            }
        }
        hba.power_on();
        Ok(Self { config, layout, hba, slots, memory: std::marker::PhantomData })
    }

    /// What the owner keeps when a host takes the function over.
    pub fn control(&self) -> Control {
        Control(self.slots.clone())
    }

    /// Slots of a port whose commands are with its worker.
    #[cfg(test)]
    pub(crate) fn taken(&self, port: usize) -> u32 {
        self.hba.ports[port].lock().taken
    }

    fn ring_all(&self) {
        for port in &self.hba.ports {
            port.bell().ring();
        }
    }
}

/// A function that goes takes its interrupts and its access to memory with it, and waits for what is in flight.
/// With what is late its workers stay with their executor, and tell nobody.
impl<A: DmaSpace> Drop for Ahci<A> {
    fn drop(&mut self) {
        PciDevice::reset(self);
        self.slots.close();
    }
}

/// Bytes that ABAR decodes: ports 0 to 29 have their registers in one page.
fn abar_size(ports: usize) -> u64 {
    let end = u64::try_from(ports).unwrap_or(u64::MAX).saturating_mul(0x80).saturating_add(0x100);
    end.next_power_of_two().max(0x1000)
}

impl<A: DmaSpace> PciDevice for Ahci<A> {
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
        let written = self.config.write(offset, data);
        if written.bus_master_on {
            self.ring_all();
        }
        if written.function_reset {
            self.reset();
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if bar != ABAR {
            return;
        }
        let words = self.hba.page().words();
        for lane in lanes(offset, data.len()) {
            let word = usize::try_from(lane.register / 4).ok().and_then(|index| words.get(index));
            if let Some(word) = word {
                lane.store(u32::from_le(word.load(Ordering::Acquire)), data);
            }
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar != ABAR {
            return;
        }
        for lane in lanes(offset, data.len()) {
            self.hba.write(lane.register, lane.value(data), lane.mask());
        }
    }

    fn reset(&mut self) {
        self.hba.power_on();
        self.config.reset();
        self.slots.drain();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        self.slots.pause(PAUSE_LIMIT)
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.slots.resume()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.save_state()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_state(state)
    }
}
