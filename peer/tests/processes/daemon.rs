//! There is one daemon for each home, whatever races happen. Verbs cope with daemons that are missing or in
//! the way.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{Done, Peer};

/// Nobody listens there: the system does not give out port 1.
const NO_TRACKER: [(&str, &str); 1] = [("PEER_TRACKER", "https://127.0.0.1:1")];

fn peer() -> Peer {
    Peer::alone("nobody", &NO_TRACKER)
}

#[test]
fn verbs_that_start_no_daemon_report_that_none_runs() {
    let peer = peer();
    for line in ["status", "daemon stop", "whoami --no-autostart", "list-groups --no-autostart"] {
        assert_eq!(peer.refused(10, line), "NO_DAEMON", "{line}");
    }
    let mut command = peer.command(&["whoami"]);
    let quiet = command.env("PEER_NO_AUTOSTART", "1").stderr(Stdio::null()).status().expect("the peer runs");
    assert_eq!(quiet.code(), Some(10));
    assert!(!peer.path("home").exists(), "nothing was made");
}

#[test]
fn verbs_at_once_get_one_daemon() {
    let peer = peer();
    let started = Instant::now();
    let verbs: Vec<_> = (0..20).map(|_| peer.spawn(&["whoami", "--json"])).collect();
    for verb in verbs {
        let ended = Done::since(verb, "", started);
        assert_eq!(ended.code, 4, "{ended:?}{}", peer.log());
    }
    let log = peer.log();
    assert_eq!(log.matches("listening https://").count(), 1, "{log}");
    assert!(peer.json("status")["user"].is_null());
}

#[test]
fn a_verb_says_that_it_started_a_daemon_once() {
    let peer = peer();
    let first = peer.run(&["whoami"]);
    assert!(first.stderr.contains("started a peer daemon"), "{first:?}");
    let second = peer.run(&["whoami"]);
    assert!(!second.stderr.contains("started"), "{second:?}");
    assert_eq!((first.code, second.code), (4, 4));
    peer.ok(&["daemon", "stop"]);
    peer.refused(10, "status");
}

#[test]
fn the_foreground_daemon_prints_one_line_and_ends_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let peer = peer();
        let (daemon, line) = peer.daemon(&[]);
        assert!(line.starts_with("listening https://127.0.0.1:"), "{line}");
        let status = peer.json("status");
        assert_eq!(line, format!("listening https://{}", status["listen"].as_str().expect("text")));
        let started = Instant::now();
        daemon.signal(signal);
        let (status, rest) = daemon.end();
        assert_eq!((status.code(), rest.as_str()), (Some(0), ""));
        assert!(started.elapsed() < Duration::from_secs(10));
        peer.refused(10, "status");
    }
}

#[test]
fn a_second_daemon_gives_way_at_once() {
    let peer = peer();
    let (_daemon, _) = peer.daemon(&[]);
    let second = peer.run(&["daemon"]);
    assert_eq!((second.code, second.stdout.as_str()), (6, ""), "{second:?}");
    assert!(
        second.took < Duration::from_secs(2) && second.stderr.contains("is already running"),
        "{second:?}"
    );
    assert!(peer.run(&["status"]).code == 0, "the first one is unharmed");
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let peer = peer();
    let (daemon, _) = peer.daemon(&[]);
    daemon.signal(Signal::KILL);
    daemon.end();
    peer.refused(10, "status");
    assert_eq!(peer.run(&["whoami"]).code, 4, "a new one was started");
}

#[test]
fn a_verb_waits_for_a_daemon_that_is_starting() {
    let peer = peer();
    let home = peer::home::Home::resolve(Some(peer.path("home"))).expect("no error");
    home.create().expect("made");
    let lock = home.lock().expect("no error").expect("free");
    let started = Instant::now();
    let verb = peer.spawn(&["status"]);
    std::thread::scope(|scope| {
        let verb = scope.spawn(|| Done::since(verb, "", started));
        // The verb can't end while the lock is held. This waits for a while and checks that it does not.
        while started.elapsed() < Duration::from_millis(500) {
            assert!(!verb.is_finished());
            std::thread::yield_now();
        }
        drop(lock);
        assert_eq!(verb.join().expect("no panic").code, 10, "the lock is free, and nobody came");
    });
}

#[test]
fn a_long_home_works_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let home = directory.path().join("long".repeat(40));
    let peer = Peer::alone("nobody", &[NO_TRACKER[0], ("PEER_HOME", &home.display().to_string())]);
    let (_daemon, _) = peer.daemon(&[]);
    assert_eq!(peer.run(&["whoami"]).code, 4);
}

#[test]
fn a_missing_tracker_is_reported_soon_and_differs_from_a_missing_login() {
    let peer = Peer::alone("nobody", &[("PEER_TRACKER", "https://127.0.0.1:1"), ("PEER_CA", "missing.pem")]);
    for verb in ["create-user", "login"] {
        let ended = peer.with_password(&[verb, "user1", "--json"], "a good password\n");
        assert_eq!(ended.code, 7, "{ended:?}");
        assert!(
            ended.took < Duration::from_secs(20) && ended.stderr.contains("TRACKER_UNREACHABLE"),
            "{ended:?}"
        );
    }
    assert_eq!(peer.refused(4, "list-groups"), "NOT_LOGGED_IN");
    assert_eq!(peer.refused(4, "logout"), "NOT_LOGGED_IN");
    assert_eq!(peer.refused(4, "show-downloads"), "NOT_LOGGED_IN");
}

