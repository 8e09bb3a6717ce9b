//! Straight onto a lane, as a device's worker does it.

use std::sync::Arc;

use paraslot_backends::block::testing::GuestPages;
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Source};
use paraslot_scsi::{
    Address, Attribute, Bus, Cdb, Command, Completion, Lane, LogicalUnit, Outcome, Sense,
    SenseFormat,
};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::initiator::{Data, End, Ended, Initiator};
use crate::ways::{Way, bus};
use crate::world::{CANARY, GUARD, MEMORY};

/// An initiator that is the worker, too.
pub(crate) struct OnLane {
    bus: Bus,
    pub(crate) lane: Lane,
    pub(crate) guest: GuestPages,
    bed: Epoll,
}

impl OnLane {
    pub(crate) fn new(bus: Bus) -> Self {
        let lane = bus.open_lane(16).expect("a lane");
        let Source::Readable(descriptor) = lane.source() else { panic!("not what it says") };
        let bed = Epoll::new().expect("a descriptor");
        let event = EpollEvent::new(EventSet::IN, 0);
        bed.ctl(ControlOperation::Add, descriptor, event).expect("a source to sleep on");
        Self { bus, lane, guest: GuestPages::new(MEMORY), bed }
    }

    pub(crate) fn submit(&mut self, tag: u64, address: Address, cdb: &[u8], data: DmaBuffers) {
        let (cdb, attribute) = (Cdb::new(cdb), Attribute::Simple);
        self.lane.submit(Command { token: tag, tag, address, cdb, attribute, data });
    }

    /// One round of work, `settle` apart.
    pub(crate) fn round(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.lane.obey();
        self.lane.commit();
        self.lane.complete(&mut completions);
        completions
    }

    /// Works until there is nothing left to do, as far as the sources say.
    pub(crate) fn run(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        for _ in 0..100_000 {
            completions.extend(self.round());
            self.lane.settle();
            let rung = || self.bed.wait(0, &mut [EpollEvent::default()]).expect("it can be waited");
            if !self.lane.prepare_to_wait() && rung() == 0 {
                return completions;
            }
        }
        panic!("the lane never rests");
    }

    /// The sense data as its bytes can say it.
    fn said(&self, address: Address, sense: Sense) -> Sense {
        let format = self.bus.unit(address).map_or(SenseFormat::Fixed, |unit| unit.sense_format());
        let fits = |value: &u64| format == SenseFormat::Descriptor || u32::try_from(*value).is_ok();
        Sense { information: sense.information.filter(fits), ..sense }
    }
}

impl Initiator for OnLane {
    fn execute(&mut self, address: Address, cdb: &[u8], data: Data<'_>) -> Ended {
        let start = GUARD as u64;
        let (len, direction) = match data {
            Data::None => (0, Direction::ToDevice),
            Data::In(len) => (len, Direction::FromDevice),
            Data::Out(bytes) => {
                self.guest.write(start, bytes);
                (bytes.len(), Direction::ToDevice)
            }
        };
        let into = direction == Direction::FromDevice;
        if into {
            self.guest.write(0, &vec![CANARY; len + 2 * GUARD]);
        }
        let buffers = match len {
            0 => DmaBuffers::empty(direction),
            // In two pieces.
            _ => self
                .guest
                .buffers(&[(start, len / 2), (start + (len / 2) as u64, len - len / 2)], direction),
        };
        self.submit(1, address, cdb, buffers);
        let mut completions = self.run();
        assert_eq!(completions.len(), 1, "completes once");
        let Completion { token, outcome, moved } = completions.remove(0);
        assert_eq!(token, 1);
        let moved = usize::try_from(moved).expect("small");
        assert!(moved <= len);
        let end = match outcome {
            Outcome::Ended { sense: Some(sense), .. } => End::Check(self.said(address, *sense)),
            Outcome::Ended { status, sense: None } => End::Status(status),
            Outcome::Overrun => End::Overrun,
            Outcome::Aborted | Outcome::Reset => End::Aborted,
            Outcome::NoTarget => End::Absent,
        };
        let mut bytes = Vec::new();
        if into {
            let memory = self.guest.read(0, len + 2 * GUARD);
            let (before, rest) = memory.split_at(GUARD);
            let (inside, after) = rest.split_at(moved);
            bytes.extend(inside);
            assert!(before.iter().chain(after).all(|byte| *byte == CANARY), "{cdb:02x?}: beyond");
        }
        Ended { end, moved, data: bytes }
    }

    fn work(&mut self) {
        assert!(self.run().is_empty(), "nothing is under way");
    }

    fn bus(&self) -> Option<&Bus> {
        Some(&self.bus)
    }
}

impl Way for OnLane {
    fn with<const N: usize>(
        units: &[(Address, Arc<LogicalUnit>)],
        test: impl FnOnce([&mut dyn Initiator; N]),
    ) {
        let mut these = std::array::from_fn::<_, N, _>(|index| Self::new(bus(index, units)));
        test(these.each_mut().map(|one| one as &mut dyn Initiator));
    }
}
