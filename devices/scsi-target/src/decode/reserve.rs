//! RESERVE, RELEASE, PERSISTENT RESERVE IN and OUT.

use paraslot_spec::scsi::reserve::{
    Capabilities, FullStatus, Header, KIND, Parameters, R_HOLDER, Reservation, SCOPE_LU,
    SCOPE_SHIFT, TMV, TRANSPORT_ISCSI, action_out, mask_bit, parameter,
};
use paraslot_spec::scsi::sense::code;
use zerocopy::{FromBytes, IntoBytes};

use super::context::{Answer, Context, cap16, cap32, reply};
use crate::command::Status;
use crate::plan::{Ending, Plan};
use crate::reservation::{Attentions, KINDS, Refusal, Registration, Reservations};
use crate::sense::Sense;
use crate::unit::Holder;

/// Characters of an initiator's name that a TransportID has at most.
const MAX_NAME: usize = 223;

fn conflict() -> Plan {
    Plan::End(Ending::Status(Status::ReservationConflict))
}

fn refused(refusal: Refusal) -> Answer {
    Err(match refusal {
        Refusal::Conflict => return Ok(conflict()),
        Refusal::Full => Sense::illegal(code::INSUFFICIENT_REGISTRATION_RESOURCES),
        Refusal::Release => Sense::illegal(code::INVALID_RELEASE),
        Refusal::ActionKey => Sense::invalid_parameter(8, None),
    })
}

/// Byte 1 of RESERVE and RELEASE: 3RDPTY, LONGID and EXTENT, which are obsolete: the whole unit is
/// reserved, for who says so.
fn whole(ctx: &Context<'_>) -> Result<(), Sense> {
    match ctx.cdb.u8(1) & 0b1_0011 {
        0 => Ok(()),
        bits if bits & 0b1_0000 != 0 => Err(Sense::invalid_cdb(1, Some(4))),
        bits if bits & 0b10 != 0 => Err(Sense::invalid_cdb(1, Some(1))),
        _ => Err(Sense::invalid_cdb(1, Some(0))),
    }
}

/// RESERVE (6), (10).
pub(super) fn reserve_spc2(ctx: &Context<'_>) -> Answer {
    whole(ctx)?;
    let mut state = ctx.unit().state();
    if let Err(refusal) = state.reservations.reserve_spc2(ctx.nexus.who()) {
        return refused(refusal);
    }
    ctx.unit().refresh(&state);
    Ok(Plan::good())
}

/// RELEASE (6), (10): of another's reservation it does nothing.
pub(super) fn release_spc2(ctx: &Context<'_>) -> Answer {
    whole(ctx)?;
    let mut state = ctx.unit().state();
    if !state.reservations.registrations().is_empty() {
        return Ok(conflict());
    }
    state.reservations.release_spc2(ctx.nexus.who());
    ctx.unit().refresh(&state);
    Ok(Plan::good())
}

/// PERSISTENT RESERVE IN, whichever service action makes the data.
fn show(ctx: &Context<'_>, make: impl FnOnce(&Reservations) -> Vec<u8>) -> Answer {
    let state = ctx.unit().state();
    // With RESERVE, they all conflict, even for who holds it (SPC-2, 5.5.1).
    if state.reservations.spc2_held() {
        return Ok(conflict());
    }
    Ok(reply(make(&state.reservations), ctx.cdb.u16(7)))
}

fn with_header(reservations: &Reservations, list: &[u8]) -> Vec<u8> {
    let header = Header {
        generation: reservations.generation().into(),
        additional: cap32(list.len() as u64).into(),
    };
    [header.as_bytes(), list].concat()
}

/// READ KEYS.
pub(super) fn read_keys(ctx: &Context<'_>) -> Answer {
    show(ctx, |reservations| {
        let keys = reservations.registrations().iter();
        let keys: Vec<u8> = keys.flat_map(|one| one.key.to_be_bytes()).collect();
        with_header(reservations, &keys)
    })
}

/// READ RESERVATION.
pub(super) fn read_reservation(ctx: &Context<'_>) -> Answer {
    show(ctx, |reservations| match reservations.kind() {
        None => with_header(reservations, &[]),
        Some(kind) => {
            let held = Reservation::new(reservations.holder_key(), kind);
            with_header(reservations, held.as_bytes())
        }
    })
}

