//! One end of a connection: whole messages, in step.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::sys;
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
    /// What was asked of the other end was not answered in time.
    #[error("no answer came in time")]
    Silent,
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

/// A message that comes in parts.
#[derive(Default)]
pub(crate) struct Incoming {
    head: [u8; HEADER_LEN],
    /// Once all of it has come.
    header: Option<Header>,
    payload: Vec<u8>,
    /// Bytes that have come, of the header or, once that is whole, of the payload.
    done: usize,
    fds: Vec<OwnedFd>,
    too_many_fds: bool,
}

impl Incoming {
    /// Takes what has come, up to the end of the message, which is returned if it is there. Does not block.
    pub(crate) fn take(&mut self, socket: &UnixStream) -> Result<Option<Message>, End> {
        loop {
            let place = match self.header {
                None => self.head.get_mut(self.done..),
                Some(_) => self.payload.get_mut(self.done..),
            };
            match place.filter(|rest| !rest.is_empty()) {
                Some(rest) => match sys::receive(socket, rest, &mut self.fds) {
                    Ok(received) if received.len == 0 => return Err(End::Closed),
                    Ok(received) => {
                        self.done += received.len;
                        // Whatever a sender sends byte by byte, it has that many descriptors here at most.
                        self.too_many_fds |= received.truncated || self.fds.len() > sys::MAX_FDS;
                        self.fds.truncate(sys::MAX_FDS);
                    }
                    Err(error) => match error.kind() {
                        io::ErrorKind::WouldBlock => return Ok(None),
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::ConnectionReset => return Err(End::Closed),
                        _ => return Err(error.into()),
                    },
                },
                None => match self.header {
                    None => self.begin()?,
                    Some(header) => {
                        let Self { payload, fds, too_many_fds, .. } = std::mem::take(self);
                        return Ok(Some(Message { header, payload, fds, too_many_fds }));
                    }
                },
            }
        }
    }

    /// The header is whole.
    fn begin(&mut self) -> Result<(), End> {
        let header = Header::parse(&self.head);
        let size = usize::try_from(header.size).unwrap_or(usize::MAX);
        if !(HEADER_LEN..=MAX_MESSAGE).contains(&size) {
            return Err(End::Protocol("a message of an impossible size"));
        }
        self.payload = vec![0; size - HEADER_LEN];
        self.header = Some(header);
        self.done = 0;
        Ok(())
    }
}

/// A message that is to be sent.
pub(crate) fn message(header: Header, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER_LEN + payload.len()).unwrap_or(u32::MAX);
    let mut message = Header { size, ..header }.bytes();
    message.extend_from_slice(payload);
    message
}

/// Sends what it can of the rest of a message, of which `done` bytes are gone; its descriptors go with the first.
/// Returns how many more are gone, 0 if none can be now. Does not block.
pub(crate) fn send_some(
    socket: &UnixStream,
    message: &[u8],
    done: usize,
    fds: &[BorrowedFd<'_>],
) -> Result<usize, End> {
    let fds = if done == 0 { fds } else { &[] };
    match sys::send(socket, message.get(done..).unwrap_or_default(), fds) {
        Ok(len) => Ok(len),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(End::Closed),
            _ => Err(error.into()),
        },
    }
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
    use std::os::fd::AsFd;

    fn message(command: u16, payload: &[u8]) -> Vec<u8> {
        super::message(Header { id: 7, command, ..Header::default() }, payload)
    }

    /// The next message, of which all is there.
    fn receive(socket: &UnixStream) -> Result<Message, End> {
        Ok(Incoming::default().take(socket)?.unwrap())
    }

    #[test]
    fn messages_come_one_by_one_with_their_descriptors() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let bytes = [message(1, b"abc"), message(2, b"")].concat();
        here.write_all(&bytes).unwrap();
        let third = super::message(Header { id: 3, ..Header::default() }, b"x");
        assert_eq!(send_some(&here, &third, 0, &[file.as_fd()]).unwrap(), third.len());
        drop(here);
        let next = || receive(&there);
        let first = next().unwrap();
        assert_eq!((first.header.command, first.payload.as_slice()), (1, b"abc".as_slice()));
        assert_eq!(next().unwrap().header.command, 2);
        let third = next().unwrap();
        assert_eq!((third.header.id, third.fds.len(), third.too_many_fds), (3, 1, false));
        assert!(matches!(next(), Err(End::Closed)));
    }

    #[test]
    fn a_message_comes_in_parts() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let mut incoming = Incoming::default();
        for round in 0..2 {
            for byte in message(round, b"abc") {
                assert!(incoming.take(&there).unwrap().is_none());
                here.write_all(&[byte]).unwrap();
            }
            let message = incoming.take(&there).unwrap().unwrap();
            assert_eq!((message.header.command, &*message.payload), (round, b"abc".as_slice()));
        }
    }

    // Descriptors that come along with each of many bytes of one message.
    #[test]
    fn descriptors_do_not_pile_up() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        for byte in message(1, &[0; 40]) {
            sys::send(&here, &[byte], &[file.as_fd(); 4]).unwrap();
        }
        let message = receive(&there).unwrap();
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
                match receive(&there) {
                    Ok(message) => prop_assert!(message.payload.len() <= bytes.len()),
                    Err(end) => break end,
                }
            };
            prop_assert!(matches!(end, End::Closed | End::Protocol(_)));
        }
    }
}
