//! GroupService: the effect of each RPC and every status that it returns.

use proto::{pb::*, reason::Reason};
use testkit::{
    client::{Client, refused},
    content::manifest,
    tracker::Tracker,
};
use tonic::{Request, Status};

async fn members(user: &Client, group: &str) -> Result<Vec<(String, i32)>, Status> {
    let members = user.members(group).await?;
    assert!(members.iter().all(|member| member.since.is_some()));
    Ok(members.into_iter().map(|member| (member.username, member.role)).collect())
}

async fn list(user: &Client, mine: bool) -> Vec<(String, String, u32, Standing)> {
    let request = ListGroupsRequest { mine, ..Default::default() };
    let groups = user.groups().list_groups(request).await.expect("a list").into_inner().groups;
    let row = |group: Group| (group.group_id.clone(), group.owner.clone(), group.members, group.standing());
    groups.into_iter().map(row).collect()
}

const OWNER: i32 = Standing::Owner as i32;
const MEMBER: i32 = Standing::Member as i32;

#[tokio::test]
async fn groups_are_created_once_and_only_with_valid_names() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.found("Größe 1", &[]).await;
    let create = async |user: &Client, name: &str| {
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
async fn a_user_joins_by_a_request_that_the_owner_accepts() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    refused(bob.join_group("nowhere").await, Reason::GroupNotFound);
    bob.join_group("g1").await.expect("asked");
    refused(bob.join_group("g1").await, Reason::AlreadyAsked);
    refused(ann.join_group("g1").await, Reason::AlreadyAsked);
    assert_eq!(list(&bob, true).await, [("g1".into(), "ann".into(), 1, Standing::Requested)]);
    assert_eq!(ann.requests("g1").await.expect("the owner sees"), ["bob"]);
    // Neither the applicant nor a stranger can accept the request.
    refused(bob.accept("g1", "bob").await, Reason::NotAMember);
    refused(eve.accept("g1", "bob").await, Reason::NotAMember);
    refused(members(&bob, "g1").await, Reason::NotAMember);
    ann.reject("g1", "bob").await.expect("rejected");
    refused(ann.reject("g1", "bob").await, Reason::NoSuchRequest);
    refused(ann.accept("g1", "bob").await, Reason::NoSuchRequest);
    bob.join_group("g1").await.expect("asked again at once");
    ann.accept("g1", "bob").await.expect("let in");
    ann.accept("g1", "bob").await.expect("a member already: the answer to the first call may have been lost");
    refused(ann.accept("g1", "nobody").await, Reason::NoSuchRequest);
    let both = [("ann".into(), OWNER), ("bob".into(), MEMBER)];
    assert_eq!(members(&bob, "g1").await.expect("a member sees"), both);
    // A withdrawn request cannot be accepted.
    eve.join_group("g1").await.expect("asked");
    eve.leave("g1").await.expect("withdrawn");
    refused(ann.accept("g1", "eve").await, Reason::NoSuchRequest);
    refused(eve.leave("g1").await, Reason::NotAMember);
}

#[tokio::test]
async fn members_may_not_call_owner_methods_and_removed_members_may_call_none() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    ann.admit("g1", &bob).await;
    ann.admit("g1", &eve).await;
    refused(bob.requests("g1").await, Reason::NotTheOwner);
    refused(bob.accept("g1", "eve").await, Reason::NotTheOwner);
    refused(bob.reject("g1", "eve").await, Reason::NotTheOwner);
    refused(bob.remove("g1", "eve").await, Reason::NotTheOwner);
    refused(bob.transfer("g1", "bob").await, Reason::NotTheOwner);
    refused(bob.delete_group("g1").await, Reason::NotTheOwner);
    refused(ann.remove("g1", "ann").await, Reason::TargetIsOwner);
    refused(ann.remove("g1", "nobody").await, Reason::UserNotFound);
    ann.remove("g1", "bob").await.expect("put out");
    refused(ann.remove("g1", "bob").await, Reason::UserNotFound);
    for outcome in [
        members(&bob, "g1").await.map(drop),
        bob.leave("g1").await,
        bob.requests("g1").await.map(drop),
        bob.delete_group("g1").await,
    ] {
        refused(outcome, Reason::NotAMember);
    }
    bob.join_group("g1").await.expect("one who was put out may ask again");
}

