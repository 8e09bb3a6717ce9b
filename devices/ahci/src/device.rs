//! The PCI function.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use paraslot_device::register::lanes;
use paraslot_device::{Dma, DmaSpace, Executor, Host, Worker, WorkerHandle};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Identity, Layout,
    PciDevice, ReadWindow,
};
use paraslot_spec::ahci::{ABAR, CLASS_CODE};
use paraslot_spec::pci::VENDOR_INTEL;

use crate::disk::Disk;
use crate::hba::Hba;
use crate::options::Options;
use crate::worker::{PortWorker, QUEUE_DEPTH};

/// ICH9's six-port SATA controller in AHCI mode, of the revision that its drivers know best.
const DEVICE_ICH9_AHCI: u16 = 0x2922;
const REVISION: u8 = 2;
/// How long a pause waits for commands in flight.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a reset waits for them; what is late is kept silent.
const RESET_LIMIT: Duration = Duration::from_secs(2);

/// An AHCI host bus adapter with disks at its ports, as a PCI function. See the [crate's page](crate).
pub struct Ahci<A: DmaSpace> {
    config: ConfigSpace,
    layout: Layout,
    hba: Arc<Hba>,
    runners: Vec<Runner>,
    executor: Arc<dyn Executor>,
    paused: bool,
    memory: std::marker::PhantomData<A>,
}

/// One port's worker and where it is.
struct Runner {
    port: usize,
    state: RunnerState,
}

enum RunnerState {
    Running(Box<dyn WorkerHandle>),
    Parked(Box<dyn Worker>),
    /// The executor refused it.
    Lost,
}

impl Runner {
    fn start(&mut self, executor: &dyn Executor) -> Result<(), DeviceError> {
        match std::mem::replace(&mut self.state, RunnerState::Lost) {
            RunnerState::Parked(worker) => {
                let name = format!("ahci-{}", self.port);
                let handle = executor.spawn(&name, worker).map_err(DeviceError::Worker)?;
                self.state = RunnerState::Running(handle);
                Ok(())
            }
            state @ RunnerState::Running(_) => {
                self.state = state;
                Ok(())
            }
            RunnerState::Lost => Err(DeviceError::Worker(std::io::Error::other("worker lost"))),
        }
    }

    fn stop(&mut self) {
        if let RunnerState::Running(handle) = &mut self.state {
            handle.stop();
        }
    }

    /// Waits until the worker has nothing in flight; says whether that came about.
    fn park(&mut self, limit: Duration) -> bool {
        if let RunnerState::Running(handle) = &mut self.state {
            let Some(worker) = handle.wait(limit) else { return false };
            self.state = RunnerState::Parked(worker);
        }
        true
    }

    /// Has the worker go on, whether it had stopped or not.
    fn proceed(&mut self, executor: &dyn Executor) -> Result<(), DeviceError> {
        if let RunnerState::Running(handle) = &mut self.state
            && let Some(worker) = handle.proceed()
        {
            self.state = RunnerState::Parked(worker);
        }
        self.start(executor)
    }
}

impl<A: DmaSpace> Ahci<A> {
    /// Builds the function and starts a worker for each port with a disk.
    ///
    /// # Errors
    /// When `options` ask for what cannot be served, a backend cannot be opened, or a worker cannot
    /// be started.
    pub fn new(options: Options, host: Host<A>) -> Result<Self, DeviceError> {
        options.check()?;
        let Options { ports, subsystem_vendor, subsystem } = options;
        let Host { memory, msi, intx, executor } = host;
        let attached: Vec<bool> = ports.iter().map(Option::is_some).collect();
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
        let hba = Arc::new(Hba::new(&attached, config.interrupts().clone())?);
        let window = ReadWindow { bar: ABAR, offset: 0, page: hba.page().clone() };
        let layout = Layout { windows: vec![window], ..config.layout() };

        let dma = Dma::new(memory, config.bus_master());
        let mut runners = Vec::new();
        for (index, (port, disk)) in hba.ports.iter().zip(ports).enumerate() {
            let Some(disk) = disk else { continue };
            let queue = disk.backend.open_queue(QUEUE_DEPTH).map_err(DeviceError::Backend)?;
            let disk = Disk::new(disk);
            let worker = PortWorker::new(port.clone(), hba.irq.clone(), dma.clone(), disk, queue);
            let mut runner = Runner { port: index, state: RunnerState::Parked(Box::new(worker)) };
            runner.start(&*executor)?;
            runners.push(runner);
        }
        let memory = std::marker::PhantomData;
        Ok(Self { config, layout, hba, runners, executor, paused: false, memory })
    }

    /// Waits until no command is in flight, for a bounded time. Those that the reset has overtaken
    /// are silent whether or not they have come back by then.
    fn drain(&mut self) {
        let busy = |runner: &Runner| {
            self.hba.ports.get(runner.port).is_some_and(|port| port.lock().taken != 0)
        };
        let mut waiting: Vec<_> = self.runners.iter_mut().filter(|runner| busy(runner)).collect();
        for runner in &mut waiting {
            runner.stop();
        }
        let deadline = Instant::now() + RESET_LIMIT;
        for runner in waiting {
            runner.park(deadline.saturating_duration_since(Instant::now()));
            if !self.paused {
                // It can fail only for want of host resources; the port is silent then.
                let _ = runner.proceed(&*self.executor);
            }
        }
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

/// A function that goes takes its access to memory and its interrupts with it. Its workers stay with
/// their executor until nothing of theirs is in flight, and tell nobody.
impl<A: DmaSpace> Drop for Ahci<A> {
    fn drop(&mut self) {
        self.config.reset();
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
        self.drain();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        for runner in &mut self.runners {
            runner.stop();
        }
        let deadline = Instant::now() + PAUSE_LIMIT;
        for runner in &mut self.runners {
            if !runner.park(deadline.saturating_duration_since(Instant::now())) {
                for runner in &mut self.runners {
                    runner.proceed(&*self.executor)?;
                }
                return Err(DeviceError::Busy(PAUSE_LIMIT));
            }
        }
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.paused = false;
        for runner in &mut self.runners {
            runner.start(&*self.executor)?;
        }
        Ok(())
    }
}
