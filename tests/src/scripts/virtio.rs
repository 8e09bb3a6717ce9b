//! What a driver of any virtio device does to the PCI transport.

use std::mem::offset_of;

use paraslot_spec::pci::{capability, header};
use paraslot_spec::virtio::Status;
use paraslot_spec::virtio::pci::{Capability, CommonCfg, cfg_type};
use zerocopy::FromBytes;

use crate::bench::Bench;
use crate::fuzz::Input;

/// Where the transport's structures are.
#[derive(Default)]
pub(super) struct Transport {
    structures: Vec<Capability>,
    /// Bytes between the doorbells of two queues.
    multiplier: u64,
}

impl Transport {
    /// Reads the capabilities.
    pub(super) fn find(bench: &mut Bench) -> Self {
        let mut this = Self::default();
        let mut at = [0];
        bench.device.config_read(header::CAPABILITIES, &mut at);
        for _ in 0..48 {
            if at[0] == 0 {
                break;
            }
            let mut bytes = [0; 16];
            bench.device.config_read(u16::from(at[0]), &mut bytes);
            if bytes[0] == capability::VENDOR {
                let structure = Capability::read_from_bytes(&bytes).expect("16 bytes");
                if structure.cfg_type == cfg_type::NOTIFY {
                    let mut multiplier = [0; 4];
                    bench.device.config_read(u16::from(at[0]) + 16, &mut multiplier);
                    this.multiplier = u32::from_le_bytes(multiplier).into();
                }
                this.structures.push(structure);
            }
            at = [bytes[1]];
        }
        this
    }

    pub(super) fn place(&self, kind: u8) -> (u8, u64) {
        let found = self.structures.iter().find(|structure| structure.cfg_type == kind);
        let found = found.expect("the transport has all structures");
        (found.bar, u64::from(found.offset.get()))
    }

    fn set(&self, bench: &mut Bench, field: usize, data: &[u8]) {
        let (bar, offset) = self.place(cfg_type::COMMON);
        bench.device.bar_write(bar, offset + field as u64, data);
    }

    fn set_status(&self, bench: &mut Bench, status: Status) {
        self.set(bench, offset_of!(CommonCfg, device_status), &[status.bits()]);
    }

    /// Resets the device and agrees on the features that `choose` makes of those offered, up to
    /// FEATURES_OK.
    pub(super) fn begin(&self, bench: &mut Bench, choose: impl FnOnce(u64) -> u64) -> u64 {
        bench.enable();
        self.set_status(bench, Status::empty());
        bench.executor.run(100);
        self.set_status(bench, Status::ACKNOWLEDGE | Status::DRIVER);
        let (bar, offset) = self.place(cfg_type::COMMON);
        let mut offered = 0;
        for window in 0..2u32 {
            self.set(bench, offset_of!(CommonCfg, device_feature_select), &window.to_le_bytes());
            let bits = bench.read32(bar, offset + offset_of!(CommonCfg, device_feature) as u64);
            offered |= u64::from(bits) << (32 * window);
        }
        let chosen = choose(offered);
        for (window, bits) in chosen.to_le_bytes().chunks(4).enumerate() {
            let window = u32::try_from(window).expect("two");
            self.set(bench, offset_of!(CommonCfg, driver_feature_select), &window.to_le_bytes());
            self.set(bench, offset_of!(CommonCfg, driver_feature), bits);
        }
        self.set_status(bench, Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK);
        chosen
    }

    /// Sets up a queue: its descriptors, available and used ring.
    pub(super) fn queue(&self, bench: &mut Bench, index: u16, size: u16, rings: [u64; 3]) {
        self.set(bench, offset_of!(CommonCfg, queue_select), &index.to_le_bytes());
        self.set(bench, offset_of!(CommonCfg, queue_size), &size.to_le_bytes());
        for (field, address) in [
            offset_of!(CommonCfg, queue_desc),
            offset_of!(CommonCfg, queue_driver),
            offset_of!(CommonCfg, queue_device),
        ]
        .into_iter()
        .zip(rings)
        {
            self.set(bench, field, &address.to_le_bytes());
        }
        self.set(bench, offset_of!(CommonCfg, queue_enable), &[1, 0]);
    }

    /// Sets DRIVER_OK.
    pub(super) fn start(&self, bench: &mut Bench) {
        let now = Status::ACKNOWLEDGE | Status::DRIVER | Status::FEATURES_OK | Status::DRIVER_OK;
        self.set_status(bench, now);
    }

    /// Rings a queue's doorbell.
    pub(super) fn notify(&self, bench: &mut Bench, queue: u16) {
        let (bar, offset) = self.place(cfg_type::NOTIFY);
        let doorbell = offset + u64::from(queue) * self.multiplier;
        bench.device.bar_write(bar, doorbell, &queue.to_le_bytes());
    }

    /// Some register of some structure.
    pub(super) fn register(&self, input: &mut Input<'_>) -> (u8, u64) {
        let Some(structure) = self.structures.get(usize::from(input.u8()) % 6) else {
            return (0, u64::from(input.u8()));
        };
        (structure.bar, u64::from(structure.offset.get()) + u64::from(input.u8() % 64))
    }
}
