//! Runs all checks that a change must pass, in sections, and prints the time of each. `cargo xtask ci
//! [SECTION]…` runs only the named sections.
//!
//! If the machine lacks a tool, a required check fails. An optional check prints SKIPPED and the reason. A tool
//! that is installed and does not work is a failure.

use std::{
    fmt,
    net::{TcpStream, ToSocketAddrs as _},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use testbed::{cmd, images, programs};

use crate::{demo, e2e, fuzz, grpcurl, interop, readme, tidy};

/// The result of a section that did not fail.
enum Done {
    Passed,
    /// Something that the section needs is missing. The text names it.
    Skipped(String),
}

type Section = (&'static str, fn() -> Result<Done>);

/// The cheap sections come first, so that a typo is reported within seconds.
const SECTIONS: &[Section] = &[
    ("format", format),
    ("tidy", house_rules),
    ("buf", buf),
    ("clippy", clippy),
    ("tests", tests),
    ("whole-system", whole_system),
    ("doc-tests", doc_tests),
    ("docs", docs),
    ("dependencies", dependencies),
    ("unused", unused_dependencies),
    ("advisories", advisories),
    ("deployment", deployment),
    ("demo", a_demo),
    ("readme", the_readme),
    ("grpcurl", every_method),
    ("interop", other_languages),
    ("fuzz", fuzzing),
    ("e2e", end_to_end),
];

/// A file with enough pieces for two leechers to exchange some.
const DEMO_BYTES: u64 = 24 << 20;

pub(crate) fn run(only: &[&str]) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| !SECTIONS.iter().any(|(section, _)| section == *name)) {
        let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        bail!("ci has no section {unknown:?}; it has {}", known.join(", "));
    }
    let start = Instant::now();
    let mut results = Vec::new();
    for (name, section) in SECTIONS.iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        println!("\n==== {name} ====");
        let start = Instant::now();
        let outcome = match section() {
            Ok(Done::Passed) => Outcome::Passed,
            Ok(Done::Skipped(why)) => Outcome::Skipped(why),
            Err(error) => Outcome::Failed(format!("{error:#}")),
        };
        println!("---- {name}: {outcome} in {}", seconds(start.elapsed()));
        results.push((*name, outcome, start.elapsed()));
    }

    println!("\n==== ci: {} in all ====", seconds(start.elapsed()));
    for (name, outcome, took) in &results {
        println!("{name:<14} {:>8}  {outcome}", seconds(*took));
    }
    let failed: Vec<&str> = results
        .iter()
        .filter(|(_, outcome, _)| matches!(outcome, Outcome::Failed(_)))
        .map(|(name, ..)| *name)
        .collect();
    if !failed.is_empty() {
        bail!("ci failed: {}", failed.join(", "));
    }
    Ok(())
}

enum Outcome {
    Passed,
    Skipped(String),
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("ok"),
            Self::Skipped(why) => write!(f, "SKIPPED: {why}"),
            Self::Failed(why) => write!(f, "FAILED: {why}"),
        }
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn cargo(args: &[&str]) -> Command {
    cmd::command(&cmd::cargo(), args)
}

fn passed(command: Command) -> Result<Done> {
    cmd::run(command).map(|()| Done::Passed)
}

fn format() -> Result<Done> {
    cmd::run(cargo(&["fmt", "--all", "--check"]))?;
    // The fuzz targets are a workspace of their own.
    passed(cargo(&["fmt", "--manifest-path", "xtask/fuzz/Cargo.toml", "--check"]))
}

fn house_rules() -> Result<Done> {
    tidy::run().map(|()| Done::Passed)
}

fn buf() -> Result<Done> {
    if !cmd::installed("buf", &["--version"])? {
        return Ok(Done::Skipped("`buf` is not installed, the .proto files were not linted".to_owned()));
    }
    let mut lint = cmd::command("buf", &["lint"]);
    lint.current_dir(cmd::root().join("proto"));
    passed(lint)
}

fn clippy() -> Result<Done> {
    passed(cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))
}

fn tests() -> Result<Done> {
    if cmd::cargo_has("nextest")? {
        return passed(cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]));
    }
    println!("`cargo nextest` is not installed: `cargo test` runs the same tests, with less isolation");
    passed(cargo(&["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"]))
}

/// 300 seeds: about three minutes on two cores.
fn whole_system() -> Result<Done> {
    crate::whole_system::run(&[]).map(|()| Done::Passed)
}

fn doc_tests() -> Result<Done> {
    passed(cargo(&["test", "--workspace", "--doc", "--locked"]))
}

fn docs() -> Result<Done> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    passed(doc)
}

