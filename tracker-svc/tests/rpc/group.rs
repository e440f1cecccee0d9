//! GroupService: what each RPC does and every status that it answers with.

use crate::support::{Tracker, User, refused};
use proto::{pb::*, reason::Reason};
use tonic::Status;

async fn members(user: &User, group: &str) -> Result<Vec<(String, i32)>, Status> {
    let request = ListMembersRequest { group_id: group.into(), ..Default::default() };
    let members = user.groups().list_members(request).await?.into_inner().members;
    assert!(members.iter().all(|member| member.since.is_some()));
    Ok(members.into_iter().map(|member| (member.username, member.role)).collect())
}

async fn requests(user: &User, group: &str) -> Result<Vec<String>, Status> {
    let request = ListJoinRequestsRequest { group_id: group.into(), ..Default::default() };
    let requests = user.groups().list_join_requests(request).await?.into_inner().requests;
    Ok(requests.into_iter().map(|request| request.username).collect())
}

async fn join(user: &User, group: &str) -> Result<(), Status> {
    user.groups().join_group(JoinGroupRequest { group_id: group.into() }).await.map(drop)
}

async fn leave(user: &User, group: &str) -> Result<(), Status> {
    user.groups().leave_group(LeaveGroupRequest { group_id: group.into() }).await.map(drop)
}

async fn accept(user: &User, group: &str, whom: &str) -> Result<(), Status> {
    let request = AcceptJoinRequestRequest { group_id: group.into(), username: whom.into() };
    user.groups().accept_join_request(request).await.map(drop)
}

async fn reject(user: &User, group: &str, whom: &str) -> Result<(), Status> {
    let request = RejectJoinRequestRequest { group_id: group.into(), username: whom.into() };
    user.groups().reject_join_request(request).await.map(drop)
}

async fn remove(user: &User, group: &str, whom: &str) -> Result<(), Status> {
    let request = RemoveMemberRequest { group_id: group.into(), username: whom.into() };
    user.groups().remove_member(request).await.map(drop)
}

async fn transfer(user: &User, group: &str, whom: &str) -> Result<(), Status> {
    let request = TransferOwnershipRequest { group_id: group.into(), username: whom.into() };
    user.groups().transfer_ownership(request).await.map(drop)
}

async fn delete(user: &User, group: &str) -> Result<(), Status> {
    user.groups().delete_group(DeleteGroupRequest { group_id: group.into() }).await.map(drop)
}

async fn list(user: &User, mine: bool) -> Vec<(String, String, u32, Standing)> {
    let request = ListGroupsRequest { mine, ..Default::default() };
    let groups = user.groups().list_groups(request).await.expect("a list").into_inner().groups;
    let row = |group: Group| (group.group_id.clone(), group.owner.clone(), group.members, group.standing());
    groups.into_iter().map(row).collect()
}

const OWNER: i32 = Standing::Owner as i32;
const MEMBER: i32 = Standing::Member as i32;

#[tokio::test]
async fn groups_are_made_once_and_only_with_good_names() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.group("Größe 1").await;
    let create = async |user: &User, name: &str| {
        user.groups().create_group(CreateGroupRequest { group_id: name.into() }).await
    };
    for taken in ["Größe 1", "größe 1", "GRÖSSE 1"] {
        refused(create(&bob, taken).await, Reason::AlreadyExists);
    }
    let (long, wide) = ("x".repeat(65), "\u{1f600}".repeat(65));
    for bad in
        ["", "   ", " a", &long, &wide, "a\u{202e}b", "\u{200d}", "a\nb", "\u{1b}[1m", "a/b", "e\u{301}"]
    {
        refused(create(&bob, bad).await, Reason::InvalidName);
    }
    refused(create(&tracker.anonymous(), "g2").await, Reason::NotLoggedIn);
    assert_eq!(list(&bob, false).await, [("Größe 1".into(), "ann".into(), 1, Standing::None)]);
    assert_eq!(list(&bob, true).await, []);
}

