//! Histories as pictures: curves over the steps, as SVG.

use std::ops::Range;
use std::path::Path;

use autograd::{Error, Result};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::History;
use crate::files::write_atomically;

/// The axis of the values of a [`Panel`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences are equally long.
    #[default]
    Linear,
    /// Equal ratios are equally long; values that are not positive are left out.
    Log,
}

/// One set of axes, with the curves of some series.
///
/// # Examples
/// ```
/// use nn::{History, Panel, Scale};
/// let mut history = History::new();
/// for epoch in 1..=20 {
///     let x = epoch as f64;
///     history.record(epoch, &[("loss", 2.0 / x), ("train", x / 21.0), ("test", x / 25.0)])?;
/// }
/// let path = std::env::temp_dir().join(format!("panels-{}.svg", std::process::id()));
/// let panels = [
///     Panel::new("training loss").line("loss", "training").scale(Scale::Log),
///     Panel::new("accuracy").line("train", "training").line("test", "test").to(1.0),
/// ];
/// history.draw_panels(&path, "epoch", &panels)?;
/// assert!(std::fs::read_to_string(&path)?.starts_with("<svg"));
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Panel {
    caption: String,
    /// Name of the series, and what the legend says.
    lines: Vec<(String, String)>,
    scale: Scale,
    low: Option<f64>,
    high: Option<f64>,
}

impl Panel {
    /// Axes without a curve.
    pub fn new(caption: impl Into<String>) -> Self {
        let caption = caption.into();
        Panel { caption, lines: Vec::new(), scale: Scale::Linear, low: None, high: None }
    }

    /// And the curve of the series `name`, which the legend calls `label`.
    #[must_use]
    pub fn line(mut self, name: impl Into<String>, label: impl Into<String>) -> Self {
        self.lines.push((name.into(), label.into()));
        self
    }

    /// The axis of the values; linear where nothing is said.
    #[must_use]
    pub fn scale(mut self, scale: Scale) -> Self {
        self.scale = scale;
        self
    }

    /// Where the axis of the values begins, in place of a little below the lowest.
    #[must_use]
    pub fn from(mut self, low: f64) -> Self {
        self.low = Some(low);
        self
    }

    /// Where the axis of the values ends, in place of a little above the highest.
    #[must_use]
    pub fn to(mut self, high: f64) -> Self {
        self.high = Some(high);
        self
    }
}

/// Width and height of a panel, in pixels.
const SIZE: (u32, u32) = (450, 400);
const COLORS: [RGBColor; 6] =
    [BLUE, RED, RGBColor(0, 140, 60), MAGENTA, RGBColor(230, 130, 0), BLACK];

impl History {
    /// Draws each series in a panel of its own, as SVG; the file is written whole or not at all. Where a
    /// value is NaN or infinite, the curve has a gap.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidArgument`] where there is no series.
    ///
    /// # Examples
    /// ```
    /// let mut history = nn::History::new();
    /// history.record(1, &[("loss", 2.0)])?;
    /// history.record(2, &[("loss", 1.0)])?;
    /// let path = std::env::temp_dir().join(format!("draw-{}.svg", std::process::id()));
    /// history.draw(&path)?;
    /// assert!(std::fs::read_to_string(&path)?.contains("loss"));
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn draw(&self, path: impl AsRef<Path>) -> Result<()> {
        let panels: Vec<_> =
            self.names.iter().map(|name| Panel::new(name).line(name, name)).collect();
        self.draw_panels(path, "step", &panels)
    }

    /// Draws these panels, two beside each other, as SVG; the file is written whole or not at all. Where a
    /// value is NaN or infinite, the curve has a gap. `x_label` says what the steps are.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::InvalidArgument`] for no panels, and for a series that was not recorded.
    pub fn draw_panels(
        &self,
        path: impl AsRef<Path>,
        x_label: &str,
        panels: &[Panel],
    ) -> Result<()> {
        let invalid = |reason| Error::InvalidArgument { op: "draw", name: "panels", reason };
        if panels.is_empty() {
            return Err(invalid("must be at least one".into()));
        }
        let mut names = panels.iter().flat_map(|panel| &panel.lines).map(|line| &line.0);
        if let Some(name) = names.find(|name| !self.names.contains(name)) {
            return Err(invalid(format!("have {name:?}, of which nothing is recorded")));
        }
        let svg =
            self.svg(x_label, panels).map_err(|e| invalid(format!("cannot be drawn: {e}")))?;
        write_atomically(path, svg.as_bytes())
    }

