//! Logical units.

mod options;
mod saved;
mod state;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use paraslot_backends::block::{BlockBackend, BlockInfo};
use paraslot_device::DeviceError;
use paraslot_spec::scsi::mmc;
use paraslot_spec::scsi::sense::code;

use crate::bus::BusEvent;
use crate::lane::Exclusive;
use crate::nexus::Nexus;
use crate::sense::SenseFormat;
pub use options::{CdromOptions, DiskOptions, Identity};
pub(crate) use saved::{HolderState, UnitState};
pub(crate) use state::{Holder, MediaEvent, State};

/// What kind of unit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Disk,
    Cdrom,
}

/// Mode parameters, as bits of `LogicalUnit::modes`.
pub(crate) mod modes {
    /// Caching: WCE.
    pub(crate) const WRITE_CACHE: u32 = 1 << 0;
    /// Control: D_SENSE.
    pub(crate) const DESCRIPTOR_SENSE: u32 = 1 << 1;
    /// Control: SWP.
    pub(crate) const SOFTWARE_PROTECT: u32 = 1 << 2;
}

/// A logical unit, which any number of buses may share.
///
/// A disk is one of SPC-4 and SBC-3. Its commands are those that REPORT SUPPORTED OPERATION CODES lists:
/// reads, writes and verifies of 6 to 16 bytes, COMPARE AND WRITE, WRITE SAME, and UNMAP where the
/// backend can deallocate; mode pages 08h (WCE can be changed if the backend has a volatile cache), 0Ah
/// (D_SENSE and SWP can be) and 1Ch; VPD pages 00h, 80h, 83h, 86h, B0h, B1h and B2h; RESERVE and RELEASE,
/// and persistent reservations of all types. Sharing initiators have one set of mode parameters, and hear
/// of each other's changes by unit attentions.
///
/// A CD-ROM drive is one of MMC-6 with a tray. A disc has one session of one data track of mode 1; it is
/// a CD-ROM up to the length that minutes, seconds and frames can address, and a DVD-ROM beyond.
///
/// Left out: task attributes and ACA (all commands are simple ones), protection information, saved mode
/// pages, FORMAT UNIT, defect lists, READ and WRITE BUFFER, GET LBA STATUS (no backend says), anchored
/// blocks, commands of 32 bytes, EXTENDED COPY, asymmetric access, registrations that outlive the host
/// process (APTPL, which Linux's IOC_PR_REGISTER always asks for, so that it fails) or are made for
/// others (SPEC_I_PT, ALL_TG_PT, REGISTER AND MOVE), TASK ABORTED status (TAS is 0), and power
/// conditions that could be told from active. FUA of a read is not needed: a backend gives what was
/// written last. Of discs: audio, raw sectors, and all that writes.
pub struct LogicalUnit {
    pub(crate) kind: Kind,
    pub(crate) identity: Identity,
    /// What the image was like when the unit was made; of a CD-ROM drive, which has had no disc then,
    /// what every disc is like. The capacity is in `blocks`.
    pub(crate) info: BlockInfo,
    /// Log2 of a logical block's bytes.
    shift: u32,
    /// Logical blocks; 0 without a medium.
    blocks: AtomicU64,
    /// `modes::*`.
    modes: AtomicU32,
    /// What `modes` is after a reset.
    default_modes: u32,
    medium: Mutex<Option<Arc<dyn BlockBackend>>>,
    /// Counts changes of the medium.
    pub(crate) generation: AtomicU64,
    /// Taken before `nexuses`.
    state: Mutex<State>,
    /// Everyone who sees this unit, gone ones among them.
    nexuses: Mutex<Vec<Weak<Nexus>>>,
    /// Has the COMPARE AND WRITE commands of all lanes come one after the other.
    pub(crate) exclusive: Arc<Exclusive>,
}