#[tokio::test]
async fn outsiders_get_the_same_answer_for_existing_and_missing_groups() {
    let tracker = Tracker::start().await;
    let (ann, eve) = (tracker.user("ann").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    let ask = async |group: &str| {
        let refusals = [
            members(&eve, group).await.map(drop),
            eve.requests(group).await.map(drop),
            eve.accept(group, "ann").await,
            eve.remove(group, "ann").await,
            eve.transfer(group, "eve").await,
            eve.delete_group(group).await,
            eve.leave(group).await,
        ];
        refusals.map(|refusal| {
            let status = refused(refusal, Reason::NotAMember);
            (status.message().to_owned(), status.details().to_vec())
        })
    };
    assert_eq!(ask("g1").await, ask("nowhere").await);
}

#[tokio::test]
async fn ownership_is_transferred_or_inherited_and_the_group_ends_with_its_last_member() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    ann.admit("g1", &eve).await;
    ann.admit("g1", &bob).await;
    refused(ann.transfer("g1", "nobody").await, Reason::TargetNotAMember);
    ann.transfer("g1", "bob").await.expect("handed over");
    refused(ann.delete_group("g1").await, Reason::NotTheOwner);
    let all = [("ann".into(), MEMBER), ("eve".into(), MEMBER), ("bob".into(), OWNER)];
    assert_eq!(members(&ann, "g1").await.expect("still a member"), all);
    // The longest-standing member becomes the owner.
    bob.leave("g1").await.expect("left");
    assert_eq!(members(&ann, "g1").await.expect("members"), [("ann".into(), OWNER), ("eve".into(), MEMBER)]);
    ann.leave("g1").await.expect("left");
    eve.leave("g1").await.expect("left");
    assert_eq!(list(&ann, false).await, []);
    ann.found("g1", &[]).await;
    assert_eq!(members(&ann, "g1").await.expect("a new group"), [("ann".into(), OWNER)]);
}

#[tokio::test]
async fn a_deleted_group_is_gone_for_everybody() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    ann.found("g1", &[]).await;
    ann.admit("g1", &bob).await;
    eve.join_group("g1").await.expect("asked");
    ann.delete_group("g1").await.expect("deleted");
    for user in [&ann, &bob] {
        refused(members(user, "g1").await, Reason::NotAMember);
    }
    refused(eve.join_group("g1").await, Reason::GroupNotFound);
}

#[tokio::test]
async fn the_pages_of_a_list_contain_each_entry_once() {
    let tracker = Tracker::start().await;
    let ann = tracker.user("ann").await;
    for n in 0..7 {
        ann.found(&format!("group {n}"), &[]).await;
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
async fn exceeded_quotas_are_resource_exhausted() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    for n in 0..100 {
        ann.found(&format!("g{n}"), &[]).await;
    }
    let one_more = CreateGroupRequest { group_id: "g100".into() };
    refused(ann.groups().create_group(one_more).await, Reason::QuotaExceeded);
    for n in 0..20 {
        bob.join_group(&format!("g{n}")).await.expect("asked");
    }
    refused(bob.join_group("g20").await, Reason::QuotaExceeded);
    ann.reject("g0", "bob").await.expect("rejected");
    bob.join_group("g20").await.expect("there is room again");
}

#[tokio::test]
async fn the_operator_may_name_who_makes_groups() {
    let tracker = Tracker::start_with(&[("group_creator", "ann,bob")]).await;
    let (ann, eve) = (tracker.user("ann").await, tracker.user("eve").await);
    ann.found("g1", &[&eve]).await;
    refused(eve.create_group("g2").await, Reason::GroupCreationClosed);
    // A group may be handed to anybody.
    ann.transfer("g1", "eve").await.expect("transferred");
}

#[tokio::test]
async fn only_the_first_answer_to_a_request_counts() {
    let tracker = Tracker::start().await;
    let (ann, bob) = (tracker.user("ann").await, tracker.user("bob").await);
    ann.found("g1", &[]).await;
    for _ in 0..5 {
        bob.join_group("g1").await.expect("asked");
        let (yes, no) = tokio::join!(ann.accept("g1", "bob"), ann.reject("g1", "bob"));
        let (won, lost) = if yes.is_ok() { (yes, no) } else { (no, yes) };
        won.expect("one of them");
        refused(lost, Reason::NoSuchRequest);
        if members(&bob, "g1").await.is_ok() {
            ann.remove("g1", "bob").await.expect("put out again");
        }
    }
}

/// A request with this id.
fn named<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-request-id", id.parse().expect("a header value"));
    request
}