fn dependencies() -> Result<Done> {
    if !cmd::cargo_has("deny")? {
        return Ok(Done::Skipped(
            "`cargo deny` is not installed: bans, licenses and sources were not checked".to_owned(),
        ));
    }
    passed(cargo(&["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
}

/// Runs `cargo machete`, which finds dependencies that a manifest declares and no source names.
fn unused_dependencies() -> Result<Done> {
    if !cmd::cargo_has("machete")? {
        return Ok(Done::Skipped(
            "`cargo machete` is not installed: unused dependencies were not searched for".into(),
        ));
    }
    passed(cargo(&["machete"]))
}

/// The host of the advisory database.
const ADVISORIES: (&str, u16) = ("github.com", 443);

/// Checks the advisories. The version floors of `tidy` apply even where the database can't be reached.
fn advisories() -> Result<Done> {
    if !cmd::cargo_has("deny")? {
        return Ok(Done::Skipped("`cargo deny` is not installed: advisories were not checked".to_owned()));
    }
    let mut addresses = ADVISORIES.to_socket_addrs().into_iter().flatten();
    if !addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()) {
        let why = "the advisory database can't be reached: advisories were not checked (tidy checked the minimum versions)";
        return Ok(Done::Skipped(why.to_owned()));
    }
    let mut fetch = cargo(&["deny", "fetch", "db"]);
    fetch.env("GIT_TERMINAL_PROMPT", "0");
    cmd::run(fetch)?;
    passed(cargo(&["deny", "check", "--disable-fetch", "advisories"]))
}

/// Checks the unit files with systemd-analyze, and docker-compose.yml with docker-compose.
fn deployment() -> Result<Done> {
    let mut missing = Vec::new();
    if images::has_compose()? {
        for files in [&["config", "--quiet"][..], &["--profile", "lab", "config", "--quiet"]] {
            cmd::run(images::compose(files))?;
        }
    } else {
        missing.push("docker-compose");
    }
    if cmd::installed("systemd-analyze", &["--version"])? {
        let bin = programs::build(true)?;
        for unit in ["tracker-svc/dist/minitorrent-tracker.service", "peer/dist/minitorrent-peer.service"] {
            let text = std::fs::read_to_string(cmd::root().join(unit))?;
            // systemd-analyze looks for the program at the path in the unit.
            let here = bin.join(unit.rsplit('/').next().unwrap_or(unit));
            std::fs::write(&here, text.replace("/usr/local/bin", &bin.to_string_lossy()))?;
            cmd::run(cmd::command("systemd-analyze", &["verify", &here.to_string_lossy()]))?;
        }
    } else {
        missing.push("systemd-analyze");
    }
    if missing.is_empty() {
        return Ok(Done::Passed);
    }
    Ok(Done::Skipped(format!("no {} here: what it would check was not", missing.join(", no "))))
}

fn a_demo() -> Result<Done> {
    let file = cmd::root().join("target/demo/ci.bin");
    programs::make_file(&file, DEMO_BYTES, 4)?;
    demo::run(&["--dev", &file.to_string_lossy()]).map(|()| Done::Passed)
}

fn the_readme() -> Result<Done> {
    let tools = [("grpcurl", "-version"), ("openssl", "version"), ("curl", "--version")];
    let mut missing = Vec::new();
    for (tool, flag) in tools {
        if !cmd::installed(tool, &[flag])? {
            missing.push(tool);
        }
    }
    if !missing.is_empty() {
        return Ok(Done::Skipped(format!(
            "no {} here: the lines of the pages were not run",
            missing.join(", no ")
        )));
    }
    Ok(readme::run(&programs::build(true)?)?.map_or(Done::Passed, |why| Done::Skipped(why.to_owned())))
}

fn every_method() -> Result<Done> {
    if !grpcurl::available()? {
        return Ok(Done::Skipped(
            "`grpcurl` or `openssl` is not installed: no method was called by it".into(),
        ));
    }
    grpcurl::run(&programs::build(true)?).map(|()| Done::Passed)
}

fn other_languages() -> Result<Done> {
    if !interop::available()? {
        return Ok(Done::Skipped(
            "Python has no grpcio and grpcio-tools: no other implementation was tried".to_owned(),
        ));
    }
    interop::run(&programs::build(true)?).map(|()| Done::Passed)
}

fn end_to_end() -> Result<Done> {
    Ok(e2e::run(&[])?.map_or(Done::Passed, Done::Skipped))
}

fn fuzzing() -> Result<Done> {
    if !fuzz::available() {
        return Ok(Done::Skipped("`cargo fuzz` is not installed: nothing was fuzzed".to_owned()));
    }
    fuzz::run(&[]).map(|()| Done::Passed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use testbed::cmd;

    #[test]
    fn a_planted_unused_dependency_is_found() {
        if !cmd::cargo_has("machete").expect("cargo lists its subcommands") {
            println!("SKIPPED: `cargo machete` is not installed");
            return;
        }
        let crate_dir = tempfile::tempdir().expect("a directory");
        let manifest =
            "[package]\nname = \"planted\"\nversion = \"0.1.0\"\n\n[dependencies]\nanyhow = \"1\"\n";
        fs::create_dir(crate_dir.path().join("src")).expect("made");
        fs::write(crate_dir.path().join("Cargo.toml"), manifest).expect("written");
        let verdict = |source: &str| {
            fs::write(crate_dir.path().join("src/lib.rs"), source).expect("written");
            let mut machete = cmd::command(&cmd::cargo(), &["machete"]);
            machete.arg(crate_dir.path());
            cmd::output(machete, b"").expect("runs").status.success()
        };
        assert!(!verdict("pub fn nothing() {}"), "nothing names anyhow");
        assert!(verdict("pub use anyhow::Result;"), "it is named");
    }
}
