use std::sync::mpsc;

use paraslot_device::DmaBuffers;
use paraslot_device::dma::Direction;

use super::*;
use crate::net::Offload;
use crate::net::testing::{GuestPages, Packet};

#[test]
fn a_sink_counts_and_never_delivers() {
    let sink = Sink::new(2).unwrap();
    assert!(Sink::new(0).is_err());
    let body = DmaBuffers::empty(Direction::ToDevice);
    let packet = Packet::tcp4(&[5; 3000]);
    let frame = packet.unfinished();
    for queue in 0..2 {
        let mut sender = sink.open_sender(queue).unwrap();
        assert!(sink.open_sender(queue).is_err());
        for offload in [Offload::default(), packet.checksum_offload(), packet.cut_offload(100)] {
            sender.send(&Frame { head: &frame, body: &body, offload }).unwrap();
        }
        let short = Frame { head: &frame[..13], body: &body, offload: Offload::default() };
        assert!(matches!(sender.send(&short), Err(NetError::Invalid)));
        assert_eq!(sink.frames(), 3 * u64::from(queue), "the batch has not ended");
        sender.commit();
        assert_eq!(sink.frames(), 3 * u64::from(queue + 1));
        assert_eq!((sender.sources().len(), sender.copied_bytes()), (0, 0));
        let mut receiver = sink.open_receiver(queue).unwrap();
        assert!(sink.open_receiver(queue).is_err());
        assert!(receiver.receive(Room::Host(&mut [0; 2000])).unwrap().is_none());
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
    }
    assert_eq!(sink.bytes(), 6 * frame.len() as u64);
    assert!(sink.open_sender(0).is_ok() && sink.open_receiver(1).is_ok());
    assert!(sink.open_sender(2).is_err() && sink.open_receiver(2).is_err());
}

#[test]
fn an_inspector_sees_each_frame() {
    let (seen, frames) = mpsc::channel();
    let sink = Sink::with_inspector(2, move |queue, frame| {
        let mut bytes = vec![0; frame.len()];
        frame.copy_to(&mut bytes);
        seen.send((queue, bytes, frame.offload)).unwrap();
    })
    .unwrap();
    let packet = Packet::udp4(b"payload");
    let (bytes, guest) = (packet.unfinished(), GuestPages::new(4096));
    guest.write(0, &bytes[20..]);
    let body = guest.buffers(&[(0, bytes.len() - 20)], Direction::ToDevice);
    let offload = packet.checksum_offload();
    let mut sender = sink.open_sender(1).unwrap();
    sender.send(&Frame { head: &bytes[..20], body: &body, offload }).unwrap();
    assert_eq!(frames.try_iter().collect::<Vec<_>>(), [(1, bytes, offload)]);
}
