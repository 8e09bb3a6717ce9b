//! The transport itself: negotiation, starting, resetting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use paraslot_device::{DeviceError, Dma, DmaSpace, Doorbell, Host};
use paraslot_pci::{ConfigSpace, Layout};
use paraslot_spec::virtio::{Status, feature, split};
use paraslot_virtio::{Queue, TransportSignals, VirtioDevice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::common::Generation;
use crate::layout::{self, BAR, MAX_QUEUES, NOTIFY, NOTIFY_MULTIPLIER, PAGE};
use crate::queues::QueueSlot;
use crate::signals::{QueueInterrupt, Signals};

/// Feature bits that belong to queues and transports (2.2), now or in future versions.
const RESERVED_FEATURES: u64 = ((1 << 50) - 1) & !((1 << 24) - 1);
/// Those of them that a device may offer on behalf of its queues.
const QUEUE_FEATURES: u64 = feature::INDIRECT_DESC | feature::EVENT_IDX;
/// Those that the transport adds.
const TRANSPORT_FEATURES: u64 = feature::VERSION_1 | feature::RING_RESET;
/// Largest device type whose device ID is in the range of modern devices (4.1.2).
const MAX_DEVICE_TYPE: u16 = 0x3f;

/// How long a reset by the host, or a pause, waits for requests in flight.
const QUIET_LIMIT: Duration = Duration::from_secs(1);
/// How long a function level reset does, which holds up the guest's processor; 100 ms is what a
/// function has for it (PCI Express Base 5.0, 6.6.2).
const FUNCTION_RESET_LIMIT: Duration = Duration::from_millis(100);

/// A PCI function that carries a virtio device.
///
/// # Layout
/// One 64 KiB memory BAR, 64 bits wide: common configuration, ISR status, device configuration,
/// doorbells (4 bytes apart, each a [`Doorbell`] for any width and value), MSI-X pending bits and
/// table, all on pages of their own. Up to 1024 queues and 4096 bytes of device configuration. One
/// MSI-X vector for each queue and one for configuration changes, and an INTx pin.
///
/// # Life
/// DRIVER_OK has the device make a worker for each enabled queue; the host's executor runs them. A
/// reset (of the device, or of one queue with RING_RESET) asks the workers to stop. The guest sees it
/// completed, by reading `device_status` or `queue_reset`, only when they have no request in flight:
/// from then on there is no access to guest memory, no backend operation and no interrupt of theirs.
/// Until then nothing is signalled, and everything that the guest writes is ignored. Nothing here
/// blocks but a reset or pause by the host, and a function level reset, for a bounded time; a backend
/// that holds on to a request longer keeps the reset unacknowledged, or makes the pause fail.
///
/// Registers that must not change under a running queue do not: features after FEATURES_OK, a
/// queue's own from its `queue_enable` to its reset, and all queues' from DRIVER_OK.
///
/// # Footprint
/// In bytes, and besides the device: 2048 for the function and its configuration space, 96 for each
/// queue and under 100 for each MSI-X vector. A queue that runs adds its [`Queue`] (192, and one bit
/// for each entry), under 100 for its interrupt, and what the device's worker and the executor need.
/// One eventfd for each queue, and another while it runs.
pub struct VirtioPci<A: DmaSpace, D: VirtioDevice<A>> {
    pub(crate) device: D,
    pub(crate) config: ConfigSpace,
    pub(crate) layout: Layout,
    pub(crate) signals: Arc<Signals>,
    pub(crate) queues: Vec<QueueSlot>,
    pub(crate) registers: Registers,
    pub(crate) generation: Generation,
    pub(crate) resetting: bool,
    pub(crate) paused: bool,
    /// Where in configuration space the PCI configuration access capability is.
    pub(crate) window: u16,
    pub(crate) host: Host<A>,
    dma: Dma<A>,
    fault: Option<DeviceError>,
}

/// The rest of the common configuration's state.
#[derive(Clone, Copy, Default)]
pub(crate) struct Registers {
    pub(crate) device_feature_select: u32,
    pub(crate) driver_feature_select: u32,
    /// What the driver has written, whether or not it was offered.
    pub(crate) driver_features: u64,
    pub(crate) queue_select: u16,
}

/// A queue's number, the queue, and what it raises.
type NewQueue<A> = (u16, Queue<A>, Arc<QueueInterrupt>);

impl<A: DmaSpace, D: VirtioDevice<A>> VirtioPci<A, D> {
    /// A function that carries `device`.
    ///
    /// # Errors
    /// When the device is impossible (its type, queues, features or the length of its
    /// configuration), or there is no eventfd to be had.
    pub fn new(mut device: D, host: Host<A>) -> Result<Self, DeviceError> {
        check(&device)?;
        let sizes = device.queue_sizes();
        let count = u16::try_from(sizes.len()).unwrap_or(u16::MAX);
        let queues = sizes.iter().copied().map(QueueSlot::new).collect();
        let config_len = device.config().len() as u64;
        let (config, window) = layout::config_space(
            device.device_type(),
            count,
            config_len,
            host.msi.clone(),
            host.intx.clone(),
        );
        let mut doorbells = Vec::with_capacity(count.into());
        for index in 0..u64::from(count) {
            let event = EventFd::new(EFD_NONBLOCK)
                .map_err(|error| DeviceError::Config(format!("no doorbell: {error}")))?;
            let offset = NOTIFY + index * NOTIFY_MULTIPLIER;
            doorbells.push(Doorbell { bar: BAR, offset, len: 0, value: None, event });
        }
        let layout = Layout {
            bars: config.bar_specs(),
            doorbells,
            msix_vectors: config.interrupts().msix_vectors(),
            intx: true,
            ..Layout::default()
        };
        let signals = Arc::new(Signals::new(config.interrupts().clone()));
        device.attach(signals.clone());
        let dma = Dma::new(host.memory.clone(), config.bus_master());
        Ok(Self {
            device,
            config,
            layout,
            signals,
            queues,
            registers: Registers::default(),
            generation: Generation::default(),
            resetting: false,
            paused: false,
            window,
            host,
            dma,
            fault: None,
        })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device, to be changed by the host.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Why a queue could not be started, since the last reset: the reason for a DEVICE_NEEDS_RESET
    /// that is not the driver's fault.
    pub fn fault(&self) -> Option<&DeviceError> {
        self.fault.as_ref()
    }

    /// What is offered to the driver.
    pub(crate) fn offered(&self) -> u64 {
        self.device.features() | TRANSPORT_FEATURES
    }

    /// Whether queues run, so that one can be set up only after its own reset.
    pub(crate) fn started(&self) -> bool {
        self.signals.status().contains(Status::DRIVER_OK)
    }

    /// Whether the driver has taken RING_RESET.
    pub(crate) fn ring_reset(&self) -> bool {
        let negotiated = self.signals.status().contains(Status::FEATURES_OK);
        negotiated && self.registers.driver_features & feature::RING_RESET != 0
    }

    /// A write to device_status (2.1, 3.1.1). Bits can be set one by one or together; none is
    /// cleared except by a reset.
    pub(crate) fn write_status(&mut self, value: u8) {
        if value == 0 {
            self.begin_reset();
            return;
        }
        let old = self.signals.status();
        let mut new = Status::from_bits_truncate(value) - Status::DEVICE_NEEDS_RESET - old;
        let ready = Status::ACKNOWLEDGE | Status::DRIVER;
        if new.contains(Status::FEATURES_OK) && !((old | new).contains(ready) && self.negotiate()) {
            new -= Status::FEATURES_OK;
        }
        if !(old | new).contains(Status::FEATURES_OK) {
            new -= Status::DRIVER_OK;
        }
        // First the bit, so that what a queue finds wrong at once is told to the driver.
        self.signals.add_status(new);
        if new.contains(Status::DRIVER_OK) && !old.contains(Status::DEVICE_NEEDS_RESET) {
            for index in 0..self.queues.len() {
                if self.queues.get(index).is_some_and(|slot| slot.enabled) {
                    self.start_queue(index);
                }
            }
        }
    }

    /// Whether device and transport can work with what the driver has chosen.
    pub(crate) fn negotiate(&mut self) -> bool {
        let chosen = self.registers.driver_features;
        chosen & !self.offered() == 0
            && chosen & feature::VERSION_1 != 0
            && self.device.accept_features(chosen)
    }

    /// Starts a queue that the driver has enabled.
    pub(crate) fn start_queue(&mut self, index: usize) {
        if let Err(error) = self.try_start_queue(index) {
            self.fail(error);
        }
    }

    fn try_start_queue(&mut self, index: usize) -> Result<(), DeviceError> {
        let Some((number, queue, interrupt)) = self.make_queue(index)? else { return Ok(()) };
        let worker = self.device.start_queue(number, queue)?;
        let Some(slot) = self.queues.get_mut(index) else { return Ok(()) };
        if self.paused {
            slot.hold(worker, interrupt);
            return Ok(());
        }
        let name = worker_name(self.device.device_type(), index);
        slot.run(&*self.host.executor, &name, worker, interrupt)
    }

    /// A queue for the device, as its registers say; `None` if it has a worker.
    pub(crate) fn make_queue(&self, index: usize) -> Result<Option<NewQueue<A>>, DeviceError> {
        let slot = self.queues.get(index).filter(|slot| slot.is_idle());
        let Some((slot, doorbell)) = slot.zip(self.layout.doorbells.get(index)) else {
            return Ok(None);
        };
        let interrupt = Arc::new(QueueInterrupt::new(self.signals.clone(), slot.vector));
        let queue = Queue::new(
            slot.config(self.registers.driver_features),
            self.dma.clone(),
            interrupt.clone(),
            doorbell.event.try_clone().map_err(DeviceError::Worker)?,
            self.signals.clone(),
        );
        let number = u16::try_from(index).unwrap_or(u16::MAX);
        Ok(Some((number, queue, interrupt)))
    }

    fn fail(&mut self, error: DeviceError) {
        self.fault = Some(error);
        self.signals.needs_reset();
    }

    /// Begins a device reset (2.4), if none is under way; [`settle`](Self::settle) completes it.
    fn begin_reset(&mut self) {
        self.resetting = true;
        self.signals.reset_begins();
        self.queues.iter_mut().for_each(QueueSlot::begin_reset);
        self.settle();
    }

    /// Completes resets for which nothing is in flight any more.
    pub(crate) fn settle(&mut self) {
        if self.resetting {
            let mut ready = true;
            for slot in &mut self.queues {
                ready &= slot.reset_ready();
            }
            if ready {
                self.complete_reset();
            }
            return;
        }
        let started = self.started();
        for slot in &mut self.queues {
            if slot.is_resetting() && slot.reset_ready() {
                slot.reset();
                slot.reset_since_start = started;
            }
        }
    }

    fn complete_reset(&mut self) {
        self.queues.iter_mut().for_each(QueueSlot::reset);
        self.device.reset();
        self.registers = Registers::default();
        self.fault = None;
        self.resetting = false;
        self.signals.reset_done();
    }

    /// The state after power-on, configuration space included.
    pub(crate) fn reset_function(&mut self, limit: Duration) {
        self.begin_reset();
        let deadline = Instant::now() + limit;
        for slot in &mut self.queues {
            slot.wait(deadline);
        }
        self.config.reset();
        self.signals.clear_isr();
        self.settle();
    }

    pub(crate) fn function_level_reset(&mut self) {
        self.reset_function(FUNCTION_RESET_LIMIT);
    }

    pub(crate) fn host_reset(&mut self) {
        self.reset_function(QUIET_LIMIT);
    }

    pub(crate) fn pause_queues(&mut self) -> Result<(), DeviceError> {
        if self.paused {
            return Ok(());
        }
        self.queues.iter_mut().for_each(QueueSlot::ask_to_stop);
        let deadline = Instant::now() + QUIET_LIMIT;
        let mut quiet = true;
        for slot in &mut self.queues {
            quiet &= slot.wait(deadline);
        }
        self.settle();
        if !quiet {
            self.proceed()?;
            return Err(DeviceError::Busy(QUIET_LIMIT));
        }
        self.signals.set_paused(true);
        self.paused = true;
        Ok(())
    }

    pub(crate) fn resume_queues(&mut self) -> Result<(), DeviceError> {
        if !self.paused {
            return Ok(());
        }
        self.paused = false;
        let result = self.proceed();
        self.signals.set_paused(false);
        result
    }

    /// Has all queues go on that were paused or asked to.
    fn proceed(&mut self) -> Result<(), DeviceError> {
        let device_type = self.device.device_type();
        let mut result = Ok(());
        for (index, slot) in self.queues.iter_mut().enumerate() {
            let name = worker_name(device_type, index);
            if let Err(error) = slot.proceed(&*self.host.executor, &name) {
                self.signals.needs_reset();
                result = Err(error);
            }
        }
        result
    }
}

/// A function that goes takes its interrupts and its access to memory with it, and waits for what is in
/// flight. With what is late its workers stay with their executor, and tell nobody.
impl<A: DmaSpace, D: VirtioDevice<A>> Drop for VirtioPci<A, D> {
    fn drop(&mut self) {
        self.host_reset();
    }
}

fn worker_name(device_type: u16, index: usize) -> String {
    format!("virtio{device_type}-{index}")
}

/// Whether a device is one that this transport can carry.
fn check<A: DmaSpace>(device: &impl VirtioDevice<A>) -> Result<(), DeviceError> {
    let refuse = |what: String| Err(DeviceError::Config(what));
    let device_type = device.device_type();
    if !(1..=MAX_DEVICE_TYPE).contains(&device_type) {
        return refuse(format!("virtio device type {device_type} has no modern device ID"));
    }
    let sizes = device.queue_sizes();
    if sizes.is_empty() || sizes.len() as u64 > MAX_QUEUES {
        return refuse(format!("{} virtio queues, of 1 to {MAX_QUEUES}", sizes.len()));
    }
    let possible = |size: &u16| size.is_power_of_two() && *size <= split::MAX_QUEUE_SIZE;
    if let Some(size) = sizes.iter().find(|size| !possible(size)) {
        return refuse(format!("virtio queue size {size} is not a power of two up to 32768"));
    }
    let unserved = device.features() & RESERVED_FEATURES & !(QUEUE_FEATURES | TRANSPORT_FEATURES);
    if unserved != 0 {
        return refuse(format!("virtio features {unserved:#x} are not served by this transport"));
    }
    let len = device.config().len();
    if len as u64 > PAGE {
        return refuse(format!("{len} bytes of virtio device configuration, of at most {PAGE}"));
    }
    Ok(())
}
