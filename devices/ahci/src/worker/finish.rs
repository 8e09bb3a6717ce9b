//! Reporting how commands ended (AHCI 1.3.1, 5.3 and 6.2).
//!
//! The order is what drivers rely on, those that wait for an interrupt and those that poll any of
//! these: data, PRDBC, PxTFD, the received FIS, PxCI and PxSACT, PxIS, IS, the interrupt.

use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::ahci::fis::{
    FLAG_DIRECTION, FLAG_INTERRUPT, PioSetup, RegisterD2h, SDB_STATUS, SetDeviceBits,
    TYPE_PIO_SETUP, TYPE_REGISTER_D2H, TYPE_SET_DEVICE_BITS,
};
use paraslot_spec::ahci::{CommandHeader, PortInterrupt, port, received};
use paraslot_spec::ata::status;
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::{Attached, Command, End, PortWorker, bit, place, slots};
use crate::command::{Failure, Output, Protocol};
use crate::disk::READY;
use crate::packet::Phase;
use crate::port::State;

/// Guest memory did not take what the HBA has to write.
struct Inaccessible;

/// Writes a FIS to the received FIS area, if FISes are to be received.
fn post<A: DmaSpace>(
    state: &State,
    memory: &Memory<A>,
    offset: u64,
    fis: &[u8],
) -> Result<(), Inaccessible> {
    if !state.receiving() {
        return Ok(());
    }
    let at = state.address(port::FB).checked_add(offset).ok_or(Inaccessible)?;
    memory.write_slice(fis, GuestAddress(at)).map_err(|_| Inaccessible)
}

fn d2h(output: &Output, flags: u8) -> RegisterD2h {
    let [a, b, c, d, e, f, ..] = output.lba.to_le_bytes();
    RegisterD2h {
        fis_type: TYPE_REGISTER_D2H,
        flags,
        status: output.status,
        error: output.error,
        lba: [a, b, c],
        device: output.device,
        lba_exp: [d, e, f],
        count: output.count.into(),
        ..RegisterD2h::default()
    }
}

fn pio_setup(output: &Output, bytes: u32, block: u32) -> PioSetup {
    let [a, b, c, d, e, f, ..] = output.lba.to_le_bytes();
    // There is one FIS for each block; this is the last one's, which is the one that remains.
    let last = match bytes.checked_rem(block) {
        Some(0) | None => block,
        Some(rest) => rest,
    };
    PioSetup {
        fis_type: TYPE_PIO_SETUP,
        flags: FLAG_DIRECTION | FLAG_INTERRUPT,
        status: output.status | status::DRQ,
        error: 0,
        lba: [a, b, c],
        device: output.device,
        lba_exp: [d, e, f],
        count: output.count.into(),
        e_status: output.status,
        transfer_count: u16::try_from(last).unwrap_or(u16::MAX).into(),
        ..PioSetup::default()
    }
}

fn set_tfd(state: &mut State, status: u8, error: u8) {
    state.bank.set(port::TFD, u32::from(u16::from_le_bytes([status, error])));
}

impl<A: DmaSpace, D: Attached> PortWorker<A, D> {
    /// Reports what has ended. While bus mastering is off nothing is reported, but commands that
    /// nobody waits for any more are forgotten all the same.
    pub(super) fn finish(&mut self, state: &mut State, memory: Option<&Memory<A>>) {
        if self.finished == 0 {
            return;
        }
        self.forget_stale(state);
        let Some(memory) = memory else { return };
        let mut causes = self.finish_queued(state, memory);
        for slot in slots(self.finished) {
            if !state.halted
                && let Some(command) = self.commands.get_mut(place(slot)).and_then(Option::take)
            {
                causes |= self.finish_one(state, memory, slot, &command);
                self.entries = self.entries.saturating_sub(command.entries);
            }
            self.forget(state, slot);
        }
        if !causes.is_empty() {
            state.raise(&self.irq, causes);
        }
    }

    fn forget(&mut self, state: &mut State, slot: u32) {
        let command = self.commands.get_mut(place(slot)).and_then(Option::take);
        let entries = command.map_or(0, |command| command.entries);
        self.entries = self.entries.saturating_sub(entries);
        let others = !bit(slot);
        self.finished &= others;
        self.queued &= others;
        state.taken &= others;
        if self.exclusive == Some(slot) {
            self.exclusive = None;
        }
    }

