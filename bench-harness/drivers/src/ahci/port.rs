//! Bringing an HBA and a port up, and down again (AHCI 1.3.1, 10).

use paraslot_spec::ahci::{
    ABAR, CLASS_CODE, Cap, Cap2, Ghc, PORTS, PortCommand, SIGNATURE_ATA, host, port, port_base,
    sctl, ssts,
};
use paraslot_spec::ata;
use paraslot_spec::pci::Command;

use super::AhciOptions;
use super::memory::PortMemory;
use crate::error::{delay, wait_until};
use crate::pci::{Function, Way, connect, functions};
use crate::{Error, Platform, Window};

/// How long an HBA reset may take (10.4.3), in milliseconds.
const RESET_MS: u64 = 1000;
/// How long an engine may take to stop (10.4.2), in milliseconds.
const STOP_MS: u64 = 500;
/// How long a device may take to answer a COMRESET, in milliseconds: Serial ATA allows it 10.
const ANSWER_MS: u64 = 20;
/// How long the link may take to come up once it has, in milliseconds.
const LINK_MS: u64 = 1000;
/// How long the device may be busy after a reset, in milliseconds.
const READY_MS: u64 = 10_000;
/// How long COMRESET is asserted (10.4.2), in microseconds.
const COMRESET_US: u64 = 1000;
/// How long firmware may keep the HBA (10.6.3), in milliseconds.
const HANDOFF_MS: u64 = 2000;

/// BOHC: the firmware owns the HBA (3.1.11).
const BOHC_BOS: u32 = 1 << 0;
/// BOHC: the operating system does.
const BOHC_OOS: u32 = 1 << 1;

/// The registers of an HBA, and which of its ports is used.
pub(super) struct Hba<'p, P> {
    pub(super) platform: &'p P,
    function: Function<'p, P>,
    window: Window<'p, P>,
    base: u64,
    port: u8,
    pub(super) cap: Cap,
    interrupt: u8,
    /// None, if it cannot interrupt.
    way: Option<Way>,
}

impl<'p, P: Platform> Hba<'p, P> {
    /// Takes over the first AHCI HBA on bus 0 and resets it.
    pub(super) fn new(platform: &'p P, options: AhciOptions) -> Result<Self, Error> {
        let function = functions(platform).find(|function| function.class() == CLASS_CODE);
        let function: Function<'p, P> = function.ok_or(Error::NotFound)?;
        function.enable()?;
        let bar = function.bar(ABAR)?;
        let window = Window::new(platform, bar.address, bar.size);
        if window.len() < u64::from(PORTS) {
            return Err(Error::Protocol("ABAR is too small"));
        }
        let (interrupt, way) = (options.interrupt, None);
        let mut hba = Self {
            platform,
            function,
            window,
            base: 0,
            port: 0,
            cap: Cap::empty(),
            interrupt,
            way,
        };
        hba.reset()?;
        hba.way = connect(function, options.interrupt, options.signal)?;
        hba.cap = Cap::from_bits_retain(hba.read(host::CAP));
        Ok(hba)
    }

    fn reset(&self) -> Result<(), Error> {
        let ghc = |bits: Ghc| self.write(host::GHC, bits.bits());
        if Cap2::from_bits_retain(self.read(host::CAP2)).contains(Cap2::BOH) {
            self.write(host::BOHC, self.read(host::BOHC) | BOHC_OOS);
            wait_until(self.platform, HANDOFF_MS, "hand-over from firmware", || {
                self.read(host::BOHC) & BOHC_BOS == 0
            })?;
        }
        ghc(Ghc::AE);
        ghc(Ghc::AE | Ghc::HR);
        wait_until(self.platform, RESET_MS, "HBA reset", || {
            !Ghc::from_bits_retain(self.read(host::GHC)).contains(Ghc::HR)
        })?;
        ghc(Ghc::AE);
        Ok(())
    }

    /// Stops everything: an HBA reset.
    pub(super) fn shutdown(&self) -> Result<(), Error> {
        let result = self.reset();
        if self.way == Some(Way::Pin) {
            self.function.set_command(self.function.command() | Command::INTX_DISABLE);
            self.end_of_interrupt();
        }
        result
    }

    /// Whether its interrupts reach the platform.
    pub(super) fn can_interrupt(&self) -> bool {
        self.way.is_some()
    }

    /// The handling of an interrupt is over: its causes were cleared. It matters to the pin alone.
    pub(super) fn end_of_interrupt(&self) {
        if self.way == Some(Way::Pin) {
            self.platform.end_of_interrupt(self.interrupt);
        }
    }

