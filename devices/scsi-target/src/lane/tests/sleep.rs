//! What wakes a worker, and when it may sleep.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{
    BlockBackend, BlockCompletion, BlockInfo, BlockQueue, BlockRequest, MemoryBackend,
};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Source, Sources};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::rig::{Bed, HERE, Rig, image, round, rounds, unit};
use crate::plan::Plan;
use crate::{Address, Function};

fn gated() -> (Rig, Gate) {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    (Rig::new(gated), gate)
}

#[test]
fn completions_wake_the_worker_again_and_again() {
    let (mut rig, gate) = gated();
    let bed = Bed::new(&rig.lane);
    for token in 0..3 {
        for part in 0..3 {
            rig.lane.read_block(&rig.guest, token * 3 + part, 1, part);
        }
        rig.lane.commit();
        assert!(!rig.lane.prepare_to_wait());
        assert!(!bed.rung());
        for left in (0..3).rev() {
            gate.release(1);
            assert!(bed.rung());
            assert!(rig.lane.prepare_to_wait(), "something is over");
            assert_eq!(round(&mut rig.lane).len(), 1);
            assert!(!rig.lane.prepare_to_wait());
            assert!(!bed.rung(), "quiet again with {left} left");
        }
    }
}

// A ring that comes late, after its completion was taken, wakes the worker once and not for ever.
#[test]
fn a_late_ring_is_quieted() {
    let (mut rig, gate) = gated();
    let bed = Bed::new(&rig.lane);
    rig.lane.read_block(&rig.guest, 1, 1, 1);
    gate.release(1);
    assert_eq!(round(&mut rig.lane).len(), 1);
    assert_eq!(rig.lane.in_flight(), 0);
    assert!(bed.rung());
    assert!(!rig.lane.prepare_to_wait());
    assert!(!bed.rung());
}

#[test]
fn orders_wake_the_worker() {
    let mut rig = Rig::new(image());
    let bed = Bed::new(&rig.lane);
    for _ in 0..3 {
        assert!(!rig.lane.prepare_to_wait());
        assert!(!bed.rung());
        let ticket = rig.bus.manage(Function::AbortTaskSet(HERE), None);
        assert!(bed.rung());
        assert!(rig.lane.prepare_to_wait());
        rig.lane.obey();
        assert!(rig.lane.prepare_to_wait(), "there is a response to be given");
        rig.lane.complete(&mut Vec::new());
        assert!(!rig.lane.prepare_to_wait(), "it is the worker's to give");
        assert!(ticket.response().is_none());
        rig.lane.settle();
        assert!(ticket.response().is_some());
    }
    assert!(!rig.lane.prepare_to_wait());
    assert!(!bed.rung());
}

// A worker that cannot reach the guest's memory does not obey, and sleeps all the same.
#[test]
fn an_order_rings_once() {
    let mut rig = Rig::new(image());
    let bed = Bed::new(&rig.lane);
    let tickets = [(); 2].map(|()| {
        let ticket = rig.bus.manage(Function::AbortTaskSet(HERE), None);
        assert!(bed.rung());
        assert!(rig.lane.prepare_to_wait());
        assert!(!rig.lane.goes_on(), "there is nothing but the order");
        assert!(!bed.rung());
        ticket
    });
    assert!(rounds(&mut rig.lane).is_empty());
    assert!(tickets.iter().all(|ticket| ticket.response().is_some()));
}

#[test]
fn units_come_and_go_behind_one_source() {
    let mut rig = Rig::new(image());
    let bed = Bed::new(&rig.lane);
    let there = Address { target: 1, lun: 1 };
    for token in 0..3 {
        let gated = GatedBackend::new(image());
        let gate = gated.gate();
        rig.bus.attach(there, unit(gated)).unwrap();
        let data = rig.input(0, 512);
        rig.lane.begin_at(there, token, token, data, Plan::Read { offset: 0, len: 512 });
        assert!(rounds(&mut rig.lane).is_empty());
        assert!(!bed.rung());
        gate.release(1);
        assert!(bed.rung());
        assert_eq!(rounds(&mut rig.lane).len(), 1);
        assert!(rig.bus.detach(there).unwrap().response().is_none());
        assert!(bed.rung());
        assert!(rounds(&mut rig.lane).is_empty());
        assert!(!bed.rung());
        assert!(!rig.lane.queues.have_sources());
    }
}

