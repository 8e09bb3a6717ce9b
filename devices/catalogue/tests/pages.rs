//! The project's pages are what the catalogue says, and what it names is there.

use std::fs;
use std::path::{Path, PathBuf};

use paraslot_catalogue::{Sheet, entries, render};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn pages_are_as_they_would_be_made() {
    let folder = project().join("docs/catalogue");
    let sheets: Vec<Sheet> = entries().iter().map(|entry| Sheet::of(entry).unwrap()).collect();
    let made =
        sheets.iter().map(|sheet| (format!("{}.md", sheet.entry.name), render::markdown(sheet)));
    for (name, text) in made.chain([("README.md".to_owned(), render::index(&sheets))]) {
        let stored = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(
            stored == text,
            "docs/catalogue/{name} is not what the catalogue says now; to be made anew: cargo run -- \
             catalogue --format markdown --out docs/catalogue"
        );
    }
}

#[test]
fn fuzz_targets_are_there() {
    let targets = project().join("tests/fuzz/fuzz_targets");
    for entry in entries() {
        for target in entry.security.fuzz {
            let file = targets.join(format!("{target}.rs"));
            assert!(file.exists(), "{}: {}", entry.name, file.display());
        }
    }
}

#[test]
fn packages_are_there() {
    for entry in entries() {
        let package = entry.package.split([',', ';']).next().unwrap_or_default();
        let folder = package.trim_start_matches("paraslot-");
        let manifest = project().join("devices").join(folder).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap_or_default();
        assert!(text.contains(&format!("name = \"{package}\"")), "{}", manifest.display());
    }
}
