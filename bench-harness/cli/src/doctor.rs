//! What this host can do, and what to do about what it cannot.

mod passthrough;

use std::{fmt, io};

use paraslot_vmm::{Probe, VmError};

use crate::{bench::qemu, machine, sys};

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Good,
    /// Figures suffer, or something optional is missing.
    Poor,
    /// Measuring under KVM is not possible.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    health: Health,
    what: &'static str,
    is: String,
    /// What to do about it.
    advice: Option<String>,
}

impl Finding {
    fn new(health: Health, what: &'static str, is: impl Into<String>) -> Self {
        Self { health, what, is: is.into(), advice: None }
    }
    fn advise(mut self, advice: &str) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.health {
            Health::Good => "ok",
            Health::Poor => "!",
            Health::Bad => "NO",
        };
        write!(f, "{mark:>2}  {:<14}{}", self.what, self.is)?;
        if let Some(advice) = &self.advice {
            write!(f, "\n{:18}-> {advice}", "")?;
        }
        Ok(())
    }
}

/// What was found.
pub(crate) struct Report {
    findings: Vec<Finding>,
    /// The host's functions, if there is something to say of them.
    functions: String,
}

impl Report {
    /// Looks at this host; shows all of its functions if `verbose`.
    pub(crate) fn look(verbose: bool) -> Self {
        let probe = paraslot_vmm::probe();
        let virtualisation = machine::has_virtualisation();
        let boots = probe.as_ref().ok().map(|probe| boots(probe.hardware_assisted));
        let mut findings = kvm(probe, virtualisation);
        findings.extend(boots);
        findings.extend([
            nested(machine::is_virtual(), machine::hypervisor_below().as_deref()),
            processors(sys::allowed_cpus().map(|cpus| cpus.len()).unwrap_or(1)),
        ]);
        findings.extend(machine::governor(0).map(|name| governor(&name)));
        findings.extend([
            io_uring(machine::io_uring_disabled(), uring_works()),
            tap(machine::open_tun(), machine::may_administer_networks()),
            memory(machine::available_memory()),
            peer(qemu::version()),
            build(cfg!(debug_assertions)),
        ]);
        let (passthrough, functions) = passthrough::look(verbose);
        findings.extend(passthrough);
        Self { findings, functions }
    }

    /// Whether measuring under KVM is possible.
    pub(crate) fn usable(&self) -> bool {
        self.findings.iter().all(|finding| finding.health != Health::Bad)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.findings.iter().try_for_each(|finding| writeln!(f, "{finding}"))?;
        f.write_str(&self.functions)
    }
}

fn kvm(probe: Result<Probe, VmError>, virtualisation: Option<bool>) -> Vec<Finding> {
    const IN_PROCESS: &str = "until then, `paraslot --platform in-process` shows that devices and \
                              drivers work";
    let probe = match probe {
        Ok(probe) => probe,
        Err(error) => {
            let advice = match (&error, virtualisation) {
                (VmError::NoKvm, Some(true)) => "load the module: modprobe kvm_intel or kvm_amd",
                (VmError::NoKvm, _) => {
                    "switch virtualisation on in the firmware, or nested virtualisation in the \
                     hypervisor below"
                }
                (VmError::Permission, _) => {
                    "join the group: sudo usermod -aG kvm $USER, then log in again"
                }
                _ => "see the kernel's log",
            };
            let finding = Finding::new(Health::Bad, "/dev/kvm", error.to_string());
            return vec![finding.advise(&format!("{advice}; {IN_PROCESS}"))];
        }
    };
    let mut findings = vec![Finding::new(Health::Good, "/dev/kvm", "usable")];
    let missing: Vec<_> = probe.capabilities.iter().filter(|one| !one.present).collect();
    for capability in &missing {
        let health = if capability.required { Health::Bad } else { Health::Poor };
        let is = format!("no {} ({})", capability.name, capability.purpose);
        findings.push(Finding::new(health, "KVM", is).advise("a newer kernel has it"));
    }
    if missing.is_empty() {
        findings.push(Finding::new(Health::Good, "KVM", "has all that is used here"));
    }
    findings
}

/// Whether ordinary kernels boot.
fn boots(hardware_assisted: bool) -> Finding {
    const WHAT: &str = "Linux guests";
    if hardware_assisted {
        return Finding::new(Health::Good, WHAT, "this KVM boots them: paraslot boot");
    }
    let is = "not here: KVM has no SVM or VMX, and interprets a guest's kernel";
    Finding::new(Health::Poor, WHAT, is)
        .advise("paraslot boot runs on the test bed: cargo testbed run -- paraslot boot ...")
}

fn nested(is_virtual: Option<bool>, below: Option<&str>) -> Finding {
    const WHAT: &str = "host";
    match is_virtual {
        Some(true) if machine::is_emulator(below) => {
            let is = "emulated (TCG)";
            Finding::new(Health::Poor, WHAT, is)
                .advise("times mean little here; exits, doorbells and interrupts are exact")
        }
        Some(true) => {
            let is = format!("a virtual machine on {}", below.unwrap_or("an unknown hypervisor"));
            Finding::new(Health::Poor, WHAT, is).advise(
                "exits cost more than on hardware: compare figures of this host with each other only",
            )
        }
        Some(false) => Finding::new(Health::Good, WHAT, "hardware"),
        None => Finding::new(Health::Poor, WHAT, "unknown: /proc/cpuinfo does not tell"),
    }
}

