//! A machine of which it is known who has written to its memory: its driver, or its device.
//!
//! Workers are stepped while the driver waits, so whatever changes between the beginning and the end of a
//! call of the platform's is the device's doing, and the rest the driver's.

#![expect(unsafe_code, reason = "the machine's memory is lent to its device with a bitmap")]

use std::collections::BTreeSet;
use std::num::NonZero;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use paraslot_device::Host;
use paraslot_drivers::{Bdf as DriverBdf, DmaRegion, MsiMessage, Platform};
use paraslot_pci::Bdf;
use paraslot_protocol::Phase;
use paraslot_vmm::in_process::{GuestRam, InProcess, Machine, Run};
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MmapRegion,
};

/// Bytes that a bit stands for. Fewer than a page has, so that what is written beside something else is not
/// marked by that.
pub(crate) const GRAIN: usize = 64;
/// Bytes that are compared at once, a multiple.
pub(crate) const PAGE: usize = 4096;
/// Where memory starts: no lower does a machine give any to its driver.
pub(crate) const BASE: u64 = 1 << 20;
pub(crate) const MEMORY: usize = 16 << 20;
/// Calls of the platform's from one round of a live migration to the next.
const ROUND: u64 = 8;

/// Guest memory with a dirty bitmap, as VMMs have it.
pub(crate) type TrackedRam = Arc<GuestMemoryMmap<AtomicBitmap>>;

pub(crate) type Grains = BTreeSet<usize>;

/// Who has changed what.
pub(crate) struct Ledger {
    memory: GuestRam,
    lent: TrackedRam,
    /// What was in memory when it was looked at last, as far as any was given to the driver.
    seen: Vec<u8>,
    /// Marked since the beginning of the call.
    marked: Grains,
    /// Ever marked, and ever changed by the device and by the driver.
    ever_marked: Grains,
    ever_changed: Grains,
    driver: Grains,
    /// What a live migration has of it, and has yet to copy.
    copy: Vec<u8>,
    stale: Grains,
    calls: u64,
}

/// The same memory with a bitmap, all clear.
pub(crate) fn lend(memory: &GuestRam) -> TrackedRam {
    let regions = memory.iter().map(|region| {
        let grain = NonZero::new(GRAIN).expect("some");
        let bitmap = AtomicBitmap::new(region.size(), grain);
        let builder = MmapRegionBuilder::new_with_bitmap(region.size(), bitmap);
        let builder = builder.with_mmap_prot(region.prot()).with_mmap_flags(region.flags());
        // SAFETY: a machine's memory stays mapped for good, and is accessed as guest memory is.
        let again = unsafe { builder.with_raw_mmap_pointer(region.as_ptr()) }.build().unwrap();
        GuestRegionMmap::new(again, region.start_addr()).unwrap()
    });
    Arc::new(GuestMemoryMmap::from_regions(regions.collect()).unwrap())
}

/// What is marked, which is clear then.
pub(crate) fn drain(lent: &TrackedRam) -> Grains {
    let words = lent.iter().flat_map(|region| MmapRegion::bitmap(region).get_and_reset());
    let words = (0..).zip(words).filter(|(_, word)| *word != 0);
    let bits = |(index, word): (usize, u64)| {
        (0..64).filter(move |bit| word >> bit & 1 != 0).map(move |bit| index * 64 + bit)
    };
    words.flat_map(bits).collect()
}

impl Ledger {
    fn new(memory: GuestRam) -> Self {
        Self {
            lent: lend(&memory),
            memory,
            seen: Vec::new(),
            copy: Vec::new(),
            marked: Grains::new(),
            ever_marked: Grains::new(),
            ever_changed: Grains::new(),
            driver: Grains::new(),
            stale: Grains::new(),
            calls: 0,
        }
    }

    /// The driver has been given memory up to `end`. It is all zero.
    fn given(&mut self, end: u64) {
        let len = usize::try_from(end - BASE).unwrap().next_multiple_of(PAGE);
        self.seen.resize(len, 0);
        self.copy.resize(len, 0);
    }

    /// What is in memory.
    fn now(&self) -> Vec<u8> {
        let mut now = vec![0; self.seen.len()];
        self.memory.read_slice(&mut now, GuestAddress(BASE)).unwrap();
        now
    }

    /// Where there is something else than at the last look.
    fn changes(&mut self) -> Grains {
        let now = self.now();
        let mut changed = Grains::new();
        for (page, (new, old)) in now.chunks(PAGE).zip(self.seen.chunks(PAGE)).enumerate() {
            if new == old {
                continue;
            }
            let grains = new.chunks(GRAIN).zip(old.chunks(GRAIN)).enumerate();
            let grains = grains.filter(|(_, (new, old))| new != old);
            changed.extend(grains.map(|(grain, _)| page * (PAGE / GRAIN) + grain));
        }
        self.seen = now;
        changed
    }

    /// Takes note of what is in the bitmap, which is empty then.
    fn take(&mut self) {
        for grain in drain(&self.lent) {
            self.marked.insert(grain);
            self.ever_marked.insert(grain);
            self.stale.insert(grain);
        }
    }

    /// A call begins: what has changed since the last was the driver, which the VMM knows of by other means.
    fn begin(&mut self) {
        let driver = self.changes();
        self.stale.extend(&driver);
        self.driver.extend(driver);
        self.take();
        assert!(
            self.marked.is_empty(),
            "marked while the device had nothing to do: {:?}",
            self.marked
        );
        if self.calls.is_multiple_of(ROUND) {
            self.copy_stale();
        }
        self.calls += 1;
    }

