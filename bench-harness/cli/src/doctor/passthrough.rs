//! The host's functions that a guest can be given.

use std::fmt::Write;
use std::fs::OpenOptions;
use std::io;

use paraslot_vfio::{HostAddress, HostFunction};

use super::{Finding, Health};
use crate::hardware;
use crate::identity::Identity;

/// Base classes that are shown without being asked for: storage and networks.
const SHOWN: [u8; 2] = [0x01, 0x02];

/// What there is to say of passthrough: findings, and then the functions.
pub(super) fn look(verbose: bool) -> (Vec<Finding>, String) {
    let open = OpenOptions::new().read(true).write(true).open("/dev/vfio/vfio");
    match paraslot_vfio::survey() {
        Ok(functions) => {
            let findings = vec![iommu(&functions), vfio(open.map(drop))];
            (findings, list(&functions, verbose))
        }
        Err(error) => {
            let is = format!("this machine's PCI functions cannot be seen: {error}");
            let finding = Finding::new(Health::Poor, "passthrough", is);
            (vec![finding.advise("for vfio: a machine with PCI, and /sys mounted")], String::new())
        }
    }
}

fn iommu(functions: &[HostFunction]) -> Finding {
    const WHAT: &str = "IOMMU";
    let grouped = functions.iter().filter(|function| function.group.is_some()).count();
    if grouped > 0 {
        let is = format!("on: {grouped} of {} PCI functions are in groups", functions.len());
        return Finding::new(Health::Good, WHAT, is);
    }
    Finding::new(Health::Poor, WHAT, "off or none: nothing can be passed through").advise(
        "for vfio: VT-d or AMD-Vi on in the firmware; on Intel's, intel_iommu=on for the kernel",
    )
}

fn vfio(opened: io::Result<()>) -> Finding {
    const WHAT: &str = "VFIO";
    match opened {
        Ok(()) => Finding::new(Health::Good, WHAT, "usable"),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let is = "no permission to open /dev/vfio/vfio";
            Finding::new(Health::Poor, WHAT, is).advise("for vfio: sudo chmod 666 /dev/vfio/vfio")
        }
        Err(_) => {
            let finding =
                Finding::new(Health::Poor, WHAT, "not loaded: there is no /dev/vfio/vfio");
            finding.advise("for vfio: sudo modprobe -a vfio-pci vfio_iommu_type1")
        }
    }
}

