//! The PCI function.

mod state;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use paraslot_device::register::lanes;
use paraslot_device::{Dma, DmaSpace, Host, Runner, SavedState, StateError};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Doorbell, Identity,
    Layout, MsixLayout, PciDevice, ReadWindow,
};
use paraslot_scsi::{Bus, Function, Ticket};
use paraslot_spec::pci::VENDOR_VMWARE;
use paraslot_spec::pvscsi::{
    CLASS_CODE, DEVICE_PVSCSI, MEMORY_BAR, MEMORY_BAR_SIZE, MSIX_PBA, MSIX_TABLE, MSIX_VECTORS,
    REVISION, register,
};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::command::CommandRegisters;
use crate::engine::{DEPTH, Engine, Extent};
use crate::interrupt::STATUS_PAGE;
use crate::options::Options;
use crate::shared::{Control, Shared, lock};
use crate::worker::EngineWorker;

/// How long a pause waits for requests in flight.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a vCPU that waits for requests to end leaves them to their backends at a time.
const TICK: Duration = Duration::from_millis(1);

/// A paravirtual SCSI adapter as a PCI function. See the [crate's page](crate).
pub struct Pvscsi<A: DmaSpace> {
    config: ConfigSpace,
    layout: Layout,
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Arc<Mutex<Engine<A>>>,
    pub(crate) bus: Bus,
    pub(crate) commands: CommandRegisters,
    patience: Duration,
    runner: Runner,
}

impl<A: DmaSpace> Pvscsi<A> {
    /// Builds the function for the units on `bus`, and starts its worker.
    ///
    /// # Errors
    /// When the host lacks the resources, or the worker cannot be started.
    pub fn new(bus: Bus, options: Options, host: Host<A>) -> Result<Self, DeviceError> {
        let Options { subsystem_vendor, subsystem, express, patience } = options;
        let Host { memory, msi, intx, executor } = host;
        let identity = Identity {
            vendor: VENDOR_VMWARE,
            device: DEVICE_PVSCSI,
            revision: REVISION,
            class: CLASS_CODE,
            subsystem_vendor,
            subsystem,
        };
        let bar = BarSpec { kind: BarKind::Memory32, size: MEMORY_BAR_SIZE, prefetchable: false };
        let msix = MsixLayout {
            vectors: MSIX_VECTORS,
            table: (MEMORY_BAR, MSIX_TABLE),
            pba: (MEMORY_BAR, MSIX_PBA),
        };
        let mut builder = ConfigSpaceBuilder::new(identity).bar(MEMORY_BAR, bar).intx();
        if express {
            builder = builder.express();
        }
        let config = builder.power_management().msi().msix(msix).build(msi, intx);

        let shared = Shared::new(config.interrupts().clone()).map_err(DeviceError::Worker)?;
        let shared = Arc::new(shared);
        let kick = EventFd::new(EFD_NONBLOCK).map_err(DeviceError::Worker)?;
        let page = shared.irq.page().clone();
        let layout = Layout {
            doorbells: [register::KICK_NON_RW_IO, register::KICK_RW_IO]
                .into_iter()
                .map(|offset| doorbell(offset, &kick))
                .collect::<Result<_, _>>()?,
            windows: vec![ReadWindow { bar: MEMORY_BAR, offset: STATUS_PAGE.into(), page }],
            ..config.layout()
        };
        let dma = Dma::new(memory, config.bus_master());
        let lane = bus.open_lane(DEPTH).map_err(DeviceError::Backend)?;
        let engine = Engine::new(shared.clone(), dma, bus.clone(), lane);
        let engine = Arc::new(Mutex::new(engine));
        let worker = Box::new(EngineWorker::new(shared.clone(), engine.clone(), kick));
        let runner = Runner::new("pvscsi", executor, worker)?;
        bus.listen(Some(shared.clone()));
        let commands = CommandRegisters::new();
        Ok(Self { config, layout, shared, engine, bus, commands, patience, runner })
    }

    /// What the owner keeps when a host takes the function over.
    pub fn control(&self) -> Control {
        Control(self.bus.clone())
    }