    fn svg(&self, x_label: &str, panels: &[Panel]) -> Drawn<String> {
        let columns = panels.len().min(2);
        let rows = panels.len().div_ceil(columns);
        let size = (SIZE.0 * columns as u32, SIZE.1 * rows as u32);
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            root.fill(&WHITE)?;
            for (area, panel) in root.split_evenly((rows, columns)).iter().zip(panels) {
                self.panel(area, x_label, panel)?;
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn panel(&self, area: &Area<'_>, x_label: &str, panel: &Panel) -> Drawn<()> {
        let shown = |v: f64| v.abs() < FAR && (panel.scale == Scale::Linear || v > 0.0);
        let lines: Vec<Line<'_>> = (panel.lines.iter())
            .map(|(name, label)| Line { label, parts: parts(&self.series(name), shown) })
            .collect();
        let (low, high) = bounds(panel, &lines);
        curves(area, [&panel.caption, x_label], &Axis::new(low, high, panel.scale), &lines)
    }
}

type Drawn<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Beyond it, widths of axes overflow; a value so large is drawn as infinite ones are.
const FAR: f64 = 1e300;

/// A curve, in parts between its gaps.
struct Line<'a> {
    label: &'a str,
    parts: Vec<Vec<(f64, f64)>>,
}

impl Line<'_> {
    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.parts.iter().flatten().copied()
    }
}

fn parts(points: &[(u64, f64)], shown: impl Fn(f64) -> bool) -> Vec<Vec<(f64, f64)>> {
    let parts = points.split(|p| !shown(p.1)).filter(|part| !part.is_empty());
    parts.map(|part| part.iter().map(|&(step, v)| (step as f64, v)).collect()).collect()
}

/// The lowest and the highest of some numbers, if there are any.
fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent, v| {
        let (low, high) = extent.unwrap_or((v, v));
        Some((v.min(low), v.max(high)))
    })
}

/// The ends of the axis of values: what the panel says, or else the values with a margin.
fn bounds(panel: &Panel, lines: &[Line<'_>]) -> (f64, f64) {
    let values = lines.iter().flat_map(Line::points).map(|p| p.1);
    let (low, high) = extent(values).unwrap_or((0.1, 1.0));
    let log = panel.scale == Scale::Log;
    let said = |bound: Option<f64>| bound.filter(|&b| b.abs() < FAR && !(log && b <= 0.0));
    let (from, to) = (said(panel.low), said(panel.high));
    if log {
        return (from.unwrap_or(low / 1.1), to.unwrap_or(high * 1.1));
    }
    let margin = 0.05 * (to.unwrap_or(high) - from.unwrap_or(low)).max(0.0);
    (from.unwrap_or(low - margin), to.unwrap_or(high + margin))
}

/// How values stand on an axis. The library that draws takes numbers between some 1e-9 and 1e9 alone: with
/// others it makes no ticks, or never ends making them.
struct Axis {
    range: Range<f64>,
    /// What is drawn as 1, a power of ten; on a logarithmic axis what is drawn is the exponent.
    unit: f64,
    scale: Scale,
}

impl Axis {
    fn new(low: f64, high: f64, scale: Scale) -> Self {
        let largest = low.abs().max(high.abs());
        let unit = match scale {
            Scale::Linear if largest > 0.0 => {
                10_f64.powf(largest.log10().floor().max(-FAR.log10()))
            }
            _ => 1.0,
        };
        let mut axis = Axis { range: 0.0..1.0, unit, scale };
        let (low, high) = (axis.place(low), axis.place(high));
        axis.range = low..high.max(low + 1e-9);
        axis
    }

    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value / self.unit,
            Scale::Log => value.log10(),
        }
    }

    fn label(&self, place: f64) -> String {
        number(match self.scale {
            Scale::Linear => place * self.unit,
            Scale::Log => 10_f64.powf(place),
        })
    }
}

/// A number in six digits at most.
fn number(value: f64) -> String {
    let value: f64 = format!("{value:.5e}").parse().unwrap_or(value);
    match value.abs() {
        0.0 => "0".into(),
        1e-4..1e6 => value.to_string(),
        _ => format!("{value:e}"),
    }
}

fn curves(
    area: &Area<'_>,
    [caption, x_label]: [&str; 2],
    y: &Axis,
    lines: &[Line<'_>],
) -> Drawn<()> {
    let steps = extent(lines.iter().flat_map(Line::points).map(|p| p.0)).unwrap_or((0.0, 1.0));
    // Two steps at least: an axis needs a width.
    let x = Axis::new(steps.0, steps.1.max(steps.0 + 1.0), Scale::Linear);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(x.range.clone(), y.range.clone())?;
    // There is no half step.
    let step = |place: &f64| Some(x.label(*place)).filter(|l| !l.contains('.')).unwrap_or_default();
    chart
        .configure_mesh()
        .x_desc(x_label)
        .x_label_formatter(&step)
        .y_label_formatter(&|place| y.label(*place))
        .label_style(("sans-serif", 15))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (line, &color) in lines.iter().zip(COLORS.iter().cycle()) {
        for (i, part) in line.parts.iter().enumerate() {
            // A part of one point would not be seen.
            let dots = if part.len() < 20 { 3 } else { 0 };
            let points = part.iter().map(|p| (x.place(p.0), y.place(p.1)));
            let series = LineSeries::new(points, color.filled().stroke_width(2)).point_size(dots);
            let drawn = chart.draw_series(series)?;
            if i == 0 {
                let key =
                    move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2));
                drawn.label(line.label).legend(key);
            }
        }
    }
    if lines.iter().any(|line| line.label != caption && !line.parts.is_empty()) {
        chart
            .configure_series_labels()
            .position(free_corner(y, lines))
            .label_font(("sans-serif", 15))
            .border_style(BLACK.mix(0.3))
            .background_style(WHITE)
            .draw()?;
    }
    Ok(())
}

