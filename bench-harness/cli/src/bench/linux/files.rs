//! What the guest is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use paraslot_backends::block::{BlockBackend, FileBackend, FileOptions};
use paraslot_report::Guest;
use paraslot_testbed::Testbed;

use crate::run::fnv1a;

/// The kernel says nothing on the console, where it would break into the script's lines, unless it dies;
/// then the machine ends. Everything else that concerns speed is as the distribution has it.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=1 panic=-1 oops=panic random.trust_cpu=on \
     tsc=reliable no_timer_check nvme_core.multipath=N";

/// Debian's kernel and tools, ready to be used.
pub(crate) struct Files {
    testbed: Testbed,
    tools: PathBuf,
    command_line: String,
    /// The kernel, whose name is not known before it has run.
    kernel: Guest,
}

impl Files {
    /// Those in the folder `place`, which are made there unless they are. `append` are more words for the
    /// kernel.
    ///
    /// # Errors
    /// When they cannot be.
    pub(crate) fn prepare(place: Option<&Path>, append: Option<&str>) -> anyhow::Result<Self> {
        let place = place.map_or_else(Testbed::default_dir, Path::to_owned);
        let failed = || format!("the guest's files cannot be made in {}", place.display());
        let testbed = Testbed::prepare(&place).with_context(failed)?;
        let tools = testbed.guest_disk().with_context(failed)?;
        let kernel = testbed.vmlinux();
        let bytes =
            fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
        let kernel = Guest { name: None, bytes: bytes.len() as u64, fnv1a: fnv1a(&bytes) };
        let command_line = [COMMAND_LINE, append.unwrap_or_default()].join(" ");
        Ok(Self { testbed, tools, command_line, kernel })
    }

    /// The kernel's file.
    pub(super) fn kernel(&self) -> &Path {
        self.testbed.vmlinux()
    }

    /// What the kernel is told.
    pub(super) fn command_line(&self) -> &str {
        &self.command_line
    }

    /// What a report says of the guest, which calls itself `name`.
    pub(super) fn guest(&self, name: &str) -> Guest {
        Guest { name: Some(name.to_owned()), ..self.kernel.clone() }
    }

    /// An initial RAM disk that runs `script`.
    pub(super) fn initrd(&self, script: &str) -> anyhow::Result<Vec<u8>> {
        self.testbed.guest_initrd(script).context("cannot make the guest's initial RAM disk")
    }

    /// The root file system with the tools, which is not written to.
    pub(super) fn tools(&self) -> anyhow::Result<Arc<dyn BlockBackend>> {
        let options = FileOptions {
            read_only: true,
            // Any number of guests use it at once.
            lock: false,
            id: Some("tools".into()),
            ..FileOptions::new(&self.tools)
        };
        Ok(Arc::new(FileBackend::open(&options)?))
    }
}
