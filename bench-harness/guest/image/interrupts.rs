//! The local APIC, the I/O APIC's pins, and sleep.

use core::cell::Cell;

use paraslot_drivers::MsiMessage;

use crate::boot::{DEVICE_VECTOR, DEVICE_VECTORS, PIN_VECTOR, PIN_VECTORS};
use crate::boot::{SPURIOUS_VECTOR, TIMER_VECTOR};
use crate::boot::{edge_redirection, interrupt_counts, pins_in_service, sleep};

const LOCAL_APIC: usize = 0xfee0_0000;
/// Where every machine has its first I/O APIC.
const IO_APIC: usize = 0xfec0_0000;

const ID: usize = 0x20;
const TASK_PRIORITY: usize = 0x80;
const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const IN_SERVICE: usize = 0x100;
const COMMAND_LOW: usize = 0x300;
const COMMAND_HIGH: usize = 0x310;
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

/// The I/O APIC's registers are behind these two.
const IO_SELECT: usize = IO_APIC;
const IO_WINDOW: usize = IO_APIC + 0x10;
/// The I/O APIC's version, and in bits 23:16 its last pin.
const IO_VERSION: u32 = 1;
/// The first pin's redirection: two registers for each pin, the higher one with the local APIC's ID in
/// its bits 31:24.
const IO_REDIRECTION: u32 = 0x10;
/// Redirection: level-triggered. Active high, as hypervisors have it: they see levels, not voltages.
const LEVEL: u32 = 1 << 15;
/// Redirection: edge-triggered, active high.
const EDGE: u32 = 0;

fn read(register: usize) -> u32 {
    // SAFETY: the local APIC is mapped at its address after reset.
    unsafe { ((LOCAL_APIC + register) as *const u32).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: as above; no register written here accesses memory.
    unsafe { ((LOCAL_APIC + register) as *mut u32).write_volatile(value) }
}

/// Reads the I/O APIC's register that is selected.
fn window() -> u32 {
    // SAFETY: no access to it accesses memory, and nothing but an I/O APIC is there.
    unsafe { (IO_WINDOW as *const u32).read_volatile() }
}

/// Writes it.
fn set_window(value: u32) {
    // SAFETY: as above; what is written raises no interrupt but those that have a stub.
    unsafe { (IO_WINDOW as *mut u32).write_volatile(value) }
}

fn vector(index: u8) -> u32 {
    u32::from(PIN_VECTOR + index)
}

/// A pin of the I/O APIC that raises an interrupt.
#[derive(Clone, Copy, Debug)]
struct Pin {
    redirection: u32,
    /// Whether the local APIC keeps its interrupt in service until it is acknowledged.
    kept: bool,
}

/// Interrupts that devices may raise, and a slow tick that ends every sleep in time.
#[derive(Debug)]
pub(crate) struct Interrupts {
    apic_id: u8,
    pins: [Cell<Option<Pin>>; PIN_VECTORS as usize],
    /// The I/O APIC's register that is selected.
    selected: Cell<u32>,
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
        let apic_id = (read(ID) >> 24) as u8;
        Self { apic_id, pins: Default::default(), selected: Cell::new(u32::MAX) }
    }

    /// The message that raises interrupt `index`.
    pub(crate) fn message(&self, index: u8) -> MsiMessage {
        assert!(index < DEVICE_VECTORS, "no such interrupt");
        MsiMessage {
            address: LOCAL_APIC as u64 | u64::from(self.apic_id) << 12,
            data: u32::from(DEVICE_VECTOR + index),
        }
    }

    /// Has pin `pin` of the I/O APIC raise interrupt `index` while it is asserted. Returns whether there
    /// is such a pin, and the interrupt is one that pins can raise.
    pub(crate) fn connect(&self, pin: u8, index: u8) -> bool {
        self.select(IO_VERSION);
        let version = window();
        let last = version >> 16 & 0xff;
        let Some(place) = self.pins.get(usize::from(index)) else { return false };
        if version == u32::MAX || u32::from(pin) > last {
            return false;
        }
        let redirection = IO_REDIRECTION + 2 * u32::from(pin);
        self.select(redirection);
        set_window(MASKED);
        let Some(kept) = self.keeps_in_service(index) else { return false };
        self.select(redirection + 1);
        set_window(u32::from(self.apic_id) << 24);
        self.select(redirection);
        let trigger = if kept { LEVEL } else { EDGE };
        set_window(trigger | vector(index));
        place.set(Some(Pin { redirection, kept }));
        self.end(index);
        true
    }

    /// Selects a register of the I/O APIC, which costs an access only when it is another.
    fn select(&self, register: u32) {
        if self.selected.replace(register) != register {
            // SAFETY: as for what it selects.
            unsafe { (IO_SELECT as *mut u32).write_volatile(register) }
        }
    }

    /// Whether the local APIC keeps a pin's interrupt in service until it is acknowledged: some KVMs
    /// that interpret kernel code acknowledge what they deliver. `None` if none is delivered at all.
    fn keeps_in_service(&self, index: u8) -> Option<bool> {
        const LOOKS: usize = 1_000_000;
        let before = self.taken(index);
        write(COMMAND_HIGH, u32::from(self.apic_id) << 24);
        write(COMMAND_LOW, vector(index));
        (0..LOOKS).find(|_| self.taken(index) != before)?;
        let kept = read(IN_SERVICE + 0x10 * (usize::from(PIN_VECTOR) / 32)) & 1 << index != 0;
        write(END_OF_INTERRUPT, 0);
        // SAFETY: aligned and alive. No pin raises it now, so no stub writes either.
        unsafe {
            self.counter(index).write_volatile(before);
            self.in_service(index).write_volatile(0);
        }
        Some(kept)
    }

    /// Ends the handling of a pin's interrupt `index`; it is taken again if the pin is still asserted.
    ///
    /// Where the local APIC keeps it in service, that takes an acknowledgement. Elsewhere the pin is
    /// edge-triggered, lest its interrupt come for ever, and level-triggered for the instant in which
    /// the I/O APIC looks whether it is asserted.
    pub(crate) fn end(&self, index: u8) {
        let Some(Some(pin)) = self.pins.get(usize::from(index)).map(Cell::get) else { return };
        // SAFETY: alive; a stub writes it in one instruction.
        unsafe { self.in_service(index).write_volatile(0) };
        if pin.kept {
            return write(END_OF_INTERRUPT, 0);
        }
        self.select(pin.redirection);
        let edge = EDGE | vector(index);
        let shared = &raw mut edge_redirection;
        // SAFETY: aligned and alive; stubs only read it.
        unsafe { shared.write_volatile(edge) };
        set_window(LEVEL | vector(index));
        set_window(edge);
        // SAFETY: as above.
        unsafe { shared.write_volatile(0) };
    }

    fn in_service(&self, index: u8) -> *mut u8 {
        assert!(index < PIN_VECTORS, "no such pin's interrupt");
        // SAFETY: inside the array.
        unsafe { (&raw mut pins_in_service).cast::<u8>().add(index.into()) }
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
