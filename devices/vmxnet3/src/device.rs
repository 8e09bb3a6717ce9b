//! The PCI function.

use std::sync::Arc;
use std::time::Duration;

use paraslot_backends::net::{NetBackend, Offloads};
use paraslot_device::register::lanes;
use paraslot_device::{Clock, Dma, DmaSpace, Doorbell, Host, Runner, SavedState, StateError};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Identity, Layout,
    MsixLayout, PciDevice,
};
use paraslot_spec::pci::VENDOR_VMWARE;
use paraslot_spec::vmxnet3::registers::{RXPROD, RXPROD2, STRIDE, TXPROD};
use paraslot_spec::vmxnet3::{
    CLASS_CODE, DEVICE_VMXNET3, MAX_INTRS, MAX_RX_QUEUES, MAX_TX_QUEUES, MSIX_BAR, PT_BAR,
    PT_BAR_SIZE, REVISION_1, REVISION_ID, VD_BAR, VD_BAR_SIZE,
};

use crate::clock::Aged;
use crate::irq::Scheme;
use crate::lane::LaneWorker;
use crate::options::Options;
use crate::shared::{Control, Shared};
use crate::state::Active;

/// How long a pause waits for the workers' rounds to end.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of the BAR of MSI-X.
const MSIX_BAR_SIZE: u64 = 4096;
/// Offset of the pending bits there.
const PENDING_AT: u32 = 0x800;
/// The device's MSI-X vectors.
const VECTORS: u16 = 25;
const _: () = assert!(VECTORS as usize == MAX_INTRS);

/// A vmxnet3 adapter as a PCI function. See the [crate's page](crate).
pub struct Vmxnet3<A: DmaSpace> {
    pub(crate) config: ConfigSpace,
    pub(crate) layout: Layout,
    pub(crate) shared: Arc<Shared>,
    pub(crate) backend: Arc<dyn NetBackend>,
    pub(crate) dma: Dma<A>,
    pub(crate) registers: Registers,
    pub(crate) runners: Vec<Runner>,
    /// When it was last paused, or restored.
    pub(crate) paused: Duration,
}

/// What the registers hold that no worker looks at.
pub(crate) struct Registers {
    pub(crate) permanent: [u8; 6],
    /// The revision that the driver has selected: its bit of VRRS.
    pub(crate) revision: u32,
    /// DSAL and DSAH.
    pub(crate) address: [u32; 2],
    /// MACL, until MACH is written.
    pub(crate) mac_low: u32,
    /// How the last command ended.
    pub(crate) result: u32,
    /// Interrupt coalescing.
    pub(crate) scheme: Scheme,
    /// Activations so far.
    pub(crate) epoch: u64,
}

impl Registers {
    fn new(permanent: [u8; 6]) -> Self {
        let [a, b, c, d, ..] = permanent;
        Self {
            permanent,
            revision: REVISION_1,
            address: [0; 2],
            mac_low: u32::from_le_bytes([a, b, c, d]),
            result: 0,
            scheme: Scheme::default(),
            epoch: 0,
        }
    }

    /// What a reset by the driver does. Activations are counted on, and the revision stays: drivers
    /// select it when they find the device, and not again after they have reset it.
    fn reset(&mut self) {
        let Self { epoch, revision, .. } = *self;
        *self = Self { epoch, revision, ..Self::new(self.permanent) };
    }
}

impl<A: DmaSpace> Vmxnet3<A> {
    /// Builds the function and starts its workers.
    ///
    /// # Errors
    /// When `options` ask for what cannot be served, the backend cannot be opened, or a worker cannot
    /// be started.
    pub fn new(
        backend: Arc<dyn NetBackend>,
        options: Options,
        host: Host<A>,
    ) -> Result<Self, DeviceError> {
        options.check()?;
        let Options { mac, queues, express, link, clock } = options;
        let Host { memory, msi, intx, executor } = host;
        let identity = Identity {
            vendor: VENDOR_VMWARE,
            device: DEVICE_VMXNET3,
            revision: REVISION_ID,
            class: CLASS_CODE,
            subsystem_vendor: VENDOR_VMWARE,
            subsystem: DEVICE_VMXNET3,
        };
        let bar = |size| BarSpec { kind: BarKind::Memory32, size, prefetchable: false };
        let msix =
            MsixLayout { vectors: VECTORS, table: (MSIX_BAR, 0), pba: (MSIX_BAR, PENDING_AT) };
        let mut builder = ConfigSpaceBuilder::new(identity)
            .bar(PT_BAR, bar(PT_BAR_SIZE))
            .bar(VD_BAR, bar(VD_BAR_SIZE))
            .bar(MSIX_BAR, bar(MSIX_BAR_SIZE))
            .intx()
            .power_management()
            .msi()
            .msix(msix);
        if express {
            builder = builder.express();
        }
        let config = builder.build(msi, intx);
        let dma = Dma::new(memory, config.bus_master());
        let clock: Arc<dyn Clock> = Arc::new(Aged(clock));

        backend.set_receive_offloads(Offloads::empty()).map_err(DeviceError::Backend)?;
        backend.set_queues(1).map_err(DeviceError::Backend)?;
        let lanes = queues.min(backend.info().queues).max(1);
        let shared = Shared::new(config.interrupts().clone(), clock.clone(), lanes, link);
        let shared = Arc::new(shared.map_err(DeviceError::Worker)?);
        shared.set_mac(mac);
        let mut runners = Vec::new();
        for index in 0..lanes {
            let sender = backend.open_sender(index).map_err(DeviceError::Backend)?;
            let receiver = backend.open_receiver(index).map_err(DeviceError::Backend)?;
            let timer = clock.timer().map_err(DeviceError::Worker)?;
            let worker = LaneWorker::new(
                shared.clone(),
                index.into(),
                dma.clone(),
                clock.clone(),
                timer,
                sender,
                receiver,
            );
            let name = if lanes == 1 { "vmxnet3".into() } else { format!("vmxnet3-{index}") };
            runners.push(Runner::new(name, executor.clone(), Box::new(worker))?);
        }
        let mut layout = config.layout();
        layout.doorbells = doorbells(&shared).map_err(DeviceError::Worker)?;
        let registers = Registers::new(mac);
        let paused = Duration::ZERO;
        Ok(Self { config, layout, shared, backend, dma, registers, runners, paused })
    }

