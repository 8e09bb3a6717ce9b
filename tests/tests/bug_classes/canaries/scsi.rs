//! SCSI host adapters: what commands of every kind write, and any bytes that call themselves one.
//!
//! CVE-2016-6836 and its like, CVE-2013-4344 (more LUNs than there is room for), CVE-2015-5158 (the
//! length of a CDB), CVE-2021-3930 and CVE-2023-42467 (MODE SELECT).

use paraslot_spec::scsi::opcode;

use super::{CANARY, Ledger, check_read, torn};
use crate::pvscsi::PvHba;
use crate::scsi::{
    Command, DATA, DATA_LEN, Done, Hba, MEMORY, MOST, PLACES, Pending, Way, scatter,
};
use crate::support::{Random, all_memory, image};
use crate::virtio_scsi::VirtioHba;

/// What the pending commands write, once they are all over: each to be checked by `check`.
fn account<A: Hba>(
    guest: &mut A,
    mut pending: Vec<Pending>,
    what: &str,
    mut check: impl FnMut(&mut Ledger, &Pending, &Done),
) {
    let before = all_memory(guest.bench(), MEMORY);
    guest.kick();
    guest.run();
    let mut ledger = Ledger { before, after: all_memory(guest.bench(), MEMORY) };
    for (address, len) in guest.own() {
        ledger.take(address, len);
    }
    while let Some(done) = guest.take() {
        let at = pending.iter().position(|pending| pending.tag == done.tag);
        let over = pending.swap_remove(at.expect("given back once"));
        assert!(done.moved <= over.command.len(), "{what}: {done:?}");
        ledger.take(over.answer.0, done.answered);
        check(&mut ledger, &over, &done);
        // As new for the next one.
        guest.bench().poke(over.answer.0, &vec![CANARY; len_of(over.answer.1)]);
        for (address, len) in &over.command.data {
            guest.bench().poke(*address, &vec![CANARY; len_of((*len).into())]);
        }
    }
    assert!(pending.is_empty(), "{what}: not all were answered");
    ledger.nothing_else(what);
}

fn len_of(len: u64) -> usize {
    usize::try_from(len).expect("small")
}

/// The bytes that a command says it has moved to the guest.
fn take_moved(ledger: &mut Ledger, over: &Pending, done: &Done) {
    let mut left = if over.command.way == Way::In { done.moved } else { 0 };
    for (address, len) in &over.command.data {
        let part = left.min((*len).into());
        ledger.take(*address, part);
        left -= part;
    }
}

fn writes_what_it_is_given<A: Hba>() {
    let (mut failed, mut read) = (0, 0);
    for seed in 0..120 {
        let mut random = Random::new(seed);
        let mut guest = A::of(torn(seed));
        guest.hear();
        guest.bench().poke(PLACES, &vec![CANARY; MEMORY - len_of(PLACES)]);
        for round in 0..4 {
            let what = format!("{}, seed {seed}, round {round}", A::NAME);
            let count = 1 + random.below(MOST as u64);
            let pending = (0..count).map(|_| guest.put_any(true, &mut random)).collect();
            account(&mut guest, pending, &what, |ledger, over, done| {
                let command = &over.command;
                let ok = done.is_good();
                failed += u32::from(!ok);
                if command.is_read() {
                    check_read(ledger, &command.data, command.offset(), ok, &what);
                    assert_eq!(done.moved, if ok { command.len() } else { 0 }, "{what}: {over:?}");
                    read += u32::from(ok);
                } else {
                    take_moved(ledger, over, done);
                }
            });
        }
    }
    assert!(failed > 200 && read > 300, "{failed} failed, {read} read");
}

#[test]
fn virtio_scsi_writes_what_a_command_gives_it_and_no_more() {
    writes_what_it_is_given::<VirtioHba>();
}

#[test]
fn pvscsi_writes_what_a_command_gives_it_and_no_more() {
    writes_what_it_is_given::<PvHba>();
}

/// Codes that a disk knows, whose other bytes are what matters.
const KNOWN: [u8; 16] = [
    opcode::REQUEST_SENSE,
    opcode::INQUIRY,
    opcode::MODE_SELECT_6,
    opcode::MODE_SELECT_10,
    opcode::MODE_SENSE_6,
    opcode::MODE_SENSE_10,
    opcode::READ_CAPACITY_10,
    opcode::READ_16,
    opcode::VERIFY_10,
    opcode::WRITE_SAME_10,
    opcode::UNMAP,
    opcode::PERSISTENT_RESERVE_IN,
    opcode::PERSISTENT_RESERVE_OUT,
    opcode::SERVICE_ACTION_IN_16,
    opcode::REPORT_LUNS,
    opcode::MAINTENANCE_IN,
];

/// Anything at all, with data in either direction: of no length, short, and as long as a page.
fn nonsense(guest: &mut impl Hba, random: &mut Random) -> Pending {
    let place = DATA + guest.free() * DATA_LEN;
    let mut cdb = [0; 16];
    for byte in &mut cdb {
        // Mostly small values: they get further.
        let most = [2, 4, 64, 256][len_of(random.below(4))];
        *byte = u8::try_from(random.below(most)).expect("a byte");
    }
    cdb[0] = match random.below(4) {
        0 => u8::try_from(random.below(256)).expect("a byte"),
        _ => KNOWN[len_of(random.below(16))],
    };
    let most = [1, 40, 300, 4096][len_of(random.below(4))];
    let (first, second) = (random.below(most), random.below(most));
    let way = [Way::None, Way::In, Way::Out][len_of(random.below(3))];
    let mut data: Vec<(u64, u32)> = [(place, first), (place + 0x2000, second)]
        .into_iter()
        .filter(|(_, len)| *len != 0)
        .map(|(address, len)| (address, u32::try_from(len).expect("small")))
        .collect();
    if way == Way::None {
        data.clear();
    }
    let mut bytes = vec![0; len_of(first + second)];
    for byte in &mut bytes {
        let most = if random.one_in(4) { 256 } else { 3 };
        *byte = u8::try_from(random.below(most)).expect("a byte");
    }
    if way == Way::Out {
        scatter(guest.bench(), &data, &bytes);
    }
    let mut command = Command::new(cdb, way, &data);
    if random.one_in(8) {
        // A unit that is not there.
        (command.target, command.lun) = (u8::from(random.one_in(2)), 7);
    }
    guest.put(&command)
}

/// Whatever it is, it is answered once, and writes what it says; then the unit is reset and works.
fn any_bytes<A: Hba>() {
    for seed in 0..60 {
        let mut random = Random::new(seed ^ 0xcdb);
        let mut guest = A::of(std::sync::Arc::new(image()));
        guest.hear();
        guest.bench().poke(PLACES, &vec![CANARY; MEMORY - len_of(PLACES)]);
        for round in 0..12 {
            let what = format!("{}, seed {seed}, round {round}", A::NAME);
            let pending = (0..MOST).map(|_| nonsense(&mut guest, &mut random)).collect();
            account(&mut guest, pending, &what, take_moved);
        }
        guest.reset_unit(0);
        guest.start();
        guest.hear();
        let read = Command::read(3, 2, DATA);
        assert!(guest.carry_out(&read).is_good(), "{}, seed {seed}", A::NAME);
    }
}

#[test]
fn any_bytes_are_a_command_that_virtio_scsi_answers_within_its_buffers() {
    any_bytes::<VirtioHba>();
}

#[test]
fn any_bytes_are_a_command_that_pvscsi_answers_within_its_buffers() {
    any_bytes::<PvHba>();
}
