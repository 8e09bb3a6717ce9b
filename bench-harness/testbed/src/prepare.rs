//! Making what the test bed consists of: once, all or nothing.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::apt::Package;
use crate::error::Error;

/// The file that a finished folder has, and that says what is in it.
const STAMP: &str = "stamp";

/// How the names begin of folders that are being made, and of those for the time of making.
const UNFINISHED: &str = ".new-";
const SCRATCH: &str = ".scratch-";

/// Makes the folder `name` under `dir` with `make`, unless it is there and its stamp begins with
/// `recipe`; another process's doing is waited for. `make` gets an empty folder to fill and another
/// that is removed afterwards, and gives back the packages that it used, which the stamp lists. What an
/// interrupted one left is removed.
pub(crate) fn once(
    dir: &Path,
    name: &str,
    recipe: &str,
    make: impl FnOnce(&Path, &Path) -> Result<Vec<Package>, Error>,
) -> Result<PathBuf, Error> {
    let done = dir.join(name);
    if is_current(&done, recipe) {
        return Ok(done);
    }
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::Unsupported("its programs are for x86-64".into()));
    }
    fs::create_dir_all(dir).map_err(Error::path("create", dir))?;
    let lock = dir.join("lock");
    let lock_file = File::create(&lock).map_err(Error::path("create", &lock))?;
    lock_file.lock().map_err(Error::path("lock", &lock))?;
    if is_current(&done, recipe) {
        return Ok(done);
    }
    remove_leftovers(dir)?;
    say(&format!("preparing {} (once)", done.display()));
    let temporary = |prefix| tempfile::Builder::new().prefix(prefix).tempdir_in(dir);
    let made = temporary(UNFINISHED).map_err(Error::path("create a folder in", dir))?;
    let scratch = temporary(SCRATCH).map_err(Error::path("create a folder in", dir))?;
    let used = make(made.path(), scratch.path())?;
    let stamp = made.path().join(STAMP);
    fs::write(&stamp, stamp_text(recipe, &used)).map_err(Error::path("write", &stamp))?;
    if done.exists() {
        remove(&done)?;
    }
    // Another user than the one who made it may use it.
    let all = fs::Permissions::from_mode(0o755);
    fs::set_permissions(made.path(), all).map_err(Error::path("change", made.path()))?;
    fs::rename(made.keep(), &done).map_err(Error::path("create", &done))?;
    say("prepared");
    Ok(done)
}

fn stamp_text(recipe: &str, used: &[Package]) -> String {
    let mut text = recipe.to_owned();
    for Package { name, version } in used {
        let _ = writeln!(text, "{name} {version}");
    }
    text
}

/// The stamp of the finished folder `folder`.
pub(crate) fn stamp(folder: &Path) -> Result<String, Error> {
    let path = folder.join(STAMP);
    fs::read_to_string(&path).map_err(Error::path("read", &path))
}

/// Whether `folder` was finished, by this recipe.
fn is_current(folder: &Path, recipe: &str) -> bool {
    stamp(folder).is_ok_and(|text| text.starts_with(recipe))
}

/// Removes what interrupted preparations left in `dir`; the lock is held.
fn remove_leftovers(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::path("read", dir))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(UNFINISHED) || name.starts_with(SCRATCH) {
            fs::remove_dir_all(entry.path()).map_err(Error::path("remove", &entry.path()))?;
        }
    }
    Ok(())
}

/// A line of progress.
pub(crate) fn say(line: &str) {
    eprintln!("testbed: {line}");
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::path("write", path))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::path("read", path))
}

pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_dir_all(path).map_err(Error::path("remove", path))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    fn package() -> Vec<Package> {
        vec![Package { name: "a".into(), version: "1".into() }]
    }

    #[test]
    fn it_is_made_once_however_many_ask() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = AtomicU32::new(0);
        let ask = || {
            let make = |folder: &Path, _: &Path| {
                made.fetch_add(1, Ordering::Relaxed);
                write(&folder.join("part"), b"x")?;
                Ok(package())
            };
            once(dir.path(), "base", "recipe 1\n", make).expect("made")
        };
        thread::scope(|scope| {
            for asked in [scope.spawn(ask), scope.spawn(ask), scope.spawn(ask)] {
                assert!(asked.join().expect("no panic").join("part").is_file());
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
        assert_eq!(stamp(&dir.path().join("base")).expect("a stamp"), "recipe 1\na 1\n");
    }

    #[test]
    fn another_recipe_makes_it_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        for (recipe, file) in [("recipe 1\n", "one"), ("recipe 2\n", "two")] {
            let make = |folder: &Path, _: &Path| write(&folder.join(file), b"").map(|()| package());
            once(dir.path(), "base", recipe, make).expect("made");
        }
        assert!(!dir.path().join("base/one").exists());
        assert!(dir.path().join("base/two").exists());
    }

    #[test]
    fn what_was_interrupted_is_not_taken_for_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        // As a process leaves it that was killed, and as one does that failed.
        for name in [".new-1/base", ".scratch-1", "base"] {
            fs::create_dir_all(dir.path().join(name)).expect("a directory");
        }
        let fail = |folder: &Path, _: &Path| {
            write(&folder.join("half"), b"")?;
            Err(Error::Package("no".into()))
        };
        assert!(once(dir.path(), "base", "recipe\n", fail).is_err());
        assert!(!dir.path().join("base/stamp").exists());
        let done = once(dir.path(), "base", "recipe\n", |_, _| Ok(package())).expect("made");
        assert!(!done.join("half").exists());
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).expect("entries").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["base", "lock"]);
    }
}
