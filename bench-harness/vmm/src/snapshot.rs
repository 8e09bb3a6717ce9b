//! A machine as a directory, from which another goes on.
//!
//! `state.json` has what is not memory: the vCPUs, the interrupt controllers, the machine's own devices
//! and the functions' states. `memory` is the guest's memory from its first byte to its last, without
//! the hole below 4 GiB; pages of zeroes are holes in the file. What functions keep elsewhere, such as a
//! disk's data, is not in it: a machine goes on with the same, as it was when it was saved.
//!
//! A machine is saved while it stands still: its vCPUs between two instructions, with every access that
//! they had begun carried out; then its functions are paused, so that requests have ended or are part of
//! their states; and then interrupts that are on their way arrive. Restoring goes the other way round:
//! memory and vCPUs with their local APICs, the I/O APIC, which may raise interrupts at once, and the
//! functions, which raise theirs when they are resumed.
//!
//! Nothing in the files is trusted. What says that it is of another machine is refused, and so is what
//! KVM or a function refuses; a guest that is left after that may be another than was saved, but is a
//! guest.

mod chips;
mod cpu;
mod memory;
mod packed;
#[cfg(test)]
mod tests;
mod xsave;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kvm_bindings::kvm_cpuid_entry2;
use paraslot_device::{DeviceError, SavedState, StateError};
use paraslot_pci::Bdf;
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

pub(crate) use chips::{Chips, read_clock, restore_chips, restore_clock, save_chips};
pub(crate) use cpu::{CpuState, Msr, Processor};
pub(crate) use memory::bytes as memory_bytes;

use crate::VmError;
use crate::bus::Bus;

/// The layout of the files.
pub(crate) const VERSION: u32 = 1;
const STATE: &str = "state.json";
const UNFINISHED: &str = "state.json.new";
const MEMORY: &str = "memory";
/// Most bytes of `state.json`: some 40 KiB a vCPU, and the guest's console.
const STATE_MAX: u64 = 64 << 20;

/// Why a machine could not be saved, or not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// A file cannot be written or read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// There is a snapshot already.
    #[error("{} has a snapshot already", .0.display())]
    Taken(PathBuf),
    /// The state is not one, or has more or less than it should.
    #[error("malformed snapshot: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It was saved by a version that this one does not know.
    #[error("the snapshot has version {found}, and {VERSION} is the one that is known")]
    Version {
        /// The snapshot's.
        found: u32,
    },
    /// It is another machine's, or no machine's.
    #[error("the snapshot does not fit: {0}")]
    Mismatch(String),
    /// The guest does something that is not saved.
    #[error("the guest cannot be saved: {0}")]
    Unsupported(&'static str),
    /// A function could not be paused or resumed.
    #[error("{bdf}: {error}")]
    Function {
        /// Where it is.
        bdf: Bdf,
        /// Why not.
        #[source]
        error: DeviceError,
    },
    /// A function could not be saved, or does not take its state over.
    #[error("{bdf}: {error}")]
    State {
        /// Where it is.
        bdf: Bdf,
        /// Why not.
        #[source]
        error: StateError,
    },
}

impl SnapshotError {
    pub(crate) fn mismatch(what: impl Into<String>) -> Self {
        Self::Mismatch(what.into())
    }

    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |error| Self::Io { path, error }
    }
}

/// A machine's state, memory aside.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineState {
    pub(crate) version: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) processor: Processor,
    pub(crate) cpus: Vec<CpuState>,
    /// KVM's clock in nanoseconds, as guests of kvmclock have it.
    pub(crate) clock: u64,
    pub(crate) chips: Chips,
    pub(crate) bus: BusState,
    pub(crate) board: BoardState,
}

/// The functions, and the bus's own register.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BusState {
    /// CONFIG_ADDRESS.
    pub(crate) address: u32,
    pub(crate) functions: Vec<FunctionState>,
}

/// A function and where it is.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FunctionState {
    pub(crate) bus: u8,
    pub(crate) device: u8,
    pub(crate) function: u8,
    pub(crate) state: SavedState,
}

/// What a machine has on its board.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum BoardState {
    /// That of [`Vm`](crate::Vm).
    Measuring(crate::ports::PortsState),
    /// That of [`LinuxVm`](crate::LinuxVm).
    Linux(crate::chipset::ChipsetState),
}

/// A snapshot of a machine in a directory, read but for its memory.
pub struct Snapshot {
    pub(crate) state: MachineState,
    directory: PathBuf,
}

impl Snapshot {
    /// Reads a snapshot.
    ///
    /// # Errors
    /// When the directory has none, or one that is malformed or of another version.
    pub fn open(directory: &Path) -> Result<Self, SnapshotError> {
        let path = directory.join(STATE);
        let mut text = Vec::new();
        let read = regular(&path)?.take(STATE_MAX + 1).read_to_end(&mut text);
        let len = read.map_err(SnapshotError::io(&path))?;
        if u64::try_from(len).is_ok_and(|len| len > STATE_MAX) {
            return Err(SnapshotError::mismatch(format!("{STATE} is too long")));
        }
        Ok(Self { state: parse(&text)?, directory: directory.to_owned() })
    }

