use std::collections::VecDeque;

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Progress};

use super::*;
use crate::net::{
    Frame, NetBackend, NetError, NetReceiver, NetSender, Offload, Offloads, PartialChecksum, Room,
    Sink, Wire, WireOptions,
};

/// The test's hand as a far end.
struct Hand {
    host: HostPort,
    sent: VecDeque<Sent>,
}

impl FarEnd for Hand {
    fn attach(&mut self, _: Way) {
        self.host.take_sent(0);
        self.sent.clear();
    }

    fn push(&mut self, frame: &[u8], offload: Offload) {
        self.host.push_with(0, frame, offload);
    }

    fn pull(&mut self) -> Option<(Vec<u8>, Offload)> {
        self.sent.extend(self.host.take_sent(0));
        self.sent.pop_front().map(|sent| (sent.bytes, sent.offload))
    }

    fn accept(&mut self, _: Offloads) -> Offloads {
        Offloads::all()
    }

    fn fills_up(&self) -> bool {
        false
    }
}

fn send(sender: &mut dyn NetSender, head: &[u8]) -> Result<(), NetError> {
    let body = DmaBuffers::empty(Direction::ToDevice);
    sender.send(&Frame { head, body: &body, offload: Offload::default() })
}

fn receive(receiver: &mut dyn NetReceiver) -> Result<Option<Vec<u8>>, NetError> {
    let mut room = vec![0; 2000];
    let received = receiver.receive(Room::Host(&mut room))?;
    Ok(received.map(|received| room[..received.len].to_vec()))
}

#[test]
fn a_scripted_port_conforms() {
    let (port, host) = ScriptedNet::new(2);
    conformance(&port, &mut Hand { host, sent: VecDeque::new() });
}

#[test]
fn a_port_without_faults_conforms() {
    let port = FaultNet::new(Wire::loopback(WireOptions::default()).unwrap(), |_, _| None);
    conformance(&port, &mut PortEnd::new(&port, true));
}

#[test]
fn frames_arrive_when_the_test_says_so() {
    let (port, host) = ScriptedNet::new(2);
    let frame = |number| vec![number; 60];
    port.set_queues(2).unwrap();
    let mut receiver = port.open_receiver(1).unwrap();
    let bell = Bell::new(receiver.sources());
    host.hold();
    for number in 0..4 {
        host.push(1, &frame(number));
    }
    assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
    assert!(!bell.rings(0) && receive(&mut *receiver).unwrap().is_none());
    host.release(1, 2);
    bell.wait();
    for number in 0..2 {
        assert_eq!(receive(&mut *receiver).unwrap(), Some(frame(number)));
    }
    assert_eq!(receive(&mut *receiver).unwrap(), None);
    assert_eq!(host.waiting(1), 2);
    host.open();
    assert_eq!(receiver.prepare_to_wait(), Progress::More);
    host.push(1, &frame(4));
    for number in 2..5 {
        assert_eq!(receive(&mut *receiver).unwrap(), Some(frame(number)));
    }
    assert_eq!((host.active(), host.accepted()), (2, Offloads::empty()));
}

#[test]
fn what_is_sent_is_shown_when_the_batch_ends() {
    let (port, host) = ScriptedNet::new(1);
    let mut sender = port.open_sender(0).unwrap();
    let bell = Bell::new(sender.sources());
    host.set_room(0, Some(2));
    send(&mut *sender, &[1; 60]).unwrap();
    send(&mut *sender, &[2; 60]).unwrap();
    assert!(matches!(send(&mut *sender, &[3; 60]), Err(NetError::Busy)));
    assert!(host.take_sent(0).is_empty());
    sender.commit();
    let sent = host.take_sent(0);
    assert_eq!(sent.iter().map(|sent| sent.bytes[0]).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((host.commits(0), host.take_sent(0).len()), (1, 0));
    assert_eq!(sender.prepare_to_wait(), Progress::Idle);
    assert!(!bell.rings(0));
    host.set_room(0, None);
    bell.wait();
    send(&mut *sender, &[3; 60]).unwrap();
    assert_eq!(sender.prepare_to_wait(), Progress::More);
}

#[test]
fn a_host_that_cannot_be_trusted_says_anything() {
    let (port, host) = ScriptedNet::new(1);
    let mut receiver = port.open_receiver(0).unwrap();
    let checksum = Some(PartialChecksum { start: 0xffff, offset: 0xffff });
    let offload = Offload { checksum, ..Offload::default() };
    host.push_raw(0, &[1; 14], offload);
    let received = receiver.receive(Room::Host(&mut [0; 20])).unwrap().unwrap();
    assert_eq!((received.len, received.offload), (14, offload));
    host.push_with(0, &[1; 14], offload);
    assert!(matches!(receive(&mut *receiver), Err(NetError::Invalid)));
}

#[test]
fn frames_fail_as_the_script_says() {
    let sink = Sink::new(1).unwrap();
    let faults = [NetError::Busy, NetError::Down, NetError::NoBuffers];
    let script = faults.into_iter().map(Some).chain([None]);
    let port = FaultNet::scripted(sink.clone(), script);
    let mut sender = port.open_sender(0).unwrap();
    assert!(matches!(send(&mut *sender, &[1; 60]), Err(NetError::Busy)));
    assert_eq!(sender.prepare_to_wait(), Progress::More);
    assert!(matches!(send(&mut *sender, &[1; 60]), Err(NetError::Down)));
    assert!(matches!(send(&mut *sender, &[1; 60]), Err(NetError::NoBuffers)));
    send(&mut *sender, &[1; 60]).unwrap();
    send(&mut *sender, &[1; 60]).unwrap();
    sender.commit();
    assert_eq!((sink.frames(), port.count()), (2, 5));
}

#[test]
fn received_frames_fail_and_are_lost() {
    let wire = Wire::loopback(WireOptions::default()).unwrap();
    let port = FaultNet::new(wire, |_, operation| match operation {
        Operation::Receive { queue: 0 } => Some(NetError::Io(std::io::ErrorKind::Other.into())),
        _ => None,
    });
    let mut receiver = port.open_receiver(0).unwrap();
    let mut sender = port.open_sender(0).unwrap();
    send(&mut *sender, &[1; 60]).unwrap();
    sender.commit();
    assert_eq!(receiver.prepare_to_wait(), Progress::More);
    assert!(matches!(receive(&mut *receiver), Err(NetError::Io(_))));
    assert_eq!(receive(&mut *receiver).unwrap(), None);
    assert_eq!(port.count(), 2);
}
