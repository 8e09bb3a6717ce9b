//! SCSI host adapters that reach themselves: data, answers, lists and rings where their registers are.

use std::sync::Arc;

use paraslot_spec::pvscsi::{
    Config, MEMORY_BAR, RequestFlags, SetupMsgRing, command, command_status, config, host_status,
};
use paraslot_spec::scsi::opcode;
use paraslot_spec::virtio::pci::cfg_type;
use paraslot_spec::virtio_scsi::{CONTROL_QUEUE, response};
use paraslot_virtio::testing::Buffer;
use zerocopy::IntoBytes;

use super::{address, registers};
use crate::pvscsi::{self, PvHba};
use crate::scsi::{Command, DATA, Hba, Way, blocks};
use crate::support::{contents_of, image};
use crate::virtio_scsi::{ANSWER_LEN, FRONT_LEN, REQUESTS, VirtioHba};

#[test]
fn virtio_scsi_does_not_reach_its_own_registers() {
    let image = image();
    let mut guest = VirtioHba::of(Arc::new(image.clone()));
    guest.hear();
    let (bar, common) = guest.place_of(cfg_type::COMMON);
    let base = address(&mut guest.bench, bar);
    let before = (registers(&mut guest.bench, bar, common), contents_of(&image));
    for offset in [0, common, 0x1000, 0x4000] {
        let data = [(base + offset, 512)];
        for (code, way) in [(opcode::READ_10, Way::In), (opcode::WRITE_10, Way::Out)] {
            let done = guest.carry_out(&Command::new(blocks(code, 0, 1), way, &data));
            assert_eq!((done.status, done.moved), (Err(response::FAILURE.into()), 0));
        }
        // The header is there.
        let place = DATA;
        let front = Buffer::readable(base + offset, FRONT_LEN);
        let head = guest.ring_of(REQUESTS).add(&[front, Buffer::writable(place, ANSWER_LEN)]);
        guest.kick();
        guest.run();
        assert_eq!(guest.ring_of(REQUESTS).used(), Some((head, ANSWER_LEN)));
        let mut answer = [0; 12];
        guest.bench.peek(place, &mut answer);
        assert_eq!(answer[11], response::FAILURE);
    }
    assert_eq!((registers(&mut guest.bench, bar, common), contents_of(&image)), before);
    // An answer on the status register, and then a table and the rings there: nobody can be told.
    for queue in [REQUESTS, CONTROL_QUEUE] {
        let (mut chain, _) = guest.chain(&Command::new([0; 16], Way::None, &[]));
        chain[1] = Buffer::writable(base + common + 20, ANSWER_LEN);
        guest.ring_of(queue).add(&chain);
        guest.notify(queue);
        guest.run();
        assert_eq!(guest.status().bits(), 0x4f, "queue {queue}");
        guest.start();
    }
    for (queue, field) in [(REQUESTS, 0), (REQUESTS, 2), (CONTROL_QUEUE, 1), (CONTROL_QUEUE, 2)] {
        guest.virtio.reset();
        guest.virtio.agree(|offered| offered);
        let ring = guest.ring_of(queue);
        let mut places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
        places[field] = base + common;
        guest.virtio.enable_queue(queue, 64, places);
        guest.set_status(0xf);
        guest.run();
        assert_eq!(guest.status().bits(), 0x4f, "queue {queue}, ring {field}");
    }
    guest.start();
    guest.works();
}

#[test]
fn pvscsi_does_not_reach_its_own_registers() {
    let image = image();
    let mut guest = PvHba::of(Arc::new(image.clone()));
    guest.hear();
    let base = address(&mut guest.bench, MEMORY_BAR);
    let seen = |guest: &mut PvHba| {
        [0, 0x100, 0x2000, 0x3000, 0x4000].map(|page| registers(&mut guest.bench, 0, page))
    };
    let before = (seen(&mut guest), contents_of(&image));
    // Data where COMMAND is (a write of it would reset the adapter), kicks, the MSI-X table.
    for offset in [0, 0x1000, 0x3000, 0x4000, 0x6000] {
        for (code, way) in [(opcode::READ_10, Way::In), (opcode::WRITE_10, Way::Out)] {
            let data = [(base + offset, 512)];
            let done = guest.carry_out(&Command::new(blocks(code, 0, 1), way, &data));
            assert_eq!((done.status, done.moved), (Err(host_status::INVPARAM), 0));
            // Half of it, and a list.
            let pieces = [(DATA, 256), (base + offset, 256)];
            let done = guest.carry_out(&Command::new(blocks(code, 0, 1), way, &pieces));
            assert_eq!(done.status, Err(host_status::INVPARAM));
            let (mut request, _) = guest.describe(&Command::read(0, 1, DATA));
            request.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::SG_LIST).bits());
            request.data_address.set(base + offset);
            guest.put_descriptor(&request);
            guest.kick();
            guest.run();
            let completion = guest.completed().expect("an answer");
            assert_eq!(completion.host_status.get(), host_status::INVPARAM);
        }
        // Sense data.
        let (mut request, _) = guest.describe(&Command::new([0xff; 16], Way::None, &[]));
        request.sense_address.set(base + offset);
        guest.put_descriptor(&request);
        guest.kick();
        guest.run();
        let completion = guest.completed().expect("an answer");
        assert_eq!(completion.host_status.get(), host_status::SENSFAILED);
        assert_eq!(completion.sense_len.get(), 0);
        // A configuration page.
        let mut order = Config::default();
        order.completion.set(base + offset);
        order.address.set(u64::from(config::address::CONTROLLER) << 32);
        order.page.set(config::CONTROLLER);
        assert_ne!(guest.order(command::CONFIG, order.as_bytes()), command_status::SUCCEEDED);
    }
    assert_eq!(contents_of(&image), before.1);
    // The rings, and their state.
    let page = base >> 12;
    for field in 0..3 {
        let mut setup = PvHba::setup();
        match field {
            0 => setup.state_page.set(page),
            1 => setup.request_ring[0].set(page),
            _ => setup.completion_ring[0].set(page),
        }
        let status = guest.order(command::SETUP_RINGS, setup.as_bytes());
        assert_eq!(status, command_status::FAILED, "{field}");
        guest.kick();
        guest.run();
    }
    guest.set_up();
    let mut messages = SetupMsgRing::default();
    messages.pages.set(1);
    messages.ring[0].set(page);
    let status = guest.order(command::SETUP_MSG_RING, messages.as_bytes());
    assert_eq!(status, command_status::FAILED);
    guest.bench.poke(pvscsi::MESSAGES, &[0; 16]);
    // COMMAND_STATUS apart, the registers are as they were.
    let after = seen(&mut guest);
    assert_eq!(after[1..], before.0[1..]);
    guest.works();
}
