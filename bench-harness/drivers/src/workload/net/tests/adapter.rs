//! An adapter that can be made to do everything wrong, and a machine on which time and the adapter
//! go on while the driver waits.

extern crate std;

use core::cell::RefCell;
use core::ops::Range;
use std::collections::VecDeque;
use std::vec;
use std::vec::Vec;

use paraslot_protocol::traffic::{self, Flow};
use paraslot_protocol::{NetJob, PATTERN_STEP, Phase, Traffic, pattern_base};

use crate::testing::Fake;
use crate::{
    Accesses, Arrival, Bdf, DmaRegion, Error, Known, MsiMessage, Nic, Offers, Platform, Task,
};

pub(super) const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
pub(super) const PEER: [u8; 6] = [0x52, 0x54, 0, 1, 2, 9];

/// What is wrong with frames or interrupts, by the frames' numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// A frame is lost.
    Lose(u64),
    /// Each frame whose number is a multiple is lost.
    LoseEach(u64),
    /// All frames from this one on are lost.
    LoseFrom(u64),
    /// A frame arrives twice.
    Duplicate(u64),
    /// A frame changes places with the one after it.
    Swap(u64),
    /// A frame comes 1.2 seconds late.
    Delay(u64),
    /// One bit of a frame's byte is wrong.
    Flip(u64, usize),
    /// A frame has one byte too many, or too few.
    Long(u64),
    Short(u64),
    /// A frame's checksum is said to be like this.
    Claim(u64, Known),
    /// It never gives a sent frame back from this one on.
    Keep(u64),
    /// No interrupt from the time on when this many were raised.
    Silent(u64),
    /// A frame that is none of the job's comes before this one.
    Foreign(u64),
}

/// A frame as it is without any adapter: built from the description of the traffic alone.
pub(super) fn frame(flow: Flow, size: u32, number: u64, stamp: u64, verify: bool) -> Vec<u8> {
    let len = usize::try_from(size).unwrap();
    let start = traffic::header_len(size);
    let mut bytes = flow.headers(size)[..start].to_vec();
    let mut words = vec![number, stamp];
    let base = pattern_base(number, 0);
    words.extend((2..=len / 8).map(|index| match verify {
        true => base.wrapping_add(PATTERN_STEP.wrapping_mul(index as u64)),
        false => 0,
    }));
    bytes.extend(words.into_iter().flat_map(u64::to_le_bytes));
    bytes.truncate(len);
    bytes
}

fn field(size: usize) -> usize {
    traffic::TRANSPORT + traffic::checksum_offset(u32::try_from(size).unwrap())
}

/// Fills in the checksum of a frame that holds its pseudo header's sum.
pub(super) fn complete(mut frame: Vec<u8>) -> Vec<u8> {
    let mut sum = 0_u64;
    for pair in frame[traffic::TRANSPORT..].chunks(2) {
        sum += u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    }
    let sum = u16::try_from(sum % 0xffff).unwrap();
    let value = if sum == 0 { 0xffff } else { !sum };
    let at = field(frame.len());
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
    frame
}

fn zero_checksum(mut frame: Vec<u8>) -> Vec<u8> {
    let at = field(frame.len());
    frame[at..at + 2].fill(0);
    frame
}

/// What the adapter and the network behind it are like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Config {
    pub(super) fault: Fault,
    pub(super) offers: Offers,
    pub(super) depth: u16,
    /// Frames for which there is room on the ring.
    pub(super) ring: usize,
    pub(super) headroom: usize,
    /// What is known of good frames' checksums.
    pub(super) known: Known,
    /// Nothing goes on from the first to the second, in cycles.
    pub(super) stall: (u64, u64),
    /// Bytes of each piece of a received frame.
    pub(super) piece: usize,
    /// Cycles that each step takes besides.
    pub(super) slow: u64,
}

pub(super) const GOOD: Config = Config {
    fault: Fault::None,
    offers: Offers { checksum: true, segmentation: true, large_receive: true },
    depth: 32,
    ring: 32,
    headroom: 0,
    known: Known::Right,
    stall: (0, 0),
    piece: 4096,
    slow: 0,
};

