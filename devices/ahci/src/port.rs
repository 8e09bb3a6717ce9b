//! A port's registers: what the guest's writes do (AHCI 1.3.1, 3.3 and 5.3), and what the port and
//! its worker tell each other.

mod saved;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use paraslot_device::{Bell, SharedPage};
use paraslot_spec::ahci::{PortCommand, PortError, port, port_base, sctl, ssts};
use paraslot_spec::ahci::{PortInterrupt, SIGNATURE_NONE};
use paraslot_spec::ata::status;

use crate::hba::{Irq, lock};
use crate::registers::{Bank, PORT, TFD_NO_DEVICE, derived, find};
pub(crate) use saved::PortRegisters;

/// One port.
pub(crate) struct Port {
    state: Mutex<State>,
    bell: Bell,
}

/// What the port's lock protects.
pub(crate) struct State {
    pub(crate) bank: Bank,
    index: u32,
    attached: bool,
    /// Counts the times that all commands were dropped: a command of an earlier epoch ends unseen.
    pub(crate) epoch: u32,
    /// Slots whose commands are with the worker, whatever epoch they are of. While there are any,
    /// guest memory may still change.
    pub(crate) taken: u32,
    /// Commands of an earlier epoch are still taken: no new ones are until they have come back.
    pub(crate) draining: bool,
    /// A command failed: no more are processed until ST is cleared (6.2.2).
    pub(crate) halted: bool,
    /// The slot after the one that was processed last.
    pub(crate) next_slot: u32,
    /// The device has to go through a hardware reset once nothing is taken.
    pub(crate) reset_device: bool,
    /// The device has a signature to send, once it is reset and FRE is set.
    pub(crate) signature: bool,
    /// GHC.HR waits for this port.
    pub(crate) hba_reset: bool,
    asserting: bool,
}

impl Port {
    /// A port without a device.
    pub(crate) fn new(page: Arc<SharedPage>, index: u8) -> io::Result<Self> {
        let state = State {
            bank: Bank::new(page, port_base(index)),
            index: index.into(),
            attached: false,
            epoch: 0,
            taken: 0,
            draining: false,
            halted: false,
            next_slot: 0,
            reset_device: false,
            signature: false,
            hba_reset: false,
            asserting: false,
        };
        Ok(Self { state: Mutex::new(state), bell: Bell::new()? })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Writes the lanes `lanes` of the register at `offset` from the port's base.
    pub(crate) fn write(&self, irq: &Irq, offset: u32, value: u32, lanes: u32) {
        let Some(register) = find(&PORT, offset) else { return };
        let mut state = self.lock();
        let old = state.bank.get(offset);
        let new = register.written(old, value, lanes);
        let mut ring = false;
        match offset {
            port::CLB | port::CLBU | port::FB | port::FBU => state.bank.set(offset, new),
            port::IS => {
                let causes = new | derived(state.bank.get(port::SERR));
                state.bank.set(port::IS, causes);
                state.update_interrupt(irq);
            }
            port::IE => {
                state.bank.set(port::IE, new);
                state.update_interrupt(irq);
            }
            port::SERR => {
                state.bank.set(port::SERR, new);
                state.change_causes(irq, derived(new), PortInterrupt::DERIVED.bits());
            }
            port::CMD => ring = state.write_cmd(old, new, value),
            port::SCTL => ring = state.write_sctl(irq, old, new),
            // Neither can be set while the command list is not being processed (3.3.13, 3.3.14).
            port::SACT if state.started() => state.bank.set(port::SACT, new),
            port::CI if state.started() => {
                state.bank.set(port::CI, new);
                ring = new != old;
            }
            _ => {}
        }
        drop(state);
        if ring {
            self.bell.ring();
        }
    }

    /// The port's part of an HBA reset: all of it goes back to its start, but for the addresses of
    /// the lists (10.4.3); at `power_on` those too. A device that is attached comes up again.
    pub(crate) fn reset(&self, irq: &Irq, power_on: bool) {
        let mut state = self.lock();
        state.drop_commands();
        for register in &PORT {
            if power_on || !matches!(register.offset, port::CLB | port::CLBU | port::FB | port::FBU)
            {
                state.bank.set(register.offset, register.reset);
            }
        }
        state.next_slot = 0;
        // A device that is gone may still move data.
        state.hba_reset = !power_on && (state.attached || state.draining);
        if state.attached {
            state.reset_device = true;
            state.link_up(TFD_NO_DEVICE);
        }
        if !state.hba_reset {
            irq.port_reset_done(state.index);
        }
        // The causes that a new link brings are not enabled.
        let causes = derived(state.bank.get(port::SERR));
        state.bank.set(port::IS, causes);
        state.update_interrupt(irq);
        drop(state);
        self.bell.ring();
    }

    /// A device comes: it answers the HBA's COMRESET with COMINIT, unless the host has switched the
    /// port off.
    pub(crate) fn plug(&self, irq: &Irq) {
        let mut state = self.lock();
        state.attached = true;
        state.reset_device = true;
        if !down(state.bank.get(port::SCTL)) {
            state.link_up(u32::from(status::BSY));
            state.errors_changed(irq);
        }
        drop(state);
        self.bell.ring();
    }

    /// The device goes, if there is one. What the host waits for stays in PxCI and PxSACT, where what is
    /// not there is done, until it stops the command list.
    pub(crate) fn unplug(&self, irq: &Irq) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.attached) {
            return;
        }
        state.overtake();
        state.halted = true;
        state.reset_device = false;
        if state.linked() {
            state.bank.change(port::SERR, PortError::DIAG_N.bits(), 0);
        }
        state.link_down(ssts::DET_NONE);
        state.errors_changed(irq);
    }

    /// The device's worker is gone, and what it had taken with it.
    pub(crate) fn forget(&self, irq: &Irq) {
        let mut state = self.lock();
        state.taken = 0;
        state.drained(irq);
    }
}

