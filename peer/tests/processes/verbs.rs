//! Verbs against a real tracker: their effects, their output, and their exit codes.

use std::{fs, time::Instant};

use crate::support::{Done, MIB, PASSWORD, Peer, Tracker, assert_same, make_file, wait_for};

/// A tracker, and two users in group g1, which the first owns.
fn stage() -> (Tracker, Peer, Peer) {
    let tracker = Tracker::start();
    let (ann, bob) = (tracker.user("ann"), tracker.user("bob"));
    tracker.group("g1", &[&ann, &bob]);
    (tracker, ann, bob)
}

fn seeders(peer: &Peer) -> u64 {
    peer.json("list-files g1")["files"][0]["seeders"].as_u64().expect("a number")
}

fn seed(what: &str, peer: &Peer, expected: u64) {
    wait_for(what, || (seeders(peer) == expected).then_some(()));
}

#[test]
fn groups_from_beginning_to_end() {
    let (tracker, ann, bob) = stage();
    assert_eq!(ann.refused(6, "create-group g1"), "ALREADY_EXISTS");
    assert_eq!(bob.refused(6, "join-group g1"), "ALREADY_ASKED");
    assert_eq!(bob.refused(3, "join-group nowhere"), "GROUP_NOT_FOUND");
    assert_eq!(bob.refused(5, "list-requests g1"), "NOT_THE_OWNER");
    assert_eq!(bob.refused(5, "list-files nowhere"), "NOT_A_MEMBER");
    ann.ok(&["accept-request", "g1", "bob"]);
    assert_eq!(ann.refused(6, "accept-request g1 nobody"), "NO_SUCH_REQUEST");
    assert_eq!(ann.refused(2, "create-group a/b"), "INVALID_NAME");
    let members = ann.json("list-members g1")["members"].clone();
    let role = |at: usize| (members[at]["user"].clone(), members[at]["role"].clone());
    assert_eq!(role(0), ("ann".into(), "owner".into()));
    assert_eq!(role(1), ("bob".into(), "member".into()));
    let group = bob.json("list-groups --mine")["groups"][0].clone();
    assert_eq!(
        (&group["id"], &group["standing"], &group["members"]),
        (&"g1".into(), &"member".into(), &2.into())
    );

    let cat = tracker.user("cat");
    cat.ok(&["join_group", "g1"]);
    assert_eq!(ann.json("requests list_requests g1")["requests"][0]["user"], "cat");
    ann.ok(&["reject_request", "g1", "cat"]);
    cat.ok(&["join_group", "g1"]);
    ann.ok(&["accept_request", "g1", "cat"]);
    ann.ok(&["remove-member", "g1", "cat"]);
    assert_eq!(cat.refused(5, "list-files g1"), "NOT_A_MEMBER");
    ann.ok(&["transfer-group", "g1", "bob"]);
    ann.ok(&["leave_group", "g1"]);
    assert_eq!(bob.json("list-members g1")["members"].as_array().map(Vec::len), Some(1));
    bob.ok(&["delete-group", "g1"]);
    assert_eq!(bob.json("list_groups")["groups"], serde_json::json!([]));
}

#[test]
fn joining_can_wait_for_its_answer() {
    let (tracker, ann, _bob) = stage();
    let cat = tracker.user("cat");
    let waiting = cat.spawn(&["join-group", "g1", "--wait", "--json"]);
    wait_for("the request", || ann.json("list-requests g1")["requests"][0]["user"].as_str().map(drop));
    ann.ok(&["accept-request", "g1", "cat"]);
    let done = Done::since(waiting, "", Instant::now());
    assert_eq!((done.code, &done.json()["standing"]), (0, &"member".into()), "{done:?}");
}

