//! A line chart as SVG: a title, two axes, a few lines. It scales, prints, and needs
//! nothing but the page that contains it, whose style sheet gives it its colours.

use std::fmt::Write;

/// Width of a chart that shares its row with another.
const WIDTH: f64 = 560.0;
/// Width of a chart that has a row of its own.
const WIDTH_WIDE: f64 = 1_140.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 62.0;
/// Half of the longest label of the horizontal axis needs this space.
const RIGHT: f64 = 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 40.0;
const TICKS: f64 = 5.0;
const HEADROOM: f64 = 1.05;

/// Scale of the horizontal axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Across {
    /// From 0 in equal steps.
    Linear,
    /// Percentiles, each nine as wide as the one before it: 90, 99, 99.9, 99.99 in equal steps.
    Nines,
}

/// Scale of the vertical axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Up {
    /// From 0 in equal steps.
    Linear,
    /// Powers of ten in equal steps: for values that differ by orders of magnitude.
    Log,
}

/// A line, with gaps where there is no value.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// For the legend.
    pub(super) name: String,
    /// A class of the page's style sheet: its colour and dashes.
    pub(super) class: &'static str,
    /// `None` breaks the line.
    pub(super) points: Vec<Option<(f64, f64)>>,
}

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    pub(super) title: String,
    pub(super) across: Across,
    pub(super) across_label: &'static str,
    pub(super) up: Up,
    /// True if the chart has a row of its own.
    pub(super) wide: bool,
    pub(super) lines: Vec<Line>,
}

/// Maps values to coordinates.
struct Frame {
    width: f64,
    across: Across,
    across_max: f64,
    up: Up,
    up_min: f64,
    up_max: f64,
}

impl Chart {
    /// The SVG element.
    pub(super) fn svg(&self) -> String {
        let frame = self.frame();
        let mut svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {1} {HEIGHT}\" role=\"img\" aria-label=\"{0}\">\n\
             <text class=\"title\" x=\"8\" y=\"20\">{0}</text>\n",
            escaped(&self.title),
            frame.width
        );
        frame.axes(&mut svg, self.across_label);
        for line in &self.lines {
            frame.line(&mut svg, line);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn frame(&self) -> Frame {
        let points = || self.lines.iter().flat_map(|line| &line.points).flatten();
        let across_max = points().map(|point| point.0).fold(0.0, f64::max);
        let highest = points().map(|point| point.1).fold(0.0, f64::max);
        let lowest = points().map(|point| point.1).filter(|&y| y > 0.0).fold(highest, f64::min);
        let (up_min, up_max) = match self.up {
            // A line along the upper edge would not be visible.
            Up::Linear => (0.0, round_up(highest * HEADROOM)),
            Up::Log => {
                let bottom = lowest.max(f64::MIN_POSITIVE).log10().floor();
                let top = highest.max(f64::MIN_POSITIVE).log10().ceil().max(bottom + 1.0);
                (10_f64.powf(bottom), 10_f64.powf(top))
            }
        };
        let across_max = match self.across {
            Across::Linear => across_max.max(1.0),
            Across::Nines => nines(across_max).max(2.0),
        };
        let width = if self.wide { WIDTH_WIDE } else { WIDTH };
        Frame { width, across: self.across, across_max, up: self.up, up_min, up_max }
    }
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        let value = match self.across {
            Across::Linear => value,
            Across::Nines => nines(value),
        };
        LEFT + (self.width - LEFT - RIGHT) * (value / self.across_max).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.up {
            Up::Linear => value / self.up_max,
            Up::Log => {
                let span = (self.up_max / self.up_min).log10();
                (value.max(self.up_min) / self.up_min).log10() / span
            }
        };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share.clamp(0.0, 1.0)
    }

