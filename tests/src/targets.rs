//! What is fuzzed: a device, its backend, and its script. Each target is a function of bytes.

use std::sync::Arc;

use paraslot_ahci::{Ahci, DiskOptions};
use paraslot_backends::block::testing::GatedBackend;
use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_pci::VirtioPci;

use crate::bench::Bench;
use crate::fuzz;
use crate::scripts::{AhciScript, VirtioBlkScript};

/// Guest memory, and the disk.
const MEMORY: usize = 256 << 10;
const DISK: u64 = 1 << 20;

fn disk() -> Arc<GatedBackend<MemoryBackend>> {
    let options = MemoryOptions::default();
    Arc::new(GatedBackend::new(MemoryBackend::new(DISK, options).expect("memory")))
}

/// virtio-blk behind the PCI transport, one queue.
pub fn virtio_blk(data: &[u8]) {
    let backend = disk();
    let gate = backend.gate();
    let device = VirtioBlk::new(backend, &Default::default()).expect("options are right");
    let mut bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
    fuzz::run(&mut bench, &gate, &mut VirtioBlkScript::default(), data);
}

/// The PCI transport: four queues, and registers more than requests.
pub fn virtio_pci(data: &[u8]) {
    let backend = disk();
    let gate = backend.gate();
    let options = paraslot_virtio_blk::Options { queues: 4, ..Default::default() };
    let device = VirtioBlk::new(backend, &options).expect("options are right");
    let mut bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
    fuzz::run(&mut bench, &gate, &mut VirtioBlkScript::registers(), data);
}

/// AHCI with one disk.
pub fn ahci(data: &[u8]) {
    let backend = disk();
    let gate = backend.gate();
    let options = paraslot_ahci::Options::new([DiskOptions::new(backend)]);
    let mut bench = Bench::new(MEMORY, |host| Ahci::new(options, host).expect("options are right"));
    fuzz::run(&mut bench, &gate, &mut AhciScript, data);
}
