//! The well-known logical unit REPORT LUNS (5.6.6.1; SPC-4, 8.2).
//!
//! There is one of the device, which reports the units of all targets by the names that requests have
//! for them, and one of each target. They serve INQUIRY (with the list of VPD pages, which has nothing
//! but itself), REPORT LUNS, REQUEST SENSE and TEST UNIT READY, each at once: task management never
//! finds a command there.

use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;
use paraslot_scsi::{Bus, Cdb, Sense, SenseFormat, Status};
use paraslot_spec::scsi::cdb::{DESC, EVPD, Inquiry, ReportLuns};
use paraslot_spec::scsi::inquiry::{CMDQUE, HISUP, RESPONSE_FORMAT, Standard, VERSION_SPC4};
use paraslot_spec::scsi::lun::{self, REPORT_MIN_ALLOCATION, WELL_KNOWN_REPORT_LUNS, select};
use paraslot_spec::scsi::sense::{code, key};
use paraslot_spec::scsi::{opcode, vpd};
use paraslot_spec::virtio_scsi::response;
use zerocopy::{FromBytes, IntoBytes};

use crate::address::{Scope, encode, exists};
use crate::request::Ended;

/// Peripheral device type: well-known logical unit.
const WELL_KNOWN: u8 = 0x1e;

/// Carries out a command, all of it.
pub(crate) fn execute(bus: &Bus, scope: Scope, cdb: &Cdb, data: &DmaBuffers) -> Ended {
    if let Scope::Target(target) = scope
        && !exists(bus, target)
    {
        return Ended::with(response::BAD_TARGET);
    }
    match reply(bus, scope, cdb) {
        Ok((bytes, allocation)) => {
            let count = bytes.len().min(allocation);
            let bytes = bytes.get(..count).unwrap_or_default();
            let room = if data.direction() == Direction::FromDevice { data.len() } else { 0 };
            if room < count {
                return Ended::with(response::OVERRUN);
            }
            Ended { moved: data.copy_from(bytes) as u64, ..Ended::with(response::OK) }
        }
        Err((asc, ascq)) => Ended {
            status: Status::CheckCondition as u8,
            sense: Some((Box::new(sense(key::ILLEGAL_REQUEST, (asc, ascq))), SenseFormat::Fixed)),
            ..Ended::with(response::OK)
        },
    }
}

fn sense(key: u8, (asc, ascq): (u8, u8)) -> Sense {
    Sense { key, asc, ascq, information: None, specific: None }
}

/// What a command has to say, and how much of it is wanted; or what is wrong with it.
fn reply(bus: &Bus, scope: Scope, cdb: &Cdb) -> Result<(Vec<u8>, usize), (u8, u8)> {
    match cdb.opcode() {
        opcode::TEST_UNIT_READY => Ok((Vec::new(), 0)),
        opcode::INQUIRY => {
            let cdb = read::<Inquiry>(cdb)?;
            let bytes = match (cdb.flags & EVPD != 0, cdb.page) {
                (false, 0) => standard().as_bytes().to_vec(),
                (true, vpd::page::SUPPORTED) => {
                    vec![WELL_KNOWN, vpd::page::SUPPORTED, 0, 1, vpd::page::SUPPORTED]
                }
                _ => return Err(code::INVALID_FIELD_IN_CDB),
            };
            Ok((bytes, cdb.allocation.get().into()))
        }
        opcode::REQUEST_SENSE => {
            let [_, flags, _, _, allocation, ..] = cdb.bytes();
            let descriptor = flags & DESC != 0;
            let format = if descriptor { SenseFormat::Descriptor } else { SenseFormat::Fixed };
            let (bytes, count) = sense(key::NO_SENSE, code::NONE).encode(format);
            Ok((bytes.into_iter().take(count).collect(), (*allocation).into()))
        }
        opcode::REPORT_LUNS => {
            let cdb = read::<ReportLuns>(cdb)?;
            if cdb.allocation.get() < REPORT_MIN_ALLOCATION {
                return Err(code::INVALID_FIELD_IN_CDB);
            }
            let allocation = usize::try_from(cdb.allocation.get()).unwrap_or(usize::MAX);
            Ok((report(bus, scope, cdb.select)?, allocation))
        }
        _ => Err(code::INVALID_OPCODE),
    }
}

fn read<T: FromBytes>(cdb: &Cdb) -> Result<T, (u8, u8)> {
    T::read_from_prefix(cdb.bytes()).map_or(Err(code::INVALID_OPCODE), |(value, _)| Ok(value))
}

/// The LUNs that SELECT REPORT asks for.
fn report(bus: &Bus, scope: Scope, select: u8) -> Result<Vec<u8>, (u8, u8)> {
    let (ordinary, well_known) = match select {
        select::ADDRESSABLE => (true, false),
        select::WELL_KNOWN => (false, true),
        select::ALL => (true, true),
        _ => return Err(code::INVALID_FIELD_IN_CDB),
    };
    let mut luns = Vec::new();
    if well_known {
        luns.extend(WELL_KNOWN_REPORT_LUNS);
    }
    if ordinary {
        for address in bus.addresses() {
            match scope {
                Scope::Device => luns.extend(encode(address).0),
                Scope::Target(target) if target == address.target => {
                    luns.extend(lun::encode(address.lun));
                }
                Scope::Target(_) => {}
            }
        }
    }
    // At most 256 targets of 16384 units of 8 bytes.
    let len = u32::try_from(luns.len()).unwrap_or(u32::MAX);
    Ok([&len.to_be_bytes()[..], &[0; 4], &luns].concat())
}

fn standard() -> Standard {
    let mut data = Standard::default();
    data.peripheral = WELL_KNOWN;
    data.version = VERSION_SPC4;
    data.format = HISUP | RESPONSE_FORMAT;
    data.additional = u8::try_from(size_of::<Standard>() - 5).unwrap_or(u8::MAX);
    data.flags7 = CMDQUE;
    data.vendor = *b"PARASLOT";
    data.product = *b"REPORT LUNS     ";
    data.revision = *b"1   ";
    data
}
