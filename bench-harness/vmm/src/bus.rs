//! The machine's buses, and the functions' BARs on them.

mod state;

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kvm_ioctls::VmFd;
use paraslot_device::HostPages;
use paraslot_pci::{BarKind, BarObserver, BarState, BarWindow, Bdf, RootBus, SharedDevice};
use paraslot_spec::pci::mechanism1;
use vm_device::DevicePio;
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vmm_sys_util::eventfd::EventFd;

use crate::snapshot::SnapshotError;
use crate::sys::{self, IoEvent, Slot};
use crate::{Path, VmError, boot};

/// BARs that changed and are not yet where they belong. A change comes while an access is being
/// dispatched, so it waits until that is over; the vCPU does not go on before.
#[derive(Default)]
struct Changes {
    any: AtomicBool,
    list: Mutex<Vec<Change>>,
}

struct Change {
    bdf: Bdf,
    bar: u8,
    new: Option<BarState>,
}

impl BarObserver for Changes {
    fn bar_changed(&self, bdf: Bdf, bar: u8, _old: Option<BarState>, new: Option<BarState>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(Change { bdf, bar, new });
        self.any.store(true, Ordering::Release);
    }
}

impl Changes {
    /// Whether there are any, those included that somebody is about to carry out. Costs a load.
    fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// What has come since the last call. When that is nothing, all has been carried out.
    fn take(&self) -> Vec<Change> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        std::mem::take(&mut *list)
    }
}

/// A function, with what of its layout concerns KVM.
struct Function {
    device: SharedDevice,
    doorbells: Vec<Doorbell>,
    windows: Vec<Window>,
}

/// Pages that are mapped over part of a BAR.
struct Window {
    bar: u8,
    offset: u64,
    pages: Arc<dyn HostPages>,
    read_only: bool,
}

struct Doorbell {
    bar: u8,
    offset: u64,
    len: u8,
    value: Option<u64>,
    event: EventFd,
}

impl Doorbell {
    fn copy(doorbell: &paraslot_pci::Doorbell) -> io::Result<Self> {
        let paraslot_pci::Doorbell { bar, offset, len, value, event } = doorbell;
        let event = event.try_clone()?;
        Ok(Self { bar: *bar, offset: *offset, len: *len, value: *value, event })
    }
}

/// A BAR where the guest has put it.
struct Placed {
    state: BarState,
    events: Vec<IoEvent>,
    slots: Vec<Slot>,
}

impl Function {
    fn new(function: SharedDevice) -> Result<Self, VmError> {
        let (doorbells, windows) = {
            let device = function.lock().unwrap_or_else(PoisonError::into_inner);
            let layout = device.layout();
            let doorbells: io::Result<_> = layout.doorbells.iter().map(Doorbell::copy).collect();
            let read = layout.windows.iter().map(|window| Window {
                bar: window.bar,
                offset: window.offset,
                pages: window.page.clone(),
                read_only: true,
            });
            let direct = layout.direct.iter().map(|window| Window {
                bar: window.bar,
                offset: window.offset,
                pages: window.pages.clone(),
                read_only: false,
            });
            (doorbells, read.chain(direct).collect())
        };
        let what = "duplicate a doorbell's eventfd";
        let doorbells = doorbells.map_err(|error| VmError::Kvm { what, error })?;
        Ok(Self { device: function, doorbells, windows })
    }
}

fn no_place(_: vm_device::bus::Error) -> VmError {
    VmError::Missing("place for the machine's own devices")
}

type BarId = (Bdf, u8);

/// The port and memory buses, for all vCPUs.
///
/// An access holds `io` for reading while a device serves it. What it does to BARs is queued, and
/// carried out by [`settle`](Self::settle) before the vCPU that did it goes on; no access is under way
/// then.
pub(crate) struct Bus {
    vm: Arc<VmFd>,
    path: Path,
    io: RwLock<IoManager>,
    root: Arc<RootBus>,
    changes: Arc<Changes>,
    places: Mutex<Places>,
}

/// The functions, and where their BARs are.
struct Places {
    functions: BTreeMap<Bdf, Function>,
    /// Where the guest wants its BARs.
    wanted: BTreeMap<BarId, BarState>,
    /// Where they are. Not all that is wanted can be had: a guest may put one BAR over another.
    placed: BTreeMap<BarId, Placed>,
    /// Memory slots that may be used for windows.
    slots: RangeInclusive<u32>,
    free_slots: Vec<u32>,
    /// The functions stand still; one that comes meanwhile does as well.
    paused: bool,
    /// Pages of functions that are gone, which KVM did not let go of.
    kept: Vec<Window>,
}