#[test]
fn sessions() {
    let (_tracker, ann, _bob) = stage();
    let wrong = ann.with_password(&["login", "ann", "--json"], "not the password\n");
    assert_eq!((wrong.code, wrong.reason().as_str()), (4, "BAD_CREDENTIALS"));
    assert_eq!(ann.ok(&["whoami"]).stdout, "ann\n", "a failed login changes nothing");
    ann.ok_with_password(&["login", "ann"]);
    let other = ann.with_password(&["login", "bob", "--json"], PASSWORD);
    assert_eq!((other.code, other.reason().as_str()), (6, "LOGGED_IN_AS_ANOTHER"));

    ann.ok(&["daemon", "stop"]);
    assert_eq!(ann.json("whoami")["user"], "ann", "the session survives a restart");
    let fresh = "another good one\n";
    assert_eq!(ann.with_password(&["change-password"], &format!("{PASSWORD}{fresh}")).code, 0);
    ann.ok(&["list-groups"]);
    ann.ok(&["logout"]);
    assert_eq!(ann.refused(4, "whoami"), "NOT_LOGGED_IN");
    assert_eq!(ann.with_password(&["login", "ann"], PASSWORD).code, 4, "the old password is void");
    assert_eq!(ann.with_password(&["login", "ann"], fresh).code, 0);
    assert_eq!(ann.with_password(&["create-user", "dan"], "short\n").code, 2);
}

#[test]
fn names_sizes_and_places() {
    let (_tracker, ann, bob) = stage();
    make_file(&ann.path("one-byte-more"), 524_289, 7);
    ann.ok(&["upload", "one-byte-more", "g1", "--name", "renamed"]);
    bob.ok(&["download", "g1", "renamed", "film", "--verify", "--sequential"]);
    assert_same(&ann.path("one-byte-more"), &bob.path("film"));

    // If the same content is uploaded under that name again, there is one more seeder. Other content is a
    // conflict.
    fs::copy(bob.path("film"), bob.path("copy")).expect("copied");
    assert_eq!(bob.json("upload copy g1 --name renamed")["already_published"], true);
    fs::write(bob.path("other"), b"other").expect("written");
    assert_eq!(bob.refused(6, "upload other g1 --name renamed"), "ALREADY_EXISTS");

    assert_eq!(ann.refused(3, "upload absent g1"), "PATH_NOT_FOUND");
    assert_eq!(ann.refused(3, "upload /dev/zero g1"), "PATH_NOT_FOUND");
    assert_eq!(ann.refused(5, "upload one-byte-more nowhere"), "NOT_A_MEMBER");
    assert_eq!(bob.refused(3, "download g1 absent ./out/"), "FILE_NOT_FOUND");
    assert_eq!(bob.refused(5, "download nowhere renamed ./out/"), "NOT_A_MEMBER");
    assert!(!bob.path("out").exists(), "nothing is made before the tracker agrees");
    ann.shares("g1", "small", 10, 8);
    assert_eq!(bob.refused(3, "download g1 small ./missing/deep"), "PATH_NOT_FOUND");
    assert_eq!(bob.refused(2, "download g1 ../small ./out/"), "INVALID_NAME");
    assert_eq!(bob.refused(5, "unpublish g1 renamed"), "NOT_THE_OWNER");
    ann.ok(&["unpublish", "g1", "renamed"]);
    assert_eq!(ann.refused(3, "download g1 renamed ./new"), "FILE_NOT_FOUND");
}

