//! Transmit queues (5.1.9.2).

use core::mem::offset_of;

use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT};
use paraslot_spec::virtio_net::{Header, gso, header_flag};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use super::{Layout, MAX_FRAME, Registers};
use crate::virtio::{SplitQueue, write_descriptor};
use crate::{DmaRegion, Error, Offers, Platform, Task};

/// What each frame has in memory, unless the header is in front of it.
mod slot {
    /// The header, 12 or 20 bytes.
    pub(super) const HEADER: usize = 0;
    /// The indirect table, 32 bytes.
    pub(super) const TABLE: usize = 32;
    /// Bytes of all that: a cache line.
    pub(super) const LEN: usize = 64;
}

/// Bytes of headers of a frame to be segmented: Ethernet, IPv4 and TCP without options.
const TCP_HEADERS: u16 = 54;
/// Where the TCP header begins.
const TCP: u16 = 34;
/// Where the checksum is in it.
const TCP_CHECKSUM: u16 = 16;
/// Bytes of an Ethernet header, the least that can be sent.
const MIN_FRAME: usize = 14;

/// What a tag's chain was last set up for; what has not changed is not written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    address: u64,
    len: u32,
    task: Task,
}

/// A frame's state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tag {
    shape: Option<Shape>,
    in_flight: bool,
}

impl Tag {
    /// Takes the frame back. Returns whether it was in flight.
    pub(super) fn take_back(&mut self) -> bool {
        core::mem::take(&mut self.in_flight)
    }
}

/// A transmit queue. Each frame has its descriptors, told apart by the frame's place: its number
/// among those of this queue.
pub(super) struct Transmitter {
    ring: SplitQueue,
    registers: Registers,
    layout: Layout,
    header_len: usize,
    /// A slot for each frame; just one, never used, if the headers are elsewhere.
    slots: DmaRegion,
}

/// The header that says what is left to be done.
fn header(task: Task) -> Header {
    match task {
        Task::None => Header::default(),
        Task::Checksum { start, offset } => Header {
            flags: header_flag::NEEDS_CSUM,
            csum_start: U16::new(start),
            csum_offset: U16::new(offset),
            ..Header::default()
        },
        Task::Segment { size } => Header {
            flags: header_flag::NEEDS_CSUM,
            gso_type: gso::TCPV4,
            hdr_len: U16::new(TCP_HEADERS),
            gso_size: U16::new(size),
            csum_start: U16::new(TCP),
            csum_offset: U16::new(TCP_CHECKSUM),
            ..Header::default()
        },
    }
}

/// Checks a frame of `len` bytes and what is to be done with it.
pub(super) fn check(len: usize, task: Task, offers: Offers) -> Result<u32, Error> {
    let possible = match task {
        Task::None => true,
        Task::Checksum { start, offset } => {
            if !offers.checksum {
                return Err(Error::Unsupported("checksums"));
            }
            usize::from(start) + usize::from(offset) + 2 <= len
        }
        Task::Segment { size } => {
            if !offers.segmentation {
                return Err(Error::Unsupported("segmentation"));
            }
            size != 0 && len > usize::from(TCP_HEADERS)
        }
    };
    if !(MIN_FRAME..=MAX_FRAME).contains(&len) || !possible {
        return Err(Error::Request("the frame's length"));
    }
    u32::try_from(len).map_err(|_| Error::Request("the frame's length"))
}

