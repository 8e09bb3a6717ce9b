//! Reads, writes, and what else goes to a range of blocks.

use super::*;
use crate::plan::Compare;

#[test]
fn every_length_of_read_and_write() {
    let disk = disk();
    let at = |plan: Plan| match plan {
        Plan::Read { offset, len } | Plan::Write { offset, len, fua: false } => (offset, len),
        other => panic!("{other:?}"),
    };
    for (six, ten_, twelve_, sixteen_) in [(0x08, 0x28, 0xa8, 0x88), (0x0a, 0x2a, 0xaa, 0x8a)] {
        assert_eq!(at(disk.run(&[six, 0, 2, 3, 4, 0])), (0x203 * 512, 4 * 512));
        assert_eq!(at(disk.run(&[six, 0, 0, 0, 0, 0])), (0, 256 * 512));
        assert_eq!(at(disk.run(&ten(ten_, 0, 0xffe, 2))), (0xffe * 512, 1024));
        assert_eq!(at(disk.run(&ten(ten_, 0x10, 5, 0))), (5 * 512, 0));
        assert_eq!(at(disk.run(&twelve(twelve_, 0, 1, 0xfff))), (512, 0xfff * 512));
        assert_eq!(at(disk.run(&sixteen(sixteen_, 0, 0, 0x1000))), (0, 0x1000 * 512));
    }
    // The highest three bits of byte 1 were a LUN once.
    assert_eq!(at(disk.run(&[0x08, 0xe0, 0, 1, 1, 0])), (512, 512));
}

#[test]
fn blocks_beyond_the_last_one_are_named() {
    let disk = disk();
    let out = |lba| Sense { information: Some(lba), ..illegal(0x21, 0) };
    for opcode in [0x28, 0x2a, 0x2e, 0x2f, 0x34, 0x35, 0x41] {
        assert_eq!(disk.sense(&ten(opcode, 0, 0xfff, 2)), out(0x1000), "{opcode:x}");
        assert_eq!(disk.sense(&ten(opcode, 0, 0x1000, 0)), out(0x1000), "{opcode:x}");
        assert_eq!(disk.sense(&ten(opcode, 0, u32::MAX, 1)), out(0xffff_ffff), "{opcode:x}");
    }
    for opcode in [0x88, 0x8a, 0x8e, 0x8f, 0x90, 0x91, 0x93] {
        assert_eq!(disk.sense(&sixteen(opcode, 0, 0, 0x1001)), out(0x1000), "{opcode:x}");
        // The end is beyond 64 bits.
        assert_eq!(disk.sense(&sixteen(opcode, 0, u64::MAX, 2)), out(u64::MAX), "{opcode:x}");
    }
    for opcode in [0xa8, 0xaa, 0xae, 0xaf] {
        assert_eq!(disk.sense(&twelve(opcode, 0, 2, u32::MAX)), out(0x1000), "{opcode:x}");
    }
    assert_eq!(disk.sense(&[0x08, 0x1f, 0xff, 0xff, 0, 0]), out(0x1f_ffff));
    let mut compare = sixteen(0x89, 0, 0xfff, 0);
    compare[13] = 2;
    assert_eq!(disk.sense(&compare), out(0x1000));
}

#[test]
fn no_transfer_is_longer_than_block_limits_says() {
    let disk = disk_with(|info| info.capacity = 1 << 40);
    let most = (256 << 20) / 512;
    assert!(matches!(
        disk.run(&sixteen(0x88, 0, 0, most)),
        Plan::Read { offset: 0, len } if len == 256 << 20
    ));
    for opcode in [0x88, 0x8a, 0x8e, 0x8f] {
        assert_eq!(disk.sense(&sixteen(opcode, 0, 0, most + 1)), bad_cdb(10, None));
    }
    assert_eq!(disk.sense(&twelve(0xa8, 0, 0, most + 1)), bad_cdb(6, None));
    assert_eq!(disk.sense(&sixteen(0x93, 0, 0, (128 << 20) / 512 + 1)), bad_cdb(10, None));
}

#[test]
fn protection_information_is_refused() {
    let disk = disk();
    for opcode in [0x28, 0x2a, 0x2e, 0x2f, 0x41, 0xa8, 0xaa, 0xae, 0xaf, 0x88, 0x89, 0x8a, 0x8e] {
        assert_eq!(disk.sense(&ten(opcode, 0x20, 0, 1)), bad_cdb(1, Some(7)), "{opcode:x}");
    }
}

