//! What is said of a received frame's checksums (3.2.9, 13.4.47).

use paraslot_backends::net::checksum;
use paraslot_backends::net::parse::{HEADERS, Headers};
use paraslot_spec::e1000::{receive, rxcsum};

/// Checks what RXCSUM asks for: status and error bits. `valid`: the transport's checksum is known to be
/// right. What could not be checked is not said to be right.
pub(super) fn check(frame: &[u8], wanted: u32, valid: bool) -> (u8, u8) {
    let (mut status, mut errors) = (0, 0);
    if wanted & (rxcsum::IPOFL | rxcsum::TUOFL) != 0 {
        let headers = Headers::parse(frame.get(..HEADERS).unwrap_or(frame));
        let v6 = headers.network.is_some_and(|network| network.is_v6());
        if wanted & rxcsum::IPOFL != 0
            && let Some(right) = checksum::verify_ipv4(frame, &headers)
        {
            status |= receive::IPCS;
            errors |= if right { 0 } else { receive::IPE };
        }
        if wanted & rxcsum::TUOFL != 0 && (!v6 || wanted & rxcsum::IPV6OFL != 0) {
            let right = if valid {
                headers.transport.map(|_| true)
            } else {
                checksum::verify_transport(frame, &headers)
            };
            if let Some(right) = right {
                status |= receive::TCPCS;
                errors |= if right { 0 } else { receive::TCPE };
            }
        }
    }
    (if status == 0 { receive::IXSM } else { status }, errors)
}