    /// It has ended: what has changed was the device.
    fn end(&mut self) {
        let device = self.changes();
        self.take();
        let unmarked: Vec<_> = device.difference(&self.marked).collect();
        assert!(unmarked.is_empty(), "call {}: not marked: {unmarked:?}", self.calls);
        self.ever_changed.extend(device);
        self.marked.clear();
    }

    /// A round of a live migration.
    fn copy_stale(&mut self) {
        for grain in std::mem::take(&mut self.stale) {
            let place = grain * GRAIN..(grain + 1) * GRAIN;
            let address = GuestAddress(BASE + place.start as u64);
            self.memory.read_slice(&mut self.copy[place], address).unwrap();
        }
    }

    /// The end of a live migration, in the middle of a call and with the device paused: the last round, and
    /// then memory is what was copied. The device at the other end has a bitmap of its own.
    pub(crate) fn migrate(&mut self) {
        self.take();
        self.copy_stale();
        let now = self.now();
        let pairs = now.chunks(GRAIN).zip(self.copy.chunks(GRAIN)).enumerate();
        let lost = pairs.filter(|(_, (now, copy))| now != copy).map(|(grain, _)| grain);
        let lost: Vec<_> = lost.collect();
        assert!(lost.is_empty(), "not copied: {lost:?}");
        self.memory.write_slice(&vec![0xa5; now.len()], GuestAddress(BASE)).unwrap();
        self.memory.write_slice(&self.copy, GuestAddress(BASE)).unwrap();
        self.lent = lend(&self.memory);
    }

    /// The same when the job is over.
    pub(crate) fn close(&mut self) {
        self.begin();
        self.migrate();
    }

    /// Memory for a device.
    pub(crate) fn space(&self) -> TrackedRam {
        self.lent.clone()
    }

    /// What was marked, and what the device has changed, and what the driver has, at some time.
    pub(crate) fn grains(&self) -> [Grains; 3] {
        [self.ever_marked.clone(), self.ever_changed.clone(), self.driver.clone()]
    }
}

/// A machine and its ledger.
pub(crate) struct Watched {
    pub(crate) machine: InProcess,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Watched {
    /// Its workers do so many steps each time that the driver waits; `None` for as many as there are to do.
    pub(crate) fn new(rounds: Option<usize>) -> Self {
        let machine = Machine { memory_base: BASE, ..Machine::new(MEMORY, Run::Stepped(rounds)) };
        let machine = InProcess::new(&machine).unwrap();
        let memory = machine.host(Bdf::root(31)).memory;
        Self { machine, ledger: Arc::new(Mutex::new(Ledger::new(memory))) }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    /// What a device in `slot` is made with; its memory is to be of [`Ledger::space`].
    pub(crate) fn host(&self, slot: Bdf) -> impl Fn(TrackedRam) -> Host<TrackedRam> + Send + use<> {
        let Host { memory: _, msi, intx, executor } = self.machine.host(slot);
        move |memory| Host {
            memory,
            msi: msi.clone(),
            intx: intx.clone(),
            executor: executor.clone(),
        }
    }

    fn during<R>(&self, call: impl FnOnce(&InProcess) -> R) -> R {
        self.ledger().begin();
        let result = call(&self.machine);
        self.ledger().end();
        result
    }
}

impl Platform for Watched {
    fn config_read(&self, function: DriverBdf, offset: u16) -> u32 {
        self.during(|machine| machine.config_read(function, offset))
    }

    fn config_write(&self, function: DriverBdf, offset: u16, value: u32) {
        self.during(|machine| machine.config_write(function, offset, value));
    }

    fn read8(&self, address: u64) -> u8 {
        self.during(|machine| machine.read8(address))
    }

    fn read16(&self, address: u64) -> u16 {
        self.during(|machine| machine.read16(address))
    }

    fn read32(&self, address: u64) -> u32 {
        self.during(|machine| machine.read32(address))
    }

    fn write8(&self, address: u64, value: u8) {
        self.during(|machine| machine.write8(address, value));
    }

    fn write16(&self, address: u64, value: u16) {
        self.during(|machine| machine.write16(address, value));
    }

    fn write32(&self, address: u64, value: u32) {
        self.during(|machine| machine.write32(address, value));
    }

    fn bar_space(&self) -> Range<u64> {
        self.machine.bar_space()
    }

    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        let region = self.machine.allocate(len)?;
        self.ledger().given(region.physical(len));
        Some(region)
    }

    fn tsc(&self) -> u64 {
        self.machine.tsc()
    }

    fn tsc_hz(&self) -> u64 {
        self.machine.tsc_hz()
    }

    fn relax(&self) {
        self.during(Platform::relax);
    }

    fn interrupt_message(&self, index: u8) -> MsiMessage {
        self.machine.interrupt_message(index)
    }

    fn connect_pin(&self, function: DriverBdf, index: u8) -> bool {
        self.machine.connect_pin(function, index)
    }

    fn end_of_interrupt(&self, index: u8) {
        self.machine.end_of_interrupt(index);
    }

    fn interrupts_taken(&self, index: u8) -> u64 {
        self.machine.interrupts_taken(index)
    }

    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        self.during(|machine| machine.wait_for_interrupt(index, seen));
    }

    fn phase(&self, phase: Phase) {
        self.machine.phase(phase);
    }
}
