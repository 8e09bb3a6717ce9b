//! Functions of the host's that a guest is given.

use paraslot_protocol::{Class, Device};
use paraslot_vfio::HostAddress;

use super::{ADDR, OptionInfo, Purpose, SpecError, option, refuse, switch};
use crate::error::Usage;

/// The name that stands for all of them.
pub(crate) const HOST: &str = "vfio";

/// The options of all of them.
pub(crate) const OPTIONS: &[OptionInfo] = &[
    option("host", "0000:00:05.0", "the host's function, bound to vfio-pci"),
    option("bind", "on|off", "take it from its driver, and give it back at the end"),
    option("overwrite", "on|off", "a disk: destroy what it holds, for writes and checked reads")
        .only(&[Purpose::Measure]),
    ADDR,
];

/// No function of anybody's, until one is given.
const NOWHERE: HostAddress = HostAddress { domain: u32::MAX, bus: 0, device: 0, function: 0 };

/// A function of the host's, as a command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostSpec {
    address: HostAddress,
    /// Whether it is taken from its host's driver, and given back at the end.
    pub(crate) bind: bool,
    overwrite: bool,
}

impl Default for HostSpec {
    fn default() -> Self {
        Self { address: NOWHERE, bind: false, overwrite: false }
    }
}

impl HostSpec {
    /// Where it is on the host.
    pub(crate) fn address(&self) -> HostAddress {
        self.address
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        match name {
            "host" => match value.parse() {
                Ok(address) => self.address = address,
                Err(error) => return refuse(format!("host={value}: {error}")),
            },
            "bind" => self.bind = switch(name, value)?,
            "overwrite" => self.overwrite = switch(name, value)?,
            _ => return refuse(format!("option {name} has no meaning")),
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.address == NOWHERE {
            return refuse(
                "vfio needs host=0000:00:05.0, a function's address: see paraslot doctor",
            );
        }
        Ok(())
    }
}

/// A function of the host's that a driver of ours drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PassedSpec {
    /// Where it is on the host.
    pub(crate) address: HostAddress,
    /// What it is.
    pub(crate) device: Device,
    /// Whether what it holds, as a disk, may be overwritten.
    pub(crate) overwrite: bool,
}

impl PassedSpec {
    /// The function that `host` names, which is a `device`.
    pub(super) fn new(host: &HostSpec, device: Device) -> anyhow::Result<Self> {
        let HostSpec { address, overwrite, .. } = *host;
        if overwrite && device.class() == Class::Net {
            return Err(Usage::error(format!("overwrite=on is for disks: {address} is {device}")));
        }
        Ok(Self { address, device, overwrite })
    }

    /// What it is, as options of the command line.
    pub(crate) fn label(&self) -> String {
        let Self { address, device, overwrite } = self;
        let more = match (device.class(), overwrite) {
            (Class::Disk, true) => ",overwrite=on",
            (Class::Disk, false) => crate::storage::UNVERIFIED,
            (Class::Net, _) => "",
        };
        format!("host={address}{more}")
    }
}
