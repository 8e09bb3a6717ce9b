//! A split queue, seen from its device (2.7).
//!
//! Indices and the used ring are rust-vmm's virtio-queue; descriptor chains are walked here, since a
//! malformed chain must be told from a short one.

mod chain;
mod in_flight;
mod state;
#[cfg(test)]
mod tests;

use std::num::Wrapping;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use paraslot_device::{Dma, DmaSpace, Interrupt, Memory, Source};
use paraslot_spec::virtio::{feature, split};
use virtio_queue::{QueueT, desc::split::VirtqUsedElem};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::IntoBytes;

use crate::TransportSignals;
use chain::Walker;
pub use chain::{Chain, MAX_CHAIN, Segment};
use in_flight::InFlight;
pub use state::QueueState;

const _: () = assert!(size_of::<VirtqUsedElem>() == size_of::<split::UsedElem>());

/// How the driver has set a queue up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueConfig {
    /// Entries, a power of two, at most what the device allows.
    pub size: u16,
    /// Descriptor table.
    pub descriptor_table: u64,
    /// Available ring.
    pub avail_ring: u64,
    /// Used ring.
    pub used_ring: u64,
    /// Features that the driver has accepted.
    pub features: u64,
}

impl QueueConfig {
    /// The rings as virtio-queue keeps them, or `None` if the size is none or an address is not
    /// aligned.
    fn rings(&self) -> Option<virtio_queue::Queue> {
        let mut rings = virtio_queue::Queue::new(split::MAX_QUEUE_SIZE).ok()?;
        rings.try_set_size(self.size).ok()?;
        rings.try_set_desc_table_address(GuestAddress(self.descriptor_table)).ok()?;
        rings.try_set_avail_ring_address(GuestAddress(self.avail_ring)).ok()?;
        rings.try_set_used_ring_address(GuestAddress(self.used_ring)).ok()?;
        rings.set_event_idx(self.features & feature::EVENT_IDX != 0);
        rings.set_ready(true);
        Some(rings)
    }

    /// Whether all three rings are guest memory.
    fn accessible<M: GuestMemory + ?Sized>(&self, memory: &M) -> bool {
        [
            (self.descriptor_table, split::descriptor_table_len(self.size), Permissions::Read),
            (self.avail_ring, split::avail_ring_len(self.size), Permissions::Read),
            (self.used_ring, split::used_ring_len(self.size), Permissions::Write),
        ]
        .into_iter()
        .all(|(address, len, access)| memory.check_range(GuestAddress(address), len, access))
    }
}

/// What is wrong with a queue. All of these are the driver's fault and cost it DEVICE_NEEDS_RESET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The rings lie outside guest memory, or are not aligned, or the size is not a power of two.
    #[error("the rings are not in guest memory")]
    Rings,
    /// The available index is more than the queue size ahead.
    #[error("available index runs ahead of the queue")]
    AvailIndex,
    /// A malformed descriptor chain.
    #[error("malformed descriptor chain at {head}")]
    Chain {
        /// Its head.
        head: u16,
    },
    /// A chain was made available again while the device still had it.
    #[error("descriptor chain {head} is in flight already")]
    InFlight {
        /// Its head.
        head: u16,
    },
}

/// A running queue: the rings, who to interrupt, and what rings when the driver notifies.
///
/// The rings are checked when they are first used, and again by every access, since the guest's
/// memory map may change. What goes wrong breaks the queue for good: DEVICE_NEEDS_RESET is set once,
/// the rings are not touched any more, and the driver is not interrupted.
///
/// It takes up (size / 8) bytes of memory, besides a small constant.
pub struct Queue<A: DmaSpace> {
    config: QueueConfig,
    rings: Option<virtio_queue::Queue>,
    /// The driver's index as last seen; what lies before it can be popped without looking again.
    seen_avail: Wrapping<u16>,
    in_flight: InFlight,
    /// Chains pushed since the driver was last told.
    pushed: u32,
    /// The driver has been asked to notify, as at first.
    asked: bool,
    state: State,
    dma: Dma<A>,
    interrupt: Arc<dyn Interrupt>,
    doorbell: EventFd,
    signals: Arc<dyn TransportSignals>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The rings have not been looked at.
    New,
    /// Nor have they here, but another queue has used them, and this one goes on there.
    Restored,
    Running,
    Broken,
}

