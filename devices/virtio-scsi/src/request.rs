//! Requests (5.6.6.1): what a chain asks for, and where its answer goes.
//!
//! A chain is two sequences of bytes. The device reads a header, a CDB of cdb_size bytes and data out;
//! it writes a response, sense data in a field of sense_size bytes and data in.

use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaSpace, Memory, StateError};
use paraslot_scsi::{Attribute, Cdb, Command, Sense, SenseFormat};
use paraslot_spec::scsi::opcode::{VARIABLE_LENGTH, cdb_len};
use paraslot_spec::virtio_scsi::{RequestHeader, ResponseHeader, response, task_attribute};
use paraslot_virtio::segments::{part, read, total, write};
use paraslot_virtio::{Chain, Segment};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use vm_memory::{GuestAddress, GuestMemory, Permissions};
use zerocopy::{FromBytes, IntoBytes};

use crate::address::{Scope, Whom, decode};
use crate::config::MAX_SENSE_SIZE;

const HEADER: u64 = size_of::<RequestHeader>() as u64;
const RESPONSE: u64 = size_of::<ResponseHeader>() as u64;
/// Bytes of header and CDB that are looked at.
const FRONT: usize = size_of::<RequestHeader>() + Cdb::MAX;
/// Bytes of the longest response with its sense data.
const BACK: usize = size_of::<ResponseHeader>() + MAX_SENSE_SIZE as usize;

/// Sizes that the driver has set, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) sense: u32,
    pub(crate) cdb: u32,
}

/// Where the answer to a request goes, and how much data there is.
#[derive(Debug, Default)]
pub(crate) struct Place {
    pieces: SmallVec<[(GuestAddress, usize); 2]>,
    /// Bytes of response and sense data.
    len: usize,
    /// Bytes of data, in both directions.
    data: u64,
    /// Data is written to the guest, right behind the sense data.
    reads: bool,
}

/// A [`Place`], saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceState {
    /// Guest addresses, and bytes there.
    pieces: Vec<(u64, usize)>,
    data: u64,
    reads: bool,
}

/// How a request ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `response::*`.
    pub(crate) response: u8,
    /// SCSI status.
    pub(crate) status: u8,
    pub(crate) sense: Option<(Box<Sense>, SenseFormat)>,
    /// Bytes of data that were moved.
    pub(crate) moved: u64,
}

impl Ended {
    /// Without a status from a unit.
    pub(crate) fn with(response: u8) -> Self {
        Self { response, status: 0, sense: None, moved: 0 }
    }
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// A command for a unit.
    Command(Command),
    /// A command for a well-known unit.
    ReportLuns(Scope, Cdb, DmaBuffers),
}

impl Place {
    /// Finds where the answer to `chain` goes. `false` if there is no place for a response in memory:
    /// the driver cannot be told anything.
    pub(crate) fn find<A: DmaSpace>(
        &mut self,
        memory: &Memory<A>,
        writable: &[Segment],
        sense_size: u32,
    ) -> bool {
        let room = total(writable);
        let len = (RESPONSE + u64::from(sense_size)).min(room);
        self.pieces.clear();
        self.pieces.extend(part(writable, 0, len));
        self.len = usize::try_from(len).unwrap_or_default();
        self.data = 0;
        self.reads = false;
        let here = |&(address, len): &(GuestAddress, usize)| {
            memory.check_range(address, len, Permissions::Write)
        };
        len >= RESPONSE && self.pieces.iter().all(here)
    }

    /// Bytes of data, in both directions.
    pub(crate) fn data(&self) -> u64 {
        self.data
    }

    pub(crate) fn save(&self) -> PlaceState {
        let Self { pieces, len: _, data, reads } = self;
        let pieces = pieces.iter().map(|(address, len)| (address.0, *len)).collect();
        PlaceState { pieces, data: *data, reads: *reads }
    }

    /// A place as [`find`](Self::find) can have found it. Whether it is memory is seen when the answer
    /// is written: the guest may have taken it away since.
    pub(crate) fn restore(state: &PlaceState) -> Result<Self, StateError> {
        let PlaceState { ref pieces, data, reads } = *state;
        let whole = size_of::<ResponseHeader>()..=BACK;
        let len = pieces.iter().fold(0, |sum: usize, (_, len)| sum.saturating_add(*len));
        if !whole.contains(&len) || pieces.iter().any(|(_, len)| *len == 0) || (reads && data == 0)
        {
            return Err(StateError::impossible("a place where no answer can go"));
        }
        let pieces = pieces.iter().map(|(address, len)| (GuestAddress(*address), *len)).collect();
        Ok(Self { pieces, len, data, reads })
    }

