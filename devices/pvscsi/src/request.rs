//! Requests, and how they end.

use paraslot_device::{DmaBuffers, DmaSpace, Memory, StateError};
use paraslot_scsi::{
    Address, Attribute, Bus, Cdb, Command, Completion, Outcome, Sense, SenseFormat, Status,
};
use paraslot_spec::pvscsi::{
    CompletionDescriptor, RequestDescriptor, RequestFlags, host_status, tag,
};
use serde::{Deserialize, Serialize};
use vm_memory::{Bytes, GuestAddress};

use crate::gather::gather;

/// The highest number that a logical unit can have.
const MAX_LUN: u16 = 0x3fff;

/// What is kept of a request until the driver has been told of its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Context {
    /// The driver's name for it.
    pub(crate) context: u64,
    pub(crate) address: Address,
    sense_address: u64,
    sense_len: u32,
}

impl Context {
    pub(crate) fn new(request: &RequestDescriptor) -> Self {
        Self {
            context: request.context.get(),
            address: Address { target: request.target, lun: lun_of(request.lun).unwrap_or(0) },
            sense_address: request.sense_address.get(),
            sense_len: request.sense_len.get(),
        }
    }
}

/// A request that is over, and of which the driver has not been told.
#[derive(Debug)]
pub(crate) struct Over {
    context: Context,
    moved: u64,
    host_status: u16,
    scsi_status: u16,
    sense: Option<Box<Sense>>,
}

impl Over {
    /// It never came to the target.
    pub(crate) fn refused(context: Context, host_status: u16) -> Self {
        Self { context, moved: 0, host_status, scsi_status: 0, sense: None }
    }

    /// As the target says.
    ///
    /// Data that fell short is a success with the number of bytes that were moved: Linux takes the
    /// residual of that, and an error for each of the statuses that are meant for it.
    pub(crate) fn new(context: Context, completion: Completion) -> Self {
        let Completion { token: _, outcome, moved } = completion;
        let (host_status, scsi_status, sense) = match outcome {
            Outcome::Ended { status, sense } => (host_status::SUCCESS, status as u8, sense),
            Outcome::Overrun => (host_status::DATARUN, 0, None),
            Outcome::Aborted => (host_status::ABORTQUEUE, 0, None),
            Outcome::Reset => (host_status::BUSRESET, 0, None),
            Outcome::NoTarget => (host_status::SELTIMEO, 0, None),
        };
        Self { context, moved, host_status, scsi_status: scsi_status.into(), sense }
    }

    /// Writes the sense data, and makes the descriptor.
    pub(crate) fn tell<A: DmaSpace>(&self, memory: &Memory<A>, bus: &Bus) -> CompletionDescriptor {
        let mut descriptor = CompletionDescriptor::default();
        descriptor.context.set(self.context.context);
        descriptor.data_len.set(self.moved);
        descriptor.host_status.set(self.host_status);
        descriptor.scsi_status.set(self.scsi_status);
        if let Some(sense) = &self.sense {
            let unit = bus.unit(self.context.address);
            let format = unit.map_or(SenseFormat::default(), |unit| unit.sense_format());
            let (bytes, len) = sense.encode(format);
            let room = usize::try_from(self.context.sense_len).unwrap_or(usize::MAX);
            let bytes = bytes.get(..len.min(room)).unwrap_or(&[]);
            let at = GuestAddress(self.context.sense_address);
            if bytes.is_empty() || memory.write_slice(bytes, at).is_ok() {
                descriptor.sense_len = u32::try_from(bytes.len()).unwrap_or(0).into();
            } else {
                descriptor.host_status = host_status::SENSFAILED.into();
            }
        }
        descriptor
    }
}

/// A request that is over, saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OverState {
    context: u64,
    target: u8,
    lun: u16,
    sense_address: u64,
    sense_len: u32,
    moved: u64,
    host_status: u16,
    scsi_status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sense: Option<Sense>,
}

impl From<&Over> for OverState {
    fn from(over: &Over) -> Self {
        let Over { context, moved, host_status, scsi_status, sense } = over;
        let Context { context, address: Address { target, lun }, sense_address, sense_len } =
            *context;
        let (moved, host_status, scsi_status) = (*moved, *host_status, *scsi_status);
        let sense = sense.as_deref().copied();
        Self {
            context,
            target,
            lun,
            sense_address,
            sense_len,
            moved,
            host_status,
            scsi_status,
            sense,
        }
    }
}

