//! Kernel modules: what a set of them needs, and the indices by which `modprobe` finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The modules of one kernel, as its package has them.
#[derive(Debug)]
pub(crate) struct Tree {
    /// The folder `lib/modules/<version>`.
    root: PathBuf,
    /// Names to paths below the root.
    files: BTreeMap<String, PathBuf>,
    /// What is part of the kernel itself.
    built_in: BTreeSet<String>,
}

/// A module, and what it says about itself.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// Its file, below the tree's root.
    pub(crate) path: PathBuf,
    /// What must be loaded before it.
    depends: Vec<String>,
    aliases: Vec<String>,
}

impl Tree {
    /// Reads the names of the modules under `root`.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        let mut folders = vec![root.join("kernel")];
        while let Some(folder) = folders.pop() {
            let entries = fs::read_dir(&folder).map_err(Error::path("read", &folder))?;
            for entry in entries {
                let path = entry.map_err(Error::path("read", &folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let (Some(name), Ok(below)) =
                    (module_name(&path), path.strip_prefix(root))
                {
                    files.insert(name, below.to_owned());
                }
            }
        }
        let list = root.join("modules.builtin");
        let text = fs::read_to_string(&list).map_err(Error::path("read", &list))?;
        let built_in = text.lines().filter_map(|line| module_name(Path::new(line))).collect();
        Ok(Self { root: root.to_owned(), files, built_in })
    }

    /// `wanted` and all they need, each behind what it needs. What is built in is left out; what
    /// is not there at all is an error.
    pub(crate) fn closure(&self, wanted: &[&str]) -> Result<Vec<Module>, Error> {
        let mut closure = Closure { tree: self, order: Vec::new(), seen: BTreeSet::new() };
        for name in wanted {
            closure.add(&normal(name))?;
        }
        Ok(closure.order)
    }

    /// The tree's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }
}

struct Closure<'a> {
    tree: &'a Tree,
    order: Vec<Module>,
    seen: BTreeSet<String>,
}

impl Closure<'_> {
    fn add(&mut self, name: &str) -> Result<(), Error> {
        if self.tree.built_in.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.tree.files.get(name);
        let path =
            path.ok_or_else(|| Error::Package(format!("the kernel has no module {name}")))?;
        let file = self.tree.root.join(path);
        let bytes = fs::read(&file).map_err(Error::path("read", &file))?;
        let records = modinfo(&bytes)
            .ok_or_else(|| Error::Package(format!("{} is no module", file.display())))?;
        let mut module = Module { path: path.clone(), depends: Vec::new(), aliases: Vec::new() };
        for (key, value) in records {
            match key {
                "depends" => module
                    .depends
                    .extend(value.split(',').filter(|name| !name.is_empty()).map(normal)),
                "alias" => module.aliases.push(value.to_owned()),
                "softdep" => {
                    // A wish: an algorithm's name (`crc32c`), of which the plain implementation will do.
                    for name in softdep(value) {
                        let choices = [normal(name), normal(name) + "_generic"];
                        for choice in
                            choices.iter().filter(|choice| self.tree.files.contains_key(*choice))
                        {
                            self.add(choice)?;
                        }
                    }
                }
                _ => {}
            }
        }
        for name in &module.depends {
            self.add(name)?;
        }
        self.order.push(module);
        Ok(())
    }
}

/// `modules.dep`: each module and all it needs, the nearest first.
pub(crate) fn dep_index(modules: &[Module]) -> String {
    let by_name: BTreeMap<String, &Module> =
        modules.iter().filter_map(|module| Some((module_name(&module.path)?, module))).collect();
    let mut text = String::new();
    for module in modules {
        let mut order = Vec::new();
        collect(&by_name, module, &mut BTreeSet::new(), &mut order);
        let _ = write!(text, "{}:", module.path.display());
        // The order of loading; the index has it the other way round, and the module itself first.
        for path in order.iter().rev().skip(1) {
            let _ = write!(text, " {}", path.display());
        }
        text.push('\n');
    }
    text
}

/// Adds to `order` all that `module` needs and is not `seen` yet, then `module`.
fn collect<'a>(
    by_name: &BTreeMap<String, &'a Module>,
    module: &'a Module,
    seen: &mut BTreeSet<&'a Path>,
    order: &mut Vec<&'a Path>,
) {
    if !seen.insert(&module.path) {
        return;
    }
    for needed in module.depends.iter().filter_map(|name| by_name.get(name)) {
        collect(by_name, needed, seen, order);
    }
    order.push(&module.path);
}

/// `modules.alias`: which module serves a device's or a file system's name.
pub(crate) fn alias_index(modules: &[Module]) -> String {
    let mut text = String::new();
    for module in modules {
        let Some(name) = module_name(&module.path) else { continue };
        for alias in &module.aliases {
            let _ = writeln!(text, "alias {alias} {name}");
        }
    }
    text
}

/// The records of a module's `.modinfo` section; none if `bytes` are no module.
pub(crate) fn modinfo(bytes: &[u8]) -> Option<Vec<(&str, &str)>> {
    // ELF, 64 bits, little-endian.
    bytes.starts_with(b"\x7fELF\x02\x01").then_some(())?;
    let table = offset(bytes, 0x28)?;
    let [size, count, names] = [0x3a, 0x3c, 0x3e].map(|at| half(bytes, at));
    let section = |index: usize| bytes.get(table.checked_add(index.checked_mul(size?)?)?..);
    let content = |header: &[u8]| {
        let start = offset(header, 0x18)?;
        bytes.get(start..start.checked_add(offset(header, 0x20)?)?)
    };
    let names = content(section(names?)?)?;
    for index in 0..count? {
        let header = section(index)?;
        let name = usize::try_from(u32::from_le_bytes(*header.first_chunk()?)).ok()?;
        if !names.get(name..).is_some_and(|name| name.starts_with(b".modinfo\0")) {
            continue;
        }
        let records = content(header)?.split(|&byte| byte == 0);
        let records =
            records.filter_map(|record| std::str::from_utf8(record).ok()?.split_once('='));
        return Some(records.collect());
    }
    None
}

/// The 64-bit number at `at`, as an offset into memory.
fn offset(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

/// What a soft dependency wishes to be loaded before the module.
fn softdep(value: &str) -> impl Iterator<Item = &str> {
    let mut before = false;
    value.split_whitespace().filter(move |word| {
        match *word {
            "pre:" => before = true,
            "post:" => before = false,
            _ => return before,
        }
        false
    })
}

/// The name of the module in the file `path`.
fn module_name(path: &Path) -> Option<String> {
    (path.extension()? == "ko").then_some(())?;
    Some(normal(path.file_stem()?.to_str()?))
}

/// A module's name as the kernel has it.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
