//! The way out through one queue.

use paraslot_device::{Progress, Sources};
use zerocopy::IntoBytes;

use super::header;
use super::queue::{Lease, net_error};
use super::sys::{IOV_MAX, Readiness, Vectors};
use crate::net::segment::Segmenter;
use crate::net::{Cut, Frame, NetError, NetSender, Offload, Offloads};

/// Sends frames straight from guest memory, each with one system call.
pub(super) struct Sender {
    lease: Lease,
    vectors: Vectors,
    bounce: Vec<u8>,
    copied: u64,
}

/// What the kernel must know to do to send a frame like this.
fn needed(offload: &Offload) -> Offloads {
    match offload.segmentation.map(|segmentation| segmentation.cut) {
        None => Offloads::empty(),
        Some(Cut::Tcp4) => Offloads::TSO4,
        Some(Cut::Tcp6) => Offloads::TSO6,
        Some(Cut::UdpFragments) => Offloads::UFO,
        Some(Cut::UdpDatagrams) => Offloads::USO4 | Offloads::USO6,
    }
}

impl Sender {
    pub(super) fn new(lease: Lease) -> Self {
        Self { lease, vectors: Vectors::default(), bounce: Vec::new(), copied: 0 }
    }

    /// Sends a frame as it is.
    fn write(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        let header = header::encode(&frame.offload, frame.len());
        // The header and the head are one each.
        let in_place = frame.body.host_ranges().len() <= IOV_MAX - 2;
        if !in_place {
            self.gather(frame);
        }
        let fd = self.lease.queue.fd();
        let written = if in_place {
            self.vectors.write(fd, &[header.as_bytes(), frame.head], Some(frame.body))
        } else {
            self.vectors.write(fd, &[header.as_bytes(), &self.bounce], None)
        };
        written.map(drop).map_err(net_error)
    }

    /// Cuts a frame here, and sends the pieces. They leave their checksums to the kernel.
    fn write_cut(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        self.gather(frame);
        let mut segmenter = Segmenter::new(&mut self.bounce, &frame.offload, true)?;
        let fd = self.lease.queue.fd();
        let mut first = true;
        while let Some(piece) = segmenter.next(&self.bounce) {
            let header = header::encode(&piece.offload, piece.len());
            let pieces = [header.as_bytes(), piece.header, piece.payload];
            match self.vectors.write(fd, &pieces, None).map_err(net_error) {
                // The caller would send the whole frame again.
                Err(NetError::Busy) if !first => return Err(NetError::NoBuffers),
                result => result?,
            };
            first = false;
        }
        Ok(())
    }

    /// Copies a frame to one piece of host memory.
    fn gather(&mut self, frame: &Frame<'_>) {
        self.bounce.clear();
        self.bounce.extend_from_slice(frame.head);
        self.bounce.resize(frame.len(), 0);
        let body = self.bounce.get_mut(frame.head.len()..).unwrap_or_default();
        self.copied = self.copied.wrapping_add(frame.body.copy_to(body) as u64);
    }
}

impl NetSender for Sender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        frame.offload.check(frame.len())?;
        let needed = needed(&frame.offload);
        let result = if self.lease.queue.native.contains(needed) {
            match self.write(frame) {
                // The kernel has a limit to how many datagrams it cuts one into.
                Err(NetError::Invalid) if needed.contains(Offloads::USO4) => self.write_cut(frame),
                result => result,
            }
        } else {
            self.write_cut(frame)
        };
        if !matches!(result, Err(NetError::Busy)) {
            self.lease.disarm();
        }
        result
    }

    fn commit(&mut self) {}

    fn sources(&self) -> Sources {
        Sources::from_iter([self.lease.source()])
    }

    fn prepare_to_wait(&mut self) -> Progress {
        match self.lease.readiness() {
            Readiness::Waits => self.lease.arm(),
            // A frame for a queue in error does not wait, either.
            Readiness::Ready | Readiness::Broken => Progress::More,
        }
    }

    fn stop_waiting(&mut self) {
        self.lease.disarm();
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}