#[tokio::test]
async fn a_call_repeated_after_a_lost_answer_succeeds_once_more() {
    let tracker = Tracker::start().await;
    let (ann, bob, eve) = (tracker.user("ann").await, tracker.user("bob").await, tracker.user("eve").await);
    let create = async |user: &Client, id: &str| {
        let request = named(id, CreateGroupRequest { group_id: "g1".into() });
        user.groups().create_group(request).await.map(drop)
    };
    create(&ann, "create").await.expect("made");
    create(&ann, "create").await.expect("the same call");
    refused(create(&ann, "another").await, Reason::AlreadyExists);
    refused(create(&bob, "create").await, Reason::AlreadyExists);
    for user in [&bob, &eve] {
        for _ in 0..2 {
            let request = named("join", JoinGroupRequest { group_id: "g1".into() });
            user.groups().join_group(request).await.expect("asked");
        }
        refused(user.join_group("g1").await, Reason::AlreadyAsked);
    }
    for _ in 0..2 {
        let whom = RejectJoinRequestRequest { group_id: "g1".into(), username: "eve".into() };
        ann.groups().reject_join_request(named("reject", whom)).await.expect("rejected");
    }
    refused(ann.reject("g1", "eve").await, Reason::NoSuchRequest);
    ann.accept("g1", "bob").await.expect("let in");
    ann.accept("g1", "bob").await.expect("let in, whatever the id");
    ann.admit("g1", &eve).await;
    for _ in 0..2 {
        let whom = RemoveMemberRequest { group_id: "g1".into(), username: "eve".into() };
        ann.groups().remove_member(named("remove", whom)).await.expect("put out");
    }
    refused(ann.remove("g1", "eve").await, Reason::UserNotFound);
    for _ in 0..2 {
        let whom = TransferOwnershipRequest { group_id: "g1".into(), username: "bob".into() };
        ann.groups().transfer_ownership(named("transfer", whom)).await.expect("handed over");
    }
    refused(ann.transfer("g1", "bob").await, Reason::NotTheOwner);
    let manifest = manifest("a.bin", b"abc");
    bob.publish("g1", &manifest).await.expect("published");
    for _ in 0..2 {
        let file = UnpublishFileRequest { group_id: "g1".into(), name: "a.bin".into() };
        bob.files().unpublish_file(named("unpublish", file)).await.expect("unlisted");
    }
    for _ in 0..2 {
        let request = named("leave", LeaveGroupRequest { group_id: "g1".into() });
        ann.groups().leave_group(request).await.expect("left");
    }
    refused(ann.leave("g1").await, Reason::NotAMember);
    for _ in 0..2 {
        let request = named("delete", DeleteGroupRequest { group_id: "g1".into() });
        bob.groups().delete_group(request).await.expect("deleted");
    }
    refused(bob.delete_group("g1").await, Reason::NotAMember);
}
