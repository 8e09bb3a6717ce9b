//! The parts of the trial.

use super::*;

/// A room in guest memory, with a look at what was written.
struct GuestRoom {
    guest: GuestPages,
    segments: Vec<(u64, usize)>,
}

const CANARY: u8 = 0xc5;
/// Two regions that meet inside the longer rooms.
const MEMORY: usize = 1 << 14;

impl GuestRoom {
    /// Pieces of the given sizes, in turn, up to `len` bytes, with a gap after each.
    fn new(len: usize, sizes: &[usize]) -> Self {
        let guest = GuestPages::new(MEMORY);
        guest.write(0, &vec![CANARY; MEMORY]);
        let (mut segments, mut left, mut address) = (Vec::new(), len, 5);
        for &size in sizes.iter().cycle() {
            let size = size.min(left);
            segments.push((address, size));
            address += size as u64 + 3;
            left -= size;
            if left == 0 {
                break;
            }
        }
        Self { guest, segments }
    }

    fn buffers(&self, direction: Direction) -> DmaBuffers {
        self.guest.buffers(&self.segments, direction)
    }

    fn fill(&self, bytes: &[u8]) {
        let mut rest = bytes;
        for &(address, len) in &self.segments {
            let (part, behind) = rest.split_at(len.min(rest.len()));
            self.guest.write(address, part);
            rest = behind;
        }
    }

    /// What is in the room. Nothing must be written outside it.
    fn bytes(&self) -> Vec<u8> {
        let mut memory = self.guest.read(0, MEMORY);
        let mut bytes = Vec::new();
        for &(address, len) in &self.segments {
            let start = usize::try_from(address).expect("small");
            bytes.extend_from_slice(&memory[start..start + len]);
            memory[start..start + len].fill(CANARY);
        }
        assert!(memory.iter().all(|byte| *byte == CANARY), "written outside the room");
        bytes
    }
}

fn send(sender: &mut dyn NetSender, bytes: &[u8], offload: Offload) -> Result<(), NetError> {
    let body = DmaBuffers::empty(Direction::ToDevice);
    let result = sender.send(&Frame { head: bytes, body: &body, offload });
    sender.commit();
    result
}

/// The next frame: it may take its time.
fn receive(receiver: &mut dyn NetReceiver) -> (Vec<u8>, Offload) {
    let mut room = vec![0; crate::net::MAX_FRAME];
    let Received { len, offload } = receive_into(receiver, || Room::Host(&mut room));
    room.truncate(len);
    (room, offload)
}

fn receive_into<'a>(receiver: &mut dyn NetReceiver, room: impl FnOnce() -> Room<'a>) -> Received {
    await_frame(receiver);
    receiver.receive(room()).expect("a frame").expect("there is one")
}

fn await_frame(receiver: &mut dyn NetReceiver) {
    let bell = Bell::new(receiver.sources());
    while receiver.prepare_to_wait() == Progress::Idle {
        bell.wait();
    }
}

pub(super) fn opening(near: &dyn NetBackend) {
    let queues = near.info().queues;
    assert!(queues >= 1);
    assert!(near.open_sender(queues).is_err() && near.open_receiver(queues).is_err());
    for _ in 0..2 {
        let sender = near.open_sender(0).expect("a sender");
        let receiver = near.open_receiver(0).expect("a receiver");
        assert!(near.open_sender(0).is_err(), "one sender at a time");
        assert!(near.open_receiver(0).is_err(), "one receiver at a time");
        drop((sender, receiver));
    }
    near.set_queues(u16::MAX).expect("more than there are is all");
    near.set_queues(1).expect("one pair");
}

// However a frame is spread over host and guest memory, it is the same frame.
pub(super) fn splits(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    far.attach(Way::Out);
    let mut sender = near.open_sender(0).expect("a sender");
    let frame = Packet::udp4(&payload(1, 33)).finished();
    let long = Packet::tcp6(&payload(2, 1400)).finished();
    let cases = (0..=frame.len()).map(|split| (&frame, split, vec![7]));
    let more = [1, 2, 54, 1000].map(|split| (&long, split, vec![1, 510, 3]));
    let mut copied = sender.copied_bytes();
    for (frame, split, sizes) in cases.chain(more) {
        let (head, body) = frame.split_at(split);
        let room = GuestRoom::new(body.len(), &sizes);
        room.fill(body);
        let body = room.buffers(Direction::ToDevice);
        let offload = Offload::default();
        sender.send(&Frame { head, body: &body, offload }).expect("a frame sent");
        sender.commit();
        let (bytes, _) = far.pull().expect("it arrives");
        assert!(bytes == *frame, "another frame arrived, split at {split}");
        assert!(far.pull().is_none(), "it arrives once");
        let more = sender.copied_bytes() - copied;
        assert!(more == 0 || more == body.len() as u64, "{more} bytes copied");
        copied += more;
    }
}

