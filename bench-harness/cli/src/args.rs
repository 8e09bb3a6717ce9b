//! The command line.

mod control;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use paraslot_vfio::HostAddress;

use crate::compare::{CompareArgs, baseline_name};
use crate::spec::{Plugged, Request, Served};

pub(crate) use control::{ControlArgs, Ordered, Switch};

/// Compares paravirtual and emulated PCI devices inside a KVM guest.
///
/// Without a command it does `run`.
#[derive(Debug, Parser)]
#[command(name = "paraslot", version, args_conflicts_with_subcommands = true)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure and compare (the default).
    Run(RunArgs),
    /// Show a stored record: a table here, or the files that `run` writes.
    Report(ReportArgs),
    /// Compare what was measured of two builds, or measure two builds by turns.
    ///
    /// Status 0: nothing is slower. 3: something is. 1 and 2 as elsewhere: something failed, or the command
    /// line made no sense. With builds alike, the probability of any finding is 1 % at most, however many
    /// measurements there are. A change counts if it exceeds what each build's own runs differ by, and 1 %.
    ///
    /// Records know what their host did while they were written, and not what it did in between. --builds
    /// runs both programs by turns, which tells more, and sooner.
    Compare(CompareArgs),
    /// Show the devices and their options, and the workloads.
    List,
    /// Show what this host can do, and what to do about what it cannot. Ends with status 1 if
    /// measuring under KVM is not possible.
    Doctor(DoctorArgs),
    /// Boot a Linux guest with these devices, its serial console on this terminal.
    ///
    /// The guest ends the program: status 0 when it powers off or Ctrl-A x stops it, 1 if something
    /// fails. On a terminal Ctrl-A is the key for what the guest is not to get, and Ctrl-A h shows what
    /// there is. SIGTERM, SIGINT and SIGHUP press the power button, and stop the guest the second time.
    ///
    /// SIGUSR2 saves the guest to --snapshot's directory, in the middle of whatever it does, and ends the
    /// program with status 0. With --restore and the same devices it goes on from there: in the same
    /// second, as far as it can tell. A disk's data is not in a snapshot but in its image, which is not to
    /// change in between. A guest that has functions of the host's cannot be saved.
    Boot(BootArgs),
    /// Serve devices to other monitors over vfio-user: Cloud Hypervisor, QEMU from 10.1, and any that
    /// speak it.
    ///
    /// Each device has a socket and serves one client after another. SIGTERM, SIGINT, SIGHUP and SIGQUIT
    /// end it: what is in flight is waited for, and images are flushed. SIGUSR1 shows what has been served.
    /// Once everything is open, the process can reach nothing else.
    Serve(ServeArgs),
    /// Show what there is to know of a device before choosing it: who has drivers, what it can do and what
    /// it costs, its registers, how to attach it, and when another is the better choice. Without a DEVICE,
    /// all of them in a few lines.
    Catalogue(CatalogueArgs),
    /// Show this machine's own PCI functions in the catalogue's terms: what each is, whether it is
    /// paravirtual, emulated or real, its capabilities, and whether a guest could be given it.
    Inspect(InspectArgs),
    /// Change the devices of a `boot` or a `serve` that was given --control: limits, a disk's size, a link;
    /// and of `boot`, plug functions out and in.
    ///
    /// Devices are named as `list` shows them: those of `boot` by their number on the bus (as in addr=), those
    /// of `serve` by their place on the command line, from 1.
    Control(ControlArgs),
    /// Serve what `run` orders over its standard input: its own processes are these.
    #[command(hide = true)]
    ServeRun,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Show all of the host's PCI functions, not only those that could be passed through.
    #[arg(long, short)]
    pub(crate) verbose: bool,
}

