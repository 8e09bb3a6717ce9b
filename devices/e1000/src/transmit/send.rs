//! Turns a packet into a frame for the backend.

use paraslot_backends::net::parse::HEADERS;
use paraslot_backends::net::{Frame, MAX_FRAME, NetError, NetSender, Offload};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace};
use paraslot_spec::e1000::registers::{CTRL, TCTL, VET};
use paraslot_spec::e1000::statistics::{MPC, TSCTC, TSCTFC};
use paraslot_spec::e1000::{Cause, Context, Ctrl, FCS_LEN, SHORTEST, Tctl, VLAN_TAG_LEN, transmit};
use paraslot_spec::net::ETHERNET_HEADER;

use super::offload::{prepare_segmentation, recognised, shifted};
use super::packet::{Kind, Packet};
use super::software::{self, MOST_SEGMENTS, Offsets, Range, Segments};
use crate::engine::Env;
use crate::looped::Looped;

/// Longest packet that is not segmented, in bytes without FCS (3.3.3: 16288 in all).
pub(crate) const LONGEST_PACKET: usize = 16288;
/// Bytes that are read of a packet of which only the destination matters.
const PLAIN_HEAD: usize = 64;
/// Where the Ethernet header's type is, and a tag goes.
const TYPE_AT: usize = 12;

/// What the last descriptor of a packet says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Last {
    /// The command word.
    pub(crate) command: u32,
    /// CSS, of a legacy descriptor.
    pub(crate) css: u8,
    /// The VLAN tag.
    pub(crate) special: u16,
}

