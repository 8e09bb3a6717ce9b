//! SCSI host adapters: commands, rings and units that go away. Each costs itself, and nothing beside.

use std::sync::Arc;

use paraslot_backends::block::testing::GatedBackend;
use paraslot_scsi::{Address, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};
use paraslot_spec::pvscsi::{RequestFlags, command, command_status, host_status};
use paraslot_spec::scsi::sense::key;
use paraslot_spec::scsi::{opcode, status};
use paraslot_spec::virtio_scsi::{CONTROL_QUEUE, EVENT_QUEUE, response};
use paraslot_tests::scsi;
use zerocopy::IntoBytes;

use crate::pvscsi::{PvHba, REQUESTS};
use crate::scsi::{Command, DATA, DATA_LEN, Hba, MEMORY, Way, blocks, scatter};
use crate::support::{all_memory, contents_of, image};
use crate::virtio_scsi::{self, VirtioHba};

fn disk() -> Arc<LogicalUnit> {
    LogicalUnit::disk(DiskOptions::new(Arc::new(image()))).expect("a disk")
}

// CVE-2013-4344: REPORT LUNS of a target with more than 256 of them, into room for all, some and none.
fn many_units<A: Hba>() {
    const UNITS: u16 = 300;
    let initiator = Initiator("tests".into());
    let options = BusOptions { initiator, max_target: 0, max_lun: 511, autosense: true };
    let bus = Bus::new(options);
    for lun in 0..UNITS {
        bus.attach(Address { target: 0, lun }, disk()).expect("it is free");
    }
    let mut guest = A::make(bus, std::time::Duration::ZERO);
    guest.hear();
    let all = 8 + 8 * u64::from(UNITS);
    for room in [16, 24, 2000, all - 1, all, all + 100] {
        guest.bench().poke(DATA, &[0xa5; 4096]);
        let len = u32::try_from(room).expect("small");
        let mut cdb = [0; 16];
        cdb[0] = opcode::REPORT_LUNS;
        cdb[6..10].copy_from_slice(&len.to_be_bytes());
        let done = guest.carry_out(&Command::new(cdb, Way::In, &[(DATA, len)]));
        assert!(done.is_good(), "{}, {room}: {done:?}", A::NAME);
        assert_eq!(done.moved, room.min(all), "{}", A::NAME);
        let mut told = [0; 4096];
        guest.bench().peek(DATA, &mut told);
        let (told, rest) = told.split_at(usize::try_from(done.moved).expect("small"));
        assert_eq!(told[..4], (8 * u32::from(UNITS)).to_be_bytes());
        assert!(rest.iter().all(|byte| *byte == 0xa5), "{}, {room}", A::NAME);
    }
}

#[test]
fn any_number_of_units_is_reported_by_virtio_scsi_within_its_room() {
    many_units::<VirtioHba>();
}

#[test]
fn any_number_of_units_is_reported_by_pvscsi_within_its_room() {
    many_units::<PvHba>();
}

// CVE-2021-3930 (MODE SELECT of page 3Fh), CVE-2023-42467 (blocks of 256 bytes): refused, and the unit
// is as it was.
fn mode_select<A: Hba>() {
    let mut guest = A::of(Arc::new(image()));
    guest.hear();
    let descriptor = |len: u32| {
        let mut list = vec![0, 0, 0, 8, 0, 0, 0, 0];
        list.extend_from_slice(&len.to_be_bytes());
        list
    };
    let mut lists = vec![
        // All pages, of no length, of one too long for the list, and a subpage.
        vec![0, 0, 0, 0, 0x3f, 0],
        vec![0, 0, 0, 0, 0x3f, 0xff],
        vec![0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 0, 0x08, 0xff, 0, 0],
        vec![0, 0, 0, 0xff],
        vec![0, 0, 0, 7, 0, 0, 0],
    ];
    lists.extend([0, 1, 256, 511, 513, 1024, 0xff_ffff].map(descriptor));
    // All pages, as long as the caching page is and with its values.
    let mut sense = [0; 16];
    (sense[0], sense[1], sense[2], sense[4]) = (opcode::MODE_SENSE_6, 8, 8, 24);
    assert!(guest.carry_out(&Command::new(sense, Way::In, &[(DATA, 24)])).is_good());
    let mut page = vec![0; 24];
    guest.bench().peek(DATA, &mut page);
    assert_eq!((page[4] & 0x3f, page[5]), (8, 18), "the caching page");
    (page[0], page[2], page[4]) = (0, 0, 0x3f);
    lists.push(page);
    for list in lists {
        for save in [0x10, 0x11] {
            let len = u8::try_from(list.len()).expect("small");
            let data = [(DATA, u32::from(len))];
            scatter(guest.bench(), &data, &list);
            let mut cdb = [0; 16];
            (cdb[0], cdb[1], cdb[4]) = (opcode::MODE_SELECT_6, save, len);
            let done = guest.carry_out(&Command::new(cdb, Way::Out, &data));
            assert_eq!(done.status, Ok(status::CHECK_CONDITION), "{}, {list:x?}", A::NAME);
            assert_eq!(done.key(), Some(key::ILLEGAL_REQUEST), "{}, {list:x?}", A::NAME);
            guest.works();
        }
    }
}

