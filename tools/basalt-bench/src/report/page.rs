//! The result as an HTML page: numbers first, then latency and throughput over time and the percentiles, then
//! the conditions of the measurement. One file that needs no other: no script, no font, no network.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;

use gocompat::time::rfc3339;
use serde_json::Value;

use super::chart::{Across, Chart, Line, Up, escaped, short};
use super::{Comparison, Finished, Report, Style};

const STYLE_SHEET: &str = include_str!("page.css");
/// Percentiles that are drawn: ten between one nine and the next.
const NINES_MAX: u32 = 6;
const POINTS_PER_NINE: u32 = 10;
/// Classes of the first and of the second target. A target alone is drawn as the second.
const CLASSES: [[&str; 3]; 2] = [["one", "one dash", "one dot"], ["two", "two dash", "two dot"]];

/// Writes the page. `sides` are one target or two, by name; `now` is the time since 1970.
///
/// # Errors
/// The file cannot be written.
pub fn write(
    path: &Path,
    sides: &[(&str, &Finished)],
    compared: Option<&Comparison>,
    now: Duration,
) -> io::Result<()> {
    std::fs::write(path, page(sides, compared, now))
}

fn page(sides: &[(&str, &Finished)], compared: Option<&Comparison>, now: Duration) -> String {
    let names: Vec<&str> = sides.iter().map(|(name, _)| *name).collect();
    let title = sides.first().map_or("load", |(_, finished)| title(&finished.reports));
    let who = escaped(&names.join(" and "));
    let how = compared.map_or(String::new(), |both| format!(" · {}", both.how.words()));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{0}: {who}</title>\n<style>\n{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n\
         <h1>{0}: {who}</h1>\n<p class=\"sub\">{1}{how} · measured by basalt-bench {2}</p>\n",
        escaped(title),
        rfc3339(now),
        env!("CARGO_PKG_VERSION"),
    );
    cards(&mut html, sides, compared);
    let reports = sides.iter().map(|(_, finished)| finished.reports.len()).min().unwrap_or(0);
    for at in 0..reports {
        section(&mut html, sides, at, reports > 1);
    }
    conditions(&mut html, sides);
    html.push_str("</main>\n</body>\n</html>\n");
    html
}

/// The common prefix of all reports' names: the load.
fn title(reports: &[Report]) -> &str {
    let Some((first, others)) = reports.split_first() else { return "load" };
    let same = |name: &str| {
        first.name.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count()
    };
    let length = others.iter().map(|report| same(&report.name)).min();
    let common = length.and_then(|length| first.name.get(..length)).unwrap_or(&first.name);
    common.trim_end_matches('-')
}

/// The most important numbers, in large type.
fn cards(html: &mut String, sides: &[(&str, &Finished)], compared: Option<&Comparison>) {
    let mut cards = match compared {
        Some(both) => ratio_cards(both),
        None => sides.first().map_or_else(Vec::new, |(_, finished)| plain_cards(finished)),
    };
    let reports = || sides.iter().flat_map(|(_, finished)| &finished.reports);
    let errors: u64 = reports().map(|report| report.recorder.error_count()).sum();
    let operations: u64 = sides.iter().map(|(_, finished)| finished.operations()).sum();
    let good = sides.iter().all(|(_, finished)| finished.is_good());
    let class = if good { "good" } else { "bad" };
    cards.push((class, errors.to_string(), format!("errors of {operations} operations")));
    html.push_str("<div class=\"cards\">\n");
    for (class, value, what) in cards {
        let what = escaped(&what);
        push(
            html,
            format_args!("<div class=\"card {class}\"><b>{value}</b><span>{what}</span></div>"),
        );
    }
    html.push_str("</div>\n");
}

