//! Registers that end or reset the machine.

use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};

use super::{POWER, RESET, RESET_VALUE, SLEEP_CONTROL, SLEEP_TYPE_OFF};

/// In the sleep control register: enter the state (SLP_EN).
const SLEEP_ENABLE: u8 = 1 << 5;
/// Where it says which (SLP_TYPx), three bits.
const SLEEP_TYPE_SHIFT: u32 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// What the guest wants of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    PowerOff,
    Reset,
}

const NONE: u8 = 0;
const POWER_OFF: u8 = 1;
const RESTART: u8 = 2;

fn request(raw: u8) -> Option<Request> {
    match raw {
        POWER_OFF => Some(Request::PowerOff),
        RESTART => Some(Request::Reset),
        _ => None,
    }
}

/// ACPI's sleep control and status registers, and its reset register. All read as 0: the machine has
/// never been asleep.
#[derive(Default)]
pub(crate) struct Power {
    request: AtomicU8,
}

impl Power {
    /// What the guest has asked for since the last call. Of two requests at once the first counts.
    pub(crate) fn take_request(&self) -> Option<Request> {
        // Asked after each exit, so what is usual costs a load.
        if self.request.load(Ordering::Acquire) == NONE {
            return None;
        }
        request(self.request.swap(NONE, Ordering::AcqRel))
    }

    /// What the guest has asked for. Changes nothing.
    pub(crate) fn save(&self) -> Option<Request> {
        request(self.request.load(Ordering::Acquire))
    }

    /// Has the guest have asked for that.
    pub(crate) fn restore(&self, request: Option<Request>) {
        let raw = match request {
            None => NONE,
            Some(Request::PowerOff) => POWER_OFF,
            Some(Request::Reset) => RESTART,
        };
        self.request.store(raw, Ordering::Release);
    }

    /// Forgets a request.
    pub(crate) fn clear(&self) {
        self.request.store(NONE, Ordering::Release);
    }

    fn ask(&self, request: u8) {
        let order = Ordering::AcqRel;
        let _ = self.request.compare_exchange(NONE, request, order, Ordering::Relaxed);
    }
}

impl DevicePio for Power {
    fn pio_read(&self, _base: PioAddress, _offset: PioAddressOffset, data: &mut [u8]) {
        data.fill(0);
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        // The registers are bytes; the tables say so. A wider access is none of theirs.
        let [value] = *data else { return };
        let Some(port) = POWER.0.checked_add(offset) else { return };
        let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
        match port {
            SLEEP_CONTROL if value & SLEEP_ENABLE != 0 && sleep_type == SLEEP_TYPE_OFF => {
                self.ask(POWER_OFF);
            }
            RESET if value == RESET_VALUE => self.ask(RESTART),
            _ => {}
        }
    }
}
