//! A real interface, in a network namespace: traffic with the host's kernel, and what may become of
//! the interface meanwhile.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use paraslot_device::Progress;
use paraslot_spec::virtio_net::Header;

use super::super::queue::Queue;
use super::super::{TapBackend, TapOptions};
use super::frames::{Ends, GUEST, GUEST_MAC, Guest, HOST, PORT, pattern, rings};
use crate::net::testing::namespace::{Interface, Namespace, in_namespace};
use crate::net::{NetBackend, NetError, NetReceiver, NetSender, Offload, Offloads, Room};

pub(super) struct Port {
    pub(super) backend: TapBackend,
    pub(super) host: Interface,
    pub(super) guest: Guest,
    pub(super) sender: Box<dyn NetSender>,
    pub(super) receiver: Box<dyn NetReceiver>,
}

impl Port {
    /// A new interface, up, whose kernel knows the guest.
    pub(super) fn new(namespace: &Namespace, queues: u16) -> Self {
        let options = TapOptions { queues, ..TapOptions::default() };
        let backend = TapBackend::open(&options).unwrap();
        let host = namespace.set_up(backend.name(), HOST);
        host.set_neighbour(GUEST, GUEST_MAC);
        let sender = backend.open_sender(0).unwrap();
        let receiver = backend.open_receiver(0).unwrap();
        Self { backend, host, guest: Guest::new(), sender, receiver }
    }

    /// The same on a kernel that cannot do some things.
    pub(super) fn without(mut self, offloads: Offloads) -> Self {
        let native = self.backend.info.native - offloads;
        let Self { backend, sender, receiver, .. } = &mut self;
        let fd = backend.queues[0].fd().try_clone_to_owned().unwrap();
        backend.info.native = native;
        backend.queues[0] = Queue::new(Arc::new(fd), native);
        *sender = backend.open_sender(0).unwrap();
        *receiver = backend.open_receiver(0).unwrap();
        self
    }

    pub(super) fn outward(&self) -> Ends {
        Ends::outward(self.host.hardware_address())
    }

    pub(super) fn inward(&self) -> Ends {
        Ends::inward(self.host.hardware_address())
    }

    pub(super) fn send(&mut self, frame: &[u8], offload: Offload) -> Result<(), NetError> {
        self.guest.send(&mut *self.sender, frame, offload)
    }

    pub(super) fn receive(&mut self) -> Result<Option<(Vec<u8>, Offload)>, NetError> {
        self.guest.receive(&mut *self.receiver)
    }

    pub(super) fn next(&mut self) -> (Vec<u8>, Offload) {
        self.guest.next(&mut *self.receiver)
    }
}

pub(super) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((HOST, PORT)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
}

/// The next datagram.
pub(super) fn datagram(socket: &UdpSocket) -> Vec<u8> {
    let mut data = vec![0; 70_000];
    let (count, from) = socket.recv_from(&mut data).unwrap();
    assert_eq!(from, (GUEST, PORT).into());
    data.truncate(count);
    data
}

fn arp_request(target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6], GUEST_MAC].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(GUEST_MAC);
    frame.extend(GUEST.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

#[test]
fn the_kernel_answers_an_arp_request() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        port.send(&arp_request(HOST), Offload::default()).unwrap();
        let (answer, offload) = port.next();
        let host = port.host.hardware_address();
        assert_eq!(offload, Offload::default());
        assert_eq!(answer[..14], [&GUEST_MAC[..], &host, &[8, 6]].concat());
        assert_eq!(answer[20..22], [0, 2]);
        assert_eq!(answer[22..32], [&host[..], &HOST.octets()].concat());
        assert!(port.receive().unwrap().is_none());
    });
}

#[test]
fn datagrams_go_both_ways() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let socket = socket();
        for len in [0, 1, 2, 17, 18, 500, 1471, 1472] {
            let data = pattern(len);
            port.send(&port.outward().udp(&data, false), Offload::default()).unwrap();
            assert_eq!(datagram(&socket), data);
            socket.send_to(&data, (GUEST, PORT)).unwrap();
            let (frame, offload) = port.next();
            assert_eq!(offload, Offload::default());
            assert_eq!(frame[42..], data);
            assert!(port.inward().is_right(&frame));
        }
        assert_eq!(port.sender.copied_bytes() + port.receiver.copied_bytes(), 0);
    });
}