/// Class, number, meaning.
type Card = (&'static str, String, String);

fn ratio_cards(both: &Comparison) -> Vec<Card> {
    let (first, second) = (&both.first.name, &both.second.name);
    let tables = both.tables();
    let report = match &tables[..] {
        [(name, _), _, ..] => format!("{name} "),
        _ => String::new(),
    };
    let card = |row: &super::comparison::Row| {
        let ratio = row.ratio()?;
        let better = if row.what == "requests/sec" { ratio > 1.0 } else { ratio < 1.0 };
        let class = if better { "good" } else { "" };
        let what = format!("{report}{}: {second} / {first}", row.what);
        Some((class, format!("{ratio:.2} ×"), what))
    };
    let wanted = ["requests/sec", "p50 ms", "p99 ms"];
    let rows = tables.first().into_iter().flat_map(|(_, rows)| rows);
    rows.filter(|row| wanted.contains(&row.what)).filter_map(card).collect()
}

fn plain_cards(finished: &Finished) -> Vec<Card> {
    let Some(report) = finished.reports.first() else { return Vec::new() };
    let mut cards = vec![("", format!("{:.0}", report.rate()), "requests per second".to_owned())];
    for percent in [50.0, 99.0, 99.9] {
        let millis = report.recorder.percentile(percent) as f64 / 1e6;
        cards.push(("", format!("{millis:.2} ms"), format!("p{percent}")));
    }
    cards
}

/// One report of every target: table and plots.
fn section(html: &mut String, sides: &[(&str, &Finished)], at: usize, titled: bool) {
    let reports: Vec<(&str, &Report)> =
        sides.iter().map(|(name, finished)| (*name, &finished.reports[at])).collect();
    if reports
        .iter()
        .all(|(_, report)| report.recorder.count() + report.recorder.error_count() == 0)
    {
        return;
    }
    if titled {
        push(html, format_args!("<h2>{}</h2>", escaped(&reports[0].1.name)));
    }
    table(html, &reports);
    html.push_str("<div class=\"charts\">\n");
    if reports.iter().any(|(_, report)| report.recorder.series().is_some()) {
        figure(html, &latency_over_time(&reports));
        figure(html, &throughput_over_time(sides, at));
    }
    figure(html, &percentiles(&reports));
    html.push_str("</div>\n");
}

fn table(html: &mut String, reports: &[(&str, &Report)]) {
    html.push_str(
        "<table><thead><tr><th></th><th>requests/s</th><th>p50 ms</th><th>p90 ms</th><th>p99 ms</th>\
         <th>p99.9 ms</th><th>worst ms</th><th>operations</th><th>errors</th></tr></thead><tbody>\n",
    );
    for (name, report) in reports {
        let recorder = &report.recorder;
        let mut row = format!("<tr><td>{}</td><td>{:.0}</td>", escaped(name), report.rate());
        let nanos = [50.0, 90.0, 99.0, 99.9].map(|percent| recorder.percentile(percent));
        for nanos in nanos.into_iter().chain([recorder.slowest()]) {
            write!(row, "<td>{:.3}</td>", nanos as f64 / 1e6).expect("a String takes everything");
        }
        let (done, errors) = (recorder.count(), recorder.error_count());
        push(html, format_args!("{row}<td>{done}</td><td>{errors}</td></tr>"));
    }
    html.push_str("</tbody></table>\n");
}

fn figure(html: &mut String, chart: &Chart) {
    let class = if chart.wide { " class=\"wide\"" } else { "" };
    push(html, format_args!("<figure{class}>\n{}<figcaption>", chart.svg()));
    for line in chart.lines.iter().filter(|line| !line.points.is_empty()) {
        push(
            html,
            format_args!(
                "<span><svg class=\"key\" viewBox=\"0 0 26 8\"><line class=\"{}\" x1=\"0\" x2=\"26\" y1=\"4\" y2=\"4\"/></svg>{}</span>",
                line.class,
                escaped(&line.name)
            ),
        );
    }
    html.push_str("</figcaption>\n</figure>\n");
}

fn latency_over_time(reports: &[(&str, &Report)]) -> Chart {
    let start = start(reports.iter().map(|(_, report)| *report));
    let mut lines = Vec::new();
    for (at, (name, report)) in reports.iter().enumerate() {
        let classes = CLASSES[at + 2 - reports.len()];
        for (percent, class) in [50.0, 99.0, 100.0].into_iter().zip(classes) {
            let what = if percent < 100.0 { format!("p{percent}") } else { "worst".to_owned() };
            let Some(series) = report.recorder.series() else { continue };
            let point = |(second, interval): (u64, Option<&super::Interval>)| {
                let nanos = interval?.percentile(percent);
                Some(((second - start) as f64, nanos as f64 / 1e6))
            };
            let points = series.intervals().map(point).collect();
            lines.push(Line { name: format!("{name} {what}"), class, points });
        }
    }
    let title = "Latency over time, ms (logarithmic)".to_owned();
    Chart {
        title,
        across: Across::Linear,
        across_label: "seconds since the start",
        up: Up::Log,
        wide: true,
        lines,
    }
}

fn throughput_over_time(sides: &[(&str, &Finished)], at: usize) -> Chart {
    let start = start(sides.iter().map(|(_, finished)| &finished.reports[at]));
    let mut lines = Vec::new();
    for (number, (name, finished)) in sides.iter().enumerate() {
        let class = CLASSES[number + 2 - sides.len()][0];
        let Some(series) = finished.reports[at].recorder.series() else { continue };
        let width = series.width();
        let all: Vec<_> = series.intervals().collect();
        let has =
            |at: Option<usize>| at.and_then(|at| all.get(at)).is_some_and(|it| it.1.is_some());
        let point = |(at, (second, interval)): (usize, &(u64, Option<&super::Interval>))| {
            // The first and the last second of a turn were cut by its start and its end.
            let whole = has(at.checked_sub(1)) && has(Some(at + 1));
            let rate = interval.filter(|_| whole || all.len() < 4)?.count() as f64 / width as f64;
            Some(((second - start) as f64, rate))
        };
        let points = all.iter().enumerate().map(point).collect();
        lines.push(Line { name: (*name).to_owned(), class, points });
    }
    lines.extend(planned(sides, &lines));
    let title = "Answered operations per second, by the second they were due".to_owned();
    Chart {
        title,
        across: Across::Linear,
        across_label: "seconds since the start",
        up: Up::Linear,
        wide: false,
        lines,
    }
}

/// The rate that was asked for, if the load is open and of one kind.
fn planned(sides: &[(&str, &Finished)], lines: &[Line]) -> Option<Line> {
    let finished = sides.first()?.1;
    // Turns ramp one after the other, which one line cannot show.
    let climbs = !finished.pace.ramp.is_zero() && sides.len() > 1;
    if finished.pace.rate == 0 || finished.reports.len() > 1 || climbs {
        return None;
    }
    let last = lines
        .iter()
        .flat_map(|line| &line.points)
        .flatten()
        .map(|point| point.0)
        .fold(0.0, f64::max);
    let point = |second: u32| {
        let at = f64::from(second);
        Some((at, finished.pace.rate_at(Duration::from_secs_f64(at))))
    };
    let points = (0..=last as u32).map(point).collect();
    Some(Line { name: "asked for".to_owned(), class: "plan", points })
}

fn percentiles(reports: &[(&str, &Report)]) -> Chart {
    let mut lines = Vec::new();
    for (at, (name, report)) in reports.iter().enumerate() {
        let recorder = &report.recorder;
        // A percentile beyond the number of operations has no meaning.
        let nines_seen = (recorder.count().max(2) as f64).log10();
        let steps = (nines_seen * f64::from(POINTS_PER_NINE)) as u32;
        let point = |step: u32| {
            let percent = 100.0 - 100.0 / 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_NINE));
            Some((percent, recorder.percentile(percent) as f64 / 1e6))
        };
        let steps = 0..=steps.min(NINES_MAX * POINTS_PER_NINE);
        let points = if recorder.count() == 0 { Vec::new() } else { steps.map(point).collect() };
        lines.push(Line {
            name: (*name).to_owned(),
            class: CLASSES[at + 2 - reports.len()][0],
            points,
        });
    }
    let title = "Latency by percentile, ms (logarithmic)".to_owned();
    Chart {
        title,
        across: Across::Nines,
        across_label: "percentile",
        up: Up::Log,
        wide: false,
        lines,
    }
}

