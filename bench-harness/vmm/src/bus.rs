//! The machine's buses, and the functions' BARs on them.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kvm_ioctls::VmFd;
use paraslot_device::HostPages;
use paraslot_pci::{BarKind, BarObserver, BarState, BarWindow, Bdf, RootBus, SharedDevice};
use paraslot_spec::pci::mechanism1;
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vmm_sys_util::eventfd::EventFd;

use crate::ports::{PORTS, Ports};
use crate::sys::{self, IoEvent, Slot};
use crate::{Path, VmError, boot};

/// BARs that changed since the buses last looked. A change comes while an access is being
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
    fn take(&self) -> Vec<Change> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
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

type BarId = (Bdf, u8);

/// The port and memory buses.
pub(crate) struct Bus {
    vm: Arc<VmFd>,
    path: Path,
    io: IoManager,
    root: Arc<RootBus>,
    changes: Arc<Changes>,
    functions: BTreeMap<Bdf, Function>,
    /// Where the guest wants its BARs.
    wanted: BTreeMap<BarId, BarState>,
    /// Where they are. Not all that is wanted can be had: a guest may put one BAR over another.
    placed: BTreeMap<BarId, Placed>,
    /// Memory slots that may be used for windows.
    slots: RangeInclusive<u32>,
    free_slots: Vec<u32>,
}

impl Bus {
    /// Buses with the guest's ports and an empty root bus; memory slots from `first_slot` on are
    /// free.
    pub(crate) fn new(
        vm: Arc<VmFd>,
        path: Path,
        ports: &Arc<Ports>,
        first_slot: u32,
    ) -> Result<Self, VmError> {
        let changes = Arc::new(Changes::default());
        let root = Arc::new(RootBus::new(changes.clone()));
        let mut io = IoManager::new();
        // None of these overlap, so none fails.
        let mut add_ports = |base: u16, len: u16, device| {
            let range = PioRange::new(PioAddress(base), len);
            range.and_then(|range| io.register_pio(range, device))
        };
        let added = PORTS
            .into_iter()
            .try_for_each(|(base, len)| add_ports(base, len, ports.clone()))
            .and_then(|()| add_ports(mechanism1::ADDRESS, 8, root.clone()))
            .and_then(|()| MmioRange::new(MmioAddress(boot::ECAM), boot::ECAM_LEN))
            .and_then(|range| io.register_mmio(range, root.clone()));
        added.map_err(|_| VmError::Missing("place for the machine's own devices"))?;
        let slots = first_slot..=u32::from(u16::MAX);
        Ok(Self {
            vm,
            path,
            io,
            root,
            changes,
            functions: BTreeMap::new(),
            wanted: BTreeMap::new(),
            placed: BTreeMap::new(),
            slots,
            free_slots: Vec::new(),
        })
    }

