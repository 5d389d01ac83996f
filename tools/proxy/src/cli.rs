//! The command line of both programs, as cobra parses and describes it.

mod tables;

use gocompat::flags::{Flag, Line, Values, Word, listed};

/// A command line.
pub(crate) enum Parsed {
    /// Text for standard output.
    Help(String),
    /// Text for standard error.
    Misuse(String),
    /// `gateway start`.
    Gateway(Values),
    /// `grpc-proxy start`.
    GrpcProxy(Values),
}

/// `gateway` or `grpc-proxy`, each with one command, `start`.
struct Program {
    name: &'static str,
    about: &'static str,
    about_start: &'static str,
    flags: &'static [Flag],
    started: fn(Values) -> Parsed,
}

static PROGRAMS: [Program; 2] = [
    Program {
        name: "gateway",
        about: "gateway related command",
        about_start: "start the gateway",
        flags: tables::GATEWAY,
        started: Parsed::Gateway,
    },
    Program {
        name: "grpc-proxy",
        about: "grpc-proxy related command",
        about_start: "start the grpc proxy",
        flags: tables::GRPC_PROXY,
        started: Parsed::GrpcProxy,
    },
];

/// Parses the words from the program's on.
pub(crate) fn parse(words: &[String]) -> Parsed {
    let program = PROGRAMS.iter().find(|it| Some(it.name) == words.first().map(String::as_str));
    let Some(program) = program else { return Parsed::Misuse(String::new()) };
    let words: Vec<Word> = words[1..].iter().map(|it| it.clone().into_bytes()).collect();
    let Some(at) = first_bare(&words).filter(|at| words[*at] == b"start") else {
        return read(&[], &words).map_or_else(misuse(program, false), |_| group(program));
    };
    let rest: Vec<Word> = [&words[..at], &words[at + 1..]].concat();
    match read(program.flags, &rest) {
        Ok(values) if values.is_on("help") => {
            Parsed::Help(format!("{}\n\n{}", program.about_start, usage(program, true)))
        }
        Ok(values) => (program.started)(values),
        Err(why) => misuse(program, true)(why),
    }
}

/// The first word that is no flag. No flag is known at this point, so that each takes the next word as its value.
fn first_bare(words: &[Word]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let is_flag = word.starts_with(b"-");
        let takes_next = !word.contains(&b'=') && (word.starts_with(b"--") || word.len() == 2);
        match (is_flag, takes_next) {
            (false, _) => return Some(at),
            (true, true) => at += 2,
            (true, false) => at += 1,
        }
    }
    None
}

fn read(flags: &'static [Flag], words: &[Word]) -> Result<Values, String> {
    Values::read(flags.iter(), std::iter::empty(), words)
}

fn group(program: &Program) -> Parsed {
    Parsed::Help(format!("{}\n\n{}", program.about, usage(program, false)))
}

/// cobra prints the error and the usage, and etcd the error once more.
fn misuse(program: &'static Program, of_start: bool) -> impl Fn(String) -> Parsed {
    move |why| Parsed::Misuse(format!("Error: {why}\n{}\n{why}", usage(program, of_start)))
}

fn usage(program: &Program, of_start: bool) -> String {
    let name = program.name;
    if of_start {
        let lines = program.flags.iter().map(Line::of).chain([Line::help("start")]).collect();
        return format!("Usage:\n  etcd {name} start [flags]\n\nFlags:\n{}", listed(lines));
    }
    format!(
        "Usage:\n  etcd {name} [command]\n\nAvailable Commands:\n  {:11} {}\n\nFlags:\n{}\nUse \"etcd {name} [command] \
         --help\" for more information about a command.\n",
        "start",
        program.about_start,
        listed(vec![Line::help(name)]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Parsed {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn flags_have_etcds_defaults() {
        let Parsed::GrpcProxy(values) = parsed("grpc-proxy start --endpoints a,b --endpoints c")
        else {
            panic!("it starts")
        };
        assert_eq!(values.list("endpoints"), ["a", "b", "c"]);
        assert_eq!(values.text("advertise-client-url"), "127.0.0.1:23790");
        assert_eq!(values.int("max-send-bytes"), 1_572_864);
        assert_eq!(values.duration("grpc-keepalive-interval").as_secs(), 7200);
    }

    #[test]
    fn an_error_is_told_twice() {
        let Parsed::Misuse(text) = parsed("gateway start --nope") else { panic!("no such flag") };
        assert!(text.starts_with("Error: unknown flag: --nope\nUsage:\n  etcd gateway start"));
        assert!(text.ends_with("\n\nunknown flag: --nope"), "{text}");
        assert!(matches!(parsed("gateway nope"), Parsed::Help(_)));
    }
}
