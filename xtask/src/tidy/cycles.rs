//! Checks that the files of a crate have no import cycles, so that a reader can read a file's imports before
//! the file itself.
//!
//! An edge goes from a file to the file that defines an imported item. Re-exports are followed. A module's
//! re-export of its own children (`pub use self::child::Item`) is not an edge, because it names the children
//! without using them. Test code is ignored.

use std::collections::{BTreeMap, BTreeSet};

use syn::{
    Item, UseTree,
    visit::{self, Visit},
};

use super::finding::{File, Finding};

/// The names of the modules from the crate's root to a module.
type ModulePath = Vec<String>;

/// A file as a module: its imports by their local names, and all paths that it uses.
#[derive(Default)]
struct Module {
    file: String,
    imports: BTreeMap<String, ModulePath>,
    uses: BTreeSet<ModulePath>,
}

/// The modules of one crate by their paths.
type Modules = BTreeMap<ModulePath, Module>;

/// Returns one finding for each set of files that import each other in a cycle.
pub(super) fn check_tree(files: &[File]) -> Vec<Finding> {
    let roots: BTreeSet<&str> =
        files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml")).collect();
    roots.iter().flat_map(|root| check_crate(root, files)).collect()
}

fn check_crate(root: &str, files: &[File]) -> Vec<Finding> {
    let mut modules = Modules::new();
    for file in files {
        let Some(path) = file.path.strip_prefix(root).and_then(|rest| rest.strip_prefix("/src/")) else {
            continue;
        };
        let Some(module) = module_path(path) else { continue };
        let Ok(syntax) = syn::parse_file(&file.text) else { continue };
        let mut reader =
            Reader { here: module.clone(), module: Module { file: file.path.clone(), ..Module::default() } };
        reader.visit_file(&syntax);
        modules.insert(module, reader.module);
    }
    let edges: BTreeMap<&str, BTreeSet<&str>> =
        modules.values().map(|module| (module.file.as_str(), targets(module, &modules))).collect();
    let circles = circles(&edges);
    circles.iter().map(|circle| Finding::of(circle[0], describe(circle, &edges))).collect()
}

/// Returns the module of a file below `src/`. Returns `None` for tests and for files that are not a module of
/// the library or program.
fn module_path(path: &str) -> Option<ModulePath> {
    let path = path.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let names: ModulePath = path.split('/').map(str::to_owned).collect();
    let is_test = |name: &String| name == "tests" || name == "test_support";
    match names.as_slice() {
        [root] if root == "lib" || root == "main" => Some(ModulePath::new()),
        names if names.iter().any(is_test) => None,
        names => Some(names.to_vec()),
    }
}

/// Reads the imports and paths of one file.
struct Reader {
    /// The module of the current syntax node: the file's own module, or an inline one inside it.
    here: ModulePath,
    module: Module,
}

impl Reader {
    /// Resolves `crate::`, `self::` and `super::`. Returns `None` for a path that starts with another name.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let mut base = match path.first()?.as_str() {
            "crate" => ModulePath::new(),
            "self" => self.here.clone(),
            "super" => self.here[..self.here.len().checked_sub(1)?].to_vec(),
            _ => return None,
        };
        for name in &path[1..] {
            match name.as_str() {
                "super" => drop(base.pop()),
                "self" => {}
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }

    fn import(&mut self, before: &[String], tree: &UseTree, is_public: bool) {
        let (name, alias) = match tree {
            UseTree::Path(path) => {
                return self.import(&[before, &[path.ident.to_string()]].concat(), &path.tree, is_public);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(before, tree, is_public));
            }
            UseTree::Name(name) => (name.ident.to_string(), name.ident.to_string()),
            UseTree::Rename(rename) => (rename.ident.to_string(), rename.rename.to_string()),
            UseTree::Glob(_) => ("self".to_owned(), String::new()),
        };
        let path = [before, std::slice::from_ref(&name)].concat();
        // A path that starts with no keyword belongs to a child module or to another crate.
        let path = self.absolute(&path).unwrap_or_else(|| [&self.here[..], &path].concat());
        let alias = if alias == "self" { before.last().cloned().unwrap_or_default() } else { alias };
        self.module.imports.insert(alias, path.clone());
        if !(is_public && path.starts_with(&self.here)) {
            self.module.uses.insert(path);
        }
    }
}

/// Whether the attributes exclude the item from all builds but tests.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "test")
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Use(item) if !is_test(&item.attrs) => {
                let is_public = !matches!(item.vis, syn::Visibility::Inherited);
                self.import(&[], &item.tree, is_public);
            }
            Item::Mod(item) if !is_test(&item.attrs) => {
                self.here.push(item.ident.to_string());
                visit::visit_item_mod(self, item);
                self.here.pop();
            }
            Item::Use(_) | Item::Mod(_) => {}
            Item::Fn(item) if is_test(&item.attrs) => {}
            Item::Impl(item) if is_test(&item.attrs) => {}
            item => visit::visit_item(self, item),
        }
    }

    /// Does nothing, because `pub(in crate::x)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: ModulePath = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            let path = self.absolute(&names).unwrap_or_else(|| [&self.here[..], &names].concat());
            self.module.uses.insert(path);
        }
        visit::visit_path(self, path);
    }
}

