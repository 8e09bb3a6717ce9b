//! How to attach a device by each of the project's own doors.

use crate::Entry;
use crate::entry::Kind;

/// What each door is called, and what to write.
pub(crate) fn own(entry: &Entry) -> Vec<(String, String)> {
    let name = entry.name;
    let (behind, measured, socket) = match entry.kind {
        Kind::Disk => ("path=disk.img", "", "disk.sock"),
        Kind::Network => ("backend=tap,ifname=tap0", "", "net.sock"),
    };
    let code = |what: &str, code: String| (what.to_owned(), code);
    vec![
        code("Measure it", format!("paraslot run --device {name}{measured}")),
        code(
            "A Linux guest with it",
            format!("paraslot boot --kernel bzImage --initrd initrd.img --device {name},{behind}"),
        ),
        code(
            "Served to a VMM that is not to be changed",
            format!("paraslot serve --device {name},{behind} --socket /run/paraslot/{socket}"),
        ),
        code(
            "then Cloud Hypervisor",
            format!(
                "cloud-hypervisor … --memory size=1G,shared=on --user-device socket=/run/paraslot/{socket}"
            ),
        ),
        code(
            "then QEMU, from 10.1",
            format!(
                "qemu-system-x86_64 … -object memory-backend-memfd,id=ram,size=1G,share=on \
                 -device '{{\"driver\":\"vfio-user-pci\",\"socket\":{{\"path\":\"/run/paraslot/{socket}\",\"type\":\"unix\"}}}}'"
            ),
        ),
        code("In a VMM of your own, a `PciDevice`", entry.constructor.to_owned()),
    ]
}
