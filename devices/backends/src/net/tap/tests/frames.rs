//! Frames between a guest and the host's kernel, and what sends and receives them here. The sums are
//! made anew here, so that nothing checks itself.

use std::net::Ipv4Addr;
use std::os::fd::RawFd;

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, Source, Sources};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::block::testing::GuestPages;
use crate::net::{
    Cut, Frame, NetError, NetReceiver, NetSender, Offload, PartialChecksum, Room, Segmentation,
};

pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 1);
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 8, 2);
pub(super) const GUEST_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(super) const PORT: u16 = 7000;

/// Offset of the transport's header in what is made here.
pub(super) const L4: u16 = 34;

pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0u32..).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).take(len).collect()
}

/// One's complement sum.
pub(super) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

fn be16(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("an IP packet").to_be_bytes()
}

pub(super) struct Ends {
    pub(super) macs: ([u8; 6], [u8; 6]),
    pub(super) addresses: (Ipv4Addr, Ipv4Addr),
    pub(super) ports: (u16, u16),
}

impl Ends {
    /// From the guest to the host.
    pub(super) fn outward(host: [u8; 6]) -> Self {
        Self { macs: (GUEST_MAC, host), addresses: (GUEST, HOST), ports: (PORT, PORT) }
    }

    pub(super) fn inward(host: [u8; 6]) -> Self {
        Self { macs: (host, GUEST_MAC), addresses: (HOST, GUEST), ports: (PORT, PORT) }
    }

    fn pseudo(&self, protocol: u8, len: usize) -> u16 {
        let (from, to) = (self.addresses.0.octets(), self.addresses.1.octets());
        sum(&[&from[..], &to, &[0, protocol], &be16(len)].concat())
    }

    fn ip(&self, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let len = be16(20 + transport.len());
        let mut ip = vec![0x45, 0, len[0], len[1], 0, 1, 0, 0, 64, protocol, 0, 0];
        ip.extend(self.addresses.0.octets());
        ip.extend(self.addresses.1.octets());
        let checksum = (!sum(&ip)).to_be_bytes();
        ip[10..12].copy_from_slice(&checksum);
        [&self.macs.1[..], &self.macs.0, &[8, 0], &ip, transport].concat()
    }

    /// A datagram. Its checksum is right, or if it is `partial`, still to be filled in.
    pub(super) fn udp(&self, payload: &[u8], partial: bool) -> Vec<u8> {
        let len = 8 + payload.len();
        let (from, to) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let mut udp = [&from[..], &to, &be16(len), &[0, 0], payload].concat();
        let pseudo = self.pseudo(17, len);
        udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
        if !partial {
            let checksum = !sum(&udp);
            udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        self.ip(17, &udp)
    }

    /// A TCP segment of any length, with the checksum still to be filled in.
    pub(super) fn tcp(&self, payload: &[u8], flags: u8) -> Vec<u8> {
        let (from, to) = (self.ports.0.to_be_bytes(), self.ports.1.to_be_bytes());
        let rest = [0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0x20, 0, 0, 0, 0, 0];
        let mut tcp = [&from[..], &to, &rest, payload].concat();
        let pseudo = self.pseudo(6, tcp.len());
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        self.ip(6, &tcp)
    }

    /// Whether the transport's checksum of a frame made like these is right.
    pub(super) fn is_right(&self, frame: &[u8]) -> bool {
        let protocol = frame[23];
        let ip_len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        let transport = &frame[34..14 + ip_len];
        let pseudo = self.pseudo(protocol, transport.len()).to_be_bytes();
        let padding = &[0][..transport.len() % 2];
        sum(&[transport, padding, &pseudo].concat()) == 0xffff
    }
}

pub(super) fn partial(offset: u16) -> Offload {
    let checksum = Some(PartialChecksum { start: L4, offset });
    Offload { checksum, ..Offload::default() }
}

pub(super) fn cut(cut: Cut, size: u16, offset: u16, header_len: u16) -> Offload {
    let segmentation = Some(Segmentation { cut, size, header_len, ecn: false });
    Offload { segmentation, ..partial(offset) }
}

/// Guest memory, where frames come from the first half and go to the second.
pub(super) struct Guest(pub(super) GuestPages);

pub(super) const HALF: usize = 1 << 20;

impl Guest {
    pub(super) fn new() -> Self {
        Self(GuestPages::new(2 * HALF))
    }

    /// `data` in guest memory, in pieces of `size` bytes with gaps.
    pub(super) fn body(&self, data: &[u8], size: usize) -> DmaBuffers {
        let mut list = Vec::new();
        let mut address = 5;
        for piece in data.chunks(size) {
            self.0.write(address, piece);
            list.push((address, piece.len()));
            address += piece.len() as u64 + 3;
        }
        self.0.buffers(&list, Direction::ToDevice)
    }

    /// Sends `frame`, its first bytes from host memory, the rest from a few pieces.
    pub(super) fn send(
        &self,
        sender: &mut dyn NetSender,
        frame: &[u8],
        offload: Offload,
    ) -> Result<(), NetError> {
        let (head, body) = frame.split_at(frame.len().min(7));
        let body = self.body(body, 1500);
        let result = sender.send(&Frame { head, body: &body, offload });
        sender.commit();
        result
    }

    /// Receives into a few pieces of guest memory.
    pub(super) fn receive(
        &self,
        receiver: &mut dyn NetReceiver,
    ) -> Result<Option<(Vec<u8>, Offload)>, NetError> {
        let start = HALF as u64;
        let pieces = [(start, 100), (start + 100, 4000), (start + 4100, 70_000)];
        let room = self.0.buffers(&pieces, Direction::FromDevice);
        let received = receiver.receive(Room::Guest(&room))?;
        Ok(received.map(|received| (self.0.read(start, received.len), received.offload)))
    }

    /// The next frame that there is, waiting for it.
    pub(super) fn next(&self, receiver: &mut dyn NetReceiver) -> (Vec<u8>, Offload) {
        loop {
            if let Some(frame) = self.receive(receiver).expect("a frame") {
                return frame;
            }
            if receiver.prepare_to_wait() == paraslot_device::Progress::Idle {
                assert!(rings(receiver.sources(), 60_000), "a frame, or a wake-up");
            }
        }
    }
}

/// Whether a source rings within so many milliseconds; it goes on to if it does.
pub(super) fn rings(sources: Sources, limit: i32) -> bool {
    let [Source::Event(fd) | Source::Readable(fd)] = sources[..] else { return false };
    wait(fd, limit)
}

fn wait(fd: RawFd, limit: i32) -> bool {
    let epoll = Epoll::new().expect("epoll");
    let event = EpollEvent::new(EventSet::IN, 0);
    epoll.ctl(ControlOperation::Add, fd, event).expect("a descriptor to wait for");
    loop {
        match epoll.wait(limit, &mut [EpollEvent::default()]) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            result => return result.expect("epoll") == 1,
        }
    }
}
