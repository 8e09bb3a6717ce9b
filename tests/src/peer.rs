//! What a test and a program in its guest say to each other over a network: streams and datagrams
//! whose every byte both can tell.
//!
//! The guest's side is the program `peer`. The test is always the one that is called, and says on each
//! connection what is to go over it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

/// Bytes that are sent by one call.
const CHUNK: usize = 64 << 10;
/// Bytes that chunks are taken from.
const NOISE: usize = 256 << 10;
/// Longest wait for the other end: longer than a driver's watchdog, TCP's patience included.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Largest datagram's contents over IPv4.
pub const DATAGRAM: usize = 65_507;
/// What the guest says at the end of a stream that was right.
const RIGHT: u8 = 0xa5;
/// Datagrams from the guest are told from those to it by this bit of their number.
const FROM_GUEST: u64 = 1 << 63;

/// Contents that are nothing like themselves shifted: what is lost, doubled, out of place, or of
/// another stream shows.
#[derive(Debug)]
pub struct Pattern(Vec<u8>);

/// The mixing function of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

impl Default for Pattern {
    fn default() -> Self {
        let words = u64::try_from((NOISE + CHUNK) / 8).expect("a number");
        Self((0..words).flat_map(|word| mix(word).to_le_bytes()).collect())
    }
}

impl Pattern {
    /// Chunk `index` of stream `stream`, of 64 KiB. The choice of a place in the noise tells them apart.
    fn chunk(&self, stream: u64, index: u64) -> &[u8] {
        let place = mix(mix(stream) ^ index) % u64::try_from(NOISE).expect("a number");
        let place = usize::try_from(place).expect("inside the noise");
        &self.0[place..place + CHUNK]
    }

    /// Contents of datagram `number`.
    fn datagram(&self, number: u64, len: usize) -> &[u8] {
        &self.chunk(u64::MAX, number)[..len]
    }

    /// Sends the first `bytes` of a stream.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn send(&self, socket: &mut impl Write, stream: u64, bytes: u64) -> io::Result<()> {
        let mut left = bytes;
        let mut index = 0;
        while left > 0 {
            let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            socket.write_all(&self.chunk(stream, index)[..len])?;
            left -= len as u64;
            index += 1;
        }
        Ok(())
    }

    /// Receives the first `bytes` of a stream.
    ///
    /// # Errors
    /// Those of the socket, and where the contents first differ.
    pub fn receive(&self, socket: &mut impl Read, stream: u64, bytes: u64) -> io::Result<()> {
        let mut room = vec![0; 4 * CHUNK];
        let chunk_len = CHUNK as u64;
        let mut at = 0;
        while at < bytes {
            let wanted = usize::try_from(bytes - at).unwrap_or(room.len()).min(room.len());
            let len = socket.read(&mut room[..wanted])?;
            if len == 0 {
                return Err(io::Error::other(format!("it ends after {at} of {bytes} bytes")));
            }
            let mut got = &room[..len];
            while !got.is_empty() {
                let skip = usize::try_from(at % chunk_len).expect("inside a chunk");
                let chunk = &self.chunk(stream, at / chunk_len)[skip..];
                let (now, rest) = got.split_at(got.len().min(chunk.len()));
                if *now != chunk[..now.len()] {
                    let same = now.iter().zip(chunk).take_while(|(a, b)| a == b).count();
                    let at = at + same as u64;
                    return Err(io::Error::other(format!("byte {at} of {bytes} is wrong")));
                }
                at += now.len() as u64;
                got = rest;
            }
        }
        Ok(())
    }
}

/// What is to go over a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Which stream, one way; the other way it is the next.
    pub stream: u64,
    /// Bytes to the guest.
    pub down: u64,
    /// Bytes from the guest.
    pub up: u64,
}

fn patient(socket: &TcpStream) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))
}

impl Exchange {
    /// The test's side.
    ///
    /// # Errors
    /// Those of the socket, and what was wrong with what came.
    pub fn serve(self, pattern: &Pattern, socket: &TcpStream) -> io::Result<()> {
        patient(socket)?;
        let Self { stream, down, up } = self;
        let words = [stream, down, up].map(u64::to_le_bytes);
        let (mut reader, mut writer) = (socket, socket);
        writer.write_all(words.as_flattened())?;
        both(
            || pattern.send(&mut writer, stream, down),
            || pattern.receive(&mut reader, stream.wrapping_add(1), up),
        )?;
        // Only now is it due: each wait is to be for something that the other end is about to do.
        let mut verdict = [0];
        reader.read_exact(&mut verdict)?;
        if verdict == [RIGHT] { Ok(()) } else { Err(io::Error::other("no verdict")) }
    }

    /// The guest's side: as the test says.
    fn join(pattern: &Pattern, socket: &TcpStream) -> io::Result<()> {
        patient(socket)?;
        let (mut reader, mut writer) = (socket, socket);
        let mut words = [[0; 8]; 3];
        reader.read_exact(words.as_flattened_mut())?;
        let [stream, down, up] = words.map(u64::from_le_bytes);
        both(
            || pattern.send(&mut writer, stream.wrapping_add(1), up),
            || pattern.receive(&mut reader, stream, down),
        )?;
        writer.write_all(&[RIGHT])
    }
}

