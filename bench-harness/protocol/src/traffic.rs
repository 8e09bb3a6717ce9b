//! The frames that network jobs are made of.
//!
//! Up to 1514 bytes they are UDP over IPv4, above that TCP over IPv4, to be segmented. The payload
//! begins with the frame's number and a time stamp of its sender's, 64 bits each, little-endian. The
//! rest is a pattern of the number: word `i` (64 bits, little-endian, from the payload's start, the
//! last one cut off) is [`pattern_base`]`(number, 0)` plus `i` times [`PATTERN_STEP`], wrapping.
//! Without verification the pattern, and UDP's checksum, are zero.
//!
//! [`pattern_base`]: crate::pattern_base
//! [`PATTERN_STEP`]: crate::PATTERN_STEP

/// Fewest bytes of a frame: its headers, the number, the time stamp, and some of the pattern.
pub const MIN_FRAME: u32 = 64;
/// Most bytes of a frame.
pub const MAX_FRAME: u32 = 65536;
/// Most bytes of a frame that is not to be segmented.
pub const MAX_UNSEGMENTED: u32 = 1514;
/// Bytes of TCP payload in each segment.
pub const SEGMENT_SIZE: u16 = 1460;
/// Bytes of Ethernet, IPv4 and UDP headers.
pub const UDP_HEADERS: usize = 14 + 20 + 8;
/// Bytes of Ethernet, IPv4 and TCP headers.
pub const TCP_HEADERS: usize = 14 + 20 + 20;
/// Where the IP header begins.
pub const IP: usize = 14;
/// Where the UDP or TCP header begins.
pub const TRANSPORT: usize = 34;
/// The frame's number, from the payload's start.
pub const NUMBER: usize = 0;
/// The time stamp, from the payload's start.
pub const STAMP: usize = 8;
/// The pattern, from the payload's start.
pub const PATTERN: usize = 16;

const UDP: u8 = 17;
const TCP: u8 = 6;
/// Ports; the discard protocol's, which nothing answers.
const PORT: u16 = 9;

/// Whether a frame of this many bytes is to be segmented.
pub const fn is_segmented(frame_size: u32) -> bool {
    frame_size > MAX_UNSEGMENTED
}

/// Bytes of headers of a frame of this many bytes.
pub const fn header_len(frame_size: u32) -> usize {
    if is_segmented(frame_size) { TCP_HEADERS } else { UDP_HEADERS }
}

/// Who sends to whom. The addresses in the network for documentation (192.0.2.0/24) are made of the
/// last byte of each hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Hardware address of the sender.
    pub source: [u8; 6],
    /// Of the receiver.
    pub destination: [u8; 6],
}

impl Flow {
    /// The headers of a frame of `frame_size` bytes, [`header_len`] of them; the rest of the array is
    /// zero. Its transport checksum is that of the pseudo header alone, to be completed over
    /// everything from [`TRANSPORT`] on.
    ///
    /// `frame_size` is [`MIN_FRAME`] to [`MAX_FRAME`].
    pub fn headers(&self, frame_size: u32) -> [u8; TCP_HEADERS] {
        let mut headers = [0; TCP_HEADERS];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(place) = headers.get_mut(at..at + bytes.len()) {
                place.copy_from_slice(bytes);
            }
        };
        put(0, &self.destination);
        put(6, &self.source);
        put(12, &0x0800u16.to_be_bytes());
        // At most 65522 by the frame's limit.
        let total = u16::try_from(frame_size.saturating_sub(14)).unwrap_or(u16::MAX);
        let length = total.saturating_sub(20);
        let protocol = if is_segmented(frame_size) { TCP } else { UDP };
        let [source, destination] = [self.source, self.destination].map(|mac| [192, 0, 2, mac[5]]);
        let mut ip = [0; 20];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&total.to_be_bytes());
        ip[6] = 0x40; // may not be fragmented
        ip[8] = 64;
        ip[9] = protocol;
        ip[12..16].copy_from_slice(&source);
        ip[16..20].copy_from_slice(&destination);
        let checksum = !sum(0, &ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        put(IP, &ip);
        let pseudo = sum(sum(sum(0, &[0, protocol]), &length.to_be_bytes()), &ip[12..20]);
        put(TRANSPORT, &PORT.to_be_bytes());
        put(TRANSPORT + 2, &PORT.to_be_bytes());
        if is_segmented(frame_size) {
            put(TRANSPORT + 12, &[0x50, 0x10]); // five words of header; ACK
            put(TRANSPORT + 14, &u16::MAX.to_be_bytes());
        } else {
            put(TRANSPORT + 4, &length.to_be_bytes());
        }
        put(TRANSPORT + checksum_offset(frame_size), &pseudo.to_be_bytes());
        headers
    }
}

/// Where a frame's transport checksum is, from [`TRANSPORT`].
pub const fn checksum_offset(frame_size: u32) -> usize {
    if is_segmented(frame_size) { 16 } else { 6 }
}

/// The one's complement sum of big-endian 16-bit words (RFC 1071), carried on from `start`; an odd
/// byte at the end counts as a word's first.
pub fn sum(start: u16, bytes: &[u8]) -> u16 {
    let mut sum = u64::from(start);
    let mut pairs = bytes.chunks_exact(2);
    for pair in pairs.by_ref() {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        sum += u64::from(*last) << 8;
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: Flow = Flow { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };

    #[test]
    fn the_ip_header_sums_to_nothing() {
        for size in [64, 1514, 1515, 65536] {
            assert_eq!(sum(0, &FLOW.headers(size)[IP..TRANSPORT]), 0xffff, "{size}");
        }
    }

    #[test]
    fn lengths_are_of_what_follows() {
        let headers = FLOW.headers(64);
        assert_eq!(headers[16..18], [0, 50]);
        assert_eq!(headers[38..40], [0, 30]);
        assert_eq!(headers[UDP_HEADERS..], [0; 12]);
        let headers = FLOW.headers(65536);
        assert_eq!(headers[16..18], 65522u16.to_be_bytes());
        assert_eq!(headers[23], 6);
    }

    // The example of RFC 1071, 3.
    #[test]
    fn sums_are_those_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(sum(0, &bytes), 0xddf2);
        assert_eq!(sum(sum(0, &bytes[..4]), &bytes[4..]), 0xddf2);
        assert_eq!(sum(0, &[1]), 0x100);
    }
}
