//! The first message, in which both sides say what they can do.

use serde_json::{Map, Value, json};

use crate::sys::MAX_FDS;
use crate::wire::{Fields, MAX_DATA};

/// Ranges of the client's memory that can be mapped at a time.
pub(crate) const MAX_MAPS: usize = 1024;
/// Page sizes of mapped memory: addresses, offsets and sizes are multiples of this.
pub(crate) const PAGE: u64 = 4096;
/// The version that is spoken.
const MAJOR: u16 = 0;
const MINOR: u16 = 1;
/// Bytes of capabilities that are looked at.
const MAX_LEN: usize = 4096;
/// A capability of ours: the sender maps areas of regions for reads alone, even where the region itself
/// can be written. Others map both ways or not at all.
const READ_ONLY_MMAP: &str = "read_only_mmap";

/// What one side can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    /// Descriptors that it takes with a message.
    pub(crate) max_msg_fds: usize,
    /// Bytes that it takes or gives in a message.
    pub(crate) max_data: usize,
    /// Ranges of memory that it maps.
    pub(crate) max_dma_maps: usize,
    /// Several writes in a message.
    pub(crate) write_multiple: bool,
    /// It maps for reads what it may not map for writes.
    pub(crate) read_only_mmap: bool,
}

impl Default for Capabilities {
    /// What is true of who says nothing.
    fn default() -> Self {
        Self {
            max_msg_fds: 1,
            max_data: 1 << 20,
            max_dma_maps: 65535,
            write_multiple: false,
            read_only_mmap: false,
        }
    }
}

/// A version message: the version, and the capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) capabilities: Capabilities,
}

impl Version {
    /// What is proposed to a server.
    pub(crate) fn proposal() -> Self {
        let capabilities = Capabilities {
            max_msg_fds: MAX_FDS,
            max_data: MAX_DATA,
            max_dma_maps: MAX_MAPS,
            write_multiple: false,
            read_only_mmap: true,
        };
        Self { major: MAJOR, minor: MINOR, capabilities }
    }

    /// What is answered to `self`, a client's proposal, if it can be spoken with.
    pub(crate) fn answer(self) -> Option<Self> {
        let Capabilities { write_multiple, read_only_mmap, .. } = self.capabilities;
        let capabilities =
            Capabilities { write_multiple, read_only_mmap, ..Self::proposal().capabilities };
        let minor = self.minor.min(MINOR);
        (self.major == MAJOR).then_some(Self { major: MAJOR, minor, capabilities })
    }

    /// Reads a payload; `None` if it makes no sense.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut fields = Fields(payload);
        let (major, minor) = (fields.u16()?, fields.u16()?);
        let capabilities = match fields.rest() {
            [] => Capabilities::default(),
            text => parse_capabilities(text)?,
        };
        Some(Self { major, minor, capabilities })
    }

    /// The payload.
    pub(crate) fn bytes(self) -> Vec<u8> {
        let Capabilities { max_msg_fds, max_data, max_dma_maps, write_multiple, read_only_mmap } =
            self.capabilities;
        let mut capabilities = json!({
            "max_msg_fds": max_msg_fds,
            "max_data_xfer_size": max_data,
            "max_dma_maps": max_dma_maps,
            "pgsizes": PAGE,
        });
        for (name, has) in [("write_multiple", write_multiple), (READ_ONLY_MMAP, read_only_mmap)] {
            if let (true, Some(map)) = (has, capabilities.as_object_mut()) {
                map.insert(name.to_owned(), Value::Bool(true));
            }
        }
        let mut bytes = Vec::new();
        bytes.extend(self.major.to_le_bytes());
        bytes.extend(self.minor.to_le_bytes());
        bytes.extend(json!({ "capabilities": capabilities }).to_string().into_bytes());
        bytes.push(0);
        bytes
    }
}

