//! Peers that can't be reached: both sides are told where, why, and what to do.

use serde_json::Value;

use crate::support::{MIB, PASSWORD, Peer, Tracker, wait_for};

/// An address of this host where nothing listens: the port was free a moment ago.
fn nobodys() -> String {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("bound").to_string()
}

fn check(peer: &Peer, name: &str) -> Value {
    let checks = peer.run(&["doctor", "--json"]).json();
    let found = checks["checks"].as_array().expect("a list").iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no {name}: {checks}")).clone()
}

#[test]
fn an_address_that_refuses_is_named_on_both_sides() {
    let (tracker, nowhere) = (Tracker::start(), nobodys());
    let ann = tracker.user_with("ann", &[("PEER_ADVERTISE", &nowhere)]);
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 1);
    let expected = format!("ann at {nowhere}: connection refused; is a firewall in between?");

    let failed = bob.fails(8, &["download", "g1", "data", "out/", "--timeout", "9"]);
    assert!(failed.stderr.contains(&expected), "{failed:?}");
    let stalled = bob.download("g1", "data").expect("it goes on");
    assert_eq!(stalled["state"], "stalled");
    assert_eq!(stalled["cause"], expected);
    assert_eq!((&stalled["rate"], &stalled["eta_seconds"]), (&Value::from(0), &Value::Null));
    assert_eq!(stalled["sources"][0]["cause"], expected, "{stalled}");
    let doctor = check(&bob, "downloads");
    assert!(doctor["message"].as_str().is_some_and(|text| text.contains(&expected)), "{doctor}");

    // bob tells the tracker, and the tracker tells ann.
    let told = wait_for("ann is told", || {
        let told = check(&ann, "reach");
        (told["result"] == "warning").then_some(told)
    });
    let message = told["message"].as_str().expect("text");
    assert!(message.starts_with(&format!("bob could not reach this peer at {nowhere}")), "{message}");
    assert!(message.contains("connection refused; open the port in the firewalls"), "{message}");
}

#[test]
fn several_addresses_are_dialled_and_one_that_works_is_enough() {
    let (tracker, nowhere) = (Tracker::start(), nobodys());
    let ann = tracker.user("ann");
    let own = ann.json("status")["listen"].as_str().expect("an address").to_owned();
    let (ann, _daemon) = {
        // The same port again, and an address in front of it where nobody answers.
        ann.ok(&["daemon", "stop"]);
        let mut ann = ann;
        ann.set("PEER_LISTEN", &own);
        ann.set("PEER_ADVERTISE", &format!("{nowhere},{own}"));
        let daemon = ann.daemon(&[]);
        (ann, daemon)
    };
    let bob = tracker.user("bob");
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 2);
    bob.ok(&["download", "g1", "data", "out/"]);
    let addresses = ann.json("status")["addresses"].clone();
    assert_eq!(addresses, serde_json::json!([nowhere, own]));
}

#[test]
fn a_peer_that_only_this_host_reaches_is_told_so() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    let port = wait_for("ann announces", || {
        let port = check(&ann, "port");
        port["message"].as_str().filter(|text| text.contains("other hosts can't reach")).map(str::to_owned)
    });
    assert!(port.contains("127.0.0.1") && port.contains("--listen"), "{port}");
}

#[test]
fn five_addresses_are_too_many() {
    let tracker = Tracker::start();
    let ann = Peer::new(&tracker, "ann", &[]);
    let args = ["daemon", "--advertise", "a", "--advertise", "b", "--advertise", "c,d", "--advertise", "e"];
    let failed = ann.fails(2, &args);
    assert!(failed.stderr.contains("at most 4"), "{failed:?}");
}

#[test]
fn a_login_remembers_its_tracker_and_status_and_stop_need_none() {
    let (tracker, other) = (Tracker::start(), Tracker::start());
    let mut ann = tracker.user("ann");
    ann.ok(&["daemon", "stop"]);
    // Neither tracker nor CA is named any more.
    ann.set("PEER_TRACKER", "");
    ann.set("PEER_CA", "");
    ann.ok(&["create-group", "g1"]);
    assert_eq!(ann.json("status")["tracker"], tracker.url());
    ann.set("PEER_TRACKER", other.url());
    assert_eq!(ann.json("status")["user"], "ann");
    assert_eq!(ann.refused(6, "list-groups"), "ANOTHER_TRACKER");
    ann.ok(&["daemon", "stop"]);
}

/// Copies a home while its daemon is stopped.
fn copy_of(original: &Peer, tracker: &Tracker) -> Peer {
    let copy = Peer::new(tracker, &original.user, &[]);
    let done = std::process::Command::new("cp")
        .arg("-r")
        .args([original.path("home"), copy.path("home")])
        .status()
        .expect("cp runs");
    assert!(done.success());
    copy
}

