//! The inner guest's root disk: a small Debian with the tools that exercise disks and networks.
//!
//! Only programs of the packages in question and the libraries that they are linked with are on it, which
//! leaves out what only the packages' installation needs (interpreters, above all).

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::apt::{self, Apt, Package};
use crate::error::Error;
use crate::prepare::{read, say, write};
use crate::{base, recipe};

/// The image, in the finished folder.
pub(crate) const IMAGE: &str = "root.ext4";

/// The program that starts other programs, in a tree.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where fio's libraries have libraries of their own.
const MORE_LIBRARIES: &str = "usr/lib/x86_64-linux-gnu/ceph";

/// What a full file system of the programs alone would lack: room to write, in bytes.
const ROOM: u64 = 96 << 20;

/// Fixed, so that the same packages make the same disk.
const UUID: &str = "7061726c-736c-4f74-8000-000000000001";

/// Makes the image in `folder`, with modules and busybox from `base`.
pub(crate) fn make(folder: &Path, scratch: &Path, base: &Path) -> Result<Vec<Package>, Error> {
    let apt = Apt::new(&scratch.join("apt"))?;
    let packages = scratch.join("packages");
    let used = apt.closure(&recipe::DISK_PACKAGES)?;
    say(&format!("fetching the guest's tools and their libraries ({} packages)", used.len()));
    let (own, needed): (Vec<Package>, Vec<Package>) = used
        .iter()
        .cloned()
        .partition(|package| recipe::DISK_PACKAGES.contains(&package.name.as_str()));
    apt.unpack(&own, &packages)?;
    let programs = programs(&packages)?;
    let needed: Vec<Package> =
        needed.into_iter().filter(|package| may_have_libraries(&package.name)).collect();
    apt.unpack(&needed, &packages)?;

    let root = scratch.join("root");
    lay_out(&root)?;
    let mut wanted: BTreeSet<PathBuf> = BTreeSet::from([PathBuf::from(LOADER)]);
    for program in programs {
        wanted.extend(libraries(&packages, &program)?);
        wanted.insert(program);
    }
    for path in &wanted {
        place(&packages, &root, path)?;
    }
    place(&packages, &root, Path::new("etc/mke2fs.conf"))?;
    copy_tree(&base.join(base::MODULES), &root.join("usr/lib/modules"))?;
    add_busybox(&base.join(base::BUSYBOX), &root)?;
    say("making the guest's disk");
    image(&packages, &root, &folder.join(IMAGE))?;
    Ok(used)
}

/// Whether a package is fetched for its libraries: not those of interpreters, which only installation and
/// reports need.
fn may_have_libraries(name: &str) -> bool {
    let interpreter =
        name.starts_with("libperl") || name.starts_with("libpython") || name.ends_with("-perl");
    // zlib's name is older than the custom.
    (name.starts_with("lib") && !interpreter) || name == "zlib1g"
}

