//! The host's own package sources, read for the address of a Debian mirror.
//!
//! Both forms are read: one line a source (`*.list`) and paragraphs (`*.sources`), as in
//! `sources.list(5)`. No address is built in: a host behind a proxy or a mirror of its own works.

use std::fs;
use std::path::{Path, PathBuf};

/// The release that the test bed is made of.
pub(crate) const SUITE: &str = "bookworm";

/// Names that only Debian's own archive has, so that other vendors' sources are told apart.
const RELEASES: [&str; 11] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
    "oldoldstable",
];

/// Where Debian's packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    /// The archive.
    pub(crate) main: String,
    /// Security updates, which most mirrors have beside the archive.
    pub(crate) security: Option<String>,
}

impl Mirrors {
    /// The mirrors that the configuration under `etc` (`/etc/apt`) names; none if it names none.
    pub(crate) fn of_host(etc: &Path) -> Option<Self> {
        let mut files = vec![etc.join("sources.list"), etc.join("debian.sources")];
        let mut parts: Vec<PathBuf> = fs::read_dir(etc.join("sources.list.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        parts.sort();
        files.extend(parts);
        let mut found = Vec::new();
        for file in files {
            let Ok(text) = fs::read_to_string(&file) else { continue };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => found.extend(text.lines().filter_map(of_line)),
                Some("sources") => found.extend(of_paragraphs(&text)),
                _ => {}
            }
        }
        Self::among(&found)
    }

    /// The first archive and the first security archive among `sources`.
    fn among(sources: &[Source]) -> Option<Self> {
        let first = |wanted: Kind| {
            let matches =
                |source: &&Source| source.suites.iter().any(|suite| kind(suite) == Some(wanted));
            sources.iter().find(matches).map(|source| source.uri.clone())
        };
        Some(Self { main: first(Kind::Archive)?, security: first(Kind::Security) })
    }
}

/// One source of binary packages.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Archive,
    Security,
}

/// What Debian's archive calls `suite`; none if it is not one of its.
fn kind(suite: &str) -> Option<Kind> {
    let (release, pocket) = suite.split_once(['-', '/']).unwrap_or((suite, ""));
    if !RELEASES.contains(&release) {
        return None;
    }
    match pocket {
        "" | "updates" if !suite.contains('/') => Some(Kind::Archive),
        "security" | "updates" => Some(Kind::Security),
        _ => None,
    }
}

/// Keeps what apt can fetch from a network or a directory, and what has the component `main`.
fn source(uri: &str, suites: Vec<String>, components: &[&str]) -> Option<Source> {
    let fits = uri.contains(':') && !uri.starts_with("cdrom:") && components.contains(&"main");
    fits.then(|| Source { uri: uri.to_owned(), suites })
}

/// A source in the form of one line: `deb [options] uri suite component…`.
fn of_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    // `deb-src`, or a word that merely begins the same.
    rest.starts_with([' ', '\t', '[']).then_some(())?;
    let mut rest = rest.trim_start();
    if let Some(options) = rest.strip_prefix('[') {
        rest = options.split_once(']')?.1;
    }
    let mut words = rest.split_whitespace();
    let uri = words.next()?;
    let suite = words.next()?.to_owned();
    source(uri, vec![suite], &words.collect::<Vec<_>>())
}

/// The sources in the form of paragraphs.
fn of_paragraphs(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#')).chain([""]) {
        if line.trim().is_empty() {
            sources.extend(of_fields(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

/// The sources of one paragraph: one for each of its addresses.
fn of_fields(fields: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<&str> {
        fields
            .iter()
            .filter(|(field, _)| field == name)
            .flat_map(|(_, value)| value.split_whitespace())
            .collect()
    };
    let disabled = words("enabled")
        .iter()
        .any(|word| ["no", "false", "0"].contains(&word.to_ascii_lowercase().as_str()));
    if disabled || !words("types").contains(&"deb") {
        return Vec::new();
    }
    let suites: Vec<String> = words("suites").into_iter().map(str::to_owned).collect();
    let components = words("components");
    words("uris").into_iter().filter_map(|uri| source(uri, suites.clone(), &components)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(files: &[(&str, &str)]) -> Option<Mirrors> {
        let etc = tempfile::tempdir().expect("a directory");
        fs::create_dir(etc.path().join("sources.list.d")).expect("a directory");
        for (name, text) in files {
            fs::write(etc.path().join(name), text).expect("a file");
        }
        Mirrors::of_host(etc.path())
    }

    fn mirrors(main: &str, security: Option<&str>) -> Option<Mirrors> {
        Some(Mirrors { main: main.into(), security: security.map(str::to_owned) })
    }

    #[test]
    fn paragraphs_are_read() {
        let text = "# a comment\nTypes: deb deb-src\nURIs: http://mirror.test/debian\nSuites: bookworm\n bookworm-updates\n\
            Components: main contrib\nSigned-By: /a/key\n\nTypes: deb\nURIs: http://mirror.test/security\n# another\n\
            Suites: bookworm-security\nComponents: main\n";
        let found = host(&[("sources.list.d/debian.sources", text)]);
        assert_eq!(
            found,
            mirrors("http://mirror.test/debian", Some("http://mirror.test/security"))
        );
    }

    #[test]
    fn lines_are_read() {
        let text = "# deb http://off.test/debian bookworm main\ndeb-src http://src.test/debian bookworm main\n\
            deb [ arch=amd64 signed-by=/a/key ] http://mirror.test/debian trixie main # the mirror\n\
            deb http://mirror.test/security trixie-security main\n";
        let found = host(&[("sources.list", text)]);
        assert_eq!(
            found,
            mirrors("http://mirror.test/debian", Some("http://mirror.test/security"))
        );
    }

    #[test]
    fn a_mirror_may_lack_security_updates() {
        let found = host(&[("sources.list", "deb http://mirror.test/debian stable main\n")]);
        assert_eq!(found, mirrors("http://mirror.test/debian", None));
    }

    #[test]
    fn other_vendors_and_other_media_are_passed_over() {
        let lines = "deb https://vendor.test/apt cloud-bookworm main\ndeb https://vendor.test/node nodistro main\n\
            deb https://vendor.test/x noble main\ndeb cdrom:[Debian] bookworm main\ndeb https://vendor.test/y bookworm stable\n\
            deb http://vendor.test/debian bookworm-backports main\ndeb\ndeb [broken http://x bookworm main\n";
        let off = "Types: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main\n";
        assert_eq!(host(&[("sources.list", lines), ("sources.list.d/off.sources", off)]), None);
        assert_eq!(host(&[]), None);
    }

    #[test]
    fn a_file_of_another_name_is_not_read() {
        assert_eq!(
            host(&[(
                "sources.list.d/old.list.save",
                "deb http://mirror.test/debian bookworm main\n"
            )]),
            None
        );
    }

    const PIECES: [&str; 16] = [
        "deb", "deb-src", "Types:", "URIs:", "Suites:", "Enabled:", "[", "]", " ", "\t", "\n", "#",
        ":", "/", "bookworm", "main",
    ];

    proptest! {
        #[test]
        fn odd_files_are_read_quietly(pieces in prop::collection::vec(0..PIECES.len(), 0..40)) {
            let text: String = pieces.into_iter().filter_map(|piece| PIECES.get(piece)).copied().collect();
            let _ = text.lines().filter_map(of_line).count();
            let _ = of_paragraphs(&text);
        }
    }
}