/// Whether PxSCTL keeps the link down.
fn down(control: u32) -> bool {
    matches!(control & sctl::DET, sctl::DET_COMRESET | sctl::DET_OFFLINE)
}

impl State {
    /// Whether there is a device.
    pub(crate) fn attached(&self) -> bool {
        self.attached
    }

    /// Whether the command list is to be processed.
    pub(crate) fn started(&self) -> bool {
        self.bank.get(port::CMD) & PortCommand::ST.bits() != 0
    }

    /// Whether received FISes are to be posted.
    pub(crate) fn receiving(&self) -> bool {
        self.bank.get(port::CMD) & PortCommand::FRE.bits() != 0
    }

    /// The 64-bit address in a pair of registers, the low one at `offset`.
    pub(crate) fn address(&self, offset: u32) -> u64 {
        u64::from(self.bank.get(offset + 4)) << 32 | u64::from(self.bank.get(offset))
    }

    /// Whether the link to the device is up.
    pub(crate) fn linked(&self) -> bool {
        self.bank.get(port::SSTS) & ssts::DET == ssts::DET_ESTABLISHED
    }

    /// The slots whose commands can be fetched now.
    pub(crate) fn issuable(&self) -> u32 {
        let busy = u32::from(status::BSY | status::DRQ);
        let ready = self.started()
            && !self.halted
            && !self.draining
            && !self.reset_device
            && !self.signature
            && self.bank.get(port::TFD) & busy == 0
            && self.linked();
        if ready { self.bank.get(port::CI) & !self.taken } else { 0 }
    }

    /// Everything that was taken has come back.
    pub(crate) fn drained(&mut self, irq: &Irq) {
        self.draining = false;
        if !self.started() {
            self.bank.change(port::CMD, 0, PortCommand::CR.bits());
        }
        if std::mem::take(&mut self.hba_reset) {
            irq.port_reset_done(self.index);
        }
    }

    /// Sets causes in PxIS.
    pub(crate) fn raise(&mut self, irq: &Irq, causes: PortInterrupt) {
        self.change_causes(irq, causes.bits(), 0);
    }

