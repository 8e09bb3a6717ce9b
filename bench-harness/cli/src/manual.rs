//! The command line as others show it: a shell that completes it, and the manual.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::CommandLine;

/// The script with which a shell completes command lines.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "paraslot", &mut script);
    script
}

/// Writes a page for the program, and one for each of its commands.
///
/// # Errors
/// When the directory or a file in it cannot be written.
pub(crate) fn write(directory: &Path) -> anyhow::Result<()> {
    let pages = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(CommandLine::command(), directory));
    pages.with_context(|| format!("cannot write to {}", directory.display()))
}

/// Writes to the standard output, which may be a pipe that is closed.
pub(crate) fn show(script: &[u8]) {
    let _ = io::Write::write_all(&mut io::stdout(), script);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shells_complete_commands_and_options() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8(completions(shell)).unwrap();
            for word in ["catalogue", "inspect", "min-runs", "busy-poll"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn the_manual_has_a_page_for_each_command() {
        let place = tempfile::tempdir().unwrap();
        write(place.path()).unwrap();
        let read = |name| fs::read_to_string(place.path().join(name)).unwrap();
        assert!(read("paraslot.1").contains("Compares paravirtual and emulated PCI devices"));
        for command in CommandLine::command().get_subcommands() {
            let name = format!("paraslot-{}.1", command.get_name());
            let exists = place.path().join(&name).exists();
            assert_eq!(exists, !command.is_hide_set() && command.get_name() != "help", "{name}");
        }
    }
}
