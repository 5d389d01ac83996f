//! TAB in real shells: with our script a line is completed to the same text as `etcdctl`'s with
//! its own script.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{self, Scratch, reference, run};
use crate::terminal::Terminal;

/// Prints the shell's current line and clears it: bound by each shell's own means.
const SHOW: &str = "\x07";

/// Lines that are typed for both programs.
const LINES: &[&str] = &[
    "etcdctl mem\t",
    "etcdctl member a\t",
    "etcdctl member \t\t",
    "etcdctl m\t\t",
    "etcdctl lea\tgr\t",
    "etcdctl get --pre\t",
    "etcdctl get --consistency=\t\t",
    "etcdctl get --consistency \t\t",
    "etcdctl get --order=D\t",
    "etcdctl get --order D\t",
    "etcdctl get --sort-by M\t",
    "etcdctl check perf --load x\t",
    "etcdctl -w json mem\t",
    "etcdctl get --limit 5 --pre\t",
    "etcdctl --endp\t",
    "etcdctl completion b\t",
    "etcdctl role grant\t",
    "etcdctl snapshot save backup-of-m\t",
    "etcdctl get backup-of-m\t",
    "etcdctl compact\t",
    "etcdctl endpoint h\t\t",
];

#[test]
fn bash_completes_like_etcdctl() {
    let system = "/usr/share/bash-completion/bash_completion";
    assert!(Path::new(system).exists(), "{system} is missing: run tools/setup");
    let ready = [
        &format!(". {system}"),
        "bind 'set bell-style none'; bind 'set page-completions off'",
        "bind 'set completion-query-items 0'",
        r#"show() { printf '\n<%s>\n' "$READLINE_LINE"; READLINE_LINE=; }; bind -x '"\C-g": show'"#,
        ". <(etcdctl completion bash)",
    ];
    let shell = ["bash", "--norc", "--noprofile", "-i"];
    let (theirs, ours) = both(|program| typed(program, &shell, &ready, LINES));
    assert_eq!(theirs, ours);
    assert!(ours[1].ends_with("<etcdctl member add >"), "{}", ours[1]);
    // Where etcdctl's script stops to offer `--consistency=` as well, ours goes on.
    let program = process::basaltctl();
    let ours = typed(&program, &shell, &ready, &["etcdctl get --con\t", "etcdctl get --con\t\t\t"]);
    let wanted = ["<etcdctl get --consistency >", "l  s"];
    assert!(ours.iter().zip(wanted).all(|(line, part)| line.contains(part)), "{ours:?}");
}

#[test]
fn zsh_completes_like_etcdctl() {
    let ready = [
        "unsetopt beep; LISTMAX=0; PROMPT='$ '",
        "autoload -U compinit; compinit -D -u",
        r#"show() { zle -I; print -r -- "<$BUFFER>"; BUFFER= }; zle -N show; bindkey -e; bindkey '^G' show"#,
        ". <(etcdctl completion zsh); compdef _etcdctl etcdctl",
    ];
    // Listings are drawn with the cursor: only the resulting line is compared.
    let lines = |program: &Path| {
        let lines = typed(program, &["zsh", "-f", "-i"], &ready, LINES);
        lines.iter().map(|it| it[it.rfind('<').unwrap_or(0)..].to_owned()).collect::<Vec<_>>()
    };
    let (theirs, ours) = both(lines);
    assert_eq!(theirs, ours);
    assert_eq!(ours[1], "<etcdctl member add >");
}

#[test]
fn fish_completes_like_etcdctl() {
    let offered = |program: &Path| {
        let place = place(program);
        let lines = LINES.iter().map(|line| line.trim_end_matches('\t'));
        let told = lines.map(|line| {
            let mut fish = Command::new("fish");
            let ask = format!("etcdctl completion fish | source; complete -C '{line}' | sort");
            fish.args(["--no-config", "-c", &ask]).env("HOME", place.path());
            fish.env("PATH", path(&place)).current_dir(place.path().join("work"));
            let told = run(fish, Duration::from_secs(20));
            format!("{line}\n{}{}", told.stdout, told.stderr)
        });
        told.collect::<Vec<_>>()
    };
    let (theirs, ours) = both(offered);
    assert_eq!(theirs, ours);
    assert!(ours[1].starts_with("etcdctl member a\nadd\t"), "{}", ours[1]);
}

