//! What is fuzzed: a device, its backend, and its script. Each target is a function of bytes.

use std::sync::Arc;
use std::time::Duration;

use paraslot_ahci::{Ahci, DiskOptions};
use paraslot_backends::block::testing::GatedBackend;
use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_backends::net::MAX_FRAME;
use paraslot_e1000::E1000;
use paraslot_pvscsi::Pvscsi;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmxnet3::Vmxnet3;

use crate::bench::Bench;
use crate::cdbs;
use crate::frames::{HERE, any_frame};
use crate::fuzz::{self, Input};
use crate::port::Port;
use crate::scripts::{
    AhciScript, E1000Script, PAIRS, PvscsiScript, QUEUES, REQUEST_QUEUES, Units, VirtioBlkScript,
    VirtioNetScript, VirtioScsiScript, Vmxnet3Script,
};
use crate::segments;

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
    let mut gate = backend.gate();
    let device = VirtioBlk::new(backend, &Default::default()).expect("options are right");
    let mut bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
    fuzz::run(&mut bench, &mut gate, &mut VirtioBlkScript::default(), data);
}

/// The PCI transport: four queues, and registers more than requests.
pub fn virtio_pci(data: &[u8]) {
    let backend = disk();
    let mut gate = backend.gate();
    let options = paraslot_virtio_blk::Options { queues: 4, ..Default::default() };
    let device = VirtioBlk::new(backend, &options).expect("options are right");
    let mut bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
    fuzz::run(&mut bench, &mut gate, &mut VirtioBlkScript::registers(), data);
}

/// Frames and offloads, without a device.
pub fn frames(data: &[u8]) {
    let mut input = Input::new(data);
    while !input.is_empty() {
        let most = if input.u8() & 31 == 0 { MAX_FRAME } else { 1000 };
        let frame = any_frame(&mut input, most);
        let len = usize::from(input.u8() % 60);
        let key = input.slice(len);
        segments::examine(&frame, key, input.u16().into());
    }
}

/// Commands and task management, without an adapter.
pub fn cdbs(data: &[u8]) {
    cdbs::examine(data);
}

/// virtio-net behind the PCI transport, with two pairs of queues.
pub fn virtio_net(data: &[u8]) {
    let mut input = Input::new(data);
    let mut port = Port::forgetful(PAIRS);
    let mut script = VirtioNetScript::new(port.clone(), input.u32().into());
    let mut bench = Bench::timed(MEMORY, |host, clock| {
        let options = paraslot_virtio_net::Options {
            mac: HERE,
            queue_pairs: PAIRS,
            clock: Arc::new(clock),
            ..Default::default()
        };
        let device = VirtioNet::new(Arc::new(port.clone()), &options).expect("options are right");
        VirtioPci::new(device, host).expect("it fits")
    });
    fuzz::run(&mut bench, &mut port, &mut script, input.rest());
}

/// virtio-scsi behind the PCI transport: two request queues, two disks and a drive.
pub fn virtio_scsi(data: &[u8]) {
    let mut units = Units::new();
    let options =
        paraslot_virtio_scsi::Options { request_queues: REQUEST_QUEUES, ..Default::default() };
    let device = VirtioScsi::new(units.bus(), &options).expect("options are right");
    let mut bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
    fuzz::run(&mut bench, &mut units, &mut VirtioScsiScript::default(), data);
}

/// pvscsi: two disks and a drive.
pub fn pvscsi(data: &[u8]) {
    let mut units = Units::new();
    let bus = units.bus();
    let options = paraslot_pvscsi::Options { patience: Duration::ZERO, ..Default::default() };
    let mut bench =
        Bench::new(MEMORY, |host| Pvscsi::new(bus, options, host).expect("options are right"));
    fuzz::run(&mut bench, &mut units, &mut PvscsiScript::default(), data);
}

/// e1000.
pub fn e1000(data: &[u8]) {
    let mut port = Port::forgetful(1);
    let mut script = E1000Script::new(port.clone());
    let mut bench = Bench::timed(MEMORY, |host, clock| {
        let clock = Arc::new(clock);
        let options = paraslot_e1000::Options { mac: HERE, clock, ..Default::default() };
        E1000::new(Arc::new(port.clone()), options, host).expect("options are right")
    });
    fuzz::run(&mut bench, &mut port, &mut script, data);
}

/// vmxnet3, with two pairs of queues.
pub fn vmxnet3(data: &[u8]) {
    let mut input = Input::new(data);
    let mut port = Port::forgetful(QUEUES);
    let mut script = Vmxnet3Script::new(port.clone(), input.u32());
    let mut bench = Bench::timed(MEMORY, |host, clock| {
        let clock = Arc::new(clock);
        let options =
            paraslot_vmxnet3::Options { mac: HERE, queues: QUEUES, clock, ..Default::default() };
        Vmxnet3::new(Arc::new(port.clone()), options, host).expect("options are right")
    });
    fuzz::run(&mut bench, &mut port, &mut script, input.rest());
}

/// AHCI with one disk.
pub fn ahci(data: &[u8]) {
    let backend = disk();
    let mut gate = backend.gate();
    let options = paraslot_ahci::Options::new([DiskOptions::new(backend)]);
    let mut bench = Bench::new(MEMORY, |host| Ahci::new(options, host).expect("options are right"));
    fuzz::run(&mut bench, &mut gate, &mut AhciScript, data);
}

/// A vfio-user client that sends anything, to a server of virtio-blk.
pub fn vfio_user(data: &[u8]) {
    crate::wire::examine(data);
}
