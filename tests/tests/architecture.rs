//! The house's rule of who may know whom, checked against what the manifests say.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on within the workspace, outside its tests. A crate that is not listed
/// here fails the test: give it a place.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("paraslot-spec", &[]),
    ("paraslot-device", &["paraslot-spec"]),
    ("paraslot-pci", &["paraslot-device", "paraslot-spec"]),
    ("paraslot-virtio", &["paraslot-device", "paraslot-spec"]),
    ("paraslot-backends", &["paraslot-device", "paraslot-spec"]),
    (
        "paraslot-virtio-blk",
        &["paraslot-backends", "paraslot-device", "paraslot-spec", "paraslot-virtio"],
    ),
    (
        "paraslot-virtio-net",
        &["paraslot-backends", "paraslot-device", "paraslot-spec", "paraslot-virtio"],
    ),
    ("paraslot-scsi", &["paraslot-backends", "paraslot-device", "paraslot-spec"]),
    (
        "paraslot-virtio-scsi",
        &[
            "paraslot-backends",
            "paraslot-device",
            "paraslot-scsi",
            "paraslot-spec",
            "paraslot-virtio",
        ],
    ),
    (
        "paraslot-pvscsi",
        &["paraslot-backends", "paraslot-device", "paraslot-pci", "paraslot-scsi", "paraslot-spec"],
    ),
    (
        "paraslot-vmxnet3",
        &["paraslot-backends", "paraslot-device", "paraslot-pci", "paraslot-spec"],
    ),
    ("paraslot-e1000", &["paraslot-backends", "paraslot-device", "paraslot-pci", "paraslot-spec"]),
    (
        "paraslot-ahci",
        &["paraslot-backends", "paraslot-device", "paraslot-pci", "paraslot-scsi", "paraslot-spec"],
    ),
    (
        "paraslot-virtio-pci",
        &["paraslot-device", "paraslot-pci", "paraslot-spec", "paraslot-virtio"],
    ),
    (
        "paraslot-catalogue",
        &[
            "paraslot-ahci",
            "paraslot-backends",
            "paraslot-device",
            "paraslot-e1000",
            "paraslot-pci",
            "paraslot-pvscsi",
            "paraslot-scsi",
            "paraslot-spec",
            "paraslot-virtio-blk",
            "paraslot-virtio-net",
            "paraslot-virtio-pci",
            "paraslot-virtio-scsi",
            "paraslot-vmxnet3",
        ],
    ),
    ("paraslot-adapter", &["paraslot-device", "paraslot-pci"]),
    ("paraslot-vfio", &["paraslot-device", "paraslot-pci", "paraslot-spec"]),
    ("paraslot-vfio-user", &["paraslot-device", "paraslot-pci", "paraslot-spec"]),
    ("paraslot-testbed", &[]),
    ("paraslot-protocol", &[]),
    ("paraslot-drivers", &["paraslot-protocol", "paraslot-spec"]),
    ("paraslot-guest", &["paraslot-drivers", "paraslot-protocol", "paraslot-spec"]),
    (
        "paraslot-vmm",
        &[
            "paraslot-device",
            "paraslot-drivers",
            "paraslot-guest",
            "paraslot-pci",
            "paraslot-protocol",
            "paraslot-spec",
        ],
    ),
    ("paraslot-report", &["paraslot-protocol"]),
];

/// Crates at the top, which may know everything.
const TOP: &[&str] = &["paraslot", "paraslot-tests"];

/// Outside crates that only some may know.
const ONLY: &[(&str, &[&str])] = &[
    ("kvm-ioctls", &["paraslot-vfio", "paraslot-vmm"]),
    ("kvm-bindings", &["paraslot-vmm"]),
    ("vfio-ioctls", &["paraslot-vfio"]),
    ("vfio-bindings", &["paraslot-vfio"]),
    ("vfio_user", &[]),
    ("acpi_tables", &["paraslot-vmm"]),
    ("io-uring", &["paraslot-backends"]),
    ("vm-device", &["paraslot-pci", "paraslot-vmm"]),
];

fn packages() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let normal = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
            (text(&package["name"]), normal.map(|dependency| text(&dependency["name"])).collect())
        })
        .collect()
}

#[test]
fn dependencies_point_down() {
    let packages = packages();
    let allowed: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    for (name, dependencies) in &packages {
        if TOP.contains(&name.as_str()) {
            continue;
        }
        let allowed = allowed
            .get(name.as_str())
            .unwrap_or_else(|| panic!("{name} has no place in the house yet"));
        for dependency in dependencies.iter().filter(|d| packages.contains_key(*d)) {
            assert!(allowed.contains(&dependency.as_str()), "{name} must not know {dependency}");
        }
    }
}

#[test]
fn only_those_who_may_know_kvm_do() {
    for (name, dependencies) in packages() {
        for (outside, who) in ONLY {
            assert!(
                !dependencies.contains(*outside) || who.contains(&name.as_str()),
                "{name} must not know {outside}"
            );
        }
    }
}

/// A second version of a crate needs a reason, here.
const TWICE: &[(&str, &str)] = &[
    ("bitflags", "1: vmm-sys-util 0.15 has not moved to 2"),
    ("rand", "0.8: pci-ids makes its tables with it; build time only"),
    ("rand_core", "as rand"),
    ("syn", "2: derive macros that have not moved to 3; build time only"),
    ("windows-link", "loom and the terminal crates; never built on Linux"),
];

#[test]
fn no_crate_is_locked_twice_without_a_reason() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("Cargo.lock is checked in");
    let mut names = BTreeMap::<_, usize>::new();
    for name in lock.lines().filter_map(|line| line.strip_prefix("name = ")) {
        *names.entry(name.trim_matches('"')).or_default() += 1;
    }
    let twice: Vec<_> =
        names.iter().filter(|(_, count)| **count > 1).map(|(name, _)| *name).collect();
    let excused: Vec<_> = TWICE.iter().map(|(name, _)| *name).collect();
    assert_eq!(twice, excused);
}
