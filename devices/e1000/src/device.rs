//! The PCI function.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_backends::net::{NetBackend, Offloads};
use paraslot_device::register::lanes;
use paraslot_device::{Dma, DmaSpace, Host, Runner, SavedState, StateError};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Identity, Layout,
    PciDevice,
};
use paraslot_spec::e1000::{
    CLASS_CODE, DEVICE_82540EM, IO_BAR, IO_BAR_SIZE, IOADDR, IOADDR_END, IODATA, MEMORY_BAR,
    MEMORY_BAR_SIZE, REVISION_82540EM,
};
use paraslot_spec::pci::VENDOR_INTEL;

use crate::eeprom::Eeprom;
use crate::engine::{Engine, EngineWorker};
use crate::options::Options;
use crate::shared::{Control, Shared, lock};

/// How long a pause waits for the worker's round to end.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);

/// A gigabit Ethernet adapter as a PCI function. See the [crate's page](crate).
pub struct E1000<A: DmaSpace> {
    pub(crate) config: ConfigSpace,
    pub(crate) layout: Layout,
    pub(crate) shared: Arc<Shared>,
    pub(crate) engine: Arc<Mutex<Engine<A>>>,
    pub(crate) eeprom: Eeprom,
    /// IOADDR.
    pub(crate) selected: u32,
    pub(crate) runner: Runner,
    /// When it was last paused, or restored.
    pub(crate) paused: Duration,
}

impl<A: DmaSpace> E1000<A> {
    /// Builds the function and starts its worker.
    ///
    /// # Errors
    /// When `options` ask for what cannot be served, the backend cannot be opened, or the worker
    /// cannot be started.
    pub fn new(
        backend: Arc<dyn NetBackend>,
        options: Options,
        host: Host<A>,
    ) -> Result<Self, DeviceError> {
        options.check()?;
        let mut eeprom = Eeprom::new(&options);
        let Options { mac: _, subsystem_vendor, subsystem, link, clock } = options;
        let Host { memory, msi, intx, executor } = host;
        let identity = Identity {
            vendor: VENDOR_INTEL,
            device: DEVICE_82540EM,
            revision: REVISION_82540EM,
            class: CLASS_CODE,
            subsystem_vendor,
            subsystem,
        };
        let memory_bar =
            BarSpec { kind: BarKind::Memory32, size: MEMORY_BAR_SIZE, prefetchable: false };
        let io_bar = BarSpec { kind: BarKind::Io, size: IO_BAR_SIZE, prefetchable: false };
        let config = ConfigSpaceBuilder::new(identity)
            .bar(MEMORY_BAR, memory_bar)
            .bar(IO_BAR, io_bar)
            .intx()
            .power_management()
            .build(msi, intx);
        let layout = config.layout();

        // The hardware knows of frames that are complete, and no others.
        backend.set_receive_offloads(Offloads::empty()).map_err(DeviceError::Backend)?;
        backend.set_queues(1).map_err(DeviceError::Backend)?;
        let sender = backend.open_sender(0).map_err(DeviceError::Backend)?;
        let receiver = backend.open_receiver(0).map_err(DeviceError::Backend)?;
        let timer = clock.timer().map_err(DeviceError::Worker)?;
        let shared = Shared::new(config.interrupts().clone(), clock.clone(), link);
        let shared = Arc::new(shared.map_err(DeviceError::Worker)?);
        let dma = Dma::new(memory, config.bus_master());
        let engine = Engine::new(shared.clone(), dma, clock, timer, sender, receiver);
        let engine = Arc::new(Mutex::new(engine));
        initialise(&engine, &shared, &mut eeprom, true);
        let worker = Box::new(EngineWorker::new(shared.clone(), engine.clone()));
        let runner = Runner::new("e1000", executor, worker)?;
        let (selected, paused) = (0, Duration::ZERO);
        Ok(Self { config, layout, shared, engine, eeprom, selected, runner, paused })
    }

    /// The owner's hand on it.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    /// Whether its worker is stopped.
    pub(crate) fn is_paused(&mut self) -> bool {
        self.runner.parked::<EngineWorker<A>>().is_some()
    }

    /// What a reset does, by CTRL.RST or (`power_on`) by power. It waits for the round of work that is
    /// going on, a bounded time: then nothing of what was before is under way any more.
    pub(crate) fn initialise(&mut self, power_on: bool) {
        initialise(&self.engine, &self.shared, &mut self.eeprom, power_on);
    }
}

fn initialise<A: DmaSpace>(
    engine: &Mutex<Engine<A>>,
    shared: &Shared,
    eeprom: &mut Eeprom,
    power_on: bool,
) {
    let mut engine = lock(engine);
    engine.reset();
    shared.irq.reset();
    shared.bank.reset(power_on);
    shared.statistics.reset();
    eeprom.release();
    shared.load_address(eeprom.address());
    shared.phy(|phy| {
        phy.hold(false);
        if power_on {
            phy.reset();
        }
    });
    drop(engine);
    shared.bell.ring();
}

/// A function that goes takes its access to memory and its interrupts with it.
impl<A: DmaSpace> Drop for E1000<A> {
    fn drop(&mut self) {
        let engine = self.engine.clone();
        let mut engine = lock(&engine);
        self.config.reset();
        self.shared.irq.reset();
        engine.reset();
    }
}

impl<A: DmaSpace> PciDevice for E1000<A> {
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
        for lane in lanes(offset, data.len()) {
            let at = u64::from(lane.register);
            let value = match bar {
                MEMORY_BAR if at < MEMORY_BAR_SIZE => self.read(lane.register),
                IO_BAR if at == IOADDR => self.selected,
                IO_BAR if at == IODATA && self.selected < IOADDR_END => {
                    self.read(self.selected & !3)
                }
                IO_BAR if at < IO_BAR_SIZE => 0,
                _ => continue,
            };
            lane.store(value, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        for lane in lanes(offset, data.len()) {
            let (value, mask) = (lane.value(data), lane.mask());
            match (bar, u64::from(lane.register)) {
                (MEMORY_BAR, at) if at < MEMORY_BAR_SIZE => self.write(lane.register, value, mask),
                (IO_BAR, IOADDR) => self.selected = self.selected & !mask | value,
                (IO_BAR, IODATA) if self.selected < IOADDR_END => {
                    self.write(self.selected & !3, value, mask);
                }
                _ => {}
            }
        }
    }

    fn reset(&mut self) {
        {
            let _engine = lock(&self.engine);
            self.config.reset();
        }
        self.selected = 0;
        self.initialise(true);
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        if !self.is_paused() {
            Runner::pause_all([&mut self.runner].into_iter(), PAUSE_LIMIT)?;
            self.paused = lock(&self.engine).now();
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.runner.start()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.save_state()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_state(state)
    }
}
