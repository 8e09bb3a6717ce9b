//! The network adapters, on TAP interfaces of the host's network stack, which is the other end.
//!
//! Each byte is compared, of streams and of datagrams. A guest inside an emulated machine receives some
//! 10 MB in a second with the e1000, which gets each packet by itself, and sends as much; most of the
//! gigabyte is in jumbo frames, of which it receives 20. With virtio-net and vmxnet3, which leave
//! segmentation to the host in both directions, it receives 30.

pub(crate) mod adapter;
mod far_end;
mod program;

use paraslot_backends::net::testing::namespace::in_namespace;
use paraslot_vmm::{LinuxEnd, LinuxHandle};

use crate::complaints::Allowed;
use crate::guest::{Boot, Machine, Shape};
use crate::world::{self, World};
use adapter::plug_tools;
pub(crate) use adapter::{Adapter, Kind};

/// What scripts about networks start with.
pub(crate) const NET: &str = include_str!("networks/scripts/net.sh");
const BIND: &str = include_str!("networks/scripts/bind.sh");
const TRAFFIC: &str = include_str!("networks/scripts/traffic.sh");
const STATISTICS: &str = include_str!("networks/scripts/statistics.sh");
const LINK: &str = include_str!("networks/scripts/link.sh");
const FILTERS: &str = include_str!("networks/scripts/filters.sh");
const SETTINGS: &str = include_str!("networks/scripts/settings.sh");
const CHANGES: &str = include_str!("networks/scripts/changes.sh");
const QUEUES: &str = include_str!("networks/scripts/queues.sh");
const INTX: &str = include_str!("networks/scripts/intx.sh");

/// Bytes of the long streams, together.
const STREAM: u64 = 1 << 30;

/// The adapter's slot; every fourth has the same pin.
const SLOT: u8 = 4;
const SECOND_SLOT: u8 = 8;

/// Messages that the scripts provoke.
const PROVOKED: &[Allowed] = &[
    Allowed {
        text: "eth0: Reset adapter",
        reason: "the e1000's driver does that when the cable is pulled while packets wait to be sent",
    },
    Allowed { text: "Failed to enable MSI-X, error", reason: "the kernel was told not to use it" },
];

/// A machine with an adapter of this kind, and the tools.
fn machine(world: &World, kind: Kind, cpus: u8, queues: u16) -> (Machine<'_>, Adapter) {
    let mut machine = Machine::new(world, &Shape { cpus, ..Shape::default() });
    plug_tools(&mut machine);
    let adapter = Adapter::plug(&mut machine, kind, SLOT, 1, queues);
    (machine, adapter)
}

/// Boots, and runs scripts about an adapter.
fn boot(machine: &mut Machine<'_>, adapter: &mut Adapter, scripts: &[&str], end: LinuxEnd) {
    let variables = adapter.variables(adapter.kind.vectors());
    let mut all = vec![variables.as_str(), NET, BIND];
    all.extend(scripts);
    let mut on_mark = |word: &str, _: &LinuxHandle| adapter.answer(word);
    machine.boot(Boot {
        scripts: &all,
        append: "",
        bzimage: false,
        end,
        allowed: PROVOKED,
        on_mark: &mut on_mark,
    });
}

/// All kinds of data; and after a reset of the machine again, without message signalled interrupts, with
/// a second adapter at the same pin.
fn data(world: &World, kind: Kind) {
    let (mut machine, mut adapter) = machine(world, kind, 1, 1);
    let bytes = format!("bytes={STREAM}\n");
    let scripts = [&bytes, TRAFFIC, STATISTICS, LINK];
    boot(&mut machine, &mut adapter, &scripts, LinuxEnd::Reset);
    adapter.check();

    let mut second = Adapter::plug(&mut machine, kind.other(), SECOND_SLOT, 2, 1);
    machine.reset();
    let (driver, mac) = (second.kind.driver(), second.mac());
    let variables = [
        adapter.variables("intx"),
        format!(
            "second={SECOND_SLOT:02x} second_driver={driver} second_module={driver} \
             second_mac={mac} second_number={}\n",
            second.number
        ),
    ]
    .concat();
    // Both have the same host behind them, whichever is asked.
    let mut on_mark = |word: &str, _: &LinuxHandle| adapter.answer(word);
    second.far.answer("ip link set DEV mtu 1500");
    machine.boot(Boot {
        scripts: &[&variables, NET, BIND, INTX],
        append: "pci=nomsi",
        bzimage: false,
        end: LinuxEnd::PowerOff,
        allowed: PROVOKED,
        on_mark: &mut on_mark,
    });
    adapter.check();
    second.check();
}

/// The driver's comings and goings, on several processors; everything that can be set, after a reset of the
/// machine; and after another, that all is as before.
fn changes(world: &World, kind: Kind) {
    let (mut machine, mut adapter) = machine(world, kind, 2, 1);
    boot(&mut machine, &mut adapter, &[CHANGES], LinuxEnd::Reset);
    machine.reset();
    boot(&mut machine, &mut adapter, &[SETTINGS, FILTERS], LinuxEnd::Reset);
    machine.reset();
    boot(&mut machine, &mut adapter, &["works\n"], LinuxEnd::PowerOff);
}

/// Several pairs of queues, on several processors.
fn queues(world: &World, kind: Kind) {
    let (mut machine, mut adapter) = machine(world, kind, 2, 2);
    boot(&mut machine, &mut adapter, &[QUEUES], LinuxEnd::PowerOff);
    adapter.check();
}

#[test]
fn virtio_net_data() {
    world::run(virtio_net_data, |world| {
        in_namespace(|_| data(world, Kind::VirtioNet));
    });
}

#[test]
fn virtio_net_changes() {
    world::run(virtio_net_changes, |world| in_namespace(|_| changes(world, Kind::VirtioNet)));
}

#[test]
fn virtio_net_queues() {
    world::run(virtio_net_queues, |world| in_namespace(|_| queues(world, Kind::VirtioNet)));
}

#[test]
fn vmxnet3_data() {
    world::run(vmxnet3_data, |world| in_namespace(|_| data(world, Kind::Vmxnet3)));
}

#[test]
fn vmxnet3_changes() {
    world::run(vmxnet3_changes, |world| in_namespace(|_| changes(world, Kind::Vmxnet3)));
}

#[test]
fn vmxnet3_queues() {
    world::run(vmxnet3_queues, |world| in_namespace(|_| queues(world, Kind::Vmxnet3)));
}

#[test]
fn e1000_data() {
    world::run(e1000_data, |world| in_namespace(|_| data(world, Kind::E1000)));
}

#[test]
fn e1000_changes() {
    world::run(e1000_changes, |world| in_namespace(|_| changes(world, Kind::E1000)));
}