impl Transmitter {
    /// A queue with room for `count` frames, which its layout allows.
    pub(super) fn new<P: Platform>(
        platform: &P,
        ring: SplitQueue,
        registers: Registers,
        layout: Layout,
        header_len: usize,
        count: u16,
    ) -> Result<Self, Error> {
        let slots = if layout == Layout::Headroom { 1 } else { usize::from(count) };
        let slots = platform.allocate(slot::LEN * slots).ok_or(Error::NoMemory)?;
        let this = Self { ring, registers, layout, header_len, slots };
        let header_len = u32::try_from(header_len).unwrap_or(0);
        for place in 0..count {
            let slot = slot::LEN * usize::from(place);
            match layout {
                Layout::Headroom => {}
                Layout::Chain => {
                    let header = this.slots.physical(slot + slot::HEADER);
                    let first = 2 * place;
                    this.ring.set_descriptor(first, header, header_len, DESC_F_NEXT, first + 1);
                }
                Layout::Indirect => {
                    let header = this.slots.physical(slot + slot::HEADER);
                    let table = slot + slot::TABLE;
                    let address = this.slots.physical(table);
                    this.ring.set_descriptor(place, address, 32, DESC_F_INDIRECT, 0);
                    write_descriptor(&this.slots, table, header, header_len, DESC_F_NEXT, 1);
                }
            }
        }
        Ok(this)
    }

    /// Most frames that a queue of `size` entries can have.
    pub(super) fn capacity(size: u16, layout: Layout) -> u16 {
        match layout {
            Layout::Headroom | Layout::Indirect => size,
            Layout::Chain => size / 2,
        }
    }

    pub(super) fn ring(&mut self) -> &mut SplitQueue {
        &mut self.ring
    }

    pub(super) fn registers(&mut self) -> &mut Registers {
        &mut self.registers
    }

    /// Puts a frame on the ring; `len` bytes of `frame`, behind the headroom if there is any.
    pub(super) fn submit(
        &mut self,
        place: u16,
        tag: &mut Tag,
        frame: &DmaRegion,
        len: u32,
        task: Task,
    ) -> Result<(), Error> {
        if tag.in_flight {
            return Err(Error::Request("the tag is too high or in use"));
        }
        let shape = Shape { address: frame.physical(0), len, task };
        if self.layout == Layout::Headroom {
            // Always, since the caller may have used the memory for another tag's frame.
            self.write_header(frame, 0, task);
        } else if tag.shape.is_none_or(|shape| shape.task != task) {
            let slot = slot::LEN * usize::from(place);
            self.write_header(&self.slots, slot + slot::HEADER, task);
        }
        if tag.shape != Some(shape) {
            self.reshape(place, shape);
        }
        *tag = Tag { shape: Some(shape), in_flight: true };
        self.ring.push(match self.layout {
            Layout::Headroom | Layout::Indirect => place,
            Layout::Chain => 2 * place,
        });
        Ok(())
    }

    fn write_header(&self, memory: &DmaRegion, offset: usize, task: Task) {
        memory.copy_in(offset, header(task).as_bytes());
        for offset in offset + size_of::<Header>()..offset + self.header_len {
            memory.write8(offset, 0);
        }
    }

    /// Changes the descriptor of the frame itself.
    fn reshape(&self, place: u16, shape: Shape) {
        let Shape { address, len, .. } = shape;
        match self.layout {
            Layout::Headroom => {
                let header = u32::try_from(self.header_len).unwrap_or(0);
                self.ring.set_descriptor(place, address, header + len, 0, 0);
            }
            Layout::Chain => self.ring.set_descriptor(2 * place + 1, address, len, 0, 0),
            Layout::Indirect => {
                let table = slot::LEN * usize::from(place) + slot::TABLE;
                write_descriptor(&self.slots, table + 16, address, len, 0, 0);
            }
        }
    }

    /// The place of the next frame that the device is done with.
    pub(super) fn next(&mut self) -> Result<Option<u16>, Error> {
        let Some(used) = self.ring.pop()? else { return Ok(None) };
        if used.len != 0 {
            return Err(Error::Protocol("it has written to a frame to be sent"));
        }
        match self.layout {
            Layout::Headroom | Layout::Indirect => Ok(Some(used.head)),
            Layout::Chain if used.head % 2 == 0 => Ok(Some(used.head / 2)),
            Layout::Chain => Err(Error::Protocol("a buffer that it was not given")),
        }
    }
}

const _: () = assert!(slot::TABLE >= 20 && offset_of!(Header, num_buffers) == 10);
