//! Debian packages, fetched with the host's `apt-get` under a configuration of our own.
//!
//! Nothing of the host's is changed and no privilege is needed: apt's state, cache and sources are
//! in a folder of ours, and its list of installed packages is empty. So the whole closure of a
//! package is found, the C library included, and what comes of it depends on Debian alone. apt checks
//! the archive's signatures.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::sources::{Mirrors, SUITE};

/// Where Debian keeps the keys of its archive: a host of another release has them under a newer name.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// The environment variable that names a mirror, for hosts whose own sources are not Debian's.
const MIRROR: &str = "PARASLOT_DEBIAN_MIRROR";

/// A package and its version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// apt, with indices of its own that are up to date.
#[derive(Debug)]
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Makes a configuration in the new folder `folder` and fetches the indices.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if this host has no apt, or its apt knows no Debian mirror.
    pub(crate) fn new(folder: &Path) -> Result<Self, Error> {
        for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb", "tar"] {
            if !in_path(program) {
                let missing = format!(
                    "{program} is missing (Debian's packages apt, dpkg and tar have them all)"
                );
                return Err(Error::Unsupported(missing));
            }
        }
        let mirrors = match std::env::var(MIRROR) {
            Ok(main) => Some(Mirrors { main, security: None }),
            Err(_) => Mirrors::of_host(Path::new("/etc/apt")),
        };
        let mirrors = mirrors.ok_or_else(|| {
            Error::Unsupported(format!(
                "the sources in /etc/apt name no mirror of Debian's; {MIRROR} may name one"
            ))
        })?;
        for path in ["state/lists/partial", "cache/archives/partial", "etc/parts"] {
            let path = folder.join(path);
            fs::create_dir_all(&path).map_err(Error::path("create", &path))?;
        }
        let write = |name: &str, text: &[u8]| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(Error::path("write", &path))
        };
        write("status", b"")?;
        write("etc/sources.list", sources_list(&mirrors, keyring().as_deref()).as_bytes())?;
        write("apt.conf", &configuration(folder, &host_acquire()?))?;
        let apt = Self { folder: folder.to_owned() };
        apt.output("apt-get", ["-qq", "update"], folder)?;
        Ok(apt)
    }

    /// What `roots` need to run, themselves included. A root may name a release (`qemu/bookworm-backports`).
    pub(crate) fn closure(&self, roots: &[&str]) -> Result<Vec<Package>, Error> {
        let arguments = ["-qq", "--simulate", "install"].iter().chain(roots);
        let text = self.output("apt-get", arguments, &self.folder)?;
        let mut packages: Vec<Package> = text.lines().filter_map(planned).collect();
        packages.sort();
        Ok(packages)
    }

    /// The package of which `name` is the current alias and that begins with `prefix`.
    pub(crate) fn dependency(&self, name: &str, prefix: &str) -> Result<String, Error> {
        let text = self.output("apt-cache", ["show", "--no-all-versions", name], &self.folder)?;
        let depends =
            text.lines().find_map(|line| line.strip_prefix("Depends:")).unwrap_or_default();
        let names = depends.split([',', '|']).filter_map(|item| item.split_whitespace().next());
        let mut names = names.filter(|name| name.starts_with(prefix));
        names
            .next()
            .map(str::to_owned)
            .ok_or_else(|| Error::Package(format!("{name} depends on no {prefix}…")))
    }

    /// The version of `name` that would be installed.
    pub(crate) fn candidate(&self, name: &str) -> Result<Package, Error> {
        let text = self.output("apt-cache", ["show", "--no-all-versions", name], &self.folder)?;
        let version =
            text.lines().find_map(|line| line.strip_prefix("Version:")).unwrap_or_default().trim();
        Ok(Package { name: name.to_owned(), version: version.to_owned() })
    }

    /// Fetches `packages` and unpacks them into the tree `root`, in which `/bin`, `/sbin` and `/lib`
    /// are links into `/usr`. The archives do not stay.
    pub(crate) fn unpack(&self, packages: &[Package], root: &Path) -> Result<(), Error> {
        merge_usr(root)?;
        let folder = self.folder.join("deb");
        fs::create_dir_all(&folder).map_err(Error::path("create", &folder))?;
        let names: Vec<String> = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        self.output(
            "apt-get",
            ["-qq", "download"].into_iter().chain(names.iter().map(String::as_str)),
            &folder,
        )?;
        let mut archives: Vec<PathBuf> = fs::read_dir(&folder)
            .map_err(Error::path("read", &folder))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension() == Some(OsStr::new("deb")))
            .collect();
        archives.sort();
        for archive in &archives {
            extract(archive, root)?;
        }
        fs::remove_dir_all(&folder).map_err(Error::path("remove", &folder))
    }

    /// What `program` writes, run in `folder`.
    fn output<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
        folder: &Path,
    ) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        command
            .env("APT_CONFIG", self.folder.join("apt.conf"))
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        output(&mut command, Stdio::null())
    }
}

