//! One build against another: records of both, or both measured by turns.

mod baseline;
mod build;
mod builds;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use paraslot_report::Between;

use crate::error;
use crate::run::output::check;
use crate::show;

pub(crate) use baseline::{Baselines, baseline_name};
pub(crate) use words::CompareArgs;

/// The exit status of a comparison that ended well.
pub(crate) fn status(is_slower: bool) -> u8 {
    if is_slower { 3 } else { 0 }
}

/// What a comparison comes to if some of it could not be measured: that something is slower is so whatever the
/// rest would have said.
pub(crate) fn end(is_slower: bool, failures: &[String]) -> anyhow::Result<bool> {
    if failures.is_empty() {
        return Ok(is_slower);
    }
    let failed = anyhow::anyhow!("could not be measured: {}", failures.join("; "));
    if is_slower {
        eprintln!("paraslot: {}", error::line(&failed));
        return Ok(true);
    }
    Err(failed)
}

/// Does what `paraslot compare` does; says whether something is slower.
pub(crate) fn compare(arguments: &CompareArgs) -> anyhow::Result<bool> {
    for path in [&arguments.export_json, &arguments.export_markdown].into_iter().flatten() {
        check(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (between, failures) = match &arguments.builds {
        Some(program) => {
            let Some(done) = builds::measure(program, arguments)? else { return Ok(false) };
            done
        }
        None => {
            let one = |word: &str| baseline::load(word, &arguments.out);
            let before = arguments.of.first().context("nothing to compare")?;
            let before = one(before)?;
            let after = match arguments.of.get(1) {
                Some(word) => one(word)?,
                None => baseline::latest(&arguments.out)?,
            };
            (Between::of(&before, &after), Vec::new())
        }
    };
    let write = |path: &Option<PathBuf>, text: &dyn Fn() -> anyhow::Result<String>| match path {
        None => Ok(()),
        Some(path) => {
            fs::write(path, text()?).with_context(|| format!("cannot write {}", path.display()))
        }
    };
    write(&arguments.export_json, &|| Ok(between.to_json()?))?;
    write(&arguments.export_markdown, &|| Ok(between.markdown()))?;
    show(&between.table());
    if between.changes.is_empty() && failures.is_empty() {
        bail!("there is nothing that both have");
    }
    end(between.is_slower(), &failures)
}

/// The directory that baselines are kept in.
fn place(out: &Path) -> PathBuf {
    out.join("baselines")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_is_so_whatever_else_failed() {
        let failures = ["ahci: broken".to_owned()];
        assert!(end(true, &failures).unwrap());
        assert!(end(true, &[]).unwrap() && !end(false, &[]).unwrap());
        assert!(end(false, &failures).unwrap_err().to_string().contains("ahci: broken"));
        assert_eq!((status(true), status(false)), (3, 0));
    }
}
