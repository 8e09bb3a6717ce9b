//! A machine without a processor: the drivers run in this process, against the device models.
//!
//! [`InProcess`] stands in for KVM where there is none, and in tests. Register accesses become calls,
//! interrupts counters, guest memory ordinary memory. The ways that save exits under KVM are
//! mirrored, so that they are tested without it: doorbells can be eventfds instead of calls, reads
//! can come from the pages that a device shares, interrupts can be eventfds.
//!
//! With [`Run::Stepped`] the devices' workers run only while the driver waits, and time is counted
//! rather than measured: a run is the same each time, down to the number of every access.

#![expect(unsafe_code, reason = "drivers are given regions of guest memory by address")]

mod interrupts;
mod map;
mod memory;

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use paraslot_device::{
    Clock, Executor, Host, ManualClock, ManualExecutor, Progress, SystemClock, ThreadExecutor,
    ThreadOptions,
};
use paraslot_drivers::{Bdf as DriverBdf, DmaRegion, MsiMessage, Platform};
use paraslot_pci::{Bdf, PciDevice, PlugError, RootBus, SharedDevice};
use paraslot_protocol::Phase;
use paraslot_spec::pci::mechanism1;
use vm_device::bus::{MmioAddress, PioAddress};
use vm_device::{DeviceMmio, DevicePio};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use interrupts::{Controller, FunctionInterrupts};
use map::AddressMap;

pub use map::{Access, AccessKind, Counts};

/// Guest memory, as devices get it.
pub type GuestRam = Arc<GuestMemoryMmap>;

/// Where BARs may be placed.
const BAR_SPACE: Range<u64> = 0xc000_0000..0xfec0_0000;
/// First address that is given to drivers; what is below stays unused, so that address 0 is none.
const FIRST: u64 = 0x10_0000;
const PAGE: u64 = 4096;
/// Time that each look at the stepped clock takes.
const LOOK: Duration = Duration::from_nanos(100);
/// Time that passes when a driver waits and no worker gets any further, unless a timer is set to an
/// earlier one.
const IDLE: Duration = Duration::from_millis(10);
/// Time after which a wait for an interrupt is given up.
const INTERRUPT_WAIT: Duration = Duration::from_secs(1);
/// Rounds in which the workers are stepped until they are idle, at most: one that waits for its
/// backend to stop never is.
const ROUNDS: usize = 200;

/// Who runs the devices' workers.
#[derive(Clone, Debug)]
pub enum Run {
    /// The driver's own thread while it waits: in each [`Platform::relax`] this many rounds of one
    /// step for each worker, `None` until they have nothing left to do.
    Stepped(Option<usize>),
    /// Threads.
    Threads(ThreadOptions),
}

/// How configuration space is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigAccess {
    /// By ECAM.
    Ecam,
    /// By ports 0xcf8 and 0xcfc.
    Mechanism1,
}

/// A machine to be built.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bytes of memory, a multiple of 4096.
    pub memory: usize,
    /// Where it starts, a multiple of 4096. From 4 GiB on, devices must know 64-bit addresses.
    pub memory_base: u64,
    /// Who runs the workers.
    pub run: Run,
    /// How configuration space is accessed.
    pub config: ConfigAccess,
    /// Write the devices' doorbells as eventfds, as KVM does with an ioeventfd, instead of calling
    /// them.
    pub doorbell_events: bool,
    /// Read what a device offers to have mapped from the pages that it shares, instead of calling it.
    pub read_windows: bool,
    /// Give devices eventfds for their interrupts, as KVM does with an irqfd.
    pub interrupt_events: bool,
    /// Have memory in a file, so that a device in another process can map it.
    pub shared_memory: bool,
}

impl Machine {
    /// A machine with `memory` bytes at 0, on which every access calls the device.
    pub const fn new(memory: usize, run: Run) -> Self {
        Self {
            memory,
            memory_base: 0,
            run,
            config: ConfigAccess::Ecam,
            doorbell_events: false,
            read_windows: false,
            interrupt_events: false,
            shared_memory: false,
        }
    }
}

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its memory does not leave room for BARs, or could not be had.
    #[error("guest memory: {0}")]
    Memory(String),
    /// The device threads could not be started.
    #[error("device threads: {0}")]
    Threads(#[source] std::io::Error),
}

