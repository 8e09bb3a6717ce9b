//! Frames that are right, or nearly so, made from bytes.

use paraslot_backends::net::{Cut, Offload, PartialChecksum, Segmentation};
use paraslot_protocol::traffic::sum;
use paraslot_spec::net::{
    Ethernet, IPV6_VERSION, Ipv4, Ipv6, Tcp, Udp, VlanTag, ether_type, ipv4, protocol, tcp,
};
use zerocopy::IntoBytes;

use crate::fuzz::Input;
use crate::port::Carried;

/// What a frame is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Number of VLAN tags, at most 2.
    pub tags: usize,
    /// IPv6, rather than IPv4.
    pub v6: bool,
    /// TCP, rather than UDP.
    pub tcp: bool,
    /// Bytes of options of the IP header; for IPv6, of a destination options header. A multiple of 4
    /// up to 40, or of 8.
    pub options: usize,
    /// Bytes of options of a TCP header, a multiple of 4 up to 40.
    pub tcp_options: usize,
    /// Bytes of payload.
    pub payload: usize,
}

/// The stations that frames are between.
pub const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The other one.
pub const THERE: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Byte `index` of a payload.
pub fn payload_byte(index: usize) -> u8 {
    (index ^ (index >> 8)).to_le_bytes()[0] & 0x7f
}

impl Shape {
    /// Where the IP header is.
    pub fn network(&self) -> usize {
        size_of::<Ethernet>() + self.tags * size_of::<VlanTag>()
    }

    /// Where the TCP or UDP header is.
    pub fn transport(&self) -> usize {
        self.network() + self.options + if self.v6 { size_of::<Ipv6>() } else { size_of::<Ipv4>() }
    }

    /// Bytes of all headers.
    pub fn headers(&self) -> usize {
        let transport = match self.tcp {
            true => size_of::<Tcp>() + self.tcp_options,
            false => size_of::<Udp>(),
        };
        self.transport() + transport
    }

    /// Where the checksum is, from the transport header.
    pub fn checksum_offset(&self) -> u16 {
        if self.tcp { 16 } else { 6 }
    }

    /// What is left to be done if the checksum is.
    pub fn partial(&self) -> PartialChecksum {
        let start = u16::try_from(self.transport()).expect("small");
        PartialChecksum { start, offset: self.checksum_offset() }
    }

    /// The sum of the pseudo header of a packet with this much payload.
    fn pseudo(&self, bytes: &[u8]) -> u16 {
        let length = bytes.len() - self.transport();
        let protocol = if self.tcp { protocol::TCP } else { protocol::UDP };
        let at = self.network();
        let addresses = match self.v6 {
            true => &bytes[at + 8..at + 40],
            false => &bytes[at + 12..at + 20],
        };
        let length = u32::try_from(length).expect("a frame").to_be_bytes();
        sum(sum(sum(0, addresses), &length), &[0, protocol])
    }

