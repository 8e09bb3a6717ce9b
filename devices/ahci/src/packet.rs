//! The ATAPI device behind a port (ATA8-ACS and ACS-4, PACKET feature set): its ATA side, and the way
//! of a command packet to its logical unit and back.

mod identify;
mod phase;
mod state;

use paraslot_device::dma::Direction;
use paraslot_device::{DeviceError, DmaSpace, Memory, Progress, Sources, StateError};
use paraslot_scsi::{
    Address, Attribute, Bus, BusOptions, Cdb, Command as ScsiCommand, Completion, Function,
    Initiator, Lane, Outcome, Status,
};
use paraslot_spec::ahci::fis::{CONTROL_SRST, FLAG_COMMAND, RegisterH2d, TYPE_REGISTER_H2D};
use paraslot_spec::ahci::{ATAPI_COMMAND, PortInterrupt, SIGNATURE_ATAPI, header};
use paraslot_spec::ata::packet::{self, SIGNATURE_LBA, features, reason};
use paraslot_spec::ata::{command, error, set_features};
use paraslot_spec::scsi::sense::key;
use vm_memory::{Bytes, GuestAddress};

use crate::command::{Failure, Output, Protocol, Then, is_transfer_mode};
use crate::disk::Power;
use crate::options::PacketOptions;
use crate::prdt::{PrdError, gather_all};
use crate::worker::{Attached, Command, Commands, End, Fetched, bit, gather_for, place};
use identify::Identity;
pub(crate) use phase::Phase;
pub(crate) use state::PacketState;

/// Where the drive is on the bus that it has for itself.
const DRIVE: Address = Address { target: 0, lun: 0 };

/// The device: one logical unit, and its ATA registers' state.
pub(crate) struct PacketDevice {
    identity: Identity,
    bus: Bus,
    lane: Lane,
    completions: Vec<Completion>,
    /// As SET FEATURES' count says it.
    transfer_mode: u8,
    /// Settings survive a software reset.
    keep: bool,
    power: Power,
    /// The host holds SRST.
    srst: bool,
    /// The next command packet's number.
    tag: u64,
    /// The command that the lane has.
    active: Option<Active>,
}

/// A command packet at work.
struct Active {
    slot: u32,
    /// After how many bytes a PRD entry is used up that asks for an interrupt then.
    interrupt: Option<u64>,
    /// Why there is no room for data beyond that of its buffers, if it is not the end of the table.
    cut: Option<PrdError>,
    /// Its end was asked for.
    abandoned: bool,
}

impl PacketDevice {
    /// The device of the port that is called `name`.
    ///
    /// # Errors
    /// When the host lacks the resources.
    pub(crate) fn new(options: PacketOptions, name: &str) -> Result<Self, DeviceError> {
        let PacketOptions { unit, initiator, serial, model, firmware } = options;
        let initiator = initiator.unwrap_or_else(|| Initiator(name.into()));
        let options = BusOptions { initiator, max_target: 0, max_lun: 0, autosense: false };
        let bus = Bus::new(options);
        bus.attach(DRIVE, unit).map_err(|error| DeviceError::Config(error.to_string()))?;
        let lane = bus.open_lane(1).map_err(DeviceError::Worker)?;
        Ok(Self {
            identity: Identity { serial, model, firmware },
            bus,
            lane,
            completions: Vec::new(),
            transfer_mode: identify::FASTEST,
            keep: false,
            power: Power::Active,
            srst: false,
            tag: 0,
            active: None,
        })
    }

    /// Software reset and DEVICE RESET. The logical unit keeps its state (MMC-6, annex on ATAPI).
    fn soft_reset(&mut self) {
        if !self.keep {
            self.transfer_mode = identify::FASTEST;
        }
        self.power = Power::Active;
        self.srst = false;
    }

    /// A change of device control: the two halves of a software reset.
    fn control(&mut self, control: u8) -> End {
        let held = control & CONTROL_SRST != 0;
        if std::mem::replace(&mut self.srst, held) && !held {
            self.soft_reset();
            return End::Signature;
        }
        End::Accepted
    }

