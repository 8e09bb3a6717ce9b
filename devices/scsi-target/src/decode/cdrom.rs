//! What a CD-ROM drive does, and a disk does not (MMC-6).

mod configuration;
mod disc;
mod toc;

pub(super) use configuration::{configuration, events, mechanism};
pub(super) use disc::{disc_information, structure, sub_channel, track_information};
pub(super) use toc::toc;

use paraslot_spec::scsi::mmc::{self, read_cd as field};
use paraslot_spec::scsi::sense::code;

use super::block::{MAX_TRANSFER, Span};
use super::context::{Answer, Context};
use crate::plan::Plan;
use crate::sense::Sense;
use crate::unit::LogicalUnit;

/// What kind of disc is in the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disc {
    None,
    Cd,
    Dvd,
}

impl Disc {
    fn of(unit: &LogicalUnit) -> Self {
        match unit.blocks() {
            _ if !unit.is_ready(&unit.state()) => Self::None,
            blocks if blocks <= mmc::CD_MAX_BLOCKS.into() => Self::Cd,
            _ => Self::Dvd,
        }
    }
}

/// READ CD: the user data of a mode 1 track is all that an image has.
pub(super) fn read_cd(ctx: &Context<'_>) -> Answer {
    let cdb = ctx.cdb;
    match cdb.u8(1) >> field::TYPE_SHIFT & 7 {
        field::TYPE_ANY | field::TYPE_MODE_1 => {}
        1..=5 => return Err(Sense::illegal(code::ILLEGAL_MODE)),
        _ => return Err(Sense::invalid_cdb(1, Some(4))),
    }
    if cdb.u8(10) & field::SUB_CHANNEL != 0 {
        return Err(Sense::invalid_cdb(10, Some(2)));
    }
    let span = Span { lba: cdb.u32(2).into(), blocks: cdb.u24(6).into(), blocks_at: 6 };
    let (offset, len) = span.limited(ctx.unit(), MAX_TRANSFER)?;
    match cdb.u8(9) & !1 {
        0 => Ok(Plan::good()),
        field::USER_DATA => Ok(Plan::Read { offset, len }),
        _ => Err(Sense::invalid_cdb(9, Some(7))),
    }
}

/// SEEK (10).
pub(super) fn seek(ctx: &Context<'_>) -> Answer {
    Span { lba: ctx.cdb.u32(2).into(), blocks: 0, blocks_at: 0 }.within(ctx.unit())?;
    Ok(Plan::good())
}

/// SET CD SPEED: a hint, for drives that make a noise.
#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn set_speed(_: &Context<'_>) -> Answer {
    Ok(Plan::good())
}

/// An address on a disc, as minutes, seconds and frames; the highest that there is for what is beyond.
fn msf(lba: u64) -> [u8; 3] {
    let frames = lba.saturating_add(mmc::MSF_OFFSET.into());
    let per_minute = u64::from(60 * mmc::FRAMES);
    let Ok(minute) = u8::try_from(frames / per_minute) else { return [255, 59, 74] };
    let low = |value: u64| u8::try_from(value).unwrap_or_default();
    let second = frames % per_minute / u64::from(mmc::FRAMES);
    [minute, low(second), low(frames % u64::from(mmc::FRAMES))]
}

/// An address on a disc in four bytes, of either form.
fn address(lba: u64, as_msf: bool) -> [u8; 4] {
    if as_msf {
        let [minute, second, frame] = msf(lba);
        [0, minute, second, frame]
    } else {
        super::context::cap32(lba).to_be_bytes()
    }
}

/// Data after a field of 16 bits that counts its bytes.
fn counted(body: &[u8]) -> Vec<u8> {
    let mut data = super::context::len16(body).to_vec();
    data.extend(body);
    data
}