enum Workers {
    Stepped(ManualExecutor, Option<usize>),
    Threads(Arc<ThreadExecutor>),
}

enum Time {
    Counted(ManualClock),
    Measured(SystemClock),
}

/// A machine without a processor; see the [module](self).
pub struct InProcess {
    memory: GuestRam,
    memory_end: u64,
    /// The next byte of memory that was not given away.
    free: AtomicU64,
    bus: RootBus,
    map: Arc<AddressMap>,
    controller: Arc<Controller>,
    workers: Workers,
    time: Time,
    config: ConfigAccess,
    phases: Mutex<Vec<Phase>>,
}

impl InProcess {
    /// A machine with a host bridge and nothing else.
    ///
    /// Its memory stays mapped for good, since drivers may keep regions of it after the machine is
    /// gone; the pages go back to the host with the machine.
    ///
    /// # Errors
    /// When the host lacks the memory or threads, or the memory would lie where BARs do.
    pub fn new(machine: &Machine) -> Result<Self, BuildError> {
        let end = machine.memory_base.checked_add(machine.memory as u64);
        let end = end.ok_or_else(|| BuildError::Memory("too high".into()))?;
        if machine.memory_base < BAR_SPACE.end && end > BAR_SPACE.start {
            return Err(BuildError::Memory("no room for BARs".into()));
        }
        let memory = memory::map(machine.memory_base, machine.memory, machine.shared_memory)?;
        let (workers, time) = match &machine.run {
            Run::Stepped(rounds) => (
                Workers::Stepped(ManualExecutor::new(), *rounds),
                Time::Counted(ManualClock::new()),
            ),
            Run::Threads(options) => {
                let executor =
                    ThreadExecutor::new("device", options).map_err(BuildError::Threads)?;
                (Workers::Threads(Arc::new(executor)), Time::Measured(SystemClock::new()))
            }
        };
        let map = Arc::new(AddressMap::new(machine.doorbell_events, machine.read_windows));
        Ok(Self {
            memory,
            memory_end: end,
            free: AtomicU64::new(machine.memory_base.max(FIRST)),
            bus: RootBus::new(map.clone()),
            map,
            controller: Arc::new(Controller::new(machine.interrupt_events)),
            workers,
            time,
            config: machine.config,
            phases: Mutex::default(),
        })
    }

    /// What the device that is to be plugged in at `bdf` is made with.
    pub fn host(&self, bdf: Bdf) -> Host<GuestRam> {
        let interrupts = Arc::new(FunctionInterrupts::new(bdf, self.controller.clone()));
        Host {
            memory: self.memory.clone(),
            msi: interrupts.clone(),
            intx: interrupts,
            executor: self.executor(),
        }
    }

    /// Who runs the devices' workers.
    pub fn executor(&self) -> Arc<dyn Executor> {
        match &self.workers {
            Workers::Stepped(executor, _) => Arc::new(executor.clone()),
            Workers::Threads(executor) => executor.clone(),
        }
    }

    /// The time that the driver sees, for devices that go by one.
    pub fn clock(&self) -> Arc<dyn Clock> {
        match &self.time {
            Time::Counted(clock) => Arc::new(clock.clone()),
            Time::Measured(clock) => Arc::new(*clock),
        }
    }

