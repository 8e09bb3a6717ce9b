//! Where the functions' BARs are, and what is accessed there.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use paraslot_device::SharedPage;
use paraslot_pci::{BarKind, BarObserver, BarState, Bdf, SharedDevice};
use vmm_sys_util::eventfd::EventFd;

/// What kind of access it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    /// Configuration space was read.
    ConfigRead,
    /// Configuration space was written.
    ConfigWrite,
    /// A BAR was read: an exit.
    Read,
    /// A BAR was written: an exit.
    Write,
    /// A BAR was read in a page that the device shares: no exit.
    WindowRead,
    /// An eventfd was written: an exit that ends in the kernel.
    Doorbell,
    /// Nothing is at the address.
    Nowhere,
}

/// A register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Its kind; configuration space is not recorded.
    pub kind: AccessKind,
    /// The BAR; 0 for an access to nowhere.
    pub bar: u8,
    /// The offset in it; the address, for an access to nowhere.
    pub offset: u64,
    /// What was read or written.
    pub value: u64,
}

/// How many accesses of each kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in AccessKind")]
pub struct Counts {
    pub config_reads: u64,
    pub config_writes: u64,
    pub reads: u64,
    pub writes: u64,
    pub window_reads: u64,
    pub doorbells: u64,
    pub nowhere: u64,
}

const KINDS: usize = 7;

struct Bell {
    bar: u8,
    offset: u64,
    len: u8,
    value: Option<u64>,
    event: EventFd,
}

struct Shared {
    bar: u8,
    offset: u64,
    page: Arc<SharedPage>,
}

/// A function, with what of its layout is used.
struct Function {
    device: SharedDevice,
    bells: Vec<Bell>,
    pages: Vec<Shared>,
}

struct Mapping {
    start: u64,
    size: u64,
    bdf: Bdf,
    bar: u8,
    function: Arc<Function>,
}

/// Routes accesses by address.
pub(super) struct AddressMap {
    functions: Mutex<BTreeMap<Bdf, Arc<Function>>>,
    mappings: RwLock<Vec<Mapping>>,
    doorbell_events: bool,
    read_windows: bool,
    counts: [AtomicU64; KINDS],
    tracing: AtomicBool,
    trace: Mutex<Vec<Access>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AddressMap {
    pub(super) fn new(doorbell_events: bool, read_windows: bool) -> Self {
        Self {
            functions: Mutex::default(),
            mappings: RwLock::default(),
            doorbell_events,
            read_windows,
            counts: [const { AtomicU64::new(0) }; KINDS],
            tracing: AtomicBool::new(false),
            trace: Mutex::default(),
        }
    }

    /// Gets to know a function, before it is plugged in.
    pub(super) fn add(&self, bdf: Bdf, device: SharedDevice) {
        let (bells, pages) = {
            let device = device.lock().unwrap_or_else(PoisonError::into_inner);
            let layout = device.layout();
            let bells = layout.doorbells.iter().filter(|_| self.doorbell_events);
            // A doorbell whose eventfd cannot be had is written by a call, which does the same.
            let bells = bells.filter_map(|bell| {
                let event = bell.event.try_clone().ok()?;
                let (bar, offset, len, value) = (bell.bar, bell.offset, bell.len, bell.value);
                Some(Bell { bar, offset, len, value, event })
            });
            let pages = layout.windows.iter().filter(|_| self.read_windows);
            let pages = pages.map(|window| Shared {
                bar: window.bar,
                offset: window.offset,
                page: window.page.clone(),
            });
            (bells.collect(), pages.collect())
        };
        lock(&self.functions).entry(bdf).or_insert(Arc::new(Function { device, bells, pages }));
    }

    /// Forgets a function, after it was unplugged.
    pub(super) fn remove(&self, bdf: Bdf) {
        lock(&self.functions).remove(&bdf);
    }

    pub(super) fn count(&self, kind: AccessKind) {
        if let Some(count) = self.counts.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let get = |kind: AccessKind| {
            self.counts.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed))
        };
        Counts {
            config_reads: get(AccessKind::ConfigRead),
            config_writes: get(AccessKind::ConfigWrite),
            reads: get(AccessKind::Read),
            writes: get(AccessKind::Write),
            window_reads: get(AccessKind::WindowRead),
            doorbells: get(AccessKind::Doorbell),
            nowhere: get(AccessKind::Nowhere),
        }
    }

    pub(super) fn start_trace(&self) {
        lock(&self.trace).clear();
        self.tracing.store(true, Ordering::Relaxed);
    }

    pub(super) fn take_trace(&self) -> Vec<Access> {
        self.tracing.store(false, Ordering::Relaxed);
        std::mem::take(&mut lock(&self.trace))
    }

    fn record(&self, kind: AccessKind, bar: u8, offset: u64, data: &[u8]) {
        self.count(kind);
        if self.tracing.load(Ordering::Relaxed) {
            let value = number(data);
            lock(&self.trace).push(Access { kind, bar, offset, value });
        }
    }

    /// The function, BAR and offset at an address.
    fn find(&self, address: u64, len: usize) -> Option<(Arc<Function>, u8, u64)> {
        let mappings = self.mappings.read().unwrap_or_else(PoisonError::into_inner);
        mappings.iter().find_map(|mapping| {
            let offset = address.checked_sub(mapping.start)?;
            let end = offset.checked_add(len as u64)?;
            (end <= mapping.size).then(|| (mapping.function.clone(), mapping.bar, offset))
        })
    }

    pub(super) fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        let Some((function, bar, offset)) = self.find(address, data.len()) else {
            return self.record(AccessKind::Nowhere, 0, address, data);
        };
        if function.read_shared(bar, offset, data) {
            return self.record(AccessKind::WindowRead, bar, offset, data);
        }
        let mut device = function.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.bar_read(bar, offset, data);
        drop(device);
        self.record(AccessKind::Read, bar, offset, data);
    }

    pub(super) fn write(&self, address: u64, data: &[u8]) {
        let Some((function, bar, offset)) = self.find(address, data.len()) else {
            return self.record(AccessKind::Nowhere, 0, address, data);
        };
        // Recorded first: another thread may react to it at once.
        if let Some(bell) = function.bell(bar, offset, data) {
            self.record(AccessKind::Doorbell, bar, offset, data);
            // It only fails when the counter is full, and then the device is about to look anyway.
            let _ = bell.event.write(1);
            return;
        }
        self.record(AccessKind::Write, bar, offset, data);
        let mut device = function.device.lock().unwrap_or_else(PoisonError::into_inner);
        device.bar_write(bar, offset, data);
    }
}

