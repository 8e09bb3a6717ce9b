//! What the workload needs of a network adapter, whatever it is attached by.

use crate::{Accesses, DmaRegion, Error};

/// What an adapter does for its driver, as negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// It fills in transport checksums of frames to be sent.
    pub checksum: bool,
    /// It segments TCP over IPv4.
    pub segmentation: bool,
    /// It receives frames that were never segmented, as one.
    pub large_receive: bool,
}

impl Offers {
    /// Whether the adapter does `task`.
    ///
    /// # Errors
    /// If not.
    pub(crate) fn check(&self, task: Task) -> Result<(), Error> {
        let offered = match task {
            Task::None => true,
            Task::Checksum { .. } => self.checksum,
            Task::Segment { .. } => self.segmentation,
        };
        if offered { Ok(()) } else { Err(Error::Request("the task was not offered")) }
    }
}

/// What is left to the adapter to do to a frame that is sent. Only what it [`Offers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Task {
    /// Nothing.
    #[default]
    None,
    /// The checksum over everything from `start` on belongs at `start + offset`, which holds the
    /// pseudo header's sum.
    Checksum {
        /// First byte summed, from the start of the frame.
        start: u16,
        /// From `start`.
        offset: u16,
    },
    /// TCP over IPv4, without options in either header, to be cut into segments with `size` bytes of
    /// payload each; the checksum holds the pseudo header's sum, its length that of the whole.
    Segment {
        /// Bytes of payload.
        size: u16,
    },
}

/// What is known of a received frame's transport checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing.
    Nothing,
    /// The adapter says that it is right. In a frame that was put together of several, or never
    /// segmented, it need not be filled in all the same.
    Right,
    /// It was never filled in, as sender and receiver are on one machine; it holds the pseudo
    /// header's sum.
    Partial,
}

/// A frame that has arrived, in the driver's buffers. They are given back when the visitor returns.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Its bytes, in order, each piece as long as what of the frame is in it.
    pub pieces: &'a [DmaRegion],
    /// Bytes in all.
    pub len: usize,
    /// Of its transport checksum.
    pub checksum: Known,
}

/// A network adapter.
///
/// Frames to be sent are told apart by tags from 0 to [`depth`](Self::depth) − 1. Received frames
/// are in buffers of the driver's own, which keeps the adapter supplied.
///
/// Interrupts are off at first; then the caller polls. With interrupts on, after each interrupt it
/// calls [`begin`](Self::begin), then [`reclaim`](Self::reclaim) and [`receive`](Self::receive) until
/// there is nothing more, then [`end`](Self::end): what Linux calls the interrupt handler, the poll
/// loop, and its completion.
pub trait Nic {
    /// Its hardware address.
    fn address(&self) -> [u8; 6];

    /// Whether the link is up.
    fn link_up(&mut self) -> bool;

    /// What it does for its driver.
    fn offers(&self) -> Offers;

    /// Most frames with the adapter to be sent.
    fn depth(&self) -> u16;

    /// How many frames of `len` bytes with this task there is certainly room for now, tags apart. A
    /// frame may take more than one place on the ring.
    fn room(&self, _len: usize, _task: Task) -> usize {
        self.depth().into()
    }

    /// Bytes in front of each frame to be sent that the driver has for itself, to put there what the
    /// adapter wants to see in front of it; 0 for none.
    fn headroom(&self) -> usize {
        0
    }

    /// Prepares a frame to be sent: the `len` bytes of `frame` behind the
    /// [`headroom`](Self::headroom). The adapter hears of it with the next [`kick`](Self::kick), and
    /// the region must be left alone until its tag is reclaimed.
    ///
    /// # Errors
    /// When the frame or task is not possible, or [`Error::Busy`] if there is no room on the ring.
    fn transmit(
        &mut self,
        tag: u16,
        frame: &DmaRegion,
        len: usize,
        task: Task,
    ) -> Result<(), Error>;

    /// Tells the adapter of frames to be sent, with at most one doorbell.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn kick(&mut self) -> Result<(), Error>;

    /// Looks for frames that the adapter is done with, and hands their tags to `done`.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn reclaim(&mut self, done: impl FnMut(u16)) -> Result<(), Error>;

    /// Looks for frames that have arrived, hands up to `limit` of them to `visit`, and takes their
    /// buffers back. Returns how many there were. The adapter is told of free buffers, with at most
    /// one doorbell, each time that `refill` of them have gathered (see [`set_refill`]).
    ///
    /// # Errors
    /// When the device misbehaves.
    ///
    /// [`set_refill`]: Self::set_refill
    fn receive(&mut self, limit: u16, visit: impl FnMut(Arrival<'_>)) -> Result<u16, Error>;

    /// How many free buffers gather before the adapter is told of them, from 1; 16 at first, as in
    /// Linux's drivers. At most a quarter of the ring.
    fn set_refill(&mut self, buffers: u16);

    /// Turns interrupts on or off. What is there already when they are turned on may raise none, so
    /// the caller looks once as after an interrupt.
    ///
    /// # Errors
    /// When the device has none that the driver could use.
    fn set_interrupts(&mut self, on: bool) -> Result<(), Error>;

    /// Whether reclaimable frames cause interrupts too; off at first, as drivers do that reclaim
    /// before they send. Without effect while interrupts are off.
    fn set_transmit_interrupts(&mut self, on: bool);

    /// Begins to handle an interrupt: finds out whether it was the adapter's, and keeps it from
    /// raising more. Returns whether it was.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn begin(&mut self) -> Result<bool, Error>;

    /// Allows interrupts again. Returns whether there may be something already for which none comes.
    ///
    /// # Errors
    /// When the device misbehaves.
    fn end(&mut self) -> Result<bool, Error>;

    /// The platform's number of the interrupt that the adapter raises.
    fn interrupt(&self) -> u8;

    /// Register accesses so far.
    fn accesses(&self) -> Accesses;

    /// Stops the device: afterwards it touches no memory.
    ///
    /// # Errors
    /// When the device does not stop.
    fn shutdown(&mut self) -> Result<(), Error>;
}
