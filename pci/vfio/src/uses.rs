//! What the host does with a function itself.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::HostAddress;
use crate::sysfs::{Sysfs, names};

/// Interfaces that lie on each other: more than anybody stacks.
const DEEPEST: usize = 8;
/// Flags of a route: it is there, and it is one that refuses (linux/route.h).
const ROUTE_UP: u32 = 0x1;
const ROUTE_REJECTS: u32 = 0x200;

/// What the host would lose with a function, and what would end that; empty if nothing is known of.
///
/// It sees file systems of disks and of 9p shares, of this process' mount namespace, swap, what other block devices are made of, the
/// default routes, of this process' network namespace, and virtual functions.
pub(crate) fn uses(sysfs: &Sysfs, address: HostAddress) -> Vec<String> {
    let mut list = Vec::new();
    for disk in disks(sysfs, address) {
        uses_of_disk(sysfs, &disk, &mut list);
    }
    for tag in shares(sysfs, address) {
        let mounts = sysfs.process("self/mountinfo");
        for at in mounts.lines().filter_map(|line| share_mount_point(line, &tag)) {
            list.push(format!("its share {tag} is mounted at {at}: unmount that"));
        }
    }
    if let Some(interface) = only_way_out(sysfs, address) {
        list.push(format!(
            "its network interface {interface} is the host's only way out: give it another default route"
        ));
    }
    let virtual_functions = sysfs.attribute(address, "sriov_numvfs");
    if let Some(count) = virtual_functions.filter(|count| count != "0") {
        list.push(format!(
            "it has virtual functions, {count} of them: echo 0 > /sys/bus/pci/devices/{address}/sriov_numvfs"
        ));
    }
    list
}

/// Disks that the kernel says are in use, by whatever; for when nothing is known of them that is. To find
/// out they are opened, which takes privileges.
pub(crate) fn claimed(sysfs: &Sysfs, address: HostAddress) -> Vec<String> {
    let Some(dev) = &sysfs.dev else { return Vec::new() };
    let is_claimed = |disk: &String| {
        // Exclusively: as of open(2), a block device that is in use is busy.
        let flags = libc::O_EXCL | libc::O_NONBLOCK;
        let opened = fs::OpenOptions::new().read(true).custom_flags(flags).open(dev.join(disk));
        opened.is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
    };
    let disks = disks(sysfs, address).into_iter().filter(is_claimed);
    disks.map(|disk| format!("its disk {disk} is in use: end that")).collect()
}

/// The function's block devices, partitions included.
fn disks(sysfs: &Sysfs, address: HostAddress) -> Vec<String> {
    let mut folders: Vec<PathBuf> = fs::canonicalize(sysfs.function(address)).into_iter().collect();
    let Some(function) = folders.first().cloned() else { return Vec::new() };
    // The disks of a multipath NVMe subsystem are not below its controllers.
    let ours: Vec<_> = below(sysfs, "nvme", &[function]);
    for subsystem in names(&sysfs.class("nvme-subsystem")) {
        let subsystem = sysfs.class("nvme-subsystem").join(subsystem);
        let mut controllers = names(&subsystem);
        controllers.retain(|name| sysfs.class("nvme").join(name).exists());
        if !controllers.is_empty() && controllers.iter().all(|name| ours.contains(name)) {
            folders.extend(fs::canonicalize(subsystem));
        }
    }
    below(sysfs, "block", &folders)
}

/// Those of a class that are below one of `folders`.
fn below(sysfs: &Sysfs, class: &str, folders: &[PathBuf]) -> Vec<String> {
    let folder = sysfs.class(class);
    let mut found = names(&folder);
    found.retain(|name| {
        let real = fs::canonicalize(folder.join(name));
        real.is_ok_and(|real| folders.iter().any(|folder| real.starts_with(folder)))
    });
    found
}

