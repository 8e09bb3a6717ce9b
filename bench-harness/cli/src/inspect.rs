//! This machine's own PCI functions, in the catalogue's terms.

mod nature;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets};
use paraslot_catalogue::live::Names;
use paraslot_pci::Picture;
use paraslot_vfio::{HostAddress, HostFunction};
use serde::Serialize;

use crate::args::InspectArgs;
use crate::{hardware, machine};
use nature::Nature;

/// Columns of the terminal that tables may use.
const WIDTH: u16 = 100;
/// A BAR's flags as Linux has them in sysfs (IORESOURCE_IO, IORESOURCE_MEM, IORESOURCE_PREFETCH,
/// IORESOURCE_MEM_64).
const RESOURCE_IO: u64 = 0x100;
const RESOURCE_PREFETCH: u64 = 0x2000;
const RESOURCE_64: u64 = 0x10_0000;

/// What there is to say of a function.
#[derive(Clone, Debug, Serialize)]
struct Inspected {
    address: String,
    names: Names,
    nature: Nature,
    /// The catalogue's name for it.
    catalogue: Option<&'static str>,
    driver: Option<String>,
    bars: Vec<Resource>,
    iommu_group: Option<u32>,
    companions: Vec<String>,
    reset_methods: Vec<String>,
    /// Whether a guest could be given it, once its driver has let go of it.
    passthrough: bool,
    obstacles: Vec<String>,
    picture: Picture,
}

/// Where a BAR is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Resource {
    bar: usize,
    kind: &'static str,
    address: u64,
    size: u64,
}

/// Shows what was asked for.
pub(crate) fn inspect(arguments: &InspectArgs) -> anyhow::Result<()> {
    let functions = paraslot_vfio::survey().context(
        "this machine's PCI functions cannot be seen: it has none, or /sys is not mounted",
    )?;
    let all = look(Path::new("/sys"), &functions, machine::is_virtual());
    let text = match arguments.function {
        Some(address) => {
            let wanted = address.to_string();
            let found = all.iter().find(|function| function.address == wanted);
            let function = found.with_context(|| {
                format!("this machine has no PCI function {address}; paraslot inspect lists those it has")
            })?;
            if arguments.json { json(function)? } else { detail(function) }
        }
        None if arguments.json => json(&all)?,
        None => overview(&all),
    };
    crate::show(&text);
    Ok(())
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// What a tree such as `/sys` says of the functions.
fn look(sysfs: &Path, functions: &[HostFunction], is_virtual: Option<bool>) -> Vec<Inspected> {
    let look = |function: &HostFunction| {
        let folder = sysfs.join("bus/pci/devices").join(function.address.to_string());
        let read = |name| fs::read(folder.join(name)).unwrap_or_default();
        let picture = Picture::of(&read("config"));
        let device = hardware::driver_for(function);
        let known = device.and_then(|device| paraslot_catalogue::find(device.name()));
        Inspected {
            address: function.address.to_string(),
            names: Names::of(&picture),
            nature: Nature::of(&picture, is_virtual, folder.join("physfn").exists()),
            catalogue: known.map(|entry| entry.name),
            driver: function.driver.clone(),
            bars: resources(&String::from_utf8_lossy(&read("resource"))),
            iommu_group: function.group,
            companions: function.companions.iter().map(HostAddress::to_string).collect(),
            reset_methods: function.reset_methods.clone(),
            passthrough: !hardware::is_bridge(function) && function.obstacles.is_empty(),
            obstacles: function.obstacles.clone(),
            picture,
        }
    };
    functions.iter().map(look).collect()
}

/// The BARs: a line each of first address, last address and flags, zeroes where there is none.
fn resources(text: &str) -> Vec<Resource> {
    let line = |(bar, line): (usize, &str)| {
        let mut numbers = line
            .split_whitespace()
            .map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
        let (first, last, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let size = last.checked_sub(first)?.checked_add(1).filter(|_| flags != 0)?;
        let kind = match flags {
            _ if bar == usize::from(paraslot_pci::ROM_BAR) => "expansion ROM",
            _ if flags & RESOURCE_IO != 0 => "I/O ports",
            _ if flags & RESOURCE_64 != 0 && flags & RESOURCE_PREFETCH != 0 => {
                "memory, 64-bit, prefetchable"
            }
            _ if flags & RESOURCE_64 != 0 => "memory, 64-bit",
            _ if flags & RESOURCE_PREFETCH != 0 => "memory, 32-bit, prefetchable",
            _ => "memory, 32-bit",
        };
        Some(Resource { bar, kind, address: first, size })
    };
    // Behind the BARs come a bridge's windows.
    text.lines().take(7).enumerate().filter_map(line).collect()
}

fn name(function: &Inspected) -> String {
    let Picture { vendor, device, .. } = function.picture;
    let mut text = format!("{vendor:04x}:{device:04x}");
    for name in [function.names.vendor, function.names.device] {
        if !name.is_empty() {
            let _ = write!(text, " {name}");
        }
    }
    text
}

fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .force_no_tty()
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH)
        .add_rows(rows);
    if !head.is_empty() {
        table.set_header(head);
    }
    table.trim_fmt()
}