struct World {
    config: Config,
    job: NetJob,
    /// Frames that the adapter was told of, with their tags.
    kicked: VecDeque<(u16, Vec<u8>)>,
    /// Tags that it is done with.
    done: VecDeque<u16>,
    inbox: VecDeque<(Vec<u8>, Known)>,
    /// Everything that was sent, checksums filled in.
    sent: Vec<Vec<u8>>,
    swapped: Option<Vec<u8>>,
    delayed: Option<(u64, Vec<u8>)>,
    /// The number of the next frame that is made.
    next: u64,
    enabled: bool,
    transmit_interrupts: bool,
    armed: bool,
    raised: u64,
    /// Frames that were not lost.
    arrived: u64,
    /// Steps without anything to do.
    idle: u64,
}

impl World {
    fn arrive(&mut self, frame: Vec<u8>, now: u64) {
        let number = number(&frame);
        let config = self.config;
        let mut known = config.known;
        let mut frame = match known {
            Known::Partial => frame,
            // UDP without a checksum has none.
            _ if !self.job.verify && !traffic::is_segmented(self.job.frame_size) => {
                zero_checksum(frame)
            }
            _ => complete(frame),
        };
        match config.fault {
            Fault::Lose(at) if at == number => return,
            Fault::LoseEach(each) if number % each == each - 1 => return,
            Fault::LoseFrom(at) if number >= at => return,
            Fault::Duplicate(at) if at == number => self.inbox.push_back((frame.clone(), known)),
            Fault::Swap(at) if at == number => {
                self.swapped = Some(frame);
                return;
            }
            Fault::Delay(at) if at == number => {
                self.delayed = Some((now + 1_200_000, frame));
                return;
            }
            Fault::Flip(at, byte) if at == number => frame[byte] ^= 0x10,
            Fault::Long(at) if at == number => frame.push(0),
            Fault::Short(at) if at == number => {
                frame.pop();
            }
            Fault::Claim(at, claim) if at == number => known = claim,
            Fault::Foreign(at) if at == number => {
                for kind in [[0x08, 0x06], [0x08, 0x00], [0x86, 0xdd]] {
                    let mut foreign = frame.clone();
                    foreign[12..14].copy_from_slice(&kind);
                    foreign[35] = 67;
                    self.inbox.push_back((foreign, known));
                }
                self.inbox.push_back((vec![0xff; 14], Known::Nothing));
            }
            _ => {}
        }
        self.arrived += 1;
        self.inbox.push_back((frame, known));
        if let Some(frame) = self.swapped.take() {
            self.inbox.push_back((frame, known));
        }
    }

    /// A little of what goes on at the adapter.
    fn step(&mut self, now: u64, interrupts: &mut u64) {
        if (self.config.stall.0..self.config.stall.1).contains(&now) {
            return;
        }
        let before = (self.sent.len(), self.arrived);
        for _ in 0..5 {
            let Some((tag, frame)) = self.kicked.pop_front() else { break };
            if !matches!(self.config.fault, Fault::Keep(at) if number(&frame) >= at) {
                self.done.push_back(tag);
            }
            self.sent.push(complete(frame.clone()));
            if self.job.traffic == Traffic::Request {
                self.arrive(frame, now);
            }
        }
        if matches!(self.job.traffic, Traffic::Receive | Traffic::Respond) {
            for _ in 0..7 {
                if self.inbox.len() < 40 {
                    let flow = Flow { source: PEER, destination: MAC };
                    let job = self.job;
                    let made = frame(flow, job.frame_size, self.next, now, job.verify);
                    self.next += 1;
                    self.arrive(made, now);
                }
            }
        }
        if let Some((_, frame)) = self.delayed.take_if(|(time, _)| *time < now) {
            self.inbox.push_back((frame, self.config.known));
        }
        self.signal(interrupts);
        self.idle = if before == (self.sent.len(), self.arrived) { self.idle + 1 } else { 0 };
    }

    fn has_news(&self) -> bool {
        !self.inbox.is_empty() || (self.transmit_interrupts && !self.done.is_empty())
    }

    fn signal(&mut self, interrupts: &mut u64) {
        if self.armed && self.has_news() {
            self.armed = false;
            self.raised += 1;
            if !matches!(self.config.fault, Fault::Silent(after) if self.raised > after) {
                *interrupts += 1;
            }
        }
    }
}

fn number(frame: &[u8]) -> u64 {
    let start = traffic::header_len(u32::try_from(frame.len()).unwrap());
    u64::from_le_bytes(frame[start..start + 8].try_into().unwrap())
}

/// The machine.
pub(super) struct Machine {
    pub(super) fake: Fake,
    world: RefCell<World>,
}

