//! A TAP interface of the host: its kernel is the other end.

mod error;
mod header;
mod queue;
mod receiver;
mod sender;
mod sys;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use super::{NetBackend, NetInfo, NetReceiver, NetSender, Offloads};
use queue::{Half, Lease, Queue};
use receiver::Receiver;
use sender::Sender;
use sys::flag;

pub use error::TapError;
#[cfg(any(test, feature = "test-utils"))]
pub(crate) use sys::{DEVICE, InterfaceRequest};

/// Most queue pairs of an interface.
pub const TAP_QUEUES_MAX: u16 = 256;

/// Which interface, and how to use it.
#[derive(Clone, Debug)]
pub struct TapOptions {
    /// The interface, of up to 15 characters. If there is none of that name it is created, and goes
    /// when it is closed. One `%d` in it stands for the first number that is free; that always makes
    /// a new one.
    pub name: String,
    /// Pairs of queues: 1 to [`TAP_QUEUES_MAX`].
    pub queues: u16,
    /// Queues of an interface that someone else has opened, one for each pair. If there are any,
    /// `name` and `queues` are not used. They must be of one TAP interface, opened with IFF_NO_PI and
    /// IFF_VNET_HDR; how long its header is, and what it may leave to be done, are set here. See
    /// [`inherited`](Self::inherited).
    pub fds: Vec<Arc<OwnedFd>>,
    /// Most bytes of sent frames that the host's kernel holds for each queue before it is busy: frames
    /// that wait in a physical interface's queue, mainly. Without, there is no limit but memory.
    pub send_buffer: Option<u32>,
}

impl TapOptions {
    /// Interface `name` with one pair of queues.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), queues: 1, fds: Vec::new(), send_buffer: None }
    }

    /// The queues that have these descriptors in this process, as they were passed to it. The numbers
    /// stay open, too.
    ///
    /// # Errors
    /// When one of them is not open.
    pub fn inherited(numbers: &[RawFd]) -> Result<Self, TapError> {
        let duplicate = |&fd: &RawFd| match sys::duplicate(fd) {
            Ok(copy) => Ok(Arc::new(copy)),
            Err(_) => Err(TapError::Descriptor {
                fd,
                what: "is not open",
                advice: "have the program that starts this one pass it on, without close-on-exec",
            }),
        };
        let fds = numbers.iter().map(duplicate).collect::<Result<_, _>>()?;
        Ok(Self { fds, ..Self::default() })
    }
}

impl Default for TapOptions {
    /// A new interface, `paraslot0` or the next that is free, with one pair of queues.
    fn default() -> Self {
        Self::new("paraslot%d")
    }
}

/// A TAP interface.
///
/// It is neither given an address nor set up or down here: that is for whoever runs the host's
/// network. While it is down, and once it was removed, frames that are sent are lost with
/// [`NetError::Down`](super::NetError::Down). One that was removed does not come back: a receiver
/// tells so once and stays quiet, and a new backend must be opened.
///
/// # Offloads
/// Checksums and TCP segmentation are left to the kernel, in both directions. UDP datagrams (USO) are
/// too, where it is Linux 6.2 or later, and received uncut only if that is accepted for IPv4 and IPv6
/// both, since the kernel does not tell them apart; before that they are cut here. IP fragments (UFO)
/// are left to it, but never received uncut. Whether headers are what an offload says they are is the
/// kernel's to check, which does so as far as it must to be safe.
///
/// # Cost
/// Each frame is one system call, from or to guest memory in place. Only a frame in more than 1022
/// pieces is copied, and counted in `copied_bytes`. Each queue has one descriptor, and one more for
/// each of its halves that is open.
pub struct TapBackend {
    name: String,
    info: NetInfo,
    queues: Vec<Arc<Queue>>,
    /// Which of the queues take part; of one that cannot do otherwise, always.
    attached: Mutex<Vec<bool>>,
}

impl TapBackend {
    /// Opens an interface.
    ///
    /// # Errors
    /// In one line, what is wrong and what to do about it.
    pub fn open(options: &TapOptions) -> Result<Self, TapError> {
        let (name, fds) = if options.fds.is_empty() { create(options)? } else { adopt(options)? };
        let label = name.clone();
        let failed = |action| {
            let name = label.clone();
            move |error| TapError::Io { name, action, error }
        };
        let mut attached = Vec::new();
        for fd in &fds {
            let fd = fd.as_fd();
            sys::prepare(fd).map_err(failed("its descriptor cannot be set up"))?;
            sys::set_header_len(fd, header::LEN).map_err(failed("the header cannot be set"))?;
            sys::set_little_endian(fd).map_err(failed("the header cannot be set"))?;
            if let Some(bytes) = options.send_buffer {
                sys::set_send_buffer(fd, bytes).map_err(failed("the send buffer cannot be set"))?;
            }
            let (_, flags) = sys::interface(fd).map_err(failed("it cannot be looked at"))?;
            attached.push(flags & flag::DETACH == 0);
        }
        let first = fds.first().map(|fd| fd.as_fd());
        let native = first.map(probe).unwrap_or_default();
        let info = NetInfo {
            queues: u16::try_from(fds.len()).unwrap_or(u16::MAX),
            mtu: first.and_then(|fd| sys::mtu(fd, &name)),
            native,
        };
        let queues = fds.into_iter().map(|fd| Queue::new(fd, native)).collect();
        let backend = Self { name, info, queues, attached: Mutex::new(attached) };
        backend
            .set_receive_offloads(Offloads::empty())
            .map_err(failed("offloads cannot be set"))?;
        backend.set_queues(1).map_err(failed("its queues cannot be detached"))?;
        Ok(backend)
    }

