//! Decoding commands: from a command FIS to what is to be done (ACS-4, clause 7).

use paraslot_backends::block::BlockOp;
use paraslot_spec::ahci::PortInterrupt;
use paraslot_spec::ahci::fis::{CONTROL_SRST, FLAG_COMMAND, RegisterH2d, TYPE_REGISTER_H2D};
use paraslot_spec::ata::{COUNT_28_MAX, COUNT_48_MAX, command, device, error, ncq, status};
use paraslot_spec::ata::{dsm, log::address, set_features, smart};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, MULTIPLE_MAX, Power, READY, TRIM_BLOCKS};
use crate::log::Buffer;
use crate::packet::Phase;

/// How a command moves its data, and so how its end is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// Native command queuing: a set device bits FIS.
    Queued,
    /// DMA either way: a D2H register FIS.
    Dma,
    /// PIO to the host, in blocks of this many bytes: a PIO setup FIS.
    PioIn(u32),
    /// PIO to the device: a D2H register FIS.
    PioOut,
    /// No data: a D2H register FIS.
    NonData,
    /// A command packet, and its data: a D2H register FIS.
    Packet(Phase),
}

/// What a command does when its backend operation has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Then {
    Nothing,
    SetPower(Power),
    DisableWriteCache,
    /// Count sectors for SMART.
    CountRead(u32),
    CountWritten(u32),
}

/// The registers that a command without error returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Output {
    pub(crate) status: u8,
    pub(crate) error: u8,
    pub(crate) count: u16,
    pub(crate) lba: u64,
    pub(crate) device: u8,
}

/// Why a command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Failure {
    pub(crate) status: u8,
    pub(crate) error: u8,
    /// The first sector in error, where that is known.
    pub(crate) lba: Option<u64>,
    /// Causes beside TFES. With one of the fatal ones the HBA failed, not the device: no FIS comes.
    #[serde(with = "causes")]
    pub(crate) causes: PortInterrupt,
}

/// Causes of a port's interrupt as their number.
mod causes {
    use paraslot_spec::ahci::PortInterrupt;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        causes: &PortInterrupt,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(causes.bits())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<PortInterrupt, D::Error> {
        let bits = u32::deserialize(deserializer)?;
        PortInterrupt::from_bits(bits).ok_or_else(|| Error::custom("causes that there are not"))
    }
}

impl Failure {
    /// The device says no.
    pub(crate) const fn device(error: u8) -> Self {
        let status = READY | status::ERR;
        Self { status, error, lba: None, causes: PortInterrupt::empty() }
    }

    /// The HBA cannot go on, for `causes`.
    pub(crate) const fn host(causes: PortInterrupt) -> Self {
        Self { status: 0, error: 0, lba: None, causes }
    }

    pub(crate) const ABORTED: Self = Self::device(error::ABRT);

    const fn not_found(lba: u64) -> Self {
        let mut this = Self::device(error::IDNF);
        this.lba = Some(lba);
        this
    }

    /// Whether the HBA failed rather than the device.
    pub(crate) fn is_host(&self) -> bool {
        self.status == 0
    }
}

/// What is to be done for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Move sectors.
    Transfer { op: BlockOp, lba: u64, sectors: u32, protocol: Protocol },
    /// Make writes durable, then do something more.
    Flush(Then),
    /// Trim the ranges in this many 512-byte blocks.
    Trim { blocks: u16 },
    /// Return this many bytes of the buffer.
    Reply { len: usize, protocol: Protocol },
    /// Nothing more, but for these registers.
    Done(Output),
    /// The host's FIS is taken; nothing is sent back.
    Accepted,
    /// Send the signature: a soft reset has ended.
    Signature,
    /// The device does not react.
    Hang,
}

type Decoded = Result<Action, Failure>;

/// Registers after a reset or diagnostic, those of an ATA device (ACS-4, 6.5 table "signatures").
pub(crate) const SIGNATURE: Output =
    Output { status: READY, error: error::DIAGNOSTIC_PASSED, count: 1, lba: 1, device: 0 };

impl Output {
    /// Nothing changed.
    fn of(fis: &RegisterH2d) -> Self {
        let (count, lba) = (fis.count.get(), fis.lba48());
        Self { status: READY, error: 0, count, lba, device: fis.device }
    }
}

