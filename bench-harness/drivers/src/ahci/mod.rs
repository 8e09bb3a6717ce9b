//! A SATA disk behind an AHCI HBA (AHCI 1.3.1).
//!
//! # Register accesses
//! Commands are issued and completed by the register accesses that Linux's libahci makes, so that a
//! count of them, or of the exits they cause, means here what it means there:
//! - issue: write PxSACT (queued commands only), write PxCI;
//! - interrupt: read IS, read PxIS, write PxIS, read PxSACT (PxCI for a command that is not queued),
//!   write IS.
//!
//! There is one difference, in the device's favour: commands submitted before one kick are issued
//! together, by one write of PxSACT and one of PxCI, where Linux makes two writes for each.
//!
//! A look for completions while polling is one read of PxSACT or PxCI, the only place that says which
//! commands have ended: the received FIS area keeps but the last set device bits FIS, so several in a
//! row would hide each other. Errors are first looked for in that area, which costs no register
//! access, since a FIS with an error is the last one that the port receives.

mod error;
mod identity;
mod memory;
mod port;

use paraslot_spec::ahci::{Cap, MAX_SLOTS, PortInterrupt, host, port as register};
use paraslot_spec::ata::{SECTOR, command, device, dsm};

use crate::disk::check_range;
use crate::pci::Signal;
use crate::{Accesses, Completion, Completions, Disk, DmaRegion, Error, Failed, Op, Platform};
use identity::Identity;
use memory::{Command, Data, MAX_TRANSFER, PortMemory};
use port::Hba;

/// Bytes of a sector of data that is not user data.
const SECTOR_LEN: u32 = 512;
/// Sectors that one entry of a list of ranges can discard.
const TRIM_SECTORS: u64 = 0xffff;

/// Causes of an interrupt that are enabled.
const CAUSES: PortInterrupt = PortInterrupt::DHRS
    .union(PortInterrupt::PSS)
    .union(PortInterrupt::DSS)
    .union(PortInterrupt::SDBS)
    .union(PortInterrupt::DPS)
    .union(ERRORS);

/// Those of them that need more than a look at what has completed.
const ERRORS: PortInterrupt = PortInterrupt::UFS
    .union(PortInterrupt::PCS)
    .union(PortInterrupt::PRCS)
    .union(PortInterrupt::IPMS)
    .union(PortInterrupt::IFS)
    .union(PortInterrupt::HBDS)
    .union(PortInterrupt::HBFS)
    .union(PortInterrupt::TFES);

/// How a disk is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AhciOptions {
    /// Use native command queuing if the disk has it. Without it one command is in flight at a time.
    pub queued: bool,
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// The way in which it is raised.
    pub signal: Signal,
}

impl Default for AhciOptions {
    fn default() -> Self {
        Self { queued: true, interrupt: 0, signal: Signal::Best }
    }
}

/// The first disk on the first AHCI HBA.
pub struct Ahci<'p, P> {
    hba: Hba<'p, P>,
    memory: PortMemory,
    identity: Identity,
    options: AhciOptions,
    depth: u16,
    /// Slots whose command was submitted, issued or not.
    active: u32,
    /// Slots whose command was submitted and not issued.
    pending: u32,
    /// Whether those commands are queued ones; of the others there is at most one.
    queued: bool,
    /// Bytes that the command that is not queued must read.
    expected: u32,
    interrupts: bool,
}

impl<'p, P: Platform> Ahci<'p, P> {
    /// Sets up the first disk on the first AHCI HBA on bus 0.
    ///
    /// # Errors
    /// When there is none or it cannot be set up.
    pub fn new(platform: &'p P, options: AhciOptions) -> Result<Self, Error> {
        let mut hba = Hba::new(platform, options)?;
        let memory = PortMemory::new(platform, hba.cap.contains(Cap::S64A))?;
        hba.find_disk(&memory)?;
        let mut this = Self {
            hba,
            memory,
            identity: Identity {
                capacity: 0,
                block_size: 512,
                queue_depth: 0,
                flush: false,
                trim: false,
            },
            options,
            depth: 1,
            active: 0,
            pending: 0,
            queued: false,
            expected: 0,
            interrupts: false,
        };
        this.identify()?;
        Ok(this)
    }