    /// The owner's hand on it.
    pub fn control(&self) -> Control {
        Control(self.shared.clone())
    }

    /// Whether all workers are stopped.
    pub(crate) fn is_paused(&mut self) -> bool {
        self.runners.iter_mut().all(|runner| runner.parked::<LaneWorker<A>>().is_some())
    }

    /// Has the backend deliver what an active device accepts, distributed as it has queues.
    pub(crate) fn set_backend(&self, active: &Active) {
        let lanes = self.shared.lanes().min(active.rx.len());
        // What the backend refuses it does not deliver, or not so distributed: no harm is done.
        let _ = self.backend.set_receive_offloads(active.offloads());
        let _ = self.backend.set_queues(u16::try_from(lanes).unwrap_or(1));
    }

    /// Stops all queues and forgets them. It waits for the rounds of work that are going on, a bounded
    /// time: then nothing of what was before is under way any more.
    pub(crate) fn deactivate(&mut self) {
        let mut state = self.shared.change();
        if state.active.take().is_some() {
            // What the backend refuses is looked at when a frame comes.
            let _ = self.backend.set_receive_offloads(Offloads::empty());
            let _ = self.backend.set_queues(1);
        }
        self.shared.irq.quieten();
        self.shared.forget();
        drop(state);
        self.shared.ring_all();
    }

    /// What a reset by the driver does.
    pub(crate) fn initialise(&mut self) {
        self.deactivate();
        self.shared.irq.reset();
        self.registers.reset();
        self.shared.set_mac(self.registers.permanent);
    }
}

/// The producer registers of all queues. Their values tell nothing that the rings do not.
fn doorbells(shared: &Shared) -> std::io::Result<Vec<Doorbell>> {
    let kinds = [(TXPROD, MAX_TX_QUEUES), (RXPROD, MAX_RX_QUEUES), (RXPROD2, MAX_RX_QUEUES)];
    let all = kinds.into_iter().flat_map(|(first, queues)| {
        (0..queues).map(move |queue| (first + STRIDE * queue as u64, queue))
    });
    all.filter_map(|(offset, queue)| {
        let bell = shared.bell(shared.lane_of(queue))?;
        let event = bell.event().try_clone();
        Some(event.map(|event| Doorbell { bar: PT_BAR, offset, len: 4, value: None, event }))
    })
    .collect()
}

/// A function that goes takes its access to memory and its interrupts with it.
impl<A: DmaSpace> Drop for Vmxnet3<A> {
    fn drop(&mut self) {
        {
            let _state = self.shared.change();
            self.config.reset();
        }
        self.deactivate();
        self.shared.irq.reset();
    }
}

impl<A: DmaSpace> PciDevice for Vmxnet3<A> {
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
            // Waits for the rounds of work that still had access to memory.
            drop(self.shared.change());
        }
        if written.bus_master_on {
            self.shared.ring_all();
        }
        if written.function_reset {
            self.reset();
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if bar == MSIX_BAR {
            if !self.config.msix_read(bar, offset, data) && offset < MSIX_BAR_SIZE {
                data.fill(0);
            }
            return;
        }
        for lane in lanes(offset, data.len()) {
            let at = u64::from(lane.register);
            let value = match bar {
                PT_BAR if at < PT_BAR_SIZE => self.read_pt(at),
                VD_BAR if at < VD_BAR_SIZE => self.read_vd(at),
                _ => continue,
            };
            lane.store(value, data);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar == MSIX_BAR {
            self.config.msix_write(bar, offset, data);
            return;
        }
        // All registers are 32 bits wide; less than a whole one is not written.
        for lane in lanes(offset, data.len()).filter(|lane| lane.len == 4) {
            let (at, value) = (u64::from(lane.register), lane.value(data));
            match bar {
                PT_BAR if at < PT_BAR_SIZE => self.write_pt(at, value),
                VD_BAR if at < VD_BAR_SIZE => self.write_vd(at, value),
                _ => {}
            }
        }
    }

    fn reset(&mut self) {
        {
            let _state = self.shared.change();
            self.config.reset();
        }
        self.initialise();
        self.registers.revision = REVISION_1;
        self.shared.statistics.reset();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        if !self.is_paused() {
            Runner::pause_all(self.runners.iter_mut(), PAUSE_LIMIT)?;
            self.paused = self.shared.irq.now();
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.runners.iter_mut().try_for_each(Runner::start)
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.save_state()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.restore_state(state)
    }
}
