//! A served function as a [`PciDevice`].

mod forward;
mod link;
mod messages;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use paraslot_device::{DeviceError, Doorbell, Host, IntxEventFds, MsiMessage, SharedPage};
use paraslot_pci::{BarKind, BarSpec, BarState, Layout, PciDevice, ROM_BAR, ReadWindow};
use paraslot_spec::pci::{Command, bar, header, msi, msix, pm};
use vm_memory::{GuestAddressSpace, GuestMemory, GuestMemoryBackend, GuestMemoryRegion};

use crate::connection::End;
use crate::function::Capabilities;
use crate::sys;
use crate::wire::{irq, region};
use forward::Forwarder;
use link::{Link, RegionInfo};
use messages::{GuestTable, Vectors, Wish};

/// Bytes of conventional configuration space.
const CONFIG_LEN: usize = 256;

/// Why a served function could not be had, or was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection failed.
    #[error("vfio-user: {0}")]
    Connection(#[from] End),
    /// The server refused a command.
    #[error("the vfio-user server refuses command {command}: {}", io::Error::from_raw_os_error(*.errno))]
    Refused {
        /// The command's number.
        command: u16,
        /// Why, as an errno.
        errno: i32,
    },
    /// The server's answer makes no sense.
    #[error("the vfio-user server's answer makes no sense")]
    Malformed,
    /// It is not a function that can be used.
    #[error("the function that is served: {0}")]
    Unsuited(&'static str),
    /// Guest memory that no other process can map.
    #[error("guest memory at {0:#x} has no file: a vfio-user server cannot map it")]
    NoFile(u64),
    /// The host lacks something that it takes.
    #[error("vfio-user: {0}")]
    Host(DeviceError),
}

/// What became of a connection.
#[derive(Clone, Default)]
pub struct Fault(Arc<Mutex<Option<ClientError>>>);

impl Fault {
    /// Why the function does not answer any more, if so; told once.
    pub fn take(&self) -> Option<ClientError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, error: ClientError) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// A function that another process serves, plugged into this one's bus.
///
/// Registers are the server's, each access a message, but for the MSI-X table: that is here, and the server
/// has an eventfd for each vector that may send. Where the host has eventfds for its interrupts, the
/// server has those, and no interrupt comes by this process; otherwise a worker passes them on. A doorbell that
/// is an eventfd is rung instead of written. A page that may be read without asking is mapped.
///
/// All of the guest's memory has to be in files, as memory that was made with `memfd_create` is; it is shared
/// with the server when the function is made. Memory that the guest gets later is not.
///
/// A server that goes away, breaks the protocol or refuses what it must not leaves a function of which all
/// registers read as ones, and a [`Fault`].
///
/// [`pause`](PciDevice::pause) takes bus mastering away: the server's function accesses no memory and sends no
/// message then, and keeps what it is asked for until [`resume`](PciDevice::resume). Its pin is masked.
pub struct VfioUser<A> {
    link: Link,
    layout: Layout,
    capabilities: Capabilities,
    bars: [Option<BarState>; 7],
    table: Option<GuestTable>,
    msix: Vectors,
    msi: Option<Vectors>,
    forwarder: Forwarder,
    pin: Pin,
    /// Bus mastering was taken away; whether the guest wants it.
    paused: Option<bool>,
    lost: bool,
    fault: Fault,
    /// What the server has mapped stays, and what its pin is wired to.
    _memory: A,
}

/// How the pin is connected.
enum Pin {
    None,
    Wired(IntxEventFds),
    Forwarded(vmm_sys_util::eventfd::EventFd),
}

impl<A: GuestAddressSpace> VfioUser<A> {
    /// The function that is served at the socket `path`.
    ///
    /// # Errors
    /// When nobody serves there, what is served cannot be used, or `host` lacks something.
    pub fn connect(path: &Path, host: Host<A>) -> Result<Self, ClientError> {
        let socket = UnixStream::connect(path).map_err(End::Socket)?;
        Self::new(socket, host)
    }

    /// The same over a socket that is connected.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn new(socket: UnixStream, host: Host<A>) -> Result<Self, ClientError> {
        let Host { memory, msi, intx, executor } = host;
        let mut link = Link::new(socket)?;
        let (_, irqs) = link.device_info()?;
        let regions: Result<Vec<_>, _> =
            (0..region::COUNT - 1).map(|index| link.region_info(index)).collect();
        let regions = regions?;
        link.reset()?;
        let size = |index: u32| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            regions.get(index).map_or(0, |info: &RegionInfo| info.size)
        };
        if size(region::CONFIG) < CONFIG_LEN as u64 {
            return Err(ClientError::Unsuited("it has no whole configuration space"));
        }
        let specs = specs(&mut link, |bar| size(bar.into()))?;
        let config = read_config(&mut link)?;
        let capabilities = Capabilities::find(|at, data| copy(&config, at, data));
        let mut count = |index| if index < irqs { link.irqs(index) } else { Ok(0) };
        let (pins, msis, msixs) = (count(irq::INTX)?, count(irq::MSI)?, count(irq::MSIX)?);
        let table = capabilities.msix.filter(|table| u32::from(table.vectors) <= msixs);
        if let Some(table) = &table {
            let spec = specs.get(usize::from(table.bar)).copied().flatten();
            let end = table.offset + u64::from(table.vectors) * msix::ENTRY_LEN;
            if spec.is_none_or(|spec| spec.kind == BarKind::Io || end > spec.size) {
                return Err(ClientError::Unsuited("its MSI-X table is in no BAR"));
            }
        }
        let has_msi = capabilities.msi.is_some() && msis > 0;
        let mut layout = Layout {
            bars: specs,
            msix_vectors: table.map_or(0, |table| table.vectors),
            msi_vectors: has_msi.into(),
            intx: pins > 0,
            ..Layout::default()
        };
        for index in 0..6 {
            layout.doorbells.extend(doorbells(&mut link, index, size(index.into()))?);
        }
        layout.windows = windows(regions)?;
        share(&mut link, &memory)?;

        let mut forwarder = Forwarder::new(msi.clone(), intx.clone(), executor)?;
        let pin = match (pins > 0, intx.eventfds()) {
            (false, _) => Pin::None,
            (true, Some(pair)) => Pin::Wired(pair),
            (true, None) => Pin::Forwarded(forwarder.pin()?),
        };
        let msix = Vectors::new(irq::MSIX, layout.msix_vectors, msi.clone());
        let mut device = Self {
            link,
            layout,
            capabilities: Capabilities { msix: table, ..capabilities },
            bars: [None; 7],
            table: table.map(GuestTable::new),
            msix,
            msi: has_msi.then(|| Vectors::new(irq::MSI, 1, msi)),
            forwarder,
            pin,
            paused: None,
            lost: false,
            fault: Fault::default(),
            _memory: memory,
        };
        device.wire_pin()?;
        device.look(&config)?;
        Ok(device)
    }
}

