//! The page in a browser: what it looks like at several sizes, in light and dark and on paper, and what
//! its script does. Where there is no Chromium this says so and passes, unless `CI` is set.

use std::fs;
use std::path::PathBuf;

use browser::{Browser, View};
use paraslot_report::{Family, Report, html};
use serde_json::{Value, json};
use tempfile::TempDir;

mod browser;

/// Looks for faults of the page as it is shown; what it returns is a list of them.
const FAULTS: &str = include_str!("browser/faults.js");

const SCREENS: [u32; 3] = [360, 768, 1280];
/// What is left of A4 paper upright and on its side, in CSS pixels.
const PAPER: [u32; 2] = [703, 1058];

/// The records of `docs/measurements`, by their names.
fn records() -> Vec<(String, Report)> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/measurements");
    let files = fs::read_dir(place).expect("records").map(|entry| entry.expect("a file").path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).expect("readable");
        let report = Report::from_json(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, report)
    };
    files.into_iter().map(read).collect()
}

fn record(name: &str) -> Report {
    records().into_iter().find(|(other, _)| other == name).expect("the record is there").1
}

/// A browser; `None`, and a word about it, where there is none.
fn browser() -> Option<Browser> {
    let browser = Browser::start();
    if browser.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI needs Chromium (apt-get install chromium)");
        eprintln!("skipped: no Chromium here (apt-get install chromium)");
    }
    browser
}

/// The page of a report, as a file that is there as long as the directory is.
fn page(report: &Report) -> (TempDir, PathBuf) {
    let place = TempDir::new().expect("a directory");
    let file = place.path().join("report.html");
    fs::write(&file, html(report)).expect("written");
    (place, file)
}

/// Every way to look at a page.
fn views() -> Vec<View> {
    let screens = SCREENS.into_iter().flat_map(|width| {
        [false, true].map(|dark| View { width, height: 800, dark, print: false })
    });
    // A dark screen makes no dark paper.
    let paper = PAPER.map(|width| View { width, height: 1000, dark: true, print: true });
    screens.chain(paper).collect()
}

/// All records that there are make all documents.
#[test]
fn every_stored_record_can_be_shown() {
    let records = records();
    assert!(records.len() >= 10, "{}", records.len());
    for (name, report) in records {
        let page = html(&report);
        assert!(page.ends_with("</html>"), "{name}");
        let csv = paraslot_report::csv(&report);
        assert!(csv.lines().count() > report.results.len(), "{name}");
        assert!(paraslot_report::markdown(&report).contains("# "), "{name}");
    }
}

#[test]
fn nothing_is_cut_off_or_hard_to_read() {
    let Some(mut browser) = browser() else { return };
    let mut in_process = record("2026-11-scsi");
    for record in &mut in_process.results {
        record.path = paraslot_report::Path::InProcess;
        record.exits_per_op = None;
        record.latency_ns = None;
    }
    let all = [
        ("all", record("2026-11-all")),
        ("passthrough", record("2026-11-passthrough")),
        ("beside qemu", record("2026-11-scsi-beside-qemu")),
        ("vfio-user", record("2026-11-vfio-user-disks")),
        ("in process", in_process),
        ("nothing", Report::new(record("2026-11-scsi").manifest, Vec::new())),
    ];
    for (name, report) in &all {
        let (_place, file) = page(report);
        browser.open(&file);
        for view in views() {
            browser.view(view);
            let faults = browser.evaluate(FAULTS);
            assert_eq!(faults, json!([]), "{name}, {view:?}");
        }
        assert_eq!(browser.complaints(), [] as [Value; 0], "{name}");
    }
}

