//! Ctrl-C.

#![expect(unsafe_code, reason = "the standard library has no way to ignore a signal")]

/// Lets Ctrl-C end QEMU, which is in the same process group and has a handler of its own, and not this
/// process: it then finds the machine gone, and removes its temporary files.
pub(crate) fn leave_to_children() {
    // SAFETY: no handler is installed, so nothing of this process runs in a signal's context.
    unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
}
