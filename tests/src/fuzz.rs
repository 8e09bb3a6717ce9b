//! Sequences of everything that a guest, its host and time can do to a device, made from bytes.
//!
//! The fuzz targets feed this coverage-guided bytes; the workspace's own tests feed it random ones.
//! A device comes with a [`Script`], which knows how to bring it up and how to make requests that
//! are nearly right, since random bytes alone would seldom get past the first check, and with the
//! [`Backing`] that it was given.

use std::time::Duration;

use paraslot_backends::block::testing::Gate;

use crate::bench::Bench;
use crate::frames::any_frame;
use crate::port::{FATES, Fate, Port};

/// Bytes taken one after another; zeroes when there are no more.
pub struct Input<'a> {
    data: &'a [u8],
}

impl<'a> Input<'a> {
    /// All of `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data }
    }

    /// Whether there are none left.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// All that are left.
    pub fn rest(self) -> &'a [u8] {
        self.data
    }

    /// The next `N` bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        let count = N.min(self.data.len());
        let (head, rest) = self.data.split_at(count);
        out[..count].copy_from_slice(head);
        self.data = rest;
        out
    }

    /// The next up to `count` bytes.
    pub fn slice(&mut self, count: usize) -> &'a [u8] {
        let (head, rest) = self.data.split_at(count.min(self.data.len()));
        self.data = rest;
        head
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// An address or a length that is interesting: small, near a boundary, or anything.
    pub fn interesting(&mut self) -> u64 {
        let small = u64::from(self.u16());
        match self.u8() % 8 {
            0 => u64::MAX.wrapping_sub(small),
            1 => self.u64(),
            2 => (1 << 32) - 1 - (small & 0xff),
            3 => small & !0xfff,
            _ => small,
        }
    }
}

/// What only the author of a test for this device knows.
pub trait Script {
    /// Looks at the device before anything is done to it.
    fn look(&mut self, _bench: &mut Bench) {}

    /// Brings the device up as its driver does. Runs again after a reset, if the input says so.
    fn bring_up(&mut self, bench: &mut Bench);

    /// Puts a request into guest memory, right but for what the input makes wrong, and rings.
    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>);

    /// Offsets into a BAR worth writing to.
    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64);

    /// Most guest memory accesses that one unit of work of one worker may make: the bound on what a
    /// doorbell can cost.
    fn budget(&self) -> u64;
}

/// What is behind a device, in its host's hand.
pub trait Backing {
    /// Does something to it: holds back, lets go, delivers, fails.
    fn act(&mut self, input: &mut Input<'_>);

    /// Holds nothing back any more, and does nothing of its own accord.
    fn settle(&mut self);
}

impl Backing for Gate {
    fn act(&mut self, input: &mut Input<'_>) {
        if input.u8() & 1 == 0 {
            self.close();
        } else {
            self.open();
        }
        self.release(usize::from(input.u8()));
    }

    fn settle(&mut self) {
        self.open();
    }
}

/// Most frames that wait in a port at a time: the test's own memory is bounded, too.
const MOST_WAITING: usize = 64;

impl Backing for Port {
    fn act(&mut self, input: &mut Input<'_>) {
        let queue = u16::from(input.u8() % 3);
        match input.u8() % 16 {
            0 => self.set_fate(FATES[usize::from(input.u8()) % FATES.len()]),
            1 => self.set_fate(Fate::Through),
            2 => self.fail_receive(queue, FATES[usize::from(input.u8()) % FATES.len()]),
            3 => {
                let calls = input.u8().into();
                self.surprise(calls, any_frame(input, 2000));
            }
            kind => {
                // Mostly short ones: what they are made of matters more than how long they are.
                let long = kind < 5;
                let frame = any_frame(input, if long { usize::from(u16::MAX) } else { 2000 });
                let (copies, most) = if long { (1, 4) } else { (1 + input.u8() % 4, MOST_WAITING) };
                for _ in 0..copies {
                    if self.waiting() < most {
                        self.deliver_to(queue, frame.clone());
                    }
                }
            }
        }
    }