    /// Has the target carry out `functions`, and waits until it has, a bounded time. Says whether it
    /// has. Then the driver has been told of every request that they ended.
    ///
    /// All that the driver has put into the ring is taken first, kicked or not.
    pub(crate) fn manage(
        &self,
        functions: impl IntoIterator<Item = Function>,
        extent: Extent,
    ) -> bool {
        let tickets: Vec<Ticket> =
            functions.into_iter().map(|function| self.bus.manage(function, None)).collect();
        let start = Instant::now();
        loop {
            // The worker may be asleep, or stopped; whoever gets there first does the round.
            let mut engine = lock(&self.engine);
            let _ = engine.round(extent);
            let able = engine.memory().is_some() || extent == Extent::Nothing;
            let told = engine.has_told();
            drop(engine);
            let waiting = tickets.iter().find(|ticket| ticket.response().is_none());
            let left = self.patience.saturating_sub(start.elapsed());
            let Some(ticket) = waiting.filter(|_| able && !left.is_zero()) else {
                // There may be more to do for what these rounds have begun.
                self.shared.bell.ring();
                return told && waiting.is_none();
            };
            ticket.wait(TICK.min(left));
        }
    }

    /// Ends what is in flight, for which nobody waits any more.
    fn drain(&self) {
        let all = self.bus.addresses();
        self.manage(all.into_iter().map(Function::AbortTaskSet), Extent::Nothing);
    }

    fn read(&self, offset: u32) -> u32 {
        match offset {
            register::COMMAND_STATUS => self.commands.status(),
            register::INTR_STATUS => self.shared.irq.status(),
            register::INTR_MASK => self.shared.irq.mask(),
            _ => 0,
        }
    }

    fn write(&mut self, offset: u32, value: u32, mask: u32) {
        match offset {
            register::COMMAND => {
                if let Some(order) = self.commands.begin(value) {
                    self.carry_out(order);
                }
            }
            register::COMMAND_DATA => {
                if let Some(order) = self.commands.data(value) {
                    self.carry_out(order);
                }
            }
            register::INTR_STATUS => {
                self.shared.irq.clear(value, mask);
                if self.shared.crowded.load(Ordering::SeqCst) {
                    self.shared.bell.ring();
                }
            }
            register::INTR_MASK => self.shared.irq.set_mask(value, mask),
            register::KICK_NON_RW_IO | register::KICK_RW_IO => self.shared.bell.ring(),
            _ => {}
        }
    }
}

/// A kick, whatever is written. Its eventfd is that of all kicks.
fn doorbell(offset: u32, kick: &EventFd) -> Result<Doorbell, DeviceError> {
    let event = kick.try_clone().map_err(DeviceError::Worker)?;
    Ok(Doorbell { bar: MEMORY_BAR, offset: offset.into(), len: 0, value: None, event })
}

/// A function that goes takes its access to memory and its interrupts with it, and has what is in flight
/// cancelled. With what is late its worker stays with its executor, and tells nobody.
impl<A: DmaSpace> Drop for Pvscsi<A> {
    fn drop(&mut self) {
        self.bus.listen(None);
        let in_flight = {
            let mut engine = lock(&self.engine);
            // Before there are no messages any more, or the pin would tell of what they have told of.
            self.shared.irq.forget(true);
            self.config.reset();
            engine.forget();
            engine.in_flight()
        };
        if in_flight != 0 {
            self.drain();
        }
    }
}

impl<A: DmaSpace> PciDevice for Pvscsi<A> {
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
        if written.bus_master_off {
            // Waits for the round of work that still had access to memory.
            drop(lock(&self.engine));
        }
        if written.bus_master_on {
            self.shared.bell.ring();
        }
        if written.function_reset {
            self.reset();
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if bar != MEMORY_BAR || self.config.msix_read(bar, offset, data) {
            return;
        }
        for lane in lanes(offset, data.len()) {
            if u64::from(lane.register) < MEMORY_BAR_SIZE {
                lane.store(self.read(lane.register), data);
            }
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar != MEMORY_BAR || self.config.msix_write(bar, offset, data) {
            return;
        }
        for lane in lanes(offset, data.len()) {
            self.write(lane.register, lane.value(data), lane.mask());
        }
    }

    fn reset(&mut self) {
        let in_flight = {
            let mut engine = lock(&self.engine);
            // Before there are no messages any more, or the pin would tell of what they have told of.
            self.shared.irq.forget(true);
            self.config.reset();
            engine.power_on();
            engine.in_flight()
        };
        self.commands.reset();
        if in_flight != 0 {
            self.drain();
        }
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        Runner::pause_all([&mut self.runner].into_iter(), PAUSE_LIMIT)?;
        lock(&self.engine).pause(true);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        lock(&self.engine).pause(false);
        self.runner.start()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.save_state()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_state(state)
    }
}
