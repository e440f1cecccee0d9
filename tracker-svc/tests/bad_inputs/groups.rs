//! Groups, requests to join them, and what outsiders may learn: nothing.

use proto::pb;
use tonic::{Code, Status};

use super::{
    client::{Client, refused},
    process::Tracker,
};

pub(crate) async fn create(client: &Client, group: &str) -> Result<(), Status> {
    client.groups().create_group(pb::CreateGroupRequest { group_id: group.into() }).await.map(drop)
}

pub(crate) async fn join(client: &Client, group: &str) -> Result<(), Status> {
    client.groups().join_group(pb::JoinGroupRequest { group_id: group.into() }).await.map(drop)
}

pub(crate) async fn accept(owner: &Client, group: &str, user: &str) -> Result<(), Status> {
    let request = pb::AcceptJoinRequestRequest { group_id: group.into(), username: user.into() };
    owner.groups().accept_join_request(request).await.map(drop)
}

pub(crate) async fn remove(owner: &Client, group: &str, user: &str) -> Result<(), Status> {
    let request = pb::RemoveMemberRequest { group_id: group.into(), username: user.into() };
    owner.groups().remove_member(request).await.map(drop)
}

pub(crate) async fn delete(owner: &Client, group: &str) -> Result<(), Status> {
    owner.groups().delete_group(pb::DeleteGroupRequest { group_id: group.into() }).await.map(drop)
}

/// Makes the group with that owner and these members.
pub(crate) async fn found(group: &str, owner: &Client, members: &[&Client]) {
    create(owner, group).await.unwrap();
    for member in members {
        join(member, group).await.unwrap();
        accept(owner, group, &member.name).await.unwrap();
    }
}

async fn reject(owner: &Client, group: &str, user: &str) -> Result<(), Status> {
    let request = pb::RejectJoinRequestRequest { group_id: group.into(), username: user.into() };
    owner.groups().reject_join_request(request).await.map(drop)
}

async fn leave(client: &Client, group: &str) -> Result<(), Status> {
    client.groups().leave_group(pb::LeaveGroupRequest { group_id: group.into() }).await.map(drop)
}

async fn transfer(owner: &Client, group: &str, user: &str) -> Result<(), Status> {
    let request = pb::TransferOwnershipRequest { group_id: group.into(), username: user.into() };
    owner.groups().transfer_ownership(request).await.map(drop)
}

async fn members(member: &Client, group: &str) -> Vec<String> {
    let request = pb::ListMembersRequest { group_id: group.into(), ..Default::default() };
    let members = member.groups().list_members(request).await.unwrap().into_inner().members;
    members.into_iter().map(|member| member.username).collect()
}

async fn requests(owner: &Client, group: &str) -> Vec<String> {
    let request = pb::ListJoinRequestsRequest { group_id: group.into(), ..Default::default() };
    let requests = owner.groups().list_join_requests(request).await.unwrap().into_inner().requests;
    requests.into_iter().map(|request| request.username).collect()
}

#[tokio::test]
async fn bad_group_names_make_no_group() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let (long, heavy) = ("x".repeat(65), "\u{1f600}".repeat(65));
    for name in [
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
    ] {
        refused(create(&ann, name).await, Code::InvalidArgument, name);
        refused(join(&ann, name).await, Code::InvalidArgument, name);
    }
    let request = pb::ListGroupsRequest::default();
    assert!(ann.groups().list_groups(request).await.unwrap().into_inner().groups.is_empty());
    create(&ann, "g1").await.unwrap();
    refused(create(&ann, "g1").await, Code::AlreadyExists, "twice");
    tracker.finish().await;
}

