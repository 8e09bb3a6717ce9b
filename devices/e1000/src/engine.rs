//! The engine: what moves frames, and the worker that runs it.
//!
//! One worker does both directions, in turn. A round of its work is bounded and done under the
//! engine's lock; between two rounds nothing is under way but what the engine itself holds. So
//! whoever takes the lock and changes the rings' state may be sure that nothing of the old one is
//! read, written, sent or signalled any more: that is how resets are silent. The registers of the
//! fast path (TDT, RDT, ICR, IMS, IMC, ITR, statistics) need no lock.

mod state;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use paraslot_backends::net::{NetReceiver, NetSender, Waits};
use paraslot_device::{Clock, Dma, DmaSpace, Memory, Progress, Source, Timer, Worker};
use paraslot_spec::e1000::registers::{RCTL, RDBAL, RDH, RDT, TCTL};
use paraslot_spec::e1000::{Cause, Rctl, Tctl};

use crate::looped::Looped;
use crate::receive::{In, Receive};
use crate::shared::{Shared, lock};
use crate::statistics::Tally;
use crate::transmit::{Out, Transmit};

pub(crate) use self::state::EngineState;

/// What a round of work has at hand.
pub(crate) struct Env<'a, A: DmaSpace> {
    pub(crate) memory: &'a Memory<A>,
    pub(crate) shared: &'a Shared,
    pub(crate) tally: &'a mut Tally,
    /// Causes that the round has brought.
    pub(crate) causes: Cause,
    clock: &'a dyn Clock,
    now: Option<Duration>,
}

impl<A: DmaSpace> Env<'_, A> {
    /// The time, looked up once a round.
    pub(crate) fn now(&mut self) -> Duration {
        *self.now.get_or_insert_with(|| self.clock.now())
    }
}

/// Both halves, and what they stand between.
pub(crate) struct Engine<A: DmaSpace> {
    shared: Arc<Shared>,
    dma: Dma<A>,
    clock: Arc<dyn Clock>,
    timer: Box<dyn Timer>,
    sender: Box<dyn NetSender>,
    receiver: Box<dyn NetReceiver>,
    transmit: Transmit,
    receive: Receive,
    looped: Looped,
    tally: Tally,
    /// Bytes that the backend says it has copied, as of the last round.
    copied: u64,
    waits: Waits,
}

/// Between whom frames move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They do not.
    Off,
    /// Between the guest and the backend.
    Wire,
    /// From the transmitter to the receiver.
    Loop,
}