/// Whether `command` is a queued one. Decides before anything else how the command is handled.
pub(crate) fn is_queued(fis: &RegisterH2d) -> bool {
    fis.flags & FLAG_COMMAND != 0
        && matches!(
            fis.command,
            command::READ_FPDMA_QUEUED
                | command::WRITE_FPDMA_QUEUED
                | command::NCQ_NON_DATA
                | command::SEND_FPDMA_QUEUED
                | command::RECEIVE_FPDMA_QUEUED
        )
}

fn count_28(fis: &RegisterH2d) -> u32 {
    let [low, _] = fis.count.get().to_le_bytes();
    if low == 0 { COUNT_28_MAX } else { low.into() }
}

fn count_48(count: u16) -> u32 {
    if count == 0 { COUNT_48_MAX } else { count.into() }
}

impl Disk {
    /// Decodes the FIS that came in command slot `slot`, and does what can be done at once.
    pub(crate) fn decode(&mut self, fis: &RegisterH2d, slot: u32, data: &mut Buffer) -> Decoded {
        if fis.fis_type != TYPE_REGISTER_H2D {
            return Err(Failure::host(PortInterrupt::IFS));
        }
        if fis.flags & FLAG_COMMAND == 0 {
            return Ok(self.control(fis.control));
        }
        if self.srst {
            return Ok(Action::Hang);
        }
        if self.ncq_error.is_some() && !reads_ncq_error(fis) {
            return Err(Failure::ABORTED);
        }
        if self.power == Power::Sleep {
            return Err(Failure::ABORTED);
        }
        self.command(fis, slot, data)
    }

    /// A change of device control: the two halves of a software reset.
    fn control(&mut self, control: u8) -> Action {
        let held = control & CONTROL_SRST != 0;
        if std::mem::replace(&mut self.srst, held) && !held {
            self.soft_reset();
            return Action::Signature;
        }
        Action::Accepted
    }

    fn command(&mut self, fis: &RegisterH2d, slot: u32, data: &mut Buffer) -> Decoded {
        use Protocol::{Dma, PioIn, PioOut};
        let write = BlockOp::Write { fua: self.write_through() };
        let forced = BlockOp::Write { fua: true };
        let sector = self.geometry.sector_size;
        let block = sector.saturating_mul(u32::from(self.settings.multiple));
        match fis.command {
            command::READ_DMA => self.transfer_28(fis, BlockOp::Read, Dma),
            command::READ_DMA_EXT => self.transfer_48(fis, BlockOp::Read, Dma),
            command::READ_SECTORS => self.transfer_28(fis, BlockOp::Read, PioIn(sector)),
            command::READ_SECTORS_EXT => self.transfer_48(fis, BlockOp::Read, PioIn(sector)),
            command::WRITE_DMA => self.transfer_28(fis, write, Dma),
            command::WRITE_DMA_EXT => self.transfer_48(fis, write, Dma),
            command::WRITE_DMA_FUA_EXT => self.transfer_48(fis, forced, Dma),
            command::WRITE_SECTORS => self.transfer_28(fis, write, PioOut),
            command::WRITE_SECTORS_EXT => self.transfer_48(fis, write, PioOut),
            command::READ_FPDMA_QUEUED => self.transfer_queued(fis, slot, BlockOp::Read),
            command::WRITE_FPDMA_QUEUED => self.transfer_queued(fis, slot, write),
            command::READ_MULTIPLE if block != 0 => {
                self.transfer_28(fis, BlockOp::Read, PioIn(block))
            }
            command::READ_MULTIPLE_EXT if block != 0 => {
                self.transfer_48(fis, BlockOp::Read, PioIn(block))
            }
            command::WRITE_MULTIPLE if block != 0 => self.transfer_28(fis, write, PioOut),
            command::WRITE_MULTIPLE_EXT if block != 0 => self.transfer_48(fis, write, PioOut),
            command::WRITE_MULTIPLE_FUA_EXT if block != 0 => self.transfer_48(fis, forced, PioOut),
            command::READ_VERIFY_SECTORS => {
                self.check_range(fis, u64::from(fis.lba28()), count_28(fis))?;
                Ok(Action::Done(Output::of(fis)))
            }
            command::READ_VERIFY_SECTORS_EXT => {
                self.check_range(fis, fis.lba48(), count_48(fis.count.get()))?;
                Ok(Action::Done(Output::of(fis)))
            }
            command::FLUSH_CACHE | command::FLUSH_CACHE_EXT => Ok(Action::Flush(Then::Nothing)),
            command::DATA_SET_MANAGEMENT => self.data_set_management(fis),
            command::IDENTIFY_DEVICE => {
                let identity = self.identify();
                if let Some(place) = data.first_chunk_mut() {
                    *place = identity;
                }
                Ok(reply(identity.len()))
            }
            command::SET_FEATURES => self.set_features(fis),
            command::SET_MULTIPLE_MODE => self.set_multiple_mode(fis),
            command::READ_LOG_EXT => self.read_log_ext(fis, reply, data),
            command::READ_LOG_DMA_EXT => {
                self.read_log_ext(fis, |len| Action::Reply { len, protocol: Dma }, data)
            }
            command::SMART => self.smart(fis, data),
            command::EXECUTE_DEVICE_DIAGNOSTIC => Ok(Action::Done(SIGNATURE)),
            _ => self.power_management(fis),
        }
    }

