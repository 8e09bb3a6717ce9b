//! A port's registers, saved.

use paraslot_device::StateError;
use paraslot_spec::ahci::{
    PortCommand, PortError, PortInterrupt, SIGNATURE_NONE, port, sctl, ssts,
};
use serde::{Deserialize, Serialize};

use super::{State, down};
use crate::registers::{CAUSES, PORT, derived, find};

/// The registers as the guest reads them, and what else a port knows.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortRegisters {
    clb: u32,
    clbu: u32,
    fb: u32,
    fbu: u32,
    is: u32,
    ie: u32,
    cmd: u32,
    tfd: u32,
    sig: u32,
    ssts: u32,
    sctl: u32,
    serr: u32,
    sact: u32,
    ci: u32,
    halted: bool,
    next_slot: u32,
    /// The commands that have ended were overtaken by a reset or a stop.
    draining: bool,
    reset_device: bool,
    /// GHC.HR waits for this port.
    pub(crate) hba_reset: bool,
}

impl PortRegisters {
    /// The registers by their offsets.
    fn values(&self) -> [(u32, u32); 14] {
        [
            (port::CLB, self.clb),
            (port::CLBU, self.clbu),
            (port::FB, self.fb),
            (port::FBU, self.fbu),
            (port::IS, self.is),
            (port::IE, self.ie),
            (port::CMD, self.cmd),
            (port::TFD, self.tfd),
            (port::SIG, self.sig),
            (port::SSTS, self.ssts),
            (port::SCTL, self.sctl),
            (port::SERR, self.serr),
            (port::SACT, self.sact),
            (port::CI, self.ci),
        ]
    }

    /// Whether the port asserts its interrupt.
    pub(crate) fn asserts(&self) -> bool {
        self.is & self.ie != 0
    }

    /// Whether what has ended was overtaken.
    pub(crate) fn draining(&self) -> bool {
        self.draining
    }

    fn linked(&self) -> bool {
        self.ssts & ssts::DET == ssts::DET_ESTABLISHED
    }

    /// Whether a driver, and a device that sends `signature` if there is one, can lead here. `taken` are
    /// the slots of commands that have ended.
    pub(crate) fn check(&self, signature: Option<u32>, taken: u32) -> Result<(), StateError> {
        let checks = [
            (self.is_writable(), "bits that cannot be written"),
            (self.is_linked_as_it_should(signature), "a link that is not like this"),
            (self.commands_make_sense(taken), "a command list that is not like this"),
            (self.causes_make_sense(), "causes that there are not"),
            (
                signature.is_some() || !self.reset_device && !self.hba_reset && taken == 0,
                "a device where there is none",
            ),
            (self.draining <= (taken != 0), "nothing that could have been overtaken"),
            (
                taken == 0 || self.draining || !self.reset_device && !self.hba_reset,
                "commands that a reset has not overtaken",
            ),
        ];
        match checks.into_iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, what)) => Err(StateError::impossible(format!("a port with {what}"))),
        }
    }

    /// What the guest writes is as it could have written it.
    fn is_writable(&self) -> bool {
        let plain = [port::CLB, port::CLBU, port::FB, port::FBU, port::IE, port::SCTL];
        self.values().into_iter().filter(|(offset, _)| plain.contains(offset)).all(
            |(offset, value)| {
                find(&PORT, offset)
                    .is_some_and(|register| register.written(0, value, u32::MAX) == value)
            },
        )
    }

    fn is_linked_as_it_should(&self, signature: Option<u32>) -> bool {
        let linked = signature.is_some() && !down(self.sctl);
        let status = if linked {
            let speed = self.ssts & ssts::SPD;
            (1..=ssts::SPD_GEN3 >> 4).contains(&(speed >> 4))
                && self.ssts == ssts::DET_ESTABLISHED | ssts::IPM_ACTIVE | speed
        } else {
            self.ssts == ssts::DET_NONE
                || signature.is_some()
                    && self.ssts == ssts::DET_OFFLINE
                    && self.sctl & sctl::DET != 0
        };
        // It has been sent, or is to be.
        let sent = self.sig == SIGNATURE_NONE || linked && signature == Some(self.sig);
        status && sent && self.tfd <= u16::MAX.into()
    }

    fn commands_make_sense(&self, taken: u32) -> bool {
        let Some(now) = PortCommand::from_bits(self.cmd & !PortCommand::CCS) else { return false };
        let constant = find(&PORT, port::CMD).map_or(0, |register| register.reset);
        let writable = find(&PORT, port::CMD).map_or(0, |register| register.writable);
        let running = (PortCommand::FR | PortCommand::CR).bits();
        let started = now.contains(PortCommand::ST);
        let states = now.bits() & !(writable | running) == constant
            && now.contains(PortCommand::FR) == now.contains(PortCommand::FRE);
        let list = if started {
            now.contains(PortCommand::CR)
        } else {
            self.ci | self.sact | self.cmd & PortCommand::CCS == 0
                && (!now.contains(PortCommand::CR) || taken != 0)
        };
        let current = taken == 0 || self.draining || started && self.linked();
        states && list && current && self.next_slot < u32::BITS
    }

    fn causes_make_sense(&self) -> bool {
        let errors = (PortError::DIAG_X | PortError::DIAG_N).bits();
        let follow = PortInterrupt::DERIVED.bits();
        self.serr & !errors == 0
            && self.is & follow == derived(self.serr)
            && self.is & !(follow | CAUSES.bits()) == 0
    }
}

impl State {
    pub(crate) fn save(&self) -> PortRegisters {
        let Self {
            bank,
            index: _,
            attached: _,
            epoch: _,
            taken: _,
            draining,
            halted,
            next_slot,
            reset_device,
            // A device that is linked has one to send as long as PxSIG does not show it.
            signature: _,
            hba_reset,
            asserting: _,
        } = self;
        PortRegisters {
            clb: bank.get(port::CLB),
            clbu: bank.get(port::CLBU),
            fb: bank.get(port::FB),
            fbu: bank.get(port::FBU),
            is: bank.get(port::IS),
            ie: bank.get(port::IE),
            cmd: bank.get(port::CMD),
            tfd: bank.get(port::TFD),
            sig: bank.get(port::SIG),
            ssts: bank.get(port::SSTS),
            sctl: bank.get(port::SCTL),
            serr: bank.get(port::SERR),
            sact: bank.get(port::SACT),
            ci: bank.get(port::CI),
            halted: *halted,
            next_slot: *next_slot,
            draining: *draining,
            reset_device: *reset_device,
            hba_reset: *hba_reset,
        }
    }

    /// Takes over what was checked, after a reset; `taken` are the slots of commands that have ended.
    pub(crate) fn restore(&mut self, saved: &PortRegisters, taken: u32) {
        for (offset, value) in saved.values() {
            self.bank.set(offset, value);
        }
        self.taken = taken;
        self.draining = saved.draining;
        self.halted = saved.halted;
        self.next_slot = saved.next_slot;
        self.reset_device = saved.reset_device;
        self.signature = saved.linked() && saved.sig == SIGNATURE_NONE;
        self.hba_reset = saved.hba_reset;
        // The HBA's registers follow by themselves.
        self.asserting = saved.asserts();
    }
}
