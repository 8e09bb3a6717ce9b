//! Direct memory access: a function's view of guest memory.
//!
//! [`Dma`] is guest memory behind the bus-master bit of the function's command register.
//! [`DmaBuffers`] is a scatter/gather list that has been checked and resolved once: it keeps the
//! memory map that it was resolved in alive, so the host addresses in it stay good for as long as it
//! exists, whatever becomes of the guest's memory map or the device.

#![expect(
    unsafe_code,
    reason = "host pointers into guest memory are made and used here, and only here"
)]

use std::cell::OnceCell;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use smallvec::SmallVec;
use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemory, Permissions, VolatileSlice};

/// Guest memory that devices and their workers can share. Implemented for everything that fits,
/// `Arc<GuestMemoryMmap>` and `GuestMemoryAtomic<GuestMemoryMmap<AtomicBitmap>>` among them.
///
/// What devices write they mark in the memory's bitmap when it has been written. Memory that translates addresses
/// is asked for the same translation again then: to be marked, a range must stay mapped until it has been used,
/// as a driver sees to that does not want it to be overwritten afterwards.
pub trait DmaSpace: GuestAddressSpace<T: Send + Sync> + Send + Sync + 'static {}

impl<A> DmaSpace for A
where
    A: GuestAddressSpace + Send + Sync + 'static,
    A::T: Send + Sync,
{
}

/// The bus-master enable of one function, shared between its configuration space, which sets it,
/// and its [`Dma`]. Clear at reset.
#[derive(Clone, Debug, Default)]
pub struct BusMaster(Arc<AtomicBool>);

impl BusMaster {
    /// Whether the function may access memory.
    pub fn enabled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Sets the bit; returns whether that changed it.
    pub fn set(&self, enabled: bool) -> bool {
        self.0.swap(enabled, Ordering::AcqRel) != enabled
    }
}

/// A function's access to guest memory.
#[derive(Clone)]
pub struct Dma<A> {
    space: A,
    gate: BusMaster,
}

impl<A: DmaSpace> Dma<A> {
    /// `space`, accessible while `gate` is enabled.
    pub fn new(space: A, gate: BusMaster) -> Self {
        Self { space, gate }
    }

    /// The guest's memory as it is mapped now, or `None` while bus mastering is off. Take it once
    /// for a unit of work and drop it afterwards.
    pub fn memory(&self) -> Option<Memory<A>> {
        self.gate.enabled().then(|| Memory { guard: self.space.memory(), pin: OnceCell::new() })
    }

    /// Whether bus mastering is on.
    pub fn enabled(&self) -> bool {
        self.gate.enabled()
    }
}

/// One snapshot of the guest's memory map. Dereferences to vm-memory's `GuestMemory`.
pub struct Memory<A: DmaSpace> {
    guard: A::T,
    pin: OnceCell<Arc<dyn MemoryPin>>,
}

impl<A: DmaSpace> Deref for Memory<A> {
    type Target = A::M;

    fn deref(&self) -> &A::M {
        &self.guard
    }
}

/// Which way the data of a [`DmaBuffers`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device reads guest memory.
    ToDevice,
    /// The device writes guest memory.
    FromDevice,
}

/// Why a scatter/gather list was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DmaError {
    /// Part of the range is not guest memory.
    #[error("guest memory {address:#x}+{len:#x} is not accessible")]
    Inaccessible {
        /// Guest physical address.
        address: u64,
        /// Length in bytes.
        len: usize,
    },
    /// The segments add up to more than `usize` holds.
    #[error("scatter/gather list too long")]
    TooLong,
    /// The list to be extended was resolved in another memory map.
    #[error("scatter/gather list of another memory map")]
    OtherMap,
}

trait MemoryPin: Send + Sync {
    fn mark_dirty(&self, address: u64, len: usize);
    /// Where the map is, which tells it from every other that is alive. Null if that cannot tell.
    fn place(&self) -> *const ();
}

/// What [`MemoryPin::place`] is for `map`.
fn place<M>(map: &M) -> *const () {
    if size_of::<M>() == 0 { std::ptr::null() } else { std::ptr::from_ref(map).cast() }
}

