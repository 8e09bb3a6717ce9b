//! How the adapter interrupts.

use paraslot_spec::pci::{capability, msi, msix};
use paraslot_spec::vmxnet3::{command, interrupt, registers};

use super::hardware::Hardware;
use super::shared::Shared;
use super::{MAX_QUEUES, Options, Signalling, Vectors};
use crate::pci::{Msix, route_msi, route_pin};
use crate::{Error, Platform};

/// The interrupts of queues; that of events is the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Of each receive queue.
    pub(super) receive: [u8; MAX_QUEUES],
    /// Of the transmit queue.
    pub(super) transmit: u8,
    /// In all.
    pub(super) count: u8,
}

impl Plan {
    /// For so many receive queues, given how many vectors there are at most.
    fn new(vectors: Vectors, queues: u8, available: u16) -> Self {
        let one_each = vectors == Vectors::Each && available > queues.into();
        match vectors {
            Vectors::Each if one_each => {
                let mut receive = [0; MAX_QUEUES];
                receive.iter_mut().zip(0..queues).for_each(|(place, index)| *place = index);
                Self { receive, transmit: queues, count: queues + 1 }
            }
            Vectors::Directions | Vectors::Each if available > 1 => {
                Self { receive: [0; MAX_QUEUES], transmit: 1, count: 2 }
            }
            _ => Self { receive: [0; MAX_QUEUES], transmit: 0, count: 1 },
        }
    }

    /// Whether what was sent has an interrupt of its own: the last.
    fn apart(&self) -> bool {
        self.transmit != 0
    }

    /// The interrupts of what arrives.
    fn arrivals(&self) -> impl Iterator<Item = u8> + use<> {
        0..self.count - u8::from(self.apart())
    }
}

/// The state of it.
#[derive(Debug)]
pub(super) struct Interrupts {
    pub(super) signalling: Signalling,
    pub(super) plan: Plan,
    /// Whether the adapter masks what it raises.
    pub(super) auto_mask: bool,
    /// Whether the driver must, in its handler.
    mask_in_handler: bool,
    /// The platform's number.
    index: u8,
    /// Whether the pin is connected.
    connected: bool,
    /// Whether they are on.
    on: bool,
    /// Whether they are on and none is being handled.
    armed: bool,
    /// Whether the handling of one has begun.
    begun: bool,
    /// Whether what was sent is to interrupt, and whether its own interrupt was let through last.
    transmit: bool,
    transmit_open: bool,
}

impl Interrupts {
    /// Finds out how the adapter would like to interrupt, and what it can. Messages are set up, and
    /// none come yet.
    pub(super) fn new<P: Platform>(
        hardware: &Hardware<'_, P>,
        options: &Options,
    ) -> Result<Self, Error> {
        let answer = hardware.ask(command::GET_CONF_INTR);
        let liked = match answer & interrupt::IT {
            interrupt::IT_INTX => Signalling::Pin,
            interrupt::IT_MSI => Signalling::Msi,
            _ => Signalling::MsiX,
        };
        let mode = answer >> interrupt::IMM_SHIFT & interrupt::IT;
        let message = hardware.platform.interrupt_message(options.interrupt);
        let mut signalling = liked.max(options.signalling);
        let mut plan = Plan::new(Vectors::Shared, 1, 1);
        silence(hardware);
        if signalling == Signalling::MsiX {
            match Msix::new(hardware.function)? {
                Some(table) => {
                    plan = Plan::new(options.vectors, options.receive_queues, table.vectors());
                    for vector in 0..plan.count {
                        table.set(vector.into(), message)?;
                    }
                }
                None => signalling = Signalling::Msi,
            }
        }
        if signalling == Signalling::Msi && route_msi(hardware.function, message).is_err() {
            signalling = Signalling::Pin;
        }
        Ok(Self {
            signalling,
            plan,
            auto_mask: mode == interrupt::IMM_AUTO,
            mask_in_handler: mode == interrupt::IMM_ACTIVE,
            index: options.interrupt,
            connected: false,
            on: false,
            armed: false,
            begun: false,
            transmit: false,
            transmit_open: false,
        })
    }

