//! Builds the guest image with a cargo of its own.
//!
//! The image is a program for no operating system: it needs its own linker script, panic strategy
//! and code model, which must not depend on the profile, the flags or the wrappers that the host's
//! crates are being built with. Its manifest is written here, and the lock file is the workspace's,
//! so the image's dependencies are those that the outer build has resolved and fetched; the inner
//! one runs offline.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A freestanding program of any x86-64 target would do; this is the one that is always at hand.
const TARGET: &str = "x86_64-unknown-linux-gnu";

fn main() {
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    let harness = package.parent().expect("the package is in the harness's directory");
    let root = harness.parent().expect("the harness is in the workspace");
    let (protocol, drivers) = (harness.join("protocol"), harness.join("drivers"));
    let spec = root.join("devices/spec");

    for input in [&protocol, &drivers, &spec] {
        watch(&input.join("src"));
        watch(&input.join("Cargo.toml"));
    }
    watch(&package.join("image"));
    watch(&package.join("build.rs"));
    watch(&root.join("Cargo.toml"));
    watch(&root.join("Cargo.lock"));

    let work = out.join("image");
    fs::create_dir_all(&work).expect("the output directory is writable");
    let manifest = work.join("Cargo.toml");
    let image = package.join("image");
    write_if_changed(
        &manifest,
        &format!(
            "[package]\n\
             name = \"paraslot-guest-image\"\n\
             version = \"0.0.0\"\n\
             edition = \"2024\"\n\
             autobins = false\n\
             [[bin]]\n\
             name = \"paraslot-guest-image\"\n\
             path = {main:?}\n\
             test = false\n\
             [dependencies]\n\
             paraslot-drivers = {{ path = {drivers:?} }}\n\
             paraslot-protocol = {{ path = {protocol:?} }}\n\
             paraslot-spec = {{ path = {spec:?} }}\n\
             [profile.release]\n\
             opt-level = 3\n\
             lto = \"fat\"\n\
             codegen-units = 1\n\
             panic = \"abort\"\n\
             debug = false\n\
             strip = \"debuginfo\"\n\
             overflow-checks = false\n\
             [workspace]\n",
            main = image.join("main.rs"),
        ),
    );
    // A package outside a checkout has no lock file; cargo then resolves what is at hand.
    if let Ok(lock) = fs::read_to_string(root.join("Cargo.lock")) {
        fs::write(work.join("Cargo.lock"), lock).expect("the output directory is writable");
    }

    let flags = [
        "-Crelocation-model=static",
        "-Ccode-model=small",
        "-Ctarget-cpu=x86-64",
        "-Cforce-frame-pointers=no",
        "-Clinker=rust-lld",
        "-Clinker-flavor=ld.lld",
        "-Clink-arg=-static",
        "-Clink-arg=-no-pie",
        "-Clink-arg=--build-id=none",
        "-Clink-arg=-zmax-page-size=4096",
        "-Clink-arg=-znognustack",
    ];
    let script = format!("-Clink-arg=-T{}", image.join("link.ld").display());
    // Panics name files; the image must not depend on where the checkout is.
    let remap = format!("--remap-path-prefix={}/=", root.display());
    let flags: Vec<&str> = flags.into_iter().chain([script.as_str(), remap.as_str()]).collect();

    let target_dir = work.join("target");
    let mut cargo = Command::new(variable("CARGO"));
    scrub(&mut cargo);
    cargo
        // The package's directory, so that the user's own configuration (a mirror, vendored
        // sources) is found, wherever the output directory is.
        .current_dir(&package)
        .args(["build", "--release", "--offline", "--quiet", "--target", TARGET])
        .arg("--manifest-path")
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&target_dir)
        .env("RUSTC", variable("RUSTC"))
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    let output = cargo.output().expect("cargo can be run again");
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
        panic!("the guest image does not build; it needs the Rust target {TARGET}");
    }
    let built = target_dir.join(TARGET).join("release/paraslot-guest-image");
    println!("cargo::rustc-env=PARASLOT_GUEST_IMAGE={}", built.display());
}

/// What this build was told about itself must not reach the inner one; what the user says about
/// registries and the network must.
fn scrub(cargo: &mut Command) {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let ours = ["CARGO", "RUSTC", "RUSTFLAGS", "RUSTDOC"].iter().any(|p| text.starts_with(p));
        if ours && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            cargo.env_remove(&name);
        }
    }
}

fn variable(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref();
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {}", name.display()))
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

/// Leaves a file alone that is right, so that the inner build sees no change.
fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text).expect("the output directory is writable");
    }
}
