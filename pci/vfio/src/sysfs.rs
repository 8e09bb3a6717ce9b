//! What the host's kernel says of its PCI functions, and what can be said to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::HostAddress;
use crate::kernel::may_open;

/// A tree such as `/sys`, and those that go with it.
#[derive(Clone, Debug)]
pub(crate) struct Sysfs {
    root: PathBuf,
    /// One such as `/proc`.
    pub(crate) proc: Option<PathBuf>,
    /// One such as `/dev`.
    pub(crate) dev: Option<PathBuf>,
    /// Whether this process may open a file for reading and writing.
    pub(crate) may_open: fn(&Path) -> bool,
    #[cfg(test)]
    pub(crate) kernel: Option<fn(&Path, &Path, &str)>,
}

impl Sysfs {
    pub(crate) fn host() -> Self {
        let (proc, dev) = (Some("/proc".into()), Some("/dev".into()));
        Self { proc, dev, ..Self::at(Path::new("/sys")) }
    }

    pub(crate) fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            proc: None,
            dev: None,
            may_open,
            #[cfg(test)]
            kernel: None,
        }
    }

    /// The folder of a class of devices.
    pub(crate) fn class(&self, name: &str) -> PathBuf {
        self.root.join("class").join(name)
    }

    /// The folder of a kind of file system.
    pub(crate) fn file_systems(&self, name: &str) -> PathBuf {
        self.root.join("fs").join(name)
    }

    /// What the kernel says elsewhere than here. Empty if it does not.
    pub(crate) fn process(&self, name: &str) -> String {
        let text = self.proc.as_ref().map(|proc| fs::read(proc.join(name)).unwrap_or_default());
        String::from_utf8_lossy(&text.unwrap_or_default()).into_owned()
    }

    /// All functions, in order.
    pub(crate) fn functions(&self) -> io::Result<Vec<HostAddress>> {
        addresses(&self.root.join("bus/pci/devices"))
    }

    /// A function's folder.
    pub(crate) fn function(&self, address: HostAddress) -> PathBuf {
        self.root.join("bus/pci/devices").join(address.to_string())
    }

    /// A function's attribute, without the end of the line.
    pub(crate) fn attribute(&self, address: HostAddress, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.function(address).join(name)).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// An attribute that is a hexadecimal number.
    pub(crate) fn number(&self, address: HostAddress, name: &str) -> Option<u32> {
        let text = self.attribute(address, name)?;
        u32::from_str_radix(text.trim_start_matches("0x"), 16).ok()
    }

    /// The driver that a function has.
    pub(crate) fn driver(&self, address: HostAddress) -> Option<String> {
        link_name(&self.function(address).join("driver"))
    }

    /// Whether a driver is loaded.
    pub(crate) fn has_driver(&self, name: &str) -> bool {
        self.root.join("bus/pci/drivers").join(name).is_dir()
    }

    /// A function's IOMMU group.
    pub(crate) fn group(&self, address: HostAddress) -> Option<u32> {
        link_name(&self.function(address).join("iommu_group"))?.parse().ok()
    }

    /// The others in a function's IOMMU group.
    pub(crate) fn companions(&self, address: HostAddress) -> Vec<HostAddress> {
        let all =
            addresses(&self.function(address).join("iommu_group/devices")).unwrap_or_default();
        all.into_iter().filter(|other| *other != address).collect()
    }

    /// Those in a function's group that have a driver which does not leave memory access to VFIO.
    pub(crate) fn in_the_way(&self, address: HostAddress) -> Vec<(HostAddress, String)> {
        let drivers = self.companions(address).into_iter().filter_map(|other| {
            let driver = self.driver(other)?;
            let harmless =
                driver == "pcieport" || driver == "pci-stub" || driver.starts_with("vfio");
            (!harmless).then_some((other, driver))
        });
        drivers.collect()
    }

    /// Writes to a file under `bus/pci`, which must be there.
    pub(crate) fn write(&self, path: &str, text: &str) -> io::Result<()> {
        let path = self.root.join("bus/pci").join(path);
        let mut file = fs::OpenOptions::new().write(true).open(&path)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        #[cfg(test)]
        if let Some(kernel) = self.kernel {
            kernel(&self.root, &path, text);
        }
        Ok(())
    }
}

fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

/// What is in a folder, in order. Nothing if it is not there.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

fn addresses(folder: &Path) -> io::Result<Vec<HostAddress>> {
    let mut list = Vec::new();
    for entry in fs::read_dir(folder)? {
        // What is no address is not ours to judge.
        if let Some(address) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            list.push(address);
        }
    }
    list.sort_unstable();
    Ok(list)
}
