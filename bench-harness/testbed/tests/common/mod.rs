//! What the tests of this crate share.

use std::io::Write;

use paraslot_testbed::{Error, Testbed};

/// A test bed, if this host can have one; on a CI machine it must.
pub(crate) fn testbed() -> Option<Testbed> {
    match Testbed::prepare(&Testbed::default_dir()) {
        Ok(testbed) => Some(testbed),
        Err(Error::Unsupported(reason)) => {
            assert!(std::env::var_os("CI").is_none(), "no test bed on a CI machine: {reason}");
            // Straight to the process's own output: the harness would hide it.
            let _ = writeln!(std::io::stdout(), "skipped: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
