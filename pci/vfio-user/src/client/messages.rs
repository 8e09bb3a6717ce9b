//! MSI and MSI-X: the guest's messages stay here, the server has eventfds.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use paraslot_device::{MsiMessage, MsiSink};
use paraslot_spec::pci::msix;
use vmm_sys_util::eventfd::EventFd;

use super::ClientError;
use super::forward::Forwarder;
use super::link::Link;
use crate::function::Table;
use crate::sys;
use crate::wire::irq;

/// Bytes of a table entry.
const ENTRY: usize = 16;
/// The bits of an entry that can be written: the address but for two bits, the data, and the mask.
const WRITABLE: [u8; ENTRY] =
    [0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 0, 0];
const RESET: [u8; ENTRY] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];

/// The MSI-X table, which the guest writes.
pub(super) struct GuestTable {
    place: Table,
    entries: Vec<[u8; ENTRY]>,
}

impl GuestTable {
    pub(super) fn new(place: Table) -> Self {
        Self { place, entries: vec![RESET; place.vectors.into()] }
    }

    /// Where in the table an access starts, if it does.
    fn find(&self, bar: u8, offset: u64) -> Option<usize> {
        let at = usize::try_from(offset.checked_sub(self.place.offset)?).ok()?;
        (bar == self.place.bar && at < self.entries.len() * ENTRY).then_some(at)
    }

    /// Answers a read that starts in the table; says whether it did.
    pub(super) fn read(&self, bar: u8, offset: u64, data: &mut [u8]) -> bool {
        let Some(start) = self.find(bar, offset) else { return false };
        for (at, place) in (start..).zip(data) {
            let entry = self.entries.get(at / ENTRY);
            *place = entry.and_then(|entry| entry.get(at % ENTRY)).copied().unwrap_or(0);
        }
        true
    }

    /// Takes a write that starts in the table; returns the vectors that it concerns.
    pub(super) fn write(
        &mut self,
        bar: u8,
        offset: u64,
        data: &[u8],
    ) -> Option<std::ops::Range<u16>> {
        let start = self.find(bar, offset)?;
        for (at, value) in (start..).zip(data) {
            let entry = self.entries.get_mut(at / ENTRY);
            if let Some(byte) = entry.and_then(|entry| entry.get_mut(at % ENTRY)) {
                let writable = WRITABLE.get(at % ENTRY).copied().unwrap_or(0);
                *byte = (*byte & !writable) | (value & writable);
            }
        }
        let vector = |at: usize| u16::try_from(at).unwrap_or(u16::MAX).min(self.place.vectors);
        Some(vector(start / ENTRY)..vector((start + data.len()).div_ceil(ENTRY)))
    }

    pub(super) fn reset(&mut self) {
        self.entries.fill(RESET);
    }

    /// All bytes, for a saved state.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.entries.concat()
    }

    /// Takes over the bytes of a saved state; says whether they can be a table's.
    pub(super) fn restore(&mut self, bytes: &[u8]) -> bool {
        let (entries, rest) = bytes.as_chunks::<ENTRY>();
        let writable = entries.iter().flatten().zip(WRITABLE.iter().cycle());
        let fits = rest.is_empty() && entries.len() == self.entries.len() && { writable }
            .all(|(byte, writable)| byte & !writable == 0);
        if fits {
            self.entries.copy_from_slice(entries);
        }
        fits
    }

    /// The message of a vector, and whether it is masked.
    pub(super) fn entry(&self, vector: u16) -> Option<(MsiMessage, bool)> {
        let entry = self.entries.get(usize::from(vector))?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] = *entry;
        let message = MsiMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        };
        Some((message, u32::from(control) & msix::VECTOR_MASKED != 0))
    }
}

/// One vector, as the host and the server have it.
#[derive(Default)]
struct Vector {
    /// What the host was told.
    told: Option<(MsiMessage, bool)>,
    /// The host's eventfd, or one that is forwarded; from when it was first opened.
    event: Option<EventFd>,
    /// The server has the eventfd.
    wired: bool,
}

