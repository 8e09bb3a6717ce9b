//! What is measured, and how.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::compare::baseline_name;
use crate::spec::Request;

/// How a guest whose device is measured reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum MeasuredPath {
    /// By an exit for each access.
    Trap,
    /// By eventfds and mapped registers where KVM can.
    Event,
    /// Likewise, with the device in a process of its own, as `paraslot serve` has it.
    VfioUser,
    /// By the hardware's own registers: devices of the host's.
    Passthrough,
}

/// Where the devices run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlatformName {
    /// In virtual machines.
    Kvm,
    /// In this process, with the drivers: shows that they work, says nothing about virtual machines.
    InProcess,
}

/// What runs in the virtual machines and drives the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GuestName {
    /// Drivers and workloads of ours, and nothing else.
    Freestanding,
    /// Debian's kernel with its own drivers, and fio. It needs a KVM that boots it.
    Linux,
}

/// Whose devices to measure besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// qemu-system-x86_64, with the same guest and the same image; of networks, a sink.
    Qemu,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// Show the names of what would be measured, and stop.
    #[arg(long)]
    pub(crate) list: bool,
    /// Measure only what has PATTERN in its name; `*` stands for anything. Given several times, all
    /// must match.
    #[arg(long, value_name = "PATTERN")]
    pub(crate) filter: Vec<String>,
    /// Where the devices run: KVM if this host has it, unless told.
    #[arg(long)]
    pub(crate) platform: Option<PlatformName>,
    /// What drives the devices, in virtual machines. Linux has completions by interrupt; its networks
    /// are TCP to the host's, which takes root.
    #[arg(long, default_value = "freestanding")]
    pub(crate) guest: GuestName,
    /// Directory for what a Linux guest is made of, some 200 MB, which is fetched once [default: as
    /// cargo testbed, target/testbed].
    #[arg(long, value_name = "DIR")]
    pub(crate) guest_files: Option<PathBuf>,
    /// More words for a Linux guest's kernel, like `mitigations=off`.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    pub(crate) guest_append: Option<String>,
    /// How guests reach their devices, several with commas in between [default: all but vfio-user].
    #[arg(long, value_name = "PATH", value_delimiter = ',')]
    pub(crate) path: Vec<MeasuredPath>,
    /// A device to measure, like `virtio-blk,path=disk.img,direct=on` or `vfio,host=0000:00:05.0`; see
    /// `paraslot list`. Given several times, they are compared. Without: all that are ours, disks on an
    /// image of their own.
    #[arg(long, value_name = "SPEC")]
    pub(crate) device: Vec<Request>,
    /// Unmeasured start of each run, in milliseconds [default: 50; 200 in Linux].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(crate) warmup: Option<u32>,
    /// Measured part of each run, in milliseconds [default: 250; 1000 in Linux].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) time: Option<u32>,
    /// Fewest runs of each measurement [default: 3]. There are up to 6 if all of them together take
    /// no longer than two and a half minutes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) min_runs: Option<u32>,
    /// One short run of each: shows that all works, gives no figures to rely on.
    #[arg(long)]
    pub(crate) quick: bool,
    /// How long a device's thread polls before it sleeps, in microseconds.
    #[arg(long, value_name = "US", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) busy_poll: u32,
    /// Measure another monitor's devices in between.
    #[arg(long)]
    pub(crate) peer: Option<Peer>,
    /// Write the results there, too, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_json: Option<PathBuf>,
    /// Write the results there, too, as Markdown.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_markdown: Option<PathBuf>,
    /// Write the results there, too, as a page for a browser.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_html: Option<PathBuf>,
    /// Write the results there, too, as CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) export_csv: Option<PathBuf>,
    /// Keep the results as a baseline of that name, in the --out directory.
    #[arg(long, value_name = "NAME", value_parser = baseline_name)]
    pub(crate) save_baseline: Option<String>,
    /// Compare the results with that baseline, or record; status 3 if something is slower. See `paraslot
    /// compare --help`.
    #[arg(long, value_name = "NAME")]
    pub(crate) baseline: Option<String>,
    /// Have each look of a device's worker at its work take so many nanoseconds longer.
    #[arg(long, hide = true, value_name = "NS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) drag: u32,
    /// Directory for the results (in its `latest`) and for the temporary image.
    #[arg(long, value_name = "DIR", default_value = "target/paraslot")]
    pub(crate) out: PathBuf,
}

/// How long and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Milliseconds.
    pub(crate) warm_up_ms: u32,
    /// Milliseconds.
    pub(crate) measure_ms: u32,
    /// Fewest runs.
    pub(crate) min_runs: u32,
    /// Most runs.
    pub(crate) max_runs: u32,
}

impl RunArgs {
    /// The times that were asked for, or the usual ones.
    pub(crate) fn times(&self) -> Times {
        let (warm_up_ms, measure_ms, min_runs) = match (self.guest, self.quick) {
            (GuestName::Freestanding, false) => (50, 250, 3),
            (GuestName::Freestanding, true) => (10, 50, 1),
            // Programs take a while to find their pace, and booting takes longer anyway.
            (GuestName::Linux, false) => (200, 1000, 3),
            (GuestName::Linux, true) => (50, 250, 1),
        };
        let min_runs = self.min_runs.unwrap_or(min_runs);
        let enough = u32::try_from(paraslot_report::RUNS_FOR_95_PERCENT).unwrap_or(u32::MAX);
        Times {
            warm_up_ms: self.warmup.unwrap_or(warm_up_ms),
            measure_ms: self.time.unwrap_or(measure_ms),
            min_runs,
            max_runs: if self.quick { min_runs } else { min_runs.max(enough) },
        }
    }
}