// A frame is the same in any room, is written nowhere else, and is noted for migration.
pub(super) fn rooms(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    far.attach(Way::In);
    let mut receiver = near.open_receiver(0).expect("a receiver");
    let mut copied = receiver.copied_bytes();
    for len in [1, 19, 400, 1400] {
        let frame = Packet::tcp4(&payload(3, len)).finished();
        far.push(&frame, Offload::default());
        assert!(receive(&mut *receiver).0 == frame, "in host memory");
        assert_eq!(receiver.copied_bytes(), copied, "host memory does not count");
        for sizes in [vec![MEMORY], vec![13], vec![1, 64, 3], vec![4096]] {
            for room in [frame.len(), frame.len() + 1, 9000] {
                let room = GuestRoom::new(room, &sizes);
                far.push(&frame, Offload::default());
                let buffers = room.buffers(Direction::FromDevice);
                let dirty = GuestPages::is_dirty;
                let received = receive_into(&mut *receiver, || Room::Guest(&buffers));
                assert_eq!(received.len, frame.len());
                assert!(room.bytes()[..frame.len()] == frame, "in guest memory, by {sizes:?}");
                assert!(dirty(&room.guest, 5));
                let more = receiver.copied_bytes() - copied;
                assert!(more == 0 || more == frame.len() as u64, "{more} bytes copied");
                copied += more;
            }
        }
    }
    dirty_pages(&mut *receiver, far);
}

fn dirty_pages(receiver: &mut dyn NetReceiver, far: &mut dyn FarEnd) {
    let frame = Packet::udp4(&payload(4, 1000)).finished();
    let guest = GuestPages::new(1 << 16);
    let segments = [(0x1ff0, 16), (0x4000, 0x800), (0x8000, 0x800)];
    let buffers = guest.buffers(&segments, Direction::FromDevice);
    far.push(&frame, Offload::default());
    receive_into(receiver, || Room::Guest(&buffers));
    let dirty = [0x1000, 0x2000, 0x4000, 0x6000].map(|page| guest.is_dirty(page));
    assert_eq!(dirty, [true, false, true, false]);
}

// A frame longer than the room is lost, and no other.
pub(super) fn too_long(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    far.attach(Way::In);
    let mut receiver = near.open_receiver(0).expect("a receiver");
    for guest in [false, true] {
        let frames = [1, 300, 2].map(|len| Packet::udp4(&payload(5, len)).finished());
        for frame in &frames {
            far.push(frame, Offload::default());
        }
        assert!(receive(&mut *receiver).0 == frames[0]);
        let len = frames[1].len() - 1;
        let (mut host, room) = (vec![0; len], GuestRoom::new(len, &[100]));
        let buffers = room.buffers(Direction::FromDevice);
        await_frame(&mut *receiver);
        let room = if guest { Room::Guest(&buffers) } else { Room::Host(&mut host) };
        let refused = receiver.receive(room);
        assert!(matches!(refused, Err(NetError::TooLong)), "{refused:?}");
        assert!(receive(&mut *receiver).0 == frames[2], "the next frame is lost too");
    }
}

/// Frames with work left to be done: what they are when it is done, and how often they are cut.
fn unfinished() -> Vec<(Packet, Offload)> {
    let mut cases = Vec::new();
    for (index, make) in
        [Packet::tcp4, Packet::tcp6, Packet::udp4, Packet::udp6].into_iter().enumerate()
    {
        let seed = u8::try_from(index).expect("few");
        let (one, many) = (make(&payload(seed, 333)), make(&payload(seed, 5001)));
        let (checksum, cut) = (one.checksum_offload(), many.cut_offload(1000));
        cases.extend([(one, checksum), (many, cut)]);
    }
    cases
}

/// The payload of a frame, and what is in front of it.
fn payload_of(frame: &[u8]) -> &[u8] {
    &frame[Headers::parse(frame).header_len().expect("a packet")..]
}

pub(super) fn sent_offloads(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    for wanted in [Offloads::empty(), Offloads::CHECKSUM, Offloads::all()] {
        let accepted = far.accept(wanted);
        far.attach(Way::Out);
        let mut sender = near.open_sender(0).expect("a sender");
        for (packet, offload) in unfinished() {
            send(&mut *sender, &packet.unfinished(), offload).expect("any offload is taken");
            let mut seen = Vec::new();
            while seen.len() < packet.payload.len() {
                let (frame, left) = far.pull().expect("all of it arrives");
                check_finished(&frame, &left, accepted);
                if accepted == Offloads::all() {
                    assert_eq!((frame, left), (packet.unfinished(), offload), "as it was sent");
                    seen = packet.payload.clone();
                } else {
                    assert!(left.segmentation.is_none() && payload_of(&frame).len() <= 1000);
                    seen.extend_from_slice(payload_of(&frame));
                }
            }
            assert!(seen == packet.payload, "another payload arrived");
            assert!(far.pull().is_none());
        }
    }
    far.accept(Offloads::empty());
}