/// The ELF programs in `tree`, as paths below it, and the links to them.
fn programs(tree: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    for folder in ["usr/bin", "usr/sbin"] {
        let entries = tree.join(folder);
        for entry in fs::read_dir(&entries).map_err(Error::path("read", &entries))?.flatten() {
            let path = entry.path();
            // A link's target is looked at; one into the air, or to elsewhere, is left out.
            let elf = path.is_file() && read(&path)?.starts_with(b"\x7fELF");
            if let (true, Ok(below)) = (elf, path.strip_prefix(tree)) {
                found.push(below.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A command that runs `program` of `tree` with the libraries there.
fn inside(tree: &Path, options: &[&str], program: &Path) -> Command {
    let mut command = Command::new(tree.join(LOADER));
    let mut libraries = tree.join(LIBRARIES).into_os_string();
    libraries.push(":");
    libraries.push(tree.join(MORE_LIBRARIES));
    command.arg("--library-path").arg(libraries).args(options).arg(tree.join(program));
    command.env_remove("LD_PRELOAD").env_remove("LD_LIBRARY_PATH").env("LC_ALL", "C");
    command
}

/// The libraries that `program` is linked with, as paths below `tree`.
fn libraries(tree: &Path, program: &Path) -> Result<Vec<PathBuf>, Error> {
    if read(&tree.join(program))?
        .windows(INTERPRETER.len())
        .take(LONGEST_HEADER)
        .all(|bytes| bytes != INTERPRETER)
    {
        // Linked statically.
        return Ok(Vec::new());
    }
    let text = apt::output(&mut inside(tree, &["--list"], program), Stdio::null())?;
    let mut found = Vec::new();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once("=>") else { continue };
        let path = rest.split(" (").next().unwrap_or_default().trim();
        let path = Path::new(path);
        // The loader itself, under its usual name.
        if name.trim().starts_with('/') {
            continue;
        }
        let below = path.strip_prefix(tree);
        let below = below
            .map_err(|_| Error::Package(format!("{} needs {}", program.display(), name.trim())))?;
        found.push(below.to_owned());
    }
    Ok(found)
}

/// The loader's name in a program that is not linked statically, and how far behind a program's start it is.
const INTERPRETER: &[u8] = b"/lib64/ld-linux-x86-64.so.2";
const LONGEST_HEADER: usize = 4096;

/// The folders and links of the root.
fn lay_out(root: &Path) -> Result<(), Error> {
    for folder in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        LIBRARIES,
        "etc",
        "var/tmp",
        "var/log",
        "root",
        "mnt",
        "proc",
        "sys",
        "dev",
        "run",
        "tmp",
    ] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).map_err(Error::path("create", &folder))?;
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("var/run", "/run"),
        ("etc/mtab", "/proc/self/mounts"),
        ("usr/bin/sh", "dash"),
    ] {
        let link = root.join(link);
        symlink(target, &link).map_err(Error::path("create", &link))?;
    }
    write(&root.join("etc/passwd"), b"root:x:0:0:root:/root:/bin/sh\n")?;
    write(&root.join("etc/group"), b"root:x:0:\ndisk:x:6:\n")?;
    write(&root.join("etc/hosts"), b"127.0.0.1 localhost\n::1 localhost\n")?;
    write(&root.join("etc/hostname"), b"guest\n")
}

/// Takes the file, or the link and what it means, from `tree` to the same place in `root`.
fn place(tree: &Path, root: &Path, path: &Path) -> Result<(), Error> {
    let (from, to) = (tree.join(path), root.join(path));
    if let Some(above) = to.parent() {
        fs::create_dir_all(above).map_err(Error::path("create", above))?;
    }
    if to.is_symlink() || to.exists() {
        return Ok(());
    }
    if !from.is_symlink() {
        return fs::copy(&from, &to).map(drop).map_err(Error::path("copy", &from));
    }
    let target = fs::read_link(&from).map_err(Error::path("read", &from))?;
    let above = path.parent().unwrap_or(Path::new(""));
    // An absolute link means a place in the tree.
    let meant = match target.strip_prefix("/") {
        Ok(below) => below.to_owned(),
        Err(_) => above.join(&target),
    };
    symlink(&target, &to).map_err(Error::path("create", &to))?;
    place(tree, root, &meant)
}

/// Copies a tree of folders and files.
fn copy_tree(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir_all(to).map_err(Error::path("create", to))?;
    for entry in fs::read_dir(from).map_err(Error::path("read", from))? {
        let path = entry.map_err(Error::path("read", from))?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_tree(&path, &place)?;
        } else {
            fs::copy(&path, &place).map_err(Error::path("copy", &path))?;
        }
    }
    Ok(())
}

/// Puts `busybox` on the disk, for all names of its that no other program has.
fn add_busybox(busybox: &Path, root: &Path) -> Result<(), Error> {
    let program = root.join("usr/bin/busybox");
    fs::copy(busybox, &program).map_err(Error::path("copy", busybox))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .map_err(Error::path("change", &program))?;
    for name in base::applets(busybox)? {
        let taken = ["usr/bin", "usr/sbin"].iter().any(|folder| {
            root.join(folder).join(&name).is_symlink() || root.join(folder).join(&name).exists()
        });
        if !taken {
            let link = root.join("usr/bin").join(&name);
            symlink("busybox", &link).map_err(Error::path("create", &link))?;
        }
    }
    // The kernel's own name for it, when it wants a module.
    let link = root.join("usr/sbin/modprobe");
    if !link.exists() {
        symlink("../bin/busybox", &link).map_err(Error::path("create", &link))?;
    }
    Ok(())
}

/// Makes an ext4 file system with what is in `root`, by the `mke2fs` that is in `packages`.
fn image(packages: &Path, root: &Path, image: &Path) -> Result<(), Error> {
    let bytes = size(root)?.saturating_add(ROOM).next_multiple_of(1 << 20);
    let mut command = inside(packages, &[], Path::new("usr/sbin/mke2fs"));
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-L", recipe::DISK_LABEL, "-U", UUID]);
    command
        .args(["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", "-d"])
        .arg(root)
        .arg(image);
    command.arg(format!("{}k", bytes >> 10)).env("MKE2FS_CONFIG", packages.join("etc/mke2fs.conf"));
    apt::output(&mut command, Stdio::null()).map(drop)
}

/// What the files below `folder` need on a disk, in bytes.
fn size(folder: &Path) -> Result<u64, Error> {
    let mut bytes: u64 = 0;
    for entry in fs::read_dir(folder).map_err(Error::path("read", folder))?.flatten() {
        let data = entry.metadata().map_err(Error::path("read", &entry.path()))?;
        bytes +=
            if data.is_dir() { size(&entry.path())? } else { data.len().next_multiple_of(4096) };
        bytes += 256;
    }
    Ok(bytes)
}