/// REPORT CAPABILITIES: all types; nothing persists over a loss of power.
pub(super) fn capabilities(ctx: &Context<'_>) -> Answer {
    show(ctx, |_| {
        let kinds = KINDS.iter().fold(0, |mask, &kind| mask | mask_bit(kind));
        Capabilities::new(0, TMV, kinds).as_bytes().to_vec()
    })
}

/// READ FULL STATUS.
pub(super) fn full_status(ctx: &Context<'_>) -> Answer {
    show(ctx, |reservations| {
        let mut list = Vec::new();
        for Registration { who, key } in reservations.registrations() {
            let held = reservations.kind().filter(|_| reservations.holds(who));
            let flags = if held.is_some() { R_HOLDER } else { 0 };
            let transport = transport_id(who);
            let port = u16::from(who.address.target) + 1;
            let len = cap32(transport.len() as u64);
            let status = FullStatus::new(*key, flags, held.unwrap_or_default(), port, len);
            list.extend(status.as_bytes());
            list.extend(transport);
        }
        with_header(reservations, &list)
    })
}

/// A TransportID (SPC-4, 7.6.4): of the formats that there are, the one with a name.
fn transport_id(who: &Holder) -> Vec<u8> {
    let mut name: Vec<u8> = who.initiator.0.bytes().take(MAX_NAME).collect();
    // It ends with a zero, and is padded to a multiple of four.
    name.push(0);
    name.resize(name.len().next_multiple_of(4).max(20), 0);
    let [high, low] = cap16(name.len() as u64).to_be_bytes();
    let mut id = vec![TRANSPORT_ISCSI, 0, high, low];
    id.extend(name);
    id
}

/// PERSISTENT RESERVE OUT, all service actions.
pub(super) fn out(ctx: &Context<'_>) -> Answer {
    const LEN: u16 = {
        assert!(size_of::<Parameters>() == 24);
        24
    };
    if ctx.cdb.u32(5) != u32::from(LEN) {
        return Err(Sense::illegal(code::PARAMETER_LIST_LENGTH));
    }
    ctx.parameters(LEN, |list| {
        let (list, _) = Parameters::ref_from_prefix(list)
            .map_err(|_| Sense::illegal(code::PARAMETER_LIST_LENGTH))?;
        act(ctx, list)
    })
}

fn act(ctx: &Context<'_>, list: &Parameters) -> Answer {
    let action = ctx.cdb.u8(1) & 0x1f;
    let registers = matches!(action, action_out::REGISTER | action_out::REGISTER_AND_IGNORE);
    if registers {
        for flag in [parameter::SPEC_I_PT, parameter::ALL_TG_PT, parameter::APTPL] {
            if list.flags & flag != 0 {
                let bit = u8::try_from(flag.trailing_zeros()).ok();
                return Err(Sense::invalid_parameter(20, bit));
            }
        }
    }
    let kind = ctx.cdb.u8(2) & KIND;
    if !registers && action != action_out::CLEAR {
        if ctx.cdb.u8(2) >> SCOPE_SHIFT != SCOPE_LU {
            return Err(Sense::invalid_cdb(2, Some(7)));
        }
        if !KINDS.contains(&kind) {
            return Err(Sense::invalid_cdb(2, Some(3)));
        }
    }
    let who = ctx.nexus.who();
    let (key, action_key) = (list.key.get(), list.action_key.get());
    let unit = ctx.unit();
    let mut state = unit.state();
    let reservations = &mut state.reservations;
    if reservations.spc2_held() {
        return Ok(conflict());
    }
    let mut victims = Vec::new();
    let done: Result<Attentions, Refusal> = match action {
        action_out::REGISTER => reservations.register(who, Some(key), action_key),
        action_out::REGISTER_AND_IGNORE => reservations.register(who, None, action_key),
        action_out::RESERVE => reservations.reserve(who, key, kind).map(|()| Attentions::new()),
        action_out::RELEASE => reservations.release(who, key, kind),
        action_out::CLEAR => reservations.clear(who, key),
        _ => reservations.preempt(who, key, action_key, kind).map(|(attentions, about)| {
            victims = about;
            attentions
        }),
    };
    match done {
        Err(refusal) => return refused(refusal),
        Ok(attentions) => unit.attend(&attentions),
    }
    unit.refresh(&state);
    drop(state);
    if action != action_out::PREEMPT_AND_ABORT {
        return Ok(Plan::good());
    }
    let all = unit.nexuses().into_iter();
    let meant: Vec<_> = all.filter(|nexus| victims.contains(nexus.who())).collect();
    Ok(if meant.is_empty() { Plan::good() } else { Plan::Abort(meant) })
}
