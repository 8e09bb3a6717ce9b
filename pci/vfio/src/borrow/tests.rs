use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::survey::tests::tree;
use crate::uses::tests::Machine;

const ADDRESS: &str = "0000:02:00.0";

/// What the kernel does when such a file is written.
fn kernel(root: &Path, path: &Path, text: &str) {
    let pci = root.join("bus/pci");
    let function = |address: &str| pci.join("devices").join(address);
    match path.file_name().unwrap().to_str().unwrap() {
        "unbind" => fs::remove_file(function(text).join("driver")).unwrap(),
        "drivers_probe" => {
            let wanted = fs::read_to_string(function(text).join("driver_override")).unwrap();
            let driver = match wanted.trim() {
                "" | "(null)" => "e1000e",
                wanted => wanted,
            };
            if driver != "refuses" {
                symlink(pci.join("drivers").join(driver), function(text).join("driver")).unwrap();
            }
        }
        // The file is written over from its start; the kernel takes the text as a whole.
        _ => fs::write(path, if text == "\n" { "(null)\n" } else { text }).unwrap(),
    }
}

fn refusing(root: &Path, path: &Path, text: &str) {
    if path.ends_with("driver_override") && text == VFIO {
        return kernel(root, path, "refuses");
    }
    kernel(root, path, text);
}

fn sysfs(root: &Path, kernel: fn(&Path, &Path, &str)) -> Sysfs {
    let mut sysfs = Sysfs::at(root);
    sysfs.kernel = Some(kernel);
    sysfs
}

fn take(sysfs: &Sysfs) -> Result<Borrowed, VfioError> {
    Borrowed::take_in(sysfs.clone(), ADDRESS.parse().unwrap())
}

const DRIVERS: [&str; 2] = ["e1000e", "vfio-pci"];

#[test]
fn a_function_is_taken_and_given_back() {
    for owner in [Some("e1000e"), None] {
        let tree = tree(&[(ADDRESS, "0x020000\n", owner, Some(7), "flr\n")], &DRIVERS);
        let sysfs = sysfs(tree.path(), kernel);
        let address = ADDRESS.parse().unwrap();
        let borrowed = take(&sysfs).unwrap();
        assert_eq!((borrowed.address(), borrowed.owner()), (address, owner));
        assert_eq!(sysfs.driver(address).as_deref(), Some(VFIO));
        drop(borrowed);
        assert_eq!(sysfs.driver(address).as_deref(), owner);
        assert_eq!(sysfs.attribute(address, "driver_override").unwrap(), "(null)");
    }
}

#[test]
fn one_that_is_bound_already_stays_so() {
    let tree = tree(&[(ADDRESS, "0x020000\n", Some(VFIO), Some(7), "flr\n")], &DRIVERS);
    let sysfs = sysfs(tree.path(), |_, path, _| panic!("{path:?}"));
    drop(take(&sysfs).unwrap());
    assert_eq!(sysfs.driver(ADDRESS.parse().unwrap()).as_deref(), Some(VFIO));
}

#[test]
fn one_that_the_kernel_does_not_bind_has_its_driver_again() {
    let tree = tree(&[(ADDRESS, "0x020000\n", Some("e1000e"), Some(7), "flr\n")], &DRIVERS);
    let sysfs = sysfs(tree.path(), refusing);
    let error = take(&sysfs).unwrap_err().to_string();
    assert!(
        error.contains("cannot bind 0000:02:00.0 to vfio-pci") && error.contains("no driver"),
        "{error}"
    );
    let address = ADDRESS.parse().unwrap();
    assert_eq!(sysfs.driver(address).as_deref(), Some("e1000e"));
    assert_eq!(sysfs.attribute(address, "driver_override").unwrap(), "(null)");
}

/// A disk that is mounted is not taken from under its file system.
#[test]
fn one_that_the_host_uses_is_left_to_it() {
    let mut machine = Machine::new();
    machine.sysfs.kernel = Some(|_, path, _| panic!("{path:?}"));
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.file("proc/self/mountinfo", "22 1 259:0 / / rw - ext4 /dev/root rw\n");
    let error = take(&machine.sysfs).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the host uses 0000:02:00.0: its disk nvme0n1 is mounted at /: unmount that"
    );
    let driver = machine.sysfs.driver(ADDRESS.parse().unwrap());
    assert_eq!(driver.as_deref(), Some("nvme"));
    // What has no driver of the host's is not asked.
    machine.file("proc/self/mountinfo", "");
    machine.sysfs.kernel = Some(kernel);
    drop(take(&machine.sysfs).unwrap());
}

/// What is behind it would lose its way to the host.
#[test]
fn a_bridge_is_not_taken() {
    let tree = tree(&[(ADDRESS, "0x060400\n", Some("pcieport"), Some(7), "")], &DRIVERS);
    let sysfs = sysfs(tree.path(), |_, path, _| panic!("{path:?}"));
    assert!(take(&sysfs).unwrap_err().to_string().contains("it is a bridge"));
}

#[test]
fn giving_it_back_says_whether_it_worked() {
    let functions = [(ADDRESS, "0x020000\n", Some("e1000e"), Some(7), "flr\n")];
    let tree = tree(&functions, &DRIVERS);
    let address = ADDRESS.parse().unwrap();
    let mut sysfs = sysfs(tree.path(), kernel);
    take(&sysfs).unwrap().give_back().unwrap();
    assert_eq!(sysfs.driver(address).as_deref(), Some("e1000e"));
    // The driver does not take it any more. Dropping it is not a second attempt.
    sysfs.kernel = Some(|root, path, text| {
        if path.ends_with("drivers_probe") && root.join("gone").exists() {
            return;
        }
        kernel(root, path, text);
    });
    let borrowed = take(&sysfs).unwrap();
    fs::write(tree.path().join("gone"), "").unwrap();
    let error = borrowed.give_back().unwrap_err().to_string();
    assert!(
        error.contains("cannot bind 0000:02:00.0 to e1000e") && error.contains("has no driver"),
        "{error}"
    );
    // A file of the kernel's that is not there: the override is taken away all the same.
    fs::remove_file(tree.path().join("gone")).unwrap();
    symlink(tree.path().join("bus/pci/drivers/e1000e"), sysfs.function(address).join("driver"))
        .unwrap();
    let borrowed = take(&sysfs).unwrap();
    fs::remove_file(tree.path().join("bus/pci/drivers_probe")).unwrap();
    assert!(borrowed.give_back().is_err());
    assert_eq!(sysfs.attribute(address, "driver_override").unwrap(), "(null)");
}

#[test]
fn what_is_missing_is_said() {
    let tree = tree(
        &[(ADDRESS, "0x020000\n", None, Some(7), ""), ("0000:00:01.0", "", None, None, "")],
        &[],
    );
    let sysfs = sysfs(tree.path(), kernel);
    assert!(take(&sysfs).unwrap_err().to_string().contains("modprobe vfio-pci"));
    let error =
        |address: &str| Borrowed::take_in(sysfs.clone(), address.parse().unwrap()).unwrap_err();
    assert!(error("0000:00:01.0").to_string().contains("no IOMMU group"));
    assert!(error("0000:00:02.0").to_string().contains("no PCI function 0000:00:02.0"));
}