/// The functions that a guest can be given, a line each, with what is to be done; or all of them.
fn list(functions: &[HostFunction], verbose: bool) -> String {
    let is_shown = |function: &&HostFunction| {
        let [base, ..] = function.class;
        verbose || function.group.is_some() && SHOWN.contains(&base)
    };
    let mut text = String::new();
    for function in functions.iter().filter(is_shown) {
        if text.is_empty() {
            text.push_str("\nFunctions of this host, for --device vfio,host=ADDRESS\n\n");
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {}  {}", function.address, Identity::of(function));
        let _ = writeln!(text, "      {}", state(function));
        for advice in advice(function) {
            let _ = writeln!(text, "      -> {advice}");
        }
    }
    let hidden = functions.len() - functions.iter().filter(is_shown).count();
    if hidden > 0 && !text.is_empty() {
        let _ = writeln!(text, "\n  {hidden} more: paraslot doctor --verbose");
    }
    text
}

/// How a function is.
fn state(function: &HostFunction) -> String {
    let mut parts = vec![match &function.driver {
        Some(driver) => format!("driver {driver}"),
        None => "no driver".into(),
    }];
    parts.extend(function.group.map(|group| format!("IOMMU group {group}")));
    if !function.companions.is_empty() {
        let companions: Vec<String> =
            function.companions.iter().map(HostAddress::to_string).collect();
        parts.push(format!("with {}", companions.join(", ")));
    }
    if let Some(method) = function.reset_methods.first() {
        parts.push(format!("reset by {method}"));
    }
    match hardware::driver_for(function) {
        Some(device) => parts.push(format!("can be measured as {device}")),
        None if hardware::is_bridge(function) => {}
        None => parts.push("for paraslot boot alone".into()),
    }
    parts.join("; ")
}

/// What is to be done about a function.
fn advice(function: &HostFunction) -> Vec<String> {
    let mut advice = function.obstacles.clone();
    if function.group.is_none() || hardware::is_bridge(function) {
        return advice;
    }
    match function.driver.as_deref() {
        Some(hardware::VFIO) => {}
        Some(driver) => advice.push(format!("bind=on takes it from {driver} for the time.")),
        None => advice.push("bind=on binds it for the time.".into()),
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A tree such as /sys with a bridge, an NVMe disk, and a display.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let pci = root.path().join("bus/pci");
        fs::create_dir_all(pci.join("drivers/nvme")).unwrap();
        fs::create_dir_all(pci.join("drivers/vfio-pci")).unwrap();
        let groups = root.path().join("kernel/iommu_groups");
        for (address, vendor, device, class, driver, group) in [
            ("0000:00:00.0", "0x8086", "0x29c0", "0x060000", None, Some("0")),
            ("0000:00:05.0", "0x144d", "0xa808", "0x010802", Some("nvme"), Some("3")),
            ("0000:00:06.0", "0x8086", "0x10d3", "0x020000", Some("vfio-pci"), Some("4")),
            ("0000:00:07.0", "0x1234", "0x1111", "0x030000", None, Some("5")),
        ] {
            let function = pci.join("devices").join(address);
            fs::create_dir_all(&function).unwrap();
            for (name, value) in
                [("vendor", vendor), ("device", device), ("class", class), ("reset_method", "flr")]
            {
                fs::write(function.join(name), format!("{value}\n")).unwrap();
            }
            if let Some(driver) = driver {
                symlink(pci.join("drivers").join(driver), function.join("driver")).unwrap();
            }
            if let Some(group) = group {
                let group = groups.join(group);
                fs::create_dir_all(group.join("devices").join(address)).unwrap();
                symlink(&group, function.join("iommu_group")).unwrap();
            }
        }
        root
    }

    fn functions() -> Vec<HostFunction> {
        paraslot_vfio::survey_in(tree().path()).unwrap()
    }

    /// The same, one of which this process may not open: a tree does not tell that.
    fn denied() -> Vec<HostFunction> {
        let mut functions = functions();
        let bound = functions.iter_mut().find(|function| function.group == Some(4)).unwrap();
        let obstacle = "No permission to open /dev/vfio/4: sudo chown $USER /dev/vfio/4.";
        bound.obstacles.push(obstacle.into());
        functions
    }

    #[test]
    fn functions_are_listed_with_what_is_to_be_done() {
        let text = list(&denied(), false);
        let expected = "
Functions of this host, for --device vfio,host=ADDRESS

  0000:00:05.0  144d:a808 Samsung Electronics Co Ltd, NVMe SSD Controller SM981/PM981/PM983
      driver nvme; IOMMU group 3; reset by flr; can be measured as nvme
      -> bind=on takes it from nvme for the time.
  0000:00:06.0  8086:10d3 Intel Corporation, 82574L Gigabit Network Connection
      driver vfio-pci; IOMMU group 4; reset by flr; for paraslot boot alone
      -> No permission to open /dev/vfio/4: sudo chown $USER /dev/vfio/4.

  2 more: paraslot doctor --verbose
";
        assert_eq!(text, expected);
        let usable = list(&functions(), false);
        assert!(!usable.contains("No permission"), "{usable}");
    }

    #[test]
    fn everything_is_listed_if_asked() {
        let text = list(&functions(), true);
        assert!(text.contains("0000:00:07.0"), "{text}");
        let bridge = "\n      no driver; IOMMU group 0; reset by flr\n      -> It is the host's own bridge: ";
        assert!(text.contains(bridge), "{text}");
        assert!(!text.contains("--verbose"), "{text}");
        assert_eq!(list(&[], true), "");
    }

    #[test]
    fn without_an_iommu_nothing_is_listed_but_why() {
        let mut functions = functions();
        for function in &mut functions {
            function.group = None;
        }
        assert_eq!(list(&functions, false), "");
        let finding = iommu(&functions);
        assert_eq!(finding.health, Health::Poor);
        assert!(finding.advice.is_some());
        assert_eq!(iommu(&self::functions()).health, Health::Good);
    }

    #[test]
    fn vfios_own_file_must_be_usable() {
        assert_eq!(vfio(Ok(())).health, Health::Good);
        let not_loaded = vfio(Err(io::ErrorKind::NotFound.into()));
        assert!(not_loaded.to_string().contains("modprobe"));
        let refused = vfio(Err(io::ErrorKind::PermissionDenied.into()));
        assert!(refused.to_string().contains("permission"));
        assert!([not_loaded, refused].iter().all(|finding| finding.health == Health::Poor));
    }
}