#[tokio::test]
async fn the_way_in_is_a_request_that_the_owner_accepts() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.group("g1").await;
    refused(join(&bob, "nowhere").await, Reason::GroupNotFound);
    join(&bob, "g1").await.expect("asked");
    refused(join(&bob, "g1").await, Reason::AlreadyAsked);
    refused(join(&ann, "g1").await, Reason::AlreadyAsked);
    assert_eq!(list(&bob, true).await, [("g1".into(), "ann".into(), 1, Standing::Requested)]);
    assert_eq!(requests(&ann, "g1").await.expect("the owner sees"), ["bob"]);
    // Nobody lets themselves in, nor does a stranger.
    refused(accept(&bob, "g1", "bob").await, Reason::NotAMember);
    refused(accept(&eve, "g1", "bob").await, Reason::NotAMember);
    refused(members(&bob, "g1").await, Reason::NotAMember);
    reject(&ann, "g1", "bob").await.expect("rejected");
    refused(reject(&ann, "g1", "bob").await, Reason::NoSuchRequest);
    refused(accept(&ann, "g1", "bob").await, Reason::NoSuchRequest);
    join(&bob, "g1").await.expect("asked again at once");
    accept(&ann, "g1", "bob").await.expect("let in");
    refused(accept(&ann, "g1", "bob").await, Reason::NoSuchRequest);
    refused(accept(&ann, "g1", "nobody").await, Reason::NoSuchRequest);
    let both = [("ann".into(), OWNER), ("bob".into(), MEMBER)];
    assert_eq!(members(&bob, "g1").await.expect("a member sees"), both);
    // A request that is withdrawn can't be accepted.
    join(&eve, "g1").await.expect("asked");
    leave(&eve, "g1").await.expect("withdrawn");
    refused(accept(&ann, "g1", "eve").await, Reason::NoSuchRequest);
    refused(leave(&eve, "g1").await, Reason::NotAMember);
}

#[tokio::test]
async fn members_call_no_owners_method_and_removed_ones_none() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.group("g1").await;
    bob.join("g1", &ann).await;
    eve.join("g1", &ann).await;
    refused(requests(&bob, "g1").await, Reason::NotTheOwner);
    refused(accept(&bob, "g1", "eve").await, Reason::NotTheOwner);
    refused(reject(&bob, "g1", "eve").await, Reason::NotTheOwner);
    refused(remove(&bob, "g1", "eve").await, Reason::NotTheOwner);
    refused(transfer(&bob, "g1", "bob").await, Reason::NotTheOwner);
    refused(delete(&bob, "g1").await, Reason::NotTheOwner);
    refused(remove(&ann, "g1", "ann").await, Reason::TargetIsOwner);
    refused(remove(&ann, "g1", "nobody").await, Reason::UserNotFound);
    remove(&ann, "g1", "bob").await.expect("put out");
    refused(remove(&ann, "g1", "bob").await, Reason::UserNotFound);
    for outcome in [
        members(&bob, "g1").await.map(drop),
        leave(&bob, "g1").await,
        requests(&bob, "g1").await.map(drop),
        delete(&bob, "g1").await,
    ] {
        refused(outcome, Reason::NotAMember);
    }
    join(&bob, "g1").await.expect("one who was put out may ask again");
}

#[tokio::test]
async fn outsiders_are_told_the_same_of_groups_that_are_and_are_not_there() {
    let tracker = Tracker::start().await;
    let (ann, eve) = (tracker.user("ann").await, tracker.user("eve").await);
    ann.group("g1").await;
    let ask = async |group: &str| {
        let refusals = [
            members(&eve, group).await.map(drop),
            requests(&eve, group).await.map(drop),
            accept(&eve, group, "ann").await,
            remove(&eve, group, "ann").await,
            transfer(&eve, group, "eve").await,
            delete(&eve, group).await,
            leave(&eve, group).await,
        ];
        refusals.map(|refusal| {
            let status = refused(refusal, Reason::NotAMember);
            (status.message().to_owned(), status.details().to_vec())
        })
    };
    assert_eq!(ask("g1").await, ask("nowhere").await);
}

