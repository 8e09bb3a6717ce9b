//! CD-ROM drives (MMC-6).

use std::sync::Arc;

use paraslot_backends::block::testing::FaultBackend;
use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_scsi::LogicalUnit;

use crate::cdb::{READY, cdb, inquiry, read, request_sense, rw10, rw12};
use crate::initiator::{
    Data, End, GOOD, Initiator, UNKNOWN, at, bad_cdb, illegal, out_of_range, sense,
};
use crate::ways::{Way, on_every_way_to_a_drive, one, two};
use crate::world::{drive, fresh};

on_every_way_to_a_drive! {
    blocks_are_read,
    what_cannot_be_read_is_refused,
    without_a_disc_it_is_not_ready,
    a_change_of_the_disc_is_reported,
    the_tray_opens_and_closes,
    a_disc_that_is_held_is_not_ejected,
    the_table_of_contents,
    the_configuration,
    events_are_polled,
    the_disc_and_its_track_are_described,
    a_dvd_is_one,
    writes_are_unknown,
    sectors_are_read_as_user_data,
    a_disc_that_fails_is_a_medium_error,
}

const SECTOR: usize = 2048;
/// Blocks of the disc: 1000, and a part of one more.
const BLOCKS: u32 = 1000;

fn contents(lba: u32, blocks: u32) -> Vec<u8> {
    let (start, end) = (lba as usize * SECTOR, (lba + blocks) as usize * SECTOR);
    (start..end).map(|at| (at / SECTOR * 3 + at % 247).to_le_bytes()[0]).collect()
}

fn image() -> MemoryBackend {
    let mut bytes = contents(0, BLOCKS);
    bytes.extend([0xee; 512]);
    MemoryBackend::from_contents(&bytes, MemoryOptions::default()).expect("memory")
}

fn disc() -> Arc<dyn BlockBackend> {
    Arc::new(image())
}

fn loaded() -> Arc<LogicalUnit> {
    drive(Some(disc()))
}