#[test]
fn a_copied_home_stops_and_is_offered_a_key_of_its_own() {
    let tracker = Tracker::start();
    let ann = tracker.user("ann");
    ann.ok(&["daemon", "stop"]);
    let copy = copy_of(&ann, &tracker);
    let stopped = |peer: &Peer| {
        let problem = peer.json("status")["tracker_problem"].clone();
        problem.as_str().filter(|text| text.contains("--new-key")).map(str::to_owned)
    };
    // Both start their daemons, and take turns at the tracker.
    let key = |peer: &Peer| peer.json("status")["peer_id"].clone();
    assert_eq!(key_after_start(&ann), key_after_start(&copy));
    let (problem, original_stopped) = wait_for("one of them stops", || {
        stopped(&ann).map(|text| (text, true)).or_else(|| stopped(&copy).map(|text| (text, false)))
    });
    assert!(problem.contains("another daemon uses the key of this peer"), "{problem}");
    assert!(problem.contains("from 127.0.0.1"), "{problem}");
    let doctor = check(if original_stopped { &ann } else { &copy }, "announce");
    assert!(doctor["message"].as_str().is_some_and(|text| text.contains("login ann --new-key")), "{doctor}");

    // The copy logs out, and the session of the original goes on.
    let out = copy.json("logout");
    assert_eq!(out["session_shared"], true, "{out}");
    ann.ok(&["list-groups"]);
    // With a new key it is another peer, and both announce.
    copy.ok_with_password(&["login", "ann", "--new-key"]);
    ann.ok_with_password(&["login", "ann"]);
    assert_ne!(key(&ann), key(&copy));
    for peer in [&ann, &copy] {
        wait_for("it announces", || (peer.json("status")["tracker_connected"] == true).then_some(()));
    }
}

fn key_after_start(peer: &Peer) -> Value {
    peer.ok(&["whoami"]);
    peer.json("status")["peer_id"].clone()
}

#[test]
fn http_to_a_port_with_tls_is_told_to_use_https() {
    use std::io::{Read as _, Write as _};
    let tracker = Tracker::start();
    let plain = tracker.url().replace("https:", "http:");
    let ann = Peer::alone("ann", &[("PEER_TRACKER", &plain)]);
    let failed = ann.with_password(&["create-user", "ann"], PASSWORD);
    assert_eq!(failed.code, 7, "{failed:?}");
    assert!(failed.stderr.contains(tracker.url()), "{failed:?}");
    let address = tracker.url().trim_start_matches("https://");
    let mut socket = std::net::TcpStream::connect(address).expect("it listens");
    socket.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("written");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("text");
    assert!(answer.ends_with("use https://\n"), "{answer}");
}

#[test]
fn a_certificate_for_other_names_says_what_to_do() {
    let tracker = Tracker::start();
    // The same tracker at another loopback address, which its certificate does not have.
    let address = tracker.address();
    let elsewhere = std::net::TcpListener::bind("127.0.0.2:0").expect("a port");
    let url = format!("https://{}", elsewhere.local_addr().expect("bound"));
    std::thread::spawn(move || {
        for socket in elsewhere.incoming() {
            let (mut from, mut to) = (socket?, std::net::TcpStream::connect(address)?);
            let (mut back, mut front) = (to.try_clone()?, from.try_clone()?);
            std::thread::spawn(move || std::io::copy(&mut back, &mut front));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
        std::io::Result::Ok(())
    });
    let ca = tracker.ca().display().to_string();
    let ann = Peer::alone("ann", &[("PEER_TRACKER", &url), ("PEER_CA", &ca)]);
    ann.run(&["whoami"]);
    let message = check(&ann, "tracker")["message"].clone();
    assert!(message.as_str().is_some_and(|text| text.contains("--tls-name 127.0.0.2")), "{message}");
}

/// Makes a CA, and a certificate of it for 127.0.0.1. Returns the paths of the CA, the chain and the key.
fn own_ca(dir: &std::path::Path) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&ca_key).expect("signed").pem();
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let chain = leaf.signed_by(&key, &issuer).expect("signed").pem();
    [("ca.pem", ca_pem), ("own.pem", chain), ("own.key", key.serialize_pem())].map(|(name, text)| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    })
}

#[test]
fn transfers_work_when_the_tracker_serves_with_another_cas_certificate() {
    let dir = tempfile::tempdir().expect("a directory");
    let [ca, chain, key] = own_ca(dir.path());
    let tracker = Tracker::start_with(&[("TRACKER_TLS_CERT", &chain), ("TRACKER_TLS_KEY", &key)]);
    let ann = tracker.user_with("ann", &[("PEER_CA", &ca)]);
    let bob = tracker.user_with("bob", &[("PEER_CA", &ca)]);
    tracker.group("g1", &[&ann, &bob]);
    ann.shares("g1", "data", MIB, 3);
    bob.ok(&["download", "g1", "data", "out/"]);

    // The tracker's own ca.pem is the wrong one then, and the error says so.
    let eve = Peer::new(&tracker, "eve", &[]);
    let failed = eve.with_password(&["create-user", "eve"], PASSWORD);
    assert_eq!(failed.code, 7, "{failed:?}");
    assert!(failed.stderr.contains("--tls-cert the CA of that"), "{failed:?}");
}
