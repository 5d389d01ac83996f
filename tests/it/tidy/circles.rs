//! Files whose names lead from one to the next and back cannot be read one after the other: circles are refused, in every
//! crate. A module may name its own parts freely, since it consists of them; a part that names its module's other parts
//! through `super` names those.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::rust_files;

/// A module: the names from the root of its crate.
type Module = Vec<String>;

/// The code of one crate.
#[derive(Default)]
struct Crate {
    /// Paths that each module names.
    paths: BTreeMap<Module, Vec<Vec<String>>>,
    /// The imports of each module: a name, and the path it stands for.
    imports: BTreeMap<Module, BTreeMap<String, Vec<String>>>,
}

impl Crate {
    fn read(source: &Path) -> Self {
        let files = rust_files(source).into_iter().filter(|path| !path.ends_with("main.rs"));
        let mut code = Self::default();
        for file in files {
            let module = module_of(source, &file);
            if !module.iter().any(|part| part == "tests" || part == "bin") {
                let text = fs::read_to_string(&file).expect("source file is readable");
                code.add(module, &text);
            }
        }
        code
    }

    fn add(&mut self, module: Module, text: &str) {
        let text = without_comments_and_tests(text);
        let paths = named(&text, &module);
        let imported = paths.iter().filter_map(|path| Some((path.last()?.clone(), path.clone())));
        self.imports.insert(module.clone(), imported.collect());
        self.paths.insert(module, paths);
    }

    /// The file that a path leads to, through the imports of modules.
    fn resolve(&self, path: &[String]) -> Option<&Module> {
        let mut path = path.to_vec();
        // Names may be re-exported several times.
        for _ in 0..8 {
            let length =
                (0..=path.len()).rev().find(|end| self.paths.contains_key(&path[..*end]))?;
            let (module, rest) = path.split_at(length);
            let next = rest.first().and_then(|name| self.imports[module].get(name));
            match next.filter(|next| **next != path && !next.is_empty()) {
                Some(next) => path = [next, &rest[1..]].concat(),
                None => return self.paths.get_key_value(module).map(|(module, _)| module),
            }
        }
        None
    }

    /// The files that each file needs.
    fn needs(&self) -> BTreeMap<&Module, BTreeSet<&Module>> {
        let of = |(module, paths): (&'_ Module, &Vec<Vec<String>>)| -> BTreeSet<&Module> {
            let needed = paths.iter().filter_map(|path| self.resolve(path));
            needed.filter(|needed| !needed.starts_with(module)).collect()
        };
        self.paths.iter().map(|(module, paths)| (module, of((module, paths)))).collect()
    }

    /// Sets of files each of which leads to each other.
    fn circles(&self) -> BTreeSet<BTreeSet<String>> {
        let needs = self.needs();
        let reached: BTreeMap<_, _> =
            needs.keys().map(|from| (*from, reach(from, &needs))).collect();
        let name = |module: &&Module| module.join("/");
        let circle = |from: &&Module| -> BTreeSet<String> {
            let back = reached[from].iter().filter(|to| reached[*to].contains(from));
            back.map(name).collect()
        };
        needs.keys().map(circle).filter(|circle| circle.len() > 1).collect()
    }
}

/// All that is reached from a module.
fn reach<'a>(
    from: &Module,
    needs: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut todo: Vec<_> = needs[from].iter().copied().collect();
    while let Some(module) = todo.pop() {
        if reached.insert(module) {
            todo.extend(&needs[module]);
        }
    }
    reached
}

/// `src/a/b.rs` is module `a`, `b`; `lib.rs` is the root.
fn module_of(source: &Path, file: &Path) -> Module {
    let inside = file.strip_prefix(source).expect("it is inside").with_extension("");
    let parts = inside.iter().map(|part| part.to_string_lossy().into_owned());
    parts.filter(|part| part != "lib").collect()
}

fn without_comments_and_tests(text: &str) -> String {
    let code = text.split("\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// The paths in `text` that begin with `crate`, `super` or `self`, from the root of the crate.
fn named(text: &str, module: &Module) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            // `super::super::` is found at its first word, `pub(in crate::x)` is no use of `x`.
            let is_inside = before.is_some_and(|it| it.is_alphanumeric() || "_:$".contains(it));
            if is_inside || text[..at].ends_with("(in ") {
                continue;
            }
            let mut rest = &text[at..];
            let mut base = if start == "crate::" { Vec::new() } else { module.clone() };
            for (word, up) in [("crate::", false), ("self::", false), ("super::", true)] {
                while let Some(after) = rest.strip_prefix(word) {
                    rest = after;
                    if up {
                        base.pop();
                    }
                }
            }
            tree(&mut rest, &base, &mut paths);
        }
    }
    paths
}

/// Reads a path, or a tree of them in braces.
fn tree(rest: &mut &str, base: &[String], paths: &mut Vec<Vec<String>>) {
    if let Some(inside) = rest.strip_prefix('{') {
        *rest = inside.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            let before = rest.len();
            tree(rest, base, paths);
            let name = rest.find([',', '}']).unwrap_or(rest.len());
            *rest = rest[name..].trim_start_matches(',').trim_start();
            if rest.len() == before {
                return;
            }
        }
        *rest = rest.strip_prefix('}').unwrap_or(rest);
        return;
    }
    let end = rest.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(rest.len());
    let (name, after) = rest.split_at(end);
    let whole = match name {
        "self" | "" => base.to_vec(),
        name => [base, &[name.to_owned()]].concat(),
    };
    *rest = after;
    match after.strip_prefix("::") {
        Some(inner) if !inner.starts_with('<') => {
            *rest = inner;
            tree(rest, &whole, paths);
        }
        _ => paths.push(whole),
    }
}

#[test]
fn no_files_need_each_other_in_a_circle() {
    let tools =
        fs::read_dir("tools").expect("there are tools").map(|it| it.expect("readable").path());
    let tools = tools.map(|tool| tool.join("src")).filter(|source| source.is_dir());
    let crates = ["src", "proto/src"].map(|source| Path::new(source).to_owned());
    let mut faults = Vec::new();
    for source in crates.into_iter().chain(tools) {
        let name = source.display().to_string();
        for circle in Crate::read(&source).circles() {
            faults.push(format!("{name}: a circle of {circle:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn circles_are_found_through_names_that_are_handed_on() {
    let mut code = Crate::default();
    let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
    code.add(Module::new(), "pub mod a;");
    code.add(module("a"), "mod b;\nmod c;\npub use self::c::{Thing, other as Renamed};\n");
    code.add(module("a/b"), "use super::Thing;\n// use super::c;\n");
    code.add(module("a/c"), "fn f() {}\n");
    assert_eq!(code.circles(), BTreeSet::new());
    code.add(module("a/c"), "fn f() { crate::a::b::g::<u8>() }\n");
    let circle = ["a/b", "a/c"].map(str::to_owned).into();
    assert_eq!(code.circles(), BTreeSet::from([circle]));
}
