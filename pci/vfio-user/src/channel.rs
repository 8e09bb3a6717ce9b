//! One end of a connection that several threads use: each asks the other end for what it needs and waits for the
//! answer, and one does what the other end asks for.
//!
//! There is no thread that reads. Whoever waits for something reads, if nobody does already, and hands on
//! what is not meant for it: answers to those who wait for them, commands to a queue. Who is held up in the middle of
//! sending reads too, so that two ends that send much to each other do not wait for ever. The queue is bounded. The
//! other end may send commands while it is asked for something, but no more than it could have under way in
//! any case.

mod state;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;

use crate::connection::{End, Incoming, Message, message, send_some};
use crate::sys::{self, For};
use crate::wire::Header;
use state::State;

/// Commands that are done at a time by who has other things to do.
const AT_ONCE: usize = 32;

/// The connection has ended; [`Channel::take_end`] tells why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone;

/// Does a command; what is answered, unless no answer is wanted.
pub(crate) type Serve<'a> = &'a dyn Fn(&Message) -> Option<(Header, Vec<u8>)>;

/// What is waited for beside the socket, by whoever reads.
pub(crate) trait Aside: Send + Sync {
    /// What may be written. They stay open while they are waited for.
    fn events(&self) -> Vec<Arc<EventFd>>;

    /// One of them was written, by its place in the list.
    fn written(&self, index: usize, event: &EventFd) -> Result<(), End>;
}

/// Nothing.
pub(crate) struct Nothing;

impl Aside for Nothing {
    fn events(&self) -> Vec<Arc<EventFd>> {
        Vec::new()
    }

    fn written(&self, _index: usize, _event: &EventFd) -> Result<(), End> {
        Ok(())
    }
}

/// One end of a connection.
pub(crate) struct Channel {
    socket: UnixStream,
    aside: Box<dyn Aside>,
    state: Mutex<State>,
    /// Notified when something in `state` has changed that somebody may wait for.
    changed: Condvar,
}

/// What comes to somebody who waits for an answer, and does commands in the meantime.
enum Next {
    Command(Message),
    Answer(Message),
}

/// When to give up waiting; never, if there is none.
type Deadline = Option<Instant>;