/// A backend whose queues share an eventfd with somebody else.
struct Shared(MemoryBackend, Arc<EventFd>);

struct SharedQueue(Box<dyn BlockQueue>, EventFd);

impl BlockBackend for Shared {
    fn info(&self) -> BlockInfo {
        self.0.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        Ok(Box::new(SharedQueue(self.0.open_queue(depth)?, self.1.try_clone()?)))
    }
}

impl BlockQueue for SharedQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        self.0.submit(request)
    }

    fn commit(&mut self) {
        self.0.commit();
        self.1.write(1).unwrap();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        self.0.complete(completions);
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([Source::Event(self.1.as_raw_fd())])
    }

    fn in_flight(&self) -> usize {
        self.0.in_flight()
    }
}

// What rings for a queue that is closed, because somebody else has its eventfd open, wakes nobody.
#[test]
fn a_closed_queue_does_not_ring() {
    let event = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    let mut rig = Rig::new(Shared(image(), event.clone()));
    let bed = Bed::new(&rig.lane);
    rig.lane.read_block(&rig.guest, 1, 1, 1);
    assert_eq!(rounds(&mut rig.lane).len(), 1);
    event.write(1).unwrap();
    assert!(bed.rung());
    assert!(rounds(&mut rig.lane).is_empty());
    rig.bus.detach(HERE);
    assert!(rounds(&mut rig.lane).is_empty());
    event.write(1).unwrap();
    assert!(!bed.rung());
}

// A backend that completes at once has nothing that rings: the worker must go on by itself.
#[test]
fn a_backend_without_a_source_keeps_the_worker_awake() {
    let mut rig = Rig::new(image());
    let none = DmaBuffers::empty(Direction::ToDevice);
    let compare = crate::plan::Compare::Nothing;
    rig.lane.begin_at(HERE, 1, 1, none, Plan::Verify { offset: 0, len: 1 << 20, compare });
    let mut awake = 0;
    while round(&mut rig.lane).is_empty() {
        assert!(rig.lane.prepare_to_wait());
        awake += 1;
    }
    assert!(awake > 1);
    assert!(!rig.lane.prepare_to_wait());
}

#[test]
fn the_next_in_line_is_woken() {
    let (mut rig, gate) = gated();
    let mut two = rig.bus.open_lane(4).unwrap();
    let bed = Bed::new(&two);
    let old = super::rig::contents(&image(), 0, 512);
    rig.guest.write(0, &[&old[..], &[1; 512]].concat());
    let plan = || Plan::CompareAndWrite { offset: 0, len: 512, fua: false };
    let data = [rig.output(0, 1024), rig.output(0, 1024)];
    for (lane, data) in [&mut rig.lane, &mut two].into_iter().zip(data) {
        lane.begin_at(HERE, 1, 1, data, plan());
        lane.commit();
    }
    assert!(!two.prepare_to_wait());
    assert!(!bed.rung());
    for _ in 0..2 {
        gate.release(1);
        round(&mut rig.lane);
    }
    assert_eq!(rig.lane.in_flight(), 0);
    assert!(bed.rung());
    round(&mut two);
    assert_eq!(gate.held(), 1);
    assert!(!two.prepare_to_wait());
    assert!(!bed.rung());
}

// On a thread of its own, for long enough that a lost wake-up would show.
#[test]
fn a_sleeping_worker_misses_nothing() {
    const COUNT: u64 = 2000;
    let (rig, gate) = gated();
    let Rig { bus, mut lane, guest } = rig;
    let worker = std::thread::spawn(move || {
        let bed = Bed::new(&lane);
        let (mut next, mut ended) = (0, 0);
        while ended < COUNT {
            while next < COUNT && lane.in_flight() < 4 {
                lane.read_block(&guest, next, next, next % 8);
                next += 1;
            }
            let count = round(&mut lane).len() as u64;
            ended += count;
            if count == 0 && !lane.prepare_to_wait() {
                assert!(bed.wait(60_000), "a wake-up was lost");
            }
        }
    });
    let mut number = 0;
    while !worker.is_finished() {
        gate.release(1);
        number += 1;
        if number % 64 == 0 {
            bus.manage(Function::QueryTaskSet(HERE), None);
        }
    }
    worker.join().unwrap();
}