/// What looks for faults finds them.
#[test]
fn faults_are_found() {
    let Some(mut browser) = browser() else { return };
    let (_place, file) = page(&record("2026-11-scsi"));
    browser.view(View { width: 360, height: 800, dark: false, print: false });
    for (change, fault) in [
        ("document.querySelector('h1').style.width = '400px'", "beyond the edge by"),
        ("document.querySelector('.card').style.width = '500px'", "beyond the edge by"),
        (
            "document.querySelector('.where').style.cssText = 'overflow: hidden; white-space: nowrap'",
            "cut short",
        ),
        ("document.querySelector('.where').style.color = '#999'", "contrast of 2.8"),
        ("document.querySelector('.chart text').style.fill = '#fed'", "contrast of 1."),
        ("document.querySelector('.chart rect').style.fill = '#fed'", "a mark of contrast 1."),
        (
            "document.querySelector('.chart text').textContent += 'wider '.repeat(20)",
            "out of the chart",
        ),
        ("document.querySelectorAll('.chart text')[1].setAttribute('x', 600)", "over “"),
        ("document.querySelector('.chart text').setAttribute('font-size', 20)", "letters of 9"),
        ("document.querySelector('th').removeAttribute('scope')", "no scope"),
        ("document.querySelector('.chart').removeAttribute('aria-label')", "not told"),
        ("document.querySelector('h2').remove()", "headings: "),
    ] {
        browser.open(&file);
        assert_eq!(browser.evaluate(FAULTS), json!([]));
        browser.evaluate(&format!("void ({change})"));
        let faults = browser.evaluate(FAULTS).to_string();
        assert!(faults.contains(fault), "{change}: {faults}");
    }
    browser.open(&file);
    browser.evaluate("void fetch('data.json').catch(() => console.log('no'))");
    // The policy stands before the request, and says so; the page's own words are heard, too.
    assert!(browser.complaints().len() >= 2);
}

/// Nothing that a record says is done, and it does not break the page either.
#[test]
fn a_hostile_record_does_nothing() {
    let Some(mut browser) = browser() else { return };
    let mut report = record("2026-11-passthrough");
    let texts = [
        "<script>window.owned = 1</script>",
        "\"><img src=//127.0.0.1:9/x onerror=window.owned=1>",
        "</text></svg><svg/onload=window.owned=1><style>*{display:none}</style>",
        "x".repeat(4000).leak(),
    ];
    for (index, record) in report.results.iter_mut().enumerate() {
        let text = texts[index % texts.len()].to_owned();
        record.workload.clone_from(&text);
        record.backend.clone_from(&text);
        record.device = text;
        record.queue_depth = u32::MAX;
        record.runs = u32::MAX;
        record.ops_per_second.median = f64::MAX;
        record.exits_per_op = Some(f64::MAX);
        if index % 2 == 0 {
            record.family = Family::Paravirtual;
        }
    }
    report.manifest.notes = texts.map(str::to_owned).to_vec();
    report.manifest.cpu_model = Some(texts.concat());
    report.manifest.command_line = report.manifest.notes.clone();
    let (_place, file) = page(&report);
    browser.open(&file);
    for view in views() {
        browser.view(view);
        assert_eq!(browser.evaluate("typeof window.owned"), json!("undefined"));
        // Whatever its length: nothing is beyond the edges of a screen.
        let faults = browser.evaluate(FAULTS);
        let is_beyond =
            |fault: &&Value| fault.as_str().is_some_and(|fault| fault.starts_with("beyond"));
        let beyond: Vec<_> = faults.as_array().expect("a list").iter().filter(is_beyond).collect();
        assert_eq!(beyond, [] as [&Value; 0], "{view:?}");
    }
    assert_eq!(browser.complaints(), [] as [Value; 0]);
    assert_eq!(browser.evaluate("document.images.length"), json!(0));
}

/// What is shown of the column with that heading, from top to bottom.
fn column(browser: &mut Browser, heading: &str) -> Vec<String> {
    let shown = browser.evaluate(&format!(
        "(() => {{
            const table = document.getElementById('records');
            const place = [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === {heading:?});
            const rows = [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
            return rows.map((row) => row.cells[place].textContent);
        }})()"
    ));
    let cells = shown.as_array().expect("cells").iter();
    cells.map(|cell| cell.as_str().expect("text").to_owned()).collect()
}

/// What the heading says of the order.
fn order(browser: &mut Browser, heading: &str) -> Value {
    browser.evaluate(&format!(
        "[...document.querySelectorAll('#records thead th')]
            .find((cell) => cell.textContent === {heading:?}).getAttribute('aria-sort')"
    ))
}