    fn change_causes(&mut self, irq: &Irq, set: u32, clear: u32) {
        self.bank.change(port::IS, set, clear);
        self.update_interrupt(irq);
    }

    fn update_interrupt(&mut self, irq: &Irq) {
        let asserting = self.bank.get(port::IS) & self.bank.get(port::IE) != 0;
        if asserting != self.asserting {
            self.asserting = asserting;
            irq.assert(self.index, asserting);
        }
    }

    /// PxSERR has changed.
    fn errors_changed(&mut self, irq: &Irq) {
        let causes = derived(self.bank.get(port::SERR));
        self.change_causes(irq, causes, 0);
    }

    /// Commands that are taken go on, unseen.
    fn overtake(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.draining = self.taken != 0;
    }

    /// Forgets all commands that were issued.
    fn drop_commands(&mut self) {
        self.overtake();
        self.halted = false;
        self.bank.set(port::CI, 0);
        self.bank.set(port::SACT, 0);
    }

    /// `new` is PxCMD by its table; `written` has the bits that act and do not stay.
    fn write_cmd(&mut self, old: u32, new: u32, written: u32) -> bool {
        let mut ring = false;
        let [before, after, written] = [old, new, written].map(PortCommand::from_bits_truncate);
        let mut value = new;
        if written.contains(PortCommand::CLO) && !before.contains(PortCommand::ST) {
            // BSY and DRQ go, so that a soft reset can be issued to a device that hangs (3.3.7).
            let busy = u32::from(status::BSY | status::DRQ);
            self.bank.change(port::TFD, 0, busy);
        }
        if after.contains(PortCommand::FRE) {
            value |= PortCommand::FR.bits();
            ring |= !before.contains(PortCommand::FRE);
        } else {
            value &= !PortCommand::FR.bits();
        }
        if after.contains(PortCommand::ST) {
            value |= PortCommand::CR.bits();
            if !before.contains(PortCommand::ST) {
                value &= !PortCommand::CCS;
                self.next_slot = 0;
                // What went wrong while it was stopped (a signature without a place, a device that went)
                // is over.
                self.halted = false;
                ring = true;
            }
        } else if before.contains(PortCommand::ST) {
            self.drop_commands();
            // The device may be able to end what nobody waits for any more.
            ring |= self.draining;
            value &= !PortCommand::CCS;
            if self.taken == 0 {
                value &= !PortCommand::CR.bits();
            }
        }
        self.bank.set(port::CMD, value);
        ring
    }

    fn write_sctl(&mut self, irq: &Irq, old: u32, new: u32) -> bool {
        self.bank.set(port::SCTL, new);
        if (old ^ new) & sctl::DET == 0 || !self.attached {
            return false;
        }
        if down(new) {
            self.drop_commands();
            self.reset_device = true;
            let offline = new & sctl::DET == sctl::DET_OFFLINE;
            self.link_down(if offline { ssts::DET_OFFLINE } else { ssts::DET_NONE });
        } else if down(old) {
            // The device answers with COMINIT and is busy until it sends its signature.
            self.link_up(u32::from(status::BSY));
            self.errors_changed(irq);
        }
        true
    }

    /// There is no link to a device.
    fn link_down(&mut self, det: u32) {
        self.signature = false;
        self.bank.set(port::SSTS, det);
        self.bank.set(port::TFD, TFD_NO_DEVICE);
        self.bank.set(port::SIG, SIGNATURE_NONE);
    }

    /// The link to the device comes up, as fast as PxSCTL.SPD allows.
    fn link_up(&mut self, tfd: u32) {
        let limit = self.bank.get(port::SCTL) & sctl::SPD;
        let speed = if limit == 0 { ssts::SPD_GEN3 } else { limit.min(ssts::SPD_GEN3) };
        self.bank.set(port::SSTS, ssts::DET_ESTABLISHED | speed | ssts::IPM_ACTIVE);
        self.bank.set(port::TFD, tfd);
        let errors = PortError::DIAG_X | PortError::DIAG_N;
        self.bank.change(port::SERR, errors.bits(), 0);
        self.signature = true;
    }
}