    /// Plugs a device in, with its BARs where they are after a reset: nowhere.
    ///
    /// # Errors
    /// When the address is taken or does not exist.
    pub fn plug<D: PciDevice + 'static>(&self, bdf: Bdf, device: D) -> Result<(), PlugError> {
        self.plug_shared(bdf, Arc::new(Mutex::new(device)))
    }

    /// The same with a function that its owner has another hand on.
    ///
    /// # Errors
    /// As [`plug`](Self::plug).
    pub fn plug_shared(&self, bdf: Bdf, device: SharedDevice) -> Result<(), PlugError> {
        self.map.add(bdf, device.clone());
        self.bus.plug(bdf, device)
    }

    /// Takes a function out, with no word to its driver, and returns it.
    pub fn unplug(&self, bdf: Bdf) -> Option<SharedDevice> {
        let function = self.bus.unplug(bdf);
        self.map.remove(bdf);
        function
    }

    /// The function at `bdf`.
    pub fn function(&self, bdf: Bdf) -> Option<SharedDevice> {
        self.bus.function(bdf)
    }

    /// Resets all functions.
    pub fn reset(&self) {
        self.bus.reset();
    }

    /// Steps the workers until they have nothing left to do; on threads they run anyway.
    pub fn settle(&self) {
        if let Workers::Stepped(executor, _) = &self.workers {
            executor.run(ROUNDS);
        }
    }

    /// Accesses made so far.
    pub fn counts(&self) -> Counts {
        self.map.counts()
    }

    /// Starts to record register accesses, anew.
    pub fn start_trace(&self) {
        self.map.start_trace();
    }

    /// The register accesses since [`start_trace`](Self::start_trace), in order; stops recording.
    pub fn take_trace(&self) -> Vec<Access> {
        self.map.take_trace()
    }

    /// Messages that the devices sent to where no interrupt is, and changes of INTx pins that no
    /// driver has connected. Drivers that use message-signalled interrupts cause neither.
    pub fn stray_interrupts(&self) -> u64 {
        self.controller.strays()
    }

    /// Messages that vector `vector` of the function at `bdf` has sent.
    pub fn messages_sent(&self, bdf: Bdf, vector: u16) -> u64 {
        self.controller.sent(bdf, vector)
    }

    /// What drivers said comes next, in order.
    pub fn phases(&self) -> Vec<Phase> {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn config(&self, function: DriverBdf, offset: u16) -> u64 {
        let DriverBdf { bus, device, function } = function;
        let devfn = u64::from(device & 31) << 3 | u64::from(function & 7);
        u64::from(bus) << 20 | devfn << 12 | u64::from(offset & 0xffc)
    }

    /// Selects a register by mechanism 1; it reaches the first 256 bytes alone.
    fn select(&self, function: DriverBdf, offset: u16) -> bool {
        let DriverBdf { bus, device, function } = function;
        let devfn = u32::from(device & 31) << 11 | u32::from(function & 7) << 8;
        let register = u32::from(offset & 0xfc);
        let address = mechanism1::ENABLE | u32::from(bus) << 16 | devfn | register;
        self.bus.pio_write(PioAddress(mechanism1::ADDRESS), 0, &address.to_le_bytes());
        offset < 256
    }

    /// Steps the workers as the driver waits; says whether any had something to do.
    fn step(&self) -> Progress {
        let Workers::Stepped(executor, rounds) = &self.workers else {
            std::thread::yield_now();
            return Progress::Idle;
        };
        let rounds = rounds.unwrap_or(ROUNDS);
        let busy = (0..rounds).take_while(|_| executor.step_all() == Progress::More).count();
        if busy > 0 && busy < ROUNDS {
            return Progress::More;
        }
        // Time passes for a driver that waits in vain, until something happens by itself.
        let next = self.until_timer();
        self.pass(next.unwrap_or(IDLE));
        if busy == 0 && next.is_none() { Progress::Idle } else { Progress::More }
    }

    /// How long until a device's timer rings, if that is soon. One that has rung to no effect is not
    /// waited for.
    fn until_timer(&self) -> Option<Duration> {
        let Time::Counted(clock) = &self.time else { return None };
        clock.next().filter(|next| !next.is_zero() && *next <= INTERRUPT_WAIT)
    }

    fn pass(&self, time: Duration) {
        if let Time::Counted(clock) = &self.time {
            clock.advance(time);
        }
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        for region in self.memory.iter() {
            let shared = region.file_offset().is_some();
            let advice = if shared { libc::MADV_REMOVE } else { libc::MADV_DONTNEED };
            // SAFETY: the range is one mapping of this process, which stays; its pages are zeroed,
            // which to who still has a region is a write by a device.
            unsafe {
                libc::madvise(region.as_ptr().cast(), region.size(), advice);
            }
        }
    }
}

/// Offset of CONFIG_DATA among the ports of mechanism 1.
const CONFIG_DATA: u16 = mechanism1::DATA - mechanism1::ADDRESS;

