//! Where charts are drawn: rows of text with a field between them.

use std::io;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A colour of the palette.
pub(super) type Colour = RGBColor;

// The three kinds of devices are of a palette that does not depend on telling red from green, and the
// style sheet gives emulated ones a pattern besides.
pub(super) const PARAVIRTUAL: Colour = RGBColor(0x00, 0x72, 0xb2);
pub(super) const EMULATED: Colour = RGBColor(0xd5, 0x5e, 0x00);
pub(super) const PASSTHROUGH: Colour = RGBColor(0x00, 0x9e, 0x73);
/// Text.
pub(super) const INK: Colour = RGBColor(0x1a, 0x1f, 0x24);
/// What helps reading, and is not read.
pub(super) const GRID: Colour = RGBColor(0xc4, 0xcb, 0xd3);
/// Where an interval is under a mark.
pub(super) const BAND: Colour = RGBColor(0xbf, 0xc8, 0xd1);
/// What is behind everything.
pub(super) const PAPER: Colour = RGBColor(0xff, 0xff, 0xff);

const WIDTH: i32 = 720;
/// The height of a row.
const ROW: i32 = 38;
/// The space above a heading.
const GAP: i32 = 14;
const LETTERS: f64 = 26.0;
const HEADING_LETTERS: f64 = 24.0;
/// What a letter takes, at most on an average.
const LETTER: i32 = 15;

/// What goes wrong in drawing to memory, which is nothing.
pub(super) type Failure = DrawingAreaErrorKind<io::Error>;

/// Where a chart's columns end.
#[derive(Clone, Copy)]
struct Columns {
    /// Of the names.
    name: i32,
    /// Of the field.
    field: i32,
}

impl Columns {
    /// Columns that have room for these, with a field of a third of the width at least.
    fn fitting<'a>(
        names: impl Iterator<Item = &'a str>,
        values: impl Iterator<Item = &'a str>,
    ) -> Self {
        let name = widest(names).clamp(100, 310) + 12;
        let value = widest(values).min(WIDTH * 2 / 3 - name) + 16;
        Self { name, field: WIDTH - value }
    }
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> i32 {
    let letters = texts.map(|text| text.chars().count()).max().unwrap_or(0);
    i32::try_from(letters).unwrap_or(WIDTH).saturating_mul(LETTER)
}

/// Letters of a heading that there is room for in a line.
const HEADING: usize = 50;
/// Letters that a scale's number takes, with what is between it and the next.
const NUMBER: i32 = 8;
/// Lines that a heading may have.
const HEADING_LINES: usize = 2;

/// A heading in lines that end at its commas, as much of it as there is room for.
fn lines(heading: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in heading.split_inclusive(", ") {
        let count = lines.len();
        let Some(line) = lines.last_mut() else { break };
        let fits = line.chars().count() + part.trim_end().chars().count() <= HEADING;
        if fits || line.is_empty() {
            line.push_str(part);
        } else if count < HEADING_LINES {
            lines.push(part.to_owned());
        }
    }
    lines.iter().map(|line| super::short(line.trim_end(), HEADING)).collect()
}

/// The height of that many rows.
fn rows(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(0).saturating_mul(ROW)
}

/// A block's texts: its heading, and for each row what is at its left and at its right.
pub(super) struct Texts {
    pub(super) heading: String,
    pub(super) rows: Vec<(String, String)>,
}

/// Draws a chart: the texts of all blocks, and with `field` what is between them. Above the first and
/// below the last there is room for a scale's numbers, if it `has_scale`.
pub(super) fn draw(
    svg: &mut String,
    blocks: &[Texts],
    has_scale: bool,
    mut field: impl FnMut(&Canvas<'_>, &Place) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let all = || blocks.iter().flat_map(|block| &block.rows);
    let columns = Columns::fitting(all().map(|(name, _)| &**name), all().map(|(_, text)| &**text));
    let block =
        |block: &Texts| rows(lines(&block.heading).len() + block.rows.len()).saturating_add(GAP);
    let height =
        blocks.iter().map(block).fold(if has_scale { 2 * ROW } else { 0 }, i32::saturating_add);
    let canvas = Canvas::new(svg, height.saturating_sub(GAP).max(ROW));
    let mut top = if has_scale { ROW } else { 0 };
    for (index, block) in blocks.iter().enumerate() {
        for line in lines(&block.heading) {
            canvas.text(&line, 0, top, Style::Heading)?;
            top += ROW;
        }
        let bottom = top + rows(block.rows.len());
        let is_last = index + 1 == blocks.len();
        field(
            &canvas,
            &Place { block: index, rows: block.rows.len(), top, bottom, columns, is_last },
        )?;
        for (name, text) in &block.rows {
            canvas.text(name, 0, top, Style::Name)?;
            canvas.text(text, WIDTH, top, Style::Value)?;
            top += ROW;
        }
        top += GAP;
    }
    canvas.root.present()
}

/// Where a block's field is.
pub(super) struct Place {
    /// The block's number.
    pub(super) block: usize,
    rows: usize,
    top: i32,
    bottom: i32,
    columns: Columns,
    is_last: bool,
}

impl Place {
    /// How many of a scale's numbers the field has room for.
    pub(super) fn numbers(&self) -> u32 {
        (self.columns.field - self.columns.name).unsigned_abs() / (NUMBER * LETTER).unsigned_abs()
    }
}

/// A row's number as its coordinate in a field.
pub(super) fn row(index: usize) -> f64 {
    f64::from(u32::try_from(index).unwrap_or(0))
}

/// A chart that is being drawn.
pub(super) struct Canvas<'a> {
    root: DrawingArea<SVGBackend<'a>, Shift>,
}

