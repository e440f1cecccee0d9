//! The database or a tracker goes away.

use proto::{pb, reason::Reason};
use testkit::{client::refused, content::manifest, relay::Relay, wait::eventually_within};
use tokio::time::{Instant, timeout};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::*;

/// How long trackers may take until they serve again after the database is back.
const RECOVERY: Duration = Duration::from_secs(10);

async fn status(user: &Client) -> ServingStatus {
    let mut health = HealthClient::new(user.service());
    health.check(HealthCheckRequest::default()).await.expect("health is answered").into_inner().status()
}

/// A call that reads the store.
async fn read(user: &Client) -> Result<(), tonic::Status> {
    user.auth().who_am_i(pb::WhoAmIRequest {}).await.map(drop)
}

/// While the database is away, calls fail in time and the tracker says that it is not serving. When it is back,
/// the tracker serves again, and all that was acknowledged is there.
async fn is_away_and_back(cluster: &mut Cluster, away: fn(&mut Postgres), back: fn(&mut Postgres)) {
    let tracker = cluster.tracker();
    let ann = user(&tracker, "ann").await;
    assert_eq!(status(&ann).await, ServingStatus::Serving);
    let mut acknowledged = Vec::new();
    // Calls go on until the first one fails.
    let writing = async {
        for number in 0.. {
            let group = format!("group{number}");
            let start = Instant::now();
            match ann.create_group(&group).await {
                Ok(()) => acknowledged.push(group),
                Err(error) => return (error, start.elapsed()),
            }
            // An account owns a limited number of groups.
            if acknowledged.len() > 20 {
                let (oldest, start) = (acknowledged.remove(0), Instant::now());
                if let Err(error) = ann.delete_group(&oldest).await {
                    return (error, start.elapsed());
                }
            }
        }
        unreachable!("numbers don't end")
    };
    let leaving = async {
        eventually_within(RECOVERY, "some groups", async || {
            cluster.postgres.sql("SELECT count(*) FROM groups").parse::<u32>().is_ok_and(|groups| groups > 5)
        })
        .await;
        away(&mut cluster.postgres);
        Instant::now()
    };
    let ((error, took), since) = tokio::join!(writing, leaving);
    assert_eq!(Reason::of(&error), Some(Reason::NotServing), "{error:?}");
    assert!(took < ERROR, "the call was refused after {took:?}");
    eventually_within(ERROR, "it is not serving", async || status(&ann).await == ServingStatus::NotServing)
        .await;
    println!("a call failed after {took:?}, NOT_SERVING after {:?}", since.elapsed());
    let start = Instant::now();
    refused(read(&ann).await, Reason::NotServing);
    assert!(start.elapsed() < ERROR, "a read was refused after {:?}", start.elapsed());
    back(&mut cluster.postgres);
    let start = Instant::now();
    eventually_within(RECOVERY, "it serves again", async || {
        status(&ann).await == ServingStatus::Serving && read(&ann).await.is_ok()
    })
    .await;
    println!("serving again after {:?}", start.elapsed());
    for group in &acknowledged {
        ann.members(group).await.unwrap_or_else(|error| panic!("{group} is lost: {error:?}"));
    }
    ann.create_group("after").await.expect("it can be written");
}

#[tokio::test]
async fn the_database_is_killed_and_restarted() {
    is_away_and_back(&mut Cluster::new(), Postgres::kill, Postgres::start_again).await;
}

#[tokio::test]
async fn the_database_is_frozen() {
    is_away_and_back(&mut Cluster::new(), |postgres| postgres.freeze(), |postgres| postgres.thaw()).await;
}

#[tokio::test]
async fn a_restart_between_calls_is_not_noticed() {
    let mut cluster = Cluster::new();
    let tracker = cluster.tracker();
    let ann = user(&tracker, "ann").await;
    for number in 0..3 {
        cluster.postgres.kill();
        cluster.postgres.start_again();
        read(&ann).await.expect("a read on a connection that was lost");
        cluster.postgres.kill();
        cluster.postgres.start_again();
        ann.create_group(&format!("group{number}")).await.expect("a write on a connection that was lost");
    }
}

