//! A sheet as a document: ten sections, each the answer to a question, whatever shows them.

use paraslot_pci::Picture;

use crate::costs::Cost;
use crate::entry::{Attack, Door, Driver, Family, InBox, Kind, Operations, State};
use crate::live::Live;
use crate::{Block, Sheet, doors};

/// Part of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Sentences.
    Text(String),
    /// Something to be typed, with what it is for.
    Code(String, String),
    /// Rows under a title, which may be empty, and a head.
    Table(Table),
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// A section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    /// A word for links.
    pub(crate) id: &'static str,
    /// The question, in a few words.
    pub(crate) title: &'static str,
    pub(crate) parts: Vec<Part>,
}

fn text(text: impl Into<String>) -> Part {
    Part::Text(text.into())
}

fn table(
    title: impl Into<String>,
    head: &[&'static str],
    rows: impl Iterator<Item = Vec<String>>,
) -> Part {
    Part::Table(Table { title: title.into(), head: head.to_vec(), rows: rows.collect() })
}

fn pair(name: &str, value: impl Into<String>) -> Vec<String> {
    vec![name.to_owned(), value.into()]
}

/// What it is, in a few words.
pub(crate) fn nature(sheet: &Sheet) -> String {
    let family = match sheet.entry.family {
        Family::Paravirtual => "Paravirtual",
        Family::Emulated => "Emulated",
    };
    let kind = match sheet.entry.kind {
        Kind::Disk => "disks",
        Kind::Network => "networks",
    };
    format!("{family}, for {kind}. {}", sheet.entry.title)
}

/// All sections of a sheet, in the order of the questions.
pub(crate) fn sections(sheet: &Sheet) -> Vec<Section> {
    let entry = sheet.entry;
    let section = |id, title, parts| Section { id, title, parts };
    vec![
        section("identity", "Identity", identity(sheet)),
        section("drivers", "Which systems have a driver", drivers(entry.drivers)),
        section("boot", "What it can start", vec![boot(sheet)]),
        section("layout", "Capabilities, BARs and interrupts", layout(&sheet.live)),
        section("features", "Features", features(sheet)),
        section("limits", "Limits", vec![limits(sheet)]),
        section("cost", "What it costs", cost(sheet)),
        section("operations", "Operations", vec![operations(&entry.operations)]),
        section("security", "Security", security(sheet)),
        section("attach", "How to attach it, and when to choose another", attach(sheet)),
        section("registers", "Registers", registers(sheet)),
    ]
}

fn identity(sheet: &Sheet) -> Vec<Part> {
    let Live { picture, names, .. } = &sheet.live;
    let [base, sub, interface] = picture.class;
    let rows = [
        pair("PCI ID", format!("{:04x}:{:04x}", picture.vendor, picture.device)),
        pair("vendor", names.vendor),
        pair("device", names.device),
        pair("subsystem", format!("{:04x}:{:04x}", picture.subsystem_vendor, picture.subsystem)),
        pair("class", format!("{base:02x}{sub:02x}{interface:02x} {}", names.class)),
        pair("revision", format!("{:02x}", picture.revision)),
        pair("specification", sheet.entry.specification),
        pair("crate", sheet.entry.package),
    ];
    vec![
        text(sheet.entry.summary),
        table("", &["", ""], rows.into_iter()),
        text(sheet.entry.history),
    ]
}

fn drivers(drivers: &[Driver]) -> Vec<Part> {
    let row = |driver: &Driver| {
        let from = match driver.in_box {
            InBox::Installer => "installer",
            InBox::System => "system",
            InBox::Extra => "extra",
            InBox::Nobody => "-",
        };
        [driver.system, driver.driver, driver.since, from, driver.note].map(str::to_owned).to_vec()
    };
    let said = "Drivers come with the installer and the system that it installs, with the installed system alone, or \
                extra, to be fetched.";
    let head = ["system", "driver", "since", "comes with", "note"];
    vec![table("", &head, drivers.iter().map(row)), text(said)]
}

fn boot(sheet: &Sheet) -> Part {
    let boot = &sheet.entry.boot;
    let rows = [
        pair("firmware", boot.firmware),
        pair("from a network", boot.pxe),
        pair("as a CD-ROM drive", boot.cdrom),
        pair("a guest from VMware", boot.from_vmware),
    ];
    table("", &["", ""], rows.into_iter())
}

/// Capabilities in words, a row each.
pub(crate) fn capabilities(picture: &Picture) -> Vec<Vec<String>> {
    let row = |found: &paraslot_pci::Capability| {
        let name = if found.name.is_empty() { "not known" } else { found.name };
        vec![
            format!("{:#x}", found.offset),
            format!("{:#04x}", found.id),
            name.to_owned(),
            found.facts.join("; "),
        ]
    };
    picture.capabilities.iter().map(row).collect()
}

fn layout(live: &Live) -> Vec<Part> {
    let bars = live.bars.iter().map(|bar| {
        let kind = if bar.prefetchable {
            format!("{}, prefetchable", bar.kind)
        } else {
            bar.kind.to_owned()
        };
        vec![bar.index.to_string(), kind, size(bar.size)]
    });
    let pin = match (live.intx, live.picture.pin) {
        (true, Some(pin)) => format!("INT{pin}"),
        _ => "none".into(),
    };
    let count = |count: u16| if count == 0 { "none".to_owned() } else { count.to_string() };
    let interrupts = [
        pair("MSI-X vectors", count(live.msix_vectors)),
        pair("MSI vectors", count(live.msi_vectors)),
        pair("INTx pin", pin),
        pair("doorbells that KVM can take as eventfds", live.doorbells.to_string()),
        pair("bytes of registers that need no exit to be read", live.readable.to_string()),
    ];
    let head = ["at", "ID", "capability", "says"];
    vec![
        table("Capabilities", &head, capabilities(&live.picture).into_iter()),
        table("BARs", &["BAR", "decodes", "size"], bars),
        table("Interrupts and doorbells", &["", ""], interrupts.into_iter()),
    ]
}

/// Bytes as people write them.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

fn features(sheet: &Sheet) -> Vec<Part> {
    let of = |state: State, title: &str| {
        let of_state = sheet.entry.features.iter().filter(move |feature| feature.state == state);
        let mut rows = of_state.map(|feature| pair(feature.name, feature.note)).peekable();
        rows.peek().is_some().then(|| table(title, &["", ""], rows))
    };
    let parts = [
        of(State::Implemented, "Implemented"),
        of(State::Accepted, "Accepted, without effect"),
        of(State::Refused, "Refused: a driver is told that it is not there"),
    ];
    parts.into_iter().flatten().collect()
}

fn limits(sheet: &Sheet) -> Part {
    let rows = sheet.entry.limits.iter();
    let rows = rows.map(|limit| [limit.name, limit.value, limit.note].map(str::to_owned).to_vec());
    table("", &["", "", ""], rows)
}

fn cost(sheet: &Sheet) -> Vec<Part> {
    let costs = &sheet.costs;
    let sibling = match sheet.entry.kind {
        Kind::Disk => "ratio to AHCI",
        Kind::Network => "ratio to e1000",
    };
    let mut head = vec![
        "work",
        "thousand/s",
        "p50 µs",
        "p99 µs",
        "exits",
        "trapped",
        "interrupts",
        "guest cycles",
        "CPU µs",
    ];
    let compared = sheet.entry.family == Family::Paravirtual;
    if compared {
        head.push(sibling);
    }
    let row = |cost: &Cost| {
        let mut cells = cost_cells(cost, sheet.entry.kind);
        if compared {
            cells.push(cost.ratio.map_or_else(none, |ratio| range(ratio, 1.0)));
        }
        cells
    };
    let origin = &costs.origin;
    let said = format!(
        "Measured on {} by `paraslot run` on {}: the record {} in docs/measurements. Doorbells were eventfds and \
         registers mapped where KVM can; `trapped` is the exits where every access exits. Exits, interrupts, cycles \
         and the host's CPU time are for each operation; in brackets is the interval that the median is in. Times \
         depend on the host, exits and interrupts do not.",
        origin.date, origin.host, origin.record
    );
    vec![text(said), table("", &head, costs.rows.iter().map(row))]
}

fn cost_cells(cost: &Cost, kind: Kind) -> Vec<String> {
    let depth = match kind {
        Kind::Disk => "depth",
        Kind::Network => "batch",
    };
    let completion = if cost.completion == "poll" { "polled" } else { "by interrupt" };
    let micro = |value: Option<u64>| value.map_or_else(none, |ns| digits(lossy(ns) / 1e3));
    let per = |value: Option<f64>| value.map_or_else(none, |value| format!("{value:.2}"));
    vec![
        format!("{} {}, {depth} {}, {completion}", cost.workload, size(cost.size), cost.depth),
        range(cost.per_second, 1e3),
        micro(cost.p50_ns),
        micro(cost.p99_ns),
        per(cost.exits),
        per(cost.exits_trapped),
        per(cost.interrupts),
        cost.guest_cycles.map_or_else(none, |cycles| format!("{cycles:.0}")),
        cost.host_cpu_ns.map_or_else(none, |ns| digits(ns / 1e3)),
    ]
}

/// A value and the interval that it is in.
fn range((value, low, high): (f64, f64, f64), unit: f64) -> String {
    format!("{} ({}–{})", digits(value / unit), digits(low / unit), digits(high / unit))
}

fn none() -> String {
    "-".into()
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn lossy(value: u64) -> f64 {
    value as f64
}

/// As many decimals as leave three digits or so.
fn digits(value: f64) -> String {
    let decimals = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn operations(operations: &Operations) -> Part {
    let Operations { hotplug, changes, reset, snapshot, migration, viommu, limits } = operations;
    let rows = [
        pair("plugged in and out", *hotplug),
        pair("changes while in use", *changes),
        pair("reset", *reset),
        pair("snapshot", *snapshot),
        pair("live migration", *migration),
        pair("virtual IOMMU", *viommu),
        pair("limits on its use", *limits),
    ];
    table("", &["", ""], rows.into_iter())
}

fn security(sheet: &Sheet) -> Vec<Part> {
    let security = &sheet.entry.security;
    let rows = [
        pair("attack surface", security.surface),
        pair("what a guest can cost", security.footprint),
        pair("fuzz targets", security.fuzz.join(", ")),
        pair("in a process of its own", "`paraslot serve`, behind seccomp and Landlock"),
    ];
    let mut parts = vec![table("", &["", ""], rows.into_iter())];
    if !security.others.is_empty() {
        let row = |attack: &Attack| pair(attack.id, attack.what);
        let title = "Mistakes in other implementations that were made public";
        parts.push(table(title, &["", ""], security.others.iter().map(row)));
    }
    parts
}

fn attach(sheet: &Sheet) -> Vec<Part> {
    let own = doors::own(sheet.entry).into_iter().map(|(name, code)| Part::Code(name, code));
    let code = |door: &Door| Part::Code(door.name.to_owned(), door.text.to_owned());
    let mut parts: Vec<Part> = own.chain(sheet.entry.elsewhere.iter().map(code)).collect();
    let rows = sheet.entry.instead.iter().map(|instead| pair(instead.choose, instead.when));
    parts.push(table("When to choose another", &["choose", "when"], rows));
    parts
}

fn registers(sheet: &Sheet) -> Vec<Part> {
    let blocks = sheet.entry.registers.iter().zip(&sheet.reset_values);
    blocks.map(|(block, values)| block_table(block, values)).collect()
}

fn block_table(block: &Block, values: &[u64]) -> Part {
    let rows = block.registers.iter().zip(values).map(|(register, value)| {
        vec![
            format!("{:#06x}", block.base + register.offset),
            register.width.to_string(),
            register.name.to_owned(),
            register.access.name().to_owned(),
            format!("{value:#x}"),
            register.effect.to_owned(),
        ]
    });
    let repeated = block.repeated.map_or_else(String::new, |(count, distance)| {
        format!("; {count} of them, {distance:#x} bytes apart")
    });
    let title = format!("{}, BAR {}{repeated}", block.name, block.bar);
    table(title, &["offset", "bytes", "register", "access", "at first", "what it is"], rows)
}
