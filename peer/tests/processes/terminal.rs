//! What a person at a terminal sees.

use std::{
    fs,
    process::{Command, Stdio},
    time::Instant,
};

use crate::support::{Done, MIB, PASSWORD, Peer, Tracker};

/// Runs a verb on a terminal of its own and types these lines. `None` on a machine without the program for that.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn at_a_terminal(peer: &Peer, line: &str, typed: &str) -> Option<Done> {
    let verb = peer.command(&[]);
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} {line}", verb.get_program().to_string_lossy()), "/dev/null"]);
    command.current_dir(peer.path("")).env("TERM", "xterm").env("COLUMNS", "120");
    command.envs(verb.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(Done::since(child, typed, Instant::now())),
        Err(_) => {
            println!("SKIPPED: `script` is not installed");
            None
        }
    }
}

#[test]
fn the_shell_remembers_lines_and_no_passwords() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let secret = PASSWORD.trim();
    let typed = format!("create_group g1\nlist_groups\nlogin ann '{secret}'\nno-such-verb\nexit\n");
    let Some(done) = at_a_terminal(&ann, "shell", &typed) else { return };
    assert_eq!(done.code, 0, "typed by a person, it ends well: {done:?}");
    assert!(done.stdout.contains("peer> ") && done.stdout.contains("g1 is yours"), "{done:?}");
    assert!(done.stdout.contains("unrecognized subcommand"), "{done:?}");
    let history = fs::read_to_string(ann.path("home/history")).expect("it is kept");
    assert_eq!(history, "create_group g1\nlist_groups\nno-such-verb");
    // The next one takes it up: the line above the last.
    let again = at_a_terminal(&ann, "shell", "\u{1b}[A\u{1b}[A\nexit\n").expect("as before");
    assert!(again.code == 0 && again.stdout.contains("MEMBERS"), "{again:?}");
}

#[test]
fn a_download_is_seen_while_it_runs() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "4MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 8 * MIB, 1);
    let Some(seen) = at_a_terminal(&bob, "download g1 data out/", "") else { return };
    assert_eq!(seen.code, 0, "{seen:?}");
    for part in ["[D] [g1] data", "eta ", "1 source", "#", "sending", "8.0 MiB from ann"] {
        assert!(seen.stdout.contains(part), "{part}: {seen:?}");
    }
    // Nothing of the kind where nobody looks.
    ann.shares("g1", "more", 4 * MIB, 2);
    let unseen = bob.ok(&["download", "g1", "more", "out/"]);
    assert!(unseen.stderr.is_empty() && unseen.stdout.lines().count() == 1, "{unseen:?}");
}
