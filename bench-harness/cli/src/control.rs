//! Changing devices while their guest runs: a socket, a line of JSON for each command and each answer.

mod client;
mod owned;
mod server;
#[cfg(test)]
mod tests;

use std::num::NonZeroU64;

use serde::{Deserialize, Deserializer, Serialize};

pub(crate) use client::control;
pub(crate) use owned::{Owned, execute};
pub(crate) use server::{bind, serve};

/// Bytes of a command, its line feed included.
const LINE_MAX: usize = 16 << 10;
/// Bytes of an answer. It is not a guest's, but it comes over a socket.
const ANSWER_MAX: usize = 64 << 10;

/// What can be asked for. A device is named as the list of them names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Command {
    /// What devices there are, and how they are.
    List {},
    /// Changes limits; those that are not given stay, and those that are null go.
    Limit {
        device: String,
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        iops: Option<Option<NonZeroU64>>,
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        fps: Option<Option<NonZeroU64>>,
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        bps: Option<Option<NonZeroU64>>,
    },
    /// Looks at a disk's image again, whose size has changed, and tells the guest.
    Resize { device: String },
    /// Plugs an adapter's cable in, or pulls it.
    Link { device: String, up: bool },
    /// Takes a function out.
    Unplug { device: String },
    /// Puts one in, as a command line names it.
    Plug { device: String },
}

/// Tells what is null from what is not there.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// What a command is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Answer {
    /// It is done.
    Ok(Done),
    /// Why not, in a line.
    Error(String),
}

/// What there is to say of what was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    /// The devices there are, or the one that it was done to.
    pub(crate) devices: Vec<State>,
}

/// How a device is. What it has not is not there, but a limit that is not set is null.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// What it is called here.
    pub(crate) name: String,
    /// What it is.
    pub(crate) device: String,
    /// Bytes of a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    /// Whether an adapter's cable is plugged in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) up: Option<bool>,
    /// Most operations of a disk in a second.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(crate) iops: Option<Option<NonZeroU64>>,
    /// Most frames of an adapter in a second, each way.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(crate) fps: Option<Option<NonZeroU64>>,
    /// Most bytes in a second.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub(crate) bps: Option<Option<NonZeroU64>>,
    /// How often something had to wait for its limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delayed: Option<u64>,
}
