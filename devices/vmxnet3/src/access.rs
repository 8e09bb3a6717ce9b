//! What accesses to registers do.

use paraslot_device::DmaSpace;
use paraslot_spec::vmxnet3::registers::{
    CMD, DSAH, DSAL, ECR, ICR, IMR, MACH, MACL, RXPROD, RXPROD2, STRIDE, TXPROD, UVRS, VRRS,
};
use paraslot_spec::vmxnet3::{
    Events, MAX_INTRS, MAX_RX_QUEUES, MAX_TX_QUEUES, REVISION_1, REVISION_2, REVISION_3,
    UPT_VERSION_1,
};

use crate::device::Vmxnet3;
use crate::irq::bit;

/// VRRS: the revisions that are offered.
pub(crate) const REVISIONS: u32 = REVISION_1 | REVISION_2 | REVISION_3;

/// The number of the register of a kind that is at `offset`, if it is one of `count` such.
fn nth(offset: u64, first: u64, count: usize) -> Option<usize> {
    let from_first = offset.checked_sub(first)?;
    let number = usize::try_from(from_first / STRIDE).ok()?;
    (from_first.is_multiple_of(STRIDE) && number < count).then_some(number)
}

impl<A: DmaSpace> Vmxnet3<A> {
    /// Reads a register of the PT BAR. The producers read zero: they are rung, not kept.
    pub(crate) fn read_pt(&mut self, offset: u64) -> u32 {
        let intr = nth(offset, IMR, MAX_INTRS).and_then(|intr| u8::try_from(intr).ok());
        intr.map_or(0, |intr| self.shared.irq.mask(intr).into())
    }

    pub(crate) fn write_pt(&mut self, offset: u64, value: u32) {
        let producers =
            [(TXPROD, MAX_TX_QUEUES), (RXPROD, MAX_RX_QUEUES), (RXPROD2, MAX_RX_QUEUES)];
        for (first, count) in producers {
            if let Some(queue) = nth(offset, first, count) {
                return self.shared.ring(queue);
            }
        }
        let intr = nth(offset, IMR, MAX_INTRS).and_then(|intr| u8::try_from(intr).ok());
        if let Some(intr) = intr
            && self.shared.irq.set_mask(intr, value & 1 != 0)
        {
            self.shared.hold(bit(intr));
        }
    }

    /// Reads a register of the VD BAR.
    pub(crate) fn read_vd(&mut self, offset: u64) -> u32 {
        let [a, b, c, d, e, f] = self.shared.mac();
        let [low, high] = self.registers.address;
        match offset {
            VRRS => REVISIONS,
            UVRS => UPT_VERSION_1,
            DSAL => low,
            DSAH => high,
            CMD => self.registers.result,
            MACL => u32::from_le_bytes([a, b, c, d]),
            MACH => u16::from_le_bytes([e, f]).into(),
            ICR => self.shared.irq.take().into(),
            _ => 0,
        }
    }

    pub(crate) fn write_vd(&mut self, offset: u64, value: u32) {
        match offset {
            VRRS if value.is_power_of_two() && value & REVISIONS != 0 => {
                self.registers.revision = value;
            }
            DSAL => {
                let [low, _] = &mut self.registers.address;
                *low = value;
                if value == 0 {
                    // The driver takes its memory back.
                    self.deactivate();
                }
            }
            DSAH => {
                let [_, high] = &mut self.registers.address;
                *high = value;
            }
            CMD => self.registers.result = self.command(value),
            MACL => self.registers.mac_low = value,
            MACH => {
                let [a, b, c, d] = self.registers.mac_low.to_le_bytes();
                let [e, f, _, _] = value.to_le_bytes();
                self.shared.set_mac([a, b, c, d, e, f]);
            }
            ECR => {
                let state = self.shared.state();
                if let (Some(active), Some(memory)) = (&state.active, self.dma.memory()) {
                    active.acknowledge(&memory, Events::from_bits_truncate(value));
                }
            }
            _ => {}
        }
    }
}
