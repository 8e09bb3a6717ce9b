//! What the drive can do and what has happened to it: features, media events, mechanism.

use paraslot_spec::scsi::mmc::{BLOCK, event, feature, profile, requested};

use super::{Disc, counted};
use crate::decode::context::{Answer, Context, cap32, reply};
use crate::sense::Sense;
use crate::unit::MediaEvent;

/// A feature: its code, version, whether it is always current, whether it is now, and its data.
type Feature = (u16, u8, bool, bool, Vec<u8>);

fn features(disc: Disc, atapi: bool) -> [Feature; 7] {
    let current = |wanted| u8::from(disc == wanted);
    let [dvd_high, dvd_low] = profile::DVD_ROM.to_be_bytes();
    let [cd_high, cd_low] = profile::CD_ROM.to_be_bytes();
    let profiles =
        vec![dvd_high, dvd_low, current(Disc::Dvd), 0, cd_high, cd_low, current(Disc::Cd), 0];
    // The physical interface standard: the SCSI family, or ATAPI; DBE and INQ2 are not there.
    let core = vec![0, 0, 0, if atapi { 2 } else { 1 }, 0, 0, 0, 0];
    // A tray that is ejected and locked by command; there is no jumper that prevents it.
    let removable = vec![1 << 5 | 1 << 3 | 1 << 0, 0, 0, 0];
    let [a, b, c, d] = BLOCK.to_be_bytes();
    // Blocks that are read at once; mode page 01h is there.
    let readable = vec![a, b, c, d, 0, if disc == Disc::Dvd { 16 } else { 1 }, 1, 0];
    let there = disc != Disc::None;
    [
        (feature::PROFILE_LIST, 0, true, true, profiles),
        (feature::CORE, 2, true, true, core),
        // Events are polled; operational changes are not among them.
        (feature::MORPHING, 1, true, true, vec![0; 4]),
        (feature::REMOVABLE, 1, true, true, removable),
        (feature::RANDOM_READABLE, 0, false, there, readable),
        // C2 pointers and CD-Text are not there.
        (feature::CD_READ, 2, false, disc == Disc::Cd, vec![0; 4]),
        (feature::DVD_READ, 0, false, disc == Disc::Dvd, Vec::new()),
    ]
}

/// GET CONFIGURATION.
pub(in crate::decode) fn configuration(ctx: &Context<'_>) -> Answer {
    let (cdb, unit) = (ctx.cdb, ctx.unit());
    let disc = Disc::of(unit);
    let which = cdb.u8(1) & 3;
    let start = cdb.u16(2);
    if !matches!(which, requested::ALL | requested::CURRENT | requested::ONE) {
        return Err(Sense::invalid_cdb(1, Some(1)));
    }
    let mut list = Vec::new();
    for (code, version, persistent, current, data) in features(disc, !ctx.nexus.autosense) {
        let wanted = match which {
            requested::ONE => code == start,
            requested::CURRENT => code >= start && current,
            _ => code >= start,
        };
        if !wanted {
            continue;
        }
        let mut flags = version << feature::VERSION_SHIFT;
        if persistent {
            flags |= feature::PERSISTENT;
        }
        if current {
            flags |= feature::CURRENT;
        }
        list.extend(code.to_be_bytes());
        list.extend([flags, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
        list.extend(data);
    }
    let profile = match disc {
        Disc::None => profile::NONE,
        Disc::Cd => profile::CD_ROM,
        Disc::Dvd => profile::DVD_ROM,
    };
    let mut data = cap32(list.len() as u64 + 4).to_be_bytes().to_vec();
    data.extend([0, 0]);
    data.extend(profile.to_be_bytes());
    data.extend(list);
    Ok(reply(data, cdb.u16(7)))
}

/// GET EVENT STATUS NOTIFICATION: media events, by polling.
pub(in crate::decode) fn events(ctx: &Context<'_>) -> Answer {
    const SUPPORTED: u8 = 1 << event::MEDIA;
    let cdb = ctx.cdb;
    if !cdb.bit(1, event::POLLED) {
        return Err(Sense::invalid_cdb(1, Some(0)));
    }
    if cdb.u8(4) & SUPPORTED == 0 {
        return Ok(reply(counted(&[event::NEA, SUPPORTED]), cdb.u16(7)));
    }
    let (present, open) = {
        let state = ctx.unit().state();
        // Nor can a drive tell what is on a tray that is out: Linux, which closes one that is said to be
        // empty, takes a disc that is said to be there for one that can be read.
        (ctx.unit().blocks() != 0 && !state.tray_open, state.tray_open)
    };
    // An event is over when it has been reported: a header alone does not report it.
    let reported = usize::from(cdb.u16(7)) > event::HEADER;
    let event = reported.then(|| ctx.nexus.take_media_event()).flatten();
    let code = match event {
        None => event::media::NONE,
        Some(MediaEvent::New) => event::media::NEW,
        Some(MediaEvent::Removal) => event::media::REMOVAL,
    };
    let mut status = 0;
    if open {
        status |= event::media::TRAY_OPEN;
    }
    if present {
        status |= event::media::PRESENT;
    }
    Ok(reply(counted(&[event::MEDIA, SUPPORTED, code, status, 0, 0]), cdb.u16(7)))
}

/// MECHANISM STATUS: no changer, idle.
pub(in crate::decode) fn mechanism(ctx: &Context<'_>) -> Answer {
    /// Byte 1: the door is open.
    const OPEN: u8 = 1 << 4;
    let open = if ctx.unit().state().tray_open { OPEN } else { 0 };
    Ok(reply(vec![0, open, 0, 0, 0, 0, 0, 0], ctx.cdb.u16(8)))
}