    /// Masks all.
    pub(super) fn mask_all<P: Platform>(&mut self, hardware: &Hardware<'_, P>) {
        (0..self.plan.count).for_each(|interrupt| hardware.set_masked(interrupt, true));
        (self.armed, self.transmit_open) = (false, false);
    }

    /// Lets through what may interrupt.
    fn arm<P: Platform>(&mut self, hardware: &Hardware<'_, P>) {
        self.plan.arrivals().for_each(|interrupt| hardware.set_masked(interrupt, false));
        if self.transmit && self.plan.apart() {
            hardware.set_masked(self.plan.transmit, false);
            self.transmit_open = true;
        }
        self.armed = true;
    }

    pub(super) fn set<P: Platform>(
        &mut self,
        hardware: &Hardware<'_, P>,
        shared: &Shared,
        on: bool,
    ) -> Result<(), Error> {
        if on {
            if self.signalling == Signalling::Pin && !self.connected {
                route_pin(hardware.function, self.index)?;
                self.connected = true;
            }
            shared.set_interrupts(true);
            self.on = true;
            self.arm(hardware);
        } else {
            shared.set_interrupts(false);
            self.on = false;
            self.mask_all(hardware);
            // One that was taken and not handled must not keep later ones away.
            self.end_of_interrupt(hardware);
        }
        Ok(())
    }

    pub(super) fn set_transmit<P: Platform>(&mut self, hardware: &Hardware<'_, P>, on: bool) {
        self.transmit = on;
        // Otherwise it takes effect when interrupts are let through again.
        let now = if on { self.armed && !self.transmit_open } else { self.transmit_open };
        if self.plan.apart() && now {
            hardware.set_masked(self.plan.transmit, !on);
            self.transmit_open = on;
        }
    }

    /// Begins to handle an interrupt. Returns whether it is the adapter's.
    pub(super) fn begin<P: Platform>(&mut self, hardware: &Hardware<'_, P>) -> Result<bool, Error> {
        if self.signalling == Signalling::Pin {
            let cause = hardware.read(registers::ICR);
            if cause == Ok(0) || cause.is_err() {
                self.end_of_interrupt(hardware);
                return cause.map(|_| false);
            }
        }
        if self.mask_in_handler {
            self.plan.arrivals().for_each(|interrupt| hardware.set_masked(interrupt, true));
            if core::mem::take(&mut self.transmit_open) {
                hardware.set_masked(self.plan.transmit, true);
            }
        }
        (self.armed, self.begun) = (false, true);
        self.end_of_interrupt(hardware);
        Ok(true)
    }

    /// Ends it.
    pub(super) fn end<P: Platform>(&mut self, hardware: &Hardware<'_, P>) {
        if self.on {
            self.arm(hardware);
        }
        // One may have come that nobody began to handle, as frames were looked for without it.
        if !core::mem::take(&mut self.begun) {
            self.end_of_interrupt(hardware);
        }
    }

    /// All is over.
    pub(super) fn disconnect<P: Platform>(&mut self, hardware: &Hardware<'_, P>) {
        hardware.disconnect();
        self.end_of_interrupt(hardware);
        (self.connected, self.on) = (false, false);
    }

    /// A pin is level-triggered; messages need no such thing.
    fn end_of_interrupt<P: Platform>(&self, hardware: &Hardware<'_, P>) {
        if self.signalling == Signalling::Pin {
            hardware.platform.end_of_interrupt(self.index);
        }
    }
}

/// Turns off the messages that another driver may have left on: while there are any, there is no pin,
/// and of both kinds only one may be.
fn silence<P: Platform>(hardware: &Hardware<'_, P>) {
    let function = hardware.function;
    for (id, control) in [(capability::MSI_X, msix::CONTROL), (capability::MSI, msi::CONTROL)] {
        // The control is the upper half of the first word, and all that can be written there.
        debug_assert!(control == 2);
        if let Some(at) = function.capability(id) {
            function.write32(at, 0);
        }
    }
}