impl<A> VfioUser<A> {
    /// What becomes of the connection. To be had before the function is plugged in.
    pub fn fault(&self) -> Fault {
        self.fault.clone()
    }

    /// Does something with the server; what fails is the last thing that is done.
    fn with<R>(&mut self, act: impl FnOnce(&mut Self) -> Result<R, ClientError>) -> Option<R> {
        if self.lost {
            return None;
        }
        match act(self) {
            Ok(result) => Some(result),
            Err(error) => {
                self.lost = true;
                self.fault.set(error);
                None
            }
        }
    }

    fn wire_pin(&mut self) -> Result<(), ClientError> {
        let trigger = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
        match &self.pin {
            Pin::None => Ok(()),
            Pin::Wired(IntxEventFds { assert, acknowledged }) => {
                let unmask = irq::DATA_EVENTFD | irq::ACTION_UNMASK;
                self.link.set_irqs(unmask, irq::INTX, 0, 1, &[sys::borrow(acknowledged)])?;
                self.link.set_irqs(trigger, irq::INTX, 0, 1, &[sys::borrow(assert)])
            }
            Pin::Forwarded(event) => {
                self.link.set_irqs(trigger, irq::INTX, 0, 1, &[sys::borrow(event)])
            }
        }
    }

    /// Asks whether the pin is asserted still, after an access that may have changed that.
    fn settle_pin(&mut self) -> Result<(), ClientError> {
        if matches!(self.pin, Pin::Forwarded(_)) && self.forwarder.asserted() {
            self.mask_pin(false)?;
            self.forwarder.settle();
        }
        Ok(())
    }

    fn mask_pin(&mut self, masked: bool) -> Result<(), ClientError> {
        if matches!(self.pin, Pin::None) {
            return Ok(());
        }
        let action = if masked { irq::ACTION_MASK } else { irq::ACTION_UNMASK };
        self.link.set_irqs(irq::DATA_NONE | action, irq::INTX, 0, 1, &[])
    }