#[test]
fn a_mode_that_makes_no_sense_changes_nothing_behind_virtio_scsi() {
    mode_select::<VirtioHba>();
}

#[test]
fn a_mode_that_makes_no_sense_changes_nothing_behind_pvscsi() {
    mode_select::<PvHba>();
}

// CVE-2015-5158: a CDB of a length that it cannot have, or that is longer than its place.
#[test]
fn the_length_of_a_cdb_is_what_a_request_has() {
    let image = image();
    let mut guest = PvHba::of(Arc::new(image.clone()));
    guest.hear();
    let before = contents_of(&image);
    for (len, flags) in
        [(0, 0), (17, 0), (0x80, 0), (0xff, 0), (16, RequestFlags::OUT_OF_BAND_CDB.bits())]
    {
        let (mut request, _) =
            guest.describe(&Command::new(blocks(opcode::WRITE_10, 0, 1), Way::Out, &[(DATA, 512)]));
        request.cdb_len = len;
        request.flags.set(request.flags.get() | flags);
        guest.put_descriptor(&request);
        guest.kick();
        guest.run();
        let completion = guest.completed().expect("an answer");
        assert_eq!(completion.host_status.get(), host_status::INVPARAM, "{len}");
        assert_eq!(completion.data_len.get(), 0);
        guest.works();
    }
    let mut guest = VirtioHba::of(Arc::new(image.clone()));
    guest.hear();
    // A request that ends in the middle of its CDB, or of its header.
    for len in [1, 18, 19, 20, 34, 50] {
        let (mut chain, _) = guest.chain(&Command::new([opcode::WRITE_10; 16], Way::None, &[]));
        chain[0].len = len;
        let answer = chain[1];
        let head = guest.ring_of(virtio_scsi::REQUESTS).add(&chain);
        guest.kick();
        guest.run();
        let written = virtio_scsi::ANSWER_LEN;
        assert_eq!(guest.ring_of(virtio_scsi::REQUESTS).used(), Some((head, written)), "{len}");
        let mut bytes = [0; 12];
        guest.bench.peek(answer.address, &mut bytes);
        assert_eq!(bytes[11], response::FAILURE, "{len}");
        guest.works();
    }
    assert_eq!(contents_of(&image), before);
}

// QEMU 4382f167cf, 1604c04931, cfd4e36352: a unit that goes with commands in flight. Each ends once, and
// those of the unit beside it are not concerned.
fn unplugged<A: Hba>() {
    for held in 0..6u64 {
        for release_first in [false, true] {
            let what = format!("{}, {held} held, {release_first}", A::NAME);
            let bus = scsi::bus();
            let backends = [GatedBackend::new(image()), GatedBackend::new(image())];
            let gates = backends.each_ref().map(GatedBackend::gate);
            for (target, backend) in (0..).zip(backends) {
                let unit = LogicalUnit::disk(DiskOptions::new(Arc::new(backend))).expect("a disk");
                bus.attach(Address { target, lun: 0 }, unit).expect("it is free");
            }
            let mut guest = A::make(bus.clone(), std::time::Duration::from_secs(5));
            for target in 0..2 {
                let mut ready = Command::new([opcode::TEST_UNIT_READY; 16], Way::None, &[]);
                ready.target = target;
                guest.carry_out(&ready);
            }
            let put = |guest: &mut A, target: u8, count: u64| -> Vec<u64> {
                let place = DATA + u64::from(target) * 6 * DATA_LEN;
                let reads = (0..count).map(|index| Command {
                    target,
                    ..Command::read(3 + index, 1, place + index * DATA_LEN)
                });
                reads.map(|read| guest.put(&read).tag).collect()
            };
            let of_first = put(&mut guest, 0, held);
            let of_second = put(&mut guest, 1, 3);
            guest.kick();
            guest.run();
            assert_eq!(guest.take(), None, "{what}");
            if release_first {
                gates[0].release(1);
            }
            // What has not ended by then is cancelled.
            let _ = bus.detach(Address::default());
            guest.run();
            let mut over: Vec<u64> = std::iter::from_fn(|| guest.take()).map(|d| d.tag).collect();
            over.sort_unstable();
            assert_eq!(over, of_first, "{what}");
            assert_eq!(gates[0].held(), 0, "{what}");
            // It is not there, and another one is when it comes.
            let gone = guest.carry_out(&Command::read(3, 1, DATA));
            assert!(!gone.is_good(), "{what}");
            assert_eq!(gates[1].held(), 3, "{what}: the other unit's commands");
            gates[1].open();
            guest.run();
            let over: Vec<u64> = std::iter::from_fn(|| guest.take())
                .inspect(|done| assert!(done.is_good(), "{what}: {done:?}"))
                .map(|done| done.tag)
                .collect();
            assert_eq!(over, of_second, "{what}");
            bus.attach(Address::default(), disk()).expect("it is free");
            guest.run();
            guest.works();
        }
    }
}

