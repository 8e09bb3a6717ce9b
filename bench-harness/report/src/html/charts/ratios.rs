//! How many times better the paravirtual device is, on a scale of powers of ten.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use crate::{Comparison, Verdict, figures};

use super::canvas::{EMULATED, GRID, INK, PAPER, PARAVIRTUAL, Texts, draw, row, whisker};
use super::{Chart, NAME, plain, short};

/// Comparisons that share a heading.
pub(in crate::html) struct Heading<'b, 'a> {
    pub(in crate::html) text: String,
    pub(in crate::html) compared: Vec<&'b Comparison<'a>>,
}

/// A chart of ratios; `None` if there are none.
pub(in crate::html) fn ratios(
    title: &'static str,
    key: &'static str,
    headings: &[Heading<'_, '_>],
) -> Option<Chart> {
    let all = headings.iter().flat_map(|heading| &heading.compared);
    let known = all.flat_map(|found| [Some(found.ratio)].into_iter().chain(ends(found)).flatten());
    let powers = known.filter(|value| value.is_finite() && *value > 0.0).map(f64::log10);
    let (low, high) = powers.fold((0.0, 0.0), |(low, high): (f64, f64), power| {
        (low.min(power.floor()), high.max(power.ceil()))
    });
    // What is beyond is at the edge; its number says what it is.
    let (low, high) = (low.max(-3.0), high.clamp(1.0, 5.0));
    if headings.iter().all(|heading| heading.compared.is_empty()) {
        return None;
    }
    let texts = |written: fn(&Comparison<'_>) -> String| -> Vec<Texts> {
        let row = |found: &&Comparison<'_>| (name(found), written(found));
        let block = |heading: &Heading<'_, '_>| Texts {
            heading: heading.text.clone(),
            rows: heading.compared.iter().map(row).collect(),
        };
        headings.iter().map(block).collect()
    };
    let (least, most) = (10f64.powf(low), 10f64.powf(high));
    let place_of = |value: f64| if value > 0.0 { value.min(most).max(least) } else { least };
    let mut svg = String::new();
    draw(&mut svg, &texts(figures::ratio), true, |canvas, place| {
        let mut power = low;
        while power <= high {
            let colour = if power == 0.0 { INK } else { GRID };
            let number = format!("{}×", 10f64.powf(power));
            canvas.rule(place, (power - low) / (high - low), colour, &number)?;
            power += 1.0;
        }
        let mut field = canvas.field(place, (least..most).log_scale())?;
        let compared = headings.get(place.block).map_or(&[][..], |heading| &heading.compared);
        for (index, found) in compared.iter().enumerate() {
            let row = row(index);
            let (colour, is_told) = match found.verdict {
                Verdict::Faster => (PARAVIRTUAL, true),
                Verdict::Slower => (EMULATED, true),
                Verdict::WithinNoise | Verdict::TooFewRuns => (INK, false),
            };
            if let [Some(low), Some(high)] = ends(found) {
                field.draw_series(whisker((place_of(low), place_of(high)), row, colour))?;
            }
            let middle = (place_of(found.ratio), row);
            if is_told {
                field.draw_series([Circle::new(middle, 9, colour.filled())])?;
            } else {
                field.draw_series([Circle::new(middle, 8, PAPER.filled())])?;
                field.draw_series([Circle::new(middle, 8, colour.stroke_width(2))])?;
            }
        }
        Ok(())
    })
    .ok()?;
    Some(Chart::new(title, key, &texts(in_words), &svg))
}

/// The ends of a ratio's range.
fn ends(found: &Comparison<'_>) -> [Option<f64>; 2] {
    let is_known = found.verdict != Verdict::TooFewRuns;
    [found.low, found.high].map(|end| Some(end).filter(|_| is_known))
}

fn name(found: &Comparison<'_>) -> String {
    short(&plain(&figures::device(found.paravirtual)), NAME)
}

fn in_words(found: &Comparison<'_>) -> String {
    let what = match found.verdict {
        Verdict::Faster | Verdict::Slower => "",
        Verdict::WithinNoise => ", which the runs do not tell from 1",
        Verdict::TooFewRuns => ", of too few runs",
    };
    let ratio = figures::ratio(found);
    let ratio = ratio.trim_end_matches([' ', '~', '?']);
    format!("{ratio}{}{what}", figures::range(found))
}
