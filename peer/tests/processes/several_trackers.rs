//! A network with several trackers: one of them goes, and everything goes on at another.
//!
//! The trackers are ways to one tracker process, each of which a test can cut, so they share its store.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use testkit::relay::Relay;

use crate::support::{MIB, Peer, Tracker, assert_same, make_file, wait_for};

/// How long a peer may take to be connected to another tracker.
const FAILOVER: Duration = Duration::from_secs(5);

/// A network whose tracker has two addresses.
struct Network {
    tracker: Tracker,
    /// `None` once it is gone.
    relays: [Option<Relay>; 2],
    urls: [String; 2],
}

/// What becomes of a tracker.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It accepts connections and says nothing, as a suspended process does.
    Silent,
    /// It closes every connection.
    Closing,
    /// Nothing listens at its port any more.
    Gone,
}

impl Network {
    fn start() -> Self {
        let tracker = Tracker::start();
        let relay = || Relay::to(tracker.url().trim_start_matches("https://"));
        let relays = [relay(), relay()];
        let urls = [relays[0].url(), relays[1].url()];
        Self { relays: relays.map(Some), urls, tracker }
    }

    fn list(&self) -> String {
        self.urls.join(",")
    }

    fn user(&self, name: &str) -> Peer {
        self.tracker.user_with(name, &[("PEER_TRACKER", &self.list())])
    }

    /// The number of the tracker that a peer is connected to.
    fn of(&self, peer: &Peer) -> Option<usize> {
        let status = peer.json("status");
        let at = self.urls.iter().position(|url| status["tracker"] == *url);
        at.filter(|_| status["tracker_connected"] == true)
    }

    fn wait_for(&self, peer: &Peer) -> usize {
        wait_for("the peer is connected", || self.of(peer))
    }

    fn breaks(&mut self, number: usize, fault: Fault) {
        let relay = self.relays[number].as_ref().expect("it is there");
        match fault {
            Fault::Silent => relay.hold(),
            Fault::Closing => relay.take_down(),
            Fault::Gone => self.relays[number] = None,
        }
    }

    fn mends(&self, number: usize) {
        self.relays[number].as_ref().expect("it is there").mend();
    }

    /// The rows of the audit log about this action on this object.
    fn done(&self, action: &str, object: &str) -> usize {
        let log = self.tracker.operate("audit --json", "");
        // The program of the tests, which is the tracker here, prints lines of its own.
        let rows = log.lines().filter(|line| line.starts_with('{'));
        let rows = rows.map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        rows.filter(|row| row["action"] == action && row["object"] == object).count()
    }
}

#[test]
fn a_peer_whose_tracker_goes_is_connected_to_another_within_5_s_and_its_downloads_go_on() {
    let mut network = Network::start();
    let (ann, bob) = (network.user("ann"), network.user("bob"));
    network.tracker.group("g1", &[&ann, &bob]);
    ann.ok(&["limit", "--up", "2M"]);
    for (round, fault) in [Fault::Silent, Fault::Closing, Fault::Silent, Fault::Gone].into_iter().enumerate()
    {
        let name = format!("data{round}");
        let original = ann.shares("g1", &name, 16 * MIB, round as u64);
        let at = network.wait_for(&ann);
        network.wait_for(&bob);
        let copy: PathBuf = bob.starts("g1", &name);
        bob.waits_until_midway("g1", &name, 1);
        let other = 1 - at;
        let before = network.relays[other].as_ref().expect("it is there").connections();
        let broken = Instant::now();
        network.breaks(at, fault);
        let connections = || network.relays[other].as_ref().expect("it is there").connections();
        wait_for("a connection to another tracker", || (connections() > before).then_some(()));
        let took = broken.elapsed();
        let is_there = |peer: &Peer| network.of(peer).filter(|at| *at == other);
        wait_for("its announce stream", || is_there(&ann));
        println!("{fault:?}: a connection after {took:?}, the stream was seen after {:?}", broken.elapsed());
        assert!(took < FAILOVER, "{fault:?}: {took:?}");
        // Both find each other again, and a member who joins the swarm now finds them too.
        wait_for("bob is there, too", || is_there(&bob));
        bob.waits_until_complete("g1", &name);
        assert_same(&original, &copy);
        wait_for("both are listed as seeders", || {
            let files = bob.json("list-files g1");
            let mut files = files["files"].as_array().expect("a list").iter();
            let file = files.find(|file| file["name"] == name.as_str()).expect("it is listed");
            (file["seeders"] == 2).then_some(())
        });
        if !matches!(fault, Fault::Gone) {
            network.mends(at);
        }
    }
}

