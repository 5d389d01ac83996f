//! Tables with lines around every cell, headings centred, cells aligned right.

/// A table as text.
pub(crate) fn render(heading: &[String], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> =
        heading.iter().map(|it| it.replace('_', " ").to_uppercase()).collect();
    let width = |at: usize| {
        let cells = rows.iter().map(|row| &row[at]).chain([&heading[at]]);
        cells.map(|it| it.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let cells: Vec<String> = widths.iter().map(|it| "─".repeat(it + 2)).collect();
        format!("{left}{}{right}\n", cells.join(middle))
    };
    let cells = |cells: Vec<String>| format!("│{}│\n", cells.join("│"));
    let centered = heading.iter().zip(&widths).map(|(text, width)| {
        let space = width - text.chars().count();
        let left = space / 2;
        format!(" {}{text}{} ", " ".repeat(left), " ".repeat(space - left))
    });
    let mut out = rule("┌", "┬", "┐") + &cells(centered.collect());
    if !rows.is_empty() {
        out.push_str(&rule("├", "┼", "┤"));
    }
    for row in rows {
        let row = row.iter().zip(&widths);
        out.push_str(&cells(row.map(|(text, width)| format!(" {text:>width$} ")).collect()));
    }
    out + &rule("└", "┴", "┘")
}
