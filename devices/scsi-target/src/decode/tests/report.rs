//! What there is: LUNs, commands, task management functions, log pages.

use super::*;
use crate::decode::table;

fn report_luns(allocation: u32, select: u8) -> [u8; 12] {
    let [a, b, c, d] = allocation.to_be_bytes();
    [0xa0, 0, select, 0, 0, 0, a, b, c, d, 0, 0]
}

#[test]
fn luns_are_cut_to_the_allocation_length() {
    let disk = disk();
    let all = disk.reply(&report_luns(4096, 0));
    let mut expected = vec![0, 0, 0, 24, 0, 0, 0, 0];
    expected.extend([0; 8]);
    expected.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    expected.extend([0x41, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(all, expected);
    assert_eq!(disk.reply(&report_luns(4096, 2)), expected);
    assert_eq!(disk.reply(&report_luns(17, 0)), expected[..17]);
    assert_eq!(disk.reply(&report_luns(16, 1)), [0; 8]);
    assert_eq!(disk.sense(&report_luns(15, 0)), bad_cdb(6, None));
    assert_eq!(disk.sense(&report_luns(0, 0)), bad_cdb(6, None));
    assert_eq!(disk.sense(&report_luns(16, 3)), bad_cdb(2, Some(7)));
}

// CVE-2013-4344: more LUNs than 256.
#[test]
fn there_may_be_many_luns() {
    let disk = disk();
    let data = DmaBuffers::empty(Direction::FromDevice);
    let many = || (0..0x4000).collect();
    let run = |allocation| {
        reply(decode(&disk.nexus, &Cdb::new(&report_luns(allocation, 0)), &data, &many))
    };
    let all = run(u32::MAX);
    assert_eq!(all.len(), 8 + 8 * 0x4000);
    assert_eq!(all[..4], (8 * 0x4000_u32).to_be_bytes());
    assert_eq!(all[8 + 8 * 255..][..2], [0, 255]);
    assert_eq!(all[8 + 8 * 256..][..2], [0x41, 0]);
    assert_eq!(all[8 + 8 * 0x3fff..][..2], [0x7f, 0xff]);
    assert_eq!(run(2056).len(), 2056);
}

fn rsoc(options: u8, opcode: u8, action: u16) -> [u8; 12] {
    let [high, low] = action.to_be_bytes();
    [0xa3, 0x0c, options, opcode, high, low, 0, 1, 0, 0, 0, 0]
}

#[test]
fn one_command_is_reported_as_it_was_asked_for() {
    let disk = disk();
    let usage = [0, 3, 0, 10, 0x28, 0xf8, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 4];
    assert_eq!(disk.reply(&rsoc(1, 0x28, 0)), usage);
    assert_eq!(disk.reply(&rsoc(3, 0x28, 0)), usage);
    // DPO and FUA go together with DPOFUA of mode parameters, which only disks have.
    for opcode in [0x28, 0x2a, 0x88, 0x89, 0x8a, 0xa8, 0xaa] {
        assert_eq!(disk.reply(&rsoc(1, opcode, 0))[5] & 0x18, 0x18, "{opcode:x}");
    }
    for opcode in [0x2e, 0x2f, 0x8e, 0x8f, 0xae, 0xaf] {
        assert_eq!(disk.reply(&rsoc(1, opcode, 0))[5] & 0x18, 0x10, "{opcode:x}");
    }
    for opcode in [0x28, 0x2f, 0xa8] {
        assert_eq!(drive(None).reply(&rsoc(1, opcode, 0))[5] & 0x18, 0, "{opcode:x}");
    }
    assert_eq!(disk.reply(&rsoc(3, 0x28, 1)), [0, 1, 0, 0]);
    assert_eq!(disk.reply(&rsoc(1, 0xff, 0)), [0, 1, 0, 0]);
    assert_eq!(disk.reply(&rsoc(2, 0xff, 0)), [0, 1, 0, 0]);
    assert_eq!(disk.reply(&rsoc(2, 0x9e, 0x10))[..6], [0, 3, 0, 16, 0x9e, 0x10]);
    assert_eq!(disk.reply(&rsoc(3, 0x9e, 0x10))[..6], [0, 3, 0, 16, 0x9e, 0x10]);
    assert_eq!(disk.reply(&rsoc(2, 0x9e, 0x12)), [0, 1, 0, 0]);
    // 110h is no service action that 5 bits could hold.
    assert_eq!(disk.reply(&rsoc(2, 0x9e, 0x110)), [0, 1, 0, 0]);
    assert_eq!(disk.sense(&rsoc(1, 0x9e, 0x10)), bad_cdb(2, Some(2)));
    assert_eq!(disk.sense(&rsoc(2, 0x28, 0)), bad_cdb(2, Some(2)));
    assert_eq!(disk.sense(&rsoc(4, 0x28, 0)), bad_cdb(2, Some(2)));
    let timed = disk.reply(&rsoc(0x81, 0x00, 0));
    assert_eq!(timed, [0, 0x83, 0, 6, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

/// What all commands report of a unit: operation code, service action, bytes of the command.
fn reported(unit: &Initiator) -> Vec<(u8, Option<u8>, usize)> {
    let data = unit.reply(&rsoc(0, 0, 0));
    assert_eq!(u32::from_be_bytes(data[..4].try_into().unwrap()) as usize, data.len() - 4);
    let one = |entry: &[u8]| {
        let action = (entry[5] & 1 != 0).then_some(entry[3]);
        (entry[0], action, usize::from(u16::from_be_bytes([entry[6], entry[7]])))
    };
    data[4..].chunks(8).map(one).collect()
}

// The truth of it: what is listed is known, and what is not listed is not.
#[test]
fn the_list_of_commands_is_true() {
    let plain = disk_with(|info| {
        info.discard_granularity = 0;
        info.write_zeroes_unmap = false;
    });
    for unit in [disk(), plain, drive(Some(9)), drive(None)] {
        let list = reported(&unit);
        for opcode in 0..=255 {
            for action in 0..32 {
                let listed = list
                    .iter()
                    .any(|&(code, act, _)| code == opcode && act.is_none_or(|act| act == action));
                let known = match unit.run(&[opcode, action]) {
                    Plan::End(Ending::Check(sense)) => {
                        let unknown = sense == illegal(0x20, 0)
                            || sense == bad_cdb(1, Some(4))
                                && list
                                    .iter()
                                    .any(|&(code, act, _)| code == opcode && act.is_some());
                        !unknown
                    }
                    _ => true,
                };
                assert_eq!(listed, known, "{opcode:x}/{action:x}");
                // Stopping it, or opening its tray, is not what this is about.
                unit.unit().reset(0);
                unit.attention();
            }
        }
        for (opcode, action, len) in list {
            let options = if action.is_some() { 2 } else { 1 };
            let one = unit.reply(&rsoc(options, opcode, action.unwrap_or(0).into()));
            assert_eq!((one[1], one.len()), (3, 4 + len));
            assert_eq!(one[4], opcode);
            assert!(action.is_none_or(|action| one[5] == action));
            assert_eq!(paraslot_spec::scsi::opcode::cdb_len(opcode), Some(len), "{opcode:x}");
        }
    }
}

// A bit that the usage data does not have changes nothing.
#[test]
fn bits_that_are_not_used_are_not_looked_at() {
    for unit in [disk(), drive(Some(9))] {
        for command in table::all(unit.unit()) {
            let mut cdb = [0; 32];
            cdb[0] = command.opcode;
            if let Some(action) = command.action {
                cdb[1] = action;
            }
            let mut other = [0xff; 32];
            for (index, used) in command.usage.iter().enumerate() {
                other[index] = cdb[index] & used | !used;
            }
            other[0] = command.opcode;
            if let Some(action) = command.action {
                other[1] = action | 0xe0;
            }
            let expected = format!("{:?}", unit.run(&cdb));
            unit.unit().reset(0);
            unit.attention();
            assert_eq!(format!("{:?}", unit.run(&other)), expected, "{:x}", command.opcode);
            unit.unit().reset(0);
            unit.attention();
        }
    }
}

#[test]
fn task_management_functions_that_there_are() {
    let disk = disk();
    assert_eq!(disk.reply(&[0xa3, 0x0d, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0]), [0xdc, 3, 0, 0]);
    let mut extended = vec![0xdc, 3, 0, 12];
    extended.extend([0; 12]);
    assert_eq!(disk.reply(&[0xa3, 0x0d, 0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0]), extended);
}

#[test]
fn log_pages_that_there_are() {
    let disk = disk();
    let cdb = |page, subpage| [0x4d, 0, page, subpage, 0, 0, 0, 0, 64, 0];
    assert_eq!(disk.reply(&cdb(0x40, 0)), [0, 0, 0, 1, 0]);
    assert_eq!(disk.reply(&cdb(0x40, 0xff)), [0x40, 0xff, 0, 4, 0, 0, 0, 0xff]);
    assert_eq!(disk.sense(&cdb(0x42, 0)), bad_cdb(2, Some(5)));
    assert_eq!(disk.sense(&cdb(0x40, 1)), bad_cdb(3, Some(7)));
    assert_eq!(disk.sense(&[0x4d, 1, 0, 0, 0, 0, 0, 0, 64, 0]), bad_cdb(1, Some(0)));
    assert_eq!(disk.sense(&[0x4d, 0, 0, 0, 0, 0, 1, 0, 64, 0]), bad_cdb(5, None));
}
