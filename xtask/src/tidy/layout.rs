//! Rules about which files may exist and what they may contain.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{File, Finding};

/// A longer Rust file is listed. A file longer than [`MOST_LINES`] is a finding.
const MANY_LINES: usize = 450;
const MOST_LINES: usize = 700;

/// Files that may be longer, with their maximum number of lines and the reason.
const LONGER: &[(&str, usize, &str)] = &[];

/// Texts that would tie the project to one machine, network or registry. They are split so that this file
/// passes its own rule.
const ELSEWHERE: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine: use a path relative to the root, or an argument"),
    (concat!("/ho", "me/"), "a path of one machine: use a path relative to the root, or an argument"),
    (concat!("/ro", "ot/"), "a path of one machine: use a path relative to the root, or an argument"),
    (concat!("/tm", "p/mt"), "a path of one machine: use a temporary directory"),
    (concat!("deb.deb", "ian.org"), "a registry's host: leave it to the machine's own configuration"),
    (concat!("py", "pi.org"), "a registry's host: leave it to the machine's own configuration"),
    (concat!("index.crat", "es.io"), "a registry's host: leave it to the machine's own configuration"),
    (concat!("static.crat", "es.io"), "a registry's host: leave it to the machine's own configuration"),
];

/// Crates that a pure crate must never depend on: runtimes, the wire, sockets, databases, and our crates that
/// use them.
const IMPURE_CRATES: &[&str] = &[
    "tokio",
    "tokio-util",
    "tokio-stream",
    "tonic",
    "prost",
    "hyper",
    "h2",
    "rustls",
    "sqlx",
    "rusqlite",
    "rustix",
    "libc",
    "socket2",
    "tracing",
    "jiff",
    "proto",
    "transport",
    "program",
    "peer",
    "tracker-svc",
];

/// Crates that no crate of the product may depend on, except for its tests.
const FOR_TESTS: &[&str] = &["testbed", "testkit"];

/// Manifests, and the crates of higher layers that they must not name.
const ABOVE: &[(&str, &[&str])] = &[
    ("peer/Cargo.toml", &["tracker-svc"]),
    ("tracker-svc/Cargo.toml", &["peer"]),
    ("proto/Cargo.toml", &["peer", "tracker-svc", "transport", "program", "xtask"]),
    ("proto/domain/Cargo.toml", IMPURE_CRATES),
    ("peer/core/Cargo.toml", IMPURE_CRATES),
    ("tracker-svc/core/Cargo.toml", IMPURE_CRATES),
    ("peer/simulation/Cargo.toml", IMPURE_CRATES),
];

/// The page with the code map, and the heading of the map.
const ARCHITECTURE: &str = "docs/architecture.md";
const MAP: &str = "## Code map";

pub(super) fn check_file(file: &File) -> Vec<Finding> {
    let mut findings = elsewhere(file);
    let (most, why) = LONGER
        .iter()
        .find(|(path, ..)| *path == file.path)
        .map_or((MOST_LINES, ""), |&(_, most, why)| (most, why));
    let lines = file.text.lines().count();
    if is_ours(file) && lines > most {
        let message = if why.is_empty() {
            format!(
                "{lines} lines, at most {most}: split it by what changes together, or list it in xtask/src/tidy/layout.rs with the reason"
            )
        } else {
            format!("{lines} lines, at most {most} agreed on, since {why}: split it")
        };
        findings.push(Finding::of(&file.path, message));
    }
    findings
}

/// Returns the Rust files that are long but not too long.
pub(super) fn long_files(files: &[File]) -> impl Iterator<Item = (&str, usize)> {
    files
        .iter()
        .filter(|file| is_ours(file))
        .map(|file| (file.path.as_str(), file.text.lines().count()))
        .filter(|(_, lines)| *lines > MANY_LINES)
}

pub(super) fn check_tree(files: &[File]) -> Vec<Finding> {
    let mut findings = migrations(files);
    findings.extend(dependencies(files));
    let page = files.iter().find(|file| file.path == ARCHITECTURE).map_or("", |file| file.text.as_str());
    findings.extend(map(page, files));
    findings.extend(files.iter().filter(|file| is_page(file)).flat_map(|page| paths(page, files)));
    findings
}

fn is_ours(file: &File) -> bool {
    file.path.ends_with(".rs")
}

fn elsewhere(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for (word, instead) in ELSEWHERE {
            if line.contains(word) {
                findings.push(Finding::at(file, at + 1, format!("`{word}` is {instead}")));
            }
        }
    }
    findings
}

/// Checks that the migrations of each database are numbered 0001, 0002, … without a gap, so that two branches
/// that each add one notice the conflict.
fn migrations(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    paths.retain(|path| path.starts_with("tracker-svc/migrations/"));
    paths.sort_unstable();
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for path in paths {
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let number = numbers.entry(folder).or_insert(0);
        *number += 1;
        let expected = format!("{number:04}_");
        if !name.starts_with(&expected) || !name.ends_with(".sql") {
            findings.push(Finding::of(
                path,
                format!("should be named {expected}<what it does>.sql: migrations run in order, without gap or repeat"),
            ));
        }
    }
    findings
}

