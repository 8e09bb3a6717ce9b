//! What the transmitter holds between two rounds of work, saved.
//!
//! Each descriptor is taken once: what was taken of a packet that is not complete, or that the backend
//! did not take, is here, and TDH is behind it, or at the last descriptor of a packet that is complete.

use std::time::Duration;

use paraslot_device::StateError;
use paraslot_spec::e1000::registers::{TDBAL, TDH};
use paraslot_spec::e1000::{Context, transmit};
use serde::{Deserialize, Serialize};

use super::Transmit;
use super::packet::{Kind, Packet};
use super::send::Last;
use super::software::Offsets;
use crate::delay::{Delay, DelayState};
use crate::registers::Bank;
use crate::state::{is_default, require};

/// The transmitter's state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TransmitState {
    /// The context for checksums.
    checksum: OffsetsState,
    /// The context for segmentation.
    segmentation: OffsetsState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    packet: Option<PacketState>,
    #[serde(default, skip_serializing_if = "is_default")]
    delay: DelayState,
}

/// A context, with the flags in its command.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OffsetsState {
    ipcss: u8,
    ipcso: u8,
    ipcse: u16,
    tucss: u8,
    tucso: u8,
    tucse: u16,
    paylen: u32,
    hdrlen: u8,
    mss: u16,
    ip: bool,
    tcp: bool,
}

/// A packet that has been begun.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PacketState {
    kind: KindState,
    /// Addresses and bytes of its buffers; none if it is too long, or has too many.
    pieces: Vec<(u64, u32)>,
    #[serde(default, skip_serializing_if = "is_default")]
    excess: bool,
    /// If it is complete: what its last descriptor says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<LastState>,
    /// Segments of it that have been sent.
    #[serde(default, skip_serializing_if = "is_default")]
    sent: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum KindState {
    Legacy,
    Data { offsets: OffsetsState, options: u8 },
    Segmented { offsets: OffsetsState, options: u8 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastState {
    command: u32,
    css: u8,
    special: u16,
}

impl Transmit {
    pub(crate) fn save(&self, now: Duration) -> TransmitState {
        // Whether the backend is busy is seen anew.
        let Self { contexts, packet, ready, busy: _, delay, run: _, builder } = self;
        let [checksum, segmentation] = contexts.map(|offsets| OffsetsState::of(&offsets));
        let last = ready.map(|Last { command, css, special }| LastState { command, css, special });
        let packet = packet.kind().map(|kind| PacketState {
            kind: KindState::of(&kind),
            pieces: if packet.len().is_some() { packet.pieces().to_vec() } else { Vec::new() },
            excess: packet.len().is_none(),
            last,
            sent: u32::try_from(builder.sent()).unwrap_or(u32::MAX),
        });
        TransmitState { checksum, segmentation, packet, delay: delay.save(now) }
    }

    /// Takes over what was saved, after a reset and the registers.
    pub(crate) fn restore(
        &mut self,
        state: &TransmitState,
        bank: &Bank,
        now: Duration,
    ) -> Result<(), StateError> {
        let TransmitState { checksum, segmentation, packet, delay } = state;
        self.contexts = [checksum.check()?, segmentation.check()?];
        self.delay = Delay::restored(delay, now)?;
        let Some(state) = packet else { return Ok(()) };
        let PacketState { kind, pieces, excess, last, sent } = state;
        // A ring's registers begin it anew when they are written, so it is the one that the packet's
        // descriptors came from.
        let inside = bank.get(TDH) < bank.ring(TDBAL).len();
        require(inside, "a packet has been begun in no ring")?;
        self.packet = restored(kind.check()?, pieces, *excess)?;
        self.ready = last.as_ref().map(LastState::check).transpose()?;
        let sent = usize::try_from(*sent).unwrap_or(usize::MAX);
        let going_on = match &self.ready {
            Some(last) => self.builder.go_on(&self.packet, last, sent),
            None => sent == 0,
        };
        require(going_on, "more segments have been sent than there are")
    }
}

/// The packet of these pieces, added one by one.
fn restored(kind: Kind, pieces: &[(u64, u32)], excess: bool) -> Result<Packet, StateError> {
    if excess {
        require(pieces.is_empty(), "a packet that is too long has buffers")?;
        return Ok(Packet::too_long(kind));
    }
    let mut packet = Packet::new();
    packet.add(kind, 0, 0);
    for &(address, len) in pieces {
        let right = (1..=transmit::DTALEN).contains(&len);
        require(right, "a buffer to be sent of an impossible length")?;
        packet.add(kind, address, len);
        require(packet.len().is_some(), "a packet is too long")?;
    }
    Ok(packet)
}

impl LastState {
    fn check(&self) -> Result<Last, StateError> {
        let Self { command, css, special } = *self;
        let data = command & transmit::DTYP == transmit::DTYP_DATA;
        let ends = command & transmit::EOP != 0 && (command & transmit::DEXT == 0 || data);
        require(ends, "a packet is complete without its last descriptor")?;
        Ok(Last { command, css, special })
    }
}

impl KindState {
    fn of(kind: &Kind) -> Self {
        match kind {
            Kind::Legacy => Self::Legacy,
            Kind::Data { offsets, options } => {
                Self::Data { offsets: OffsetsState::of(offsets), options: *options }
            }
            Kind::Segmented { offsets, options } => {
                Self::Segmented { offsets: OffsetsState::of(offsets), options: *options }
            }
        }
    }

    fn check(&self) -> Result<Kind, StateError> {
        Ok(match self {
            Self::Legacy => Kind::Legacy,
            Self::Data { offsets, options } => {
                Kind::Data { offsets: offsets.check()?, options: *options }
            }
            Self::Segmented { offsets, options } => {
                Kind::Segmented { offsets: offsets.check()?, options: *options }
            }
        })
    }
}

impl OffsetsState {
    fn of(offsets: &Offsets) -> Self {
        let Offsets { context, ip, tcp } = *offsets;
        let Context { ipcss, ipcso, ipcse, tucss, tucso, tucse, paylen, hdrlen, mss } = context;
        Self { ipcss, ipcso, ipcse, tucss, tucso, tucse, paylen, hdrlen, mss, ip, tcp }
    }

    fn check(&self) -> Result<Offsets, StateError> {
        let Self { ipcss, ipcso, ipcse, tucss, tucso, tucse, paylen, hdrlen, mss, ip, tcp } = *self;
        require(paylen <= transmit::DTALEN, "PAYLEN of more than 20 bits")?;
        let context = Context { ipcss, ipcso, ipcse, tucss, tucso, tucse, paylen, hdrlen, mss };
        Ok(Offsets { context, ip, tcp })
    }
}