    /// Commands that a reset, a stop or another command's failure has overtaken end unseen.
    fn forget_stale(&mut self, state: &mut State) {
        for slot in slots(self.finished) {
            let current = self.commands.get(place(slot)).and_then(Option::as_ref);
            if state.halted || current.is_none_or(|command| command.epoch != state.epoch) {
                // A command that was stopped ends in the device all the same, which is ready then.
                let resetting = state.reset_device || state.signature;
                if self.exclusive == Some(slot) && state.linked() && !resetting {
                    set_tfd(state, READY, 0);
                }
                self.forget(state, slot);
            }
        }
    }

    /// Reports all queued commands that have succeeded in one set device bits FIS.
    fn finish_queued(&mut self, state: &mut State, memory: &Memory<A>) -> PortInterrupt {
        let mut causes = PortInterrupt::empty();
        let mut tags = 0;
        for slot in slots(self.finished & self.queued) {
            let Some(Some(command)) = self.commands.get(place(slot)) else { continue };
            if command.end == End::Success {
                tags |= bit(slot);
                if command.interrupt {
                    causes |= PortInterrupt::DPS;
                }
                self.device.apply(command.then);
            }
        }
        if tags == 0 {
            return causes;
        }
        set_tfd(state, READY, 0);
        let fis = SetDeviceBits {
            fis_type: TYPE_SET_DEVICE_BITS,
            flags: FLAG_INTERRUPT,
            status: READY & SDB_STATUS,
            error: 0,
            s_active: tags.into(),
        };
        if post(state, memory, received::SET_DEVICE_BITS, fis.as_bytes()).is_err() {
            return halt(state, PortInterrupt::HBFS);
        }
        state.bank.change(port::SACT, 0, tags);
        for slot in slots(tags) {
            self.forget(state, slot);
        }
        causes | PortInterrupt::SDBS
    }

    /// Reports one command; returns the causes of interrupt that this makes.
    fn finish_one(
        &mut self,
        state: &mut State,
        memory: &Memory<A>,
        slot: u32,
        command: &Command,
    ) -> PortInterrupt {
        let fis = &command.fis;
        let queued = command.protocol == Protocol::Queued;
        if !queued {
            state.set_current(slot);
        }
        let output = match command.end {
            End::Failed(failure) if failure.is_host() => return halt(state, failure.causes),
            End::Failed(failure) if queued => {
                return self.fail_queued(state, memory, slot, command, &failure);
            }
            End::Failed(failure) => return fail(state, memory, command, &failure),
            End::Accepted => {
                state.bank.change(port::CI, 0, bit(slot));
                return PortInterrupt::empty();
            }
            End::Hang => {
                state.bank.set(port::TFD, u32::from(READY | status::BSY));
                return PortInterrupt::empty();
            }
            End::Signature => {
                state.bank.change(port::CI, 0, bit(slot));
                self.send_signature(state, memory);
                return PortInterrupt::empty();
            }
            End::Output(output) => output,
            End::Success => Output {
                status: READY,
                error: 0,
                count: fis.count.get(),
                lba: fis.lba48(),
                device: fis.device,
            },
        };
        self.device.apply(command.then);
        match succeed(state, memory, command, &output) {
            Ok(causes) => {
                state.bank.change(port::CI, 0, bit(slot));
                causes
            }
            Err(Inaccessible) => halt(state, PortInterrupt::HBFS),
        }
    }

    /// A queued command failed: it and those still in flight stay in PxSACT (6.2.2.2), and the host
    /// has to read the device's log to learn which it was.
    fn fail_queued(
        &mut self,
        state: &mut State,
        memory: &Memory<A>,
        slot: u32,
        command: &Command,
        failure: &Failure,
    ) -> PortInterrupt {
        self.device.queued_failed(Some(slot), &command.fis, failure);
        set_tfd(state, failure.status, failure.error);
        let fis = SetDeviceBits {
            fis_type: TYPE_SET_DEVICE_BITS,
            flags: FLAG_INTERRUPT,
            status: failure.status & SDB_STATUS,
            error: failure.error,
            s_active: 0.into(),
        };
        let posted = post(state, memory, received::SET_DEVICE_BITS, fis.as_bytes());
        let causes = PortInterrupt::TFES | PortInterrupt::SDBS | failure.causes;
        halt(state, if posted.is_ok() { causes } else { causes | PortInterrupt::HBFS })
    }