fn processors(allowed: usize) -> Finding {
    const WHAT: &str = "processors";
    if allowed >= 2 {
        let is = format!("{allowed}: guest and device get one each");
        return Finding::new(Health::Good, WHAT, is);
    }
    Finding::new(Health::Poor, WHAT, "1: results are not pinned, guest and device take turns")
        .advise("allow this process two processors or more (taskset, cgroup cpuset)")
}

fn governor(name: &str) -> Finding {
    const WHAT: &str = "frequency";
    let is = format!("governor {name}");
    if name == "performance" {
        return Finding::new(Health::Good, WHAT, is);
    }
    Finding::new(Health::Poor, WHAT, is)
        .advise("for steady figures: sudo cpupower frequency-set -g performance")
}

fn io_uring(disabled: Option<u32>, works: bool) -> Finding {
    const WHAT: &str = "io_uring";
    if works {
        return Finding::new(Health::Good, WHAT, "usable");
    }
    let finding = Finding::new(Health::Poor, WHAT, "not usable: files are served by threads");
    match disabled {
        Some(1 | 2) => finding.advise("switch it on: sudo sysctl kernel.io_uring_disabled=0"),
        _ => finding.advise("it needs Linux 5.10 or later, and a sandbox that allows it"),
    }
}

/// Opening the device takes no more than its permissions; making an interface takes the capability,
/// and using one that was made for this user takes neither.
fn tap(openable: io::Result<()>, capable: Option<bool>) -> Finding {
    const WHAT: &str = "TAP";
    match (openable, capable) {
        (Err(error), _) => {
            let is = format!("not usable: cannot open /dev/net/tun ({error})");
            Finding::new(Health::Poor, WHAT, is)
                .advise("for backend=tap: modprobe tun, and permission to open /dev/net/tun")
        }
        (Ok(()), Some(true)) => Finding::new(Health::Good, WHAT, "usable"),
        (Ok(()), _) => {
            let is = "only interfaces that were made for this user (no CAP_NET_ADMIN)";
            Finding::new(Health::Poor, WHAT, is)
                .advise("for backend=tap: sudo ip tuntap add tap0 mode tap user $USER vnet_hdr")
        }
    }
}

fn memory(available: Option<u64>) -> Finding {
    const WHAT: &str = "memory";
    /// Guest, two images in the page cache, and some more.
    const ENOUGH: u64 = 1 << 30;
    match available {
        None => Finding::new(Health::Poor, WHAT, "unknown: /proc/meminfo does not tell"),
        Some(bytes) => {
            let is = format!("{} MiB available", bytes >> 20);
            if bytes >= ENOUGH {
                Finding::new(Health::Good, WHAT, is)
            } else {
                Finding::new(Health::Poor, WHAT, is)
                    .advise("below 1 GiB the images drop out of the page cache: free some")
            }
        }
    }
}

fn peer(version: Option<String>) -> Finding {
    const WHAT: &str = "QEMU";
    match version {
        Some(version) => Finding::new(Health::Good, WHAT, version),
        None => Finding::new(Health::Poor, WHAT, "not installed: --peer qemu is not possible")
            .advise(qemu::INSTALL),
    }
}

fn build(debug: bool) -> Finding {
    const WHAT: &str = "this program";
    if debug {
        Finding::new(Health::Poor, WHAT, "built without optimisation")
            .advise("figures need cargo run --release")
    } else {
        Finding::new(Health::Good, WHAT, "built with optimisation")
    }
}

/// Whether a file can be served by io_uring.
fn uring_works() -> bool {
    use paraslot_backends::block::{Engine, FileOptions};
    // Any file with a size that is a multiple of the block size will do.
    let Ok(file) = crate::image::TemporaryFile::with(&std::env::temp_dir(), &[0; 4096]) else {
        return false;
    };
    let options =
        FileOptions { read_only: true, engine: Engine::IoUring, ..FileOptions::new("a file") };
    file.open(&options).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_comes_with_advice_and_takes_a_line() {
        let problems = [
            kvm(Err(VmError::NoKvm), Some(true)),
            kvm(Err(VmError::NoKvm), Some(false)),
            kvm(Err(VmError::Permission), None),
            vec![
                boots(false),
                nested(Some(true), Some("TCGTCGTCGTCG")),
                nested(Some(true), Some("KVMKVMKVM")),
                processors(1),
                governor("powersave"),
                io_uring(Some(2), false),
                io_uring(None, false),
                tap(Err(io::ErrorKind::NotFound.into()), Some(true)),
                tap(Ok(()), Some(false)),
                tap(Ok(()), None),
                memory(Some(1 << 20)),
                peer(None),
                build(true),
            ],
        ];
        for finding in problems.into_iter().flatten() {
            assert_ne!(finding.health, Health::Good);
            assert!(finding.advice.is_some(), "{finding}");
            assert_eq!(finding.to_string().lines().count(), 2, "{finding}");
        }
    }

    #[test]
    fn what_is_well_needs_no_advice() {
        for finding in [
            boots(true),
            nested(Some(false), None),
            processors(2),
            governor("performance"),
            io_uring(Some(0), true),
            tap(Ok(()), Some(true)),
            memory(Some(2 << 30)),
            peer(Some("QEMU 9".into())),
            build(false),
        ] {
            assert_eq!((finding.health, &finding.advice), (Health::Good, &None), "{finding}");
        }
    }

    #[test]
    fn only_what_prevents_measuring_makes_a_host_unusable() {
        let usable = |findings| Report { findings, functions: String::new() }.usable();
        assert!(!usable(kvm(Err(VmError::NoKvm), None)));
        assert!(usable(vec![peer(None), processors(1), build(true), boots(false)]));
    }
}
