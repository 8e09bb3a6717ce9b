//! Network backends.
//!
//! A [`NetBackend`] is a network port with one or more pairs of queues; a [`NetSender`] and a
//! [`NetReceiver`] are two workers' ways to one pair. Nothing here blocks the caller, and nothing
//! here calls a device: frames wait in the backend until a worker asks for them.
//!
//! # The contract
//! - *Frames* start with the Ethernet header and end before the frame check sequence.
//! - *Offloads*: what is left to be done to a frame travels with it as an [`Offload`]. A sender takes
//!   every frame with every offload, and does in software what the other side lacks. A receiver
//!   delivers only what the device has said it accepts ([`NetBackend::set_receive_offloads`]), from
//!   some moment after that call on; frames that were under way may still be of the old kind.
//! - *Metadata is not trusted*: it comes from a guest or the host's network. A sender refuses what does
//!   not fit the frame with [`NetError::Invalid`]; devices check what a receiver tells before they
//!   pass it on.
//! - *Memory*: a frame's bytes are read and written during the call only, in place where the backend
//!   can. The bytes of a [`Frame`] in guest memory may change at any time: what decides anything is
//!   read once.
//! - *Errors* cost the frame, never the queue: after any error the next frame may fare better.
//!   [`NetError::Busy`] alone leaves the frame with the caller.
//! - *Waiting*: sources ring only after `prepare_to_wait`, once each time; a worker that cannot take
//!   frames (no buffers) does not ask, and is not woken. `prepare_to_wait` that returns
//!   [`Progress::More`] has not armed anything: there is something already. A worker that has asked,
//!   and then neither receives (or sends) nor asks again, calls `stop_waiting`: a source that is a
//!   [`Source::Readable`](paraslot_device::Source::Readable) rings on until one of them is called.

mod bell;
pub mod checksum;
mod copy;
mod generator;
pub mod hash;
mod limited;
pub mod parse;
pub mod segment;
mod sink;
pub mod software;
mod tap;
#[cfg(any(test, feature = "test-utils"))]
pub mod testing;
mod wire;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::{DmaBuffers, Progress, Sources};

pub use generator::{Generator, GeneratorOptions};
pub use limited::LimitedNet;
pub use sink::Sink;
pub use tap::{TAP_QUEUES_MAX, TapBackend, TapError, TapOptions};
pub use wire::{OnFull, Wire, WireOptions, WirePort, WireStatistics};

/// Longest frame in bytes: an IP packet of the greatest length behind an Ethernet header with two
/// VLAN tags.
pub const MAX_FRAME: usize = 65535 + 14 + 8;

bitflags::bitflags! {
    /// Work on frames that can be left to the other side.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Offloads: u32 {
        /// Checksums that are still to be filled in.
        const CHECKSUM = 1 << 0;
        /// TCP over IPv4 that is still to be cut into segments.
        const TSO4 = 1 << 1;
        /// TCP over IPv6 that is still to be cut into segments.
        const TSO6 = 1 << 2;
        /// Of TCP to be segmented, also with CWR set (ECN).
        const TSO_ECN = 1 << 3;
        /// UDP that is still to be cut into IP fragments.
        const UFO = 1 << 4;
        /// UDP over IPv4 that is still to be cut into datagrams.
        const USO4 = 1 << 5;
        /// UDP over IPv6 that is still to be cut into datagrams.
        const USO6 = 1 << 6;
    }
}

/// A checksum that is still to be filled in: the 16-bit one's complement sum of all bytes from
/// `start` to the end, complemented, belongs at `start + offset`, which now holds the sum of the
/// pseudo header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// First byte summed, from the start of the frame.
    pub start: u16,
    /// Where the checksum is, from `start`.
    pub offset: u16,
}

/// What a frame is to be cut into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// TCP segments, over IPv4.
    Tcp4,
    /// TCP segments, over IPv6.
    Tcp6,
    /// Fragments of one UDP datagram (UFO), over either.
    UdpFragments,
    /// UDP datagrams (USO), over either.
    UdpDatagrams,
}

/// How a frame is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Into what.
    pub cut: Cut,
    /// Bytes of payload in each but the last; not 0. (For `UdpFragments`, of IP payload.)
    pub size: u16,
    /// Bytes of headers that each gets, from the start of the frame. A hint: who cuts reads the
    /// headers.
    pub header_len: u16,
    /// TCP with CWR set.
    pub ecn: bool,
}

/// What is left to be done to a frame, and what is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum to fill in. Set whenever `segmentation` is.
    pub checksum: Option<PartialChecksum>,
    /// Segmentation to be done.
    pub segmentation: Option<Segmentation>,
    /// The transport checksum is known to be right (and none is left to fill in).
    pub checksum_valid: bool,
}

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its first bytes, in host memory; may be none. A device puts here what it has read to decide on,
    /// or has changed (a VLAN tag inserted).
    pub head: &'a [u8],
    /// The rest, in guest memory.
    pub body: &'a DmaBuffers,
    /// What is left to be done.
    pub offload: Offload,
}

