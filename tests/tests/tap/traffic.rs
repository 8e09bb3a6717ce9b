//! What guest and host say to each other.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, UdpSocket};
use std::sync::LazyLock;

use paraslot_drivers::Nic;
use smoltcp::iface::SocketSet;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, IpAddress};

use super::guest::{Guest, PATIENCE, Step};
use super::machine::{GUEST, HOST};

const MIB: usize = 1 << 20;
const PORT: u16 = 7000;

/// What the guest says.
static OUT: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(1));
/// What the host says.
static IN: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(2));

/// 1 MiB, another for each seed, in which no part is like one nearby.
fn bytes(seed: u32) -> Vec<u8> {
    let word = |index: u32| (index ^ seed << 24).wrapping_mul(2_654_435_761).rotate_left(15);
    (0..1 << 18).flat_map(|index| word(index).to_le_bytes()).collect()
}

/// The host's kernel answers echo requests of all sizes; before the first, it and the guest ask for
/// each other's hardware address.
pub(crate) fn echo_requests<N: Nic>(guest: &mut Guest<'_, N>) {
    const IDENTIFIER: u16 = 0x5ca1;
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 8192]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(IDENTIFIER)).unwrap();
    let handle = guest.add(socket);
    let checksums = ChecksumCapabilities::default();
    let (mut sequence, mut asked) = (0, false);
    guest.run("echo requests", |sockets| {
        let socket = sockets.get_mut::<icmp::Socket<'_>>(handle);
        if sequence == 30 {
            return Step::Done;
        }
        let data = &OUT[usize::from(sequence)..][..usize::from(sequence) * 49];
        if !asked {
            let request = Icmpv4Repr::EchoRequest { ident: IDENTIFIER, seq_no: sequence, data };
            let room = socket.send(request.buffer_len(), HOST.into()).unwrap();
            request.emit(&mut Icmpv4Packet::new_unchecked(room), &checksums);
            asked = true;
            return Step::Did;
        }
        let Ok((answer, from)) = socket.recv() else { return Step::Waits };
        assert_eq!(from, IpAddress::from(HOST));
        let answer = Icmpv4Packet::new_checked(answer).unwrap();
        let answer = Icmpv4Repr::parse(&answer, &checksums).unwrap();
        assert_eq!(answer, Icmpv4Repr::EchoReply { ident: IDENTIFIER, seq_no: sequence, data });
        (sequence, asked) = (sequence + 1, false);
        Step::Did
    });
}

/// The host's end of a connection: says and hears 1 MiB at once.
fn converse(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        scope.spawn(move || {
            writer.write_all(&IN).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).unwrap();
        assert_eq!(heard.len(), MIB);
        assert!(heard == *OUT, "the guest said something else");
    });
}

/// 1 MiB each way at once, over TCP.
pub(crate) fn connection<N: Nic>(guest: &mut Guest<'_, N>) {
    let listener = TcpListener::bind((HOST, PORT)).unwrap();
    std::thread::scope(|scope| {
        let host = scope.spawn(|| converse(&listener));
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        // Nobody would wake the guest for that.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        let handle = guest.add(socket);
        let (socket, stack) = guest.socket::<tcp::Socket<'_>>(handle);
        socket.connect(stack.context(), (IpAddress::from(HOST), PORT), 49152).unwrap();
        let (mut sent, mut heard) = (0, Vec::with_capacity(MIB));
        guest.run("a connection", |sockets| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
            let before = (sent, heard.len());
            if sent < MIB && socket.can_send() {
                sent += socket.send_slice(&OUT[sent..]).unwrap();
                if sent == MIB {
                    socket.close();
                }
            }
            while socket.can_recv() {
                socket.recv(|data| (data.len(), heard.extend_from_slice(data))).unwrap();
            }
            match socket.state() {
                // Both have said everything, and know that the other has heard it.
                tcp::State::TimeWait | tcp::State::Closed => Step::Done,
                _ if (sent, heard.len()) != before => Step::Did,
                _ => Step::Waits,
            }
        });
        assert_eq!(heard.len(), MIB);
        assert!(heard == *IN, "the host said something else");
        host.join().unwrap();
    });
}

/// Datagrams of a round, from as many sockets.
const ROUND: usize = 16;
/// Bytes of the largest.
const DATAGRAM: usize = 1472;

/// Sends the guest 1 MiB in datagrams, and has them back. Which of a round comes when is not said:
/// queues need not keep the order among themselves.
fn sound(sockets: &[UdpSocket]) {
    let (mut at, mut count) = (0, 0);
    while at < MIB {
        let mut round = Vec::new();
        for socket in sockets {
            let len = (DATAGRAM - count % 100).min(MIB - at);
            socket.send_to(&IN[at..at + len], (GUEST, PORT)).unwrap();
            round.push((socket, at, len));
            (at, count) = (at + len, count + 1);
        }
        for (socket, at, len) in round {
            let mut answer = [0; DATAGRAM + 1];
            let (count, from) = socket.recv_from(&mut answer).unwrap();
            assert_eq!(from, (GUEST, PORT).into());
            assert!(answer[..count] == IN[at..at + len], "the guest answered something else");
        }
    }
    for socket in sockets {
        socket.send_to(b"end", (GUEST, PORT)).unwrap();
    }
}

fn echo_datagrams(sockets: &mut SocketSet<'_>, handle: smoltcp::iface::SocketHandle) -> Step {
    let socket = sockets.get_mut::<udp::Socket<'_>>(handle);
    let mut step = Step::Waits;
    while socket.can_send()
        && let Ok((data, from)) = socket.recv()
    {
        if data == b"end" {
            return Step::Done;
        }
        let data = data.to_vec();
        socket.send_slice(&data, from).unwrap();
        step = Step::Did;
    }
    step
}

/// 1 MiB there and back, over UDP. The host speaks first.
pub(crate) fn datagrams<N: Nic>(guest: &mut Guest<'_, N>) {
    let sockets: Vec<_> = (0..ROUND)
        .map(|_| {
            let socket = UdpSocket::bind((HOST, 0)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        })
        .collect();
    std::thread::scope(|scope| {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; 128 << 10]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(PORT).unwrap();
        let handle = guest.add(socket);
        let host = scope.spawn(|| sound(&sockets));
        guest.run("datagrams", |sockets| echo_datagrams(sockets, handle));
        host.join().unwrap();
    });
}

/// Datagrams to the host, which has nobody for them, until `step` is done.
pub(crate) fn speak<N: Nic>(guest: &mut Guest<'_, N>, mut step: impl FnMut() -> Step) {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(PORT + 1).unwrap();
    let handle = guest.add(socket);
    guest.run("datagrams to nobody", |sockets| {
        let socket = sockets.get_mut::<udp::Socket<'_>>(handle);
        if socket.can_send() {
            socket.send_slice(b"anybody?", (IpAddress::from(HOST), PORT)).unwrap();
        }
        step()
    });
}

/// All of it.
pub(crate) fn everything<N: Nic>(guest: &mut Guest<'_, N>) {
    echo_requests(guest);
    connection(guest);
    datagrams(guest);
}