/// Does two things at once.
fn both(
    send: impl FnOnce() -> io::Result<()> + Send,
    receive: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    thread::scope(|scope| {
        let sending = scope.spawn(send);
        let received = receive();
        let sent = sending.join().expect("no panic");
        received.and(sent)
    })
}

/// The guest's side of `count` connections at once.
///
/// # Errors
/// Of the first that was not right.
pub fn join_streams(test: SocketAddr, count: usize) -> io::Result<()> {
    let pattern = Pattern::default();
    let one = || Exchange::join(&pattern, &TcpStream::connect_timeout(&test, PATIENCE)?);
    thread::scope(|scope| {
        let streams: Vec<_> = (0..count).map(|_| scope.spawn(one)).collect();
        streams.into_iter().try_for_each(|stream| stream.join().expect("no panic"))
    })
}

/// Lengths of the datagrams that are tried: all that fit a packet of an Ethernet's MTU, and around each
/// length at which there is one fragment more.
fn lengths() -> impl Iterator<Item = usize> {
    const PACKET: usize = 1500;
    const FRAGMENT: usize = 1480;
    const HEADER: usize = 8;
    let edges = (2..=DATAGRAM / FRAGMENT).map(|count| count * FRAGMENT - HEADER);
    let around = edges.flat_map(|edge| [edge - 1, edge, edge + 1]);
    let longer = around.filter(|len| (PACKET + 1..DATAGRAM).contains(len));
    (1..=PACKET).chain(longer).chain([DATAGRAM])
}

/// Datagrams that are under way at once, so that no socket's buffer is too small for them.
fn window(len: usize) -> usize {
    if len < 3000 { 16 } else { 1 }
}

/// Both sides' exchange of datagrams: groups of them go to the guest, and as many come back.
fn datagrams(mut group: impl FnMut(&[(u64, usize)]) -> io::Result<()>) -> io::Result<u64> {
    let all: Vec<_> = (0..).zip(lengths()).collect();
    let mut rest = &all[..];
    while let Some((_, len)) = rest.first() {
        let (now, later) = rest.split_at(window(*len).min(rest.len()));
        group(now)?;
        rest = later;
    }
    Ok(all.len() as u64)
}

fn receive_datagram(
    pattern: &Pattern,
    socket: &UdpSocket,
    room: &mut [u8],
    number: u64,
    len: usize,
) -> io::Result<()> {
    let failed = |what: &dyn std::fmt::Display| {
        io::Error::other(format!("datagram {:x} of {len} bytes: {what}", number))
    };
    let got = socket.recv(room).map_err(|error| failed(&error))?;
    if room[..got] == *pattern.datagram(number, len) {
        Ok(())
    } else {
        Err(failed(&format!("{got} bytes came, or their contents are wrong")))
    }
}

/// The test's side of datagrams of many lengths each way, of which none may be lost; returns how many.
///
/// # Errors
/// Those of the socket, and what was wrong.
pub fn serve_datagrams(pattern: &Pattern, socket: &UdpSocket) -> io::Result<u64> {
    let mut room = vec![0; DATAGRAM + 1];
    socket.set_read_timeout(Some(PATIENCE))?;
    let (_, guest) = socket.recv_from(&mut room)?;
    socket.connect(guest)?;
    datagrams(|group| {
        for &(number, len) in group {
            socket.send(pattern.datagram(number, len))?;
        }
        group.iter().try_for_each(|&(number, len)| {
            receive_datagram(pattern, socket, &mut room, number | FROM_GUEST, len)
        })
    })
}

/// The guest's side of [`serve_datagrams`].
///
/// # Errors
/// Those of the socket, and what was wrong.
pub fn join_datagrams(test: SocketAddr) -> io::Result<()> {
    let pattern = Pattern::default();
    let any = if test.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(test)?;
    socket.send(&[])?;
    let mut room = vec![0; DATAGRAM + 1];
    datagrams(|group| {
        for &(number, len) in group {
            receive_datagram(&pattern, &socket, &mut room, number, len)?;
        }
        group.iter().try_for_each(|&(number, len)| {
            socket.send(pattern.datagram(number | FROM_GUEST, len)).map(drop)
        })
    })
    .map(drop)
}

/// Sends datagrams for as long as `more` says so, whatever becomes of them; returns how many were taken.
/// No more than that both ends have time for something else.
///
/// # Errors
/// When there is no socket.
pub fn flood(to: SocketAddr, mut more: impl FnMut() -> bool) -> io::Result<u64> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    let contents = [0x5a; 1400];
    let mut sent = 0;
    while more() {
        for len in [1400, 1, 600, 18] {
            // The interface may be down or gone, or its queue full.
            sent += u64::from(socket.send_to(&contents[..len], to).is_ok());
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(sent)
}
