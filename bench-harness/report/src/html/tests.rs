//! The page's structure. How it looks, and what its script does, is `tests/page.rs`, in a browser.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::headline::Headline;
use super::*;
use crate::tests::{frames, in_process, manifest, networks, peer, record, sample};
use crate::{Distribution, Family, Latency, Path, Size};

/// The text between `start` and the first `end` after it.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {start}")).0
}

/// The text of a piece of markup, without its tags.
fn text(markup: &str) -> String {
    markup.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text)).collect()
}

/// The rows of the table of all records, with their cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let table = between(page, "<table id=\"records\">", "</table>");
    let row = |row: &str| {
        let cells = row.split("<t").filter(|cell| cell.starts_with('h') || cell.starts_with('d'));
        cells.map(|cell| text(&format!("<t{cell}"))).collect()
    };
    table.split("<tr").skip(1).map(row).collect()
}

fn sentences(report: &Report) -> String {
    Headline::of(report, &comparisons(&report.results)).sentences.join("\n")
}

#[test]
fn the_same_record_makes_the_same_page() {
    let report = networks();
    let again = Report::from_json(&report.to_json().unwrap()).unwrap();
    assert_eq!(html(&report), html(&again));
}

#[test]
fn the_page_is_all_that_it_needs() {
    let page = html(&networks());
    for outside in ["http://", "https://", "src=", "@import", "<link rel=\"stylesheet"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let references: BTreeSet<_> = page.split("url(").skip(1).map(|rest| &rest[..6]).collect();
    assert_eq!(references, BTreeSet::from(["#hatch"]));
    // What may run and what may be applied is what is there.
    for (tag, of) in [("style", STYLE), ("script", SCRIPT)] {
        assert_eq!(page.matches(&format!("<{tag}>")).count(), 1);
        let inner = between(&page, &format!("<{tag}>"), &format!("</{tag}>"));
        assert_eq!(inner, of);
        let hash = STANDARD.encode(Sha256::digest(inner));
        assert!(
            page.contains(&format!("{tag}-src &#39;sha256-{hash}&#39;"))
                || page.contains(&format!("{tag}-src 'sha256-{hash}'"))
        );
    }
}

#[test]
fn every_record_is_a_row_with_its_figures() {
    let mut report = networks();
    report.results.extend(sample().results);
    let page = html(&report);
    let rows = rows(&page);
    assert_eq!(rows.len(), 1 + report.results.len());
    assert!(rows.iter().all(|row| row.len() == rows[0].len()));
    let column = |name: &str| {
        rows[0].iter().position(|cell| cell == name).unwrap_or_else(|| panic!("{name}"))
    };
    for (row, record) in rows[1..].iter().zip(&report.results) {
        assert_eq!(row[column("device")], figures::device(record));
        assert_eq!(row[column("path")], record.path.to_string());
        let exits = record.exits_per_op.map_or("-".into(), |exits| format!("{exits:.2}"));
        assert_eq!(row[column("exits, per operation")], exits);
        let lost = record.frames_lost.map_or("-".into(), |lost| lost.to_string());
        assert_eq!(row[column("lost, frames")], lost);
    }
    // Every heading says whose it is.
    assert_eq!(
        page.matches("<th ").count() + page.matches("<th>").count(),
        page.matches(" scope=\"").count()
    );
}

#[test]
fn what_was_not_measured_is_a_dash_and_no_bar() {
    let page = html(&in_process());
    let rows = rows(&page);
    let column = |name: &str| rows[0].iter().position(|cell| cell == name).unwrap();
    for name in [
        "latency p50, µs",
        "p99.9, µs",
        "exits, per operation",
        "doorbells, per operation",
        "interrupts, per operation",
        "host CPU, µs per operation",
        "guest cycles, per operation",
        "copied, bytes per operation",
        "interval, thousand/s",
    ] {
        assert!(rows[1..].iter().all(|row| row[column(name)] == "-"), "{name}");
    }
    // Of what nobody measured there is no chart, and beside a peer a device has none of its bars.
    assert_eq!(page.matches("<figure>").count(), 1);
    let mut report = sample();
    report.results.iter_mut().for_each(|record| record.path = Path::Trap);
    let page = html(&report);
    let chart = between(&page, "Exits to the host per operation", "</svg>");
    assert!(chart.contains("virtio-blk (qemu) -"), "{chart}");
    let page = html(&Report::new(manifest(), vec![peer(record("virtio-blk", 1.0, 3))]));
    assert!(!page.contains("Exits to the host per operation"));
    // The same bar if what was measured is that there was none.
    let mut none = record("virtio-blk", 1.0, 3);
    none.exits_per_op = Some(0.0);
    let page = html(&Report::new(manifest(), vec![none]));
    assert!(
        between(&page, "Exits to the host per operation", "</svg>").contains("virtio-blk 0.00")
    );
}

/// The words and figures of both examples, and the count of all the rest.
#[test]
fn the_headline_follows_from_the_records() {
    let mut report = sample();
    assert_eq!(
        sentences(&report),
        "Random reads of 4 KiB, one at a time, by interrupt: virtio-blk does 13 times as many operations \
         a second as ahci. Each operation takes no exits to the host, against 5.00 with ahci; 15.8 µs of \
         host CPU time, against 15.8."
    );
    // Its trap path is another matter, and so is the other monitor.
    let many = |device, kilo: f64| Record {
        path: Path::Event,
        queue_depth: 32,
        exits_per_op: Some(0.0),
        ..record(device, kilo, 3)
    };
    report.results.extend([many("virtio-blk", 90.0), many("ahci", 45.0)]);
    assert!(sentences(&report).contains(" as ahci (2.0 times with 32 at once). Each"));
    assert!(
        sentences(&report)
            .ends_with("is ahead in 2 and behind in none; in 0 the runs do not tell.")
    );
    report.results.pop();
    report.results.push(many("ahci", 90.5));
    let said = sentences(&report);
    let noise = ". With 32 at once, virtio-blk and ahci differ by no more than the runs do among \
                 themselves. Each";
    assert!(said.contains(noise), "{said}");
    assert!(said.ends_with("is ahead in 1 and behind in none; in 1 the runs do not tell."));
    // Networks have a sentence of their own.
    report.results.extend(networks().results.into_iter().map(|mut record| {
        record.path = Path::Event;
        record
    }));
    let said = sentences(&report);
    assert!(
        said.contains("Sending frames of 64 B, 32 at once, by interrupt: virtio-net does 10 times"),
        "{said}"
    );
    let headline_report = report.clone();
    let headline = Headline::of(&headline_report, &comparisons(&headline_report.results)).cards;
    assert_eq!(headline.len(), 2);
    assert_eq!(headline[0].ratio, Some(("13".to_owned(), "ahci".to_owned())));
    assert_eq!(headline[0].records.len(), 2);
}

#[test]
fn several_devices_are_told_apart_by_what_the_runs_tell() {
    let devices = [("virtio-blk", 20.0), ("virtio-scsi", 10.1), ("pvscsi", 5.0), ("ahci", 10.0)];
    let results = devices.map(|(device, kilo)| record(device, kilo, 3)).to_vec();
    let said = sentences(&Report::new(manifest(), results.clone()));
    for part in [
        "virtio-blk does 2.0 times as many operations a second as ahci",
        "; pvscsi does only 0.50 times as many operations a second as ahci",
        "; virtio-scsi and ahci differ by no more than the runs do among themselves",
        "ahead in 1 and behind in 1; in 1 the runs do not tell",
    ] {
        assert!(said.contains(part), "{said}");
    }
    // One figure at the top would be of some of them alone.
    let report = Report::new(manifest(), results);
    assert_eq!(Headline::of(&report, &comparisons(&report.results)).cards[0].ratio, None);
}

#[test]
fn where_there_is_nothing_to_say_nothing_is_said() {
    let quick =
        Report::new(manifest(), vec![record("virtio-blk", 50.0, 1), record("ahci", 5.0, 1)]);
    let emulated = Report::new(
        Manifest { below: Some(crate::EMULATOR.into()), ..manifest() },
        sample().results,
    );
    let apart = Report::new(
        manifest(),
        vec![record("virtio-blk", 50.0, 3), Record { queue_depth: 2, ..record("ahci", 5.0, 3) }],
    );
    for (report, words) in [
        (Report::new(manifest(), Vec::new()), "Nothing was measured"),
        (in_process(), "ran in one process here, without a virtual machine"),
        (quick, "virtio-blk and ahci had too few runs to tell a difference."),
        (emulated, "the host's processor is software"),
        (apart, "no paravirtual one did the same work as an emulated one"),
        (
            Report::new(manifest(), vec![record("virtio-blk", 50.0, 3)]),
            "Of disks only paravirtual ones were measured",
        ),
        (
            Report::new(manifest(), vec![frames("e1000", "tx", 64, 5.0)]),
            "Of network adapters only emulated ones were measured",
        ),
    ] {
        let said = sentences(&report);
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("times as many") && !said.contains("Each operation"), "{said}");
        let page = html(&report);
        assert!(page.contains("id=\"unmeasured\"") && page.contains("id=\"manifest\""));
        assert!(!page.contains("<p class=\"big\">"));
    }
}

