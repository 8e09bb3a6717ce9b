//! For a terminal.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};

use crate::Sheet;
use crate::document::{self, Part};
use crate::entry::Family;

/// Columns of the terminal that tables may use.
const WIDTH: u16 = 100;

fn new_table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .force_no_tty()
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    if head.iter().any(|name| !name.is_empty()) {
        table.set_header(head);
    }
    table
}

/// Sentences in as many lines as they take.
fn wrapped(words: &str) -> String {
    let mut table = new_table(&[]);
    table.add_row([words]);
    table.trim_fmt()
}

/// All that there is to say of one device.
pub fn text(sheet: &Sheet) -> String {
    let mut text = format!("{}\n{}\n", sheet.entry.name, wrapped(&document::nature(sheet)));
    for section in document::sections(sheet) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "\n{}", section.title.to_uppercase());
        for part in section.parts {
            match part {
                Part::Text(words) => {
                    let _ = writeln!(text, "{}", wrapped(&words));
                }
                Part::Code(what, code) => {
                    let _ = writeln!(text, " {what}:");
                    for line in code.lines() {
                        let _ = writeln!(text, "   {line}");
                    }
                }
                Part::Table(part) => {
                    let mut table = new_table(&part.head);
                    table.add_rows(part.rows);
                    let title = if part.title.is_empty() {
                        String::new()
                    } else {
                        format!("\n{}\n", part.title)
                    };
                    let _ = writeln!(text, "{title}{}", table.trim_fmt());
                }
            }
        }
    }
    text
}

/// All devices, a few lines each, and how to ask for more.
pub fn summary(sheets: &[Sheet]) -> String {
    let mut table = new_table(&["device", "family", "PCI ID", "what it is", "choose another when"]);
    for sheet in sheets {
        let family = match sheet.entry.family {
            Family::Paravirtual => "paravirtual",
            Family::Emulated => "emulated",
        };
        let picture = &sheet.live.picture;
        let id = format!("{:04x}:{:04x}", picture.vendor, picture.device);
        let instead = sheet.entry.instead.first();
        let instead =
            instead.map_or_else(String::new, |other| format!("{} ({})", other.when, other.choose));
        table.add_row([sheet.entry.name, family, &id, sheet.entry.title, &instead]);
    }
    format!(
        "{}\n\nparaslot catalogue DEVICE has all of one: drivers, features, limits, costs, registers, how to attach \
         it.\nparaslot catalogue --format html has all of them side by side, as a page.\n",
        table.trim_fmt()
    )
}
