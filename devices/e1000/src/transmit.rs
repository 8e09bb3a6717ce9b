//! The transmit ring (3.3, 3.4).

mod offload;
mod packet;
mod send;
mod software;
mod state;

use std::sync::atomic::Ordering;

use paraslot_backends::net::NetError;
use paraslot_device::{DmaSpace, Progress};
use paraslot_spec::e1000::registers::{TADV, TDBAL, TDH, TDT, TIDV, TXDCTL};
use paraslot_spec::e1000::{
    Cause, Context, TRANSMIT_STATUS, TransmitDescriptor, thresholds, transmit,
};
use vm_memory::Bytes;
use zerocopy::{FromZeros, IntoBytes};

pub(crate) use self::send::Out;
pub(crate) use self::state::TransmitState;

use self::packet::{Kind, Packet};
use self::send::{Builder, Last};
use self::software::Offsets;
use crate::delay::Delay;
use crate::engine::Env;
use crate::ring::Ring;

/// Descriptors that one round of work handles.
const BATCH: u32 = 64;

/// The transmit half of the engine.
pub(crate) struct Transmit {
    /// The context for checksums, and the one for segmentation (3.5.4).
    contexts: [Offsets; 2],
    packet: Packet,
    /// The packet is complete, and the backend was busy. TDH is at its last descriptor.
    ready: Option<Last>,
    /// The last round ended because of that.
    busy: bool,
    delay: Delay,
    run: Box<[TransmitDescriptor]>,
    builder: Builder,
}

/// What came of a round.
#[derive(Default)]
struct Round {
    descriptors: u32,
    /// TXDW is due now.
    written: bool,
    /// TXDW is due after a while.
    delayed: bool,
}

impl Transmit {
    pub(crate) fn new() -> Self {
        let run = (0..BATCH).map(|_| TransmitDescriptor::new_zeroed()).collect();
        Self {
            contexts: [Offsets::default(); 2],
            packet: Packet::new(),
            ready: None,
            busy: false,
            delay: Delay::default(),
            run,
            builder: Builder::new(),
        }
    }

