//! The system calls for it.

#![expect(unsafe_code, reason = "system calls that the standard library does not have")]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Command;

use paraslot_spec::virtio_net::Header;
use zerocopy::{FromZeros, IntoBytes};

use crate::net::MAX_FRAME;
use crate::net::tap::InterfaceRequest;

/// Moves the calling thread to a new network namespace.
pub(super) fn leave_network() -> io::Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has `command` run as root of new user and network namespaces.
pub(super) fn in_user_namespace(command: &mut Command) {
    // SAFETY: these cannot fail and involve no memory.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    let maps = [
        (c"/proc/self/setgroups", "deny".to_owned()),
        (c"/proc/self/uid_map", format!("0 {user} 1")),
        (c"/proc/self/gid_map", format!("0 {group} 1")),
    ];
    let enter = move || {
        // SAFETY: no memory is involved.
        done(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
        maps.iter().try_for_each(|(path, text)| write_file(path, text.as_bytes()))
    };
    // SAFETY: `enter` makes system calls only: nothing that could be locked or half done when the
    // process was forked.
    unsafe { command.pre_exec(enter) };
}

fn write_file(path: &CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: the path ends with a zero byte.
    let fd = owned(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })?;
    // SAFETY: `text` is valid for its length.
    let written = unsafe { libc::write(fd.as_raw_fd(), text.as_ptr().cast(), text.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    done(fd)?;
    // SAFETY: a call has just made this descriptor, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A network interface.
#[derive(Debug)]
pub struct Interface {
    name: String,
    socket: UnixDatagram,
}

const INET: u8 = 2;

/// A `struct sockaddr_in`.
fn inet(address: Ipv4Addr) -> [u8; 16] {
    let family = u16::from(INET).to_ne_bytes();
    let [a, b, c, d] = address.octets();
    let [low, high] = family;
    [low, high, 0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0]
}

impl Interface {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), socket: UnixDatagram::unbound().expect("a socket") }
    }

    fn ask(&self, code: libc::Ioctl, value: &[u8]) -> InterfaceRequest {
        let request = InterfaceRequest::new(&self.name).with(value);
        let answer = request.ask(self.socket.as_fd(), code);
        answer.unwrap_or_else(|error| panic!("interface {}, {code:#x}: {error}", self.name))
    }

    /// Gives it an address, in a network of so many bits.
    pub fn set_address(&self, address: Ipv4Addr, prefix: u32) {
        // Only a socket of that family knows these.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - prefix).unwrap_or(0));
        for (code, address) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
            let request = InterfaceRequest::new(&self.name).with(&inet(address));
            request.ask(socket.as_fd(), code).expect("an address");
        }
    }

    /// Tells it the hardware address of a neighbour, so that it need not ask.
    pub fn set_neighbour(&self, address: Ipv4Addr, hardware: [u8; 6]) {
        let mut request = libc::arpreq {
            arp_pa: sockaddr(inet(address)),
            arp_ha: sockaddr([0; 16]),
            arp_flags: libc::ATF_COM | libc::ATF_PERM,
            arp_netmask: sockaddr([0; 16]),
            arp_dev: [0; 16],
        };
        request.arp_ha.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in request.arp_ha.sa_data.iter_mut().zip(hardware) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        for (to, from) in request.arp_dev.iter_mut().zip(self.name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        // SAFETY: SIOCSARP reads one such structure.
        done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSARP, &raw const request) })
            .expect("a neighbour");
    }

    /// Largest IP packet, in bytes.
    pub fn set_mtu(&self, bytes: u16) {
        self.ask(libc::SIOCSIFMTU, &libc::c_int::from(bytes).to_ne_bytes());
    }

    /// Its hardware address.
    pub fn hardware_address(&self) -> [u8; 6] {
        let [_, _, address @ ..] = self.ask(libc::SIOCGIFHWADDR, &[]).value::<8>();
        address
    }

    /// Sets it up.
    pub fn up(&self) {
        self.change_flags(|flags| flags | 1);
    }

    /// Sets it down.
    pub fn down(&self) {
        self.change_flags(|flags| flags & !1);
    }

    fn change_flags(&self, change: impl Fn(u16) -> u16) {
        let flags = u16::from_ne_bytes(self.ask(libc::SIOCGIFFLAGS, &[]).value());
        self.ask(libc::SIOCSIFFLAGS, &change(flags).to_ne_bytes());
    }

    /// Turns IPv6 off on it, if the kernel has it at all.
    pub fn disable_ipv6(&self) {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{}/disable_ipv6", self.name), b"1");
    }

    /// Makes an interface a port of this one, which is a bridge.
    pub(super) fn take_port(&self, port: &Self) {
        self.ask(SIOCBRADDIF, &port.index().to_ne_bytes());
    }

    fn index(&self) -> libc::c_int {
        libc::c_int::from_ne_bytes(self.ask(libc::SIOCGIFINDEX, &[]).value())
    }

    /// Removes it, whoever uses it.
    pub fn remove(&self) {
        let removed = change_link(libc::RTM_DELLINK, 0, self.index(), &[]);
        removed.unwrap_or_else(|error| panic!("interface {} stays: {error}", self.name));
    }

    /// All frames that the interface's network sends and receives; and a way to send some.
    pub fn packets(&self) -> PacketSocket {
        PacketSocket::new(self.index()).expect("a packet socket")
    }
}

