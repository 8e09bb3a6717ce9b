//! Where and how a report was measured.

use serde::{Deserialize, Serialize};

/// Where and how a report was measured. What could not be found out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The program's version.
    pub version: String,
    /// The project's revision.
    pub revision: Option<String>,
    /// Whether the program was built with optimisation: `release` or `debug`.
    pub build: String,
    /// When it was measured: the start, in UTC, as RFC 3339 has it.
    pub date: String,
    /// The program's arguments, its own name first.
    pub command_line: Vec<String>,
    /// The host's processor.
    pub cpu_model: Option<String>,
    /// The host's kernel.
    pub kernel: Option<String>,
    /// What ran the guests (`kvm`); `None` where none did.
    pub hypervisor: Option<String>,
    /// Whether that host is itself a virtual machine.
    pub nested: Option<bool>,
    /// The signature of the hypervisor below the host, where it is one.
    pub below: Option<String>,
    /// The guest; `None` where none ran.
    pub guest: Option<Guest>,
    /// What was behind the devices, as options of the command line, each once.
    pub backend: Vec<String>,
    /// The processors that were used; `None` if the scheduler was left to choose.
    pub pinned: Option<Pinning>,
    /// How long a device's thread polls before it sleeps, in microseconds.
    pub busy_poll_us: u64,
    /// The unmeasured start of each run, in milliseconds.
    pub warm_up_ms: u32,
    /// The measured part of each run, in milliseconds.
    pub measure_ms: u32,
    /// What a reader of the figures must know besides.
    pub notes: Vec<String>,
}

/// The signature by which QEMU's software emulation tells a host below which it is.
pub const EMULATOR: &str = "TCGTCGTCGTCG";

impl Manifest {
    /// Whether the host's processor is software. Counts are exact there, and times mean little.
    pub fn is_emulated(&self) -> bool {
        self.below.as_deref() == Some(EMULATOR)
    }
}

/// The guest's image, or its kernel's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// What it is, of a guest that others made too: its kernel and the programs that measured.
    #[serde(default)]
    pub name: Option<String>,
    /// Its size in bytes.
    pub bytes: u64,
    /// The 64-bit FNV-1a hash of the image, in hexadecimal. It tells images apart; it does not vouch
    /// for one.
    pub fnv1a: String,
}

/// Who ran where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinning {
    /// The processor of the virtual processor.
    pub vcpu: u32,
    /// The processor of the device's threads.
    pub device: u32,
}
