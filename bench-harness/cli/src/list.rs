//! What there is: devices with their options, and workloads.

use std::fmt::Write;

use paraslot_protocol::{Access, Completion, Device};
use paraslot_report::Family;

use crate::identity;
use crate::plan::{DEPTHS, FAMILIES, PATTERNS, STREAMS};
use crate::spec::{HOST, HOST_OPTIONS, OptionInfo, Purpose, family, options};

/// The text of `paraslot list`.
pub(crate) fn text() -> String {
    let mut text = String::from("Devices, for --device NAME,OPTION=VALUE,...\n");
    // Writing to a string does not fail.
    for device in Device::MODELS {
        let _ = writeln!(text, "\n  {device} ({})", family(device));
        if let Some(identity) = identity::of(device) {
            let _ = writeln!(text, "  {identity}");
        }
        table(&mut text, options(device));
    }
    let _ = writeln!(text, "\n  {HOST} ({})", Family::Passthrough);
    let known = Device::ALL.map(Device::name).join(", ");
    let _ = writeln!(
        text,
        "  a function of this host's: see paraslot doctor; to measure one of\n  {known}"
    );
    table(&mut text, HOST_OPTIONS);
    text.push_str(
        "\nr, b, s: for paraslot run, boot and serve alone. To boot and to serve, disks need a path.\n",
    );
    text.push_str("To measure, backend=file without a path is a temporary image of 256 MiB.\n");
    disks(&mut text);
    networks(&mut text);
    linux(&mut text);
    text.push_str("\nparaslot run --list shows what would be measured, paraslot boot --help what can be booted,\nparaslot serve --help what can be served.\n");
    text
}

/// A device's options.
fn table(text: &mut String, options: &[OptionInfo]) {
    for info in options {
        let option = format!("{}={}", info.name, info.values);
        let purposes = [(Purpose::Measure, 'r'), (Purpose::Boot, 'b'), (Purpose::Serve, 's')];
        let only: String = if purposes.iter().all(|(purpose, _)| info.is_for(*purpose)) {
            String::new()
        } else {
            let only = purposes.iter().filter(|(purpose, _)| info.is_for(*purpose));
            only.map(|(_, letter)| letter).collect()
        };
        let _ = writeln!(text, "  {only:<2} {option:<28}{}", info.what);
    }
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
            Access::Fill => "writes in order",
        };
        let _ = writeln!(text, "  {access:<10} {:>4} KiB  {what}", block_size >> 10);
    }
}

fn linux(text: &mut String) {
    text.push_str(
        "\nIn Linux (--guest linux) disks have the same, by interrupt; networks have TCP, with the\nhost's \
         at the other end\n\n",
    );
    for workload in STREAMS {
        let (name, what) = (workload.stream.name(), workload.stream.what());
        let _ = writeln!(text, "  {name:<6} {what}\n         {} at once", workload.size);
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