    fn axes(&self, svg: &mut String, label: &str) {
        let (right, bottom) = (self.width - RIGHT, HEIGHT - BOTTOM);
        for value in self.ups() {
            let y = self.y(value);
            push(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>"
                ),
            );
            let (x, y) = (LEFT - 6.0, y + 3.5);
            let value = short(value);
            push(
                svg,
                format_args!(
                    "<text class=\"tick\" x=\"{x}\" y=\"{y:.1}\" text-anchor=\"end\">{value}</text>"
                ),
            );
        }
        for (value, name) in self.acrosses() {
            let (x, y) = (self.x(value), bottom + 15.0);
            push(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>"
                ),
            );
            push(
                svg,
                format_args!(
                    "<text class=\"tick\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>"
                ),
            );
        }
        push(
            svg,
            format_args!(
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\"/>"
            ),
        );
        let (x, y) = (LEFT + (right - LEFT) / 2.0, HEIGHT - 8.0);
        push(
            svg,
            format_args!(
                "<text class=\"tick\" x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{label}</text>"
            ),
        );
    }

    /// Values that are marked on the vertical axis.
    fn ups(&self) -> Vec<f64> {
        match self.up {
            Up::Linear => (0..=4).map(|step| self.up_max * f64::from(step) / 4.0).collect(),
            Up::Log => {
                let (from, to) = (self.up_min.log10().round(), self.up_max.log10().round());
                (from as i32..=to as i32).map(|power| 10_f64.powi(power)).collect()
            }
        }
    }

    /// Values that are marked on the horizontal axis, with their names.
    fn acrosses(&self) -> Vec<(f64, String)> {
        match self.across {
            Across::Linear => {
                let step = (round_up(self.across_max) / TICKS).max(1.0).ceil();
                let marks = (self.across_max / step) as u32;
                (0..=marks).map(|mark| f64::from(mark) * step).map(|at| (at, short(at))).collect()
            }
            Across::Nines => {
                let marks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
                let seen = marks.into_iter().filter(|&mark| nines(mark) <= self.across_max + 1e-9);
                seen.map(|mark| (mark, mark.to_string())).collect()
            }
        }
    }

    fn line(&self, svg: &mut String, line: &Line) {
        let class = line.class;
        for part in line.points.split(Option::is_none) {
            let mut points = String::new();
            for (x, y) in part.iter().flatten() {
                let (x, y) = (self.x(*x), self.y(*y));
                write!(points, "{x:.1},{y:.1} ").expect("a String takes everything");
            }
            let points = points.trim_end();
            match part.len() {
                0 => {}
                // A line of one point would not be visible.
                1 => {
                    let (x, y) = points.split_once(',').unwrap_or_default();
                    push(
                        svg,
                        format_args!("<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"2.5\"/>"),
                    );
                }
                _ => push(svg, format_args!("<polyline class=\"{class}\" points=\"{points}\"/>")),
            }
        }
    }
}

/// Number of nines of a percentile: 90 is 1, 99 is 2.
fn nines(percentile: f64) -> f64 {
    -((100.0 - percentile).max(1e-6) / 100.0).log10()
}

/// The next round number: one, two, 2.5, four, five or eight times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0];
    let step = steps.into_iter().find(|step| step * power >= value * 0.999_999);
    step.unwrap_or(10.0) * power
}

/// A number as short as it can be on an axis.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        large if large >= 1e6 => (value / 1e6, "M"),
        large if large >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = format!("{value:.3}");
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    format!("{digits}{unit}")
}

/// Text with the characters of markup escaped.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(across: Across, up: Up, points: Vec<Option<(f64, f64)>>) -> Chart {
        let line = Line { name: "p50".into(), class: "a", points };
        Chart {
            title: "a < b".into(),
            across,
            across_label: "s",
            up,
            wide: false,
            lines: vec![line],
        }
    }

    #[test]
    fn lines_run_from_corner_to_corner() {
        let points = vec![Some((0.0, 0.0)), Some((10.0, 100.0))];
        let svg = chart(Across::Linear, Up::Linear, points).svg();
        // A hundred of the two hundred that the axis has.
        assert!(svg.contains("points=\"62.0,240.0 536.0,137.0\""), "{svg}");
        assert!(svg.contains("a &lt; b"), "{svg}");
    }

    #[test]
    fn a_gap_breaks_the_line_and_one_point_is_seen() {
        let points = vec![Some((0.0, 1.0)), Some((1.0, 1.0)), None, Some((3.0, 1.0))];
        let svg = chart(Across::Linear, Up::Linear, points).svg();
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (1, 1));
    }

    #[test]
    fn every_nine_is_as_wide_as_the_one_before() {
        let frame = chart(Across::Nines, Up::Log, vec![Some((99.99, 5.0))]).frame();
        let widths = [90.0, 99.0, 99.9, 99.99].map(|percentile| frame.x(percentile));
        let steps: Vec<f64> = widths.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (step - steps[0]).abs() < 0.01), "{steps:?}");
        assert_eq!((frame.up_min, frame.up_max), (1.0, 10.0));
    }

    #[test]
    fn an_empty_chart_has_axes_too() {
        let svg = chart(Across::Linear, Up::Log, Vec::new()).svg();
        assert!(
            svg.contains("class=\"axis\"") && !svg.contains("NaN") && !svg.contains("inf"),
            "{svg}"
        );
    }

    #[test]
    fn numbers_on_axes_are_short() {
        let found = [0.0, 0.25, 1_500.0, 25_000.0, 2_500_000.0].map(short);
        assert_eq!(found, ["0", "0.25", "1500", "25k", "2.5M"]);
        assert_eq!([0.7, 21.0, 99.0].map(round_up), [0.8, 25.0, 100.0]);
    }
}