impl Frame<'_> {
    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.head.len().saturating_add(self.body.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where a received frame goes.
#[derive(Debug)]
pub enum Room<'a> {
    /// Guest memory, in place.
    Guest(&'a DmaBuffers),
    /// Host memory, for a device that must look first.
    Host(&'a mut [u8]),
}

impl Room<'_> {
    /// Bytes it holds.
    pub fn len(&self) -> usize {
        match self {
            Self::Guest(buffers) => buffers.len(),
            Self::Host(bytes) => bytes.len(),
        }
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A frame that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Its length; the room's first bytes are the frame. At least 14.
    pub len: usize,
    /// What is left to be done, and what is known.
    pub offload: Offload,
}

/// Why a frame was not sent or received. Except for [`Busy`](Self::Busy), the frame is lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// Not now: the caller keeps the frame.
    #[error("no room now")]
    Busy,
    /// The port is not there any more, or its link is down.
    #[error("the port is gone or down")]
    Down,
    /// The host has no memory for it.
    #[error("the host has no buffers left")]
    NoBuffers,
    /// Longer than what it was to go into. Nothing of it may be used.
    #[error("frame too long")]
    TooLong,
    /// The frame and its offloads do not fit each other.
    #[error("malformed frame or offload")]
    Invalid,
    /// Another host error.
    #[error(transparent)]
    Io(io::Error),
}

/// What a port is like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetInfo {
    /// Pairs of queues, at least 1.
    pub queues: u16,
    /// Largest IP packet that its network takes, in bytes, where it is known.
    pub mtu: Option<u16>,
    /// What it takes and gives without doing it in software.
    pub native: Offloads,
}

/// A network port.
pub trait NetBackend: Send + Sync {
    /// What it is like. Fixed.
    fn info(&self) -> NetInfo;

    /// Frames delivered from now on may have these left to be done, and no others. None at first.
    ///
    /// # Errors
    /// When the host refuses; then none are left.
    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()>;

    /// The number of queue pairs in use, from the first; frames are delivered on these only. One at
    /// first. More than there are is all.
    ///
    /// # Errors
    /// When the host refuses; then nothing has changed.
    fn set_queues(&self, pairs: u16) -> io::Result<()>;

    /// Opens the sending half of queue `queue`. One at a time for each queue; it can be opened again
    /// after it was dropped.
    ///
    /// # Errors
    /// When there is no such queue, it is open already, or the host lacks the resources.
    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>>;

    /// Opens the receiving half of queue `queue`, likewise.
    ///
    /// # Errors
    /// As for the sending half.
    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>>;
}

impl<B: NetBackend + ?Sized> NetBackend for Arc<B> {
    fn info(&self) -> NetInfo {
        (**self).info()
    }
    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        (**self).set_receive_offloads(accepted)
    }
    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        (**self).set_queues(pairs)
    }
    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        (**self).open_sender(queue)
    }
    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        (**self).open_receiver(queue)
    }
}

/// One worker's way out.
pub trait NetSender: Send {
    /// Sends a frame, or keeps it until [`commit`](Self::commit); reads its bytes before it returns.
    ///
    /// # Errors
    /// Why it was not sent.
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError>;

    /// Ends a batch: what was kept goes now. Without effect if nothing is.
    fn commit(&mut self);

    /// What rings when there is room again after [`NetError::Busy`]. None if it is never busy. They
    /// stay the same.
    fn sources(&self) -> Sources;

    /// Asks to be woken when there is room. [`Progress::More`]: there is room now.
    fn prepare_to_wait(&mut self) -> Progress;

    /// Takes [`prepare_to_wait`](Self::prepare_to_wait) back: the source is quiet. Without effect if
    /// it was not called.
    fn stop_waiting(&mut self) {}

    /// Bytes copied in this process between guest memory and host memory, since it was opened.
    fn copied_bytes(&self) -> u64 {
        0
    }
}

/// One worker's way in.
pub trait NetReceiver: Send {
    /// Receives the next frame into `room`; `None` if there is none now. Bytes of the room behind the
    /// frame may have been written too.
    ///
    /// # Errors
    /// Why a frame was lost; there may be more.
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError>;

    /// What rings when a frame may have come. They stay the same.
    fn sources(&self) -> Sources;

    /// Asks to be woken when a frame comes. [`Progress::More`]: there is one now.
    fn prepare_to_wait(&mut self) -> Progress;

