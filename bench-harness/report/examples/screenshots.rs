//! Makes the pictures of the report in `docs/`, with Chromium:
//!
//! ```text
//! cargo run -p paraslot-report --example screenshots
//! pngquant --force --skip-if-larger --strip --ext .png docs/report-*.png
//! ```
//!
//! Another record and another directory can be given.

use std::fs;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use browser::{Browser, View};
use paraslot_report::{Report, html};

#[path = "../tests/browser/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod browser;

/// A picture: its name, how the page is looked at, from which element on, and how much of it.
struct Picture {
    name: &'static str,
    view: View,
    from: &'static str,
    height: u32,
}

const PICTURES: [Picture; 3] = [
    Picture {
        name: "report-light.png",
        view: View { width: 1160, height: 1000, dark: false, print: false },
        from: "body",
        height: 1222,
    },
    Picture {
        name: "report-dark.png",
        view: View { width: 1160, height: 1000, dark: true, print: false },
        from: "#workloads",
        height: 1400,
    },
    Picture {
        name: "report-phone.png",
        view: View { width: 360, height: 780, dark: false, print: false },
        from: "body",
        height: 1560,
    },
];

fn main() {
    let docs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs"));
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let record = arguments.next().unwrap_or_else(|| docs.join("measurements/2026-11-all.json"));
    let place = arguments.next().unwrap_or(docs);
    let text = fs::read_to_string(&record).expect("the record can be read");
    let report = Report::from_json(&text).expect("a record");
    let scratch = tempfile::tempdir().expect("a directory");
    let page = scratch.path().join("report.html");
    fs::write(&page, html(&report)).expect("the page can be written");
    let mut browser = Browser::start().expect("Chromium is needed: apt-get install chromium");
    for Picture { name, view, from, height } in PICTURES {
        browser.view(view);
        browser.open(&page);
        let top = browser.evaluate(&format!(
            "document.querySelector('{from}').getBoundingClientRect().top + scrollY"
        ));
        let top = (top.as_f64().expect("a place") - 16.0).max(0.0);
        let picture = browser.picture(0.0, top, view.width.into(), height.into());
        let bytes = STANDARD.decode(picture).expect("base 64");
        let path = place.join(name);
        println!("{}: {} bytes", path.display(), bytes.len());
        fs::write(path, bytes).expect("the picture can be written");
    }
}