#[tokio::test]
async fn one_asks_once_and_again_after_a_rejection() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    create(&ann, "g1").await.unwrap();
    refused(join(&ann, "g1").await, Code::AlreadyExists, "one's own group");
    refused(join(&bob, "g2").await, Code::NotFound, "no such group");
    join(&bob, "g1").await.unwrap();
    refused(join(&bob, "g1").await, Code::AlreadyExists, "twice");
    assert_eq!(requests(&ann, "g1").await, ["bob"]);
    reject(&ann, "g1", "bob").await.unwrap();
    refused(reject(&ann, "g1", "bob").await, Code::FailedPrecondition, "rejected twice");
    join(&bob, "g1").await.expect("again at once");
    accept(&ann, "g1", "bob").await.unwrap();
    refused(join(&bob, "g1").await, Code::AlreadyExists, "a member");
    assert_eq!(members(&bob, "g1").await, ["ann", "bob"]);

    // Many at once leave one request.
    let cat = Client::user(&tracker, "cat").await;
    let racers: Vec<_> = (0..20)
        .map(|_| {
            let cat = cat.clone();
            tokio::spawn(async move { join(&cat, "g1").await })
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
        create(&ann, &format!("g{n}")).await.unwrap();
    }
    refused(create(&ann, "g100").await, Code::ResourceExhausted, "a 101st group");
    for n in 0..20 {
        join(&bob, &format!("g{n}")).await.unwrap();
    }
    refused(join(&bob, "g20").await, Code::ResourceExhausted, "a 21st request");
    leave(&bob, "g0").await.expect("a request is withdrawn");
    join(&bob, "g20").await.expect("there is room again");
    tracker.finish().await;
}

#[tokio::test]
async fn only_the_owner_answers_and_only_open_requests() {
    let tracker = Tracker::start().await;
    let ann = Client::user(&tracker, "ann").await;
    let bob = Client::user(&tracker, "bob").await;
    let cat = Client::user(&tracker, "cat").await;
    found("g1", &ann, &[&bob]).await;
    create(&cat, "g2").await.unwrap();
    join(&cat, "g1").await.unwrap();
    refused(accept(&cat, "g1", "cat").await, Code::PermissionDenied, "one's own request");
    refused(accept(&bob, "g1", "cat").await, Code::PermissionDenied, "a member");
    refused(reject(&bob, "g1", "cat").await, Code::PermissionDenied, "a member");
    leave(&cat, "g1").await.unwrap();
    refused(accept(&ann, "g1", "cat").await, Code::FailedPrecondition, "withdrawn");
    refused(accept(&ann, "g1", "nobody").await, Code::FailedPrecondition, "never asked");
    join(&bob, "g2").await.unwrap();
    refused(accept(&ann, "g2", "bob").await, Code::PermissionDenied, "the owner of another group");
    assert_eq!(members(&ann, "g1").await, ["ann", "bob"]);
    tracker.finish().await;
}

#[tokio::test]
async fn the_owner_stays_until_the_group_is_a_members() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "bob").await);
    found("g1", &ann, &[&bob]).await;
    let _cat = Client::user(&tracker, "cat").await;
    refused(remove(&ann, "g1", "ann").await, Code::FailedPrecondition, "the owner");
    refused(remove(&ann, "g1", "cat").await, Code::NotFound, "not a member");
    refused(transfer(&ann, "g1", "cat").await, Code::FailedPrecondition, "to an outsider");
    refused(transfer(&ann, "g1", "nobody").await, Code::FailedPrecondition, "to nobody");
    transfer(&ann, "g1", "bob").await.unwrap();
    refused(transfer(&ann, "g1", "ann").await, Code::PermissionDenied, "back, by the old owner");
    leave(&bob, "g1").await.unwrap();
    // The longest-standing member has it again.
    refused(transfer(&ann, "g1", "bob").await, Code::FailedPrecondition, "to one who left");
    refused(remove(&ann, "g1", "bob").await, Code::NotFound, "one who left");
    assert_eq!(members(&ann, "g1").await, ["ann"]);
    tracker.finish().await;
}

/// An outsider's answers for a group and a file that exist must be, to the byte, those for ones that don't.
#[tokio::test]
async fn an_outsider_can_not_tell_what_exists() {
    let tracker = Tracker::start().await;
    let (ann, eve) = (Client::user(&tracker, "ann").await, Client::user(&tracker, "eve").await);
    create(&ann, "g1").await.unwrap();
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
        let find = pb::FindPeersRequest { group_id: group.clone(), name };
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
