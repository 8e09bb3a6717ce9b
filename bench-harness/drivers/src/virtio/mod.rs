//! The modern virtio transport over PCI (VIRTIO 1.4, 4.1), the driver's side.

mod queue;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use queue::write_descriptor;
pub use queue::{QueueLayout, SplitQueue, Used};

use paraslot_spec::pci::{self, capability};
use paraslot_spec::virtio::pci::{
    Capability, CommonCfg, MODERN_DEVICE_ID_BASE, NO_VECTOR, NOTIFY_OFF_MULTIPLIER, cfg_type,
};
use paraslot_spec::virtio::{Status, feature};

use crate::error::wait_until;
use crate::pci::{Function, Msix};
use crate::window::Accesses;
use crate::{Error, MsiMessage, Platform, Window};

/// How long a reset may take, in milliseconds.
const RESET_MS: u64 = 5000;

/// What a driver accepts of every device that offers it (6.1): the modern interface, and that the
/// device reaches memory the way that the platform gives it. Every address that a device is told is
/// what [`DmaRegion::physical`](crate::DmaRegion::physical) says a device sees, so there is nothing to
/// translate, and nothing changes for a device that does not offer it.
const EVERYWHERE: u64 = feature::VERSION_1 | feature::ACCESS_PLATFORM;

/// Offset of a field of the common configuration structure.
macro_rules! common {
    ($field:ident) => {
        core::mem::offset_of!(CommonCfg, $field) as u64
    };
}

/// A virtio device's registers, and the way through its initialization (3.1.1).
pub struct Transport<'p, P> {
    function: Function<'p, P>,
    common: Window<'p, P>,
    notify: Window<'p, P>,
    config: Option<Window<'p, P>>,
    multiplier: u32,
    msix: Option<Msix<'p, P>>,
    features: u64,
}

/// Where a queue is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyAddress(u64);

/// The first modern virtio device of this type (its number in clause 5) on bus 0.
pub fn find<P: Platform>(platform: &P, device_type: u16) -> Option<Function<'_, P>> {
    crate::pci::functions(platform).find(|function| {
        function.vendor() == pci::VENDOR_RED_HAT_QUMRANET
            && function.device() == MODERN_DEVICE_ID_BASE + device_type
    })
}

fn structure<'p, P: Platform>(
    function: Function<'p, P>,
    kind: u8,
) -> Result<Option<(Window<'p, P>, u16)>, Error> {
    let vendor = function.capabilities().filter(|(_, id)| *id == capability::VENDOR);
    for (offset, _) in vendor {
        let [_, _, len, cfg_type] = function.read32(offset).to_le_bytes();
        let [bar, ..] = function.read32(offset + 4).to_le_bytes();
        // 4.1.4: what is not known, or of a BAR that is reserved, is skipped.
        if cfg_type != kind || usize::from(len) < size_of::<Capability>() || bar > 5 {
            continue;
        }
        // So is one that this driver cannot use: the same structure may follow in memory (4.1.4.1).
        if function.read32(pci::header::BAR0 + 4 * u16::from(bar)) & pci::bar::IO != 0 {
            continue;
        }
        let start = u64::from(function.read32(offset + 8));
        let length = u64::from(function.read32(offset + 12));
        let bar = function.bar(bar)?;
        if start + length > bar.size {
            return Err(Error::Protocol("a virtio structure outside its BAR"));
        }
        return Ok(Some((Window::new(function.platform(), bar.address + start, length), offset)));
    }
    Ok(None)
}

impl<'p, P: Platform> Transport<'p, P> {
    /// Finds the structures, resets the device and negotiates features, up to FEATURES_OK: those that
    /// the device offers among `accept`, to which VERSION_1 and ACCESS_PLATFORM are added.
    ///
    /// # Errors
    /// When the device lacks a structure, is not modern, or does not accept the features.
    pub fn new(function: Function<'p, P>, accept: u64) -> Result<Self, Error> {
        Self::negotiate(function, |offered| offered & accept)
    }