/// Where frames go.
pub(crate) enum Out<'a> {
    Wire(&'a mut dyn NetSender),
    /// Back to the receiver.
    Loop(&'a mut Looped),
}

/// Room to build frames in.
///
/// Frames are built behind the space for a tag, so that one can be put in by moving the addresses.
pub(crate) struct Builder {
    head: [u8; VLAN_TAG_LEN + HEADERS],
    /// All of a packet that has to be in one place.
    whole: Vec<u8>,
    segment: Vec<u8>,
    /// Segments of the packet that have been sent, if it was interrupted.
    sent: usize,
    none: DmaBuffers,
}

/// What is to be done to a packet.
#[derive(Clone, Copy)]
struct Task {
    len: usize,
    tag: Option<[u8; VLAN_TAG_LEN]>,
    pad: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            head: [0; VLAN_TAG_LEN + HEADERS],
            whole: Vec::new(),
            segment: Vec::new(),
            sent: 0,
            none: DmaBuffers::empty(Direction::ToDevice),
        }
    }

    /// Forgets how far it was.
    pub(crate) fn reset(&mut self) {
        self.sent = 0;
    }

    /// Segments of the packet that have been sent, if it was interrupted.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Goes on with a packet of which `sent` segments have been sent. Says no if it has not so many and
    /// one more.
    pub(super) fn go_on(&mut self, packet: &Packet, last: &Last, sent: usize) -> bool {
        self.sent = sent;
        let segments = match packet.kind() {
            Some(Kind::Segmented { offsets, options }) => frame_len(packet, last)
                .and_then(|len| Segments::new(offsets, options, len))
                .map_or(0, |segments| segments.count()),
            _ => 0,
        };
        sent == 0 || sent < segments && segments <= MOST_SEGMENTS
    }

    /// Sends `packet`. [`NetError::Busy`]: the same again later.
    pub(crate) fn send<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        packet: &Packet,
        last: &Last,
    ) -> Result<(), NetError> {
        let kind = packet.kind().unwrap_or(Kind::Legacy);
        let len = frame_len(packet, last).ok_or(NetError::Invalid)?;
        let bank = &env.shared.bank;
        let vlan = last.command & transmit::VLE != 0 && bank.get(CTRL) & Ctrl::VME.bits() != 0;
        let tag = vlan.then(|| {
            let [low, high, ..] = bank.get(VET).to_le_bytes();
            let [first, second] = last.special.to_be_bytes();
            [high, low, first, second]
        });
        let pad = bank.get(TCTL) & Tctl::PSP.bits() != 0;
        let task = Task { len, tag, pad };
        let result = match kind {
            Kind::Segmented { offsets, options } => {
                self.send_segmented(env, out, packet, task, offsets, options)
            }
            _ if len > LONGEST_PACKET => Err(NetError::Invalid),
            Kind::Legacy => {
                let [_, _, cso, _] = last.command.to_le_bytes();
                // As a context that asks for the one checksum, to the end of the packet.
                let context = Context { tucss: last.css, tucso: cso, ..Context::default() };
                let options = if last.command & transmit::IC != 0 { transmit::TXSM } else { 0 };
                self.send_whole(env, out, packet, task, &context, options)
            }
            Kind::Data { offsets, options } => {
                self.send_whole(env, out, packet, task, &offsets.context, options)
            }
        };
        if !matches!(result, Err(NetError::Busy)) {
            self.sent = 0;
        }
        result
    }

    /// Sends a packet as one frame.
    fn send_whole<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        packet: &Packet,
        task: Task,
        context: &Context,
        options: u8,
    ) -> Result<(), NetError> {
        let Task { len, tag, pad } = task;
        let options = options & (transmit::IXSM | transmit::TXSM);
        let head_len = if options == 0 && len > HEADERS { PLAIN_HEAD } else { len.min(HEADERS) };
        if matches!(out, Out::Loop(_)) {
            return self.send_copy(env, out, packet, task, context, options);
        }
        let room = self.head.get_mut(..VLAN_TAG_LEN + head_len).ok_or(NetError::Invalid)?;
        let (_, head) = room.split_at_mut(VLAN_TAG_LEN);
        packet.gather(env.memory, head).map_err(|_| NetError::Invalid)?;
        let mut offload = Offload::default();
        if options != 0 {
            let Context { ipcss, ipcso, ipcse, .. } = *context;
            let ip = (options & transmit::IXSM != 0)
                .then(|| Range::new(ipcss, ipcso, ipcse, len))
                .flatten();
            if ip.is_some_and(|ip| ip.extent() > head_len) {
                return self.send_copy(env, out, packet, task, context, options);
            }
            if options & transmit::TXSM != 0 {
                offload.checksum = recognised(head, context, len);
            }
            if offload.checksum.is_none() {
                if head_len != len {
                    return self.send_copy(env, out, packet, task, context, options);
                }
                software::insert_checksums(head, context, options);
            } else if let Some(ip) = ip {
                ip.insert(head, false);
            }
        }
        let destination = destination(head);
        let mut start = VLAN_TAG_LEN;
        if let Some(tag) = tag {
            insert_tag(room, tag);
            start = 0;
            offload = shifted(offload);
        }
        let mut end = VLAN_TAG_LEN + head_len;
        if pad && head_len == len && end - start < SHORTEST {
            let padded = start + SHORTEST;
            if let Some(padding) = self.head.get_mut(end..padded) {
                padding.fill(0);
            }
            end = padded;
        }
        let head = self.head.get(start..end).unwrap_or_default();
        let body;
        let body = if head_len == len {
            &self.none
        } else {
            body = packet.body(env.memory, head_len, len).map_err(|_| NetError::Invalid)?;
            &body
        };
        let total = head.len() + body.len();
        emit(env, out, &Frame { head, body, offload })?;
        env.tally.net.copied_bytes += head_len as u64;
        env.tally.transmitted(destination, total, 1);
        Ok(())
    }

    /// Sends a packet as one frame, with nothing left to others: by way of host memory.
    fn send_copy<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        packet: &Packet,
        task: Task,
        context: &Context,
        options: u8,
    ) -> Result<(), NetError> {
        let Task { len, tag, pad } = task;
        self.gather(env, packet, len)?;
        let Some(frame) = self.whole.get_mut(VLAN_TAG_LEN..) else { return Ok(()) };
        software::insert_checksums(frame, context, options);
        let destination = destination(frame);
        let frame = finish(&mut self.whole, tag, pad);
        emit(env, out, &Frame { head: frame, body: &self.none, offload: Offload::default() })?;
        env.tally.transmitted(destination, frame.len(), 1);
        Ok(())
    }

    /// Copies all of a packet to host memory.
    fn gather<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        packet: &Packet,
        len: usize,
    ) -> Result<(), NetError> {
        self.whole.clear();
        self.whole.resize(VLAN_TAG_LEN + len, 0);
        let frame = self.whole.get_mut(VLAN_TAG_LEN..).unwrap_or_default();
        packet.gather(env.memory, frame).map_err(|_| NetError::Invalid)?;
        env.tally.net.copied_bytes += len as u64;
        Ok(())
    }

    /// Sends a packet that is to be segmented (3.5).
    fn send_segmented<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        packet: &Packet,
        task: Task,
        offsets: Offsets,
        options: u8,
    ) -> Result<(), NetError> {
        let tag = if task.tag.is_some() { VLAN_TAG_LEN } else { 0 };
        let segments = Segments::new(offsets, options, task.len)
            .filter(|_| task.len.saturating_add(tag) <= MAX_FRAME);
        let result = match (segments, &out) {
            (None, _) => Err(NetError::Invalid),
            (Some(segments), Out::Loop(_)) => self.send_segments(env, out, packet, task, &segments),
            (Some(segments), Out::Wire(_)) => {
                let tried = self.leave_segments(env, out, packet, task, &offsets, options);
                match tried {
                    Some(Ok(total)) => {
                        count_segments(env, &segments, total, task.tag.is_some());
                        Ok(())
                    }
                    Some(Err(error)) => Err(error),
                    None => self.send_segments(env, out, packet, task, &segments),
                }
            }
        };
        match &result {
            Ok(()) => env.tally.count(TSCTC, 1),
            Err(NetError::Busy) => {}
            Err(_) => env.tally.count(TSCTFC, 1),
        }
        result
    }

    /// Leaves a packet's segmentation to the backend, if it is one that others understand: TCP, and
    /// the context says what its headers say. Returns the destination.
    fn leave_segments<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        packet: &Packet,
        task: Task,
        offsets: &Offsets,
        options: u8,
    ) -> Option<Result<[u8; 6], NetError>> {
        let Task { len, tag, .. } = task;
        let head_len = len.min(HEADERS);
        let room = self.head.get_mut(..VLAN_TAG_LEN + head_len)?;
        let (_, head) = room.split_at_mut(VLAN_TAG_LEN);
        if packet.gather(env.memory, head).is_err() {
            return Some(Err(NetError::Invalid));
        }
        let mut offload = prepare_segmentation(head, len, offsets, options)?;
        let destination = destination(head);
        let mut start = VLAN_TAG_LEN;
        if let Some(tag) = tag {
            insert_tag(room, tag);
            start = 0;
            offload = shifted(offload);
        }
        let body = match packet.body(env.memory, head_len, len) {
            Ok(body) => body,
            Err(_) => return Some(Err(NetError::Invalid)),
        };
        let head = self.head.get(start..VLAN_TAG_LEN + head_len)?;
        let result = emit(env, out, &Frame { head, body: &body, offload });
        if result.is_ok() {
            env.tally.net.copied_bytes += head_len as u64;
        }
        Some(result.map(|()| destination))
    }

    /// Segments a packet here.
    fn send_segments<A: DmaSpace>(
        &mut self,
        env: &mut Env<'_, A>,
        out: &mut Out<'_>,
        packet: &Packet,
        task: Task,
        segments: &Segments,
    ) -> Result<(), NetError> {
        let Task { len, tag, pad } = task;
        if segments.count() > MOST_SEGMENTS {
            return Err(NetError::Invalid);
        }
        self.gather(env, packet, len)?;
        while self.sent < segments.count() {
            let whole = self.whole.get(VLAN_TAG_LEN..).unwrap_or_default();
            segments.build(whole, self.sent, VLAN_TAG_LEN, &mut self.segment);
            let destination = self.segment.get(VLAN_TAG_LEN..).map_or([0; 6], destination);
            let frame = finish(&mut self.segment, tag, pad);
            if frame.len() < ETHERNET_HEADER {
                return Err(NetError::Invalid);
            }
            let offload = Offload::default();
            emit(env, out, &Frame { head: frame, body: &self.none, offload })?;
            env.tally.transmitted(destination, frame.len(), 1);
            self.sent += 1;
        }
        Ok(())
    }
}

