//! Internet checksums (RFC 1071): 16-bit one's complement sums.

use paraslot_device::DmaBuffers;
use paraslot_spec::net::{Ipv4, UDP_CHECKSUM, protocol, tcp};
use vm_memory::VolatileSlice;

use super::parse::{Addresses, Headers, Network, Transport, TransportKind};
use super::{NetError, PartialChecksum};

#[cfg(test)]
mod tests;

/// A sum being made. What is added follows on what was added before, at odd places too.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// The sum of words in the order of the host's memory (RFC 1071, 2 (B)), not folded.
    words: u64,
    /// An odd number of bytes so far: the next is the second of a word.
    odd: bool,
}

/// Sums `bytes` as if they began a word. Far from overflowing for any length that there is.
fn sum_words(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut sum = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum::<u64>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    sum += u64::from(u32::from_ne_bytes(last));
    sum
}

/// Folds the carries in.
fn fold(sum: u64) -> u16 {
    // At most 0x1_ffff_fffe; then 0x1_fffe, for not all of its bits are set; then 0xffff.
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + ((sum >> 16) & 0xffff) + (sum & 0xffff);
    let [low, high, ..] = ((sum >> 16) + (sum & 0xffff)).to_le_bytes();
    u16::from_le_bytes([low, high])
}

impl Sum {
    /// The sum of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Self::new();
        sum.add(bytes);
        sum
    }

    /// The sum of the pseudo header of a transport packet of `len` bytes, header included (RFC 9293,
    /// 3.1; RFC 8200, 8.1).
    pub fn pseudo_header(addresses: &Addresses, protocol: u8, len: usize) -> Self {
        let mut sum = match addresses {
            Addresses::V4 { source, destination } => {
                let mut sum = Self::of(source);
                sum.add(destination);
                sum
            }
            Addresses::V6 { source, destination } => {
                let mut sum = Self::of(source);
                sum.add(destination);
                sum
            }
        };
        sum.add(&u64::try_from(len).unwrap_or(u64::MAX).to_be_bytes());
        sum.add(&[0, protocol]);
        sum
    }

    fn merge(&mut self, words: u64, len: usize) {
        // At an odd place every byte is in the other half of its word: folded, that is a swap
        // (RFC 1071, 2 (B)).
        let words = if self.odd { u64::from(fold(words).swap_bytes()) } else { words };
        // One's complement: the carry out comes back in.
        let (sum, carry) = self.words.overflowing_add(words);
        self.words = sum + u64::from(carry);
        self.odd ^= len % 2 == 1;
    }

    /// Adds `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        self.merge(sum_words(bytes), bytes.len());
    }

    /// Adds what `slice` holds, each byte read once.
    pub fn add_slice(&mut self, slice: &VolatileSlice<'_>) {
        let mut piece = [0; 512];
        let mut done = 0;
        while let Ok(rest) = slice.offset(done) {
            let count = rest.copy_to(&mut piece[..]);
            if count == 0 {
                break;
            }
            self.add(&piece[..count]);
            done += count;
        }
    }

    /// Adds what `buffers` hold from byte `from` on, each byte read once.
    pub fn add_buffers(&mut self, buffers: &DmaBuffers, from: usize) {
        let mut skip = from;
        for slice in buffers.slices() {
            match slice.offset(skip) {
                Ok(rest) => {
                    self.add_slice(&rest);
                    skip = 0;
                }
                Err(_) => skip -= slice.len(),
            }
        }
    }

    /// The sum, folded, as it is in memory.
    pub fn bytes(self) -> [u8; 2] {
        fold(self.words).to_ne_bytes()
    }

    /// The checksum: the sum's complement, as it is in memory.
    pub fn checksum(self) -> [u8; 2] {
        (!fold(self.words)).to_ne_bytes()
    }

    /// The checksum as TCP and UDP have it: 0xffff for 0, which is the same number in one's complement,
    /// and which in UDP says that there is a checksum (RFC 768).
    pub fn transport_checksum(self) -> [u8; 2] {
        match self.checksum() {
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        }
    }

    /// Whether it is the sum of bytes with a right checksum in them.
    pub fn is_right(self) -> bool {
        fold(self.words) == 0xffff
    }
}

