//! What firmware and operating systems send to find out what a unit is: none of it may fail.

use super::*;

/// Runs commands of which each must end with GOOD or data.
fn probe(unit: &Initiator, commands: &[&[u8]]) {
    for cdb in commands {
        let plan = unit.run(cdb);
        let fine = matches!(plan, Plan::Reply(_) | Plan::Read { .. } | Plan::Flush)
            || is_status(&plan, Status::Good);
        assert!(fine, "{cdb:x?}: {plan:?}");
    }
}

#[test]
fn a_disk_is_probed() {
    probe(
        &disk(),
        &[
            // Linux: scsi_scan, scsi_sysfs, sd.
            &[0x12, 0, 0, 0, 36, 0],
            &[0x12, 0, 0, 0, 96, 0],
            &[0x12, 1, 0x00, 0, 255, 0],
            &[0x12, 1, 0x80, 0, 255, 0],
            &[0x12, 1, 0x83, 0, 255, 0],
            &[0xa0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0],
            &[0; 6],
            &sixteen(0x9e, 0x10, 0, 32),
            &[0x12, 1, 0xb0, 0, 64, 0],
            &[0x12, 1, 0xb1, 0, 64, 0],
            &[0x12, 1, 0xb2, 0, 64, 0],
            &[0x5a, 0, 0x3f, 0, 0, 0, 0, 2, 0, 0],
            &[0x1a, 0, 0x3f, 0, 4, 0],
            &[0x1a, 0, 0x08, 0, 4, 0],
            &[0x1a, 8, 0x08, 0, 192, 0],
            &[0xa3, 0x0c, 1, 0x93, 0, 0, 0, 0, 2, 0, 0, 0],
            &[0xa3, 0x0c, 1, 0x41, 0, 0, 0, 0, 2, 0, 0, 0],
            &[0xa3, 0x0c, 1, 0x12, 0, 0, 0, 0, 2, 0, 0, 0],
            &[0x1b, 1, 0, 0, 1, 0],
            &ten(0x35, 0, 0, 0),
            // Windows: disk, storport, and its cluster service.
            &[0x1a, 0, 0x1c, 0, 192, 0],
            &[0x1a, 8, 0x3f, 0, 255, 0],
            &[0x5e, 0, 0, 0, 0, 0, 0, 1, 0, 0],
            &[0x5e, 1, 0, 0, 0, 0, 0, 1, 0, 0],
            // UEFI and SeaBIOS.
            &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 8, 0],
            &[0x03, 0, 0, 0, 18, 0],
            &ten(0x28, 0, 0, 1),
        ],
    );
}

#[test]
fn a_drive_is_probed() {
    let configuration = [0x46, 0, 0, 0, 0, 0, 0, 0, 192, 0];
    let events = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
    let drive = drive(Some(333_000));
    probe(
        &drive,
        &[
            // Linux: sr, cdrom.
            &[0x12, 0, 0, 0, 96, 0],
            &[0; 6],
            &events,
            &[0x5a, 0, 0x2a, 0, 0, 0, 0, 0, 128, 0],
            &[0x1a, 0, 0x2a, 0, 128, 0],
            &configuration,
            &[0x46, 2, 0, 0x20, 0, 0, 0, 0, 16, 0],
            &[0x51, 0, 0, 0, 0, 0, 0, 0, 2, 0],
            &[0x52, 1, 0, 0, 0, 1, 0, 0, 8, 0],
            &[0x43, 0, 0, 0, 0, 0, 0, 0, 12, 0],
            &[0x43, 2, 1, 0, 0, 0, 0, 0, 12, 0],
            &[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 12, 0],
            &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x1e, 0, 0, 0, 1, 0],
            &[0x1e, 0, 0, 0, 0, 0],
            // Windows: cdrom.
            &[0x46, 1, 0, 0, 0, 0, 0, 0, 8, 0],
            &[0x43, 0, 2, 0, 0, 0, 0, 3, 0x24, 0],
            &[0x5a, 0, 0x3f, 0, 0, 0, 0, 0, 192, 0],
            &[0xbb, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0],
            &[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0],
            &[0xbe, 0, 0, 0, 0, 16, 0, 0, 1, 0x10, 0, 0],
            // UEFI and SeaBIOS, El Torito.
            &[0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0],
            &ten(0x28, 0, 16, 1),
            &ten(0x28, 0, 17, 1),
            &twelve(0xa8, 0, 17, 1),
        ],
    );
    // Without a disc, what a drive is can be asked all the same.
    let empty = super::drive(None);
    probe(&empty, &[&configuration, &events, &[0x12, 0, 0, 0, 36, 0], &[0x03, 0, 0, 0, 18, 0]]);
    assert_eq!(empty.sense(&[0; 6]), Sense::new(2, (0x3a, 0x01)));
}
