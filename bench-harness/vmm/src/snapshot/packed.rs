//! KVM's structures, as hexadecimal digits.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A structure of KVM's interface, which is what its bytes are. It has exactly as many when it is read.
#[derive(Clone, Copy)]
pub(crate) struct Packed<T>(pub(crate) T);

impl<T: IntoBytes + Immutable> Serialize for Packed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0.as_bytes()))
    }
}

impl<'de, T: FromBytes> Deserialize<'de> for Packed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let bytes = hex::decode(text.as_bytes()).map_err(D::Error::custom)?;
        let value = T::read_from_bytes(&bytes);
        let wrong = |_| D::Error::invalid_length(bytes.len(), &"as many bytes as KVM has it");
        value.map(Self).map_err(wrong)
    }
}
