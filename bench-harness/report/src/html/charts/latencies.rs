//! How long operations took: a line from the median to the slowest of a thousand, on a scale of powers
//! of ten.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::{Latency, Record, figures};

use super::canvas::{BAND, GRID, PAPER, Texts, draw, row};
use super::{Block, Chart, colour, interval, name};

const TITLE: &str = "Latency, µs";
const KEY: &str = "● half of all operations took no longer (p50), • 90 %, ■ 99 %, ○ 99.9 %; the \
                   numbers are the first and the last. Each line of the scale is ten times the one \
                   before. Grey: the intervals of p50 and p99.";

/// A chart of the latencies; `None` if there are none.
pub(in crate::html) fn latencies(blocks: &[Block<'_>]) -> Option<Chart> {
    let known =
        blocks.iter().flat_map(|block| &block.records).filter_map(|record| record.latency_ns);
    // From power of ten to power of ten.
    let powers =
        known.flat_map(|latency| [latency.p50, latency.p999]).map(|end| end.max(1).ilog10());
    let (low, high) = (powers.clone().min()?, powers.max()? + 1);
    let end = |power: u32| 10f64.powi(i32::try_from(power).unwrap_or(0));
    let (least, most) = (end(low), end(high));
    let place_of = |value: f64| value.clamp(least, most);
    let texts = |written: fn(&Record) -> String| -> Vec<Texts> {
        let row = |record: &&Record| (name(record, blocks), written(record));
        let block = |block: &Block<'_>| Texts {
            heading: block.heading.clone(),
            rows: block.records.iter().map(row).collect(),
        };
        blocks.iter().map(block).collect()
    };
    let mut svg = String::new();
    draw(&mut svg, &texts(shown), true, |canvas, place| {
        let every = (high - low).div_ceil(place.numbers().max(1));
        for power in low..=high {
            let share = f64::from(power - low) / f64::from(high - low);
            let has_number = (power - low).is_multiple_of(every);
            let number = if has_number { tick(power) } else { String::new() };
            canvas.rule(place, share, GRID, &number)?;
        }
        let mut field = canvas.field(place, (least..most).log_scale())?;
        let records = blocks.get(place.block).map_or(&[][..], |block| &block.records);
        for (index, record) in records.iter().enumerate() {
            let row = row(index);
            for of in [record.p50_ns, record.p99_ns].into_iter().flatten() {
                if let Some((low, high)) = interval(record, of) {
                    let corners = [(place_of(low), row - 0.3), (place_of(high), row + 0.3)];
                    field.draw_series([Rectangle::new(corners, BAND.filled())])?;
                }
            }
            let at = |value: u64| (place_of(nanoseconds(value)), row);
            if let Some(Latency { p50, p90, p99, p999, .. }) = record.latency_ns {
                let colour = colour(record.family);
                let line = [at(p50), at(p999)];
                field.draw_series([PathElement::new(line, colour.stroke_width(3))])?;
                field.draw_series([Circle::new(at(p999), 8, PAPER.filled())])?;
                field.draw_series([Circle::new(at(p999), 8, colour.stroke_width(3))])?;
                let square =
                    EmptyElement::at(at(p99)) + Rectangle::new([(-7, -7), (7, 7)], colour.filled());
                field.draw_series([square])?;
                field.draw_series([Circle::new(at(p90), 6, colour.filled())])?;
                field.draw_series([Circle::new(at(p50), 9, colour.filled())])?;
            }
        }
        Ok(())
    })
    .ok()?;
    Some(Chart::new(TITLE, KEY, &texts(in_words), &svg))
}

fn in_words(record: &Record) -> String {
    let at = |pick| figures::latency(record, pick);
    match record.latency_ns {
        None => "not measured".into(),
        Some(_) => format!(
            "p50 {}, p90 {}, p99 {}, p99.9 {}",
            at(|latency| latency.p50),
            at(|latency| latency.p90),
            at(|latency| latency.p99),
            at(|latency| latency.p999)
        ),
    }
}

/// What is written beside a row.
fn shown(record: &Record) -> String {
    match record.latency_ns {
        None => figures::NOT_MEASURED.into(),
        Some(_) => format!(
            "{}–{}",
            figures::latency(record, |latency| latency.p50),
            figures::latency(record, |latency| latency.p999)
        ),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place on a scale")]
fn nanoseconds(value: u64) -> f64 {
    value as f64
}

/// A power of ten of nanoseconds, as people write it.
fn tick(power: u32) -> String {
    let (unit, power) = match power {
        0..3 => ("ns", power),
        3..6 => ("µs", power - 3),
        6..9 => ("ms", power - 6),
        _ => ("s", power - 9),
    };
    format!("{} {unit}", 10u64.saturating_pow(power))
}