    fn settle(&mut self) {
        self.set_fate(Fate::Through);
        self.drain();
    }
}

/// Lets time pass: until something is due, or for anything from a nanosecond to half a minute.
fn pass_time(bench: &Bench, input: &mut Input<'_>) {
    let by = match input.u8() {
        0..64 => bench.clock.next().unwrap_or_default(),
        exponent => Duration::from_nanos(1 << (exponent % 36)),
    };
    bench.clock.advance(by);
}

/// Most operations that one input makes.
const MAX_OPERATIONS: usize = 2_000;

/// Runs one input. Panics when the device does, or when it exceeds its budget.
pub fn run(bench: &mut Bench, backing: &mut dyn Backing, script: &mut dyn Script, data: &[u8]) {
    let mut input = Input::new(data);
    script.look(bench);
    if input.u8() & 1 == 0 {
        script.bring_up(bench);
    }
    let mut paused = false;
    for _ in 0..MAX_OPERATIONS {
        if input.is_empty() {
            break;
        }
        match input.u8() % 16 {
            0 => {
                let offset = input.u16() % 4096;
                let len = usize::from(input.u8() % 9);
                bench.device.config_write(offset, &input.bytes::<8>()[..len.min(8)]);
            }
            1 => {
                let mut data = [0; 8];
                let offset = input.u16() % 4096;
                let len = usize::from(input.u8() % 9);
                bench.device.config_read(offset, &mut data[..len.min(8)]);
            }
            2 => {
                let (bar, offset) = (input.u8() % 8, input.interesting());
                let len = usize::from(input.u8() % 17);
                bench.device.bar_write(bar, offset, &input.bytes::<16>()[..len]);
            }
            3 => {
                let (bar, offset) = (input.u8() % 8, input.interesting());
                let mut data = [0; 16];
                let len = usize::from(input.u8() % 17);
                bench.device.bar_read(bar, offset, &mut data[..len]);
            }
            4 | 5 => {
                let (bar, offset) = script.register(&mut input);
                let len = 1usize << (input.u8() % 4);
                bench.device.bar_write(bar, offset, &input.bytes::<8>()[..len]);
            }
            6 => {
                let (bar, offset) = script.register(&mut input);
                let mut data = [0; 8];
                bench.device.bar_read(bar, offset, &mut data[..1 << (offset % 4)]);
            }
            7 => {
                let address = input.interesting();
                let len = usize::from(input.u8());
                let data = input.slice(len);
                bench.poke(address, data);
            }
            8 => backing.act(&mut input),
            9 => {
                if paused {
                    let _ = bench.device.resume();
                    paused = false;
                } else {
                    paused = bench.device.pause().is_ok();
                }
            }
            10 => match input.u8() % 8 {
                0 => bench.device.reset(),
                1 => script.bring_up(bench),
                2..6 => pass_time(bench, &mut input),
                _ => {}
            },
            11 => {
                let worker = usize::from(input.u8());
                let _ = bench.executor.step(worker);
            }
            _ => script.request(bench, &mut input),
        }
        for worker in 0..bench.executor.len().min(4) {
            bench.memory.take_accesses();
            let _ = bench.executor.step(worker);
            let accesses = bench.memory.take_accesses();
            assert!(accesses <= script.budget(), "{accesses} accesses in one unit of work");
        }
    }
    // Whatever happened, the device comes back: everything held is released, and a reset is a reset.
    backing.settle();
    assert!(bench.executor.run(10_000), "the workers do not come to rest");
    if paused {
        let _ = bench.device.resume();
    }
    bench.device.reset();
    assert!(bench.executor.run(10_000), "the workers do not come to rest after a reset");
    bench.memory.take_accesses();
    let interrupts = bench.interrupts.messages();
    bench.executor.run(16);
    bench.clock.advance(Duration::from_millis(100));
    bench.executor.run(16);
    assert_eq!(bench.memory.take_accesses(), 0, "memory accessed after a reset");
    assert_eq!(bench.interrupts.messages(), interrupts, "interrupt after a reset");
    assert!(!bench.interrupts.asserted(), "the interrupt line is asserted after a reset");
    script.bring_up(bench);
}
