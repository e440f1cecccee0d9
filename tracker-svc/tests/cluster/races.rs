//! Calls at three trackers at the same moment.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use testkit::content::manifest;

use super::*;

#[tokio::test]
async fn what_fifty_calls_at_three_trackers_leave_equals_a_serial_order() {
    let cluster = Cluster::new();
    let trackers = [cluster.tracker(), cluster.tracker(), cluster.tracker()];
    let mut users = Vec::new();
    for number in 0..10 {
        users.push(user(&trackers[0], &format!("user{number}")).await);
    }
    users[0].create_group("films").await.expect("a group");
    for user in &users[1..6] {
        users[0].admit("films", user).await;
    }
    for user in &users[6..] {
        user.join_group("films").await.expect("a request");
    }
    let before: BTreeSet<String> = members(&cluster);
    let log = cluster.postgres.sql("SELECT coalesce(max(id), 0) FROM audit");
    // Several users try to act as the owner, because ownership moves meanwhile.
    let calls = (0..50_usize).map(|number| {
        let actor = at(&trackers[number % 3], &users[number % 4]);
        let target = users[(number * 7 + 3) % 10].name.clone();
        async move {
            // Most are refused. The test is about the state that they leave.
            let _ = match number % 5 {
                0 | 1 => actor.accept("films", &target).await,
                2 | 3 => actor.remove("films", &target).await,
                _ => actor.transfer("films", &target).await,
            };
        }
    });
    join_all(calls).await;
    // The audit log is in the order of commits. Replayed, it must give the state.
    let (mut members_then, mut owner) = (before, "user0".to_owned());
    let rows = cluster
        .postgres
        .sql(&format!("SELECT action || ' ' || object FROM audit WHERE id > {log} ORDER BY id"));
    for row in rows.lines() {
        let (action, object) = row.split_once(' ').expect("two words");
        let name = object.strip_prefix("films/").expect("an object in the group").to_owned();
        match action {
            "accept_request" => assert!(members_then.insert(name), "{row}"),
            "remove_member" => {
                assert_ne!(name, owner, "{row}");
                assert!(members_then.remove(&name), "{row}");
            }
            "transfer_ownership" => {
                assert!(members_then.contains(&name), "{row}");
                owner = name;
            }
            other => panic!("{other}"),
        }
    }
    assert!(!rows.is_empty(), "some calls succeeded");
    assert_eq!(members(&cluster), members_then);
    let sql = "SELECT a.username || ' ' || g.members FROM groups g JOIN accounts a ON a.id = g.owner";
    assert_eq!(cluster.postgres.sql(sql), format!("{owner} {}", members_then.len()));
    let sql = "SELECT count(*) FROM changes WHERE kind = 'member_gone'";
    let removed = rows.lines().filter(|row| row.starts_with("remove_member")).count();
    assert_eq!(cluster.postgres.sql(sql), removed.to_string());
}

fn members(cluster: &Cluster) -> BTreeSet<String> {
    let sql = "SELECT a.username FROM members m JOIN accounts a ON a.id = m.account";
    cluster.postgres.sql(sql).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn names_and_quotas_are_decided_once_for_all_trackers() {
    let cluster = Cluster::new();
    // Ten files of 9 bytes may be listed.
    let trackers = [(); 3].map(|()| cluster.tracker_with(&[("TRACKER_MAX_GROUP_BYTES", "98")]));
    let ann = user(&trackers[0], "ann").await;
    ann.create_group("films").await.expect("a group");
    // One name, claimed everywhere at once.
    let claims = (0..12).map(|number| {
        let ann = at(&trackers[number % 3], &ann);
        async move {
            ann.publish("films", &manifest("film", &[u8::try_from(number).expect("small"); 9])).await.is_ok()
        }
    });
    assert_eq!(join_all(claims).await.into_iter().filter(|won| *won).count(), 1);
    // More bytes than a group may list.
    let name = |number: usize| manifest(&format!("file{number}"), &[7; 9]);
    let claims = (0..20).map(|number| {
        let ann = at(&trackers[number % 3], &ann);
        async move { ann.publish("films", &name(number)).await }
    });
    join_all(claims).await;
    for number in 0..20 {
        let _ = ann.publish("films", &name(number)).await;
    }
    assert_eq!(cluster.postgres.sql("SELECT count(*) || ' ' || sum(length) FROM files"), "10 90");
    assert_eq!(cluster.postgres.sql("SELECT bytes FROM groups"), "90");
    // More groups than an account may own.
    let limit = usize::try_from(tracker_core::quota::Quota::GroupsOwned.limit()).expect("small");
    let claims = (0..limit + 10).map(|number| {
        let ann = at(&trackers[number % 3], &ann);
        async move { ann.create_group(&format!("group{number}")).await }
    });
    join_all(claims).await;
    // On a busy machine some calls may have been given up. The rest is claimed now.
    for number in 0..limit {
        let _ = ann.create_group(&format!("later{number}")).await;
    }
    assert_eq!(cluster.postgres.sql("SELECT count(*) FROM groups"), limit.to_string());
}
