//! What a daemon takes over from the verb that started it, and what it leaves.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{Done, MIB, Peer, Tracker};

/// Runs a verb in a shell that has run `before` first.
fn run_after(peer: &Peer, before: &str, args: &[&str]) -> Done {
    let verb = peer.command(args);
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{before}\nexec \"$@\""), "bash"]);
    command.arg(verb.get_program()).args(verb.get_args());
    command.envs(verb.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Done::from(command.current_dir(peer.path("")).stdin(Stdio::null()).output().expect("it runs"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

/// Returns a line of a file in `/proc` of the peer's daemon.
fn line(peer: &Peer, file: &str, beginning: &str) -> String {
    let pid = peer.daemon_pid().expect("a daemon runs");
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it runs");
    text.lines().find(|line| line.starts_with(beginning)).expect("the line").to_owned()
}

#[test]
fn a_daemon_keeps_nothing_of_the_verb_that_started_it() {
    let peer = Peer::alone("nobody", &[("PEER_TRACKER", "https://127.0.0.1:1")]);
    let before = "exec 7>held; exec 9>held; umask 002; ulimit -S -n 300; ulimit -S -f 4096; ulimit -S -t 9\n\
                  export AWS_SECRET_ACCESS_KEY=hidden PEER_PASSWORD_FILE=/dev/null PEER_LOG=debug";
    let done = run_after(&peer, before, &["whoami"]);
    assert_eq!(done.code, 4, "{done:?}");
    let pid = peer.daemon_pid().expect("it runs");
    let held = peer.path("held");
    for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs") {
        let path = descriptor.expect("listed").path();
        assert!(fs::read_link(&path).ok().is_none_or(|open| open != held), "{path:?} is the caller's");
    }
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let environment = String::from_utf8_lossy(&environment);
    assert!(!environment.contains("hidden") && !environment.contains("PEER_PASSWORD_FILE"), "{environment}");
    assert!(environment.contains("PEER_LOG=debug"), "{environment}");
    assert_eq!(line(&peer, "status", "Umask:"), "Umask:\t0077");
    for limit in ["Max open files", "Max file size", "Max cpu time"] {
        let line = line(&peer, "limits", limit);
        let values: Vec<&str> = line[limit.len()..].split_whitespace().collect();
        assert_eq!(values[0], values[1], "{line}");
    }
}

#[test]
fn a_daemon_takes_its_priority_back_or_says_that_it_cannot() {
    let peer = Peer::alone("nobody", &[("PEER_TRACKER", "https://127.0.0.1:1")]);
    assert_eq!(run_after(&peer, "renice -n 7 -p $$ > /dev/null", &["whoami"]).code, 4);
    let pid = peer.daemon_pid().expect("it runs");
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let nice = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(16)).expect("a number");
    assert!(nice == "0" || peer.log().contains("nice value"), "{nice}: {}", peer.log());
}

#[test]
fn a_download_has_the_permissions_of_its_caller() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    for name in ["one", "two", "three"] {
        ann.shares("g1", name, MIB, 1);
    }
    let team = bob.path("team");
    fs::create_dir(&team).expect("made");
    fs::set_permissions(&team, fs::Permissions::from_mode(0o2775)).expect("ours");
    for (umask, name, file, directory) in
        [("077", "one", 0o600, 0o2700), ("002", "two", 0o664, 0o2775), ("022", "three", 0o644, 0o2755)]
    {
        let place = format!("team/{name}/deep/");
        let done = run_after(&bob, &format!("umask {umask}"), &["download", "g1", name, &place]);
        assert_eq!(done.code, 0, "{done:?}");
        let made = team.join(name);
        assert_eq!(mode(&made.join("deep").join(name)), file, "umask {umask}");
        assert_eq!((mode(&made), mode(&made.join("deep"))), (directory, directory), "umask {umask}");
    }
    // A second place, which gets a copy.
    assert_eq!(run_after(&bob, "umask 027", &["download", "g1", "one", "copy"]).code, 0);
    assert_eq!(mode(&bob.path("copy")), 0o640);
}

#[test]
fn a_resumed_download_has_the_permissions_of_the_caller_that_began_it() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "1MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 4 * MIB, 1);
    let done = run_after(&bob, "umask 002", &["download", "g1", "data", "out/", "-d"]);
    assert_eq!(done.code, 0, "{done:?}");
    bob.waits_until_midway("g1", "data", 1);
    bob.ok(&["daemon", "stop"]);
    ann.ok(&["limit", "--up", "0"]);
    assert_eq!(run_after(&bob, "umask 077", &["whoami"]).code, 0);
    bob.waits_until_complete("g1", "data");
    assert_eq!(mode(&bob.path("out/data")), 0o664);
}