/// START STOP UNIT: LOEJ without and with START.
const EJECT: [u8; 6] = [0x1b, 0, 0, 0, 2, 0];
const LOAD: [u8; 6] = [0x1b, 0, 0, 0, 3, 0];
const PREVENT: [u8; 6] = [0x1e, 0, 0, 0, 1, 0];
const ALLOW: [u8; 6] = [0x1e, 0, 0, 0, 0, 0];
const CAPACITY: [u8; 10] = [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn blocks_are_read<W: Way>() {
    one::<W>(&loaded(), |it| {
        assert_eq!(it.input(&CAPACITY, 8), [0, 0, 3, 231, 0, 0, 8, 0]);
        for (lba, blocks) in [(0, 1), (16, 2), (BLOCKS - 1, 1), (7, 60)] {
            let len = blocks as usize * SECTOR;
            assert!(it.input(&read(lba, blocks), len) == contents(lba, blocks));
            assert!(it.input(&rw12(0xa8, 0, lba, blocks), len) == contents(lba, blocks));
        }
        it.good(&read(5, 0));
        assert_eq!(it.end(&read(0, 2), Data::In(2 * SECTOR - 2)), End::Overrun);
        it.good(&cdb::<10>(0x2b, &[(5, 9)]));
        it.good(&rw10(0x2f, 0, 3, 9));
        it.good(&cdb::<12>(0xbb, &[(2, 255), (3, 255)]));
        assert_eq!(it.input(&cdb::<12>(0xbd, &[(9, 8)]), 8), [0; 8], "idle, and the tray is in");
    });
}

fn what_cannot_be_read_is_refused<W: Way>() {
    one::<W>(&loaded(), |it| {
        for (lba, blocks, first) in [(BLOCKS, 1, BLOCKS), (BLOCKS - 1, 2, BLOCKS), (5000, 1, 5000)]
        {
            let beyond = out_of_range(first.into());
            it.fails(&read(lba, blocks), Data::In(2 * SECTOR), beyond);
            it.fails(&rw12(0xa8, 0, lba, blocks), Data::In(2 * SECTOR), beyond);
        }
        let seek = cdb::<10>(0x2b, &[(4, 3), (5, 0xe8)]);
        it.fails(&seek, Data::None, out_of_range(BLOCKS.into()));
        it.fails(&cdb::<10>(0x28, &[(8, 1), (9, 4)]), Data::In(SECTOR), bad_cdb(9, Some(2)));
    });
}

fn without_a_disc_it_is_not_ready<W: Way>() {
    one::<W>(&drive(None), |it| {
        // MEDIUM NOT PRESENT - TRAY CLOSED.
        let none = sense(2, 0x3a, 1);
        for cdb in [&READY[..], &CAPACITY, &read(0, 1), &rw12(0xa8, 0, 0, 1)] {
            it.fails(cdb, Data::In(SECTOR), none);
        }
        for opcode in [0x2b, 0x42, 0x43, 0x51, 0x52, 0xad, 0xbe] {
            it.fails(&cdb::<12>(opcode, &[(8, 64)]), Data::In(64), none);
        }
        assert_eq!(it.input(&inquiry(None, 36), 36)[..2], [5, 0x80]);
        assert_eq!(it.input(&request_sense(false, 18), 18)[2], 0);
        // No profile is current.
        assert_eq!(it.input(&cdb::<10>(0x46, &[(8, 8)]), 8)[6..], [0, 0]);
        it.good(&EJECT);
        it.fails(&READY, Data::None, sense(2, 0x3a, 2));
        it.good(&LOAD);
        it.fails(&READY, Data::None, none);
    });
}

fn a_change_of_the_disc_is_reported<W: Way>() {
    let unit = loaded();
    two::<W>(&unit, |one, other| {
        unit.change_medium(None).expect("a drive");
        let gone = |it: &mut dyn Initiator| {
            it.fails(&READY, Data::None, sense(6, 0x3a, 0));
            it.fails(&READY, Data::None, sense(2, 0x3a, 2));
        };
        gone(one);
        gone(other);
        let new =
            MemoryBackend::from_contents(&fresh(16), MemoryOptions::default()).expect("memory");
        unit.change_medium(Some(Arc::new(new))).expect("a disc");
        for round in [true, false] {
            let it: &mut dyn Initiator = if round { &mut *one } else { &mut *other };
            // NOT READY TO READY CHANGE; what looks at the drive alone comes before.
            assert_eq!(it.input(&inquiry(None, 36), 36).len(), 36);
            it.fails(&read(0, 1), Data::In(SECTOR), sense(6, 0x28, 0));
            assert_eq!(it.input(&CAPACITY, 8), [0, 0, 0, 3, 0, 0, 8, 0]);
            assert!(it.input(&read(1, 3), 3 * SECTOR) == fresh(16)[SECTOR..]);
        }
        // Out and in again in between: one report, of what there is now.
        unit.change_medium(None).expect("a drive");
        unit.change_medium(Some(disc())).expect("a disc");
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x28, 0)], vec![(0x28, 0)]));
        assert!(one.input(&read(0, 1), SECTOR) == contents(0, 1));
    });
}

fn the_tray_opens_and_closes<W: Way>() {
    two::<W>(&loaded(), |one, other| {
        one.good(&EJECT);
        // Who takes it out knows; others are told.
        one.fails(&READY, Data::None, sense(2, 0x3a, 2));
        one.fails(&read(0, 1), Data::In(SECTOR), sense(2, 0x3a, 2));
        assert_eq!(other.attentions(), [(0x3a, 0)]);
        assert_eq!(one.input(&cdb::<12>(0xbd, &[(9, 8)]), 8)[1], 0x10);
        one.good(&EJECT);
        one.good(&LOAD);
        assert_eq!((one.attentions(), other.attentions()), (vec![(0x28, 0)], vec![(0x28, 0)]));
        assert!(one.input(&read(0, 1), SECTOR) == contents(0, 1));
        // A drive stops and starts by itself.
        for operation in [0, 1, 0x10, 0x20, 0x30] {
            one.good(&[0x1b, 0, 0, 0, operation, 0]);
            one.good(&READY);
        }
        one.fails(&[0x1b, 0, 0, 0, 0x50, 0], Data::None, bad_cdb(4, Some(7)));
    });
}

