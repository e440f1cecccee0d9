//! A daemon is found, told apart from others, and ended, also where its socket does not help.

use std::{
    fs,
    os::unix::fs::symlink,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Done, MIB, Peer, Tracker, wait_for};

const NO_TRACKER: (&str, &str) = ("PEER_TRACKER", "https://127.0.0.1:1");

fn peer() -> Peer {
    Peer::alone("nobody", &[NO_TRACKER])
}

fn send(pid: u64, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("it is there");
}

#[test]
fn the_lock_file_names_the_daemon_and_its_socket() {
    let peer = peer();
    let (daemon, _) = peer.daemon(&[]);
    let told = fs::read_to_string(peer.path("home/daemon.lock")).expect("it is there");
    let socket = peer.path("home/run/daemon.sock");
    assert_eq!(told, format!("pid {}\nphase serving\nsocket {}\n", daemon.id(), socket.display()));
    let second = peer.fails(6, &["daemon"]);
    assert!(second.stderr.contains(&format!("(pid {})", daemon.id())), "{second:?}");
}

#[test]
fn a_home_that_is_spelled_otherwise_has_the_same_daemon() {
    let directory = tempfile::tempdir().expect("a directory");
    let long = directory.path().join("long".repeat(40));
    let link = directory.path().join("link");
    fs::create_dir(&long).expect("made");
    symlink(&long, &link).expect("linked");
    let peer = Peer::alone("nobody", &[NO_TRACKER, ("PEER_HOME", &long.display().to_string())]);
    let (daemon, _) = peer.daemon(&[]);
    let status = peer.json(&format!("status --home {}", link.display()));
    assert_eq!(status["pid"], daemon.id());
}

#[test]
fn a_daemon_with_another_runtime_directory_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path().join("long".repeat(40)).display().to_string();
    let runtime = directory.path().join("run");
    fs::create_dir(&runtime).expect("made");
    let mut peer = Peer::alone("nobody", &[NO_TRACKER, ("PEER_HOME", &home), ("XDG_RUNTIME_DIR", "")]);
    let mut command = peer.command(&["daemon"]);
    command.env("XDG_RUNTIME_DIR", &runtime);
    let (daemon, _) = crate::support::Foreground::start(command);
    // A verb of cron has no runtime directory.
    peer.set("XDG_RUNTIME_DIR", "");
    assert_eq!(peer.json("status")["pid"], daemon.id());
}

#[test]
fn a_deleted_socket_is_made_again() {
    let peer = peer();
    let (daemon, _) = peer.daemon(&[]);
    let run = peer.path("home/run");
    for remove in [fs::remove_file(run.join("daemon.sock")), fs::remove_dir_all(&run)] {
        remove.expect("removed");
        assert_eq!(peer.json("status")["pid"], daemon.id());
    }
    peer.ok(&["daemon", "stop"]);
    let (status, _) = daemon.end();
    assert_eq!(status.code(), Some(0));
    assert!(!run.join("daemon.sock").exists());
}

#[test]
fn a_suspended_daemon_is_named_at_once_and_can_be_stopped() {
    let peer = peer();
    let (daemon, _) = peer.daemon(&[]);
    daemon.signal(Signal::STOP);
    let stat = format!("/proc/{}/stat", daemon.id());
    wait_for("it is suspended", || fs::read_to_string(&stat).ok()?.contains(") T").then_some(()));
    for line in ["status", "whoami", "list-groups"] {
        let done = peer.fails(10, &[line]);
        assert!(done.took < Duration::from_secs(5), "{done:?}");
        assert!(done.stderr.contains(&format!("pid {}", daemon.id())), "{done:?}");
        assert!(done.stderr.contains("suspended") && done.stderr.contains("kill -CONT"), "{done:?}");
    }
    peer.ok(&["daemon", "stop"]);
    assert!(daemon.end().0.code().is_some());
    peer.refused(10, "status");
}

#[test]
fn a_daemon_without_a_socket_is_named_and_is_stopped_by_its_pid() {
    let peer = peer();
    let (daemon, _) = peer.daemon(&[]);
    // A directory in the place of the socket can't be removed by the daemon.
    let socket = peer.path("home/run/daemon.sock");
    fs::remove_file(&socket).expect("removed");
    fs::create_dir_all(socket.join("in the way")).expect("made");
    let done = peer.fails(10, &["status"]);
    assert!(done.took < Duration::from_secs(5), "{done:?}");
    let place = socket.display().to_string();
    for part in [format!("pid {}", daemon.id()), place, "daemon stop".to_owned()] {
        assert!(done.stderr.contains(&part), "{part}: {done:?}");
    }
    let stopped = peer.json("daemon stop");
    assert_eq!(stopped["by_pid"], true);
    assert_eq!(daemon.end().0.code(), Some(0), "it was asked before it would have been killed");
}

#[test]
fn a_pid_in_the_lock_file_is_never_believed() {
    let peer = peer();
    let mut bystander = Command::new("sleep").arg("600").spawn().expect("it runs");
    fs::create_dir(peer.path("home")).expect("made");
    let text = format!("pid {}\nphase serving\nsocket /nowhere\n", bystander.id());
    fs::write(peer.path("home/daemon.lock"), text).expect("written");
    peer.refused(10, "daemon stop");
    assert!(bystander.try_wait().expect("a child").is_none(), "it was hit");
    bystander.kill().expect("killed");
    bystander.wait().expect("a child");
}

#[test]
fn verbs_that_need_no_path_work_in_a_deleted_directory() {
    let peer = peer();
    let (_daemon, _) = peer.daemon(&[]);
    let run = |line: &str| {
        let gone = peer.path("gone");
        fs::create_dir(&gone).expect("made");
        let mut command = Command::new("sh");
        let script = "rmdir \"$PWD\" && exec \"$@\"";
        let verb = peer.command(&line.split(' ').collect::<Vec<_>>());
        command.args(["-c", script, "sh"]).arg(verb.get_program()).args(verb.get_args());
        command.envs(verb.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PEER_HOME", peer.path("home"));
        Done::from(command.current_dir(&gone).stdin(Stdio::null()).output().expect("it runs"))
    };
    assert_eq!(run("status").code, 0);
    assert_eq!(run("config show").code, 0);
    for line in ["upload file g1", "download g1 file .", "hash file", "status --home h"] {
        let done = run(line);
        assert_eq!(done.code, 3, "{line}: {done:?}");
        assert!(done.stderr.contains("deleted") || line.starts_with("hash"), "{line}: {done:?}");
    }
}

#[test]
fn a_verb_whose_daemon_dies_says_how_to_go_on() {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "1MiB")]), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", 12 * MIB, 1);
    let started = Instant::now();
    let verb = bob.spawn(&["download", "g1", "data", "out/"]);
    bob.waits_until_midway("g1", "data", 1);
    send(bob.daemon_pid().expect("it runs"), Signal::KILL);
    let done = Done::since(verb, "", started);
    assert_eq!(done.code, 10, "{done:?}");
    assert!(done.stderr.contains("repeat the command to continue"), "{done:?}");
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "data", "out/"]);
}
