//! READ TOC/PMA/ATIP: one session of one data track.

use paraslot_spec::scsi::cdb::MSF;
use paraslot_spec::scsi::mmc::toc::{
    DATA_TRACK, FULL, LEAD_OUT, POINT_FIRST, POINT_LAST, POINT_LEAD_OUT, SESSION, TOC,
};

use super::{address, counted, msf};
use crate::decode::context::{Answer, Context, reply};
use crate::sense::Sense;

/// READ TOC/PMA/ATIP.
pub(in crate::decode) fn toc(ctx: &Context<'_>) -> Answer {
    let cdb = ctx.cdb;
    let as_msf = cdb.bit(1, MSF);
    let end = ctx.unit().blocks();
    // ATAPI hosts of old have the format in the control byte (SFF-8020i, READ TOC).
    let format = match cdb.u8(2) & 0xf {
        0 => cdb.u8(9) >> 6,
        format => format,
    };
    let body = match format {
        TOC => {
            let start = cdb.u8(6);
            if start > 1 && start != LEAD_OUT {
                return Err(Sense::invalid_cdb(6, Some(7)));
            }
            let mut body = vec![1, 1];
            if start <= 1 {
                body.extend([0, DATA_TRACK, 1, 0]);
                body.extend(address(0, as_msf));
            }
            body.extend([0, DATA_TRACK, LEAD_OUT, 0]);
            body.extend(address(end, as_msf));
            body
        }
        SESSION => {
            let mut body = vec![1, 1, 0, DATA_TRACK, 1, 0];
            body.extend(address(0, as_msf));
            body
        }
        FULL => {
            if cdb.u8(6) > 1 {
                return Err(Sense::invalid_cdb(6, Some(7)));
            }
            // Each: session, ADR and CONTROL, TNO, POINT, a running time, zero, and what it points at.
            let points = [
                (POINT_FIRST, [1, 0, 0]),
                (POINT_LAST, [1, 0, 0]),
                (POINT_LEAD_OUT, msf(end)),
                (1, msf(0)),
            ];
            let mut body = vec![1, 1];
            for (point, at) in points {
                body.extend([1, DATA_TRACK, 0, point, 0, 0, 0, 0]);
                body.extend(at);
            }
            body
        }
        _ => return Err(Sense::invalid_cdb(2, Some(3))),
    };
    Ok(reply(counted(&body), cdb.u16(7)))
}
