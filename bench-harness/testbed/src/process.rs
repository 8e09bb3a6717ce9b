//! A child that does not outlive its parent.

#![expect(
    unsafe_code,
    reason = "a child's parent-death signal can only be set between fork and exec"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts `command` such that the kernel kills it when the calling thread ends, however it ends.
/// The thread must stay for as long as the child is wanted.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let parent = std::process::id();
    let bind = move || {
        // SAFETY: prctl(PR_SET_PDEATHSIG) and getppid() take no pointers and are safe between
        // fork and exec: neither allocates nor takes a lock.
        let (result, now) =
            unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended before the signal was asked for: then it does not come.
        if u32::try_from(now) == Ok(parent) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    };
    // SAFETY: `bind` calls async-signal-safe functions alone and does not touch memory of other threads.
    unsafe { command.pre_exec(bind) };
    command.spawn()
}