    /// Follows what configuration space says.
    fn look(&mut self, config: &[u8; CONFIG_LEN]) -> Result<(), ClientError> {
        let power = self.capabilities.power.map(|at| word(config, at + pm::CONTROL) & pm::STATE);
        let command = Command::from_bits_truncate(word(config, header::COMMAND));
        self.bars = BarState::decode(&self.layout.bars, command, power.unwrap_or(0) == 0, |at| {
            dword(config, at)
        });
        self.look_at_msix(config)?;
        self.look_at_msi(config)
    }

    fn look_at_msix(&mut self, config: &[u8; CONFIG_LEN]) -> Result<(), ClientError> {
        let Some(place) = self.capabilities.msix else { return Ok(()) };
        let control = word(config, place.control);
        if control & msix::ENABLE == 0 {
            return self.msix.off(&mut self.link, &mut self.forwarder);
        }
        let masked = control & msix::FUNCTION_MASK != 0;
        self.set_vectors(0..place.vectors, masked)
    }

    fn set_vectors(
        &mut self,
        vectors: std::ops::Range<u16>,
        all_masked: bool,
    ) -> Result<(), ClientError> {
        let Some(table) = &self.table else { return Ok(()) };
        let wishes: Vec<_> = vectors
            .filter_map(|vector| {
                let (message, masked) = table.entry(vector)?;
                Some(Wish { vector, message, open: !masked && !all_masked })
            })
            .collect();
        self.msix.set(&mut self.link, &mut self.forwarder, &wishes)
    }

    fn look_at_msi(&mut self, config: &[u8; CONFIG_LEN]) -> Result<(), ClientError> {
        let (Some(vectors), Some(at)) = (&mut self.msi, self.capabilities.msi) else {
            return Ok(());
        };
        let control = word(config, at + msi::CONTROL);
        if control & msi::ENABLE == 0 {
            return vectors.off(&mut self.link, &mut self.forwarder);
        }
        let wide = control & msi::ADDRESS_64 != 0;
        let high = if wide { dword(config, at + msi::ADDRESS_HIGH) } else { 0 };
        // What is behind the address is four bytes nearer in a 32-bit capability.
        let nearer = if wide { 0 } else { 4 };
        let message = MsiMessage {
            address: u64::from(dword(config, at + msi::ADDRESS)) | u64::from(high) << 32,
            data: word(config, at + msi::DATA_64 - nearer).into(),
        };
        let maskable = control & msi::MASKABLE != 0;
        let masked = maskable && dword(config, at + msi::MASK_64 - nearer) & 1 != 0;
        let wish = Wish { vector: 0, message, open: !masked };
        vectors.set(&mut self.link, &mut self.forwarder, &[wish])
    }

    /// A doorbell at a place that is written with `data`.
    fn rings(&self, bar: u8, offset: u64, data: &[u8]) -> Option<&Doorbell> {
        let number =
            || data.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        self.layout.doorbells.iter().find(|bell| {
            (bell.bar, bell.offset) == (bar, offset)
                && (bell.len == 0 || usize::from(bell.len) == data.len())
                && bell.value.is_none_or(|value| data.len() <= 8 && value == number())
        })
    }

    fn set_bus_master(&mut self, on: bool) -> Result<bool, ClientError> {
        let at = header::COMMAND.into();
        let mut command = [0; 2];
        self.link.read(region::CONFIG, at, &mut command)?;
        let before = Command::from_bits_retain(u16::from_le_bytes(command));
        let mut command = before;
        command.set(Command::BUS_MASTER, on);
        self.link.write(region::CONFIG, at, &command.bits().to_le_bytes())?;
        Ok(before.contains(Command::BUS_MASTER))
    }

    fn gone(&self) -> DeviceError {
        DeviceError::Worker(io::ErrorKind::NotConnected.into())
    }
}

