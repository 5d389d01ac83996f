//! Help and usage in cobra's layout, made from the table of commands.

use gocompat::flags::{Line, listed};

use crate::cli::command::{Command, Path};
use crate::cli::tree::GROUPS;

/// Names are padded to this at least.
const NAME_WIDTH_MIN: usize = 11;

/// The output of `--help`.
pub(crate) fn help(path: &Path) -> String {
    let command = path.command();
    let about = if command.long.is_empty() { command.short } else { command.long };
    format!(
        "{}\n\n{}Use \"etcdctl options\" for a list of global command-line options \
         (applies to all commands).\n",
        about.trim_end(),
        usage(path)
    )
}

/// The usage, which follows the description in help, and an error about a flag.
pub(crate) fn usage(path: &Path) -> String {
    let command = path.command();
    let mut out = String::from("Usage:");
    if command.action.is_some() {
        out.push_str("\n  ");
        out.push_str(&use_line(path));
    }
    if !command.children.is_empty() {
        out.push_str(&format!("\n  {} [command]", path.text()));
    }
    if !command.example.is_empty() {
        out.push_str(&format!("\n\nExamples:\n{}", command.example));
    }
    if !command.children.is_empty() {
        out.push_str(&commands(path));
    }
    let helped = help_flag(path);
    let mut local: Vec<Line> = path.local().filter(|it| !it.hidden).map(Line::of).collect();
    local.extend(helped);
    if !local.is_empty() {
        out.push_str(&format!("\n\nFlags:\n{}", listed(local).trim_end()));
    }
    let above: Vec<Line> = path.above().filter(|it| !it.hidden).map(Line::of).collect();
    if !above.is_empty() {
        out.push_str(&format!("\n\nGlobal Flags:\n{}", listed(above).trim_end()));
    }
    if !command.children.is_empty() {
        let path = path.text();
        out.push_str(&format!(
            "\n\nUse \"{path} [command] --help\" for more information about a command."
        ));
    }
    out.push('\n');
    out
}

fn use_line(path: &Path) -> String {
    let mut line: Vec<&str> = path.0[..path.0.len() - 1].iter().map(|it| it.name()).collect();
    line.push(path.command().usage);
    let line = line.join(" ");
    // The one command whose usage does not mention flags.
    match path.command().name() {
        "completion" => line,
        _ => format!("{line} [flags]"),
    }
}

fn commands(path: &Path) -> String {
    let command = path.command();
    let mut children: Vec<&Command> = command.shown().collect();
    children.sort_by_key(|it| it.name());
    let width = children.iter().map(|it| it.name().len()).max().unwrap_or(0).max(NAME_WIDTH_MIN);
    let line = |it: &&Command| format!("\n  {:width$} {}", it.name(), it.short);
    if path.0.len() > 1 {
        let lines: String = children.iter().map(line).collect();
        return format!("\n\nAvailable Commands:{lines}");
    }
    let mut out = String::new();
    for group in GROUPS {
        let lines: String = children.iter().filter(|it| it.group == *group).map(line).collect();
        out.push_str(&format!("\n\n{group}{lines}"));
    }
    out
}

/// The flag of every command; only the root hides it.
fn help_flag(path: &Path) -> Option<Line> {
    let shown = path.0.len() > 1 || path.command().usage.is_empty();
    shown.then(|| Line::help(path.command().name()))
}

/// The output of `options`.
pub(crate) fn options(root: &'static Command) -> String {
    let lines = root.inherited.iter().filter(|it| !it.own).map(Line::of).collect();
    format!("The following options can be passed to any command:\n\n{}", listed(lines))
}