/// All of them, a row each.
fn overview(all: &[Inspected]) -> String {
    let row = |function: &Inspected| {
        let passthrough = match (function.nature.is_bridge(), function.passthrough) {
            (true, _) => "-",
            (false, true) => "yes",
            (false, false) => "no",
        };
        vec![
            function.address.clone(),
            name(function),
            function.nature.word().to_owned(),
            function.driver.clone().unwrap_or_else(|| "-".into()),
            function.iommu_group.map_or_else(|| "-".into(), |group| group.to_string()),
            passthrough.to_owned(),
        ]
    };
    let head = ["function", "is", "nature", "driver", "group", "to a guest"];
    format!(
        "{}\n\nparaslot inspect ADDRESS has all of one: capabilities, BARs, and what stands in the way of a guest's.\n",
        table(&head, all.iter().map(row))
    )
}

/// One, with everything.
fn detail(function: &Inspected) -> String {
    let picture = &function.picture;
    let [base, sub, interface] = picture.class;
    let list = |list: &[String]| if list.is_empty() { "none".into() } else { list.join(", ") };
    let pair = |name: &str, value: String| vec![name.to_owned(), value];
    let mut facts = vec![
        pair("nature", format!("{}: {}", function.nature.word(), function.nature.why())),
        pair("class", format!("{base:02x}{sub:02x}{interface:02x} {}", function.names.class)),
        pair("subsystem", format!("{:04x}:{:04x}", picture.subsystem_vendor, picture.subsystem)),
        pair("revision", format!("{:02x}", picture.revision)),
        pair("INTx pin", picture.pin.map_or_else(|| "none".into(), String::from)),
        pair("driver", function.driver.clone().unwrap_or_else(|| "none".into())),
        pair("reset by", list(&function.reset_methods)),
        pair(
            "IOMMU group",
            match function.iommu_group {
                Some(group) if function.companions.is_empty() => format!("{group}, alone"),
                Some(group) => format!("{group}, with {}", function.companions.join(", ")),
                None => "none".into(),
            },
        ),
    ];
    if let Some(name) = function.catalogue {
        facts.push(pair("in the catalogue", format!("paraslot catalogue {name}")));
    }
    let mut text = format!("{}  {}\n\n{}\n", function.address, name(function), table(&[], facts));
    let bars = function.bars.iter().map(|bar| {
        vec![
            bar.bar.to_string(),
            bar.kind.to_owned(),
            format!("{:#x}", bar.address),
            format!("{:#x}", bar.size),
        ]
    });
    if !function.bars.is_empty() {
        let _ = write!(text, "\n{}\n", table(&["BAR", "decodes", "at", "bytes"], bars));
    }
    let capabilities = picture.capabilities.iter().map(|found| {
        let name = if found.name.is_empty() { "not known" } else { found.name };
        vec![format!("{:#x}", found.offset), name.to_owned(), found.facts.join("; ")]
    });
    if !picture.capabilities.is_empty() {
        let _ = write!(text, "\n{}\n", table(&["at", "capability", "says"], capabilities));
    } else if picture.seen <= 64 {
        text.push_str("\nCapabilities: only root sees them.\n");
    }
    for fault in &picture.faults {
        let _ = writeln!(text, "! its {fault}");
    }
    text.push_str("\nTo a guest, by VFIO: ");
    if function.passthrough {
        let _ = writeln!(text, "yes, with --device vfio,host={}", function.address);
    } else {
        text.push_str("no.\n");
        for obstacle in &function.obstacles {
            let _ = writeln!(text, "  {obstacle}");
        }
    }
    text
}

#[cfg(test)]
mod tests;
