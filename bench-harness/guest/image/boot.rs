//! What `boot.s` shares with the rest.

use core::arch::global_asm;

global_asm!(include_str!("boot.s"));

/// First vector of the platform's interrupts when pins raise them. All are in one priority class, so
/// that a second is not taken while one is in service, and in the lowest, so that messages and the
/// timer are.
pub(crate) const PIN_VECTOR: u8 = 0x20;
/// Interrupts that pins can raise.
pub(crate) const PIN_VECTORS: u8 = 16;
/// First vector of the platform's interrupts when messages raise them.
pub(crate) const DEVICE_VECTOR: u8 = 0x40;
/// Interrupts that devices can have.
pub(crate) const DEVICE_VECTORS: u8 = 32;
/// Vector of the local APIC's timer; its count follows the devices'.
pub(crate) const TIMER_VECTOR: u8 = 0x60;
/// Vector of the local APIC's spurious interrupts.
pub(crate) const SPURIOUS_VECTOR: u8 = 0x6f;

unsafe extern "C" {
    /// How often each interrupt was taken; the stubs count.
    pub(crate) static mut interrupt_counts: [u64; DEVICE_VECTORS as usize + 1];
    /// Which of the pins' interrupts were taken and have not been ended; the stubs set.
    pub(crate) static mut pins_in_service: [u8; PIN_VECTORS as usize];
    /// What a stub writes to the I/O APIC's window when a pin's interrupt is taken again before it has
    /// been ended; nothing if 0.
    pub(crate) static mut edge_redirection: u32;
    /// The time stamp counter's frequency in kHz as the hypervisor says, 0 if it does not.
    static hypervisor_tsc_khz: u32;
    /// The page directory pointers of the first 512 GiB.
    pub(crate) static mut pdpt: [u64; 512];
    /// The image's first byte.
    static image_start: u8;
    /// The byte after its last.
    static image_end: u8;

    /// Returns after the next interrupt, at once if `*counter` is not `seen`.
    pub(crate) fn sleep(counter: *const u64, seen: u64);
}

/// Where the image is, with everything it brings along.
pub(crate) fn image() -> core::ops::Range<u64> {
    (&raw const image_start) as u64..(&raw const image_end) as u64
}

/// The time stamp counter's frequency in Hz as the hypervisor says (CPUID leaf 0x4000_0010).
pub(crate) fn hypervisor_tsc_hz() -> Option<u64> {
    // SAFETY: `boot.s` wrote it before any of this ran.
    let khz = unsafe { (&raw const hypervisor_tsc_khz).read_volatile() };
    (khz != 0).then(|| u64::from(khz) * 1000)
}

#[unsafe(no_mangle)]
extern "C" fn on_exception(
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    address: u64,
    rsp: u64,
) -> ! {
    crate::crash(format_args!(
        "exception {vector}, error code {error:#x}, at {cs:#x}:{rip:#x}, stack {rsp:#x}, address {address:#x}"
    ))
}
