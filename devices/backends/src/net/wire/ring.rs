//! A ring of frames from one sender to one receiver.
//!
//! Positions count bytes since the beginning and never wrap; a record's place is its position modulo
//! the size. A record is [`RECORD`] bytes of description and the frame, rounded up to [`ALIGN`]. The
//! sender owns what lies between the head that it has seen and the ring's size further on; it
//! publishes what it has written by moving the tail. The receiver owns what lies between head and
//! tail. The memory is accessed volatilely, as guest memory is, so that this needs no promise to the
//! compiler; that nobody reads what is being written is up to head and tail.

use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use paraslot_device::DmaBuffers;
use vm_memory::{MmapRegion, VolatileMemory, VolatileSlice};

use crate::net::bell::Claim;
use crate::net::{Cut, Offload, PartialChecksum, Segmentation};

/// Bytes of a record in front of the frame.
pub(super) const RECORD: usize = 16;
/// Records start at multiples of this.
const ALIGN: usize = 8;

/// On a pair of cache lines of its own: the two sides write different ones all the time.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Mark {
    /// Bytes since the beginning.
    position: AtomicU64,
    /// Records since the beginning.
    count: AtomicU64,
}

/// A place in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) count: u64,
}

impl Place {
    /// The place behind a record of a frame of `len` bytes here.
    pub(super) fn after(self, len: usize) -> Self {
        Self { position: self.position + record_len(len), count: self.count + 1 }
    }
}

impl Mark {
    /// Where it is; not of one moment, if the other side is just moving it. The count is never older
    /// than the position. Of the head, both are at most what they are by now, which makes the ring
    /// look fuller than it is and never emptier.
    pub(super) fn get(&self) -> Place {
        let position = self.position.load(Ordering::Acquire);
        Place { position, count: self.count.load(Ordering::Acquire) }
    }

    pub(super) fn set(&self, place: Place) {
        // In this order: whoever sees the position sees the count, too.
        self.count.store(place.count, Ordering::Release);
        self.position.store(place.position, Ordering::Release);
    }
}

/// The receiver's side, which passes from one receiver to another with the number of queues in use.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    /// What a sender waits for: room for a frame of so many bytes.
    pub(super) wanted: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Ring {
    memory: MmapRegion<()>,
    mask: u64,
    pub(super) tail: Mark,
    pub(super) head: Mark,
    pub(super) consumer: Mutex<Consumer>,
    pub(super) sender: Claim,
}

/// Bytes that a frame of `len` bytes takes.
pub(super) fn record_len(len: usize) -> u64 {
    (RECORD + len).next_multiple_of(ALIGN) as u64
}