impl<A: Send> PciDevice for VfioUser<A> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.bars
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        let read = self.with(|this| this.link.read(region::CONFIG, offset.into(), data));
        if read.is_none() {
            return data.fill(0xff);
        }
        if let (Some(wanted), Some(byte)) = (self.paused, command_in(offset, data)) {
            *byte = with_bus_master(*byte, wanted);
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let mut held_back = data.to_vec();
        if let (Some(wanted), Some(byte)) = (&mut self.paused, command_in(offset, &mut held_back)) {
            *wanted = *byte != with_bus_master(*byte, false);
            *byte = with_bus_master(*byte, false);
        }
        self.with(|this| {
            this.link.write(region::CONFIG, offset.into(), &held_back)?;
            let config = read_config(&mut this.link)?;
            if this.capabilities.resets(offset, data) {
                this.after_reset(&config)?;
            }
            this.look(&config)?;
            this.settle_pin()
        });
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if self.table.as_ref().is_some_and(|table| table.read(bar, offset, data)) {
            return;
        }
        let read = self.with(|this| {
            this.link.read(bar.into(), offset, data)?;
            this.settle_pin()
        });
        if read.is_none() {
            data.fill(0xff);
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if let Some(vectors) = self.table.as_mut().and_then(|table| table.write(bar, offset, data))
        {
            self.with(|this| {
                let control = this.capabilities.msix.map_or(0, |table| table.control);
                let mut bits = [0; 2];
                this.link.read(region::CONFIG, control.into(), &mut bits)?;
                let bits = u16::from_le_bytes(bits);
                if bits & msix::ENABLE == 0 {
                    return Ok(());
                }
                this.set_vectors(vectors, bits & msix::FUNCTION_MASK != 0)
            });
            return;
        }
        if self.rings(bar, offset, data).is_some_and(|bell| bell.event.write(1).is_ok()) {
            return;
        }
        self.with(|this| {
            this.link.write(bar.into(), offset, data)?;
            this.settle_pin()
        });
    }

    fn reset(&mut self) {
        self.with(|this| {
            this.link.reset()?;
            let config = read_config(&mut this.link)?;
            this.after_reset(&config)?;
            this.settle_pin()
        });
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        if self.paused.is_some() {
            return Ok(());
        }
        let paused = self.with(|this| {
            let before = this.set_bus_master(false)?;
            this.mask_pin(true)?;
            Ok(before)
        });
        self.paused = paused;
        paused.map(|_| ()).ok_or_else(|| self.gone())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        let Some(before) = self.paused.take() else { return Ok(()) };
        let resumed = self.with(|this| {
            if before {
                this.set_bus_master(true)?;
            }
            this.forwarder.asserted();
            this.mask_pin(false)?;
            if matches!(this.pin, Pin::Forwarded(_)) {
                this.forwarder.settle();
            }
            Ok(())
        });
        resumed.ok_or_else(|| self.gone())
    }
}

impl<A> VfioUser<A> {
    /// The server's function was reset.
    fn after_reset(&mut self, config: &[u8; CONFIG_LEN]) -> Result<(), ClientError> {
        self.paused = self.paused.map(|_| false);
        if let Some(table) = &mut self.table {
            table.reset();
        }
        self.msix.off(&mut self.link, &mut self.forwarder)?;
        if let Some(msi) = &mut self.msi {
            msi.off(&mut self.link, &mut self.forwarder)?;
        }
        self.look(config)
    }
}

/// The low byte of the command register, among what is read or written from `offset` on.
fn command_in(offset: u16, data: &mut [u8]) -> Option<&mut u8> {
    data.get_mut(usize::from(header::COMMAND.checked_sub(offset)?))
}

fn with_bus_master(byte: u8, on: bool) -> u8 {
    let [bit, _] = Command::BUS_MASTER.bits().to_le_bytes();
    if on { byte | bit } else { byte & !bit }
}

fn read_config(link: &mut Link) -> Result<[u8; CONFIG_LEN], ClientError> {
    let mut config = [0; CONFIG_LEN];
    link.read(region::CONFIG, 0, &mut config)?;
    Ok(config)
}

fn copy(config: &[u8; CONFIG_LEN], at: u16, data: &mut [u8]) {
    for (index, place) in (usize::from(at)..).zip(data) {
        *place = config.get(index).copied().unwrap_or(0);
    }
}

fn word(config: &[u8; CONFIG_LEN], at: u16) -> u16 {
    let mut bytes = [0; 2];
    copy(config, at, &mut bytes);
    u16::from_le_bytes(bytes)
}