    /// As [`new`](Self::new), with the features that `choose` takes of those that the device offers.
    ///
    /// # Errors
    /// As there.
    pub fn negotiate(
        function: Function<'p, P>,
        choose: impl FnOnce(u64) -> u64,
    ) -> Result<Self, Error> {
        function.enable()?;
        let (common, _) = structure(function, cfg_type::COMMON)?
            .filter(|(window, _)| window.len() >= common!(queue_notif_config_data))
            .ok_or(Error::Unsupported("the modern virtio interface"))?;
        let (notify, capability) = structure(function, cfg_type::NOTIFY)?
            .ok_or(Error::Unsupported("virtio notifications"))?;
        let multiplier = function.read32(capability + NOTIFY_OFF_MULTIPLIER);
        let config = structure(function, cfg_type::DEVICE)?.map(|(window, _)| window);
        let msix = Msix::new(function)?;
        let mut this = Self { function, common, notify, config, multiplier, msix, features: 0 };
        this.reset()?;
        this.add_status(Status::ACKNOWLEDGE);
        this.add_status(Status::DRIVER);
        let offered = this.offered();
        this.features = offered & (choose(offered) | EVERYWHERE);
        if this.features & feature::VERSION_1 == 0 {
            return Err(this.fail(Error::Unsupported("VIRTIO_F_VERSION_1")));
        }
        for (select, half) in [(0, this.features), (1, this.features >> 32)] {
            let [a, b, c, d, ..] = half.to_le_bytes();
            this.common.write32(common!(driver_feature_select), select);
            this.common.write32(common!(driver_feature), u32::from_le_bytes([a, b, c, d]));
        }
        this.add_status(Status::FEATURES_OK);
        if !this.status().contains(Status::FEATURES_OK) {
            return Err(this.fail(Error::Protocol("it refuses features that it offered")));
        }
        this.common.write16(common!(config_msix_vector), NO_VECTOR);
        Ok(this)
    }

    /// The features that the device offers.
    fn offered(&self) -> u64 {
        let half = |select| {
            self.common.write32(common!(device_feature_select), select);
            u64::from(self.common.read32(common!(device_feature)))
        };
        half(0) | half(1) << 32
    }

    /// The features in use.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Whether all bits of `mask` are in use.
    pub fn has(&self, mask: u64) -> bool {
        self.features & mask == mask
    }

    /// Device status (2.1).
    pub fn status(&self) -> Status {
        Status::from_bits_retain(self.common.read8(common!(device_status)))
    }

    fn add_status(&self, status: Status) {
        let status = self.status() | status;
        self.common.write8(common!(device_status), status.bits());
    }

    /// Tells the device that the driver has given up, for this reason.
    pub fn fail(&self, error: Error) -> Error {
        self.add_status(Status::FAILED);
        error
    }

    /// Resets the device and waits until it has (2.4.2): afterwards it touches no memory.
    ///
    /// # Errors
    /// When it does not finish in time.
    pub fn reset(&self) -> Result<(), Error> {
        self.common.write8(common!(device_status), 0);
        wait_until(self.function.platform(), RESET_MS, "virtio reset", || self.status().is_empty())
    }

    /// Tells the device that it may start.
    pub fn driver_ok(&self) {
        self.add_status(Status::DRIVER_OK);
    }

    /// Queues that the device has.
    pub fn queues(&self) -> u16 {
        self.common.read16(common!(num_queues))
    }

    /// Message-signalled vectors that the device has.
    pub fn vectors(&self) -> u16 {
        self.msix.as_ref().map_or(0, Msix::vectors)
    }

    /// Reads 32 bits of the device's configuration; ones, where there is none.
    pub fn config32(&self, offset: usize) -> u32 {
        self.config.as_ref().map_or(u32::MAX, |config| config.read32(offset as u64))
    }

    /// Writes 32 bits of it; nothing, where there is none.
    pub fn set_config32(&self, offset: usize, value: u32) {
        if let Some(config) = &self.config {
            config.write32(offset as u64, value);
        }
    }

    /// Reads 16 bits.
    pub fn config16(&self, offset: usize) -> u16 {
        self.config.as_ref().map_or(u16::MAX, |config| config.read16(offset as u64))
    }

    /// Reads 8 bits.
    pub fn config8(&self, offset: usize) -> u8 {
        self.config.as_ref().map_or(u8::MAX, |config| config.read8(offset as u64))
    }

    /// Has vector `vector` send `message` when the device's configuration changes.
    ///
    /// # Errors
    /// When there is no such vector, or the device will not have it.
    pub fn set_config_vector(&self, vector: u16, message: MsiMessage) -> Result<(), Error> {
        let msix = self.msix.as_ref().ok_or(Error::Unsupported("MSI-X"))?;
        msix.set(vector, message)?;
        self.common.write16(common!(config_msix_vector), vector);
        match self.common.read16(common!(config_msix_vector)) == vector {
            true => Ok(()),
            false => Err(Error::Protocol("it has no room for its configuration's vector")),
        }
    }

