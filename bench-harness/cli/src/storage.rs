//! What is behind the devices: a user's image, temporary ones, memory, or nothing.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::bail;
use paraslot_backends::block::{
    self, BlockBackend, FileBackend, FileOptions, MemoryBackend, MemoryOptions, NullBackend,
    NullOptions,
};

use crate::image::{self, IMAGE_BYTES, TemporaryFile};
use crate::plan::{Cell, DiskWorkload, Plan};
use crate::spec::{Backend, DeviceSpec, DiskSpec, Engine};

/// Most bytes of an image that are used. A guest keeps two bytes for each block that it may write.
const SPAN_MAX: u64 = 16 << 30;

/// Serial number of disks that have neither been given one nor have a file's name.
const ID: &str = "paraslot";

/// Something for those workloads that leave it as it is, and another for those that do not: reads
/// are compared with what a fresh image has.
#[derive(Default)]
struct Pair<T> {
    read: Option<T>,
    written: Option<T>,
}

impl<T> Pair<T> {
    /// Makes those that `cells` need.
    fn new(cells: &[&Cell], mut make: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Self> {
        let mut one = |writes| {
            let needed = cells.iter().any(|cell| writes_in(cell) == writes);
            needed.then(&mut make).transpose()
        };
        Ok(Self { read: one(false)?, written: one(true)? })
    }

    fn of(&self, cell: &Cell) -> anyhow::Result<&T> {
        let one = if writes_in(cell) { &self.written } else { &self.read };
        match one {
            Some(one) => Ok(one),
            None => bail!("{} has no image", cell.name),
        }
    }
}

fn writes_in(cell: &Cell) -> bool {
    cell.disk().is_some_and(DiskWorkload::writes)
}

/// A disk's backend, for one run.
pub(crate) struct Opened {
    /// The image.
    pub(crate) backend: Arc<dyn BlockBackend>,
    /// What it is, as options of the command line.
    pub(crate) label: String,
}

/// All images.
pub(crate) struct Storage {
    files: Pair<TemporaryFile>,
    memory: Pair<MemoryBackend>,
    spans: Vec<u64>,
}

impl Storage {
    /// Makes the images that the plan needs, in `place`, and checks those of the user.
    pub(crate) fn new(plan: &Plan, place: &Path) -> anyhow::Result<Self> {
        let with = |backend| {
            let chosen = |cell: &&Cell| {
                matches!(&plan.devices[cell.device], DeviceSpec::Disk(disk)
                    if disk.backend == backend && disk.path.is_none())
            };
            plan.cells.iter().filter(chosen).collect::<Vec<_>>()
        };
        let files = || TemporaryFile::image(place, IMAGE_BYTES);
        let mut this = Self {
            spans: Vec::new(),
            files: Pair::new(&with(Backend::File), files)?,
            memory: Pair::new(&with(Backend::Memory), fresh_memory)?,
        };
        for cell in &plan.cells {
            this.spans.push(match (&plan.devices[cell.device], cell.disk()) {
                (DeviceSpec::Disk(disk), Some(workload)) => this.span(disk, cell, workload)?,
                // As much as of a temporary image, if it has that.
                (DeviceSpec::Passed(_), Some(_)) => IMAGE_BYTES,
                _ => 0,
            });
        }
        Ok(this)
    }

    fn span(&self, disk: &DiskSpec, cell: &Cell, workload: DiskWorkload) -> anyhow::Result<u64> {
        let span = self.open(disk, cell)?.backend.info().capacity.min(SPAN_MAX);
        let least = u64::from(workload.depth) * u64::from(workload.block_size);
        if span < least {
            bail!("{} has {span} bytes; {} needs {least}", path_of(disk), cell.name);
        }
        Ok(span)
    }

    /// For each measurement of the plan, how many bytes of its disk to use; 0 for networks.
    pub(crate) fn spans(&self) -> &[u64] {
        &self.spans
    }

