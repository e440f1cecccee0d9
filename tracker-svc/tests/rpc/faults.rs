//! Faults around the database: power cuts, another process that holds it, many changes at once, and schemas
//! of other versions.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use proto::{domain::Username, pb::*, reason::Reason};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus as Rng};
use testkit::{
    client::{failed, refused},
    tracker::Tracker,
};
use tonic::Code;
use tracker_core::Origin;
use tracker_svc::store::{
    Accounts as _,
    sqlite::{DATABASE, OpenError, Sqlite},
};

/// SQLite's log: a header, and frames of a header and a page each.
const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4_096;

fn name(number: usize) -> Username {
    format!("user{number}").parse().expect("a username")
}

fn log_of(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(format!("{DATABASE}-wal"))).expect("the log")
}

/// Opens the database as a power cut left it. The first `acknowledged` accounts must be there.
async fn has_accounts(database: &[u8], log: &[u8], acknowledged: usize, what: &str) {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(DATABASE), database).expect("written");
    fs::write(dir.path().join(format!("{DATABASE}-wal")), log).expect("written");
    let store = Sqlite::open(dir.path()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    for number in 0..acknowledged {
        let found = store.credentials(&name(number)).await.expect("a read");
        assert!(found.is_some(), "{what}: account {number} of {acknowledged} is lost");
    }
    store.close().await;
}

#[tokio::test]
async fn a_power_cut_loses_no_acknowledged_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Sqlite::open(dir.path()).await.expect("a store");
    let database = fs::read(dir.path().join(DATABASE)).expect("the database");
    // The length of the log when each account was acknowledged. The commit has synced that much.
    let mut lengths = vec![log_of(dir.path()).len()];
    for number in 0..16 {
        let origin = Origin { actor: None, ip: None, request: "x".into(), at: SystemTime::now() };
        store.create_account(&name(number), "hash", None, &origin).await.expect("an account");
        lengths.push(log_of(dir.path()).len());
    }
    let log = log_of(dir.path());
    assert_eq!(fs::read(dir.path().join(DATABASE)).expect("the database"), database, "all is in the log");
    assert!(lengths.is_sorted_by(|a, b| a < b) && lengths[0] > LOG_HEADER, "{lengths:?}");
    let acknowledged = |length: usize| lengths.iter().filter(|there| **there <= length).count() - 1;
    // Every prefix of whole frames, and some that end within one.
    for length in (lengths[0]..=log.len()).step_by(FRAME) {
        has_accounts(&database, &log[..length], acknowledged(length), "a prefix").await;
    }
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut rng = Rng::seed_from_u64(seed);
    for _ in 0..60 {
        let length = rng.random_range(lengths[0]..=log.len());
        has_accounts(&database, &log[..length], acknowledged(length), "a prefix").await;
        // Of what was written after a commit, some sectors are there, and some are not.
        let mut some = log.clone();
        for sector in some[length..].chunks_mut(512) {
            if rng.random() {
                sector.fill(0);
            }
        }
        has_accounts(&database, &some, acknowledged(length), "some sectors").await;
    }
}

#[tokio::test]
async fn a_database_that_another_process_holds_is_waited_for_and_then_the_call_fails() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    let other = rusqlite::Connection::open(tracker.data_dir().join(DATABASE)).expect("opened");
    other.execute_batch("BEGIN IMMEDIATE").expect("held");
    let since = Instant::now();
    let request = CreateGroupRequest { group_id: "g1".into() };
    let (mut writing, mut reading) = (ann.groups(), ann.groups());
    let (written, read) =
        tokio::join!(writing.create_group(request), reading.list_groups(ListGroupsRequest::default()));
    failed(written, Code::Unavailable);
    read.expect("reading needs no turn");
    assert!(since.elapsed() < Duration::from_secs(9), "{:?}", since.elapsed());
    other.execute_batch("ROLLBACK").expect("let go");
    ann.create_group("g1").await.expect("a group");
}

