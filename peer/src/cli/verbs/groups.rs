//! Groups and their members.

use std::time::Duration;

use proto::{pb, reason::Reason};
use serde_json::json;

use crate::cli::{Context, args::GroupAndUser, exit::Failure, render};

/// Items asked for in one call.
const PAGE: u32 = 1_000;
/// Pages of one list that are fetched at most: more than any list of an honest tracker has.
pub(super) const PAGES: u32 = 1_000;
/// Between two looks at whether the owner has answered.
const LOOK: Duration = Duration::from_secs(1);

/// Fetches all pages of a list.
macro_rules! all_pages {
    ($client:expr, $method:ident, $items:ident, $request:expr) => {{
        let mut client = $client;
        let mut request = $request;
        request.page_size = PAGE;
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
                let endless = "the tracker's list does not end";
                return Err(Failure::of(proto::reason::Reason::Corrupt, endless));
            }
        }
    }};
}
pub(super) use all_pages;

pub(super) async fn create(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::CreateGroupRequest { group_id: group.to_owned() };
    context.daemon().await?.groups().create_group(request).await?;
    context.style.done(&json!({"group": group}), &format!("{} is yours", render::name(group)));
    Ok(())
}

async fn fetch(context: &Context, mine: bool) -> Result<Vec<pb::Group>, Failure> {
    let groups = context.daemon().await?.groups();
    Ok(all_pages!(groups, list_groups, groups, pb::ListGroupsRequest { mine, ..Default::default() }))
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
        // To wait for an answer to an earlier request is as good.
        Err(failure) if wait && failure.reason == Reason::AlreadyAsked.as_str() => {}
        Err(failure) => return Err(failure),
    }
    if wait {
        return await_answer(context, group).await;
    }
    let text = format!("asked to be let into {}; its owner answers", render::name(group));
    context.style.done(&json!({"group": group, "standing": "requested"}), &text);
    Ok(())
}

async fn await_answer(context: &Context, group: &str) -> Result<(), Failure> {
    loop {
        let standing =
            fetch(context, true).await?.iter().find(|found| found.group_id == group).map(pb::Group::standing);
        match standing {
            Some(pb::Standing::Requested) => tokio::time::sleep(LOOK).await,
            Some(standing @ (pb::Standing::Member | pb::Standing::Owner)) => {
                let text = format!("you are a member of {}", render::name(group));
                context.style.done(&json!({"group": group, "standing": render::standing(standing)}), &text);
                return Ok(());
            }
            _ => {
                let message = format!("the owner of {} turned you away", render::name(group));
                return Err(Failure::of(Reason::NotAMember, message));
            }
        }
    }
}

pub(super) async fn leave(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::LeaveGroupRequest { group_id: group.to_owned() };
    context.daemon().await?.groups().leave_group(request).await?;
    context.style.done(&json!({"group": group}), &format!("you are out of {}", render::name(group)));
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
    told(context, who, "is a member of");
    Ok(())
}

pub(super) async fn reject(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::RejectJoinRequestRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().reject_join_request(request).await?;
    told(context, who, "was turned away from");
    Ok(())
}

pub(super) async fn remove(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::RemoveMemberRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().remove_member(request).await?;
    told(context, who, "is out of");
    Ok(())
}

pub(super) async fn transfer(context: &Context, who: &GroupAndUser) -> Result<(), Failure> {
    let GroupAndUser { group, user } = who;
    let request = pb::TransferOwnershipRequest { group_id: group.clone(), username: user.clone() };
    context.daemon().await?.groups().transfer_ownership(request).await?;
    told(context, who, "owns");
    Ok(())
}

pub(super) async fn delete(context: &Context, group: &str) -> Result<(), Failure> {
    let request = pb::DeleteGroupRequest { group_id: group.to_owned() };
    context.daemon().await?.groups().delete_group(request).await?;
    context.style.done(&json!({"group": group}), &format!("{} is no more", render::name(group)));
    Ok(())
}
