//! On a lane.

use paraslot_backends::block::BlockBackend;
use paraslot_device::dma::Direction;
use paraslot_scsi::{Bus, Function, Outcome, Status, Ticket};

use super::{APART, Answer, Fate, Order, Queues, THERE, Tasks, place};
use crate::cdb::{READY, read, write};
use crate::initiator::{Data, Initiator};
use crate::lane::OnLane;
use crate::ways::bus;
use crate::world::{BLOCK, disk};

/// A lane, whose worker is the test.
pub(super) struct LaneTasks {
    pub(super) on: OnLane,
    pub(super) port: Bus,
    told: Vec<(u16, Fate)>,
    ticket: Option<Ticket>,
}

impl LaneTasks {
    pub(super) fn new(port: Bus) -> Self {
        let mut on = OnLane::new(port.clone());
        // What it has to report.
        on.execute(THERE, &READY, Data::None);
        Self { on, port, told: Vec::new(), ticket: None }
    }

    /// One round, in which all that has ended is told before anything is said to be over.
    fn round(&mut self) -> bool {
        let before = self.ticket.as_ref().and_then(Ticket::response);
        let completions = self.on.round();
        let any = !completions.is_empty();
        for completion in completions {
            let fate = match completion.outcome {
                Outcome::Ended { status: Status::Good, .. } => Fate::Done,
                Outcome::Aborted | Outcome::Reset => Fate::Aborted,
                _ => Fate::Failed,
            };
            self.told.push((u16::try_from(completion.token).expect("a tag"), fate));
        }
        let response = self.ticket.as_ref().and_then(Ticket::response);
        assert!(!any || response == before, "there is no response before they have been told");
        self.on.lane.settle();
        any || self.on.lane.prepare_to_wait()
    }
}

impl Tasks for LaneTasks {
    fn begin(&mut self, tag: u16, lba: u32, writes: bool) {
        let (cdb, direction) = match writes {
            true => (write(lba, 1), Direction::ToDevice),
            false => (read(lba, 1), Direction::FromDevice),
        };
        let data = self.on.guest.buffers(&[(place(tag) as u64, BLOCK)], direction);
        self.on.submit(tag.into(), THERE, &cdb, data);
        self.work();
    }

    fn told(&mut self) -> Vec<(u16, Fate)> {
        std::mem::take(&mut self.told)
    }

    fn work(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            idle = if self.round() { 0 } else { idle + 1 };
            if idle == 3 {
                return;
            }
        }
        panic!("the lane never rests");
    }

    fn order(&mut self, order: Order) -> Answer {
        let address = THERE;
        let function = match order {
            Order::Abort(tag) => Function::AbortTask { address, tag: tag.into() },
            Order::AbortSet => Function::AbortTaskSet(address),
            Order::ClearSet => Function::ClearTaskSet(address),
            Order::ResetUnit => Function::LogicalUnitReset(address),
            Order::ResetNexus => Function::NexusReset { target: address.target },
            Order::ResetBus => Function::ResetAll,
            Order::Query(tag) => Function::QueryTask { address, tag: tag.into() },
            Order::QuerySet => Function::QueryTaskSet(address),
        };
        self.ticket = Some(self.port.manage(function, None));
        self.work();
        self.answer().expect("there is a ticket")
    }

    fn answer(&mut self) -> Option<Answer> {
        let ticket = self.ticket.as_ref()?;
        Some(ticket.response().map_or(Answer::Waits, Answer::Done))
    }

    fn memory(&mut self, tag: u16) -> Vec<u8> {
        self.on.guest.read(place(tag) as u64, APART)
    }

    fn fill(&mut self, tag: u16, data: &[u8]) {
        self.on.guest.write(place(tag) as u64, data);
    }
}

impl Queues for OnLane {
    fn with(backend: impl BlockBackend + 'static, test: impl FnOnce(&mut dyn Tasks)) {
        test(&mut LaneTasks::new(bus(0, &[(THERE, disk(backend))])));
    }
}
