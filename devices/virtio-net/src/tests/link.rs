//! The cable, and gratuitous packets.

use paraslot_spec::virtio_net::{ack, announce, class, status};

use super::*;

fn shown(nic: &Nic) -> u16 {
    config(&nic.device).status.get()
}

#[test]
fn the_driver_is_told_of_the_link() {
    let mut nic = Nic::new(ALL);
    assert!(nic.control.link());
    nic.control.set_link(true);
    assert_eq!((shown(&nic), nic.signals.config_changes()), (status::LINK_UP, 0));
    nic.control.set_link(false);
    assert_eq!((shown(&nic), nic.signals.config_changes()), (0, 1));
    assert!(!nic.control.link());
    nic.control.set_link(true);
    assert_eq!((shown(&nic), nic.signals.config_changes()), (status::LINK_UP, 2));
    nic.run();

    // Where it is not shown, nothing changes.
    let nic = Nic::with(&Options { features: !feature::STATUS, ..options(1) }, ALL);
    nic.control.set_link(false);
    assert_eq!((shown(&nic), nic.signals.config_changes()), (0, 0));
}

#[test]
fn nothing_passes_while_the_link_is_down() {
    for features in [PLAIN, ALL] {
        let mut nic = Nic::with(&Options { link_up: false, ..options(1) }, features);
        nic.post(0, 8, 2048);
        nic.port.push(0, &frame(60));
        nic.send(Header::default(), &frame(60));
        assert_eq!((nic.got(0), nic.sent(0).len()), (None, 0));
        assert_eq!(nic.statistics().send_down, 1);
        nic.control.set_link(true);
        nic.run();
        // What came in the meantime is lost, as on a network.
        assert_eq!(nic.got(0), None);
        nic.port.push(0, &frame(61));
        nic.send(Header::default(), &frame(62));
        assert_eq!(nic.got(0).unwrap().frame, frame(61));
        assert_eq!(nic.sent(0), [frame(62)]);
        let statistics = nic.statistics();
        assert_eq!((statistics.send_down, statistics.receive_errors), (1, 1));
        assert_eq!((statistics.sent_frames, statistics.received_frames), (1, 1));
    }
}

// A frame that waits for the backend does not wait for a link.
#[test]
fn a_frame_that_waits_is_lost_with_the_link() {
    let mut nic = Nic::new(PLAIN);
    nic.port.set_room(0, Some(0));
    nic.queue_frame(0, Header::default(), &frame(60));
    nic.run();
    assert_eq!(nic.lane(1).ring.used(), None);
    nic.control.set_link(false);
    nic.run();
    assert!(nic.lane(1).ring.used().is_some());
    assert_eq!(nic.statistics().send_down, 1);
}

// net.announce.1
#[test]
fn the_driver_is_asked_to_announce_itself() {
    let mut nic = Nic::new(ALL);
    assert!(nic.control.announce());
    let both = status::LINK_UP | status::ANNOUNCE;
    assert_eq!((shown(&nic), nic.signals.config_changes()), (both, 1));
    assert!(nic.control.announce());
    assert_eq!(nic.signals.config_changes(), 1);
    assert_eq!(nic.command(class::ANNOUNCE, announce::ACK, &[]), ack::OK);
    assert_eq!((shown(&nic), nic.signals.config_changes()), (status::LINK_UP, 1));
    assert!(nic.control.announce());
    assert_eq!(nic.signals.config_changes(), 2);
    nic.restart(ALL & !feature::GUEST_ANNOUNCE);
    assert!(!nic.control.announce());
    assert_eq!((shown(&nic), nic.signals.config_changes()), (status::LINK_UP, 2));
    // Not every change is the driver's to be told of: it made this one itself.
    assert_eq!(nic.command(class::MAC, 1, &PEER), ack::OK);
    assert_eq!(nic.signals.config_changes(), 2);
}

#[test]
fn the_status_bits_do_not_disturb_each_other() {
    let nic = Nic::new(ALL);
    assert!(nic.control.announce());
    nic.control.set_link(false);
    assert_eq!(shown(&nic), status::ANNOUNCE);
    nic.control.set_link(true);
    assert_eq!(shown(&nic), status::ANNOUNCE | status::LINK_UP);
}
