//! What each request does, and what each wrong one is answered.

use paraslot_spec::virtio_blk::{RANGE_F_UNMAP, feature, request};

use super::*;

#[test]
fn what_is_written_is_read() {
    let image = memory(64);
    let mut disk = Disk::simple(image.clone());
    assert_eq!(disk.write(3, 2, 7), status::OK);
    assert_eq!(disk.read(2, 4), [0, 7, 7, 0]);
    assert_eq!(disk.request(request::FLUSH, 0, &[]), (status::OK, 1));
    let mut byte = [0];
    image.read_at(3 * 512, &mut byte).unwrap();
    assert_eq!(byte, [7]);
    assert_eq!(disk.signals.resets(), 0);
}

#[test]
fn the_serial_number() {
    let options = Options { queue_size: 16, id: Some("serial".into()), ..Options::default() };
    let mut disk = Disk::new(memory(8), &options, ALL);
    // One that fits, one that is cut short, one with room to spare: only what was filled counts.
    for (len, written) in [(20, 21), (3, 4), (32, 20), (0, 1)] {
        disk.ring.write(DATA, &[POISON; 40]);
        let data = Buffer::writable(DATA, len);
        let data = if len == 0 { vec![] } else { vec![data] };
        assert_eq!(disk.request(request::GET_ID, 0, &data), (status::OK, written));
        let len = usize::try_from(len).unwrap();
        let mut expected = *b"serial\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        expected[len.min(20)..].fill(POISON);
        assert_eq!(disk.ring.read(DATA, 20), expected);
        assert_eq!(disk.ring.read(DATA + 20, 20), [POISON; 20]);
    }
}

// blk.op.18: zone requests; and everything else that is not offered.
#[test]
fn unknown_requests_are_unsupported() {
    let mut disk = Disk::simple(memory(8));
    for kind in [2, 3, 5, 6, 7, 9, request::GET_LIFETIME, 12, 15, 16, 18, 20, 22, 24, 26, u32::MAX]
    {
        let data = [Buffer::writable(DATA, 512)];
        disk.ring.write(DATA, &[POISON; 512]);
        assert_eq!(disk.request(kind, 0, &data), (status::UNSUPP, 0), "{kind}");
        assert_eq!(disk.ring.read(DATA, 512), [POISON; 512]);
    }
}

// CH f7ebb4b87, CH c79f3acfa, crosvm 5329be363: sector and length arithmetic.
#[test]
fn ranges_are_checked_without_overflow() {
    let mut disk = Disk::simple(memory(8));
    let last = u64::MAX / 512;
    for (sector, len) in [
        (8, 512),
        (7, 1024),
        (0, 4608),
        (last, 512),
        (last + 1, 512),
        (u64::MAX, 512),
        (u64::MAX - 1, 1024),
        (1 << 55, 512),
        (0, 511),
        (0, 513),
        (0, 1),
    ] {
        disk.ring.write(DATA, &[POISON; 0x2000]);
        let read = disk.request(request::IN, sector, &[Buffer::writable(DATA, len)]);
        // Nothing was filled from the start of the buffer, so nothing is claimed.
        assert_eq!(read, (status::IOERR, 0), "{sector}+{len}");
        assert_eq!(disk.ring.read(DATA, 0x2000), [POISON; 0x2000]);
        let write = disk.request(request::OUT, sector, &[Buffer::readable(DATA, len)]);
        assert_eq!(write, (status::IOERR, 1), "{sector}+{len}");
    }
    assert_eq!(disk.read(0, 8), [0; 8]);
    assert_eq!(disk.request(request::IN, 8, &[]), (status::OK, 1));
}

#[test]
fn requests_are_multiples_of_the_logical_block() {
    let options = MemoryOptions { logical_block: 4096, ..MemoryOptions::default() };
    let mut disk = Disk::simple(MemoryBackend::new(1 << 20, options).unwrap());
    for (sector, len, expected) in [
        (0, 4096, status::OK),
        (8, 8192, status::OK),
        (1, 4096, status::IOERR),
        (0, 512, status::IOERR),
        (8, 4608, status::IOERR),
    ] {
        assert_eq!(disk.request(request::IN, sector, &[Buffer::writable(DATA, len)]).0, expected);
        assert_eq!(disk.request(request::OUT, sector, &[Buffer::readable(DATA, len)]).0, expected);
        let sectors = len / 512;
        assert_eq!(disk.ranges(request::WRITE_ZEROES, &[(sector, sectors, 0)]), expected);
        assert_eq!(disk.ranges(request::DISCARD, &[(sector, sectors, 0)]), expected);
    }
}

// blk.op.7, blk.op.8, blk.op.9
#[test]
fn ranges_are_cleared() {
    for (kind, flags) in [
        (request::DISCARD, 0),
        (request::WRITE_ZEROES, 0),
        (request::WRITE_ZEROES, RANGE_F_UNMAP),
        (request::SECURE_ERASE, 0),
    ] {
        let mut disk = Disk::simple(memory(64));
        assert_eq!(disk.write(0, 8, 7), status::OK);
        let ranges = [(1, 2, flags), (5, 1, flags), (7, 0, flags)];
        assert_eq!(disk.ranges(kind, &ranges), status::OK);
        assert_eq!(disk.read(0, 8), [7, 0, 0, 7, 7, 0, 7, 7]);
    }
}

