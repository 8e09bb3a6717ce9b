//! The adapters of a test.

use std::sync::{Arc, Mutex};

use paraslot_backends::block::BlockBackend;
use paraslot_backends::net::{NetStatistics, TapBackend, TapOptions};
use paraslot_e1000::E1000;
use paraslot_pci::SharedDevice;
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_pci::VirtioPci;
use paraslot_vmxnet3::Vmxnet3;

use super::far_end::{FarEnd, MTU};
use crate::guest::{GuestHost, Machine};

/// The slot of the disk with the tools.
const TOOLS_SLOT: u8 = 2;

/// Kinds of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    VirtioNet,
    Vmxnet3,
    E1000,
}

impl Kind {
    /// The driver, and the module that it is in.
    pub(crate) fn driver(self) -> &'static str {
        match self {
            Self::VirtioNet => "virtio_net",
            Self::Vmxnet3 => "vmxnet3",
            Self::E1000 => "e1000",
        }
    }

    /// By what the driver gets interrupts, if the kernel lets it.
    pub(crate) fn vectors(self) -> &'static str {
        if self == Self::E1000 { "intx" } else { "msix" }
    }

    /// Another kind.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::VirtioNet => Self::E1000,
            Self::Vmxnet3 => Self::VirtioNet,
            Self::E1000 => Self::Vmxnet3,
        }
    }
}

/// An adapter, and the far end of its cable.
pub(crate) struct Adapter {
    pub(crate) kind: Kind,
    pub(crate) slot: u8,
    pub(crate) number: u8,
    queues: u16,
    pub(crate) far: FarEnd,
    /// Whether the cable was ever pulled.
    pulled: bool,
    set_link: SetLink,
    statistics: Statistics,
}

fn share(device: impl paraslot_pci::PciDevice + 'static) -> SharedDevice {
    Arc::new(Mutex::new(device))
}

fn address(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 9, number]
}

type SetLink = Box<dyn Fn(bool) + Send>;
type Statistics = Box<dyn Fn() -> NetStatistics + Send>;

/// An adapter at a far end, and its owner's ways to it.
fn function(
    kind: Kind,
    far: &FarEnd,
    mac: [u8; 6],
    queues: u16,
    host: GuestHost,
) -> (SharedDevice, SetLink, Statistics) {
    let options = TapOptions { queues, ..TapOptions::new(far.name()) };
    let backend = Arc::new(TapBackend::open(&options).expect("the interface"));
    macro_rules! with_control {
        ($control:expr, $device:expr) => {{
            let (link, counts) = ($control, $control);
            let set_link = Box::new(move |up| link.set_link(up));
            (share($device), set_link, Box::new(move || counts.statistics()))
        }};
    }
    match kind {
        Kind::VirtioNet => {
            let options = paraslot_virtio_net::Options {
                mac,
                queue_pairs: queues,
                mtu: Some(MTU),
                ..Default::default()
            };
            let device = VirtioNet::new(backend, &options).expect("an adapter");
            with_control!(device.control(), VirtioPci::new(device, host).expect("a function"))
        }
        Kind::Vmxnet3 => {
            let options =
                paraslot_vmxnet3::Options { queues, ..paraslot_vmxnet3::Options::new(mac) };
            let device = Vmxnet3::new(backend, options, host).expect("an adapter");
            with_control!(device.control(), device)
        }
        Kind::E1000 => {
            let options = paraslot_e1000::Options::new(mac);
            let device = E1000::new(backend, options, host).expect("an adapter");
            with_control!(device.control(), device)
        }
    }
}

impl Adapter {
    /// Plugs an adapter in, on network `number`, with so many pairs of queues.
    pub(crate) fn plug(
        machine: &mut Machine<'_>,
        kind: Kind,
        slot: u8,
        number: u8,
        queues: u16,
    ) -> Self {
        let mut adapter = Self::new(kind, slot, number, queues);
        machine.plug(slot, |host| adapter.another(host));
        adapter
    }

    /// A far end without an adapter, which [`another`](Self::another) is.
    pub(crate) fn new(kind: Kind, slot: u8, number: u8, queues: u16) -> Self {
        Self {
            kind,
            slot,
            number,
            queues,
            far: FarEnd::new(number, queues),
            pulled: false,
            set_link: Box::new(|_| ()),
            statistics: Box::new(NetStatistics::default),
        }
    }

    /// An adapter at the far end; it has none any more.
    pub(crate) fn another(&mut self, host: GuestHost) -> SharedDevice {
        let mac = address(self.number);
        let (device, set_link, statistics) = function(self.kind, &self.far, mac, self.queues, host);
        (self.set_link, self.statistics) = (set_link, statistics);
        device
    }

    /// Its address, as the guest writes it.
    pub(crate) fn mac(&self) -> String {
        address(self.number).map(|byte| format!("{byte:02x}")).join(":")
    }

    /// What scripts are told of it.
    pub(crate) fn variables(&self, vectors: &str) -> String {
        let &Self { kind, slot, number, queues, .. } = self;
        let (driver, mac) = (kind.driver(), self.mac());
        format!(
            "tools={TOOLS_SLOT:02x} driver={driver} module={driver} slot={slot:02x} mac={mac} \
             number={number} vectors={vectors} queues={queues}\n"
        )
    }

    /// Does what a script asks for.
    pub(crate) fn answer(&mut self, word: &str) -> String {
        match word {
            "link up" => (self.set_link)(true),
            "link down" => {
                self.check();
                self.pulled = true;
                (self.set_link)(false);
            }
            _ => {
                let answer = self.far.answer(word);
                return answer.unwrap_or_else(|| panic!("the script asks for {word}"));
            }
        }
        "done".into()
    }

    /// The adapter has not found fault with what the driver did, nor has its backend.
    pub(crate) fn check(&self) {
        let seen = (self.statistics)();
        assert_eq!(seen.send_errors + seen.send_invalid + seen.send_no_buffers, 0, "{seen:?}");
        // What the host sends into a cable that is not plugged in is lost, and counted.
        let most = if self.pulled { 100 } else { 0 };
        assert!(seen.receive_errors <= most, "{seen:?}");
    }
}

/// A disk with the tools.
pub(crate) fn plug_tools(machine: &mut Machine<'_>) {
    let disk = machine.tools();
    let make = |disk: Arc<dyn BlockBackend>, host: GuestHost| {
        let device = VirtioBlk::new(disk, &Default::default()).expect("a disk");
        share(VirtioPci::new(device, host).expect("a function"))
    };
    machine.plug(TOOLS_SLOT, |host| make(disk, host));
}
