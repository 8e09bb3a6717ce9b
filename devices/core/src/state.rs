//! Saved state: what lets another function of the same construction go on where this one stopped.
//!
//! It is a tree of named fields rather than an image of memory: a person can read it, a later version
//! can add to it, and what is too much in it is noticed. Whoever restores it trusts none of it. A
//! restored function is in a state that a guest could have brought about by itself, or it refuses and is
//! as after a reset.

#[cfg(any(test, feature = "test-utils"))]
pub mod testing;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
pub use serde_json::Value;

/// The state of a function, with what tells who can take it over. It serialises with serde, and is
/// made of JSON's types.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedState {
    /// The device that saved it.
    pub device: String,
    /// The layout of `state`, from 1.
    pub version: u32,
    /// The fields.
    pub state: Value,
}

/// Why a function could not be saved, or did not take a state over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The function cannot be saved: part of its state is not ours, but hardware's.
    #[error("{0} cannot be saved")]
    Unsupported(&'static str),
    /// The function runs.
    #[error("the function is not paused")]
    NotPaused,
    /// Something is under way that cannot be taken along, and ends by itself if the function goes on.
    #[error("the function cannot be saved now: {0}")]
    Busy(&'static str),
    /// It is another device's state.
    #[error("the state is that of {found:?}, not of {expected}")]
    Device {
        /// This device.
        expected: &'static str,
        /// The state's.
        found: String,
    },
    /// It was saved by a version that this one does not know.
    #[error("the state has version {found}, of which {newest} is the newest known")]
    Version {
        /// The newest that this device reads.
        newest: u32,
        /// The state's.
        found: u32,
    },
    /// A field is missing, unknown, or of another type.
    #[error("malformed state: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A value that no guest could have brought about, or that does not fit how the function was
    /// constructed.
    #[error("impossible state: {0}")]
    Impossible(String),
    /// The state is good and the function could not be started with it.
    #[error(transparent)]
    Start(#[from] crate::DeviceError),
}

impl StateError {
    /// [`StateError::Impossible`], with what is wrong.
    pub fn impossible(what: impl Into<String>) -> Self {
        Self::Impossible(what.into())
    }
}

impl SavedState {
    /// `device`'s state.
    ///
    /// # Errors
    /// When `state` does not serialise.
    pub fn new(
        device: &'static str,
        version: u32,
        state: &impl Serialize,
    ) -> Result<Self, StateError> {
        Ok(Self { device: device.into(), version, state: serde_json::to_value(state)? })
    }

    /// The fields, if this is a state of `device` that it knows to read. Fields that a version older
    /// than `newest` did not have take their defaults.
    ///
    /// # Errors
    /// When it is another device's, or newer, or malformed.
    pub fn open<T: DeserializeOwned>(
        &self,
        device: &'static str,
        newest: u32,
    ) -> Result<T, StateError> {
        if self.device != device {
            return Err(StateError::Device { expected: device, found: self.device.clone() });
        }
        if !(1..=newest).contains(&self.version) {
            return Err(StateError::Version { newest, found: self.version });
        }
        Ok(T::deserialize(&self.state)?)
    }
}

/// A part of a state as a tree, for one that carries another's.
///
/// # Errors
/// When it does not serialise.
pub fn save_part(part: &impl Serialize) -> Result<Value, StateError> {
    Ok(serde_json::to_value(part)?)
}

/// A part of a state, read back.
///
/// # Errors
/// When it is malformed.
pub fn read_part<T: DeserializeOwned>(part: &Value) -> Result<T, StateError> {
    Ok(T::deserialize(part)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Fields {
        index: u16,
        #[serde(default)]
        added: bool,
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let saved = SavedState::new("disk", 2, &Fields { index: 7, added: true }).unwrap();
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(text, r#"{"device":"disk","version":2,"state":{"added":true,"index":7}}"#);
        let again: SavedState = serde_json::from_str(&text).unwrap();
        let fields: Fields = again.open("disk", 2).unwrap();
        assert_eq!(fields, Fields { index: 7, added: true });
    }

    #[test]
    fn an_older_state_is_read_and_a_newer_one_or_anothers_is_not() {
        let old = SavedState { version: 1, ..state(r#"{"index":7}"#) };
        assert_eq!(old.open::<Fields>("disk", 2).unwrap(), Fields { index: 7, added: false });
        for version in [0, 3, u32::MAX] {
            let other = SavedState { version, ..old.clone() };
            let error = other.open::<Fields>("disk", 2).unwrap_err();
            assert!(matches!(error, StateError::Version { newest: 2, found } if found == version));
        }
        assert!(matches!(old.open::<Fields>("net", 2), Err(StateError::Device { .. })));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in
            [r#"{}"#, r#"{"index":65536}"#, r#"{"index":-1}"#, r#"{"index":1,"more":2}"#, "[]"]
        {
            let error = state(text).open::<Fields>("disk", 1).unwrap_err();
            assert!(matches!(error, StateError::Malformed(_)), "{text}: {error}");
        }
    }

    fn state(text: &str) -> SavedState {
        SavedState { device: "disk".into(), version: 1, state: serde_json::from_str(text).unwrap() }
    }
}
