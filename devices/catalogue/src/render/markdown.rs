//! For the project's pages.

use std::fmt::Write;

use crate::Sheet;
use crate::document::{self, Part, Table};
use crate::entry::Family;

/// A device's page.
pub fn markdown(sheet: &Sheet) -> String {
    let mut page = format!("# {}\n\n{}\n", sheet.entry.name, document::nature(sheet));
    for section in document::sections(sheet) {
        // Writing to a string does not fail.
        let _ = writeln!(page, "\n## {}", section.title);
        for part in section.parts {
            page.push('\n');
            match part {
                Part::Text(words) => {
                    let _ = writeln!(page, "{words}");
                }
                Part::Code(what, code) => {
                    let _ = writeln!(page, "{what}:\n\n```\n{code}\n```");
                }
                Part::Table(part) => table(&mut page, &part),
            }
        }
    }
    page
}

fn table(page: &mut String, table: &Table) {
    if !table.title.is_empty() {
        let _ = writeln!(page, "**{}**\n", table.title);
    }
    row(page, table.head.iter().copied());
    row(page, table.head.iter().map(|_| "---"));
    for cells in &table.rows {
        row(page, cells.iter().map(String::as_str));
    }
}

fn row<'a>(page: &mut String, cells: impl Iterator<Item = &'a str>) {
    page.push('|');
    for cell in cells {
        let _ = write!(page, " {} |", cell.replace('|', "\\|"));
    }
    page.push('\n');
}

/// The page that leads to all of them.
pub fn index(sheets: &[Sheet]) -> String {
    let mut page = String::from(
        "# The devices\n\nWhat there is to know of each device before choosing one. These pages are made from the \
         records in [`devices/catalogue`](../../devices/catalogue/src/records) and from live devices, by `paraslot \
         catalogue --format markdown --out docs/catalogue`; a test holds them against both. `paraslot catalogue \
         --format html` has the same as one page, with all devices side by side.\n\nNew to the subject: [what \
         paravirtualization is](../paravirtualization.md).\n\n",
    );
    row(&mut page, ["device", "family", "PCI ID", "what it is"].into_iter());
    row(&mut page, ["---"; 4].into_iter());
    for sheet in sheets {
        let name = sheet.entry.name;
        let family = match sheet.entry.family {
            Family::Paravirtual => "paravirtual",
            Family::Emulated => "emulated",
        };
        let picture = &sheet.live.picture;
        let id = format!("{:04x}:{:04x}", picture.vendor, picture.device);
        row(
            &mut page,
            [&*format!("[{name}]({name}.md)"), family, &id, sheet.entry.title].into_iter(),
        );
    }
    page.push_str("\n## When to choose which\n\n");
    row(&mut page, ["not", "but", "when"].into_iter());
    row(&mut page, ["---"; 3].into_iter());
    for sheet in sheets {
        for instead in sheet.entry.instead {
            row(&mut page, [sheet.entry.name, instead.choose, instead.when].into_iter());
        }
    }
    page
}
