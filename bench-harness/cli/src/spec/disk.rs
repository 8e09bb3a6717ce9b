//! Disks.

use std::path::PathBuf;

use paraslot_backends::block::{self, FileOptions};
use paraslot_protocol::Device;
use serde::{Deserialize, Serialize};

use crate::order::by_name;

use super::limits::{BPS, IOPS, Limits, rate};
use super::{ADDR, OptionInfo, Purpose, SpecError, choose, option, queues, refuse, switch};

/// What a disk's data is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Backend {
    /// A file or block device.
    #[default]
    File,
    /// Memory of this process.
    Memory,
    /// Nothing.
    Null,
}

/// Who makes a file's system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Engine {
    /// io_uring.
    IoUring,
    /// A pool of threads.
    Threads,
}

/// What kind of drive it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Media {
    /// A disk.
    #[default]
    Disk,
    /// A CD-ROM drive with the image in it.
    Cdrom,
}

/// A disk with its options. What was not given is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskSpec {
    /// Which one.
    #[serde(with = "by_name")]
    pub(crate) device: Device,
    /// What is behind it.
    pub(crate) backend: Backend,
    /// The user's image; without, a temporary one.
    pub(crate) path: Option<PathBuf>,
    /// Queues that it offers.
    pub(crate) queues: Option<u16>,
    /// Whether it refuses writes.
    pub(crate) read_only: bool,
    /// Whether the user's image may be written.
    pub(crate) write: bool,
    /// Whether to go around the page cache.
    pub(crate) direct: bool,
    /// Who makes the system calls; without, whoever can.
    pub(crate) engine: Option<Engine>,
    /// Whether data is compared with what was written.
    pub(crate) verify: bool,
    /// Serial number.
    pub(crate) id: Option<String>,
    /// What kind of drive.
    pub(crate) media: Media,
    /// What its guest may take.
    pub(crate) limits: Limits,
}

const PATH: OptionInfo = option("path", "FILE", "image or block device; to measure, only read");
const BACKEND: OptionInfo =
    option("backend", "file|memory|null", "what keeps the data").only(&[Purpose::Measure]);
const QUEUES: OptionInfo = option("queues", "1..64", "queues to offer; workloads use the first");
const READ_ONLY: OptionInfo = option("readonly", "on|off", "refuse writes");
const WRITE: OptionInfo = option("write", "on|off", "let workloads overwrite the image at path")
    .only(&[Purpose::Measure]);
const DIRECT: OptionInfo = option("direct", "on|off", "go around the host's page cache");
const ENGINE: OptionInfo = option("engine", "io_uring|threads", "who makes the system calls");
const VERIFY: OptionInfo =
    option("verify", "on|off", "compare data; off to set beside backend=null, which has none")
        .only(&[Purpose::Measure]);
const ID: OptionInfo = option("id", "TEXT", "serial number, up to 20 characters");
const MEDIA: OptionInfo =
    option("media", "disk|cdrom", "what kind of drive").only(&[Purpose::Boot, Purpose::Serve]);

/// The options that a disk takes.
pub(super) fn options(device: Device) -> &'static [OptionInfo] {
    match device {
        Device::VirtioBlk => {
            &[PATH, BACKEND, QUEUES, READ_ONLY, WRITE, DIRECT, ENGINE, VERIFY, ID, IOPS, BPS, ADDR]
        }
        Device::VirtioScsi => &[
            PATH, BACKEND, QUEUES, READ_ONLY, WRITE, DIRECT, ENGINE, VERIFY, ID, MEDIA, IOPS, BPS,
            ADDR,
        ],
        _ => &[PATH, BACKEND, READ_ONLY, WRITE, DIRECT, ENGINE, VERIFY, ID, MEDIA, IOPS, BPS, ADDR],
    }
}

impl DiskSpec {
    /// A disk with nothing said of it.
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            backend: Backend::default(),
            path: None,
            queues: None,
            read_only: false,
            write: false,
            direct: false,
            engine: None,
            verify: true,
            id: None,
            media: Media::default(),
            limits: Limits::default(),
        }
    }

    /// Whether a workload may write: not to a user's image unless that was asked for.
    pub(crate) fn writable(&self) -> bool {
        !self.read_only && (self.path.is_none() || self.write)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        match name {
            "path" if value.is_empty() => return refuse("path= needs a file's name"),
            "path" => self.path = Some(value.into()),
            "backend" => {
                let known =
                    [("file", Backend::File), ("memory", Backend::Memory), ("null", Backend::Null)];
                self.backend = choose(name, value, &known)?;
            }
            "queues" => self.queues = Some(queues(value, 64)?),
            "readonly" => self.read_only = switch(name, value)?,
            "write" => self.write = switch(name, value)?,
            "direct" => self.direct = switch(name, value)?,
            "verify" => self.verify = switch(name, value)?,
            "media" => {
                self.media =
                    choose(name, value, &[("disk", Media::Disk), ("cdrom", Media::Cdrom)])?;
            }
            "iops" => self.limits.operations = rate(name, value)?,
            "bps" => self.limits.bytes = rate(name, value)?,
            "engine" => {
                let known = [("io_uring", Engine::IoUring), ("threads", Engine::Threads)];
                self.engine = Some(choose(name, value, &known)?);
            }
            "id" if (1..=20).contains(&value.len())
                && value.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                self.id = Some(value.into());
            }
            "id" => return refuse(format!("id={value}: id is 1 to 20 visible ASCII characters")),
            _ => return refuse(format!("option {name} has no meaning")),
        }
        Ok(())
    }

    /// How the file at `path` is opened for it.
    pub(crate) fn file_options(&self, path: PathBuf) -> FileOptions {
        let engine = match self.engine {
            None => block::Engine::Auto,
            Some(Engine::IoUring) => block::Engine::IoUring,
            Some(Engine::Threads) => block::Engine::Threads,
        };
        FileOptions { direct: self.direct, engine, ..FileOptions::new(path) }
    }

    pub(super) fn check(&self, purpose: Purpose) -> Result<(), SpecError> {
        if purpose != Purpose::Measure && self.path.is_none() {
            return refuse(format!("{} needs path=FILE, an image or block device", self.device));
        }
        if self.backend != Backend::File {
            for (given, name) in [
                (self.path.is_some(), "path"),
                (self.read_only, "readonly"),
                (self.direct, "direct"),
                (self.engine.is_some(), "engine"),
            ] {
                if given {
                    return refuse(format!("option {name} is for backend=file"));
                }
            }
        }
        if self.write && self.path.is_none() {
            return refuse("write=on is for an image of your own: give its path, too");
        }
        if self.write && self.read_only {
            return refuse("write=on and readonly=on contradict each other");
        }
        Ok(())
    }
}
