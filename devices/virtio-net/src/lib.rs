//! The virtio network device (VIRTIO 1.4, 5.1) over any network backend.
//!
//! Offered, unless the owner leaves it out: CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, HOST_UFO, HOST_USO;
//! GUEST_CSUM, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, GUEST_UFO, GUEST_USO4, GUEST_USO6 and
//! CTRL_GUEST_OFFLOADS; MRG_RXBUF; MAC, STATUS, SPEED_DUPLEX, and MTU where one is known; CTRL_VQ,
//! CTRL_RX, CTRL_RX_EXTRA, CTRL_VLAN, CTRL_MAC_ADDR, GUEST_ANNOUNCE; MQ with several pairs of queues;
//! RSS and HASH_REPORT; NOTF_COAL and VQ_NOTF_COAL; EVENT_IDX and INDIRECT_DESC. A set in which a
//! feature lacks one that it needs (5.1.3.1) is refused.
//!
//! Left out: GUEST_HDRLEN, since backends read the headers that they cut; RSC_EXT and the GUEST_RSC
//! bits, since nothing here coalesces; STANDBY, which is the owner's to arrange; DEVICE_STATS, since
//! drivers count for themselves; HASH_TUNNEL, the UDP tunnel offloads and OUT_NET_HEADER, since no
//! backend looks into tunnels; RSS_CONTEXT, flow filters and IPsec; the legacy interface. Commands
//! of these kinds are answered VIRTIO_NET_ERR, frames that need them are not sent.
//!
//! # Frames out
//! A frame that makes no sense (no whole header, a length that no frame has, offloads that were not
//! agreed on or do not fit it, buffers for the device to write, addresses that are not memory) is lost
//! and counted, and its chain comes back: the driver's mistake costs that frame alone. The queue
//! breaks (DEVICE_NEEDS_RESET) only with its rings or its descriptors.
//!
//! # Frames in
//! Each queue's worker receives from the backend's queue of the same number, straight into the
//! driver's buffers. With MRG_RXBUF it takes as many in advance as the longest frame may need. When
//! the driver has made fewer available, a frame is received into host memory and waits for those
//! that it needs, for no longer than 20 ms. A receive chain without room for a header breaks the
//! queue, since nothing can be told in it.
//!
//! Frames that the driver's filters keep out, or that turn out to make no sense, may have been in its
//! buffers before the next frame is; only what is said to be used counts.
//!
//! Automatic steering is the backend's: it is told how many pairs are in use, and frames stay on the
//! queue that it chose. With RSS, workers hash the frames and hand them to each other through
//! bounded inboxes. The backend delivers on the first queues up to the first that has no worker, so
//! a receive queue that is being reset gets nothing, nor do those behind it; what came when nobody was
//! to receive it, also while the link was down, is lost.
//!
//! # Memory and time
//! A started queue takes its own bookkeeping and the buffers taken in advance, about 200 bytes for each
//! and no more than its entries; 24 bytes for each piece of memory in them, 1024 pieces and one chain
//! more at most; and, where frames are received into host memory, 64 KiB, and up to 256 KiB for
//! frames that wait. Tables of addresses take 6 bytes for each entry. Nothing is allocated for a
//! frame once these have grown, and no lock is taken or reference counted for each: a round of work,
//! of up to 64 frames, takes one lock of the device's settings. A command is carried out between
//! rounds, and is in force when it is answered.
//!
//! # Saved state
//! All that the driver has set up, and frames that it is still to get, go along; a frame that the backend
//! was too busy for is sent by whoever goes on. Buffers taken in advance are the queue's again. The
//! link goes along; the statistics are the owner's and stay behind. Time that a notification was held
//! back, or that a frame waited for buffers, begins anew.

mod coalesce;
mod config;
mod control;
mod device;
mod features;
mod filter;
mod header;
mod inbox;
mod receive;
mod saved;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod transmit;

pub use config::{Duplex, MAX_FILTER_ENTRIES, MAX_QUEUE_PAIRS, Options};
pub use device::VirtioNet;
pub use shared::Control;
