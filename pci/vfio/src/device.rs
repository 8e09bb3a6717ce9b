//! A host's function as a [`PciDevice`].

use std::io;
use std::ops::Range;
use std::sync::Arc;

use paraslot_device::{DeviceError, Host, IntxLine};
use paraslot_pci::{
    BarKind, BarState, ConfigSpace, ConfigSpaceBuilder, DirectWindow, Identity, Layout, MsixLayout,
    PciDevice,
};
use paraslot_spec::pci::{Command, Status, header, pm};
use vm_memory::GuestAddressSpace;

use crate::borrow::Borrowed;
use crate::capabilities::{self, CONFIG_LEN, Capability, Kind, byte, word};
use crate::faults::Faults;
use crate::function::{Function, Irq, Region, RegionInfo};
use crate::iommu::IommuSpace;
use crate::kernel::Kernel;
use crate::layout;
use crate::signals::Signals;
use crate::{HostAddress, VfioError};

/// Bits of the hardware's command register that are set here, or left alone.
const COMMAND_OURS: Command =
    Command::IO.union(Command::MEMORY).union(Command::BUS_MASTER).union(Command::INTX_DISABLE);

/// A function of the host's, passed through to a guest.
///
/// Its registers are the hardware's, its configuration space is not:
///
/// | what the guest sees | what reaches the hardware |
/// |---|---|
/// | IDs, class, revision, and registers behind the header that are in no capability: copies | nothing |
/// | BARs, of the hardware's sizes and types | nothing |
/// | command register | bus mastering. Decoding is always on there |
/// | status: capabilities, and the interrupt bit as the hardware has it | nothing |
/// | MSI with one vector, and a mask if the hardware has one; MSI-X with the hardware's table | triggers, by way of the kernel |
/// | power management: D0 and D3hot, state kept | nothing. The hardware stays in D0 |
/// | PCI Express: a copy, as an integrated endpoint; device control is scratch | a function level reset |
/// | vendor-specific and SATA capabilities: copies, without virtio's window to its other structures | nothing |
///
/// The list of capabilities is the hardware's, in its order, without those that are left out. One that does
/// not end, or in which any two overlap, is a reason to refuse the function.
///
/// A copy is of when the function was opened. The rest is left out: other capabilities, extended ones
/// (configuration space beyond 256 bytes reads as zero), the expansion ROM, MSI with several vectors,
/// virtual functions, legacy VGA ranges, power states of the hardware's, and errors that it reports.
///
/// Pages of BARs that the kernel maps are [`Layout::direct`], all but those that hold the MSI-X table or
/// pending bits. BARs of less than a page are not mapped.
///
/// Interrupts go from the kernel to the host's eventfds: no exit, no thread. The host must have those; where
/// it has them for messages only, the function has no INTx pin. A host that runs out of them later leaves
/// the vector pending. No interrupt is lost: where the hardware could lose one, at the end of a pause, and
/// when bus mastering of a function with MSI that it cannot mask is turned on again, one is sent that may
/// have no cause.
///
/// An access of the guest's makes a handful of calls to the kernel at most, but for those that open or close
/// many vectors at once: they make one for each run of vectors that change, none for others. What the
/// kernel refuses then is in [`faults`](Self::faults).
///
/// What [`PciDevice`] promises holds as far as hardware lets it. After [`pause`](PciDevice::pause) it does
/// not access memory and raises nothing, since bus mastering is off, but the requests that it has are not
/// waited for, and a function can take it for an error that it may not finish them.
/// [`reset`](PciDevice::reset) resets the hardware if the kernel can; a function that it cannot reset
/// keeps the state of its registers, with bus mastering and interrupts off. Whoever drops it gives it up
/// in the same way. The pages of its BARs keep it open until they are gone too.
pub struct VfioPci<A> {
    layout: Layout,
    config: ConfigSpace,
    signals: Signals,
    bar_sizes: [u64; 6],
    msix: Option<MsixLayout>,
    /// The hardware's command register, but for the bits that are ours.
    command: Command,
    has_pin: bool,
    /// Registers of which a write may have a vector sent that was held back.
    openers: Vec<Range<u16>>,
    paused: bool,
    function: Box<dyn Function>,
    /// What the hardware may write to stays, and what its pin is wired to.
    _memory: A,
    _pin: Arc<dyn IntxLine>,
}

impl<A: GuestAddressSpace> VfioPci<A> {
    /// Opens a function that is bound to vfio-pci. Its guest's memory, which `host` names, has to be in
    /// `space`.
    ///
    /// # Errors
    /// When it cannot be opened, is not one that can be passed through, or would not have the guest's memory
    /// as its own.
    pub fn open(
        address: HostAddress,
        space: &Arc<IommuSpace>,
        host: Host<A>,
    ) -> Result<Self, VfioError> {
        space.check(&host.memory)?;
        Self::new(Box::new(Kernel::open(address, space, None)?), host)
    }

