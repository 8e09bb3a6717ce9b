//! The bus and its functions' BARs as devices on vm-device's buses.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use paraslot_spec::pci::mechanism1;
use vm_device::bus::{MmioAddress, MmioAddressOffset, PioAddress, PioAddressOffset};
use vm_device::{DeviceMmio, DevicePio};

use crate::root::CONFIG_LEN;
use crate::{Bdf, RootBus, SharedDevice};

/// Bits of CONFIG_ADDRESS that exist: enable, bus, device, function, register. The others read zero.
const ADDRESS_BITS: u32 = 0x80ff_fffc;

/// Where CONFIG_DATA starts among the ports, and where they end.
const DATA: PioAddressOffset = mechanism1::DATA - mechanism1::ADDRESS;
const PORTS: PioAddressOffset = DATA + 4;

impl RootBus {
    /// The function and register that mechanism 1 leads to from a port of CONFIG_DATA, `lane` 0 to 3.
    fn selected(&self, lane: u16) -> Option<(Bdf, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        let [register, function, bus, _] = address.to_le_bytes();
        let bdf = Bdf { bus, device: function >> 3, function: function & 7 };
        (address & mechanism1::ENABLE != 0).then_some((bdf, u16::from(register) + lane))
    }
}

/// Configuration mechanism 1, eight ports: CONFIG_ADDRESS and CONFIG_DATA.
///
/// CONFIG_ADDRESS is written by 32-bit accesses alone, as the specification has it; shorter ones are
/// meant for others that may share these ports (0xcf9 resets PCs) and are ignored. It reads at any
/// width. CONFIG_DATA takes accesses of any width. The register pair is one for all vCPUs, which
/// guests know.
impl DevicePio for RootBus {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        let Some(lane) = offset.checked_sub(DATA) else {
            let address = self.address.load(Ordering::Relaxed).to_le_bytes();
            for (byte, value) in data.iter_mut().zip(address.iter().skip(offset.into())) {
                *byte = *value;
            }
            return;
        };
        let len = data.len().min(PORTS.saturating_sub(offset).into());
        if let (Some((bdf, register)), Some(data)) = (self.selected(lane), data.get_mut(..len)) {
            self.config_read(bdf, register, data);
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let Some(lane) = offset.checked_sub(DATA) else {
            if let (0, Ok(address)) = (offset, <[u8; 4]>::try_from(data)) {
                let address = u32::from_le_bytes(address) & ADDRESS_BITS;
                self.address.store(address, Ordering::Relaxed);
            }
            return;
        };
        let len = data.len().min(PORTS.saturating_sub(offset).into());
        if let (Some((bdf, register)), Some(data)) = (self.selected(lane), data.get(..len)) {
            self.config_write(bdf, register, data);
        }
    }
}

/// The enhanced configuration access mechanism: the bus in bits 27:20 of the offset, then device,
/// function and register.
///
/// An access reaches one function; what lies beyond its 4096 bytes reads as ones.
impl DeviceMmio for RootBus {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((bdf, register)) = ecam(offset) {
            self.config_read(bdf, register, data);
        }
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        if let Some((bdf, register)) = ecam(offset) {
            self.config_write(bdf, register, data);
        }
    }
}

/// The function and register at an offset in the ECAM range.
fn ecam(offset: u64) -> Option<(Bdf, u16)> {
    let bus = u8::try_from(offset >> 20).ok()?;
    let [low, ..] = (offset >> 12).to_le_bytes();
    // Bits 19:12: five of the device, three of the function.
    let bdf = Bdf { bus, device: low >> 3, function: low & 7 };
    let register = u16::try_from(offset % u64::from(CONFIG_LEN)).ok()?;
    Some((bdf, register))
}

/// One BAR of one function, as a device on a bus of addresses.
///
/// A host registers it where the guest has put the BAR and takes it away again as its
/// [`BarObserver`](crate::BarObserver) hears of it.
pub struct BarWindow {
    device: SharedDevice,
    bar: u8,
}

impl BarWindow {
    /// BAR `bar` of `device`.
    pub fn new(device: SharedDevice, bar: u8) -> Self {
        Self { device, bar }
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.bar_read(self.bar, offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut device = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.bar_write(self.bar, offset, data);
    }
}

impl DeviceMmio for BarWindow {
    fn mmio_read(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        self.read(offset, data);
    }

    fn mmio_write(&self, _base: MmioAddress, offset: MmioAddressOffset, data: &[u8]) {
        self.write(offset, data);
    }
}

impl DevicePio for BarWindow {
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        self.read(offset.into(), data);
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        self.write(offset.into(), data);
    }
}
