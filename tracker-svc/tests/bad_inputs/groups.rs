//! Groups and requests to join them. Outsiders must learn nothing about them.

use proto::pb;
use tonic::Code;

use super::{
    client::{Client, HIDDEN, refused},
    process::Tracker,
};

async fn members(member: &Client, group: &str) -> Vec<String> {
    member.members(group).await.unwrap().into_iter().map(|member| member.username).collect()
}

async fn requests(owner: &Client, group: &str) -> Vec<String> {
    owner.requests(group).await.unwrap()
}

#[tokio::test]
async fn bad_group_names_make_no_group() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let (long, heavy) = ("x".repeat(65), "\u{1f600}".repeat(65));
    for name in HIDDEN.iter().copied().chain([
        "",
        " ",
        "   ",
        &long,
        &heavy,
        "a\u{202e}b",
        "\u{200d}",
        "\u{200b}\u{200d}",
        "a\nb",
        "a\u{1b}[1m",
        "a/b",
        "e\u{301}",
        " a",
        "a ",
        "a\0",
        "p\u{430}ypal",
        "my g\u{3bf}ogle",
    ]) {
        refused(ann.create_group(name).await, Code::InvalidArgument, name);
        // A group of an earlier rule for names may have such a name, so it can be asked for.
        let code = ann.join_group(name).await.unwrap_err().code();
        assert!(matches!(code, Code::InvalidArgument | Code::NotFound), "{name:?}: {code:?}");
    }
    let request = pb::ListGroupsRequest::default();
    assert!(ann.groups().list_groups(request).await.unwrap().into_inner().groups.is_empty());
    ann.create_group("g1").await.unwrap();
    refused(ann.create_group("g1").await, Code::AlreadyExists, "twice");
    tracker.finish().await;
}

#[tokio::test]
async fn no_two_groups_look_alike_and_every_script_is_welcome() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    for (first, second) in [("cop", "сор"), ("TEAM", "ТЕАМ"), ("ОК", "ok"), ("\u{2764}", "\u{2764}\u{fe0f}")]
    {
        ann.create_group(first).await.unwrap();
        refused(ann.create_group(second).await, Code::AlreadyExists, second);
        refused(ann.join_group(second).await, Code::NotFound, "its look-alike is another name");
    }
    for name in [
        "team1",
        "teaml",
        "Клуб VIP",
        "می\u{200c}خواهم",
        "ශ\u{dca}\u{200d}රී",
        "Tシャツ",
        "👨\u{200d}👩\u{200d}👧",
    ] {
        ann.create_group(name).await.unwrap();
    }
    tracker.finish().await;
}

#[tokio::test]
async fn a_user_may_ask_once_and_again_after_a_rejection() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    ann.create_group("g1").await.unwrap();
    refused(ann.join_group("g1").await, Code::AlreadyExists, "one's own group");
    refused(bob.join_group("g2").await, Code::NotFound, "the group does not exist");
    bob.join_group("g1").await.unwrap();
    refused(bob.join_group("g1").await, Code::AlreadyExists, "twice");
    assert_eq!(requests(&ann, "g1").await, ["bob"]);
    ann.reject("g1", "bob").await.unwrap();
    refused(ann.reject("g1", "bob").await, Code::FailedPrecondition, "rejected twice");
    bob.join_group("g1").await.expect("again at once");
    ann.accept("g1", "bob").await.unwrap();
    refused(bob.join_group("g1").await, Code::AlreadyExists, "a member");
    assert_eq!(members(&bob, "g1").await, ["ann", "bob"]);

    // Many concurrent requests result in one request.
    let cat = Client::user(&tracker, "cat").await;
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let cat = cat.clone();
            tokio::spawn(async move { cat.join_group("g1").await })
        })
        .collect();
    let mut won = 0;
    for racer in racers {
        match racer.await.unwrap() {
            Ok(()) => won += 1,
            lost => drop(refused(lost, Code::AlreadyExists, "a racer")),
        }
    }
    assert_eq!((won, requests(&ann, "g1").await), (1, vec!["cat".to_owned()]));
    tracker.finish().await;
}

#[tokio::test]
async fn quotas_of_groups_and_requests_hold() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    for n in 0..100 {
        ann.create_group(&format!("g{n}")).await.unwrap();
    }
    refused(ann.create_group("g100").await, Code::ResourceExhausted, "a 101st group");
    for n in 0..20 {
        bob.join_group(&format!("g{n}")).await.unwrap();
    }
    refused(bob.join_group("g20").await, Code::ResourceExhausted, "a 21st request");
    bob.leave("g0").await.expect("a request is withdrawn");
    bob.join_group("g20").await.expect("there is room again");
    tracker.finish().await;
}

