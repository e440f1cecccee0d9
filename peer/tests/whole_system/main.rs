//! The whole system in virtual time: the code of the tracker and of several peers, daemons and stores included,
//! in one process, with time, randomness, threads, network and disks under the test's control.
//!
//! - `sys`: the clock, random bytes and threads.
//! - `net`: the network.
//! - `disk`: the disks of the peers.
//! - `world`: the hosts, and what runs on them.
//! - `line`: the command lines of the users.
//! - `rogue`: a client that goes on fetching after it lost its right.
//! - `model`: what groups must look like.
//! - `story`: what users do. `limits`: downloads under a limit. `faults`: what goes wrong. `checks`: what must hold.
//!   `ending`: how everything ends well.
//!
//! A seed decides everything, so a run that failed can be repeated: `cargo xtask whole-system --seed N`.
//! Each seed runs in a process of its own, so that nothing is left of the one before.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, missing_docs)]

mod checks;
mod disk;
mod ending;
mod faults;
mod limits;
mod line;
mod model;
mod net;
mod rogue;
mod story;
mod sys;
mod world;

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

/// The environment variable that makes a process run one seed.
const SEED: &str = "WHOLE_SYSTEM_SEED";
/// The environment variable that prints the trace while it grows.
const ECHO: &str = "WHOLE_SYSTEM_TRACE";
/// The environment variable that names the seeds of a run, as FIRST..LAST.
const SEEDS: &str = "WHOLE_SYSTEM_SEEDS";
/// A seed takes a second or two. One that takes this long hangs.
const LONGEST: Duration = Duration::from_secs(150);

/// Not a test of its own. A process that was given a seed runs it, and prints the trace and its hash.
#[test]
fn one_seed() {
    let Some(seed) = std::env::var(SEED).ok().map(|seed| seed.parse().expect("a number")) else { return };
    let echo = std::env::var_os(ECHO).is_some();
    // A thread of its own, so that everything thread-local is made from the seed.
    let running = std::thread::spawn(move || {
        sys::begin(seed);
        let outcome = story::run(seed, echo);
        sys::end();
        outcome
    });
    match running.join() {
        Ok(digest) => println!("digest {digest}"),
        Err(_) => std::process::exit(1),
    }
    // The threads that the simulation left waiting are not waited for.
    std::process::exit(0);
}

/// Runs a seed in a process of its own. Returns whether it passed, and what it printed.
fn process(seed: u64) -> (bool, String) {
    let this = std::env::current_exe().expect("a path");
    let mut command = Command::new(this);
    command.args(["one_seed", "--exact", "--nocapture"]).env(SEED, seed.to_string());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (out, err) = (std::thread::spawn(|| text(out)), std::thread::spawn(|| text(err)));
    let started = Instant::now();
    let passed = loop {
        match child.try_wait().expect("a child") {
            Some(status) => break status.success(),
            None if started.elapsed() > LONGEST => {
                child.kill().expect("a child");
                child.wait().expect("a child");
                break false;
            }
            None => std::thread::park_timeout(Duration::from_millis(5)),
        }
    };
    let join = |reading: std::thread::JoinHandle<String>| reading.join().expect("no panic");
    (passed, join(out) + &join(err))
}

fn text(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is what there is.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The hash of a seed's trace.
fn digest(seed: u64) -> String {
    let (passed, text) = process(seed);
    assert!(passed, "seed {seed}:\n{text}");
    text.lines().find_map(|line| line.split_once("digest ")).expect("a digest").1.to_owned()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    // One calm seed, and one with faults.
    let first = [1, 3].map(digest);
    assert_eq!([1, 3].map(digest), first);
    assert_ne!(first[0], first[1]);
}

/// Runs the seeds that the environment names, FIRST..LAST, or else a few. Two at a time.
#[test]
fn seeds() {
    let named = std::env::var(SEEDS).ok();
    let (first, last) = named.as_deref().map_or((1, 12), |named| {
        let (first, last) = named.split_once("..").expect("FIRST..LAST");
        (first.parse().expect("a number"), last.parse().expect("a number"))
    });
    let (next, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed > last {
                        return;
                    }
                    let (passed, text) = process(seed);
                    if !passed {
                        println!(
                            "seed {seed} FAILED; `cargo xtask whole-system --seed {seed}` repeats it\n{text}"
                        );
                        failed.lock().expect("no panic").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic");
    println!("{} seeds in {:.1?}, {} failed: {failed:?}", last + 1 - first, started.elapsed(), failed.len());
    assert!(failed.is_empty(), "failed: {failed:?}");
}