    /// Makes a directory for a snapshot, if need be: so that whoever saves a machine later knows now that
    /// it can be written to.
    ///
    /// # Errors
    /// When it cannot be made, or has a snapshot.
    pub fn prepare(directory: &Path) -> Result<(), SnapshotError> {
        prepare(directory)
    }

    /// Bytes of memory that the machine had.
    pub fn memory_bytes(&self) -> u64 {
        self.state.memory_bytes
    }

    /// vCPUs that it had; of [`Vm`](crate::Vm), 1.
    pub fn cpus(&self) -> usize {
        self.state.cpus.len()
    }

    /// Where it had functions, the host bridge included.
    pub fn functions(&self) -> Vec<Bdf> {
        self.state.bus.functions.iter().map(FunctionState::bdf).collect()
    }

    /// Has `memory` be as it was.
    pub(crate) fn restore_memory(&self, memory: &GuestMemoryMmap) -> Result<(), SnapshotError> {
        let path = self.directory.join(MEMORY);
        let (bytes, saved) = (memory::bytes(memory), self.state.memory_bytes);
        if bytes != saved {
            let what = format!("it is of a machine with {saved} bytes of memory, not {bytes}");
            return Err(SnapshotError::mismatch(what));
        }
        let mut file = regular(&path)?;
        let len = file.metadata().map_err(SnapshotError::io(&path))?.len();
        if len != bytes {
            let what = format!("{MEMORY} has {len} bytes, and the machine {bytes}");
            return Err(SnapshotError::mismatch(what));
        }
        memory::load(memory, &mut file).map_err(SnapshotError::io(&path))
    }
}

impl FunctionState {
    pub(crate) fn bdf(&self) -> Bdf {
        Bdf { bus: self.bus, device: self.device, function: self.function }
    }
}

fn parse(text: &[u8]) -> Result<MachineState, SnapshotError> {
    /// What every version has.
    #[derive(Deserialize)]
    struct Head {
        version: u32,
    }
    let Head { version } = serde_json::from_slice(text)?;
    if version != VERSION {
        return Err(SnapshotError::Version { found: version });
    }
    Ok(serde_json::from_slice(text)?)
}

/// Opens a file that is one: nothing that would have its reader wait.
fn regular(path: &Path) -> Result<File, SnapshotError> {
    if !fs::metadata(path).map_err(SnapshotError::io(path))?.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
        return Err(SnapshotError::Io { path: path.to_owned(), error });
    }
    File::open(path).map_err(SnapshotError::io(path))
}

/// Saves a machine that stands still to a directory, which is made if need be: its functions are paused, and
/// stay so, and then `gather` finds its state. If anything fails they go on.
pub(crate) fn save(
    directory: &Path,
    memory: &GuestMemoryMmap,
    bus: &Bus,
    gather: impl FnOnce() -> Result<MachineState, VmError>,
) -> Result<(), VmError> {
    prepare(directory)?;
    bus.pause()?;
    let saved = gather().and_then(|state| Ok(write(directory, memory, &state)?));
    if saved.is_err() {
        bus.resume()?;
    }
    saved
}

/// Writes a machine to a directory. The state comes last and at once: a directory that has one is whole.
fn write(
    directory: &Path,
    memory: &GuestMemoryMmap,
    state: &MachineState,
) -> Result<(), SnapshotError> {
    let text = serde_json::to_vec(state)?;
    let place = directory.join(STATE);
    let path = directory.join(MEMORY);
    let mut file = create(&path)?;
    let saved = memory::save(memory, &mut file).and_then(|()| file.sync_all());
    saved.map_err(SnapshotError::io(&path))?;
    let path = directory.join(UNFINISHED);
    let mut file = create(&path)?;
    let written = file.write_all(&text).and_then(|()| file.sync_all());
    written.map_err(SnapshotError::io(&path))?;
    fs::rename(&path, &place).map_err(SnapshotError::io(&place))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(SnapshotError::io(directory))
}

/// Makes the directory if need be. It must not have a snapshot.
fn prepare(directory: &Path) -> Result<(), SnapshotError> {
    // What a guest has in memory is nobody else's business.
    let made = DirBuilder::new().mode(0o700).recursive(true).create(directory);
    made.map_err(SnapshotError::io(directory))?;
    if directory.join(STATE).exists() {
        return Err(SnapshotError::Taken(directory.to_owned()));
    }
    Ok(())
}

fn create(path: &Path) -> Result<File, SnapshotError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(SnapshotError::io(path))
}

/// Checks that a snapshot was taken on a processor like this one.
pub(crate) fn check_processor(
    saved: &Processor,
    here: &[kvm_cpuid_entry2],
) -> Result<(), SnapshotError> {
    if saved.is_like(here) {
        return Ok(());
    }
    Err(SnapshotError::mismatch("it was taken with another processor, or another KVM"))
}

impl From<SnapshotError> for VmError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(Box::new(error))
    }
}
