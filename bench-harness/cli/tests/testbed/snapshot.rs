//! A Linux guest that is saved, and goes on.

use std::fs;

use tempfile::TempDir;

/// A stock guest is saved while it writes to two disks, and goes on in another machine, on the other path:
/// it finds every round of what it has written, of before and after. Other devices are not taken for those
/// that it had.
#[test]
fn a_guest_is_saved_while_it_writes_and_goes_on() {
    let Some(testbed) = crate::testbed() else { return };
    let tools = testbed.guest_disk().expect("the guest's root disk");
    let share = TempDir::new().unwrap();
    let initrd = share.path().join("initrd");
    let script =
        testbed.guest_initrd(include_str!("scripts/writes.sh")).expect("an initial RAM disk");
    fs::write(&initrd, script).unwrap();

    let script = include_str!("scripts/snapshot.sh");
    let arguments = [testbed.bzimage(), &initrd, &tools];
    let output = crate::run(&testbed, &share, script, &arguments, &[], &[]);
    let lines: Vec<&str> = output.lines().map(str::trim_end).collect();
    let at = |wanted: &str| {
        let mut places = lines.iter().enumerate().filter(|(_, line)| **line == wanted);
        let place = places.next().map(|(place, _)| place);
        assert!(place.is_some() && places.next().is_none(), "{wanted} once: {output}");
        place
    };
    let order = [
        "paraslot: mark writing",
        "paraslot: the guest is saved in saved",
        "saved with status 0",
        "looked at 12 rounds",
        "paraslot: exit 0",
        "restored with status 0",
        "another with status 1",
    ];
    assert!(order.map(at).is_sorted(), "{output}");
    assert!(!output.contains("is not on"), "{output}");
    assert!(output.contains("the snapshot does not fit: it has functions at"), "{output}");
}
