//! A VMM's interfaces, of the shape that Cloud Hypervisor's had in August 2026: the same names and
//! signatures, and behind them as much as a test needs. An adapter that compiles against these is one for
//! that VMM's own but for its `use` lines.

#![allow(dead_code, reason = "the interfaces are whole, whoever uses which part")]

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Barrier, Mutex};

use vmm_sys_util::eventfd::EventFd;

pub(crate) mod hypervisor {
    //! As much of the hypervisor as devices use.
    use super::EventFd;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum IoEventAddress {
        Pio(u64),
        Mmio(u64),
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum DataMatch {
        DataMatch32(u32),
        DataMatch64(u64),
    }

    pub(crate) trait Vm: Send + Sync {
        fn register_ioevent(
            &self,
            fd: &EventFd,
            addr: &IoEventAddress,
            datamatch: Option<DataMatch>,
        ) -> anyhow::Result<()>;
        fn unregister_ioevent(&self, fd: &EventFd, addr: &IoEventAddress) -> anyhow::Result<()>;
    }

    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct LegacyIrqSourceConfig {
        pub(crate) irqchip: u32,
        pub(crate) pin: u32,
    }

    #[derive(Clone, Copy, Debug, Default)]
    pub(crate) struct MsiIrqSourceConfig {
        pub(crate) high_addr: u32,
        pub(crate) low_addr: u32,
        pub(crate) data: u32,
        pub(crate) devid: u32,
    }

    #[derive(Clone, Copy, Debug)]
    pub(crate) enum InterruptSourceConfig {
        LegacyIrq(LegacyIrqSourceConfig),
        MsiIrq(MsiIrqSourceConfig),
    }
}

use hypervisor::InterruptSourceConfig;

pub(crate) type InterruptIndex = u32;

#[derive(Clone, Copy, Debug)]
pub(crate) struct LegacyIrqGroupConfig {
    pub(crate) irq: InterruptIndex,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct MsiIrqGroupConfig {
    pub(crate) base: InterruptIndex,
    pub(crate) count: InterruptIndex,
}

pub(crate) trait InterruptManager: Send + Sync {
    type GroupConfig;
    fn create_group(&self, config: Self::GroupConfig) -> io::Result<Arc<dyn InterruptSourceGroup>>;
    fn destroy_group(&self, group: Arc<dyn InterruptSourceGroup>) -> io::Result<()>;
}

pub(crate) trait InterruptSourceGroup: Send + Sync {
    fn enable(&self) -> io::Result<()> {
        Ok(())
    }
    fn disable(&self) -> io::Result<()> {
        Ok(())
    }
    fn trigger(&self, index: InterruptIndex) -> io::Result<()>;
    fn notifier(&self, index: InterruptIndex) -> Option<EventFd>;
    fn update(
        &self,
        index: InterruptIndex,
        config: InterruptSourceConfig,
        masked: bool,
        set_gsi: bool,
    ) -> io::Result<()>;
    fn set_gsi(&self) -> io::Result<()>;
}

pub(crate) trait BusDevice: Send {
    fn read(&mut self, _base: u64, _offset: u64, _data: &mut [u8]) {}
    fn write(&mut self, _base: u64, _offset: u64, _data: &[u8]) -> Option<Arc<Barrier>> {
        None
    }
}

#[expect(clippy::enum_variant_names, reason = "the names are that VMM's")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PciBarRegionType {
    Memory32BitRegion = 0,
    IoRegion = 0x01,
    Memory64BitRegion = 0x04,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PciBarPrefetchable {
    NotPrefetchable = 0,
    Prefetchable = 0x08,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct PciBarConfiguration {
    addr: u64,
    size: u64,
    idx: usize,
    region_type: PciBarRegionType,
    prefetchable: PciBarPrefetchable,
}

impl PciBarConfiguration {
    pub(crate) fn new(
        idx: usize,
        size: u64,
        region_type: PciBarRegionType,
        prefetchable: PciBarPrefetchable,
    ) -> Self {
        Self { idx, addr: 0, size, region_type, prefetchable }
    }
    pub(crate) fn set_address(mut self, addr: u64) -> Self {
        self.addr = addr;
        self
    }
    pub(crate) fn idx(&self) -> usize {
        self.idx
    }
    pub(crate) fn addr(&self) -> u64 {
        self.addr
    }
    pub(crate) fn size(&self) -> u64 {
        self.size
    }
    pub(crate) fn region_type(&self) -> PciBarRegionType {
        self.region_type
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BarReprogrammingParams {
    pub(crate) old_base: u64,
    pub(crate) new_base: u64,
    pub(crate) len: u64,
    pub(crate) region_type: PciBarRegionType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PciBarType {
    Io,
    Mmio32,
    Mmio64,
}

#[derive(Clone, Debug)]
pub(crate) enum Resource {
    PciBar { index: usize, base: u64, size: u64, type_: PciBarType, prefetchable: bool },
    LegacyIrq(u32),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PciDeviceError {
    #[error("Allocating space for an IO BAR of size {0} failed")]
    IoAllocationFailed(u64),
    #[error("Expected resource not found")]
    MissingResource,
}

/// Hands out addresses upward; takes them back in any order.
pub(crate) struct AddressAllocator {
    end: u64,
    ranges: BTreeMap<u64, u64>,
    next: u64,
}

impl AddressAllocator {
    pub(crate) fn new(base: u64, size: u64) -> Self {
        Self { end: base + size, ranges: BTreeMap::new(), next: base }
    }

    pub(crate) fn allocate(
        &mut self,
        address: Option<u64>,
        size: u64,
        align_size: Option<u64>,
    ) -> Option<u64> {
        let start = address.unwrap_or(self.next.next_multiple_of(align_size.unwrap_or(1)));
        let end = start.checked_add(size).filter(|end| *end <= self.end)?;
        if self.ranges.iter().any(|(taken, len)| *taken < end && start < taken + len) {
            return None;
        }
        self.ranges.insert(start, size);
        self.next = self.next.max(end);
        Some(start)
    }

    pub(crate) fn free(&mut self, address: u64, size: u64) {
        if self.ranges.get(&address) == Some(&size) {
            self.ranges.remove(&address);
        }
    }
}

pub(crate) struct SystemAllocator {
    pub(crate) io: AddressAllocator,
}

impl SystemAllocator {
    pub(crate) fn allocate_io_addresses(
        &mut self,
        address: Option<u64>,
        size: u64,
        align_size: Option<u64>,
    ) -> Option<u64> {
        self.io.allocate(address, size, align_size)
    }
    pub(crate) fn free_io_addresses(&mut self, address: u64, size: u64) {
        self.io.free(address, size);
    }
}

pub(crate) trait PciDevice: Send {
    fn allocate_bars(
        &mut self,
        _allocator: &mut SystemAllocator,
        _mmio32_allocator: &mut AddressAllocator,
        _mmio64_allocator: &mut AddressAllocator,
        _resources: Option<Vec<Resource>>,
    ) -> Result<Vec<PciBarConfiguration>, PciDeviceError> {
        Ok(Vec::new())
    }
    fn free_bars(
        &mut self,
        _allocator: &mut SystemAllocator,
        _mmio32_allocator: &mut AddressAllocator,
        _mmio64_allocator: &mut AddressAllocator,
    ) -> Result<(), PciDeviceError> {
        Ok(())
    }
    fn write_config_register(
        &mut self,
        reg_idx: usize,
        offset: u64,
        data: &[u8],
    ) -> (Vec<BarReprogrammingParams>, Option<Arc<Barrier>>);
    fn read_config_register(&mut self, reg_idx: usize) -> u32;
    fn read_bar(&mut self, _base: u64, _offset: u64, _data: &mut [u8]) {}
    fn write_bar(&mut self, _base: u64, _offset: u64, _data: &[u8]) -> Option<Arc<Barrier>> {
        None
    }
    fn move_bar(&mut self, _old_base: u64, _new_base: u64) -> Result<(), io::Error> {
        Ok(())
    }
    fn restore_bar_addr(&mut self, _params: &BarReprogrammingParams) {}
    fn as_any_mut(&mut self) -> &mut dyn Any;
    fn id(&self) -> Option<String>;
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum MigratableError {
    #[error("Failed to pause migratable component")]
    Pause(#[source] anyhow::Error),
    #[error("Failed to resume migratable component")]
    Resume(#[source] anyhow::Error),
    #[error("Failed to snapshot migratable component")]
    Snapshot(#[source] anyhow::Error),
    #[error("Failed to restore migratable component")]
    Restore(#[source] anyhow::Error),
}

pub(crate) trait Pausable {
    fn pause(&mut self) -> Result<(), MigratableError> {
        Ok(())
    }
    fn resume(&mut self) -> Result<(), MigratableError> {
        Ok(())
    }
}

#[derive(Clone, Default)]
pub(crate) struct SnapshotData {
    state: String,
}

impl SnapshotData {
    pub(crate) fn new_from_state<T: serde::Serialize>(state: &T) -> Result<Self, MigratableError> {
        let state = serde_json::to_string(state);
        Ok(Self { state: state.map_err(|error| MigratableError::Snapshot(error.into()))? })
    }
    pub(crate) fn to_state<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, MigratableError> {
        serde_json::from_str(&self.state).map_err(|error| MigratableError::Restore(error.into()))
    }
}

#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) snapshots: BTreeMap<String, Snapshot>,
    pub(crate) snapshot_data: Option<SnapshotData>,
}

impl Snapshot {
    pub(crate) fn new_from_state<T: serde::Serialize>(state: &T) -> Result<Self, MigratableError> {
        let snapshot_data = Some(SnapshotData::new_from_state(state)?);
        Ok(Self { snapshots: BTreeMap::new(), snapshot_data })
    }
    pub(crate) fn to_state<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, MigratableError> {
        let missing = || MigratableError::Restore(anyhow::anyhow!("Missing snapshot data"));
        self.snapshot_data.as_ref().ok_or_else(missing)?.to_state()
    }
}

pub(crate) trait Snapshottable: Pausable {
    fn id(&self) -> String {
        String::new()
    }
    fn snapshot(&mut self) -> Result<Snapshot, MigratableError> {
        Ok(Snapshot::default())
    }
}

pub(crate) trait Transportable: Pausable + Snapshottable {}

pub(crate) trait Migratable: Send + Pausable + Snapshottable + Transportable {}

/// Remembers what is to become an eventfd.
#[derive(Default)]
pub(crate) struct Kvm {
    ioevents: Mutex<Vec<(hypervisor::IoEventAddress, EventFd)>>,
}

impl Kvm {
    /// Writes the eventfd at an address, if there is one.
    pub(crate) fn ring(&self, address: hypervisor::IoEventAddress) -> bool {
        let ioevents = self.ioevents.lock().unwrap();
        let found = ioevents.iter().find(|(at, _)| *at == address);
        found.map(|(_, event)| event.write(1).unwrap()).is_some()
    }

    pub(crate) fn registered(&self) -> usize {
        self.ioevents.lock().unwrap().len()
    }
}

impl hypervisor::Vm for Kvm {
    fn register_ioevent(
        &self,
        fd: &EventFd,
        addr: &hypervisor::IoEventAddress,
        _datamatch: Option<hypervisor::DataMatch>,
    ) -> anyhow::Result<()> {
        let mut ioevents = self.ioevents.lock().unwrap();
        anyhow::ensure!(ioevents.iter().all(|(at, _)| at != addr), "{addr:?} is registered");
        ioevents.push((*addr, fd.try_clone()?));
        Ok(())
    }

    fn unregister_ioevent(
        &self,
        _fd: &EventFd,
        addr: &hypervisor::IoEventAddress,
    ) -> anyhow::Result<()> {
        let mut ioevents = self.ioevents.lock().unwrap();
        let found = ioevents.iter().position(|(at, _)| at == addr);
        ioevents.remove(found.ok_or_else(|| anyhow::anyhow!("{addr:?} is not registered"))?);
        Ok(())
    }
}
