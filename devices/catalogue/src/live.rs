//! What a device says of itself, asked of a live one.

mod asked;

use std::sync::Arc;

use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_backends::net::{Wire, WireOptions};
use paraslot_device::interrupt::NoInterrupts;
use paraslot_device::{DeviceError, Host, ManualExecutor};
use paraslot_pci::{BarKind, PciDevice, Picture};
use serde::Serialize;
use vm_memory::{GuestAddress, GuestMemoryMmap};

pub use asked::{is_there, negotiate, read, reported, virtio_features, write};

/// What a guest finds before it has done anything.
#[derive(Clone, Debug, Serialize)]
pub struct Live {
    /// Its configuration space, read.
    pub picture: Picture,
    /// Its names in the PCI ID list.
    pub names: Names,
    /// Its BARs.
    pub bars: Vec<Bar>,
    /// MSI-X vectors.
    pub msix_vectors: u16,
    /// MSI vectors.
    pub msi_vectors: u16,
    /// Whether it has an INTx pin.
    pub intx: bool,
    /// Registers whose writes a host can take as eventfds.
    pub doorbells: usize,
    /// Bytes of registers that a host can have read without an exit.
    pub readable: usize,
}

/// Names in the PCI ID list; empty where it has none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Names {
    /// Of the vendor.
    pub vendor: &'static str,
    /// Of the device.
    pub device: &'static str,
    /// Of the class.
    pub class: &'static str,
}

impl Names {
    /// Those of a function.
    pub fn of(picture: &Picture) -> Self {
        use pci_ids::FromId;
        let vendor = pci_ids::Vendor::from_id(picture.vendor);
        let device = pci_ids::Device::from_vid_pid(picture.vendor, picture.device);
        let [base, sub, _] = picture.class;
        let class = pci_ids::Subclass::from_cid_sid(base, sub);
        Self {
            vendor: vendor.map_or("", pci_ids::Vendor::name),
            device: device.map_or("", pci_ids::Device::name),
            class: class.map_or("", pci_ids::Subclass::name),
        }
    }
}

/// A BAR.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bar {
    /// Its number; 6 is the expansion ROM.
    pub index: usize,
    /// What it decodes.
    pub kind: &'static str,
    /// Bytes.
    pub size: u64,
    /// Whether it is prefetchable.
    pub prefetchable: bool,
}

impl Live {
    /// Asks a function.
    pub fn of(function: &mut dyn PciDevice) -> Self {
        let mut config = vec![0; 4096];
        for (at, chunk) in (0..).step_by(4).zip(config.chunks_mut(4)) {
            function.config_read(at, chunk);
        }
        let picture = Picture::of(&config);
        let layout = function.layout();
        let bars = layout.bars.iter().enumerate().filter_map(|(index, bar)| {
            let bar = (*bar)?;
            let kind = match bar.kind {
                BarKind::Io => "I/O ports",
                BarKind::Memory32 => "memory, 32-bit",
                BarKind::Memory64 => "memory, 64-bit",
                BarKind::Rom => "expansion ROM",
            };
            Some(Bar { index, kind, size: bar.size, prefetchable: bar.prefetchable })
        });
        Self {
            names: Names::of(&picture),
            bars: bars.collect(),
            msix_vectors: layout.msix_vectors,
            msi_vectors: layout.msi_vectors,
            intx: layout.intx,
            doorbells: layout.doorbells.len(),
            readable: layout.windows.iter().map(|window| window.page.len()).sum(),
            picture,
        }
    }
}

/// The address that adapters here have.
pub(crate) const ADDRESS: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// A host that does nothing by itself: nobody runs its workers, and nobody hears its interrupts.
pub(crate) fn host() -> Result<Host<Arc<GuestMemoryMmap>>, DeviceError> {
    const MEMORY: usize = 1 << 16;
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)])
        .map_err(|error| DeviceError::Config(error.to_string()))?;
    Ok(Host {
        memory: Arc::new(memory),
        msi: Arc::new(NoInterrupts),
        intx: Arc::new(NoInterrupts),
        executor: Arc::new(ManualExecutor::new()),
    })
}

/// An image that can do all that images can.
pub(crate) fn image() -> Result<Arc<MemoryBackend>, DeviceError> {
    const SIZE: u64 = 1 << 20;
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    let image = MemoryBackend::new(SIZE, options);
    Ok(Arc::new(image.map_err(|error| DeviceError::Config(error.to_string()))?))
}

/// A network of several queues.
pub(crate) fn network(queues: u16) -> Result<Arc<paraslot_backends::net::WirePort>, DeviceError> {
    let wire = Wire::new(WireOptions { queues, ..WireOptions::default() });
    let (port, _) = wire.map_err(|error| DeviceError::Config(error.to_string()))?;
    Ok(Arc::new(port))
}
