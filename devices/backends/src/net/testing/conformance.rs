//! What every network backend must do.

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Progress, Source, Sources};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::packet::Packet;
use crate::block::testing::GuestPages;
use crate::net::checksum::{verify_ipv4, verify_transport};
use crate::net::parse::Headers;
use crate::net::{
    Frame, NetBackend, NetError, NetReceiver, NetSender, Offload, Offloads, PartialChecksum,
    Received, Room,
};

mod parts;

/// Which way frames go, as the backend under trial sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It sends.
    Out,
    /// It receives.
    In,
}

/// The far end of the first queue of a backend under trial.
pub trait FarEnd {
    /// Frames go this way from now on. What is under way is forgotten.
    fn attach(&mut self, way: Way);

    /// Has a frame arrive at the backend.
    fn push(&mut self, frame: &[u8], offload: Offload);

    /// The next frame that the backend has sent; `None` if there is none and none is to come.
    fn pull(&mut self) -> Option<(Vec<u8>, Offload)>;

    /// Has `wanted`, and nothing else, left to be done to what is pulled from now on. Returns what may
    /// be: an end that has no say in it returns the same each time.
    fn accept(&mut self, wanted: Offloads) -> Offloads;

    /// Whether the backend ever says that it is busy when nobody pulls.
    fn fills_up(&self) -> bool;
}

/// The other end of a wire; or, of one that is joined to itself, the same.
pub struct PortEnd<'a> {
    port: &'a dyn NetBackend,
    sender: Option<Box<dyn NetSender>>,
    receiver: Option<Box<dyn NetReceiver>>,
    fills_up: bool,
}

impl<'a> PortEnd<'a> {
    /// `port` as a far end.
    pub fn new(port: &'a dyn NetBackend, fills_up: bool) -> Self {
        Self { port, sender: None, receiver: None, fills_up }
    }
}

impl FarEnd for PortEnd<'_> {
    fn attach(&mut self, way: Way) {
        (self.sender, self.receiver) = (None, None);
        match way {
            Way::Out => self.receiver = Some(self.port.open_receiver(0).expect("a receiver")),
            Way::In => self.sender = Some(self.port.open_sender(0).expect("a sender")),
        }
    }

    fn push(&mut self, head: &[u8], offload: Offload) {
        let sender = self.sender.as_mut().expect("attached");
        let body = &DmaBuffers::empty(Direction::ToDevice);
        sender.send(&Frame { head, body, offload }).expect("a frame sent");
        sender.commit();
    }

    fn pull(&mut self) -> Option<(Vec<u8>, Offload)> {
        let mut room = vec![0; crate::net::MAX_FRAME];
        let receiver = self.receiver.as_mut().expect("attached");
        let received = receiver.receive(Room::Host(&mut room)).expect("a frame or none")?;
        room.truncate(received.len);
        Some((room, received.offload))
    }

    fn accept(&mut self, wanted: Offloads) -> Offloads {
        self.port.set_receive_offloads(wanted).expect("a port takes them all");
        wanted
    }

    fn fills_up(&self) -> bool {
        self.fills_up
    }
}

/// A source, to be waited for.
pub(crate) struct Bell(Epoll);

impl Bell {
    pub(crate) fn new(sources: Sources) -> Self {
        let epoll = Epoll::new().expect("epoll");
        for Source::Event(fd) | Source::Readable(fd) in sources {
            // Edge-triggered, so that nobody need read it.
            let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
            epoll.ctl(ControlOperation::Add, fd, event).expect("a descriptor to wait for");
        }
        Self(epoll)
    }

    pub(crate) fn rings(&self, milliseconds: i32) -> bool {
        loop {
            match self.0.wait(milliseconds, &mut [EpollEvent::default()]) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                result => return result.expect("epoll") >= 1,
            }
        }
    }

    /// A minute without a ring is a lost wake-up, and a panic.
    pub(crate) fn wait(&self) {
        assert!(self.rings(60_000), "something there and no wake-up");
    }
}

/// Tries the first queue of `near` against the contract.
///
/// # Panics
/// Where it falls short of it.
pub fn conformance(near: &dyn NetBackend, far: &mut dyn FarEnd) {
    near.set_queues(1).expect("one pair of queues");
    parts::opening(near);
    parts::splits(near, far);
    parts::rooms(near, far);
    parts::too_long(near, far);
    parts::sent_offloads(near, far);
    parts::received_offloads(near, far);
    parts::invalid(near, far);
    parts::waiting(near, far);
    if far.fills_up() {
        parts::busy(near, far);
    }
}

/// Bytes that differ from place to place and from seed to seed.
fn payload(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed).wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

/// Whether what is left to be done is within `accepted`, and all else is done.
fn check_finished(frame: &[u8], offload: &Offload, accepted: Offloads) {
    assert!(offload.check_headers(frame, frame.len()).is_ok(), "{offload:?}");
    assert!(offload.accepted_by(accepted, frame), "{offload:?} for {accepted:?}");
    let headers = Headers::parse(frame);
    assert_ne!(verify_ipv4(frame, &headers), Some(false), "an IPv4 header checksum");
    if offload.checksum.is_none() {
        assert_eq!(verify_transport(frame, &headers), Some(true), "a transport checksum");
    }
}
