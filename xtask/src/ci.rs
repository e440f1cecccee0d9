//! Everything a change must pass, in sections with their times. `cargo xtask ci [SECTION]…` runs those named alone.
//!
//! What a machine lacks for a required check is a failure; what it lacks for an optional one is said loudly, as SKIPPED.

use std::{
    fmt,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{cmd, demo, e2e, images, interop, poke, readme, story, tidy};

/// How a section that did not fail went.
enum Done {
    Passed,
    /// Something that it needs isn't here; this is what.
    Skipped(String),
}

type Section = (&'static str, fn() -> Result<Done>);

/// Cheap ones first: a typo is told in seconds.
const SECTIONS: &[Section] = &[
    ("format", format),
    ("tidy", house_rules),
    ("buf", buf),
    ("clippy", clippy),
    ("tests", tests),
    ("doc-tests", doc_tests),
    ("docs", docs),
    ("dependencies", dependencies),
    ("advisories", advisories),
    ("deployment", deployment),
    ("demo", a_demo),
    ("readme", the_readme),
    ("grpcurl", every_method),
    ("interop", other_languages),
    ("e2e", end_to_end),
];

/// Enough pieces for two who download to trade.
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
    passed(cargo(&["fmt", "--all", "--check"]))
}

fn house_rules() -> Result<Done> {
    tidy::run().map(|()| Done::Passed)
}

fn buf() -> Result<Done> {
    if !cmd::works("buf", &["--version"]) {
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
    if cmd::works(&cmd::cargo(), &["nextest", "--version"]) {
        return passed(cargo(&["nextest", "run", "--workspace", "--locked", "--no-fail-fast"]));
    }
    println!("`cargo nextest` is not installed: `cargo test` runs the same tests, with less isolation");
    passed(cargo(&["test", "--workspace", "--all-targets", "--locked", "--no-fail-fast"]))
}

fn doc_tests() -> Result<Done> {
    passed(cargo(&["test", "--workspace", "--doc", "--locked"]))
}

fn docs() -> Result<Done> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    passed(doc)
}

fn has_cargo_deny() -> bool {
    cmd::works(&cmd::cargo(), &["deny", "--version"])
}

fn dependencies() -> Result<Done> {
    if !has_cargo_deny() {
        return Ok(Done::Skipped(
            "`cargo deny` is not installed: bans, licenses and sources were not checked".to_owned(),
        ));
    }
    passed(cargo(&["deny", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"]))
}

/// The database is on another host. Where it can't be had, the version floors of `tidy` still hold.
fn advisories() -> Result<Done> {
    if !has_cargo_deny() {
        return Ok(Done::Skipped("`cargo deny` is not installed: advisories were not checked".to_owned()));
    }
    let mut fetch = cargo(&["deny", "fetch", "db"]);
    fetch.env("GIT_TERMINAL_PROMPT", "0");
    if !cmd::output(fetch, b"")?.status.success() {
        let why = "the advisory database can't be fetched here: advisories were not checked (known floors were, by tidy)";
        return Ok(Done::Skipped(why.to_owned()));
    }
    passed(cargo(&["deny", "check", "--disable-fetch", "advisories"]))
}

/// What systemd and docker-compose say of the files that they are given.
fn deployment() -> Result<Done> {
    let mut missing = Vec::new();
    if images::has_compose() {
        for files in [&["config", "--quiet"][..], &["--profile", "lab", "config", "--quiet"]] {
            cmd::run(images::compose(files))?;
        }
    } else {
        missing.push("docker-compose");
    }
    if cmd::works("systemd-analyze", &["--version"]) {
        let bin = demo::build(true)?;
        for unit in ["tracker-svc/dist/tracker-svc.service", "peer/dist/peer.service"] {
            let text = std::fs::read_to_string(cmd::root().join(unit))?;
            // It looks for the program where the unit says that it is.
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
    story::make_file(&file, DEMO_BYTES, 4)?;
    demo::run(&["--dev", &file.to_string_lossy()]).map(|()| Done::Passed)
}

fn the_readme() -> Result<Done> {
    if !cmd::works("grpcurl", &["-version"]) {
        return Ok(Done::Skipped("`grpcurl` is not installed: the README's lines were not run".to_owned()));
    }
    readme::run(&demo::build(true)?).map(|()| Done::Passed)
}

fn every_method() -> Result<Done> {
    if !poke::available() {
        return Ok(Done::Skipped(
            "`grpcurl` or `openssl` is not installed: no method was called by it".into(),
        ));
    }
    poke::run(&demo::build(true)?).map(|()| Done::Passed)
}

fn other_languages() -> Result<Done> {
    if !interop::available() {
        return Ok(Done::Skipped(
            "Python has no grpcio and grpcio-tools: no other implementation was tried".to_owned(),
        ));
    }
    interop::run(&demo::build(true)?).map(|()| Done::Passed)
}

fn end_to_end() -> Result<Done> {
    Ok(e2e::run(&[])?.map_or(Done::Passed, |why| Done::Skipped(why.to_owned())))
}
