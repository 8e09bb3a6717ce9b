//! The descriptors of one round of work.

use std::sync::atomic::Ordering;

use paraslot_device::DmaSpace;
use paraslot_spec::e1000::ReceiveDescriptor;
use paraslot_spec::e1000::registers::{RDBAL, RDH, RDT};
use vm_memory::Bytes;
use zerocopy::{FromZeros, IntoBytes};

use crate::engine::Env;
use crate::registers::Bank;
use crate::ring::Ring;

/// Descriptors that one round of work uses, whatever is in them.
const BUDGET: u32 = 512;
/// Descriptors that are read at a time.
const READ: u32 = 16;
/// Offset of the second half of a receive descriptor, which is what is written back.
const WRITTEN_BACK: u64 = 8;

/// Descriptors that have been read, each once, and not yet used.
pub(super) struct Run {
    ring: Ring,
    /// The index of the next.
    head: u32,
    read: [ReceiveDescriptor; READ as usize],
    at: usize,
    end: usize,
    budget: u32,
}

/// Why there is no descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Short {
    /// The guest has given none.
    Starved,
    /// The ring is not in memory.
    Unreadable,
    /// Enough have been used.
    Spent,
}

impl Run {
    /// The round begins at the ring's head.
    pub(super) fn new(bank: &Bank) -> Self {
        let read = FromZeros::new_zeroed();
        Self { ring: bank.ring(RDBAL), head: bank.get(RDH), read, at: 0, end: 0, budget: BUDGET }
    }

    /// The ring.
    pub(super) fn ring(&self) -> Ring {
        self.ring
    }

    /// Descriptors that the guest has given and that have not been used.
    pub(super) fn pending(&self, bank: &Bank) -> u32 {
        self.ring.pending(self.head, bank.get(RDT))
    }

    /// Makes sure that there is a descriptor at hand.
    pub(super) fn fill<A: DmaSpace>(&mut self, env: &Env<'_, A>) -> Result<(), Short> {
        if self.at != self.end {
            return Ok(());
        }
        let pending = self.pending(&env.shared.bank);
        if pending == 0 {
            return Err(Short::Starved);
        }
        let count = self.ring.run(self.head, pending).min(READ).min(self.budget);
        let place = usize::try_from(count).ok().and_then(|count| self.read.get_mut(..count));
        let place = place.filter(|place| !place.is_empty()).ok_or(Short::Spent)?;
        let address = self.ring.address(self.head, 0).ok_or(Short::Unreadable)?;
        let read = env.memory.read_slice(place.as_mut_bytes(), address);
        read.map_err(|_| Short::Unreadable)?;
        (self.at, self.end) = (0, place.len());
        Ok(())
    }

    /// The next descriptor.
    pub(super) fn next<A: DmaSpace>(
        &mut self,
        env: &Env<'_, A>,
    ) -> Result<ReceiveDescriptor, Short> {
        self.fill(env)?;
        let descriptor = self.read.get(self.at).copied().ok_or(Short::Spent)?;
        self.at += 1;
        self.budget = self.budget.saturating_sub(1);
        Ok(descriptor)
    }

    /// Writes the second half of the descriptor at the head, and moves the head on. All eight bytes at
    /// once: DD is never seen without what goes with it (QEMU 034d00d485). Says no if the ring has gone
    /// from memory since it was read.
    pub(super) fn write_back<A: DmaSpace>(
        &mut self,
        env: &Env<'_, A>,
        descriptor: &ReceiveDescriptor,
    ) -> bool {
        let Some(half) = descriptor.as_bytes().last_chunk() else { return false };
        let Some(address) = self.ring.address(self.head, WRITTEN_BACK) else { return false };
        let value = u64::from_ne_bytes(*half);
        if env.memory.store(value, address, Ordering::Release).is_err() {
            return false;
        }
        self.head = self.ring.after(self.head);
        env.shared.bank.set(RDH, self.head);
        true
    }
}
