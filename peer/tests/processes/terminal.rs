//! Output on a terminal.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::support::{Done, MIB, PASSWORD, Peer, Tracker};

/// The sequence that the line editor prints when it starts to read a line.
const READS: &str = "\u{1b}[?2004h";

/// Runs a verb on a terminal of its own. Returns `None` on a machine without the program `script`.
fn at_a_terminal(peer: &Peer, line: &str) -> Option<Child> {
    at_a_terminal_after(peer, "", line)
}

/// As [`at_a_terminal`], after a command of the shell.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn at_a_terminal_after(peer: &Peer, first: &str, line: &str) -> Option<Child> {
    let verb = peer.command(&[]);
    let mut command = Command::new("script");
    command.args(["-qec", &format!("{first}{} {line}", verb.get_program().to_string_lossy()), "/dev/null"]);
    command.current_dir(peer.path("")).env("TERM", "xterm").env("COLUMNS", "120");
    command.envs(verb.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    match command.spawn() {
        Ok(child) => Some(child),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("SKIPPED: `script` is not installed");
            None
        }
        Err(error) => panic!("`script` did not start: {error}"),
    }
}

/// Types each line when the shell reads one, as a user does. Returns the exit code and everything that was on
/// the screen.
fn converse(child: Child, lines: &[&str]) -> (Option<i32>, String) {
    let lines: Vec<_> = lines.iter().map(|line| (READS, *line)).collect();
    answer(child, &lines)
}

/// Types each line when the text before it has come on the screen once more.
fn answer(mut child: Child, lines: &[(&str, &str)]) -> (Option<i32>, String) {
    let (mut keys, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut seen = Vec::new();
    let mut more = |seen: &mut Vec<u8>| {
        let mut some = [0; 4_096];
        let count = screen.read(&mut some).expect("the screen can be read");
        seen.extend_from_slice(&some[..count]);
        count > 0
    };
    for (at, (prompt, line)) in lines.iter().enumerate() {
        let before = lines[..at].iter().filter(|(earlier, _)| earlier == prompt).count();
        while String::from_utf8_lossy(&seen).matches(prompt).count() <= before && more(&mut seen) {}
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
    assert!(seen.contains("peer> ") && seen.contains("the group g1 was created"), "{seen:?}");
    assert!(seen.contains("unrecognized subcommand"), "{seen:?}");
    let history = fs::read_to_string(ann.path("home/history")).expect("it is kept");
    assert_eq!(history, "create_group g1\nlist_groups\nno-such-verb");
    // The next shell has the history. This goes to the line before the last.
    let shell = at_a_terminal(&ann, "shell").expect("as before");
    let (code, seen) = converse(shell, &["\u{1b}[A\u{1b}[A", "exit"]);
    assert!(code == Some(0) && seen.contains("MEMBERS"), "{seen:?}");
}

#[test]
fn the_shell_completes_names() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    tracker.group("g1", &[&ann]);
    ann.shares("g1", "my movie.mp4", 1, 1);
    let Some(shell) = at_a_terminal(&ann, "shell") else { return };
    let (code, seen) = converse(shell, &["verify g\tmy\t", "exit"]);
    assert!(code == Some(0) && seen.contains("my movie.mp4 of g1 (1 B) is intact"), "{seen:?}");
    assert_eq!(fs::read_to_string(ann.path("home/history")).expect("kept"), "verify g1 my\\ movie.mp4 ");
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
    for part in [
        "\u{1b}[36m[D]\u{1b}[0m [g1] data",
        "pieces: # all",
        "eta ",
        "1 source",
        "#",
        "sending",
        "8.0 MiB from ann",
    ] {
        assert!(seen.stdout.contains(part), "{part}: {seen:?}");
    }
    // Each line fits a narrow terminal, and NO_COLOR is heeded.
    ann.shares("g1", "a long name.mp4", 6 * MIB, 3);
    let line = "download g1 'a long name.mp4' out/";
    let narrow =
        at_a_terminal_after(&bob, "stty cols 24 rows 20; export NO_COLOR=1; ", line).expect("as before");
    let seen = Done::since(narrow, "", Instant::now());
    let drawn: Vec<&str> = seen.stdout.lines().filter_map(|line| line.rsplit("\u{1b}[J").next()).collect();
    let (result, drawn) = drawn.split_last().expect("lines");
    assert!(seen.code == 0 && result.starts_with("the download of"), "{seen:?}");
    assert!(drawn.iter().all(|line| line.chars().count() <= 24), "{seen:?}");
    assert!(drawn.iter().any(|line| line.starts_with("[D] a long") && line.ends_with('%')), "{seen:?}");
    assert!(drawn.iter().any(|line| line.contains("# all +:. some")), "{seen:?}");
    // Without a terminal nothing of the kind is printed.
    ann.shares("g1", "more", 4 * MIB, 2);
    let unseen = bob.ok(&["download", "g1", "more", "out/"]);
    assert!(unseen.stderr.is_empty() && unseen.stdout.lines().count() == 1, "{unseen:?}");
}

#[test]
fn who_joins_by_a_link_types_a_known_password_once_and_a_new_one_twice() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    tracker.user("bob");
    tracker.group("g1", &[&ann]);
    let link = ann.ok(&["invite", "g1", "--uses", "3"]).stdout.trim_end().to_owned();
    let password = PASSWORD.trim();
    let known = Peer::alone("bob", &[]);
    let Some(join) = at_a_terminal(&known, &format!("join '{link}' --user bob")) else { return };
    let (code, seen) = answer(join, &[("Password of bob", password)]);
    assert!(code == Some(0) && seen.contains("bob is a member of g1"), "{seen:?}");
    assert!(!seen.contains("repeat"), "{seen:?}");

    let new = Peer::alone("eve", &[]);
    let join = at_a_terminal(&new, &format!("join '{link}'")).expect("as before");
    let (code, seen) =
        answer(join, &[("Username", "eve"), ("Password of eve", password), ("repeat it", password)]);
    assert!(code == Some(0) && seen.contains("eve is a member of g1"), "{seen:?}");

    // A wrong password of a known account makes no account.
    let other = Peer::alone("bob", &[]);
    let join = at_a_terminal(&other, &format!("join '{link}' --user bob")).expect("as before");
    let wrong = "not his password";
    let (code, seen) = answer(join, &[("Password of bob", wrong), ("repeat it", wrong)]);
    assert!(code == Some(4) && seen.contains("wrong password"), "{seen:?}");
}