fn a_disc_that_is_held_is_not_ejected<W: Way>() {
    let unit = loaded();
    two::<W>(&unit, |one, other| {
        other.good(&PREVENT);
        // MEDIUM REMOVAL PREVENTED, as long as anybody does.
        one.good(&PREVENT);
        other.fails(&EJECT, Data::None, illegal(0x53, 2));
        one.good(&ALLOW);
        one.fails(&EJECT, Data::None, illegal(0x53, 2));
        one.good(&READY);
        one.good(&LOAD);
        other.good(&ALLOW);
        one.good(&EJECT);
        one.fails(&[0x1e, 0, 0, 0, 2, 0], Data::None, bad_cdb(4, Some(1)));
        one.good(&LOAD);
        one.attentions();
        other.attentions();
        // The operator takes it out whatever anybody says.
        one.good(&PREVENT);
        unit.change_medium(None).expect("a drive");
        assert_eq!(one.attentions(), [(0x3a, 0)]);
    });
}

/// READ TOC/PMA/ATIP: format, as MSF, from this track.
fn toc(format: u8, msf: bool, track: u8) -> [u8; 10] {
    cdb(0x43, &[(1, u8::from(msf) << 1), (2, format), (6, track), (8, 255)])
}

fn the_table_of_contents<W: Way>() {
    one::<W>(&loaded(), |it| {
        // 1000 blocks end at 15 s 25 f: 13 s 25 f, behind two seconds.
        let (track, end) = ([0, 0x14, 1, 0], [0, 0x14, 0xaa, 0]);
        let blocks = [&[0, 18, 1, 1][..], &track, &[0, 0, 0, 0], &end, &[0, 0, 3, 232]].concat();
        let msf = [&[0, 18, 1, 1][..], &track, &[0, 0, 2, 0], &end, &[0, 0, 15, 25]].concat();
        for start in [0, 1] {
            assert_eq!(it.input(&toc(0, false, start), 255), blocks);
            assert_eq!(it.input(&toc(0, true, start), 255), msf);
        }
        let lead_out = [&[0, 10, 1, 1][..], &end, &[0, 0, 3, 232]].concat();
        assert_eq!(it.input(&toc(0, false, 0xaa), 255), lead_out);
        it.fails(&toc(0, false, 2), Data::In(255), bad_cdb(6, Some(7)));
        assert_eq!(it.input(&toc(1, false, 0), 255), [0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0]);
        let full = it.input(&toc(2, true, 0), 255);
        assert_eq!((full.len(), full[..4].to_vec()), (48, vec![0, 46, 1, 1]));
        let point =
            |index: usize| (full[7 + 11 * index], full[12 + 11 * index..15 + 11 * index].to_vec());
        assert_eq!(point(0), (0xa0, vec![1, 0, 0]));
        assert_eq!(point(1), (0xa1, vec![1, 0, 0]));
        assert_eq!(point(2), (0xa2, vec![0, 15, 25]));
        assert_eq!(point(3), (1, vec![0, 2, 0]));
        // As hosts of old ask for the format.
        assert_eq!(it.input(&cdb::<10>(0x43, &[(8, 255), (9, 0x40)]), 255)[1], 10);
        it.fails(&toc(5, false, 0), Data::In(255), bad_cdb(2, Some(3)));
        assert_eq!(it.input(&cdb::<10>(0x43, &[(8, 4)]), 255), blocks[..4]);
    });
}

fn configuration(which: u8, start: u8) -> [u8; 10] {
    cdb(0x46, &[(1, which), (3, start), (7, 1)])
}

/// The features that are listed: code, and whether current.
fn features(data: &[u8]) -> Vec<(u16, bool)> {
    assert_eq!(data[..4], u32::try_from(data.len() - 4).expect("short").to_be_bytes());
    let (mut rest, mut list) = (&data[8..], Vec::new());
    while let [high, low, flags, len, more @ ..] = rest {
        list.push((u16::from_be_bytes([*high, *low]), flags & 1 != 0));
        rest = &more[usize::from(*len)..];
    }
    list
}

