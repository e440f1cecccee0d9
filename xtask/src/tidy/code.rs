//! Rules about which Rust code may be where.

use super::finding::{File, Finding};
use crate::source::code_only;

/// The sources of the pure crates. The rules in [`super::layout`] keep impure libraries out of their
/// manifests. The rules here keep out the impure parts of the standard library.
const PURE: &[&str] = &["proto/domain/src", "peer/core/src", "tracker-svc/core/src", "peer/simulation/src"];

/// The most lines of a file in a pure crate, tests included.
const PURE_LINES: usize = 350;

/// Programs around a pure library. They may print and read the clock.
const PROGRAMS: &[&str] = &["peer/simulation/src/main.rs", "peer/simulation/src/tables.rs"];

/// Names that a pure crate must not use, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("std::fs", "return what to read or write, and let the adapter do it"),
    ("std::net::Tcp", "return whom to reach, and let the adapter do it"),
    ("std::net::Udp", "return whom to reach, and let the adapter do it"),
    ("std::io", "return what to read or write, and let the adapter do it"),
    ("std::env", "take it as an argument"),
    ("std::thread", "the driver outside owns threads and tasks"),
    ("std::process", "the driver outside owns processes"),
    ("std::sync::Mutex", "the owner of the state calls with `&mut`"),
    ("std::sync::RwLock", "the owner of the state calls with `&mut`"),
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take `now` as an argument"),
    ("rand::rng(", "take the generator as an argument"),
    ("rand::rng;", "take the generator as an argument"),
    ("OsRng", "take the generator or its seed as an argument"),
    ("SysRng", "take the generator or its seed as an argument"),
    ("rand::random", "take the generator as an argument"),
    ("async fn", "return an action, and let the driver await it"),
    (".await", "return an action, and let the driver await it"),
    ("println!", "return it, and let the caller print it"),
];

/// The adapters: the files that may name the types of the wire (`pb::`, `tonic::Status`). All other code uses
/// the types of the domain.
const ADAPTERS: &[&str] = &[
    "proto/src/lib.rs",         // includes the generated code
    "proto/src/convert.rs",     // turns them into the domain's types and back
    "proto/src/convert",        // the same
    "proto/src/reason.rs",      // writes and reads the details of an error
    "proto/src/ticket.rs",      // maps each refusal to a status
    "proto/transport/src",      // answers before a service is reached
    "tracker-svc/src/lib.rs",   // composes the services
    "tracker-svc/src/error.rs", // the one table from errors to codes
    "tracker-svc/src/grpc",     // the services
    "tracker-svc/src/cli",      // `health` calls the tracker
    "peer/src/lib.rs",          // composes the services
    "peer/src/error.rs",        // the one table from codes to errors
    "peer/src/engine.rs",       // returns the peer service
    "peer/src/serve",           // serves GetChunk
    "peer/src/download",        // calls GetChunk
    "peer/src/tracker",         // calls the tracker
    "peer/src/control",         // serves the daemon's socket
    "peer/src/agent",           // answers calls on the socket and calls the tracker
    "peer/src/library.rs",      // stores manifests as the frames that the tracker streams
    "peer/src/daemon",          // composes the daemon's services
    "peer/src/cli",             // calls the daemon's socket
    "peer/src/page",            // calls the same service
    "xtask/src",                // contains the rule itself
    "xtask/testkit/src",        // calls and serves as tests need it
    "xtask/fuzz",               // feeds messages to what parses them
];

/// Code of ours that a crate must not use in any way.
const LAYERS: &[(&str, &str, &str)] = &[
    ("peer/src/", "tracker_svc", "a peer knows the tracker by its wire alone; only tests may run one"),
    ("tracker-svc/", "peer::", "the tracker must not know the peer's code; share through `proto`"),
    ("proto/", "tracker_svc", "proto is below everything"),
    ("proto/", "use peer", "proto is below everything"),
];

pub(super) fn check(file: &File) -> Vec<Finding> {
    if !file.path.ends_with(".rs") {
        return Vec::new();
    }
    let code = code_only(&file.text);
    let mut findings = Vec::new();
    findings.extend(pure(file, &code));
    findings.extend(size(file));
    findings.extend(arguments(file, &code));
    findings.extend(layers(file, &code));
    findings.extend(wire(file, &code));
    findings.extend(unfinished(file, &code));
    findings.extend(sleeps(file, &code));
    findings
}

