//! The command line.

mod control;
mod run;
mod shown;

use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::compare::CompareArgs;
use crate::spec::{Plugged, Served};

pub(crate) use control::{ControlArgs, Ordered, Switch};
pub(crate) use run::{GuestName, MeasuredPath, Peer, PlatformName, RunArgs, Times};
pub(crate) use shown::{CatalogueArgs, Format, InspectArgs, ReportArgs, ReportFormat};

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
    /// Show what completes command lines of this program in a shell: for bash, put it into
    /// ~/.local/share/bash-completion/completions/paraslot.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages (paraslot.1, paraslot-run.1 and so on) into a directory.
    Manual {
        /// The directory, which is made if need be.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
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
