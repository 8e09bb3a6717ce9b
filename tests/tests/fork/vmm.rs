//! That VMM, as much of it as routes accesses and interrupts, as one function of the machine that the
//! project's drivers run on. It knows devices by their traits alone.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use paraslot_adapter::{Attached, PulsedLine};
use paraslot_device::{DeviceError, Host, IntxLine, MsiMessage, MsiSink};
use paraslot_pci::{BarKind, BarSpec, BarState, Layout, PciDevice as Function};
use paraslot_vmm::in_process::GuestRam;
use vmm_sys_util::eventfd::EventFd;

use crate::adapter::{ForeignDevice, Messages};
use crate::mock::hypervisor::{InterruptSourceConfig, IoEventAddress};
use crate::mock::*;

/// Routes of messages, which end at the machine's interrupt controller.
struct Routes(Arc<dyn MsiSink>);

impl InterruptSourceGroup for Routes {
    fn trigger(&self, index: InterruptIndex) -> io::Result<()> {
        self.0.trigger(u16::try_from(index).map_err(io::Error::other)?);
        Ok(())
    }
    fn notifier(&self, index: InterruptIndex) -> Option<EventFd> {
        self.0.event(u16::try_from(index).ok()?)
    }
    fn update(
        &self,
        index: InterruptIndex,
        config: InterruptSourceConfig,
        masked: bool,
        _set_gsi: bool,
    ) -> io::Result<()> {
        let InterruptSourceConfig::MsiIrq(config) = config else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let address = u64::from(config.high_addr) << 32 | u64::from(config.low_addr);
        let message = MsiMessage { address, data: config.data };
        self.0.update(u16::try_from(index).map_err(io::Error::other)?, message, masked);
        Ok(())
    }
    fn set_gsi(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An interrupt line that is raised by an edge, which an interrupt controller keeps while the interrupt is
/// being handled. The machine's controller knows levels: the level lasts to the next access.
struct Line {
    level: Arc<dyn IntxLine>,
    raised: AtomicBool,
}

impl Line {
    fn lower(&self) {
        if self.raised.swap(false, Ordering::AcqRel) {
            self.level.set_level(false);
        }
    }
}

impl InterruptSourceGroup for Line {
    fn trigger(&self, _index: InterruptIndex) -> io::Result<()> {
        if !self.raised.swap(true, Ordering::AcqRel) {
            self.level.set_level(true);
        }
        Ok(())
    }
    fn notifier(&self, _index: InterruptIndex) -> Option<EventFd> {
        None
    }
    fn update(
        &self,
        _index: InterruptIndex,
        _config: InterruptSourceConfig,
        _masked: bool,
        _set_gsi: bool,
    ) -> io::Result<()> {
        Ok(())
    }
    fn set_gsi(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a function, of whatever kind.
pub(crate) type Make = Box<dyn Fn(Host<GuestRam>) -> Box<dyn Function> + Send>;

/// The VMM with its one device.
pub(crate) struct Vmm {
    make: Make,
    host: Host<GuestRam>,
    line: Arc<Line>,
    kvm: Arc<Kvm>,
    /// None only while it migrates.
    device: Option<Mutex<ForeignDevice>>,
    /// Its bus: where BARs are, by index.
    ranges: BTreeMap<usize, (u64, PciBarConfiguration)>,
    layout: Layout,
    moves: u64,
    accesses: u64,
    /// Before which access to a BAR it migrates.
    migrates_before: Option<u64>,
}

const IO: (u64, u64) = (0x1000, 0xe000);
const MMIO32: (u64, u64) = (0x8000_0000, 0x1000_0000);
const MMIO64: (u64, u64) = (0x40_0000_0000, 0x1_0000_0000);

impl Vmm {
    pub(crate) fn new(make: Make, host: Host<GuestRam>, migrates_before: Option<u64>) -> Self {
        let kvm = Arc::new(Kvm::default());
        let line = Line { level: host.intx.clone(), raised: AtomicBool::new(false) };
        let line = Arc::new(line);
        let device = attach(&make, &host, &line, &kvm, None);
        let mut this = Self {
            make,
            host,
            line,
            kvm,
            device: Some(Mutex::new(device)),
            ranges: BTreeMap::new(),
            layout: Layout::default(),
            moves: 0,
            accesses: 0,
            migrates_before,
        };
        this.allocate(None);
        for (index, (_, bar)) in &this.ranges {
            let kind = match bar.region_type() {
                PciBarRegionType::IoRegion => BarKind::Io,
                PciBarRegionType::Memory32BitRegion => BarKind::Memory32,
                PciBarRegionType::Memory64BitRegion => BarKind::Memory64,
            };
            let spec = BarSpec { kind, size: bar.size(), prefetchable: false };
            this.layout.bars[*index] = Some(spec);
        }
        this
    }

    fn device(&self) -> MutexGuard<'_, ForeignDevice> {
        self.device.as_ref().expect("a device between migrations").lock().unwrap()
    }

    /// Has the device place its BARs, where they were or anywhere.
    fn allocate(&mut self, resources: Option<Vec<Resource>>) {
        // A guest puts BARs where it likes, so after that there is no telling what is left to others.
        let all = resources.is_some();
        let range = |(base, size)| if all { (0, 1 << 48) } else { (base, size) };
        let allocator = |(base, size)| AddressAllocator::new(base, size);
        let mut system = SystemAllocator { io: allocator(range(IO)) };
        let (mut mmio32, mut mmio64) = (allocator(range(MMIO32)), allocator(range(MMIO64)));
        let mut device = self.device();
        let bars = device.allocate_bars(&mut system, &mut mmio32, &mut mmio64, resources).unwrap();
        drop(device);
        self.ranges = bars.into_iter().map(|bar| (bar.idx(), (bar.addr(), bar))).collect();
    }

    /// Moves that the bus has made.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// Accesses to BARs.
    pub(crate) fn accesses(&self) -> u64 {
        self.accesses
    }

    /// Whether it is to migrate still.
    pub(crate) fn will_migrate(&self) -> bool {
        self.migrates_before.is_some()
    }

    fn access(&mut self) {
        if self.migrates_before == Some(self.accesses) {
            self.migrates_before = None;
            self.migrate();
        }
        self.accesses += 1;
    }

    pub(crate) fn ioevents(&self) -> usize {
        self.kvm.registered()
    }

    /// Takes a snapshot, throws the device away, and goes on with one that is restored from it.
    fn migrate(&mut self) {
        let snapshot = {
            let mut device = self.device();
            device.pause().unwrap();
            device.snapshot().unwrap()
        };
        let resources = self.ranges.iter().map(|(index, (base, bar))| Resource::PciBar {
            index: *index,
            base: *base,
            size: bar.size(),
            type_: PciBarType::Mmio64,
            prefetchable: false,
        });
        let resources = resources.collect();
        self.kvm = Arc::new(Kvm::default());
        // What it has, such as a port of a network, the new one has next.
        self.device = None;
        let restored = attach(&self.make, &self.host, &self.line, &self.kvm, Some(&snapshot));
        self.device = Some(Mutex::new(restored));
        self.allocate(Some(resources));
        self.device().resume().unwrap();
    }

    fn base(&self, bar: u8) -> Option<(u64, PciBarRegionType)> {
        let (base, bar) = self.ranges.get(&usize::from(bar))?;
        Some((*base, bar.region_type()))
    }
}

fn attach(
    make: &Make,
    host: &Host<GuestRam>,
    line: &Arc<Line>,
    kvm: &Arc<Kvm>,
    snapshot: Option<&Snapshot>,
) -> ForeignDevice {
    let line = line.clone();
    let line = Arc::new(PulsedLine::new(move || line.trigger(0).unwrap()));
    let messages = Messages { group: Arc::new(Routes(host.msi.clone())), devid: 0x18 };
    let host = Host { msi: Arc::new(messages), intx: line.clone(), ..host.clone() };
    let function = Attached::boxed(make(host)).with_line(line);
    ForeignDevice::new("_test0".into(), function, kvm.clone(), snapshot).unwrap()
}

impl Function for Vmm {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        let command = self.device().read_config_register(1);
        let mut states = [None; 7];
        for (index, (base, _)) in &self.ranges {
            let BarSpec { kind, size, .. } = self.layout.bars[*index].unwrap();
            let enabled = command & if kind == BarKind::Io { 1 } else { 2 } != 0;
            states[*index] = Some(BarState { kind, address: *base, size, enabled });
        }
        states
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        let value = self.device().read_config_register((offset / 4).into());
        let bytes = value.to_le_bytes();
        let start = usize::from(offset % 4);
        data.copy_from_slice(&bytes[start..start + data.len()]);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let register = (offset / 4).into();
        let (moves, _) = self.device().write_config_register(register, (offset % 4).into(), data);
        for params in moves {
            self.moves += 1;
            let range = self.ranges.values_mut().find(|(base, bar)| {
                *base == params.old_base && bar.region_type() == params.region_type
            });
            let (base, bar) = range.expect("a range of the bus's");
            assert_eq!(bar.size(), params.len);
            *base = params.new_base;
            self.device().move_bar(params.old_base, params.new_base).unwrap();
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.access();
        let Some((base, _)) = self.base(bar) else { return data.fill(0xff) };
        self.line.lower();
        BusDevice::read(&mut *self.device(), base, offset, data);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.access();
        let Some((base, kind)) = self.base(bar) else { return };
        let address = match kind {
            PciBarRegionType::IoRegion => IoEventAddress::Pio(base + offset),
            _ => IoEventAddress::Mmio(base + offset),
        };
        self.line.lower();
        if !self.kvm.ring(address) {
            BusDevice::write(&mut *self.device(), base, offset, data);
        }
    }

    fn reset(&mut self) {}

    fn pause(&mut self) -> Result<(), DeviceError> {
        self.device().pause().map_err(|error| DeviceError::Config(error.to_string()))
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.device().resume().map_err(|error| DeviceError::Config(error.to_string()))
    }
}
