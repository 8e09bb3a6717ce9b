//! The machine's parts: the kernel, both initial RAM file systems, and QEMU.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::apt::{self, Apt, Package};
use crate::cpio::Archive;
use crate::error::Error;
use crate::modules::{self, Module, Tree};
use crate::prepare::{read, remove, say, write};
use crate::{bzimage, recipe};

/// The files of the finished folder.
pub(crate) const VMLINUX: &str = "vmlinux";
pub(crate) const BZIMAGE: &str = "vmlinuz";
pub(crate) const OUTER: &str = "outer.cpio";
pub(crate) const GUEST: &str = "guest.cpio";
/// What the guest's disk is made with as well: its modules, and the program that is a hundred.
pub(crate) const MODULES: &str = "modules";
pub(crate) const BUSYBOX: &str = "busybox";
/// QEMU, its firmware and its libraries.
pub(crate) const QEMU: &str = "qemu";

/// Makes all of it in `folder`.
pub(crate) fn make(folder: &Path, scratch: &Path) -> Result<Vec<Package>, Error> {
    let apt = Apt::new(&scratch.join("apt"))?;
    let packages = scratch.join("packages");
    let (alias, prefix) = recipe::KERNEL;
    let kernel = apt.candidate(&apt.dependency(alias, prefix)?)?;
    let busybox = apt.candidate(recipe::BUSYBOX)?;
    let qemu = apt.closure(&recipe::QEMU)?;

    say(&format!("fetching {} {}", kernel.name, kernel.version));
    let mut used = vec![kernel, busybox];
    apt.unpack(&used, &packages)?;
    let image = read(&only_one(&packages.join("boot"), "vmlinuz-")?)?;
    write(&folder.join(BZIMAGE), &image)?;
    say("unpacking the kernel");
    write(&folder.join(VMLINUX), &bzimage::vmlinux(&image).map_err(Error::Package)?)?;

    let tree = Tree::open(&only_one(&packages.join("usr/lib/modules"), "")?)?;
    let busybox = packages.join("usr/bin/busybox");
    let outer = module_files(&tree, &tree.closure(&recipe::OUTER_MODULES)?)?;
    write(&folder.join(OUTER), &initrd(&busybox, &outer)?)?;
    let guest = module_files(&tree, &tree.closure(&recipe::GUEST_MODULES)?)?;
    write(&folder.join(GUEST), &initrd(&busybox, &guest)?)?;
    for (path, content) in guest {
        let path = folder.join(MODULES).join(path);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).map_err(Error::path("create", above))?;
        }
        write(&path, &content)?;
    }
    fs::rename(&busybox, folder.join(BUSYBOX)).map_err(Error::path("keep", &busybox))?;
    remove(&packages)?;

    say(&format!("fetching QEMU and its libraries ({} packages)", qemu.len()));
    let tree = folder.join(QEMU);
    apt.unpack(&qemu, &tree)?;
    for unused in [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/lib/x86_64-linux-gnu/gconv",
        "var",
    ] {
        let unused = tree.join(unused);
        if unused.exists() {
            remove(&unused)?;
        }
    }
    used.extend(qemu);
    Ok(used)
}

/// The names by which the program `busybox` can be called.
pub(crate) fn applets(busybox: &Path) -> Result<Vec<String>, Error> {
    let names = apt::output(Command::new(busybox).arg("--list"), Stdio::null())?;
    Ok(names.lines().filter(|name| *name != "busybox").map(str::to_owned).collect())
}

/// The one entry of `folder` whose name begins with `prefix`.
fn only_one(folder: &Path, prefix: &str) -> Result<PathBuf, Error> {
    let entries = fs::read_dir(folder).map_err(Error::path("read", folder))?;
    let matches = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with(prefix);
    let mut matching = entries.flatten().filter(matches).map(|entry| entry.path());
    match (matching.next(), matching.next()) {
        (Some(path), None) => Ok(path),
        _ => Err(Error::Package(format!(
            "the kernel's package has none or several {prefix}* in {}",
            folder.display()
        ))),
    }
}

/// An initial RAM file system without its scripts: the program `busybox` and what `modules` says, paths
/// below `lib/modules` and their content. It is not compressed, which saves the machine's time.
fn initrd(busybox: &Path, modules: &[(PathBuf, Vec<u8>)]) -> Result<Vec<u8>, Error> {
    let mut archive = Archive::new();
    for folder in [
        "bin",
        "dev",
        "etc",
        "lib",
        "lib/modules",
        "paraslot",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr",
    ] {
        archive.directory(folder);
    }
    archive.symlink("sbin", "bin");
    archive.symlink("usr/bin", "../bin");
    archive.symlink("usr/sbin", "../bin");
    // Without it the first process has neither input nor output.
    archive.character_device("dev/console", 5, 1);
    archive.file("bin/busybox", 0o755, &read(busybox)?);
    for applet in applets(busybox)? {
        archive.symlink(&format!("bin/{applet}"), "busybox");
    }
    let mut folders = BTreeSet::new();
    for (path, content) in modules {
        let mut above: Vec<&Path> =
            path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if folders.insert(folder) {
                archive.directory(&below_modules(folder));
            }
        }
        archive.file(&below_modules(path), 0o644, content);
    }
    Ok(archive.finish())
}

fn below_modules(path: &Path) -> String {
    format!("lib/modules/{}", path.display())
}

/// The files of `modules` and their indices: paths below `lib/modules`, and their content.
fn module_files(tree: &Tree, modules: &[Module]) -> Result<Vec<(PathBuf, Vec<u8>)>, Error> {
    let version = PathBuf::from(tree.root().file_name().unwrap_or_default());
    let mut files = Vec::new();
    let mut order = String::new();
    for module in modules {
        files.push((version.join(&module.path), read(&tree.root().join(&module.path))?));
        let _ = writeln!(order, "{}", module.path.display());
    }
    for name in ["modules.builtin", "modules.builtin.modinfo"] {
        files.push((version.join(name), read(&tree.root().join(name))?));
    }
    files.push((version.join("modules.order"), order.into_bytes()));
    files.push((version.join("modules.dep"), modules::dep_index(modules).into_bytes()));
    files.push((version.join("modules.alias"), modules::alias_index(modules).into_bytes()));
    Ok(files)
}
