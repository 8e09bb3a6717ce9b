//! START STOP UNIT, PREVENT ALLOW MEDIUM REMOVAL.

use paraslot_spec::scsi::cdb::start_stop;
use paraslot_spec::scsi::sense::code;

use super::block::flush;
use super::context::{Answer, Context};
use crate::bus::BusEvent;
use crate::plan::Plan;
use crate::sense::Sense;
use crate::unit::{Kind, MediaEvent};

/// START STOP UNIT. A disk that is stopped is not ready until it is started. Power conditions other
/// than active are entered and left without anyone's noticing.
pub(super) fn start_stop(ctx: &Context<'_>) -> Answer {
    let operation = ctx.cdb.u8(4);
    let start = operation & start_stop::START != 0;
    let eject = operation & start_stop::LOEJ != 0;
    match (operation >> start_stop::POWER_SHIFT, ctx.unit().kind) {
        (start_stop::START_VALID, Kind::Cdrom) if eject => load(ctx, start),
        // A drive spins up by itself when it is to read.
        (start_stop::START_VALID, Kind::Cdrom) => Ok(Plan::good()),
        (start_stop::START_VALID, Kind::Disk) if eject => Err(Sense::invalid_cdb(4, Some(1))),
        (start_stop::START_VALID, Kind::Disk) => {
            set_stopped(ctx, !start);
            let no_flush = operation & start_stop::NO_FLUSH != 0;
            Ok(if start || no_flush { Plan::good() } else { flush(ctx.unit()) })
        }
        (start_stop::ACTIVE | start_stop::IDLE | start_stop::STANDBY, _) => {
            set_stopped(ctx, false);
            Ok(Plan::good())
        }
        (
            start_stop::LU_CONTROL | start_stop::FORCE_IDLE_0 | start_stop::FORCE_STANDBY_0,
            Kind::Disk,
        ) => Ok(Plan::good()),
        _ => Err(Sense::invalid_cdb(4, Some(7))),
    }
}

fn set_stopped(ctx: &Context<'_>, stopped: bool) {
    let mut state = ctx.unit().state();
    state.stopped = stopped;
    ctx.unit().refresh(&state);
}

/// Loads or ejects the medium.
fn load(ctx: &Context<'_>, load: bool) -> Answer {
    let unit = ctx.unit();
    let mut state = unit.state();
    if state.tray_open != load {
        return Ok(Plan::good());
    }
    if !load && !state.prevented.is_empty() {
        return Err(Sense::illegal(code::REMOVAL_PREVENTED));
    }
    state.tray_open = !load;
    let mut told = Vec::new();
    let (asc, ascq) = if load { code::MEDIUM_CHANGED } else { code::NO_MEDIUM };
    if unit.blocks() != 0 {
        for nexus in unit.nexuses() {
            nexus.media_event(if load { MediaEvent::New } else { MediaEvent::Removal });
            // Who takes it out, knows.
            if load || nexus.who() != ctx.nexus.who() {
                nexus.attention(asc, ascq);
                told.push(nexus);
            }
        }
    }
    unit.refresh(&state);
    drop(state);
    for nexus in told {
        nexus.tell_of(ctx.nexus, BusEvent::Changed { asc, ascq, removable: true });
    }
    Ok(Plan::good())
}

/// PREVENT ALLOW MEDIUM REMOVAL, for one initiator.
pub(super) fn prevent(ctx: &Context<'_>) -> Answer {
    let who = ctx.nexus.who();
    let mut state = ctx.unit().state();
    match ctx.cdb.u8(4) & 3 {
        0 => state.prevented.retain(|holder| holder != who),
        1 if state.prevented.contains(who) => {}
        1 => state.prevented.push(who.clone()),
        _ => return Err(Sense::invalid_cdb(4, Some(1))),
    }
    Ok(Plan::good())
}