impl Channel {
    pub(crate) fn new(socket: UnixStream, aside: Box<dyn Aside>) -> Self {
        Self { socket, aside, state: Mutex::new(State::new()), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Ends the connection, unless it has ended. Whoever waits for something is told.
    pub(crate) fn end(&self, end: End) {
        self.end_locked(&mut self.lock(), end);
    }

    fn end_locked(&self, state: &mut State, end: End) {
        if !state.ended {
            state.ended = true;
            state.end = Some(end);
            // Wakes those who wait for the socket.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
        }
        self.notify(state);
    }

    /// Tells those who sleep that something has changed. Where nobody shares the connection, nobody does.
    fn notify(&self, state: &State) {
        if state.sleeping > 0 {
            self.changed.notify_all();
        }
    }

    /// Why the connection has ended. Told once.
    pub(crate) fn take_end(&self) -> End {
        self.lock().end.take().unwrap_or(End::Closed)
    }

    /// The other end's next command. Waits for it.
    pub(crate) fn command(&self) -> Result<Message, Gone> {
        // Looked at before each command, so that an end that is never silent is stopped as well.
        if self.lock().has_commands() {
            self.attempt(self.look(&[], 0).map(drop))?;
        }
        self.wait_for(None, |state| if state.ended { None } else { state.command() })
    }

    /// Sends a command and waits for its answer. If that takes longer than `limit`, the connection ends. Others'
    /// commands that come meanwhile are left to who asks for them.
    pub(crate) fn request(
        &self,
        command: u16,
        payload: &[u8],
        limit: Duration,
    ) -> Result<Message, Gone> {
        let deadline = Instant::now().checked_add(limit);
        let id = self.ask(command, payload, &[], deadline)?;
        let answer = self.wait_for(deadline, |state| state.awaited.get_mut(&id)?.answer.take());
        self.lock().awaited.remove(&id);
        answer
    }

    /// The same; does the other end's commands that come meanwhile by `answer`, which has what to answer.
    pub(crate) fn request_and_serve(
        &self,
        (command, payload, fds): (u16, &[u8], &[BorrowedFd<'_>]),
        limit: Duration,
        answer: Serve<'_>,
    ) -> Result<Message, Gone> {
        let deadline = Instant::now().checked_add(limit);
        let id = self.ask(command, payload, fds, deadline)?;
        let answer = loop {
            // Commands first: nobody else may look for them when this thread is gone.
            let next = self.wait_for(deadline, |state| match state.command_in_turn() {
                Some(command) => Some(Next::Command(command)),
                None => state.awaited.get_mut(&id)?.answer.take().map(Next::Answer),
            });
            match next {
                Ok(Next::Command(command)) => {
                    self.serve(&command, deadline, answer)?;
                    // An end that has ever more to ask for has not answered either.
                    self.give_up_after(&mut self.lock(), deadline)?;
                }
                Ok(Next::Answer(answer)) => break Ok(answer),
                Err(gone) => break Err(gone),
            }
        };
        self.lock().awaited.remove(&id);
        answer
    }

    /// Does the other end's commands that have come, some of them if there are many, by `answer`. Does not wait for
    /// more. Says whether there were any.
    pub(crate) fn serve_what_came(&self, limit: Duration, answer: Serve<'_>) -> Result<bool, Gone> {
        let mut done = 0;
        while done < AT_ONCE {
            let mut state = self.lock();
            if state.ended {
                return Err(Gone);
            }
            if let Some(command) = state.command_in_turn() {
                drop(state);
                done += 1;
                self.serve(&command, Instant::now().checked_add(limit), answer)?;
                continue;
            }
            // If somebody else reads, what comes is that one's to look at.
            let Some(mut incoming) = state.incoming.take() else { break };
            drop(state);
            let taken = incoming.take(&self.socket);
            let nothing = matches!(taken, Ok(None));
            self.give_back(incoming, taken);
            if nothing {
                break;
            }
        }
        Ok(done > 0)
    }

    fn serve(&self, command: &Message, deadline: Deadline, answer: Serve<'_>) -> Result<(), Gone> {
        let answer = answer(command);
        let sent =
            answer.map_or(Ok(()), |(header, payload)| self.send(header, &payload, &[], deadline));
        let mut state = self.lock();
        state.doing = false;
        self.notify(&state);
        sent
    }

    /// Sends a command; says under which ID it is to be answered.
    fn ask(
        &self,
        command: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<u16, Gone> {
        let id = self.lock().await_answer(command).ok_or(Gone)?;
        let sent = self.send(Header { id, command, ..Header::default() }, payload, fds, deadline);
        if sent.is_err() {
            self.lock().awaited.remove(&id);
        }
        sent.map(|()| id)
    }

    /// Sends one message, when those that others send are gone.
    pub(crate) fn send(
        &self,
        header: Header,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), Gone> {
        let message = message(header, payload);
        let mut state = self.lock();
        // Who sends also reads, if nobody does, so there is nothing to be done meanwhile.
        while state.sending && !state.ended {
            state = self.sleep(state, deadline);
        }
        if state.ended {
            return Err(Gone);
        }
        state.sending = true;
        drop(state);
        let mut done = 0;
        let mut sent = Ok(());
        while done < message.len() && sent.is_ok() {
            sent = match send_some(&self.socket, &message, done, fds) {
                Ok(0) => self.make_room(deadline),
                Ok(len) => {
                    done += len;
                    Ok(())
                }
                Err(end) => self.attempt(Err(end)),
            };
        }
        let mut state = self.lock();
        state.sending = false;
        self.notify(&state);
        sent
    }

    /// Waits until the socket takes more, and reads meanwhile if nobody does.
    fn make_room(&self, deadline: Deadline) -> Result<(), Gone> {
        let mut state = self.lock();
        if state.ended {
            return Err(Gone);
        }
        let incoming = state.incoming.take();
        self.give_up_after(&mut state, deadline)?;
        drop(state);
        let socket = self.socket.as_raw_fd();
        let both = [(socket, For::Output), (socket, For::Input)];
        let what = if incoming.is_some() { both.as_slice() } else { &both[..1] };
        let ready = self.look(what, milliseconds(deadline));
        let readable = ready.as_ref().is_ok_and(|ready| ready.get(1) == Some(&true));
        if let Some(mut incoming) = incoming {
            let taken = if readable { incoming.take(&self.socket) } else { Ok(None) };
            self.give_back(incoming, taken);
        }
        self.attempt(ready.map(drop))
    }

    /// Waits until `take` finds something; reads meanwhile if nobody does.
    fn wait_for<T>(
        &self,
        deadline: Deadline,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T, Gone> {
        let mut state = self.lock();
        loop {
            if let Some(found) = take(&mut state) {
                return Ok(found);
            }
            if state.ended {
                return Err(Gone);
            }
            self.give_up_after(&mut state, deadline)?;
            let Some(mut incoming) = state.incoming.take() else {
                state = self.sleep(state, deadline);
                continue;
            };
            drop(state);
            let socket = [(self.socket.as_raw_fd(), For::Input)];
            let taken = match self.look(&socket, milliseconds(deadline)) {
                Ok(ready) if ready == [true] => incoming.take(&self.socket),
                Ok(_) => Ok(None),
                Err(end) => Err(end),
            };
            self.give_back(incoming, taken);
            state = self.lock();
        }
    }

    /// Waits until something has changed, or may have.
    fn sleep<'s>(&self, state: MutexGuard<'s, State>, deadline: Deadline) -> MutexGuard<'s, State> {
        let mut state = state;
        state.sleeping += 1;
        let mut state = match deadline {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                let slept = self.changed.wait_timeout(state, left);
                slept.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.sleeping -= 1;
        let _ = self.give_up_after(&mut state, deadline);
        state
    }

    /// Ends the connection if it is time to.
    fn give_up_after(&self, state: &mut State, deadline: Deadline) -> Result<(), Gone> {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            self.end_locked(state, End::Silent);
            return Err(Gone);
        }
        Ok(())
    }

    /// Lets others read on, after this thread has read what `taken` is.
    fn give_back(&self, incoming: Incoming, taken: Result<Option<Message>, End>) {
        let mut state = self.lock();
        state.incoming = Some(incoming);
        let delivered = match taken {
            Ok(Some(message)) => state.deliver(message),
            Ok(None) => Ok(()),
            Err(end) => Err(end),
        };
        if let Err(end) = delivered {
            self.end_locked(&mut state, end);
        }
        self.notify(&state);
    }

    /// Ends the connection if something came of it that ends it.
    fn attempt(&self, result: Result<(), End>) -> Result<(), Gone> {
        result.map_err(|end| {
            self.end(end);
            Gone
        })
    }

    /// Waits until one of `sources` is ready, and does what else comes up. Says which are; none if the time is
    /// over or something else came up.
    fn look(&self, sources: &[(i32, For)], limit: i32) -> Result<Vec<bool>, End> {
        let events = self.aside.events();
        let mut all = sources.to_vec();
        all.extend(events.iter().map(|event| (event.as_raw_fd(), For::Input)));
        let mut ready = sys::wait(&all, limit)?;
        let aside = ready.split_off(sources.len().min(ready.len()));
        for (index, (event, ready)) in events.iter().zip(aside).enumerate() {
            if ready {
                self.aside.written(index, event)?;
            }
        }
        Ok(ready)
    }
}

/// Milliseconds until then, for `poll`.
fn milliseconds(deadline: Deadline) -> i32 {
    deadline.map_or(-1, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now());
        // Not too short, or it would be looked at again and again at the end.
        i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX)
    })
}

#[cfg(test)]
mod tests;
