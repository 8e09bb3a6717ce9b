//! The functions that compiled code expects to find.

use core::arch::asm;

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's ranges. The direction flag is clear.
    unsafe {
        asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") len => _,
             options(nostack, preserves_flags))
    };
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // SAFETY: going up never reads what was written.
        return unsafe { memcpy(to, from, len) };
    }
    // SAFETY: the caller's ranges; both last bytes exist since `len` is not 0. Going down never
    // reads what was written.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rdi") to.add(len - 1) => _,
             inout("rsi") from.add(len - 1) => _, inout("rcx") len => _, options(nostack))
    };
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
    let [byte, ..] = value.to_le_bytes();
    // SAFETY: the caller's range.
    unsafe {
        asm!("rep stosb", inout("rdi") to => _, in("al") byte, inout("rcx") len => _,
             options(nostack, preserves_flags))
    };
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    for index in 0..len {
        // SAFETY: the caller's ranges.
        let (left, right) = unsafe { (*left.add(index), *right.add(index)) };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's ranges.
    unsafe { memcmp(left, right, len) }
}