    /// The commands that move no data. Returns how they end.
    fn plain(&mut self, command: &mut Command) -> Result<End, Failure> {
        let [count, _] = command.fis.count.get().to_le_bytes();
        match command.fis.command {
            command::EXECUTE_DEVICE_DIAGNOSTIC => return Ok(End::Output(Self::SIGNATURE)),
            // Those of a disk that is looked for; it is told what it has found (ACS-4, 7.12 and 7.26).
            command::IDENTIFY_DEVICE | command::READ_SECTORS => {
                command.fis.set_lba(SIGNATURE_LBA);
                command.fis.count = Self::SIGNATURE.count.into();
                command.fis.device = Self::SIGNATURE.device;
                return Err(Failure::ABORTED);
            }
            command::SET_FEATURES => match command.fis.features {
                set_features::TRANSFER_MODE if is_transfer_mode(count) => {
                    self.transfer_mode = count;
                }
                set_features::DISABLE_REVERT => self.keep = true,
                set_features::ENABLE_REVERT => self.keep = false,
                _ => return Err(Failure::ABORTED),
            },
            // There is no timer that could run.
            command::IDLE | command::IDLE_IMMEDIATE => self.power = Power::Idle,
            command::STANDBY | command::STANDBY_IMMEDIATE => self.power = Power::Standby,
            command::SLEEP => self.power = Power::Sleep,
            command::CHECK_POWER_MODE => command.fis.count = u16::from(self.power.code()).into(),
            // NOP, which is always aborted, and what there is not.
            _ => return Err(Failure::ABORTED),
        }
        Ok(End::Success)
    }

    /// Hands a command packet to the logical unit.
    fn packet<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        fetched: &Fetched,
        slot: u32,
        command: &mut Command,
    ) -> Result<bool, Failure> {
        let fis = &fetched.fis;
        // What comes back says so, however it ends.
        command.fis.count = u16::from(reason::OVER).into();
        let to_device = fetched.flags & header::WRITE != 0;
        let dma = fis.features & features::DMA != 0;
        // Without the bit, the HBA would send the device data for a command. DMADIR need not be set,
        // but must not be wrong.
        let contradicts = dma && to_device && fis.features & features::DMADIR != 0;
        if fetched.flags & header::ATAPI == 0 || contradicts {
            return Err(Failure::ABORTED);
        }
        let mut bytes = [0; packet::LEN];
        let inaccessible = Failure::host(PortInterrupt::HBFS);
        let at = fetched.table.checked_add(ATAPI_COMMAND).ok_or(inaccessible)?;
        memory.read_slice(&mut bytes, GuestAddress(at)).map_err(|_| inaccessible)?;
        let direction = if to_device { Direction::ToDevice } else { Direction::FromDevice };
        let data = gather_all(memory, fetched.table, fetched.entries(), direction)?;
        command.entries = data.entries;
        command.protocol = Protocol::Packet(Phase::new(fis, direction));
        self.power = Power::Active;
        self.tag = self.tag.wrapping_add(1);
        let (interrupt, cut) = (data.interrupt, data.cut);
        self.active = Some(Active { slot, interrupt, cut, abandoned: false });
        self.lane.submit(ScsiCommand {
            token: slot.into(),
            tag: self.tag,
            address: DRIVE,
            cdb: Cdb::new(&bytes),
            attribute: Attribute::Simple,
            data: data.buffers,
        });
        Ok(true)
    }

    fn ended(&mut self, commands: &mut Commands, completion: Completion) -> u32 {
        let Completion { token, outcome, moved } = completion;
        let Some(Active { slot, interrupt, cut, .. }) =
            self.active.take_if(|active| u64::from(active.slot) == token)
        else {
            return 0;
        };
        if let Some(Some(command)) = commands.get_mut(place(slot)) {
            command.bytes = u32::try_from(moved).unwrap_or(u32::MAX);
            command.interrupt = interrupt.is_some_and(|used_up| moved >= used_up);
            command.end = match cut {
                Some(error) if outcome == Outcome::Overrun => End::Failed(error.into()),
                _ => end(&outcome),
            };
        }
        bit(slot)
    }
}

impl Attached for PacketDevice {
    /// A packet device is not ready (DRDY) before its first command (ATA8-ACS, 4.3 and 6.1).
    const SIGNATURE: Output = Output {
        status: 0,
        error: error::DIAGNOSTIC_PASSED,
        count: 1,
        lba: SIGNATURE_LBA,
        device: 0,
    };
    const PXSIG: u32 = SIGNATURE_ATAPI;

    /// There are no queued commands: what looks like one is aborted.
    fn is_queued(_fis: &RegisterH2d) -> bool {
        false
    }

    type Saved = PacketState;

    fn save(&self) -> Result<PacketState, StateError> {
        self.saved()
    }

    fn check(&self, saved: &PacketState) -> Result<(), StateError> {
        self.would_take(saved)
    }

    fn restore(&mut self, saved: PacketState) -> Result<(), StateError> {
        self.take_over(saved)
    }