#[test]
fn the_table_sorts_by_keyboard() {
    let Some(mut browser) = browser() else { return };
    let (_place, file) = page(&record("2026-11-all"));
    browser.view(View { width: 1280, height: 800, dark: false, print: false });
    browser.open(&file);
    let headings = browser.evaluate("document.querySelectorAll('#records thead th').length");
    let buttons = "document.querySelectorAll('#records thead th button[type=button]').length";
    assert_eq!(browser.evaluate(buttons), headings);
    let heading = "latency p50, µs";
    let before = column(&mut browser, heading);
    // With the keys alone, from the field before the table.
    browser.evaluate("document.getElementById('show-all').focus()");
    for _ in 0..200 {
        browser.press("Tab", 9, "");
        if browser.evaluate("document.activeElement.textContent") == json!(heading) {
            break;
        }
    }
    assert_eq!(browser.evaluate("document.activeElement.textContent"), json!(heading));
    let focus = browser.evaluate("getComputedStyle(document.activeElement).outlineStyle");
    assert_eq!(focus, json!("solid"), "where the focus is can be seen");
    for (expected, sign) in [("ascending", 1.0), ("descending", -1.0)] {
        browser.press("Enter", 13, "\r");
        assert_eq!(order(&mut browser, heading), json!(expected));
        let cells = column(&mut browser, heading);
        let known: Vec<f64> = cells.iter().map_while(|cell| cell.parse().ok()).collect();
        assert!(known.len() > 100 && known.is_sorted_by(|a, b| (b - a) * sign >= 0.0), "{cells:?}");
        // What was not measured comes last either way.
        assert!(known.len() < cells.len() && cells[known.len()..].iter().all(|cell| cell == "-"));
    }
    browser.press("Enter", 13, "\r");
    assert_eq!(order(&mut browser, heading), json!("none"));
    assert_eq!(column(&mut browser, heading), before);
    // Text by the alphabet; one column at a time.
    browser.evaluate("document.querySelector('#records thead button').click()");
    assert!(column(&mut browser, "device").is_sorted());
    let sorted = "document.querySelectorAll('#records th:not([aria-sort=none])[aria-sort]').length";
    assert_eq!(browser.evaluate(sorted), json!(1));
    assert_eq!(browser.complaints(), [] as [Value; 0]);
}

#[test]
fn the_table_filters() {
    let Some(mut browser) = browser() else { return };
    let report = record("2026-11-all");
    let (_place, file) = page(&report);
    browser.view(View { width: 360, height: 800, dark: false, print: false });
    browser.open(&file);
    let count = |of: fn(&paraslot_report::Record) -> bool| {
        report.results.iter().filter(|record| of(record)).count()
    };
    assert_eq!(column(&mut browser, "device").len(), report.results.len());
    browser.evaluate("document.getElementById('search').focus()");
    for letter in ["e", "1", "0", "0", "0"] {
        browser.press(letter, 0, letter);
    }
    let shown = column(&mut browser, "device");
    assert_eq!(shown.len(), count(|record| record.device == "e1000"));
    assert!(shown.iter().all(|device| device == "e1000"));
    let choose = |label: &str, value: &str| {
        format!(
            "(() => {{
                const label = [...document.querySelectorAll('#choices label')]
                    .find((label) => label.firstChild.textContent === {label:?});
                const select = label.querySelector('select');
                select.value = {value:?};
                select.dispatchEvent(new Event('change'));
                return select.value;
            }})()"
        )
    };
    assert_eq!(browser.evaluate(&choose("path", "event")), json!("event"));
    let both = count(|r| r.device == "e1000" && r.path == paraslot_report::Path::Event);
    assert_eq!(column(&mut browser, "path"), vec!["event"; both]);
    let told = browser.evaluate("document.getElementById('shown').textContent");
    assert_eq!(told, json!(format!("{both} of {} records", report.results.len())));
    browser.evaluate("document.getElementById('show-all').click()");
    assert_eq!(column(&mut browser, "device").len(), report.results.len());
    assert_eq!(browser.complaints(), [] as [Value; 0]);
}

#[test]
fn without_its_script_the_page_is_there() {
    let Some(mut browser) = browser() else { return };
    let report = record("2026-11-all");
    let (_place, file) = page(&report);
    browser.view(View { width: 768, height: 800, dark: false, print: false });
    browser.call("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    browser.open(&file);
    assert_eq!(column(&mut browser, "device").len(), report.results.len());
    let shown = "document.getElementById('controls').checkVisibility()";
    assert_eq!(browser.evaluate(shown), json!(false));
    assert_eq!(browser.evaluate("document.querySelectorAll('th button').length"), json!(0));
    // What is folded up is there on paper.
    let hidden = "[...document.querySelectorAll('figure')]
        .filter((figure) => !figure.checkVisibility({ contentVisibilityAuto: true })).length";
    assert_ne!(browser.evaluate(hidden), json!(0));
    browser.view(View { width: PAPER[0], height: 800, dark: false, print: true });
    assert_eq!(browser.evaluate(hidden), json!(0));
    assert_eq!(browser.complaints(), [] as [Value; 0]);
}
