//! The system calls on TAP descriptors that the standard library does not have.

#![expect(unsafe_code, reason = "system calls that the standard library does not have")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use paraslot_device::DmaBuffers;

/// Most buffers that one system call takes.
pub(super) const IOV_MAX: usize = 1024;

/// Where TAP descriptors come from.
pub(crate) const DEVICE: &str = "/dev/net/tun";

/// A descriptor that belongs to no interface yet.
pub(super) fn open() -> io::Result<OwnedFd> {
    // The standard library adds O_CLOEXEC.
    let options = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).clone();
    options.open(DEVICE).map(OwnedFd::from)
}

/// Another descriptor for what descriptor `number` of this process is open on.
pub(super) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: no memory is involved; a number that is not open makes the call fail.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made this descriptor, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Makes calls on the open file return at once, and keeps the descriptor to this program.
pub(super) fn prepare(fd: BorrowedFd<'_>) -> io::Result<()> {
    let fd = fd.as_raw_fd();
    // SAFETY: no memory is involved.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    done(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: as above.
    done(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What ioctls about an interface take: `struct ifreq`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    /// A union of as many bytes at most.
    value: [u8; 24],
}

impl InterfaceRequest {
    /// About interface `name`, of which the first 15 bytes count.
    pub(crate) fn new(name: &str) -> Self {
        let mut request = Self { name: [0; libc::IFNAMSIZ], value: [0; 24] };
        let room = request.name.iter_mut().take(libc::IFNAMSIZ - 1);
        room.zip(name.bytes()).for_each(|(to, from)| *to = from);
        request
    }

    /// Sets the first bytes of the value.
    pub(crate) fn with(mut self, value: &[u8]) -> Self {
        self.value.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
        self
    }

    /// The first bytes of the value.
    pub(crate) fn value<const N: usize>(&self) -> [u8; N] {
        std::array::from_fn(|index| self.value.get(index).copied().unwrap_or_default())
    }

    pub(crate) fn name(&self) -> String {
        let name = self.name.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(name).into_owned()
    }

    /// Asks the kernel `code`, which must be one that takes a `struct ifreq` without pointers.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn ask(mut self, fd: BorrowedFd<'_>, code: libc::Ioctl) -> io::Result<Self> {
        // SAFETY: `self` is as large and as aligned as the kernel's structure, and lives through
        // the call.
        done(unsafe { libc::ioctl(fd.as_raw_fd(), code, &raw mut self) })?;
        Ok(self)
    }

    fn flags(&self) -> u32 {
        u16::from_ne_bytes(self.value()).into()
    }
}

/// Flags of an interface, from TUNSETIFF and TUNGETIFF. They are 16 bits.
pub(super) mod flag {
    pub(in crate::net::tap) const TAP: u32 = 0x0002;
    pub(in crate::net::tap) const MULTI_QUEUE: u32 = 0x0100;
    pub(in crate::net::tap) const ATTACH: u32 = 0x0200;
    pub(in crate::net::tap) const DETACH: u32 = 0x0400;
    pub(in crate::net::tap) const NO_PI: u32 = 0x1000;
    pub(in crate::net::tap) const VNET_HDR: u32 = 0x4000;
}

fn flags_request(name: &str, flags: u32) -> InterfaceRequest {
    let [low, high, ..] = flags.to_le_bytes();
    InterfaceRequest::new(name).with(&u16::from_le_bytes([low, high]).to_ne_bytes())
}

/// Makes the descriptor a queue of interface `name`, which is created if need be; returns its name.
pub(super) fn set_interface(fd: BorrowedFd<'_>, name: &str, flags: u32) -> io::Result<String> {
    flags_request(name, flags).ask(fd, libc::TUNSETIFF).map(|request| request.name())
}

/// Name and flags of the interface that the descriptor is a queue of.
pub(super) fn interface(fd: BorrowedFd<'_>) -> io::Result<(String, u32)> {
    let request = InterfaceRequest::new("").ask(fd, libc::TUNGETIFF)?;
    Ok((request.name(), request.flags()))
}

/// Has the queue take part in the interface's traffic, or not.
pub(super) fn set_attached(fd: BorrowedFd<'_>, attached: bool) -> io::Result<()> {
    let flag = if attached { flag::ATTACH } else { flag::DETACH };
    flags_request("", flag).ask(fd, libc::TUNSETQUEUE).map(drop)
}

/// Length of the header before each frame, in bytes.
pub(super) fn set_header_len(fd: BorrowedFd<'_>, len: usize) -> io::Result<()> {
    set_int(fd, libc::TUNSETVNETHDRSZ, libc::c_int::try_from(len).unwrap_or(libc::c_int::MAX))
}

/// Has the header's numbers be little-endian.
pub(super) fn set_little_endian(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int(fd, libc::TUNSETVNETLE, 1)
}

