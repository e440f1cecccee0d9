//! Versions below which an advisory is known. They are checked against Cargo.lock, with or without an
//! advisory database.

use anyhow::{Context as _, Result};

/// A crate, the floor of each of its release lines that has one, and the reason. A version in a line without
/// a floor must be above the last floor.
const FLOORS: &[(&str, &[[u64; 3]], &str)] = &[
    ("tonic", &[[0, 14, 9]], "max_connection_age panics before"),
    ("h2", &[[0, 4, 18]], "floods of resets and empty frames"),
    ("hyper", &[[1, 12, 0]], "the HTTP/2 server builder that the accept loop relies on"),
    ("rustls", &[[0, 23, 18]], "a handshake could panic an acceptor"),
    ("rustls-webpki", &[[0, 103, 13]], "name constraints and revocation"),
    ("ring", &[[0, 17, 12]], "overflow checks could panic in AES"),
    ("bytes", &[[1, 11, 1]], "integer overflow in reserve"),
    ("time", &[[0, 3, 47]], "stack exhaustion while parsing"),
    ("tokio", &[[1, 44, 2]], "broadcast channel unsoundness"),
    ("tracing-subscriber", &[[0, 3, 20]], "terminal escapes in logs"),
    ("rand", &[[0, 9, 3], [0, 10, 1]], "unsound with a logger that draws random numbers"),
    ("sqlx", &[[0, 9, 0]], "the line that takes a current SQLite"),
    ("libsqlite3-sys", &[[0, 37, 0]], "SQLite 3.51.3, the first with the WAL reset fix"),
];

/// Returns a message for each version below its floor. `lock` is the text of a Cargo.lock.
pub(crate) fn check(lock: &str) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (name, version) in packages(lock) {
        let Some((_, floors, why)) = FLOORS.iter().find(|(floor, ..)| *floor == name) else { continue };
        let parsed = parse(version).with_context(|| format!("Cargo.lock: {name} has version {version:?}"))?;
        // The floor of the version's own release line, or else the last one.
        let own = floors.iter().find(|floor| floor[..2] == parsed[..2]);
        let Some(floor) = own.or(floors.last()) else { continue };
        if parsed < *floor {
            let [major, minor, patch] = floor;
            wrong.push(format!(
                "Cargo.lock: {name} {version} is below {major}.{minor}.{patch} ({why}): run `cargo update -p {name}`"
            ));
        }
    }
    Ok(wrong)
}

/// Name and version of each package in a Cargo.lock.
fn packages(lock: &str) -> impl Iterator<Item = (&str, &str)> {
    let value = |line: &'_ str, key: &str| -> Option<(usize, usize)> {
        let rest = line.strip_prefix(key)?.strip_prefix(" = \"")?;
        let start = line.len() - rest.len();
        Some((start, start + rest.find('"')?))
    };
    lock.split("[[package]]").filter_map(move |block| {
        let find = |key| block.lines().find_map(|line| value(line, key).map(|(from, to)| &line[from..to]));
        Some((find("name")?, find("version")?))
    })
}

/// Parses `major.minor.patch` and ignores pre-release and build suffixes.
fn parse(version: &str) -> Option<[u64; 3]> {
    let core = version.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

#[cfg(test)]
mod tests {
    use super::{check, parse};

    fn wrong(name: &str, version: &str) -> usize {
        let lock = format!("version = 4\n\n[[package]]\nname = \"{name}\"\nversion = \"{version}\"\n");
        check(&lock).expect("it parses").len()
    }

    #[test]
    fn versions_below_a_floor_are_named() {
        assert_eq!(wrong("h2", "0.4.17"), 1);
        assert_eq!(wrong("h2", "0.4.18"), 0);
        assert_eq!(wrong("h2", "0.3.99"), 1);
        assert_eq!(wrong("h2", "1.0.0"), 0);
        assert_eq!(wrong("unknown", "0.0.1"), 0);
    }

    #[test]
    fn each_line_has_its_own_floor() {
        assert_eq!(wrong("rand", "0.9.2"), 1);
        assert_eq!(wrong("rand", "0.9.3"), 0);
        assert_eq!(wrong("rand", "0.10.0"), 1);
        assert_eq!(wrong("rand", "0.10.1"), 0);
        assert_eq!(wrong("rand", "0.8.5"), 1);
    }

    #[test]
    fn versions_parse() {
        assert_eq!(parse("1.2.3+wasi-0.2"), Some([1, 2, 3]));
        assert_eq!(parse("1.2"), None);
        assert!(check("[[package]]\nname = \"h2\"\nversion = \"x\"\n").is_err());
    }
}