    /// Opens a function that was taken from the host's driver, and gives it back when it is closed: when the
    /// function and the pages of its BARs are gone.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn open_borrowed(
        borrowed: Borrowed,
        space: &Arc<IommuSpace>,
        host: Host<A>,
    ) -> Result<Self, VfioError> {
        space.check(&host.memory)?;
        let address = borrowed.address();
        Self::new(Box::new(Kernel::open(address, space, Some(borrowed))?), host)
    }
}

impl<A> VfioPci<A> {
    pub(crate) fn new(function: Box<dyn Function>, host: Host<A>) -> Result<Self, VfioError> {
        let raw = read_config(&*function)?;
        let unsuited = VfioError::Unsuited;
        if byte(&raw, header::HEADER_TYPE) & 0x7f != 0 {
            return Err(unsuited("it is a bridge".to_owned()));
        }
        let list = capabilities::parse(&raw, function.has_reset()).map_err(unsuited)?;
        let regions: [RegionInfo; 6] =
            [0, 1, 2, 3, 4, 5].map(|index| function.region(Region::Bar(index)));
        let bars = layout::bars(&raw, &regions).map_err(unsuited)?;
        let msix = list.iter().find_map(|capability| match capability.kind {
            Kind::Msix(layout) => Some(layout),
            _ => None,
        });
        if let Some(msix) = &msix {
            layout::check_msix(msix, &bars).map_err(unsuited)?;
            let there = function.irqs(Irq::Msix);
            if there < msix.vectors.into() {
                let wanted = msix.vectors;
                return Err(unsuited(format!("of its {wanted} MSI-X vectors VFIO has {there}")));
            }
        }
        let msi = list.iter().find_map(|capability| match capability.kind {
            Kind::Msi { maskable } if function.irqs(Irq::Msi) > 0 => Some(maskable),
            _ => None,
        });
        let has_msi = msi.is_some();

        // Asked for once here, so that a host without them hears of it now.
        let messages = msix.is_some() || has_msi;
        if messages && host.msi.event(0).is_none() {
            return Err(VfioError::NoEventFds);
        }
        let wired = byte(&raw, header::INTERRUPT_PIN) != 0 && function.irqs(Irq::Intx) > 0;
        let pin = if wired { host.intx.eventfds() } else { None };
        if wired && pin.is_none() && !messages {
            return Err(VfioError::NoEventFds);
        }
        let has_pin = pin.is_some();
        let vectors = msix.map_or(has_msi.into(), |msix| msix.vectors);
        let signals = Signals::new(vectors, msi == Some(false), host.msi, pin)
            .map_err(VfioError::kernel("make an eventfd for each vector"))?;

        let mut builder = builder(&raw, &list, has_msi);
        for (index, spec) in (0..).zip(bars) {
            if let Some(spec) = spec {
                builder = builder.bar(index, spec);
            }
        }
        if has_pin {
            builder = builder.intx();
        }
        // The line is the hardware's, so the configuration space has none to set.
        let config =
            builder.build(signals.relay(), Arc::new(paraslot_device::interrupt::NoInterrupts));
        let mut layout = config.layout();
        for (index, (spec, region)) in (0..).zip(bars.iter().zip(&regions)) {
            let Some(spec) = *spec else { continue };
            for (offset, len) in layout::windows(index, spec, region, msix.as_ref()) {
                let pages = function.pages(index, offset, len);
                let pages = pages.map_err(VfioError::kernel("map a BAR"))?;
                layout.direct.push(DirectWindow { bar: index, offset, pages });
            }
        }
        let decodes =
            |port: bool| bars.iter().flatten().any(|spec| (spec.kind == BarKind::Io) == port);
        let mut command = Command::from_bits_retain(word(&raw, header::COMMAND)) - COMMAND_OURS;
        command.set(Command::IO, decodes(true));
        command.set(Command::MEMORY, decodes(false));
        let bar_sizes = regions.map(|region| region.size);
        let mut device = Self {
            layout,
            config,
            signals,
            bar_sizes,
            msix,
            command,
            has_pin,
            openers: openers(&list),
            paused: false,
            function,
            _memory: host.memory,
            _pin: host.intx,
        };
        device.set_command(false).map_err(VfioError::kernel("set the command register"))?;
        device.reset_hardware().map_err(VfioError::kernel("reset the function"))?;
        device.signals.settle(&*device.function, &device.config);
        match device.faults().take() {
            Some(error) => Err(error),
            None => Ok(device),
        }
    }