impl<A: DmaSpace> Engine<A> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        dma: Dma<A>,
        clock: Arc<dyn Clock>,
        timer: Box<dyn Timer>,
        sender: Box<dyn NetSender>,
        receiver: Box<dyn NetReceiver>,
    ) -> Self {
        Self {
            shared,
            dma,
            clock,
            timer,
            sender,
            receiver,
            transmit: Transmit::new(),
            receive: Receive::new(),
            looped: Looped::default(),
            tally: Tally::new(),
            copied: 0,
            waits: Waits::default(),
        }
    }

    /// Forgets everything that is under way.
    pub(crate) fn reset(&mut self) {
        self.transmit.reset();
        self.receive.reset();
        self.looped.reset();
    }

    pub(crate) fn transmit(&mut self) -> &mut Transmit {
        &mut self.transmit
    }

    pub(crate) fn receive(&mut self) -> &mut Receive {
        &mut self.receive
    }

    /// What time it is.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    fn mode(&self) -> Mode {
        let lbm = self.shared.bank.get(RCTL) & Rctl::LBM;
        if lbm == Rctl::LBM_MAC || self.shared.phy_loopback() {
            Mode::Loop
        } else if self.shared.link_up() {
            Mode::Wire
        } else {
            Mode::Off
        }
    }

    fn transmitting(&self) -> bool {
        self.shared.bank.get(TCTL) & Tctl::EN.bits() != 0
    }

    fn receiving(&self) -> bool {
        self.shared.bank.get(RCTL) & Rctl::EN.bits() != 0
    }

    /// A round of work.
    fn service(&mut self) -> Progress {
        let mut causes = Cause::empty();
        let mut progress = Progress::Idle;
        let mut now = None;
        let mode = self.mode();
        let (transmitting, receiving) = (self.transmitting(), self.receiving());
        if mode != Mode::Off
            && (transmitting || receiving)
            && let Some(memory) = self.dma.memory()
        {
            let Self { shared, clock, sender, receiver, transmit, receive, looped, tally, .. } =
                self;
            let mut env = Env { memory: &memory, shared, tally, causes, clock: &**clock, now };
            if transmitting {
                let mut out = match mode {
                    Mode::Loop => Out::Loop(looped),
                    Mode::Wire | Mode::Off => Out::Wire(&mut **sender),
                };
                progress = transmit.service(&mut env, &mut out);
            }
            if receiving {
                let mut from = match mode {
                    Mode::Loop => In::Loop,
                    Mode::Wire | Mode::Off => In::Wire(&mut **receiver),
                };
                progress = progress.or(receive.service(&mut env, &mut from, looped));
            }
            (causes, now) = (env.causes, env.now);
        }
        if progress == Progress::More || self.transmit.is_busy() {
            self.tell();
        }
        self.expire(&mut causes, now);
        self.shared.irq.raise(causes.bits());
        progress
    }

    /// Tells what was counted.
    fn tell(&mut self) {
        let copied = self.sender.copied_bytes().wrapping_add(self.receiver.copied_bytes());
        let more = copied.wrapping_sub(std::mem::replace(&mut self.copied, copied));
        self.tally.net.copied_bytes = self.tally.net.copied_bytes.wrapping_add(more);
        self.shared.statistics.add(&mut self.tally);
        self.shared.counters.add(&mut self.tally.net);
    }

    /// Looks whether any of the timers that hold interrupts back has expired.
    fn expire(&mut self, causes: &mut Cause, now: Option<Duration>) {
        let Some(next) = self.deadline() else { return };
        let now = now.unwrap_or_else(|| self.clock.now());
        if now < next {
            return;
        }
        if self.transmit.delay().expired(now) {
            *causes |= Cause::TXDW;
        }
        if self.receive.delay().expired(now) {
            *causes |= Cause::RXT0;
        }
        self.shared.irq.update();
    }

    /// When something is to happen by itself.
    fn deadline(&mut self) -> Option<Duration> {
        let delays = self.transmit.delay().next().into_iter().chain(self.receive.delay().next());
        delays.chain(self.shared.irq.due()).min()
    }

    /// Arms what is to wake the worker. [`Progress::More`]: there is something to do already.
    fn prepare_to_wait(&mut self) -> Progress {
        let mode = self.mode();
        let able = mode != Mode::Off && self.dma.enabled();
        let mut progress = Progress::Idle;
        let send = able && self.transmitting() && self.transmit.is_busy();
        let mut receive = false;
        if able && self.receiving() {
            self.shared.starve(true);
            let bank = &self.shared.bank;
            let pending = bank.ring(RDBAL).pending(bank.get(RDH), bank.get(RDT));
            if pending == 0 || self.receive.is_stuck() {
                // RDT will ring.
            } else if self.receive.is_holding() || !self.looped.is_empty() {
                progress = Progress::More;
            } else {
                self.shared.starve(false);
                receive = mode == Mode::Wire;
            }
        }
        progress = progress.or(self.wait_for([send, receive]));
        if let Some(deadline) = self.deadline() {
            let delay = deadline.saturating_sub(self.clock.now());
            if delay.is_zero() {
                progress = Progress::More;
            } else {
                self.timer.set(delay);
            }
        }
        progress
    }

    /// Asks the sender, and the receiver, to wake the worker, or takes that back.
    fn wait_for(&mut self, [send, receive]: [bool; 2]) -> Progress {
        let Self { waits, sender, receiver, .. } = self;
        waits.set((&mut **sender, send), (&mut **receiver, receive))
    }
}

/// Runs an engine.
pub(crate) struct EngineWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    engine: Arc<Mutex<Engine<A>>>,
}

impl<A: DmaSpace> EngineWorker<A> {
    pub(crate) fn new(shared: Arc<Shared>, engine: Arc<Mutex<Engine<A>>>) -> Self {
        Self { shared, engine }
    }
}

impl<A: DmaSpace> Worker for EngineWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let engine = lock(&self.engine);
        [self.shared.bell.source(), engine.timer.source()]
            .into_iter()
            .chain(engine.sender.sources())
            .chain(engine.receiver.sources())
            .collect()
    }

    fn service(&mut self) -> Progress {
        self.shared.bell.answer();
        let mut engine = lock(&self.engine);
        engine.shared.starve(false);
        // What has expired is seen by the clock; this makes the timer quiet.
        let _ = engine.timer.fired();
        engine.service()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.shared.bell.sleep_unless(|| lock(&self.engine).prepare_to_wait())
    }

    /// Nothing is ever in flight between two rounds but counts that have not been told.
    fn quiesce(&mut self) -> Progress {
        let mut engine = lock(&self.engine);
        let _ = engine.wait_for([false, false]);
        engine.tell();
        Progress::Idle
    }
}
