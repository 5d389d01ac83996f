//! Lines of the log on standard error, as the member writes them.

use gocompat::zap::Line;

fn line(level: &str, file: &str, message: &str) -> Line {
    Line::new(level, "pod", &format!("pod/{file}.rs")).message(message)
}

pub(crate) fn info(file: &str, message: &str) -> Line {
    line("info", file, message)
}

pub(crate) fn warn(file: &str, message: &str) -> Line {
    line("warn", file, message)
}

pub(crate) fn error(file: &str, message: &str) -> Line {
    line("error", file, message)
}
