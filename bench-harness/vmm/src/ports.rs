//! What the guest says: the console, phase marks and the end.

use std::sync::{Mutex, MutexGuard, PoisonError};

use paraslot_protocol::{Phase, port};
use serde::{Deserialize, Serialize};
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use crate::snapshot::SnapshotError;

/// What the guest may write to its console; more is dropped.
const CONSOLE_MAX: usize = 4 << 20;

/// Something that the guest said and the vCPU's loop must act on before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    Phase(Phase),
    Exit(u32),
}

/// The console, phase and exit ports, as three devices by their base addresses.
#[derive(Default)]
pub(crate) struct Ports {
    console: Mutex<Vec<u8>>,
    mark: Mutex<Option<Mark>>,
}

/// What the ports keep.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PortsState {
    #[serde(with = "hex")]
    console: Vec<u8>,
    /// A mark that the vCPU's loop has not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<MarkState>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum MarkState {
    Phase(u32),
    Exit(u32),
}

/// The ports, with how many bytes each has.
pub(crate) const PORTS: [(u16, u16); 3] = [(port::CONSOLE, 1), (port::PHASE, 4), (port::EXIT, 4)];

impl Ports {
    fn console(&self) -> MutexGuard<'_, Vec<u8>> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn mark(&self) -> MutexGuard<'_, Option<Mark>> {
        self.mark.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What they keep. Changes nothing.
    pub(crate) fn save(&self) -> PortsState {
        let mark = self.mark().map(|mark| match mark {
            Mark::Phase(phase) => MarkState::Phase(phase as u32),
            Mark::Exit(code) => MarkState::Exit(code),
        });
        PortsState { console: self.console().clone(), mark }
    }

    /// Takes over what others kept.
    pub(crate) fn restore(&self, state: &PortsState) -> Result<(), SnapshotError> {
        let PortsState { console, mark } = state;
        if console.len() > CONSOLE_MAX {
            return Err(SnapshotError::mismatch("more console output than is kept"));
        }
        *self.mark() = match mark {
            None => None,
            Some(MarkState::Exit(code)) => Some(Mark::Exit(*code)),
            Some(MarkState::Phase(raw)) => Phase::from_raw(*raw).map(Mark::Phase),
        };
        self.console().clone_from(console);
        Ok(())
    }

    /// What the last write to the phase or exit port said.
    pub(crate) fn take_mark(&self) -> Option<Mark> {
        self.mark().take()
    }

    /// All that was written to the console.
    pub(crate) fn take_console(&self) -> Vec<u8> {
        std::mem::take(&mut *self.console())
    }
}

impl DevicePio for Ports {
    fn pio_read(&self, base: PioAddress, _offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0xff);
        // As QEMU's debug console answers, so that a guest can tell that it is there.
        if let (port::CONSOLE, [byte]) = (base.0, data) {
            *byte = 0xe9;
        }
    }

    fn pio_write(&self, base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        if base.0 == port::CONSOLE {
            let mut console = self.console();
            let room = CONSOLE_MAX.saturating_sub(console.len());
            console.extend(data.iter().take(room));
            return;
        }
        let mut bytes = [0; 4];
        for (byte, value) in bytes.iter_mut().zip(data) {
            *byte = *value;
        }
        let value = u32::from_le_bytes(bytes);
        *self.mark() = match (base.0, offset) {
            (port::PHASE, 0) => Phase::from_raw(value).map(Mark::Phase),
            (port::EXIT, 0) => Some(Mark::Exit(value)),
            _ => None,
        };
    }
}