    fn identify(&mut self) -> Result<(), Error> {
        let sector = self.memory.sector();
        let data = Data { address: sector.physical(0), len: SECTOR_LEN, write: false };
        let identify = Command { data: Some(data), ..Command::new(command::IDENTIFY_DEVICE) };
        self.run_own(&identify)?;
        self.identity = Identity::parse(&sector)?;
        let slots = (self.hba.cap.bits() & Cap::NCS) >> Cap::NCS_SHIFT;
        let slots = u16::try_from(slots + 1).unwrap_or(1);
        let queued = self.options.queued && self.hba.cap.contains(Cap::SNCQ);
        self.depth = match self.identity.queue_depth {
            0 => 1,
            depth if queued => depth.min(slots),
            _ => 1,
        };
        self.options.queued = queued && self.identity.queue_depth != 0;
        Ok(())
    }

    /// Whether reads and writes use native command queuing.
    pub fn is_queued(&self) -> bool {
        self.options.queued
    }

    fn prepare(&mut self, tag: u16, command: &Command, queued: bool) -> Result<(), Error> {
        if tag >= self.depth || self.active & (1 << tag) != 0 {
            return Err(Error::Request("the tag is too high or in use"));
        }
        // Queued commands and others must not be mixed (ACS-4, 4.14), and others go one by one.
        if self.active != 0 && !(queued && self.queued) {
            return Err(Error::Busy);
        }
        self.memory.set(tag, command);
        self.queued = queued;
        self.expected = match command.data {
            Some(data) if !queued && !data.write => data.len,
            _ => 0,
        };
        if self.expected != 0 {
            // A command that failed may have left its count behind.
            self.memory.take_moved(tag);
        }
        self.active |= 1 << tag;
        self.pending |= 1 << tag;
        Ok(())
    }

    fn transfer(
        &mut self,
        tag: u16,
        offset: u64,
        region: &DmaRegion,
        write: bool,
    ) -> Result<(), Error> {
        check_range(self, offset, region.len() as u64)?;
        let len = u32::try_from(region.len()).ok().filter(|len| *len <= self.max_transfer());
        let len = len.ok_or(Error::Request("too long"))?;
        let address = region.physical(0);
        if !self.hba.cap.contains(Cap::S64A) && region.physical(region.len()) > 1 << 32 {
            return Err(Error::Unsupported("64-bit addresses"));
        }
        let block = self.identity.block_size;
        let (lba, sectors) = (offset / u64::from(block), len / block);
        let data = Data { address, len, write };
        if self.options.queued {
            self.prepare(tag, &Command::queued(tag, lba, sectors, data), true)
        } else {
            self.prepare(tag, &Command::dma(lba, sectors, data), false)
        }
    }

    fn discard(&mut self, tag: u16, offset: u64, len: u64) -> Result<(), Error> {
        if !self.identity.trim {
            return Err(Error::Unsupported("discard"));
        }
        check_range(self, offset, len)?;
        if self.active != 0 {
            return Err(Error::Busy);
        }
        let block = u64::from(self.identity.block_size);
        let (mut lba, mut sectors) = (offset / block, len / block);
        let list = self.memory.sector();
        for entry in 0..dsm::ENTRIES {
            let count = sectors.min(TRIM_SECTORS);
            let range = dsm::entry(lba, u16::try_from(count).unwrap_or(0));
            list.write64(dsm::ENTRY_LEN * entry, u64::from_le_bytes(range));
            (lba, sectors) = (lba + count, sectors - count);
        }
        if sectors != 0 {
            return Err(Error::Request("too long"));
        }
        let data = Data { address: list.physical(0), len: SECTOR_LEN, write: true };
        let mut command =
            Command { data: Some(data), ..Command::new(command::DATA_SET_MANAGEMENT) };
        command.fis.features = dsm::TRIM;
        command.fis.count = 1.into();
        command.fis.device = device::LBA;
        self.prepare(tag, &command, false)
    }

    /// Adds those slots of `done` that are active.
    fn complete(&mut self, done: u32, completions: &mut Completions) {
        let mut done = done & self.active;
        self.active &= !done;
        self.pending &= !done;
        while done != 0 {
            let slot = done.trailing_zeros();
            done &= done - 1;
            // Below 32.
            let tag = u16::try_from(slot).unwrap_or(0);
            let short = self.expected != 0 && self.memory.take_moved(tag) < self.expected;
            let result = if short { Err(Failed::Short) } else { Ok(()) };
            completions.push(Completion { tag, result });
        }
    }