#[tokio::test]
async fn a_killed_tracker_loses_nothing_and_holds_nobody_up() {
    let cluster = Cluster::new();
    let (mut here, there) = (cluster.tracker(), cluster.tracker());
    let ann = user(&here, "ann").await;
    let ann_there = at(&there, &ann);
    for round in 0..10 {
        let mut acknowledged = Vec::new();
        // Several at once, so that the tracker is killed within a transaction.
        let calls = (0..3).map(|number| {
            let (ann, group) = (ann.clone(), format!("group{round}-{number}"));
            async move { ann.create_group(&group).await.ok().map(|()| group) }
        });
        let killing = async {
            tokio::task::yield_now().await;
            here.kill();
        };
        let (made, ()) = tokio::join!(futures_util::future::join_all(calls), killing);
        acknowledged.extend(made.into_iter().flatten());
        let start = Instant::now();
        ann_there.create_group(&format!("other{round}")).await.expect("the other tracker writes");
        assert!(start.elapsed() < ERROR, "{:?}", start.elapsed());
        for group in acknowledged {
            ann_there.members(&group).await.expect("what was acknowledged is there");
            ann_there.delete_group(&group).await.expect("deleted");
        }
        ann_there.delete_group(&format!("other{round}")).await.expect("deleted");
        here.start_again();
    }
}

#[tokio::test]
async fn a_tracker_that_is_cut_off_from_the_database_answers_nothing_and_sends_its_peers_away() {
    let cluster = Cluster::new();
    let relay = Relay::to(&cluster.postgres.socket());
    let (here, there) = (cluster.tracker_at(&cluster.postgres.url_by(&relay.address())), cluster.tracker());
    let (ann, bob) = (user(&there, "ann").await, user(&there, "bob").await);
    let (ann_here, bob_here) = (at(&here, &ann), at(&here, &bob));
    ann.found("films", &[&bob]).await;
    let file = ann.publish("films", &manifest("film", b"content")).await.expect("a file").file_id;
    let (anns, bobs) = (peer(&ann).await, peer(&bob).await);
    let ticket = async |user: &Client, peer: &str| {
        let file = pb::FileRef { group_id: "films".into(), file_id: file.clone() };
        let request = pb::IssueTicketsRequest { peer_id: peer.into(), files: vec![file] };
        user.swarm().issue_tickets(request).await.map(drop)
    };
    let sources = async |user: &Client| {
        let request =
            pb::FindPeersRequest { group_id: "films".into(), name: "film".into(), ..Default::default() };
        user.swarm().find_peers(request).await.map(drop)
    };
    ticket(&bob_here, &bobs).await.expect("a member gets a ticket");
    let streams = [announces(&ann_here, &anns).await, announces(&bob_here, &bobs).await];

    relay.hold();
    let cut = Instant::now();
    ann.remove("films", "bob").await.expect("removed at the other tracker");
    let [first, second] = streams;
    let ends = async {
        for end in [ended(first).await, ended(second).await] {
            refused(end, Reason::NotServing);
        }
        cut.elapsed()
    };
    let (streams, tickets, found) = tokio::join!(ends, ticket(&bob_here, &bobs), sources(&bob_here));
    println!("the streams ended after {streams:?}, the calls after {:?}", cut.elapsed());
    refused(tickets, Reason::NotServing);
    refused(found, Reason::NotServing);
    assert!(cut.elapsed() < ERROR, "{:?}", cut.elapsed());
    assert_eq!(status(&ann_here).await, ServingStatus::NotServing);
    refused(ticket(&bob_here, &bobs).await, Reason::NotServing);
    refused(ticket(&ann_here, &anns).await, Reason::NotServing);
    // The peers go on at the other tracker.
    let moved = announces(&ann, &anns).await;
    ticket(&ann, &anns).await.expect("a ticket");

    relay.mend();
    eventually_within(RECOVERY, "it serves again", async || {
        status(&ann_here).await == ServingStatus::Serving && ticket(&ann_here, &anns).await.is_ok()
    })
    .await;
    refused(ticket(&bob_here, &bobs).await, Reason::NotAMember);
    refused(sources(&bob_here).await, Reason::NotAMember);
    // A stream that is opened now stays.
    let mut back = announces(&bob_here, &bobs).await;
    timeout(ERROR, back.message()).await.expect_err("nothing is said, and it does not end");
    drop(moved);
}