impl LogicalUnit {
    /// A disk.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn disk(options: DiskOptions) -> Result<Arc<Self>, DeviceError> {
        let mut info = options.check()?;
        info.read_only |= options.read_only;
        Ok(Arc::new(Self::new(Kind::Disk, options.identity, info, Some(options.backend))))
    }

    /// A CD-ROM drive.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn cdrom(options: CdromOptions) -> Result<Arc<Self>, DeviceError> {
        options.check()?;
        let info = BlockInfo {
            capacity: options.medium.as_ref().map_or(0, |medium| medium.info().capacity),
            logical_block: mmc::BLOCK,
            physical_block: mmc::BLOCK,
            read_only: true,
            volatile_cache: false,
            discard_granularity: 0,
            write_zeroes: false,
            write_zeroes_unmap: false,
            secure_erase: false,
            id: String::new(),
        };
        Ok(Arc::new(Self::new(Kind::Cdrom, options.identity, info, options.medium)))
    }

    fn new(
        kind: Kind,
        identity: Identity,
        info: BlockInfo,
        medium: Option<Arc<dyn BlockBackend>>,
    ) -> Self {
        let shift = info.logical_block.trailing_zeros();
        let default_modes = if info.volatile_cache { modes::WRITE_CACHE } else { 0 };
        Self {
            kind,
            identity,
            shift,
            blocks: AtomicU64::new(info.capacity >> shift),
            modes: AtomicU32::new(default_modes),
            default_modes,
            medium: Mutex::new(medium),
            generation: AtomicU64::new(0),
            state: Mutex::default(),
            nexuses: Mutex::default(),
            exclusive: Arc::default(),
            info,
        }
    }

    /// The backend's capacity has changed: has everyone told (unit attention 2A/09, and
    /// [`BusEvent::Changed`]). Returns it in bytes.
    pub fn resize(&self) -> u64 {
        let changed = {
            let medium = lock(&self.medium);
            let bytes = medium.as_ref().map_or(0, |medium| medium.info().capacity);
            let blocks = bytes >> self.shift;
            self.blocks.swap(blocks, Ordering::AcqRel) != blocks
        };
        if changed {
            let (asc, ascq) = code::CAPACITY_CHANGED;
            for nexus in self.nexuses() {
                nexus.attention(asc, ascq);
                nexus.tell(BusEvent::Changed { asc, ascq, removable: self.kind == Kind::Cdrom });
            }
        }
        self.blocks() << self.shift
    }

    /// Puts a disc into a drive, or takes it out: at once, whatever the guest wants (an operator's
    /// paper clip). Everyone is told (28/00, 3A/00).
    ///
    /// # Errors
    /// When the unit is no drive, or the image is no disc.
    pub fn change_medium(&self, medium: Option<Arc<dyn BlockBackend>>) -> Result<(), DeviceError> {
        if self.kind != Kind::Cdrom {
            return Err(DeviceError::Config("the unit has no removable medium".into()));
        }
        if let Some(medium) = &medium {
            options::check_disc(&medium.info())?;
        }
        let present = medium.is_some();
        let (asc, ascq) = if present { code::MEDIUM_CHANGED } else { code::NO_MEDIUM };
        let nexuses;
        {
            let mut state = self.state();
            nexuses = self.nexuses();
            let mut place = lock(&self.medium);
            let bytes = medium.as_ref().map_or(0, |medium| medium.info().capacity);
            self.blocks.store(bytes >> self.shift, Ordering::Release);
            *place = medium;
            // Under the lock: whoever has seen the new medium sees the new number.
            self.generation.fetch_add(1, Ordering::AcqRel);
            drop(place);
            state.tray_open = !present;
            for nexus in &nexuses {
                nexus.media_event(if present { MediaEvent::New } else { MediaEvent::Removal });
                nexus.attention(asc, ascq);
            }
            // Not before the attention is there is a new disc ready.
            self.refresh(&state);
        }
        for nexus in nexuses {
            nexus.tell(BusEvent::Changed { asc, ascq, removable: true });
        }
        Ok(())
    }

    /// Whether it is a CD-ROM drive.
    pub fn is_cdrom(&self) -> bool {
        self.kind == Kind::Cdrom
    }

    /// How the unit lays out the sense data that it gives: as the initiator has chosen by D_SENSE of
    /// the control mode page.
    pub fn sense_format(&self) -> SenseFormat {
        if self.mode(modes::DESCRIPTOR_SENSE) {
            SenseFormat::Descriptor
        } else {
            SenseFormat::Fixed
        }
    }

    /// What is in the drive.
    pub(crate) fn medium(&self) -> Option<Arc<dyn BlockBackend>> {
        lock(&self.medium).clone()
    }

    /// Logical blocks; 0 without a medium.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks.load(Ordering::Acquire)
    }

    /// Bytes of a logical block.
    pub(crate) fn block_size(&self) -> u32 {
        self.info.logical_block
    }

    /// Log2 of the bytes of a logical block.
    pub(crate) fn shift(&self) -> u32 {
        self.shift
    }

    /// Whether all of `bits` (`modes::*`) are set.
    pub(crate) fn mode(&self, bits: u32) -> bool {
        self.modes() & bits == bits
    }

    /// All mode parameters.
    pub(crate) fn modes(&self) -> u32 {
        self.modes.load(Ordering::Acquire)
    }

    /// What they are after a reset.
    pub(crate) fn default_modes(&self) -> u32 {
        self.default_modes
    }

    /// Sets all mode parameters.
    pub(crate) fn set_modes(&self, bits: u32) {
        self.modes.store(bits, Ordering::Release);
    }

    /// Sets those of `mask` as `bits` has them; returns what all of them were.
    pub(crate) fn change_modes(&self, mask: u32, bits: u32) -> u32 {
        let change = |now| Some(now & !mask | bits & mask);
        let changed = self.modes.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        changed.unwrap_or_else(|now| now)
    }

    /// Whether a write must be durable when it ends, whatever its FUA bit says.
    pub(crate) fn write_through(&self) -> bool {
        self.info.volatile_cache && !self.mode(modes::WRITE_CACHE)
    }

    /// Whether unmapped blocks can be made, and what for.
    pub(crate) fn thin(&self) -> bool {
        self.info.discard_granularity != 0 || self.info.write_zeroes_unmap
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// `nexus` sees this unit from now on.
    pub(crate) fn adopt(&self, nexus: &Arc<Nexus>) {
        let state = self.state();
        {
            let mut nexuses = lock(&self.nexuses);
            nexuses.retain(|nexus| nexus.strong_count() != 0);
            nexuses.push(Arc::downgrade(nexus));
        }
        let (asc, ascq) = code::RESET;
        nexus.attention(asc, ascq);
        self.refresh(&state);
    }

    /// `nexus` does not see it any more.
    pub(crate) fn forget(&self, nexus: &Nexus) {
        let gone = |other: &Weak<Nexus>| std::ptr::eq(other.as_ptr(), nexus);
        lock(&self.nexuses).retain(|other| !gone(other));
    }

    /// Everyone who sees this unit.
    pub(crate) fn nexuses(&self) -> Vec<Arc<Nexus>> {
        lock(&self.nexuses).iter().filter_map(Weak::upgrade).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
