//! The host's own PCI functions, and which of the guest's drivers fits them.

use anyhow::{Context, bail};
use paraslot_protocol::Device;
use paraslot_spec::virtio::{device_type, pci::MODERN_DEVICE_ID_BASE};
use paraslot_spec::{ahci, e1000, nvme, pci, pvscsi, vmxnet3};
use paraslot_vfio::{Borrowed, HostAddress, HostFunction};

use crate::error::Usage;
use crate::identity::Identity;
use crate::spec::Request;

/// The driver that functions are passed through by.
pub(crate) const VFIO: &str = "vfio-pci";

/// The driver of the guest's that fits a function.
pub(crate) fn driver_for(function: &HostFunction) -> Option<Device> {
    const VIRTIO_NET: u16 = MODERN_DEVICE_ID_BASE + device_type::NET;
    const VIRTIO_BLK: u16 = MODERN_DEVICE_ID_BASE + device_type::BLOCK;
    const VIRTIO_SCSI: u16 = MODERN_DEVICE_ID_BASE + device_type::SCSI;
    match (function.vendor, function.device) {
        (pci::VENDOR_RED_HAT_QUMRANET, VIRTIO_NET) => Some(Device::VirtioNet),
        (pci::VENDOR_RED_HAT_QUMRANET, VIRTIO_BLK) => Some(Device::VirtioBlk),
        (pci::VENDOR_RED_HAT_QUMRANET, VIRTIO_SCSI) => Some(Device::VirtioScsi),
        (pci::VENDOR_VMWARE, pvscsi::DEVICE_PVSCSI) => Some(Device::Pvscsi),
        (pci::VENDOR_VMWARE, vmxnet3::DEVICE_VMXNET3) => Some(Device::Vmxnet3),
        (pci::VENDOR_INTEL, e1000::DEVICE_82540EM) => Some(Device::E1000),
        _ if function.class == nvme::CLASS_CODE => Some(Device::Nvme),
        _ if function.class == ahci::CLASS_CODE => Some(Device::Ahci),
        _ => None,
    }
}

/// Base class of bridges.
const BRIDGE: u8 = 0x06;

/// Whether it is a bridge: the way to other functions, or to the whole machine.
pub(crate) fn is_bridge(function: &HostFunction) -> bool {
    let [base, ..] = function.class;
    base == BRIDGE
}

/// Whether it is a virtio function of the kind that also answers to drivers from before version 1.0.
fn is_transitional(function: &HostFunction) -> bool {
    function.vendor == pci::VENDOR_RED_HAT_QUMRANET && (0x1000..0x1040).contains(&function.device)
}

/// Finds the function at `address` among the host's.
fn find(functions: &[HostFunction], address: HostAddress) -> anyhow::Result<&HostFunction> {
    let found = functions.iter().find(|function| function.address == address);
    found
        .with_context(|| format!("this machine has no PCI function {address}: see paraslot doctor"))
}

/// Sees to it that `address` is that of a function which can be a guest's.
fn check(functions: &[HostFunction], address: HostAddress) -> anyhow::Result<()> {
    let function = find(functions, address)?;
    // The machine needs it, whatever VFIO thinks of that.
    if is_bridge(function) {
        bail!("{address} is {}: a bridge is the host's", Identity::of(function));
    }
    Ok(())
}

/// What a function is, by the guest's driver that fits it.
fn identify(functions: &[HostFunction], address: HostAddress) -> anyhow::Result<Device> {
    let function = find(functions, address)?;
    if let Some(device) = driver_for(function) {
        return Ok(device);
    }
    let identity = Identity::of(function);
    if is_transitional(function) {
        bail!(
            "{address} is {identity}, transitional virtio: the guest's driver is for modern ones \
             (QEMU's disable-legacy=on)"
        );
    }
    let known = Device::ALL.map(Device::name).join(", ");
    bail!("{address} is {identity}: none of the guest's drivers fits, which are for {known}")
}

/// The command that binds a function to vfio-pci.
pub(crate) fn bind_command(address: HostAddress, driver: Option<&str>) -> String {
    let function = format!("/sys/bus/pci/devices/{address}");
    let unbind = driver.map_or_else(String::new, |_| format!("{function}/driver/unbind "));
    format!(
        "echo {VFIO} | sudo tee {function}/driver_override && echo {address} | sudo tee \
         {unbind}/sys/bus/pci/drivers_probe"
    )
}

/// Sees to it that a function is bound to vfio-pci, or says how to do that.
fn check_driver(function: &HostFunction) -> anyhow::Result<()> {
    let address = function.address;
    let driver = function.driver.as_deref();
    if driver == Some(VFIO) {
        return Ok(());
    }
    bail!(
        "{address} has {}: add bind=on (as root), or bind it to {VFIO}: {}",
        driver.map_or_else(|| "no driver".to_owned(), |driver| format!("the driver {driver}")),
        bind_command(address, driver)
    )
}

/// The host's functions that a command line names.
pub(crate) struct Hardware(Vec<HostFunction>);

