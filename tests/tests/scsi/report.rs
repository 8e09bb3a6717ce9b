//! REPORT LUNS, REPORT SUPPORTED OPERATION CODES and TASK MANAGEMENT FUNCTIONS, REQUEST SENSE, LOG SENSE,
//! SEND DIAGNOSTIC (SPC-4, 6), and who is not there.

use paraslot_scsi::Address;

use crate::cdb::{READY, cdb, inquiry, read, request_sense};
use crate::initiator::{Data, End, GOOD, HERE, Initiator, UNKNOWN, bad_cdb, illegal};
use crate::ways::{Way, on_every_way, one};
use crate::world::{disk, drive, image};

on_every_way! {
    the_luns_of_a_target_are_listed,
    many_luns_are_listed,
    commands_that_are_listed_are_known,
    a_drives_commands_are_listed,
    one_command_is_described,
    task_management_functions_are_listed,
    request_sense_has_nothing_to_say,
    there_are_no_log_pages_but_their_list,
    the_default_self_test_passes,
    an_absent_lun_says_so,
    an_absent_target_does_not_answer,
}

fn luns(select: u8, allocation: u16) -> [u8; 12] {
    let [high, low] = allocation.to_be_bytes();
    cdb(0xa0, &[(2, select), (8, high), (9, low)])
}

fn the_luns_of_a_target_are_listed<W: Way>() {
    let places = [0, 3, 255, 256, 1000].map(|lun| Address { target: 1, lun });
    let units = places.map(|address| (address, disk(image())));
    W::with(&units, |[it]| {
        it.attentions();
        let mut expected = vec![0, 0, 0, 40, 0, 0, 0, 0];
        // The peripheral device method up to 255, flat space beyond.
        for lun in [[0, 0], [0, 3], [0, 255], [0x41, 0], [0x43, 0xe8]] {
            expected.extend(lun);
            expected.extend([0; 6]);
        }
        for select in [0, 2] {
            assert_eq!(it.input(&luns(select, 255), 255), expected);
        }
        assert_eq!(it.input(&luns(0, 16), 255), expected[..16]);
        // There are no well known ones.
        assert_eq!(it.input(&luns(1, 255), 255), [0; 8]);
        for allocation in [0, 15] {
            it.fails(&luns(0, allocation), Data::In(255), bad_cdb(6, None));
        }
        it.fails(&luns(3, 255), Data::In(255), bad_cdb(2, Some(7)));
        // Whichever of them is asked; or one that is not there.
        for lun in [3, 1000, 7] {
            let ended = it.execute(Address { target: 1, lun }, &luns(0, 255), Data::In(255));
            assert_eq!((ended.end, ended.data), (GOOD, expected.clone()), "{lun}");
        }
    });
}

// CVE-2013-4344: more than 256 LUNs, of which only so many are wanted.
fn many_luns_are_listed<W: Way>() {
    let unit = disk(image());
    let units: Vec<_> = (0..600).map(|lun| (Address { target: 1, lun }, unit.clone())).collect();
    W::with(&units, |[it]| {
        it.attentions();
        let all = it.input(&luns(0, 0xffff), 8192);
        assert_eq!(all.len(), 8 + 600 * 8);
        assert_eq!(all[..4], 4800_u32.to_be_bytes());
        assert_eq!(all[8 + 599 * 8..][..2], [0x42, 0x57]);
        assert_eq!(it.input(&luns(0, 2064), 8192), all[..2064]);
        assert_eq!(it.end(&luns(0, 0xffff), Data::In(4807)), End::Overrun);
    });
}

/// REPORT SUPPORTED OPERATION CODES: all; or of one code, with its service action.
fn opcodes(options: u8, code: u8, action: u8) -> [u8; 12] {
    cdb(0xa3, &[(1, 0x0c), (2, options), (3, code), (5, action), (8, 0x10)])
}

/// Operation codes and service actions that are listed.
fn listed(it: &mut dyn Initiator) -> Vec<(u8, Option<u8>)> {
    let list = it.input(&opcodes(0, 0, 0), 4096);
    assert_eq!(list[..4], u32::try_from(list.len() - 4).expect("short").to_be_bytes());
    let (entries, rest) = list[4..].as_chunks::<8>();
    assert!(rest.is_empty());
    let entry = |entry: &[u8; 8]| (entry[0], (entry[5] & 1 != 0).then_some(entry[3]));
    entries.iter().map(entry).collect()
}