#[test]
fn on_a_desktop_the_page_is_opened_and_the_link_stays_secret() {
    use std::os::unix::fs::PermissionsExt as _;
    let tracker = Tracker::start();
    let mut ann = tracker.user("ann");
    let programs = ann.path("programs");
    fs::create_dir(&programs).expect("made");
    let (opener, opened) = (programs.join("xdg-open"), ann.path("opened"));
    fs::write(&opener, format!("#!/bin/sh\necho \"$@\" > {0}.new && mv {0}.new {0}\n", opened.display()))
        .expect("written");
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).expect("set");
    let path = std::env::var("PATH").expect("a path");
    ann.set("PATH", &format!("{}:{path}", programs.display()));
    ann.set("DISPLAY", ":0");
    ann.ok(&["ui"]);
    let Some(child) = at_a_terminal(&ann, "ui --no-open") else { return };
    let (code, _) = answer(child, &[]);
    assert!(code == Some(0) && !ann.path("home/page.html").exists(), "only when asked to, and at a terminal");
    let (code, seen) = answer(at_a_terminal(&ann, "ui").expect("as before"), &[]);
    assert!(code == Some(0) && seen.contains("/enter/"), "{seen}");
    let said = crate::support::wait_for("a browser is opened", || fs::read_to_string(&opened).ok());
    assert_eq!(said.trim(), ann.path("home/page.html").display().to_string(), "the link is in no argument");
    let file = ann.path("home/page.html");
    assert!(fs::read_to_string(&file).expect("written").contains(seen.trim()), "{seen}");
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
}
