//! Queues with a pair of sockets in the interface's place: messages, but no kernel that would look at
//! them.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Progress};

use super::super::queue::{Queue, net_error};
use super::super::{TapBackend, sys};
use super::frames::{Ends, Guest, HALF, L4, cut, partial, pattern, rings};
use crate::net::{
    Cut, Frame, MAX_FRAME, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offload,
    Offloads, Room,
};

/// A port with one queue, and the other end of it.
fn port(native: Offloads) -> (TapBackend, UnixDatagram) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    ours.set_nonblocking(true).unwrap();
    (port_on(ours, native), theirs)
}

fn port_on(ours: impl Into<OwnedFd>, native: Offloads) -> TapBackend {
    let queue = Queue::new(Arc::new(ours.into()), native);
    TapBackend {
        name: "pair".into(),
        info: NetInfo { queues: 1, mtu: None, native },
        queues: vec![queue],
        attached: Mutex::new(vec![true]),
    }
}

fn halves() -> (Box<dyn NetSender>, Box<dyn NetReceiver>, UnixDatagram) {
    let (backend, peer) = port(Offloads::all());
    (backend.open_sender(0).unwrap(), backend.open_receiver(0).unwrap(), peer)
}

/// The next message, in header and frame.
fn taken(peer: &UnixDatagram) -> Option<([u8; 12], Vec<u8>)> {
    let mut message = vec![0; 100_000];
    match peer.recv(&mut message) {
        Ok(count) => Some((message[..12].try_into().unwrap(), message[12..count].to_vec())),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            None
        }
    }
}

fn give(peer: &UnixDatagram, frame: &[u8]) {
    peer.send(&[&[0; 12], frame].concat()).unwrap();
}

/// `count` pieces of `size` bytes each in the second half of memory, with gaps of one byte.
fn pieces(guest: &Guest, count: usize, size: usize) -> DmaBuffers {
    let list: Vec<_> = (0..count).map(|index| ((HALF + index * (size + 1)) as u64, size)).collect();
    guest.0.buffers(&list, Direction::FromDevice)
}

#[test]
fn a_frame_goes_out_as_one_message_behind_its_header() {
    let (mut sender, _, peer) = halves();
    let guest = Guest::new();
    let data = pattern(9000);
    for (head, size) in [(0, 9000), (14, 1), (66, 100), (1, 4096), (9000, 1)] {
        // Of pieces there may be no more than one system call takes.
        let len = data.len().min(head + 1000 * size);
        let body = guest.body(&data[head..len], size);
        let frame = Frame { head: &data[..head], body: &body, offload: partial(16) };
        sender.send(&frame).unwrap();
        let (header, bytes) = taken(&peer).unwrap();
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert!(bytes == data[..len], "{head} {size}");
    }
    assert!(taken(&peer).is_none());
    assert_eq!(sender.copied_bytes(), 0);
}

// More pieces than one system call takes (1024, of which the header and the head are two).
#[test]
fn only_a_frame_in_too_many_pieces_is_copied() {
    let (mut sender, mut receiver, peer) = halves();
    let guest = Guest::new();
    let data = pattern(2050);
    for (count, copied) in [(1022, 0), (1023, 2046), (1024, 2046 + 2048)] {
        let body = guest.body(&data[2..2 + 2 * count], 2);
        sender.send(&Frame { head: &data[..2], body: &body, offload: Offload::default() }).unwrap();
        assert!(taken(&peer).unwrap().1 == data[..2 + 2 * count]);
        assert_eq!(sender.copied_bytes(), copied);
    }
    for (count, copied) in [(1022, 0), (1023, 2046), (1025, 2046 + 2050)] {
        let room = pieces(&guest, count, 2);
        give(&peer, &data[..2 * count]);
        let received = receiver.receive(Room::Guest(&room)).unwrap().unwrap();
        assert_eq!(received.len, 2 * count);
        let mut seen = vec![0; 2 * count];
        room.copy_to(&mut seen);
        assert!(seen == data[..2 * count]);
        give(&peer, &pattern(2 * count + 1));
        assert!(matches!(receiver.receive(Room::Guest(&room)), Err(NetError::TooLong)));
        assert_eq!(receiver.copied_bytes(), copied);
    }
}

