//! The root bus: functions by their addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use paraslot_spec::pci::header;

use crate::host_bridge::HostBridge;
use crate::{BarState, PciDevice};

/// Bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Bus, 0 for the root bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl Bdf {
    /// Device `device`, function 0, on the root bus.
    pub const fn root(device: u8) -> Self {
        Self { bus: 0, device, function: 0 }
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bus, device, function } = self;
        write!(f, "{bus:02x}:{device:02x}.{function}")
    }
}

/// A function, shared by the ways that lead to it.
pub type SharedDevice = Arc<Mutex<dyn PciDevice>>;

/// Who hears where the guest puts the functions' BARs.
pub trait BarObserver: Send + Sync {
    /// BAR `bar` of `bdf` no longer decodes at `old`, or now decodes at `new`; the other one is `None`.
    /// A BAR that moves is told of twice. All that one access takes away is told before what it adds,
    /// so BARs may change places.
    ///
    /// Called on the thread that accessed configuration space (or plugged, unplugged or reset the
    /// function), with the function unlocked, and in the order of the changes of that function.
    ///
    /// The access may have come through the very `IoManager` that the host would now have to change;
    /// where that is behind a lock, queue the change and make it before the vCPU goes on. The
    /// observer must not access configuration space of the same function, nor plug, unplug or reset
    /// it.
    fn bar_changed(&self, bdf: Bdf, bar: u8, old: Option<BarState>, new: Option<BarState>);
}

/// Does not care.
impl BarObserver for () {
    fn bar_changed(&self, _: Bdf, _: u8, _: Option<BarState>, _: Option<BarState>) {}
}

/// Why a function could not be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// There is a function already.
    #[error("{0} is taken")]
    Taken(Bdf),
    /// Device or function number too large.
    #[error("{0} is not an address on a PCI bus")]
    Address(Bdf),
}

/// The root bus, and the configuration mechanisms that reach the functions on it.
///
/// It comes with a [`HostBridge`] at 00:00.0. Functions can be plugged in and out at any time. Those
/// on buses other than 0 are only found by guests that are told of further root buses, since there
/// are no bridges. A device's functions other than 0 are only found while there is a function 0.
///
/// On vm-device's buses it is
/// - as `DevicePio`, configuration mechanism 1: eight ports from 0xcf8 (PCI 3.0, 3.2.2.3.2);
/// - as `DeviceMmio`, the enhanced mechanism (ECAM): 1 MiB a bus, the range starting with bus 0 (PCI
///   Express 5.0, 7.2.2).
///
/// Configuration accesses that no function answers read as ones and write nowhere. The multi-function
/// bit of the header type is the bus's: it shows whether the device has several functions just now.
pub struct RootBus {
    functions: RwLock<BTreeMap<Bdf, Arc<Slot>>>,
    observer: Arc<dyn BarObserver>,
    /// CONFIG_ADDRESS of mechanism 1.
    pub(crate) address: AtomicU32,
}

impl RootBus {
    /// A bus with a host bridge, whose functions' BARs `observer` hears of.
    pub fn new(observer: Arc<dyn BarObserver>) -> Self {
        let bridge: SharedDevice = Arc::new(Mutex::new(HostBridge::new()));
        let functions = BTreeMap::from([(Bdf::root(0), Arc::new(Slot::new(bridge)))]);
        Self { functions: RwLock::new(functions), observer, address: AtomicU32::new(0) }
    }

    /// Plugs a function in. The observer hears of the BARs that decode already.
    ///
    /// # Errors
    /// When the address is taken or does not exist.
    pub fn plug(&self, bdf: Bdf, device: SharedDevice) -> Result<(), PlugError> {
        if bdf.device > 31 || bdf.function > 7 {
            return Err(PlugError::Address(bdf));
        }
        let slot = Arc::new(Slot::new(device));
        {
            let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
            if functions.contains_key(&bdf) {
                return Err(PlugError::Taken(bdf));
            }
            functions.insert(bdf, slot.clone());
        }
        slot.access(bdf, &*self.observer, |_| ());
        Ok(())
    }

    /// Takes a function out and returns it. The observer hears of the BARs that decoded; the function
    /// itself notices nothing.
    pub fn unplug(&self, bdf: Bdf) -> Option<SharedDevice> {
        let slot = {
            let mut functions = self.functions.write().unwrap_or_else(PoisonError::into_inner);
            functions.remove(&bdf)?
        };
        slot.unplug(bdf, &*self.observer);
        Some(slot.device.clone())
    }

    /// The function at `bdf`.
    pub fn function(&self, bdf: Bdf) -> Option<SharedDevice> {
        self.slot(bdf).map(|slot| slot.device.clone())
    }

