//! The functions on the bus, standing still, as data.

use std::sync::{MutexGuard, PoisonError};

use paraslot_pci::{Bdf, PciDevice, SharedDevice};
use paraslot_spec::pci::mechanism1;

use super::Bus;
use crate::VmError;
use crate::snapshot::{BusState, FunctionState, SnapshotError};

pub(super) fn lock(device: &SharedDevice) -> MutexGuard<'_, dyn PciDevice + 'static> {
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bus {
    fn functions(&self) -> Vec<(Bdf, SharedDevice)> {
        let functions = self.root.functions().into_iter();
        functions.filter_map(|bdf| Some((bdf, self.root.function(bdf)?))).collect()
    }

    /// Pauses all functions, or none; one that is plugged in before they are resumed is paused, too. They may be
    /// paused already.
    pub(crate) fn pause(&self) -> Result<(), VmError> {
        let mut places = self.places();
        if places.paused {
            return Ok(());
        }
        let functions = self.functions();
        for (index, (bdf, device)) in functions.iter().enumerate() {
            if let Err(error) = lock(device).pause() {
                for (_, paused) in functions.iter().take(index) {
                    // The first thing that went wrong is told.
                    let _ = lock(paused).resume();
                }
                return Err(SnapshotError::Function { bdf: *bdf, error }.into());
            }
        }
        places.paused = true;
        Ok(())
    }

    /// Resumes all functions if they are paused, those after one that cannot be resumed included.
    pub(crate) fn resume(&self) -> Result<(), VmError> {
        let mut places = self.places();
        if !std::mem::replace(&mut places.paused, false) {
            return Ok(());
        }
        let resume = |(bdf, device): (Bdf, SharedDevice)| {
            let resumed = lock(&device).resume();
            resumed.map_err(|error| SnapshotError::Function { bdf, error })
        };
        let resumed: Vec<_> = self.functions().into_iter().map(resume).collect();
        Ok(resumed.into_iter().collect::<Result<(), _>>()?)
    }

    /// The states of all functions, which are paused.
    pub(crate) fn save(&self) -> Result<BusState, VmError> {
        let mut address = [0; 4];
        self.port_read(mechanism1::ADDRESS, &mut address);
        let save = |(bdf, device): (Bdf, SharedDevice)| {
            let saved = lock(&device).save();
            let state = saved.map_err(|error| SnapshotError::State { bdf, error })?;
            let Bdf { bus, device, function } = bdf;
            Ok(FunctionState { bus, device, function, state })
        };
        let functions = self.functions().into_iter().map(save);
        let functions = functions.collect::<Result<_, SnapshotError>>()?;
        Ok(BusState { address: u32::from_le_bytes(address), functions })
    }

    /// Checks that the functions whose states these are have their like here.
    pub(crate) fn check(&self, state: &BusState) -> Result<(), SnapshotError> {
        let mut saved: Vec<_> = state.functions.iter().map(FunctionState::bdf).collect();
        saved.sort_unstable();
        let here = self.root.functions();
        if saved == here {
            return Ok(());
        }
        let list =
            |functions: &[Bdf]| functions.iter().map(Bdf::to_string).collect::<Vec<_>>().join(", ");
        let what = format!("it has functions at {}, not at {}", list(&saved), list(&here));
        Err(SnapshotError::mismatch(what))
    }

    /// Has functions, which are paused and stay so, take their states over, and puts their BARs where
    /// the guest had put them.
    pub(crate) fn restore(&self, state: &BusState) -> Result<(), VmError> {
        self.check(state)?;
        self.port_write(mechanism1::ADDRESS, &state.address.to_le_bytes());
        for function in &state.functions {
            let bdf = function.bdf();
            let Some(device) = self.root.function(bdf) else { continue };
            let restored = lock(&device).restore(&function.state);
            // It is as after a reset if it does not take it.
            self.root.refresh(bdf);
            restored.map_err(|error| SnapshotError::State { bdf, error })?;
        }
        self.settle()
    }
}
