//! Modules of a crate do not import each other in a circle: of any two, one can be read without the
//! other.
//!
//! An import is a path to an item, in a `use` or in the code, followed to the module that defines
//! it. A declaration (`mod x;`) is none, nor is a re-export (`pub use`), which is a signpost for
//! others. A module may use what the modules around it define: it is a part of them. Tests are left
//! out, they may look at everything.

use crate::ratchet::{Finding, hold};
use crate::source::{Language, closing, code, is_in_name};
use crate::tree;
use std::collections::{BTreeMap, BTreeSet};

/// The number of files in a circle, for each crate that may have any: none.
const CIRCLES: [(&str, usize); 0] = [];

/// The origin of an item: its module and, for a re-export, its name there.
type Target = (String, String);

/// One module: a file of the crate.
#[derive(Debug, Default)]
struct Module {
    /// Without comments, literals, tests and `use` declarations.
    code: String,
    /// Names that are in scope by `use`, with the path of each as written.
    uses: Vec<(String, Vec<String>)>,
    /// The same for `pub use`.
    exports: Vec<(String, Vec<String>)>,
}

/// The modules of a crate by their paths: `""` is its root, `a::b` a module below.
#[derive(Debug, Default)]
struct Crate {
    modules: BTreeMap<String, Module>,
}

/// The path of the module in a file, from the folder of the crate's root. `None` for tests and for
/// a program beside a library, which is a crate of its own.
fn module_path(file: &str) -> Option<String> {
    let bare = file.strip_suffix(".rs")?;
    let mut parts: Vec<&str> = bare.split('/').collect();
    if parts
        .iter()
        .any(|it| ["tests", "testing", "build"].contains(it))
        || bare == "main"
    {
        return None;
    }
    if parts.last().is_some_and(|it| it.ends_with("_tests")) {
        return None;
    }
    if parts.last() == Some(&"mod") || bare == "lib" {
        parts.pop();
    }
    Some(parts.join("::"))
}

/// Code without the items that are built for tests only.
fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut kept = String::new();
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept += &rest[..at];
        let item = &rest[at..];
        let end = item.find([';', '{']).unwrap_or(item.len() - 1);
        let end = if item[end..].starts_with('{') {
            closing(item, end)
        } else {
            end
        };
        rest = &item[end + 1..];
    }
    kept + rest
}

/// The leaves of a `use` tree: names in scope with their paths.
fn leaves(tree: &str, before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let head = tree[..open].split("::").map(|it| it.trim().to_owned());
        let mut path = before.to_vec();
        path.extend(head.filter(|it| !it.is_empty()));
        let inside = &tree[open + 1..closing(tree, open)];
        let (mut depth, mut start) = (0, 0);
        for (at, letter) in inside.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    leaves(&inside[start..at], &path, found);
                    start = at + 1;
                }
                _ => {}
            }
        }
        leaves(&inside[start..], &path, found);
        return;
    }
    if tree.is_empty() {
        return;
    }
    let (bare, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = before.to_vec();
    path.extend(bare.split("::").map(|it| it.trim().to_owned()));
    if path.last().is_some_and(|it| it == "self") {
        path.pop();
    }
    let alias = alias.trim();
    let name = if alias.is_empty() {
        path.last().cloned().unwrap_or_default()
    } else {
        alias.to_owned()
    };
    found.push((name, path));
}

/// A module from its text.
fn module(text: &str) -> Module {
    let mut module = Module::default();
    let all = without_tests(&code(text, Language::Rust));
    let mut rest = all.as_str();
    loop {
        let next = rest.match_indices("use ").find(|(at, _)| {
            let before = rest[..*at].chars().next_back();
            !before.is_some_and(|it| is_in_name(&it) || it == '<' || it == '+')
        });
        let Some((at, _)) = next else {
            break;
        };
        let end = rest[at..].find(';').map_or(rest.len(), |end| at + end);
        let line = rest[..at].rsplit(['\n', ';', '}']).next().unwrap_or("");
        let into = if line.trim_start().starts_with("pub") {
            &mut module.exports
        } else {
            &mut module.uses
        };
        leaves(&rest[at + 4..end], &[], into);
        module.code += &rest[..at];
        rest = &rest[end..];
    }
    module.code += rest;
    module
}

