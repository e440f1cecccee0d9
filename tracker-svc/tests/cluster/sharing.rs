//! What trackers share, and how soon one hears of what another changed.

use std::thread;

use proto::{pb, reason::Reason};
use testkit::{authority::csr, client::refused, content::manifest, wait::eventually};
use tokio::time::Instant;
use tracker_core::quota::{Quota, SESSIONS};

use super::*;

/// How soon a running stream ends at every tracker: the promise.
const CUT: Duration = Duration::from_secs(2);

#[tokio::test]
async fn trackers_that_start_at_once_on_an_empty_database_serve_one_network() {
    let cluster = Cluster::new();
    let trackers: Vec<TrackerProcess> = thread::scope(|scope| {
        let starting: Vec<_> = (0..3).map(|_| scope.spawn(|| cluster.tracker())).collect();
        starting.into_iter().map(|tracker| tracker.join().expect("it starts")).collect()
    });
    let ann = user(&trackers[0], "ann").await;
    let mut keys = Vec::new();
    for tracker in &trackers {
        let authority = std::fs::read_to_string(tracker.ca_file()).expect("a certificate");
        assert_eq!(authority, std::fs::read_to_string(trackers[0].ca_file()).expect("a certificate"));
        assert!(!tracker.data_dir().join("ca.key").exists(), "the key is in the database only");
        // A session that one tracker opened is valid at all, and so is a password.
        at(tracker, &ann).auth().who_am_i(pb::WhoAmIRequest {}).await.expect("logged in");
        anonymous(tracker).logged_in("ann").await;
        let found = ann.auth().get_tracker_keys(pb::GetTrackerKeysRequest {}).await.expect("keys");
        keys.push(found.into_inner().keys);
        let issued = at(tracker, &ann)
            .auth()
            .issue_peer_cert(pb::IssuePeerCertRequest { csr_der: csr().into() })
            .await;
        assert_eq!(issued.expect("a certificate").into_inner().authority_pem, authority);
    }
    assert!(!keys[0].is_empty() && keys.windows(2).all(|two| two[0] == two[1]), "one set of ticket keys");
    assert_eq!(cluster.postgres.sql("SELECT count(*) FROM accounts"), "1");
}

#[tokio::test]
async fn the_keys_in_the_database_are_encrypted_under_the_cluster_key() {
    let cluster = Cluster::new();
    let tracker = cluster.tracker();
    user(&tracker, "ann").await;
    let dump = cluster.postgres.sql("SELECT encode(sealed, 'escape') FROM secrets");
    assert!(!dump.contains("PRIVATE KEY") && !dump.contains("seed"), "{dump}");
    let other = tempfile::NamedTempFile::new().expect("a file");
    let dir = tempfile::tempdir().expect("a directory");
    for (key, says) in
        [(&[9; 32][..], "must name the key that the first tracker used"), (b"short", "is not a cluster key")]
    {
        std::fs::write(other.path(), key).expect("written");
        let output = program(&["serve", "--listen", "127.0.0.1:0", "--database", &cluster.postgres.url()])
            .env("TRACKER_CLUSTER_KEY", other.path())
            .env("TRACKER_DATA_DIR", dir.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(says), "{said}");
    }
}

#[tokio::test]
async fn a_removed_member_gets_no_ticket_at_any_tracker() {
    let cluster = Cluster::new();
    let (here, there) = (cluster.tracker(), cluster.tracker());
    let (ann, bob) = (user(&here, "ann").await, user(&here, "bob").await);
    ann.create_group("films").await.expect("a group");
    ann.publish("films", &manifest("film", b"content")).await.expect("a file");
    let bob_there = at(&there, &bob);
    // A daemon's calls: its announce stream runs at the same tracker.
    let peer = peer(&bob_there).await;
    let announcing = announces(&bob_there, &peer).await;
    let file_id = find(&ann).await.expect("sources").file_id;
    for _ in 0..20 {
        ann.admit("films", &bob).await;
        for (call, outcome) in reads(&bob_there, &peer, &file_id).await {
            outcome.unwrap_or_else(|status| panic!("{call} of a member: {status}"));
        }
        ann.remove("films", "bob").await.expect("removed");
        for (call, outcome) in reads(&bob_there, &peer, &file_id).await {
            assert_eq!(Reason::of(&outcome.expect_err(call)), Some(Reason::NotAMember), "{call}");
        }
    }
    // What the stream shows of the session is no proof: it ends a little later.
    ann.admit("films", &bob).await;
    bob.auth().logout(pb::LogoutRequest {}).await.expect("logged out");
    for (call, outcome) in reads(&bob_there, &peer, &file_id).await {
        assert_eq!(Reason::of(&outcome.expect_err(call)), Some(Reason::NotLoggedIn), "{call}");
    }
    refused(ended(announcing).await, Reason::NotLoggedIn);
}

async fn find(user: &Client) -> Result<pb::FindPeersResponse, Status> {
    let request =
        pb::FindPeersRequest { group_id: "films".into(), name: "film".into(), ..Default::default() };
    Ok(user.swarm().find_peers(request).await?.into_inner())
}