/// Lines for etcdutl up to the cursor.
const UTL_LINES: &[&str] = &[
    "etcdutl ",
    "etcdutl s",
    "etcdutl snapshot ",
    "etcdutl snapshot restore --",
    "etcdutl snapshot restore backup --data-dir ",
    "etcdutl snapshot status backup -w ",
    "etcdutl snapshot status backup -w=j",
    "etcdutl hashkv -",
    "etcdutl hashkv --write-out=",
    "etcdutl migrate ",
    "etcdutl migrate --data-dir x --t",
    "etcdutl defrag --data-dir ",
    "etcdutl completion p",
    "etcdutl help s",
    "etcdutl nonsense ",
];

/// Powershell itself is not available here; this sends the queries of its script, which makes its offers of the
/// answers alone.
#[test]
fn powershells_queries_are_answered_as_by_etcds_programs() {
    let ctl = [reference("etcdctl"), process::basaltctl()];
    let utl = [reference("etcdutl"), process::basaltutl()];
    for (programs, lines) in [(ctl, LINES), (utl, UTL_LINES)] {
        for line in lines.iter().map(|it| it.trim_end_matches('\t')) {
            // The word at the cursor is sent even if it is empty.
            let words: Vec<&str> = line.split(['\t', ' ']).skip(1).collect();
            let [theirs, ours] = programs.each_ref().map(|program| {
                let mut command = Command::new(program);
                command.arg("__complete").args(&words);
                let told = run(command, Duration::from_secs(20));
                (told.stdout, told.code)
            });
            assert_eq!(theirs, ours, "{line:?}: etcd's is on the left");
            let last = ours.0.lines().last().unwrap_or_default();
            assert!(last.starts_with(':') && last[1..].parse::<u32>().is_ok(), "{line:?}: {last}");
        }
    }
}

#[test]
fn powershells_script_is_for_the_program_it_is_of() {
    for (program, name) in [(process::basaltctl(), "etcdctl"), (process::basaltutl(), "etcdutl")] {
        let mut command = Command::new(&program);
        command.args(["completion", "powershell"]);
        let told = run(command, Duration::from_secs(20));
        let begin = format!("Register-ArgumentCompleter -Native -CommandName '{name}'");
        assert!(told.code == Some(0) && told.stdout.contains(&begin), "{}", told.stdout);
    }
}

fn both<T: Send>(told: impl Fn(&Path) -> T + Sync) -> (T, T) {
    std::thread::scope(|scope| {
        let theirs = scope.spawn(|| told(&reference("etcdctl")));
        let ours = told(&process::basaltctl());
        (theirs.join().expect("etcdctl's half runs to its end"), ours)
    })
}

/// A directory with the program as `etcdctl`, and a working directory with a file.
fn place(program: &Path) -> Scratch {
    let place = Scratch::new();
    for name in ["bin", "work"] {
        fs::create_dir(place.path().join(name)).expect("a new directory");
    }
    symlink(program, place.path().join("bin/etcdctl")).expect("a new link");
    fs::write(place.path().join("work/backup-of-monday.db"), "").expect("a new file");
    place
}

fn path(place: &Scratch) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{}:{path}", place.path().join("bin").display())
}

/// The completion of each line by an interactive shell.
fn typed(program: &Path, shell: &[&str], ready: &[&str], lines: &[&str]) -> Vec<String> {
    let place = place(program);
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).env("PATH", path(&place)).env("HOME", place.path());
    command.env("PS1", "$ ").env("TERM", "dumb").env("LC_ALL", "C");
    command.current_dir(place.path().join("work"));
    let mut terminal = Terminal::open(&command);
    for line in ready {
        terminal.type_in(&format!("{line}\n"));
    }
    // The marker differs from the typed text, so it is seen only when it is printed.
    terminal.type_in("echo rea''dy\n");
    terminal.wait_for("ready\n");
    terminal.wait_for("$ ");
    lines.iter().map(|line| completed(&mut terminal, line)).collect()
}

/// The output of TAB, and the line between `<` and `>`.
fn completed(terminal: &mut Terminal, line: &str) -> String {
    terminal.type_in(&format!("{line}{SHOW}"));
    let listed = terminal.wait_for("<");
    let shown = terminal.wait_for(">");
    terminal.type_in("echo don''e\n");
    terminal.wait_for("done\n");
    terminal.wait_for("$ ");
    listed + &shown
}
