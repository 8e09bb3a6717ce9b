//! Events.

use super::*;

const LUN: [u8; 8] = [1, 3, 0x41, 2, 0, 0, 0, 0];

fn events(disk: &mut VirtioScsi<'_, Machine>) -> Result<Vec<Event>, Error> {
    let mut events = Vec::new();
    disk.events(|event| events.push(event))?;
    Ok(events)
}

#[test]
fn events_are_read_and_their_buffers_given_back() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 4);
    let address = Some(Address { target: 3, lun: 0x102 });
    let event = Event { event: 1, missed: false, address, reason: 2 };
    for round in 0..50 {
        for _ in 0..round % 9 {
            machine.report(1, LUN, 2);
        }
        assert_eq!(events(&mut disk), Ok(vec![event; round % 9]));
    }
    assert_eq!(machine.available(EVENTS), 8 + (0..50).map(|round| round % 9).sum::<u16>());
    // QEMU 91e7fcca47 lost buffers: all are with the device again.
    for _ in 0..8 {
        machine.report(3, LUN, 0x092a);
    }
    let event = Event { event: 3, reason: 0x092a, ..event };
    assert_eq!(events(&mut disk), Ok(vec![event; 8]));
}

// scsi.eventq.1 and 2.
#[test]
fn lost_events_and_events_about_nobody_are_reported_as_such() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 4);
    machine.report(1 << 31, [0; 8], 0);
    machine.report(2 | 1 << 31, [1, 255, 0, 7, 0, 0, 0, 0], 0x55);
    machine.report(77, [1, 255, 0x80, 7, 0, 0, 0, 0], 0);
    machine.report(1, [1, 255, 0x40, 7, 0, 0, 0, 1], 0);
    let nothing = Event { event: 0, missed: true, address: None, reason: 0 };
    let address = Some(Address { target: 255, lun: 7 });
    assert_eq!(
        events(&mut disk),
        Ok(vec![
            nothing,
            Event { event: 2, missed: true, address, reason: 0x55 },
            Event { event: 77, missed: false, ..nothing },
            Event { event: 1, missed: false, ..nothing },
        ])
    );
}

#[test]
fn giving_buffers_back_costs_one_notification_at_most() {
    let machine = Machine::usual();
    let mut disk = disk(&machine, 4);
    let before = disk.accesses();
    machine.wish_notification(EVENTS);
    machine.report(1, LUN, 2);
    machine.report(1, LUN, 2);
    events(&mut disk).unwrap();
    events(&mut disk).unwrap();
    assert_eq!(disk.accesses().since(before).total(), 1);
    assert_eq!(machine.doorbells(), [1]);
}

#[test]
fn lies_about_events_are_errors() {
    for used in [&[(0, 15)][..], &[(0, 17)], &[(8, 16)], &[(0, 16), (0, 16)], &[(0, 16); 9]] {
        let machine = Machine::usual();
        let mut disk = disk(&machine, 4);
        for _ in used {
            let _ = machine.next(EVENTS);
        }
        machine.give_back(EVENTS, used);
        assert!(matches!(events(&mut disk), Err(Error::Protocol(_))), "{used:?}");
    }
}
