//! What files there may be, and what they may hold.

use std::collections::BTreeSet;

use super::{File, Finding};

/// A file of Rust longer than this is noted; longer than [`MOST_LINES`] it is a finding.
const MANY_LINES: usize = 450;
const MOST_LINES: usize = 700;

/// Files that may be longer, up to so many lines, and why.
const LONGER: &[(&str, usize, &str)] = &[];

/// What would tie the project to one machine, network or registry. (Split, so that this file passes its own rule.)
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

/// The crates whose top-level modules the README's map names.
const CRATES: &[&str] = &["proto", "tracker-svc", "peer", "xtask"];

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

/// Rust files that are long, though not too long.
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
    let readme = files.iter().find(|file| file.path == "README.md").map_or("", |file| file.text.as_str());
    findings.extend(map(readme, files));
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

/// Migrations are numbered 0001, 0002, … without a gap: two branches that add one each must notice.
fn migrations(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut names: Vec<&str> =
        files.iter().filter_map(|file| file.path.strip_prefix("tracker-svc/migrations/")).collect();
    names.sort_unstable();
    for (at, name) in names.iter().enumerate() {
        let expected = format!("{:04}_", at + 1);
        if !name.starts_with(&expected) || !name.ends_with(".sql") {
            findings.push(Finding::of(
                &format!("tracker-svc/migrations/{name}"),
                format!("should be named {expected}<what it does>.sql: migrations run in order, without gap or repeat"),
            ));
        }
    }
    findings
}

/// A peer may run a tracker in its tests, and in nothing else.
fn dependencies(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (manifest, forbidden) in [
        ("peer/Cargo.toml", &["tracker-svc"][..]),
        ("tracker-svc/Cargo.toml", &["peer"]),
        ("proto/Cargo.toml", &["peer", "tracker-svc", "xtask"]),
    ] {
        let Some(file) = files.iter().find(|file| file.path == manifest) else { continue };
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
                let message =
                    format!("{name} belongs to [dev-dependencies] at most: share code through `proto`");
                findings.push(Finding::at(file, at + 1, message));
            }
        }
    }
    findings
}

/// The README's map names every top-level module, and nothing that isn't there.
fn map(readme: &str, files: &[File]) -> Vec<Finding> {
    let Some(section) = section(readme, MAP) else {
        return vec![Finding::of("README.md", format!("has no section {MAP:?}: say what is where"))];
    };
    let named: BTreeSet<&str> = section.lines().filter_map(entry).collect();
    let mut findings = Vec::new();
    for path in &named {
        let folder = format!("{}/", path.trim_end_matches('/'));
        if !files.iter().any(|file| file.path == *path || file.path.starts_with(&folder)) {
            findings.push(Finding::of(
                "README.md",
                format!("the code map names `{path}`, which isn't there: mend the map"),
            ));
        }
    }
    for module in top_modules(files) {
        if !named.contains(module.as_str()) {
            findings.push(Finding::of(
                "README.md",
                format!(
                    "the code map doesn't name `{module}`: add the line \"- `{module}`: what it is for\""
                ),
            ));
        }
    }
    findings
}

/// The text between a heading and the next one of its level.
fn section<'a>(text: &'a str, heading: &str) -> Option<&'a str> {
    let start = text.find(&format!("\n{heading}"))? + 1;
    let rest = &text[start..];
    let end = rest[heading.len()..].find("\n## ").map_or(rest.len(), |at| at + heading.len());
    Some(&rest[..end])
}

/// The path that a line of the map is about: "- `path`: words".
fn entry(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("- `")?;
    Some(&rest[..rest.find('`')?])
}

/// `crate/src/module.rs`, or `crate/src/module/` for a folder.
fn top_modules(files: &[File]) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for file in files.iter().filter(|file| is_ours(file)) {
        for name in CRATES {
            let Some(rest) = file.path.strip_prefix(name).and_then(|rest| rest.strip_prefix("/src/")) else {
                continue;
            };
            let module = match rest.split_once('/') {
                Some((folder, _)) => format!("{name}/src/{folder}/"),
                None if matches!(rest, "lib.rs" | "main.rs") => continue,
                None => format!("{name}/src/{rest}"),
            };
            modules.insert(module);
        }
    }
    // A folder beside a file of the same name is one module.
    let folders: Vec<String> =
        modules.iter().filter_map(|module| Some(format!("{}.rs", module.strip_suffix('/')?))).collect();
    for file in folders {
        if modules.contains(&file) {
            modules.remove(&format!("{}/", file.trim_end_matches(".rs")));
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::{File, check_file, check_tree};

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

    #[test]
    fn the_map_names_what_is_there() {
        let readme = "# X\n\n## Code map\n\n- `peer/src/engine.rs`: runs\n- `peer/src/store/`: keeps\n\n## Next\n- `gone.rs`: x\n";
        let code = [("peer/src/engine.rs", ""), ("peer/src/store/mod.rs", ""), ("peer/src/lib.rs", "")];
        let mut files = vec![("README.md", readme)];
        files.extend(code);
        assert_eq!(tree(&files), Vec::<String>::new());
        assert!(
            tree(&[files, vec![("peer/src/new.rs", "")]].concat())[0]
                .contains("doesn't name `peer/src/new.rs`")
        );
        assert!(tree(&[("README.md", readme), code[0]])[0].contains("`peer/src/store/`, which isn't there"));
        assert!(tree(&[("README.md", "# X\n")])[0].contains("no section"));
    }

    #[test]
    fn a_module_is_its_file_and_its_folder() {
        let readme = "# X\n\n## Code map\n- `peer/src/cli.rs`: x\n";
        let files = [("README.md", readme), ("peer/src/cli.rs", ""), ("peer/src/cli/render.rs", "")];
        assert_eq!(tree(&files), Vec::<String>::new());
    }

    #[test]
    fn migrations_have_no_gap() {
        let readme = ("README.md", "# X\n\n## Code map\n");
        let first = ("tracker-svc/migrations/0001_a.sql", "");
        assert_eq!(tree(&[readme, first, ("tracker-svc/migrations/0002_b.sql", "")]).len(), 0);
        assert_eq!(tree(&[readme, first, ("tracker-svc/migrations/0003_b.sql", "")]).len(), 1);
        assert_eq!(tree(&[readme, first, ("tracker-svc/migrations/0001_b.sql", "")]).len(), 1);
    }

    #[test]
    fn a_tracker_is_for_the_peers_tests_alone() {
        let readme = ("README.md", "# X\n\n## Code map\n");
        let dev =
            "[dependencies]\nproto.workspace = true\n\n[dev-dependencies]\ntracker-svc.workspace = true\n";
        assert_eq!(tree(&[readme, ("peer/Cargo.toml", dev)]).len(), 0);
        let real = "[dependencies]\ntracker-svc.workspace = true\n";
        assert_eq!(tree(&[readme, ("peer/Cargo.toml", real)]).len(), 1);
    }

    #[test]
    fn long_files_and_machine_paths_are_found() {
        assert_eq!(check_file(&file("a.rs", &"x\n".repeat(701))).len(), 1);
        assert_eq!(check_file(&file("a.rs", &"x\n".repeat(700))).len(), 0);
        assert_eq!(check_file(&file("a.md", &"x\n".repeat(2000))).len(), 0);
        assert_eq!(check_file(&file("a.md", concat!("see /wo", "rk/x\n"))).len(), 1);
    }
}