    /// Reads several fields of the device's configuration as they were at one time (2.5.1).
    ///
    /// # Errors
    /// When the configuration changes all the time.
    pub fn consistent<T>(&self, read: impl Fn(&Self) -> T) -> Result<T, Error> {
        for _ in 0..100 {
            let generation = self.common.read8(common!(config_generation));
            let value = read(self);
            if self.common.read8(common!(config_generation)) == generation {
                return Ok(value);
            }
        }
        Err(Error::Protocol("its configuration never settles"))
    }

    fn select(&self, index: u16) {
        self.common.write16(common!(queue_select), index);
    }

    /// The size that queue `index` is to have: what the device offers, but at most `limit`.
    ///
    /// # Errors
    /// When there is no such queue.
    pub fn queue_size(&self, index: u16, limit: u16) -> Result<u16, Error> {
        self.select(index);
        match self.common.read16(common!(queue_size)) {
            0 => Err(Error::Unsupported("so many virtqueues")),
            size if size.is_power_of_two() => Ok(size.min(limit)),
            _ => Err(Error::Protocol("a virtqueue's size is no power of two")),
        }
    }

    /// Hands queue `index` to the device (4.1.5.1.3). With a message, vector `vector` sends it for
    /// this queue.
    ///
    /// # Errors
    /// When the device will not have the vector.
    pub fn enable_queue(
        &self,
        index: u16,
        layout: &QueueLayout,
        interrupt: Option<(u16, MsiMessage)>,
    ) -> Result<NotifyAddress, Error> {
        let vector = match (&self.msix, interrupt) {
            (Some(msix), Some((vector, message))) => {
                msix.set(vector, message)?;
                vector
            }
            _ => NO_VECTOR,
        };
        self.select(index);
        self.common.write16(common!(queue_size), layout.size);
        self.common.write16(common!(queue_msix_vector), vector);
        if self.common.read16(common!(queue_msix_vector)) != vector {
            return Err(Error::Protocol("it has no room for a queue's vector"));
        }
        for (offset, address) in [
            (common!(queue_desc), layout.descriptors),
            (common!(queue_driver), layout.avail),
            (common!(queue_device), layout.used),
        ] {
            let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
            self.common.write32(offset, u32::from_le_bytes([a, b, c, d]));
            self.common.write32(offset + 4, u32::from_le_bytes([e, f, g, h]));
        }
        let place = u64::from(self.common.read16(common!(queue_notify_off)));
        let address = place * u64::from(self.multiplier);
        if address + 2 > self.notify.len() {
            return Err(Error::Protocol("a queue's notification address is outside"));
        }
        self.common.write16(common!(queue_enable), 1);
        Ok(NotifyAddress(address))
    }

    /// Resets queue `index` alone (2.6.1): afterwards the device has forgotten its buffers, and the
    /// queue can be enabled anew.
    ///
    /// # Errors
    /// When RING_RESET is not in use, or the device does not finish in time.
    pub fn reset_queue(&self, index: u16) -> Result<(), Error> {
        if !self.has(feature::RING_RESET) {
            return Err(Error::Unsupported("VIRTIO_F_RING_RESET"));
        }
        self.select(index);
        self.common.write16(common!(queue_reset), 1);
        wait_until(self.function.platform(), RESET_MS, "virtqueue reset", || {
            self.common.read16(common!(queue_reset)) == 0
        })?;
        match self.common.read16(common!(queue_enable)) {
            0 => Ok(()),
            _ => Err(Error::Protocol("a queue is enabled after its reset")),
        }
    }

    /// Notifies queue `index` (4.1.5.2).
    pub fn notify(&self, address: NotifyAddress, index: u16) {
        self.notify.write16(address.0, index);
        self.notify.count_doorbell();
    }

    /// Register accesses so far.
    pub fn accesses(&self) -> Accesses {
        let config = self.config.as_ref().map(Window::accesses).unwrap_or_default();
        self.common.accesses().plus(self.notify.accesses()).plus(config)
    }

    /// The machine.
    pub fn platform(&self) -> &'p P {
        self.function.platform()
    }
}