#[test]
fn a_frame_comes_in_where_the_buffers_are_and_nowhere_else() {
    let (_, mut receiver, peer) = halves();
    for count in [3, 1500] {
        let guest = Guest::new();
        let start = HALF as u64;
        guest.0.write(start, &[0xc5; 32 << 10]);
        let clean = Guest::new();
        let room = |guest: &Guest| pieces(guest, count, 20);
        let data = pattern(45);
        for guest in [&guest, &clean] {
            give(&peer, &data);
            let received = receiver.receive(Room::Guest(&room(guest))).unwrap().unwrap();
            assert_eq!((received.len, received.offload), (45, Offload::default()));
        }
        let seen = guest.0.read(start, 100);
        assert_eq!((&seen[..20], &seen[21..41], &seen[42..47]), {
            (&data[..20], &data[20..40], &data[40..])
        });
        assert_eq!((seen[20], seen[41]), (0xc5, 0xc5));
        assert!(guest.0.read(start + 63, 1500 * 21 - 63).iter().all(|byte| *byte == 0xc5));
        // Migration must see what was written, and pages that were not are not sent again.
        assert!(clean.0.is_dirty(start) && !clean.0.is_dirty(start + 4096));
    }
    let mut host = [0xc5; 60];
    give(&peer, &pattern(50));
    let received = receiver.receive(Room::Host(&mut host)).unwrap().unwrap();
    assert_eq!((received.len, &host[..50]), (50, &pattern(50)[..]));
    assert!(matches!(receiver.receive(Room::Host(&mut host)), Ok(None)));
}

// Truncated by the kernel without a word, if it were not for one byte more.
#[test]
fn a_frame_longer_than_the_room_costs_only_itself() {
    let (_, mut receiver, peer) = halves();
    let guest = Guest::new();
    for count in [1, 30, 1500] {
        let room = pieces(&guest, count, 60);
        let capacity = count * 60;
        let mut lengths = vec![60.min(capacity), capacity, capacity + 1, capacity + 100, capacity];
        if capacity > MAX_FRAME {
            lengths = vec![60, MAX_FRAME, MAX_FRAME + 1, MAX_FRAME + 100, MAX_FRAME];
        }
        for len in lengths {
            give(&peer, &pattern(len));
            let received = receiver.receive(Room::Guest(&room));
            if len > capacity.min(MAX_FRAME) {
                assert!(matches!(received, Err(NetError::TooLong)), "{len} of {capacity}");
            } else {
                assert_eq!(received.unwrap().unwrap().len, len);
            }
        }
        let mut host = vec![0; capacity];
        give(&peer, &pattern((capacity + 1).min(MAX_FRAME + 1)));
        assert!(matches!(receiver.receive(Room::Host(&mut host)), Err(NetError::TooLong)));
        assert!(matches!(receiver.receive(Room::Guest(&room)), Ok(None)));
    }
}

#[test]
fn what_is_no_frame_costs_only_itself() {
    let (mut sender, mut receiver, peer) = halves();
    let guest = Guest::new();
    peer.send(&[0; 11]).unwrap();
    peer.send(&[0; 12 + 13]).unwrap();
    // A checksum behind the end.
    peer.send(&[&[1, 0, 0, 0, 0, 0, 50, 0, 16, 0, 0, 0][..], &[0; 60]].concat()).unwrap();
    give(&peer, &pattern(14));
    for _ in 0..3 {
        assert!(matches!(guest.receive(&mut *receiver), Err(NetError::Invalid)));
    }
    assert_eq!(guest.receive(&mut *receiver).unwrap().unwrap().0, pattern(14));

    let bad = guest.send(&mut *sender, &pattern(60), partial(60));
    assert!(matches!(bad, Err(NetError::Invalid)));
    let longest = guest.body(&pattern(MAX_FRAME), 4096);
    let frame = |head| Frame { head, body: &longest, offload: Offload::default() };
    assert!(matches!(sender.send(&frame(&[0])), Err(NetError::TooLong)));
    sender.send(&frame(&[])).unwrap();
    assert!(taken(&peer).unwrap().1 == pattern(MAX_FRAME));
    assert!(taken(&peer).is_none());
}

