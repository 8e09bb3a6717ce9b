//! A packet device, saved.

use paraslot_device::StateError;
use paraslot_scsi::BusState;
use serde::{Deserialize, Serialize};

use super::PacketDevice;
use crate::command::is_transfer_mode;
use crate::disk::Power;

/// What a host has made of a packet device, its logical unit included.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PacketState {
    transfer_mode: u8,
    keep: bool,
    power: Power,
    srst: bool,
    bus: BusState,
}

impl PacketDevice {
    pub(super) fn saved(&self) -> Result<PacketState, StateError> {
        let Self {
            identity: _,
            bus,
            lane,
            completions: _,
            transfer_mode,
            keep,
            power,
            srst,
            // Tells commands apart, of which there are none.
            tag: _,
            active,
        } = self;
        if active.is_some() || lane.in_flight() != 0 {
            return Err(StateError::Busy("a packet has not ended"));
        }
        Ok(PacketState {
            transfer_mode: *transfer_mode,
            keep: *keep,
            power: *power,
            srst: *srst,
            bus: bus.save(),
        })
    }

    pub(super) fn would_take(&self, saved: &PacketState) -> Result<(), StateError> {
        if self.active.is_some() || self.lane.in_flight() != 0 {
            return Err(StateError::Busy("a packet from before has not ended"));
        }
        if !is_transfer_mode(saved.transfer_mode) {
            return Err(StateError::impossible("a transfer mode that there is not"));
        }
        self.bus.check(&saved.bus)
    }

    pub(super) fn take_over(&mut self, saved: PacketState) -> Result<(), StateError> {
        let PacketState { transfer_mode, keep, power, srst, bus } = saved;
        self.transfer_mode = transfer_mode;
        self.keep = keep;
        self.power = power;
        self.srst = srst;
        self.bus.restore(&bus)
    }
}
