//! The receive ring (3.2).

mod checksum;
mod filter;
mod run;
mod state;

use paraslot_backends::net::checksum::fill;
use paraslot_backends::net::{NetError, NetReceiver, Offload, Room};
use paraslot_device::{DmaSpace, Progress};
use paraslot_spec::e1000::registers::{CTRL, RADV, RCTL, RDTR, RSRPD, RXCSUM};
use paraslot_spec::e1000::statistics::{RNBC, ROC, RXERRC};
use paraslot_spec::e1000::{
    Cause, Ctrl, FCS_LEN, LONGEST, LONGEST_NORMAL, Rctl, ReceiveDescriptor, SHORTEST, VLAN_TAG_LEN,
    receive,
};
use paraslot_spec::net::ETHERNET_HEADER;
use vm_memory::{Bytes, GuestAddress};

pub(crate) use self::state::ReceiveState;

use self::run::{Run, Short};
use crate::delay::Delay;
use crate::engine::Env;
use crate::looped::Looped;

/// Frames that one round of work takes.
const FRAMES: u32 = 64;
/// Longest frame that is taken from the backend.
const LONGEST_FRAME: usize = LONGEST - FCS_LEN;

/// The receive half of the engine.
pub(crate) struct Receive {
    /// The frame, and room for an FCS.
    frame: Box<[u8]>,
    /// A frame that is on its way into the ring.
    held: Option<Held>,
    /// The ring could not be read in the last round: until its registers are written, it is as good as
    /// empty.
    stuck: bool,
    delay: Delay,
}

/// A frame that has passed all filters. What goes to the guest is `Receive::frame` from `next` to
/// `end`.
#[derive(Clone, Copy, Debug)]
struct Held {
    next: usize,
    end: usize,
    /// Status of its last descriptor.
    status: u8,
    errors: u8,
    special: u16,
    /// It has been counted that there were no descriptors for it.
    waited: bool,
    destination: [u8; 6],
    /// As it was on the wire, without FCS.
    len: usize,
}

/// Where frames come from.
pub(crate) enum In<'a> {
    Wire(&'a mut dyn NetReceiver),
    /// From our own transmitter alone.
    Loop,
}

/// What came of a round.
#[derive(Default)]
struct Round {
    frames: u32,
    descriptors: u32,
    small: bool,
}

impl Receive {
    pub(crate) fn new() -> Self {
        let frame = vec![0; LONGEST].into();
        Self { frame, held: None, stuck: false, delay: Delay::default() }
    }

    pub(crate) fn delay(&mut self) -> &mut Delay {
        &mut self.delay
    }

    /// Whether there is a frame for which there was no descriptor.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Whether there is nothing to be done until the guest sets the ring up anew.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// The ring begins anew: drops what is on its way.
    pub(crate) fn restart(&mut self) {
        self.held = None;
    }

    /// Back to the state after power-on.
    pub(crate) fn reset(&mut self) {
        let Self { frame: _, held: _, stuck: _, delay } = self;
        delay.cancel();
        self.restart();
    }