/// In what form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For a terminal.
    Table,
    /// For programs.
    Json,
    /// For documents; of all devices with --out, a page for each in that directory.
    Markdown,
    /// A page of its own, with a search and all devices side by side.
    Html,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CatalogueArgs {
    /// One device, like `virtio-blk`.
    pub(crate) device: Option<String>,
    /// In what form to show it.
    #[arg(long, default_value = "table")]
    pub(crate) format: Format,
    /// Write it there rather than to the standard output.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// Show what the catalogue would keep of a record of measurements, to be put beside its code.
    #[arg(long, value_name = "RECORD", hide = true, conflicts_with_all = ["device", "out"])]
    pub(crate) costs: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// One function, like `0000:00:05.0` or `00:05.0`: everything of it.
    pub(crate) function: Option<HostAddress>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a record is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// Columns for a terminal.
    Table,
    /// A page for a browser, of one file.
    Html,
    /// A document.
    Markdown,
    /// Every figure in full, for a spreadsheet.
    Csv,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReportArgs {
    /// The record: a results.json of this version of the program or of an older one.
    pub(crate) file: PathBuf,
    /// How to show it, on the standard output.
    #[arg(long, default_value = "table")]
    pub(crate) format: ReportFormat,
    /// Write report.html, report.md and report.csv to a directory instead. It is made if need be.
    #[arg(long, value_name = "DIR", conflicts_with = "format")]
    pub(crate) out: Option<PathBuf>,
}

/// How a guest reaches its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PathName {
    /// By eventfds and mapped registers where KVM can.
    Event,
    /// By an exit for each access.
    Trap,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BootArgs {
    /// The kernel: a bzImage, or an ELF vmlinux. With --restore it is for when the guest reboots, which
    /// ends the program otherwise.
    #[arg(long, value_name = "FILE", required_unless_present = "restore")]
    pub(crate) kernel: Option<PathBuf>,
    /// The initial RAM disk.
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line, exactly; nothing is added to it.
    #[arg(long, value_name = "TEXT", default_value = "console=ttyS0")]
    pub(crate) append: String,
    /// Memory, in MiB, or with M or G behind it.
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory)]
    pub(crate) memory: u64,
    /// Processors.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=i64::from(paraslot_vmm::LINUX_CPUS_MAX)))]
    pub(crate) cpus: u8,
    /// How the guest reaches its devices.
    #[arg(long, default_value = "event")]
    pub(crate) path: PathName,
    /// End, with status 0, when the guest reboots.
    #[arg(long)]
    pub(crate) no_reboot: bool,
    /// Where SIGUSR2, or Ctrl-A s, saves the guest. The directory is made if need be, and must not have
    /// a snapshot yet.
    #[arg(long, value_name = "DIR")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Go on from a snapshot rather than boot: with its memory and processors, and --device as it was
    /// given then.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["memory", "cpus"])]
    pub(crate) restore: Option<PathBuf>,
    /// Listen for `paraslot control` at this path; only this user can connect.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// A device, like `virtio-blk,path=disk.img` or `vfio,host=0000:00:05.0`; see `paraslot list`. Each
    /// is at the next free place on the bus, 00:01.0 first, or at addr=.
    #[arg(long, value_name = "SPEC")]
    pub(crate) device: Vec<Plugged>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ServeArgs {
    /// A device, like `virtio-blk,path=disk.img` or `virtio-net,backend=tap,ifname=tap0`; see
    /// `paraslot list`. Given several times, all are served.
    #[arg(long, value_name = "SPEC", required = true)]
    pub(crate) device: Vec<Served>,
    /// The socket to serve it at, for each --device in the same order. Without any, the sockets that
    /// systemd passes on.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Vec<PathBuf>,
    /// Listen for `paraslot control` at this path; only this user can connect.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Do not restrict what the process can reach: no Landlock rules, no seccomp filter.
    #[arg(long)]
    pub(crate) no_sandbox: bool,
    /// How long a device's thread polls before it sleeps, in microseconds.
    #[arg(long, value_name = "US", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) busy_poll: u32,
}

/// A size of memory, in bytes.
fn memory(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 30),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 20),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| digits.parse::<u64>().ok()).flatten();
    match number.and_then(|number| number.checked_mul(1 << shift)) {
        // No kernel is smaller, and no processor addresses more.
        Some(bytes) if (16 << 20..=1 << 46).contains(&bytes) => Ok(bytes),
        _ => Err("a size is a number of MiB, or one like 512M or 2G, of 16M or more".into()),
    }
}

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

