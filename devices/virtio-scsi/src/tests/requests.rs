//! Commands and their answers.

use super::*;

const UNIT: Address = Address { target: 0, lun: 0 };

// scsi.requestq.1, scsi.requestq.2, scsi.requestq.2a, inline.scsi.8
#[test]
fn what_is_written_is_read() {
    let mut host = Host::simple(memory(64));
    host.store(UNIT, 8, 4, 7);
    host.store(UNIT, 9, 1, 9);
    assert_eq!(host.load(UNIT, 7, 6), [0, 7, 9, 7, 7, 0]);
    assert_eq!(host.resets(), 0);
}

// scsi.requestq.2a: the status is valid with S_OK, whatever it says.
#[test]
fn sense_data_comes_with_the_status() {
    let mut host = Host::simple(memory(64));
    host.write(DATA, &[POISON; 1024]);
    let data = Buffer::writable(DATA, 1024);
    let answer = host.request(UNIT, &read_10(63, 2), &[data]);
    assert_eq!(answer.code(), (5, 0x21, 0));
    assert_eq!((answer.residual, answer.written), (1024, BACK));
    assert_eq!(host.read(DATA, 1024), [POISON; 1024]);
    let answer = host.request(UNIT, &[0xff], &[]);
    assert_eq!((answer.code(), answer.residual, answer.written), ((5, 0x20, 0), 0, BACK));
}

// scsi.requestq.2d
#[test]
fn who_is_not_there_does_not_answer() {
    let mut host = Host::simple(memory(64));
    let data = [Buffer::writable(DATA, 36)];
    let answer = host.request(at(1, 0), &inquiry(36), &data);
    assert_eq!((answer.response, answer.residual), (response::BAD_TARGET, 36));
    assert_eq!((answer.status, answer.sense.len(), answer.written), (0, 0, BACK));
    // The target answers for a unit that it does not have (SPC-4, INQUIRY command).
    let answer = host.request(at(0, 1), &inquiry(36), &data);
    assert!(answer.is_good(), "{answer:?}");
    assert_eq!(host.read(DATA, 1)[0], 0x7f);
    assert_eq!(host.request(at(0, 1), &read_10(0, 1), &data).code(), (5, 0x25, 0));
    // Forms of LUN that mean nobody, and nothing is read by.
    for lun in [[0; 8], [2, 0, 0, 0, 0, 0, 0, 0], [1, 0, 0x80, 0, 0, 0, 0, 0], [0xff; 8]] {
        let pending = host.add_on(0, Lun(lun), &inquiry(36), &[], &data);
        let answer = host.finish(pending);
        assert_eq!((answer.response, answer.residual), (response::BAD_TARGET, 36));
    }
}

