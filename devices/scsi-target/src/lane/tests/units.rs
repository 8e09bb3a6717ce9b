//! Units that come and go, and media that change.

use std::sync::{Arc, Mutex};

use paraslot_backends::block::testing::GatedBackend;
use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::rig::{BLOCK, GOOD, HERE, Rig, bus, command, image, outcomes, rounds, unit};
use crate::command::{Outcome, Status};
use crate::plan::Plan;
use crate::{
    Address, Attribute, BusError, BusEvent, CdromOptions, Identity, Listener, LogicalUnit, Response,
};

fn none() -> DmaBuffers {
    DmaBuffers::empty(Direction::ToDevice)
}

fn sense_of(outcome: &Outcome) -> (u8, u8, u8) {
    match outcome {
        Outcome::Ended { status: Status::CheckCondition, sense: Some(sense) } => {
            (sense.key, sense.asc, sense.ascq)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn addresses_are_within_limits_and_taken_once() {
    let bus = bus("one");
    assert_eq!(bus.limits(), Address { target: 255, lun: 16383 });
    let high = Address { target: 3, lun: 16384 };
    assert_eq!(bus.attach(high, unit(image())), Err(BusError::Range(high)));
    let last = Address { target: 255, lun: 16383 };
    bus.attach(last, unit(image())).unwrap();
    bus.attach(HERE, unit(image())).unwrap();
    assert_eq!(bus.attach(HERE, unit(image())), Err(BusError::Taken(HERE)));
    assert_eq!(bus.addresses(), [HERE, last]);
    assert!(bus.unit(HERE).is_some());
    assert!(bus.unit(high).is_none());
    assert!(bus.detach(high).is_none());
    assert_eq!(bus.detach(last).unwrap().response(), Some(Response::Complete));
    assert_eq!(bus.addresses(), [HERE]);
}

#[test]
fn whoever_listens_hears_of_units() {
    #[derive(Default)]
    struct Ear(Mutex<Vec<(Address, BusEvent)>>);
    impl Listener for Ear {
        fn event(&self, address: Address, event: BusEvent) {
            self.0.lock().unwrap().push((address, event));
        }
    }
    let (bus, ear) = (bus("one"), Arc::new(Ear::default()));
    bus.attach(HERE, unit(image())).unwrap();
    bus.listen(Some(ear.clone()));
    let there = Address { target: 4, lun: 2 };
    bus.attach(there, unit(image())).unwrap();
    bus.detach(HERE);
    bus.listen(None);
    bus.detach(there);
    let heard = ear.0.lock().unwrap();
    assert_eq!(*heard, [(there, BusEvent::Attached), (HERE, BusEvent::Detached)]);
}

#[test]
fn commands_for_what_is_not_there() {
    let mut rig = Rig::new(image());
    let other = Address { target: 1, lun: 0 };
    rig.lane.submit(command(1, other, &[0; 6], none()));
    let lun = Address { target: 0, lun: 1 };
    rig.lane.submit(command(2, lun, &[0; 6], none()));
    let ended = outcomes(rounds(&mut rig.lane));
    assert_eq!(ended[0], (1, Outcome::NoTarget));
    assert_eq!(sense_of(&ended[1].1), (5, 0x25, 0));
}

// CVE-2016-5403's lesson: never more than the lane was opened for.
#[test]
fn more_than_the_depth_is_task_set_full() {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    let mut rig = Rig::with_depth(gated, 2);
    for token in 0..2 {
        rig.lane.read_block(&rig.guest, token, token, token);
    }
    rig.lane.submit(command(2, HERE, &[0; 6], none()));
    let full = Outcome::Ended { status: Status::TaskSetFull, sense: None };
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(2, full)]);
    gate.open();
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(0, GOOD), (1, GOOD)]);
    rig.lane.submit(command(3, HERE, &[0; 6], none()));
    // The attention that is there from the start: it was not lost on the refused one.
    assert_eq!(sense_of(&outcomes(rounds(&mut rig.lane))[0].1).0, 6);
}

// SAM-5, 8.6.5: there is no auto contingent allegiance.
#[test]
fn the_aca_attribute_is_refused() {
    let mut rig = Rig::new(image());
    let mut aca = command(1, HERE, &[0; 6], none());
    aca.attribute = Attribute::Aca;
    rig.lane.submit(aca);
    assert_eq!(sense_of(&outcomes(rounds(&mut rig.lane))[0].1), (5, 0x49, 0));
}

// QEMU 4382f167cf, 1604c04931: commands of a unit that goes away end, once, and it is gone then.
#[test]
fn detaching_ends_commands_and_then_the_unit() {
    let gated = GatedBackend::new(image());
    let gate = gated.gate();
    gate.deafen(true);
    let mut rig = Rig::new(gated);
    let weak = Arc::downgrade(&rig.bus.unit(HERE).unwrap());
    rig.lane.read_block(&rig.guest, 1, 1, 1);
    rig.lane.read_block(&rig.guest, 2, 2, 2);
    let ticket = rig.bus.detach(HERE).unwrap();
    // New ones do not find it, whether the lane has obeyed or not.
    rig.lane.submit(command(3, HERE, &[0; 6], none()));
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(3, Outcome::NoTarget)]);
    rig.lane.submit(command(4, HERE, &[0; 6], none()));
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(4, Outcome::NoTarget)]);
    assert_eq!(ticket.response(), None);
    // Another can be there meanwhile.
    rig.bus.attach(HERE, unit(image())).unwrap();
    rig.lane.read_block(&rig.guest, 5, 5, 5);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(5, GOOD)]);
    gate.release(2);
    let ended = outcomes(rounds(&mut rig.lane));
    assert_eq!(ended, [(1, Outcome::Reset), (2, Outcome::Reset)]);
    assert_eq!(ticket.response(), Some(Response::Complete));
    assert!(weak.upgrade().is_none(), "nobody holds on to it");
}