/// Most bytes of sent frames that the kernel holds for this queue.
pub(super) fn set_send_buffer(fd: BorrowedFd<'_>, bytes: u32) -> io::Result<()> {
    set_int(fd, libc::TUNSETSNDBUF, libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX))
}

fn set_int(fd: BorrowedFd<'_>, code: libc::Ioctl, value: libc::c_int) -> io::Result<()> {
    // SAFETY: these read one int.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), code, &raw const value) })
}

/// What may be left to be done to frames that are received: `TUN_F_*`.
pub(super) fn set_offload(fd: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// Largest IP packet of interface `name`, which `fd` is a queue of, in bytes; `None` if it is out of
/// sight (in another network namespace).
pub(super) fn mtu(fd: BorrowedFd<'_>, name: &str) -> Option<u16> {
    let socket = std::os::unix::net::UnixDatagram::unbound().ok()?;
    let request = InterfaceRequest::new(name);
    let address = |fd| request.ask(fd, libc::SIOCGIFHWADDR).ok();
    // There may be another of the same name in this namespace.
    let (ours, seen) = (address(fd)?, address(socket.as_fd())?);
    if ours.value::<8>() != seen.value::<8>() {
        return None;
    }
    let mtu = request.ask(socket.as_fd(), libc::SIOCGIFMTU).ok()?;
    u16::try_from(libc::c_int::from_ne_bytes(mtu.value())).ok()
}

/// What poll(2) says of `fd` now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It would wait.
    Waits,
    /// It is ready.
    Ready,
    /// There is an error, or nobody at the other end.
    Broken,
}

/// Whether `fd` is ready for `events` (POLLIN or POLLOUT).
pub(super) fn readiness(fd: BorrowedFd<'_>, events: libc::c_short) -> Readiness {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid entry.
    let count = unsafe { libc::poll(&raw mut entry, 1, 0) };
    if entry.revents & events != 0 {
        Readiness::Ready
    } else if count == 1 {
        Readiness::Broken
    } else {
        Readiness::Waits
    }
}

/// Where the addresses and lengths for one call are put together; only to use the memory again.
#[derive(Default)]
pub(super) struct Vectors(Vec<libc::iovec>);

// SAFETY: the list is empty but during a call.
unsafe impl Send for Vectors {}

impl Vectors {
    fn push(&mut self, base: *mut u8, len: usize) {
        if len != 0 {
            self.0.push(libc::iovec { iov_base: base.cast(), iov_len: len });
        }
    }

    fn buffers(&mut self, buffers: &DmaBuffers) {
        self.0.extend(
            buffers
                .host_ranges()
                .map(|(host, len)| libc::iovec { iov_base: host.as_ptr().cast(), iov_len: len }),
        );
    }

    fn count(&self) -> libc::c_int {
        libc::c_int::try_from(self.0.len()).unwrap_or(libc::c_int::MAX)
    }

    /// Writes `host` and then `guest` as one message.
    pub(super) fn write(
        &mut self,
        fd: BorrowedFd<'_>,
        host: &[&[u8]],
        guest: Option<&DmaBuffers>,
    ) -> io::Result<usize> {
        self.0.clear();
        for piece in host {
            self.push(piece.as_ptr().cast_mut(), piece.len());
        }
        if let Some(guest) = guest {
            self.buffers(guest);
        }
        let result = retry(|| {
            // SAFETY: the vectors are those of borrows that outlive the call, which only reads.
            unsafe { libc::writev(fd.as_raw_fd(), self.0.as_ptr(), self.count()) }
        });
        self.0.clear();
        result
    }

    /// Reads one message into `header`, `room` and `spare`; returns its length, as far as it fits.
    pub(super) fn read(
        &mut self,
        fd: BorrowedFd<'_>,
        header: &mut [u8],
        room: ReadRoom<'_>,
        spare: &mut [u8],
    ) -> io::Result<usize> {
        self.0.clear();
        self.push(header.as_mut_ptr(), header.len());
        match room {
            ReadRoom::Guest(buffers) => self.buffers(buffers),
            ReadRoom::Host(bytes) => self.push(bytes.as_mut_ptr(), bytes.len()),
        }
        self.push(spare.as_mut_ptr(), spare.len());
        let result = retry(|| {
            // SAFETY: the vectors are those of exclusive borrows that outlive the call, and of
            // guest memory that the list keeps mapped and that all are free to write to.
            unsafe { libc::readv(fd.as_raw_fd(), self.0.as_ptr(), self.count()) }
        });
        self.0.clear();
        result
    }
}

/// Where [`Vectors::read`] puts a frame.
pub(super) enum ReadRoom<'a> {
    Guest(&'a DmaBuffers),
    Host(&'a mut [u8]),
}

fn retry(call: impl Fn() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(count) => return Ok(count),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Has the interface stay when nobody uses it.
#[cfg(test)]
pub(super) fn set_persistent(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the argument is a number.
    done(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETPERSIST, 1 as libc::c_ulong) })
}
