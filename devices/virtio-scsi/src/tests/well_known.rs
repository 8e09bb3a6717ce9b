//! The well-known logical unit REPORT LUNS.

use super::*;

const OF_TARGET: Lun = Lun([1, 7, 0xc1, 1, 0, 0, 0, 0]);

fn host() -> Host {
    let bus = bus();
    for unit in [at(0, 0), at(7, 1), at(7, 300)] {
        bus.attach(unit, disk(memory(8))).unwrap();
    }
    Host::new(bus, &options(), ALL)
}

fn ask(host: &mut Host, lun: Lun, cdb: &[u8], room: u32) -> Answer {
    host.write(DATA, &[POISON; 256]);
    let data = [Buffer::writable(DATA, room)];
    let pending = host.add_on(0, lun, cdb, &[], if room == 0 { &[] } else { &data });
    host.finish(pending)
}

fn report_luns(select: u8, allocation: u8) -> Vec<u8> {
    vec![opcode::REPORT_LUNS, 0, select, 0, 0, 0, 0, 0, 0, allocation, 0, 0]
}

// inline.scsi.6, inline.scsi.7
#[test]
fn it_reports_all_units() {
    let mut host = host();
    let own: [&[u8]; 1] = [&[0xc1, 1, 0, 0, 0, 0, 0, 0]];
    let all: [&[u8]; 3] =
        [&[1, 0, 0, 0, 0, 0, 0, 0], &[1, 7, 0, 1, 0, 0, 0, 0], &[1, 7, 0x41, 0x2c, 0, 0, 0, 0]];
    let of_target: [&[u8]; 2] = [&[0, 1, 0, 0, 0, 0, 0, 0], &[0x41, 0x2c, 0, 0, 0, 0, 0, 0]];
    for (lun, select, expected) in [
        (Lun::REPORT_LUNS, 0, all.concat()),
        (Lun::REPORT_LUNS, 1, own.concat()),
        (Lun::REPORT_LUNS, 2, [own.concat(), all.concat()].concat()),
        (OF_TARGET, 0, of_target.concat()),
        (OF_TARGET, 1, own.concat()),
        (OF_TARGET, 2, [own.concat(), of_target.concat()].concat()),
    ] {
        let answer = ask(&mut host, lun, &report_luns(select, 200), 250);
        assert!(answer.is_good(), "{answer:?}");
        let len = u8::try_from(expected.len()).unwrap();
        assert_eq!(answer.written, BACK + 8 + u32::from(len));
        assert_eq!(answer.residual, 242 - u32::from(len));
        let data = host.read(DATA, 9 + expected.len());
        assert_eq!(data, [&[0, 0, 0, len, 0, 0, 0, 0][..], &expected, &[POISON]].concat());
    }
}

// CVE-2013-4344: no more is written than there is room for, or than was asked for.
#[test]
fn it_reports_as_much_as_is_wanted() {
    let mut host = host();
    let answer = ask(&mut host, Lun::REPORT_LUNS, &report_luns(0, 17), 250);
    assert_eq!((answer.written, answer.residual), (BACK + 17, 233));
    assert_eq!(host.read(DATA + 16, 2), [1, POISON]);
    let lun = Lun::REPORT_LUNS;
    for room in [0, 31] {
        let answer = ask(&mut host, lun, &report_luns(0, 200), room);
        assert_eq!((answer.response, answer.residual), (response::OVERRUN, room));
        assert_eq!((answer.written, host.read(DATA, 1)), (BACK, vec![POISON]));
    }
    assert!(ask(&mut host, lun, &report_luns(0, 200), 32).is_good());
    let pending = host.add_on(0, lun, &report_luns(0, 200), &[Buffer::readable(DATA, 64)], &[]);
    let answer = host.finish(pending);
    assert_eq!((answer.response, answer.residual), (response::OVERRUN, 64));

    let many = bus();
    for lun in 0..1000 {
        many.attach(at(0, lun), disk(memory(8))).unwrap();
    }
    let mut host = Host::new(many, &options(), ALL);
    let mut cdb = report_luns(0, 0);
    cdb[6..10].copy_from_slice(&[0xff; 4]);
    let data = [Buffer::writable(DATA, 0x4000)];
    let pending = host.add_on(0, lun, &cdb, &[], &data);
    let answer = host.finish(pending);
    assert_eq!((answer.is_good(), answer.written), (true, BACK + 8 + 8000));
    assert_eq!(host.read(DATA + 8 + 7992, 4), [1, 0, 0x43, 0xe7]);
}

#[test]
fn it_says_what_it_is() {
    let mut host = host();
    let answer = ask(&mut host, Lun::REPORT_LUNS, &inquiry(255), 250);
    assert_eq!((answer.is_good(), answer.residual), (true, 154));
    let data = host.read(DATA, 96);
    assert_eq!((data[0], data[2], data[3] & 0xf, data[4]), (0x1e, 6, 2, 91));
    let answer = ask(&mut host, Lun::REPORT_LUNS, &[opcode::INQUIRY, 1, 0, 0, 255, 0], 250);
    assert_eq!((answer.is_good(), answer.written), (true, BACK + 5));
    assert_eq!(host.read(DATA, 5), [0x1e, 0, 0, 1, 0]);
    for (descriptor, expected) in [(0, &[0x70, 0, 0][..]), (1, &[0x72, 0, 0])] {
        let cdb = [opcode::REQUEST_SENSE, descriptor, 0, 0, 252, 0];
        assert!(ask(&mut host, Lun::REPORT_LUNS, &cdb, 250).is_good());
        assert_eq!(host.read(DATA, 3), expected);
    }
    assert!(ask(&mut host, Lun::REPORT_LUNS, &TEST_UNIT_READY, 0).is_good());
    assert_eq!(host.first().signals.resets(), 0);
}

#[test]
fn what_it_does_not_know_is_illegal() {
    let mut host = host();
    let mut code = |cdb: &[u8]| ask(&mut host, Lun::REPORT_LUNS, cdb, 250).code();
    assert_eq!(code(&read_10(0, 1)), (5, 0x20, 0));
    assert_eq!(code(&report_luns(3, 200)), (5, 0x24, 0));
    assert_eq!(code(&report_luns(0, 15)), (5, 0x24, 0));
    assert_eq!(code(&[opcode::INQUIRY, 1, 0x80, 0, 255, 0]), (5, 0x24, 0));
    assert_eq!(code(&[opcode::INQUIRY, 0, 1, 0, 255, 0]), (5, 0x24, 0));
    let nobody = Lun([1, 8, 0xc1, 1, 0, 0, 0, 0]);
    let answer = ask(&mut host, nobody, &inquiry(255), 250);
    assert_eq!((answer.response, answer.residual), (response::BAD_TARGET, 250));
}