#[test]
fn a_write_is_durable_if_it_must_be() {
    let fua = |disk: &Initiator, cdb: &[u8]| match disk.run(cdb) {
        Plan::Write { fua, .. }
        | Plan::CompareAndWrite { fua, .. }
        | Plan::WriteZeroes { fua, .. } => fua,
        other => panic!("{other:?}"),
    };
    let cached = disk();
    let mut compare = sixteen(0x89, 0, 0, 0);
    compare[13] = 1;
    let plain =
        [&ten(0x2a, 0, 0, 1)[..], &compare, &sixteen(0x93, 1, 0, 1), &[0x0a, 0, 0, 0, 1, 0]];
    for cdb in plain {
        assert!(!fua(&cached, cdb), "{cdb:x?}");
    }
    assert!(fua(&cached, &ten(0x2a, 0x08, 0, 1)));
    let mut forced = compare;
    forced[1] = 0x08;
    assert!(fua(&cached, &forced));
    // Without WCE.
    cached.unit().set_modes(0);
    for cdb in plain {
        assert!(fua(&cached, cdb), "{cdb:x?}");
    }
    // Without a cache, every write is durable anyway.
    assert!(!fua(&disk_with(|info| info.volatile_cache = false), plain[0]));
}

#[test]
fn caches_are_synchronized_where_they_are() {
    assert!(matches!(disk().run(&ten(0x35, 0, 0, 0)), Plan::Flush));
    assert!(matches!(disk().run(&sixteen(0x91, 2, 7, 9)), Plan::Flush));
    disk_with(|info| info.volatile_cache = false).good(&ten(0x35, 0, 0, 0));
}

#[test]
fn bytchk_says_what_is_compared() {
    let disk = disk();
    for (opcode, one) in [(0x2f, true), (0x2e, false)] {
        let compare = |bits: u8| match disk.run(&ten(opcode, bits << 1, 3, 2)) {
            Plan::Verify { offset: 1536, len: 1024, compare }
            | Plan::WriteVerify { offset: 1536, len: 1024, compare } => Ok(compare),
            plan => Err(sense(plan)),
        };
        assert_eq!(compare(0), Ok(Compare::Nothing));
        assert_eq!(compare(1), Ok(Compare::Blocks));
        assert_eq!(compare(2), Err(bad_cdb(1, Some(2))));
        let last = if one { Ok(Compare::OneBlock) } else { Err(bad_cdb(1, Some(2))) };
        assert_eq!(compare(3), last);
        disk.good(&ten(opcode, 0, 3, 0));
    }
}

#[test]
fn pre_fetch_meets_its_condition() {
    assert!(is_status(&disk().run(&ten(0x34, 0, 0, 9)), Status::ConditionMet));
    assert!(is_status(&disk().run(&sixteen(0x90, 0, 0, 0)), Status::ConditionMet));
}

#[test]
fn compare_and_write_is_bounded() {
    let disk = disk();
    let cdb = |blocks| {
        let mut cdb = sixteen(0x89, 0, 1, 0);
        cdb[13] = blocks;
        cdb
    };
    disk.good(&cdb(0));
    assert!(matches!(
        disk.run(&cdb(255)),
        Plan::CompareAndWrite { offset: 512, len: 130_560, fua: false }
    ));
    let large = disk_with(|info| {
        info.logical_block = 65536;
        info.physical_block = 65536;
        info.capacity = 1 << 20;
    });
    assert!(matches!(large.run(&cdb(2)), Plan::CompareAndWrite { len: 131_072, .. }));
    assert_eq!(large.sense(&cdb(3)), bad_cdb(13, None));
}

#[test]
fn write_same_of_zeroes_is_write_zeroes() {
    let disk = disk();
    let zero = vec![0; 512];
    let (taken, plan) = disk.send(&ten(0x41, 0, 2, 3), &zero);
    assert_eq!(taken, 512);
    assert!(matches!(
        plan,
        Plan::WriteZeroes { offset: 1024, len: 1536, unmap: false, fua: false }
    ));
    let (_, plan) = disk.send(&sixteen(0x93, 8, 2, 3), &zero);
    assert!(matches!(plan, Plan::WriteZeroes { unmap: true, .. }));
    let mut block = zero.clone();
    block[511] = 1;
    let (taken, plan) = disk.send(&sixteen(0x93, 8, 2, 3), &block);
    assert_eq!(taken, 0);
    assert!(matches!(plan, Plan::WriteSame { offset: 1024, len: 1536, fua: false }));
    // NDOB: no data, and none is looked at.
    let plan = disk.run(&sixteen(0x93, 1, 0, 1));
    assert!(matches!(plan, Plan::WriteZeroes { offset: 0, len: 512, unmap: false, fua: false }));
    // An image that cannot write zeroes is written to.
    let plain = disk_with(|info| {
        info.write_zeroes = false;
        info.write_zeroes_unmap = false;
    });
    assert!(matches!(plain.send(&ten(0x41, 0, 0, 1), &zero), (0, Plan::WriteSame { .. })));
    assert_eq!(sense(plain.send(&ten(0x41, 8, 0, 1), &zero).1), bad_cdb(1, Some(3)));
    assert_eq!(plain.sense(&sixteen(0x93, 1, 0, 1)), bad_cdb(1, Some(0)));
}

