//! Device configuration with a generation that is right.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use paraslot_device::StateError;
use serde::{Deserialize, Serialize};

/// A [`DeviceConfig`]'s saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceConfigState {
    /// In hexadecimal digits.
    #[serde(with = "hex")]
    bytes: Vec<u8>,
    generation: u32,
}

/// The bytes of a device's configuration structure (2.5) and their generation, shared between the
/// device, which changes them, and its transport, which shows them.
///
/// The generation changes exactly when the bytes do, and both are read under one lock, so a driver
/// that reads the same generation before and after reading several fields has read them as they were
/// at one moment.
#[derive(Debug)]
pub struct DeviceConfig {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: Box<[u8]>,
    generation: u32,
}

impl DeviceConfigState {
    /// The configuration structure.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl DeviceConfig {
    /// A configuration that starts as `bytes`; its length stays.
    pub fn new(bytes: &[u8]) -> Self {
        Self { state: Mutex::new(State { bytes: bytes.into(), generation: 0 }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Whether the device has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many times it has changed, modulo 2³².
    pub fn generation(&self) -> u32 {
        self.lock().generation
    }

    /// Reads from `offset`; what lies beyond the end reads as zeroes.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let state = self.lock();
        let Some(rest) = usize::try_from(offset).ok().and_then(|offset| state.bytes.get(offset..))
        else {
            return;
        };
        let count = rest.len().min(data.len());
        data[..count].copy_from_slice(&rest[..count]);
    }

    /// Changes it; returns whether any byte is different afterwards.
    pub fn update(&self, change: impl FnOnce(&mut [u8])) -> bool {
        let mut state = self.lock();
        let before = state.bytes.clone();
        change(&mut state.bytes);
        let changed = state.bytes != before;
        if changed {
            state.generation = state.generation.wrapping_add(1);
        }
        changed
    }

    /// What [`restore`](Self::restore) takes.
    pub fn save(&self) -> DeviceConfigState {
        let state = self.lock();
        DeviceConfigState { bytes: state.bytes.to_vec(), generation: state.generation }
    }

    /// Shows what the saved configuration showed, its generation too, for a driver may be in the middle
    /// of reading it. Bytes outside of `changing` are those that tell how the device was built.
    ///
    /// # Errors
    /// When those differ from this device's. Then nothing has changed.
    pub fn restore(
        &self,
        saved: &DeviceConfigState,
        changing: &[Range<usize>],
    ) -> Result<(), StateError> {
        let mut state = self.lock();
        let fits = |(at, (here, saved)): (usize, (&u8, &u8))| {
            here == saved || changing.iter().any(|range| range.contains(&at))
        };
        let same_len = state.bytes.len() == saved.bytes.len();
        if !same_len || !state.bytes.iter().zip(&saved.bytes).enumerate().all(fits) {
            return Err(StateError::impossible("the device configuration is another device's"));
        }
        state.bytes.copy_from_slice(&saved.bytes);
        state.generation = saved.generation;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // pci.common.6
    #[test]
    fn the_generation_changes_exactly_when_the_bytes_do() {
        let config = DeviceConfig::new(&[1, 2, 3]);
        assert!(!config.update(|_| {}));
        assert!(!config.update(|bytes| bytes[1] = 2));
        assert_eq!(config.generation(), 0);
        assert!(config.update(|bytes| bytes[1] = 9));
        assert_eq!(config.generation(), 1);
    }

    #[test]
    fn reads_beyond_the_end_are_zero() {
        let config = DeviceConfig::new(&[1, 2, 3]);
        let mut data = [0xff; 4];
        config.read(1, &mut data);
        assert_eq!(data, [2, 3, 0, 0]);
        config.read(u64::MAX, &mut data);
        assert_eq!(data, [0; 4]);
    }
}