fn dword(config: &[u8; CONFIG_LEN], at: u16) -> u32 {
    let mut bytes = [0; 4];
    copy(config, at, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Sizes the BARs, as firmware does: what stays zero when ones are written is the size.
fn specs(
    link: &mut Link,
    region_size: impl Fn(u8) -> u64,
) -> Result<[Option<BarSpec>; 7], ClientError> {
    let mut size = |at: u16| -> Result<(u32, u32), ClientError> {
        let mut before = [0; 4];
        link.read(region::CONFIG, at.into(), &mut before)?;
        link.write(region::CONFIG, at.into(), &u32::MAX.to_le_bytes())?;
        let mut ones = [0; 4];
        link.read(region::CONFIG, at.into(), &mut ones)?;
        link.write(region::CONFIG, at.into(), &before)?;
        Ok((u32::from_le_bytes(before), u32::from_le_bytes(ones)))
    };
    let mut specs = [None; 7];
    let mut upper_half = false;
    for (index, slot) in (0_u8..).zip(&mut specs) {
        if std::mem::take(&mut upper_half) {
            continue;
        }
        let register =
            if index == ROM_BAR { header::ROM } else { header::BAR0 + 4 * u16::from(index) };
        let (before, ones) = size(register)?;
        if ones == 0 {
            continue;
        }
        let kind = match index {
            ROM_BAR => BarKind::Rom,
            _ if before & bar::IO != 0 => BarKind::Io,
            _ if before & bar::MEMORY_64 != 0 => BarKind::Memory64,
            _ => BarKind::Memory32,
        };
        let (flags, high) = match kind {
            BarKind::Io if ones >> 16 == 0 => (bar::IO_FLAGS, 0xffff_ffff_ffff_0000),
            BarKind::Io => (bar::IO_FLAGS, u64::from(u32::MAX) << 32),
            BarKind::Memory32 => (bar::MEMORY_FLAGS, u64::from(u32::MAX) << 32),
            BarKind::Memory64 if index < 5 => {
                upper_half = true;
                (bar::MEMORY_FLAGS, u64::from(size(register + 4)?.1) << 32)
            }
            BarKind::Memory64 => {
                return Err(ClientError::Unsuited("its BAR 5 is a 64-bit one"));
            }
            BarKind::Rom => (0x7ff, u64::from(u32::MAX) << 32),
        };
        let size = (high | u64::from(ones & !flags)).wrapping_neg();
        if !size.is_power_of_two() || size != region_size(index) {
            return Err(ClientError::Unsuited("its BARs are not what its regions are"));
        }
        let memory = matches!(kind, BarKind::Memory32 | BarKind::Memory64);
        let prefetchable = memory && before & bar::PREFETCHABLE != 0;
        *slot = Some(BarSpec { kind, size, prefetchable });
    }
    Ok(specs)
}

/// The doorbells of a BAR. A place outside of it is none.
fn doorbells(link: &mut Link, bar: u8, size: u64) -> Result<Vec<Doorbell>, ClientError> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let list = link.io_fds(bar.into())?;
    let bells = list.into_iter().filter_map(|place| {
        let end = place.offset.checked_add(place.len.max(1).into())?;
        let event = sys::eventfd(place.event).filter(|_| end <= size)?;
        Some(Doorbell { bar, offset: place.offset, len: place.len, value: place.value, event })
    });
    Ok(bells.collect())
}

/// The pages that may be read without asking.
fn windows(regions: Vec<RegionInfo>) -> Result<Vec<ReadWindow>, ClientError> {
    let mut windows = Vec::new();
    for (bar, info) in (0_u8..6).zip(regions) {
        let Some(file) = info.file else { continue };
        for (offset, len) in info.areas {
            let end = offset.checked_add(len).ok_or(ClientError::Malformed)?;
            let at = info.file_offset.checked_add(offset).ok_or(ClientError::Malformed)?;
            let len = usize::try_from(len).map_err(|_| ClientError::Malformed)?;
            if end > info.size {
                return Err(ClientError::Malformed);
            }
            let file = File::from(file.try_clone()?);
            let page = Arc::new(SharedPage::of_other(file, at, len)?);
            windows.push(ReadWindow { bar, offset, page });
        }
    }
    Ok(windows)
}

/// Shares all of the guest's memory.
fn share<A: GuestAddressSpace>(link: &mut Link, memory: &A) -> Result<(), ClientError> {
    let memory = memory.memory();
    let physical = memory.physical_memory();
    let physical = physical.ok_or(ClientError::Unsuited("guest memory is behind an IOMMU"))?;
    for part in physical.iter() {
        let start = part.start_addr().0;
        let file = part.file_offset().ok_or(ClientError::NoFile(start))?;
        link.dma_map(start, part.len(), file.file().as_fd(), file.start())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
