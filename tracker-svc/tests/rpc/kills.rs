//! A tracker process that is killed again and again while clients change things. What it acknowledged must be
//! there when it runs again, and nothing else may have changed.
//!
//! The seed decides what the clients do, and after how many acknowledged calls the tracker is killed. Other
//! calls are running then. `KILL_SEED` repeats a run, and `KILL_ROUNDS` sets the number of kills.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use proto::{
    pb::*,
    reason::{Reason, retry_after},
};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus as Rng};
use testkit::{
    client::{Client as User, PASSWORD, endpoint},
    content::manifest,
    process::{TrackerProcess, binary},
};
use tokio::sync::watch;
use tonic::{Status, transport::Channel};
use tracker_svc::store::sqlite::DATABASE;

/// Clients that change things at the same time, each in a group of its own.
const CLIENTS: usize = 4;
/// Accounts that each client lets into its group and removes again.
const GUESTS: usize = 2;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect(variable))
}

fn program(args: &[&str]) -> Command {
    binary(env!("CARGO_BIN_EXE_tracker-svc"), args)
}

fn connect(tracker: &TrackerProcess) -> Channel {
    let ca = std::fs::read_to_string(tracker.ca_file()).expect("the CA's certificate");
    endpoint(tracker.address(), &ca, None).connect_lazy()
}

fn user(channel: &Channel, token: &str) -> User {
    User::anonymous(channel.clone()).with_token(Some(token))
}

/// What a client knows of the tracker: `Some` for what was acknowledged, `None` for what an unanswered call
/// may or may not have changed.
struct Client {
    group: String,
    /// The token of the group's owner.
    owner: String,
    /// Name and token of each guest.
    guests: Vec<(String, String)>,
    members: BTreeMap<String, Option<bool>>,
    files: BTreeMap<String, Option<bool>>,
    /// Sessions of the owner besides the one that is used, by their tokens.
    sessions: BTreeMap<String, Option<bool>>,
    rng: Rng,
}

async fn account(channel: &Channel, name: &str) -> String {
    let anybody = User::anonymous(channel.clone());
    anybody.create_user(name, PASSWORD).await.expect("an account");
    anybody.login(name, PASSWORD).await.expect("a session").session_token
}

/// Whether an earlier try of the same call had this effect already.
fn is_done(result: Result<(), Status>, by: Reason) -> Result<(), Status> {
    match result {
        Err(status) if Reason::of(&status) == Some(by) => Ok(()),
        result => result,
    }
}

impl Client {
    async fn new(channel: &Channel, number: usize, seed: u64) -> Self {
        let name = format!("owner{number}");
        let owner = account(channel, &name).await;
        let group = format!("group{number}");
        user(channel, &owner).create_group(&group).await.expect("a group");
        let mut guests = Vec::new();
        for guest in 0..GUESTS {
            let name = format!("guest{number}-{guest}");
            let token = account(channel, &name).await;
            guests.push((name, token));
        }
        let members = guests.iter().map(|(name, _)| (name.clone(), Some(false))).collect();
        let rng = Rng::seed_from_u64(seed.wrapping_add(number as u64));
        let (files, sessions) = (BTreeMap::new(), BTreeMap::new());
        Self { group, owner, guests, members, files, sessions, rng }
    }

    /// Changes one thing after the other until the tracker is killed.
    async fn change_things(
        &mut self,
        channel: &Channel,
        acknowledged: &watch::Sender<u64>,
        killed: &AtomicBool,
    ) {
        loop {
            match self.change(channel).await {
                Ok(()) => acknowledged.send_modify(|count| *count += 1),
                Err(status) if Reason::of(&status) == Some(Reason::RateLimited) => {
                    // The pause that the tracker asks for.
                    tokio::time::sleep(retry_after(&status).unwrap_or(Duration::from_millis(50))).await;
                }
                Err(status) if killed.load(Ordering::SeqCst) && Reason::of(&status).is_none() => return,
                Err(status) => panic!("{}: {status:?}", self.group),
            }
        }
    }