fn commands_that_are_listed_are_known<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let known = listed(it);
        let plain: Vec<u8> = vec![
            0x00, 0x03, 0x08, 0x0a, 0x12, 0x15, 0x16, 0x17, 0x1a, 0x1b, 0x1d, 0x25, 0x28, 0x2a,
            0x2e, 0x2f, 0x34, 0x35, 0x41, 0x42, 0x4d, 0x55, 0x56, 0x57, 0x5a, 0x88, 0x89, 0x8a,
            0x8e, 0x8f, 0x90, 0x91, 0x93, 0xa0, 0xa8, 0xaa, 0xae, 0xaf,
        ];
        let actions = [(0x5e, 0..=3), (0x5f, 0..=6), (0x9e, 0x10..=0x10), (0xa3, 0x0c..=0x0d)];
        let actions =
            actions.into_iter().flat_map(|(code, all)| all.map(move |one| (code, Some(one))));
        let mut expected: Vec<_> = plain.iter().map(|code| (*code, None)).chain(actions).collect();
        expected.sort_unstable();
        assert_eq!(known, expected);
        // Exactly those are carried out, or refused for another reason.
        for code in 0..=0xff {
            let end = it.end(&cdb::<16>(code, &[]), Data::In(64));
            let is_known = known.iter().any(|(one, _)| *one == code);
            assert_eq!(end != End::Check(UNKNOWN), is_known, "{code:02x}: {end:x?}");
            for action in 0..32 {
                let described = known.contains(&(code, Some(action)));
                if known.iter().any(|(one, action)| *one == code && action.is_some()) && !described
                {
                    let unknown = cdb::<16>(code, &[(1, action)]);
                    it.fails(&unknown, Data::In(64), bad_cdb(1, Some(4)));
                }
            }
        }
    });
}

fn a_drives_commands_are_listed<W: Way>() {
    one::<W>(&drive(None), |it| {
        let known: Vec<u8> = listed(it).into_iter().map(|(code, _)| code).collect();
        let expected = [
            0x00, 0x03, 0x12, 0x15, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2b, 0x2f, 0x42, 0x43, 0x46,
            0x4a, 0x51, 0x52, 0x55, 0x5a, 0xa0, 0xa3, 0xa3, 0xa8, 0xad, 0xbb, 0xbd, 0xbe,
        ];
        assert_eq!(known, expected);
        for code in (0..=0xff).filter(|code| !expected.contains(code)) {
            it.fails(&cdb::<16>(code, &[]), Data::In(64), UNKNOWN);
        }
    });
}