    /// The addresses that are taken, in order.
    pub fn functions(&self) -> Vec<Bdf> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.keys().copied().collect()
    }

    /// Resets all functions, and the configuration mechanism, as a reset of the machine does.
    pub fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
        for bdf in self.functions() {
            if let Some(slot) = self.slot(bdf) {
                slot.access(bdf, &*self.observer, |device| device.reset());
            }
        }
    }

    /// Tells the observer what has become of a function's BARs behind the bus's back, such as when
    /// the host has reset the function itself.
    pub fn refresh(&self, bdf: Bdf) {
        if let Some(slot) = self.slot(bdf) {
            slot.access(bdf, &*self.observer, |_| ());
        }
    }

    /// Reads configuration space. What lies beyond its 4096 bytes reads as ones.
    pub fn config_read(&self, bdf: Bdf, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        let Some(slot) = self.slot(bdf) else { return };
        let Some(data) = data.get_mut(..within_function(offset, data.len())) else { return };
        if data.is_empty() {
            return;
        }
        slot.device().config_read(offset, data);
        let header_type = header::HEADER_TYPE.checked_sub(offset).map(usize::from);
        if let Some(byte) = header_type.and_then(|at| data.get_mut(at)) {
            let multiple = if self.has_sibling(bdf) { MULTI_FUNCTION } else { 0 };
            *byte = (*byte & !MULTI_FUNCTION) | multiple;
        }
    }

    /// Writes configuration space, and tells the observer what that did to the BARs. What lies beyond
    /// its 4096 bytes is ignored.
    pub fn config_write(&self, bdf: Bdf, offset: u16, data: &[u8]) {
        let Some(slot) = self.slot(bdf) else { return };
        let Some(data) = data.get(..within_function(offset, data.len())) else { return };
        if !data.is_empty() {
            slot.access(bdf, &*self.observer, |device| device.config_write(offset, data));
        }
    }

    fn slot(&self, bdf: Bdf) -> Option<Arc<Slot>> {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        functions.get(&bdf).cloned()
    }

    fn has_sibling(&self, bdf: Bdf) -> bool {
        let functions = self.functions.read().unwrap_or_else(PoisonError::into_inner);
        let device = Bdf { function: 0, ..bdf }..=Bdf { function: 7, ..bdf };
        functions.range(device).any(|(other, _)| *other != bdf)
    }
}

/// Bytes of a function's configuration space, extended space included.
pub(crate) const CONFIG_LEN: u16 = 4096;

/// Multi-function bit of the header type.
const MULTI_FUNCTION: u8 = 1 << 7;

/// How much of an access of `len` bytes at `offset` lies in a function's configuration space.
fn within_function(offset: u16, len: usize) -> usize {
    len.min(CONFIG_LEN.saturating_sub(offset).into())
}

type Places = [Option<BarState>; 7];

/// A function on the bus.
struct Slot {
    device: SharedDevice,
    /// Where the BARs were when the observer last heard, `None` after the function was unplugged.
    /// Held over the observer's call, so that changes are told in their order, and taken before the
    /// function's lock.
    told: Mutex<Option<Places>>,
}

impl Slot {
    fn new(device: SharedDevice) -> Self {
        Self { device, told: Mutex::new(Some([None; 7])) }
    }

    fn device(&self) -> MutexGuard<'_, dyn PciDevice + 'static> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the function, and tells the observer how its BARs differ afterwards. Does
    /// nothing to a function that is no longer on the bus.
    fn access(&self, bdf: Bdf, observer: &dyn BarObserver, act: impl FnOnce(&mut dyn PciDevice)) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = told.as_mut() else { return };
        let new = {
            let mut device = self.device();
            act(&mut *device);
            device.bars().map(|bar| bar.filter(|bar| bar.enabled))
        };
        tell(bdf, observer, *old, new);
        *old = new;
    }

    fn unplug(&self, bdf: Bdf, observer: &dyn BarObserver) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = told.take() {
            tell(bdf, observer, old, [None; 7]);
        }
    }
}

/// Tells the differences, first of all that is given up.
fn tell(bdf: Bdf, observer: &dyn BarObserver, old: Places, new: Places) {
    let changes = || (0_u8..).zip(old.into_iter().zip(new)).filter(|(_, (old, new))| old != new);
    for (bar, (old, _)) in changes().filter(|(_, (old, _))| old.is_some()) {
        observer.bar_changed(bdf, bar, old, None);
    }
    for (bar, (_, new)) in changes().filter(|(_, (_, new))| new.is_some()) {
        observer.bar_changed(bdf, bar, None, new);
    }
}

#[cfg(test)]
mod tests;
