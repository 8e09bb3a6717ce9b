//! PCI functions.
//!
//! [`PciDevice`] is what a host plugs in. [`ConfigSpace`] is what a device builds it from: the type
//! 0 header, capabilities, BARs and the three kinds of interrupt ([`Interrupts`]). [`RootBus`] is
//! what a host plugs it into, itself a device on vm-device's `IoManager`.
//!
//! A function with 4 KiB of memory, the bus that it is plugged into, and a guest that finds it:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//!
//! use paraslot_device::interrupt::NoInterrupts;
//! use paraslot_pci::*;
//! use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
//! use vm_device::device_manager::{IoManager, MmioManager, PioManager};
//!
//! struct Memory {
//!     config: ConfigSpace,
//!     layout: Layout,
//!     bytes: [u8; 4096],
//! }
//!
//! impl Memory {
//!     fn new() -> Self {
//!         let identity = Identity {
//!             vendor: 0x1af4,
//!             device: 0x10ff,
//!             revision: 1,
//!             class: [0x05, 0x00, 0x00],
//!             subsystem_vendor: 0x1af4,
//!             subsystem: 0x0001,
//!         };
//!         let bar = BarSpec { kind: BarKind::Memory64, size: 4096, prefetchable: true };
//!         let none = Arc::new(NoInterrupts);
//!         let config =
//!             ConfigSpaceBuilder::new(identity).bar(0, bar).express().build(none.clone(), none);
//!         Self { layout: config.layout(), config, bytes: [0; 4096] }
//!     }
//! }
//!
//! impl PciDevice for Memory {
//!     fn layout(&self) -> &Layout {
//!         &self.layout
//!     }
//!     fn bars(&self) -> [Option<BarState>; 7] {
//!         self.config.bars()
//!     }
//!     fn config_read(&mut self, offset: u16, data: &mut [u8]) {
//!         self.config.read(offset, data);
//!     }
//!     fn config_write(&mut self, offset: u16, data: &[u8]) {
//!         if self.config.write(offset, data).function_reset {
//!             self.reset();
//!         }
//!     }
//!     fn bar_read(&mut self, _bar: u8, offset: u64, data: &mut [u8]) {
//!         for (at, byte) in (offset..).zip(data) {
//!             let at = usize::try_from(at).ok();
//!             *byte = at.and_then(|at| self.bytes.get(at)).copied().unwrap_or(0xff);
//!         }
//!     }
//!     fn bar_write(&mut self, _bar: u8, offset: u64, data: &[u8]) {
//!         for (at, value) in (offset..).zip(data) {
//!             let at = usize::try_from(at).ok();
//!             if let Some(byte) = at.and_then(|at| self.bytes.get_mut(at)) {
//!                 *byte = *value;
//!             }
//!         }
//!     }
//!     fn reset(&mut self) {
//!         self.config.reset();
//!         self.bytes.fill(0);
//!     }
//!     fn pause(&mut self) -> Result<(), DeviceError> {
//!         Ok(())
//!     }
//!     fn resume(&mut self) -> Result<(), DeviceError> {
//!         Ok(())
//!     }
//! }
//!
//! /// Changes that are made to the `IoManager` when the access is over.
//! #[derive(Default)]
//! struct Changes(Mutex<Vec<(Bdf, u8, Option<BarState>, Option<BarState>)>>);
//!
//! impl BarObserver for Changes {
//!     fn bar_changed(&self, bdf: Bdf, bar: u8, old: Option<BarState>, new: Option<BarState>) {
//!         self.0.lock().unwrap().push((bdf, bar, old, new));
//!     }
//! }
//!
//! let changes = Arc::new(Changes::default());
//! let bus = Arc::new(RootBus::new(changes.clone()));
//! bus.plug(Bdf::root(3), Arc::new(Mutex::new(Memory::new())))?;
//!
//! let mut manager = IoManager::new();
//! manager.register_pio(PioRange::new(PioAddress(0xcf8), 8)?, bus.clone())?;
//! manager.register_mmio(MmioRange::new(MmioAddress(0xe000_0000), 1 << 28)?, bus.clone())?;
//!
//! // The guest finds 00:03.0 by its ports, ...
//! let mut id = [0; 4];
//! manager.pio_write(PioAddress(0xcf8), &0x8000_1800_u32.to_le_bytes())?;
//! manager.pio_read(PioAddress(0xcfc), &mut id)?;
//! assert_eq!(id, [0xf4, 0x1a, 0xff, 0x10]);
//!
//! // ... and places BAR 0 and switches it on by ECAM.
//! let function = 0xe000_0000 + (3 << 15);
//! manager.mmio_write(MmioAddress(function + 0x10), &0x8_0000_0000_u64.to_le_bytes())?;
//! manager.mmio_write(MmioAddress(function + 0x04), &[0x02, 0x00])?;
//!
//! // The host takes BARs away and puts them where they are now.
//! for (bdf, bar, old, new) in changes.0.lock().unwrap().drain(..) {
//!     if let Some(old) = old {
//!         manager.deregister_mmio(MmioAddress(old.address));
//!     }
//!     if let (Some(new), Some(device)) = (new, bus.function(bdf)) {
//!         let range = MmioRange::new(MmioAddress(new.address), new.size)?;
//!         manager.register_mmio(range, Arc::new(BarWindow::new(device, bar)))?;
//!     }
//! }
//! let mut data = [0; 2];
//! manager.mmio_write(MmioAddress(0x8_0000_0ffe), &[1, 2])?;
//! manager.mmio_read(MmioAddress(0x8_0000_0ffe), &mut data)?;
//! assert_eq!(data, [1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod access;
mod builder;
mod config;
mod device;
mod gate;
mod host_bridge;
mod interrupts;
mod msix;
mod picture;
mod registers;
mod root;
mod state;
mod sync;
#[cfg(test)]
mod testing;

pub use access::BarWindow;
pub use builder::{ConfigSpaceBuilder, Identity, MsixLayout};
pub use config::{ConfigSpace, Written};
pub use device::{
    BarKind, BarSpec, BarState, DirectWindow, Layout, PciDevice, ROM_BAR, ReadWindow,
};
pub use host_bridge::HostBridge;
pub use interrupts::Interrupts;
pub use picture::{Capability, ListFault, Picture, walk};
pub use root::{BarObserver, Bdf, PlugError, RootBus, SharedDevice};
pub use state::ConfigState;

pub use paraslot_device::{DeviceError, Doorbell};
