//! Serves one function to one client after another.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use paraslot_device::{DeviceError, Executor, Host};
use paraslot_pci::PciDevice;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::connection::End;
use crate::function::Served;
use crate::memory::{ClientSpace, Shared};
use crate::regions::Windows;
use crate::session::Session;
use crate::signals::Signals;
use crate::sys::{self, For};

/// Milliseconds until another look at who waits, where a client could not be let in for want of descriptors or
/// memory.
const SHORTAGE: i32 = 100;
/// How long a client may take to answer what is asked of its memory. Guests' drivers give a request up after 30
/// seconds or so, so nobody is helped by an answer that comes later.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stops a server, from any thread, at any time and for good.
#[derive(Clone)]
pub struct Stop(Arc<EventFd>);

impl Stop {
    /// One that has not been used.
    ///
    /// # Errors
    /// When the host has no more descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(EventFd::new(EFD_NONBLOCK)?)))
    }

    /// Ends the connection that there is, and the server that was given this.
    pub fn stop(&self) {
        // It fails only if it is full, which it is by having been written.
        let _ = self.0.write(1);
    }

    pub(crate) fn event(&self) -> Arc<EventFd> {
        self.0.clone()
    }

    pub(crate) fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Why a server cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Nobody can connect any more.
    #[error("the listening socket: {0}")]
    Listener(#[source] io::Error),
    /// The function could not be made ready for another client.
    #[error("the function cannot be started again: {0}")]
    Device(#[source] DeviceError),
}

/// A function that is served.
///
/// It lives as long as the server. Each client finds it as it is after a reset, and none of the memory and
/// interrupts of the client before: when a connection ends, however it does, the function is reset, its
/// requests in flight are waited for, the client's memory is taken away and its descriptors are
/// closed, before the next client is let in. Clients that come meanwhile wait.
pub struct Server {
    listener: UnixListener,
    served: Served,
    windows: Windows,
    signals: Arc<Signals>,
    memory: Shared,
    patience: Duration,
}

impl Server {
    /// Serves, at `listener`, the function that `make` returns when it is given the client's memory and
    /// interrupts, and `executor` for its workers.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn new<E>(
        listener: UnixListener,
        executor: Arc<dyn Executor>,
        make: impl FnOnce(Host<ClientSpace>) -> Result<Box<dyn PciDevice>, E>,
    ) -> Result<Self, E> {
        let (signals, memory) = (Signals::new(), Shared::new());
        let host =
            Host { memory: memory.space(), msi: signals.clone(), intx: signals.clone(), executor };
        let served = Served::new(make(host)?);
        let windows = Windows::new(served.layout());
        Ok(Self { listener, served, windows, signals, memory, patience: PATIENCE })
    }

    /// Has clients answer sooner.
    #[cfg(test)]
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Serves clients until `stop` is used.
    ///
    /// # Errors
    /// When no other client can be served.
    pub fn run(&mut self, stop: &Stop) -> Result<(), ServeError> {
        while !matches!(self.serve_one(stop)?, End::Stopped) {}
        Ok(())
    }

    /// Waits for a client and serves it to its end; says how that came.
    ///
    /// # Errors
    /// When no other client can be served.
    pub fn serve_one(&mut self, stop: &Stop) -> Result<End, ServeError> {
        self.listener.set_nonblocking(true).map_err(ServeError::Listener)?;
        let socket = loop {
            let sources = [(stop.as_raw_fd(), For::Input), (self.listener.as_raw_fd(), For::Input)];
            let ready = sys::wait(&sources, -1).map_err(ServeError::Listener)?;
            if ready.first().is_some_and(|stopped| *stopped) {
                return Ok(End::Stopped);
            }
            match self.listener.accept() {
                Ok((socket, _)) => break socket,
                Err(error) => match error.raw_os_error() {
                    // Somebody who came and went.
                    Some(libc::EAGAIN | libc::EINTR | libc::ECONNABORTED) => {}
                    // The other functions of the process may have used up what there is, for a while.
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                        let [stopped, _] = sources;
                        sys::wait(&[stopped], SHORTAGE).map_err(ServeError::Listener)?;
                    }
                    _ => return Err(ServeError::Listener(error)),
                },
            }
        };
        self.serve(socket, stop)
    }

    /// Serves a client that is connected already, to its end; says how that came.
    ///
    /// # Errors
    /// When no other client can be served.
    pub fn serve(&mut self, client: UnixStream, stop: &Stop) -> Result<End, ServeError> {
        let Self { listener: _, served, windows, signals, memory, patience } = self;
        let patience = (stop, *patience);
        let end = match Session::new(client, served, signals, memory, windows, patience) {
            Ok(mut session) => session.run(),
            Err(error) => End::Socket(error),
        };
        self.start_over()?;
        Ok(end)
    }

    /// Forgets the client.
    fn start_over(&mut self) -> Result<(), ServeError> {
        let Self { listener: _, served, windows: _, signals, memory, patience: _ } = self;
        signals.clear_all();
        let forgotten = served.start_over(|| {
            // It leaves nothing to map, so nothing can be refused.
            let _ = memory.unmap(None);
            memory.stop_log();
        });
        // What the function raised on its way.
        signals.clear_all();
        forgotten.map_err(ServeError::Device)
    }
}
