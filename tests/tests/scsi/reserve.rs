//! RESERVE and RELEASE (SPC-2, 5.5.1), among two initiators.

use paraslot_scsi::Function;

use crate::cdb::{READY, cdb, inquiry, read, request_sense, write};
use crate::initiator::{CONFLICT, Data, GOOD, HERE, Initiator, bad_cdb};
use crate::reservations::{KEY, REGISTER, act, manage, register};
use crate::ways::{Way, on_every_way, two};
use crate::world::{BLOCK, disk, fresh, image};

on_every_way! {
    reserve_keeps_others_out,
    reserve_and_persistent_reservations_exclude_each_other,
}

const RESERVE_6: [u8; 6] = [0x16, 0, 0, 0, 0, 0];
const RELEASE_6: [u8; 6] = [0x17, 0, 0, 0, 0, 0];
const RESERVE_10: [u8; 10] = [0x56, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const RELEASE_10: [u8; 10] = [0x57, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn reserve_keeps_others_out<W: Way>() {
    let pairs: [[&[u8]; 2]; 3] =
        [[&RESERVE_6, &RELEASE_6], [&RESERVE_10, &RELEASE_10], [&RESERVE_6, &RELEASE_10]];
    for [reserve, release] in pairs {
        two::<W>(&disk(image()), |one, other| {
            one.good(reserve);
            one.good(reserve);
            for (cdb, data) in [
                (&READY[..], Data::None),
                (&read(0, 1), Data::In(BLOCK)),
                (&write(0, 1), Data::Out(&fresh(1))),
                (&[0x1a, 8, 8, 0, 64, 0], Data::In(64)),
                (reserve, Data::None),
            ] {
                assert_eq!(other.end(cdb, data), CONFLICT, "{cdb:02x?}");
            }
            assert_eq!(other.end(&inquiry(None, 36), Data::In(36)), GOOD);
            assert_eq!(other.end(&request_sense(false, 18), Data::In(18)), GOOD);
            // Another's release does nothing.
            other.good(release);
            assert_eq!(other.end(&READY, Data::None), CONFLICT);
            one.output(&write(0, 1), &fresh(1));
            one.good(release);
            other.good(reserve);
            assert_eq!(one.end(&read(0, 1), Data::In(BLOCK)), CONFLICT);
            // A reset ends it.
            manage(one, other, Function::LogicalUnitReset(HERE));
            one.good(&READY);
            other.good(&READY);
            for (bits, bit) in [(0x10, 4), (0x02, 1), (0x01, 0)] {
                for cdb in
                    [&cdb::<6>(reserve[0] & 0x1f, &[(1, bits)])[..], &cdb::<10>(0x56, &[(1, bits)])]
                {
                    one.fails(cdb, Data::None, bad_cdb(1, Some(bit)));
                }
            }
        });
    }
}

fn reserve_and_persistent_reservations_exclude_each_other<W: Way>() {
    two::<W>(&disk(image()), |one, other| {
        one.good(&RESERVE_6);
        for it in [0, 1] {
            let it: &mut dyn Initiator = if it == 0 { &mut *one } else { &mut *other };
            assert_eq!(act(it, REGISTER, 0, (0, KEY)), CONFLICT);
            for action in 0..4 {
                let cdb = cdb::<10>(0x5e, &[(1, action), (8, 64)]);
                assert_eq!(it.end(&cdb, Data::In(64)), CONFLICT);
            }
        }
        one.good(&RELEASE_6);
        register(one, KEY);
        for cdb in [&RESERVE_6[..], &RELEASE_6, &RESERVE_10, &RELEASE_10] {
            assert_eq!(one.end(cdb, Data::None), CONFLICT);
            assert_eq!(other.end(cdb, Data::None), CONFLICT);
        }
        assert_eq!(act(one, REGISTER, 0, (KEY, 0)), GOOD);
        one.good(&RESERVE_6);
    });
}