#[test]
fn a_frame_longer_than_the_room_is_told_of_and_the_next_comes() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let socket = socket();
        for len in [100, 18, 19, 18] {
            socket.send_to(&pattern(len), (GUEST, PORT)).unwrap();
        }
        let mut lengths = Vec::new();
        for _ in 0..4 {
            let mut room = [0; 60];
            match port.receiver.receive(Room::Host(&mut room)) {
                Ok(received) => {
                    lengths.push(received.unwrap().len);
                    assert_eq!(room[42..], pattern(18));
                }
                Err(NetError::TooLong) => lengths.push(0),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(lengths, [0, 60, 0, 60]);
        assert!(port.receive().unwrap().is_none());
    });
}

#[test]
fn frames_that_are_too_short_are_invalid() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        for len in [0, 1, 7, 13] {
            let error = port.send(&pattern(len), Offload::default()).unwrap_err();
            assert!(matches!(error, NetError::Invalid), "{error}");
        }
        port.send(&arp_request(HOST), Offload::default()).unwrap();
        port.next();
    });
}

#[test]
fn while_it_is_down_frames_are_lost_and_then_no_more() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        let socket = socket();
        for _ in 0..3 {
            port.host.down();
            let frame = port.outward().udp(b"down", false);
            for _ in 0..2 {
                assert!(matches!(port.send(&frame, Offload::default()), Err(NetError::Down)));
                assert!(port.receive().unwrap().is_none());
                // Whoever wants to send tries, and whoever waits for a frame sleeps.
                assert_eq!(port.receiver.prepare_to_wait(), Progress::Idle);
                assert!(!rings(port.receiver.sources(), 0));
            }
            port.host.up();
            port.host.set_neighbour(GUEST, GUEST_MAC);
            // It is still armed.
            socket.send_to(b"in", (GUEST, PORT)).unwrap();
            assert!(rings(port.receiver.sources(), 60_000));
            assert_eq!(port.next().0[42..44], *b"in");
            port.send(&port.outward().udp(b"out", false), Offload::default()).unwrap();
            assert_eq!(datagram(&socket), b"out");
        }
    });
}

// A removed interface is in error for good, which a level-triggered watcher would never get over.
#[test]
fn one_that_is_removed_is_down_once_and_then_silent() {
    in_namespace(|namespace| {
        for asleep in [false, true] {
            for queues in [1, 3] {
                let mut port = Port::new(namespace, queues);
                let frame = port.outward().udp(b"frame", false);
                if asleep {
                    assert_eq!(port.receiver.prepare_to_wait(), Progress::Idle);
                }
                port.host.remove();
                assert_eq!(rings(port.receiver.sources(), if asleep { 60_000 } else { 0 }), asleep);
                if !asleep {
                    assert_eq!(port.receiver.prepare_to_wait(), Progress::More);
                }
                assert!(matches!(port.receive(), Err(NetError::Down)));
                for _ in 0..3 {
                    assert_eq!(port.receiver.prepare_to_wait(), Progress::Idle);
                    assert!(!rings(port.receiver.sources(), 0));
                    assert!(port.receive().unwrap().is_none());
                    // Nor is anyone to wait for room.
                    let error = port.send(&frame, Offload::default()).unwrap_err();
                    assert!(matches!(error, NetError::Down), "{error}");
                    assert_eq!(port.sender.prepare_to_wait(), Progress::More);
                    assert!(!rings(port.sender.sources(), 0));
                }
                assert!(port.backend.set_queues(queues + 1).is_err() == (queues > 1));
                // The halves are opened again without harm, and find the same.
                let Port { backend, receiver, sender, guest, .. } = port;
                drop((receiver, sender));
                let mut receiver = backend.open_receiver(0).unwrap();
                assert!(matches!(guest.receive(&mut *receiver), Err(NetError::Down)));
            }
        }
    });
}