fn one_command_is_described<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let read = [0, 3, 0, 10, 0x28, 0xf8, 255, 255, 255, 255, 0, 255, 255, 4];
        assert_eq!(it.input(&opcodes(1, 0x28, 0), 64), read);
        assert_eq!(it.input(&opcodes(3, 0x28, 0), 64), read);
        assert_eq!(it.input(&opcodes(3, 0x28, 1), 64), [0, 1, 0, 0]);
        assert_eq!(it.input(&opcodes(1, 0x04, 0), 64), [0, 1, 0, 0], "FORMAT UNIT");
        let capacity = [0, 3, 0, 16, 0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 4];
        assert_eq!(it.input(&opcodes(2, 0x9e, 0x10), 64), capacity);
        assert_eq!(it.input(&opcodes(3, 0x9e, 0x10), 64), capacity);
        assert_eq!(it.input(&opcodes(2, 0x9e, 0x12), 64), [0, 1, 0, 0]);
        // With a descriptor of timeouts, of which none is said.
        let with_timeouts = it.input(&opcodes(0x81, 0x00, 0), 64);
        assert_eq!(
            with_timeouts,
            [0, 0x83, 0, 6, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        let all = it.input(&opcodes(0x80, 0, 0), 4096);
        assert_eq!((all.len() - 4) % 20, 0);
        assert_eq!(all[4..24], [0, 0, 0, 0, 0, 2, 0, 6, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        // One that has service actions is not described without, nor the other way round.
        for (options, code) in [(1, 0x9e), (2, 0x28), (4, 0x28), (7, 0x28)] {
            it.fails(&opcodes(options, code, 0), Data::In(64), bad_cdb(2, Some(2)));
        }
    });
}

fn task_management_functions_are_listed<W: Way>() {
    one::<W>(&disk(image()), |it| {
        // ABORT TASK and TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET, QUERY TASK; QUERY TASK SET, I_T
        // NEXUS RESET.
        let functions = |options| cdb::<12>(0xa3, &[(1, 0x0d), (2, options), (9, 64)]);
        assert_eq!(it.input(&functions(0), 64), [0xdc, 0x03, 0, 0]);
        let mut extended = [0; 16];
        extended[..4].copy_from_slice(&[0xdc, 0x03, 0, 12]);
        assert_eq!(it.input(&functions(0x80), 64), extended);
    });
}

fn request_sense_has_nothing_to_say<W: Way>() {
    one::<W>(&disk(image()), |it| {
        // The sense data of the command before has gone with its status.
        it.fails(&[0x1a, 0, 0x3e, 0, 64, 0], Data::In(64), bad_cdb(2, Some(5)));
        let mut none = [0; 18];
        (none[0], none[7]) = (0x70, 10);
        assert_eq!(it.input(&request_sense(false, 252), 252), none);
        assert_eq!(it.input(&request_sense(true, 252), 252), [0x72, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(it.input(&request_sense(false, 4), 252), none[..4]);
        it.good(&request_sense(false, 0));
    });
}

fn there_are_no_log_pages_but_their_list<W: Way>() {
    one::<W>(&disk(image()), |it| {
        let log = |page: u8, subpage| cdb::<10>(0x4d, &[(2, 0x40 | page), (3, subpage), (8, 64)]);
        assert_eq!(it.input(&log(0, 0), 64), [0, 0, 0, 1, 0]);
        assert_eq!(it.input(&log(0, 0xff), 64), [0x40, 0xff, 0, 4, 0, 0, 0, 0xff]);
        it.fails(&log(0x0d, 0), Data::In(64), bad_cdb(2, Some(5)));
        it.fails(&log(0, 1), Data::In(64), bad_cdb(3, Some(7)));
        it.fails(&cdb::<10>(0x4d, &[(1, 1), (8, 64)]), Data::In(64), bad_cdb(1, Some(0)));
        it.fails(&cdb::<10>(0x4d, &[(6, 1), (8, 64)]), Data::In(64), bad_cdb(5, None));
    });
}

fn the_default_self_test_passes<W: Way>() {
    one::<W>(&disk(image()), |it| {
        it.good(&[0x1d, 0x04, 0, 0, 0, 0]);
        it.fails(&[0x1d, 0x20, 0, 0, 0, 0], Data::None, bad_cdb(1, Some(7)));
        it.fails(&[0x1d, 0x10, 0, 0, 4, 0], Data::Out(&[0; 4]), bad_cdb(3, None));
    });
}

fn an_absent_lun_says_so<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for lun in [1, 7, 1000] {
            let there = Address { lun, ..HERE };
            let mut ask = |cdb: &[u8]| {
                let ended = it.execute(there, cdb, Data::In(255));
                (ended.end, ended.data)
            };
            // LOGICAL UNIT NOT SUPPORTED.
            let none = End::Check(illegal(0x25, 0));
            for cdb in [&READY[..], &read(0, 1), &inquiry(Some(0), 255), &[0x1a, 0, 8, 0, 255, 0]] {
                assert_eq!(ask(cdb).0, none, "{cdb:02x?}");
            }
            // INQUIRY answers that nothing can be there; REQUEST SENSE with the same.
            let (end, data) = ask(&inquiry(None, 255));
            assert_eq!((end, data.len(), data[0], data[4]), (GOOD, 96, 0x7f, 91));
            assert_eq!(ask(&inquiry(None, 5)).1.len(), 5);
            let (end, data) = ask(&request_sense(false, 255));
            assert_eq!((end, data[2], data[12], data[13]), (GOOD, 5, 0x25, 0));
            assert_eq!(ask(&luns(0, 255)).1, [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            assert_eq!(ask(&luns(0, 8)).0, End::Check(bad_cdb(6, None)));
        }
    });
}

fn an_absent_target_does_not_answer<W: Way>() {
    one::<W>(&disk(image()), |it| {
        for target in [2, 15] {
            for lun in [0, 1] {
                let there = Address { target, lun };
                for cdb in
                    [&READY[..], &inquiry(None, 96), &luns(0, 255), &request_sense(false, 18)]
                {
                    let ended = it.execute(there, cdb, Data::In(255));
                    assert_eq!((ended.end, ended.moved), (End::Absent, 0), "{target} {cdb:02x?}");
                }
            }
        }
    });
}
