//! What users and faults do, and what must hold.
//!
//! A story has three parts: everybody gets an account, a group and a file; then a number of random steps; then
//! all faults end, everybody is let in again, and everything must finish. Checks follow each step.
//! A fourth of the seeds is calm: no fault, no rogue, nothing stopped. These check how much is sent.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::pb;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tonic::Status;

use crate::{
    line::{Line, Outcome},
    model::{Change, Groups},
    rogue::{self, Rogue},
    sys,
    world::{TRACKER, World},
};

/// How long a user's call may take.
const CALL: Duration = Duration::from_secs(40);
/// The one group, which the user of the first peer owns.
pub(crate) const GROUP: &str = "films";
pub(crate) const OWNER: usize = 1;

/// One seed of this many goes on until all certificates have ended.
const CERTIFICATES_END_EVERY: u64 = 10;
/// A seed that is a multiple of this, and not of [`CERTIFICATES_END_EVERY`], fetches a file of many pieces under a limit.
const MANY_PIECES_EVERY: u64 = 5;

/// A published file.
pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) publisher: usize,
    pub(crate) bytes: Vec<u8>,
}

/// What happens to one peer.
#[derive(Default)]
pub(crate) struct Peer {
    pub(crate) logged_in: bool,
    /// Since when it has heard from the tracker without a break, as far as is known.
    pub(crate) connected: Option<Duration>,
    pub(crate) clock_stepped: bool,
}

pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) dice: StdRng,
    pub(crate) calm: bool,
    /// Downloads are limited from the start to the end. Only calm stories are.
    pub(crate) limited: bool,
    pub(crate) groups: Groups,
    pub(crate) files: Vec<Shared>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) rogues: Vec<Rogue>,
}

/// Runs a seed to its end. Returns the hash of its trace.
pub(crate) fn run(seed: u64, echo: bool) -> String {
    let mut dice = StdRng::seed_from_u64(seed);
    let (count, calm) = (dice.random_range(3..=4), dice.random_ratio(1, 4));
    let world = World::new(dice.next_u64(), count, echo);
    let peers = (0..=count).map(|_| Peer::default()).collect();
    let (files, rogues) = (Vec::new(), Vec::new());
    let limited = calm && dice.random();
    let mut story = Story { world, dice, calm, limited, groups: Groups::default(), files, peers, rogues };
    story.world.note(format!("{count} peers, {}", if calm { "calm" } else { "with faults" }));
    story.set_up();
    let steps = story.dice.random_range(15..=40);
    for _ in 0..steps {
        story.step();
        let pause = story.dice.random_range(0..=4_000);
        story.world.run(Duration::from_millis(pause));
        story.check();
    }
    story.finish();
    if seed.is_multiple_of(CERTIFICATES_END_EVERY) {
        story.outlive_certificates();
    } else if seed.is_multiple_of(MANY_PIECES_EVERY) {
        story.fetch_many_pieces_under_limit();
    }
    story.world.digest()
}

pub(crate) fn user(host: usize) -> String {
    format!("user{host}")
}

impl Story {
    /// Prints the trace and fails.
    pub(crate) fn fail(&mut self, what: impl AsRef<str>) -> ! {
        self.world.note(format!("FAILED: {}", what.as_ref()));
        for line in self.world.trace() {
            println!("{line}");
        }
        panic!("{}", what.as_ref());
    }