// blk.op.5, blk.op.6
#[test]
fn flags_that_have_no_meaning_are_unsupported() {
    let mut disk = Disk::simple(memory(64));
    assert_eq!(disk.write(0, 8, 7), status::OK);
    for (kind, flags) in [
        (request::DISCARD, RANGE_F_UNMAP),
        (request::DISCARD, 2),
        (request::WRITE_ZEROES, 2),
        (request::WRITE_ZEROES, 1 << 31 | RANGE_F_UNMAP),
        (request::SECURE_ERASE, RANGE_F_UNMAP),
        (request::SECURE_ERASE, 4),
    ] {
        assert_eq!(disk.ranges(kind, &[(0, 1, flags)]), status::UNSUPP);
        // One bad range spoils all, before anything is done.
        assert_eq!(disk.ranges(kind, &[(1, 1, 0), (0, 1, flags)]), status::UNSUPP);
    }
    assert_eq!(disk.read(0, 8), [7; 8]);
}

#[test]
fn ranges_have_limits() {
    let options = Options {
        queue_size: 16,
        max_discard_sectors: 4,
        max_write_zeroes_sectors: 5,
        max_secure_erase_sectors: 6,
        max_ranges: 3,
        ..Options::default()
    };
    let mut disk = Disk::new(memory(64), &options, ALL);
    assert_eq!(disk.write(0, 64, 7), status::OK);
    for (kind, most) in
        [(request::DISCARD, 4), (request::WRITE_ZEROES, 5), (request::SECURE_ERASE, 6)]
    {
        for ranges in [
            &[(0, most + 1, 0)][..],
            &[(0, u32::MAX, 0)][..],
            &[(64, 1, 0)][..],
            &[(u64::MAX, 1, 0)][..],
            &[(u64::MAX / 512, 1, 0)][..],
            &[(62, 3, 0)][..],
            &[(0, 1, 0); 4][..],
            &[][..],
        ] {
            assert_eq!(disk.ranges(kind, ranges), status::IOERR);
        }
        // Not a whole number of ranges.
        let odd = [Buffer::readable(RANGES, 24)];
        assert_eq!(disk.request(kind, 0, &odd), (status::IOERR, 1));
    }
    assert_eq!(disk.read(0, 64), [7; 64]);
    assert_eq!(
        disk.ranges(request::WRITE_ZEROES, &[(0, 5, 0), (10, 5, 0), (20, 5, 0)]),
        status::OK
    );
}

#[test]
fn features_that_were_not_accepted_are_unsupported() {
    let features = ALL & !(feature::DISCARD | feature::WRITE_ZEROES | feature::SECURE_ERASE);
    let mut disk =
        Disk::new(memory(64), &Options { queue_size: 16, ..Options::default() }, features);
    for kind in [request::DISCARD, request::WRITE_ZEROES, request::SECURE_ERASE] {
        assert_eq!(disk.ranges(kind, &[(0, 1, 0)]), status::UNSUPP);
    }
}

// blk.op.3, blk.op.4: whether or not the driver has accepted RO.
#[test]
fn a_read_only_device_is_not_written() {
    let read_only_image = MemoryOptions { read_only: true, ..MemoryOptions::default() };
    let by_image = MemoryBackend::from_contents(&[7; 0x1000], read_only_image).unwrap();
    let by_option = MemoryBackend::from_contents(&[7; 0x1000], MemoryOptions::default()).unwrap();
    for (image, read_only) in [(by_image, false), (by_option, true)] {
        for features in [ALL, ALL & !feature::RO] {
            let options = Options { queue_size: 16, read_only, ..Options::default() };
            let mut disk = Disk::new(image.clone(), &options, features);
            assert_eq!(disk.write(0, 8, 9), status::IOERR);
            for kind in [request::DISCARD, request::WRITE_ZEROES, request::SECURE_ERASE] {
                assert_eq!(disk.ranges(kind, &[(0, 1, 0)]), status::IOERR);
            }
            assert_eq!(disk.request(request::FLUSH, 0, &[]).0, status::OK);
            assert_eq!(disk.read(0, 8), [7; 8]);
        }
    }
}

// A slot that is used again does nothing of what it did before.
#[test]
fn requests_leave_nothing_behind() {
    let mut disk = Disk::simple(memory(64));
    let heads: Vec<u16> = (0..3)
        .map(|_| {
            let zeroes = disk.add_ranges(request::WRITE_ZEROES, &[(0, 4, 0), (4, 4, 0)]);
            assert_eq!(disk.finish(zeroes), (status::OK, 1));
            assert_eq!(disk.write(0, 8, 7), status::OK);
            assert_eq!(disk.request(request::FLUSH, 0, &[]), (status::OK, 1));
            assert_eq!(disk.request(request::GET_ID, 0, &[]), (status::OK, 1));
            assert_eq!(disk.read(0, 8), [7; 8]);
            zeroes.head
        })
        .collect();
    assert!(heads.iter().all(|head| *head == heads[0]), "the same slot each time: {heads:?}");
}