/// Returns the numbers of the lines that contain `word`. If `word` starts with a letter, it must not be the
/// end of a longer identifier. If it starts with a dot, it must not be the beginning of a longer method name.
fn lines_with<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let starts_word = word.starts_with(|c: char| c.is_alphanumeric());
    code.lines().enumerate().filter_map(move |(at, line)| {
        let hit = line.match_indices(word).any(|(from, _)| {
            let before = line[..from].chars().next_back();
            let after = line[from + word.len()..].chars().next();
            let of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            if starts_word { !of_word(before) } else { !word.starts_with('.') || !of_word(after) }
        });
        hit.then_some(at + 1)
    })
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/")
        || path.contains("/benches/")
        || path.contains("/examples/")
        || path.ends_with("/tests.rs")
}

/// Returns the line after which all code is a test.
fn tests_from(file: &File, code: &str) -> usize {
    if is_test_file(&file.path) {
        return 0;
    }
    code.lines().position(|line| line.trim_start().starts_with("mod tests")).unwrap_or(usize::MAX)
}

fn in_folder(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// Pure crates make decisions. They do no I/O and read no clock.
fn pure(file: &File, code: &str) -> Vec<Finding> {
    let is_pure = PURE.iter().any(|folder| in_folder(&file.path, folder));
    if !is_pure || PROGRAMS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let tests_from = tests_from(file, code);
    let found = |(word, instead): &(&'static str, &'static str)| {
        let message = format!("`{word}` in a pure crate: {instead}");
        // A test needs an instant to count from, and there is no other way to get one.
        let exempt = |line: usize| *word == "Instant::now" && line > tests_from;
        let lines = lines_with(code, word).filter(|&line| !exempt(line));
        lines.map(|line| Finding::at(file, line, message.clone())).collect::<Vec<_>>()
    };
    IMPURE.iter().flat_map(found).collect()
}

/// A file of a pure crate is short enough to be read at once.
fn size(file: &File) -> Option<Finding> {
    let lines = file.text.lines().count();
    let is_long = lines > PURE_LINES && PURE.iter().any(|folder| in_folder(&file.path, folder));
    is_long.then(|| {
        let message = format!("{lines} lines in a pure crate, where {PURE_LINES} is the most: split it");
        Finding::of(&file.path, message)
    })
}

fn arguments(file: &File, code: &str) -> Vec<Finding> {
    let message = "`too_many_arguments` may not be allowed: pass a struct";
    lines_with(code, "clippy::too_many_arguments").map(|line| Finding::at(file, line, message)).collect()
}

fn layers(file: &File, code: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, word, why) in LAYERS {
        if file.path.starts_with(folder) {
            findings.extend(
                lines_with(code, word)
                    .map(|line| Finding::at(file, line, format!("`{word}` may not be used here: {why}"))),
            );
        }
    }
    findings
}

/// The types of the wire stay in the adapters.
fn wire(file: &File, code: &str) -> Vec<Finding> {
    if is_test_file(&file.path) || ADAPTERS.iter().any(|adapter| in_folder(&file.path, adapter)) {
        return Vec::new();
    }
    ["pb::", "tonic::Status", "use tonic::{Status"]
        .iter()
        .flat_map(|word| lines_with(code, word).map(move |line| (word, line)))
        .map(|(word, line)| {
            let message = format!(
                "`{word}` outside the adapters: use the domain's type, converted in proto/src/convert.rs or in the service's own folder"
            );
            Finding::at(file, line, message)
        })
        .collect()
}

fn unfinished(file: &File, code: &str) -> Vec<Finding> {
    ["todo!", "unimplemented!", "dbg!"]
        .iter()
        .flat_map(|word| lines_with(code, word).map(move |line| (word, line)))
        .map(|(word, line)| {
            Finding::at(file, line, format!("`{word}` is left over: finish it or take it out"))
        })
        .collect()
}