#[test]
fn write_same_refuses_what_it_cannot_do() {
    let disk = disk();
    assert_eq!(disk.sense(&ten(0x41, 0, 0, 0)), bad_cdb(7, None));
    assert_eq!(disk.sense(&sixteen(0x93, 0, 0, 0)), bad_cdb(10, None));
    assert_eq!(disk.sense(&ten(0x41, 0x18, 0, 1)), bad_cdb(1, Some(4)));
    assert_eq!(disk.sense(&ten(0x41, 0x02, 0, 1)), bad_cdb(1, Some(2)));
    assert_eq!(disk.sense(&ten(0x41, 0x04, 0, 1)), bad_cdb(1, Some(2)));
    // Less than a block, or in the other direction.
    assert!(matches!(disk.send(&ten(0x41, 0, 0, 1), &[0; 511]), (0, Plan::Overrun)));
    let back = disk.pages.buffers(&[(0, 512)], Direction::FromDevice);
    assert!(matches!(disk.decode(&ten(0x41, 0, 0, 1), &back), Plan::Overrun));
}

#[test]
fn capacities_of_any_size() {
    let small = disk();
    assert_eq!(small.reply(&ten(0x25, 0, 0, 0)), [0, 0, 0x0f, 0xff, 0, 0, 2, 0]);
    let rc16 = |allocation| {
        let mut cdb = sixteen(0x9e, 0x10, 0, 0);
        cdb[13] = allocation;
        cdb
    };
    let data = small.reply(&rc16(32));
    // 4096 bytes a physical block; unmapped blocks read as zeroes.
    let expected = [0, 0, 0, 0, 0, 0, 0x0f, 0xff, 0, 0, 2, 0, 0, 3, 0xc0, 0];
    assert_eq!(data[..16], expected);
    assert_eq!(data[16..], [0; 16]);
    assert_eq!(small.reply(&rc16(12)).len(), 12);
    assert_eq!(small.reply(&rc16(0)), [0u8; 0]);
    // Exactly 2 TiB is one block more than 32 bits of block numbers below FFFFFFFFh have.
    let edge = disk_with(|info| info.capacity = u64::from(u32::MAX) * 512);
    assert_eq!(edge.reply(&ten(0x25, 0, 0, 0))[..4], [0xff, 0xff, 0xff, 0xfe]);
    let large = disk_with(|info| info.capacity = 1 << 41);
    assert_eq!(large.reply(&ten(0x25, 0, 0, 0))[..4], [0xff; 4]);
    assert_eq!(large.reply(&rc16(32))[..8], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    let discards = disk_with(|info| info.write_zeroes_unmap = false);
    assert_eq!(discards.reply(&rc16(32))[14], 0x80);
    let plain = disk_with(|info| {
        info.write_zeroes_unmap = false;
        info.discard_granularity = 0;
    });
    assert_eq!(plain.reply(&rc16(32))[14], 0);
    assert_eq!(small.sense(&ten(0x25, 0, 1, 0)), bad_cdb(2, None));
    assert_eq!(small.sense(&sixteen(0x9e, 0x12, 0, 0)), bad_cdb(1, Some(4)));
}

#[test]
fn a_disk_that_grows_says_so() {
    let info = Arc::new(std::sync::Mutex::new(said()));
    struct Growing(Arc<std::sync::Mutex<BlockInfo>>);
    impl BlockBackend for Growing {
        fn info(&self) -> BlockInfo {
            self.0.lock().unwrap().clone()
        }
        fn open_queue(&self, _: u32) -> io::Result<Box<dyn BlockQueue>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }
    let backend = Arc::new(Growing(info.clone()));
    let unit = LogicalUnit::disk(DiskOptions::new(backend)).unwrap();
    let disk = Initiator::ready(&unit, "one");
    assert_eq!(unit.resize(), BLOCKS * 512);
    assert_eq!(disk.attention(), None);
    info.lock().unwrap().capacity *= 2;
    let beyond = ten(0x28, 0, u32::try_from(BLOCKS).unwrap(), 1);
    assert_eq!(disk.sense(&beyond).asc, 0x21);
    assert_eq!(unit.resize(), BLOCKS * 1024);
    assert_eq!(disk.attention(), Some((0x2a, 0x09)));
    assert!(matches!(disk.run(&beyond), Plan::Read { .. }));
}

#[test]
fn nothing_is_written_to_what_is_protected() {
    let protected = disk_with(|info| info.read_only = true);
    let soft = disk();
    soft.unit().set_modes(crate::unit::modes::SOFTWARE_PROTECT);
    for (disk, ascq) in [(protected, 0), (soft, 2)] {
        for opcode in [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x41, 0x93, 0x42, 0x89] {
            assert_eq!(disk.sense(&[opcode]), Sense::new(7, (0x27, ascq)), "{opcode:x}");
        }
        assert!(matches!(disk.run(&ten(0x28, 0, 0, 1)), Plan::Read { .. }));
        assert!(matches!(disk.run(&ten(0x2f, 0, 0, 1)), Plan::Verify { .. }));
    }
}