impl<A: DmaSpace> Queue<A> {
    /// A queue at its start. The transport makes it. The doorbell is non-blocking.
    pub fn new(
        config: QueueConfig,
        dma: Dma<A>,
        interrupt: Arc<dyn Interrupt>,
        doorbell: EventFd,
        signals: Arc<dyn TransportSignals>,
    ) -> Self {
        let rings = config.rings();
        let slots = rings.as_ref().map_or(0, |rings| rings.size());
        Self {
            config,
            rings,
            seen_avail: Wrapping(0),
            in_flight: InFlight::new(slots),
            pushed: 0,
            asked: true,
            state: State::New,
            dma,
            interrupt,
            doorbell,
            signals,
        }
    }

    /// The way to guest memory.
    pub fn dma(&self) -> &Dma<A> {
        &self.dma
    }

    /// Entries.
    pub fn size(&self) -> u16 {
        self.config.size
    }

    /// Features that the driver has accepted.
    pub fn features(&self) -> u64 {
        self.config.features
    }

    /// The doorbell, for [`paraslot_device::Worker::sources`].
    pub fn source(&self) -> Source {
        Source::Event(self.doorbell.as_raw_fd())
    }

    /// Chains that were popped and not yet pushed.
    pub fn in_flight(&self) -> u16 {
        self.in_flight.len()
    }

    /// Whether the queue is broken: there is never another chain, and the driver must reset.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Breaks the queue: sets DEVICE_NEEDS_RESET, and leaves the rings alone from now on. For a
    /// device that finds a chain well-formed but impossible to answer. Does nothing the second time.
    pub fn fail(&mut self) {
        if self.state != State::Broken {
            self.state = State::Broken;
            self.signals.needs_reset();
        }
    }

    /// The next available chain, or `None` if there is none. After an error the queue is broken:
    /// DEVICE_NEEDS_RESET has been set, and there is never another chain.
    ///
    /// A call reads at most the driver's index, one ring entry and [`MAX_CHAIN`] descriptors (or as
    /// many as the queue has entries, if those are more), each once.
    ///
    /// # Errors
    /// When the driver has broken the rules.
    pub fn pop(&mut self, memory: &Memory<A>) -> Result<Option<Chain>, QueueError> {
        if self.state == State::Broken {
            return Ok(None);
        }
        let popped = self.take(memory);
        if popped.is_err() {
            self.fail();
        }
        popped
    }

    fn take(&mut self, memory: &A::M) -> Result<Option<Chain>, QueueError> {
        self.start(memory)?;
        let rings = self.rings.as_mut().ok_or(QueueError::Rings)?;
        let next = rings.next_avail();
        if self.seen_avail.0 == next {
            let avail = rings.avail_idx(memory, Ordering::Acquire).or(Err(QueueError::Rings))?;
            if (avail - Wrapping(next)).0 > self.config.size {
                return Err(QueueError::AvailIndex);
            }
            if avail.0 == next {
                return Ok(None);
            }
            self.seen_avail = avail;
        }
        // The ring lies within the address space, or the rings' check would have failed.
        let slot = u64::from(next & self.config.size.wrapping_sub(1));
        let entry = GuestAddress(self.config.avail_ring.wrapping_add(4 + 2 * slot));
        let head =
            memory.load(entry, Ordering::Relaxed).map(u16::from_le).or(Err(QueueError::Rings))?;
        rings.set_next_avail(next.wrapping_add(1));
        let mut chain = Chain::empty(head);
        Walker::new(memory, &self.config).walk(&mut chain)?;
        if !self.in_flight.insert(head) {
            return Err(QueueError::InFlight { head });
        }
        Ok(Some(chain))
    }

    /// Looks at the rings when they are first used.
    fn start(&mut self, memory: &A::M) -> Result<(), QueueError> {
        if !matches!(self.state, State::New | State::Restored) {
            return Ok(());
        }
        if self.rings.is_none() || !self.config.accessible(memory) {
            return Err(QueueError::Rings);
        }
        if self.state == State::New {
            // The flags are 0 with EVENT_IDX, and 0 or 1 without (2.7.10.1), whatever was there before.
            memory
                .store(0u16, GuestAddress(self.config.used_ring), Ordering::Relaxed)
                .or(Err(QueueError::Rings))?;
        }
        self.state = State::Running;
        Ok(())
    }

    /// The rings, if they can be used; breaks the queue if it turns out that they cannot.
    fn running(&mut self, memory: &A::M) -> Option<&mut virtio_queue::Queue> {
        if self.state == State::Broken {
            return None;
        }
        if self.start(memory).is_err() {
            self.fail();
            return None;
        }
        self.rings.as_mut()
    }

    /// Takes back the last [`pop`](Self::pop): the chain that it returned, which is still in flight,
    /// is available again. The device has no further use for what it read of it. Several can be
    /// taken back, the last popped first.
    pub fn undo_pop(&mut self, head: u16) {
        if self.in_flight.remove(head)
            && let Some(rings) = &mut self.rings
        {
            rings.set_next_avail(rings.next_avail().wrapping_sub(1));
        }
    }