impl Platform for InProcess {
    fn config_read(&self, function: DriverBdf, offset: u16) -> u32 {
        self.map.count(AccessKind::ConfigRead);
        let mut data = [0xff; 4];
        match self.config {
            ConfigAccess::Ecam => {
                self.bus.mmio_read(MmioAddress(0), self.config(function, offset), &mut data);
            }
            ConfigAccess::Mechanism1 => {
                if self.select(function, offset) {
                    self.bus.pio_read(PioAddress(mechanism1::ADDRESS), CONFIG_DATA, &mut data);
                }
            }
        }
        u32::from_le_bytes(data)
    }

    fn config_write(&self, function: DriverBdf, offset: u16, value: u32) {
        self.map.count(AccessKind::ConfigWrite);
        let data = value.to_le_bytes();
        match self.config {
            ConfigAccess::Ecam => {
                self.bus.mmio_write(MmioAddress(0), self.config(function, offset), &data);
            }
            ConfigAccess::Mechanism1 => {
                if self.select(function, offset) {
                    self.bus.pio_write(PioAddress(mechanism1::ADDRESS), CONFIG_DATA, &data);
                }
            }
        }
    }

    fn read8(&self, address: u64) -> u8 {
        let mut data = [0; 1];
        self.map.read(address, &mut data);
        u8::from_le_bytes(data)
    }

    fn read16(&self, address: u64) -> u16 {
        let mut data = [0; 2];
        self.map.read(address, &mut data);
        u16::from_le_bytes(data)
    }

    fn read32(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.map.read(address, &mut data);
        u32::from_le_bytes(data)
    }

    fn write8(&self, address: u64, value: u8) {
        self.map.write(address, &value.to_le_bytes());
    }

    fn write16(&self, address: u64, value: u16) {
        self.map.write(address, &value.to_le_bytes());
    }

    fn write32(&self, address: u64, value: u32) {
        self.map.write(address, &value.to_le_bytes());
    }

    fn bar_space(&self) -> Range<u64> {
        BAR_SPACE
    }

    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        let size = (len as u64).checked_next_multiple_of(PAGE)?;
        let take = |free: u64| free.checked_add(size).filter(|end| *end <= self.memory_end);
        let start = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        let host = self.memory.get_host_address(GuestAddress(start)).ok()?;
        let host = NonNull::new(host)?;
        // SAFETY: memory is one mapping, page-aligned at a page-aligned guest address, of which
        // `start` to `start + size` are inside and were never given to anybody else. It is never
        // unmapped. Besides the region, only devices access it.
        Some(unsafe { DmaRegion::new(host, start, len) })
    }

    fn tsc(&self) -> u64 {
        let now = match &self.time {
            Time::Counted(clock) => {
                let now = clock.now();
                clock.advance(LOOK);
                now
            }
            Time::Measured(clock) => clock.now(),
        };
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn tsc_hz(&self) -> u64 {
        1_000_000_000
    }

    fn relax(&self) {
        let _ = self.step();
    }

    fn interrupt_message(&self, index: u8) -> MsiMessage {
        interrupts::message(index)
    }

    fn connect_pin(&self, function: DriverBdf, index: u8) -> bool {
        let DriverBdf { bus, device, function } = function;
        self.controller.connect_pin(Bdf { bus, device, function }, index)
    }

    fn end_of_interrupt(&self, index: u8) {
        self.controller.end(index);
    }

    fn interrupts_taken(&self, index: u8) -> u64 {
        self.controller.taken(index)
    }

    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        if let Workers::Threads(_) = &self.workers {
            return self.controller.wait(index, seen);
        }
        // Stepped: as many steps as the workers need, or until none has anything to do.
        for _ in 0..ROUNDS {
            if self.controller.taken(index) > seen {
                return;
            }
            if self.step() == Progress::Idle {
                break;
            }
        }
        if self.controller.taken(index) <= seen {
            self.pass(INTERRUPT_WAIT);
        }
    }

    fn phase(&self, phase: Phase) {
        self.phases.lock().unwrap_or_else(PoisonError::into_inner).push(phase);
    }
}