    /// Writes the answer, once; returns the bytes that were written in all, from the start of what can
    /// be written.
    pub(crate) fn answer<A: DmaSpace>(&mut self, memory: &Memory<A>, ended: &Ended) -> u32 {
        let mut bytes = [0; BACK];
        let mut sense_len = 0;
        let (head, sense) = bytes.split_at_mut(size_of::<ResponseHeader>());
        if let Some((given, format)) = &ended.sense {
            let (encoded, count) = given.encode(*format);
            let count = count.min(self.len.saturating_sub(size_of::<ResponseHeader>()));
            for (to, from) in sense.iter_mut().zip(encoded.iter().take(count)) {
                *to = *from;
                sense_len += 1;
            }
        }
        let residual = self.data.saturating_sub(ended.moved);
        let response = ResponseHeader {
            sense_len: sense_len.into(),
            residual: u32::try_from(residual).unwrap_or(u32::MAX).into(),
            status_qualifier: 0.into(),
            status: ended.status,
            response: ended.response,
        };
        head.copy_from_slice(response.as_bytes());
        if let Some(bytes) = bytes.get(..self.len) {
            // If it is not memory any more, the guest has taken it away, and cannot expect it.
            let _ = write(memory, self.pieces.iter().copied(), bytes);
        }
        if self.pieces.spilled() {
            // A driver may cut up one answer as it likes, but not have that remembered for all.
            self.pieces = SmallVec::new();
        }
        let moved = if self.reads { ended.moved } else { 0 };
        u32::try_from(moved.saturating_add(self.len as u64)).unwrap_or(u32::MAX)
    }
}

fn attribute(task_attr: u8) -> Attribute {
    match task_attr {
        task_attribute::ORDERED => Attribute::Ordered,
        task_attribute::HEAD => Attribute::HeadOfQueue,
        task_attribute::ACA => Attribute::Aca,
        _ => Attribute::Simple,
    }
}

/// Whether a command is longer than the field that it came in.
fn is_cut_off(cdb: &[u8], cdb_size: u32) -> bool {
    let Some(&opcode) = cdb.first() else { return true };
    let len = match opcode {
        // ADDITIONAL CDB LENGTH (SPC-4, 4.2.3).
        VARIABLE_LENGTH => cdb.get(7).map(|additional| 8 + usize::from(*additional)),
        _ => Some(cdb_len(opcode).unwrap_or(1)),
    };
    len.is_none_or(|len| u32::try_from(len).is_ok_and(|len| len > cdb_size))
}

impl Request {
    /// Reads and checks the request in a chain, for whose answer `place` has been found. `token` is
    /// for the completion.
    ///
    /// # Errors
    /// The response to a request that is not carried out.
    pub(crate) fn parse<A: DmaSpace>(
        memory: &Memory<A>,
        chain: &Chain,
        sizes: Sizes,
        token: u64,
        place: &mut Place,
    ) -> Result<Self, u8> {
        let Chain { readable, writable, .. } = chain;
        let before_out = HEADER + u64::from(sizes.cdb);
        let before_in = RESPONSE + u64::from(sizes.sense);
        let (given, room) = (total(readable), total(writable));
        // Something of the frame is missing.
        if given < before_out || room < before_in {
            return Err(response::FAILURE);
        }
        let (out, into) = (given - before_out, room - before_in);
        place.data = out.saturating_add(into);
        place.reads = into != 0;

        let mut front = [0; FRONT];
        let cdb_len = usize::try_from(sizes.cdb).map_or(Cdb::MAX, |cdb| cdb.min(Cdb::MAX));
        let front = front.get_mut(..size_of::<RequestHeader>() + cdb_len).unwrap_or_default();
        read(memory, readable, 0, front).ok_or(response::FAILURE)?;
        let (header, cdb) = RequestHeader::ref_from_prefix(front).map_err(|_| response::FAILURE)?;
        // INOUT is not offered.
        if out != 0 && into != 0 {
            return Err(response::FAILURE);
        }
        let whom = decode(header.lun).ok_or(response::BAD_TARGET)?;
        if is_cut_off(cdb, sizes.cdb) {
            return Err(response::FAILURE);
        }
        let data = if out != 0 {
            memory.buffers(part(readable, before_out, out), Direction::ToDevice)
        } else if into != 0 {
            memory.buffers(part(writable, before_in, into), Direction::FromDevice)
        } else {
            Ok(DmaBuffers::empty(Direction::FromDevice))
        };
        let data = data.or(Err(response::FAILURE))?;
        let cdb = Cdb::new(cdb);
        Ok(match whom {
            Whom::Unit(address) => Self::Command(Command {
                token,
                tag: header.id.get(),
                address,
                cdb,
                attribute: attribute(header.task_attr),
                data,
            }),
            Whom::ReportLuns(scope) => Self::ReportLuns(scope, cdb, data),
        })
    }
}