    /// Makes one change. Its outcome is unknown until the answer is there.
    async fn change(&mut self, channel: &Channel) -> Result<(), Status> {
        let owner = user(channel, &self.owner);
        let group = self.group.clone();
        match self.rng.random_range(0..8) {
            0..3 => {
                let (name, token) = self.guests[self.rng.random_range(0..GUESTS)].clone();
                let is_member = self.members.insert(name.clone(), None).flatten();
                if is_member == Some(true) {
                    owner.remove(&group, &name).await?;
                } else {
                    is_done(user(channel, &token).join_group(&group).await, Reason::AlreadyAsked)?;
                    owner.accept(&group, &name).await?;
                }
                self.members.insert(name, Some(is_member != Some(true)));
            }
            3..6 => {
                let name = format!("file{}", self.rng.random_range(0..6));
                let is_listed = self.files.insert(name.clone(), None).flatten();
                if is_listed == Some(true) {
                    let request = UnpublishFileRequest { group_id: group, name: name.clone() };
                    owner.files().unpublish_file(request).await?;
                } else {
                    owner.publish(&group, &manifest(&name, name.as_bytes())).await?;
                }
                self.files.insert(name, Some(is_listed != Some(true)));
            }
            6 => {
                let name = format!("owner{}", &group["group".len()..]);
                let session = User::anonymous(channel.clone()).login(&name, PASSWORD).await?;
                let token = session.session_token;
                self.sessions.insert(token, Some(true));
            }
            _ => {
                let Some(token) = self
                    .sessions
                    .iter()
                    .find(|(_, lives)| **lives == Some(true))
                    .map(|(token, _)| token.clone())
                else {
                    return Ok(());
                };
                self.sessions.insert(token.clone(), None);
                user(channel, &token).auth().logout(LogoutRequest {}).await?;
                self.sessions.insert(token, Some(false));
            }
        }
        Ok(())
    }

    /// Compares what the tracker has with what it acknowledged, and learns what was unknown.
    async fn check(&mut self, channel: &Channel) {
        let owner = user(channel, &self.owner);
        let request =
            ListMembersRequest { group_id: self.group.clone(), page_size: 100, ..Default::default() };
        let there = owner.groups().list_members(request).await.expect("the group").into_inner().members;
        let there: Vec<String> = there.into_iter().map(|member| member.username).collect();
        agree("member", &mut self.members, |name| there.contains(name));
        let request = ListFilesRequest { group_id: self.group.clone(), page_size: 100, ..Default::default() };
        let there = owner.files().list_files(request).await.expect("the group").into_inner().files;
        let there: Vec<String> = there.into_iter().filter_map(|file| Some(file.header?.name)).collect();
        agree("file", &mut self.files, |name| there.contains(name));
        let mut living = Vec::new();
        for token in self.sessions.keys() {
            let session = user(channel, token);
            if session.auth().who_am_i(WhoAmIRequest {}).await.is_ok() {
                living.push(token.clone());
            }
        }
        agree("session", &mut self.sessions, |token| living.contains(token));
        // A user may have twenty sessions.
        for token in living {
            let session = user(channel, &token);
            session.auth().logout(LogoutRequest {}).await.expect("it lives");
        }
        self.sessions.clear();
    }
}

fn agree(what: &str, known: &mut BTreeMap<String, Option<bool>>, is_there: impl Fn(&String) -> bool) {
    for (name, known) in known {
        let is_there = is_there(name);
        assert!(known.is_none_or(|known| known == is_there), "{what} {name}: {known:?} was acknowledged");
        *known = Some(is_there);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tracker_that_is_killed_at_any_moment_loses_nothing_that_it_acknowledged() {
    let (seed, rounds) =
        (number("KILL_SEED").unwrap_or_else(rand::random), number("KILL_ROUNDS").unwrap_or(20));
    println!("KILL_SEED={seed} KILL_ROUNDS={rounds}");
    let mut rng = Rng::seed_from_u64(seed);
    let mut tracker = TrackerProcess::start(program, &[]);
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(Client::new(&connect(&tracker), number, seed).await);
    }
    let (mut slowest, mut calls) = (Duration::ZERO, 0);
    for _ in 0..rounds {
        let (acknowledged, killed) = (watch::Sender::new(0), AtomicBool::new(false));
        let after = rng.random_range(1..=100);
        let channel = connect(&tracker);
        let work = clients.iter_mut().map(|client| client.change_things(&channel, &acknowledged, &killed));
        let mut count = acknowledged.subscribe();
        let kill = async {
            calls += *count.wait_for(|count| *count >= after).await.expect("the sender lives");
            killed.store(true, Ordering::SeqCst);
            tracker.kill();
        };
        tokio::join!(futures_util::future::join_all(work), kill);
        let since = Instant::now();
        tracker.start_again();
        slowest = slowest.max(since.elapsed());
        let database = rusqlite::Connection::open(tracker.data_dir().join(DATABASE)).expect("the database");
        let check: String =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
        assert_eq!(check, "ok");
        for client in &mut clients {
            client.check(&connect(&tracker)).await;
        }
    }
    println!("{rounds} kills, {calls} acknowledged calls; the slowest start took {slowest:?}");
}