/// Checks that crates don't depend on crates of a higher layer, and on [`FOR_TESTS`] for their tests only. As
/// an exception, the peer's tests may run a tracker.
fn dependencies(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let above = ABOVE.iter().find(|(manifest, _)| *manifest == file.path);
        let mut forbidden = above.map_or(Vec::new(), |(_, crates)| crates.to_vec());
        if !file.path.starts_with("xtask/") {
            forbidden.extend(FOR_TESTS);
        }
        let mut section = "";
        for (at, line) in file.text.lines().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if forbidden.contains(&name)
                && section != "[dev-dependencies]"
                && section.ends_with("dependencies]")
            {
                let message = format!("{name} may not be a dependency here: see the layers in the code map");
                findings.push(Finding::at(file, at + 1, message));
            }
        }
    }
    findings
}

/// Checks that the map names every top-level module, or the whole crate that contains it, and that every path
/// in the map exists.
fn map(page: &str, files: &[File]) -> Vec<Finding> {
    let Some(section) = section(page, MAP) else {
        return vec![Finding::of(ARCHITECTURE, format!("has no section {MAP:?}: say what is where"))];
    };
    let named: BTreeSet<&str> = section.lines().flat_map(entry).collect();
    let mut findings: Vec<Finding> = named
        .iter()
        .filter(|path| !exists(path, files))
        .map(|path| {
            Finding::of(ARCHITECTURE, format!("the code map names `{path}`, which isn't there: mend the map"))
        })
        .collect();
    for (crate_dir, module) in top_modules(files) {
        let whole = format!("{crate_dir}/");
        if !named.contains(module.as_str()) && !named.contains(whole.as_str()) {
            let message = format!(
                "the code map doesn't name `{module}`: add it to the entry where it belongs, or add \"- `{module}`: what it is for\""
            );
            findings.push(Finding::of(ARCHITECTURE, message));
        }
    }
    findings
}

/// Whether a file is a page for people who read the code. The changelog is not, because it also names files
/// that were removed.
fn is_page(file: &File) -> bool {
    file.path.ends_with(".md") && file.path != "CHANGELOG.md"
}

/// Checks that each path of the project in a page exists.
fn paths(page: &File, files: &[File]) -> Vec<Finding> {
    let tops: BTreeSet<&str> = files.iter().filter_map(|file| Some(file.path.split_once('/')?.0)).collect();
    let mut findings = Vec::new();
    for (at, line) in page.text.lines().enumerate() {
        for word in line.split('`').skip(1).step_by(2) {
            let is_path = word.split_once('/').is_some_and(|(top, _)| tops.contains(top));
            let is_plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path && is_plain && !word.starts_with("target/") && !exists(word, files) {
                findings.push(Finding::at(page, at + 1, format!("`{word}` isn't there: name what is")));
            }
        }
    }
    findings
}

/// Whether there is a file or a folder at this path.
fn exists(path: &str, files: &[File]) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
}

/// Returns the text from a heading to the next heading of its level.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let start = text.find(&format!("\n{heading}"))? + 1;
    let rest = &text[start..];
    let end = rest[heading.len()..].find("\n## ").map_or(rest.len(), |at| at + heading.len());
    Some(&rest[..end])
}

/// Returns the paths of an entry in the map: "- `path`, `path`: words".
fn entry(line: &str) -> impl Iterator<Item = &str> {
    let paths =
        line.trim_start().strip_prefix("- `").map_or("", |rest| rest.split("`:").next().unwrap_or(""));
    paths.split('`').step_by(2).filter(|path| !path.is_empty())
}