/// Bytes of what is to be sent of a packet, if they are neither too few nor too many.
fn frame_len(packet: &Packet, last: &Last) -> Option<usize> {
    // Without IFCS the last four bytes are the FCS, which is the wire's business.
    let fcs = if last.command & transmit::IFCS == 0 { FCS_LEN } else { 0 };
    packet.len()?.checked_sub(fcs).filter(|len| *len >= ETHERNET_HEADER)
}

/// Hands a frame over.
fn emit<A: DmaSpace>(
    env: &mut Env<'_, A>,
    out: &mut Out<'_>,
    frame: &Frame<'_>,
) -> Result<(), NetError> {
    match out {
        Out::Wire(sender) => {
            sender.send(frame)?;
            env.tally.net.sent_frames += 1;
            env.tally.net.sent_bytes += frame.len() as u64;
        }
        Out::Loop(looped) => {
            if !looped.push(frame.head) {
                // The packet buffer is full, as the receiver does not empty it.
                env.tally.count(MPC, 1);
                env.causes |= Cause::RXO;
            }
        }
    }
    Ok(())
}

fn count_segments<A: DmaSpace>(
    env: &mut Env<'_, A>,
    segments: &Segments,
    destination: [u8; 6],
    tagged: bool,
) {
    let (full, last) = segments.lengths();
    let tag = if tagged { VLAN_TAG_LEN } else { 0 };
    env.tally.transmitted(destination, full + tag, segments.count() - 1);
    env.tally.transmitted(destination, last + tag, 1);
}

fn destination(frame: &[u8]) -> [u8; 6] {
    frame.first_chunk().copied().unwrap_or_default()
}

/// Puts a tag behind the addresses of the frame that begins at `VLAN_TAG_LEN` of `room`, and then at
/// its start.
fn insert_tag(room: &mut [u8], tag: [u8; VLAN_TAG_LEN]) {
    if room.len() >= VLAN_TAG_LEN + TYPE_AT {
        room.copy_within(VLAN_TAG_LEN..VLAN_TAG_LEN + TYPE_AT, 0);
        if let Some(place) = room.get_mut(TYPE_AT..TYPE_AT + VLAN_TAG_LEN) {
            place.copy_from_slice(&tag);
        }
    }
}

/// The frame in `room`, tagged and padded.
fn finish(room: &mut Vec<u8>, tag: Option<[u8; VLAN_TAG_LEN]>, pad: bool) -> &[u8] {
    let mut start = VLAN_TAG_LEN;
    if let Some(tag) = tag {
        insert_tag(room, tag);
        start = 0;
    }
    if pad && room.len() < start + SHORTEST {
        room.resize(start + SHORTEST, 0);
    }
    room.get(start..).unwrap_or_default()
}