#[test]
fn what_was_not_measured_is_said_with_its_reason() {
    let mut report = networks();
    report.results.retain(|record| record.device != "e1000" || record.workload != "tx");
    let lines = unmeasured::lines(&report);
    let has = |line: &str| assert!(lines.iter().any(|other| other == line), "{line}: {lines:#?}");
    has(
        "Exits, CPU time of the host and copied bytes of the devices of qemu: another program's inside, which this one cannot see.",
    );
    has("e1000: not measured in “Sending frames of 64 B”, “Sending frames of 1514 B”.");
    assert!(lines.iter().any(|line| line.starts_with("The path “event”")));
    assert!(!lines.iter().any(|line| line.starts_with("The path “trap”")));
    assert_eq!(unmeasured::lines(&Report::new(manifest(), Vec::new())), [""; 0]);
    let mut odd = record("virtio-blk", 1.0, 3);
    odd.doorbells_per_op = None;
    let lines = unmeasured::lines(&Report::new(manifest(), vec![odd]));
    assert_eq!(lines[0], "Doorbells of virtio-blk: the record does not say why.");
}

/// A report whose every text is `text`, and whose figures are the most that there is.
fn hostile(text: &str) -> Report {
    let odd = |device: &str, family, size| Record {
        device: device.into(),
        family,
        size,
        workload: text.into(),
        vmm: text.into(),
        backend: format!("host={text}"),
        queue_depth: u32::MAX,
        ops_per_second: Distribution { median: f64::MAX, low: f64::MAX, high: -1.0 },
        latency_ns: Some(Latency { p50: u64::MAX, p90: 0, p99: 3, p999: 0, max: 1 }),
        p50_ns: Some(Distribution { median: -1.0, low: f64::MAX, high: f64::MIN_POSITIVE }),
        exits_per_op: Some(f64::MAX),
        host_cpu_ns_per_op: Some(-1e300),
        guest_cycles_per_op: Some(f64::MIN_POSITIVE),
        operations: u64::MAX,
        ..record("ahci", 1.0, u32::MAX)
    };
    let manifest = Manifest {
        version: text.into(),
        revision: Some(text.into()),
        build: text.into(),
        date: text.into(),
        command_line: vec![text.into()],
        cpu_model: Some(text.into()),
        kernel: Some(text.into()),
        hypervisor: Some(text.into()),
        nested: Some(true),
        below: Some(text.into()),
        guest: Some(crate::Guest { name: Some(text.into()), bytes: 1, fnv1a: text.into() }),
        backend: vec![text.into()],
        notes: vec![text.into()],
        ..manifest()
    };
    let mut results = vec![
        odd(text, Family::Paravirtual, Size::Block(u64::MAX)),
        odd(text, Family::Emulated, Size::Block(u64::MAX)),
        Record { path: Path::Passthrough, ..odd(text, Family::Passthrough, Size::Block(u64::MAX)) },
        odd("virtio-net", Family::Paravirtual, Size::Frame(0)),
        odd("e1000", Family::Emulated, Size::Frame(0)),
    ];
    results[3].offered_per_second = Some(0);
    results[4].offered_per_second = Some(0);
    Report::new(manifest, results)
}

