//! A network namespace of one's own, to try a TAP interface in. Nothing leaves it.
//!
//! Panics on misuse, as tests do.

mod sys;

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;
use std::panic::resume_unwind;
use std::process::Command;

use crate::net::tap::DEVICE;

pub use sys::{Interface, PacketSocket};

/// Set in a process that was started to be in a namespace.
const INSIDE: &str = "PARASLOT_IN_NAMESPACE";

/// The network namespace that the calling thread is in, and all threads that it starts.
#[derive(Debug)]
pub struct Namespace(());

impl Namespace {
    /// The interface `name` in it.
    pub fn interface(&self, name: &str) -> Interface {
        Interface::new(name)
    }

    /// Makes a bridge that joins `ports`, and sets it up.
    ///
    /// # Errors
    /// When the kernel has no bridges.
    pub fn bridge(&self, name: &str, ports: &[&Interface]) -> std::io::Result<()> {
        sys::add_bridge(name)?;
        let bridge = self.interface(name);
        bridge.disable_ipv6();
        bridge.up();
        ports.iter().for_each(|port| bridge.take_port(port));
        Ok(())
    }

    /// The interface `name`, set up: with address `address` in a network of 256, without IPv6 (so
    /// that the kernel has nothing to say of its own accord), and up.
    pub fn set_up(&self, name: &str, address: Ipv4Addr) -> Interface {
        let interface = self.interface(name);
        interface.disable_ipv6();
        interface.set_address(address, 24);
        interface.up();
        interface
    }
}

/// Runs `test` in a network namespace of its own, if it may: on a thread of its own, or without
/// CAP_SYS_ADMIN by running this test alone in another process, in a user namespace. If neither may
/// be had, or no TAP interface, the test is skipped, and says why; with `CI` in the environment, it
/// fails.
///
/// `test` must be a closure in the body of the test function itself, whose name is told from it.
///
/// # Panics
/// When `test` does.
pub fn in_namespace<F: FnOnce(&Namespace) + Send>(test: F) {
    if let Err(error) = OpenOptions::new().read(true).write(true).open(DEVICE) {
        return skip::<F>(&format!("{DEVICE} cannot be opened: {error}"));
    }
    let inside = || {
        let namespace = Namespace(());
        namespace.interface("lo").up();
        test(&namespace);
    };
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if let Err(privileged) = std::thread::scope(|scope| run_on(scope, inside))
        && let Err(unprivileged) = alone::<F>()
    {
        skip::<F>(&format!(
            "no network namespace: {privileged} (this process), {unprivileged} (a user namespace)"
        ));
    }
}

/// Runs `inside` on a thread in a new namespace.
fn run_on<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    inside: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, || {
        sys::leave_network()?;
        inside();
        Ok(())
    });
    thread?.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The name of the test that a closure of type `F` is in, as the test harness knows it.
fn test_name<F>() -> &'static str {
    let path = std::any::type_name::<F>().trim_end_matches("::{{closure}}");
    path.split_once("::").map_or(path, |(_, path)| path)
}

/// Runs the test that `F` is in, alone, in a process in new user and network namespaces.
fn alone<F>() -> std::io::Result<()> {
    let name = test_name::<F>();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", name, "--nocapture", "--test-threads=1", "--include-ignored"]);
    command.env(INSIDE, "1");
    sys::in_user_namespace(&mut command);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    print!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in a user namespace: {}", output.status);
    assert!(text.contains("test result: ok. 1 passed"), "{name} is not the name of one test");
    Ok(())
}

fn skip<F>(reason: &str) {
    let line = format!("skipped {}: {reason}", test_name::<F>());
    assert!(std::env::var_os("CI").is_none(), "{line}");
    // Not captured, so that it is seen.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Moves the calling thread on to yet another network namespace.
///
/// # Errors
/// When it may not.
pub fn leave() -> std::io::Result<()> {
    sys::leave_network()
}
