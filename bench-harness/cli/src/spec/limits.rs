//! How much of its backend's time a device's guest may take.

use std::num::NonZeroU64;
use std::sync::Arc;

use paraslot_backends::limit::{Limiter, Rate, Rates};
use paraslot_device::SystemClock;
use serde::{Deserialize, Serialize};

use super::{OptionInfo, SpecError, option, refuse};

/// What a device is limited to; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limits {
    /// Operations in a second, or frames.
    pub(crate) operations: Option<NonZeroU64>,
    /// Bytes in a second.
    pub(crate) bytes: Option<NonZeroU64>,
}

const RATE: &str = "1..1000G|off";
pub(super) const IOPS: OptionInfo =
    option("iops", RATE, "most operations a second, like 500 or 2K");
pub(super) const BPS: OptionInfo = option("bps", RATE, "most bytes a second, like 10M");
pub(super) const FPS: OptionInfo = option("fps", RATE, "most frames a second, each way");
pub(super) const BPS_EACH: OptionInfo = OptionInfo { what: "most bytes a second, each way", ..BPS };

/// Most that can be asked for: a thousand thousand millions.
const MOST: u64 = 1_000_000_000_000;

/// `text` as a rate: a number, or one of thousands (K), millions (M) or thousand millions (G); `None` for off.
///
/// # Errors
/// When it is something else, 0, or too much.
pub(crate) fn rate(name: &str, text: &str) -> Result<Option<NonZeroU64>, SpecError> {
    if text == "off" {
        return Ok(None);
    }
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (text.get(..text.len() - 1), 1_000),
        Some(b'M' | b'm') => (text.get(..text.len() - 1), 1_000_000),
        Some(b'G' | b'g') => (text.get(..text.len() - 1), 1_000_000_000),
        _ => (Some(text), 1),
    };
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let rate = number.and_then(|number| number.checked_mul(unit)).filter(|rate| *rate <= MOST);
    match rate.and_then(NonZeroU64::new) {
        Some(rate) => Ok(Some(rate)),
        None => refuse(format!(
            "{name}={text}: {name} is a number a second from 1 to 1000G, with K, M or G for thousands, \
             millions or thousand millions, or off"
        )),
    }
}

impl Limits {
    /// Whether there are any.
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }

    /// The same for a limiter. After a pause a tenth of a second's worth may go at once.
    pub(crate) fn rates(self) -> Rates {
        let rate = |per_second: NonZeroU64| {
            let burst = NonZeroU64::new(per_second.get() / 10).unwrap_or(NonZeroU64::MIN);
            Rate { per_second, burst }
        };
        Rates { bytes: self.bytes.map(rate), operations: self.operations.map(rate) }
    }

    /// One for all queues of a device.
    pub(crate) fn limiter(self) -> Arc<Limiter> {
        Arc::new(Limiter::new(Arc::new(SystemClock::new()), self.rates()))
    }

    /// What there is, as options of the command line, each with a comma before it.
    pub(crate) fn label(self, operations: &str) -> String {
        let one = |name: &str, rate: Option<NonZeroU64>| {
            rate.map(|rate| format!(",{name}={rate}")).unwrap_or_default()
        };
        one(operations, self.operations) + &one("bps", self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        let number = |text| rate("iops", text).unwrap().map(NonZeroU64::get);
        for (text, expected) in
            [("1", 1), ("1500", 1500), ("2K", 2_000), ("10m", 10_000_000), ("1000G", MOST)]
        {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        assert_eq!(number("off"), None);
        for text in
            ["", "0", "0K", "K", "-1", "+1", "1.5M", "1001G", "1KK", "99999999999999999999", "1é"]
        {
            let error = rate("bps", text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("bps={text}: bps is a number")), "{error}");
        }
    }

    #[test]
    fn a_tenth_of_a_second_goes_at_once() {
        let limits = Limits { operations: NonZeroU64::new(5), bytes: NonZeroU64::new(1000) };
        let Rates { bytes: Some(bytes), operations: Some(operations) } = limits.rates() else {
            panic!("no limits")
        };
        assert_eq!((bytes.per_second.get(), bytes.burst.get()), (1000, 100));
        assert_eq!((operations.per_second.get(), operations.burst.get()), (5, 1));
        assert_eq!(limits.limiter().rates(), limits.rates());
        assert_eq!(
            (limits.label("fps"), Limits::default().label("iops")),
            (",fps=5,bps=1000".into(), String::new())
        );
    }
}
