//! Where a function is on the host.

use std::fmt;
use std::str::FromStr;

/// A PCI function's address on the host: `0000:00:05.0`, domain, bus, device and function, all
/// hexadecimal.
///
/// It is parsed with or without the domain, which is 0 if left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostAddress {
    /// Domain, also called segment. Domains of virtual hosts (such as Intel's VMD) have more than 16 bits.
    pub domain: u32,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// Text that is no [`HostAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address such as 0000:00:05.0")]
pub struct ParseAddressError(String);

impl FromStr for HostAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        parse(text).ok_or_else(|| ParseAddressError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<HostAddress> {
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
    let address = HostAddress {
        domain: number(domain, 8)?,
        bus: u8::try_from(number(bus, 2)?).ok()?,
        device: u8::try_from(number(device, 2)?).ok()?,
        function: u8::try_from(number(function, 1)?).ok()?,
    };
    (address.device < 32 && address.function < 8).then_some(address)
}

/// A hexadecimal number of 1 to `digits` digits, without a sign.
fn number(text: &str, digits: usize) -> Option<u32> {
    let plain = text.len() <= digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_domain_may_be_left_out() {
        let address = HostAddress { domain: 0, bus: 0x3b, device: 0x1f, function: 7 };
        assert_eq!("3b:1f.7".parse(), Ok(address));
        assert_eq!("0000:3b:1F.7".parse(), Ok(address));
        assert_eq!(address.to_string(), "0000:3b:1f.7");
        let far = HostAddress { domain: 0x1_0000, bus: 1, device: 0, function: 0 };
        assert_eq!((far.to_string().as_str(), "10000:01:00.0".parse()), ("10000:01:00.0", Ok(far)));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "0",
            "05.0",
            ":05.0",
            "00:05",
            "00:05.8",
            "00:20.0",
            "100:05.0",
            "00:05.00",
            "+0:05.0",
            "00:05.0 ",
            "0:0000:00:05.0",
            "123456789:00:05.0",
            "00:05.-1",
            "../etc:05.0",
            "00::5.0",
        ] {
            let error = text.parse::<HostAddress>().unwrap_err();
            assert!(error.to_string().contains("no PCI address"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn addresses_survive_their_text(domain: u32, bus: u8, device in 0_u8..32, function in 0_u8..8) {
            let address = HostAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn any_text_is_answered(text in ".{0,20}") {
            if let Ok(address) = text.parse::<HostAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }
}