impl TryFrom<OverState> for Over {
    type Error = StateError;

    fn try_from(state: OverState) -> Result<Self, StateError> {
        let OverState { moved, host_status, scsi_status, sense, .. } = state;
        let status = u8::try_from(scsi_status).ok().and_then(Status::from_code);
        let ended = host_status == host_status::SUCCESS;
        let checked = ended && status == Some(Status::CheckCondition);
        let possible = match host_status {
            host_status::SUCCESS => status.is_some(),
            host_status::DATARUN => true,
            host_status::ABORTQUEUE
            | host_status::BUSRESET
            | host_status::SELTIMEO
            | host_status::INVPARAM => moved == 0,
            _ => false,
        };
        if !possible
            || !ended && scsi_status != 0
            || sense.is_some() != checked
            || sense.is_some_and(|sense| !sense.is_possible())
            || state.lun > MAX_LUN
        {
            return Err(StateError::impossible("a request that ended as none does"));
        }
        let address = Address { target: state.target, lun: state.lun };
        let (sense_address, sense_len) = (state.sense_address, state.sense_len);
        let context = Context { context: state.context, address, sense_address, sense_len };
        Ok(Self { context, moved, host_status, scsi_status, sense: sense.map(Box::new) })
    }
}

/// What the target is asked, if the request makes sense; else the status that it ends with. Adds to
/// `looked` the number of scatter/gather elements that were looked at.
pub(crate) fn parse<A: DmaSpace>(
    memory: &Memory<A>,
    request: &RequestDescriptor,
    token: u64,
    looked: &mut usize,
) -> Result<Command, u16> {
    let flags = RequestFlags::from_bits_truncate(request.flags.get());
    let cdb = request.cdb.get(..usize::from(request.cdb_len)).filter(|cdb| !cdb.is_empty());
    let Some(cdb) = cdb.filter(|_| !flags.contains(RequestFlags::OUT_OF_BAND_CDB)) else {
        return Err(host_status::INVPARAM);
    };
    let lun = lun_of(request.lun).filter(|_| request.bus == 0);
    let Some(lun) = lun else { return Err(host_status::SELTIMEO) };
    let data: DmaBuffers = gather(memory, request, looked).map_err(|_| host_status::INVPARAM)?;
    Ok(Command {
        token,
        tag: request.context.get(),
        address: Address { target: request.target, lun },
        cdb: Cdb::new(cdb),
        attribute: match request.tag {
            tag::HEAD_OF_QUEUE => Attribute::HeadOfQueue,
            tag::ORDERED => Attribute::Ordered,
            _ => Attribute::Simple,
        },
        data,
    })
}

/// The number in a logical unit's eight bytes: a single level of the peripheral or flat space method
/// (SAM-5, 4.7). VMware's drivers write the former, with numbers up to 255.
pub(crate) fn lun_of(bytes: [u8; 8]) -> Option<u16> {
    match bytes {
        [high @ (0 | 0x40..=0x7f), low, 0, 0, 0, 0, 0, 0] => {
            Some(u16::from_be_bytes([high & 0x3f, low]))
        }
        _ => None,
    }
}

/// The eight bytes of a logical unit's number.
pub(crate) fn lun_bytes(lun: u16) -> [u8; 8] {
    let [high, low] = lun.to_be_bytes();
    let method = if lun > 0xff { 0x40 } else { 0 };
    [high | method, low, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logical_unit_numbers() {
        for lun in [0, 1, 255, 256, 0x3fff] {
            assert_eq!(lun_of(lun_bytes(lun)), Some(lun));
        }
        assert_eq!(lun_bytes(5), [0, 5, 0, 0, 0, 0, 0, 0]);
        assert_eq!(lun_bytes(0x1234), [0x52, 0x34, 0, 0, 0, 0, 0, 0]);
        // Bus 1, an extended method, and a second level.
        for bytes in
            [[1, 0, 0, 0, 0, 0, 0, 0], [0xc1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 0, 1, 0, 0, 0, 0]]
        {
            assert_eq!(lun_of(bytes), None);
        }
    }
}