fn the_configuration<W: Way>() {
    one::<W>(&loaded(), |it| {
        let data = it.input(&configuration(0, 0), 256);
        assert_eq!(data[4..8], [0, 0, 0, 8], "a CD-ROM is in it");
        let all = features(&data);
        let codes = [0, 1, 2, 3, 0x10, 0x1e, 0x1f].map(|code| (code, code != 0x1f));
        assert_eq!(all, codes);
        let current = features(&it.input(&configuration(1, 0), 256));
        assert_eq!(current, codes[..6]);
        assert_eq!(features(&it.input(&configuration(0, 0x10), 256)), codes[4..]);
        // The profiles: DVD-ROM, and CD-ROM, which is current.
        let list = it.input(&configuration(2, 0), 256);
        assert_eq!(list[8..], [0, 0, 3, 8, 0, 0x10, 0, 0, 0, 8, 1, 0]);
        let interface = it.input(&configuration(2, 1), 256)[15];
        assert_eq!(interface, if W::AUTOSENSE { 1 } else { 2 }, "SCSI or ATAPI");
        // A tray, that locks and ejects.
        assert_eq!(it.input(&configuration(2, 3), 256)[12], 0x29);
        assert_eq!(features(&it.input(&configuration(2, 0x20), 256)), []);
        it.fails(&configuration(3, 0), Data::In(256), bad_cdb(1, Some(1)));
        assert_eq!(it.input(&cdb::<10>(0x46, &[(8, 8)]), 8), data[..8]);
    });
}

/// GET EVENT STATUS NOTIFICATION, of media events.
fn events(allocation: u8) -> [u8; 10] {
    cdb(0x4a, &[(1, 1), (4, 0x10), (8, allocation)])
}

fn events_are_polled<W: Way>() {
    let unit = loaded();
    two::<W>(&unit, |one, other| {
        let ask = |it: &mut dyn Initiator| it.input(&events(8), 8);
        // Nothing has happened; a disc is there.
        assert_eq!(ask(one), [0, 6, 4, 0x10, 0, 2, 0, 0]);
        unit.change_medium(None).expect("a drive");
        assert_eq!(ask(one), [0, 6, 4, 0x10, 3, 1, 0, 0], "it was removed, the tray is out");
        assert_eq!(ask(one), [0, 6, 4, 0x10, 0, 1, 0, 0], "which was said");
        unit.change_medium(Some(disc())).expect("a disc");
        // A header alone does not report it.
        assert_eq!(one.input(&events(4), 8), [0, 6, 4, 0x10]);
        assert_eq!(ask(one), [0, 6, 4, 0x10, 2, 2, 0, 0], "a new one");
        assert_eq!(ask(one)[4], 0);
        assert_eq!(ask(other)[4], 2, "to each initiator");
        // The attention is another matter.
        assert_eq!(one.attentions(), [(0x28, 0)]);
        other.attentions();
        other.good(&EJECT);
        assert_eq!(ask(one)[4..6], [3, 1], "what is on the tray is not known");
        // Other classes of events there are not; nor are events sent by themselves.
        assert_eq!(
            one.input(&cdb::<10>(0x4a, &[(1, 1), (4, 0x40), (8, 8)]), 8),
            [0, 2, 0x80, 0x10]
        );
        one.fails(&cdb::<10>(0x4a, &[(4, 0x10), (8, 8)]), Data::In(8), bad_cdb(1, Some(0)));
    });
}