fn uses_of_disk(sysfs: &Sysfs, disk: &str, list: &mut Vec<String>) {
    let device = sysfs.class("block").join(disk);
    let number = fs::read_to_string(device.join("dev")).unwrap_or_default();
    let mounts = sysfs.process("self/mountinfo");
    let mut mounted: Vec<_> =
        mounts.lines().filter_map(|line| mount_point(line, disk, number.trim())).collect();
    mounted.dedup();
    for at in &mounted {
        list.push(format!("its disk {disk} is mounted at {at}: unmount that"));
    }
    // Of a file system of several disks the others are not in the list of mounts.
    let part = names(&sysfs.file_systems("btrfs"))
        .into_iter()
        .any(|name| sysfs.file_systems("btrfs").join(name).join("devices").join(disk).exists());
    if part && mounted.is_empty() {
        list.push(format!(
            "its disk {disk} is part of a file system that is mounted: unmount that"
        ));
    }
    if sysfs.process("swaps").lines().any(|line| first(line).is_some_and(|path| is(path, disk))) {
        list.push(format!("its disk {disk} is swapped to: swapoff /dev/{disk}"));
    }
    for holder in names(&device.join("holders")) {
        list.push(format!("its disk {disk} is part of {holder}: take that down"));
    }
}

/// Where a line of `mountinfo` has a disk mounted.
fn mount_point<'a>(line: &'a str, disk: &str, number: &str) -> Option<&'a str> {
    let (place, source) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let (device, _root, at) = (place.next()?, place.next()?, place.next()?);
    let source = source.split(' ').nth(1)?;
    (device == number || is(source, disk)).then_some(at)
}

/// The function's shared folders, by the tags with which they are mounted: 9p over virtio.
fn shares(sysfs: &Sysfs, address: HostAddress) -> Vec<String> {
    let devices = names(&sysfs.function(address));
    let devices = devices.iter().filter(|name| name.starts_with("virtio"));
    let tags = devices.filter_map(|name| sysfs.attribute(address, &format!("{name}/mount_tag")));
    tags.map(|tag| tag.trim_end_matches('\0').to_owned()).filter(|tag| !tag.is_empty()).collect()
}

/// Where a line of `mountinfo` has a share mounted.
fn share_mount_point<'a>(line: &'a str, tag: &str) -> Option<&'a str> {
    let (place, source) = line.split_once(" - ")?;
    let mut source = source.split(' ');
    (source.next()? == "9p" && source.next()? == tag).then(|| place.split(' ').nth(4)).flatten()
}

/// Whether a path is that of a disk's, if by a link.
fn is(path: &str, disk: &str) -> bool {
    let path = Path::new(path);
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    path.is_absolute() && real.file_name().is_some_and(|name| name == disk)
}

fn first(line: &str) -> Option<&str> {
    line.split_whitespace().next()
}

/// The function's interface, if all of the host's default routes lead over the function's.
fn only_way_out(sysfs: &Sysfs, address: HostAddress) -> Option<String> {
    let function = fs::canonicalize(sysfs.function(address)).ok()?;
    let ours = below(sysfs, "net", &[function]);
    let mut used = None;
    for route in default_routes(sysfs) {
        let mut hardware = Vec::new();
        lowest(sysfs, &route, DEEPEST, &mut hardware);
        // What is on no hardware is on another route.
        for interface in hardware {
            if !ours.contains(&interface) {
                return None;
            }
            used = Some(interface);
        }
    }
    used
}

/// Interfaces of the default routes of both families.
fn default_routes(sysfs: &Sysfs) -> Vec<String> {
    let live = |flags: &str| {
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        flags & ROUTE_UP != 0 && flags & ROUTE_REJECTS == 0
    };
    let zero = |text: &str| text.bytes().all(|digit| digit == b'0');
    let mut interfaces = Vec::new();
    for line in sysfs.process("net/route").lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let [interface, to, _, flags, _, _, _, mask, ..] = fields[..]
            && zero(to)
            && zero(mask)
            && live(flags)
        {
            interfaces.push(interface.to_owned());
        }
    }
    for line in sysfs.process("net/ipv6_route").lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        if let [to, prefix, _, _, _, _, _, _, flags, interface] = fields[..]
            && zero(to)
            && zero(prefix)
            && live(flags)
        {
            interfaces.push(interface.to_owned());
        }
    }
    interfaces
}

/// The interfaces of hardware's that one rests on: a bridge's or bond's, or itself.
fn lowest(sysfs: &Sysfs, interface: &str, deep: usize, found: &mut Vec<String>) {
    let folder = sysfs.class("net").join(interface);
    if folder.join("device").exists() {
        found.push(interface.to_owned());
    } else if let Some(deep) = deep.checked_sub(1) {
        for name in names(&folder) {
            if let Some(lower) = name.strip_prefix("lower_") {
                lowest(sysfs, lower, deep, found);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