#[tokio::test]
async fn of_many_changes_at_once_the_outcome_is_that_of_some_order() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    ann.create_group("g1").await.expect("a group");
    let mut asking = Vec::new();
    for number in 0..25 {
        let user = tracker.user(name(number).as_str()).await;
        user.join_group("g1").await.expect("a request");
        asking.push(user.name);
    }
    let calls = asking.iter().map(|user| {
        let (yes, no) = (ann.clone(), ann.clone());
        async move {
            let accept = AcceptJoinRequestRequest { group_id: "g1".into(), username: user.clone() };
            let remove = RemoveMemberRequest { group_id: "g1".into(), username: user.clone() };
            let (mut yes, mut no) = (yes.groups(), no.groups());
            tokio::join!(yes.accept_join_request(accept), no.remove_member(remove))
        }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    let mut expected = BTreeSet::from(["ann".to_owned()]);
    for (user, (accepted, removed)) in asking.iter().zip(outcomes) {
        accepted.expect("nothing stands in the way of it");
        match removed {
            // The removal came second.
            Ok(_) => {}
            // The removal came first, when there was no such member.
            removed => {
                refused(removed, Reason::UserNotFound);
                expected.insert(user.clone());
            }
        }
    }
    let request = ListMembersRequest { group_id: "g1".into(), ..Default::default() };
    let members = ann.groups().list_members(request).await.expect("a list").into_inner().members;
    assert_eq!(members.into_iter().map(|member| member.username).collect::<BTreeSet<_>>(), expected);
}

/// Makes a database by these migrations, and an account in it.
async fn database_of(dir: &Path, migrations: &Path) {
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(dir.join(DATABASE)).create_if_missing(true);
    let pool = sqlx::SqlitePool::connect_with(options).await.expect("a database");
    let migrator = sqlx::migrate::Migrator::new(migrations).await.expect("migrations");
    migrator.run(&pool).await.expect("a schema");
    let sql = "INSERT INTO accounts (username, password, created_at) VALUES ('user0', 'hash', 0)";
    sqlx::query(sql).execute(&pool).await.expect("an account");
    pool.close().await;
}

#[tokio::test]
async fn an_older_schema_is_brought_up_to_date_and_a_newer_one_is_left_alone() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let entries = fs::read_dir(&own).expect("migrations").map(|entry| entry.expect("an entry"));
    // The other database has a directory of its own there.
    let mut files: Vec<_> =
        entries.filter(|entry| entry.path().is_file()).map(|entry| entry.file_name()).collect();
    files.sort();
    let some = tempfile::tempdir().expect("a directory");
    for file in &files {
        fs::copy(own.join(file), some.path().join(file)).expect("copied");
        let dir = tempfile::tempdir().expect("a directory");
        database_of(dir.path(), some.path()).await;
        let store = Sqlite::open(dir.path()).await.unwrap_or_else(|error| panic!("{file:?}: {error}"));
        assert!(store.credentials(&name(0)).await.expect("a read").is_some(), "{file:?}");
        store.close().await;
    }
    fs::write(some.path().join("9999_later.sql"), "CREATE TABLE later (x)").expect("written");
    let dir = tempfile::tempdir().expect("a directory");
    database_of(dir.path(), some.path()).await;
    let before = fs::read(dir.path().join(DATABASE)).expect("the database");
    let refused = Sqlite::open(dir.path()).await.err().expect("a later version made it");
    assert!(matches!(refused, OpenError::Schema(_)), "{refused}");
    assert!(Sqlite::open_beside(dir.path()).await.is_err());
    let other = rusqlite::Connection::open(dir.path().join(DATABASE)).expect("opened");
    let later: i64 =
        other.query_row("SELECT count(*) FROM later", [], |row| row.get(0)).expect("it is there");
    assert_eq!((later, fs::read(dir.path().join(DATABASE)).expect("the database").len()), (0, before.len()));
}
