//! Draws charts, with plotters.

mod bitmap;
mod text;

use plotters::backend::{DrawingBackend, SVGBackend};
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, FontStyle, IntoFont as _, RGBColor, ShapeStyle, TextStyle};

use super::{Chart, PlotError, Row};
use crate::units::HashRate;

/// Why this build of adit draws no charts, if it draws none: it was built without the feature `plot`.
pub const NOT_BUILT: Option<&str> = None;

/// The fonts that are asked for: ours first, whose widths we know, and others of about its width.
pub(crate) const FONTS: &str = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif";

/// Okabe and Ito's blue, orange, green and grey.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(153, 153, 153)];
const INK: RGBColor = RGBColor(30, 30, 30);
const PALE_INK: RGBColor = RGBColor(95, 95, 95);
const GRID: RGBColor = RGBColor(222, 222, 222);
const PAPER: RGBColor = RGBColor(255, 255, 255);

/// Pixels of a picture to one of a drawing.
const FINE: u32 = 2;

const WIDTH: u32 = 1_000;
const MARGIN: i32 = 24;
const TITLE: f64 = 20.0;
const BODY: f64 = 13.0;
const SMALL: f64 = 11.5;
const LINE: i32 = 18;

/// Beyond this quotient of the longest bar and the shortest, lengths are logarithms.
const WIDE: f64 = 60.0;