/// The first second that any of the reports has.
fn start<'a>(reports: impl Iterator<Item = &'a Report>) -> u64 {
    let series = reports.filter_map(|report| report.recorder.series());
    series.filter_map(|series| series.intervals().next()).map(|it| it.0).min().unwrap_or(0)
}

/// The conditions of the measurement and its credibility: those that all targets share once, the rest side by
/// side.
fn conditions(html: &mut String, sides: &[(&str, &Finished)]) {
    let all: Vec<Vec<Condition>> =
        sides.iter().map(|(_, finished)| conditions_of(finished)).collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in all.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    html.push_str("<h2>How it was measured</h2>\n<table class=\"how\">");
    if sides.len() > 1 {
        let heads = sides.iter().map(|(name, _)| format!("<th>{}</th>", escaped(name)));
        push(html, format_args!("<thead><tr><th></th>{}</tr></thead>", heads.collect::<String>()));
    }
    html.push_str("<tbody>\n");
    for name in names {
        let value = |side: &Vec<Condition>| {
            let found = side.iter().find(|(what, _)| what == name);
            escaped(found.map_or("", |(_, value)| value))
        };
        let values: Vec<String> = all.iter().map(value).collect();
        let cells = match values.windows(2).all(|pair| pair[0] == pair[1]) {
            true => format!("<td colspan=\"{}\">{}</td>", sides.len(), values[0]),
            false => values.iter().map(|value| format!("<td>{value}</td>")).collect(),
        };
        push(html, format_args!("<tr><th>{}</th>{cells}</tr>", escaped(name)));
    }
    html.push_str("</tbody></table>\n");
}

