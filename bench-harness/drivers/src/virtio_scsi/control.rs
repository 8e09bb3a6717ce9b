//! Task management, by the control queue (5.6.6.2).

use paraslot_spec::virtio::split::{DESC_F_NEXT, DESC_F_WRITE};
use paraslot_spec::virtio_scsi::{Lun, TmfRequest, control, response, tmf};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U32, U64};

use super::{Queue, VirtioScsi};
use crate::error::wait_until;
use crate::scsi::COMMAND_MS;
use crate::virtio::Transport;
use crate::{DmaRegion, Error, Platform};

/// Where the response goes.
const RESPONSE: usize = 32;
/// A response that the device never gives.
const NOTHING: u8 = u8::MAX;

/// A task management function (SAM-5, 7), for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Ends the request with this tag.
    AbortTask(u16),
    /// Ends all requests of this driver.
    AbortTaskSet,
    /// Ends all requests, whosever they are.
    ClearTaskSet,
    /// There is no auto contingent allegiance that it could clear.
    ClearAca,
    /// Resets the disk's target.
    NexusReset,
    /// Resets the disk.
    LogicalUnitReset,
    /// Whether there is a request with this tag.
    QueryTask(u16),
    /// Whether there are requests of this driver.
    QueryTaskSet,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// It was carried out; of a query: no.
    Complete,
    /// Of a query: yes.
    Succeeded,
    /// The device does not know it.
    Rejected,
    /// There is no such unit.
    IncorrectLun,
    /// There is no such target.
    BadTarget,
    /// The device has no room for it now.
    Busy,
    /// It failed.
    Failed,
}

/// The queue, and the memory of its one request.
pub(super) struct Control {
    queue: Queue,
    memory: DmaRegion,
    /// One was given up on, and may yet be carried out.
    lost: bool,
}

impl Control {
    pub(super) fn new<P: Platform>(
        transport: &Transport<'_, P>,
        queue: Queue,
    ) -> Result<Self, Error> {
        let memory = transport.platform().allocate(RESPONSE + 1).ok_or(Error::NoMemory)?;
        if queue.ring.size() < 2 {
            return Err(Error::Unsupported("task management"));
        }
        let len = u32::try_from(size_of::<TmfRequest>()).unwrap_or(0);
        queue.ring.set_descriptor(0, memory.physical(0), len, DESC_F_NEXT, 1);
        queue.ring.set_descriptor(1, memory.physical(RESPONSE), 1, DESC_F_WRITE, 0);
        Ok(Self { queue, memory, lost: false })
    }

    fn manage<P: Platform>(
        &mut self,
        transport: &Transport<'_, P>,
        request: TmfRequest,
    ) -> Result<Response, Error> {
        if self.lost {
            return Err(Error::Busy);
        }
        self.memory.write_bytes(0, request.as_bytes());
        self.memory.write8(RESPONSE, NOTHING);
        self.queue.ring.push(0);
        self.queue.kick(transport);
        self.lost = true;
        let mut used = Ok(None);
        wait_until(transport.platform(), COMMAND_MS, "task management", || {
            used = self.queue.ring.pop();
            !matches!(used, Ok(None))
        })?;
        let used = used?.ok_or(Error::Timeout("task management"))?;
        if used.head != 0 {
            return Err(Error::Protocol("a buffer that it was not given"));
        }
        if used.len != 1 {
            return Err(Error::Protocol("a response of a length that it cannot have"));
        }
        self.lost = false;
        match self.memory.read8(RESPONSE) {
            response::FUNCTION_COMPLETE => Ok(Response::Complete),
            response::FUNCTION_SUCCEEDED => Ok(Response::Succeeded),
            response::FUNCTION_REJECTED => Ok(Response::Rejected),
            response::INCORRECT_LUN => Ok(Response::IncorrectLun),
            response::BAD_TARGET => Ok(Response::BadTarget),
            response::BUSY => Ok(Response::Busy),
            response::TRANSPORT_FAILURE
            | response::TARGET_FAILURE
            | response::NEXUS_FAILURE
            | response::FAILURE => Ok(Response::Failed),
            _ => Err(Error::Protocol("a response that there is not")),
        }
    }
}

impl<P: Platform> VirtioScsi<'_, P> {
    /// Has a task management function carried out, and waits for it. Requests that it ends fail with
    /// [`Failed::Aborted`](crate::Failed::Aborted), which the next look for completions finds: the
    /// device completes them before the function. Before it, the device is told of all that was
    /// submitted, as by [`kick`](crate::Disk::kick).
    ///
    /// # Errors
    /// When the device does not answer in time, after which no further function can be carried out, or
    /// misbehaves.
    pub fn manage(&mut self, function: Function) -> Result<Response, Error> {
        let (subtype, tag) = match function {
            Function::AbortTask(tag) => (tmf::ABORT_TASK, tag),
            Function::AbortTaskSet => (tmf::ABORT_TASK_SET, 0),
            Function::ClearTaskSet => (tmf::CLEAR_TASK_SET, 0),
            Function::ClearAca => (tmf::CLEAR_ACA, 0),
            Function::NexusReset => (tmf::I_T_NEXUS_RESET, 0),
            Function::LogicalUnitReset => (tmf::LOGICAL_UNIT_RESET, 0),
            Function::QueryTask(tag) => (tmf::QUERY_TASK, tag),
            Function::QueryTaskSet => (tmf::QUERY_TASK_SET, 0),
        };
        let address = self.unit.address();
        let request = TmfRequest {
            kind: U32::new(control::TMF),
            subtype: U32::new(subtype),
            lun: Lun::new(address.target, address.lun),
            id: U64::new(tag.into()),
        };
        self.requests.kick();
        self.control.manage(self.requests.transport(), request)
    }
}

const _: () = assert!(size_of::<TmfRequest>() <= RESPONSE);