    fn has(&self, protocol: Protocol, then: Then) -> bool {
        then == Then::Nothing
            && matches!(protocol, Protocol::NonData | Protocol::PioIn(512) | Protocol::Packet(_))
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([self.lane.source()])
    }

    fn perform<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        fetched: &Fetched,
        slot: u32,
        command: &mut Command,
    ) -> Result<bool, Failure> {
        let fis = &fetched.fis;
        if fis.fis_type != TYPE_REGISTER_H2D {
            return Err(Failure::host(PortInterrupt::IFS));
        }
        if fis.flags & FLAG_COMMAND == 0 {
            command.end = self.control(fis.control);
            return Ok(false);
        }
        if self.srst {
            command.end = End::Hang;
            return Ok(false);
        }
        if fis.command == command::DEVICE_RESET {
            self.soft_reset();
            command.end = End::Signature;
            return Ok(false);
        }
        if self.power == Power::Sleep {
            return Err(Failure::ABORTED);
        }
        match fis.command {
            command::PACKET => return self.packet(memory, fetched, slot, command),
            command::IDENTIFY_PACKET_DEVICE => {
                let data = self.identity.identify(self.transfer_mode);
                command.protocol = Protocol::PioIn(512);
                let (len, direction) = (data.len() as u64, Direction::FromDevice);
                gather_for(memory, fetched, len, direction, command)?.copy_from(&data);
            }
            _ => command.end = self.plain(command)?,
        }
        Ok(false)
    }

    fn commit(&mut self) {
        self.lane.commit();
    }

    fn complete(&mut self, commands: &mut Commands) -> (u32, Progress) {
        let mut progress = Progress::Idle;
        if self.lane.ordered() {
            // The device has one command at a time, so it has all that there are.
            self.lane.obey();
            self.lane.commit();
            progress = Progress::More;
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.lane.complete(&mut completions);
        let mut ended = 0;
        for completion in completions.drain(..) {
            ended |= self.ended(commands, completion);
            progress = Progress::More;
        }
        self.completions = completions;
        (ended, progress)
    }

    fn apply(&mut self, _then: Then) {}

    fn queued_failed(&mut self, _slot: Option<u32>, _fis: &RegisterH2d, _failure: &Failure) {}

    fn hard_reset(&mut self) {
        let Self {
            identity: _,
            bus,
            lane: _,
            completions: _,
            transfer_mode,
            keep,
            power,
            srst,
            tag: _,
            active: _,
        } = self;
        bus.power_on();
        *transfer_mode = identify::FASTEST;
        *keep = false;
        *power = Power::Active;
        *srst = false;
    }

    fn hurry(&mut self) {
        self.lane.hurry();
        self.lane.commit();
    }

    /// The device is about to be reset, or the host has lost interest. A backend that can end the
    /// command early does.
    fn abandon(&mut self) {
        if let Some(active) = &mut self.active
            && !std::mem::replace(&mut active.abandoned, true)
        {
            // Nobody waits for the response: the command itself comes back.
            let _ = self.bus.manage(Function::AbortTaskSet(DRIVE), None);
        }
    }

    fn ordered(&self) -> bool {
        self.lane.ordered()
    }

    fn settle(&mut self) {
        self.lane.settle();
    }

    fn prepare_to_wait(&mut self) -> bool {
        self.lane.prepare_to_wait()
    }
}

/// How a packet command ends (ACS-4, 7.16; error outputs).
fn end(outcome: &Outcome) -> End {
    let key = match outcome {
        Outcome::Ended { status: Status::Good | Status::ConditionMet, .. } => return End::Success,
        Outcome::Ended { sense: Some(sense), .. } => sense.key,
        // The device wants to send what there is no room for, and is stopped.
        Outcome::Overrun => {
            return End::Failed(Failure { causes: PortInterrupt::OFS, ..check(0) });
        }
        // ATA knows of one initiator, and of no status but CHECK CONDITION.
        Outcome::Ended { .. } | Outcome::Aborted | Outcome::Reset | Outcome::NoTarget => {
            key::ABORTED_COMMAND
        }
    };
    End::Failed(check(key))
}

/// CHECK CONDITION, of this sense key.
fn check(key: u8) -> Failure {
    let aborted = matches!(key, 0 | key::ILLEGAL_REQUEST | key::ABORTED_COMMAND);
    let abort = if aborted { packet::error::ABRT } else { 0 };
    Failure::device(key << packet::error::SENSE_KEY_SHIFT | abort)
}
