//! Which of the host's functions could be passed through, and what is in the way.

use std::io;
use std::path::Path;

use crate::HostAddress;
use crate::borrow::BRIDGE;
use crate::sysfs::Sysfs;
use crate::uses::uses;

/// One of the host's PCI functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFunction {
    /// Where it is.
    pub address: HostAddress,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// The driver that it has.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The others in that group, which can only be passed through together with it.
    pub companions: Vec<HostAddress>,
    /// How the kernel can reset it (`flr`, `pm`, `bus`, …), in the order in which it would try.
    pub reset_methods: Vec<String>,
    /// What is in the way of passing it through, and what to do about each: a sentence each. Empty if
    /// nothing is, but for the driver that it has, which [`Borrowed`](crate::Borrowed) sees to.
    pub obstacles: Vec<String>,
}

/// All of this machine's PCI functions, in order of their addresses.
///
/// It looks and does nothing. What the host does with a function itself is among the obstacles as far as
/// that can be seen: file systems, swap and other block devices on its disks, the default routes, virtual
/// functions.
///
/// # Errors
/// When the machine has no PCI, or `/sys` is not to be read.
pub fn survey() -> io::Result<Vec<HostFunction>> {
    all(&Sysfs::host())
}

/// [`survey`] of a tree such as `/sys`, and of nothing else: file systems, swap, routes, and permissions are
/// not known.
///
/// # Errors
/// When the tree has no PCI functions' folder, or it is not to be read.
pub fn survey_in(sysfs: &Path) -> io::Result<Vec<HostFunction>> {
    all(&Sysfs::at(sysfs))
}

fn all(sysfs: &Sysfs) -> io::Result<Vec<HostFunction>> {
    Ok(sysfs.functions()?.into_iter().map(|address| look(sysfs, address)).collect())
}

fn look(sysfs: &Sysfs, address: HostAddress) -> HostFunction {
    let id = |name| {
        let value = sysfs.number(address, name).and_then(|value| u16::try_from(value).ok());
        value.unwrap_or(u16::MAX)
    };
    let [interface, sub, base, _] = sysfs.number(address, "class").unwrap_or(0).to_le_bytes();
    let methods = sysfs.attribute(address, "reset_method").unwrap_or_default();
    let mut function = HostFunction {
        address,
        vendor: id("vendor"),
        device: id("device"),
        class: [base, sub, interface],
        driver: sysfs.driver(address),
        group: sysfs.group(address),
        companions: sysfs.companions(address),
        reset_methods: methods.split_whitespace().map(str::to_owned).collect(),
        obstacles: Vec::new(),
    };
    function.obstacles = obstacles(sysfs, &function);
    function
}

fn obstacles(sysfs: &Sysfs, function: &HostFunction) -> Vec<String> {
    let mut list = Vec::new();
    let [base, sub, _] = function.class;
    if base == BRIDGE {
        let what = if sub == 0x00 { "the host's own bridge" } else { "a bridge" };
        // Nothing would help, so nothing else matters.
        return vec![format!("It is {what}: pass through what is behind it.")];
    }
    if function.group.is_none() {
        list.push(
            "It is in no IOMMU group: turn the IOMMU on in the firmware (VT-d, AMD-Vi) and, on Intel's, boot \
             the kernel with intel_iommu=on."
                .to_owned(),
        );
    }
    if !sysfs.has_driver("vfio-pci") {
        list.push("The driver vfio-pci is not there: modprobe vfio-pci.".to_owned());
    }
    for (other, driver) in sysfs.in_the_way(function.address) {
        list.push(format!(
            "{other} is in the same IOMMU group and has the driver {driver}: unbind it or bind it to vfio-pci, \
             or put the card into another slot."
        ));
    }
    for what in uses(sysfs, function.address) {
        list.push(format!("The host uses it: {what}."));
    }
    // The group's file is there while one of its functions is bound to vfio-pci.
    if let (Some(dev), Some(group)) = (&sysfs.dev, function.group) {
        let file = dev.join("vfio").join(group.to_string());
        if file.exists() && !(sysfs.may_open)(&file) {
            let file = file.display();
            list.push(format!("No permission to open {file}: sudo chown $USER {file}."));
        }
    }
    if function.reset_methods.is_empty() {
        list.push(
            "The kernel cannot reset it: it works, but one guest may leave it in a state that the next finds."
                .to_owned(),
        );
    }
    list
}

#[cfg(test)]
pub(crate) mod tests;