/// Name and value.
type Condition = (String, String);

fn conditions_of(finished: &Finished) -> Vec<Condition> {
    let mut all = vec![("latency counts".to_owned(), latency_rule(finished).to_owned())];
    if let Some(verified) = &finished.verified {
        let word = if verified.holds { "true" } else { "NOT TRUE" };
        all.push(("writes".to_owned(), format!("{word}: {}", verified.words())));
    }
    if !finished.health.lag.is_empty() {
        all.push(("generator".to_owned(), Style::default().generator(finished)));
    }
    // A closed loop has no rate, and the row above shows that already.
    let details = finished.details.iter().filter(|(what, value)| *what != "rate" || **value != 0);
    all.extend(details.map(|(what, value)| (what.replace('_', " "), plain(value))));
    for report in &finished.reports {
        let errors = report.recorder.errors().iter();
        let told: Vec<_> =
            errors.map(|(what, count)| format!("{} × {what}", short(*count as f64))).collect();
        if !told.is_empty() {
            all.push((format!("errors of {}", report.name), told.join("; ")));
        }
    }
    all
}

/// A value without JSON's quotes and brackets.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

fn latency_rule(finished: &Finished) -> &'static str {
    match finished.pace.rate {
        0 => {
            "from when a client was free to the whole answer (closed loop: a slow server gets less load)"
        }
        _ => {
            "from the moment at which the operation was due, sent in time or not, to the whole answer (open loop)"
        }
    }
}

fn push(html: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(html, "{element}").expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Recorder;

    fn finished() -> Finished {
        let mut recorder = Recorder::new(true);
        for index in 0..1_000 {
            recorder.record((index + 1) * 10_000, 100 + index / 300);
        }
        recorder.error("a <bad> answer", 1);
        let total = Duration::from_secs(4);
        let report = Report { name: "put".into(), heading: String::new(), total, recorder };
        let mut finished = Finished { reports: vec![report], ..Finished::default() };
        finished.details.insert("val_size".into(), 256.into());
        finished.pace.rate = 300;
        finished
    }

    #[test]
    fn the_page_stands_alone_and_says_how_it_was_measured() {
        let one = finished();
        let html = page(&[("basalt", &one)], None, Duration::from_secs(1_000_000_000));
        assert!(html.contains("2001-09-09T01:46:40Z"));
        assert_eq!(html.matches("<svg class=\"chart\"").count(), 3);
        for said in ["open loop", "val size", "256", "asked for", "a &lt;bad&gt; answer"] {
            assert!(html.contains(said), "{said} is missing:\n{html}");
        }
        for foreign in ["http://", "https://", "<script", "<bad>", "NaN"] {
            assert!(!html.contains(foreign), "{foreign} in:\n{html}");
        }
        assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
    }

    #[test]
    fn the_title_is_what_all_reports_have_in_common() {
        let report = |name: &str| Report {
            name: name.into(),
            heading: String::new(),
            total: Duration::ZERO,
            recorder: Recorder::new(false),
        };
        assert_eq!(title(&[report("k8s-get"), report("k8s-list")]), "k8s");
        assert_eq!(title(&[report("put")]), "put");
        assert_eq!(title(&[]), "load");
    }

    #[test]
    fn two_targets_share_their_plots() {
        let (one, two) = (finished(), finished());
        let html = page(&[("etcd", &one), ("basalt", &two)], None, Duration::ZERO);
        assert_eq!(html.matches("<svg class=\"chart\"").count(), 3);
        assert!(html.contains("etcd p99") && html.contains("basalt p99"), "{html}");
        assert_eq!(html.matches("<th>val size</th><td colspan=\"2\">256</td>").count(), 1);
    }
}
