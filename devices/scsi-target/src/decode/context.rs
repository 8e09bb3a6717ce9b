//! What a command is decoded from.

use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use crate::command::Cdb;
use crate::nexus::Nexus;
use crate::plan::Plan;
use crate::sense::Sense;
use crate::unit::LogicalUnit;

/// What a command comes to; or why it ends with CHECK CONDITION.
pub(super) type Answer = Result<Plan, Sense>;

/// A command, and who has sent it.
pub(super) struct Context<'a> {
    pub(super) nexus: &'a Nexus,
    pub(super) cdb: &'a Cdb,
    pub(super) data: &'a DmaBuffers,
    pub(super) luns: &'a dyn Fn() -> Vec<u16>,
}

impl Context<'_> {
    pub(super) fn unit(&self) -> &LogicalUnit {
        &self.nexus.unit
    }

    /// Has `parse` look at the `len` bytes of parameters that the initiator sends: they are read once.
    pub(super) fn parameters(&self, len: u16, parse: impl FnOnce(&[u8]) -> Answer) -> Answer {
        let len = usize::from(len);
        if !self.has_data(len) {
            return Ok(Plan::Overrun);
        }
        let mut bytes = vec![0; len];
        self.data.copy_to(&mut bytes);
        Ok(took(len, parse(&bytes).unwrap_or_else(Plan::check)))
    }

    /// Whether the initiator sends at least so many bytes.
    pub(super) fn has_data(&self, len: usize) -> bool {
        len == 0 || self.data.direction() == Direction::ToDevice && self.data.len() >= len
    }
}

/// `then`, after `len` bytes of data-out were taken.
pub(super) fn took(len: usize, then: Plan) -> Plan {
    Plan::Took { len: len as u64, then: Box::new(then) }
}

impl Cdb {
    /// `N` bytes at `at`, zeroes beyond the end.
    fn at<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(self.bytes().iter().skip(at)) {
            *to = *from;
        }
        bytes
    }

    /// A byte.
    pub(super) fn u8(&self, at: usize) -> u8 {
        let [byte] = self.at(at);
        byte
    }

    /// An integer of 16 bits.
    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.at(at))
    }

    /// An integer of 24 bits.
    pub(super) fn u24(&self, at: usize) -> u32 {
        let [a, b, c] = self.at(at);
        u32::from_be_bytes([0, a, b, c])
    }

    /// An integer of 32 bits.
    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.at(at))
    }

    /// An integer of 64 bits.
    pub(super) fn u64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.at(at))
    }

    /// A bit of a byte.
    pub(super) fn bit(&self, at: usize, mask: u8) -> bool {
        self.u8(at) & mask != 0
    }
}

/// Data-in, of which the initiator wants `allocation` bytes at most.
pub(super) fn reply(mut data: Vec<u8>, allocation: impl Into<u64>) -> Plan {
    data.truncate(usize::try_from(allocation.into()).unwrap_or(usize::MAX));
    Plan::Reply(data)
}

/// `value`, or the highest that 16 bits hold.
pub(super) fn cap16(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// `value`, or the highest that 32 bits hold.
pub(super) fn cap32(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A length of data that is made here, which is short.
pub(super) fn len16(data: &[u8]) -> [u8; 2] {
    cap16(data.len() as u64).to_be_bytes()
}

/// Puts `value` into `page` at `at`, which is inside.
pub(super) fn put(page: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in page.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}
