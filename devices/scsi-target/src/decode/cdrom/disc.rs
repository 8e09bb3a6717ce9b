//! What is known of the disc and where it is: information, structures, sub-channel.

use paraslot_spec::scsi::cdb::MSF;
use paraslot_spec::scsi::mmc::toc::DATA_TRACK;
use paraslot_spec::scsi::mmc::{disc, structure as field};
use paraslot_spec::scsi::sense::code;

use super::{Disc, address, counted};
use crate::decode::context::{Answer, Context, cap32, put, reply};
use crate::sense::Sense;

/// READ DISC INFORMATION: complete, one session of one track.
pub(in crate::decode) fn disc_information(ctx: &Context<'_>) -> Answer {
    if ctx.cdb.u8(1) & 7 != 0 {
        return Err(Sense::invalid_cdb(1, Some(2)));
    }
    /// Byte 7: unrestricted use.
    const URU: u8 = 1 << 5;
    let mut body = [0; disc::LEN - 2];
    // First track; sessions; first and last track of the last session.
    put(&mut body, 0, &[disc::SESSION_COMPLETE | disc::COMPLETE, 1, 1, 1, 1, URU]);
    // Nothing can be added: no lead-in to come, and no later lead-out.
    put(&mut body, 14, &[0xff; 8]);
    Ok(reply(counted(&body), ctx.cdb.u16(7)))
}

/// READ TRACK INFORMATION, by address, track, or session.
pub(in crate::decode) fn track_information(ctx: &Context<'_>) -> Answer {
    let (cdb, blocks) = (ctx.cdb, ctx.unit().blocks());
    let wanted = cdb.u32(2);
    let there = match cdb.u8(1) & 3 {
        0 if u64::from(wanted) >= blocks => return Err(Sense::out_of_range(wanted.into())),
        0 => true,
        1 | 2 => wanted == 1,
        _ => return Err(Sense::invalid_cdb(1, Some(1))),
    };
    if !there {
        return Err(Sense::invalid_cdb(2, None));
    }
    /// A data track, recorded without interruption.
    const TRACK_MODE: u8 = 4;
    /// Of mode 1.
    const DATA_MODE: u8 = 1;
    let mut body = [0; 34];
    put(&mut body, 0, &[1, 1, 0, TRACK_MODE, DATA_MODE]);
    put(&mut body, 22, &cap32(blocks).to_be_bytes());
    Ok(reply(counted(&body), cdb.u16(7)))
}

/// READ DISC STRUCTURE: the physical format of a DVD, and that it is not protected.
pub(in crate::decode) fn structure(ctx: &Context<'_>) -> Answer {
    /// Copyright information.
    const COPYRIGHT: u8 = 0x01;
    /// A structure in the list can be read.
    const READABLE: u8 = 1 << 6;
    let cdb = ctx.cdb;
    if cdb.u8(1) & 0xf != 0 {
        return Err(Sense::invalid_cdb(1, Some(3)));
    }
    let format = cdb.u8(7);
    if !matches!(format, field::PHYSICAL | COPYRIGHT | field::LIST) {
        return Err(Sense::invalid_cdb(7, Some(7)));
    }
    if Disc::of(ctx.unit()) != Disc::Dvd {
        return Err(Sense::illegal(code::INCOMPATIBLE_MEDIUM));
    }
    if cdb.u8(6) != 0 {
        return Err(Sense::invalid_cdb(6, Some(7)));
    }
    let mut body = vec![0, 0];
    match format {
        field::PHYSICAL => body.extend(physical(ctx.unit().blocks())),
        COPYRIGHT => body.extend([0; 4]),
        _ => {
            for (format, len) in [(field::PHYSICAL, field::PHYSICAL_LEN), (COPYRIGHT, 4)] {
                body.extend([format, READABLE]);
                body.extend(cap32(4 + len as u64).to_be_bytes().into_iter().skip(2));
            }
        }
    }
    Ok(reply(counted(&body), cdb.u16(8)))
}

/// Physical format information: a DVD-ROM of one layer.
fn physical(blocks: u64) -> [u8; field::PHYSICAL_LEN] {
    let end = u64::from(field::DVD_FIRST).saturating_add(blocks.saturating_sub(1));
    let end = cap32(end).min(0xff_ffff);
    let mut data = [0; field::PHYSICAL_LEN];
    // DVD-ROM, part version 1; 12 cm, maximum rate not specified; one embossed layer; density.
    put(&mut data, 0, &[0x01, 0x0f, 0x01, 0x00]);
    put(&mut data, 4, &field::DVD_FIRST.to_be_bytes());
    put(&mut data, 8, &end.to_be_bytes());
    data
}

/// READ SUB-CHANNEL: nothing is played, and there is no catalogue number.
pub(in crate::decode) fn sub_channel(ctx: &Context<'_>) -> Answer {
    /// Byte 2: sub-channel data is wanted, not the header alone.
    const SUBQ: u8 = 1 << 6;
    /// Where the drive is.
    const POSITION: u8 = 1;
    /// The media catalogue number.
    const CATALOGUE: u8 = 2;
    /// Audio status: there is none.
    const NO_STATUS: u8 = 0x15;
    let cdb = ctx.cdb;
    let mut body = Vec::new();
    if cdb.bit(2, SUBQ) {
        match cdb.u8(3) {
            POSITION => {
                body.extend([POSITION, DATA_TRACK, 1, 1]);
                body.extend(address(0, cdb.bit(1, MSF)));
                body.extend([0; 4]);
            }
            CATALOGUE => {
                body.push(CATALOGUE);
                body.resize(20, 0);
            }
            _ => return Err(Sense::invalid_cdb(3, Some(7))),
        }
    }
    let mut data = vec![0, NO_STATUS];
    data.extend(counted(&body));
    Ok(reply(data, cdb.u16(7)))
}
