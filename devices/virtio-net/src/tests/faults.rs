//! Backends that fail.

use std::io;

use paraslot_backends::net::testing::{FaultNet, Operation};
use paraslot_backends::net::{
    NetError, NetInfo, NetReceiver, NetSender, Offload, Offloads, Received, Room,
};
use paraslot_spec::virtio_net::{ack, class, mq};

use super::*;

/// An error, and where it is counted on the way out and in.
type Case = (fn() -> NetError, fn(&NetStatistics) -> (u64, u64));

fn errors() -> Vec<Case> {
    vec![
        (|| NetError::Down, |s| (s.send_down, s.receive_errors)),
        (|| NetError::NoBuffers, |s| (s.send_no_buffers, s.receive_errors)),
        (|| NetError::TooLong, |s| (s.send_invalid, s.received_too_long)),
        (|| NetError::Invalid, |s| (s.send_invalid, s.receive_errors)),
        (|| NetError::Io(io::Error::other("x")), |s| (s.send_errors, s.receive_errors)),
    ]
}

#[test]
fn an_error_costs_the_frame_and_is_counted() {
    for (error, counts) in errors() {
        for features in [PLAIN, ALL & !feature::CTRL_RX] {
            let (net, port) = ScriptedNet::new(1);
            let net = FaultNet::new(net, move |count, _| (count % 2 == 0).then(error));
            let mut nic = Nic::on(Arc::new(net), port, &options(1), features);
            for len in 60..64 {
                nic.send(Header::default(), &frame(len));
            }
            assert_eq!(nic.sent(0), [frame(61), frame(63)]);
            nic.post(0, 4, 2048);
            for len in 60..64 {
                nic.port.push(0, &frame(len));
            }
            nic.run();
            assert_eq!(nic.got(0).unwrap().frame, frame(61));
            assert_eq!(nic.got(0).unwrap().frame, frame(63));
            let statistics = nic.statistics();
            assert_eq!(counts(&statistics), (2, 2));
            assert_eq!((statistics.sent_frames, statistics.received_frames), (2, 2));
            assert_eq!(nic.resets(), 0);
        }
    }
}

#[test]
fn busy_costs_time_and_no_frame() {
    let (net, port) = ScriptedNet::new(1);
    let net = FaultNet::new(net, |count, operation| {
        let send = matches!(operation, Operation::Send { .. });
        (send && count % 3 != 2).then_some(NetError::Busy)
    });
    let mut nic = Nic::on(Arc::new(net), port, &options(1), PLAIN);
    let frames: Vec<_> = (60..90).map(frame).collect();
    for frame in &frames {
        nic.queue_frame(0, Header::default(), frame);
    }
    nic.run();
    assert_eq!(nic.sent(0), frames);
    assert_eq!(nic.statistics().send_busy, 30);
    // A frame that was there, and was lost when it was received.
    let (net, port) = ScriptedNet::new(1);
    let net = FaultNet::scripted(net, [Some(NetError::Busy)]);
    let mut nic = Nic::on(Arc::new(net), port, &options(1), PLAIN);
    nic.post(0, 2, 2048);
    nic.port.push(0, &frame(60));
    assert_eq!((nic.receive(), nic.statistics().receive_errors), (None, 1));
}

/// A host that refuses, or lies.
struct Odd {
    queues_refused: std::sync::atomic::AtomicBool,
    opens: bool,
    received: Option<usize>,
}

impl NetBackend for Odd {
    fn info(&self) -> NetInfo {
        NetInfo { queues: 2, mtu: None, native: Offloads::empty() }
    }
    fn set_receive_offloads(&self, _accepted: Offloads) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn set_queues(&self, _pairs: u16) -> io::Result<()> {
        match self.queues_refused.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(io::ErrorKind::Unsupported.into()),
            false => Ok(()),
        }
    }
    fn open_sender(&self, _queue: u16) -> io::Result<Box<dyn NetSender>> {
        Err(io::ErrorKind::OutOfMemory.into())
    }
    fn open_receiver(&self, _queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        match self.opens {
            true => Ok(Box::new(OddReceiver(self.received))),
            false => Err(io::ErrorKind::OutOfMemory.into()),
        }
    }
}

struct OddReceiver(Option<usize>);

impl NetReceiver for OddReceiver {
    fn receive(&mut self, _room: Room<'_>) -> Result<Option<Received>, NetError> {
        Ok(self.0.take().map(|len| Received { len, offload: Offload::default() }))
    }
    fn sources(&self) -> paraslot_device::Sources {
        paraslot_device::Sources::new()
    }
    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }
}

fn odd(opens: bool, received: Option<usize>, features: u64) -> (Arc<Odd>, VirtioNet) {
    let odd = Arc::new(Odd { queues_refused: false.into(), opens, received });
    let mut device = VirtioNet::new(odd.clone(), &options(2)).unwrap();
    let features = features & VirtioDevice::<Space>::features(&device);
    assert!(VirtioDevice::<Space>::accept_features(&mut device, features));
    (odd, device)
}

#[test]
fn a_backend_that_cannot_be_opened_is_reported() {
    let (_, mut device) = odd(false, None, ALL);
    for index in [0, 1] {
        let ring = DriverRing::new(space(), 0, 16);
        let error = device.start_queue(index, ring.queue(0).queue).err().unwrap();
        assert!(matches!(error, paraslot_device::DeviceError::Backend(_)));
        assert!(!device.control().0.state().is_running(index));
    }
}

// More bytes than there was room for, by the host's account.
#[test]
fn lengths_beyond_the_room_are_not_believed() {
    for len in [2037, 100_000, usize::MAX] {
        for features in [PLAIN, ALL] {
            let (_, mut device) = odd(true, Some(len), features);
            let mut ring = DriverRing::new(space(), 0, 16);
            let queue = ring.queue(features);
            let mut worker = device.start_queue(0, queue.queue).unwrap();
            ring.add(&[Buffer::writable(DATA, 2048)]);
            while worker.service() == Progress::More {}
            assert_eq!(ring.used(), None);
            let statistics = device.control().statistics();
            let aside = len == 2037 && features == ALL;
            assert_eq!(statistics.received_too_long, u64::from(!aside), "{len}");
            assert_eq!(queue.signals.resets(), 0);
        }
    }
}

// A steering that the backend cannot follow is refused, and the old one stays.
#[test]
fn a_backend_that_refuses_queues_is_heard() {
    let (odd, mut device) = odd(true, None, ALL);
    let space = space();
    let mut ring = DriverRing::new(space.clone(), RING * 4, 16);
    let mut worker = device.start_queue(4, ring.queue(ALL).queue).unwrap();
    let other = DriverRing::new(space, 0, 16);
    let _receive = device.start_queue(0, other.queue(ALL).queue).unwrap();
    let mut command = |pairs: u8| {
        ring.write(DATA, &[class::MQ, mq::VQ_PAIRS_SET, pairs, 0, 0xff]);
        ring.add(&[Buffer::readable(DATA, 4), Buffer::writable(DATA + 4, 1)]);
        while worker.service() == Progress::More {}
        ring.used().unwrap();
        ring.read(DATA + 4, 1)[0]
    };
    odd.queues_refused.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(command(2), ack::ERR);
    assert!(!device.control().0.state().receives(1));
    odd.queues_refused.store(false, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(command(2), ack::OK);
    assert!(device.control().0.state().receives(1));
}
