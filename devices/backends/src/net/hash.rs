//! Toeplitz hashes of flows, for receive-side scaling.
//!
//! Which fields of a packet are hashed follows VIRTIO 1.4, 5.1.9.4.3; other devices with fewer types
//! use a subset of them.

use super::parse::{Addresses, Headers, TransportKind};

#[cfg(test)]
mod tests;

bitflags::bitflags! {
    /// Kinds of packets that are hashed, and over what. The values are those of virtio's hash types
    /// (5.1.9.4.3.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct HashTypes: u32 {
        /// IPv4: addresses.
        const IPV4 = 1 << 0;
        /// TCP over IPv4: addresses and ports.
        const TCP_V4 = 1 << 1;
        /// UDP over IPv4: addresses and ports.
        const UDP_V4 = 1 << 2;
        /// IPv6: addresses.
        const IPV6 = 1 << 3;
        /// TCP over IPv6: addresses and ports.
        const TCP_V6 = 1 << 4;
        /// UDP over IPv6: addresses and ports.
        const UDP_V6 = 1 << 5;
        /// IPv6 with extension headers: addresses that they may hold.
        const IPV6_EX = 1 << 6;
        /// TCP over IPv6 with extension headers, likewise, and ports.
        const TCP_V6_EX = 1 << 7;
        /// UDP over IPv6 with extension headers, likewise, and ports.
        const UDP_V6_EX = 1 << 8;
    }
}

/// What was hashed. The values are those of virtio's hash report (5.1.9.4.4); 0 is for a packet that
/// was not hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "as in `HashTypes`")]
pub enum HashKind {
    Ipv4 = 1,
    TcpV4 = 2,
    UdpV4 = 3,
    Ipv6 = 4,
    TcpV6 = 5,
    UdpV6 = 6,
    Ipv6Ex = 7,
    TcpV6Ex = 8,
    UdpV6Ex = 9,
}

/// Most bytes that are hashed: two IPv6 addresses and two ports.
pub const MAX_INPUT: usize = 36;
/// Bytes of a key that have a say in a hash of so much.
pub const KEY: usize = MAX_INPUT + 4;

/// The fields of a packet that are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashInput {
    /// What they are.
    pub kind: HashKind,
    bytes: [u8; MAX_INPUT],
    len: usize,
}

impl HashInput {
    /// The fields, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    /// What is hashed of a packet when the hash types `enabled` are; `None` if it is not hashed.
    ///
    /// Fragments have no ports here, so that all of a packet's have one hash.
    pub fn select(headers: &Headers, enabled: HashTypes) -> Option<Self> {
        let network = headers.network.as_ref()?;
        let transport = headers.transport.as_ref();
        let is = |kind| transport.is_some_and(|transport| transport.kind == kind);
        let (tcp, udp) = (is(TransportKind::Tcp), is(TransportKind::Udp));
        let first = |choices: [(bool, HashTypes, HashKind); 3]| {
            let mut choices = choices.into_iter();
            choices.find(|(there, kind, _)| *there && enabled.contains(*kind)).map(|c| c.2)
        };
        let basic = match network.addresses {
            Addresses::V4 { .. } => first([
                (tcp, HashTypes::TCP_V4, HashKind::TcpV4),
                (udp, HashTypes::UDP_V4, HashKind::UdpV4),
                (true, HashTypes::IPV4, HashKind::Ipv4),
            ]),
            Addresses::V6 { .. } => first([
                (tcp, HashTypes::TCP_V6, HashKind::TcpV6),
                (udp, HashTypes::UDP_V6, HashKind::UdpV6),
                (true, HashTypes::IPV6, HashKind::Ipv6),
            ]),
        };
        // With extension headers (5.1.9.4.3.4) these go first; without any they do not count.
        let extended = network.extensions.present.then(|| {
            first([
                (tcp, HashTypes::TCP_V6_EX, HashKind::TcpV6Ex),
                (udp, HashTypes::UDP_V6_EX, HashKind::UdpV6Ex),
                (true, HashTypes::IPV6_EX, HashKind::Ipv6Ex),
            ])
        });
        let extended = extended.flatten();
        let kind = extended.or(basic)?;
        let mut input = Self { kind, bytes: [0; MAX_INPUT], len: 0 };
        match network.addresses {
            Addresses::V4 { source, destination } => {
                input.append(&source);
                input.append(&destination);
            }
            Addresses::V6 { source, destination } => {
                let extensions = extended.map_or_else(Default::default, |_| network.extensions);
                input.append(&extensions.home_address.unwrap_or(source));
                input.append(&extensions.routing_address.unwrap_or(destination));
            }
        }
        let with_ports = !matches!(kind, HashKind::Ipv4 | HashKind::Ipv6 | HashKind::Ipv6Ex);
        if let Some(transport) = transport.filter(|_| with_ports) {
            input.append(&transport.source_port.to_be_bytes());
            input.append(&transport.destination_port.to_be_bytes());
        }
        Some(input)
    }
}

/// A key, made ready: for each half byte of input, what each of its values contributes. 4.5 KiB.
#[derive(Clone)]
pub struct Toeplitz(Box<[[u32; 16]; 2 * MAX_INPUT]>);

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}

impl Toeplitz {
    /// Makes `key` ready. A key shorter than [`KEY`] bytes goes on with zeroes; what is longer has no
    /// say.
    pub fn new(key: &[u8]) -> Self {
        let mut bytes = [0; KEY];
        let len = key.len().min(KEY);
        bytes[..len].copy_from_slice(&key[..len]);
        let mut table = Box::new([[0; 16]; 2 * MAX_INPUT]);
        for (half, values) in table.iter_mut().enumerate() {
            // The 40 bits of the key at this byte hold the 32 that belong to each of its bits.
            let mut window = [0; 8];
            window[3..].copy_from_slice(&bytes[half / 2..half / 2 + 5]);
            let window = u64::from_be_bytes(window);
            for (value, hash) in values.iter_mut().enumerate() {
                for bit in (0..4).filter(|bit| value >> (3 - bit) & 1 == 1) {
                    let shifted = window >> (8 - (half % 2 * 4 + bit));
                    *hash ^= u32::try_from(shifted & 0xffff_ffff).unwrap_or(0);
                }
            }
        }
        Self(table)
    }

    /// The hash of `input`, of which no more than [`MAX_INPUT`] bytes count.
    pub fn hash(&self, input: &[u8]) -> u32 {
        let (pairs, _) = self.0.as_chunks::<2>();
        input.iter().zip(pairs).fold(0, |hash, (byte, [high, low])| {
            hash ^ high[usize::from(byte >> 4)] ^ low[usize::from(byte & 0xf)]
        })
    }

    /// The hash of a packet, and what was hashed; `None` if `enabled` has nothing for it.
    pub fn hash_packet(&self, headers: &Headers, enabled: HashTypes) -> Option<(u32, HashKind)> {
        let input = HashInput::select(headers, enabled)?;
        Some((self.hash(input.bytes()), input.kind))
    }
}