    /// Plugs a function in.
    pub(crate) fn plug(&mut self, bdf: Bdf, device: SharedDevice) -> Result<(), VmError> {
        let (doorbells, windows) = {
            let device = device.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.root.plug(bdf, device.clone())?;
        self.functions.insert(bdf, Function { device, doorbells, windows });
        self.settle()
    }

    /// Reads memory. Where nothing is, it reads as ones.
    pub(crate) fn mmio_read(&self, address: u64, data: &mut [u8]) {
        if self.io.mmio_read(MmioAddress(address), data).is_err() {
            data.fill(0xff);
        }
    }

    /// Writes memory; nowhere, where nothing is.
    pub(crate) fn mmio_write(&self, address: u64, data: &[u8]) {
        let _ = self.io.mmio_write(MmioAddress(address), data);
    }

    /// Reads a port.
    pub(crate) fn port_read(&self, port: u16, data: &mut [u8]) {
        if self.io.pio_read(PioAddress(port), data).is_err() {
            data.fill(0xff);
        }
    }

    /// Writes a port.
    pub(crate) fn port_write(&self, port: u16, data: &[u8]) {
        let _ = self.io.pio_write(PioAddress(port), data);
    }

    /// Puts BARs where the guest has moved them.
    pub(crate) fn settle(&mut self) -> Result<(), VmError> {
        let changes = self.changes.take();
        if changes.is_empty() {
            return Ok(());
        }
        for Change { bdf, bar, new } in changes {
            let id = (bdf, bar);
            self.remove(id)?;
            match new {
                Some(state) => self.wanted.insert(id, state),
                None => self.wanted.remove(&id),
            };
        }
        // What was in the way of another may be gone.
        let waiting: Vec<_> = self
            .wanted
            .iter()
            .filter(|(id, _)| !self.placed.contains_key(id))
            .map(|(id, state)| (*id, *state))
            .collect();
        waiting.into_iter().try_for_each(|(id, state)| self.place(id, state))
    }

    fn place(&mut self, (bdf, bar): BarId, state: BarState) -> Result<(), VmError> {
        let Some(function) = self.functions.get(&bdf) else { return Ok(()) };
        let window = Arc::new(BarWindow::new(function.device.clone(), bar));
        let port = state.kind == BarKind::Io;
        let registered = if port {
            let range = match (u16::try_from(state.address), u16::try_from(state.size)) {
                (Ok(base), Ok(size)) => PioRange::new(PioAddress(base), size),
                _ => return Ok(()),
            };
            range.and_then(|range| self.io.register_pio(range, window))
        } else {
            MmioRange::new(MmioAddress(state.address), state.size)
                .and_then(|range| self.io.register_mmio(range, window))
        };
        if registered.is_err() {
            // Something else is there; until that moves, nobody decodes this BAR.
            return Ok(());
        }
        let mut placed = Placed { state, events: Vec::new(), slots: Vec::new() };
        let connected = match self.path {
            Path::Trap => Ok(()),
            Path::Event => self.connect((bdf, bar), &mut placed),
        };
        self.placed.insert((bdf, bar), placed);
        connected
    }

    /// Hands a BAR's doorbells and windows to KVM.
    fn connect(&mut self, (bdf, bar): BarId, placed: &mut Placed) -> Result<(), VmError> {
        let Some(function) = self.functions.get(&bdf) else { return Ok(()) };
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
            let number = self.free_slots.pop().or_else(|| self.slots.next());
            let number = number.ok_or(VmError::Missing("memory slot left"))?;
            let slot = Slot {
                number,
                guest: address + window.offset,
                len: window.pages.byte_len() as u64,
                read_only: window.read_only,
            };
            match map_window(&self.vm, slot, &*window.pages) {
                Ok(()) => placed.slots.push(slot),
                // The guest has put the BAR over memory: memory it is, and no access comes here.
                Err(error) if error.errno() == libc::EEXIST => self.free_slots.push(number),
                Err(error) => return Err(VmError::kvm("map a register window")(error)),
            }
        }
        Ok(())
    }

    fn remove(&mut self, id: BarId) -> Result<(), VmError> {
        let Some(placed) = self.placed.remove(&id) else { return Ok(()) };
        if placed.state.kind == BarKind::Io {
            if let Ok(base) = u16::try_from(placed.state.address) {
                self.io.deregister_pio(PioAddress(base));
            }
        } else {
            self.io.deregister_mmio(MmioAddress(placed.state.address));
        }
        for event in placed.events {
            sys::io_event(&self.vm, event, false).map_err(VmError::kvm("unwatch a doorbell"))?;
        }
        for slot in placed.slots {
            sys::unmap(&self.vm, slot).map_err(VmError::kvm("unmap a register window"))?;
            self.free_slots.push(slot.number);
        }
        Ok(())
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
        for placed in self.placed.values() {
            for slot in &placed.slots {
                let _ = sys::unmap(&self.vm, *slot);
            }
        }
    }
}
