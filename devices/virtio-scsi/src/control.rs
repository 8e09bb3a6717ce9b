//! The control queue's loop (5.6.6.2).
//!
//! Task management functions are carried out by the lanes of all request queues, and take the time
//! that those need to let go of commands. Any number of them can be under way.

mod saved;

use std::sync::Arc;

use paraslot_device::{Bell, DeviceError, DmaSpace, Memory, Progress, Source, Worker};
use paraslot_scsi::{Address, Bus, Function, Response, Ticket};
use paraslot_spec::virtio_scsi::{AnRequest, AnResponse, Lun, TmfRequest, control, response, tmf};
use paraslot_virtio::segments::{part, structure, total, write};
use paraslot_virtio::{Chain, Queue, Segment};
use vm_memory::{GuestAddress, GuestMemory, Permissions};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::address::{Whom, decode, exists, target};
use crate::shared::Shared;

/// Most requests that are taken in one call of `service`.
const BATCH: usize = 16;

const AN_RESPONSE: u64 = size_of::<AnResponse>() as u64;

/// Takes requests from the control queue to the bus, and back.
pub(crate) struct ControlWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    queue: Queue<A>,
    /// Rings when a function under way has its response.
    bell: Arc<Bell>,
    under_way: Vec<UnderWay>,
}

/// A task management function under way.
struct UnderWay {
    head: u16,
    /// Where its response goes.
    place: GuestAddress,
    request: TmfRequest,
    stage: Stage,
}

/// How far a function is.
enum Stage {
    /// Another device was asked for it: it is still to be asked for here.
    Again(Function),
    /// The bus has it carried out.
    Asked(Ticket),
    /// It is over.
    Over(u8),
}

impl UnderWay {
    /// Its response, once there is one.
    fn response(&self) -> Option<u8> {
        match &self.stage {
            Stage::Again(_) => None,
            Stage::Asked(ticket) => ticket.response().map(code),
            Stage::Over(response) => Some(*response),
        }
    }
}

/// What becomes of a function that is asked for.
#[derive(Debug)]
enum Asked {
    /// The bus has it carried out.
    Manage(Function),
    /// The answer is known.
    Answer(u8),
}

/// What a request for a task management function asks for.
fn understand(request: &TmfRequest) -> Asked {
    let tag = request.id.get();
    let subtype = request.subtype.get();
    // The unit does not matter to a function that concerns a whole target.
    if subtype == tmf::I_T_NEXUS_RESET {
        return match target(request.lun) {
            Some(target) => Asked::Manage(Function::NexusReset { target }),
            None => Asked::Answer(response::BAD_TARGET),
        };
    }
    let address = match decode(request.lun) {
        Some(Whom::Unit(address)) => address,
        // Commands there are over as soon as they are taken.
        Some(Whom::ReportLuns(_)) => return Asked::Answer(response::FUNCTION_REJECTED),
        None => return Asked::Answer(response::BAD_TARGET),
    };
    Asked::Manage(match subtype {
        tmf::ABORT_TASK => Function::AbortTask { address, tag },
        tmf::ABORT_TASK_SET => Function::AbortTaskSet(address),
        tmf::CLEAR_ACA => Function::ClearAca(address),
        tmf::CLEAR_TASK_SET => Function::ClearTaskSet(address),
        tmf::LOGICAL_UNIT_RESET => Function::LogicalUnitReset(address),
        tmf::QUERY_TASK => Function::QueryTask { address, tag },
        tmf::QUERY_TASK_SET => Function::QueryTaskSet(address),
        _ => return Asked::Answer(response::FUNCTION_REJECTED),
    })
}

fn code(response: Response) -> u8 {
    match response {
        Response::Complete => response::FUNCTION_COMPLETE,
        Response::Succeeded => response::FUNCTION_SUCCEEDED,
        Response::Rejected => response::FUNCTION_REJECTED,
        Response::IncorrectLun => response::INCORRECT_LUN,
        Response::NoTarget => response::BAD_TARGET,
    }
}

/// Whether a unit can be asked about its asynchronous notifications. None has any.
fn presence(bus: &Bus, lun: Lun) -> u8 {
    let there = |address: Address| bus.unit(address).is_some();
    match decode(lun) {
        Some(Whom::Unit(address)) if there(address) => response::OK,
        Some(Whom::Unit(address)) if exists(bus, address.target) => response::INCORRECT_LUN,
        Some(Whom::ReportLuns(_)) => response::OK,
        Some(Whom::Unit(_)) | None => response::BAD_TARGET,
    }
}

/// The byte at `offset` of what can be written, if it is memory.
fn byte<A: DmaSpace>(
    memory: &Memory<A>,
    writable: &[Segment],
    offset: u64,
) -> Option<GuestAddress> {
    let (place, _) = part(writable, offset, 1).next()?;
    memory.check_range(place, 1, Permissions::Write).then_some(place)
}

