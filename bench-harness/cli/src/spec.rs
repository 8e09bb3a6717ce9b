//! Devices as they are named on the command line, in the style of QEMU's.

mod disk;
mod host;
mod limits;
mod net;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use paraslot_protocol::{Class, Device};
use paraslot_report::Family;
use paraslot_vfio::HostAddress;

pub(crate) use disk::{Backend, DiskSpec, Engine, Media};
pub(crate) use host::{HOST, HostSpec, PassedSpec};
pub(crate) use limits::{Limits, rate};
pub(crate) use net::NetSpec;

/// What kind of device it is.
pub(crate) fn family(device: Device) -> Family {
    match device {
        Device::VirtioBlk
        | Device::VirtioScsi
        | Device::Pvscsi
        | Device::VirtioNet
        | Device::Vmxnet3 => Family::Paravirtual,
        Device::Ahci | Device::Nvme | Device::E1000 => Family::Emulated,
    }
}

/// What a device is named for. Each has options that mean nothing to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// `paraslot run`.
    Measure,
    /// `paraslot boot`.
    Boot,
    /// `paraslot serve`.
    Serve,
}

impl Purpose {
    const fn command(self) -> &'static str {
        match self {
            Self::Measure => "paraslot run",
            Self::Boot => "paraslot boot",
            Self::Serve => "paraslot serve",
        }
    }
}

/// A device that is known, with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DeviceSpec {
    /// A disk of ours.
    Disk(DiskSpec),
    /// A network adapter of ours.
    Net(NetSpec),
    /// A function of the host's.
    Passed(PassedSpec),
}

/// A device as a command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// A disk of ours.
    Disk(DiskSpec),
    /// A network adapter of ours.
    Net(NetSpec),
    /// A function of the host's; what it is has yet to be found out.
    Host(HostSpec),
}

/// A device of a machine that is booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plugged {
    /// Its number on the bus; without, the next that is free.
    pub(crate) slot: Option<u8>,
    /// What it is.
    pub(crate) request: Request,
}

/// A device that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served(pub(crate) Request);

/// One option of a device.
#[derive(Clone, Copy)]
pub(crate) struct OptionInfo {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) values: &'static str,
    /// What it does.
    pub(crate) what: &'static str,
    /// What it is for; nothing for everything.
    only: &'static [Purpose],
}

impl OptionInfo {
    const fn only(self, purposes: &'static [Purpose]) -> Self {
        Self { only: purposes, ..self }
    }

    /// Whether it has a meaning there.
    pub(crate) fn is_for(&self, purpose: Purpose) -> bool {
        self.only.is_empty() || self.only.contains(&purpose)
    }
}

const fn option(name: &'static str, values: &'static str, what: &'static str) -> OptionInfo {
    OptionInfo { name, values, what, only: &[] }
}

/// What QEMU calls devices that have other names here, so that a command line of its can be used.
const QEMU_NAMES: [(&str, &str); 6] = [
    ("virtio-blk-pci", "virtio-blk"),
    ("virtio-scsi-pci", "virtio-scsi"),
    ("virtio-net-pci", "virtio-net"),
    ("ich9-ahci", "ahci"),
    ("e1000-82540em", "e1000"),
    ("vfio-pci", HOST),
];

const ADDR: OptionInfo =
    option("addr", "1..1f", "number on the bus, hexadecimal as in 00:1f.0").only(&[Purpose::Boot]);

/// The options that a device takes, whatever it is for.
pub(crate) fn options(device: Device) -> &'static [OptionInfo] {
    match device.class() {
        Class::Disk => disk::options(device),
        Class::Net => net::options(device),
    }
}

pub(crate) use host::OPTIONS as HOST_OPTIONS;

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

/// `text` as a number on the bus.
fn slot(text: &str) -> Result<u8, SpecError> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u8::from_str_radix(text, 16) {
        Ok(slot) if digits && (1..32).contains(&slot) => Ok(slot),
        _ => refuse(format!("addr={text}: addr is a hexadecimal number from 1 to 1f")),
    }
}

impl DeviceSpec {
    /// A device of ours with nothing said of it.
    pub(crate) fn new(device: Device) -> Self {
        match device.class() {
            Class::Disk => Self::Disk(DiskSpec::new(device)),
            Class::Net => Self::Net(NetSpec::new(device)),
        }
    }

    /// What a command line asks for. `identify` tells what a function of the host's is.
    ///
    /// # Errors
    /// When it cannot, or no driver of ours fits.
    pub(crate) fn of(
        request: &Request,
        identify: impl FnOnce(HostAddress) -> anyhow::Result<Device>,
    ) -> anyhow::Result<Self> {
        Ok(match request {
            Request::Disk(spec) => Self::Disk(spec.clone()),
            Request::Net(spec) => Self::Net(spec.clone()),
            Request::Host(host) => Self::Passed(PassedSpec::new(host, identify(host.address())?)?),
        })
    }

