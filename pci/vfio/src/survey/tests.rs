use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::uses::tests::Machine;

/// A function in the tree: its class, driver, group and reset methods.
type Function<'a> = (&'a str, &'a str, Option<&'a str>, Option<u32>, &'a str);

pub(crate) fn tree(functions: &[Function<'_>], drivers: &[&str]) -> TempDir {
    let tree = TempDir::new().unwrap();
    let pci = tree.path().join("bus/pci");
    fs::create_dir_all(&pci).unwrap();
    for driver in drivers {
        let driver = pci.join("drivers").join(driver);
        fs::create_dir_all(&driver).unwrap();
        fs::write(driver.join("unbind"), "").unwrap();
    }
    fs::write(pci.join("drivers_probe"), "").unwrap();
    for (address, class, driver, group, methods) in functions {
        let function = pci.join("devices").join(address);
        fs::create_dir_all(&function).unwrap();
        let attributes =
            [("vendor", "0x8086\n"), ("device", "0x10d3\n"), ("driver_override", "(null)\n")];
        for (name, text) in
            attributes.into_iter().chain([("class", *class), ("reset_method", methods)])
        {
            fs::write(function.join(name), text).unwrap();
        }
        if let Some(driver) = driver {
            symlink(pci.join("drivers").join(driver), function.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let group = tree.path().join(format!("kernel/iommu_groups/{group}"));
            fs::create_dir_all(group.join("devices")).unwrap();
            symlink(&function, group.join("devices").join(address)).unwrap();
            symlink(&group, function.join("iommu_group")).unwrap();
        }
    }
    tree
}

#[test]
fn each_function_has_what_the_kernel_says_of_it() {
    let functions: [Function<'_>; 3] = [
        ("0000:02:00.0", "0x020000\n", Some("e1000e"), Some(7), "flr bus\n"),
        ("0000:00:1f.0", "0x060100\n", Some("lpc_ich"), Some(3), ""),
        ("0000:00:1f.2", "0x010601\n", None, Some(3), "\n"),
    ];
    let tree = tree(&functions, &["e1000e", "vfio-pci", "lpc_ich"]);
    let found = survey_in(tree.path()).unwrap();
    let [bridge, disk, network] = &found[..] else { panic!("{found:?}") };
    assert_eq!(network.address.to_string(), "0000:02:00.0");
    assert_eq!((network.vendor, network.device, network.class), (0x8086, 0x10d3, [2, 0, 0]));
    assert_eq!((network.driver.as_deref(), network.group), (Some("e1000e"), Some(7)));
    assert_eq!((network.reset_methods.join(" "), network.companions.len()), ("flr bus".into(), 0));
    assert_eq!(network.obstacles, [""; 0]);
    assert_eq!((disk.companions.as_slice(), disk.driver.as_deref()), (&[bridge.address][..], None));
    assert!(
        disk.obstacles[0]
            .contains("0000:00:1f.0 is in the same IOMMU group and has the driver lpc_ich")
    );
    assert!(disk.obstacles[1].contains("cannot reset it") && disk.obstacles.len() == 2);
    assert!(bridge.obstacles[0].contains("a bridge") && bridge.obstacles.len() == 1);
}

#[test]
fn what_a_host_lacks_is_said_with_what_to_do() {
    let tree = tree(&[("0000:02:00.0", "0x020000\n", None, None, "flr\n")], &["e1000e"]);
    let found = survey_in(tree.path()).unwrap();
    let [iommu, module] = &found[0].obstacles[..] else { panic!("{found:?}") };
    assert!(iommu.contains("intel_iommu=on") && module.contains("modprobe vfio-pci"));
    // Others of the group that VFIO can live with.
    let functions: [Function<'_>; 3] = [
        ("0000:02:00.0", "0x020000\n", None, Some(1), "flr\n"),
        ("0000:02:00.1", "0x020000\n", Some("vfio-pci"), Some(1), "flr\n"),
        ("0000:00:01.0", "0x060400\n", Some("pcieport"), Some(1), ""),
    ];
    let found =
        survey_in(super::tests::tree(&functions, &["vfio-pci", "pcieport"]).path()).unwrap();
    assert_eq!(found[1].obstacles, [""; 0]);
}

#[test]
fn what_the_host_does_with_a_function_is_in_the_way() {
    let machine = Machine::new();
    machine.disk("0000:02:00.0/nvme/nvme0/nvme0n1", "259:0");
    machine.file("proc/self/mountinfo", "22 1 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n");
    let found = all(&machine.sysfs).unwrap();
    let used = &found[0].obstacles;
    // The other of the group has a driver.
    assert!(used.len() == 2 && used[1].contains("The host uses it: its disk nvme0n1"), "{used:?}");
    assert_eq!(found[1].obstacles.len(), 1);
}

#[test]
fn a_groups_file_that_may_not_be_opened_is_in_the_way() {
    let mut machine = Machine::new();
    let may_open = machine.sysfs.may_open;
    assert!(may_open(Path::new("/dev/null")) && !may_open(Path::new("/dev/nothing")));
    machine.file("dev/vfio/7", "");
    let obstacles = |machine: &Machine| all(&machine.sysfs).unwrap()[0].obstacles.clone();
    assert_eq!(obstacles(&machine).len(), 1);
    // The tests may be run by someone who may open anything.
    machine.sysfs.may_open = |path| !path.ends_with("dev/vfio/7");
    let obstacles = obstacles(&machine);
    assert!(
        obstacles[1].contains("No permission to open") && obstacles[1].contains("vfio/7: sudo")
    );
}

#[test]
fn a_tree_without_pci_is_an_error_and_a_strange_one_is_not() {
    let empty = TempDir::new().unwrap();
    assert!(survey_in(empty.path()).is_err());
    fs::create_dir_all(empty.path().join("bus/pci/devices/0000:00:01.0")).unwrap();
    fs::create_dir_all(empty.path().join("bus/pci/devices/nonsense")).unwrap();
    let found = survey_in(empty.path()).unwrap();
    assert_eq!((found.len(), found[0].vendor, found[0].class), (1, 0xffff, [0; 3]));
}