/// The one line for a command line that clap refuses.
pub(crate) fn refusal(error: &clap::Error) -> String {
    // What follows the first paragraph is usage and a pointer to the help.
    let text = error.render().to_string();
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_start_matches("error: ").to_owned();
    match whose(error) {
        Some(command) => format!("{line}: it is an option of paraslot {command}"),
        None => line,
    }
}

/// The command that has the option which another one refused.
fn whose(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else { return None };
    let long = given.strip_prefix("--")?;
    let long = long.split(['=', ' ']).next()?;
    let line = CommandLine::command();
    let has = |command: &&clap::Command| {
        command.get_arguments().any(|argument| argument.get_long() == Some(long))
    };
    line.get_subcommands().find(has).map(|command| command.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from([&["paraslot"], arguments].concat())
    }

    #[test]
    fn the_definition_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_the_same_options() {
        let bare = parse(&["--filter", "x", "--quick"]).unwrap();
        assert!(bare.command.is_none());
        let Some(Command::Run(run)) = parse(&["run", "--filter", "x", "--quick"]).unwrap().command
        else {
            panic!("not run")
        };
        assert_eq!(bare.run.filter, run.filter);
        assert!(bare.run.quick && run.quick);
    }

    #[test]
    fn times_are_the_usual_ones_unless_told() {
        let times = |arguments: &[&str]| parse(arguments).unwrap().run.times();
        let usual = Times { warm_up_ms: 50, measure_ms: 250, min_runs: 3, max_runs: 6 };
        assert_eq!(times(&[]), usual);
        let quick = Times { warm_up_ms: 10, measure_ms: 50, min_runs: 1, max_runs: 1 };
        assert_eq!(times(&["--quick"]), quick);
        let told = times(&["--quick", "--time", "7", "--warmup", "0", "--min-runs", "20"]);
        let expected = Times { warm_up_ms: 0, measure_ms: 7, min_runs: 20, max_runs: 20 };
        assert_eq!(told, expected);
        assert_eq!(times(&["--min-runs", "9"]).max_runs, 9);
        let linux = Times { warm_up_ms: 200, measure_ms: 1000, min_runs: 3, max_runs: 6 };
        assert_eq!(times(&["--guest", "linux"]), linux);
    }

    #[test]
    fn what_is_booted_has_usual_values() {
        let Some(Command::Boot(boot)) = parse(&["boot", "--kernel", "k"]).unwrap().command else {
            panic!("not boot")
        };
        assert_eq!((boot.append.as_str(), boot.cpus, boot.no_reboot), ("console=ttyS0", 1, false));
        assert_eq!((boot.memory, boot.path, boot.initrd), (512 << 20, PathName::Event, None));
        assert!(parse(&["boot"]).is_err());
        let Some(Command::Boot(boot)) = parse(&["boot", "--restore", "d"]).unwrap().command else {
            panic!("not boot")
        };
        assert_eq!((boot.kernel, boot.restore), (None, Some("d".into())));
        for told in ["--memory", "--cpus"] {
            assert!(parse(&["boot", "--restore", "d", told, "16"]).is_err(), "{told}");
        }
    }

    #[test]
    fn memory_is_counted_as_it_is_written() {
        for (text, bytes) in [("512", 512 << 20), ("16m", 16 << 20), ("2G", 2 << 30)] {
            assert_eq!(memory(text), Ok(bytes));
        }
        for text in ["", "M", "15", "-1G", "+32", "1.5G", "2T", "99999999999999G", "1048576G"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_option_of_another_command_is_known_for_it() {
        let refused = |arguments: &[&str]| refusal(&parse(arguments).unwrap_err());
        let boot = refused(&["boot", "--kernel", "k", "--quick"]);
        assert!(boot.ends_with("it is an option of paraslot run"), "{boot}");
        let run = refused(&["run", "--no-reboot"]);
        assert!(run.ends_with("it is an option of paraslot boot"), "{run}");
        assert!(!refused(&["run", "--nonsense"]).contains("option of paraslot"));
    }

    #[test]
    fn a_refusal_is_one_line() {
        for arguments in
            [&["--time", "0"][..], &["--nonsense"], &["nonsense"], &["--device", "floppy"]]
        {
            let line = refusal(&parse(arguments).unwrap_err());
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
            assert!(!line.starts_with("error"), "{line}");
        }
    }
}
