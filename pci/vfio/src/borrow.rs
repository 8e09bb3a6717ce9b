//! A function that is taken from the host's driver, and given back.

use crate::sysfs::Sysfs;
use crate::{HostAddress, VfioError};

const VFIO: &str = "vfio-pci";

/// A function that is bound to vfio-pci as long as this lives. Then the host's driver has it back, whichever
/// that was, or none.
///
/// The kernel gives a function back when it is closed, and waits until it is: whoever drops this while
/// the function is open in the same thread waits for ever. [`VfioPci::open_borrowed`](crate::VfioPci::open_borrowed)
/// sees to that.
#[derive(Debug)]
pub struct Borrowed {
    address: HostAddress,
    sysfs: Sysfs,
    /// The driver to give it back to.
    owner: Option<String>,
    /// The override that was there before.
    before: Option<String>,
    /// It was bound to vfio-pci before, so nothing is to be done.
    untouched: bool,
}

impl Borrowed {
    /// Binds a function to vfio-pci, if it is not bound to it already. That takes root's privileges. What
    /// the host does with the function ends: a disk's file systems are to be unmounted before.
    ///
    /// # Errors
    /// When there is no such function, vfio-pci is not loaded, or the kernel refuses. The function has its
    /// driver again then.
    pub fn take(address: HostAddress) -> Result<Self, VfioError> {
        Self::take_in(Sysfs::host(), address)
    }

    pub(crate) fn take_in(sysfs: Sysfs, address: HostAddress) -> Result<Self, VfioError> {
        if !sysfs.function(address).exists() {
            return Err(VfioError::NoFunction(address));
        }
        if sysfs.group(address).is_none() {
            return Err(VfioError::NoIommu(address));
        }
        let refuse = |reason: String| VfioError::Bind { address, driver: VFIO.to_owned(), reason };
        if !sysfs.has_driver(VFIO) {
            return Err(refuse("that driver is not there: modprobe vfio-pci".to_owned()));
        }
        let owner = sysfs.driver(address);
        let untouched = owner.as_deref() == Some(VFIO);
        let before = sysfs.attribute(address, "driver_override");
        // No override reads as this.
        let before = before.filter(|text| !text.is_empty() && text != "(null)");
        // From here on dropping it gives the function back.
        let borrowed = Self { address, sysfs, owner, before, untouched };
        if !untouched {
            let Self { sysfs, owner, .. } = &borrowed;
            let bound = rebind(sysfs, address, Some(VFIO), owner.as_deref());
            bound.map_err(|error| refuse(error.to_string()))?;
            match sysfs.driver(address) {
                Some(driver) if driver == VFIO => {}
                driver => {
                    let has = driver.unwrap_or_else(|| "no driver".to_owned());
                    return Err(refuse(format!(
                        "afterwards it has {has}; the kernel's log says why"
                    )));
                }
            }
        }
        Ok(borrowed)
    }

    /// Where the function is.
    pub fn address(&self) -> HostAddress {
        self.address
    }

    /// The driver that will have it back.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let Self { address, sysfs, owner, before, untouched } = self;
        if *untouched {
            return;
        }
        let now = sysfs.driver(*address);
        if now != *owner {
            // The probe follows the override that was there before. A function that had no driver
            // is left without one.
            let _ = set_override(sysfs, *address, before.as_deref());
            let _ = unbind(sysfs, *address, now.as_deref());
            if owner.is_some() {
                let _ = sysfs.write("drivers_probe", &address.to_string());
            }
        } else {
            let _ = set_override(sysfs, *address, before.as_deref());
        }
    }
}

fn rebind(
    sysfs: &Sysfs,
    address: HostAddress,
    to: Option<&str>,
    from: Option<&str>,
) -> std::io::Result<()> {
    set_override(sysfs, address, to)?;
    unbind(sysfs, address, from)?;
    sysfs.write("drivers_probe", &address.to_string())
}

fn set_override(sysfs: &Sysfs, address: HostAddress, driver: Option<&str>) -> std::io::Result<()> {
    sysfs.write(&format!("devices/{address}/driver_override"), driver.unwrap_or("\n"))
}

fn unbind(sysfs: &Sysfs, address: HostAddress, driver: Option<&str>) -> std::io::Result<()> {
    match driver {
        Some(driver) => sysfs.write(&format!("drivers/{driver}/unbind"), &address.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