#[test]
fn each_half_is_open_once_at_a_time() {
    let (backend, _peer) = port(Offloads::all());
    let (sender, receiver) = (backend.open_sender(0).unwrap(), backend.open_receiver(0).unwrap());
    let busy = |result: io::Error| assert_eq!(result.kind(), io::ErrorKind::ResourceBusy);
    busy(backend.open_sender(0).err().unwrap());
    busy(backend.open_receiver(0).err().unwrap());
    drop(sender);
    let sender = backend.open_sender(0).unwrap();
    busy(backend.open_receiver(0).err().unwrap());
    drop(receiver);
    backend.open_receiver(0).unwrap();
    drop(sender);
    for queue in [1, u16::MAX] {
        assert!(backend.open_sender(queue).is_err() && backend.open_receiver(queue).is_err());
    }
}

#[test]
fn a_full_queue_leaves_the_frame_and_rings_when_there_is_room() {
    let (mut sender, _, peer) = halves();
    let guest = Guest::new();
    let send = |sender: &mut dyn NetSender| guest.send(sender, &pattern(1000), Offload::default());
    for round in 0..3 {
        let mut sent = 0;
        let error = loop {
            match send(&mut *sender) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, NetError::Busy), "{error}");
        assert!(!rings(sender.sources(), 0));
        assert_eq!(sender.prepare_to_wait(), Progress::Idle);
        assert_eq!(sender.prepare_to_wait(), Progress::Idle);
        assert!(!rings(sender.sources(), 0));
        while taken(&peer).is_some() {
            sent -= 1;
        }
        assert_eq!(sent, 0);
        assert!(rings(sender.sources(), 60_000));
        // Taken back in one way or the other: there is room all the while.
        if round == 0 {
            sender.stop_waiting();
        } else {
            send(&mut *sender).unwrap();
            assert!(taken(&peer).is_some());
        }
        assert!(!rings(sender.sources(), 0));
        assert_eq!(sender.prepare_to_wait(), Progress::More);
        assert!(!rings(sender.sources(), 0));
    }
}

#[test]
fn a_receiver_rings_only_when_asked_to() {
    let (_, mut receiver, peer) = halves();
    let guest = Guest::new();
    for round in 0..3 {
        assert!(guest.receive(&mut *receiver).unwrap().is_none());
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
        // Looking once more does not take it back.
        assert!(guest.receive(&mut *receiver).unwrap().is_none());
        assert!(!rings(receiver.sources(), 0));
        give(&peer, &pattern(60));
        give(&peer, &pattern(61));
        assert!(rings(receiver.sources(), 60_000));
        if round == 0 {
            // As a guest does that has no buffers any more.
            receiver.stop_waiting();
            assert!(!rings(receiver.sources(), 0));
        }
        assert_eq!(guest.receive(&mut *receiver).unwrap().unwrap().0.len(), 60);
        assert!(!rings(receiver.sources(), 0));
        assert_eq!(receiver.prepare_to_wait(), Progress::More);
        assert!(!rings(receiver.sources(), 0));
        assert_eq!(guest.receive(&mut *receiver).unwrap().unwrap().0.len(), 61);
    }
}