    /// Gives a chain back, `written` bytes of its device-writable part filled. The driver is not told
    /// before [`notify`](Self::notify). Without effect for a chain that the device does not have.
    pub fn push_used(&mut self, memory: &Memory<A>, head: u16, written: u32) {
        if !self.in_flight.remove(head) {
            return;
        }
        let Some(rings) = self.running(memory) else { return };
        if rings.add_used(&**memory, head, written).is_err() {
            self.fail();
            return;
        }
        self.pushed = self.pushed.saturating_add(1);
    }

    /// Gives chains back (head, bytes written) as by [`push_used`](Self::push_used), such that the
    /// driver sees none of them before it can see all.
    pub fn push_used_together(&mut self, memory: &Memory<A>, used: &[(u16, u32)]) {
        if self.running(memory).is_none() {
            used.iter().for_each(|&(head, _)| {
                self.in_flight.remove(head);
            });
            return;
        }
        let Some(rings) = &mut self.rings else { return };
        let mut next = rings.next_used();
        // Looked up in the memory map once where it lies in one piece of it. It lies within the
        // address space, or the rings' check would have failed.
        let base = self.config.used_ring;
        let len = split::used_ring_len(self.config.size);
        let ring = memory
            .get_slices(GuestAddress(base), len, Permissions::Write)
            .ok()
            .and_then(|mut slices| slices.next()?.ok())
            .filter(|slice| slice.len() == len);
        let mut stored = true;
        for &(head, written) in used {
            if !self.in_flight.remove(head) {
                continue;
            }
            let place = 4 + 8 * usize::from(next & self.config.size.wrapping_sub(1));
            let used = split::UsedElem { id: u32::from(head).into(), len: written.into() };
            stored &= match &ring {
                Some(ring) => ring.write_slice(used.as_bytes(), place).is_ok(),
                None => {
                    let place = GuestAddress(base.wrapping_add(place as u64));
                    memory.write_slice(used.as_bytes(), place).is_ok()
                }
            };
            next = next.wrapping_add(1);
            self.pushed = self.pushed.saturating_add(1);
        }
        rings.set_next_used(next);
        stored = stored
            && match &ring {
                Some(ring) => ring.store(next.to_le(), 2, Ordering::Release).is_ok(),
                None => {
                    let place = GuestAddress(base.wrapping_add(2));
                    memory.store(next.to_le(), place, Ordering::Release).is_ok()
                }
            };
        if !stored {
            self.fail();
        }
    }

    /// Interrupts the driver about chains pushed since the last call, unless it asked not to be.
    pub fn notify(&mut self, memory: &Memory<A>) {
        let pushed = std::mem::take(&mut self.pushed);
        if pushed == 0 {
            return;
        }
        let event_idx = self.config.features & feature::EVENT_IDX != 0;
        // Both lie in the available ring, of which the check has found all in guest memory.
        let wish = if event_idx { 4 + 2 * u64::from(self.config.size) } else { 0 };
        let wish = GuestAddress(self.config.avail_ring.wrapping_add(wish));
        let Some(rings) = self.running(memory) else { return };
        let next = Wrapping(rings.next_used());
        // The used index must be visible before the driver's wish is read, or both sides could miss
        // the other's write (2.7.7.2).
        fence(Ordering::SeqCst);
        let Ok(wish) = memory.load(wish, Ordering::Relaxed).map(u16::from_le) else {
            self.fail();
            return;
        };
        let wanted = if event_idx {
            // Whether the index has passed used_event since the last call.
            u32::from((next - Wrapping(wish) - Wrapping(1)).0) < pushed
        } else {
            wish & split::AVAIL_F_NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt.trigger();
        }
    }

    /// Asks the driver not to notify for now, if it was asked to. A worker does so with each chain that
    /// it has popped.
    pub fn disable_notifications(&mut self, memory: &Memory<A>) {
        if !std::mem::take(&mut self.asked) {
            return;
        }
        let Some(rings) = self.running(memory) else { return };
        if rings.disable_notification(&**memory).is_err() {
            self.fail();
        }
    }

    /// Asks the driver to notify, then looks once more: `true` if chains are available.
    pub fn enable_notifications(&mut self, memory: &Memory<A>) -> bool {
        self.asked = true;
        let Some(rings) = self.running(memory) else { return false };
        match rings.enable_notification(&**memory) {
            Ok(more) => more,
            Err(_) => {
                self.fail();
                false
            }
        }
    }
}