/// Paths that are written out in code, as `super::name::item`.
fn paths_in(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut path: Vec<String> = Vec::new();
    let mut rest = code;
    while !rest.is_empty() {
        let end = rest.find(|it| !is_in_name(&it)).unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
            rest = &rest[end..];
            match rest.strip_prefix("::") {
                Some(after) if after.starts_with(|it| is_in_name(&it)) => rest = after,
                _ => found.push(std::mem::take(&mut path)),
            }
            continue;
        }
        let length = rest.chars().next().map_or(1, char::len_utf8);
        rest = &rest[length..];
    }
    found.retain(|path| path.len() > 1);
    found
}

fn child_of(module: &str, name: &str) -> String {
    if module.is_empty() {
        name.to_owned()
    } else {
        format!("{module}::{name}")
    }
}

fn parent_of(module: &str) -> String {
    module
        .rsplit_once("::")
        .map_or(String::new(), |(parent, _)| parent.to_owned())
}

/// True if a module is another one or inside of it.
fn is_in(module: &str, other: &str) -> bool {
    other.is_empty()
        || module
            .strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

impl Crate {
    fn new<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let modules = files.into_iter().filter_map(|(name, text)| {
            let path = module_path(name)?;
            Some((path, module(text)))
        });
        Self {
            modules: modules.collect(),
        }
    }

    /// The module and the item that a path in `from` leads to, if it stays in the crate.
    fn follow(&self, from: &str, path: &[String], depth: usize) -> Option<Target> {
        let mut names = path.iter().peekable();
        let first = names.next()?;
        let mut at = match first.as_str() {
            "crate" => String::new(),
            "self" => from.to_owned(),
            "super" => parent_of(from),
            name => {
                let child = child_of(from, name);
                if self.modules.contains_key(&child) {
                    child
                } else {
                    let uses = &self.modules.get(from)?.uses;
                    let (_, path) = uses.iter().find(|(used, _)| used == name)?;
                    if depth == 0 || path.first() == Some(first) {
                        return None;
                    }
                    let whole: Vec<String> = path.iter().chain(names).cloned().collect();
                    return self.follow(from, &whole, depth - 1);
                }
            }
        };
        while let Some(name) = names.next() {
            let child = child_of(&at, name);
            if name == "super" {
                at = parent_of(&at);
            } else if self.modules.contains_key(&child) {
                at = child;
            } else {
                return Some(self.definition(at, name, &names.cloned().collect::<Vec<_>>(), depth));
            }
        }
        Some((at, String::new()))
    }

    /// The module that defines `name`, which can be used from `module`.
    fn definition(&self, module: String, name: &str, rest: &[String], depth: usize) -> Target {
        let exports = self.modules.get(&module).map(|it| &it.exports);
        for (export, path) in exports.into_iter().flatten() {
            if depth > 0 && export == name {
                let whole: Vec<String> = path.iter().chain(rest).cloned().collect();
                if let Some(target) = self.follow(&module, &whole, depth - 1) {
                    return target;
                }
            }
        }
        (module, name.to_owned())
    }

    /// Which modules each imports from.
    fn imports(&self) -> BTreeMap<&str, BTreeSet<String>> {
        const HOPS_MAX: usize = 8;
        let mut imports = BTreeMap::new();
        for (name, module) in &self.modules {
            let used = module.uses.iter().map(|(_, path)| path.clone());
            let paths = used.chain(paths_in(&module.code));
            let targets = paths.filter_map(|path| self.follow(name, &path, HOPS_MAX));
            let others = targets.filter(|(target, item)| !item.is_empty() && !is_in(name, target));
            imports.insert(name.as_str(), others.map(|(target, _)| target).collect());
        }
        imports
    }

    /// Modules that import each other in a circle, each with those of its circle that it imports.
    fn circles(&self) -> Vec<(String, Vec<String>)> {
        let imports = self.imports();
        let reached = |from: &str| {
            let mut seen = BTreeSet::new();
            let mut open: Vec<&str> = vec![from];
            while let Some(at) = open.pop() {
                for next in imports.get(at).into_iter().flatten() {
                    if seen.insert(next.as_str()) {
                        open.push(next);
                    }
                }
            }
            seen
        };
        let all: BTreeMap<&str, BTreeSet<&str>> =
            imports.keys().map(|name| (*name, reached(name))).collect();
        let circular = imports
            .iter()
            .filter(|(name, _)| all[*name].contains(*name));
        circular
            .map(|(name, next)| {
                let back = next.iter().filter(|it| {
                    all.get(it.as_str())
                        .is_some_and(|reached| reached.contains(name))
                });
                ((*name).to_owned(), back.cloned().collect())
            })
            .collect()
    }
}