impl Ring {
    /// A ring of at least `bytes`.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let size = bytes.max(4096).next_power_of_two();
        let memory = MmapRegion::new(size).map_err(io::Error::other)?;
        let (tail, head, consumer, sender) = Default::default();
        Ok(Self { memory, mask: size as u64 - 1, tail, head, consumer, sender })
    }

    /// The memory of `len` bytes at `position`: the second part is empty unless they wrap.
    fn at(&self, position: u64, len: usize) -> Option<[VolatileSlice<'_>; 2]> {
        let start = usize::try_from(position & self.mask).ok()?;
        let first = len.min(self.memory.size() - start);
        let first_part = self.memory.get_slice(start, first).ok()?;
        Some([first_part, self.memory.get_slice(0, len - first).ok()?])
    }

    /// Writes `bytes` at `position`.
    fn write(&self, position: u64, bytes: &[u8]) -> Option<()> {
        let [first, second] = self.at(position, bytes.len())?;
        let (start, rest) = bytes.split_at_checked(first.len())?;
        first.copy_from(start);
        second.copy_from(rest);
        Some(())
    }

    /// Reads the bytes at `position`.
    fn read(&self, position: u64, bytes: &mut [u8]) -> Option<()> {
        let [first, second] = self.at(position, bytes.len())?;
        let (start, rest) = bytes.split_at_mut_checked(first.len())?;
        first.copy_to(start);
        second.copy_to(rest);
        Some(())
    }

    /// Writes a frame's bytes into the record at `place`. `None` if there are not `head.len()` and
    /// `body.len()` bytes.
    pub(super) fn write_frame(&self, place: Place, head: &[u8], body: &DmaBuffers) -> Option<()> {
        let mut position = place.position + RECORD as u64;
        self.write(position, head)?;
        position += head.len() as u64;
        for slice in body.slices() {
            let [first, second] = self.at(position, slice.len())?;
            slice.copy_to_volatile_slice(first);
            slice.offset(first.len()).ok()?.copy_to_volatile_slice(second);
            position += slice.len() as u64;
        }
        Some(())
    }

    /// Reads the first bytes of the frame at `place`.
    pub(super) fn read_frame(&self, place: Place, bytes: &mut [u8]) -> Option<()> {
        self.read(place.position + RECORD as u64, bytes)
    }

    /// Copies the `len` bytes of the frame at `place` into `buffers`, which has room for them.
    pub(super) fn read_frame_into(
        &self,
        place: Place,
        len: usize,
        buffers: &DmaBuffers,
    ) -> Option<()> {
        let mut position = place.position + RECORD as u64;
        let mut left = len;
        for slice in buffers.slices() {
            let count = left.min(slice.len());
            if count == 0 {
                break;
            }
            let [first, second] = self.at(position, count)?;
            first.copy_to_volatile_slice(slice);
            second.copy_to_volatile_slice(slice.offset(first.len()).ok()?);
            position += count as u64;
            left -= count;
        }
        buffers.mark_written(len);
        Some(())
    }

    /// Describes the frame of the record at `place`.
    pub(super) fn describe(&self, place: Place, len: usize, offload: &Offload) -> Option<()> {
        let description = Description { len, offload: *offload };
        self.write(place.position, &description.to_bytes()?)
    }

    /// The length and offload of the frame at `place`.
    pub(super) fn description(&self, place: Place) -> Option<Description> {
        let mut bytes = [0; RECORD];
        self.read(place.position, &mut bytes)?;
        Some(Description::from_bytes(bytes))
    }
}

/// What goes with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) len: usize,
    pub(super) offload: Offload,
}

const CHECKSUM: u8 = 1 << 0;
const VALID: u8 = 1 << 1;
const ECN: u8 = 1 << 2;

impl Description {
    fn to_bytes(self) -> Option<[u8; RECORD]> {
        let Offload { checksum, segmentation, checksum_valid } = self.offload;
        let cut = match segmentation.map(|segmentation| segmentation.cut) {
            None => 0,
            Some(Cut::Tcp4) => 1,
            Some(Cut::Tcp6) => 2,
            Some(Cut::UdpFragments) => 3,
            Some(Cut::UdpDatagrams) => 4,
        };
        let flag = |set: bool, flag| if set { flag } else { 0 };
        let flags = flag(checksum.is_some(), CHECKSUM)
            | flag(checksum_valid, VALID)
            | flag(segmentation.is_some_and(|how| how.ecn), ECN);
        let PartialChecksum { start, offset } =
            checksum.unwrap_or(PartialChecksum { start: 0, offset: 0 });
        let [a, b, c, d] = u32::try_from(self.len).ok()?.to_ne_bytes();
        let (size, header_len) = segmentation.map_or((0, 0), |how| (how.size, how.header_len));
        let [e, f] = start.to_ne_bytes();
        let [g, h] = offset.to_ne_bytes();
        let [i, j] = size.to_ne_bytes();
        let [k, l] = header_len.to_ne_bytes();
        Some([a, b, c, d, flags, cut, e, f, g, h, i, j, k, l, 0, 0])
    }

    fn from_bytes(bytes: [u8; RECORD]) -> Self {
        let [a, b, c, d, flags, cut, e, f, g, h, i, j, k, l, _, _] = bytes;
        let cut = match cut {
            1 => Some(Cut::Tcp4),
            2 => Some(Cut::Tcp6),
            3 => Some(Cut::UdpFragments),
            4 => Some(Cut::UdpDatagrams),
            _ => None,
        };
        let checksum = PartialChecksum {
            start: u16::from_ne_bytes([e, f]),
            offset: u16::from_ne_bytes([g, h]),
        };
        let segmentation = cut.map(|cut| Segmentation {
            cut,
            size: u16::from_ne_bytes([i, j]),
            header_len: u16::from_ne_bytes([k, l]),
            ecn: flags & ECN != 0,
        });
        let offload = Offload {
            checksum: (flags & CHECKSUM != 0).then_some(checksum),
            segmentation,
            checksum_valid: flags & VALID != 0,
        };
        let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).unwrap_or(0);
        Self { len, offload }
    }
}
