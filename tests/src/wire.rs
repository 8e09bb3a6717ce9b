//! Vfio-user clients that send anything.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_device::{DeviceError, Host, ManualExecutor, SharedPage};
use paraslot_pci::PciDevice;
use paraslot_vfio_user::{ClientSpace, End, Server, Stop};
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_pci::VirtioPci;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::fuzz::Input;
use crate::served::listener;

/// Bytes of a message's header.
const HEADER: usize = 16;
/// Commands; those behind the last are not known.
const COMMANDS: u8 = 20;
/// Flag of a command: no reply.
const NO_REPLY: u32 = 1 << 4;
/// A version, without capabilities.
const VERSION: [u8; 20] = [1, 0, 1, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
/// A read of the vendor's and device's ID.
const READ_ID: [u8; 32] = [
    2, 0, 9, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0, 0,
];

fn server() -> Server {
    // Nobody connects there.
    let (_, listener) = listener();
    let backend = MemoryBackend::new(1 << 20, MemoryOptions::default()).expect("memory");
    let make = |host: Host<ClientSpace>| {
        let disk = VirtioBlk::new(Arc::new(backend), &Default::default())?;
        Ok::<Box<dyn PciDevice>, DeviceError>(Box::new(VirtioPci::new(disk, host)?))
    };
    Server::new(listener, Arc::new(ManualExecutor::new()), make).expect("a server")
}

/// Serves a client that sends what `send` does, and reads what comes until the end; returns what came.
fn serve(server: &mut Server, send: impl FnOnce(&UnixStream)) -> (End, Vec<u8>) {
    let (here, there) = UnixStream::pair().expect("sockets");
    let stop = Stop::new().expect("an eventfd");
    send(&here);
    here.shutdown(std::net::Shutdown::Write).expect("a socket");
    std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut all = Vec::new();
            // The end of a connection may be an error.
            let _ = (&here).read_to_end(&mut all);
            all
        });
        let end = server.serve(there, &stop).expect("the function goes on");
        (end, reader.join().expect("a thread that only reads"))
    })
}

/// A field of a message: often one that is nearly right.
fn field(input: &mut Input<'_>) -> u32 {
    match input.u8() % 8 {
        0 => input.u32(),
        1 => 0x1000 * u32::from(input.u8()),
        2 => 1 << (input.u8() & 31),
        3 => u32::MAX - u32::from(input.u8()),
        _ => (input.u8() & 63).into(),
    }
}

/// Sends messages made of `input` until it is used up.
fn send(socket: &UnixStream, input: &mut Input<'_>, memory: &File, event: &EventFd) {
    while !input.is_empty() {
        let command = u16::from(input.u8() % COMMANDS);
        let odd = input.u8();
        let fields = input.u8() % 12;
        let mut payload: Vec<u8> = (0..fields).flat_map(|_| field(input).to_le_bytes()).collect();
        // Now and then a message that is longer or shorter than it says, or not a whole one.
        payload.truncate(
            payload.len() - usize::from(odd & 3).min(payload.len()) * usize::from(odd >> 7),
        );
        let off = if odd & 0x70 == 0x70 { i64::from(odd & 7) - 4 } else { 0 };
        let size = i64::try_from(HEADER + payload.len()).expect("a short message") + off;
        let flags = if odd & 0x0c == 0x0c { NO_REPLY } else { 0 };
        let mut message = Vec::new();
        message.extend(7_u16.to_le_bytes());
        message.extend(command.to_le_bytes());
        message.extend(u32::try_from(size).unwrap_or(0).to_le_bytes());
        message.extend(flags.to_le_bytes());
        message.extend([0; 4]);
        message.extend(payload);
        let fd: RawFd = if command == 2 { memory.as_raw_fd() } else { event.as_raw_fd() };
        let fds = match input.u8() % 8 {
            0..4 => 0,
            4..7 => 1,
            _ => usize::from(input.u8() % 20),
        };
        // It fails when the socket is full: enough has been sent.
        let sent = socket.send_with_fds(&[message.as_slice()], &vec![fd; fds]);
        if sent.is_err() {
            break;
        }
    }
}

/// A client that sends messages made of `data`; then one that finds the function as it was.
///
/// # Panics
/// When the server is not as it should be.
pub fn examine(data: &[u8]) {
    let mut input = Input::new(data);
    let mut server = server();
    let page = SharedPage::new(0x10000).expect("memory");
    let event = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    let version = input.u8() & 15 != 0;
    let (end, _) = serve(&mut server, |socket| {
        socket.set_nonblocking(true).expect("a socket");
        if version {
            socket.send_with_fds(&[VERSION.as_slice()], &[]).expect("room");
        }
        send(socket, &mut input, page.file(), &event);
        socket.set_nonblocking(false).expect("a socket");
    });
    assert!(matches!(end, End::Closed | End::Protocol(_)), "{end}");
    let (_, answers) = serve(&mut server, |socket| {
        socket.send_with_fds(&[VERSION.as_slice(), READ_ID.as_slice()], &[]).expect("room");
    });
    assert!(answers.ends_with(&[0xf4, 0x1a, 0x42, 0x10]), "{answers:?}");
}
