//! A device for one run, over what is behind it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use paraslot_backends::block::{BlockBackend, LimitedBackend};
use paraslot_backends::net::{LimitedNet, NetBackend, NetStatistics};
use paraslot_device::{DmaSpace, Host};
use paraslot_pci::PciDevice;

use super::remote::Served;
use super::{Sample, Setting};
use paraslot_vfio::Faults;

use crate::counted::{Counted, Counts};
use crate::devices::{self, Statistics};
use crate::network::{self, Arrivals};
use crate::order::Seen;
use crate::plan::Cell;
use crate::spec::{DeviceSpec, DiskSpec, Limits, NetSpec};
use crate::storage;

/// A device that nobody has plugged in yet.
pub(crate) struct Built {
    /// The device.
    pub(crate) function: Box<dyn PciDevice>,
    /// What is seen of its work from here.
    pub(crate) watch: Watch,
    /// What is behind it, as options of the command line.
    pub(crate) label: String,
}

/// What is seen of a device's work from the outside.
pub(crate) enum Watch {
    Disk(Counts),
    Net {
        statistics: Statistics,
        arrivals: Arrivals,
    },
    /// What the kernel refused it: it is the host's hardware.
    Hardware(Faults),
    /// What the process tells that has it.
    Served(Served),
}

impl Watch {
    /// What there is to be seen now.
    pub(crate) fn look(&self) -> Seen {
        let (network, elsewhere) = (NetStatistics::default(), Some(Duration::ZERO));
        match self {
            Self::Disk(counts) => Seen { elsewhere, copied: Some(counts.copied()), network },
            Self::Net { statistics, .. } => {
                let network = statistics();
                Seen { elsewhere, copied: Some(network.copied_bytes), network }
            }
            Self::Hardware(_) => Seen { elsewhere, copied: None, network },
            Self::Served(served) => served.look(),
        }
    }

    /// How many frames of the guest's have arrived; `None` if that cannot be known.
    ///
    /// # Errors
    /// When one was not as it should be.
    pub(crate) fn arrived(&self) -> anyhow::Result<Option<u64>> {
        match self {
            Self::Disk(_) | Self::Hardware(_) => Ok(None),
            Self::Net { arrivals, .. } => arrivals.frames(),
            Self::Served(served) => served.arrived(),
        }
    }

    /// Whether what the guest says of its run can be true.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn confirm(&self, sample: &Sample) -> anyhow::Result<()> {
        if let Self::Hardware(faults) = self {
            return faults.take().map_or(Ok(()), |error| Err(error.into()));
        }
        match self.arrived()? {
            Some(arrived) if arrived < sample.operations => bail!(
                "the guest was told that {} frames were sent, and {arrived} were",
                sample.operations
            ),
            Some(_) | None => Ok(()),
        }
    }
}

impl Setting<'_> {
    /// Makes the device of a cell, over what is behind it.
    pub(super) fn build<A: DmaSpace>(&self, cell: &Cell, host: Host<A>) -> anyhow::Result<Built> {
        match (&self.devices[cell.device], cell.net()) {
            (DeviceSpec::Disk(spec), _) => disk(spec, self.storage.open(spec, cell)?, host),
            (DeviceSpec::Net(spec), Some(workload)) => {
                adapter(spec, network::open(spec, workload)?, host)
            }
            (DeviceSpec::Passed(_), _) => bail!("{} needs a virtual machine", cell.name),
            (DeviceSpec::Net(_), None) => bail!("{} is not for a network", cell.name),
        }
    }
}

/// Makes a disk over what was opened for it.
pub(crate) fn disk<A: DmaSpace>(
    spec: &DiskSpec,
    opened: storage::Opened,
    host: Host<A>,
) -> anyhow::Result<Built> {
    let storage::Opened { backend, label } = opened;
    let label = label + &spec.limits.label("iops");
    let (backend, counts) = Counted::new(limited_disk(backend, spec.limits));
    let (function, _) = devices::disk(spec, Arc::new(backend), host)?;
    Ok(Built { function, watch: Watch::Disk(counts), label })
}

/// Makes an adapter over what was opened for it.
pub(crate) fn adapter<A: DmaSpace>(
    spec: &NetSpec,
    opened: network::Opened,
    host: Host<A>,
) -> anyhow::Result<Built> {
    let network::Opened { backend, label, arrivals } = opened;
    let mac = network::address(spec);
    let label = label + &spec.limits.label("fps");
    let backend = limited_port(backend, spec.limits);
    let (function, cable) = devices::adapter(spec, backend, mac, host)?;
    let statistics = cable.statistics;
    Ok(Built { function, watch: Watch::Net { statistics, arrivals }, label })
}

/// Who is not limited does not pay for it.
fn limited_disk(backend: Arc<dyn BlockBackend>, limits: Limits) -> Arc<dyn BlockBackend> {
    if limits.any() { Arc::new(LimitedBackend::new(backend, limits.limiter())) } else { backend }
}

fn limited_port(backend: Arc<dyn NetBackend>, limits: Limits) -> Arc<dyn NetBackend> {
    if !limits.any() {
        return backend;
    }
    Arc::new(LimitedNet::new(backend, limits.limiter(), limits.limiter()))
}
