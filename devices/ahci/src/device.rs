//! The PCI function.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use paraslot_device::register::lanes;
use paraslot_device::{Dma, DmaSpace, Host, Runner, Worker};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Identity, Layout,
    PciDevice, ReadWindow,
};
use paraslot_spec::ahci::{ABAR, CLASS_CODE};
use paraslot_spec::pci::VENDOR_INTEL;

use crate::hba::Hba;
use crate::options::{Options, PortDevice};
use crate::packet::PacketDevice;
use crate::worker::{DiskDevice, PortWorker};

/// ICH9's six-port SATA controller in AHCI mode, of the revision that its drivers know best.
const DEVICE_ICH9_AHCI: u16 = 0x2922;
const REVISION: u8 = 2;
/// How long a pause waits for commands in flight.
const PAUSE_LIMIT: Duration = Duration::from_secs(10);
/// How long a reset waits for them; what is late is kept silent.
const RESET_LIMIT: Duration = Duration::from_secs(2);

/// An AHCI host bus adapter with its ports' devices, as a PCI function. See the [crate's page](crate).
pub struct Ahci<A: DmaSpace> {
    config: ConfigSpace,
    layout: Layout,
    hba: Arc<Hba>,
    runners: Vec<PortRunner>,
    paused: bool,
    memory: std::marker::PhantomData<A>,
}

/// One port's worker.
struct PortRunner {
    port: usize,
    runner: Runner,
}

impl<A: DmaSpace> Ahci<A> {
    /// Builds the function and starts a worker for each port with a device.
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
        for (index, (port, device)) in hba.ports.iter().zip(ports).enumerate() {
            let name = format!("ahci-{index}");
            let (port, irq, dma) = (port.clone(), hba.irq.clone(), dma.clone());
            let worker: Box<dyn Worker> = match device {
                None => continue,
                Some(PortDevice::Disk(disk)) => {
                    Box::new(PortWorker::new(port, irq, dma, DiskDevice::new(disk)?))
                }
                Some(PortDevice::Packet(drive)) => {
                    Box::new(PortWorker::new(port, irq, dma, PacketDevice::new(drive, &name)?))
                }
            };
            let runner = Runner::new(name, executor.clone(), worker)?;
            runners.push(PortRunner { port: index, runner });
        }
        let memory = std::marker::PhantomData;
        Ok(Self { config, layout, hba, runners, paused: false, memory })
    }

    /// Waits until no command is in flight, for a bounded time. Those that the reset has overtaken
    /// are silent whether or not they have come back by then.
    fn drain(&mut self) {
        let taken = |port: usize| self.hba.ports.get(port).is_some_and(|p| p.lock().taken != 0);
        let runners = self.runners.iter_mut().filter(|runner| taken(runner.port));
        let mut waiting: Vec<_> = runners.map(|PortRunner { runner, .. }| runner).collect();
        for runner in &mut waiting {
            runner.stop();
        }
        let deadline = Instant::now() + RESET_LIMIT;
        for runner in waiting {
            runner.park(deadline.saturating_duration_since(Instant::now()));
            if !self.paused {
                // It can fail only for want of host resources; the port is silent then.
                let _ = runner.proceed();
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
        let runners = self.runners.iter_mut().map(|port| &mut port.runner);
        Runner::pause_all(runners, PAUSE_LIMIT)?;
        self.paused = true;
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.paused = false;
        for PortRunner { runner, .. } in &mut self.runners {
            runner.start()?;
        }
        Ok(())
    }
}
