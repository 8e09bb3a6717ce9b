//! What the host is.

use std::fs;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use paraslot_report::Pinning;

use crate::sys;

/// Whether this host's KVM boots ordinary kernels, for `command`, which says how to go about it elsewhere.
///
/// # Errors
/// Why not, and where it does.
pub(crate) fn check_boots_linux(command: &str) -> anyhow::Result<()> {
    if !paraslot_vmm::probe()?.hardware_assisted {
        bail!(
            "this host's KVM has no SVM or VMX and interprets a guest's kernel: an ordinary one does not boot \
             here; `cargo testbed run -- paraslot {command} ...` runs this on a machine where it does \
             (docs/testbed.md)"
        );
    }
    Ok(())
}

/// The processors to use: one for the virtual processor and one for the device's threads, in two
/// cores if there are two. `None` if there is but one.
pub(crate) fn choose_cpus() -> Option<Pinning> {
    let allowed = sys::allowed_cpus().ok()?;
    let (vcpu, others) = allowed.split_first()?;
    let siblings = siblings(*vcpu);
    let device = others.iter().find(|cpu| !siblings.contains(cpu)).or(others.first())?;
    Some(Pinning { vcpu: u32::try_from(*vcpu).ok()?, device: u32::try_from(*device).ok()? })
}

/// The processors in the same core as `cpu`, itself included; none where the kernel does not tell.
fn siblings(cpu: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    read(&path).map(|text| list(&text)).unwrap_or_default()
}

/// A list as the kernel writes it: `0,4-6`.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.trim().parse().ok().zip(last.trim().parse().ok());
        range.map_or(0..0, |(first, last): (usize, usize)| first..last.saturating_add(1))
    };
    text.split(',').flat_map(range).collect()
}

/// A file's text without surrounding white space; `None` if it cannot be read or is empty.
fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The first value that /proc/cpuinfo has under a name.
fn cpuinfo(name: &str) -> Option<String> {
    let text = read("/proc/cpuinfo")?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
}

/// The processor's name.
pub(crate) fn cpu_model() -> Option<String> {
    cpuinfo("model name")
}

/// The kernel's release.
pub(crate) fn kernel() -> Option<String> {
    read("/proc/sys/kernel/osrelease")
}

/// Whether this host is a virtual machine.
pub(crate) fn is_virtual() -> Option<bool> {
    let flags = cpuinfo("flags")?;
    Some(flags.split(' ').any(|flag| flag == "hypervisor"))
}

/// Whether the processor offers virtualisation to this host's kernel.
pub(crate) fn has_virtualisation() -> Option<bool> {
    let flags = cpuinfo("flags")?;
    Some(flags.split(' ').any(|flag| flag == "vmx" || flag == "svm"))
}

/// The signature of the hypervisor that this host runs on (CPUID leaf 0x4000_0000).
pub(crate) fn hypervisor_below() -> Option<String> {
    if is_virtual() != Some(true) {
        return None;
    }
    #[cfg(target_arch = "x86_64")]
    {
        let leaf = std::arch::x86_64::__cpuid(0x4000_0000);
        let bytes = [leaf.ebx, leaf.ecx, leaf.edx].map(u32::to_le_bytes).concat();
        let text = String::from_utf8_lossy(&bytes);
        let text: String = text.chars().filter(|character| !character.is_control()).collect();
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Whether what calls itself that is software: QEMU's, which executes no guest's code itself.
pub(crate) fn is_emulator(below: Option<&str>) -> bool {
    below == Some(paraslot_report::EMULATOR)
}

/// The frequency governor of a processor; `None` where its frequency is not the kernel's to set.
pub(crate) fn governor(cpu: u32) -> Option<String> {
    read(&format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor"))
}

/// Bytes of memory that can be used without swapping.
pub(crate) fn available_memory() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Whether io_uring is switched off for this host: the value of its setting, 0 for not.
pub(crate) fn io_uring_disabled() -> Option<u32> {
    read("/proc/sys/kernel/io_uring_disabled")?.parse().ok()
}

/// Whether memory that processes share has huge pages, for who asks for them; `None` where the kernel does not
/// tell.
pub(crate) fn shared_huge_pages() -> Option<bool> {
    let text = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")?;
    let (_, rest) = text.split_once('[')?;
    let (chosen, _) = rest.split_once(']')?;
    Some(!matches!(chosen, "never" | "deny"))
}

/// Whether the device that TAP interfaces are opened by can be opened.
pub(crate) fn open_tun() -> std::io::Result<()> {
    fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").map(drop)
}

/// Whether this process may make and change network interfaces: CAP_NET_ADMIN, number 12.
pub(crate) fn may_administer_networks() -> Option<bool> {
    let status = read("/proc/self/status")?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    Some(effective >> 12 & 1 == 1)
}

/// A time as RFC 3339 has it, in UTC, to the second.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, seconds) = (since / 86_400, since % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date that many days after 1 January 1970, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years start in March here, so that the day that leap years add comes last; 400 years, an era,
    // repeat. 719,468 days lie between 1 March 0 and 1 January 1970.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(list("0"), [0]);
        assert_eq!(list("0,4-6\n"), [0, 4, 5, 6]);
        assert_eq!(list("nonsense"), [0usize; 0]);
    }

    #[test]
    fn two_processors_are_chosen_where_there_are_two() {
        let allowed = sys::allowed_cpus().unwrap();
        match choose_cpus() {
            None => assert_eq!(allowed.len(), 1),
            Some(Pinning { vcpu, device }) => {
                assert_ne!(vcpu, device);
                for cpu in [vcpu, device] {
                    assert!(allowed.contains(&usize::try_from(cpu).unwrap()));
                }
            }
        }
    }

    #[test]
    fn times_are_written_as_the_standard_has_it() {
        let at = |seconds| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    /// Each day follows the one before, through leap years and centuries.
    #[test]
    fn days_follow_each_other() {
        let mut last = civil(0);
        for days in 1..60_000 {
            let (year, month, day) = civil(days);
            let follows = (year, month, day) == (last.0, last.1, last.2 + 1)
                || (day == 1 && last.2 >= 28 && (year, month) == (last.0, last.1 + 1))
                || (day == 1 && month == 1 && last == (year - 1, 12, 31));
            assert!(follows, "{last:?} {:?}", (year, month, day));
            last = (year, month, day);
        }
        assert_eq!(last, (2134, 4, 10));
    }
}
