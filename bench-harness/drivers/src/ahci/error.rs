//! Commands of the driver's own, and what it does about errors (AHCI 1.3.1, 6.2.2).

use paraslot_spec::ahci::port as register;
use paraslot_spec::ata::{command, log};

use super::memory::{Command, Data};
use super::{Ahci, CAUSES, SECTOR_LEN};
use crate::error::wait_until;
use crate::{Completion, Completions, Error, Failed, Platform};

/// How long a command of the driver's own may take, in milliseconds.
const COMMAND_MS: u64 = 5000;

impl<P: Platform> Ahci<'_, P> {
    /// Runs a command in slot 0 and waits for it. The port must run, and have no command.
    pub(super) fn run_own(&mut self, command: &Command) -> Result<(), Error> {
        self.memory.set_own(command);
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        self.hba.port_write(register::CI, 1);
        let mut failed = false;
        let result = wait_until(self.hba.platform, COMMAND_MS, "command", || {
            failed = self.memory.error_received();
            failed || self.hba.port_read(register::CI) & 1 == 0
        });
        self.memory.restore();
        result?;
        if failed || self.memory.error_received() {
            self.memory.clear_error();
            return Err(Error::Protocol("a command that every disk knows failed"));
        }
        Ok(())
    }

    /// Restarts the port after an error. The commands that had ended before are completed; the one
    /// that the error is about fails; those that the device dropped because of it are issued again.
    /// Where it cannot be told which one it was, all fail.
    pub(super) fn recover(&mut self, completions: &mut Completions) -> Result<(), Error> {
        // Interrupts of the restart itself are of no interest.
        self.hba.port_write(register::IE, 0);
        // Stopping clears PxSACT and PxCI.
        let done = self.issued() & !self.running();
        self.complete(done, completions);
        let result = self.restart();
        let culprit = match result {
            Ok(()) if self.queued && self.issued() != 0 => self.read_error_log(),
            _ => None,
        };
        self.hba.port_write(register::IS, self.hba.port_read(register::IS));
        if self.interrupts {
            self.hba.port_write(register::IE, CAUSES.bits());
        }
        let issued = self.issued();
        let culprits = culprit.map_or(issued, |tag| 1 << tag) & issued;
        // A culprit that is none of ours tells nothing.
        let culprits = if culprits == 0 { issued } else { culprits };
        for tag in 0..self.depth {
            if culprits & (1 << tag) != 0 {
                completions.push(Completion { tag, result: Err(Failed::Io) });
            }
        }
        self.active &= !culprits;
        result?;
        self.pending |= issued & !culprits;
        crate::Disk::kick(self)
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.hba.port_write(register::SERR, self.hba.port_read(register::SERR));
        self.hba.stop_commands()?;
        self.hba.port_write(register::IS, self.hba.port_read(register::IS));
        self.memory.clear_error();
        if !self.hba.is_connected() {
            return Err(Error::NotFound);
        }
        self.hba.start()
    }

    /// The tag of the queued command that failed (ACS-4, 9.12).
    fn read_error_log(&mut self) -> Option<u8> {
        let sector = self.memory.sector();
        let data = Data { address: sector.physical(0), len: SECTOR_LEN, write: false };
        let mut read = Command { data: Some(data), ..Command::new(command::READ_LOG_EXT) };
        read.fis.set_lba(u64::from(log::address::NCQ_COMMAND_ERROR));
        read.fis.count = 1.into();
        self.run_own(&read).ok()?;
        let tag = sector.read8(log::ncq_error::TAG);
        let queued = tag & log::ncq_error::NOT_QUEUED == 0;
        queued.then_some(tag & 0x1f)
    }
}
