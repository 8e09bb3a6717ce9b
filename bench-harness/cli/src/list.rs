//! What there is: devices with their options, and workloads.

use std::fmt::Write;

use paraslot_protocol::{Access, Completion, Device};

use crate::identity;
use crate::plan::{DEPTHS, FAMILIES, PATTERNS};
use crate::spec::{family, options};

/// The text of `paraslot list`.
pub(crate) fn text() -> String {
    let mut text = String::from("Devices, for --device NAME,OPTION=VALUE,...\n");
    // Writing to a string does not fail.
    for device in Device::ALL {
        let _ = writeln!(text, "\n  {device} ({})", family(device));
        if let Some(identity) = identity::of(device) {
            let _ = writeln!(text, "  {identity}");
        }
        for info in options(device) {
            let option = format!("{}={}", info.name, info.values);
            let _ = writeln!(text, "    {option:<28}{}", info.what);
        }
    }
    text.push_str("\nWithout a path, backend=file is a temporary image of 256 MiB.\n");
    disks(&mut text);
    networks(&mut text);
    text.push_str("\nparaslot run --list shows what would be measured.\n");
    text
}

fn disks(text: &mut String) {
    let depths = DEPTHS.map(|depth| depth.to_string()).join(" and ");
    let _ = writeln!(
        text,
        "\nWorkloads of disks, each with {depths} operations in flight, polled and by interrupt\n"
    );
    for (access, block_size) in PATTERNS {
        let what = match access {
            Access::RandomRead => "reads at random offsets",
            Access::RandomWrite => "writes at random offsets, read back afterwards",
            Access::SequentialRead => "reads in order",
        };
        let _ = writeln!(text, "  {access:<10} {:>4} KiB  {what}", block_size >> 10);
    }
}

fn networks(text: &mut String) {
    text.push_str("\nWorkloads of networks\n\n");
    for family in &FAMILIES {
        let sizes: Vec<String> = family.frame_sizes.iter().map(u32::to_string).collect();
        let batches: Vec<String> = family.batches.iter().map(u16::to_string).collect();
        let modes: Vec<&str> = family
            .completions
            .iter()
            .map(|completion| match completion {
                Completion::Poll => "polled",
                Completion::Interrupt => "by interrupt",
            })
            .collect();
        let load = family.rate.map_or_else(String::new, |rate| format!(", {rate} a second"));
        let _ = writeln!(
            text,
            "  {:<5} {}\n        {} bytes; {} at once; {}{load}",
            family.flow.name(),
            family.flow.what(),
            sizes.join(", "),
            batches.join(" and "),
            modes.join(" and "),
        );
    }
}