/// A field of rows of one block.
pub(super) type Field<'f, 'a, X> =
    ChartContext<'f, SVGBackend<'a>, Cartesian2d<X, plotters::coord::types::RangedCoordf64>>;

impl<'a> Canvas<'a> {
    fn new(svg: &'a mut String, height: i32) -> Self {
        let height = u32::try_from(height).unwrap_or(1);
        Self {
            root: SVGBackend::with_string(svg, (WIDTH.unsigned_abs(), height)).into_drawing_area(),
        }
    }

    /// A line of text in the middle of a row that begins at `top`.
    fn text(&self, text: &str, x: i32, top: i32, style: Style) -> Result<(), Failure> {
        // The backend makes letters smaller by this, as a font's measure for it.
        let font = FontDesc::new(FontFamily::SansSerif, style.size() * 1.24, style.weight());
        let style = font.color(&INK).pos(Pos::new(style.end(), VPos::Center));
        self.root.draw(&Text::new(text.to_owned(), (x, top + ROW / 2), style))
    }

    /// The block's field, with this scale from left to right. Its vertical coordinate is the row's number
    /// at the row's middle, from 0.
    pub(super) fn field<'f, X>(
        &self,
        place: &Place,
        scale: X,
    ) -> Result<Field<'f, 'a, X::CoordDescType>, Failure>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let Place { columns, top, bottom, .. } = *place;
        let size = ((columns.field - columns.name).unsigned_abs(), (bottom - top).unsigned_abs());
        let area = self.root.clone().shrink((columns.name, top), size);
        // Rows go down.
        ChartBuilder::on(&area).build_cartesian_2d(scale, row(place.rows) - 0.5..-0.5)
    }

    /// A line across the block's field at that share of its width, and its number at either end of the
    /// chart.
    pub(super) fn rule(
        &self,
        place: &Place,
        share: f64,
        colour: Colour,
        number: &str,
    ) -> Result<(), Failure> {
        let Place { columns, block, top, bottom, is_last, .. } = *place;
        let x = f64::from(columns.name)
            + f64::from(columns.field - columns.name) * share.clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "within the chart's width")]
        let x = x.round() as i32;
        self.root.draw(&PathElement::new([(x, top), (x, bottom)], colour.stroke_width(1)))?;
        if block == 0 && !number.is_empty() {
            self.text(number, x, 0, Style::Tick)?;
        }
        if is_last && !number.is_empty() {
            self.text(number, x, bottom, Style::Tick)?;
        }
        Ok(())
    }
}

/// How a text is written.
#[derive(Clone, Copy)]
enum Style {
    Heading,
    Name,
    Value,
    /// At the end of a line.
    Tick,
}

impl Style {
    fn weight(self) -> FontStyle {
        match self {
            Self::Heading => FontStyle::Bold,
            Self::Name | Self::Value | Self::Tick => FontStyle::Normal,
        }
    }

    fn size(self) -> f64 {
        match self {
            Self::Heading => HEADING_LETTERS,
            Self::Name | Self::Value | Self::Tick => LETTERS,
        }
    }

    fn end(self) -> HPos {
        match self {
            Self::Heading | Self::Name => HPos::Left,
            Self::Value => HPos::Right,
            Self::Tick => HPos::Center,
        }
    }
}

/// An interval: a line with ends, and paper around it, since it may be on a bar.
pub(super) fn whisker(
    (low, high): (f64, f64),
    row: f64,
    colour: Colour,
) -> [PathElement<(f64, f64)>; 4] {
    let line = |points: [(f64, f64); 2], colour: Colour, width| {
        PathElement::new(points, colour.stroke_width(width))
    };
    let end = |x: f64| line([(x, row - 0.16), (x, row + 0.16)], colour, 2);
    let ends = [(low, row), (high, row)];
    [line(ends, PAPER, 6), line(ends, colour, 2), end(low), end(high)]
}

/// The drawing as it goes into the page: without attributes that say what goes without saying. Texts in
/// it have no quotation marks of their own, so none of these is in a text.
pub(super) fn without_defaults(svg: &str) -> String {
    [
        "xmlns=\"http://www.w3.org/2000/svg\"",
        "opacity=\"1\"",
        "stroke=\"none\"",
        "font-family=\"sans-serif\"",
    ]
    .iter()
    .fold(svg.to_owned(), |svg, default| svg.replace(&format!(" {default}"), ""))
}
