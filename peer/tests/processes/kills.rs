//! A story that is told again and again while the tracker, the seeder or the leecher is killed at some moment
//! of it. Whatever was acknowledged must be there afterwards, and no wrong byte may have its final name.
//!
//! The seed decides who is killed, and after which event: the begin or the end of a verb, or another piece of
//! the download. Verbs go on meanwhile. `KILL_SEED` repeats a run, and `KILL_ROUNDS` sets the number of kills.

use std::{
    sync::{Condvar, Mutex},
    thread,
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus as Rng};

use testkit::wait::PATIENCE;

use crate::support::{MIB, PASSWORD, Peer, Tracker, assert_same, make_file, peer, wait_for};

/// Events of a story in which nobody is killed; some more come while its download runs.
const EVENTS: u32 = 26;
/// Bytes of a file. The download takes about two seconds.
const BYTES: usize = 5 * MIB;

#[derive(Clone, Copy, Debug)]
enum Victim {
    Tracker,
    Seeder,
    Leecher,
}

/// Counts what happens in a story.
#[derive(Default)]
struct Events {
    count: Mutex<(u32, bool)>,
    changed: Condvar,
}

impl Events {
    fn happen(&self) {
        self.count.lock().expect("no panic").0 += 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.count.lock().expect("no panic").1 = true;
        self.changed.notify_all();
    }

    /// Waits for the event with this number, or for the end of the story. Returns the number of the last event.
    fn wait_for(&self, number: u32) -> u32 {
        let count = self.count.lock().expect("no panic");
        let waiting = |count: &mut (u32, bool)| count.0 < number && !count.1;
        let (count, late) = self.changed.wait_timeout_while(count, PATIENCE, waiting).expect("no panic");
        assert!(!late.timed_out(), "the story stands still");
        count.0
    }
}

struct Deployment {
    tracker: Tracker,
    ann: Peer,
    bob: Peer,
    eve: Peer,
}

/// One run of the story. Verbs that fail because somebody was killed are repeated.
struct StoryRun<'s> {
    ann: &'s Peer,
    bob: &'s Peer,
    eve: &'s Peer,
    name: String,
    seed: u64,
    events: &'s Events,
}

impl StoryRun<'_> {
    /// Runs a verb until it succeeds. If an earlier try got no answer, it may have had its effect: then the
    /// verb may also end with `done`.
    fn insist(&self, peer: &Peer, args: &[&str], input: &str, done: i32) {
        let mut tries = 0;
        wait_for(&format!("{} {args:?}", peer.user), || {
            self.events.happen();
            let ended = peer.run_with(args, input);
            self.events.happen();
            tries += 1;
            match ended.code {
                0 => Some(()),
                code if code == done && tries > 1 => Some(()),
                // No tracker; no daemon, or one that ended during the call; no time left.
                1 | 7 | 10 | 124 => None,
                _ => panic!("{} {args:?}, try {tries}: {ended:?}", peer.user),
            }
        });
    }

    fn verb(&self, peer: &Peer, args: &[&str], done: i32) {
        self.insist(peer, args, "", done);
    }

    fn state(&self) -> String {
        let download = wait_for("the download is shown", || {
            let shown = self.bob.run(&["show-downloads", "--json"]);
            let shown = (shown.code == 0).then(|| shown.json())?;
            shown["downloads"].as_array()?.iter().find(|download| download["name"] == *self.name).cloned()
        });
        assert_ne!(download["state"], "failed", "{download}");
        download["state"].as_str().expect("text").to_owned()
    }

    fn run(&self) {
        let (ann, bob, eve, name) = (self.ann, self.bob, self.eve, self.name.as_str());
        self.insist(eve, &["login", "eve", "--password-stdin"], PASSWORD, 0);
        make_file(&ann.path(name), BYTES, self.seed);
        self.verb(ann, &["upload", name, "g1"], 0);
        self.verb(bob, &["download", "g1", name, "out/", "-d"], 0);
        self.verb(eve, &["join-group", "g1"], 6);
        self.verb(ann, &["accept-request", "g1", "eve"], 0);
        self.verb(eve, &["list-files", "g1"], 0);
        if self.state() != "complete" {
            // 6: it has completed meanwhile.
            self.verb(bob, &["stop-download", "g1", name], 6);
            let state = self.state();
            assert!(["stopped", "complete"].contains(&state.as_str()), "a stop was acknowledged: {state}");
            self.verb(bob, &["resume-download", "g1", name], 6);
        }
        self.verb(ann, &["remove-member", "g1", "eve"], 3);
        self.is_out();
        self.verb(eve, &["logout"], 4);
        let mut seen = 0;
        wait_for("the download ends", || {
            let shown = bob.run(&["show-downloads", "--json"]);
            let shown = (shown.code == 0).then(|| shown.json())?;
            let download =
                shown["downloads"].as_array()?.iter().find(|download| download["name"] == *name)?;
            assert_ne!(download["state"], "failed", "{download}");
            let done = download["done_bytes"].as_u64()?;
            if done > seen {
                seen = done;
                self.events.happen();
            }
            (download["state"] == "complete").then_some(())
        });
        self.events.end();
    }

    /// Checks that a removed member is told nothing.
    fn is_out(&self) {
        wait_for("the tracker answers", || {
            let answer = self.eve.run(&["list-files", "g1"]);
            assert!([1, 5, 7, 10, 124].contains(&answer.code), "a removed member is let in: {answer:?}");
            (answer.code == 5).then_some(())
        });
    }
}