#[test]
fn every_verb_goes_on_at_another_tracker_and_is_done_once() {
    let mut network = Network::start();
    let (ann, bob) = (network.user("ann"), network.user("bob"));
    let file = ann.path("data");
    make_file(&file, MIB, 7);
    let file = file.display().to_string();
    let ask = |peer: &Peer, args: &[&str]| {
        let done = peer.ok(args);
        assert!(done.took < 2 * FAILOVER, "{args:?}: {:?}", done.took);
    };
    // Each call reaches its tracker and is done. The answer is lost, and the call is repeated elsewhere.
    let verbs: [(&Peer, &[&str], &str, &str); 9] = [
        (&ann, &["create-group", "g1"], "create_group", "g1"),
        (&bob, &["join-group", "g1"], "join_group", "g1"),
        (&ann, &["accept-request", "g1", "bob"], "accept_request", "g1/bob"),
        (&ann, &["upload", &file, "g1"], "publish_file", "g1/data"),
        (&ann, &["unpublish", "g1", "data"], "unpublish_file", "g1/data"),
        (&ann, &["transfer-group", "g1", "bob"], "transfer_ownership", "g1/bob"),
        (&bob, &["remove-member", "g1", "ann"], "remove_member", "g1/ann"),
        (&bob, &["delete-group", "g1"], "delete_group", "g1"),
        (&bob, &["list-groups"], "delete_group", "g1"),
    ];
    for (peer, args, action, object) in verbs {
        let at = network.wait_for(peer);
        network.relays[at].as_ref().expect("it is there").hold_answers();
        ask(peer, args);
        network.mends(at);
        assert_eq!(network.done(action, object), 1, "{args:?}");
    }
    // An account and a password, by a peer that is not logged in yet.
    let eve = Peer::new(&network.tracker, "eve", &[("PEER_TRACKER", &network.list())]);
    eve.fails(4, &["list-groups"]);
    for (args, action) in [(["create-user", "eve"], "create_user"), (["login", "eve"], "login")] {
        let status = eve.json("status");
        let at = network.urls.iter().position(|url| status["tracker"] == *url).expect("one of them");
        network.relays[at].as_ref().expect("it is there").hold_answers();
        let done = eve.ok_with_password(&args);
        assert!(done.took < 2 * FAILOVER, "{args:?}: {:?}", done.took);
        network.mends(at);
        assert!(network.done(action, "eve") > 0, "{args:?}");
    }
    assert_eq!(network.done("create_user", "eve"), 1);
    network.breaks(0, Fault::Closing);
    ask(&ann, &["list-groups"]);
    network.breaks(1, Fault::Closing);
    let failed = ann.fails(7, &["list-groups"]);
    assert!(network.urls.iter().all(|url| failed.stderr.contains(url)), "{failed:?}");
}

#[test]
fn the_list_is_read_from_a_file_remembered_at_login_and_compared_as_a_set() {
    let network = Network::start();
    let mut ann = Peer::new(&network.tracker, "ann", &[]);
    std::fs::write(ann.path("tracker_info.txt"), network.urls.join("\n").replace("https://", ""))
        .expect("written");
    ann.set("PEER_TRACKER", "tracker_info.txt");
    ann.ok_with_password(&["create-user", "ann"]);
    ann.ok_with_password(&["login", "ann"]);
    let listed = |status: &serde_json::Value| status["trackers"] == serde_json::json!(network.urls);
    let status = ann.json("status");
    assert!(listed(&status) && network.urls.iter().any(|url| status["tracker"] == *url), "{status}");
    let [a, b] = &network.urls;
    ann.set("PEER_TRACKER", &format!("{b},{a}"));
    ann.ok(&["list-groups"]);
    for other in [a.clone(), format!("{a},{b},https://127.0.0.1:1"), network.tracker.url().to_owned()] {
        ann.set("PEER_TRACKER", &other);
        assert_eq!(ann.refused(6, "list-groups"), "ANOTHER_TRACKER", "{other}");
    }
    ann.set("PEER_TRACKER", "absent.txt");
    let failed = ann.fails(2, &["list-groups"]);
    assert!(failed.stderr.contains("absent.txt"), "{failed:?}");
    // Neither list nor CA is named any more.
    ann.set("PEER_TRACKER", "");
    ann.set("PEER_CA", "");
    ann.ok(&["daemon", "stop"]);
    ann.ok(&["create-group", "g1"]);
    let status = ann.json("status");
    assert!(listed(&status) && status["user"] == "ann", "{status}");
    let other = 1 - network.wait_for(&ann);
    let check = || {
        let doctor = ann.run(&["doctor", "--json"]).json();
        let checks = doctor["checks"].as_array().expect("a list").clone();
        checks.into_iter().find(|check| check["name"] == "tracker").expect("a check")
    };
    assert_eq!(check()["result"], "ok");
    network.relays[other].as_ref().expect("it is there").take_down();
    let tracker = check();
    assert_eq!(tracker["result"], "warning", "{tracker}");
    assert!(
        tracker["message"].as_str().is_some_and(|text| text.contains(a) && text.contains(b)),
        "{tracker}"
    );
}
