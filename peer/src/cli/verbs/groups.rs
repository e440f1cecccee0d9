//! Groups and their members.

use std::time::Duration;

use proto::{pb, reason::Reason};
use serde_json::json;

use super::leaving;
use crate::cli::{
    args::{GroupAndUser, Leaving},
    context::Context,
    exit::Failure,
    render,
};

/// The number of items that are asked for in one call.
pub(super) const PAGE: u32 = 1_000;
/// The most pages of one list that are fetched. No list of an honest tracker has as many.
pub(super) const PAGES: u32 = 1_000;
/// The time between two checks whether the owner has answered.
const LOOK: Duration = Duration::from_secs(1);

/// Fetches all pages of a list.
macro_rules! all_pages {
    ($client:expr, $method:ident, $items:ident, $request:expr) => {{
        let mut client = $client;
        let mut request = $request;
        request.page_size = $crate::cli::verbs::groups::PAGE;
        let mut all = Vec::new();
        let mut left = $crate::cli::verbs::groups::PAGES;
        loop {
            let page = client.$method(request.clone()).await?.into_inner();
            all.extend(page.$items);
            if page.next_page_token.is_empty() {
                break all;
            }
            request.page_token = page.next_page_token;
            left -= 1;
            if left == 0 {
                let endless = "the tracker's list of groups has too many pages";
                return Err(Failure::of(proto::reason::Reason::Corrupt, endless));
            }
        }
    }};
}
pub(super) use all_pages;

pub(super) async fn create(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::CreateGroupRequest { group_id: group.to_owned() };
    context.daemon().await?.groups().create_group(request).await?;
    context.style.done(&json!({"group": group}), &format!("the group {} was created", render::name(group)));
    Ok(())
}

async fn fetch(context: &Context, mine: bool) -> Result<Vec<pb::Group>, Failure> {
    let groups = context.daemon().await?.groups();
    Ok(all_pages!(groups, list_groups, groups, pb::ListGroupsRequest { mine, ..Default::default() }))
}

/// The user's standing in a group; `None` if they neither are in it nor asked to be.
pub(in crate::cli) async fn standing(
    context: &Context,
    group: &str,
) -> Result<Option<pb::Standing>, Failure> {
    let mine = fetch(context, true).await?;
    Ok(mine.iter().find(|found| found.group_id == group).map(pb::Group::standing))
}

pub(super) async fn list(context: &Context, mine: bool) -> Result<(), Failure> {
    let (object, text) = render::groups(&fetch(context, mine).await?);
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn join(context: &Context, group: &str, wait: bool) -> Result<(), Failure> {
    let request = pb::JoinGroupRequest { group_id: group.to_owned() };
    let asked = context.daemon().await?.groups().join_group(request).await;
    match asked.map_err(Failure::from) {
        Ok(_) => {}
        // Waiting for the answer to an earlier request gives the same result.
        Err(failure) if wait && failure.reason == Reason::AlreadyAsked.as_str() => {}
        Err(failure) => return Err(failure),
    }
    if wait {
        return await_answer(context, group).await;
    }
    let text = format!("the request to join {} was sent; its owner must accept it", render::name(group));
    context.style.done(&json!({"group": group, "standing": "requested"}), &text);
    Ok(())
}

async fn await_answer(context: &Context, group: &str) -> Result<(), Failure> {
    loop {
        match standing(context, group).await? {
            Some(pb::Standing::Requested) => tokio::time::sleep(LOOK).await,
            Some(
                standing @ (pb::Standing::Reader
                | pb::Standing::Member
                | pb::Standing::Manager
                | pb::Standing::Owner),
            ) => {
                let text = format!("you are a member of {}", render::name(group));
                context.style.done(&json!({"group": group, "standing": render::standing(standing)}), &text);
                return Ok(());
            }
            _ => {
                let message = format!("the owner of {} rejected your request", render::name(group));
                return Err(Failure::of(Reason::NotAMember, message));
            }
        }
    }
}

pub(super) async fn leave(context: &Context, group: &str, leaving: &Leaving) -> Result<(), Failure> {
    let request = pb::LeaveGroupRequest { group_id: group.to_owned() };
    let daemon = context.daemon().await?;
    leaving::check(context, &daemon, leaving, Some(group), None).await?;
    daemon.groups().leave_group(request).await?;
    context.style.done(&json!({"group": group}), &format!("you have left {}", render::name(group)));
    Ok(())
}

pub(super) async fn requests(context: &Context, group: &str) -> Result<(), Failure> {
    let groups = context.daemon().await?.groups();
    let request = pb::ListJoinRequestsRequest { group_id: group.to_owned(), ..Default::default() };
    let (object, text) = render::requests(&all_pages!(groups, list_join_requests, requests, request));
    context.style.result(&object, &text);
    Ok(())
}

pub(super) async fn members(context: &Context, group: &str) -> Result<(), Failure> {
    let groups = context.daemon().await?.groups();
    let request = pb::ListMembersRequest { group_id: group.to_owned(), ..Default::default() };
    let (object, text) = render::members(&all_pages!(groups, list_members, members, request));
    context.style.result(&object, &text);
    Ok(())
}

fn told(context: &Context, who: &GroupAndUser, what: &str) {
    let GroupAndUser { group, user } = who;
    let text = format!("{} {what} {}", render::name(user), render::name(group));
    context.style.done(&json!({"group": group, "user": user}), &text);
}

pub(super) async fn accept(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::AcceptJoinRequestRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().accept_join_request(request).await?;
    told(context, who, "is now a member of");
    Ok(())
}

pub(super) async fn reject(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::RejectJoinRequestRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().reject_join_request(request).await?;
    told(context, who, "was rejected from");
    Ok(())
}

pub(super) async fn remove(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::RemoveMemberRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().remove_member(request).await?;
    told(context, who, "was removed from");
    Ok(())
}

pub(super) async fn transfer(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::TransferOwnershipRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().transfer_ownership(request).await?;
    told(context, who, "owns");
    Ok(())
}

pub(super) async fn set_role(context: &Context, who: &GroupAndUser, role: &str) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let standing = match role {
        "reader" => pb::Standing::Reader,
        "manager" => pb::Standing::Manager,
        _ => pb::Standing::Member,
    };
    let request =
        pb::SetRoleRequest { group_id: group.clone(), username: user.clone(), role: standing.into() };
    context.daemon().await?.groups().set_role(request).await?;
    let text = format!("{} is now a {role} of {}", render::name(user), render::name(group));
    context.style.done(&json!({"group": group, "user": user, "role": role}), &text);
    Ok(())
}

pub(super) async fn delete(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::DeleteGroupRequest { group_id: group.to_owned() };
    context.daemon().await?.groups().delete_group(request).await?;
    context.style.done(&json!({"group": group}), &format!("the group {} was deleted", render::name(group)));
    Ok(())
}