impl Chart {
    /// As SVG.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn svg(&self) -> Result<String, PlotError> {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, (WIDTH, self.height())).into_drawing_area();
        self.draw(&area, 1).map_err(|error| PlotError::Drawing(error.to_string()))?;
        drop(area);
        Ok(text)
    }

    /// As PNG, of twice as many pixels in each direction.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub fn png(&self) -> Result<Vec<u8>, PlotError> {
        let size = (WIDTH * FINE, self.height() * FINE);
        let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
        let area = bitmap::Bitmap::new(&mut pixels, size).into_drawing_area();
        self.draw(&area, FINE.cast_signed())
            .map_err(|error| PlotError::Drawing(error.to_string()))?;
        drop(area);
        bitmap::encoded(&pixels, size).map_err(|error| PlotError::Drawing(error.to_string()))
    }

    fn bars_in_a_row(&self) -> i32 {
        self.rows.iter().map(|row| number(row.bars.len())).max().unwrap_or(1).max(1)
    }

    fn row_height(&self) -> i32 {
        8 + self.bars_in_a_row() * if self.bars_in_a_row() > 1 { 13 } else { 17 }
    }

    /// Where the rows begin, below title, remarks and legend.
    fn top(&self) -> i32 {
        MARGIN + 28 + number(self.remarks.len()) * LINE + 12 + 24
    }

    /// How many rows have a group of their own above them, but the first.
    fn gaps(&self) -> i32 {
        number(self.rows.windows(2).filter(|pair| pair[0].group != pair[1].group).count())
    }

    fn height(&self) -> u32 {
        let rows = number(self.rows.len()) * self.row_height() + self.gaps() * 10;
        (self.top() + rows + 52 + MARGIN) as u32
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: i32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let pen = Pen { area, scale };
        area.fill(&PAPER)?;
        let width = WIDTH.cast_signed();
        let inner = f64::from(width - 2 * MARGIN);

        let mut y = MARGIN + 8;
        pen.bold(&fitted(&self.title, TITLE, inner, true), (MARGIN, y), TITLE, INK)?;
        y += 26;
        for remark in &self.remarks {
            pen.text(
                &fitted(remark, SMALL, inner, false),
                (MARGIN, y),
                SMALL,
                PALE_INK,
                HPos::Left,
            )?;
            y += LINE;
        }

        // The names' column is as wide as its names, the remarks' as its remarks.
        let widest = |texts: &mut dyn Iterator<Item = f64>| texts.fold(0.0, f64::max);
        let groups = widest(&mut self.rows.iter().map(|row| text::width(&row.group, BODY, true)));
        let labels = widest(&mut self.rows.iter().map(|row| text::width(&row.label, BODY, false)));
        let groups = groups.min(220.0);
        let labels = labels.min(220.0);
        let left = MARGIN + (groups + 14.0 + labels + 12.0).ceil() as i32;
        let axis = Axis::of(&self.rows);
        let remarks = self.rows.iter().flat_map(|row| {
            [text::width(&row.remark, SMALL, false)]
                .into_iter()
                .chain(row.bars.iter().map(|bar| text::width(&said(bar.value), SMALL, false)))
        });
        let behind = widest(&mut remarks.map(|w| w + 12.0)).min(330.0);
        let right = (f64::from(width - MARGIN) - behind) as i32;
        let x = |value: f64| left + (f64::from(right - left) * axis.place(value)).round() as i32;

        y += 12;
        let mut at = left;
        for (colour, name) in &self.legend {
            pen.rectangle((at, y - 6, at + 12, y + 6), COLOURS[colour % COLOURS.len()])?;
            pen.text(name, (at + 18, y), SMALL, INK, HPos::Left)?;
            at += 18 + text::width(name, SMALL, false).ceil() as i32 + 22;
        }

        let top = self.top();
        let bottom = top + number(self.rows.len()) * self.row_height() + self.gaps() * 10;
        for tick in axis.ticks() {
            let x = x(tick);
            pen.line((x, top - 4), (x, bottom), GRID, 1)?;
            pen.text(&axis.number(tick), (x, bottom + 14), SMALL, PALE_INK, HPos::Center)?;
        }
        pen.text(
            &axis.name(),
            (i32::midpoint(left, right), bottom + 34),
            SMALL,
            PALE_INK,
            HPos::Center,
        )?;

        let mut y = top;
        for (index, row) in self.rows.iter().enumerate() {
            let first = index == 0 || self.rows[index - 1].group != row.group;
            if first && index > 0 {
                y += 10;
            }
            let middle = y + self.row_height() / 2;
            if first {
                let group = fitted(&row.group, BODY, groups, true);
                pen.bold(&group, (MARGIN, middle), BODY, INK)?;
            }
            let label = fitted(&row.label, BODY, labels, false);
            pen.text(&label, (left - 12, middle), BODY, INK, HPos::Right)?;
            let height = (self.row_height() - 8) / self.bars_in_a_row();
            let mut end = left;
            for (from, bar) in (y + 4..).step_by(height as usize).zip(&row.bars) {
                let colour = COLOURS[bar.colour % COLOURS.len()];
                pen.rectangle((left, from, x(bar.value), from + height - 1), colour)?;
                let line = from + height / 2;
                let (low, high) = (x(bar.low), x(bar.high));
                // On a light ground, so that it stands out from the bar as well.
                pen.line((low, line), (high, line), PAPER, 3)?;
                pen.line((low, line), (high, line), INK, 1)?;
                for x in [low, high] {
                    pen.line((x, line - 3), (x, line + 3), INK, 1)?;
                }
                end = end.max(high).max(x(bar.value));
            }
            let remark = if row.remark.is_empty() {
                row.bars.last().map(|bar| said(bar.value)).unwrap_or_default()
            } else {
                row.remark.clone()
            };
            let room = f64::from(width - MARGIN - end - 8);
            let remark = fitted(&remark, SMALL, room, false);
            // No line of the grid runs through it.
            let width = text::width(&remark, SMALL, false).ceil() as i32;
            pen.rectangle((end + 5, middle - 8, end + 11 + width, middle + 8), PAPER)?;
            pen.text(&remark, (end + 8, middle), SMALL, INK, HPos::Left)?;
            y += self.row_height();
        }
        pen.line((left, top - 4), (left, bottom), INK, 1)?;
        area.present()
    }
}

/// A number of things in a chart, which has no more than can be looked at.
fn number(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX).min(10_000)
}

/// `text`, cut where it is wider than `room`.
fn fitted(text: &str, size: f64, room: f64, bold: bool) -> String {
    if text::width(text, size, bold) <= room {
        return text.to_owned();
    }
    let mut cut: String = text.to_owned();
    while cut.pop().is_some() {
        let shown = format!("{}…", cut.trim_end());
        if text::width(&shown, size, bold) <= room {
            return shown;
        }
    }
    String::new()
}