    /// What the interface was called when it was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn lease(&self, queue: u16, half: Half) -> io::Result<Lease> {
        let queue = self.queues.get(usize::from(queue)).ok_or(io::ErrorKind::InvalidInput)?;
        Lease::new(queue.clone(), half)
    }
}

/// Opens the interface by its name.
fn create(options: &TapOptions) -> Result<(String, Vec<Arc<OwnedFd>>), TapError> {
    let &TapOptions { ref name, queues, .. } = options;
    check_name(name)?;
    if !(1..=TAP_QUEUES_MAX).contains(&queues) {
        return Err(TapError::Queues {
            name: name.clone(),
            queues: queues.into(),
            max: TAP_QUEUES_MAX,
        });
    }
    let base = flag::TAP | flag::NO_PI | flag::VNET_HDR;
    let multi = base | flag::MULTI_QUEUE;
    let mut name = name.clone();
    let mut fds = Vec::new();
    for _ in 0..queues {
        let fd = sys::open().map_err(TapError::device)?;
        let set = |flags| sys::set_interface(fd.as_fd(), &name, flags);
        let result = match set(if queues > 1 { multi } else { base }) {
            // One that exists may be for several queues, of which one will do.
            Err(error) if queues == 1 && error.raw_os_error() == Some(libc::EINVAL) => set(multi),
            result => result,
        };
        // After the first, it is no template any more.
        name = result.map_err(|error| TapError::interface(&name, queues, error))?;
        fds.push(Arc::new(fd));
    }
    Ok((name, fds))
}

/// Takes over queues that were opened by someone else.
fn adopt(options: &TapOptions) -> Result<(String, Vec<Arc<OwnedFd>>), TapError> {
    let mut interface = None;
    for fd in &options.fds {
        let error = |what, advice| TapError::Descriptor { fd: fd.as_raw_fd(), what, advice };
        let (name, flags) = sys::interface(fd.as_fd()).map_err(|_| {
            error("is no queue of a TAP interface", "pass one on which TUNSETIFF was done")
        })?;
        if flags & flag::TAP == 0 {
            return Err(error("is a queue of a TUN interface", "open it with IFF_TAP"));
        }
        // There is no telling IFF_NO_PI: the kernel says something else by that bit here.
        if flags & flag::VNET_HDR == 0 {
            return Err(error(
                "has no virtio header before its frames",
                "open it with IFF_NO_PI and IFF_VNET_HDR",
            ));
        }
        if interface.get_or_insert_with(|| name.clone()) != &name {
            return Err(error(
                "is a queue of another interface than the first",
                "pass queues of one interface",
            ));
        }
    }
    let name = interface.unwrap_or_default();
    let queues = options.fds.len();
    if queues > usize::from(TAP_QUEUES_MAX) {
        return Err(TapError::Queues { name, queues, max: TAP_QUEUES_MAX });
    }
    Ok((name, options.fds.clone()))
}

fn check_name(name: &str) -> Result<(), TapError> {
    let plain = name.replacen("%d", "", 1);
    let possible = |byte: u8| byte.is_ascii_graphic() && !b"/:%".contains(&byte);
    let length = (1..libc::IFNAMSIZ).contains(&name.len());
    if length && plain.bytes().all(possible) && !matches!(name, "." | "..") {
        Ok(())
    } else {
        Err(TapError::Name { name: name.into() })
    }
}

/// What the kernel does to frames itself. It refuses flags that it does not know.
fn probe(fd: std::os::fd::BorrowedFd<'_>) -> Offloads {
    let tcp = Offloads::TSO4 | Offloads::TSO6 | Offloads::TSO_ECN;
    let mut native = Offloads::empty();
    for kind in [Offloads::empty(), tcp, Offloads::UFO, Offloads::USO4 | Offloads::USO6] {
        let offloads = kind | Offloads::CHECKSUM;
        if sys::set_offload(fd, header::tun_flags(offloads)).is_ok() {
            native |= offloads;
        }
    }
    native
}

impl NetBackend for TapBackend {
    fn info(&self) -> NetInfo {
        self.info.clone()
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        // They are the interface's, and any queue will do.
        let Some(queue) = self.queues.first() else { return Ok(()) };
        let flags = header::tun_flags(accepted & self.info.native);
        sys::set_offload(queue.fd(), flags).inspect_err(|_| {
            // Best effort: what was refused cannot have been this.
            let _ = sys::set_offload(queue.fd(), 0);
        })
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        let mut attached = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |index| index < usize::from(pairs.max(1));
        let before = attached.clone();
        let queues = self.queues.iter().zip(attached.iter_mut()).enumerate();
        let mut result = Ok(());
        for (index, (queue, attached)) in queues {
            if *attached != wanted(index) {
                result = sys::set_attached(queue.fd(), wanted(index));
                if result.is_err() {
                    break;
                }
                *attached = wanted(index);
            }
        }
        if result.is_err() {
            for (queue, (now, before)) in self.queues.iter().zip(attached.iter_mut().zip(before)) {
                if *now != before && sys::set_attached(queue.fd(), before).is_ok() {
                    *now = before;
                }
            }
        }
        result
    }

    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        Ok(Box::new(Sender::new(self.lease(queue, Half::Sending)?)))
    }

    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        Ok(Box::new(Receiver::new(self.lease(queue, Half::Receiving)?)))
    }
}