impl Machine {
    pub(super) fn new(config: Config, job: &NetJob) -> Self {
        let world = World {
            config,
            job: *job,
            kicked: VecDeque::new(),
            done: VecDeque::new(),
            inbox: VecDeque::new(),
            sent: Vec::new(),
            swapped: None,
            delayed: None,
            next: 1000,
            enabled: false,
            transmit_interrupts: false,
            armed: false,
            raised: 0,
            arrived: 0,
            idle: 0,
        };
        Self { fake: Fake::new(), world: RefCell::new(world) }
    }

    /// What was sent, checksums filled in.
    pub(super) fn sent(&self) -> Vec<Vec<u8>> {
        self.world.borrow().sent.clone()
    }

    fn step(&self) {
        let mut interrupts = self.fake.interrupts.get();
        self.world.borrow_mut().step(self.fake.tsc(), &mut interrupts);
        self.fake.interrupts.set(interrupts);
        let world = self.world.borrow();
        // When it has nothing to do for good, that shall not take long.
        self.fake.pass(if world.idle > 100 { 10_000 } else { world.config.slow });
    }
}

impl Platform for Machine {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        self.fake.config_read(function, offset)
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        self.fake.config_write(function, offset, value);
    }
    fn read8(&self, address: u64) -> u8 {
        self.fake.read8(address)
    }
    fn read16(&self, address: u64) -> u16 {
        self.fake.read16(address)
    }
    fn read32(&self, address: u64) -> u32 {
        self.fake.read32(address)
    }
    fn write8(&self, address: u64, value: u8) {
        self.fake.write8(address, value);
    }
    fn write16(&self, address: u64, value: u16) {
        self.fake.write16(address, value);
    }
    fn write32(&self, address: u64, value: u32) {
        self.fake.write32(address, value);
    }
    fn bar_space(&self) -> Range<u64> {
        self.fake.bar_space()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        self.fake.allocate(len)
    }
    fn tsc(&self) -> u64 {
        self.fake.tsc()
    }
    fn tsc_hz(&self) -> u64 {
        self.fake.tsc_hz()
    }
    fn relax(&self) {
        self.fake.relax();
        self.step();
    }
    fn interrupt_message(&self, index: u8) -> MsiMessage {
        self.fake.interrupt_message(index)
    }
    fn interrupts_taken(&self, index: u8) -> u64 {
        self.fake.interrupts_taken(index)
    }
    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        let end = self.tsc() + self.tsc_hz();
        while self.interrupts_taken(index) <= seen && self.tsc() < end {
            self.relax();
        }
    }
    fn phase(&self, phase: Phase) {
        self.fake.phase(phase);
    }
}

/// The driver's side.
pub(super) struct Adapter<'p> {
    machine: &'p Machine,
    /// Tags that were handed over, and not yet those of `kick`.
    submitted: Vec<(u16, Vec<u8>)>,
    in_flight: Vec<u16>,
    memory: DmaRegion,
    doorbells: u64,
    refill: u16,
    free: u16,
    ends: u64,
}

impl<'p> Adapter<'p> {
    pub(super) fn new(machine: &'p Machine) -> Self {
        Self {
            machine,
            submitted: Vec::new(),
            in_flight: Vec::new(),
            memory: machine.allocate(128 << 10).unwrap(),
            doorbells: 0,
            refill: 16,
            free: 0,
            ends: 0,
        }
    }

    fn config(&self) -> Config {
        self.machine.world.borrow().config
    }

    /// A look while interrupts are allowed shows that the driver did not wait for one.
    fn assert_may_look(&self) {
        let world = self.machine.world.borrow();
        assert!(!world.enabled || !world.armed, "a look without an interrupt");
    }
}

