//! What the process can still reach when it serves: its image, its interface, its sockets, and of the kernel
//! as much as these need.
//!
//! Two walls, one behind the other. Landlock leaves the files that the devices have, for as long as the
//! process lives. seccomp leaves the system calls that serving takes. Opening a file is none of them and is
//! refused; whoever makes another, to connect somewhere or start a thread or process, ends this one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::spec::{Engine, Request};

/// The newest that is asked for; of an older kernel's, what there is.
const LANDLOCK: ABI = ABI::V6;

/// System calls that serving takes, whatever the device: memory, threads, descriptors, time, and messages of a
/// connection that there is.
const ALWAYS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Of the sockets, at the end.
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Refused, not fatal: the C library looks into `/sys` for how many processors there are, and does without.
const REFUSED: &[libc::c_long] = &[libc::SYS_open, libc::SYS_openat];

/// What images take besides, whoever makes the calls.
const IMAGES: &[libc::c_long] = &[
    libc::SYS_fallocate,
    libc::SYS_fdatasync,
    libc::SYS_fsync,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
];

const IO_URING: &[libc::c_long] =
    &[libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_io_uring_setup];

/// ioctl requests: of sockets, that they do not block; of TAP interfaces, what the guest takes of offloads, and
/// its queues.
const ALWAYS_ASKED: &[u64] = &[libc::FIONBIO];
const TAPS_ASKED: &[u64] = &[libc::TUNSETOFFLOAD, libc::TUNSETQUEUE];

const PR_SET_NAME: u64 = libc::PR_SET_NAME.unsigned_abs() as u64;

/// What a set of devices needs.
pub(super) struct Sandbox {
    /// Files to be read and written, or only read.
    files: Vec<(PathBuf, bool)>,
    /// Directories in which sockets come and go.
    directories: Vec<PathBuf>,
    images: bool,
    io_uring: bool,
    taps: bool,
    control: bool,
}

impl Sandbox {
    /// For `requests`, served at `sockets`.
    pub(super) fn new<'a>(
        requests: impl Iterator<Item = &'a Request>,
        sockets: &[PathBuf],
    ) -> Self {
        let mut this = Self {
            files: Vec::new(),
            directories: sockets.iter().map(|path| directory(path)).collect(),
            images: false,
            io_uring: false,
            taps: false,
            control: false,
        };
        for request in requests {
            match request {
                Request::Disk(spec) => {
                    this.images = true;
                    this.io_uring |= spec.engine != Some(Engine::Threads);
                    let writes = !spec.read_only;
                    this.files.extend(spec.path.clone().map(|path| (path, writes)));
                }
                Request::Net(spec) if spec.tap().is_some() => {
                    this.taps = true;
                    this.files.push(("/dev/net/tun".into(), true));
                }
                Request::Net(_) | Request::Host(_) => {}
            }
        }
        this
    }

    /// With somebody who changes devices by a socket at that path.
    pub(super) fn with_control(mut self, path: Option<&Path>) -> Self {
        self.control = path.is_some();
        self.directories.extend(path.map(directory));
        self
    }

    /// From here on this thread, and those that it starts, reach no other files, no network by TCP, and no
    /// processes. Says whether the kernel can do that, or part of it.
    ///
    /// # Errors
    /// When a file is not there.
    pub(super) fn restrict_files(&self) -> anyhow::Result<bool> {
        let all = AccessFs::from_all(LANDLOCK);
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(all)?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?;
        let file = AccessFs::from_file(LANDLOCK);
        for (path, writes) in &self.files {
            let fd =
                PathFd::new(path).with_context(|| format!("cannot open {}", path.display()))?;
            let read = AccessFs::ReadFile | AccessFs::IoctlDev;
            let access = if *writes { file & !AccessFs::Execute } else { read };
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
        for directory in &self.directories {
            let fd = PathFd::new(directory)
                .with_context(|| format!("no directory {}", directory.display()))?;
            let access = AccessFs::MakeSock | AccessFs::RemoveFile;
            rules = rules.add_rule(PathBeneath::new(fd, access))?;
        }
        // What the kernel tells of itself: its processors, and the hardware behind a block device.
        for told in ["/proc", "/sys"] {
            if let Ok(fd) = PathFd::new(told) {
                let access = AccessFs::ReadFile | AccessFs::ReadDir;
                rules = rules.add_rule(PathBeneath::new(fd, access))?;
            }
        }
        let status = rules.restrict_self().context("cannot restrict files")?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }

    /// From here on no thread of the process makes other system calls.
    ///
    /// # Errors
    /// When the kernel does not take the filter.
    pub(super) fn restrict_system_calls(&self) -> anyhow::Result<()> {
        let install = |program: &BpfProgram| {
            seccompiler::apply_filter_all_threads(program).context("cannot restrict system calls")
        };
        // Of two filters the stricter counts.
        install(&refusing()?)?;
        install(&self.filter()?)
    }

    fn filter(&self) -> anyhow::Result<BpfProgram> {
        let mut rules: BTreeMap<libc::c_long, Vec<SeccompRule>> = BTreeMap::new();
        let mut allow = |calls: &[libc::c_long]| {
            rules.extend(calls.iter().map(|call| (*call, Vec::new())));
        };
        allow(ALWAYS);
        allow(REFUSED);
        if self.images {
            allow(IMAGES);
        }
        if self.io_uring {
            allow(IO_URING);
        }
        let taps = if self.taps { TAPS_ASKED } else { &[] };
        let is = |argument, value| {
            let equal = SeccompCmpOp::Eq;
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, equal, value)?;
            SeccompRule::new(vec![condition])
        };
        let requests = ALWAYS_ASKED.iter().chain(taps).map(|request| is(1, *request));
        rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
        if self.control {
            // How long a client may take, and no other option.
            let options = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO].map(|option| {
                let is = |argument, value: libc::c_int| {
                    let (size, equal) = (SeccompCmpArgLen::Dword, SeccompCmpOp::Eq);
                    SeccompCondition::new(argument, size, equal, value.unsigned_abs().into())
                };
                SeccompRule::new(vec![is(1, libc::SOL_SOCKET)?, is(2, option)?])
            });
            let options = options.into_iter().collect::<Result<_, _>>()?;
            rules.insert(libc::SYS_setsockopt, options);
        }
        // A thread that was just started may have its name still to be set.
        rules.insert(libc::SYS_prctl, vec![is(0, PR_SET_NAME)?]);
        let (missing, there) = (SeccompAction::KillProcess, SeccompAction::Allow);
        let filter = SeccompFilter::new(rules, missing, there, TargetArch::x86_64)?;
        Ok(filter.try_into()?)
    }
}

/// Where a socket is.
fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Refuses what is refused, and has nothing against the rest.
fn refusing() -> anyhow::Result<BpfProgram> {
    let rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}