    /// Takes [`prepare_to_wait`](Self::prepare_to_wait) back: the source is quiet. Without effect if
    /// it was not called.
    fn stop_waiting(&mut self) {}

    /// Bytes copied in this process between guest memory and host memory, since it was opened.
    fn copied_bytes(&self) -> u64 {
        0
    }
}

/// Which of a worker's sender and receiver have been asked to wake it.
#[derive(Debug, Default)]
pub struct Waits {
    send: bool,
    receive: bool,
}

impl Waits {
    /// Asks those of the two that are wanted, and takes it back from those that are not any more.
    /// [`Progress::More`]: one of those that were asked has something now.
    pub fn set(
        &mut self,
        (sender, send): (&mut dyn NetSender, bool),
        (receiver, receive): (&mut dyn NetReceiver, bool),
    ) -> Progress {
        let before = std::mem::replace(self, Self { send, receive });
        let mut progress = Progress::Idle;
        if send {
            progress = progress.or(sender.prepare_to_wait());
        } else if before.send {
            sender.stop_waiting();
        }
        if receive {
            progress = progress.or(receiver.prepare_to_wait());
        } else if before.receive {
            receiver.stop_waiting();
        }
        progress
    }
}

/// What became of a device's frames. All are counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetStatistics {
    /// Frames that the backend took.
    pub sent_frames: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that the guest was given.
    pub received_frames: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Frames that were not for this guest, by its own filters.
    pub filtered: u64,
    /// Times that the guest had no buffer for a frame that was there.
    pub no_guest_buffers: u64,
    /// Received frames lost because they were longer than the guest's buffers or its limit.
    pub received_too_long: u64,
    /// Received frames lost for another reason.
    pub receive_errors: u64,
    /// Times that the backend was busy; the frame was sent later.
    pub send_busy: u64,
    /// Frames lost on their way out because the host had no buffers.
    pub send_no_buffers: u64,
    /// Frames lost on their way out because the port was gone or down.
    pub send_down: u64,
    /// Frames from the guest that made no sense: too short, too long, or with impossible offloads.
    pub send_invalid: u64,
    /// Frames lost on their way out for another reason.
    pub send_errors: u64,
    /// Bytes copied between guest memory and host memory by this process.
    pub copied_bytes: u64,
}

impl NetStatistics {
    /// Counts why a frame was not sent.
    pub fn count_send_error(&mut self, error: &NetError) {
        let count = match error {
            NetError::Busy => &mut self.send_busy,
            NetError::Down => &mut self.send_down,
            NetError::NoBuffers => &mut self.send_no_buffers,
            NetError::TooLong | NetError::Invalid => &mut self.send_invalid,
            NetError::Io(_) => &mut self.send_errors,
        };
        *count = count.wrapping_add(1);
    }

    /// Counts why a frame was not received.
    pub fn count_receive_error(&mut self, error: &NetError) {
        let count = match error {
            NetError::TooLong => &mut self.received_too_long,
            NetError::Busy
            | NetError::Down
            | NetError::NoBuffers
            | NetError::Invalid
            | NetError::Io(_) => &mut self.receive_errors,
        };
        *count = count.wrapping_add(1);
    }
}

impl NetStatistics {
    /// Each count of both, put together by `put`.
    fn zip(self, other: Self, put: fn(u64, u64) -> u64) -> Self {
        macro_rules! each {
            ($($count:ident),+ $(,)?) => {
                Self { $($count: put(self.$count, other.$count)),+ }
            };
        }
        // A literal of all fields: a new count is not forgotten.
        each!(
            sent_frames,
            sent_bytes,
            received_frames,
            received_bytes,
            filtered,
            no_guest_buffers,
            received_too_long,
            receive_errors,
            send_busy,
            send_no_buffers,
            send_down,
            send_invalid,
            send_errors,
            copied_bytes,
        )
    }

    /// What was counted since the counts were `start`.
    #[must_use]
    pub fn since(self, start: Self) -> Self {
        self.zip(start, u64::wrapping_sub)
    }
}

impl std::ops::AddAssign for NetStatistics {
    fn add_assign(&mut self, other: Self) {
        *self = self.zip(other, u64::wrapping_add);
    }
}

/// A device's statistics, shared by its workers and its owner. A worker counts on its own and adds
/// what it has once a round of work.
#[derive(Clone, Debug, Default)]
pub struct NetCounters(Arc<Mutex<NetStatistics>>);

impl NetCounters {
    fn lock(&self) -> MutexGuard<'_, NetStatistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what `tally` holds, and empties it.
    pub fn add(&self, tally: &mut NetStatistics) {
        if *tally != NetStatistics::default() {
            *self.lock() += std::mem::take(tally);
        }
    }

    /// The counts so far.
    pub fn get(&self) -> NetStatistics {
        *self.lock()
    }
}