    /// The frame, from [`THERE`] to [`HERE`], its payload of [`payload_byte`]s. With `partial` its
    /// transport checksum is left to be filled in.
    pub fn frame(&self, partial: bool) -> Vec<u8> {
        let ether = if self.v6 { ether_type::IPV6 } else { ether_type::IPV4 };
        let mut bytes = Vec::new();
        let types = [ether_type::SERVICE_VLAN, ether_type::VLAN];
        let types = &types[2 - self.tags..];
        let first = types.first().copied().unwrap_or(ether);
        let header = Ethernet { destination: HERE, source: THERE, ether_type: first.into() };
        bytes.extend_from_slice(header.as_bytes());
        for index in 0..self.tags {
            let next = types.get(index + 1).copied().unwrap_or(ether);
            let tag = VlanTag { tci: 5.into(), ether_type: next.into() };
            bytes.extend_from_slice(tag.as_bytes());
        }
        let rest = self.headers() - self.transport() + self.payload;
        let transport = if self.tcp { protocol::TCP } else { protocol::UDP };
        if self.v6 {
            let header = Ipv6 {
                version_class_flow: IPV6_VERSION.into(),
                payload_length: u16::try_from(rest + self.options).unwrap_or(0).into(),
                next_header: if self.options == 0 {
                    transport
                } else {
                    protocol::DESTINATION_OPTIONS
                },
                hop_limit: 64,
                source: [0xfd; 16],
                destination: [0xfe; 16],
            };
            bytes.extend_from_slice(header.as_bytes());
            if self.options != 0 {
                let mut extension = vec![0; self.options];
                extension[0] = transport;
                extension[1] = u8::try_from(self.options / 8 - 1).expect("small");
                // One option of padding.
                extension[2..4]
                    .copy_from_slice(&[1, u8::try_from(self.options - 4).expect("small")]);
                bytes.append(&mut extension);
            }
        } else {
            let words = u8::try_from(5 + self.options / 4).expect("small");
            let header = Ipv4 {
                version_ihl: 0x40 | words,
                total_length: u16::try_from(20 + self.options + rest).unwrap_or(0).into(),
                identification: 0x1234.into(),
                time_to_live: 64,
                protocol: transport,
                source: [192, 0, 2, 2],
                destination: [192, 0, 2, 1],
                ..Ipv4::default()
            };
            let at = bytes.len();
            bytes.extend_from_slice(header.as_bytes());
            bytes.resize(bytes.len() + self.options, ipv4::OPTION_NOP);
            let checksum = !sum(0, &bytes[at..]);
            bytes[at + 10..at + 12].copy_from_slice(&checksum.to_be_bytes());
        }
        if self.tcp {
            let words = u8::try_from(5 + self.tcp_options / 4).expect("small");
            let header = Tcp {
                source_port: 1000.into(),
                destination_port: 2000.into(),
                sequence: 0xffff_f000.into(),
                data_offset: words << 4,
                flags: tcp::ACK | tcp::PSH,
                window: 0xffff.into(),
                ..Tcp::default()
            };
            bytes.extend_from_slice(header.as_bytes());
            // No operation.
            bytes.resize(bytes.len() + self.tcp_options, 1);
        } else {
            let header = Udp {
                source_port: 1000.into(),
                destination_port: 2000.into(),
                length: u16::try_from(rest).unwrap_or(0).into(),
                ..Udp::default()
            };
            bytes.extend_from_slice(header.as_bytes());
        }
        bytes.extend((0..self.payload).map(payload_byte));
        let mut checksum = self.pseudo(&bytes);
        let at = self.transport() + usize::from(self.checksum_offset());
        if !partial {
            checksum = match !sum(checksum, &bytes[self.transport()..]) {
                0 if !self.tcp => 0xffff,
                other => other,
            };
        }
        bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }

    /// Whether the transport checksum of a frame of this shape is right, as its receiver sees it.
    pub fn verifies(&self, bytes: &[u8]) -> bool {
        sum(self.pseudo(bytes), &bytes[self.transport()..]) == 0xffff
    }

    /// Anything.
    pub fn any(input: &mut Input<'_>, most: usize) -> Self {
        let [bits, options, more] = input.bytes();
        let v6 = bits & 1 != 0;
        let payload = match bits >> 6 {
            0 => usize::from(more),
            1 => usize::from(input.u16()),
            2 => 1400 + usize::from(more),
            _ => 0,
        };
        Self {
            tags: usize::from(bits >> 2 & 3).saturating_sub(1),
            v6,
            tcp: bits & 2 != 0,
            options: match options & 3 {
                0 if v6 => usize::from(options >> 2 & 7) * 8,
                0 => usize::from(options >> 2 & 7) * 4,
                _ => 0,
            },
            tcp_options: if bits & 0x10 != 0 { usize::from(options >> 5) * 4 } else { 0 },
            payload: payload.min(most),
        }
    }

