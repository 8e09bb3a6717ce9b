//! The far end of an adapter's cable: the host's TCP, behind a TAP interface in a network namespace
//! that has nothing else in it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use paraslot_backends::net::{TapBackend, TapOptions};

use super::sums;
use crate::plan::Stream;
use crate::sys;

/// The two addresses of the cable, in a network of so many bits.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const PREFIX: u32 = 30;

/// Bytes that are taken or given by one call.
const CHUNK: usize = 256 << 10;

/// How long a connection is looked for, and how long a call may wait, before a look whether there is any
/// use in it.
const PAUSE: Duration = Duration::from_millis(1);
const WAIT: Duration = Duration::from_millis(100);

/// Bytes that go both ways to see that they arrive as they should.
const CHECKED: u64 = 4 << 20;

/// The far end, for one run.
pub(super) struct FarEnd {
    backend: Arc<TapBackend>,
    stop: Arc<AtomicBool>,
    ports: [u16; 3],
    threads: Vec<JoinHandle<io::Result<()>>>,
    sum: Option<u32>,
}

/// What serves a port: what it does with a connection, until told to stop.
type Service = fn(&TcpStream, &AtomicBool) -> io::Result<()>;

impl FarEnd {
    /// Makes one for this kind of stream, and lets its data be checked afterwards if it is to be `verified`.
    ///
    /// # Errors
    /// When this process may not.
    pub(super) fn new(stream: Stream, queues: u16, verified: bool) -> anyhow::Result<Self> {
        // A namespace is a thread's. What is made there stays there.
        let place = thread::Builder::new().name("network".into()).spawn(move || place(queues))?;
        let (backend, listeners) =
            place.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let stop = Arc::new(AtomicBool::new(false));
        let services: [Service; 3] = [
            match stream {
                Stream::Transmit => drain,
                Stream::Receive => pour,
                Stream::Request => echo,
            },
            give,
            take,
        ];
        let mut this = Self { backend, stop, ports: [0; 3], threads: Vec::new(), sum: None };
        this.sum = verified.then(|| sums::sum(0, CHECKED));
        for ((port, listener), service) in this.ports.iter_mut().zip(listeners).zip(services) {
            *port = listener.local_addr()?.port();
            let stop = this.stop.clone();
            let serve = move || serve(&listener, &stop, service);
            this.threads.push(thread::Builder::new().name("far end".into()).spawn(serve)?);
        }
        Ok(this)
    }

    /// The interface.
    pub(super) fn backend(&self) -> Arc<TapBackend> {
        self.backend.clone()
    }

    /// What a guest's script is told of it.
    pub(super) fn variables(&self) -> String {
        let [work, give, take] = self.ports;
        let sum = self.sum.map_or_else(String::new, |sum| format!("{sum:08x}"));
        format!("far={FAR} near={NEAR}/{PREFIX} work={work} give={give} take={take} sum={sum}\n")
    }

