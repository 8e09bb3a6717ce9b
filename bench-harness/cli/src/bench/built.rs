//! A device for one run, over what is behind it.

use std::sync::Arc;

use anyhow::bail;
use paraslot_backends::net::NetStatistics;
use paraslot_device::{DmaSpace, Host};
use paraslot_pci::SharedDevice;

use super::{Sample, Setting};
use paraslot_vfio::Faults;

use crate::counted::{Counted, Counts};
use crate::devices::{self, Statistics};
use crate::network::{self, Arrivals, Opened};
use crate::plan::Cell;
use crate::spec::{DeviceSpec, NetSpec};

/// A device that nobody has plugged in yet.
pub(super) struct Built {
    /// The device.
    pub(super) function: SharedDevice,
    /// What is seen of its work from here.
    pub(super) watch: Watch,
    /// What is behind it, as options of the command line.
    pub(super) label: String,
}

/// What is seen of a device's work from the outside.
pub(super) enum Watch {
    Disk(Counts),
    Net {
        statistics: Statistics,
        arrivals: Arrivals,
    },
    /// What the kernel refused it: it is the host's hardware.
    Hardware(Faults),
}

impl Watch {
    /// Bytes that its side has copied, where that is known.
    pub(super) fn copied(&self) -> Option<u64> {
        match self {
            Self::Disk(counts) => Some(counts.copied()),
            Self::Net { statistics, .. } => Some(statistics().copied_bytes),
            Self::Hardware(_) => None,
        }
    }

    /// What has become of its frames.
    pub(super) fn network(&self) -> NetStatistics {
        match self {
            Self::Disk(_) | Self::Hardware(_) => NetStatistics::default(),
            Self::Net { statistics, .. } => statistics(),
        }
    }

    /// Whether what the guest says of its run can be true.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn confirm(&self, sample: &Sample) -> anyhow::Result<()> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::Net { arrivals, .. } => match arrivals.frames()? {
                Some(arrived) if arrived < sample.operations => bail!(
                    "the guest was told that {} frames were sent, and {arrived} were",
                    sample.operations
                ),
                Some(_) | None => Ok(()),
            },
            Self::Hardware(faults) => faults.take().map_or(Ok(()), |error| Err(error.into())),
        }
    }
}

impl Setting<'_> {
    /// Makes the device of a cell, over what is behind it.
    pub(super) fn build<A: DmaSpace>(&self, cell: &Cell, host: Host<A>) -> anyhow::Result<Built> {
        match (&self.devices[cell.device], cell.net()) {
            (DeviceSpec::Disk(spec), _) => {
                let opened = self.storage.open(spec, cell)?;
                let (backend, copied) = Counted::new(opened.backend);
                let function = devices::disk::<devices::Shared, _>(spec, Arc::new(backend), host)?;
                Ok(Built { function, watch: Watch::Disk(copied), label: opened.label })
            }
            (DeviceSpec::Net(spec), Some(workload)) => {
                adapter(spec, network::address(spec), network::open(spec, workload)?, host)
            }
            (DeviceSpec::Passed(_), _) => bail!("{} needs a virtual machine", cell.name),
            (DeviceSpec::Net(_), None) => bail!("{} is not for a network", cell.name),
        }
    }
}

/// Makes an adapter with the address `mac` over what was opened for it.
pub(super) fn adapter<A: DmaSpace>(
    spec: &NetSpec,
    mac: [u8; 6],
    opened: Opened,
    host: Host<A>,
) -> anyhow::Result<Built> {
    let Opened { backend, label, arrivals } = opened;
    let (function, statistics) = devices::adapter::<devices::Shared, _>(spec, backend, mac, host)?;
    Ok(Built { function, watch: Watch::Net { statistics, arrivals }, label })
}
