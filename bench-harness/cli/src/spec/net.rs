//! Network adapters.

use paraslot_protocol::Device;
use serde::{Deserialize, Serialize};

use crate::order::by_name;

use super::limits::{BPS_EACH, FPS, Limits, rate};
use super::{ADDR, OptionInfo, Purpose, SpecError, choose, option, queues, refuse, switch};

/// What an adapter is plugged into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Backend {
    /// What the workload needs: something that takes frames, sends them, or sends them back.
    #[default]
    Auto,
    /// A TAP interface.
    Tap,
}

/// A network adapter with its options. What was not given is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetSpec {
    /// Which one.
    #[serde(with = "by_name")]
    pub(crate) device: Device,
    pub(super) backend: Backend,
    pub(super) ifname: Option<String>,
    /// Its hardware address.
    pub(crate) mac: Option<[u8; 6]>,
    /// Pairs of queues that it offers.
    pub(crate) queues: Option<u16>,
    /// Whether it offers to do checksums and segmentation.
    pub(crate) offloads: bool,
    /// Whether frames have contents that are checked.
    pub(crate) verify: bool,
    /// What its guest may send, and as much receive.
    pub(crate) limits: Limits,
}

const MAC: OptionInfo = option("mac", "XX:XX:XX:XX:XX:XX", "hardware address");
const QUEUES: OptionInfo =
    option("queues", "1..64", "pairs of queues to offer; workloads use the first");
const QUEUES_TO_8: OptionInfo = OptionInfo { values: "1..8", ..QUEUES };
const OFFLOADS: OptionInfo =
    option("offloads", "on|off", "offer checksums and segmentation, both ways");
const BACKEND: OptionInfo =
    option("backend", "auto|tap", "what the workload needs (else nothing), or a TAP interface");
const IFNAME: OptionInfo = option("ifname", "NAME", "the TAP interface, for backend=tap");
const VERIFY: OptionInfo =
    option("verify", "on|off", "give frames contents, and check them on arrival")
        .only(&[Purpose::Measure]);

/// The options that an adapter takes.
pub(super) fn options(device: Device) -> &'static [OptionInfo] {
    match device {
        Device::VirtioNet => &[MAC, QUEUES, OFFLOADS, BACKEND, IFNAME, VERIFY, FPS, BPS_EACH, ADDR],
        Device::Vmxnet3 => &[MAC, QUEUES_TO_8, BACKEND, IFNAME, VERIFY, FPS, BPS_EACH, ADDR],
        _ => &[MAC, BACKEND, IFNAME, VERIFY, FPS, BPS_EACH, ADDR],
    }
}

/// A hardware address of one station, as it is usually written.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next()?;
        let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = digits.then(|| u8::from_str_radix(part, 16).ok())??;
    }
    // The lowest bit of the first byte is that of groups.
    (parts.next().is_none() && mac[0] & 1 == 0 && mac != [0; 6]).then_some(mac)
}

/// Whether the kernel takes that as an interface's name.
fn is_interface(name: &str) -> bool {
    let characters = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    (1..=15).contains(&name.len()) && name.bytes().all(characters) && name != "." && name != ".."
}

impl NetSpec {
    /// An adapter with nothing said of it.
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            backend: Backend::default(),
            ifname: None,
            mac: None,
            queues: None,
            offloads: true,
            verify: true,
            limits: Limits::default(),
        }
    }

    /// The TAP interface that it is plugged into; `None` for what the workload needs.
    pub(crate) fn tap(&self) -> Option<&str> {
        self.ifname.as_deref()
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        match name {
            "mac" => match mac(value) {
                Some(mac) => self.mac = Some(mac),
                None => {
                    return refuse(format!(
                        "mac={value}: mac is a station's address, like 52:54:00:12:34:56"
                    ));
                }
            },
            "queues" => {
                let most = if self.device == Device::Vmxnet3 { 8 } else { 64 };
                self.queues = Some(queues(value, most)?);
            }
            "offloads" => self.offloads = switch(name, value)?,
            "backend" => {
                let known = [("auto", Backend::Auto), ("tap", Backend::Tap)];
                self.backend = choose(name, value, &known)?;
            }
            "ifname" if is_interface(value) => self.ifname = Some(value.into()),
            "ifname" => {
                return refuse(format!(
                    "ifname={value}: ifname is an interface's name of up to 15 characters"
                ));
            }
            "fps" => self.limits.operations = rate(name, value)?,
            "bps" => self.limits.bytes = rate(name, value)?,
            "verify" => self.verify = switch(name, value)?,
            _ => return refuse(format!("option {name} has no meaning")),
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        match (self.backend, &self.ifname) {
            (Backend::Auto, Some(_)) => refuse("option ifname is for backend=tap"),
            (Backend::Tap, None) => {
                refuse("backend=tap needs ifname=NAME: make one with ip tuntap add")
            }
            _ => Ok(()),
        }
    }
}
