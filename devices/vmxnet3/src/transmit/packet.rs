//! A packet's descriptors.

use paraslot_backends::net::MAX_FRAME;
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, DmaError, DmaSpace, Memory};
use paraslot_spec::vmxnet3::{MAX_TX_BUF_SIZE, TxDesc, queue_error, txd};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{FromZeros, IntoBytes};

use crate::ring::Ring;

/// Descriptors that a packet may have. Drivers use some forty.
pub(crate) const MOST_DESCRIPTORS: u32 = 64;
/// Descriptors that are read at a time: most packets have no more.
const READ: u32 = 4;

/// What a packet's first descriptor asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Task {
    /// To be sent as it is.
    #[default]
    Plain,
    /// A checksum over all bytes from `start` on, at `place`.
    Checksum { start: usize, place: usize },
    /// Segments of `size` bytes behind `headers` bytes of headers.
    Segment { headers: usize, size: u16 },
}

/// The packet at hand: where its bytes are. Bounded, whatever the ring holds.
#[derive(Debug)]
pub(crate) struct Packet {
    pieces: Vec<(u64, u32)>,
    len: usize,
    task: Task,
    tag: Option<u16>,
    descriptors: u32,
    last: u32,
    completion: bool,
}

impl Packet {
    pub(crate) fn new() -> Self {
        Self {
            pieces: Vec::with_capacity(MOST_DESCRIPTORS as usize),
            len: 0,
            task: Task::Plain,
            tag: None,
            descriptors: 0,
            last: 0,
            completion: false,
        }
    }

    fn clear(&mut self) {
        let Self { pieces, len, task, tag, descriptors, last, completion } = self;
        pieces.clear();
        (*len, *task, *tag) = (0, Task::Plain, None);
        (*descriptors, *last, *completion) = (0, 0, false);
    }

    /// Reads the packet that is next in `ring`, whose first descriptor is the device's. Each descriptor
    /// is read once. An error is why the queue must stop.
    pub(crate) fn read<A: DmaSpace>(&mut self, memory: &Memory<A>, ring: &Ring) -> Result<(), u32> {
        self.clear();
        let mut read: [TxDesc; READ as usize] = FromZeros::new_zeroed();
        // A packet has no more descriptors than the ring.
        let most = MOST_DESCRIPTORS.min(ring.size());
        while self.descriptors < most {
            let place = ring.ahead(self.descriptors);
            let count = READ.min(ring.run(place.index)).min(most - self.descriptors);
            let descriptors = usize::try_from(count).ok().and_then(|count| read.get_mut(..count));
            let descriptors = descriptors.ok_or(queue_error::TXD_INVALID)?;
            memory
                .read_slice(descriptors.as_mut_bytes(), ring.address(place.index, 0))
                .map_err(|_| queue_error::TXD_INVALID)?;
            for descriptor in descriptors.iter() {
                let place = ring.ahead(self.descriptors);
                if (descriptor.len.get() & txd::GEN != 0) != place.lap {
                    return Err(queue_error::NOEOP);
                }
                self.last = place.index;
                if self.add(descriptor)? {
                    return Ok(());
                }
            }
        }
        Err(queue_error::BIG_PKT)
    }

    /// Adds a descriptor. Says whether it is the last.
    fn add(&mut self, descriptor: &TxDesc) -> Result<bool, u32> {
        let (len, flags) = (descriptor.len.get(), descriptor.flags.get());
        if len & txd::DTYPE != 0 {
            return Err(queue_error::DESC_NOT_SPT);
        }
        if self.descriptors == 0 {
            self.task = task(len, flags)?;
            let [_, _, low, high] = flags.to_le_bytes();
            self.tag = (flags & txd::TI != 0).then(|| u16::from_le_bytes([low, high]));
        }
        self.descriptors += 1;
        // CVE-2016-6834: 0 stands for the greatest length, and no buffer has none.
        let bytes = match len & txd::LEN {
            0 => MAX_TX_BUF_SIZE,
            bytes => bytes,
        };
        self.len = self.len.saturating_add(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.pieces.push((descriptor.addr.get(), bytes));
        self.completion = flags & txd::CQ != 0;
        Ok(flags & txd::EOP != 0)
    }

    /// The index of its last descriptor, how many there are, and whether a completion is wanted.
    pub(crate) fn end(&self) -> (u32, u32, bool) {
        (self.last, self.descriptors, self.completion)
    }

    /// Its bytes, if they are not too many for any frame.
    pub(crate) fn len(&self) -> Option<usize> {
        (self.len <= MAX_FRAME).then_some(self.len)
    }

    pub(crate) fn task(&self) -> Task {
        self.task
    }

    /// The tag that is to be inserted.
    pub(crate) fn tag(&self) -> Option<u16> {
        self.tag
    }

    /// Copies its first bytes to `place`, which is no longer than it is.
    pub(crate) fn gather<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        place: &mut [u8],
    ) -> Result<(), DmaError> {
        let pieces = self.pieces.iter().map(|&(address, len)| {
            (GuestAddress(address), usize::try_from(len).unwrap_or(usize::MAX))
        });
        memory.gather(pieces, place)
    }

    /// Makes `list` its bytes from `from` on, where they are.
    pub(crate) fn body<A: DmaSpace>(
        &self,
        memory: &Memory<A>,
        from: usize,
        list: &mut DmaBuffers,
    ) -> Result<(), DmaError> {
        let mut skip = from;
        let pieces = self.pieces.iter().map(|&(address, len)| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let gone = skip.min(len);
            skip -= gone;
            // An address that wraps is not guest memory, wherever it comes out.
            (GuestAddress(address.wrapping_add(gone as u64)), len - gone)
        });
        list.clear();
        memory.extend(list, pieces)
    }

    /// An empty list for [`body`](Self::body).
    pub(crate) fn no_body() -> DmaBuffers {
        DmaBuffers::empty(Direction::ToDevice)
    }
}

/// What a packet's first descriptor asks for.
fn task(len: u32, flags: u32) -> Result<Task, u32> {
    let headers = usize::try_from(flags & txd::HLEN).unwrap_or(usize::MAX);
    let second = u16::try_from(len >> txd::MSSCOF_SHIFT).unwrap_or(u16::MAX);
    match flags & txd::OM {
        txd::OM_NONE => Ok(Task::Plain),
        txd::OM_CSUM => Ok(Task::Checksum { start: headers, place: second.into() }),
        txd::OM_TSO => Ok(Task::Segment { headers, size: second }),
        _ => Err(queue_error::DESC_NOT_SPT),
    }
}
