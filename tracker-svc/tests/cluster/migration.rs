//! A tracker of its own is taken over into a shared database.

use std::fs;

use proto::{pb, reason::Reason};
use testkit::{authority::csr, client::refused, content::manifest};

use super::*;

#[tokio::test]
async fn users_stay_logged_in_when_a_tracker_is_taken_over() {
    let mut old = TrackerProcess::start(program, &[]);
    let (ann, bob) = (user(&old, "ann").await, user(&old, "bob").await);
    ann.found("films", &[&bob]).await;
    ann.join_group("none").await.expect_err("there is no such group");
    let published = ann.publish("films", &manifest("film", &[7; 700_000])).await.expect("a file");
    ann.publish("films", &manifest("gone", b"gone")).await.expect("a file");
    let gone = pb::UnpublishFileRequest { group_id: "films".into(), name: "gone".into() };
    ann.files().unpublish_file(gone).await.expect("unlisted");
    let invite = pb::CreateInviteRequest { group_id: "films".into(), uses: 2, ..Default::default() };
    ann.groups().create_invite(invite).await.expect("an invitation");
    let keys =
        ann.auth().get_tracker_keys(pb::GetTrackerKeysRequest {}).await.expect("keys").into_inner().keys;
    let certificate = pb::IssuePeerCertRequest { csr_der: csr().into() };
    let peer = ann.auth().issue_peer_cert(certificate).await.expect("a certificate").into_inner();
    old.end_meanwhile("TERM").await;

    let cluster = Cluster::new();
    let (from, to) = (old.data_dir(), cluster.postgres.url());
    let migrate = || {
        let args =
            ["migrate", "--to", &to, "--cluster-key", cluster.key.path().to_str().expect("a path"), "--from"];
        program(&args).arg(&from).output().expect("it runs")
    };
    let output = migrate();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("accounts 2, groups 1, files 1, sessions 2"), "{said}");
    let again = migrate();
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "nothing is mixed");

    let new = cluster.tracker();
    assert_eq!(
        fs::read(new.ca_file()).expect("a certificate"),
        fs::read(old.ca_file()).expect("a certificate")
    );
    let (ann_now, bob_now) = (at(&new, &ann), at(&new, &bob));
    ann_now.auth().who_am_i(pb::WhoAmIRequest {}).await.expect("still logged in");
    let found =
        ann_now.auth().get_tracker_keys(pb::GetTrackerKeysRequest {}).await.expect("keys").into_inner().keys;
    assert_eq!(found, keys, "tickets stay valid");
    let find = pb::FindPeersRequest { group_id: "films".into(), name: "film".into(), ..Default::default() };
    let found = bob_now.swarm().find_peers(find).await.expect("still a member").into_inner();
    assert_eq!(found.file_id, published.file_id);
    let manifest_again = pb::GetManifestRequest { group_id: "films".into(), name: "film".into() };
    bob_now.files().get_manifest(manifest_again).await.expect("a manifest");
    // The owner of the peer is known: another user can't announce with it.
    let hello = pb::AnnounceHello { peer_id: peer.peer_id, port: 7000, ..Default::default() };
    let first = pb::AnnounceRequest { hello: Some(hello), ..Default::default() };
    let refusal = async {
        let mut answers = bob_now.swarm().announce(tokio_stream::iter([first])).await?.into_inner();
        answers.message().await
    };
    refused(refusal.await, Reason::NotYourPeer);
    assert_eq!(cluster.postgres.sql("SELECT uses_left FROM invites"), "2");
    // New rows get new keys.
    ann_now.create_group("more").await.expect("a group");
    ann_now.publish("films", &manifest("new", b"new")).await.expect("a file");
    ann_now.remove("films", "bob").await.expect("removed");
    user(&new, "eve").await;
    assert_eq!(
        cluster.postgres.sql("SELECT members || ' ' || files FROM groups WHERE name = 'films'"),
        "1 2"
    );
    let sql =
        "SELECT manifest_bytes = (SELECT sum(bytes) FROM manifests m WHERE m.account = a.id AND state < 2)
               FROM accounts a WHERE username = 'ann'";
    assert_eq!(cluster.postgres.sql(sql), "t");

    // The old data directory can't be served from with the new database by mistake.
    let output = program(&["serve", "--listen", "127.0.0.1:0", "--database", &to])
        .env("TRACKER_CLUSTER_KEY", cluster.key.path())
        .env("TRACKER_DATA_DIR", &from)
        .output()
        .expect("it runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another --data-dir"), "two databases");
}