impl Hardware {
    /// Looks at this host, if there is a reason to.
    ///
    /// # Errors
    /// When the host has no PCI, or a function is named twice, is not there, or is a bridge.
    pub(crate) fn of<'a>(requests: impl Iterator<Item = &'a Request>) -> anyhow::Result<Self> {
        let mut addresses = Vec::new();
        for request in requests {
            let Request::Host(host) = request else { continue };
            if addresses.contains(&host.address()) {
                return Err(Usage::error(format!("host={} is given twice", host.address())));
            }
            addresses.push(host.address());
        }
        if addresses.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let functions =
            paraslot_vfio::survey().context("this machine's PCI functions cannot be seen")?;
        addresses.into_iter().try_for_each(|address| check(&functions, address))?;
        Ok(Self(functions))
    }

    /// What a function is, by the guest's driver that fits it.
    ///
    /// # Errors
    /// When there is no such function, or no such driver.
    pub(crate) fn identify(&self, address: HostAddress) -> anyhow::Result<Device> {
        identify(&self.0, address)
    }

    /// Sees to it that what is named can be passed through: takes what is to be taken from its driver.
    /// It is given back when what is returned goes, before which it has to be closed.
    ///
    /// # Errors
    /// When a function is not there or has another driver, with what to do about that.
    pub(crate) fn take<'a>(
        &self,
        requests: impl Iterator<Item = &'a Request>,
    ) -> anyhow::Result<Vec<Borrowed>> {
        let mut taken = Vec::new();
        for request in requests {
            let Request::Host(host) = request else { continue };
            let function = find(&self.0, host.address())?;
            if host.bind {
                taken.push(Borrowed::take(host.address())?);
            } else {
                check_driver(function)?;
            }
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(vendor: u16, device: u16, class: [u8; 3]) -> HostFunction {
        HostFunction {
            address: "0000:00:05.0".parse().unwrap(),
            vendor,
            device,
            class,
            driver: Some("nvme".into()),
            group: Some(3),
            companions: Vec::new(),
            reset_methods: vec!["flr".into()],
            obstacles: Vec::new(),
        }
    }

    #[test]
    fn drivers_are_found_by_id_and_by_class() {
        for (vendor, device, class, driver) in [
            (0x1af4, 0x1041, [2, 0, 0], Device::VirtioNet),
            (0x1af4, 0x1042, [1, 0, 0], Device::VirtioBlk),
            (0x1af4, 0x1048, [1, 0, 0], Device::VirtioScsi),
            (0x15ad, 0x07c0, [1, 0, 0], Device::Pvscsi),
            (0x15ad, 0x07b0, [2, 0, 0], Device::Vmxnet3),
            (0x8086, 0x100e, [2, 0, 0], Device::E1000),
            // Whoever made it.
            (0x144d, 0xa808, [1, 8, 2], Device::Nvme),
            (0x8086, 0x2922, [1, 6, 1], Device::Ahci),
        ] {
            assert_eq!(driver_for(&function(vendor, device, class)), Some(driver));
        }
    }

    #[test]
    fn what_no_driver_fits_is_named() {
        let address = "0000:00:05.0".parse().unwrap();
        let say = |function| identify(&[function], address).unwrap_err().to_string();
        let e1000e = say(function(0x8086, 0x10d3, [2, 0, 0]));
        assert!(e1000e.starts_with("0000:00:05.0 is 8086:10d3 Intel"), "{e1000e}");
        assert!(e1000e.ends_with("nvme, virtio-net, vmxnet3, e1000"), "{e1000e}");
        let old = say(function(0x1af4, 0x1001, [1, 0, 0]));
        assert!(old.contains("transitional") && old.contains("disable-legacy"), "{old}");
        let elsewhere = identify(&[], address).unwrap_err().to_string();
        assert!(elsewhere.contains("no PCI function 0000:00:05.0"), "{elsewhere}");
    }

    /// With one that is taken from a machine goes all that is behind it, or the machine.
    #[test]
    fn bridges_are_not_passed_through() {
        let bridge = [function(0x8086, 0x29c0, [6, 0, 0])];
        let error = check(&bridge, bridge[0].address).unwrap_err().to_string();
        assert!(error.ends_with("a bridge is the host's"), "{error}");
        let disk = [function(0x144d, 0xa808, [1, 8, 2])];
        assert!(check(&disk, disk[0].address).is_ok());
        assert!(check(&[], disk[0].address).is_err());
    }

    #[test]
    fn a_function_that_the_host_uses_is_left_to_it() {
        let used = function(0x144d, 0xa808, [1, 8, 2]);
        let say = |function| check_driver(&function).unwrap_err().to_string();
        let text = say(used.clone());
        assert!(text.contains("has the driver nvme: add bind=on"), "{text}");
        assert!(text.contains("/sys/bus/pci/devices/0000:00:05.0/driver/unbind"), "{text}");
        let text = say(HostFunction { driver: None, ..used.clone() });
        assert!(text.contains("no driver") && !text.contains("unbind"), "{text}");
        assert!(check_driver(&HostFunction { driver: Some(VFIO.into()), ..used }).is_ok());
    }
}