impl Nic for Adapter<'_> {
    fn address(&self) -> [u8; 6] {
        MAC
    }
    fn link_up(&mut self) -> bool {
        true
    }
    fn offers(&self) -> Offers {
        self.config().offers
    }
    fn depth(&self) -> u16 {
        self.config().depth
    }
    fn headroom(&self) -> usize {
        self.config().headroom
    }
    fn transmit(
        &mut self,
        tag: u16,
        frame: &DmaRegion,
        len: usize,
        task: Task,
    ) -> Result<(), Error> {
        assert!(tag < self.depth() && !self.in_flight.contains(&tag), "tag {tag}");
        if self.in_flight.len() >= self.config().ring {
            return Err(Error::Busy);
        }
        let headroom = self.headroom();
        let mut bytes = vec![0; len];
        frame.read_bytes(headroom, &mut bytes);
        // What is in front of the frame is the driver's.
        (0..headroom).for_each(|at| frame.write8(at, 0xaa));
        let pseudo = {
            let [source, destination] = [6, 0].map(|at| bytes[at..at + 6].try_into().unwrap());
            let flow = Flow { source, destination };
            let size = u32::try_from(len).unwrap();
            let at = field(len);
            [flow.headers(size)[at], flow.headers(size)[at + 1]]
        };
        let at = field(len);
        let given = [bytes[at], bytes[at + 1]];
        let offers = self.offers();
        match task {
            Task::Checksum { start, offset } => {
                assert!(offers.checksum && (start, usize::from(offset)) == (34, at - 34));
                assert_eq!(given, pseudo);
            }
            Task::Segment { size } => {
                assert!(offers.segmentation && size == 1460 && len > 1514);
                assert_eq!(given, pseudo);
            }
            Task::None => {
                // Complete, or none at all.
                let mut partial = bytes.clone();
                partial[at..at + 2].copy_from_slice(&pseudo);
                let right = complete(partial)[at..at + 2] == given;
                assert!(right || (given == [0, 0] && len <= 1514), "number {}", number(&bytes));
            }
        }
        bytes[at..at + 2].copy_from_slice(&pseudo);
        self.in_flight.push(tag);
        self.submitted.push((tag, bytes));
        Ok(())
    }
    fn kick(&mut self) -> Result<(), Error> {
        if !self.submitted.is_empty() {
            self.doorbells += 1;
            self.machine.world.borrow_mut().kicked.extend(self.submitted.drain(..));
        }
        Ok(())
    }
    fn reclaim(&mut self, mut done: impl FnMut(u16)) -> Result<(), Error> {
        if self.machine.world.borrow().transmit_interrupts {
            self.assert_may_look();
        }
        let tags: Vec<u16> = self.machine.world.borrow_mut().done.drain(..).collect();
        for tag in tags {
            self.in_flight.retain(|other| *other != tag);
            done(tag);
        }
        Ok(())
    }
    fn receive(&mut self, limit: u16, mut visit: impl FnMut(Arrival<'_>)) -> Result<u16, Error> {
        if !self.machine.fake.phases.borrow().contains(&Phase::Done) {
            self.assert_may_look();
        }
        let mut count = 0;
        while count < limit {
            let next = self.machine.world.borrow_mut().inbox.pop_front();
            let Some((bytes, checksum)) = next else { break };
            // An odd place, so that nothing is aligned.
            self.memory.write_bytes(3, &bytes);
            let piece = self.config().piece;
            let pieces: Vec<DmaRegion> = (0..bytes.len())
                .step_by(piece)
                .map(|at| self.memory.part(3 + at, piece.min(bytes.len() - at)))
                .collect();
            visit(Arrival { pieces: &pieces, len: bytes.len(), checksum });
            count += 1;
            self.free += 1;
            if self.free == self.refill {
                self.free = 0;
                self.doorbells += 1;
            }
        }
        Ok(count)
    }
    fn set_refill(&mut self, buffers: u16) {
        self.refill = buffers;
    }
    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        self.machine.world.borrow_mut().enabled = on;
        Ok(())
    }
    fn set_transmit_interrupts(&mut self, on: bool) {
        self.machine.world.borrow_mut().transmit_interrupts = on;
    }
    fn begin(&mut self) -> Result<bool, Error> {
        self.machine.world.borrow_mut().armed = false;
        Ok(true)
    }
    fn end(&mut self) -> Result<bool, Error> {
        let armed = {
            let mut world = self.machine.world.borrow_mut();
            world.armed = world.enabled && !world.has_news();
            world.armed
        };
        // Now and then something comes at once, and interrupts before this returns.
        self.ends += 1;
        if self.ends.is_multiple_of(3) {
            self.machine.step();
        }
        Ok(!armed)
    }
    fn interrupt(&self) -> u8 {
        0
    }
    fn accesses(&self) -> Accesses {
        Accesses { reads: 0, writes: self.doorbells, doorbells: self.doorbells }
    }
    fn shutdown(&mut self) -> Result<(), Error> {
        self.machine.world.borrow_mut().enabled = false;
        Ok(())
    }
}