impl Deployment {
    fn new() -> Self {
        let tracker = Tracker::start();
        let ann = tracker.user_with("ann", &[("PEER_UPLOAD_LIMIT", "3MiB")]);
        let (bob, eve) = (tracker.user("bob"), tracker.user("eve"));
        tracker.group("g1", &[&ann, &bob]);
        eve.ok(&["logout"]);
        Self { tracker, ann, bob, eve }
    }

    /// Kills the tracker, or a daemon by the id of its process. Looks at what is left, and starts it again.
    fn kill(tracker: &mut Tracker, daemon: Option<(&Peer, u64)>, check: impl Fn()) {
        if let Some((peer, pid)) = daemon {
            peer::kill(pid);
            check();
            // The verb starts the next daemon, unless a verb of the story did.
            wait_for("a daemon runs again", || (peer.run(&["list-shares"]).code == 0).then_some(()));
        } else {
            tracker.kill();
            check();
            tracker.start_again();
        }
    }

    /// Checks that whatever has its final name is right.
    fn names_are_right(ann: &Peer, bob: &Peer) {
        for entry in std::fs::read_dir(bob.path("out")).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if !name.starts_with('.') {
                assert_same(&ann.path(&name), &path);
            }
        }
    }

    /// Checks what every story leaves.
    fn all_is_there(&self, files: u64) {
        // The last kill may have been after the story's last verb.
        let listed = |peer: &Peer, verb: &str, key: &str| {
            wait_for("the tracker answers", || {
                let done = peer.run(&[verb, "g1", "--json"]);
                (done.code == 0).then(|| done.json()[key].as_array().expect("a list").clone())
            })
        };
        let members = listed(&self.ann, "list-members", "members");
        let users: Vec<_> = members.iter().map(|member| member["user"].as_str().expect("text")).collect();
        assert_eq!(users, ["ann", "bob"]);
        assert_eq!(listed(&self.bob, "list-files", "files").len() as u64, files);
        self.eve.fails(4, &["whoami"]);
        assert!(!self.bob.path("out/.minitorrent").exists(), "unfinished data is left");
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect(variable))
}

#[test]
fn a_story_ends_well_whoever_is_killed_at_whatever_moment() {
    let (seed, rounds) =
        (number("KILL_SEED").unwrap_or_else(rand::random), number("KILL_ROUNDS").unwrap_or(20));
    println!("KILL_SEED={seed} KILL_ROUNDS={rounds}");
    let mut rng = Rng::seed_from_u64(seed);
    let mut deployment = Deployment::new();
    for round in 0..rounds {
        let victim = [Victim::Tracker, Victim::Seeder, Victim::Leecher][rng.random_range(0..3)];
        let (at, events) = (rng.random_range(1..=EVENTS), Events::default());
        let Deployment { tracker, ann, bob, eve } = &mut deployment;
        let (ann, bob, eve) = (&*ann, &*bob, &*eve);
        let daemon = match victim {
            Victim::Tracker => None,
            Victim::Seeder => Some((ann, ann.daemon_pid().expect("a daemon runs"))),
            Victim::Leecher => Some((bob, bob.daemon_pid().expect("a daemon runs"))),
        };
        let name = format!("f{round}");
        let (original, copy) = (ann.path(&name), bob.path("out").join(&name));
        let story = StoryRun { ann, bob, eve, name, seed: round + 1, events: &events };
        thread::scope(|scope| {
            scope.spawn(|| story.run());
            let last = events.wait_for(at);
            println!("round {round}: {victim:?} at event {last}");
            Deployment::kill(tracker, daemon, || Deployment::names_are_right(ann, bob));
        });
        Deployment::names_are_right(ann, bob);
        assert_same(&original, &copy);
        deployment.all_is_there(round + 1);
    }
}
