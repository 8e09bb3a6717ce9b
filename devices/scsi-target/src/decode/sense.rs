//! REQUEST SENSE.

use paraslot_spec::scsi::cdb::DESC;
use paraslot_spec::scsi::sense::{code, key};

use super::context;
use super::context::{Answer, Context};
use crate::command::Cdb;
use crate::plan::Plan;
use crate::sense::{Sense, SenseFormat};

/// REQUEST SENSE: what an earlier command left, on a bus that does not send sense data along; else an
/// attention, which has been reported then (SAM-5, 5.14).
pub(super) fn request(ctx: &Context<'_>) -> Answer {
    let nexus = ctx.nexus;
    let none = Sense::new(key::NO_SENSE, code::NONE);
    let sense = nexus.take_sense().or_else(|| nexus.take_attention()).unwrap_or(none);
    Ok(reply(ctx.cdb, &sense))
}

/// `sense`, in the format that REQUEST SENSE asks for.
pub(super) fn reply(cdb: &Cdb, sense: &Sense) -> Plan {
    let format = if cdb.bit(1, DESC) { SenseFormat::Descriptor } else { SenseFormat::Fixed };
    let (bytes, len) = sense.encode(format);
    context::reply(bytes.into_iter().take(len).collect(), cdb.u8(4))
}
