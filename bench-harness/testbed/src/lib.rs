//! A machine in software emulation that has a complete KVM and an IOMMU, made of Debian packages.
//!
//! Tests of ordinary Linux guests need a KVM that runs them, and tests of passthrough need an IOMMU.
//! Many machines that tests run on have neither: they are virtual themselves. This crate makes a
//! machine that has both, in QEMU's emulation of a processor with SVM and of Intel's IOMMU. It runs one
//! command with the host's own files as its userland, so what was built on the host runs there:
//!
//! ```no_run
//! use paraslot_testbed::{Job, Testbed};
//!
//! let testbed = Testbed::prepare(&Testbed::default_dir())?;
//! let outcome = testbed.run(&Job::new(["ls", "-l", "/dev/kvm"], "/tmp"))?;
//! assert_eq!(outcome.status, 0, "{}", outcome.output);
//! # Ok::<(), paraslot_testbed::Error>(())
//! ```
//!
//! It also has what a guest inside is made of: a kernel, an initial RAM file system with every driver and
//! a test's script in it ([`Testbed::guest_initrd`]), and a root disk ([`Testbed::guest_disk`]).
//!
//! Everything comes from Debian 12's packages: the host needs `apt-get`, `dpkg-deb` and a mirror in
//! apt's sources, on x86-64, and no privilege. Of Debian's release the host may be another.

mod apt;
mod base;
mod bzimage;
mod console;
mod cpio;
mod disk;
mod error;
mod job;
mod machine;
mod modules;
mod prepare;
mod process;
mod quote;
mod recipe;
mod sources;

use std::fs;
use std::path::{Path, PathBuf};

pub use console::{Lines, said};
pub use error::Error;
pub use job::{Job, Outcome};
pub use machine::QUICK;

/// What a test bed consists of, ready to be used. Any number of processes may use one at once.
#[derive(Debug, Clone)]
pub struct Testbed {
    /// Where everything is.
    dir: PathBuf,
    /// The machine's parts.
    base: PathBuf,
    vmlinux: PathBuf,
    bzimage: PathBuf,
}

impl Testbed {
    /// Makes a test bed under `dir`, unless there is one: some 110 MB of packages are fetched, and half
    /// a minute passes. The next call takes milliseconds and no network. Two processes may call it at
    /// once, and an interrupted one leaves nothing that the next would take for finished. What it does
    /// goes to standard error.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if this host cannot have one; [`Error::Tool`] if a package could not be
    /// fetched.
    pub fn prepare(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(Error::path("create", dir))?;
        let dir = dir.canonicalize().map_err(Error::path("find", dir))?;
        let base = prepare::once(&dir, "base", &recipe::base(), base::make)?;
        Ok(Self { vmlinux: base.join(base::VMLINUX), bzimage: base.join(base::BZIMAGE), base, dir })
    }

    /// The folder `testbed` in cargo's target folder, as far as that can be told.
    #[must_use]
    pub fn default_dir() -> PathBuf {
        // Cargo marks its target folder so that backups leave it out.
        let program = std::env::current_exe().unwrap_or_default();
        let target = program
            .ancestors()
            .find(|folder| folder.join("CACHEDIR.TAG").is_file())
            .map(Path::to_owned);
        let target = target.or_else(|| std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
        target
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"))
            .join("testbed")
    }

    /// Runs a job's command on a machine of its own, and waits for its end. Jobs may run side by side.
    ///
    /// # Errors
    ///
    /// [`Error::Job`] if there is nothing that could be run, [`Error::Timeout`] if it did not end,
    /// [`Error::Machine`] if the machine ended without it. A command's exit status is no error.
    pub fn run(&self, job: &Job) -> Result<Outcome, Error> {
        machine::run(&self.base, job)
    }

    /// Debian's kernel, as an ELF file: starts at once, by PVH or by the 64-bit boot protocol.
    #[must_use]
    pub fn vmlinux(&self) -> &Path {
        &self.vmlinux
    }

    /// Debian's kernel, as its package has it: a bzImage, compressed with xz.
    #[must_use]
    pub fn bzimage(&self) -> &Path {
        &self.bzimage
    }

    /// An initial RAM file system for an inner guest, not compressed: busybox, the drivers of every device
    /// that it may have, and `script`, which runs with `sh -e` and the functions of `init/library.sh`.
    ///
    /// The console carries its output; the last line is `paraslot: exit N` with its exit status, and
    /// then the guest powers off. [`Lines`] and [`said`] are for who listens.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the archive cannot be read.
    pub fn guest_initrd(&self, script: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = prepare::read(&self.base.join(base::GUEST))?;
        let mut archive = cpio::Archive::new();
        archive.file("init", 0o755, include_bytes!("../init/guest.sh"));
        archive.file("paraslot/init", 0o755, include_bytes!("../init/guest.sh"));
        archive.file("paraslot/library", 0o644, include_bytes!("../init/library.sh"));
        archive.file("paraslot/script", 0o644, script.as_bytes());
        // The kernel unpacks one archive after the other.
        bytes.extend(archive.finish());
        Ok(bytes)
    }

    /// A root disk for an inner guest, an ext4 image: a small Debian with fio, e2fsprogs, util-linux,
    /// sg3-utils, nvme-cli, iproute2, ethtool, iperf3, pciutils and, for what these lack, busybox. Made at
    /// the first call, as [`Testbed::prepare`] does it.
    ///
    /// A guest with [`Testbed::guest_initrd`] runs its script there if its kernel's command line has
    /// `root=LABEL=paraslot`, or a device's name, on whichever controller the disk is. Without `rw` on the
    /// command line it writes nothing to it, so that guests may share it; a guest that is to write needs a
    /// copy.
    ///
    /// # Errors
    ///
    /// As [`Testbed::prepare`].
    pub fn guest_disk(&self) -> Result<PathBuf, Error> {
        let base = prepare::stamp(&self.base)?;
        let folder = prepare::once(&self.dir, "disk", &recipe::disk(&base), |folder, scratch| {
            disk::make(folder, scratch, &self.base)
        })?;
        Ok(folder.join(disk::IMAGE))
    }
}
