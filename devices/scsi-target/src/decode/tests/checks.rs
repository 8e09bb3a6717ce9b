//! What stands in the way of commands, and in which order.

use super::*;
use crate::sense::SenseFormat;

const TUR: [u8; 6] = [0; 6];
const STOP: [u8; 6] = [0x1b, 0, 0, 0, 0, 0];
const START: [u8; 6] = [0x1b, 0, 0, 0, 1, 0];

#[test]
fn attentions_come_first_and_once() {
    let disk = Initiator::new(&unit(|_| {}), "one");
    // They do not keep these from being carried out, which leave them as they are.
    assert_eq!(disk.reply(&[0x12, 0, 0, 0, 36, 0]).len(), 36);
    disk.reply(&twelve(0xa0, 0, 0, 16 << 8));
    let write = ten(0x2a, 0, u32::MAX, 1);
    assert_eq!(disk.sense(&write), Sense::new(6, (0x29, 0)));
    assert_eq!(disk.sense(&write).asc, 0x21);
    // Before an unknown operation code, too.
    disk.nexus.attention(0x2a, 0x01);
    assert_eq!(disk.sense(&[0xff]), Sense::new(6, (0x2a, 0x01)));
    assert_eq!(disk.sense(&[0xff]), illegal(0x20, 0));
}

#[test]
fn attentions_come_by_their_urgency_and_a_reset_stands_for_all_resets() {
    let disk = disk();
    for (asc, ascq) in [(0x3f, 0x0e), (0x2a, 0x01), (0x29, 0x03), (0x2a, 0x09), (0x29, 0x07)] {
        disk.nexus.attention(asc, ascq);
        disk.nexus.attention(asc, ascq);
    }
    let order: Vec<_> = std::iter::from_fn(|| disk.attention()).collect();
    assert_eq!(order, [(0x29, 0x03), (0x2a, 0x09), (0x2a, 0x01), (0x3f, 0x0e)]);
    // One that nobody knows is a reset: the least that can be said.
    disk.nexus.attention(0x77, 0x77);
    assert_eq!(disk.attention(), Some((0x29, 0)));
    // REPORT LUNS says what has changed about the LUNs.
    disk.nexus.attention(0x3f, 0x0e);
    disk.reply(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]);
    assert_eq!(disk.attention(), None);
}