/// Returns the other files of the crate that a module's paths lead to.
fn targets<'a>(module: &Module, modules: &'a Modules) -> BTreeSet<&'a str> {
    let files = module.uses.iter().filter_map(|path| defined_in(path, modules, 0));
    files.filter(|file| *file != module.file).collect()
}

/// Maximum number of re-exports that are followed. Re-exports may form a cycle, too.
const MOST_REEXPORTS: usize = 8;

/// Returns the file that defines the item of a path, or `None` for an item of another crate.
fn defined_in<'a>(path: &[String], modules: &'a Modules, followed: usize) -> Option<&'a str> {
    // The deepest module that the path names.
    let depth = (0..=path.len()).rev().find(|&depth| modules.contains_key(&path[..depth]))?;
    let module = &modules[&path[..depth]];
    let Some(name) = path.get(depth) else { return Some(&module.file) };
    match module.imports.get(name) {
        Some(target) if followed < MOST_REEXPORTS && target != path => {
            let target = [&target[..], &path[depth + 1..]].concat();
            defined_in(&target, modules, followed + 1)
        }
        _ => {
            let is_other_crate =
                name.starts_with(|first: char| first.is_lowercase()) && depth + 1 < path.len();
            (!is_other_crate).then_some(&module.file)
        }
    }
}

/// Returns the sets of two or more files that all reach each other.
fn circles<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        edges.keys().map(|&from| (from, reach(from, edges))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for &from in edges.keys() {
        let circle: Vec<&str> = reached[from]
            .iter()
            .copied()
            .filter(|&to| reached.get(to).is_some_and(|back| back.contains(from)))
            .collect();
        if circle.len() > 1 && !seen.contains(from) {
            seen.extend(circle.iter().copied());
            circles.push(circle);
        }
    }
    circles
}

/// Returns all files that can be reached from one by at least one edge.
fn reach<'a>(from: &str, edges: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = edges.get(from).into_iter().flatten().copied().collect();
    while let Some(file) = open.pop() {
        if reached.insert(file) {
            open.extend(edges.get(file).into_iter().flatten());
        }
    }
    reached
}

fn describe(circle: &[&str], edges: &BTreeMap<&str, BTreeSet<&str>>) -> String {
    let imports = circle.iter().map(|from| {
        let to: Vec<&str> = edges[from].iter().copied().filter(|to| circle.contains(to)).collect();
        format!("\n    {from} imports {}", to.join(", "))
    });
    format!(
        "{} files import each other in a circle: move what they share into a file below them{}",
        circle.len(),
        imports.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::{File, check_tree};

    fn findings(files: &[(&str, &str)]) -> Vec<String> {
        let manifest = ("a/Cargo.toml", "");
        let files = [&manifest].into_iter().chain(files);
        let files: Vec<File> =
            files.map(|&(path, text)| File { path: path.to_owned(), text: text.to_owned() }).collect();
        check_tree(&files).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn a_planted_circle_is_found() {
        let there = ("a/src/one.rs", "use crate::two::Two;");
        assert!(findings(&[there, ("a/src/two.rs", "pub struct Two;")]).is_empty());
        for back in ["use crate::one::One;", "fn f() { super::one::f() }", "use super::{one::{self, One}};"] {
            let found = findings(&[there, ("a/src/two.rs", back)]);
            assert_eq!(found.len(), 1, "{back}");
            assert!(found[0].contains("a/src/one.rs imports a/src/two.rs"), "{}", found[0]);
        }
    }

    #[test]
    fn a_reexport_is_followed_to_the_definition() {
        let root = ("a/src/x/mod.rs", "mod one; mod two; pub use self::one::One;");
        let two = ("a/src/x/two.rs", "use super::One;");
        assert!(findings(&[root, ("a/src/x/one.rs", "pub struct One;"), two]).is_empty());
        assert_eq!(
            findings(&[root, ("a/src/x/one.rs", "use super::two::Two; pub struct One;"), two]).len(),
            1
        );
    }

    #[test]
    fn a_parent_that_uses_a_child_which_uses_the_parent_is_a_circle() {
        let child = ("a/src/x/one.rs", "use super::Parent;");
        assert_eq!(findings(&[("a/src/x.rs", "mod one; use one::One; pub struct Parent;"), child]).len(), 1);
        assert!(findings(&[("a/src/x.rs", "mod one; pub struct Parent;"), child]).is_empty());
    }

    #[test]
    fn tests_and_other_crates_make_no_circle() {
        let there = ("a/src/one.rs", "use crate::two::Two;");
        assert!(
            findings(&[there, ("a/src/two.rs", "#[cfg(test)] mod tests { use crate::one::One; }")])
                .is_empty()
        );
        assert!(findings(&[there, ("a/src/two.rs", "use one::One; fn f() { one::f() }")]).is_empty());
    }
}