    /// How it is cut, with so much payload in each; UDP into fragments or datagrams, as the size is
    /// even or odd.
    pub fn segmentation(&self, size: u16) -> Segmentation {
        let cut = match (self.tcp, self.v6) {
            (true, false) => Cut::Tcp4,
            (true, true) => Cut::Tcp6,
            (false, _) if size.is_multiple_of(2) => Cut::UdpFragments,
            (false, _) => Cut::UdpDatagrams,
        };
        let header_len = u16::try_from(self.headers()).expect("small");
        Segmentation { cut, size, header_len, ecn: false }
    }
}

/// Offloads of any kind, for the most part in vain.
pub fn any_offload(input: &mut Input<'_>) -> Offload {
    let bits = input.u8();
    let cut = [Cut::Tcp4, Cut::Tcp6, Cut::UdpFragments, Cut::UdpDatagrams];
    Offload {
        checksum: (bits & 1 != 0)
            .then(|| PartialChecksum { start: small(input), offset: small(input) }),
        segmentation: (bits & 2 != 0).then(|| Segmentation {
            cut: cut[usize::from(bits >> 2 & 3)],
            size: small(input),
            header_len: small(input),
            ecn: bits & 0x10 != 0,
        }),
        checksum_valid: bits & 0x20 != 0,
    }
}

/// A number that is small more often than not.
fn small(input: &mut Input<'_>) -> u16 {
    let wide = input.u16();
    if wide & 0x300 == 0 { wide } else { wide & 0xff }
}

/// A frame with offloads: right but for what the input makes wrong. At most `most` bytes of payload.
pub fn any_frame(input: &mut Input<'_>, most: usize) -> Carried {
    let choice = input.u8();
    if choice & 0x1f == 0 {
        let len = usize::from(input.u16()).min(most);
        let mut bytes = input.slice(len).to_vec();
        bytes.resize(len, choice);
        let offload = any_offload(input);
        return Carried { bytes, offload };
    }
    let shape = Shape::any(input, most);
    let partial = choice & 0x20 != 0;
    let mut frame = Carried { bytes: shape.frame(partial), offload: Offload::default() };
    if partial {
        frame.offload.checksum = Some(shape.partial());
        if choice & 0x40 != 0 {
            frame.offload.segmentation = Some(shape.segmentation(small(input).max(1)));
        }
    } else {
        frame.offload.checksum_valid = choice & 0x40 != 0;
    }
    // Half of them are spoiled somewhere in their headers; a few are cut short, or told lies about.
    if choice & 0x80 != 0 {
        for _ in 0..1 + input.u8() % 3 {
            let at = usize::from(input.u8()) % shape.headers().max(1);
            let value = input.u8();
            if let Some(byte) = frame.bytes.get_mut(at) {
                *byte = value;
            }
        }
        match input.u8() & 0xf {
            0 => frame.bytes.truncate(usize::from(input.u8())),
            1 => frame.offload = any_offload(input),
            2 => frame.bytes.resize(frame.bytes.len() + usize::from(input.u8()), 0),
            _ => {}
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_verify_and_partial_ones_do_when_they_are_filled_in() {
        for bits in 0..16usize {
            let shape = Shape {
                tags: bits % 3,
                v6: bits & 1 != 0,
                tcp: bits & 2 != 0,
                options: if bits & 4 != 0 { 16 } else { 0 },
                tcp_options: if bits & 8 != 0 { 12 } else { 0 },
                payload: 100 + bits,
            };
            let whole = shape.frame(false);
            assert_eq!(whole.len(), shape.headers() + shape.payload);
            assert!(shape.verifies(&whole), "{shape:?}");
            let mut partial = shape.frame(true);
            let PartialChecksum { start, offset } = shape.partial();
            let at = usize::from(start + offset);
            let checksum = !sum(0, &partial[start.into()..]);
            partial[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
            assert_eq!(partial, whole, "{shape:?}");
        }
    }
}