struct Pin<T>(T);

impl<T> MemoryPin for Pin<T>
where
    T: Deref + Send + Sync,
    T::Target: GuestMemory + Sized,
{
    fn place(&self) -> *const () {
        place(&*self.0)
    }

    fn mark_dirty(&self, address: u64, len: usize) {
        // Memory without a bitmap has a slice type of no size: nothing to mark.
        if size_of::<BS<'_, <T::Target as GuestMemory>::Bitmap>>() == 0 {
            return;
        }
        // The same range was resolved in the same map before, so this finds it again.
        if let Ok(slices) = self.0.get_slices(GuestAddress(address), len, Permissions::Write) {
            for slice in slices.flatten() {
                slice.bitmap().mark_dirty(0, slice.len());
            }
        }
    }
}

impl<A: DmaSpace> Memory<A> {
    /// Resolves guest segments (address, length in bytes) into a list of host addresses. Empty
    /// segments are dropped; a segment that spans memory regions becomes several.
    ///
    /// # Errors
    /// When any part of any segment is not guest memory.
    pub fn buffers(
        &self,
        segments: impl IntoIterator<Item = (GuestAddress, usize)>,
        direction: Direction,
    ) -> Result<DmaBuffers, DmaError> {
        let mut list = DmaBuffers::empty(direction);
        list.len = self.resolve(segments, direction, &mut list.segments, 0)?;
        list.pin = Some(self.pin());
        Ok(list)
    }

    /// Adds guest segments to the end of `list`, resolved as by [`buffers`](Self::buffers). A list
    /// that is used again and again costs no allocation and no reference count this way, for as long
    /// as the guest's memory map stays the same.
    ///
    /// # Errors
    /// When any part of any segment is not guest memory, or `list` is not empty and was resolved in
    /// another memory map. Then `list` is as it was.
    pub fn extend(
        &self,
        list: &mut DmaBuffers,
        segments: impl IntoIterator<Item = (GuestAddress, usize)>,
    ) -> Result<(), DmaError> {
        if !self.resolved(list) {
            if !list.is_empty() {
                return Err(DmaError::OtherMap);
            }
            list.pin = Some(self.pin());
        }
        let before = list.segments.len();
        match self.resolve(segments, list.direction, &mut list.segments, list.len) {
            Ok(len) => {
                list.len = len;
                Ok(())
            }
            Err(error) => {
                list.segments.truncate(before);
                Err(error)
            }
        }
    }