    /// Makes a call at a peer's command line.
    pub(crate) fn call<T, F>(
        &mut self,
        host: usize,
        work: impl FnOnce(Line) -> F,
    ) -> Option<Result<T, Status>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let work = work(self.world.line(host));
        self.world.call(CALL, work)
    }

    /// Makes a call that has to succeed.
    pub(crate) fn must<T, F>(&mut self, what: &str, host: usize, work: impl FnOnce(Line) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        match self.call(host, work) {
            Some(Ok(value)) => value,
            Some(Err(status)) => self.fail(format!("{what} at {host}: {status}")),
            None => self.fail(format!("{what} at {host}: no answer")),
        }
    }

    pub(crate) fn set_up(&mut self) {
        self.world.start_tracker();
        self.world.run(Duration::from_secs(1));
        for host in self.world.peers() {
            let uplink = self.dice.random_range(200_000..=4_000_000);
            self.world.net.set_uplink(host, uplink);
            self.world.start_peer(host);
        }
        self.world.run(Duration::from_secs(1));
        for host in self.world.peers() {
            self.must("create-user", host, |line| line.create_user(user(host)));
            self.must("login", host, |line| line.log_in(user(host)));
            self.peers[host].logged_in = true;
            if self.limited {
                let rate = self.dice.random_range(80_000..400_000);
                self.must("limit", host, |line| line.limit(0, rate));
                self.world.note(format!("{host} limits itself to {rate} down"));
            }
        }
        self.must("create-group", OWNER, |line| line.create_group(GROUP.to_owned()));
        for host in self.world.peers() {
            if host != OWNER && self.dice.random_ratio(3, 4) {
                self.change(host, Change::Join);
                self.change(host, Change::Accept);
            }
        }
        let count = self.dice.random_range(1..=2);
        for number in 0..count {
            let publisher = if number == 0 { OWNER } else { 2 };
            let length = match self.dice.random_range(0..10) {
                0 => 0,
                1 => 524_288,
                2 => self.dice.random_range(1..1_000),
                _ => self.dice.random_range(600_000..3_000_000),
            };
            self.publish(publisher, &format!("film{number}"), length);
        }
    }

    /// Writes a file of random bytes, and shares it if its publisher is in the group.
    pub(crate) fn publish(&mut self, publisher: usize, name: &str, length: usize) {
        let mut bytes = vec![0; length];
        self.dice.fill_bytes(&mut bytes);
        let path = self.world.directory(publisher).join(name);
        std::fs::write(&path, &bytes).expect("written");
        if self.is_in(publisher) {
            let name = name.to_owned();
            let shared = name.clone();
            self.must("upload", publisher, |line| line.upload(path, GROUP.to_owned(), shared));
            self.world.note(format!("{publisher} shares {name} of {length} bytes"));
            self.files.push(Shared { name, publisher, bytes });
        }
    }

    /// A random step.
    pub(crate) fn step(&mut self) {
        let host = self.dice.random_range(1..self.peers.len());
        let other = self.dice.random_range(0..self.peers.len());
        let last = if self.calm { 6 } else { 26 };
        match self.dice.random_range(0..=last) {
            0 => self.change(host, Change::Join),
            1 => self.change(host, Change::Accept),
            2 | 3 => self.download(host),
            4 | 5 => self.limit(host),
            6 => self.fetch_under_limit(host),
            7 => self.change(host, Change::Remove),
            8 => self.change(host, Change::Leave),
            9 => self.stop_or_resume(host),
            10 => self.log_in_or_out(host),
            11 => self.kill_or_start(host),
            12 => self.restart_tracker(),
            13 | 14 => _ = self.rogue(host),
            15 => {
                let broken = self.world.net.break_links(host, other);
                if broken > 0 {
                    self.world.note(format!("{broken} connections of {host} and {other} break"));
                    self.lost_touch(host, other);
                }
            }
            16 | 17 => self.cut_or_heal(host, other),
            18 => {
                let time = Duration::from_millis(self.dice.random_range(100..=20_000));
                self.world.note(format!("connections of {host} and {other} stall for {time:?}"));
                self.world.net.stall(host, other, sys::now() + time.as_nanos() as u64);
                self.lost_touch(host, other);
            }
            19 => self.step_clock(host),
            20 => self.fill_or_empty_disk(host),
            21 => self.flip_bits(host),
            22 | 23 => self.tracker_away(host),
            24 => self.power_cut(host),
            25 => self.remove_after_a_break(host),
            _ => self.run_long(),
        }
    }

    /// Time passes: leases and limits run out.
    pub(crate) fn run_long(&mut self) {
        let time = Duration::from_secs(self.dice.random_range(5..=40));
        self.world.note(format!("{time:?} pass"));
        self.world.run(time);
    }

    pub(crate) fn change(&mut self, host: usize, change: Change) {
        if host == OWNER {
            return;
        }
        self.take_loot();
        let (at, group, user) = (
            if matches!(change, Change::Join | Change::Leave) { host } else { OWNER },
            GROUP.to_owned(),
            user(host),
        );
        if !self.world.is_up(at) {
            return;
        }
        if change == Change::Accept {
            self.groups.place(GROUP, host).may_gain();
        }
        let answer = match change {
            Change::Join => self.call(at, |line| line.join(group)),
            Change::Leave => self.call(at, |line| line.leave(group)),
            Change::Accept => self.call(at, |line| line.accept(group, user)),
            Change::Remove => self.call(at, |line| line.remove(group, user)),
        };
        let outcome = Outcome::of(answer);
        self.world.note(format!("{change:?} of {host}: {outcome:?}"));
        let now = self.world.now();
        if let Err(fault) = self.groups.place(GROUP, host).apply(change, outcome, now) {
            self.fail(format!("user{host}: {fault}"));
        }
    }

    pub(crate) fn file_name(&self, file: usize) -> pb::FileName {
        pb::FileName { group_id: GROUP.to_owned(), name: self.files[file].name.clone() }
    }

    pub(crate) fn destination(&self, host: usize, file: usize) -> PathBuf {
        self.world.directory(host).join("films").join(&self.files[file].name)
    }

    pub(crate) fn download(&mut self, host: usize) {
        let file = self.dice.random_range(0..self.files.len());
        if !self.world.is_up(host) || self.files[file].publisher == host {
            return;
        }
        let (name, destination) = (self.file_name(file), self.destination(host, file));
        let answer = self.call(host, |line| line.download(name, destination));
        self.world.note(format!("{host} downloads film{file}: {}", brief(&answer)));
    }

    pub(crate) fn limit(&mut self, host: usize) {
        if self.limited || !self.world.is_up(host) {
            return;
        }
        let mut rate = || match self.dice.random_range(0..3) {
            0 => 0,
            1 => self.dice.random_range(50_000..300_000),
            _ => self.dice.random_range(300_000..2_000_000),
        };
        let (up, down) = (rate(), rate());
        let answer = self.call(host, |line| line.limit(up, down));
        self.world.note(format!("{host} limits itself to {up} up and {down} down: {}", brief(&answer)));
    }

    /// Whether a peer's user is the owner or a member.
    pub(crate) fn is_in(&mut self, host: usize) -> bool {
        host == OWNER || self.groups.place(GROUP, host).is_member()
    }

    pub(crate) fn stop_or_resume(&mut self, host: usize) {
        let file = self.dice.random_range(0..self.files.len());
        if !self.world.is_up(host) {
            return;
        }
        let name = self.file_name(file);
        let stop = self.dice.random();
        let answer = match stop {
            true => self.call(host, |line| line.stop_download(name)),
            false => self.call(host, |line| line.resume_download(name)),
        };
        let what = if stop { "stops" } else { "resumes" };
        self.world.note(format!("{host} {what} film{file}: {}", brief(&answer)));
    }

    pub(crate) fn log_in_or_out(&mut self, host: usize) {
        if !self.world.is_up(host) {
            return;
        }
        let out = self.peers[host].logged_in;
        let answer = match out {
            true => self.call(host, |line| line.log_out()),
            false => self.call(host, |line| line.log_in(user(host))),
        };
        self.world.note(format!("{host} logs {}: {}", if out { "out" } else { "in" }, brief(&answer)));
        if matches!(answer, Some(Ok(()))) {
            self.peers[host].logged_in = !out;
        }
        self.peers[host].connected = None;
    }

    /// A user's certificate and ticket are used by a client that never stops. Returns whether it began.
    pub(crate) fn rogue(&mut self, host: usize) -> bool {
        let file = self.dice.random_range(0..self.files.len());
        let idle = host == OWNER || self.files[file].bytes.is_empty() || self.rogues.len() > 2;
        if idle || !self.world.is_up(host) {
            return false;
        }
        let (name, directory) = (self.file_name(file), self.world.directory(TRACKER));
        let ca = std::fs::read_to_string(directory.join("ca.pem")).expect("a certificate");
        let answer = self.call(host, |line| rogue::kit(line, ca, name));
        self.world.note(format!("{host} turns rogue for film{file}: {}", brief(&answer)));
        let began = matches!(answer, Some(Ok(_)));
        if let Some(Ok(kit)) = answer {
            let loot = Arc::new(Mutex::new(Vec::new()));
            let kit = Arc::new(kit);
            let tasks = [
                self.world.spawn(rogue::run(Arc::clone(&kit), Arc::clone(&loot))),
                self.world.spawn(rogue::watch(kit, Arc::clone(&loot))),
            ];
            self.rogues.push(Rogue { host, loot, late: (Duration::ZERO, 0), tasks });
        }
        began
    }
}

/// An answer in a few words.
pub(crate) fn brief<T>(answer: &Option<Result<T, Status>>) -> String {
    match answer {
        None => "no answer".to_owned(),
        Some(Ok(_)) => "done".to_owned(),
        Some(Err(status)) => match proto::reason::Reason::of(status) {
            Some(reason) => reason.as_str().to_owned(),
            None => format!("{:?}", status.code()),
        },
    }
}