// From linux/sockios.h and linux/if_link.h.
const SIOCBRADDIF: libc::Ioctl = 0x89a2;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;

/// Makes a bridge without ports, which has nothing to say of its own accord.
pub(super) fn add_bridge(name: &str) -> io::Result<()> {
    let snooping = attribute(IFLA_BR_MCAST_SNOOPING, &[0]);
    let kind = attribute(libc::IFLA_INFO_KIND, b"bridge");
    let info = [kind, attribute(libc::IFLA_INFO_DATA, &snooping)].concat();
    let name = attribute(libc::IFLA_IFNAME, name.as_bytes());
    let attributes = [name, attribute(libc::IFLA_LINKINFO, &info)].concat();
    let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    change_link(libc::RTM_NEWLINK, flags, 0, &attributes)
}

/// An attribute of a netlink message.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("short").to_ne_bytes();
    let mut attribute = [&len[..], &kind.to_ne_bytes(), value].concat();
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// Has the kernel make or remove an interface.
fn change_link(
    kind: u16,
    flags: libc::c_int,
    index: libc::c_int,
    attributes: &[u8],
) -> io::Result<()> {
    let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
    let flags = u16::try_from(flags).expect("16 bits");
    let mut message = vec![0; 32];
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[20..24].copy_from_slice(&index.to_ne_bytes());
    message.extend_from_slice(attributes);
    let len = u32::try_from(message.len()).expect("short");
    message[..4].copy_from_slice(&len.to_ne_bytes());
    let protocol = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is involved.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, protocol, libc::NETLINK_ROUTE) };
    let mut socket = File::from(owned(socket)?);
    socket.write_all(&message)?;
    let mut answer = [0; 20];
    socket.read_exact(&mut answer)?;
    let [.., a, b, c, d] = answer;
    match i32::from_ne_bytes([a, b, c, d]) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn sockaddr(bytes: [u8; 16]) -> libc::sockaddr {
    let [low, high, data @ ..] = bytes;
    libc::sockaddr {
        sa_family: u16::from_ne_bytes([low, high]),
        sa_data: data.map(|byte| libc::c_char::from_ne_bytes([byte])),
    }
}

/// A packet socket, with virtio's header before each frame.
#[derive(Debug)]
pub struct PacketSocket(File);

/// Bytes of the header, which has no number of buffers here.
const HEADER: usize = 10;

impl PacketSocket {
    fn new(index: libc::c_int) -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // ETH_P_ALL.
        let protocol = 3u16.to_be();
        // SAFETY: no memory is involved.
        let socket = owned(unsafe { libc::socket(libc::AF_PACKET, kind, protocol.into()) })?;
        let on: libc::c_int = 1;
        // SAFETY: an option that is one int.
        done(unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_VNET_HDR,
                (&raw const on).cast(),
                u32::try_from(size_of_val(&on)).expect("a few bytes"),
            )
        })?;
        let address = libc::sockaddr_ll {
            sll_family: u16::try_from(libc::AF_PACKET).expect("a small number"),
            sll_protocol: protocol,
            sll_ifindex: index,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: an address of the length given.
        done(unsafe {
            libc::bind(
                socket.as_raw_fd(),
                (&raw const address).cast(),
                u32::try_from(size_of_val(&address)).expect("a few bytes"),
            )
        })?;
        Ok(Self(File::from(socket)))
    }

    /// Sends a frame out of the interface.
    ///
    /// # Errors
    /// The kernel's.
    pub fn send(&self, header: &Header, frame: &[u8]) -> io::Result<()> {
        let message = [&header.as_bytes()[..HEADER], frame].concat();
        (&self.0).write(&message).map(drop)
    }

    /// The next frame that came in or went out; `None` if there is none now.
    pub fn receive(&self) -> Option<(Header, Vec<u8>)> {
        let mut message = vec![0; HEADER + MAX_FRAME];
        let count = match (&self.0).read(&mut message) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Err(error) => panic!("packet socket: {error}"),
        };
        message.truncate(count);
        let frame = message.split_off(HEADER);
        let mut header = Header::new_zeroed();
        header.as_mut_bytes()[..HEADER].copy_from_slice(&message);
        Some((header, frame))
    }
}