// What comes to an end stays readable for ever.
#[test]
fn the_end_is_told_once_and_waited_for_in_peace() {
    let (ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let backend = port_on(ours, Offloads::all());
    let (mut sender, mut receiver) =
        (backend.open_sender(0).unwrap(), backend.open_receiver(0).unwrap());
    let guest = Guest::new();
    assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
    peer.shutdown(Shutdown::Both).unwrap();
    assert!(rings(receiver.sources(), 60_000));
    assert!(matches!(guest.receive(&mut *receiver), Err(NetError::Down)));
    for _ in 0..3 {
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
        assert!(!rings(receiver.sources(), 0));
        assert!(guest.receive(&mut *receiver).unwrap().is_none());
    }
    // Never armed.
    let error = guest.send(&mut *sender, &pattern(60), Offload::default()).unwrap_err();
    assert!(matches!(error, NetError::Io(_)), "{error}");
    assert!(!rings(sender.sources(), 0));
}

#[test]
fn errors_are_told_apart() {
    let name = |code| match net_error(io::Error::from_raw_os_error(code)) {
        NetError::Busy => "busy",
        NetError::Down => "down",
        NetError::NoBuffers => "no buffers",
        NetError::TooLong => "too long",
        NetError::Invalid => "invalid",
        NetError::Io(_) => "other",
    };
    for (codes, expected) in [
        (&[libc::EAGAIN][..], "busy"),
        (&[libc::ENOBUFS, libc::ENOMEM], "no buffers"),
        (&[libc::EIO, libc::ENETDOWN, libc::EBADFD, libc::ENODEV, libc::ENXIO], "down"),
        (&[libc::EMSGSIZE], "too long"),
        (&[libc::EINVAL], "invalid"),
        (&[libc::EFAULT, libc::EPIPE, libc::EBADF], "other"),
    ] {
        for &code in codes {
            assert_eq!(name(code), expected, "{code}");
        }
    }
}

// Linux before 6.2 knows no USO.
#[test]
fn what_the_kernel_cannot_cut_is_cut_before() {
    let (backend, peer) = port(Offloads::all() - Offloads::USO4 - Offloads::USO6);
    let mut sender = backend.open_sender(0).unwrap();
    let guest = Guest::new();
    let ends = Ends::outward([2; 6]);
    let payload = pattern(3500);
    let whole = ends.udp(&payload, true);
    guest.send(&mut *sender, &whole, cut(Cut::UdpDatagrams, 1000, 6, 42)).unwrap();
    let mut seen = Vec::new();
    while let Some((header, frame)) = taken(&peer) {
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]);
        let expected = ends.udp(&frame[42..], true);
        assert_eq!(frame[usize::from(L4)..], expected[usize::from(L4)..]);
        seen.push(frame[42..].to_vec());
    }
    assert_eq!(seen.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 1000, 500]);
    assert_eq!(seen.concat(), payload);
    assert_eq!(sender.copied_bytes(), whole.len() as u64 - 7);
    // Nonsense is found out here, too.
    let odd = guest.send(&mut *sender, &whole, cut(Cut::UdpDatagrams, 1000, 7, 42));
    assert!(matches!(odd, Err(NetError::Invalid)));
    // What it can, it does.
    guest.send(&mut *sender, &whole, cut(Cut::UdpFragments, 1000, 6, 42)).unwrap();
    assert_eq!(taken(&peer).unwrap().1, whole);
    // A frame of which half was sent is not to be sent again.
    let mut halves = 0;
    for before in 0..4 {
        for _ in 0..before {
            guest.send(&mut *sender, &ends.udp(b"one", false), Offload::default()).unwrap();
        }
        let full = loop {
            match guest.send(&mut *sender, &whole, cut(Cut::UdpDatagrams, 1000, 6, 42)) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        let half = (std::iter::from_fn(|| taken(&peer)).count() - before) % 4 != 0;
        assert!(matches!((half, &full), (false, NetError::Busy) | (true, NetError::NoBuffers)));
        halves += usize::from(half);
    }
    assert!((1..4).contains(&halves), "{halves}");
}

#[test]
fn passed_descriptors_must_be_open() {
    assert!(sys::duplicate(-1).is_err());
    let error = super::super::TapOptions::inherited(&[9999]).unwrap_err().to_string();
    assert!(error.contains("descriptor 9999 is not open; have the program"), "{error}");
}
