//! What trackers share, and how soon one hears of what another changed.

use std::thread;

use proto::{pb, reason::Reason};
use testkit::{authority::csr, client::refused, content::manifest};
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt as _;

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
    let find = || {
        let request =
            pb::FindPeersRequest { group_id: "films".into(), name: "film".into(), ..Default::default() };
        let mut swarm = bob_there.swarm();
        async move { swarm.find_peers(request).await }
    };
    for _ in 0..30 {
        ann.admit("films", &bob).await;
        find().await.expect("a member finds sources");
        ann.remove("films", "bob").await.expect("removed");
        refused(find().await, Reason::NotAMember);
    }
}

#[tokio::test]
async fn a_stream_at_another_tracker_is_cut_in_time() {
    let cluster = Cluster::new();
    let (here, there) = (cluster.tracker(), cluster.tracker());
    user(&here, "ann").await;
    let mut longest = Duration::ZERO;
    for _ in 0..5 {
        let ann_there = anonymous(&there).logged_in("ann").await;
        let issued =
            ann_there.auth().issue_peer_cert(pb::IssuePeerCertRequest { csr_der: csr().into() }).await;
        let peer_id = issued.expect("a certificate").into_inner().peer_id;
        let hello = pb::AnnounceHello { peer_id, port: 7000, ..Default::default() };
        let first = pb::AnnounceRequest { hello: Some(hello), ..Default::default() };
        let messages = tokio_stream::iter([first]).chain(tokio_stream::pending());
        let mut answers = ann_there.swarm().announce(messages).await.expect("a stream").into_inner();
        answers.message().await.expect("a message").expect("not the end");
        let ann_here = anonymous(&here).logged_in("ann").await;
        ann_here.auth().logout_all(pb::LogoutAllRequest {}).await.expect("logged out");
        let start = Instant::now();
        let ended = async {
            while answers.message().await?.is_some() {}
            Ok::<_, tonic::Status>(())
        };
        let status = timeout(testkit::wait::PATIENCE, ended).await.expect("it ends");
        longest = longest.max(start.elapsed());
        refused(status, Reason::NotLoggedIn);
    }
    println!("a stream at another tracker was cut after {longest:?} at most");
    assert!(longest < CUT, "{longest:?}");
}