/// Returns the top-level modules, each with the folder of its crate: `crate/src/module.rs`, or
/// `crate/src/module/` for a folder.
fn top_modules(files: &[File]) -> BTreeSet<(&str, String)> {
    let crates: Vec<&str> = files.iter().filter_map(|file| file.path.strip_suffix("/Cargo.toml")).collect();
    let mut modules = BTreeSet::new();
    for file in files.iter().filter(|file| is_ours(file)) {
        for &name in &crates {
            let Some(rest) = file.path.strip_prefix(name).and_then(|rest| rest.strip_prefix("/src/")) else {
                continue;
            };
            let module = match rest.split_once('/') {
                Some((folder, _)) => format!("{name}/src/{folder}/"),
                None if matches!(rest, "lib.rs" | "main.rs") => continue,
                None => format!("{name}/src/{rest}"),
            };
            modules.insert((name, module));
        }
    }
    // A folder beside a file of the same name is one module with it.
    let doubled: Vec<(&str, String)> = modules
        .iter()
        .filter(|(name, module)| {
            let file = module.strip_suffix('/').map(|module| format!("{module}.rs"));
            file.is_some_and(|file| modules.contains(&(*name, file)))
        })
        .cloned()
        .collect();
    for module in doubled {
        modules.remove(&module);
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::{ARCHITECTURE, File, check_file, check_tree};

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    fn tree(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<File> = files.iter().map(|(path, text)| file(path, text)).collect();
        check_tree(&files)
            .into_iter()
            .map(|finding| format!("{}: {}", finding.place, finding.message))
            .collect()
    }

    const MANIFEST: (&str, &str) = ("peer/Cargo.toml", "");

    #[test]
    fn the_map_names_what_is_there() {
        let map = "# X\n\n## Code map\n\n- `peer/src/engine.rs`, `peer/src/store/`: runs\n\n## Next\n- `gone.rs`: x\n";
        let code = [("peer/src/engine.rs", ""), ("peer/src/store/fs.rs", ""), ("peer/src/lib.rs", "")];
        let mut files = vec![(ARCHITECTURE, map), MANIFEST];
        files.extend(code);
        assert_eq!(tree(&files), Vec::<String>::new());
        assert!(
            tree(&[files, vec![("peer/src/new.rs", "")]].concat())[0]
                .contains("doesn't name `peer/src/new.rs`")
        );
        let gone = tree(&[(ARCHITECTURE, map), MANIFEST, code[0]]);
        assert!(gone[0].contains("`peer/src/store/`, which isn't there"));
        assert!(tree(&[(ARCHITECTURE, "# X\n")])[0].contains("no section"));
    }

    #[test]
    fn a_module_is_its_file_and_its_folder() {
        let map = "# X\n\n## Code map\n- `peer/src/cli.rs`: x\n";
        let files = [(ARCHITECTURE, map), MANIFEST, ("peer/src/cli.rs", ""), ("peer/src/cli/render.rs", "")];
        assert_eq!(tree(&files), Vec::<String>::new());
    }

    #[test]
    fn a_whole_crate_may_be_one_entry() {
        let map = "# X\n\n## Code map\n- `peer/core/`: x\n";
        let files = [(ARCHITECTURE, map), ("peer/core/Cargo.toml", ""), ("peer/core/src/a.rs", "")];
        assert_eq!(tree(&files), Vec::<String>::new());
        let outside = [&files[..], &[MANIFEST, ("peer/src/b.rs", "")]].concat();
        assert!(tree(&outside)[0].contains("doesn't name `peer/src/b.rs`"));
    }

    #[test]
    fn pages_name_paths_that_are_there() {
        let page = ("CONTRIBUTING.md", "See `peer/src/gone.rs`, `peer daemon`, `a/b` and `peer/src/*`.\n");
        let map = (ARCHITECTURE, "# X\n\n## Code map\n- `peer/src/b.rs`: x\n");
        let found = tree(&[page, map, MANIFEST, ("peer/src/b.rs", "")]);
        assert_eq!(found, ["CONTRIBUTING.md:1: `peer/src/gone.rs` isn't there: name what is"]);
    }

    #[test]
    fn migrations_have_no_gap() {
        let page = (ARCHITECTURE, "# X\n\n## Code map\n");
        let first = ("tracker-svc/migrations/0001_a.sql", "");
        assert_eq!(tree(&[page, first, ("tracker-svc/migrations/0002_b.sql", "")]).len(), 0);
        assert_eq!(tree(&[page, first, ("tracker-svc/migrations/0003_b.sql", "")]).len(), 1);
        assert_eq!(tree(&[page, first, ("tracker-svc/migrations/0001_b.sql", "")]).len(), 1);
        assert_eq!(tree(&[page, first, ("tracker-svc/migrations/other/0001_b.sql", "")]).len(), 0);
        assert_eq!(tree(&[page, first, ("tracker-svc/migrations/other/0002_b.sql", "")]).len(), 1);
    }

    #[test]
    fn some_crates_are_for_tests_alone() {
        let page = (ARCHITECTURE, "# X\n\n## Code map\n");
        let dev =
            "[dependencies]\nproto.workspace = true\n\n[dev-dependencies]\ntracker-svc.workspace = true\n";
        assert_eq!(tree(&[page, ("peer/Cargo.toml", dev)]).len(), 0);
        let real = "[dependencies]\ntracker-svc.workspace = true\n";
        assert_eq!(tree(&[page, ("peer/Cargo.toml", real)]).len(), 1);
        for (section, findings) in [("dependencies", 1), ("build-dependencies", 1), ("dev-dependencies", 0)] {
            let manifest = format!("[{section}]\ntestkit.workspace = true\n");
            assert_eq!(tree(&[page, ("proto/program/Cargo.toml", &manifest)]).len(), findings);
            assert_eq!(tree(&[page, ("xtask/other/Cargo.toml", &manifest)]).len(), 0);
        }
    }

    #[test]
    fn long_files_and_machine_paths_are_found() {
        assert_eq!(check_file(&file("a.rs", &"x\n".repeat(701))).len(), 1);
        assert_eq!(check_file(&file("a.rs", &"x\n".repeat(700))).len(), 0);
        assert_eq!(check_file(&file("a.md", &"x\n".repeat(2000))).len(), 0);
        assert_eq!(check_file(&file("a.md", concat!("see /wo", "rk/x\n"))).len(), 1);
    }
}