impl Bus {
    /// Buses with an empty root bus; memory slots from `first_slot` on are free.
    pub(crate) fn new(vm: Arc<VmFd>, path: Path, first_slot: u32) -> Result<Self, VmError> {
        let changes = Arc::new(Changes::default());
        let root = Arc::new(RootBus::new(changes.clone()));
        let places = Places {
            functions: BTreeMap::new(),
            wanted: BTreeMap::new(),
            placed: BTreeMap::new(),
            slots: first_slot..=u32::from(u16::MAX),
            free_slots: Vec::new(),
            paused: false,
            kept: Vec::new(),
        };
        let io = RwLock::new(IoManager::new());
        let bus = Self { vm, path, io, root, changes, places: Mutex::new(places) };
        bus.add_ports((mechanism1::ADDRESS, 8), bus.root.clone())?;
        MmioRange::new(MmioAddress(boot::ECAM), boot::ECAM_LEN)
            .and_then(|range| bus.io_mut().register_mmio(range, bus.root.clone()))
            .map_err(no_place)?;
        Ok(bus)
    }

    /// Puts a device of the machine's own at `len` ports from `base` on.
    pub(crate) fn add_ports(
        &self,
        (base, len): (u16, u16),
        device: Arc<dyn DevicePio + Send + Sync>,
    ) -> Result<(), VmError> {
        PioRange::new(PioAddress(base), len)
            .and_then(|range| self.io_mut().register_pio(range, device))
            .map_err(no_place)
    }

    fn io(&self) -> RwLockReadGuard<'_, IoManager> {
        self.io.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn io_mut(&self) -> RwLockWriteGuard<'_, IoManager> {
        self.io.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plugs a function in.
    pub(crate) fn plug(&self, bdf: Bdf, device: SharedDevice) -> Result<(), VmError> {
        let function = Function::new(device.clone())?;
        {
            // Held so that no vCPU carries out the function's first changes before it is known.
            let mut places = self.places();
            if places.paused {
                let paused = state::lock(&device).pause();
                paused.map_err(|error| SnapshotError::Function { bdf, error })?;
            }
            self.root.plug(bdf, device)?;
            places.functions.insert(bdf, function);
        }
        self.settle()
    }

    /// Takes a function out, and has it stand still. The guest reaches it by nothing any more, nor is any
    /// access of a vCPU's to it under way.
    pub(crate) fn unplug(&self, bdf: Bdf) -> Result<Option<SharedDevice>, VmError> {
        let device = {
            let mut places = self.places();
            let Some(device) = self.root.unplug(bdf) else { return Ok(None) };
            let settled = self.settle_in(&mut places);
            let function = places.functions.remove(&bdf);
            if settled.is_err() {
                // The guest may still see them, so they stay as long as the machine.
                places.kept.extend(function.into_iter().flat_map(|function| function.windows));
            }
            settled?;
            device
        };
        // Whoever had found it before holds the buses until the access is over.
        drop(self.io_mut());
        // It fails if a backend holds on to a request. To drop it silences it all the same.
        let _ = state::lock(&device).pause();
        Ok(Some(device))
    }

    /// Resets all functions.
    pub(crate) fn reset(&self) -> Result<(), VmError> {
        self.root.reset();
        self.settle()
    }

