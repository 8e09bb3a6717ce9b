//! The message ring: units that come and go.

use paraslot_spec::pvscsi::{MessageDescriptor, message};

use super::*;

impl Machine {
    /// Takes messages off the ring: kind, target and LUN.
    fn told(&mut self) -> Vec<(u32, u32, u8)> {
        let mut told = Vec::new();
        while self.messages != self.state(state::MESSAGE_PRODUCER) {
            let at = MESSAGES + u64::from(self.messages % 32) * 128;
            let message: MessageDescriptor = self.object(at);
            assert_eq!(message.bus.get(), 0);
            told.push((message.kind.get(), message.target.get(), message.lun[1]));
            self.messages += 1;
        }
        self.set_state(state::MESSAGE_CONSUMER, self.messages);
        told
    }
}

#[test]
fn units_that_come_and_go_are_told() {
    let mut machine = Machine::new();
    machine.set_up_messages();
    machine.bus.attach(Address { target: 3, lun: 2 }, unit(numbered())).unwrap();
    machine.run();
    assert_eq!(machine.told(), [(message::DEVICE_ADDED, 3, 2)]);
    assert_eq!(machine.messages_sent(), 1);
    assert_eq!(machine.read(register::INTR_STATUS) & Intr::MSG_0.bits(), Intr::MSG_0.bits());
    let _ = machine.bus.detach(Address { target: 3, lun: 2 });
    machine.bus.attach(Address { target: 3, lun: 2 }, unit(numbered())).unwrap();
    machine.run();
    let both = [(message::DEVICE_REMOVED, 3, 2), (message::DEVICE_ADDED, 3, 2)];
    assert_eq!(machine.told(), both);
    assert_eq!(machine.messages_sent(), 2);
}

#[test]
fn messages_have_a_mask_of_their_own() {
    let mut machine = Machine::new();
    machine.set_up_messages();
    machine.write(register::INTR_MASK, Intr::CMPL_0.bits());
    machine.bus.attach(at(1), unit(numbered())).unwrap();
    machine.run();
    assert_eq!(machine.messages_sent(), 0);
    machine.write(register::INTR_MASK, Intr::all().bits());
    assert_eq!(machine.messages_sent(), 1);
}

#[test]
fn without_a_ring_nothing_is_told() {
    let mut machine = Machine::new();
    machine.bus.attach(at(1), unit(numbered())).unwrap();
    machine.run();
    machine.set_up_messages();
    machine.run();
    assert!(machine.told().is_empty());
    // Nor what happened before a reset.
    let _ = machine.bus.detach(at(1));
    machine.order(command::ADAPTER_RESET, &[]);
    machine.set_up_rings(PAGES);
    machine.set_up_messages();
    machine.run();
    assert!(machine.told().is_empty());
    machine.bus.attach(at(1), unit(numbered())).unwrap();
    machine.run();
    assert_eq!(machine.told(), [(message::DEVICE_ADDED, 1, 0)]);
}

#[test]
fn a_full_ring_is_not_overrun_and_nothing_is_lost() {
    let mut machine = Machine::new();
    machine.set_up_messages();
    let unit = unit(numbered());
    for lun in 1..=40 {
        machine.bus.attach(Address { target: 1, lun }, unit.clone()).unwrap();
    }
    machine.run();
    assert_eq!(machine.state(state::MESSAGE_PRODUCER), 32);
    machine.run();
    assert_eq!(machine.told().len(), 32);
    machine.run();
    let told = machine.told();
    assert_eq!(told.len(), 8);
    assert_eq!(told[7], (message::DEVICE_ADDED, 1, 40));
    // A consumer index that makes no sense is no room.
    machine.set_state(state::MESSAGE_CONSUMER, 1000);
    let _ = machine.bus.detach(Address { target: 1, lun: 1 });
    machine.run();
    assert_eq!(machine.state(state::MESSAGE_PRODUCER), 40);
    machine.set_state(state::MESSAGE_CONSUMER, 40);
    machine.run();
    assert_eq!(machine.told(), [(message::DEVICE_REMOVED, 1, 1)]);
}

#[test]
fn requests_of_a_unit_that_goes_end() {
    let (mut machine, gate) = Machine::gated();
    machine.set_up_messages();
    machine.submit(&read10(1, 0, 1));
    machine.run();
    let ticket = machine.bus.detach(at(0)).unwrap();
    machine.run();
    assert!(ticket.response().is_some());
    assert_eq!(machine.ended(), [(1, host_status::BUSRESET)]);
    assert_eq!(machine.told(), [(message::DEVICE_REMOVED, 0, 0)]);
    assert_eq!(machine.carry_out(&read10(2, 0, 1)).host_status.get(), host_status::SELTIMEO);
    gate.open();
    machine.run();
    assert!(machine.reap().is_empty());
}

// Other events are the unit's to tell, by a unit attention.
#[test]
fn a_change_of_a_unit_is_no_message() {
    let backend = Arc::new(numbered());
    let unit = LogicalUnit::disk(DiskOptions::new(backend.clone())).unwrap();
    let mut machine = Machine::with_unit(unit.clone());
    machine.set_up_messages();
    unit.resize();
    machine.run();
    assert!(machine.told().is_empty());
}
