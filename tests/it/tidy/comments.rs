//! Sentences of comments and documents begin with their subject: one that opens with a relative clause or an indirect
//! question is refused, in all source files and in the documents.

use std::fs;
use std::path::{Path, PathBuf};

/// First words that are refused.
const OPENINGS: [&str; 3] = ["What", "Who", "Whether"];

/// Documents that are checked in addition to the comments of the source files.
const DOCUMENTS: [&str; 3] = ["ARCHITECTURE.md", "README.md", "tests/it/README.md"];

/// Modules of `src` that still have such sentences. One without any leaves the list.
const REMAINING: &[&str] = &[];

/// The mark before comments in a file; `None` if the file has none or is no source.
fn comment_mark(path: &Path) -> Option<&'static str> {
    match path.extension().map(|it| it.to_str().unwrap_or_default()) {
        Some("rs" | "proto" | "go" | "js" | "java") => Some("//"),
        Some("py" | "sh") | None => Some("#"),
        Some(_) => None,
    }
}

/// True if a file belongs to a module of `src`: `src/io/net.rs` and `src/io.rs` are in `io`.
fn is_in(path: &Path, module: &str) -> bool {
    let inside = path.strip_prefix("src").ok().and_then(|it| it.iter().next());
    inside.is_some_and(|it| Path::new(it).with_extension("") == Path::new(module))
}

/// The comment in a line, without its marks.
fn comment<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let line = line.trim_start();
    let comment = match line.strip_prefix(mark) {
        Some(comment) => comment,
        None => {
            let (code, comment) = line.split_once(&format!(" {mark} "))?;
            // An odd number of quotes: the mark is inside of a string.
            (code.matches('"').count() % 2 == 0).then_some(comment)?
        }
    };
    Some(comment.trim_start_matches(['/', '!']))
}

/// The refused word with which a sentence in this line of text opens.
fn refused_opening(text: &str) -> Option<&'static str> {
    let ends = text.match_indices(['.', ':', '?', ';']).map(|(at, _)| at + 1);
    let starts = std::iter::once(0).chain(ends.filter(|at| text[*at..].starts_with(' ')));
    starts.into_iter().find_map(|at| {
        let sentence = text[at..].trim_start_matches([' ', '*', '-', '|', '#', '(', '"']);
        let word = sentence.split(|it: char| !it.is_alphabetic()).next()?;
        OPENINGS.into_iter().find(|refused| *refused == word)
    })
}

/// All files below a directory but for those that are built or downloaded.
fn files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("directory is readable") {
        let path = entry.expect("entry is readable").path();
        match path.is_dir() {
            true if path.ends_with("node_modules") || path.ends_with("target") => (),
            true => files(&path, into),
            false => into.push(path),
        }
    }
}

#[test]
fn sentences_of_comments_open_with_their_subject() {
    let (mut faults, mut remaining) = (Vec::new(), REMAINING.to_vec());
    let mut sources = Vec::new();
    for dir in ["src", "tools", "tests", "proto"] {
        files(Path::new(dir), &mut sources);
    }
    for path in &sources {
        let Some(mark) = comment_mark(path) else { continue };
        let Ok(text) = fs::read_to_string(path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let Some(word) = comment(line, mark).and_then(refused_opening) else { continue };
            match REMAINING.iter().find(|part| is_in(path, part)) {
                Some(part) => remaining.retain(|it| it != part),
                None => {
                    faults.push(format!("{}:{}: opens with {word}", path.display(), number + 1))
                }
            }
        }
    }
    for document in DOCUMENTS {
        let text = fs::read_to_string(document).expect("document is readable");
        let lines = text.lines().enumerate();
        let refused = lines.filter_map(|(number, line)| Some((number, refused_opening(line)?)));
        faults.extend(
            refused.map(|(number, word)| format!("{document}:{}: opens with {word}", number + 1)),
        );
    }
    faults.extend(remaining.iter().map(|part| format!("{part} has none: it leaves the list")));
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn refused_openings_are_found_in_every_kind_of_comment() {
    let found = |line, mark| comment(line, mark).and_then(refused_opening);
    for (line, mark) in [
        ("//! What it is.", "//"),
        ("    /// Who asks.", "//"),
        ("let a = 1; // Whether it is.", "//"),
        ("/// Empties it. Whether it was full.", "//"),
        ("/// * What else", "//"),
        ("# Who was first", "#"),
    ] {
        assert!(found(line, mark).is_some(), "{line}");
    }
    for (line, mark) in [
        ("/// The value, and what it was.", "//"),
        ("/// Whoever asks.", "//"),
        ("let text = \"What\";", "//"),
        (concat!("let text = \"a /", "/ What\";"), "//"),
        ("/// Asks what is there. The rest stays.", "//"),
        ("# Whatsoever", "#"),
    ] {
        assert_eq!(found(line, mark), None, "{line}");
    }
    assert_eq!(comment_mark(Path::new("tools/test")), Some("#"));
    assert!(is_in(Path::new("src/io/net.rs"), "io") && is_in(Path::new("src/io.rs"), "io"));
    assert!(!is_in(Path::new("tools/io.rs"), "io"));
    assert_eq!(comment_mark(Path::new("a.hex")), None);
}
