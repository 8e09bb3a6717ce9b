//! The frames of the workload, made independently of it.

use paraslot_protocol::traffic::{self, Flow};
use paraslot_protocol::{PATTERN_STEP, pattern_base};

/// Frame `number` of the workload's between two stations, as an adapter is given it to be sent:
/// without its checksum, or to be segmented.
pub fn unfinished(flow: Flow, number: u64, size: u32) -> Vec<u8> {
    let headers = traffic::header_len(size);
    let mut frame = flow.headers(size)[..headers].to_vec();
    frame.extend(number.to_le_bytes());
    frame.extend(0_u64.to_le_bytes());
    let mut word = pattern_base(number, 0).wrapping_add(PATTERN_STEP.wrapping_mul(2));
    while frame.len() < size as usize {
        frame.extend(word.to_le_bytes());
        word = word.wrapping_add(PATTERN_STEP);
    }
    frame.truncate(size as usize);
    frame
}

/// The same with its checksum filled in.
pub fn finished(flow: Flow, number: u64, size: u32) -> Vec<u8> {
    let mut frame = unfinished(flow, number, size);
    let field = traffic::TRANSPORT + traffic::checksum_offset(size);
    let sum = traffic::sum(0, &frame[traffic::TRANSPORT..]);
    let checksum = if sum == u16::MAX { sum } else { !sum };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}
