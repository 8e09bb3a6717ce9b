//! What happens when a client shortens a file that it has shared.
//!
//! An access to a page that is no longer in the file raises SIGBUS, and the process would end, for
//! something that somebody else did. With the handler of this module, the memory that the access belongs to
//! becomes zeroes instead, the access goes on, and the connection's eventfd is written: the server
//! then drops that client.
//!
//! The handler runs in the middle of whatever raised the signal, so it takes no lock. It reads a table of
//! fixed size, whose entries are guarded by a version each: even and not 0 for one that can be read,
//! odd while it is changed.

#![expect(unsafe_code, reason = "signal handlers are installed and called by hand")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::mapping::replace;

/// Mappings of all servers of a process.
const SLOTS: usize = 4096;

struct Slot {
    version: AtomicUsize,
    start: AtomicUsize,
    /// 0 if the slot is free.
    len: AtomicUsize,
    lost: AtomicI32,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        version: AtomicUsize::new(0),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        lost: AtomicI32::new(-1),
    }
}; SLOTS];

/// Held by who changes the table; the handler does not.
static CHANGES: Mutex<()> = Mutex::new(());

/// What SIGBUS did before.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

impl Slot {
    /// To be called by one thread at a time.
    fn set(&self, start: usize, len: usize, lost: RawFd) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Whoever sees any of what follows sees the odd version.
        fence(Ordering::Release);
        self.start.store(start, Ordering::Relaxed);
        self.len.store(len, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// Start, length and eventfd of the mapping, if there is one and `address` is in it.
    fn find(&self, address: usize) -> Option<(usize, usize, RawFd)> {
        let version = self.version.load(Ordering::Acquire);
        if version & 1 != 0 {
            return None;
        }
        let start = self.start.load(Ordering::Relaxed);
        let len = self.len.load(Ordering::Relaxed);
        let lost = self.lost.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        // Another's entry that changes meanwhile is not the one: who accesses a mapping keeps it.
        if self.version.load(Ordering::Relaxed) != version {
            return None;
        }
        (address.checked_sub(start)? < len).then_some((start, len, lost))
    }
}

/// A mapping's entry, as long as it lives.
pub(super) struct Watched {
    slot: &'static Slot,
    _lost: Arc<EventFd>,
}

/// Enters a mapping, or returns `None` if the table is full.
pub(super) fn watch(start: usize, len: usize, lost: Arc<EventFd>) -> Option<Watched> {
    let _changing = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
    let slot = TABLE.iter().find(|slot| slot.len.load(Ordering::Relaxed) == 0)?;
    slot.set(start, len, lost.as_raw_fd());
    Some(Watched { slot, _lost: lost })
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _changing = CHANGES.lock().unwrap_or_else(PoisonError::into_inner);
        self.slot.set(0, 0, -1);
    }
}

/// Has a client that shortens the memory it shares lose its connection, instead of ending this process.
///
/// Installs a handler for SIGBUS. Signals that have nothing to do with memory of a client's go to the
/// handler that was there before. A program that serves clients it does not trust calls this once, before
/// it serves; calling it again does nothing. Programs that install handlers of their own for SIGBUS do
/// that before, or call this one from theirs.
///
/// # Errors
/// When the kernel refuses the handler.
pub fn survive_lost_memory() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if *installed {
        return Ok(());
    }
    // SAFETY: `sigaction` of zeroes is a valid one.
    let mut before: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: only asks what is there; `before` has room for it.
    if unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut before) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // Known before the first signal can come.
    let _ = PREVIOUS.set(before);
    // SAFETY: as above; zeroes are an empty mask too.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_sigbus;
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler is a function of the type that SA_SIGINFO asks for, and async-signal-safe.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    *installed = true;
    Ok(())
}

extern "C" fn on_sigbus(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: errno is this thread's own.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel gives a handler with SA_SIGINFO the signal's information. For a SIGBUS that an
    // access raised, codes above 0, that has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr()) };
    let ours = code > 0 && take_away(address.addr());
    if !ours {
        pass_on(signal, info, context);
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Replaces the mapping at `address`, if it is one of ours, and tells its server. Says whether it did.
fn take_away(address: usize) -> bool {
    let Some((start, len, lost)) = TABLE.iter().find_map(|slot| slot.find(address)) else {
        return false;
    };
    if !replace(start, len) {
        return false;
    }
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the bytes outlive the call. The eventfd is open: the entry that named it is there as long as
    // the mapping, which whoever accessed it keeps. A full eventfd is as good as a written one.
    unsafe { libc::write(lost, one.as_ptr().cast(), one.len()) };
    true
}

/// Does what was done before this handler was there.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get();
    let handler = previous.map_or(libc::SIG_DFL, |action| action.sa_sigaction);
    let takes_info = previous.is_some_and(|action| action.sa_flags & libc::SA_SIGINFO != 0);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The process ends, as it would have: the signal is blocked until the handler returns.
        // SAFETY: `sigaction` of zeroes is the default action; no memory is involved in `raise`.
        unsafe {
            let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
            libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            libc::raise(signal);
        }
    } else if takes_info {
        type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: the action has SA_SIGINFO, so its handler is of this type.
        let handler: Handler = unsafe { std::mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        type Handler = extern "C" fn(libc::c_int);
        // SAFETY: the action lacks SA_SIGINFO and is none of the special values, so its handler is of
        // this type.
        let handler: Handler = unsafe { std::mem::transmute(handler) };
        handler(signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_as_long_as_it_is_watched() {
        let lost = Arc::new(EventFd::new(0).unwrap());
        // Addresses that nobody has.
        let (start, len) = (0x10, 0x20);
        let find = |address| TABLE.iter().find_map(|slot| slot.find(address));
        let watched = watch(start, len, lost.clone()).unwrap();
        assert_eq!(find(0xf), None);
        assert_eq!(find(0x10), Some((start, len, lost.as_raw_fd())));
        assert_eq!(find(0x2f), Some((start, len, lost.as_raw_fd())));
        assert_eq!(find(0x30), None);
        drop(watched);
        assert_eq!(find(0x10), None);
        assert_eq!(Arc::strong_count(&lost), 1);
    }
}