    /// Copies the first bytes of guest segments (address, length in bytes) to `place`, each read once.
    /// Where the segments have fewer bytes, the rest of `place` is left as it is.
    ///
    /// # Errors
    /// When what is needed of a segment is not guest memory.
    pub fn gather(
        &self,
        segments: impl IntoIterator<Item = (GuestAddress, usize)>,
        place: &mut [u8],
    ) -> Result<(), DmaError> {
        let mut rest = place;
        for (address, len) in segments {
            let (now, then) = rest.split_at_mut(len.min(rest.len()));
            let inaccessible = DmaError::Inaccessible { address: address.0, len: now.len() };
            self.read_slice(now, address).map_err(|_| inaccessible)?;
            rest = then;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Whether `list` was resolved in this memory map.
    pub fn resolved(&self, list: &DmaBuffers) -> bool {
        // The list keeps its map alive, so another cannot have taken its place.
        let here = place::<A::M>(&self.guard);
        !here.is_null() && list.pin.as_ref().is_some_and(|pin| pin.place() == here)
    }

    fn pin(&self) -> Arc<dyn MemoryPin> {
        self.pin.get_or_init(|| Arc::new(Pin(self.guard.clone()))).clone()
    }

    /// Adds segments to `list`, which has `total` bytes; returns how many it has then.
    fn resolve(
        &self,
        segments: impl IntoIterator<Item = (GuestAddress, usize)>,
        direction: Direction,
        list: &mut SmallVec<[Segment; 4]>,
        mut total: usize,
    ) -> Result<usize, DmaError> {
        let access = match direction {
            Direction::ToDevice => Permissions::Read,
            Direction::FromDevice => Permissions::Write,
        };
        for (address, len) in segments {
            if len == 0 {
                continue;
            }
            let inaccessible = DmaError::Inaccessible { address: address.0, len };
            total = total.checked_add(len).ok_or(DmaError::TooLong)?;
            let slices = self.guard.get_slices(address, len, access).map_err(|_| inaccessible)?;
            let mut guest = address.0;
            for slice in slices {
                let slice = slice.map_err(|_| inaccessible)?;
                let host = NonNull::new(slice.ptr_guard_mut().as_ptr()).ok_or(inaccessible)?;
                list.push(Segment { host, guest, len: slice.len() });
                guest = guest.wrapping_add(slice.len() as u64);
            }
        }
        Ok(total)
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    host: NonNull<u8>,
    guest: u64,
    len: usize,
}

/// A resolved scatter/gather list in guest memory.
///
/// The guest may read and write the same bytes at any time, so all access is volatile and what is
/// read once must not be read again to be trusted.
pub struct DmaBuffers {
    segments: SmallVec<[Segment; 4]>,
    len: usize,
    direction: Direction,
    pin: Option<Arc<dyn MemoryPin>>,
}

// SAFETY: the pointers lie in a memory map that `pin` keeps alive wherever the list goes, and all
// access through them is volatile, as for vm-memory's own slices.
unsafe impl Send for DmaBuffers {}
// SAFETY: as above; `&DmaBuffers` gives only volatile access.
unsafe impl Sync for DmaBuffers {}

impl std::fmt::Debug for DmaBuffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DmaBuffers")
            .field("len", &self.len)
            .field("segments", &self.segments.len())
            .field("direction", &self.direction)
            .finish()
    }
}

impl DmaBuffers {
    /// A list of no bytes, for operations without data.
    pub fn empty(direction: Direction) -> Self {
        Self { segments: SmallVec::new(), len: 0, direction, pin: None }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Which way the data goes.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The contiguous pieces, in order.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'_>> {
        self.segments.iter().map(|segment| {
            // SAFETY: `buffers` got this range from a `VolatileSlice` of the map that `pin` keeps
            // alive, `advance` and `truncate` only narrow it, and the result borrows `self`.
            unsafe { VolatileSlice::new(segment.host.as_ptr(), segment.len) }
        })
    }

    /// The pieces as host addresses and lengths, for system calls that take an iovec. The addresses
    /// are good for as long as `self` lives.
    pub fn host_ranges(&self) -> impl ExactSizeIterator<Item = (NonNull<u8>, usize)> + '_ {
        self.segments.iter().map(|segment| (segment.host, segment.len))
    }

    /// Whether every piece starts and ends at a multiple of `alignment` (a power of two).
    pub fn is_aligned(&self, alignment: usize) -> bool {
        let mask = alignment.wrapping_sub(1);
        self.segments.iter().all(|s| (s.host.as_ptr().addr() | s.len) & mask == 0)
    }

    /// Drops the first `count` bytes (all, if there are fewer), after a short transfer.
    pub fn advance(&mut self, count: usize) {
        let mut left = count.min(self.len);
        self.len -= left;
        let mut gone = 0;
        for segment in &mut self.segments {
            if left < segment.len {
                segment.guest = segment.guest.wrapping_add(left as u64);
                segment.len -= left;
                // SAFETY: `left` is less than the segment's length, so this stays inside it.
                segment.host = unsafe { segment.host.add(left) };
                break;
            }
            left -= segment.len;
            gone += 1;
        }
        self.segments.drain(..gone);
    }