    /// What the kernel refuses from now on. To be had before the function is plugged in.
    pub fn faults(&self) -> Faults {
        self.signals.faults().clone()
    }

    /// Whether the kernel can reset the function on its own.
    pub fn has_reset(&self) -> bool {
        self.function.has_reset()
    }

    fn set_command(&self, bus_master: bool) -> io::Result<()> {
        let mut command = self.command;
        command.set(Command::BUS_MASTER, bus_master);
        let at = header::COMMAND.into();
        self.function.write(Region::Config, at, &command.bits().to_le_bytes())?;
        // Read back, which also waits for writes of the hardware's that are on their way.
        self.function.read(Region::Config, at, &mut [0; 2])
    }

    fn set_bus_master(&self) {
        let on = self.config.bus_master().enabled() && !self.paused;
        self.check("set the command register", self.set_command(on));
    }

    fn check(&self, what: &'static str, result: io::Result<()>) {
        self.signals.faults().check(what, result);
    }

    /// Resets the function if it can be, which leaves its configuration as it is, but for what a reset may
    /// make of bus mastering: that is off.
    fn reset_hardware(&self) -> io::Result<()> {
        if !self.function.has_reset() {
            return Ok(());
        }
        let reset = self.function.reset();
        self.set_command(false).and(reset)
    }

    /// Everything off: no memory is accessed and nothing raised.
    fn silence(&mut self) {
        self.check("set the command register", self.set_command(false));
        self.signals.stop(&*self.function);
        self.check("reset the function", self.reset_hardware());
    }

    /// Whether a write to configuration space may have a message sent that was held back.
    fn may_open(&self, offset: u16, len: usize) -> bool {
        let len = u16::try_from(len).unwrap_or(u16::MAX);
        let end = offset.saturating_add(len);
        self.openers.iter().any(|place| offset < place.end && end > place.start)
    }

    /// The vectors whose pending bits, or entries, an access of the MSI-X structures touches.
    fn touched(&self, bar: u8, offset: u64, len: usize) -> Range<u16> {
        let Some(msix) = &self.msix else { return 0..0 };
        let [table, pba] = layout::structures(msix);
        let end = offset.saturating_add(len as u64);
        let clamp = |at: u64| u16::try_from(at).unwrap_or(u16::MAX).min(msix.vectors);
        let mut touched = 0..0;
        // An entry has 128 bits, a pending bit one.
        for ((index, start, stop), bits) in [(table, 128), (pba, 1)] {
            if bar == index && offset < stop && end > start {
                let first = offset.saturating_sub(start).saturating_mul(8) / bits;
                let last = (end.min(stop) - start).saturating_mul(8).div_ceil(bits);
                let (first, last) = (clamp(first), clamp(last));
                touched = match touched.is_empty() {
                    true => first..last,
                    false => first.min(touched.start)..last.max(touched.end),
                };
            }
        }
        touched
    }
}