    /// Reads memory. Where nothing is, it reads as ones.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if self.io().mmio_read(MmioAddress(address), data).is_err() {
            data.fill(0xff);
        }
    }

    /// Writes memory; nowhere, where nothing is.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) {
        let _ = self.io().mmio_write(MmioAddress(address), data);
    }

    /// Reads a port.
    pub(crate) fn port_read(&self, port: u16, data: &mut [u8]) {
        if self.io().pio_read(PioAddress(port), data).is_err() {
            data.fill(0xff);
        }
    }

    /// Writes a port.
    pub(crate) fn port_write(&self, port: u16, data: &[u8]) {
        let _ = self.io().pio_write(PioAddress(port), data);
    }

    /// Puts BARs where the guest has moved them. If another thread is doing that, waits for it: the
    /// changes that it carries out may be the caller's.
    pub(crate) fn settle(&self) -> Result<(), VmError> {
        if !self.changes.any() {
            return Ok(());
        }
        self.settle_in(&mut self.places())
    }

    fn settle_in(&self, places: &mut Places) -> Result<(), VmError> {
        // Taken under the lock, so that they are carried out in their order.
        loop {
            let changes = self.changes.take();
            if changes.is_empty() {
                return Ok(());
            }
            self.carry_out(places, changes)?;
        }
    }

    fn carry_out(&self, places: &mut Places, changes: Vec<Change>) -> Result<(), VmError> {
        for Change { bdf, bar, new } in changes {
            let id = (bdf, bar);
            self.remove(places, id)?;
            match new {
                Some(state) => places.wanted.insert(id, state),
                None => places.wanted.remove(&id),
            };
        }
        // What was in the way of another may be gone.
        let waiting: Vec<_> = places
            .wanted
            .iter()
            .filter(|(id, _)| !places.placed.contains_key(id))
            .map(|(id, state)| (*id, *state))
            .collect();
        waiting.into_iter().try_for_each(|(id, state)| self.place(places, id, state))
    }

    fn place(
        &self,
        places: &mut Places,
        (bdf, bar): BarId,
        state: BarState,
    ) -> Result<(), VmError> {
        let Some(function) = places.functions.get(&bdf) else { return Ok(()) };
        let window = Arc::new(BarWindow::new(function.device.clone(), bar));
        let port = state.kind == BarKind::Io;
        let registered = if port {
            let range = match (u16::try_from(state.address), u16::try_from(state.size)) {
                (Ok(base), Ok(size)) => PioRange::new(PioAddress(base), size),
                _ => return Ok(()),
            };
            range.and_then(|range| self.io_mut().register_pio(range, window))
        } else {
            MmioRange::new(MmioAddress(state.address), state.size)
                .and_then(|range| self.io_mut().register_mmio(range, window))
        };
        if registered.is_err() {
            // Something else is there; until that moves, nobody decodes this BAR.
            return Ok(());
        }
        let mut placed = Placed { state, events: Vec::new(), slots: Vec::new() };
        let connected = match self.path {
            Path::Trap => Ok(()),
            Path::Event => self.connect(places, (bdf, bar), &mut placed),
        };
        places.placed.insert((bdf, bar), placed);
        connected
    }

    /// Hands a BAR's doorbells and windows to KVM.
    fn connect(
        &self,
        places: &mut Places,
        (bdf, bar): BarId,
        placed: &mut Placed,
    ) -> Result<(), VmError> {
        let Places { functions, slots, free_slots, .. } = places;
        let Some(function) = functions.get(&bdf) else { return Ok(()) };
        let BarState { address, kind, .. } = placed.state;
        for doorbell in function.doorbells.iter().filter(|doorbell| doorbell.bar == bar) {
            let event = IoEvent {
                address: address + doorbell.offset,
                port: kind == BarKind::Io,
                len: doorbell.len,
                value: doorbell.value,
                event: doorbell.event.as_raw_fd(),
            };
            sys::io_event(&self.vm, event, true).map_err(VmError::kvm("watch a doorbell"))?;
            placed.events.push(event);
        }
        for window in function.windows.iter().filter(|window| window.bar == bar) {
            let number = free_slots.pop().or_else(|| slots.next());
            let number = number.ok_or(VmError::Missing("memory slot left"))?;
            let slot = Slot {
                number,
                guest: address + window.offset,
                len: window.pages.byte_len() as u64,
                read_only: window.read_only,
            };
            match map_window(&self.vm, slot, &*window.pages) {
                Ok(()) => placed.slots.push(slot),
                // The guest has put the BAR over memory: memory it is, and no access comes here. Or it is
                // beyond what its CPU can address, as while it is sized with all bits set.
                Err(error) if matches!(error.errno(), libc::EEXIST | libc::EINVAL) => {
                    free_slots.push(number);
                }
                Err(error) => return Err(VmError::kvm("map a register window")(error)),
            }
        }
        Ok(())
    }

    fn remove(&self, places: &mut Places, id: BarId) -> Result<(), VmError> {
        let Some(placed) = places.placed.remove(&id) else { return Ok(()) };
        if placed.state.kind == BarKind::Io {
            if let Ok(base) = u16::try_from(placed.state.address) {
                self.io_mut().deregister_pio(PioAddress(base));
            }
        } else {
            self.io_mut().deregister_mmio(MmioAddress(placed.state.address));
        }
        let mut result = Ok(());
        for event in placed.events {
            let unwatched = sys::io_event(&self.vm, event, false);
            result = result.and(unwatched.map_err(VmError::kvm("unwatch a doorbell")));
        }
        for slot in placed.slots {
            match sys::unmap(&self.vm, slot).map_err(VmError::kvm("unmap a register window")) {
                Ok(()) => places.free_slots.push(slot.number),
                Err(error) => result = result.and(Err(error)),
            }
        }
        result
    }
}

#[expect(unsafe_code, reason = "a device's page is handed to KVM by address")]
fn map_window(vm: &VmFd, slot: Slot, pages: &dyn HostPages) -> Result<(), kvm_ioctls::Error> {
    // SAFETY: the bus holds the pages, and takes them out of the machine before it drops them.
    unsafe { sys::map(vm, slot, pages.host_address()) }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // A machine's descriptor may outlive its bus (devices hold it for their interrupts), but
        // what is mapped into it here must not.
        let mut places = self.places();
        std::mem::forget(std::mem::take(&mut places.kept));
        for placed in places.placed.values() {
            for slot in &placed.slots {
                let _ = sys::unmap(&self.vm, *slot);
            }
        }
    }
}
