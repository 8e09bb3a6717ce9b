//! Sockets that carry descriptors, waiting, and eventfds of unknown origin.

#![expect(
    unsafe_code,
    reason = "ancillary data, poll and descriptors by number have no safe interface"
)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use vmm_sys_util::eventfd::EventFd;

/// Descriptors that are taken with one message, and given with one. QEMU's client knows no more.
pub(crate) const MAX_FDS: usize = 16;

/// Bytes of ancillary data that hold [`MAX_FDS`] descriptors, in words, so that they are aligned.
const CONTROL_WORDS: usize = {
    let len = size_of::<[RawFd; MAX_FDS]>();
    // Well below `u32::MAX`.
    #[expect(clippy::cast_possible_truncation, reason = "64 bytes")]
    // SAFETY: CMSG_SPACE only computes.
    let space = unsafe { libc::CMSG_SPACE(len as u32) };
    (space as usize).div_ceil(8)
};

/// What came with some bytes.
pub(crate) struct Received {
    /// Bytes, 0 at the end of the stream.
    pub(crate) len: usize,
    /// There were more descriptors than can be taken. The kernel has closed those.
    pub(crate) truncated: bool,
}

/// Takes what there is, up to `place`, and adds the descriptors that came with it to `fds`. They are
/// closed on exec. Does not block.
pub(crate) fn receive(
    socket: &UnixStream,
    place: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut control = [0_u64; CONTROL_WORDS];
    let mut iov = libc::iovec { iov_base: place.as_mut_ptr().cast(), iov_len: place.len() };
    // SAFETY: a message header of zeroes is a valid one that names nothing.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header names `place` and `control`, which outlive the call, with their lengths.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let Ok(len) = usize::try_from(len) else { return Err(io::Error::last_os_error()) };

    // SAFETY: the kernel has filled in the header and `control`.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole header inside of `control`.
        let found = unsafe { &*message };
        if found.cmsg_level == libc::SOL_SOCKET && found.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            let bytes = found.cmsg_len.saturating_sub(head);
            // SAFETY: CMSG_DATA points behind the header, to `bytes` bytes of `control`.
            let data = unsafe { libc::CMSG_DATA(message) };
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: inside of the data, as just computed; nothing is said of its alignment.
                let fd = unsafe { data.cast::<RawFd>().add(index).read_unaligned() };
                // SAFETY: the kernel has just made it for this process, and nobody else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(Received { len, truncated: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Sends what it can of `data`, with up to [`MAX_FDS`] descriptors along with the first byte. Does not
/// block; returns how much went.
pub(crate) fn send(socket: &UnixStream, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let fds: Vec<RawFd> = fds.iter().take(MAX_FDS).map(AsRawFd::as_raw_fd).collect();
    let mut control = [0_u64; CONTROL_WORDS];
    let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    // SAFETY: a message header of zeroes is a valid one that names nothing.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    if !fds.is_empty() {
        let bytes = size_of_val(fds.as_slice());
        let len = u32::try_from(bytes).map_err(io::Error::other)?;
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes. At most MAX_FDS, so this is at most `control`'s size.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(len) } as usize;
        // SAFETY: `control` has room for one header and `bytes` bytes, and is aligned for it.
        unsafe {
            let message = libc::CMSG_FIRSTHDR(&raw const header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(len) as usize;
            ptr::copy_nonoverlapping(fds.as_ptr().cast::<u8>(), libc::CMSG_DATA(message), bytes);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header names `data` and `control`, which outlive the call; neither is written.
    let len = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    usize::try_from(len).map_err(|_| io::Error::last_os_error())
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    Input,
    Output,
}

/// Waits until any of `sources` is ready, or closed, for `limit` milliseconds (-1 for ever). Says of each
/// whether it is. A signal ends it with none.
pub(crate) fn wait(sources: &[(RawFd, For)], limit: i32) -> io::Result<Vec<bool>> {
    let mut list: Vec<libc::pollfd> = sources
        .iter()
        .map(|(fd, what)| {
            let events = if *what == For::Input { libc::POLLIN } else { libc::POLLOUT };
            libc::pollfd { fd: *fd, events, revents: 0 }
        })
        .collect();
    let count = libc::nfds_t::try_from(list.len()).map_err(io::Error::other)?;
    // SAFETY: `list` has `count` entries and outlives the call.
    if unsafe { libc::poll(list.as_mut_ptr(), count, limit) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        return Ok(vec![false; list.len()]);
    }
    Ok(list.iter().map(|entry| entry.revents != 0).collect())
}

/// Makes an eventfd of a descriptor that somebody sent, or says that it is none. It does not block from
/// then on, for its sender neither.
///
/// What is written to it is written by threads that must not stop: that is why it has to be an eventfd,
/// and not a pipe, say, that nobody reads.
pub(crate) fn eventfd(fd: OwnedFd) -> Option<EventFd> {
    let raw = fd.as_raw_fd();
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: `stat` has room for what the call writes.
    if unsafe { libc::fstat(raw, stat.as_mut_ptr()) } < 0 {
        return None;
    }
    // SAFETY: zeroes are a valid `stat`, and the call has succeeded besides.
    let stat = unsafe { stat.assume_init() };
    // What is no file, directory, device, pipe or socket is one of the kernel's own kinds.
    if stat.st_mode & libc::S_IFMT != 0 {
        return None;
    }
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(raw, libc::F_GETFL) };
    if flags < 0 {
        return None;
    }
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: no memory is involved.
        unsafe { libc::fcntl(raw, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    }
    // SAFETY: ownership goes from `fd` to the eventfd.
    let event = unsafe { EventFd::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(fd)) };
    // Adds nothing to an eventfd, even a full one, and is refused by all others of those kinds.
    event.write(0).is_ok().then_some(event)
}

/// A file that was opened for reads alone, of the same memory.
pub(crate) fn read_only(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A descriptor of an eventfd's, to be sent.
pub(crate) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the eventfd stays open as long as it is borrowed.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    #[test]
    fn descriptors_go_along_and_are_closed_on_exec() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(send(&here, b"abc", &[file.as_fd(); 3]).unwrap(), 3);
        let (mut place, mut fds) = ([0; 8], Vec::new());
        let got = receive(&there, &mut place[..2], &mut fds).unwrap();
        assert_eq!((got.len, got.truncated, fds.len()), (2, false, 3));
        for fd in &fds {
            let name = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
            let info = std::fs::read_to_string(name).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            assert!(flags.trim().len() >= 7 && flags.contains("02"), "O_CLOEXEC: {info}");
        }
        let got = receive(&there, &mut place, &mut fds).unwrap();
        assert_eq!((got.len, fds.len()), (1, 3));
        let error = receive(&there, &mut place, &mut fds).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(here);
        assert_eq!(receive(&there, &mut place, &mut fds).unwrap().len, 0);
    }

    // Surplus descriptors: the kernel closes what finds no room, and says so.
    #[test]
    fn more_descriptors_than_there_is_room_for_are_told_of() {
        let (here, there) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let many = [file.as_raw_fd(); MAX_FDS + 4];
        use vmm_sys_util::sock_ctrl_msg::ScmSocket;
        assert_eq!(here.send_with_fds(&[b"x".as_slice()], &many).unwrap(), 1);
        let mut fds = Vec::new();
        let got = receive(&there, &mut [0; 8], &mut fds).unwrap();
        assert!(got.truncated && got.len == 1);
        assert!(fds.len() <= MAX_FDS, "{}", fds.len());
    }

    #[test]
    fn only_an_eventfd_is_one() {
        let full = EventFd::new(0).unwrap();
        full.write(u64::MAX - 1).unwrap();
        let taken = eventfd(borrow(&full).try_clone_to_owned().unwrap()).unwrap();
        assert!(taken.write(1).is_err(), "it would block");
        let empty = EventFd::new(EFD_NONBLOCK).unwrap();
        let taken = eventfd(borrow(&empty).try_clone_to_owned().unwrap()).unwrap();
        assert!(empty.read().is_err(), "nothing was written");
        taken.write(1).unwrap();
        assert_eq!(empty.read().unwrap(), 1);

        let (pipe, _reader) = UnixStream::pair().unwrap();
        assert!(eventfd(pipe.into()).is_none());
        assert!(eventfd(tempfile::tempfile().unwrap().into()).is_none());
        let epoll = vmm_sys_util::epoll::Epoll::new().unwrap();
        // SAFETY: `epoll` stays open beyond this.
        let epoll = unsafe { BorrowedFd::borrow_raw(epoll.as_raw_fd()) }.try_clone_to_owned();
        assert!(eventfd(epoll.unwrap()).is_none());
    }

    #[test]
    fn waiting_says_who_is_ready() {
        let (one, two) = (EventFd::new(0).unwrap(), EventFd::new(0).unwrap());
        let sources = [(one.as_raw_fd(), For::Input), (two.as_raw_fd(), For::Input)];
        assert_eq!(wait(&sources, 0).unwrap(), [false, false]);
        two.write(1).unwrap();
        assert_eq!(wait(&sources, -1).unwrap(), [false, true]);
        assert_eq!(wait(&[(one.as_raw_fd(), For::Output)], -1).unwrap(), [true]);
    }
}