impl<A: Send> PciDevice for VfioPci<A> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.config.bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.signals.collect(&self.config, 0..1);
        self.config.read(offset, data);
        let status = header::STATUS.checked_sub(offset).map(usize::from);
        if self.has_pin
            && let Some(byte) = status.and_then(|at| data.get_mut(at))
        {
            let mut live = [0; 2];
            let read = self.function.read(Region::Config, header::STATUS.into(), &mut live);
            if read.is_ok() {
                let [interrupt, _] = Status::INTERRUPT.bits().to_le_bytes();
                *byte |= live[0] & interrupt;
            }
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        if self.may_open(offset, data.len()) {
            self.signals.collect(&self.config, self.signals.all());
        }
        let written = self.config.write(offset, data);
        if written.bus_master_off {
            self.set_bus_master();
        }
        self.signals.settle(&*self.function, &self.config);
        if written.bus_master_on {
            self.set_bus_master();
        }
        if written.function_reset {
            self.reset();
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.signals.collect(&self.config, self.touched(bar, offset, data.len()));
        data.fill(0xff);
        let size = self.bar_sizes.get(usize::from(bar)).copied().unwrap_or(0);
        for (at, piece) in Pieces::new(offset, data.len(), size) {
            let Some(data) = data.get_mut(piece) else { break };
            if !self.config.msix_read(bar, at, data) {
                let read = self.function.read(Region::Bar(bar), at, data);
                if read.is_err() {
                    data.fill(0xff);
                }
                self.check("read a register", read);
            }
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        let vectors = self.touched(bar, offset, data.len());
        let messages = !vectors.is_empty();
        self.signals.collect(&self.config, vectors);
        let size = self.bar_sizes.get(usize::from(bar)).copied().unwrap_or(0);
        for (at, piece) in Pieces::new(offset, data.len(), size) {
            let Some(data) = data.get(piece) else { break };
            if !self.config.msix_write(bar, at, data) {
                let written = self.function.write(Region::Bar(bar), at, data);
                self.check("write a register", written);
            }
        }
        if messages {
            self.signals.settle(&*self.function, &self.config);
        }
    }

    fn reset(&mut self) {
        self.silence();
        self.config.reset();
        self.signals.settle(&*self.function, &self.config);
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        let already = std::mem::replace(&mut self.paused, true);
        if !already {
            self.set_bus_master();
            self.signals.pause(&*self.function, &self.config, true);
        }
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        if std::mem::replace(&mut self.paused, false) {
            self.signals.pause(&*self.function, &self.config, false);
            self.set_bus_master();
        }
        Ok(())
    }
}

impl<A> Drop for VfioPci<A> {
    fn drop(&mut self) {
        self.silence();
    }
}

/// An access, cut into pieces of 1, 2, 4 or 8 bytes, naturally aligned: so none of them is part of an
/// MSI-X structure and part of something else. What is beyond the BAR's end is left out.
struct Pieces {
    offset: u64,
    done: usize,
    len: usize,
}

impl Pieces {
    fn new(offset: u64, len: usize, size: u64) -> Self {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        Self { offset, done: 0, len: len.min(left) }
    }
}

impl Iterator for Pieces {
    type Item = (u64, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.offset.checked_add(self.done as u64)?;
        let left = self.len.checked_sub(self.done)?;
        let width = [8, 4, 2, 1]
            .into_iter()
            .find(|width| *width <= left && at.is_multiple_of(*width as u64))?;
        let start = self.done;
        self.done += width;
        Some((at, start..self.done))
    }
}

fn read_config(function: &dyn Function) -> Result<[u8; CONFIG_LEN], VfioError> {
    let mut raw = [0; CONFIG_LEN];
    if function.region(Region::Config).size < CONFIG_LEN as u64 {
        return Err(VfioError::Unsuited("it has no whole configuration space".to_owned()));
    }
    for (offset, bytes) in (0..).step_by(4).zip(raw.chunks_exact_mut(4)) {
        let read = function.read(Region::Config, offset, bytes);
        read.map_err(VfioError::kernel("read configuration space"))?;
    }
    if word(&raw, header::VENDOR_ID) == u16::MAX {
        return Err(VfioError::Unsuited("it does not answer".to_owned()));
    }
    Ok(raw)
}

/// The registers that enable or mask interrupts, or let the function send them.
fn openers(list: &[Capability]) -> Vec<Range<u16>> {
    let places = list.iter().filter_map(|capability| match capability.kind {
        Kind::Power => Some(capability.at + pm::CONTROL..capability.at + pm::LEN),
        Kind::Msi { .. } | Kind::Msix(_) => Some(capability.at..capability.at + capability.len()),
        Kind::Copy { .. } => None,
    });
    std::iter::once(header::COMMAND..header::STATUS).chain(places).collect()
}

/// The configuration space that the guest sees, without BARs and pin.
fn builder(raw: &[u8; CONFIG_LEN], list: &[Capability], has_msi: bool) -> ConfigSpaceBuilder {
    let class = [2, 1, 0].map(|at| byte(raw, header::CLASS_CODE + at));
    let mut builder = ConfigSpaceBuilder::new(Identity {
        vendor: word(raw, header::VENDOR_ID),
        device: word(raw, header::DEVICE_ID),
        revision: byte(raw, header::REVISION_ID),
        class,
        subsystem_vendor: word(raw, header::SUBSYSTEM_VENDOR_ID),
        subsystem: word(raw, header::SUBSYSTEM_ID),
    });
    let behind = raw.get(usize::from(header::END)..).unwrap_or_default();
    builder = builder.read_only(header::END, behind);
    for Capability { at, kind } in list {
        builder = match kind {
            Kind::Power => builder.place(*at).power_management(),
            Kind::Msi { .. } if !has_msi => builder,
            Kind::Msi { maskable: true } => builder.place(*at).msi(),
            Kind::Msi { maskable: false } => builder.place(*at).msi_without_mask(),
            Kind::Msix(layout) => builder.place(*at).msix(*layout),
            Kind::Copy { id, body, writable } => {
                let mut builder = builder.place(*at);
                builder.capability(*id, body, writable);
                builder
            }
        };
    }
    builder
}

#[cfg(test)]
mod tests;
