//! A receive queue's part of the saved state.

use paraslot_backends::net::{Cut, MAX_FRAME, Offload, PartialChecksum, Segmentation};
use paraslot_device::{DmaSpace, StateError};
use paraslot_spec::net::ETHERNET_HEADER;
use paraslot_virtio::QueueState;
use serde::{Deserialize, Serialize};

use super::{ReceiveWorker, STALE, Way};
use crate::inbox::{Arrival, Hash};
use crate::saved::is_zero;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReceiveState {
    queue: QueueState,
    /// Frames that the driver was given and not told of, because of coalescing.
    #[serde(default, skip_serializing_if = "is_zero")]
    held: u32,
    /// Frames that may still be there and are not for this driver.
    #[serde(default, skip_serializing_if = "is_zero")]
    stale: u32,
    /// Frames that wait for buffers, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    inbox: Vec<ArrivalState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ArrivalState {
    #[serde(with = "hex")]
    bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<ChecksumState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segmentation: Option<SegmentationState>,
    checksum_valid: bool,
    hash: u32,
    hash_report: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChecksumState {
    start: u16,
    offset: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentationState {
    cut: CutState,
    size: u16,
    header_len: u16,
    ecn: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CutState {
    Tcp4,
    Tcp6,
    UdpFragments,
    UdpDatagrams,
}

impl ArrivalState {
    fn new((arrival, bytes): (Arrival, Vec<u8>)) -> Self {
        let Arrival { len: _, offload, hash } = arrival;
        let Offload { checksum, segmentation, checksum_valid } = offload;
        let checksum =
            checksum.map(|PartialChecksum { start, offset }| ChecksumState { start, offset });
        let segmentation = segmentation.map(|Segmentation { cut, size, header_len, ecn }| {
            let cut = match cut {
                Cut::Tcp4 => CutState::Tcp4,
                Cut::Tcp6 => CutState::Tcp6,
                Cut::UdpFragments => CutState::UdpFragments,
                Cut::UdpDatagrams => CutState::UdpDatagrams,
            };
            SegmentationState { cut, size, header_len, ecn }
        });
        let Hash { value: hash, report: hash_report } = hash;
        Self { bytes, checksum, segmentation, checksum_valid, hash, hash_report }
    }

    /// The frame, if one can have arrived like this. Whether the offload fits it is looked at when the
    /// driver is given it, as ever.
    fn read(&self) -> Result<(Arrival, &[u8]), StateError> {
        let Self { bytes, checksum, segmentation, checksum_valid, hash, hash_report } = self;
        let hash = Hash { value: *hash, report: *hash_report };
        if !(ETHERNET_HEADER..=MAX_FRAME).contains(&bytes.len()) || !hash.is_possible() {
            return Err(StateError::impossible("a frame that waits and cannot have arrived"));
        }
        let checksum = checksum
            .as_ref()
            .map(|&ChecksumState { start, offset }| PartialChecksum { start, offset });
        let segmentation = segmentation.as_ref().map(|state| {
            let SegmentationState { ref cut, size, header_len, ecn } = *state;
            let cut = match cut {
                CutState::Tcp4 => Cut::Tcp4,
                CutState::Tcp6 => Cut::Tcp6,
                CutState::UdpFragments => Cut::UdpFragments,
                CutState::UdpDatagrams => Cut::UdpDatagrams,
            };
            Segmentation { cut, size, header_len, ecn }
        });
        let offload = Offload { checksum, segmentation, checksum_valid: *checksum_valid };
        Ok((Arrival { len: bytes.len(), offload, hash }, bytes))
    }
}

impl<A: DmaSpace> ReceiveWorker<A> {
    /// What [`restore`](Self::restore) takes, of a worker that is quiet.
    pub(crate) fn save(&self) -> ReceiveState {
        let Self { shared: _, port, way } = self;
        // Destructured, so that a new field is thought of. Buffers have been given back.
        let Way {
            pair: _,
            queue,
            receiver: _,
            asked: _,
            buffers: _,
            scratch: _,
            stale,
            short: _,
            patience: _,
            coalescer,
            tally: _,
            copied: _,
        } = way;
        ReceiveState {
            queue: queue.save(),
            held: coalescer.held(),
            stale: *stale,
            inbox: port.inbox.frames().into_iter().map(ArrivalState::new).collect(),
        }
    }

    /// Puts a worker that was just made where another was.
    pub(crate) fn restore(&mut self, state: &ReceiveState) -> Result<(), StateError> {
        let ReceiveState { queue, held, stale, inbox } = state;
        self.way.queue.restore(queue, &[])?;
        if *stale > STALE {
            return Err(StateError::impossible(format!("{stale} frames to be thrown away")));
        }
        self.way.coalescer.hold(*held);
        self.way.stale = *stale;
        for frame in inbox {
            let (arrival, bytes) = frame.read()?;
            if self.port.inbox.put(arrival, bytes).is_err() {
                return Err(StateError::impossible("more frames than wait at most"));
            }
        }
        Ok(())
    }
}
