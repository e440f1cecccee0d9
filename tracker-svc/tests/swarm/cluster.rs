//! Two trackers that share a store and a Redis server. Each knows where the peers of the other are.

use testkit::{
    redis::{Redis, RedisCluster},
    wait::{PATIENCE, eventually_within},
};
use tokio::time::Instant;
use tracker_core::swarm::{AnnouncingPeer, FileAnnounce, Holds, LEASE};

use super::*;

/// How long a change may take to reach another tracker.
const PROPAGATION: Duration = Duration::from_millis(250);

/// Two trackers, and a seeder at the first and a leecher at the second.
struct Scene<R = Redis> {
    redis: R,
    a: Tracker,
    b: Tracker,
    ann: User,
    bob: User,
    group: GroupId,
    file: FileId,
}

impl Scene {
    async fn start() -> Self {
        let redis = Redis::start();
        let url = redis.url();
        Self::at(redis, &url).await
    }
}

impl<R> Scene<R> {
    async fn at(redis: R, url: &str) -> Self {
        let a = Tracker(testkit::tracker::Tracker::start_with(&[("swarm", url)]).await);
        let b = Tracker(a.beside(&[("swarm", url)]).await);
        let (ann, bob) = (a.user("ann").await, a.user("bob").await);
        let group = a.group("films", &[&ann, &bob]).await;
        let file = a.file(&ann, &group, "movie.mp4").await;
        Self { redis, a, b, ann, bob, group, file }
    }

    fn complete(&self) -> Vec<pb::FileAnnounce> {
        vec![has(&self.group, self.file, Holding::Complete(true))]
    }

    fn nothing(&self) -> Vec<pb::FileAnnounce> {
        vec![has(&self.group, self.file, nothing())]
    }

    /// The sources that a tracker names.
    async fn found(&self, tracker: &Tracker) -> Vec<String> {
        let request = pb::FindPeersRequest {
            group_id: self.group.to_string(),
            name: "movie.mp4".into(),
            ..Default::default()
        };
        let found = at(tracker, &self.bob).client.swarm().find_peers(request).await.unwrap().into_inner();
        let mut found = peers(&found.read().unwrap());
        found.sort();
        found
    }

    /// Waits until both trackers name exactly these sources. Returns how long that took.
    async fn both_name(&self, what: &str, limit: Duration, expected: &[PeerId]) -> Duration {
        let mut expected: Vec<_> = expected.iter().map(ToString::to_string).collect();
        expected.sort();
        let begin = Instant::now();
        eventually_within(limit, what, async || {
            self.found(&self.a).await == expected && self.found(&self.b).await == expected
        })
        .await;
        begin.elapsed()
    }

    async fn end(self) {
        self.b.0.ask_to_stop();
        self.a.stop().await;
    }
}