/// Up to 8 bytes as a little-endian number.
fn number(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl Function {
    fn bell(&self, bar: u8, offset: u64, data: &[u8]) -> Option<&Bell> {
        self.bells.iter().find(|bell| {
            bell.bar == bar
                && bell.offset == offset
                && (bell.len == 0 || usize::from(bell.len) == data.len())
                && bell.value.is_none_or(|value| value == number(data))
        })
    }

    fn read_shared(&self, bar: u8, offset: u64, data: &mut [u8]) -> bool {
        let place = self.pages.iter().find_map(|shared| {
            let start = offset.checked_sub(shared.offset)?;
            let end = usize::try_from(start.checked_add(data.len() as u64)?).ok()?;
            let inside = shared.bar == bar && end <= shared.page.len();
            let aligned = start.is_multiple_of(data.len() as u64) && data.len() <= 4;
            if inside && aligned { Some((shared, end - data.len())) } else { None }
        });
        let Some((shared, start)) = place else { return false };
        let Some(word) = shared.page.words().get(start / 4) else { return false };
        let word = word.load(Ordering::Acquire).to_le_bytes();
        for (byte, value) in data.iter_mut().zip(word.iter().skip(start % 4)) {
            *byte = *value;
        }
        true
    }
}

impl BarObserver for AddressMap {
    fn bar_changed(&self, bdf: Bdf, bar: u8, old: Option<BarState>, new: Option<BarState>) {
        let mut mappings = self.mappings.write().unwrap_or_else(PoisonError::into_inner);
        if old.is_some() {
            mappings.retain(|mapping| (mapping.bdf, mapping.bar) != (bdf, bar));
        }
        let function = lock(&self.functions).get(&bdf).cloned();
        // Ports are not reached from here.
        let new = new.filter(|new| new.kind != BarKind::Io);
        if let (Some(BarState { address, size, .. }), Some(function)) = (new, function) {
            mappings.push(Mapping { start: address, size, bdf, bar, function });
        }
    }
}