/// Unpacks `archive` into `root`. `dpkg-deb --extract` would put folders in the place of the links.
fn extract(archive: &Path, root: &Path) -> Result<(), Error> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(archive).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut unpack = unpack.spawn().map_err(Error::io("run dpkg-deb"))?;
    let mut place = Command::new("tar");
    place
        .args([
            "--extract",
            "--keep-directory-symlink",
            "--no-same-owner",
            "--file=-",
            "--directory",
        ])
        .arg(root);
    let placed = match unpack.stdout.take() {
        Some(pipe) => output(&mut place, Stdio::from(pipe)).map(drop),
        None => Ok(()),
    };
    let status = unpack.wait().map_err(Error::io("wait for dpkg-deb"))?;
    if !status.success() {
        let output = format!("{} is damaged ({status})", archive.display());
        return Err(Error::Tool { what: "dpkg-deb --fsys-tarfile".into(), output });
    }
    placed
}

/// What `command`, reading `input`, writes to its standard output, if it succeeds.
pub(crate) fn output(command: &mut Command, input: Stdio) -> Result<String, Error> {
    let program = Path::new(command.get_program()).display().to_string();
    let output = command.stdin(input).output().map_err(Error::io(format!("run {program}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let first = command
        .get_args()
        .find(|argument| !argument.as_bytes().starts_with(b"-"))
        .unwrap_or_default();
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim();
    // One line: apt's last ones are those that matter.
    let tail: Vec<&str> = words.lines().rev().take(4).collect();
    let tail: Vec<&str> = tail.into_iter().rev().map(str::trim).collect();
    let what = format!("{program} {} ({})", first.to_string_lossy(), output.status);
    Err(Error::Tool { what, output: tail.join("; ") })
}

/// The sources of the releases that are used. apt takes from the backports only what is asked of them.
fn sources_list(mirrors: &Mirrors, keyring: Option<&Path>) -> String {
    let options =
        keyring.map(|path| format!("[signed-by={}] ", path.display())).unwrap_or_default();
    let main = &mirrors.main;
    let mut text =
        format!("deb {options}{main} {SUITE} main\ndeb {options}{main} {SUITE}-backports main\n");
    if let Some(security) = &mirrors.security {
        text.push_str(&format!("deb {options}{security} {SUITE}-security main\n"));
    }
    text
}

/// apt's configuration: everything in `folder`, and how to reach a mirror as the host does.
fn configuration(folder: &Path, acquire: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, path) in [
        ("Dir::Etc::Parts", "etc/parts"),
        ("Dir::Etc::SourceList", "etc/sources.list"),
        ("Dir::Etc::SourceParts", "etc/parts"),
        ("Dir::Etc::PreferencesParts", "etc/parts"),
        ("Dir::Etc::Preferences", "etc/preferences"),
        ("Dir::State", "state"),
        ("Dir::State::Status", "status"),
        ("Dir::Cache", "cache"),
    ] {
        bytes.extend_from_slice(format!("{name} \"").as_bytes());
        bytes.extend_from_slice(folder.join(path).as_os_str().as_bytes());
        bytes.extend_from_slice(b"\";\n");
    }
    bytes.extend_from_slice(acquire.as_bytes());
    bytes.extend_from_slice(
        b"Dir::Etc::Main \"-\";\nAPT::Architecture \"amd64\";\nAPT::Install-Recommends \"false\";\n\
        APT::Get::Assume-Yes \"true\";\nAPT::Sandbox::User \"\";\nDebug::NoLocking \"true\";\n\
        Acquire::Languages \"none\";\nAcquire::Retries \"3\";\nAPT::Update::Error-Mode \"any\";\n",
    );
    bytes
}

/// How the host's apt reaches mirrors: proxies, time limits.
fn host_acquire() -> Result<String, Error> {
    let text = output(
        Command::new("apt-config").args(["dump", "Acquire"]).env("LC_ALL", "C"),
        Stdio::null(),
    )?;
    let wanted = |line: &&str| line.starts_with("Acquire::http") && !line.ends_with(" \"\";");
    Ok(text.lines().filter(wanted).map(|line| format!("{line}\n")).collect())
}

/// The package that a line of `apt-get --simulate` would install: `Inst name (version release [arch])`.
fn planned(line: &str) -> Option<Package> {
    let mut words = line.strip_prefix("Inst ")?.split_whitespace();
    let name = words.next()?.split(':').next()?.to_owned();
    let version = words.next()?.strip_prefix('(')?.to_owned();
    Some(Package { name, version })
}

fn keyring() -> Option<PathBuf> {
    KEYRINGS.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Whether a program of this name is in one of `PATH`'s folders.
fn in_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    })
}