impl<A: DmaSpace> ControlWorker<A> {
    pub(crate) fn new(shared: Arc<Shared>, queue: Queue<A>) -> Result<Self, DeviceError> {
        let bell = Arc::new(Bell::new().map_err(DeviceError::Worker)?);
        let under_way = Vec::with_capacity(queue.size().into());
        Ok(Self { shared, queue, bell, under_way })
    }

    fn serve(&mut self, memory: &Memory<A>, chain: &Chain) {
        // A chain that cannot be answered breaks the queue.
        if self.try_serve(memory, chain).is_none() {
            self.queue.fail();
        }
    }

    fn try_serve(&mut self, memory: &Memory<A>, chain: &Chain) -> Option<()> {
        let Chain { head, readable, writable } = chain;
        let kind = structure::<A, U32>(memory, readable).map(U32::get);
        match kind {
            Some(control::TMF) => {
                let place = byte(memory, writable, 0)?;
                let Some(request) = structure(memory, readable) else {
                    self.answer(memory, *head, place, response::FAILURE);
                    return Some(());
                };
                match understand(&request) {
                    Asked::Manage(function) => {
                        let ticket = self.shared.bus.manage(function, Some(self.bell.clone()));
                        let stage = Stage::Asked(ticket);
                        self.under_way.push(UnderWay { head: *head, place, request, stage });
                    }
                    Asked::Answer(response) => self.answer(memory, *head, place, response),
                }
            }
            Some(control::AN_QUERY | control::AN_SUBSCRIBE) => {
                let response = match structure::<A, AnRequest>(memory, readable) {
                    Some(request) => presence(&self.shared.bus, request.lun),
                    None => response::FAILURE,
                };
                let answer = AnResponse { event_actual: 0.into(), response };
                write(memory, part(writable, 0, AN_RESPONSE), answer.as_bytes())?;
                let written = u32::try_from(AN_RESPONSE).ok()?;
                self.queue.push_used(memory, *head, written);
            }
            // All that is known of others is that the response comes last.
            Some(_) | None => {
                let before = total(writable).checked_sub(1)?;
                let place = byte(memory, writable, before)?;
                write(memory, [(place, 1)], &[response::FAILURE])?;
                // It counts as written if nothing is missing before it.
                self.queue.push_used(memory, *head, (before == 0).into());
            }
        }
        Some(())
    }

    /// Has the bus carry out what another device was asked for: when all queues are there again, so that
    /// it is answered after what it has ended.
    fn ask_again(&mut self) -> Progress {
        let mut progress = Progress::Idle;
        for one in &mut self.under_way {
            if let Stage::Again(function) = one.stage {
                one.stage = Stage::Asked(self.shared.bus.manage(function, Some(self.bell.clone())));
                progress = Progress::More;
            }
        }
        progress
    }

    /// Answers a task management function.
    fn answer(&mut self, memory: &Memory<A>, head: u16, place: GuestAddress, response: u8) {
        // If it is not memory any more, the guest has taken it away, and cannot expect it.
        let _ = write(memory, [(place, 1)], &[response]);
        self.queue.push_used(memory, head, 1);
    }

    /// Answers the functions that are over; returns whether any is.
    fn finish(&mut self, memory: &Memory<A>) -> bool {
        let before = self.under_way.len();
        let mut under_way = std::mem::take(&mut self.under_way);
        under_way.retain(|one| {
            let response = one.response();
            if let Some(response) = response {
                self.answer(memory, one.head, one.place, response);
            }
            response.is_none()
        });
        self.under_way = under_way;
        self.under_way.len() != before
    }
}

impl<A: DmaSpace> Worker for ControlWorker<A> {
    fn sources(&self) -> Vec<Source> {
        vec![self.queue.source(), self.bell.source()]
    }

    fn service(&mut self) -> Progress {
        self.bell.answer();
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        let mut progress = self.ask_again();
        for _ in 0..BATCH {
            // An error has broken the queue and been signalled, and there is nothing more to do.
            let Ok(Some(chain)) = self.queue.pop(&memory) else { break };
            self.queue.disable_notifications(&memory);
            progress = Progress::More;
            self.serve(&memory, &chain);
        }
        if self.finish(&memory) {
            progress = Progress::More;
        }
        self.queue.notify(&memory);
        progress
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Self { bell, queue, .. } = self;
        bell.sleep_unless(|| {
            let Some(memory) = queue.dma().memory() else { return Progress::Idle };
            if queue.enable_notifications(&memory) { Progress::More } else { Progress::Idle }
        })
    }

    /// Functions under way are not waited for: they may need lanes that are stopped already, or that
    /// belong to another device. They are answered when this worker goes on, if it does.
    fn quiesce(&mut self) -> Progress {
        if let Some(memory) = self.queue.dma().memory()
            && self.finish(&memory)
        {
            self.queue.notify(&memory);
        }
        Progress::Idle
    }
}