#[test]
fn only_the_queues_in_use_get_frames() {
    in_namespace(|namespace| {
        let port = Port::new(namespace, 4);
        let Port { backend, host, guest, sender, receiver } = port;
        assert_eq!(backend.info().queues, 4);
        drop((sender, receiver));
        let mut senders: Vec<_> = (0..4).map(|queue| backend.open_sender(queue).unwrap()).collect();
        let mut receivers: Vec<_> =
            (0..4).map(|queue| backend.open_receiver(queue).unwrap()).collect();
        assert!(backend.open_receiver(4).is_err());
        let sockets: Vec<_> = (0..64).map(|_| UdpSocket::bind((HOST, 0)).unwrap()).collect();
        for (pairs, used) in [(1, 1), (4, 4), (2, 2), (3, 3), (9, 4), (1, 1), (0, 1)] {
            backend.set_queues(pairs).unwrap();
            for (index, socket) in sockets.iter().enumerate() {
                socket.send_to(&[0; 8], (GUEST, u16::try_from(index).unwrap() + 1000)).unwrap();
            }
            let counts: Vec<_> = receivers
                .iter_mut()
                .map(|receiver| {
                    std::iter::from_fn(|| guest.receive(&mut **receiver).unwrap()).count()
                })
                .collect();
            assert_eq!(counts.iter().sum::<usize>(), 64, "{counts:?}");
            for (index, count) in counts.iter().enumerate() {
                // Of 64 flows each of up to four gets some, but for one chance in a million.
                assert_eq!(*count != 0, index < used, "{pairs}: {counts:?}");
            }
            for receiver in &mut receivers {
                assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
                assert!(!rings(receiver.sources(), 0));
            }
        }
        backend.set_queues(4).unwrap();
        let socket = socket();
        let ends = Ends::outward(host.hardware_address());
        for (index, sender) in senders.iter_mut().enumerate() {
            let data = pattern(100 + index);
            guest.send(&mut **sender, &ends.udp(&data, false), Offload::default()).unwrap();
            assert_eq!(datagram(&socket), data);
        }
    });
}

// All queues' workers at once, each on a thread of its own.
#[test]
fn queues_work_side_by_side() {
    const EACH: u16 = 500;
    in_namespace(|namespace| {
        let port = Port::new(namespace, 2);
        let Port { backend, host, sender, receiver, .. } = port;
        drop((sender, receiver));
        backend.set_queues(2).unwrap();
        let mac = host.hardware_address();
        std::thread::scope(|scope| {
            for queue in 0..2 {
                let socket = UdpSocket::bind((HOST, PORT + queue)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                let mut sender = backend.open_sender(queue).unwrap();
                scope.spawn(move || {
                    let guest = Guest::new();
                    let ends = Ends { ports: (PORT, PORT + queue), ..Ends::outward(mac) };
                    for index in 0..EACH {
                        let data = pattern(usize::from(index % 1400));
                        let frame = ends.udp(&data, false);
                        guest.send(&mut *sender, &frame, Offload::default()).unwrap();
                        assert_eq!(datagram(&socket), data);
                    }
                });
            }
            let (told, all) = std::sync::mpsc::channel();
            for queue in 0..2 {
                let mut receiver = backend.open_receiver(queue).unwrap();
                let told = told.clone();
                scope.spawn(move || {
                    let guest = Guest::new();
                    loop {
                        let (frame, _) = guest.next(&mut *receiver);
                        if frame[42..] == *b"end" {
                            return;
                        }
                        told.send(u16::from_be_bytes([frame[42], frame[43]])).unwrap();
                    }
                });
            }
            let sockets: Vec<_> = (0..16).map(|_| UdpSocket::bind((HOST, 0)).unwrap()).collect();
            for index in 0..EACH {
                let socket = &sockets[usize::from(index) % 16];
                socket.send_to(&index.to_be_bytes(), (GUEST, PORT)).unwrap();
                assert_eq!(all.recv().unwrap(), index);
            }
            // Until each has heard of it: which flow goes to which queue is the kernel's business.
            drop(told);
            while all.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
                for socket in &sockets {
                    socket.send_to(b"end", (GUEST, PORT)).unwrap();
                }
                std::thread::yield_now();
            }
        });
    });
}

/// A frame that leaves the interface though its kernel does not know what it is.
#[test]
fn frames_of_any_length_arrive_whole() {
    in_namespace(|namespace| {
        let mut port = Port::new(namespace, 1);
        port.host.set_mtu(65521);
        let packets = port.host.packets();
        for len in [14, 15, 59, 60, 1514, 4096, 9000, 65535] {
            let mut frame = [GUEST_MAC, [2, 0, 0, 0, 0, 9]].concat();
            frame.extend([0x88, 0xb5]);
            frame.extend(pattern(len - 14));
            packets.send(&Header::default(), &frame).unwrap();
            assert!(port.next().0 == frame, "{len} to the guest");
            while packets.receive().is_some() {}
            frame[..12].rotate_left(6);
            port.send(&frame, Offload::default()).unwrap();
            let seen = std::iter::from_fn(|| packets.receive()).last().unwrap();
            assert!(seen.1 == frame, "{len} to the host");
        }
    });
}