    /// Whether it waits for the backend. It does not if the guest has taken the descriptor back.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    pub(crate) fn delay(&mut self) -> &mut Delay {
        &mut self.delay
    }

    /// The ring begins anew: forgets the packet that is being collected.
    pub(crate) fn restart(&mut self) {
        self.packet.clear();
        self.ready = None;
        self.busy = false;
        self.builder.reset();
    }

    /// Back to the state after power-on.
    pub(crate) fn reset(&mut self) {
        self.restart();
        self.delay.cancel();
        self.contexts = [Offsets::default(); 2];
    }

    /// Handles descriptors, [`BATCH`] of them at most.
    pub(crate) fn service<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
    ) -> Progress {
        self.busy = false;
        let bank = &env.shared.bank;
        let ring = bank.ring(TDBAL);
        let pending = ring.pending(bank.get(TDH), bank.get(TDT));
        if pending == 0 {
            return Progress::Idle;
        }
        let mut round = Round::default();
        self.walk(env, out, &ring, pending.min(BATCH), &mut round);
        if let Out::Wire(sender) = out {
            sender.commit();
        }
        if round.descriptors == 0 {
            return Progress::Idle;
        }
        self.report(env, &ring, pending, &round);
        Progress::More
    }

    /// Takes `count` descriptors from the head on; stops at a packet that the backend does not take.
    fn walk<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        ring: &Ring,
        count: u32,
        round: &mut Round,
    ) {
        let mut head = env.shared.bank.get(TDH);
        if let Some(last) = self.ready {
            if !self.send(env, out, &last) {
                return;
            }
            head = step(env, ring, head, last.command, round);
        }
        while round.descriptors < count {
            let most = ring.run(head, count - round.descriptors);
            let run = usize::try_from(most).ok().and_then(|most| self.run.get_mut(..most));
            let (Some(run), Some(address)) = (run, ring.address(head, 0)) else { return };
            if env.memory.read_slice(run.as_mut_bytes(), address).is_err() {
                return;
            }
            for index in 0..run.len() {
                let Some(&descriptor) = self.run.get(index) else { return };
                let command = descriptor.command.get();
                if let Some(last) = self.take(&descriptor)
                    && !self.send(env, out, &last)
                {
                    return;
                }
                head = step(env, ring, head, command, round);
            }
        }
    }

    /// Takes a descriptor in. Returns what it says if it is the last of a packet.
    fn take(&mut self, descriptor: &TransmitDescriptor) -> Option<Last> {
        let command = descriptor.command.get();
        let [_, second, third, fourth] = descriptor.status.get().to_le_bytes();
        let segmented = command & transmit::TSE != 0;
        let [checksum, segmentation] = &mut self.contexts;
        let offsets = if segmented { segmentation } else { checksum };
        let (kind, len) = if command & transmit::DEXT == 0 {
            (Kind::Legacy, command & transmit::LENGTH)
        } else if descriptor.is_context() {
            *offsets = Offsets {
                context: Context::of(descriptor),
                ip: command & transmit::IP != 0,
                tcp: command & transmit::TCP != 0,
            };
            return None;
        } else if command & transmit::DTYP == transmit::DTYP_DATA {
            let (offsets, options) = (*offsets, second);
            let kind = if segmented {
                Kind::Segmented { offsets, options }
            } else {
                Kind::Data { offsets, options }
            };
            (kind, command & transmit::DTALEN)
        } else {
            // Of no type that there is: done without effect.
            return None;
        };
        self.packet.add(kind, descriptor.address.get(), len);
        let special = u16::from_le_bytes([third, fourth]);
        (command & transmit::EOP != 0).then_some(Last { command, css: second, special })
    }

    /// Sends the packet, or loses it. Says no if the backend is busy: it stays.
    fn send<A: DmaSpace>(&mut self, env: &mut Env<'_, A>, out: &mut Out<'_>, last: &Last) -> bool {
        let result = self.builder.send(env, out, &self.packet, last);
        if let Err(error) = &result {
            env.tally.net.count_send_error(error);
            if matches!(error, NetError::Busy) {
                self.ready = Some(*last);
                self.busy = true;
                return false;
            }
        }
        self.ready = None;
        self.packet.clear();
        true
    }

    /// Sets the causes that follow from a round, and starts the timers.
    fn report<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        ring: &Ring,
        before: u32,
        round: &Round,
    ) {
        let bank = &env.shared.bank;
        let left = before.saturating_sub(round.descriptors);
        if ring.pending(bank.get(TDH), bank.get(TDT)) == 0 {
            env.causes |= Cause::TXQE;
        }
        let low = (bank.get(TXDCTL) >> thresholds::LWTHRESH_SHIFT) * 8;
        if before > low && left <= low && low != 0 {
            env.causes |= Cause::TXD_LOW;
        }
        if round.written {
            self.delay.cancel();
            env.causes |= Cause::TXDW;
        } else if round.delayed {
            let (packet, absolute) = (bank.get(TIDV), bank.get(TADV));
            if self.delay.start(env.now(), packet, absolute) {
                env.causes |= Cause::TXDW;
            }
        }
    }
}

/// A descriptor is done: writes its status back if it asks for that, and moves the head on.
fn step<A: DmaSpace>(
    env: &mut Env<'_, A>,
    ring: &Ring,
    head: u32,
    command: u32,
    round: &mut Round,
) -> u32 {
    if command & (transmit::RS | transmit::RPS) != 0 {
        if let Some(address) = ring.address(head, TRANSMIT_STATUS) {
            // A byte, so that it is never seen half written (QEMU 034d00d485). A ring that has gone
            // since it was read from is not written to.
            let _ = env.memory.store(transmit::DD, address, Ordering::Release);
        }
        if command & transmit::IDE == 0 {
            round.written = true;
        } else {
            round.delayed = true;
        }
    }
    round.descriptors = round.descriptors.saturating_add(1);
    let next = ring.after(head);
    env.shared.bank.set(TDH, next);
    next
}
