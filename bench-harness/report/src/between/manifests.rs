//! What makes figures of two builds less comparable than they should be.

use crate::{Guest, Manifest, Path, Pinning, Report};

/// What two manifests differ in that figures depend on, in a line each.
pub(super) fn differences(before: &Manifest, after: &Manifest) -> Vec<String> {
    let told = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
    let nested = |nested: Option<bool>| match nested {
        Some(true) => "a virtual machine",
        Some(false) => "none",
        None => "unknown",
    };
    let guest = |guest: &Option<Guest>| match guest {
        Some(Guest { name: Some(name), fnv1a, .. }) => format!("{name} ({fnv1a})"),
        Some(Guest { name: None, fnv1a, .. }) => fnv1a.clone(),
        None => "none".into(),
    };
    let pinned = |pinned: Option<Pinning>| match pinned {
        Some(Pinning { vcpu, device }) => format!("guest on {vcpu}, device on {device}"),
        None => "no processor of their own".into(),
    };
    let pairs = [
        ("processor", told(&before.cpu_model), told(&after.cpu_model)),
        ("kernel", told(&before.kernel), told(&after.kernel)),
        ("hypervisor", told(&before.hypervisor), told(&after.hypervisor)),
        ("host as a virtual machine", nested(before.nested).into(), nested(after.nested).into()),
        ("hypervisor below", told(&before.below), told(&after.below)),
        ("build", before.build.clone(), after.build.clone()),
        ("pinning", pinned(before.pinned), pinned(after.pinned)),
        ("busy polling, µs", before.busy_poll_us.to_string(), after.busy_poll_us.to_string()),
        ("warm-up, ms", before.warm_up_ms.to_string(), after.warm_up_ms.to_string()),
        ("measured part, ms", before.measure_ms.to_string(), after.measure_ms.to_string()),
        ("guest", guest(&before.guest), guest(&after.guest)),
    ];
    let differs = pairs.into_iter().filter(|(_, before, after)| before != after);
    differs.map(|(what, before, after)| format!("{what} differs: {before}, now {after}")).collect()
}

/// Whether a report's guests had memory that other processes can map, as they have wherever one of its devices is
/// behind a socket. It is not backed by the same pages.
pub fn shared_memory(report: &Report) -> bool {
    report.results.iter().any(|record| record.path == Path::VfioUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_told_and_nothing_else() {
        let before = Manifest {
            cpu_model: Some("One".into()),
            build: "release".into(),
            pinned: Some(Pinning { vcpu: 0, device: 1 }),
            measure_ms: 250,
            ..Manifest::default()
        };
        assert!(differences(&before, &before).is_empty());
        let later = Manifest {
            date: "tomorrow".into(),
            revision: Some("abc".into()),
            notes: vec!["!".into()],
            ..before.clone()
        };
        assert!(differences(&before, &later).is_empty());
        let other = Manifest { cpu_model: None, pinned: None, measure_ms: 500, ..before.clone() };
        assert_eq!(
            differences(&before, &other),
            [
                "processor differs: One, now unknown",
                "pinning differs: guest on 0, device on 1, now no processor of their own",
                "measured part, ms differs: 250, now 500",
            ]
        );
        let guest = |hash: &str| Guest { fnv1a: hash.into(), ..Guest::default() };
        let mut other = before.clone();
        other.guest = Some(guest("12"));
        assert_eq!(differences(&before, &other), ["guest differs: none, now 12"]);
    }
}