    /// Drops all bytes; what the list needed is kept to be used again.
    pub fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }

    /// Keeps the first `count` bytes only.
    pub fn truncate(&mut self, count: usize) {
        let mut left = count;
        self.segments.retain(|segment| {
            segment.len = segment.len.min(left);
            left -= segment.len;
            segment.len != 0
        });
        self.len = self.len.min(count);
    }

    /// Copies the first bytes of the list into `data`; returns how many there were.
    pub fn copy_to(&self, data: &mut [u8]) -> usize {
        let mut done = 0;
        for slice in self.slices() {
            let Some(rest) = data.get_mut(done..).filter(|rest| !rest.is_empty()) else { break };
            done += slice.copy_to(rest);
        }
        done
    }

    /// Copies `data` to the start of the list; returns how many bytes fitted. Marks them dirty.
    pub fn copy_from(&self, data: &[u8]) -> usize {
        let mut done = 0;
        for slice in self.slices() {
            let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) else { break };
            let count = rest.len().min(slice.len());
            slice.copy_from(&rest[..count]);
            done += count;
        }
        self.mark_written(done);
        done
    }

    /// Tells dirty tracking that the first `count` bytes were written through host addresses.
    pub fn mark_written(&self, count: usize) {
        let Some(pin) = &self.pin else { return };
        let mut left = count;
        for segment in &self.segments {
            let len = segment.len.min(left);
            if len == 0 {
                break;
            }
            pin.mark_dirty(segment.guest, len);
            left -= len;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::bitmap::AtomicBitmap;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

    fn space() -> (Arc<GuestMemoryMmap<AtomicBitmap>>, BusMaster) {
        let map = GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), 0x1000),
            (GuestAddress(0x1000), 0x1000),
            (GuestAddress(0x8000), 0x1000),
        ])
        .unwrap();
        (Arc::new(map), BusMaster::default())
    }

    #[test]
    fn bus_mastering_gates_memory() {
        let (map, gate) = space();
        let dma = Dma::new(map, gate.clone());
        assert!(dma.memory().is_none());
        assert!(gate.set(true));
        assert!(!gate.set(true));
        assert!(dma.memory().is_some());
        gate.set(false);
        assert!(dma.memory().is_none());
    }

    // CVE-2019-18960: a buffer that crosses two memory regions is not one host range.
    #[test]
    fn a_segment_across_regions_becomes_two() {
        let (map, gate) = space();
        gate.set(true);
        let memory = Dma::new(map.clone(), gate).memory().unwrap();
        let list = memory.buffers([(GuestAddress(0xff0), 0x20)], Direction::FromDevice).unwrap();
        assert_eq!(list.host_ranges().len(), 2);
        assert_eq!(list.copy_from(&[7; 0x40]), 0x20);
        let mut back = [0u8; 0x22];
        map.read_slice(&mut back, GuestAddress(0xfef)).unwrap();
        assert_eq!((back[0], back[1], back[0x20], back[0x21]), (0, 7, 7, 0));
    }

    #[test]
    fn segments_are_gathered_as_far_as_they_go() {
        let (map, gate) = space();
        gate.set(true);
        map.write_slice(&[1, 2, 3, 4, 5, 6], GuestAddress(0xffd)).unwrap();
        let memory = Dma::new(map, gate).memory().unwrap();
        let mut place = [9; 8];
        // What is not needed may be anywhere.
        let segments = [(0xffd, 4), (0xffd, 0), (0x1001, 2), (0xffd, 2), (0x4000, 1)];
        let segments = segments.map(|(address, len)| (GuestAddress(address), len));
        memory.gather(segments, &mut place).unwrap();
        assert_eq!(place, [1, 2, 3, 4, 5, 6, 1, 2]);
        memory.gather(segments, &mut place[..5]).unwrap();
        memory.gather([], &mut place).unwrap();
        assert_eq!(place, [1, 2, 3, 4, 5, 6, 1, 2]);
        let hole = DmaError::Inaccessible { address: 0x4000, len: 1 };
        assert_eq!(memory.gather(segments, &mut [0; 9]), Err(hole));
    }

    #[test]
    fn holes_and_wrapping_ranges_are_refused() {
        let (map, gate) = space();
        gate.set(true);
        let memory = Dma::new(map, gate).memory().unwrap();
        for (address, len) in
            [(0x1ff0, 0x20), (0x4000, 1), (u64::MAX, 2), (u64::MAX - 1, 2), (0, usize::MAX)]
        {
            let refused = memory.buffers([(GuestAddress(address), len)], Direction::ToDevice);
            assert_eq!(refused.unwrap_err(), DmaError::Inaccessible { address, len });
        }
        let twice = [(GuestAddress(0), 0x1000); 2];
        assert_eq!(memory.buffers(twice, Direction::ToDevice).unwrap().len(), 0x2000);
    }

    #[test]
    fn advancing_and_truncating_narrow_the_list() {
        let (map, gate) = space();
        map.write_slice(&(0..=255).collect::<Vec<u8>>(), GuestAddress(0)).unwrap();
        gate.set(true);
        let memory = Dma::new(map, gate).memory().unwrap();
        let segments = [(GuestAddress(0), 4), (GuestAddress(100), 0), (GuestAddress(8), 4)];
        let mut list = memory.buffers(segments, Direction::ToDevice).unwrap();
        let mut seen = [0; 16];
        assert_eq!(list.copy_to(&mut seen), 8);
        assert_eq!(seen[..8], [0, 1, 2, 3, 8, 9, 10, 11]);
        list.advance(3);
        list.truncate(4);
        assert_eq!((list.len(), list.copy_to(&mut seen)), (4, 4));
        assert_eq!(seen[..4], [3, 8, 9, 10]);
        list.advance(100);
        assert!(list.is_empty());
        assert_eq!(list.copy_to(&mut seen), 0);
    }

    #[test]
    fn a_list_is_extended_in_its_own_map_only() {
        let (map, gate) = space();
        gate.set(true);
        let dma = Dma::new(map.clone(), gate.clone());
        let (first, second) = ((GuestAddress(0), 4), (GuestAddress(0x8000), 4));
        let mut list = DmaBuffers::empty(Direction::FromDevice);
        let one = dma.memory().unwrap();
        assert!(!one.resolved(&list));
        one.extend(&mut list, [first]).unwrap();
        // Another snapshot of the same map.
        let again = dma.memory().unwrap();
        assert!(again.resolved(&list));
        again.extend(&mut list, [second]).unwrap();
        assert_eq!((list.len(), list.copy_from(&[1; 8])), (8, 8));
        let hole = DmaError::Inaccessible { address: 0x4000, len: 1 };
        assert_eq!(again.extend(&mut list, [first, (GuestAddress(0x4000), 1)]), Err(hole));
        assert_eq!((list.len(), list.host_ranges().len()), (8, 2));
        drop((one, again));

        let (other, _) = space();
        let other = Dma::new(other, gate).memory().unwrap();
        assert!(!other.resolved(&list));
        assert_eq!(other.extend(&mut list, [first]), Err(DmaError::OtherMap));
        assert_eq!(list.len(), 8);
        list.clear();
        assert!(list.is_empty());
        other.extend(&mut list, [first]).unwrap();
        assert!(other.resolved(&list) && list.len() == 4);
        let weak = Arc::downgrade(&map);
        drop((map, dma));
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn written_bytes_are_marked_dirty() {
        let (map, gate) = space();
        gate.set(true);
        let memory = Dma::new(map.clone(), gate).memory().unwrap();
        let list = memory.buffers([(GuestAddress(0x8000), 16)], Direction::FromDevice).unwrap();
        let dirty = || map.find_region(GuestAddress(0x8000)).unwrap().bitmap().dirty_at(0);
        assert!(!dirty());
        list.mark_written(0);
        assert!(!dirty());
        list.mark_written(16);
        assert!(dirty());
    }

    #[test]
    fn a_list_outlives_the_memory_map_it_came_from() {
        let (map, gate) = space();
        gate.set(true);
        let weak = Arc::downgrade(&map);
        let dma = Dma::new(map, gate);
        let segment = (GuestAddress(0), 8);
        let list = dma.memory().unwrap().buffers([segment], Direction::ToDevice).unwrap();
        drop(dma);
        assert_eq!(list.copy_to(&mut [0; 8]), 8);
        assert!(weak.upgrade().is_some());
        drop(list);
        assert!(weak.upgrade().is_none());
    }
}