#[test]
fn other_units_of_the_target_say_that_luns_have_changed() {
    let mut rig = Rig::new(image());
    let look = |rig: &mut Rig, address| {
        rig.lane.submit(command(1, address, &[0; 6], none()));
        outcomes(rounds(&mut rig.lane)).remove(0).1
    };
    assert_eq!(sense_of(&look(&mut rig, HERE)).1, 0x29);
    assert_eq!(look(&mut rig, HERE), GOOD);
    let lun = Address { target: 0, lun: 7 };
    rig.bus.attach(lun, unit(image())).unwrap();
    rig.bus.attach(Address { target: 9, lun: 7 }, unit(image())).unwrap();
    assert_eq!(sense_of(&look(&mut rig, HERE)), (6, 0x3f, 0x0e));
    assert_eq!(look(&mut rig, HERE), GOOD);
    rig.bus.detach(lun);
    assert_eq!(sense_of(&look(&mut rig, HERE)), (6, 0x3f, 0x0e));
}

fn disc(byte: u8) -> Arc<dyn BlockBackend> {
    let options = MemoryOptions { read_only: true, ..MemoryOptions::default() };
    Arc::new(MemoryBackend::from_contents(&[byte; 64 * 1024], options).unwrap())
}

fn drive(medium: Option<Arc<dyn BlockBackend>>) -> Arc<LogicalUnit> {
    let identity = Identity {
        vendor: "VENDOR".into(),
        product: "DRIVE".into(),
        revision: "1".into(),
        serial: String::new(),
        world_wide_name: None,
    };
    LogicalUnit::cdrom(CdromOptions { medium, identity }).unwrap()
}

// What was begun on one disc ends there; what comes after finds the other; what was looked at in
// between, and has not begun, is asked for again.
#[test]
fn each_medium_has_its_own_queue() {
    let gated = GatedBackend::new(
        MemoryBackend::from_contents(
            &[1; 64 * 1024],
            MemoryOptions { read_only: true, ..MemoryOptions::default() },
        )
        .unwrap(),
    );
    let gate = gated.gate();
    let old: Arc<dyn BlockBackend> = Arc::new(gated);
    let weak = Arc::downgrade(&old);
    let mut rig = Rig::new(image());
    let address = Address { target: 2, lun: 0 };
    let drive = drive(Some(old));
    rig.bus.attach(address, drive.clone()).unwrap();
    let read = |rig: &mut Rig, token: u64| {
        let data = rig.input(token * 4096, 2048);
        rig.lane.begin_at(address, token, token, data, Plan::Read { offset: 0, len: 2048 });
    };
    read(&mut rig, 1);
    assert!(rounds(&mut rig.lane).is_empty());
    // It is a closed gate's queue, so it must be there still.
    drive.change_medium(Some(disc(2))).unwrap();
    read(&mut rig, 2);
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(2, GOOD)]);
    gate.open();
    assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, GOOD)]);
    assert_eq!(rig.guest.read(4096, 2048), [1; 2048]);
    assert_eq!(rig.guest.read(8192, 2048), [2; 2048]);
    assert!(weak.upgrade().is_none(), "the old disc is out of the drive");
}

#[test]
fn a_command_for_a_medium_that_has_gone_is_busy() {
    let mut rig = Rig::new(image());
    let address = Address { target: 2, lun: 0 };
    let drive = drive(Some(disc(1)));
    rig.bus.attach(address, drive.clone()).unwrap();
    let unit = rig.lane.view.find(&rig.lane.port, address).unwrap();
    let medium = rig.lane.view.get(unit).unwrap().nexus.medium_generation();
    for next in [Some(disc(2)), None] {
        drive.change_medium(next).unwrap();
        let arrival = crate::lane::start::Arrival { token: 1, tag: 1, unit, medium, taken: 0 };
        let data = rig.input(0, BLOCK);
        rig.lane.begin(arrival, data, Plan::Read { offset: 0, len: 512 });
        let busy = Outcome::Ended { status: Status::Busy, sense: None };
        assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, busy)]);
    }
}

// CVE-2013-4344: many units are found, and told from each other.
#[test]
fn many_units_are_told_from_each_other() {
    let mut rig = Rig::new(image());
    let addresses: Vec<Address> = (1..60)
        .map(|number| Address { target: number % 7, lun: u16::from(number) * 271 })
        .collect();
    for (number, address) in addresses.iter().enumerate() {
        let byte = u8::try_from(number).unwrap();
        let image = MemoryBackend::from_contents(&[byte; 512], MemoryOptions::default()).unwrap();
        rig.bus.attach(*address, unit(image)).unwrap();
        // A lane that follows every change.
        if number % 3 == 0 {
            rig.lane.read_block(&rig.guest, 7, 7, 0);
        }
    }
    rounds(&mut rig.lane);
    for (number, address) in addresses.iter().enumerate().rev() {
        let data = rig.input(number as u64 * 512, 512);
        rig.lane.begin_at(*address, 1, 1, data, Plan::Read { offset: 0, len: 512 });
        assert_eq!(outcomes(rounds(&mut rig.lane)), [(1, GOOD)]);
    }
    for number in 0..59_u8 {
        assert_eq!(rig.guest.read(u64::from(number) * 512, 512), [number; 512]);
    }
}
