//! Observability for an operator of a tracker or a peer: metrics, one request id in all logs, and the results
//! of `doctor`.

use std::{
    collections::{BTreeSet, HashSet},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
};

use serde_json::Value;

use crate::support::{MIB, Peer, Tracker, wait_for};

/// Fetches the metrics of a process from the address in its log.
fn scrape(log: &str) -> String {
    let (_, address) = log.split_once("metrics at http://").unwrap_or_else(|| panic!("{log}"));
    let mut socket = TcpStream::connect(address.split('/').next().unwrap_or_default()).expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("written");
    let mut page = String::new();
    socket.read_to_string(&mut page).expect("a page");
    page
}

/// Returns the names of all metrics in a text, without the suffixes that their types add.
fn names(text: &str) -> BTreeSet<String> {
    let found = text.match_indices("minitorrent_").map(|(at, _)| {
        let name: String =
            text[at..].chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
        let suffixes = ["_total", "_bucket", "_sum", "_count"];
        suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name).to_owned()
    });
    found.collect()
}

#[test]
fn every_metric_is_there_and_the_dashboard_shows_no_other() {
    let tracker = Tracker::start_with(&[("TRACKER_METRICS", "127.0.0.1:0")]);
    let ann = tracker.user_with("ann", &[("PEER_METRICS", "127.0.0.1:0")]);
    tracker.group("g1", &[&ann]);
    ann.shares("g1", "data", MIB, 1);
    let page = wait_for("the share is announced, and counted", || {
        let page = scrape(&tracker.log());
        page.contains("minitorrent_tracker_leases 1\n").then_some(page)
    });
    let there = names(&(page + &scrape(&ann.log())));
    for name in [
        "tracker_calls",
        "tracker_call_seconds",
        "tracker_sessions",
        "tracker_hashing",
        "tracker_announce_seconds",
        "tracker_leases",
        "tracker_store_writable",
        "tracker_failures",
        "peer_upload_rate",
        "peer_download_rate",
        "peer_uploaded_bytes",
        "peer_downloaded_bytes",
        "peer_pieces_verified",
        "peer_pieces_bad",
        "peer_sources",
        "peer_uploads_active",
        "peer_uploads_waiting",
        "peer_shares",
    ] {
        assert!(there.contains(&format!("minitorrent_{name}")), "{name} is missing: {there:?}");
    }
    let dashboard = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracker-svc/dist/grafana.json");
    let dashboard = names(&std::fs::read_to_string(dashboard).expect("it is there"));
    assert!(dashboard.len() > 10);
    let unknown: Vec<_> = dashboard.difference(&there).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// Returns the request ids of the calls of a method in a JSON log.
fn ids(log: &str, method: &str) -> HashSet<String> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let spans = lines.flat_map(|line| line["spans"].as_array().cloned().unwrap_or_default());
    let calls = spans.filter(|span| span["path"].as_str().is_some_and(|path| path.ends_with(method)));
    calls.filter_map(|call| call["id"].as_str().map(str::to_owned)).collect()
}

#[test]
fn one_id_follows_a_verb_through_all_logs() {
    let logs = [("TRACKER_LOG", "info,transport=debug"), ("TRACKER_LOG_FORMAT", "json")];
    let tracker = Tracker::start_with(&logs);
    let logs = [("PEER_LOG", "info,transport=debug"), ("PEER_LOG_FORMAT", "json")];
    let (ann, bob) = (tracker.user_with("ann", &logs), tracker.user_with("bob", &logs));
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 2);
    bob.ok(&["download", "g1", "data", "out/"]);
    let id = wait_for("the verb's id is in three logs", || {
        let verb = ids(&bob.log(), "ControlService/Download");
        let asked = ids(&tracker.log(), "FileService/GetManifest");
        let served = ids(&ann.log(), "PeerService/GetChunk");
        verb.into_iter().find(|id| asked.contains(id) && served.contains(id))
    });
    assert!(id.len() >= 16, "{id}");
}

/// Returns the doctor's finding and message for one check.
fn finding(peer: &Peer, name: &str) -> (String, String) {
    let done = peer.run(&["doctor", "--json"]);
    let checks = done.json()["checks"].clone();
    let found = checks.as_array().and_then(|checks| checks.iter().find(|check| check["name"] == name));
    let found = found.unwrap_or_else(|| panic!("no check of {name}: {checks}"));
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    let result = text("result");
    // The exit code also tells when something does not work.
    assert!(result != "bad" || done.code == 1, "{done:?}");
    (result, text("message"))
}

#[test]
fn the_doctor_names_a_tracker_that_is_down_and_a_login_that_is_missing() {
    let mut tracker = Tracker::start();
    let ann = Peer::new(&tracker, "ann", &[]);
    ann.run(&["whoami"]);
    let (result, message) = finding(&ann, "session");
    assert_eq!(result, "bad");
    assert!(message.contains("peer login"), "{message}");
    assert_eq!(finding(&ann, "tracker").0, "ok");
    tracker.kill();
    let (result, message) = finding(&ann, "tracker");
    assert_eq!(result, "bad");
    assert!(message.contains(tracker.url()) && message.contains("running"), "{message}");
}

#[test]
fn the_doctor_names_a_wrong_ca() {
    let (tracker, other) = (Tracker::start(), Tracker::start());
    let ann = Peer::alone(
        "ann",
        &[("PEER_TRACKER", tracker.url()), ("PEER_CA", &other.ca().display().to_string())],
    );
    ann.run(&["whoami"]);
    let (result, message) = finding(&ann, "tracker");
    assert_eq!(result, "bad");
    assert!(message.contains("CA"), "{message}");
    let missing = Peer::alone("ann", &[("PEER_TRACKER", tracker.url()), ("PEER_CA", "/nonexistent")]);
    missing.run(&["whoami"]);
    let (result, message) = finding(&missing, "authority");
    assert_eq!(result, "bad");
    assert!(message.contains("/nonexistent"), "{message}");
}

#[test]
fn the_doctor_names_a_port_that_nobody_reaches() {
    let tracker = Tracker::start();
    // Nothing listens there: the port was free a moment ago, and this peer has another one.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let ann = tracker.user_with("ann", &[("PEER_ADVERTISE", &free.to_string())]);
    let (result, message) = finding(&ann, "port");
    assert_eq!(result, "warning");
    assert!(message.contains(&free.to_string()) && message.contains("--advertise"), "{message}");
}

#[test]
fn a_service_manager_is_notified_of_start_and_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(std::time::Duration::from_secs(10))).expect("a timeout");
    let heard = || {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let peer = Peer::alone("nobody", &[("NOTIFY_SOCKET", &path.display().to_string())]);
    let (daemon, _) = peer.daemon(&[]);
    assert_eq!(heard(), "READY=1");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(heard(), "STOPPING=1");
    assert!(daemon.end().0.success());
}
