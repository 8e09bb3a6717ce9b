//! smoltcp's idea of a network adapter, on top of a driver.

use std::collections::VecDeque;

use paraslot_drivers::{DmaRegion, Error, Known, Nic, Platform, Task};
use paraslot_vmm::in_process::InProcess;
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;

/// Bytes of the longest frame without segmentation.
const FRAME: usize = 1514;
/// Bytes of the longest frame that is left to be segmented: a few dozen segments.
const LONG_FRAME: usize = 40_000;
/// Frames on their way out, at most.
const MOST_TAGS: u16 = 64;
/// Offset of the network layer's header.
const L3: usize = 14;

/// What has happened, so that a test knows that it tried what it meant to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Frames that arrived with their checksum still to be filled in.
    pub(crate) partial: usize,
    /// Frames of whose checksum the adapter said that it is right.
    pub(crate) right: usize,
    /// Frames that arrived uncut.
    pub(crate) long: usize,
    /// Frames sent with their checksum left to be filled in.
    pub(crate) checksums: usize,
    /// Frames sent to be segmented.
    pub(crate) segmented: usize,
    /// Interrupts handled.
    pub(crate) interrupts: usize,
}

/// A driver and the frames on their way.
pub(crate) struct Card<'p, N> {
    platform: &'p InProcess,
    nic: N,
    interrupts: bool,
    /// Interrupts that were taken when it was looked last; `None` before.
    seen: Option<u64>,
    regions: Vec<DmaRegion>,
    free: Vec<u16>,
    inbox: VecDeque<Vec<u8>>,
    pub(crate) tally: Tally,
}

impl<N> std::fmt::Debug for Card<'_, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { free, inbox, tally, .. } = self;
        let (free, inbox) = (free.len(), inbox.len());
        write!(f, "{free} frames can be sent, {inbox} have arrived, {tally:?}")
    }
}

/// One's complement sum of 16-bit words, in their order.
fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

/// Where the transport's header and its checksum are, and the sum of the pseudo header; for TCP and
/// UDP over IPv4.
fn transport(frame: &[u8]) -> Option<(usize, usize, u16)> {
    if frame[12..L3] != [8, 0] {
        return None;
    }
    let start = L3 + usize::from(frame[L3] & 15) * 4;
    let protocol = frame[L3 + 9];
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return None,
    };
    let len = usize::from(u16::from_be_bytes([frame[L3 + 2], frame[L3 + 3]])) + L3 - start;
    let len = u16::try_from(len).expect("an IP packet").to_be_bytes();
    let pseudo = sum(&[&frame[L3 + 12..L3 + 20], &[0, protocol], &len].concat());
    Some((start, offset, pseudo))
}

impl<'p, N: Nic> Card<'p, N> {
    pub(crate) fn new(platform: &'p InProcess, mut nic: N, interrupts: bool) -> Self {
        let tags = nic.depth().min(MOST_TAGS);
        let len = nic.headroom() + LONG_FRAME;
        let regions = (0..tags).map(|_| platform.allocate(len).expect("memory")).collect();
        if interrupts {
            nic.set_interrupts(true).expect("interrupts");
        }
        Self {
            platform,
            nic,
            interrupts,
            seen: None,
            regions,
            free: (0..tags).collect(),
            inbox: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) fn address(&self) -> [u8; 6] {
        self.nic.address()
    }

    pub(crate) fn link_up(&mut self) -> bool {
        self.nic.link_up()
    }

    /// Takes what has arrived; with interrupts, if there was one.
    pub(crate) fn look(&mut self) {
        if !self.interrupts {
            return self.take();
        }
        let taken = self.platform.interrupts_taken(self.nic.interrupt());
        if self.seen == Some(taken) {
            return;
        }
        let first = self.seen.replace(taken).is_none();
        if !self.nic.begin().expect("a device") && !first {
            return;
        }
        self.tally.interrupts += 1;
        loop {
            self.take();
            if !self.nic.end().expect("a device") {
                return;
            }
        }
    }

    fn take(&mut self) {
        let Self { nic, inbox, tally, .. } = self;
        let mut visit = |arrival: paraslot_drivers::Arrival<'_>| {
            let mut frame = Vec::with_capacity(arrival.len);
            for piece in arrival.pieces {
                let start = frame.len();
                frame.resize(start + piece.len(), 0);
                piece.copy_out(0, &mut frame[start..]);
            }
            assert_eq!(frame.len(), arrival.len);
            tally.long += usize::from(frame.len() > FRAME);
            match arrival.checksum {
                Known::Nothing => {}
                Known::Right => {
                    tally.right += 1;
                    // Nobody has cut it, so nobody has filled it in; the stack looks all the same.
                    if frame.len() > FRAME {
                        complete(&mut frame);
                    }
                }
                Known::Partial => {
                    tally.partial += 1;
                    complete(&mut frame);
                }
            }
            inbox.push_back(frame);
        };
        while nic.receive(64, &mut visit).expect("a device") != 0 {}
    }