/// What a vector should be: its message, and whether it may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) vector: u16,
    pub(super) message: MsiMessage,
    pub(super) open: bool,
}

/// All vectors of one kind.
///
/// A vector that may not send has no eventfd at the server, which then keeps what is raised. So the host is
/// told of a message before the first can come, and of a mask after the last.
pub(super) struct Vectors {
    /// VFIO's name of the kind.
    index: u32,
    host: Arc<dyn MsiSink>,
    vectors: Vec<Vector>,
}

impl Vectors {
    pub(super) fn new(index: u32, count: u16, host: Arc<dyn MsiSink>) -> Self {
        Self { index, host, vectors: (0..count).map(|_| Vector::default()).collect() }
    }

    /// Makes vectors what they should be.
    pub(super) fn set(
        &mut self,
        link: &mut Link,
        forwarder: &mut Forwarder,
        wishes: &[Wish],
    ) -> Result<(), ClientError> {
        let changed: Vec<Wish> = wishes
            .iter()
            .filter(|wish| {
                let vector = self.vectors.get(usize::from(wish.vector));
                vector.is_some_and(|vector| match vector.told {
                    Some(told) => told != (wish.message, !wish.open),
                    None => wish.open,
                })
            })
            .copied()
            .collect();
        // Nothing is sent while the host changes a route.
        self.wire(link, &changed, false)?;
        for Wish { vector: index, message, open } in &changed {
            let Some(vector) = self.vectors.get_mut(usize::from(*index)) else { continue };
            if vector.told.is_some_and(|(_, masked)| !masked) {
                // What was sent before is on its way to the host by now.
                forwarder.flush(*index);
            }
            vector.told = Some((*message, !open));
            self.host.update(*index, *message, !open);
            if *open && vector.event.is_none() {
                vector.event = self.host.event(*index);
                if vector.event.is_none() {
                    vector.event = Some(forwarder.message(*index)?);
                }
            }
        }
        self.wire(link, &changed, true)
    }

    /// Gives the server the eventfds of vectors that are open, or takes away all.
    fn wire(&mut self, link: &mut Link, list: &[Wish], gives: bool) -> Result<(), ClientError> {
        let meant = |wish: &&Wish| {
            let vector = self.vectors.get(usize::from(wish.vector));
            vector.is_some_and(|vector| vector.wired != gives && (wish.open || !gives))
        };
        let list: Vec<u16> = list.iter().filter(meant).map(|wish| wish.vector).collect();
        for run in list.chunk_by(|one, next| one.checked_add(1) == Some(*next)) {
            let Some(first) = run.first() else { continue };
            let events: Vec<Option<BorrowedFd<'_>>> = run
                .iter()
                .map(|vector| {
                    let event = self.vectors.get(usize::from(*vector))?.event.as_ref()?;
                    gives.then(|| sys::borrow(event))
                })
                .collect();
            link.assign(self.index, *first, &events)?;
            for vector in run {
                if let Some(vector) = self.vectors.get_mut(usize::from(*vector)) {
                    vector.wired = gives;
                }
            }
        }
        Ok(())
    }

    /// Turns the whole kind off; what is pending at the server is forgotten.
    pub(super) fn off(
        &mut self,
        link: &mut Link,
        forwarder: &mut Forwarder,
    ) -> Result<(), ClientError> {
        let closed = (0..).zip(&self.vectors).filter_map(|(vector, state)| {
            let (message, masked) = state.told?;
            (!masked).then_some(Wish { vector, message, open: false })
        });
        let closed: Vec<_> = closed.collect();
        if closed.is_empty() {
            return Ok(());
        }
        link.set_irqs(irq::DATA_NONE | irq::ACTION_TRIGGER, self.index, 0, 0, &[])?;
        self.vectors.iter_mut().for_each(|vector| vector.wired = false);
        self.set(link, forwarder, &closed)
    }
}