    /// Which one.
    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Disk(spec) => spec.device,
            Self::Net(spec) => spec.device,
            Self::Passed(spec) => spec.device,
        }
    }

    /// Whether it is the host's.
    pub(crate) fn is_passed(&self) -> bool {
        matches!(self, Self::Passed(_))
    }

    /// What its guest may take of its backend's time.
    pub(crate) fn limits(&self) -> Limits {
        match self {
            Self::Disk(spec) => spec.limits,
            Self::Net(spec) => spec.limits,
            Self::Passed(_) => Limits::default(),
        }
    }

    /// What kind of device it is.
    pub(crate) fn family(&self) -> Family {
        match self {
            Self::Disk(_) | Self::Net(_) => family(self.device()),
            Self::Passed(_) => Family::Passthrough,
        }
    }
}

impl Request {
    /// A device of ours with nothing said of it.
    fn new(device: Device) -> Self {
        match device.class() {
            Class::Disk => Self::Disk(DiskSpec::new(device)),
            Class::Net => Self::Net(NetSpec::new(device)),
        }
    }

    fn named(name: &str) -> Result<Self, SpecError> {
        let name =
            QEMU_NAMES.iter().find(|(theirs, _)| *theirs == name).map_or(name, |(_, ours)| ours);
        if name == HOST {
            return Ok(Self::Host(HostSpec::default()));
        }
        match name.parse().ok().filter(|device| Device::MODELS.contains(device)) {
            Some(device) => Ok(Self::new(device)),
            None => {
                let known = Device::MODELS.iter().map(|device| device.name());
                let known: Vec<&str> = known.chain([HOST]).collect();
                refuse(format!("no device {name:?}: there are {}", known.join(", ")))
            }
        }
    }

    /// What it is called.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Disk(spec) => spec.device.name(),
            Self::Net(spec) => spec.device.name(),
            Self::Host(_) => HOST,
        }
    }

    /// Whether it takes a function from its driver.
    pub(crate) fn borrows(&self) -> bool {
        matches!(self, Self::Host(host) if host.bind)
    }

    fn options(&self) -> &'static [OptionInfo] {
        match self {
            Self::Disk(spec) => options(spec.device),
            Self::Net(spec) => options(spec.device),
            Self::Host(_) => HOST_OPTIONS,
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        match self {
            Self::Disk(spec) => spec.set(name, value),
            Self::Net(spec) => spec.set(name, value),
            Self::Host(spec) => spec.set(name, value),
        }
    }

    /// Whether the options make sense together.
    fn check(&self, purpose: Purpose) -> Result<(), SpecError> {
        match self {
            Self::Disk(spec) => spec.check(purpose),
            Self::Net(spec) => spec.check(),
            Self::Host(spec) => spec.check(),
        }
    }

    /// A device as the command of that purpose takes it, with its number on the bus.
    fn parse(text: &str, purpose: Purpose) -> Result<Plugged, SpecError> {
        let parts = parts(text);
        let (name, given) =
            parts.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        let mut request = Self::named(name)?;
        let mut place = None;
        let mut seen: Vec<&str> = Vec::new();
        for part in given {
            let Some((option, value)) = part.split_once('=') else {
                return refuse(format!("{part:?} is not an option: options are NAME=VALUE"));
            };
            let options = request.options();
            match options.iter().find(|info| info.name == option) {
                None => {
                    let known = options.iter().filter(|info| info.is_for(purpose));
                    let known: Vec<&str> = known.map(|info| info.name).collect();
                    return refuse(format!(
                        "{name} has no option {option:?}: it has {}",
                        known.join(", ")
                    ));
                }
                Some(info) if !info.is_for(purpose) => {
                    let only = info.only.iter().map(|only| only.command());
                    return refuse(format!(
                        "option {option} is for {}, not for {}",
                        only.collect::<Vec<_>>().join(" and "),
                        purpose.command()
                    ));
                }
                Some(_) => {}
            }
            if seen.contains(&option) {
                return refuse(format!("option {option} is given twice"));
            }
            seen.push(option);
            match option {
                "addr" => place = Some(slot(value)?),
                _ => request.set(option, value)?,
            }
        }
        request.check(purpose)?;
        Ok(Plugged { slot: place, request })
    }
}

/// A device of ours, as `paraslot run` takes it.
#[cfg(test)]
pub(crate) fn model(text: &str) -> DeviceSpec {
    let request: Request = text.parse().expect(text);
    DeviceSpec::of(&request, |_| anyhow::bail!("a function of the host's")).expect(text)
}

/// As `paraslot run` takes it.
impl FromStr for Request {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Ok(Self::parse(text, Purpose::Measure)?.request)
    }
}

/// As `paraslot boot` takes it.
impl FromStr for Plugged {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        Request::parse(text, Purpose::Boot)
    }
}

/// As `paraslot serve` takes it: a function of the host's is better passed through by the monitor itself.
impl FromStr for Served {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        match Request::parse(text, Purpose::Serve)?.request {
            Request::Host(_) => refuse(format!("{HOST} is for paraslot run and paraslot boot")),
            request => Ok(Self(request)),
        }
    }
}