/// Files of a crate by their names from the folder of its root module.
fn files_of<'a>(part: &str, sources: &'a [tree::Source]) -> Vec<(&'a str, &'a str)> {
    let own = sources.iter().filter(|it| tree::crate_of(&it.name) == part);
    own.filter_map(|it| {
        let name = it.name.strip_prefix(part)?.strip_prefix('/')?;
        let name = name.strip_prefix("src/").unwrap_or(name);
        Some((name, it.text.as_str()))
    })
    .collect()
}

#[test]
fn modules_do_not_import_each_other_in_a_circle() {
    let sources = tree::rust();
    let mut found = Vec::new();
    for part in tree::crates() {
        if part == "tests" {
            continue;
        }
        let modules = Crate::new(files_of(part, &sources));
        for (module, back) in modules.circles() {
            found.push(Finding {
                part: part.clone(),
                fault: format!("{part}: {module} is in a circle by {}", back.join(", ")),
                weight: 1,
            });
        }
    }
    hold(&CIRCLES, found);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let modules = Crate::new(files.iter().copied());
        let circles = modules.circles().into_iter();
        circles.map(|(name, _)| name).collect()
    }

    #[test]
    fn a_tree_has_no_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A; use b::B;"),
            ("a.rs", "use crate::b::{self, inner::{C, D as E}};"),
            ("b/mod.rs", "mod inner; fn f() { inner::g(); }"),
            ("b/inner.rs", "use std::fmt; fn g() {}"),
        ];
        assert_eq!(circles(&files), Vec::<String>::new());
    }

    #[test]
    fn nested_groups_and_super_make_circles() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::{\n    b::{inner::C, X},\n};"),
            ("b/mod.rs", "pub mod inner;"),
            ("b/inner.rs", "use super::super::a::A;"),
        ];
        assert_eq!(circles(&files), ["a", "b::inner"]);
    }

    #[test]
    fn re_exports_are_followed_to_the_definition() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::C; pub struct A;"),
            (
                "b/mod.rs",
                "mod c; mod d; pub use c::C; pub(crate) use d::D;",
            ),
            ("b/c.rs", "use super::D; use crate::a::A;"),
            ("b/d.rs", ""),
        ];
        assert_eq!(circles(&files), ["a", "b::c"]);
    }

    #[test]
    fn paths_in_the_code_are_imports() {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "fn f() -> crate::b::B { x(\"super::c\") }"),
            ("b.rs", "use super::a; fn g() { a::f() }"),
        ];
        assert_eq!(circles(&files), ["a", "b"]);
    }

    #[test]
    fn tests_and_comments_import_nothing() {
        let files = [
            ("lib.rs", "mod a; mod b; use a::A;"),
            (
                "a.rs",
                "#[cfg(test)]\nmod tests { use crate::b::B; }\n// use crate::b::B;\n",
            ),
            ("a/tests.rs", "use crate::b::B;"),
            ("b.rs", "use crate::a::A;"),
        ];
        assert_eq!(circles(&files), Vec::<String>::new());
    }

    #[test]
    fn a_child_is_a_part_of_its_parent() {
        let files = [
            ("lib.rs", "mod a;"),
            ("a/mod.rs", "mod b; use b::B; pub struct A;"),
            ("a/b.rs", "use super::A; pub struct B;"),
        ];
        assert_eq!(circles(&files), Vec::<String>::new());
    }
}