/// The outcomes of the calls that a daemon makes by itself.
async fn reads(user: &Client, peer: &str, file_id: &[u8]) -> [(&'static str, Result<(), Status>); 4] {
    let group_id = || "films".to_owned();
    let file = pb::FileRef { group_id: group_id(), file_id: file_id.to_vec().into() };
    let tickets = pb::IssueTicketsRequest { peer_id: peer.into(), files: vec![file] };
    let manifest = pb::GetManifestRequest { group_id: group_id(), name: "film".into() };
    let list = pb::ListFilesRequest { group_id: group_id(), ..Default::default() };
    [
        ("FindPeers", find(user).await.map(drop)),
        ("IssueTickets", user.swarm().issue_tickets(tickets).await.map(drop)),
        ("GetManifest", user.files().get_manifest(manifest).await.map(drop)),
        ("ListFiles", user.files().list_files(list).await.map(drop)),
    ]
}

#[tokio::test]
async fn a_stream_at_another_tracker_is_cut_in_time() {
    let cluster = Cluster::new();
    let (here, there) = (cluster.tracker(), cluster.tracker());
    user(&here, "ann").await;
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let ann_there = anonymous(&there).logged_in("ann").await;
        let answers = announces(&ann_there, &peer(&ann_there).await).await;
        let ann_here = anonymous(&here).logged_in("ann").await;
        ann_here.auth().logout_all(pb::LogoutAllRequest {}).await.expect("logged out");
        let start = Instant::now();
        refused(ended(answers).await, Reason::NotLoggedIn);
        longest = longest.max(start.elapsed());
    }
    println!("a stream at another tracker was cut after {longest:?} at most");
    assert!(longest < CUT, "{longest:?}");
}

/// Guesses of a password that need no wait between them.
const FREE: usize = 5;

#[tokio::test]
async fn guesses_of_a_password_are_counted_over_all_trackers() {
    let cluster = Cluster::new();
    let trackers = [cluster.tracker(), cluster.tracker(), cluster.tracker()];
    user(&trackers[0], "ann").await;
    let guess =
        async |number: usize, password: &str| anonymous(&trackers[number % 3]).login("ann", password).await;
    for number in 0..FREE {
        refused(guess(number, "not this one either").await, Reason::BadCredentials);
    }
    let counted =
        || cluster.postgres.sql("SELECT failures || ' ' || known FROM logins WHERE key = 'ann 127.0.0.0'");
    assert_eq!(counted(), "5 true", "ann has logged in from here before");
    // The test does not depend on how long a guess takes: as after twelve guesses, the wait is two minutes.
    cluster.postgres.sql("UPDATE logins SET failures = 12 WHERE key = 'ann 127.0.0.0'");
    for number in 0..3 {
        refused(guess(number, PASSWORD).await, Reason::RateLimited);
    }
    cluster.postgres.sql("UPDATE logins SET at = at - 128000");
    eventually("the wait is over", async || guess(1, PASSWORD).await.is_ok()).await;
    assert_eq!(counted(), "0 true");
}

#[tokio::test]
async fn guesses_at_all_trackers_at_once_gain_nothing() {
    let cluster = Cluster::new();
    let trackers = [cluster.tracker(), cluster.tracker(), cluster.tracker()];
    user(&trackers[0], "ann").await;
    let guesses = (0..30).map(|number| {
        let tracker = anonymous(&trackers[number % 3]);
        async move { Reason::of(&tracker.login("ann", "not this one").await.expect_err("it is wrong")) }
    });
    let answers = futures_util::future::join_all(guesses).await;
    let checked = answers.iter().filter(|reason| **reason == Some(Reason::BadCredentials)).count();
    // On a slow machine, some come after the first waits.
    assert!((FREE..2 * FREE).contains(&checked), "{answers:?}");
}

#[tokio::test]
async fn new_accounts_of_a_network_are_counted_over_all_trackers() {
    let cluster = Cluster::new();
    let trackers = [0, 1].map(|_| cluster.tracker_with(&[("TRACKER_LIMIT_LOCAL_ACCOUNTS", "true")]));
    let create = async |at: usize, name: &str| anonymous(&trackers[at]).create_user(name, PASSWORD).await;
    create(0, "ann").await.expect("an account");
    create(1, "bob").await.expect("an account");
    let due =
        "SELECT due - extract(epoch FROM clock_timestamp()) * 1000 BETWEEN 6000 AND 12000 FROM newcomers";
    assert_eq!(cluster.postgres.sql(due), "t", "each account is paid off in six seconds");
    // As after 600 accounts, wherever they were made.
    cluster.postgres.sql("UPDATE newcomers SET due = due + 3600000");
    for at in [0, 1] {
        refused(create(at, &format!("cem{at}")).await, Reason::RateLimited);
    }
    cluster.postgres.sql("UPDATE newcomers SET due = due - 3600000");
    create(1, "cem").await.expect("there is room again");
    assert_eq!(cluster.postgres.sql("SELECT count(*) FROM accounts"), "3");
}

#[tokio::test]
async fn sessions_and_quotas_are_counted_over_all_trackers() {
    let cluster = Cluster::new();
    let trackers = [cluster.tracker(), cluster.tracker(), cluster.tracker()];
    let ann = user(&trackers[0], "ann").await;
    // More peers than a user may have, at all trackers at once.
    let more = 4;
    let peers = (0..Quota::Peers.limit() as usize + more).map(|number| {
        let ann = at(&trackers[number % 3], &ann);
        let request = pb::IssuePeerCertRequest { csr_der: csr().into() };
        async move { ann.auth().issue_peer_cert(request).await.map(drop) }
    });
    let made = futures_util::future::join_all(peers).await;
    let refusals: Vec<_> = made.into_iter().filter_map(Result::err).collect();
    assert_eq!(refusals.len(), more);
    assert!(refusals.iter().all(|error| Reason::of(error) == Some(Reason::QuotaExceeded)), "{refusals:?}");
    // More sessions than a user may have: the first one ends, at every tracker.
    for number in 0..SESSIONS as usize {
        anonymous(&trackers[number % 3]).logged_in("ann").await;
    }
    for tracker in &trackers {
        let who = at(tracker, &ann).auth().who_am_i(pb::WhoAmIRequest {}).await;
        refused(who, Reason::NotLoggedIn);
    }
    assert_eq!(cluster.postgres.sql("SELECT count(*) FROM sessions"), SESSIONS.to_string());
}