/// The legend goes where the lines do not end.
fn free_corner(y: &Axis, lines: &[Line<'_>]) -> SeriesLabelPosition {
    let middle = (y.range.start + y.range.end) / 2.0;
    let ends = || lines.iter().filter_map(|line| line.points().last()).map(|end| y.place(end.1));
    match (ends().any(|end| end > middle), ends().any(|end| end <= middle)) {
        (true, true) => SeriesLabelPosition::MiddleRight,
        (true, false) => SeriesLabelPosition::LowerRight,
        (false, _) => SeriesLabelPosition::UpperRight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(history: &History, panels: &[Panel]) -> String {
        history.svg("step", panels).unwrap()
    }

    /// The numbers of points of each curve that is drawn.
    fn polylines(svg: &str) -> Vec<usize> {
        let lines =
            svg.lines().filter(|l| l.starts_with("<polyline") && l.contains("stroke-width=\"2\""));
        let points =
            |l: &str| l.split("points=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        lines.map(|l| points(l).split_whitespace().count()).filter(|&n| n > 2).collect()
    }

    #[test]
    fn curves_have_all_points_and_gaps_at_nan() {
        let mut h = History::new();
        for step in 0..30 {
            let a = if step == 10 { f64::NAN } else { step as f64 };
            h.record(step, &[("a", a), ("b", -1.0)]).unwrap();
        }
        let svg = drawn(&h, &[Panel::new("both").line("a", "first").line("b", "second")]);
        assert_eq!(polylines(&svg), [10, 19, 30], "{svg}");
        for text in ["both", "first", "second", "step"] {
            assert!(svg.lines().any(|line| line == text), "no {text:?} in the picture");
        }
        let svg = drawn(&h, &[Panel::new("log").line("a", "a").line("b", "b").scale(Scale::Log)]);
        // Without 0, and without −1.
        assert_eq!(polylines(&svg), [9, 19], "{svg}");
    }

    #[test]
    fn bounds_are_those_of_the_values_unless_given() {
        let line = || vec![Line { label: "a", parts: vec![vec![(0.0, 2.0), (1.0, 12.0)]] }];
        assert_eq!(bounds(&Panel::new(""), &line()), (1.5, 12.5));
        assert_eq!(bounds(&Panel::new("").from(0.0), &line()), (0.0, 12.0 + 0.05 * 12.0));
        assert_eq!(bounds(&Panel::new("").from(0.0).to(100.0), &line()), (0.0, 100.0));
        assert_eq!(bounds(&Panel::new("").to(f64::NAN), &line()), (1.5, 12.5));
        let (low, high) = bounds(&Panel::new("").scale(Scale::Log), &line());
        assert!(low < 2.0 && low > 1.0 && high > 12.0 && high < 24.0);
    }

    #[test]
    fn labels_are_short_and_exact_enough() {
        let labels = [0.0, 0.30000000000000004, -12.5, 1234567.0, 1e-6, 100000.0, 1.0 / 3.0];
        let want = ["0", "0.3", "-12.5", "1.23457e6", "1e-6", "100000", "0.333333"];
        assert_eq!(labels.map(number), want);
        assert_eq!(Axis::new(0.0, 2e-7, Scale::Linear).label(2.0), "2e-7");
        let axis = Axis::new(1e-3, 1e2, Scale::Log);
        assert_eq!((axis.range.clone(), axis.label(-2.0)), (-3.0..2.0, "0.01".into()));
    }

    #[test]
    fn every_history_can_be_drawn() {
        let values = [
            0.0,
            1.0,
            -1.0,
            1e-320,
            1e17,
            1e17 + 16.0,
            1e299,
            -1e299,
            f64::MAX,
            f64::NAN,
            f64::INFINITY,
            5e-324,
        ];
        for a in values {
            for b in values {
                for (first, last) in [(0, 0), (0, 1), (7, u64::MAX), (u64::MAX, u64::MAX)] {
                    let mut h = History::new();
                    h.record(first, &[("x", a)]).unwrap();
                    h.record(last, &[("x", b)]).unwrap();
                    for scale in [Scale::Linear, Scale::Log] {
                        let svg = drawn(&h, &[Panel::new("x").line("x", "y").scale(scale)]);
                        assert!(svg.ends_with("</svg>\n"), "{a} {b}");
                    }
                }
            }
        }
    }

    #[test]
    fn panels_must_name_what_is_there() {
        let mut h = History::new();
        let path = std::env::temp_dir().join("gradus-no-picture.svg");
        let text = h.draw(&path).unwrap_err().to_string();
        assert_eq!(text, "draw: panels must be at least one");
        h.record(0, &[("a", 1.0)]).unwrap();
        let text = h.draw_panels(&path, "x", &[Panel::new("b").line("b", "b")]).unwrap_err();
        assert_eq!(text.to_string(), "draw: panels have \"b\", of which nothing is recorded");
        assert!(!path.exists());
    }
}
