//! What a person at a terminal sees.

use std::{
    fs,
    io::{Read as _, Write as _},
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::support::{Done, MIB, PASSWORD, Peer, Tracker};

/// What the line editor prints when it begins to read a line.
const READS: &str = "\u{1b}[?2004h";

/// Runs a verb on a terminal of its own. `None` on a machine without the program for that.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn at_a_terminal(peer: &Peer, line: &str) -> Option<Child> {
    let verb = peer.command(&[]);
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{} {line}", verb.get_program().to_string_lossy()), "/dev/null"]);
    command.current_dir(peer.path("")).env("TERM", "xterm").env("COLUMNS", "120");
    command.envs(verb.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().ok();
    if child.is_none() {
        println!("SKIPPED: `script` is not installed");
    }
    child
}

/// Types each line when the shell reads one, as a person does; its exit code and all that was on the screen.
fn converse(mut child: Child, lines: &[&str]) -> (Option<i32>, String) {
    let (mut keys, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut seen = Vec::new();
    let mut more = |seen: &mut Vec<u8>| {
        let mut some = [0; 4_096];
        let count = screen.read(&mut some).expect("the screen can be read");
        seen.extend_from_slice(&some[..count]);
        count > 0
    };
    for (before, line) in lines.iter().enumerate() {
        while String::from_utf8_lossy(&seen).matches(READS).count() <= before && more(&mut seen) {}
        keys.write_all(line.as_bytes()).and_then(|()| keys.write_all(b"\r")).expect("the keys are read");
    }
    while more(&mut seen) {}
    let code = child.wait().expect("it ends").code();
    (code, String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn the_shell_remembers_lines_and_no_passwords() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let login = format!("login ann '{}'", PASSWORD.trim());
    let Some(shell) = at_a_terminal(&ann, "shell") else { return };
    let (code, seen) = converse(shell, &["create_group g1", "list_groups", &login, "no-such-verb", "exit"]);
    assert_eq!(code, Some(0), "typed by a person, it ends well: {seen:?}");
    assert!(seen.contains("peer> ") && seen.contains("g1 is yours"), "{seen:?}");
    assert!(seen.contains("unrecognized subcommand"), "{seen:?}");
    let history = fs::read_to_string(ann.path("home/history")).expect("it is kept");
    assert_eq!(history, "create_group g1\nlist_groups\nno-such-verb");
    // The next one takes it up: the line above the last.
    let shell = at_a_terminal(&ann, "shell").expect("as before");
    let (code, seen) = converse(shell, &["\u{1b}[A\u{1b}[A", "exit"]);
    assert!(code == Some(0) && seen.contains("MEMBERS"), "{seen:?}");
}

#[test]
fn a_download_is_seen_while_it_runs() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "4MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 8 * MIB, 1);
    let Some(shown) = at_a_terminal(&bob, "download g1 data out/") else { return };
    let seen = Done::since(shown, "", Instant::now());
    assert_eq!(seen.code, 0, "{seen:?}");
    for part in ["[D] [g1] data", "eta ", "1 source", "#", "sending", "8.0 MiB from ann"] {
        assert!(seen.stdout.contains(part), "{part}: {seen:?}");
    }
    // Nothing of the kind where nobody looks.
    ann.shares("g1", "more", 4 * MIB, 2);
    let unseen = bob.ok(&["download", "g1", "more", "out/"]);
    assert!(unseen.stderr.is_empty() && unseen.stdout.lines().count() == 1, "{unseen:?}");
}