/// Makes the top of a tree in which `/bin`, `/sbin`, `/lib` and `/lib64` are links into `/usr`, as on
/// Debian; the packages themselves still have files on both sides.
fn merge_usr(root: &Path) -> Result<(), Error> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let folder = root.join("usr").join(name);
        fs::create_dir_all(&folder).map_err(Error::path("create", &folder))?;
        let link = root.join(name);
        if !link.is_symlink() {
            std::os::unix::fs::symlink(Path::new("usr").join(name), &link)
                .map_err(Error::path("create", &link))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_packages_are_read() {
        let package = |name: &str, version: &str| {
            Some(Package { name: name.into(), version: version.into() })
        };
        assert_eq!(
            planned("Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])"),
            package("libc6", "2.36-9+deb12u14")
        );
        assert_eq!(
            planned("Inst fio:amd64 (3.33-3 Debian:12 [amd64]) []"),
            package("fio", "3.33-3")
        );
        for line in ["Conf libc6 (2.36 Debian [amd64])", "Inst", "Inst libc6", "", "Remv x [1]"] {
            assert_eq!(planned(line), None, "{line}");
        }
    }

    #[test]
    fn sources_have_the_key_and_the_suites() {
        let mirrors = Mirrors {
            main: "http://a.test/debian".into(),
            security: Some("http://a.test/s".into()),
        };
        let expected = "deb [signed-by=/k] http://a.test/debian bookworm main\n\
            deb [signed-by=/k] http://a.test/debian bookworm-backports main\n\
            deb [signed-by=/k] http://a.test/s bookworm-security main\n";
        assert_eq!(sources_list(&mirrors, Some(Path::new("/k"))), expected);
        let mirrors = Mirrors { security: None, ..mirrors };
        assert!(
            sources_list(&mirrors, None).starts_with("deb http://a.test/debian bookworm main\n")
        );
    }

    #[test]
    fn a_program_that_fails_is_named_with_its_last_words() {
        let error = output(
            Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]),
            Stdio::null(),
        )
        .expect_err("it fails");
        let text = error.to_string();
        assert!(
            text.contains("sh") && text.contains("exit status: 3") && text.ends_with("one; two"),
            "{text}"
        );
    }

    #[test]
    fn a_tree_is_merged_once_or_twice() {
        let root = tempfile::tempdir().expect("a directory");
        merge_usr(root.path()).expect("merged");
        merge_usr(root.path()).expect("merged again");
        assert_eq!(fs::read_link(root.path().join("lib")).expect("a link"), Path::new("usr/lib"));
    }
}
