//! One end of a connection: whole messages, in step.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::sys::{self, For};
use crate::wire::{HEADER_LEN, Header, MAX_MESSAGE, flags};

/// Why a connection came to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum End {
    /// The client closed it.
    #[error("the client has closed the connection")]
    Closed,
    /// The server was told to stop.
    #[error("the server was told to stop")]
    Stopped,
    /// The client shortened a file whose memory it had shared.
    #[error("the client has taken away memory that it had shared")]
    MemoryLost,
    /// The client broke the protocol.
    #[error("the client broke the protocol: {0}")]
    Protocol(&'static str),
    /// The function did not let go of the client's memory, or could not go on.
    #[error("the function: {0}")]
    Device(#[from] paraslot_device::DeviceError),
    /// The socket failed.
    #[error("the socket: {0}")]
    Socket(#[from] io::Error),
}

/// A message, as it was received.
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// More descriptors came than are taken.
    pub(crate) too_many_fds: bool,
}

/// Waits until the socket is ready, and does whatever else comes up meanwhile.
pub(crate) trait Wait {
    fn wait(&mut self, socket: &UnixStream, what: For) -> Result<(), End>;
}

/// Receives one message.
pub(crate) fn receive(socket: &UnixStream, wait: &mut dyn Wait) -> Result<Message, End> {
    let (mut fds, mut too_many_fds) = (Vec::new(), false);
    let mut fill = |place: &mut [u8]| {
        let mut done = 0;
        while let Some(rest) = place.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match sys::receive(socket, rest, &mut fds) {
                Ok(received) if received.len == 0 => return Err(End::Closed),
                Ok(received) => {
                    done += received.len;
                    // Whatever a client sends byte by byte, it has that many descriptors here at most.
                    too_many_fds |= received.truncated || fds.len() > sys::MAX_FDS;
                    fds.truncate(sys::MAX_FDS);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => wait.wait(socket, For::Input)?,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::ConnectionReset => return Err(End::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    };
    let mut header = [0; HEADER_LEN];
    fill(&mut header)?;
    let header = Header::parse(&header);
    let size = usize::try_from(header.size).unwrap_or(usize::MAX);
    if !(HEADER_LEN..=MAX_MESSAGE).contains(&size) {
        return Err(End::Protocol("a message of an impossible size"));
    }
    let mut payload = vec![0; size - HEADER_LEN];
    fill(&mut payload)?;
    Ok(Message { header, payload, fds, too_many_fds })
}

/// Sends one message.
pub(crate) fn send(
    socket: &UnixStream,
    wait: &mut dyn Wait,
    header: Header,
    payload: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), End> {
    let size = u32::try_from(HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
    let mut message = Header { size, ..header }.bytes();
    message.extend_from_slice(payload);
    let mut done = 0;
    while let Some(rest) = message.get(done..).filter(|rest| !rest.is_empty()) {
        let fds = if done == 0 { fds } else { &[] };
        match sys::send(socket, rest, fds) {
            Ok(len) => done += len,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => wait.wait(socket, For::Output)?,
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    return Err(End::Closed);
                }
                _ => return Err(error.into()),
            },
        }
    }
    Ok(())
}

/// What a command gets for an answer.
pub(crate) struct Reply {
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// 0 for none.
    pub(crate) errno: i32,
}

impl Reply {
    pub(crate) fn of(payload: Vec<u8>) -> Self {
        Self { payload, fds: Vec::new(), errno: 0 }
    }

    pub(crate) fn empty() -> Self {
        Self::of(Vec::new())
    }

    pub(crate) fn error(errno: i32) -> Self {
        Self { errno, ..Self::empty() }
    }

    /// The header that it has as the answer to `command`.
    pub(crate) fn header(&self, command: Header) -> Header {
        let failed = if self.errno == 0 { 0 } else { flags::ERROR };
        let error = u32::try_from(self.errno).unwrap_or(0);
        Header { flags: flags::REPLY | failed, error, size: 0, ..command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::fd::{AsFd, AsRawFd};

    /// Waits for the socket alone.
    struct Patience;

    impl Wait for Patience {
        fn wait(&mut self, socket: &UnixStream, what: For) -> Result<(), End> {
            sys::wait(&[(socket.as_raw_fd(), what)], -1)?;
            Ok(())
        }
    }

    fn message(command: u16, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(HEADER_LEN + payload.len()).unwrap();
        let mut bytes = Header { id: 7, command, size, ..Header::default() }.bytes();
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn messages_come_one_by_one_with_their_descriptors() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let bytes = [message(1, b"abc"), message(2, b"")].concat();
        here.write_all(&bytes).unwrap();
        send(&here, &mut Patience, Header { id: 3, ..Header::default() }, b"x", &[file.as_fd()])
            .unwrap();
        drop(here);
        let next = || receive(&there, &mut Patience);
        let first = next().unwrap();
        assert_eq!((first.header.command, first.payload.as_slice()), (1, b"abc".as_slice()));
        assert_eq!(next().unwrap().header.command, 2);
        let third = next().unwrap();
        assert_eq!((third.header.id, third.fds.len(), third.too_many_fds), (3, 1, false));
        assert!(matches!(next(), Err(End::Closed)));
    }

    // Descriptors that come along with each of many bytes of one message.
    #[test]
    fn descriptors_do_not_pile_up() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        for byte in message(1, &[0; 40]) {
            sys::send(&here, &[byte], &[file.as_fd(); 4]).unwrap();
        }
        let message = receive(&there, &mut Patience).unwrap();
        assert!(message.too_many_fds);
        assert_eq!(message.fds.len(), sys::MAX_FDS);
    }

    proptest! {
        // A size is checked before anything is allocated for it.
        #[test]
        fn any_bytes_are_messages_or_the_end(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 0_u32..64) {
            let (mut here, there) = UnixStream::pair().unwrap();
            let mut bytes = bytes;
            if let Some(place) = bytes.get_mut(4..8) {
                place.copy_from_slice(&size.to_le_bytes());
            }
            here.write_all(&bytes).unwrap();
            drop(here);
            let end = loop {
                match receive(&there, &mut Patience) {
                    Ok(message) => prop_assert!(message.payload.len() <= bytes.len()),
                    Err(end) => break end,
                }
            };
            prop_assert!(matches!(end, End::Closed | End::Protocol(_)));
        }
    }
}
