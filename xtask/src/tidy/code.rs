//! What a line of Rust may say where.

use super::{File, Finding};
use crate::source::code_only;

/// What a folder named `domain` has no business with, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "the driver outside does the waiting"),
    ("tonic", "convert at the door: adapters see the wire, the domain sees its own types"),
    ("prost", "convert at the door: adapters see the wire, the domain sees its own types"),
    ("hyper", "convert at the door: adapters see the wire, the domain sees its own types"),
    ("pb::", "convert at the door: adapters see the wire, the domain sees its own types"),
    ("sqlx", "the store keeps, the domain decides"),
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
    ("Timestamp::now", "take `now` as an argument"),
    ("rand::rng(", "take the generator as an argument"),
    ("rand::rng;", "take the generator as an argument"),
    ("thread_rng", "take the generator as an argument"),
    ("from_os_rng", "take the generator or its seed as an argument"),
    ("OsRng", "take the generator or its seed as an argument"),
    ("SysRng", "take the generator or its seed as an argument"),
    ("rand::random", "take the generator as an argument"),
    ("async fn", "return an action, and let the driver await it"),
    (".await", "return an action, and let the driver await it"),
    ("println!", "return it, and let the caller print it"),
    ("tracing::", "return it, and let the caller log it"),
];

/// Where the wire's own types (`pb::`, `tonic::Status`) may be named: the adapters. Everything else sees the domain's types.
const ADAPTERS: &[&str] = &[
    "proto/src/lib.rs",         // generates them
    "proto/src/convert.rs",     // turns them into the domain's types and back
    "proto/src/convert",        // the same
    "proto/src/reason.rs",      // writes and reads the details of an error
    "proto/src/ticket.rs",      // says how each refusal is told
    "proto/src/transport",      // answers before a service is reached
    "tracker-svc/src/lib.rs",   // composes the services
    "tracker-svc/src/error.rs", // the one table from errors to codes
    "tracker-svc/src/grpc",     // the services
    "tracker-svc/src/cli",      // `health` asks over the wire
    "peer/src/lib.rs",          // composes the services
    "peer/src/error.rs",        // the one table from codes to errors
    "peer/src/engine.rs",       // hands out the peer service
    "peer/src/serve",           // serves GetChunk
    "peer/src/download",        // calls GetChunk
    "peer/src/tracker",         // calls the tracker
    "peer/src/control",         // serves the daemon's socket
    "peer/src/agent",           // answers the socket, asks the tracker
    "peer/src/library.rs",      // keeps manifests on disk as the frames that the tracker streams
    "peer/src/daemon",          // composes the daemon's services
    "peer/src/cli",             // calls the daemon's socket
    "xtask/src",                // names the rule itself
];

/// Code of ours that a crate must not reach, wherever it tries.
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
    findings.extend(layers(file, &code));
    findings.extend(wire(file, &code));
    findings.extend(unfinished(file, &code));
    findings.extend(sleeps(file, &code));
    findings
}

/// Lines of code that contain `word` where no other word runs into it on the left, nor a method's name goes on.
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

/// The line after which all is test.
fn tests_from(file: &File, code: &str) -> usize {
    if is_test_file(&file.path) {
        return 0;
    }
    code.lines().position(|line| line.trim_start().starts_with("mod tests")).unwrap_or(usize::MAX)
}

fn in_folder(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

/// Folders named `domain` are pure.
fn pure(file: &File, code: &str) -> Vec<Finding> {
    if !file.path.split('/').any(|part| part == "domain" || part == "domain.rs") {
        return Vec::new();
    }
    let tests_from = tests_from(file, code);
    let found = |(word, instead): &(&'static str, &'static str)| {
        let message = format!("`{word}` in a pure folder: {instead}");
        // A test needs some instant to count from, and there is no other way to one.
        let exempt = |line: usize| *word == "Instant::now" && line > tests_from;
        let lines = lines_with(code, word).filter(|&line| !exempt(line));
        lines.map(|line| Finding::at(file, line, message.clone())).collect::<Vec<_>>()
    };
    IMPURE.iter().flat_map(found).collect()
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

/// The wire's types stay in the adapters.
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

/// A test that sleeps is slow when it passes and wrong when it fails. It may between two looks at a condition, and where a
/// comment on the line or above says why.
fn sleeps(file: &File, code: &str) -> Vec<Finding> {
    let tests_from = tests_from(file, code);
    let text: Vec<&str> = file.text.lines().collect();
    let has_reason = |line: usize| {
        // Attributes may stand between a comment and what it is about.
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
    fn domain_is_pure() {
        assert_eq!(findings("peer/src/domain/x.rs", "use tokio::sync;\n"), ["peer/src/domain/x.rs:1"]);
        assert_eq!(
            findings("a/src/domain/deep/x.rs", "\nlet t = Instant::now();\n"),
            ["a/src/domain/deep/x.rs:2"]
        );
        assert_eq!(findings("a/src/domain.rs", "async fn f() {}"), ["a/src/domain.rs:1"]);
        assert!(findings("peer/src/domain/x.rs", "// no tokio here\nlet s = \"tokio\";\n").is_empty());
        assert!(findings("peer/src/domain/x.rs", "machine.awaits(piece)").is_empty());
        assert_eq!(findings("peer/src/domain/x.rs", "machine.await;").len(), 1);
        assert!(findings("peer/src/domain/x.rs", "let my_tokio = crate::tokens();\n").is_empty());
        assert!(findings("peer/src/engine.rs", "use tokio::sync;\n").is_empty());
        assert!(findings("peer/src/domain/x.rs", "mod tests {\nlet t = Instant::now();\n}").is_empty());
    }

    #[test]
    fn the_wire_stays_in_the_adapters() {
        assert_eq!(findings("peer/src/session.rs", "use proto::pb::File;").len(), 1);
        assert_eq!(findings("tracker-svc/src/store/mod.rs", "fn f() -> tonic::Status {").len(), 1);
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
