//! A function that is taken from the host's driver, and given back.

use crate::sysfs::Sysfs;
use crate::uses::{claimed, uses};
use crate::{HostAddress, VfioError};

const VFIO: &str = "vfio-pci";
/// Base class of bridges.
pub(crate) const BRIDGE: u8 = 0x06;

/// A function that is bound to vfio-pci as long as this lives. Then the host's driver has it back, whichever
/// that was, or none.
///
/// The kernel gives a function back when it is closed, and waits until it is: whoever drops this while
/// the function is open in the same thread waits for ever. [`VfioPci::open_borrowed`](crate::VfioPci::open_borrowed)
/// sees to that.
///
/// A process that is killed gives nothing back. The kernel closes and resets the function, which stays with
/// vfio-pci until someone binds it to another driver.
#[derive(Debug)]
pub struct Borrowed {
    address: HostAddress,
    sysfs: Sysfs,
    /// The driver to give it back to.
    owner: Option<String>,
    /// The override that was there before.
    before: Option<String>,
    /// Nothing is to be done: it was bound to vfio-pci before, or it has been given back.
    done: bool,
}

impl Borrowed {
    /// Binds a function to vfio-pci, if it is not bound to it already. That takes root's privileges.
    ///
    /// A function that the host uses, as far as that can be seen, is left to it: one whose disk has file
    /// systems that are mounted or is in use otherwise, one that is all that leads to the default route,
    /// one with virtual functions. Everything else that the host does with it ends.
    ///
    /// # Errors
    /// When there is no such function, it is a bridge, the host uses it, vfio-pci is not loaded, or the kernel
    /// refuses. The function has its driver again then.
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
        let [_, _, base, _] = sysfs.number(address, "class").unwrap_or(0).to_le_bytes();
        if base == BRIDGE {
            // All that is behind it would go along, or the whole machine.
            return Err(VfioError::Unsuited("it is a bridge".to_owned()));
        }
        let refuse = |reason: String| VfioError::Bind { address, driver: VFIO.to_owned(), reason };
        if !sysfs.has_driver(VFIO) {
            return Err(refuse("that driver is not there: modprobe vfio-pci".to_owned()));
        }
        let owner = sysfs.driver(address);
        let done = owner.as_deref() == Some(VFIO);
        if !done {
            let mut uses = uses(&sysfs, address);
            if uses.is_empty() {
                uses = claimed(&sysfs, address);
            }
            if !uses.is_empty() {
                return Err(VfioError::InUse { address, uses });
            }
        }
        let before = sysfs.attribute(address, "driver_override");
        // No override reads as this.
        let before = before.filter(|text| !text.is_empty() && text != "(null)");
        // From here on dropping it gives the function back.
        let borrowed = Self { address, sysfs, owner, before, done };
        if !done {
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

impl Borrowed {
    /// Gives the function back, as dropping this does, and says whether its driver has it again. Whatever
    /// had it open has to be closed.
    ///
    /// # Errors
    /// When the kernel refuses, or the driver does not take it.
    pub fn give_back(mut self) -> Result<(), VfioError> {
        self.restore()
    }

    fn restore(&mut self) -> Result<(), VfioError> {
        if std::mem::replace(&mut self.done, true) {
            return Ok(());
        }
        let Self { address, sysfs, owner, before, done: _ } = self;
        let now = sysfs.driver(*address);
        // The probe follows the override that was there before. Whatever is refused, the rest is tried.
        let mut result = set_override(sysfs, *address, before.as_deref());
        if now != *owner {
            let unbound = unbind(sysfs, *address, now.as_deref());
            result = result.and(unbound);
            // A function that had no driver is left without one.
            if owner.is_some() {
                let probed = sysfs.write("drivers_probe", &address.to_string());
                result = result.and(probed);
            }
        }
        let has = sysfs.driver(*address);
        let reason = match result {
            Err(error) => error.to_string(),
            Ok(()) if has == *owner => return Ok(()),
            Ok(()) => format!(
                "afterwards it has {}; the kernel's log says why",
                has.as_deref().unwrap_or("no driver")
            ),
        };
        let driver = owner.clone().unwrap_or_else(|| "no driver".to_owned());
        Err(VfioError::Bind { address: *address, driver, reason })
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // There is nobody to tell; who wants to know calls `give_back`.
        let _ = self.restore();
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