#[test]
fn request_sense_reports_attentions_as_data() {
    let disk = Initiator::new(&unit(|_| {}), "one");
    let data = disk.reply(&[0x03, 0, 0, 0, 18, 0]);
    assert_eq!(data, [0x70, 0, 6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0, 0, 0, 0, 0]);
    assert_eq!(disk.attention(), None);
    assert_eq!(disk.reply(&[0x03, 1, 0, 0, 255, 0]), [0x72, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(disk.reply(&[0x03, 0, 0, 0, 4, 0]), [0x70, 0, 0, 0]);
    assert_eq!(disk.reply(&[0x03, 0, 0, 0, 0, 0]), [0u8; 0]);
}

#[test]
fn kept_sense_data_is_for_the_next_request_sense() {
    let disk = disk();
    let sense = Sense::out_of_range(7);
    disk.nexus.keep_sense(&sense);
    let (bytes, len) = sense.encode(SenseFormat::Fixed);
    assert_eq!(disk.reply(&[0x03, 0, 0, 0, 18, 0]), bytes[..len]);
    assert_eq!(disk.reply(&[0x03, 0, 0, 0, 18, 0])[2], 0);
    // Any other command means that nobody wants it.
    disk.nexus.keep_sense(&sense);
    disk.good(&TUR);
    assert_eq!(disk.reply(&[0x03, 0, 0, 0, 18, 0])[2], 0);
    assert_eq!(disk.nexus.notice.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn a_stopped_disk_is_not_ready() {
    let disk = disk();
    assert!(matches!(disk.run(&STOP), Plan::Flush));
    let stopped = Sense::new(2, (0x04, 0x02));
    for cdb in [&TUR[..], &ten(0x28, 0, 0, 1), &ten(0x35, 0, 0, 0), &ten(0x25, 0, 0, 0)] {
        assert_eq!(disk.sense(cdb), stopped);
    }
    // Identification goes on.
    disk.reply(&[0x12, 0, 0, 0, 36, 0]);
    disk.reply(&[0x1a, 0, 0x3f, 0, 255, 0]);
    disk.good(&START);
    disk.good(&TUR);
    // Active starts it as well; NO_FLUSH stops it without flushing.
    disk.good(&[0x1b, 0, 0, 0, 4, 0]);
    assert_eq!(disk.sense(&TUR), stopped);
    disk.good(&[0x1b, 0, 0, 0, 0x10, 0]);
    disk.good(&TUR);
    assert_eq!(disk.sense(&[0x1b, 0, 0, 0, 2, 0]), bad_cdb(4, Some(1)));
    assert_eq!(disk.sense(&[0x1b, 0, 0, 0, 0x80, 0]), bad_cdb(4, Some(7)));
    // A reset starts it.
    disk.run(&STOP);
    disk.nexus.reset(3);
    assert_eq!(disk.attention(), Some((0x29, 3)));
    disk.good(&TUR);
}

#[test]
fn a_reset_is_everyones_and_a_loss_is_ones_own() {
    let one = disk();
    let other = Initiator::ready(one.unit(), "two");
    one.unit().set_modes(0);
    one.nexus.lost();
    assert_eq!((one.attention(), other.attention()), (Some((0x29, 7)), None));
    assert_eq!(one.unit().modes(), 0);
    one.nexus.attention(0x2a, 1);
    one.nexus.keep_sense(&illegal(1, 1));
    one.nexus.power_on();
    assert_eq!((one.attention(), other.attention()), (Some((0x29, 0)), None));
    assert_eq!(one.attention(), None);
    assert_eq!(one.reply(&[0x03, 0, 0, 0, 18, 0])[2], 0);
    // The other's modes are not for one to forget, unless it is alone.
    assert_eq!(one.unit().modes(), 0);
    one.nexus.reset(2);
    assert_eq!((one.attention(), other.attention()), (Some((0x29, 2)), Some((0x29, 2))));
    assert_eq!(one.unit().modes(), one.unit().default_modes());
    other.nexus.detach();
    one.unit().set_modes(0);
    one.nexus.power_on();
    assert_eq!(one.unit().modes(), one.unit().default_modes());
}

#[test]
fn naca_is_refused_where_it_is() {
    let disk = disk();
    assert_eq!(disk.sense(&[0, 0, 0, 0, 0, 4]), bad_cdb(5, Some(2)));
    let mut read = ten(0x28, 0, 0, 1);
    read[9] = 4;
    assert_eq!(disk.sense(&read), bad_cdb(9, Some(2)));
    let mut read = sixteen(0x88, 0, 0, 1);
    read[15] = 4;
    assert_eq!(disk.sense(&read), bad_cdb(15, Some(2)));
    // Byte 5 of a longer command is none.
    disk.run(&[0x28, 0, 0, 0, 0, 4, 0, 0, 1, 0]);
}

#[test]
fn unknown_commands_and_service_actions() {
    let disk = disk();
    for opcode in [0x04, 0x46, 0x7f, 0xa1, 0xbe, 0xc0, 0xff] {
        assert_eq!(disk.sense(&[opcode]), illegal(0x20, 0), "{opcode:x}");
    }
    for opcode in [0x5e, 0x5f, 0x9e, 0xa3] {
        assert_eq!(disk.sense(&[opcode, 0x1f]), bad_cdb(1, Some(4)), "{opcode:x}");
    }
    // CVE-2015-5158: a command of no bytes at all is TEST UNIT READY, one of 255 is cut.
    disk.good(&[]);
    assert!(matches!(disk.run(&[0x88; 255]), Plan::End(Ending::Check(_))));
}

#[test]
fn self_tests_pass_and_pages_are_refused() {
    let disk = disk();
    disk.good(&[0x1d, 4, 0, 0, 0, 0]);
    disk.good(&[0x1d, 0, 0, 0, 0, 0]);
    assert_eq!(disk.sense(&[0x1d, 0x20, 0, 0, 0, 0]), bad_cdb(1, Some(7)));
    assert_eq!(disk.sense(&[0x1d, 0x10, 0, 0, 4, 0]), bad_cdb(3, None));
}

#[test]
fn a_lun_that_is_not_there_says_so() {
    let run = |cdb: &[u8]| absent(&Cdb::new(cdb), &luns);
    let data = reply(run(&[0x12, 0, 0, 0, 96, 0]));
    assert_eq!((data.len(), data[0], data[3] & 0xf, data[4]), (96, 0x7f, 2, 91));
    assert_eq!(sense(run(&[0x12, 1, 0, 0, 96, 0])), illegal(0x25, 0));
    let data = reply(run(&[0x03, 0, 0, 0, 18, 0]));
    assert_eq!((data[0], data[2], data[12]), (0x70, 5, 0x25));
    let data = reply(run(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]));
    assert_eq!(data[..4], [0, 0, 0, 24]);
    assert_eq!(sense(run(&TUR)), illegal(0x25, 0));
    assert_eq!(sense(run(&ten(0x28, 0, 0, 1))), illegal(0x25, 0));
}

#[test]
fn options_are_checked() {
    let refused = |change: fn(&mut DiskOptions)| {
        let mut options = DiskOptions::new(image(|_| {}));
        change(&mut options);
        LogicalUnit::disk(options).is_err()
    };
    assert!(!refused(|_| {}));
    assert!(refused(|options| options.identity.vendor = "NINECHARS".into()));
    assert!(refused(|options| options.identity.product = "caf\u{e9}".into()));
    assert!(refused(|options| options.identity.serial = "x".repeat(37)));
    assert!(refused(|options| options.backend = image(|info| info.capacity = 0)));
    assert!(refused(|options| options.backend = image(|info| info.capacity = u64::MAX)));
    // CVE-2023-42467: a block of 256 bytes, or of none.
    assert!(refused(|options| options.backend = image(|info| info.logical_block = 256)));
    assert!(refused(|options| options.backend = image(|info| info.logical_block = 0)));
    let disc = |change: fn(&mut BlockInfo)| {
        let options = CdromOptions { medium: Some(image(change)), identity: cdrom_identity() };
        LogicalUnit::cdrom(options).is_err()
    };
    assert!(!disc(|_| {}));
    assert!(disc(|info| info.capacity = 2047));
    assert!(disc(|info| info.logical_block = 4096));
    assert!(disc(|info| info.capacity = 1 << 44));
    assert!(unit(|_| {}).change_medium(None).is_err());
}