#[test]
fn a_download_outlives_its_verb_and_its_daemon() {
    let (_tracker, ann, bob) = stage();
    let original = ann.shares("g1", "movie.mp4", 3 * MIB, 1);
    ann.ok(&["daemon", "stop"]);
    assert_eq!(bob.refused(8, "download g1 movie.mp4 out/ --timeout 2"), "NO_SOURCE");
    let state = bob.download("g1", "movie.mp4").expect("it stays in the daemon")["state"].clone();
    assert!(["stalled", "downloading", "queued"].contains(&state.as_str().unwrap_or_default()), "{state}");
    // The download is attached to, stopped and resumed, and the daemon is restarted in between.
    bob.starts("g1", "movie.mp4");
    assert_eq!(bob.refused(6, "download g1 movie.mp4 elsewhere/"), "DESTINATION_EXISTS");
    bob.ok(&["stop-download", "g1", "movie.mp4"]);
    bob.ok(&["daemon", "stop"]);
    assert_eq!(bob.download("g1", "movie.mp4").expect("it is kept")["state"], "stopped");
    bob.ok(&["resume-download", "g1", "movie.mp4"]);
    bob.ok(&["daemon", "stop"]);
    bob.ok(&["whoami"]);
    // The verb starts ann's daemon, which resumes its share by itself.
    ann.ok(&["whoami"]);
    bob.ok(&["download", "g1", "movie.mp4", "out/"]);
    assert_same(&original, &bob.path("out/movie.mp4"));
    assert_eq!(bob.refused(6, "stop-download g1 movie.mp4"), "ALREADY_EXISTS");
    assert_eq!(bob.refused(3, "stop-download g1 absent"), "DOWNLOAD_NOT_FOUND");
}

#[test]
fn a_verb_that_gives_up_leaves_its_download_running() {
    let (_tracker, ann, bob) = stage();
    let original = ann.shares("g1", "movie.mp4", 12 * MIB, 1);
    ann.ok(&["limit", "--up", "2MiB"]);
    let waiting = bob.spawn(&["download", "g1", "movie.mp4", "out/", "--json"]);
    bob.waits_until_midway("g1", "movie.mp4", MIB as u64);
    let pid = rustix::process::Pid::from_child(&waiting);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it can be signalled");
    let ended = Done::since(waiting, "", Instant::now());
    assert_eq!((ended.code, ended.reason().as_str()), (130, "INTERRUPTED"), "{ended:?}");
    assert_eq!(bob.refused(124, "download g1 movie.mp4 out/ --timeout 0.5"), "TIMED_OUT");
    let running = bob.download("g1", "movie.mp4").expect("it stays in the daemon");
    assert_eq!(running["state"], "downloading");
    bob.ok(&["stop-download", "g1", "movie.mp4"]);

    ann.shares("g1", "other.mp4", 12 * MIB, 2);
    let waiting = bob.spawn(&["download", "g1", "other.mp4", "out/", "--json"]);
    bob.waits_until_midway("g1", "other.mp4", MIB as u64);
    bob.ok(&["stop-download", "g1", "other.mp4"]);
    let ended = Done::since(waiting, "", Instant::now());
    assert_eq!((ended.code, ended.reason().as_str()), (12, "STOPPED"), "{ended:?}");
    ann.ok(&["limit", "--up", "0"]);
    bob.ok(&["download", "g1", "movie.mp4", "out/"]);
    assert_same(&original, &bob.path("out/movie.mp4"));
}

#[test]
fn a_stopped_share_is_no_longer_served() {
    let (_tracker, ann, bob) = stage();
    ann.shares("g1", "movie.mp4", 2 * MIB, 1);
    assert_eq!(ann.json("list-shares")["shares"][0]["done_bytes"], 2 * MIB);
    bob.ok(&["download", "g1", "movie.mp4", "out/"]);
    seed("two seed", &ann, 2);
    bob.ok(&["stop-share", "g1", "movie.mp4"]);
    assert_eq!(bob.json("list-shares")["shares"], serde_json::json!([]));
    assert_eq!(bob.refused(3, "stop-share g1 movie.mp4"), "NOT_SHARED");
    seed("one seeds", &ann, 1);
    assert!(bob.path("out/movie.mp4").exists(), "the file stays");
    assert_eq!(bob.download("g1", "movie.mp4").expect("it stays listed")["state"], "complete");
}

