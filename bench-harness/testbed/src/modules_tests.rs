use proptest::prelude::*;

use super::*;

/// An ELF file with the sections "", `.shstrtab` and `.modinfo`.
fn module(records: &[&str]) -> Vec<u8> {
    let info: Vec<u8> = records.iter().flat_map(|record| record.bytes().chain([0])).collect();
    let names = b"\0.shstrtab\0.modinfo\0";
    let mut elf = vec![0; 0x40];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let names_at = elf.len();
    elf.extend_from_slice(names);
    let info_at = elf.len();
    elf.extend_from_slice(&info);
    let table = elf.len();
    for (name, at, length) in [(0u32, 0, 0), (1, names_at, names.len()), (11, info_at, info.len())]
    {
        let mut header = [0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[0x18..0x20].copy_from_slice(&at.to_le_bytes());
        header[0x20..0x28].copy_from_slice(&length.to_le_bytes());
        elf.extend_from_slice(&header);
    }
    elf[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    elf[0x3a..0x3c].copy_from_slice(&64u16.to_le_bytes());
    elf[0x3c..0x3e].copy_from_slice(&3u16.to_le_bytes());
    elf[0x3e..0x40].copy_from_slice(&1u16.to_le_bytes());
    elf
}

/// A kernel's modules, each with its records; `base` is built in.
fn tree(modules: &[(&str, &[&str])]) -> (tempfile::TempDir, Tree) {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(root.path().join("kernel/drivers")).expect("a directory");
    fs::write(root.path().join("modules.builtin"), "kernel/lib/base.ko\n").expect("a file");
    for (name, records) in modules {
        fs::write(root.path().join(format!("kernel/drivers/{name}.ko")), module(records))
            .expect("a file");
    }
    let tree = Tree::open(root.path()).expect("a tree");
    (root, tree)
}

fn names(modules: &[Module]) -> Vec<String> {
    modules.iter().filter_map(|module| module_name(&module.path)).collect()
}

#[test]
fn records_are_read_from_their_section() {
    let bytes = module(&["depends=a,b", "alias=pci:v*", "no record", "alias=fs-x", "parm=x=1"]);
    let expected =
        vec![("depends", "a,b"), ("alias", "pci:v*"), ("alias", "fs-x"), ("parm", "x=1")];
    assert_eq!(modinfo(&bytes), Some(expected));
}

#[test]
fn a_module_comes_behind_what_it_needs() {
    let (_root, tree) = tree(&[
        ("virtio_net", &["depends=net_failover,virtio", "softdep=pre: crc post: late"]),
        ("net-failover", &["depends=failover,base"]),
        ("failover", &["depends="]),
        ("virtio", &["depends=failover"]),
        ("crc_generic", &["depends="]),
        ("late", &["depends="]),
    ]);
    let closure = tree.closure(&["virtio-net", "base"]).expect("all there");
    assert_eq!(
        names(&closure),
        ["crc_generic", "failover", "net_failover", "virtio", "virtio_net"]
    );
}

#[test]
fn a_module_that_is_not_there_is_named() {
    let (_root, tree) = tree(&[("a", &["depends=gone"])]);
    let error = tree.closure(&["a"]).expect_err("gone is not there");
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn modules_that_need_each_other_do_not_loop() {
    let (_root, tree) = tree(&[("a", &["depends=b"]), ("b", &["depends=a"])]);
    let closure = tree.closure(&["a"]).expect("all there");
    assert_eq!(names(&closure), ["b", "a"]);
    assert_eq!(dep_index(&closure).lines().count(), 2);
}

#[test]
fn the_indices_name_paths_and_aliases() {
    let (_root, tree) = tree(&[
        ("disk", &["depends=bus", "alias=pci:v1d2*", "alias=virtio:d2"]),
        ("bus", &["depends=ring"]),
        ("ring", &["depends=", "alias=ring-x"]),
    ]);
    let closure = tree.closure(&["disk"]).expect("all there");
    let path = |name: &str| format!("kernel/drivers/{name}.ko");
    let (ring, bus, disk) = (path("ring"), path("bus"), path("disk"));
    // The last of a line is loaded first.
    assert_eq!(dep_index(&closure), format!("{ring}:\n{bus}: {ring}\n{disk}: {bus} {ring}\n"));
    assert_eq!(
        alias_index(&closure),
        "alias ring-x ring\nalias pci:v1d2* disk\nalias virtio:d2 disk\n"
    );
}

proptest! {
    #[test]
    fn hostile_modules_are_refused_quietly(changes in prop::collection::vec((0..400usize, any::<u8>()), 0..20), cut in 0..400usize) {
        let mut bytes = module(&["depends=a,b", "alias=x"]);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        let _ = modinfo(&bytes);
    }
}