fn the_disc_and_its_track_are_described<W: Way>() {
    one::<W>(&loaded(), |it| {
        let data = it.input(&cdb::<10>(0x51, &[(8, 34)]), 34);
        // Complete, one session of one track.
        assert_eq!(data[..8], [0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
        it.fails(&cdb::<10>(0x51, &[(1, 1), (8, 34)]), Data::In(34), bad_cdb(1, Some(2)));
        for (kind, number) in [(0, 0), (0, 200), (1, 1), (2, 1)] {
            let data = it.input(&cdb::<10>(0x52, &[(1, kind), (5, number), (8, 36)]), 36);
            assert_eq!(data[..7], [0, 34, 1, 1, 0, 4, 1]);
            assert_eq!(data[24..28], BLOCKS.to_be_bytes());
        }
        it.fails(&cdb::<10>(0x52, &[(1, 1), (5, 2), (8, 36)]), Data::In(36), bad_cdb(2, None));
        let beyond = cdb::<10>(0x52, &[(4, 3), (5, 232), (8, 36)]);
        it.fails(&beyond, Data::In(36), out_of_range(1000));
        // Nothing is played.
        let position = cdb::<10>(0x42, &[(1, 2), (2, 0x40), (3, 1), (8, 16)]);
        let expected = [0, 0x15, 0, 12, 1, 0x14, 1, 1, 0, 0, 2, 0, 0, 0, 0, 0];
        assert_eq!(it.input(&position, 16), expected);
        assert_eq!(it.input(&cdb::<10>(0x42, &[(8, 16)]), 16), [0, 0x15, 0, 0]);
        // INCOMPATIBLE MEDIUM: a CD has no such structures.
        it.fails(&cdb::<12>(0xad, &[(9, 64)]), Data::In(64), illegal(0x30, 0));
    });
}

fn a_dvd_is_one<W: Way>() {
    // Longer than 99 minutes, 59 seconds and 74 frames can say.
    let options = MemoryOptions::default();
    let image = MemoryBackend::new(450_000 * 2048, options).expect("address space");
    one::<W>(&drive(Some(Arc::new(image))), |it| {
        assert_eq!(it.input(&cdb::<10>(0x46, &[(8, 8)]), 8)[6..], [0, 0x10]);
        let current = features(&it.input(&configuration(1, 0x10), 256));
        assert_eq!(current, [(0x10, true), (0x1f, true)]);
        let data = it.input(&cdb::<12>(0xad, &[(8, 0x10)]), 4096);
        assert_eq!((data.len(), &data[..4]), (2052, &[0x08, 0x02, 0, 0][..]));
        // From 30000h on.
        assert_eq!(data[8..12], [0, 3, 0, 0]);
        assert_eq!(data[12..16], (0x3_0000_u32 + 449_999).to_be_bytes());
        assert_eq!(it.input(&cdb::<12>(0xad, &[(7, 1), (9, 8)]), 8), [0, 6, 0, 0, 0, 0, 0, 0]);
        it.fails(&cdb::<12>(0xad, &[(7, 4), (9, 8)]), Data::In(8), bad_cdb(7, Some(7)));
        it.fails(&cdb::<12>(0xad, &[(6, 1), (9, 8)]), Data::In(8), bad_cdb(6, Some(7)));
    });
}

fn writes_are_unknown<W: Way>() {
    let backend = image();
    one::<W>(&drive(Some(Arc::new(backend.clone()))), |it| {
        for opcode in [0x04, 0x0a, 0x2a, 0x2e, 0x35, 0x41, 0x8a, 0x93, 0xaa, 0xae, 0x5f] {
            it.fails(&cdb::<12>(opcode, &[(8, 1)]), Data::Out(&fresh(4)), UNKNOWN);
        }
        let mut first = vec![0; SECTOR];
        backend.read_at(0, &mut first).expect("inside");
        assert!(first == contents(0, 1));
    });
}

fn sectors_are_read_as_user_data<W: Way>() {
    one::<W>(&loaded(), |it| {
        let read_cd =
            |kind: u8, what| cdb::<12>(0xbe, &[(1, kind << 2), (5, 9), (8, 2), (9, what)]);
        for kind in [0, 2] {
            assert!(it.input(&read_cd(kind, 0x10), 2 * SECTOR) == contents(9, 2));
        }
        it.good(&read_cd(0, 0));
        // ILLEGAL MODE FOR THIS TRACK: it is of mode 1.
        for kind in [1, 3, 4, 5] {
            it.fails(&read_cd(kind, 0x10), Data::In(2 * SECTOR), illegal(0x64, 0));
        }
        for what in [0xf8, 0x18, 0x12] {
            it.fails(&read_cd(0, what), Data::In(2 * 2352), bad_cdb(9, Some(7)));
        }
        let sub = cdb::<12>(0xbe, &[(8, 1), (9, 0x10), (10, 1)]);
        it.fails(&sub, Data::In(2448), bad_cdb(10, Some(2)));
        let beyond = cdb::<12>(0xbe, &[(4, 4), (8, 1), (9, 0x10)]);
        it.fails(&beyond, Data::In(SECTOR), out_of_range(1024));
    });
}

fn a_disc_that_fails_is_a_medium_error<W: Way>() {
    let backend = FaultBackend::new(image(), |_, request| {
        (request.offset == 40 * 2048).then(|| std::io::Error::from_raw_os_error(5).into())
    });
    one::<W>(&drive(Some(Arc::new(backend))), |it| {
        it.fails(&read(40, 1), Data::In(SECTOR), at(sense(3, 0x11, 0), 40));
        assert!(it.input(&read(41, 1), SECTOR) == contents(41, 1));
        assert_eq!(it.end(&READY, Data::None), GOOD);
    });
}