    /// Ends it, when the guest has.
    ///
    /// # Errors
    /// When data did not arrive as it was sent.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let served = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            served.context("the host's end of the connection")?;
        }
        Ok(())
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// An interface in a namespace of this thread's own, and what listens there.
fn place(queues: u16) -> anyhow::Result<(Arc<TapBackend>, Vec<TcpListener>)> {
    const NAME: &str = "paraslot0";
    sys::leave_network().context(
        "a network namespace of its own cannot be made, which networks in Linux need: run as root, or \
         with unshare -rn",
    )?;
    let options = TapOptions { queues, ..TapOptions::new(NAME) };
    let backend = TapBackend::open(&options)?;
    sys::set_up_interface(NAME, FAR, PREFIX).context("cannot set up the TAP interface")?;
    let listen = || -> io::Result<TcpListener> {
        let listener = TcpListener::bind((FAR, 0))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    let listeners = (0..3).map(|_| listen()).collect::<Result<_, _>>();
    Ok((Arc::new(backend), listeners.context("cannot listen on the TAP interface")?))
}

/// Serves one connection after the other.
fn serve(listener: &TcpListener, stop: &AtomicBool, service: Service) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((socket, _)) => {
                socket.set_nonblocking(false)?;
                socket.set_nodelay(true)?;
                socket.set_read_timeout(Some(WAIT))?;
                socket.set_write_timeout(Some(WAIT))?;
                service(&socket, stop)?;
            }
            Err(error) if is_wait(&error) => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether it has merely taken its time.
fn is_wait(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Whether the other end has gone, as it does in the middle of things when its time is up.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// Repeats a call until it has done something, or there is no use in it: `Ok(0)`, then and at the
/// connection's end.
fn patiently(stop: &AtomicBool, mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    while !stop.load(Ordering::Relaxed) {
        match call() {
            Err(error) if is_wait(&error) => {}
            Err(error) if is_gone(&error) => return Ok(0),
            other => return other,
        }
    }
    Ok(0)
}

/// Takes whatever comes.
fn drain(mut socket: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    while patiently(stop, || socket.read(&mut room))? > 0 {}
    Ok(())
}

/// Gives as much as goes.
fn pour(mut socket: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let bytes = vec![0; CHUNK];
    while patiently(stop, || socket.write(&bytes))? > 0 {}
    Ok(())
}

/// Writes all of it; `false` if there is nobody to take it.
fn write_all(mut socket: &TcpStream, mut bytes: &[u8], stop: &AtomicBool) -> io::Result<bool> {
    while !bytes.is_empty() {
        match patiently(stop, || socket.write(bytes))? {
            0 => return Ok(false),
            len => bytes = bytes.get(len..).unwrap_or_default(),
        }
    }
    Ok(true)
}

/// Gives back what comes.
fn echo(mut socket: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let mut room = vec![0; CHUNK];
    loop {
        let len = patiently(stop, || socket.read(&mut room))?;
        let came = room.get(..len).unwrap_or_default();
        if came.is_empty() || !write_all(socket, came, stop)? {
            return Ok(());
        }
    }
}

/// Gives the contents that are checked.
fn give(socket: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
    write_all(socket, &sums::contents(0, CHECKED), stop).map(drop)
}

/// Takes the same.
fn take(mut socket: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
    let expected = sums::contents(0, CHECKED);
    let mut rest = expected.as_slice();
    let mut room = vec![0; CHUNK];
    loop {
        let len = patiently(stop, || socket.read(&mut room))?;
        let came = room.get(..len).unwrap_or_default();
        match rest.strip_prefix(came) {
            Some(_) if came.is_empty() => break,
            Some(left) => rest = left,
            None => return Err(io::Error::other("what came is not what the guest was given")),
        }
    }
    if rest.is_empty() {
        return Ok(());
    }
    Err(io::Error::other(format!("{} of {CHECKED} bytes did not come", rest.len())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Shutdown;

    /// Connects to what has this service, and does something there. Returns what became of the service.
    fn with(service: Service, work: impl FnOnce(&TcpStream)) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = thread::spawn(move || serve(&listener, &seen, service));
        work(&TcpStream::connect(address).unwrap());
        stop.store(true, Ordering::Relaxed);
        thread.join().unwrap()
    }

    /// What the other end sends until it has no more.
    fn rest(mut socket: &TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Sends contents to the service that takes them, and waits until it has.
    fn taken(contents: &[u8]) -> io::Result<()> {
        with(take, |mut socket| {
            // Who has seen enough may not wait for the rest.
            let _ = socket.write_all(contents);
            let _ = socket.shutdown(Shutdown::Write);
            let _ = socket.read(&mut [0]);
        })
    }

    #[test]
    fn what_is_given_can_be_taken() {
        let mut given = Vec::new();
        with(give, |socket| given = rest(socket)).unwrap();
        assert_eq!(given.len() as u64, CHECKED);
        taken(&given).unwrap();
        let short = taken(&given[..given.len() - 8]).unwrap_err();
        assert_eq!(short.to_string(), "8 of 4194304 bytes did not come");
        let error = taken(&[given.as_slice(), &[0]].concat()).unwrap_err();
        assert!(error.to_string().contains("not what the guest was given"), "{error}");
        if let Some(byte) = given.get_mut(3_000_000) {
            *byte ^= 1;
        }
        assert!(taken(&given).is_err());
    }

    #[test]
    fn streams_go_the_way_they_should() {
        with(echo, |mut socket| {
            for word in [&b"one"[..], b"other"] {
                let mut back = vec![0; word.len()];
                socket.write_all(word).unwrap();
                socket.read_exact(&mut back).unwrap();
                assert_eq!(back, word);
            }
        })
        .unwrap();
        with(drain, |mut socket| {
            socket.write_all(&vec![0; 3 * CHUNK]).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(socket), [0; 0]);
        })
        .unwrap();
        // The other end leaves in the middle of it.
        with(pour, |mut socket| socket.read_exact(&mut vec![0; 3 * CHUNK]).unwrap()).unwrap();
    }

    /// Whoever is still connected when the guest is gone is left.
    #[test]
    fn an_end_is_an_end() {
        for service in [echo, pour] {
            let mut kept = None;
            with(service, |mut socket| {
                // It is known to be served when something comes.
                socket.write_all(&[0]).unwrap();
                socket.read_exact(&mut [0]).unwrap();
                kept = Some(socket.try_clone().unwrap());
            })
            .unwrap();
            assert!(kept.is_some());
        }
    }
}
