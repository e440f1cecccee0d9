//! Completion of groups, users, files and downloads, as the shells ask for it.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use crate::support::{Foreground, MIB, Peer, Tracker};

/// A file whose name is a command of the shell, should it ever stand there unquoted.
const HOSTILE: &str = "$(touch pwned) 'x";

/// The three shells, each as its script asks. Returns the candidates without their descriptions.
fn ask(shell: &str, peer: &Peer, words: &[&str]) -> Vec<String> {
    let began = Instant::now();
    let mut command = peer.command(&[]);
    let index = words.len().to_string();
    command.env("COMPLETE", shell).env("_CLAP_COMPLETE_INDEX", &index).env("_CLAP_IFS", "\n");
    let output = command.args(["--", "peer"]).args(words).output().expect("it runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{shell} {words:?}: {output:?}");
    // It must not be felt. This machine may be busy.
    assert!(began.elapsed() < Duration::from_secs(5), "{shell} {words:?}: {:?}", began.elapsed());
    let text = String::from_utf8(output.stdout).expect("text");
    let value = |line: &str| match shell {
        "fish" => line.split('\t').next().unwrap_or_default().to_owned(),
        "zsh" => line.replace("\\:", "\0").split(':').next().unwrap_or_default().replace('\0', ":"),
        _ => line.to_owned(),
    };
    text.lines().map(value).collect()
}

/// As [`ask`], of all three shells, which must agree.
#[track_caller]
fn completes(peer: &Peer, words: &[&str], expected: &[&str]) {
    for shell in ["bash", "zsh", "fish"] {
        assert_eq!(ask(shell, peer, words), expected, "{shell} {words:?}");
    }
}

/// ann owns g1 and g2, where bob is a member and cem asks to be one; dan's group is d1.
fn scene() -> (Tracker, [Peer; 3]) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "1MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    tracker.group("g2", &[&ann, &bob]);
    let cem = tracker.user("cem");
    cem.ok(&["create-group", "c1"]);
    cem.ok(&["join-group", "g1"]);
    ann.shares("g1", "movie.mp4", 4 * MIB, 1);
    ann.shares("g1", "music.mp3", MIB, 2);
    ann.shares("g2", "other", 1, 3);
    (tracker, [ann, bob, cem])
}

#[test]
fn groups_users_files_and_downloads_are_completed() {
    let (_tracker, [ann, bob, cem]) = scene();
    // Groups: one's own, owned, and all.
    completes(&bob, &["download", ""], &["g1", "g2"]);
    completes(&ann, &["accept-request", "g"], &["g1", "g2"]);
    completes(&bob, &["accept-request", "g"], &[]);
    completes(&bob, &["join-group", ""], &["c1", "g1", "g2"]);
    completes(&cem, &["list-files", ""], &["c1"]);
    completes(&ann, &["list_requests", "g"], &["g1", "g2"]);
    // Users of the group before them.
    completes(&ann, &["accept-request", "g1", ""], &["cem"]);
    completes(&ann, &["reject-request", "g2", "c"], &[]);
    completes(&ann, &["remove-member", "g2", ""], &["bob"]);
    completes(&ann, &["set-role", "g2", ""], &["bob"]);
    // Files of the group before them, also with flags in between.
    completes(&bob, &["download", "g1", "m"], &["movie.mp4", "music.mp3"]);
    completes(&bob, &["download", "--sequential", "g1", "mo"], &["movie.mp4"]);
    completes(&bob, &["--timeout", "5", "download", "g2", ""], &["other"]);
    completes(&bob, &["unpublish", "c1", "m"], &[]);
    // Downloads and shares of this peer.
    bob.starts("g1", "movie.mp4");
    completes(&bob, &["stop-download", ""], &["g1"]);
    completes(&bob, &["stop-download", "g1", ""], &["movie.mp4"]);
    completes(&bob, &["resume-download", "g1", "m"], &[]);
    // Subscriptions and tokens.
    bob.ok(&["subscribe", "g2", "subscribed"]);
    bob.ok(&["create-token", "ci"]);
    completes(&bob, &["unsubscribe", ""], &["g2"]);
    completes(&bob, &["revoke-token", ""], &["ci"]);
    bob.ok(&["stop-download", "g1", "movie.mp4"]);
    completes(&bob, &["resume-download", "g1", "m"], &["movie.mp4"]);
    completes(&bob, &["stop-download", "g1", "m"], &[]);
    completes(&ann, &["stop-share", ""], &["g1", "g2"]);
    completes(&ann, &["stop-share", "g1", ""], &["movie.mp4", "music.mp3"]);
    completes(&bob, &["verify", "g1", "m"], &["movie.mp4"]);
    completes(&bob, &["update", "g1", "m"], &["movie.mp4"]);
    completes(&bob, &["list-files", "g1", "mu"], &["music.mp3"]);
    // Verbs, flags and paths as ever.
    completes(&bob, &["stop-d"], &["stop-download"]);
    completes(&bob, &["download", "--seq"], &["--sequential"]);
    fs::create_dir(bob.path("outdoors")).expect("made");
    completes(&bob, &["download", "g1", "movie.mp4", "outd"], &["outdoors/"]);
    // The home that the line names counts.
    let home = ann.path("home").display().to_string();
    completes(&bob, &["--home", &home, "accept-request", "g1", ""], &["cem"]);
}

