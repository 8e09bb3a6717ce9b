//! Bars with intervals: what there is of something for each device.

use plotters::prelude::*;

use crate::Record;

use super::canvas::{GRID, INK, Texts, draw, row, whisker};
use super::{Block, Chart, colour, name, sound};

/// A bar's value, its interval if it has one, and how that is written.
pub(in crate::html) struct Bar {
    pub(in crate::html) value: Option<f64>,
    pub(in crate::html) interval: Option<(f64, f64)>,
    pub(in crate::html) shown: String,
}

/// A chart of bars. Those of a block have one scale, which begins at 0. `None` if there is nothing to
/// show in any.
pub(in crate::html) fn bars(
    title: &'static str,
    key: &'static str,
    blocks: &[Block<'_>],
    bar: impl Fn(&Record) -> Bar,
) -> Option<Chart> {
    let row_of = |record: &&Record| (record.family, name(record, blocks), bar(record));
    let all: Vec<Vec<_>> =
        blocks.iter().map(|block| block.records.iter().map(row_of).collect()).collect();
    if all.iter().flatten().all(|(.., bar)| bar.value.and_then(sound).is_none()) {
        return None;
    }
    let texts = |(block, rows): (&Block<'_>, &Vec<(_, String, Bar)>)| Texts {
        heading: block.heading.clone(),
        rows: rows.iter().map(|(_, name, bar)| (name.clone(), bar.shown.clone())).collect(),
    };
    let texts: Vec<_> = blocks.iter().zip(&all).map(texts).collect();
    let mut svg = String::new();
    draw(&mut svg, &texts, false, |canvas, place| {
        let rows = all.get(place.block).map_or(&[][..], Vec::as_slice);
        let ends = |(.., bar): &(_, _, Bar)| {
            let high = bar.interval.map(|(_, high)| high);
            bar.value.into_iter().chain(high).filter_map(sound).fold(0.0, f64::max)
        };
        let most = rows.iter().map(ends).fold(0.0, f64::max);
        // Of the most, so that whatever the figures are, the scale is from 0 to 1.
        let share = |value: f64| if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
        let mut field = canvas.field(place, 0.0..1.0)?;
        for (index, (family, _, bar)) in rows.iter().enumerate() {
            let row = row(index);
            if let Some(value) = bar.value.and_then(sound) {
                let corners = [(0.0, row - 0.34), (share(value), row + 0.34)];
                field.draw_series([Rectangle::new(corners, colour(*family).filled())])?;
            }
            if let Some((low, high)) = bar.interval {
                field.draw_series(whisker((share(low), share(high)), row, INK))?;
            }
        }
        canvas.rule(place, 0.0, GRID, "")
    })
    .ok()?;
    Some(Chart::new(title, key, &texts, &svg))
}
