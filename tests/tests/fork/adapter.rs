//! The adapter: any function as a device of that VMM. Nothing in it knows which function it is.

use std::any::Any;
use std::io;
use std::sync::{Arc, Barrier};

use paraslot_adapter::{Attached, BarKind, BarMove, BarSpec};
use paraslot_device::{MsiMessage, MsiSink};
use vmm_sys_util::eventfd::EventFd;

use crate::mock::hypervisor::*;
use crate::mock::*;

/// Messages by the VMM's interrupt routes.
pub(crate) struct Messages {
    pub(crate) group: Arc<dyn InterruptSourceGroup>,
    /// The requester ID, which goes with each message.
    pub(crate) devid: u32,
}

impl MsiSink for Messages {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        let config = MsiIrqSourceConfig {
            high_addr: u32::try_from(message.address >> 32).unwrap_or(0),
            low_addr: u32::try_from(message.address & 0xffff_ffff).unwrap_or(0),
            data: message.data,
            devid: self.devid,
        };
        let config = InterruptSourceConfig::MsiIrq(config);
        // There is nobody to tell; the guest's interrupt does not come, as with a broken board.
        if self.group.update(vector.into(), config, masked, true).is_ok() && !masked {
            let _ = self.group.enable();
        }
    }
    fn trigger(&self, vector: u16) {
        let _ = self.group.trigger(vector.into());
    }
    fn event(&self, vector: u16) -> Option<EventFd> {
        self.group.notifier(vector.into())
    }
}

/// A function as that VMM has it.
pub(crate) struct ForeignDevice {
    id: String,
    function: Attached,
    vm: Arc<dyn Vm>,
}

fn region_type(kind: BarKind) -> PciBarRegionType {
    match kind {
        BarKind::Io => PciBarRegionType::IoRegion,
        BarKind::Memory64 => PciBarRegionType::Memory64BitRegion,
        BarKind::Memory32 | BarKind::Rom => PciBarRegionType::Memory32BitRegion,
    }
}

impl ForeignDevice {
    /// Makes a device of a function; with a snapshot, of one that goes on when it is resumed.
    pub(crate) fn new(
        id: String,
        mut function: Attached,
        vm: Arc<dyn Vm>,
        snapshot: Option<&Snapshot>,
    ) -> Result<Self, MigratableError> {
        if let Some(snapshot) = snapshot {
            let state: String = snapshot.to_state()?;
            function.restore(&state).map_err(|error| MigratableError::Restore(error.into()))?;
        }
        Ok(Self { id, function, vm })
    }

    /// Has doorbells registered, or no more.
    fn doorbells(&self, bar: u8, base: u64, there: bool) -> io::Result<()> {
        for bell in self.function.doorbells(bar, base) {
            let to = if bell.port { IoEventAddress::Pio } else { IoEventAddress::Mmio };
            let value = bell.value.map(DataMatch::DataMatch64);
            let done = match there {
                true => self.vm.register_ioevent(bell.event, &to(bell.address), value),
                false => self.vm.unregister_ioevent(bell.event, &to(bell.address)),
            };
            done.map_err(io::Error::other)?;
        }
        Ok(())
    }

    fn moves(moves: &[BarMove]) -> Vec<BarReprogrammingParams> {
        let params = moves.iter().map(|to| BarReprogrammingParams {
            old_base: to.old,
            new_base: to.new,
            len: to.size,
            region_type: region_type(to.kind),
        });
        params.collect()
    }
}

impl BusDevice for ForeignDevice {
    fn read(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        self.read_bar(base, offset, data);
    }
    fn write(&mut self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        self.write_bar(base, offset, data)
    }
}

impl PciDevice for ForeignDevice {
    fn allocate_bars(
        &mut self,
        allocator: &mut SystemAllocator,
        mmio32_allocator: &mut AddressAllocator,
        mmio64_allocator: &mut AddressAllocator,
        resources: Option<Vec<Resource>>,
    ) -> Result<Vec<PciBarConfiguration>, PciDeviceError> {
        let bars: Vec<(u8, BarSpec)> = self.function.bars().collect();
        let mut placed = Vec::with_capacity(bars.len());
        for (bar, BarSpec { kind, size, prefetchable }) in bars {
            let before = resources.iter().flatten().find_map(|resource| match resource {
                Resource::PciBar { index, base, .. } if *index == usize::from(bar) => Some(*base),
                _ => None,
            });
            let base = match kind {
                BarKind::Io => allocator.allocate_io_addresses(before, size, Some(size)),
                BarKind::Memory64 => mmio64_allocator.allocate(before, size, Some(size)),
                _ => mmio32_allocator.allocate(before, size, Some(size)),
            };
            let base = base.ok_or(PciDeviceError::IoAllocationFailed(size))?;
            self.function.place(bar, base);
            let failed = |_| PciDeviceError::IoAllocationFailed(size);
            self.doorbells(bar, base, true).map_err(failed)?;
            let prefetch = [PciBarPrefetchable::NotPrefetchable, PciBarPrefetchable::Prefetchable]
                [usize::from(prefetchable)];
            let bar = PciBarConfiguration::new(bar.into(), size, region_type(kind), prefetch);
            placed.push(bar.set_address(base));
        }
        Ok(placed)
    }
    fn write_config_register(
        &mut self,
        reg_idx: usize,
        offset: u64,
        data: &[u8],
    ) -> (Vec<BarReprogrammingParams>, Option<Arc<Barrier>>) {
        (Self::moves(&self.function.config_write(reg_idx, offset, data)), None)
    }
    fn read_config_register(&mut self, reg_idx: usize) -> u32 {
        self.function.config_read(reg_idx)
    }
    fn read_bar(&mut self, base: u64, offset: u64, data: &mut [u8]) {
        self.function.read(base, offset, data);
    }
    fn write_bar(&mut self, base: u64, offset: u64, data: &[u8]) -> Option<Arc<Barrier>> {
        self.function.write(base, offset, data);
        None
    }
    fn move_bar(&mut self, old_base: u64, new_base: u64) -> Result<(), io::Error> {
        for to in self.function.moves().iter().filter(|to| (to.old, to.new) == (old_base, new_base))
        {
            self.doorbells(to.bar, old_base, false)?;
            self.function.moved(old_base, new_base);
            self.doorbells(to.bar, new_base, true)?;
        }
        Ok(())
    }
    fn restore_bar_addr(&mut self, params: &BarReprogrammingParams) {
        let refused = |to: &&BarMove| (to.old, to.new) == (params.old_base, params.new_base);
        if let Some(to) = self.function.moves().iter().find(refused) {
            self.function.refuse(to);
        }
    }
    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
    fn id(&self) -> Option<String> {
        Some(self.id.clone())
    }
}

impl Pausable for ForeignDevice {
    fn pause(&mut self) -> Result<(), MigratableError> {
        self.function.pause().map_err(|error| MigratableError::Pause(error.into()))
    }
    fn resume(&mut self) -> Result<(), MigratableError> {
        self.function.resume().map_err(|error| MigratableError::Resume(error.into()))
    }
}

impl Snapshottable for ForeignDevice {
    fn id(&self) -> String {
        self.id.clone()
    }
    fn snapshot(&mut self) -> Result<Snapshot, MigratableError> {
        let state = self.function.snapshot();
        Snapshot::new_from_state(&state.map_err(|error| MigratableError::Snapshot(error.into()))?)
    }
}

impl Transportable for ForeignDevice {}
impl Migratable for ForeignDevice {}