#[test]
fn units_have_two_names() {
    let bus = bus();
    bus.attach(at(255, 255), disk(memory(8))).unwrap();
    bus.attach(at(255, 16383), disk(memory(16))).unwrap();
    let mut host = Host::new(bus, &options(), ALL);
    host.ready(at(255, 255));
    host.ready(at(255, 16383));
    let cdb = [opcode::READ_CAPACITY_10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (lun, last) in [([0, 255], 7), ([0x40, 255], 7), ([0x7f, 0xff], 15)] {
        let lun = Lun([1, 255, lun[0], lun[1], 0, 0, 0, 0]);
        let pending = host.add_on(0, lun, &cdb, &[], &[Buffer::writable(DATA, 8)]);
        let answer = host.finish(pending);
        assert!(answer.is_good(), "{answer:?}");
        assert_eq!(host.read(DATA, 8), [0, 0, 0, last, 0, 0, 2, 0]);
    }
}

// scsi.requestq.2b: nothing is done of what has no room.
#[test]
fn too_little_room_is_an_overrun() {
    let mut host = Host::simple(memory(64));
    host.write(DATA, &[POISON; 1024]);
    let answer = host.request(UNIT, &read_10(0, 2), &[Buffer::writable(DATA, 1023)]);
    assert_eq!((answer.response, answer.residual), (response::OVERRUN, 1023));
    assert_eq!((answer.written, answer.sense.len()), (BACK, 0));
    assert_eq!(host.read(DATA, 1024), [POISON; 1024]);
    let answer = host.request(UNIT, &write_10(0, 2), &[Buffer::readable(DATA, 512)]);
    assert_eq!((answer.response, answer.residual), (response::OVERRUN, 512));
    let answer = host.request(UNIT, &read_10(0, 1), &[]);
    assert_eq!((answer.response, answer.residual), (response::OVERRUN, 0));
    // Data that goes the other way is none.
    let answer = host.request(UNIT, &write_10(0, 1), &[Buffer::writable(DATA, 512)]);
    assert_eq!((answer.response, answer.residual), (response::OVERRUN, 512));
    assert_eq!(host.load(UNIT, 0, 2), [0, 0]);
}

// The residual says how much of the data was not moved, and the used length how much was written.
#[test]
fn too_much_room_is_a_residual() {
    let mut host = Host::simple(memory(64));
    host.write(DATA, &[POISON; 2048]);
    let answer = host.request(UNIT, &read_10(0, 1), &[Buffer::writable(DATA, 2048)]);
    assert!(answer.is_good(), "{answer:?}");
    assert_eq!((answer.residual, answer.written), (1536, BACK + 512));
    assert_eq!(host.read(DATA, 2048), [&[0; 512][..], &[POISON; 1536]].concat());
    let answer = host.request(UNIT, &write_10(0, 1), &[Buffer::readable(DATA, 2048)]);
    assert!(answer.is_good(), "{answer:?}");
    assert_eq!((answer.residual, answer.written), (1536, BACK));
    let answer = host.request(UNIT, &inquiry(5), &[Buffer::writable(DATA, 96)]);
    assert!(answer.is_good(), "{answer:?}");
    assert_eq!((answer.residual, answer.written), (91, BACK + 5));
}

// scsi.requestq.2j: without INOUT, data in both directions is refused before anything is done.
#[test]
fn data_in_both_directions_fails() {
    let mut host = Host::simple(memory(64));
    host.write(DATA, &[POISON; 1024]);
    for cdb in [read_10(0, 1), write_10(0, 1), TEST_UNIT_READY.to_vec()] {
        let data = [Buffer::readable(DATA, 512), Buffer::writable(DATA + 512, 512)];
        let answer = host.request(UNIT, &cdb, &data);
        assert_eq!((answer.response, answer.residual), (response::FAILURE, 1024));
        assert_eq!((answer.status, answer.written), (0, BACK));
    }
    assert_eq!(host.read(DATA, 1024), [POISON; 1024]);
    assert_eq!(host.load(UNIT, 0, 1), [0]);
}

// scsi.requestq.2j, CVE-2015-5158: a command that is longer than the field that it came in is not
// carried out: what its end says is not known.
#[test]
fn a_command_that_was_cut_off_fails() {
    let mut host = Host::simple(memory(64));
    host.store(UNIT, 0, 1, 7);
    for (cdb, len) in [
        (vec![opcode::READ_6, 0, 0, 0, 1, 0], 6),
        (read_10(0, 1), 10),
        (vec![opcode::READ_12, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 12),
        (vec![opcode::READ_16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0], 16),
        (vec![opcode::VARIABLE_LENGTH, 0, 0, 0, 0, 0, 0, 24, 0, 9], 32),
    ] {
        let variable = cdb[0] == opcode::VARIABLE_LENGTH;
        for cdb_size in [len, len + 1, 260] {
            host.set_sizes(96, cdb_size);
            let answer = host.request(UNIT, &cdb, &[Buffer::writable(DATA, 512)]);
            assert_eq!(answer.is_good(), !variable, "{cdb:?} {cdb_size} {answer:?}");
            assert_ne!(answer.response, response::FAILURE);
        }
        for cdb_size in [0, 1, 5, len - 1] {
            host.set_sizes(96, cdb_size);
            host.write(DATA, &[POISON; 512]);
            let answer = host.request(UNIT, &cdb, &[Buffer::writable(DATA, 512)]);
            assert_eq!((answer.response, answer.residual), (response::FAILURE, 512));
            assert_eq!(host.read(DATA, 512), [POISON; 512]);
        }
    }
}

// scsi.config.1, inline.scsi.1, inline.scsi.2: requests are as the driver has said.
#[test]
fn the_sizes_are_the_drivers() {
    let mut host = Host::simple(memory(64));
    for (sense_size, cdb_size) in [(252, 260), (18, 10), (64, 16), (17, 33)] {
        host.set_sizes(sense_size, cdb_size);
        host.store(UNIT, 3, 2, 5);
        assert_eq!(host.load(UNIT, 2, 3), [0, 5, 5]);
        let answer = host.request(UNIT, &read_10(64, 1), &[Buffer::writable(DATA, 512)]);
        assert_eq!(answer.written, 12 + sense_size);
        let whole = usize::try_from(sense_size).unwrap().min(18);
        assert_eq!((answer.sense.len(), answer.sense[2]), (whole, 5));
    }
    host.set_sizes(0, 32);
    let answer = host.request(UNIT, &read_10(64, 1), &[Buffer::writable(DATA, 512)]);
    assert_eq!((answer.status, answer.written), (status::CHECK_CONDITION, 12));
    assert!(answer.sense.is_empty());
    // A request in flight keeps the sizes that it was taken with.
    let (mut host, gate) = Host::held();
    let first = host.add(UNIT, &read_10(0, 1), &[Buffer::writable(DATA, 512)]);
    host.run();
    host.set_sizes(252, 260);
    gate.open();
    host.run();
    assert_eq!(host.first().ring.used(), Some((first.head, BACK + 512)));
    host.reset();
    host.ready(UNIT);
    assert_eq!(host.load(UNIT, 0, 1), [0]);
}

// The unit's mode parameters say how its sense data is laid out.
#[test]
fn sense_data_is_in_the_units_format() {
    let mut host = Host::simple(memory(64));
    // The control page, without block descriptors, and then with D_SENSE.
    let cdb = [opcode::MODE_SENSE_6, 8, 0x0a, 0, 16, 0];
    assert!(host.request(UNIT, &cdb, &[Buffer::writable(DATA, 16)]).is_good());
    let mut list = host.read(DATA, 16);
    list[..4].fill(0);
    list[6] |= 4;
    host.write(DATA, &list);
    let cdb = [opcode::MODE_SELECT_6, 0x10, 0, 0, 16, 0];
    let answer = host.request(UNIT, &cdb, &[Buffer::readable(DATA, 16)]);
    assert!(answer.is_good(), "{answer:?}");
    let answer = host.request(UNIT, &[0xff], &[]);
    assert_eq!(answer.sense[..3], [0x72, 5, 0x20]);
    let answer = host.request(at(0, 1), &TEST_UNIT_READY, &[]);
    assert_eq!(answer.code(), (5, 0x25, 0));
}

// Every attribute is as SIMPLE, and one that does not exist as well.
#[test]
fn attributes_and_priorities_change_nothing() {
    let mut host = Host::simple(memory(64));
    for attribute in [0, 1, 2, 4, 255] {
        let (front, back, id) = host.frame(Lun::new(0, 0), &TEST_UNIT_READY);
        host.write(front.address + 16, &[attribute, 7, 9]);
        let head = host.first().ring.add(&[front, back]);
        let queue = usize::from(FIRST_REQUEST_QUEUE);
        let answer = host.finish(Pending { queue, head, back: back.address, id });
        assert!(answer.is_good(), "{attribute} {answer:?}");
    }
}

#[test]
fn each_queue_reaches_every_unit() {
    let bus = bus();
    let units = [at(0, 0), at(0, 1), at(7, 300)];
    for unit in units {
        bus.attach(unit, disk(memory(64))).unwrap();
    }
    let mut host = Host::new(bus, &Options { request_queues: 3, ..options() }, ALL);
    for (byte, unit) in (1..).zip(units) {
        host.ready(unit);
        host.store(unit, 5, 1, byte);
    }
    for queue in 0..3 {
        for (byte, unit) in (1..).zip(units) {
            let lun = Lun::new(unit.target, unit.lun);
            let data = [Buffer::writable(DATA, 512)];
            let pending = host.add_on(queue, lun, &read_10(5, 1), &[], &data);
            assert!(host.finish(pending).is_good());
            assert_eq!(host.read(DATA, 512), [byte; 512]);
        }
    }
}
