//! Tests of the header.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;

const TCP: Segmentation = Segmentation { cut: Cut::Tcp4, size: 1448, header_len: 66, ecn: false };
const CHECKSUM: PartialChecksum = PartialChecksum { start: 34, offset: 16 };

fn with(segmentation: Segmentation) -> Offload {
    Offload { checksum: Some(CHECKSUM), segmentation: Some(segmentation), checksum_valid: false }
}

// The layout is virtio's (5.1.9), little-endian, with a number of buffers that says nothing here.
#[test]
fn the_header_is_what_the_kernel_reads() {
    assert_eq!(LEN, 12);
    let header = encode(&with(Segmentation { ecn: true, ..TCP }), 9000);
    assert_eq!(header.as_bytes(), [1, 0x81, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    for (cut, kind) in
        [(Cut::Tcp4, 1), (Cut::UdpFragments, 3), (Cut::Tcp6, 4), (Cut::UdpDatagrams, 5)]
    {
        let header = encode(&with(Segmentation { cut, ..TCP }), 9000);
        assert_eq!(header.gso_type, kind);
    }
    // DATA_VALID must not be set by who sends (5.1.9.2.1).
    let known = Offload { checksum_valid: true, ..Offload::default() };
    assert_eq!(encode(&known, 60).as_bytes(), [0; 12]);
}

#[test]
fn hints_that_make_no_sense_are_not_passed_on() {
    // The length of the headers, whatever it says.
    let long = with(Segmentation { header_len: u16::MAX, ..TCP });
    assert_eq!(encode(&long, 90).hdr_len, 90);
    assert_eq!(encode(&long, crate::net::MAX_FRAME).hdr_len, u16::MAX);
    // TCP's flags, in what is not TCP.
    let udp = with(Segmentation { cut: Cut::UdpDatagrams, ecn: true, ..TCP });
    assert_eq!(encode(&udp, 9000).gso_type, gso::UDP_L4);
}

#[test]
fn what_makes_no_sense_is_not_received() {
    let good = encode(&with(TCP), 9000);
    assert_eq!(decode(&good, 9000).unwrap(), with(TCP));
    let bad = |change: fn(&mut Header)| {
        let mut header = good;
        change(&mut header);
        matches!(decode(&header, 9000), Err(NetError::Invalid))
    };
    assert!(bad(|header| header.flags = 0));
    assert!(bad(|header| header.gso_size = 0.into()));
    assert!(bad(|header| header.gso_type = 2));
    assert!(bad(|header| header.gso_type = gso::ECN));
    assert!(bad(|header| header.gso_type = gso::ECN | gso::UDP_L4));
    assert!(bad(|header| header.gso_type |= gso::UDP_TUNNEL_IPV4));
    assert!(bad(|header| header.csum_start = 8999.into()));
    assert!(bad(|header| header.csum_offset = 8965.into()));
    assert!(!bad(|header| header.csum_offset = 8964.into()));
    let valid = Header { flags: 2, ..Header::default() };
    assert_eq!(decode(&valid, 60).unwrap(), Offload { checksum_valid: true, ..Offload::default() });
    // One that is still to be filled in is not known to be right.
    let both = Header { flags: 3, ..good };
    assert_eq!(decode(&both, 9000).unwrap(), with(TCP));
}

#[test]
fn the_kernel_is_told_no_more_than_was_accepted() {
    use libc::{TUN_F_CSUM, TUN_F_TSO_ECN, TUN_F_TSO4, TUN_F_TSO6, TUN_F_UFO};
    let tun = |offloads| tun_flags(offloads);
    assert_eq!(tun(Offloads::empty()), 0);
    assert_eq!(tun(Offloads::all() - Offloads::CHECKSUM), 0);
    assert_eq!(tun(Offloads::CHECKSUM), TUN_F_CSUM);
    assert_eq!(tun(Offloads::CHECKSUM | Offloads::TSO4), TUN_F_CSUM | TUN_F_TSO4);
    assert_eq!(tun(Offloads::CHECKSUM | Offloads::TSO6), TUN_F_CSUM | TUN_F_TSO6);
    // It refuses ECN without TCP, and one of USO4 and USO6 without the other.
    assert_eq!(tun(Offloads::CHECKSUM | Offloads::TSO_ECN), TUN_F_CSUM);
    assert_eq!(tun(Offloads::CHECKSUM | Offloads::USO4), TUN_F_CSUM);
    assert_eq!(tun(Offloads::CHECKSUM | Offloads::USO6), TUN_F_CSUM);
    let old = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN | TUN_F_UFO;
    assert_eq!(tun(Offloads::all() - Offloads::USO6), old);
    assert_eq!(tun(Offloads::all()), old | libc::TUN_F_USO4 | libc::TUN_F_USO6);
}

proptest! {
    // A header of the host's network says what can be passed on, or nothing.
    #[test]
    fn any_header_is_refused_or_fits(bytes: [u8; LEN], len in 14usize..70_000) {
        let header: Header = zerocopy::transmute!(bytes);
        if let Ok(offload) = decode(&header, len) {
            if let Some(checksum) = offload.checksum {
                prop_assert!(usize::from(checksum.start) + usize::from(checksum.offset) + 2 <= len);
                prop_assert!(!offload.checksum_valid);
            }
            if let Some(segmentation) = offload.segmentation {
                prop_assert!(offload.checksum.is_some() && segmentation.size != 0);
            }
            let sent = Offload { checksum_valid: false, ..offload };
            let mut again = decode(&encode(&sent, len), len).unwrap();
            // The hint alone may have been cut to the frame's length.
            if let Some((again, sent)) = again.segmentation.as_mut().zip(sent.segmentation) {
                again.header_len = sent.header_len;
            }
            prop_assert_eq!(again, sent);
        }
    }
}
