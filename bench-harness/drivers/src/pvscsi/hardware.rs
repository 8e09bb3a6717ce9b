//! The registers.

use core::mem::offset_of;

use paraslot_spec::pci::{Command, VENDOR_VMWARE};
use paraslot_spec::pvscsi::{
    Config, ConfigController, ConfigHeader, DEVICE_PVSCSI, Intr, MEMORY_BAR, MEMORY_BAR_SIZE,
    PAGE_SIZE, SetupReqCall, command, command_status, config, host_status, register,
};
use paraslot_spec::scsi::status;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::Options;
use crate::pci::{Function, Way, connect, functions};
use crate::{Accesses, Error, Platform, Window};

/// Targets of an adapter that does not say how many there can be, as Linux takes it.
const USUAL_TARGETS: u16 = 16;
/// Most targets that a request can name.
const MAX_TARGETS: u16 = 256;

/// An adapter's function and registers.
pub(super) struct Hardware<'p, P> {
    platform: &'p P,
    function: Function<'p, P>,
    window: Window<'p, P>,
    /// None, if it cannot interrupt.
    pub(super) way: Option<Way>,
    interrupt: u8,
}

impl<'p, P: Platform> Hardware<'p, P> {
    /// The first adapter on bus 0, reset.
    pub(super) fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        let function = functions(platform)
            .find(|function| {
                (function.vendor(), function.device()) == (VENDOR_VMWARE, DEVICE_PVSCSI)
            })
            .ok_or(Error::NotFound)?;
        function.enable()?;
        let bar = function.bar(MEMORY_BAR)?;
        if bar.size < MEMORY_BAR_SIZE {
            return Err(Error::Protocol("the memory BAR is too small"));
        }
        let window = Window::new(platform, bar.address, bar.size);
        let interrupt = options.interrupt;
        let mut this = Self { platform, function, window, way: None, interrupt };
        this.set_mask(Intr::empty());
        this.command(command::ADAPTER_RESET);
        this.way = connect(function, interrupt, options.signal)?;
        Ok(this)
    }

    pub(super) fn platform(&self) -> &'p P {
        self.platform
    }

    pub(super) fn accesses(&self) -> Accesses {
        self.window.accesses()
    }

    fn read(&self, register: u32) -> u32 {
        self.window.read32(register.into())
    }

    fn write(&self, register: u32, value: u32) {
        self.window.write32(register.into(), value);
    }

    /// Gives a command that has no descriptor.
    pub(super) fn command(&self, command: u32) {
        self.write(register::COMMAND, command);
    }

    /// Gives a command with its descriptor.
    pub(super) fn command_with(&self, command: u32, descriptor: &(impl IntoBytes + Immutable)) {
        self.command(command);
        let (words, _) = descriptor.as_bytes().as_chunks();
        for word in words {
            self.write(register::COMMAND_DATA, u32::from_le_bytes(*word));
        }
    }

    /// What became of the last command.
    fn status(&self) -> u32 {
        self.read(register::COMMAND_STATUS)
    }

    /// Whether the adapter knows a command of its later revisions. It waits for the descriptor then,
    /// until another command is given.
    pub(super) fn knows(&self, command: u32) -> bool {
        self.command(command);
        self.status() != command_status::FAILED
    }

    /// Asks the adapter to say when it wants to be kicked; returns whether it will.
    pub(super) fn set_up_threshold(&self) -> bool {
        let command = command::SETUP_REQCALLTHRESHOLD;
        if !self.knows(command) {
            return false;
        }
        self.command_with(command, &SetupReqCall { enable: U32::new(1) });
        !matches!(self.status(), 0 | command_status::FAILED)
    }

    /// Targets that there can be.
    pub(super) fn targets(&self) -> Result<u16, Error> {
        let len = usize::try_from(PAGE_SIZE).unwrap_or(0);
        let page = self.platform.allocate(len).ok_or(Error::NoMemory)?;
        let (host, scsi) =
            (offset_of!(ConfigHeader, host_status), offset_of!(ConfigHeader, scsi_status));
        // An adapter that does not fill it in leaves it as a failure.
        page.write16(host, host_status::INVPARAM);
        page.write16(scsi, status::CHECK_CONDITION.into());
        let request = {
            let mut request = Config::default();
            request.completion = U64::new(page.physical(0));
            request.address = U64::new(u64::from(config::address::CONTROLLER) << 32);
            request.page = U32::new(config::CONTROLLER);
            request
        };
        self.command_with(command::CONFIG, &request);
        let good = page.read16(host) == host_status::SUCCESS
            && page.read16(scsi) == u16::from(status::GOOD);
        let phys = page.load32(offset_of!(ConfigController, phys));
        Ok(match u16::try_from(phys) {
            Ok(phys) if good && phys != 0 => phys.min(MAX_TARGETS),
            _ => USUAL_TARGETS,
        })
    }

    /// Tells the adapter of requests, all of which are reads or writes.
    pub(super) fn kick_reads_and_writes(&self) {
        self.write(register::KICK_RW_IO, 0);
        self.window.count_doorbell();
    }

    /// Tells the adapter of requests.
    pub(super) fn kick(&self) {
        self.write(register::KICK_NON_RW_IO, 0);
        self.window.count_doorbell();
    }

    /// Says which causes interrupt.
    pub(super) fn set_mask(&self, causes: Intr) {
        self.write(register::INTR_MASK, causes.bits());
    }

    /// Forgets causes.
    pub(super) fn clear_causes(&self) {
        self.write(register::INTR_STATUS, Intr::all().bits());
    }

    /// Takes the causes of an interrupt by the pin; returns whether there were any.
    pub(super) fn take_causes(&self) -> bool {
        let causes = self.read(register::INTR_STATUS);
        if !Intr::from_bits_retain(causes).intersects(Intr::all()) {
            return false;
        }
        self.write(register::INTR_STATUS, causes);
        true
    }

    /// The handling of an interrupt by the pin is over.
    pub(super) fn end_of_interrupt(&self) {
        self.platform.end_of_interrupt(self.interrupt);
    }

    /// Resets the adapter: afterwards it touches no memory.
    pub(super) fn reset(&self) {
        self.command(command::ADAPTER_RESET);
    }

    /// Stops the adapter for good.
    pub(super) fn stop(&self) {
        self.set_mask(Intr::empty());
        if self.way == Some(Way::Pin) {
            self.function.set_command(self.function.command() | Command::INTX_DISABLE);
            self.end_of_interrupt();
        }
        self.reset();
    }
}