/// Draws in units of the drawing, whatever a pixel is.
struct Pen<'a, B: DrawingBackend> {
    area: &'a DrawingArea<B, Shift>,
    scale: i32,
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

impl<B: DrawingBackend> Pen<'_, B> {
    fn at(&self, (x, y): (i32, i32)) -> (i32, i32) {
        (x * self.scale, y * self.scale)
    }

    fn style(&self, size: f64, colour: RGBColor, style: FontStyle, to: HPos) -> TextStyle<'static> {
        let size = size * text::PLOTTERS_EM * f64::from(self.scale);
        let mut style = TextStyle::from((FONTS, size, style).into_font());
        style.color = colour.to_backend_color();
        style.pos(Pos::new(to, VPos::Center))
    }

    fn text(&self, text: &str, at: (i32, i32), size: f64, colour: RGBColor, to: HPos) -> Drawn<B> {
        self.area.draw_text(text, &self.style(size, colour, FontStyle::Normal, to), self.at(at))
    }

    fn bold(&self, text: &str, at: (i32, i32), size: f64, colour: RGBColor) -> Drawn<B> {
        let style = self.style(size, colour, FontStyle::Bold, HPos::Left);
        self.area.draw_text(text, &style, self.at(at))
    }

    fn rectangle(&self, (x0, y0, x1, y1): (i32, i32, i32, i32), colour: RGBColor) -> Drawn<B> {
        let corners = [self.at((x0, y0)), self.at((x1, y1))];
        self.area.draw(&Rectangle::new(corners, colour.filled()))
    }

    fn line(&self, from: (i32, i32), to: (i32, i32), colour: RGBColor, width: u32) -> Drawn<B> {
        let style = ShapeStyle::from(&colour).stroke_width(width * self.scale as u32);
        self.area.draw(&PathElement::new([self.at(from), self.at(to)], style))
    }
}

/// The axis of rates.
struct Axis {
    /// What the numbers at the axis are multiples of.
    unit: f64,
    prefix: &'static str,
    from: f64,
    to: f64,
    step: f64,
    logarithmic: bool,
}

impl Axis {
    fn of(rows: &[Row]) -> Self {
        let bars = || rows.iter().flat_map(|row| &row.bars);
        let sound = |value: f64| if value.is_finite() && value > 0.0 { value } else { 0.0 };
        let highest = bars().map(|bar| sound(bar.high.max(bar.value))).fold(1.0, f64::max);
        let lowest =
            bars().map(|bar| sound(bar.value)).filter(|v| *v > 0.0).fold(highest, f64::min);
        let logarithmic = highest / lowest > WIDE;
        let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
        let (unit, prefix) = *units.iter().find(|(unit, _)| highest >= *unit).unwrap_or(&units[4]);
        if logarithmic {
            let from = 10f64.powf(lowest.log10().floor());
            // A bar that is as short as nothing says so.
            let from = if lowest / from < 1.5 { from / 10.0 } else { from };
            return Self { unit, prefix, from, to: highest, step: 10.0, logarithmic };
        }
        // About six steps of 1, 2 or 5.
        let rough = highest / unit / 6.0;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough);
        Self {
            unit,
            prefix,
            from: 0.0,
            to: highest,
            step: step.unwrap_or(power) * unit,
            logarithmic,
        }
    }

    /// Where a value lies, 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value.max(self.from) / self.from).ln() / (self.to / self.from).ln()
        } else {
            value / self.to
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    fn ticks(&self) -> Vec<f64> {
        let tick = |n: i32| {
            if self.logarithmic { self.from * self.step.powi(n) } else { f64::from(n) * self.step }
        };
        (0..40).map(tick).take_while(|tick| *tick <= self.to * 1.000_001).collect()
    }

    fn number(&self, value: f64) -> String {
        // As many decimals as tell the steps apart, and no dust of binary fractions.
        let value = value / self.unit;
        let text = format!("{value:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }

    fn name(&self) -> String {
        let scale = if self.logarithmic { ", logarithmic scale" } else { "" };
        format!("hash rate in {}H/s{scale}", self.prefix)
    }
}

/// A rate as it is said behind its bar.
fn said(rate: f64) -> String {
    HashRate::from_f64(rate).to_string()
}

#[cfg(test)]
mod tests;