    /// Whether something has arrived that the stack has not taken, and could.
    pub(crate) fn has_work(&mut self) -> bool {
        !self.inbox.is_empty() && self.has_room()
    }

    /// Tells the adapter of what was sent.
    pub(crate) fn kick(&mut self) {
        self.nic.kick().expect("a device");
    }

    /// Lets time pass until something may have happened.
    pub(crate) fn wait(&mut self) {
        match self.seen.filter(|_| !self.free.is_empty()) {
            Some(seen) => self.platform.wait_for_interrupt(self.nic.interrupt(), seen),
            // Frames that were sent do not interrupt.
            None => self.platform.relax(),
        }
    }

    fn reclaim(&mut self) {
        let free = &mut self.free;
        self.nic.reclaim(|tag| free.push(tag)).expect("a device");
    }

    /// Whether a frame can be sent.
    fn has_room(&mut self) -> bool {
        if self.free.is_empty() {
            self.reclaim();
        }
        !self.free.is_empty()
    }

    fn transmit(&mut self, mut frame: Vec<u8>, meta: PacketMeta) {
        let task = self.task(&mut frame, meta);
        let tag = self.free.pop().expect("there was room");
        let region = &self.regions[usize::from(tag)];
        region.copy_in(self.nic.headroom(), &frame);
        while let Err(error) = self.nic.transmit(tag, region, frame.len(), task) {
            assert_eq!(error, Error::Busy);
            self.nic.kick().expect("a device");
            self.platform.relax();
            let free = &mut self.free;
            self.nic.reclaim(|tag| free.push(tag)).expect("a device");
        }
    }

    /// Leaves to the adapter what it offers to do.
    fn task(&mut self, frame: &mut [u8], meta: PacketMeta) -> Task {
        let Some((start, offset, pseudo)) = transport(frame) else { return Task::None };
        if !self.nic.offers().checksum {
            return Task::None;
        }
        let place = start + offset;
        frame[place..place + 2].copy_from_slice(&pseudo.to_be_bytes());
        let small = |number: usize| u16::try_from(number).expect("inside the headers");
        match meta.segmentation_offload_size {
            Some(size) => {
                assert_eq!(frame[start + 12] >> 4, 5, "a segment with data has no options");
                self.tally.segmented += 1;
                Task::Segment { size: size.get() }
            }
            None => {
                self.tally.checksums += 1;
                Task::Checksum { start: small(start), offset: small(offset) }
            }
        }
    }
}

/// Fills in the checksum of a frame that has the pseudo header's sum in its place.
fn complete(frame: &mut [u8]) {
    let (start, offset, pseudo) = transport(frame).expect("TCP or UDP");
    let place = start + offset;
    assert_eq!(frame[place..place + 2], pseudo.to_be_bytes(), "not the pseudo header's sum");
    // Behind the packet there may be padding.
    let end = L3 + usize::from(u16::from_be_bytes([frame[L3 + 2], frame[L3 + 3]]));
    let checksum = !sum(&frame[start..end]);
    frame[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// A frame that has arrived.
pub(crate) struct Arrived(Vec<u8>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a frame to be sent.
pub(crate) struct Place<'c, 'p, N> {
    card: &'c mut Card<'p, N>,
    meta: PacketMeta,
}

impl<N: Nic> TxToken for Place<'_, '_, N> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.card.transmit(frame, self.meta);
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.meta = meta;
    }
}

impl<'p, N: Nic> Device for Card<'p, N> {
    type RxToken<'a>
        = Arrived
    where
        Self: 'a;
    type TxToken<'a>
        = Place<'a, 'p, N>
    where
        Self: 'a;

    fn receive(&mut self, _now: Instant) -> Option<(Arrived, Place<'_, 'p, N>)> {
        if !self.has_room() {
            return None;
        }
        let frame = self.inbox.pop_front()?;
        Some((Arrived(frame), Place { card: self, meta: PacketMeta::default() }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Place<'_, 'p, N>> {
        self.has_room().then(|| Place { card: self, meta: PacketMeta::default() })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        if self.nic.offers().segmentation {
            capabilities.segmentation.tcpv4 = LONG_FRAME.try_into().ok();
            capabilities.checksum.tcp = Checksum::Rx;
        }
        capabilities
    }
}
