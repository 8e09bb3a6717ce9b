//! The local APIC, and sleep.

use paraslot_drivers::MsiMessage;

use crate::boot::{DEVICE_VECTOR, DEVICE_VECTORS, SPURIOUS_VECTOR, TIMER_VECTOR};
use crate::boot::{interrupt_counts, sleep};

const LOCAL_APIC: usize = 0xfee0_0000;

const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const SPURIOUS: usize = 0xf0;
const LVT_TIMER: usize = 0x320;
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const LVT_ERROR: usize = 0x370;
const TIMER_COUNT: usize = 0x380;
const TIMER_DIVIDE: usize = 0x3e0;

const ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const DIVIDE_BY_1: u32 = 0b1011;
/// A quarter of a second at KVM's 1 GHz.
const TICK: u32 = 250_000_000;

fn read(register: usize) -> u32 {
    // SAFETY: the local APIC is mapped at its address after reset.
    unsafe { ((LOCAL_APIC + register) as *const u32).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: as above; no register written here accesses memory.
    unsafe { ((LOCAL_APIC + register) as *mut u32).write_volatile(value) }
}

/// Interrupts that devices may raise, and a slow tick that ends every sleep in time.
#[derive(Debug)]
pub(crate) struct Interrupts {
    apic_id: u8,
}

impl Interrupts {
    /// Enables the local APIC, for messages and its timer alone.
    ///
    /// # Panics
    /// When it is not at its address after reset.
    pub(crate) fn new() -> Self {
        assert!(read(ID) != u32::MAX, "there is no local APIC in xAPIC mode");
        for lvt in [LVT_LINT0, LVT_LINT1, LVT_ERROR] {
            write(lvt, MASKED);
        }
        write(TASK_PRIORITY, 0);
        write(SPURIOUS, ENABLE | u32::from(SPURIOUS_VECTOR));
        write(TIMER_DIVIDE, DIVIDE_BY_1);
        write(LVT_TIMER, PERIODIC | u32::from(TIMER_VECTOR));
        write(TIMER_COUNT, TICK);
        Self { apic_id: (read(ID) >> 24) as u8 }
    }

    /// The message that raises interrupt `index`.
    pub(crate) fn message(&self, index: u8) -> MsiMessage {
        assert!(index < DEVICE_VECTORS, "no such interrupt");
        MsiMessage {
            address: LOCAL_APIC as u64 | u64::from(self.apic_id) << 12,
            data: u32::from(DEVICE_VECTOR + index),
        }
    }

    fn counter(&self, index: u8) -> *mut u64 {
        assert!(index < DEVICE_VECTORS, "no such interrupt");
        // SAFETY: inside the array.
        unsafe { (&raw mut interrupt_counts).cast::<u64>().add(index.into()) }
    }

    /// How often interrupt `index` was taken.
    pub(crate) fn taken(&self, index: u8) -> u64 {
        // SAFETY: aligned and alive. An interrupt's stub writes it in one instruction.
        unsafe { self.counter(index).read_volatile() }
    }

    /// Sleeps until any interrupt comes, at once if interrupt `index` was not taken `seen` times.
    pub(crate) fn sleep(&self, index: u8, seen: u64) {
        // SAFETY: changes no memory but counters, which are only read as volatile.
        unsafe { sleep(self.counter(index), seen) }
    }
}
