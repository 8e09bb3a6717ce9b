//! Charts as SVG.
//!
//! All have one shape: blocks with a heading, and in a block a row for each device, with its name on the
//! left and its figure in numbers on the right, so that nothing has to be read off an axis or told by its
//! colour. They are drawn 720 units wide with letters of 26, which is 12 pixels on a phone and 17 in a
//! column of a page.
//!
//! Colours are a fixed palette that the page's style sheet maps to its own by attribute selectors; what is
//! drawn is right without a style sheet, too.

mod bars;
mod canvas;
mod latencies;
mod ratios;

use std::fmt::Write;

use crate::{Distribution, Family, Path, Record, figures};

use super::words::{capital, manner, plain};

pub(super) use bars::{Bar, bars};
pub(super) use latencies::latencies;
pub(super) use ratios::{Heading, ratios};

/// A chart, drawn and told.
pub(super) struct Chart {
    /// What it shows, with the unit.
    pub(super) title: &'static str,
    /// How to read it, where that does not go without saying.
    pub(super) key: &'static str,
    /// The drawing, which is markup.
    pub(super) svg: String,
    /// The same in words.
    pub(super) told: String,
}

impl Chart {
    /// A chart of this drawing, told by these texts.
    fn new(title: &'static str, key: &'static str, texts: &[canvas::Texts], svg: &str) -> Self {
        let mut told = format!("{title}.");
        for block in texts {
            let rows: Vec<_> =
                block.rows.iter().map(|(name, value)| format!("{name} {value}")).collect();
            // Writing to a string does not fail.
            let _ = write!(told, " {}: {}.", block.heading, rows.join(", "));
        }
        Self { title, key, svg: canvas::without_defaults(svg), told }
    }
}

/// Rows that share a scale.
pub(super) struct Block<'a> {
    pub(super) heading: String,
    pub(super) records: Vec<&'a Record>,
}

/// The records of a group in blocks, a block for each way of doing the work. Of the paths, `trap` is
/// left out if there is any other: it is for those who want to know what the other paths save.
pub(super) fn blocks<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<Block<'a>> {
    let records: Vec<&Record> = records.collect();
    let only_trap = records.iter().all(|record| record.path == Path::Trap);
    let mut blocks: Vec<Block<'a>> = Vec::new();
    for record in records.into_iter().filter(|record| only_trap || record.path != Path::Trap) {
        let heading = capital(&manner(record));
        match blocks.iter_mut().find(|block| block.heading == heading) {
            Some(block) => block.records.push(record),
            None => blocks.push(Block { heading, records: vec![record] }),
        }
    }
    blocks
}

/// Letters of a device's name that a chart has room for.
const NAME: usize = 22;

/// The device's name for a row; with its path, where the rows are of several.
fn name(record: &Record, blocks: &[Block<'_>]) -> String {
    let paths = |path| blocks.iter().flat_map(|block| &block.records).any(|r| r.path == path);
    let several = [Path::Event, Path::VfioUser].into_iter().all(paths);
    let mut name = plain(&figures::device(record));
    if several && record.path != Path::Passthrough {
        name = format!("{name}, {}", record.path);
    }
    short(&name, NAME)
}

/// As much of a text as a chart has room for.
fn short(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        None => text.to_owned(),
        Some(_) => text.chars().take(letters - 1).chain(['…']).collect(),
    }
}

/// The colour of a device's kind.
fn colour(family: Family) -> canvas::Colour {
    match family {
        Family::Paravirtual => canvas::PARAVIRTUAL,
        Family::Emulated => canvas::EMULATED,
        Family::Passthrough => canvas::PASSTHROUGH,
    }
}

/// A figure that a scale can hold: finite, and not negative.
fn sound(value: f64) -> Option<f64> {
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// An interval, in order, if it is one that a scale can hold.
pub(super) fn interval(record: &Record, of: Distribution) -> Option<(f64, f64)> {
    let (low, high) = (sound(of.low)?, sound(of.high)?);
    (record.runs >= 2).then_some((low.min(high), low.max(high)))
}