pub(super) fn received_offloads(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    for accepted in [Offloads::empty(), Offloads::CHECKSUM, Offloads::all()] {
        if near.set_receive_offloads(accepted).is_err() {
            continue;
        }
        far.attach(Way::In);
        let mut receiver = near.open_receiver(0).expect("a receiver");
        for (packet, offload) in unfinished() {
            far.push(&packet.unfinished(), offload);
            let mut seen = Vec::new();
            while seen.len() < packet.payload.len() {
                let (frame, left) = receive(&mut *receiver);
                check_finished(&frame, &left, accepted);
                seen.extend_from_slice(payload_of(&frame));
            }
            assert!(seen == packet.payload, "another payload arrived");
        }
    }
    near.set_receive_offloads(Offloads::empty()).expect("nothing left to be done");
}

// What does not fit is refused, and costs only itself.
pub(super) fn invalid(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    far.attach(Way::Out);
    let mut sender = near.open_sender(0).expect("a sender");
    let packet = Packet::tcp4(&payload(6, 3000));
    let (frame, good) = (packet.unfinished(), packet.cut_offload(1000));
    let with = |start, offset| Offload {
        checksum: Some(PartialChecksum { start, offset }),
        ..Offload::default()
    };
    let mut no_size = good;
    no_size.segmentation.as_mut().expect("to be cut").size = 0;
    let refused = [
        (&frame[..13], Offload::default()),
        (&frame[..0], Offload::default()),
        (&frame[..60], with(34, 25)),
        (&frame[..60], with(60, 0)),
        (&frame[..60], with(u16::MAX, u16::MAX)),
        (&frame[..], no_size),
        (&frame[..], Offload { checksum: None, ..good }),
    ];
    for (bytes, offload) in refused {
        let result = send(&mut *sender, bytes, offload);
        assert!(matches!(result, Err(NetError::Invalid)), "{offload:?}: {result:?}");
    }
    let long = vec![0; crate::net::MAX_FRAME + 1];
    let result = send(&mut *sender, &long, Offload::default());
    assert!(matches!(result, Err(NetError::TooLong | NetError::Invalid)), "{result:?}");
    let last = Packet::udp4(b"last").finished();
    send(&mut *sender, &last, Offload::default()).expect("a good frame");
    assert!(far.pull().expect("it arrives").0 == last, "something refused was sent");
}

// Sources ring once, and only when asked to.
pub(super) fn waiting(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    far.attach(Way::In);
    let mut receiver = near.open_receiver(0).expect("a receiver");
    let frame = Packet::udp6(&payload(7, 100)).finished();
    for _ in 0..3 {
        let bell = Bell::new(receiver.sources());
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle, "there is nothing");
        assert!(!bell.rings(0), "nothing has come");
        far.push(&frame, Offload::default());
        bell.wait();
        assert!(receive(&mut *receiver).0 == frame);
        receiver.stop_waiting();
        let bell = Bell::new(receiver.sources());
        far.push(&frame, Offload::default());
        assert!(!bell.rings(5), "rung, and nobody waits");
        // There is something already, soon at least.
        assert!(receive(&mut *receiver).0 == frame);
        let none = receiver.receive(Room::Host(&mut [0; 2000])).expect("no error");
        assert!(none.is_none());
        assert_eq!(receiver.prepare_to_wait(), Progress::Idle);
        receiver.stop_waiting();
    }
}

// A frame for which there is no room stays with the sender, who is woken.
pub(super) fn busy(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    far.attach(Way::Out);
    let mut sender = near.open_sender(0).expect("a sender");
    let bell = Bell::new(sender.sources());
    let frame = |number: u32| Packet::udp4(&number.to_be_bytes()).finished();
    let (mut sent, mut pulled, mut woken) = (0u32, 0u32, 0);
    while woken < 3 {
        match send(&mut *sender, &frame(sent), Offload::default()) {
            Ok(()) => sent += 1,
            Err(NetError::Busy) => {
                assert!(sent < 1 << 20, "no limit");
                if sender.prepare_to_wait() == Progress::More {
                    continue;
                }
                while !bell.rings(0) {
                    let (bytes, _) = far.pull().expect("a frame for each");
                    assert!(bytes == frame(pulled), "out of order, lost or twice");
                    pulled += 1;
                }
                woken += 1;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 1 << 20, "it never fills up");
    }
    while let Some((bytes, _)) = far.pull() {
        assert!(bytes == frame(pulled), "out of order, lost or twice");
        pulled += 1;
    }
    assert_eq!(sent, pulled);
}