#[tokio::test]
async fn only_the_owner_may_answer_and_only_open_requests() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let bob = Client::user(&tracker, "bob").await;
    let cat = Client::user(&tracker, "cat").await;
    ann.found("g1", &[&bob]).await;
    cat.create_group("g2").await.unwrap();
    cat.join_group("g1").await.unwrap();
    refused(cat.accept("g1", "cat").await, Code::PermissionDenied, "one's own request");
    refused(bob.accept("g1", "cat").await, Code::PermissionDenied, "a member");
    refused(bob.reject("g1", "cat").await, Code::PermissionDenied, "a member");
    cat.leave("g1").await.unwrap();
    refused(ann.accept("g1", "cat").await, Code::FailedPrecondition, "withdrawn");
    refused(ann.accept("g1", "nobody").await, Code::FailedPrecondition, "never asked");
    bob.join_group("g2").await.unwrap();
    refused(ann.accept("g2", "bob").await, Code::PermissionDenied, "the owner of another group");
    assert_eq!(members(&ann, "g1").await, ["ann", "bob"]);
    tracker.finish().await;
}

#[tokio::test]
async fn the_owner_stays_until_the_group_is_transferred() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    ann.found("g1", &[&bob]).await;
    let _cat = Client::user(&tracker, "cat").await;
    refused(ann.remove("g1", "ann").await, Code::FailedPrecondition, "the owner");
    refused(ann.remove("g1", "cat").await, Code::NotFound, "not a member");
    refused(ann.transfer("g1", "cat").await, Code::FailedPrecondition, "to an outsider");
    refused(ann.transfer("g1", "nobody").await, Code::FailedPrecondition, "to nobody");
    ann.transfer("g1", "bob").await.unwrap();
    refused(ann.transfer("g1", "ann").await, Code::PermissionDenied, "back, by the old owner");
    bob.leave("g1").await.unwrap();
    // The longest-standing member owns it again.
    refused(ann.transfer("g1", "bob").await, Code::FailedPrecondition, "to one who left");
    refused(ann.remove("g1", "bob").await, Code::NotFound, "one who left");
    assert_eq!(members(&ann, "g1").await, ["ann"]);
    tracker.finish().await;
}

/// The responses to an outsider about a group and a file that exist must be byte for byte the same as about
/// ones that do not exist.
#[tokio::test]
async fn an_outsider_can_not_tell_what_exists() {
    let tracker = Tracker::start().await;
    let (ann, eve) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "eve").await);
    ann.create_group("g1").await.unwrap();
    let file = super::files::publish(&ann, "g1", "movie.mp4", b"bytes").await.unwrap();
    let peer = super::swarm::certify(&eve).await.unwrap();
    let mut seen = Vec::new();
    for (group, name, id) in
        [("g1", "movie.mp4", &file[..]), ("g1", "none", &[7; 16]), ("none", "movie.mp4", &file)]
    {
        let (group, name) = (group.to_owned(), name.to_owned());
        let mut answers = Vec::new();
        let list = pb::ListFilesRequest { group_id: group.clone(), ..Default::default() };
        answers.push(eve.files().list_files(list).await.unwrap_err());
        let get = pb::GetManifestRequest { group_id: group.clone(), name: name.clone() };
        answers.push(eve.files().get_manifest(get).await.unwrap_err());
        let take = pb::UnpublishFileRequest { group_id: group.clone(), name: name.clone() };
        answers.push(eve.files().unpublish_file(take).await.unwrap_err());
        let find = pb::FindPeersRequest { group_id: group.clone(), name, ..Default::default() };
        answers.push(eve.swarm().find_peers(find).await.unwrap_err());
        let members = pb::ListMembersRequest { group_id: group.clone(), ..Default::default() };
        answers.push(eve.groups().list_members(members).await.unwrap_err());
        let delete = pb::DeleteGroupRequest { group_id: group.clone() };
        answers.push(eve.groups().delete_group(delete).await.unwrap_err());
        let leave = pb::LeaveGroupRequest { group_id: group.clone() };
        answers.push(eve.groups().leave_group(leave).await.unwrap_err());
        let said: Vec<_> = answers
            .iter()
            .map(|status| (status.code(), status.message().to_owned(), status.details().to_vec()))
            .collect();
        assert!(said.iter().all(|(code, ..)| *code == Code::PermissionDenied), "{said:?}");
        let file = pb::FileRef { group_id: group, file_id: id.to_vec().into() };
        let tickets = pb::IssueTicketsRequest { peer_id: peer.clone(), files: vec![file] };
        seen.push((said, super::swarm::no_ticket(&eve, tickets).await));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    tracker.finish().await;
}
