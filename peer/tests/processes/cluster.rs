//! Three trackers on PostgreSQL and Redis, and the peers of their network. Whatever goes away, downloads go on, and
//! what was acknowledged stays.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use testkit::{clock, postgres::Postgres, redis::Redis, relay::Relay};

use crate::support::{MIB, Peer, Tracker, assert_same, wait_for, wait_within};

/// How long a peer may take to be connected to another tracker.
const FAILOVER: Duration = Duration::from_secs(5);
/// How long a tracker may take to see that it is cut off from its stores.
const CUT_OFF: Duration = Duration::from_secs(5);
/// How long verbs may take to work again after the database is back.
const RECOVERY: Duration = Duration::from_secs(10);
/// Groups that a user keeps in a test.
const GROUPS: usize = 50;

struct Network {
    trackers: Vec<Tracker>,
    /// The ways of each tracker to the database and to Redis.
    ways: Vec<[Relay; 2]>,
    postgres: Postgres,
    _redis: Redis,
    _key: tempfile::NamedTempFile,
}

impl Network {
    /// Starts three trackers at the same moment on empty stores.
    fn start() -> Self {
        Self::with_clocks([0; 3])
    }

    /// As [`Self::start`]. Their clocks are ahead by these numbers of seconds.
    fn with_clocks(ahead: [i64; 3]) -> Self {
        let (postgres, redis) = (Postgres::start(), Redis::start());
        let key = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(key.path(), [7; 32]).expect("written");
        let ways: Vec<_> = ahead.map(|_| [Relay::to(&postgres.socket()), Relay::to(&redis.socket())]).into();
        let start = |ways: &[Relay; 2], seconds: i64| {
            let (database, swarm) =
                (postgres.url_by(&ways[0].address()), format!("redis://{}", ways[1].address()));
            let key = key.path().to_str().expect("a path");
            let mut env = vec![
                ("TRACKER_DATABASE", database.as_str()),
                ("TRACKER_SWARM", swarm.as_str()),
                ("TRACKER_CLUSTER_KEY", key),
            ];
            let clock = clock::ahead(seconds);
            env.extend(clock.iter().filter(|_| seconds != 0).map(|(name, value)| (*name, value.as_str())));
            Tracker::start_with(&env)
        };
        let trackers = thread::scope(|scope| {
            let starting: Vec<_> = ways
                .iter()
                .zip(ahead)
                .map(|(ways, seconds)| scope.spawn(move || start(ways, seconds)))
                .collect();
            starting.into_iter().map(|tracker| tracker.join().expect("it starts")).collect()
        });
        Self { trackers, ways, postgres, _redis: redis, _key: key }
    }

    fn list(&self) -> String {
        let urls: Vec<_> = self.trackers.iter().map(|tracker| tracker.url().to_owned()).collect();
        urls.join(",")
    }

    /// A user of any of the trackers.
    fn user(&self, name: &str) -> Peer {
        self.trackers[0].user_with(name, &[("PEER_TRACKER", &self.list())])
    }

    /// The number of the tracker that a peer is connected to.
    fn of(&self, peer: &Peer) -> Option<usize> {
        let status = peer.json("status");
        let at = self.trackers.iter().position(|tracker| status["tracker"] == *tracker.url());
        at.filter(|_| status["tracker_connected"] == true)
    }

    fn wait_for(&self, peer: &Peer) -> usize {
        wait_for("the peer is connected", || self.of(peer))
    }

    /// Waits until the peer is connected to another tracker than this one, for at most `limit`.
    fn moves(&self, peer: &Peer, from: usize, limit: Duration) {
        wait_within(limit, "the peer is connected elsewhere", || self.of(peer).filter(|at| *at != from));
    }

    fn groups(&self) -> Vec<String> {
        let rows = self.postgres.sql("SELECT name FROM groups WHERE name LIKE 'load%' ORDER BY id");
        rows.lines().map(str::to_owned).collect()
    }
}

