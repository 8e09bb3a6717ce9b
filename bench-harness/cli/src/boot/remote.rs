//! Whoever is at the guest's console, and those who want it to end.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use paraslot_vmm::LinuxHandle;

use super::keys::{Action, HELP, Keys};

/// A way to the machine for threads that outlive it.
#[derive(Clone, Default)]
pub(super) struct Remote(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    machine: Option<LinuxHandle>,
    /// Signals that came and ask for the end.
    signals: u32,
    /// There is somewhere to save it.
    can_save: bool,
    /// It is to be saved, and was stopped for that alone.
    save: bool,
}

/// The machine's time with somebody at its console.
pub(super) struct Attached(Remote);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.lock().machine = None;
    }
}

impl Remote {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One to a machine that can be saved, or not.
    pub(super) fn new(can_save: bool) -> Self {
        Self(Arc::new(Mutex::new(State { can_save, ..State::default() })))
    }

    /// Lets this be a way to a machine until what is returned goes. If a signal came before there was
    /// one, it is stopped.
    pub(super) fn attach(&self, machine: LinuxHandle) -> Attached {
        let mut state = self.lock();
        if state.signals > 0 || state.save {
            machine.stop();
        }
        state.machine = Some(machine);
        drop(state);
        Attached(self.clone())
    }

    /// Does something to the machine, if there is one.
    fn with(&self, act: impl FnOnce(&LinuxHandle)) {
        if let Some(machine) = &self.lock().machine {
            act(machine);
        }
    }

    /// A signal came that asks for the end: the power button the first time, the plug the second.
    pub(super) fn signal(&self) {
        let mut state = self.lock();
        state.signals += 1;
        let Some(machine) = &state.machine else { return };
        if state.signals == 1 {
            machine.power_button();
            drop(state);
            say("! power button pressed; another signal stops the guest\r\n");
        } else {
            machine.stop();
            state.save = false;
        }
    }

    /// The machine is to be saved.
    pub(super) fn save(&self) {
        let mut state = self.lock();
        if !state.can_save {
            drop(state);
            return say("! there is no --snapshot to save the guest to\r\n");
        }
        state.save = true;
        if let Some(machine) = &state.machine {
            machine.stop();
        }
    }

    /// Whether the machine was stopped to be saved; not asked for any more afterwards.
    pub(super) fn take_save(&self) -> bool {
        std::mem::take(&mut self.lock().save)
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.save = false;
        if let Some(machine) = &state.machine {
            machine.stop();
        }
    }

    /// Whether signals have come.
    pub(super) fn was_signalled(&self) -> bool {
        self.lock().signals > 0
    }

    /// Types what comes from the standard input, from now on; of a terminal, all but what is for this
    /// program. Its end is nothing special.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(super) fn type_from_standard_input(&self, is_terminal: bool) -> anyhow::Result<()> {
        let remote = self.clone();
        let read = move || {
            let mut keys = is_terminal.then(Keys::default);
            read_all(&mut io::stdin(), |typed| match &mut keys {
                None => remote.with(|machine| machine.input(typed)),
                Some(keys) => keys.feed(typed, |action| remote.act(action)),
            });
        };
        let thread = thread::Builder::new().name("console".into());
        thread.spawn(read).context("cannot read the standard input")?;
        Ok(())
    }

    fn act(&self, action: Action<'_>) {
        match action {
            Action::Type(text) => self.with(|machine| machine.input(text)),
            Action::Power => self.with(LinuxHandle::power_button),
            Action::Stop => self.stop(),
            Action::Save => self.save(),
            Action::Help => say(HELP),
        }
    }
}

/// Reads until there is no more.
fn read_all(input: &mut dyn Read, mut take: impl FnMut(&[u8])) {
    let mut room = [0; 1024];
    loop {
        match input.read(&mut room) {
            Ok(0) => return,
            Ok(len) => take(room.get(..len).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Who shares it may have made it so.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(_) => return,
        }
    }
}

/// Writes to the standard error, which may be gone.
pub(super) fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Answers reads one after the other.
    struct Script(VecDeque<io::Result<&'static [u8]>>);

    impl Read for Script {
        fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
            let bytes = self.0.pop_front().unwrap_or(Ok(b""))?;
            room[..bytes.len()].copy_from_slice(bytes);
            Ok(bytes.len())
        }
    }

    #[test]
    fn input_is_read_to_its_end_whatever_interrupts_it() {
        let script = [
            Ok(&b"one "[..]),
            Err(ErrorKind::Interrupted.into()),
            Err(ErrorKind::WouldBlock.into()),
            Ok(b"two"),
            Err(ErrorKind::BrokenPipe.into()),
            Ok(b"never"),
        ];
        let mut read = Vec::new();
        read_all(&mut Script(script.into()), |bytes| read.extend_from_slice(bytes));
        assert_eq!(read, b"one two");
    }

    #[test]
    fn without_a_machine_nothing_happens_but_signals_are_kept() {
        let remote = Remote::default();
        for action in [Action::Type(b"x"), Action::Power, Action::Stop] {
            remote.act(action);
        }
        assert!(!remote.was_signalled());
        remote.signal();
        assert!(remote.was_signalled());
    }

    #[test]
    fn what_is_to_be_saved_is_not_when_it_is_to_end() {
        let remote = Remote::new(true);
        assert!(!remote.take_save());
        remote.act(Action::Save);
        assert!(remote.take_save() && !remote.take_save());
        remote.save();
        remote.act(Action::Stop);
        assert!(!remote.take_save());
        // Without a place for it, it is not.
        let remote = Remote::new(false);
        remote.save();
        assert!(!remote.take_save());
    }
}
