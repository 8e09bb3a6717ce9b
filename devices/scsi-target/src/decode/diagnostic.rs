//! TEST UNIT READY and SEND DIAGNOSTIC.

use super::context::{Answer, Context};
use crate::plan::Plan;
use crate::sense::Sense;

/// TEST UNIT READY: it is, or this would not have been reached.
#[expect(clippy::unnecessary_wraps, reason = "as every command")]
pub(super) fn test_unit_ready(_: &Context<'_>) -> Answer {
    Ok(Plan::good())
}

/// SEND DIAGNOSTIC: the default self-test, which has nothing to test. There are no diagnostic pages.
pub(super) fn send(ctx: &Context<'_>) -> Answer {
    if ctx.cdb.u8(1) >> 5 != 0 {
        return Err(Sense::invalid_cdb(1, Some(7)));
    }
    if ctx.cdb.u16(3) != 0 {
        return Err(Sense::invalid_cdb(3, None));
    }
    Ok(Plan::good())
}