    /// Opens what is behind a disk, for one run.
    pub(crate) fn open(&self, disk: &DiskSpec, cell: &Cell) -> anyhow::Result<Opened> {
        let memory = || Ok(self.memory.of(cell)?.clone());
        open(disk, memory, |options| self.files.of(cell)?.open(options))
    }

    /// The image behind a disk, for another process that is to open it, if it is one without a name.
    pub(crate) fn nameless(
        &self,
        disk: &DiskSpec,
        cell: &Cell,
    ) -> anyhow::Result<Option<BorrowedFd<'_>>> {
        match (disk.backend, &disk.path) {
            (Backend::File, None) => Ok(Some(self.files.of(cell)?.file(disk.direct)?.as_fd())),
            _ => Ok(None),
        }
    }

    /// The file behind a disk that has one, for another program.
    pub(crate) fn path(&self, disk: &DiskSpec, cell: &Cell) -> anyhow::Result<PathBuf> {
        match &disk.path {
            Some(path) => Ok(path.clone()),
            None => Ok(self.files.of(cell)?.path()),
        }
    }
}

/// A fresh image in memory.
pub(crate) fn fresh_memory() -> anyhow::Result<MemoryBackend> {
    let options = MemoryOptions { huge_pages: true, id: ID.into(), ..MemoryOptions::default() };
    let backend = MemoryBackend::new(IMAGE_BYTES, options)?;
    image::contents(IMAGE_BYTES, |offset, piece| backend.write_at(offset, piece))?;
    Ok(backend)
}

/// Opens what is behind a disk: `memory` for an image in memory, `nameless` for a file that has no name.
pub(crate) fn open(
    disk: &DiskSpec,
    memory: impl FnOnce() -> anyhow::Result<MemoryBackend>,
    nameless: impl FnOnce(&FileOptions) -> anyhow::Result<FileBackend>,
) -> anyhow::Result<Opened> {
    let (backend, mut label): (Arc<dyn BlockBackend>, String) = match disk.backend {
        Backend::Null => {
            let options = NullOptions { id: ID.into(), ..NullOptions::default() };
            (Arc::new(NullBackend::new(IMAGE_BYTES, options)?), "backend=null".into())
        }
        Backend::Memory => (Arc::new(memory()?), "backend=memory".into()),
        Backend::File => {
            let path = disk.path.clone().unwrap_or_else(|| ID.into());
            let options = FileOptions {
                read_only: !disk.writable(),
                // A temporary image has no name to go by.
                id: disk.path.is_none().then(|| ID.into()),
                ..disk.file_options(path)
            };
            let backend = match disk.path {
                Some(_) => FileBackend::open(&options)?,
                None => nameless(&options)?,
            };
            let engine = match backend.engine() {
                block::Engine::Threads => Engine::Threads,
                _ => Engine::IoUring,
            };
            let label = file_label(disk, engine);
            (Arc::new(backend), label)
        }
    };
    if !disk.verify {
        label.push_str(UNVERIFIED);
    }
    Ok(Opened { backend, label })
}

/// What is added to a backend's label when its data was not compared.
pub(crate) const UNVERIFIED: &str = ",verify=off";

/// What a file is, as options of the command line.
pub(crate) fn file_label(disk: &DiskSpec, engine: Engine) -> String {
    let mut label = String::from("backend=file");
    if let Some(path) = &disk.path {
        label.push_str(",path=");
        label.push_str(&path.display().to_string().replace(',', ",,"));
    }
    label.push_str(match engine {
        Engine::IoUring => ",engine=io_uring",
        Engine::Threads => ",engine=threads",
    });
    if disk.direct {
        label.push_str(",direct=on");
    }
    label
}

fn path_of(disk: &DiskSpec) -> String {
    disk.path.as_ref().map_or_else(|| "the image".into(), |path| path.display().to_string())
}