    /// Reads the register that says which commands have not ended.
    fn running(&self) -> u32 {
        self.hba.port_read(if self.queued { register::SACT } else { register::CI })
    }

    /// Sees to the causes of an interrupt, which are cleared then.
    fn take_causes(&mut self, completions: &mut Completions) -> Result<(), Error> {
        let causes = self.hba.read(host::IS);
        if causes == 0 {
            return Ok(());
        }
        if causes & self.hba.port_bit() != 0 {
            let status = self.hba.port_read(register::IS);
            self.hba.port_write(register::IS, status);
            if PortInterrupt::from_bits_retain(status).intersects(ERRORS) {
                self.recover(completions)?;
            } else {
                let done = self.issued() & !self.running();
                self.complete(done, completions);
            }
        }
        self.hba.write(host::IS, causes);
        Ok(())
    }

    /// Commands that have been issued and not completed.
    fn issued(&self) -> u32 {
        self.active & !self.pending
    }
}

impl<P: Platform> Disk for Ahci<'_, P> {
    fn capacity(&self) -> u64 {
        self.identity.capacity
    }

    fn block_size(&self) -> u32 {
        self.identity.block_size
    }

    fn max_depth(&self) -> u16 {
        self.depth
    }

    fn max_transfer(&self) -> u32 {
        MAX_TRANSFER.min(self.identity.block_size.saturating_mul(65_536))
    }

    fn submit(&mut self, tag: u16, offset: u64, op: Op<'_>) -> Result<(), Error> {
        match op {
            Op::Read(region) => self.transfer(tag, offset, region, false),
            Op::Write(region) => self.transfer(tag, offset, region, true),
            Op::Flush if self.identity.flush => {
                let mut flush = Command::new(command::FLUSH_CACHE_EXT);
                flush.fis.device = device::LBA;
                self.prepare(tag, &flush, false)
            }
            Op::Flush => Err(Error::Unsupported("flush")),
            Op::Discard(len) => self.discard(tag, offset, len),
            Op::WriteZeroes(_) => Err(Error::Unsupported("write zeroes")),
        }
    }

    fn kick(&mut self) -> Result<(), Error> {
        if self.pending == 0 {
            return Ok(());
        }
        // The commands must be in memory before the HBA is told to fetch them.
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
        if self.queued {
            self.hba.port_write(register::SACT, self.pending);
        }
        self.hba.port_write(register::CI, self.pending);
        self.hba.window().count_doorbell();
        self.pending = 0;
        Ok(())
    }

    fn poll(&mut self, completions: &mut Completions) -> Result<(), Error> {
        let issued = self.issued();
        if issued == 0 {
            return Ok(());
        }
        let done = issued & !self.running();
        if done != 0 {
            self.complete(done, completions);
        } else if self.memory.error_received() {
            self.recover(completions)?;
        }
        Ok(())
    }

    fn handle(&mut self, completions: &mut Completions) -> Result<(), Error> {
        let result = self.take_causes(completions);
        self.hba.end_of_interrupt();
        result
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if self.active != 0 {
            return Err(Error::Busy);
        }
        if on && !self.hba.can_interrupt() {
            return Err(Error::Unsupported("interrupts that reach the platform"));
        }
        self.hba.enable_interrupts(false);
        self.hba.port_write(register::IE, 0);
        // What happened with interrupts off must not cause one now.
        self.hba.port_write(register::IS, self.hba.port_read(register::IS));
        self.hba.write(host::IS, self.hba.port_bit());
        if on {
            self.hba.port_write(register::IE, CAUSES.bits());
            self.hba.enable_interrupts(true);
        }
        self.interrupts = on;
        Ok(())
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.hba.window().accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.hba.shutdown()?;
        (self.active, self.pending, self.interrupts) = (0, 0, false);
        Ok(())
    }
}

const _: () = assert!(MAX_SLOTS <= crate::MAX_DEPTH && SECTOR_LEN as usize == SECTOR);
