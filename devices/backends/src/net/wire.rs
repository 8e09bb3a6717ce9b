//! Two ports joined by a wire, in this process.
//!
//! A frame that is sent on queue `q` of one port arrives at queue `q` of the other, modulo the number
//! of queues that the other has in use. Its offload goes with it, and the receiving end does in
//! software what its device does not take.
//!
//! Each sending queue has a ring of bytes of its own ([`ring`]): frames are copied in once and out
//! once, without a lock on the way in and without an allocation. A receiver takes the rings that are
//! its own at the moment, one frame at a time, under a lock that only a change of the number of
//! queues ever contends for.

mod lane;
mod receiver;
mod ring;
mod sender;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use super::{NetBackend, NetInfo, NetReceiver, NetSender, Offloads};
use lane::Lane;
use receiver::WireReceiver;
use sender::WireSender;

/// What becomes of a frame for which a queue has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// It stays with its sender ([`NetError::Busy`](super::NetError::Busy)), which is woken when there
    /// is room.
    #[default]
    Wait,
    /// It is lost, as on a network.
    Drop,
}

/// What a wire is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireOptions {
    /// Pairs of queues of each port.
    pub queues: u16,
    /// Most frames under way on each queue in each direction; at least 1.
    pub frames: u32,
    /// Most bytes of them, with 16 bytes for each frame and lengths rounded up to 8; at least a frame
    /// of the greatest length, at most 1 GiB.
    pub bytes: usize,
    /// When a queue has no room.
    pub on_full: OnFull,
    /// What the ports give as their MTU. Longer frames pass too.
    pub mtu: Option<u16>,
}

impl Default for WireOptions {
    fn default() -> Self {
        Self { queues: 1, frames: 1024, bytes: 1 << 20, on_full: OnFull::Wait, mtu: None }
    }
}

/// What became of the frames that were sent into a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireStatistics {
    /// Frames that the other side's receivers took. One that was cut on the way counts once.
    pub delivered: u64,
    /// Frames that were lost: nobody received, the queue was full ([`OnFull::Drop`]), or the room was
    /// too small.
    pub dropped: u64,
}

/// Makes wires.
#[derive(Debug)]
pub struct Wire;

impl Wire {
    /// A wire and its two ends.
    ///
    /// # Errors
    /// When `options` has no queue, or the host lacks memory or descriptors.
    #[expect(clippy::new_ret_no_self, reason = "a wire is its ends")]
    pub fn new(options: WireOptions) -> io::Result<(WirePort, WirePort)> {
        let (there, back) = (Arc::new(Lane::new(&options)?), Arc::new(Lane::new(&options)?));
        let one = WirePort { options, out: there.clone(), incoming: back.clone() };
        Ok((one, WirePort { options, out: back, incoming: there }))
    }

    /// A port joined to itself.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn loopback(options: WireOptions) -> io::Result<WirePort> {
        let lane = Arc::new(Lane::new(&options)?);
        Ok(WirePort { options, out: lane.clone(), incoming: lane })
    }
}

/// One end of a wire. Clones are the same end.
#[derive(Clone)]
pub struct WirePort {
    options: WireOptions,
    out: Arc<Lane>,
    incoming: Arc<Lane>,
}

impl WirePort {
    /// What became of the frames that were sent into it.
    pub fn statistics(&self) -> WireStatistics {
        self.out.statistics()
    }
}

impl NetBackend for WirePort {
    fn info(&self) -> NetInfo {
        let WireOptions { queues, mtu, .. } = self.options;
        NetInfo { queues, mtu, native: Offloads::all() }
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        self.incoming.set_accepted(accepted);
        Ok(())
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        self.incoming.set_active(pairs.clamp(1, self.options.queues));
        Ok(())
    }

    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        Ok(Box::new(WireSender::open(self.out.clone(), queue, self.options.on_full)?))
    }

    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        Ok(Box::new(WireReceiver::open(self.incoming.clone(), queue)?))
    }
}
