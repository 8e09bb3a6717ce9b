//! A receive queue, and the frame that waits for buffers, saved.

use paraslot_backends::net::MAX_FRAME;
use paraslot_backends::net::parse::HEADERS;
use paraslot_device::StateError;
use paraslot_spec::net::ETHERNET_HEADER;
use paraslot_spec::vmxnet3::{RC_RING_MAX_SIZE, RX_RING_MAX_SIZE, queue_error, rcd};
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use super::{Arrival, Rings, RxQueue};
use crate::activate::check_data_ring;
use crate::ring::{Ring, RingState};
use crate::rss::Hash;
use crate::save::{is_default, possible, require};

/// A receive queue's state. Where its descriptor is, and what its rings are called, follows from its
/// number.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RxState {
    first: RingState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    second: Option<RingState>,
    comp: RingState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<DataState>,
    intr: u8,
    /// The driver has been asked to ring when it gives buffers.
    #[serde(default, skip_serializing_if = "is_default")]
    asked: bool,
    /// Why it has stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stopped: Option<u32>,
}

/// A data ring.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DataState {
    base: u64,
    /// Bytes of an entry.
    entry: u16,
}

/// Why a receive queue stops.
const ERRORS: [u32; 2] = [queue_error::DESC_NOT_SPT, queue_error::SMALL_BUF];

impl RxQueue {
    pub(crate) fn save(&self) -> Result<RxState, StateError> {
        // The buffers are those of a packet that has been delivered.
        let Self {
            rings: [first, second],
            comp,
            data_ring,
            heads_alone: _,
            ids: _,
            intr,
            control: _,
            asked,
            stopped,
            buffers: _,
        } = self;
        let first = first.as_ref().map(Ring::save);
        Ok(RxState {
            first: first.ok_or_else(|| StateError::impossible("a queue without a ring"))?,
            second: second.as_ref().map(Ring::save),
            comp: comp.save(),
            data: data_ring.map(|(base, entry)| DataState { base, entry }),
            intr: *intr,
            asked: *asked,
            stopped: *stopped,
        })
    }

    /// Whether packets go on in head buffers.
    pub(crate) fn heads_alone(&self) -> bool {
        self.heads_alone
    }

    /// A queue as it was saved, with data rings or without. Whether there is such an interrupt is for the
    /// caller to see.
    pub(crate) fn restored(
        state: &RxState,
        heads_alone: bool,
        data_rings: bool,
        ids: [u32; 3],
        control: GuestAddress,
    ) -> Result<Self, StateError> {
        let RxState { first, second, comp, data, intr, asked, stopped } = state;
        let first = Ring::restored(first, RX_RING_MAX_SIZE)?;
        let second = second.as_ref().map(|ring| Ring::restored(ring, RX_RING_MAX_SIZE));
        let data = match data {
            Some(DataState { base, entry }) => {
                possible(check_data_ring(*base, first.size(), *entry))?;
                let there = *base != 0 && *entry != 0 && data_rings;
                require(there, "a data ring where there is none")?;
                Some((*base, *entry))
            }
            None => None,
        };
        let rings = Rings {
            descriptors: [Some(first), second.transpose()?],
            comp: Ring::restored(comp, RC_RING_MAX_SIZE)?,
            data,
        };
        let known = stopped.is_none_or(|error| ERRORS.contains(&error));
        require(known, "a receive queue has stopped for no reason that there is")?;
        let queue = Self::new(rings, heads_alone, ids, *intr, control);
        Ok(Self { asked: *asked, stopped: *stopped, ..queue })
    }
}

impl RxState {
    pub(crate) fn intr(&self) -> u8 {
        self.intr
    }
}

/// A frame that has passed the filters, with what its completion is to say.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArrivalState {
    #[serde(with = "hex")]
    frame: Vec<u8>,
    queue: u8,
    hash: u32,
    hash_kind: u8,
    tag: Option<u16>,
    checked: bool,
    flags: u32,
    segments: Option<(u8, u16)>,
    tells_segments: bool,
    packets: u64,
    bytes: u64,
}

/// What a completion says of a frame's headers.
const FLAGS: u32 = rcd::V4 | rcd::V6 | rcd::FRG | rcd::IPC | rcd::TCP | rcd::UDP | rcd::TUC;

impl ArrivalState {
    pub(super) fn of(arrival: &Arrival, room: &[u8]) -> Self {
        let Arrival {
            start,
            end,
            destination: _,
            queue,
            hash: Hash { value: hash, kind },
            tag,
            checked,
            flags,
            segments,
            tells_segments,
            packets,
            bytes,
        } = *arrival;
        Self {
            frame: room.get(start..end).unwrap_or_default().into(),
            queue: u8::try_from(queue).unwrap_or(u8::MAX),
            hash,
            hash_kind: u8::try_from(kind).unwrap_or(u8::MAX),
            tag,
            checked,
            flags,
            segments,
            tells_segments,
            packets,
            bytes,
        }
    }

    /// The frame's bytes, and what there is to know of it, for a device with `queues` receive queues. None
    /// of what its completion says depends on what is in guest memory.
    pub(crate) fn check(&self, queues: usize) -> Result<Arrival, StateError> {
        let Self {
            frame,
            queue,
            hash,
            hash_kind,
            tag,
            checked,
            flags,
            segments,
            tells_segments,
            packets,
            bytes,
        } = self;
        let len = frame.len();
        let queue = usize::from(*queue);
        let right = (ETHERNET_HEADER..=MAX_FRAME).contains(&len) && queue < queues;
        require(right, "a received frame of an impossible length, or for no queue")?;
        let both = |bits: u32| flags & bits == bits;
        let hashed =
            u32::from(*hash_kind) <= rcd::RSS_TYPE_TCPIPV6 && (*hash_kind != 0 || *hash == 0);
        let right =
            hashed && flags & !FLAGS == 0 && !both(rcd::V4 | rcd::V6) && !both(rcd::TCP | rcd::UDP);
        require(right, "a received frame's completion")?;
        let (least, most) = (len as u64, HEADERS as u64);
        let right = match *segments {
            None => *packets == 1 && *bytes == least && !tells_segments,
            Some((told, size)) => {
                (1..=least).contains(packets)
                    && u64::from(told) == (*packets).min(u8::MAX.into())
                    && size != 0
                    && (least..=least + most * packets).contains(bytes)
            }
        };
        require(right, "a received frame of impossible segments")?;
        Ok(Arrival {
            start: 0,
            end: len,
            destination: frame.first_chunk().copied().unwrap_or_default(),
            queue,
            hash: Hash { value: *hash, kind: (*hash_kind).into() },
            tag: *tag,
            checked: *checked,
            flags: *flags,
            segments: *segments,
            tells_segments: *tells_segments,
            packets: *packets,
            bytes: *bytes,
        })
    }

    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }
}
