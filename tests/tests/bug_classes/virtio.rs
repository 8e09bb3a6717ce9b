//! A driver of any virtio device behind the PCI transport, on the bench.

use std::mem::offset_of;
use std::sync::Arc;

use paraslot_spec::pci::{capability, express, header};
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::pci::{Capability, CommonCfg, cfg_type};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::DriverRing;
use vm_memory::GuestMemoryMmap;
use zerocopy::FromBytes;

pub(crate) type Space = Arc<GuestMemoryMmap>;

/// A function whose structures were found.
pub(crate) struct Virtio {
    pub(crate) bench: Bench,
    structures: Vec<Capability>,
    capabilities: Vec<(u8, u16)>,
    /// Bytes between the doorbells of two queues.
    multiplier: u64,
}

impl Virtio {
    pub(crate) fn new(bench: Bench) -> Self {
        let mut this = Self { bench, structures: vec![], capabilities: vec![], multiplier: 0 };
        this.discover();
        this
    }

    fn discover(&mut self) {
        let mut at = [0];
        self.bench.device.config_read(header::CAPABILITIES, &mut at);
        while at[0] != 0 {
            let mut bytes = [0; 16];
            self.bench.device.config_read(at[0].into(), &mut bytes);
            self.capabilities.push((bytes[0], at[0].into()));
            if bytes[0] == capability::VENDOR {
                let structure = Capability::read_from_bytes(&bytes).expect("16 bytes");
                if structure.cfg_type == cfg_type::NOTIFY {
                    let mut multiplier = [0; 4];
                    self.bench.device.config_read(u16::from(at[0]) + 16, &mut multiplier);
                    self.multiplier = u32::from_le_bytes(multiplier).into();
                }
                self.structures.push(structure);
            }
            at = [bytes[1]];
        }
    }

    /// Where a structure is.
    pub(crate) fn place_of(&self, kind: u8) -> (u8, u64) {
        let found = self.structures.iter().find(|structure| structure.cfg_type == kind);
        found.map(|found| (found.bar, u64::from(found.offset.get()))).expect("it is there")
    }

    pub(crate) fn set_common(&mut self, field: usize, data: &[u8]) {
        let (bar, offset) = self.place_of(cfg_type::COMMON);
        self.bench.device.bar_write(bar, offset + field as u64, data);
    }

    pub(crate) fn common(&mut self, field: usize) -> u16 {
        let (bar, offset) = self.place_of(cfg_type::COMMON);
        let mut data = [0; 2];
        self.bench.device.bar_read(bar, offset + field as u64, &mut data);
        u16::from_le_bytes(data)
    }

    pub(crate) fn status(&mut self) -> Status {
        let [status, _] = self.common(offset_of!(CommonCfg, device_status)).to_le_bytes();
        Status::from_bits_retain(status)
    }

    pub(crate) fn set_status(&mut self, status: u8) {
        self.set_common(offset_of!(CommonCfg, device_status), &[status]);
    }

    /// Resets the device, with nothing in flight.
    pub(crate) fn reset(&mut self) {
        self.set_status(0);
        assert!(self.bench.executor.run(10) && self.status().is_empty());
    }

    /// An empty ring of `size` entries at `base`.
    pub(crate) fn ring(&self, base: u64, size: u16) -> DriverRing<Space> {
        DriverRing::new(Arc::new(self.bench.memory.inner().clone()), base, size)
    }

    /// Negotiates what `choose` makes of the features offered; returns that. FEATURES_OK is set, or
    /// would be if the device agreed.
    pub(crate) fn agree(&mut self, choose: impl FnOnce(u64) -> u64) -> u64 {
        let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
        self.set_status(status.bits());
        let (bar, common) = self.place_of(cfg_type::COMMON);
        let mut offered = 0;
        for window in 0..2u32 {
            self.set_common(offset_of!(CommonCfg, device_feature_select), &window.to_le_bytes());
            let at = common + offset_of!(CommonCfg, device_feature) as u64;
            offered |= u64::from(self.bench.read32(bar, at)) << (32 * window);
        }
        let chosen = choose(offered);
        for (window, bits) in (0u32..).zip(chosen.to_le_bytes().chunks(4)) {
            self.set_common(offset_of!(CommonCfg, driver_feature_select), &window.to_le_bytes());
            self.set_common(offset_of!(CommonCfg, driver_feature), bits);
        }
        status |= Status::FEATURES_OK;
        self.set_status(status.bits());
        chosen
    }

    /// Sets up a queue: its descriptors, available and used ring.
    pub(crate) fn enable_queue(&mut self, index: u16, size: u16, rings: [u64; 3]) {
        self.set_common(offset_of!(CommonCfg, queue_select), &index.to_le_bytes());
        self.set_common(offset_of!(CommonCfg, queue_size), &size.to_le_bytes());
        for (field, address) in [
            offset_of!(CommonCfg, queue_desc),
            offset_of!(CommonCfg, queue_driver),
            offset_of!(CommonCfg, queue_device),
        ]
        .into_iter()
        .zip(rings)
        {
            self.set_common(field, &address.to_le_bytes());
        }
        self.set_common(offset_of!(CommonCfg, queue_enable), &[1, 0]);
    }

    /// Asks for the reset of a queue.
    pub(crate) fn reset_queue(&mut self, index: u16) {
        self.set_common(offset_of!(CommonCfg, queue_select), &index.to_le_bytes());
        self.set_common(offset_of!(CommonCfg, queue_reset), &[1, 0]);
    }

    /// Whether the queue that was last selected has acknowledged its reset.
    pub(crate) fn queue_is_reset(&mut self) -> bool {
        self.common(offset_of!(CommonCfg, queue_reset)) == 0
    }

    /// Starts a function level reset.
    pub(crate) fn function_level_reset(&mut self) {
        let found = self.capabilities.iter().find(|(id, _)| *id == capability::PCI_EXPRESS);
        let (_, at) = found.expect("it is there");
        let control = express::INITIATE_FLR.to_le_bytes();
        self.bench.device.config_write(at + express::DEVICE_CONTROL, &control);
    }

    pub(crate) fn notify(&mut self, queue: u16) {
        let (bar, offset) = self.place_of(cfg_type::NOTIFY);
        let doorbell = offset + u64::from(queue) * self.multiplier;
        self.bench.device.bar_write(bar, doorbell, &queue.to_le_bytes());
    }
}