    pub(super) fn window(&self) -> &Window<'p, P> {
        &self.window
    }

    /// Reads a generic host control register.
    pub(super) fn read(&self, register: u32) -> u32 {
        self.window.read32(u64::from(register))
    }

    /// Writes one.
    pub(super) fn write(&self, register: u32, value: u32) {
        self.window.write32(u64::from(register), value);
    }

    /// Reads a register of the port.
    pub(super) fn port_read(&self, register: u32) -> u32 {
        self.window.read32(self.base + u64::from(register))
    }

    /// Writes one.
    pub(super) fn port_write(&self, register: u32, value: u32) {
        self.window.write32(self.base + u64::from(register), value);
    }

    /// The port's bit in the HBA's registers.
    pub(super) fn port_bit(&self) -> u32 {
        1 << self.port
    }

    pub(super) fn enable_interrupts(&self, on: bool) {
        let ie = if on { Ghc::IE } else { Ghc::empty() };
        self.write(host::GHC, (Ghc::AE | ie).bits());
    }

    fn command(&self) -> PortCommand {
        PortCommand::from_bits_retain(self.port_read(port::CMD))
    }

    fn set_command(&self, command: PortCommand) {
        self.port_write(port::CMD, command.bits());
    }

    /// Finds the first port with an ATA device behind it, and starts it on `memory`.
    pub(super) fn find_disk(&mut self, memory: &PortMemory) -> Result<(), Error> {
        let implemented = self.read(host::PI);
        for index in 0..32 {
            let base = u64::from(port_base(index));
            let inside = base + u64::from(paraslot_spec::ahci::PORT_SIZE) <= self.window.len();
            if implemented & (1 << index) == 0 || !inside {
                continue;
            }
            (self.base, self.port) = (base, index);
            self.stop()?;
            self.set_memory(memory);
            if !self.connect()? {
                continue;
            }
            if self.port_read(port::SIG) == SIGNATURE_ATA {
                self.start()?;
                return Ok(());
            }
            self.stop()?;
        }
        Err(Error::NotFound)
    }

    /// Stops both engines (10.1.2, 10.3).
    fn stop(&self) -> Result<(), Error> {
        self.stop_commands()?;
        self.set_command(self.command() - PortCommand::FRE);
        wait_until(self.platform, STOP_MS, "FIS receive stop", || {
            !self.command().contains(PortCommand::FR)
        })
    }

    /// Stops the command list engine; the HBA forgets what was issued (10.3.1).
    pub(super) fn stop_commands(&self) -> Result<(), Error> {
        self.set_command(self.command() - PortCommand::ST);
        wait_until(self.platform, STOP_MS, "command list stop", || {
            !self.command().contains(PortCommand::CR)
        })
    }

    fn set_memory(&self, memory: &PortMemory) {
        for (low, high, address) in [
            (port::CLB, port::CLBU, memory.command_list()),
            (port::FB, port::FBU, memory.received_fis()),
        ] {
            let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
            self.port_write(low, u32::from_le_bytes([a, b, c, d]));
            self.port_write(high, u32::from_le_bytes([e, f, g, h]));
        }
    }

    /// Brings the link up by a COMRESET; says whether a device is there and ready.
    fn connect(&self) -> Result<bool, Error> {
        // The device's first FIS is to be received.
        self.set_command(self.command() | PortCommand::FRE | PortCommand::SUD | PortCommand::POD);
        if !self.reset_link() {
            return Ok(false);
        }
        let ready = wait_until(self.platform, READY_MS, "device ready", || self.is_ready());
        // Ports whose device does not answer are as good as empty.
        Ok(ready.is_ok())
    }

    fn is_ready(&self) -> bool {
        let [status, ..] = self.port_read(port::TFD).to_le_bytes();
        status & (ata::status::BSY | ata::status::DRQ) == 0
    }

    /// COMRESET (10.4.2); says whether there is a device. The command list engine must be stopped.
    pub(super) fn reset_link(&self) -> bool {
        self.port_write(port::SCTL, sctl::DET_COMRESET);
        delay(self.platform, COMRESET_US);
        self.port_write(port::SCTL, sctl::DET_NONE);
        let answered = wait_until(self.platform, ANSWER_MS, "COMINIT", || {
            self.port_read(port::SSTS) & ssts::DET != ssts::DET_NONE
        });
        let up = answered
            .and_then(|()| wait_until(self.platform, LINK_MS, "link", || self.is_connected()));
        // COMINIT and PhyRdy leave their marks there, and block later ones.
        self.port_write(port::SERR, u32::MAX);
        self.port_write(port::IS, u32::MAX);
        up.is_ok()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.port_read(port::SSTS) & ssts::DET == ssts::DET_ESTABLISHED
    }

    /// Starts the command list engine (10.3.1).
    pub(super) fn start(&self) -> Result<(), Error> {
        // A device that hangs in the middle of a command only comes back by a COMRESET.
        if self.is_ready() || (self.reset_link() && self.is_ready_soon()) {
            self.set_command(self.command() | PortCommand::ST);
            Ok(())
        } else {
            Err(Error::Timeout("device ready"))
        }
    }

    fn is_ready_soon(&self) -> bool {
        wait_until(self.platform, READY_MS, "device ready", || self.is_ready()).is_ok()
    }
}
