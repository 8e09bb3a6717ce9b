//! Packets made by hand, by other code than reads them.

use paraslot_spec::net::{ether_type, protocol, tcp};

use crate::net::{Cut, Offload, PartialChecksum, Segmentation};

/// The network layer of a [`Packet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4 {
        /// Whence.
        source: [u8; 4],
        /// Where to.
        destination: [u8; 4],
        /// A multiple of 4 bytes, at most 40.
        options: Vec<u8>,
        /// Of this packet.
        identification: u16,
        /// Flags and fragment offset.
        flags_fragment: u16,
    },
    /// IPv6.
    V6 {
        /// Whence.
        source: [u8; 16],
        /// Where to.
        destination: [u8; 16],
        /// Extension headers: number and bytes, the first of which is filled in.
        extensions: Vec<(u8, Vec<u8>)>,
    },
}

/// The transport layer of a [`Packet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer4 {
    /// TCP.
    Tcp {
        /// The sequence number.
        sequence: u32,
        /// The flags.
        flags: u8,
        /// A multiple of 4 bytes, at most 40.
        options: Vec<u8>,
    },
    /// UDP.
    Udp,
}

/// A packet in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Tags: the type that announces it, and the tag control information.
    pub vlan: Vec<(u16, u16)>,
    /// The network layer.
    pub ip: Ip,
    /// The transport layer.
    pub layer4: Layer4,
    /// Source and destination.
    pub ports: (u16, u16),
    /// What it carries.
    pub payload: Vec<u8>,
}

/// The one's complement sum of big-endian words, an odd byte at the end padded.
pub fn plain_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    u16::try_from(sum).expect("folded")
}

impl Packet {
    fn new(ip: Ip, layer4: Layer4, payload: &[u8]) -> Self {
        Self { vlan: Vec::new(), ip, layer4, ports: (0x1234, 0x5678), payload: payload.to_vec() }
    }

    fn v4() -> Ip {
        Ip::V4 {
            source: [10, 1, 2, 3],
            destination: [10, 4, 5, 6],
            options: Vec::new(),
            identification: 0xfffe,
            flags_fragment: 1 << 14,
        }
    }

    fn v6() -> Ip {
        let (mut source, mut destination) = ([0xfd; 16], [0xfd; 16]);
        (source[15], destination[15]) = (1, 2);
        Ip::V6 { source, destination, extensions: Vec::new() }
    }

    fn tcp() -> Layer4 {
        Layer4::Tcp { sequence: 0xffff_ff00, flags: tcp::ACK, options: Vec::new() }
    }

    /// TCP over IPv4.
    pub fn tcp4(payload: &[u8]) -> Self {
        Self::new(Self::v4(), Self::tcp(), payload)
    }

    /// TCP over IPv6.
    pub fn tcp6(payload: &[u8]) -> Self {
        Self::new(Self::v6(), Self::tcp(), payload)
    }

    /// UDP over IPv4.
    pub fn udp4(payload: &[u8]) -> Self {
        Self::new(Self::v4(), Layer4::Udp, payload)
    }

    /// UDP over IPv6.
    pub fn udp6(payload: &[u8]) -> Self {
        Self::new(Self::v6(), Layer4::Udp, payload)
    }

    /// Where the network header is.
    pub fn network_offset(&self) -> usize {
        14 + 4 * self.vlan.len()
    }

    /// Where the transport header is.
    pub fn transport_offset(&self) -> usize {
        self.network_offset()
            + match &self.ip {
                Ip::V4 { options, .. } => 20 + options.len(),
                Ip::V6 { extensions, .. } => {
                    40 + extensions.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
                }
            }
    }

    /// Where the payload is.
    pub fn payload_offset(&self) -> usize {
        self.transport_offset()
            + match &self.layer4 {
                Layer4::Tcp { options, .. } => 20 + options.len(),
                Layer4::Udp => 8,
            }
    }

    fn protocol(&self) -> u8 {
        match self.layer4 {
            Layer4::Tcp { .. } => protocol::TCP,
            Layer4::Udp => protocol::UDP,
        }
    }

