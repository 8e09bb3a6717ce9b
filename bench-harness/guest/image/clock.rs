//! The time stamp counter and its frequency.

use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};

use crate::{boot, port};

/// The counter, read after all earlier loads.
pub(crate) fn tsc() -> u64 {
    // SAFETY: both are there in every 64-bit CPU.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// Its frequency in Hz: as the hypervisor says, as the CPU says (CPUID leaf 0x15), or
/// measured against the interval timer. `None` where there is nothing to tell it.
pub(crate) fn frequency() -> Option<u64> {
    // Being preempted makes it look faster, and an emulated timer may be late or early: the
    // median does without the one measurement of three to which that happens.
    let measured = || {
        let mut times = [interval_timer()?, interval_timer()?, interval_timer()?];
        times.sort_unstable();
        Some(times[1])
    };
    boot::hypervisor_tsc_hz().or_else(cpu).or_else(measured)
}

fn cpu() -> Option<u64> {
    if __cpuid(0).eax < 0x15 {
        return None;
    }
    let leaf = __cpuid(0x15);
    let hz = u64::from(leaf.ecx) * u64::from(leaf.ebx);
    hz.checked_div(u64::from(leaf.eax)).filter(|hz| *hz != 0)
}

/// Counts cycles while channel 2 of the 8254 counts down.
fn interval_timer() -> Option<u64> {
    const CHANNEL_2: u16 = 0x42;
    const CONTROL: u16 = 0x43;
    const GATE: u16 = 0x61;
    const OUTPUT: u8 = 1 << 5;
    const HZ: u64 = 1_193_182;
    const COUNT: u16 = 23_864; // 20 ms

    let gate = port::read8(GATE) & 0xfc;
    port::write8(GATE, gate | 1); // on, speaker off
    port::write8(CONTROL, 0b1011_0000); // channel 2, both bytes, mode 0: rises at the end
    let [low, high] = COUNT.to_le_bytes();
    port::write8(CHANNEL_2, low);
    let start = tsc();
    port::write8(CHANNEL_2, high); // it counts from here on
    // Where there is no timer the port reads as ones, or never changes.
    if port::read8(GATE) & OUTPUT != 0 {
        return None;
    }
    loop {
        let cycles = tsc() - start;
        if port::read8(GATE) & OUTPUT != 0 {
            return Some(cycles * HZ / u64::from(COUNT));
        }
        if cycles > 1 << 32 {
            return None;
        }
    }
}