/// Reads the text with its terminating NUL.
fn parse_capabilities(text: &[u8]) -> Option<Capabilities> {
    if text.len() > MAX_LEN {
        return None;
    }
    let (nul, text) = text.split_last()?;
    if *nul != 0 {
        return None;
    }
    let value: Value = serde_json::from_slice(text).ok()?;
    let none = Map::new();
    let map = match value.as_object()?.get("capabilities") {
        None => &none,
        Some(value) => value.as_object()?,
    };
    let number = |name: &str, default: usize| match map.get(name) {
        None => Some(default),
        Some(value) => usize::try_from(value.as_u64()?).ok(),
    };
    let boolean = |name: &str| match map.get(name) {
        None => Some(false),
        Some(value) => value.as_bool(),
    };
    // Of page sizes, all that matters is that it is a number: pages of 4 KiB are what is there.
    number("pgsizes", 0)?;
    let default = Capabilities::default();
    Some(Capabilities {
        max_msg_fds: number("max_msg_fds", default.max_msg_fds)?,
        max_data: number("max_data_xfer_size", default.max_data)?,
        max_dma_maps: number("max_dma_maps", default.max_dma_maps)?,
        write_multiple: boolean("write_multiple")?,
        read_only_mmap: boolean(READ_ONLY_MMAP)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Option<Capabilities> {
        let bytes = [b"\0\0\x01\0", text.as_bytes()].concat();
        Version::parse(&bytes).map(|version| version.capabilities)
    }

    #[test]
    fn what_is_said_is_understood() {
        let proposal = Version::proposal();
        assert_eq!(Version::parse(&proposal.bytes()), Some(proposal));
        assert_eq!(proposal.answer(), Some(proposal));
    }

    #[test]
    fn who_says_nothing_has_the_defaults() {
        let default = Some(Capabilities::default());
        assert_eq!(Version::parse(&[0, 0, 1, 0]).map(|version| version.capabilities), default);
        assert_eq!(parse("{}\0"), default);
        assert_eq!(parse("{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}\0"), default);
        let answer = Version::parse(&[0, 0, 1, 0]).unwrap().answer().unwrap();
        let text = String::from_utf8(answer.bytes()[4..].to_vec()).unwrap();
        assert!(text.ends_with("}}\0") && !text.contains(READ_ONLY_MMAP), "{text}");
        assert!(text.contains("\"max_msg_fds\":16"), "{text}");
    }

    #[test]
    fn another_major_version_is_not_spoken_and_a_lower_minor_one_is() {
        let version = |major, minor| Version { major, minor, ..Version::proposal() };
        assert_eq!(version(1, 0).answer(), None);
        assert_eq!(version(0, 0).answer().map(|answer| answer.minor), Some(0));
        assert_eq!(version(0, 7).answer().map(|answer| answer.minor), Some(1));
    }

    // vfio crate: unwrap on VERSION, and an enum made of what is on the wire.
    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "\0",
            "{}",
            "{",
            "[]\0",
            "{\"capabilities\":1}\0",
            "{\"capabilities\":{\"max_msg_fds\":-1}}\0",
            "{\"capabilities\":{\"max_msg_fds\":\"1\"}}\0",
            "{\"capabilities\":{\"max_data_xfer_size\":1e300}}\0",
            "{\"capabilities\":{\"pgsizes\":true}}\0",
            "{\"capabilities\":{\"write_multiple\":1}}\0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("{}\0", "[".repeat(4000))), None);
        assert_eq!(parse(&format!("{{}}{}\0", " ".repeat(MAX_LEN))), None);
        assert_eq!(Version::parse(&[0, 0, 1]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Version::parse(&bytes);
        }

        #[test]
        fn any_json_parses_or_does_not(text in "\\{\"capabilities\":\\{\"max_msg_fds\":[-0-9e.a\"\\[\\]]{0,12}\\}\\}\\x00") {
            if let Some(capabilities) = parse(&text) {
                prop_assert!(text.contains(&capabilities.max_msg_fds.to_string()));
            }
        }
    }
}