    fn power_management(&mut self, fis: &RegisterH2d) -> Decoded {
        match fis.command {
            // Timers are accepted; nothing is gained by letting them run.
            command::IDLE | command::IDLE_IMMEDIATE => {
                self.power = Power::Idle;
                Ok(Action::Done(Output::of(fis)))
            }
            command::STANDBY | command::STANDBY_IMMEDIATE => {
                Ok(Action::Flush(Then::SetPower(Power::Standby)))
            }
            command::SLEEP => Ok(Action::Flush(Then::SetPower(Power::Sleep))),
            command::CHECK_POWER_MODE => {
                let count = self.power.code().into();
                Ok(Action::Done(Output { count, ..Output::of(fis) }))
            }
            _ => Err(Failure::ABORTED),
        }
    }

    fn check_range(&mut self, fis: &RegisterH2d, lba: u64, sectors: u32) -> Result<(), Failure> {
        // Addresses as cylinder, head and sector are obsolete.
        if fis.device & device::LBA == 0 {
            return Err(Failure::ABORTED);
        }
        if !self.geometry.holds(lba, sectors.into()) {
            return Err(Failure::not_found(lba.max(self.geometry.sectors)));
        }
        self.power = Power::Active;
        Ok(())
    }

    fn transfer(
        &mut self,
        fis: &RegisterH2d,
        op: BlockOp,
        lba: u64,
        sectors: u32,
        protocol: Protocol,
    ) -> Decoded {
        self.check_range(fis, lba, sectors)?;
        if self.geometry.read_only && op != BlockOp::Read {
            return Err(Failure::ABORTED);
        }
        Ok(Action::Transfer { op, lba, sectors, protocol })
    }

    fn transfer_28(&mut self, fis: &RegisterH2d, op: BlockOp, protocol: Protocol) -> Decoded {
        self.transfer(fis, op, fis.lba28().into(), count_28(fis), protocol)
    }

    fn transfer_48(&mut self, fis: &RegisterH2d, op: BlockOp, protocol: Protocol) -> Decoded {
        self.transfer(fis, op, fis.lba48(), count_48(fis.count.get()), protocol)
    }

    fn transfer_queued(&mut self, fis: &RegisterH2d, slot: u32, op: BlockOp) -> Decoded {
        // The slot is the tag: the HBA would complete another command otherwise (AHCI 1.3.1, 5.5.2).
        if u32::from((fis.count.get() & ncq::TAG) >> ncq::TAG_SHIFT) != slot {
            return Err(Failure::ABORTED);
        }
        let forced = fis.device & device::FUA != 0;
        let op = match op {
            BlockOp::Write { fua } => BlockOp::Write { fua: fua || forced },
            other => other,
        };
        let sectors = count_48(fis.features16());
        self.transfer(fis, op, fis.lba48(), sectors, Protocol::Queued)
    }

    fn data_set_management(&mut self, fis: &RegisterH2d) -> Decoded {
        let blocks = fis.count.get();
        let trims = fis.features16() == u16::from(dsm::TRIM) && self.geometry.trim.is_some();
        if !trims || !(1..=TRIM_BLOCKS).contains(&blocks) {
            return Err(Failure::ABORTED);
        }
        self.power = Power::Active;
        Ok(Action::Trim { blocks })
    }