#[tokio::test]
async fn ownership_is_handed_over_or_inherited_and_ends_with_the_last() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.group("g1").await;
    eve.join("g1", &ann).await;
    bob.join("g1", &ann).await;
    refused(transfer(&ann, "g1", "nobody").await, Reason::TargetNotAMember);
    transfer(&ann, "g1", "bob").await.expect("handed over");
    refused(delete(&ann, "g1").await, Reason::NotTheOwner);
    let all = [("ann".into(), MEMBER), ("eve".into(), MEMBER), ("bob".into(), OWNER)];
    assert_eq!(members(&ann, "g1").await.expect("still a member"), all);
    // The longest-standing member inherits, whoever that is.
    leave(&bob, "g1").await.expect("left");
    assert_eq!(members(&ann, "g1").await.expect("members"), [("ann".into(), OWNER), ("eve".into(), MEMBER)]);
    leave(&ann, "g1").await.expect("left");
    leave(&eve, "g1").await.expect("left");
    assert_eq!(list(&ann, false).await, []);
    ann.group("g1").await;
    assert_eq!(members(&ann, "g1").await.expect("a new group"), [("ann".into(), OWNER)]);
}

#[tokio::test]
async fn a_deleted_group_is_gone_for_everybody() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.group("g1").await;
    bob.join("g1", &ann).await;
    join(&eve, "g1").await.expect("asked");
    delete(&ann, "g1").await.expect("deleted");
    for user in [&ann, &bob] {
        refused(members(user, "g1").await, Reason::NotAMember);
    }
    refused(join(&eve, "g1").await, Reason::GroupNotFound);
}

#[tokio::test]
async fn lists_come_in_pages_that_hold_everything_once() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    for n in 0..7 {
        ann.group(&format!("group {n}")).await;
    }
    let mut request = ListGroupsRequest { page_size: 3, ..Default::default() };
    let mut names = Vec::new();
    loop {
        let page = ann.groups().list_groups(request.clone()).await.expect("a page").into_inner();
        assert!(page.groups.len() <= 3);
        names.extend(page.groups.into_iter().map(|group| group.group_id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, (0..7).map(|n| format!("group {n}")).collect::<Vec<_>>());
    request.page_token = "forged!".into();
    refused(ann.groups().list_groups(request).await, Reason::InvalidRequest);
}

#[tokio::test]
async fn quotas_end_in_resource_exhausted() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    for n in 0..100 {
        ann.group(&format!("g{n}")).await;
    }
    let one_more = CreateGroupRequest { group_id: "g100".into() };
    refused(ann.groups().create_group(one_more).await, Reason::QuotaExceeded);
    for n in 0..20 {
        join(&bob, &format!("g{n}")).await.expect("asked");
    }
    refused(join(&bob, "g20").await, Reason::QuotaExceeded);
    reject(&ann, "g0", "bob").await.expect("rejected");
    join(&bob, "g20").await.expect("there is room again");
}

#[tokio::test]
async fn of_two_answers_to_a_request_one_counts() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.group("g1").await;
    for _ in 0..5 {
        join(&bob, "g1").await.expect("asked");
        let (yes, no) = tokio::join!(accept(&ann, "g1", "bob"), reject(&ann, "g1", "bob"));
        let (won, lost) = if yes.is_ok() { (yes, no) } else { (no, yes) };
        won.expect("one of them");
        refused(lost, Reason::NoSuchRequest);
        if members(&bob, "g1").await.is_ok() {
            remove(&ann, "g1", "bob").await.expect("put out again");
        }
    }
}