    /// Where the transport checksum is, and what is summed.
    pub fn partial_checksum(&self) -> PartialChecksum {
        let offset = match self.layer4 {
            Layer4::Tcp { .. } => 16,
            Layer4::Udp => 6,
        };
        let start = u16::try_from(self.transport_offset()).expect("near the front");
        PartialChecksum { start, offset }
    }

    /// The sum of the pseudo header. Of extension headers nothing is known here.
    pub fn pseudo_sum(&self) -> u16 {
        let len = self.payload_offset() - self.transport_offset() + self.payload.len();
        let mut bytes = match &self.ip {
            Ip::V4 { source, destination, .. } => [&source[..], destination].concat(),
            Ip::V6 { source, destination, .. } => [&source[..], destination].concat(),
        };
        bytes.extend(u32::try_from(len).expect("short").to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol()]);
        plain_sum(&bytes)
    }

    /// The frame, with its checksum still to be filled in.
    pub fn unfinished(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (kind, tci) in &self.vlan {
            frame.extend(kind.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        let word = |len: usize| u16::try_from(len).unwrap_or(0).to_be_bytes();
        let transport = self.payload_offset() - self.transport_offset() + self.payload.len();
        match &self.ip {
            Ip::V4 { source, destination, options, identification, flags_fragment } => {
                frame.extend(ether_type::IPV4.to_be_bytes());
                let words = u8::try_from(options.len() / 4).expect("short");
                let mut header = vec![0x45 + words, 0];
                header.extend(word(20 + options.len() + transport));
                header.extend(identification.to_be_bytes());
                header.extend(flags_fragment.to_be_bytes());
                header.extend([64, self.protocol(), 0, 0]);
                header.extend([&source[..], destination, options].concat());
                let checksum = !plain_sum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(header);
            }
            Ip::V6 { source, destination, extensions } => {
                frame.extend(ether_type::IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                let before = self.transport_offset() - self.network_offset() - 40;
                frame.extend(word(before + transport));
                let mut next = extensions.iter().map(|(number, _)| *number).collect::<Vec<_>>();
                next.push(self.protocol());
                frame.extend([next[0], 64]);
                frame.extend([&source[..], destination].concat());
                for ((_, bytes), next) in extensions.iter().zip(&next[1..]) {
                    frame.push(*next);
                    frame.extend(&bytes[1..]);
                }
            }
        }
        frame.extend(self.ports.0.to_be_bytes());
        frame.extend(self.ports.1.to_be_bytes());
        match &self.layer4 {
            Layer4::Tcp { sequence, flags, options } => {
                frame.extend(sequence.to_be_bytes());
                let words = u8::try_from(options.len() / 4).expect("short");
                frame.extend([0, 0, 0, 9, (5 + words) << 4, *flags, 0x10, 0]);
                frame.extend(self.pseudo_sum().to_be_bytes());
                frame.extend([0, 0]);
                frame.extend(options);
            }
            Layer4::Udp => {
                frame.extend(word(transport));
                frame.extend(self.pseudo_sum().to_be_bytes());
            }
        }
        frame.extend(&self.payload);
        frame
    }

    /// The frame, finished.
    pub fn finished(&self) -> Vec<u8> {
        let mut frame = self.unfinished();
        let start = self.transport_offset();
        let place = start + usize::from(self.partial_checksum().offset);
        let checksum = match !plain_sum(&frame[start..]) {
            0 => 0xffff,
            checksum => checksum,
        };
        frame[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    /// What is left to be done to [`unfinished`](Self::unfinished).
    pub fn checksum_offload(&self) -> Offload {
        Offload { checksum: Some(self.partial_checksum()), ..Offload::default() }
    }

    /// To be cut into pieces of `size` bytes of payload: TCP segments or UDP datagrams.
    pub fn cut_offload(&self, size: u16) -> Offload {
        let v4 = matches!(self.ip, Ip::V4 { .. });
        let (cut, ecn) = match self.layer4 {
            Layer4::Tcp { flags, .. } => {
                (if v4 { Cut::Tcp4 } else { Cut::Tcp6 }, flags & tcp::CWR != 0)
            }
            Layer4::Udp => (Cut::UdpDatagrams, false),
        };
        let header_len = u16::try_from(self.payload_offset()).expect("near the front");
        let segmentation = Some(Segmentation { cut, size, header_len, ecn });
        Offload { segmentation, ..self.checksum_offload() }
    }
}
