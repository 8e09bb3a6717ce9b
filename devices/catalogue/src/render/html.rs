//! One page with all devices, to be searched and set side by side.
//!
//! It asks for nothing from elsewhere, and without its script it shows everything below each other.

use maud::{DOCTYPE, Markup, PreEscaped, html as markup};

use crate::Sheet;
use crate::document::{self, Part, Section, Table};
use crate::entry::Family;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn html(sheets: &[Sheet]) -> String {
    let documents: Vec<(&Sheet, Vec<Section>)> =
        sheets.iter().map(|sheet| (sheet, document::sections(sheet))).collect();
    let titles: Vec<(&str, &str)> = documents
        .first()
        .map(|(_, sections)| sections.iter().map(|section| (section.id, section.title)).collect())
        .unwrap_or_default();
    let page = markup! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "paraslot: the devices" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "The devices" }
                    p {
                        "Five paravirtual PCI devices and the two emulated ones that they replace. \
                         Choose one to read all of it, or several to see them side by side."
                    }
                    (choice(sheets))
                    nav aria-label="Sections" {
                        @for (id, title) in &titles { a href=(format!("#{id}")) { (title) } " " }
                    }
                }
                main {
                    (glance(sheets))
                    p #nothing hidden { "Nothing has that in it." }
                    @for (index, (id, title)) in titles.iter().enumerate() {
                        section id=(id) {
                            h2 { (title) }
                            div.side {
                                @for (sheet, sections) in &documents {
                                    @if let Some(section) = sections.get(index) {
                                        article data-device=(sheet.entry.name) { (article(sheet, section)) }
                                    }
                                }
                            }
                        }
                    }
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// All of them, a row each, with what speaks for others.
fn glance(sheets: &[Sheet]) -> Markup {
    markup! {
        div #glance.scroll tabindex="0" role="region" aria-label="At a glance" {
            table {
                thead { tr {
                    th scope="col" { "device" } th scope="col" { "family" } th scope="col" { "PCI ID" }
                    th scope="col" { "what it is" } th scope="col" { "rather another when" }
                } }
                tbody {
                    @for sheet in sheets {
                        @let picture = &sheet.live.picture;
                        tr {
                            th scope="row" { a href=(format!("?devices={}", sheet.entry.name)) { (sheet.entry.name) } }
                            td { (family(sheet)) }
                            td { (format!("{:04x}:{:04x}", picture.vendor, picture.device)) }
                            td { (sheet.entry.title) }
                            td { @for other in sheet.entry.instead { b { (other.choose) } ": " (other.when) ". " } }
                        }
                    }
                }
            }
        }
    }
}

fn choice(sheets: &[Sheet]) -> Markup {
    markup! {
        form #choice role="search" {
            fieldset {
                legend { "Devices" }
                @for sheet in sheets {
                    label class=(family(sheet)) title=(sheet.entry.title) {
                        input type="checkbox" name="device" value=(sheet.entry.name) checked;
                        " " (sheet.entry.name)
                    }
                    " "
                }
            }
            label.search { "Search " input type="search" name="search" autocomplete="off" placeholder="TSO, MSI-X, Windows, 0x1041 …"; }
            " " span #found role="status" {}
        }
    }
}

fn family(sheet: &Sheet) -> &'static str {
    match sheet.entry.family {
        Family::Paravirtual => "paravirtual",
        Family::Emulated => "emulated",
    }
}

fn article(sheet: &Sheet, section: &Section) -> Markup {
    markup! {
        h3 { (sheet.entry.name) " " span.family { (family(sheet)) } }
        @for part in &section.parts {
            @match part {
                Part::Text(text) => p { (words(text)) },
                Part::Code(what, code) => div.code { p { (words(what)) } pre { code { (code) } } },
                Part::Table(part) => (table(part)),
            }
        }
    }
}

/// Sentences, in which what is between backticks is code.
fn words(text: &str) -> Markup {
    markup! {
        @for (index, piece) in text.split('`').enumerate() {
            @if index % 2 == 0 { (piece) } @else { code { (piece) } }
        }
    }
}

fn table(part: &Table) -> Markup {
    let headed = part.head.iter().any(|name| !name.is_empty());
    let label = if part.title.is_empty() { "Table" } else { &part.title };
    markup! {
        div.scroll tabindex="0" role="region" aria-label=(label) {
            table.headed[headed] {
                @if !part.title.is_empty() { caption { (part.title) } }
                @if headed { thead { tr { @for name in &part.head { th scope="col" { (name) } } } } }
                tbody {
                    @for row in &part.rows {
                        tr {
                            @for (index, (cell, name)) in row.iter().zip(&part.head).enumerate() {
                                @if index == 0 {
                                    th scope="row" { (words(cell)) }
                                } @else {
                                    td data-name=(name) { (words(cell)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
