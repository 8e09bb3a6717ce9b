use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::*;
use crate::net::testing::{GuestPages, Packet};

fn drain(receiver: &mut dyn NetReceiver) -> Vec<(Vec<u8>, Offload)> {
    let mut frames = Vec::new();
    let mut room = vec![0; 70_000];
    while let Some(received) = receiver.receive(Room::Host(&mut room)).unwrap() {
        frames.push((room[..received.len].to_vec(), received.offload));
    }
    frames
}

#[test]
fn frames_are_made_as_asked_for_up_to_a_limit() {
    let options = GeneratorOptions { queues: 2, limit: Some(3), ..Default::default() };
    let mut made = 0u8;
    let generator = Generator::new(options, move |queue, bytes| {
        made += 1;
        bytes[..60].fill(made);
        bytes[0] = u8::try_from(queue).unwrap();
        60
    })
    .unwrap();
    generator.set_queues(9).unwrap();
    for queue in 0..2 {
        let mut receiver = generator.open_receiver(queue).unwrap();
        assert!(generator.open_receiver(queue).is_err());
        assert_eq!(receiver.prepare_to_wait(), Progress::More);
        let frames = drain(&mut *receiver);
        let first = u8::try_from(queue).unwrap();
        let seen: Vec<_> =
            frames.iter().map(|(bytes, _)| (bytes[0], bytes[1], bytes.len())).collect();
        assert_eq!(seen, [1, 2, 3].map(|number| (first, number + 3 * first, 60)));
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
    }
    assert_eq!(generator.made(), 6);
}

#[test]
fn a_template_goes_straight_into_the_room() {
    let packet = Packet::udp6(&[7; 1000]);
    let (frame, guest) = (packet.finished(), GuestPages::new(1 << 14));
    let generator = Generator::from_template(GeneratorOptions::default(), &frame).unwrap();
    let mut receiver = generator.open_receiver(0).unwrap();
    let room = guest.buffers(&[(3, 17), (100, 2000)], Direction::FromDevice);
    for count in 1..4 {
        let received = receiver.receive(Room::Guest(&room)).unwrap().unwrap();
        assert_eq!(received, Received { len: frame.len(), offload: Offload::default() });
        let mut bytes = vec![0; frame.len()];
        room.copy_to(&mut bytes);
        assert!(bytes == frame);
        assert_eq!(receiver.copied_bytes(), count * frame.len() as u64);
        assert_eq!(receiver.prepare_to_wait(), Progress::More);
    }
    let small = receiver.receive(Room::Host(&mut [0; 1000]));
    assert!(matches!(small, Err(NetError::TooLong)));
}

#[test]
fn what_the_device_does_not_take_is_done() {
    let packet = Packet::tcp4(&[7; 2500]);
    let offload = packet.cut_offload(1000);
    let options = GeneratorOptions { limit: Some(1), offload, ..Default::default() };
    let frame = packet.unfinished();
    let template = || Generator::from_template(options, &frame).unwrap();
    let made = || {
        let frame = frame.clone();
        Generator::new(options, move |_, bytes| {
            bytes[..frame.len()].copy_from_slice(&frame);
            frame.len()
        })
        .unwrap()
    };
    for generator in [template(), made()] {
        let mut receiver = generator.open_receiver(0).unwrap();
        let mut room = [0; 2000];
        assert_eq!(receiver.receive(Room::Host(&mut room)).unwrap().unwrap().len, 1054);
        assert_eq!(receiver.prepare_to_wait(), Progress::More, "pieces are to come");
        assert_eq!(drain(&mut *receiver).len(), 2);
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
    }
    for generator in [template(), made()] {
        generator.set_receive_offloads(Offloads::all()).unwrap();
        let mut receiver = generator.open_receiver(0).unwrap();
        assert!(drain(&mut *receiver) == [(frame.clone(), offload)]);
    }
    let unfit = GeneratorOptions { offload: packet.cut_offload(0), ..options };
    assert!(Generator::from_template(unfit, &frame).is_err());
    assert!(Generator::from_template(GeneratorOptions::default(), &frame[..13]).is_err());
}

// A queue that is not in use gives nothing, and who waits on it hears when it is.
#[test]
fn queues_come_into_use() {
    let options = GeneratorOptions { queues: 2, limit: Some(1), ..Default::default() };
    let generator = Generator::from_template(options, &[1; 60]).unwrap();
    let mut receiver = generator.open_receiver(1).unwrap();
    assert!(drain(&mut *receiver).is_empty());
    assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
    generator.set_queues(2).unwrap();
    assert_eq!(receiver.prepare_to_wait(), Progress::More);
    assert_eq!(drain(&mut *receiver).len(), 1);
}

#[test]
fn what_is_sent_is_swallowed() {
    let generator = Generator::from_template(GeneratorOptions::default(), &[1; 60]).unwrap();
    let mut sender = generator.open_sender(0).unwrap();
    assert!(generator.open_sender(0).is_err());
    let body = DmaBuffers::empty(Direction::ToDevice);
    let frame = |head| Frame { head, body: &body, offload: Offload::default() };
    sender.send(&frame(&[1; 60])).unwrap();
    assert!(matches!(sender.send(&frame(&[1; 13])), Err(NetError::Invalid)));
    drop(sender);
    assert!(generator.open_sender(0).is_ok());
}
