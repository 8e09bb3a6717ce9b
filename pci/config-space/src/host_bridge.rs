//! A host bridge.

use std::sync::Arc;

use paraslot_device::interrupt::NoInterrupts;
use paraslot_device::{SavedState, StateError};

use crate::{
    BarState, ConfigSpace, ConfigSpaceBuilder, ConfigState, DeviceError, Identity, Layout,
    PciDevice,
};

/// Its name in a saved state, and the state's version.
const NAME: &str = "host-bridge";
const VERSION: u32 = 1;

/// The function at 00:00.0 that a guest expects on a root bus.
///
/// It has a header and nothing else: no BARs, no capabilities, no registers of its own. Its identity
/// is that of QEMU's generic PCI Express host bridge (1b36:0008), of which the same is true, so that
/// firmware and kernels look for no chipset's registers behind it.
pub struct HostBridge {
    config: ConfigSpace,
    layout: Layout,
}

impl HostBridge {
    /// Its identity: Red Hat, PCI Express host bridge, class 06 00 00.
    pub const IDENTITY: Identity = Identity {
        vendor: 0x1b36,
        device: 0x0008,
        revision: 0,
        class: [0x06, 0x00, 0x00],
        subsystem_vendor: 0,
        subsystem: 0,
    };

    /// One after power-on.
    pub fn new() -> Self {
        let none = Arc::new(NoInterrupts);
        let config = ConfigSpaceBuilder::new(Self::IDENTITY).build(none.clone(), none);
        Self { layout: config.layout(), config }
    }
}

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl PciDevice for HostBridge {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.config.bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        // No workers to wake, and no capability to ask for a reset with.
        let _ = self.config.write(offset, data);
    }

    fn bar_read(&mut self, _bar: u8, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&mut self, _bar: u8, _offset: u64, _data: &[u8]) {}

    fn reset(&mut self) {
        self.config.reset();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    // It does nothing by itself, so it is as good as paused at any time.
    fn save(&mut self) -> Result<SavedState, StateError> {
        SavedState::new(NAME, VERSION, &self.config.save())
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.config.reset();
        let state: ConfigState = state.open(NAME, VERSION)?;
        self.config.restore(&state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraslot_spec::pci::header;

    #[test]
    fn what_the_guest_has_written_is_taken_over() {
        let mut bridge = HostBridge::new();
        bridge.config_write(header::COMMAND, &[6, 0]);
        let state = bridge.save().unwrap();
        let mut other = HostBridge::new();
        other.restore(&state).unwrap();
        let mut command = [0; 2];
        other.config_read(header::COMMAND, &mut command);
        assert_eq!(command, [6, 0]);
        assert_eq!(other.save().unwrap(), state);
        // One that is not its is refused, and nothing is left.
        let wrong = SavedState { version: 2, ..state };
        assert!(matches!(other.restore(&wrong), Err(StateError::Version { .. })));
        assert_eq!(other.save().unwrap(), HostBridge::new().save().unwrap());
    }
}
