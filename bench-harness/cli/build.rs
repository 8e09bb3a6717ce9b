//! Tells the program which revision it was built from, where that can be found out.

use std::path::Path;
use std::process::Command;

/// What git says, or nothing: without git, outside a repository, without a commit.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What changes with a commit or a checkout. A path that does not exist would mean "always".
    for file in ["HEAD", "index"] {
        let path = git(&["rev-parse", "--git-path", file]);
        if let Some(path) = path.filter(|path| Path::new(path).exists()) {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    if let Some(revision) = git(&["describe", "--always", "--dirty", "--abbrev=12"]) {
        println!("cargo:rustc-env=PARASLOT_REVISION={revision}");
    }
}