    /// The device sends its signature, without an interrupt, and is ready. The status comes last: a
    /// guest that has the registers mapped reads them without this port's lock, and takes a device
    /// that is not busy for one whose signature is there.
    pub(super) fn send_signature(&mut self, state: &mut State, memory: &Memory<A>) {
        state.signature = false;
        let fis = d2h(&D::SIGNATURE, 0);
        let posted = post(state, memory, received::REGISTER, fis.as_bytes());
        state.bank.set(port::SIG, D::PXSIG);
        set_tfd(state, D::SIGNATURE.status, D::SIGNATURE.error);
        if posted.is_err() {
            let causes = halt(state, PortInterrupt::HBFS);
            state.raise(&self.irq, causes);
        }
    }
}

fn halt(state: &mut State, causes: PortInterrupt) -> PortInterrupt {
    state.halted = true;
    causes
}

fn fail<A: DmaSpace>(
    state: &mut State,
    memory: &Memory<A>,
    command: &Command,
    failure: &Failure,
) -> PortInterrupt {
    let fis = &command.fis;
    let output = Output {
        status: failure.status,
        error: failure.error,
        count: fis.count.get(),
        lba: failure.lba.unwrap_or(fis.lba48()),
        device: fis.device,
    };
    // Of the commands that fail, only packets may have moved something.
    let packet = match command.protocol {
        Protocol::Packet(phase) => post_packet(state, memory, command, phase),
        _ => Ok(PortInterrupt::empty()),
    };
    set_tfd(state, output.status, output.error);
    let posted = post(state, memory, received::REGISTER, d2h(&output, FLAG_INTERRUPT).as_bytes());
    let causes = PortInterrupt::TFES | PortInterrupt::DHRS | failure.causes;
    match packet {
        Ok(packet) if posted.is_ok() => halt(state, causes | packet),
        _ => halt(state, causes | PortInterrupt::HBFS),
    }
}

fn succeed<A: DmaSpace>(
    state: &mut State,
    memory: &Memory<A>,
    command: &Command,
    output: &Output,
) -> Result<PortInterrupt, Inaccessible> {
    let mut causes = match command.protocol {
        Protocol::Packet(phase) => post_packet(state, memory, command, phase)?,
        _ => {
            post_bytes(memory, command)?;
            PortInterrupt::empty()
        }
    };
    set_tfd(state, output.status, output.error);
    causes |= match command.protocol {
        Protocol::PioIn(block) => {
            let fis = pio_setup(output, command.bytes, block);
            post(state, memory, received::PIO_SETUP, fis.as_bytes())?;
            PortInterrupt::PSS
        }
        _ => {
            let fis = d2h(output, FLAG_INTERRUPT);
            post(state, memory, received::REGISTER, fis.as_bytes())?;
            PortInterrupt::DHRS
        }
    };
    causes.set(PortInterrupt::DPS, command.interrupt);
    Ok(causes)
}

/// Writes PRDBC, if anything was moved.
fn post_bytes<A: DmaSpace>(memory: &Memory<A>, command: &Command) -> Result<(), Inaccessible> {
    if command.bytes == 0 {
        return Ok(());
    }
    let at = command.header + std::mem::offset_of!(CommandHeader, prdbc) as u64;
    let bytes = command.bytes.to_le_bytes();
    memory.write_slice(&bytes, GuestAddress(at)).map_err(|_| Inaccessible)
}

/// Writes what a packet command leaves behind before its end is told.
fn post_packet<A: DmaSpace>(
    state: &State,
    memory: &Memory<A>,
    command: &Command,
    phase: Phase,
) -> Result<PortInterrupt, Inaccessible> {
    post_bytes(memory, command)?;
    let (fis, causes) = phase.setup(command.bytes);
    post(state, memory, received::PIO_SETUP, fis.as_bytes())?;
    Ok(causes)
}