#[test]
fn a_unit_that_goes_costs_virtio_scsi_its_commands() {
    unplugged::<VirtioHba>();
}

#[test]
fn a_unit_that_goes_costs_pvscsi_its_commands() {
    unplugged::<PvHba>();
}

#[test]
fn a_broken_queue_leaves_the_others_of_virtio_scsi_alone() {
    for broken in [CONTROL_QUEUE, EVENT_QUEUE] {
        let mut guest = VirtioHba::of(Arc::new(image()));
        guest.hear();
        guest.ring_of(broken).set_avail_idx(0x4000);
        guest.notify(broken);
        guest.run();
        if broken == CONTROL_QUEUE {
            assert_eq!(guest.status().bits(), 0x4f);
        }
        guest.works();
        guest.start();
        guest.works();
    }
    // The requests' own, with task management going on.
    let mut guest = VirtioHba::of(Arc::new(image()));
    guest.hear();
    guest.ring_of(virtio_scsi::REQUESTS).set_avail_idx(0x4000);
    guest.kick();
    guest.run();
    assert_eq!(guest.status().bits(), 0x4f);
    guest.reset_unit(0);
    guest.start();
    guest.works();
}

// As for virtio-blk: CVE-2017-17381.
#[test]
fn rings_that_are_not_aligned_cost_virtio_scsi_a_reset() {
    for queue in 0..3 {
        for (field, off) in [(0, 8), (1, 1), (2, 2)] {
            let bus = scsi::one_disk(Arc::new(image()));
            let mut guest = VirtioHba::with(bus.clone(), 64);
            guest.virtio.reset();
            guest.virtio.agree(|offered| offered);
            let ring = guest.ring_of(queue);
            let mut places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
            places[field] += off;
            guest.virtio.enable_queue(queue, 64, places);
            let before = all_memory(&guest.bench, MEMORY);
            guest.set_status(0xf);
            guest.notify(queue);
            // Something for the event queue.
            bus.attach(Address { target: 1, lun: 0 }, disk()).expect("it is free");
            guest.run();
            assert_eq!(guest.status().bits(), 0x4f, "queue {queue}, ring {field}");
            assert!(all_memory(&guest.bench, MEMORY) == before, "queue {queue}, ring {field}");
        }
    }
}

// CVE-2016-4952 and CVE-2016-7155: rings of more pages than there can be, or where no memory is. They
// are refused, and the ones of before are gone with their requests.
#[test]
fn rings_that_make_no_sense_are_refused_by_pvscsi() {
    type Change = fn(&mut paraslot_spec::pvscsi::SetupRings);
    let changes: [Change; 8] = [
        |setup| setup.request_pages.set(0),
        |setup| setup.request_pages.set(33),
        |setup| setup.request_pages.set(u32::MAX),
        |setup| setup.completion_pages.set(33),
        |setup| setup.completion_pages.set(0x8000_0000),
        |setup| setup.request_ring[0].set(u64::MAX),
        |setup| setup.completion_ring[0].set(1 << 52),
        |setup| setup.state_page.set(MEMORY as u64 >> 12),
    ];
    for change in changes {
        let backend = GatedBackend::new(image());
        let gate = backend.gate();
        let mut guest = PvHba::of(Arc::new(backend));
        guest.hear();
        guest.put(&Command::read(3, 1, DATA));
        guest.kick();
        guest.run();
        let mut setup = PvHba::setup();
        change(&mut setup);
        assert_eq!(guest.order(command::SETUP_RINGS, setup.as_bytes()), command_status::FAILED);
        gate.open();
        guest.bench.poke(REQUESTS, &[0xff; 4096]);
        guest.kick();
        let before = (guest.completed(), guest.bench.interrupts.messages());
        guest.run();
        assert_eq!((guest.completed(), guest.bench.interrupts.messages()), before);
        guest.start();
        guest.works();
    }
}
