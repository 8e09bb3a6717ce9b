//! What task management has a lane do.

use std::sync::Arc;

use paraslot_spec::scsi::sense::code;

use super::slot::Fate;
use super::{Lane, token};
use crate::nexus::Nexus;
use crate::task::{Kind, Order, Work};

/// An order that has been carried out, and what is still to come of it.
pub(super) struct Obeyed {
    /// Commands (by serial number) whose backend has not let go of them.
    pub(super) left: Vec<u64>,
    /// None are left, and all that is over has been given to the worker: it has only to tell the guest.
    pub(super) given: bool,
    /// Kept until then.
    _work: Arc<Work>,
}

impl Lane {
    pub(super) fn carry_out(&mut self, order: Order) {
        let concerned: Vec<u32> = (0..self.slots.count())
            .filter(|&index| {
                let Some(slot) = self.slots.get(index) else { return false };
                let unit = self.view.get(slot.unit);
                unit.is_some_and(|unit| order.concerns(&unit.nexus, slot.tag))
                    && !slot.job.awaits(&order.work)
            })
            .collect();
        let fate = match order.kind {
            Kind::Query => None,
            Kind::Abort | Kind::Clear(_) => Some(Fate::Aborted),
            Kind::Reset => Some(Fate::Reset),
        };
        let mut left = Vec::new();
        if let Some(fate) = fate {
            for &index in &concerned {
                let Some(slot) = self.slots.get_mut(index) else { continue };
                slot.fate.get_or_insert(fate);
                left.push(slot.serial);
            }
        } else if !concerned.is_empty() {
            order.work.found();
        }
        if let Kind::Clear(by) = &order.kind {
            self.tell_cleared(&concerned, by);
        }
        self.obeyed.push(Obeyed { left, given: false, _work: order.work });
        if fate.is_some() {
            for index in concerned {
                self.stop(index);
            }
        }
    }

    /// A command is to end as soon as its backend lets go of it.
    fn stop(&mut self, index: u32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        slot.refused = None;
        let running = slot.running;
        if running == 0 {
            self.finish(index);
            return;
        }
        let Some(number) = slot.queue else { return };
        let Some(open) = self.queues.get_mut(number) else { return };
        for bit in (0..u8::BITS).map(|shift| 1u8 << shift).filter(|bit| running & bit != 0) {
            open.queue.cancel(token(index, bit));
        }
        self.queues.touch(number);
    }

    /// Other initiators hear that `by` has ended commands of theirs (SAM-5, 7.5).
    fn tell_cleared(&mut self, concerned: &[u32], by: &Arc<Nexus>) {
        let mut units: Vec<usize> = concerned
            .iter()
            .filter_map(|index| self.slots.get(*index).map(|slot| slot.unit))
            .collect();
        units.sort_unstable();
        units.dedup();
        for unit in units.into_iter().filter_map(|number| self.view.get(number)) {
            if !Arc::ptr_eq(&unit.nexus, by) {
                let (asc, ascq) = code::COMMANDS_CLEARED;
                unit.nexus.attention(asc, ascq);
            }
        }
    }
}
