//! What two builds must have in common for their figures to be of the same thing.

use std::fmt;

use serde::Serialize;

use crate::{Completion, GuestKind, Path, Record, Size};

/// What was done, on what: the same in two reports if all of this is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Work {
    /// The device's name.
    pub device: String,
    /// How the guest reaches it.
    pub path: Path,
    /// What drove it.
    pub guest: GuestKind,
    /// How its driver learns of completions.
    pub completion: Completion,
    /// What was done.
    pub workload: String,
    /// Bytes of one operation.
    #[serde(flatten)]
    pub size: Size,
    /// Operations kept in flight.
    pub queue_depth: u32,
    /// Operations offered a second, if that was fixed.
    pub offered_per_second: Option<u32>,
    /// Who ran the device.
    pub vmm: String,
    /// What was behind it.
    pub backend: String,
    /// Where a report has several records of the same, which one: 0 for the first.
    pub repeated: usize,
}

impl Work {
    /// What a record is of; the first of its kind.
    pub fn of(record: &Record) -> Self {
        Self {
            device: record.device.clone(),
            path: record.path,
            guest: record.guest,
            completion: record.completion,
            workload: record.workload.clone(),
            size: record.size,
            queue_depth: record.queue_depth,
            offered_per_second: record.offered_per_second,
            vmm: record.vmm.clone(),
            backend: record.backend.clone(),
            repeated: 0,
        }
    }
}

/// As the program names measurements, with what its names leave out.
impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from files, and go to terminals.
        let plain = |text: &str| -> String {
            text.chars().map(|one| if one.is_control() { '?' } else { one }).collect()
        };
        if !matches!(self.vmm.as_str(), "paraslot" | "none") {
            write!(f, "{}:", plain(&self.vmm))?;
        }
        write!(f, "{}/{}/{}/", plain(&self.device), self.path, plain(&self.workload))?;
        match self.size {
            Size::Block(bytes) if bytes % 1024 == 0 => {
                write!(f, "{}k/qd{}", bytes / 1024, self.queue_depth)?;
            }
            Size::Block(bytes) => write!(f, "{bytes}/qd{}", self.queue_depth)?,
            Size::Frame(bytes) => write!(f, "{bytes}/b{}", self.queue_depth)?,
        }
        write!(f, "/{}", self.completion)?;
        match self.offered_per_second {
            Some(rate) if rate % 1000 == 0 => write!(f, "/{}k", rate / 1000)?,
            Some(rate) => write!(f, "/{rate}")?,
            None => {}
        }
        if self.guest == GuestKind::Linux {
            write!(f, " in Linux")?;
        }
        write!(f, " {}", plain(&self.backend))?;
        if self.repeated > 0 {
            write!(f, " #{}", self.repeated.saturating_add(1))?;
        }
        Ok(())
    }
}
