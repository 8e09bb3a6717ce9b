//! A served function as a [`PciDevice`].

mod discovery;
mod forward;
mod lent;
mod link;
mod messages;
mod state;
mod written;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use paraslot_device::{
    DeviceError, DmaSpace, Doorbell, Host, IntxEventFds, MsiMessage, SavedState, StateError,
    WorkerHandle,
};
use paraslot_pci::{BarKind, BarState, Layout, PciDevice};
use paraslot_spec::pci::{Command, header, msi, msix, pm};

use crate::connection::End;
use crate::function::Capabilities;
use crate::sys;
use crate::wire::{feature, irq, region};
use discovery::{
    CONFIG_LEN, command_in, copy, doorbells, dword, read_config, share, specs, windows,
    with_bus_master, word,
};
use forward::Forwarder;
use link::{Link, RegionInfo};
use messages::{GuestTable, Vectors, Wish};

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
    /// Guest memory that no other process can map, and a server that does not read and write it by messages.
    #[error("guest memory at {0:#x} has no file: the vfio-user server cannot map it")]
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
/// server has those, and no interrupt comes by this process; otherwise a worker passes them on, and several of a vector's that come before
/// it looks are one, as with any eventfd. A doorbell that
/// is an eventfd is rung instead of written. A page that may be read without asking is mapped.
///
/// The guest's memory should be in files, as memory that was made with `memfd_create` is: those are shared with the
/// server when the function is made. What is in none the server reads and writes by messages, some for each request
/// of the guest's; they are answered by a worker, and by whoever waits for the server in the meantime. That worker needs
/// a thread: an executor on which the server's own workers run too (where both are in one process) may have
/// all of its threads wait for it. Memory that the guest gets later the server does not have.
///
/// A server that goes away, breaks the protocol or refuses what it must not leaves a function of which all
/// registers read as ones, and a [`Fault`].
///
/// [`pause`](PciDevice::pause) has the server stop the function (VFIO's device state STOP), and saved states are
/// the server's: text, as servers of this crate have it. Of a server without device states, `pause`
/// takes bus mastering away: its function accesses no memory and sends no message then, and keeps what it is
/// asked for until [`resume`](PciDevice::resume); its pin is masked.
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
    /// The server has device states, and the function's own.
    has_states: bool,
    can_move: bool,
    paused: Paused,
    lost: bool,
    fault: Fault,
    /// Answers what the server asks of memory, if not all of it is shared.
    _attendant: Option<Box<dyn WorkerHandle>>,
    /// What the server has mapped stays, and what its pin is wired to.
    memory: A,
}

/// Whether the function is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paused {
    No,
    /// By the server.
    Stopped,
    /// Bus mastering was taken away; whether the guest wants it.
    Muted(bool),
}

/// How the pin is connected.
enum Pin {
    None,
    Wired(IntxEventFds),
    Forwarded(vmm_sys_util::eventfd::EventFd),
}

impl<A: DmaSpace> VfioUser<A> {
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
        let attendant = share(&mut link, &memory)?;
        let attendant = attendant.map(|one| executor.spawn("vfio-user memory", Box::new(one)));
        let attendant = attendant.transpose()?;

        let (has_states, can_move) = link.migration()?;
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
            has_states,
            can_move,
            paused: Paused::No,
            lost: false,
            fault: Fault::default(),
            _attendant: attendant,
            memory,
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
            self.settle_level();
        }
        Ok(())
    }

    /// Makes the level of the host's line what the server has said of it.
    fn settle_level(&self) {
        if matches!(self.pin, Pin::Forwarded(_)) {
            self.forwarder.settle();
        }
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
        if let (Paused::Muted(wanted), Some(byte)) = (self.paused, command_in(offset, data)) {
            *byte = with_bus_master(*byte, wanted);
        }
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let mut held_back = data.to_vec();
        if let (Paused::Muted(wanted), Some(byte)) =
            (&mut self.paused, command_in(offset, &mut held_back))
        {
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
        self.pause_it()
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.resume_it()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.save_it()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.check_movable()?;
        let restored = self.try_restore(state);
        if restored.is_err() {
            self.reset();
        }
        restored
    }
}

impl<A> VfioUser<A> {
    /// The server's function was reset.
    fn after_reset(&mut self, config: &[u8; CONFIG_LEN]) -> Result<(), ClientError> {
        match &mut self.paused {
            Paused::No => {}
            // A reset has it run.
            Paused::Stopped => self.link.set_state(feature::STOP)?,
            Paused::Muted(wanted) => *wanted = false,
        }
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

#[cfg(test)]
mod tests;
