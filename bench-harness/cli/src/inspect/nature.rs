//! Whether a function is what it seems to be.

use paraslot_pci::Picture;
use paraslot_spec::pci::{VENDOR_RED_HAT_QUMRANET, VENDOR_VMWARE};
use paraslot_spec::{pvscsi, vmxnet3};
use serde::Serialize;

/// Vendor IDs of those who make no hardware: Red Hat's for QEMU, Bochs', InnoTek's for VirtualBox, Xen's,
/// Microsoft's for Hyper-V, Amazon's, Google's.
const VIRTUAL_VENDORS: [(u16, &str); 7] = [
    (0x1b36, "QEMU"),
    (0x1234, "QEMU or Bochs"),
    (0x80ee, "VirtualBox"),
    (0x5853, "Xen"),
    (0x1414, "Hyper-V"),
    (0x1d0f, "Amazon's hosts"),
    (0x1ae0, "Google's hosts"),
];
/// Subsystem vendors that monitors give to the chips that they emulate.
const MONITORS: [(u16, &str); 4] =
    [(0x1af4, "QEMU"), (VENDOR_VMWARE, "VMware"), (0x1ab8, "Parallels"), (0x80ee, "VirtualBox")];
/// virtio's device IDs (VIRTIO 1.4, 4.1.2.1).
const VIRTIO: std::ops::Range<u16> = 0x1000..0x1080;
/// The first of those that have no legacy interface.
const MODERN: u16 = 0x1040;
/// Base class of bridges.
const BRIDGE: u8 = 0x06;

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Nature {
    /// A way to others.
    Bridge,
    /// virtio by software or by a card that speaks it; `true` for one with the legacy interface too.
    Virtio(bool),
    /// VMware's own interface.
    VmwareOwn,
    /// A monitor's own design, for drivers that know it.
    Own(&'static str),
    /// A chip that this monitor plays.
    EmulatedBy(&'static str),
    /// Hardware, part of it shared with others.
    VirtualFunction,
    /// Hardware.
    Real,
    /// A virtual machine's, and nothing tells whose.
    Unclear,
}

impl Nature {
    /// What the configuration space tells, in a machine that is virtual or not; `shared`: whether the kernel
    /// knows it as a virtual function.
    pub(super) fn of(picture: &Picture, is_virtual: Option<bool>, shared: bool) -> Self {
        let [base, ..] = picture.class;
        let find = |list: &[(u16, &'static str)], id| {
            list.iter().find(|(vendor, _)| *vendor == id).map(|(_, name)| *name)
        };
        let own = [pvscsi::DEVICE_PVSCSI, vmxnet3::DEVICE_VMXNET3];
        match picture.vendor {
            _ if base == BRIDGE => Self::Bridge,
            VENDOR_RED_HAT_QUMRANET if VIRTIO.contains(&picture.device) => {
                Self::Virtio(picture.device < MODERN)
            }
            VENDOR_VMWARE if own.contains(&picture.device) => Self::VmwareOwn,
            _ if shared => Self::VirtualFunction,
            vendor => {
                match (find(&VIRTUAL_VENDORS, vendor), find(&MONITORS, picture.subsystem_vendor)) {
                    (Some(monitor), _) => Self::Own(monitor),
                    // Cards that carry a monitor's number are not made.
                    (None, Some(monitor)) => Self::EmulatedBy(monitor),
                    (None, None) if vendor == VENDOR_VMWARE => Self::EmulatedBy("VMware"),
                    (None, None) if is_virtual == Some(false) => Self::Real,
                    (None, None) => Self::Unclear,
                }
            }
        }
    }

    /// Whether it only leads to others.
    pub(super) fn is_bridge(self) -> bool {
        self == Self::Bridge
    }

    /// In a word or two.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Virtio(_) | Self::VmwareOwn | Self::Own(_) => "paravirtual",
            Self::EmulatedBy(_) => "emulated",
            Self::VirtualFunction => "real, shared",
            Self::Real => "real",
            Self::Unclear => "emulated or real",
        }
    }

    /// How that is known.
    pub(super) fn why(self) -> String {
        match self {
            Self::Bridge => "it leads to other functions".into(),
            Self::Virtio(false) => "virtio, by software or by a card that speaks it; modern only".into(),
            Self::Virtio(true) => {
                "virtio, by software or by a card that speaks it; with the legacy interface as well".into()
            }
            Self::VmwareOwn => "VMware's interface, which QEMU and paraslot have too".into(),
            Self::Own(monitor) => format!("made up by {monitor}: nobody builds it"),
            Self::EmulatedBy(monitor) => {
                format!("its subsystem's number is that which {monitor} gives to chips that it plays")
            }
            Self::VirtualFunction => "a virtual function of a card (SR-IOV)".into(),
            Self::Real => "this machine is no virtual one".into(),
            Self::Unclear => {
                "this machine may be virtual: the chip is played by what is below, or was passed through".into()
            }
        }
    }
}
