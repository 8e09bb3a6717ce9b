//! Device features: which memory the function has written (VFIO's DMA logging), for a client that copies
//! memory while the function runs.

use crate::connection::Reply;
use crate::function::Served;
use crate::memory::{DmaError, Shared};
use crate::migration::Stage;
use crate::version::PAGE;
use crate::wire::{Fields, MAX_DATA, REPORT_LEN, feature, put, put64};

/// Ranges that a client can name.
const MAX_RANGES: u32 = 1024;

/// Answers a feature of logging, after its flags have been found right.
pub(crate) fn answer(
    served: &mut Served,
    memory: &Shared,
    (argsz, flags): (u32, u32),
    fields: Fields<'_>,
) -> Result<Reply, i32> {
    match flags & feature::MASK {
        feature::LOGGING_START => {
            start(served, memory, fields)?;
            echo(flags, fields)
        }
        feature::LOGGING_STOP => {
            memory.stop_log();
            echo(flags, fields)
        }
        _ => report(memory, argsz, flags, fields),
    }
}

/// What was asked, as the answer to something that is set.
fn echo(flags: u32, fields: Fields<'_>) -> Result<Reply, i32> {
    let len = u32::try_from(fields.rest().len()).map_err(|_| libc::EINVAL)?;
    let mut reply = Vec::new();
    put(&mut reply, [len.saturating_add(8), flags]);
    reply.extend_from_slice(fields.rest());
    Ok(Reply::of(reply))
}

fn start(served: &mut Served, memory: &Shared, mut fields: Fields<'_>) -> Result<(), i32> {
    let page_size = fields.u64().ok_or(libc::EINVAL)?;
    let count = fields.u32().ok_or(libc::EINVAL)?;
    fields.u32().ok_or(libc::EINVAL)?;
    // It is what the client would like; reports come in what they ask for.
    if !page_size.is_power_of_two() {
        return Err(libc::EINVAL);
    }
    if count > MAX_RANGES {
        return Err(libc::E2BIG);
    }
    let mut ranges = Vec::new();
    for _ in 0..count {
        let (start, len) = fields.u64().zip(fields.u64()).ok_or(libc::EINVAL)?;
        let end = start.checked_add(len).filter(|end| *end > start).ok_or(libc::EINVAL)?;
        ranges.push(start..end);
    }
    if count == 0 {
        ranges.push(0..u64::MAX);
    }
    // What the function writes after the answer has to be noted, so it writes nothing meanwhile.
    let goes_on = !served.is_paused();
    if goes_on && served.pause().is_err() {
        return Err(libc::EBUSY);
    }
    let started = memory.start_log(ranges).map_err(DmaError::errno);
    if goes_on && served.resume().is_err() {
        *served.stage() = Stage::Error;
        return Err(libc::EIO);
    }
    started
}

fn report(memory: &Shared, argsz: u32, flags: u32, mut fields: Fields<'_>) -> Result<Reply, i32> {
    let mut field = || fields.u64().ok_or(libc::EINVAL);
    let (start, len, page_size) = (field()?, field()?, field()?);
    let end = start.checked_add(len).filter(|end| *end > start).ok_or(libc::EINVAL)?;
    let aligned = start.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
    if !page_size.is_power_of_two() || page_size < PAGE || !aligned {
        return Err(libc::EINVAL);
    }
    let words = usize::try_from(len.div_ceil(page_size).div_ceil(64)).map_err(|_| libc::EINVAL)?;
    let bytes = words.saturating_mul(8);
    let size = REPORT_LEN.saturating_add(bytes);
    if bytes > MAX_DATA || usize::try_from(argsz).is_ok_and(|room| room < size) {
        return Err(libc::EINVAL);
    }
    let mut bits = vec![0_u8; bytes];
    let taken = memory.take_log(start..end, |address| {
        let bit = address.saturating_sub(start) / page_size;
        let byte = usize::try_from(bit / 8).ok().and_then(|byte| bits.get_mut(byte));
        if let Some(byte) = byte {
            *byte |= 1 << (bit % 8);
        }
    });
    if !taken {
        return Err(libc::EINVAL);
    }
    let mut reply = Vec::with_capacity(size);
    put(&mut reply, [u32::try_from(size).map_err(|_| libc::EINVAL)?, flags]);
    put64(&mut reply, [start, len, page_size]);
    reply.extend(bits);
    Ok(Reply::of(reply))
}
