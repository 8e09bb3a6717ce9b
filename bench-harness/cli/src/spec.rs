//! Devices as they are named on the command line, in the style of QEMU's.

mod disk;
mod net;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use paraslot_protocol::{Class, Device};
use paraslot_report::Family;

pub(crate) use disk::{Backend, DiskSpec, Engine};
pub(crate) use net::NetSpec;

/// What kind of device it is.
pub(crate) fn family(device: Device) -> Family {
    match device {
        Device::VirtioBlk
        | Device::VirtioScsi
        | Device::Pvscsi
        | Device::VirtioNet
        | Device::Vmxnet3 => Family::Paravirtual,
        Device::Ahci | Device::E1000 => Family::Emulated,
    }
}

/// A device with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceSpec {
    /// A disk.
    Disk(DiskSpec),
    /// A network adapter.
    Net(NetSpec),
}

/// One option of a device.
pub(crate) struct OptionInfo {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) values: &'static str,
    /// What it does.
    pub(crate) what: &'static str,
}

const fn option(name: &'static str, values: &'static str, what: &'static str) -> OptionInfo {
    OptionInfo { name, values, what }
}

/// The options that a device takes.
pub(crate) fn options(device: Device) -> &'static [OptionInfo] {
    match device.class() {
        Class::Disk => disk::options(device),
        Class::Net => net::options(device),
    }
}

/// Why a specification is refused. One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

fn refuse<T>(message: impl Into<String>) -> Result<T, SpecError> {
    Err(SpecError(message.into()))
}

/// The parts between commas; a doubled comma stands for one that belongs to a part.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// `text` as one of the values that an option has.
fn choose<T: Copy>(name: &str, text: &str, values: &[(&str, T)]) -> Result<T, SpecError> {
    match values.iter().find(|(value, _)| *value == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let known: Vec<&str> = values.iter().map(|(value, _)| *value).collect();
            refuse(format!("{name}={text}: {name} is one of {}", known.join(", ")))
        }
    }
}

/// `text` as on or off.
fn switch(name: &str, text: &str) -> Result<bool, SpecError> {
    choose(name, text, &[("on", true), ("off", false)])
}

/// `text` as a number of queues.
fn queues(text: &str, most: u16) -> Result<u16, SpecError> {
    match text.parse() {
        Ok(queues) if (1..=most).contains(&queues) => Ok(queues),
        _ => refuse(format!("queues={text}: queues is a number from 1 to {most}")),
    }
}

impl DeviceSpec {
    /// A device with nothing said of it.
    pub(crate) fn new(device: Device) -> Self {
        match device.class() {
            Class::Disk => Self::Disk(DiskSpec::new(device)),
            Class::Net => Self::Net(NetSpec::new(device)),
        }
    }

    /// Which one.
    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Disk(spec) => spec.device,
            Self::Net(spec) => spec.device,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        match self {
            Self::Disk(spec) => spec.set(name, value),
            Self::Net(spec) => spec.set(name, value),
        }
    }

    /// Whether the options make sense together.
    fn check(&self) -> Result<(), SpecError> {
        match self {
            Self::Disk(spec) => spec.check(),
            Self::Net(spec) => spec.check(),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let parts = parts(text);
        let (name, given) =
            parts.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        let Ok(device) = name.parse() else {
            let known: Vec<&str> = Device::ALL.iter().map(|device| device.name()).collect();
            return refuse(format!("no device {name:?}: there are {}", known.join(", ")));
        };
        let mut spec = Self::new(device);
        let mut seen: Vec<&str> = Vec::new();
        for part in given {
            let Some((option, value)) = part.split_once('=') else {
                return refuse(format!("{part:?} is not an option: options are NAME=VALUE"));
            };
            let known = options(device);
            if !known.iter().any(|info| info.name == option) {
                let known: Vec<&str> = known.iter().map(|info| info.name).collect();
                return refuse(format!(
                    "{name} has no option {option:?}: it has {}",
                    known.join(", ")
                ));
            }
            if seen.contains(&option) {
                return refuse(format!("option {option} is given twice"));
            }
            seen.push(option);
            spec.set(option, value)?;
        }
        spec.check()?;
        Ok(spec)
    }
}