    /// Takes frames, [`FRAMES`] of them at most.
    pub(crate) fn service<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        from: &mut In<'_>,
        looped: &mut Looped,
    ) -> Progress {
        let mut run = Run::new(&env.shared.bank);
        let before = run.pending(&env.shared.bank);
        let mut round = Round::default();
        let mut progress = Progress::Idle;
        self.stuck = false;
        for _ in 0..FRAMES {
            if self.held.is_none() {
                // Frames that have no place to go wait where they are.
                if let Err(short) = run.fill(env) {
                    self.stuck = short == Short::Unreadable;
                    break;
                }
                match self.take(env, from, looped) {
                    Some(held) => self.held = held,
                    None => break,
                }
                progress = Progress::More;
            }
            let Some(mut held) = self.held else { continue };
            let delivered = self.deliver(env, &mut run, &mut held, &mut round);
            self.held = delivered.is_err().then_some(held);
            if let Err(short) = delivered {
                self.stuck = short == Short::Unreadable;
                break;
            }
        }
        if round.descriptors != 0 {
            progress = Progress::More;
        }
        self.report(env, &run, before, &round);
        progress
    }

    /// Takes a frame from where they come from. `None` if there is none, `Some(None)` if there was one
    /// that the guest does not get.
    fn take<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        from: &mut In<'_>,
        looped: &mut Looped,
    ) -> Option<Option<Held>> {
        let room = self.frame.get_mut(..LONGEST_FRAME)?;
        let (len, offload) = if let Some(len) = looped.pop(room) {
            (len, Offload { checksum_valid: false, ..Offload::default() })
        } else if let In::Wire(receiver) = from {
            match receiver.receive(Room::Host(room)) {
                Ok(received) => received.map(|received| (received.len, received.offload))?,
                Err(error) => {
                    let register = if matches!(error, NetError::TooLong) { ROC } else { RXERRC };
                    env.tally.count(register, 1);
                    env.tally.net.count_receive_error(&error);
                    return Some(None);
                }
            }
        } else {
            return None;
        };
        Some(self.examine(env, len, offload))
    }

    /// Decides what becomes of the frame, and makes it ready for the guest.
    fn examine<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        len: usize,
        offload: Offload,
    ) -> Option<Held> {
        let bank = &env.shared.bank;
        let Some(frame) = self.frame.get_mut(..len).filter(|_| len <= LONGEST_FRAME) else {
            env.tally.count(ROC, 1);
            env.tally.net.received_too_long += 1;
            return None;
        };
        // Nothing was accepted that is still to be done; but a frame may be older than that.
        let undone = match offload {
            Offload { segmentation: Some(_), .. } => true,
            Offload { checksum: Some(partial), .. } => fill(frame, partial).is_err(),
            _ => false,
        };
        if len < ETHERNET_HEADER || undone {
            env.tally.count(RXERRC, 1);
            env.tally.net.receive_errors += 1;
            return None;
        }
        env.tally.arrived(len);
        let rctl = bank.get(RCTL);
        let Some(passed) = filter::pass(env.shared, frame) else {
            env.tally.net.filtered += 1;
            return None;
        };
        // CVE-2012-6075: a guest that takes neither long nor bad packets gets none.
        let long = len + FCS_LEN > LONGEST_NORMAL;
        if long && rctl & (Rctl::LPE | Rctl::SBP).bits() == 0 {
            env.tally.count(ROC, 1);
            env.tally.net.received_too_long += 1;
            return None;
        }
        let destination = frame.first_chunk().copied().unwrap_or_default();
        let (checked, errors) = checksum::check(frame, bank.get(RXCSUM), offload.checksum_valid);
        let mut status = checked;
        if passed.inexact {
            status |= receive::PIF;
        }
        // As the wire would have had it.
        let mut end = len.max(SHORTEST);
        if let Some(padding) = self.frame.get_mut(len..end) {
            padding.fill(0);
        }
        let (mut next, mut special) = (0, 0);
        if let Some(tag) = passed.tag
            && bank.get(CTRL) & Ctrl::VME.bits() != 0
            && len >= ETHERNET_HEADER + VLAN_TAG_LEN
        {
            self.frame.copy_within(..ETHERNET_HEADER - 2, VLAN_TAG_LEN);
            next = VLAN_TAG_LEN;
            special = tag;
            status |= receive::VP;
        }
        if rctl & Rctl::SECRC.bits() == 0 {
            if let Some(fcs) = self.frame.get_mut(end..end + FCS_LEN) {
                fcs.fill(0);
            }
            end += FCS_LEN;
        }
        Some(Held { next, end, status, errors, special, waited: false, destination, len })
    }

    /// Writes the frame into the ring, as far as there are descriptors.
    fn deliver<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        run: &mut Run,
        held: &mut Held,
        round: &mut Round,
    ) -> Result<(), Short> {
        let size = buffer_size(env.shared.bank.get(RCTL));
        while held.next < held.end {
            let descriptor = run.next(env).inspect_err(|short| {
                if *short == Short::Starved && !std::mem::replace(&mut held.waited, true) {
                    env.tally.count(RNBC, 1);
                    env.tally.net.no_guest_buffers += 1;
                }
            })?;
            let address = descriptor.address.get();
            let mut done = ReceiveDescriptor { status: receive::DD, ..descriptor };
            // A descriptor without a buffer is passed over, and nothing else of it changes (3.2.5). It
            // moves the head on all the same (CVE-2020-28916).
            if address != 0 {
                let end = held.end.min(held.next.saturating_add(size));
                let data = self.frame.get(held.next..end).unwrap_or_default();
                match env.memory.write_slice(data, GuestAddress(address)) {
                    Ok(()) => env.tally.net.copied_bytes += data.len() as u64,
                    Err(_) => held.errors |= receive::RXE,
                }
                let last = end == held.end;
                done.length = u16::try_from(end - held.next).unwrap_or(u16::MAX).into();
                done.checksum = 0.into();
                done.errors = if last { held.errors } else { 0 };
                done.special = if last { held.special } else { 0 }.into();
                if last {
                    done.status |= receive::EOP | held.status;
                }
                held.next = end;
            } else {
                done.status |= descriptor.status;
            }
            if !run.write_back(env, &done) {
                // With the ring, the frame is gone.
                env.tally.net.receive_errors += 1;
                return Ok(());
            }
            round.descriptors = round.descriptors.saturating_add(1);
        }
        round.frames += 1;
        if held.errors & receive::RXE != 0 {
            env.tally.count(RXERRC, 1);
            env.tally.net.receive_errors += 1;
            return Ok(());
        }
        env.tally.received(held.destination, held.len);
        env.tally.net.received_frames += 1;
        env.tally.net.received_bytes += held.len as u64;
        let small = usize::try_from(env.shared.bank.get(RSRPD)).unwrap_or(0);
        round.small |= held.len.max(SHORTEST) + FCS_LEN <= small;
        Ok(())
    }

    /// Sets the causes that follow from a round, and starts the timers.
    fn report<A: DmaSpace>(&mut self, env: &mut Env<'_, A>, run: &Run, before: u32, round: &Round) {
        let bank = &env.shared.bank;
        if round.descriptors != 0 {
            let left = run.pending(bank);
            let shift = (bank.get(RCTL) & Rctl::RDMTS) >> Rctl::RDMTS_SHIFT;
            let low = run.ring().len() >> (shift + 1);
            if before > low && left <= low {
                env.causes |= Cause::RXDMT0;
            }
        }
        if round.frames != 0 {
            let (packet, absolute) = (bank.get(RDTR), bank.get(RADV));
            if round.small {
                env.causes |= Cause::SRPD;
            }
            let now = if packet == 0 { Default::default() } else { env.now() };
            if self.delay.start(now, packet, absolute) {
                env.causes |= Cause::RXT0;
            }
        }
    }
}

/// Bytes of a buffer (13.4.22).
fn buffer_size(rctl: u32) -> usize {
    let extended = rctl & Rctl::BSEX.bits() != 0;
    match ((rctl & Rctl::BSIZE) >> Rctl::BSIZE_SHIFT, extended) {
        (1, true) => 16384,
        (2, true) => 8192,
        (3, true) => 4096,
        (1, false) => 1024,
        (2, false) => 512,
        (3, false) => 256,
        // With BSEX the value is reserved.
        _ => 2048,
    }
}