/// Sets the flag also when a test fails, so that the thread that waits for it ends.
struct Raise<'f>(&'f AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes groups, and deletes the oldest, until told to stop. Every verb must succeed. Returns the groups that are
/// left, and how long the slowest verb took.
fn writes(peer: &Peer, is_over: &AtomicBool) -> (Vec<String>, Duration) {
    let (mut left, mut slowest) = (Vec::new(), Duration::ZERO);
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let name = format!("load{number}");
        slowest = slowest.max(peer.ok(&["create-group", &name]).took);
        left.push(name);
        if left.len() > GROUPS {
            slowest = slowest.max(peer.ok(&["delete-group", &left.remove(0)]).took);
        }
    }
    (left, slowest)
}

#[test]
fn each_tracker_is_killed_in_turn_under_load_and_nothing_fails_or_is_lost() {
    let rounds =
        std::env::var("KILL_ROUNDS").map_or(3, |text| text.parse().expect("KILL_ROUNDS is a number"));
    let mut network = Network::start();
    let [ann, bob, cem, writer] = ["ann", "bob", "cem", "writer"].map(|name| network.user(name));
    network.trackers[0].group("g1", &[&ann, &bob, &cem]);
    ann.ok(&["limit", "--up", "4M"]);
    let is_over = AtomicBool::new(false);
    let (left, slowest) = thread::scope(|scope| {
        let writing = scope.spawn(|| writes(&writer, &is_over));
        let over = Raise(&is_over);
        for round in 0..rounds {
            let (name, victim) = (format!("data{round}"), round % 3);
            let original = ann.shares("g1", &name, 6 * MIB, round as u64);
            let peers = [&ann, &bob, &cem, &writer];
            let at = peers.map(|peer| network.wait_for(peer));
            let copies = [&bob, &cem].map(|peer| peer.starts("g1", &name));
            bob.waits_until_midway("g1", &name, 1);
            network.trackers[victim].kill();
            let killed = Instant::now();
            let theirs = peers.iter().zip(at).filter(|(_, at)| *at == victim);
            let moved = theirs.map(|(peer, _)| network.moves(peer, victim, FAILOVER)).count();
            let took = killed.elapsed();
            for (peer, copy) in [&bob, &cem].iter().zip(copies) {
                peer.waits_until_complete("g1", &name);
                assert_same(&original, &copy);
            }
            println!(
                "round {round}: {moved} peers were elsewhere {took:?} after tracker {victim} was killed"
            );
            network.trackers[victim].start_again();
        }
        drop(over);
        writing.join().expect("the writer ends")
    });
    println!("{rounds} kills; the slowest verb took {slowest:?}");
    assert!(slowest < 2 * FAILOVER, "{slowest:?}");
    assert_eq!(network.groups(), left, "what was acknowledged is there, once");
}

#[test]
fn a_tracker_that_is_cut_off_from_the_stores_loses_its_peers_to_another_one() {
    let network = Network::start();
    let (ann, bob) = (network.user("ann"), network.user("bob"));
    network.trackers[0].group("g1", &[&ann, &bob]);
    ann.ok(&["limit", "--up", "1M"]);
    let original = ann.shares("g1", "data", 12 * MIB, 1);
    let at = network.wait_for(&ann);
    let bobs = network.wait_for(&bob);
    let copy = bob.starts("g1", "data");
    bob.waits_until_midway("g1", "data", 1);
    network.ways[at].iter().for_each(Relay::hold);
    let cut = Instant::now();
    network.moves(&ann, at, CUT_OFF + FAILOVER);
    println!("the peer was at another tracker {:?} after its tracker was cut off", cut.elapsed());
    if bobs == at {
        network.moves(&bob, at, CUT_OFF + FAILOVER);
    }
    bob.ok(&["create-group", "meanwhile"]);
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    // Nothing that was held up does harm.
    network.ways[at].iter().for_each(Relay::mend);
    let only = [("PEER_TRACKER", network.trackers[at].url())];
    let eve = Peer::new(&network.trackers[at], "eve", &only);
    wait_within(RECOVERY, "it serves again", || {
        (eve.with_password(&["create-user", "eve"], crate::support::PASSWORD).code == 0).then_some(())
    });
    eve.ok_with_password(&["login", "eve"]);
    eve.ok(&["join-group", "g1"]);
    ann.ok(&["accept-request", "g1", "eve"]);
    assert_same(&original, &{
        eve.ok(&["download", "g1", "data", "out/"]);
        eve.path("out").join("data")
    });
}