/// The user, as a caller of that tracker.
fn at(tracker: &Tracker, user: &User) -> User {
    let client = tracker.with_token(user.name.as_str(), user.client.token.as_deref().unwrap());
    User { name: user.name.clone(), client, caller: user.caller.clone() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_reaches_the_peers_of_another_tracker_within_250_ms() {
    let scene = Scene::start().await;
    let Scene { a, b, ann, bob, .. } = &scene;
    let (seeder, leecher) = (a.peer(ann).await, a.peer(bob).await);
    let mut at_b = b.welcomed(&at(b, bob), leecher, scene.nothing()).await;
    let at_a = a.welcomed(ann, seeder, vec![]).await;
    let mut times = Vec::new();
    // No more messages than a stream may send at once.
    for _ in 0..9 {
        let begin = Instant::now();
        at_a.say(scene.complete()).await;
        let change = at_b.change().await;
        times.push(begin.elapsed());
        assert_eq!(peers(&change.sources), [seeder.to_string()]);
        assert_eq!(change.sources[0].peer.as_ref().unwrap().username, "ann");
        at_a.say(vec![has(&scene.group, scene.file, Holding::Left(true))]).await;
        let change = at_b.change().await;
        assert_eq!(change.gone_peer_ids, [seeder.to_string()]);
    }
    times.sort();
    println!(
        "a change reached a peer of the other tracker after {:?} (median), {:?} (most)",
        times[4], times[8]
    );
    assert!(times[8] < PROPAGATION, "{times:?}");

    // A peer that has some of the pieces is a source too. Which ones it has, the others do not know.
    at_b.say(vec![has(&scene.group, scene.file, gained(&[1]))]).await;
    at_a.say(scene.complete()).await;
    scene.both_name("both are sources", PATIENCE, &[seeder, leecher]).await;
    for tracker in [a, b] {
        let request = pb::ListFilesRequest { group_id: scene.group.to_string(), ..Default::default() };
        let files = at(tracker, bob).client.files().list_files(request).await.unwrap().into_inner().files;
        assert_eq!((files[0].seeders, files[0].leechers), (1, 1));
    }
    drop((at_a, at_b));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_stream_of_a_peer_wins_wherever_it_is() {
    let scene = Scene::start().await;
    let Scene { a, b, ann, .. } = &scene;
    let seeder = a.peer(ann).await;
    let mut first = a.welcomed(ann, seeder, scene.complete()).await;
    scene.both_name("the seeder is known", PATIENCE, &[seeder]).await;
    let mut second = b.welcomed(&at(b, ann), seeder, scene.complete()).await;
    let end = timeout(Duration::from_secs(5), first.end()).await.expect("in time");
    assert_eq!(Reason::of(&end), Some(Reason::Replaced));
    scene.both_name("it is known once", PATIENCE, &[seeder]).await;
    // And back.
    let third = a.welcomed(ann, seeder, scene.complete()).await;
    let end = timeout(Duration::from_secs(5), second.end()).await.expect("in time");
    assert_eq!(Reason::of(&end), Some(Reason::Replaced));
    scene.both_name("it is known once", PATIENCE, &[seeder]).await;
    third.say(vec![has(&scene.group, scene.file, Holding::Left(true))]).await;
    scene.both_name("it is gone everywhere", PATIENCE, &[]).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_trackers_peers_vanish_with_its_heartbeat() {
    let mut scene = Scene::start().await;
    let (seeder, other) = (scene.a.peer(&scene.ann).await, scene.a.peer(&scene.bob).await);
    let at_b = scene.b.welcomed(&at(&scene.b, &scene.ann), seeder, scene.complete()).await;
    let at_a = scene.a.welcomed(&scene.bob, other, scene.complete()).await;
    scene.both_name("both are known", PATIENCE, &[seeder, other]).await;
    scene.b.0.crash();
    let begin = Instant::now();
    eventually_within(LEASE, "the peer of the dead tracker is gone", async || {
        scene.found(&scene.a).await == [other.to_string()]
    })
    .await;
    println!("the peers of a dead tracker were gone after {:?}", begin.elapsed());
    drop((at_a, at_b));
    scene.a.stop().await;
}

/// The peer says that it leaves. Its stream has not failed.
async fn leaves(stream: &mut Stream) {
    stream.sender.send(pb::AnnounceRequest { leaving: true, ..Default::default() }).await.unwrap();
    timeout(LONG, stream.answers.message()).await.expect("in time").expect("no failure");
}

/// What becomes of Redis.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Restarted,
    Frozen,
    Flushed,
    Full,
    /// A replica takes over that lags behind: it names a peer that has left, and lacks those that came since.
    Stale,
    /// The connections that news comes over are closed.
    Deaf,
}

#[tokio::test(flavor = "multi_thread")]
async fn trackers_go_on_with_their_own_peers_without_redis_and_are_complete_again_when_it_is_back() {
    let mut scene = Scene::start().await;
    let faults = [Fault::Deaf, Fault::Flushed, Fault::Full, Fault::Restarted, Fault::Stale, Fault::Frozen];
    for fault in faults {
        let (ann, bob) = (at(&scene.a, &scene.ann), at(&scene.b, &scene.bob));
        if matches!(fault, Fault::Stale) {
            let ghost = scene.a.peer(&scene.ann).await;
            let mut stream = scene.b.welcomed(&at(&scene.b, &scene.ann), ghost, scene.complete()).await;
            scene.both_name("the ghost is known", PATIENCE, &[ghost]).await;
            scene.redis.keep();
            leaves(&mut stream).await;
            scene.both_name("the ghost has left", PATIENCE, &[]).await;
        }
        let (first, second) = (scene.a.peer(&scene.ann).await, scene.a.peer(&scene.bob).await);
        let mut at_a = scene.a.welcomed(&ann, first, scene.complete()).await;
        let mut at_b = scene.b.welcomed(&bob, second, scene.complete()).await;
        scene.both_name("both are known", PATIENCE, &[first, second]).await;
        match fault {
            Fault::Restarted | Fault::Stale => scene.redis.kill(),
            Fault::Frozen => scene.redis.freeze(),
            Fault::Flushed => drop(scene.redis.call(&["FLUSHALL"])),
            Fault::Full => {
                scene.redis.call(&["CONFIG", "SET", "maxmemory", "1"]);
            }
            Fault::Deaf => {
                scene.redis.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
        }
        let is_away = !matches!(fault, Fault::Flushed | Fault::Deaf);
        if is_away {
            eventually("the trackers say so", async || {
                !scene.a.swarm_store_answers() && !scene.b.swarm_store_answers()
            })
            .await;
        }
        // A third peer comes to one of them. That tracker names it at once, to its own peers too.
        let third = scene.a.peer(&scene.bob).await;
        let mut here = scene.a.welcomed(&at(&scene.a, &scene.bob), third, scene.complete()).await;
        eventually("the tracker goes on", async || scene.found(&scene.a).await.contains(&third.to_string()))
            .await;
        assert!(scene.found(&scene.a).await.contains(&first.to_string()));
        assert!(scene.found(&scene.b).await.contains(&second.to_string()));
        match fault {
            Fault::Restarted => scene.redis.start_again(),
            Fault::Stale => scene.redis.start_stale(),
            Fault::Frozen => scene.redis.thaw(),
            Fault::Full => drop(scene.redis.call(&["CONFIG", "SET", "maxmemory", "0"])),
            Fault::Flushed | Fault::Deaf => {}
        }
        let took = scene.both_name("all are known", LEASE, &[first, second, third]).await;
        println!("{fault:?}: complete after {took:?}");
        eventually("the trackers say so", async || {
            scene.a.swarm_store_answers() && scene.b.swarm_store_answers()
        })
        .await;
        // No stream ended. All peers leave.
        for stream in [&mut at_a, &mut at_b, &mut here] {
            leaves(stream).await;
        }
        scene.both_name("all have left", PATIENCE, &[]).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_cluster_is_a_swarm_store_and_loses_one_of_its_servers() {
    let cluster = RedisCluster::start();
    let url = cluster.url();
    let mut scene = Scene::at(cluster, &url).await;
    let (seeder, leecher) = (scene.a.peer(&scene.ann).await, scene.a.peer(&scene.bob).await);
    // More files, so that all servers have some.
    let mut files = vec![scene.file];
    for number in 0..9 {
        files.push(scene.a.file(&scene.ann, &scene.group, &format!("more{number}")).await);
    }
    let all = |holding: fn() -> Holding| -> Vec<_> {
        files.iter().map(|file| has(&scene.group, *file, holding())).collect()
    };
    let seeds = scene.a.welcomed(&scene.ann, seeder, all(|| Holding::Complete(true))).await;
    let mut leeches = scene.b.welcomed(&at(&scene.b, &scene.bob), leecher, all(nothing)).await;
    let mut found = 0;
    while found < files.len() {
        let answer = timeout(PATIENCE, leeches.answers.message()).await.expect("in time").unwrap().unwrap();
        found +=
            answer.changes.iter().filter(|change| peers(&change.sources) == [seeder.to_string()]).count();
    }
    // Some of the swarms are lost, and the cluster takes no more until the server is back.
    scene.redis.kill_one();
    eventually("the trackers say so", async || {
        !scene.a.swarm_store_answers() && !scene.b.swarm_store_answers()
    })
    .await;
    let third = scene.b.peer(&scene.ann).await;
    let second = scene.b.welcomed(&at(&scene.b, &scene.ann), third, all(|| Holding::Complete(true))).await;
    scene.redis.start_one();
    scene.both_name("all are known", LEASE, &[seeder, third]).await;
    eventually("the trackers say so", async || {
        scene.a.swarm_store_answers() && scene.b.swarm_store_answers()
    })
    .await;
    drop((seeds, leeches, second));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_and_file_takes_little_memory_in_redis() {
    const PEERS: u32 = 20_000;
    let scene = Scene::start().await;
    let used = || -> u64 {
        let info = scene.redis.call(&["INFO", "memory"]);
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).expect("a line");
        line.trim().parse().expect("a number")
    };
    let facts = "local facts = 0
        for _, key in ipairs(redis.call('KEYS', 'mt:{[0-9]*')) do facts = facts + redis.call('HLEN', key) end
        return facts";
    let before = used();
    let layout = PieceLayout::new(1 << 30).expect("a length");
    for number in 0..PEERS {
        let who = AnnouncingPeer {
            id: rand::random::<[u8; 32]>().into(),
            user: format!("user{number}").parse().expect("a name"),
            addresses: "192.0.2.17:7800 198.51.100.17:7800".into(),
            load: 0,
        };
        let file = FileId::try_from(&rand::random::<[u8; 16]>()[..]).expect("an id");
        let announce = FileAnnounce {
            group: scene.group.clone(),
            file,
            layout,
            holds: Holds::All,
            wants_sources: false,
        };
        scene.a.0.hub.announce(&who, announce, || false).expect("all of it");
    }
    eventually("Redis has all facts", async || {
        scene.redis.call(&["EVAL", facts, "0"]).parse::<u32>().is_ok_and(|facts| facts >= PEERS)
    })
    .await;
    let each = (used() - before) / u64::from(PEERS);
    println!("a peer and file takes {each} bytes in Redis");
    assert!(each < 400, "{each}");
    scene.end().await;
}
