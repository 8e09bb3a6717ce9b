//! Signals, taken by a thread instead of a handler.

#![expect(unsafe_code, reason = "signal sets have no safe interface")]

use std::io;
use std::mem::MaybeUninit;

/// Those that ask a program to end.
pub(crate) const ENDING: [libc::c_int; 4] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT];

/// Has `handle` called for each of these signals from now on, on a thread of its own, for as long as the
/// program runs. To be called before other threads are started: they would take the signals as usual.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn watch(
    signals: &[libc::c_int],
    mut handle: impl FnMut(libc::c_int) + Send + 'static,
) -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `set` is ours; the call fills it in.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for signal in signals {
        // SAFETY: `set` is a set of signals, and ours.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` is a set of signals; the old mask is not asked for.
    let blocked =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if blocked != 0 {
        return Err(io::Error::from_raw_os_error(blocked));
    }
    let wait = move || {
        loop {
            let mut signal = 0;
            // SAFETY: `set` is a set of signals that are blocked, and `signal` is ours.
            if unsafe { libc::sigwait(&raw const set, &raw mut signal) } == 0 {
                handle(signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait)?;
    Ok(())
}
