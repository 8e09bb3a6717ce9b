//! The terminal that the guest's console is on.

#![expect(unsafe_code, reason = "terminals' modes have no safe interface")]

use std::io;
use std::mem::MaybeUninit;
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

const INPUT: libc::c_int = libc::STDIN_FILENO;

/// The terminal at the standard input, if there is one there.
pub(super) struct Terminal {
    /// Its mode at first; `None` if it is no terminal.
    before: Option<libc::termios>,
    is_raw: AtomicBool,
}

impl Terminal {
    /// The standard input, as it is now.
    pub(super) fn standard_input() -> Arc<Self> {
        let mut modes = MaybeUninit::uninit();
        // SAFETY: `modes` is ours, and filled in if the call succeeds.
        let before = unsafe {
            (libc::tcgetattr(INPUT, modes.as_mut_ptr()) == 0).then(|| modes.assume_init())
        };
        Arc::new(Self { before, is_raw: AtomicBool::new(false) })
    }

    /// Whether it is a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }

    /// Has every key go to this program, and nothing shown but what it writes, until what is returned
    /// goes. A panic ends it, too, so that its message can be read. Without a terminal nothing happens.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub(super) fn make_raw(self: &Arc<Self>) -> io::Result<Raw> {
        static HOOK: OnceLock<()> = OnceLock::new();
        let raw = Raw(self.clone());
        if self.is_terminal() {
            let this = Arc::downgrade(self);
            HOOK.get_or_init(move || {
                let usual = panic::take_hook();
                panic::set_hook(Box::new(move |info| {
                    if let Some(terminal) = this.upgrade() {
                        terminal.restore();
                    }
                    usual(info);
                }));
            });
            self.is_raw.store(true, Ordering::SeqCst);
            self.set_raw()?;
        }
        Ok(raw)
    }

    /// After somebody else has used the terminal.
    pub(super) fn resume(&self) {
        if self.is_raw.load(Ordering::SeqCst) {
            // It was possible before. If not now, the keys do what they usually do.
            let _ = self.set_raw();
        }
    }

    fn set_raw(&self) -> io::Result<()> {
        let Some(mut modes) = self.before else { return Ok(()) };
        modes.c_iflag &= !(libc::BRKINT
            | libc::ICRNL
            | libc::IGNBRK
            | libc::IGNCR
            | libc::INLCR
            | libc::INPCK
            | libc::ISTRIP
            | libc::IXON
            | libc::PARMRK);
        modes.c_lflag &= !(libc::ECHO | libc::ECHONL | libc::ICANON | libc::IEXTEN | libc::ISIG);
        modes.c_cflag = modes.c_cflag & !(libc::CSIZE | libc::PARENB) | libc::CS8;
        // Output stays as it is: others write there, too, and what the guest ends its lines with is right
        // either way.
        modes.c_cc[libc::VMIN] = 1;
        modes.c_cc[libc::VTIME] = 0;
        set(&modes)
    }

    fn restore(&self) {
        if self.is_raw.swap(false, Ordering::SeqCst)
            && let Some(before) = &self.before
        {
            // There is nobody to tell.
            let _ = set(before);
        }
    }
}

fn set(modes: &libc::termios) -> io::Result<()> {
    // SAFETY: `modes` are modes, read by the call alone.
    match unsafe { libc::tcsetattr(INPUT, libc::TCSADRAIN, modes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A terminal with every key for this program. It is as before when this goes.
pub(super) struct Raw(Arc<Terminal>);

impl Drop for Raw {
    fn drop(&mut self) {
        self.0.restore();
    }
}
