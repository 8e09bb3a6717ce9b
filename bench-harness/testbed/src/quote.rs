//! Words of any bytes, quoted for the shell.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// `word` such that a POSIX shell reads it back as one word, byte for byte.
///
/// A single quote cannot stand between single quotes, so it is put between two such pairs.
/// Nothing else is special there, a newline included.
pub(crate) fn quoted(word: &OsStr) -> OsString {
    let mut bytes = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => bytes.extend_from_slice(b"'\\''"),
            _ => bytes.push(byte),
        }
    }
    bytes.push(b'\'');
    OsString::from_vec(bytes)
}

/// `words`, quoted, with a space between each two.
pub(crate) fn line<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> OsString {
    let mut line = OsString::new();
    for word in words {
        if !line.is_empty() {
            line.push(" ");
        }
        line.push(quoted(word));
    }
    line
}

/// Whether a shell takes `name` as a variable's name.
pub(crate) fn is_variable(name: &OsStr) -> bool {
    let mut bytes = name.as_bytes().iter();
    bytes.next().is_some_and(|&first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a shell makes of `words`, each followed by a NUL.
    fn read_back(words: &[OsString]) -> Vec<u8> {
        let mut script = OsString::from("printf '%s\\0' ");
        script.push(line(words.iter().map(OsString::as_os_str)));
        Command::new("sh").arg("-c").arg(script).output().expect("sh runs").stdout
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_shell_reads_every_word_back(words in prop::collection::vec(
            prop::collection::vec(1..=255u8, 0..20), 1..5)
        ) {
            let expected: Vec<u8> = words.iter().flat_map(|word| word.iter().copied().chain([0])).collect();
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            prop_assert_eq!(read_back(&words), expected);
        }
    }

    #[test]
    fn quotes_are_put_between_two_pairs() {
        assert_eq!(quoted(OsStr::new("it's")), "'it'\\''s'");
        assert_eq!(quoted(OsStr::new("")), "''");
    }

    #[test]
    fn only_names_are_names() {
        for name in ["A", "_a1", "PATH"] {
            assert!(is_variable(OsStr::new(name)), "{name}");
        }
        for name in ["", "1A", "A-B", "A=B", "A B", "a;b", "é"] {
            assert!(!is_variable(OsStr::new(name)), "{name}");
        }
    }
}
