//! The indexes of what Mini Torrent is tested against: kinds of bad input, and faults of machines, disks,
//! networks and clocks. Each line has the required result and the tests that prove it.
//!
//! A proof is `file::function`. A file without a folder is in the folder that its index names. A function in
//! `xtask/src/e2e` is a scene of the end-to-end test. Scenes need rights that not every machine gives, so no
//! line rests on scenes alone. The tests here fail for a line without a proof and for a proof that does not
//! exist.

mod bad_inputs;
mod faults;

use std::{collections::HashMap, fs, path::Path};

/// The folder of the scenes of the end-to-end test.
const SCENES: &str = "xtask/src/e2e/";

/// A case, its required result, and its proof.
pub(crate) struct Line {
    id: &'static str,
    case: &'static str,
    outcome: &'static str,
    proof: Proof,
}

/// How the result of a line is shown.
enum Proof {
    /// Each of these tests shows it, or a part of it.
    Tests(&'static [&'static str]),
    /// The case can't occur, for this reason.
    Never(&'static str),
}

pub(crate) const fn line(
    id: &'static str,
    case: &'static str,
    outcome: &'static str,
    proofs: &'static [&'static str],
) -> Line {
    Line { id, case, outcome, proof: Proof::Tests(proofs) }
}

pub(crate) const fn never(id: &'static str, case: &'static str, reason: &'static str) -> Line {
    Line { id, case, outcome: "", proof: Proof::Never(reason) }
}

/// An index: the letter and the number of its lines, and the folder of proofs without a folder.
struct Index {
    letter: char,
    count: usize,
    here: &'static str,
    lines: &'static [Line],
}

const INDEXES: [Index; 2] = [
    Index { letter: 'B', count: 82, here: bad_inputs::HERE, lines: bad_inputs::LINES },
    Index { letter: 'F', count: 43, here: faults::HERE, lines: faults::LINES },
];

#[test]
fn no_line_is_missing() {
    for index in INDEXES {
        let ids: Vec<&str> = index.lines.iter().map(|line| line.id).collect();
        let expected: Vec<String> =
            (1..=index.count).map(|number| format!("{}{number:02}", index.letter)).collect();
        assert_eq!(ids, expected);
    }
}

#[test]
fn every_proof_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is in the project");
    let mut sources = Sources { root, texts: HashMap::new() };
    let mut missing = Vec::new();
    for index in INDEXES {
        for line in index.lines {
            let Line { id, case, outcome, proof } = line;
            match proof {
                Proof::Tests(proofs) => {
                    if !proofs.iter().any(|proof| !proof.starts_with(SCENES)) {
                        missing.push(format!("{id}: a test that shows: {case}: {outcome}"));
                    }
                    let wrong = proofs.iter().filter(|proof| !sources.has(index.here, proof));
                    missing.extend(wrong.map(|proof| format!("{id}: {proof}")));
                }
                Proof::Never(reason) => {
                    assert!(!reason.is_empty(), "{id}: {case}: why is there no proof?");
                }
            }
        }
    }
    assert!(missing.is_empty(), "no such tests:\n{}", missing.join("\n"));
}

#[test]
fn a_planted_proof_that_does_not_exist_is_found() {
    let text = "#[test]\nfn runs() {}\n#[tokio::test]\n#[cfg(x)]\nasync fn waits() {}\n#[test]\n#[ignore]\nfn rests() {}\n\n\n\nfn helper() {}\n";
    let found = ["runs", "waits", "rests", "helper", "run", "gone"].map(|name| is_test(text, name));
    assert_eq!(found, [true, true, false, false, false, false]);
}

/// The sources that proofs are in, each read once.
struct Sources<'r> {
    root: &'r Path,
    texts: HashMap<String, String>,
}

impl Sources<'_> {
    fn has(&mut self, here: &str, proof: &str) -> bool {
        let Some((file, function)) = proof.split_once("::") else { return false };
        let path = if file.contains('/') { file.to_owned() } else { format!("{here}/{file}") };
        let text = self
            .texts
            .entry(path)
            .or_insert_with_key(|path| fs::read_to_string(self.root.join(path)).unwrap_or_default());
        // A scene that nothing plays does not even compile: it would be dead code.
        if file.starts_with(SCENES) { position(text, function).is_some() } else { is_test(text, function) }
    }
}

/// The number of the line on which the text defines this function.
fn position(text: &str, function: &str) -> Option<usize> {
    text.lines().map(str::trim).position(|line| {
        let line = line.strip_prefix("pub(super) ").unwrap_or(line);
        let line = line.strip_prefix("async ").unwrap_or(line);
        let rest = line.strip_prefix("fn ").and_then(|rest| rest.strip_prefix(function));
        rest.is_some_and(|rest| rest.starts_with('('))
    })
}

/// Whether the text has a test function with this name that is not ignored.
fn is_test(text: &str, function: &str) -> bool {
    let Some(at) = position(text, function) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let above = &lines[at.saturating_sub(3)..at];
    // Attributes of the function before it don't count.
    let own = above.iter().rposition(|line| line.ends_with('}')).map_or(above, |end| &above[end + 1..]);
    let has = |word: &str| own.iter().any(|line| line.starts_with("#[") && line.contains(word));
    has("test") && !has("ignore")
}
