//! CD-ROM drives: what the probes of firmware and operating systems ask, and what happens to discs.

use super::*;

const TUR: [u8; 6] = [0; 6];
const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 3, 0];
/// 700 MB.
const CD: u64 = 333_000;
/// 4.7 GB.
const DVD: u64 = 2_295_104;

fn ten_with(opcode: u8, fields: [u8; 6], allocation: u16) -> [u8; 10] {
    let [a, b, c, d, e, f] = fields;
    let [high, low] = allocation.to_be_bytes();
    [opcode, a, b, c, d, e, f, high, low, 0]
}

/// GET EVENT STATUS NOTIFICATION for media events: event, status.
fn event(drive: &Initiator) -> (u8, u8) {
    let data = drive.reply(&ten_with(0x4a, [1, 0, 0, 0x10, 0, 0], 8));
    assert_eq!(data[..4], [0, 6, 4, 0x10]);
    (data[4], data[5])
}

#[test]
fn blocks_have_2048_bytes() {
    let drive = drive(Some(CD));
    let data = drive.reply(&ten(0x25, 0, 0, 0));
    assert_eq!(data, [0, 5, 0x14, 0xc7, 0, 0, 8, 0]);
    assert!(matches!(drive.run(&ten(0x28, 0, 16, 1)), Plan::Read { offset: 32768, len: 2048 }));
    assert!(matches!(drive.run(&twelve(0xa8, 0, 16, 2)), Plan::Read { offset: 32768, len: 4096 }));
    assert!(matches!(drive.run(&ten(0x2f, 0, 0, 1)), Plan::Verify { len: 2048, .. }));
    let out = Sense { information: Some(CD), ..illegal(0x21, 0) };
    assert_eq!(drive.sense(&ten(0x28, 0, u32::try_from(CD).unwrap(), 1)), out);
    drive.good(&ten(0x2b, 0, 9, 0));
    assert_eq!(drive.sense(&ten(0x2b, 0, u32::try_from(CD).unwrap(), 0)), out);
    drive.good(&[0xbb, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    // The part of the image's end that does not fill a block is not seen.
    let options = CdromOptions {
        medium: Some(image(|info| info.capacity = 5 * 2048 + 512)),
        identity: cdrom_identity(),
    };
    let odd = Initiator::ready(&LogicalUnit::cdrom(options).unwrap(), "one");
    assert_eq!(odd.reply(&ten(0x25, 0, 0, 0)), [0, 0, 0, 4, 0, 0, 8, 0]);
    assert_eq!(odd.nexus.block_size(), 2048);
}

#[test]
fn nothing_is_written() {
    let drive = drive(Some(CD));
    for opcode in [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0x41, 0x93, 0x04, 0x89, 0x5f] {
        assert_eq!(drive.sense(&[opcode]), illegal(0x20, 0), "{opcode:x}");
    }
}

#[test]
fn read_cd_gives_user_data() {
    let drive = drive(Some(CD));
    let read =
        |kind: u8, what, sub| drive.run(&[0xbe, kind << 2, 0, 0, 0, 2, 0, 0, 3, what, sub, 0]);
    for kind in [0, 2] {
        assert!(matches!(read(kind, 0x10, 0), Plan::Read { offset: 4096, len: 6144 }));
    }
    assert!(is_status(&read(0, 0, 0), Status::Good));
    for kind in [1, 3, 4, 5] {
        assert_eq!(sense(read(kind, 0x10, 0)), illegal(0x64, 0));
    }
    assert_eq!(sense(read(7, 0x10, 0)), bad_cdb(1, Some(4)));
    assert_eq!(sense(read(0, 0xf8, 0)), bad_cdb(9, Some(7)));
    assert_eq!(sense(read(0, 0x12, 0)), bad_cdb(9, Some(7)));
    assert_eq!(sense(read(0, 0x10, 1)), bad_cdb(10, Some(2)));
    let beyond = [0xbe, 0, 0, 5, 0x14, 0xc7, 0, 0, 2, 0x10, 0, 0];
    assert_eq!(drive.sense(&beyond).asc, 0x21);
}

#[test]
fn tables_of_contents() {
    let drive = drive(Some(CD));
    let toc =
        |flags, format, track| drive.reply(&ten_with(0x43, [flags, format, 0, 0, 0, track], 99));
    let lba = [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 5, 0x14, 0xc8];
    assert_eq!(toc(0, 0, 0), lba);
    assert_eq!(toc(0, 0, 1), lba);
    // 333000 + 150 frames.
    let msf = [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 2, 0, 0, 0x14, 0xaa, 0, 0, 74, 2, 0];
    assert_eq!(toc(2, 0, 0), msf);
    assert_eq!(toc(0, 0, 0xaa), [0, 10, 1, 1, 0, 0x14, 0xaa, 0, 0, 5, 0x14, 0xc8]);
    assert_eq!(toc(0, 1, 0), [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
    let full = toc(2, 2, 0);
    assert_eq!(full[..4], [0, 46, 1, 1]);
    assert_eq!(full[4..15], [1, 0x14, 0, 0xa0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(full[15..26], [1, 0x14, 0, 0xa1, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(full[26..37], [1, 0x14, 0, 0xa2, 0, 0, 0, 0, 74, 2, 0]);
    assert_eq!(full[37..48], [1, 0x14, 0, 1, 0, 0, 0, 0, 0, 2, 0]);
    // The format where ATAPI once had it.
    let mut old = ten_with(0x43, [2, 0, 0, 0, 0, 0], 99);
    old[9] = 0x40;
    assert_eq!(drive.reply(&old)[1], 10);
    assert_eq!(drive.reply(&ten_with(0x43, [0; 6], 4)), [0, 18, 1, 1]);
    assert_eq!(drive.reply(&ten_with(0x43, [0; 6], 0)), [0u8; 0]);
    for (format, track, refused) in [
        (0, 2, bad_cdb(6, Some(7))),
        (0, 0xab, bad_cdb(6, Some(7))),
        (2, 2, bad_cdb(6, Some(7))),
        (3, 0, bad_cdb(2, Some(3))),
        (5, 0, bad_cdb(2, Some(3))),
    ] {
        assert_eq!(drive.sense(&ten_with(0x43, [0, format, 0, 0, 0, track], 99)), refused);
    }
    // An address that minutes cannot say.
    let long = super::drive(Some(1 << 31));
    assert_eq!(long.reply(&ten_with(0x43, [2, 0, 0, 0, 0, 0xaa], 99))[8..], [0, 255, 59, 74]);
}

/// GET CONFIGURATION: current profile, and the features with whether they are current.
fn configuration(drive: &Initiator, which: u8, start: u16) -> (u16, Vec<(u16, bool)>) {
    let [high, low] = start.to_be_bytes();
    let data = drive.reply(&ten_with(0x46, [which, high, low, 0, 0, 0], 512));
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
    let mut features = Vec::new();
    let mut rest = &data[8..];
    while let [a, b, flags, len, ..] = *rest {
        features.push((u16::from_be_bytes([a, b]), flags & 1 != 0));
        rest = &rest[4 + usize::from(len)..];
    }
    assert!(rest.is_empty());
    (u16::from_be_bytes([data[6], data[7]]), features)
}

#[test]
fn features_by_disc() {
    let always = [(0, true), (1, true), (2, true), (3, true)];
    for (blocks, profile, disc) in [
        (None, 0, [(0x10, false), (0x1e, false), (0x1f, false)]),
        (Some(CD), 8, [(0x10, true), (0x1e, true), (0x1f, false)]),
        (Some(DVD), 0x10, [(0x10, true), (0x1e, false), (0x1f, true)]),
    ] {
        let drive = drive(blocks);
        let all: Vec<_> = always.into_iter().chain(disc).collect();
        assert_eq!(configuration(&drive, 0, 0), (profile, all.clone()));
        assert_eq!(configuration(&drive, 0, 3), (profile, all[3..].to_vec()));
        let current = all.into_iter().filter(|(_, current)| *current).collect();
        assert_eq!(configuration(&drive, 1, 0), (profile, current));
        assert_eq!(configuration(&drive, 2, 0x1e), (profile, vec![disc[1]]));
        assert_eq!(configuration(&drive, 2, 0x20), (profile, vec![]));
        assert_eq!(drive.sense(&ten_with(0x46, [3, 0, 0, 0, 0, 0], 8)), bad_cdb(1, Some(1)));
    }
    let data = drive(Some(DVD)).reply(&ten_with(0x46, [2, 0, 0, 0, 0, 0], 512));
    assert_eq!(data[8..], [0, 0, 3, 8, 0, 0x10, 1, 0, 0, 8, 0, 0]);
    let data = drive(None).reply(&ten_with(0x46, [2, 0, 3, 0, 0, 0], 512));
    assert_eq!(data[8..], [0, 3, 7, 4, 0x29, 0, 0, 0]);
}

#[test]
fn discs_come_and_go() {
    let drive = drive(None);
    let generation = drive.nexus.medium_generation();
    let no_disc = Sense::new(2, (0x3a, 0x01));
    for cdb in [
        &TUR[..],
        &ten(0x28, 0, 0, 1),
        &ten(0x25, 0, 0, 0),
        &ten_with(0x43, [0; 6], 12),
        &ten_with(0x51, [0; 6], 34),
        &ten_with(0x52, [1, 0, 0, 0, 1, 0], 36),
        &twelve(0xbe, 0, 0, 0),
        &[0xad, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0],
        &ten_with(0x42, [0; 6], 4),
    ] {
        assert_eq!(drive.sense(cdb), no_disc, "{cdb:x?}");
    }
    assert_eq!(event(&drive), (0, 0));
    drive.unit().change_medium(Some(disc(CD))).unwrap();
    assert!(drive.nexus.medium_generation() > generation);
    // Neither events nor configuration wait for the attention.
    assert_eq!(event(&drive), (2, 2));
    assert_eq!(event(&drive), (0, 2));
    assert_eq!(configuration(&drive, 1, 0).0, 8);
    assert_eq!(drive.sense(&TUR), Sense::new(6, (0x28, 0)));
    drive.good(&TUR);
    drive.unit().change_medium(None).unwrap();
    assert_eq!(event(&drive), (3, 1));
    assert_eq!(drive.sense(&TUR), Sense::new(6, (0x3a, 0)));
    assert_eq!(drive.sense(&TUR), Sense::new(2, (0x3a, 0x02)));
    assert!(drive.nexus.medium().is_none());
    // Two changes that nobody saw are one.
    drive.unit().change_medium(Some(disc(CD))).unwrap();
    drive.unit().change_medium(Some(disc(DVD))).unwrap();
    assert_eq!(drive.attention(), Some((0x28, 0)));
    assert_eq!(drive.attention(), None);
    assert_eq!(configuration(&drive, 1, 0).0, 0x10);
    // A disc that has come and gone is no news of a disc.
    drive.unit().change_medium(Some(disc(CD))).unwrap();
    drive.unit().change_medium(None).unwrap();
    assert_eq!(drive.attention(), Some((0x3a, 0)));
    assert_eq!(drive.sense(&TUR), Sense::new(2, (0x3a, 0x02)));
    assert!(drive.unit().change_medium(Some(image(|info| info.capacity = 512))).is_err());
}

#[test]
fn the_tray_opens_unless_it_is_locked() {
    let one = drive(Some(CD));
    let two = Initiator::ready(one.unit(), "two");
    let lock = |drive: &Initiator, how| drive.good(&[0x1e, 0, 0, 0, how, 0]);
    lock(&two, 1);
    lock(&two, 1);
    assert_eq!(one.sense(&EJECT), illegal(0x53, 0x02));
    assert_eq!(one.reply(&[0x1a, 8, 0x2a, 0, 255, 0])[4 + 6], 0x2b);
    // One's own permission is not another's.
    lock(&one, 0);
    assert_eq!(one.sense(&EJECT), illegal(0x53, 0x02));
    lock(&two, 0);
    assert_eq!(one.reply(&[0x1a, 8, 0x2a, 0, 255, 0])[4 + 6], 0x29);
    one.good(&EJECT);
    one.good(&EJECT);
    assert_eq!(one.sense(&TUR), Sense::new(2, (0x3a, 0x02)));
    assert_eq!(two.attention(), Some((0x3a, 0)));
    assert_eq!(event(&one), (3, 1));
    assert_eq!(one.reply(&[0xbd, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0]), [0, 0x10, 0, 0, 0, 0, 0, 0]);
    one.good(&LOAD);
    assert_eq!((one.attention(), two.attention()), (Some((0x28, 0)), Some((0x28, 0))));
    one.good(&TUR);
    assert_eq!(event(&two), (2, 2));
    assert_eq!(one.sense(&[0x1e, 0, 0, 0, 2, 0]), bad_cdb(4, Some(1)));
    // Whoever is gone prevents nothing.
    lock(&two, 1);
    two.nexus.lost();
    one.good(&EJECT);
    one.good(&LOAD);
    // A drive that is stopped spins up again by itself.
    one.attention();
    one.good(&[0x1b, 0, 0, 0, 0, 0]);
    one.good(&TUR);
    one.good(&[0x1b, 1, 0, 0, 0x30, 0]);
    assert_eq!(one.sense(&[0x1b, 0, 0, 0, 0x70, 0]), bad_cdb(4, Some(7)));
    // The operator has a paper clip.
    lock(&one, 1);
    one.unit().change_medium(None).unwrap();
    assert_eq!(one.attention(), Some((0x3a, 0)));
}

#[test]
fn events_are_polled() {
    let drive = drive(Some(CD));
    assert_eq!(drive.sense(&ten_with(0x4a, [0, 0, 0, 0x10, 0, 0], 8)), bad_cdb(1, Some(0)));
    assert_eq!(drive.reply(&ten_with(0x4a, [1, 0, 0, 0x02, 0, 0], 8)), [0, 2, 0x80, 0x10]);
    // Who asks for the header alone has not seen the event.
    drive.unit().change_medium(Some(disc(CD))).unwrap();
    assert_eq!(drive.reply(&ten_with(0x4a, [1, 0, 0, 0x10, 0, 0], 4)), [0, 6, 4, 0x10]);
    assert_eq!(event(&drive), (2, 2));
}

#[test]
fn discs_and_tracks() {
    let drive = drive(Some(CD));
    let data = drive.reply(&ten_with(0x51, [0; 6], 255));
    let mut expected = vec![0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0, 0, 0, 0, 0, 0, 0, 0];
    expected.extend([0xff; 8]);
    expected.resize(34, 0);
    assert_eq!(data, expected);
    assert_eq!(drive.sense(&ten_with(0x51, [1, 0, 0, 0, 0, 0], 34)), bad_cdb(1, Some(2)));
    let track = |kind, number: u8| ten_with(0x52, [kind, 0, 0, 0, number, 0], 255);
    let data = drive.reply(&track(1, 1));
    assert_eq!((data.len(), &data[..7]), (36, &[0, 34, 1, 1, 0, 4, 1][..]));
    assert_eq!(data[24..28], [0, 5, 0x14, 0xc8]);
    assert_eq!(drive.reply(&track(0, 9)), data);
    assert_eq!(drive.reply(&track(2, 1)), data);
    assert_eq!(drive.sense(&track(1, 2)), bad_cdb(2, None));
    assert_eq!(drive.sense(&track(3, 1)), bad_cdb(1, Some(1)));
    let beyond = ten_with(0x52, [0, 0, 5, 0x14, 0xc8, 0], 255);
    assert_eq!(drive.sense(&beyond).asc, 0x21);
    let sub = |subq, format| ten_with(0x42, [2, subq, format, 0, 0, 0], 255);
    assert_eq!(drive.reply(&sub(0, 1)), [0, 0x15, 0, 0]);
    let position = [0, 0x15, 0, 12, 1, 0x14, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0];
    assert_eq!(drive.reply(&sub(0x40, 1)), position);
    assert_eq!(drive.reply(&sub(0x40, 2)).len(), 24);
    assert_eq!(drive.sense(&sub(0x40, 3)), bad_cdb(3, Some(7)));
}

#[test]
fn structures_of_a_dvd() {
    let structure = |format, layer| [0xad, 0, 0, 0, 0, 0, layer, format, 0xff, 0xff, 0, 0];
    let dvd = drive(Some(DVD));
    let data = dvd.reply(&structure(0, 0));
    assert_eq!((data.len(), &data[..4]), (2052, &[8, 2, 0, 0][..]));
    assert_eq!(data[4..16], [1, 0x0f, 1, 0, 0, 3, 0, 0, 0, 0x26, 0x05, 0x3f]);
    assert_eq!(dvd.reply(&structure(1, 0)), [0, 6, 0, 0, 0, 0, 0, 0]);
    assert_eq!(dvd.reply(&structure(0xff, 0)), [0, 10, 0, 0, 0, 0x40, 8, 4, 1, 0x40, 0, 8]);
    assert_eq!(dvd.sense(&structure(0, 1)), bad_cdb(6, Some(7)));
    assert_eq!(dvd.sense(&structure(4, 0)), bad_cdb(7, Some(7)));
    assert_eq!(drive(Some(CD)).sense(&structure(0, 0)), illegal(0x30, 0));
    let blu_ray = [0xad, 1, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0];
    assert_eq!(dvd.sense(&blu_ray), bad_cdb(1, Some(3)));
}

#[test]
fn capabilities_of_the_mechanism() {
    let data = drive(None).reply(&ten_with(0x5a, [8, 0x2a, 0, 0, 0, 0], 255));
    assert_eq!(data.len(), 36);
    assert_eq!(data[8..16], [0x2a, 0x1a, 0x1b, 0, 0, 0, 0x29, 0]);
    assert_eq!(data[16..18], (48 * 176_u16).to_be_bytes());
}
