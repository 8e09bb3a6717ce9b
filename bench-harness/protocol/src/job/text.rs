//! `key=value` words.

use core::str::FromStr;

use super::JobError;

/// A job's text.
#[derive(Clone, Copy)]
pub(super) struct Words<'a>(pub(super) &'a str);

impl Words<'_> {
    /// The value of `key`.
    pub(super) fn get<T: FromStr>(self, key: &'static str) -> Result<T, JobError> {
        self.0
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .find(|(name, _)| *name == key)
            .ok_or(JobError::Missing(key))?
            .1
            .parse()
            .map_err(|_| JobError::Invalid(key))
    }

    /// The value of `key`, a number that is not 0 for true.
    pub(super) fn flag(self, key: &'static str) -> Result<bool, JobError> {
        self.get::<u8>(key).map(|value| value != 0)
    }
}

/// Reads and shows an enum by the names that its `name` gives.
macro_rules! named {
    ($type:ident, $key:literal, [$($variant:ident),+]) => {
        impl core::str::FromStr for $type {
            type Err = $crate::JobError;
            fn from_str(text: &str) -> Result<Self, $crate::JobError> {
                [$(Self::$variant),+]
                    .into_iter()
                    .find(|value| value.name() == text)
                    .ok_or($crate::JobError::Invalid($key))
            }
        }
        impl core::fmt::Display for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}
pub(super) use named;