/// The tags that there are, with the attributes that they have, without what is quoted.
fn kinds_of_tags(page: &str) -> BTreeSet<String> {
    let (before, _) = page.split_once("<script>").expect("the script is last");
    let kind = |piece: &str| {
        let tag = piece.split_once('>').map_or(piece, |(tag, _)| tag);
        tag.split('"').step_by(2).collect()
    };
    before.split('<').skip(1).map(kind).collect()
}

#[test]
fn a_hostile_record_is_text() {
    let plain = kinds_of_tags(&html(&hostile("x")));
    for text in [
        "<script>owned=1</script>",
        "\"><img src=x onerror=owned=1>",
        "' onmouseover='owned=1",
        "</style></script></svg><svg onload=owned=1>",
        "]]><!-- --><![CDATA[",
        "&lt;b&gt;&#60;script&#62;",
    ] {
        let page = html(&hostile(text));
        // No tag and no attribute that a harmless text does not have, wherever it stands.
        let strange: Vec<_> = kinds_of_tags(&page).difference(&plain).cloned().collect();
        assert_eq!(strange, [""; 0], "{text}");
    }
    let page = html(&hostile("a\u{202e}b\u{0}c\u{2066}d\u{200b}"));
    assert!(!page.contains(['\u{202e}', '\u{0}', '\u{2066}', '\u{200b}']));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever the text, it is text.
    #[test]
    fn any_text_is_text(text in ".{0,60}") {
        let page = html(&hostile(&text));
        prop_assert_eq!(page.matches("<script").count(), 1);
        prop_assert_eq!(page.matches("<style").count(), 1);
        prop_assert_eq!(page.matches("<img").count(), 0);
        prop_assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    /// Whatever the figures, there is a page; and a ratio is in its headline if and only if the runs
    /// tell it.
    #[test]
    fn a_ratio_is_said_only_if_the_runs_tell_it(
        kilo in (0.0..1e4f64, 0.0..1e4f64),
        runs in (1u32..8, 1u32..8),
        latency in (any::<u64>(), any::<u64>()),
    ) {
        let mut results = vec![record("virtio-blk", kilo.0, runs.0), record("ahci", kilo.1, runs.1)];
        let (p50, p999) = latency;
        results[0].latency_ns = Some(Latency { p50, p90: p50, p99: p999, p999, max: p999 });
        let report = Report::new(manifest(), results);
        let compared = comparisons(&report.results);
        let is_told = compared.iter().any(|found| {
            matches!(found.verdict, crate::Verdict::Faster | crate::Verdict::Slower)
        });
        let said = sentences(&report);
        prop_assert_eq!(said.contains("times as many"), is_told, "{}", said);
        prop_assert_eq!(said.contains("Each operation"), is_told, "{}", said);
        prop_assert_eq!(html(&report).contains("<p class=\"big\">"), is_told && compared[0].ratio > 1.0);
    }
}