#[test]
fn downloads_outlive_a_database_that_is_frozen_for_20_s() {
    const FROZEN: Duration = Duration::from_secs(20);
    let network = Network::start();
    let (ann, bob, cem) = (network.user("ann"), network.user("bob"), network.user("cem"));
    network.trackers[0].group("g1", &[&ann, &bob, &cem]);
    // The download takes longer than the outage.
    ann.ok(&["limit", "--up", "400K"]);
    let original = ann.shares("g1", "data", 10 * MIB, 1);
    let copy = bob.starts("g1", "data");
    let before = bob.waits_until_midway("g1", "data", 1);
    network.postgres.freeze();
    let frozen = Instant::now();
    let failed = cem.fails(7, &["list-groups"]);
    println!("a verb failed after {:?}: each tracker was asked", failed.took);
    wait_for("the outage is long enough", || {
        let download = bob.download("g1", "data").expect("it goes on");
        assert!(!["failed", "stalled"].contains(&download["state"].as_str().expect("a state")), "{download}");
        (frozen.elapsed() > FROZEN).then_some(())
    });
    let after = bob.waits_until_midway("g1", "data", 1);
    assert!(after > before, "bytes went on: {before} and {after}");
    network.postgres.thaw();
    let thawed = Instant::now();
    wait_within(RECOVERY, "verbs work again", || (cem.run(&["list-groups"]).code == 0).then_some(()));
    println!("verbs worked again {:?} after the thaw", thawed.elapsed());
    ann.ok(&["limit", "--up", "0"]);
    bob.waits_until_complete("g1", "data");
    assert_same(&original, &copy);
    // The swarm is whole again, too.
    cem.ok(&["download", "g1", "data", "out/"]);
    assert_same(&original, &cem.path("out").join("data"));
}

#[test]
fn trackers_whose_clocks_are_ten_minutes_apart_serve_one_network() {
    let network = Network::with_clocks([0, 600, -600]);
    let user = |name: &str, at: usize| {
        let tracker = &network.trackers[at];
        tracker.user_with(name, &[("PEER_TRACKER", tracker.url())])
    };
    let peers = [user("ann", 0), user("bob", 1), user("cem", 2)];
    let [ann, bob, cem] = &peers;
    network.trackers[0].group("g1", &[ann, bob, cem]);
    for (round, (from, to)) in
        [(ann, [bob, cem]), (bob, [ann, cem]), (cem, [ann, bob])].into_iter().enumerate()
    {
        let name = format!("data{round}");
        let original = from.shares("g1", &name, MIB, round as u64);
        for peer in to {
            peer.ok(&["download", "g1", &name, "out/"]);
            assert_same(&original, &peer.path("out").join(&name));
        }
    }
    for peer in &peers {
        let doctor = peer.run(&["doctor", "--json"]).json();
        let checks = doctor["checks"].as_array().expect("a list");
        let clock = checks.iter().find(|check| check["name"] == "clock").expect("a check");
        assert_eq!(clock["result"], "ok", "{clock}");
    }
    // Nor does a session, or the end of a membership, depend on whose clock it is.
    let late = ann.shares("g1", "late", MIB, 9);
    ann.ok(&["remove-member", "g1", "cem"]);
    assert_eq!(cem.refused(5, "download g1 late out/"), "NOT_A_MEMBER");
    bob.ok(&["download", "g1", "late", "out/"]);
    assert_same(&late, &bob.path("out/late"));
}