#[test]
fn a_peer_reports_a_missing_tracker_and_keeps_running() {
    let (mut tracker, ann, bob) = stage();
    ann.shares("g1", "movie.mp4", 2 * MIB, 1);
    tracker.kill();
    assert_eq!(bob.refused(7, "list-groups"), "TRACKER_UNREACHABLE");
    assert_eq!(bob.refused(7, "download g1 movie.mp4 out/"), "TRACKER_UNREACHABLE");
    assert_eq!(bob.ok(&["whoami"]).stdout, "bob\n");
    assert_eq!(ann.json("list-shares")["shares"][0]["name"], "movie.mp4");
    assert_eq!(bob.json("logout")["tracker_unreachable"], true);
    assert!(!bob.path("home/session.json").exists(), "forgotten all the same");
    tracker.start_again();
    bob.ok_with_password(&["login", "bob"]);
    bob.ok(&["download", "g1", "movie.mp4", "out/"]);
}

#[test]
fn the_shell_takes_the_old_spellings() {
    let (_tracker, ann, bob) = stage();
    make_file(&ann.path("my movie.mp4"), MIB, 1);
    let password = PASSWORD.trim();
    let done = ann.shell(&[
        "create_group 'old group'",
        "upload_file 'my movie.mp4' 'old group'",
        "list_files 'old group'",
        "show_downloads",
    ]);
    assert!(done.code == 0 && done.stdout.contains("my movie.mp4"), "{done:?}");
    let done = bob.shell(&[
        "logout",
        &format!("create_user cat '{password}'"),
        &format!("login cat '{password}'"),
        "join_group 'old group'",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    let done = ann.shell(&["requests list_requests 'old group'", "accept_request 'old group' cat"]);
    assert!(done.code == 0 && done.stdout.contains("cat"), "{done:?}");
    let done = bob.shell(&[
        "download_file 'old group' 'my movie.mp4' ./",
        "stop_share 'old group' 'my movie.mp4'",
        "logout",
    ]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_same(&ann.path("my movie.mp4"), &bob.path("my movie.mp4"));
}

#[test]
fn a_fingerprint_is_as_good_as_the_file() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let pem = fs::read_to_string(tracker.ca()).expect("the authority");
    let print = transport::fingerprints(&pem).expect("a certificate")[0].to_string();
    let with =
        |print: &str| Peer::alone("ann", &[("PEER_TRACKER", tracker.url()), ("PEER_CA_SHA256", print)]);
    let pinned = with(&print);
    pinned.ok_with_password(&["login", "ann"]);
    let kept = fs::read_to_string(pinned.path("home/ca.pem")).expect("kept");
    assert_eq!(transport::fingerprints(&kept).expect("a certificate")[0].to_string(), print);
    assert_eq!(with(&"00".repeat(32)).with_password(&["login", "ann"], PASSWORD).code, 7);
    let neither = Peer::alone("ann", &[("PEER_TRACKER", tracker.url())]);
    assert_eq!(neither.with_password(&["login", "ann"], PASSWORD).code, 7, "nothing is trusted unasked");
    drop(ann);
}

#[test]
fn doctor_ticket_and_export_cert() {
    let (_tracker, ann, bob) = stage();
    ann.shares("g1", "movie.mp4", MIB, 1);
    seed("ann is announced", &ann, 1);
    let checks = ann.json("doctor")["checks"].clone();
    // These peers listen on loopback only, and the doctor warns of that.
    let good =
        |check: &serde_json::Value| check["result"] == if check["name"] == "port" { "warning" } else { "ok" };
    assert!(checks.as_array().is_some_and(|checks| checks.len() > 5 && checks.iter().all(good)), "{checks}");
    let ticket = bob.json("ticket g1 movie.mp4");
    assert!(ticket["ticket"].as_str().is_some_and(|ticket| ticket.starts_with("v4.public.")), "{ticket}");
    assert_eq!(ticket["sources"][0]["user"], "ann");
    let certificate = bob.json("export-cert certs");
    assert_eq!(certificate["tls_name"], bob.json("status")["tls_name"]);
    assert!(bob.path("certs/cert.pem").exists() && bob.path("certs/key.pem").exists());
}
