//! Turns a packet into a frame for the backend.

use paraslot_backends::net::parse::{HEADERS, Headers};
use paraslot_backends::net::{
    Frame, NetError, NetSender, NetStatistics, Offload, PartialChecksum, segment,
};
use paraslot_device::{DmaBuffers, DmaSpace, Memory};
use paraslot_spec::net::{ETHERNET_HEADER, VLAN_TAG, ether_type};
use paraslot_spec::vmxnet3::MAX_CSUM_OFFSET;

use super::packet::{Packet, Task};
use crate::statistics::Counts;

/// Bytes that are read of a packet of which only the destination matters.
const PLAIN_HEAD: usize = 64;
/// Where the Ethernet header's type is, and a tag goes.
const TYPE_AT: usize = 12;

/// Where frames go, and what is counted of them.
pub(crate) struct Out<'a> {
    /// The link is up.
    pub(crate) link: bool,
    /// Bytes of the longest frame that is not to be segmented.
    pub(crate) longest: usize,
    pub(crate) counts: &'a mut Counts,
    pub(crate) net: &'a mut NetStatistics,
}

/// Room to build frames in.
///
/// Frames are built behind the space for a tag, so that one can be put in by moving the addresses.
pub(crate) struct Builder {
    packet: Packet,
    head: [u8; VLAN_TAG + HEADERS],
    body: DmaBuffers,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self { packet: Packet::new(), head: [0; VLAN_TAG + HEADERS], body: Packet::no_body() }
    }

    pub(crate) fn packet_mut(&mut self) -> &mut Packet {
        &mut self.packet
    }

    /// Sends the packet at hand. [`NetError::Busy`]: the same again later.
    pub(crate) fn send<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        out: &mut Out<'_>,
        sender: &mut dyn NetSender,
    ) -> Result<(), NetError> {
        let Self { packet, head: room, body } = self;
        let len = packet.len().filter(|len| *len >= ETHERNET_HEADER).ok_or(NetError::Invalid)?;
        let task = packet.task();
        let head_len = if task == Task::Plain && len > HEADERS { PLAIN_HEAD } else { len };
        let head_len = head_len.min(HEADERS);
        let room = room.get_mut(..VLAN_TAG + head_len).ok_or(NetError::Invalid)?;
        let (_, head) = room.split_at_mut(VLAN_TAG);
        packet.gather(memory, head).map_err(|_| NetError::Invalid)?;
        let mut offload = Offload::default();
        match task {
            _ if len > out.longest && !matches!(task, Task::Segment { .. }) => {
                return Err(NetError::TooLong);
            }
            Task::Plain => {}
            Task::Checksum { start, place } => {
                offload.checksum = Some(partial(start, place).ok_or(NetError::Invalid)?);
            }
            Task::Segment { headers, size } => {
                offload = prepare(head, len, headers, size).ok_or(NetError::Invalid)?;
            }
        }
        let destination = head.first_chunk().copied().unwrap_or_default();
        let mut start = VLAN_TAG;
        if let Some(tag) = packet.tag() {
            insert_tag(room, tag);
            offload = shifted(offload);
            start = 0;
        }
        packet.body(memory, head_len, body).map_err(|_| NetError::Invalid)?;
        let head = room.get(start..).unwrap_or_default();
        let frame = Frame { head, body, offload };
        sender.send(&frame)?;
        let bytes = frame.len() as u64;
        out.net.sent_frames += 1;
        out.net.sent_bytes += bytes;
        out.net.copied_bytes += head_len as u64;
        if let Task::Segment { headers, size } = task {
            let segments = (len - headers.min(len)).div_ceil(size.max(1).into()).max(1) as u64;
            let headers = (headers + VLAN_TAG - start) as u64;
            let bytes = bytes + headers * (segments - 1);
            out.counts.large.add(segments, bytes);
            out.counts.passed(destination, segments, bytes);
        } else {
            out.counts.passed(destination, 1, bytes);
        }
        Ok(())
    }
}

/// The checksum that is to be filled in: `place` is from the start of the frame.
fn partial(start: usize, place: usize) -> Option<PartialChecksum> {
    if place > usize::from(MAX_CSUM_OFFSET) {
        return None;
    }
    let offset = u16::try_from(place.checked_sub(start)?).ok()?;
    Some(PartialChecksum { start: u16::try_from(start).ok()?, offset })
}

/// Makes a packet's headers such as a backend expects them. `None` if it is not TCP, or not as its
/// descriptor says.
fn prepare(head: &mut [u8], len: usize, header_len: usize, size: u16) -> Option<Offload> {
    let headers = Headers::parse(head);
    // CVE-2020-27617: what is neither IPv4 nor IPv6 is no reason to stop, and not to be segmented.
    let right = headers.header_len() == Some(header_len) && size != 0;
    right.then(|| segment::prepare_tcp(head, &headers, len, size))?
}

/// What is left to be done, once a tag is in front of it.
fn shifted(mut offload: Offload) -> Offload {
    const TAG: u16 = 4;
    const { assert!(TAG as usize == VLAN_TAG) };
    if let Some(checksum) = &mut offload.checksum {
        checksum.start = checksum.start.saturating_add(TAG);
    }
    if let Some(segmentation) = &mut offload.segmentation {
        segmentation.header_len = segmentation.header_len.saturating_add(TAG);
    }
    offload
}

/// Puts a tag behind the addresses of the frame that begins at `VLAN_TAG` of `room`, and then at its
/// start.
fn insert_tag(room: &mut [u8], tag: u16) {
    if room.len() < VLAN_TAG + TYPE_AT {
        return;
    }
    room.copy_within(VLAN_TAG..VLAN_TAG + TYPE_AT, 0);
    let [kind_high, kind_low] = ether_type::VLAN.to_be_bytes();
    let [high, low] = tag.to_be_bytes();
    if let Some(place) = room.get_mut(TYPE_AT..TYPE_AT + VLAN_TAG) {
        place.copy_from_slice(&[kind_high, kind_low, high, low]);
    }
}
