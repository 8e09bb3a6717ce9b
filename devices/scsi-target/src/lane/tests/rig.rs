//! Buses, units and lanes to be tried out, and a way to have a lane carry out any plan.

use std::io;
use std::sync::{Arc, LazyLock};

use paraslot_backends::block::testing::GuestPages;
use paraslot_backends::block::{BlockBackend, BlockInfo, BlockQueue, MemoryBackend, MemoryOptions};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Source};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::command::{Cdb, Command, Completion, Outcome, Status};
use crate::lane::Lane;
use crate::lane::start::Arrival;
use crate::plan::Plan;
use crate::{Address, Attribute, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};

pub(super) const HERE: Address = Address { target: 0, lun: 0 };
pub(super) const BLOCK: usize = 512;

/// An image of 4 MiB that says of every byte where it is.
pub(super) fn image() -> MemoryBackend {
    static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| (0..4 << 20).map(expected).collect());
    MemoryBackend::from_contents(&CONTENTS, MemoryOptions::default()).unwrap()
}

/// What [`image`] has at `offset`.
pub(super) fn expected(offset: usize) -> u8 {
    (offset / BLOCK * 7 + offset % 251).to_le_bytes()[0]
}

pub(super) fn contents(image: &MemoryBackend, offset: usize, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    image.read_at(offset as u64, &mut data).unwrap();
    data
}

pub(super) fn bus(name: &str) -> Bus {
    Bus::new(BusOptions {
        initiator: Initiator(name.into()),
        max_target: 255,
        max_lun: 16383,
        autosense: true,
    })
}

pub(super) fn unit(backend: impl BlockBackend + 'static) -> Arc<LogicalUnit> {
    LogicalUnit::disk(DiskOptions::new(Arc::new(backend))).unwrap()
}

/// A bus with one unit, a lane, and memory of 4 MiB.
pub(super) struct Rig {
    pub(super) bus: Bus,
    pub(super) lane: Lane,
    pub(super) guest: GuestPages,
}

impl Rig {
    pub(super) fn new(backend: impl BlockBackend + 'static) -> Self {
        Self::with_depth(backend, 32)
    }

    pub(super) fn with_depth(backend: impl BlockBackend + 'static, depth: u32) -> Self {
        let bus = bus("one");
        bus.attach(HERE, unit(backend)).unwrap();
        bus.power_on();
        let lane = bus.open_lane(depth).unwrap();
        Self { bus, lane, guest: GuestPages::new(4 << 20) }
    }

    pub(super) fn output(&self, address: u64, len: usize) -> DmaBuffers {
        self.guest.buffers(&[(address, len)], Direction::ToDevice)
    }

    pub(super) fn input(&self, address: u64, len: usize) -> DmaBuffers {
        self.guest.buffers(&[(address, len)], Direction::FromDevice)
    }

    /// Carries a plan to its end: its only completion.
    pub(super) fn carry_out(&mut self, data: DmaBuffers, plan: Plan) -> Completion {
        self.lane.begin_at(HERE, 1, 1, data, plan);
        let mut completions = rounds(&mut self.lane);
        assert_eq!(completions.len(), 1);
        let completion = completions.remove(0);
        assert_eq!(completion.token, 1);
        completion
    }

    pub(super) fn good(&mut self, data: DmaBuffers, plan: Plan) -> u64 {
        let completion = self.carry_out(data, plan);
        assert_eq!(completion.outcome, GOOD);
        completion.moved
    }
}

pub(super) const GOOD: Outcome = Outcome::Ended { status: Status::Good, sense: None };

impl Lane {
    /// Has `plan` carried out as if `decode` had made it of a command.
    pub(super) fn begin_at(
        &mut self,
        address: Address,
        token: u64,
        tag: u64,
        data: DmaBuffers,
        plan: Plan,
    ) {
        let unit = self.view.find(&self.port, address).expect("a unit");
        let medium = self.view.get(unit).expect("a unit").nexus.medium_generation();
        self.begin(Arrival { token, tag, unit, medium, taken: 0 }, data, plan);
    }

    /// A read of one block.
    pub(super) fn read_block(&mut self, guest: &GuestPages, token: u64, tag: u64, lba: u64) {
        let data = guest.buffers(&[(lba * BLOCK as u64, BLOCK)], Direction::FromDevice);
        let plan = Plan::Read { offset: lba * BLOCK as u64, len: BLOCK as u64 };
        self.begin_at(HERE, token, tag, data, plan);
    }
}

/// One round of a worker.
pub(super) fn round(lane: &mut Lane) -> Vec<Completion> {
    let mut completions = Vec::new();
    lane.obey();
    lane.commit();
    lane.complete(&mut completions);
    lane.settle();
    completions
}

/// Rounds until the worker would sleep.
pub(super) fn rounds(lane: &mut Lane) -> Vec<Completion> {
    let bed = Bed::new(lane);
    let mut completions = Vec::new();
    for _ in 0..100_000 {
        completions.extend(round(lane));
        if !lane.prepare_to_wait() && !bed.rung() {
            return completions;
        }
    }
    panic!("the lane never rests");
}

/// What an executor sleeps on: level-triggered, as it does.
pub(super) struct Bed(Epoll);

impl Bed {
    pub(super) fn new(lane: &Lane) -> Self {
        let Source::Readable(descriptor) = lane.source() else { panic!("not what it says") };
        let epoll = Epoll::new().unwrap();
        let event = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, descriptor, event).unwrap();
        Self(epoll)
    }

    /// Waits up to so many milliseconds.
    pub(super) fn wait(&self, limit: i32) -> bool {
        self.0.wait(limit, &mut [EpollEvent::default()]).is_ok_and(|count| count != 0)
    }

    pub(super) fn rung(&self) -> bool {
        self.wait(0)
    }
}

/// Outcomes by token.
pub(super) fn outcomes(completions: Vec<Completion>) -> Vec<(u64, Outcome)> {
    let mut list: Vec<_> =
        completions.into_iter().map(|completion| (completion.token, completion.outcome)).collect();
    list.sort_by_key(|(token, _)| *token);
    list
}

pub(super) fn command(token: u64, address: Address, cdb: &[u8], data: DmaBuffers) -> Command {
    Command { token, tag: token, address, cdb: Cdb::new(cdb), attribute: Attribute::Simple, data }
}

/// An image that says other things of itself than it is.
pub(super) struct Claims<B>(pub(super) B, pub(super) fn(&mut BlockInfo));

impl<B: BlockBackend> BlockBackend for Claims<B> {
    fn info(&self) -> BlockInfo {
        let mut info = self.0.info();
        self.1(&mut info);
        info
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        self.0.open_queue(depth)
    }
}