    fn set_features(&mut self, fis: &RegisterH2d) -> Decoded {
        let [count, _] = fis.count.get().to_le_bytes();
        let settings = &mut self.settings;
        match fis.features {
            set_features::ENABLE_WRITE_CACHE if self.geometry.volatile_cache => {
                settings.write_cache = true;
            }
            set_features::DISABLE_WRITE_CACHE if self.geometry.volatile_cache => {
                return Ok(Action::Flush(Then::DisableWriteCache));
            }
            set_features::TRANSFER_MODE if is_transfer_mode(count) => {
                settings.transfer_mode = count;
            }
            set_features::ENABLE_LOOK_AHEAD => settings.look_ahead = true,
            set_features::DISABLE_LOOK_AHEAD => settings.look_ahead = false,
            set_features::DISABLE_REVERT => settings.keep = true,
            set_features::ENABLE_REVERT => settings.keep = false,
            _ => return Err(Failure::ABORTED),
        }
        Ok(Action::Done(Output::of(fis)))
    }

    fn set_multiple_mode(&mut self, fis: &RegisterH2d) -> Decoded {
        let [count, _] = fis.count.get().to_le_bytes();
        if count != 0 && (count > MULTIPLE_MAX || !count.is_power_of_two()) {
            return Err(Failure::ABORTED);
        }
        self.settings.multiple = count;
        Ok(Action::Done(Output::of(fis)))
    }

    fn read_log_ext(
        &mut self,
        fis: &RegisterH2d,
        action: impl FnOnce(usize) -> Action,
        data: &mut Buffer,
    ) -> Decoded {
        let [at, page_low, _, _, page_high, ..] = fis.lba48().to_le_bytes();
        let page = u16::from_le_bytes([page_low, page_high]);
        let len = self.read_log(at, page, fis.count.get(), true, data);
        len.map(action).ok_or(Failure::ABORTED)
    }

    fn smart(&mut self, fis: &RegisterH2d, data: &mut Buffer) -> Decoded {
        let [at, signature @ ..] = fis.lba;
        let enabled = self.smart.enabled || fis.features == smart::subcommand::ENABLE;
        if signature != smart::SIGNATURE || !enabled {
            return Err(Failure::ABORTED);
        }
        let [count, _] = fis.count.get().to_le_bytes();
        match fis.features {
            smart::subcommand::READ_DATA => return Ok(reply(self.smart_data(data))),
            smart::subcommand::READ_THRESHOLDS => return Ok(reply(Self::smart_thresholds(data))),
            smart::subcommand::READ_LOG => {
                let len = self.read_log(at, 0, count.into(), false, data);
                return len.map(reply).ok_or(Failure::ABORTED);
            }
            smart::subcommand::ENABLE => self.smart.enabled = true,
            smart::subcommand::DISABLE => self.smart.enabled = false,
            smart::subcommand::ATTRIBUTE_AUTOSAVE if count == 0 || count == AUTOSAVE_ON => {}
            // The signature comes back as it is: no threshold is exceeded.
            smart::subcommand::RETURN_STATUS => {}
            _ => return Err(Failure::ABORTED),
        }
        Ok(Action::Done(Output::of(fis)))
    }
}

/// Count of SMART ENABLE/DISABLE ATTRIBUTE AUTOSAVE to enable it.
const AUTOSAVE_ON: u8 = 0xf1;

/// PIO data-in of 512-byte blocks, as for everything that is not user data.
fn reply(len: usize) -> Action {
    Action::Reply { len, protocol: Protocol::PioIn(512) }
}

fn reads_ncq_error(fis: &RegisterH2d) -> bool {
    let [at, ..] = fis.lba;
    matches!(fis.command, command::READ_LOG_EXT | command::READ_LOG_DMA_EXT)
        && at == address::NCQ_COMMAND_ERROR
}

pub(crate) fn is_transfer_mode(mode: u8) -> bool {
    use set_features::transfer::{MULTIWORD_DMA, PIO, PIO_DEFAULT, ULTRA_DMA};
    let number = mode & 7;
    match mode & !7 {
        PIO_DEFAULT => number <= 1,
        PIO => number <= 4,
        MULTIWORD_DMA => number <= 2,
        ULTRA_DMA => number <= 6,
        _ => false,
    }
}
