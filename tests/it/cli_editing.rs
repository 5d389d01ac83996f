//! Interactive use of a terminal: the output of `etcdctl` and `basaltctl` while a user types must be the
//! same, and passwords must never be shown.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{self, Server, reference};
use crate::terminal::Terminal;
use crate::transcripts::{evened, server};

/// The next action of the user.
#[derive(Clone, Copy)]
enum Step {
    /// Waits until this is shown.
    See(&'static str),
    /// Types with echo.
    Type(&'static str),
    /// Types as soon as the echo is off.
    Hide(&'static str),
}
use Step::{Hide, See, Type};

/// End of input, and the interrupt key.
const END: &str = "\x04";
const INTERRUPT: &str = "\x03";
const PASSWORD: &str = "correct horse";

#[test]
fn transactions_are_asked_for_part_by_part() {
    let compares = [See("compares:\n"), Type("mod(\"k\") > \"0\"\n"), See("\"0\"\n"), Type("\n")];
    let wanted = [See("success requests (get, put, del):\n"), Type("put k \"two words\"\n")];
    let more = [See("words\"\n"), Type("get k\n"), See("get k\n"), Type("\n")];
    let otherwise = [See("failure requests (get, put, del):\n"), Type("del k\n"), See("del k\n")];
    let steps = [&compares[..], &wanted, &more, &otherwise, &[Type("\n")]].concat();
    let shown = same(&[(&["put", "k", "1"], &[]), (&["txn", "-i"], &steps)]);
    assert!(shown.contains("SUCCESS") && shown.contains("two words"), "{shown}");
    let steps = [See("compares:\n"), Type("mod(\"k\" > 0\n")];
    let shown = same(&[(&["txn", "-i"], &steps)]);
    assert!(shown.contains("malformed comparison"), "{shown}");
    let shown = same(&[
        (&["txn", "--interactive"], &[See("compares:\n"), Type(END)]),
        (&["txn", "-i"], &[See("compares:\n"), Type(INTERRUPT)]),
    ]);
    assert!(shown.contains("Error: EOF"), "{shown}");
}

#[test]
fn watches_are_added_line_by_line() {
    let first = [Type("watch w/ --prefix --rev 2\n"), See("w/b\n2\n"), Type("progress\n")];
    let second = [See("progress notify: 3\n"), Type("nonsense\n"), See("support watch)\n")];
    let third = [Type("watch w/a --rev 2 -- echo told\n"), See("1\ntold\n"), Type(END)];
    let steps = [&first[..], &second, &third].concat();
    let shown = same(&[
        (&["put", "w/a", "1"], &[]),
        (&["put", "w/b", "2"], &[]),
        (&["watch", "-i"], &steps),
        (&["watch", "-i"], &[Type("watch w/a --rev 2\n"), See("w/a\n1\n"), Type(INTERRUPT)]),
    ]);
    assert!(shown.contains("PUT\nw/a\n1\n"), "{shown}");
}

#[test]
fn passwords_are_not_shown() {
    let twice = [
        See("Password of alice: "),
        Hide("correct horse\n"),
        See("Type password of alice again for confirmation: "),
        Hide("correct horse\n"),
    ];
    let different = [
        See("Password of alice: "),
        Hide("correct horse\n"),
        See("again for confirmation: "),
        Hide("battery staple\n"),
    ];
    let shown = same(&[
        (&["user", "add", "alice"], &twice),
        (&["user", "passwd", "alice"], &twice),
        (&["user", "add", "alice"], &different),
        (&["user", "passwd", "alice"], &[See("Password of alice: "), Hide("\n")]),
        (&["user", "add", "bob"], &[See("Password of bob: "), Hide(END)]),
        (&["user", "add", "bob"], &[See("Password of bob: "), Hide(INTERRUPT)]),
        (&["--user", "root", "get", "k"], &[See("Password: "), Hide("correct horse\n")]),
        (
            &["make-mirror", "--dest-user", "root", "http://127.0.0.1:1"],
            &[See("Destination Password: "), Hide(INTERRUPT)],
        ),
    ]);
    assert!(shown.contains("given passwords are different"), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
}

/// A command line and the input while it runs.
type Session<'a> = (&'a [&'a str], &'a [Step]);

/// The output of both programs, each with a server of its own.
fn same(sessions: &[Session]) -> String {
    let (left, right) = std::thread::scope(|scope| {
        let left = scope.spawn(|| shown(&reference("etcdctl"), sessions));
        let right = shown(&process::basaltctl(), sessions);
        (left.join().expect("etcdctl's half runs to its end"), right)
    });
    assert_eq!(left, right, "etcdctl is on the left");
    right
}

fn shown(program: &Path, sessions: &[Session]) -> String {
    let server = server();
    sessions.iter().map(|(line, steps)| session(program, &server, line, steps)).collect()
}

fn session(program: &Path, server: &Server, line: &[&str], steps: &[Step]) -> String {
    let mut command = Command::new(program);
    command.args(line).env("ETCDCTL_ENDPOINTS", format!("127.0.0.1:{}", server.port));
    let mut terminal = Terminal::open(&command);
    for step in steps {
        match step {
            See(text) => {
                terminal.wait_for(text);
            }
            Type(keys) => terminal.type_in(keys),
            Hide(keys) => {
                terminal.wait_echo(false);
                terminal.type_in(keys);
            }
        }
    }
    // The next program finds the terminal as it was.
    terminal.wait_echo(true);
    let (screen, code) = terminal.end();
    let screen = evened(&screen, server, &mut Vec::new());
    format!("$ {}\n{screen}\ncode: {code}\n", line.join(" "))
}

/// A long operation: its command line, its progress text, and the seconds after which it is interrupted if it
/// does not end by itself.
const LONG: &[(&str, &str, u64)] = &[
    ("snapshot save s.db", " of ", 20),
    ("make-mirror --dest-prefix copy/ --prefix k SERVER", " copied", 2),
    ("check perf", " / 60 s", 2),
    ("check datascale", " / 10000", 10),
    ("defrag", "Defragmenting ", 20),
];

#[test]
fn progress_is_shown_on_a_terminal_only() {
    let server = server();
    let place = process::Scratch::new();
    for (line, progress, seconds) in LONG {
        let mut command = Command::new(process::basaltctl());
        command.args(line.replace("SERVER", &server.endpoint()).split(' '));
        command.env("ETCDCTL_ENDPOINTS", server.endpoint()).current_dir(place.path());
        let is_short = *line == "defrag";
        if is_short {
            server.signal(Signal::STOP);
        }
        let mut terminal = Terminal::open(&command);
        terminal.wait_for(progress);
        if is_short {
            server.signal(Signal::CONT);
        } else if *seconds < 10 {
            terminal.type_in(INTERRUPT);
        }
        let screen = terminal.end().0;
        if !line.starts_with("make-mirror") {
            let left: Vec<_> = screen.lines().filter(|it| seen(it).contains(progress)).collect();
            assert_eq!(left, [""; 0], "{line}: it is gone in the end");
        }
        let mut quiet = Command::new("timeout");
        quiet.args(["-s", "INT", &seconds.to_string()]).arg(command.get_program());
        quiet.args(command.get_args()).current_dir(place.path());
        quiet.env("ETCDCTL_ENDPOINTS", server.endpoint());
        let told = process::run(quiet, Duration::from_secs(90));
        let said = format!("{}{}", told.stdout, told.stderr);
        let is_seen = said.contains(progress) || said.contains(['\r', '\x1b']);
        assert!(!is_seen, "{line}: {said}");
        assert!(*line != "check perf" || told.stdout.contains("Stddev"), "{said}");
    }
    // An interrupted check deletes the keys that it put.
    let mut left = Command::new(process::basaltctl());
    left.args(["get", "/etcdctl-check-perf/", "--prefix", "--keys-only"]);
    left.env("ETCDCTL_ENDPOINTS", server.endpoint());
    assert_eq!(process::run(left, Duration::from_secs(20)).stdout, "");
}

/// The visible rest of a line that was overwritten.
fn seen(line: &str) -> &str {
    line.rsplit("\x1b[K").next().unwrap_or_default()
}
