//! Pausing a served function, and its saved state.

use paraslot_device::{DeviceError, SavedState, StateError};
use serde_json::{Value, json};

use super::discovery::read_config;
use super::messages::GuestTable;
use super::{ClientError, Paused, VfioUser};
use crate::wire::feature;

/// The name of our own states.
const NAME: &str = "vfio-user";
/// Bytes of a server's state.
const MAX_STATE: usize = 16 << 20;

pub(super) fn gone() -> DeviceError {
    DeviceError::Worker(std::io::ErrorKind::NotConnected.into())
}

impl<A> VfioUser<A> {
    pub(super) fn check_movable(&self) -> Result<(), StateError> {
        if !self.can_move {
            return Err(StateError::Unsupported("a function whose server cannot move it"));
        }
        if self.paused != Paused::Stopped {
            return Err(StateError::NotPaused);
        }
        Ok(())
    }

    pub(super) fn pause_it(&mut self) -> Result<(), DeviceError> {
        if self.paused != Paused::No {
            return Ok(());
        }
        if self.has_states && !self.lost {
            // What a server cannot stop goes on.
            match self.link.set_state(feature::STOP) {
                Err(ClientError::Refused { errno: libc::EBUSY, .. }) => {
                    return Err(DeviceError::Config("the server cannot stop the function".into()));
                }
                stopped => self.with(|_| stopped),
            };
            self.paused = Paused::Stopped;
        } else {
            let muted = self.with(|this| {
                let before = this.set_bus_master(false)?;
                this.mask_pin(true)?;
                Ok(before)
            });
            self.paused = muted.map_or(Paused::No, Paused::Muted);
        }
        if self.lost { Err(gone()) } else { Ok(()) }
    }

    pub(super) fn resume_it(&mut self) -> Result<(), DeviceError> {
        let resumed = match std::mem::replace(&mut self.paused, Paused::No) {
            Paused::No => Some(()),
            Paused::Stopped => self.with(|this| this.link.set_state(feature::RUNNING)),
            Paused::Muted(wanted) => self.with(|this| {
                if wanted {
                    this.set_bus_master(true)?;
                }
                this.forwarder.asserted();
                this.mask_pin(false)?;
                this.settle_level();
                Ok(())
            }),
        };
        resumed.ok_or_else(gone)
    }

    pub(super) fn save_it(&mut self) -> Result<SavedState, StateError> {
        self.check_movable()?;
        let began = match self.link.set_state(feature::STOP_COPY) {
            Err(ClientError::Refused { .. }) if !self.lost => {
                return Err(StateError::Busy("the server says so"));
            }
            began => self.with(|_| began),
        };
        let state = began.and_then(|()| {
            self.with(|this| {
                let state = this.link.read_state(MAX_STATE)?;
                this.link.set_state(feature::STOP)?;
                Ok(state)
            })
        });
        let state = String::from_utf8(state.ok_or_else(gone)?);
        let state = state.map_err(|_| StateError::Unsupported("a function of such a server"))?;
        let table = self.table.as_ref().map(GuestTable::bytes);
        SavedState::new(NAME, 1, &json!({ "server": state, "msix_table": table }))
    }

    /// Has the server take over a state; if it fails, the function is to be reset.
    pub(super) fn try_restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let fields: Value = state.open(NAME, 1)?;
        let malformed = || StateError::impossible("not a served function's");
        let fields = fields.as_object().filter(|fields| fields.len() == 2).ok_or_else(malformed)?;
        let server = fields.get("server").and_then(Value::as_str).ok_or_else(malformed)?;
        let table = fields.get("msix_table").ok_or_else(malformed)?;
        let table: Option<Vec<u8>> = serde_json::from_value(table.clone())?;
        let config = self.with(|this| {
            this.link.reset()?;
            let config = read_config(&mut this.link)?;
            this.after_reset(&config)?;
            this.link.set_state(feature::RESUMING)?;
            this.link.write_state(server.as_bytes())?;
            Ok(())
        });
        config.ok_or_else(gone)?;
        match self.link.set_state(feature::STOP) {
            Err(ClientError::Refused { .. }) => {
                return Err(StateError::impossible("the server refuses it"));
            }
            stopped => self.with(|_| stopped).ok_or_else(gone)?,
        }
        let fits = match (&mut self.table, table) {
            (Some(mine), Some(table)) => mine.restore(&table),
            (None, None) => true,
            _ => false,
        };
        if !fits {
            return Err(StateError::impossible("an MSI-X table of another function"));
        }
        let looked = self.with(|this| {
            let config = read_config(&mut this.link)?;
            this.look(&config)?;
            // The level is told anew.
            this.forwarder.asserted();
            this.wire_pin()?;
            this.settle_level();
            Ok(())
        });
        Ok(looked.ok_or_else(gone)?)
    }
}