impl PartialChecksum {
    /// Where the checksum is, from the start of the frame, if that lies inside a frame of `len` bytes
    /// and there is something to sum.
    pub fn place(&self, len: usize) -> Option<usize> {
        let place = usize::from(self.start) + usize::from(self.offset);
        (place + 2 <= len).then_some(place)
    }
}

/// Fills a checksum in. `frame` is all of the frame.
///
/// # Errors
/// [`NetError::Invalid`] when it would not be inside the frame.
pub fn fill(frame: &mut [u8], partial: PartialChecksum) -> Result<(), NetError> {
    let place = partial.place(frame.len()).ok_or(NetError::Invalid)?;
    let sum = frame.get(partial.start.into()..).map(Sum::of).ok_or(NetError::Invalid)?;
    let field = frame.get_mut(place..place + 2).ok_or(NetError::Invalid)?;
    field.copy_from_slice(&sum.transport_checksum());
    Ok(())
}

/// Whether the header checksum of the IPv4 packet in `frame` is right. `None` if it is none, or the
/// header is not all there.
pub fn verify_ipv4(frame: &[u8], headers: &Headers) -> Option<bool> {
    let network = headers.network.filter(|network| !network.is_v6())?;
    frame.get(network.offset..network.payload).map(|header| Sum::of(header).is_right())
}

/// Whether the TCP or UDP checksum of the packet in `frame` is right. `None` if it is neither, has no
/// checksum, or is not all there. `frame` is all of the frame, `headers` its own.
pub fn verify_transport(frame: &[u8], headers: &Headers) -> Option<bool> {
    let (network, transport) = headers.network.zip(headers.transport)?;
    let end = network.offset + network.length?;
    let packet = frame.get(transport.offset..end)?;
    let len = match transport.kind {
        TransportKind::Tcp => packet.len(),
        TransportKind::Udp => {
            let [length, checksum] = [4, UDP_CHECKSUM].map(|offset| {
                let field = packet.get(offset..offset + 2)?;
                field.try_into().ok().map(u16::from_be_bytes)
            });
            if checksum? == 0 {
                return None;
            }
            // A datagram may be shorter than its packet.
            usize::from(length?)
        }
    };
    let packet = packet.get(..len).filter(|_| len >= transport.header_len)?;
    let mut sum = Sum::pseudo_header(&network.ends()?, network.protocol, len);
    sum.add(packet);
    Some(sum.is_right())
}

impl Transport {
    /// The checksum of this header, as something still to be filled in. `None` for offsets that do not
    /// fit the field.
    pub fn partial_checksum(&self) -> Option<PartialChecksum> {
        let offset = match self.kind {
            TransportKind::Tcp => tcp::CHECKSUM,
            TransportKind::Udp => UDP_CHECKSUM,
        };
        let (start, offset) = (u16::try_from(self.offset).ok()?, u16::try_from(offset).ok()?);
        Some(PartialChecksum { start, offset })
    }
}

/// Writes the header checksum of the IPv4 packet in `frame`. Without effect if it is none, or the
/// header is not all there.
pub fn fill_ipv4(frame: &mut [u8], network: &Network) {
    const PLACE: usize = std::mem::offset_of!(Ipv4, checksum);
    if network.is_v6() {
        return;
    }
    let Some(header) = frame.get_mut(network.offset..network.payload) else { return };
    if let Some(field) = header.get_mut(PLACE..PLACE + 2) {
        field.fill(0);
    }
    let checksum = Sum::of(header).checksum();
    if let Some(field) = header.get_mut(PLACE..PLACE + 2) {
        field.copy_from_slice(&checksum);
    }
}

/// Writes the sum of the pseudo header where the TCP or UDP checksum is to be, for someone else to
/// fill it in: what a [`PartialChecksum`] needs. `len` is that of the transport packet. Without effect
/// if the ends of the packet's journey are not known, or the header is not there.
pub fn prepare_transport(
    frame: &mut [u8],
    headers: &Headers,
    len: usize,
) -> Option<PartialChecksum> {
    let (network, transport) = headers.network.zip(headers.transport)?;
    let partial = transport.partial_checksum()?;
    let place = partial.place(frame.len())?;
    let number = match transport.kind {
        TransportKind::Tcp => protocol::TCP,
        TransportKind::Udp => protocol::UDP,
    };
    let sum = Sum::pseudo_header(&network.ends()?, number, len);
    frame.get_mut(place..place + 2)?.copy_from_slice(&sum.bytes());
    Some(partial)
}