#[test]
fn what_can_not_be_known_gives_no_candidates_and_starts_nothing() {
    let (mut tracker, [ann, _, cem]) = scene();
    // The tracker is away: what this daemon knows by itself is still there.
    tracker.kill();
    completes(&ann, &["download", "g1", "m"], &[]);
    completes(&ann, &["stop-share", "g1", "mo"], &["movie.mp4"]);
    // The daemon does not answer.
    let pid = ann.daemon_pid().expect("it runs");
    crate::support::peer::signal_process(pid, rustix::process::Signal::STOP);
    completes(&ann, &["stop-share", "g1", "m"], &[]);
    crate::support::peer::signal_process(pid, rustix::process::Signal::CONT);
    // There is none.
    cem.ok(&["daemon", "stop"]);
    completes(&cem, &["download", "c"], &[]);
    assert_eq!(cem.daemon_pid(), None, "none was started");
    // Lines that mean nothing.
    completes(&cem, &["no-such-verb", "x"], &[]);
    completes(&cem, &["--home", "", "download", "x"], &[]);
    // A variable that is meant for another program changes nothing.
    let mut other = cem.command(&["completions", "bash"]);
    let output = other.env("COMPLETE", "yes").output().expect("it runs");
    assert!(String::from_utf8_lossy(&output.stdout).contains("complete -o"), "{output:?}");
}

#[test]
fn the_scripts_are_printed_by_the_verb_and_by_the_variable() {
    let peer = Peer::alone("ann", &[]);
    for (shell, part) in
        [("bash", "_peer_complete peer"), ("zsh", "#compdef peer"), ("fish", "--command peer")]
    {
        let printed = peer.ok(&["completions", shell]).stdout;
        let asked = peer.command(&[]).env("COMPLETE", shell).output().expect("it runs");
        assert_eq!(printed, String::from_utf8_lossy(&asked.stdout), "{shell}");
        assert!(printed.contains(part), "{printed}");
    }
    assert!(peer.ok(&["completions", "elvish"]).stdout.contains("edit:completion"));
}

/// Completes a line in a real bash. Returns the candidates, one on each line.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn in_bash(peer: &Peer, words: &str, current: &str) -> Option<Vec<String>> {
    let program = peer.command(&[]).get_program().to_string_lossy().into_owned();
    let bin = peer.path("bin");
    fs::create_dir_all(&bin).expect("made");
    // The script runs the program by the name that stands in the line.
    let _ = std::os::unix::fs::symlink(&program, bin.join("peer"));
    let script = format!(
        "compopt() {{ :; }}; source <(peer completions bash) && COMP_WORDS=(peer {words} {current}) \
         && COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) && _peer_complete peer {current} \
         && printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let mut command = Command::new("bash");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    command.args(["--norc", "-c", &script]).current_dir(peer.path("")).stdin(Stdio::null());
    command.envs(peer.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    match command.env("PATH", path).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: bash is not installed");
            None
        }
        output => {
            let output = output.expect("it runs");
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            let text = String::from_utf8(output.stdout).expect("text");
            Some(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
        }
    }
}

#[test]
fn bash_takes_each_name_as_one_word_and_never_as_a_command() {
    let (_tracker, [ann, bob, _]) = scene();
    ann.shares("g1", HOSTILE, 1, 4);
    ann.shares("g1", "my movie.mp4", 1, 5);
    let Some(found) = in_bash(&bob, "download g1", "''") else { return };
    assert_eq!(found, [r"\$\(touch\ pwned\)\ \'x", "movie.mp4", "music.mp3", r"my\ movie.mp4"]);
    // What bash would run after the line is accepted: the same names, and nothing else.
    let line = format!("set -- {}; printf '%s\\n' \"$@\"", found.join(" "));
    let read = Command::new("bash").args(["-c", &line]).current_dir(bob.path("")).output().expect("it runs");
    let read = String::from_utf8(read.stdout).expect("text");
    assert_eq!(read.lines().collect::<Vec<_>>(), [HOSTILE, "movie.mp4", "music.mp3", "my movie.mp4"]);
    assert!(!bob.path("pwned").exists());
    assert_eq!(in_bash(&bob, "download g1", "mov").expect("as before"), ["movie.mp4"]);
    assert_eq!(in_bash(&bob, "download g1", "none").expect("as before"), Vec::<String>::new());
}

#[test]
fn a_daemon_in_the_foreground_is_asked_as_well() {
    let (_tracker, [ann, ..]) = scene();
    ann.ok(&["daemon", "stop"]);
    let (_daemon, line): (Foreground, String) = ann.daemon(&[]);
    assert!(line.starts_with("listening "), "{line}");
    completes(&ann, &["list-members", ""], &["g1", "g2"]);
}