/// A test that sleeps is slow when it passes and wrong when it fails. A test may sleep between two polls of a
/// condition, and where a comment on the same line or above gives a reason.
fn sleeps(file: &File, code: &str) -> Vec<Finding> {
    let tests_from = tests_from(file, code);
    let text: Vec<&str> = file.text.lines().collect();
    let has_reason = |line: usize| {
        // Attributes may stand between a comment and the code that it is about.
        let mut above = text[..line - 1].iter().rev().skip_while(|line| line.trim_start().starts_with("#["));
        above.next().is_some_and(|above| above.trim_start().starts_with("//"))
            || text[line - 1].contains("//")
    };
    let code_lines: Vec<&str> = code.lines().collect();
    let polls = |line: usize| {
        let before = &code_lines[line.saturating_sub(7)..line - 1];
        before.iter().any(|line| line.contains("while ") || line.trim_end().ends_with("loop {"))
    };
    lines_with(code, "sleep(")
        .filter(|&line| line > tests_from && !polls(line) && !has_reason(line))
        .map(|line| {
            Finding::at(
                file,
                line,
                "`sleep(` in a test: wait for the event, or poll a condition with a deadline; if it must be, say why in a comment above",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{File, check};

    fn findings(path: &str, text: &str) -> Vec<String> {
        let file = File { path: path.to_owned(), text: text.to_owned() };
        check(&file).into_iter().map(|finding| finding.place).collect()
    }

    #[test]
    fn pure_crates_do_no_io() {
        let core = "peer/core/src/x.rs";
        assert_eq!(findings(core, "use std::fs;\n"), ["peer/core/src/x.rs:1"]);
        assert_eq!(
            findings("tracker-svc/core/src/deep/x.rs", "\nlet t = Instant::now();\n"),
            ["tracker-svc/core/src/deep/x.rs:2"]
        );
        assert_eq!(findings("proto/domain/src/x.rs", "async fn f() {}"), ["proto/domain/src/x.rs:1"]);
        assert!(findings(core, "// no std::fs here\nlet s = \"std::fs\";\n").is_empty());
        assert!(findings(core, "machine.awaits(piece)").is_empty());
        assert_eq!(findings(core, "machine.await;").len(), 1);
        assert!(findings("peer/src/engine.rs", "use std::fs;\n").is_empty());
        assert!(findings(core, "mod tests {\nlet t = Instant::now();\n}").is_empty());
        assert_eq!(findings("peer/simulation/src/world.rs", "println!()").len(), 1);
        assert!(findings("peer/simulation/src/main.rs", "println!()").is_empty());
    }

    #[test]
    fn files_of_pure_crates_are_short_and_functions_take_few_arguments() {
        let (short, long) = ("// x\n".repeat(350), "// x\n".repeat(351));
        assert!(findings("peer/core/src/x.rs", &short).is_empty());
        assert_eq!(findings("peer/core/src/x/tests.rs", &long), ["peer/core/src/x/tests.rs"]);
        assert!(findings("peer/src/x.rs", &long).is_empty());
        assert_eq!(findings("peer/src/x.rs", "#[allow(clippy::too_many_arguments)]\n"), ["peer/src/x.rs:1"]);
    }

    #[test]
    fn the_wire_stays_in_the_adapters() {
        assert_eq!(findings("peer/src/session.rs", "use proto::pb::File;").len(), 1);
        assert_eq!(findings("tracker-svc/src/store.rs", "fn f() -> tonic::Status {").len(), 1);
        assert!(findings("tracker-svc/src/grpc/file.rs", "use proto::pb::File;").is_empty());
        assert!(findings("peer/src/control.rs", "use proto::pb::File;").is_empty());
        assert!(findings("peer/tests/end_to_end.rs", "use proto::pb::File;").is_empty());
        assert_eq!(findings("peer/src/controls.rs", "use proto::pb::File;").len(), 1);
    }

    #[test]
    fn layers_hold() {
        assert_eq!(findings("peer/src/lib.rs", "use tracker_svc::serve;").len(), 1);
        assert!(findings("peer/tests/a.rs", "use tracker_svc::serve;").is_empty());
        assert_eq!(findings("tracker-svc/tests/a.rs", "use peer::engine;").len(), 1);
    }

    #[test]
    fn nothing_is_left_over() {
        assert_eq!(findings("peer/src/lib.rs", "fn f() { todo!() }").len(), 1);
        assert!(findings("peer/src/lib.rs", "// todo!() was here").is_empty());
    }

    #[test]
    fn tests_do_not_sleep_without_a_reason() {
        let sleeping = "sleep(Duration::from_secs(1));\n";
        assert_eq!(findings("peer/tests/a.rs", sleeping).len(), 1);
        assert_eq!(
            findings("peer/src/a.rs", &format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{\n{sleeping}}}\n"))
                .len(),
            1
        );
        assert!(findings("peer/src/a.rs", sleeping).is_empty());
        assert!(findings("peer/tests/a.rs", &format!("while !done() {{\n{sleeping}}}")).is_empty());
        assert!(
            findings(
                "peer/tests/a.rs",
                &format!("// nothing announces the end of a lease\n#[allow(x)]\n{sleeping}")
            )
            .is_empty()
        );
    }
}