#[test]
fn another_tracker_is_a_conflict() {
    let peer = peer();
    let (_daemon, _) = peer.daemon(&[]);
    assert_eq!(peer.refused(6, "list-groups --tracker https://127.0.0.1:2"), "ANOTHER_TRACKER");
    assert_eq!(peer.refused(6, "whoami --tracker https://127.0.0.1:2"), "ANOTHER_TRACKER");
    assert_eq!(
        peer.run(&["whoami", "--tracker", "https://127.0.0.1:1/"]).code,
        4,
        "the same, spelled otherwise"
    );
}

#[test]
fn invalid_settings_and_lines_are_reported_at_once() {
    let peer = peer();
    for line in [
        "daemon --listen here",
        "daemon --upload-limit -1",
        "daemon --metrics 1.2.3.4",
        "whoami --timeout soon",
        "whoami --tracker ftp://x",
        "list-groups --what",
        "limit --up fast",
        "create-user user1 secret-on-the-line",
    ] {
        let ended = peer.line(&format!("{line} --json"));
        assert_eq!(ended.code, 2, "{line}: {ended:?}");
        assert!(
            ended
                .stderr
                .lines()
                .last()
                .unwrap_or_default()
                .starts_with("{\"error\":{\"code\":\"INVALID_ARGUMENT\""),
            "{line}: {ended:?}"
        );
    }
    let mut command = peer.command(&["list-groups", "--what"]);
    let ended = Done::from(command.env("PEER_JSON", "1").output().expect("the peer runs"));
    assert_eq!((ended.code, ended.reason().as_str()), (2, "USAGE"), "{ended:?}");
    std::fs::create_dir_all(peer.path("home")).expect("no error");
    std::fs::write(peer.path("home/config.toml"), "colour = 'red'").expect("written");
    let ended = peer.run(&["daemon"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.took < Duration::from_secs(1) && ended.stderr.contains("colour"), "{ended:?}");
}

#[test]
fn settings_are_shown_with_where_they_came_from() {
    let peer = peer();
    std::fs::create_dir_all(peer.path("home")).expect("no error");
    std::fs::write(peer.path("home/config.toml"), "upload_limit = '5K'").expect("written");
    let shown = peer.json("config show --timeout 9")["settings"].clone();
    let origin = |name: &str| shown[name]["origin"].as_str().unwrap_or_default().to_owned();
    assert_eq!((origin("timeout"), origin("json")), ("flag".into(), "flag".into()));
    assert_eq!((origin("home"), origin("listen")), ("environment".into(), "environment".into()));
    assert_eq!((origin("upload_limit"), origin("config")), ("file".into(), "default".into()));
    assert_eq!(shown["home"]["value"], peer.path("home").display().to_string());
}

#[test]
fn a_port_in_use_is_reported() {
    let peer = peer();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("no error");
    let address = taken.local_addr().expect("bound").to_string();
    let ended = peer.line(&format!("daemon --listen {address}"));
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.stderr.contains(&address), "{ended:?}");
    let mut command = peer.command(&["whoami"]);
    let ended = Done::from(command.env("PEER_LISTEN", &address).output().expect("the peer runs"));
    assert!(
        ended.code == 1 && ended.stderr.contains(&address),
        "the verb tells why its daemon did not start: {ended:?}"
    );
}

#[test]
fn the_files_of_a_home_are_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let peer = peer();
    let (_daemon, _) = peer.daemon(&[]);
    let mode =
        |path: &str| std::fs::metadata(peer.path(path)).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(
        (mode("home/run"), mode("home/run/daemon.sock"), mode("home/daemon.lock")),
        (0o700, 0o600, 0o600)
    );
}

#[test]
fn metrics_are_served_at_the_configured_address() {
    use std::io::{Read as _, Write as _};
    let env = [NO_TRACKER[0], ("PEER_METRICS", "127.0.0.1:0")];
    let peer = Peer::alone("nobody", &env);
    peer.run(&["whoami"]);
    let log = peer.log();
    let (_, address) = log.split_once("metrics at http://").unwrap_or_else(|| panic!("{log}"));
    let address = address.split('/').next().unwrap_or_default();
    let mut socket = std::net::TcpStream::connect(address).expect("no error");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("no error");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("no error");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK") && answer.contains("minitorrent_peer_uploaded_bytes_total 0"),
        "{answer}"
    );
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let peer = peer();
    let mut verb = peer.spawn(&["man"]);
    drop(verb.stdout.take());
    let ended = Done::since(verb, "", Instant::now());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn hash_is_offline_and_knows_the_classic_string() {
    let peer = peer();
    std::fs::write(peer.path("two"), vec![0u8; 1 << 20]).expect("written");
    let hash = peer.json("hash two");
    // SHA-1 of 524,288 zero bytes.
    let piece = "6a521e1d2a632c26e53b83d2cc4b0edecfc1e68c";
    assert_eq!(hash["pieces"], serde_json::json!([piece, piece]));
    assert_eq!(hash["hash_string"], format!("{0}{0}", &piece[..20]));
    assert_eq!((&hash["size"], &hash["piece_count"]), (&(1 << 20).into(), &2.into()));
    assert_eq!(peer.refused(3, "hash absent"), "PATH_NOT_FOUND");
    assert!(!peer.path("home").exists(), "no daemon was started");
}

#[test]
fn the_shell_takes_lines_until_its_end() {
    let peer = peer();
    let ended = peer.run_with(&["shell", "--json"], "# nothing\nwhoami\nlist_groups\n");
    assert_eq!(ended.code, 4, "as its last line: {ended:?}");
    assert_eq!(ended.stderr.matches("NOT_LOGGED_IN").count(), 2, "{ended:?}");
    let ended = peer.run_with(&["shell"], "config show\nexit\nwhoami\n");
    assert!(ended.code == 0 && ended.stdout.contains("https://127.0.0.1:1"), "{ended:?}");
}
