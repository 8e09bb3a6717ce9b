//! What there is: devices with their options, and workloads.

use std::fmt::Write;

use crate::identity;
use crate::plan::{DEPTHS, WORKLOADS};
use crate::spec::{DEVICES, family, options};

/// The text of `paraslot list`.
pub(crate) fn text() -> String {
    let mut text = String::from("Devices, for --device NAME,OPTION=VALUE,...\n");
    // Writing to a string does not fail.
    for device in DEVICES {
        let _ = writeln!(text, "\n  {device} ({})", family(device));
        if let Some(identity) = identity::of(device) {
            let _ = writeln!(text, "  {identity}");
        }
        for info in options(device) {
            let option = format!("{}={}", info.name, info.values);
            let _ = writeln!(text, "    {option:<28}{}", info.what);
        }
    }
    text.push_str(
        "\nWithout a path, backend=file is a temporary image of 256 MiB.\n\nWorkloads, each with ",
    );
    let depths = DEPTHS.map(|depth| depth.to_string()).join(" and ");
    let _ = writeln!(text, "{depths} operations in flight, completions polled and by interrupt\n");
    for workload in WORKLOADS {
        let size = workload.block_size >> 10;
        let what = match workload.access {
            paraslot_protocol::Access::RandomRead => "reads at random offsets",
            paraslot_protocol::Access::RandomWrite => {
                "writes at random offsets, read back afterwards"
            }
            paraslot_protocol::Access::SequentialRead => "reads in order",
        };
        let _ = writeln!(text, "  {:<10} {size:>4} KiB  {what}", workload.access);
    }
    text.push_str("\nparaslot run --list shows what would be measured.\n");
    text
}
