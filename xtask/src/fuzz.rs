//! Fuzzing: builds the targets in `xtask/fuzz` with coverage, and runs them against their corpora.
//!
//! The corpus in the tree is small: what a target needs to get past its first checks. What a run finds is kept
//! under `target/fuzz`, so that the next run begins with it.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use testbed::cmd;

/// The seconds that a target runs for, by default and in CI.
pub(crate) const SECONDS: u64 = 30;
/// Targets that run at the same time.
const AT_ONCE: usize = 2;
/// What cargo-fuzz builds for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The most memory of a target, in MiB, and the most seconds and bytes of one input.
const LIMITS: [&str; 3] = ["-rss_limit_mb=768", "-timeout=20", "-max_len=4096"];

/// Whether this machine can fuzz.
pub(crate) fn available() -> bool {
    cfg!(target_arch = "x86_64") && cmd::works(&cmd::cargo(), &["fuzz", "--version"])
}

/// `cargo xtask fuzz [--seconds N] [TARGET]...`
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (seconds, names) = match args {
        ["--seconds", seconds, names @ ..] => {
            (seconds.parse().with_context(|| format!("--seconds takes a number, not {seconds:?}"))?, names)
        }
        names => (SECONDS, names),
    };
    let known = targets()?;
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|known| known == *name)) {
        bail!("there is no target {unknown:?}; there are {}", known.join(", "));
    }
    let chosen: Vec<String> =
        known.into_iter().filter(|known| names.is_empty() || names.contains(&known.as_str())).collect();
    if !available() {
        bail!("`cargo fuzz` is not installed: run `cargo install cargo-fuzz`");
    }
    let programs = build()?;
    let (queue, failed) = (Mutex::new(VecDeque::from(chosen)), Mutex::new(Vec::new()));
    let next = || queue.lock().ok()?.pop_front();
    println!("{:<14} {:>10} {:>7} {:>9} {:>6} {:>6}", "target", "inputs", "edges", "features", "MiB", "s");
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(target) = next() {
                    if let Err(error) = fuzz(&programs, &target, seconds) {
                        println!("{target}: {error:#}");
                        failed.lock().expect("no panic").push(target);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    if !failed.is_empty() {
        bail!("fuzzing found something in {}", failed.join(", "));
    }
    Ok(())
}

fn folder() -> PathBuf {
    cmd::root().join("xtask/fuzz")
}

/// Where builds, corpora, logs and findings go.
fn work() -> PathBuf {
    cmd::root().join("target/fuzz")
}

/// The names of all targets.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder().join("targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Builds all targets. Returns the folder of their programs.
fn build() -> Result<PathBuf> {
    let mut build = cmd::command(&cmd::cargo(), &["fuzz", "build", "--sanitizer", "none", "--fuzz-dir"]);
    build.arg(folder());
    // The coverage that libFuzzer needs is not stable yet. The toolchain is.
    build.env("RUSTC_BOOTSTRAP", "1").env("CARGO_TARGET_DIR", work());
    cmd::run(build)?;
    Ok(work().join(TRIPLE).join("release"))
}

/// Runs one target and prints its figures.
fn fuzz(programs: &Path, target: &str, seconds: u64) -> Result<()> {
    let (found, findings) = (work().join("corpus").join(target), work().join("findings"));
    let seeds = folder().join("corpus").join(target);
    for folder in [&found, &findings] {
        fs::create_dir_all(folder)?;
    }
    let log = work().join(format!("{target}.log"));
    let mut run = Command::new(programs.join(target));
    run.arg(format!("-max_total_time={seconds}")).args(LIMITS).arg("-print_final_stats=1");
    run.arg(format!("-artifact_prefix={}/{target}-", findings.display()));
    run.arg(&found);
    if seeds.is_dir() {
        run.arg(&seeds);
    }
    // Programs under test must not find the configuration of this machine.
    run.env("RUST_BACKTRACE", "1").current_dir(work());
    let began = Instant::now();
    let status =
        run.stdout(fs::File::create(&log)?).stderr(fs::File::options().append(true).open(&log)?).status();
    let succeeded = status.with_context(|| format!("{target} can't be run"))?.success();
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !succeeded {
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("{}\nthe whole log: {}", tail.join("\n"), log.display());
    }
    let stat = |name: &str| after(&text, &format!("stat::{name}:")).unwrap_or("?");
    println!(
        "{target:<14} {:>10} {:>7} {:>9} {:>6} {:>6.0}",
        stat("number_of_executed_units"),
        after(&text, "cov:").unwrap_or("?"),
        after(&text, "ft:").unwrap_or("?"),
        stat("peak_rss_mb"),
        began.elapsed().as_secs_f64(),
    );
    Ok(())
}

/// The word after the last place where `label` stands.
fn after<'t>(text: &'t str, label: &str) -> Option<&'t str> {
    let (_, rest) = text.rsplit_once(label)?;
    rest.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::{after, folder, targets};

    #[test]
    fn figures_are_read_from_the_end_of_a_log() {
        let log = "#2 INITED cov: 12 ft: 13\n#9 DONE   cov: 40 ft: 51\nstat::peak_rss_mb:             55\n";
        assert_eq!(after(log, "cov:"), Some("40"));
        assert_eq!(after(log, "stat::peak_rss_mb:"), Some("55"));
        assert_eq!(after(log, "nothing"), None);
    }

    #[test]
    fn every_target_is_a_program() {
        let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("a manifest");
        let targets = targets().expect("targets");
        assert!(targets.len() > 10);
        for target in targets {
            assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in the manifest");
        }
    }
}
